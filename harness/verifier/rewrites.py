"""Every rewrite of an accepted program, in Linux's order, and what Linux refuses in them.

The tail of ``bpf_check`` (verifier.c of Linux 7.3.4) as a privileged user on x86-64 gets
it. What depends on addresses of the kernel's has their names (``Program.symbols``).
"""

from __future__ import annotations

from dataclasses import replace

from harness.isa.insn import Goto, Jump, LoadImm, MayGoto
from harness.isa.opcodes import PSEUDO_FUNC
from harness.model import Frame, Program
from harness.verifier.convert import convert_accesses
from harness.verifier.dead_code import (
    inline_loops,
    remove_dead_code,
    remove_nops,
    remove_spills,
    unreached,
)
from harness.verifier.env import Env, NotModelled, Refused
from harness.verifier.kernel_layout import Anywhere, Layout
from harness.verifier.misc_fixups import count_loops, misc_fixups
from harness.verifier.rewrite import OutOfReachError, Rewriter, distance
from harness.verifier.zero_extension import extend_exchanges, high_used

_LONGEST_PATCH = 19  # slots that one becomes, at most
_REACH = 0x7FFF // _LONGEST_PATCH  # a shorter jump reaches whatever it leads over becomes


def frames_of(env: Env) -> tuple[Frame, ...]:
    """Return what a JIT takes from the verifier (``bpf_fixup_call_args``)."""
    return tuple(
        Frame(
            sub.stack_depth,
            tail_call_reachable=sub.tail_call_reachable,
            exception_boundary=env.throws and not sub.index,
            exception_callback=sub.is_exception_callback,
            private_stack=sub.private_stack == "adaptive",
        )
        for sub in env.subs
    )


def check_rewrites(env: Env) -> None:
    """Refuse what Linux refuses when it rewrites: seldom anything, so this seldom rewrites."""
    if not env.options.jit or not (_may_not_reach(env) or _leads_into_nothing(env)):
        return
    try:
        found = rewritten(env, Layout(env.kernel_btf) if env.kernel_btf else Anywhere())
    except OutOfReachError as reason:
        raise Refused(str(reason), reason.at) from None
    except NotModelled:
        return  # an accepted program has no image then; what is refused is not known
    if len(found.subprograms) < 2:
        return
    starts = {sub.start for sub in found.subprograms}
    for at, insn in enumerate(found.insns):
        if isinstance(insn, LoadImm) and insn.src == PSEUDO_FUNC:
            off = distance(insn)
            assert off is not None
            to = at + 1 + off
            if to not in starts:
                raise Refused(f"verifier bug: No program to jit at insn {to} (subprog < 0)", at)


def _may_not_reach(env: Env) -> bool:
    """Say whether a jump is long enough to become too long."""
    return env.count > _REACH and any(
        isinstance(insn, Jump | Goto | MayGoto)
        and abs(insn.off) > _REACH
        and not (isinstance(insn, Goto) and insn.long)
        for insn in env.insns
    )


def _leads_into_nothing(env: Env) -> bool:
    """Say whether the address of a function that no path reached is loaded."""

    def loads(at: int, insn: LoadImm) -> bool:
        if insn.src != PSEUDO_FUNC or not env.seen[at]:
            return False
        off = distance(insn)
        assert off is not None
        return not env.seen[at + 1 + off]

    return any(loads(at, insn) for at, insn in enumerate(env.insns) if isinstance(insn, LoadImm))


def rewritten(env: Env, layout: Layout | None = None) -> Program:
    """Return the program of *env*, which was accepted, as the JIT gets it.

    Raises NotModelled, OutOfReachError.
    """
    frames = frames_of(env)
    layout = layout or Layout(env.kernel_btf)
    subs = tuple(
        replace(named, start=sub.start, end=sub.end)
        for named, sub in zip(env.program.subprograms, env.subs, strict=True)
    )
    rewriter = Rewriter(replace(env.program, subprograms=subs), env.insns, frames)
    for part in rewriter.parts:
        for slot in part.slots:
            slot.indirect = slot.at in env.indirect
    used = high_used(env)
    remove_spills(rewriter, env)
    inline_loops(rewriter, env.loops)
    remove_dead_code(rewriter, unreached(env.insns, env.seen))
    remove_nops(rewriter)
    convert_accesses(rewriter, env, layout)
    misc_fixups(rewriter, env, layout)
    count_loops(rewriter)
    extend_exchanges(rewriter, used)
    found = rewriter.program_now()
    if len(found.frames) == 1 and any(frame.private_stack for frame in frames):
        # the program as a whole was said to have one, and is now one function
        found = replace(found, frames=(replace(found.frames[0], private_stack=True),))
    return found
