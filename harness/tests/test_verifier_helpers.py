"""Helpers: their prototypes, who may call them, and what sockets ask of programs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.isa.helpers import HELPERS
from harness.load.sections import DEFINITIONS
from harness.model import MapDef, Program
from harness.tests.programs import program, text, verdict
from harness.verifier.call import _COMPATIBLE
from harness.verifier.helper_prototypes import PROTOTYPES, VARIANTS, Prototype
from harness.verifier.helpers import CHAINS, callable_helpers, is_known, prototype, sleeps

FLAGS = {
    "null", "rdonly", "write", "uninit", "aligned", "release", "local", "ringbuf", "trusted",
}  # fmt: skip
RETURNS = {
    "integer", "void", "map_value", "mem", "socket", "sock_common", "tcp_sock", "btf", "mem_or_btf",
}  # fmt: skip


def subject(kind: str, attach_type: str = "", *, sleepable: bool = False) -> Program:
    bare = program("r0 = 0\nexit", type=kind)
    return replace(bare, attach_type=attach_type, sleepable=sleepable)


def said(kind: str, body: str, attach_type: str = "", maps: tuple[MapDef, ...] = ()) -> str:
    found = program(text(f"{body}; r0 = 1; exit"), type=kind, maps=maps)
    return verdict(replace(found, attach_type=attach_type))


# --- tables -----------------------------------------------------------------------------


def test_every_helper_has_a_prototype() -> None:
    assert PROTOTYPES.keys() | {0} == HELPERS.keys()
    for number, proto in PROTOTYPES.items():
        assert HELPERS[number] == f"bpf_{proto.name}"


@pytest.mark.parametrize("proto", [*PROTOTYPES.values(), *VARIANTS.values()], ids=lambda p: p.name)
def test_words_are_known(proto: Prototype) -> None:
    sizes = 0
    for index, arg in enumerate(proto.args):
        word, *flags = arg.split("|")
        base = word.partition(":")[0]
        assert base == "anything" or base in _COMPATIBLE
        assert set(flags) <= FLAGS
        follows = index + 1 < len(proto.args) and proto.args[index + 1].startswith("size")
        assert (base == "mem") == follows  # check_arg_pair_ok
        if base in ("mem", "fixed_mem"):  # check_mem_arg_rw_flag_ok
            assert {"rdonly", "write"} & set(flags)
        sizes += base == "fixed_mem"
    assert sizes == len(proto.sizes)
    word, *flags = proto.returns.split("|")
    assert word.partition(":")[0] in RETURNS
    assert set(flags) <= FLAGS


def test_every_program_type_has_helpers_or_says_not_known() -> None:
    kinds = {kind for _, kind, _ in DEFINITIONS}
    assert kinds - CHAINS.keys() == {"ext", "struct_ops"}
    assert callable_helpers(subject("ext")) is None
    assert not is_known(subject("ext"), 1)


@pytest.mark.parametrize(
    ("kind", "attach_type", "number", "variant"),
    [
        ("xdp", "xdp", 23, "redirect"),
        ("socket_filter", "", 23, None),
        ("socket_filter", "", 8, "get_raw_smp_processor_id"),
        ("sched_cls", "", 17, "get_cgroup_classid"),
        ("xdp", "xdp", 17, "get_cgroup_classid_curr"),
        ("sk_reuseport", "", 46, "get_socket_ptr_cookie"),
        ("sock_ops", "", 46, "get_socket_cookie"),
        ("cgroup_sock_addr", "cgroup_inet4_connect", 64, "bind"),
        ("cgroup_sock_addr", "cgroup_inet4_bind", 64, None),
        ("cgroup_skb", "", 187, None),
        ("cgroup_device", "cgroup_device", 187, "set_retval"),
        ("cgroup_sockopt", "cgroup_getsockopt", 57, None),
        ("cgroup_sockopt", "cgroup_setsockopt", 57, "sk_getsockopt"),
        ("lwt_out", "", 39, "skb_pull_data"),
        ("lwt_seg6local", "", 39, None),
        ("sk_lookup", "sk_lookup", 124, "sk_lookup_assign"),
        ("kprobe", "", 58, None),  # Debian's kernel has it not
        ("tracing", "trace_fentry", 183, "get_func_arg"),
        ("tracing", "trace_iter", 183, None),
        ("tracing", "trace_iter", 126, "seq_printf"),
        ("lirc_mode2", "", 77, "rc_repeat"),
        ("lirc_mode2", "", 42, None),
    ],
)
def test_who_may_call_what(kind: str, attach_type: str, number: int, variant: str | None) -> None:
    found = prototype(subject(kind, attach_type), number)
    expected = VARIANTS.get(variant or "") or PROTOTYPES[number]
    assert found is (expected if variant else None)


def test_who_sleeps() -> None:
    assert sleeps(subject("syscall"), 148)
    assert not sleeps(subject("kprobe"), 67)
    assert sleeps(subject("kprobe", sleepable=True), 67)
    assert not sleeps(subject("tracepoint", sleepable=True), 67)
    assert sleeps(subject("tracepoint", sleepable=True), 141)
    words = "sleepable helper bpf_copy_from_user#148 in non-sleepable prog"
    assert said("kprobe", "call 148") == words


# --- sockets ------------------------------------------------------------------------------

LOOK = (
    "r6 = r1; *(u64 *)(r10 - 8) = 0; *(u64 *)(r10 - 16) = 0; r2 = r10; r2 += -16; r3 = 12; "
    "r4 = -1; r5 = 0; call bpf_sk_lookup_tcp; "
)
HAVE = f"{LOOK}if r0 == 0 goto out; r7 = r0; "
RELEASE = "r1 = r7; call bpf_sk_release"
KINDS = "sock_common, sock, tcp_sock, xdp_sock, ptr_, trusted_ptr_"


def lines(body: str) -> str:
    return body.replace("out:", "\nout:\n").replace("; ", "\n")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{HAVE}r8 = *(u32 *)(r7 + 4); {RELEASE}; out:", ""),
        (f"{LOOK}out:", "Unreleased reference id=2 alloc_insn=8"),
        (f"{LOOK}r1 = r0; call bpf_sk_release; out:", f"R1 type=sock_or_null expected={KINDS}"),
        (f"{HAVE}{RELEASE}; {RELEASE}; out:", f"R1 type=scalar expected={KINDS}"),
        (f"{HAVE}r7 += 0; {RELEASE}; out:", "R7 pointer arithmetic on sock prohibited"),
        (f"{HAVE}*(u8 *)(r7 + 0) = 1; out:", "R7 cannot write into sock"),
        (f"{HAVE}lock *(u64 *)(r7 + 0) += r7; out:",
         "BPF_ATOMIC stores into R7 sock is not allowed"),
        (f"{HAVE}r0 = *(u64 *)(r7 + 0); out:", "R7 invalid sock access off=0 size=8"),
        (f"{HAVE}*(u64 *)(r10 - 8) = r7; {RELEASE}; r1 = *(u64 *)(r10 - 8); r1 = *(u8 *)(r1 + 0); "
         "out:", "R1 invalid mem access 'scalar'"),
        # a cast: null on a path of its own, and gone with the original
        (f"{HAVE}r1 = r7; call bpf_sk_fullsock; if r0 == 0 goto +1; r8 = *(u8 *)(r0 + 4); "
         f"{RELEASE}; out:", ""),
        (f"{HAVE}r1 = r7; call bpf_sk_fullsock; r7 = r0; {RELEASE}; out:",
         f"R1 type=scalar expected={KINDS}"),
        (f"{HAVE}r1 = r7; call bpf_tcp_sock; r8 = r0; {RELEASE}; r0 = *(u32 *)(r8 + 0); out:",
         "R8 invalid mem access 'scalar'"),
        (f"{HAVE}r1 = r7; call bpf_tcp_sock; r8 = r0; if r8 == 0 goto +1; r0 = *(u32 *)(r8 + 44); "
         f"{RELEASE}; out:", ""),
        (f"{HAVE}r1 = r7; call bpf_get_listener_sock; if r0 == 0 goto +1; r1 = r0; "
         "call bpf_sk_release; out:",
         "release helper bpf_sk_release expects referenced PTR_TO_BTF_ID passed to R1"),
        (f"{HAVE}r6 = r6; r0 = *(u8 *)skb[0]; out:",
         "Unreleased reference id=2 alloc_insn=8"),
        (f"{HAVE}{RELEASE}; r0 = *(u8 *)skb[0]; out:", ""),
    ],
)  # fmt: skip
def test_references_to_sockets(body: str, message: str) -> None:
    found = verdict(program(lines(f"{body}; r0 = 0; exit"), type="sched_cls"))
    if "skb[" not in body or message:
        assert found == message
    else:
        assert found in ("", "R0 invalid mem access 'scalar'")


# --- results, and what some helpers ask ----------------------------------------------------

DEVICES = MapDef("devices", 14, 4, 4, 4)
SOCKETS = MapDef("sockets", 15, 4, 4, 4)
KEY = "*(u64 *)(r10 - 8) = 0; r2 = r10; r2 += -8; "
SET = "At bpf_set_retval the register R1 has smin={0} smax={0} should have been in [-4095, 0]"


@pytest.mark.parametrize(
    ("kind", "attach_type", "body", "message"),
    [
        ("cgroup_device", "cgroup_device", "r1 = -4095; call bpf_set_retval", ""),
        ("cgroup_device", "cgroup_device", "r1 = 1; call bpf_set_retval", SET.format(1)),
        ("cgroup_device", "cgroup_device", "r1 = r10; call bpf_set_retval", "R1 is not a scalar"),
        ("cgroup_device", "cgroup_device", "call bpf_get_retval; r1 = r0; call bpf_set_retval",
         ""),
        ("cgroup_sockopt", "cgroup_getsockopt", "r1 = 1; call bpf_set_retval", ""),
        ("cgroup_sockopt", "cgroup_setsockopt", "r1 = 1; call bpf_set_retval", SET.format(1)),
        ("kprobe", "", "call bpf_get_func_ip", ""),
        ("tracepoint", "", "call bpf_get_func_ip",
         "func bpf_get_func_ip#173 not supported for program type 5"),
        ("xdp", "xdp", "r2 = r10; r2 += -16; *(u64 *)(r10 - 16) = 0; *(u64 *)(r10 - 8) = 0; "
         "r3 = 64; r4 = 0; call bpf_fib_lookup", "invalid write to stack R2 off=-16 size=64"),
        ("xdp", "xdp", f"{KEY}r3 = r2; r1 = map[idx:0]; r4 = 0; call bpf_map_update_elem",
         "write into map forbidden"),
        ("xdp", "xdp", f"{KEY}r1 = map[idx:0]; call bpf_map_lookup_elem; if r0 == 0 goto +1; "
         "r1 = *(u32 *)(r0 + 0)", ""),
        ("xdp", "xdp", f"{KEY}r1 = map[idx:0]; call bpf_map_lookup_elem; if r0 == 0 goto +1; "
         "*(u32 *)(r0 + 0) = 1", "write into map forbidden, value_size=4 off=0 size=4"),
        ("xdp", "xdp", "r1 = map[idx:0]; r2 = 0; r3 = 0; call bpf_redirect_map", ""),
        ("sk_skb", "", f"{KEY}r1 = map[idx:1]; r3 = r2; r4 = 0; call bpf_map_update_elem",
         f"R3 type=fp expected={KINDS}"),
        ("sk_skb", "", f"{KEY}r1 = map[idx:1]; r2 = r10; r2 += -8; call bpf_map_pop_elem",
         "invalid arg_type for sockmap/sockhash"),
        ("sched_cls", "", "r2 = 0; r3 = r10; r3 += -8; r4 = 8; call bpf_skb_load_bytes; "
         "r0 = *(u64 *)(r10 - 8)", ""),
        ("sched_cls", "", "r2 = 0; r3 = 0; r4 = 8; call bpf_skb_load_bytes",
         "R3 type=scalar expected=fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem, buf, "
         "trusted_ptr_, ctx"),
        ("sched_cls", "", "r1 = 0; r2 = 0; r3 = 0; r4 = 0; r5 = 0; call bpf_csum_diff", ""),
        ("sched_cls", "", "r1 = 0; call bpf_get_netns_cookie", ""),
        ("sched_cls", "", "r1 = 0; call bpf_get_hash_recalc", "R1 type=scalar expected=ctx"),
        ("syscall", "", "r1 = 0; r2 = 0; r3 = 0; r4 = 0; call bpf_sk_storage_get",
         "helper call is not allowed in probe"),
        ("sched_cls", "", "call bpf_task_pt_regs",
         "R1 type=ctx expected=ptr_, trusted_ptr_, rcu_ptr_"),
    ],
)  # fmt: skip
def test_what_helpers_ask(kind: str, attach_type: str, body: str, message: str) -> None:
    maps = (DEVICES, SOCKETS) if "map[" in body else ()
    assert said(kind, body, attach_type, maps) == message
