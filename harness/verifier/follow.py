"""What the verifier knows along one path that was really taken, instruction by instruction.

It goes where a run goes, with every transfer function and without pruning, so that the
state at an instruction is what the verifier can say of it. A global function is entered
as it is verified, with what its prototype says of the arguments.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.isa.insn import Alu, Call, Exit, MayGoto
from harness.model import Program
from harness.verifier.check import enter, handler, prepare
from harness.verifier.env import Env, Options
from harness.verifier.log import Log
from harness.verifier.precision import push_history
from harness.verifier.state import State

_AGAIN = 16  # times one instruction may be looked at again for a branch of its own


class LostError(Exception):
    """No state of the verifier's holds what the run shows; the text says why not."""


class Follower:
    """The states that are left along a path: more than one where branches meet."""

    def __init__(self, program: Program, options: Options | None = None) -> None:
        """Prepare *program*, which is accepted; it raises as the verifier does."""
        self.env = env = Env(program, options or Options(), Log(0, ()))
        prepare(env)
        self._handlers = [handler(insn) for insn in env.insns]
        sleepable = program.sleepable or program.type == "syscall"
        enter(env, env.subs[0], sleepable)
        self.base = 0  # frames of the run below those of the states
        self._previous = -1
        self._left: list[tuple[State, int]] = [(env.state, 0)]  # and where each goes on
        self._outside: list[tuple[list[tuple[State, int]], int]] = []  # around global functions

    def arrive(self, slot: int, depth: int, fault: Callable[[State], str | None]) -> None:
        """Keep the states at *slot*, *depth* calls deep, in which *fault* finds nothing wrong.

        Raises LostError where none is left.
        """
        env = self.env
        insn = env.insns[self._previous] if self._previous >= 0 else None
        if isinstance(insn, Call) and insn.kind == "subprog":
            sub = env.find_subprog(slot)
            if sub is not None and sub.is_global and self._previous + 1 != slot:
                self._outside.append((self._left, self.base))
                self.base = depth
                enter(env, sub, self._left[0][0].sleepable)
                self._left = [(env.state, slot)]
        elif isinstance(insn, Exit) and depth < self.base:
            self._left, self.base = self._outside.pop()
        here = [state for state, at in self._left if at == slot]
        if not here:
            places = sorted({at for _, at in self._left})
            raise LostError(f"insn {slot}: the verifier goes on at {places or 'no instruction'}")
        kept, why = [], ""
        for state in here:
            found = fault(state)
            if found is None:
                kept.append(state)
            why = why or found or ""
        if not kept:
            raise LostError(f"insn {slot}: {why}")
        self._left = [(state, slot) for state in kept]

    def step(self) -> None:
        """Let every state that is left take the instruction it is at."""
        after: list[tuple[State, int]] = []
        slot = self._left[0][1]
        waiting = [state for state, _ in self._left]
        for _ in range(_AGAIN):
            again = []
            for state in waiting:
                back = state.frames[-1].in_callback and isinstance(self.env.insns[slot], Exit)
                for found, at in self._successors(state, slot, self._previous):
                    if at == slot and isinstance(self.env.insns[slot], Alu):
                        again.append(found)
                    elif back:  # to the helper, which calls once more or returns
                        after += self._successors(found, at, slot)
                    else:
                        after.append((found, at))
            waiting = again
            if not waiting:
                break
        self._previous = slot
        self._left = after

    def _successors(self, state: State, slot: int, previous: int) -> list[tuple[State, int]]:
        env = self.env
        env.state = state
        env.pushed = False
        env.prev_insn = previous
        env.insn = slot
        env.processed = 0
        state.last = previous
        state.insn = slot
        env.notes.clear()
        env.stack.clear()
        if env.jmp_point[slot]:
            push_history(env)
        insn = env.insns[slot]
        if isinstance(insn, MayGoto):  # which is handled where paths are pruned
            return [(state.copy(), slot + 1), (state, slot + 1 + insn.off)]
        frame = state.frames[-1]
        if frame.shared:
            frame = state.frames[-1] = frame.copy()
        to = self._handlers[slot](env, frame, insn)
        found = [(branch, at) for branch, at, _, _ in env.stack]
        if to is None:
            found.append((env.state, slot + 1))
        elif to >= 0:
            found.append((env.state, to))
        return found
