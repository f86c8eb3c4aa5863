"""Branches, loops, pruning and the precision that pruning rests on."""

from __future__ import annotations

import pytest

from harness.model import Rejected
from harness.tests.programs import HASH, PTR_LONG, program, text, verdict
from harness.verifier import verify

RANDOM = "r6 = r1; call 7; w0 = w0; if r6 == 0 goto out; "  # r0: any 32-bit number
# what is at r10-8+r0: allowed for 0 to 7
INDEX = "r2 = r10; r2 += -8; r2 += r0; *(u8 *)(r2 + 0) = 1; r0 = 0; exit; "


def said(body: str) -> str:
    return verdict(program(text(body), maps=[HASH]))


@pytest.mark.parametrize(
    "condition",
    [
        "if r0 > 7 goto out",
        "if r0 >= 8 goto out",
        "if w0 > 7 goto out",
        "if r0 s> 7 goto out",  # a 32-bit number is not negative
        "if r0 & -8 goto out",
        "r3 = 7; if r0 > r3 goto out",
        "r3 = 8; if r3 <= r0 goto out",
        "r3 = r0; if r3 > 7 goto out",  # copies are known to be equal
        "r3 = r0; r3 += 5; if r3 > 12 goto out",  # and a constant apart
        "w3 = w0; if w3 > 7 goto out",
        "*(u64 *)(r10 - 16) = r0; if r0 > 7 goto out; r0 = *(u64 *)(r10 - 16)",
        "*(u64 *)(r10 - 16) = r0; r0 = *(u64 *)(r10 - 16); if r0 > 7 goto out",
        "if r0 == 0 goto in; if r0 == 7 goto in; goto out; in:",
        "if r0 < 5 goto in; if r0 != 6 goto out; in:",
        "r0 &= 7",
        "r0 %= 8",
        "r0 >>= 29",
        "w0 s>>= 28; if r0 > 7 goto out",
        "r0 = be16 r0; r0 &= 7",
    ],
)
def test_what_a_branch_tells(condition: str) -> None:
    assert said(f"{RANDOM}{condition}; {INDEX}out: r0 = 0; exit") == ""


@pytest.mark.parametrize(
    "condition",
    [
        "if r0 > 8 goto out",
        "if w0 s> 7 goto out; r0 = r0",
        "if r0 < 8 goto out",
        "if r0 & 7 goto out",
        "r3 = r0; r3 += 1; if r3 > 9 goto out",
        "r3 = r0; r0 += 1; if r3 > 7 goto out",
        "r0 &= 15",
        "r0 >>= 28",
        "r0 = be32 r0; r0 &= 8",
    ],
)
def test_what_it_does_not(condition: str) -> None:
    assert said(f"{RANDOM}{condition}; {INDEX}out: r0 = 0; exit") != ""


def test_a_branch_that_cannot_be_is_not_followed() -> None:
    assert said("r0 = 5; if r0 == 6 goto bad; r0 = 0; exit; bad: r0 = *(u8 *)(r2 + 0); exit") == ""
    assert said("r0 = 6; if r0 == 6 goto bad; r0 = 0; exit; bad: r0 = *(u8 *)(r2 + 0); exit") == (
        "R2 !read_ok"
    )


@pytest.mark.parametrize(
    "condition",
    ["if r1 == 0 goto bad", "if r1 == r10 goto bad", "if r1 > r10 goto bad", "if w1 == 0 goto bad"],
)
def test_pointers_may_be_compared_and_say_nothing(condition: str) -> None:
    body = f"{condition}; r0 = 0; exit; bad: r0 = *(u8 *)(r3 + 0); exit"
    assert said(body) == "R3 !read_ok"
    assert said(body.replace("r0 = *(u8 *)(r3 + 0)", "r0 = 1")) == ""


# --- loops --------------------------------------------------------------------------


def loop(times: int, step: str = "r0 += 1", rest: str = "") -> str:
    return f"r0 = 0; again: {step}; {rest}if r0 < {times} goto again; exit"


@pytest.mark.parametrize("times", [1, 2, 10, 1000])
def test_bounded_loops(times: int) -> None:
    assert said(loop(times)) == ""


def test_each_round_is_followed() -> None:
    found = verify(program(text(loop(1000))), log_level=0)
    assert found.processed == 1 + 2 * 1000 + 1


def test_endless_loops() -> None:
    assert said("r0 = 0; again: goto again; exit") == "unreachable insn 2"
    assert said("r0 = 0; again: if r1 == 0 goto out; goto again; out: exit").startswith(
        "infinite loop detected at insn"
    )
    assert said(loop(10, "r0 += 0")) == "infinite loop detected at insn 1"


def test_a_loop_that_nothing_bounds() -> None:
    # as far as the verifier can tell, each round is like the one before
    body = "again: call 7; if r0 != 0 goto again; r0 = 0; exit"
    assert said(body) == "infinite loop detected at insn 0"


def test_programs_that_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.verifier.check.MAX_INSNS", 1000)
    found = verify(program(text(loop(1000))), log_level=0)
    expected = "BPF program is too large. Processed 1001 insn"
    assert found.verdict == Rejected(2, expected)
    assert found.processed == 1001


# --- pruning ------------------------------------------------------------------------

FILL = "r9 = 0; " * 8  # enough instructions for a state to be kept


def test_equal_paths_are_followed_once() -> None:
    diamond = "call 7; if r0 == 0 goto +1; r7 = 1; r7 = 2; " + FILL
    one = verify(program(text(f"{diamond}r0 = 0; exit")), log_level=0).processed
    many = verify(program(text(diamond * 12 + "r0 = 0; exit")), log_level=0).processed
    assert many < 16 * one  # and not 2 ** 12


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("r0 = 0; exit", ""),  # not used: any value will do
        (f"r0 = r7; {INDEX}", "invalid write to stack R2 off=92 size=1"),
        # precision goes back through copies, sums, the stack and calls
        (f"r8 = r7; r8 += 0; r0 = r8; {INDEX}", "invalid write to stack R2 off=92 size=1"),
        (
            f"*(u64 *)(r10 - 16) = r7; {FILL}r0 = *(u64 *)(r10 - 16); {INDEX}",
            "invalid write to stack R2 off=92 size=1",
        ),
        (f"call 7; {FILL}r0 = r7; {INDEX}", "invalid write to stack R2 off=92 size=1"),
        (f"r0 = 0; r0 += r7; {INDEX}", "invalid write to stack R2 off=92 size=1"),
        (f"r0 = r7; r0 &= 4; {INDEX}", ""),
    ],
)
def test_paths_that_differ_where_it_matters(use: str, message: str) -> None:
    # the path with 0 is walked first
    body = f"call 7; r7 = 100; if r0 != 0 goto +1; r7 = 0; {FILL}{use}"
    assert said(body) == message


def test_pointers_to_different_things_are_not_equal() -> None:
    body = f"r7 = r1; call 7; if r0 != 0 goto +1; r7 = r10; {FILL}r0 = *(u64 *)(r7 - 8); exit"
    assert said(body).startswith("same insn cannot be used with different pointers") or (
        said(body) == "invalid access to context, ctx_size=65535 off=-8 size=8"
    )


def test_slots_that_are_read_later_are_compared() -> None:
    body = (
        "*(u64 *)(r10 - 8) = r1; call 7; if r0 == 0 goto +1; *(u64 *)(r10 - 8) = 5; "
        f"{FILL}r1 = *(u64 *)(r10 - 8); r0 = *(u64 *)(r1 + 0); exit"
    )
    assert said(body) == "R1 invalid mem access 'scalar'"
    dead = body.replace("r1 = *(u64 *)(r10 - 8); r0 = *(u64 *)(r1 + 0)", "r0 = 0")
    assert said(dead) == ""


def test_numbers_known_to_be_equal_stay_so_where_paths_meet() -> None:
    # on the first path r8 is r7, on the second only in the same range: the check of r7 says
    # nothing of r8
    body = (
        "call 7; r7 = r0; call 7; r8 = r0; r7 &= 255; r8 &= 255; call 7; if r0 != 0 goto +1; "
        f"r8 = r7; {FILL}if r7 > 7 goto out; r0 = r8; {INDEX}"
        "out: r0 = 0; exit"
    )
    assert said(body).startswith("invalid variable-offset write to stack R2")
    same = body.replace("if r0 != 0 goto +1; ", "")
    assert said(same) == ""


def test_a_loop_over_a_pointer_parameter() -> None:
    # a global function: its pointer may be checked once, and read in a loop
    body = """
        *(u64 *)(r10 - 8) = 0
        r1 = r10
        r1 += -8
        call f
        r0 = 0
        exit
    f:
        if r1 == 0 goto out
        r2 = 0
    again:
        r3 = *(u64 *)(r1 + 0)
        r2 += 1
        if r2 < 100 goto again
    out:
        r0 = 0
        exit
    """
    subject = program(body, {"f": [PTR_LONG]}, linkage={"f": "global"})
    assert verdict(subject) == ""
    unchecked = program(
        body.replace("if r1 == 0 goto out\n", ""), {"f": [PTR_LONG]}, linkage={"f": "global"}
    )
    assert verdict(unchecked) == "R1 invalid mem access 'mem_or_null'"
