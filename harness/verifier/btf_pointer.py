"""Pointers to the kernel's structs, by their BTF: what may be read through them.

``check_ptr_to_btf_access``, ``btf_struct_access``, ``btf_struct_walk``,
``btf_struct_ids_match``, ``btf_nested_type_is_trusted`` and ``mark_btf_ld_reg`` (verifier.c
and btf.c of Linux 7.3.4).
"""

from __future__ import annotations

from typing import NamedTuple

from harness.btf import MAX_DEPTH, Array, Btf, BtfType, Int, Modifier, Ptr, Struct, Typedef
from harness.verifier import records
from harness.verifier.bounds import const
from harness.verifier.env import Env, NotModelled
from harness.verifier.prototypes import behind, kind_name
from harness.verifier.refs import in_rcu, owned, referenced
from harness.verifier.state import (
    BASE,
    BTF_ID,
    MAP_PTR,
    MAYBE_NULL,
    MEM,
    MEM_ALLOC,
    MEM_PERCPU,
    MEM_RCU,
    MEM_RDONLY,
    MEM_USER,
    NON_OWN_REF,
    SCALAR,
    SOCK_COMMON,
    SOCKET,
    TCP_SOCK,
    TRUSTED,
    UNTRUSTED,
    Reg,
    TypeRef,
    type_name,
)

# fmt: off
# Registers that stand for a struct of the kernel    reg2btf_ids
KERNEL_STRUCTS = {
    SOCKET: "sock", SOCK_COMMON: "sock_common", TCP_SOCK: "tcp_sock", MAP_PTR: "bpf_map",
}
_TRUSTED_FLAGS = MEM_ALLOC | TRUSTED | NON_OWN_REF  # BPF_REG_TRUSTED_MODIFIERS

# Programs that may write to a conntrack entry, which is a module's: to nothing here
_WRITES_TO_MODULES = frozenset({"sched_cls", "sched_act", "xdp"})
_ANON = "(anon)"
_TAGS = {"user": MEM_USER, "percpu": MEM_PERCPU, "rcu": MEM_RCU}
# fmt: on


def trusted(env: Env, reg: Reg) -> bool:
    """``is_trusted_reg``."""
    if reg.id and referenced(env.state, reg.id):
        return True
    flags = reg.type & ~BASE
    if flags & ~_TRUSTED_FLAGS:
        return False
    return reg.type & BASE in KERNEL_STRUCTS or bool(flags)


def unsafe(kind: int) -> bool:
    """``bpf_type_has_unsafe_modifiers``."""
    return bool(kind & ~BASE & ~_TRUSTED_FLAGS)


def may_fault(kind: int) -> bool:
    """Say whether a load has to be a guarded one (``bpf_may_fault_on_deref``)."""
    return kind == BTF_ID or bool(kind & UNTRUSTED)


def pointer(kind: int, found: TypeRef, ident: int = 0) -> Reg:
    """Return a pointer to the start of a struct."""
    return Reg(kind, const(0), ident, info=found)


def pointee(env: Env, reg: Reg) -> TypeRef:
    """Return the struct that a register points to, or stands for."""
    if reg.type & BASE == BTF_ID:
        found: TypeRef = reg.info
        return found
    return kernel_struct(env, KERNEL_STRUCTS[reg.type & BASE])


def kernel_struct(env: Env, name: str) -> TypeRef:
    """Return a struct of the kernel."""
    btf = env.kernel(f"a pointer to struct {name}")
    type_id = btf.find(name, Struct)
    if type_id is None:
        raise NotModelled(f"struct {name} (not in the kernel BTF)")
    return TypeRef(btf, type_id)


def check_fixed(env: Env, reg: Reg, name: str, off_ok: bool) -> None:
    """Refuse a pointer that was moved (``__check_ptr_off_reg``)."""
    num = reg.num
    if num.mask:
        env.refuse(f"variable {type_name(reg.type)} access var_off={num.var_off} disallowed")
    if num.smin < 0:
        env.refuse(
            f"negative offset {type_name(reg.type)} ptr {name} off={num.signed_value} disallowed",
        )
    if not off_ok and num.value:
        env.refuse(
            f"dereference of modified {type_name(reg.type)} ptr {name} "
            f"off={num.signed_value} disallowed",
        )


# --- access -----------------------------------------------------------------------------


def access(env: Env, reg: Reg, name: str, off: int, size: int, write: bool) -> Reg | None:
    """Check an access through a BTF pointer (``check_ptr_to_btf_access``).

    Returns the pointer that a load gives, None: it gives a number.
    """
    found: TypeRef = reg.info
    struct = found.name
    kind = reg.type
    if not env.gpl and found.btf is not env.btf:
        env.refuse(f"Cannot access kernel 'struct {struct}' from non-GPL compatible program")
    if reg.num.mask:
        env.refuse(
            f"{name} is ptr_{struct} invalid variable offset: off={off}, var_off={reg.num.var_off}"
        )
    off += reg.num.signed_value
    if off < 0:
        env.refuse(f"{name} is ptr_{struct} invalid negative access: off={off}")
    if kind & MEM_USER:
        env.refuse(f"{name} is ptr_{struct} access user memory: off={off}")
    if kind & MEM_PERCPU:
        env.refuse(f"{name} is ptr_{struct} access percpu memory: off={off}")
    if write and may_fault(kind):
        env.refuse("only read is supported")
    if write and not kind & MEM_ALLOC:
        _write(env, reg, name, off, size)
        return None
    if write and not owned(kind):
        env.refuse("only read is supported")
    loaded, target, flags, member = struct_access(env, reg, off, size)
    if loaded == BTF_ID:
        flags = _inherited(env, reg, flags, member, target)
    if loaded == SCALAR or write:
        return None
    if loaded == MEM:
        return Reg(MEM | flags, const(0))
    ident = env.new_id() if flags & MAYBE_NULL else 0
    return pointer(BTF_ID | flags, TypeRef(found.btf, target), ident)


def _write(env: Env, reg: Reg, name: str, off: int, size: int) -> None:
    """``btf_struct_access`` of a program type, which few have."""
    if env.program.type == "struct_ops":
        raise NotModelled(f"a write to struct {reg.info.name} in a struct_ops program")
    if env.program.type in _WRITES_TO_MODULES:
        env.refuse(f"{name} cannot write into ptr_{reg.info.name} at off={off} size={size}")
    env.refuse("only read is supported")


def _inherited(env: Env, reg: Reg, flags: int, member: str, target: int) -> int:
    """Return the flags of a pointer that was read through *reg*."""
    if reg.type & UNTRUSTED:
        return UNTRUSTED
    if not (trusted(env, reg) or reg.type & MEM_RCU):
        return flags & ~(_TRUSTED_FLAGS | MEM_RCU)  # as it always was
    if _is_safe(reg, member, target, "__safe_trusted"):
        return flags | TRUSTED
    if _is_safe(reg, member, target, "__safe_trusted_or_null"):
        return flags | TRUSTED | MAYBE_NULL
    if not in_rcu(env.state) or reg.type & MAYBE_NULL:
        return UNTRUSTED
    if _is_safe(reg, member, target, "__safe_rcu"):
        return flags | MEM_RCU
    or_null = _is_safe(reg, member, target, "__safe_rcu_or_null")
    if flags & MEM_RCU or or_null:
        flags |= MEM_RCU | MAYBE_NULL
        return flags & ~UNTRUSTED if or_null else flags
    if flags & (MEM_PERCPU | MEM_USER):
        return flags
    return flags & ~(_TRUSTED_FLAGS | MEM_RCU)


def _is_safe(reg: Reg, member: str, target: int, suffix: str) -> bool:
    """``btf_nested_type_is_trusted``: the kernel's BTF has the allow-lists as structs."""
    btf: Btf = reg.info.btf
    safe_id = btf.find(reg.info.name + suffix, Struct)
    safe = btf.get(safe_id) if safe_id is not None else None
    if not isinstance(safe, Struct):
        return False
    for each in safe.members:
        kind = btf.get(each.type)
        if isinstance(kind, Ptr) and each.name == member and behind(btf, kind.type) == target:
            return True
    return False


# --- structs ------------------------------------------------------------------------------


class Walk(NamedTuple):
    """What lies at an offset of a struct (``bpf_struct_walk_result``)."""

    kind: str  # "scalar", "pointer", "other pointer", "struct", "": said why not
    type_id: int = 0  # pointer: the struct it points to; struct
    flags: int = 0
    member: str = ""  # pointer


def struct_access(env: Env, reg: Reg, off: int, size: int) -> tuple[int, int, int, str]:
    """Return what a load gives: type of register, struct, flags, name of the member.

    ``btf_struct_access``.
    """
    btf, type_id = reg.info
    local = bool(reg.type & MEM_ALLOC)
    record = records.of_type(env, type_id) if local and btf is env.btf else None
    for field in record.fields if record is not None else ():
        if off < field.offset + field.size and field.offset < off + size:
            env.refuse(f"direct access to {field.name} is disallowed")
    flags = 0
    while True:
        found = walk(env, btf, type_id, off, size, flags, not local)
        flags = found.flags
        match found.kind:
            case "pointer":
                return (SCALAR if local else BTF_ID), found.type_id, flags, found.member
            case "other pointer":
                return MEM, 0, MEM_RDONLY | UNTRUSTED, ""
            case "scalar":
                return SCALAR, 0, 0, ""
            case "struct":
                type_id, off = found.type_id, 0
            case _:
                env.refuse("")


def walk(env: Env, btf: Btf, type_id: int, off: int, size: int, flags: int, flexible: bool) -> Walk:
    """Go one struct deeper (``btf_struct_walk``); *flexible*: arrays may have no length."""
    kind = btf.resolve(type_id)
    for _ in range(MAX_DEPTH):
        if not isinstance(kind, Struct):
            env.say(f"Type '{kind.name or _ANON}' is not a struct")
            return Walk("")
        if kind.union and len(kind.members) != 1:
            flags |= UNTRUSTED
        if off + size > kind.size:
            inner = _flexible(btf, kind, off) if flexible else None
            if inner is None:
                env.say(f"access beyond struct {kind.name or _ANON} at off {off} size {size}")
                return Walk("")
            start, element = inner
            if isinstance(element, Int):
                return Walk("scalar", flags=flags)
            assert isinstance(element, Struct)
            kind, off = element, (off - start) % element.size
            continue
        deeper = _member(env, btf, kind, off, size, flags)
        if isinstance(deeper, Walk):
            return deeper
        kind, off = deeper
    return Walk("")


def _flexible(btf: Btf, kind: Struct, off: int) -> tuple[int, BtfType] | None:
    """Return where an array without a length at the end of a struct starts, and of what."""
    if not kind.members:
        return None
    last = kind.members[-1]
    array = btf.resolve(last.type)
    start = last.bit_offset // 8
    if not isinstance(array, Array) or array.count or off < start:
        return None
    element = btf.resolve(array.type)
    if isinstance(element, Int) or (isinstance(element, Struct) and element.size):
        return start, element
    return None


def _member(
    env: Env, btf: Btf, kind: Struct, off: int, size: int, flags: int
) -> Walk | tuple[Struct, int]:
    """Find the member at an offset; return a struct within and the offset in it to go on."""
    for member in kind.members:
        start = member.bit_offset // 8
        if off + size <= start:
            break
        if member.bitfield_size:
            end = (member.bit_offset + member.bitfield_size + 7) // 8
            if off <= start and end <= off + size:
                return Walk("scalar", flags=flags)
            continue
        if off < start:
            break
        found = _element(btf, member.type)
        if found is None:
            env.say(f"field {member.name} doesn't have size")
            return Walk("")
        inner_id, width, count = found
        end = start + width * count
        if off >= end:
            continue
        if count != 1 or isinstance(btf.resolve(member.type), Array):
            start += (off - start) // width * width
        inner = btf[inner_id]
        if isinstance(inner, Struct):
            if off == start:
                return Walk("struct", inner_id, flags)
            return inner, off - start
        if isinstance(inner, Ptr):
            if width != size or off != start:
                env.say(
                    f"cannot access ptr member {member.name or _ANON} with moff {start} "
                    f"in struct {kind.name or _ANON} with off {off} size {size}"
                )
                return Walk("")
            return _pointer_member(env, btf, inner, member.name, flags)
        if off + size > end and not flags & UNTRUSTED:
            env.say(
                f"access beyond the end of member {member.name} (mend:{end}) "
                f"in struct {kind.name or _ANON} with off {off} size {size}"
            )
            return Walk("")
        return Walk("scalar", flags=flags)
    env.say(f"struct {kind.name or _ANON} doesn't have field at offset {off}")
    return Walk("")


def _element(btf: Btf, type_id: int) -> tuple[int, int, int] | None:
    """Return a type behind all dimensions of an array, its size, and how many there are.

    ``__btf_resolve_size``.
    """
    count = 1
    for _ in range(MAX_DEPTH):
        kind = btf.get(type_id)
        match kind:
            case Typedef(type=next_id) | Modifier(type=next_id):
                type_id = next_id
            case Array(type=next_id, count=elements):
                count *= elements
                type_id = next_id
            case _:
                size = btf.size_of(type_id)
                return (type_id, size, count) if size is not None else None
    return None


def _pointer_member(env: Env, btf: Btf, kind: Ptr, member: str, flags: int) -> Walk:
    found = tagged(btf, kind, _TAGS)
    if found is None:
        env.say(f"type '{kind_name(kind)}' has multiple type tags")
        return Walk("")
    target, more = found
    if isinstance(btf[target], Struct):
        return Walk("pointer", target, flags | more, member)
    return Walk("other pointer", flags=flags)


def tagged(btf: Btf, kind: Ptr, flags: dict[str, int]) -> tuple[int, int] | None:
    """Return what is behind a pointer's modifiers, and the flag of its type tag.

    ``btf_type_tag_walk``; None: it has several.
    """
    found = 0
    type_id = kind.type
    for _ in range(len(btf)):
        inner = btf.get(type_id)
        if not isinstance(inner, Typedef | Modifier):
            break
        if isinstance(inner, Modifier) and inner.kind == "type_tag" and not inner.kind_flag:
            found |= flags.get(inner.name, 0)
        type_id = inner.type
    if found.bit_count() > 1:
        return None
    return type_id, found


def ids_match(
    env: Env, found: TypeRef, off: int, wanted: TypeRef, strict: bool, flexible: bool
) -> bool:
    """Say whether *wanted* lies at an offset of *found* (``btf_struct_ids_match``)."""
    if off == 0 and found.same(wanted):
        return True
    if strict:
        return False
    type_id = found.id
    for _ in range(MAX_DEPTH):
        at = walk(env, found.btf, type_id, off, 1, 0, flexible)
        if at.kind != "struct":
            return False
        type_id, off = at.type_id, 0
        if TypeRef(found.btf, type_id).same(wanted):
            return True
    return False
