"""may_goto and bpf_loop on the jit leg: what is built in, what is called, and the interpreter."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import pipeline, verifier
from harness.interp import EINVAL, FUEL, MAX_LOOPS, STACK_SIZE, interpret
from harness.legs.jit import JitLeg, JitRunner
from harness.legs.jit_runtime import E2BIG, TIMED_LOOPS, TURNS
from harness.model import (
    Accepted,
    Outcome,
    OutOfFuel,
    Program,
    Rejected,
    Returned,
    Trapped,
    Unknown,
)
from harness.pipeline import Settings
from harness.tests.programs import program

M64 = (1 << 64) - 1
LEG = JitLeg()
NONE = bytes(16)


def on_jit(subject: Program, vector: bytes = NONE) -> Outcome:
    runner = LEG.prepare(verifier.fixup(subject))
    assert isinstance(runner, JitRunner), runner
    return runner.run([vector])[0]


def calls_helper(subject: Program) -> bool:
    runner = LEG.prepare(verifier.fixup(subject))
    assert isinstance(runner, JitRunner), runner
    each = [r for sub in runner.image.subprograms for r in sub.relocations]
    return any((r.kind, r.target) == ("helper", "181") for r in each)


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *(value & M64 for value in values))


# --- bpf_loop -----------------------------------------------------------------------------

BUILT_IN = "r4 = 0"
CALLED = "r4 = *(u64 *)(r6 + 8)"  # flags that nobody knows


def loop(flags: str, rounds: str, callback: str, after: str = "") -> Program:
    """Return a program that sums up in its stack what *callback* makes of it."""
    return program(
        f"""
        r6 = r1
        r7 = 7; r8 = 8; r9 = 9
        *(u64 *)(r10 - 8) = 1
        {rounds}
        r2 = each ll
        r3 = r10
        r3 += -8
        {flags}
        call bpf_loop
        {after}
        r1 = *(u64 *)(r10 - 8)
        *(u64 *)(r6 + 0) = r1
        r7 += r8
        r7 += r9
        if r7 != 24 goto wrong
        exit
        wrong:
        r0 = 99
        exit
        each:
        {callback}
        exit
        """.replace("; ", "\n"),
        {"each": 2},
    )


GROWS = "r6 = *(u64 *)(r2 + 0)\nr7 = 3; r8 = 3; r9 = 3\nr6 *= 3\nr6 += r1\n*(u64 *)(r2 + 0) = r6\n"


@pytest.mark.parametrize("flags", [BUILT_IN, CALLED])
@pytest.mark.parametrize(
    ("rounds", "result", "total"),
    [("r1 = 0", 0, 1), ("r1 = 1", 1, 3), ("r1 = 2", 2, 10), ("r1 = *(u64 *)(r6 + 0)", 4, 99)],
)
def test_every_round_gets_its_number_and_the_context(
    flags: str, rounds: str, result: int, total: int
) -> None:
    subject = loop(flags, rounds, GROWS + "r0 = 0")
    assert calls_helper(subject) is (flags == CALLED)
    assert verifier.verify(subject).verdict == Accepted()
    vector = words(4, 0)
    expected = Returned(result, words(total, 0), b"")
    assert interpret(subject, vector) == on_jit(subject, vector) == expected


@pytest.mark.parametrize("flags", [BUILT_IN, CALLED])
def test_a_callback_that_does_not_return_0_ends_it(flags: str) -> None:
    stop = GROWS + "r0 = 0\nif r1 != 2 goto on\nr0 = 1\non:"
    subject = loop(flags, "r1 = 100", stop)
    vector = words(0, 0)
    outcome = interpret(subject, vector)
    assert isinstance(outcome, Returned)
    assert outcome.r0 == 3
    assert on_jit(subject, vector) == outcome


def test_flags_are_refused_before_anything_else() -> None:
    subject = loop(CALLED, "r1 = *(u64 *)(r6 + 0)", GROWS + "r0 = 0")
    for rounds in (0, 1, M64):
        vector = words(rounds, 1)
        expected = Returned(-EINVAL & M64, words(1, 1), b"")
        assert interpret(subject, vector) == on_jit(subject, vector) == expected


@pytest.mark.parametrize(
    ("flags", "rounds", "result"),
    [
        (CALLED, MAX_LOOPS + 1, -E2BIG & M64),
        (CALLED, (1 << 32) + 2, 2),  # it takes the lower half
        (BUILT_IN, MAX_LOOPS + 1, -E2BIG & 0xFFFFFFFF),  # a move of 32 bits
        (BUILT_IN, (1 << 32) + 2, -E2BIG & 0xFFFFFFFF),
    ],
)
def test_too_many_rounds_are_for_no_interpreter_to_judge(
    flags: str, rounds: int, result: int
) -> None:
    subject = loop(flags, "r1 = *(u64 *)(r6 + 0)", GROWS + "r0 = 0")
    outcome = on_jit(subject, words(rounds, 0))
    assert isinstance(outcome, Returned)
    assert outcome.r0 == result
    told = interpret(subject, words(rounds, 0))
    assert isinstance(told, Unknown)
    assert "more than 8388608 rounds" in told.why


def test_many_rounds_are_all_taken() -> None:
    rounds = 530_000
    subject = loop(BUILT_IN, f"r1 = {rounds}", "r0 = 0")
    runner = JitLeg(patience=60).prepare(verifier.fixup(subject))
    assert isinstance(runner, JitRunner)
    assert runner.run([NONE])[0] == Returned(rounds, words(1, 0), b"")


@pytest.mark.parametrize("flags", [BUILT_IN, CALLED])
def test_what_is_no_function_is_not_called(flags: str) -> None:
    source = f"r6 = r1\nr1 = 1\nr2 = 4096\nr3 = 0\n{flags}\ncall bpf_loop\nr0 = 0\nexit"
    subject = program(source)
    for outcome in (interpret(subject, NONE), on_jit(subject)):
        assert isinstance(outcome, Trapped)
        assert outcome.kind == "call"


def test_a_callback_finds_only_two_registers() -> None:
    subject = loop(BUILT_IN, "r1 = 1", "r0 = r3")
    outcome = interpret(subject, NONE)
    assert isinstance(outcome, Trapped)
    assert outcome.kind == "undefined"


def test_one_of_two_callbacks_is_called_by_the_helper() -> None:
    source = """
    r6 = r1
    r0 = *(u64 *)(r6 + 8)
    r2 = one ll
    if r0 == 0 goto chosen
    r2 = two ll
    chosen:
    r1 = 3
    r3 = r6
    r4 = 0
    call bpf_loop
    exit
    one:
    r1 = 10
    goto store
    store:
    r0 = 0
    exit
    two:
    r0 = 1
    exit
    """
    subject = program(source, {"one": 2, "two": 2})
    assert calls_helper(subject)
    for flag, result in ((0, 3), (1, 1)):
        vector = words(0, flag)
        assert interpret(subject, vector) == on_jit(subject, vector) == Returned(result, vector)


def test_nested_loops_each_keep_their_own() -> None:
    source = """
    r6 = r1
    *(u64 *)(r10 - 8) = 1
    r1 = 3
    r2 = outer ll
    r3 = r10
    r3 += -8
    r4 = 0
    call bpf_loop
    r7 = r0
    r0 = *(u64 *)(r10 - 8)
    r0 += r7
    exit
    outer:
    r6 = r1
    r7 = r2
    r1 += 1
    r2 = inner ll
    r3 = r7
    r4 = 0
    call bpf_loop
    r8 = *(u64 *)(r7 + 0)
    r8 *= 7
    r8 += r6
    r8 += r0
    *(u64 *)(r7 + 0) = r8
    r0 = 0
    exit
    inner:
    r3 = *(u64 *)(r2 + 0)
    r3 *= 5
    r3 += r1
    *(u64 *)(r2 + 0) = r3
    r0 = 0
    exit
    """
    subject = program(source, {"outer": 2, "inner": 2})
    total = 1
    for number in range(3):
        for inner in range(number + 1):
            total = 5 * total + inner
        total = 7 * total + number + number + 1
    expected = Returned(total + 3 & M64, NONE, b"")
    assert interpret(subject, NONE) == on_jit(subject) == expected


# --- may_goto -----------------------------------------------------------------------------


def counting(rounds: int, body: str = "", before: str = "", after: str = "") -> Program:
    """Return a program that counts *rounds* in a loop that may_goto could end."""
    return program(f"""
        r6 = r1
        r9 = 0
        {before}
        again:
        may_goto out
        {body}
        r9 += 1
        if r9 != {rounds} goto again
        out:
        {after}
        r0 = r9
        exit
    """)


@pytest.mark.parametrize("rounds", [1, TIMED_LOOPS - 1, TIMED_LOOPS, TIMED_LOOPS + 1, 150_000])
def test_a_loop_goes_on_while_no_time_passes(rounds: int) -> None:
    subject = counting(rounds)
    assert interpret(subject, NONE) == on_jit(subject) == Returned(rounds, NONE, b"")


def test_asking_the_clock_keeps_what_a_program_has() -> None:
    before = "r0 = 10\nr1 = 11\nr2 = 12\nr3 = 13\nr4 = 14\nr5 = 15\nr7 = 17\nr8 = 18"
    before += "\n*(u64 *)(r10 - 8) = 20\n*(u64 *)(r10 - 512) = 21"
    sums = "\n".join(f"r9 *= 31\nr9 += r{n}" for n in (0, 1, 2, 3, 4, 5, 7, 8))
    sums += "\nr0 = *(u64 *)(r10 - 8)\nr9 += r0\nr0 = *(u64 *)(r10 - 512)\nr9 += r0"
    subject = counting(TIMED_LOOPS + 10, before=before, after=sums)
    outcome = interpret(subject, NONE)
    assert isinstance(outcome, Returned)
    assert on_jit(subject) == outcome


def test_a_loop_that_only_the_clock_ends_is_unknown_on_all_legs() -> None:
    subject = program("r0 = 0\nagain:\nmay_goto out\nr0 += 1\ngoto again\nout:\nexit")
    assert on_jit(subject) == OutOfFuel()
    legs, whys = pipeline.run_legs(subject, [NONE], Settings(configs=(), compilers=()))
    assert [type(seen[0]) for seen in legs.values()] == [Unknown, Unknown]
    assert all("whose loops Linux ends" in why for why in whys)


def test_the_interpreter_is_out_of_fuel_before_the_clock_is_asked_too_often() -> None:
    assert TURNS * TIMED_LOOPS > FUEL


def test_an_image_that_does_not_end_beside_an_interpreter_that_does_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = counting(3)
    endless = program("r0 = 0\nagain:\nmay_goto out\ngoto again\nout:\nexit")
    fixup = verifier.fixup
    monkeypatch.setattr(verifier, "fixup", lambda *_: fixup(endless))
    legs, _ = pipeline.run_legs(subject, [NONE], Settings(configs=(), compilers=()))
    assert {leg: seen[0] for leg, seen in legs.items()} == {
        "interp": Returned(3, NONE, b""),
        "jit": OutOfFuel(),
    }


# --- both, at random ----------------------------------------------------------------------


class Writer:
    """A program with loops of both kinds, calls, and slots that are live across them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.labels = 0
        self.nesting = 0  # of loops: each has its place in the frame
        self.functions: dict[str, int] = {}  # name: arguments
        self.bodies: list[str] = []

    def label(self) -> str:
        self.labels += 1
        return f"L{self.labels}"

    def mix(self) -> str:
        """Change r7, from registers and memory that every function has."""
        number = self.rng.randint(-(1 << 31), (1 << 31) - 1)
        return self.rng.choice(
            (
                f"r7 += {number}",
                f"r7 ^= {number}",
                "r7 *= 31",
                "r7 s>>= 3",
                "w7 += w7",
                "r1 = *(u64 *)(r10 - 16)\nr7 += r1",
                "*(u64 *)(r10 - 16) = r7",
                "r7 /= 7",
                "r1 = *(u64 *)(r10 - 16)\nr7 %= r1",
            )
        )

    def counted(self, body: Callable[[], str]) -> str:
        """Repeat *body* in a loop that may_goto could end."""
        top, out = self.label(), self.label()
        self.nesting += 1
        off = -16 - 8 * self.nesting
        inner = body()
        self.nesting -= 1
        return "\n".join(
            (
                f"*(u64 *)(r10 {off:+}) = {self.rng.randint(1, 4)}",
                f"{top}:",
                f"may_goto {out}",
                inner,
                f"r1 = *(u64 *)(r10 {off:+})",
                "r1 += -1",
                f"*(u64 *)(r10 {off:+}) = r1",
                f"if r1 != 0 goto {top}",
                f"{out}:",
            )
        )

    def call(self, depth: int) -> str:
        """Call a function; a loop may lie between its slots and the call."""
        name = self.function(depth - 1)
        count = self.functions[name]
        lines = []
        for slot in range(1, count - 4):
            value = self.rng.choice(("r7", str(self.rng.randint(-9, 9))))
            lines.append(f"*(u64 *)(r11 - {8 * slot}) = {value}")
        self.rng.shuffle(lines)
        if self.rng.random() < 0.5:
            lines.append(self.counted(self.mix))
        lines += [f"r{n} = {self.rng.choice(('r7', str(n)))}" for n in range(1, 6)]
        return "\n".join((*lines, f"call {name}", "r7 += r0"))

    def loop(self, depth: int) -> str:
        """Call bpf_loop: with a callback and flags that are known, or not."""
        name, rng = self.callback(depth - 1), self.rng
        address = f"r2 = {name} ll"
        if rng.random() < 0.3:
            over = self.label()
            address += f"\nif w7 > 7 goto {over}\nr2 = {self.callback(depth - 1)} ll\n{over}:"
        flags = rng.choice(("r4 = 0", "r4 = 0", "w4 = 0", "r4 = *(u64 *)(r10 - 8)"))
        rounds = rng.choice(("r1 = 3", "w1 = 1", "r1 = r7\nr1 &= 3"))
        store = f"*(u64 *)(r10 - 8) = {rng.choice((0, 0, 1))}"
        where = "r3 = r10\nr3 += -16"
        parts = [rounds, flags, where]
        rng.shuffle(parts)
        return "\n".join((store, address, *parts, "call bpf_loop", "r7 += r0"))

    def block(self, depth: int) -> str:
        lines = [self.mix()]
        for _ in range(self.rng.randint(1, 3)):
            kinds: list[Callable[[], str]] = [self.mix]
            if depth > 0:
                kinds += [
                    lambda: self.counted(lambda: self.block(depth - 1)),
                    lambda: self.call(depth),
                    lambda: self.loop(depth),
                    lambda: self.loop(depth),
                ]
            lines.append(self.rng.choice(kinds)())
        return "\n".join(lines)

    def frame(self) -> str:
        return "*(u64 *)(r10 - 8) = 0\n*(u64 *)(r10 - 16) = 5"

    def function(self, depth: int) -> str:
        """Write a function: its slots are read behind a loop, or in it."""
        name = f"f{len(self.functions)}"
        count = self.functions[name] = self.rng.randint(6, 12)
        slots = [f"r1 = *(u64 *)(r11 + {8 * n})\nr7 ^= r1\nr7 *= 3" for n in range(1, count - 4)]
        self.rng.shuffle(slots)
        read = "\n".join(slots)
        if self.rng.random() < 0.5:
            read = self.counted(lambda: read)
        elif self.rng.random() < 0.5:
            read = self.counted(self.mix) + "\n" + read
        start = "r7 = r1\nr7 += r2\nr7 ^= r3\nr7 -= r4\nr7 += r5"
        rest = self.block(depth)
        self.bodies.append(
            "\n".join((f"{name}:", start, self.frame(), read, rest, "r0 = r7", "exit"))
        )
        return name

    def callback(self, depth: int) -> str:
        """Write what bpf_loop calls: it changes what its caller has on the stack."""
        name = f"c{len(self.functions)}"
        self.functions[name] = 2
        start = f"r9 = r2\nr6 = r1\nr7 = *(u64 *)(r9 + 0)\nr7 += r6\n{self.frame()}"
        end = "*(u64 *)(r9 + 0) = r7\nr0 = 0"
        if self.rng.random() < 0.3:
            over = self.label()
            end += f"\nif r6 != 1 goto {over}\nr0 = 1\n{over}:"
        self.bodies.append("\n".join((f"{name}:", start, self.block(depth), end, "exit")))
        return name

    def program(self) -> Program:
        main = "\n".join(
            (
                "r6 = r1\nr7 = *(u64 *)(r6 + 0)",
                self.frame(),
                self.loop(2) if self.rng.random() < 0.5 else self.counted(lambda: self.call(2)),
                self.block(2),
                "*(u64 *)(r6 + 8) = r7\nr0 = r7\nexit",
            )
        )
        return program("\n".join((main, *self.bodies)), self.functions)


OPTIONS = verifier.Options(budget=30_000)
VECTORS = [words(n, 0) for n in (0, 1, 5, -1, 1 << 63, 0x1234_5678_9ABC_DEF0)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30))
def test_random_programs_do_the_same_on_both_legs(seed: int) -> None:
    subject = Writer(seed).program()
    verdict = verifier.verify(subject, log_level=0, options=OPTIONS).verdict
    match verdict:
        case Unknown(why=why):  # a long one
            assert "budget" in why
        case Rejected(message=message):  # a callback that no path calls
            assert "No program to jit" in message
        case _:
            assert verdict == Accepted()
    ours = pipeline.execute(subject, "interp", VECTORS)
    theirs = pipeline.execute(subject, "jit", VECTORS)
    assert all(isinstance(outcome, Returned) for outcome in ours)
    assert list(ours) == list(theirs)


def test_what_the_frames_hold_besides_is_written_before_it_is_read() -> None:
    for seed in range(3):
        subject = Writer(seed).program()
        stacks = [bytes([fill]) * STACK_SIZE for fill in (0, 0x5A, 0xFF)]
        told = pipeline.execute_over(subject, "jit", VECTORS[2], stacks)
        assert len(set(map(repr, told))) == 1
