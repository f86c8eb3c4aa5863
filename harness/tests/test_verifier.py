"""The verifier on real objects, and on anything at all."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.interp import Interpreter
from harness.isa.codec import decode, encode
from harness.isa.insn import Alu, Exit, Insn, Jump, Load, Store
from harness.load import load_object
from harness.load.raw import raw_program
from harness.model import (
    Accepted,
    HarnessError,
    Program,
    Rejected,
    Returned,
    Subprogram,
    Unknown,
    Verification,
)
from harness.tests.programs import DATA, HASH, PROG_ARRAY, program
from harness.tests.streams import CODE, END, TYPES
from harness.tests.test_verifier_stack_args import EIGHT
from harness.verifier import Options, fixup, verify

MANY = """
struct pair { long first, second; };
#define SEC(name) __attribute__((section(name), used))
#define STATIC static __attribute__((noinline))

STATIC long eight(long a, long b, long c, long d, long e, long f, unsigned long g, long h)
{
    return a + 2 * b - c * d + (e ^ f) + g / (h | 1);
}

STATIC long through(long *p, int n, char c, unsigned u, short s, long *q, unsigned char b)
{
    for (int i = 0; i < 4; i++)
        *p += (c + i) * *q;
    return n + u + s + b;
}

STATIC long wide(long a, long b, long c, long d, struct pair p, long z)
{
    return a - b + c - d + p.first * p.second - z;
}

SEC("syscall") int calls_eight(long *c)
{
    return eight(c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]);
}

SEC("syscall") int calls_through(long *c)
{
    long x = c[0], y = c[1];
    int r = through(&x, c[2], c[3], c[4], c[5], &y, c[6]);
    c[9] = x;
    return r;
}

SEC("syscall") int calls_wide(long *c)
{
    struct pair p = { c[4], c[5] };
    return wide(c[0], c[1], c[2], c[3], p, c[6]);
}

SEC("syscall") int loops(long *c)
{
    long sum = 0;
    for (int i = 0; i < 100; i++)
        sum += eight(i, sum, c[0], 3, 4, 5, 6, 7);
    return sum;
}

SEC("syscall") int too_far(long *c)
{
    long x[4] = {};
    x[c[0] & 7] = 1;
    return x[c[1] & 3];
}

char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module", params=[("2", "v4"), ("2", "v1"), ("1", "v3")])
def programs(
    request: pytest.FixtureRequest, clang: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Program]:
    opt, cpu = request.param
    place: Path = tmp_path_factory.mktemp("verifier")
    source = place / "many.c"
    source.write_text(MANY)
    flags = ["-target", "bpf", f"-mcpu={cpu}", "-g", f"-O{opt}", "-c"]
    out = place / "many.o"
    subprocess.run([*clang, *flags, str(source), "-o", str(out)], check=True)
    return {item.name: item for item in load_object(out.read_bytes()).programs}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("calls_eight", ""),
        ("calls_through", ""),
        ("calls_wide", "invalid read from stack arg off 16 depth 8"),
        ("loops", ""),
        ("too_far", "invalid"),
    ],
)
def test_what_clang_makes(programs: dict[str, Program], name: str, message: str) -> None:
    verdict = verify(programs[name]).verdict
    if not message:
        assert verdict == Accepted()
    else:
        assert isinstance(verdict, Rejected)
        assert verdict.message.startswith(message)


def test_what_the_compiler_may_do_and_the_kernel_not(programs: dict[str, Program]) -> None:
    layout = Options(slots_by="layout")
    assert verify(programs["calls_wide"], options=layout).verdict == Accepted()
    assert verify(programs["calls_eight"], options=layout).verdict == Accepted()


def test_divisions_are_patched(programs: dict[str, Program]) -> None:
    before = programs["calls_eight"]
    after = fixup(before)
    assert len(after.insns) == len(before.insns) + 3  # one of 64 bits
    assert after.subprograms[-1].end == len(after.insns)


def test_what_a_verification_tells() -> None:
    found = verify(program(EIGHT, {"eight": 8}))
    assert isinstance(found, Verification)
    assert found.verdict == Accepted()
    assert found.processed == 16
    assert found.seconds > 0


def test_a_fault_of_ours_is_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("of a test")

    monkeypatch.setattr("harness.verifier.check._explore", fail)
    expected = Unknown("internal: ZeroDivisionError: of a test")
    assert verify(program("r0 = 0\nexit")).verdict == expected


# --- anything at all -----------------------------------------------------------------------


def check(subject: Program, level: int = 1) -> None:
    found = verify(subject, log_level=level)
    if isinstance(found.verdict, Unknown):
        assert not found.verdict.why.startswith("internal: ")
    with contextlib.suppress(HarnessError):  # a jump that no longer reaches
        fixup(subject)


@settings(deadline=None, max_examples=300)
@given(CODE, TYPES, st.integers(0, 2), st.booleans())
def test_any_code(code: bytes, kind: str, level: int, ends: bool) -> None:
    subject = raw_program(code + END if ends else code)
    check(replace(subject, type=kind, maps=(HASH, DATA, PROG_ARRAY)), level)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damaged_code(data: st.DataObject) -> None:
    subject = program(EIGHT, {"eight": 8})
    code = bytearray(encode(subject.insns))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(code) - 1))
        code[place] ^= 1 << data.draw(st.integers(0, 7))
    check(replace(subject, insns=decode(bytes(code))))


REGISTERS = st.sampled_from([0, 2, 3, 6, 7, 8])
NUMBERS = st.sampled_from([0, 1, 7, 8, 15, 24, 255, -1, -8, -16, 1 << 30, -(1 << 31)])
BITS = st.sampled_from([32, 64])
OFFSETS = st.sampled_from([-8, -16, -24, -4, -12, -1])
STEPS = st.lists(
    st.one_of(
        st.builds(
            Alu,
            st.sampled_from(["add", "sub", "mul", "and", "or", "xor", "div", "smod", "mov"]),
            BITS,
            REGISTERS,
            REGISTERS,
        ),
        st.builds(
            lambda op, bits, dst, imm: Alu(op, bits, dst, None, imm),
            st.sampled_from(["add", "and", "and", "or", "mov", "mul", "sub"]),
            BITS,
            REGISTERS,
            NUMBERS,
        ),
        st.builds(
            lambda op, bits, dst, imm: Alu(op, bits, dst, None, imm),
            st.sampled_from(["lsh", "rsh", "arsh"]),
            BITS,
            REGISTERS,
            st.integers(0, 31),
        ),
        st.builds(Alu, st.just("mov"), st.just(64), REGISTERS, st.sampled_from([10, 9])),
        st.builds(Load, st.sampled_from([1, 2, 4, 8]), REGISTERS, REGISTERS, OFFSETS),
        st.builds(Load, st.sampled_from([1, 4, 8]), REGISTERS, st.just(10), OFFSETS),
        st.builds(Store, st.sampled_from([1, 4, 8]), REGISTERS, OFFSETS, REGISTERS),
        st.builds(Store, st.just(8), st.just(10), OFFSETS, REGISTERS),
        st.builds(
            lambda op, bits, dst, imm, off: Jump(op, bits, dst, None, imm, off),
            st.sampled_from(["eq", "ne", "gt", "lt", "sgt", "slt", "le", "sge", "set"]),
            BITS,
            REGISTERS,
            NUMBERS,
            st.integers(1, 6),
        ),
        st.builds(
            Jump,
            st.sampled_from(["eq", "ne", "gt", "slt"]),
            BITS,
            REGISTERS,
            REGISTERS,
            st.just(0),
            st.integers(1, 6),
        ),
    ),
    min_size=1,
    max_size=24,
)
START: tuple[Insn, ...] = (
    Alu("mov", 64, 9, 1),
    Load(8, 6, 1, 0),
    Load(8, 7, 1, 8),
    Load(4, 8, 1, 16),
    *(Alu("mov", 64, dst, None, 5) for dst in (0, 2, 3)),
)
WORDS = st.sampled_from([0, 1, 7, 8, 16, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 8])


@settings(deadline=None, max_examples=400)
@given(STEPS, st.lists(WORDS, min_size=3, max_size=3))
def test_what_is_accepted_does_not_trap(steps: list[Insn], words: list[int]) -> None:
    count = len(steps)
    body: list[Insn] = [
        replace(step, off=min(step.off, count - 1 - at)) if isinstance(step, Jump) else step
        for at, step in enumerate(steps)
    ]
    insns: tuple[Insn, ...] = (*START, *body, Alu("mov", 64, 0, None, 0), Exit())
    subject = Program("main", "", "syscall", insns, (Subprogram("main", 0, len(insns)),))
    found = verify(subject, log_level=0).verdict
    assert not isinstance(found, Unknown)
    if found == Accepted():
        vector = b"".join(word.to_bytes(8, "little") for word in words) + bytes(4096)
        assert isinstance(Interpreter(subject).run(vector), Returned)


def test_programs_that_are_no_programs() -> None:
    subject = program(EIGHT, {"eight": 8})
    check(replace(subject, insns=()))
    check(replace(subject, subprograms=()))
    check(replace(subject, insns=subject.insns[:5]))
    check(replace(subject, btf=None))
    check(replace(subject, subprograms=subject.subprograms[::-1]))
