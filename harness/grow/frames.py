"""The frames of a program's functions, as its instructions show them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cache

from harness.frames import MAX_STACK
from harness.grow.stack_accesses import StackAccess, watch
from harness.interp import MAX_FRAMES
from harness.isa.insn import FP, Alu, Load, Store, StoreImm
from harness.model import Program, Subprogram, Vector
from harness.triage.rules import callee_at

LIMIT = MAX_STACK  # bytes that the frames of a chain of calls may take


def frames_too_large(program: Program, message: str, vectors: Sequence[Vector]) -> bool:
    """Return whether *message* is about frames that are too large, and they are.

    What the instructions show of each is added up along every chain of calls; an address that
    is made, and never used below what others are, may make it more than the verifier says. So
    what runs on *vectors* touch of the frames of that chain, and of what it calls in turn, has to
    be too much, too, with all of those that no run gets to, and what instructions do in the
    others that no run gets to.
    """
    named = re.fullmatch(r"combined stack size of (\d+) calls is (\d+)\. Too large", message)
    if named is None or int(named[2]) <= LIMIT:  # no fault of the program's
        return False
    lowest = touched(program, vectors)
    if not lowest:
        return False
    deep = [depth(program, sub) for sub in program.subprograms]
    sizes = [(_rounded(d), _rounded(lowest.get(number, d))) for number, d in enumerate(deep)]
    calls = [
        {
            program.subprogram_at(callee.start)
            for slot in range(sub.start, sub.end)
            if (callee := callee_at(program, slot)) is not None
        }
        for sub in program.subprograms
    ]

    @cache
    def below(number: int, left: int) -> int:
        """Return what the frames of *left* calls from function *number* on take at most."""
        used = sizes[number][1]
        return used + max((below(n, left - 1) for n in calls[number] if left > 1), default=0)

    wanted = int(named[1]), int(named[2])
    work = [(0, 1, *sizes[0])]
    while work:
        at, count, size, used = work.pop()
        if count == wanted[0] and size >= wanted[1]:
            if used + below(at, MAX_FRAMES - count + 1) - sizes[at][1] > LIMIT:
                return True
        elif count < wanted[0]:
            work += [(n, count + 1, size + sizes[n][0], used + sizes[n][1]) for n in calls[at]]
    return False


def _rounded(size: int) -> int:
    """Return what Linux counts for a frame of *size* bytes where there is a JIT."""
    return -(-size // 16) * 16


def touched(program: Program, vectors: Sequence[Vector]) -> dict[int, int]:
    """Return how far below r10 runs get at the frame of each function, by its number.

    Of functions that a run gets to: with what their instructions do that no run gets to.
    """
    lowest: dict[int, int] = {}
    met: set[int] = set()  # slots

    def see(seen: StackAccess) -> None:
        met.add(seen.slot)
        lowest[seen.function] = max(lowest.get(seen.function, 0), -seen.offset)

    watch(program, vectors, see)
    subs = program.subprograms
    return {n: max(far, depth(program, subs[n], met)) for n, far in lowest.items()}


def depth(program: Program, sub: Subprogram, met: Collection[int] | None = None) -> int:
    """Return how far below r10 *sub* reaches, as its instructions show one after the other.

    Where *met* is given, what gets at memory in one of these slots does not count, nor does an
    address that is made.
    """
    lowest = 0
    known: dict[int, int] = {FP: 0}  # register: distance from r10
    for slot, insn in enumerate(program.insns[sub.start : sub.end], sub.start):
        base = insn.src if isinstance(insn, Load) else getattr(insn, "dst", -1)
        counts = met is None or slot not in met
        if isinstance(insn, Load | Store | StoreImm) and base in known and counts:
            lowest = min(lowest, known[base] + insn.off)
        match insn:
            case Alu(op="mov", bits=64, dst=dst, src=src) if src is not None:
                known.pop(dst, None)
                if src in known:
                    known[dst] = known[src]
            case Alu(op="add", bits=64, dst=dst, src=None, imm=imm) if dst in known:
                known[dst] += imm
            case Alu(dst=dst) | Load(dst=dst):
                known.pop(dst, None)
        if met is None:
            lowest = min([lowest, *known.values()])
    return -lowest
