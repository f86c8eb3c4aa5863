"""Frames of programs that no verifier has looked at."""

from __future__ import annotations

import pytest

from harness.frames import MAX_STACK, infer, stack_depth
from harness.isa.asm import assemble
from harness.model import Program, Subprogram


@pytest.mark.parametrize(
    ("depth", "source"),
    [
        (0, "r0 = r1; exit"),
        (16, "*(u32 *)(r10 - 16) = r1; r0 = *(u64 *)(r10 - 8); exit"),
        (24, "r2 = r10; r2 += -24; call 1; exit"),
        (24, "r2 = r10; r2 += -8; r3 = r2; r3 -= 16; call 1; exit"),
        (32, "r6 = r10; r6 += -16; *(u8 *)(r6 - 16) = 1; exit"),
        (8, "lock *(u64 *)(r10 - 8) += r1; exit"),
        # an offset that is not constant, however small
        (MAX_STACK, "r2 = r10; r2 -= r1; exit"),
        (MAX_STACK, "r2 = r10; r2 += r1; *(u8 *)(r2 - 1) = 1; exit"),
        (MAX_STACK, "r2 = 8; r2 -= r10; exit"),
        # what a register holds is not followed through jumps
        (MAX_STACK, "r6 = r10; r6 += -8; if r1 == 0 goto +0; r6 += -8; exit"),
        (8, "r6 = r10; r6 += -8; if r1 == 0 goto +0; r6 = 0; r6 += -8; exit"),
        # a pointer that came back from memory may be one to the stack
        (MAX_STACK, "r2 = r10; *(u64 *)(r10 - 8) = r2; r3 = *(u64 *)(r10 - 8); r3 += -8; exit"),
        # but not where none ever left r10
        (8, "*(u64 *)(r10 - 8) = r1; r3 = *(u64 *)(r10 - 8); r3 += -8; exit"),
    ],
)
def test_depth(depth: int, source: str) -> None:
    # "; " ends a statement here, and would begin a comment after the kernel's
    assert stack_depth(assemble(source.replace("; ", "\n")).insns) == depth


def test_whoever_calls_what_makes_a_tail_call_can_be_reached_by_it() -> None:
    source = """
        call a
        exit
    a:
        call b
        exit
    b:
        call 12
        exit
    c:
        r0 = 0
        exit
    """
    insns = assemble(source).insns
    subs = tuple(Subprogram(name, 2 * at, 2 * at + 2) for at, name in enumerate("mabc"))
    frames = infer(Program("m", "", "", insns, subs))
    assert [frame.tail_call_reachable for frame in frames] == [True, True, True, False]
