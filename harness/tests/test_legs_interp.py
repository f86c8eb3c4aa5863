import pytest

from harness.interp import CONVERTED_CONTEXTS
from harness.isa.asm import assemble
from harness.legs.interp import MAX_OUT_OF_FUEL, InterpLeg
from harness.model import OutOfFuel, Program, Returned, Subprogram, Trapped, Unknown


def prepared(source, kind="syscall", fuel=1000):
    insns = assemble(source).insns
    program = Program("f", kind, kind, insns, (Subprogram("f", 0, len(insns)),))
    return InterpLeg(fuel).prepare(program)


def test_one_outcome_for_each_vector():
    runner = prepared("r0 = *(u8 *)(r1 + 0)\nif r0 != 2 goto E\nr0 = *(u8 *)(r1 + 1)\nE: exit")
    outcomes = runner.run([b"\1", b"\2", b"\3"])
    assert outcomes[::2] == [Returned(1, b"\1"), Returned(3, b"\3")]
    assert isinstance(outcomes[1], Trapped)
    assert runner.run([]) == []


def test_fuel_is_for_each_vector():
    runner = prepared("r2 = 0\nL: r2 += 1\nif r2 < 100 goto L\nr0 = 0\nexit", fuel=300)
    assert runner.run([b""] * 50) == [Returned(0, b"")] * 50


def test_many_endless_vectors_are_not_all_tried():
    outcomes = prepared("L: goto L").run([b""] * 40)
    assert outcomes[:MAX_OUT_OF_FUEL] == [OutOfFuel()] * MAX_OUT_OF_FUEL
    assert {type(outcome) for outcome in outcomes[MAX_OUT_OF_FUEL:]} == {Unknown}
    assert len(outcomes) == 40


@pytest.mark.parametrize("kind", sorted(CONVERTED_CONTEXTS))
def test_contexts_the_kernel_converts_are_unknown(kind):
    assert isinstance(prepared("r0 = 0\nexit", kind), Unknown)
