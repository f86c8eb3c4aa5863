from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.btf import BtfError
from harness.load.btf_ext import BtfExt, CoreRecord, FuncRecord, LineRecord, parse

STRINGS = ["", "xdp", ".text", "a.c", "return x;", "0:1"]


def string(offset: int) -> str:
    if offset >= len(STRINGS):
        raise BtfError(f"string offset {offset}")
    return STRINGS[offset]


def table(size: int, *sections: tuple[int, list[tuple[int, ...]]], pad: int = 0) -> bytes:
    """Return a table of records: section name and fields of each."""
    data = struct.pack("<I", size)
    for name, rows in sections:
        data += struct.pack("<II", name, len(rows))
        data += b"".join(struct.pack(f"<{len(row)}I", *row) + bytes(pad) for row in rows)
    return data


def section(functions: bytes, lines: bytes, core: bytes = b"", *, header: int = 32) -> bytes:
    places: list[int] = []
    end = 0
    for data in (functions, lines, core):
        places += [end, len(data)]
        end += len(data)
    fields = struct.pack("<HBBI6I", 0xEB9F, 1, 0, header, *places)
    return fields[:header] + functions + lines + core


FUNCTIONS = table(8, (1, [(0, 5)]), (2, [(0, 6), (16, 7)]))
LINES = table(16, (1, [(0, 3, 4, 12 << 10 | 7), (8, 3, 4, 13 << 10 | 1)]))
CORE = table(16, (1, [(8, 9, 5, 0), (16, 9, 5, 6), (24, 9, 5, 99)]))


def test_records_come_by_section() -> None:
    assert parse(section(FUNCTIONS, LINES, CORE), string) == BtfExt(
        {"xdp": [FuncRecord(0, 5)], ".text": [FuncRecord(0, 6), FuncRecord(2, 7)]},
        {
            "xdp": [
                LineRecord(0, "a.c", "return x;", 12, 7),
                LineRecord(1, "a.c", "return x;", 13, 1),
            ]
        },
        {
            "xdp": [
                CoreRecord(1, 9, "0:1", "byte_off"),
                CoreRecord(2, 9, "0:1", "local_type_id"),
                CoreRecord(3, 9, "0:1", "99"),
            ]
        },
    )


def test_a_short_header_and_longer_records() -> None:
    longer = table(12, (1, [(0, 5)]), pad=4)
    assert parse(section(longer, LINES, header=24), string).functions == {"xdp": [FuncRecord(0, 5)]}


def test_a_second_table_of_a_section_is_passed_over() -> None:
    twice = table(8, (1, [(0, 5)]), (1, [(0, 6)]))
    assert parse(section(twice, LINES), string).functions == {"xdp": [FuncRecord(0, 5)]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes are less than a header"),
        (b"\0" * 40, "unknown magic, version or flags"),
        (section(FUNCTIONS, LINES)[:32], "header length 32 does not fit in 32 bytes"),
        (section(FUNCTIONS, LINES)[:-1], "a table lies outside"),
        (section(table(4, (1, [(0,)])), LINES), "records of 4 bytes"),
        (section(table(10, (1, [(0, 5)]), pad=2), LINES), "records of 10 bytes"),
        (section(table(8), LINES), "a table without records"),
        (section(table(8, (1, [])), LINES), "0 records do not fit"),
        (section(table(8, (1, [(0, 5)])) + b"\1\0\0\0", LINES), "a table is cut short"),
        (
            section(FUNCTIONS[:8] + struct.pack("<I", 1 << 31) + FUNCTIONS[12:], LINES),
            "2147483648 records do not fit",
        ),
        (section(table(8, (77, [(0, 5)])), LINES), "string offset 77"),
    ],
)
def test_damaged_sections(data: bytes, message: str) -> None:
    with pytest.raises(BtfError) as caught:
        parse(data, string)
    assert message in str(caught.value)


@given(st.data())
def test_any_change_of_bytes_is_records_or_an_error(data: st.DataObject) -> None:
    changed = bytearray(section(FUNCTIONS, LINES, CORE))
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse(bytes(changed), string)
    except BtfError:
        return
