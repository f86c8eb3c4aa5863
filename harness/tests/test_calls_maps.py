"""Maps, helpers and ring buffers on the interp, jit and native legs."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from harness import pipeline
from harness.compare import agree, compare_all
from harness.interp import RECORD, name_hash
from harness.isa.asm import assemble
from harness.legs.interp import InterpLeg
from harness.legs.jit import JitLeg
from harness.legs.native_cage import SIDE
from harness.model import Batch, BuildConfig, MapDef, Program, Returned, Subprogram, Trapped
from harness.source import driver

SOURCE = Path("c_sources/calls/maps.c")
RING = MapDef("ring", 27, 0, 0, 4096)
OTHER = replace(RING, name="other")


@pytest.fixture(scope="module")
def plan(compiler):
    config = BuildConfig(compiler.name, "2", "v4", "hidden")
    settings = pipeline.Settings((config,), (compiler,), vectors=48)
    return config, settings, pipeline.plan(SOURCE, str(SOURCE), settings)


def test_c_with_maps_agrees_on_all_legs(plan):
    config, settings, planned = plan
    assert not planned.native_why
    checks = pipeline.check_build(planned, config, settings)
    assert [c.outcome for c in checks if c.outcome not in ("agree", "unknown")] == []
    unknown = {c.function: c.detail for c in checks if c.outcome == "unknown"}
    # what the verifier does not know yet is no reason for the legs to differ
    assert all(detail.startswith("verifier: ") for detail in unknown.values()), unknown
    assert len(checks) == 10


@pytest.mark.parametrize("path", sorted(SOURCE.parent.glob("*.c")), ids=lambda path: path.stem)
def test_no_vector_meets_undefined_behaviour(path, compiler):
    config = BuildConfig(compiler.name, "2", "v4", "hidden")
    settings = pipeline.Settings((config,), (compiler,), legs=("interp", "jit"), vectors=300)
    planned = pipeline.plan(path, path.name, settings)
    assert planned.layouts, planned.failure
    assert pipeline.undefined_in(planned, settings) == {}


def test_effects_reach_the_comparison(plan):
    _, _, planned = plan
    seen = Batch.of(planned.natives["ring_reserve"]["native-O2"])
    assert len(seen.effects) == len(seen)
    for outcome, vector in zip(seen, planned.vectors["ring_reserve"], strict=True):
        place = next(p for p in planned.layouts if p.signature.name == "ring_reserve")
        a, b, c, d, e, f = (int.from_bytes(vector[x.offset : x.offset + 8], "little")
                            for x in place.arguments)  # fmt: skip
        first = RECORD.pack(name_hash("ring"), 16) + struct.pack("<2Q", a + b & 2**64 - 1, c ^ d)
        second = RECORD.pack(name_hash("ring"), 8) + struct.pack("<Q", e * f & 2**64 - 1)
        assert outcome.effects == (b"" if a & 1 else first) + second
    wrong = Batch(seen.r0s, seen.contexts, {}, {**seen.effects, 3: b"x"})
    assert wrong != seen
    vectors = planned.vectors["ring_reserve"]
    ((number, divergence),) = compare_all({"a": seen, "b": wrong}, vectors)
    assert (number, divergence.offset) == (3, None)


def test_columns_keep_effects():
    outcomes = [Returned(1, b"a"), Returned(2, b"b", b"effect"), Trapped("access")]
    batch = Batch.of(outcomes)
    assert list(batch) == outcomes
    assert list(batch[1:]) == outcomes[1:]
    assert batch == outcomes
    assert batch[:1] != batch[1:2]
    assert not agree(outcomes[1], Returned(2, b"b"))
    unread = Returned(2, b"b", None)
    assert agree(outcomes[1], unread)
    assert Batch.of([unread])[0] == unread


def test_the_driver_says_where_the_side_is(plan):
    _, _, planned = plan
    place = planned.layouts[0]
    assert f"crosscheck_ctx + {-(-place.size // 8) * 8})" in driver.driver(place)
    header = Path("harness/source/include/crosscheck/helpers.c").read_text()
    assert f"records[{SIDE - 8}]" in header


def program(text, maps=(RING, OTHER)):
    assembly = assemble(text)
    main = Subprogram("main", 0, len(assembly.insns))
    return Program("main", "syscall", "syscall", assembly.insns, (main,), maps=tuple(maps))


def outcomes(text):
    made = program(text)
    seen = InterpLeg().prepare(made).run([bytes(8)])
    assert list(JitLeg(patience=0.05).prepare(made).run([bytes(8)])) == seen
    return seen[0]


OUTPUT = """
*(u64 *)(r10 - 8) = {value}
r1 = map[idx:{map}]
r2 = r10
r2 += -8
r3 = {size}
r4 = {flags}
call 130
"""


def output(value, map=0, size=8, flags=0):  # noqa: A002
    return OUTPUT.format(value=value, map=map, size=size, flags=flags)


def record(name, data):
    return RECORD.pack(name_hash(name), len(data)) + data


def test_records_of_all_buffers_in_order():
    text = output(5) + output(6, map=1, size=3) + output(7, size=0) + "exit"
    expected = record("ring", b"\5" + bytes(7)) + record("other", b"\6\0\0") + record("ring", b"")
    assert outcomes(text) == Returned(0, bytes(8), expected)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (output(1, flags=4), -22),
        (output(1, size=4097), -11),
        (output(1) + "r1 = map[idx:0]\nr2 = 0\ncall 134\n", 16),
        (output(1) + "r1 = map[idx:0]\nr2 = 1\ncall 134\n", 4096),
        (output(1) + "r1 = map[idx:0]\nr2 = 2\ncall 134\n", 0),
        (output(1) + "r1 = map[idx:0]\nr2 = 3\ncall 134\n", 16),
        ("r1 = map[idx:0]\nr2 = 8\nr3 = 1\ncall 131\n", 0),
        ("r1 = map[idx:0]\nr2 = 4088\nr3 = 0\ncall 131\n", 0),
    ],
)
def test_what_ring_buffers_answer(text, result):
    assert outcomes(text + "exit").r0 == result & (1 << 64) - 1


def test_discarded_records_leave_no_effect():
    text = """
    r1 = map[idx:0]
    r2 = 8
    r3 = 0
    call 131
    *(u64 *)(r0 + 0) = 7
    r1 = r0
    r2 = 0
    call {}
    r0 = 0
    exit
    """
    assert outcomes(text.format(133)).effects == b""
    assert outcomes(text.format(132)).effects == record("ring", b"\7" + bytes(7))


def test_what_is_no_record_traps():
    made = program("r1 = r10\nr2 = 0\ncall 132\nexit")
    (seen,) = InterpLeg().prepare(made).run([b""])
    assert isinstance(seen, Trapped)
    assert "is no reserved record" in seen.where
