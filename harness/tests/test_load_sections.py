from __future__ import annotations

import pytest

from harness.load.sections import DEFINITIONS, UNSPEC, Section, classify


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("syscall", Section("syscall", sleepable=True)),
        ("xdp", Section("xdp", "xdp")),
        ("xdp.frags/devmap", Section("xdp", "xdp_devmap")),
        ("tc", Section("sched_cls")),
        ("tcx/egress", Section("sched_cls", "tcx_egress")),
        ("socket", Section("socket_filter")),
        ("kprobe", Section("kprobe")),
        ("kprobe/do_exit", Section("kprobe", attach="do_exit")),
        ("kprobe.multi/do_*", Section("kprobe", "trace_kprobe_multi", "do_*")),
        ("uprobe.s//bin/sh:main", Section("kprobe", attach="/bin/sh:main", sleepable=True)),
        ("tp/sched/switch", Section("tracepoint", attach="sched/switch")),
        ("raw_tp.w/x", Section("raw_tracepoint_writable", attach="x")),
        ("fentry/f", Section("tracing", "trace_fentry", "f")),
        ("fexit.s/f", Section("tracing", "trace_fexit", "f", sleepable=True)),
        ("fsession.multi.s/f", Section("tracing", "trace_fsession_multi", "f", sleepable=True)),
        ("freplace/old", Section("ext", attach="old")),
        ("lsm.s/file_open", Section("lsm", "lsm_mac", "file_open", sleepable=True)),
        ("cgroup_skb/ingress", Section("cgroup_skb", "cgroup_inet_ingress")),
        ("cgroup/connect4", Section("cgroup_sock_addr", "cgroup_inet4_connect")),
        ("struct_ops.s/init", Section("struct_ops", attach="init", sleepable=True)),
        ("?struct_ops/init", Section("struct_ops", attach="init", autoload=False)),
        ("sk_skb/stream_verdict", Section("sk_skb", "sk_skb_stream_verdict")),
        ("perf_event", Section("perf_event")),
        ("lwt_xmit", Section("lwt_xmit")),
        ("xdp/other", Section(UNSPEC)),
        ("kprobes/x", Section(UNSPEC)),
        ("syscall/x", Section(UNSPEC)),
        ("mine", Section(UNSPEC)),
        ("", Section(UNSPEC)),
    ],
)
def test_section_names(name: str, section: Section) -> None:
    assert classify(name) == section


def test_every_pattern_is_reached_by_its_own_name() -> None:
    assert len(DEFINITIONS) == 116
    for pattern, program_type, attach_type in DEFINITIONS:
        found = classify(pattern.removesuffix("+"))
        assert (found.type, found.attach_type) == (program_type, attach_type), pattern
