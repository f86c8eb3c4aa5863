"""What a subprogram's BTF prototype says of its arguments (``btf_prepare_func_args``).

Linux 7.3.4 counts parameters, each one register or stack slot. With
``Options.slots_by`` "layout" a parameter takes as many as its size needs, which is
what the compiler does and the kernel does not understand.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.btf import (
    Array,
    Btf,
    BtfType,
    DataSec,
    DeclTag,
    Enum,
    Float,
    Func,
    FuncProto,
    Fwd,
    Int,
    Modifier,
    Param,
    Ptr,
    Struct,
    Typedef,
    Var,
    Void,
    essential,
)
from harness.isa.stack_args import MAX_ARGS, REG_ARGS, incoming_slot
from harness.verifier.env import Argument, Env, Refused, Subprog
from harness.verifier.state import TypeRef

# fmt: off
# The name of the context struct of a program type      include/linux/bpf_types.h
CONTEXTS = {
    "socket_filter": "__sk_buff", "sched_cls": "__sk_buff", "sched_act": "__sk_buff",
    "cgroup_skb": "__sk_buff", "lwt_in": "__sk_buff", "lwt_out": "__sk_buff",
    "lwt_xmit": "__sk_buff", "lwt_seg6local": "__sk_buff", "sk_skb": "__sk_buff",
    "flow_dissector": "__sk_buff", "xdp": "xdp_md", "cgroup_sock": "bpf_sock",
    "cgroup_sock_addr": "bpf_sock_addr", "sock_ops": "bpf_sock_ops", "sk_msg": "sk_msg_md",
    "kprobe": "pt_regs", "perf_event": "bpf_perf_event_data",
    "raw_tracepoint": "bpf_raw_tracepoint_args",
    "raw_tracepoint_writable": "bpf_raw_tracepoint_args", "cgroup_device": "bpf_cgroup_dev_ctx",
    "cgroup_sysctl": "bpf_sysctl", "cgroup_sockopt": "bpf_sockopt",
    "sk_reuseport": "sk_reuseport_md", "sk_lookup": "bpf_sk_lookup", "netfilter": "bpf_nf_ctx",
}
_PROJECTIONS = {"__sk_buff": "sk_buff", "xdp_md": "xdp_buff"}

_KINDS: dict[type, str] = {                             # btf_kind_str
    Void: "UNKNOWN", Int: "INT", Ptr: "PTR", Array: "ARRAY", Fwd: "FWD", Typedef: "TYPEDEF",
    Func: "FUNC", FuncProto: "FUNC_PROTO", Var: "VAR", DataSec: "DATASEC", Float: "FLOAT",
    DeclTag: "DECL_TAG",
}
_TAGS = ("ctx", "trusted", "untrusted", "nonnull", "nullable", "arena")
# fmt: on


class Unusable(Exception):  # noqa: N818 - the way out, not an error
    """The prototype says nothing the verifier can use: -EINVAL, fatal for a global function."""


def kind_name(kind: BtfType) -> str:
    """Return a kind of type as messages write it (``btf_type_str``)."""
    match kind:
        case Struct(union=union):
            return "UNION" if union else "STRUCT"
        case Enum(wide=wide):
            return "ENUM64" if wide else "ENUM"
        case Modifier(kind=name):
            return name.upper()
    return _KINDS[type(kind)]


def returns_void(env: Env, sub: Subprog) -> bool:
    """``subprog_returns_void``."""
    proto = env.btf.prototype(sub.type_id) if env.btf else None
    return proto is not None and isinstance(_behind(env.btf, proto.returns), Void)


def _behind(btf: Btf | None, type_id: int) -> BtfType:
    assert btf is not None
    return btf.resolve(type_id)


def behind(btf: Btf, type_id: int) -> int:
    """Return the id of the type behind typedefs and modifiers (``btf_type_skip_modifiers``)."""
    for _ in range(len(btf)):
        kind = btf.get(type_id)
        if not isinstance(kind, Typedef | Modifier):
            return type_id
        type_id = kind.type
    return 0


def slots(btf: Btf, proto: FuncProto) -> int:
    """Return how many registers and slots the arguments take as the compiler lays them out."""
    total = 1 if (btf.size_of(proto.returns) or 0) > 16 else 0  # a hidden result pointer
    for param in proto.params:
        size = btf.size_of(param.type) or 8
        total += 2 if 8 < size <= 16 else 1
    return total


def prepare_args(env: Env, sub: Subprog) -> None:
    """Fill ``arg_cnt``, ``stack_arg_cnt`` and ``args`` of *sub* (``btf_prepare_func_args``).

    Raises Refused where the kernel gives up altogether, Unusable where it does so for
    a global function only.
    """
    if sub.args_cached:
        return
    btf = env.btf
    assert btf is not None
    func = btf[sub.type_id]
    proto = btf.prototype(sub.type_id)
    assert isinstance(func, Func)
    assert proto is not None  # prepare_func_info
    count = len(proto.params)
    by_layout = env.options.slots_by == "layout"
    if by_layout:
        count = slots(btf, proto)
        sub.returns_pair = 8 < (btf.size_of(proto.returns) or 0) <= 16
    sub.arg_cnt = count & 0xF  # a field of four bits
    if count > MAX_ARGS:
        raise Refused(
            f"kernel supports at most {MAX_ARGS} parameters, function {func.name} has {count}"
        )
    if count > REG_ARGS:
        if not env.options.jit_stack_args:
            raise Refused(f"JIT does not support function {func.name}() with {count} args")
        sub.stack_arg_cnt = count - REG_ARGS
    if sub.is_global and count > REG_ARGS:
        env.say(
            f"global function {func.name} has {count} > {REG_ARGS} args, stack args not supported"
        )
        raise Unusable
    if by_layout and count != len(proto.params) and not sub.is_global:
        raise Unusable
    _check_return(env, btf, sub, func, proto)
    sub.args = [
        _argument(env, btf, sub, func, index, param) for index, param in enumerate(proto.params)
    ]
    sub.args_cached = True


def _check_return(env: Env, btf: Btf, sub: Subprog, func: Func, proto: FuncProto) -> None:
    """``btf_validate_return_type``."""
    kind = btf.resolve(proto.returns)
    if isinstance(kind, Ptr) and sub.index and "arena" in _type_tags(btf, kind):
        return
    if isinstance(kind, Void | Int | Enum):
        return
    if sub.is_global:
        env.say(
            f"Global function {func.name}() return value not void or scalar. "
            "Only those are supported."
        )
    raise Unusable


def _type_tags(btf: Btf, pointer: Ptr) -> set[str]:
    """Return the type tags right behind a pointer (``btf_type_tag_walk``)."""
    tags = set()
    kind = btf.get(pointer.type)
    for _ in range(len(btf)):
        if not isinstance(kind, Modifier) or kind.kind != "type_tag":
            break
        tags.add(kind.name)
        kind = btf.get(kind.type)
    return tags


def _decl_tags(env: Env, btf: Btf, sub: Subprog, index: int) -> set[str]:
    """``btf_scan_decl_tags``."""
    tags = set()
    for kind in _arg_tags(btf, sub.type_id, index):
        if not sub.is_global:
            env.say(f"arg#{index} type tag is not supported in static functions")
            raise Unusable
        tag = kind.name[len("arg:") :]
        if tag not in _TAGS:
            env.say(f"arg#{index} has unsupported set of tags")
            raise Unusable
        tags.add(tag)
    return tags


def _arg_tags(btf: Btf, func_id: int, index: int) -> Iterable[DeclTag]:
    for kind in btf.tags(func_id):
        if kind.component == index and kind.name.startswith("arg:"):
            yield kind


def _argument(env: Env, btf: Btf, sub: Subprog, func: Func, index: int, param: Param) -> Argument:
    tags = _decl_tags(env, btf, sub, index)
    kind = btf.resolve(param.type)
    if isinstance(kind, Ptr):
        if "arena" in _type_tags(btf, kind):
            tags.add("arena")
        found = _pointer(env, btf, sub, index, kind, tags)
        if found is not None:
            return found
    if tags:
        env.say(f"arg#{index} has pointer tag, but is not a pointer type")
        raise Unusable
    if isinstance(kind, Int | Enum):
        return Argument("scalar")
    if sub.is_global:
        env.say(f"Arg#{index} type {kind_name(kind)} in {func.name}() is not supported yet.")
    raise Unusable


def _pointer(
    env: Env, btf: Btf, sub: Subprog, index: int, kind: Ptr, tags: set[str]
) -> Argument | None:
    behind = btf.resolve(kind.type)
    if "ctx" in tags or is_context(env, btf, kind):
        if tags - {"ctx"}:
            return _bad_tags(env, index)
        if "ctx" in tags:
            _check_context(env, btf, kind, index)
        return Argument("ctx")
    if isinstance(behind, Struct | Fwd) and not behind.union and behind.name == "bpf_dynptr":
        if tags:
            return _bad_tags(env, index)
        return Argument("dynptr")
    if "trusted" in tags:
        if "nonnull" in tags:
            return _bad_tags(env, index)
        found = _kernel_type(env, btf, kind, index)
        return Argument("btf", nullable="nullable" in tags, struct=found)
    if "untrusted" in tags:
        return _untrusted(env, btf, kind, index, tags)
    if "arena" in tags:
        if tags - {"arena"}:
            env.say(f"arg#{index} arena cannot be combined with any other tags")
            raise Unusable
        return Argument("arena")
    if not sub.is_global:
        return None
    if "nullable" in tags:
        return _bad_tags(env, index)
    size = btf.size_of(kind.type)
    if size is None or isinstance(behind, Void | Fwd | Func | FuncProto):
        env.say(
            f"arg#{index} reference type('{kind_name(behind)} {behind.name}') "
            "size cannot be determined: -22"
        )
        raise Unusable
    return Argument("mem", size, "nonnull" not in tags)


def _untrusted(env: Env, btf: Btf, kind: Ptr, index: int, tags: set[str]) -> Argument:
    if tags - {"untrusted"}:
        env.say(f"arg#{index} untrusted cannot be combined with any other tags")
        raise Unusable
    behind = btf.resolve(kind.type)
    regular = isinstance(behind, Int) and not behind.bit_offset and behind.bits == 8 * behind.size
    if isinstance(behind, Void | Enum) or (regular and behind.bits.bit_count() == 1):  # type: ignore[union-attr]
        return Argument("untrusted")
    found = _kernel_type(env, btf, kind, index)
    target = found.btf[found.id]
    if not isinstance(target, Struct):
        env.say(
            f"arg#{index} has type {kind_name(target)} '(anon)', "
            "but only struct or primitive types are allowed"
        )
        raise Unusable
    return Argument("untrusted", struct=found)


def _kernel_type(env: Env, btf: Btf, kind: Ptr, index: int) -> TypeRef:
    """Return the kernel's type of the same name (``btf_get_ptr_to_btf_id``)."""
    kernel = env.kernel("an argument tagged trusted or untrusted")
    local = btf.resolve(kind.type)
    what = f"arg#{index} reference type('{kind_name(local)} {local.name or '(anon)'}')"
    if not local.name:
        env.say(f"{what} candidate matching error: -22")
        raise Unusable
    found = [
        number
        for number in kernel.flavours(essential(local.name))
        if kind_name(kernel[number]) == kind_name(local)
    ]
    if len(found) != 1:
        env.say(f"{what} {'is ambiguous' if found else 'has no matches'}")
        raise Unusable
    return TypeRef(kernel, found[0])


# Programs whose functions may take u64 * for the context, of those with kernel targets
_WORDS = frozenset({"raw_tracepoint", "raw_tracepoint_writable", "lsm", "struct_ops"})
_WORD_ATTACH = frozenset({
    "trace_raw_tp", "trace_fentry", "trace_fexit", "modify_return", "trace_fsession",
})  # fmt: skip


def _check_context(env: Env, btf: Btf, pointer: Ptr, index: int) -> None:
    """Check the type of an argument tagged as the context (``btf_validate_prog_ctx_type``)."""
    program = env.program
    kind = btf.get(pointer.type)
    if program.type in ("kprobe", "perf_event"):
        for _ in range(len(btf)):
            if not isinstance(kind, Modifier):
                break
            kind = btf.get(kind.type)
        if isinstance(kind, Typedef) and kind.name == "bpf_user_pt_regs_t":
            return
    kind = btf.resolve(pointer.type)
    if isinstance(kind, Void):
        return
    if not kind.name:
        env.say(f"arg#{index} type doesn't have a name")
        raise Unusable
    struct = isinstance(kind, Struct) and not kind.union
    word = isinstance(kind, Int) and kind.size == 8
    tracing = program.type == "tracing"
    if program.type in ("kprobe", "perf_event") and struct and kind.name == "pt_regs":
        return
    if word and (program.type in _WORDS or (tracing and program.attach_type in _WORD_ATTACH)):
        return
    if tracing and struct:
        if program.attach_type == "trace_raw_tp" and kind.name == "bpf_raw_tracepoint_args":
            return
        if program.attach_type == "trace_iter" and kind.name.startswith("bpf_iter__"):
            return
    if program.type in ("tracepoint", "syscall", "ext"):
        return
    wanted = CONTEXTS.get(program.type)
    if wanted is None:
        env.say(f"arg#{index} should be void pointer")
        raise Unusable
    if not struct or kind.name != wanted:
        env.say(f"arg#{index} should be `struct {wanted} *`")
        raise Unusable


def _bad_tags(env: Env, index: int) -> Argument:
    env.say(f"arg#{index} has invalid combination of tags")
    raise Unusable


def is_context(env: Env, btf: Btf, pointer: Ptr) -> bool:
    """Say whether *pointer* of *btf* is to the program's context (``btf_is_prog_ctx_type``)."""
    kind = btf.get(pointer.type)
    program_type = env.program.type
    if program_type == "kprobe":
        for _ in range(len(btf)):
            if not isinstance(kind, Modifier):
                break
            kind = btf.get(kind.type)
        if isinstance(kind, Typedef) and kind.name == "bpf_user_pt_regs_t":
            return True
    kind = btf.resolve(pointer.type)
    if not isinstance(kind, Struct):
        return False
    wanted = CONTEXTS.get(program_type)
    if wanted is None:
        return False
    return kind.name in (wanted, _PROJECTIONS.get(wanted))


def infer_args(env: Env) -> None:
    """Give each subprogram the arguments it loads, for programs without BTF."""
    for sub in env.subs:
        most = 0
        for insn in env.insns[sub.start : sub.end]:
            most = max(most, incoming_slot(insn) or 0)
        if most and REG_ARGS + most <= MAX_ARGS:
            sub.arg_cnt = REG_ARGS + most
            sub.stack_arg_cnt = most
