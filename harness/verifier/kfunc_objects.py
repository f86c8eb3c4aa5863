"""Kernel functions with a meaning of their own: iterators, dynptrs, locks, regions, callbacks.

The kinds of arguments, effects and results that ``check_kfunc_args``,
``check_special_kfunc`` and ``check_kfunc_call`` know by name (verifier.c of Linux 7.3.4);
``kfunc_call.py`` asks for them.
"""

from __future__ import annotations

from harness.isa.insn import Call
from harness.verifier import context, kfunc_alloc, kfunc_call, object_args, objects, refs, results
from harness.verifier import kfunc_table as table
from harness.verifier.bounds import Scalar, const
from harness.verifier.call import push_async
from harness.verifier.env import Env, NotModelled
from harness.verifier.kfunc_call import (
    ARGUMENTS,
    BRANCHES,
    EFFECTS,
    RESULTS,
    Meta,
    Passed,
)
from harness.verifier.memory import access
from harness.verifier.state import (
    BTF_ID,
    MAP_VALUE,
    MEM,
    MEM_ALLOC,
    MEM_RCU,
    MEM_RDONLY,
    REF_RES_LOCK,
    REF_RES_LOCK_IRQ,
    SCALAR,
    STACK,
    UNINIT,
    UNTRUSTED,
    ZERO_REG,
    Frame,
    Reg,
)

_MAX_ERRNO = 4095


def call(env: Env, frame: Frame, insn: Call) -> int:
    """Check a call of any kernel function; return where the current state goes on."""
    return kfunc_call.call(env, frame, insn)


_SCHEDULES = ("bpf_task_work_schedule_signal", "bpf_task_work_schedule_resume")

# --- dynptrs --------------------------------------------------------------------------------

_DYNPTRS = {  # which type of dynptr a function makes or takes
    "bpf_dynptr_from_skb": "skb", "bpf_dynptr_from_xdp": "xdp",
    "bpf_dynptr_from_skb_meta": "skb_meta", "bpf_dynptr_from_file": "file",
    "bpf_dynptr_file_discard": "file",
}  # fmt: skip


def _dynptr(env: Env, arg: Passed) -> None:
    """``KF_ARG_PTR_TO_DYNPTR``."""
    meta, kfunc = arg.meta, arg.meta.kfunc
    uninit = arg.argument.named("__uninit")
    kind = _DYNPTRS.get(kfunc.name, "") if kfunc.in_kernel else ""
    if kfunc.special("bpf_dynptr_clone") and uninit:
        if meta.dynptr is None:
            raise NotModelled("verifier bug: no dynptr type for parent of clone")
        kind = meta.dynptr.info[0]
    release = kfunc.special("bpf_dynptr_file_discard")
    object_args.dynptr(env, arg.reg, arg.name, meta, kind, uninit, release)


def _release_dynptr(env: Env, arg: Passed) -> None:
    assert arg.meta.dynptr is not None
    objects.release_dynptr(env, arg.meta.dynptr)


def _slice(env: Env, meta: Meta) -> Reg:
    """``bpf_dynptr_slice``, ``bpf_dynptr_slice_rdwr``."""
    if meta.constant is None or meta.dynptr is None:
        raise NotModelled("verifier bug: bpf_dynptr_slice(_rdwr) no constant size")
    kind = MEM | objects.DYNPTR_TYPE_FLAGS[meta.dynptr.info[0]]
    if meta.kfunc.special("bpf_dynptr_slice"):
        kind |= MEM_RDONLY
    elif not context.PACKETS.get(env.program.type):
        env.refuse("the prog does not allow writes to packet data")
    else:
        env.seen_direct_write = True
    size = meta.constant & 0xFFFFFFFF
    return Reg(kind, const(0), info=size, parent_id=meta.dynptr.id)


# --- iterators -------------------------------------------------------------------------------


def _iter(env: Env, arg: Passed) -> None:
    """``process_iter_arg``."""
    meta, kfunc, reg, name = arg.meta, arg.meta.kfunc, arg.reg, arg.name
    if (
        kfunc.special("bpf_iter_css_task_new")
        and env.program.type != "lsm"
        and not env.state.sleepable
    ):
        if env.program.type == "tracing" and env.program.section.startswith("iter"):
            raise NotModelled("css_task iterators in iterator programs")
        env.refuse("css_task_iter is only allowed in bpf_lsm, bpf_iter and sleepable progs")
    if reg.type != STACK:
        env.refuse(f"{name} expected pointer to an iterator on stack")
    struct = arg.argument.pointee
    size = arg.argument.size
    if struct is None or not struct.name.startswith("bpf_iter_") or not size or size % 8:
        env.refuse(f"expected valid iter pointer as {name}")
    what, slots = struct.name[len("bpf_iter_") :], size // 8
    if kfunc.flags & table.ITER_NEW:
        if not objects.is_free(env, reg, "iter", slots):
            env.refuse(f"expected uninitialized iter_{what} as {name}")
        for off in range(0, size, 8):
            access(env, reg, name, off, 8, True, -1)
        flags = 0
        if kfunc.flags & table.RCU_PROTECTED:
            flags = MEM_RCU if refs.in_rcu(env.state) else UNTRUSTED
        objects.put_iter(env, reg, what, slots, flags)
        return
    found = objects.iter_at(env, reg, what, slots)
    if found is None:
        env.refuse(f"expected an initialized iter_{what} as {name}")
    index, usable = found
    if not usable:
        env.refuse(f"expected an RCU CS when using {kfunc.name}")
    held = env.state.frames[reg.info].stack[index].reg
    meta.iter = (reg.info, index)
    meta.note(held)
    if kfunc.flags & table.ITER_DESTROY:
        objects.destroy_iter(env, reg, index, slots)


# --- irq flags and locks ----------------------------------------------------------------------


def _irq_flag(env: Env, arg: Passed) -> None:
    """``process_irq_flag``."""
    reg, name, kfunc = arg.reg, arg.name, arg.meta.kfunc
    if reg.type != STACK:
        env.refuse(f"{name} doesn't point to an irq flag on stack")
    family = "lock" if "spin" in kfunc.name else "native"
    if kfunc.special("bpf_local_irq_save", "bpf_res_spin_lock_irqsave"):
        if not objects.is_free(env, reg, "irq_flag", 1):
            env.refuse(f"expected uninitialized irq flag as {name}")
        access(env, reg, name, 0, 8, True, -1)
        objects.put_irq(env, reg, family)
        return
    if not kfunc.special("bpf_local_irq_restore", "bpf_res_spin_unlock_irqrestore"):
        raise NotModelled("verifier bug: unknown irq flags kfunc")
    index = objects.irq_at(env, reg)
    if index is None:
        env.refuse(f"expected an initialized irq flag as {name}")
    objects.take_irq(env, reg, index, family)
    refs.leave_rcu(env)


def _res_lock(env: Env, arg: Passed) -> None:
    """``KF_ARG_PTR_TO_RES_SPIN_LOCK``."""
    kfunc = arg.meta.kfunc
    if object_args.in_tree_callback(env):
        env.refuse("can't res_spin_{lock,unlock} in rbtree cb")
    if arg.reg.type not in (MAP_VALUE, BTF_ID | MEM_ALLOC):
        env.refuse(f"{arg.name} doesn't point to map value or allocated object")
    kind = REF_RES_LOCK_IRQ if "irq" in kfunc.name else REF_RES_LOCK
    lock = kfunc.special("bpf_res_spin_lock", "bpf_res_spin_lock_irqsave")
    object_args.spin_lock(env, arg.reg, arg.name, lock, kind)


def _lock_fails(env: Env) -> None:
    """Follow a lock that is not had; it may fail before anything else is checked."""
    branch = env.push(env.insn + 1, env.insn)
    frame = branch.own(len(branch.frames) - 1)
    frame.regs[0:6] = [Reg(SCALAR, Scalar.from_srange(-_MAX_ERRNO, -1)), *[UNINIT] * 5]


def _locked(env: Env, meta: Meta) -> Reg:
    del env, meta
    return ZERO_REG


# --- regions ----------------------------------------------------------------------------------


def _rcu_lock(env: Env, meta: Meta) -> None:
    del meta
    env.state.rcu_locks += 1
    _not_in_tree_callback(env)


def _rcu_unlock(env: Env, meta: Meta) -> None:
    if not env.state.rcu_locks:
        env.refuse(f"unmatched rcu read unlock (kernel function {meta.kfunc.name})")
    env.state.rcu_locks -= 1
    refs.leave_rcu(env)
    _not_in_tree_callback(env)


def _not_in_tree_callback(env: Env) -> None:
    if object_args.in_tree_callback(env):
        env.refuse("Calling bpf_rcu_read_{lock,unlock} in unnecessary rbtree callback")


def _preempt_disable(env: Env, meta: Meta) -> None:
    del meta
    env.state.preempt_locks += 1


def _preempt_enable(env: Env, meta: Meta) -> None:
    if not env.state.preempt_locks:
        env.refuse(f"unmatched attempt to enable preemption (kernel function {meta.kfunc.name})")
    env.state.preempt_locks -= 1
    refs.leave_rcu(env)


# --- fields of map values, and their callbacks --------------------------------------------------


def _field(env: Env, arg: Passed) -> None:
    kind = {"wq": "bpf_wq", "timer": "bpf_timer", "task_work": "bpf_task_work"}[arg.argument.kind]
    if arg.reg.type != MAP_VALUE:
        env.refuse(f"{arg.name} doesn't point to a map value")
    object_args.map_field(env, arg.reg, arg.name, kind, arg.meta)


def _set_callback(env: Env, meta: Meta) -> None:
    """``bpf_wq_set_callback``."""
    push_async(env, meta.subprog, env.state.frames[-1].regs[1], (0, 0), True)


def _schedule(env: Env, meta: Meta) -> None:
    """``bpf_task_work_schedule_signal``, ``bpf_task_work_schedule_resume``."""
    value = env.state.frames[-1].regs[3]
    push_async(env, meta.subprog, value, (-(1 << 31), (1 << 31) - 1), True)


# --- exceptions -----------------------------------------------------------------------------


def _throw(env: Env, meta: Meta) -> None:
    """``bpf_throw``."""
    del meta
    env.throws = True
    if not env.exception_callback:
        results.check_result(env, env.state.frames[-1], 1)


ARGUMENTS.update(
    {
        "dynptr": _dynptr,
        "release dynptr": _release_dynptr,
        "iter": _iter,
        "irq_flag": _irq_flag,
        "res_lock": _res_lock,
        "wq": _field,
        "timer": _field,
        "task_work": _field,
    }
)
RESULTS.update(
    {
        "bpf_dynptr_slice": _slice,
        "bpf_dynptr_slice_rdwr": _slice,
        "bpf_res_spin_lock": _locked,
        "bpf_res_spin_lock_irqsave": _locked,
    }
)
EFFECTS.update(
    {
        "bpf_rcu_read_lock": _rcu_lock,
        "bpf_rcu_read_unlock": _rcu_unlock,
        "bpf_preempt_disable": _preempt_disable,
        "bpf_preempt_enable": _preempt_enable,
        "bpf_throw": _throw,
        "bpf_wq_set_callback": _set_callback,
        **dict.fromkeys(_SCHEDULES, _schedule),
    }
)
BRANCHES.update({"bpf_res_spin_lock": _lock_fails, "bpf_res_spin_lock_irqsave": _lock_fails})
kfunc_alloc.register()
