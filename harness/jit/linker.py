"""An image placed in memory: addresses chosen, relocations applied (any architecture).

The subprograms lie one behind the other at multiples of 16 bytes, the entry first;
the gaps are filled with 0xCC (int3 on x86-64).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from harness.model import HarnessError, Image, Relocation

ALIGNMENT = 16  # bytes
FILL = b"\xcc"
ABSOLUTE = {
    "func",
    "ksym",
    "arena",
    "private_stack",
    "percpu",
}  # four-byte fields that are addresses, sign-extended, not distances


@dataclass(frozen=True, slots=True)
class Linked:
    """Code ready to be copied to *base*."""

    code: bytes
    base: int
    entry: int  # address of the first subprogram
    symbols: dict[str, int]  # subprogram: address
    image: Image

    def where(self, address: int) -> tuple[str, int | None] | None:
        """Return the subprogram at *address* and its slot there, counted from its start.

        The slot is None in the prologue; the answer None outside the code.
        """
        if not self.base <= address < self.base + len(self.code):
            return None
        for sub in reversed(self.image.subprograms):
            start = self.symbols[sub.name]
            if start <= address < start + len(sub.code):
                slot = bisect_right(sub.addrs, address - start) - 1
                return sub.name, slot if slot >= 0 else None
        return None


def link(image: Image, base: int, resolve: Callable[[Relocation], int]) -> Linked:
    """Place *image* at *base*; *resolve* gives the address of what is no subprogram of it.

    *resolve* sees relocations of kind helper, kfunc, map, data, thunk, ksym, arena,
    private_stack and percpu, and returns where the target is; the addend is added here.
    Raises ``HarnessError`` where an address does not fit its field.
    """
    symbols: dict[str, int] = {}
    end = base = -(-base // ALIGNMENT) * ALIGNMENT
    for sub in image.subprograms:
        symbols[sub.name] = end
        end = -(-(end + len(sub.code)) // ALIGNMENT) * ALIGNMENT
    code = bytearray(FILL * (end - base))
    for sub in image.subprograms:
        start = symbols[sub.name]
        code[start - base : start - base + len(sub.code)] = sub.code
        for field in sub.relocations:
            ours = field.kind in ("call", "func")
            address = symbols[field.target] if ours else resolve(field)
            place = start + field.offset
            value = _value(field, address + field.addend, place)
            code[place - base : place - base + field.size] = value
    entry = symbols[image.subprograms[0].name]
    return Linked(bytes(code), base, entry, symbols, image)


def _value(field: Relocation, address: int, place: int) -> bytes:
    if field.size == 8:
        return (address & (1 << 64) - 1).to_bytes(8, "little")
    if field.kind in ABSOLUTE:
        value = address - (1 << 64) if address >> 63 else address
        way_out = "link below 2 GB or in the top 2 GB"
    else:
        value = address - (place + 4)
        way_out = "place it within 2 GB of the code"
    if not -(1 << 31) <= value < 1 << 31:
        raise HarnessError(
            f"{field.kind} {field.target} at {address:#x} is out of reach: {way_out}"
        )
    return value.to_bytes(4, "little", signed=True)
