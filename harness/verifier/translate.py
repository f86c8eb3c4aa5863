"""From an accepted program to what Linux hands to its JIT: every rewrite, in its order.

The tail of ``bpf_check`` (verifier.c of Linux 7.3.4) as a privileged user on x86-64 gets
it. What depends on addresses of the kernel's has their names (``Program.symbols``).
"""

from __future__ import annotations

from dataclasses import replace

from harness.model import Accepted, Frame, Program, Unknown, Verification
from harness.verifier.check import explore
from harness.verifier.convert import convert_accesses
from harness.verifier.dead_code import (
    inline_loops,
    remove_dead_code,
    remove_nops,
    remove_spills,
)
from harness.verifier.env import Env, NotModelled, Options
from harness.verifier.kernel_layout import Layout
from harness.verifier.misc_fixups import count_loops, misc_fixups
from harness.verifier.rewrite import OutOfReachError, Rewriter
from harness.verifier.zero_extension import extend_exchanges, high_used


def translate(
    program: Program,
    *,
    log_level: int = 0,
    options: Options | None = None,
) -> tuple[Verification, Program | Unknown]:
    """Return the verification of *program* and, of an accepted one, what the JIT gets.

    The kernel's BTF, in *options*, tells where it keeps what inlined code reads. Unknown
    says which rewrite is not modelled.
    """
    env, verification = explore(program, log_level=log_level, options=options)
    if not isinstance(verification.verdict, Accepted):
        return verification, Unknown("not accepted")
    try:
        return verification, rewritten(env, verification.frames)
    except NotModelled as reason:
        return verification, Unknown(str(reason))
    except OutOfReachError as reason:
        return verification, Unknown(str(reason))


def rewritten(env: Env, frames: tuple[Frame, ...]) -> Program:
    """Return the program of *env*, which was accepted, as the JIT gets it.

    Raises NotModelled, OutOfReachError.
    """
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
    inline_loops(rewriter, env)
    remove_dead_code(rewriter, env)
    remove_nops(rewriter)
    layout = Layout(env.kernel_btf)
    convert_accesses(rewriter, env, layout)
    misc_fixups(rewriter, env, layout)
    count_loops(rewriter)
    extend_exchanges(rewriter, used)
    found = rewriter.program_now()
    if len(found.frames) == 1 and any(frame.private_stack for frame in frames):
        # the program as a whole was said to have one, and is now one function
        found = replace(found, frames=(replace(found.frames[0], private_stack=True),))
    return found
