"""Division and modulo by zero and by -1, as instructions that cannot fault.

The patterns are those of ``bpf_do_misc_fixups`` (fixups.c of Linux 7.3.4), instruction by
instruction. They use ``AX``, the kernel's hidden register, which has the number behind the
stack-argument base.
"""

from __future__ import annotations

from harness.isa.insn import PARAMS, Alu, Goto, Insn, Jump

AX = PARAMS + 1  # BPF_REG_AX


_DIVISIONS = ("div", "mod", "sdiv", "smod")


def divided(insn: Insn) -> tuple[Insn, ...] | None:
    """Return what stands for the division *insn*, None: itself."""
    if type(insn) is not Alu or insn.op not in _DIVISIONS:
        return None
    match insn:
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
