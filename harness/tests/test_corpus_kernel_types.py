"""The kernel's types that cases name."""

from __future__ import annotations

from harness.btf import (
    BtfType,
    DeclTag,
    Func,
    FuncProto,
    Fwd,
    Int,
    Member,
    Param,
    Ptr,
    Struct,
    Typedef,
    Var,
    Void,
    encode,
    references,
    renumbered,
)
from harness.corpus import kernel_types
from harness.corpus.kernel_types import FUNCTIONS, STRUCTS, TYPEDEFS, VARIABLES, extract
from harness.verifier.kfunc_table import SETS


def test_all_that_is_named_is_there() -> None:
    types = kernel_types()
    for names, kind in (
        (FUNCTIONS, Func), (STRUCTS, Struct), (TYPEDEFS, Typedef), (VARIABLES, Var),
    ):  # fmt: skip
        assert [name for name in names if types.find(name, kind) is None] == []


def test_no_type_names_one_that_is_missing() -> None:
    types = kernel_types()
    for kind in types.types:
        assert all(0 <= number < len(types) for number in references(kind))


def test_taking_the_same_out_again_changes_nothing() -> None:
    types = kernel_types()
    assert encode(extract(types)) == types.data


def test_what_is_only_pointed_to_is_a_declaration() -> None:
    types = kernel_types()
    assert types.find("nsproxy", Struct) is None
    assert types.find("nsproxy", Fwd) is not None
    assert types.find("task_struct", Fwd) is None


def test_kernel_functions_are_tagged_and_in_the_table() -> None:
    types = kernel_types()
    known = {name for found in SETS for name in found.flags}
    tagged = {
        name
        for name in FUNCTIONS
        if any(tag.name == "bpf_kfunc" for tag in types.tags(types.find(name, Func) or 0))
    }
    assert tagged
    assert {name.removesuffix("_impl") for name in tagged} <= known


def test_numbers_without_gaps() -> None:
    types: dict[int, BtfType] = {
        0: Void(), 3: Int("int", 4, 1, 0, 32), 7: Struct("s", 8, (Member("p", 9, 0),)), 9: Ptr(7),
        12: FuncProto(3, (Param("p", 9),)), 20: Func("f", 12),
    }  # fmt: skip
    found = renumbered(types, [DeclTag("bpf_kfunc", 20, -1)])
    assert found.types == (
        Void(), Int("int", 4, 1, 0, 32), Struct("s", 8, (Member("p", 3, 0),)), Ptr(2),
        FuncProto(1, (Param("p", 3),)), Func("f", 4), DeclTag("bpf_kfunc", 5, -1),
    )  # fmt: skip
