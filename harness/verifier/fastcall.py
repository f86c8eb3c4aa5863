"""Spills around calls that need none: what the kernel takes out, and what that saves.

For a call that clobbers only r0 and its arguments (``bpf_fastcall``) clang still spills
r1 to r5 around it, at stack offsets that nothing else uses; where that holds, the kernel
drops the spills, and the function needs less stack. ``mark_fastcall_patterns``,
``check_fastcall_stack_contract`` and ``bpf_remove_fastcall_spills_fills`` of Linux 7.3.4.
"""

from __future__ import annotations

from harness.btf import Void
from harness.isa.insn import Call, Load, Store
from harness.verifier.env import Env, Subprog
from harness.verifier.helpers import prototype
from harness.verifier.kfunc_table import FASTCALL
from harness.verifier.state import Frame

_CALLER_SAVED = 6  # r0 to r5
_REG_SIZE = 8
_NOT_ALLOWED = -0x8000  # S16_MIN: below any offset


def mark_patterns(env: Env) -> None:
    """Find calls between spills and fills (``mark_fastcall_patterns``)."""
    for sub in env.subs:
        lowest = min(
            (
                insn.off
                for insn in env.insns[sub.start : sub.end]
                if isinstance(insn, Store) and insn.size == _REG_SIZE and insn.dst == 10
            ),
            default=0,
        )
        if lowest < 0:
            for at in range(sub.start, sub.end):
                insn = env.insns[at]
                if isinstance(insn, Call) and (summary := _summary(env, insn)):
                    _mark_call(env, sub, at, *summary, lowest)


def _summary(env: Env, call: Call) -> tuple[int, bool, bool] | None:
    """Return the number of parameters, whether it returns, and whether it is built in.

    ``bpf_get_call_summary``; None where nothing is known.
    """
    if call.kind == "helper":
        proto = prototype(env.program, call.imm)
        if proto is None:
            return None
        return len(proto.args), proto.returns != "void", proto.fastcall and env.options.jit
    if call.kind == "kfunc" and call.imm in env.kfuncs:
        kfunc = env.kfuncs[call.imm]
        gives = not isinstance(kfunc.btf.get(kfunc.proto.returns), Void)
        return len(kfunc.proto.params), gives, bool(kfunc.flags & FASTCALL)
    return None


def _mark_call(
    env: Env, sub: Subprog, at: int, count: int, returns: bool, inlined: bool, lowest: int
) -> None:
    clobbered = {*range(0 if returns else 1, count + 1)}
    expected = {*range(_CALLER_SAVED)} - clobbered
    pairs = 0
    off = lowest
    while pairs < _CALLER_SAVED:
        first, last = at - pairs - 1, at + pairs + 1
        if first < 0 or last >= env.count or env.jump_target[first + 1] or env.jump_target[last]:
            break
        spill, fill = env.insns[first], env.insns[last]
        if not (
            isinstance(spill, Store)
            and isinstance(fill, Load)
            and spill.size == fill.size == _REG_SIZE
            and spill.dst == fill.src == 10
            and spill.src == fill.dst
            and spill.src in expected
            and spill.off == fill.off == off
        ):
            break
        expected.remove(spill.src)
        env.fastcall_pattern |= {first, last}
        pairs += 1
        off += _REG_SIZE
    if not pairs:
        return
    if inlined:
        env.fastcall_calls[at] = pairs
    else:
        sub.keeps_spills = True
    sub.fastcall_off = min(sub.fastcall_off, off)


def check_contract(env: Env, frame: Frame, off: int) -> None:
    """Keep the spills of a function that uses their slots otherwise."""
    sub = env.subs[frame.subprog]
    if sub.fastcall_off <= off or env.insn in env.fastcall_pattern:
        return
    sub.fastcall_off = _NOT_ALLOWED
    inside = range(sub.start, sub.end)
    env.fastcall_pattern.difference_update(inside)
    for at in inside:
        env.fastcall_calls.pop(at, None)


def remove_spills(env: Env) -> None:
    """Lessen the stack of functions whose spills go (``bpf_remove_fastcall_spills_fills``)."""
    for sub in env.subs:
        modified = any(at in env.fastcall_calls for at in range(sub.start, sub.end))
        if modified and not sub.keeps_spills:
            sub.stack_depth = -sub.fastcall_off
