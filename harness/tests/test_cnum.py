"""Circular ranges: every range of a ring of 16 against the set it stands for."""

from __future__ import annotations

from itertools import product

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.verifier import cnum
from harness.verifier.cnum import EMPTY32, EMPTY64, M32, M64, UNBOUNDED32, UNBOUNDED64, Cnum

FULL = 15  # the functions take the width, so that a ring of 4 bits can be tried whole
RANGES = [(base, size) for base in range(16) for size in range(16)]
EMPTY = (FULL, FULL)


def members(ring: Cnum) -> set[int]:
    """The values of a range of the small ring."""
    base, size = ring
    return set() if ring == EMPTY else {(base + step) & FULL for step in range(size + 1)}


def signed(value: int) -> int:
    """A value of the small ring as a signed number."""
    return value - 16 if value > 7 else value


SETS = {ring: members(ring) for ring in RANGES}
CONTIGUOUS = {frozenset(values) for values in SETS.values()}


def test_bounds_of_a_range() -> None:
    for ring, values in SETS.items():
        if not values:
            continue
        assert cnum.umin(ring, FULL) == min(values)
        assert cnum.umax(ring, FULL) == max(values)
        assert cnum.smin(ring, FULL) == min(map(signed, values))
        assert cnum.smax(ring, FULL) == max(map(signed, values))
        assert {value for value in range(16) if cnum.contains(ring, value, FULL)} == values


def test_the_empty_range() -> None:
    assert [ring for ring in RANGES if cnum.is_empty(ring, FULL)] == [EMPTY]
    assert not any(cnum.contains(EMPTY, value, FULL) for value in range(16))
    assert cnum.add(EMPTY, (1, 2), FULL) == cnum.negate(EMPTY, FULL) == EMPTY
    assert cnum.intersect(EMPTY, (0, FULL), FULL) == EMPTY


def test_ranges_from_bounds() -> None:
    for low, high in product(range(16), repeat=2):
        if low <= high:
            assert members(cnum.from_urange(low, high, FULL)) == set(range(low, high + 1))
        if signed(low) <= signed(high):
            wanted = {value & FULL for value in range(signed(low), signed(high) + 1)}
            assert members(cnum.from_srange(signed(low), signed(high), FULL)) == wanted


def test_intersection_is_exact_or_one_of_the_two() -> None:
    for a, b in product(RANGES, repeat=2):
        both = SETS[a] & SETS[b]
        result = cnum.intersect(a, b, FULL)
        if frozenset(both) in CONTIGUOUS and len(both) != 16:
            wanted = SETS[a] if SETS[a] <= SETS[b] else both
            assert SETS[result] == wanted, (a, b)
        else:  # two arcs: no range says so, and the smaller operand is nearest
            assert result in (a, b)
            assert len(SETS[result]) == min(len(SETS[a]), len(SETS[b]))


def test_intersecting_again_changes_nothing() -> None:
    """What lets ``scalar.sync`` leave out a turn that starts where the last one did."""
    for a, b in product(RANGES, repeat=2):
        once = cnum.intersect(a, b, FULL)
        assert cnum.intersect(once, b, FULL) == once


def test_sums_and_negatives() -> None:
    for a, b in product(RANGES, repeat=2):
        sums = {(x + y) & FULL for x in SETS[a] for y in SETS[b]}
        assert members(cnum.add(a, b, FULL)) == sums
    for a in RANGES:
        assert members(cnum.negate(a, FULL)) == {-x & FULL for x in SETS[a]}


def test_subsets() -> None:
    for a, b in product(RANGES, repeat=2):
        assert cnum.is_subset(a, b, FULL) == (SETS[a] >= SETS[b])


def test_a_whole_ring_starts_at_zero_but_for_one() -> None:
    """As Linux 7.3 has it: the sum keeps the base at the highest signed value."""
    assert cnum.add((3, M64 - 5), (4, 5), M64) == UNBOUNDED64
    assert cnum.add((M64 >> 1, M64 - 5), (0, 5), M64) == (M64 >> 1, M64)
    assert cnum.from_srange(-(1 << 31), (1 << 31) - 1, M32) == UNBOUNDED32


WORDS = st.one_of(
    st.builds(
        lambda power, offset: ((1 << power) + offset) & M64, st.integers(0, 64), st.integers(-2, 2)
    ),
    st.integers(0, M64),
)


@settings(deadline=None)
@given(WORDS, WORDS, WORDS, WORDS, WORDS)
def test_narrowing_by_the_low_half(
    value: int, before: int, size: int, before32: int, size32: int
) -> None:
    size32 &= M32
    a = (value - min(before, size) & M64, size)
    b = (value - min(before32 & M32, size32) & M32, size32)
    assume(a != EMPTY64 and b != EMPTY32)
    result = cnum.narrow(a, b)
    assert cnum.contains(result, value, M64)
    assert cnum.is_subset(a, result, M64)
    assert cnum.contains(b, result[0] & M32, M32)  # both ends are in b: no tighter range exists
    assert cnum.contains(b, result[0] + result[1] & M32, M32)


def test_narrowing_to_nothing() -> None:
    assert cnum.narrow((5, 10), (100, 10)) == EMPTY64
    assert cnum.narrow((0x1_0000_0010, 5), (0, 3)) == EMPTY64
    assert cnum.narrow(EMPTY64, (0, 3)) == cnum.narrow((0, 3), EMPTY32) == EMPTY64


def test_low_half() -> None:
    assert cnum.low_half((0x1_FFFF_FFFF, 2)) == (M32, 2)
    assert cnum.low_half((0x1_0000_0000, M32)) == UNBOUNDED32
    assert cnum.low_half(EMPTY64) == EMPTY32
