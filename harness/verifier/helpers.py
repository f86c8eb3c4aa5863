"""Helpers: who may call which, in which variant, and what else is known of them by number.

Every ``*_func_proto`` of Linux 7.3.4 as Debian configures it (that is, without
bpf_override_return), with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN. A program type asks its
layers one after the other; the first that has the helper decides.
"""

from __future__ import annotations

from functools import lru_cache

from harness.isa.helpers import HELPER_NUMBERS, HELPERS
from harness.model import Program
from harness.verifier.helper_prototypes import PROTOTYPES, VARIANTS, Prototype

# fmt: off
SYNC_CALLBACKS  = frozenset({164, 180, 181, 209})  # is_sync_callback_calling_function
ASYNC_CALLBACKS = frozenset({170})                 # timer_set_callback
CHANGES_PACKET  = frozenset({                      # bpf_helper_changes_pkt_data
    9, 10, 11, 12, 13, 18, 19, 31, 38, 39, 43, 44, 50, 54, 63, 65, 73, 74, 75, 76, 90, 91,
    143,
})
_SLEEP_IF_SLEEPABLE = {                            # get_task_stack and get_stack for
    141: frozenset({"*"}), 67: frozenset({"kprobe"}),
}
ACQUIRES        = frozenset({84, 85, 99, 131, 194})  # is_acquire_function
CASTS           = frozenset({95, 96, 136, 137, 138, 139, 140, 196})  # is_ptr_cast_function
GPL_ONLY        = frozenset({                        # gpl_only, in every variant but one
    4, 6, 22, 25, 27, 35, 36, 45, 55, 56, 58, 67, 69, 77, 78, 92, 100, 110, 111, 112, 113, 114,
    115, 119, 121, 126, 127, 150, 158, 163, 165, 169, 170, 171, 172, 173, 175, 176, 177, 191,
    204, 205, 206, 207,
})
MAX_HELPER = max(HELPERS)


def _layer(names: str, **variants: str) -> dict[int, Prototype]:
    """Return what one ``*_func_proto`` function knows by itself."""
    return {
        HELPER_NUMBERS[f"bpf_{name}"]: VARIANTS[variants[name]] if name in variants
        else PROTOTYPES[HELPER_NUMBERS[f"bpf_{name}"]]
        for name in names.split()
    }


_LAYERS = {
    "base": _layer(
        "map_lookup_elem map_update_elem map_delete_elem map_push_elem map_pop_elem "
        "map_peek_elem map_lookup_percpu_elem get_prandom_u32 get_smp_processor_id "
        "get_numa_node_id tail_call ktime_get_ns ktime_get_boot_ns ktime_get_tai_ns "
        "ringbuf_output ringbuf_reserve ringbuf_submit ringbuf_discard ringbuf_query strncmp "
        "strtol strtoul get_current_pid_tgid get_ns_current_pid_tgid get_current_uid_gid "
        "spin_lock spin_unlock jiffies64 per_cpu_ptr this_cpu_ptr timer_init timer_set_callback "
        "timer_start timer_cancel kptr_xchg for_each_map_elem loop user_ringbuf_drain "
        "ringbuf_reserve_dynptr ringbuf_submit_dynptr ringbuf_discard_dynptr dynptr_from_mem "
        "dynptr_read dynptr_write dynptr_data cgrp_storage_get cgrp_storage_delete "
        "get_current_cgroup_id get_current_ancestor_cgroup_id current_task_under_cgroup "
        "get_cgroup_classid task_storage_get task_storage_delete trace_printk get_current_task "
        "get_current_task_btf get_current_comm probe_read_user probe_read_kernel "
        "probe_read_user_str probe_read_kernel_str copy_from_user copy_from_user_task "
        "snprintf_btf snprintf task_pt_regs trace_vprintk perf_event_read_value perf_event_read "
        "send_signal send_signal_thread get_task_stack get_branch_snapshot find_vma",
        get_smp_processor_id="get_raw_smp_processor_id",
        get_cgroup_classid="get_cgroup_classid_curr"),
    "tracing_base": _layer(
        "get_smp_processor_id probe_read probe_read_str get_func_ip probe_write_user"),
    "kprobe": _layer(
        "perf_event_output get_stackid get_stack get_func_ip get_attach_cookie"),
    "tracepoint": _layer(
        "perf_event_output get_stackid get_stack get_attach_cookie"),
    "perf_event": _layer(
        "perf_event_output get_stackid get_stack perf_prog_read_value read_branch_records "
        "get_attach_cookie"),
    "raw_tp": _layer(
        "perf_event_output get_stackid get_stack get_attach_cookie"),
    "tracing": _layer(
        "skb_output xdp_output skc_to_tcp6_sock skc_to_tcp_sock skc_to_tcp_timewait_sock "
        "skc_to_tcp_request_sock skc_to_udp6_sock skc_to_unix_sock skc_to_mptcp_sock "
        "sk_storage_get sk_storage_delete sock_from_file get_socket_cookie xdp_get_buff_len "
        "seq_printf seq_write seq_printf_btf d_path get_func_arg get_func_ret get_func_arg_cnt "
        "get_attach_cookie",
        sk_storage_get="sk_storage_get_tracing",
        sk_storage_delete="sk_storage_delete_tracing",
        get_socket_cookie="get_socket_ptr_cookie",
        xdp_get_buff_len="xdp_get_buff_len_trace"),
    "lsm": _layer(
        "inode_storage_get inode_storage_delete sk_storage_get sk_storage_delete spin_lock "
        "spin_unlock bprm_opts_set ima_inode_hash ima_file_hash get_attach_cookie setsockopt "
        "getsockopt",
        setsockopt="sk_setsockopt",
        getsockopt="sk_getsockopt"),
    "syscall": _layer(
        "sys_bpf btf_find_by_name_kind sys_close kallsyms_lookup_name"),
    "cgroup_device": _layer(
        "perf_event_output"),
    "cgroup_sysctl": _layer(
        "sysctl_get_name sysctl_get_current_value sysctl_get_new_value sysctl_set_new_value "
        "ktime_get_coarse_ns perf_event_output"),
    "cgroup_sockopt": _layer(
        "get_netns_cookie sk_storage_get sk_storage_delete setsockopt getsockopt tcp_sock "
        "perf_event_output",
        setsockopt="sk_setsockopt",
        getsockopt="sk_getsockopt"),
    "cgroup": _layer(
        "get_local_storage get_retval set_retval"),
    "lirc_mode2": _layer(
        "rc_repeat rc_keydown rc_pointer_rel map_lookup_elem map_update_elem map_delete_elem "
        "map_push_elem map_pop_elem map_peek_elem ktime_get_ns ktime_get_boot_ns tail_call "
        "get_prandom_u32 trace_printk"),
    "cgroup_sock": _layer(
        "get_socket_cookie get_netns_cookie perf_event_output sk_storage_get "
        "ktime_get_coarse_ns setsockopt getsockopt",
        sk_storage_get="sk_storage_get_cg_sock"),
    "cgroup_sock_addr": _layer(
        "bind get_socket_cookie get_netns_cookie perf_event_output sk_lookup_tcp sk_lookup_udp "
        "sk_release skc_lookup_tcp sk_storage_get sk_storage_delete setsockopt getsockopt"),
    "socket_filter": _layer(
        "skb_load_bytes skb_load_bytes_relative get_socket_cookie get_netns_cookie "
        "get_socket_uid perf_event_output"),
    "cgroup_skb": _layer(
        "sk_fullsock sk_storage_get sk_storage_delete perf_event_output skb_cgroup_id "
        "skb_ancestor_cgroup_id sk_cgroup_id sk_ancestor_cgroup_id sk_lookup_tcp sk_lookup_udp "
        "sk_release skc_lookup_tcp tcp_sock get_listener_sock skb_ecn_set_ce"),
    "sched_cls": _layer(
        "skb_store_bytes skb_load_bytes skb_load_bytes_relative skb_pull_data csum_diff "
        "csum_update csum_level l3_csum_replace l4_csum_replace clone_redirect "
        "get_cgroup_classid skb_vlan_push skb_vlan_pop skb_change_proto skb_change_type "
        "skb_adjust_room skb_change_tail skb_change_head skb_get_tunnel_key skb_set_tunnel_key "
        "skb_get_tunnel_opt skb_set_tunnel_opt redirect redirect_neigh redirect_peer "
        "get_route_realm get_hash_recalc set_hash_invalid set_hash perf_event_output "
        "get_smp_processor_id skb_under_cgroup get_socket_cookie get_netns_cookie "
        "get_socket_uid fib_lookup check_mtu sk_fullsock sk_storage_get sk_storage_delete "
        "skb_get_xfrm_state skb_cgroup_classid skb_cgroup_id skb_ancestor_cgroup_id "
        "sk_lookup_tcp sk_lookup_udp sk_release tcp_sock get_listener_sock skc_lookup_tcp "
        "tcp_check_syncookie skb_ecn_set_ce tcp_gen_syncookie sk_assign skb_set_tstamp "
        "tcp_raw_gen_syncookie_ipv4 tcp_raw_gen_syncookie_ipv6 tcp_raw_check_syncookie_ipv4 "
        "tcp_raw_check_syncookie_ipv6"),
    "xdp": _layer(
        "perf_event_output get_smp_processor_id csum_diff xdp_adjust_head xdp_adjust_meta "
        "redirect redirect_map xdp_adjust_tail xdp_get_buff_len xdp_load_bytes xdp_store_bytes "
        "fib_lookup check_mtu sk_lookup_udp sk_lookup_tcp sk_release skc_lookup_tcp "
        "tcp_check_syncookie tcp_gen_syncookie tcp_raw_gen_syncookie_ipv4 "
        "tcp_raw_gen_syncookie_ipv6 tcp_raw_check_syncookie_ipv4 tcp_raw_check_syncookie_ipv6"),
    "sock_ops": _layer(
        "setsockopt getsockopt sock_ops_cb_flags_set sock_map_update sock_hash_update "
        "get_socket_cookie perf_event_output sk_storage_get sk_storage_delete get_netns_cookie "
        "load_hdr_opt store_hdr_opt reserve_hdr_opt tcp_sock"),
    "sk_msg": _layer(
        "msg_redirect_map msg_redirect_hash msg_apply_bytes msg_cork_bytes msg_pull_data "
        "msg_push_data msg_pop_data perf_event_output sk_storage_get sk_storage_delete "
        "get_netns_cookie"),
    "sk_skb": _layer(
        "skb_store_bytes skb_load_bytes skb_pull_data skb_change_tail skb_change_head "
        "skb_adjust_room get_socket_cookie get_socket_uid sk_redirect_map sk_redirect_hash "
        "perf_event_output sk_lookup_tcp sk_lookup_udp sk_release skc_lookup_tcp"),
    "flow_dissector": _layer(
        "skb_load_bytes"),
    "lwt_out": _layer(
        "skb_load_bytes skb_pull_data csum_diff get_cgroup_classid get_route_realm "
        "get_hash_recalc perf_event_output get_smp_processor_id skb_under_cgroup"),
    "lwt_in": _layer(
        "lwt_push_encap"),
    "lwt_xmit": _layer(
        "skb_get_tunnel_key skb_set_tunnel_key skb_get_tunnel_opt skb_set_tunnel_opt redirect "
        "clone_redirect skb_change_tail skb_change_head skb_store_bytes csum_update csum_level "
        "l3_csum_replace l4_csum_replace set_hash_invalid lwt_push_encap"),
    "lwt_seg6local": _layer(
        "lwt_seg6_store_bytes lwt_seg6_action lwt_seg6_adjust_srh"),
    "sk_reuseport": _layer(
        "sk_select_reuseport skb_load_bytes skb_load_bytes_relative get_socket_cookie "
        "ktime_get_coarse_ns",
        get_socket_cookie="get_socket_ptr_cookie"),
    "sk_lookup": _layer(
        "perf_event_output sk_assign sk_release",
        sk_assign="sk_lookup_assign"),
    "sk_base": _layer(
        "skc_to_tcp6_sock skc_to_tcp_sock skc_to_tcp_timewait_sock skc_to_tcp_request_sock "
        "skc_to_udp6_sock skc_to_unix_sock skc_to_mptcp_sock ktime_get_coarse_ns"),
}

# What a program type asks, in order
_SKB = ("socket_filter", "sk_base", "base")
_LWT = ("lwt_out", "sk_base", "base")
_TRACE = ("tracing_base", "base")
_TRACING = ("tracing", "raw_tp", *_TRACE)
CHAINS = {
    "socket_filter":           _SKB,
    "sched_cls":               ("sched_cls", "sk_base", "base"),
    "sched_act":               ("sched_cls", "sk_base", "base"),
    "xdp":                     ("xdp", "sk_base", "base"),
    "cgroup_skb":              ("cgroup", "cgroup_skb", *_SKB),
    "cgroup_sock":             ("cgroup", "cgroup_sock", "base"),
    "cgroup_sock_addr":        ("cgroup", "cgroup_sock_addr", "sk_base", "base"),
    "cgroup_sockopt":          ("cgroup", "cgroup_sockopt", "base"),
    "cgroup_sysctl":           ("cgroup", "cgroup_sysctl", "base"),
    "cgroup_device":           ("cgroup", "cgroup_device", "base"),
    "sock_ops":                ("cgroup", "sock_ops", "sk_base", "base"),
    "sk_skb":                  ("sk_skb", "sk_base", "base"),
    "sk_msg":                  ("sk_msg", "sk_base", "base"),
    "sk_reuseport":            ("sk_reuseport", "base"),
    "sk_lookup":               ("sk_lookup", "sk_base", "base"),
    "flow_dissector":          ("flow_dissector", "sk_base", "base"),
    "lwt_in":                  ("lwt_in", *_LWT),
    "lwt_out":                 _LWT,
    "lwt_xmit":                ("lwt_xmit", *_LWT),
    "lwt_seg6local":           ("lwt_seg6local", *_LWT),
    "netfilter":               ("base",),
    "lirc_mode2":              ("lirc_mode2",),
    "kprobe":                  ("kprobe", *_TRACE),
    "tracepoint":              ("tracepoint", *_TRACE),
    "perf_event":              ("perf_event", *_TRACE),
    "raw_tracepoint":          ("raw_tp", *_TRACE),
    "raw_tracepoint_writable": ("raw_tp", *_TRACE),
    "tracing":                 _TRACING,
    "syscall":                 ("syscall", *_TRACING),
    "lsm":                     ("lsm", *_TRACING),
}

# Attach types with which a layer has a helper; by default all
_RESULT = "cgroup_inet_ingress cgroup_inet_egress cgroup_sock_ops cgroup_udp4_recvmsg " \
    "cgroup_udp6_recvmsg cgroup_unix_recvmsg cgroup_inet4_getpeername " \
    "cgroup_inet6_getpeername cgroup_unix_getpeername cgroup_inet4_getsockname " \
    "cgroup_inet6_getsockname cgroup_unix_getsockname"
_TRAMPOLINE = "trace_fentry trace_fexit modify_return trace_fsession trace_fentry_multi " \
    "trace_fexit_multi trace_fsession_multi"      # bpf_prog_has_trampoline
_SOCKADDR = "cgroup_inet4_bind cgroup_inet6_bind cgroup_inet4_connect cgroup_inet6_connect " \
    "cgroup_unix_connect cgroup_udp4_recvmsg cgroup_udp6_recvmsg cgroup_unix_recvmsg " \
    "cgroup_udp4_sendmsg cgroup_udp6_sendmsg cgroup_unix_sendmsg cgroup_inet4_getpeername " \
    "cgroup_inet6_getpeername cgroup_inet4_getsockname cgroup_inet6_getsockname"
_ONLY = {
    ("tracing", "seq_printf"):          "trace_iter",
    ("tracing", "seq_write"):           "trace_iter",
    ("tracing", "seq_printf_btf"):      "trace_iter",
    ("tracing", "get_func_arg"):        _TRAMPOLINE + " trace_raw_tp",
    ("tracing", "get_func_arg_cnt"):    _TRAMPOLINE + " trace_raw_tp",
    ("tracing", "get_func_ret"):        _TRAMPOLINE,
    ("tracing", "get_attach_cookie"):   _TRAMPOLINE + " trace_raw_tp",
    ("lsm", "get_attach_cookie"):       "lsm_mac",
    ("lsm", "setsockopt"):              "lsm_cgroup",
    ("lsm", "getsockopt"):              "lsm_cgroup",
    ("cgroup_sockopt", "setsockopt"):   "cgroup_setsockopt",
    ("cgroup_sockopt", "getsockopt"):   "cgroup_setsockopt",
    ("cgroup_sock", "setsockopt"):      "cgroup_inet_sock_create",
    ("cgroup_sock", "getsockopt"):      "cgroup_inet_sock_create",
    ("cgroup_sock_addr", "bind"):       "cgroup_inet4_connect cgroup_inet6_connect",
    ("cgroup_sock_addr", "setsockopt"): _SOCKADDR,
    ("cgroup_sock_addr", "getsockopt"): _SOCKADDR,
}
_NOT = {("cgroup", "get_retval"): _RESULT, ("cgroup", "set_retval"): _RESULT}
_NEVER = {"lwt_seg6local": frozenset({39})}       # skb_pull_data, which lwt_out has
# What an attach type is where nobody says one: 0, or what bpf_prog_load_fixup_attach_type says
_ZERO = "cgroup_inet_ingress"
_DEFAULT = {"cgroup_sock": "cgroup_inet_sock_create"}
# fmt: on


def callable_helpers(program: Program) -> dict[int, Prototype] | None:
    """Return what *program* may call, by number; None: not known for its type."""
    attach = program.attach_type or _DEFAULT.get(program.type, _ZERO)
    return _callable(program.type, attach)


@lru_cache(maxsize=256)
def _callable(kind: str, attach: str) -> dict[int, Prototype] | None:
    chain = CHAINS.get(kind)
    if chain is None:
        return None
    if kind == "lsm" and attach == "lsm_cgroup":
        chain = ("cgroup", *chain)
    found: dict[int, Prototype] = {}
    decided = set(_NEVER.get(kind, ()))
    for layer in chain:
        for number, proto in _LAYERS[layer].items():
            if number in decided:
                continue
            key = layer, proto.name
            if attach in _NOT.get(key, "").split():
                continue
            decided.add(number)
            if key not in _ONLY or attach in _ONLY[key].split():
                found[number] = proto
    return found


def prototype(program: Program, number: int) -> Prototype | None:
    """Return the prototype of a helper that *program* may call (``bpf_get_helper_proto``)."""
    table = callable_helpers(program)
    return table.get(number) if table is not None else None


def is_known(program: Program, number: int) -> bool:
    """Say whether it is known if *program* may call the helper."""
    table = callable_helpers(program)
    if table is None:
        return False
    # what is iterated over may bring helpers of its own
    return program.attach_type != "trace_iter" or number in table


def gpl_only(program: Program, number: int) -> bool:
    """Say whether only GPL programs may call the helper."""
    if number == 27 and program.type == "perf_event":  # bpf_get_stackid_proto_pe
        return False
    return number in GPL_ONLY


def sleeps(program: Program, number: int) -> bool:
    """Say whether the helper may sleep when *program* calls it (``might_sleep``)."""
    kinds = _SLEEP_IF_SLEEPABLE.get(number)
    if kinds is not None:
        return program.sleepable and (program.type in kinds or "*" in kinds)
    proto = prototype(program, number)
    return proto is not None and proto.sleeps


def helper_name(number: int) -> str:
    """Return the helper's name as messages write it (``func_id_name``)."""
    return HELPERS.get(number, "unknown")
