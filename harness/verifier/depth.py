"""Stack over the call chain, and what stack arguments ask of it.

``check_max_stack_depth`` (verifier.c) and ``bpf_fixup_call_args`` (fixups.c) of Linux 7.3.4.
"""

from __future__ import annotations

from harness.isa.insn import Call, LoadImm
from harness.isa.opcodes import CALL, CALL_KINDS, JMP
from harness.verifier.env import Env, Refused
from harness.verifier.form import is_call, is_func_address
from harness.verifier.state import MAX_FRAMES, MAX_STACK

CALL_CODE, KFUNC = JMP | CALL, CALL_KINDS["kfunc"]
_PRIVATE_STACK_MIN = 64  # BPF_PRIV_STACK_MIN_SIZE
PRIVATE_STACK_TYPES = frozenset({"kprobe", "tracepoint", "perf_event", "raw_tracepoint"})


def _rounded(env: Env, depth: int) -> int:
    """``round_up_stack_depth``."""
    if env.options.jit:
        return -(-depth // 16) * 16
    return -(-max(depth, 1) // 32) * 32


def _may_be_private(env: Env) -> bool:
    """Say whether a program of this type gets stack of its own (``bpf_enable_priv_stack``)."""
    program = env.program
    if program.type == "tracing":
        return program.attach_type != "trace_iter"
    return program.type in PRIVATE_STACK_TYPES


def check_stack_depth(env: Env) -> None:
    """Limit the stack of every call chain to 512 bytes (``check_max_stack_depth``)."""
    private = (
        env.options.jit and _may_be_private(env) and not any(sub.has_tail_call for sub in env.subs)
    )
    for sub in reversed(env.subs):
        if not sub.index or sub.is_async_callback:
            _check_chain(env, sub.index, private and not sub.index)


def _check_chain(env: Env, first: int, private: bool) -> None:
    """``check_max_stack_depth_subprog``: walk all calls from one entry."""
    subs = env.subs
    depth = frame = 0
    index = first
    caller: dict[int, int] = {first: -1}
    resume: dict[int, int] = {}
    frames: dict[int, int] = {}
    tail_call = False
    if not private:
        subs[index].private_stack = "no"
    depth = _enter(env, index, depth, private, caller)
    at = subs[index].start
    while True:
        callee = -1
        while at < subs[index].end:
            code, _, src, _, imm = env.fields[at]
            if code == CALL_CODE and src == KFUNC:
                _check_throw(env, at, index, caller)
            if is_call(code, src) or is_func_address(code, src):
                target = env.find_subprog(at + imm + 1)
                assert target is not None  # add_subprogs
                if target.is_exception_callback and is_call(code, src):
                    raise Refused(f"insn {at} cannot call exception cb directly")
                if not (target.is_async_callback and not is_call(code, src)):
                    callee = target.index
                    break
            at += 1
        if callee >= 0:
            frames[index] = frame
            resume[index] = at + 1
            caller[callee] = index
            index = callee
            if not private:
                subs[index].private_stack = "no"
            tail_call = subs[index].has_tail_call
            frame = 0 if subs[index].is_global else frame + 1
            if frame >= MAX_FRAMES:
                raise Refused(f"the call stack of {frame} frames is too deep !")
            depth = _enter(env, index, depth, private, caller)
            at = subs[index].start
            continue
        _check_tail_calls(env, index, tail_call, caller)
        if frame == 0 and caller[index] < 0:
            return
        if subs[index].private_stack != "adaptive":
            depth -= _rounded(env, subs[index].stack_depth)
        index = caller[index]
        frame, at = frames[index], resume[index]
        tail_call = subs[index].tail_call_reachable


def _check_throw(env: Env, at: int, index: int, caller: dict[int, int]) -> None:
    """Refuse to throw from a callback."""
    insn = env.insns[at]
    if not isinstance(insn, Call) or not env.kfuncs[insn.imm].special("bpf_throw"):
        return
    up = index
    while up >= 0:
        if env.subs[up].is_callback:
            raise Refused(
                f"bpf_throw kfunc (insn {at}) cannot be called from callback subprog {index}"
            )
        up = caller[up]


def _enter(env: Env, index: int, depth: int, private: bool, caller: dict[int, int]) -> int:
    """Add one function's stack; return the depth of the chain."""
    sub = env.subs[index]
    if sub.has_ld_abs:
        up = index
        while up >= 0:
            if env.subs[up].is_callback:
                raise Refused("cannot use BPF_LD_[ABS|IND] within callback")
            up = caller[up]
    if index and sub.has_tail_call and depth >= 256:
        raise Refused(
            "tail_calls are not allowed when call stack of previous frames is "
            f"{depth} bytes. Too large"
        )
    size = _rounded(env, sub.stack_depth)
    if sub.stack_arg_cnt:
        sub.private_stack = "no"
    elif private and not sub.private_stack and size >= _PRIVATE_STACK_MIN:
        sub.private_stack = "adaptive"
    if sub.private_stack == "adaptive":
        env.max_stack_depth = max(env.max_stack_depth, size)
        if size > MAX_STACK:
            raise Refused(f"stack size of subprog {index} is {size}. Too large")
        return depth
    depth += size
    env.max_stack_depth = max(env.max_stack_depth, depth)
    if depth > env.options.max_stack:
        calls, up = 0, index
        while up >= 0:
            calls += 1
            up = caller[up]
        raise Refused(f"combined stack size of {calls} calls is {depth}. Too large")
    return depth


def _check_tail_calls(env: Env, index: int, tail_call: bool, caller: dict[int, int]) -> None:
    if tail_call:
        up = index
        while up >= 0:
            sub = env.subs[up]
            if sub.is_callback:
                raise Refused("cannot tail call within callback")
            if sub.stack_arg_cnt:
                raise Refused("tail_calls are not allowed in programs with stack args")
            sub.tail_call_reachable = True
            up = caller[up]
    elif not index and env.subs[0].has_tail_call and env.subs[0].stack_arg_cnt:
        raise Refused("tail_calls are not allowed in programs with stack args")


def check_call_args(env: Env) -> None:
    """Refuse what a JIT, or the lack of one, cannot do (``bpf_fixup_call_args``)."""
    # what no path reaches is removed by now, and with it whole functions
    alive = [sub for sub in env.subs if any(env.seen[sub.start : sub.end])]
    for number, sub in enumerate(alive):
        outgoing = sub.stack_arg_cnt - sub.incoming & 0xFFFF
        if sub.max_out > outgoing:
            raise Refused(
                f"func#{number} writes {sub.max_out} stack arg slots, "
                f"but calls only require {outgoing}"
            )
    if env.options.jit:
        return
    for sub in env.subs:
        if sub.incoming:
            raise Refused("stack args are not supported in non-JITed programs")
    if len(env.subs) > 1 and env.subs[0].tail_call_reachable:
        raise Refused("tail_calls are not allowed in non-JITed programs with bpf-to-bpf calls")
    for at, insn in enumerate(env.insns):
        if isinstance(insn, LoadImm) and insn.src == 4:
            raise Refused("callbacks are not allowed in non-JITed programs", at)
        if isinstance(insn, Call) and insn.kind == "subprog":
            target = env.find_subprog(at + insn.imm + 1)
            assert target is not None  # add_subprogs
            if target.stack_depth > MAX_STACK:
                raise Refused(
                    f"stack depth {target.stack_depth} exceeds interpreter stack depth limit"
                )
