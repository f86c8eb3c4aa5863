"""BPF instructions that mean the same x86-64 bytes in every function.

What depends on the function (frames, jumps, calls, addresses) is in ``x86_64``. Each
instruction is encoded once: instructions are values, and their bytes are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from harness.frames import TAIL_CALL_OPCODE
from harness.isa import opcodes as o
from harness.isa.insn import (
    FP,
    PARAMS,
    AddrSpaceCast,
    Alu,
    Atomic,
    Call,
    CallX,
    Endian,
    Exit,
    Goto,
    GotoX,
    High,
    Insn,
    Jump,
    Load,
    LoadImm,
    LoadPacket,
    MayGoto,
    PercpuAddr,
    Raw,
    Store,
    StoreImm,
)
from harness.isa.stack_args import SLOT_SIZE, incoming_slot, outgoing_slot
from harness.jit import x86_encoder as x

AX = 12  # BPF_REG_AX: the register of the fix-ups
TO_USER = 1 << 16  # AddrSpaceCast: from space 1, the arena's offsets, to space 0

# fmt: off
NATIVE = {
    0: x.RAX, 1: x.RDI, 2: x.RSI, 3: x.RDX, 4: x.RCX, 5: x.R8,
    6: x.RBX, 7: x.R13, 8: x.R14, 9: x.R15, FP: x.RBP, AX: x.R10,
}
CALLEE_SAVED: dict[int | None, int] = {6: 1, 7: 2, 8: 4, 9: 8}  # BPF register: bit
SCRATCH = x.R11  # AUX_REG

# BPF operation: 64-bit and 32-bit forms
ALU_RR = {
    "add": (x.ADD_rr, x.ADD32_rr), "sub": (x.SUB_rr, x.SUB32_rr), "and": (x.AND_rr, x.AND32_rr),
    "or":  (x.OR_rr,  x.OR32_rr),  "xor": (x.XOR_rr, x.XOR32_rr),
}
# one byte of immediate; rax and four bytes; four bytes
ALU_RI = {
    ("add", 64): (x.ADD_ri8,   x.ADD_ai,   x.ADD_ri32),
    ("add", 32): (x.ADD32_ri8, x.ADD32_ai, x.ADD32_ri32),
    ("sub", 64): (x.SUB_ri8,   x.SUB_ai,   x.SUB_ri32),
    ("sub", 32): (x.SUB32_ri8, x.SUB32_ai, x.SUB32_ri32),
    ("and", 64): (x.AND_ri8,   x.AND_ai,   x.AND_ri32),
    ("and", 32): (x.AND32_ri8, x.AND32_ai, x.AND32_ri32),
    ("or",  64): (x.OR_ri8,    x.OR_ai,    x.OR_ri32),
    ("or",  32): (x.OR32_ri8,  x.OR32_ai,  x.OR32_ri32),
    ("xor", 64): (x.XOR_ri8,   x.XOR_ai,   x.XOR_ri32),
    ("xor", 32): (x.XOR32_ri8, x.XOR32_ai, x.XOR32_ri32),
}
# by one; by an immediate; by cl; by any register (BMI2)
SHIFTS = {
    ("lsh",  64): (x.SHL_r1,   x.SHL_ri8,   x.SHL_rc,   x.SHLX_rrr),
    ("lsh",  32): (x.SHL32_r1, x.SHL32_ri8, x.SHL32_rc, x.SHLX32_rrr),
    ("rsh",  64): (x.SHR_r1,   x.SHR_ri8,   x.SHR_rc,   x.SHRX_rrr),
    ("rsh",  32): (x.SHR32_r1, x.SHR32_ri8, x.SHR32_rc, x.SHRX32_rrr),
    ("arsh", 64): (x.SAR_r1,   x.SAR_ri8,   x.SAR_rc,   x.SARX_rrr),
    ("arsh", 32): (x.SAR32_r1, x.SAR32_ri8, x.SAR32_rc, x.SARX32_rrr),
}
SIGN_EXTENDED = {  # mov: source bits, destination bits
    (8, 64): x.MOVSX8_rr,   (16, 64): x.MOVSX16_rr, (32, 64): x.MOVSX32_rr,
    (8, 32): x.MOV32SX8_rr, (16, 32): x.MOV32SX16_rr,
}
LOADS = {1: x.MOVZX8_rm, 2: x.MOVZX16_rm, 4: x.MOV32_rm, 8: x.MOV_rm}
SIGNED_LOADS = {1: x.MOVSX8_rm, 2: x.MOVSX16_rm, 4: x.MOVSX32_rm}
STORES = {1: x.MOV8_mr, 2: x.MOV16_mr, 4: x.MOV32_mr, 8: x.MOV_mr}
IMM_STORES = {1: x.MOV8_mi, 2: x.MOV16_mi, 4: x.MOV32_mi, 8: x.MOV_mi}
ATOMICS = {  # operation, fetch, bytes
    ("add", False, 8): x.LOCK_ADD_mr,  ("add", False, 4): x.LOCK_ADD32_mr,
    ("or",  False, 8): x.LOCK_OR_mr,   ("or",  False, 4): x.LOCK_OR32_mr,
    ("and", False, 8): x.LOCK_AND_mr,  ("and", False, 4): x.LOCK_AND32_mr,
    ("xor", False, 8): x.LOCK_XOR_mr,  ("xor", False, 4): x.LOCK_XOR32_mr,
    ("add", True, 8):  x.LOCK_XADD_mr, ("add", True, 4):  x.LOCK_XADD32_mr,
    ("xchg", True, 8): x.XCHG_mr,      ("xchg", True, 4): x.XCHG32_mr,
    ("cmpxchg", True, 8): x.LOCK_CMPXCHG_mr, ("cmpxchg", True, 4): x.LOCK_CMPXCHG32_mr,
}

# The same in the arena, whose base is r12
ARENA_LOADS = {1: x.MOV32ZX8_rx, 2: x.MOV32ZX16_rx, 4: x.MOV32_rx, 8: x.MOV_rx}
ARENA_SIGNED_LOADS = {1: x.MOVSX8_rx, 2: x.MOVSX16_rx, 4: x.MOVSX32_rx}
ARENA_STORES = {1: x.MOV8_xr, 2: x.MOV16_xr, 4: x.MOV32_xr, 8: x.MOV_xr}
ARENA_IMM_STORES = {1: x.MOV8_xi, 2: x.MOV16_xi, 4: x.MOV32_xi, 8: x.MOV_xi}
ARENA_ATOMICS = {  # immediate, bytes
    (0x00, 8): x.LOCK_ADD_xr,     (0x00, 4): x.LOCK_ADD32_xr,
    (0x40, 8): x.LOCK_OR_xr,      (0x40, 4): x.LOCK_OR32_xr,
    (0x50, 8): x.LOCK_AND_xr,     (0x50, 4): x.LOCK_AND32_xr,
    (0xA0, 8): x.LOCK_XOR_xr,     (0xA0, 4): x.LOCK_XOR32_xr,
    (0x01, 8): x.LOCK_XADD_xr,    (0x01, 4): x.LOCK_XADD32_xr,
    (o.XCHG, 8): x.XCHG_xr,       (o.XCHG, 4): x.XCHG32_xr,
    (o.CMPXCHG, 8): x.LOCK_CMPXCHG_xr, (o.CMPXCHG, 4): x.LOCK_CMPXCHG32_xr,
}

# The kernel's internal forms                   include/linux/filter.h
PROBE_MEM, PROBE_MEMSX = 0x20, 0x40             # loads from what may be no kernel address
PROBE_MEM32, PROBE_MEM32SX, PROBE_ATOMIC = 0xA0, 0xC0, 0xE0  # arena accesses
NOSPEC_OPCODE = o.ST | 0xC0
ZEXT_OPCODE = o.ALU | o.ALU_OPS["mov"] | o.X    # with 1 in the immediate
VSYSCALL = -10 << 20                            # VSYSCALL_ADDR
# fmt: on

BYTES_OF = {field: size for size, field in o.SIZES.items()}


class UnsupportedError(Exception):
    """This program has something that the JIT does not do; the message says what."""


Code = tuple[bytes, int, bool]  # bytes so far, callee-saved registers used, more to do


@dataclass(frozen=True, slots=True)
class Target:
    """What one instruction's bytes depend on besides the instruction."""

    bmi2: bool
    la57: bool
    fp: int  # the native register that is r10: rbp, or r9 with a private stack
    arena: bool  # the program has an arena: r12 is its base


class Bytes(dict[Insn, Code]):
    """Bytes of instructions, each encoded once: instructions are values."""

    LIMIT = 1 << 16  # forget everything beyond, programs with many constants must not fill memory

    def __init__(self, target: Target) -> None:
        self.target = target

    def __missing__(self, insn: Insn) -> Code:
        if len(self) >= self.LIMIT:
            self.clear()
        code = encode(insn, self.target)
        self[insn] = found = (code or b"", _used(insn), code is None or type(insn) is Jump)
        return found


@cache
def bytes_for(target: Target) -> Bytes:
    """Return what is known for *target*, the same for all programs."""
    return Bytes(target)


def _used(insn: Insn) -> int:
    """Return the callee-saved registers in the fields of *insn* (``detect_reg_usage``)."""
    used = CALLEE_SAVED.get(getattr(insn, "dst", None), 0)
    if type(insn) is LoadImm:  # its source field is a kind, which the verifier has resolved
        return used
    return used | CALLEE_SAVED.get(getattr(insn, "src", None), 0)


def encode(insn: Insn, target: Target) -> bytes | None:
    """Return the bytes of *insn*, of a ``Jump`` only its comparison.

    None where the bytes depend on the function or on other instructions.
    """

    def native(register: int) -> int:
        if register == FP:
            return target.fp
        if register not in NATIVE:
            raise UnsupportedError(f"R{register} is invalid")
        return NATIVE[register]

    match insn:
        case Alu(op=op, bits=bits, dst=dst, src=src, imm=imm, sx=sx):
            return _alu(
                op, bits, native(dst), None if src is None else native(src), imm, sx, target
            )
        case Endian(op=op, bits=bits, dst=dst):
            return _endian(op, bits, native(dst))
        case Load(size=size, dst=dst, src=src, off=off, signed=signed):
            if src == PARAMS:
                if incoming_slot(insn) is None:
                    raise UnsupportedError("R11 is invalid")
                if off == SLOT_SIZE:
                    return x.MOV_rr(native(dst), x.R9)
                return x.MOV_rm(native(dst), x.RBP, off)
            return (SIGNED_LOADS if signed else LOADS)[size](native(dst), native(src), off)
        case Store(dst=dst, src=src, off=off, size=size):
            if dst == PARAMS:
                value = native(src)
                return x.MOV_rr(x.R9, value) if slot_of(insn) == 1 else None
            return STORES[size](native(dst), off, native(src))
        case StoreImm(dst=dst, off=off, imm=imm, size=size):
            if dst == PARAMS:
                return mov_imm64(x.R9, imm & (1 << 64) - 1) if slot_of(insn) == 1 else None
            return IMM_STORES[size](native(dst), off, imm)
        case Atomic():
            return _atomic(insn, native)
        case Jump(op=op, bits=bits, dst=dst, src=src, imm=imm):
            return _compare(op, bits == 64, native(dst), None if src is None else native(src), imm)
        case LoadImm(dst=dst, src=0, imm=imm):
            return mov_imm64(native(dst), imm)
        case High():
            return b""
        case Raw():
            return _internal(insn, native, target)
        case LoadImm(dst=dst):
            native(dst)
            return None
        case PercpuAddr(dst=dst, src=src):
            native(dst), native(src)
            return None
        case Goto() | Exit() | Call():
            return None
        case MayGoto():
            raise UnsupportedError("may_goto: the verifier's fix-ups rewrite it before the JIT")
        case AddrSpaceCast(dst=dst, src=src, imm=imm) if imm == TO_USER and target.arena:
            native(dst), native(src)
            return None
        case AddrSpaceCast():
            raise UnsupportedError("address-space cast without an arena")
        case LoadPacket():
            raise UnsupportedError("packet load: the verifier's fix-ups rewrite it before the JIT")
        case GotoX(dst=dst):
            return x.JMP_r(native(dst)) + x.INT3
        case CallX():
            raise UnsupportedError("callx: Linux does not know it")


def slot_of(insn: Store | StoreImm) -> int:
    """Return the outgoing slot that a store through r11 writes."""
    slot = outgoing_slot(insn)
    if slot is None:
        raise UnsupportedError("R11 is invalid")
    return slot


def _mov_imm32(dst: int, imm: int, signed: bool) -> bytes:
    """Load *imm* (``emit_mov_imm32``): to 64 bits if *signed*, else its low 32 bits."""
    if signed and imm < 0:
        return x.MOV_ri32(dst, imm)
    if imm == 0:
        return x.XOR32_rr(dst, dst)
    return x.MOV32_ri32(dst, imm & 0xFFFFFFFF)


def mov_imm64(dst: int, imm: int) -> bytes:
    """Load the unsigned 64-bit *imm* in the shortest way (``emitmov_imm64``)."""
    if imm >> 32 == 0:
        return _mov_imm32(dst, imm, signed=False)
    if imm >> 31 == (1 << 33) - 1:
        return x.MOV_ri32(dst, imm - (1 << 64))
    return x.MOV_ri64(dst, imm)


def mov(dst: int, src: int) -> bytes:
    """64-bit move, nothing to itself (``EMIT_mov``)."""
    return x.MOV_rr(dst, src) if dst != src else b""


def _alu(op: str, bits: int, dst: int, src: int | None, imm: int, sx: int, target: Target) -> bytes:
    wide = bits == 64
    match op:
        case "mov" if src is None:
            return _mov_imm32(dst, imm, signed=wide)
        case "mov" if src is not None and sx:
            return SIGN_EXTENDED[sx, bits](dst, src)
        case "mov" if src is not None:
            return mov(dst, src) if wide else x.MOV32_rr(dst, src)
        case "neg":
            return (x.NEG_r if wide else x.NEG32_r)(dst)
        case "add" | "sub" | "and" | "or" | "xor":
            if src is not None:
                return ALU_RR[op][0 if wide else 1](dst, src)
            short, accumulator, long = ALU_RI[op, bits]
            if x.fits8(imm):
                return short(dst, imm)
            return accumulator(imm) if dst == x.RAX else long(dst, imm)
        case "mul":
            if src is not None:
                return (x.IMUL_rr if wide else x.IMUL32_rr)(dst, src)
            if x.fits8(imm):
                return (x.IMUL_rri8 if wide else x.IMUL32_rri8)(dst, dst, imm)
            return (x.IMUL_rri32 if wide else x.IMUL32_rri32)(dst, dst, imm)
        case "lsh" | "rsh" | "arsh":
            return _shift(op, bits, dst, src, imm, target)
        case "div" | "mod" | "sdiv" | "smod":
            return _divide(op, wide, dst, src, imm)
    raise UnsupportedError(f"JIT does not model {op}")


def _shift(op: str, bits: int, dst: int, src: int | None, imm: int, target: Target) -> bytes:
    by_one, by_imm, by_cl, by_any = SHIFTS[op, bits]
    if src is None:
        return by_one(dst) if imm == 1 else by_imm(dst, imm & 0xFF)
    if src == x.RCX:
        return by_cl(dst)
    if target.bmi2:
        return by_any(dst, dst, src)
    if dst == x.RCX:
        return mov(SCRATCH, dst) + mov(x.RCX, src) + by_cl(SCRATCH) + mov(dst, SCRATCH)
    return x.PUSH_r(x.RCX) + mov(x.RCX, src) + by_cl(dst) + x.POP_r(x.RCX)


def _divide(op: str, wide: bool, dst: int, src: int | None, imm: int) -> bytes:
    """Divide rdx:rax, which are kept unless one of them is the destination."""
    move = mov if wide else x.MOV32_rr
    code = b""
    if dst != x.RAX:
        code += x.PUSH_r(x.RAX)
    if dst != x.RDX:
        code += x.PUSH_r(x.RDX)
    if src is None:
        code += x.MOV_ri32(SCRATCH, imm)
        src = SCRATCH
    elif src in (x.RAX, x.RDX):
        code += x.MOV_rr(SCRATCH, src)
        src = SCRATCH
    if dst != x.RAX:
        code += move(x.RAX, dst)
    if op in ("div", "mod"):
        code += x.XOR32_rr(x.RDX, x.RDX) + (x.DIV_r if wide else x.DIV32_r)(src)
    else:
        code += x.CQO if wide else x.CDQ
        code += (x.IDIV_r if wide else x.IDIV32_r)(src)
    result = x.RDX if op in ("mod", "smod") else x.RAX
    if dst != result:
        code += move(dst, result)
    if dst != x.RDX:
        code += x.POP_r(x.RDX)
    if dst != x.RAX:
        code += x.POP_r(x.RAX)
    return code


def _endian(op: str, bits: int, dst: int) -> bytes:
    if op == "le":
        if bits == 16:
            return x.MOV32ZX16_rr(dst, dst)
        return x.MOV32_rr(dst, dst) if bits == 32 else b""
    if bits == 16:
        return x.ROR16_ri8(dst, 8) + x.MOV32ZX16_rr(dst, dst)
    return (x.BSWAP32_r if bits == 32 else x.BSWAP_r)(dst)


def _compare(op: str, wide: bool, dst: int, src: int | None, imm: int) -> bytes:
    if src is not None:
        if op == "set":
            return (x.TEST_rr if wide else x.TEST32_rr)(dst, src)
        return (x.CMP_rr if wide else x.CMP32_rr)(dst, src)
    if op == "set":
        return (x.TEST_ri32 if wide else x.TEST32_ri32)(dst, imm)
    if imm == 0:
        return (x.TEST_rr if wide else x.TEST32_rr)(dst, dst)
    if x.fits8(imm):
        return (x.CMP_ri8 if wide else x.CMP32_ri8)(dst, imm)
    return (x.CMP_ri32 if wide else x.CMP32_ri32)(dst, imm)


def _atomic(insn: Atomic, native: Callable[[int], int]) -> bytes:
    base, src, off, size = native(insn.dst), native(insn.src), insn.off, insn.size
    if insn.op == "load_acquire":
        return LOADS[size](base, src, off)
    if insn.op == "store_release":
        return STORES[size](base, off, src)
    if size < 4:
        raise UnsupportedError("1- and 2-byte RMW atomics are not supported")
    if insn.op in ("and", "or", "xor") and insn.fetch:
        return _fetch_loop(insn.op, size, base, off, src)
    return ATOMICS[insn.op, insn.fetch, size](base, off, src)


def _fetch_loop(op: str, size: int, base: int, off: int, src: int) -> bytes:
    """No instruction fetches and does *op*: repeat a compare-and-exchange; r10 keeps rax."""
    wide = size == 8
    move = mov if wide else x.MOV32_rr
    base = x.R10 if base == x.RAX else base
    src = x.R10 if src == x.RAX else src
    loop = LOADS[size](x.RAX, base, off) + move(SCRATCH, x.RAX)
    loop += ALU_RR[op][0 if wide else 1](SCRATCH, src)
    loop += ATOMICS["cmpxchg", True, size](base, off, SCRATCH)
    loop += x.JCC_i8(x.NE, -len(loop) - 2)
    return x.MOV_rr(x.R10, x.RAX) + loop + move(src, x.RAX) + x.MOV_rr(x.RAX, x.R10)


def _internal(insn: Raw, native: Callable[[int], int], target: Target) -> bytes | None:
    """Return the bytes of an instruction that only the kernel itself may write."""
    opcode, size = insn.opcode, BYTES_OF[insn.opcode & 0x18]
    if opcode == ZEXT_OPCODE and insn.imm == 1 and not insn.off:
        return x.MOV32_rr(native(insn.dst), native(insn.src))
    if opcode == NOSPEC_OPCODE:
        return x.LFENCE
    if opcode == TAIL_CALL_OPCODE:
        return None
    mode, sign_extends = opcode & 0xE0, size < 8
    match opcode & 7:
        case o.LDX if mode == PROBE_MEM or (mode == PROBE_MEMSX and sign_extends):
            dst, src = native(insn.dst), native(insn.src)
            return _probe(size, mode == PROBE_MEMSX, dst, src, insn.off, target)
        case o.LDX if mode == PROBE_MEM32 and target.arena:
            return ARENA_LOADS[size](native(insn.dst), native(insn.src), x.R12, insn.off)
        case o.LDX if mode == PROBE_MEM32SX and sign_extends and target.arena:
            return ARENA_SIGNED_LOADS[size](native(insn.dst), native(insn.src), x.R12, insn.off)
        case o.STX if mode == PROBE_MEM32 and target.arena:
            return ARENA_STORES[size](native(insn.dst), x.R12, insn.off, native(insn.src))
        case o.ST if mode == PROBE_MEM32 and target.arena:
            return ARENA_IMM_STORES[size](native(insn.dst), x.R12, insn.off, insn.imm)
        case o.STX if mode == PROBE_ATOMIC and target.arena:
            dst, src = native(insn.dst), native(insn.src)
            if insn.imm == o.LOAD_ACQUIRE:
                return ARENA_LOADS[size](dst, src, x.R12, insn.off)
            if insn.imm == o.STORE_RELEASE:
                return ARENA_STORES[size](dst, x.R12, insn.off, src)
            if (insn.imm, size) in ARENA_ATOMICS:
                return ARENA_ATOMICS[insn.imm, size](dst, x.R12, insn.off, src)
            raise UnsupportedError(f"unknown atomic opcode {insn.imm & 0xFFFFFFFF:02x}")
    raise UnsupportedError(f"unknown opcode {opcode:02x}")


def _probe(size: int, signed: bool, dst: int, src: int, off: int, target: Target) -> bytes:
    """Load from what may be no kernel address: zero instead of a fault on a user address."""
    user_top = 1 << (56 if target.la57 else 47)  # TASK_SIZE_MAX + PAGE_SIZE
    limit = user_top - VSYSCALL
    load = (SIGNED_LOADS if signed else LOADS)[size](dst, src, off)
    zero = x.XOR32_rr(dst, dst) + x.JMP_i8(len(load))
    code = mov_imm64(x.R10, VSYSCALL & (1 << 64) - 1) + mov(SCRATCH, src)
    if off:
        code += x.ADD_ri32(SCRATCH, off)
    code += x.SUB_rr(SCRATCH, x.R10) + mov_imm64(x.R10, limit) + x.CMP_rr(SCRATCH, x.R10)
    return code + x.JCC_i8(x.A, len(zero)) + zero + load
