"""Input vectors: valid, varied, and the same wherever they are made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.source.layout import Layout, layout
from harness.source.signature import Aggregate, Field, Parameter, Pointer, Scalar, Signature
from harness.source.vectors import PATTERNS, boundaries, vectors

I8, I32 = Scalar("signed char", 1, signed=True), Scalar("signed int", 4, signed=True)
U64, BOOL = Scalar("unsigned long long", 8), Scalar("_Bool", 1, bool=True)
COLOR = Scalar("signed int", 4, signed=True, values=(-3, 0, 5))
UNION = Aggregate(
    "union u",
    8,
    (Field("b", 8, 8, BOOL), Field("all", 0, 64, U64), Field("c", 32, 32, COLOR)),
    True,
)
BITS = Aggregate("struct bits", 4, (Field("x", 0, 3, I32), Field("on", 3, 1, BOOL)))


def place_of(name: str, *kinds: Scalar | Aggregate | Pointer) -> Layout:
    parameters = tuple(Parameter(f"p{i}", kind, "") for i, kind in enumerate(kinds))
    place = layout(Signature(name, parameters, I32))
    assert isinstance(place, Layout)
    return place


PLACE = place_of("f", I8, I32, U64, BOOL, COLOR, Pointer(UNION), Pointer(BITS))


def values(place: Layout, data: bytes) -> dict[str, int]:
    number = int.from_bytes(data, "little")
    return {leaf.path: number >> leaf.bit & (1 << leaf.bits) - 1 for leaf in place.leaves()}


@given(st.integers(0, 1 << 64), st.integers(1, 40))
def test_a_prefix_is_the_same_however_many_follow(seed: int, count: int) -> None:
    assert vectors(PLACE, count, seed) == vectors(PLACE, 40, seed)[:count]


def test_seed_and_name_change_the_vectors() -> None:
    first = vectors(PLACE, 20, 1)
    assert first != vectors(PLACE, 20, 2)
    assert first != vectors(
        place_of("g", I8, I32, U64, BOOL, COLOR, Pointer(UNION), Pointer(BITS)), 20, 1
    )


def test_the_vectors_of_a_seed_do_not_change_from_run_to_run() -> None:
    place = place_of("stable", I8, I32)
    assert vectors(place, 2, 0)[0][8:].hex() == "01be480c36d8eab902000000d030d7af"


def test_bools_and_enums_hold_valid_values_even_in_unions() -> None:
    for data in vectors(PLACE, 400, 3):
        assert len(data) == PLACE.size
        found = values(PLACE, data)
        assert found["p3"] in (0, 1)
        assert found["p5->b"] in (0, 1)
        signed = {v & 0xFFFFFFFF for v in COLOR.values}
        assert found["p4"] in signed
        assert found["p5->c"] in signed


def test_every_boundary_value_turns_up_in_every_place() -> None:
    seen: dict[str, set[int]] = {}
    for data in vectors(PLACE, 4000, 5):
        for path, value in values(PLACE, data).items():
            seen.setdefault(path, set()).add(value)
    assert seen["p0"] >= set(boundaries(I8))
    assert seen["p1"] >= set(boundaries(I32))
    assert seen["p2"] >= set(boundaries(U64))
    assert seen["p6->x"] == set(range(8))
    assert seen["p4"] == {v & 0xFFFFFFFF for v in COLOR.values}


def test_the_first_vector_tells_arguments_apart() -> None:
    place = place_of("f", *[I8] * 12)
    opening = vectors(place, PATTERNS, 0)
    assert list(values(place, opening[0]).values()) == list(range(1, 13))
    assert len(set(values(place, opening[6]).values())) == 12


def test_boundaries_hold_the_ends_of_each_narrower_type() -> None:
    found = set(boundaries(U64))
    for bits in (8, 16, 32):
        assert {(1 << bits) - 1, 1 << bits, 1 << bits - 1, (1 << bits - 1) - 1} <= found
    assert {0, 1, (1 << 64) - 1, 1 << 63, (1 << 63) - 1} <= found
    assert boundaries(BOOL) == (0, 1)
    assert set(boundaries(I32, 3)) == set(range(8))
    assert boundaries(COLOR, 2) == (0,)  # 5 and -3 do not fit two bits
