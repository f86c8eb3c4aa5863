"""Trees as one short line of text, for cases that mutation may start from."""

from __future__ import annotations

import base64
import binascii
import json
import zlib

from harness.corpus import Case
from harness.source import tree
from harness.source.produce import Stream
from harness.source.scope import problems
from harness.source.tree import Tree

LIMIT = 1 << 20  # bytes of JSON that a packed tree may have


def pack(one: Tree) -> str:
    """Return *one* as a line of text."""
    data = json.dumps(tree.to_json(one), separators=(",", ":")).encode()
    return base64.b85encode(zlib.compress(data, 9)).decode()


def unpack(text: str) -> Tree:
    """Return the tree that ``pack`` wrote; raises ValueError for what is none."""
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b85decode(text), LIMIT)
        found = tree.from_json(json.loads(data))
    except (binascii.Error, zlib.error, ValueError, RecursionError) as error:
        raise ValueError(f"no packed tree: {error}") from None
    if not isinstance(found, Tree) or problems(found):
        raise ValueError("no packed tree")
    return found


def tree_of(case: Case) -> Tree | None:
    """Return the tree of a grown case, None where it has none that can be read."""
    if case.source is None or not case.source.tree:
        return None
    try:
        return unpack(case.source.tree)
    except ValueError:
        return None


def stream_of(case: Case) -> Stream | None:
    """Return the BPF text of a case with what it is run on, None for C."""
    if case.program is None:
        return None
    return Stream(case.program, tuple(run.ctx for run in case.runs))
