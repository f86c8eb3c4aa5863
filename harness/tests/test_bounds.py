"""Scalars: every transfer function keeps every member, and does what Linux 7.3 is known to do.

The concrete meaning of instructions is written here from RFC 9669, section 4, apart from
the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.isa.opcodes import ALU_OPS, JUMP_OPS, SIGNED_ALU_OPS
from harness.verifier import bounds, cnum, tnum
from harness.verifier.bounds import UNKNOWN, Scalar, const
from harness.verifier.tnum import M32, M64

Member = tuple[Scalar, int]  # an abstract value, and one value it stands for


# The meaning of instructions, RFC 9669


def as_signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (value >> bits - 1 << bits)


def toward_zero(x: int, y: int) -> int:
    return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)


def compute(op: str, bits: int, dst: int, src: int) -> int:
    """Section 4.1: 32-bit results are zero-extended; shift amounts are masked."""
    full = (1 << bits) - 1
    x, y = dst & full, src & full
    signed_x, signed_y = as_signed(x, bits), as_signed(y, bits)
    meaning: dict[str, Callable[[], int]] = {
        "add": lambda: x + y,
        "sub": lambda: x - y,
        "mul": lambda: x * y,
        "div": lambda: x // y if y else 0,
        "sdiv": lambda: toward_zero(signed_x, signed_y) if y else 0,
        "mod": lambda: x % y if y else x,
        "smod": lambda: signed_x - signed_y * toward_zero(signed_x, signed_y) if y else x,
        "or": lambda: x | y,
        "and": lambda: x & y,
        "xor": lambda: x ^ y,
        "lsh": lambda: x << (y & bits - 1),
        "rsh": lambda: x >> (y & bits - 1),
        "arsh": lambda: signed_x >> (y & bits - 1),
        "neg": lambda: -x,
        "mov": lambda: y,
    }
    return meaning[op]() & full


def holds(op: str, bits: int, dst: int, src: int) -> bool:
    """Section 4.3."""
    full = (1 << bits) - 1
    x, y = dst & full, src & full
    signed_x, signed_y = as_signed(x, bits), as_signed(y, bits)
    meaning = {
        "eq": x == y,
        "ne": x != y,
        "set": x & y != 0,
        "gt": x > y,
        "ge": x >= y,
        "lt": x < y,
        "le": x <= y,
        "sgt": signed_x > signed_y,
        "sge": signed_x >= signed_y,
        "slt": signed_x < signed_y,
        "sle": signed_x <= signed_y,
    }
    return meaning[op]


ALU = list(ALU_OPS) + list(SIGNED_ALU_OPS)
JUMPS = list(JUMP_OPS)
# The kernel gives a range for the remainder of constants.
EXACT = [op for op in ALU if op not in ("mod", "smod")]

BITS = st.sampled_from((32, 64))

# Abstract values and members of them, near powers of two, where carries and signs turn

WORDS = st.one_of(
    st.builds(
        lambda power, offset, sign: (sign * (1 << power) + offset) & M64,
        st.integers(0, 64),
        st.integers(-2, 2),
        st.sampled_from((1, -1)),
    ),
    st.integers(0, 70),
    st.integers(0, M64),
)


def around(word: int, mask: int, before: int, size: int, before32: int, size32: int) -> Member:
    """A scalar of which *word* is a member, synchronised as all are."""
    size32 &= M32
    r64 = (word - min(before, size) & M64, size)
    r32 = (word - min(before32 & M32, size32) & M32, size32)
    if r64 == cnum.EMPTY64 or r32 == cnum.EMPTY32:
        return UNKNOWN, word
    return bounds.sync((word & ~mask & M64, mask, *r64, *r32)), word


ZERO = st.just(0)
ALL = st.just(M64)
MEMBERS = st.one_of(
    st.builds(around, WORDS, WORDS, WORDS, WORDS, WORDS, WORDS),
    st.builds(around, WORDS, ALL, WORDS, st.integers(0, 300), ZERO, ALL),  # a small range
    st.builds(around, WORDS, ALL, ZERO, ALL, WORDS, st.integers(0, 300)),
    st.builds(around, WORDS, WORDS, ZERO, ALL, ZERO, ALL),  # known bits only
    st.builds(lambda word: (const(word), word), WORDS),
)
SCALARS = st.builds(lambda pair: pair[0], MEMBERS)
CONSTANTS = st.builds(lambda word: (const(word), word), WORDS)


@settings(deadline=None)
@given(MEMBERS)
def test_the_strategy_gives_members(pair: Member) -> None:
    assert pair[0].contains(pair[1])


# Transfer functions


@pytest.mark.parametrize("op", ALU)
@settings(max_examples=80, deadline=None)
@given(BITS, MEMBERS, st.one_of(MEMBERS, CONSTANTS))
def test_arithmetic_keeps_members(op: str, bits: int, left: Member, right: Member) -> None:
    result = bounds.alu(op, bits, left[0], right[0])
    assert result.contains(compute(op, bits, left[1], right[1]))


@pytest.mark.parametrize("op", EXACT)
@settings(max_examples=40, deadline=None)
@given(BITS, WORDS, WORDS)
def test_arithmetic_on_constants_is_exact(op: str, bits: int, left: int, right: int) -> None:
    if op in ("lsh", "rsh", "arsh"):
        right &= bits - 1
    result = bounds.alu(op, bits, const(left), const(right))
    assert result == const(compute(op, bits, left, right))


@settings(deadline=None)
@given(MEMBERS, st.sampled_from(("add", "sub", "mul", "and", "or", "xor", "neg")))
def test_the_short_way_for_constants_is_the_long_one(pair: Member, op: str) -> None:
    for bits in (32, 64):
        a, b = const(pair[1]), const(~pair[1] >> 3)
        assert bounds.alu(op, bits, a, b) == bounds._alu(op, bits, a, b)


@pytest.mark.parametrize("op", JUMPS)
@settings(max_examples=80, deadline=None)
@given(BITS, MEMBERS, MEMBERS)
def test_comparisons_keep_members(op: str, bits: int, left: Member, right: Member) -> None:
    taken, otherwise = bounds.refine(op, bits, left[0], right[0])
    branch = taken if holds(op, bits, left[1], right[1]) else otherwise
    assert branch is not None
    assert branch[0].contains(left[1])
    assert branch[1].contains(right[1])
    assert (
        bounds.branch_taken(op, bits, left[0], right[0])
        is {
            (True, True): None,
            (True, False): True,
            (False, True): False,
        }[taken is not None, otherwise is not None]
    )


@pytest.mark.parametrize("op", JUMPS)
@settings(max_examples=40, deadline=None)
@given(BITS, WORDS, WORDS)
def test_comparing_constants_is_exact(op: str, bits: int, left: int, right: int) -> None:
    assert bounds.branch_taken(op, bits, const(left), const(right)) is holds(op, bits, left, right)


@pytest.mark.parametrize("op", JUMPS)
@settings(max_examples=30, deadline=None)
@given(BITS, MEMBERS)
def test_comparing_a_register_with_itself(op: str, bits: int, pair: Member) -> None:
    scalar, word = pair
    decided = bounds.branch_taken(op, bits, scalar, scalar, same=True)
    assert decided in (None, holds(op, bits, word, word))
    if op != "set":
        assert decided is not None
    elif decided is None:
        nothing_learnt = (scalar, scalar)
        result = bounds.refine(op, bits, scalar, scalar, same=True)
        assert result == (nothing_learnt, nothing_learnt)


@settings(deadline=None)
@given(MEMBERS, st.sampled_from(((8, 64), (16, 64), (32, 64), (8, 32), (16, 32))))
def test_sign_extension_keeps_members(pair: Member, widths: tuple[int, int]) -> None:
    scalar, word = pair
    bits, to = widths
    wanted = as_signed(word, bits) & (1 << to) - 1
    assert bounds.sext(scalar, bits, to).contains(wanted)
    assert bounds.sext(const(word), bits, to) == const(wanted)


@settings(deadline=None)
@given(MEMBERS, st.sampled_from((1, 2, 4, 8)))
def test_truncation_keeps_members(pair: Member, size: int) -> None:
    scalar, word = pair
    wanted = word & (1 << 8 * size) - 1
    assert bounds.truncate(scalar, size).contains(wanted)
    assert bounds.truncate(const(word), size) == const(wanted)
    if size == 4:
        assert bounds.mov32(scalar).contains(wanted)


@settings(deadline=None)
@given(MEMBERS, st.sampled_from(("le", "be", "bswap")), st.sampled_from((16, 32, 64)))
def test_byte_order_keeps_members(pair: Member, op: str, bits: int) -> None:
    scalar, word = pair
    low = word & (1 << bits) - 1
    order = "little" if op == "le" else "big"
    wanted = int.from_bytes(low.to_bytes(bits // 8, "little"), order)  # type: ignore[arg-type]
    assert bounds.endian(op, bits, scalar).contains(wanted)
    assert bounds.endian(op, bits, const(word)) == const(wanted)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_loads_of_unknown_memory(size: int) -> None:
    assert Scalar.from_load(size) == bounds.truncate(UNKNOWN, size)
    if size != 8:
        assert Scalar.from_load(size, signed=True) == bounds.sext(UNKNOWN, 8 * size)


@settings(deadline=None)
@given(MEMBERS, MEMBERS, st.sampled_from(("add", "sub")), st.booleans())
def test_pointer_offsets_keep_members(
    pointer: Member, offset: Member, op: str, tighten: bool
) -> None:
    result = bounds.add_offset(op, pointer[0], offset[0], tighten)
    assert result.contains(compute(op, 64, pointer[1], offset[1]))


@settings(deadline=None)
@given(MEMBERS, st.integers(-(1 << 32), 1 << 32), BITS)
def test_linked_registers_follow(pair: Member, offset: int, bits: int) -> None:
    scalar, word = pair
    result = bounds.add_linked(scalar, const(offset), bits)
    assert result.contains(compute("add", bits, word, offset & M64))


@settings(deadline=None)
@given(MEMBERS, st.sampled_from(("and", "or")), CONSTANTS)
@example((bounds.alu("arsh", 64, UNKNOWN, const(63)), M64), "and", (const(7), 7))
@example((bounds.alu("arsh", 64, UNKNOWN, const(63)), 0), "or", (const(7), 7))
@example((bounds.alu("arsh", 32, UNKNOWN, const(31)), M32), "and", (const(7), 7))
def test_a_fork_covers_both_values(pair: Member, op: str, other: Member) -> None:
    scalar, word = pair
    parts = bounds.fork(op, scalar, other[0])
    if parts is None:
        assert (scalar.smin, scalar.smax) != (-1, 0)
        assert (scalar.s32_min, scalar.s32_max) != (-1, 0)
        return
    result = compute(op, 64, word, other[1])
    assert any(bounds.alu(op, 64, part, other[0]).contains(result) for part in parts)
    for part in parts:  # forking the pushed state again would never end
        assert bounds.fork(op, part, other[0]) is None


@settings(deadline=None)
@given(MEMBERS, st.integers(-(1 << 31), (1 << 31) - 1), st.integers(-(1 << 31), (1 << 31) - 1))
def test_clamping_keeps_members(pair: Member, one: int, other: int) -> None:
    scalar, word = pair
    low, high = sorted((one, other))
    if low <= as_signed(word, 64) <= high:
        assert bounds.clamp(scalar, low, high).contains(word)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(ALU), st.sampled_from((32, 64)), MEMBERS),
        st.tuples(st.sampled_from(JUMPS), st.sampled_from((32, 64)), MEMBERS),
    ),
    min_size=3,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(MEMBERS, STEPS)
def test_a_path_keeps_its_value(start: Member, steps: list[tuple[str, int, Member]]) -> None:
    scalar, word = start
    for op, bits, (operand, other) in steps:
        if op in ALU:
            scalar, word = bounds.alu(op, bits, scalar, operand), compute(op, bits, word, other)
        else:
            branches = bounds.refine(op, bits, scalar, operand)
            branch = branches[0] if holds(op, bits, word, other) else branches[1]
            assert branch is not None
            scalar = branch[0]
        assert scalar.contains(word), (op, bits)


# Synchronisation


@settings(deadline=None)
@given(MEMBERS)
def test_synchronising_keeps_members_and_grows_nothing(pair: Member) -> None:
    scalar, word = pair
    again = bounds.sync(scalar)
    assert again.contains(word)
    assert again.size <= scalar.size
    assert again.size32 <= scalar.size32
    assert not again.mask & ~scalar.mask
    # Most often nothing is left to find, but that is not promised: see below.


def test_synchronising_twice_can_find_more_than_once() -> None:
    """Nineteen is the only value left, but only the range says so: as in the kernel."""
    once = bounds.sync((16, 0b1011, 19, 8, 16, 5))
    assert once == (16, 0b0011, 19, 0, 19, 0)
    assert bounds.sync(once) == const(19)


# fmt: off
@pytest.mark.parametrize(
    ("parts", "after"),
    [
        # one low half in all the ring: both ends of the 64-bit range, and the bits
        ((0, M64, 0, M64, M32, 0), (M32, M64 - M32, M32, M64 - M32, M32, 0)),
        ((0, M64, 0, M64, 8, 3), (8, M64 - 0xFFFFFFFC, 8, M64 - M32 + 3, 8, 3)),
        ((0, M64, 0x1_0000_0000, 0x2_0000_0000, 5, 2),
         (4, 0x3_0000_0003, 0x1_0000_0005, 0x1_0000_0002, 5, 2)),
        # a 32-bit range that has all of the 64-bit one
        ((0, M64, 0, 5, 0, 8), (0, 7, 0, 5, 0, 5)),
        ((0, M64, 0, M32, 0, 0), const(0)),
        # bits and unsigned range meet in the range's first value, in the largest member,
        # in one between, and in one only after the low half has cut the range
        ((0x1_0000_0002, 0x21, 0x6000_0003, M64, 3, 30), const(0x1_0000_0003)),
        ((0x08, 0x20, 0x11, 0x17, 4, M32), const(0x28)),
        ((0x00, 0x19, 0x0E, 2, 0, M32), const(0x10)),
        ((0x17, 0x28, 0x1C, M32, 0x1F, 3), const(0x1F)),
    ],
)
def test_known_results_of_synchronising(parts: Scalar, after: Scalar) -> None:
    assert bounds.sync(parts) == after
# fmt: on


@settings(deadline=None)
@given(WORDS)
def test_a_constant_is_synchronised(word: int) -> None:
    assert bounds.sync(const(word)) == const(word)
    assert bounds.sync((word, 0, 0, M64, 0, M32)) == const(word)
    assert bounds.sync((0, M64, word, 0, 0, M32)) == const(word)


def test_an_empty_range_stays() -> None:
    """How a branch is found dead; ``alu`` and ``refine`` never return one."""
    for parts in ((0, M64, M64, M64, 0, M32), (0, M64, 0, M64, M32, M32)):
        assert bounds.sync(parts) == parts
        assert bounds.sync(parts).is_empty
        assert bounds.violation(parts) == "range bounds violation"


def test_contradictions_are_named() -> None:
    assert bounds.violation((5, 0, 0, M64, 0, M32)) == "const tnum out of sync with range bounds"
    half_known = (5, M64 ^ M32, 0, M64, 0, M32)
    assert bounds.violation(half_known) == "const subreg tnum out of sync with range bounds"
    assert bounds.forget_ranges(const(5)) == (5, 0, 0, M64, 0, M32)


@settings(deadline=None)
@given(SCALARS)
def test_the_properties_agree_with_the_parts(scalar: Scalar) -> None:
    assert (scalar.umin, scalar.umax) == (
        cnum.umin(scalar.r64, M64),
        cnum.umax(scalar.r64, M64),
    )
    assert (scalar.u32_min, scalar.u32_max) == (
        cnum.umin(scalar.r32, M32),
        cnum.umax(scalar.r32, M32),
    )
    assert scalar == Scalar.make(scalar.var_off, scalar.r64, scalar.r32)
    assert scalar.umax < 1 << scalar.width
    if scalar.is_const:
        assert scalar.signed_value == scalar.smin == scalar.smax
        assert scalar.value == scalar.umin == scalar.umax


# Pruning


@settings(deadline=None)
@given(MEMBERS, MEMBERS)
def test_a_subset_has_no_other_members(old: Member, cur: Member) -> None:
    if bounds.is_subset(old[0], cur[0]):
        assert old[0].contains(cur[1])
    separately = bounds.range_within(old[0], cur[0]) and tnum.is_subset(
        old[0].var_off, cur[0].var_off
    )
    assert bounds.is_subset(old[0], cur[0]) == separately


def test_each_part_can_forbid_pruning() -> None:
    ring, low = (0, 255), (0, 255)
    old = Scalar.make(tnum.Tnum(0, 0xF0), ring, low)
    assert bounds.is_subset(old, Scalar.make(tnum.Tnum(0x10, 0x20), (16, 32), (16, 32)))
    assert not bounds.is_subset(old, Scalar.make(tnum.Tnum(0, 0xF1), ring, low))
    assert not bounds.is_subset(old, Scalar.make(tnum.Tnum(1, 0xF0), ring, low))
    assert not bounds.is_subset(old, Scalar.make(tnum.Tnum(0, 0xF0), (0, 256), low))
    assert not bounds.is_subset(old, Scalar.make(tnum.Tnum(0, 0xF0), ring, (M32, 1)))


@settings(deadline=None)
@given(MEMBERS)
def test_subsets_of_one_scalar(pair: Member) -> None:
    scalar, word = pair
    assert bounds.is_subset(scalar, scalar)
    assert bounds.is_subset(scalar, const(word))
    assert bounds.is_subset(UNKNOWN, scalar)
    assert bounds.is_subset(scalar, UNKNOWN) == (scalar == UNKNOWN)


# What Linux 7.3 is known to say: the state its log prints for the register named last.
# A step is a register (w: its low half), an operation, and a register or number; "if" goes
# on where the comparison jumps, "no" where it does not. All registers start unknown.

# fmt: off
FACTS = [
    ("r6 and 0xaf, r0 and 0x1a0, r0 xor r6",
     "scalar(smin=smin32=0,smax=umax=smax32=umax32=431,var_off=(0x0; 0x1af))"),
    ("r6 and 0xaf, r0 and 0x1a0, r0 or r6",
     "scalar(smin=smin32=0,smax=umax=smax32=umax32=431,var_off=(0x0; 0x1af))"),
    # Products of negative numbers: no range has both arcs of the low half, one is picked
    ("r6 and 0xf, r6 sub 1000000000, r7 and 0xf, r7 sub 2000000000, r6 mul r7",
     "scalar(smin=umin=0x1bc16d5cd4927ee1,smax=umax=0x1bc16d674ec80000,smax32=0x7ffffeff,"
     "var_off=(0x1bc16d4000000000; 0x3ffffffeff))"),
    ("r8 mov 0x7fff, r6 and 0xa, r6 sub r8, r7 and 0xf, r7 sub r8, r6 mul r7",
     "scalar(smin=umin=smin32=umin32=0x3ff280b0,smax=umax=smax32=umax32=0x3fff0001,"
     "var_off=(0x3ff00000; 0xf81ff))"),
    ("r6 mov 0xb, r8 mov 0xb3c3f8c99262687, r6 and r7, r8 mul r6",
     "scalar(smin=0,smax=umax=0x7b96bb0a94a3a7cd,var_off=(0x0; 0x7fffffffffffffff))"),
    ("r8 mov 0x7ffffffff, r6 and 0x7fffffff, r7 and r8, r6 mul r7", "scalar()"),
    # Overflow on all paths keeps a range, on some it does not
    ("r3 mov 0xa000000000000000, r3 or r4, r3 add r3",
     "scalar(umin=0x4000000000000000,umax=0xfffffffffffffffe)"),
    ("r3 mov 2, r3 or r4, r3 add r3", "scalar()"),
    ("w4 mov r0, w3 mov 0xa0000000, w3 or r4, w3 add r3",
     "scalar(smin=umin=umin32=0x40000000,smax=umax=umax32=0xfffffffe,"
     "var_off=(0x0; 0xffffffff))"),
    ("w4 mov r0, w3 mov 2, w3 or r4, w3 add r3",
     "scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))"),
    ("r1 mov r0, r1 or r2, r2 mov 0x8000000000000000, r1 or r2, r3 mov 0, r3 sub r1",
     "scalar(umin=1,umax=0x8000000000000000)"),
    ("w1 mov r0, w2 mov 0x80000000, w1 or r2, w3 mov 0, w3 sub r1",
     "scalar(smin=umin=umin32=1,smax=umax=umax32=0x80000000,var_off=(0x0; 0xffffffff))"),
    # Signed and unsigned knowledge of one range
    ("w6 s8 r0, r0 s8 r0, no w6 ge 0xf0000000, r0 add r6, r6 add 400, r0 sub r6",
     "scalar(smin=smin32=-655,smax=smax32=-146,umin=0xfffffffffffffd71,"
     "umax=0xffffffffffffff6e,umin32=0xfffffd71,umax32=0xffffff6e,"
     "var_off=(0xfffffffffffffc00; 0x3ff))"),
    ("r0 s8 r0, no r0 gt 0xffffffffffffff00",
     "scalar(smin=smin32=0,smax=umax=smax32=umax32=127,var_off=(0x0; 0x7f))"),
    ("r0 s8 r0, no r0 gt 0xffffffffffffff80", "scalar(smin=smin32=-128,smax=smax32=127)"),
    ("no w0 lt 2, no w0 gt 3, no r0 sgt 2, no r0 gt 19", "2"),
    # Bits and range
    ("no r0 lt 0xf, no r0 gt 0x10",
     "scalar(smin=umin=smin32=umin32=15,smax=umax=smax32=umax32=16,var_off=(0x0; 0x1f))"),
    # Sign extension by two shifts
    ("r6 and 4095, r6 lsh 32",
     "scalar(smin=smin32=0,smax=umax=0xfff00000000,smax32=umax32=0,"
     "var_off=(0x0; 0xfff00000000))"),
    ("r6 and 4095, r6 lsh 32, r6 arsh 32",
     "scalar(smin=smin32=0,smax=umax=smax32=umax32=4095,var_off=(0x0; 0xfff))"),
    ("r6 and 4095, r6 sub 4095, r6 lsh 32",
     "scalar(smin=0xfffff00100000000,smax=smax32=umax32=0,smin32=0,"
     "var_off=(0x0; 0xffffffff00000000))"),
    ("r6 and 4095, r6 sub 2047, r6 lsh 32, r6 arsh 32",
     "scalar(smin=smin32=-2047,smax=smax32=2048)"),
    # Division and remainder
    ("w1 and 8, w1 or 1, w1 div 3",
     "scalar(smin=smin32=0,smax=umax=smax32=umax32=3,var_off=(0x0; 0x3))"),
    ("no w1 sgt -8, no w1 slt -10, w1 sdiv 3",
     "scalar(smin=umin=umin32=0xfffffffd,smax=umax=umax32=0xfffffffe,smin32=-3,smax32=-2,"
     "var_off=(0xfffffffc; 0x3))"),
    ("no r1 sgt -8, no r1 slt -10, r1 sdiv 3",
     "scalar(smin=smin32=-3,smax=smax32=-2,umin=0xfffffffffffffffd,umax=0xfffffffffffffffe,"
     "umin32=0xfffffffd,umax32=0xfffffffe,var_off=(0xfffffffffffffffc; 0x3))"),
    ("no r1 slt -8, no r1 sgt 10, r1 sdiv -3", "scalar(smin=smin32=-3,smax=smax32=2)"),
    ("no r1 sgt 0x800000000000000a, r1 sdiv -1", "scalar()"),
    ("r1 and 8, r1 or 1, r1 div 0", "0"),
    ("r1 and 8, r1 or 1, r1 mod 10",
     "scalar(smin=umin=smin32=umin32=1,smax=umax=smax32=umax32=9,var_off=(0x1; 0x8))"),
    ("r1 and 8, r1 or 1, r1 mod 3",
     "scalar(smin=smin32=0,smax=umax=smax32=umax32=2,var_off=(0x0; 0x3))"),
    ("r1 and 8, r1 or 1, r1 mod 0",
     "scalar(smin=umin=smin32=umin32=1,smax=umax=smax32=umax32=9,var_off=(0x1; 0x8))"),
    ("no w1 sgt -8, no w1 slt -10, w1 smod 3",
     "scalar(smin=0,smax=umax=0xffffffff,smin32=-2,smax32=0,var_off=(0x0; 0xffffffff))"),
    ("no w1 slt -8, no w1 sgt 10, w1 smod -11",
     "scalar(smin=0,smax=umax=0xffffffff,smin32=-8,smax32=10,var_off=(0x0; 0xffffffff))"),
    ("r1 div r2", "scalar()"),  # by what is not constant: nothing is known, in 32 bits too
    ("w1 div r2", "scalar()"),
    ("w1 lsh r2", "scalar()"),
    # Byte order
    ("r0 and 0x3f00, r0 bswap16 r0",
     "scalar(smin=smin32=0,smax=umax=smax32=umax32=63,var_off=(0x0; 0x3f))"),
    ("r0 and 0x3f00, r0 be32 r0",
     "scalar(smin=smin32=0,smax=umax=smax32=umax32=0x3f0000,var_off=(0x0; 0x3f0000))"),
    ("r0 and 0x3f00, r0 le64 r0",
     "scalar(smin=smin32=0,smax=umax=smax32=umax32=16128,var_off=(0x0; 0x3f00))"),
    # Comparisons narrow both sides, the first one first (from the kernel's own functions)
    ("if r0 lt 8", "scalar(smin=smin32=0,smax=umax=smax32=umax32=7,var_off=(0x0; 0x7))"),
    ("no r0 le 8", "scalar(umin=9)"),
    ("if w0 lt 8",
     "scalar(umax=0xffffffff00000007,smin32=0,smax32=umax32=7,"
     "var_off=(0x0; 0xffffffff00000007))"),
    ("if r0 slt 0",
     "scalar(smax=-1,umin=0x8000000000000000,"
     "var_off=(0x8000000000000000; 0x7fffffffffffffff))"),
    ("no r0 slt 3", "scalar(smin=umin=3,umax=0x7fffffffffffffff,"
     "var_off=(0x0; 0x7fffffffffffffff))"),
    ("if w0 sgt 3",
     "scalar(umin=smin32=umin32=4,umax=0xffffffff7fffffff,umax32=0x7fffffff,"
     "var_off=(0x0; 0xffffffff7fffffff))"),
    ("if w0 eq 7",
     "scalar(smin=0x8000000000000007,smax=0x7fffffff00000007,smin32=umin32=7,"
     "smax32=umax32=7,var_off=(0x7; 0xffffffff00000000))"),
    ("r1 and 0xff, if r0 lt r1",
     "scalar(smin=smin32=0,smax=umax=smax32=umax32=254,var_off=(0x0; 0xff))"),
    ("r1 and 0xff, r1 or 0x10, if r0 gt r1", "scalar(umin=17)"),
    ("r1 and 0xff, r1 or 0x10, r0 and 0x3f, if r0 gt r1, r1 mov r1",
     "scalar(smin=umin=smin32=umin32=16,smax=umax=smax32=umax32=62,var_off=(0x10; 0x2f))"),
    ("r1 s8 r1, if r0 slt r1", "scalar(smax=126)"),
    ("r1 s8 r1, r0 and 0xff, if r0 slt r1, r1 mov r1",
     "scalar(smin=umin=smin32=umin32=1,smax=umax=smax32=umax32=127,var_off=(0x0; 0x7f))"),
    ("r0 and 0xf0, r1 and 0x3f, r1 or 0x10, if w0 eq r1",
     "scalar(smin=umin=smin32=umin32=16,smax=umax=smax32=umax32=48,var_off=(0x10; 0x20))"),
    ("no r0 gt 7, if r0 ne 7",
     "scalar(smin=smin32=0,smax=umax=smax32=umax32=6,var_off=(0x0; 0x7))"),
    ("if r0 ne 0", "scalar(umin=1)"),
    ("no r0 gt 100, r0 lsh 2, r0 add 1, no r0 gt 200",
     "scalar(smin=umin=smin32=umin32=1,smax=umax=smax32=umax32=200,var_off=(0x1; 0xfc))"),
    ("r0 and 6, r0 neg 0",
     "scalar(smin=smin32=-6,smax=smax32=0,var_off=(0x0; 0xfffffffffffffffe))"),
    ("r0 and 3, w1 lsh r0", "scalar()"),
    # Single bits
    ("r0 and 0xff, r0 sub 8, if r0 set 0x8000",
     "scalar(smin=smin32=-8,smax=smax32=247,var_off=(0x8000; 0xffffffffffff7fff))"),
    ("if r0 set 3", "scalar()"),
    ("if r0 set 8",
     "scalar(smin=0x8000000000000008,smin32=0x80000008,var_off=(0x8; 0xfffffffffffffff7))"),
    ("no r0 set 0xfff8",
     "scalar(smax=0x7fffffffffff0007,smax32=0x7fff0007,var_off=(0x0; 0xffffffffffff0007))"),
]
# fmt: on


@pytest.mark.parametrize(("path", "text"), FACTS)
def test_a_known_state(path: str, text: str) -> None:
    assert bounds.format_scalar(follow(path)) == text


def follow(path: str) -> Scalar:
    """Run the steps of *path*; return what is then known of the last one's register."""
    registers = dict.fromkeys((f"{number}" for number in range(10)), UNKNOWN)
    last = ""
    for step in path.split(", "):
        *jump, name, op, operand = step.split()
        bits, last = (64 if name[0] == "r" else 32), name[1:]
        dst = registers[last]
        src = registers[operand[1:]] if operand[0] == "r" else const(int(operand, 0))
        if jump:
            branch = bounds.refine(op, bits, dst, src)[jump == ["no"]]
            assert branch is not None, step
            registers[last] = branch[0]
            if operand[0] == "r":
                registers[operand[1:]] = branch[1]
        elif op in ALU:
            registers[last] = bounds.alu(op, bits, dst, src)
        elif op[1:].isdigit():
            registers[last] = bounds.sext(src, int(op[1:]), bits)
        else:
            registers[last] = bounds.endian(op.rstrip("0123456789"), int(op[-2:]), dst)
    return registers[last]


@pytest.mark.parametrize(
    ("path", "op", "bits", "value", "taken"),
    [
        ("no w0 lt 3, no w0 sgt 1", "slt", 32, 0, True),
        ("no w0 gt 0x80000003, no w0 slt -3, no w0 sgt 5", "le", 32, 5, True),
        ("r0 and 0xff", "gt", 64, 255, False),
        ("r0 and 0xff, r0 or 1", "eq", 64, 256, False),
        ("r0 and 0xfe", "eq", 64, 3, False),
        ("r0 and 0xfe", "ne", 32, 3, True),
        ("r0 or 4", "set", 64, 6, True),
        ("r0 and 0xf0", "set", 32, 0xF, False),
        ("no w0 gt 5", "eq", 64, 0x1_0000_0006, False),  # by the low half alone
    ],
)
def test_a_known_decision(path: str, op: str, bits: int, value: int, taken: bool) -> None:
    assert bounds.branch_taken(op, bits, follow(path), const(value)) is taken


def test_two_unknown_masks_teach_nothing() -> None:
    byte = Scalar.from_load(1)
    pair = byte, byte
    assert bounds.refine("set", 64, byte, byte) == (pair, pair)


def test_a_decided_jump_teaches_nothing() -> None:
    byte = Scalar.from_load(1)
    assert bounds.refine("lt", 64, byte, const(256)) == ((byte, const(256)), None)
    assert bounds.refine("gt", 64, byte, const(255)) == (None, (byte, const(255)))


@pytest.mark.parametrize(
    ("scalar", "text"),
    [
        (UNKNOWN, "scalar()"),
        (const(-1), "-1"),
        (const(32767), "32767"),
        (const(32768), "0x8000"),
        (const(-32769), "0xffffffffffff7fff"),
        (
            Scalar.from_load(1),
            "scalar(smin=smin32=0,smax=umax=smax32=umax32=255,var_off=(0x0; 0xff))",
        ),
        (Scalar.from_load(1, signed=True), "scalar(smin=smin32=-128,smax=smax32=127)"),
        (Scalar.from_load(4, signed=True), "scalar(smin=0xffffffff80000000,smax=0x7fffffff)"),
        (Scalar.from_load(4), "scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))"),
        (Scalar.from_srange(-4095, 0), "scalar(smin=smin32=-4095,smax=smax32=0)"),
        (
            Scalar.from_urange(3, 4),
            "scalar(smin=umin=smin32=umin32=3,smax=umax=smax32=umax32=4,var_off=(0x0; 0x7))",
        ),
    ],
)
def test_text(scalar: Scalar, text: str) -> None:
    assert bounds.format_scalar(scalar) == str(scalar) == text
