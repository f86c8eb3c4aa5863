"""What a campaign checks: programs, each of which follows from a seed, a number and its parents.

The engine knows two kinds. A ``Tree`` is C: it is printed with others into one translation
unit, built, verified, and run against native builds. A ``Stream`` is BPF text: it is verified
and run on the legs that need no C. Each has a function that makes one, and one that shrinks
it; the engine judges.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.corpus import ProgramText
from harness.model import Vector
from harness.source import mutate, stream_shrink, streams
from harness.source.generate import generate
from harness.source.near_misses import near_miss
from harness.source.stream_shrink import Text
from harness.source.tree import Tree

MUTANTS = 0.3  # programs that come from *parents*, where there are any
NEAR_MISSES = 0.35  # of the streams
BLIND = "a line changed"  # near: no message in particular


@dataclass(frozen=True, slots=True)
class Stream:
    """A program of BPF instructions, and what it is run on."""

    text: ProgramText  # as a case of the corpus has it
    vectors: tuple[Vector, ...] = ()  # contexts, of one size; none: it is verified only
    near: str = ""  # how the refusal it is after begins, or BLIND; "": it should be accepted


@dataclass(frozen=True, slots=True)
class Parents:
    """What mutation starts from: fixed for a campaign, so that numbers mean the same on resume."""

    trees: Sequence[Tree] = ()
    streams: Sequence[Stream] = ()


def c_program(seed: int, number: int, parents: Parents) -> Tree:
    """Return C program *number* of *seed*, fresh or a mutant of *parents*."""
    rng = random.Random(f"mutant:{seed}:{number}")
    if parents.trees and rng.random() < MUTANTS:
        found = mutate.tree(rng, parents.trees)
        if found is not None:
            return found
    return generate(seed, number)


def stream(seed: int, number: int, parents: Parents) -> Stream | None:
    """Return BPF program *number* of *seed*: fresh, a mutant of *parents*, or a near miss."""
    rng = random.Random(f"stream-mutant:{seed}:{number}")
    if parents.streams and rng.random() < MUTANTS:
        parent = rng.choice(parents.streams)
        text, near = mutate.text(rng, parent.text, [p.text for p in parents.streams])
        return Stream(text, parent.vectors, near)
    text, vectors = streams.generate(seed, number)
    if rng.random() < NEAR_MISSES:
        text, near = near_miss(rng, text)
        return Stream(text, vectors, near or BLIND)
    return Stream(text, vectors)


def shrink_stream(
    start: Stream,
    interesting: Callable[[Sequence[Stream]], Sequence[bool]],
    *,
    rounds: int = 400,
    over: Callable[[], bool] = lambda: False,
) -> Stream:
    """Return a small stream that is still *interesting*, as ``shrink`` does for a tree."""

    def judge(texts: Sequence[Text]) -> Sequence[bool]:
        return interesting([Stream(t.program, t.vectors, start.near) for t in texts])

    text = Text(start.text, start.vectors)
    small = stream_shrink.shrink(text, judge, rounds=rounds, over=over)
    return Stream(small.program, small.vectors, start.near)
