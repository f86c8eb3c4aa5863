"""Maps, helpers and ring buffers on the interp, jit and native legs."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import pipeline
from harness.compare import agree, compare_all
from harness.interp import RECORD, name_hash
from harness.isa.asm import assemble
from harness.legs import kfuncs, sides
from harness.legs.interp import InterpLeg
from harness.legs.jit import JitLeg
from harness.model import Batch, BuildConfig, MapDef, Program, Returned, Subprogram, Trapped
from harness.source import driver

SOURCE = Path("c_sources/calls/maps.c")
RING = MapDef("ring", 27, 0, 0, 4096)
OTHER = replace(RING, name="other")


@pytest.fixture(scope="module")
def plan(compiler):
    config = BuildConfig(compiler.name, "2", "v4", "hidden")
    chosen = pipeline.Settings((config,), (compiler,), vectors=48)
    return config, chosen, pipeline.plan(SOURCE, str(SOURCE), chosen)


def test_c_with_maps_agrees_on_all_legs(plan):
    config, chosen, planned = plan
    assert not planned.native_why
    checks = pipeline.check_build(planned, config, chosen)
    assert [c.outcome for c in checks if c.outcome not in ("agree", "unknown")] == []
    unknown = {c.function: c.detail for c in checks if c.outcome == "unknown"}
    # what the verifier does not know yet is no reason for the legs to differ
    assert all(detail.startswith("verifier: ") for detail in unknown.values()), unknown
    assert len(checks) == 10


@pytest.mark.parametrize("path", sorted(SOURCE.parent.glob("*.c")), ids=lambda path: path.stem)
def test_no_vector_meets_undefined_behaviour(path, compiler):
    config = BuildConfig(compiler.name, "2", "v4", "hidden")
    chosen = pipeline.Settings((config,), (compiler,), legs=("interp", "jit"), vectors=300)
    planned = pipeline.plan(path, path.name, chosen)
    assert planned.layouts, planned.failure
    assert pipeline.undefined_in(planned, chosen) == {}


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
    assert f"records[{sides.SIZE - sides.HEAD.size}]" in header


def program(text, maps=(RING, OTHER)):
    assembly = assemble(text)
    main = Subprogram("main", 0, len(assembly.insns))
    return Program("main", "syscall", "syscall", assembly.insns, (main,), maps=tuple(maps))


@pytest.fixture(scope="module")
def helpers(compiler):
    code = kfuncs.build_helpers(compiler)
    assert isinstance(code, bytes), code
    return code


@pytest.fixture
def outcomes(helpers):
    """Run a text on the interpreter, and compiled with helpers in Python and in C."""

    def run(text, maps=(RING, OTHER), vectors=(bytes(8),)):
        made = program(text, maps)
        seen = list(InterpLeg().prepare(made).run(vectors))
        python = JitLeg(patience=0.05).prepare(made)
        assert python.native is None
        assert list(python.run(vectors)) == seen
        native = JitLeg(patience=0.05).prepare(replace(made, helper_code=helpers))
        assert native.native is not None
        assert list(native.run(vectors)) == seen
        return seen[0]

    return run


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


def test_records_of_all_buffers_in_order(outcomes):
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
def test_what_ring_buffers_answer(text, result, outcomes):
    assert outcomes(text + "exit").r0 == result & (1 << 64) - 1


def test_discarded_records_leave_no_effect(outcomes):
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


HASH = MapDef("hash", 1, 4, 8, 3)
ARRAY = MapDef("array", 2, 4, 12, 4)
CALLS = {  # of the map in slot, with key and value on the stack
    "look": "call 1\nif r0 == 0 goto +1\nr0 = *(u32 *)(r0 + 0)\n",
    "update": "r3 = r10\nr3 += -24\nr4 = {flags}\ncall 2\n",
    "delete": "call 3\n",
}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(CALLS)),
            st.integers(0, 1),  # the map
            st.integers(0, 5),  # its key, to which the vector adds
            st.integers(0, 3),  # flags
        ),
        min_size=1,
        max_size=12,
    )
)
def test_maps_in_c_do_what_those_in_python_do(outcomes, steps):
    text = "r6 = r1\nr7 = *(u32 *)(r6 + 0)\nr8 = 0\n*(u64 *)(r10 - 16) = 0\n"
    for number, (call, place, key, flags) in enumerate(steps):
        text += f"r1 = r7\nr1 += {key}\n*(u64 *)(r10 - 8) = r1\n"
        text += f"*(u64 *)(r10 - 24) = {number + 1}\n"
        text += f"r1 = map[idx:{place}]\nr2 = r10\nr2 += -8\n"
        text += CALLS[call].format(flags=flags) + "r8 *= 31\nr8 += r0\n"
    text += "r0 = r8\nexit"
    vectors = [number.to_bytes(8, "little") for number in range(4)]
    outcomes(text, (HASH, ARRAY), vectors)


def test_helpers_in_c_know_time_chance_and_processor(outcomes):
    text = "call 7\nr6 = r0\ncall 5\nr6 += r0\ncall 8\nr6 += r0\nr0 = r6\nexit"
    outcomes(text, (), [number.to_bytes(8, "little") for number in range(40)])


def test_more_records_than_there_is_room_for_are_unknown(helpers):
    big = replace(RING, max_entries=1 << 16)
    reserve = "r1 = map[idx:0]\nr2 = 16000\nr3 = 0\ncall 131\nr1 = r0\nr2 = 0\ncall 132\n"
    made = replace(program(reserve * 2 + "exit", (big,)), helper_code=helpers)
    (seen,) = JitLeg().prepare(made).run([bytes(8)])
    assert "16376 bytes of records" in seen.why


def test_helpers_in_python_take_what_those_in_c_do_not(helpers):
    many = MapDef("many", 1, 8, 64, 1 << 20)
    made = replace(program("r0 = map[idx:0]\ncall 5\nexit", (many,)), helper_code=helpers)
    runner = JitLeg().prepare(made)
    assert runner.native is None
    assert runner.run([b""])[0] == Returned(0x0123456789AB, b"")
