"""What a campaign checks: programs, each of which follows from a seed, a number and its parents.

The engine knows two kinds. A ``Tree`` is C: it is printed with others into one translation
unit, built, verified, and run against native builds. A ``Stream`` is BPF text: it is verified
and run on the legs that need no C. Each has a function that makes one, and one that shrinks
it; the engine judges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.corpus import ProgramText
from harness.model import Vector
from harness.source.generate import generate
from harness.source.tree import Tree


@dataclass(frozen=True, slots=True)
class Stream:
    """A program of BPF instructions, and what it is run on."""

    text: ProgramText  # as a case of the corpus has it
    vectors: tuple[Vector, ...] = ()  # contexts, of one size; none: it is verified only
    near: str = ""  # the refusal it is a near miss of, by its message; "": it should be accepted


@dataclass(frozen=True, slots=True)
class Parents:
    """What mutation starts from: fixed for a campaign, so that numbers mean the same on resume."""

    trees: Sequence[Tree] = ()
    streams: Sequence[Stream] = ()


def c_program(seed: int, number: int, parents: Parents) -> Tree:
    """Return C program *number* of *seed*, fresh or a mutant of *parents*."""
    del parents
    return generate(seed, number)


def stream(seed: int, number: int, parents: Parents) -> Stream | None:
    """Return BPF program *number* of *seed*; None: there is none with this number."""
    del seed, number, parents
    return None


def shrink_stream(
    start: Stream, interesting: Callable[[Sequence[Stream]], Sequence[bool]], *, rounds: int = 400
) -> Stream:
    """Return a small stream that is still *interesting*, as ``shrink`` does for a tree."""
    del interesting, rounds
    return start
