"""Calls of kernel functions, by their prototypes in the kernel's BTF.

``bpf_add_kfunc_call``, ``gen_kfunc_arg_proto``, ``check_kfunc_args`` and
``check_kfunc_call`` (verifier.c of Linux 7.3.4), for functions that take scalars, memory
and strings and return scalars. What kernel objects, iterators, locks and their kin ask is
not modelled. Every program type may call every function that the BTF names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.btf import Array, Btf, BtfType, Enum, Func, FuncProto, Int, Param, Ptr, Struct, Void
from harness.isa.insn import Call
from harness.isa.stack_args import MAX_ARGS, REG_ARGS
from harness.verifier.env import NO_KERNEL_BTF, Env, NotModelled, Refused
from harness.verifier.precision import mark_arg, mark_register
from harness.verifier.prototypes import CONTEXTS, kind_name
from harness.verifier.state import MAX_STACK, Reg

_MAX_VAR_SIZE = 1 << 29  # BPF_MAX_VAR_SIZ
_MAX_VALUE = 16  # bytes of a struct by value
_MAX_NESTING = 3  # structs within one another, of a struct of scalars

# Suffixes of parameter names that ask for more than is modelled here.
_UNMODELLED = (
    "__map", "__const_map", "__alloc", "__uninit", "__refcounted_kptr", "__nonown_allowed",
    "__irq_flag", "__arena", "__arena__nullable", "__iter", "__k", "__szk",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Argument:
    """What a kernel function takes (``kfunc_ptr_arg_type``)."""

    kind: str  # "scalar", "size", "memory", "fixed", "struct", "string", "ignored"
    param: Param
    pointee: BtfType | None = None
    size: int = 0  # bytes: fixed, struct
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Kfunc:
    """A kernel function as its prototype describes it."""

    name: str
    arguments: tuple[Argument, ...]
    returns_void: bool


def add(env: Env) -> None:
    """Look up every kernel function that is called (``add_kfuncs``)."""
    for insn in env.insns:
        if isinstance(insn, Call) and insn.kind == "kfunc":
            if not env.options.jit:
                raise Refused("JIT is required for calling kernel function")
            _add(env, insn)


def prototype(env: Env, insn: Call) -> Kfunc:
    """Return the kernel function that *insn* calls, which ``add`` has looked up."""
    found: Kfunc = env.kfuncs[insn.imm]
    return found


def _add(env: Env, insn: Call) -> None:
    number, names, btf = insn.imm, env.program.kfuncs, env.program.kfunc_btf
    if number in env.kfuncs:
        return
    if btf is None:
        raise NotModelled(f"a kfunc call ({NO_KERNEL_BTF})")
    name = names[number] if 0 <= number < len(names) else str(number)
    type_id = btf.find(name, Func)
    proto = btf.prototype(type_id) if type_id is not None else None
    if proto is None:
        raise NotModelled(f"kfunc {name} (not in the kernel BTF)")
    _distill(btf, name, proto)
    env.kfuncs[number] = Kfunc(name, _arguments(env, btf, name, proto), _returns_void(btf, proto))


def _returns_void(btf: Btf, proto: FuncProto) -> bool:
    kind = btf.resolve(proto.returns)
    if isinstance(kind, Ptr):
        raise NotModelled("a kfunc that returns a pointer")
    return isinstance(kind, Void)


def _distill(btf: Btf, name: str, proto: FuncProto) -> None:
    """Check what a JIT can hand over (``btf_distill_func_proto``)."""
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


def _arguments(env: Env, btf: Btf, name: str, proto: FuncProto) -> tuple[Argument, ...]:
    """``gen_kfunc_arg_proto``."""
    count = len(proto.params)
    if count > REG_ARGS and not env.options.jit_stack_args:
        raise Refused(f"JIT does not support kfunc {name}() with {count} args")
    return tuple(_argument(btf, proto, index) for index in range(count))


def _argument(btf: Btf, proto: FuncProto, index: int) -> Argument:
    """``get_kfunc_arg_type``."""
    param = proto.params[index]
    kind = btf.resolve(param.type)
    suffix = next((s for s in _UNMODELLED if param.name.endswith(s)), None)
    if param.name.endswith("__ign"):
        return Argument("ignored", param)
    if suffix is not None:
        raise NotModelled(f"a kfunc parameter of kind {suffix}")
    if isinstance(kind, Int | Enum):
        if param.name in ("rdonly_buf_size", "rdwr_buf_size"):
            raise NotModelled("a kfunc that returns a buffer")
        return Argument("size" if _is_size(btf, param) else "scalar", param)
    if not isinstance(kind, Ptr):
        raise Refused(f"Unrecognized {arg_name(index)} type {kind_name(kind)}")
    pointee = btf.resolve(kind.type)
    nullable = param.name.endswith("__nullable")
    if isinstance(pointee, Struct) and (
        pointee.name.startswith("bpf_") or pointee.name in CONTEXTS.values()
    ):
        raise NotModelled(f"a kfunc parameter of struct {pointee.name}")
    if param.name.endswith("__str"):
        return Argument("string", param, pointee, nullable=nullable)
    if isinstance(pointee, FuncProto):
        raise NotModelled("a kfunc that takes a callback")
    plain = isinstance(pointee, Int | Enum) or is_scalar_struct(btf, pointee)
    following = proto.params[index + 1] if index + 1 < len(proto.params) else None
    if following is not None and _is_size(btf, following):
        if not plain and not isinstance(pointee, Void):
            raise Refused(
                f"{arg_name(index)} pointer type {kind_name(pointee)} {pointee.name} "
                "must point to void, scalar, or struct with scalar"
            )
        return Argument("memory", param, pointee, nullable=nullable)
    size = btf.size_of(kind.type) or 0
    if isinstance(pointee, Struct):
        return Argument("struct", param, pointee, size if plain else -1, nullable)
    if not plain:
        raise Refused(
            f"{arg_name(index)} pointer type {kind_name(pointee)} {pointee.name} "
            "must point to scalar, or struct with scalar"
        )
    return Argument("fixed", param, pointee, size, nullable)


def _is_size(btf: Btf, param: Param) -> bool:
    """``is_kfunc_arg_mem_size``."""
    return isinstance(btf.resolve(param.type), Int | Enum) and param.name.endswith("__sz")


def is_scalar_struct(btf: Btf, kind: BtfType, nesting: int = 0) -> bool:
    """Say whether *kind* is made of scalars only (``__btf_type_is_scalar_struct``)."""
    if not isinstance(kind, Struct):
        return False
    for member in kind.members:
        inner = btf.resolve(member.type)
        if isinstance(inner, Struct):
            if nesting >= _MAX_NESTING or not is_scalar_struct(btf, inner, nesting + 1):
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
    """Return stack bytes that an argument reads, None: not known.

    ``bpf_kfunc_stack_access_bytes``, which takes the register after the pointer's for the
    size, even where the size is in a slot.
    """
    argument = kfunc.arguments[index]
    match argument.kind:
        case "scalar" | "size" | "ignored":
            return 0
        case "memory":
            size = env.const_regs[at].get(index + 2)
            return MAX_STACK if size is None else size
        case "string":
            return 1
        case "struct" if argument.size < 0:
            assert isinstance(argument.pointee, Struct)
            return argument.pointee.size
    return argument.size


def check_size(
    env: Env,
    memory: Reg,
    size: Reg,
    index: int,
    access: Callable[[Env, Reg, str, int, bool, bool, list[int] | None], None],
) -> None:
    """Check the memory whose size is argument *index* (``check_mem_size_reg``)."""
    name, memory_name = arg_name(index), arg_name(index - 1)
    num = size.num
    try:
        if num.smin < 0:
            env.refuse(f"{name} min value is negative, either use unsigned or 'var &= const'")
        if num.umax >= _MAX_VAR_SIZE:
            env.refuse(f"{name} unbounded memory access, use 'var &= const' or 'if (var < const)'")
        for write in (False, True):
            access(env, memory, memory_name, num.umax, write, True, None)
    except Refused as refusal:
        pair = f"{memory_name} and {name} memory, len pair leads to invalid memory access"
        raise Refused(f"{refusal.message}\n{pair}", refusal.insn) from None
    mark_precise(env, index)
