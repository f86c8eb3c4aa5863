"""Where the kernel keeps what rewritten programs read, from its own BTF.

Such places are facts of one build of Linux; without its BTF they are not known.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.btf import Btf, Struct
from harness.verifier.env import NotModelled

Place = tuple[int, int]  # bytes from the start, bytes


class Layout:
    """The structs of one kernel; without its BTF nothing is known of them."""

    def __init__(self, btf: Btf | None) -> None:
        self._btf = btf
        self._known: dict[tuple[str, str], Place | None] = {}

    def place(self, struct: str, member: str) -> Place:
        """Return where *member* (``a.b`` for one within another; "" for all) is, and its size.

        Raises NotModelled.
        """
        key = struct, member
        if key not in self._known:
            self._known[key] = self._find(struct, member)
        found = self._known[key]
        if found is None:
            why = " (no kernel BTF)" if self._btf is None else ""
            raise NotModelled(f"where Linux has {struct}.{member}{why}")
        return found

    def offset(self, struct: str, member: str) -> int:
        """Return the byte at which *member* begins. Raises NotModelled."""
        return self.place(struct, member)[0]

    def size(self, struct: str, member: str) -> int:
        """Return the bytes of *member*. Raises NotModelled."""
        return self.place(struct, member)[1]

    def member_at(self, struct: str, off: int, names: Iterable[str]) -> tuple[str, int]:
        """Return which of *names* has byte *off* of *struct*, and where it begins.

        "" and *off* where none has. Raises NotModelled where *struct* is not known.
        """
        for name in names:
            if name:
                start, size = self.place(struct, name)
                if start <= off < start + size:
                    return name, start
        return "", off

    def has(self, struct: str, member: str) -> bool:
        """Say whether this kernel has *member*. Raises NotModelled where *struct* is not known."""
        self.place(struct, "")
        try:
            self.place(struct, member)
        except NotModelled:
            return False
        return True

    def _find(self, struct: str, member: str) -> Place | None:
        if self._btf is None:
            return None
        type_id = self._btf.find(struct, Struct)
        kind = self._btf.get(type_id) if type_id is not None else None
        if not isinstance(kind, Struct):
            return None
        if not member:
            return 0, kind.size
        return _member(self._btf, kind, member.split("."), 0)


class Anywhere(Layout):
    """No kernel in particular: for those who only count instructions."""

    def __init__(self) -> None:
        super().__init__(None)

    def _find(self, struct: str, member: str) -> Place | None:
        del struct, member
        return 0, 8


def _member(btf: Btf, struct: Struct, path: list[str], base: int) -> Place | None:
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
