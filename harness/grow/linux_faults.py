"""What Linux is known to do otherwise with BPF text, confirmed by experiment.

With the one thing mended that Linux does wrong, or that nobody can do alike, and nothing else
changed, it and ours say the same of the text and get the same results.
Ours does as Linux does, so it names the instruction; Linux is asked again about the mended text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness import pipeline, verifier
from harness.compare import agree
from harness.grow.refused import ANYTHING, placed, swapped
from harness.isa.insn import PARAMS, Alu, Call, Insn, Load, LoadImm, MayGoto, StoreImm
from harness.isa.stack_args import MAX_SLOTS, REG_ARGS, SLOT_SIZE
from harness.isa.targets import function_target
from harness.model import (
    Accepted,
    Crashed,
    Outcome,
    Program,
    Rejected,
    Returned,
    Unknown,
    Vector,
    Verdict,
    Verification,
)
from harness.pipeline import Linux
from harness.triage.rules import broken
from harness.verifier import Options
from harness.verifier.depth import PRIVATE_STACK_TYPES

# fmt: off
UNWRITTEN = "a stack argument that Linux reads and nobody wrote"
CALLBACK  = "a stack argument that Linux lets a callback read"
REMOVED   = "the address of a function that Linux removed"
PRIVATE   = "may_goto beside a private stack"
CHANGING  = "what a helper says otherwise each time"
# fmt: on
CHANGING_HELPERS = (5, 7, 8)  # ktime_get_ns, get_prandom_u32, get_smp_processor_id
# what ours says of a text where Linux goes astray
READS_IT = "Linux looks at a stack argument that the caller never wrote"
NO_CALLER = "an incoming stack argument of an entry function"


@dataclass(frozen=True, slots=True)
class Doubt:
    """A text with what Linux may do wrong mended, and what ours makes of it."""

    fault: str
    program: Program
    verdict: Verdict
    vectors: Sequence[Vector] = ()
    outcomes: Sequence[Outcome] = ()  # of a leg of ours, as Linux tells them


@dataclass(frozen=True, slots=True)
class Asked:
    """A text on which Linux and ours differ."""

    program: Program
    ours: Verification
    linux: Verdict
    vectors: Sequence[Vector]


def doubts(it: Asked, budget: int) -> tuple[Doubt, ...]:
    """Return what Linux is to be asked about before what it makes of *it* is a new finding."""
    found = []
    for fault, mend in MENDS:
        mended = mend(it)
        if mended is None:
            continue
        verdict = verifier.verify(mended, log_level=0, options=Options(budget=budget)).verdict
        if isinstance(verdict, Unknown):
            continue
        runs = it.vectors if isinstance(verdict, Accepted) else ()
        outcomes = [low(o) for o in pipeline.execute(mended, "interp", runs)]
        found.append(Doubt(fault, mended, verdict, runs, outcomes))
    return tuple(found)


def confirmed(doubt: Doubt, linux: Linux) -> bool:
    """Return whether *linux* makes of the mended text what ours makes of it."""
    match doubt.verdict, linux.verdict:
        case Accepted(), Accepted():
            pairs = zip(doubt.outcomes, linux.outcomes, strict=False)
            return len(linux.outcomes) == len(doubt.outcomes) and all(
                isinstance(b, Returned) and agree(a, b) and not isinstance(a, Unknown)
                for a, b in pairs
            )
        case Rejected(message=a), Rejected(message=b):
            return a == b
    return False


def confirmed_by_ours(doubt: Doubt) -> bool:
    """Return whether the JIT's image of the mended text does what the interpreter does."""
    if not doubt.vectors:
        return False
    seen = [low(o) for o in pipeline.execute(doubt.program, "jit", doubt.vectors)]
    return all(
        isinstance(a, Returned) and isinstance(b, Returned) and agree(a, b)
        for a, b in zip(doubt.outcomes, seen, strict=True)
    )


def low(outcome: Outcome) -> Outcome:
    """Return *outcome* as Linux tells it: of r0 the low half, and no ring buffers."""
    if isinstance(outcome, Returned):
        return Returned(outcome.r0 & 0xFFFFFFFF, outcome.ctx, None)
    return outcome


# --- mends ----------------------------------------------------------------------------


def _written(it: Asked) -> Program | None:
    """Write what calls leave unwritten, where ours sees Linux read it and Linux breaks over it."""
    ours = it.ours.verdict
    if not (isinstance(ours, Unknown) and READS_IT in ours.why and isinstance(it.linux, Crashed)):
        return None
    now: Program | None = it.program
    for _ in range(MAX_SLOTS):
        assert now is not None
        missing = {
            fault.insn: (StoreImm(SLOT_SIZE, PARAMS, -SLOT_SIZE * int(number[1]), ANYTHING),)
            for fault in broken(now)
            if fault.rule == "unwritten" and fault.insn is not None
            if (number := re.search(r"slot (\d+) is not written", fault.why))
        }
        if not missing:
            break
        now = placed(now, missing)
        if now is None:
            return None
    return None if now is it.program else now


def _no_slots(it: Asked) -> Program | None:
    """Let callbacks take something for what they read of slots that nobody fills for them."""
    ours = it.ours.verdict
    alone = isinstance(ours, Unknown) and NO_CALLER in ours.why and isinstance(it.linux, Crashed)
    if not alone and not (isinstance(ours, Accepted) and isinstance(it.linux, Accepted)):
        return None
    taken: dict[int, Insn] = {}
    for fault in broken(it.program):
        if fault.rule == "callback" and fault.insn is not None:
            load = it.program.insns[fault.insn]
            assert isinstance(load, Load)
            taken[fault.insn] = Alu("mov", 64, load.dst, None, ANYTHING)
    return swapped(it.program, taken) if taken else None


def _reached(it: Asked) -> Program | None:
    """Call the functions that nothing reaches and whose addresses are loaded: they stay."""
    if not (isinstance(it.ours.verdict, Accepted) and isinstance(it.linux, Accepted)):
        return None
    program, dead = it.program, it.ours.dead
    loaded = {
        target
        for at, insn in enumerate(program.insns)
        if isinstance(insn, LoadImm) and (target := function_target(insn, at)) is not None
    }
    gone = [sub for sub in program.subprograms[1:] if sub.start in loaded & dead]
    if not gone:
        return None
    # the context is kept in r9, in which nobody looks for anything where a program begins
    nothing = [Alu("mov", 64, register, None, 0) for register in range(1, REG_ARGS + 1)]
    first: list[Insn] = [Alu("mov", 64, KEEPER, 1, 0)]
    calls = []
    for sub in gone:
        first += nothing
        calls.append((len(first), sub))
        first.append(Call("subprog", 0, 0))
    first.append(Alu("mov", 64, 1, KEEPER, 0))
    mended = placed(program, {0: first})
    if mended is None:
        return None
    starts = {sub.name: sub.start for sub in mended.subprograms}
    return swapped(mended, {at: Call("subprog", starts[sub.name] - at - 1, 0) for at, sub in calls})


def _settled(it: Asked) -> Program | None:
    """Put a number in the place of what helpers say otherwise each time, the clock for one."""
    settled = {
        at: Alu("mov", 64, 0, None, ANYTHING)
        for at, insn in enumerate(it.program.insns)
        if isinstance(insn, Call) and insn.kind == "helper" and insn.imm in CHANGING_HELPERS
    }
    if not settled or not isinstance(it.linux, Accepted):
        return None
    return swapped(it.program, settled)


def _own_stack(it: Asked) -> Program | None:
    """Let a program with may_goto be of a type that Linux gives no private stack."""
    waits = any(isinstance(insn, MayGoto) for insn in it.program.insns)
    if not waits or it.program.type not in PRIVATE_STACK_TYPES:
        return None
    return replace(it.program, section="syscall", type="syscall")


KEEPER = 9
_Mend = Callable[[Asked], Program | None]
MENDS: tuple[tuple[str, _Mend], ...] = (
    (UNWRITTEN, _written),
    (CALLBACK, _no_slots),
    (REMOVED, _reached),
    (PRIVATE, _own_stack),
    (CHANGING, _settled),
)
