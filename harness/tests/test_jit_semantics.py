"""What the JIT's code does, in unicorn, against RFC 9669 written out here."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from typing import Any

import pytest
import unicorn as unicorn_module
from unicorn import x86_const as u

from harness.isa.asm import assemble
from harness.isa.insn import (
    Alu,
    Atomic,
    Call,
    Endian,
    Exit,
    Insn,
    Jump,
    Load,
    Store,
    StoreImm,
)
from harness.isa.stack_args import load_incoming, store_outgoing
from harness.jit.linker import Linked, link
from harness.jit.x86_64 import Options
from harness.jit.x86_64 import compile as compile_program
from harness.model import Frame, Image, Program, Relocation, Subprogram

unicorn: Any = unicorn_module  # it says it is typed, and is not

CODE, STACK, MEMORY = 0x10_0000, 0x20_0000, 0x30_0000
SIZE = 0x1_0000
TOP = STACK + SIZE - 0x800
RETURN = CODE + SIZE - 16  # where a call returns to, and emulation stops

# BPF registers 0 to 10, as Linux maps them
REGISTERS = (
    u.UC_X86_REG_RAX, u.UC_X86_REG_RDI, u.UC_X86_REG_RSI, u.UC_X86_REG_RDX, u.UC_X86_REG_RCX,
    u.UC_X86_REG_R8, u.UC_X86_REG_RBX, u.UC_X86_REG_R13, u.UC_X86_REG_R14, u.UC_X86_REG_R15,
    u.UC_X86_REG_RBP,
)  # fmt: skip
ARGUMENTS = (
    u.UC_X86_REG_RDI, u.UC_X86_REG_RSI, u.UC_X86_REG_RDX, u.UC_X86_REG_RCX, u.UC_X86_REG_R8,
    u.UC_X86_REG_R9,
)  # fmt: skip
KEPT = (
    u.UC_X86_REG_RBX, u.UC_X86_REG_RBP, u.UC_X86_REG_R12, u.UC_X86_REG_R13, u.UC_X86_REG_R14,
    u.UC_X86_REG_R15,
)  # fmt: skip

VALUES = (
    0, 1, 2, 0x7F, 0x80, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000,
    0x7FFF_FFFF_FFFF_FFFF, 0x8000_0000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF, 0x0123_4567_89AB_CDEF,
)  # fmt: skip
IMMEDIATES = (0, 1, -1, 127, 128, -128, -129, 0x7FFF_FFFF, -0x8000_0000, 31)
M64 = (1 << 64) - 1

Body = tuple[Insn, ...]


@cache
def machine() -> Any:
    emulator = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    for area in (CODE, STACK, MEMORY):
        emulator.mem_map(area, SIZE)
    return emulator


def no_outside(relocation: Relocation) -> int:
    raise AssertionError(f"{relocation} is outside the program")


def load(
    *bodies: Body, depths: Sequence[int] = (), options: Options | None = None
) -> tuple[Image, Linked]:
    """Compile, link and load subprograms of a stack depth each (64 bytes), and return both."""
    subs: list[Subprogram] = []
    insns: Body = ()
    for index, body in enumerate(bodies):
        subs.append(Subprogram(f"f{index}", len(insns), len(insns) + len(body)))
        insns += body
    frames = tuple(map(Frame, depths or (64,) * len(bodies)))
    program = Program("p", "", "", insns, tuple(subs), frames=frames)
    image = compile_program(program, options or Options())
    assert isinstance(image, Image), image
    linked = link(image, CODE, no_outside)
    machine().mem_write(CODE, linked.code)
    machine().ctl_remove_cache(CODE, CODE + SIZE)
    return image, linked


def call(linked: Linked, arguments: Sequence[int], name: str = "f0") -> int:
    """Call a function as System V says, check that it keeps what it must, return rax."""
    emulator = machine()
    for register, value in zip(ARGUMENTS, arguments, strict=False):
        emulator.reg_write(register, value)
    later = arguments[len(ARGUMENTS) :]
    frame = struct.pack(f"<{1 + len(later)}Q", RETURN, *later)
    emulator.mem_write(TOP, frame)
    emulator.reg_write(u.UC_X86_REG_RSP, TOP)
    for index, register in enumerate(KEPT):
        emulator.reg_write(register, 0x5AFE_0000 + index)
    emulator.emu_start(linked.symbols[name], RETURN, count=100_000)
    assert emulator.reg_read(u.UC_X86_REG_RIP) == RETURN
    assert emulator.reg_read(u.UC_X86_REG_RSP) == TOP + 8
    assert [emulator.reg_read(register) for register in KEPT] == [
        0x5AFE_0000 + index for index in range(len(KEPT))
    ]
    return int(emulator.reg_read(u.UC_X86_REG_RAX))


def step(image: Image, registers: Sequence[int]) -> list[int]:
    """Run the first instruction alone with *registers* r0 to r9; return r0 to r9 after it."""
    emulator, sub = machine(), image.subprograms[0]
    for register, value in zip(REGISTERS, registers, strict=False):
        emulator.reg_write(register, value)
    emulator.reg_write(u.UC_X86_REG_RBP, TOP)
    emulator.reg_write(u.UC_X86_REG_RSP, TOP - 0x200)
    emulator.emu_start(CODE + sub.addrs[0], CODE + sub.addrs[1], count=1000)
    assert emulator.reg_read(u.UC_X86_REG_RIP) == CODE + sub.addrs[1]
    assert emulator.reg_read(u.UC_X86_REG_RSP) == TOP - 0x200
    assert emulator.reg_read(u.UC_X86_REG_RBP) == TOP
    return [emulator.reg_read(register) for register in REGISTERS[:10]]


# --- RFC 9669 in Python -----------------------------------------------------


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


# fmt: off
PLAIN: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda a, b, _: a + b,
    "sub": lambda a, b, _: a - b,
    "mul": lambda a, b, _: a * b,
    "or":  lambda a, b, _: a | b,
    "and": lambda a, b, _: a & b,
    "xor": lambda a, b, _: a ^ b,
    "mov": lambda _, b, __: b,
    "neg": lambda a, _, __: -a,
    "lsh":  lambda a, b, bits: a << b % bits,
    "rsh":  lambda a, b, bits: a >> b % bits,
    "arsh": lambda a, b, bits: signed(a, bits) >> b % bits,
}
# fmt: on


def alu(op: str, bits: int, dst: int, operand: int) -> int | None:
    """Section 4.1; None where the fix-ups must have removed the instruction."""
    mask = (1 << bits) - 1
    a, b = dst & mask, operand & mask
    if op in PLAIN:
        return PLAIN[op](a, b, bits) & mask
    if op in ("sdiv", "smod"):
        a, b = signed(a, bits), signed(b, bits)
        if b in (0, -1):
            return None
    elif b == 0:
        return None
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return (quotient if op in ("div", "sdiv") else a - quotient * b) & mask


def taken(op: str, bits: int, dst: int, operand: int) -> bool:
    """Section 4.3."""
    mask = (1 << bits) - 1
    a, b = dst & mask, operand & mask
    x, y = signed(a, bits), signed(b, bits)
    return {
        "eq": a == b, "ne": a != b, "set": bool(a & b),
        "gt": a > b, "ge": a >= b, "lt": a < b, "le": a <= b,
        "sgt": x > y, "sge": x >= y, "slt": x < y, "sle": x <= y,
    }[op]  # fmt: skip


SHIFTS = ["lsh", "rsh", "arsh"]
BINARY = [op for op in PLAIN if op != "neg"] + ["div", "mod", "sdiv", "smod"]


# --- arithmetic -------------------------------------------------------------


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("op", BINARY)
def test_alu_on_boundary_operands(op: str, bits: int) -> None:
    image, _ = load((Alu(op, bits, 1, 2), Exit()))
    for a, b in product(VALUES, VALUES):
        expected = alu(op, bits, a, b)
        if expected is not None:
            found = step(image, [0, a, b, 3, 4, 5, 6, 7, 8, 9])
            assert (hex(a), hex(b), found) == (
                hex(a), hex(b), [0, expected, b, 3, 4, 5, 6, 7, 8, 9],
            )  # fmt: skip


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize(
    ("op", "bmi2"), [*((op, True) for op in BINARY), *((op, False) for op in SHIFTS)]
)
def test_alu_on_every_pair_of_registers(op: str, bits: int, bmi2: bool) -> None:
    """And nothing but the destination changes."""
    for dst, src in product(range(10), range(10)):
        image, _ = load((Alu(op, bits, dst, src), Exit()), options=Options(bmi2=bmi2))
        before = [0xF000_0000_F000_0001 + 0x11 * register for register in range(10)]
        before[src] = 0xFFFF_FFF0_FFFF_FFF5
        result = alu(op, bits, before[dst], before[src])
        assert result is not None
        expected = before.copy()
        expected[dst] = result
        assert (dst, src, step(image, before)) == (dst, src, expected)


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("op", BINARY)
def test_alu_on_immediates(op: str, bits: int) -> None:
    immediates = (0, 1, 7, bits - 1) if op in SHIFTS else IMMEDIATES
    for imm, dst in product(immediates, (0, 3, 4, 5)):
        if alu(op, bits, 1, imm) is None:
            continue
        image, _ = load((Alu(op, bits, dst, None, imm), Exit()))
        for value in VALUES:
            before = [register << 33 for register in range(10)]
            before[dst] = value
            result = alu(op, bits, value, imm)
            assert result is not None
            expected = before.copy()
            expected[dst] = result
            assert (imm, hex(value), step(image, before)) == (imm, hex(value), expected)


@pytest.mark.parametrize("bits", [64, 32])
def test_negation(bits: int) -> None:
    for dst in (0, 5, 6):
        image, _ = load((Alu("neg", bits, dst, None), Exit()))
        for value in VALUES:
            assert step(image, [value] * 10)[dst] == alu("neg", bits, value, 0)


@pytest.mark.parametrize(("sx", "bits"), [(8, 64), (16, 64), (32, 64), (8, 32), (16, 32)])
def test_sign_extending_moves(sx: int, bits: int) -> None:
    for dst, src in product((0, 2, 5, 7), (0, 1, 5, 9)):
        image, _ = load((Alu("mov", bits, dst, src, 0, sx), Exit()))
        for value in VALUES:
            found = step(image, [value] * 10)[dst]
            assert found == signed(value, sx) & (1 << bits) - 1


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("op", ["le", "be", "bswap"])
def test_byte_order(op: str, bits: int) -> None:
    for dst in (0, 1, 5, 9):
        image, _ = load((Endian(op, bits, dst), Exit()))
        for value in VALUES:
            low = (value & (1 << bits) - 1).to_bytes(bits // 8, "little")
            expected = int.from_bytes(low, "little" if op == "le" else "big")
            assert step(image, [value] * 10)[dst] == expected


# --- jumps ------------------------------------------------------------------

JUMPS = ["eq", "ne", "set", "gt", "ge", "lt", "le", "sgt", "sge", "slt", "sle"]


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("op", JUMPS)
def test_conditions(op: str, bits: int) -> None:
    def after(jump: Insn) -> Linked:
        return load((jump, result(0), Exit(), result(1), Exit()))[1]

    def result(value: int) -> Insn:
        return Alu("mov", 64, 0, None, value)

    linked = after(Jump(op, bits, 1, 2, 0, 2))
    for a, b in product(VALUES, VALUES):
        assert call(linked, [a, b]) == taken(op, bits, a, b), (hex(a), hex(b))
    for imm in IMMEDIATES:
        linked = after(Jump(op, bits, 1, None, imm, 2))
        for a in VALUES:
            assert call(linked, [a]) == taken(op, bits, a, imm), (hex(a), imm)


@pytest.mark.parametrize("between", [0, 1, 40, 41, 42, 43, 44, 45, 60, 20_000])
def test_jumps_of_every_length(between: int) -> None:
    """Forward and backward, over so many instructions of 3 bytes."""
    filler: Body = (Alu("add", 64, 3, 3),) * between
    body: Body = (
        Alu("mov", 64, 0, None, 0),
        Jump("eq", 64, 1, None, 0, between + 3),  # to the exit
        Alu("add", 64, 1, None, -1),
        *filler,
        Alu("add", 64, 0, None, 1),
        Jump("ne", 64, 2, None, 0, -between - 4),  # back to the first jump
        Exit(),
    )
    _, linked = load(body)
    assert call(linked, [3, 1]) == 3
    assert call(linked, [3, 0]) == 1


# --- memory -----------------------------------------------------------------

PATTERN = bytes(range(0x71, 0x71 + 0x20)) + bytes(range(0x91, 0xF1))


@pytest.mark.parametrize("off", [0, 1, 8, -8, 127, 128, -128, -129])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_loads_and_stores(size: int, off: int) -> None:
    base = MEMORY + 0x400
    mask = (1 << 8 * size) - 1
    value = 0x8182_8384_8586_8788
    for address, data in product(range(10), range(10)):
        registers = [value] * 10
        registers[address] = base
        machine().mem_write(base + off, PATTERN)
        image, _ = load((Load(size, data, address, off), Exit()))
        little = int.from_bytes(PATTERN[:size], "little")
        assert step(image, registers)[data] == little
        if size < 8:
            image, _ = load((Load(size, data, address, off, signed=True), Exit()))
            assert step(image, registers)[data] == signed(little, 8 * size) & M64
        image, _ = load((Store(size, address, off, data), Exit()))
        assert step(image, registers) == registers
        written = bytes(machine().mem_read(base + off, size + 8))
        assert written == (registers[data] & mask).to_bytes(size, "little") + PATTERN[size:][:8]
        image, _ = load((StoreImm(size, address, off, -2), Exit()))
        assert step(image, registers) == registers
        written = bytes(machine().mem_read(base + off, size + 8))
        assert written == (-2 & mask).to_bytes(size, "little") + PATTERN[size:][:8]


ATOMIC = {"add": int.__add__, "or": int.__or__, "and": int.__and__, "xor": int.__xor__}


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize(
    ("op", "fetch"),
    [*product(ATOMIC, (False, True)), ("xchg", True), ("cmpxchg", True)],
)
def test_atomics(op: str, fetch: bool, size: int) -> None:
    """Section 5.3: what is in memory, and in every register, afterwards."""
    base, off, mask = MEMORY + 0x400, -16, (1 << 8 * size) - 1
    for address, data in product(range(10), range(10)):
        if address == data:
            continue  # an address as the operand: nothing that a program does
        image, _ = load((Atomic(op, size, address, off, data, fetch), Exit()))
        for old, hit in product((0x8000_0001_F000_000F, 0x7), (False, True)):
            registers = [0x1122_3344_5566_7700 + register for register in range(10)]
            if hit and op == "cmpxchg":
                registers[0] = old & mask
            registers[address] = base
            operand = registers[data]
            machine().mem_write(base + off, struct.pack("<Q", old))
            expected = registers.copy()
            stored = operand
            if op == "cmpxchg":
                equal = old & mask == registers[0] & mask
                stored = operand if equal else old
                expected[0] = old & mask if size == 8 or not equal else registers[0] & mask
            elif op in ATOMIC:
                stored = ATOMIC[op](old, operand)
            if fetch and op != "cmpxchg":
                expected[data] = old & mask
            after = step(image, registers)
            if op == "cmpxchg" and size == 4:
                after[0] &= mask
            memory = struct.unpack("<Q", machine().mem_read(base + off, 8))[0]
            assert (address, data, after) == (address, data, expected)
            assert memory == old & ~mask | stored & mask


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_ordered_loads_and_stores(size: int) -> None:
    base, mask = MEMORY + 0x400, (1 << 8 * size) - 1
    for one, other in product((0, 1, 2, 5, 6, 9), (0, 1, 2, 5, 7)):
        registers = [0x8182_8384_8586_8788] * 10
        registers[other] = base
        machine().mem_write(base + 8, PATTERN)
        image, _ = load((Atomic("load_acquire", size, one, 8, other), Exit()))
        assert step(image, registers)[one] == int.from_bytes(PATTERN[:size], "little")
        image, _ = load((Atomic("store_release", size, other, 8, one), Exit()))
        step(image, registers)
        expected = (registers[one] & mask).to_bytes(size, "little") + PATTERN[size:][:8]
        assert bytes(machine().mem_read(base + 8, size + 8)) == expected


# --- calls and stack arguments ----------------------------------------------


def weigh(count: int) -> Body:
    """Return a function of *count* arguments: the sum of each times its number."""
    body: list[Insn] = [Alu("mov", 64, 0, None, 0)]
    for slot in range(1, count - 4):  # incoming ones first, as the verifier wants it
        body += [
            load_incoming(6, slot),
            Alu("mul", 64, 6, None, slot + 5),
            Alu("add", 64, 0, 6),
        ]
    for register in range(1, min(count, 5) + 1):
        body += [Alu("mul", 64, register, None, register), Alu("add", 64, 0, register)]
    return (*body, Exit())


def weighed(arguments: Sequence[int]) -> int:
    return sum(number * value for number, value in enumerate(arguments, 1)) & M64


@pytest.mark.parametrize("count", range(1, 13))
def test_called_from_native_code(count: int) -> None:
    """System V from outside: argument 6 in r9, later ones on the stack."""
    _, linked = load(weigh(count))
    arguments = [0x0101_0101_0101_0101 * number + number for number in range(1, count + 1)]
    assert call(linked, arguments) == weighed(arguments)


@pytest.mark.parametrize("depth", [0, 8, 112, 512])
@pytest.mark.parametrize("saved", range(5))
@pytest.mark.parametrize("count", range(6, 13))
def test_calls_with_stack_arguments(count: int, saved: int, depth: int) -> None:
    """Registers and immediates out, whatever the frame holds besides."""
    keep = [Alu("mov", 64, 6 + number, 1) for number in range(saved)]
    give: list[Insn] = []
    for slot in range(1, count - 4):
        imm = -1000 * slot
        give.append(StoreImm(8, 11, -8 * slot, imm) if slot % 2 else store_outgoing(slot, 2))
    fence: list[Insn] = [StoreImm(8, 10, -depth, 77)] if depth else []
    check: list[Insn] = [Load(8, 1, 10, -depth), Alu("add", 64, 0, 1)] if depth else []
    check += [Alu("add", 64, 0, 6 + number) for number in range(saved)]
    main = (*fence, *keep, *give, Call("subprog", len(check) + 1), *check, Exit())
    _, linked = load(main, weigh(count), depths=(depth, 0))
    arguments = [11, 22, 33, 44, 55]
    for slot in range(1, count - 4):
        arguments.append(-1000 * slot if slot % 2 else 22)
    expected = weighed(arguments) + (77 if depth else 0) + 11 * saved
    assert call(linked, [11, 22, 33, 44, 55]) == expected & M64


def test_forwards_arguments_through_eight_frames() -> None:
    """Twelve arguments, each frame rotates the stack ones by one and adds its own."""
    frames = 8
    bodies: list[Body] = []
    for number in range(frames - 1):
        take: list[Insn] = []
        for slot in range(1, 8):  # spilled: all are read before the first is written
            take += [load_incoming(0, slot), Store(8, 10, -8 * slot, 0)]
        give: list[Insn] = []
        for slot in range(1, 8):
            give += [Load(8, 0, 10, -8 * (slot % 7 + 1)), store_outgoing(slot, 0)]
        keep = Alu("mov", 64, 6 + number % 4, 3)
        after = Alu("add", 64, 0, 6 + number % 4)
        bodies.append((*take, *give, keep, Call("subprog", 2), after, Exit()))
    bodies.append(weigh(12))
    _, linked = load(*bodies)
    arguments = [100 * number + 7 for number in range(1, 13)]
    last = arguments[:5] + arguments[5:]
    for _ in range(frames - 1):
        last = last[:5] + last[6:] + last[5:6]
    expected = weighed(last) + (frames - 1) * arguments[2]
    assert call(linked, arguments) == expected & M64


def test_calls_leave_the_callers_arguments_alone() -> None:
    """Two calls in turn with other arguments in the same slots; argument 6 in a loop."""
    main = assemble("""
        r6 = 3
        r7 = 0
    again:
        *(u64 *)(r11 - 8) = r6
        *(u64 *)(r11 - 16) = 5
        call weigh
        r7 += r0
        r6 += -1
        if r6 != 0 goto again
        r0 = r7
        exit
    weigh:
    """).insns
    _, linked = load(main, weigh(7))
    out = call(linked, [0, 0, 0, 0, 0])
    assert out == sum(6 * six + 7 * 5 for six in (3, 2, 1))


def test_tail_call_counter_stays_below_the_saved_registers() -> None:
    """A subprogram that could make a tail call still returns to its caller."""
    body = (Alu("mov", 64, 6, 1), Call("subprog", 2), Alu("add", 64, 0, 6), Exit())
    callee = (Alu("mov", 64, 0, None, 5), Exit())
    insns = body + callee
    subs = (Subprogram("f0", 0, 4), Subprogram("f1", 4, 6))
    frames = (Frame(16, tail_call_reachable=True),) * 2
    image = compile_program(Program("p", "", "", insns, subs, frames=frames))
    assert isinstance(image, Image)
    linked = link(image, CODE, no_outside)
    machine().mem_write(CODE, linked.code)
    machine().ctl_remove_cache(CODE, CODE + SIZE)
    assert call(linked, [37]) == 42
