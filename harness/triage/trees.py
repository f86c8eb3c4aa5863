"""A generated program made small on its own tree, before its text is looked at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.model import HarnessError
from harness.source import tree
from harness.source.printing import print_file
from harness.source.shrink import shrink
from harness.source.tree import Tree
from harness.triage.experiments import Subject
from harness.triage.reduce import JOBS, VECTORS, Interesting, Reduction


def shrink_tree(
    data: Any,
    subject: Subject,
    interesting: Interesting,
    *,
    rounds: int,
    patience: float,
) -> Reduction:
    """Return *subject* with a smaller text, from its tree *data* (JSON values of the generator).

    *rounds*: of looking at a few trees. Every cut leaves a program without undefined
    behaviour. *subject* itself comes back where the tree does not show what its text shows.
    """
    try:
        one: object = tree.from_json(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HarnessError(f"the finding's tree cannot be read: {error}") from None
    if not isinstance(one, Tree):
        raise HarnessError("the finding's tree cannot be read: it is no program")
    began = time.monotonic()
    tried = 0

    def over() -> bool:
        return time.monotonic() - began > patience

    def shows(trees: Sequence[Tree]) -> Sequence[bool]:
        nonlocal tried
        if over():
            return [False] * len(trees)
        tried += len(trees)
        return interesting([_subject(subject, candidate) for candidate in trees])

    if not shows([one])[0]:
        return Reduction(subject, tried, 0, False, ("the tree does not show it; its text does",))
    small = shrink(one, shows, batch=JOBS, rounds=rounds, over=over)
    notes: tuple[str, ...] = ()
    if over():
        notes = (f"reduction of the tree was cut off after {patience:.0f} s (--patience)",)
    return Reduction(_subject(subject, small), tried, int(small != one), not notes, notes)


def _subject(subject: Subject, one: Tree) -> Subject:
    text = print_file([("", replace(one, mcpu="v1"))])
    count = min(subject.count, VECTORS)
    return replace(subject, c=text, function=one.root.name, count=count)
