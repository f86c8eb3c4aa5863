"""Kernel functions that programs call: where they are found, and what they take and give.

``bpf_add_kfunc_call``, ``fetch_kfunc_meta``, ``gen_kfunc_arg_proto``, ``get_kfunc_arg_type``
and ``bpf_kfunc_stack_access_bytes`` (verifier.c of Linux 7.3.4). A function is looked up in
``Program.kfunc_btf``, which is a module's, then in the kernel's own BTF. Those of a module
have no flags, and every program type may call them. The checks of a call are in
``kfunc_call.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.btf import (
    Array,
    Btf,
    BtfType,
    Enum,
    Func,
    FuncProto,
    Int,
    Param,
    Ptr,
    Struct,
    Void,
)
from harness.isa.insn import Call
from harness.isa.stack_args import MAX_ARGS, REG_ARGS
from harness.verifier import kfunc_table as table
from harness.verifier.env import NO_KERNEL_BTF, Env, NotModelled, Refused
from harness.verifier.precision import mark_arg, mark_register
from harness.verifier.prototypes import behind, is_context, kind_name
from harness.verifier.state import MAX_STACK

_MAX_VALUE = 16  # bytes of a struct by value
_MAX_NESTING = 3  # structs within one another, of a struct of scalars
_DYNPTR_SIZE = 16  # bytes, BPF_DYNPTR_SIZE
_ARENA_MAP = 33  # BPF_MAP_TYPE_ARENA

# fmt: off
# What a pointer to a struct of the kernel asks for   kf_arg_btf_ids
_STRUCTS = {
    "bpf_list_head": "list_head", "bpf_list_node": "list_node", "bpf_rb_root": "rb_root",
    "bpf_rb_node": "rb_node",
}
_LATER_STRUCTS = {"bpf_wq": "wq", "bpf_timer": "timer", "bpf_task_work": "task_work"}
_CONTEXT_FUNCS = ("bpf_cast_to_kern_ctx", "bpf_session_is_return", "bpf_session_cookie")
# Functions that call back                            is_sync_callback_calling_kfunc
SYNC_CALLBACKS = ("bpf_rbtree_add",)
ASYNC_CALLBACKS = (
    "bpf_wq_set_callback", "bpf_task_work_schedule_signal", "bpf_task_work_schedule_resume",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Argument:
    """What a kernel function takes (``kfunc_ptr_arg_type``).

    Scalars are "scalar", "const", "size" (of the memory before it), "const_size" and
    "alloc_size" (of what the function returns). Pointers are "ctx", "alloc", "refcounted",
    "dynptr", "iter", "list_head", "list_node", "rb_root", "rb_node", "string", "const_map",
    "btf", "wq", "timer", "task_work", "irq_flag", "res_lock", "callback", "arena", "memory"
    (a size follows) and "fixed" (as large as the pointee). Not looked at: "ignored", "aux".
    """

    kind: str
    param: Param
    type_id: int = 0  # what it points to, behind modifiers
    pointee: BtfType | None = None
    size: int | None = 0  # bytes of the pointee; None: it has none
    nullable: bool = False

    def named(self, suffix: str | tuple[str, ...]) -> bool:
        """Say whether the parameter's name ends in *suffix* (``btf_param_match_suffix``)."""
        return self.param.name.endswith(suffix)


@dataclass(frozen=True, slots=True)
class Kfunc:
    """A kernel function as its prototype describes it (``bpf_kfunc_meta``)."""

    name: str
    btf: Btf
    proto: FuncProto  # with what the verifier supplies by itself
    arguments: tuple[Argument, ...]
    flags: int = 0  # of kfunc_table
    allowed: bool | None = True  # None: not known
    in_kernel: bool = False  # else in a module

    @property
    def returned(self) -> BtfType:
        """The type of the result, behind modifiers."""
        return self.btf.resolve(self.proto.returns)

    def special(self, *names: str) -> bool:
        """Say whether it is one of the kernel's own functions *names*, or their _impl."""
        return self.in_kernel and self.name.removesuffix("_impl") in names


def add(env: Env) -> None:
    """Look up every kernel function that is called (``add_kfuncs``)."""
    for insn in env.insns:
        if isinstance(insn, Call) and insn.kind == "kfunc":
            if not env.options.jit:
                raise Refused("JIT is required for calling kernel function")
            if not env.gpl:
                raise Refused("cannot call kernel function from non-GPL compatible program")
            _add(env, insn)


def prototype(env: Env, insn: Call) -> Kfunc:
    """Return the kernel function that *insn* calls, which ``add`` has looked up."""
    found: Kfunc = env.kfuncs[insn.imm]
    return found


def _add(env: Env, insn: Call) -> None:
    number, names = insn.imm, env.program.kfuncs
    if number in env.kfuncs:
        return
    name = names[number] if 0 <= number < len(names) else str(number)
    btf = env.program.kfunc_btf
    type_id = btf.find(name, Func) if btf is not None else None
    in_kernel = type_id is None
    if in_kernel:
        if env.kernel_btf is None:
            raise NotModelled(f"a kfunc call ({NO_KERNEL_BTF})")
        btf = env.kernel_btf
        type_id = btf.find(name, Func)
    proto = btf.prototype(type_id) if btf is not None and type_id is not None else None
    if btf is None or proto is None:
        raise NotModelled(f"kfunc {name} (not in the kernel BTF)")
    flags, given = 0, len(proto.params)
    allowed: bool | None = True
    if in_kernel:
        flags = table.flags_of(name, env.program) or 0
        allowed = table.may_call(name, env.program)
        if table.is_metadata(name):
            raise Refused("metadata kfuncs require device-bound program")
    else:
        flags = dict(env.program.kfunc_flags).get(name, 0)
    if flags & table.IMPLICIT_ARGS:
        whole = btf.find(name + "_impl", Func)
        found_proto = btf.prototype(whole) if whole is not None else None
        if found_proto is None:
            raise Refused(f"cannot find function {name}_impl in BTF")
        proto = found_proto
    distill(btf, name, proto)
    arguments = _arguments(env, btf, name, proto, flags, given)
    env.kfuncs[number] = Kfunc(name, btf, proto, arguments, flags, allowed, in_kernel)


def distill(btf: Btf, name: str, proto: FuncProto) -> None:
    """Refuse a prototype that a JIT cannot hand over (``btf_distill_func_proto``)."""
    count = len(proto.params)
    if count > MAX_ARGS:
        raise Refused(f"The function {name} has {count} arguments. Too many.")
    returned = btf.resolve(proto.returns)
    if proto.returns and not isinstance(returned, Ptr | Int | Enum):
        shown = kind_name(returned) if isinstance(returned, Struct) else "UNKN"
        raise Refused(f"The function {name} return type {shown} is unsupported.")
    for index, param in enumerate(proto.params):
        if index == count - 1 and not param.type:
            raise Refused(f"The function {name} with variable args is unsupported.")
        kind = btf.resolve(param.type)
        size = _value_size(kind)
        if size is None or size > _MAX_VALUE:
            raise Refused(f"The function {name} arg{index} type {kind_name(kind)} is unsupported.")
        if size == 0:
            raise Refused(f"The function {name} has malformed void argument.")


def _value_size(kind: BtfType) -> int | None:
    """``__get_type_size``."""
    match kind:
        case Void():
            return 0
        case Ptr():
            return 8
        case Int(size=size) | Enum(size=size) | Struct(size=size):
            return size
    return None


def _arguments(
    env: Env, btf: Btf, name: str, proto: FuncProto, flags: int, given: int
) -> tuple[Argument, ...]:
    """``gen_kfunc_arg_proto``; the caller supplies the first *given*."""
    count = len(proto.params)
    if count > REG_ARGS and not env.options.jit_stack_args:
        raise Refused(f"JIT does not support kfunc {name}() with {count} args")
    found = []
    for index, param in enumerate(proto.params):
        if _points_to(btf, param, "bpf_prog_aux"):
            found.append(Argument("aux", param))
        elif param.name.endswith("__ign") or index >= given:
            found.append(Argument("ignored", param))
        else:
            found.append(_argument(env, btf, name, proto, flags, index))
    return tuple(found)


def _points_to(btf: Btf, param: Param, name: str) -> bool:
    """``__is_kfunc_ptr_arg_type``."""
    kind = btf.resolve(param.type)
    pointee = btf.resolve(kind.type) if isinstance(kind, Ptr) else None
    return isinstance(pointee, Struct) and not pointee.union and pointee.name == name


def _argument(env: Env, btf: Btf, name: str, proto: FuncProto, flags: int, index: int) -> Argument:
    """``get_kfunc_arg_type``."""
    param = proto.params[index]
    kind = btf.resolve(param.type)
    if isinstance(kind, Int | Enum):
        return Argument(_scalar_kind(param), param)
    if not isinstance(kind, Ptr):
        raise Refused(f"Unrecognized {arg_name(index)} type {kind_name(kind)}")
    type_id = behind(btf, kind.type)
    pointee = btf[type_id]
    nullable = param.name.endswith(("__nullable", "__arena"))
    word = _pointer_kind(env, btf, name, flags, index, param, kind)
    if not word:
        word = _memory_kind(env, btf, proto, index, pointee)
    return Argument(word, param, type_id, pointee, btf.size_of(type_id), nullable)


def _scalar_kind(param: Param) -> str:
    for suffix, word in (("__k", "const"), ("__szk", "const_size"), ("__sz", "size")):
        if param.name.endswith(suffix):
            return word
    return "alloc_size" if param.name in ("rdonly_buf_size", "rdwr_buf_size") else "scalar"


def _pointer_kind(
    env: Env, btf: Btf, name: str, flags: int, index: int, param: Param, kind: Ptr
) -> str:
    """Return the kind of pointer that a name or a struct tells, "" for none."""
    if name in _CONTEXT_FUNCS or is_context(env, btf, kind):
        return "ctx"
    for suffix, word in (("__alloc", "alloc"), ("__refcounted_kptr", "refcounted")):
        if param.name.endswith(suffix):
            return word
    if _points_to(btf, param, "bpf_dynptr"):
        return "dynptr"
    if (index == 0) if flags & table.ITER else param.name.endswith("__iter"):
        return "iter"
    for struct, word in _STRUCTS.items():
        if _points_to(btf, param, struct):
            return word
    for suffix, word in (("__str", "string"), ("__const_map", "const_map"), ("__map", "btf")):
        if param.name.endswith(suffix):
            return word
    for struct, word in _LATER_STRUCTS.items():
        if _points_to(btf, param, struct):
            return word
    if param.name.endswith("__irq_flag"):
        return "irq_flag"
    if _points_to(btf, param, "bpf_res_spin_lock"):
        return "res_lock"
    if isinstance(btf.resolve(kind.type), FuncProto):
        return "callback"
    if param.name.endswith(("__arena", "__arena__nullable")):
        _check_arena(env, index)
        return "arena"
    return ""


def _check_arena(env: Env, index: int) -> None:
    if not any(each.type == _ARENA_MAP for each in env.maps):
        raise Refused(
            f"{arg_name(index)} arena pointer requires a program with an associated arena"
        )
    if index >= REG_ARGS:
        raise Refused(f"{arg_name(index)} arena pointer cannot be a stack argument")


def _memory_kind(env: Env, btf: Btf, proto: FuncProto, index: int, pointee: BtfType) -> str:
    following = proto.params[index + 1] if index + 1 < len(proto.params) else None
    plain = isinstance(pointee, Int | Enum)
    what = f"{arg_name(index)} pointer type {kind_name(pointee)} {pointee.name} must point to"
    if following is not None and is_size(btf, following):
        if not plain and not isinstance(pointee, Void) and not scalar_struct(env, btf, pointee):
            raise Refused(f"{what} void, scalar, or struct with scalar")
        return "memory"
    if isinstance(pointee, Struct):
        return "btf"
    if not plain:
        raise Refused(f"{what} scalar, or struct with scalar")
    return "fixed"


def is_size(btf: Btf, param: Param) -> bool:
    """``is_kfunc_arg_mem_size``, ``is_kfunc_arg_const_mem_size``."""
    scalar = isinstance(btf.resolve(param.type), Int | Enum)
    return scalar and param.name.endswith(("__sz", "__szk"))


def scalar_struct(env: Env, btf: Btf, kind: BtfType, nesting: int = 0) -> bool:
    """Say whether *kind* is made of scalars only (``__btf_type_is_scalar_struct``)."""
    if not isinstance(kind, Struct):
        return False
    for member in kind.members:
        inner = btf.resolve(member.type)
        if isinstance(inner, Struct):
            if nesting >= _MAX_NESTING:
                env.say("max struct nesting depth exceeded")
                return False
            if not scalar_struct(env, btf, inner, nesting + 1):
                return False
            continue
        if isinstance(inner, Array):
            if not inner.count:
                return False
            inner = btf.resolve(inner.type)
        if not isinstance(inner, Int | Enum):
            return False
    return True


def arg_name(index: int) -> str:
    """Return argument *index*, from 0, as messages write it (``reg_arg_name``)."""
    if index < REG_ARGS:
        return f"R{index + 1}"
    return f"*(R11-{(index + 1 - REG_ARGS) * 8})"


def mark_precise(env: Env, index: int) -> None:
    """``mark_arg_precision``."""
    if index < REG_ARGS:
        mark_register(env, index + 1)
    else:
        mark_arg(env, index - REG_ARGS)


def stack_bytes(env: Env, kfunc: Kfunc, index: int, at: int) -> int | None:
    """Return stack bytes that an argument reads, negative: writes, None: not known.

    ``bpf_kfunc_stack_access_bytes``, which takes the register after the pointer's for the
    size, even where the size is in a slot.
    """
    if not kfunc.allowed:
        return None
    argument, count = kfunc.arguments[index], len(kfunc.arguments)
    kind = kfunc.btf.resolve(argument.param.type)
    if not isinstance(kind, Ptr):
        return 0
    size: int | None
    if _points_to(kfunc.btf, argument.param, "bpf_dynptr"):
        size = _DYNPTR_SIZE
    elif index + 1 < count and kfunc.arguments[index + 1].named(("__sz", "__szk")):
        size = env.const_regs[at].get(index + 2)
        if size is None:
            return MAX_STACK
    else:
        size = kfunc.btf.size_of(kind.type)
        if size is None:
            return None
    written = (index == 0 and kfunc.flags & table.ITER_NEW) or argument.named("__uninit")
    return -size if written else size
