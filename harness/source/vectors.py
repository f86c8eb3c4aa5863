"""Input vectors: the bytes of contexts, boundary values first, then seeded random ones.

A vector depends on the seed, the function's name and layout, and its own number; neither
on how many are asked for nor on what else runs. Bytes that are no value (padding, the
result's place) are random as well.
"""

from __future__ import annotations

import random
from functools import lru_cache

from harness.model import Vector
from harness.source.layout import Layout, Leaf
from harness.source.signature import Scalar

PATTERNS = 8  # vectors of the opening, see _opening


def vectors(layout: Layout, count: int, seed: int) -> list[Vector]:
    """Return the first *count* vectors of *layout*'s function under *seed*."""
    rng = random.Random(f"{seed}:{layout.signature.name}")
    leaves = _in_writing_order(list(layout.leaves()))
    choices = [_encoded(leaf.type, leaf.bits, leaf.bit % 8) for leaf in leaves]
    strict = [leaf.type.bool or bool(leaf.type.values) for leaf in leaves]
    rows = [
        (_place(leaf), leaf, values, len(values), always)
        for leaf, values, always in zip(leaves, choices, strict, strict=True)
    ]
    made = []
    for number in range(count):
        data = bytearray(rng.randbytes(layout.size))
        if number < PATTERNS:
            for index, leaf in enumerate(leaves):
                value = _encode(leaf, _opening(number, index, leaf.type, leaf.bits))
                _write(data, _place(leaf), leaf, value)
            made.append(bytes(data))
            continue
        bold = 180 if number % 4 != 3 else 40  # of 256; one vector in four is mostly random
        draws = memoryview(rng.randbytes(4 * len(rows))).cast("I")
        for (place, leaf, values, many, always), draw in zip(rows, draws, strict=True):
            if always or draw & 0xFF < bold:
                value = values[(draw >> 8) * many >> 24]
                if place:
                    data[place] = value
                else:
                    _write(data, None, leaf, value)
        made.append(bytes(data))
    return made


@lru_cache(maxsize=1024)
def _encoded(kind: Scalar, bits: int, shift: int) -> list[bytes]:
    """Return the boundaries of a leaf that begins at bit *shift* of a byte, as bytes."""
    leaf = Leaf(shift, bits, kind, "")
    return [_encode(leaf, value) for value in boundaries(kind, bits)]


@lru_cache(maxsize=1024)
def boundaries(kind: Scalar, bits: int | None = None) -> tuple[int, ...]:
    """Return the values of *kind*, cut to *bits*, where code tends to go wrong.

    Zero and its neighbours, the ends of every narrower type, the neighbours of powers of
    two, alternating bits; of an enum its enumerators.
    """
    width = bits or 8 * kind.size
    if kind.bool:
        return (0, 1)
    if kind.values:
        fit = tuple(v for v in kind.values if _fits(v, width, kind.signed))
        return fit or (0,)
    top = (1 << width) - 1
    found = [0, 1, top, 2, 3, 10, top - 1]
    for power in (7, 8, 15, 16, 31, 32, 63, 64, 127, width - 1, width - 2, 4, 12, 24, 48):
        if 0 < power < width:
            found += [(1 << power) - 1, 1 << power, (1 << power) + 1, top ^ (1 << power)]
    for pattern in (0xAA, 0x55, 0x0F, 0xF0):
        found.append(int.from_bytes(bytes([pattern]) * 16, "little"))
    found.append(0x0123456789ABCDEFFEDCBA9876543210 >> max(0, 128 - width))
    return tuple(dict.fromkeys(v & top for v in found))


def _fits(value: int, width: int, signed: bool) -> bool:
    if signed:
        return -(1 << width - 1) <= value < 1 << width - 1
    return 0 <= value < 1 << width


def _opening(number: int, index: int, kind: Scalar, bits: int) -> int:
    """Return leaf *index*'s value in opening vector *number*: one idea a vector."""
    values = boundaries(kind, bits)
    if kind.bool or kind.values:
        return values[(number + index) % len(values)]
    top, high = (1 << bits) - 1, 1 << bits - 1
    ideas: tuple[int, ...] = (
        index + 1,  # distinct and small: swapped arguments show
        0,
        top,  # -1
        high,  # the lowest signed value
        high - 1,  # the highest
        -(index + 1),  # distinct and negative
        _distinct(index),
        values[index * 7 % len(values)],
    )
    return ideas[number % PATTERNS] & top


@lru_cache(maxsize=256)
def _distinct(index: int) -> int:
    """Return what differs in every byte and in the sign of every narrower type."""
    return sum(
        (0x80 * ((index + byte) & 1) + index + 16 * byte & 0xFF) << 8 * byte for byte in range(16)
    )


def _in_writing_order(leaves: list[Leaf]) -> list[Leaf]:
    """Put last what has invalid representations: in a union it must win over its neighbours.

    A bool that is neither 0 nor 1 is undefined to read, and an enum that is none of its
    enumerators leaves a switch without a case.
    """
    return sorted(leaves, key=lambda leaf: (leaf.type.bool, bool(leaf.type.values)))


def _encode(leaf: Leaf, value: int) -> bytes:
    value &= (1 << leaf.bits) - 1
    if _whole(leaf):
        return value.to_bytes(leaf.bits // 8, "little")
    shift = leaf.bit % 8
    return (value << shift).to_bytes((shift + leaf.bits + 7) // 8, "little")


def _whole(leaf: Leaf) -> bool:
    return leaf.bit % 8 == 0 and leaf.bits % 8 == 0


def _place(leaf: Leaf) -> slice | None:
    """Return the bytes of *leaf*, None for a bit-field that shares them."""
    return slice(leaf.bit // 8, (leaf.bit + leaf.bits) // 8) if _whole(leaf) else None


def _write(data: bytearray, place: slice | None, leaf: Leaf, value: bytes) -> None:
    if place:
        data[place] = value
        return
    start = leaf.bit // 8
    end = start + len(value)
    keep = ~(((1 << leaf.bits) - 1) << leaf.bit % 8)
    old = int.from_bytes(data[start:end], "little") & keep
    data[start:end] = (old | int.from_bytes(value, "little")).to_bytes(end - start, "little")
