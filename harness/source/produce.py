"""What a campaign checks: programs, each of which follows from a seed, a number and its parents.

The engine knows two kinds. C is printed with other C into one translation unit, built,
verified, and run against native builds: a ``Tree`` is C of our own, an ``Excerpt`` C that
somebody wrote, changed. A ``Stream`` is BPF text: it is verified and run on the legs that need
no C. Each has a function that makes one, and one that shrinks it; the engine judges.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.corpus import ProgramText
from harness.model import Vector
from harness.source import mutate, mutate_sheet, stream_shrink, streams
from harness.source.excerpt import Excerpt
from harness.source.generate import generate
from harness.source.near_misses import near_miss
from harness.source.sheet import Sheet
from harness.source.shrink import shrink
from harness.source.stream_shrink import Text
from harness.source.tree import Tree

MUTANTS = 0.3  # programs that come from *parents*, where there are any
EXCERPTS = 0.4  # of the mutants of C, those of hand-written C
NEAR_MISSES = 0.35  # of the streams
BLIND = "a line changed"  # near: no message in particular


C = Tree | Excerpt


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
    sheets: Sequence[Sheet] = ()


def c_program(seed: int, number: int, parents: Parents) -> C:
    """Return C program *number* of *seed*, fresh or a mutant of *parents*."""
    rng = random.Random(f"mutant:{seed}:{number}")
    if (parents.trees or parents.sheets) and rng.random() < MUTANTS:
        found: C | None = None
        if parents.sheets and (not parents.trees or rng.random() < EXCERPTS):
            found = mutate_sheet.excerpt(rng, parents.sheets)
        elif parents.trees:
            found = mutate.tree(rng, parents.trees)
        if found is not None:
            return found
    return generate(seed, number)


def shrink_c(
    start: C,
    interesting: Callable[[Sequence[C]], Sequence[bool]],
    *,
    rounds: int = 400,
    over: Callable[[], bool] = lambda: False,
) -> C:
    """Return a small program that is still *interesting*: a tree, or with fewer changes."""
    if isinstance(start, Tree):
        return shrink(start, interesting, rounds=rounds, over=over)
    best = start
    while rounds > 0 and not over() and (found := mutate_sheet.smaller(best)):
        rounds -= 1
        good = interesting(found)
        small = next((one for one, fine in zip(found, good, strict=True) if fine), None)
        if small is None:
            break
        best = small
    return best


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
