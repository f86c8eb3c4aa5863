"""Contexts of program types, sockets behind pointers, and results. Linux 7.3.4's words."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from harness.load.sections import DEFINITIONS
from harness.tests.programs import program, verdict
from harness.verifier.context import PACKETS, PLAIN, RESULTS, access
from harness.verifier.env import Env, Options
from harness.verifier.layouts import BY_ATTACH, CONTEXTS, SK_BUFF, SKB_RULES, by_byte
from harness.verifier.log import Log
from harness.verifier.state import SCALAR, TP_BUFFER


def environment(kind: str, attach_type: str = "") -> Env:
    subject = replace(program("r0 = 0\nexit", type=kind), attach_type=attach_type)
    return Env(subject, Options(), Log(0, ()))


def said(kind: str, body: str, attach_type: str = "", result: int = 1) -> str:
    subject = program(f"{body}\nr0 = {result}\nexit", type=kind)
    return verdict(replace(subject, attach_type=attach_type))


OUT = "invalid bpf_context access off={} size={}"


@pytest.mark.parametrize(
    ("kind", "attach_type", "body", "message"),
    [
        # one field a row: what fits, what does not
        ("xdp", "xdp", "r0 = *(u32 *)(r1 + 0)", ""),
        ("xdp", "xdp", "r0 = *(u16 *)(r1 + 0)", OUT.format(0, 2)),
        ("xdp", "xdp", "r0 = *(s32 *)(r1 + 0)", OUT.format(0, 4)),
        ("xdp", "xdp", "r0 = *(s32 *)(r1 + 12)", ""),
        ("xdp", "xdp", "*(u32 *)(r1 + 16) = 1", OUT.format(16, 4)),
        ("xdp", "xdp", "r0 = *(u32 *)(r1 + 20)", OUT.format(20, 4)),
        ("xdp", "xdp_devmap", "r0 = *(u32 *)(r1 + 20)", ""),
        ("xdp", "xdp", "r0 = *(u32 *)(r1 + 24)", OUT.format(24, 4)),
        ("sched_cls", "", "r0 = *(u8 *)(r1 + 180)", ""),
        ("sched_cls", "", "r0 = *(u16 *)(r1 + 180)", OUT.format(180, 2)),
        ("sched_cls", "", "r0 = *(u8 *)(r1 + 181)", OUT.format(181, 1)),
        ("sched_cls", "", "r0 = *(u64 *)(r1 + 152)", ""),
        ("sched_cls", "", "*(u64 *)(r1 + 152) = 1", ""),
        ("sched_cls", "", "*(u64 *)(r1 + 184) = 1", OUT.format(184, 8)),
        ("sched_cls", "", "*(u16 *)(r1 + 8) = 1", OUT.format(8, 2)),
        ("sched_cls", "", "r0 = *(u32 *)(r1 + 88)", OUT.format(88, 4)),
        ("sched_cls", "", "r0 = *(u64 *)(r1 + 144)", OUT.format(144, 8)),
        ("cgroup_skb", "", "r0 = *(u32 *)(r1 + 88)", ""),
        ("cgroup_skb", "", "r0 = *(u64 *)(r1 + 56)", ""),
        ("cgroup_skb", "", "r0 = *(u64 *)(r1 + 64)", OUT.format(64, 8)),
        ("cgroup_skb", "", "r0 = *(u8 *)(r1 + 92)", OUT.format(92, 1)),
        ("socket_filter", "", "r0 = *(u32 *)(r1 + 76)", OUT.format(76, 4)),
        ("socket_filter", "", "r0 = *(u8 *)(r1 + 3)", ""),
        ("socket_filter", "", "*(u32 *)(r1 + 8) = 1", OUT.format(8, 4)),
        ("sk_skb", "", "r0 = *(u32 *)(r1 + 8)", OUT.format(8, 4)),
        ("lwt_in", "", "*(u32 *)(r1 + 44) = 1", OUT.format(44, 4)),
        ("flow_dissector", "", "r0 = *(u64 *)(r1 + 144); r0 = *(u64 *)(r0 + 48)", ""),
        (
            "flow_dissector",
            "",
            "r0 = *(u64 *)(r1 + 144); r0 = *(u64 *)(r0 + 49)",
            "invalid access to flow keys off=49 size=8",
        ),
        (
            "flow_dissector",
            "",
            "r2 = *(u64 *)(r1 + 144); r0 = *(u8 *)(r2 + 0); r2 += r0",
            "R2 pointer arithmetic on flow_keys prohibited",
        ),
        ("cgroup_sock_addr", "cgroup_inet6_bind", "r0 = *(u64 *)(r1 + 16)", ""),
        ("cgroup_sock_addr", "cgroup_inet6_bind", "r0 = *(u64 *)(r1 + 24)", OUT.format(24, 8)),
        ("cgroup_sock_addr", "cgroup_inet6_bind", "r0 = *(u32 *)(r1 + 4)", OUT.format(4, 4)),
        ("cgroup_sock_addr", "cgroup_inet4_bind", "*(u32 *)(r1 + 4) = 1", ""),
        ("cgroup_sock_addr", "cgroup_inet4_bind", "*(u16 *)(r1 + 4) = 1", OUT.format(4, 2)),
        ("cgroup_sock_addr", "cgroup_udp6_sendmsg", "*(u64 *)(r1 + 48) = 1", ""),
        ("cgroup_sock_addr", "cgroup_udp6_sendmsg", "*(u64 *)(r1 + 56) = 1", OUT.format(56, 8)),
        ("cgroup_sock", "", "*(u32 *)(r1 + 16) = 1", ""),
        ("cgroup_sock", "cgroup_inet4_post_bind", "r0 = *(u32 *)(r1 + 16)", OUT.format(16, 4)),
        ("cgroup_sock", "cgroup_inet4_post_bind", "r0 = *(u32 *)(r1 + 24)", ""),
        ("cgroup_sock", "", "r0 = *(u8 *)(r1 + 49)", ""),
        ("cgroup_sock", "", "r0 = *(u8 *)(r1 + 50)", OUT.format(50, 1)),
        ("cgroup_sockopt", "cgroup_getsockopt", "*(u32 *)(r1 + 36) = 1", ""),
        ("cgroup_sockopt", "cgroup_setsockopt", "*(u32 *)(r1 + 36) = 1", OUT.format(36, 4)),
        ("cgroup_sockopt", "cgroup_setsockopt", "r0 = *(u32 *)(r1 + 36)", OUT.format(36, 4)),
        ("cgroup_sockopt", "cgroup_setsockopt", "*(u32 *)(r1 + 24) = 1", ""),
        ("cgroup_sysctl", "", "*(u32 *)(r1 + 4) = 1", ""),
        ("cgroup_sysctl", "", "*(u32 *)(r1 + 0) = 1", OUT.format(0, 4)),
        ("cgroup_device", "", "r0 = *(u16 *)(r1 + 2)", ""),
        ("cgroup_device", "", "r0 = *(u16 *)(r1 + 6)", OUT.format(6, 2)),
        ("sock_ops", "", "*(u32 *)(r1 + 4) = 1", ""),
        ("sock_ops", "", "*(u32 *)(r1 + 8) = 1", OUT.format(8, 4)),
        ("sock_ops", "", "r0 = *(u8 *)(r1 + 212)", ""),
        ("sock_ops", "", "r0 = *(u8 *)(r1 + 213)", OUT.format(213, 1)),
        ("sk_msg", "", "r0 = *(u32 *)(r1 + 0)", OUT.format(0, 4)),
        ("sk_msg", "", "r0 = *(u32 *)(r1 + 68)", ""),
        ("sk_reuseport", "", "r0 = *(u8 *)(r1 + 20)", OUT.format(20, 1)),
        ("sk_reuseport", "", "r0 = *(u16 *)(r1 + 22)", ""),
        ("sk_lookup", "sk_lookup", "r0 = *(u32 *)(r1 + 36)", ""),
        ("sk_lookup", "sk_lookup", "r0 = *(u16 *)(r1 + 38)", ""),
        ("sk_lookup", "sk_lookup", "r0 = *(u8 *)(r1 + 68)", OUT.format(68, 1)),
        ("perf_event", "", "r0 = *(u8 *)(r1 + 168)", ""),
        ("perf_event", "", "r0 = *(u32 *)(r1 + 0)", OUT.format(0, 4)),
        ("lirc_mode2", "", "r0 = *(u32 *)(r1 + 0)", ""),
        ("lirc_mode2", "", "r0 = *(u16 *)(r1 + 0)", OUT.format(0, 2)),
        ("netfilter", "", "r0 = *(u32 *)(r1 + 0)", OUT.format(0, 4)),
        ("raw_tracepoint_writable", "", "r0 = *(u32 *)(r1 + 0)", OUT.format(0, 4)),
        ("raw_tracepoint_writable", "", "r1 = *(u64 *)(r1 + 0); *(u8 *)(r1 + 9) = 1", ""),
        (
            "raw_tracepoint_writable",
            "",
            "r1 = *(u64 *)(r1 + 0); r0 = *(u8 *)(r1 - 8)",
            "R1 invalid negative tracepoint buffer offset: off=-8, var_off=0",
        ),
        # a pointer that moved: only where Linux does not convert the access
        ("kprobe", "", "r1 += 8; r0 = *(u64 *)(r1 + 0)", ""),
        ("cgroup_device", "", "r1 += 4; r0 = *(u32 *)(r1 + 0)", ""),
        (
            "xdp",
            "",
            "r1 += 12; r0 = *(u32 *)(r1 + 0)",
            "dereference of modified ctx ptr R1 off=12 disallowed",
        ),
        # pointers from the context
        ("sched_cls", "", "r1 = *(u64 *)(r1 + 168); if r1 == 0 goto +1; r0 = *(u32 *)(r1 + 4)", ""),
        (
            "sched_cls",
            "",
            "r1 = *(u64 *)(r1 + 168); r0 = *(u32 *)(r1 + 4)",
            "R1 invalid mem access 'sock_common_or_null'",
        ),
        (
            "sched_cls",
            "",
            "r1 = *(u64 *)(r1 + 168); if r1 == 0 goto +1; r0 = *(u32 *)(r1 + 8)",
            "R1 invalid sock_common access off=8 size=4",
        ),
        (
            "cgroup_sockopt",
            "cgroup_getsockopt",
            "r1 = *(u64 *)(r1 + 0); *(u32 *)(r1 + 16) = 1",
            "R1 cannot write into sock",
        ),
        ("sk_msg", "", "r1 = *(u64 *)(r1 + 72); r0 = *(u8 *)(r1 + 72)", ""),
        (
            "sk_msg",
            "",
            "r1 = *(u64 *)(r1 + 72); r0 = *(u8 *)(r1 + 73)",
            "R1 invalid sock access off=73 size=1",
        ),
    ],
)
def test_accesses(kind: str, attach_type: str, body: str, message: str) -> None:
    assert said(kind, body, attach_type) == message


@pytest.mark.parametrize("kind", [*CONTEXTS, *SKB_RULES, *PLAIN])
def test_no_access_reaches_out(kind: str) -> None:
    env = environment(kind, {"xdp": "xdp_devmap"}.get(kind, ""))
    limit = PLAIN[kind][0] if kind in PLAIN else len(by_byte(CONTEXTS.get(kind, SK_BUFF)))
    for size in (1, 2, 4, 8):
        for write in (False, True):
            if kind == "syscall":  # check_mem_region_access is what bounds it
                continue
            assert access(env, -size, size, write) is None
            assert access(env, limit, size, write) is None
            assert access(env, limit - size + 1, size, write) is None or size == 1


@pytest.mark.parametrize("kind", [*CONTEXTS, *SKB_RULES])
def test_every_field_is_accessible_or_says_why_not(kind: str) -> None:
    fields = CONTEXTS.get(kind, SK_BUFF)
    hidden = SKB_RULES[kind].hidden if kind in SKB_RULES else frozenset()
    names = {name for name, (reads, _) in BY_ATTACH.get(kind, {}).items() if reads is not None}
    env = environment(kind)
    for field in fields:
        found = [access(env, field.start, size, False) for size in (1, 2, 4, 8)]
        out = field.name in hidden | names or not field.read
        if field.name == "tstamp_type":
            out = kind not in ("sched_cls", "sched_act")
        if not (kind == "cgroup_sock" and field.name in names):  # created, unless it is said
            assert (not any(found)) == out, field.name


def test_layouts_do_not_overlap() -> None:
    for fields in (*CONTEXTS.values(), SK_BUFF):
        for left, right in pairwise(fields):
            assert left.start + left.size <= right.start, (left, right)


def test_fixups_learn_what_was_accessed() -> None:
    env = environment("sched_cls")
    narrow = access(env, 1, 1, False)
    assert narrow is not None
    assert narrow.field_size == 4
    whole = access(env, 152, 8, False)
    assert whole is not None
    assert (whole.gives, whole.field_size) == (SCALAR, 0)
    buffer = access(environment("raw_tracepoint_writable"), 0, 8, False)
    assert buffer is not None
    assert buffer.gives == TP_BUFFER


RANGE = "At program exit the register R0 has smin={0} smax={0} should have been in [{1}, {2}]"


@pytest.mark.parametrize(
    ("kind", "attach_type", "result", "message"),
    [
        ("xdp", "xdp", 77, ""),
        ("socket_filter", "", -1, ""),
        ("cgroup_skb", "cgroup_inet_ingress", 1, ""),
        ("cgroup_skb", "cgroup_inet_ingress", 2, RANGE.format(2, 0, 1)),
        ("cgroup_skb", "cgroup_inet_egress", 3, ""),
        ("cgroup_skb", "cgroup_inet_egress", 4, RANGE.format(4, 0, 3)),
        ("cgroup_sock_addr", "cgroup_inet4_bind", 3, ""),
        ("cgroup_sock_addr", "cgroup_inet4_connect", 2, RANGE.format(2, 0, 1)),
        ("cgroup_sock_addr", "cgroup_udp4_recvmsg", 0, RANGE.format(0, 1, 1)),
        ("cgroup_sock_addr", "cgroup_unix_getpeername", 1, ""),
        ("cgroup_sock_addr", "", 1, "unknown: a program of type cgroup_sock_addr without an "
                                    "attach type"),
        ("netfilter", "netfilter", 2, RANGE.format(2, 0, 1)),
        ("sk_lookup", "sk_lookup", -1, RANGE.format(-1, 0, 1)),
        ("kprobe", "trace_kprobe_session", 2, RANGE.format(2, 0, 1)),
        ("kprobe", "", 2, ""),
    ],
)  # fmt: skip
def test_results(kind: str, attach_type: str, result: int, message: str) -> None:
    assert said(kind, "r2 = 0", attach_type, result) == message


def test_results_that_are_not_numbers() -> None:
    text = "r0 = r1\nexit"
    where = "At program exit the register R0 is not a known value (ctx)"
    assert verdict(program(text, type="cgroup_skb")) == where
    assert verdict(program(text, type="xdp")) == ""
    unknown = "At program exit the register R0 has unknown scalar value should have been in [0, 1]"
    text = "call bpf_ktime_get_ns\nexit"
    assert verdict(program(text, type="cgroup_skb")) == unknown


def test_tables_name_attach_types_that_exist() -> None:
    known = {attach for _, _, attach in DEFINITIONS}
    assert known >= RESULTS.keys()
    for fields in BY_ATTACH.values():
        for reads, writes in fields.values():
            assert (reads or frozenset()) | (writes or frozenset()) <= known
    assert {kind for _, kind, _ in DEFINITIONS} >= PACKETS.keys()
