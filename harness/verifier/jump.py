"""Conditional jumps: which branch is taken, and what each one learns.

``check_cond_jmp_op`` and what it calls (verifier.c of Linux 7.3.4).
"""

from __future__ import annotations

from harness.isa.insn import GotoX, Jump, MayGoto
from harness.verifier import bounds, btf_pointer, maps, packets, refs
from harness.verifier.bounds import Scalar, const
from harness.verifier.env import Env, NotModelled
from harness.verifier.memory import read_reg
from harness.verifier.precision import mark_register, push_history
from harness.verifier.prune import find_prev_entry, widen_imprecise
from harness.verifier.stack import MAX_VAR_OFF
from harness.verifier.state import (
    ADD_CONST,
    ADD_CONST32,
    BASE,
    BTF_ID,
    BUF,
    DST_STACK,
    INSN,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MAYBE_NULL,
    MEM,
    NOT_INIT,
    PACKET_TYPES,
    SCALAR,
    SOCK_COMMON,
    SOCKET,
    SPILL,
    SRC_STACK,
    STACK,
    TCP_SOCK,
    UNTRUSTED,
    XDP_SOCK,
    ZERO_REG,
    Frame,
    Reg,
    Slot,
    State,
    type_name,
)

_MAX_LINKED = 5  # LINKED_REGS_MAX
_NOT_NULL = frozenset({
    SOCKET, TCP_SOCK, XDP_SOCK, BUF, MAP_VALUE, MAP_KEY, SOCK_COMMON, MAP_PTR, MEM,
})  # fmt: skip


def may_goto(env: Env, insn: MayGoto) -> int:
    """``BPF_JCOND`` in ``check_cond_jmp_op``."""
    at = env.insn
    parent = env.state.parent
    if parent is None:
        raise NotModelled("may_goto without a checkpoint")
    before = find_prev_entry(env, parent, at)
    queued = env.push(at + 1, at)
    queued.may_goto_depth += 1
    if before is not None:
        widen_imprecise(before, queued)
    return at + insn.off + 1


def jump(env: Env, frame: Frame, insn: Jump) -> int:
    """Follow a conditional jump; return where the current state goes on."""
    at = env.insn
    dst, src = insn.dst, insn.src
    left = read_reg(env, frame, dst)
    flags = DST_STACK if left.type == STACK else 0
    if src is not None:
        right = read_reg(env, frame, src)
        if right.type == STACK:
            flags |= SRC_STACK
    else:
        right = Reg(SCALAR, const(insn.imm))
    if flags:
        push_history(env, flags)

    linked: list[tuple[int, int, bool]] = []
    state = env.state
    if src is not None and right.type == SCALAR and right.id:
        _collect_linked(env, state, right.id, linked)
    if left.type == SCALAR and left.id:
        _collect_linked(env, state, left.id, linked)
    frame = env.frame()
    left = frame.regs[dst]
    if src is not None:
        right = frame.regs[src]

    if left.type == SCALAR and right.type == SCALAR:
        jumps, falls = bounds.refine(insn.op, insn.bits, left.num, right.num, dst == src)
        taken = None if jumps is not None and falls is not None else jumps is not None
    else:
        jumps = falls = (left.num, right.num)
        taken = _pointer_taken(env, insn, left, right)
    env.events.add(("branch", insn.op, insn.bits, src is None, left.type, right.type, taken))
    if taken is not None:
        if left.type == SCALAR:
            mark_register(env, dst)
        if src is not None and right.type == SCALAR:
            mark_register(env, src)
        if env.log.on:
            env.insn_state()
        return at + insn.off + 1 if taken else at + 1

    assert jumps is not None
    assert falls is not None
    if len(linked) > 1:
        env.events.add(("linked", min(len(linked), 4)))
        push_history(env, linked=tuple(linked))
    other = env.push(at + insn.off + 1, at)
    number = len(state.frames) - 1
    _learn(state, number, insn, left, right, falls)
    _learn(other, number, insn, left, right, jumps)
    if linked:
        for reg in (src, dst):
            if reg is None:
                continue
            known = state.frames[number].regs[reg]
            if known.type == SCALAR and known.id:
                _sync_linked(env, state, number, reg, linked)
                _sync_linked(env, other, number, reg, linked)
    if not _learn_null(env, state, other, number, insn):
        packets.learn(state, other, number, insn)
    if env.log.on:
        env.insn_state()
    return at + 1


def _learn(
    state: State, number: int, insn: Jump, left: Reg, right: Reg, nums: tuple[Scalar, Scalar]
) -> None:
    if left.num != nums[0]:
        state.own(number).regs[insn.dst] = left.with_num(nums[0])
    if insn.src is not None and right.num != nums[1]:
        state.own(number).regs[insn.src] = right.with_num(nums[1])


def indirect(env: Env, frame: Frame, insn: GotoX) -> int:
    """``check_indirect_jump``."""
    at, reg, name = env.insn, frame.regs[insn.dst], f"R{insn.dst}"
    if reg.type != INSN:
        env.refuse(f"{name} has type {type_name(reg.type)}, expected PTR_TO_INSN")
    found = reg.info
    for word, value in (("umin", reg.num.umin), ("umax", reg.num.umax)):
        if value > 0xFFFFFFFF * 8:
            env.refuse(f"the sum of {name} {word}_value {value} is too big")
    low, high = reg.num.umin // 8, reg.num.umax // 8
    if high >= found.max_entries:
        env.refuse(
            f"{name} points to outside of jump table: [{low},{high}] "
            f"max_entries {found.max_entries}"
        )
    *others, last = sorted(set(maps.targets(found)[low : high + 1]))
    env.indirect.update(others, (last,))
    for to in others:
        env.push(to, at)
    return last


# --- pointers -------------------------------------------------------------------------


def not_null(env: Env, reg: Reg) -> bool:
    """``reg_not_null``."""
    kind = reg.type
    if kind & MAYBE_NULL:
        return False
    if reg.num.smin <= -MAX_VAR_OFF or reg.num.smax >= MAX_VAR_OFF:
        return False
    base = kind & BASE
    if base == BTF_ID:
        return btf_pointer.trusted(env, reg)
    return base in _NOT_NULL and not (base == MEM and kind & UNTRUSTED)


def _pointer_taken(env: Env, insn: Jump, left: Reg, right: Reg) -> bool | None:
    """``is_branch_taken`` where one side is a pointer."""
    if insn.bits == 32:
        return None
    if left.type in PACKET_TYPES and right.type in PACKET_TYPES:
        return packets.taken(insn, left, right)
    if not (right.type == SCALAR and right.num.is_const):
        left, right = right, left
        if not (right.type == SCALAR and right.num.is_const):
            return None
    if not not_null(env, left) or right.num.value:
        return None
    return {"eq": False, "ne": True}.get(insn.op)


def _learn_null(env: Env, state: State, other: State, number: int, insn: Jump) -> bool:
    """Learn from a comparison that a pointer is, or is not, null; say whether with zero."""
    regs = state.frames[number].regs
    left = regs[insn.dst]
    right = ZERO_REG if insn.src is None else regs[insn.src]
    wide = insn.bits == 64
    equal = {"eq": other, "ne": state}.get(insn.op)
    if (
        wide
        and equal is not None
        and insn.src is not None
        and _is_pointer(left)
        and _is_pointer(right)
        and left.type & BASE != BTF_ID != right.type & BASE
    ):
        if right.type & MAYBE_NULL and not_null(env, left):
            own = equal.own(number).regs
            own[insn.src] = own[insn.src].with_type(right.type & ~MAYBE_NULL)
        if left.type & MAYBE_NULL and not_null(env, right):
            own = equal.own(number).regs
            own[insn.dst] = own[insn.dst].with_type(left.type & ~MAYBE_NULL)
    if not wide or insn.op not in ("eq", "ne") or not left.type & MAYBE_NULL:
        return False
    if insn.src is None:
        if insn.imm:
            return False
    elif right.is_null:
        mark_register(env, insn.src)
    else:
        return False
    _mark_null(state, left.id, insn.op == "ne")
    _mark_null(other, left.id, insn.op == "eq")
    return True


def _is_pointer(reg: Reg) -> bool:
    return reg.type not in (SCALAR, NOT_INIT)


def _mark_null(state: State, ident: int, is_null: bool) -> None:
    """Decide all copies of a pointer that may be null (``mark_ptr_or_null_regs``)."""
    if is_null and state.refs:
        refs.drop(state, ident)  # nothing was taken

    def decided(reg: Reg) -> Reg:
        return ZERO_REG if is_null else reg.with_type(reg.type & ~MAYBE_NULL)

    for number, frame in enumerate(state.frames):
        for index, reg in enumerate(frame.regs):
            if reg.type & MAYBE_NULL and reg.id == ident:
                state.own(number).regs[index] = decided(reg)
        for index, slot in enumerate(frame.stack):
            reg = slot.reg
            if slot.types[7] == SPILL and reg.type & MAYBE_NULL and reg.id == ident:
                state.own(number).stack[index] = Slot(slot.types, decided(reg))
        for index, reg in enumerate(frame.args):
            if reg.type & MAYBE_NULL and reg.id == ident:
                state.own(number).args[index] = decided(reg)


# --- linked scalars -------------------------------------------------------------------


def _collect_linked(
    env: Env, state: State, ident: int, linked: list[tuple[int, int, bool]]
) -> None:
    """Find scalars of one origin, at most five; unlink the rest (``collect_linked_regs``)."""
    ident &= ~ADD_CONST
    for number in range(len(state.frames) - 1, -1, -1):
        live = env.live_regs[state.frame_insn(number)]
        frame = state.frames[number]
        for index in range(10):
            reg = frame.regs[index]
            if reg.id & ~ADD_CONST == ident and reg.type == SCALAR and live >> index & 1:
                if len(linked) < _MAX_LINKED:
                    linked.append((number, index, True))
                else:
                    frame = state.own(number)
                    frame.regs[index] = reg.with_id(0)
        for index, slot in enumerate(frame.stack):
            reg = slot.reg
            if slot.types[7] == SPILL and reg.type == SCALAR and reg.id & ~ADD_CONST == ident:
                if len(linked) < _MAX_LINKED:
                    linked.append((number, index, False))
                else:
                    state.own(number).stack[index] = Slot(slot.types, reg.with_id(0))


def _sync_linked(
    env: Env, state: State, number: int, known_reg: int, linked: list[tuple[int, int, bool]]
) -> None:
    """Give linked scalars the range just learnt (``sync_linked_regs``)."""
    known = state.frames[number].regs[known_reg]
    for frame_number, index, is_reg in linked:
        frame = state.frames[frame_number]
        if is_reg:
            if frame_number == number and index == known_reg:
                continue
            reg = frame.regs[index]
        else:
            reg = frame.stack[index].reg
        if reg.type != SCALAR or (reg.id ^ known.id) & ~ADD_CONST:
            continue
        if (reg.id ^ known.id) & ADD_CONST == ADD_CONST:
            continue
        if not (reg.id | known.id) & ADD_CONST or reg.delta == known.delta:
            new = known
        else:
            offset = const(reg.delta - known.delta)
            bits = 32 if (reg.id | known.id) & ADD_CONST32 else 64
            num = bounds.alu("add", bits, known.num, offset)
            new = Reg(SCALAR, num, reg.id, reg.delta)
        if is_reg:
            state.own(frame_number).regs[index] = new
            env.scratched |= 1 << index
        else:
            types = state.frames[frame_number].stack[index].types
            state.own(frame_number).stack[index] = Slot(types, new)
            env.scratched_slots |= 1 << index
