"""The kernel's refusals, word for word.

Every row was loaded into Linux 6.18 (BPF_BTF_LOAD), whose log this is; the checks it
meets read the same in Linux 7.3.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.btf import (
    Array,
    Btf,
    BtfType,
    DataSec,
    DeclTag,
    Enum,
    Enumerator,
    Float,
    Func,
    FuncProto,
    Fwd,
    Int,
    Member,
    Modifier,
    Param,
    Ptr,
    SecInfo,
    Struct,
    Typedef,
    Var,
    Void,
)
from harness.btf_check import validate

INT32 = Int("int", 4, 1, 0, 32)

ROWS: tuple[tuple[tuple[BtfType, ...], str | None], ...] = (
    ((Int("", 4, 0, 0, 32),), None),
    (
        (Int("i", 4, 0, 0, 33),),
        "[1] INT i size=4 bits_offset=0 nr_bits=33 encoding=(none) nr_bits exceeds type_size",
    ),
    (
        (Int("i", 16, 0, 8, 128),),
        "[1] INT i size=16 bits_offset=8 nr_bits=128 encoding=(none) nr_bits exceeds 128",
    ),
    (
        (Int("i", 4, 3, 0, 32),),
        "[1] INT i size=4 bits_offset=0 nr_bits=32 encoding=UNKN Unsupported encoding",
    ),
    ((Int("i", 4, 16, 0, 32),), "[1] INT i Invalid int_data:10000020"),
    ((INT32, Ptr(9)), "[2] PTR (anon) type_id=9 Invalid type_id"),
    ((INT32, Ptr(1, "p")), "[2] PTR p type_id=1 Invalid name"),
    ((INT32, Ptr(0)), None),
    ((INT32, Typedef("", 1)), "[2] TYPEDEF (anon) type_id=1 Invalid name"),
    ((INT32, Typedef("a-b", 1)), "[2] TYPEDEF a-b type_id=1 Invalid name"),
    ((INT32, Typedef("1a", 1)), "[2] TYPEDEF 1a type_id=1 Invalid name"),
    ((INT32, Typedef("a.b", 1)), None),
    ((INT32, Modifier("const", 1, "c")), "[2] CONST c type_id=1 Invalid name"),
    ((INT32, Modifier("type_tag", 1, "")), "[2] TYPE_TAG (anon) type_id=1 Invalid name"),
    ((INT32, Modifier("type_tag", 1, "user data")), None),
    ((INT32, Array(0, 1, 3)), "[2] ARRAY (anon) type_id=0 index_type_id=1 nr_elems=3 Invalid elem"),
    (
        (INT32, Array(1, 0, 3)),
        "[2] ARRAY (anon) type_id=1 index_type_id=0 nr_elems=3 Invalid index",
    ),
    ((INT32, Array(1, 1, 3, "a")), "[2] ARRAY a type_id=1 index_type_id=1 nr_elems=3 Invalid name"),
    (
        (INT32, Ptr(1), Array(1, 2, 3)),
        "[3] ARRAY (anon) type_id=1 index_type_id=2 nr_elems=3 Invalid index",
    ),
    (
        (INT32, Fwd("f"), Array(2, 1, 3)),
        "[3] ARRAY (anon) type_id=2 index_type_id=1 nr_elems=3 Invalid elem",
    ),
    (
        (INT32, Array(1, 1, 0x40000000)),
        "[2] ARRAY (anon) type_id=1 index_type_i"
        "d=1 nr_elems=1073741824 Array size overflows U32_MAX",
    ),
    (
        (INT32, Int("i", 4, 0, 0, 31), Array(2, 1, 3)),
        "[3] ARRAY (anon) type_id=2 index_type_id=1 nr_elems=3 Invalid array of int",
    ),
    ((INT32, Fwd("")), "[2] FWD (anon) struct Invalid name"),
    ((INT32, Fwd("u", True)), None),
    ((INT32, Struct("s", 8, (Member("a", 1, 0), Member("b", 1, 32)))), None),
    (
        (INT32, Struct("s", 4, (Member("a", 1, 0), Member("b", 1, 32)))),
        "[2] STRUCT s size=4 vlen=2\n\tb type_id=1 bits_offset=32 Member exceeds struct_size",
    ),
    (
        (INT32, Struct("s", 4, (Member("a", 1, 0), Member("b", 1, 8)))),
        "[2] STRUCT s size=4 vlen=2\n\tb type_id=1 bits_offset=8 Member exceeds struct_size",
    ),
    (
        (INT32, Struct("s", 8, (Member("a", 1, 32), Member("b", 1, 0)))),
        "\tb type_id=1 bits_offset=0 Invalid member bits_offset",
    ),
    (
        (INT32, Struct("s", 8, (Member("a", 1, 65),))),
        "\ta type_id=1 bits_offset=65 Member bits_offset exceeds its struct size",
    ),
    (
        (INT32, Struct("u", 4, (Member("a", 1, 0), Member("b", 1, 32)), union=True)),
        "\tb type_id=1 bits_offset=32 Invalid member bits_offset",
    ),
    ((INT32, Struct("s", 4, (Member("a", 0, 0),))), "\ta type_id=0 bits_offset=0 Invalid type_id"),
    ((INT32, Struct("s", 4, (Member("a b", 1, 0),))), "\ta b type_id=1 bits_offset=0 Invalid name"),
    ((INT32, Struct("s!", 4, ())), "[2] STRUCT s! size=4 vlen=0 Invalid name"),
    ((INT32, Struct("s", 4, (Member("a", 1, 0, 3), Member("b", 1, 3, 29)), kind_flag=True)), None),
    (
        (INT32, Struct("s", 4, (Member("a", 1, 0, 33),), kind_flag=True)),
        "[2] STRUCT s size=4 vlen=1\n"
        "\ta type_id=1 bitfield_size=33 bits_offset=0 Invalid member bitfield_size",
    ),
    (
        (INT32, Struct("s", 4, (Member("a", 1, 0, 3), Member("b", 1, 3)), kind_flag=True)),
        "[2] STRUCT s size=4 vlen=2\n"
        "\tb type_id=1 bitfield_size=0 bits_offset=3 Invalid member offset",
    ),
    (
        (INT32, Struct("s", 4, (Member("", 1, 3, 30),), kind_flag=True)),
        "[2] STRUCT s size=4 vlen=1\n"
        "\t(anon) type_id=1 bitfield_size=30 bits_offset=3 Member exceeds struct_size",
    ),
    (
        (INT32, Ptr(1), Struct("s", 8, (Member("p", 2, 0, 3),), kind_flag=True)),
        "[3] STRUCT s size=8 vlen=1\n"
        "\tp type_id=2 bitfield_size=3 bits_offset=0 Invalid member bitfield_size",
    ),
    (
        (INT32, Ptr(1), Struct("s", 8, (Member("p", 2, 4),))),
        "[3] STRUCT s size=8 vlen=1\n\tp type_id=2 bits_offset=4 Member is not byte aligned",
    ),
    (
        (INT32, Ptr(1), Struct("s", 8, (Member("p", 2, 32),))),
        "[3] STRUCT s size=8 vlen=1\n\tp type_id=2 bits_offset=32 Member exceeds struct_size",
    ),
    (
        (INT32, Modifier("const", 1), Struct("s", 4, (Member("c", 2, 8),))),
        "[3] STRUCT s size=4 vlen=1\n\tc type_id=1 bits_offset=8 Member exceeds struct_size",
    ),
    ((INT32, Struct("s", 4, (Member("s", 2, 0),))), "[2] STRUCT s size=4 vlen=1 Loop detected"),
    ((INT32, Ptr(3), Struct("s", 8, (Member("next", 2, 0),))), None),
    (
        (INT32, Func("f", 3), FuncProto(0, ()), Struct("s", 4, (Member("f", 2, 0),))),
        "[4] STRUCT s size=4 vlen=1\n\tf type_id=2 bits_offset=0 Invalid member",
    ),
    (
        (INT32, Array(1, 1, 2), Struct("s", 4, (Member("a", 2, 0),))),
        "[3] STRUCT s size=4 vlen=1\n\ta type_id=2 bits_offset=0 Member exceeds struct_size",
    ),
    ((Enum("e", 4, (Enumerator("A", 1),)),), None),
    ((Enum("e", 3, (Enumerator("A", 1),)),), "[1] ENUM e size=3 vlen=1 Unexpected size"),
    ((Enum("e", 4, (Enumerator("", 1),)),), "[1] ENUM e size=4 vlen=1 Invalid name"),
    ((Enum("e", 8, (Enumerator("A", 1 << 40),), wide=True),), None),
    (
        (Enum("e", 8, (Enumerator("A-B", 1),), wide=True),),
        "[1] ENUM64 e size=8 vlen=1 Invalid name",
    ),
    (
        (Enum("e", 4, ()), Struct("s", 4, (Member("e", 1, 0, 33),), kind_flag=True)),
        "[2] STRUCT s size=4 vlen=1\n"
        "\te type_id=1 bitfield_size=33 bits_offset=0 Invalid member bitfield_size",
    ),
    (
        (Enum("e", 4, ()), Struct("s", 4, (Member("e", 1, 4),))),
        "[2] STRUCT s size=4 vlen=1\n\te type_id=1 bits_offset=4 Member is not byte aligned",
    ),
    ((Float("double", 8),), None),
    ((Float("f", 5),), "[1] FLOAT f size=5 Invalid type_size"),
    (
        (Float("double", 8), Struct("s", 12, (Member("d", 1, 32),))),
        "[2] STRUCT s size=12 vlen=1\n\td type_id=1 bits_offset=32 Member is not properly aligned",
    ),
    ((INT32, FuncProto(1, (Param("a", 1),)), Func("f", 2)), None),
    (
        (INT32, FuncProto(1, (Param("a", 1), Param("", 1))), Func("sum", 2)),
        "[3] FUNC sum type_id=2 Invalid arg#2",
    ),
    (
        (INT32, FuncProto(1, (Param("", 1), Param("", 0))), Func("f", 2, 1)),
        "[3] FUNC f type_id=2 Invalid arg#1",
    ),
    ((INT32, FuncProto(1, (Param("", 1),))), None),
    (
        (INT32, FuncProto(1, (Param("a", 1), Param("rest", 0)))),
        "[2] FUNC_PROTO (anon) return=1 args=(1 a, vararg) Invalid arg#2",
    ),
    ((INT32, FuncProto(1, (Param("a", 1), Param("", 0)))), None),
    (
        (INT32, FuncProto(1, (Param("", 0),), "named")),
        "[2] FUNC_PROTO named return=1 args=(vararg) Invalid name",
    ),
    (
        (INT32, FuncProto(1, (Param("a", 0), Param("b", 1)))),
        "[2] FUNC_PROTO (anon) return=1 args=(0 a, 1 b) Invalid arg#1",
    ),
    (
        (INT32, FuncProto(1, (Param("a b", 1),))),
        "[2] FUNC_PROTO (anon) return=1 args=(1 a b) Invalid arg#1",
    ),
    (
        (INT32, Fwd("f"), FuncProto(2, ())),
        "[3] FUNC_PROTO (anon) return=2 args=(void) Invalid return type",
    ),
    (
        (INT32, Fwd("f"), FuncProto(0, (Param("a", 2),))),
        "[3] FUNC_PROTO (anon) return=0 args=(2 a) Invalid arg#1",
    ),
    (
        (INT32, Var("v", 1), FuncProto(2, ())),
        "[3] FUNC_PROTO (anon) return=2 args=(void) Invalid return type",
    ),
    ((INT32, Func("f", 1)), "[2] FUNC f type_id=1 Invalid type_id"),
    ((INT32, FuncProto(0, ()), Func("f", 2, 2)), "[3] FUNC f type_id=2 Invalid func linkage"),
    ((INT32, FuncProto(0, ()), Func("", 2)), "[3] FUNC (anon) type_id=2 Invalid name"),
    ((INT32, Var("v", 1, 1)), None),
    ((INT32, Var("v", 1, 2)), "[2] VAR v type_id=1 linkage=2 Linkage not supported"),
    ((INT32, Var("v", 0)), "[2] VAR v type_id=0 linkage=0 Invalid type_id"),
    ((INT32, Fwd("f"), Var("v", 2)), "[3] VAR v type_id=2 linkage=0 Invalid type_id"),
    ((INT32, Var("v", 1), Ptr(2)), "[3] PTR (anon) type_id=2 Invalid type_id"),
    ((INT32, Var("v", 1), DataSec(".data", 4, (SecInfo(2, 0, 4),))), None),
    (
        (INT32, Var("v", 1), DataSec(".data", 0, (SecInfo(2, 0, 4),))),
        "[3] DATASEC .data size=0 vlen=1 size == 0",
    ),
    (
        (INT32, Var("v", 1), DataSec(".data", 4, (SecInfo(2, 0, 2),))),
        "[3] DATASEC .data size=4 vlen=1\n\t type_id=2 offset=0 size=2 Invalid size",
    ),
    (
        (INT32, Var("v", 1), DataSec(".data", 4, (SecInfo(2, 4, 4),))),
        "\t type_id=2 offset=4 size=4 Invalid offset",
    ),
    (
        (INT32, Var("v", 1), DataSec(".data", 8, (SecInfo(2, 6, 4),))),
        "\t type_id=2 offset=6 size=4 Invalid offset+size",
    ),
    (
        (INT32, Var("v", 1), DataSec(".data", 8, (SecInfo(2, 0, 4), SecInfo(2, 2, 4)))),
        "\t type_id=2 offset=2 size=4 Invalid offset",
    ),
    (
        (INT32, Var("v", 1), DataSec(".data", 8, (SecInfo(1, 0, 4),))),
        "[3] DATASEC .data size=8 vlen=1\n\t type_id=1 offset=0 size=4 Not a VAR kind member",
    ),
    (
        (INT32, Var("v", 1), DataSec("a\x01", 8, (SecInfo(2, 0, 4),))),
        "[3] DATASEC a\x01 size=8 vlen=1 Invalid name",
    ),
    ((INT32, Var("v", 1), DataSec("?.struct_ops", 8, (SecInfo(2, 0, 4),))), None),
    ((INT32, Struct("s", 4, (Member("a", 1, 0),)), DeclTag("t", 2, 0)), None),
    (
        (INT32, Struct("s", 4, (Member("a", 1, 0),)), DeclTag("t", 2, 1)),
        "[3] DECL_TAG t type=2 component_idx=1 Invalid component_idx",
    ),
    (
        (INT32, Typedef("t", 1), DeclTag("t", 2, 0)),
        "[3] DECL_TAG t type=2 component_idx=0 Invalid component_idx",
    ),
    ((INT32, DeclTag("t", 1, -1)), "[2] DECL_TAG t type=1 component_idx=-1 Invalid type_id"),
    (
        (INT32, Typedef("t", 1), DeclTag("", 2, -1)),
        "[3] DECL_TAG (anon) type=2 component_idx=-1 Invalid value",
    ),
    (
        (INT32, Typedef("t", 1), DeclTag("t", 2, -2)),
        "[3] DECL_TAG t type=2 component_idx=-2 Invalid component_idx",
    ),
    (
        (INT32, FuncProto(0, (Param("a", 1),)), Func("f", 2), DeclTag("t", 3, 1)),
        "[4] DECL_TAG t type=3 component_idx=1 Invalid component_idx",
    ),
    ((Typedef("a", 2), Typedef("b", 1)), "[1] TYPEDEF a type_id=2 Loop detected"),
    ((Ptr(2), Ptr(1)), "[1] PTR (anon) type_id=2 Loop detected"),
    ((Modifier("const", 1),), "[1] CONST (anon) type_id=1 Loop detected"),
    (
        (INT32, Array(2, 1, 3)),
        "[2] ARRAY (anon) type_id=2 index_type_id=1 nr_elems=3 Loop detected",
    ),
    (
        (INT32, *(Modifier("const", n + 1) for n in range(1, 40))),
        "[2] CONST (anon) type_id=2 Loop detected",
    ),
    ((INT32, *(Modifier("const", n) for n in range(1, 40))), None),
    (
        (*(Ptr(n + 1) for n in range(1, 40)), INT32),
        "[1] PTR (anon) type_id=2 Exceeded max resolving depth:32",
    ),
)


@pytest.mark.parametrize(("types", "log"), ROWS)
def test_the_kernel_says(types: tuple[BtfType, ...], log: str | None) -> None:
    assert validate(Btf((Void(), *types))) == log


def test_stray_bits_of_a_type_are_refused() -> None:
    types = (Void(), INT32, Ptr(1), Fwd("f"), Array(1, 1, 2))
    flag = 1 << 31
    for type_id, info, word, log in (
        (1, 1, 0, "[1] INT int size=4 bits_offset=0 nr_bits=32 encoding=SIGNED vlen != 0"),
        (2, 0, 0, None),
        (2, flag, 0, "[2] PTR (anon) type_id=1 Invalid btf_info kind_flag"),
        (3, 0, 7, "[3] FWD f struct type != 0"),
        (4, 0, 8, "[4] ARRAY (anon) type_id=1 index_type_id=1 nr_elems=2 size != 0"),
    ):
        assert validate(Btf(types, ((type_id, info, word),))) == log


def test_no_types_and_types_that_do_not_exist() -> None:
    assert validate(Btf((Void(),))) == "No type found"
    assert validate(Btf((Void(), Ptr(7)))) == "[1] PTR (anon) type_id=7 Invalid type_id"
    assert validate(Btf((Void(), INT32, Void()))) == "[2] Invalid kind:0"


IDS = st.integers(0, 12)
NAMES = st.sampled_from(["", "a", "b", "a b"])
MEMBERS = st.lists(
    st.builds(Member, NAMES, IDS, st.integers(0, 64), st.sampled_from([0, 0, 3])), max_size=3
).map(tuple)
TYPES = st.one_of(
    st.just(INT32),
    st.builds(Ptr, IDS),
    st.builds(Typedef, NAMES, IDS),
    st.builds(Modifier, st.sampled_from(["const", "volatile", "type_tag"]), IDS, NAMES),
    st.builds(Array, IDS, IDS, st.integers(0, 1 << 31)),
    st.builds(Struct, NAMES, st.integers(0, 64), MEMBERS, st.booleans(), st.booleans()),
    st.builds(Func, NAMES, IDS, st.integers(0, 2)),
    st.builds(FuncProto, IDS, st.lists(st.builds(Param, NAMES, IDS), max_size=3).map(tuple)),
    st.builds(Var, NAMES, IDS, st.integers(0, 2)),
    st.builds(
        DataSec,
        NAMES,
        st.integers(0, 16),
        st.lists(st.builds(SecInfo, IDS, st.integers(0, 8), st.integers(0, 8)), max_size=2).map(
            tuple
        ),
    ),
    st.builds(DeclTag, NAMES, IDS, st.integers(-2, 3)),
)


@given(st.lists(TYPES, max_size=12))
def test_any_types_get_a_verdict(types: list[BtfType]) -> None:
    btf = Btf((Void(), *types))
    log = validate(btf)
    if log is None:  # then following any type ends
        for type_id in range(len(btf)):
            btf.size_of(type_id)
            btf.align_of(type_id)
            assert "(too deep)" not in btf.c_name(type_id)
