"""The program stack: spills, fills, and what lies between (verifier.c of Linux 7.3.4).

``check_stack_write``, ``check_stack_read``, ``check_stack_range_initialized`` and what
they call. Slots are eight bytes, each byte of a kind of its own; ``[0]`` is fp-8.
"""

from __future__ import annotations

from harness.isa.insn import Insn, StoreImm
from harness.verifier.bounds import const, sext, truncate
from harness.verifier.env import Env, Refused
from harness.verifier.fastcall import check_contract
from harness.verifier.objects import destroy_dynptr
from harness.verifier.precision import mark_register, mark_slots, push_history
from harness.verifier.state import (
    ADD_CONST,
    DYNPTR_SLOT,
    EMPTY,
    INVALID,
    MAX_STACK,
    MISC,
    POISON,
    REG_SIZE,
    SCALAR,
    SPILL,
    STACK,
    STACK_ACCESS,
    UNKNOWN_REG,
    ZERO,
    ZERO_REG,
    Frame,
    Reg,
    Slot,
)

MAX_VAR_OFF = 1 << 29  # BPF_MAX_VAR_OFF
_SPILL8 = bytes([SPILL] * 8)


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
    grow(env, reg.info, -low)


def grow(env: Env, number: int, size: int) -> Frame:
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


def write_stack(env: Env, reg: Reg, off: int, size: int, value: int) -> None:
    """``check_stack_write``."""
    if not reg.num.mask:
        write_fixed(env, reg.info, reg.num.signed_value + off, size, value)
    else:
        _write_variable(env, reg, off, size, value)


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


def write_fixed(env: Env, number: int, off: int, size: int, value: int) -> None:
    """``check_stack_write_fixed_off``."""
    state = env.state
    current = len(state.frames) - 1
    frame = state.own(number)
    byte = -off - 1
    index = byte // REG_SIZE
    env.scratched_slots |= 1 << index
    slot = frame.stack[index]
    if slot.types[0] == DYNPTR_SLOT:
        destroy_dynptr(env, number, index)
        slot = frame.stack[index]
    if env.fastcall_pattern:
        check_contract(env, frame, off)
    aligned = off % REG_SIZE == 0
    if value >= 0:
        reg = state.frames[current].regs[value]
        env.events.add(("spill", size, aligned, reg.type, number - current))
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


def _write_variable(env: Env, reg: Reg, off: int, size: int, value: int) -> None:
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
    for index in range((-high) // REG_SIZE, (-low - 1) // REG_SIZE + 1):
        if stack[index].types[0] == DYNPTR_SLOT:
            destroy_dynptr(env, reg.info, index)
    if env.fastcall_pattern:
        check_contract(env, state.frames[reg.info], low)
    for at in range(low, high):
        byte = -at - 1
        index = byte // REG_SIZE
        env.scratched_slots |= 1 << index
        slot = stack[index]
        kind = slot.types[byte % REG_SIZE]
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


def read_stack(env: Env, reg: Reg, name: str, off: int, size: int, value: int) -> None:
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
    read_fixed(env, env.state.frames[reg.info], num.signed_value + off, size, value)


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


def read_fixed(env: Env, frame: Frame, off: int, size: int, dst: int) -> None:
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
    env.events.add(("fill", size, types[:7].count(SPILL) + 1, reg.type))
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
