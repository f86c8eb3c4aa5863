"""Results that follow from where memory lies: an address that a program takes for a number.

A privileged program may store an address, or compute with one, and what comes of it differs from
leg to leg though none is wrong. That is so where the interpreter, with its context, its frames and
its maps' values at the very addresses that they had on the leg beside it, does what that leg did,
and something else at its own. A leg that is wrong does not agree with it there, either.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from harness import pipeline
from harness.compare import agree
from harness.interp import STACK_SIZE, Places
from harness.model import Divergence, Outcome, Program, Returned

WHERE = 16  # places at which a number made of an address has another value, or it is none
OURS = ("interp", "jit")


def by_place(program: Program, divergence: Divergence, dead: frozenset[int]) -> bool:
    """Return whether *divergence* of BPF legs is but where memory lay; the image lacks *dead*.

    Where Linux lays it is not known: what it has otherwise may only be bytes that differ from
    place to place.
    """
    told = pipeline.execute_alike(program, divergence.vector, dead)
    if told is None:
        return False
    image, same, places = told
    if not (isinstance(image, Returned) and isinstance(same, Returned) and agree(image, same)):
        return False
    if all(leg in OURS for leg in divergence.legs):
        return True
    seen = pipeline.execute_at(program, divergence.vector, _elsewhere(places))
    return _in_moving_bytes(divergence.outcomes, seen)


def _elsewhere(places: Places) -> list[Places]:
    """Return other places for what *places* has."""
    rng = random.Random(len(places.frames))

    def address() -> int:
        return rng.randrange(1 << 32, 1 << 64, 8)  # Linux has them at the top

    out = []
    for _ in range(WHERE):
        top = address()
        frames = tuple(top - 2 * STACK_SIZE * n for n in range(len(places.frames)))
        values = tuple((name, address()) for name, _ in places.values)
        out.append(Places(address(), frames, values))
    return out


def _in_moving_bytes(outcomes: Sequence[object], seen: Sequence[Outcome]) -> bool:
    """Return whether *outcomes* differ only in bytes that differ among *seen*, too."""
    a, b = outcomes
    ours = [_bytes(outcome) for outcome in seen if isinstance(outcome, Returned)]
    if not isinstance(a, Returned) or not isinstance(b, Returned) or len(ours) != len(seen):
        return False
    if len({*map(len, ours), len(_bytes(a)), len(_bytes(b))}) != 1:
        return False
    pairs = zip(_bytes(a), _bytes(b), *ours, strict=True)
    return all(x == y or len(set(rest)) > 1 for x, y, *rest in pairs)


def _bytes(outcome: Returned) -> bytes:
    return outcome.r0.to_bytes(8, "little") + outcome.ctx
