"""The names of a kernel's symbols, out of the tables in its image (scripts/kallsyms.c).

Functions that a compiler made copies of (``.isra``, ``.constprop``) are in BTF under their
plain names, and have no symbol of that name: nothing can attach to them.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import cached_property

# The token table: 256 strings; digits stand for themselves
_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
_TOKENS = 256
_MARKED = 256  # symbols from one marker to the next


class Symbols:
    """All symbols of a kernel by name, sought as the kernel does (``kallsyms_lookup_names``)."""

    def __init__(self, rodata: bytes) -> None:
        self._rodata = rodata

    def __reduce__(self) -> tuple[type[Symbols], tuple[bytes]]:
        return Symbols, (self._rodata,)

    @cached_property
    def _tables(self) -> _Tables | None:
        for found in re.finditer(re.escape(_DIGITS), self._rodata):
            tables = _find(self._rodata, found.start())
            if tables is not None:
                return tables
        return None

    def has(self, name: str) -> bool | None:
        """Say whether there is a symbol *name*; None: the tables are not as expected."""
        tables = self._tables
        if tables is None:
            return None
        wanted = name.encode()
        low, high = 0, tables.count - 1
        while low <= high:
            middle = (low + high) // 2
            found = tables.name(self._rodata, middle)
            if found == wanted:
                return True
            low, high = (middle + 1, high) if found < wanted else (low, middle - 1)
        return False


@dataclass(frozen=True, slots=True)
class _Tables:
    """Where the tables are in the data."""

    count: int
    names: int
    markers: tuple[int, ...]
    order: int  # numbers of the symbols by name, three bytes each
    tokens: tuple[bytes, ...]

    def name(self, data: bytes, place: int) -> bytes:
        """Return the name that comes at *place* of the order."""
        at = self.order + 3 * place
        number = int.from_bytes(data[at : at + 3], "big")
        at = self.names + self.markers[number // _MARKED]
        for _ in range(number % _MARKED):
            at = _behind(data, at)
        start = at + (2 if data[at] & 0x80 else 1)
        return b"".join([self.tokens[token] for token in data[start : _behind(data, at)]])[1:]


def _behind(data: bytes, at: int) -> int:
    """Return where the name behind the one at *at* starts."""
    length = data[at]
    if length & 0x80:
        return at + 2 + (length & 0x7F | data[at + 1] << 7)
    return at + 1 + length


def _find(data: bytes, digits: int) -> _Tables | None:
    """Return the tables, of which that of tokens has the entry of "0" at *digits*."""
    found = _token_table(data, digits)
    if found is None:
        return None
    start, end, tokens = found
    marked = _markers(data, start)
    if marked is None:
        return None
    at, markers = marked
    last = at - markers[-1]
    for place in range(max(last - _MARKED * 64, 0) & ~3, last, 4):
        (count,) = struct.unpack_from("<I", data, place)
        if (len(markers) - 1) * _MARKED < count <= len(markers) * _MARKED:
            for names in (place + 4, place + 8):
                if _fit(data, names, at, count, markers):
                    return _with_order(data, names, count, markers, end, tokens)
    return None


def _fit(data: bytes, names: int, end: int, count: int, markers: tuple[int, ...]) -> bool:
    """Say whether the first names reach the second marker, and the last ones the end."""
    at = names
    for _ in range(min(_MARKED, count)):
        at = _behind(data, at)
    if len(markers) > 1 and at != names + markers[1]:
        return False
    at = names + markers[-1]
    for _ in range(count - (len(markers) - 1) * _MARKED):
        at = _behind(data, at)
        if at > end:
            return False
    return end - at < 16


def _with_order(
    data: bytes, names: int, count: int, markers: tuple[int, ...], end: int, tokens: list[bytes]
) -> _Tables | None:
    """Find the order behind the table of tokens, their index and the addresses."""
    for align in (8, 4):
        index = -(-end // align) * align
        addresses = -(-(index + 2 * _TOKENS) // align) * align
        order = -(-(addresses + 4 * count) // align) * align
        if order + 3 * count > len(data):
            continue
        tables = _Tables(count, names, markers, order, tuple(tokens))
        numbers = (
            int.from_bytes(data[order + 3 * n : order + 3 * n + 3], "big")
            for n in (0, count // 2, count - 1)
        )
        if all(number < count for number in numbers):
            sample = [tables.name(data, n * (count - 1) // 15) for n in range(16)]
            if sample == sorted(sample):
                return tables
    return None


def _token_table(data: bytes, digits: int) -> tuple[int, int, list[bytes]] | None:
    """Return where the table of tokens starts and ends, and the tokens."""
    at = digits
    for _ in range(ord("0")):  # back over the tokens before
        if at < 2 or data[at - 1]:
            return None
        at = data.rfind(b"\0", 0, at - 1) + 1
    tokens = data[at : at + (1 << 14)].split(b"\0")[:_TOKENS]
    if len(tokens) != _TOKENS or not all(tokens):
        return None
    return at, at + sum(len(token) + 1 for token in tokens), tokens


def _markers(data: bytes, end: int) -> tuple[int, tuple[int, ...]] | None:
    """Return where the markers before *end* start, and the markers: offsets of names."""
    at = end & ~3
    while at >= 4 and not struct.unpack_from("<I", data, at - 4)[0]:
        at -= 4  # what fills up
    found: list[int] = []
    while at >= 4:
        (offset,) = struct.unpack_from("<I", data, at - 4)
        if found and offset >= found[-1]:
            return None
        found.append(offset)
        at -= 4
        if not offset:
            return at, tuple(reversed(found))
    return None
