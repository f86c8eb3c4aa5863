"""Calls: functions of the program, static and global, and helpers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from harness.model import MapDef
from harness.tests.programs import (
    HASH,
    INT,
    LONG,
    PROG_ARRAY,
    PTR_LONG,
    PTR_VOID,
    PTR_WIDE,
    VOID,
    WIDE,
    program,
    text,
    verdict,
)
from harness.verifier import verify

RING = MapDef("ring", 27, 0, 0, 4096)
QUEUE = MapDef("queue", 22, 0, 8, 4)
RODATA = MapDef(".rodata", 2, 4, 16, 1, flags=0x80, data=b"%d\n" + bytes(13), readonly=True)
MAPS = (HASH, PROG_ARRAY, RING, QUEUE, RODATA)


def said(body: str, functions: Mapping[str, int] | None = None, kind: str = "syscall") -> str:
    return verdict(program(text(body), functions or None, type=kind, maps=MAPS))


# --- static functions ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("r1 = 1; call f; exit; f: r0 = r1; exit", ""),
        ("r1 = 1; call f; r0 = r1; exit; f: r0 = 0; exit", "R1 !read_ok"),
        ("r6 = 1; call f; r0 = r6; exit; f: r6 = 2; r0 = 0; exit", ""),
        ("r6 = 1; call f; exit; f: r0 = r6; exit", "R6 !read_ok"),
        ("call f; exit; f: exit", "R0 !read_ok"),
        ("call f; exit; f: r0 = r10; exit", "cannot return stack pointer to the caller"),
        ("r6 = r10; call f; *(u64 *)(r6 - 8) = 1; exit; f: r0 = 0; exit", ""),
        # the caller's stack, through a pointer
        (
            "*(u64 *)(r10 - 8) = r1; r2 = r10; r2 += -8; call f; r0 = *(u64 *)(r0 + 0); exit; "
            "f: r0 = *(u64 *)(r2 + 0); exit",
            "",
        ),
        (
            "*(u64 *)(r10 - 8) = r1; r2 = r10; r2 += -8; call f; r0 = *(u64 *)(r10 - 8); "
            "r0 = *(u64 *)(r0 + 0); exit; f: *(u64 *)(r2 + 0) = 0; r0 = 0; exit",
            "R0 invalid mem access 'scalar'",
        ),
        (
            "r2 = r10; r2 += -8; call f; r0 = 0; exit; "
            "f: *(u64 *)(r10 - 8) = r10; r1 = r10; *(u64 *)(r2 + 0) = r1; r0 = 0; exit",
            "cannot spill pointers to stack into stack frame of the caller",
        ),
        ("call f; exit; f: call f; r0 = 0; exit", "recursive call from"),
        ("call f; exit; f: call g; exit; g: call f; exit", "recursive call from"),
    ],
)
def test_static_functions(body: str, message: str) -> None:
    functions = {name: 3 for name in "fg" if f"{name}: " in body}
    found = said(body, functions)
    assert found.startswith(message)
    assert bool(found) == bool(message)


def chain(length: int, stack: int) -> str:
    """Functions that call one another, each with *stack* bytes."""
    frame = f"*(u64 *)(r10 - {stack}) = 0; " if stack else ""
    names = [f"f{n}" for n in range(1, length)]
    body = ""
    for place, name in enumerate(["", *names]):
        head = f"{name}: " if name else ""
        tail = f"call f{place + 1}; r0 = 0; exit; " if place + 1 < length else "r0 = 0; exit; "
        body += head + frame + tail
    return body


@pytest.mark.parametrize(
    ("length", "stack", "message"),
    [
        (16, 0, ""),
        (17, 0, "the call stack of 17 frames is too deep"),
        (2, 256, ""),
        (2, 288, "combined stack size of 2 calls is 576. Too large"),
        (8, 64, ""),
        (8, 96, "combined stack size of 6 calls is 576. Too large"),
        (9, 8, ""),  # a frame takes 32 bytes at least
        (1, 512, ""),
    ],
)
def test_chains_of_calls(length: int, stack: int, message: str) -> None:
    functions = {f"f{n}": 0 for n in range(1, length)}
    assert said(chain(length, stack), functions) == message


# --- global functions -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "call", "function", "message"),
    [
        ([LONG], "r1 = 5", "r0 = r1", ""),
        ([LONG], "", "r0 = 0", "R1 is not a scalar"),
        ([INT], "r1 = 5", "r0 = r1", ""),
        # what it does with its arguments is decided for any value
        (
            [LONG],
            "r1 = 1",
            "r2 = r10; r2 += -8; r2 += r1; *(u8 *)(r2 + 0) = 0; r0 = 0",
            "math between fp pointer and register with unbounded min value is not allowed",
        ),
        ([PTR_LONG], "r1 = 0", "if r1 == 0 goto +1; r2 = *(u64 *)(r1 + 0); r0 = 0", ""),
        (
            [PTR_LONG],
            "r1 = 0",
            "if r1 == 0 goto +1; r2 = *(u64 *)(r1 + 8); r0 = 0",
            "invalid access to memory, mem_size=8 off=8 size=8",
        ),
        ([PTR_LONG], "r1 = 5", "r0 = 0", "R1 type=scalar expected=fp"),
        (
            [PTR_WIDE],
            "*(u64 *)(r10 - 8) = 1; r1 = r10; r1 += -8",
            "r0 = 0",
            "invalid read from stack R1 off=-8 size=16",
        ),
        ([PTR_WIDE], "*(u64 *)(r10 - 8) = 1; *(u64 *)(r10 - 16) = 1; r1 = r10; r1 += -16", "", ""),
        (
            [PTR_VOID],
            "",
            "r0 = 0",
            "arg#0 reference type('UNKNOWN ') size cannot be determined: -22",
        ),
        ([WIDE], "", "r0 = 0", "Arg#0 type STRUCT in f() is not supported yet."),
    ],
)
def test_global_functions(params: list[int], call: str, function: str, message: str) -> None:
    body = "; ".join(filter(None, [call, "call f; r0 = 0; exit; f: r0 = 0", function, "exit"]))
    subject = program(text(body), {"f": params}, linkage={"f": "global"})
    found = verdict(subject)
    assert found.startswith(message)
    assert bool(found) == bool(message)


def test_a_global_function_is_decided_once() -> None:
    loop = "r0 = 0; r0 += 1; if r0 < 100 goto -2; exit"
    subject = program(text(f"{'call f; ' * 5}r0 = 0; exit; f: {loop}"), {"f": 0})
    static = verify(subject, log_level=0).processed
    other = program(
        text(f"{'call f; ' * 5}r0 = 0; exit; f: {loop}"), {"f": 0}, linkage={"f": "global"}
    )
    assert static > 1000
    assert verify(other, log_level=0).processed < 300


def test_results_of_functions_without_one() -> None:
    body = "call f; r0 = 0; exit; f: r1 = 1; exit"
    static = program(text(body), {"f": 0}, results={"f": VOID})
    assert verdict(static) == ""
    used = body.replace("r0 = 0", "r1 = r0")
    assert verdict(program(text(used), {"f": 0}, results={"f": VOID})) == "R0 !read_ok"


# --- helpers -----------------------------------------------------------------------------

KEY = "*(u32 *)(r10 - 4) = 0; r2 = r10; r2 += -4; "
BUFFER = "r1 = r10; r1 += -16; "


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"r1 = map[idx:0]; {KEY}call 1", ""),
        (f"r1 = 5; {KEY}call 1", "R1 type=scalar expected=map_ptr"),
        ("r1 = map[idx:0]; r2 = r10; r2 += -4; call 1", ""),  # the privileged may
        (
            "r1 = map[idx:0]; r2 = r10; r2 += -2; call 1",
            "invalid read from stack R2 off=-2 size=4",
        ),
        ("r1 = map[idx:0]; r2 = 0; call 1", "R2 type=scalar expected=fp, pkt, pkt_meta, map_key"),
        ("r1 = map[idx:0]; call 1", "R2 !read_ok"),
        (f"r1 = map[idx:0]; {KEY}r3 = r10; r3 += -32; r4 = 0; call 2", ""),
        (f"r1 = map[idx:0]; {KEY}r3 = r10; r3 += -8; r4 = 0; call 2", "invalid"),
        (f"r1 = map[idx:0]; {KEY}call 3", ""),
        (f"r1 = map[idx:1]; {KEY}call 1", "cannot pass map_type 3 into func"),
        ("call 5", ""),
        ("call 7; r0 = r1", "R1 !read_ok"),
        ("call 999", "invalid func unknown#999"),
        ("call 0", "program of this type cannot use helper bpf_unspec#0"),
        ("call 51", "program of this type cannot use helper bpf_redirect_map#51"),
        (f"{BUFFER}r2 = 16; r3 = 0; call 113", ""),
        (f"{BUFFER}r2 = 17; r3 = 0; call 113", "invalid write to stack R1 off=-16 size=17"),
        (f"{BUFFER}r2 = 0; r3 = 0; call 113", ""),
        (f"{BUFFER}r2 = -1; r3 = 0; call 113", "R2 min value is negative"),
        (f"{BUFFER}r2 = r1; r3 = 0; call 113", "R2 type=fp expected=scalar"),
        (f"{BUFFER}r2 = 16; call 113", "R3 !read_ok"),
        (f"{BUFFER}r2 = 0; call 16", "R2 invalid zero-sized read"),
        (
            f"call 7; r6 = r0; {BUFFER}r2 = r6; r3 = 0; call 113",
            "R2 min value is negative",
        ),
        (f"call 7; r6 = r0; r6 &= 15; {BUFFER}r2 = r6; r3 = 0; call 113", ""),
        (f"call 7; r6 = r0; r6 &= 31; {BUFFER}r2 = r6; r3 = 0; call 113", "invalid write to stack"),
        # what a helper wrote is a number afterwards
        (
            f"*(u64 *)(r10 - 16) = r1; {BUFFER}r2 = 16; r3 = 0; call 113; "
            "r1 = *(u64 *)(r10 - 16); r0 = *(u8 *)(r1 + 0)",
            "R1 invalid mem access 'scalar'",
        ),
        ("r1 = map[idx:4]+0; r2 = 4; call 6", ""),
        ("r1 = map[idx:2]; r2 = r10; r2 += -8; r3 = 8; r4 = 0; call 130", ""),
        (f"r1 = map[idx:0]; {KEY}r3 = 4; r4 = 0; call 130", "cannot pass map_type 1 into func"),
        ("r1 = map[idx:3]; r2 = r10; r2 += -8; call 88; r0 = *(u64 *)(r10 - 8)", ""),
    ],
)
def test_helpers(body: str, message: str) -> None:
    found = said(f"{body}; r0 = 0; exit")
    assert found.startswith(message)
    assert bool(found) == bool(message)


def test_helpers_that_are_not_modelled() -> None:
    assert said("call 158; r0 = 0; exit").startswith("unknown: a pointer to struct task_struct")


LOOP = "r1 = 10; r2 = subprog[+6]; r3 = 0; r4 = 0; call 181; r0 = 0; exit; "


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        ("r0 = 0; exit", ""),
        ("r0 = 1; exit", ""),
        ("r0 = 2; exit", "At callback return the register R0 has"),
        ("r0 = r1; exit", "At callback return the register R0 has"),
        ("r0 = *(u64 *)(r2 + 0); exit", "R2 invalid mem access 'scalar'"),
        ("r0 = *(u8 *)(r3 + 0); exit", "R3 !read_ok"),
    ],
)
def test_callbacks(callback: str, message: str) -> None:
    found = verdict(program(text(f"{LOOP}body: {callback}"), {"body": 2}))
    assert found.startswith(message)
    assert bool(found) == bool(message)


def test_tail_calls() -> None:
    tail = "r2 = map[idx:1]; r3 = 0; call 12; r0 = 0; exit"
    assert said(tail, kind="kprobe") == ""
    assert said(f"r1 = 0; {tail}", kind="kprobe") == "R1 type=scalar expected=ctx"
    assert said(tail.replace("map[idx:1]", "map[idx:0]"), kind="kprobe") == (
        "expected prog array map for tail call"
    )
    deep = f"*(u64 *)(r10 - 256) = 0; call f; r0 = 0; exit; f: {tail}"
    assert said(deep, {"f": 1}, "kprobe") == (
        "tail_calls are not allowed when call stack of previous frames is 256 bytes. Too large"
    )


SPILLED = "r1 = 1; *(u64 *)(r10 - 16) = r1; call 8; r1 = *(u64 *)(r10 - 16); "


@pytest.mark.parametrize(
    ("body", "depth"),
    [
        (SPILLED, 8),  # the call clobbers nothing, so that the spill goes
        (SPILLED.replace("call 8", "call 5"), 16),  # of this helper that is not known
        (f"{SPILLED}r2 = *(u64 *)(r10 - 16); ", 16),  # the slot is used otherwise
        (SPILLED.replace("r1 = *", "if r0 == 0 goto +0; r1 = *"), 16),
    ],
)
def test_spills_that_the_kernel_takes_out(body: str, depth: int) -> None:
    source = text(f"*(u64 *)(r10 - 8) = 0; {body}r0 = 0; exit")
    lines = verify(program(source), log_level=4).log.splitlines()
    assert lines[-2].endswith(f" stack {depth}")
