"""Where the kernel keeps what rewritten programs read: facts of one build of it.

``STOCK`` is Debian's linux-image 7.3.4-1~bpo13+1 for amd64, from its own BTF. ``from_btf``
takes the same from the BTF of any other.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.btf import Array, Btf, Struct
from harness.verifier.env import NotModelled

TABLE = Path(__file__).with_name("kernel_layout.toml")

Place = tuple[int, int]  # bytes from the start, bytes


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of members, by struct and member; the member "" is the struct as a whole."""

    places: Mapping[tuple[str, str], Place]

    def place(self, struct: str, member: str) -> Place:
        """Return where *member* is, and its size. Raises NotModelled."""
        found = self.places.get((struct, member))
        if found is None:
            raise NotModelled(f"where the kernel has {struct}.{member}")
        return found

    def offset(self, struct: str, member: str) -> int:
        """Return the byte at which *member* begins. Raises NotModelled."""
        return self.place(struct, member)[0]

    def size(self, struct: str, member: str = "") -> int:
        """Return the bytes of *member*, or of all of *struct*. Raises NotModelled."""
        return self.place(struct, member)[1]


def from_btf(btf: Btf, wanted: Iterable[tuple[str, str]]) -> Layout:
    """Return the places of *wanted*, struct and member, those that *btf* has."""
    structs: dict[str, list[Struct]] = {}
    for type_id in range(1, len(btf)):
        kind = btf[type_id]
        if isinstance(kind, Struct) and kind.name:
            structs.setdefault(kind.name, []).append(kind)
    places: dict[tuple[str, str], Place] = {}
    for name, member in wanted:
        for struct in structs.get(name, ()):
            found = (0, struct.size) if not member else _member(btf, struct, member.split("."))
            if found is not None:
                places.setdefault((name, member), found)
    return Layout(places)


def _member(btf: Btf, struct: Struct, path: list[str], base: int = 0) -> Place | None:
    for member in struct.members:
        kind = btf.resolve(member.type)
        at = base + member.bit_offset // 8
        if member.name == path[0]:
            if len(path) == 1:
                return at, btf.size_of(member.type) or 0
            return _member(btf, kind, path[1:], at) if isinstance(kind, Struct) else None
        if not member.name and isinstance(kind, Struct):
            found = _member(btf, kind, path, at)
            if found is not None:
                return found
    return None


@cache
def stock() -> Layout:
    """Return the table."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return Layout(
        {
            (struct, member): (place[0], place[1])
            for struct, members in table.items()
            for member, place in members.items()
        }
    )


STOCK = stock()
