from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.compare import agree, compare, compare_all, first_difference
from harness.model import Batch, Mask, Outcome, OutOfFuel, Returned, Trapped, Unknown

CTX = bytes(range(16))
OTHER = bytes([*range(8), 99, *range(9, 16)])


def test_first_difference_is_an_offset() -> None:
    assert first_difference(CTX, CTX) is None
    assert first_difference(CTX, OTHER) == 8
    assert first_difference(CTX, CTX[:4]) == 4


def test_a_mask_leaves_padding_out_bit_by_bit() -> None:
    padding = Mask(bytes([0xFF] * 8 + [0x00] + [0xFF] * 7))
    assert first_difference(CTX, OTHER, padding) is None
    one_bit = Mask(bytes([0xFF] * 8 + [(8 ^ 99) & -(8 ^ 99)] + [0xFF] * 7))
    assert first_difference(CTX, OTHER, one_bit) == 8


def test_unknown_agrees_with_everything() -> None:
    for outcome in (Returned(1, CTX), Trapped("access"), OutOfFuel(), Unknown("x")):
        assert agree(Unknown("why"), outcome)
        assert agree(outcome, Unknown("why"))


def test_outcomes_of_other_kinds_disagree() -> None:
    outcomes: list[Outcome] = [Returned(1, CTX), Returned(2, CTX), Returned(1, OTHER)]
    outcomes += [Trapped("access"), Trapped("divide"), OutOfFuel()]
    for i, a in enumerate(outcomes):
        for j, b in enumerate(outcomes):
            assert agree(a, b) == (i == j)


def test_where_a_trap_happened_is_for_people() -> None:
    assert agree(Trapped("access", "slot 3"), Trapped("access", "offset 0x20"))


def test_each_group_of_legs_is_reported_once() -> None:
    right, wrong = Returned(0, CTX), Returned(0, OTHER)
    legs = {"interp": right, "jit": wrong, "native-O0": right, "native-O2": wrong}
    (divergence,) = compare(legs, b"")
    assert divergence.legs == ("interp", "jit")
    assert divergence.offset == 8


def test_an_unknown_first_leg_is_no_reference() -> None:
    legs: dict[str, Outcome] = {
        "interp": Unknown("x"),
        "jit": Returned(1, CTX),
        "native-O0": Returned(2, CTX),
    }
    (divergence,) = compare(legs, b"")
    assert divergence.legs == ("jit", "native-O0")


def test_a_leg_that_ran_fewer_vectors_is_compared_on_those() -> None:
    right, wrong = Returned(0, CTX), Returned(0, OTHER)
    found = compare_all(
        {"interp": [right], "jit": [right, wrong], "native": [right, right]}, [b"", b""]
    )
    assert [number for number, _ in found] == [1]
    assert found[0][1].legs == ("jit", "native")


@given(
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=8, max_size=8),
)
def test_masked_comparison_is_that_of_the_masked_values(a: bytes, b: bytes, bits: bytes) -> None:
    x, y, m = (int.from_bytes(v, "little") for v in (a, b, bits))
    assert (first_difference(a, b, Mask(bits)) is None) == (x & m == y & m)


# --- batches ----------------------------------------------------------------

OUTCOMES = st.lists(
    st.one_of(
        st.builds(Returned, st.integers(0, 3), st.binary(max_size=2)),
        st.just(Trapped("access")),
        st.just(OutOfFuel()),
    ),
    max_size=6,
)


@given(OUTCOMES, OUTCOMES)
def test_a_batch_is_the_sequence_of_its_outcomes(a: list[Outcome], b: list[Outcome]) -> None:
    batch = Batch.of(a)
    assert list(batch) == a
    assert batch == a
    assert (batch == Batch.of(b)) == (a == b)
    for start in range(len(a) + 1):
        assert list(batch[start:]) == a[start:]
        assert list(batch[:start]) == a[:start]
    assert [batch[i - len(a)] for i in range(len(a))] == a
