"""What a path takes and gives back: references, locks, dynptrs, iterators, regions, exceptions.

The words are Linux 7.3.4's. The cases of corpus/ about ring buffers and dynptrs, and the
kernel's own selftests of what is tested here, were compared with a real one.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from harness.btf import (
    Btf,
    BtfType,
    DeclTag,
    Enum,
    Func,
    FuncProto,
    Int,
    Member,
    Modifier,
    Param,
    Ptr,
    Struct,
    Typedef,
    Void,
)
from harness.isa.insn import Call
from harness.model import MapDef, Program
from harness.tests.programs import program, text, verdict
from harness.verifier import Options
from harness.verifier.env import Env
from harness.verifier.log import Log
from harness.verifier.records import Field, Record, of_map, of_type

# --- guarded fields ---------------------------------------------------------------------

U64, U32, LOCK, TIMER, VALUE, TIMED = 1, 2, 3, 4, 5, 6
HEAD, NODE, ITEM, OWNER, KPTR, TAG, HOLDER, WQ, RES = range(7, 16)
TYPES: tuple[BtfType, ...] = (
    Void(),
    Int("long", 8, 0, bits=64),
    Int("int", 4, 0, bits=32),
    Struct("bpf_spin_lock", 4, (Member("val", U32, 0),)),
    Struct("bpf_timer", 16, (Member("a", U64, 0), Member("b", U64, 64))),
    Struct("value", 8, (Member("count", U32, 0), Member("lock", LOCK, 32))),
    Struct("timed", 24, (Member("count", U64, 0), Member("timer", TIMER, 64))),
    Struct("bpf_list_head", 16, (Member("a", U64, 0), Member("b", U64, 64))),
    Struct("bpf_list_node", 24, (Member("a", U64, 0), Member("b", U64, 64), Member("c", U64, 128))),
    Struct("item", 32, (Member("node", NODE, 0), Member("data", U64, 192))),
    Struct("owner", 24, (Member("head", HEAD, 0), Member("lock", LOCK, 128))),
    Ptr(TAG),
    Modifier("type_tag", ITEM, "kptr"),
    Struct("holder", 8, (Member("kept", KPTR, 0),)),
    Struct("bpf_wq", 16, (Member("a", U64, 0), Member("b", U64, 64))),
    Struct("bpf_res_spin_lock", 4, (Member("val", U32, 0),)),
    DeclTag("contains:item:node", OWNER, 0),
)
BTF = Btf(TYPES)
LOCKED = MapDef("locked", 1, 4, 8, 8, key_type=U32, value_type=VALUE)
TIMERS = MapDef("timers", 2, 4, 24, 1, key_type=U32, value_type=TIMED)
LISTS = MapDef("lists", 2, 4, 24, 1, key_type=U32, value_type=OWNER)
PLAIN = MapDef("plain", 2, 4, 8, 1, key_type=U32, value_type=U64)
UNTYPED = MapDef("untyped", 2, 4, 24, 1)


def _env(btf: Btf) -> Env:
    subject = replace(program("r0 = 0\nexit"), btf=btf)
    return Env(subject, Options(), Log(0, ()))


def test_fields_of_maps() -> None:
    env = _env(BTF)
    assert of_map(env, LOCKED) == Record((Field("bpf_spin_lock", 4),))
    assert of_map(env, TIMERS) == Record((Field("bpf_timer", 8),))
    assert of_map(env, PLAIN) is None
    assert of_map(env, UNTYPED) is None
    owner = of_map(env, LISTS)
    assert owner is not None
    assert owner.fields == (Field("bpf_list_head", 0, ITEM, 0), Field("bpf_spin_lock", 16))
    assert owner.offset("bpf_spin_lock") == 16
    assert owner.offset("bpf_timer") == -22
    assert owner.find(0, "bpf_list_head") is owner.fields[0]
    assert owner.find(0, "bpf_rb_root") is None


def test_fields_of_structs() -> None:
    env = _env(BTF)
    item, holder = of_type(env, ITEM), of_type(env, HOLDER)
    assert item is not None
    assert item.fields == (Field("bpf_list_node", 0),)
    assert holder is not None
    assert holder.fields == (Field("kptr", 0, ITEM),)
    assert of_type(env, U64) is None


@pytest.mark.parametrize(
    "members",
    [
        (Member("a", LOCK, 0), Member("b", LOCK, 32)),  # one lock only
        (Member("a", LOCK, 0), Member("b", RES, 32)),
        (Member("head", HEAD, 0), Member("pad", U64, 128)),  # a list needs a lock
    ],
)
def test_fields_that_do_not_go_together_guard_nothing(members: tuple[Member, ...]) -> None:
    found = len(TYPES)
    types = (*TYPES, Struct("odd", 24, members), DeclTag("contains:item:node", found, 0))
    assert of_map(_env(Btf(types)), replace(LOCKED, value_size=24, value_type=found)) is None


def test_maps_that_the_kernel_does_not_make() -> None:
    odd = replace(LOCKED, type=9)  # an LRU hash holds no locks
    subject = replace(program("r1 = map[idx:0]\nr0 = 0\nexit", maps=[odd]), btf=BTF)
    assert verdict(subject).startswith("unknown: map locked")


# --- locks ----------------------------------------------------------------------------------

LOOKUP = (
    "r6 = 0; *(u32 *)(r10 - 4) = 0; r2 = r10; r2 += -4; r1 = map[idx:0]; call 1; "
    "if r0 == 0 goto out; r6 = r0; "
)
AGAIN = "r2 = r10; r2 += -4; r1 = map[idx:0]; call 1; if r0 == 0 goto out; r7 = r0; "
TAKE, GIVE = "r1 = r6; r1 += 4; call 93; ", "r1 = r6; r1 += 4; call 94; "
OUT = "out: r0 = 0; exit"


def _locked(body: str, kind: str = "sched_cls") -> str:
    subject = program(text(f"{LOOKUP}{body}{OUT}"), type=kind, maps=[LOCKED])
    return verdict(replace(subject, btf=BTF))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{TAKE}r1 = *(u32 *)(r6 + 0); {GIVE}", ""),
        (TAKE, "BPF_EXIT instruction in main prog cannot be used inside bpf_spin_lock-ed region"),
        (GIVE, "bpf_spin_unlock without taking a lock"),
        (f"{TAKE}{TAKE}{GIVE}", "function calls are not allowed while holding a lock"),
        (f"{TAKE}call 7; {GIVE}", "function calls are not allowed while holding a lock"),
        (f"{AGAIN}{TAKE}r1 = r7; r1 += 4; call 94; ", "bpf_spin_unlock of different lock"),
        ("r1 = r6; call 93; ", "off 0 doesn't point to 'struct bpf_spin_lock' that is at 4"),
        ("r1 = *(u32 *)(r6 + 4); ", "bpf_spin_lock cannot be accessed directly by load/store"),
        ("*(u16 *)(r6 + 6) = 1; ", "bpf_spin_lock cannot be accessed directly by load/store"),
        (
            "call 7; r0 &= 4; r1 = r6; r1 += r0; call 93; ",
            "R1 doesn't have constant offset. bpf_spin_lock has to be at the constant offset",
        ),
        ("r1 = r10; r1 += -8; call 93; ", "R1 type=fp expected=map_value, ptr_"),
    ],
)
def test_spin_locks(body: str, message: str) -> None:
    assert _locked(body) == message


def test_programs_that_may_not_lock() -> None:
    assert _locked("", "kprobe") == "tracing progs cannot use bpf_spin_lock yet"
    assert _locked("", "socket_filter") == "socket filter progs cannot use bpf_spin_lock yet"


def test_global_functions_are_not_called_with_a_lock() -> None:
    body = f"{LOOKUP}{TAKE}call f; {GIVE}{OUT}; f: r0 = 0; exit"
    subject = program(
        text(body), {"f": 0}, type="sched_cls", maps=[LOCKED], linkage={"f": "global"}
    )
    assert subject.btf is not None
    shift = len(subject.btf.types)
    types = [*subject.btf.types, *(_shifted(kind, shift) for kind in TYPES)]
    moved = replace(LOCKED, key_type=shift + U32, value_type=shift + VALUE)
    found = verdict(replace(subject, btf=Btf(tuple(types)), maps=(moved,)))
    assert found == "global function calls are not allowed while holding a lock,"


def _shifted(kind: BtfType, by: int) -> BtfType:
    match kind:
        case Struct():
            members = tuple(replace(each, type=each.type + by) for each in kind.members)
            return replace(kind, members=members)
        case Ptr() | Modifier() | DeclTag():
            return replace(kind, type=kind.type + by)
        case Void():
            return Int("pad", 4, 0, bits=32)
    return kind


# --- timers ---------------------------------------------------------------------------------

TIMER_OF = "r1 = map[idx:0]+8; "


def _timed(body: str, callback: str = "r0 = 0; exit") -> str:
    whole = f"{body}r0 = 0; exit; tick: {callback}"
    subject = program(text(whole), {"tick": 3}, maps=[TIMERS, PLAIN])
    assert subject.btf is not None
    shift = len(subject.btf.types)
    types = [*subject.btf.types, *(_shifted(kind, shift) for kind in TYPES)]
    moved = replace(TIMERS, key_type=shift + U32, value_type=shift + TIMED)
    return verdict(replace(subject, btf=Btf(tuple(types)), maps=(moved, PLAIN)))


CALLBACK = f"{TIMER_OF}r2 = subprog[+4]; call 170; "


@pytest.mark.parametrize(
    ("body", "callback", "message"),
    [
        (f"{TIMER_OF}r2 = map[idx:0]; r3 = 0; call 169; {CALLBACK}", "r0 = 0; exit", ""),
        (CALLBACK, "r1 = *(u64 *)(r3 + 0); r0 = *(u32 *)(r2 + 0); r0 = 0; exit", ""),
        (
            CALLBACK,
            "r0 = 1; exit",
            "At async callback return the register R0 has smin=1 smax=1 should have been in [0, 0]",
        ),
        (
            CALLBACK,
            "r0 = *(u64 *)(r3 + 24); r0 = 0; exit",
            "invalid access to map value, value_size=24 off=24 size=8",
        ),
        (CALLBACK, "r0 = *(u64 *)(r4 + 0); r0 = 0; exit", "R4 !read_ok"),
        (
            f"r1 = map[idx:0]+0; r2 = map[idx:0]; r3 = 0; call 169; {CALLBACK}",
            "r0 = 0; exit",
            "off 0 doesn't point to 'struct bpf_timer' that is at 8",
        ),
        (
            f"{TIMER_OF}r2 = map[idx:1]; r3 = 0; call 169; {CALLBACK}",
            "r0 = 0; exit",
            "timer pointer in R1 map_uid=0 doesn't match map pointer in R2 map_uid=0",
        ),
        (
            f"r1 = map[idx:1]+0; r2 = map[idx:1]; r3 = 0; call 169; {CALLBACK}",
            "r0 = 0; exit",
            "map 'plain' has no valid bpf_timer",
        ),
    ],
)
def test_timers(body: str, callback: str, message: str) -> None:
    assert _timed(body, callback) == message


# --- kernel functions -------------------------------------------------------------------------


def _kernel() -> Btf:
    """Return a kernel's BTF of the functions that the tests call."""
    types: list[BtfType] = [Void(), Int("int", 4, 1, bits=32), Int("unsigned long", 8, bits=64)]
    named = {"int": 1, "ulong": 2}

    def struct_pointer(name: str, size: int) -> None:
        types.append(Struct(name, size, (Member("opaque", 2, 0),)))
        types.append(Ptr(len(types) - 1))
        named[name] = len(types) - 1

    struct_pointer("bpf_iter_num", 8)
    struct_pointer("bpf_dynptr", 16)
    types += [Ptr(1), Ptr(2), Ptr(0)]
    named |= {"int *": len(types) - 3, "ulong *": len(types) - 2, "void *": len(types) - 1}
    for name, returned, params in (
        ("bpf_iter_num_new", "int", [("it", "bpf_iter_num"), ("start", "int"), ("end", "int")]),
        ("bpf_iter_num_next", "int *", [("it", "bpf_iter_num")]),
        ("bpf_iter_num_destroy", "", [("it", "bpf_iter_num")]),
        ("bpf_rcu_read_lock", "", []),
        ("bpf_rcu_read_unlock", "", []),
        ("bpf_preempt_disable", "", []),
        ("bpf_preempt_enable", "", []),
        ("bpf_local_irq_save", "", [("flags__irq_flag", "ulong *")]),
        ("bpf_local_irq_restore", "", [("flags__irq_flag", "ulong *")]),
        ("bpf_throw", "", [("cookie", "ulong")]),
        ("bpf_dynptr_clone", "int", [("p", "bpf_dynptr"), ("clone__uninit", "bpf_dynptr")]),
        ("bpf_dynptr_size", "ulong", [("p", "bpf_dynptr")]),
    ):
        result = named[returned] if returned else 0
        types.append(FuncProto(result, tuple(Param(param, named[kind]) for param, kind in params)))
        types.append(Func(name, len(types) - 1, 1))
    return Btf(tuple(types))


KERNEL = _kernel()
NAMES = tuple(kind.name for kind in KERNEL.types if isinstance(kind, Func))


def _with_kfuncs(subject: Program) -> str:
    insns = tuple(
        Call("kfunc", insn.imm - 100_000)
        if isinstance(insn, Call) and insn.kind == "helper" and insn.imm >= 100_000
        else insn
        for insn in subject.insns
    )
    return verdict(replace(subject, insns=insns, kfuncs=NAMES), Options(kernel_btf=KERNEL))


def _k(body: str, functions: dict[str, int] | None = None, maps: tuple[MapDef, ...] = ()) -> str:
    for number, name in enumerate(NAMES):
        body = body.replace(f"<{name.removeprefix('bpf_')}>", f"call {100_000 + number}")
    return _with_kfuncs(program(text(body), functions, maps=maps))


AT = "r1 = r10; r1 += -8; "
NEW = f"{AT}r2 = 0; r3 = 10; <iter_num_new>; "
DESTROY = f"{AT}<iter_num_destroy>; "
EXIT = "r0 = 0; exit"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{NEW}{DESTROY}{EXIT}", ""),
        (f"{NEW}{EXIT}", "Unreleased reference id=1 alloc_insn=4"),
        (f"{DESTROY}{EXIT}", "expected an initialized iter_num as R1"),
        (f"{AT}<iter_num_next>; {EXIT}", "expected an initialized iter_num as R1"),
        (f"{NEW}{NEW}{DESTROY}{EXIT}", "expected uninitialized iter_num as R1"),
        (f"{NEW}*(u64 *)(r10 - 8) = 0; {DESTROY}{EXIT}", "expected an initialized iter_num as R1"),
        (
            f"{NEW}r0 = *(u64 *)(r10 - 8); {DESTROY}{EXIT}",
            "invalid read from stack off -8+0 size 8",
        ),
        ("r1 = r10; r1 += -4; r2 = 0; r3 = 1; <iter_num_new>; exit", "cannot pass in iter"),
        ("r1 = 0; r2 = 0; r3 = 1; <iter_num_new>; exit", "Possibly NULL pointer passed"),
        # a loop without a bound, that its iterator ends
        (
            f"{NEW}r6 = 0; again: {AT}<iter_num_next>; if r0 == 0 goto done; r6 += 1; "
            f"r1 = *(u32 *)(r0 + 0); goto again; done: {DESTROY}{EXIT}",
            "",
        ),
        # and one whose body needs what the loop changes
        (
            "r1 = r10; r1 += -16; r2 = 0; r3 = 4; <iter_num_new>; r6 = r10; r6 += -8; "
            "again: r1 = r10; r1 += -16; <iter_num_next>; if r0 == 0 goto done; "
            "*(u8 *)(r6 + 0) = 1; r6 += 1; goto again; done: r1 = r10; r1 += -16; "
            "<iter_num_destroy>; r0 = 0; exit",
            "invalid write to stack R6 off=0 size=1",
        ),
        (
            f"{NEW}{AT}<iter_num_next>; r1 = *(u32 *)(r0 + 0); {DESTROY}{EXIT}",
            "R0 invalid mem access 'scalar'",
        ),
        (
            f"{NEW}{AT}<iter_num_next>; if r0 == 0 goto done; *(u32 *)(r0 + 0) = 1; "
            f"done: {DESTROY}{EXIT}",
            "R0 cannot write into rdonly_mem",
        ),
    ],
)
def test_iterators(body: str, message: str) -> None:
    found = _k(body)
    assert found.startswith(message)
    assert bool(found) == bool(message)


INSIDE = "BPF_EXIT instruction in main prog cannot be used inside bpf_"
SAVE, RESTORE = f"{AT}<local_irq_save>; ", f"{AT}<local_irq_restore>; "
SAVE2 = "r1 = r10; r1 += -16; <local_irq_save>; "
RESTORE2 = "r1 = r10; r1 += -16; <local_irq_restore>; "


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<rcu_read_lock>; <rcu_read_lock>; <rcu_read_unlock>; <rcu_read_unlock>; ", ""),
        ("<rcu_read_lock>; ", f"{INSIDE}rcu_read_lock-ed region"),
        (
            "<rcu_read_unlock>; ",
            "unmatched rcu read unlock (kernel function bpf_rcu_read_unlock)",
        ),
        ("<preempt_disable>; <preempt_enable>; ", ""),
        ("<preempt_disable>; ", f"{INSIDE}preempt_disable-ed region"),
        (
            "<preempt_enable>; ",
            "unmatched attempt to enable preemption (kernel function bpf_preempt_enable)",
        ),
        (f"{SAVE}{RESTORE}", ""),
        (f"{SAVE}{SAVE2}{RESTORE2}{RESTORE}", ""),
        (SAVE, f"{INSIDE}local_irq_save-ed region"),
        (RESTORE, "expected an initialized irq flag as R1"),
        (f"{SAVE}{SAVE}", "expected uninitialized irq flag as R1"),
        (
            f"{SAVE}{SAVE2}{RESTORE}{RESTORE2}",
            "cannot restore irq state out of order, expected id=2 acquired at insn_idx=5",
        ),
        # a region on one path only
        (
            "call 7; if r0 == 0 goto over; <preempt_disable>; over: <preempt_enable>; ",
            "unmatched attempt to enable preemption (kernel function bpf_preempt_enable)",
        ),
        # nobody sleeps there
        (
            "<rcu_read_lock>; r1 = r10; r1 += -8; r2 = 8; r3 = 0; call 148; <rcu_read_unlock>; ",
            "sleepable helper bpf_copy_from_user#148 in rcu_read_lock region",
        ),
        (
            f"{SAVE}r1 = r10; r1 += -16; r2 = 8; r3 = 0; call 148; {RESTORE}",
            "sleepable helper bpf_copy_from_user#148 in IRQ-disabled region",
        ),
    ],
)
def test_regions(body: str, message: str) -> None:
    assert _k(f"{body}{EXIT}") == message


def test_what_may_be_thrown() -> None:
    assert _k("r1 = 64; <throw>; r0 = 0; exit") == ""
    leak = "Unreleased reference id=1 alloc_insn=4"
    assert _k(f"{NEW}r1 = 1; <throw>; {DESTROY}{EXIT}") == leak
    assert _k(f"{NEW}call f; {DESTROY}{EXIT}; f: r1 = 1; <throw>; exit", {"f": 0}) == leak
    locked = "bpf_throw cannot be used inside bpf_rcu_read_lock-ed region"
    assert _k(f"<rcu_read_lock>; r1 = 1; <throw>; <rcu_read_unlock>; {EXIT}") == locked


def test_a_callback_does_not_throw() -> None:
    body = (
        "r1 = 2; r2 = subprog[+6]; r3 = 0; r4 = 0; call 181; r0 = 0; exit; "
        "f: r1 = 1; <throw>; r0 = 0; exit"
    )
    found = _k(body, {"f": 2})
    assert found == "bpf_throw kfunc (insn 9) cannot be called from callback subprog 1"


RING = MapDef("ring", 27, 0, 0, 4096)
RESERVE = "r1 = map[idx:0]; r2 = 16; r3 = 0; r4 = r10; r4 += -16; call 198; "
SUBMIT = "r1 = r10; r1 += {}; r2 = 0; call 199; "
CLONE = "r1 = r10; r1 += -16; r2 = r10; r2 += -32; <dynptr_clone>; "


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{RESERVE}{CLONE}{SUBMIT.format(-32)}", ""),  # one of both, no matter which
        (f"{RESERVE}{CLONE}", "Unreleased reference id=1 alloc_insn=6"),
        (
            f"{RESERVE}{CLONE}{SUBMIT.format(-16)}{SUBMIT.format(-32)}",
            "Expected an initialized dynptr as R1",
        ),
        # the other one still tracks the reservation
        (f"{RESERVE}{CLONE}*(u64 *)(r10 - 16) = 0; {SUBMIT.format(-32)}", ""),
        (
            f"{RESERVE}*(u64 *)(r10 - 16) = 0; {SUBMIT.format(-16)}",
            "cannot overwrite referenced dynptr",
        ),
        (CLONE, "Expected an initialized dynptr as R1"),
    ],
)
def test_clones_of_dynptrs(body: str, message: str) -> None:
    assert _k(f"{body}{EXIT}", maps=(RING,)) == message


# --- jump tables --------------------------------------------------------------------------------


def _table(*slots: int) -> MapDef:
    data = b"".join(struct.pack("<IIII", slot, 0, 0, 0) for slot in slots)
    return MapDef(".jumptables", 34, 4, 16, len(slots), data=data)


TABLE = "r1 = map[idx:0]+0; "  # slots 0, 1


@pytest.mark.parametrize(
    ("body", "slots", "message"),
    [
        ("r2 = *(u64 *)(r1 + 8); gotox r2; r0 = 0; exit; r0 = 1; exit", (4, 6), ""),
        (
            "r2 = *(u64 *)(r1 + 8); gotox r2; r0 = 0; exit; r3 += 1; exit",
            (4, 6),
            "R3 !read_ok",
        ),
        ("r2 = *(u32 *)(r1 + 0); gotox r2; r0 = 0; exit", (4,), "Invalid read of 4 bytes from"),
        ("r2 = *(u64 *)(r1 + 4); gotox r2; r0 = 0; exit", (4,), "misaligned value access off 0+4"),
        (
            "r2 = *(u64 *)(r1 + 8); gotox r2; r0 = 0; exit",
            (4,),
            "invalid access to map value, value_size=16 off=8 size=8",
        ),
        ("*(u64 *)(r1 + 0) = 1; gotox r1; r0 = 0; exit", (4,), "write into map forbidden"),
        ("r2 = 4; gotox r2; r0 = 0; exit", (4,), "R2 has type scalar, expected PTR_TO_INSN"),
        ("r2 = *(u64 *)(r1 + 0); gotox r2; r0 = 0; exit", (9,), "Failed to properly initialize"),
        ("r2 = *(u64 *)(r1 + 0); gotox r2; r0 = 0; exit", (1,), "Failed to properly initialize"),
        (
            "r2 = *(u64 *)(r1 + 0); r2 += 8; gotox r2; r0 = 0; exit",
            (5,),
            "R2 pointer arithmetic on insn prohibited",
        ),
        # a table that the program chooses from
        (
            "call 7; r0 &= 1; r0 <<= 3; r1 = map[idx:0]+0; r1 += r0; r2 = *(u64 *)(r1 + 0); "
            "gotox r2; r0 = 0; exit; r0 = 1; exit",
            (10, 12),
            "",
        ),
        (
            "call 7; r0 &= 3; r0 <<= 3; r1 = map[idx:0]+0; r1 += r0; r2 = *(u64 *)(r1 + 0); "
            "gotox r2; r0 = 0; exit; r0 = 1; exit",
            (10, 12),
            "invalid access to map value, value_size=32 off=24 size=8",
        ),
    ],
)
def test_jump_tables(body: str, slots: tuple[int, ...], message: str) -> None:
    if len(slots) == 1 and "off=8" in message:
        message = message.replace("value_size=16", "value_size=8")
    if len(slots) == 2:
        message = message.replace("value_size=32", "value_size=16")
    found = verdict(program(text(f"{TABLE}{body}"), maps=[_table(*slots)]))
    assert found.startswith(message)
    assert bool(found) == bool(message)


def test_a_jump_table_stays_in_its_function() -> None:
    body = f"{TABLE}r2 = *(u64 *)(r1 + 0); gotox r2; call f; exit; f: r0 = 0; exit"
    subject = program(text(body), {"f": 0}, maps=[_table(4, 6)])
    found = verdict(subject)
    assert found == "jump table for insn 3 points outside of the subprog [0,6]"
    empty = program(text("r0 = 0; gotox r0; exit"))
    assert verdict(empty) == "no jump tables found for subprog starting at 0"


# --- maps of maps ---------------------------------------------------------------------------------

INNER = MapDef("inner", 2, 4, 8, 4)
OUTER = MapDef("outer", 12, 4, 4, 4, inner=INNER)
KEY = "*(u32 *)(r10 - 4) = 0; r2 = r10; r2 += -4; "
FIRST = f"{KEY}r1 = map[idx:0]; call 1; "


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{FIRST}if r0 == 0 goto out; {KEY}r1 = r0; call 1; {OUT}", ""),
        (f"{FIRST}{KEY}r1 = r0; call 1; {OUT}", "R1 type=map_ptr_or_null expected=map_ptr"),
        (
            f"{FIRST}if r0 == 0 goto out; r0 += 8; {OUT}",
            "R0 pointer arithmetic on map_ptr prohibited",
        ),
        (
            f"{KEY}r3 = r2; r4 = 0; r1 = map[idx:0]; call 2; {OUT}",
            "cannot pass map_type 12 into func bpf_map_update_elem#2",
        ),
    ],
)
def test_maps_of_maps(body: str, message: str) -> None:
    assert verdict(program(text(body), maps=[OUTER])) == message


def test_types_that_are_not_used_here_are_read() -> None:
    """A typedef of a lock is none, and neither is an enum of that name."""
    types = (*TYPES, Typedef("alias", LOCK), Enum("bpf_spin_lock", 4, ()))
    where = len(types)
    types += (Struct("plain", 8, (Member("a", where - 2, 0), Member("b", where - 1, 32))),)
    assert of_map(_env(Btf(types)), replace(LOCKED, value_type=where)) is None
