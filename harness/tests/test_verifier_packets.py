"""Pointers to packet data: what a comparison makes safe, and what forgets it."""

from __future__ import annotations

import pytest

from harness.isa.insn import Jump
from harness.tests.programs import PTR_SKB, program, text, verdict
from harness.verifier import Options, packets, verify
from harness.verifier.bounds import const
from harness.verifier.state import MAIN, PACKET, PACKET_END, PACKET_META, Frame, Reg, State

HEAD = "r2 = *(u32 *)(r1 + 0); r3 = *(u32 *)(r1 + 4); "  # data, data_end of xdp
META = "r2 = *(u32 *)(r1 + 8); r3 = *(u32 *)(r1 + 0); "  # data_meta, data
OUT = "invalid access to packet, off={0} size={1}, R2(id=0,off={0},r={2})"


def said(body: str, type: str = "xdp", options: Options | None = None) -> str:  # noqa: A002
    return verdict(program(text(f"{body}; exit"), type=type), options)


def reaching(compare: str, size: int, jump: str = "goto +1") -> str:
    """A program that loads where r4 = data + 8 was compared with data_end."""
    load = f"r0 = *(u{size} *)(r2 + {8 - size // 8})"
    return f"{HEAD}r0 = 0; r4 = r2; r4 += 8; if {compare} {jump}; {load}"


@pytest.mark.parametrize(
    ("compare", "where", "reach"),
    [
        # comparison, the branch that knows, how many bytes are there
        ("r4 > r3", "falls", 8),
        ("r4 >= r3", "falls", 9),
        ("r4 < r3", "jumps", 9),
        ("r4 <= r3", "jumps", 8),
        ("r3 < r4", "falls", 8),
        ("r3 <= r4", "falls", 9),
        ("r3 > r4", "jumps", 9),
        ("r3 >= r4", "jumps", 8),
    ],
)
@pytest.mark.parametrize("head", [HEAD, META], ids=["data", "meta"])
def test_what_a_comparison_makes_safe(head: str, compare: str, where: str, reach: int) -> None:
    for last in (6, 7, 8, 9):
        load = f"r0 = *(u8 *)(r2 + {last})"
        body = f"{head}r0 = 0; r4 = r2; r4 += 8; if {compare} goto "
        body += f"+1; {load}" if where == "falls" else f"+1; goto +1; {load}"
        expected = "" if last < reach else OUT.format(last, 1, reach)
        assert said(body) == expected, last
        other = f"{head}r0 = 0; r4 = r2; r4 += 8; if {compare} goto "
        other += f"+1; {load}" if where == "jumps" else f"+1; goto +1; {load}"
        assert said(other) == OUT.format(last, 1, 0)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{HEAD}r0 = *(u8 *)(r2 + 0)", OUT.format(0, 1, 0)),
        (f"{HEAD}r0 = *(u8 *)(r3 + 0)", "R3 invalid mem access 'pkt_end'"),
        (f"{HEAD}r3 += 1; r0 = 0", "R3 pointer arithmetic on pkt_end prohibited"),
        (reaching("r4 > r3", 64), ""),
        # r2 and what moved with it by a constant
        (f"{HEAD}r0 = 0; r4 = r2; r4 += 8; r5 = r2; r5 += 4; if r4 > r3 goto +1; "
         "r0 = *(u32 *)(r5 + 0)", ""),
        (f"{HEAD}r0 = 0; r4 = r2; r4 += 8; r5 = r2; r5 += 4; if r4 > r3 goto +1; "
         "r0 = *(u64 *)(r5 + 0)",
         "invalid access to packet, off=4 size=8, R5(id=0,off=4,r=8)"),
        (f"{HEAD}r0 = 0; r4 = r2; r4 += 8; if r4 > r3 goto +1; r0 = *(u8 *)(r4 - 1)", ""),
        (f"{HEAD}r0 = 0; r4 = r2; r4 += 8; *(u64 *)(r10 - 8) = r2; if r4 > r3 goto +2; "
         "r2 = *(u64 *)(r10 - 8); r0 = *(u64 *)(r2 + 0)", ""),
        # an unknown offset is another packet pointer
        (f"{HEAD}r0 = 0; r4 = r2; r4 += 8; if r4 > r3 goto +6; r5 = *(u8 *)(r2 + 0); r2 += r5; "
         "r6 = r2; r6 += 1; if r6 > r3 goto +1; r0 = *(u8 *)(r2 + 0)", ""),
        (f"{HEAD}r0 = 0; r4 = r2; r4 += 8; if r4 > r3 goto +3; r5 = *(u8 *)(r2 + 0); r2 += r5; "
         "r0 = *(u8 *)(r2 + 0)", "invalid access to packet, off=0 size=1, R2(id=1,off=0,r=0)"),
        # a pointer at or behind the end
        (f"{HEAD}r0 = 0; if r2 > r3 goto +1; exit; r0 = *(u8 *)(r2 + 0)",
         "R2 offset is outside of the packet"),
        (f"{HEAD}r0 = 0; if r2 > r3 goto +1; exit; if r2 > r3 goto +1; r0 = r10; r0 += 1; "
         "r0 = 0", ""),
        (f"{HEAD}r0 = 0; if r2 > r3 goto +1; exit; r2 += 0; r0 = *(u8 *)(r2 + 0)",
         OUT.format(0, 1, 0)),
        # 32-bit comparisons, and other pointers, say nothing
        (f"{HEAD}r0 = 0; r4 = r2; r4 += 8; if w4 > w3 goto +1; r0 = *(u8 *)(r2 + 0)",
         OUT.format(0, 1, 0)),
        (f"{HEAD}r0 = 0; r4 = r2; r4 += 8; if r4 s> r3 goto +1; r0 = *(u8 *)(r2 + 0)",
         OUT.format(0, 1, 0)),
        (f"{META}r0 = 0; r3 += 1; r4 = r2; r4 += 8; if r4 > r3 goto +1; r0 = *(u8 *)(r2 + 0)",
         OUT.format(0, 1, 0)),
        # what changes the packet forgets pointers to it
        (f"r6 = r1; {HEAD}r0 = 0; r4 = r2; r4 += 8; if r4 > r3 goto +5; r7 = r2; r1 = r6; "
         "r2 = 0; call bpf_xdp_adjust_head; r0 = *(u8 *)(r7 + 0)",
         "R7 invalid mem access 'scalar'"),
        (f"r6 = r1; {HEAD}r0 = 0; r4 = r2; r4 += 8; if r4 > r3 goto +5; r7 = r2; r1 = r6; "
         "call bpf_xdp_get_buff_len; r0 = *(u8 *)(r7 + 0); r0 = 0", ""),
        # stores, and atomics
        (f"{HEAD}r0 = 0; r4 = r2; r4 += 8; if r4 > r3 goto +1; *(u64 *)(r2 + 0) = r1", ""),
        (f"{HEAD}r0 = 0; r4 = r2; r4 += 8; if r4 > r3 goto +1; lock *(u64 *)(r2 + 0) += r4",
         "BPF_ATOMIC stores into R2 pkt is not allowed"),
    ],
)  # fmt: skip
def test_accesses(body: str, message: str) -> None:
    assert said(body) == message


TC = (
    "r2 = *(u32 *)(r1 + 76); r3 = *(u32 *)(r1 + 80); r0 = 0; r4 = r2; r4 += 8; if r4 > r3 goto +1; "
)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("sched_cls", ""),
        ("lwt_xmit", ""),
        ("sk_skb", ""),
        ("lwt_in", "cannot write into packet"),
        ("cgroup_skb", "cannot write into packet"),
    ],
)
def test_who_may_write(kind: str, message: str) -> None:
    assert said(f"{TC}*(u8 *)(r2 + 0) = 1; r0 = 0", kind) == message
    assert said(f"{TC}r0 = *(u8 *)(r2 + 0); r0 = 0", kind) == ""


def test_alignment_when_it_counts() -> None:
    body = f"{HEAD}r0 = 0; r4 = r2; r4 += 20; if r4 > r3 goto +1; r0 = *(u32 *)(r2 + {{}})"
    strict = Options(strict_alignment=True)
    assert said(body.format(14), options=strict) == ""
    assert said(body.format(16), options=strict) == ("misaligned packet access off 2+0+16 size 4")
    assert said(body.format(16)) == ""
    assert said("r1 += 4; r0 = *(u64 *)(r1 + 0)", "kprobe", strict) == (
        "misaligned context access off 4+0 size 8"
    )


def test_ranges_in_the_log() -> None:
    found = verify(program(text(reaching("r4 > r3", 8) + "; exit"), type="xdp"), log_level=2)
    assert "5: (2d) if r4 > r3 goto pc+1          ; R3=pkt_end() R4=pkt(r=8,imm=8)" in found.log
    behind = f"{HEAD}r0 = 0; r4 = r2; r4 += 8; if r4 > r3 goto +1; exit; r5 = r4; exit"
    found = verify(program(text(behind), type="xdp"), log_level=2)
    assert "R4=pkt(r=0xfffffffffffffffe,imm=8)" in found.log


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("socket_filter", "r6 = r1; r0 = *(u32 *)skb[14]; exit", ""),
        ("sched_act", "r6 = r1; r7 = 2; r0 = *(u8 *)skb[r7 + 3]; exit", ""),
        ("socket_filter", "r6 = r1; r0 = *(u8 *)skb[r7 + 3]; exit", "R7 !read_ok"),
        ("socket_filter", "r0 = *(u32 *)skb[14]; exit", "R6 !read_ok"),
        ("socket_filter", "r6 = 0; r0 = *(u32 *)skb[14]; exit",
         "at the time of BPF_LD_ABS|IND R6 != pointer to skb"),
        ("socket_filter", "r6 = r1; r6 += 4; r0 = *(u32 *)skb[14]; exit",
         "dereference of modified ctx ptr R6 off=4 disallowed"),
        ("socket_filter", "r6 = r1; r0 = *(u32 *)skb[14]; r0 = *(u32 *)(r1 + 0); exit",
         "R1 !read_ok"),
        ("xdp", "r6 = r1; r0 = *(u32 *)skb[14]; exit",
         "BPF_LD_[ABS|IND] instructions not allowed for this program type"),
    ],
)  # fmt: skip
def test_legacy_loads(kind: str, body: str, message: str) -> None:
    assert verdict(program(text(body), type=kind)) == message


def test_a_legacy_load_may_end_its_function() -> None:
    body = """
        r6 = r1
        call f
        if r0 == 0 goto out
        r0 = *(u8 *)(r10 - 8)
    out:
        r0 = 0
        exit
    f:
        r6 = r1
        r0 = *(u32 *)skb[14]
        r0 = {}
        exit
    """
    kind = "socket_filter"
    assert (
        verdict(
            program(
                body.format(0),
                {"f": 1},
                type=kind,
            )
        )
        == ""
    )


def test_a_global_function_that_moves_the_packet() -> None:
    body = """
        r6 = r1
        r7 = *(u32 *)(r1 + 76)
        r8 = *(u32 *)(r1 + 80)
        r2 = r7
        r2 += 1
        if r2 > r8 goto out
        r1 = r6
        call f
        r0 = *(u8 *)(r7 + 0)
    out:
        r0 = 0
        exit
    f:
        {}
        r0 = 0
        exit
    """
    moved = "r2 = 0; call bpf_skb_pull_data".replace("; ", "\n")
    words = "R7 invalid mem access 'scalar'"
    for inside, expected in (("r0 = 1", ""), (moved, words)):
        subject = program(
            body.format(inside), {"f": [PTR_SKB]}, type="sched_cls", linkage={"f": "global"}
        )
        assert verdict(subject) == expected


COMPARE = {"gt": int.__gt__, "ge": int.__ge__, "lt": int.__lt__, "le": int.__le__}


@pytest.mark.parametrize("op", COMPARE)
@pytest.mark.parametrize("turned", [False, True], ids=["pointer", "end"])
@pytest.mark.parametrize(
    "kinds", [(PACKET, PACKET_END), (PACKET_META, PACKET)], ids=["data", "meta"]
)
def test_ranges_hold_for_every_length(op: str, turned: bool, kinds: tuple[int, int]) -> None:
    insn = Jump(op, 64, 3, 4, 0, 5) if turned else Jump(op, 64, 4, 3, 0, 5)
    for off in range(6):
        frame = Frame(MAIN, 0, 0)
        frame.regs[2] = Reg(kinds[0], const(0))
        frame.regs[3] = Reg(kinds[1], const(0))
        frame.regs[4] = Reg(kinds[0], const(off))
        falls = State(frame, 0)
        jumps = falls.copy()
        packets.learn(falls, jumps, 0, insn)
        for length in range(8):  # of what is there
            sides = (length, off) if turned else (off, length)
            jumped = COMPARE[op](*sides)
            regs = (jumps if jumped else falls).frames[0].regs
            assert regs[2].info <= length
            reached = regs[4].info
            assert reached >= 0 or off >= length - reached - 1  # AT_END -1, BEYOND_END -2
            left, right = (regs[3], regs[4]) if turned else (regs[4], regs[3])
            assert packets.taken(insn, left, right) in (None, jumped)
