"""Assembler: LLVM's text syntax for BPF, and the kernel's and bpftool's.

What ``llvm-mc -triple=bpf`` and ``clang -S`` write, with labels, sections and data
directives; comments are ``#`` and ``//``, and ``;`` separates statements, but begins
a comment at the start of a line, where disassemblers put source lines, and after an
instruction in the kernel's form. That form is ``(79) r1 = *(u64 *)(r2 +8)``, where the
opcode is checked, with ``pc+3`` targets and ``name#5`` calls. Listings of
``llvm-objdump`` (without raw bytes), bpftool and the verifier's log can be read back.

Only code is kept: sections without the ``x`` flag are skipped. Stricter than LLVM:
an immediate that does not fit is an error, not truncated.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field

from harness.isa.codec import HIGH, REGISTERS, decode, fields
from harness.isa.insn import Insn, LoadImm
from harness.isa.stack_args import FIRST_BASE, MAX_SLOTS, Dialect, frames_r12, from_r12
from harness.isa.syntax import Fix, InsnReader
from harness.isa.tokens import AsmError, Token

__all__ = ["AsmError", "Assembly", "assemble"]


@dataclass(frozen=True, slots=True)
class Assembly:
    """What a text assembles to."""

    insns: tuple[Insn, ...]  # by slot, in the merged design
    labels: dict[str, int]  # slots
    incoming: dict[int, int] = field(default_factory=dict)  # .stack_args, by slot


def assemble(text: str, *, dialect: Dialect = "r11") -> Assembly:
    """Return the program that *text* describes.

    With *dialect* r12 the text is of the first stack-argument design, and translated;
    ``.stack_args N`` at the head of a subprogram says how many slots it takes, and
    elsewhere ``frames_r12`` infers it. Raises AsmError.
    """
    assembler = _Assembler(FIRST_BASE + 1 if dialect == "r12" else REGISTERS)
    for number, line in enumerate(text.split("\n"), 1):
        assembler.line(number, line)
    insns = assembler.finish()
    if dialect == "r12":
        try:
            insns = from_r12(insns, frames_r12(insns, assembler.incoming))
        except ValueError as problem:
            slot = re.match(r"slot (\d+): ", str(problem))
            place = assembler.places[int(slot[1])] if slot else (1, 1)
            raise AsmError(*place, str(problem)) from None
    return Assembly(insns, assembler.labels, assembler.incoming)


# --- lines and directives ---------------------------------------------------

_HEADER = re.compile(r"\s*(?:[0-9a-f]{8,16} )?<([^<>]+)>:\s*$", re.ASCII)  # of llvm-objdump
_KERNEL_LINE = re.compile(r"\s*(?:[\w.$]+:\s*)*\([0-9a-f]{2}\)\s", re.ASCII)
_SECTION = re.compile(r"\s*\.section\s+(\"[^\"]*\"|[^\s,;]+)\s*(?:,\s*\"([^\"]*)\")?")

# fmt: off
_DATA = {  # bytes
    ".byte":  1, ".2byte": 2, ".short": 2, ".hword": 2, ".half":  2, ".4byte": 4,
    ".long":  4, ".int":   4, ".word":  4, ".8byte": 8, ".quad":  8,
}
_ALIGN = {".p2align": 3, ".align": 8, ".balign": 8}  # what every slot has
_IGNORED = frozenset({
    ".globl", ".global", ".local", ".weak", ".hidden", ".internal", ".protected", ".type",
    ".size", ".file", ".loc", ".ident", ".addrsig", ".addrsig_sym", ".comm",
})
# fmt: on
_DATA_SECTIONS = frozenset({".data", ".bss", ".rodata"})

_Place = tuple[int, int]  # line, column


@dataclass(frozen=True, slots=True)
class _Pending:
    """An instruction that waits for a label."""

    slot: int
    label: Token
    fix: Fix
    unless: Insn | None
    place: _Place


class _Assembler(InsnReader):
    """The state of one assembly."""

    def __init__(self, registers: int) -> None:
        super().__init__()
        self.registers = registers
        self.insns: list[Insn] = []
        self.places: list[_Place] = []  # by slot
        self.labels: dict[str, int] = {}
        self.incoming: dict[int, int] = {}
        self._label_places: dict[str, _Place] = {}
        self._numeric: dict[int, list[int]] = {}  # label 1 and the like: its slots, in order
        self._pending: list[_Pending] = []
        self._data = bytearray()  # of directives, not yet decoded
        self._data_place: _Place = (1, 1)
        self._code = True  # whether the current section is kept

    # --- lines --------------------------------------------------------------

    def line(self, number: int, text: str) -> None:
        """Assemble line *number*."""
        if section := _SECTION.match(text):
            self._flush()
            name, flags = section[1].strip('"'), section[2] or ""
            self._code = name == ".text" or name.startswith(".text.") or "x" in flags
            return
        if not self._code and text.split(maxsplit=1)[:1] != [".text"]:
            return
        if text.lstrip().startswith(";"):
            return
        if header := _HEADER.match(text):
            self._define(header[1], number, header.start(1) + 1)
            return
        if _KERNEL_LINE.match(text):
            text = text.split(";")[0]  # the state that the verifier's log appends
        self._open(number, text)
        while self._token.kind != "end":
            if not self._accept(";"):
                self._statement()

    def finish(self) -> tuple[Insn, ...]:
        """Return the instructions, with labels resolved."""
        self._flush()
        for pending in self._pending:
            target = self._resolve(pending)
            if target is None:
                if pending.unless is None:
                    raise AsmError(
                        *pending.place, f"there is no label {pending.label.text!r} in the code"
                    )
                self.insns[pending.slot] = pending.unless
                continue
            try:
                self.insns[pending.slot] = pending.fix(pending.slot, target)
            except ValueError as problem:
                raise AsmError(*pending.place, f"{pending.label.text}: {problem}") from None
        return tuple(self.insns)

    # --- statements ---------------------------------------------------------

    def _statement(self) -> None:
        """Read one label, directive or instruction."""
        token = self._token
        after = self._ahead()
        if token.kind in ("name", "string", "number") and (after.kind, after.text) == ("op", ":"):
            self._next += 2
            if token.kind == "number":
                self._flush()
                self._numeric.setdefault(token.value, []).append(len(self.insns))
            else:
                self._define(token.text, self._line, token.column)
            return
        if token.kind == "name" and token.text.startswith("."):
            self._directive()
            return
        self._flush()
        opcode = None
        if token.kind == "opcode":
            opcode = token.value
            self._next += 1
        insn = self._instruction(opcode)
        if not self._ended():
            raise self._error(f"expected the end of the instruction, found {self._found()}")
        if opcode is not None and (meant := fields(insn)[0]) != opcode:
            raise self._error(f"opcode ({opcode:02x}), but the text says ({meant:02x})", token)
        self._emit(insn, (self._line, token.column))

    def _emit(self, insn: Insn, place: _Place) -> None:
        self.insns.append(insn)
        self.places.append(place)
        if isinstance(insn, LoadImm):
            self.insns.append(HIGH)
            self.places.append(place)

    def _define(self, name: str, line: int, column: int) -> None:
        self._flush()
        slot = len(self.insns)
        if name in self.labels:
            first, _ = self._label_places[name]
            raise AsmError(line, column, f"label {name!r} is already defined in line {first}")
        self.labels[name] = slot
        self._label_places[name] = line, column

    def _resolve(self, pending: _Pending) -> int | None:
        """Return the slot that *pending* waits for, None where there is no such label."""
        name = pending.label.text
        if pending.label.kind != "local":
            return self.labels.get(name)
        slots = self._numeric.get(int(name[:-1]), [])
        after = bisect_right(slots, pending.slot)
        if name.endswith("b"):
            return slots[after - 1] if after else None
        return slots[after] if after < len(slots) else None

    def _wait(self, label: Token, fix: Fix, unless: Insn | None = None) -> Insn:
        slot = len(self.insns)
        place = self._line, label.column
        self._pending.append(_Pending(slot, label, fix, unless, place))
        return fix(slot, slot + 1)

    # --- directives ---------------------------------------------------------

    def _directive(self) -> None:
        token = self._take()
        name = token.text
        if name in _DATA:
            if not self._data:
                self._data_place = self._line, token.column
            self._values(_DATA[name])
        elif name == ".stack_args":
            at = self._token
            count = self._expression()
            if not 0 <= count <= MAX_SLOTS:
                raise self._error(f"a function takes 0 to {MAX_SLOTS} stack arguments", at)
            self._flush()
            self.incoming[len(self.insns)] = count
        elif name == ".text" or name in _DATA_SECTIONS:
            self._flush()
            self._code = name == ".text"
        elif name in _ALIGN:
            at = self._token
            if self._expression() > _ALIGN[name]:
                raise self._error("instructions are aligned to 8 bytes, and no more", at)
            self._skip()
        elif name in _IGNORED or name.startswith(".cfi_"):
            self._skip()
        else:
            raise self._error(f"directive {name} is not supported; only code is assembled", token)
        if not self._ended():
            raise self._error(f"expected the end of the directive, found {self._found()}")

    def _values(self, size: int) -> None:
        """Read the numbers of a data directive, of *size* bytes each."""
        while True:
            at = self._token
            value = self._expression()
            if not -(1 << 8 * size - 1) <= value < 1 << 8 * size:
                raise self._error(f"{value} does not fit {8 * size} bits", at)
            self._data += (value & (1 << 8 * size) - 1).to_bytes(size, "little")
            if not self._accept(","):
                return

    def _skip(self) -> None:
        while not self._ended():
            self._next += 1

    def _flush(self) -> None:
        """Decode the data that has been gathered."""
        if not self._data:
            return
        if len(self._data) % 8:
            raise AsmError(*self._data_place, f"{len(self._data)} bytes of data are no whole slots")
        insns = decode(bytes(self._data), registers=self.registers)
        self.insns += insns
        self.places += [self._data_place] * len(insns)
        self._data.clear()
