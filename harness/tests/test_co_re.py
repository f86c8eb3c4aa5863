"""CO-RE relocations: the object's types on one side, other ones on the kernel's."""

from __future__ import annotations

import pytest

from harness.btf import (
    Array,
    Btf,
    BtfType,
    Enum,
    Enumerator,
    Fwd,
    Int,
    Member,
    Modifier,
    Ptr,
    Struct,
    Typedef,
    Void,
    encode,
    essential,
)
from harness.btf_lazy import LazyBtf, parse_lazily
from harness.isa.insn import Alu, Call, Insn, Load, LoadImm, StoreImm
from harness.load.btf_ext import CoreRecord
from harness.load.co_re import POISON, Unfit, relocate

INT, UINT, LONG, TASK, PTR, ARRAY, ENUM, FLAVOUR, ANON = range(1, 10)


OLD = Struct("task___old", 8, (Member("pid", INT, 0), Member("gone", INT, 32)))


def types(
    task: Struct, *, values: tuple[Enumerator, ...], anonymous: Struct, old: Struct = OLD
) -> Btf:
    found: tuple[BtfType, ...] = (
        Void(),
        Int("int", 4, 1, 0, 32),
        Int("unsigned int", 4, 0, 0, 32),
        Int("unsigned long", 8, 0, 0, 64),
        task,
        Ptr(TASK),
        Array(INT, INT, 4),
        Enum("e", 4, values),
        old,
        anonymous,
        Typedef("task_t", TASK),
        Modifier("const", TASK),
        Fwd("only_here"),
    )
    return Btf(found)


LOCAL = types(
    Struct(
        "task", 48,
        (Member("pid", INT, 0), Member("next", PTR, 64), Member("a", ARRAY, 128),
         Member("flags", UINT, 256), Member("deep", INT, 320)),
    ),
    values=(Enumerator("A", 1), Enumerator("B", 2)),
    anonymous=Struct("", 8, (Member("x", INT, 0),)),
)  # fmt: skip


def kernel(old: Struct = Struct("other", 0, ())) -> LazyBtf:  # noqa: B008
    return parse_lazily(encode(types(
        Struct(
            "task", 72,
            (Member("new", LONG, 0), Member("next", PTR, 64), Member("pid", INT, 128),
             Member("a", ARRAY, 192), Member("flags", LONG, 320), Member("", ANON, 384)),
        ),
        values=(Enumerator("Z", 0), Enumerator("B", 7), Enumerator("A___v2", 5)),
        anonymous=Struct("", 8, (Member("x", INT, 0), Member("deep", INT, 32))),
        old=old,
    )))  # fmt: skip


def moved(kind: str, access: str, insn: Insn, type_id: int = TASK) -> Insn:
    return relocate(LOCAL, kernel(), CoreRecord(0, type_id, access, kind), insn)


@pytest.mark.parametrize(
    ("kind", "access", "insn", "expected"),
    [
        ("byte_off", "0:0", Load(4, 1, 2, 0), Load(4, 1, 2, 16)),
        ("byte_off", "0:2:3", Load(4, 1, 2, 28), Load(4, 1, 2, 36)),
        ("byte_off", "0:4", StoreImm(4, 1, 40, 9), StoreImm(4, 1, 52, 9)),
        ("byte_off", "0:0", Alu("mov", 64, 1, None, 0), Alu("mov", 64, 1, None, 16)),
        ("byte_off", "0:3", Load(4, 1, 2, 32), Load(8, 1, 2, 40)),  # wider, and unsigned
        ("byte_sz", "0:3", Alu("mov", 64, 1, None, 4), Alu("mov", 64, 1, None, 8)),
        ("signed", "0:0", Alu("mov", 64, 1, None, 1), Alu("mov", 64, 1, None, 1)),
        ("lshift_u64", "0:0", Alu("lsh", 64, 1, None, 32), Alu("lsh", 64, 1, None, 32)),
        ("rshift_u64", "0:3", Alu("rsh", 64, 1, None, 32), Alu("rsh", 64, 1, None, 0)),
        ("field_exists", "0:0", Alu("mov", 32, 1, None, 1), Alu("mov", 32, 1, None, 1)),
        ("type_size", "0", Alu("mov", 64, 1, None, 48), Alu("mov", 64, 1, None, 72)),
        ("target_type_id", "0", LoadImm(1, 0, TASK), LoadImm(1, 0, TASK)),
    ],
)
def test_what_an_instruction_becomes(kind: str, access: str, insn: Insn, expected: Insn) -> None:
    assert moved(kind, access, insn) == expected


def test_an_enumerator_by_its_name_without_a_flavour() -> None:
    insn = Alu("mov", 64, 1, None, 1)
    assert moved("enumval_value", "0", insn, ENUM) == Alu("mov", 64, 1, None, 5)
    assert moved("enumval_exists", "1", insn, ENUM) == insn


def test_what_the_kernel_does_not_have_is_poisoned_or_0() -> None:
    gone = moved("byte_off", "0:1", Load(4, 1, 2, 4), FLAVOUR)
    assert gone == Call("helper", POISON)
    assert moved("byte_off", "0:1", LoadImm(1, 0, 4), FLAVOUR) == Call("helper", POISON)
    insn = Alu("mov", 64, 1, None, 1)
    assert moved("field_exists", "0:1", insn, FLAVOUR) == Alu("mov", 64, 1, None, 0)
    local = Btf((*LOCAL.types, Struct("nowhere", 4, ())))
    record = CoreRecord(0, len(LOCAL), "0", "type_exists")
    assert relocate(local, kernel(), record, insn) == Alu("mov", 64, 1, None, 0)


def test_a_flavour_means_the_type_without_it() -> None:
    assert moved("byte_off", "0:0", Load(4, 1, 2, 0), FLAVOUR) == Load(4, 1, 2, 16)


@pytest.mark.parametrize(
    ("kind", "access", "insn", "why"),
    [
        ("byte_off", "0:0", Load(4, 1, 2, 8), "the instruction holds 8, not 0"),
        ("byte_off", "0:9", Load(4, 1, 2, 8), "leads nowhere"),
        ("byte_off", "0:2:9", Load(4, 1, 2, 8), "leaves an array"),
        ("byte_off", "0:x", Load(4, 1, 2, 8), "is none"),
        ("byte_off", "0:0", Call("helper", 1), "unrecognized instruction"),
        ("77", "0:0", Load(4, 1, 2, 0), "unrecognized CO-RE relocation"),
        ("field_exists", "0:0:0", Load(4, 1, 2, 0), "leads nowhere"),
    ],
)
def test_what_libbpf_refuses(kind: str, access: str, insn: Insn, why: str) -> None:
    with pytest.raises(Unfit, match=why):
        moved(kind, access, insn)


def test_two_types_of_one_name_must_agree() -> None:
    record = CoreRecord(0, TASK, "0:0", "byte_off")
    with pytest.raises(Unfit, match="field offset ambiguity: 0 != 128"):
        relocate(LOCAL, kernel(OLD), record, Load(4, 1, 2, 0))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("task", "task"), ("task___old", "task"), ("a___b___c", "a___b"), ("___x", "___x"),
     ("x____y", "x____y"), ("a___", "a___"), ("", "")],
)  # fmt: skip
def test_names_without_flavours(name: str, expected: str) -> None:
    assert essential(name) == expected
