"""The smallest C and the smallest input that still show the same thing.

Passes over the tokens of the text propose shorter texts; a proposal is kept if the same
classification comes out, without undefined behaviour. In order and without chance; what
ends a reduction is a number of attempts. A clock ends one only that takes far too long, and
the report says so: the same finding reduces to the same text.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace

from harness.model import Vector
from harness.pipeline import Settings
from harness.source.layout import Leaf
from harness.triage.classify import Wanted, look, shows
from harness.triage.experiments import Bench, Subject, place_of
from harness.triage.judge import judge
from harness.triage.passes import PASSES, Propose
from harness.triage.tokens import layout_text, split
from harness.workers import Pool

VECTORS = 24  # of each attempt
ATTEMPTS = 800  # texts that are looked at
PATIENCE = 600.0  # seconds after which a reduction is cut off
ROUNDS = 4  # of shrinking the input
JOBS = 2  # processes, and texts looked at together


@dataclass(frozen=True, slots=True)
class Reduction:
    """What a reduction came to."""

    subject: Subject
    attempts: int
    kept: int
    complete: bool  # no pass has anything left to propose
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> int:
        """Lines of C that are not empty."""
        return lines_of(self.subject.c)


def lines_of(text: str) -> int:
    """Return how many lines of *text* are not empty."""
    return sum(bool(line.strip()) for line in text.splitlines())


Interesting = Callable[[Sequence[Subject]], Sequence[bool]]
"""Which of some subjects still show the same: a few at once, for there are several cores."""


def in_turn(interesting: Callable[[Subject], bool]) -> Interesting:
    """Return a question about one subject as one about several."""
    return lambda subjects: [interesting(subject) for subject in subjects]


@contextmanager
def keeps(settings: Settings, wanted: Wanted, jobs: int = JOBS) -> Iterator[Interesting]:
    """Give the test that a reduction must pass: the same *wanted* again, in *jobs* processes."""
    with Pool(jobs) as pool:

        def interesting(subjects: Sequence[Subject]) -> Sequence[bool]:
            try:
                return list(
                    pool.map(_judged, *zip(*((settings, wanted, s) for s in subjects), strict=True))
                )
            except BrokenProcessPool:
                return [_alone(settings, wanted, subject) for subject in subjects]

        yield interesting


def _judged(settings: Settings, wanted: Wanted, subject: Subject) -> bool:
    with Bench(settings) as bench:
        return shows(bench, subject, wanted)


def _alone(settings: Settings, wanted: Wanted, subject: Subject) -> bool:
    """Look at a text that may end the process that looks at it."""
    try:
        with Pool(1) as pool:
            return pool.submit(_judged, settings, wanted, subject).result()
    except BrokenProcessPool:
        return False


def reduce(
    subject: Subject,
    interesting: Interesting,
    *,
    attempts: int = ATTEMPTS,
    patience: float = PATIENCE,
    jobs: int = JOBS,
    step: Callable[[int, int], None] = lambda _attempts, _length: None,
) -> Reduction:
    """Return the smallest *subject* that is *interesting*; itself where it is not.

    *jobs* texts are looked at together; what comes out does not depend on how many. *step*
    hears after each look how many attempts there were and how long the text is.
    """
    began = time.monotonic()
    subject = replace(subject, count=min(subject.count, VECTORS), vectors=())
    if not interesting([subject])[0]:
        why = "not reduced: with fewer vectors it does not show"
        return Reduction(subject, 1, 0, False, (why,))
    seen: set[str] = set()
    tried = kept = 0

    def late() -> bool:
        return time.monotonic() - began > patience

    changed = True
    while changed and tried < attempts and not late():
        changed = False
        for propose in PASSES:
            index = 0
            while tried < attempts and not late():
                room = min(jobs, attempts - tried)
                texts, index = _proposals(propose, subject, index, room, seen)
                if not texts:
                    break
                good = interesting([replace(subject, c=text) for _, text in texts])
                hit = next((n for n, found in enumerate(good) if found), None)
                judged = texts if hit is None else texts[: hit + 1]
                seen.update(text for _, text in judged)
                tried += len(judged)
                if hit is not None:
                    index, text = texts[hit]
                    subject = replace(subject, c=text)
                    kept += 1
                    changed = True
                step(tried, len(subject.c))
    pretty = layout_text(subject.c)
    if pretty != subject.c and interesting([replace(subject, c=pretty)])[0]:
        subject = replace(subject, c=pretty)
    notes: tuple[str, ...] = ()
    if late():
        notes = (
            f"reduction was cut off after {patience:.0f} s and {tried} attempts (--patience): "
            "another day the text may come out longer or shorter",
        )
    elif tried >= attempts:
        notes = (f"reduction ended after {tried} attempts: shorter texts may do",)
    return Reduction(subject, tried, kept, not notes, notes)


_LONG = re.compile(r"unsigned (long|short|char)|signed char")


def _size(text: str) -> int:
    """Return the number of tokens, also in macros; a plain type is one, as a name for it is."""
    tokens = split(_LONG.sub("long", text))
    return sum(len(split(t[1:])) if t.startswith("#") and "define" in t else 1 for t in tokens)


def _proposals(
    propose: Propose, subject: Subject, index: int, most: int, seen: set[str]
) -> tuple[list[tuple[int, str]], int]:
    """Return the next texts of a pass, with their numbers, and where to go on."""
    found: list[tuple[int, str]] = []
    size = _size(subject.c)
    while len(found) < most:
        text = propose(subject.c, index, subject.function)
        if text is None:
            break
        if text not in seen and _size(text) <= size and text not in {t for _, t in found}:
            found.append((index, text))
        index += 1
    return found, index


# --- inputs -----------------------------------------------------------------


def shrink_input(bench: Bench, subject: Subject, wanted: Wanted) -> Vector | None:
    """Return the simplest input that shows the same, None where no input matters.

    Simple: as many zero bytes as can be, then small values. Each round tries a batch.
    """
    facts = look(bench, subject, wanted)
    if facts is None:
        return None
    now = judge(facts)
    if now.signature != wanted.signature or now.vector is None:
        return None
    place = place_of(facts.planned)
    leaves = list(place.leaves())
    best = now.vector
    blank = _blank(best, leaves)
    if blank != best and _shows(bench, subject, wanted, [blank]):
        best = blank
    for _ in range(ROUNDS):
        proposals: list[Vector] = []
        for leaf in leaves:
            value = _value(best, leaf)
            for small in (
                0,
                1,
                2,
                value >> 1,
                value & 0xFF,
                value & ~(1 << value.bit_length() - 1) if value else 0,
            ):
                if small < value:
                    proposals.append(_with(best, leaf, small))
        proposals = list(dict.fromkeys(p for p in proposals if p != best))
        good = _shows(bench, subject, wanted, proposals)
        if not good:
            break
        # of each place the smallest value that works, taken together if that works too
        together = best
        for vector in sorted(good, key=_weight, reverse=True):
            together = bytes(
                g if g != b else t for g, b, t in zip(vector, best, together, strict=True)
            )
        both = _shows(bench, subject, wanted, [together, min(good, key=_weight)])
        best = min(both or good, key=_weight)
    return best


def _blank(vector: Vector, leaves: Sequence[Leaf]) -> Vector:
    """Return *vector* with zero bytes where no value is."""
    out = bytes(len(vector))
    for leaf in leaves:
        out = _with(out, leaf, _value(vector, leaf))
    return out


def _value(vector: Vector, leaf: Leaf) -> int:
    return int.from_bytes(vector, "little") >> leaf.bit & (1 << leaf.bits) - 1


def _with(vector: Vector, leaf: Leaf, value: int) -> Vector:
    whole = int.from_bytes(vector, "little")
    whole &= ~(((1 << leaf.bits) - 1) << leaf.bit)
    return (whole | value << leaf.bit).to_bytes(len(vector), "little")


def _weight(vector: Vector) -> tuple[int, int]:
    return sum(byte != 0 for byte in vector), sum(vector)


def _shows(
    bench: Bench, subject: Subject, wanted: Wanted, vectors: Sequence[Vector]
) -> list[Vector]:
    """Return those of *vectors* that show the same."""
    if not vectors:
        return []
    facts = look(bench, replace(subject, vectors=tuple(vectors)), wanted)
    if facts is None or judge(facts).signature != wanted.signature:
        return []
    return [facts.vectors[number] for number in facts.bad]
