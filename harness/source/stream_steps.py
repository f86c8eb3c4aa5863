"""Statements of generated BPF functions that neither jump nor call."""

from __future__ import annotations

from harness.isa import opcodes as o
from harness.isa.insn import (
    FP,
    R0,
    Alu,
    Atomic,
    Endian,
    Load,
    LoadImm,
    Store,
    StoreImm,
)
from harness.source.stream_state import (
    EDGES,
    MEMORY_OPS,
    NUMBER,
    Memory,
    Typed,
)


class Steps(Typed):
    """Arithmetic, loads, stores, and what moves between registers and stack."""

    def alu(self) -> None:
        """Compute, or move, in 32 or 64 bits."""
        rng = self.rng
        bits = rng.choice((32, 64))
        op = rng.choice((*o.ALU_OPS, *o.SIGNED_ALU_OPS, "mov", "add", "sub"))
        if op == "mov":
            dst, src = self.free(), self.number()
            if rng.random() < 0.3:
                self.emit(Alu("mov", bits, dst, None, self.imm()))
            else:
                sx = rng.choice((0, 8, 16, 32)[: 3 + bits // 64]) if rng.random() < 0.6 else 0
                self.emit(Alu("mov", bits, dst, src, 0, sx))
            self.set(dst, NUMBER)
            return
        dst = self.scratch()
        if op == "neg":
            self.emit(Alu("neg", bits, dst, None))
        elif rng.random() < 0.5:
            imm = self.imm()
            if op in ("div", "mod", "sdiv", "smod"):
                imm = imm or 3
            elif op in ("lsh", "rsh", "arsh"):
                imm &= bits - 1
            self.emit(Alu(op, bits, dst, None, imm))
        else:
            self.emit(Alu(op, bits, dst, self.number()))
        if rng.random() < 0.3:
            self.mix(dst)

    def endian(self) -> None:
        """Change the order of bytes."""
        dst = self.scratch()
        self.emit(
            Endian(self.rng.choice(("le", "be", "bswap")), self.rng.choice((16, 32, 64)), dst)
        )
        self.mix(dst)

    def wide(self) -> None:
        """Load a number of 64 bits."""
        dst = self.free()
        value = self.rng.getrandbits(64)
        if self.rng.random() < 0.5:
            value = self.rng.choice(EDGES) & (1 << 64) - 1
        self.emit(LoadImm(dst, 0, value))
        self.set(dst, NUMBER)

    def load(self) -> None:
        """Read memory, sign-extended or ordered at times."""
        rng = self.rng
        size = rng.choice((1, 2, 4, 8))
        place = self.place(write=False, size=size)
        if place is None:
            return
        base, off = place
        dst = self.free()
        ordered = rng.random() < 0.15 and self.plain(base)
        if ordered:
            self.emit(Atomic("load_acquire", size, dst, off, base))
        else:
            signed = size < 8 and rng.random() < 0.4 and self.plain(base)
            self.emit(Load(size, dst, base, off, signed))
        self.set(dst, NUMBER)
        if rng.random() < 0.6:
            self.mix(dst)

    def store(self) -> None:
        """Write a register or an immediate to memory."""
        rng = self.rng
        size = rng.choice((1, 2, 4, 8))
        place = self.place(write=True, size=size)
        if place is None:
            return
        base, off = place
        if rng.random() < 0.3:
            self.emit(StoreImm(size, base, off, self.imm()))
        elif rng.random() < 0.15 and self.plain(base):
            self.emit(Atomic("store_release", size, base, off, self.rng.choice(self.stored(base))))
        else:
            self.emit(Store(size, base, off, self.rng.choice(self.stored(base))))

    def atomic(self) -> None:
        """Change memory atomically; the old value may come back."""
        rng = self.rng
        size = rng.choice((4, 8))
        place = self.place(write=True, size=size)
        if place is None or not self.plain(place[0]):
            return
        base, off = place
        sources = [r for r in self.stored(base) if r not in self.pinned]
        if not sources:
            return
        src = rng.choice(sources)
        self.emit(Atomic(rng.choice(MEMORY_OPS), size, base, off, src, rng.random() < 0.6))

    def exchange(self) -> None:
        """Exchange with memory, or compare and exchange."""
        rng = self.rng
        size = rng.choice((4, 8))
        place = self.place(write=True, size=size)
        if place is None or not self.plain(place[0]):
            return
        base, off = place
        sources = [r for r in self.stored(base) if r not in self.pinned]
        if not sources:
            return
        src = rng.choice(sources)
        if rng.random() < 0.5:
            self.emit(Atomic("xchg", size, base, off, src, True))
        elif self.state.regs.get(R0) == NUMBER:
            self.emit(Atomic("cmpxchg", size, base, off, src, True))
            self.mix(R0)

    def spill(self) -> None:
        """Keep a register on the stack, or in one that calls leave alone."""
        regs = self.state.regs
        if regs:
            reg = self.rng.choice(list(regs))
            self.put_by(reg, regs[reg])

    def fill(self) -> None:
        """Read back what was spilled."""
        homes = self.state.homes
        if not homes:
            return
        home = self.rng.choice(list(homes))
        kind = homes[home]
        dst = self.free(kind)
        if self.loops and isinstance(kind, Memory):
            return
        self.emit(Load(8, dst, FP, home))
        self.set(dst, kind)

    def indexed(self) -> None:
        """Read, or write, at a place that a masked number says."""
        rng = self.rng
        size = rng.choice((1, 2, 4))
        found = [
            (r, k.size) for r, k in self.pointers()
            if k.where in ("value", "table", "stack") and k.size >= 8
        ]  # fmt: skip
        if not found or self.loops:
            return
        base, whole = rng.choice(found)
        room = 1 << (whole.bit_length() - 1)
        index = self.scratch()
        kind = self.state.regs[base]
        if index == base:
            return
        self.emit(Alu("and", 64, index, None, room - size))
        self.emit(Alu("add", 64, index, base))
        self.set(index, Memory("table", size))
        assert isinstance(kind, Memory)
        if kind.where == "value" and rng.random() < 0.4:
            self.emit(Store(size, index, 0, rng.choice(self.numbers())))
        dst = self.free()
        self.emit(Load(size, dst, index, 0))
        if dst != index:
            self.state.regs.pop(index)
        self.set(dst, NUMBER)
        self.mix(dst)
