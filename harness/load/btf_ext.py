"""BTF.ext: where functions and source lines lie, and CO-RE relocations.

The section holds three tables, each of records by ELF section: a record size, then for
each section its name, the number of records and the records. Instruction offsets are in
bytes from the start of the section; libbpf turns them into slots, and so does this.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from harness.btf import BtfError

_HEADER = struct.Struct("<HBBIIIII")
_CORE = struct.Struct("<II")  # where the header is long enough
_SECTION = struct.Struct("<II")
_FUNC, _LINE, _RELO = struct.Struct("<II"), struct.Struct("<IIII"), struct.Struct("<IIII")

# fmt: off
# Kinds of CO-RE relocations              enum bpf_core_relo_kind, include/uapi/linux/bpf.h
CORE_KINDS = (
    "byte_off", "byte_sz", "field_exists", "signed", "lshift_u64", "rshift_u64",
    "local_type_id", "target_type_id", "type_exists", "type_size",
    "enumval_exists", "enumval_value", "type_matches",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class FuncRecord:
    """The function at *slot* of its section is *type_id*."""

    slot: int
    type_id: int


@dataclass(frozen=True, slots=True)
class LineRecord:
    """The instruction at *slot* of its section comes from *file*."""

    slot: int
    file: str
    text: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class CoreRecord:
    """The instruction at *slot* of its section depends on the kernel's *type_id*."""

    slot: int
    type_id: int
    access: str  # for example "0:1:2": members to go through
    kind: str  # of CORE_KINDS, or a number


@dataclass
class BtfExt:
    """The records of each table, by name of the ELF section."""

    functions: dict[str, list[FuncRecord]] = field(default_factory=dict)
    lines: dict[str, list[LineRecord]] = field(default_factory=dict)
    core: dict[str, list[CoreRecord]] = field(default_factory=dict)


def parse(data: bytes, string: Callable[[int], str]) -> BtfExt:
    """Return the records in *data*; *string* reads the string section of the BTF.

    Raises ``BtfError`` for bytes that are no BTF.ext (``btf_ext_parse``).
    """
    if len(data) < _HEADER.size:
        raise BtfError(f"BTF.ext: {len(data)} bytes are less than a header")
    magic, version, flags, header, funcs, func_len, lines, line_len = _HEADER.unpack_from(data)
    if magic != 0xEB9F or version != 1 or flags:
        raise BtfError("BTF.ext: unknown magic, version or flags")
    if not _HEADER.size <= header < len(data):
        raise BtfError(f"BTF.ext: header length {header} does not fit in {len(data)} bytes")
    relos, relo_len = 0, 0
    if header >= _HEADER.size + _CORE.size:
        relos, relo_len = _CORE.unpack_from(data, _HEADER.size)
    ext = BtfExt()
    for section, (at, type_id) in _records(data, header, funcs, func_len, _FUNC, string):
        ext.functions.setdefault(section, []).append(FuncRecord(at // 8, type_id))
    for section, (at, file, text, where) in _records(data, header, lines, line_len, _LINE, string):
        ext.lines.setdefault(section, []).append(
            LineRecord(at // 8, string(file), string(text), where >> 10, where & 0x3FF)
        )
    records = _records(data, header, relos, relo_len, _RELO, string)
    for section, (at, type_id, access, kind) in records:
        name = CORE_KINDS[kind] if kind < len(CORE_KINDS) else str(kind)
        ext.core.setdefault(section, []).append(CoreRecord(at // 8, type_id, string(access), name))
    return ext


def _records(
    data: bytes,
    header: int,
    offset: int,
    length: int,
    form: struct.Struct,
    string: Callable[[int], str],
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield section name and fields of each record of one table."""
    if not length:
        return
    start, end = header + offset, header + offset + length
    if offset % 4 or end > len(data) or length < 4:
        raise BtfError("BTF.ext: a table lies outside")
    (size,) = struct.unpack_from("<I", data, start)
    if size < form.size or size % 4:
        raise BtfError(f"BTF.ext: records of {size} bytes")
    start += 4
    if start == end:
        raise BtfError("BTF.ext: a table without records")
    seen = set()
    while start < end:
        if end - start < _SECTION.size:
            raise BtfError("BTF.ext: a table is cut short")
        name, count = _SECTION.unpack_from(data, start)
        start += _SECTION.size
        if not count or count * size > end - start:
            raise BtfError(f"BTF.ext: {count} records do not fit")
        section = string(name)
        if section not in seen:  # libbpf looks at the first table of a section
            seen.add(section)
            for at in range(start, start + count * size, size):
                yield section, form.unpack_from(data, at)
        start += count * size
