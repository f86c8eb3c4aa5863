"""What functions return, as clang and the verifier differ over it: mends of refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.btf import Void
from harness.grow.constructs import TWO, VOID
from harness.grow.optimised import Optimised
from harness.grow.refused import Refused, met, placed, put
from harness.interp import FUNCTION, STACK
from harness.isa.insn import Alu, Call, CallX, Exit, High, Insn, Load, LoadImm, LoadPacket, Store
from harness.isa.stack_args import SLOT_SIZE
from harness.load.linking import VALUE_BY_INDEX
from harness.model import MapDef, Program, Subprogram
from harness.triage.rules import callee_at, operands, successors

WORDS = 2  # of the largest result that comes in registers
SECOND = 2  # register of a result's second word, to LLVM; Linux has r0 alone
PLACE = MapDef("result", 2, 4, SLOT_SIZE, 1)  # an array of one word


def carried(it: Refused) -> tuple[str, Program] | None:
    """Carry the second word of a result from the function to its caller in memory.

    Where clang returns 9 to 16 bytes, in two registers, of which a call spoils one for Linux.
    """
    if it.message != f"R{SECOND} !read_ok" or not it.broken("unread"):
        return None
    seen = it.functions()
    guilty = {sub.name for sub in it.program.subprograms if _words(seen, sub) == WORDS}
    callees = [callee_at(it.program, at) for at in _spoilt(it)]
    if not callees or not all(sub is not None and sub.name in guilty for sub in callees):
        return None
    program, index = it.program, len(it.program.maps)
    address = (LoadImm(1, VALUE_BY_INDEX, index), High())  # of r1, which nobody reads any more
    there = (LoadImm(SECOND, VALUE_BY_INDEX, index), High())
    keep = (*address, Store(SLOT_SIZE, 1, 0, SECOND))
    fetch = (*there, Load(SLOT_SIZE, SECOND, SECOND, 0))
    before: dict[int, Sequence[Insn]] = {}
    behind: dict[int, Sequence[Insn]] = {}
    for sub in program.subprograms:
        for at in range(sub.start, sub.end):
            if sub.name in guilty and isinstance(program.insns[at], Exit):
                before[at] = keep
            callee = callee_at(program, at)
            if callee is not None and callee.name in guilty:
                behind[at] = fetch
    moved = placed(program, before, behind)
    return None if moved is None else (TWO, replace(moved, maps=(*program.maps, PLACE)))


def _words(seen: Mapping[str, Optimised], sub: Subprogram) -> int:
    return seen[sub.name].results if sub.name in seen else 0


def _spoilt(it: Refused) -> list[int]:
    """Return the calls that leave the second word there undefined, by the code's edges."""
    insns, before = it.program.insns, dict[int, list[int]]()
    for at in range(it.sub.start, it.sub.end):
        for target in successors(insns[at], at):
            before.setdefault(target, []).append(at)
    found: list[int] = []
    seen, work = {it.insn}, [it.insn]
    while work:
        for last in before.get(work.pop(), ()):
            if isinstance(insns[last], Call | CallX | LoadPacket):
                found.append(last)
            elif SECOND not in operands(insns[last])[1] and last not in seen:
                seen.add(last)
                work.append(last)
    return found


def cleared(it: Refused) -> tuple[str, Program] | None:
    """Clear r0 where a function ends that has no result, in the source or in the IR."""
    btf = it.program.btf
    proto = btf.prototype(it.sub.type_id) if btf is not None and it.sub.type_id else None
    if not isinstance(it.at, Exit) or proto is None:
        return None
    if not isinstance(btf.resolve(proto.returns) if btf else None, Void):
        seen = it.functions().get(it.sub.name)
        if seen is None or not seen.void:
            return None
    if not _address_at(it):
        return None
    return put(it, VOID, {it.insn: Alu("mov", 64, 0, None, 0)})


def _address_at(it: Refused) -> bool:
    """Return whether a run gets there with an address in a stack in r0."""
    seen = met(it, {it.insn: lambda held: STACK <= (held[0] or 0) >> 32 < FUNCTION})
    return True in seen.get(it.insn, ())
