"""Which calls of bpf_loop can be built in, where no verifier has looked at the program.

Linux builds in a call whose callback and flags of 0 are the same on every path
(``update_loop_inline_state``). What is found here is never more than that: what registers
hold is followed from a jump's target to the next one. Other calls stay calls.
"""

from __future__ import annotations

from harness.isa.insn import (
    AddrSpaceCast,
    Alu,
    Call,
    Endian,
    Exit,
    Goto,
    High,
    Insn,
    Jump,
    Load,
    LoadImm,
    MayGoto,
    PercpuAddr,
    Store,
    StoreImm,
)
from harness.isa.targets import function_target, jump_target
from harness.model import Program

LOOP = 181  # BPF_FUNC_loop
_CALLBACK, _FLAGS = 2, 4  # registers
_CALL_SPOILS = range(6)


def is_loop(insn: Insn) -> bool:
    """Say whether *insn* calls bpf_loop."""
    return type(insn) is Call and insn.imm == LOOP and insn.kind == "helper"


def fit_loops(program: Program) -> dict[int, int]:
    """Return the slots of calls that can be built in, and the index of each one's callback."""
    index_of = {sub.start: index for index, sub in enumerate(program.subprograms)}
    targets = {jump_target(insn, at) for at, insn in enumerate(program.insns)}
    found: dict[int, int] = {}
    known: dict[int, int] = {}  # by register: a constant
    callbacks: dict[int, int] = {}  # by register: its subprogram
    for at, insn in enumerate(program.insns):
        if at in targets or at in index_of:
            known, callbacks = {}, {}
        if is_loop(insn) and _CALLBACK in callbacks and known.get(_FLAGS) == 0:
            found[at] = callbacks[_CALLBACK]
        match insn:
            case Call():
                for register in _CALL_SPOILS:
                    known.pop(register, None)
                    callbacks.pop(register, None)
            case Store() | StoreImm() | Jump() | Goto() | MayGoto() | Exit() | High():
                pass
            case Alu(op="mov", bits=64, dst=dst, src=int(src), sx=0):
                _put(known, dst, known.get(src))
                _put(callbacks, dst, callbacks.get(src))
            case Alu(op="mov", dst=dst, src=None, imm=imm):
                known[dst] = imm
                callbacks.pop(dst, None)
            case LoadImm(dst=dst):
                to = function_target(insn, at)
                known.pop(dst, None)
                _put(callbacks, dst, None if to is None else index_of.get(to))
            case Alu() | Endian() | Load() | AddrSpaceCast() | PercpuAddr():
                known.pop(insn.dst, None)
                callbacks.pop(insn.dst, None)
            case _:  # rare, or unknown
                known, callbacks = {}, {}
    return found


def _put(values: dict[int, int], register: int, value: int | None) -> None:
    if value is None:
        values.pop(register, None)
    else:
        values[register] = value
