"""The conformance kit: small programs with what they must do, for every leg to pass.

Expectations are written by hand from RFC 9669 and, for stack arguments, from
isa/stack_args.py; none is computed by code of ours. ``CHECKS`` holds what every leg
must do; a program in it is one a verifier accepts, unless its outcome is a trap.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.isa.asm import assemble
from harness.isa.insn import (
    R0,
    R1,
    R2,
    R3,
    R10,
    Alu,
    Atomic,
    Exit,
    Insn,
    Jump,
    Load,
    Store,
    StoreImm,
)
from harness.model import (
    MapDef,
    Outcome,
    OutOfFuel,
    Program,
    Returned,
    Runner,
    Subprogram,
    Trapped,
    Unknown,
    Vector,
)


@dataclass(frozen=True, slots=True)
class Check:
    """A program, and what it does on each of some vectors."""

    name: str
    program: Program
    runs: tuple[tuple[Vector, Outcome], ...]
    fixups: bool = False  # right only after the verifier's fix-ups (division by zero, may_goto)


Prepare = Callable[[Program], Runner | Unknown]


def check_leg(prepare: Prepare, check: Check) -> list[str]:
    """Return what the leg behind *prepare* does otherwise than *check* says, one line each.

    All vectors go in one batch, which is then run again backwards, so that nothing a
    vector leaves behind may reach another. Traps compare by kind.
    """
    runner = prepare(check.program)
    if isinstance(runner, Unknown):
        return [f"{check.name}: not prepared: {runner.why}"]
    vectors = [vector for vector, _ in check.runs]
    there, back = runner.run(vectors), runner.run(vectors[::-1])[::-1]
    wrong = []
    for way, outcomes in (("forwards", there), ("backwards", back)):
        for (vector, expected), outcome in zip(check.runs, outcomes, strict=True):
            if not _same(expected, outcome):
                wrong.append(f"{check.name}: {vector.hex()} {way}: {outcome}, not {expected}")
    return wrong


def _same(expected: Outcome, outcome: Outcome) -> bool:
    if isinstance(expected, Trapped) and isinstance(outcome, Trapped):
        return expected.kind == outcome.kind
    return expected == outcome


# --- building programs --------------------------------------------------------

U64, MIN64, MAX64 = 0xFFFF_FFFF_FFFF_FFFF, 0x8000_0000_0000_0000, 0x7FFF_FFFF_FFFF_FFFF
U32, MIN32, MAX32 = 0xFFFF_FFFF, 0x8000_0000, 0x7FFF_FFFF


def _program(
    insns: Sequence[Insn], starts: dict[str, int] | None = None, maps: Sequence[MapDef] = ()
) -> Program:
    """Return a program of *insns*; *starts*: the slots its subprograms start at."""
    names = sorted((starts or {"main": 0}).items(), key=lambda item: item[1])
    ends = [start for _, start in names[1:]] + [len(insns)]
    subprograms = (
        Subprogram(name, start, end) for (name, start), end in zip(names, ends, strict=True)
    )
    return Program(
        "main", "syscall", "syscall", tuple(insns), tuple(subprograms), maps=tuple(maps)
    )


def _text(text: str, maps: Sequence[MapDef] = ()) -> Program:
    """Return the program *text* assembles to; labels that begin with a small letter start
    subprograms."""
    assembly = assemble(text)
    starts = {name: slot for name, slot in assembly.labels.items() if name[0].islower()}
    return _program(assembly.insns, starts, maps)


def _words(*values: int) -> bytes:
    """Return *values* as the 64-bit words of a context."""
    return b"".join((value & U64).to_bytes(8, "little") for value in values)


def _gives(r0: int, *words: int) -> tuple[Vector, Outcome]:
    """Return the run on a context of *words*, which stays as it is, that returns *r0*."""
    return _words(*words), Returned(r0 & U64, _words(*words))


def _changes(r0: int, before: Sequence[int], after: Sequence[int]) -> tuple[Vector, Outcome]:
    """Return the run that returns *r0* and changes a context of words."""
    return _words(*before), Returned(r0 & U64, _words(*after))


def _signed_imm(value: int, bits: int) -> int | None:
    """Return the immediate that stands for *value* in an instruction of *bits*, if any."""
    if bits == 32:
        value = (value & U32 ^ MIN32) - MIN32
    else:
        value = (value & U64 ^ MIN64) - MIN64
    return value if -MIN32 <= value <= MAX32 else None


_A, _B = Load(8, R2, R1, 0), Load(8, R3, R1, 8)  # the words of the context
_GIVE = Alu("mov", 64, R0, R2)


# --- arithmetic: RFC 9669, section 4.1 ------------------------------------------

# fmt: off
# operation, bits, rows of dst, operand, result
BINARY = (
    ("add", 64, ((1, 2, 3), (U64, 1, 0), (MAX64, 1, MIN64), (U32, 1, 0x1_0000_0000),
                 (0x1234_5678_9ABC_DEF0, U64, 0x1234_5678_9ABC_DEEF), (5, 0x1234_5678, 0x1234_567D))),
    ("add", 32, ((U32, 1, 0), (U64, U64, 0xFFFF_FFFE), (0x1_0000_0001, 0x2_0000_0002, 3),
                 (MAX32, 1, MIN32), (5, 0x1234_5678, 0x1234_567D))),
    ("sub", 64, ((3, 5, 0xFFFF_FFFF_FFFF_FFFE), (0, 1, U64), (MIN64, 1, MAX64),
                 (0x1_0000_0000, 1, U32), (0, MIN64, MIN64), (0x1234_5678, 0x1234_5677, 1))),
    ("sub", 32, ((0, 1, U32), (0x5_0000_0000, 0x1_0000_0001, U32), (MIN32, 1, MAX32))),
    ("mul", 64, ((7, 6, 42), (U64, U64, 1), (0x1_0000_0000, 0x1_0000_0000, 0), (MIN64, 2, 0),
                 (U32, U32, 0xFFFF_FFFE_0000_0001), (3, U64, 0xFFFF_FFFF_FFFF_FFFD),
                 (3, 1000, 3000))),
    ("mul", 32, ((U32, U32, 1), (0x1_0000, 0x1_0000, 0), (0x9_0000_0003, 0x7_0000_0005, 15),
                 (3, 1000, 3000))),
    ("div", 64, ((7, 2, 3), (U64, 2, MAX64), (U64, U64, 1), (1, U64, 0), (MIN64, U64, 0),
                 (0x1_0000_0000, 0x10, 0x1000_0000), (7, 1, 7))),
    ("div", 32, ((0x9_0000_0007, 0x1_0000_0002, 3), (U32, 2, MAX32), (U64, U32, 1),
                 (MIN32, U64, 0), (0x3_0000_0007, 1, 7))),
    ("mod", 64, ((7, 3, 1), (U64, 10, 5), (MIN64, U64, MIN64), (6, U64, 6), (9, 1, 0))),
    ("mod", 32, ((0x1_0000_0007, 4, 3), (U32, 10, 5), (MIN32, U64, MIN32), (0x1_0000_0009, 1, 0))),
    ("sdiv", 64, ((-7, 2, -3), (7, -2, -3), (-7, -2, 3), (MIN64, 1, MIN64), (MIN64, 2, -1 << 62),
                  (MAX64, -1, MIN64 + 1), (U64, 2, 0))),
    ("sdiv", 32, ((0xFFFF_FFF9, 2, 0xFFFF_FFFD), (7, 0xFFFF_FFFE, 0xFFFF_FFFD),
                  (0x1_FFFF_FFF9, 0xFFFF_FFFE, 3), (MAX32, U32, 0x8000_0001), (U32, 2, 0))),
    ("smod", 64, ((-7, 3, -1), (7, -3, 1), (-7, -3, -1), (MIN64, 10, -8), (7, 7, 0))),
    ("smod", 32, ((0xFFFF_FFF9, 3, U32), (7, 0xFFFF_FFFD, 1), (0x1_FFFF_FFF9, 0xFFFF_FFFD, U32),
                  (MIN32, 10, 0xFFFF_FFF8))),
    ("or",  64, ((0xF0, 0x0F, 0xFF), (1, MIN64, MIN64 + 1), (0, -128, -128), (1, 0x1234_5670, 0x1234_5671))),
    ("or",  32, ((0xF_0000_00F0, 0x0F, 0xFF), (1, MIN32, MIN32 + 1), (0, U64, U32))),
    ("and", 64, ((0xFF, 0x0F, 0x0F), (U64, MIN64, MIN64), (U64, -16, -16), (U64, 0x1234_5678, 0x1234_5678))),
    ("and", 32, ((U64, 0x0F, 0x0F), (U64, U64, U32), (0xFF, -16, 0xF0))),
    ("xor", 64, ((0xFF, 0x0F, 0xF0), (U64, U64, 0), (0, -1, U64), (MIN64, 1, MIN64 + 1))),
    ("xor", 32, ((0x5_0000_00FF, 0x0F, 0xF0), (0, U64, U32), (U64, U64, 0))),
    ("lsh", 64, ((1, 63, MIN64), (0x1234, 4, 0x1_2340), (3, 63, MIN64), (5, 0, 5), (U64, 1, U64 - 1))),
    ("lsh", 32, ((1, 31, MIN32), (0x1_8000_0001, 1, 2), (0x1_0000_0005, 0, 5), (0x1234, 4, 0x1_2340))),
    ("rsh", 64, ((MIN64, 63, 1), (U64, 1, MAX64), (0x1234, 4, 0x123), (MIN64, 0, MIN64))),
    ("rsh", 32, ((0x1_8000_0000, 31, 1), (U64, 4, 0x0FFF_FFFF), (0x1_0000_0005, 0, 5), (U64, 1, MAX32))),
    ("arsh", 64, ((MIN64, 63, U64), (MAX64, 62, 1), (-16, 4, U64), (MIN64, 1, 0xC000_0000_0000_0000),
                  (-5, 0, -5))),
    ("arsh", 32, ((MIN32, 31, U32), (0x8000_0000_7FFF_FFFF, 30, 1), (0x1_8000_0000, 4, 0xF800_0000),
                  (0x3_8000_0005, 0, 0x8000_0005), (MIN32, 1, 0xC000_0000))),
)

# the same, where only the operand in a register is allowed: shift counts are taken modulo bits
MASKED = (
    ("lsh", 64, ((1, 64, 1), (3, U64, MIN64), (1, 0x1_0000_0001, 2))),
    ("lsh", 32, ((1, 32, 1), (1, 63, MIN32), (1, 0x1_0000_0001, 2))),
    ("rsh", 64, ((MIN64, 64, MIN64), (MIN64, U64, 1))),
    ("rsh", 32, ((MIN32, 32, MIN32), (MIN32, 63, 1))),
    ("arsh", 64, ((MIN64, 64, MIN64), (MIN64, U64, U64))),
    ("arsh", 32, ((U32, 32, U32), (MIN32, 63, U32))),
)

# what an unguarded division instruction of the machine does not do
GUARDED = (
    ("div", 64, ((5, 0, 0), (U64, 0, 0))),
    ("div", 32, ((5, 0, 0), (U64, 0, 0), (5, 0x1_0000_0000, 0))),
    ("mod", 64, ((5, 0, 5), (U64, 0, U64))),
    ("mod", 32, ((5, 0, 5), (0x1_0000_0005, 0, 5), (U64, 0x1_0000_0000, U32))),
    ("sdiv", 64, ((5, 0, 0), (MIN64, -1, MIN64), (-5, 0, 0))),
    ("sdiv", 32, ((5, 0, 0), (MIN32, U32, MIN32), (0x1_8000_0000, U64, MIN32), (U32, 0, 0))),
    ("smod", 64, ((5, 0, 5), (MIN64, -1, 0), (-7, 0, -7))),
    ("smod", 32, ((5, 0, 5), (MIN32, U32, 0), (0x1_FFFF_FFF9, 0, 0xFFFF_FFF9))),
)

# instruction on r2, rows of dst before and after
UNARY = (
    ("r2 = r2",         ((5, 5), (U64, U64))),
    ("w2 = w2",         ((5, 5), (U64, U32), (MIN64, 0))),
    ("r2 = (s8)r2",     ((0x7F, 0x7F), (0x80, -128), (0x1FF, U64), (0x100, 0))),
    ("r2 = (s16)r2",    ((0x7FFF, 0x7FFF), (0x8000, -32768), (0x1_FFFF, U64))),
    ("r2 = (s32)r2",    ((MAX32, MAX32), (MIN32, 0xFFFF_FFFF_8000_0000), (0x5_0000_0001, 1))),
    ("w2 = (s8)w2",     ((0x7F, 0x7F), (0x80, 0xFFFF_FF80), (U64, U32))),
    ("w2 = (s16)w2",    ((0x7FFF, 0x7FFF), (0x8000, 0xFFFF_8000), (U64, U32))),
    ("r2 = -r2",        ((5, -5), (0, 0), (MIN64, MIN64), (U64, 1))),
    ("w2 = -w2",        ((5, 0xFFFF_FFFB), (0, 0), (MIN32, MIN32), (0x1_0000_0001, U32))),
    ("r2 = le16 r2",    ((0x1122_3344_5566_7788, 0x7788), (U64, 0xFFFF))),
    ("r2 = le32 r2",    ((0x1122_3344_5566_7788, 0x5566_7788), (U64, U32))),
    ("r2 = le64 r2",    ((0x1122_3344_5566_7788, 0x1122_3344_5566_7788),)),
    ("r2 = be16 r2",    ((0x1122_3344_5566_7788, 0x8877), (0xFF00, 0xFF))),
    ("r2 = be32 r2",    ((0x1122_3344_5566_7788, 0x8877_6655), (0xFF, 0xFF00_0000))),
    ("r2 = be64 r2",    ((0x1122_3344_5566_7788, 0x8877_6655_4433_2211),)),
    ("r2 = bswap16 r2", ((0x1122_3344_5566_7788, 0x8877), (0xFF00, 0xFF))),
    ("r2 = bswap32 r2", ((0x1122_3344_5566_7788, 0x8877_6655), (0xFF, 0xFF00_0000))),
    ("r2 = bswap64 r2", ((0x1122_3344_5566_7788, 0x8877_6655_4433_2211),)),
)

# instruction on r2, which holds all ones, and what it leaves
CONSTANT = (
    ("r2 = 0", 0), ("r2 = 1", 1), ("r2 = -1", U64), ("r2 = 0x7fffffff", MAX32),
    ("r2 = -0x80000000", 0xFFFF_FFFF_8000_0000), ("w2 = 0", 0), ("w2 = -1", U32),
    ("w2 = -0x80000000", MIN32), ("w2 = 77", 77), ("r2 = 0 ll", 0), ("r2 = 0xffffffff ll", U32),
    ("r2 = 0x80000000 ll", MIN32), ("r2 = 0xffffffff80000000 ll", 0xFFFF_FFFF_8000_0000),
    ("r2 = 0x8000000000000000 ll", MIN64), ("r2 = 0x123456789abcdef0 ll", 0x1234_5678_9ABC_DEF0),
    ("r2 = 0x100000000 ll", 0x1_0000_0000), ("r2 = 0xffffffffffffffff ll", U64),
)
# fmt: on

_Rows = tuple[tuple[int, int, int], ...]


def _binary() -> Iterator[Check]:
    tables: tuple[tuple[str, tuple[tuple[str, int, _Rows], ...], bool, bool], ...] = (
        ("", BINARY, True, False),
        ("_masked", MASKED, False, False),
        ("_guarded", GUARDED, True, True),
    )
    for suffix, table, immediate, fixups in tables:
        for op, bits, rows in table:
            name = f"alu_{op}{bits}{suffix}"
            runs = tuple(_gives(result, a, b) for a, b, result in rows)
            insns = (_A, _B, Alu(op, bits, R2, R3), _GIVE, Exit())
            yield Check(f"{name}_reg", _program(insns), runs, fixups)
            for a, b, result in rows:
                imm = _signed_imm(b, bits)
                if not immediate or imm is None or (fixups and imm == 0):
                    continue  # the verifier refuses a division by the immediate 0
                insns = (_A, Alu(op, bits, R2, None, imm), _GIVE, Exit())
                runs = (_gives(result, a),)
                yield Check(f"{name}_imm_{imm}_of_{a & U64:#x}", _program(insns), runs, fixups)


def _unary() -> Iterator[Check]:
    for text, rows in UNARY:
        program = _text(f"r2 = *(u64 *)(r1 + 0)\n{text}\nr0 = r2\nexit")
        yield Check(f"unary_{text}", program, tuple(_gives(after, a) for a, after in rows))
    for text, value in CONSTANT:
        program = _text(f"r2 = *(u64 *)(r1 + 0)\n{text}\nr0 = r2\nexit")
        yield Check(f"constant_{text}", program, (_gives(value, U64),))


# operation, bits: of 100 by 7, of 100 by 100
# fmt: off
EVERY_REGISTER = (
    ("add", 64, 107, 200), ("sub", 32, 93, 0), ("xor", 64, 99, 0), ("mov", 64, 7, 100),
    ("mov", 32, 7, 100), ("mul", 64, 700, 10000), ("mul", 32, 700, 10000),
    ("div", 64, 14, 1), ("div", 32, 14, 1), ("mod", 64, 2, 0), ("mod", 32, 2, 0),
    ("sdiv", 64, 14, 1), ("sdiv", 32, 14, 1), ("smod", 64, 2, 0), ("smod", 32, 2, 0),
    ("lsh", 64, 12800, 100 << 36), ("lsh", 32, 12800, 1600), ("rsh", 64, 0, 0),
    ("rsh", 32, 0, 6), ("arsh", 64, 0, 0), ("arsh", 32, 0, 6),
)
# fmt: on


def _registers_around(body: Sequence[Insn], values: Sequence[int]) -> Program:
    """Return a program that gives r0 to r9 *values*, does *body*, and writes them to the
    context; the context's address is kept at r10-8."""
    insns: list[Insn] = [Store(8, R10, -8, R1)]
    insns += [Alu("mov", 64, register, None, value) for register, value in enumerate(values)]
    insns += body
    insns += [Store(8, R10, -16 - 8 * register, register) for register in range(10)]
    insns.append(Load(8, R1, R10, -8))
    for register in range(10):
        insns += [Load(8, R2, R10, -16 - 8 * register), Store(8, R1, 8 * register, R2)]
    return _program([*insns, Alu("mov", 64, R0, None, 0), Exit()])


def _every_register() -> Iterator[Check]:
    """Every pair of registers: what is not the destination must stay."""
    for op, bits, by_seven, by_itself in EVERY_REGISTER:
        for dst in range(10):
            for src in range(10):
                values = [0x1111 * (register + 1) for register in range(10)]
                values[src] = 7
                values[dst] = 100
                after = list(values)
                after[dst] = by_itself if src == dst else by_seven
                program = _registers_around((Alu(op, bits, dst, src),), values)
                runs = (_changes(0, [0] * 10, after),)
                yield Check(f"registers_{op}{bits}_r{dst}_r{src}", program, runs)
            values = [0x1111 * (register + 1) for register in range(10)]
            values[dst] = 100
            after = list(values)
            after[dst] = by_seven
            program = _registers_around((Alu(op, bits, dst, None, 7),), values)
            runs = (_changes(0, [0] * 10, after),)
            yield Check(f"registers_{op}{bits}_r{dst}_imm", program, runs)


# --- jumps: RFC 9669, section 4.3 -----------------------------------------------

# fmt: off
PAIRS = (
    (1, 1), (1, 2), (2, 1), (U64, 1), (1, U64), (MIN64, MAX64), (0x1_0000_0001, 1), (MIN32, 1), (3, 4),
)
# operation, bits, which of the pairs jump
TAKEN = (
    ("eq",  64, "1 0 0 0 0 0 0 0 0"), ("eq",  32, "1 0 0 0 0 0 1 0 0"),
    ("ne",  64, "0 1 1 1 1 1 1 1 1"), ("ne",  32, "0 1 1 1 1 1 0 1 1"),
    ("gt",  64, "0 0 1 1 0 1 1 1 0"), ("gt",  32, "0 0 1 1 0 0 0 1 0"),
    ("ge",  64, "1 0 1 1 0 1 1 1 0"), ("ge",  32, "1 0 1 1 0 0 1 1 0"),
    ("lt",  64, "0 1 0 0 1 0 0 0 1"), ("lt",  32, "0 1 0 0 1 1 0 0 1"),
    ("le",  64, "1 1 0 0 1 0 0 0 1"), ("le",  32, "1 1 0 0 1 1 1 0 1"),
    ("set", 64, "1 0 0 1 1 0 1 0 0"), ("set", 32, "1 0 0 1 1 0 1 0 0"),
    ("sgt", 64, "0 0 1 0 1 0 1 1 0"), ("sgt", 32, "0 0 1 0 1 1 0 0 0"),
    ("sge", 64, "1 0 1 0 1 0 1 1 0"), ("sge", 32, "1 0 1 0 1 1 1 0 0"),
    ("slt", 64, "0 1 0 1 0 1 0 0 1"), ("slt", 32, "0 1 0 1 0 0 0 1 1"),
    ("sle", 64, "1 1 0 1 0 1 0 0 1"), ("sle", 32, "1 1 0 1 0 0 1 1 1"),
)
# fmt: on


def _jumps() -> Iterator[Check]:
    for op, bits, taken in TAKEN:
        runs = tuple(
            _gives(int(bit), a, b) for bit, (a, b) in zip(taken.split(), PAIRS, strict=True)
        )
        tail: tuple[Insn, ...] = (
            Alu("mov", 64, R0, None, 0),
            Exit(),
            Alu("mov", 64, R0, None, 1),
            Exit(),
        )
        insns = (_A, _B, Jump(op, bits, R2, R3, 0, 2), *tail)
        yield Check(f"jump_{op}{bits}_reg", _program(insns), runs)
        for bit, (a, b) in zip(taken.split(), PAIRS, strict=True):
            imm = _signed_imm(b, bits)
            if imm is None:
                continue
            insns = (_A, Jump(op, bits, R2, None, imm, 2), *tail)
            name = f"jump_{op}{bits}_{a:#x}_imm_{imm}"
            yield Check(name, _program(insns), (_gives(int(bit), a),))


# fmt: off
# name, text, runs
FLOW = (
    ("goto", "goto L\nL1: r0 = 1\nexit\nL: goto L1", (_gives(1),)),
    ("goto_over", "r0 = 2\ngoto L\nr0 = 1\nL: exit", (_gives(2),)),
    ("gotol_over", "r0 = 2\ngotol L\nr0 = 1\nL: exit", (_gives(2),)),
    ("gotol_backwards", "r0 = 0\nL: r0 += 1\nif r0 > 4 goto E\ngotol L\nE: exit", (_gives(5),)),
    ("loop", """
        r2 = *(u64 *)(r1 + 0)
        r2 &= 127
        r0 = 0
     L: if r2 == 0 goto E
        r0 += r2
        r2 -= 1
        goto L
     E: exit""", (_gives(0, 0), _gives(55, 10), _gives(5050, 100))),
    ("loop_to_a_condition", """
        r2 = *(u64 *)(r1 + 0)
        r2 &= 15
        r0 = 0
     L: r0 += 3
        r2 -= 1
        if r2 s> 0 goto L
        exit""", (_gives(3, 0), _gives(30, 10))),
    ("two_exits", """
        r0 = *(u64 *)(r1 + 0)
        if r0 > 5 goto E
        r0 += 100
        exit
     E: r0 -= 1
        exit""", (_gives(101, 1), _gives(5, 6))),
)
# fmt: on


def _flow() -> Iterator[Check]:
    for name, text, runs in FLOW:
        yield Check(f"flow_{name}", _text(text), runs)
    text = "r0 = 0\nL: r0 += 1\nmay_goto E\nif r0 > 9 goto E\ngoto L\nE: exit"
    yield Check("flow_may_goto", _text(text), (_gives(10),), fixups=True)
    far = [Alu("add", 64, R0, None, 1)] * 40  # beyond what a short native jump reaches
    for op, result in (("eq", 1), ("ne", 41)):
        insns = (Alu("mov", 64, R0, None, 1), Jump(op, 64, R0, None, 1, len(far)), *far, Exit())
        yield Check(f"flow_far_{op}", _program(insns), (_gives(result),))


# --- loads, stores and atomics: RFC 9669, section 5 -------------------------------

# fmt: off
# load from the context, which holds 80 81 82 83 84 85 86 87 78 ff ff ff ff ff ff 7f
LOADS = (
    ("u8",  0, 0x80), ("u8",  7, 0x87), ("u16", 0, 0x8180), ("u16", 6, 0x8786),
    ("u32", 0, 0x8382_8180), ("u32", 4, 0x8786_8584), ("u64", 0, 0x8786_8584_8382_8180),
    ("s8",  0, 0xFFFF_FFFF_FFFF_FF80), ("s8",  8, 0x78), ("s16", 0, 0xFFFF_FFFF_FFFF_8180),
    ("s16", 14, 0x7FFF), ("s32", 0, 0xFFFF_FFFF_8382_8180), ("s32", 12, 0x7FFF_FFFF),
)
# store to the context of 16 zero bytes, of r2 = 0x8877665544332211 or an immediate
STORES = (
    ("u8",  "w2", 0, "11"), ("u8",  "w2", 15, "11"), ("u16", "w2", 2, "1122"),
    ("u32", "w2", 4, "11223344"), ("u64", "r2", 8, "1122334455667788"),
    ("u8",  "-1", 3, "ff"), ("u8",  "18", 3, "12"), ("u16", "-2", 4, "feff"),
    ("u16", "4660", 4, "3412"), ("u32", "-2", 8, "feffffff"), ("u32", "305419896", 8, "78563412"),
    ("u64", "-2", 8, "feffffffffffffff"), ("u64", "305419896", 0, "7856341200000000"),
)
# atomics: operation, bytes, fetch, memory, operand, r0; then memory, operand, r0
ATOMICS = (
    ("add", 8, False, U64, 2, 9,                      1, 2, 9),
    ("add", 4, False, 0x5_FFFF_FFFF, 2, 9,            0x5_0000_0001, 2, 9),
    ("add", 8, True,  U64, 2, 9,                      1, U64, 9),
    ("add", 4, True,  0x5_FFFF_FFFF, 0x7_0000_0002, 9, 0x5_0000_0001, U32, 9),
    ("or",  8, False, 0xF0, 0x0F, 9,                  0xFF, 0x0F, 9),
    ("or",  4, False, 0x5_0000_00F0, U64 - 0xFF, 9,   0x5_FFFF_FFF0, U64 - 0xFF, 9),
    ("or",  8, True,  0xF0, 0x0F, 9,                  0xFF, 0xF0, 9),
    ("or",  4, True,  0x5_8000_0000, 0x7_0000_0001, 9, 0x5_8000_0001, MIN32, 9),
    ("and", 8, False, 0xFF, 0x3C, 9,                  0x3C, 0x3C, 9),
    ("and", 4, False, U64, 0xF0, 9,                   0xFFFF_FFFF_0000_00F0, 0xF0, 9),
    ("and", 8, True,  0xFF, 0x3C, 9,                  0x3C, 0xFF, 9),
    ("and", 4, True,  U64, 0xF0, 9,                   0xFFFF_FFFF_0000_00F0, U32, 9),
    ("xor", 8, False, 0xFF, 0x0F, 9,                  0xF0, 0x0F, 9),
    ("xor", 4, False, U64, U64, 9,                    0xFFFF_FFFF_0000_0000, U64, 9),
    ("xor", 8, True,  0xFF, 0x0F, 9,                  0xF0, 0xFF, 9),
    ("xor", 4, True,  U64, 0x1, 9,                    0xFFFF_FFFF_FFFF_FFFE, U32, 9),
    ("xchg", 8, True, 5, 6, 9,                        6, 5, 9),
    ("xchg", 4, True, U64, 0x7_0000_0006, 9,          0xFFFF_FFFF_0000_0006, U32, 9),
    ("cmpxchg", 8, True, 5, 6, 5,                     6, 6, 5),
    ("cmpxchg", 8, True, 5, 6, 4,                     5, 6, 5),
    ("cmpxchg", 8, True, 0x1_0000_0005, 6, 5,         0x1_0000_0005, 6, 0x1_0000_0005),
    ("cmpxchg", 4, True, 0x1_0000_0005, 6, 0x7_0000_0005, 0x1_0000_0006, 6, 5),
    ("cmpxchg", 4, True, 0x1_8000_0005, 6, 0x7_0000_0004, 0x1_8000_0005, 6, 0x8000_0005),
)
# fmt: on


def _memory() -> Iterator[Check]:
    vector = bytes.fromhex("8081828384858687 78ffffffffffff7f")
    for kind, off, value in LOADS:
        runs: tuple[tuple[Vector, Outcome], ...] = ((vector, Returned(value, vector)),)
        program = _text(f"r0 = *({kind} *)(r1 + {off})\nexit")
        yield Check(f"load_{kind}_at_{off}", program, runs)
        copies = "".join(
            f"r2 = *(u64 *)(r1 + {at})\n*(u64 *)(r10 - {16 - at}) = r2\n" for at in (0, 8)
        )
        program = _text(f"{copies}r0 = *({kind} *)(r10 - {16 - off})\nexit")
        yield Check(f"load_{kind}_from_stack_{off}", program, runs)
        if kind[0] == "u":
            register = "r0" if kind == "u64" else "w0"
            program = _text(f"{register} = load_acquire(({kind} *)(r1 + {off}))\nexit")
            yield Check(f"load_acquire_{kind}_at_{off}", program, runs)
    for kind, what, off, data in STORES:
        after = bytes(off) + bytes.fromhex(data)
        runs = ((bytes(16), Returned(0, after.ljust(16, b"\0"))),)
        start = "r0 = 0\nr2 = 0x8877665544332211 ll\n"
        program = _text(f"{start}*({kind} *)(r1 + {off}) = {what}\nexit")
        yield Check(f"store_{kind}_{what}_at_{off}", program, runs)
        if what[0] in "rw":
            program = _text(f"{start}store_release(({kind} *)(r1 + {off}), {what})\nexit")
            yield Check(f"store_release_{kind}_at_{off}", program, runs)
    for op, size, fetch, memory, operand, r0, memory2, operand2, r02 in ATOMICS:
        name = f"atomic_{op}{8 * size}{'_fetch' if fetch else ''}_{memory:#x}_{operand:#x}_{r0}"
        insns = (  # a context takes no atomics: through the stack, and back
            _A, _B, Load(8, R0, R1, 16), Store(8, R10, -8, R2),
            Atomic(op, size, R10, -8, R3, fetch),
            Load(8, R2, R10, -8), Store(8, R1, 0, R2), Store(8, R1, 8, R3), Store(8, R1, 16, R0),
            Alu("mov", 64, R0, None, 0), Exit(),
        )  # fmt: skip
        run = _changes(0, (memory, operand, r0), (memory2, operand2, r02))
        yield Check(name, _program(insns), (run,), fixups=op == "cmpxchg" and size == 4)
    yield from _memory_registers()


def _memory_registers() -> Iterator[Check]:
    """Every register as base and as value: the native encodings differ."""
    for base in range(10):
        point = (Alu("mov", 64, base, R10), Alu("add", 64, base, None, -512))
        for size, stored in ((1, 0x77), (2, 0x6677), (4, 0x4455_6677), (8, 0x4455_6677)):
            for value in range(10):
                values = [0x1111 * (register + 1) for register in range(10)]
                after = list(values)
                if value != base:
                    after[value] = stored
                load = Load(size, value, base, 8)
                body = (
                    *point,
                    StoreImm(8, base, 8, 0),
                    Alu("mov", 64, value, None, 0x4455_6677),
                    Store(size, base, 8, value),
                    Alu("mov", 64, value, None, -1),
                    load,
                    Alu("mov", 64, base, None, values[base]),
                )
                if value == base:
                    continue
                program = _registers_around(body, values)
                runs = (_changes(0, [0] * 10, after),)
                yield Check(f"registers_memory{8 * size}_r{base}_r{value}", program, runs)
    for base in range(10):
        for value in range(10):
            if value == base:
                continue
            point = (Alu("mov", 64, base, R10), Alu("add", 64, base, None, -512))
            for op, left in (("or", 0x1C), ("and", 0x08), ("xor", 0x14), ("add", 0x24)):
                values = [0x1111 * (register + 1) for register in range(10)]
                after = list(values)
                after[base], after[value] = left, 0x0C
                body = (
                    *point,
                    StoreImm(8, base, 8, 0x0C),
                    Alu("mov", 64, value, None, 0x18),
                    Atomic(op, 8, base, 8, value, fetch=True),
                    Load(8, base, base, 8),
                )
                program = _registers_around(body, values)
                runs = (_changes(0, [0] * 10, after),)
                yield Check(f"registers_fetch_{op}_r{base}_r{value}", program, runs)
