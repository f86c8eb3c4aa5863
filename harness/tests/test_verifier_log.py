"""The log, line by line in the kernel's form."""

from __future__ import annotations

import pytest

from harness.model import LineInfo, Program
from harness.tests.programs import ARRAY, HASH, program
from harness.tests.test_verifier_stack_args import EIGHT
from harness.verifier import verify

INDEX = """
    r6 = r1
    call 7
    if r0 > 7 goto out
    r2 = r10
    r2 += -8
    r2 += r0
    *(u8 *)(r2 + 0) = 1
out:
    r0 = 0
    exit
"""
LINES = (
    LineInfo(0, "a.c", "int f(void *ctx)", 3, 1),
    LineInfo(1, "a.c", "\tunsigned r = bpf_get_prandom_u32();", 4, 3),
    LineInfo(3, "a.c", "\tunsigned r = bpf_get_prandom_u32();", 4, 9),
    LineInfo(7, "a.c", "\treturn 0;", 9, 3),
)


def log(subject: Program, level: int) -> list[str]:
    """Return the log's lines, without the statistics."""
    return verify(subject, log_level=level).log.splitlines()[:-1]


def test_what_is_safe_leaves_no_trace() -> None:
    assert verify(program(INDEX), log_level=0).log == ""
    assert log(program(INDEX), 1) == []
    assert verify(program(INDEX), log_level=1).log == (
        "processed 10 insns (limit 1000000) max_states_per_insn 0 total_states 1 "
        "peak_states 1 mark_read 0\n"
    )


def test_the_path_to_the_refusal() -> None:
    assert log(program(INDEX.replace("> 7", "> 8"), lines=LINES), 1) == [
        "0: R1=ctx() R10=fp0",
        "; int f(void *ctx) @ a.c:3",
        "0: (bf) r6 = r1                       ; R1=ctx() R6=ctx()",
        "; unsigned r = bpf_get_prandom_u32(); @ a.c:4",
        "1: (85) call bpf_get_prandom_u32#7    ; R0=scalar()",
        "2: (25) if r0 > 0x8 goto pc+4         ; "
        "R0=scalar(smin=smin32=0,smax=umax=smax32=umax32=8,var_off=(0x0; 0xf))",
        "3: (bf) r2 = r10                      ; R2=fp0 R10=fp0",
        "4: (07) r2 += -8                      ; R2=fp-8",
        "5: (0f) r2 += r0                      ; "
        "R0=scalar(smin=smin32=0,smax=umax=smax32=umax32=8,var_off=(0x0; 0xf)) "
        "R2=fp(smin=smin32=-8,smax=smax32=0)",
        "6: (72) *(u8 *)(r2 +0) = 1",
        "invalid variable-offset write to stack R2 var_off=(0x0; 0xffffffffffffffff) off=0 size=1",
    ]


def test_a_safe_path_is_taken_back() -> None:
    # the refusal is on the second path; what the first said after the branch is gone
    lines = log(program("r0 = 0\nif r1 == r10 goto bad\nr0 = 1\nexit\nbad: r0 = r5\nexit"), 1)
    assert lines == [
        "0: R1=ctx() R10=fp0",
        "0: (b7) r0 = 0                        ;",  # written again before anyone reads it
        "1: (1d) if r1 == r10 goto pc+2 4: R10=fp0",
        "4: (bf) r0 = r5",
        "R5 !read_ok",
    ]


def test_every_path() -> None:
    assert log(program(INDEX), 2)[2:] == [
        "0: R1=ctx() R10=fp0",
        "0: (bf) r6 = r1                       ; R1=ctx() R6=ctx()",
        "1: (85) call bpf_get_prandom_u32#7    ; R0=scalar()",
        "2: (25) if r0 > 0x7 goto pc+4         ; "
        "R0=scalar(smin=smin32=0,smax=umax=smax32=umax32=7,var_off=(0x0; 0x7))",
        "3: (bf) r2 = r10                      ; R2=fp0 R10=fp0",
        "4: (07) r2 += -8                      ; R2=fp-8",
        "5: (0f) r2 += r0",
        "mark_precise: frame0: last_idx 5 first_idx 0 subseq_idx -1 ",
        "mark_precise: frame0: regs=r0 stack= before 4: (07) r2 += -8",
        "mark_precise: frame0: regs=r0 stack= before 3: (bf) r2 = r10",
        "mark_precise: frame0: regs=r0 stack= before 2: (25) if r0 > 0x7 goto pc+4",
        "mark_precise: frame0: regs=r0 stack= before 1: (85) call bpf_get_prandom_u32#7",
        "6: R0=scalar(smin=smin32=0,smax=umax=smax32=umax32=7,var_off=(0x0; 0x7)) "
        "R2=fp(smin=smin32=-8,smax=smax32=-1,umin=0xfffffffffffffff8,umin32=0xfffffff8,"
        "var_off=(0xfffffffffffffff8; 0x7))",
        "6: (72) *(u8 *)(r2 +0) = 1            ;",
        "7: (b7) r0 = 0                        ; R0=0",
        "8: (95) exit",
        "",
        "from 2 to 7: safe",
    ]


def test_calls() -> None:
    lines = log(program(EIGHT, {"eight": 8}), 2)
    start = lines.index("8: (85) call pc+1")
    assert lines[start:] == [
        "8: (85) call pc+1",
        "caller:",
        " R10=fp0",
        "callee:",
        " frame1: R1=1 R2=2 R3=3 R4=4 R5=5 R10=fp0",
        "10: frame1: R10=fp0",
        "10: (79) r0 = *(u64 *)(r11 +8)        ; frame1: R0=6",
        "11: (79) r1 = *(u64 *)(r11 +16)       ; frame1: R1=7",
        "12: (0f) r0 += r1                     ; frame1: R0=13 R1=7",
        "13: (79) r1 = *(u64 *)(r11 +24)       ; frame1: R1=8",
        "14: (0f) r0 += r1                     ; frame1: R0=21 R1=8",
        "15: (95) exit",
        "returning from callee:",
        " frame1: R0=21 R1=8 R10=fp0",
        "to caller at 9:",
        " R0=21 R10=fp0",
        "",
        "from 15 to 9: R0=21 R10=fp0",
        "9: (95) exit",
    ]


def test_statistics_of_each_function() -> None:
    source = "call f\ncall f\nexit\nf: r1 = 0\n*(u64 *)(r10 - 24) = r1\nr0 = 0\nexit"
    lines = log(program(source, {"f": 0}), 4)
    assert lines[-3:] == [
        "stack depth max 32",
        "subprog 0 (main) main insns_self 3 insns_total 11 stack 0",
        "subprog 1 (f) static insns_self 8 insns_total 8 stack 24",
    ]


@pytest.mark.parametrize(
    ("source", "state"),
    [
        ("r1 = 0", "R1=0"),
        ("r1 = -5", "R1=-5"),
        ("r1 = 2147483647", "R1=0x7fffffff"),
        ("r1 = r10\nr1 += -16", "R1=fp-16"),
        ("r1 += 16", "R1=ctx(imm=16)"),
        ("r1 = map[idx:0]", "R1=map_ptr(map=hash,ks=4,vs=16)"),
        (
            "r1 = *(u32 *)(r1 + 0)",
            "R1=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))",
        ),
        ("r1 = *(s8 *)(r1 + 0)", "R1=scalar(smin=smin32=-128,smax=smax32=127)"),
        ("*(u64 *)(r10 - 8) = r1", "R1=ctx() R10=fp0 fp-8=ctx()"),
        ("*(u64 *)(r10 - 8) = 5", "R10=fp0 fp-8=5"),
        ("*(u32 *)(r10 - 8) = 5", "R10=fp0 fp-8=????5"),
        ("*(u16 *)(r10 - 8) = 5", "R10=fp0 fp-8=??????5"),
        ("*(u8 *)(r10 - 7) = 0", "R10=fp0 fp-8=??????0?"),
        ("*(u64 *)(r10 - 8) = 0", "R10=fp0 fp-8=0"),
    ],
)
def test_states(source: str, state: str) -> None:
    lines = log(program(f"{source}\nr0 = r5\nexit", maps=[HASH]), 2)
    assert [line[40:] for line in lines if line[38:41] == "; R"][-1] == state


def test_the_second_half_of_a_wide_load_is_stepped_over_in_silence() -> None:
    source = """
        *(u32 *)(r10 - 8) = 1
        r1 = map[idx:0]
        r2 = r10
        r2 += -8
        call 1
        r0 = 0
        exit
    """
    steps = [line for line in log(program(source, maps=(ARRAY,)), 2) if " before " in line]
    assert [line.split(" before ")[1].split(":")[0] for line in steps] == ["4", "3", "1", "0"]
