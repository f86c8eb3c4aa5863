"""Calls of subprograms and helpers, and the way back.

``check_func_call``, ``btf_check_subprog_call``, ``prepare_func_exit``,
``check_helper_call``, ``check_func_arg`` and what they call (verifier.c of Linux 7.3.4).
"""

from __future__ import annotations

from harness.isa.insn import Call
from harness.isa.stack_args import REG_ARGS, SLOT_SIZE
from harness.verifier import context
from harness.verifier.bounds import Scalar, const
from harness.verifier.env import Argument, Env, NotModelled, Refused, Subprog
from harness.verifier.form import TAIL_CALL
from harness.verifier.helpers import MAX_HELPER, PROTOTYPES, Prototype, helper_name, may_call
from harness.verifier.memory import (
    access,
    check_fixed,
    check_map_access,
    check_map_flags,
    check_region,
    read_reg,
    special_fields,
)
from harness.verifier.precision import mark_arg, mark_register, mark_slots
from harness.verifier.prototypes import Unusable, prepare_args, returns_void
from harness.verifier.prune import find_prev_entry, widen_imprecise
from harness.verifier.stack import check_initialised
from harness.verifier.state import (
    ARENA,
    BASE,
    BTF_ID,
    BUF,
    CTX,
    FUNC,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MAX_FRAMES,
    MAYBE_NULL,
    MEM,
    MEM_ALLOC,
    MEM_RCU,
    MEM_RDONLY,
    MEM_RINGBUF,
    NON_OWN_REF,
    PACKET,
    PACKET_END,
    PACKET_META,
    REG_SIZE,
    SCALAR,
    SPILL,
    STACK,
    TRUSTED,
    UNINIT,
    UNKNOWN_REG,
    ZERO,
    Frame,
    Reg,
    State,
    type_name,
)

_MAX_VAR_SIZE = 1 << 29  # BPF_MAX_VAR_SIZ
_MAX_ERRNO = 4095
_CPUS = 8192  # CONFIG_NR_CPUS; the kernel says nr_cpu_ids - 1
_INNER_MAP = 1 << 12  # BPF_F_INNER_MAP
CALLER_SAVED = [UNINIT] * 6

# fmt: off
# Map types                                        enum bpf_map_type
_HASH, _ARRAY, _PROG_ARRAY, _PERCPU_HASH, _PERCPU_ARRAY = 1, 2, 3, 5, 6
_LRU_HASH, _LRU_PERCPU_HASH, _LPM_TRIE, _QUEUE, _STACK_MAP, _RINGBUF = 9, 10, 11, 22, 23, 27
_PLAIN_MAPS = frozenset({
    _HASH, _ARRAY, _PERCPU_HASH, _PERCPU_ARRAY, _LRU_HASH, _LRU_PERCPU_HASH, _LPM_TRIE,
})
# What a map of a type may be passed to           check_map_func_compatibility
_MAP_TO_HELPERS = {
    _PROG_ARRAY: {12}, _QUEUE: {87, 88, 89}, _STACK_MAP: {87, 88, 89},
    _RINGBUF: {130, 131, 134, 198, 199, 200},
}
_HELPER_TO_MAPS = {
    12: {_PROG_ARRAY}, 87: {_QUEUE, _STACK_MAP}, 88: {_QUEUE, _STACK_MAP},
    89: {_QUEUE, _STACK_MAP}, 130: {_RINGBUF}, 134: {_RINGBUF},
}

_MEM_TYPES = (STACK, PACKET, PACKET_META, MAP_KEY, MAP_VALUE, MEM, MEM | MEM_RINGBUF, BUF,
              BTF_ID | TRUSTED, CTX)
_COMPATIBLE = {                                   # compatible_reg_types
    "map_key": _MEM_TYPES, "map_value": _MEM_TYPES, "mem": _MEM_TYPES, "fixed_mem": _MEM_TYPES,
    "size": (SCALAR,), "size_or_zero": (SCALAR,), "scalar": (SCALAR,), "map": (MAP_PTR,),
    "ctx": (CTX,), "func": (FUNC,), "stack_or_null": (STACK,), "const_str": (MAP_VALUE,),
}
# Pointers that may have an offset where they are passed on   __check_func_arg_reg_off
_ANY_OFFSET = frozenset({
    STACK, PACKET, PACKET_META, MAP_KEY, MAP_VALUE, MEM, MEM | MEM_RDONLY, MEM | MEM_RINGBUF,
    BUF, BUF | MEM_RDONLY, ARENA, SCALAR,
})
# fmt: on


# BTF pointers that may have a fixed offset there
_BTF_OFFSET = frozenset({
    BTF_ID, BTF_ID | MEM_ALLOC, BTF_ID | TRUSTED, BTF_ID | MEM_RCU,
    BTF_ID | MEM_ALLOC | NON_OWN_REF, BTF_ID | MEM_ALLOC | NON_OWN_REF | MEM_RCU,
})  # fmt: skip


def call(env: Env, frame: Frame, insn: Call) -> int:
    """Follow a call of a subprogram or helper; return where the current state goes on."""
    if env.subs[frame.subprog].incoming:
        frame.no_arg_load = True
    if insn.kind == "subprog":
        return _call_subprog(env, frame, insn)
    return _call_helper(env, frame, insn.imm)


# --- subprograms ------------------------------------------------------------------------


def arg_name(index: int) -> str:
    """Return argument *index*, from 0, as messages write it (``reg_arg_name``)."""
    if index < REG_ARGS:
        return f"R{index + 1}"
    return f"*(R11-{(index + 1 - REG_ARGS) * SLOT_SIZE})"


def _call_subprog(env: Env, frame: Frame, insn: Call) -> int:
    """``check_func_call``."""
    at = env.insn
    target = at + insn.imm + 1
    sub = env.find_subprog(target)
    assert sub is not None  # add_subprogs
    usable = _check_call(env, frame, sub)
    if sub.is_global:
        return _call_global(env, sub, usable)
    caller = env.subs[frame.subprog]
    caller.stack_arg_cnt = max(caller.stack_arg_cnt, caller.incoming + sub.incoming)
    callee = enter(env, env.state, sub, at)
    callee.regs[1:6] = frame.regs[1:6]
    frame = env.state.own(callee.number - 1)
    frame.regs[0:6] = CALLER_SAVED
    env.scratch_all()
    if env.log.on:
        env.log.state(env.state, callee.number - 1, text="caller:\n")
        env.log.state(env.state, callee.number, text="callee:\n")
    return sub.start


def enter(env: Env, state: State, sub: Subprog, callsite: int) -> Frame:
    """Put a new frame on *state* (``setup_func_entry``)."""
    number = len(state.frames)
    if number >= MAX_FRAMES:
        env.refuse(f"the call stack of {number + 1} frames is too deep")
    callee = Frame(callsite, number, sub.index)
    env.events.add(("frames", number + 1, sub.incoming))
    state.frames.append(callee)
    return callee


def _call_global(env: Env, sub: Subprog, usable: bool) -> int:
    """Go on behind a global function, which is verified by itself."""
    sleepable = env.state.sleepable
    if sub.might_sleep and not sleepable:
        env.refuse(f"sleepable global function {sub.name}() called in non-sleepable prog")
    if not usable:
        env.refuse(f"Caller passes invalid args into func#{sub.index} ('{sub.name}')")
    env.log.text(f"Func#{sub.index} ('{sub.name}') is global and assumed valid.\n")
    sub.called[sleepable] = True
    if sub.changes_packet:
        forget_packets(env)
    frame = env.frame()
    frame.regs[0:6] = CALLER_SAVED
    forget_args(frame)
    if not returns_void(env, sub):
        frame.regs[0] = UNKNOWN_REG
    env.scratched |= 0x3F
    return env.insn + 1


def forget_args(frame: Frame) -> None:
    """Forget outgoing slots, as every call does (``invalidate_outgoing_stack_args``)."""
    if frame.args:
        frame.args[:] = [UNINIT] * len(frame.args)


def forget_packets(env: Env) -> None:
    """Forget pointers to a packet that may have moved (``clear_all_pkt_pointers``)."""
    for frame in env.state.frames:
        held = [*frame.regs, *(slot.reg for slot in frame.stack), *frame.args]
        if any(reg.type in (PACKET, PACKET_META, PACKET_END) for reg in held):
            raise NotModelled("packet pointers")


def check_args_written(env: Env, frame: Frame, count: int) -> None:
    """``check_outgoing_stack_args``."""
    for slot in range(count - REG_ARGS):
        if slot >= len(frame.args) or frame.args[slot] is UNINIT or not frame.args[slot].type:
            env.refuse(f"callee expects {count} args, stack arg{slot + 1} is not initialized")


def _check_call(env: Env, frame: Frame, sub: Subprog) -> bool:
    """Compare arguments with the prototype (``btf_check_subprog_call``)."""
    if not env.has_func_info:
        if env.options.infer_arguments:
            check_args_written(env, frame, sub.arg_cnt)
        return False
    if sub.unreliable:
        return False
    try:
        prepare_args(env, sub)
    except Unusable:
        check_args_written(env, frame, sub.arg_cnt)
        sub.unreliable = True
        return False
    check_args_written(env, frame, sub.arg_cnt)
    for index, expected in enumerate(sub.args):
        try:
            _check_arg(env, sub, index, expected)
        except Refused as refusal:
            for line in refusal.message.splitlines():
                env.say(line)
            sub.unreliable = True
            return False
    return True


def _check_arg(env: Env, sub: Subprog, index: int, expected: Argument) -> None:
    """One argument of ``btf_check_func_arg_match``."""
    frame = env.state.frames[-1]
    reg = frame.regs[index + 1] if index < REG_ARGS else frame.args[index - REG_ARGS]
    name = arg_name(index)
    if expected.kind == "scalar":
        if reg.type != SCALAR:
            env.refuse(f"{name} is not a scalar")
    elif expected.kind == "ctx":
        check_offset(env, reg, name, "ctx")
        if reg.type != CTX:
            env.refuse(f"{name} expects pointer to ctx")
    else:
        check_offset(env, reg, name, "")
        if reg.is_null:
            if index < REG_ARGS:
                mark_register(env, index + 1)
            else:
                mark_arg(env, index - REG_ARGS)
        else:
            if expected.size >= 1 << 31:
                env.refuse(f"{name} memory size {expected.size} is too large")
            size = -expected.size if reg.type == STACK else expected.size
            for write in (False, True):
                helper_memory(env, reg, name, size, write, True, None)
        if reg.type in (PACKET, PACKET_META, PACKET_END) and sub.changes_packet:
            env.refuse(f"{name} is a packet pointer, but func#{sub.index} may change packet data")
        if not expected.nullable and (reg.type & MAYBE_NULL or reg.is_null):
            env.refuse(f"{name} is expected to be non-NULL")


def check_offset(env: Env, reg: Reg, name: str, kind: str, moved: bool = True) -> None:
    """``__check_func_arg_reg_off``; *moved*: a BTF pointer may have a fixed offset."""
    if reg.type in _ANY_OFFSET:
        return
    if reg.type in _BTF_OFFSET:
        check_fixed(env, reg, name, moved)
        return
    if reg.type == CTX and kind != "ctx" and context.variable_offset(env):
        return
    check_fixed(env, reg, name, False)


def leave(env: Env) -> int:
    """Return from a subprogram; return where the caller goes on (``prepare_func_exit``)."""
    state = env.state
    callee = state.frames[-1]
    result = callee.regs[0]
    if result.type == STACK:
        env.refuse("cannot return stack pointer to the caller")
    number = callee.number - 1
    if callee.in_callback:
        if result.type != SCALAR:
            env.refuse("R0 not a scalar value")
        mark_register(env, 0)
        low, high = callee.callback_range
        if not (low <= result.num.smin and result.num.smax <= high):
            env.refuse(invalid_scalar(result, (low, high), "At callback return", "R0"))
        to = callee.callsite
    else:
        caller = state.own(number)
        caller.regs[0] = result
        if env.subs[callee.subprog].returns_pair:
            caller.regs[2] = callee.regs[2]
        to = callee.callsite + 1
    if env.log.on:
        env.log.state(state, callee.number, text="returning from callee:\n")
        env.log.state(state, number, text=f"to caller at {to}:\n")
    env.account(callee.number)
    state.frames.pop()
    if state.frames[number].args:
        forget_args(state.own(number))
    if callee.in_callback:
        before = find_prev_entry(env, state, to)
        if before is not None:
            env.events.add(("widened",))
            widen_imprecise(before, state)
    return to


def invalid_scalar(reg: Reg, allowed: tuple[int, int], where: str, name: str) -> str:
    """``verbose_invalid_scalar``."""
    text = f"{where} the register {name} has"
    known = ""
    if reg.num.smin > -(1 << 63):
        known += f" smin={reg.num.smin}"
    if reg.num.smax < (1 << 63) - 1:
        known += f" smax={reg.num.smax}"
    return (
        f"{text}{known or ' unknown scalar value'} should have been in [{allowed[0]}, {allowed[1]}]"
    )


# --- helpers ------------------------------------------------------------------------------


class _Meta:
    """What the arguments of one helper call tell each other (``bpf_call_arg_meta``)."""

    def __init__(self) -> None:
        self.map: Reg | None = None
        self.subprog = 0
        self.const_key: int | None = None
        self.raw_reg = 0  # register of memory that the helper fills
        self.raw: list[int] = [0]  # its size
        self.size_max = 0


def _call_helper(env: Env, frame: Frame, number: int) -> int:
    """``check_helper_call``."""
    if not 0 <= number <= MAX_HELPER:
        env.refuse(f"invalid func {helper_name(number)}#{number}")
    name = helper_name(number)
    proto = PROTOTYPES.get(number)
    allowed = may_call(env.program.type, number)
    if allowed is False:
        env.refuse(f"program of this type cannot use helper {name}#{number}")
    if proto is None or allowed is None:
        raise NotModelled(f"helper {name}#{number}")
    meta = _Meta()
    for index, kind in enumerate(proto.args):
        if kind.split("|")[0] in ("mem", "map_value", "fixed_mem") and "uninit" in kind:
            meta.raw_reg = index + 1
    for index in range(len(proto.args)):
        _check_helper_arg(env, proto, index, meta, number)
    if meta.map is not None:
        _check_map_use(env, meta.map, number)
    frame = env.frame()
    for byte in range(meta.raw[0]):
        base = frame.regs[meta.raw_reg]
        access(env, base, f"R{meta.raw_reg}", byte, 1, True, -1)
        frame = env.frame()
    if number == 181:
        _call_loop(env, meta)
    elif number == 164:
        _call_for_each(env, meta)
    frame = env.frame()
    frame.regs[0:6] = CALLER_SAVED
    forget_args(frame)
    env.scratched |= 0x3F
    _set_result(env, frame, proto, number, meta)
    if meta.map is not None:
        _check_map_pair(env, meta.map, number)
    if number == TAIL_CALL and len(env.state.frames) > 1:
        return _tail_call(env, frame)
    return env.insn + 1


def _set_result(env: Env, frame: Frame, proto: Prototype, number: int, meta: _Meta) -> None:
    """Give r0 what the helper returns."""
    if proto.returns == "void":
        return
    if proto.returns == "integer":
        if number in (45, 114, 115):
            num = Scalar.from_srange(-_MAX_ERRNO, meta.size_max)
            frame.regs[0] = Reg(SCALAR, num)
        elif number == 8:
            frame.regs[0] = Reg(SCALAR, Scalar.from_urange(0, _CPUS - 1))
        else:
            frame.regs[0] = UNKNOWN_REG
        return
    assert meta.map is not None
    found = meta.map.info
    kind = MAP_VALUE | MAYBE_NULL
    if (
        number == 1
        and _may_elide_null(found.type, found.flags)
        and meta.const_key is not None
        and 0 <= meta.const_key < found.max_entries
    ):
        kind = MAP_VALUE
    ident = env.new_id() if kind & MAYBE_NULL else 0
    frame.regs[0] = Reg(kind, const(0), ident, 0, found, 0, meta.map.map_uid)


def _may_elide_null(map_type: int, flags: int) -> bool:
    """``can_elide_value_nullness``."""
    return not flags & _INNER_MAP and map_type in (_ARRAY, _PERCPU_ARRAY)


def _check_map_use(env: Env, reg: Reg, number: int) -> None:
    """``record_func_map`` and ``record_func_key``."""
    found = reg.info
    if (found.readonly or found.flags & 1 << 7) and number in (2, 3, 87, 88):
        env.refuse("write into map forbidden")
    if number == TAIL_CALL:
        if found.type != _PROG_ARRAY:
            env.refuse("expected prog array map for tail call")
        index = env.state.frames[-1].regs[3]
        if index.type == SCALAR and index.num.is_const and index.num.value < found.max_entries:
            mark_register(env, 3)


def _check_map_pair(env: Env, reg: Reg, number: int) -> None:
    """``check_map_func_compatibility``."""
    found = reg.info
    helpers = _MAP_TO_HELPERS.get(found.type)
    if helpers is None and found.type not in _PLAIN_MAPS:
        raise NotModelled(f"maps of type {found.type}")
    maps = _HELPER_TO_MAPS.get(number)
    if (helpers is not None and number not in helpers) or (
        maps is not None and found.type not in maps
    ):
        env.refuse(f"cannot pass map_type {found.type} into func {helper_name(number)}#{number}")
    if number == TAIL_CALL and len(env.subs) > 1 and not env.options.jit:
        env.refuse("mixing of tail_calls and bpf-to-bpf calls is not supported")


def _tail_call(env: Env, frame: Frame) -> int:
    """Return from a subprogram by a tail call, or go on behind a failed one."""
    at = env.insn
    if frame.in_callback:
        env.refuse("cannot tail call within callback")
    env.push(at + 1, at)
    forget_packets(env)
    env.frame().regs[0] = UNKNOWN_REG
    return leave(env)


def _check_helper_arg(env: Env, proto: Prototype, index: int, meta: _Meta, number: int) -> None:
    """``check_func_arg``."""
    kind, *flags = proto.args[index].split("|")
    number_of_reg = index + 1
    name = f"R{number_of_reg}"
    reg = read_reg(env, env.state.frames[-1], number_of_reg)
    if kind == "anything":
        return
    if reg.type in (PACKET, PACKET_META):
        raise NotModelled("packet pointers")
    nullable = "null" in flags or kind == "stack_or_null"
    if reg.is_null and nullable:
        mark_register(env, number_of_reg)
    else:
        _check_type(env, reg, name, kind, flags, nullable)
        check_offset(env, reg, name, kind)
    if kind == "map":
        meta.map = reg
    elif kind == "map_key":
        assert meta.map is not None
        found = meta.map.info
        helper_memory(env, reg, name, found.key_size, False, False, None)
        if _may_elide_null(found.type, found.flags):
            meta.const_key = _constant_key(env, number_of_reg, found.key_size)
    elif kind == "map_value":
        assert meta.map is not None
        raw = meta.raw if meta.raw_reg == number_of_reg else None
        size = meta.map.info.value_size
        helper_memory(env, reg, name, size, "write" in flags, False, raw)
    elif kind == "fixed_mem":
        size = proto.sizes[sum(a.startswith("fixed_mem") for a in proto.args[:index])]
        raw = meta.raw if meta.raw_reg == number_of_reg else None
        if reg.is_null:
            mark_register(env, number_of_reg)
        else:
            helper_memory(env, reg, name, size, "write" in flags, True, raw)
        if "aligned" in flags and (reg.num.value | reg.num.mask) % size:
            raise NotModelled("alignment of a helper's memory")
    elif kind in ("size", "size_or_zero"):
        _check_size(env, proto, index, meta, kind == "size_or_zero")
    elif kind == "func":
        meta.subprog = reg.info
    elif kind == "const_str":
        raise NotModelled(f"constant strings of {helper_name(number)}")


def _check_type(env: Env, reg: Reg, name: str, kind: str, flags: list[str], nullable: bool) -> None:
    """``check_reg_type``."""
    found = reg.type
    if "rdonly" in flags:
        found &= ~MEM_RDONLY
    if nullable:
        found &= ~MAYBE_NULL
    expected = _COMPATIBLE[kind]
    if found not in expected:
        words = ", ".join(type_name(one) for one in expected)
        env.refuse(f"{name} type={type_name(reg.type)} expected={words}")
    if reg.type & BASE == BTF_ID:
        raise NotModelled("passing a BTF pointer (no kernel BTF)")


def _check_size(env: Env, proto: Prototype, index: int, meta: _Meta, zero_ok: bool) -> None:
    """``check_mem_size_reg``."""
    regs = env.state.frames[-1].regs
    size, memory = regs[index + 1], regs[index]
    name, memory_name = f"R{index + 1}", f"R{index}"
    num = size.num
    meta.size_max = num.umax
    raw = meta.raw if meta.raw_reg == index and num.is_const else None
    if num.smin < 0:
        env.refuse(f"{name} min value is negative, either use unsigned or 'var &= const'")
    if num.umin == 0 and not zero_ok:
        high = num.umax - ((num.umax >> 63) << 64)
        env.refuse(f"{name} invalid zero-sized read: u64=[{num.umin},{high}]")
    if num.umax >= _MAX_VAR_SIZE:
        env.refuse(f"{name} unbounded memory access, use 'var &= const' or 'if (var < const)'")
    write = "write" in proto.args[index - 1].split("|")
    helper_memory(env, memory, memory_name, num.umax, write, zero_ok, raw)
    mark_register(env, index + 1)


def helper_memory(
    env: Env, reg: Reg, name: str, size: int, write: bool, zero_ok: bool, raw: list[int] | None
) -> None:
    """Check memory that a callee reads or writes (``check_helper_mem_access``)."""
    kind = reg.type
    base = kind & BASE
    if base == STACK:
        check_initialised(env, reg, name, 0, size, write, zero_ok, raw)
    elif base == MAP_KEY:
        if write:
            env.refuse(f"{name} cannot write into {type_name(kind)}")
        check_region(env, reg, name, 0, size, reg.info.key_size, False)
    elif base == MAP_VALUE:
        check_map_flags(env, reg, 0, size, write)
        check_map_access(env, reg, name, 0, size, zero_ok)
        if special_fields(env.btf, reg.info.value_type):
            raise NotModelled("special fields in a map value")
    elif base == MEM:
        if kind & MEM_RDONLY and write:
            env.refuse(f"{name} cannot write into {type_name(kind)}")
        check_region(env, reg, name, 0, size, reg.info, zero_ok)
    elif base in (PACKET, PACKET_META, BUF, BTF_ID):
        raise NotModelled(f"passing memory of type {type_name(kind)}")
    elif kind == CTX and context.variable_offset(env):
        check_region(env, reg, name, 0, size, 0xFFFF, zero_ok)
    elif not (zero_ok and size == 0 and reg.is_null):
        env.refuse(f"{name} type={type_name(kind)} expected={type_name(STACK)}")


def _constant_key(env: Env, number: int, key_size: int) -> int | None:
    """Return the key that a register points to, if known (``get_constant_map_key``)."""
    key = env.state.frames[-1].regs[number]
    if key.type != STACK or key.num.mask:
        return None
    byte = -key.num.signed_value - 1
    index, last = byte // REG_SIZE, byte % REG_SIZE
    slot = env.state.frames[key.info].stack[index]
    types = slot.types

    def run(kind: int) -> int:
        count = 0
        for each in range(last, -1, -1):
            if types[each] != kind:
                break
            count += 1
        return count

    if run(ZERO) >= key_size:
        return 0
    if not slot.spilled_scalar or run(SPILL) != key_size or not slot.reg.num.is_const:
        return None
    mark_slots(env, key.info, 1 << index)
    value = slot.reg.num.signed_value
    return value if value >= 0 else None


# --- callbacks ------------------------------------------------------------------------------


def _call_loop(env: Env, meta: _Meta) -> None:
    """``bpf_loop``: the callback may run, up to r1 times."""
    regs = env.state.frames[-1].regs
    if regs[4].is_null:
        mark_register(env, 4)  # update_loop_inline_state
    mark_register(env, 1)
    frame = env.frame()
    if frame.callback_depth >= regs[1].num.umax:
        frame.callback_depth = 0
        if env.log.level > 1:
            env.log.text(f"frame{len(env.state.frames) - 1} bpf_loop iteration limit reached\n")
        return
    callee = _push_callback(env, meta.subprog)
    callee.regs[1] = UNKNOWN_REG
    callee.regs[2] = regs[3]


def _call_for_each(env: Env, meta: _Meta) -> None:
    """``bpf_for_each_map_elem``."""
    regs = env.state.frames[-1].regs
    assert meta.map is not None
    found = meta.map.info
    if found.type not in (
        _HASH, _ARRAY, _PERCPU_HASH, _PERCPU_ARRAY, _LRU_HASH, _LRU_PERCPU_HASH,
    ):  # fmt: skip
        env.refuse("callback function not allowed for map")
    callee = _push_callback(env, meta.subprog)
    callee.regs[1] = regs[1]
    callee.regs[2] = Reg(MAP_KEY, const(0), info=found, map_uid=regs[1].map_uid)
    callee.regs[3] = Reg(MAP_VALUE, const(0), env.new_id(), info=found, map_uid=regs[1].map_uid)
    callee.regs[4] = regs[3]


def _push_callback(env: Env, number: int) -> Frame:
    """Keep a state that runs the callback first (``push_callback_call``)."""
    at = env.insn
    sub = env.subs[number]
    _check_call(env, env.frame(), sub)
    sub.is_callback = True
    branch = env.push(sub.start, at)
    callee = enter(env, branch, sub, at)
    callee.in_callback = True
    callee.callback_range = (0, 1)
    env.scratch_all()
    branch.callback_unroll += 1
    branch.own(callee.number - 1).callback_depth += 1
    env.frame().callback_depth = 0
    return callee
