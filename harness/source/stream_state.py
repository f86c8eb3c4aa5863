"""What registers and stack of a generated BPF function hold while it is written."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from harness.isa.disasm import format_insn
from harness.isa.insn import (
    FP,
    Alu,
    Insn,
    LoadImm,
    Store,
)
from harness.isa.stack_args import REG_ARGS
from harness.model import MapDef

CONTEXT = 64  # bytes
VALUE = 64  # bytes of the array map's value
TABLE = 16  # bytes of the read-only map
VECTORS = 16
AREA = 16  # bytes of stack whose address may be taken
HOMES = 4  # slots of stack that hold values
DEPTH = 6  # frames below main
SAVED = (6, 7, 8, 9)
EDGES = (0, 1, -1, 2, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256, 0x7FFF, 0x8000, -128, -32768,
         0x7FFFFFFF, -0x80000000, 0x55555555, -0x55555556)  # fmt: skip
MAPS = (
    MapDef("values", 2, 4, VALUE, 1, data=bytes(range(VALUE))),
    MapDef("table", 2, 4, TABLE, 1, data=bytes(range(200, 200 + TABLE)), readonly=True),
    MapDef("hash", 1, 4, 8, 4),
)
MEMORY_OPS = ("add", "or", "and", "xor")


@dataclass(frozen=True, slots=True)
class Memory:
    """A pointer to *size* bytes that hold numbers."""

    where: str  # "stack", "value", "table", "context"
    size: int
    maybe: bool = False  # it may be NULL


@dataclass(frozen=True, slots=True)
class Number:
    """Something that is no pointer."""


NUMBER = Number()
Kind = Number | Memory


@dataclass(frozen=True, slots=True)
class Signature:
    """A subprogram that may be called."""

    name: str
    args: tuple[Kind, ...]
    depth: int  # frames, its own included
    linkage: str = "static"

    @property
    def slots(self) -> int:
        """Stack-argument slots."""
        return max(0, len(self.args) - REG_ARGS)


@dataclass(slots=True)
class State:
    """What registers and stack slots hold; what is not there may not be read."""

    regs: dict[int, Kind] = field(default_factory=dict)
    homes: dict[int, Kind] = field(default_factory=dict)  # by offset from r10

    def copy(self) -> State:
        """Return one that changes apart."""
        return State(dict(self.regs), dict(self.homes))

    def meet(self, other: State) -> State:
        """Return what holds where two paths come together."""
        return State(
            {r: k for r, k in self.regs.items() if other.regs.get(r) == k},
            {h: k for h, k in self.homes.items() if other.homes.get(h) == k},
        )


class Typed:
    """The text of one function as it grows, and the types of what it has."""

    def __init__(self, rng: random.Random, name: str, *, area: bool) -> None:
        """Begin function *name*; its stack has an *area* whose address is passed, or none."""
        self.rng = rng
        self.name = name
        self.lines: list[str] = []
        self.state = State()
        self.acc = rng.choice(SAVED)
        self.pinned: set[int] = {self.acc}  # registers that keep what they hold
        self.loops = 0  # around us
        self.labels = 0
        self.area = -AREA if area else 0  # r10 offset; 0: there is none
        self.home_offsets = [self.area - 8 - 8 * n for n in range(HOMES)]

    def emit(self, insn: Insn) -> None:
        """Write an instruction that is no jump and no call."""
        match insn:
            case LoadImm(dst=dst, src=5, imm=index):  # LLVM's form loses half of these
                self.lines.append(f"r{dst} = map[idx:{index}]")
            case LoadImm(dst=dst, src=6, imm=imm):
                self.lines.append(f"r{dst} = map[idx:{imm & 0xFFFFFFFF}]+{imm >> 32}")
            case _:
                self.lines.append(format_insn(insn))

    def label(self) -> str:
        """Return a new label."""
        self.labels += 1
        return f"{self.name or 'm'}_{self.labels}"

    def imm(self) -> int:
        """Return an immediate, mostly an edge."""
        return self.rng.choice(EDGES) if self.rng.random() < 0.7 else self.rng.randint(-999, 999)

    def numbers(self) -> list[int]:
        """Return the registers that hold numbers."""
        return [r for r, k in self.state.regs.items() if k == NUMBER]

    def pointers(self) -> list[tuple[int, Memory]]:
        """Return the registers that hold pointers which are not NULL."""
        return [(r, k) for r, k in self.state.regs.items() if isinstance(k, Memory) and not k.maybe]

    def free(self, kind: Kind = NUMBER) -> int:
        """Return a register that may take a value of *kind*; there always is one."""
        regs = self.state.regs
        found = [
            r for r in range(10)
            if r not in self.pinned
            and not (self.loops and r in regs and r in SAVED and regs[r] != kind)
        ]  # fmt: skip
        return self.rng.choice(found)

    def number(self) -> int:
        """Return a register that holds a number; one is loaded if there is none."""
        found = self.numbers()
        if found and (self.rng.random() < 0.9 or not self.state.homes):
            return self.rng.choice(found)
        dst = self.free()
        self.emit(Alu("mov", 64, dst, None, self.imm()))
        self.set(dst, NUMBER)
        return dst

    def scratch(self) -> int:
        """Return a register that holds a number and may be changed."""
        found = [r for r in self.numbers() if r not in self.pinned]
        if found and self.rng.random() < 0.85:
            return self.rng.choice(found)
        dst = self.free()
        self.emit(Alu("mov", 64, dst, self.rng.choice(self.numbers() or [FP]), 0))
        if not self.numbers():
            self.lines[-1] = format_insn(Alu("mov", 64, dst, None, self.imm()))
        self.set(dst, NUMBER)
        return dst

    def set(self, reg: int, kind: Kind) -> None:
        """Say that *reg* now holds *kind*."""
        self.state.regs[reg] = kind

    def forget(self) -> None:
        """Say that a call happened."""
        for reg in range(6):
            self.state.regs.pop(reg, None)

    def mix(self, reg: int) -> None:
        """Let a number count in the result."""
        op = self.rng.choice(("add", "xor", "sub"))
        if self.rng.random() < 0.4:
            self.emit(Alu("mul", 64, self.acc, None, self.rng.choice((3, 5, 31))))
        self.emit(Alu(op, 64, self.acc, reg))

    def place(self, *, write: bool, size: int) -> tuple[int, int] | None:
        """Return a register and an offset where *size* bytes may be read, or written."""
        rng = self.rng
        found: list[tuple[int, int]] = []
        for reg, kind in self.pointers():
            if kind.size >= size and not (write and kind.where == "table"):
                low = 8 if kind.where == "context" and write else 0  # the result's place
                if kind.size - size >= low:
                    found.append((reg, size * rng.randint(-(-low // size), kind.size // size - 1)))
        if self.area:
            found.append((FP, self.area + size * rng.randrange(AREA // size)))
        if (not found or rng.random() < 0.2) and not write and size <= 8:
            homes = [h for h, k in self.state.homes.items() if k == NUMBER]
            if homes:
                return FP, rng.choice(homes) + size * rng.randrange(8 // size)
        if rng.random() < 0.15 or not found:
            return self._map_place(write=write, size=size)
        return rng.choice(found)

    def _map_place(self, *, write: bool, size: int) -> tuple[int, int] | None:
        """Load the address of a map's value, or of a place in it."""
        where = "value" if write or self.rng.random() < 0.6 else "table"
        whole = VALUE if where == "value" else TABLE
        if self.loops and not write:
            return None
        at = 8 * self.rng.randrange(whole // 8)
        kind = Memory(where, whole - at)
        dst = self.rng.choice(range(6)) if self.loops else self.free(kind)
        if dst in self.pinned:
            return None
        self.emit(LoadImm(dst, 6, at << 32 | (0 if where == "value" else 1)))
        self.set(dst, kind)
        return dst, size * self.rng.randrange(kind.size // size)

    def plain(self, base: int) -> bool:
        """Return whether *base* points to memory, and not to the context."""
        kind = self.state.regs.get(base)
        return base == FP or (isinstance(kind, Memory) and kind.where != "context")

    def stored(self, base: int) -> list[int]:
        """Return registers with numbers, none of which is *base*."""
        return [r for r in self.numbers() if r != base]

    def put_by(self, reg: int, kind: Kind) -> None:
        """Keep a value where calls leave it alone."""
        rng = self.rng
        free = [r for r in SAVED if r not in self.state.regs]
        if free and rng.random() < 0.5:
            dst = rng.choice(free)
            self.emit(Alu("mov", 64, dst, reg))
            self.set(dst, kind)
            return
        home = rng.choice(self.home_offsets)
        if self.loops and self.state.homes.get(home, kind) != kind:
            return
        self.emit(Store(8, FP, home, reg))
        self.state.homes[home] = kind
