"""What the kernel rewrites between verifier and JIT (``bpf_do_misc_fixups``, Linux 7.3.4).

Division and modulo by zero and by -1, and casts between address spaces. The patterns
are the kernel's, instruction by instruction. They use ``AX``, the kernel's hidden
register, which has the number behind the stack-argument base.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness.isa.insn import (
    PARAMS,
    AddrSpaceCast,
    Alu,
    Call,
    Goto,
    Insn,
    Jump,
    LoadImm,
    MayGoto,
)
from harness.model import HarnessError, LineInfo, Program, Subprogram

AX = PARAMS + 1  # BPF_REG_AX

_M32 = (1 << 32) - 1


def fixup(program: Program) -> Program:
    """Return *program* as the JIT gets it: offsets, lines and subprograms moved along.

    *program* need not be verified. Raises HarnessError where a jump no longer reaches.
    """
    patches = [_patch(insn) for insn in program.insns]
    if all(patch is None for patch in patches):
        return program
    places: list[int] = []  # new slot of each old one, and of the end
    total = 0
    for patch in patches:
        places.append(total)
        total += 1 if patch is None else len(patch)
    places.append(total)
    out: list[Insn] = []
    for slot, insn in enumerate(program.insns):
        patch = patches[slot]
        if patch is None:
            out.append(_moved(program, insn, slot, places))
        else:
            out += patch

    def moved(slot: int) -> int:
        return places[slot] if 0 <= slot < len(places) else slot

    return replace(
        program,
        insns=tuple(out),
        subprograms=tuple(_subprogram(sub, moved) for sub in program.subprograms),
        lines=tuple(_line(line, moved) for line in program.lines),
    )


def _subprogram(sub: Subprogram, moved: Callable[[int], int]) -> Subprogram:
    return replace(sub, start=moved(sub.start), end=moved(sub.end))


def _line(line: LineInfo, moved: Callable[[int], int]) -> LineInfo:
    return replace(line, insn=moved(line.insn))


def _moved(program: Program, insn: Insn, slot: int, places: list[int]) -> Insn:
    """Return *insn* with the offset to its target as it is now."""

    def distance(off: int) -> int:
        target = slot + 1 + off
        if not 0 <= target < len(places):
            return off  # leads nowhere, and the verifier says so
        return places[target] - places[slot] - 1

    match insn:
        case Jump(off=off) | MayGoto(off=off) | Goto(off=off):
            new = distance(off)
            short = not (isinstance(insn, Goto) and insn.long)
            if short and not -0x8000 <= new <= 0x7FFF:
                raise HarnessError(
                    f"{program.name}: insn {slot} cannot be patched due to 16-bit range; "
                    "make the function shorter"
                )
            return insn if new == off else replace(insn, off=new)
        case Call(kind="subprog", imm=imm):
            return replace(insn, imm=distance(imm))
        case LoadImm(src=4, imm=imm):
            low = (imm & _M32 ^ 0x80000000) - 0x80000000
            return replace(insn, imm=imm & ~_M32 | distance(low) & _M32)
    return insn


# --- patterns ---------------------------------------------------------------------------


def _patch(insn: Insn) -> tuple[Insn, ...] | None:
    """Return what stands for *insn*, None: itself."""
    match insn:
        case AddrSpaceCast(dst=dst, src=src, imm=1):
            return (Alu("mov", 32, dst, src),)
        case Alu(op="sdiv", bits=bits, dst=dst, src=None, imm=-1):
            return (Alu("neg", bits, dst, None),)
        case Alu(op="smod", dst=dst, src=None, imm=-1):
            return (Alu("mov", 32, dst, None, 0),)
        case Alu(op="sdiv", src=int()):
            return _sdiv(insn)
        case Alu(op="smod", src=int()):
            return _smod(insn)
        case Alu(op="div", bits=bits, dst=dst, src=int(src)):
            return (
                Jump("ne", bits, src, None, 0, 2),
                Alu("xor", 32, dst, dst),
                Goto(1),
                insn,
            )
        case Alu(op="mod", bits=bits, dst=dst, src=int(src)):
            return _mod(insn, bits, dst, src)
    return None


def _sdiv(insn: Alu) -> tuple[Insn, ...]:
    """By 0: 0. By -1: the negative, also of the lowest number."""
    assert insn.src is not None
    bits, dst = insn.bits, insn.dst
    return (
        Alu("mov", 64, AX, insn.src),
        Alu("add", bits, AX, None, 1),
        Jump("gt", bits, AX, None, 1, 4),
        Jump("eq", bits, AX, None, 0, 1),
        Alu("mov", bits, dst, None, 0),
        Alu("neg", bits, dst, None),
        Goto(1),
        insn,
    )


def _smod(insn: Alu) -> tuple[Insn, ...]:
    """By 0: unchanged. By -1: 0."""
    assert insn.src is not None
    bits, dst = insn.bits, insn.dst
    narrow = bits == 32
    tail = (Goto(1), Alu("mov", 32, dst, dst)) if narrow else ()
    return (
        Alu("mov", 64, AX, insn.src),
        Alu("add", bits, AX, None, 1),
        Jump("gt", bits, AX, None, 1, 3),
        Jump("eq", bits, AX, None, 1, 4 if narrow else 3),
        Alu("mov", 32, dst, None, 0),
        Goto(1),
        insn,
        *tail,
    )


def _mod(insn: Alu, bits: int, dst: int, src: int) -> tuple[Insn, ...]:
    """By 0: unchanged, but zero-extended."""
    if bits == 64:
        return (Jump("eq", 64, src, None, 0, 1), insn)
    return (
        Jump("eq", 32, src, None, 0, 2),
        insn,
        Goto(1),
        Alu("mov", 32, dst, dst),
    )
