"""Circular ranges: one interval on the ring of 32-bit or of 64-bit integers.

Mirrors Linux 7.3's kernel/bpf/cnum.c and cnum_defs.h, where one ``cnum`` took the
place of a signed and an unsigned range. A cnum is ``(base, size)``: the values from
*base* on, upwards and around, *size* of them besides *base*. The functions take
the largest integer of the ring last (``M32`` or ``M64``), which is also its width.
Three pairs describe the whole ring with some base; ``(full, full)`` is the empty set.
"""

from __future__ import annotations

M64 = (1 << 64) - 1
M32 = (1 << 32) - 1

Cnum = tuple[int, int]  # base, size; both unsigned
EMPTY32: Cnum = (M32, M32)
EMPTY64: Cnum = (M64, M64)
UNBOUNDED32: Cnum = (0, M32)
UNBOUNDED64: Cnum = (0, M64)


def from_urange(low: int, high: int, full: int) -> Cnum:
    """Return unsigned *low* to *high* (``cnum64_from_urange``)."""
    return low, high - low & full


def from_srange(low: int, high: int, full: int) -> Cnum:
    """Return signed *low* to *high*; either may be unsigned too (``cnum64_from_srange``)."""
    size = high - low & full
    return (0 if size == full else low & full), size


def umin(cnum: Cnum, full: int) -> int:
    """Return the smallest unsigned member, 0 if the range wraps (``cnum64_umin``)."""
    base, size = cnum
    return 0 if size > full - base else base


def umax(cnum: Cnum, full: int) -> int:
    """Return the largest unsigned member, *full* if the range wraps (``cnum64_umax``)."""
    base, size = cnum
    return full if size > full - base else base + size


def smin(cnum: Cnum, full: int) -> int:
    """Return the smallest signed member, the lowest if the sign wraps (``cnum64_smin``)."""
    # Turning the ring by half of it makes the signed order the unsigned one.
    base, size = cnum
    sign = (full >> 1) + 1
    base ^= sign
    return -sign if size > full - base else base - sign


def smax(cnum: Cnum, full: int) -> int:
    """Return the largest signed member, the highest if the sign wraps (``cnum64_smax``)."""
    base, size = cnum
    sign = (full >> 1) + 1
    base ^= sign
    return full - sign if size > full - base else base + size - sign


def is_empty(cnum: Cnum, full: int) -> bool:
    """Say whether there is no member (``cnum64_is_empty``)."""
    return cnum == (full, full)


def contains(cnum: Cnum, value: int, full: int) -> bool:
    """Say whether unsigned *value* is a member (``cnum64_contains``)."""
    base, size = cnum
    return (value - base & full) <= size and cnum != (full, full)


def intersect(a: Cnum, b: Cnum, full: int) -> Cnum:
    """Return the members of both, if they are one range (``cnum64_intersect``).

    If they are two, the smaller of *a* and *b*, which holds more than that.
    """
    if a == (full, full) or b == (full, full):
        return full, full
    if a[0] > b[0]:
        a, b = b, a
    base, size = a
    other, other_size = b
    distance = other - base  # b starts that far into a
    if other_size > full - distance:
        if distance <= size:  # both ends of a
            return a if size <= other_size else b
        return base, min(size, distance + other_size & full)
    if size >= distance:
        return other, min(size - distance, other_size)
    return full, full


def _normal(base: int, size: int, full: int) -> Cnum:
    """Let the whole ring start at 0, except where it starts at the sign (``cnum64_normalize``)."""
    return (0, size) if size == full and base != full >> 1 else (base, size)


def add(a: Cnum, b: Cnum, full: int) -> Cnum:
    """Return all sums (``cnum64_add``)."""
    if a == (full, full) or b == (full, full):
        return full, full
    size = a[1] + b[1]
    return (0, full) if size > full else _normal(a[0] + b[0] & full, size, full)


def negate(a: Cnum, full: int) -> Cnum:
    """Return the negatives of all members (``cnum64_negate``)."""
    if a == (full, full):
        return full, full
    return _normal(-(a[0] + a[1]) & full, a[1], full)


def is_subset(outer: Cnum, inner: Cnum, full: int) -> bool:
    """Say whether *outer* has all members of *inner* (``cnum64_is_subset``)."""
    if inner == (full, full):
        return True
    if outer == (full, full):
        return False
    distance = inner[0] - outer[0] & full
    if inner[1] > full - distance:
        return outer[1] == full  # and then any sum modulo the ring is inside
    return distance + inner[1] <= outer[1]


def low_half(a: Cnum) -> Cnum:
    """Return the low 32 bits of a 64-bit range (``cnum32_from_cnum64``)."""
    if a == EMPTY64:
        return EMPTY32
    return UNBOUNDED32 if a[1] >= M32 else (a[0] & M32, a[1])


def narrow(a: Cnum, b: Cnum) -> Cnum:
    """Trim the ends of *a* whose low 32 bits are not in *b* (``cnum64_cnum32_intersect``)."""
    if a == EMPTY64 or b == EMPTY32:
        return EMPTY64
    base, size = a
    skip = b[0] - base & M32  # from the start of a to the first b in it
    end = skip + b[1]  # and to the last value of that b
    last = size & M32  # where in the last, partial turn of 2^32 a ends
    if end > M32:  # the start of a lies inside a b, or just behind one
        end &= M32
        return (base, size - (last - end)) if end < last < skip else a
    if size < skip:
        return EMPTY64
    if last < skip:
        cut = last + (1 << 32) - end
    elif last >= end:
        cut = last - end
    else:
        cut = 0
    size -= skip
    if size < cut:
        return EMPTY64
    return base + skip & M64, size - cut
