"""BPF instructions as values: one class for each kind of instruction.

After RFC 9669 and what Linux 7.3 and clang -mcpu=v4 add to it. Registers are
numbers: 0 to 10 as in the RFC, 11 the stack-argument base (``BPF_REG_PARAMS``).
Instructions are indexed by *slot*, the 8-byte unit of the encoding, as the
kernel and every jump offset count: a ``LoadImm`` takes two slots, and the second
one holds ``High``.

A bit pattern that is no instruction, or has a reserved field set, decodes to
``Raw``, which keeps every field, so that decode and encode round-trip any bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)
FP = R10  # frame pointer, read only
PARAMS = 11  # stack-argument base


@dataclass(frozen=True, slots=True)
class Alu:
    """``dst = dst op operand``, or ``dst = operand`` for mov (RFC 9669, 4.1)."""

    op: str  # a key of opcodes.ALU_OPS or SIGNED_ALU_OPS
    bits: int  # 32 or 64
    dst: int
    src: int | None  # register; None: the immediate is the operand (and for neg)
    imm: int = 0  # signed 32-bit, sign-extended to *bits*; 0 with a register
    sx: int = 0  # mov with a register only: 8, 16 or 32 bits of the source are sign-extended


@dataclass(frozen=True, slots=True)
class Endian:
    """Byte order conversion of the low *bits* of *dst* (RFC 9669, 4.2)."""

    op: str  # "le", "be", "bswap"
    bits: int  # 16, 32 or 64
    dst: int


@dataclass(frozen=True, slots=True)
class AddrSpaceCast:
    """Arena address-space cast: mov64 with offset 1."""

    dst: int
    src: int
    imm: int  # destination space << 16 | source space


@dataclass(frozen=True, slots=True)
class PercpuAddr:
    """Per-CPU address resolution: mov64 with offset -1 (kernel-internal)."""

    dst: int
    src: int


@dataclass(frozen=True, slots=True)
class Load:
    """``dst = *(size *)(src + off)`` (LDX MEM, LDX MEMSX)."""

    size: int  # bytes: 1, 2, 4, 8
    dst: int
    src: int
    off: int  # signed 16-bit
    signed: bool = False  # MEMSX


@dataclass(frozen=True, slots=True)
class LoadImm:
    """64-bit immediate load, two slots (RFC 9669, 5.4)."""

    dst: int
    src: int  # 0: a plain value; 1 to 6: the pseudo kinds of opcodes.LD_IMM64_KINDS
    imm: int  # unsigned 64-bit: next_imm << 32 | imm


@dataclass(frozen=True, slots=True)
class High:
    """Second slot of a ``LoadImm``."""


@dataclass(frozen=True, slots=True)
class LoadPacket:
    """Legacy packet access LD ABS and LD IND (RFC 9669, 5.5)."""

    mode: str  # "abs", "ind"
    size: int  # bytes: 1, 2, 4
    src: int  # register for ind, 0 for abs
    imm: int


@dataclass(frozen=True, slots=True)
class Store:
    """``*(size *)(dst + off) = src`` (STX MEM)."""

    size: int  # bytes: 1, 2, 4, 8
    dst: int
    off: int
    src: int


@dataclass(frozen=True, slots=True)
class StoreImm:
    """``*(size *)(dst + off) = imm``, sign-extended (ST MEM)."""

    size: int  # bytes: 1, 2, 4, 8
    dst: int
    off: int
    imm: int


@dataclass(frozen=True, slots=True)
class Atomic:
    """Atomic read-modify-write, and ordered load and store (RFC 9669, 5.3)."""

    op: str  # "add", "or", "and", "xor", "xchg", "cmpxchg", "load_acquire", "store_release"
    size: int  # bytes: 4, 8; load_acquire and store_release also 1, 2
    dst: int  # base of the address; load_acquire: the register loaded
    off: int
    src: int  # operand; load_acquire: base of the address
    fetch: bool = False  # add, or, and, xor: *src* receives the old value; xchg, cmpxchg: True


@dataclass(frozen=True, slots=True)
class Jump:
    """``if dst op operand goto pc + off`` (RFC 9669, 4.3)."""

    op: str  # a key of opcodes.JUMP_OPS: eq gt ge set ne sgt sge lt le slt sle
    bits: int  # 32 or 64
    dst: int
    src: int | None  # register; None: the immediate
    imm: int  # signed 32-bit
    off: int  # slots, from the next instruction


@dataclass(frozen=True, slots=True)
class Goto:
    """``goto pc + off``; *long* is gotol, with a 32-bit offset."""

    off: int
    long: bool = False


@dataclass(frozen=True, slots=True)
class MayGoto:
    """``may_goto pc + off``: the kernel decides when to leave the loop (JCOND)."""

    off: int


@dataclass(frozen=True, slots=True)
class GotoX:
    """``gotox dst``: indirect jump through a jump table (JA with X, Linux 6.19)."""

    dst: int


@dataclass(frozen=True, slots=True)
class Call:
    """``call``: a helper number, a subprogram (relative) or a kfunc (BTF id)."""

    kind: str  # "helper", "subprog", "kfunc"
    imm: int  # helper number; slots from the next instruction; BTF id, or index of Program.kfuncs
    off: int = 0  # kfunc: index of the module's BTF in the fd array


@dataclass(frozen=True, slots=True)
class CallX:
    """``callx dst``: call through a register; encoded as clang does (dst field)."""

    dst: int


@dataclass(frozen=True, slots=True)
class Exit:
    """``exit``."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Eight bytes that are no instruction, field by field."""

    opcode: int
    dst: int
    src: int
    off: int  # signed 16-bit
    imm: int  # signed 32-bit


Insn = (
    Alu
    | Endian
    | AddrSpaceCast
    | PercpuAddr
    | Load
    | LoadImm
    | High
    | LoadPacket
    | Store
    | StoreImm
    | Atomic
    | Jump
    | Goto
    | MayGoto
    | GotoX
    | Call
    | CallX
    | Exit
    | Raw
)


def signed32(value: int) -> int:
    """Return the low 32 bits of *value* as a signed number, as immediates hold it."""
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
