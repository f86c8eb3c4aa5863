"""Refusals, explained by experiment: the one thing that is to blame is mended, and it ends.

A message says what the verifier missed, not who is to blame for it: a fault of our verifier
and another of the compiler may say the same. So a construct is named only where something else
than the verifier shows it (the IR that the build ends in, BTF, data flow over the instructions,
a run), where the program is accepted once that is mended and nothing else is changed, and
where it then does what the native builds do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from harness import verifier
from harness.compare import agree
from harness.grow import half_slots, indices, parameters, results, undefined
from harness.grow.constructs import FRAMES, HALF
from harness.grow.frames import LIMIT, frames_too_large
from harness.grow.refused import Mend, Origin, Refused, Runs, Trial
from harness.interp import HELPERS, MAX_FRAMES, Interpreter
from harness.legs.kfunc_models import KFUNCS
from harness.model import (
    Accepted,
    Outcome,
    Program,
    Rejected,
    Returned,
    Unknown,
    Verdict,
)

MOST = 24  # mends of one program
TRIES = 48  # mended programs that are looked at before no other way is tried
PATIENCE = 300_000  # instructions of them that the verifier looks at, likewise
ROOM = MAX_FRAMES * LIMIT  # bytes of stack that frames may take, where that is the mend
FEW = 8  # vectors that a mended program is run on


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a refusal comes from."""

    constructs: tuple[str, ...] = ()  # confirmed, in order
    left: str = ""  # what the program is refused for once they are mended, or does wrong


def explain(program: Program, refusal: Rejected, origin: Origin, runs: Runs) -> Explanation:
    """Return the constructs that *program* is refused for."""
    return _explained(Trial(program, origin, program), refusal, runs, _Spent())


@dataclass(slots=True)
class _Spent:
    """What an explanation took so far."""

    tries: int = 0  # mended programs
    processed: int = 0  # instructions that the verifier looked at

    @property
    def enough(self) -> bool:
        return self.tries >= TRIES or self.processed >= PATIENCE


def _explained(now: Trial, verdict: Verdict, runs: Runs, spent: _Spent) -> Explanation:
    """Return the first way on from *now* at whose end all is well, else what the first leads to."""
    match verdict:
        case Accepted():
            return Explanation(now.constructs, _difference(now.program, runs))
        case Unknown(why=why):
            return Explanation(now.constructs, f"unknown: {why}")
    first: Explanation | None = None
    for then, told in _mended(now, verdict, runs, spent):
        seen = _explained(then, told, runs, spent)
        if not seen.left:
            return seen
        first = first or seen
        if spent.enough:
            break
    return first or Explanation(now.constructs, verdict.message)


def _mended(
    now: Trial, refusal: Rejected, runs: Runs, spent: _Spent
) -> Iterator[tuple[Trial, Verdict]]:
    """Yield what gets the program past *refusal*, each with one construct mended."""
    for words, mend in MENDS:
        if len(now.constructs) >= MOST or not re.search(words, refusal.message):
            continue
        mended = mend(Refused(now, refusal.insn or 0, refusal.message, runs))
        if mended is None:
            continue
        construct, then = mended
        if isinstance(then, Program):
            then = replace(now, program=then)
        seen = verifier.verify(then.program, log_level=0, options=then.options)
        spent.tries += 1
        spent.processed += seen.processed
        if seen.verdict != refusal:
            yield replace(then, constructs=(*then.constructs, construct)), seen.verdict


def _difference(program: Program, runs: Runs) -> str:
    """Return what *program*, which is accepted, does otherwise than the native builds.

    Also where there is no vector on which both are known: then nothing is confirmed.
    """
    interpreter = Interpreter(program, HELPERS, KFUNCS)
    compared = False
    for vector, expected in zip(runs.vectors, runs.outcomes[:FEW], strict=False):
        seen: Outcome = interpreter.run(vector)
        if not isinstance(seen, Returned | Unknown) or not agree(seen, expected, runs.mask):
            return "another result than natively"
        compared |= not isinstance(seen, Unknown) and not isinstance(expected, Unknown)
    return "" if compared else "not run natively"


# --- mends ------------------------------------------------------------------------------


def _frames(it: Refused) -> tuple[str, Trial] | None:
    """Let frames take more than they may, where they do by what the instructions show."""
    if not frames_too_large(it.program, it.message, it.runs.vectors):
        return None
    options = replace(it.trial.options, max_stack=ROOM)
    return FRAMES, replace(it.trial, options=options)


def _half(it: Refused) -> tuple[str, Program] | None:
    """Give what is kept in a part of a stack slot, and is forgotten there, a slot of its own."""
    looping = "unbounded" not in it.message
    moved = half_slots.moved(it.program, it.insn, it.runs.vectors, looping=looping)
    return None if moved is None else (HALF, moved)


# message, and what may mend it: the first that gets the program past its refusal counts
MENDS: tuple[tuple[str, Mend], ...] = (
    (r"invalid read from stack arg|callee expects|calls only require", parameters.of_its_size),
    (r"invalid read from stack arg|callee expects|calls only require", parameters.counted),
    (r"callee expects", undefined.bare),
    (r"!read_ok", undefined.unread),
    (r"!read_ok", undefined.spilled),
    (r"!read_ok", results.carried),
    (r"!read_ok", undefined.blank),
    (r"is not a scalar", undefined.unset),
    (r"bitwise operator \|= on pointer prohibited", indices.added),
    (r"cannot return stack pointer to the caller", results.cleared),
    (r"variable-offset|map value|unbounded|outside of the allowed", indices.shown),
    (r"infinite loop|jumps is too complex|program is too large|unbounded min value", _half),
    (r"variable-offset|map value|unbounded|outside of the allowed", indices.masked),
    (r"stack arg write offset", parameters.not_promoted),
    (r"combined stack size", _frames),
)
