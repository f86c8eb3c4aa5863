"""Section names to program types, as libbpf 1.8 (Linux 7.3) maps them.

A pattern that ends in ``+`` matches itself, and itself with ``/`` and anything behind,
which names what the program attaches to. Any other pattern matches exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

UNSPEC = "unspec"


@dataclass(frozen=True, slots=True)
class Section:
    """What a section name says about the programs in it."""

    type: str  # a BPF_PROG_TYPE_*, lower case; "unspec" for a name that libbpf does not know
    attach_type: str = ""  # the expected attach type BPF_*, lower case; empty: 0
    attach: str = ""  # what follows the slash: a function, a tracepoint, ...
    sleepable: bool = False
    autoload: bool = True  # False: the name began with "?"


# fmt: off
# section_defs                            tools/lib/bpf/libbpf.c, Linux 7.3
DEFINITIONS = (
    # pattern                  program type              expected attach type
    ("socket",                 "socket_filter",          ""),
    ("sk_reuseport/migrate",   "sk_reuseport",           "sk_reuseport_select_or_migrate"),
    ("sk_reuseport",           "sk_reuseport",           "sk_reuseport_select"),
    ("kprobe+",                "kprobe",                 ""),
    ("uprobe+",                "kprobe",                 ""),
    ("uprobe.s+",              "kprobe",                 ""),
    ("kretprobe+",             "kprobe",                 ""),
    ("uretprobe+",             "kprobe",                 ""),
    ("uretprobe.s+",           "kprobe",                 ""),
    ("kprobe.multi+",          "kprobe",                 "trace_kprobe_multi"),
    ("kretprobe.multi+",       "kprobe",                 "trace_kprobe_multi"),
    ("kprobe.session+",        "kprobe",                 "trace_kprobe_session"),
    ("uprobe.multi+",          "kprobe",                 "trace_uprobe_multi"),
    ("uretprobe.multi+",       "kprobe",                 "trace_uprobe_multi"),
    ("uprobe.session+",        "kprobe",                 "trace_uprobe_session"),
    ("uprobe.multi.s+",        "kprobe",                 "trace_uprobe_multi"),
    ("uretprobe.multi.s+",     "kprobe",                 "trace_uprobe_multi"),
    ("uprobe.session.s+",      "kprobe",                 "trace_uprobe_session"),
    ("ksyscall+",              "kprobe",                 ""),
    ("kretsyscall+",           "kprobe",                 ""),
    ("usdt+",                  "kprobe",                 ""),
    ("usdt.s+",                "kprobe",                 ""),
    ("tc/ingress",             "sched_cls",              "tcx_ingress"),
    ("tc/egress",              "sched_cls",              "tcx_egress"),
    ("tcx/ingress",            "sched_cls",              "tcx_ingress"),
    ("tcx/egress",             "sched_cls",              "tcx_egress"),
    ("tc",                     "sched_cls",              ""),
    ("classifier",             "sched_cls",              ""),
    ("action",                 "sched_act",              ""),
    ("netkit/primary",         "sched_cls",              "netkit_primary"),
    ("netkit/peer",            "sched_cls",              "netkit_peer"),
    ("tracepoint+",            "tracepoint",             ""),
    ("tp+",                    "tracepoint",             ""),
    ("tracepoint.s+",          "tracepoint",             ""),
    ("tp.s+",                  "tracepoint",             ""),
    ("raw_tracepoint+",        "raw_tracepoint",         ""),
    ("raw_tp+",                "raw_tracepoint",         ""),
    ("raw_tracepoint.s+",      "raw_tracepoint",         ""),
    ("raw_tp.s+",              "raw_tracepoint",         ""),
    ("raw_tracepoint.w+",      "raw_tracepoint_writable", ""),
    ("raw_tp.w+",              "raw_tracepoint_writable", ""),
    ("tp_btf+",                "tracing",                "trace_raw_tp"),
    ("tp_btf.s+",              "tracing",                "trace_raw_tp"),
    ("fentry+",                "tracing",                "trace_fentry"),
    ("fmod_ret+",              "tracing",                "modify_return"),
    ("fexit+",                 "tracing",                "trace_fexit"),
    ("fentry.s+",              "tracing",                "trace_fentry"),
    ("fmod_ret.s+",            "tracing",                "modify_return"),
    ("fexit.s+",               "tracing",                "trace_fexit"),
    ("fsession+",              "tracing",                "trace_fsession"),
    ("fsession.s+",            "tracing",                "trace_fsession"),
    ("fsession.multi+",        "tracing",                "trace_fsession_multi"),
    ("fsession.multi.s+",      "tracing",                "trace_fsession_multi"),
    ("fentry.multi+",          "tracing",                "trace_fentry_multi"),
    ("fexit.multi+",           "tracing",                "trace_fexit_multi"),
    ("fentry.multi.s+",        "tracing",                "trace_fentry_multi"),
    ("fexit.multi.s+",         "tracing",                "trace_fexit_multi"),
    ("freplace+",              "ext",                    ""),
    ("lsm+",                   "lsm",                    "lsm_mac"),
    ("lsm.s+",                 "lsm",                    "lsm_mac"),
    ("lsm_cgroup+",            "lsm",                    "lsm_cgroup"),
    ("iter+",                  "tracing",                "trace_iter"),
    ("iter.s+",                "tracing",                "trace_iter"),
    ("syscall",                "syscall",                ""),
    ("xdp.frags/devmap",       "xdp",                    "xdp_devmap"),
    ("xdp/devmap",             "xdp",                    "xdp_devmap"),
    ("xdp.frags/cpumap",       "xdp",                    "xdp_cpumap"),
    ("xdp/cpumap",             "xdp",                    "xdp_cpumap"),
    ("xdp.frags",              "xdp",                    "xdp"),
    ("xdp",                    "xdp",                    "xdp"),
    ("perf_event",             "perf_event",             ""),
    ("lwt_in",                 "lwt_in",                 ""),
    ("lwt_out",                "lwt_out",                ""),
    ("lwt_xmit",               "lwt_xmit",               ""),
    ("lwt_seg6local",          "lwt_seg6local",          ""),
    ("sockops",                "sock_ops",               "cgroup_sock_ops"),
    ("sk_skb/stream_parser",   "sk_skb",                 "sk_skb_stream_parser"),
    ("sk_skb/stream_verdict",  "sk_skb",                 "sk_skb_stream_verdict"),
    ("sk_skb/verdict",         "sk_skb",                 "sk_skb_verdict"),
    ("sk_skb",                 "sk_skb",                 ""),
    ("sk_msg",                 "sk_msg",                 "sk_msg_verdict"),
    ("lirc_mode2",             "lirc_mode2",             "lirc_mode2"),
    ("flow_dissector",         "flow_dissector",         "flow_dissector"),
    ("cgroup_skb/ingress",     "cgroup_skb",             "cgroup_inet_ingress"),
    ("cgroup_skb/egress",      "cgroup_skb",             "cgroup_inet_egress"),
    ("cgroup/skb",             "cgroup_skb",             ""),
    ("cgroup/sock_create",     "cgroup_sock",            "cgroup_inet_sock_create"),
    ("cgroup/sock_release",    "cgroup_sock",            "cgroup_inet_sock_release"),
    ("cgroup/sock",            "cgroup_sock",            "cgroup_inet_sock_create"),
    ("cgroup/post_bind4",      "cgroup_sock",            "cgroup_inet4_post_bind"),
    ("cgroup/post_bind6",      "cgroup_sock",            "cgroup_inet6_post_bind"),
    ("cgroup/bind4",           "cgroup_sock_addr",       "cgroup_inet4_bind"),
    ("cgroup/bind6",           "cgroup_sock_addr",       "cgroup_inet6_bind"),
    ("cgroup/connect4",        "cgroup_sock_addr",       "cgroup_inet4_connect"),
    ("cgroup/connect6",        "cgroup_sock_addr",       "cgroup_inet6_connect"),
    ("cgroup/connect_unix",    "cgroup_sock_addr",       "cgroup_unix_connect"),
    ("cgroup/sendmsg4",        "cgroup_sock_addr",       "cgroup_udp4_sendmsg"),
    ("cgroup/sendmsg6",        "cgroup_sock_addr",       "cgroup_udp6_sendmsg"),
    ("cgroup/sendmsg_unix",    "cgroup_sock_addr",       "cgroup_unix_sendmsg"),
    ("cgroup/recvmsg4",        "cgroup_sock_addr",       "cgroup_udp4_recvmsg"),
    ("cgroup/recvmsg6",        "cgroup_sock_addr",       "cgroup_udp6_recvmsg"),
    ("cgroup/recvmsg_unix",    "cgroup_sock_addr",       "cgroup_unix_recvmsg"),
    ("cgroup/getpeername4",    "cgroup_sock_addr",       "cgroup_inet4_getpeername"),
    ("cgroup/getpeername6",    "cgroup_sock_addr",       "cgroup_inet6_getpeername"),
    ("cgroup/getpeername_unix", "cgroup_sock_addr",      "cgroup_unix_getpeername"),
    ("cgroup/getsockname4",    "cgroup_sock_addr",       "cgroup_inet4_getsockname"),
    ("cgroup/getsockname6",    "cgroup_sock_addr",       "cgroup_inet6_getsockname"),
    ("cgroup/getsockname_unix", "cgroup_sock_addr",      "cgroup_unix_getsockname"),
    ("cgroup/sysctl",          "cgroup_sysctl",          "cgroup_sysctl"),
    ("cgroup/getsockopt",      "cgroup_sockopt",         "cgroup_getsockopt"),
    ("cgroup/setsockopt",      "cgroup_sockopt",         "cgroup_setsockopt"),
    ("cgroup/dev",             "cgroup_device",          "cgroup_device"),
    ("struct_ops+",            "struct_ops",             ""),
    ("struct_ops.s+",          "struct_ops",             ""),
    ("sk_lookup",              "sk_lookup",              "sk_lookup"),
    ("netfilter",              "netfilter",              "netfilter"),
)
# fmt: on


def classify(name: str) -> Section:
    """Return what the ELF section *name* says about its programs (``find_sec_def``)."""
    autoload = not name.startswith("?")
    name = name.removeprefix("?")
    for pattern, program_type, attach_type in DEFINITIONS:
        base = pattern.removesuffix("+")
        if name == base or (base != pattern and name.startswith(base + "/")):
            attach = name[len(base) + 1 :]
            sleepable = base.endswith(".s") or base == "syscall"
            return Section(program_type, attach_type, attach, sleepable, autoload)
    return Section(UNSPEC, autoload=autoload)
