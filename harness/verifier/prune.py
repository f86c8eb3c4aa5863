"""Ending a path at a state that is known to be safe (states.c of Linux 7.3.4)."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.isa.insn import MayGoto
from harness.verifier.bounds import is_subset
from harness.verifier.env import Env, NotModelled, Refused
from harness.verifier.precision import Trail, mark, mark_everything, push_history
from harness.verifier.state import (
    ADD_CONST,
    ARENA,
    BASE,
    BUF,
    DYNPTR_SLOT,
    INSN,
    INVALID,
    IRQ_SLOT,
    ITER_SLOT,
    MAP_KEY,
    MAP_VALUE,
    MEM,
    MISC,
    NOT_INIT,
    PACKET,
    PACKET_META,
    POISON,
    REF_PTR,
    SCALAR,
    SPILL,
    TP_BUFFER,
    UNINIT,
    UNKNOWN_REG,
    Checkpoint,
    Frame,
    Ref,
    Reg,
    Slot,
    State,
)

NOT_EXACT, EXACT, RANGE_WITHIN = range(3)
_ID_MAP_SIZE = (11 + 64 + 7) * 16
_MAX_BACKEDGE_ITERATIONS = 64


@dataclass(eq=False)
class Visit:
    """One way into a loop (``bpf_scc_visit``)."""

    entry: Checkpoint | None = None
    backedges: list[Checkpoint] = field(default_factory=list)
    counted: int = 0


def _callchain(env: Env, state: State) -> tuple[int, ...] | None:
    """Return the call sites that lead into a loop, and the loop (``compute_scc_callchain``)."""
    sites: list[int] = []
    for number in range(len(state.frames)):
        at = state.frame_insn(number)
        loop = env.scc[at]
        if loop:
            return (*sites, -loop)
        sites.append(at)
    return None


def _chain_text(chain: tuple[int, ...]) -> str:
    sites = ""
    for site in chain[:-1]:
        if not site:
            break
        sites += f"{site},"
    return f"({sites}{-chain[-1]})"


def _update_peak(env: Env) -> None:
    env.peak_states = max(env.peak_states, env.explored_size + env.free_size + env.backedges)


def _enter_loop(env: Env, state: Checkpoint) -> None:
    """``maybe_enter_scc``."""
    chain = state.callchain
    if chain is None:
        return
    visit = env.visits.setdefault(chain, Visit())
    if visit.entry is None:
        visit.entry = state
        if env.log.level > 1:
            env.log.text(f"SCC enter {_chain_text(chain)}\n")


def _exit_loop(env: Env, state: State) -> None:
    """``maybe_exit_scc``."""
    chain = state.callchain if isinstance(state, Checkpoint) else _callchain(env, state)
    if chain is None:
        return
    visit = env.visits.get(chain)
    if visit is None:
        raise NotModelled("verifier bug: scc exit: no visit info")
    if visit.entry is not state:
        return
    if env.log.level > 1:
        env.log.text(f"SCC exit {_chain_text(chain)}\n")
    visit.entry = None
    env.backedges -= visit.counted
    visit.counted = 0
    _update_peak(env)
    _propagate_backedges(env, visit)


def _incomplete(env: Env, state: Checkpoint) -> bool:
    """Say whether marks may still come from a loop (``incomplete_read_marks``)."""
    if state.callchain is None:
        return False
    visit = env.visits.get(state.callchain)
    return visit is not None and bool(visit.backedges)


def _propagate_backedges(env: Env, visit: Visit) -> None:
    """``propagate_backedges``."""
    rounds = 0
    while True:
        rounds += 1
        if rounds > _MAX_BACKEDGE_ITERATIONS:
            if env.log.level > 1:
                env.log.text("propagate_backedges: too many iterations\n")
            for backedge in reversed(visit.backedges):
                mark_everything(env, backedge)
            break
        changed = False
        for backedge in reversed(visit.backedges):
            assert backedge.equal is not None
            if _propagate_precision(env, backedge.equal, backedge):
                changed = True
        if not changed:
            break
    visit.backedges = []


def update_branch_counts(env: Env, state: State) -> None:
    """Count the end of a path from *state* (``bpf_update_branch_counts``)."""
    current: State | None = state
    kept: Checkpoint | None = None
    while current is not None:
        current.branches -= 1
        if current.branches:
            break
        _exit_loop(env, current)
        parent = current.parent
        if kept is not None:
            _maybe_free(env, kept)
        current = kept = parent


def _maybe_free(env: Env, state: Checkpoint) -> None:
    """Forget an evicted state that nothing needs (``maybe_free_verifier_state``)."""
    if state.in_free_list and not state.branches and not _incomplete(env, state):
        state.in_free_list = False
        env.free_size -= 1


# --- comparing -----------------------------------------------------------------------


class IdMap:
    """Which id of the old state is which of the current one (``bpf_idmap``)."""

    __slots__ = ("cur", "generated", "old")

    def __init__(self, generated: int) -> None:
        self.old: dict[int, int] = {}
        self.cur: dict[int, int] = {}
        self.generated = generated

    def check(self, old: int, cur: int) -> bool:
        """``check_ids``."""
        if not old or not cur:
            return old == cur
        # The kernel scans pairs in order and stops at the first that has either id.
        known = self.old.get(old)
        if known is not None:
            return known == cur
        if cur in self.cur:
            return False
        if len(self.old) >= _ID_MAP_SIZE:
            return False
        self.old[old] = cur
        self.cur[cur] = old
        return True

    def check_scalar(self, old: int, cur: int) -> bool:
        """``check_scalar_ids``."""
        if not old:
            return True
        if not cur:
            self.generated += 1
            cur = self.generated
        if not self.check(old, cur):
            return False
        return not old & ADD_CONST or self.check(old & ~ADD_CONST, cur & ~ADD_CONST)


def _exact(old: Reg, cur: Reg, ids: IdMap) -> bool:
    """``regs_exact``."""
    return (
        old.type == cur.type
        and old.delta == cur.delta
        and old.info == cur.info
        and old.num == cur.num
        and ids.check(old.id, cur.id)
        and ids.check(old.parent_id, cur.parent_id)
        and ids.check(old.map_uid, cur.map_uid)
    )


def _safe(old: Reg, cur: Reg, precise: int, ids: IdMap, exact: int) -> bool:
    """Say whether *cur* is safe where *old* was (``regsafe``)."""
    if exact == EXACT:
        return _exact(old, cur, ids)
    kind = old.type
    if kind == NOT_INIT:
        return True
    if kind != cur.type:
        return False
    if kind == SCALAR:
        if not precise and exact == NOT_EXACT:
            return True
        if old.id:
            if (old.id & ADD_CONST) != (cur.id & ADD_CONST):
                return False
            if old.id & ADD_CONST and old.delta != cur.delta:
                return False
            if not ids.check_scalar(old.id, cur.id):
                return False
        return is_subset(old.num, cur.num)
    base = kind & BASE
    if base in (MAP_KEY, MAP_VALUE, MEM, BUF, TP_BUFFER):
        return (
            old.delta == cur.delta
            and old.info == cur.info
            and is_subset(old.num, cur.num)
            and ids.check(old.id, cur.id)
            and ids.check(old.parent_id, cur.parent_id)
            and ids.check(old.map_uid, cur.map_uid)
        )
    if base in (PACKET, PACKET_META):
        if old.info < 0 or cur.info < 0:
            if old.info != cur.info:
                return False
        elif old.info > cur.info:
            return False
        if not ids.check(old.id, cur.id):
            return False
        if old.id and old.num.base != cur.num.base:
            return False
        return is_subset(old.num, cur.num)
    if base == ARENA:
        return True
    if base == INSN:
        return old.delta == cur.delta and old.info == cur.info and is_subset(old.num, cur.num)
    return _exact(old, cur, ids)


def _scalar_of(slot: Slot, first: int) -> Reg | None:
    """Return the scalar that bytes *first* to 7 hold (``scalar_reg_for_stack``)."""
    types = slot.types
    if types[first] == SPILL and slot.reg.type == SCALAR:
        return slot.reg
    for kind in types[first:]:
        if kind not in (MISC, INVALID, POISON):
            return None
    return UNKNOWN_REG


_OBJECTS = (DYNPTR_SLOT, ITER_SLOT, IRQ_SLOT)
_NOTHING = (INVALID, POISON, MISC)
_SPILL8 = bytes([SPILL] * 8)
_BLANK: dict[bytes, bool] = {}  # slots of which a privileged program can only read junk


def _stack_safe(old: Frame, cur: Frame, precise: int, ids: IdMap, exact: int) -> int:
    """Return the first slot that is not safe, -1: all are (``stacksafe``, privileged)."""
    cur_stack = cur.stack
    have = len(cur_stack)
    index = -1
    for slot in old.stack:
        index += 1
        types = slot.types
        if exact != EXACT:
            blank = _BLANK.get(types)
            if blank is None:
                blank = _BLANK[types] = all(kind in _NOTHING for kind in types)
            if blank:
                continue
            theirs = cur_stack[index] if index < have else None
            if types[7] == SPILL:
                reg = slot.reg
                if theirs is slot and not reg.id:
                    continue
                if types == _SPILL8 and theirs is not None and theirs.types == _SPILL8:
                    if not _safe(reg, theirs.reg, precise >> index & 1, ids, exact):
                        return index
                    continue
            elif theirs is slot and not slot.special:
                continue
        else:
            theirs = cur_stack[index] if index < have else None
        bit = precise >> index & 1
        byte = 0
        while byte < 8:
            kind = types[byte]
            if exact == EXACT:
                if theirs is None:
                    return index
                mine = INVALID if kind == POISON else kind
                other = INVALID if theirs.types[byte] == POISON else theirs.types[byte]
                if mine != other:
                    return index
            if kind in (INVALID, POISON, MISC):
                byte += 1
                continue
            if theirs is None:
                return index
            if byte in (0, 4):
                old_reg = _scalar_of(slot, byte)
                cur_reg = _scalar_of(theirs, byte)
                if old_reg is not None and cur_reg is not None:
                    marked = bit if old_reg is slot.reg else 0
                    if not _safe(old_reg, cur_reg, marked, ids, exact):
                        return index
                    byte += 8 if byte == 0 else 4
                    continue
            other = theirs.types[byte]
            if kind != other:
                return index
            if byte == 7:
                last = types[7]
                if last == SPILL:
                    if not _safe(slot.reg, theirs.reg, bit, ids, exact):
                        return index
                elif last in _OBJECTS and not _object_safe(last, slot.reg, theirs.reg, ids):
                    return index
            byte += 1
    return -1


def _object_safe(kind: int, old: Reg, cur: Reg, ids: IdMap) -> bool:
    """Compare a slot of a dynptr, an iterator or an irq flag."""
    if kind == ITER_SLOT:  # the depth does not matter
        return (
            old.type == cur.type
            and (old.info.name, old.info.active) == (cur.info.name, cur.info.active)
            and ids.check(old.id, cur.id)
        )
    if not ids.check(old.id, cur.id):
        return False
    if kind == DYNPTR_SLOT and not ids.check(old.parent_id, cur.parent_id):
        return False
    return bool(old.info == cur.info)


def _args_safe(old: Frame, cur: Frame, precise: int, ids: IdMap, exact: int) -> bool:
    """``stack_arg_safe``."""
    have, theirs_have = len(old.args), len(cur.args)
    for index in range(max(have, theirs_have)):
        mine = old.args[index] if index < have else UNINIT
        if mine is UNINIT and exact != EXACT:
            continue
        theirs = cur.args[index] if index < theirs_have else UNINIT
        if not _safe(mine, theirs, precise >> index & 1, ids, exact):
            return False
    return True


def states_equal(env: Env, old: Checkpoint, cur: State, exact: int) -> bool:
    """Say whether *cur* is safe where *old* was (``states_equal``)."""
    if len(old.frames) != len(cur.frames) or old.sleepable != cur.sleepable:
        return False
    if len(old.refs) != len(cur.refs) or old.rcu_locks != cur.rcu_locks:
        return False
    if old.preempt_locks != cur.preempt_locks:
        return False
    if exact != EXACT and (
        (old.miss_reg >= 0 and _register_misses_again(old, cur, exact))
        or (old.miss_slot >= 0 and _misses_again(old, cur, exact))
    ):
        return False
    ids = IdMap(env.id_gen)
    if old.refs and not _refs_safe(old.refs, cur.refs, ids):
        return False
    for number, mine in enumerate(old.frames):
        theirs = cur.frames[number]
        if mine is theirs and exact != EXACT and mine.without_ids():
            continue
        if mine.callsite != theirs.callsite:
            return False
        if mine.callback_depth > theirs.callback_depth:
            return False
        if not mine.no_arg_load and theirs.no_arg_load:
            return False
        live = env.live_regs[old.frame_insn(number)]
        precise = old.precise_regs[number]
        old_regs, cur_regs = mine.regs, theirs.regs
        for index in range(11):
            if live >> index & 1:
                a, b = old_regs[index], cur_regs[index]
                if a is b and not a.id and exact != EXACT:
                    continue
                if not _safe(a, b, precise >> index & 1, ids, exact):
                    old.miss_reg_frame, old.miss_reg = number, index
                    return False
        if mine.stack:
            missed = _stack_safe(mine, theirs, old.precise_slots[number], ids, exact)
            if missed >= 0:
                old.miss_frame, old.miss_slot = number, missed
                return False
        if (mine.args or theirs.args) and not _args_safe(
            mine, theirs, old.precise_args[number], ids, exact
        ):
            return False
    return True


def _refs_safe(old: tuple[Ref, ...], cur: tuple[Ref, ...], ids: IdMap) -> bool:
    """``refsafe``; the lists are of one length."""
    for mine, theirs in zip(old, cur, strict=True):
        if mine.kind != theirs.kind or not ids.check(mine.id, theirs.id):
            return False
        if mine.kind == REF_PTR:
            if not ids.check(mine.link, theirs.link):
                return False
        elif mine.link is not theirs.link and mine.link != theirs.link:
            return False
    return True


def _register_misses_again(old: Checkpoint, cur: State, exact: int) -> bool:
    """Say whether the register that was not safe the last time is not safe now either."""
    number, index = old.miss_reg_frame, old.miss_reg
    mine, theirs = old.frames[number].regs[index], cur.frames[number].regs[index]
    if mine.type != theirs.type:
        return True
    if mine.type != SCALAR or (exact == NOT_EXACT and not old.precise_regs[number] >> index & 1):
        return False
    return not is_subset(mine.num, theirs.num)


def _misses_again(old: Checkpoint, cur: State, exact: int) -> bool:
    """Say whether the spill that was not safe the last time is not safe now either."""
    number, index = old.miss_frame, old.miss_slot
    stack = cur.frames[number].stack
    if index >= len(stack):
        return False
    mine, theirs = old.frames[number].stack[index], stack[index]
    if not (mine.types == _SPILL8 == theirs.types and mine.reg.type == SCALAR):
        return False
    if exact == NOT_EXACT and not old.precise_slots[number] >> index & 1:
        return False
    return theirs.reg.type != SCALAR or not is_subset(mine.reg.num, theirs.reg.num)


def _maybe_looping(old: Checkpoint, cur: State) -> bool:
    """``states_maybe_looping``."""
    if len(old.frames) != len(cur.frames):
        return False
    mine, theirs = old.frames[-1], cur.frames[-1]
    if mine is theirs:
        return True
    others = theirs.regs
    index = old.miss_loop  # the register that was not the same the last time is not the same now
    if not mine.regs[index].same(others[index]):
        return False
    for index, reg in enumerate(mine.regs):
        other = others[index]
        if reg is not other and not reg.same(other):
            old.miss_loop = index
            return False
    return True


def _iter_active(cur: State) -> bool:
    """Say whether the iterator that r1 points to may give more."""
    reg = cur.frames[-1].regs[1]
    index = (-reg.num.signed_value - 1) // 8
    return bool(cur.frames[reg.info].stack[index].reg.info.active)


def _iter_depths_differ(old: State, cur: State) -> bool:
    """``iter_active_depths_differ``; both have the same slots."""
    for mine, theirs in zip(old.frames, cur.frames, strict=True):
        for slot, other in zip(mine.stack, theirs.stack, strict=False):
            if (
                slot.types[0] == ITER_SLOT
                and slot.reg.info.active
                and slot.reg.info.depth != other.reg.info.depth
            ):
                return True
    return False


# --- cleaning ------------------------------------------------------------------------


def _clean(env: Env, state: State) -> None:
    """Forget what no path from here reads (``clean_verifier_state``)."""
    frames = state.frames
    need_stack = False
    for number, frame in enumerate(frames):
        dead = env.dead_regs[state.frame_insn(number)]
        regs = frame.regs
        for index in dead:
            if regs[index] is not UNINIT:
                regs = state.own(number).regs
                for each in dead:
                    regs[each] = UNINIT
                break
        need_stack = need_stack or bool(frame.stack)
    if not need_stack:
        return
    live = env.liveness.live_halves(state)
    for number, frame in enumerate(frames):
        halves = live[number]
        stack = frame.stack
        size = len(stack)
        if not size or halves & (1 << 2 * size) - 1 == (1 << 2 * size) - 1:
            continue
        for index in range(size):
            both = halves >> 2 * index & 3
            if both != 3:
                slot = stack[index]
                if (both | slot.dead) == 3:
                    continue
                new = _clean_slot(slot, bool(both & 1), bool(both & 2))
                if new is not slot:
                    stack = state.own(number).stack
                    stack[index] = new


_POISONED = Slot(bytes([POISON] * 8), dead=3)


def _clean_slot(slot: Slot, low: bool, high: bool) -> Slot:
    """Poison dead halves (``__clean_func_state``)."""
    if slot is _POISONED:
        return slot
    types = slot.types
    last = types[7]
    if last in _OBJECTS:
        return slot
    reg = slot.reg
    if not low and not high:
        return _POISONED
    new = bytearray(types)
    if not high:
        if low and last == SPILL:
            if reg.type != SCALAR or reg.is_null:
                return slot
            for byte in range(4):
                if new[byte] == SPILL:
                    new[byte] = MISC
        reg = UNINIT
        new[4:8] = bytes([POISON] * 4)
    if not low:
        new[0:4] = bytes([POISON] * 4)
    return Slot(bytes(new), reg, (0 if low else 1) | (0 if high else 2))


def _clear_singular_ids(state: State) -> None:
    """Drop ids that link nothing (``bpf_clear_singular_ids``)."""
    counts: dict[int, int] = {}
    for frame in state.frames:
        if frame.shared and frame.without_ids():
            continue
        for reg in frame.regs:
            if reg.type == SCALAR and reg.id:
                key = reg.id & ~ADD_CONST
                counts[key] = counts.get(key, 0) + 1
        for slot in frame.stack:
            if slot.types[7] == SPILL and slot.reg.type == SCALAR and slot.reg.id:
                key = slot.reg.id & ~ADD_CONST
                counts[key] = counts.get(key, 0) + 1
        for reg in frame.args:
            if reg.type == SCALAR and reg.id:
                key = reg.id & ~ADD_CONST
                counts[key] = counts.get(key, 0) + 1
    single = {key for key, count in counts.items() if count == 1}
    if not single:
        return
    for number, frame in enumerate(state.frames):
        for index, reg in enumerate(frame.regs):
            if reg.type == SCALAR and reg.id and reg.id & ~ADD_CONST in single:
                state.own(number).regs[index] = reg.with_id(0)
        for index, slot in enumerate(frame.stack):
            reg = slot.reg
            if (
                slot.types[7] == SPILL
                and reg.type == SCALAR
                and reg.id
                and reg.id & ~ADD_CONST in single
            ):
                state.own(number).stack[index] = Slot(slot.types, reg.with_id(0))
        for index, reg in enumerate(frame.args):
            if reg.type == SCALAR and reg.id and reg.id & ~ADD_CONST in single:
                state.own(number).args[index] = reg.with_id(0)


# --- the decision --------------------------------------------------------------------


def _propagate_precision(env: Env, old: Checkpoint, cur: State) -> bool:
    """Require of *cur*'s past what *old* requires (``propagate_precision``)."""
    trail = Trail(len(cur.frames) - 1)
    loud = env.log.level > 1
    for number in range(len(old.frames) - 1, -1, -1):
        frame = old.frames[number]
        words: list[str] = []
        mask = old.precise_regs[number]
        if mask:
            for reg in range(10):
                if mask >> reg & 1 and frame.regs[reg].type == SCALAR:
                    trail.regs[number] |= 1 << reg
                    words.append(f"r{reg}")
        mask = old.precise_slots[number]
        if mask:
            for index, slot in enumerate(frame.stack):
                if mask >> index & 1 and slot.spilled_scalar:
                    trail.slots[number] |= 1 << index
                    words.append(f"fp{-(index + 1) * 8}")
        if env.options.propagate_slots:  # Linux 7.3.4 does not
            for index, arg in enumerate(frame.args):
                if old.precise_args[number] >> index & 1 and arg.type == SCALAR:
                    trail.args[number] |= 1 << index
        if loud and words:
            env.log.text(f"frame {number}: propagating {','.join(words)}\n")
    return mark(env, cur, trail)


def find_prev_entry(env: Env, cur: State, at: int) -> Checkpoint | None:
    """Return the nearest earlier state of this loop at *at* (``find_prev_entry``)."""
    for old in reversed(_bucket(env, cur, at)):
        if (
            old.insn == at
            and old.branches
            and len(old.frames) == len(cur.frames)
            and old.dfs_depth < cur.dfs_depth
            and all(a.callsite == b.callsite for a, b in zip(old.frames, cur.frames, strict=True))
        ):
            return old
    return None


def _bucket(env: Env, state: State, at: int) -> list[Checkpoint]:
    """Return the remembered states at *at* (``bpf_explored_state``)."""
    number = ((at ^ state.frames[-1].callsite) & 0xFFFFFFFF) % env.count
    return env.explored[number]


def is_state_visited(env: Env, at: int) -> bool:
    """Say whether the current state needs no more looking at (``bpf_is_state_visited``)."""
    cur = env.state
    force = bool(env.force_checkpoint[at]) or len(cur.history) > 40 or env.options.test_state_freq
    add = force or (env.jumps - env.prev_jumps >= 2 and env.processed - env.prev_processed >= 8)
    _clean(env, cur)
    bucket = _bucket(env, cur, at)
    count = 0
    evicted: list[Checkpoint] = []
    hit: Checkpoint | None = None
    loop = False
    for old in reversed(bucket):
        count += 1
        if old.insn != at:
            continue
        if old.branches:
            frame = old.frames[-1]
            skip = frame.in_async and frame.async_entry != cur.frames[-1].async_entry
            if skip:
                pass
            elif env.iter_next[at]:
                if states_equal(env, old, cur, RANGE_WITHIN) and _iter_active(cur):
                    hit, loop = old, True
                    break
            else:
                if (
                    isinstance(env.insns[at], MayGoto)
                    and old.may_goto_depth != cur.may_goto_depth
                    and states_equal(env, old, cur, RANGE_WITHIN)
                ):
                    hit, loop = old, True
                    break
                if env.calls_callback[at]:
                    if states_equal(env, old, cur, RANGE_WITHIN):
                        hit, loop = old, True
                        break
                elif (
                    _maybe_looping(old, cur)
                    and states_equal(env, old, cur, EXACT)
                    and not _iter_depths_differ(old, cur)
                    and old.may_goto_depth == cur.may_goto_depth
                    and old.callback_unroll == cur.callback_unroll
                ):
                    _infinite_loop(env, old, cur, at)
            if (
                not force
                and env.jumps - env.prev_jumps < 20
                and env.processed - env.prev_processed < 100
            ):
                add = False
        else:
            loop = _incomplete(env, old)
            if states_equal(env, old, cur, RANGE_WITHIN if loop else NOT_EXACT):
                hit = old
                break
            loop = False
        if add:
            old.misses += 1
        keep = 64 if env.force_checkpoint[at] and old.branches > 0 else 3
        if old.misses > old.hits * keep + keep:
            evicted.append(old)
    for old in evicted:
        bucket.remove(old)
        old.in_free_list = True
        env.free_size += 1
        env.explored_size -= 1
        _maybe_free(env, old)
    if hit is not None:
        _hit(env, hit, cur, at, loop)
        return True
    env.max_states = max(env.max_states, count)
    if add:
        _remember(env, cur, at, bucket)
    return False


def _hit(env: Env, old: Checkpoint, cur: State, at: int, loop: bool) -> None:
    old.hits += 1
    env.events.add(("pruned", "loop" if loop else "path", len(cur.frames)))
    if env.jmp_point[env.insn]:
        push_history(env)
    _propagate_precision(env, old, cur)
    if not loop:
        return
    backedge = Checkpoint(cur)
    backedge.equal = old
    backedge.insn = at
    chain = old.callchain
    visit = env.visits.get(chain) if chain is not None else None
    if chain is None or visit is None:
        raise NotModelled("verifier bug: add backedge: no visit info")
    if env.log.level > 1:
        env.log.text(f"SCC backedge {_chain_text(chain)}\n")
    visit.backedges.append(backedge)
    visit.counted += 1
    env.backedges += 1
    _update_peak(env)


def _infinite_loop(env: Env, old: Checkpoint, cur: State, at: int) -> None:
    env.log.line(at)
    env.say(f"infinite loop detected at insn {at}")
    last = len(cur.frames) - 1
    env.log.state(cur, last, text="cur state:")
    env.log.state(old, last, (old.precise_regs[last], old.precise_slots[last]), "old state:")
    raise Refused("", at)


def _remember(env: Env, cur: State, at: int, bucket: list[Checkpoint]) -> None:
    env.total_states += 1
    env.explored_size += 1
    _update_peak(env)
    env.prev_jumps = env.jumps
    env.prev_processed = env.processed
    _clear_singular_ids(cur)
    new = Checkpoint(cur)
    new.insn = at
    new.callchain = _callchain(env, new)
    _enter_loop(env, new)
    cur.parent = new
    cur.first = at
    cur.dfs_depth = new.dfs_depth + 1
    cur.history = []
    cur.walked = None
    bucket.append(new)


def widen_imprecise(old: Checkpoint, cur: State) -> None:
    """Give up scalars that nobody needs exactly (``widen_imprecise_scalars``)."""
    for number, frame in enumerate(old.frames):
        precise = old.precise_regs[number]
        for index, reg in enumerate(frame.regs):
            now = cur.frames[number].regs[index]
            if _widens(reg, now, precise >> index & 1):
                cur.own(number).regs[index] = UNKNOWN_REG
        precise = old.precise_slots[number]
        for index in range(min(len(frame.stack), len(cur.frames[number].stack))):
            slot, other = frame.stack[index], cur.frames[number].stack[index]
            if (
                slot.spilled
                and other.spilled
                and _widens(slot.reg, other.reg, precise >> index & 1)
            ):
                cur.own(number).stack[index] = Slot(other.types, UNKNOWN_REG)


def _widens(old: Reg, cur: Reg, precise: int) -> bool:
    return (
        old.type == SCALAR == cur.type
        and not precise
        and not (old.num == cur.num and old.delta == cur.delta and old.info == cur.info)
    )
