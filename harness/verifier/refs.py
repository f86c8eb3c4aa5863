"""What a path has taken and must give back: references, locks, irq flags, regions.

``acquire_reference``, ``release_reference``, ``acquire_lock_state``, ``in_rcu_cs``,
``check_resource_leak`` and what they call (verifier.c of Linux 7.3.4). The kernel keeps
the lock taken last and the irq flag saved last beside the list of references; here they
are read off the list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.verifier.env import Env
from harness.verifier.state import (
    BASE,
    BTF_ID,
    DYNPTR_SLOT,
    EMPTY,
    ITER_SLOT,
    MAYBE_NULL,
    MEM_ALLOC,
    MEM_PERCPU,
    MEM_RCU,
    NON_OWN_REF,
    REF_IRQ,
    REF_LOCKS,
    REF_PTR,
    SPILL,
    UNKNOWN_REG,
    UNTRUSTED,
    Ref,
    Reg,
    Slot,
    State,
)

# --- references ---------------------------------------------------------------------


def acquire(env: Env, parent: int = 0) -> int:
    """Note a new reference, return its id (``acquire_reference``)."""
    ident = env.new_id()
    env.state.refs += (Ref(REF_PTR, ident, env.insn, parent),)
    return ident


def referenced(state: State, ident: int) -> bool:
    """Say whether *ident* is a reference the path holds (``find_reference_state``)."""
    return any(ref.id == ident and ref.kind == REF_PTR for ref in state.refs)


def drop(state: State, ident: int) -> None:
    """Forget a reference, and leave what came from it (``release_reference_nomark``)."""
    state.refs = tuple(ref for ref in state.refs if ref.kind != REF_PTR or ref.id != ident)


def release(env: Env, ident: int) -> None:
    """Give a reference back, and forget all that came from it (``release_reference``)."""
    state = env.state
    drop(state, ident)
    left = [ident] if ident else []
    while left:
        current = left.pop()
        for ref in state.refs:
            if ref.kind == REF_PTR and ref.link == current:
                env.refuse(
                    f"Leaking reference id={ref.id} alloc_insn={ref.insn}. Release it first."
                )

        def invalid(reg: Reg, current: int = current) -> Reg:
            if current not in (reg.id, reg.parent_id):
                return reg
            if reg.parent_id == current and reg.id and reg.id not in left:
                left.append(reg.id)
            return UNKNOWN_REG

        rewrite(state, invalid)
        for number, frame in enumerate(state.frames):
            for index, slot in enumerate(frame.stack):
                if slot.types[7] == DYNPTR_SLOT and invalid(slot.reg) is not slot.reg:
                    state.own(number).stack[index] = EMPTY


def rewrite(state: State, change: Callable[[Reg], Reg], kinds: tuple[int, ...] = (SPILL,)) -> None:
    """Replace registers, spills and stack arguments (``bpf_for_each_reg_in_vstate_mask``).

    *kinds* are the stack slots whose register counts.
    """
    for number, frame in enumerate(state.frames):
        for index, reg in enumerate(frame.regs):
            new = change(reg)
            if new is not reg:
                frame = state.own(number)
                frame.regs[index] = new
        for index, slot in enumerate(frame.stack):
            if slot.types[7] in kinds:
                new = change(slot.reg)
                if new is not slot.reg:
                    frame = state.own(number)
                    frame.stack[index] = Slot(slot.types, new)
        for index, reg in enumerate(frame.args):
            new = change(reg)
            if new is not reg:
                frame = state.own(number)
                frame.args[index] = new


def owned(kind: int) -> bool:
    """Say whether a pointer is to memory the program allocated (``type_is_ptr_alloc_obj``)."""
    return kind & BASE == BTF_ID and bool(kind & MEM_ALLOC) and not kind & UNTRUSTED


def non_owning(kind: int) -> bool:
    """``type_is_non_owning_ref``."""
    return owned(kind) and bool(kind & NON_OWN_REF)


def invalidate_non_owning(env: Env) -> None:
    """Forget pointers that only a held lock made good (``invalidate_non_owning_refs``)."""
    rewrite(env.state, lambda reg: UNKNOWN_REG if non_owning(reg.type) else reg)


def leave_rcu(env: Env) -> None:
    """Distrust RCU pointers if no region is left that guards them.

    ``invalidate_rcu_protected_refs``, behind ``in_rcu_cs``.
    """
    if in_rcu(env.state):
        return

    def distrusted(reg: Reg) -> Reg:
        if not reg.type & MEM_RCU:
            return reg
        return reg.with_type(reg.type & ~(MEM_RCU | MAYBE_NULL | NON_OWN_REF) | UNTRUSTED)

    rewrite(env.state, distrusted, (SPILL, ITER_SLOT))


def convert_to_rcu(env: Env, ident: int) -> None:
    """Let a per-CPU object that is given away live on under RCU.

    ``ref_convert_alloc_rcu_protected``.
    """
    drop(env.state, ident)

    def converted(reg: Reg) -> Reg:
        if reg.id != ident or not (reg.type & MEM_ALLOC and reg.type & MEM_PERCPU):
            return reg
        return reg.with_id(0).with_type(reg.type & ~MEM_ALLOC | MEM_RCU)

    rewrite(env.state, converted)


# --- locks and irq flags ---------------------------------------------------------------


def acquire_irq(env: Env) -> int:
    """``acquire_irq_state``."""
    ident = env.new_id()
    env.state.refs += (Ref(REF_IRQ, ident, env.insn),)
    return ident


def active_irq(state: State) -> Ref | None:
    """Return the irq flag saved last (``active_irq_id``)."""
    return next((ref for ref in reversed(state.refs) if ref.kind == REF_IRQ), None)


def acquire_lock(env: Env, kind: int, ident: int, where: Any) -> None:
    """``acquire_lock_state``."""
    env.state.refs += (Ref(kind, ident, env.insn, where),)


def active_lock(state: State) -> Ref | None:
    """Return the lock taken last (``active_lock_id``, ``active_lock_ptr``)."""
    if not state.refs:
        return None
    return next((ref for ref in reversed(state.refs) if ref.kind & REF_LOCKS), None)


def find_lock(state: State, kinds: int, ident: int, where: Any) -> Ref | None:
    """``find_lock_state``."""
    for ref in state.refs:
        if ref.kind & kinds and ref.id == ident and (ref.link is where or ref.link == where):
            return ref
    return None


def take_out(state: State, found: Ref) -> None:
    """Forget *found*; the others keep their order (``release_reference_state``)."""
    refs = list(state.refs)
    refs.remove(found)
    state.refs = tuple(refs)


# --- regions ---------------------------------------------------------------------------


def in_rcu(state: State) -> bool:
    """Say whether nothing that RCU guards can go away here (``in_rcu_cs``)."""
    if not state.sleepable or state.rcu_locks or state.preempt_locks:
        return True
    return any(ref.kind != REF_PTR for ref in state.refs)


def non_sleepable(state: State) -> str:
    """Return why one may not sleep (``non_sleepable_context_description``)."""
    if state.rcu_locks:
        return "rcu_read_lock region"
    if state.preempt_locks:
        return "non-preemptible region"
    if active_irq(state) is not None:
        return "IRQ-disabled region"
    if active_lock(state) is not None:
        return "lock region"
    return "non-sleepable prog"


def check_leaks(
    env: Env,
    what: str,
    check_locks: bool = True,
    returned: Reg | None = None,
    thrown: bool = False,
) -> None:
    """Refuse to leave the program with something still held (``check_resource_leak``).

    *returned* is a register whose reference goes back to the kernel. A function that was
    called leaves its references to the caller, unless an exception is *thrown*.
    """
    state = env.state
    if not (state.refs or state.rcu_locks or state.preempt_locks):
        return
    inside = f"{what} cannot be used inside"
    if check_locks and active_lock(state) is not None:
        env.refuse(f"{inside} bpf_spin_lock-ed region")
    kept = [
        ref
        for ref in state.refs
        if ref.kind == REF_PTR and (returned is None or ref.id != returned.id)
    ]
    if kept and (thrown or len(state.frames) == 1):
        lines = [f"Unreleased reference id={ref.id} alloc_insn={ref.insn}" for ref in kept]
        env.refuse("\n".join([*lines, f"{what} would lead to reference leak"]))
    if not check_locks:
        return
    if active_irq(state) is not None:
        env.refuse(f"{inside} bpf_local_irq_save-ed region")
    if state.rcu_locks:
        env.refuse(f"{inside} bpf_rcu_read_lock-ed region")
    if state.preempt_locks:
        env.refuse(f"{inside} bpf_preempt_disable-ed region")
