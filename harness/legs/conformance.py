"""The conformance kit: small programs with what they must do, for every leg to pass.

Expectations are written by hand from RFC 9669 and, for stack arguments, from
isa/stack_args.py; none is computed by code of ours. ``checks`` yields what every leg
must do; a program in it is one the verifier accepts, unless it is to trap or not to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from harness.btf import STATIC, Btf, BtfType, Func, FuncProto, Int, Param, Void
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
    LoadImm,
    Store,
    StoreImm,
)
from harness.isa.stack_args import REG_ARGS, incoming_slot
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
    runs: tuple[tuple[Vector, Outcome], ...]  # in one batch
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
    """Return a program of *insns*; *starts*: the slots its subprograms start at.

    The verifier counts arguments by BTF: each subprogram has as many as its highest
    incoming slot says, all of them ``long``.
    """
    names = sorted((starts or {"main": 0}).items(), key=lambda item: item[1])
    ends = [start for _, start in names[1:]] + [len(insns)]
    types: list[BtfType] = [Void(), Int("long", 8, 1, bits=64)]
    subprograms = []
    for (name, start), end in zip(names, ends, strict=True):
        slots = max((incoming_slot(insn) or 0 for insn in insns[start:end]), default=0)
        count = 1 if start == 0 else REG_ARGS + slots
        params = tuple(Param(f"a{number}", 1) for number in range(1, count + 1))
        types += [FuncProto(1, params), Func(name, len(types), STATIC)]
        subprograms.append(Subprogram(name, start, end, type_id=len(types) - 1))
    return Program(
        "main", "syscall", "syscall", tuple(insns), tuple(subprograms), tuple(maps),
        btf=Btf(tuple(types)),
    )  # fmt: skip


def _text(text: str, maps: Sequence[MapDef] = ()) -> Program:
    """Return the program *text* assembles to.

    Labels that begin with a small letter start subprograms; the first is main. In
    ``ld_pseudo rN, 6, imm`` the high 16 bits of *imm* are the offset into the map's value.
    """
    assembly = assemble(text)
    starts = {name: slot for name, slot in assembly.labels.items() if name[0].islower()}
    insns = [
        LoadImm(insn.dst, 6, insn.imm & 0xFFFF | insn.imm >> 16 << 32)
        if isinstance(insn, LoadImm) and insn.src == 6
        else insn
        for insn in assembly.insns
    ]
    return _program(insns, {"main": 0} | starts, maps)


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
    sign = 1 << (bits - 1)
    value = (value & (1 << bits) - 1 ^ sign) - sign
    return value if -MIN32 <= value <= MAX32 else None


_A, _B = Load(8, R2, R1, 0), Load(8, R3, R1, 8)  # the words of the context
_GIVE = Alu("mov", 64, R0, R2)


# --- arithmetic: RFC 9669, section 4.1 ------------------------------------------

# fmt: off
# operation, bits, rows of dst, operand, result
BINARY = (
    ("add", 64, ((1, 2, 3), (U64, 1, 0), (MAX64, 1, MIN64), (U32, 1, 0x1_0000_0000),
                 (0x1234_5678_9ABC_DEF0, U64, 0x1234_5678_9ABC_DEEF),
                 (5, 0x1234_5678, 0x1234_567D))),
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
    ("or",  64, ((0xF0, 0x0F, 0xFF), (1, MIN64, MIN64 + 1), (0, -128, -128),
                 (1, 0x1234_5670, 0x1234_5671))),
    ("or",  32, ((0xF_0000_00F0, 0x0F, 0xFF), (1, MIN32, MIN32 + 1), (0, U64, U32))),
    ("and", 64, ((0xFF, 0x0F, 0x0F), (U64, MIN64, MIN64), (U64, -16, -16),
                 (U64, 0x1234_5678, 0x1234_5678))),
    ("and", 32, ((U64, 0x0F, 0x0F), (U64, U64, U32), (0xFF, -16, 0xF0))),
    ("xor", 64, ((0xFF, 0x0F, 0xF0), (U64, U64, 0), (0, -1, U64), (MIN64, 1, MIN64 + 1))),
    ("xor", 32, ((0x5_0000_00FF, 0x0F, 0xF0), (0, U64, U32), (U64, U64, 0))),
    ("lsh", 64, ((1, 63, MIN64), (0x1234, 4, 0x1_2340), (3, 63, MIN64), (5, 0, 5),
                 (U64, 1, U64 - 1))),
    ("lsh", 32, ((1, 31, MIN32), (0x1_8000_0001, 1, 2), (0x1_0000_0005, 0, 5),
                 (0x1234, 4, 0x1_2340))),
    ("rsh", 64, ((MIN64, 63, 1), (U64, 1, MAX64), (0x1234, 4, 0x123), (MIN64, 0, MIN64))),
    ("rsh", 32, ((0x1_8000_0000, 31, 1), (U64, 4, 0x0FFF_FFFF), (0x1_0000_0005, 0, 5),
                 (U64, 1, MAX32))),
    ("arsh", 64, ((MIN64, 63, U64), (MAX64, 62, 1), (-16, 4, U64),
                  (MIN64, 1, 0xC000_0000_0000_0000), (-5, 0, -5))),
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
_Runs = tuple[tuple[Vector, Outcome], ...]
_Texts = tuple[tuple[str, str, _Runs], ...]  # name, program, runs
_MapTexts = tuple[tuple[str, tuple[MapDef, ...], str, _Runs], ...]


def _binary() -> Iterator[Check]:
    tables: tuple[tuple[str, tuple[tuple[str, int, _Rows], ...]], ...] = (
        ("", BINARY),
        ("_masked", MASKED),
        ("_guarded", GUARDED),
    )
    for suffix, table in tables:
        fixups = suffix == "_guarded"
        for op, bits, rows in table:
            name = f"alu_{op}{bits}{suffix}"
            runs = tuple(_gives(result, a, b) for a, b, result in rows)
            program = _program((_A, _B, Alu(op, bits, R2, R3), _GIVE, Exit()))
            yield Check(f"{name}_reg", program, runs, fixups)
            for a, b, result in rows:
                imm = _signed_imm(b, bits)
                if suffix == "_masked" or imm is None or (fixups and imm == 0):
                    continue  # the verifier refuses these immediates
                program = _program((_A, Alu(op, bits, R2, None, imm), _GIVE, Exit()))
                runs = (_gives(result, a),)
                yield Check(f"{name}_imm_{imm}_of_{a & U64:#x}", program, runs, fixups)


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
    """Return a program that gives r0 to r9 *values*, does *body*, and writes them down.

    They go to the context, whose address is kept at r10-8.
    """
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
        plain = op in ("add", "sub", "xor", "mov", "mul")  # the encoding alone depends on them
        for dst in range(10):
            for src in (dst, (dst + 3) % 10) if plain else range(10):
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
    (1, 1), (1, 2), (2, 1), (U64, 1), (1, U64), (MIN64, MAX64), (0x1_0000_0001, 1),
    (MIN32, 1), (3, 4),
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
    give = (Alu("mov", 64, R0, None, 0), Exit(), Alu("mov", 64, R0, None, 1), Exit())
    for op, bits, taken in TAKEN:
        rows = [(int(bit), a, b) for bit, (a, b) in zip(taken.split(), PAIRS, strict=True)]
        program = _program((_A, _B, Jump(op, bits, R2, R3, 0, 2), *give))
        yield Check(f"jump_{op}{bits}_reg", program, tuple(_gives(*row) for row in rows))
        for bit, a, b in rows:
            imm = _signed_imm(b, bits)
            if imm is not None:
                program = _program((_A, Jump(op, bits, R2, None, imm, 2), *give))
                yield Check(f"jump_{op}{bits}_{a:#x}_imm_{imm}", program, (_gives(bit, a),))


# fmt: off
# name, text, runs
FLOW: _Texts = (
    ("goto", "goto L\nL1: r0 = 1\nexit\nL: goto L1", (_gives(1),)),
    ("goto_over", """
        r0 = *(u64 *)(r1 + 0)
        if r0 > 5 goto N
        goto L
     N: r0 = 1
     L: exit""", (_gives(2, 2), _gives(1, 6))),
    ("gotol_over", """
        r0 = *(u64 *)(r1 + 0)
        if r0 > 5 goto N
        gotol L
     N: r0 = 1
     L: exit""", (_gives(2, 2), _gives(1, 6))),
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
    far: list[Insn] = [Alu("add", 64, R0, None, 1)] * 40  # beyond what a short native jump reaches
    for op, result in (("eq", 1), ("ne", 41)):
        jump = Jump(op, 64, R0, None, 1, len(far))
        program = _program([Alu("mov", 64, R0, None, 1), jump, *far, Exit()])
        yield Check(f"flow_far_{op}", program, (_gives(result),))


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
        runs: _Runs = ((vector, Returned(value, vector)),)
        program = _text(f"r0 = *({kind} *)(r1 + {off})\nexit")
        yield Check(f"load_{kind}_at_{off}", program, runs)
        copies = "".join(
            f"r2 = *(u64 *)(r1 + {at})\n*(u64 *)(r10 - {16 - at}) = r2\n" for at in (0, 8)
        )
        program = _text(f"{copies}r0 = *({kind} *)(r10 - {16 - off})\nexit")
        yield Check(f"load_{kind}_from_stack_{off}", program, runs)
        if kind[0] == "u":  # a context takes no atomics
            register = "r0" if kind == "u64" else "w0"
            load = f"{register} = load_acquire(({kind} *)(r10 - {16 - off}))"
            yield Check(f"load_acquire_{kind}_{off}", _text(f"{copies}{load}\nexit"), runs)
    for kind, what, off, data in STORES:
        after = bytes(off) + bytes.fromhex(data)
        runs = ((bytes(16), Returned(0, after.ljust(16, b"\0"))),)
        start = "r0 = 0\nr2 = 0x8877665544332211 ll\n"
        program = _text(f"{start}*({kind} *)(r1 + {off}) = {what}\nexit")
        yield Check(f"store_{kind}_{what}_at_{off}", program, runs)
        if what[0] in "rw":
            store = f"store_release(({kind} *)(r10 - {16 - off}), {what})\n"
            clear = "*(u64 *)(r10 - 16) = 0\n*(u64 *)(r10 - 8) = 0\n"
            copies = "".join(
                f"r3 = *(u64 *)(r10 - {16 - at})\n*(u64 *)(r1 + {at}) = r3\n" for at in (0, 8)
            )
            program = _text(f"{start}{clear}{store}{copies}exit")
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


# fmt: off
# bytes, what a store of 0x44556677 and a load of as many bytes give
STORED = ((1, 0x77), (2, 0x6677), (4, 0x4455_6677), (8, 0x4455_6677))
# operation: what it makes of 0x0c in memory with 0x18
FETCHED = (("or", 0x1C), ("and", 0x08), ("xor", 0x14), ("add", 0x24), ("xchg", 0x18))
# fmt: on


def _memory_registers() -> Iterator[Check]:
    """Yield every register as base and as value: the native encodings differ."""
    values = [0x1111 * (register + 1) for register in range(10)]
    for base, value in permutations(range(10), 2):
        point = (Alu("mov", 64, base, R10), Alu("add", 64, base, None, -512))
        for size, stored in STORED:
            after = list(values)
            after[value] = stored
            body: tuple[Insn, ...] = (
                *point,
                StoreImm(8, base, 8, 0),
                Alu("mov", 64, value, None, 0x4455_6677),
                Store(size, base, 8, value),
                Alu("mov", 64, value, None, -1),
                Load(size, value, base, 8),
                Alu("mov", 64, base, None, values[base]),
            )
            runs = (_changes(0, [0] * 10, after),)
            name = f"registers_memory{8 * size}_r{base}_r{value}"
            yield Check(name, _registers_around(body, values), runs)
        for op, left in FETCHED:
            after = list(values)
            after[base], after[value] = left, 0x0C
            body = (
                *point,
                StoreImm(8, base, 8, 0x0C),
                Alu("mov", 64, value, None, 0x18),
                Atomic(op, 8, base, 8, value, fetch=True),
                Load(8, base, base, 8),
            )
            runs = (_changes(0, [0] * 10, after),)
            name = f"registers_fetch_{op}_r{base}_r{value}"
            yield Check(name, _registers_around(body, values), runs)


# --- calls ------------------------------------------------------------------------

# fmt: off
CALLS: _Texts = (
    ("one_to_five", """
        r2 = *(u64 *)(r1 + 8)
        r3 = *(u64 *)(r1 + 16)
        r4 = *(u64 *)(r1 + 24)
        r5 = *(u64 *)(r1 + 32)
        r1 = *(u64 *)(r1 + 0)
        call f
        exit
     f: r0 = r1
        r0 *= 10
        r0 += r2
        r0 *= 10
        r0 += r3
        r0 *= 10
        r0 += r4
        r0 *= 10
        r0 += r5
        exit""", (_gives(12345, 1, 2, 3, 4, 5),)),
    ("keeps_r6_to_r10", """
        r6 = *(u64 *)(r1 + 0)
        r7 = 70
        r8 = 800
        r9 = 9000
        *(u64 *)(r10 - 8) = 50000
        r1 = 1
        call f
        r0 += r6
        r0 += r7
        r0 += r8
        r0 += r9
        r1 = *(u64 *)(r10 - 8)
        r0 += r1
        exit
     f: r6 = 1000000
        r7 = -1
        r8 = -2
        r9 = -3
        *(u64 *)(r10 - 8) = -4
        r0 = r6
        exit""", (_gives(1059876, 6),)),
    ("pointer_to_callers_stack", """
        r2 = *(u64 *)(r1 + 0)
        *(u64 *)(r10 - 16) = r2
        r1 = r10
        r1 += -16
        call f
        r1 = *(u64 *)(r10 - 16)
        r0 += r1
        exit
     f: r0 = *(u64 *)(r1 + 0)
        r2 = r0
        r2 += 1
        *(u64 *)(r1 + 0) = r2
        exit""", (_gives(201, 100),)),
    ("context_passed_on", """
        call f
        exit
     f: r0 = *(u64 *)(r1 + 8)
        *(u64 *)(r1 + 0) = 7
        exit""", (_changes(2, (1, 2), (7, 2)),)),
    ("eight_frames", """
        r1 = *(u64 *)(r1 + 0)
        call a
        r0 += 1
        exit
     a: *(u64 *)(r10 - 8) = 10
        call b
        r1 = *(u64 *)(r10 - 8)
        r0 += r1
        exit
     b: *(u64 *)(r10 - 8) = 100
        call c
        r1 = *(u64 *)(r10 - 8)
        r0 += r1
        exit
     c: *(u64 *)(r10 - 8) = 1000
        call d
        r1 = *(u64 *)(r10 - 8)
        r0 += r1
        exit
     d: *(u64 *)(r10 - 8) = 10000
        call e
        r1 = *(u64 *)(r10 - 8)
        r0 += r1
        exit
     e: r6 = 100000
        call f
        r0 += r6
        exit
     f: r7 = 1000000
        call g
        r0 += r7
        exit
     g: r0 = r1
        r0 *= 10000000
        exit""", (_gives(21111111, 2),)),
    ("called_twice", """
        r6 = r1
        r1 = *(u64 *)(r1 + 0)
        call f
        r7 = r0
        r1 = *(u64 *)(r6 + 8)
        call f
        r0 -= r7
        exit
     f: r0 = r1
        r0 *= r0
        exit""", (_gives(16, 3, 5), _gives(-16, 5, 3))),
)
# fmt: on


def _calls() -> Iterator[Check]:
    for name, text, runs in CALLS:
        yield Check(f"call_{name}", _text(text), runs)


# --- stack arguments: isa/stack_args.py -------------------------------------------


def _digits(count: int, first: int = 1) -> int:
    """Return the number with the decimal digits *first*, *first* + 1, ..., of *count* digits."""
    return int("".join(str((first + index) % 10) for index in range(count)))


def _callee(count: int) -> str:
    """Return a function f that makes one decimal number of its *count* arguments."""
    lines = ["f: r0 = r1"]
    lines += [f"r0 *= 10\nr0 += r{register}" for register in range(2, min(count, 5) + 1)]
    lines += [f"r1 = *(u64 *)(r11 + {8 * k})\nr0 *= 10\nr0 += r1" for k in range(1, count - 4)]
    return "\n".join([*lines, "exit"])


def _pass(count: int, slots: Sequence[int], base: str = "r6") -> str:
    """Return the call of f with *count* words from *base*, slots written in the order given."""
    lines = [f"r0 = *(u64 *)({base} + {8 * (4 + k)})\n*(u64 *)(r11 - {8 * k}) = r0" for k in slots]
    lines += [f"r{r} = *(u64 *)({base} + {8 * (r - 1)})" for r in range(min(count, 5), 0, -1)]
    return "\n".join([*lines, "call f"])


# fmt: off
STACK_ARGS: _Texts = (
    ("immediates", """
        r1 = 1
        r2 = 2
        r3 = 3
        r4 = 4
        r5 = 5
        *(u64 *)(r11 - 8) = -1
        *(u64 *)(r11 - 16) = -2147483648
        *(u64 *)(r11 - 24) = 2147483647
        *(u64 *)(r11 - 32) = 0
        call f
        exit
     f: r0 = *(u64 *)(r11 + 8)
        r1 = *(u64 *)(r11 + 16)
        r2 = *(u64 *)(r11 + 24)
        r3 = *(u64 *)(r11 + 32)
        r0 += r1
        r0 ^= r2
        r0 += r3
        exit""", (_gives(0xFFFF_FFFF_0000_0000),)),
    ("overwritten", """
        r6 = *(u64 *)(r1 + 0)
        *(u64 *)(r11 - 8) = 1
        *(u64 *)(r11 - 16) = r6
        *(u64 *)(r11 - 8) = r6
        *(u64 *)(r11 - 16) = 5
        call f
        exit
     f: r0 = *(u64 *)(r11 + 8)
        r1 = *(u64 *)(r11 + 16)
        r0 *= 10
        r0 += r1
        exit""", (_gives(75, 7),)),
    ("some_slots_read", """
        r6 = *(u64 *)(r1 + 0)
        *(u64 *)(r11 - 56) = r6
        *(u64 *)(r11 - 48) = 1
        *(u64 *)(r11 - 40) = 2
        *(u64 *)(r11 - 32) = 3
        *(u64 *)(r11 - 24) = 4
        *(u64 *)(r11 - 16) = 5
        *(u64 *)(r11 - 8) = 6
        call f
        exit
     f: r0 = *(u64 *)(r11 + 56)
        r1 = *(u64 *)(r11 + 32)
        r0 *= 10
        r0 += r1
        exit""", (_gives(73, 7), _gives(93, 9))),
    ("read_twice", """
        r6 = *(u64 *)(r1 + 0)
        *(u64 *)(r11 - 8) = r6
        *(u64 *)(r11 - 16) = r6
        call f
        exit
     f: r0 = *(u64 *)(r11 + 8)
        r1 = *(u64 *)(r11 + 8)
        r0 += r1
        r1 = *(u64 *)(r11 + 16)
        r0 += r1
        r1 = *(u64 *)(r11 + 16)
        r0 += r1
        exit""", (_gives(28, 7),)),
    ("pointer_to_stack", """
        r2 = *(u64 *)(r1 + 0)
        *(u64 *)(r10 - 8) = r2
        *(u64 *)(r10 - 16) = 50
        r2 = r10
        r2 += -8
        *(u64 *)(r11 - 8) = r2
        r2 += -8
        *(u64 *)(r11 - 16) = r2
        call f
        r1 = *(u64 *)(r10 - 8)
        r0 += r1
        r1 = *(u64 *)(r10 - 16)
        r0 += r1
        exit
     f: r1 = *(u64 *)(r11 + 8)
        r2 = *(u64 *)(r11 + 16)
        r0 = *(u64 *)(r1 + 0)
        r3 = *(u64 *)(r2 + 0)
        *(u64 *)(r1 + 0) = 1000
        *(u64 *)(r2 + 0) = 20000
        r0 += r3
        exit""", (_gives(21053, 3),)),
    ("pointer_to_context", """
        *(u64 *)(r11 - 8) = 9
        *(u64 *)(r11 - 16) = r1
        call f
        exit
     f: r1 = *(u64 *)(r11 + 16)
        r2 = *(u64 *)(r11 + 8)
        r0 = *(u64 *)(r1 + 0)
        *(u64 *)(r1 + 8) = r2
        exit""", (_changes(3, (3, 4), (3, 9)),)),
    ("two_calls", """
        r6 = r1
        r2 = *(u64 *)(r6 + 0)
        *(u64 *)(r11 - 8) = r2
        *(u64 *)(r11 - 16) = 1
        call f
        r7 = r0
        r2 = *(u64 *)(r6 + 8)
        *(u64 *)(r11 - 16) = r2
        *(u64 *)(r11 - 8) = r7
        call f
        exit
     f: r0 = *(u64 *)(r11 + 8)
        r1 = *(u64 *)(r11 + 16)
        r0 *= 100
        r0 += r1
        exit""", (_gives(30102, 3, 2),)),
    ("either_branch", """
        r2 = *(u64 *)(r1 + 0)
        if r2 > 5 goto L
        *(u64 *)(r11 - 8) = 1
        *(u64 *)(r11 - 16) = r2
        goto C
     L: *(u64 *)(r11 - 8) = r2
        *(u64 *)(r11 - 16) = 2
     C: call f
        exit
     f: r0 = *(u64 *)(r11 + 8)
        r1 = *(u64 *)(r11 + 16)
        r0 *= 100
        r0 += r1
        exit""", (_gives(103, 3), _gives(902, 9))),
    ("in_a_loop", """
        r6 = *(u64 *)(r1 + 0)
        r6 &= 15
        r7 = 0
     L: if r6 == 0 goto E
        *(u64 *)(r11 - 8) = r6
        *(u64 *)(r11 - 16) = r7
        call f
        r7 = r0
        r6 -= 1
        goto L
     E: r0 = r7
        exit
     f: r0 = *(u64 *)(r11 + 8)
        r1 = *(u64 *)(r11 + 16)
        r0 += r1
        exit""", (_gives(0, 0), _gives(55, 10))),
    ("between_helper_calls", """
        r6 = *(u64 *)(r1 + 0)
        call 5
        *(u64 *)(r11 - 8) = r6
        *(u64 *)(r11 - 16) = 4
        call f
        r7 = r0
        call 5
        r0 = r7
        exit
     f: r6 = *(u64 *)(r11 + 8)
        r7 = *(u64 *)(r11 + 16)
        call 5
        r0 = r6
        r0 *= 10
        r0 += r7
        exit""", (_gives(34, 3),)),
    ("registers_kept", """
        r6 = *(u64 *)(r1 + 0)
        r7 = 10
        r8 = 200
        r9 = 3000
        *(u64 *)(r10 - 8) = 40000
        *(u64 *)(r11 - 8) = r6
        *(u64 *)(r11 - 16) = r7
        *(u64 *)(r11 - 24) = r8
        call f
        r0 += r6
        r0 += r7
        r0 += r8
        r0 += r9
        r1 = *(u64 *)(r10 - 8)
        r0 += r1
        exit
     f: r9 = *(u64 *)(r11 + 8)
        r8 = *(u64 *)(r11 + 16)
        r7 = *(u64 *)(r11 + 24)
        r6 = 100000
        *(u64 *)(r10 - 256) = r6
        r9 += r8
        r9 += r7
        r0 = *(u64 *)(r10 - 256)
        r0 += r9
        exit""", (_gives(143426, 3),)),
)
# fmt: on


def _stack_args() -> Iterator[Check]:
    for name, text, runs in STACK_ARGS:
        yield Check(f"stack_args_{name}", _text(text), runs)
    for count in range(6, 13):
        last = count - 4
        orders = {
            "up": range(1, last),
            "down": range(last - 1, 0, -1),
            "inside_out": sorted(range(1, last), key=lambda k: (-k % 3, k)),
        }
        words = tuple((index + 1) % 10 for index in range(count))
        for order, slots in orders.items():
            program = _text(f"r6 = r1\n{_pass(count, tuple(slots))}\nexit\n{_callee(count)}")
            run = _gives(_digits(count), *words)
            yield Check(f"stack_args_{count}_{order}", program, (run,))
        yield _forwarded(count, words)
    yield from _slot_registers()
    yield from _nested()


def _forwarded(count: int, words: Sequence[int]) -> Check:
    """Return the check of a function between that hands its arguments on, each a place further."""
    slots = range(1, count - 4)
    take = [f"r0 = *(u64 *)(r11 + {8 * k})\n*(u64 *)(r10 - {8 * k}) = r0" for k in slots]
    keep = [f"*(u64 *)(r10 - {64 + 8 * r}) = r{r}" for r in range(1, 6)]
    places = [f"r10 - {64 + 8 * r}" for r in range(1, 6)] + [f"r10 - {8 * k}" for k in slots]
    places = places[1:] + places[:1]
    give = [f"r0 = *(u64 *)({places[4 + k]})\n*(u64 *)(r11 - {8 * k}) = r0" for k in slots]
    give += [f"r{r} = *(u64 *)({places[r - 1]})" for r in range(1, 6)]
    between = "\n".join(["g:", *take, *keep, *give, "call f", "exit"])
    main = _pass(count, tuple(slots)).replace("call f", "call g")
    program = _text(f"r6 = r1\n{main}\nexit\n{between}\n{_callee(count)}")
    moved = int(str(_digits(count))[1:] + "1")
    return Check(f"stack_args_{count}_forwarded", program, (_gives(moved, *words),))


def _slot_registers() -> Iterator[Check]:
    """Every register written to, and read from, the first slot, the second and the last."""
    for slot in (1, 2, 7):
        for register in range(10):
            others = [f"*(u64 *)(r11 - {8 * k}) = {k}" for k in range(1, 8) if k != slot]
            give = [f"r{register} = *(u64 *)(r1 + 0)", *others]
            give += [f"*(u64 *)(r11 - {8 * slot}) = r{register}", "call f", "exit"]
            take = f"f: r{register} = *(u64 *)(r11 + {8 * slot})\n"
            take += f"r{(register + 1) % 10} = *(u64 *)(r11 + 56)\nr0 = r{register}\nexit"
            program = _text("\n".join([*give, take]))
            run = _gives(0x1234_5678_9ABC_DEF0, 0x1234_5678_9ABC_DEF0)
            yield Check(f"stack_args_slot{slot}_r{register}", program, (run,))


def _nested() -> Iterator[Check]:
    """Eight frames, each with two more slots than stack, and stack and registers in use."""
    parts = ["r1 = *(u64 *)(r1 + 0)"]
    names = "abcdefg"
    for depth, name in enumerate(names):
        slots = depth % 7 + 1
        parts += [f"*(u64 *)(r11 - {8 * k}) = {depth + k}" for k in range(slots, 0, -1)]
        parts += [f"call {name}"]
        if depth:
            parts += ["r0 += r6"]
        parts += ["exit", f"{name}: r6 = *(u64 *)(r11 + 8)"]
        parts += [f"r2 = *(u64 *)(r11 + {8 * k})\nr6 += r2" for k in range(2, slots + 1)]
        parts += [f"*(u64 *)(r10 - {8 * (depth % 4 + 1)}) = r6"]
    parts += ["r0 = r1", "r0 *= 1000", "r0 += r6", "exit"]
    # sums of the slots: 1, 2+3, 3+4+5, 4+...+7, 5+...+9, 6+...+11, 7+...+13
    total = 1 + 5 + 12 + 22 + 35 + 51 + 70
    yield Check("stack_args_eight_frames", _text("\n".join(parts)), (_gives(9000 + total, 9),))


# --- maps and helpers ---------------------------------------------------------------

_DATA = MapDef(".data", 2, 4, 16, 1, data=_words(5, 7))
_BSS = MapDef(".bss", 2, 4, 24, 1, data=bytes(24))
_RODATA = MapDef(".rodata", 2, 4, 8, 1, data=_words(0x1122_3344_5566_7788), readonly=True)
_ARRAY = MapDef("array", 2, 4, 8, 3)
_HASH = MapDef("hash", 1, 8, 8, 2)

# fmt: off
# ld_pseudo 6: an address in the value of a map; 5: a map
MAPS: _MapTexts = (
    ("data_fresh_for_each_vector", (_DATA,), """
        r2 = *(u64 *)(r1 + 0)
        ld_pseudo r3, 6, 0x80000
        r0 = *(u64 *)(r3 + 0)
        *(u64 *)(r3 + 0) = r2
        exit""", (_gives(7, 1), _gives(7, 2), _gives(7, 3))),
    ("data_written_and_read", (_DATA, _BSS, _RODATA), """
        r2 = *(u64 *)(r1 + 0)
        ld_pseudo r3, 6, 0x100001
        *(u64 *)(r3 + 0) = r2
        ld_pseudo r4, 6, 1
        r0 = *(u64 *)(r4 + 16)
        r5 = *(u64 *)(r4 + 8)
        r0 += r5
        ld_pseudo r3, 6, 0
        r5 = *(u64 *)(r3 + 0)
        r0 += r5
        exit""", (_gives(105, 100), _gives(4, -1))),
    ("rodata", (_DATA, _RODATA), """
        ld_pseudo r3, 6, 0x30001
        r0 = *(u8 *)(r3 + 0)
        r2 = *(u16 *)(r3 + 1)
        r0 <<= 16
        r0 += r2
        exit""", (_gives(0x55_3344),)),
    ("pointer_to_data_in_a_slot", (_DATA,), """
        ld_pseudo r3, 6, 0x80000
        *(u64 *)(r11 - 8) = 1
        *(u64 *)(r11 - 16) = r3
        call f
        ld_pseudo r3, 6, 0
        r1 = *(u64 *)(r3 + 8)
        r0 += r1
        exit
     f: r1 = *(u64 *)(r11 + 16)
        r0 = *(u64 *)(r1 + 0)
        *(u64 *)(r1 + 0) = 90
        exit""", (_gives(97),)),
    ("atomics_on_data", (_DATA,), """
        r2 = *(u64 *)(r1 + 0)
        ld_pseudo r3, 6, 0
        r2 = atomic_fetch_add((u64 *)(r3 + 8), r2)
        r0 = *(u64 *)(r3 + 8)
        r0 *= 100
        r0 += r2
        exit""", (_gives(1007, 3),)),
)

# helpers: 1 map_lookup_elem, 2 map_update_elem, 3 map_delete_elem, 5 ktime_get_ns
HELPERS: _MapTexts = (
    ("time_is_not_zero", (), """
        call 5
        r1 = r0
        r0 = 0
        if r1 == 0 goto E
        r0 = 1
     E: exit""", (_gives(1),)),
    ("registers_kept", (), """
        r6 = *(u64 *)(r1 + 0)
        r7 = 7
        r8 = 80
        r9 = 900
        call 5
        r0 = r6
        r0 += r7
        r0 += r8
        r0 += r9
        exit""", (_gives(6987, 6000),)),
    ("array", (_DATA, _ARRAY), """
        r6 = *(u64 *)(r1 + 0)
        r7 = *(u64 *)(r1 + 8)
        *(u32 *)(r10 - 4) = r6
        ld_pseudo r1, 5, 1
        r2 = r10
        r2 += -4
        call 1
        if r0 == 0 goto N
        r1 = *(u64 *)(r0 + 0)
        r1 += r7
        *(u64 *)(r0 + 0) = r1
        ld_pseudo r1, 5, 1
        r2 = r10
        r2 += -4
        call 1
        if r0 == 0 goto N
        r0 = *(u64 *)(r0 + 0)
        exit
     N: r0 = -1
        exit""", (_gives(5, 0, 5), _gives(6, 2, 6), _gives(-1, 3, 7), _gives(8, 2, 8))),
    ("hash", (_HASH,), """
        r6 = *(u64 *)(r1 + 0)
        *(u64 *)(r10 - 8) = r6
        *(u64 *)(r10 - 16) = 55
        ld_pseudo r1, 5, 0
        r2 = r10
        r2 += -8
        call 1
        if r0 != 0 goto N
        ld_pseudo r1, 5, 0
        r2 = r10
        r2 += -8
        r3 = r10
        r3 += -16
        r4 = 1
        call 2
        if r0 != 0 goto N
        ld_pseudo r1, 5, 0
        r2 = r10
        r2 += -8
        r3 = r10
        r3 += -16
        r4 = 1
        call 2
        r7 = r0
        ld_pseudo r1, 5, 0
        r2 = r10
        r2 += -8
        call 1
        if r0 == 0 goto N
        r8 = *(u64 *)(r0 + 0)
        ld_pseudo r1, 5, 0
        r2 = r10
        r2 += -8
        call 3
        r9 = r0
        ld_pseudo r1, 5, 0
        r2 = r10
        r2 += -8
        call 3
        r9 += r0
        r0 = r7
        r0 *= 1000
        r0 += r8
        r0 *= 1000
        r0 += r9
        exit
     N: r0 = -1
        exit""", (_gives(-16945002, 1), _gives(-16945002, 1), _gives(-16945002, 2))),
)
# fmt: on


def _maps() -> Iterator[Check]:
    for name, maps, text, runs in MAPS:
        yield Check(f"map_{name}", _text(text, maps), runs)
    for name, maps, text, runs in HELPERS:
        yield Check(f"helper_{name}", _text(text, maps), runs)


# --- what no program may do ----------------------------------------------------------

# fmt: off
TRAPS = (
    ("null", (), "r2 = 0\nr0 = *(u64 *)(r2 + 0)\nexit", Trapped("access")),
    ("null_with_offset", (), "r2 = 0\n*(u8 *)(r2 - 8) = 1\nexit", Trapped("access")),
    ("no_address", (), "r2 = -8 ll\nr0 = *(u64 *)(r2 + 0)\nexit", Trapped("access")),
    ("write_behind_context", (), "r0 = 0\n*(u8 *)(r1 + 8) = 1\nexit", Trapped("access")),
    ("write_before_context", (), "r0 = 0\n*(u8 *)(r1 - 1) = 1\nexit", Trapped("access")),
    ("write_rodata", (_RODATA,), "r0 = 0\nld_pseudo r2, 6, 0\n*(u8 *)(r2 + 0) = 1\nexit",
     Trapped("access")),
    ("endless", (), "L: goto L", OutOfFuel()),
    ("endless_call", (), "L: call f\ngoto L\nf: r0 = 0\nexit", OutOfFuel()),
)
# fmt: on


def _traps() -> Iterator[Check]:
    """Yield vectors that trap between two that do not: a batch must go on."""
    for name, maps, text, outcome in TRAPS:
        start = "main: r3 = *(u64 *)(r1 + 0)\nif r3 != 1 goto T\nr0 = 77\nexit\nT:"
        runs = (_gives(77, 1), (_words(5), outcome), _gives(77, 1))
        yield Check(f"trap_{name}", _text(f"{start} {text}", maps), runs)


# Forms (isa.forms.form_name begins so) that no check reaches, and why no leg executes them
NOT_EXECUTED = {
    "0d_gotox": "jump tables are not modelled",
    "18_loadimm_map_fd": "the loader turns file descriptors into indices",
    "18_loadimm_map_value": "the loader turns file descriptors into indices",
    "18_loadimm_btf_id": "kernel variables are not modelled",
    "18_loadimm_func": "only helpers that take callbacks use it, and callx, below",
    "20_loadpacket": "there is no packet",
    "28_loadpacket": "there is no packet",
    "30_loadpacket": "there is no packet",
    "40_loadpacket": "there is no packet",
    "48_loadpacket": "there is no packet",
    "50_loadpacket": "there is no packet",
    "85_call_kfunc": "kfuncs are not modelled",
    "8d_callx": "Linux refuses it; the interpreter's own tests reach it",
    "bf_addrspacecast": "arenas are not modelled",
    "bf_percpuaddr": "per-CPU addresses are not modelled",
}


def checks() -> Iterator[Check]:
    """Return every check of the kit."""
    for group in (
        _binary, _unary, _every_register, _jumps, _flow, _memory, _calls, _stack_args, _maps,
        _traps,
    ):  # fmt: skip
        yield from group()
