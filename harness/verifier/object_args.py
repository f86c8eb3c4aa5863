"""Arguments that are objects: locks, timers, kptrs, dynptrs, iterators, irq flags, strings.

``process_spin_lock``, ``check_map_field_pointer``, ``process_kptr_func``,
``process_dynptr_func``, ``process_const_alloc_mem_size``, ``check_arg_const_str``,
``check_bpf_snprintf_call`` and their kin (verifier.c of Linux 7.3.4), for helpers and kernel
functions alike.
"""

from __future__ import annotations

import string

from harness.isa.insn import Call
from harness.model import MapDef
from harness.verifier import maps, objects, records, refs
from harness.verifier.bounds import const
from harness.verifier.env import Env, NotModelled
from harness.verifier.memory import access, check_map_access, field_record
from harness.verifier.meta import Meta, Noted
from harness.verifier.state import (
    DYNPTR,
    MAP_PTR,
    MAP_VALUE,
    REF_LOCK,
    REF_RES_LOCK,
    REF_RES_LOCK_IRQ,
    STACK,
    Reg,
)

_RES_LOCKS = REF_RES_LOCK | REF_RES_LOCK_IRQ


def in_tree_callback(env: Env) -> bool:
    """Say whether a tree compares nodes here (``in_rbtree_lock_required_cb``)."""
    for frame in env.state.frames[1:]:
        if frame.in_callback:
            insn = env.insns[frame.callsite]
            if isinstance(insn, Call) and insn.kind == "kfunc":
                return True  # only those of trees call back at once
    return False


# --- locks -------------------------------------------------------------------------------


def spin_lock(env: Env, reg: Reg, name: str, lock: bool, kind: int = REF_LOCK) -> None:
    """Take or give back a lock that *reg* points to (``process_spin_lock``)."""
    resilient = kind != REF_LOCK
    word = "bpf_res_spin" if resilient else "bpf_spin"
    if reg.num.mask:
        env.refuse(
            f"{name} doesn't have constant offset. {word}_lock has to be at the constant offset"
        )
    if reg.type == MAP_VALUE:
        if not records.has_btf(env, reg.info):
            env.refuse(f"map '{reg.info.name}' has to have BTF in order to use {word}_lock")
        where, what = reg.info, f"map '{reg.info.name}'"
    else:
        where, what = reg.info.btf, "local 'kptr'"
    record = field_record(env, reg)
    if record is None or not record.has(f"{word}_lock"):
        env.refuse(f"{what} has no valid {word}_lock")
    offset = record.offset(f"{word}_lock")
    if offset != reg.num.value:
        env.refuse(
            f"off {reg.num.signed_value} doesn't point to 'struct {word}_lock' that is at {offset}"
        )
    state = env.state
    if lock:
        if not resilient:
            if refs.find_lock(state, REF_LOCK, 0, None):
                env.refuse("Locking two bpf_spin_locks are not allowed")
        elif refs.find_lock(state, _RES_LOCKS, reg.id, where):
            env.refuse("Acquiring the same lock again, AA deadlock detected")
        refs.acquire_lock(env, kind, reg.id, where)
        return
    last = refs.active_lock(state)
    if last is None:
        env.refuse(f"{word}_unlock without taking a lock")
    held = refs.find_lock(state, kind, reg.id, where)
    if held is None:
        env.refuse(f"{word}_unlock of different lock")
    if last.id != reg.id or (last.link is not where and last.link != where):
        env.refuse(f"{word}_unlock cannot be out of order")
    refs.take_out(state, held)
    refs.invalidate_non_owning(env)
    refs.leave_rcu(env)


# --- fields of map values -------------------------------------------------------------------


def map_field(env: Env, reg: Reg, name: str, kind: str, meta: Noted) -> None:
    """Check a pointer to a timer or its like (``check_map_field_pointer``)."""
    found = reg.info
    if reg.num.mask:
        env.refuse(f"{name} doesn't have constant offset. {kind} has to be at the constant offset")
    if not records.has_btf(env, found):
        env.refuse(f"map '{found.name}' has to have BTF in order to use {kind}")
    record = field_record(env, reg)
    if record is None or not record.has(kind):
        env.refuse(f"map '{found.name}' has no valid {kind}")
    offset = record.offset(kind)
    if offset != reg.num.value:
        env.refuse(
            f"off {reg.num.signed_value} doesn't point to 'struct {kind}' that is at {offset}"
        )
    meta.map = Reg(MAP_PTR, const(0), info=found, map_uid=reg.map_uid)


def same_map(env: Env, reg: Reg, name: str, previous: str, meta: Noted) -> None:
    """Take a map, which must be the one of the field before (``process_map_ptr_arg``)."""
    known = meta.map
    if known is not None and (
        (known.info is not reg.info and known.info != reg.info) or known.map_uid != reg.map_uid
    ):
        record = records.of_map(env, known.info)
        what = "workqueue"
        if record is not None and record.has("bpf_timer"):
            what = "timer"
        elif record is not None and record.has("bpf_task_work"):
            what = "bpf_task_work"
        env.refuse(
            f"{what} pointer in {previous} map_uid={known.map_uid} "
            f"doesn't match map pointer in {name} map_uid={reg.map_uid}"
        )
    meta.map = reg


def kptr(env: Env, reg: Reg, name: str, meta: Meta) -> None:
    """Check where a pointer is exchanged (``process_kptr_func``)."""
    if reg.type == MAP_VALUE and not records.has_btf(env, reg.info):
        env.refuse(f"map '{reg.info.name}' has to have BTF in order to use bpf_kptr_xchg")
    record = field_record(env, reg)
    if reg.num.mask:
        env.refuse(f"{name} doesn't have constant offset. kptr has to be at the constant offset")
    if record is None or not record.has(*records.KPTRS):
        env.refuse(f"{name} has no valid kptr")
    offset = reg.num.value & 0xFFFFFFFF
    field = record.find(offset, *records.KPTRS)
    if field is None:
        env.refuse(f"off={offset} doesn't point to kptr")
    if field.kind == "kptr_untrusted":
        env.refuse(f"off={offset} kptr isn't referenced kptr")
    if reg.type == MAP_VALUE:
        meta.map = Reg(MAP_PTR, const(0), info=reg.info, map_uid=reg.map_uid)
    meta.kptr = field


# --- dynptrs ------------------------------------------------------------------------------


def dynptr(
    env: Env,
    reg: Reg,
    name: str,
    meta: Noted,
    kind: str = "",
    uninit: bool = False,
    release: bool = False,
) -> None:
    """Check or make a dynptr (``process_dynptr_func``).

    *kind*: the type it must have, or gets; "": any.
    """
    if reg.type not in (STACK, DYNPTR):
        env.refuse(f"{name} expected pointer to stack or const struct bpf_dynptr")
    if uninit:
        if reg.type == DYNPTR or objects.place(env, reg, "dynptr", 2) is None:
            env.refuse("Dynptr has to be an uninitialized dynptr")
        for off in range(0, objects.DYNPTR_SIZE, 8):
            access(env, reg, name, off, 8, True, -1)
        objects.put_dynptr(env, reg, kind, meta.ref_id, meta.dynptr)
        return
    if reg.type == DYNPTR and release:
        env.refuse("CONST_PTR_TO_DYNPTR cannot be released")
    found = objects.dynptr_at(env, reg)
    if found is None:
        env.refuse(f"Expected an initialized dynptr as {name}")
    if kind and found.info[0] != kind:
        env.refuse(f"Expected a dynptr of type {kind} as {name}")
    meta.dynptr = found


# --- constants -----------------------------------------------------------------------------


def alloc_size(env: Env, reg: Reg, name: str, meta: Meta) -> None:
    """Take the size of memory that is returned (``process_const_alloc_mem_size``)."""
    if not reg.num.is_const:
        env.refuse(f"{name} is not a const")
    if reg.num.value > 0xFFFFFFFF:
        env.refuse(f"{name} allocation size exceeds u32 max")
    meta.mem_size = reg.num.value


def const_str(env: Env, reg: Reg, name: str) -> bytes:
    """Return a constant string without its end (``check_arg_const_str``)."""
    found: MapDef = reg.info
    for kind, word in ((maps.INSN_ARRAY, "insn_array"), (maps.PERCPU_ARRAY, "percpu_array")):
        if found.type == kind:
            env.refuse(f"{name} points to {word} map which cannot be used as const string")
    if not maps.frozen(found):
        env.refuse(f"{name} does not point to a readonly map'")
    if reg.num.mask:
        env.refuse(f"{name} is not a constant address'")
    if found.type not in (maps.ARRAY, maps.ARENA):
        env.refuse("no direct value access support for this map type")
    if found.type == maps.ARENA or found.max_entries != 1:
        raise NotModelled("strings in such a map")
    at = reg.num.value
    check_map_access(env, reg, name, 0, found.value_size - at, False, indirect=True)
    assert found.data is not None  # frozen
    text, end, _ = found.data.ljust(found.value_size, b"\0")[at:].partition(b"\0")
    if not end:
        env.refuse("string is not zero-terminated")
    return text


def check_format(env: Env, text: bytes, size: int) -> None:
    """Check a format and how many bytes of arguments it has (``check_bpf_snprintf_call``)."""
    if size % 8:
        env.refuse("")
    if not _format_ok(text.decode("latin-1"), size // 8):
        env.refuse("Invalid format string")


_PLAIN = frozenset(string.printable)


def _format_ok(text: str, count: int) -> bool:
    """Say whether a format takes at most *count* arguments (``bpf_bprintf_prepare``)."""
    text += "\0\0\0"
    length = len(text) - 3
    used = at = 0
    while at < length:
        char = text[at]
        if char < "\x80" and char not in _PLAIN:
            return False
        if char != "%":
            at += 1
            continue
        if text[at + 1] == "%":
            at += 2
            continue
        if used >= count:
            return False
        at += 1
        if text[at] >= "\x80":
            return False
        while text[at] in "0+- ":
            at += 1
        if text[at] in "123456789":
            while text[at] in string.digits:
                at += 1
        end = _specifier(text, at)
        if end is None:
            return False
        used += 1
        at = end
    return True


def _ends(char: str) -> bool:
    if char >= "\x80":
        return "\xa0" <= char <= "\xbf" or char in "\xd7\xf7"
    return char == "\0" or char in string.whitespace or char in string.punctuation


def _specifier(text: str, at: int) -> int | None:
    """Return where a conversion that begins at *at* ends, None: it is not taken."""
    char, following = text[at], text[at + 1 : at + 3]
    if char == "p":
        if _ends(following[0]):
            return at + 1
        if following in ("ks", "us"):
            return at + 3 if _ends(text[at + 3]) else None
        if following[0] in "KxsSB":
            return at + 2
        return at + 3 if following in ("i4", "i6", "I4", "I6") else None
    if char == "s":
        return at + 1 if _ends(following[0]) else None
    if char == "c":
        return at + 1
    for _ in range(2):
        if text[at] == "l":
            at += 1
    return at + 1 if text[at] in "iduxX" else None
