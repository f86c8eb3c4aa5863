"""Tristate numbers: sound for any member, exact where they can be, on small ones best of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.verifier import tnum
from harness.verifier.tnum import M32, M64, Tnum

# Words near powers of two, where carries and signs turn.
WORDS = st.one_of(
    st.builds(
        lambda power, offset, sign: (sign * (1 << power) + offset) & M64,
        st.integers(0, 64),
        st.integers(-2, 2),
        st.sampled_from((1, -1)),
    ),
    st.integers(0, M64),
    st.integers(0, 40),
)
MEMBERS = st.builds(lambda mask, word: (Tnum(word & ~mask & M64, mask), word), WORDS, WORDS)

BINARY: dict[str, tuple[Callable[[Tnum, Tnum], Tnum], Callable[[int, int], int]]] = {
    "add": (tnum.add, lambda x, y: x + y),
    "sub": (tnum.sub, lambda x, y: x - y),
    "mul": (tnum.mul, lambda x, y: x * y),
    "and": (tnum.and_, lambda x, y: x & y),
    "or": (tnum.or_, lambda x, y: x | y),
    "xor": (tnum.xor, lambda x, y: x ^ y),
}


def small_tnums(bits: int) -> list[Tnum]:
    """Every tnum of that many bits."""
    return [
        Tnum(value, mask)
        for mask in range(1 << bits)
        for value in range(1 << bits)
        if not value & mask
    ]


def members(a: Tnum) -> list[int]:
    """Every member of a tnum of few unknown bits."""
    found = [0]
    for bit in range(a.mask.bit_length()):
        if a.mask >> bit & 1:
            found += [member | 1 << bit for member in found]
    return [a.value | member for member in found]


def best(values: Iterable[int]) -> Tnum:
    """The smallest tnum with all of *values*."""
    first, *others = (value & M64 for value in values)
    mask = 0
    for other in others:
        mask |= first ^ other
    return Tnum(first & ~mask, mask)


@pytest.mark.parametrize("name", BINARY)
@settings(deadline=None)
@given(MEMBERS, MEMBERS)
def test_a_binary_operation_keeps_members(
    name: str, left: tuple[Tnum, int], right: tuple[Tnum, int]
) -> None:
    abstract, concrete = BINARY[name]
    result = abstract(left[0], right[0])
    assert tnum.contains(result, concrete(left[1], right[1]) & M64)
    assert not result.value & result.mask


@pytest.mark.parametrize("name", BINARY)
@settings(deadline=None)
@given(WORDS, WORDS)
def test_a_binary_operation_is_exact_on_constants(name: str, left: int, right: int) -> None:
    abstract, concrete = BINARY[name]
    result = abstract(tnum.const(left), tnum.const(right))
    assert result == tnum.const(concrete(left, right))


@pytest.mark.parametrize("name", [name for name in BINARY if name != "mul"])
def test_no_better_result_exists(name: str) -> None:
    abstract, concrete = BINARY[name]
    for left, right in product(small_tnums(3), repeat=2):
        pairs = product(members(left), members(right))
        assert abstract(left, right) == best(concrete(x, y) for x, y in pairs)


@settings(deadline=None)
@given(MEMBERS, MEMBERS)
def test_multiplication_goes_bit_by_bit(left: tuple[Tnum, int], right: tuple[Tnum, int]) -> None:
    """The shortcuts give what the long way does, over all 64 bits of the first operand."""
    a, b = left[0], right[0]
    total = tnum.ZERO
    for bit in range(64):
        added = tnum.add(total, tnum.lshift(b, bit))
        if a.value >> bit & 1:
            total = added
        elif a.mask >> bit & 1:
            total = tnum.union(total, added)
    assert tnum.mul(a, b) == total


def test_multiplication_by_an_unknown_bit_may_be_nothing() -> None:
    assert tnum.mul(Tnum(0, 1), tnum.const(3)) == Tnum(0, 3)
    assert tnum.mul(Tnum(1, 2), tnum.const(3)) == Tnum(1, 10)  # 3 or 9
    assert tnum.mul(tnum.UNKNOWN, tnum.const(8)) == Tnum(0, M64 - 7)


@settings(deadline=None)
@given(MEMBERS, st.integers(0, 63))
def test_shifts_and_negation_keep_members(pair: tuple[Tnum, int], shift: int) -> None:
    a, word = pair
    signed = word - (word >> 63 << 64)
    low = word & M32
    low_signed = low - (low >> 31 << 32)
    assert tnum.contains(tnum.lshift(a, shift), word << shift & M64)
    assert tnum.contains(tnum.rshift(a, shift), word >> shift)
    assert tnum.contains(tnum.arshift(a, shift, 64), signed >> shift & M64)
    assert tnum.contains(tnum.arshift(a, shift & 31, 32), low_signed >> (shift & 31) & M32)
    assert tnum.contains(tnum.neg(a), -word & M64)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_range_is_the_common_prefix(x: int, y: int) -> None:
    low, high = sorted((x, y))
    result = tnum.range(low, high)
    assert tnum.contains(result, low)
    assert tnum.contains(result, high)
    if low != high:  # the highest bit in which they differ is the highest unknown one
        assert result.mask == (1 << (low ^ high).bit_length()) - 1


def test_range_of_three_values_has_four() -> None:
    assert tnum.range(0, 2) == Tnum(0, 3)
    assert tnum.range(0, M64) == tnum.UNKNOWN
    assert tnum.range(5, 5) == tnum.const(5)


def test_sets_of_small_tnums() -> None:
    for a, b in product(small_tnums(3), repeat=2):
        mine, theirs = set(members(a)), set(members(b))
        assert tnum.union(a, b) == best(mine | theirs)
        assert tnum.is_subset(a, b) == (mine >= theirs)
        assert tnum.overlap(a, b) == bool(mine & theirs)
        if mine & theirs:
            assert set(members(tnum.intersect(a, b))) == mine & theirs


def test_a_contradiction_intersects_to_ones() -> None:
    assert tnum.intersect(tnum.const(0b01), tnum.const(0b10)) == tnum.const(0b11)


@settings(deadline=None)
@given(MEMBERS, MEMBERS, st.integers(1, 7))
def test_parts(pair: tuple[Tnum, int], other: tuple[Tnum, int], size: int) -> None:
    a, word = pair
    b, low = other
    keep = (1 << 8 * size) - 1
    assert tnum.contains(tnum.cast(a, size), word & keep)
    assert tnum.cast(a, 8) == a
    assert tnum.subreg(a) == tnum.cast(a, 4)
    assert tnum.contains(tnum.clear_subreg(a), word & ~M32)
    assert tnum.contains(tnum.with_subreg(a, b), word & ~M32 | low & M32)
    assert tnum.const_subreg(a, low) == tnum.with_subreg(a, tnum.const(low))


@pytest.mark.parametrize("bits", [16, 32, 64])
@settings(deadline=None)
@given(MEMBERS)
def test_byte_swap(bits: int, pair: tuple[Tnum, int]) -> None:
    a, word = pair
    swapped = int.from_bytes((word & (1 << bits) - 1).to_bytes(bits // 8, "little"), "big")
    result = tnum.bswap(a, bits)
    assert tnum.contains(result, swapped)
    assert tnum.bswap(result, bits) == tnum.cast(a, bits // 8)


def test_alignment() -> None:
    assert tnum.is_aligned(Tnum(0, 0xF8), 8)
    assert not tnum.is_aligned(Tnum(4, 0xF8), 8)
    assert tnum.is_aligned(Tnum(4, 0xF8), 4)
    assert tnum.is_aligned(Tnum(1, 2), 0)


def test_step_finds_the_next_member() -> None:
    for a in small_tnums(4):
        inside = members(a)
        for value in range(18):
            above = [member for member in inside if member > value]
            assert tnum.step(a, value) == (min(above) if above else max(inside))


@settings(deadline=None)
@given(MEMBERS, WORDS)
def test_step_ends_on_a_member(pair: tuple[Tnum, int], value: int) -> None:
    a, word = pair
    following = tnum.step(a, value)
    assert tnum.contains(a, following)
    if word > value:
        assert value < following <= word


def test_text() -> None:
    assert str(Tnum(0, 0xFF)) == "(0x0; 0xff)"
    assert str(tnum.const(65535)) == "65535"
    assert str(tnum.const(-1)) == "-1"
    assert str(tnum.const(65536)) == "0x10000"
    assert str(tnum.const(-32769)) == "0xffffffffffff7fff"
    assert str(Tnum(1 << 63, M64 >> 1)) == "(0x8000000000000000; 0x7fffffffffffffff)"
