"""Loads and stores: stack, stack arguments, maps, context and other memory.

``check_mem_access`` and what it calls, ``check_load_mem``, ``check_store_reg``,
``check_atomic`` (verifier.c of Linux 7.3.4), for privileged programs.
"""

from __future__ import annotations

from harness.btf import Struct
from harness.isa import opcodes as o
from harness.isa.insn import Atomic, Load, Raw, Store, StoreImm
from harness.isa.stack_args import MAX_SLOTS, SLOT_SIZE
from harness.model import MapDef
from harness.verifier import bounds, btf_pointer, context, kptrs, records, tnum
from harness.verifier.bounds import Scalar, const
from harness.verifier.btf_pointer import check_fixed
from harness.verifier.const_fold import map_word
from harness.verifier.env import Env, NotModelled, Refused
from harness.verifier.layouts import UNCONVERTIBLE
from harness.verifier.maps import STRUCTS, frozen, read_only, value_size
from harness.verifier.precision import push_history
from harness.verifier.refs import owned
from harness.verifier.stack import (
    MAX_VAR_OFF,
    check_stack_bounds,
    grow,
    narrow,
    read_fixed,
    read_stack,
    signed,
    write_fixed,
    write_stack,
)
from harness.verifier.state import (
    ARENA,
    ARG_ACCESS,
    BASE,
    BTF_ID,
    BUF,
    CTX,
    FLOW_KEYS,
    INSN,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MAX_STACK,
    MAYBE_NULL,
    MEM,
    MEM_RDONLY,
    NOT_INIT,
    PACKET,
    PACKET_META,
    SCALAR,
    SOCK_COMMON,
    SOCKET,
    STACK,
    TCP_SOCK,
    TP_BUFFER,
    UNINIT,
    UNKNOWN_REG,
    UNTRUSTED,
    XDP_SOCK,
    ZERO_NUM,
    Frame,
    Reg,
    TypeRef,
    type_name,
)

_S64_MIN = -(1 << 63)
_S64 = 1 << 63
LOADED = {  # what a load of unknown memory gives
    (size, sign): Reg(SCALAR, Scalar.from_load(size, sign))
    for size in (1, 2, 4, 8)
    for sign in (False, True)
    if size < 8 or not sign
}
_WRONLY_PROG = 1 << 8  # map flag
_FLOW_KEYS_SIZE = 56  # struct bpf_flow_keys
_PERCPU_ARRAY, _INSN_ARRAY = 6, 34


_NAMES = tuple(f"R{reg}" for reg in range(16))


def read_reg(env: Env, frame: Frame, reg: int) -> Reg:
    """Return a register that an instruction reads (``check_reg_arg``, SRC_OP)."""
    found = frame.regs[reg]
    if found.type == NOT_INIT:
        raise Refused(f"R{reg} !read_ok", env.insn)
    return found


def check_writable(env: Env, reg: int) -> None:
    """``check_reg_arg``, DST_OP_NO_MARK."""
    if reg == 10:
        raise Refused("frame pointer is read only", env.insn)


# --- loads and stores ---------------------------------------------------------------


def load(env: Env, frame: Frame, insn: Load) -> None:
    """``check_load_mem``."""
    if insn.src == 11:
        check_writable(env, insn.dst)
        _arg_read(env, frame, insn.off, insn.dst)
        return
    base = read_reg(env, frame, insn.src)
    check_writable(env, insn.dst)
    access(env, base, _NAMES[insn.src], insn.off, insn.size, False, insn.dst, insn.signed)
    if env.pointer_types[env.insn] != base.type:
        save_pointer_type(env, base.type, True)


def store(env: Env, frame: Frame, insn: Store) -> None:
    """``check_store_reg``."""
    read_reg(env, frame, insn.src)
    if insn.dst == 11:
        _arg_write(env, frame, insn.off, frame.regs[insn.src])
        return
    base = read_reg(env, frame, insn.dst)
    access(env, base, _NAMES[insn.dst], insn.off, insn.size, True, insn.src)
    if env.pointer_types[env.insn] != base.type:
        save_pointer_type(env, base.type, False)


def store_imm(env: Env, frame: Frame, insn: StoreImm) -> None:
    """``BPF_ST`` in ``do_check_insn``."""
    if insn.dst == 11:
        _arg_write(env, frame, insn.off, Reg(SCALAR, const(insn.imm)))
        return
    base = read_reg(env, frame, insn.dst)
    access(env, base, f"R{insn.dst}", insn.off, insn.size, True, -1)
    save_pointer_type(env, base.type, False)


def atomic(env: Env, frame: Frame, insn: Atomic) -> None:
    """``check_atomic``."""
    if insn.op == "load_acquire":
        base = read_reg(env, frame, insn.src)
        if not _atomic_ok(base, ordered_load=True):
            raise Refused(
                f"BPF_ATOMIC loads from R{insn.src} {type_name(base.type)} is not allowed",
                env.insn,
            )
        check_writable(env, insn.dst)
        name = f"R{insn.src}"
        access(env, base, name, insn.off, insn.size, False, insn.dst, strict=True)
        save_pointer_type(env, base.type, False)
        return
    if insn.op == "store_release":
        read_reg(env, frame, insn.src)
        base = read_reg(env, frame, insn.dst)
        name = f"R{insn.dst}"
        access(env, base, name, insn.off, insn.size, True, insn.src, strict=True)
        save_pointer_type(env, base.type, False)
        if not _atomic_ok(base):
            raise _no_atomic(env, insn, base)
        return
    read_reg(env, frame, insn.src)
    base = read_reg(env, frame, insn.dst)
    if insn.op == "cmpxchg":
        read_reg(env, frame, 0)
    if not _atomic_ok(base):
        raise _no_atomic(env, insn, base)
    loaded = 0 if insn.op == "cmpxchg" else insn.src if insn.fetch else -1
    name = f"R{insn.dst}"
    if loaded >= 0:
        check_writable(env, loaded)
        frame.regs[loaded] = UNKNOWN_REG
        base = frame.regs[insn.dst]
    access(env, base, name, insn.off, insn.size, False, -1, strict=True)
    if loaded >= 0:
        access(env, base, name, insn.off, insn.size, False, loaded, strict=True)
        base = env.state.frames[-1].regs[insn.dst]
    save_pointer_type(env, base.type, False)
    access(env, base, name, insn.off, insn.size, True, -1, strict=True)


def bad_atomic(env: Env, insn: Raw) -> None:
    """Refuse an atomic instruction that is none (``check_atomic``)."""
    if insn.opcode & ~0x18 != o.STX | o.ATOMIC:
        raise NotModelled("an instruction that is kept as Raw, and is one")
    known = {*o.ATOMIC_OPS.values(), *(v | o.FETCH for v in o.ATOMIC_OPS.values())}
    if insn.imm in known | {o.XCHG, o.CMPXCHG}:
        raise Refused("invalid atomic operand size", env.insn)
    raise Refused(f"BPF_ATOMIC uses invalid atomic opcode {insn.imm & 0xFFFFFFFF:02x}", env.insn)


def _no_atomic(env: Env, insn: Atomic, base: Reg) -> Refused:
    return Refused(
        f"BPF_ATOMIC stores into R{insn.dst} {type_name(base.type)} is not allowed", env.insn
    )


def _atomic_ok(reg: Reg, ordered_load: bool = False) -> bool:
    """``atomic_ptr_type_ok``."""
    kind = reg.type
    if kind in (CTX, PACKET, PACKET_META, FLOW_KEYS, SOCKET, SOCK_COMMON, TCP_SOCK, XDP_SOCK):
        return False
    return not (ordered_load and (kind == BTF_ID or kind & UNTRUSTED))


_NO_MIX = (CTX, SOCKET, SOCK_COMMON, TCP_SOCK, XDP_SOCK, BTF_ID, ARENA)


def save_pointer_type(env: Env, kind: int, trust: bool) -> None:
    """Refuse one instruction with pointers of different kinds (``save_aux_ptr_type``)."""
    at = env.insn
    before = env.pointer_types[at]
    if before == kind:
        return
    if before == NOT_INIT:
        env.pointer_types[at] = kind
        return
    if _mixable(kind) and _mixable(before):
        return
    if trust and kind & BASE in (MEM, BTF_ID) and before & BASE in (MEM, BTF_ID):
        env.pointer_types[at] = _merged(kind, before)
        return
    raise Refused("same insn cannot be used with different pointers", at)


def _mixable(kind: int) -> bool:
    base = kind & BASE
    if base in _NO_MIX:
        return False
    return base != MEM or not kind & UNTRUSTED


def _merged(one: int, other: int) -> int:
    """``merge_ptr_types``."""
    memory = MEM in (one & BASE, other & BASE)
    if btf_pointer.may_fault(one) or btf_pointer.may_fault(other):
        return MEM | MEM_RDONLY | UNTRUSTED if memory else BTF_ID | UNTRUSTED
    return (MEM if memory else BTF_ID) | (one | other) & MEM_RDONLY


# --- stack arguments ------------------------------------------------------------------


def _arg_write(env: Env, frame: Frame, off: int, value: Reg) -> None:
    """``check_stack_arg_write``."""
    slot = -off // SLOT_SIZE - 1
    if slot >= MAX_SLOTS:
        raise Refused(f"stack arg write offset {off} exceeds max {MAX_SLOTS} stack args", env.insn)
    args = frame.args
    while len(args) <= slot:
        args.append(UNINIT)
    sub = env.subs[frame.subprog]
    sub.max_out = max(sub.max_out, slot + 1)
    args[slot] = value
    env.events.add(("slot written", slot, value.type, value.num.mask == 0))
    frame.no_arg_load = True
    push_history(env, ARG_ACCESS, slot)


def _arg_read(env: Env, frame: Frame, off: int, dst: int) -> None:
    """``check_stack_arg_read``."""
    if frame.no_arg_load:
        raise Refused("r11 load must be before any r11 store or call insn", env.insn)
    slot = off // SLOT_SIZE - 1
    incoming = env.subs[frame.subprog].incoming
    if slot + 1 > incoming:
        raise Refused(
            f"invalid read from stack arg off {off} depth {incoming * SLOT_SIZE}", env.insn
        )
    frames = env.state.frames
    if len(frames) < 2:
        raise NotModelled("an incoming stack argument of an entry function")
    args = frames[-2].args
    if slot >= len(args):
        raise NotModelled("Linux looks at a stack argument that the caller never wrote")
    frame.regs[dst] = args[slot]
    env.events.add(("slot read", slot, args[slot].type, args[slot].num.mask == 0))
    push_history(env, ARG_ACCESS, slot)


# --- any memory -------------------------------------------------------------------------


def access(
    env: Env,
    reg: Reg,
    name: str,
    off: int,
    size: int,
    write: bool,
    value: int,
    sign: bool = False,
    strict: bool = False,
) -> None:
    """Check an access of *size* bytes at ``reg + off`` (``check_mem_access``).

    *value* is the register stored or loaded, -1: a constant, or nothing. *name* is the
    register's for messages. *strict* refuses misaligned accesses to any memory.
    """
    kind = reg.type
    if kind == STACK and size == 8:
        num = reg.num
        at = num[0] - ((num[0] & _S64) << 1) + off
        if not num[1] and not at & 7 and -MAX_STACK <= at <= -8:  # the common case
            frame = env.state.frames[reg.info]
            if len(frame.stack) * 8 < -at:
                frame = grow(env, reg.info, -at)
            if write:
                write_fixed(env, reg.info, at, size, value)
            else:
                read_fixed(env, frame, at, size, value)
            return
    if size > 1 and (
        kind == STACK
        or strict
        or env.strict_alignment
        or (kind == MAP_VALUE and reg.info.type == _INSN_ARRAY)
    ):
        check_alignment(env, reg, off, size)
    if kind == STACK:
        check_stack_bounds(env, reg, name, off, size, write)
        if write:
            write_stack(env, reg, off, size, value)
            return
        read_stack(env, reg, name, off, size, value)
        if size < 8 and value >= 0:
            narrow(env, value, size, sign)
    elif kind == CTX:
        held = _context(env, reg, name, off, size, write, sign)
        if not write and value >= 0:
            if held.errno is not None:
                loaded = Reg(SCALAR, Scalar.from_srange(*held.errno))
            elif held.gives == SCALAR:
                loaded = LOADED[size, sign]
            else:
                info: TypeRef | int = held.info or 0
                if held.struct:
                    info = btf_pointer.kernel_struct(env, held.struct)
                ident = env.new_id() if held.gives & MAYBE_NULL else 0
                loaded = Reg(held.gives, ZERO_NUM, ident, info=info)
            env.frame().regs[value] = loaded
            if held.errno is not None and size < 8:
                narrow(env, value, size, sign)
    elif kind == MAP_VALUE:
        check_map_flags(env, reg, off, size, write)
        check_map_access(env, reg, name, off, size, False)
        field = _kptr_field(env, reg, off) if reg.info.value_type else None
        if field is not None:
            kptrs.access(env, field, write, value)
        elif not write and value >= 0:
            env.frame().regs[value] = _map_load(env, reg, off, size, sign)
    elif kind == MAP_KEY:
        if write:
            raise Refused(f"write to change key {name} not allowed", env.insn)
        check_region(env, reg, name, off, size, _map(reg).key_size, False)
        if value >= 0:
            env.frame().regs[value] = LOADED[size, sign]
    elif kind & BASE == MEM:
        if kind & MAYBE_NULL:
            raise Refused(f"{name} invalid mem access '{type_name(kind)}'", env.insn)
        if write and kind & MEM_RDONLY:
            raise Refused(f"{name} cannot write into {type_name(kind)}", env.insn)
        if not (kind & MEM_RDONLY and kind & UNTRUSTED):
            check_region(env, reg, name, off, size, reg.info, False)
        if value >= 0 and not write:
            env.frame().regs[value] = LOADED[size, sign]
    elif kind in (PACKET, PACKET_META):
        if write and not context.PACKETS.get(env.program.type):
            raise Refused("cannot write into packet", env.insn)
        env.seen_direct_write |= write
        check_packet(env, reg, name, off, size, False)
        if not write and value >= 0:
            env.frame().regs[value] = LOADED[size, sign]
    elif kind == FLOW_KEYS:
        _check_flow_keys(env, reg, name, off, size)
        if not write and value >= 0:
            env.frame().regs[value] = LOADED[size, sign]
    elif kind in (SOCKET, SOCK_COMMON, TCP_SOCK, XDP_SOCK):
        if write:
            raise Refused(f"{name} cannot write into {type_name(kind)}", env.insn)
        _check_sock(env, reg, name, off, size)
        if value >= 0:
            env.frame().regs[value] = LOADED[size, sign]
    elif kind == TP_BUFFER:
        check_buffer(env, reg, name, off, "tracepoint")
        if not write and value >= 0:
            env.frame().regs[value] = LOADED[size, sign]
    elif kind == MAP_PTR:
        _access_map(env, reg, name, off, size, write, value)
    elif kind & BASE == BTF_ID and not kind & MAYBE_NULL:
        pointer = btf_pointer.access(env, reg, name, off, size, write)
        if not write and value >= 0:
            env.frame().regs[value] = pointer or LOADED[size, sign]
    elif kind & BASE == BUF and not kind & MAYBE_NULL:
        if write and kind & MEM_RDONLY:
            raise Refused(f"{name} cannot write into {type_name(kind)}", env.insn)
        check_buffer(env, reg, name, off, "rdonly" if kind & MEM_RDONLY else "rdwr")
        if not write and value >= 0:
            env.frame().regs[value] = LOADED[size, sign]
    elif kind == ARENA:
        if not write and value >= 0:
            env.frame().regs[value] = LOADED[size, sign]
    else:
        raise Refused(f"{name} invalid mem access '{type_name(kind)}'", env.insn)


_POINTEES = {  # check_ptr_alignment
    FLOW_KEYS: "flow keys ", MAP_KEY: "key ", MAP_VALUE: "value ", CTX: "context ",
    STACK: "stack ", SOCKET: "sock ", SOCK_COMMON: "sock_common ", TCP_SOCK: "tcp_sock ",
    XDP_SOCK: "xdp_sock ",
}  # fmt: skip


def check_alignment(env: Env, reg: Reg, off: int, size: int) -> None:
    """Refuse a misaligned access (``check_generic_ptr_alignment``)."""
    if reg.type == ARENA:
        return
    num = reg.num
    if reg.type in (PACKET, PACKET_META):  # check_pkt_ptr_alignment: NET_IP_ALIGN is 2
        if not tnum.is_aligned(tnum.add(num.var_off, tnum.const(2 + off)), size):
            raise Refused(
                f"misaligned packet access off 2+{num.var_off}+{off} size {size}", env.insn
            )
        return
    if not num.mask:
        aligned = (num.value + off) % size == 0
    else:
        aligned = tnum.is_aligned(tnum.add(num.var_off, tnum.const(off)), size)
    if not aligned:
        raise Refused(
            f"misaligned {_POINTEES.get(reg.type, '')}access off {num.var_off}+{off} size {size}",
            env.insn,
        )


def check_region(
    env: Env, reg: Reg, name: str, off: int, size: int, limit: int, zero_ok: bool
) -> None:
    """Check an access to *limit* bytes of memory (``check_mem_region_access``)."""
    num = reg.num
    low = num.smin
    if low < 0 and (low == _S64_MIN or off + low != signed(off + low, 32) or low + off < 0):
        raise Refused(
            f"{name} min value is negative, either use unsigned index or "
            "do a if (index >=0) check.",
            env.insn,
        )
    _check_span(env, reg, name, signed(low + off, 32), size, limit, zero_ok, "min")
    high = num.umax
    if high >= MAX_VAR_OFF:
        raise Refused(
            f"{name} unbounded memory access, make sure to bounds check any such access",
            env.insn,
        )
    _check_span(env, reg, name, signed(high + off, 32), size, limit, zero_ok, "max")


def _check_span(
    env: Env, reg: Reg, name: str, off: int, size: int, limit: int, zero_ok: bool, which: str
) -> None:
    """``__check_mem_access``."""
    if off >= 0 and (size > 0 or (size == 0 and zero_ok)) and off + size <= limit:
        return
    kind = reg.type
    if kind == MAP_KEY:
        text = f"invalid access to map key, key_size={limit} off={off} size={size}"
    elif kind == MAP_VALUE:
        text = f"invalid access to map value, value_size={limit} off={off} size={size}"
    elif kind in (PACKET, PACKET_META):
        text = (
            f"invalid access to packet, off={off} size={size}, "
            f"{name}(id={reg.id},off={off},r={limit})"
        )
    elif kind == CTX:
        text = f"invalid access to context, ctx_size={limit} off={off} size={size}"
    else:
        text = f"invalid access to memory, mem_size={limit} off={off} size={size}"
    raise Refused(f"{text}\n{name} {which} value is outside of the allowed memory range", env.insn)


def _context(
    env: Env, reg: Reg, name: str, off: int, size: int, write: bool, sign: bool
) -> context.Access:
    """Return what the context holds there (``check_ctx_access``)."""
    if context.variable_offset(env):
        check_region(env, reg, name, off, size, 0xFFFF, False)
    else:
        check_fixed(env, reg, name, context.fixed_offset(env))
    off += reg.num.umax
    found = context.access(env, off, size, write, sign)
    if found is None:
        raise Refused(f"invalid bpf_context access off={off} size={size}", env.insn)
    env.field_sizes[env.insn] = found.field_size
    return found


# --- packets, sockets and buffers of the kernel -------------------------------------------


def check_packet(env: Env, reg: Reg, name: str, off: int, size: int, zero_ok: bool) -> None:
    """Check an access to packet data that a comparison made safe (``check_packet_access``)."""
    if reg.info < 0:
        raise Refused(f"{name} offset is outside of the packet", env.insn)
    check_region(env, reg, name, off, size, reg.info, zero_ok)


def _check_flow_keys(env: Env, reg: Reg, name: str, off: int, size: int) -> None:
    """``check_flow_keys_access``."""
    num = reg.num
    if num.mask:
        raise Refused(
            f"{name} invalid variable offset to flow keys: off={off}, var_off={num.var_off}",
            env.insn,
        )
    off = signed(off + num.value, 32)
    if off < 0 or off + size > _FLOW_KEYS_SIZE:
        raise Refused(f"invalid access to flow keys off={off} size={size}", env.insn)


def _check_sock(env: Env, reg: Reg, name: str, off: int, size: int) -> None:
    """``check_sock_access``, for reading."""
    if reg.num.smin < 0:
        raise Refused(
            f"{name} min value is negative, either use unsigned index or "
            "do a if (index >=0) check.",
            env.insn,
        )
    found = context.sock_access(reg.type, off, size)
    if found is None:
        raise Refused(
            f"{name} invalid {type_name(reg.type)} access off={off} size={size}", env.insn
        )
    if found.field_size == UNCONVERTIBLE:
        env.unconvertible = True
    env.field_sizes[env.insn] = found.field_size


def check_buffer(env: Env, reg: Reg, name: str, off: int, what: str) -> None:
    """Check an access to a buffer whose end is checked later (``check_buffer_access``)."""
    num = reg.num
    if num.mask:
        raise Refused(
            f"{name} invalid variable buffer offset: off={off}, var_off={num.var_off}", env.insn
        )
    if num.signed_value + off < 0:
        raise Refused(
            f"{name} invalid negative {what} buffer offset: off={off}, var_off={num.signed_value}",
            env.insn,
        )


# --- maps ---------------------------------------------------------------------------------


def _map(reg: Reg) -> MapDef:
    found = reg.info
    assert isinstance(found, MapDef)
    return found


def field_record(env: Env, reg: Reg) -> records.Record | None:
    """Return the guarded fields of what *reg* points to (``reg_btf_record``)."""
    if reg.type == MAP_VALUE:
        return records.of_map(env, reg.info)
    if owned(reg.type):
        return records.of_type(env, reg.info.id) if reg.info.btf is env.btf else None
    return None


def readonly(found: MapDef) -> bool:
    """``bpf_map_is_rdonly``: its contents are known."""
    return found.readonly


def check_map_flags(env: Env, reg: Reg, off: int, size: int, write: bool) -> None:
    """``check_map_access_type``."""
    found = _map(reg)
    if write and (read_only(found) or found.type == _INSN_ARRAY):
        raise Refused(
            f"write into map forbidden, value_size={found.value_size} "
            f"off={reg.num.smin + off} size={size}",
            env.insn,
        )
    if not write and found.flags & _WRONLY_PROG:
        raise Refused(
            f"read from map forbidden, value_size={found.value_size} "
            f"off={reg.num.smin + off} size={size}",
            env.insn,
        )


def check_map_access(
    env: Env, reg: Reg, name: str, off: int, size: int, zero_ok: bool, indirect: bool = False
) -> None:
    """Check an access to a map's value, *indirect*: by a helper (``check_map_access``)."""
    found = _map(reg)
    check_region(env, reg, name, off, size, value_size(found), zero_ok)
    record = records.of_map(env, found) if found.value_type else None
    if record is None:
        return
    low, high = reg.num.smin + off, reg.num.umax + off + size
    for field in record.fields:
        at = field.offset
        if low >= at + field.size or at >= high:
            continue
        if field.kind not in (*records.KPTRS, "uptr"):
            env.refuse(f"{field.name} cannot be accessed directly by load/store")
        if indirect:
            env.refuse(f"{field.name} cannot be accessed indirectly by helper")
        if reg.num.mask:
            env.refuse(f"{field.name} access cannot have variable offset")
        if at != off + reg.num.value:
            env.refuse(
                f"{field.name} access misaligned expected={at} "
                f"off={off + reg.num.value & (1 << 64) - 1}"
            )
        if size != 8:
            env.refuse(f"{field.name} access size must be BPF_DW")


def _kptr_field(env: Env, reg: Reg, off: int) -> records.Field | None:
    """Return the pointer of a map's value that is accessed."""
    record = records.of_map(env, reg.info) if reg.info.value_type else None
    if record is None or reg.num.mask:
        return None
    return record.find(off + reg.num.value, *records.KPTRS, "uptr")


def _access_map(
    env: Env, reg: Reg, name: str, off: int, size: int, write: bool, value: int
) -> None:
    """Read the kernel's struct of a map itself (``check_ptr_to_map_access``)."""
    struct = STRUCTS.get(reg.info.type)
    if struct is None:
        env.refuse(f"map_ptr access not supported for map type {reg.info.type}")
    if off < 0:
        env.refuse(f"{name} is {struct} invalid negative access: off={off}")
    if write:
        env.refuse(f"only read from {struct} is supported")
    btf = env.kernel(f"struct {struct}")
    type_id = btf.find(struct, Struct)
    if type_id is None:
        raise NotModelled(f"struct {struct} (not in the kernel BTF)")
    start = btf_pointer.pointer(BTF_ID, TypeRef(btf, type_id))
    loaded, target, flags, _ = btf_pointer.struct_access(env, start, off, size)
    if value < 0:
        return
    frame = env.frame()
    if loaded == SCALAR:
        frame.regs[value] = LOADED[size, False]
    elif loaded == MEM:
        frame.regs[value] = Reg(MEM | flags, ZERO_NUM)
    else:
        ident = env.new_id() if flags & MAYBE_NULL else 0
        frame.regs[value] = btf_pointer.pointer(BTF_ID | flags, TypeRef(btf, target), ident)


def _map_load(env: Env, reg: Reg, off: int, size: int, sign: bool) -> Reg:
    """``check_map_mem_read``."""
    found = _map(reg)
    if found.type == _INSN_ARRAY:
        if size != 8:
            env.refuse(f"Invalid read of {size} bytes from insn_array")
        return reg.with_num(bounds.alu("add", 64, reg.num, const(off))).with_type(INSN)
    if reg.num.is_const and frozen(found) and found.type != _PERCPU_ARRAY:
        at = signed(off + reg.num.value, 32)
        index = env.maps.index(found)
        word = map_word(env, index, at, size, sign)
        if word is None:
            raise NotModelled(f"the contents of map {found.name}")
        return Reg(SCALAR, const(word))
    return LOADED[size, sign]
