"""Instruction streams for Hypothesis: any bytes, and programs that are mostly accepted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from harness.isa.insn import (
    Alu,
    Atomic,
    Call,
    Endian,
    Exit,
    High,
    Insn,
    Jump,
    Load,
    LoadImm,
    MayGoto,
    Store,
    StoreImm,
)
from harness.isa.stack_args import MAX_SLOTS, load_incoming, store_outgoing
from harness.legs.kernel_raw import with_btf
from harness.model import Program, Subprogram
from harness.tests.programs import ARRAY, DATA, HASH


def examples(usual: int) -> int:
    """Return how many examples a test takes: *usual*, or what $CROSSCHECK_EXAMPLES says."""
    return int(os.environ.get("CROSSCHECK_EXAMPLES", usual))


# --- any bytes --------------------------------------------------------------

# fmt: off
OPCODES = st.sampled_from([
    0x07, 0x0F, 0x17, 0x1F, 0x27, 0x2F, 0x37, 0x3F, 0x47, 0x57, 0x5F, 0x67, 0x6F, 0x77, 0x87,
    0x97, 0x9F, 0xA7, 0xAF, 0xB7, 0xBF, 0xC7, 0xD4, 0xD7, 0xDC, 0x04, 0x0C, 0xB4, 0xBC, 0x18,
    0x61, 0x69, 0x71, 0x79, 0x81, 0x62, 0x7A, 0x63, 0x7B, 0xC3, 0xDB, 0x05, 0x06, 0x15, 0x1D,
    0x25, 0x2D, 0x35, 0x45, 0x55, 0x65, 0xA5, 0xB5, 0xC5, 0x16, 0x1E, 0x85, 0x95, 0xE5,
]) | st.integers(0, 255)
# fmt: on
SLOTS = st.builds(
    lambda opcode, registers, off, imm: (
        bytes((opcode, registers)) + off.to_bytes(2, "little") + imm.to_bytes(4, "little")
    ),
    OPCODES,
    st.sampled_from([0x00, 0x10, 0x01, 0x0A, 0xA0, 0x21, 0x12, 0xB1, 0x1B]) | st.integers(0, 255),
    st.sampled_from([0, 1, 2, 8, 0xFFF8, 0xFFFF, 0xFFF0]) | st.integers(0, 0xFFFF),
    st.sampled_from([0, 1, 8, 0xFFFFFFFF, 0x80000000, 12, 5, 7]) | st.integers(0, 0xFFFFFFFF),
)
CODE = st.lists(SLOTS, min_size=1, max_size=24).map(b"".join)
TYPES = st.sampled_from(["syscall", "kprobe", "tracepoint", "xdp", "ext", "nonsense"])
END = bytes.fromhex("b7000000000000009500000000000000")

# --- what is mostly accepted ------------------------------------------------

# r9 is the context of main, and never written; the others hold scalars, at first
REGISTERS = st.sampled_from([0, 2, 3, 6, 7, 8])
NUMBERS = st.sampled_from([0, 1, 7, 8, 15, 24, 255, -1, -8, -16, 1 << 30, -(1 << 31)])
WORDS = st.sampled_from([0, 1, 7, 8, 16, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 8])
BITS = st.sampled_from([32, 64])
PLACES = st.sampled_from(
    [
        *(
            (8, -8),
            (8, -16),
            (8, -24),
            (4, -8),
            (4, -4),
            (4, -12),
            (2, -2),
            (2, -8),
            (1, -1),
            (1, -16),
        ),
    ]
)  # size and offset from r10
SIZES = st.sampled_from([1, 2, 4, 8])
COMPARISONS = ["eq", "ne", "gt", "ge", "lt", "le", "sgt", "sge", "slt", "sle", "set"]

Block = list[Insn]  # of a Jump that ends one, *off* counts blocks


def _one(strategy: st.SearchStrategy[Insn]) -> st.SearchStrategy[Block]:
    return strategy.map(lambda insn: [insn])


def _constant(dst: int, value: int) -> Block:
    return [LoadImm(dst, 0, value), High()]


def _indexed(size: int, index: int, bound: int, other: int, store: bool) -> Block:
    """Access the stack at an offset that is known only to be small."""
    place = Store(size, 5, -32, other) if store else Load(size, other, 5, -32)
    return [
        Alu("and", 64, index, None, bound & -size),
        Alu("mov", 64, 5, 10),
        Alu("add", 64, 5, index),
        place,
    ]


def _value(key: int, dst: int, off: int, size: int) -> Block:
    """Look a value up, and load from it where there is one."""
    return [
        StoreImm(4, 10, -36, key),
        *(LoadImm(1, 5, 0), High()),
        Alu("mov", 64, 2, 10),
        Alu("add", 64, 2, None, -36),
        Call("helper", 1),
        *(Alu("mov", 64, each, None, each) for each in (2, 3)),
        Jump("eq", 64, 0, None, 0, 1 << 10),  # in slots: the next one
        Load(size, dst, 0, off),
        Alu("mov", 64, 0, None, 3),
    ]


INITIALISE = [StoreImm(8, 10, -8 * n, n) for n in range(1, 6)]
BLOCKS: st.SearchStrategy[Block] = st.one_of(
    _one(
        st.builds(
            Alu,
            st.sampled_from(["add", "sub", "mul", "and", "or", "xor", "div", "mod", "mov"]),
            BITS,
            REGISTERS,
            REGISTERS,
        )
    ),
    _one(
        st.builds(
            lambda op, bits, dst, imm: Alu(op, bits, dst, None, imm),
            st.sampled_from(["add", "and", "or", "mov", "mul", "sub", "xor", "sdiv", "smod"]),
            BITS,
            REGISTERS,
            NUMBERS.filter(bool),
        )
    ),
    _one(
        st.builds(
            lambda op, bits, dst, imm: Alu(op, bits, dst, None, imm),
            st.sampled_from(["lsh", "rsh", "arsh"]),
            BITS,
            REGISTERS,
            st.integers(0, 31),
        )
    ),
    _one(st.builds(lambda dst, bits: Alu("neg", bits, dst, None), REGISTERS, BITS)),
    _one(
        st.builds(
            lambda dst, src, form: Alu("mov", form[0], dst, src, sx=form[1]),
            REGISTERS,
            REGISTERS,
            st.sampled_from([(32, 8), (32, 16), (64, 8), (64, 16), (64, 32)]),
        )
    ),
    _one(
        st.builds(Endian, st.sampled_from(["le", "be", "bswap"]), st.sampled_from([16, 32, 64]),
                  REGISTERS)
    ),
    st.builds(_constant, REGISTERS, WORDS),
    _one(st.builds(lambda dst, place: Load(place[0], dst, 10, place[1]), REGISTERS, PLACES)),
    _one(
        st.builds(
            lambda dst, place: Load(place[0], dst, 10, place[1], signed=True),
            REGISTERS,
            PLACES.filter(lambda place: place[0] < 8),
        )
    ),
    _one(st.builds(Load, SIZES, REGISTERS, st.just(9), st.sampled_from([0, 8, 16, 64]))),
    _one(st.builds(lambda src, place: Store(place[0], 10, place[1], src), REGISTERS, PLACES)),
    _one(st.builds(lambda imm, place: StoreImm(place[0], 10, place[1], imm), NUMBERS, PLACES)),
    _one(st.builds(Store, st.just(8), st.just(10), st.sampled_from([-8, -16]), REGISTERS)),
    _one(
        st.builds(
            lambda op, size, off, src: Atomic(op[0], size, 10, off, src, op[1]),
            st.sampled_from(
                [("add", False), ("and", True), ("xor", True), ("xchg", True), ("cmpxchg", True)]
            ),
            st.sampled_from([4, 8]),
            st.sampled_from([-8, -16, -24]),
            REGISTERS,
        )
    ),
    _one(
        st.builds(
            lambda op, bits, dst, imm, off: Jump(op, bits, dst, None, imm, off),
            st.sampled_from(COMPARISONS),
            BITS,
            REGISTERS,
            NUMBERS,
            st.integers(1, 4),
        )
    ),
    _one(
        st.builds(
            Jump, st.sampled_from(COMPARISONS), BITS, REGISTERS, REGISTERS, st.just(0),
            st.integers(1, 4),
        )
    ),
    st.builds(
        _indexed, SIZES, REGISTERS, st.sampled_from([0, 7, 8, 15, 24]), REGISTERS, st.booleans()
    ),
    st.builds(_value, st.integers(0, 9), REGISTERS, st.sampled_from([0, 4, 8]), SIZES),
)  # fmt: skip


def _call(slots: Sequence[int], sources: Sequence[int], constant: int) -> Block:
    """Call the second function with arguments in all registers and in *slots*."""
    block: Block = [store_outgoing(slot, src) for slot, src in zip(slots, sources, strict=False)]
    block += [StoreImm(8, 11, -8 * slot, constant) for slot in slots[len(sources) :]]
    block += [Alu("mov", 64, 1, 6), Alu("mov", 64, 2, 7), Alu("mov", 64, 3, 10)]
    block += [Alu("mov", 64, 4, 8), Alu("mov", 64, 5, None, constant), Call("subprog", 0)]
    return block + [Alu("mov", 64, each, None, each) for each in (2, 3)]


CALLS = st.builds(
    _call,
    st.just(range(1, MAX_SLOTS + 1)),
    st.lists(st.sampled_from([6, 7, 8, 10]), max_size=MAX_SLOTS),
    NUMBERS,
)
MAIN: Block = [
    Alu("mov", 64, 9, 1),
    Load(8, 6, 1, 0),
    Load(8, 7, 1, 8),
    Load(4, 8, 1, 16),
    *(Alu("mov", 64, dst, None, 5) for dst in (0, 2, 3)),
    *INITIALISE,
]


def _function(slots: Sequence[int]) -> Block:
    """Begin a function that takes twelve arguments and looks at *slots*; its r9 is its r10."""
    loads: Block = [load_incoming(dst, slot) for dst, slot in zip((6, 7, 8), slots, strict=False)]
    rest: Block = [Alu("mov", 64, dst, None, dst) for dst in (6, 7, 8)[len(loads) :]]
    most = load_incoming(0, MAX_SLOTS)
    return [*loads, most, *rest, Alu("mov", 64, 0, None, 1), Alu("mov", 64, 9, 10),
            Alu("add", 64, 9, None, -72), *INITIALISE,
            *(StoreImm(8, 10, -8 * n, n) for n in range(6, 10)),
            *(Alu("mov", 64, each, None, 4) for each in (2, 3))]  # fmt: skip


def _loop(body: Sequence[Block], times: int, unbounded: bool) -> Block:
    """Repeat *body*, whose jumps stay in it, *times*, or until may_goto ends it."""
    inner = _joined(body)
    start: Block = [StoreImm(8, 10, -64, 0)]
    head: Block = [MayGoto(len(inner) + 4)] if unbounded else []
    count: Block = [Load(8, 1, 10, -64), Alu("add", 64, 1, None, 1), Store(8, 10, -64, 1)]
    back = Jump("lt", 64, 1, None, times, 0)
    whole: Block = [*head, *inner, *count]
    return [*start, *whole, replace(back, off=-len(whole) - 1)]


def _joined(blocks: Sequence[Block]) -> Block:
    """Return the instructions of *blocks*; jumps that end one skip blocks."""
    starts, total = [], 0
    for block in blocks:
        starts.append(total)
        total += len(block)
    starts.append(total)
    insns: Block = []
    for number, block in enumerate(blocks):
        for insn in block:
            if isinstance(insn, Jump) and insn.off == 1 << 10:
                insn = replace(insn, off=1)
            elif isinstance(insn, Jump) and len(block) == 1:
                to = starts[min(number + 1 + insn.off, len(blocks))]
                insn = replace(insn, off=to - len(insns) - 1)
            insns.append(insn)
    return insns


PLAIN = st.lists(BLOCKS, min_size=1, max_size=16)
BODIES = st.lists(
    st.one_of(
        BLOCKS,
        CALLS,
        st.builds(_loop, st.lists(BLOCKS, max_size=5), st.integers(1, 6), st.booleans()),
    ),
    min_size=1,
    max_size=16,
)


def _program(main: list[Block], slots: list[int], function: list[Block]) -> Program:
    leave: Block = [Alu("mov", 64, 0, None, 0), Exit()]
    first = [*MAIN, *_joined(main), *leave]
    second = [*_function(slots), *_joined(function), *leave]
    insns = [*first, *second]
    for at, insn in enumerate(first):
        if insn == Call("subprog", 0):
            insns[at] = Call("subprog", len(first) - at - 1)
    subprograms = [Subprogram("main", 0, len(first))]
    if any(isinstance(insn, Call) and insn.kind == "subprog" for insn in first):
        subprograms.append(Subprogram("second", len(first), len(insns)))
    else:
        insns = first
    whole = Program(
        "main", "syscall", "syscall", tuple(insns), tuple(subprograms), (HASH, ARRAY, DATA)
    )
    return with_btf(whole)


PROGRAMS = st.builds(
    _program,
    BODIES,
    st.lists(st.integers(1, MAX_SLOTS), max_size=3, unique=True),
    PLAIN,
)
VECTORS = st.lists(WORDS, min_size=3, max_size=3).map(
    lambda words: b"".join(word.to_bytes(8, "little") for word in words) + bytes(4096)
)
