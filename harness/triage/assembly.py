"""The compiler's assembly against the instructions in its object.

Both are brought into one form: the text of each function's instructions, numbers in
decimal, without the targets of jumps and calls. Where they differ the object was not
written as the compiler meant it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.isa.disasm import format_insn
from harness.isa.insn import High
from harness.model import Program


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first instruction that the object has otherwise."""

    slot: int
    function: str
    assembly: str  # what the compiler wrote
    object: str  # what the object holds


def functions(text: str) -> dict[str, list[str]]:
    """Return the instructions of each function of the assembly *text*, in one form."""
    found: dict[str, list[str]] = {}
    names = set(re.findall(r"^\s*\.type\s+([\w.$]+),\s*@function", text, re.MULTILINE))
    here: list[str] | None = None
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        label = re.fullmatch(r"([\w.$]+):", line)
        if label:
            if label[1] in names:
                here = found.setdefault(label[1], [])
            continue
        if not line or line.startswith("."):
            if re.match(r"\.(section|bss|data|rodata)", line):
                here = None
            continue
        if here is not None and line not in ("APP", "NO_APP"):
            here.append(_plain(line))
    return found


def compare(text: str, program: Program) -> tuple[Mismatch | None, int]:
    """Return where *program* is not what the assembly *text* says, and how much was compared."""
    written = functions(text)
    compared = 0
    for sub in program.subprograms:
        lines = written.get(sub.name)
        if lines is None:
            continue
        slots = [s for s in range(sub.start, sub.end) if not isinstance(program.insns[s], High)]
        held = [_plain(format_insn(program.insns[slot], slot=slot)) for slot in slots]
        if len(held) != len(lines):
            index = next(
                (n for n, (a, b) in enumerate(zip(lines, held, strict=False)) if a != b),
                min(len(held), len(lines)),
            )
        else:
            index = next(
                (n for n, (a, b) in enumerate(zip(lines, held, strict=True)) if a != b), -1
            )
        compared += len(lines)
        if index >= 0:
            theirs = lines[index] if index < len(lines) else "nothing"
            ours = held[index] if index < len(held) else "nothing"
            slot = slots[min(index, len(slots) - 1)] if slots else sub.start
            return Mismatch(slot, sub.name, theirs, ours), compared
    return None, compared


_BYTES = {".byte": 1, ".short": 2, ".long": 4, ".quad": 8}


def section(text: str, name: str) -> bytes | None:
    """Return the bytes of section *name* in assembly *text*, None where they are not plain.

    Only numbers and strings are read, which is all that .BTF has.
    """
    out, inside, seen = bytearray(), False, False
    for line in text.splitlines():
        words = line.partition("#")[0].strip()
        directive, _, rest = words.partition("\t") if "\t" in words else words.partition(" ")
        rest = rest.strip()
        if directive == ".section":
            inside = rest.split(",")[0].strip('"') == name
            seen = seen or inside
        elif directive in (".text", ".bss", ".data"):
            inside = False
        elif inside and directive in _BYTES:
            if not re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)", rest):
                return None
            size = _BYTES[directive]
            out += (int(rest, 0) & (1 << 8 * size) - 1).to_bytes(size, "little")
        elif inside and directive in (".ascii", ".asciz"):
            end = b"\0" if directive == ".asciz" else b""
            out += _string(line[line.index('"') + 1 : line.rindex('"')]) + end
    return bytes(out) if seen else None


def _string(text: str) -> bytes:
    def put(match: re.Match[str]) -> str:
        told = match[1]
        if told[0] in "01234567":
            return chr(int(told, 8))
        return {"n": "\n", "t": "\t", "b": "\b", "f": "\f", "r": "\r"}.get(told, told)

    return re.sub(r"\\([0-7]{1,3}|.)", put, text).encode("latin-1", "replace")


def held(data: bytes, name: str) -> bytes | None:
    """Return section *name* of the object *data*, None where it has none that can be read."""
    from io import BytesIO

    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        found = ELFFile(BytesIO(data)).get_section_by_name(name)
        return bytes(found.data()) if found is not None else None
    except (ELFError, ValueError, KeyError, AssertionError):
        return None


def _plain(line: str) -> str:
    """Return an instruction's text without what the linker fills in, numbers in decimal."""
    line = re.sub(r"\s+", " ", line.strip())
    line = re.sub(r"\b(goto|gotol|may_goto|call|callx)\b (?!r\d).*", r"\1", line)
    line = re.sub(r"^ld_pseudo (\w+), .*", r"\1 = ll", line)
    if "*)(" in line or re.fullmatch(r"w\d+ = w\d+", line):
        # the assembler takes both names of a register here, and means the same
        line = re.sub(r"\bw(\d+)( = )", r"r\1\2", line)
        line = re.sub(r"(\) = )w(\d+)$", r"\1r\2", line)
    if re.search(r"\bll$", line) or re.search(r"= [A-Za-z_.][\w.$+]* ll", line):
        return re.sub(r"= .* ll$", "= ll", line)
    line = re.sub(r"0x[0-9a-fA-F]+", lambda m: str(int(m[0], 16)), line)
    line = re.sub(r"\(([us]\d+) \*\)\((\w+) ([+-]) (\d+)\)", r"(\1 *)(\2 \3 \4)", line)
    line = re.sub(r"([+-]) (-?\d+)\)", lambda m: f"{m[1]} {m[2]})", line)
    return re.sub(r"= (\d+)$", lambda m: f"= {_signed(int(m[1]))}", line)


def _signed(value: int) -> int:
    return value - (1 << 32) if 1 << 31 <= value < 1 << 32 else value
