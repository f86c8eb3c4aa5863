"""What native helpers find in the jit leg's emulated memory: themselves, and maps.

The C is ``source/include/crosscheck/helpers.c``, compiled with CROSSCHECK_EMULATED; the
structures here are its.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import cache

from harness.interp import ARRAY_MAP, HASH_MAP, RINGBUF, NotModelledError
from harness.isa.helpers import HELPERS
from harness.legs.native_code import PlacedObject, UnlinkableError, place
from harness.model import Image, MapDef

MAP = struct.Struct("<Q7I4xQ")  # struct crosscheck_map: name, type, ..., values
RING_HELPERS = frozenset({130, 131})  # those that write records
SIDED = RING_HELPERS | {7}  # those that look at what is kept beside each vector
MAX_STORAGE = 1 << 16  # bytes of maps, which every vector finds as new


def numbers(image: Image) -> frozenset[int]:
    """Return the numbers of the helpers that *image* calls."""
    return frozenset(
        int(field.target)
        for sub in image.subprograms
        for field in sub.relocations
        if field.kind == "helper"
    )


@cache
def placed(
    code: bytes, bases: tuple[int, int, int], symbols: tuple[tuple[str, int], ...]
) -> PlacedObject:
    """Return the object *code* relocated to *bases*; *symbols* are the leg's.

    Raises NotModelledError.
    """
    try:
        made = place(code, bases, dict(symbols))
    except UnlinkableError as error:
        raise NotModelledError(f"the kernel's helpers: {error}") from None
    if made.data:
        raise NotModelledError("the kernel's helpers have variables")
    return made


def address(side: PlacedObject, number: int) -> int | None:
    """Return where helper *number* is in *side*, None: it has none."""
    return side.symbols.get(HELPERS.get(number, ""))


def aligned(size: int, unit: int) -> int:
    """Return *size* made a multiple of *unit*, upwards."""
    return -(-size // unit) * unit


def storage(definition: MapDef) -> bytes | None:
    """Return the values of a map as a vector finds them, None: not modelled, or too many."""
    value, key = aligned(definition.value_size, 8), aligned(definition.key_size, 8)
    entry = {RINGBUF: 0, HASH_MAP: 8 + key + value, ARRAY_MAP: value}.get(definition.type)
    if entry is None or entry * definition.max_entries > MAX_STORAGE:
        return None
    data = definition.data or b"" if definition.type == ARRAY_MAP else b""
    return data.ljust(entry, b"\0") * definition.max_entries


def table(maps: Sequence[MapDef], at: int, values: Mapping[str, int]) -> bytes:
    """Return the maps' table for address *at*; *values* says where their values lie.

    Their names lie behind it.
    """
    entries, names = b"", b""
    behind = at + MAP.size * len(maps)
    for definition in maps:
        entries += MAP.pack(
            behind + len(names),
            definition.type,
            definition.key_size,
            definition.value_size,
            definition.max_entries,
            0,
            aligned(definition.key_size, 8),
            aligned(definition.value_size, 8),
            values.get(definition.name, 0),
        )
        names += definition.name.encode() + b"\0"
    content = entries + names
    return content.ljust(aligned(len(content), 8), b"\0")
