"""Tristate numbers: what is known of each bit of a 64-bit value.

Mirrors Linux 7.3's kernel/bpf/tnum.c. A tnum is ``(value; mask)``: a bit set in
*mask* is unknown, and then clear in *value*; every other bit is that of *value*.
Integers are Python's, kept unsigned in 64 bits. Each docstring names the kernel
function its own mirrors.
"""

from __future__ import annotations

from typing import NamedTuple

M64 = (1 << 64) - 1
M32 = (1 << 32) - 1
S64 = 1 << 63  # sign bit
S32 = 1 << 31
HIGH = M64 ^ M32  # upper half


class Tnum(NamedTuple):
    """A tristate number. A tuple, because it is made ten times for each instruction."""

    value: int  # unsigned 64-bit: the bits known to be 1
    mask: int  # unsigned 64-bit: the bits not known; disjoint from value

    @property
    def is_const(self) -> bool:
        """Say whether there is one member only (``tnum_is_const``)."""
        return not self.mask

    def __str__(self) -> str:
        """Return the kernel's text, ``(0x0; 0xff)`` (``tnum_strn``)."""
        if self.mask:
            return f"({hex_text(self.value)}; {hex_text(self.mask)})"
        if self.value <= 0xFFFF:
            return str(self.value)
        signed = self.value - (self.value >> 63 << 64)
        return str(signed) if -0x8000 <= signed <= 0x7FFF else hex_text(self.value)


UNKNOWN = Tnum(0, M64)
ZERO = Tnum(0, 0)


def hex_text(number: int) -> str:
    """Return unsigned *number* as the kernel's ``%#llx`` writes it: ``0x0`` for zero."""
    return f"{number:#x}"


def const(value: int) -> Tnum:
    """Return the tnum of one value, wrapped to 64 bits (``tnum_const``)."""
    return Tnum(value & M64, 0)


def range(low: int, high: int) -> Tnum:  # noqa: A001  the kernel's name for it
    """Return the smallest tnum with all of unsigned *low* to *high* (``tnum_range``)."""
    bits = (low ^ high).bit_length()
    if bits > 63:
        return UNKNOWN
    delta = (1 << bits) - 1
    return Tnum(low & ~delta, delta)


def lshift(a: Tnum, shift: int) -> Tnum:
    """Shift left by a fixed amount, 0 to 63 (``tnum_lshift``)."""
    return Tnum(a.value << shift & M64, a.mask << shift & M64)


def rshift(a: Tnum, shift: int) -> Tnum:
    """Shift right by a fixed amount, 0 to 63 (``tnum_rshift``)."""
    return Tnum(a.value >> shift, a.mask >> shift)


def arshift(a: Tnum, shift: int, bits: int) -> Tnum:
    """Shift right by a fixed amount, keeping the sign of *bits*, 32 or 64 (``tnum_arshift``).

    With 32 the upper half of *a* is dropped and that of the result is 0.
    """
    if bits == 32:
        value, mask = a.value & M32, a.mask & M32
        return Tnum(
            (value - ((value & S32) << 1)) >> shift & M32,
            (mask - ((mask & S32) << 1)) >> shift & M32,
        )
    return Tnum(
        (a.value - ((a.value & S64) << 1)) >> shift & M64,
        (a.mask - ((a.mask & S64) << 1)) >> shift & M64,
    )


def add(a: Tnum, b: Tnum) -> Tnum:
    """Add modulo 2^64 (``tnum_add``)."""
    low = a.value + b.value
    unknown = ((low + a.mask + b.mask) ^ low | a.mask | b.mask) & M64
    return Tnum(low & ~unknown & M64, unknown)


def sub(a: Tnum, b: Tnum) -> Tnum:
    """Subtract modulo 2^64 (``tnum_sub``)."""
    difference = a.value - b.value
    unknown = ((difference + a.mask) ^ (difference - b.mask) | a.mask | b.mask) & M64
    return Tnum(difference & ~unknown & M64, unknown)


def neg(a: Tnum) -> Tnum:
    """Negate modulo 2^64 (``tnum_neg``)."""
    return sub(ZERO, a)


def and_(a: Tnum, b: Tnum) -> Tnum:
    """Bitwise and (``tnum_and``)."""
    value = a.value & b.value
    return Tnum(value, (a.value | a.mask) & (b.value | b.mask) & ~value)


def or_(a: Tnum, b: Tnum) -> Tnum:
    """Bitwise or (``tnum_or``)."""
    value = a.value | b.value
    return Tnum(value, (a.mask | b.mask) & ~value)


def xor(a: Tnum, b: Tnum) -> Tnum:
    """Bitwise exclusive or (``tnum_xor``)."""
    unknown = a.mask | b.mask
    return Tnum((a.value ^ b.value) & ~unknown, unknown)


def mul(a: Tnum, b: Tnum) -> Tnum:
    """Multiply modulo 2^64, by long multiplication over the bits of *a* (``tnum_mul``).

    A known 1 of *a* adds the shifted *b*; an unknown bit joins the sums with and
    without it. The order of the operands matters for the precision.
    """
    a_value, a_mask = a
    b_value, b_mask = b
    if not b_mask and not b_value & (b_value - 1):
        # A power of two (or 0) adds bits where the sum has known zeros: a shift.
        return Tnum(a_value * b_value & M64, a_mask * b_value & M64)
    if not a_mask and not b_mask:
        return Tnum(a_value * b_value & M64, 0)
    value = mask = 0
    bits = a_value | a_mask
    while bits:
        low = bits & -bits
        bits ^= low
        # The sum with b << log2(low)
        add_value, add_mask = b_value * low & M64, b_mask * low & M64
        total = value + add_value
        unknown = ((total + mask + add_mask) ^ total | mask | add_mask) & M64
        total &= ~unknown & M64
        if a_value & low:
            value, mask = total, unknown
        else:
            mask |= unknown | value ^ total
            value &= total & ~mask
    return Tnum(value, mask)


def overlap(a: Tnum, b: Tnum) -> bool:
    """Say whether the bits known in both are equal (``tnum_overlap``)."""
    return not (a.value ^ b.value) & ~a.mask & ~b.mask


def intersect(a: Tnum, b: Tnum) -> Tnum:
    """Return what both know; where they contradict, a known 1 (``tnum_intersect``)."""
    unknown = a.mask & b.mask
    return Tnum((a.value | b.value) & ~unknown, unknown)


def union(a: Tnum, b: Tnum) -> Tnum:
    """Return the smallest tnum with the members of both (``tnum_union``)."""
    unknown = a.value ^ b.value | a.mask | b.mask
    return Tnum(a.value & b.value & ~unknown, unknown)


def cast(a: Tnum, size: int) -> Tnum:
    """Keep the low *size* bytes, 1 to 8, and clear the others (``tnum_cast``)."""
    keep = (1 << size * 8) - 1
    return Tnum(a.value & keep, a.mask & keep)


def subreg(a: Tnum) -> Tnum:
    """Keep the low 32 bits (``tnum_subreg``)."""
    return Tnum(a.value & M32, a.mask & M32)


def clear_subreg(a: Tnum) -> Tnum:
    """Clear the low 32 bits (``tnum_clear_subreg``)."""
    return Tnum(a.value & HIGH, a.mask & HIGH)


def with_subreg(a: Tnum, low: Tnum) -> Tnum:
    """Return *a* with the low 32 bits of *low* (``tnum_with_subreg``)."""
    return Tnum(a.value & HIGH | low.value & M32, a.mask & HIGH | low.mask & M32)


def const_subreg(a: Tnum, value: int) -> Tnum:
    """Return *a* with its low 32 bits known to be *value* (``tnum_const_subreg``)."""
    return Tnum(a.value & HIGH | value & M32, a.mask & HIGH)


def bswap(a: Tnum, bits: int) -> Tnum:
    """Reverse the bytes of the low 16, 32 or 64 bits (``tnum_bswap16``, 32, 64)."""
    size, keep = bits // 8, (1 << bits) - 1
    return Tnum(
        int.from_bytes((a.value & keep).to_bytes(size, "little"), "big"),
        int.from_bytes((a.mask & keep).to_bytes(size, "little"), "big"),
    )


def contains(a: Tnum, value: int) -> bool:
    """Say whether unsigned 64-bit *value* is a member."""
    return value & ~a.mask == a.value


def is_subset(a: Tnum, b: Tnum) -> bool:
    """Say whether every member of *b* is one of *a* (``tnum_in``)."""
    return not b.mask & ~a.mask and b.value & ~a.mask == a.value


def is_aligned(a: Tnum, size: int) -> bool:
    """Say whether all members are multiples of *size*, 0 or 2^n (``tnum_is_aligned``)."""
    return not size or not (a.value | a.mask) & (size - 1)


def step(a: tuple[int, int], value: int) -> int:
    """Return the smallest member above *value*, or the largest if none is (``tnum_step``)."""
    low, mask = a
    high = low | mask
    if value >= high:
        return high
    if value < low:
        return low
    distance = value - low
    # Ones in all places outside the mask let the increment ripple to the next one inside.
    carry = (1 << (distance & ~mask & M64).bit_length()) - 1
    return low | ((distance | carry | ~mask & M64) + 1) & mask
