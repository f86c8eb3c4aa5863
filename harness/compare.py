"""Outcome against outcome: a divergence, or nothing.

``Unknown`` agrees with everything. Contexts are compared under a mask, because
padding has no value in C.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from harness.model import Divergence, Mask, Outcome, Returned, Trapped, Unknown, Vector


def first_difference(a: bytes, b: bytes, mask: Mask | None = None) -> int | None:
    """Return the first offset where *a* and *b* differ in a bit of *mask*, None if nowhere.

    Bytes beyond the mask, and all bytes without one, are compared whole.
    """
    if a == b:
        return None
    if len(a) != len(b):
        return min(len(a), len(b))
    bits = mask.bits if mask else b""
    for offset, (x, y) in enumerate(zip(a, b, strict=True)):
        if (x ^ y) & (bits[offset] if offset < len(bits) else 0xFF):
            return offset
    return None


def agree(a: Outcome, b: Outcome, mask: Mask | None = None) -> bool:
    """Return whether two outcomes of one vector are the same behaviour."""
    match a, b:
        case (Unknown(), _) | (_, Unknown()):
            return True
        case Returned(), Returned():
            same = None in (a.effects, b.effects) or a.effects == b.effects
            return same and a.r0 == b.r0 and first_difference(a.ctx, b.ctx, mask) is None
        case Trapped(), Trapped():
            return a.kind == b.kind
    return type(a) is type(b)


def compare(
    outcomes: Mapping[str, Outcome], vector: Vector, mask: Mask | None = None
) -> tuple[Divergence, ...]:
    """Return how the legs of *outcomes* disagree on *vector*.

    Legs that agree form a group; each group after the first is reported once, by its
    first leg against the first leg of the first group.
    """
    groups: list[tuple[str, Outcome]] = []
    for leg, outcome in outcomes.items():
        if isinstance(outcome, Unknown):
            continue
        if not any(agree(outcome, other, mask) for _, other in groups):
            groups.append((leg, outcome))
    return tuple(
        Divergence(
            legs=(groups[0][0], leg),
            vector=vector,
            outcomes=(groups[0][1], outcome),
            offset=_offset(groups[0][1], outcome, mask),
        )
        for leg, outcome in groups[1:]
    )


def _offset(a: Outcome, b: Outcome, mask: Mask | None) -> int | None:
    if isinstance(a, Returned) and isinstance(b, Returned):
        return first_difference(a.ctx, b.ctx, mask)
    return None


def compare_all(
    legs: Mapping[str, Sequence[Outcome]],
    vectors: Sequence[Vector],
    mask: Mask | None = None,
) -> list[tuple[int, Divergence]]:
    """Return (vector number, divergence) over a batch.

    A leg may have fewer outcomes than there are vectors: it ran the first ones only.
    """
    names = sorted(legs, key=lambda leg: -len(legs[leg]))
    if all(legs[a][: len(legs[b])] == legs[b][: len(legs[a])] for a, b in pairwise(names)):
        return []  # equal to the last byte: nearly always, and quick to see
    found: list[tuple[int, Divergence]] = []
    for number, vector in enumerate(vectors):
        outcomes = {leg: seen[number] for leg, seen in legs.items() if number < len(seen)}
        found.extend((number, divergence) for divergence in compare(outcomes, vector, mask))
    return found
