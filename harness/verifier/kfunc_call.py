"""Calls of kernel functions: what their arguments must be, and what comes back.

``check_kfunc_call``, ``check_kfunc_args``, ``process_kf_arg_ptr_to_btf_id`` and what they
call (verifier.c of Linux 7.3.4). Kinds of arguments and functions with a meaning of their
own are registered by the modules that model them: ``ARGUMENTS``, ``RESULTS``, ``EFFECTS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from harness.btf import Enum, Int, Ptr, Struct, Void
from harness.isa.insn import Call
from harness.isa.stack_args import REG_ARGS
from harness.verifier import iters, object_args, packets, refs
from harness.verifier import kfunc_table as table
from harness.verifier.bounds import const
from harness.verifier.btf_pointer import (
    KERNEL_STRUCTS,
    ids_match,
    pointee,
    pointer,
    trusted,
    unsafe,
)
from harness.verifier.call import (
    CALLER_SAVED,
    END,
    check_args_written,
    check_offset,
    forget_args,
    helper_memory,
)
from harness.verifier.env import Env, NotModelled, Refused
from harness.verifier.kfuncs import (
    Argument,
    Kfunc,
    arg_name,
    mark_precise,
    prototype,
    scalar_struct,
)
from harness.verifier.prototypes import behind, kind_name
from harness.verifier.state import (
    ARENA,
    BASE,
    BTF_ID,
    CTX,
    FUNC,
    MAP_PTR,
    MAP_VALUE,
    MAYBE_NULL,
    MEM,
    MEM_ALLOC,
    MEM_RCU,
    MEM_RDONLY,
    SCALAR,
    STACK,
    TRUSTED,
    UNKNOWN_REG,
    UNTRUSTED,
    Frame,
    Reg,
    TypeRef,
    type_name,
)

_MAX_VAR_SIZE = 1 << 29  # BPF_MAX_VAR_SIZ


@dataclass(slots=True)
class Meta:
    """What the arguments of one call tell each other (``bpf_call_arg_meta``)."""

    kfunc: Kfunc
    ref: Reg | None = None  # the argument that is a reference the path holds
    constant: int | None = None  # of a "const" or "const_size" argument
    buffer_size: int | None = None  # of the memory that comes back
    buffer_rdonly: bool = False
    map: Reg | None = None
    subprog: int = -1  # of a callback
    context_id: int = 0  # what bpf_cast_to_kern_ctx gives
    dynptr: Reg | None = None  # the dynptr argument that was there already
    iter: tuple[int, int] | None = None  # frame and first slot of the iterator
    more: dict[str, Any] = field(default_factory=dict)  # what a kind of argument notes

    def note(self, held: Reg) -> None:
        """Remember an argument that is a reference (``update_ref_obj``)."""
        self.more["held"] = self.more.get("held", 0) + 1
        self.ref = held

    @property
    def ref_id(self) -> int:
        """The id of the one argument that is a reference, 0: none (``validate_ref_obj``)."""
        if self.more.get("held", 0) > 1:
            raise NotModelled("a kfunc with two references")
        return self.ref.id if self.ref is not None else 0

    @property
    def releases(self) -> bool:
        """Say whether the first argument is given back."""
        return bool(self.kfunc.flags & table.RELEASE)


@dataclass(frozen=True, slots=True)
class Passed:
    """One argument of a call."""

    meta: Meta
    index: int
    argument: Argument  # what is asked for
    reg: Reg  # what is passed
    name: str  # of the register or slot, for messages


ArgumentCheck = Callable[[Env, Passed], None]
ARGUMENTS: dict[str, ArgumentCheck] = {}  # by kind of argument, beside those below
RESULTS: dict[str, Callable[[Env, Meta], Reg | None]] = {}  # r0, by function without _impl
BRANCHES: dict[str, Callable[[Env], None]] = {}  # before the arguments, by function
EFFECTS: dict[str, Callable[[Env, Meta], None]] = {}  # behind the arguments, by function


def call(env: Env, frame: Frame, insn: Call) -> int:
    """Check a call; return where the current state goes on (``check_kfunc_call``)."""
    kfunc = prototype(env, insn)
    flags = kfunc.flags
    if env.state.refs and refs.active_lock(env.state) and not flags & table.SPINLOCK_SAFE:
        env.refuse("function calls are not allowed while holding a lock")
    if env.subs[frame.subprog].incoming:
        frame.no_arg_load = True
    if kfunc.allowed is None:
        raise NotModelled(f"who may call kfunc {kfunc.name}")
    if not kfunc.allowed:
        env.refuse(f"calling kernel function {kfunc.name} is not allowed")
    branch = BRANCHES.get(kfunc.name) if kfunc.in_kernel else None
    if branch is not None:
        branch(env)
    if kfunc.special("__bpf_trap"):
        env.refuse("unexpected __bpf_trap() due to uninitialized variable?")
    sleepable = bool(flags & table.SLEEPABLE)
    if sleepable and not env.state.sleepable:
        env.refuse(f"program must be sleepable to call sleepable kfunc {kfunc.name}")
    meta = Meta(kfunc)
    check_args_written(env, frame, len(kfunc.arguments))
    for index, argument in enumerate(kfunc.arguments):
        _check_argument(env, meta, index, argument)
    effect = EFFECTS.get(kfunc.name.removesuffix("_impl")) if kfunc.in_kernel else None
    if effect is not None:
        effect(env, meta)
    if sleepable and not _may_sleep(env):
        env.refuse(f"kernel func {kfunc.name} is sleepable within {refs.non_sleepable(env.state)}")
    if flags & table.RCU_PROTECTED and not refs.in_rcu(env.state):
        env.refuse(f"kernel func {kfunc.name} requires RCU critical section protection")
    if meta.releases:
        _release(env, meta)
    result = _result(env, meta)
    frame = env.frame()
    frame.regs[0:6] = CALLER_SAVED
    forget_args(frame)
    env.scratched |= 0x3F
    if result is not None:
        frame.regs[0] = result
    if kfunc.special("bpf_xdp_pull_data"):
        packets.forget(env)
    count = len(kfunc.arguments)
    if count > REG_ARGS:
        caller = env.subs[frame.subprog]
        caller.stack_arg_cnt = max(caller.stack_arg_cnt, caller.incoming + count - REG_ARGS)
    if meta.iter is not None and flags & table.ITER_NEXT:
        iters.next_round(env, meta.iter)
    if kfunc.special("bpf_throw"):
        refs.check_leaks(env, "bpf_throw", thrown=True)
        return END
    return env.insn + 1


def _may_sleep(env: Env) -> bool:
    """``in_sleepable_context``."""
    return not refs.in_rcu(env.state)


def _release(env: Env, meta: Meta) -> None:
    """``release_reg`` of the first argument."""
    reg = env.state.frames[-1].regs[1]
    release = ARGUMENTS.get("release " + meta.kfunc.arguments[0].kind)
    if release is not None:
        release(env, Passed(meta, 0, meta.kfunc.arguments[0], reg, "R1"))
    elif not reg.is_null:
        if not refs.referenced(env.state, reg.id):
            env.refuse("")
        refs.release(env, reg.id)


# --- arguments ----------------------------------------------------------------------------


def arg_reg(env: Env, index: int) -> Reg:
    """``get_func_arg_reg``."""
    frame = env.state.frames[-1]
    return frame.regs[index + 1] if index < REG_ARGS else frame.args[index - REG_ARGS]


def _check_argument(env: Env, meta: Meta, index: int, argument: Argument) -> None:
    """One argument of ``check_kfunc_args``."""
    kfunc, kind = meta.kfunc, argument.kind
    reg, name = arg_reg(env, index), arg_name(index)
    if kind == "aux":
        if index >= REG_ARGS:
            env.refuse(f"{name} prog->aux cannot be a stack argument")
        env.call_mark().program_arg = index + 1
        return
    if kind == "ignored":
        return
    is_pointer = argument.pointee is not None
    if is_pointer and not argument.nullable and (reg.is_null or reg.type & MAYBE_NULL):
        env.refuse(f"Possibly NULL pointer passed to trusted {name}")
    held = bool(reg.id) and refs.referenced(env.state, reg.id)
    releases = meta.releases and index == 0
    if releases and kind != "dynptr" and not held and not reg.is_null:
        env.refuse(f"release kfunc {kfunc.name} expects referenced PTR_TO_BTF_ID passed to {name}")
    if held:
        meta.note(reg)
    if reg.is_null and argument.nullable:
        mark_precise(env, index)
        return
    if (
        releases
        and not (kind == "dynptr" and reg.type & BASE == STACK)
        and reg.num.mask | (reg.num.value)
    ):
        env.refuse(
            f"{name} must have zero offset when passed to release func or trusted arg to kfunc"
        )
    check_offset(env, reg, name, kind, moved=not releases and kind != "refcounted")
    check = _CHECKS.get(kind) or ARGUMENTS.get(kind)
    if check is None:
        raise NotModelled(f"a kfunc parameter of kind {kind}")
    check(env, Passed(meta, index, argument, reg, name))


def _scalar(env: Env, arg: Passed) -> None:
    if arg.reg.type != SCALAR:
        env.refuse(f"{arg.name} is not a scalar")


def _constant(env: Env, arg: Passed) -> None:
    """``process_const_arg``."""
    if arg.argument.kind == "const":
        _scalar(env, arg)
    if not arg.reg.num.is_const:
        env.refuse(f"{arg.name} must be a known constant")
    mark_precise(env, arg.index)
    arg.meta.constant = arg.reg.num.value


def _alloc_size(env: Env, arg: Passed) -> None:
    """``process_const_alloc_mem_size``."""
    _scalar(env, arg)
    if arg.argument.param.name == "rdonly_buf_size":
        arg.meta.buffer_rdonly = True
    if not arg.reg.num.is_const:
        env.refuse(f"{arg.name} is not a const")
    if arg.reg.num.value > 0xFFFFFFFF:
        env.refuse(f"{arg.name} allocation size exceeds u32 max")
    mark_precise(env, arg.index)
    arg.meta.buffer_size = arg.reg.num.value


def _size(env: Env, arg: Passed) -> None:
    """Check the memory before it by its size (``check_mem_size_reg``)."""
    if arg.argument.kind == "const_size":
        _constant(env, arg)
    _scalar(env, arg)
    memory, memory_name = arg_reg(env, arg.index - 1), arg_name(arg.index - 1)
    if memory.is_null:
        return
    num = arg.reg.num
    try:
        if num.smin < 0:
            env.refuse(f"{arg.name} min value is negative, either use unsigned or 'var &= const'")
        if num.umax >= _MAX_VAR_SIZE:
            env.refuse(
                f"{arg.name} unbounded memory access, use 'var &= const' or 'if (var < const)'"
            )
        for write in (False, True):
            helper_memory(env, memory, memory_name, num.umax, write, True, None)
    except Refused as refusal:
        pair = f"{memory_name} and {arg.name} memory, len pair leads to invalid memory access"
        raise Refused(f"{refusal.message}\n{pair}", refusal.insn) from None
    mark_precise(env, arg.index)


def _context(env: Env, arg: Passed) -> None:
    if arg.reg.type != CTX:
        env.refuse(f"{arg.name} expected pointer to ctx, but got {type_name(arg.reg.type)}")
    if arg.meta.kfunc.special("bpf_cast_to_kern_ctx"):
        arg.meta.context_id = _kernel_context(env)


def _kernel_context(env: Env) -> int:
    """Return the kernel's type of the program's context (``get_kern_ctx_btf_id``)."""
    btf = env.kernel("the kernel's side of a context")
    table_id = btf.find("bpf_ctx_convert", Struct)
    found = btf.get(table_id) if table_id is not None else None
    wanted = f"BPF_PROG_TYPE_{env.program.type.upper()}_kern"
    for member in found.members if isinstance(found, Struct) else ():
        if member.name == wanted:
            if not isinstance(btf.get(member.type), Struct):
                env.refuse(f"kern ctx type id {member.type} is not a struct")
            return member.type
    raise NotModelled(f"the kernel's side of the context of program type {env.program.type}")


def _arena(env: Env, arg: Passed) -> None:
    if arg.reg.type not in (ARENA, SCALAR):
        env.refuse(f"{arg.name} is not a pointer to arena or scalar")


def _callback(env: Env, arg: Passed) -> None:
    if arg.reg.type != FUNC:
        env.refuse(f"{arg.name} expected pointer to func")
    arg.meta.subprog = arg.reg.info


def _map(env: Env, arg: Passed) -> None:
    if arg.reg.type & BASE != MAP_PTR or arg.reg.type & MAYBE_NULL:
        env.refuse(f"pointer in {arg.name} isn't map pointer")
    object_args.same_map(env, arg.reg, arg.name, arg_name(arg.index - 1), arg.meta)


def _memory(env: Env, arg: Passed) -> None:
    """Leave it to the size that follows."""


def _fixed(env: Env, arg: Passed) -> None:
    """``check_mem_reg``."""
    size = arg.argument.size
    if size is None:
        target = arg.argument.pointee
        assert target is not None
        env.refuse(
            f"{arg.name} reference type('{kind_name(target)} {target.name}') "
            "size cannot be determined: -22"
        )
    if arg.reg.is_null:
        mark_precise(env, arg.index)
        return
    for write in (False, True):
        helper_memory(env, arg.reg, arg.name, size, write, True, None)


def _btf(env: Env, arg: Passed) -> None:
    """``KF_ARG_PTR_TO_BTF_ID``."""
    kfunc = arg.meta.kfunc
    wanted = TypeRef(kfunc.btf, arg.argument.type_id)
    if arg.argument.named("__map"):
        kernel = env.kernel("a map passed to a kfunc")
        wanted = TypeRef(kernel, kernel.find("bpf_map", Struct) or 0)
    expected = wanted.btf[wanted.id]
    if arg.reg.type & BASE == BTF_ID or arg.reg.type & BASE in KERNEL_STRUCTS:
        if not trusted(env, arg.reg) or unsafe(arg.reg.type):
            if not kfunc.flags & table.RCU:
                env.refuse(f"{arg.name} must be referenced or trusted")
            if not arg.reg.type & MEM_RCU:
                env.refuse(f"{arg.name} must be a rcu pointer")
        _struct(env, arg.meta, arg.reg, arg.name, wanted)
        return
    if not scalar_struct(env, wanted.btf, expected):
        text = f"{arg.name} is {type_name(arg.reg.type)} "
        text += f"expected {kind_name(expected)} {expected.name}"
        for kind, struct in KERNEL_STRUCTS.items():
            if kfunc.in_kernel and expected.name == struct:
                text += f" or {type_name(kind)}"
        env.refuse(text)
    _fixed(env, arg)


def _struct(env: Env, meta: Meta, reg: Reg, name: str, wanted: TypeRef) -> None:
    """``process_kf_arg_ptr_to_btf_id``."""
    found = pointee(env, reg)
    strict = (meta.releases and refs.referenced(env.state, reg.id)) or _no_cast(found, wanted)
    found = TypeRef(found.btf, behind(found.btf, found.id))
    local = bool(reg.type & MEM_ALLOC)
    same = ids_match(env, found, reg.num.value, wanted, strict, not local)
    has, expected = found.btf[found.id], wanted.btf[wanted.id]
    if not same and (expected.name, has.name) not in _PROJECTIONS:
        env.refuse(
            f"kernel function {meta.kfunc.name} {name} expected pointer to "
            f"{kind_name(expected)} {expected.name} but {name} has a pointer to "
            f"{kind_name(has)} {has.name}"
        )


_PROJECTIONS = {("__sk_buff", "sk_buff"), ("xdp_md", "xdp_buff")}  # btf_is_projection_of


def _no_cast(found: TypeRef, wanted: TypeRef) -> bool:
    """Say whether one of two structs is the other under a new name, ``NAME___init``.

    ``btf_type_ids_nocast_alias``.
    """
    one, other = found.btf[found.id].name, wanted.btf[wanted.id].name
    if one.endswith("___init") == other.endswith("___init"):
        return False
    return one.removesuffix("___init") == other.removesuffix("___init")


def _string(env: Env, arg: Passed) -> None:
    """``check_arg_const_str``."""
    if arg.reg.type != MAP_VALUE:
        env.refuse(f"{arg.name} doesn't point to a const string")
    object_args.const_str(env, arg.reg, arg.name)


_CHECKS: dict[str, ArgumentCheck] = {
    "scalar": _scalar, "const": _constant, "const_size": _size, "size": _size,
    "alloc_size": _alloc_size, "ctx": _context, "arena": _arena, "callback": _callback,
    "const_map": _map, "memory": _memory, "fixed": _fixed, "btf": _btf, "string": _string,
}  # fmt: skip


# --- results ------------------------------------------------------------------------------


def _result(env: Env, meta: Meta) -> Reg | None:
    """Return r0 behind the call, None: nothing."""
    kfunc = meta.kfunc
    returned = kfunc.returned
    acquires = bool(kfunc.flags & table.ACQUIRE)
    special = RESULTS.get(kfunc.name.removesuffix("_impl")) if kfunc.in_kernel else None
    to_struct = isinstance(returned, Ptr) and isinstance(kfunc.btf.resolve(returned.type), Struct)
    if acquires and not to_struct and special is None:
        if kfunc.special("bpf_obj_new", "bpf_percpu_obj_new", "bpf_refcount_acquire"):
            raise NotModelled(f"what kfunc {kfunc.name} returns")
        env.refuse("acquire kernel function does not return PTR_TO_BTF_ID")
    reg = special(env, meta) if special is not None else None
    if reg is None:
        match returned:
            case Int() | Enum():
                return UNKNOWN_REG
            case Ptr():
                reg = _pointer_result(env, meta, returned)
            case _:
                return None
    elif reg.type == SCALAR:
        return reg
    if kfunc.flags & table.RET_NULL and not meta.more.get("never null"):
        reg = reg.with_type(reg.type | MAYBE_NULL).with_id(env.new_id())
    if acquires:
        reg = reg.with_id(refs.acquire(env))
    return reg


def _pointer_result(env: Env, meta: Meta, returned: Ptr) -> Reg:
    kfunc, btf = meta.kfunc, meta.kfunc.btf
    type_id = behind(btf, returned.type)
    target = btf[type_id]
    if kfunc.special("bpf_cast_to_kern_ctx"):
        return pointer(BTF_ID | TRUSTED, TypeRef(btf, meta.context_id))
    if kfunc.special("bpf_rdonly_cast"):
        return _rdonly_cast(env, meta)
    if isinstance(target, Void):
        return UNKNOWN_REG
    if isinstance(target, Struct) and not target.union:
        kind = BTF_ID | TRUSTED
        if kfunc.special("bpf_get_kmem_cache"):
            kind = BTF_ID | UNTRUSTED
        elif kfunc.flags & table.RCU_PROTECTED or _rcu_iter(env, meta):
            kind = BTF_ID | MEM_RCU
        return pointer(kind, TypeRef(btf, type_id))
    size, rdonly = meta.buffer_size, meta.buffer_rdonly
    if size is None:
        size = btf.size_of(type_id)
        rdonly = not kfunc.special("bpf_session_cookie")
    if size is None:
        env.refuse(
            f"kernel function {kfunc.name} returns pointer type {kind_name(target)} "
            f"{target.name} is not supported"
        )
    kind = MEM | (MEM_RDONLY if rdonly else 0)
    if kfunc.flags & table.RCU_PROTECTED:
        kind |= MEM_RCU
    return Reg(kind, const(0), info=size, parent_id=meta.ref_id)


def _rcu_iter(env: Env, meta: Meta) -> bool:
    """Say whether what an iterator gives is good under RCU only."""
    if meta.iter is None or not meta.kfunc.flags & table.ITER_NEXT:
        return False
    number, index = meta.iter
    return bool(env.state.frames[number].stack[index].reg.type & MEM_RCU)


def _rdonly_cast(env: Env, meta: Meta) -> Reg:
    """``bpf_rdonly_cast``."""
    btf, type_id = meta.kfunc.btf, meta.constant
    assert type_id is not None  # its argument is __k
    if not 0 <= type_id < len(btf):
        env.refuse(f"Unknown type ID {type_id} passed to kfunc bpf_rdonly_cast")
    kind = btf[type_id]
    if isinstance(kind, Struct):
        return pointer(BTF_ID | UNTRUSTED, TypeRef(btf, type_id))
    if isinstance(kind, Void):
        return Reg(MEM | MEM_RDONLY | UNTRUSTED, const(0), info=0)
    raise Refused("kfunc bpf_rdonly_cast type ID argument must be of a struct or void", env.insn)
