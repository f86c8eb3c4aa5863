"""Addresses and indices that clang computes as the verifier does not follow: mends of refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness.grow.constructs import BOOL, MASK, OR
from harness.grow.refused import Refused, Registers, Trial, is_address, met, put, swapped
from harness.interp import CONTEXT, HELPERS, Interpreter
from harness.isa.insn import FP, PARAMS, Alu, Call, CallX, Load, LoadPacket
from harness.isa.stack_args import REG_ARGS
from harness.legs.kfunc_models import KFUNCS
from harness.model import Program, Trapped
from harness.triage.rules import operands, predecessors

# of a bool that is neither 0 nor 1: what an index may go astray at first, and the largest
NO_BOOLS = (2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 254, 255)


def added(it: Refused) -> tuple[str, Program] | None:
    """Add where an address and what is below its alignment are or-ed."""
    insn = it.at
    if not (isinstance(insn, Alu) and insn.op == "or" and insn.bits == 64):
        return None
    sides = {insn.dst, insn.dst if insn.src is None else insn.src} - {PARAMS}
    seen = met(it, {it.insn: lambda held: any(is_address(held[r]) for r in sides)})
    # a number may look like an address, but not in every run
    if seen.get(it.insn, {any(_in_frame(it, r) for r in sides)}) != {True}:
        return None
    return OR, swapped(it.program, {it.insn: replace(insn, op="add")})


def _in_frame(it: Refused, register: int) -> bool:
    """Return whether *register* is r10 and a constant, by every way that leads there."""
    insns, before = it.program.insns, predecessors(it.program, range(it.sub.start, it.sub.end))
    work = [(it.insn, register)]
    seen = set(work)
    while work:
        at, place = work.pop()
        if at == it.sub.start or at not in before:
            return False
        for last in before[at]:
            match insns[last]:
                case Call() | CallX() | LoadPacket() if place <= REG_ARGS:
                    return False
                case insn if place not in operands(insn)[1]:
                    origin = last, place
                case Alu(op="mov", bits=64, src=int(src), sx=0):
                    origin = last, src
                case Alu(op="add" | "sub", bits=64, src=None):
                    origin = last, place
                case _:
                    return False
            if origin[1] != FP and origin not in seen:
                seen.add(origin)
                work.append(origin)
    return True


def shown(it: Refused) -> tuple[str, Program] | None:
    """Let the driver show the verifier that a bool is 0 or 1, as the compiler knows it."""
    main = it.program.subprograms[0]
    bools = {(CONTEXT << 32) + offset for offset in it.runs.bools}

    def test(load: Load) -> Callable[[Registers], bool]:
        return lambda held: (held[load.src] or 0) + load.off in bools

    loads = {
        slot: insn
        for slot in range(main.start, main.end)
        if isinstance(insn := it.program.insns[slot], Load) and insn.size == 1 and insn.src <= FP
    }
    seen = met(it, {slot: test(load) for slot, load in loads.items()})
    after = {
        slot: Alu("and", 64, loads[slot].dst, None, 1)
        for slot, told in seen.items()
        if told == {True}
    }
    return put(it, BOOL, after, behind=True) if after and _strays(it) else None


def masked(it: Refused) -> tuple[str, Trial] | None:
    """Build so that the mask of each index is in the code, as it is in the source."""
    again = it.trial.origin.kept()
    return None if again is None else (MASK, it.trial.again(again))


def _strays(it: Refused) -> bool:
    """Return whether a bool that is neither 0 nor 1 makes the access in question go astray.

    That is what the verifier has to fear, which does not know what a bool is.
    """
    interpreter = Interpreter(it.program, HELPERS, KFUNCS)
    reached = False

    def look(slot: int, _held: Registers) -> None:
        nonlocal reached
        reached |= slot == it.insn

    for vector in it.runs.vectors:
        for offset in it.runs.bools:
            for value in NO_BOOLS:
                other = vector[:offset] + bytes([value]) + vector[offset + 1 :]
                reached = False
                seen = interpreter.run(other, trace=look)
                if reached and isinstance(seen, Trapped) and seen.kind == "access":
                    return True
    return False
