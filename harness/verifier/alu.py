"""Arithmetic and moves (``check_alu_op`` and what it calls, verifier.c of Linux 7.3.4)."""

from __future__ import annotations

from functools import lru_cache

from harness.isa.insn import AddrSpaceCast, Alu, Endian, LoadImm
from harness.verifier import bounds
from harness.verifier.bounds import Scalar, const
from harness.verifier.env import Env, NotModelled, Refused
from harness.verifier.memory import check_writable, read_reg
from harness.verifier.precision import mark_register
from harness.verifier.stack import MAX_VAR_OFF, linkable, signed
from harness.verifier.state import (
    ADD_CONST,
    ADD_CONST32,
    ADD_CONST64,
    ARENA,
    BASE,
    BTF_ID,
    BUF,
    CTX,
    DYNPTR,
    FLOW_KEYS,
    FUNC,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MAYBE_NULL,
    MEM,
    PACKET,
    PACKET_META,
    SCALAR,
    STACK,
    TP_BUFFER,
    UNKNOWN_REG,
    UNTRUSTED,
    Frame,
    Reg,
    type_name,
)

M32 = (1 << 32) - 1
M64 = (1 << 64) - 1
_S32_MIN = -(1 << 31)
_S64_MIN = -(1 << 63)

_MOVABLE = frozenset({
    CTX, MAP_VALUE, MAP_KEY, STACK, PACKET_META, PACKET, TP_BUFFER, BTF_ID, MEM, BUF, FUNC,
    DYNPTR,
})  # fmt: skip

_SYMBOLS = {  # bpf_alu_string
    "add": "+=", "sub": "-=", "mul": "*=", "div": "/=", "or": "|=", "and": "&=", "lsh": "<<=",
    "rsh": ">>=", "neg": "neg", "mod": "%=", "xor": "^=", "mov": "=", "arsh": "s>>=",
    "sdiv": "/=", "smod": "%=",
}  # fmt: skip


_TOTAL = frozenset({"add", "sub", "mul", "xor"})


@lru_cache(1 << 10)
def _constant(imm: int) -> Reg:
    return Reg(SCALAR, const(imm))


def alu(env: Env, frame: Frame, insn: Alu) -> None:
    """``check_alu_op``."""
    op = insn.op
    if op == "mov":
        _mov(env, frame, insn)
        return
    dst = insn.dst
    if op == "neg":
        reg = read_reg(env, frame, dst)
        if reg.type == SCALAR:
            check_writable(env, dst)
            frame.regs[dst] = Reg(SCALAR, bounds.alu("neg", insn.bits, reg.num, reg.num))
        else:
            check_writable(env, dst)
            frame.regs[dst] = UNKNOWN_REG
        return
    regs = frame.regs
    left, src = regs[dst], insn.src
    right = _constant(insn.imm) if src is None else regs[src]
    if (
        left.type == SCALAR == right.type
        and not left.id
        and not left.delta
        and op in _TOTAL
        and not env.has_arena
    ):  # the common case: nothing is refused, linked or split
        regs[dst] = left.with_num(bounds.alu(op, insn.bits, left.num, right.num))
        return
    if src is not None:
        read_reg(env, frame, src)
    read_reg(env, frame, dst)
    if src is None:
        if op in ("div", "mod", "sdiv", "smod") and insn.imm == 0:
            raise Refused("div by zero", env.insn)
        if op in ("lsh", "rsh", "arsh") and not 0 <= insn.imm < insn.bits:
            raise Refused(f"invalid shift {insn.imm}", env.insn)
    check_writable(env, dst)
    _arithmetic(env, frame, insn)


def endian(env: Env, frame: Frame, insn: Endian) -> None:
    """Byte swaps (``BPF_END`` in ``check_alu_op``)."""
    reg = read_reg(env, frame, insn.dst)
    check_writable(env, insn.dst)
    if reg.type == SCALAR:
        new = reg.with_num(bounds.endian(insn.op, insn.bits, reg.num))
        keeps = insn.op == "le" and insn.bits == 64  # nothing changes
        frame.regs[insn.dst] = new if keeps else new.with_id(0)
    else:
        frame.regs[insn.dst] = UNKNOWN_REG


def cast(env: Env, frame: Frame, insn: AddrSpaceCast) -> None:
    """``addr_space_cast``."""
    if not any(found.type == 33 for found in env.maps):
        raise Refused(
            "addr_space_cast insn can only be used in a program that has an associated arena",
            env.insn,
        )
    read_reg(env, frame, insn.src)
    check_writable(env, insn.dst)
    frame.regs[insn.dst] = Reg(ARENA, UNKNOWN_REG.num) if insn.imm == 1 else UNKNOWN_REG


def load_imm(env: Env, frame: Frame, insn: LoadImm) -> None:
    """``check_ld_imm``."""
    check_writable(env, insn.dst)
    dst, low = insn.dst, insn.imm & M32
    match insn.src:
        case 0:
            frame.regs[dst] = Reg(SCALAR, const(insn.imm))
        case 3:
            frame.regs[dst] = env.symbols[env.insn]
        case 4:
            if not env.has_func_info:
                raise Refused("missing btf func_info", env.insn)
            sub = env.find_subprog(env.insn + signed(low, 32) + 1)
            assert sub is not None  # add_subprogs
            if sub.is_global:
                raise Refused("callback function not static", env.insn)
            if not sub.index:
                raise Refused("callback function cannot be the main program", env.insn)
            frame.regs[dst] = Reg(FUNC, const(0), info=sub.index)
        case 5:
            frame.regs[dst] = Reg(MAP_PTR, const(0), info=env.maps[low])
        case 6 if env.maps[low].type == 33:  # an address in an arena
            frame.regs[dst] = UNKNOWN_REG
        case 6:
            frame.regs[dst] = Reg(MAP_VALUE, const(insn.imm >> 32), info=env.maps[low])
        case kind:
            raise NotModelled(f"ld_imm64 of kind {kind}")


# --- moves --------------------------------------------------------------------------


def _mov(env: Env, frame: Frame, insn: Alu) -> None:
    dst, src = insn.dst, insn.src
    regs = frame.regs
    if src is None:
        check_writable(env, dst)
        imm = insn.imm if insn.bits == 64 else insn.imm & M32
        regs[dst] = Reg(SCALAR, const(imm))
        return
    reg = read_reg(env, frame, src)
    check_writable(env, dst)
    if insn.bits == 64:
        if not insn.sx:
            if reg.type == SCALAR:
                reg = regs[src] = linkable(env, reg)
            regs[dst] = reg
        elif reg.type == SCALAR:
            _extend(env, frame, insn, reg, 64)
        else:
            regs[dst] = UNKNOWN_REG
        return
    if reg.type != SCALAR:
        regs[dst] = Reg(SCALAR, bounds.mov32(UNKNOWN_REG.num))
    elif insn.sx:
        _extend(env, frame, insn, reg, 32)
    else:
        narrow = reg.num.umax <= M32
        if narrow:
            reg = regs[src] = linkable(env, reg)
        new = reg.with_num(bounds.mov32(reg.num))
        regs[dst] = new if narrow else new.with_id(0)


def _extend(env: Env, frame: Frame, insn: Alu, reg: Reg, to: int) -> None:
    assert insn.src is not None
    keeps = reg.num.umax < 1 << insn.sx - 1
    if keeps:
        reg = frame.regs[insn.src] = linkable(env, reg)
    new = reg.with_num(bounds.sext(reg.num, insn.sx, to))
    frame.regs[insn.dst] = new if keeps else new.with_id(0)


# --- arithmetic -----------------------------------------------------------------------


def _arithmetic(env: Env, frame: Frame, insn: Alu) -> None:
    """``adjust_reg_min_max_vals``."""
    regs = frame.regs
    dst = regs[insn.dst]
    src = insn.src
    operand = _constant(insn.imm) if src is None else regs[src]
    if dst.type == ARENA or operand.type == ARENA:
        if dst.type != ARENA:
            regs[insn.dst] = operand
        if insn.bits == 64:
            if env.insn in env.not_alu32:
                env.refuse("same insn cannot be used with and without arena pointer")
            env.alu32.add(env.insn)
        return
    if env.has_arena and insn.bits == 64:
        if env.insn in env.alu32:
            env.refuse("same insn cannot be used with and without arena pointer")
        env.not_alu32.add(env.insn)
    if dst.type != SCALAR or operand.type != SCALAR:
        if operand.type == SCALAR:
            if src is not None:
                mark_register(env, src)
            _pointer(env, frame, insn, dst, operand, True)
        elif dst.type == SCALAR:
            mark_register(env, insn.dst)
            _pointer(env, frame, insn, operand, dst, False)
        elif insn.op == "sub":
            regs[insn.dst] = UNKNOWN_REG
        else:
            raise Refused(f"R{insn.dst} pointer {_SYMBOLS[insn.op]} pointer prohibited", env.insn)
        return
    num, other = dst.num, operand.num
    if insn.op in ("and", "or"):
        forked = bounds.fork(insn.op, num, other)
        if forked is not None:
            pushed, num = forked
            branch = env.push(env.insn, env.insn)
            full = pushed == const(0) and forked[1].is_const
            branch.own(len(branch.frames) - 1).regs[insn.dst] = (
                Reg(SCALAR, pushed) if full else dst.with_num(pushed)
            )
            frame = env.frame()
            regs = frame.regs
            if full:
                dst = Reg(SCALAR, num)
    before = num
    if not _computable(insn, other):
        regs[insn.dst] = UNKNOWN_REG
        new = UNKNOWN_REG
    else:
        new = dst.with_num(bounds.alu(insn.op, insn.bits, num, other))
    regs[insn.dst] = _linked(insn, new, before, other)


def _computable(insn: Alu, src: Scalar) -> bool:
    """``is_safe_to_compute_dst_reg_range``: otherwise the id goes too."""
    op = insn.op
    if op in ("add", "sub", "and", "xor", "or", "mul"):
        return True
    if insn.bits == 32:
        constant = src.is_const32 and src.s32_min == src.s32_max and src.u32_min == src.u32_max
    else:
        constant = src.is_const and src.smin == src.smax and src.umin == src.umax
    if op in ("div", "mod", "sdiv", "smod"):
        return constant
    return constant and src.umax < insn.bits


def _linked(insn: Alu, new: Reg, before: Scalar, src: Scalar) -> Reg:
    """Remember ``r1 = r2 + constant``, or that nothing links (``adjust_reg_min_max_vals``)."""
    if not new.id:
        return new if not new.delta else new.with_id(0)
    narrow = insn.bits == 32
    if (
        insn.op not in ("add", "sub")
        or not (src.is_const32 if narrow else src.is_const)
        or insn.src == insn.dst
    ):
        return new.with_id(0)
    value = src.value & M32 if narrow else src.signed_value
    if not narrow and not _S32_MIN <= value < 1 << 31:
        return new.with_id(0)
    if narrow and before.umax > M32:
        return new.with_id(0)
    off = signed(value, 32)
    if insn.op == "sub":
        if off == _S32_MIN:
            return new.with_id(0)
        off = -off
    if new.id & ADD_CONST:
        return new.with_id(0)
    return new.with_id(new.id | (ADD_CONST32 if narrow else ADD_CONST64), off)


def _pointer(env: Env, frame: Frame, insn: Alu, ptr: Reg, off: Reg, ptr_is_dst: bool) -> None:
    """``adjust_ptr_min_max_vals``."""
    dst = insn.dst
    kind = ptr.type
    num = off.num
    known = num.is_const
    if (
        (known and (num.smin != num.smax or num.umin != num.umax))
        or num.smin > num.smax
        or num.umin > num.umax
    ):
        frame.regs[dst] = UNKNOWN_REG
        return
    op = insn.op
    if insn.bits != 64:
        if op == "sub":
            frame.regs[dst] = UNKNOWN_REG
            return
        raise Refused(f"R{dst} 32-bit pointer arithmetic prohibited", env.insn)
    if kind & MAYBE_NULL:
        raise Refused(
            f"R{dst} pointer arithmetic on {type_name(kind)} prohibited, null-check it first",
            env.insn,
        )
    base = kind & BASE
    zero_add = known and num.smin == 0 and op == "add"
    if not (
        base in _MOVABLE
        or (base == FLOW_KEYS and known)
        or (base in (MAP_PTR, FLOW_KEYS) and zero_add)
    ):
        raise Refused(f"R{dst} pointer arithmetic on {type_name(kind)} prohibited", env.insn)
    if base == MEM and kind & UNTRUSTED:
        frame.regs[dst] = ptr
        return
    _check_scalar_offset(env, num, kind)
    _check_pointer_offset(env, ptr.num, kind)
    packet = base in (PACKET, PACKET_META)
    info, ident = ptr.info, ptr.id
    if op == "add":
        if packet:
            if not known:
                ident = env.new_id()
            if not known or info < 0:
                info = 0
    elif op == "sub":
        if not ptr_is_dst:
            raise Refused(f"R{dst} tried to subtract pointer from scalar", env.insn)
        if kind == STACK:
            raise Refused(f"R{dst} subtraction from stack pointer prohibited", env.insn)
        if packet:
            if not known:
                ident = env.new_id()
            if (not known and num.smin < 0) or info < 0:
                info = 0
    elif op in ("and", "or", "xor"):
        raise Refused(f"R{dst} bitwise operator {_SYMBOLS[op]} on pointer prohibited", env.insn)
    else:
        raise Refused(
            f"R{dst} pointer arithmetic with {_SYMBOLS[op]} operator prohibited", env.insn
        )
    moved = bounds.add_offset(op, ptr.num, num, tighten=False)
    _check_pointer_offset(env, moved, kind)
    if not (packet and (known or info > 0)):
        moved = bounds.sync(moved)
    new = Reg(kind, moved, ident, ptr.delta, info, ptr.parent_id, ptr.map_uid)
    frame.regs[dst] = new


def _check_scalar_offset(env: Env, num: Scalar, kind: int) -> None:
    """``check_reg_sane_offset_scalar``."""
    value, low = num.signed_value, num.smin
    if num.is_const and not -MAX_VAR_OFF < value < MAX_VAR_OFF:
        raise Refused(
            f"math between {type_name(kind)} pointer and {value} is not allowed", env.insn
        )
    if low == _S64_MIN:
        raise Refused(
            f"math between {type_name(kind)} pointer and register with "
            "unbounded min value is not allowed",
            env.insn,
        )
    if not -MAX_VAR_OFF < low < MAX_VAR_OFF:
        raise Refused(f"value {low} makes {type_name(kind)} pointer be out of bounds", env.insn)


def _check_pointer_offset(env: Env, num: Scalar, kind: int) -> None:
    """``check_reg_sane_offset_ptr``."""
    for value in (num.signed_value,) if num.is_const else ():
        if not -MAX_VAR_OFF < value < MAX_VAR_OFF:
            raise Refused(f"{type_name(kind)} pointer offset {value} is not allowed", env.insn)
    if not -MAX_VAR_OFF < num.smin < MAX_VAR_OFF:
        raise Refused(f"{type_name(kind)} pointer offset {num.smin} is not allowed", env.insn)
