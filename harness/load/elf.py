"""The parts of an ELF relocatable file that a BPF loader reads.

pyelftools reads the header and names the constants. The tables (section headers,
symbols, relocations) are unpacked here in one go: through pyelftools a symbol is a
parsed container, some fifty times slower, and a section follows ``sh_link`` before
one can look at it. Nothing is read beyond the bytes given, and no size that a
header claims is believed before it is held against them.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.enums import ENUM_SH_TYPE_BASE

from harness.load.errors import LoadError

NULL = ENUM_SH_TYPE_BASE["SHT_NULL"]
PROGBITS = ENUM_SH_TYPE_BASE["SHT_PROGBITS"]
SYMTAB = ENUM_SH_TYPE_BASE["SHT_SYMTAB"]
REL = ENUM_SH_TYPE_BASE["SHT_REL"]
NOBITS = ENUM_SH_TYPE_BASE["SHT_NOBITS"]
EXECINSTR = SH_FLAGS.SHF_EXECINSTR

LOCAL, GLOBAL, WEAK = range(3)  # STB_*
NOTYPE, OBJECT, FUNC, SECTION = range(4)  # STT_*
INTERNAL, HIDDEN = 1, 2  # STV_*
UNDEF, LORESERVE, XINDEX = 0, 0xFF00, 0xFFFF  # SHN_*

# Relocations                             include of LLVM: BPF.def; llvm_reloc.rst of Linux
R_64_64, R_ABS64, R_ABS32, R_NODYLD32, R_64_32 = 1, 2, 3, 4, 10

EHDR_SIZE = 64  # bytes
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_REL = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True)
class Part:
    """One section."""

    index: int
    name: str
    type: int  # SHT_*
    flags: int
    data: bytes  # empty for NOBITS and for debug information
    size: int  # bytes
    link: int
    info: int

    @property
    def executable(self) -> bool:
        """Return whether it holds programs."""
        return self.type == PROGBITS and bool(self.flags & EXECINSTR)


@dataclass(frozen=True, slots=True)
class Symbol:
    """One symbol; *section* is the index of its section or a SHN_* number."""

    index: int
    name: str
    value: int
    size: int  # bytes
    bind: int
    type: int
    visibility: int
    section: int

    @property
    def hidden(self) -> bool:
        """Return whether it is visible in its object only."""
        return self.visibility in (HIDDEN, INTERNAL)

    @property
    def extern(self) -> bool:
        """Return whether somebody else defines it (``sym_is_extern``)."""
        return self.section == UNDEF and self.bind in (GLOBAL, WEAK) and self.type == NOTYPE


@dataclass(frozen=True, slots=True)
class Reference:
    """One relocation: *offset* in its section refers to *symbol*."""

    offset: int
    symbol: Symbol
    type: int  # R_*


@dataclass(frozen=True)
class Elf:
    """An ELF file that holds BPF."""

    path: str
    parts: tuple[Part, ...]  # by section index
    symbols: tuple[Symbol, ...]
    by_name: dict[str, Part]  # the first section of each name

    def part(self, name: str) -> Part | None:
        """Return the first section that is called *name*."""
        return self.by_name.get(name)

    def references(self, part: Part) -> list[Reference]:
        """Return the relocations in the relocation section *part*."""
        found = []
        for number, (offset, info) in enumerate(_REL.iter_unpack(_rows(part.data, _REL.size))):
            if info >> 32 >= len(self.symbols):
                raise LoadError(
                    f"{self.path}: {part.name}: relocation {number} names symbol {info >> 32}, "
                    f"of {len(self.symbols)}"
                )
            found.append(Reference(offset, self.symbols[info >> 32], info & 0xFFFFFFFF))
        return found


def read(data: bytes, path: str) -> Elf:
    """Return the sections and symbols of the BPF object in *data*; ``LoadError`` if it is none."""
    header = _header(data, path)
    parts = _parts(data, path, header)
    tables = [part for part in parts if part.type == SYMTAB]
    if not tables:
        raise LoadError(f"{path}: no symbol table; is it a stripped object?")
    if len(tables) > 1:
        raise LoadError(f"{path}: more than one symbol table")
    names = parts[tables[0].link].data if tables[0].link < len(parts) else b""
    if not names:
        raise LoadError(f"{path}: the symbol table has no strings")
    strings = _Strings(names, path)
    rows = _SYM.iter_unpack(_rows(tables[0].data, _SYM.size))
    symbols = tuple(
        Symbol(index, strings[at], value, size, info >> 4, info & 15, other & 3, section)
        for index, (at, info, other, section, value, size) in enumerate(rows)
    )
    by_name = {part.name: part for part in reversed(parts[1:])}
    return Elf(path, parts, symbols, by_name)


def _header(data: bytes, path: str) -> tuple[int, int, int]:
    """Check what the file is; return offset, number and names section of its headers."""
    if data[:4] != b"\x7fELF":
        raise LoadError(f"{path}: not an ELF file")
    if len(data) < EHDR_SIZE:
        raise LoadError(f"{path}: {len(data)} bytes are less than an ELF header (cut short?)")
    try:
        elf = ELFFile(io.BytesIO(data[:EHDR_SIZE]))
        header = elf.header
        if elf.elfclass != 64:
            raise LoadError(f"{path}: a {elf.elfclass}-bit ELF file, not a 64-bit one")
        if header["e_machine"] not in ("EM_BPF", "EM_NONE"):
            raise LoadError(
                f"{path}: for machine {_machine(header['e_machine'])}, not BPF; "
                "compile it with clang -target bpf"
            )
        if not elf.little_endian:
            raise LoadError(f"{path}: big-endian BPF; compile it with clang -target bpfel")
        if header["e_type"] != "ET_REL":
            raise LoadError(f"{path}: not a relocatable object (clang -c)")
        offset, entry = header["e_shoff"], header["e_shentsize"]
        count, names = header["e_shnum"], header["e_shstrndx"]
    except (ELFError, ConstructError, KeyError, ValueError, struct.error) as fault:
        raise LoadError(f"{path}: a damaged ELF header: {fault}") from fault
    if entry != _SHDR.size or not offset or offset + _SHDR.size > len(data):
        raise LoadError(f"{path}: no section headers")
    first = _SHDR.unpack_from(data, offset)
    count = count or first[5]  # many sections: the number stands in section 0
    names = first[6] if names == XINDEX else names
    if count > (len(data) - offset) // _SHDR.size:
        raise LoadError(f"{path}: {count} section headers do not fit in the file (cut short?)")
    if names >= count:
        raise LoadError(f"{path}: section names in section {names}, of {count}")
    return offset, count, names


def _machine(value: str | int) -> str:
    return value.removeprefix("EM_").lower() if isinstance(value, str) else str(value)


def _parts(data: bytes, path: str, header: tuple[int, int, int]) -> tuple[Part, ...]:
    offset, count, names_index = header
    rows = list(_SHDR.iter_unpack(data[offset : offset + count * _SHDR.size]))
    row = rows[names_index]
    if row[4] + row[5] > len(data):
        raise LoadError(f"{path}: the section names lie beyond the end of the file (cut short?)")
    names = _Strings(data[row[4] : row[4] + row[5]], path)
    parts = [Part(0, "", 0, 0, b"", 0, 0, 0)]
    total = 0
    for index, (name_at, kind, flags, _, at, size, link, info, _, entry) in enumerate(rows[1:], 1):
        name = names[name_at]
        if kind in (SYMTAB, REL) and entry != {SYMTAB: _SYM.size, REL: _REL.size}[kind]:
            raise LoadError(f"{path}: section {name} has entries of {entry} bytes")
        body = b""
        if kind not in (NULL, NOBITS):
            total += size
            if at + size > len(data):
                raise LoadError(f"{path}: section {name} ends beyond the file (cut short?)")
            if total > len(data):  # or each of many sections would copy the whole file
                raise LoadError(f"{path}: section {name} overlaps others")
            # debug information is most of a file, and nobody here reads it
            if not name.startswith((".debug_", ".rel.debug_")):
                body = data[at : at + size]
        parts.append(Part(index, name, kind, flags, body, size, link, info))
    return tuple(parts)


def _rows(data: bytes, size: int) -> bytes:
    return data[: len(data) // size * size]


class _Strings(dict[int, str]):
    """A string table by offset, which decodes each string once."""

    def __init__(self, table: bytes, path: str) -> None:
        super().__init__()
        self._table, self._path = table, path
        self._budget = 16 * len(table) + 4096  # hostile strings share one long tail

    def __missing__(self, offset: int) -> str:
        end = self._table.find(b"\0", offset) if offset < len(self._table) else -1
        self._budget -= max(0, end - offset)
        if end < 0 or self._budget < 0:
            raise LoadError(f"{self._path}: a name lies beyond its string table")
        name = self[offset] = self._table[offset:end].decode("utf-8", "backslashreplace")
        return name
