"""Calls of subprograms and helpers, and the way back.

``check_func_call``, ``btf_check_subprog_call``, ``prepare_func_exit``,
``check_helper_call``, ``check_func_arg`` and what they call (verifier.c of Linux 7.3.4).
"""

from __future__ import annotations

from harness.isa.insn import Call, LoadPacket
from harness.isa.stack_args import REG_ARGS, SLOT_SIZE
from harness.model import MapDef
from harness.verifier import (
    attach,
    btf_pointer,
    context,
    kptrs,
    maps,
    object_args,
    objects,
    packets,
    percpu,
    records,
    refs,
)
from harness.verifier.bounds import Scalar, const
from harness.verifier.btf_pointer import check_fixed
from harness.verifier.env import MAX_JUMP_SEQUENCE, Argument, Env, NotModelled, Refused, Subprog
from harness.verifier.form import TAIL_CALL
from harness.verifier.helper_prototypes import Prototype
from harness.verifier.helpers import (
    ACQUIRES,
    CASTS,
    CHANGES_PACKET,
    MAX_HELPER,
    gpl_only,
    helper_name,
    is_known,
    prototype,
    sleeps,
)
from harness.verifier.memory import (
    access,
    check_alignment,
    check_buffer,
    check_map_access,
    check_map_flags,
    check_packet,
    check_region,
    read_reg,
)
from harness.verifier.meta import Meta
from harness.verifier.precision import mark_arg, mark_register, mark_slots
from harness.verifier.prototypes import Unusable, prepare_args, returns_void
from harness.verifier.prune import find_prev_entry, widen_imprecise
from harness.verifier.results import invalid_scalar
from harness.verifier.stack import check_initialised
from harness.verifier.state import (
    ARENA,
    BASE,
    BTF_ID,
    BUF,
    CTX,
    DYNPTR,
    DYNPTR_FLAGS,
    FUNC,
    MAIN,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MAX_FRAMES,
    MAYBE_NULL,
    MEM,
    MEM_ALLOC,
    MEM_PERCPU,
    MEM_RCU,
    MEM_RDONLY,
    MEM_RINGBUF,
    NON_OWN_REF,
    PACKET,
    PACKET_META,
    REG_SIZE,
    SCALAR,
    SOCK_COMMON,
    SOCKET,
    SPILL,
    STACK,
    TCP_SOCK,
    TRUSTED,
    UNINIT,
    UNKNOWN_REG,
    XDP_SOCK,
    ZERO,
    ZERO_REG,
    Frame,
    Reg,
    State,
    in_packet,
    type_name,
)

END = -1  # a path ends with the call
_MAX_VAR_SIZE = 1 << 29  # BPF_MAX_VAR_SIZ
_MAX_ERRNO = 4095
_CPUS = 8192  # CONFIG_NR_CPUS; the kernel says nr_cpu_ids - 1
CALLER_SAVED = [UNINIT] * 6

# fmt: off
_MEM_TYPES = (STACK, PACKET, PACKET_META, MAP_KEY, MAP_VALUE, MEM, MEM | MEM_RINGBUF, BUF,
              BTF_ID | TRUSTED, CTX)
_COMPATIBLE = {                                   # compatible_reg_types
    "map_key": _MEM_TYPES, "map_value": _MEM_TYPES, "bloom_value": _MEM_TYPES,
    "mem": _MEM_TYPES, "fixed_mem": _MEM_TYPES,
    "btf": (BTF_ID, BTF_ID | TRUSTED, BTF_ID | MEM_RCU),
    "percpu_btf": (BTF_ID | MEM_PERCPU, BTF_ID | MEM_PERCPU | MEM_RCU,
                   BTF_ID | MEM_PERCPU | TRUSTED),
    "sock_common": (SOCK_COMMON, SOCKET, TCP_SOCK, XDP_SOCK), "socket": (SOCKET,),
    "sock_common_btf": (SOCK_COMMON, SOCKET, TCP_SOCK, XDP_SOCK, BTF_ID, BTF_ID | TRUSTED),
    "size": (SCALAR,), "size_or_zero": (SCALAR,), "scalar": (SCALAR,), "map": (MAP_PTR,),
    "ctx": (CTX,), "func": (FUNC,), "stack_or_null": (STACK,), "const_str": (MAP_VALUE,),
    "alloc_size": (SCALAR,), "spin_lock": (MAP_VALUE, BTF_ID | MEM_ALLOC), "timer": (MAP_VALUE,),
    "ringbuf_mem": (MEM | MEM_RINGBUF,), "dynptr": (STACK, DYNPTR),
    "kptr_xchg_dest": (MAP_VALUE, BTF_ID | MEM_ALLOC, BTF_ID | MEM_ALLOC | NON_OWN_REF,
                       BTF_ID | MEM_ALLOC | NON_OWN_REF | MEM_RCU),
}
_TRACING_TYPES = {                                # enum bpf_prog_type
    "tracepoint": 5, "perf_event": 7, "raw_tracepoint": 17, "raw_tracepoint_writable": 24,
    "lsm": 29, "syscall": 31,
}
_SK_RELEASE, _KPTR_XCHG = 86, 194
_SOCKETS = {"socket": SOCKET, "sock_common": SOCK_COMMON, "tcp_sock": TCP_SOCK}
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
    unlocks = insn.kind != "helper" or insn.imm in (94, 194)  # spin_unlock, kptr_xchg
    if env.state.refs and not unlocks and refs.active_lock(env.state):
        env.refuse("function calls are not allowed while holding a lock")
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
    state = env.state
    if refs.active_lock(state) is not None:
        env.refuse(
            "global function calls are not allowed while holding a lock,\n"
            "use static function instead"
        )
    sleepable = not refs.in_rcu(state)
    if sub.might_sleep and not sleepable:
        env.refuse(f"sleepable global function {sub.name}() called in {refs.non_sleepable(state)}")
    if not usable:
        env.refuse(f"Caller passes invalid args into func#{sub.index} ('{sub.name}')")
    env.log.text(f"Func#{sub.index} ('{sub.name}') is global and assumed valid.\n")
    sub.called[sleepable] = True
    if sub.changes_packet:
        packets.forget(env)
    frame = env.frame()
    frame.regs[0:6] = CALLER_SAVED
    forget_args(frame)
    if not returns_void(env, sub):
        frame.regs[0] = UNKNOWN_REG
    env.scratched |= 0x3F
    if sub.might_throw:
        env.push(env.insn + 1, env.insn)
        refs.check_leaks(env, "bpf_throw", thrown=True)
        return END
    return env.insn + 1


def forget_args(frame: Frame) -> None:
    """Forget outgoing slots, as every call does (``invalidate_outgoing_stack_args``)."""
    if frame.args:
        frame.args[:] = [UNINIT] * len(frame.args)


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
    elif expected.kind == "arena":
        if reg.type not in (ARENA, SCALAR):
            env.refuse(f"{name} is not a pointer to arena or scalar.")
    elif expected.kind == "dynptr":
        check_offset(env, reg, name, "dynptr")
        object_args.dynptr(env, reg, name, Meta())
    elif expected.kind == "btf":
        if reg.is_null and expected.nullable:
            mark_argument(env, index)
            return
        assert expected.struct is not None
        flags = ["null"] if expected.nullable else []
        _check_type(env, reg, name, f"btf:{expected.struct.name}", flags, 0, Meta())
        check_offset(env, reg, name, "btf")
    elif expected.kind != "untrusted":  # of which anything may be passed
        check_offset(env, reg, name, "")
        if reg.is_null:
            mark_argument(env, index)
        else:
            if expected.size >= 1 << 31:
                env.refuse(f"{name} memory size {expected.size} is too large")
            size = -expected.size if reg.type == STACK else expected.size
            for write in (False, True):
                helper_memory(env, reg, name, size, write, True, None)
        if in_packet(reg.type) and sub.changes_packet:
            env.refuse(f"{name} is a packet pointer, but func#{sub.index} may change packet data")
        if not expected.nullable and (reg.type & MAYBE_NULL or reg.is_null):
            env.refuse(f"{name} is expected to be non-NULL")


def mark_argument(env: Env, index: int) -> None:
    """``mark_arg_precision``."""
    if index < REG_ARGS:
        mark_register(env, index + 1)
    else:
        mark_arg(env, index - REG_ARGS)


def check_offset(
    env: Env, reg: Reg, name: str, kind: str, moved: bool = True, release: bool = False
) -> None:
    """``__check_func_arg_reg_off``; *moved*: a BTF pointer may have a fixed offset."""
    if release:
        if kind == "dynptr" and reg.type == STACK:
            return
        if reg.num.mask or reg.num.value:
            env.refuse(
                f"{name} must have zero offset when passed to release func or trusted arg to kfunc"
            )
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


# --- helpers ------------------------------------------------------------------------------


def _call_helper(env: Env, frame: Frame, number: int) -> int:
    """``check_helper_call``."""
    if not 0 <= number <= MAX_HELPER:
        env.refuse(f"invalid func {helper_name(number)}#{number}")
    name = helper_name(number)
    proto = prototype(env.program, number)
    if not is_known(env.program, number):
        raise NotModelled(f"helper {name}#{number}")
    if proto is None:
        env.refuse(f"program of this type cannot use helper {name}#{number}")
    if not env.gpl and gpl_only(env.program, number):
        env.refuse("cannot call GPL-restricted function from non-GPL compatible program")
    _check_allowed(env, number)
    if sleeps(env.program, number) and refs.in_rcu(env.state):
        env.refuse(f"sleepable helper {name}#{number} in {refs.non_sleepable(env.state)}")
    meta = Meta()
    for index, kind in enumerate(proto.args):
        what, *flags = kind.split("|")
        if what in ("mem", "map_value", "fixed_mem") and "uninit" in flags:
            meta.raw_reg = index + 1
        if "release" in flags:
            meta.release = index + 1
    for index in range(len(proto.args)):
        _check_helper_arg(env, proto, index, meta, number)
    if meta.map is not None:
        _check_map_use(env, meta.map, number)
    frame = env.frame()
    for byte in range(meta.raw[0]):
        base = frame.regs[meta.raw_reg]
        access(env, base, f"R{meta.raw_reg}", byte, 1, True, -1)
        frame = env.frame()
    if meta.release:
        _release(env, frame.regs[meta.release], number, meta)
    _call_special(env, number, meta)
    frame = env.frame()
    frame.regs[0:6] = CALLER_SAVED
    forget_args(frame)
    env.scratched |= 0x3F
    _set_result(env, frame, proto, number, meta)
    if meta.map is not None:
        maps.check_helper(env, meta.map.info, number)
    if number == 173:  # get_func_ip
        _check_func_ip(env)
    if number == TAIL_CALL:
        return _tail_call(env, frame) if len(env.state.frames) > 1 else env.insn + 1
    in_skb = meta.dynptr is not None and meta.dynptr.info[0] in ("skb", "skb_meta")
    if number in CHANGES_PACKET or (number == 202 and in_skb):  # dynptr_write
        packets.forget(env)
    return env.insn + 1


def _check_allowed(env: Env, number: int) -> None:
    """Ask what a helper itself asks of a program (``allowed`` of its prototype)."""
    program = env.program
    if number in (107, 108) and program.type in ("tracing", "syscall"):
        kind = program.attach_type  # bpf_sk_storage_tracing_allowed
        fine = kind in ("trace_iter", "trace_raw_tp") or (
            kind in ("trace_fentry", "trace_fexit")
            and not program.attach.startswith("bpf_sk_storage")
        )
    else:
        answer = attach.allows(env, number)
        if answer is False and number in (49, 57):
            env.refuse(f"program of this type cannot use helper {helper_name(number)}#{number}")
        fine = answer is not False
    if not fine:
        env.refuse("helper call is not allowed in probe")


def _check_func_ip(env: Env) -> None:
    """``check_get_func_ip``."""
    kind = env.program.type
    if kind == "kprobe":
        return
    if kind == "tracing":
        if env.program.attach_type in ("trace_raw_tp", "trace_iter"):
            env.refuse(
                "func bpf_get_func_ip#173 supported only for fentry/fexit/fsession/fmod_ret "
                "programs"
            )
        return
    env.refuse(f"func bpf_get_func_ip#173 not supported for program type {_TRACING_TYPES[kind]}")


def _set_result(env: Env, frame: Frame, proto: Prototype, number: int, meta: Meta) -> None:
    """Give r0 what the helper returns."""
    if proto.returns == "void":
        return
    if proto.returns == "integer":
        frame.regs[0] = _integer(env, number, meta)
        return
    kind, *flags = proto.returns.split("|")
    null = MAYBE_NULL if "null" in flags else 0
    if kind == "mem":
        assert meta.mem_size is not None
        ringbuf = MEM_RINGBUF if "ringbuf" in flags else 0
        frame.regs[0] = Reg(MEM | null | ringbuf, const(0), info=meta.mem_size)
    elif kind == "map_value":
        frame.regs[0] = _looked_up(env, number, meta, null)
    elif number == 194:  # kptr_xchg
        frame.regs[0] = _exchanged(env, meta)
    elif kind.startswith("btf:"):
        trust = TRUSTED if "trusted" in flags else 0
        struct = btf_pointer.kernel_struct(env, kind.removeprefix("btf:"))
        frame.regs[0] = btf_pointer.pointer(BTF_ID | null | trust, struct)
    elif kind in _SOCKETS:
        frame.regs[0] = Reg(_SOCKETS[kind] | null, const(0))
    elif kind == "mem_or_btf":
        frame.regs[0] = percpu.result(env, meta.percpu, null)
    else:
        raise NotModelled(f"what {helper_name(number)} returns")
    reg = frame.regs[0]
    if reg.type & MAYBE_NULL and not reg.id:
        reg = frame.regs[0] = reg.with_id(env.new_id())
    if number in CASTS and meta.ref_id and refs.referenced(env.state, meta.ref_id):
        _explore_null(env)
        frame = env.frame()
        reg = frame.regs[0]
        frame.regs[0] = reg.with_type(reg.type & ~MAYBE_NULL).with_id(meta.ref_id)
    elif number in ACQUIRES or (number == 1 and reg.type & BASE == SOCKET):
        reg = frame.regs[0] = reg.with_id(refs.acquire(env))
    if number == 203:  # dynptr_data
        assert meta.dynptr is not None
        frame.regs[0] = reg.derived(meta.dynptr.id)


def _exchanged(env: Env, meta: Meta) -> Reg:
    """Return the pointer that was there before."""
    found = kptrs.target(env, meta.kptr)
    kind = BTF_ID | MAYBE_NULL
    if found.btf is env.btf:
        kind |= MEM_ALLOC | (MEM_PERCPU if meta.kptr.kind == "percpu_kptr" else 0)
    return btf_pointer.pointer(kind, found)


def _integer(env: Env, number: int, meta: Meta) -> Reg:
    """Return what is known of a number (``do_refine_retval_range``)."""
    match number:
        case 45 | 67 | 114 | 115 | 141:  # probe_read_str, get_stack, get_task_stack
            return Reg(SCALAR, Scalar.from_srange(-_MAX_ERRNO, meta.size_max))
        case 8:  # get_smp_processor_id
            return Reg(SCALAR, Scalar.from_urange(0, _CPUS - 1))
        case 186:  # get_retval
            if env.program.type == "lsm" and not env.target.proto.returns:
                return UNKNOWN_REG
            low, high = _errors(env)
            if high <= 1:
                return Reg(SCALAR, Scalar.from_srange(low, high))
    return UNKNOWN_REG


def _errors(env: Env) -> tuple[int, int]:
    """Return what a cgroup program may make of the result of a system call."""
    program = env.program
    if program.type == "lsm":
        found = attach.hook_range(env.target)
        if found is None:
            env.refuse("BPF_LSM_CGROUP that attach to void LSM hooks can't modify return value!")
        return found
    if program.type == "cgroup_sockopt" and program.attach_type == "cgroup_getsockopt":
        return -(1 << 31), (1 << 31) - 1
    return -_MAX_ERRNO, 0


def _set_retval(env: Env, reg: Reg) -> None:
    """``bpf_set_retval``."""
    if reg.type != SCALAR:
        env.refuse("R1 is not a scalar")
    allowed = _errors(env)
    if allowed[1] > 1:
        return
    mark_register(env, 1)
    if not (allowed[0] <= reg.num.s32_min and reg.num.s32_max <= allowed[1]):
        env.refuse(invalid_scalar(reg, allowed, "At bpf_set_retval", "R1"))


def _explore_null(env: Env) -> None:
    """Look at a cast that gives null by itself: it has no id that would decide it later."""
    branch = env.push(env.insn + 1, env.insn)
    branch.own(len(branch.frames) - 1).regs[0] = ZERO_REG


def _looked_up(env: Env, number: int, meta: Meta, null: int) -> Reg:
    """Return what a map gives (``refine_map_lookup_value``)."""
    assert meta.map is not None
    found: MapDef = meta.map.info
    if (
        number == 1
        and maps.may_elide_null(found)
        and meta.const_key is not None
        and 0 <= meta.const_key < found.max_entries
    ):
        null = 0
    record = records.of_map(env, found)
    ident = env.new_id() if null or (record and record.has(*records.LOCKS)) else 0
    if found.type in (maps.ARRAY_OF_MAPS, maps.HASH_OF_MAPS):
        if found.inner is None:
            raise NotModelled(f"map {found.name}, of maps that are not known")
        return Reg(MAP_PTR | null, const(0), ident, 0, found.inner, 0, ident)
    if found.type == maps.XSKMAP:
        return Reg(XDP_SOCK | null, const(0), ident)
    if found.type in (maps.SOCKMAP, maps.SOCKHASH):
        return Reg(SOCKET | null, const(0), ident)
    return Reg(MAP_VALUE | null, const(0), ident, 0, found, 0, meta.map.map_uid)


def _release(env: Env, reg: Reg, number: int, meta: Meta) -> None:
    """Give back what an argument refers to (``release_reg``)."""
    if reg.is_null:
        return
    if meta.dynptr is not None:
        objects.release_dynptr(env, meta.dynptr)
    elif (
        number == 194  # kptr_xchg
        and refs.in_rcu(env.state)
        and reg.type & MEM_ALLOC
        and reg.type & MEM_PERCPU
    ):
        refs.convert_to_rcu(env, reg.id)
    else:
        refs.release(env, reg.id)


def _call_special(env: Env, number: int, meta: Meta) -> None:
    """Do what only one helper asks for (the switch of ``check_helper_call``)."""
    regs = env.state.frames[-1].regs
    match number:
        case 12:  # tail_call
            refs.check_leaks(env, "tail_call")
        case 81:  # get_local_storage
            if not regs[2].is_null:
                env.refuse("get_local_storage() doesn't support non-zero flags")
            mark_register(env, 2)
        case 153 | 154 if regs[1].type & MEM_RCU:  # per_cpu_ptr, this_cpu_ptr
            env.call_mark().percpu_object = True
        case 164:
            _call_for_each(env, meta)
        case 170:
            _call_timer(env, meta)
        case 180:
            _find_vma(env, meta)
        case 181:
            _call_loop(env, meta)
        case 209:
            _drain_ring(env, meta)
        case 165:  # snprintf
            size = regs[5].num
            text = object_args.const_str(env, regs[3], "R3")
            object_args.check_format(env, text, size.value)
        case 187:  # set_retval
            _set_retval(env, regs[1])
        case 197 if regs[1].type != MAP_VALUE:  # dynptr_from_mem
            env.refuse(
                f"Unsupported reg type {type_name(regs[1].type)} for bpf_dynptr_from_mem data"
            )


def _check_map_use(env: Env, reg: Reg, number: int) -> None:
    """``record_func_map`` and ``record_func_key``."""
    found = reg.info
    if maps.read_only(found) and number in (2, 3, 87, 88):
        env.refuse("write into map forbidden")
    at = env.insn
    if env.map_calls.setdefault(at, found) is not found:
        env.map_calls[at] = None
    if number == TAIL_CALL:
        if found.type != maps.PROG_ARRAY:
            env.refuse("expected prog array map for tail call")
        index = env.state.frames[-1].regs[3]
        if index.type == SCALAR and index.num.is_const and index.num.value < found.max_entries:
            mark_register(env, 3)
            if env.tail_keys.setdefault(at, index.num.value) != index.num.value:
                env.tail_keys[at] = -1
        else:
            env.tail_keys[at] = -1


def _tail_call(env: Env, frame: Frame) -> int:
    """Return from a subprogram by a tail call, or go on behind a failed one."""
    at = env.insn
    if frame.in_callback:
        env.refuse("cannot tail call within callback")
    env.push(at + 1, at)
    packets.forget(env)
    env.frame().regs[0] = UNKNOWN_REG
    return leave(env)


def load_packet(env: Env, frame: Frame, insn: LoadPacket) -> int:
    """Check a legacy load of packet data, which calls a helper (``check_ld_abs``)."""
    at = env.insn
    if env.program.type not in ("socket_filter", "sched_cls", "sched_act"):
        env.refuse("BPF_LD_[ABS|IND] instructions not allowed for this program type")
    if any(each.in_callback for each in env.state.frames[1:]):
        env.refuse("cannot use BPF_LD_[ABS|IND] within callback")
    buffer = read_reg(env, frame, 6)
    refs.check_leaks(env, "BPF_LD_[ABS|IND]")
    if buffer.type != CTX:
        env.refuse("at the time of BPF_LD_ABS|IND R6 != pointer to skb")
    if insn.mode == "ind":
        read_reg(env, frame, insn.src)
    check_fixed(env, buffer, "R6", False)
    frame.regs[0:6] = CALLER_SAVED
    frame.regs[0] = UNKNOWN_REG
    if len(env.state.frames) == 1:
        return at + 1
    env.scratched |= 1
    env.push(at + 1, at)  # behind a load that fails the program ends, with result 0
    env.frame().regs[0] = ZERO_REG
    return leave(env)


def _check_helper_arg(env: Env, proto: Prototype, index: int, meta: Meta, number: int) -> None:
    """``check_func_arg``."""
    kind, *flags = proto.args[index].split("|")
    number_of_reg = index + 1
    name = f"R{number_of_reg}"
    reg = read_reg(env, env.state.frames[-1], number_of_reg)
    if kind == "anything":
        return
    if reg.type in (PACKET, PACKET_META) and not _may_take_packet(env, proto):
        env.refuse("helper access to the packet is not allowed")
    if kind == "map_value":
        kind = _value_kind(env, meta, number, flags)
    nullable = "null" in flags or kind == "stack_or_null"
    if reg.is_null and nullable:
        mark_register(env, number_of_reg)
    else:
        _check_type(env, reg, name, kind, flags, number, meta)
        check_offset(env, reg, name, kind, release="release" in flags)
    held = reg.id and refs.referenced(env.state, reg.id)
    if "release" in flags and kind != "dynptr" and not held and not reg.is_null:
        env.refuse(
            f"release helper {helper_name(number)} expects referenced PTR_TO_BTF_ID "
            f"passed to {name}"
        )
    meta.note_reference(env, reg)
    if kind == "map":
        object_args.same_map(env, reg, name, f"R{index}", meta)
    elif kind == "map_key":
        assert meta.map is not None
        found = meta.map.info
        helper_memory(env, reg, name, found.key_size, False, False, None)
        if maps.may_elide_null(found):
            meta.const_key = _constant_key(env, number_of_reg, found.key_size)
    elif kind in ("map_value", "bloom_value"):
        assert meta.map is not None
        if reg.is_null:
            return
        if kind == "bloom_value":
            flags = []
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
        if "aligned" in flags and reg.type != SCALAR:
            check_alignment(env, reg, 0, size)
    elif kind in ("size", "size_or_zero"):
        _check_size(env, proto, index, meta, kind == "size_or_zero")
    elif kind == "func":
        meta.subprog = reg.info
    elif kind == "const_str":
        object_args.const_str(env, reg, name)
    elif kind == "alloc_size":
        object_args.alloc_size(env, reg, name, meta)
        mark_register(env, number_of_reg)
    elif kind == "spin_lock":
        if object_args.in_tree_callback(env):
            env.refuse("can't spin_{lock,unlock} in rbtree cb")
        object_args.spin_lock(env, reg, name, number == 93)
    elif kind == "timer":
        object_args.map_field(env, reg, name, "bpf_timer", meta)
    elif kind == "dynptr":
        which = next((flag for flag in flags if flag in objects.DYNPTR_TYPE_FLAGS), "")
        object_args.dynptr(env, reg, name, meta, which, "uninit" in flags, "release" in flags)
    elif kind == "percpu_btf":
        meta.percpu = reg
    elif kind == "kptr_xchg_dest":
        object_args.kptr(env, reg, name, meta)


def _value_kind(env: Env, meta: Meta, number: int, flags: list[str]) -> str:
    """Return what a map takes for a value (``resolve_map_arg_type``)."""
    assert meta.map is not None
    kind = meta.map.info.type
    if kind in (maps.SOCKMAP, maps.SOCKHASH):
        if flags:
            env.refuse("invalid arg_type for sockmap/sockhash")
        return "sock_common_btf"
    if kind == maps.BLOOM_FILTER and number == 89:
        meta.raw_reg = 0  # it is read
        return "bloom_value"
    return "map_value"


def _may_take_packet(env: Env, proto: Prototype) -> bool:
    """Say whether a helper may be given packet data (``may_access_direct_pkt_data``)."""
    kind = env.program.type
    return kind in context.PACKETS and (proto.packet or kind == "cgroup_sockopt")


def _check_type(
    env: Env, reg: Reg, name: str, kind: str, flags: list[str], number: int, meta: Meta
) -> None:
    """``check_reg_type``."""
    found = reg.type
    if "rdonly" in flags:
        found &= ~MEM_RDONLY
    if "null" in flags or kind == "stack_or_null":
        found &= ~MAYBE_NULL
    if kind in ("mem", "fixed_mem"):
        found &= ~DYNPTR_FLAGS
    if number == _KPTR_XCHG and kind == "btf" and found & MEM_ALLOC:
        found &= ~(MEM_ALLOC | MEM_PERCPU)
    base, _, struct = kind.partition(":")
    expected = _COMPATIBLE[base]
    if found not in expected:
        words = ", ".join(type_name(one) for one in expected)
        env.refuse(f"{name} type={type_name(reg.type)} expected={words}")
    if reg.type & BASE == BTF_ID and kind not in ("spin_lock", "kptr_xchg_dest"):
        _check_struct(env, reg, name, base, struct or "sock_common", flags, number, meta)


def _check_struct(
    env: Env,
    reg: Reg,
    name: str,
    base: str,
    struct: str,
    flags: list[str],
    number: int,
    meta: Meta,
) -> None:
    """Check the struct behind a BTF pointer (``check_reg_type``)."""
    if _COMPATIBLE[base] is _MEM_TYPES:
        if "rdonly" not in flags:
            env.refuse(
                f"{helper_name(number)}() may write into memory pointed by {name} "
                f"type={type_name(reg.type)}"
            )
        return
    if number == _KPTR_XCHG:
        if reg.type & MAYBE_NULL:
            env.refuse(f"Possibly NULL pointer passed to helper {name}")
        kptrs.check_match(env, meta.kptr, reg, name)
        return
    if reg.type & MEM_PERCPU:
        return
    if base not in ("btf", "sock_common_btf") or reg.type & MEM_ALLOC:
        raise NotModelled(f"passing {type_name(reg.type)} to {helper_name(number)}")
    release = "release" in flags
    if reg.type & MAYBE_NULL and ("null" not in flags or release):
        env.refuse(f"Possibly NULL pointer passed to helper {name}")
    check_fixed(env, reg, name, True)
    wanted = btf_pointer.kernel_struct(env, struct)
    strict = release and number != _SK_RELEASE
    if not btf_pointer.ids_match(env, reg.info, reg.num.value, wanted, strict, True):
        env.refuse(f"{name} is of type {reg.info.name} but {struct} is expected")


def _check_size(env: Env, proto: Prototype, index: int, meta: Meta, zero_ok: bool) -> None:
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
    elif base in (PACKET, PACKET_META):
        check_packet(env, reg, name, 0, size, zero_ok)
    elif base == MAP_KEY:
        if write:
            env.refuse(f"{name} cannot write into {type_name(kind)}")
        check_region(env, reg, name, 0, size, reg.info.key_size, False)
    elif base == MAP_VALUE:
        check_map_flags(env, reg, 0, size, write)
        check_map_access(env, reg, name, 0, size, zero_ok, indirect=True)
    elif base == MEM:
        if kind & MEM_RDONLY and write:
            env.refuse(f"{name} cannot write into {type_name(kind)}")
        check_region(env, reg, name, 0, size, reg.info, zero_ok)
    elif base == BUF:
        if kind & MEM_RDONLY and write:
            env.refuse(f"{name} cannot write into {type_name(kind)}")
        check_buffer(env, reg, name, 0, "rdonly" if kind & MEM_RDONLY else "rdwr")
    elif base == BTF_ID:
        btf_pointer.access(env, reg, name, 0, size, write)
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


def _note_loop(env: Env, callback: int) -> None:
    """Find out whether the loop may be built in (``update_loop_inline_state``)."""
    before = env.loops.get(env.insn, callback)
    if before == -1:
        return
    flags = env.state.frames[-1].regs[4]
    if flags.is_null:
        mark_register(env, 4)
    env.loops[env.insn] = callback if flags.is_null and before == callback else -1


def _call_loop(env: Env, meta: Meta) -> None:
    """``bpf_loop``: the callback may run, up to r1 times."""
    regs = env.state.frames[-1].regs
    _note_loop(env, meta.subprog)
    mark_register(env, 1)
    frame = env.frame()
    if frame.callback_depth >= regs[1].num.umax:
        frame.callback_depth = 0
        if env.log.level > 1:
            env.log.text(f"frame{len(env.state.frames) - 1} bpf_loop iteration limit reached\n")
        return
    callee = push_callback(env, meta.subprog)
    callee.regs[1] = UNKNOWN_REG
    callee.regs[2] = regs[3]


def _call_for_each(env: Env, meta: Meta) -> None:
    """``bpf_for_each_map_elem``."""
    regs = env.state.frames[-1].regs
    assert meta.map is not None
    found = meta.map.info
    if found.type not in maps.WITH_CALLBACK:
        env.refuse("callback function not allowed for map")
    callee = push_callback(env, meta.subprog)
    callee.regs[1] = regs[1]
    callee.regs[2] = Reg(MAP_KEY, const(0), info=found, map_uid=regs[1].map_uid)
    callee.regs[3] = Reg(MAP_VALUE, const(0), env.new_id(), info=found, map_uid=regs[1].map_uid)
    callee.regs[4] = regs[3]


def _find_vma(env: Env, meta: Meta) -> None:
    """``bpf_find_vma``."""
    regs = env.state.frames[-1].regs
    area = btf_pointer.kernel_struct(env, "vm_area_struct")
    callee = push_callback(env, meta.subprog)
    callee.regs[1] = regs[1]
    callee.regs[2] = btf_pointer.pointer(BTF_ID, area)
    callee.regs[3] = regs[4]


def _call_timer(env: Env, meta: Meta) -> None:
    """``bpf_timer_set_callback``: the callback runs later, by itself."""
    reg = env.state.frames[-1].regs[1]
    push_async(env, meta.subprog, reg, (0, 0), False)


def _drain_ring(env: Env, meta: Meta) -> None:
    """``bpf_user_ringbuf_drain``."""
    regs = env.state.frames[-1].regs
    callee = push_callback(env, meta.subprog)
    callee.regs[1] = objects.dynptr("local", env.new_id(), 0)
    callee.regs[2] = regs[3]


def push_async(
    env: Env, number: int, value: Reg, allowed: tuple[int, int], sleepable: bool
) -> None:
    """Keep a state that runs a callback for *value* of a map (``push_async_cb``).

    *allowed*: what it may return.
    """
    sub = env.subs[number]
    _check_call(env, env.frame(), sub)
    sub.is_callback = sub.is_async_callback = True
    frame = Frame(MAIN, 0, number)
    state = State(frame, 0)
    state.sleepable = sleepable
    env.stack.append((state, sub.start, env.insn, env.log.position))
    if len(env.stack) > MAX_JUMP_SEQUENCE:
        env.refuse(f"The sequence of {len(env.stack)} jumps is too complex for async cb.")
    frame.async_entry = env.state.frames[-1].async_entry + 1
    found, uid = value.info, value.map_uid
    frame.regs[1] = Reg(MAP_PTR, const(0), info=found, map_uid=uid)
    frame.regs[2] = Reg(MAP_KEY, const(0), info=found, map_uid=uid)
    frame.regs[3] = Reg(MAP_VALUE, const(0), env.new_id(), info=found, map_uid=uid)
    frame.in_async = True
    frame.callback_range = allowed
    env.scratch_all()


def push_callback(env: Env, number: int) -> Frame:
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
