"""Pointers kept in map values and allocated objects: what may be stored and what is loaded.

``map_kptr_match_type``, ``check_map_kptr_access``, ``btf_ld_kptr_type`` (verifier.c) and
``btf_parse_kptr`` (btf.c) of Linux 7.3.4.
"""

from __future__ import annotations

from harness.btf import Func, Struct
from harness.isa.insn import Atomic, StoreImm
from harness.verifier import records, refs
from harness.verifier.bounds import const
from harness.verifier.btf_pointer import check_fixed, ids_match, pointer
from harness.verifier.env import Env, NotModelled
from harness.verifier.precision import mark_register
from harness.verifier.state import (
    BASE,
    BTF_ID,
    MAYBE_NULL,
    MEM,
    MEM_ALLOC,
    MEM_PERCPU,
    MEM_RCU,
    NON_OWN_REF,
    TRUSTED,
    UNTRUSTED,
    Reg,
    TypeRef,
    type_name,
)

# Structs of the kernel that a map may own, by what destroys them   register_btf_id_dtor_kfuncs
_OWNED = {
    "task_struct": "bpf_task_release_dtor", "cgroup": "bpf_cgroup_release_dtor",
    "bpf_cpumask": "bpf_cpumask_release_dtor", "bpf_crypto_ctx": "bpf_crypto_ctx_release_dtor",
    "sk_buff": "bpf_kfree_skb_dtor", "bpf_ksock": "bpf_ksock_release_dtor",
    "prog_test_ref_kfunc": "bpf_kfunc_call_test_release_dtor",
    "prog_test_member": "bpf_kfunc_call_memb_release_dtor",
}  # fmt: skip
# Those that RCU guards                                   rcu_protected_types
_RCU = frozenset({"prog_test_ref_kfunc", "cgroup", "bpf_cpumask", "task_struct",
                  "bpf_crypto_ctx", "bpf_ksock"})  # fmt: skip


def target(env: Env, field: records.Field) -> TypeRef:
    """Return what a field points to: a struct of the kernel, else one of the program.

    ``btf_parse_kptr``.
    """
    kernel = env.kernel("a pointer in a map")
    assert env.btf is not None
    name = env.btf[field.target].name
    found = kernel.find(name, Struct)
    if found is None:
        return TypeRef(env.btf, field.target)
    if field.kind == "kptr" and kernel.find(_OWNED.get(name, ""), Func) is None:
        raise NotModelled(f"a map that owns a struct {name}")
    return TypeRef(kernel, found)


def access(env: Env, field: records.Field, write: bool, value: int) -> None:
    """Load or store the pointer at *field* (``check_map_kptr_access``)."""
    insn = env.insns[env.insn]
    if isinstance(insn, Atomic):
        env.refuse("kptr in map can only be accessed using BPF_MEM instruction mode")
    if not write:
        _load(env, field, value)
        return
    if field.kind in ("kptr", "percpu_kptr"):
        env.refuse("store to referenced kptr disallowed")
    if field.kind == "uptr":
        env.refuse("store to uptr disallowed")
    if isinstance(insn, StoreImm):
        if insn.imm:
            env.refuse(f"BPF_ST imm must be 0 when storing to kptr at off={field.offset}")
        return
    reg = env.state.frames[-1].regs[value]
    if reg.is_null:
        mark_register(env, value)
    else:
        check_match(env, field, reg, f"R{value}")


def _load(env: Env, field: records.Field, value: int) -> None:
    """``mark_uptr_ld_reg``, ``btf_ld_kptr_type``."""
    assert env.btf is not None
    if field.kind == "uptr":
        size = env.btf.size_of(field.target) or 0
        env.frame().regs[value] = Reg(MEM | MAYBE_NULL, const(0), env.new_id(), info=size)
        return
    found = target(env, field)
    local = found.btf is env.btf
    safe = field.kind == "percpu_kptr" or (field.kind == "kptr" and (local or found.name in _RCU))
    kind = BTF_ID | MAYBE_NULL
    if safe and refs.in_rcu(env.state):
        kind |= MEM_RCU
        if field.kind == "percpu_kptr":
            kind |= MEM_PERCPU
        elif local:
            kind |= MEM_ALLOC
        record = records.of_type(env, found.id) if local else None
        if record is not None and record.has(*records.NODES):
            kind |= NON_OWN_REF
    else:
        kind |= UNTRUSTED
    env.frame().regs[value] = pointer(kind, found, env.new_id())


def check_match(env: Env, field: records.Field, reg: Reg, name: str) -> None:
    """Refuse a pointer that may not be stored there (``map_kptr_match_type``)."""
    wanted = target(env, field)
    percpu = field.kind == "percpu_kptr"
    has = ""
    fits = reg.type & BASE == BTF_ID
    if fits:
        if reg.info.btf is not env.btf:
            allowed = MAYBE_NULL | TRUSTED | MEM_RCU
            if field.kind == "kptr_untrusted":
                allowed |= UNTRUSTED
        else:
            allowed = MAYBE_NULL | MEM_ALLOC | (MEM_PERCPU if percpu else 0)
        fits = not reg.type & ~BASE & ~allowed and percpu == bool(reg.type & MEM_PERCPU)
    if fits:
        has = reg.info.name
        check_fixed(env, reg, name, True)
        strict = field.kind != "kptr_untrusted"
        flexible = not reg.type & MEM_ALLOC
        if ids_match(env, reg.info, reg.num.value, wanted, strict, flexible):
            return
    text = f"invalid kptr access, {name} type={type_name(reg.type)}{has} "
    text += f"expected={type_name(BTF_ID)}{wanted.name}"
    if field.kind == "kptr_untrusted":
        text += f" or {type_name(BTF_ID | UNTRUSTED)}{wanted.name}"
    env.refuse(text)
