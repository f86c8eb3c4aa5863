"""One access of a context being converted: the steps that rows of ``convert_fields`` take.

A row is a path through the kernel's structs (``sk_buff.dev net_device.ifindex``: load the
pointer, then through it), or a function of the conversion where a path does not do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.isa.insn import Alu, Insn, Jump, Load, Store, StoreImm
from harness.verifier.env import NotModelled
from harness.verifier.kernel_layout import Layout

SCRATCH = 9  # the first register that is borrowed


@dataclass(frozen=True, slots=True)
class Path:
    """A row: where the kernel has a field."""

    steps: str  # "struct.member", one behind the other
    size: int = 0  # bytes of the last load; 0: of the member
    own: bool = False  # as many bytes as the access itself has
    target: bool = False  # what a narrow load is cut out of: target_size
    null: bool = False  # the pointer may be null, and the result is then 0
    shift: int = 0  # bits to the left
    spill: str = ""  # member that keeps a borrowed register, for stores along the path


class Conversion:
    """The instructions for one load or store."""

    def __init__(self, insn: Load | Store | StoreImm, layout: Layout, knows_clock: bool) -> None:
        self.insn, self.layout = insn, layout
        self.knows_clock = knows_clock  # the program looks at tstamp_type
        self.write = not isinstance(insn, Load)
        self.out: list[Insn] = []
        self.target = 0  # bytes, 0: as many as the field has

    @property
    def dst(self) -> int:
        """The register that a load fills."""
        assert isinstance(self.insn, Load)
        return self.insn.dst

    @property
    def base(self) -> int:
        """The register that points to the context."""
        return self.insn.src if isinstance(self.insn, Load) else self.insn.dst

    @property
    def registers(self) -> tuple[int, int]:
        """The registers in the fields of the instruction, destination first."""
        return self.insn.dst, 0 if isinstance(self.insn, StoreImm) else self.insn.src

    def convert(self, struct: str, rows: Mapping[str, Row]) -> None:
        """Convert the access, of a member of *struct* as programs see it."""
        member, start = self.layout.member_at(struct, self.insn.off, tuple(rows))
        row = rows[member]
        if isinstance(row, Path):
            self.follow(row, self.insn.off - start)
        else:
            row(self)

    def follow(self, path: Path, within: int = 0) -> None:
        """Go along *path*; *within* bytes into its last member."""
        steps = [step.split(".", 1) for step in path.steps.split()]
        base = self.base
        if self.write and len(steps) > 1:
            self._store_behind(path, steps, within)
            return
        for struct, member in steps[:-1]:
            self.out.append(Load(8, self.dst, base, self.layout.offset(struct, member)))
            base = self.dst
            if path.null:
                self.out.append(Jump("eq", 64, base, None, 0, 1))
        off, size = self.layout.place(*steps[-1])
        size = self.insn.size if path.own else path.size or size
        if path.target:
            self.target = path.size or self.layout.size(*steps[-1])
        if self.write:
            self.store(size, base, off + within)
        else:
            self.out.append(Load(size, self.dst, base, off + within))
            if path.shift:
                self.out.append(Alu("lsh", 32, self.dst, None, path.shift))

    def store(self, size: int, base: int, off: int) -> None:
        """Store what the access stores (``BPF_EMIT_STORE``)."""
        if isinstance(self.insn, StoreImm):
            self.out.append(StoreImm(size, base, off, self.insn.imm))
        else:
            assert isinstance(self.insn, Store)
            self.out.append(Store(size, base, off, self.insn.src))

    def borrowed(self) -> int:
        """Return a register that the access does not use."""
        used = self.registers
        register = SCRATCH
        for _ in range(2):
            if register in used:
                register -= 1
        return register

    def _store_behind(self, path: Path, steps: list[list[str]], within: int) -> None:
        """Store along a path, with a register whose value the context keeps meanwhile."""
        if not path.spill:
            raise NotModelled(f"a store to {path.steps}")
        keep = self.layout.offset(steps[0][0], path.spill)
        register = self.borrowed()
        base = self.base
        self.out.append(Store(8, base, keep, register))
        at = base
        for struct, member in steps[:-1]:
            self.out.append(Load(8, register, at, self.layout.offset(struct, member)))
            at = register
        off, size = self.layout.place(*steps[-1])
        if path.target:
            self.target = path.size or size
        self.store(self.insn.size if path.own else path.size or size, register, off + within)
        self.out.append(Load(8, register, base, keep))


Row = Path | Callable[[Conversion], None]
