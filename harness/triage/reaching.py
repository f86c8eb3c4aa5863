"""Which constants reach a register, along every edge of the control-flow graph.

Nothing here is pruned: what the verifier leaves out, because it saw a path that cannot be
less safe, is looked at too. Followed are moves, stack arguments, arguments and results;
anything else that a value may come from is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.isa.insn import Alu, Call, CallX, Exit, GotoX, LoadImm, LoadPacket, Store, StoreImm
from harness.isa.stack_args import REG_ARGS, incoming_slot, outgoing_slot
from harness.isa.targets import function_target
from harness.model import Program, Subprogram
from harness.triage.rules import operands, predecessors, successors

TAIL_CALL = 12  # helper number
_MASK = (1 << 64) - 1

Place = int  # a register; below 0 an outgoing slot of stack arguments
_Origin = tuple[int, Place]  # a place, before the instruction of a slot


class _UnknownError(Exception):
    """A value comes from elsewhere."""


def constants(program: Program, slot: int, register: int) -> frozenset[int] | None:
    """Return what *register* may hold before *slot*, 64 bits; None where that is not known."""
    if any(isinstance(insn, GotoX) for insn in program.insns):
        return None
    before = predecessors(program, range(len(program.insns)))
    found: set[int] = set()
    work: list[_Origin] = [(slot, register)]
    seen = set(work)
    try:
        while work:
            at, place = work.pop()
            origins = list(_entry(program, at, place))
            for last in before.get(at, ()):
                value = _value(program, last, place)
                if value is None:
                    origins += _through(program, last, place)
                else:
                    found.add(value & _MASK)
            work += [origin for origin in origins if origin not in seen]
            seen.update(origins)
    except _UnknownError:
        return None
    return frozenset(found)


def always(program: Program, slot: int) -> bool:
    """Return whether the entry program never ends without the instruction at *slot*."""
    work, seen = [0], {0, slot}
    while work:
        at = work.pop()
        insn = program.insns[at]
        if isinstance(insn, Exit | GotoX):
            return False
        new = {n for n in successors(insn, at) if n < len(program.insns)} - seen
        seen |= new
        work += new
    return slot != 0 and Call("helper", TAIL_CALL) not in program.insns


def _entry(program: Program, at: int, place: Place) -> Iterator[_Origin]:
    """Yield where *place* comes from, if *at* begins a function."""
    for sub in program.subprograms:
        if sub.start == at:
            if not 1 <= place <= REG_ARGS:
                raise _UnknownError
            yield from ((caller, place) for caller in _callers(program, sub))


def _callers(program: Program, sub: Subprogram) -> list[int]:
    if sub.start == 0:
        raise _UnknownError
    users = [n for n, insn in enumerate(program.insns) if function_target(insn, n) == sub.start]
    if any(not isinstance(program.insns[n], Call) for n in users):
        raise _UnknownError  # something calls it back
    return users


def _value(program: Program, at: int, place: Place) -> int | None:
    """Return the constant that the instruction *at* puts into *place*, if it does."""
    match program.insns[at]:
        case Alu(op="mov", bits=bits, dst=dst, src=None, imm=imm) if dst == place:
            return imm & ((1 << bits) - 1)
        case LoadImm(dst=dst, src=0, imm=imm) if dst == place:
            return imm
        case StoreImm(imm=imm) as insn if outgoing_slot(insn) == -place:
            return imm
    return None


def _through(program: Program, at: int, place: Place) -> Iterator[_Origin]:
    """Yield where *place* comes from, across the instruction *at*."""
    insn = program.insns[at]
    match insn:
        case Call(kind="subprog") if place == 0:
            start = function_target(insn, at)
            for sub in program.subprograms:
                if sub.start == start:
                    slots = range(sub.start, sub.end)
                    yield from ((n, 0) for n in slots if isinstance(program.insns[n], Exit))
            return
        case Call() | CallX() | LoadPacket() if place <= REG_ARGS:
            raise _UnknownError
        case Alu(op="mov", bits=64, dst=dst, src=src, sx=0) if dst == place and src is not None:
            yield at, src
            return
        case Store(src=src) if place < 0 and outgoing_slot(insn) == -place:
            yield at, src
            return
    if place >= 0 and place in operands(insn)[1]:
        slot = incoming_slot(insn)
        if slot is None:
            raise _UnknownError
        (sub,) = (s for s in program.subprograms if s.start <= at < s.end)
        yield from ((caller, -slot) for caller in _callers(program, sub))
        return
    yield at, place
