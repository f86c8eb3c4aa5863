"""Contexts: places, masks, leaves."""

from __future__ import annotations

from harness.source.layout import Layout, layout, value_bits
from harness.source.signature import (
    Aggregate,
    ArrayOf,
    Field,
    Parameter,
    Pointer,
    Scalar,
    Signature,
    Type,
    Unsupported,
)

I8, I32 = Scalar("signed char", 1, signed=True), Scalar("signed int", 4, signed=True)
U64, U128 = Scalar("unsigned long long", 8), Scalar("unsigned __int128", 16)
PADDED = Aggregate("struct padded", 16, (Field("a", 0, 8, I8), Field("b", 64, 64, U64)))
BITS = Aggregate("struct bits", 4, (Field("x", 0, 3, I32), Field("y", 5, 7, I32)))


def made(*kinds: Scalar | Aggregate | Pointer, result: Type | None = I32) -> Layout:
    assert not isinstance(result, ArrayOf)
    parameters = tuple(Parameter(f"p{i}", kind, "") for i, kind in enumerate(kinds))
    place = layout(Signature("f", parameters, result))
    assert isinstance(place, Layout)
    return place


def test_the_result_comes_first_and_arguments_follow_aligned() -> None:
    place = made(I8, I32, U128, I8)
    assert place.result
    assert (place.result.offset, place.result.end) == (0, 4)
    assert [p.offset for p in place.arguments if p] == [8, 16, 32, 48]
    assert place.size == 64


def test_pointees_are_one_region_at_the_end() -> None:
    place = made(I32, Pointer(U64), Pointer(ArrayOf(I8, 3, 3)), result=None)
    assert place.arguments[1:] == (None, None)
    assert [p.offset for p in place.objects if p] == [8, 16]
    assert (place.start, place.size) == (8, 24)


def test_masks_leave_padding_out() -> None:
    place = made(PADDED, Pointer(PADDED), Pointer(BITS), result=PADDED)
    bits = place.mask.bits
    assert len(bits) == place.size
    assert bits[0:16] == b"\xff" + bytes(7) + b"\xff" * 8  # the result
    assert bits[16:32] == b"\xff" * 16  # an argument: the driver only reads it
    assert bits[place.start : place.start + 16] == b"\xff" + bytes(7) + b"\xff" * 8
    assert bits[place.start + 16 : place.start + 20] == bytes([0b11100111, 0b1111, 0, 0])


def test_a_union_counts_where_every_member_has_a_value() -> None:
    union = Aggregate("union u", 16, (Field("a", 0, 64, U64), Field("p", 0, 128, PADDED)), True)
    assert value_bits(union).to_bytes(16, "little") == b"\xff" + bytes(15)


def test_leaves_are_the_scalars_with_their_paths() -> None:
    nested = Aggregate("struct n", 8, (Field("q", 0, 64, ArrayOf(BITS, 2, 8)),))
    place = made(I32, Pointer(nested), Pointer(I32), PADDED)
    paths = [leaf.path for leaf in place.leaves()]
    assert paths == [
        *("p0", "p3.a", "p3.b"),
        *("p1->q[0].x", "p1->q[0].y", "p1->q[1].x", "p1->q[1].y", "*p2"),
    ]
    widths = {leaf.path: leaf.bits for leaf in place.leaves()}
    assert widths["p1->q[1].y"] == 7


def test_a_byte_is_described_by_what_lies_there() -> None:
    place = made(I32, Pointer(PADDED))
    assert place.describe(0) == "result of f"
    assert place.describe(9) == "p0"
    assert place.describe(place.start) == "p1->a"
    assert place.describe(place.start + 1) == "padding"


def test_large_and_returned_objects_are_static() -> None:
    assert not made(Pointer(ArrayOf(U64, 16, 128))).in_bss
    assert made(Pointer(ArrayOf(U64, 17, 136))).in_bss
    assert made(Pointer(U64), result=Pointer(I8)).in_bss
    assert made(Pointer(U64), result=None).in_bss  # r0 may hold a pointer all the same


def test_a_context_beyond_its_limit_is_unsupported() -> None:
    big = Parameter("p", Pointer(ArrayOf(U64, 300, 2400)), "")
    assert layout(Signature("f", (big, big), None)) == Unsupported(
        "f", "a context of 4800 bytes, at most 4096 fit"
    )
