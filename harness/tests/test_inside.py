"""Every step of the interpreter lies inside what the verifier knows there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from harness import corpus, inside, pipeline, verifier
from harness.interp import HELPERS, Interpreter, Machine
from harness.legs.kfunc_models import KFUNCS
from harness.model import Accepted, BuildConfig, Program
from harness.tests.programs import HASH, program
from harness.tests.streams import PROGRAMS, VECTORS, examples
from harness.toolchain import Compiler
from harness.verifier import bounds, follow
from harness.verifier.state import MAP_VALUE, MAYBE_NULL, SCALAR, Reg, Slot

ROOT = Path(__file__).parents[2]
CASES = sorted(p for p in (ROOT / "corpus").glob("*.toml") if p.name != "known.toml")


def followed(subject: Program, vector: bytes, options: verifier.Options) -> inside.Inside | None:
    """Follow *subject* on *vector*; None: the verifier does not accept it."""
    found = verifier.verify(subject, log_level=0, options=options)
    if not isinstance(found.verdict, Accepted):
        return None
    interpreter = Interpreter(subject, HELPERS, KFUNCS)
    return inside.follow(subject, vector, options=options, interpreter=interpreter, steps=300)


def test_cases_stay_inside() -> None:
    runs = steps = 0
    for path in CASES:
        case = corpus.read(path)
        if case.program is None or not case.runs:
            continue
        subject = corpus.program(case.program, case.name)
        options = verifier.Options(infer_arguments=subject.btf is None)
        found = followed(subject, case.runs[-1].ctx, options)
        if found is not None:
            assert not found.fault, f"{path.name}: {found.fault}"
            runs += 1
            steps += found.steps
    assert runs > 80
    assert steps > 1000


@pytest.mark.parametrize(
    ("source", "opt", "mcpu", "linkage"),
    [
        ("chains", "0", "v4", "static"),
        ("loops", "2", "v3", "hidden"),
        ("structs", "1", "v2", "static"),
        ("pointers", "2", "v1", "hidden"),
        ("calls/maps", "2", "v3", "static"),
    ],
)
def test_drivers_stay_inside(
    source: str, opt: str, mcpu: str, linkage: str, compiler: Compiler
) -> None:
    path = ROOT / "c_sources" / f"{source}.c"
    config = BuildConfig(compiler.name, opt, mcpu, linkage)
    chosen = pipeline.Settings((config,), (compiler,), legs=("interp",), vectors=8, seed=5)
    planned = pipeline.plan(path, path.name, chosen)
    assert not planned.failure
    built = pipeline.compile_build(planned, config, chosen)
    runs = 0
    for subject, vectors in pipeline.built_programs(built, chosen):
        found = followed(subject, vectors[-1], pipeline._options(chosen))
        if found is not None:
            assert not found.fault, f"{subject.name}: {found.fault}"
            runs += 1
    assert runs


@settings(deadline=None, max_examples=examples(150), suppress_health_check=list(HealthCheck))
@given(PROGRAMS, VECTORS)
def test_streams_stay_inside(subject: Program, vector: bytes) -> None:
    found = followed(subject, vector, verifier.Options())
    assert found is None or not found.fault


# --- what it would notice ---------------------------------------------------

SUM = """
r6 = *(u64 *)(r1 + 0)
r6 &= 15
r6 += 1
*(u32 *)(r10 - 8) = r6
r7 = r6
r0 = *(u32 *)(r10 - 8)
*(u64 *)(r11 - 8) = r7
r1 = r10
r2 = 2
r3 = 3
r4 = 4
r5 = 5
call six
exit
six:
r0 = *(u64 *)(r11 + 8)
exit
"""


def test_a_wrong_sum_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = program(SUM, {"six": 6})
    vector = bytes([7] * 64)
    assert inside.follow(subject, vector) == inside.Inside(16)
    right = bounds.alu

    def wrong(op: str, bits: int, dst: bounds.Scalar, src: bounds.Scalar) -> bounds.Scalar:
        return dst if op == "add" else right(op, bits, dst, src)

    monkeypatch.setattr(bounds, "alu", wrong)
    fault = inside.follow(subject, bytes([15] * 64)).fault
    assert fault.startswith("insn 3: r6 is 0x10, the verifier has scalar(")


def test_a_lost_slot_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = program(SUM, {"six": 6})
    slots = inside._values

    def zeroed(state, *rest):
        for frame in state.frames:
            frame.stack = [Slot(b"\3" * 8) for _ in frame.stack]
        return slots(state, *rest)

    monkeypatch.setattr(inside, "_values", zeroed)
    fault = inside.follow(subject, bytes([7] * 64)).fault
    assert fault == "insn 4: byte 0 of fp-8 of frame 0 is 0x8, the verifier has scalar(0)"


def test_another_way_is_noticed() -> None:
    subject = program("r0 = *(u64 *)(r1 + 0)\nif r0 == 0 goto out\nr0 = 1\nout:\nexit")
    interpreter = Interpreter(subject)
    interpreter.steps[1] = lambda _machine: 0
    found = inside.follow(subject, bytes(64), interpreter=interpreter)
    assert found.fault == "insn 0: the verifier goes on at [2, 3]"


def test_a_trap_of_what_is_accepted_is_noticed() -> None:
    subject = program("r0 = *(u64 *)(r1 + 64)\nexit")
    assert inside.follow(subject, bytes(8)).fault.startswith("trapped after 1 steps: access")


def test_a_refusal_on_the_way_is_noticed() -> None:
    subject = program("r0 = r10\nr0 *= 2\nr0 = 0\nexit")
    fault = inside.follow(subject, bytes(8)).fault
    assert fault == "refused after 2 steps: R0 pointer arithmetic with *= operator prohibited"


def test_registers_of_one_id_are_equal() -> None:
    subject = program("r6 = *(u64 *)(r1 + 0)\nr7 = r6\nr0 = 0\nexit")
    interpreter = Interpreter(subject)
    right = interpreter.steps[2]

    def step(machine: Machine) -> int:
        machine.registers[7] += 1
        return right(machine)

    interpreter.steps[2] = step
    fault = inside.follow(subject, bytes(8), interpreter=interpreter).fault
    assert fault == "insn 3: r7 and r6 have the id 1, but not the same value"


def test_a_global_function_is_followed_with_any_arguments() -> None:
    text = """
    r1 = 77
    r2 = 2
    call worker
    exit
    worker:
    r0 = r1
    r0 += r2
    exit
    """
    subject = program(text, {"worker": 2}, linkage={"worker": "global"})
    assert inside.follow(subject, bytes(8)) == inside.Inside(7)


def test_a_callback_is_followed_round_by_round() -> None:
    text = """
    *(u64 *)(r10 - 8) = 1
    r1 = 3
    r2 = each ll
    r3 = r10
    r3 += -8
    r4 = 0
    call bpf_loop
    r0 = 0
    exit
    each:
    r0 = *(u64 *)(r2 + 0)
    r0 += r1
    *(u64 *)(r2 + 0) = r0
    r0 = 0
    exit
    """
    subject = program(text, {"each": 2})
    assert inside.follow(subject, bytes(8)) == inside.Inside(7 + 3 * 5 + 2)
    interpreter = Interpreter(subject)
    back = interpreter.steps[14]

    def too_far(machine: Machine) -> int:
        back(machine)
        return 9

    interpreter.steps[14] = too_far
    fault = inside.follow(subject, bytes(8), interpreter=interpreter).fault
    assert fault == "insn 9: the verifier goes on at [8, 10]"


def test_long_runs_are_cut_and_say_so() -> None:
    subject = program("r0 = 0\nagain:\nr0 += 1\nif r0 < 100 goto again\nexit")
    found = inside.follow(subject, bytes(8), steps=20)
    assert (found.steps, found.why, found.fault) == (20, "more than 20 steps", "")


def test_what_is_not_modelled_is_no_fault() -> None:
    subject = program("call 9999\nexit")
    assert inside.follow(subject, bytes(8)).why
    assert not inside.follow(subject, bytes(8)).fault


@pytest.mark.parametrize(
    ("reg", "value", "expected"),
    [
        (Reg(SCALAR, bounds.const(5)), 5, True),
        (Reg(SCALAR, bounds.const(5)), 6, False),
        (Reg(MAP_VALUE | MAYBE_NULL, bounds.const(0), 1, info=HASH), 0, True),
        (Reg(MAP_VALUE, bounds.const(0), 1, info=HASH), 0, False),
        (Reg(MAP_VALUE, bounds.const(8), 1, info=HASH), 0x10_0001_0000_0008, True),
        (Reg(MAP_VALUE, bounds.const(8), 1, info=HASH), 0x10_0001_0000_0000, False),
    ],
)
def test_members(reg: Reg, value: int, expected: bool) -> None:
    subject = replace(program("r0 = 0\nexit"), maps=(HASH,))
    assert inside.member(reg, value, Machine(subject, bytes(8))) is expected


def test_may_goto_goes_both_ways() -> None:
    subject = program("r0 = 0\nmore:\nmay_goto out\nr0 = 1\ngoto more\nout:\nexit")
    follower = follow.Follower(subject)
    follower.arrive(0, 0, lambda _state: None)
    follower.step()
    follower.arrive(1, 0, lambda _state: None)
    follower.step()
    assert sorted(at for _, at in follower._left) == [2, 4]
