"""Signatures out of BTF: what is under test, and why the rest is not."""

from __future__ import annotations

import pytest

from harness.btf import (
    EXTERN,
    GLOBAL,
    Array,
    Btf,
    BtfType,
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
    Struct,
    Typedef,
    Void,
)
from harness.source.signature import (
    Aggregate,
    ArrayOf,
    Pointer,
    Scalar,
    Signature,
    functions_under_test,
)

INT, CHAR, LONG, BOOL = 1, 2, 3, 4
BASE: tuple[BtfType, ...] = (
    Void(),
    Int("int", 4, 1, 0, 32),
    Int("unsigned char", 1, 0, 0, 8),
    Int("long", 8, 1, 0, 64),
    Int("_Bool", 1, 4, 0, 8),
)


def one(last: int, *types: BtfType, returns: int = INT, tags: tuple[str, ...] = ()) -> Btf:
    """A function f of five ints and one parameter of type *last*; *types* begin at id 5."""
    kinds = [*BASE, *types]
    params = tuple(Param(f"p{i}", INT) for i in range(5))
    kinds.append(FuncProto(returns, (*params, Param("x", last))))
    kinds.append(Func("f", len(kinds) - 1, GLOBAL))
    function = len(kinds) - 1
    kinds.extend(DeclTag(tag, function, 5) for tag in tags)
    return Btf(tuple(kinds))


def signature(btf: Btf) -> Signature:
    found = functions_under_test(btf)
    assert not found.unsupported
    return found.signatures[0]


def last(btf: Btf) -> object:
    return signature(btf).parameters[-1].type


def why(btf: Btf) -> str:
    found = functions_under_test(btf)
    assert not found.signatures
    (unsupported,) = found.unsupported
    assert unsupported.function == "f"
    return unsupported.why


@pytest.mark.parametrize(
    ("last_type", "expected"),
    [
        (INT, Scalar("signed int", 4, signed=True)),
        (CHAR, Scalar("unsigned char", 1)),
        (LONG, Scalar("signed long long", 8, signed=True)),
        (BOOL, Scalar("_Bool", 1, bool=True)),
    ],
)
def test_integers_of_every_width(last_type: int, expected: Scalar) -> None:
    assert last(one(last_type)) == expected


def test_an_enum_is_an_integer_with_its_values() -> None:
    enum = Enum("e", 4, (Enumerator("A", -1), Enumerator("B", 7)), signed=True)
    assert last(one(5, enum)) == Scalar("signed int", 4, signed=True, values=(-1, 7))


def test_an_unsigned_enum_folds_its_values() -> None:
    enum = Enum("e", 4, (Enumerator("A", -1),))
    assert last(one(5, enum)) == Scalar("unsigned int", 4, values=(0xFFFFFFFF,))


def test_pointers_give_one_object_and_bytes_give_a_buffer() -> None:
    assert last(one(5, Ptr(INT))) == Pointer(Scalar("signed int", 4, signed=True))
    byte = Scalar("unsigned char", 1)
    assert last(one(5, Ptr(CHAR))) == Pointer(ArrayOf(byte, 16, 16))
    assert last(one(5, Ptr(0))) == Pointer(ArrayOf(byte, 16, 16))
    assert last(one(5, Ptr(BOOL))) == Pointer(Scalar("_Bool", 1, bool=True))


def test_a_pointer_to_an_array_gives_all_of_it() -> None:
    expected = ArrayOf(Scalar("signed int", 4, signed=True), 3, 12)
    assert last(one(6, Array(INT, INT, 3), Ptr(5))) == Pointer(expected)


def test_const_is_remembered() -> None:
    assert last(one(6, Modifier("const", INT), Ptr(5))) == Pointer(
        Scalar("signed int", 4, signed=True), const=True
    )


def test_a_tag_says_how_many_elements_there_are() -> None:
    expected = ArrayOf(Scalar("signed int", 4, signed=True), 8, 32)
    assert last(one(5, Ptr(INT), tags=("elements:8",))) == Pointer(expected)
    assert last(one(5, Ptr(INT), tags=("other",))) != Pointer(expected)


def test_structs_are_named_by_tag_or_typedef() -> None:
    members = (Member("a", INT, 0), Member("b", CHAR, 32))
    tagged = last(one(5, Struct("pair", 8, members)))
    assert isinstance(tagged, Aggregate)
    assert tagged.name == "struct pair"
    assert [(f.name, f.bit, f.bits) for f in tagged.fields] == [("a", 0, 32), ("b", 32, 8)]
    unnamed = Struct("", 8, members)
    named = last(one(6, unnamed, Typedef("pair_t", 5)))
    assert isinstance(named, Aggregate)
    assert named.name == "pair_t"
    const = last(one(7, unnamed, Modifier("const", 5), Typedef("pair_t", 6)))
    assert isinstance(const, Aggregate)
    assert const.name == "__typeof_unqual__(pair_t)"


@pytest.mark.parametrize(
    ("btf", "reason"),
    [
        (one(5, Float("double", 8)), "argument 6 (x): a floating-point number (double)"),
        (one(6, FuncProto(INT, ()), Ptr(5)), "argument 6 (x): a pointer to a function"),
        (
            one(7, Ptr(INT), Struct("s", 8, (Member("p", 5, 0),)), Ptr(6)),
            "argument 6 (x): a pointer inside an object (p)",
        ),
        (
            one(6, Fwd("op"), Ptr(5)),
            "argument 6 (x): a pointer to an incomplete type (struct op)",
        ),
        (
            one(5, Struct("s", 24, (Member("a", LONG, 0),))),
            "argument 6 (x): 24 bytes by value, at most 16 are passed",
        ),
        (
            one(5, Struct("", 4, (Member("a", INT, 0),))),
            "argument 6 (x): an unnamed struct or union, which a driver cannot name",
        ),
        (one(5, Struct("s", 0, ())), "argument 6 (x): an empty struct by value"),
        (one(5, Array(INT, INT, 4)), "argument 6 (x): a vector by value"),
        (
            one(0),
            "argument 6 (x): a type BTF does not describe, or a variable argument list",
        ),
        (
            one(6, Array(INT, INT, 5000), Ptr(5)),
            "argument 6 (x): an array that does not fit a context",
        ),
        (
            one(INT, FuncProto(INT, ()), Ptr(5), returns=6),
            "result: a pointer to a function",
        ),
        (one(INT, Float("float", 4), returns=5), "result: a floating-point number (float)"),
        (one(5, Int("odd", 4, 0, 0, 7)), "argument 6 (x): an integer of 7 bits in 4 bytes (odd)"),
    ],
)
def test_what_is_not_supported_says_why(btf: Btf, reason: str) -> None:
    assert why(btf) == reason


def test_five_slots_are_not_under_test_unless_asked_for() -> None:
    kinds = (*BASE, FuncProto(INT, (Param("a", INT),) * 5), Func("g", 5, GLOBAL))
    assert functions_under_test(Btf(kinds)).signatures == ()
    everything = functions_under_test(Btf(kinds), everything=True)
    assert [s.name for s in everything.signatures] == ["g"]


def test_wide_arguments_take_two_slots() -> None:
    wide = Struct("w", 16, (Member("a", LONG, 0), Member("b", LONG, 64)))
    kinds = (*BASE, wide, FuncProto(0, (Param("a", 5),) * 3), Func("g", 6, GLOBAL))
    (found,) = functions_under_test(Btf(kinds)).signatures
    assert found.slots == 6
    assert found.result is None


def test_thirteen_slots_are_too_many() -> None:
    kinds = (*BASE, FuncProto(INT, (Param("a", INT),) * 13), Func("g", 5, GLOBAL))
    (unsupported,) = functions_under_test(Btf(kinds)).unsupported
    assert unsupported.why == "13 argument slots, at most 12 exist"


def test_declared_functions_are_externs() -> None:
    kinds = (*BASE, FuncProto(INT, (Param("", INT),) * 6), Func("g", 5, EXTERN))
    found = functions_under_test(Btf(kinds))
    assert found.externs == ("g",)
    assert not found.signatures
    assert not found.unsupported


def test_only_the_functions_asked_for() -> None:
    assert functions_under_test(one(INT), among=()).signatures == ()
    assert len(functions_under_test(one(INT), among={"f"}).signatures) == 1


def test_a_signature_reads_as_c() -> None:
    btf = one(6, Modifier("const", INT), Ptr(5))
    assert str(signature(btf)) == "f(int p0, int p1, int p2, int p3, int p4, const int *x)"
