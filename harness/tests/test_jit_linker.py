"""Images in memory: places, relocations, and back from an address to a slot."""

from __future__ import annotations

import pytest

from harness.jit.linker import link
from harness.model import HarnessError, Image, Relocation, SubImage


def image(*relocations: Relocation) -> Image:
    return Image(
        "x86_64",
        (
            SubImage("main", bytes(24), (4, 10, 20), relocations),
            SubImage("f", b"\x90" * 5, (0, 4)),
        ),
    )


def linked_field(relocation: Relocation, base: int, address: int) -> int:
    linked = link(image(relocation), base, lambda _: address)
    at = relocation.offset
    return int.from_bytes(linked.code[at : at + relocation.size], "little")


def test_subprograms_lie_at_multiples_of_sixteen() -> None:
    linked = link(image(), 0x1001, lambda _: 0)
    assert (linked.base, linked.entry) == (0x1010, 0x1010)
    assert linked.symbols == {"main": 0x1010, "f": 0x1030}
    assert linked.code == bytes(24) + b"\xcc" * 8 + b"\x90" * 5 + b"\xcc" * 11


def test_a_call_is_relative_to_the_end_of_its_field() -> None:
    call = Relocation(8, 4, "call", "f")
    linked = link(image(call), 0x1000, lambda _: 0)
    assert linked.code[8:12] == (0x1020 - 0x100C).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("relocation", "address", "value"),
    [
        (Relocation(4, 4, "helper", "1"), 0x1000, 0xFFFF_FFF8),
        (Relocation(4, 8, "map", "m"), 0xFFFF_8881_0000_0000, 0xFFFF_8881_0000_0000),
        (Relocation(4, 8, "data", "m", 16), 0x10, 0x20),
        (Relocation(4, 4, "ksym", "this_cpu_off"), 0xFFFF_FFFF_8100_0000, 0x8100_0000),
        (Relocation(4, 4, "arena", "user_high"), 0x1000, 0x1000),
    ],
)
def test_fields(relocation: Relocation, address: int, value: int) -> None:
    assert linked_field(relocation, 0x1000, address) == value


def test_a_function_as_a_value_is_an_address_not_a_distance() -> None:
    function = Relocation(4, 4, "func", "f")
    assert link(image(function), 0x1000, lambda _: 0).code[4:8] == (0x1020).to_bytes(4, "little")
    with pytest.raises(HarnessError, match="func f at 0x80000020 is out of reach: link below 2 GB"):
        link(image(function), 0x8000_0000, lambda _: 0)


def test_a_helper_too_far_away_is_a_clear_fault() -> None:
    with pytest.raises(HarnessError, match="helper 1 at 0x1000000000 is out of reach: place it"):
        link(image(Relocation(4, 4, "helper", "1")), 0x1000, lambda _: 0x10_0000_0000)


@pytest.mark.parametrize(
    ("address", "where"),
    [
        (0xFFF, None),
        (0x1000, ("main", None)),  # the prologue
        (0x1004, ("main", 0)),
        (0x1009, ("main", 0)),
        (0x100A, ("main", 1)),
        (0x1017, ("main", 2)),
        (0x1018, None),  # between the two
        (0x1024, ("f", 1)),
        (0x1030, None),
    ],
)
def test_from_an_address_to_a_slot(address: int, where: tuple[str, int | None] | None) -> None:
    assert link(image(), 0x1000, lambda _: 0).where(address) == where
