"""Addresses of the kernel's variables and functions (``check_pseudo_btf_id``, Linux 7.3.4)."""

from __future__ import annotations

from harness.btf import Btf, DataSec, Func, Struct, Var
from harness.btf_lazy import LazyBtf
from harness.isa.insn import LoadImm
from harness.verifier.bounds import const
from harness.verifier.env import Env, NotModelled, Refused
from harness.verifier.state import BTF_ID, MEM, MEM_PERCPU, MEM_RDONLY, Reg, TypeRef


def has_address(btf: Btf, name: str) -> bool:
    """Say whether the kernel has a symbol *name*; without its symbols at hand: that it has.

    A function that the compiler made a copy of is in BTF, and has no symbol of its name.
    """
    symbols = btf.symbols if isinstance(btf, LazyBtf) else None
    return symbols is None or symbols.has(name) is not False


def check(env: Env, index: int) -> None:
    """Note what the address of a variable or function is (``check_pseudo_btf_id``)."""
    insn = env.insns[index]
    btf = env.kernel("the address of a kernel symbol")
    type_id = env.fields[index][4]
    if not isinstance(insn, LoadImm) or insn.imm >> 32:
        raise NotModelled("the address of a module's symbol")
    if not 0 < type_id < len(btf):
        raise Refused(f"ldimm64 insn specifies invalid btf_id {type_id}.", index)
    kind = btf[type_id]
    if isinstance(kind, Func | Var) and not has_address(btf, kind.name):
        raise Refused(f"ldimm64 failed to find the address for kernel symbol '{kind.name}'.", index)
    if isinstance(kind, Func):
        env.symbols[index] = Reg(MEM | MEM_RDONLY, const(0), info=0)
        return
    if not isinstance(kind, Var):
        raise Refused(f"pseudo btf_id {type_id} in ldimm64 isn't KIND_VAR or KIND_FUNC", index)
    section = btf.get(btf.find(".data..percpu", DataSec) or 0)
    if isinstance(section, DataSec) and any(each.type == type_id for each in section.variables):
        flags = BTF_ID | MEM_PERCPU
    elif isinstance(btf.resolve(kind.type), Struct):
        flags = BTF_ID
    else:
        size = btf.size_of(kind.type)
        if size is None:
            name = btf.resolve(kind.type).name
            raise Refused(f"ldimm64 unable to resolve the size of type '{name}': -22", index)
        env.symbols[index] = Reg(MEM | MEM_RDONLY, const(0), info=size)
        return
    env.symbols[index] = Reg(flags, const(0), info=TypeRef(btf, kind.type))
