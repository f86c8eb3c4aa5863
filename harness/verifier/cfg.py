"""Control flow: reachability, marks for pruning, post-order, loops, call order.

``bpf_check_cfg``, ``bpf_compute_postorder``, ``bpf_compute_scc`` (cfg.c),
``bpf_insn_successors`` (liveness.c) and ``sort_subprogs_topo`` (verifier.c) of Linux 7.3.4.
"""

from __future__ import annotations

from harness.isa.insn import (
    AddrSpaceCast,
    Alu,
    Atomic,
    Call,
    Endian,
    Exit,
    Goto,
    GotoX,
    High,
    Insn,
    Jump,
    Load,
    LoadImm,
    LoadPacket,
    MayGoto,
    Store,
    StoreImm,
)
from harness.verifier import kfunc_table, kfuncs, maps
from harness.verifier.env import Env, Refused, Subprog
from harness.verifier.form import TAIL_CALL, is_call, is_func_address
from harness.verifier.helpers import (
    ASYNC_CALLBACKS,
    CHANGES_PACKET,
    SYNC_CALLBACKS,
    sleeps,
)

_DISCOVERED, _EXPLORED = 0x10, 0x20
_FALLTHROUGH, _BRANCH = 1, 2
# one slot, after which the next one follows, always
_STRAIGHT = frozenset({Alu, Endian, AddrSpaceCast, Load, Store, StoreImm, Atomic, High})


def width(insn: Insn) -> int:
    """Return how many slots *insn* takes."""
    return 2 if isinstance(insn, LoadImm) else 1


class _Walk:
    """The depth-first search of ``bpf_check_cfg``."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self.state = [0] * env.count
        self.stack = [0]
        self.state[0] = _DISCOVERED

    def push(self, at: int, to: int, edge: int) -> bool:
        """Follow an edge; say whether there is more to explore first (``push_insn``)."""
        env, state = self.env, self.state
        if state[at] >= _DISCOVERED | edge:
            return False
        if not 0 <= to < env.count:
            env.log.line(at)
            raise Refused(f"jump out of range from insn {at} to {to}", at)
        if edge == _BRANCH:
            env.prune_point[to] = env.jmp_point[to] = env.jump_target[to] = 1
        if state[to] == 0:
            state[at] = _DISCOVERED | edge
            state[to] = _DISCOVERED
            self.stack.append(to)
            return True
        if state[to] & 0xF0 == _DISCOVERED:
            return False
        state[at] = _DISCOVERED | edge
        return False

    def visit(self, at: int) -> bool:
        """Look at one instruction (``visit_insn``)."""
        env = self.env
        insn = env.insns[at]
        match insn:
            case LoadImm(src=4):
                return self.call(at, callee=True)
            case Exit():
                return False
            case Call():
                return self.visit_call(at, insn)
            case GotoX():
                return self.visit_gotox(at)
            case Goto(off=off):
                more = self.push(at, at + off + 1, _FALLTHROUGH)
                if not more:
                    to = at + off + 1
                    env.prune_point[to] = env.jmp_point[to] = env.jump_target[to] = 1
                return more
            case Jump(off=off) | MayGoto(off=off):
                env.prune_point[at] = 1
                if isinstance(insn, MayGoto):
                    env.force_checkpoint[at] = 1
                return self.push(at, at + 1, _FALLTHROUGH) or self.push(at, at + off + 1, _BRANCH)
            case LoadPacket():
                self.hidden_exit(at)
        return self.push(at, at + width(insn), _FALLTHROUGH)

    def hidden_exit(self, at: int) -> None:
        """Note an instruction that may leave the subprogram (``visit_abnormal_return_insn``)."""
        env = self.env
        env.hidden_exit[at] = (at + 1, env.subprog_at(at).exit)

    def visit_gotox(self, at: int) -> bool:
        """Follow all edges of an indirect jump (``visit_gotox_insn``)."""
        env = self.env
        if at not in env.hidden_exit:
            env.hidden_exit[at] = _jump_targets(env, at)
        env.prune_point[at] = 1
        more = False
        for to in env.hidden_exit[at]:
            env.jmp_point[to] = env.jump_target[to] = 1
            if not self.state[to]:
                self.stack.append(to)
                self.state[to] = _DISCOVERED
                more = True
        return more

    def visit_call(self, at: int, insn: Call) -> bool:
        env = self.env
        if insn.kind == "helper":
            number = insn.imm
            if number in ASYNC_CALLBACKS:
                env.prune_point[at] = 1
            if number in SYNC_CALLBACKS:
                env.calls_callback[at] = env.force_checkpoint[at] = 1
                env.prune_point[at] = env.jmp_point[at] = 1
            sub = env.subprog_at(at)
            if sleeps(env.program, number):
                sub.might_sleep = True
            if number in CHANGES_PACKET:
                sub.changes_packet = True
            if number == TAIL_CALL:
                self.hidden_exit(at)
        elif insn.kind == "kfunc":
            self.visit_kfunc(at, env.kfuncs[insn.imm])
        return self.call(at, callee=insn.kind == "subprog")

    def visit_kfunc(self, at: int, kfunc: kfuncs.Kfunc) -> None:
        """Note what a kernel function does to the flow (``visit_insn``)."""
        env, sub = self.env, self.env.subprog_at(at)
        if kfunc.special(*kfuncs.ASYNC_CALLBACKS):
            env.prune_point[at] = 1
        if kfunc.special(*kfuncs.SYNC_CALLBACKS):
            env.calls_callback[at] = env.force_checkpoint[at] = 1
            env.prune_point[at] = env.jmp_point[at] = 1
        if not kfunc.allowed:
            return
        if kfunc.flags & kfunc_table.ITER_NEXT:
            env.prune_point[at] = env.force_checkpoint[at] = env.iter_next[at] = 1
        if kfunc.flags & kfunc_table.SLEEPABLE:
            sub.might_sleep = True
        if kfunc.special("bpf_xdp_pull_data"):
            sub.changes_packet = True
        if kfunc.special("bpf_throw"):
            sub.might_throw = True

    def call(self, at: int, *, callee: bool) -> bool:
        """``visit_func_call_insn``."""
        env = self.env
        size = width(env.insns[at])
        if self.push(at, at + size, _FALLTHROUGH):
            return True
        env.prune_point[at + size] = env.jmp_point[at + size] = 1
        if not callee:
            return False
        to = at + env.fields[at][4] + 1
        env.prune_point[at] = 1
        caller, target = env.subprog_at(at), env.subprog_at(to)
        caller.changes_packet |= target.changes_packet
        caller.might_sleep |= target.might_sleep
        caller.might_throw |= target.might_throw
        return self.push(at, to, _BRANCH)

    def run(self) -> None:
        state, stack, insns = self.state, self.stack, self.env.insns
        last = self.env.count - 1
        while stack:
            at = stack[-1]
            if at < last and type(insns[at]) in _STRAIGHT:
                # nothing is left to do here once what follows is explored
                stack.pop()
                while at < last and type(insns[at]) in _STRAIGHT:
                    state[at] = _EXPLORED
                    at += 1
                    if state[at]:
                        break
                else:
                    state[at] = _DISCOVERED
                    stack.append(at)
                continue
            if not self.visit(at):
                state[at] = _EXPLORED
                stack.pop()


def _jump_targets(env: Env, at: int) -> tuple[int, ...]:
    """Return where an indirect jump may go (``create_jt``)."""
    sub = env.subprog_at(at)
    found: set[int] = set()
    for table in env.used_maps:
        if table.type == maps.INSN_ARRAY:
            slots = maps.targets(table)
            if sub.start <= min(slots) < sub.end:
                found.update(slots)
    if not found:
        raise Refused(f"no jump tables found for subprog starting at {sub.start}", at)
    if not all(sub.start <= slot < sub.end for slot in found):
        raise Refused(
            f"jump table for insn {at} points outside of the subprog [{sub.start},{sub.end}]", at
        )
    return tuple(sorted(found))


def check_cfg(env: Env) -> None:
    """Refuse unreachable instructions and mark where to prune (``bpf_check_cfg``)."""
    walk = _Walk(env)
    walk.run()
    start = env.subs[env.exception_callback].start
    if not walk.state[start]:
        walk.state[start] = _DISCOVERED
        walk.stack.append(start)
        walk.run()
    index = 0
    while index < env.count:
        if walk.state[index] != _EXPLORED:
            raise Refused(f"unreachable insn {index}", index)
        if isinstance(env.insns[index], LoadImm):
            if walk.state[index + 1]:
                raise Refused(f"jump into the middle of ldimm64 insn {index}", index)
            index += 1
        index += 1


def compute_successors(env: Env) -> None:
    """Fill ``env.successors`` (``bpf_insn_successors``)."""
    out: list[tuple[int, ...]] = list(zip(range(1, env.count + 1)))
    for at, insn in enumerate(env.insns):
        if type(insn) in _STRAIGHT:
            continue
        hidden = env.hidden_exit.get(at)
        if hidden is not None:
            out[at] = hidden
            continue
        match insn:
            case Exit():
                out[at] = ()
            case Goto(off=off):
                out[at] = (at + off + 1,)
            case Jump(off=off) | MayGoto(off=off):
                out[at] = (at + 1, at + off + 1)
            case LoadImm():
                out[at] = (at + 2,)
    env.successors = out


def compute_postorder(env: Env) -> None:
    """Order the instructions of each subprogram (``bpf_compute_postorder``)."""
    compute_successors(env)
    state = bytearray(env.count)  # 1 discovered, 2 explored
    successors = env.successors
    everything: list[int] = []
    for sub in env.subs:
        order: list[int] = []
        stack = [sub.start]
        while stack:
            top = stack[-1]
            if state[top] & 2:
                order.append(top)
                stack.pop()
                continue
            state[top] = 3
            following = successors[top]
            while len(following) == 1 and not state[following[0]]:
                top = following[0]
                stack.append(top)
                state[top] = 3
                following = successors[top]
            for to in following:
                if not state[to]:
                    stack.append(to)
                    state[to] = 1
        sub.postorder = order
        everything += order
    env.postorder = everything


def _only_forward(env: Env, sub: Subprog) -> bool:
    """Say whether no instruction of *sub* leads to an earlier one or counts as a loop."""
    start, end = sub.start, sub.end
    if env.calls_callback.find(1, start, end) >= 0:
        return False
    for at, following in enumerate(env.successors[start:end], start):
        for to in following:
            if to <= at:
                return False
    return True


def compute_scc(env: Env) -> None:
    """Give each loop a number (``bpf_compute_scc``, Tarjan without recursion)."""
    count = env.count
    roots: list[int] = []  # of the functions that may have loops
    for sub in env.subs:
        if not _only_forward(env, sub):
            roots += range(sub.start, sub.end)
    if not roots:
        return
    gone = 1 << 32
    pre, low = [0] * count, [0] * count
    next_pre = next_id = 1
    for root in roots:
        if pre[root]:
            continue
        stack: list[int] = []
        walk = [root]
        while walk:
            at = walk[-1]
            if not pre[at]:
                pre[at] = low[at] = next_pre
                next_pre += 1
                stack.append(at)
            successors = [to for to in env.successors[at] if to < count]
            deeper = False
            for to in successors:
                if pre[to]:
                    low[at] = min(low[at], low[to])
                else:
                    walk.append(to)
                    deeper = True
                    break
            if deeper:
                continue
            if low[at] < pre[at]:
                walk.pop()
                continue
            loop = stack[-1] != at or at in successors or bool(env.calls_callback[at])
            while True:
                member = stack.pop()
                low[member] = gone
                if loop:
                    env.scc[member] = next_id
                if member == at:
                    break
            next_id += loop
            walk.pop()


def sort_subprogs(env: Env) -> None:
    """Order subprograms, callees first; refuse recursion (``sort_subprogs_topo``)."""
    color = [0] * len(env.subs)  # 1 on the stack, 2 done
    order: list[int] = []
    for first in range(len(env.subs)):
        if color[first]:
            continue
        color[first] = 1
        stack = [first]
        while stack:
            current = stack[-1]
            pushed = False
            for at in env.subs[current].postorder:
                code, _, src, _, imm = env.fields[at]
                address = is_func_address(code, src)
                if not address and not is_call(code, src):
                    continue
                target = env.find_subprog(at + imm + 1)
                assert target is not None  # add_subprogs
                callee = target.index
                if color[callee] == 2:
                    continue
                if color[callee] == 1:
                    if address:
                        continue
                    raise Refused(
                        f"recursive call from {env.subs[current].name}() to {target.name}()", at
                    )
                color[callee] = 1
                stack.append(callee)
                pushed = True
                break
            if not pushed:
                color[current] = 2
                order.append(current)
                stack.pop()
    env.topo = order
    if env.log.level > 1:
        for index, sub in enumerate(order):
            env.log.text(f"topo_order[{index}] = {env.subs[sub].name}\n")
