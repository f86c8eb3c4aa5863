"""One sample of every form of instruction, for tests that must reach them all."""

from __future__ import annotations

from collections.abc import Iterator

from harness.isa import opcodes as o
from harness.isa.codec import fields
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
    Insn,
    Jump,
    Load,
    LoadImm,
    LoadPacket,
    MayGoto,
    PercpuAddr,
    Store,
    StoreImm,
)


def forms() -> tuple[Insn, ...]:
    """Return one instruction for each opcode and, where fields select one, each variant.

    The last three are those that name r11. A ``LoadImm`` needs a ``High`` after it to
    be encoded; ``High`` itself and ``Raw`` are no forms.
    """
    return tuple(_forms())


def _forms() -> Iterator[Insn]:
    for bits in (64, 32):
        for op in (*o.ALU_OPS, *o.SIGNED_ALU_OPS):
            if op == "neg":
                yield Alu(op, bits, 3, None)
                continue
            yield Alu(op, bits, 3, None, 13)
            yield Alu(op, bits, 3, 4)
        for sx in (8, 16, 32)[: bits // 32 + 1]:
            yield Alu("mov", bits, 3, 4, 0, sx)
    for op in o.ENDIAN_OPS:
        for bits in (16, 32, 64):
            yield Endian(op, bits, 3)
    yield AddrSpaceCast(3, 4, 1)
    yield AddrSpaceCast(3, 4, 1 << 16)
    yield PercpuAddr(3, 4)
    for size in sorted(o.SIZES):
        yield Load(size, 3, 4, 16)
        yield Store(size, 3, -16, 4)
        yield StoreImm(size, 3, -16, 21)
        if size < 8:
            yield Load(size, 3, 4, 16, signed=True)
            yield LoadPacket("abs", size, 0, 12)
            yield LoadPacket("ind", size, 4, 0)
    for kind in o.LD_IMM64_KINDS:
        yield LoadImm(3, kind, 5)
    for size in (4, 8):
        for op in o.ATOMIC_OPS:
            yield Atomic(op, size, 3, 8, 4)
            yield Atomic(op, size, 3, 8, 4, fetch=True)
        yield Atomic("xchg", size, 3, 8, 4, fetch=True)
        yield Atomic("cmpxchg", size, 3, 8, 4, fetch=True)
    for size in sorted(o.SIZES):
        for op in o.ORDERED_OPS:
            yield Atomic(op, size, 3, 8, 4)
    for bits in (64, 32):
        for op in o.JUMP_OPS:
            yield Jump(op, bits, 3, None, 7, 2)
            yield Jump(op, bits, 3, 4, 0, 2)
    yield Goto(2)
    yield Goto(2, long=True)
    yield MayGoto(2)
    yield GotoX(3)
    yield Call("helper", 5)
    yield Call("subprog", 2)
    yield Call("kfunc", 1)
    yield CallX(3)
    yield Exit()
    yield Load(8, 3, PARAMS, 8)
    yield Store(8, PARAMS, -8, 4)
    yield StoreImm(8, PARAMS, -8, 21)


def form_name(insn: Insn) -> str:
    """Return a short name of the form of *insn*, unique among ``forms()``, for test ids."""
    opcode, dst, src, _, _ = fields(insn)
    name = f"{opcode:02x}_{type(insn).__name__.lower()}"
    match insn:
        case Alu(op=op, bits=bits, src=operand, sx=sx):
            name += f"_{op}{bits}_{'imm' if operand is None else 'reg'}" + (f"_s{sx}" if sx else "")
        case Endian(op=op, bits=bits):
            name += f"_{op}{bits}"
        case AddrSpaceCast(imm=spaces):
            name += f"_{spaces >> 16 & 0xFFFF}_{spaces & 0xFFFF}"
        case Load(size=size, signed=signed):
            name += f"_{'s' if signed else 'u'}{8 * size}"
        case Store(size=size) | StoreImm(size=size):
            name += f"_u{8 * size}"
        case LoadPacket(mode=mode, size=size):
            name += f"_{mode}_u{8 * size}"
        case LoadImm(src=kind):
            name += f"_{o.LD_IMM64_KINDS[kind]}"
        case Atomic(op=op, size=size, fetch=fetch):
            name += f"_{'fetch_' if fetch else ''}{op}_u{8 * size}"
        case Jump(op=op, bits=bits, src=operand):
            name += f"_{op}{bits}_{'imm' if operand is None else 'reg'}"
        case Goto(long=long):
            name += "_long" if long else ""
        case Call(kind=called):
            name += f"_{called}"
    if PARAMS in (dst, src) and not isinstance(insn, LoadImm):
        name += "_r11"
    return name


ALL_FORMS = forms()
