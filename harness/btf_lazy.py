"""BTF whose types are read when they are asked for: the kernel's own, of 130,000 types.

Reading all of it takes seconds; this takes a tenth of one for the index of where each type
is, and a few microseconds for each type that is looked at. One value serves any number of
verifications; nothing here opens a file.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from struct import Struct as Layout
from typing import overload

from harness.btf import (
    DECL_TAG,
    ENUM64,
    INT,
    MAX_VLEN,
    Btf,
    BtfError,
    BtfType,
    DeclTag,
    Void,
    essential,
    follows,
    read_type,
    sections,
    strings_in,
)
from harness.kallsyms import Symbols

_HEAD = Layout("<II")  # name, info


class _Types(Sequence[BtfType]):
    """The types of a BTF by id, made when they are asked for and kept."""

    def __init__(self, data: bytes) -> None:
        self.section, self.strings = sections(data)
        self._read = strings_in(self.strings)
        self._made: dict[int, BtfType] = {0: Void()}

    @cached_property
    def places(self) -> tuple[array[int], array[int], bytearray]:
        """The offset, the offset of the name and the kind of each type, by id."""
        return _index(self.section)

    @cached_property
    def by_name(self) -> dict[int, list[int]]:
        """The ids of the types whose name is at an offset."""
        found: dict[int, list[int]] = {}
        for type_id, name in enumerate(self.places[1]):
            if name:
                found.setdefault(name, []).append(type_id)
        return found

    @cached_property
    def tags(self) -> dict[int, list[DeclTag]]:
        """The declaration tags of a type, by its id."""
        found: dict[int, list[DeclTag]] = {}
        for tag_id, kind in enumerate(self.places[2]):
            if kind == DECL_TAG:
                tag = self[tag_id]
                assert isinstance(tag, DeclTag)
                found.setdefault(tag.type, []).append(tag)
        return found

    def __len__(self) -> int:
        return len(self.places[0])

    @overload
    def __getitem__(self, index: int) -> BtfType: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[BtfType, ...]: ...
    def __getitem__(self, index: int | slice) -> BtfType | tuple[BtfType, ...]:
        if isinstance(index, slice):
            return tuple(self[type_id] for type_id in range(len(self))[index])
        made = self._made.get(index)
        if made is None:
            offset = self.places[0][index]
            made = self._made[index] = read_type(self.section, offset, self._read)
        return made


def _index(section: bytes) -> tuple[array[int], array[int], bytearray]:
    """Return the offset, the offset of the name and the kind of each type, by id."""
    offsets, names, kinds = array("I", [0]), array("I", [0]), bytearray(1)
    unpack = _HEAD.unpack_from
    once = [12] * 256
    each = [0] * 256
    for kind in range(INT, ENUM64 + 1):
        more, element = follows(kind)
        once[kind], each[kind] = 12 + more, element
    offset, end = 0, len(section)
    add_offset, add_name, add_kind = offsets.append, names.append, kinds.append
    while offset + 12 <= end:
        name, info = unpack(section, offset)
        kind = info >> 24 & 0x7F
        add_offset(offset)
        add_name(name)
        add_kind(kind)
        size = each[kind]
        offset += once[kind] + size * (info & MAX_VLEN) if size else once[kind]
    if offset != end or min(kinds[1:], default=INT) < INT or max(kinds) > ENUM64:
        raise BtfError("the types do not fill their section, or are of unknown kinds")
    return offsets, names, kinds


@dataclass(frozen=True, eq=False, repr=False)
class LazyBtf(Btf):
    """A BTF that is read as it is looked at; equal to itself only."""

    types: _Types  # type: ignore[assignment]  # like the tuple, but lazy
    data: bytes = b""
    symbols: Symbols | None = None  # of the kernel whose types these are; None: not at hand

    def __reduce__(self) -> tuple[Callable[..., LazyBtf], tuple[bytes, Symbols | None]]:
        return with_symbols, (self.data, self.symbols)

    def __repr__(self) -> str:
        return f"<BTF of {len(self.data)} bytes>"

    def ids(self, name: str) -> list[int]:
        """Return the ids of all types called *name*, in order."""
        at = -1
        wanted = b"\0" + name.encode() + b"\0"
        found: list[int] = []
        while name:
            at = self.types.strings.find(wanted, at + 1)
            if at < 0:
                break
            found += self.types.by_name.get(at + 1, ())
        return sorted(found)

    def flavours(self, name: str) -> list[int]:
        """Return the ids of all types called *name*, their flavours aside, in order."""
        strings, found = self.types.strings, self.ids(name)
        wanted = b"\0" + name.encode() + b"___"
        at = strings.find(wanted)
        while name and at >= 0:
            found += self.types.by_name.get(at + 1, ())
            at = strings.find(wanted, at + 1)
        return sorted(number for number in found if essential(self.types[number].name) == name)

    def find(self, name: str, kind: type) -> int | None:
        """Return the id of the first type of class *kind* that is called *name*."""
        for type_id in self.ids(name):
            if isinstance(self.types[type_id], kind):
                return type_id
        return None

    def tags(self, type_id: int) -> Sequence[DeclTag]:
        """Return the declaration tags of the type *type_id*, in order."""
        return self.types.tags.get(type_id, ())


def with_symbols(data: bytes, symbols: Symbols | None) -> LazyBtf:
    """Return the BTF in *data* of a kernel with *symbols*."""
    found = parse_lazily(data)
    return found if symbols is None else LazyBtf(found.types, (), data, symbols)


@lru_cache(maxsize=2)
def parse_lazily(data: bytes) -> LazyBtf:
    """Return the BTF in *data*; ``BtfError`` if it is none.

    Ids in it are not checked: it is for BTF that a kernel made of itself.
    """
    return LazyBtf(_Types(data), (), data)
