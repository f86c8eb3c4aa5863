"""x86-64 machine code: one function a form, each returns the bytes of one instruction.

After the Intel SDM, volume 2 (opcode column cited where a form needs it). A name
is the mnemonic, the width in bits where it is not 64, and the operands, destination
first: ``r`` register, ``m`` base register plus displacement, ``x`` base plus index
register plus displacement, ``i`` immediate (``i8`` one byte, ``i32`` always four).
Registers are hardware numbers, 0 to 15.

Of several encodings of one instruction each form has the one Linux's BPF JIT uses:
a displacement is always present, in one byte where it fits, and the accumulator's
short forms are forms of their own (``_ai``).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TypeVar

# fmt: off
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
R8, R9, R10, R11, R12, R13, R14, R15 = range(8, 16)

# Condition codes: the low nibble of Jcc         SDM, appendix B.1.4.7
B, AE, E, NE, BE, A = 0x2, 0x3, 0x4, 0x5, 0x6, 0x7
L, GE, LE, G = 0xC, 0xD, 0xE, 0xF
# fmt: on

Rr = Callable[[int, int], bytes]  # destination, source
R = Callable[[int], bytes]
Rm = Callable[[int, int, int], bytes]  # register, base, displacement
Mr = Callable[[int, int, int], bytes]  # base, displacement, register
Rx = Callable[[int, int, int, int], bytes]  # register, base, index, displacement
Xr = Callable[[int, int, int, int], bytes]  # base, index, displacement, register
Ri = Callable[[int, int], bytes]  # register, immediate
Mi = Callable[[int, int, int], bytes]  # base, displacement, immediate
Xi = Callable[[int, int, int, int], bytes]  # base, index, displacement, immediate
Rri = Callable[[int, int, int], bytes]  # destination, source, immediate or count
I = Callable[[int], bytes]  # noqa: E741
F = TypeVar("F")

I8 = Struct("<b").pack
I32 = Struct("<i").pack
U8 = Struct("<B").pack
U16 = Struct("<H").pack
U32 = Struct("<I").pack
U64 = Struct("<Q").pack


def fits8(value: int) -> bool:
    """Say whether *value* is a signed byte."""
    return -128 <= value <= 127


# --- the parts of an instruction --------------------------------------------


def rex(w: int, reg: int, index: int, base: int, always: bool = False) -> bytes:
    """Return the REX prefix, or nothing where it would carry no bit."""
    bits = w << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3
    return bytes((0x40 | bits,)) if bits or always else b""


def direct(reg: int, rm: int) -> bytes:
    """Return the ModRM byte for two registers."""
    return bytes((0xC0 | (reg & 7) << 3 | rm & 7,))


def memory(reg: int, base: int, disp: int) -> bytes:
    """Return ModRM, SIB where *base* needs one, and the displacement."""
    small = fits8(disp)
    head = (0x40 if small else 0x80) | (reg & 7) << 3
    sib = b"\x24" if base & 7 == RSP else b""
    return bytes((head | base & 7,)) + sib + (I8(disp) if small else I32(disp))


def indexed(reg: int, base: int, index: int, disp: int) -> bytes:
    """Return ModRM, SIB and displacement for base + index * 1 + disp; *index* is not rsp."""
    small = fits8(disp)
    head = (0x40 if small else 0x80) | (reg & 7) << 3 | RSP
    return bytes((head, (index & 7) << 3 | base & 7)) + (I8(disp) if small else I32(disp))


# --- the kinds of forms ------------------------------------------------------


def _rr(w: int, code: bytes, always: bool = False) -> Rr:
    """``op r/m, r``: the destination in r/m."""
    return lambda dst, src: rex(w, src, 0, dst, always) + code + direct(src, dst)


def _rr_(w: int, code: bytes, always: bool = False) -> Rr:
    """``op r, r/m``: the destination in reg."""
    return lambda dst, src: rex(w, dst, 0, src, always) + code + direct(dst, src)


def _r(w: int, code: bytes, extension: int) -> R:
    """``op r/m``, opcode extension in reg."""
    return lambda reg: rex(w, 0, 0, reg) + code + direct(extension, reg)


def _o(w: int, code: bytes) -> R:
    """``op r``, the register in the opcode's low bits."""
    return lambda reg: rex(w, 0, 0, reg) + code[:-1] + bytes((code[-1] | reg & 7,))


def _rm(w: int, code: bytes) -> Rm:
    return lambda reg, base, disp: rex(w, reg, 0, base) + code + memory(reg, base, disp)


def _rm32(w: int, code: bytes) -> Rm:
    """``op r, m`` with four bytes of displacement, whatever its value."""
    return lambda reg, base, disp: (
        rex(w, reg, 0, base)
        + code
        + bytes((0x80 | (reg & 7) << 3 | base & 7,))
        + (b"\x24" if base & 7 == RSP else b"")
        + I32(disp)
    )


def _rs32(w: int, code: bytes) -> Rx:
    """``op r, [base + index * 8 + disp32]``."""
    return lambda reg, base, index, disp: (
        rex(w, reg, index, base)
        + code
        + bytes((0x84 | (reg & 7) << 3, 0xC0 | (index & 7) << 3 | base & 7))
        + I32(disp)
    )


def _ni8(w: int, code: bytes, extension: int) -> Ri:
    """``op [base], imm8`` without a displacement; *base* is not rsp, rbp, r12, r13."""
    return lambda base, imm: (
        rex(w, 0, 0, base) + code + bytes((extension << 3 | base & 7,)) + I8(imm)
    )


def _abs_r(w: int, code: bytes) -> Ri:
    """``op r, gs:[disp32]``: absolute, relative to the per-CPU base."""
    return lambda reg, disp: (
        b"\x65" + rex(w, reg, 0, 0) + code + bytes(((reg & 7) << 3 | 4, 0x25)) + I32(disp)
    )


def _mr(w: int, code: bytes, prefix: bytes = b"") -> Mr:
    return lambda base, disp, reg: prefix + rex(w, reg, 0, base) + code + memory(reg, base, disp)


def _rx(w: int, code: bytes) -> Rx:
    return lambda reg, base, index, disp: (
        rex(w, reg, index, base) + code + indexed(reg, base, index, disp)
    )


def _xr(w: int, code: bytes, prefix: bytes = b"") -> Xr:
    return lambda base, index, disp, reg: (
        prefix + rex(w, reg, index, base) + code + indexed(reg, base, index, disp)
    )


def _ri8(w: int, code: bytes, extension: int) -> Ri:
    return lambda reg, imm: rex(w, 0, 0, reg) + code + direct(extension, reg) + I8(imm)


def _ru8(w: int, code: bytes, extension: int, prefix: bytes = b"") -> Ri:
    return lambda reg, imm: prefix + rex(w, 0, 0, reg) + code + direct(extension, reg) + U8(imm)


def _ri32(w: int, code: bytes, extension: int) -> Ri:
    return lambda reg, imm: rex(w, 0, 0, reg) + code + direct(extension, reg) + I32(imm)


def _ai(w: int, code: bytes) -> I:
    """``op eax/rax, imm32``: the accumulator's short form."""
    return lambda imm: rex(w, 0, 0, 0) + code + I32(imm)


def _mi(w: int, code: bytes, size: int, prefix: bytes = b"") -> Mi:
    mask = (1 << 8 * size) - 1
    return lambda base, disp, imm: (
        prefix + rex(w, 0, 0, base) + code + memory(0, base, disp)
        + (imm & mask).to_bytes(size, "little")
    )  # fmt: skip


def _xi(w: int, code: bytes, size: int, prefix: bytes = b"") -> Xi:
    mask = (1 << 8 * size) - 1
    return lambda base, index, disp, imm: (
        prefix + rex(w, 0, index, base) + code + indexed(0, base, index, disp)
        + (imm & mask).to_bytes(size, "little")
    )  # fmt: skip


def _rri8(w: int, code: bytes) -> Rri:
    """``op r, r/m, imm8``."""
    return lambda dst, src, imm: rex(w, dst, 0, src) + code + direct(dst, src) + I8(imm)


def _rri32(w: int, code: bytes) -> Rri:
    """``op r, r/m, imm32``."""
    return lambda dst, src, imm: rex(w, dst, 0, src) + code + direct(dst, src) + I32(imm)


def _oi32(code: bytes) -> Ri:
    """``op r, imm32``, the register in the opcode; *imm* unsigned."""
    return lambda reg, imm: rex(0, 0, 0, reg) + bytes((code[0] | reg & 7,)) + U32(imm)


def _oi64(code: bytes) -> Ri:
    """``op r, imm64``, the register in the opcode; *imm* unsigned."""
    return lambda reg, imm: rex(1, 0, 0, reg) + bytes((code[0] | reg & 7,)) + U64(imm)


def _i8(code: bytes) -> I:
    return lambda disp: code + I8(disp)


def _i32(code: bytes) -> I:
    return lambda disp: code + I32(disp)


def _byte_mr(code: bytes) -> Mr:
    """``op byte [m], r8``: spl to dil need a REX without bits (SDM 3.7.2.1)."""
    return lambda base, disp, reg: (
        rex(0, reg, 0, base, always=reg >= 4) + code + memory(reg, base, disp)
    )


def _byte_xr(code: bytes) -> Xr:
    """Do as ``_byte_mr``, indexed."""
    return lambda base, index, disp, reg: (
        rex(0, reg, index, base, always=reg >= 4) + code + indexed(reg, base, index, disp)
    )


def _vex(w: int, pp: int) -> Rri:
    """``op dst, src, count`` in map 0F 38, opcode F7: VEX.LZ.pp.0F38.W F7 /r (SDM 2.3.5)."""

    def form(dst: int, src: int, count: int) -> bytes:
        second = (~dst >> 3 & 1) << 7 | 1 << 6 | (~src >> 3 & 1) << 5 | 2
        third = w << 7 | (~count & 15) << 3 | pp
        return bytes((0xC4, second, third, 0xF7)) + direct(dst, src)

    return form


def _both(kind: Callable[..., F], *operands: object) -> tuple[F, F]:
    """Return the 64-bit and the 32-bit form of one kind."""
    return kind(1, *operands), kind(0, *operands)


# --- the forms ---------------------------------------------------------------

# fmt: off
# name                                                      SDM: opcode
ADD_rr,   ADD32_rr   = _both(_rr, b"\x01")                # 01 /r
OR_rr,    OR32_rr    = _both(_rr, b"\x09")                # 09 /r
AND_rr,   AND32_rr   = _both(_rr, b"\x21")                # 21 /r
SUB_rr,   SUB32_rr   = _both(_rr, b"\x29")                # 29 /r
XOR_rr,   XOR32_rr   = _both(_rr, b"\x31")                # 31 /r
CMP_rr,   CMP32_rr   = _both(_rr, b"\x39")                # 39 /r
TEST_rr,  TEST32_rr  = _both(_rr, b"\x85")                # 85 /r
MOV_rr,   MOV32_rr   = _both(_rr, b"\x89")                # 89 /r

ADD_ri8,  ADD32_ri8  = _both(_ri8, b"\x83", 0)            # 83 /0 ib
OR_ri8,   OR32_ri8   = _both(_ri8, b"\x83", 1)            # 83 /1 ib
AND_ri8,  AND32_ri8  = _both(_ri8, b"\x83", 4)            # 83 /4 ib
SUB_ri8,  SUB32_ri8  = _both(_ri8, b"\x83", 5)            # 83 /5 ib
XOR_ri8,  XOR32_ri8  = _both(_ri8, b"\x83", 6)            # 83 /6 ib
CMP_ri8,  CMP32_ri8  = _both(_ri8, b"\x83", 7)            # 83 /7 ib

ADD_ri32, ADD32_ri32 = _both(_ri32, b"\x81", 0)           # 81 /0 id
OR_ri32,  OR32_ri32  = _both(_ri32, b"\x81", 1)           # 81 /1 id
AND_ri32, AND32_ri32 = _both(_ri32, b"\x81", 4)           # 81 /4 id
SUB_ri32, SUB32_ri32 = _both(_ri32, b"\x81", 5)           # 81 /5 id
XOR_ri32, XOR32_ri32 = _both(_ri32, b"\x81", 6)           # 81 /6 id
CMP_ri32, CMP32_ri32 = _both(_ri32, b"\x81", 7)           # 81 /7 id
TEST_ri32, TEST32_ri32 = _both(_ri32, b"\xf7", 0)         # F7 /0 id

ADD_ai,   ADD32_ai   = _both(_ai, b"\x05")                # 05 id
OR_ai,    OR32_ai    = _both(_ai, b"\x0d")                # 0D id
AND_ai,   AND32_ai   = _both(_ai, b"\x25")                # 25 id
SUB_ai,   SUB32_ai   = _both(_ai, b"\x2d")                # 2D id
XOR_ai,   XOR32_ai   = _both(_ai, b"\x35")                # 35 id

NEG_r,    NEG32_r    = _both(_r, b"\xf7", 3)              # F7 /3
DIV_r,    DIV32_r    = _both(_r, b"\xf7", 6)              # F7 /6
IDIV_r,   IDIV32_r   = _both(_r, b"\xf7", 7)              # F7 /7
IMUL_rr,  IMUL32_rr  = _both(_rr_, b"\x0f\xaf")           # 0F AF /r
IMUL_rri8,  IMUL32_rri8  = _both(_rri8, b"\x6b")          # 6B /r ib
IMUL_rri32, IMUL32_rri32 = _both(_rri32, b"\x69")         # 69 /r id

SHL_r1,   SHL32_r1   = _both(_r, b"\xd1", 4)              # D1 /4
SHR_r1,   SHR32_r1   = _both(_r, b"\xd1", 5)              # D1 /5
SAR_r1,   SAR32_r1   = _both(_r, b"\xd1", 7)              # D1 /7
SHL_rc,   SHL32_rc   = _both(_r, b"\xd3", 4)              # D3 /4, count in cl
SHR_rc,   SHR32_rc   = _both(_r, b"\xd3", 5)              # D3 /5
SAR_rc,   SAR32_rc   = _both(_r, b"\xd3", 7)              # D3 /7
SHL_ri8,  SHL32_ri8  = _both(_ru8, b"\xc1", 4)            # C1 /4 ib
SHR_ri8,  SHR32_ri8  = _both(_ru8, b"\xc1", 5)            # C1 /5 ib
SAR_ri8,  SAR32_ri8  = _both(_ru8, b"\xc1", 7)            # C1 /7 ib
ROL_ri8              = _ru8(1, b"\xc1", 0)                # C1 /0 ib
ROR16_ri8            = _ru8(0, b"\xc1", 1, b"\x66")       # 66 C1 /1 ib
SHLX_rrr, SHLX32_rrr = _both(_vex, 1)                     # VEX.LZ.66.0F38 F7 /r
SARX_rrr, SARX32_rrr = _both(_vex, 2)                     # VEX.LZ.F3.0F38 F7 /r
SHRX_rrr, SHRX32_rrr = _both(_vex, 3)                     # VEX.LZ.F2.0F38 F7 /r

BSWAP_r,  BSWAP32_r  = _both(_o, b"\x0f\xc8")             # 0F C8+rd
CMOVE_rr             = _rr_(1, b"\x0f\x44")               # 0F 44 /r
CDQ, CQO             = b"\x99", b"\x48\x99"               # 99

MOV_ri32             = _ri32(1, b"\xc7", 0)               # C7 /0 id, sign-extended
MOV32_ri32           = _oi32(b"\xb8")                     # B8+rd id, zero-extended
MOV_ri64             = _oi64(b"\xb8")                     # B8+rd io
MOV32ZX16_rr         = _rr_(0, b"\x0f\xb7")               # 0F B7 /r, 32 bits <- 16
MOVSX8_rr            = _rr_(1, b"\x0f\xbe")               # 0F BE /r
MOVSX16_rr           = _rr_(1, b"\x0f\xbf")               # 0F BF /r
MOVSX32_rr           = _rr_(1, b"\x63")                   # 63 /r
MOV32SX8_rr          = _rr_(0, b"\x0f\xbe", True)         # 0F BE /r, 32 bits <- 8, always REX
MOV32SX16_rr         = _rr_(0, b"\x0f\xbf")               # 0F BF /r, 32 bits <- 16

MOV_rm,   MOV32_rm   = _both(_rm, b"\x8b")                # 8B /r
MOV_rm32             = _rm32(1, b"\x8b")                  # 8B /r
MOV_rs32             = _rs32(1, b"\x8b")                  # 8B /r, index scaled by 8
ADD_rg               = _abs_r(1, b"\x03")                 # GS 03 /r
CMP_ni8, ADD_ni8     = _ni8(1, b"\x83", 7), _ni8(1, b"\x83", 0)  # 83 /7 ib, 83 /0 ib
CMP32_mr             = _mr(0, b"\x39")                    # 39 /r
MOVZX8_rm            = _rm(1, b"\x0f\xb6")                # 0F B6 /r
MOVZX16_rm           = _rm(1, b"\x0f\xb7")                # 0F B7 /r
MOVSX8_rm            = _rm(1, b"\x0f\xbe")                # 0F BE /r
MOVSX16_rm           = _rm(1, b"\x0f\xbf")                # 0F BF /r
MOVSX32_rm           = _rm(1, b"\x63")                    # 63 /r
MOV_rx,   MOV32_rx   = _both(_rx, b"\x8b")                # 8B /r
MOV32ZX8_rx          = _rx(0, b"\x0f\xb6")                # 0F B6 /r, 32 bits <- 8
MOV32ZX16_rx         = _rx(0, b"\x0f\xb7")                # 0F B7 /r, 32 bits <- 16
MOVSX8_rx            = _rx(1, b"\x0f\xbe")                # 0F BE /r
MOVSX16_rx           = _rx(1, b"\x0f\xbf")                # 0F BF /r
MOVSX32_rx           = _rx(1, b"\x63")                    # 63 /r

MOV_mr,   MOV32_mr   = _both(_mr, b"\x89")                # 89 /r
MOV16_mr             = _mr(0, b"\x89", b"\x66")           # 66 89 /r
MOV8_mr              = _byte_mr(b"\x88")                  # 88 /r
MOV_mi,   MOV32_mi   = _both(_mi, b"\xc7", 4)             # C7 /0 id
MOV16_mi             = _mi(0, b"\xc7", 2, b"\x66")        # 66 C7 /0 iw
MOV8_mi              = _mi(0, b"\xc6", 1)                 # C6 /0 ib
MOV_xr,   MOV32_xr   = _both(_xr, b"\x89")                # 89 /r
MOV16_xr             = _xr(0, b"\x89", b"\x66")           # 66 89 /r
MOV8_xr              = _byte_xr(b"\x88")                  # 88 /r
MOV_xi,   MOV32_xi   = _both(_xi, b"\xc7", 4)             # C7 /0 id
MOV16_xi             = _xi(0, b"\xc7", 2, b"\x66")        # 66 C7 /0 iw
MOV8_xi              = _xi(0, b"\xc6", 1)                 # C6 /0 ib

LOCK_ADD_mr, LOCK_ADD32_mr         = _both(_mr, b"\x01", b"\xf0")      # F0 01 /r
LOCK_OR_mr, LOCK_OR32_mr           = _both(_mr, b"\x09", b"\xf0")      # F0 09 /r
LOCK_AND_mr, LOCK_AND32_mr         = _both(_mr, b"\x21", b"\xf0")      # F0 21 /r
LOCK_XOR_mr, LOCK_XOR32_mr         = _both(_mr, b"\x31", b"\xf0")      # F0 31 /r
LOCK_XADD_mr, LOCK_XADD32_mr       = _both(_mr, b"\x0f\xc1", b"\xf0")  # F0 0F C1 /r
LOCK_CMPXCHG_mr, LOCK_CMPXCHG32_mr = _both(_mr, b"\x0f\xb1", b"\xf0")  # F0 0F B1 /r
XCHG_mr, XCHG32_mr                 = _both(_mr, b"\x87")               # 87 /r
LOCK_ADD_xr, LOCK_ADD32_xr         = _both(_xr, b"\x01", b"\xf0")      # the same, indexed
LOCK_OR_xr, LOCK_OR32_xr           = _both(_xr, b"\x09", b"\xf0")
LOCK_AND_xr, LOCK_AND32_xr         = _both(_xr, b"\x21", b"\xf0")
LOCK_XOR_xr, LOCK_XOR32_xr         = _both(_xr, b"\x31", b"\xf0")
LOCK_XADD_xr, LOCK_XADD32_xr       = _both(_xr, b"\x0f\xc1", b"\xf0")
LOCK_CMPXCHG_xr, LOCK_CMPXCHG32_xr = _both(_xr, b"\x0f\xb1", b"\xf0")
XCHG_xr, XCHG32_xr                 = _both(_xr, b"\x87")

PUSH_r, POP_r        = _o(0, b"\x50"), _o(0, b"\x58")     # 50+rd, 58+rd
LEAVE, RET, INT3     = b"\xc9", b"\xc3", b"\xcc"          # C9, C3, CC
JMP_r                = _r(0, b"\xff", 4)                  # FF /4
JMP_i8, JMP_i32      = _i8(b"\xeb"), _i32(b"\xe9")        # EB cb, E9 cd
CALL_i32             = _i32(b"\xe8")                      # E8 cd
LFENCE, ENDBR64      = b"\x0f\xae\xe8", b"\xf3\x0f\x1e\xfa"
# fmt: on


def JCC_i8(condition: int, disp: int) -> bytes:  # noqa: N802
    """Conditional jump, 70+cc cb; *disp* counts from the next instruction."""
    return bytes((0x70 | condition,)) + I8(disp)


def JCC_i32(condition: int, disp: int) -> bytes:  # noqa: N802
    """Conditional jump, 0F 80+cc cd."""
    return bytes((0x0F, 0x80 | condition)) + I32(disp)


# Multi-byte no-operations by length: SDM volume 2, NOP, and GAS
NOPS = (
    b"",
    b"\x90",
    b"\x66\x90",
    b"\x0f\x1f\x00",
    b"\x0f\x1f\x40\x00",
    b"\x0f\x1f\x44\x00\x00",
)
