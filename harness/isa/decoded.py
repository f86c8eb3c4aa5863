"""What is known of decoded instructions, found by identity.

The decoder makes equal instructions one object, within a program and between programs, and
keeps it here for a while; what a table of facts says of it is kept as long, and no longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from harness.isa.insn import Insn

T = TypeVar("T")
Slot = tuple[int, int, int, int]  # opcode, registers, offset, immediate

_MOST = 1 << 15  # instructions that are kept
_by_slot: dict[int, dict[Slot, Insn]] = {}  # by how many registers there are
_decoded: dict[int, Insn] = {}  # by id
_tables: list[dict[int, Any]] = []


def known_slots(registers: int) -> dict[Slot, Insn]:
    """Return the instructions that are known by their encoding, with room for more."""
    if len(_decoded) > _MOST:
        _decoded.clear()
        for slots in _by_slot.values():
            slots.clear()
        for table in _tables:
            table.clear()
    return _by_slot.setdefault(registers, {})


def keep(insn: Insn) -> None:
    """Let facts be kept of *insn*, which ``known_slots`` has."""
    _decoded[id(insn)] = insn


class Facts(Generic[T]):
    """What a function says of instructions: of each that is kept it is asked once."""

    def __init__(self, find: Callable[[Insn], T]) -> None:
        self.find = find
        self.known: dict[int, T] = {}  # by id, of instructions that are kept
        _tables.append(self.known)

    def of(self, insns: Iterable[Insn]) -> list[T]:
        """Return what is said of each of *insns*."""
        get, out = self.known.get, []
        others: dict[int, T] = {}  # by id, of instructions that *insns* holds
        for insn in insns:
            fact = get(id(insn))
            if fact is None:
                fact = others.get(id(insn))
                if fact is None:
                    fact = self.find(insn)
                    (self.known if id(insn) in _decoded else others)[id(insn)] = fact
            out.append(fact)
        return out
