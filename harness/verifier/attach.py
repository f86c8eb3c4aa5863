"""What a program attaches to by the kernel's BTF, and what its context holds there.

``check_attach_btf_id``, ``bpf_check_attach_target``, ``btf_ctx_access`` and
``return_retval_range`` for such programs (verifier.c and btf.c of Linux 7.3.4, as Debian
builds it: without error injection).
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.btf import (
    Btf,
    Enum,
    Func,
    FuncProto,
    Int,
    Param,
    Ptr,
    Struct,
    Typedef,
)
from harness.isa.stack_args import MAX_ARGS
from harness.verifier import attach_facts as facts
from harness.verifier import kfunc_table
from harness.verifier.btf_pointer import tagged
from harness.verifier.env import Env, NotModelled, Refused
from harness.verifier.kfuncs import distill
from harness.verifier.ksyms import has_address
from harness.verifier.prototypes import behind, kind_name
from harness.verifier.state import (
    BTF_ID,
    BUF,
    MAYBE_NULL,
    MEM_PERCPU,
    MEM_USER,
    SCALAR,
    TRUSTED,
    TypeRef,
)

# fmt: off
# What programs attach to, by attach type: kind, and a prefix of the name
_KINDS: dict[str, tuple[type[Func | Typedef], str]] = {
    "trace_raw_tp": (Typedef, "btf_trace_"), "trace_fentry": (Func, ""),
    "trace_fexit": (Func, ""), "modify_return": (Func, ""), "trace_fsession": (Func, ""),
    "lsm_mac": (Func, "bpf_lsm_"), "lsm_cgroup": (Func, "bpf_lsm_"),
    "trace_iter": (Func, "bpf_iter_"),
}
_SEES_RESULT = frozenset({"modify_return", "trace_fexit", "trace_fsession"})
_NO_SLEEP = frozenset({"lsm_cgroup"})              # of those, can_be_sleepable
_TAGS = {"user": MEM_USER, "percpu": MEM_PERCPU}
_ERRNO = 4095
# fmt: on


@dataclass(frozen=True, slots=True)
class Target:
    """A function or tracepoint of the kernel, as a program that attaches to it sees it."""

    name: str
    attach_type: str
    btf: Btf
    proto: FuncProto
    hook: str = ""  # lsm: its name without bpf_lsm_
    arguments: dict[int, int] | None = None  # iterators: type of the argument at an offset


@dataclass(frozen=True, slots=True)
class Found:
    """What a load from the context gives."""

    kind: int = SCALAR
    ref: TypeRef | None = None
    errno: tuple[int, int] | None = None  # the result of a hook: its range


def check(env: Env) -> None:
    """Find what the program attaches to (``check_attach_btf_id``)."""
    program = env.program
    if program.type not in ("tracing", "lsm"):
        return
    attach = program.attach_type
    if attach not in _KINDS:
        raise NotModelled(f"what a program with attach type {attach or 'none'} attaches to")
    if not program.attach:
        raise NotModelled("a program that does not say what it attaches to")
    if ":" in program.attach:
        raise NotModelled("a program that attaches to a module's function")
    if program.sleepable and attach in _NO_SLEEP:
        raise Refused("Program of this type cannot be sleepable")
    btf = env.kernel(f"what a program of type {program.type} attaches to")
    kind, prefix = _KINDS[attach]
    name = prefix + program.attach
    type_id = btf.find(name, kind)
    if type_id is None:
        raise NotModelled(f"{name} to attach to (not in the kernel BTF)")
    if attach == "trace_raw_tp":
        env.target = _tracepoint(env, btf, type_id)
    elif attach == "trace_iter":
        env.target = _iterator(env, btf, type_id)
    else:
        env.target = _function(env, btf, type_id)


def _tracepoint(env: Env, btf: Btf, type_id: int) -> Target:
    name = env.program.attach
    if env.program.sleepable and name not in facts.FAULTABLE:
        raise Refused(f"Sleepable program cannot attach to non-faultable tracepoint {name}")
    template = btf.find(f"__bpf_trace_{name}", Func)
    proto = btf.prototype(template) if template is not None else None
    if proto is None:  # another event's template; the types are the same
        typedef = btf[type_id]
        assert isinstance(typedef, Typedef)
        pointer = btf.get(typedef.type)
        found = btf.get(pointer.type) if isinstance(pointer, Ptr) else None
        if not isinstance(found, FuncProto):
            raise Refused("")
        proto = found
    return Target(name, "trace_raw_tp", btf, proto)


def _iterator(env: Env, btf: Btf, type_id: int) -> Target:
    name = f"bpf_iter_{env.program.attach}"
    proto = btf.prototype(type_id)
    if proto is None:
        raise Refused("")
    distill(btf, name, proto)
    known = facts.ITERATORS.get(env.program.attach)
    if known is None:
        raise NotModelled(f"the iterator {env.program.attach}")
    arguments = {}
    for index, param in enumerate(proto.params):
        if param.name in known:
            arguments[8 * index] = known[param.name]
    return Target(name, "trace_iter", btf, proto, arguments=arguments)


def _function(env: Env, btf: Btf, type_id: int) -> Target:
    program = env.program
    attach, name = program.attach_type, btf[type_id].name
    proto = _prototype(btf, type_id, name)
    distill(btf, name, proto)
    returned = btf.size_of(proto.returns) or 0
    if returned > 8 and attach in _SEES_RESULT:
        raise Refused(
            f"Attach to function {name} with a >8 byte return value is not supported "
            "for this attach type"
        )
    if not has_address(btf, name):
        raise Refused(f"The address of function {name} cannot be found")
    if btf.find("within_error_injection_list", Func) is not None and (
        program.sleepable or attach == "modify_return"
    ):
        raise NotModelled("a kernel with error injection")
    if program.sleepable:
        if not _may_sleep(env, name):
            raise Refused(f"{name} is not sleepable")
    elif attach == "modify_return" and not (
        _modifiable(name) is not None or name.startswith(("__x64_", "security_"))
    ):
        raise Refused(f"{name}() is not modifiable")
    if program.type == "lsm":
        hook = program.attach
        if not env.gpl:
            raise Refused("LSM programs must have a GPL compatible license")
        if hook in facts.DISABLED_HOOKS:
            raise Refused(f"attach_btf_id {type_id} points to disabled hook {name}")
        if hook in facts.NO_HOOKS:
            raise Refused(f"attach_btf_id {type_id} points to wrong type name {name}")
        return Target(name, attach, btf, proto, hook)
    if name in facts.DENIED:
        raise Refused(f"Attaching tracing programs to function '{name}' is rejected.")
    if attach in _SEES_RESULT and name in facts.NO_RETURN:
        raise Refused(
            f"Attaching fexit/fsession/fmod_ret to __noreturn function '{name}' is rejected."
        )
    return Target(name, attach, btf, proto)


def _prototype(btf: Btf, type_id: int, name: str) -> FuncProto:
    """``btf_attach_func_proto``."""
    flags = {found.flags[name] for found in kfunc_table.SETS if name in found.flags}
    proto = btf.prototype(type_id)
    if any(flag & kfunc_table.IMPLICIT_ARGS for flag in flags):
        whole = btf.find(f"{name}_impl", Func)
        proto = btf.prototype(whole) if whole is not None else None
    if proto is None:
        raise Refused("")
    return proto


def _modifiable(name: str) -> int | None:
    """Return the flags of a function whose result may be replaced, None: it may not.

    ``btf_kfunc_is_modify_return``.
    """
    for found in kfunc_table.SETS:
        if "fmodret" in found.hooks and name in found.flags:
            return found.flags[name]
    return None


def _may_sleep(env: Env, name: str) -> bool:
    """``btf_id_allow_sleepable``."""
    if env.program.type == "lsm":
        return env.program.attach in facts.SLEEPABLE_HOOKS
    flags = _modifiable(name) or 0
    return name.startswith("__x64_") or bool(flags & kfunc_table.SLEEPABLE)


# --- the context ----------------------------------------------------------------------------


def access(env: Env, off: int, size: int, write: bool) -> Found | None:
    """Return what a load from the context gives, None: refused (``btf_ctx_access``)."""
    target = env.target
    assert target is not None  # check
    if env.program.type != "lsm" and (not 0 <= off < 8 * MAX_ARGS or write or off % size):
        return None  # bpf_tracing_ctx_access
    name, btf, proto = target.name, target.btf, target.proto
    if off % 8:
        env.say(f"func '{name}' offset {off} is not multiple of 8")
        return None
    index = _argument_at(btf, proto, off)
    params = proto.params[1:] if target.attach_type == "trace_raw_tp" else proto.params
    errno = None
    param: Param | None = None
    if index > len(params):
        env.say(f"func '{name}' doesn't have {index + 1}-th argument")
        return None
    if index == len(params):
        match target.attach_type:
            case "lsm_mac":
                errno = hook_range(target)
            case "lsm_cgroup" | "trace_fexit" | "trace_fsession":
                pass
            case "modify_return":
                returned = btf.resolve(proto.returns)
                if not (isinstance(returned, Int) and returned.size <= 8):
                    env.say(f"ret type {kind_name(returned)} not allowed for fmod_ret")
                    return None
            case _:
                env.say(f"func '{name}' doesn't have {index + 1}-th argument")
                return None
        type_id = proto.returns
    else:
        param = params[index]
        type_id = param.type
    kind = btf.resolve(type_id)
    if (isinstance(kind, Int) and kind.size <= 8) or isinstance(kind, Enum | Struct):
        return Found(errno=errno)
    if not isinstance(kind, Ptr):
        env.say(
            f"func '{name}' arg{index} '{kind.name or '(anon)'}' has type {kind_name(kind)}. "
            "Only pointer access is allowed"
        )
        return None
    if size != 8:
        env.say(f"func '{name}' size {size} must be 8")
        return None
    return _pointer(env, target, off, index, param, kind, errno)


def _pointer(
    env: Env,
    target: Target,
    off: int,
    index: int,
    param: Param | None,
    kind: Ptr,
    errno: tuple[int, int] | None,
) -> Found | None:
    """Return what a pointer in the context is."""
    name, btf = target.name, target.btf
    known = (target.arguments or {}).get(off)
    if known is not None and known & 0xFF == BUF:
        return Found(known)
    if not isinstance(btf.resolve(kind.type), Struct):
        return Found(errno=errno)
    if known is not None:
        return Found(known, TypeRef(btf, behind(btf, kind.type)))
    flags = BTF_ID | (TRUSTED if _trusted(target) else 0)
    if param is not None and param.name.endswith("__nullable"):
        flags |= MAYBE_NULL
    error = False
    if target.attach_type == "trace_raw_tp":
        mask = facts.NULL_ARGS.get(name, 0) >> index * 4
        if mask & 1:
            flags |= MAYBE_NULL
        error = bool(mask & 2)
    found = tagged(btf, kind, _TAGS)
    if found is None:
        env.say(f"func '{name}' arg{index} type {kind_name(kind)} has multiple type tags")
        return None
    type_id, more = found
    struct = btf[type_id]
    if not isinstance(struct, Struct):
        env.say(f"func '{name}' arg{index} type {kind_name(struct)} is not a struct")
        return None
    env.log.text(
        f"func '{name}' arg{index} has btf_id {type_id} type {kind_name(struct)} "
        f"'{struct.name or '(anon)'}'\n"
    )
    if error:
        env.log.text(f"marking pointer arg{index} as scalar as it may encode error")
        return Found()
    return Found(flags | more, TypeRef(btf, type_id))


def _argument_at(btf: Btf, proto: FuncProto, off: int) -> int:
    """``btf_ctx_arg_idx``."""
    end = 0
    if off >= 0:
        for index, type_id in enumerate((*(p.type for p in proto.params), proto.returns)):
            kind = btf.resolve(type_id)
            size = 8 if isinstance(kind, Ptr) else getattr(kind, "size", 0)
            end += -(-size // 8) * 8
            if off < end:
                return index
    return len(proto.params) + 1


def _trusted(target: Target) -> bool:
    """``prog_args_trusted``."""
    if target.attach_type in ("lsm_mac", "lsm_cgroup"):
        return target.hook not in facts.UNTRUSTED_HOOKS
    return target.attach_type in ("trace_raw_tp", "trace_iter")


def allows(env: Env, number: int) -> bool | None:
    """Say whether a helper may be called where the program attaches; None: it does not ask.

    ``bpf_d_path_allowed``, ``bpf_ima_inode_hash_allowed``, and the socket options of
    ``bpf_lsm_func_proto``.
    """
    target = env.target
    sleepable = target is not None and target.hook in facts.SLEEPABLE_HOOKS
    match number:
        case 147:  # d_path
            if target is None:
                return False
            if target.attach_type == "trace_iter":
                return True
            return sleepable if target.hook else target.name in facts.D_PATH
        case 161 | 193:  # ima_inode_hash, ima_file_hash
            return sleepable
        case 49 | 57 if target is not None and target.hook:  # setsockopt, getsockopt
            return target.hook in facts.SOCKOPT_HOOKS
    return None


# --- results --------------------------------------------------------------------------------


def returns_void(target: Target) -> bool:
    """Say whether what the program returns does not matter (``program_returns_void``)."""
    return target.attach_type == "lsm_mac" and not target.proto.returns


def hook_range(target: Target) -> tuple[int, int] | None:
    """Return the results of a hook, None: it has none (``bpf_lsm_get_retval_range``)."""
    if not target.proto.returns:
        return None
    return (0, 1) if target.hook in facts.BOOLEAN_HOOKS else (-_ERRNO, 0)


def result_range(target: Target) -> tuple[int, int] | None:
    """Return the results the program may give, None: any (``return_retval_range``)."""
    match target.attach_type:
        case "trace_fentry" | "trace_fexit" | "trace_fsession":
            return (0, 0)
        case "trace_raw_tp" | "modify_return":
            return None
        case "lsm_mac":
            return hook_range(target)
        case "lsm_cgroup" if not target.proto.returns:
            return (1, 1)
    return (0, 1)
