"""Objects on the stack: dynptrs, iterators, irq flags.

Where they are, whether they are what a call expects, and what it takes to put one there
or to lose it: ``stack_slot_obj_get_spi``, ``mark_stack_slots_dynptr``,
``destroy_if_dynptr_stack_slot``, ``mark_stack_slots_iter``, ``mark_stack_slot_irq_flag`` and
their kin (verifier.c of Linux 7.3.4).

A dynptr's two slots hold a ``Reg`` of type DYNPTR whose ``info`` is (type, first slot or
not); an iterator's an ``Iter``, and the first one its id; an irq flag's the family of
kernel functions it belongs to.
"""

from __future__ import annotations

from harness.verifier import refs
from harness.verifier.env import Env
from harness.verifier.state import (
    DYNPTR,
    DYNPTR_FILE,
    DYNPTR_LOCAL,
    DYNPTR_RINGBUF,
    DYNPTR_SKB,
    DYNPTR_SKB_META,
    DYNPTR_SLOT,
    DYNPTR_XDP,
    EMPTY,
    IRQ_SLOT,
    ITER_SLOT,
    REG_SIZE,
    STACK,
    UNTRUSTED,
    ZERO_NUM,
    Iter,
    Reg,
    Slot,
    State,
)

DYNPTR_SIZE = 16  # bytes, BPF_DYNPTR_SIZE
DYNPTR_TYPE_FLAGS = {  # get_dynptr_type_flag
    "local": DYNPTR_LOCAL, "ringbuf": DYNPTR_RINGBUF, "skb": DYNPTR_SKB, "xdp": DYNPTR_XDP,
    "skb_meta": DYNPTR_SKB_META, "file": DYNPTR_FILE,
}  # fmt: skip
_REFERENCED = ("ringbuf", "file")  # dynptr_type_referenced
_OUTSIDE = -1  # of the stack in use: -ERANGE

_DYNPTR_TYPES = bytes([DYNPTR_SLOT] * 8)
_ITER_TYPES = bytes([ITER_SLOT] * 8)
_IRQ_TYPES = bytes([IRQ_SLOT] * 8)


def place(env: Env, reg: Reg, what: str, slots: int) -> int | None:
    """Return the index of an object's first slot, None: refused, with a note.

    ``stack_slot_obj_get_spi``; -1 if the object lies outside of the stack in use.
    """
    if reg.num.mask:
        env.say(f"{what} has to be at a constant offset")
        return None
    off = ((reg.num.value & 0xFFFFFFFF) ^ 1 << 31) - (1 << 31)
    index = (-off - 1) // REG_SIZE
    if off >= 0 or off % REG_SIZE or index + 1 < slots:
        env.say(f"cannot pass in {what} at an offset={off}")
        return None
    if index >= len(env.state.frames[reg.info].stack):
        return _OUTSIDE
    return index


# --- dynptrs -----------------------------------------------------------------------------


def dynptr(kind: str, ident: int, parent: int, first: bool = True) -> Reg:
    """Return what a dynptr's slot, or a constant pointer to one, holds (``__mark_dynptr_reg``)."""
    return Reg(DYNPTR, ZERO_NUM, ident, 0, (kind, first), parent)


def dynptr_at(env: Env, reg: Reg) -> Reg | None:
    """Return the dynptr that *reg* points to, None: none (``is_dynptr_reg_valid_init``)."""
    if reg.type == DYNPTR:
        return reg
    index = place(env, reg, "dynptr", 2)
    if index is None or index < 0:
        return None
    stack = env.state.frames[reg.info].stack
    first, second = stack[index], stack[index - 1]
    if first.types != _DYNPTR_TYPES or second.types != _DYNPTR_TYPES or not first.reg.info[1]:
        return None
    env.scratched_slots |= 3 << index - 1
    found: Reg = first.reg
    return found


def put_dynptr(env: Env, reg: Reg, kind: str, parent: int, cloned: Reg | None) -> None:
    """Make a dynptr of the slots that *reg* points to (``mark_stack_slots_dynptr``).

    *parent* is the reference it views, *cloned* the dynptr it is a clone of.
    """
    index = place(env, reg, "dynptr", 2)
    if index is None or index < 0:
        env.refuse("")
    number = reg.info
    for each in (index, index - 1):
        if env.state.frames[number].stack[each].types[0] == DYNPTR_SLOT:
            destroy_dynptr(env, number, each)
    if cloned is not None:
        parent = cloned.parent_id
    elif kind in _REFERENCED:
        parent = refs.acquire(env, parent)
    ident = env.new_id()
    stack = env.state.own(number).stack
    stack[index] = Slot(_DYNPTR_TYPES, dynptr(kind, ident, parent))
    stack[index - 1] = Slot(_DYNPTR_TYPES, dynptr(kind, ident, parent, False))
    env.scratched_slots |= 3 << index - 1


def release_dynptr(env: Env, found: Reg) -> None:
    """Give back what a dynptr stands for (``unmark_stack_slots_dynptr``)."""
    refs.release(env, found.parent_id if found.info[0] in _REFERENCED else found.id)


def destroy_dynptr(env: Env, number: int, index: int) -> None:
    """Lose the dynptr that a write spoils (``destroy_if_dynptr_stack_slot``)."""
    stack = env.state.frames[number].stack
    if not stack[index].reg.info[1]:
        index += 1
    found = stack[index].reg
    if found.info[0] in _REFERENCED:
        sharing = sum(
            slot.types[0] == DYNPTR_SLOT
            and slot.reg.info[1]
            and slot.reg.parent_id == found.parent_id
            for frame in env.state.frames
            for slot in frame.stack
        )
        if sharing <= 1:
            env.refuse("cannot overwrite referenced dynptr")
    refs.release(env, found.id)
    env.scratched_slots |= 3 << index - 1


# --- iterators ---------------------------------------------------------------------------


def put_iter(env: Env, reg: Reg, name: str, slots: int, flags: int) -> None:
    """Make an iterator of stack slots (``mark_stack_slots_iter``).

    *flags*: MEM_RCU if it gives pointers under RCU, UNTRUSTED if it would but may not.
    """
    index = place(env, reg, "iter", slots)
    if index is None or index < 0:
        env.refuse("")
    ident = refs.acquire(env)
    stack = env.state.own(reg.info).stack
    for each in range(slots):
        held = Reg(STACK | flags, ZERO_NUM, 0 if each else ident, 0, Iter(name, True, 0))
        stack[index - each] = Slot(_ITER_TYPES, held)
        env.scratched_slots |= 1 << index - each


def is_free(env: Env, reg: Reg, what: str, slots: int) -> bool:
    """Say whether an object may be put there (``is_iter_reg_valid_uninit`` and its kin)."""
    index = place(env, reg, what, slots)
    if index is None:
        return False
    if index < 0:
        return True
    kind = ITER_SLOT if what == "iter" else IRQ_SLOT
    stack = env.state.frames[reg.info].stack
    return not any(kind in stack[index - each].types for each in range(slots))


def iter_at(env: Env, reg: Reg, name: str, slots: int) -> tuple[int, bool] | None:
    """Return an iterator's first slot and whether it is usable, None: there is none.

    ``is_iter_reg_valid_init``; it is not usable where it needs an RCU region.
    """
    index = place(env, reg, "iter", slots)
    if index is None or index < 0:
        return None
    stack = env.state.frames[reg.info].stack
    for each in range(slots):
        slot = stack[index - each]
        held = slot.reg
        if held.type & UNTRUSTED:
            return index, False
        if bool(held.id) != (each == 0) or slot.types != _ITER_TYPES or held.info.name != name:
            return None
    for each in range(slots):
        env.scratched_slots |= 1 << index - each
    return index, True


def destroy_iter(env: Env, reg: Reg, index: int, slots: int) -> None:
    """Give an iterator back (``unmark_stack_slots_iter``)."""
    refs.release(env, env.state.frames[reg.info].stack[index].reg.id)
    stack = env.state.own(reg.info).stack
    for each in range(slots):
        stack[index - each] = EMPTY
        env.scratched_slots |= 1 << index - each


def set_iter(state: State, number: int, index: int, found: Iter) -> None:
    """Change the state of an iterator's first slot."""
    slot = state.frames[number].stack[index]
    state.own(number).stack[index] = Slot(slot.types, slot.reg.with_info(found))


# --- irq flags ---------------------------------------------------------------------------


def put_irq(env: Env, reg: Reg, family: str) -> None:
    """Save the irq flag in a slot (``mark_stack_slot_irq_flag``)."""
    index = place(env, reg, "irq_flag", 1)
    if index is None or index < 0:
        env.refuse("")
    ident = refs.acquire_irq(env)
    held = Reg(STACK, ZERO_NUM, ident, 0, family)
    env.state.own(reg.info).stack[index] = Slot(_IRQ_TYPES, held)
    env.scratched_slots |= 1 << index


def irq_at(env: Env, reg: Reg) -> int | None:
    """Return the slot of a saved irq flag (``is_irq_flag_reg_valid_init``)."""
    index = place(env, reg, "irq_flag", 1)
    if index is None or index < 0:
        return None
    slot = env.state.frames[reg.info].stack[index]
    return index if slot.types == _IRQ_TYPES and slot.reg.id else None


def take_irq(env: Env, reg: Reg, index: int, family: str) -> None:
    """Restore the irq flag (``unmark_stack_slot_irq_flag``)."""
    state = env.state
    held = state.frames[reg.info].stack[index].reg
    if held.info != family:
        env.refuse(
            f"irq flag acquired by {held.info} kfuncs cannot be restored with {family} kfuncs"
        )
    last = refs.active_irq(state)
    assert last is not None  # the flag itself, at least
    if last.id != held.id:
        env.refuse(
            f"cannot restore irq state out of order, expected id={last.id} "
            f"acquired at insn_idx={last.insn}"
        )
    refs.take_out(state, last)
    state.own(reg.info).stack[index] = EMPTY
    env.scratched_slots |= 1 << index
