"""Where instructions lead: slots of jumps, calls and addressed functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.isa.insn import Call, Goto, Insn, Jump, LoadImm, MayGoto, signed32
from harness.isa.opcodes import PSEUDO_FUNC


def jump_target(insn: Insn, slot: int) -> int | None:
    """Return the slot that the jump *insn* at *slot* may go to, None if it is no direct jump."""
    match insn:
        case Jump(off=off) | Goto(off=off) | MayGoto(off=off):
            return slot + 1 + off
    return None


def function_target(insn: Insn, slot: int) -> int | None:
    """Return the slot of the subprogram that *insn* at *slot* calls or takes the address of."""
    match insn:
        case Call(kind="subprog", imm=imm):
            return slot + 1 + imm
        case LoadImm(src=src, imm=imm) if src == PSEUDO_FUNC:
            return slot + 1 + signed32(imm)
    return None


def subprogram_starts(insns: Sequence[Insn], known: Iterable[int] = ()) -> tuple[int, ...]:
    """Return the first slots of subprograms, in order: 0, *known*, and function targets."""
    starts = {0, *known}
    for slot, insn in enumerate(insns):
        target = function_target(insn, slot)
        if target is not None:
            starts.add(target)
    return tuple(sorted(start for start in starts if 0 <= start < len(insns)))


def subprogram_ranges(
    insns: Sequence[Insn], known: Iterable[int] = ()
) -> tuple[tuple[int, int], ...]:
    """Return start and end (excluded) of each subprogram, in slots; *known* are further starts."""
    starts = subprogram_starts(insns, known)
    return tuple(zip(starts, (*starts[1:], len(insns)), strict=False))
