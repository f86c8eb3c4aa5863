"""Between bytes and instructions (RFC 9669, section 3).

Little endian, eight bytes a slot: opcode, destination (low) and source register,
16-bit offset, 32-bit immediate. The table of 256 readers says for each opcode
which fields it uses; where a field that it reserves is set, or the opcode is no
instruction, the slot is ``Raw``. So ``encode(decode(b)) == b`` for any bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct, error

from harness.isa import opcodes as o
from harness.isa.decoded import keep, known_slots
from harness.isa.insn import (
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
    signed32,
)

SLOT = Struct("<BBhi")  # opcode, registers, offset, immediate
HIGH = High()
REGISTERS = PARAMS + 1  # r0 to r11

Fields = tuple[int, int, int, int, int]  # opcode, dst, src, off, imm
_Reader = Callable[[int, int, int, int], Insn | None]  # of dst, src, off, imm; None: reserved


# --- reading ----------------------------------------------------------------


def _alu_k(op: str, bits: int) -> _Reader:
    signed = "s" + op if "s" + op in o.SIGNED_ALU_OPS else None

    def read(dst: int, src: int, off: int, imm: int) -> Insn | None:
        if src:
            return None
        if not off:
            return Alu(op, bits, dst, None, imm)
        return Alu(signed, bits, dst, None, imm) if off == 1 and signed else None

    return read


def _alu_x(op: str, bits: int) -> _Reader:
    signed = "s" + op if "s" + op in o.SIGNED_ALU_OPS else None

    def read(dst: int, src: int, off: int, imm: int) -> Insn | None:
        if imm:
            return None
        if not off:
            return Alu(op, bits, dst, src)
        return Alu(signed, bits, dst, src) if off == 1 and signed else None

    return read


def _neg(bits: int) -> _Reader:
    def read(dst: int, src: int, off: int, imm: int) -> Insn | None:
        return None if src or off or imm else Alu("neg", bits, dst, None)

    return read


def _mov32_x(dst: int, src: int, off: int, imm: int) -> Insn | None:
    return Alu("mov", 32, dst, src, 0, off) if off in (0, 8, 16) and not imm else None


def _mov64_x(dst: int, src: int, off: int, imm: int) -> Insn | None:
    if off == o.ADDR_SPACE_CAST:
        return AddrSpaceCast(dst, src, imm)
    if imm:
        return None
    if off == o.ADDR_PERCPU:
        return PercpuAddr(dst, src)
    return Alu("mov", 64, dst, src, 0, off) if off in (0, 8, 16, 32) else None


def _endian(op: str) -> _Reader:
    def read(dst: int, src: int, off: int, imm: int) -> Insn | None:
        return None if src or off or imm not in (16, 32, 64) else Endian(op, imm, dst)

    return read


def _load(size: int, signed: bool) -> _Reader:
    def read(dst: int, src: int, off: int, imm: int) -> Insn | None:
        return None if imm else Load(size, dst, src, off, signed)

    return read


def _load_packet(mode: str, size: int) -> _Reader:
    def read(dst: int, src: int, off: int, imm: int) -> Insn | None:
        if dst or off or (src and mode == "abs"):
            return None
        return LoadPacket(mode, size, src, imm)

    return read


def _store(size: int) -> _Reader:
    def read(dst: int, src: int, off: int, imm: int) -> Insn | None:
        return None if imm else Store(size, dst, off, src)

    return read


def _store_imm(size: int) -> _Reader:
    def read(dst: int, src: int, off: int, imm: int) -> Insn | None:
        return None if src else StoreImm(size, dst, off, imm)

    return read


def _atomic(size: int) -> _Reader:
    names = {
        imm: (op, fetch)
        for (op, fetch), imm in _ATOMIC_IMM.items()
        if size >= 4 or op in o.ORDERED_OPS
    }

    def read(dst: int, src: int, off: int, imm: int) -> Insn | None:
        if imm not in names:
            return None
        op, fetch = names[imm]
        return Atomic(op, size, dst, off, src, fetch)

    return read


def _jump_k(op: str, bits: int) -> _Reader:
    def read(dst: int, src: int, off: int, imm: int) -> Insn | None:
        return None if src else Jump(op, bits, dst, None, imm, off)

    return read


def _jump_x(op: str, bits: int) -> _Reader:
    def read(dst: int, src: int, off: int, imm: int) -> Insn | None:
        return None if imm else Jump(op, bits, dst, src, 0, off)

    return read


def _goto(dst: int, src: int, off: int, imm: int) -> Insn | None:
    return None if dst or src or imm else Goto(off)


def _gotol(dst: int, src: int, off: int, imm: int) -> Insn | None:
    return None if dst or src or off else Goto(imm, long=True)


def _gotox(dst: int, src: int, off: int, imm: int) -> Insn | None:
    return None if src or off or imm else GotoX(dst)


def _may_goto(dst: int, src: int, off: int, imm: int) -> Insn | None:
    return None if dst or src or imm else MayGoto(off)


def _call(dst: int, src: int, off: int, imm: int) -> Insn | None:
    if dst or (off and src != o.CALL_KINDS["kfunc"]) or src not in _CALL_NAMES:
        return None
    return Call(_CALL_NAMES[src], imm, off)


def _callx(dst: int, src: int, off: int, imm: int) -> Insn | None:
    return None if src or off or imm else CallX(dst)


def _exit(dst: int, src: int, off: int, imm: int) -> Insn | None:
    return None if dst or src or off or imm else Exit()


_CALL_NAMES = {number: kind for kind, number in o.CALL_KINDS.items()}
_ATOMIC_IMM = {
    **{(op, False): imm for op, imm in o.ATOMIC_OPS.items()},
    **{(op, True): imm | o.FETCH for op, imm in o.ATOMIC_OPS.items()},
    ("xchg", True): o.XCHG,
    ("cmpxchg", True): o.CMPXCHG,
    ("load_acquire", False): o.LOAD_ACQUIRE,
    ("store_release", False): o.STORE_RELEASE,
}
_ALU_CLASS = {32: o.ALU, 64: o.ALU64}
_JUMP_CLASS = {32: o.JMP32, 64: o.JMP}
LD_IMM64 = o.LD | o.IMM | o.SIZES[8]


def _readers() -> tuple[_Reader | None, ...]:
    """Return the reader of each opcode, None where it is no instruction."""
    table: dict[int, _Reader] = {}
    for bits, alu in _ALU_CLASS.items():
        for op, code in o.ALU_OPS.items():
            if op == "neg":
                table[alu | code | o.K] = _neg(bits)
            else:
                table[alu | code | o.K] = _alu_k(op, bits)
                table[alu | code | o.X] = _alu_x(op, bits)
    table[o.ALU | o.ALU_OPS["mov"] | o.X] = _mov32_x
    table[o.ALU64 | o.ALU_OPS["mov"] | o.X] = _mov64_x
    for op, code in o.ENDIAN_OPS.items():
        table[code] = _endian(op)
    for bits, jmp in _JUMP_CLASS.items():
        for op, code in o.JUMP_OPS.items():
            table[jmp | code | o.K] = _jump_k(op, bits)
            table[jmp | code | o.X] = _jump_x(op, bits)
    table[o.JMP | o.JA | o.K] = _goto
    table[o.JMP32 | o.JA | o.K] = _gotol
    table[o.JMP | o.JA | o.X] = _gotox
    table[o.JMP | o.JCOND | o.K] = _may_goto
    table[o.JMP | o.CALL | o.K] = _call
    table[o.JMP | o.CALL | o.X] = _callx
    table[o.JMP | o.EXIT | o.K] = _exit
    for size, code in o.SIZES.items():
        table[o.LDX | o.MEM | code] = _load(size, signed=False)
        table[o.STX | o.MEM | code] = _store(size)
        table[o.ST | o.MEM | code] = _store_imm(size)
        table[o.STX | o.ATOMIC | code] = _atomic(size)
        if size < 8:
            table[o.LDX | o.MEMSX | code] = _load(size, signed=True)
            table[o.LD | o.ABS | code] = _load_packet("abs", size)
            table[o.LD | o.IND | code] = _load_packet("ind", size)
    return tuple(table.get(opcode) for opcode in range(256))


_READERS = _readers()
OPCODES = frozenset({LD_IMM64, *(op for op, reader in enumerate(_READERS) if reader)})


def decode(code: bytes, *, registers: int = REGISTERS) -> tuple[Insn, ...]:
    """Return the instructions of *code*, one entry for each slot of eight bytes.

    A register number of *registers* or above makes its slot ``Raw``; 13 admits r12,
    the base register of the first stack-argument design. Raises ValueError where
    the length is no multiple of eight.
    """
    if len(code) % SLOT.size:
        raise ValueError(f"BPF code of {len(code)} bytes: the length must be a multiple of 8")
    out: list[Insn] = []
    slots = list(SLOT.iter_unpack(code))
    seen = known_slots(registers)  # values repeat, and are immutable
    skip = False
    for index, slot in enumerate(slots):
        if skip:
            out.append(HIGH)
            skip = False
            continue
        insn = seen.get(slot)
        if insn is None:
            opcode, regs, off, imm = slot
            dst, src = regs & 15, regs >> 4
            if opcode == LD_IMM64:
                insn = None
                if (
                    dst < registers
                    and src in o.LD_IMM64_KINDS
                    and not off
                    and index + 1 < len(slots)
                ):
                    opcode2, regs2, off2, imm2 = slots[index + 1]
                    if not (opcode2 or regs2 or off2):
                        value = (imm2 & 0xFFFFFFFF) << 32 | imm & 0xFFFFFFFF
                        out.append(LoadImm(dst, src, value))
                        skip = True
                        continue
                out.append(Raw(opcode, dst, src, off, imm))
                continue
            reader = _READERS[opcode]
            if reader is not None and dst < registers and src < registers:
                insn = reader(dst, src, off, imm)
            if insn is None:
                insn = Raw(opcode, dst, src, off, imm)
            seen[slot] = insn
            keep(insn)
        out.append(insn)
    return tuple(out)


# --- writing ----------------------------------------------------------------


def fields(insn: Insn) -> Fields:
    """Return opcode, dst, src, off and imm of the slot of *insn*.

    Of a ``LoadImm``, its first slot. ``High`` has the fields of a high half that is
    zero. Raises ValueError where *insn* has no encoding.
    """
    try:
        return _fields(insn)
    except KeyError:
        raise ValueError(f"no encoding for {insn}") from None


def _fields(insn: Insn) -> Fields:
    match insn:
        case Alu(op="neg", bits=bits, dst=dst, src=None, imm=0, sx=0):
            return _ALU_CLASS[bits] | o.ALU_OPS["neg"] | o.K, dst, 0, 0, 0
        case Alu(op="mov", bits=bits, dst=dst, src=int(src), imm=0, sx=sx):
            if sx not in (0, 8, 16, 32)[: 2 + bits // 32]:
                raise ValueError(f"no encoding for {insn}")
            return _ALU_CLASS[bits] | o.ALU_OPS["mov"] | o.X, dst, src, sx, 0
        case Alu(op=op, bits=bits, dst=dst, src=src, imm=imm, sx=0) if op != "neg":
            signed = op in o.SIGNED_ALU_OPS
            code = o.SIGNED_ALU_OPS[op] if signed else o.ALU_OPS[op]
            if src is None:
                return _ALU_CLASS[bits] | code | o.K, dst, 0, int(signed), imm
            if imm:
                raise ValueError(f"no encoding for {insn}")
            return _ALU_CLASS[bits] | code | o.X, dst, src, int(signed), 0
        case Alu():
            raise ValueError(f"no encoding for {insn}")
        case Load(size=size, dst=dst, src=src, off=off, signed=sign):
            if sign and size == 8:
                raise ValueError(f"no encoding for {insn}")
            return o.LDX | (o.MEMSX if sign else o.MEM) | o.SIZES[size], dst, src, off, 0
        case Store(size=size, dst=dst, off=off, src=src):
            return o.STX | o.MEM | o.SIZES[size], dst, src, off, 0
        case StoreImm(size=size, dst=dst, off=off, imm=imm):
            return o.ST | o.MEM | o.SIZES[size], dst, 0, off, imm
        case Jump(op=op, bits=bits, dst=dst, src=src, imm=imm, off=off):
            if src is None:
                return _JUMP_CLASS[bits] | o.JUMP_OPS[op] | o.K, dst, 0, off, imm
            if imm:
                raise ValueError(f"no encoding for {insn}")
            return _JUMP_CLASS[bits] | o.JUMP_OPS[op] | o.X, dst, src, off, 0
        case Goto(off=off, long=True):
            return o.JMP32 | o.JA | o.K, 0, 0, 0, off
        case Goto(off=off):
            return o.JMP | o.JA | o.K, 0, 0, off, 0
        case Call(kind=kind, imm=imm, off=off):
            if off and kind != "kfunc":
                raise ValueError(f"no encoding for {insn}")
            return o.JMP | o.CALL | o.K, 0, o.CALL_KINDS[kind], off, imm
        case Exit():
            return o.JMP | o.EXIT | o.K, 0, 0, 0, 0
        case LoadImm(dst=dst, src=src, imm=imm):
            if src not in o.LD_IMM64_KINDS or not 0 <= imm < 1 << 64:
                raise ValueError(f"no encoding for {insn}")
            return LD_IMM64, dst, src, 0, signed32(imm)
        case High():
            return 0, 0, 0, 0, 0
        case Raw(opcode=opcode, dst=dst, src=src, off=off, imm=imm):
            return opcode, dst, src, off, imm
        case Endian(op=op, bits=bits, dst=dst):
            if bits not in (16, 32, 64):
                raise ValueError(f"no encoding for {insn}")
            return o.ENDIAN_OPS[op], dst, 0, 0, bits
        case Atomic(op=op, size=size, dst=dst, off=off, src=src, fetch=fetch):
            if size < 4 and op not in o.ORDERED_OPS:
                raise ValueError(f"no encoding for {insn}")
            opcode = o.STX | o.ATOMIC | o.SIZES[size]
            return opcode, dst, src, off, _ATOMIC_IMM[op, fetch]
        case AddrSpaceCast(dst=dst, src=src, imm=imm):
            return o.ALU64 | o.ALU_OPS["mov"] | o.X, dst, src, o.ADDR_SPACE_CAST, imm
        case PercpuAddr(dst=dst, src=src):
            return o.ALU64 | o.ALU_OPS["mov"] | o.X, dst, src, o.ADDR_PERCPU, 0
        case MayGoto(off=off):
            return o.JMP | o.JCOND | o.K, 0, 0, off, 0
        case GotoX(dst=dst):
            return o.JMP | o.JA | o.X, dst, 0, 0, 0
        case CallX(dst=dst):
            return o.JMP | o.CALL | o.X, dst, 0, 0, 0
        case LoadPacket(mode=mode, size=size, src=src, imm=imm):
            if size == 8 or (src and mode == "abs"):
                raise ValueError(f"no encoding for {insn}")
            return o.LD | o.PACKET_MODES[mode] | o.SIZES[size], 0, src, 0, imm


def encode(insns: Sequence[Insn]) -> bytes:
    """Return the code of *insns*, eight bytes for each.

    Raises ValueError where one has no encoding (a field is out of range, an
    operation does not exist in that size), or a ``LoadImm`` and its ``High`` are
    not together. Register 12 is encoded, for the first stack-argument design.
    """
    out = bytearray()
    wide: LoadImm | None = None
    for slot, insn in enumerate(insns):
        if (wide is None) == isinstance(insn, High):
            raise ValueError(f"slot {slot}: a LoadImm and a High must follow each other")
        if wide is not None:
            out += SLOT.pack(0, 0, 0, signed32(wide.imm >> 32))
            wide = None
            continue
        opcode, dst, src, off, imm = fields(insn)
        if not (0 <= dst < 16 and 0 <= src < 16):
            raise ValueError(f"slot {slot}: no register of that number in {insn}")
        try:
            out += SLOT.pack(opcode, src << 4 | dst, off, imm)
        except error:
            raise ValueError(f"slot {slot}: a field of {insn} is out of range") from None
        if isinstance(insn, LoadImm):
            wide = insn
    if wide is not None:
        raise ValueError(f"slot {len(insns)}: a LoadImm and a High must follow each other")
    return bytes(out)
