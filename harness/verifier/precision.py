"""Which scalars of past states must be compared exactly (backtrack.c of Linux 7.3.4).

When a decision depends on a scalar's value, the instructions that led to it are
walked back, and every register, spill and stack-argument slot that fed it is marked
precise in the checkpoints on the way.
"""

from __future__ import annotations

from collections.abc import Hashable

from harness.isa.decoded import Facts
from harness.isa.insn import (
    FP,
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
from harness.verifier.env import Env, NotModelled
from harness.verifier.form import TAIL_CALL
from harness.verifier.state import (
    ARG_ACCESS,
    DST_STACK,
    MAIN,
    MAX_FRAMES,
    SCALAR,
    SPILL,
    SRC_STACK,
    STACK_ACCESS,
    Checkpoint,
    History,
    Linked,
    State,
)

_ARGS = 0x3E  # r1 to r5


class _GiveUp(Exception):  # noqa: N818 - the way out, not an error
    """Backtracking meets what it cannot follow (-ENOTSUPP): everything becomes precise."""


class Trail:
    """Registers, stack slots and argument slots still to be found, as masks by frame."""

    __slots__ = ("args", "frame", "regs", "slots")

    def __init__(self, frame: int) -> None:
        self.frame = frame
        self.regs = [0] * MAX_FRAMES
        self.slots = [0] * MAX_FRAMES
        self.args = [0] * MAX_FRAMES

    def empty(self) -> bool:
        """Say whether everything is found."""
        frame = self.frame
        if self.regs[frame] or self.slots[frame]:
            return False
        last = frame + 1
        return not (any(self.regs[:last]) or any(self.slots[:last]) or any(self.args[:last]))

    def key(self) -> Hashable:
        """Return what is to be found, for comparison."""
        last = self.frame + 1
        return tuple(self.regs[:last]), tuple(self.slots[:last]), tuple(self.args[:last])


def push_history(
    env: Env, flags: int = 0, slot: int = 0, frame: int = 0, linked: Linked = ()
) -> None:
    """Note how this instruction was reached, or what it did (``bpf_push_jmp_history``)."""
    history = env.state.history
    if env.pushed:
        idx, previous, old, _, _, _ = history[-1]
        history[-1] = (idx, previous, old | flags, slot, frame, linked)
        return
    history.append((env.insn, env.prev_insn, flags, slot, frame, linked))
    env.pushed = True


def mark_register(env: Env, reg: int) -> None:
    """Mark a register of the current frame (``mark_chain_precision``)."""
    trail = Trail(len(env.state.frames) - 1)
    if env.state.frames[-1].regs[reg].type != SCALAR:
        raise NotModelled("verifier bug: backtracking misuse")
    trail.regs[trail.frame] = 1 << reg
    mark(env, env.state, trail)


def mark_slots(env: Env, frame: int, slots: int) -> None:
    """Mark spills, a mask of stack slots of *frame*."""
    trail = Trail(len(env.state.frames) - 1)
    trail.slots[frame] = slots
    mark(env, env.state, trail)


def mark_arg(env: Env, slot: int) -> None:
    """Mark an outgoing stack-argument slot, from 0, of the current frame."""
    trail = Trail(len(env.state.frames) - 1)
    trail.args[trail.frame] = 1 << slot
    mark(env, env.state, trail)


# How to undo an instruction: kind, and what it takes
_NOTHING, _ALU, _MOVE, _LOAD, _STORE, _OTHER = range(6)


def compile_undo(env: Env) -> list[tuple[int, int, int]]:
    """Prepare ``backtrack_insn`` for each instruction: the simple ones need no method."""
    env.undo = _UNDO.of(env.insns)
    return env.undo


def _undo(insn: Insn) -> tuple[int, int, int]:
    match insn:
        case Alu(op="mov", dst=dst, src=src):
            return _MOVE, dst, 0 if src is None or src == FP else 1 << src
        case Alu(dst=dst, src=src):
            if src is None or src == FP:
                return _NOTHING, 0, 0
            return _ALU, dst, 1 << src
        case LoadImm(dst=dst):
            return _MOVE, dst, 0
        case Load(dst=dst) | Atomic(op="load_acquire", dst=dst):
            return _LOAD, dst, 0
        case Store(dst=dst, src=src):
            return _STORE, dst, src
        case StoreImm(dst=dst):
            return _STORE, dst, -1
        case Jump(src=None) | Goto() | MayGoto() | Endian():
            return _NOTHING, 0, 0
    return _OTHER, 0, 0


_UNDO = Facts(_undo)


def mark(env: Env, start: State, trail: Trail) -> bool:
    """Walk back from *start* until everything is found (``bpf_mark_chain_precision``).

    Return whether a mark was set that was not there. Marks stay, so a walk that comes to a
    place in the history of *start* where an earlier one was, looking for the same, finds
    nothing new; the log of level 2 shows each step all the same.
    """
    if trail.empty():
        return False
    loud = env.log.level > 1
    state = start
    walked = None if loud else start.walked
    if walked is None and not loud:
        walked = start.walked = set()
    first, last, following = state.first, start.insn, -1
    skip = True
    changed = False
    undo = env.undo or compile_undo(env)
    count = env.count
    while True:
        history = state.history
        end = len(history)
        if loud:
            env.log.text(
                f"mark_precise: frame{trail.frame}: last_idx {last} first_idx {first} "
                f"subseq_idx {following} \n"
            )
        if last < 0:
            return _at_entry(state, trail) or changed
        at = last
        frame = trail.frame
        mask = trail.regs[frame]
        begin = state.first
        top = history[end - 1][0] if end else -1  # slot of the latest entry
        while True:
            entry = history[end - 1] if top == at else None
            if skip:
                skip = False
            else:
                trail.regs[frame] = mask
                if loud:
                    _say_step(env, trail, at)
                kind, dst, src = undo[at]
                if entry is not None and entry[5]:
                    _sync_linked(trail, entry)
                    mask = trail.regs[frame]
                if kind == _ALU:
                    if mask >> dst & 1:
                        mask |= src
                elif kind == _MOVE:
                    if mask >> dst & 1:
                        mask = mask & ~(1 << dst) | src
                        if not mask:
                            trail.regs[frame] = 0
                            if trail.empty():
                                return changed
                elif kind:
                    trail.regs[frame] = mask
                    try:
                        if kind == _LOAD:
                            _undo_load(trail, dst, entry)
                        elif kind == _STORE:
                            _undo_store(trail, dst, src, entry)
                        else:
                            _step(env, env.insns[at], at, following, entry, trail)
                    except _GiveUp:
                        return _mark_everything(env, start) or changed
                    frame = trail.frame
                    mask = trail.regs[frame]
                    if not mask and not trail.slots[frame] and trail.empty():
                        return changed
            following = at
            # get_prev_insn_idx
            if at == begin and (end == 0 or (end == 1 and top == at)):
                break
            if entry is not None:
                at = entry[1]
                end -= 1
                top = history[end - 1][0] if end else -1
                if walked is not None and state is start:
                    here: Hashable
                    if frame:
                        trail.regs[frame] = mask
                        here = end, at, trail.key()
                    else:
                        here = end, at, mask, trail.slots[0], trail.args[0]
                    if here in walked:
                        return changed
                    walked.add(here)
            else:
                at -= 1
                if at >= 0:
                    continue
            if not 0 <= at < count:
                raise NotModelled(f"verifier bug: backtracking idx {at}")
        trail.regs[frame] = mask
        parent = state.parent
        if parent is None:
            break
        state = parent
        for number in range(trail.frame, -1, -1):
            if (trail.regs[number] or trail.slots[number] or trail.args[number]) and _mark_frame(
                parent, number, trail
            ):
                changed = True
            if loud:
                regs, slots = trail.regs[number], trail.slots[number]
                env.log.state(
                    parent,
                    number,
                    (parent.precise_regs[number], parent.precise_slots[number]),
                    f"mark_precise: frame{number}: parent state regs={_regs_text(regs)} "
                    f"stack={_slots_text(slots)}: ",
                )
        if trail.empty():
            return changed
        held = (bool(trail.regs[frame]), bool(trail.slots[frame]), bool(trail.args[frame]))
        env.events.add(("precise", *held, frame))
        following = first
        last, first = parent.last, parent.first
    return _mark_everything(env, start) or changed


def _mark_frame(parent: Checkpoint, number: int, trail: Trail) -> bool:
    """Set the marks of one frame of a checkpoint, and keep what is new of them."""
    frame = parent.frames[number]
    changed = False
    mask = trail.regs[number]
    if mask:
        for reg in range(11):
            if mask >> reg & 1 and frame.regs[reg].type != SCALAR:
                mask &= ~(1 << reg)
        mask &= ~parent.precise_regs[number]
        parent.precise_regs[number] |= mask
        trail.regs[number] = mask
        changed = mask != 0
    mask = trail.slots[number]
    if mask:
        stack = frame.stack
        if mask >> len(stack):
            raise NotModelled(
                f"verifier bug: stack slot {mask.bit_length() - 1}, total slots {len(stack)}"
            )
        for index, slot in enumerate(stack):
            if mask >> index & 1 and not (slot.types[7] == SPILL and slot.reg.type == SCALAR):
                mask &= ~(1 << index)
        mask &= ~parent.precise_slots[number]
        parent.precise_slots[number] |= mask
        trail.slots[number] = mask
        changed = changed or mask != 0
    mask = trail.args[number]
    if mask:
        beyond = mask >> len(frame.args) << len(frame.args)  # the kernel leaves them
        kept = 0
        for index, held in enumerate(frame.args):
            if mask >> index & 1 and held.type == SCALAR:
                kept |= 1 << index
        kept &= ~parent.precise_args[number]
        parent.precise_args[number] |= kept
        trail.args[number] = kept | beyond
        changed = changed or kept != 0
    return changed


def _at_entry(state: State, trail: Trail) -> bool:
    """Arguments of a global function are where a walk may end."""
    frame = state.frames[0]
    if (
        len(state.frames) == 1
        and frame.subprog > 0
        and frame.callsite == MAIN
        and not trail.slots[trail.frame]
        and not trail.regs[trail.frame] & ~_ARGS
    ):
        assert isinstance(state, Checkpoint)
        changed = False
        for reg in range(1, 6):
            if trail.regs[0] >> reg & 1 and frame.regs[reg].type == SCALAR:
                state.precise_regs[0] |= 1 << reg
                changed = True
        return changed
    raise NotModelled("verifier bug: backtracking func entry")


def _mark_everything(env: Env, start: State) -> bool:
    """Mark all scalars of all checkpoints before *start* (``bpf_mark_all_scalars_precise``)."""
    if env.log.level > 1:
        env.log.text(
            f"mark_precise: frame{len(start.frames) - 1}: "
            "falling back to forcing all scalars precise\n"
        )
    state = start.parent
    while state is not None:
        for number, frame in enumerate(state.frames):
            for reg in range(10):
                if frame.regs[reg].type == SCALAR and not state.precise_regs[number] >> reg & 1:
                    state.precise_regs[number] |= 1 << reg
                    if env.log.level > 1:
                        env.log.text(
                            f"force_precise: frame{number}: forcing r{reg} to be precise\n"
                        )
            for index, slot in enumerate(frame.stack):
                if slot.spilled_scalar and not state.precise_slots[number] >> index & 1:
                    state.precise_slots[number] |= 1 << index
                    if env.log.level > 1:
                        env.log.text(
                            f"force_precise: frame{number}: "
                            f"forcing fp{-(index + 1) * 8} to be precise\n"
                        )
            if env.options.propagate_slots:  # Linux 7.3.4 does not
                for index, arg in enumerate(frame.args):
                    if arg.type == SCALAR:
                        state.precise_args[number] |= 1 << index
        state = state.parent
    return False


def mark_everything(env: Env, start: State) -> None:
    """Mark all scalars of all checkpoints before *start*."""
    _mark_everything(env, start)


def _sync_linked(trail: Trail, entry: History | None) -> None:
    """Look for all registers that gained a range together (``bpf_bt_sync_linked_regs``)."""
    if entry is None or not entry[5]:
        return
    linked = entry[5]
    for frame, index, is_reg in linked:
        masks = trail.regs if is_reg else trail.slots
        if masks[frame] >> index & 1:
            break
    else:
        return
    for frame, index, is_reg in linked:
        masks = trail.regs if is_reg else trail.slots
        masks[frame] |= 1 << index


def _step(
    env: Env, insn: Insn, at: int, following: int, entry: History | None, trail: Trail
) -> None:
    """Undo one of the rarer instructions (``backtrack_insn``)."""
    frame = trail.frame
    regs = trail.regs
    flags = entry[2] if entry is not None else 0
    match insn:
        case Jump(dst=dst, src=int(src)):
            mask = regs[frame]
            if not mask >> dst & 1 and not mask >> src & 1:
                return
            if not flags & SRC_STACK:
                mask |= 1 << src
            if not flags & DST_STACK:
                mask |= 1 << dst
            regs[frame] = mask
            _sync_linked(trail, entry)
        case GotoX(dst=dst):  # taken for a comparison with r0
            if regs[frame] >> dst & 1 or regs[frame] & 1:
                regs[frame] |= 1 | 1 << dst
        case Call():
            _undo_call(env, insn, at, following, trail)
        case Exit():
            _undo_exit(env, following, trail)
        case Atomic(op=op, fetch=True, src=src):
            _undo_load(trail, 0 if op == "cmpxchg" else src, entry)
        case Atomic(dst=dst, src=src):
            _undo_store(trail, dst, src, entry)
        case LoadPacket():
            if regs[frame] & 1:
                raise _GiveUp
            if following != at + 1:
                _enter(trail)


def _undo_load(trail: Trail, reg: int, entry: History | None) -> None:
    frame = trail.frame
    if not trail.regs[frame] >> reg & 1:
        return
    trail.regs[frame] &= ~(1 << reg)
    if entry is None:
        return
    if entry[2] & ARG_ACCESS:
        trail.args[frame - 1] |= 1 << entry[3]
    elif entry[2] & STACK_ACCESS:
        trail.slots[entry[4]] |= 1 << entry[3]


def _undo_store(trail: Trail, base: int, src: int, entry: History | None) -> None:
    frame = trail.frame
    if base < 11 and trail.regs[frame] >> base & 1:
        raise _GiveUp
    if entry is None:
        return
    masks, number, index = trail.slots, entry[4], entry[3]
    if entry[2] & ARG_ACCESS:
        masks, number = trail.args, frame
    elif not entry[2] & STACK_ACCESS:
        return
    if not masks[number] >> index & 1:
        return
    masks[number] &= ~(1 << index)
    if src >= 0:
        trail.regs[frame] |= 1 << src


def _enter(trail: Trail) -> None:
    if trail.frame == MAX_FRAMES - 1:
        raise NotModelled(f"verifier bug: subprog enter from frame {trail.frame}")
    trail.frame += 1


def _leave(trail: Trail, what: str) -> None:
    """Step from a callee's first instruction to the call, its arguments excepted."""
    frame = trail.frame
    if trail.regs[frame] & ~_ARGS:
        raise NotModelled(f"verifier bug: {what} unexpected regs {trail.regs[frame]:x}")
    if trail.slots[frame]:
        raise NotModelled(f"verifier bug: {what} leftover stack slots {trail.slots[frame]:x}")
    if frame == 0:
        raise NotModelled("verifier bug: subprog exit from frame 0")


def _undo_call(env: Env, insn: Call, at: int, following: int, trail: Trail) -> None:
    frame = trail.frame
    regs = trail.regs
    if insn.kind == "subprog":
        callee = env.find_subprog(at + insn.imm + 1)
        assert callee is not None
        if callee.is_global:
            if regs[frame] & _ARGS:
                raise NotModelled(f"verifier bug: global subprog unexpected regs {regs[frame]:x}")
            regs[frame] &= ~1
            return
        _leave(trail, "static subprog")
        regs[frame - 1] |= regs[frame] & _ARGS
        regs[frame] = 0
        if trail.args[frame]:
            raise NotModelled(
                f"verifier bug: static subprog leftover stack arg slots {trail.args[frame]:x}"
            )
        trail.frame -= 1
        return
    if env.calls_callback[at] and at != following - 1:
        _leave(trail, "callback")
        regs[frame] = 0
        trail.frame -= 1
        return
    regs[frame] &= ~1
    if regs[frame] & _ARGS:
        raise NotModelled(f"verifier bug: backtracking call unexpected regs {regs[frame]:x}")
    if insn.kind == "helper" and insn.imm == TAIL_CALL and following - at != 1:
        _enter(trail)


def _undo_exit(env: Env, following: int, trail: Trail) -> None:
    frame = trail.frame
    before = env.insns[following - 1] if following >= 1 else None
    from_call = isinstance(before, Call) and before.kind == "subprog"
    precise = from_call and bool(trail.regs[frame] & 1)
    pair = 0
    if from_call and env.options.slots_by == "layout":
        pair = trail.regs[frame] & 0b100  # the upper half of a struct result
        trail.regs[frame] &= ~0b100
    if from_call and trail.regs[frame] & _ARGS:
        raise NotModelled(f"verifier bug: backtracking exit unexpected regs {trail.regs[frame]:x}")
    trail.regs[frame] &= ~1
    _enter(trail)
    trail.regs[trail.frame] |= int(precise) | pair


# --- words --------------------------------------------------------------------


def _regs_text(mask: int) -> str:
    return ",".join(f"r{reg}" for reg in range(mask.bit_length()) if mask >> reg & 1)


def _slots_text(mask: int) -> str:
    return ",".join(str(-(slot + 1) * 8) for slot in range(64) if mask >> slot & 1)


def _say_step(env: Env, trail: Trail, at: int) -> None:
    if isinstance(env.insns[at], High):
        return  # the kernel steps over the second half of a wide load in silence
    frame = trail.frame
    env.log.text(
        f"mark_precise: frame{frame}: regs={_regs_text(trail.regs[frame])} "
        f"stack={_slots_text(trail.slots[frame])} before "
    )
    env.log.plain_insn(at)
