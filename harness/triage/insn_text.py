"""An instruction of a program for people: what it calls and addresses has its name."""

from __future__ import annotations

from harness.isa.disasm import format_insn
from harness.isa.helpers import HELPERS
from harness.isa.insn import Call, LoadImm
from harness.isa.opcodes import LD_IMM64_KINDS, PSEUDO_FUNC
from harness.isa.targets import function_target
from harness.model import Program


def insn_text(program: Program, slot: int) -> str:
    """Return the instruction in *slot* as clang writes assembly: ``call f``, ``r1 = map ll``."""
    insn = program.insns[slot]
    target = function_target(insn, slot)
    name = next((sub.name for sub in program.subprograms if sub.start == target), None)
    match insn:
        case Call(kind="subprog") if name is not None:
            return f"call {name}"
        case Call(kind="helper", imm=imm) if imm in HELPERS:
            return f"call {HELPERS[imm]}#{imm}"
        case Call(kind="kfunc", imm=imm) if imm < len(program.kfuncs):
            return f"call {program.kfuncs[imm]}"
        case LoadImm(dst=dst, src=src) if src == PSEUDO_FUNC and name is not None:
            return f"r{dst} = {name} ll"
        case LoadImm(dst=dst, src=src, imm=imm) if LD_IMM64_KINDS[src].startswith("map_idx"):
            number, offset = imm & 0xFFFFFFFF, imm >> 32
            if number < len(program.maps):
                into = f" + {offset}" if src == 6 and offset else ""
                return f"r{dst} = {program.maps[number].name}{into} ll"
    return format_insn(insn, slot=slot)
