"""The verification of a program, from its form to its stack depth.

``bpf_check``, ``do_check_main``, ``do_check_subprogs``, ``do_check`` (verifier.c of
Linux 7.3.4). Each instruction has a handler, chosen once; a handler changes the
current frame and returns the slot to go on at, or None for the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from harness.btf import Func
from harness.btf_check import validate
from harness.isa.codec import LD_IMM64
from harness.isa.disasm import format_insn
from harness.isa.insn import (
    PARAMS,
    AddrSpaceCast,
    Alu,
    Atomic,
    Call,
    Endian,
    Exit,
    Goto,
    GotoX,
    Insn,
    Jump,
    Load,
    LoadImm,
    LoadPacket,
    MayGoto,
    PercpuAddr,
    Raw,
    Store,
    StoreImm,
)
from harness.isa.opcodes import EXIT, JMP, MAX_INSNS
from harness.isa.stack_args import REG_ARGS
from harness.model import Accepted, Program, Rejected, Unknown, Verdict, Verification
from harness.verifier import (
    alu,
    attach,
    call,
    cfg,
    context,
    form,
    jump,
    kfunc_objects,
    kfuncs,
    memory,
    objects,
    refs,
)
from harness.verifier.bounds import const
from harness.verifier.const_fold import compute_const_regs, prune_dead_branches
from harness.verifier.dead_code import unreached
from harness.verifier.depth import check_call_args, check_stack_depth
from harness.verifier.env import Argument, Env, NotModelled, Options, Refused, Subprog
from harness.verifier.fastcall import mark_patterns, remove_spills
from harness.verifier.liveness import compute_live_registers
from harness.verifier.log import Log
from harness.verifier.precision import push_history
from harness.verifier.prototypes import Unusable, infer_args, prepare_args, returns_void
from harness.verifier.prune import is_state_visited, update_branch_counts
from harness.verifier.results import check_result
from harness.verifier.rewrites import check_rewrites, frames_of
from harness.verifier.state import (
    ARENA,
    BTF_ID,
    CTX,
    MAIN,
    MAYBE_NULL,
    MEM,
    MEM_RDONLY,
    SCALAR,
    TRUSTED,
    UNKNOWN_REG,
    UNTRUSTED,
    Frame,
    Reg,
    State,
    type_name,
)

_NO_ATTACH = frozenset({"struct_ops"})  # what they attach to is in a map
_END = -1  # a path ends

Handler = Callable[[Env, Frame, Any], int | None]


def verify(program: Program, *, log_level: int = 1, options: Options | None = None) -> Verification:
    """Decide on *program* as Linux 7.3.4 does.

    The log is in the kernel's form: *log_level* 0 none, 1 the path to the refusal, 2 all
    paths, and 4 more the statistics of each function. Never raises for what *program* holds.
    """
    env, found = explore(program, log_level=log_level, options=options)
    env.liveness = None  # it knows *env*: without it nothing is left that only gc can free
    return found


def explore(
    program: Program, *, log_level: int = 1, options: Options | None = None
) -> tuple[Env, Verification]:
    """Return what ``verify`` says, and what was learnt on the way."""
    started = time.perf_counter()
    log = Log(log_level, program.lines)
    env = Env(program, options or Options(), log)
    verdict: Verdict
    try:
        _check(env)
        verdict = Accepted()
    except Refused as refusal:
        verdict = _rejected(env, refusal)
    except NotModelled as reason:
        verdict = Unknown(str(reason))
    except Exception as fault:  # a fault of ours must not end a campaign; it is counted
        verdict = Unknown(f"internal: {type(fault).__name__}: {fault}")
    if log.stats:
        _say_statistics(env, time.perf_counter() - started)
    log.text(
        f"processed {env.processed} insns (limit {MAX_INSNS}) "
        f"max_states_per_insn {env.max_states} total_states {env.total_states} "
        f"peak_states {env.peak_states} mark_read 0\n"
    )
    text = log.render(partial(_disassemble, env))
    accepted = isinstance(verdict, Accepted)
    frames = frames_of(env) if accepted else ()
    dead = unreached(env.insns, env.seen) if accepted and 0 in env.seen else frozenset[int]()
    events = frozenset(" ".join(map(str, event)) for event in env.events)
    seconds = time.perf_counter() - started
    return env, Verification(verdict, text, env.processed, seconds, frames, dead, events)


def _disassemble(env: Env, slot: int) -> str:
    """Return an instruction as the log shows it, kernel functions by their names."""
    insn = env.insns[slot]
    if isinstance(insn, Call) and insn.kind == "kfunc" and insn.imm in env.kfuncs:
        kfunc = env.kfuncs[insn.imm]
        insn = Call("kfunc", kfunc.btf.find(kfunc.name, Func) or 0, insn.off)
        return format_insn(insn, form="kernel", kfunc=lambda _: str(kfunc.name))
    return format_insn(insn, form="kernel")


def _say_statistics(env: Env, seconds: float) -> None:
    env.log.text(f"verification time {int(seconds * 1e6)} usec\n")
    env.log.text(f"stack depth max {env.max_stack_depth}\n")
    for sub in env.subs:
        kind = "global" if sub.is_global else "static"
        env.log.text(
            f"subprog {sub.index} ({sub.name if env.has_func_info else '<unknown>'}) "
            f"{kind if sub.index else 'main'} insns_self {sub.insns_self} "
            f"insns_total {sub.insns_total} stack {sub.stack_depth}\n"
        )


def _rejected(env: Env, refusal: Refused) -> Rejected:
    if refusal.message:
        env.log.text(refusal.message + "\n")
    said = [*env.notes, *refusal.message.splitlines()]
    return Rejected(refusal.insn, said[0] if said else "")


def _check(env: Env) -> None:
    """``bpf_check``."""
    prepare(env)
    _explore(env)
    remove_spills(env)
    check_stack_depth(env)
    if env.unconvertible:  # convert_ctx_accesses
        raise Refused("verifier bug: error during ctx access conversion (0)")
    check_call_args(env)
    check_rewrites(env)


def prepare(env: Env) -> None:
    """Check the form and compute what exploring needs."""
    if not env.options.privileged:
        raise NotModelled("unprivileged programs")
    if not env.insns:
        raise Refused("the program has no instructions")
    if len(env.insns) > MAX_INSNS:
        raise Refused(f"the program has more than {MAX_INSNS} instructions")
    env.fields = form.slot_fields(env.insns)
    if env.fields[-1][0] == LD_IMM64:
        raise Refused("invalid bpf_ld_imm64 insn", env.count - 1)
    if env.btf is not None and validate(env.btf) is not None:
        env.btf = None  # as libbpf then does, go on without
    records = form.prepare_func_info(env)
    form.add_subprogs(env, records)
    form.check_subprogs(env)
    form.check_btf_info(env, records)
    form.check_insns(env)
    for at, insn in enumerate(env.insns):
        if isinstance(insn, Raw) and insn.opcode == JMP | EXIT:
            env.insns[at] = Exit()  # the kernel does not look at its offset
    kfuncs.add(env)
    cfg.check_cfg(env)
    cfg.compute_postorder(env)
    context.check_attach_type(env)
    attach.check(env)
    if env.program.type in _NO_ATTACH:
        raise NotModelled(f"what a program of type {env.program.type} attaches to")
    compute_const_regs(env)
    prune_dead_branches(env)
    cfg.sort_subprogs(env)
    cfg.compute_scc(env)
    if not env.has_func_info and env.options.infer_arguments:
        infer_args(env)
    if env.has_func_info and env.options.slots_by == "layout":
        for sub in env.subs:  # liveness asks which results are pairs
            try:
                prepare_args(env, sub)
            except (Unusable, Refused):
                env.notes.clear()
            sub.args_cached = False
    compute_live_registers(env)
    mark_patterns(env)
    env.explored = [[] for _ in range(env.count)]


# --- entries --------------------------------------------------------------------------


def _explore(env: Env) -> None:
    """``do_check_main`` and ``do_check_subprogs``."""
    sleepable = env.program.sleepable or env.program.type == "syscall"
    _explore_from(env, env.subs[0], sleepable)
    if not env.has_func_info:
        return
    if env.exception_callback:
        env.subs[env.exception_callback].called[sleepable] = True
    more = True
    while more:
        more = False
        for sub in env.subs[1:]:
            if not sub.is_global:
                continue
            for sleeps in (False, True):
                if sub.called[sleeps] and not sub.verified[sleeps]:
                    _explore_from(env, sub, sleeps)
                    env.log.text(
                        f"Func#{sub.index} ('{sub.name}') is safe for any args "
                        "that match its prototype\n"
                    )
                    sub.verified[sleeps] = more = True


def _explore_from(env: Env, sub: Subprog, sleepable: bool) -> None:
    """``do_check_common``."""
    enter(env, sub, sleepable)
    total, processed = sub.insns_total, env.processed
    try:
        _run(env)
    finally:
        env.account_path()
        sub.insns_total = total + env.processed - processed
    if env.log.level < 2:
        env.log.reset(0)
    env.explored = [[] for _ in range(env.count)]
    env.visits = {}


def enter(env: Env, sub: Subprog, sleepable: bool) -> None:
    """Make the state at the start of *sub* the current one (``do_check_common``)."""
    log = env.log
    log.forget_line()
    frame = Frame(MAIN, 0, sub.index)
    state = State(frame, sub.start)
    state.sleepable = sleepable
    env.state = state
    env.insn = sub.start
    env.notes.clear()
    env.scratch_all()
    if sub.index or env.program.type == "ext":
        log.text(f"Validating {sub.name}() func#{sub.index}...\n")
        if not env.has_func_info:
            raise NotModelled("an extension program without BTF")
        try:
            prepare_args(env, sub)
        except Unusable:
            raise Refused("") from None
        if sub.is_exception_callback:
            if returns_void(env, sub):
                raise Refused("exception cb cannot return void")
            if sub.arg_cnt != 1 or sub.args[0].kind != "scalar":
                raise Refused("exception cb only supports single integer argument")
        for index, arg in enumerate(sub.args[:REG_ARGS]):
            frame.regs[index + 1] = _entry_arg(env, arg)
        if env.program.type == "ext":
            if sub.arg_cnt > REG_ARGS:
                raise Refused(f"freplace programs with >{REG_ARGS} args not supported yet")
            raise NotModelled("the program that an extension replaces")
    else:
        if env.has_func_info:
            _main_args(env, sub)
        frame.regs[1] = Reg(CTX, const(0))
    env.notes.clear()


def _main_args(env: Env, sub: Subprog) -> None:
    """Distrust the prototype of main unless it takes the context."""
    try:
        prepare_args(env, sub)
        usable = sub.arg_cnt == 1 and sub.args[0].kind == "ctx"
    except Unusable:
        usable = False
    except Refused as refusal:
        for line in refusal.message.splitlines():
            env.say(line)
        usable = False
    if not usable:
        sub.unreliable = True
        sub.arg_cnt = 1
        sub.stack_arg_cnt = 0


def _entry_arg(env: Env, arg: Argument) -> Reg:
    if arg.kind == "ctx":
        return Reg(CTX, const(0))
    if arg.kind == "dynptr":
        return objects.dynptr("local", env.new_id(), 0)
    if arg.kind == "btf":
        kind = BTF_ID | TRUSTED | (MAYBE_NULL if arg.nullable else 0)
        return Reg(kind, const(0), env.new_id(), info=arg.struct)
    if arg.kind == "untrusted":
        if arg.struct is not None:
            return Reg(BTF_ID | UNTRUSTED, const(0), env.new_id(), info=arg.struct)
        return Reg(MEM | MEM_RDONLY | UNTRUSTED, const(0), info=0)
    if arg.kind == "mem":
        kind = MEM | (MAYBE_NULL if arg.nullable else 0)
        return Reg(kind, const(0), env.new_id() if arg.nullable else 0, info=arg.size)
    return UNKNOWN_REG


# --- the loop ---------------------------------------------------------------------------


def _run(env: Env) -> None:
    """Follow every path from the current state (``do_check``)."""
    handlers = [handler(insn) for insn in env.insns]
    insns = env.insns
    scratch = [_scratched(insn) if env.log.on else 0 for insn in insns]
    prune_point, jmp_point = env.prune_point, env.jmp_point
    log = env.log
    count = env.count
    keep_log = log.level > 1
    print_state = False
    previous = -1
    limit = min(env.options.budget or MAX_INSNS, MAX_INSNS)
    notes = env.notes
    subtotals = env.subtotals if log.stats else None
    at = env.insn
    while True:
        state = env.state
        env.pushed = False
        env.prev_insn = previous
        if at >= count:
            raise NotModelled(f"verifier bug: invalid insn idx {at} insn_cnt {count}")
        env.insn = at
        env.processed += 1
        if env.processed > limit:
            if limit < MAX_INSNS:
                raise NotModelled(f"more than {limit} instructions processed: the budget given")
            raise Refused(f"BPF program is too large. Processed {env.processed} insn", at)
        if subtotals is not None:
            subtotals[len(state.frames) - 1] += 1
            env.subs[state.frames[-1].subprog].insns_self += 1
        state.last = previous
        state.insn = at
        if notes:
            notes.clear()
        pruned = False
        if prune_point[at] and is_state_visited(env, at):
            pruned = True
            if log.on:
                log.text(f"\nfrom {previous} to {at}: safe\n" if print_state else f"{at}: safe\n")
        if not pruned:
            if jmp_point[at]:
                push_history(env)
            if log.on:
                if keep_log and print_state:
                    log.state(state, len(state.frames) - 1, text=f"\nfrom {previous} to {at}:")
                    print_state = False
                if env.scratched or env.scratched_slots:
                    env.insn_state()
                log.line(at)
                log.insn(at)
            env.seen[at] = 1
            previous = at
            env.scratched |= scratch[at]
            frame = state.frames[-1]
            if frame.shared:
                frame = state.frames[-1] = frame.copy()
            to = handlers[at](env, frame, insns[at])
            if to is None:
                at += 1
                continue
            if to != _END:
                if isinstance(insns[at], Exit):
                    print_state = True
                at = to
                continue
        env.scratch_all()
        update_branch_counts(env, state)
        if subtotals is not None:
            env.account_path()
        if not env.stack:
            return
        env.state, at, previous, position = env.stack.pop()
        if not keep_log:
            log.reset(position)
        print_state = True


def _exit(env: Env, frame: Frame, insn: Exit) -> int:
    """``process_bpf_exit_full``."""
    del insn
    if len(env.state.frames) == 1:
        refs.check_leaks(env, "BPF_EXIT instruction in main prog")
    else:
        env.jumps += 1
        return call.leave(env)
    env.jumps += 1
    sub = env.subs[frame.subprog]
    if sub.index and not frame.in_async and not sub.is_exception_callback:
        _check_global_result(env, frame)
    else:
        check_result(env, frame)
    return _END


def _check_global_result(env: Env, frame: Frame) -> None:
    """``check_global_subprog_return_code``."""
    if returns_void(env, env.subs[frame.subprog]):
        return
    reg = memory.read_reg(env, frame, 0)
    if reg.type not in (ARENA, SCALAR):
        env.refuse(
            f"At subprogram exit the register R0 is not a scalar value ({type_name(reg.type)})"
        )


def _goto(env: Env, frame: Frame, insn: Goto) -> int:
    del frame
    env.jumps += 1
    return env.insn + insn.off + 1


def _jump(env: Env, frame: Frame, insn: Jump) -> int:
    env.jumps += 1
    return jump.jump(env, frame, insn)


def _may_goto(env: Env, frame: Frame, insn: MayGoto) -> int:
    del frame
    env.jumps += 1
    return jump.may_goto(env, insn)


def _call(env: Env, frame: Frame, insn: Call) -> int:
    env.jumps += 1
    if insn.kind == "kfunc":
        return kfunc_objects.call(env, frame, insn)
    return call.call(env, frame, insn)


def _gotox(env: Env, frame: Frame, insn: GotoX) -> int:
    env.jumps += 1
    return jump.indirect(env, frame, insn)


def _load_imm(env: Env, frame: Frame, insn: LoadImm) -> int:
    alu.load_imm(env, frame, insn)
    return env.insn + 2


def _bad_atomic(env: Env, frame: Frame, insn: Raw) -> None:
    del frame
    memory.bad_atomic(env, insn)


def _unknown(env: Env, frame: Frame, insn: Insn) -> None:
    del env, frame
    raise NotModelled(f"the instruction {type(insn).__name__}")


_HANDLERS: dict[type, Handler] = {
    Alu: alu.alu,
    Endian: alu.endian,
    AddrSpaceCast: alu.cast,
    Load: memory.load,
    Store: memory.store,
    StoreImm: memory.store_imm,
    Atomic: memory.atomic,
    LoadImm: _load_imm,
    Jump: _jump,
    Goto: _goto,
    MayGoto: _may_goto,
    Call: _call,
    Exit: _exit,
    Raw: _bad_atomic,
    LoadPacket: call.load_packet,
    GotoX: _gotox,
    PercpuAddr: _unknown,
}


def handler(insn: Insn) -> Handler:
    """Return what changes the current frame as *insn* does."""
    return _HANDLERS.get(type(insn), _unknown)


@lru_cache(1 << 14)  # the programs of an object share most of their text
def _scratched(insn: Insn) -> int:
    """Return the registers that the state line after *insn* shows."""
    match insn:
        case Alu(dst=dst, src=int(src)) | Jump(dst=dst, src=int(src)):
            return 1 << dst | 1 << src
        case Alu(dst=dst) | Jump(dst=dst) | Endian(dst=dst) | LoadImm(dst=dst):
            return 1 << dst
        case AddrSpaceCast(dst=dst, src=src) | Load(dst=dst, src=src) | Store(dst=dst, src=src):
            return 1 << dst | 1 << src
        case Atomic(op=op, dst=dst, src=src):
            return 1 << dst | 1 << src | (1 if op == "cmpxchg" else 0)
        case StoreImm(dst=dst):
            return 1 << dst if dst != PARAMS else 0
        case Call():
            return 1
        case LoadPacket(src=src):
            return 0x7F | 1 << src
    return 0
