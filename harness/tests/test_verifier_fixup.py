"""What the kernel rewrites before the JIT: patterns, places and meaning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import harness
from harness import corpus, pipeline
from harness.corpus import ProgramText
from harness.corpus.text import program as case_program
from harness.interp import Interpreter
from harness.isa.asm import assemble
from harness.isa.insn import (
    AddrSpaceCast,
    Alu,
    Call,
    Exit,
    Goto,
    High,
    Insn,
    Jump,
    Load,
    LoadImm,
    Store,
)
from harness.isa.opcodes import PSEUDO_FUNC
from harness.isa.targets import function_target
from harness.model import (
    Accepted,
    Frame,
    HarnessError,
    LineInfo,
    Program,
    Rejected,
    Returned,
    Subprogram,
)
from harness.tests.programs import program, verdict
from harness.verifier import Options, fixup, verify
from harness.verifier.fixup import AX


def rewritten(source: str) -> tuple[Insn, ...]:
    """Return what *source*, one instruction, becomes."""
    insns = (*assemble(source).insns, Exit())
    found = fixup(Program("main", "", "syscall", insns, (Subprogram("main", 0, len(insns)),)))
    assert found.insns[-1] == Exit()
    return found.insns[:-1]


def listing(source: str) -> tuple[Insn, ...]:
    """Return instructions; r12 is the kernel's hidden register."""
    return assemble(source).insns


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("r1 /= r2", "if r2 != 0 goto +2\nw1 ^= w1\ngoto +1\nr1 /= r2"),
        ("w1 /= w2", "if w2 != 0 goto +2\nw1 ^= w1\ngoto +1\nw1 /= w2"),
        ("r1 %= r2", "if r2 == 0 goto +1\nr1 %= r2"),
        ("w1 %= w2", "if w2 == 0 goto +2\nw1 %= w2\ngoto +1\nw1 = w1"),
        ("r1 s/= -1", "r1 = -r1"),
        ("w1 s/= -1", "w1 = -w1"),
        ("r1 s%= -1", "w1 = 0"),
        ("w1 s%= -1", "w1 = 0"),
    ],
)
def test_patterns(source: str, result: str) -> None:
    assert rewritten(source) == listing(result)


@pytest.mark.parametrize("bits", [32, 64])
def test_signed_division(bits: int) -> None:
    name = "r" if bits == 64 else "w"
    divide, modulo = Alu("sdiv", bits, 1, 2), Alu("smod", bits, 1, 2)
    start = (Alu("mov", 64, AX, 2), Alu("add", bits, AX, None, 1))
    assert rewritten(f"{name}1 s/= {name}2") == (
        *start,
        Jump("gt", bits, AX, None, 1, 4),
        Jump("eq", bits, AX, None, 0, 1),
        Alu("mov", bits, 1, None, 0),
        Alu("neg", bits, 1, None),
        Goto(1),
        divide,
    )
    end = (Goto(1), Alu("mov", 32, 1, 1)) if bits == 32 else ()
    assert rewritten(f"{name}1 s%= {name}2") == (
        *start,
        Jump("gt", bits, AX, None, 1, 3),
        Jump("eq", bits, AX, None, 1, 4 if bits == 32 else 3),
        Alu("mov", 32, 1, None, 0),
        Goto(1),
        modulo,
        *end,
    )


@pytest.mark.parametrize(
    "source",
    ["r1 /= 7", "w1 %= 3", "r1 s/= 2", "w1 s%= -2", "r1 += r2", "r0 = *(u64 *)(r11 + 8)"],
)
def test_what_stays(source: str) -> None:
    assert rewritten(source) == listing(source)


MAY_GOTO = """
    *(u64 *)(r10 - 24) = 1
again:
    may_goto out
    r1 /= r2
    goto again
out:
    exit
"""


def test_may_goto_counts_below_what_the_program_has() -> None:
    """As Linux writes it; without a verifier the depth is what the instructions show."""
    subject = program(MAY_GOTO)
    found = fixup(subject)
    assert [frame.stack_depth for frame in found.frames] == [40]
    assert found.symbols == ((8, "arch_bpf_timed_may_goto"),)
    ahead, off = found.insns[:3], -40
    assert ahead[:2] == listing(f"*(u64 *)(r10 {off}) = 65535\n*(u64 *)(r10 - 32) = 0")
    assert found.insns[3:10] == (
        Load(8, AX, 10, off),
        Jump("eq", 64, AX, None, 0, 10),
        Alu("sub", 64, AX, None, 1),
        Jump("ne", 64, AX, None, 0, 2),
        Alu("mov", 64, AX, None, off),
        Call("helper", 0),
        Store(8, 10, off, AX),
    )
    assert found.insns[14:] == (Goto(-12), Exit())
    deeper = fixup(replace(subject, frames=(Frame(128, tail_call_reachable=True),)))
    assert deeper.frames == (Frame(144, tail_call_reachable=True),)


def test_a_jump_to_the_first_instruction_does_not_begin_the_count_again() -> None:
    found = fixup(program("again:\nmay_goto out\ngoto again\nout:\nexit"))
    assert isinstance(found.insns[9], Goto)
    assert found.insns[9].off == -8


LOOP = """
    {before}
    r1 = 3
    r3 = 0
    call bpf_loop
    exit
each:
    r0 = 0
    exit
other:
    r0 = 0
    exit
"""


@pytest.mark.parametrize(
    ("before", "built_in"),
    [
        ("r2 = each ll\nr4 = 0", True),
        ("r6 = each ll\nw4 = 0\nr2 = r6", True),
        ("r6 = 0\ncall bpf_ktime_get_ns\nr2 = each ll\nr4 = r6", True),
        ("r2 = each ll\nr4 = 1", False),
        ("r2 = each ll\nr4 = r1", False),
        ("r2 = each ll\nr4 = 0\nr4 += r1", False),
        ("r2 = each ll\nr4 = 0\nr4 = *(u64 *)(r1 + 0)", False),
        ("r2 = each ll\nw6 = 0\nw4 = w6", False),  # not looked into
        ("r4 = 0\nr2 = each ll\nr2 += 8", False),
        ("r2 = each ll\nr4 = 0\nif r1 == 0 goto +2\nr2 = other ll", False),
        ("r4 = 0\nr2 = each ll\ncall bpf_ktime_get_ns", False),
        ("r0 = 0\nr2 = each ll\nr4 = 0\nr0 = cmpxchg_64(r1 + 0, r0, r3)", False),
        ("r2 = 8 ll\nr4 = 0", False),
    ],
)
def test_a_loop_is_built_in_where_callback_and_flags_are_known(before: str, built_in: bool) -> None:
    subject = program(LOOP.format(before=before), {"each": 2, "other": 2})
    found = fixup(subject)
    assert any(insn == Call("helper", 181) for insn in found.insns) is not built_in
    if not built_in:
        assert found is subject
        return
    assert [frame.stack_depth for frame in found.frames] == [24, 0, 0]
    leads = [function_target(i, at) for at, i in enumerate(found.insns) if isinstance(i, Call)]
    assert leads.count(found.subprograms[1].start) == 1


def test_casts_between_address_spaces() -> None:
    insns = (AddrSpaceCast(1, 2, 1), AddrSpaceCast(1, 2, 1 << 16), Exit())
    found = fixup(Program("main", "", "syscall", insns, (Subprogram("main", 0, 3),)))
    assert found.insns == (Alu("mov", 32, 1, 2), *insns[1:])


def test_a_program_without_any_is_itself() -> None:
    subject = program("r0 = 0\nexit")
    assert fixup(subject) is subject


PLACES = """
    r0 = 6
    r2 = subprog[+9]
    if r0 == 6 goto out
    r1 = 3
    r0 /= r1
    goto again
again:
    r0 %= r1
    if r0 != 0 goto again
    call f
out:
    exit
f:
    r1 = 2
    r0 s%= r1
    exit
"""


def test_places_move_along() -> None:
    subject = program(
        PLACES,
        {"f": 0},
        lines=[LineInfo(slot, "a.c", "x", slot + 1, 1) for slot in (0, 5, 7, 9, 11, 13)],
    )
    found = fixup(subject)
    assert [(sub.start, sub.end) for sub in subject.subprograms] == [(0, 11), (11, 14)]
    assert [(sub.start, sub.end) for sub in found.subprograms] == [(0, 15), (15, 24)]
    assert [line.insn for line in found.lines] == [0, 5, 10, 13, 15, 23]
    assert found.insns[1] == LoadImm(2, 4, 13)  # to slot 15
    assert found.insns[2] == High()
    assert found.insns[3] == Jump("eq", 64, 0, None, 6, 10)  # to slot 14
    assert found.insns[12] == Jump("ne", 64, 0, None, 0, -3)  # to slot 10
    assert found.insns[13] == Call("subprog", 1)


def test_a_jump_that_no_longer_reaches() -> None:
    divisions = 8200
    body: tuple[Insn, ...] = (Alu("div", 64, 0, 1),) * divisions  # three more slots each
    insns: tuple[Insn, ...] = (Jump("eq", 64, 1, None, 0, divisions), *body, Exit())
    subject = Program("main", "", "syscall", insns, (Subprogram("main", 0, len(insns)),))
    with pytest.raises(HarnessError, match="insn 8190 cannot be patched due to 16-bit range"):
        fixup(subject)
    long: tuple[Insn, ...] = (Alu("mov", 64, 1, None, 1), Goto(divisions, long=True), *body, Exit())
    assert fixup(Program("main", "", "syscall", long, (Subprogram("main", 0, len(long)),)))


VALUES = (0, 1, 2, 7, 1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 32, 1 << 63, (1 << 64) - 1)


@pytest.mark.parametrize("operator", ["/", "%", "s/", "s%"])
@pytest.mark.parametrize("register", ["r", "w"])
def test_the_meaning_stays(operator: str, register: str) -> None:
    source = f"""
        r2 = *(u64 *)(r1 + 8)
        r0 = *(u64 *)(r1 + 0)
        {register}0 {operator}= {register}2
        exit
    """
    before = program(source)
    assert verdict(before) == ""
    after = fixup(before)
    assert after != before
    # r12 is the hidden register of the kernel; the reference knows only what programs may name
    visible = {AX: 9}
    after_insns = tuple(renamed(insn, visible) for insn in after.insns)
    runs = (
        Interpreter(before),
        Interpreter(Program("main", "", "syscall", after_insns, after.subprograms)),
    )
    for a in VALUES:
        for b in VALUES:
            vector = a.to_bytes(8, "little") + b.to_bytes(8, "little")
            first, second = (run.run(vector) for run in runs)
            assert isinstance(first, Returned)
            assert first == second, (a, b)


def renamed(insn: Insn, registers: dict[int, int]) -> Insn:
    """Return *insn* with other registers."""
    match insn:
        case Alu(op, bits, dst, src, imm, sx):
            source = src if src is None else registers.get(src, src)
            return Alu(op, bits, registers.get(dst, dst), source, imm, sx)
        case Jump(op, bits, dst, src, imm, off):
            return Jump(op, bits, registers.get(dst, dst), src, imm, off)
    return insn


def test_the_patch_that_makes_a_jump_too_long_is_named() -> None:
    """Seen on Linux 7.3.4: the third of the divisions, each three slots more."""
    divisions = "r0 /= r2\nr0 += 3\n" * 6
    text = f"r2 = 1\nr0 = 1\nif r2 == 0 goto E\n{divisions}" + "r0 += 1\n" * (0x7FFF - 20)
    subject = program(text + "E: r0 = 0\nexit")
    with pytest.raises(HarnessError, match="insn 7 cannot be patched due to 16-bit range"):
        fixup(subject)


def test_what_the_verifier_finds_dead_is_left_out() -> None:
    code = "r0 = 1\nif r0 == 1 goto out\nr0 = 2\nr0 = 3\nout: exit"
    one = program(code)
    dead = verify(one, log_level=0).dead
    assert dead == {2, 3}
    assert fixup(one, dead).insns == assemble("r0 = 1\ngoto out\nout: exit").insns
    assert fixup(one).insns == one.insns
    insns = (LoadImm(1, PSEUDO_FUNC, 0), High(), *one.insns)
    holds = Program("main", "", "syscall", insns, (Subprogram("main", 0, len(insns)),))
    assert fixup(holds, frozenset({4, 5})).insns == holds.insns  # it would be another address
    assert verify(program("r0 = 1\nr1 = 5 ll\nexit"), log_level=0).dead == frozenset()
    assert verify(program("exit\nr0 = 1\nexit"), log_level=0).dead == frozenset()  # refused


def test_a_mended_verifier_follows_a_slot_that_linux_forgets() -> None:
    """corpus/linux_unpropagated_slot*.toml: the mend is the one loop that Linux lacks."""
    mended = Options(propagate_slots=True)
    one = case_program(_case("linux_unpropagated_slot"), "p")
    as_linux = verify(one, log_level=0)
    assert as_linux.verdict == Accepted()
    assert as_linux.dead
    assert verify(one, log_level=0, options=mended).dead == frozenset()
    assert _first(one, as_linux.dead) == 1
    assert _first(one, frozenset()) == 2
    beyond = case_program(_case("linux_unpropagated_slot_beyond"), "p")
    assert verify(beyond, log_level=0).verdict == Accepted()
    said = verify(beyond, log_level=0, options=mended).verdict
    assert isinstance(said, Rejected)
    assert said.message.startswith("math between fp pointer and register with unbounded min value")


def test_a_mended_verifier_forces_slots_too() -> None:
    """corpus/linux_unforced_slot.toml: where it needs every number, it needs those in slots."""
    one = case_program(_case("linux_unforced_slot"), "p")
    as_linux = verify(one, log_level=0)
    assert as_linux.verdict == Accepted()
    assert as_linux.dead
    assert verify(one, log_level=0, options=Options(propagate_slots=True)).dead == frozenset()
    assert _first(one, as_linux.dead, b"\1") == 2
    assert _first(one, frozenset(), b"\1") == 1


def _case(name: str) -> ProgramText:
    text = corpus.read(Path(harness.__file__).parent.parent / "corpus" / f"{name}.toml").program
    assert text is not None
    return text


def _first(one: Program, dead: frozenset[int], ctx: bytes = b"") -> int:
    """Return the first byte of the context after the JIT's image ran on *ctx* and zeros."""
    (seen,) = pipeline.execute(one, "jit", [ctx.ljust(8, b"\0")], dead)
    assert isinstance(seen, Returned)
    return seen.ctx[0]
