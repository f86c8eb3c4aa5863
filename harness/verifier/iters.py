"""Open-coded iterators: how a loop over one converges.

``process_iter_next_call`` (verifier.c of Linux 7.3.4).
"""

from __future__ import annotations

from harness.verifier import objects
from harness.verifier.env import Env, NotModelled
from harness.verifier.prune import find_prev_entry, widen_imprecise
from harness.verifier.state import MAYBE_NULL, ZERO_REG, Iter, State


def next_round(env: Env, place: tuple[int, int]) -> None:
    """Follow an iterator: it ends here, and another state goes on (``process_iter_next_call``)."""
    number, index = place
    state = env.state
    found: Iter = state.frames[number].stack[index].reg.info
    if found.active:
        parent = state.parent
        if parent is None or parent.insn != env.insn or not _same_calls(parent, state):
            raise NotModelled("verifier bug: bad parent state for iter next call")
        before = find_prev_entry(env, parent, env.insn)
        queued = env.push(env.insn + 1, env.insn)
        objects.set_iter(queued, number, index, found._replace(depth=found.depth + 1))
        if before is not None:
            widen_imprecise(before, queued)
        frame = queued.own(len(queued.frames) - 1)
        frame.regs[0] = frame.regs[0].with_type(frame.regs[0].type & ~MAYBE_NULL)
    objects.set_iter(state, number, index, found._replace(active=False))
    env.frame().regs[0] = ZERO_REG


def _same_calls(a: State, b: State) -> bool:
    """``same_callsites``."""
    return len(a.frames) == len(b.frames) and all(
        one.callsite == other.callsite for one, other in zip(a.frames, b.frames, strict=True)
    )
