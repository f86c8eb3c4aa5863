"""Stack arguments: every rule and message of STACK_ARGS.md."""

from __future__ import annotations

import pytest

from harness.isa.asm import assemble
from harness.isa.insn import Alu, Atomic, Exit, Insn, Jump, Load, Store, StoreImm
from harness.model import Program, Subprogram
from harness.tests.programs import (
    DATA,
    HASH,
    LONG,
    PROG_ARRAY,
    PTR_VOID,
    WIDE,
    program,
    text,
    verdict,
)
from harness.verifier import Options, verify

EIGHT = """
    r1 = 1
    r2 = 2
    r3 = 3
    r4 = 4
    r5 = 5
    *(u64 *)(r11 - 8) = 6
    *(u64 *)(r11 - 16) = 7
    *(u64 *)(r11 - 24) = 8
    call eight
    exit
eight:
    r0 = *(u64 *)(r11 + 8)
    r1 = *(u64 *)(r11 + 16)
    r0 += r1
    r1 = *(u64 *)(r11 + 24)
    r0 += r1
    exit
"""


def edited(find: str, put: str = "") -> Program:
    """Return the program that passes eight arguments, changed."""
    assert find in EIGHT
    return program(EIGHT.replace(find, put), {"eight": 8})


def test_eight_arguments() -> None:
    assert verdict(program(EIGHT, {"eight": 8})) == ""


@pytest.mark.parametrize(
    ("insn", "register"),
    [
        (Load(4, 0, 11, 8), 11),
        (Load(4, 0, 11, 8, True), 11),
        (Load(8, 0, 11, 4), 11),
        (Load(8, 0, 11, 0), 11),
        (Load(8, 0, 11, -8), 11),
        (Load(8, 11, 1, 0), 11),
        (Store(4, 11, -8, 1), 11),
        (Store(8, 11, -4, 1), 11),
        (Store(8, 11, 8, 1), 11),
        (Store(8, 11, 0, 1), 11),
        (Store(8, 10, -8, 11), 11),
        (StoreImm(4, 11, -8, 1), 11),
        (StoreImm(8, 11, 8, 1), 11),
        (Atomic("add", 8, 11, -8, 1), 11),
        (Alu("mov", 64, 1, 11), 11),
        (Alu("add", 64, 11, None, 8), 11),
        (Jump("eq", 64, 11, None, 0, 0), 11),
        (Jump("eq", 64, 1, 11, 0, 0), 11),
        (Alu("mov", 64, 12, None, 8), 12),
        (Alu("mov", 64, 1, 15), 15),
    ],
)
def test_forms_that_name_r11(insn: Insn, register: int) -> None:
    insns = (insn, Alu("mov", 64, 0, None, 0), Exit())
    subject = Program("main", "", "syscall", insns, (Subprogram("main", 0, 3),))
    assert verdict(subject) == f"R{register} is invalid"


def test_outgoing_slots_end_at_seven() -> None:
    slots = "".join(f"*(u64 *)(r11 - {8 * n}) = {n}\n" for n in range(1, 9))
    body = "r1=0\nr2=0\nr3=0\nr4=0\nr5=0\n" + slots + "call f\nexit\nf:\nr0=0\nexit"
    expected = "stack arg write offset -64 exceeds max 7 stack args"
    assert verdict(program(body, {"f": 12})) == expected
    fewer = body.replace("*(u64 *)(r11 - 64) = 8\n", "")
    assert verdict(program(fewer, {"f": 12})) == ""


@pytest.mark.parametrize(
    "before",
    [
        "*(u64 *)(r11 - 8) = 6",
        "*(u64 *)(r11 - 8) = r1",
        "call 5",  # bpf_ktime_get_ns
        "call none",
    ],
)
def test_loads_of_incoming_slots_come_first(before: str) -> None:
    body = EIGHT.replace("eight:", f"eight:\n{before}")
    signatures = {"eight": 8}
    if "none" in before:
        body += "none: r0 = 0\nexit"
        signatures["none"] = 0
    expected = "r11 load must be before any r11 store or call insn"
    assert verdict(program(body, signatures)) == expected


def test_the_order_is_one_of_paths_not_of_text() -> None:
    body = """
        r1 = 1
        r2 = 2
        r3 = 3
        r4 = 4
        r5 = 5
        *(u64 *)(r11 - 8) = 6
        call six
        exit
    six:
        if r1 == 1 goto load
        call 5
        exit
    load:
        r0 = *(u64 *)(r11 + 8)
        exit
    """
    assert verdict(program(body, {"six": 6})) == ""


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (8, ""),
        (9, "callee expects 9 args, stack arg4 is not initialized"),
        (7, "invalid read from stack arg off 24 depth 16"),
        (6, "invalid read from stack arg off 16 depth 8"),
        (5, "invalid read from stack arg off 8 depth 0"),
        (0, "invalid read from stack arg off 8 depth 0"),
    ],
)
def test_incoming_slots_are_those_of_the_prototype(params: int, message: str) -> None:
    assert verdict(program(EIGHT, {"eight": params})) == message


def test_main_has_no_incoming_slots() -> None:
    body = "r0 = *(u64 *)(r11 + 8)\nexit"
    assert verdict(program(body)) == "invalid read from stack arg off 8 depth 0"


@pytest.mark.parametrize("slot", [1, 2, 3])
def test_every_slot_is_written(slot: int) -> None:
    expected = f"callee expects 8 args, stack arg{slot} is not initialized"
    assert verdict(edited(f"*(u64 *)(r11 - {8 * slot}) = {5 + slot}\n")) == expected


def test_on_every_path() -> None:
    subject = edited("*(u64 *)(r11 - 16) = 7", "if r1 == r2 goto +1\n*(u64 *)(r11 - 16) = 7")
    assert verdict(subject) == ""  # 1 is never 2
    body = EIGHT.replace("r1 = 1", "call 7\nr1 = r0")  # bpf_get_prandom_u32
    body = body.replace("*(u64 *)(r11 - 16)", "if r1 == r2 goto +1\n*(u64 *)(r11 - 16)")
    expected = "callee expects 8 args, stack arg2 is not initialized"
    assert verdict(program(body, {"eight": 8})) == expected


@pytest.mark.parametrize(
    "call",
    [
        "call 5",  # a helper
        "call none",  # a static function
        "r1 = 0; call big",  # a global one
        "r1 = 1; r2 = 2; r3 = 3; r4 = 4; r5 = 5; call eight",
    ],
)
def test_every_call_forgets_the_slots(call: str) -> None:
    again = "r1 = 1; r2 = 2; r3 = 3; r4 = 4; r5 = 5; call eight"
    body = EIGHT.replace("call eight\n", text(f"{call}; {again}") + "\n", 1)
    signatures = {"eight": 8}
    for name in ("none", "big"):
        if name in call:
            body += f"{name}: r0 = 0\nexit"
            signatures[name] = 0
    subject = program(body, signatures, linkage={"big": "global"})
    assert verdict(subject) == "callee expects 8 args, stack arg1 is not initialized"


def test_no_more_slots_than_calls_need() -> None:
    subject = edited("*(u64 *)(r11 - 24) = 8", "*(u64 *)(r11 - 24) = 8\n*(u64 *)(r11 - 32) = 9")
    assert verdict(subject) == "func#0 writes 4 stack arg slots, but calls only require 3"
    alone = program("*(u64 *)(r11 - 8) = 1\nr0 = 0\nexit")
    assert verdict(alone) == "func#0 writes 1 stack arg slots, but calls only require 0"


def test_global_functions_take_five() -> None:
    expected = "global function eight has 8 > 5 args, stack args not supported"
    assert verdict(program(EIGHT, {"eight": 8}, linkage={"eight": "global"})) == expected


def test_no_function_takes_more_than_twelve() -> None:
    subject = program(EIGHT, {"eight": 13})
    assert verdict(subject) == "kernel supports at most 12 parameters, function eight has 13"


def test_tail_calls() -> None:
    expected = "tail_calls are not allowed in programs with stack args"
    tail = "r2 = map[idx:0]\nr3 = 0\ncall 12\n"
    for find, put in (
        ("r1 = 1", f"{tail}r1 = 1"),  # main calls with slots, and makes a tail call itself
        ("call eight\n", f"call eight\nr1 = r6\n{tail}r0 = 0\n"),
    ):
        body = "r6 = r1\n" + EIGHT.replace(find, put, 1)
        assert verdict(program(body, {"eight": 8}, type="kprobe", maps=[PROG_ARRAY])) == expected
    # the one that makes it is called by one that has slots; the context goes down
    below = EIGHT.replace("r1 = 1\n", "", 1)
    below = below.replace("eight:", "eight:\nr0 = *(u64 *)(r11 + 8)\ncall below\nexit")
    below = below[: below.index("exit", below.index("call below")) + 4]
    below += f"\nbelow:\n{tail}r0 = 0\nexit"
    subject = program(below, {"eight": 8, "below": 1}, type="kprobe", maps=[PROG_ARRAY])
    assert verdict(subject) == expected


def test_tail_calls_without_stack_arguments_may_be() -> None:
    body = "r2 = map[idx:0]\nr3 = 0\ncall 12\nr0 = 0\nexit"
    assert verdict(program(body, type="kprobe", maps=[PROG_ARRAY])) == ""


def test_kernels_without_a_jit() -> None:
    subject = program(EIGHT, {"eight": 8})
    expected = "stack args are not supported in non-JITed programs"
    assert verdict(subject, Options(jit=False)) == expected
    five = program("r1=0\nr2=0\nr3=0\nr4=0\nr5=0\ncall f\nexit\nf: r0 = 0\nexit", {"f": 5})
    assert verdict(five, Options(jit=False)) == ""


def test_jits_that_do_not_know_them() -> None:
    expected = "JIT does not support function eight() with 8 args"
    assert verdict(program(EIGHT, {"eight": 8}), Options(jit_stack_args=False)) == expected


def test_extension_programs() -> None:
    expected = "freplace programs with >5 args not supported yet"
    assert (
        verdict(program("r0 = 0\nexit", {"main": 6}, type="ext", linkage={"main": "static"}))
        == expected
    )


@pytest.mark.parametrize(
    ("value", "use", "message"),
    [
        ("r6 = r10; r6 += -8; *(u64 *)(r10 - 8) = 1", "r0 = *(u64 *)(r1 + 0)", ""),
        ("r6 = r10; r6 += -8", "*(u64 *)(r1 + 0) = 1; r0 = 0", ""),
        ("r6 = r10; r6 += -8", "*(u64 *)(r1 + 8) = 1; r0 = 0", "invalid write to stack R1 off=0"),
        ("r6 = 5", "r0 = *(u64 *)(r1 + 0)", "R1 invalid mem access 'scalar'"),
        ("r6 = r1", "r0 = *(u64 *)(r1 + 0)", ""),  # the context
        ("r6 = map[idx:0]+0", "r0 = *(u64 *)(r1 + 8)", ""),
        ("r6 = map[idx:0]+0", "r0 = *(u64 *)(r1 + 16)", "invalid access to map value"),
    ],
)
def test_a_slot_holds_any_register(value: str, use: str, message: str) -> None:
    start = f"{value}; *(u64 *)(r11 - 8) = r6; r1 = 0; r2 = 0; r3 = 0; r4 = 0; r5 = 0"
    body = text(f"{start}; call f; r0 = 0; exit; f:; r1 = *(u64 *)(r11 + 8); {use}; exit")
    said = verdict(program(body, {"f": [LONG] * 5 + [PTR_VOID]}, maps=[DATA]))
    assert said.startswith(message)
    assert bool(said) == bool(message)


CHOICE = """
    call 7
    if r0 != 0 goto other
    *(u64 *)(r11 - 8) = 0
    goto both
other:
    *(u64 *)(r11 - 8) = 100
both:
    r1 = 0
    r2 = 0
    r3 = 0
    r4 = 0
    r5 = 0
    call f
    r0 = 0
    exit
f:
    r1 = *(u64 *)(r11 + 8)
    r2 = r10
    r2 += -8
"""


def test_precision_goes_through_slots_into_the_caller() -> None:
    # without it the second path is pruned where both meet
    body = CHOICE + "r2 += r1\n*(u8 *)(r2 + 0) = 1\nr0 = 0\nexit"
    assert verdict(program(body, {"f": 6})) == "invalid write to stack R2 off=92 size=1"
    near = body.replace("= 100", "= 7")
    assert verdict(program(near, {"f": 6})) == ""


def test_what_is_not_precise_is_pruned() -> None:
    walked = {
        use: verify(program(CHOICE + use + "r0 = 0\nexit", {"f": 6}), log_level=0).processed
        for use in ("", "if r1 == 5 goto +0\n")
    }
    # the second path ends at the call; where the slot decides, it goes on to its end
    assert walked == {"": 17 + 7, "if r1 == 5 goto +0\n": 18 + 15}


def test_a_null_check_holds_for_the_copy_in_a_slot() -> None:
    body = """
        *(u32 *)(r10 - 4) = 0
        r1 = map[idx:0]
        r2 = r10
        r2 += -4
        call 1
        *(u64 *)(r11 - 8) = r0
        if r0 == 0 goto out
        r1 = 0
        r2 = 0
        r3 = 0
        r4 = 0
        r5 = 0
        call f
    out:
        r0 = 0
        exit
    f:
        r1 = *(u64 *)(r11 + 8)
        r0 = *(u64 *)(r1 + 0)
        exit
    """
    assert verdict(program(body, {"f": 6}, maps=[HASH])) == ""
    unchecked = body.replace("if r0 == 0 goto out\n", "")
    expected = "R1 invalid mem access 'map_value_or_null'"
    assert verdict(program(unchecked, {"f": 6}, maps=[HASH])) == expected


def test_slots_differ_where_paths_meet() -> None:
    # pruning compares what is written: on the second path slot 2 is not
    body = """
        call 7
        r1 = 0
        r2 = 0
        r3 = 0
        r4 = 0
        r5 = 0
        *(u64 *)(r11 - 8) = 1
        if r0 != 0 goto both
        *(u64 *)(r11 - 16) = 1
    both:
        call f
        r0 = 0
        exit
    f:
        r0 = 0
        exit
    """
    expected = "callee expects 7 args, stack arg2 is not initialized"
    assert verdict(program(body, {"f": 7})) == expected
    assert verdict(program(body, {"f": 6})).startswith("func#0 writes 2 stack arg slots")


def test_arguments_of_sixteen_bytes() -> None:
    body = EIGHT
    types = [LONG] * 6 + [WIDE]  # seven parameters, eight slots
    expected = "invalid read from stack arg off 24 depth 16"
    assert verdict(program(body, {"eight": types})) == expected
    assert verdict(program(body, {"eight": types}), Options(slots_by="layout")) == ""


def test_arguments_inferred_without_btf() -> None:
    bare = assemble(EIGHT)
    start = bare.labels["eight"]
    halves = (Subprogram("main", 0, start), Subprogram("eight", start, len(bare.insns)))
    subject = Program("main", "", "syscall", bare.insns, halves)
    assert verdict(subject) == "invalid read from stack arg off 8 depth 0"
    assert verdict(subject, Options(infer_arguments=True)) == ""
