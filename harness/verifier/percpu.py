"""What a per-CPU pointer means on one CPU (``check_helper_call``, verifier.c of Linux 7.3.4)."""

from __future__ import annotations

from harness.btf import Struct
from harness.verifier.bounds import const
from harness.verifier.env import Env
from harness.verifier.state import BTF_ID, MEM, MEM_ALLOC, MEM_RCU, MEM_RDONLY, Reg


def result(env: Env, percpu: Reg | None, null: int) -> Reg:
    """Return what ``bpf_per_cpu_ptr`` and ``bpf_this_cpu_ptr`` give (RET_PTR_TO_MEM_OR_BTF_ID)."""
    assert percpu is not None  # the argument
    btf, type_id = percpu.info
    if isinstance(btf.resolve(type_id), Struct):
        if percpu.type & MEM_RCU:  # an object of the program's own
            return Reg(BTF_ID | MEM_ALLOC | MEM_RCU, const(0), info=percpu.info)
        return Reg(BTF_ID | null, const(0), info=percpu.info)
    size = btf.size_of(type_id)
    if size is None:
        name = btf.resolve(type_id).name
        env.refuse(f"unable to resolve the size of type '{name}': -22")
    return Reg(MEM | null | MEM_RDONLY, const(0), info=size)
