"""Greedy descent to something smaller: the loop that both kinds of shrinking share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def descend(
    start: T,
    candidates: Callable[[T, int], Iterator[tuple[int, T]]],
    interesting: Callable[[Sequence[T]], Sequence[bool]],
    *,
    batch: int = 16,
    rounds: int = 400,
    over: Callable[[], bool] = lambda: False,
) -> T:
    """Return what comes of *start* by taking the first *interesting* candidate, again and again.

    *candidates* yields the smaller ones by their number, from a number on. *interesting* judges
    up to *batch* in one call, for a compiler costs more to start than to run; *rounds* is the
    most calls of it, and *over* ends it before the next one. The same for the same input, unless
    it is ended.
    """
    now, position, done = start, 0, 0
    while not over():
        offered = candidates(now, position)
        found = False
        while done < rounds:
            chunk = list(islice(offered, batch))
            if not chunk:
                break
            if over():
                return now
            done += 1
            verdicts = interesting([candidate for _, candidate in chunk])
            hit = next((c for c, good in zip(chunk, verdicts, strict=True) if good), None)
            if hit is not None:
                position, now = hit
                found = True
                break
        if not found:
            if position == 0 or done >= rounds:
                return now
            position = 0  # once more from the start: later cuts make earlier ones possible
    return now
