"""Objects that programs allocate, and the lists and trees that own them.

``check_special_kfunc``, ``__process_kf_arg_ptr_to_graph_root``,
``__process_kf_arg_ptr_to_graph_node``, ``ref_convert_owning_non_owning`` and
``set_rbtree_add_callback_state`` (verifier.c of Linux 7.3.4).
"""

from __future__ import annotations

from harness.btf import Struct
from harness.verifier import maps, object_args, records, refs
from harness.verifier.bounds import const
from harness.verifier.call import push_callback
from harness.verifier.env import Env, NotModelled
from harness.verifier.kfunc_call import ARGUMENTS, EFFECTS, RESULTS, Meta, Passed
from harness.verifier.kfuncs import scalar_struct
from harness.verifier.memory import field_record
from harness.verifier.state import (
    BTF_ID,
    MAP_VALUE,
    MEM_ALLOC,
    MEM_PERCPU,
    MEM_RCU,
    NON_OWN_REF,
    REF_LOCKS,
    Frame,
    Reg,
    TypeRef,
)

_MAX_PERCPU = 512  # BPF_GLOBAL_PERCPU_MA_MAX_SIZE
_NMI_SAFE = frozenset({  # btf_field_is_nmi_safe
    "bpf_spin_lock", "bpf_res_spin_lock", "bpf_timer", "bpf_wq", "bpf_task_work",
    "kptr_untrusted", "bpf_refcount",
})  # fmt: skip
_PUSHES = ("bpf_list_push_front", "bpf_list_push_back", "bpf_list_add")


# --- allocating ---------------------------------------------------------------------------


def _new(env: Env, meta: Meta) -> Reg:
    """``bpf_obj_new``, ``bpf_percpu_obj_new``."""
    type_id, btf = meta.constant, env.btf
    percpu = meta.kfunc.special("bpf_percpu_obj_new")
    assert type_id is not None  # its argument is __k
    if type_id >> 32:
        env.refuse("local type ID argument must be in range [0, U32_MAX]")
    if btf is None:
        env.refuse("bpf_obj_new/bpf_percpu_obj_new requires prog BTF")
    kind = btf.get(type_id)
    if not isinstance(kind, Struct) or kind.union:
        env.refuse("bpf_obj_new/bpf_percpu_obj_new type ID argument must be of a struct")
    if percpu:
        if kind.size > _MAX_PERCPU:
            env.refuse(f"bpf_percpu_obj_new type size ({kind.size}) is greater than {_MAX_PERCPU}")
        if not scalar_struct(env, btf, kind):
            env.refuse("bpf_percpu_obj_new type ID argument must be of a struct of scalars")
        if records.of_type(env, type_id) is not None:
            env.refuse("bpf_percpu_obj_new type ID argument must not contain special fields")
    mark = env.call_mark()
    mark.object_size, mark.struct_meta = kind.size, records.of_type(env, type_id) is not None
    flags = BTF_ID | MEM_ALLOC | (MEM_PERCPU if percpu else 0)
    return Reg(flags, const(0), info=TypeRef(btf, type_id))


def _allocated(env: Env, arg: Passed) -> None:
    """``KF_ARG_PTR_TO_ALLOC_BTF_ID``."""
    reg, kfunc = arg.reg, arg.meta.kfunc
    if reg.type == BTF_ID | MEM_ALLOC:
        if not kfunc.special("bpf_obj_drop"):
            env.refuse(f"{arg.name} expected for bpf_obj_drop()")
    elif reg.type == BTF_ID | MEM_ALLOC | MEM_PERCPU:
        if not kfunc.special("bpf_percpu_obj_drop"):
            env.refuse(f"{arg.name} expected for bpf_percpu_obj_drop()")
    else:
        env.refuse(f"{arg.name} expected pointer to allocated object")
    _owned(env, reg)
    arg.meta.more["object"] = reg


def _owned(env: Env, reg: Reg) -> None:
    if not refs.referenced(env.state, reg.id):
        env.refuse("allocated object must be referenced")


def _drop(env: Env, meta: Meta) -> None:
    """``bpf_obj_drop``, ``bpf_percpu_obj_drop``."""
    record = records.of_type(env, meta.more["object"].info.id)
    env.call_mark().struct_meta = record is not None
    program = env.program
    tracing = program.type == "tracing" and not program.sleepable
    if not maps.is_tracing(env) and not (tracing and program.attach_type != "trace_iter"):
        return
    if record is not None and any(field.kind not in _NMI_SAFE for field in record.fields):
        env.refuse(
            f"{meta.kfunc.name} cannot be used in tracing programs on types with NMI unsafe fields"
        )


def _refcounted(env: Env, arg: Passed) -> None:
    """``KF_ARG_PTR_TO_REFCOUNTED_KPTR``."""
    reg = arg.reg
    if not refs.owned(reg.type):
        env.refuse(f"{arg.name} is neither owning or non-owning ref")
    if not refs.non_owning(reg.type) and refs.referenced(env.state, reg.id):
        arg.meta.more["never null"] = True
    record = field_record(env, reg)
    if record is None:
        raise NotModelled("verifier bug: Couldn't find btf_record")
    if not record.has("bpf_refcount"):
        env.refuse(f"{arg.name} doesn't point to a type with bpf_refcount field")
    arg.meta.more["object"] = reg


def _acquired(env: Env, meta: Meta) -> Reg:
    """``bpf_refcount_acquire``."""
    env.call_mark().struct_meta = True
    return Reg(BTF_ID | MEM_ALLOC, const(0), info=meta.more["object"].info)


# --- lists and trees ------------------------------------------------------------------------


def _root(env: Env, arg: Passed) -> None:
    """Check a list or a tree (``__process_kf_arg_ptr_to_graph_root``)."""
    reg, name = arg.reg, arg.name
    kind = {"list_head": "bpf_list_head", "rb_root": "bpf_rb_root"}[arg.argument.kind]
    if reg.type not in (MAP_VALUE, BTF_ID | MEM_ALLOC):
        env.refuse(f"{name} expected pointer to map value or allocated object")
    if reg.type != MAP_VALUE:
        _owned(env, reg)
    if not arg.meta.kfunc.in_kernel:
        raise NotModelled("verifier bug: unexpected btf mismatch in kfunc call")
    if reg.num.mask:
        env.refuse(f"{name} doesn't have constant offset. {kind} has to be at the constant offset")
    record = field_record(env, reg)
    offset = reg.num.value & 0xFFFFFFFF
    field = record.find(offset, kind) if record is not None else None
    if record is None or field is None:
        env.refuse(f"{kind} not found at offset={offset}")
    where = reg.info if reg.type == MAP_VALUE else reg.info.btf
    held = refs.active_lock(env.state) is not None
    if not held or refs.find_lock(env.state, REF_LOCKS, reg.id, where) is None:
        needed = f"bpf_spin_lock at off={record.offset('bpf_spin_lock')} must be held for {kind}"
        if held:
            needed = f"held lock and object are not in the same allocation\n{needed}"
        env.refuse(needed)
    arg.meta.more["root"] = field


def _node(env: Env, arg: Passed) -> None:
    """Check a node of a list or a tree (``__process_kf_arg_ptr_to_graph_node``)."""
    reg, name, kfunc = arg.reg, arg.name, arg.meta.kfunc
    held = bool(reg.id) and refs.referenced(env.state, reg.id)
    if arg.argument.kind == "list_node":
        kind, owner = "bpf_list_node", "bpf_list_head"
        lent = arg.argument.named("__nonown_allowed") and refs.non_owning(reg.type) and not held
        takes = not lent
    else:
        kind, owner = "bpf_rb_node", "bpf_rb_root"
        takes = kfunc.special("bpf_rbtree_add")
        if not takes:
            if not refs.non_owning(reg.type) and not held:
                env.refuse(
                    f"{kfunc.name} can only take non-owning or refcounted bpf_rb_node pointer"
                )
            if object_args.in_tree_callback(env):
                env.refuse(f"{kfunc.name} not allowed in rbtree cb")
    if takes:
        if reg.type != BTF_ID | MEM_ALLOC:
            env.refuse(f"{name} expected pointer to allocated object")
        _owned(env, reg)
    if reg.num.mask:
        env.refuse(f"{name} doesn't have constant offset. {kind} has to be at the constant offset")
    offset = reg.num.value & 0xFFFFFFFF
    record = field_record(env, reg)
    if record is None or record.find(offset, kind) is None:
        env.refuse(f"{kind} not found at offset={offset}")
    root: records.Field = arg.meta.more["root"]
    assert env.btf is not None
    wanted = env.btf[root.target].name
    if reg.info.btf is not env.btf or reg.info.id != root.target:
        env.refuse(
            f"operation on {owner} expects arg#1 {kind} at offset={root.node} in struct {wanted}, "
            f"but arg is at offset={offset} in struct {reg.info.name}"
        )
    if offset != root.node:
        env.refuse(
            f"arg#1 offset={offset}, but expected {kind} at offset={root.node} in struct {wanted}"
        )


def _graph_node(env: Env, field: records.Field, lent: bool) -> Reg:
    """Return a node, *lent*: the list or tree still owns it (``mark_reg_graph_node``)."""
    assert env.btf is not None
    kind = BTF_ID | MEM_ALLOC
    if lent:
        kind |= _lent_flags(env, field.target)
    return Reg(kind, const(field.node), info=TypeRef(env.btf, field.target))


def _lent_flags(env: Env, type_id: int) -> int:
    """``ref_set_non_owning``."""
    if refs.active_lock(env.state) is None:
        raise NotModelled("verifier bug: ref_set_non_owning w/o active lock")
    record = records.of_type(env, type_id)
    return NON_OWN_REF | (MEM_RCU if record is not None and record.has("bpf_refcount") else 0)


def _taken(env: Env, meta: Meta) -> Reg:
    return _graph_node(env, meta.more["root"], False)


def _peeked(env: Env, meta: Meta) -> Reg:
    return _graph_node(env, meta.more["root"], True)


def _push(env: Env, meta: Meta) -> None:
    """Give a node away, and keep what points to it while the lock is held.

    ``ref_convert_owning_non_owning``.
    """
    del meta
    node = env.state.frames[-1].regs[2]
    mark = env.call_mark()
    mark.insert_off, mark.struct_meta = node.num.value, True
    ident = node.id
    refs.drop(env.state, ident)

    def lent(reg: Reg) -> Reg:
        if not ident or reg.id != ident:
            return reg
        return reg.with_id(0).with_type(reg.type | _lent_flags(env, reg.info.id))

    refs.rewrite(env.state, lent)


def _add_to_tree(env: Env, meta: Meta) -> None:
    """``bpf_rbtree_add``: the callback compares nodes."""
    field: records.Field = meta.more["root"]
    callee: Frame = push_callback(env, meta.subprog)
    callee.regs[1] = _graph_node(env, field, True)
    callee.regs[2] = _graph_node(env, field, True)
    _push(env, meta)


def register() -> None:
    """Make these kinds of arguments and functions known."""
    ARGUMENTS.update(
        {
            "alloc": _allocated,
            "refcounted": _refcounted,
            "list_head": _root,
            "rb_root": _root,
            "list_node": _node,
            "rb_node": _node,
        }
    )
    EFFECTS.update(
        {
            "bpf_obj_drop": _drop,
            "bpf_percpu_obj_drop": _drop,
            "bpf_rbtree_add": _add_to_tree,
            **dict.fromkeys(_PUSHES, _push),
        }
    )
    RESULTS.update(
        {
            "bpf_obj_new": _new,
            "bpf_percpu_obj_new": _new,
            "bpf_refcount_acquire": _acquired,
            **dict.fromkeys(
                ("bpf_list_pop_front", "bpf_list_pop_back", "bpf_list_del", "bpf_rbtree_remove"),
                _taken,
            ),
            **dict.fromkeys(
                (
                    "bpf_list_front", "bpf_list_back", "bpf_rbtree_first", "bpf_rbtree_root",
                    "bpf_rbtree_left", "bpf_rbtree_right",
                ),
                _peeked,
            ),
        }
    )  # fmt: skip
