"""What the verifier refuses before it follows any path: form, jumps, functions, BTF."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.btf import Btf, Func, FuncProto, Param
from harness.isa.insn import (
    Alu,
    Call,
    Exit,
    Goto,
    High,
    Insn,
    Jump,
    LoadImm,
    Raw,
)
from harness.model import LineInfo, Program, Rejected, Subprogram
from harness.tests.programs import (
    HASH,
    LONG,
    PROG_ARRAY,
    program,
    verdict,
)
from harness.verifier import Options, verify

ZERO = Alu("mov", 64, 0, None, 0)


def raw(*insns: Insn) -> Program:
    return Program("main", "", "syscall", insns, (Subprogram("main", 0, len(insns)),))


@pytest.mark.parametrize(
    ("insns", "message"),
    [
        ((ZERO, Exit()), ""),
        ((ZERO,), "last insn is not an exit or jmp"),
        ((ZERO, Exit(), ZERO), "last insn is not an exit or jmp"),
        ((ZERO, Exit(), ZERO, Exit()), "unreachable insn 2"),
        ((Goto(1), ZERO, Exit()), "unreachable insn 1"),
        ((Goto(2), ZERO, Exit()), "jump out of range from insn 0 to 3"),
        ((Goto(-2), ZERO, Exit()), "jump out of range from insn 0 to -1"),
        ((Jump("eq", 64, 1, None, 0, 9), ZERO, Exit()), "jump out of range from insn 0 to 10"),
        ((LoadImm(0, 0, 5), High(), Exit()), ""),
        ((LoadImm(0, 0, 5), Exit()), "invalid bpf_ld_imm64 insn"),
        ((ZERO, Exit(), LoadImm(0, 0, 5)), "invalid bpf_ld_imm64 insn"),
        ((LoadImm(0, 5, 9), High(), Exit()), "unknown: map 9 of 0"),
        ((Raw(0x18, 0, 7, 0, 9), High(), Exit()), "unrecognized bpf_ld_imm64 insn"),
        ((LoadImm(0, 7, 9), High(), Exit()), f"unknown: no encoding for {LoadImm(0, 7, 9)}"),
        ((Goto(0, long=True), ZERO, Exit()), ""),
        ((Raw(0x8D, 0, 0, 0, 0), ZERO, Exit()), "unknown opcode 8d"),
        ((Raw(0xDF, 0, 0, 0, 0), ZERO, Exit()), "unknown opcode df"),
        ((Raw(0xFF, 0, 0, 0, 0), ZERO, Exit()), "unknown opcode ff"),
        ((Raw(0x07, 0, 1, 0, 0), ZERO, Exit()), "BPF_ALU uses reserved fields"),
        ((Raw(0x0F, 0, 1, 0, 5), ZERO, Exit()), "BPF_ALU uses reserved fields"),
        ((Raw(0xB7, 0, 0, 3, 0), ZERO, Exit()), "BPF_MOV uses reserved fields"),
        ((Raw(0xBF, 0, 1, 9, 0), ZERO, Exit()), "BPF_MOV uses reserved fields"),
        ((Raw(0x87, 0, 1, 0, 0), ZERO, Exit()), "BPF_NEG uses reserved fields"),
        ((Raw(0xD4, 0, 0, 0, 8), ZERO, Exit()), "BPF_END uses reserved fields"),
        ((Raw(0x61, 0, 1, 0, 8), ZERO, Exit()), "BPF_LDX uses reserved fields"),
        ((Raw(0x63, 10, 1, -8, 8), ZERO, Exit()), "BPF_STX uses reserved fields"),
        ((Raw(0x62, 10, 1, -8, 8), ZERO, Exit()), "BPF_ST uses reserved fields"),
        ((Raw(0xC3, 10, 1, -8, 2), ZERO, Exit()), "BPF_ATOMIC uses invalid atomic opcode 02"),
        ((Raw(0x05, 0, 1, 0, 0), ZERO, Exit()), "BPF_JA uses reserved fields"),
        ((Raw(0x95, 0, 1, 0, 0), ZERO, Exit()), "BPF_EXIT uses reserved fields"),
        ((Raw(0x85, 0, 0, 1, 5), ZERO, Exit()), "BPF_CALL uses reserved fields"),
        ((Raw(0x85, 0, 5, 0, 5), ZERO, Exit()), "BPF_CALL uses reserved fields"),
    ],
)
def test_forms(insns: tuple[Insn, ...], message: str) -> None:
    assert verdict(raw(*insns)) == message


def test_a_refusal_names_its_instruction() -> None:
    found = verify(raw(ZERO, Alu("mov", 64, 2, 12), Exit())).verdict
    assert found == Rejected(1, "R12 is invalid")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("r10 = 1", "frame pointer is read only"),
        ("r10 += 1", "frame pointer is read only"),
        ("r1 /= 0", "div by zero"),
        ("r1 %= 0", "div by zero"),
        ("w1 s/= 0", "div by zero"),
        ("r1 <<= 64", "invalid shift 64"),
        ("w1 <<= 32", "invalid shift 32"),
        ("r1 s>>= -1", "invalid shift -1"),
        ("r0 = r2", "R2 !read_ok"),
        ("w0 = w2", "R2 !read_ok"),
        ("r2 += 1", "R2 !read_ok"),
        ("r0 = *(u64 *)(r2 + 0)", "R2 !read_ok"),
        ("*(u64 *)(r10 - 8) = r2", "R2 !read_ok"),
        ("if r2 == 0 goto +0", "R2 !read_ok"),
        ("if r1 == r3 goto +0", "R3 !read_ok"),
        ("r0 = be16 r0", "R0 !read_ok"),
    ],
)
def test_registers(source: str, message: str) -> None:
    assert verdict(program(f"{source}\nr0 = 0\nexit")) == message


def test_exit_needs_a_result() -> None:
    assert verdict(program("exit")) == "R0 !read_ok"


def test_falling_from_one_function_into_the_next() -> None:
    subject = program("call f\nr0 = 0\nr0 = 0\nf: r0 = 0\nexit", {"f": 0})
    assert verdict(subject) == "last insn is not an exit or jmp"


def test_jumping_into_another_function() -> None:
    subject = program("call f\nif r0 == 0 goto +2\nr0 = 0\nexit\nf: r0 = 0\nr0 = 1\nexit", {"f": 0})
    assert verdict(subject) == "jump out of range from insn 1 to 4"


def test_calls_that_lead_nowhere() -> None:
    insns = (Call("subprog", 7), ZERO, Exit())
    assert verdict(raw(*insns)) == "call to invalid destination"


CALL = "call f\nr0 = 0\nexit\nf: r0 = 0\nexit"


def changed(subject: Program, **sub: object) -> Program:
    """Return *subject* with its second function changed."""
    first, second = subject.subprograms
    return replace(subject, subprograms=(first, replace(second, **sub)))  # type: ignore[arg-type]


def test_functions_and_their_records_match() -> None:
    subject = program(CALL, {"f": 0})
    assert verdict(subject) == ""
    uncalled = program("r0 = 0\nexit\nf: r0 = 0\nexit", {"f": 0})
    assert verdict(uncalled) == "number of funcs in func_info doesn't match number of subprogs"
    assert verdict(changed(subject, start=4)) == (
        "func_info BTF section doesn't match subprog layout in BPF program"
    )
    assert verdict(changed(subject, type_id=LONG)) == "invalid type id 1 in func info"
    assert verdict(changed(subject, type_id=999)) == "invalid type id 999 in func info"
    assert verdict(changed(subject, start=0)) == (
        "same or smaller insn offset (0) than previous func info record (0)"
    )


def test_btf_that_is_refused_is_as_good_as_none() -> None:
    eight = "call f\nr0 = 0\nexit\nf: r0 = *(u64 *)(r11 + 8)\nexit"
    subject = program(eight, {"f": 6})
    assert verdict(subject) == "callee expects 6 args, stack arg1 is not initialized"
    assert subject.btf is not None
    proto = FuncProto(LONG, (Param("", LONG),))  # a parameter of a function needs a name
    bad = Btf((*subject.btf.types, proto, Func("g", len(subject.btf.types))))
    assert verdict(replace(subject, btf=bad)) == "invalid read from stack arg off 8 depth 0"


def line(insn: int) -> LineInfo:
    return LineInfo(insn, "a.c", "x", 1, 1)


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ((0, 3), ""),
        ((0, 1, 2, 3, 4), ""),
        ((1, 3), "missing bpf_line_info for func#0"),
        ((0,), "missing bpf_line_info for 1 funcs starting from func#1"),
        ((0, 4), "missing bpf_line_info for func#1"),
        ((0, 3, 5), "Invalid line_info[2].insn_off:5 (prev_offset:3 prog->len:5)"),
        ((0, 0, 3), "Invalid line_info[1].insn_off:0 (prev_offset:0 prog->len:5)"),
    ],
)
def test_source_lines(slots: tuple[int, ...], message: str) -> None:
    subject = program(CALL, {"f": 0}, lines=[line(slot) for slot in slots])
    assert verdict(subject) == message


def test_a_source_line_of_no_instruction() -> None:
    subject = program("r1 = 5 ll\nr0 = 0\nexit", {}, lines=[line(0), line(1)])
    assert verdict(subject) == "Invalid insn code at line_info[1].insn_off"


def test_kinds_of_programs_that_need_the_kernel() -> None:
    subject = program("r0 = 0\nexit", type="tracing")
    assert verdict(subject) == "unknown: what a program with attach type none attaches to"
    kfunc = replace(raw(Call("kfunc", 0), ZERO, Exit()), kfuncs=("bpf_this",))
    assert verdict(kfunc).startswith("unknown: a kfunc call (no kernel BTF: fetch ")


def test_unprivileged_programs() -> None:
    subject = program("r0 = 0\nexit")
    assert verdict(subject, Options(privileged=False)) == "unknown: unprivileged programs"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("r1 = map[idx:0]", ""),
        ("r1 = map[idx:0]+8", "no direct value access support for this map type"),
        ("r1 = map[idx:2]", "unknown: map 2 of 2"),
    ],
)
def test_maps(source: str, message: str) -> None:
    assert verdict(program(f"{source}\nr0 = 0\nexit", maps=[HASH, PROG_ARRAY])) == message
