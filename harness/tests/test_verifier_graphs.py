"""Objects that programs allocate, the lists and trees that own them, and pointers in maps.

The words are Linux 7.3.4's; the kernel's own selftests of the same were compared with a real one.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.btf import (
    Btf,
    BtfType,
    DeclTag,
    Func,
    FuncProto,
    Int,
    Member,
    Modifier,
    Param,
    Ptr,
    Struct,
    Void,
)
from harness.isa.insn import Call
from harness.model import MapDef
from harness.tests.programs import program, text, verdict
from harness.verifier import Options

# --- the program's types --------------------------------------------------------------------

U64, U32, LOCK, HEAD, NODE, REFS, ITEM, OWNER, SHARED, ODD, LOCAL, KEPT, HOLDER = range(1, 14)
TYPES: tuple[BtfType, ...] = (
    Void(),
    Int("long", 8, 0, bits=64),
    Int("int", 4, 0, bits=32),
    Struct("bpf_spin_lock", 4, (Member("val", U32, 0),)),
    Struct("bpf_list_head", 16, (Member("a", U64, 0), Member("b", U64, 64))),
    Struct("bpf_list_node", 24, (Member("a", U64, 0), Member("b", U64, 64), Member("c", U64, 128))),
    Struct("bpf_refcount", 4, (Member("val", U32, 0),)),
    Struct("item", 32, (Member("node", NODE, 0), Member("data", U64, 192))),
    Struct("owner", 24, (Member("head", HEAD, 0), Member("lock", LOCK, 128))),
    Struct("shared", 16, (Member("refs", REFS, 0), Member("data", U64, 64))),
    Struct("odd", 8, (Member("data", U64, 0),)),
    Modifier("type_tag", ITEM, "kptr"),
    Ptr(LOCAL),
    Struct("holder", 8, (Member("kept", KEPT, 0),)),
    DeclTag("contains:item:node", OWNER, 0),
)
LISTS = MapDef("lists", 2, 4, 24, 1, key_type=U32, value_type=OWNER)
HELD = MapDef("held", 2, 4, 8, 1, key_type=U32, value_type=HOLDER)

# --- the kernel's functions -----------------------------------------------------------------


def _kernel() -> Btf:
    types: list[BtfType] = [Void(), Int("int", 4, 1, bits=32), Int("unsigned long", 8, bits=64)]
    types.append(Ptr(0))
    for name in ("bpf_list_head", "bpf_list_node"):
        types += [Struct(name, 16, (Member("opaque", 2, 0),)), Ptr(len(types))]
    void, head, node = 3, 5, 7
    for name, returned, params in (
        ("bpf_obj_new", void, (("local_type_id__k", 2),)),
        ("bpf_obj_drop", 0, (("p__alloc", void),)),
        ("bpf_refcount_acquire", void, (("p__refcounted_kptr", void),)),
        ("bpf_list_push_front", 1, (("head", head), ("node", node))),
        ("bpf_list_pop_front", node, (("head", head),)),
        ("bpf_list_front", node, (("head", head),)),
        ("bpf_rcu_read_lock", 0, ()),
        ("bpf_rcu_read_unlock", 0, ()),
    ):
        given = tuple(Param(*each) for each in params)
        types.append(FuncProto(returned, given))
        types.append(Func(name, len(types) - 1, 1))
        types.append(FuncProto(returned, (*given, Param("meta", void))))  # what the kernel adds
        types.append(Func(f"{name}_impl", len(types) - 1, 1))
    return Btf(tuple(types))


KERNEL = _kernel()
FUNCTIONS = [kind.name for kind in KERNEL.types if isinstance(kind, Func)]
NAMES = tuple(name for name in FUNCTIONS if not name.endswith("_impl"))


def _check(body: str) -> str:
    """Return the words that refuse *body*, "" when it is accepted."""
    for number, name in enumerate(NAMES):
        body = body.replace(f"<{name.removeprefix('bpf_')}>", f"call {100_000 + number}")
    subject = program(text(f"{body}out: r0 = 0; exit"), type="sched_cls", maps=[LISTS, HELD])
    insns = tuple(
        Call("kfunc", insn.imm - 100_000)
        if isinstance(insn, Call) and insn.imm >= 100_000
        else insn
        for insn in subject.insns
    )
    subject = replace(subject, insns=insns, kfuncs=NAMES, btf=Btf(TYPES))
    return verdict(subject, Options(kernel_btf=KERNEL))


def _new(kind: int) -> str:
    return f"r1 = {kind}; <obj_new>; if r0 == 0 goto out; r6 = r0; "


UNOWNED = "release kfunc bpf_obj_drop expects referenced PTR_TO_BTF_ID passed to R1"
DROP = "r1 = r6; <obj_drop>; "
TAKE, GIVE = "r1 = map[idx:0]+16; call 93; ", "r1 = map[idx:0]+16; call 94; "
PUSH = "r1 = map[idx:0]+0; r2 = r6; <list_push_front>; "
POP = "r1 = map[idx:0]+0; <list_pop_front>; "
FRONT = "r1 = map[idx:0]+0; <list_front>; "


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{_new(ITEM)}r1 = *(u64 *)(r6 + 24); *(u64 *)(r6 + 24) = 1; {DROP}", ""),
        (_new(ITEM), "Unreleased reference id="),
        (f"r1 = {ITEM}; <obj_new>; r1 = r0; <obj_drop>; ", "Possibly NULL pointer passed"),
        (f"{_new(ITEM)}{DROP}{DROP}", UNOWNED),
        (f"{_new(ITEM)}{DROP}r1 = *(u64 *)(r6 + 24); ", "R6 invalid mem access 'scalar'"),
        (f"{_new(ITEM)}r1 = *(u64 *)(r6 + 0); {DROP}", "direct access to bpf_list_node is"),
        (f"{_new(ITEM)}r1 = *(u64 *)(r6 + 32); {DROP}", "access beyond struct item at off 32"),
        (f"{_new(ITEM)}r1 = r6; r1 += 8; <obj_drop>; ", "R1 must have zero offset"),
        ("r1 = r10; <obj_drop>; ", UNOWNED),
        ("r1 = *(u32 *)(r1 + 0); <obj_new>; ", "R1 must be a known constant"),
        ("r1 = 1; <obj_new>; ", "bpf_obj_new/bpf_percpu_obj_new type ID argument must be of a str"),
        # what is counted
        (
            f"{_new(SHARED)}r1 = r6; <refcount_acquire>; r7 = r0; {DROP}r1 = r7; <obj_drop>; ",
            "",
        ),
        (f"{_new(SHARED)}r1 = r6; <refcount_acquire>; {DROP}", "Unreleased reference id="),
        (
            f"{_new(ITEM)}r1 = r6; <refcount_acquire>; {DROP}",
            "R1 doesn't point to a type with bpf_refcount field",
        ),
    ],
)
def test_objects(body: str, message: str) -> None:
    found = _check(body)
    assert found.startswith(message)
    assert bool(found) == bool(message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{_new(ITEM)}{TAKE}{PUSH}{GIVE}", ""),
        # the list owns it, and it may be used until the lock is given back
        (f"{_new(ITEM)}{TAKE}{PUSH}*(u64 *)(r6 + 24) = 1; {GIVE}", ""),
        (
            f"{_new(ITEM)}{TAKE}{PUSH}{GIVE}*(u64 *)(r6 + 24) = 1; ",
            "R6 invalid mem access 'scalar'",
        ),
        (f"{_new(ITEM)}{PUSH}", "bpf_spin_lock at off=16 must be held for bpf_list_head"),
        (f"{_new(ITEM)}{TAKE}{PUSH}{PUSH}{GIVE}", "R2 expected pointer to allocated object"),
        (f"{_new(ODD)}{TAKE}{PUSH}{GIVE}", "bpf_list_node not found at offset=0"),
        (
            f"{_new(ITEM)}{TAKE}r1 = map[idx:0]+8; r2 = r6; <list_push_front>; {GIVE}",
            "bpf_list_head not found at offset=8",
        ),
        (
            f"{_new(ITEM)}{TAKE}r1 = map[idx:0]+0; r2 = r6; r2 += 8; <list_push_front>; {GIVE}",
            "bpf_list_node not found at offset=8",
        ),
        (f"{TAKE}{POP}r6 = r0; {GIVE}if r6 == 0 goto out; {DROP}", ""),
        (f"{TAKE}{POP}{GIVE}", "Unreleased reference id="),
        (f"{TAKE}{FRONT}if r0 == 0 goto give; r1 = *(u64 *)(r0 + 24); give: {GIVE}", ""),
        (
            f"{TAKE}{FRONT}r6 = r0; {GIVE}if r6 == 0 goto out; r1 = *(u64 *)(r6 + 24); ",
            "R6 invalid mem access 'scalar'",
        ),
        # nothing is allocated or dropped with a lock
        (
            f"{_new(ITEM)}{TAKE}{DROP}{GIVE}",
            "function calls are not allowed while holding a lock",
        ),
    ],
)
def test_lists(body: str, message: str) -> None:
    found = _check(body)
    assert found.startswith(message)
    assert bool(found) == bool(message)


XCHG = "r1 = map[idx:1]+0; call 194; "
LOAD = "r1 = map[idx:1]+0; r7 = *(u64 *)(r1 + 0); "


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{_new(ITEM)}r2 = r6; {XCHG}if r0 == 0 goto out; r1 = r0; <obj_drop>; ", ""),
        (f"r2 = 0; {XCHG}if r0 == 0 goto out; r1 = r0; <obj_drop>; ", ""),
        (f"r2 = 0; {XCHG}", "Unreleased reference id="),
        (
            f"{_new(ODD)}r2 = r6; {XCHG}",
            "invalid kptr access, R2 type=ptr_odd expected=ptr_item",
        ),
        (f"{_new(ITEM)}r2 = r6; r1 = map[idx:0]+0; call 194; ", "R1"),
        (LOAD, ""),
        (f"{LOAD}r1 = *(u64 *)(r7 + 24); ", "R7 invalid mem access 'rcu_ptr_or_null_'"),
        (
            f"<rcu_read_lock>; {LOAD}if r7 == 0 goto none; r1 = *(u64 *)(r7 + 24); none: "
            "<rcu_read_unlock>; ",
            "",
        ),
        (
            f"<rcu_read_lock>; {LOAD}if r7 == 0 goto none; none: <rcu_read_unlock>; "
            "if r7 == 0 goto out; r1 = r7; <obj_drop>; ",
            UNOWNED,
        ),
        (
            "r1 = map[idx:1]+0; *(u64 *)(r1 + 0) = 0; ",
            "store to referenced kptr disallowed",
        ),
        (
            "r1 = map[idx:1]+0; r7 = *(u32 *)(r1 + 0); ",
            "kptr access size must be BPF_DW",
        ),
    ],
)
def test_pointers_in_maps(body: str, message: str) -> None:
    found = _check(body)
    assert found.startswith(message)
    assert bool(found) == bool(message)
