"""Where it goes what is stored to an outgoing slot."""

from __future__ import annotations

from collections.abc import Callable

from harness.isa.insn import Call, Load
from harness.isa.stack_args import REG_ARGS, outgoing_slot
from harness.model import Program, Subprogram
from harness.triage.rules import callee_at, operands, successors


def callees_behind(program: Program, start: int, slot: int) -> list[Subprogram]:
    """Return the functions that the store to outgoing *slot* at *start* is for."""
    found: list[Subprogram] = []
    seen, work = {start}, list(successors(program.insns[start], start))
    while work:
        at = work.pop()
        if at in seen or at >= len(program.insns):
            continue
        seen.add(at)
        insn = program.insns[at]
        callee = callee_at(program, at)
        if callee is not None:
            found.append(callee)
        elif not isinstance(insn, Call) and outgoing_slot(insn) != slot:
            work += successors(insn, at)
    return found


def goes_nowhere(
    program: Program, start: int, end: int, passes_nothing: Callable[[Subprogram, int], bool]
) -> bool:
    """Return whether what is loaded at *start* only goes to slots for which there is no value.

    *end*: of its function. *passes_nothing* says whether a callee gets no value in a slot.
    """
    load = program.insns[start]
    assert isinstance(load, Load)
    stored = False
    for at in range(start + 1, end):
        insn = program.insns[at]
        reads, writes = operands(insn)
        slot = outgoing_slot(insn)
        if slot is not None and load.dst in reads:
            callees = callees_behind(program, at, slot)
            if not callees or not all(passes_nothing(sub, slot) for sub in callees):
                return False
            stored = True
        elif load.dst in reads or successors(insn, at) != (at + 1,):
            return False
        elif load.dst in writes or (isinstance(insn, Call) and 1 <= load.dst <= REG_ARGS):
            return stored
    return False
