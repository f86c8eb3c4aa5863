from __future__ import annotations

import pickle

import pytest

from harness.btf import (
    Array,
    Btf,
    BtfError,
    DeclTag,
    Enum,
    Enumerator,
    Func,
    FuncProto,
    Fwd,
    Int,
    Member,
    Modifier,
    Param,
    Ptr,
    Struct,
    Typedef,
    Void,
    encode,
    parse,
)
from harness.btf_lazy import parse_lazily

TYPES = (
    Void(),
    Int("int", 4, 1, 0, 32),
    Ptr(4),
    Array(1, 1, 3),
    Struct("task", 16, (Member("next", 2, 0), Member("a", 3, 64)), False, False),
    Enum("e", 4, (Enumerator("A", 1),)),
    Fwd("task"),
    Typedef("task", 4),
    Modifier("const", 4),
    FuncProto(1, (Param("t", 2),)),
    Func("task", 9),
    DeclTag("bpf_kfunc", 10, -1),
    DeclTag("second", 10, 0),
)
BTF = Btf(TYPES)


def test_the_same_types_as_when_all_are_read() -> None:
    lazy = parse_lazily(encode(BTF))
    assert len(lazy) == len(TYPES)
    assert tuple(lazy.types) == TYPES == parse(encode(BTF)).types
    assert [lazy[number] for number in reversed(range(len(TYPES)))] == list(reversed(TYPES))
    assert lazy.types[2:4] == TYPES[2:4]
    assert lazy.get(99) == lazy.get(-1) == Void()


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [("task", Struct, 4), ("task", Func, 10), ("task", Typedef, 7), ("task", Enum, None),
     ("int", Int, 1), ("tas", Struct, None), ("ask", Struct, None), ("", Ptr, None)],
)  # fmt: skip
def test_a_type_is_found_by_name_and_kind(name: str, kind: type, expected: int | None) -> None:
    lazy = parse_lazily(encode(BTF))
    assert lazy.find(name, kind) == expected
    if name:
        assert lazy.find(name, kind) == BTF.find(name, kind)


def test_tags_are_found_by_what_they_are_on() -> None:
    lazy = parse_lazily(encode(BTF))
    assert [tag.name for tag in lazy.tags(10)] == ["bpf_kfunc", "second"]
    assert list(lazy.tags(10)) == list(BTF.tags(10))
    assert not lazy.tags(4)


def test_it_can_be_handed_to_another_process() -> None:
    lazy = parse_lazily(encode(BTF))
    assert tuple(pickle.loads(pickle.dumps(lazy)).types) == TYPES


@pytest.mark.parametrize("data", [b"", b"x" * 40, encode(BTF)[:30]])
def test_what_is_no_btf_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(BtfError):
        parse_lazily(data)


def test_types_that_end_in_the_middle_are_refused() -> None:
    data = bytearray(encode(BTF))
    data[24 + 4 + 3] = 0x7E  # the kind of the first type
    with pytest.raises(BtfError, match="unknown kinds"):
        len(parse_lazily(bytes(data)))
