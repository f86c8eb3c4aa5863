"""Loads and stores: stack, stack arguments, maps, context and other memory.

``check_mem_access`` and what it calls, ``check_load_mem``, ``check_store_reg``,
``check_atomic`` (verifier.c of Linux 7.3.4), for privileged programs.
"""

from __future__ import annotations

from harness.btf import Btf, Modifier, Ptr, Struct
from harness.isa import opcodes as o
from harness.isa.insn import Atomic, Insn, Load, Raw, Store, StoreImm
from harness.isa.stack_args import MAX_SLOTS, SLOT_SIZE
from harness.model import MapDef
from harness.verifier import context, tnum
from harness.verifier.bounds import Scalar, const, sext, truncate
from harness.verifier.const_fold import map_word
from harness.verifier.env import Env, NotModelled, Refused
from harness.verifier.fastcall import check_contract
from harness.verifier.precision import mark_register, mark_slots, push_history
from harness.verifier.state import (
    ADD_CONST,
    ARENA,
    ARG_ACCESS,
    BASE,
    BTF_ID,
    CTX,
    EMPTY,
    FLOW_KEYS,
    INVALID,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MAX_STACK,
    MAYBE_NULL,
    MEM,
    MEM_RDONLY,
    MISC,
    NOT_INIT,
    PACKET,
    PACKET_META,
    POISON,
    REG_SIZE,
    SCALAR,
    SOCK_COMMON,
    SOCKET,
    SPILL,
    STACK,
    STACK_ACCESS,
    TCP_SOCK,
    TP_BUFFER,
    UNINIT,
    UNKNOWN_REG,
    UNTRUSTED,
    XDP_SOCK,
    ZERO,
    ZERO_REG,
    Frame,
    Reg,
    Slot,
    type_name,
)

MAX_VAR_OFF = 1 << 29  # BPF_MAX_VAR_OFF
_S64_MIN = -(1 << 63)
_SPILL8 = bytes([SPILL] * 8)
LOADED = {  # what a load of unknown memory gives
    (size, sign): Reg(SCALAR, Scalar.from_load(size, sign))
    for size in (1, 2, 4, 8)
    for sign in (False, True)
    if size < 8 or not sign
}
_RDONLY_PROG, _WRONLY_PROG = 1 << 7, 1 << 8  # map flags
_PERCPU_ARRAY, _ARENA_MAP, _INSN_ARRAY = 6, 33, 34
_SPECIAL_FIELDS = frozenset({
    "bpf_spin_lock", "bpf_res_spin_lock", "bpf_timer", "bpf_list_head", "bpf_list_node",
    "bpf_rb_root", "bpf_rb_node", "bpf_refcount", "bpf_wq", "bpf_task_work",
})  # fmt: skip


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


def linkable(env: Env, reg: Reg) -> Reg:
    """Give a scalar an id before it is copied (``assign_scalar_id_before_mov``)."""
    if reg.type != SCALAR:
        return reg
    if reg.id & ADD_CONST:
        reg = reg.with_id(0)
    if not reg.id and not reg.num.is_const:
        reg = reg.with_id(env.new_id())
    return reg


def signed(value: int, bits: int = 64) -> int:
    """Return the low *bits* of *value* as a signed number."""
    sign = 1 << bits - 1
    return ((value & (sign << 1) - 1) ^ sign) - sign


# --- loads and stores ---------------------------------------------------------------


def load(env: Env, frame: Frame, insn: Load) -> None:
    """``check_load_mem``."""
    if insn.src == 11:
        check_writable(env, insn.dst)
        _arg_read(env, frame, insn.off, insn.dst)
        return
    base = read_reg(env, frame, insn.src)
    check_writable(env, insn.dst)
    access(env, base, f"R{insn.src}", insn.off, insn.size, False, insn.dst, insn.signed)
    save_pointer_type(env, base.type, True)


def store(env: Env, frame: Frame, insn: Store) -> None:
    """``check_store_reg``."""
    read_reg(env, frame, insn.src)
    if insn.dst == 11:
        _arg_write(env, frame, insn.off, frame.regs[insn.src])
        return
    base = read_reg(env, frame, insn.dst)
    access(env, base, f"R{insn.dst}", insn.off, insn.size, True, insn.src)
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
        raise NotModelled("one load through pointers of different trust")
    raise Refused("same insn cannot be used with different pointers", at)


def _mixable(kind: int) -> bool:
    base = kind & BASE
    if base in _NO_MIX:
        return False
    return base != MEM or not kind & UNTRUSTED


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
        raise NotModelled("a stack argument that the caller never wrote")
    frame.regs[dst] = args[slot]
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
    if (kind == STACK or strict) and size > 1:
        _check_alignment(env, reg, off, size)
    if kind == STACK:
        if size == 8 and not reg.num.mask:  # the common case, in bounds
            at = signed(reg.num.value) + off
            if -MAX_STACK <= at <= -size:
                frame = env.state.frames[reg.info]
                if len(frame.stack) * 8 < -at:
                    frame = _grow(env, reg.info, -at)
                if write:
                    _stack_write_fixed(env, reg.info, at, size, value)
                else:
                    _stack_read_fixed(env, frame, at, size, value)
                return
        check_stack_bounds(env, reg, name, off, size, write)
        if write:
            _stack_write(env, reg, off, size, value)
            return
        _stack_read(env, reg, name, off, size, value)
        if size < 8 and value >= 0:
            narrow(env, value, size, sign)
    elif kind == CTX:
        found = _context(env, reg, name, off, size, write)
        if not write and value >= 0:
            if found != SCALAR:
                raise NotModelled("a pointer from the context")
            env.frame().regs[value] = LOADED[size, sign]
    elif kind == MAP_VALUE:
        check_map_flags(env, reg, off, size, write)
        check_map_access(env, reg, name, off, size, False)
        if not write and value >= 0:
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
        raise NotModelled("packet access")
    elif kind in (SOCKET, SOCK_COMMON, TCP_SOCK, XDP_SOCK, FLOW_KEYS, TP_BUFFER, MAP_PTR):
        raise NotModelled(f"access through {type_name(kind)}")
    elif kind & BASE == BTF_ID and not kind & MAYBE_NULL:
        raise NotModelled("access through a BTF pointer (no kernel BTF)")
    elif kind == ARENA:
        if not write and value >= 0:
            env.frame().regs[value] = LOADED[size, sign]
    else:
        raise Refused(f"{name} invalid mem access '{type_name(kind)}'", env.insn)


def narrow(env: Env, value: int, size: int, sign: bool) -> None:
    """Cut a loaded scalar to its size (the end of ``check_mem_access``)."""
    regs = env.state.frames[-1].regs
    reg = regs[value]
    if reg.type != SCALAR:
        return
    num = reg.num
    if not sign:
        env.frame().regs[value] = reg.with_num(truncate(num, size))
        return
    keeps = num.umax < 1 << size * 8 - 1
    new = reg.with_num(sext(num, size * 8))
    env.frame().regs[value] = new if keeps else new.with_id(0)


_POINTEES = {  # check_ptr_alignment
    FLOW_KEYS: "flow keys ", MAP_KEY: "key ", MAP_VALUE: "value ", CTX: "context ",
    STACK: "stack ", SOCKET: "sock ", SOCK_COMMON: "sock_common ", TCP_SOCK: "tcp_sock ",
    XDP_SOCK: "xdp_sock ",
}  # fmt: skip


def _check_alignment(env: Env, reg: Reg, off: int, size: int) -> None:
    """Refuse a misaligned access (``check_generic_ptr_alignment``)."""
    if reg.type == ARENA:
        return
    num = reg.num
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


def check_fixed(env: Env, reg: Reg, name: str, off_ok: bool) -> None:
    """Refuse a pointer that was moved (``__check_ptr_off_reg``)."""
    num = reg.num
    if num.mask:
        raise Refused(
            f"variable {type_name(reg.type)} access var_off={num.var_off} disallowed", env.insn
        )
    if num.smin < 0:
        raise Refused(
            f"negative offset {type_name(reg.type)} ptr {name} off={num.signed_value} disallowed",
            env.insn,
        )
    if not off_ok and num.value:
        raise Refused(
            f"dereference of modified {type_name(reg.type)} ptr {name} "
            f"off={num.signed_value} disallowed",
            env.insn,
        )


def _context(env: Env, reg: Reg, name: str, off: int, size: int, write: bool) -> int:
    """``check_ctx_access``."""
    if context.variable_offset(env):
        check_region(env, reg, name, off, size, 0xFFFF, False)
    else:
        check_fixed(env, reg, name, context.fixed_offset(env))
    off += reg.num.umax
    found = context.access(env, off, size, write)
    if found is None:
        raise Refused(f"invalid bpf_context access off={off} size={size}", env.insn)
    return found


# --- maps ---------------------------------------------------------------------------------


def _map(reg: Reg) -> MapDef:
    found = reg.info
    assert isinstance(found, MapDef)
    return found


def special_fields(btf: Btf | None, type_id: int, depth: int = 0) -> bool:
    """Say whether a type has fields the kernel guards: locks, timers, kptrs, ..."""
    if btf is None or not type_id or depth > 16:
        return False
    kind = btf.resolve(type_id)
    if isinstance(kind, Struct):
        return kind.name in _SPECIAL_FIELDS or any(
            special_fields(btf, member.type, depth + 1) for member in kind.members
        )
    if isinstance(kind, Ptr):
        behind = btf.get(kind.type)
        return isinstance(behind, Modifier) and behind.name in (
            "kptr_untrusted", "kptr", "percpu_kptr", "uptr",
        )  # fmt: skip
    element = getattr(kind, "index_type", None)
    return element is not None and special_fields(btf, kind.type, depth + 1)  # type: ignore[union-attr]


def readonly(found: MapDef) -> bool:
    """``bpf_map_is_rdonly``: its contents are known."""
    return found.readonly


def check_map_flags(env: Env, reg: Reg, off: int, size: int, write: bool) -> None:
    """``check_map_access_type``."""
    found = _map(reg)
    if write and (found.readonly or found.flags & _RDONLY_PROG):
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


def check_map_access(env: Env, reg: Reg, name: str, off: int, size: int, zero_ok: bool) -> None:
    """``check_map_access``."""
    found = _map(reg)
    if found.type == _INSN_ARRAY:
        raise NotModelled("instruction arrays")
    check_region(env, reg, name, off, size, found.value_size, zero_ok)
    if found.value_type and special_fields(env.btf, found.value_type):
        raise NotModelled(f"special fields in the value of map {found.name}")


def _map_load(env: Env, reg: Reg, off: int, size: int, sign: bool) -> Reg:
    """``check_map_mem_read``."""
    found = _map(reg)
    if reg.num.is_const and found.readonly:
        at = signed(off + reg.num.value, 32)
        index = env.maps.index(found)
        word = map_word(env, index, at, size, sign)
        if word is None:
            raise NotModelled(f"the contents of map {found.name}")
        return Reg(SCALAR, const(word))
    return LOADED[size, sign]


# --- stack --------------------------------------------------------------------------------


def check_stack_bounds(env: Env, reg: Reg, name: str, off: int, size: int, write: bool) -> None:
    """``check_stack_access_within_bounds``; grows the stack that is tracked."""
    num = reg.num
    words = " write to" if write else " read from"
    if not num.mask:
        low = num.signed_value + off
        high = low + size
    else:
        if num.smax >= MAX_VAR_OFF or num.smin <= -MAX_VAR_OFF:
            raise Refused(f"invalid unbounded variable-offset{words} stack {name}", env.insn)
        low = num.smin + off
        high = num.smax + off + size
    if low < -MAX_STACK or low > -1 or high > 0 or size < 0:
        if not num.mask:
            raise Refused(f"invalid{words} stack {name} off={low} size={size}", env.insn)
        raise Refused(
            f"invalid variable-offset{words} stack {name} "
            f"var_off={num.var_off} off={off} size={size}",
            env.insn,
        )
    _grow(env, reg.info, -low)


def _grow(env: Env, number: int, size: int) -> Frame:
    """Track *size* bytes of a frame's stack (``grow_stack_state``)."""
    slots = -(-size // REG_SIZE)
    frame = env.state.frames[number]
    if len(frame.stack) >= slots:
        return frame
    frame = env.state.own(number)
    frame.stack.extend([EMPTY] * (slots - len(frame.stack)))
    sub = env.subs[frame.subprog]
    sub.stack_depth = max(sub.stack_depth, slots * REG_SIZE)
    return frame


def _stack_write(env: Env, reg: Reg, off: int, size: int, value: int) -> None:
    """``check_stack_write``."""
    if not reg.num.mask:
        _stack_write_fixed(env, reg.info, reg.num.signed_value + off, size, value)
    else:
        _stack_write_variable(env, reg, off, size, value)


def _misc(kind: int) -> int:
    """``mark_stack_slot_misc``."""
    return kind if kind in (ZERO, INVALID, POISON) else MISC


def _spilled(old: Slot, reg: Reg, size: int) -> Slot:
    """``save_register_state``."""
    if size == 8:
        return Slot(_SPILL8, reg)
    types = bytes(_misc(kind) for kind in old.types[: 8 - size]) + _SPILL8[:size]
    return Slot(types, reg)


def scrubbed(slot: Slot) -> bytes:
    """Return the bytes of a slot after a plain write spoilt its spill (``scrub_special_slot``)."""
    if not slot.special:
        return slot.types
    return bytes(kind if kind in (INVALID, POISON) else MISC for kind in slot.types)


def _stack_write_fixed(env: Env, number: int, off: int, size: int, value: int) -> None:
    """``check_stack_write_fixed_off``."""
    state = env.state
    current = len(state.frames) - 1
    frame = state.own(number)
    byte = -off - 1
    index = byte // REG_SIZE
    env.scratched_slots |= 1 << index
    slot = frame.stack[index]
    if slot.types[7] in (4, 5, 6):
        raise NotModelled("dynptr, iterator or irq slots on the stack")
    if env.fastcall_pattern:
        check_contract(env, frame, off)
    aligned = off % REG_SIZE == 0
    if value >= 0:
        reg = state.frames[current].regs[value]
        if aligned and reg.type == SCALAR:
            fits = reg.num.umax >> 8 * size == 0
            if fits:
                new = linkable(env, reg)
                if new is not reg:
                    reg = state.own(current).regs[value] = new
            frame.stack[index] = _spilled(slot, reg if fits else reg.with_id(0), size)
            push_history(env, STACK_ACCESS, index, number)
            return
        if reg.type != SCALAR:
            if size != REG_SIZE:
                env.log.line(env.insn)
                raise Refused("invalid size of register spill", env.insn)
            if number != current and reg.type == STACK:
                raise Refused(
                    "cannot spill pointers to stack into stack frame of the caller", env.insn
                )
            frame.stack[index] = Slot(_SPILL8, reg)
            push_history(env, STACK_ACCESS, index, number)
            return
        zero = reg.is_null
    else:
        insn: Insn = env.insns[env.insn]
        plain = isinstance(insn, StoreImm)
        if plain and aligned:
            assert isinstance(insn, StoreImm)
            frame.stack[index] = _spilled(slot, Reg(SCALAR, const(insn.imm)), size)
            push_history(env, STACK_ACCESS, index, number)
            return
        zero = isinstance(insn, StoreImm) and insn.imm == 0
    types = bytearray(scrubbed(slot))
    if zero and value >= 0:
        mark_register(env, value)
    for each in range(size):
        types[(byte - each) % REG_SIZE] = ZERO if zero else MISC
    frame.stack[index] = Slot(bytes(types))


def _stack_write_variable(env: Env, reg: Reg, off: int, size: int, value: int) -> None:
    """``check_stack_write_var_off``."""
    state = env.state
    low, high = reg.num.smin + off, reg.num.smax + off + size
    insn = env.insns[env.insn]
    if value >= 0:
        zero = state.frames[-1].regs[value].is_null
    else:
        zero = isinstance(insn, StoreImm) and insn.imm == 0
    zero_used = False
    stack = state.own(reg.info).stack
    if env.fastcall_pattern:
        check_contract(env, state.frames[reg.info], low)
    for at in range(low, high):
        byte = -at - 1
        index = byte // REG_SIZE
        env.scratched_slots |= 1 << index
        slot = stack[index]
        kind = slot.types[byte % REG_SIZE]
        if slot.types[7] in (4, 5, 6):
            raise NotModelled("dynptr, iterator or irq slots on the stack")
        if zero and kind == SPILL and slot.spilled_scalar and slot.reg.is_null:
            zero_used = True
            continue
        types = bytearray(scrubbed(slot))
        kind = types[byte % REG_SIZE]
        new = MISC
        if zero and kind == ZERO:
            new = ZERO
            zero_used = True
        types[byte % REG_SIZE] = new
        stack[index] = Slot(bytes(types))
    if zero_used and value >= 0:
        mark_register(env, value)


def _stack_read(env: Env, reg: Reg, name: str, off: int, size: int, value: int) -> None:
    """``check_stack_read``."""
    num = reg.num
    if num.mask:
        if value < 0:
            raise Refused(
                "variable offset stack pointer cannot be passed into helper function; "
                f"var_off={num.var_off} off={off} size={size}",
                env.insn,
            )
        check_initialised(env, reg, name, off, size, False, False, None)
        _mark_read(env, reg.info, num.smin + off, num.smax + off + size, value)
        if env.fastcall_pattern:
            check_contract(env, env.state.frames[reg.info], num.smin + off)
        return
    _stack_read_fixed(env, env.state.frames[reg.info], num.signed_value + off, size, value)


def _mark_read(env: Env, number: int, low: int, high: int, dst: int) -> None:
    """Give *dst* what bytes of the stack hold together (``mark_reg_stack_read``)."""
    stack = env.state.frames[number].stack
    spills = 0
    for at in range(low, high):
        byte = -at - 1
        index = byte // REG_SIZE
        env.scratched_slots |= 1 << index
        slot = stack[index]
        kind = slot.types[byte % REG_SIZE]
        if kind == ZERO:
            continue
        if kind == SPILL and slot.reg.is_null:
            spills |= 1 << index
            continue
        env.frame().regs[dst] = UNKNOWN_REG
        return
    env.frame().regs[dst] = ZERO_REG
    if spills:
        mark_slots(env, number, spills)


def _stack_read_fixed(env: Env, frame: Frame, off: int, size: int, dst: int) -> None:
    """``check_stack_read_fixed_off``."""
    byte = -off - 1
    index = byte // REG_SIZE
    env.scratched_slots |= 1 << index
    if env.fastcall_pattern:
        check_contract(env, frame, off)
    slot = frame.stack[index]
    types = slot.types
    if types[7] != SPILL:
        _check_bytes(env, types, byte, off, size)
        if dst >= 0:
            _mark_read(env, frame.number, off, off + size, dst)
        return
    reg = slot.reg
    if size == REG_SIZE and types == _SPILL8:
        if dst >= 0:
            new = linkable(env, reg)
            if new is not reg:
                env.state.own(frame.number).stack[index] = Slot(types, new)
            env.frame().regs[dst] = new
        push_history(env, STACK_ACCESS, index, frame.number)
        return
    spill_size = 1
    while spill_size < 8 and types[7 - spill_size] == SPILL:
        spill_size += 1
    if reg.type != SCALAR:
        env.log.line(env.insn)
        raise Refused("invalid size of register fill", env.insn)
    if dst < 0:
        return
    if size <= spill_size and off % REG_SIZE == 0:
        if size == 4 and spill_size == 4 and reg.num.umax >> 32 == 0:
            new = linkable(env, reg)
            if new is not reg:
                reg = new
                env.state.own(frame.number).stack[index] = Slot(types, reg)
        env.frame().regs[dst] = reg if reg.num.umax >> 8 * size == 0 else reg.with_id(0)
    else:
        spills, zeros = _check_bytes(env, types, byte, off, size)
        if spills == size and reg.is_null:
            env.frame().regs[dst] = ZERO_REG
        elif zeros == size:
            env.frame().regs[dst] = ZERO_REG
            return
        else:
            _mark_read(env, frame.number, off, off + size, dst)
            return
    push_history(env, STACK_ACCESS, index, frame.number)


def _check_bytes(env: Env, types: bytes, byte: int, off: int, size: int) -> tuple[int, int]:
    """Refuse bytes that dead-code analysis spoilt; return how many are spills and zeros."""
    spilled = types[7] == SPILL
    spills = zeros = 0
    for each in range(size):
        kind = types[(byte - each) % REG_SIZE]
        if kind == SPILL and spilled:
            spills += 1
        elif kind == ZERO:
            zeros += 1
        elif kind == POISON:
            raise Refused(
                f"reading from stack off {off}+{each} size {size}, "
                "slot poisoned by dead code elimination",
                env.insn,
            )
        elif kind not in (MISC, INVALID):
            raise Refused(f"invalid read from stack off {off}+{each} size {size}", env.insn)
    return spills, zeros


def check_initialised(
    env: Env,
    reg: Reg,
    name: str,
    off: int,
    size: int,
    write: bool,
    zero_ok: bool,
    raw: list[int] | None,
) -> None:
    """Check stack that a call reads or fills (``check_stack_range_initialized``).

    *raw* collects the size where the call initialises the memory itself. A negative
    *size* is a global function's argument, of which spoilt bytes may be part.
    """
    poison_ok = size < 0 or write
    size = abs(size)
    if size == 0 and not zero_ok:
        raise Refused("invalid zero-sized read", env.insn)
    check_stack_bounds(env, reg, name, off, size, write)
    num = reg.num
    if not num.mask:
        low = high = num.signed_value + off
        if raw is not None:
            raw[0] = size
            return
    else:
        low, high = num.smin + off, num.smax + off
    number = reg.info
    for at in range(low, high + size):
        byte = -at - 1
        index = byte // REG_SIZE
        stack = env.state.frames[number].stack
        if len(stack) * REG_SIZE <= byte:
            raise Refused("allocated_stack too small", env.insn)
        slot = stack[index]
        kind = slot.types[byte % REG_SIZE]
        if kind == MISC:
            continue
        if kind in (ZERO, INVALID):
            if write:
                types = bytearray(slot.types)
                types[byte % REG_SIZE] = MISC
                env.state.own(number).stack[index] = Slot(bytes(types), slot.reg)
            continue
        if slot.types[7] == SPILL:
            if write:
                types = bytearray(
                    each if each in (INVALID, POISON) else MISC for each in slot.types
                )
                env.state.own(number).stack[index] = Slot(bytes(types), UNKNOWN_REG)
            continue
        if kind == POISON:
            if poison_ok:
                continue
            raise Refused(
                f"reading from stack {name} off {low}+{at - low} size {size}, "
                "slot poisoned by dead code elimination",
                env.insn,
            )
        where = f"off {low}" if not num.mask else f"var_off {num.var_off}"
        raise Refused(f"invalid read from stack {name} {where}+{at - low} size {size}", env.insn)
