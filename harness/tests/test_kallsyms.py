"""The kernel's symbols, out of tables made here as scripts/kallsyms.c makes them."""

from __future__ import annotations

import pickle
import struct

import pytest

from harness.kallsyms import Symbols

TOKENS = [bytes([n]) if n else b"vfs_" for n in range(256)]
TOKENS[200] = b"bpf_"
TOKENS[201] = b"read"


def tables(names: list[str], *, order: list[int] | None = None) -> bytes:
    """Return the tables of *names*, each of the type T, in the order of their addresses."""
    entries = []
    for name in names:
        packed = (b"T" + name.encode()).replace(b"vfs_", b"\0").replace(b"bpf_", b"\xc8")
        packed = packed.replace(b"read", b"\xc9")
        size = len(packed)
        head = bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])
        entries.append(head + packed)
    markers = [sum(map(len, entries[:at])) for at in range(0, len(names), 256)]

    def padded(data: bytes) -> bytes:
        return data + bytes(-len(data) % 8)

    places = sorted(range(len(names)), key=lambda at: names[at]) if order is None else order
    return b"".join(map(padded, (
        bytes(range(1, 64)) * 9,
        struct.pack("<I", len(names)),
        b"".join(entries),
        struct.pack(f"<{len(markers)}I", *markers),
        b"".join(token + b"\0" for token in TOKENS),
        bytes(512),
        bytes(4 * len(names)),
        b"".join(at.to_bytes(3, "big") for at in places),
        bytes(64),
    )))  # fmt: skip


NAMES = ["vfs_read", "bpf_read", "do_" + "x" * 150, "_text", *(f"f{n}" for n in range(600))]


def test_symbols_are_found_by_name() -> None:
    symbols = Symbols(tables(NAMES))
    assert all(symbols.has(name) for name in NAMES)
    for name in ("vfs_write", "vfs_rea", "vfs_reads", "", "zzz", "f600", "do_x"):
        assert symbols.has(name) is False
    assert pickle.loads(pickle.dumps(symbols)).has("vfs_read")


@pytest.mark.parametrize("data", [b"", bytes(4096), tables(NAMES)[:9000], tables(NAMES)[4000:]])
def test_other_data_tells_nothing(data: bytes) -> None:
    assert Symbols(data).has("vfs_read") is None


def test_an_order_that_is_none_is_not_believed() -> None:
    assert Symbols(tables(NAMES, order=list(range(len(NAMES))))).has("vfs_read") is None
