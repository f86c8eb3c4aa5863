"""What native helpers keep for each vector beside its context: a number, and ring buffers.

``struct crosscheck_side`` and ``crosscheck_record`` of ``source/include/crosscheck/helpers.c``.
"""

from __future__ import annotations

import struct
import zlib

from harness import interp
from harness.model import Vector

SIZE = 16376  # bytes: the head, and records
HEAD = struct.Struct("<2I")  # random, bytes of records
RECORD = struct.Struct("<4I")  # map, size, state, space


def head(vector: Vector) -> bytes:
    """Return the head of *vector*'s side before it runs."""
    return HEAD.pack(zlib.crc32(vector), 0)


def effects(side: bytes | memoryview) -> bytes:
    """Return the submitted records, each behind its map and size, as the interpreter does."""
    _, used = HEAD.unpack_from(side)
    at, end, found = HEAD.size, HEAD.size + min(used, SIZE - HEAD.size), b""
    while at + RECORD.size <= end:
        name, size, state, space = RECORD.unpack_from(side, at)
        at += RECORD.size
        if state:
            found += interp.RECORD.pack(name, size) + side[at : at + size]
        at += space
    return found
