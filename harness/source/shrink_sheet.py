"""A small excerpt that still shows something: parts of its text are cut out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.source.excerpt import Change, Excerpt

TOGETHER = 16  # excerpts that are looked at in one file


def shrink(
    start: Excerpt,
    interesting: Callable[[Sequence[Excerpt]], Sequence[bool]],
    read: Callable[[str], Excerpt | None],
    *,
    rounds: int,
    over: Callable[[], bool] = lambda: False,
) -> Excerpt:
    """Return a small excerpt that is still *interesting*, *start* where that is not.

    *read* makes one of a text, with its cuts. *rounds*: of looking at a few excerpts.
    """
    best = start
    if not interesting([best])[0]:
        return start
    tried: set[str] = {best.text}
    while rounds > 0 and not over():
        candidates = [one for one in _cut(best) if one.text not in tried]
        some = candidates[:TOGETHER]
        if not some:
            break
        rounds -= 1
        good = interesting(some)
        tried.update(one.text for one in some)
        fine = [one for one, fits in zip(some, good, strict=True) if fits]
        found = fine[0] if fine else None
        if len(fine) > 1 and rounds > 0:  # all of it at once, as far as it is apart
            rounds -= 1
            whole = _together(fine)
            if interesting([whole])[0]:
                found = whole
        if found is not None:
            again = read(found.text)
            if again is None or not interesting([again])[0]:
                return found
            best = again
            tried.add(best.text)
    return best


def _cut(one: Excerpt) -> list[Excerpt]:
    """Return *one* with each of its cuts, the longest first."""
    edits = [edit for function in one.functions for edit in function.cuts]
    edits.sort(key=lambda edit: (len(edit[1]) - edit[0][1] + edit[0][0], edit))
    return [replace(one, changes=(Change((edit,)),)) for edit in edits]


def _together(some: Sequence[Excerpt]) -> Excerpt:
    """Return one excerpt with the changes of all of *some*, where they leave each other alone."""
    found = some[0]
    for one in some[1:]:
        more = replace(found, changes=(*found.changes, *one.changes))
        if more.fits:
            found = more
    return found
