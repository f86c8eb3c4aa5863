"""The types of Linux 7.3.4 that cases need, taken out of its BTF.

``linux_7.3.btf`` holds the named functions, variables and typedefs with their prototypes,
the named structs whole, and of every other struct behind a pointer that there is one.
Run as a script, this makes that file anew out of the kernel's BTF, a file that is named.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from harness.btf import (
    Btf,
    BtfType,
    DataSec,
    DeclTag,
    Func,
    Fwd,
    Modifier,
    Ptr,
    Struct,
    Typedef,
    Var,
    Void,
    encode,
    references,
    renumbered,
)
from harness.btf_lazy import LazyBtf, parse_lazily

FILE = Path(__file__).with_name("linux_7.3.btf")

# fmt: off
FUNCTIONS = (
    # to attach to
    "vfs_read", "bpf_fentry_test1", "bpf_modify_return_test", "security_file_open", "do_exit",
    "migrate_disable", "__x64_sys_getpgid", "bpf_lsm_file_open", "bpf_lsm_file_alloc_security",
    "bpf_lsm_task_free", "bpf_lsm_inode_xattr_skipcap", "bpf_lsm_sk_free_security",
    "bpf_lsm_socket_create", "bpf_lsm_socket_bind", "bpf_lsm_verify_prog", "bpf_iter_task",
    "bpf_iter_bpf_map_elem", "__bpf_trace_task_newtask",
    # to call
    "bpf_task_acquire", "bpf_task_release", "bpf_task_from_pid", "bpf_rdonly_cast",
    "bpf_cast_to_kern_ctx", "bpf_rcu_read_lock", "bpf_rcu_read_unlock", "bpf_get_task_exe_file",
    "bpf_put_file", "bpf_path_d_path", "bpf_cpumask_create", "bpf_cpumask_first",
    "bpf_cpumask_release", "bpf_copy_from_user_str", "bpf_strlen", "bpf_preempt_disable",
    "bpf_preempt_enable", "bpf_cgroup_from_id", "bpf_cgroup_release", "bpf_iter_num_new",
    "bpf_iter_num_next", "bpf_iter_num_destroy", "bpf_dynptr_from_skb", "bpf_dynptr_slice",
    "bpf_xdp_metadata_rx_hash", "bpf_stream_vprintk", "bpf_stream_vprintk_impl", "__bpf_trap",
    "bpf_throw", "bpf_local_irq_save", "bpf_local_irq_restore", "bpf_res_spin_lock",
    "bpf_res_spin_unlock",
)
STRUCTS = (
    "task_struct", "task_struct__safe_rcu", "file", "file__safe_trusted", "path", "inode",
    "dentry", "dentry__safe_trusted_or_null", "socket", "socket__safe_trusted_or_null", "sock",
    "sock_common", "sk_buff", "sk_buff__safe_rcu_or_null", "cred", "css_set",
    "css_set__safe_rcu", "cgroup", "cgroup__safe_rcu", "bpf_iter_meta",
    "bpf_iter_meta__safe_trusted", "seq_file", "bpf_cpumask", "cpumask", "bpf_map", "bpf_dynptr",
    "bpf_iter_num", "bpf_prog_aux", "bpf_ctx_convert", "nf_hook_state", "bpf_res_spin_lock",
)
TYPEDEFS = ("btf_trace_task_newtask", "btf_trace_sched_switch")
VARIABLES = ("bpf_prog_active",)
# fmt: on


@cache
def kernel_types() -> LazyBtf:
    """Return the types that cases may name."""
    return parse_lazily(FILE.read_bytes())


def extract(btf: LazyBtf) -> Btf:
    """Return what the tables name of *btf*; a struct that is only pointed to is a declaration."""
    wanted: list[tuple[str, type]] = [(name, Func) for name in FUNCTIONS]
    wanted += [(name, Struct) for name in STRUCTS]
    wanted += [(name, Typedef) for name in TYPEDEFS]
    wanted += [(name, Var) for name in VARIABLES]
    found = (btf.find(name, kind) for name, kind in wanted)
    roots = [type_id for type_id in found if type_id is not None]
    whole = {type_id for type_id in roots if isinstance(btf[type_id], Struct)}
    types: dict[int, BtfType] = {0: Void()}
    pending, seen = [(type_id, False) for type_id in roots], set[tuple[int, bool]]()
    while pending:
        type_id, pointed = visit = pending.pop()
        if visit in seen:
            continue
        seen.add(visit)
        kind = btf[type_id]
        if isinstance(kind, Struct) and pointed and kind.name and type_id not in whole:
            types.setdefault(type_id, Fwd(kind.name, kind.union))
            continue
        types[type_id] = kind
        behind = isinstance(kind, Ptr) or (pointed and isinstance(kind, Modifier | Typedef))
        pending += [(each, behind) for each in references(kind)]
    section = btf.find(".data..percpu", DataSec)
    if section is not None:
        kind = btf[section]
        assert isinstance(kind, DataSec)
        kept = tuple(each for each in kind.variables if each.type in types)
        types[section] = DataSec(kind.name, kind.size, kept)
    tags = [tag for type_id in roots for tag in btf.tags(type_id) if isinstance(tag, DeclTag)]
    return renumbered(types, tags)


if __name__ == "__main__":
    data = encode(extract(parse_lazily(Path(sys.argv[1]).read_bytes())))
    FILE.write_bytes(data)
    print(f"{FILE}: {len(data)} bytes")
