"""What functions return, as clang and the verifier differ over it: mends of refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from harness.btf import Void
from harness.grow.constructs import TWO, VOID
from harness.grow.optimised import Optimised
from harness.grow.refused import Refused, Registers, met, placed, put
from harness.interp import FUNCTION, STACK
from harness.isa.insn import (
    FP,
    Alu,
    Call,
    CallX,
    Exit,
    High,
    Insn,
    Load,
    LoadImm,
    LoadPacket,
    Store,
    StoreImm,
)
from harness.isa.stack_args import REG_ARGS, SLOT_SIZE
from harness.load.linking import VALUE_BY_INDEX
from harness.model import MapDef, Program, Subprogram
from harness.triage.rules import callee_at, operands, predecessors

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
    insns, before = it.program.insns, predecessors(it.program, range(it.sub.start, it.sub.end))
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
    """Return whether r0 holds an address in a stack there: in a run, or by a way that none took.

    Such a way leads from where a run, or r10, shows one, by moves, spills and constants added.
    """
    found: dict[int, set[int]] = {}
    for slot, register in _comes_from(it, 0):
        if register == FP:
            return True
        found.setdefault(slot, set()).add(register)

    def test(registers: set[int]) -> Callable[[Registers], bool]:
        return lambda held: any(STACK <= (held[r] or 0) >> 32 < FUNCTION for r in registers)

    seen = met(it, {slot: test(registers) for slot, registers in found.items()})
    return any(True in told for told in seen.values())


def _comes_from(it: Refused, register: int) -> Iterator[tuple[int, int]]:
    """Yield where the value of *register* there may come from: slot, a register before it."""
    insns, before = it.program.insns, predecessors(it.program, range(it.sub.start, it.sub.end))
    first = it.insn, register
    seen, work = {first}, [first]  # a place: a register, or an offset from r10, below 0
    while work:
        at, place = work.pop()
        if place >= 0:
            yield at, place
        for last in before.get(at, ()):
            origin = _origin(insns[last], place)
            if origin is not None and (last, origin) not in seen:
                seen.add((last, origin))
                work.append((last, origin))


def _origin(insn: Insn, place: int) -> int | None:
    """Return where *insn* got what *place* holds behind it; None: it is nothing as it was."""
    match insn:
        case Call() | CallX() | LoadPacket() if 0 <= place <= REG_ARGS:
            return None
        case Store(size=size, dst=10, off=off, src=src) if place < 0:
            if (off, size) == (place, SLOT_SIZE):
                return src
            return None if off < place + SLOT_SIZE and place < off + size else place
        case StoreImm(size=size, dst=10, off=off) if place < 0:
            return None if off < place + SLOT_SIZE and place < off + size else place
        case Load(size=8, dst=dst, src=10, off=off) if dst == place and off < 0:
            return off
        case Alu(op="mov", bits=64, dst=dst, src=int(src), sx=0) if dst == place:
            return src
        case Alu(op="add" | "sub", bits=64, dst=dst, src=None) if dst == place:
            return place
        case _:
            return None if place in operands(insn)[1] else place
