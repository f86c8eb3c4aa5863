"""From a fixed-up program to x86-64 code, byte for byte as Linux 7.3's JIT makes it.

Registers (Linux ``reg2hex``): r0 rax, r1 to r5 rdi rsi rdx rcx r8, r6 to r9 rbx r13
r14 r15, r10 rbp; r10 and r11 of x86 are scratch. Stack arguments follow the System V
convention: argument 6 in r9, later ones on the stack, where the caller writes them
and the callee reads them (isa.stack_args).

The input is what the verifier's fix-ups leave: plain divisions, may_goto rewritten.
Register 12 is Linux's auxiliary register, which only fix-ups use (x86 r10), and the
kernel's internal instructions arrive as ``Raw`` with the kernel's own opcodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate

from harness.isa import opcodes as o
from harness.isa.insn import (
    FP,
    PARAMS,
    AddrSpaceCast,
    Alu,
    Atomic,
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
    Raw,
    Store,
    StoreImm,
)
from harness.isa.stack_args import MAX_SLOTS, REG_ARGS, SLOT_SIZE, incoming_slot, outgoing_slot
from harness.jit import x86_encoder as x
from harness.jit.frames import infer, is_tail_call
from harness.jit.x86_jumps import BACK_TO_SELF, CONDITIONAL, GOTO, LEAVE, Branch, settle
from harness.model import Frame, HarnessError, Image, Program, Relocation, SubImage, Unknown

AX = 12  # BPF_REG_AX: the register of the fix-ups
PROLOGUE = -1  # in place of a slot
ARENA_MAP = 33  # BPF_MAP_TYPE_ARENA
TO_USER = 1 << 16  # AddrSpaceCast: from space 1, the arena's offsets, to space 0

# fmt: off
NATIVE = {
    0: x.RAX, 1: x.RDI, 2: x.RSI, 3: x.RDX, 4: x.RCX, 5: x.R8,
    6: x.RBX, 7: x.R13, 8: x.R14, 9: x.R15, FP: x.RBP, AX: x.R10,
}
CALLEE_SAVED = {6: 1, 7: 2, 8: 4, 9: 8}  # BPF register: bit
SAVED_ORDER = ((1, x.RBX), (2, x.R13), (4, x.R14), (8, x.R15))
ALL_SAVED = 15
SCRATCH = x.R11  # AUX_REG

CONDITIONS = {
    "eq": x.E, "ne": x.NE, "set": x.NE, "gt": x.A, "lt": x.B, "ge": x.AE, "le": x.BE,
    "sgt": x.G, "slt": x.L, "sge": x.GE, "sle": x.LE,
}

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
TAIL_CALL_OPCODE = o.JMP | 0xF0
VSYSCALL = -10 << 20                            # VSYSCALL_ADDR
MAX_TAIL_CALLS = 33                             # MAX_TAIL_CALL_CNT
MAP_MAX_ENTRIES, PROG_BPF_FUNC = 68, 72         # byte offsets in struct bpf_map, struct bpf_prog
# fmt: on

BYTES_OF = {field: size for size, field in o.SIZES.items()}


@dataclass(frozen=True, slots=True)
class Options:
    """What Linux takes from its configuration and from the processor.

    The defaults are a stock Debian kernel started with ``mitigations=off``.
    """

    ibt: bool = True  # CONFIG_X86_KERNEL_IBT: endbr64 where an indirect branch may land
    ftrace: bool = True  # five bytes of no-operation at the entry, for trampolines
    rethunk: bool = False  # return through x86_return_thunk
    sls: bool = True  # CONFIG_MITIGATION_SLS: int3 after ret
    bmi2: bool = True  # the processor has shlx, shrx, sarx
    la57: bool = False  # the processor has five-level page tables
    stack_args: bool = True  # bpf_jit_supports_stack_args()
    array_ptrs: int = 296  # byte offset of ptrs in struct bpf_array, which depends on the kernel


class _UnsupportedError(Exception):
    """This program has something that the JIT does not do; the message says what."""


def compile(program: Program, options: Options = Options()) -> Image | Unknown:  # noqa: A001
    """Return the native code of *program*, which the fix-ups have been through.

    ``Unknown`` says what the JIT does not support; the words are Linux's where it has any.
    """
    frames = program.frames or infer(program)
    if len(frames) != len(program.subprograms):
        raise HarnessError(
            f"{program.name}: {len(frames)} frames for {len(program.subprograms)} subprograms:"
            " give one for each, or none"
        )
    names = unique_names(program)
    try:
        return Image(
            "x86_64",
            tuple(
                _Function(program, index, frame, options, names).image()
                for index, frame in enumerate(frames)
            ),
        )
    except _UnsupportedError as error:
        return Unknown(str(error))


def unique_names(program: Program) -> dict[int, str]:
    """Return a name for each subprogram by its first slot; a second of one name gets its slot."""
    names: dict[int, str] = {}
    for sub in program.subprograms:
        taken = sub.name in names.values()
        names[sub.start] = f"{sub.name}@{sub.start}" if taken else sub.name
    return names


# --- instructions that mean the same bytes in every function ----------------

_Code = tuple[bytes, int, bool]  # bytes so far, callee-saved registers used, more to do


@dataclass(frozen=True, slots=True)
class _Target:
    """What one instruction's bytes depend on besides the instruction."""

    bmi2: bool
    la57: bool
    fp: int  # the native register that is r10: rbp, or r9 with a private stack
    arena: bool  # the program has an arena: r12 is its base


class _Bytes(dict[Insn, _Code]):
    """Bytes of instructions, each encoded once: instructions are values."""

    LIMIT = 1 << 17  # forget everything beyond, programs with many constants must not fill memory

    def __init__(self, target: _Target) -> None:
        self.target = target

    def __missing__(self, insn: Insn) -> _Code:
        if len(self) >= self.LIMIT:
            self.clear()
        code = encode(insn, self.target)
        used = 0
        for register in _registers(insn):
            used |= CALLEE_SAVED.get(register, 0)
        self[insn] = found = (code or b"", used, code is None or isinstance(insn, Jump))
        return found


@cache
def _bytes_for(target: _Target) -> _Bytes:
    return _Bytes(target)


def _registers(insn: Insn) -> tuple[int, ...]:
    """Return the register fields of *insn* (``detect_reg_usage``)."""
    match insn:
        case LoadImm(dst=dst):  # its source field is a kind, which the verifier has resolved
            return (dst,)
    found = (getattr(insn, "dst", None), getattr(insn, "src", None))
    return tuple(register for register in found if register is not None)


def encode(insn: Insn, target: _Target) -> bytes | None:
    """Return the bytes of *insn*, of a ``Jump`` only its comparison.

    None where the bytes depend on the function or on other instructions.
    """

    def native(register: int) -> int:
        if register == FP:
            return target.fp
        if register not in NATIVE:
            raise _UnsupportedError(f"R{register} is invalid")
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
                    raise _UnsupportedError("R11 is invalid")
                if off == SLOT_SIZE:
                    return x.MOV_rr(native(dst), x.R9)
                return x.MOV_rm(native(dst), x.RBP, off)
            return (SIGNED_LOADS if signed else LOADS)[size](native(dst), native(src), off)
        case Store(dst=dst, src=src, off=off, size=size):
            if dst == PARAMS:
                value = native(src)
                return x.MOV_rr(x.R9, value) if _slot(insn) == 1 else None
            return STORES[size](native(dst), off, native(src))
        case StoreImm(dst=dst, off=off, imm=imm, size=size):
            if dst == PARAMS:
                return _mov_imm64(x.R9, imm & (1 << 64) - 1) if _slot(insn) == 1 else None
            return IMM_STORES[size](native(dst), off, imm)
        case Atomic():
            return _atomic(insn, native)
        case Jump(op=op, bits=bits, dst=dst, src=src, imm=imm):
            return _compare(op, bits == 64, native(dst), None if src is None else native(src), imm)
        case LoadImm(dst=dst, src=0, imm=imm):
            return _mov_imm64(native(dst), imm)
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
            raise _UnsupportedError("may_goto: the verifier's fix-ups rewrite it before the JIT")
        case AddrSpaceCast(dst=dst, src=src, imm=imm) if imm == TO_USER and target.arena:
            native(dst), native(src)
            return None
        case AddrSpaceCast():
            raise _UnsupportedError("address-space cast without an arena")
    raise _UnsupportedError(f"JIT does not model {type(insn).__name__}")


def _slot(insn: Store | StoreImm) -> int:
    slot = outgoing_slot(insn)
    if slot is None:
        raise _UnsupportedError("R11 is invalid")
    return slot


def _mov_imm32(dst: int, imm: int, signed: bool) -> bytes:
    """Load *imm* (``emit_mov_imm32``): to 64 bits if *signed*, else its low 32 bits."""
    if signed and imm < 0:
        return x.MOV_ri32(dst, imm)
    if imm == 0:
        return x.XOR32_rr(dst, dst)
    return x.MOV32_ri32(dst, imm & 0xFFFFFFFF)


def _mov_imm64(dst: int, imm: int) -> bytes:
    """Load the unsigned 64-bit *imm* in the shortest way (``emit_mov_imm64``)."""
    if imm >> 32 == 0:
        return _mov_imm32(dst, imm, signed=False)
    if imm >> 31 == (1 << 33) - 1:
        return x.MOV_ri32(dst, imm - (1 << 64))
    return x.MOV_ri64(dst, imm)


def _mov(dst: int, src: int) -> bytes:
    """64-bit move, nothing to itself (``EMIT_mov``)."""
    return x.MOV_rr(dst, src) if dst != src else b""


def _alu(
    op: str, bits: int, dst: int, src: int | None, imm: int, sx: int, target: _Target
) -> bytes:
    wide = bits == 64
    match op:
        case "mov" if src is None:
            return _mov_imm32(dst, imm, signed=wide)
        case "mov" if src is not None and sx:
            return SIGN_EXTENDED[sx, bits](dst, src)
        case "mov" if src is not None:
            return _mov(dst, src) if wide else x.MOV32_rr(dst, src)
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
    raise _UnsupportedError(f"JIT does not model {op}")


def _shift(op: str, bits: int, dst: int, src: int | None, imm: int, target: _Target) -> bytes:
    by_one, by_imm, by_cl, by_any = SHIFTS[op, bits]
    if src is None:
        return by_one(dst) if imm == 1 else by_imm(dst, imm & 0xFF)
    if src == x.RCX:
        return by_cl(dst)
    if target.bmi2:
        return by_any(dst, dst, src)
    if dst == x.RCX:
        return _mov(SCRATCH, dst) + _mov(x.RCX, src) + by_cl(SCRATCH) + _mov(dst, SCRATCH)
    return x.PUSH_r(x.RCX) + _mov(x.RCX, src) + by_cl(dst) + x.POP_r(x.RCX)


def _divide(op: str, wide: bool, dst: int, src: int | None, imm: int) -> bytes:
    """Divide rdx:rax, which are kept unless one of them is the destination."""
    move = _mov if wide else x.MOV32_rr
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
        raise _UnsupportedError("1- and 2-byte RMW atomics are not supported")
    if insn.op in ("and", "or", "xor") and insn.fetch:
        return _fetch_loop(insn.op, size, base, off, src)
    return ATOMICS[insn.op, insn.fetch, size](base, off, src)


def _fetch_loop(op: str, size: int, base: int, off: int, src: int) -> bytes:
    """No instruction fetches and does *op*: repeat a compare-and-exchange; r10 keeps rax."""
    wide = size == 8
    move = _mov if wide else x.MOV32_rr
    base = x.R10 if base == x.RAX else base
    src = x.R10 if src == x.RAX else src
    loop = LOADS[size](x.RAX, base, off) + move(SCRATCH, x.RAX)
    loop += ALU_RR[op][0 if wide else 1](SCRATCH, src)
    loop += ATOMICS["cmpxchg", True, size](base, off, SCRATCH)
    loop += x.JCC_i8(x.NE, -len(loop) - 2)
    return x.MOV_rr(x.R10, x.RAX) + loop + move(src, x.RAX) + x.MOV_rr(x.RAX, x.R10)


def _internal(insn: Raw, native: Callable[[int], int], target: _Target) -> bytes | None:
    """Return the bytes of an instruction that only the kernel itself may write."""
    opcode, size = insn.opcode, BYTES_OF[insn.opcode & 0x18]
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
            raise _UnsupportedError(f"unknown atomic opcode {insn.imm & 0xFFFFFFFF:02x}")
    raise _UnsupportedError(f"unknown opcode {opcode:02x}")


def _probe(size: int, signed: bool, dst: int, src: int, off: int, target: _Target) -> bytes:
    """Load from what may be no kernel address: zero instead of a fault on a user address."""
    user_top = 1 << (56 if target.la57 else 47)  # TASK_SIZE_MAX + PAGE_SIZE
    limit = user_top - VSYSCALL
    load = (SIGNED_LOADS if signed else LOADS)[size](dst, src, off)
    zero = x.XOR32_rr(dst, dst) + x.JMP_i8(len(load))
    code = _mov_imm64(x.R10, VSYSCALL & (1 << 64) - 1) + _mov(SCRATCH, src)
    if off:
        code += x.ADD_ri32(SCRATCH, off)
    code += x.SUB_rr(SCRATCH, x.R10) + _mov_imm64(x.R10, limit) + x.CMP_rr(SCRATCH, x.R10)
    return code + x.JCC_i8(x.A, len(zero)) + zero + load


# --- one function ------------------------------------------------------------


class _Function:
    """One subprogram on its way to code (``do_jit``)."""

    def __init__(
        self,
        program: Program,
        index: int,
        frame: Frame,
        options: Options,
        names: dict[int, str],
    ) -> None:
        sub = program.subprograms[index]
        self.program, self.index, self.frame, self.options = program, index, frame, options
        self.names = names
        self.start = sub.start
        self.insns: Sequence[Insn] = program.insns[sub.start : sub.end]
        self.fields: list[tuple[int, Relocation]] = []  # slot, relocation from the slot's start
        fp = x.R9 if frame.private_stack else x.RBP
        self.arena = any(bpf_map.type == ARENA_MAP for bpf_map in program.maps)
        self.known = _bytes_for(_Target(options.bmi2, options.la57, fp, self.arena))
        depth = 0 if frame.private_stack else frame.stack_depth
        self.depth = (depth + 7) & -8

    def image(self) -> SubImage:
        """Return the code, with the jumps as short as Linux gets them."""
        known = self.known
        found = [known[insn] for insn in self.insns]
        codes = [code for code, _, _ in found]
        late = [slot for slot, (_, _, more) in enumerate(found) if more]
        self.used = 0
        for used in {used for _, used, _ in found}:
            self.used |= used
        if self.frame.exception_boundary:
            self.used = ALL_SAVED
        self._measure(late)
        prologue = self._prologue()
        branches = self._finish(codes, late)
        starts = list(accumulate(map(len, codes), initial=len(prologue)))
        placed = settle(starts, branches)
        if placed is None:
            raise _UnsupportedError(f"{self.names[self.start]}: jumps do not settle")
        for branch, place in zip(branches, placed, strict=True):
            jump = self._jump(branch, place.distance, place.size - place.padding)
            codes[branch.slot] += x.NOPS[place.padding] + jump
        starts = list(accumulate(map(len, codes), initial=len(prologue)))
        code = prologue + b"".join(codes)
        relocations = tuple(
            replace(field, offset=field.offset + (0 if slot == PROLOGUE else starts[slot]))
            for slot, field in self.fields
        )
        return SubImage(self.names[self.start], code, tuple(starts[:-1]), relocations)

    def _measure(self, late: Sequence[int]) -> None:
        """Find the size of the area for outgoing arguments 7 and later, and where it is."""
        slots = 0
        for slot in late:
            insn = self.insns[slot]
            if isinstance(insn, Store | StoreImm):
                slots = max(slots, _slot(insn))
        if slots > MAX_SLOTS or (slots and not self.options.stack_args):
            raise _UnsupportedError(
                f"JIT does not support function {self.names[self.start]}()"
                f" with {REG_ARGS + slots} args"
            )
        self.outgoing = SLOT_SIZE * (slots - 1) if slots > 1 else 0
        saved = SLOT_SIZE * (self.used.bit_count() + self._keeps_r12)
        self.bottom = -(self.depth + saved + self.outgoing)  # rsp, from rbp

    @property
    def _keeps_r12(self) -> bool:
        return self.frame.exception_boundary or self.arena

    def _pushes(self) -> bytes:
        code = x.PUSH_r(x.R12) if self._keeps_r12 else b""
        return code + b"".join(x.PUSH_r(reg) for bit, reg in SAVED_ORDER if self.used & bit)

    def _pops(self) -> bytes:
        code = b"".join(x.POP_r(reg) for bit, reg in reversed(SAVED_ORDER) if self.used & bit)
        return code + (x.POP_r(x.R12) if self._keeps_r12 else b"")

    def _endbr(self) -> bytes:
        return x.ENDBR64 if self.options.ibt else b""

    def _prologue(self) -> bytes:
        frame, main = self.frame, self.index == 0
        code = self._endbr()
        if self.options.ftrace:
            code += x.NOPS[5]
        code += x.XOR_rr(x.RAX, x.RAX) if frame.tail_call_reachable and main else x.NOPS[3]
        if frame.exception_callback:
            code += x.MOV_rr(x.RSP, x.RSI) + x.MOV_rr(x.RBP, x.RDX)
            code += b"".join(x.POP_r(reg) for _, reg in reversed(SAVED_ORDER)) + x.POP_r(x.R12)
            code += x.MOV_rr(x.RSP, x.RBP)
        else:
            code += x.PUSH_r(x.RBP) + x.MOV_rr(x.RBP, x.RSP)
        code += self._endbr()
        if self.depth:
            code += x.SUB_ri32(x.RSP, self.depth)
        if frame.tail_call_reachable:
            push = x.PUSH_r(x.RAX)
            if main:  # rax counts tail calls, or points to the count if it is too large for one
                first = push + x.MOV_rr(x.RAX, x.RSP) + x.JMP_i8(len(push))
                code += x.CMP_ri8(x.RAX, MAX_TAIL_CALLS) + x.JCC_i8(x.A, len(first)) + first
            code += 2 * push
        code += self._pushes()
        if self.outgoing:
            code += x.SUB_ri8(x.RSP, self.outgoing)
        if self.arena:
            code += x.MOV_ri64(x.R12, 0)
            self._relocate(PROLOGUE, len(code) - 8, 8, "arena", "kernel")
        if frame.private_stack:
            code += x.MOV_ri64(x.R9, 0)
            self._relocate(PROLOGUE, len(code) - 8, 8, "private_stack", "")
            code += x.ADD_rg(x.R9, 0)
            self._relocate(PROLOGUE, len(code) - 4, 4, "ksym", "this_cpu_off")
        return code

    def _epilogue(self, slot: int) -> bytes:
        code = x.ADD_ri8(x.RSP, self.outgoing) if self.outgoing else b""
        code += self._pops() + x.LEAVE
        if self.options.rethunk:
            code += x.JMP_i32(0)
            self._relocate(slot, len(code) - 4, 4, "thunk", "x86_return_thunk")
            return code
        return code + x.RET + (x.INT3 if self.options.sls else b"")

    def _relocate(
        self, slot: int, offset: int, size: int, kind: str, target: str, addend: int = 0
    ) -> None:
        self.fields.append((slot, Relocation(offset, size, kind, target, addend)))

    def _finish(self, codes: list[bytes], late: Sequence[int]) -> list[Branch]:
        """Fill in what depends on the function; return the jumps, which come last."""
        branches = []
        first_exit = None
        for slot in late:
            match self.insns[slot]:
                case Jump(off=off):
                    branches.append(self._branch(slot, CONDITIONAL, slot + 1 + off))
                case Goto(off=off):
                    kind = BACK_TO_SELF if off == -1 else GOTO
                    branches.append(self._branch(slot, kind, slot + 1 + off))
                case Exit():
                    if first_exit is None:
                        first_exit = slot
                        codes[slot] = self._epilogue(slot)
                    else:
                        branches.append(self._branch(slot, LEAVE, first_exit))
                case Store(off=off, src=src):
                    codes[slot] = x.MOV_mr(x.RBP, self._outgoing(off), NATIVE[src])
                case StoreImm(off=off, imm=imm):
                    codes[slot] = x.MOV_mi(x.RBP, self._outgoing(off), imm)
                case insn if is_tail_call(insn):
                    codes[slot] = self._tail_call(insn.imm if isinstance(insn, Raw) else 0)
                case Call() as insn:
                    codes[slot] = self._call(slot, insn)
                case LoadImm() as insn:
                    codes[slot] = self._address(slot, insn)
                case AddrSpaceCast(dst=dst, src=src):
                    codes[slot] = self._to_user(slot, NATIVE[dst], NATIVE[src])
                case PercpuAddr(dst=dst, src=src):
                    to = NATIVE[dst]
                    codes[slot] = _mov(to, NATIVE[src]) + x.ADD_rg(to, 0)
                    self._relocate(slot, len(codes[slot]) - 4, 4, "ksym", "this_cpu_off")
        return branches

    def _branch(self, slot: int, kind: int, target: int) -> Branch:
        if not 0 <= target < len(self.insns):
            raise _UnsupportedError(f"jump out of range from insn {self.start + slot}")
        return Branch(slot, kind, target)

    def _jump(self, branch: Branch, distance: int, size: int) -> bytes:
        """Return the jump itself, of *size* bytes."""
        if size == 0:
            return b""
        if branch.kind == CONDITIONAL:
            insn = self.insns[branch.slot]
            assert isinstance(insn, Jump)
            return (x.JCC_i8 if size == 2 else x.JCC_i32)(CONDITIONS[insn.op], distance)
        return (x.JMP_i8 if size == 2 else x.JMP_i32)(distance)

    def _outgoing(self, off: int) -> int:
        """Return the offset from rbp of the outgoing slot at BPF offset *off*, below -8."""
        return self.bottom - off - 2 * SLOT_SIZE

    def _call(self, slot: int, insn: Call) -> bytes:
        code = b""
        match insn.kind:
            case "subprog":
                kind, target = "call", self._callee(slot + 1 + insn.imm)
                if self.frame.tail_call_reachable:
                    code = x.MOV_rm32(x.RAX, x.RBP, self._counter())
            case "kfunc":
                kfuncs = self.program.kfuncs
                known = 0 <= insn.imm < len(kfuncs)
                kind, target = "kfunc", kfuncs[insn.imm] if known else str(insn.imm)
            case _:
                kind, target = "helper", str(insn.imm)
        keep = self.frame.private_stack
        code += (x.PUSH_r(x.R9) if keep else b"") + x.CALL_i32(0)
        self._relocate(slot, len(code) - 4, 4, kind, target)
        return code + (x.POP_r(x.R9) if keep else b"")

    def _callee(self, slot: int) -> str:
        """Return the name of the subprogram that starts at *slot*, from this one's start."""
        name = self.names.get(self.start + slot)
        if name is not None:
            return name
        raise _UnsupportedError(f"call of insn {self.start + slot}, where no subprogram starts")

    def _address(self, slot: int, insn: LoadImm) -> bytes:
        """Return the load of an address: maps live anywhere, functions in the top 2 GB."""
        dst = NATIVE[insn.dst]
        index, offset = insn.imm & 0xFFFFFFFF, insn.imm >> 32
        match o.LD_IMM64_KINDS.get(insn.src):
            case "func":
                relative = index - (1 << 32) if index >> 31 else index
                self._relocate(slot, 3, 4, "func", self._callee(slot + 1 + relative))
                return x.MOV_ri32(dst, 0)
            case "map_idx" | "map_idx_value" as kind if index < len(self.program.maps):
                name = self.program.maps[index].name
                if kind == "map_idx":
                    self._relocate(slot, 2, 8, "map", name)
                else:
                    self._relocate(slot, 2, 8, "data", name, offset)
                return x.MOV_ri64(dst, 0)
            case kind:
                raise _UnsupportedError(f"64-bit immediate load of kind {kind or insn.src}")

    def _to_user(self, slot: int, dst: int, src: int) -> bytes:
        """Put the upper half of the arena's user address before an offset that is not zero."""
        code = (x.MOV32_rr(dst, src) if dst != src else b"") + x.SHL_ri8(dst, 32)
        code += x.OR_ai(0) if dst == x.RAX else x.OR_ri32(dst, 0)
        self._relocate(slot, len(code) - 4, 4, "arena", "user_high")
        code += x.ROL_ri8(dst, 32) + x.XOR_rr(SCRATCH, SCRATCH)
        return code + x.TEST32_rr(dst, dst) + x.CMOVE_rr(dst, SCRATCH)

    def _counter(self) -> int:
        """Return the offset from rbp of the pointer to the tail-call counter."""
        return -16 - self.depth

    def _tail_call(self, poke: int) -> bytes:
        """Jump into another program: *poke* 0 through the array, else patched in by the kernel."""
        leave = self._pops() + 2 * x.POP_r(x.RAX)
        if self.depth:
            leave += x.ADD_ri32(x.RSP, self.depth)
        skip = len(self._endbr()) + (5 if self.options.ftrace else 0) + 7  # X86_TAIL_CALL_OFFSET
        limit = x.MOV_rm32(x.RAX, x.RBP, self._counter()) + x.CMP_ni8(x.RAX, MAX_TAIL_CALLS)
        count = x.ADD_ni8(x.RAX, 1)
        if poke:
            rest = count + leave + x.NOPS[5]
            return limit + x.JCC_i8(x.AE, len(rest) + 5) + x.JMP_i32(len(rest)) + rest
        jump = x.MOV_rm(x.RCX, x.RCX, PROG_BPF_FUNC) + x.ADD_ri8(x.RCX, skip) + x.JMP_r(x.RCX)
        tail = count + leave + jump + x.INT3
        load = x.MOV_rs32(x.RCX, x.RSI, x.RDX, self.options.array_ptrs) + x.TEST_rr(x.RCX, x.RCX)
        tail = load + x.JCC_i8(x.E, len(tail)) + tail
        tail = limit + x.JCC_i8(x.AE, len(tail)) + tail
        check = x.MOV32_rr(x.RDX, x.RDX) + x.CMP32_mr(x.RSI, MAP_MAX_ENTRIES, x.RDX)
        return check + x.JCC_i8(x.BE, len(tail)) + tail
