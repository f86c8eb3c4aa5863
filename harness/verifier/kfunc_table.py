"""The kernel functions of Linux 7.3.4: their flags, and which programs may call them.

A table of facts: the sets between ``BTF_KFUNCS_START`` and ``_END`` that
``register_btf_kfunc_id_set`` is called with, one row a function with its flags. Functions
that only modules have are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.model import Program

# fmt: off
# Flags of a function                              include/linux/btf.h
ACQUIRE       = 1 << 0
RELEASE       = 1 << 1
RET_NULL      = 1 << 2
SLEEPABLE     = 1 << 5
DESTRUCTIVE   = 1 << 6
RCU           = 1 << 7
ITER_NEW      = 1 << 8
ITER_NEXT     = 1 << 9
ITER_DESTROY  = 1 << 10
RCU_PROTECTED = 1 << 11
FASTCALL      = 1 << 12
ARENA_RET     = 1 << 13
ARENA_ARG1    = 1 << 14
ARENA_ARG2    = 1 << 15
IMPLICIT_ARGS = 1 << 16
SPINLOCK_SAFE = 1 << 17
PERFMON       = 1 << 18
ITER          = ITER_NEW | ITER_NEXT | ITER_DESTROY

# Where a program looks for functions              bpf_prog_type_to_kfunc_hook
HOOKS = {
    "unspec": "common", "xdp": "xdp", "sched_cls": "tc", "struct_ops": "struct_ops",
    "tracing": "tracing", "tracepoint": "tracing", "raw_tracepoint": "tracing",
    "perf_event": "tracing", "lsm": "tracing", "syscall": "syscall", "cgroup_skb": "cgroup",
    "cgroup_sock": "cgroup", "cgroup_device": "cgroup", "cgroup_sock_addr": "cgroup",
    "cgroup_sockopt": "cgroup", "cgroup_sysctl": "cgroup", "sock_ops": "cgroup",
    "sched_act": "sched_act", "sk_skb": "sk_skb", "socket_filter": "socket_filter",
    "lwt_out": "lwt", "lwt_in": "lwt", "lwt_xmit": "lwt", "lwt_seg6local": "lwt",
    "netfilter": "netfilter", "kprobe": "kprobe",
}
# fmt: on


@dataclass(frozen=True, slots=True)
class Set:
    """Functions that are registered together (``btf_kfunc_id_set``)."""

    hooks: str  # names of HOOKS, "fmodret"
    filter: str  # which of the hook's programs may call them: _FILTERS
    flags: dict[str, int]  # by function


def _plain(names: str) -> dict[str, int]:
    return dict.fromkeys(names.split(), 0)


# fmt: off
SETS = (
    # common_btf_ids, kernel/bpf/helpers.c
    Set("common", "", {
        "bpf_cast_to_kern_ctx": FASTCALL,
        "bpf_rdonly_cast": FASTCALL | PERFMON,
        "bpf_dynptr_slice": RET_NULL,
        "bpf_dynptr_slice_rdwr": RET_NULL,
        "bpf_iter_num_new": ITER_NEW | SPINLOCK_SAFE,
        "bpf_iter_num_next": ITER_NEXT | RET_NULL | SPINLOCK_SAFE,
        "bpf_iter_num_destroy": ITER_DESTROY | SPINLOCK_SAFE,
        "bpf_iter_task_vma_new": ITER_NEW | RCU,
        "bpf_iter_task_vma_next": ITER_NEXT | RET_NULL,
        "bpf_iter_task_vma_destroy": ITER_DESTROY,
        "bpf_iter_css_task_new": ITER_NEW,
        "bpf_iter_css_task_next": ITER_NEXT | RET_NULL,
        "bpf_iter_css_task_destroy": ITER_DESTROY,
        "bpf_iter_css_new": ITER_NEW | RCU_PROTECTED,
        "bpf_iter_css_next": ITER_NEXT | RET_NULL,
        "bpf_iter_css_destroy": ITER_DESTROY,
        "bpf_iter_task_new": ITER_NEW | RCU_PROTECTED,
        "bpf_iter_task_next": ITER_NEXT | RET_NULL,
        "bpf_iter_task_destroy": ITER_DESTROY,
        "bpf_wq_set_callback": IMPLICIT_ARGS,
        "bpf_iter_bits_new": ITER_NEW | PERFMON,
        "bpf_iter_bits_next": ITER_NEXT | RET_NULL,
        "bpf_iter_bits_destroy": ITER_DESTROY,
        "bpf_copy_from_user_str": SLEEPABLE | PERFMON,
        "bpf_copy_from_user_task_str": SLEEPABLE | PERFMON,
        "bpf_get_kmem_cache": PERFMON,
        "bpf_iter_kmem_cache_new": ITER_NEW | SLEEPABLE,
        "bpf_iter_kmem_cache_next": ITER_NEXT | RET_NULL | SLEEPABLE,
        "bpf_iter_kmem_cache_destroy": ITER_DESTROY | SLEEPABLE,
        "bpf_probe_read_user_dynptr": PERFMON,
        "bpf_probe_read_kernel_dynptr": PERFMON,
        "bpf_probe_read_user_str_dynptr": PERFMON,
        "bpf_probe_read_kernel_str_dynptr": PERFMON,
        "bpf_copy_from_user_dynptr": SLEEPABLE | PERFMON,
        "bpf_copy_from_user_str_dynptr": SLEEPABLE | PERFMON,
        "bpf_copy_from_user_task_dynptr": SLEEPABLE | PERFMON,
        "bpf_copy_from_user_task_str_dynptr": SLEEPABLE | PERFMON,
        "bpf_iter_dmabuf_new": ITER_NEW | SLEEPABLE,
        "bpf_iter_dmabuf_next": ITER_NEXT | RET_NULL | SLEEPABLE,
        "bpf_iter_dmabuf_destroy": ITER_DESTROY | SLEEPABLE,
        "bpf_strcmp": PERFMON,
        "bpf_strcasecmp": PERFMON,
        "bpf_strncasecmp": PERFMON,
        "bpf_strchr": PERFMON,
        "bpf_strchrnul": PERFMON,
        "bpf_strnchr": PERFMON,
        "bpf_strrchr": PERFMON,
        "bpf_strlen": PERFMON,
        "bpf_strnlen": PERFMON,
        "bpf_strspn": PERFMON,
        "bpf_strcspn": PERFMON,
        "bpf_strstr": PERFMON,
        "bpf_strcasestr": PERFMON,
        "bpf_strnstr": PERFMON,
        "bpf_strncasestr": PERFMON,
        "bpf_cgroup_read_xattr": RCU,
        "bpf_stream_vprintk": IMPLICIT_ARGS | SPINLOCK_SAFE | PERFMON,
        "bpf_stream_print_stack": IMPLICIT_ARGS | SPINLOCK_SAFE | PERFMON,
        "bpf_task_work_schedule_signal": IMPLICIT_ARGS,
        "bpf_task_work_schedule_resume": IMPLICIT_ARGS,
        "bpf_dynptr_file_discard": RELEASE,
        **_plain(
            "bpf_rcu_read_lock bpf_rcu_read_unlock bpf_dynptr_adjust bpf_dynptr_is_null "
            "bpf_dynptr_is_rdonly bpf_dynptr_size bpf_dynptr_clone bpf_dynptr_copy "
            "bpf_dynptr_memset bpf_modify_return_test_tp bpf_wq_init bpf_wq_start "
            "bpf_preempt_disable bpf_preempt_enable bpf_local_irq_save bpf_local_irq_restore "
            "__bpf_trap bpf_dynptr_from_file bpf_timer_cancel_async"
        ),
    }),
    # generic_btf_ids, kernel/bpf/helpers.c
    Set("tracing tc xdp struct_ops syscall cgroup", "", {
        "crash_kexec": DESTRUCTIVE,
        "bpf_obj_new": ACQUIRE | RET_NULL | IMPLICIT_ARGS,
        "bpf_obj_new_impl": ACQUIRE | RET_NULL,
        "bpf_percpu_obj_new": ACQUIRE | RET_NULL | IMPLICIT_ARGS,
        "bpf_percpu_obj_new_impl": ACQUIRE | RET_NULL,
        "bpf_obj_drop": RELEASE | IMPLICIT_ARGS,
        "bpf_obj_drop_impl": RELEASE,
        "bpf_percpu_obj_drop": RELEASE | IMPLICIT_ARGS,
        "bpf_percpu_obj_drop_impl": RELEASE,
        "bpf_refcount_acquire": ACQUIRE | RET_NULL | RCU | IMPLICIT_ARGS | SPINLOCK_SAFE,
        "bpf_refcount_acquire_impl": ACQUIRE | RET_NULL | RCU | SPINLOCK_SAFE,
        "bpf_list_push_front": IMPLICIT_ARGS | SPINLOCK_SAFE,
        "bpf_list_push_front_impl": SPINLOCK_SAFE,
        "bpf_list_push_back": IMPLICIT_ARGS | SPINLOCK_SAFE,
        "bpf_list_push_back_impl": SPINLOCK_SAFE,
        "bpf_list_add": IMPLICIT_ARGS | SPINLOCK_SAFE,
        "bpf_list_pop_front": ACQUIRE | RET_NULL | SPINLOCK_SAFE,
        "bpf_list_pop_back": ACQUIRE | RET_NULL | SPINLOCK_SAFE,
        "bpf_list_del": ACQUIRE | RET_NULL | SPINLOCK_SAFE,
        "bpf_list_front": RET_NULL | SPINLOCK_SAFE,
        "bpf_list_back": RET_NULL | SPINLOCK_SAFE,
        "bpf_list_is_first": SPINLOCK_SAFE,
        "bpf_list_is_last": SPINLOCK_SAFE,
        "bpf_list_empty": SPINLOCK_SAFE,
        "bpf_task_acquire": ACQUIRE | RCU | RET_NULL,
        "bpf_task_release": RELEASE,
        "bpf_rbtree_remove": ACQUIRE | RET_NULL | SPINLOCK_SAFE,
        "bpf_rbtree_add": IMPLICIT_ARGS | SPINLOCK_SAFE,
        "bpf_rbtree_add_impl": SPINLOCK_SAFE,
        "bpf_rbtree_first": RET_NULL | SPINLOCK_SAFE,
        "bpf_rbtree_root": RET_NULL | SPINLOCK_SAFE,
        "bpf_rbtree_left": RET_NULL | SPINLOCK_SAFE,
        "bpf_rbtree_right": RET_NULL | SPINLOCK_SAFE,
        "bpf_cgroup_acquire": ACQUIRE | RCU | RET_NULL,
        "bpf_cgroup_release": RELEASE,
        "bpf_cgroup_ancestor": ACQUIRE | RCU | RET_NULL,
        "bpf_cgroup_from_id": ACQUIRE | RET_NULL,
        "bpf_task_under_cgroup": RCU,
        "bpf_task_get_cgroup1": ACQUIRE | RCU | RET_NULL,
        "bpf_task_from_pid": ACQUIRE | RET_NULL,
        "bpf_task_from_vpid": ACQUIRE | RET_NULL,
        "bpf_lookup_user_key": ACQUIRE | RET_NULL | SLEEPABLE,
        "bpf_lookup_system_key": ACQUIRE | RET_NULL,
        "bpf_key_put": RELEASE,
        "bpf_verify_pkcs7_signature": SLEEPABLE,
        **_plain("bpf_throw bpf_send_signal_task"),
    }),
    # rqspinlock_kfunc_ids, kernel/bpf/rqspinlock.c
    Set("common", "", {
        "bpf_res_spin_lock": RET_NULL | SPINLOCK_SAFE,
        "bpf_res_spin_unlock": SPINLOCK_SAFE,
        "bpf_res_spin_lock_irqsave": RET_NULL | SPINLOCK_SAFE,
        "bpf_res_spin_unlock_irqrestore": SPINLOCK_SAFE,
    }),
    # arena_kfuncs, kernel/bpf/arena.c
    Set("common", "", {
        "bpf_arena_alloc_pages": ARENA_RET | ARENA_ARG2 | SPINLOCK_SAFE,
        "bpf_arena_free_pages": ARENA_ARG2 | SPINLOCK_SAFE,
        "bpf_arena_reserve_pages": ARENA_ARG2 | SPINLOCK_SAFE,
    }),
    # bpf_map_iter_kfunc_ids, kernel/bpf/map_iter.c
    Set("common", "", {
        **_plain("bpf_map_sum_elem_count"),
    }),
    # bpf_memcontrol_kfuncs, mm/bpf_memcontrol.c
    Set("common", "", {
        "bpf_get_root_mem_cgroup": ACQUIRE | RET_NULL,
        "bpf_get_mem_cgroup": ACQUIRE | RET_NULL | RCU,
        "bpf_put_mem_cgroup": RELEASE,
        "bpf_mem_cgroup_flush_stats": SLEEPABLE,
        **_plain(
            "bpf_mem_cgroup_vm_events bpf_mem_cgroup_memory_events bpf_mem_cgroup_usage "
            "bpf_mem_cgroup_page_state"
        ),
    }),
    # cpumask_kfunc_btf_ids, kernel/bpf/cpumask.c
    Set("tracing struct_ops syscall", "", {
        "bpf_cpumask_create": ACQUIRE | RET_NULL,
        "bpf_cpumask_release": RELEASE,
        "bpf_cpumask_acquire": ACQUIRE,
        "bpf_cpumask_first": RCU,
        "bpf_cpumask_first_zero": RCU,
        "bpf_cpumask_first_and": RCU,
        "bpf_cpumask_set_cpu": RCU,
        "bpf_cpumask_clear_cpu": RCU,
        "bpf_cpumask_test_cpu": RCU,
        "bpf_cpumask_test_and_set_cpu": RCU,
        "bpf_cpumask_test_and_clear_cpu": RCU,
        "bpf_cpumask_setall": RCU,
        "bpf_cpumask_clear": RCU,
        "bpf_cpumask_and": RCU,
        "bpf_cpumask_or": RCU,
        "bpf_cpumask_xor": RCU,
        "bpf_cpumask_equal": RCU,
        "bpf_cpumask_intersects": RCU,
        "bpf_cpumask_subset": RCU,
        "bpf_cpumask_empty": RCU,
        "bpf_cpumask_full": RCU,
        "bpf_cpumask_copy": RCU,
        "bpf_cpumask_any_distribute": RCU,
        "bpf_cpumask_any_and_distribute": RCU,
        "bpf_cpumask_weight": RCU,
        "bpf_cpumask_populate": RCU,
    }),
    # crypt_init_kfunc_btf_ids, kernel/bpf/crypto.c
    Set("syscall", "", {
        "bpf_crypto_ctx_create": ACQUIRE | RET_NULL | SLEEPABLE,
        "bpf_crypto_ctx_release": RELEASE,
        "bpf_crypto_ctx_acquire": ACQUIRE | RCU | RET_NULL,
    }),
    # crypt_kfunc_btf_ids, kernel/bpf/crypto.c
    Set("tc sched_act xdp", "", {
        "bpf_crypto_decrypt": RCU,
        "bpf_crypto_encrypt": RCU,
    }),
    # bpf_rstat_kfunc_ids, kernel/cgroup/rstat.c
    Set("tracing", "", {
        "css_rstat_flush": SLEEPABLE,
        **_plain("css_rstat_updated"),
    }),
    # session_kfunc_set_ids, kernel/trace/bpf_trace.c
    Set("kprobe tracing", "session", {
        **_plain("bpf_session_is_return bpf_session_cookie"),
    }),
    # bpf_fs_kfunc_set_ids, fs/bpf_fs_kfuncs.c
    Set("tracing", "lsm", {
        "bpf_get_task_exe_file": ACQUIRE | RET_NULL,
        "bpf_put_file": RELEASE,
        "bpf_get_dentry_xattr": SLEEPABLE,
        "bpf_get_file_xattr": SLEEPABLE,
        "bpf_set_dentry_xattr": SLEEPABLE,
        "bpf_remove_dentry_xattr": SLEEPABLE,
        "bpf_real_data_inode": SLEEPABLE | RET_NULL,
        "bpf_sock_read_xattr": RCU,
        **_plain("bpf_path_d_path"),
    }),
    # fsverity_set_ids, fs/verity/measure.c
    Set("tracing", "lsm", {
        **_plain("bpf_get_fsverity_digest"),
    }),
    # qdisc_kfunc_ids, net/sched/bpf_qdisc.c
    Set("struct_ops", "qdisc", {
        "bpf_kfree_skb": RELEASE,
        "bpf_qdisc_skb_drop": RELEASE,
        **_plain(
            "bpf_skb_get_hash bpf_dynptr_from_skb bpf_qdisc_watchdog_schedule "
            "bpf_qdisc_init_prologue bpf_qdisc_reset_destroy_epilogue bpf_qdisc_bstats_update"
        ),
    }),
    # xfrm_state_kfunc_set, net/xfrm/xfrm_state_bpf.c
    Set("xdp", "", {
        "bpf_xdp_get_xfrm_state": RET_NULL | ACQUIRE,
        "bpf_xdp_xfrm_state_release": RELEASE,
    }),
    # bpf_kfunc_check_set_skb, net/core/filter.c
    Set("tc sched_act sk_skb socket_filter cgroup lwt netfilter tracing", "", {
        **_plain("bpf_dynptr_from_skb"),
    }),
    # bpf_kfunc_check_set_skb_meta, net/core/filter.c
    Set("tc sched_act", "", {
        **_plain("bpf_dynptr_from_skb_meta"),
    }),
    # bpf_kfunc_check_set_xdp, net/core/filter.c
    Set("xdp", "", {
        **_plain("bpf_dynptr_from_xdp bpf_xdp_pull_data"),
    }),
    # bpf_kfunc_check_set_sock_addr, net/core/filter.c
    Set("cgroup", "", {
        **_plain("bpf_sock_addr_set_sun_path"),
    }),
    # bpf_kfunc_check_set_tcp_reqsk, net/core/filter.c
    Set("tc", "", {
        **_plain("bpf_sk_assign_tcp_reqsk"),
    }),
    # bpf_kfunc_check_set_sock_ops, net/core/filter.c
    Set("cgroup", "", {
        **_plain("bpf_sock_ops_enable_tx_tstamp"),
    }),
    # bpf_kfunc_check_set_icmp_send, net/core/filter.c
    Set("cgroup", "", {
        **_plain("bpf_icmp_send"),
    }),
    # bpf_sk_iter_kfunc_ids, net/core/filter.c
    Set("tracing", "iter", {
        **_plain("bpf_sock_destroy"),
    }),
    # xdp_metadata_kfunc_ids, net/core/xdp.c
    Set("xdp", "dev_bound", {
        **_plain(
            "bpf_xdp_metadata_rx_timestamp bpf_xdp_metadata_rx_hash "
            "bpf_xdp_metadata_rx_vlan_tag"
        ),
    }),
    # ksock_init_kfunc_btf_ids, net/core/bpf_ksock.c
    Set("syscall", "", {
        "bpf_ksock_create": ACQUIRE | RET_NULL | SLEEPABLE,
        "bpf_ksock_connect": SLEEPABLE,
    }),
    # ksock_kfunc_btf_ids, net/core/bpf_ksock.c
    Set("syscall tracing", "ksock", {
        "bpf_ksock_release": RELEASE,
        "bpf_ksock_acquire": ACQUIRE | RCU | RET_NULL,
        "bpf_ksock_send": SLEEPABLE,
    }),
    # bpf_test_modify_return_ids, net/bpf/test_run.c
    Set("fmodret", "", {
        "bpf_fentry_test1": SLEEPABLE,
        **_plain("bpf_modify_return_test bpf_modify_return_test2 bpf_modify_return_test_tp"),
    }),
    # test_sk_check_kfunc_ids, net/bpf/test_run.c
    Set("tc tracing syscall", "", {
        "bpf_kfunc_call_test_release": RELEASE,
        "bpf_kfunc_call_memb_release": RELEASE,
    }),
    # tcp_cubic_check_kfunc_ids, net/ipv4/tcp_cubic.c
    Set("struct_ops", "", {
        **_plain(
            "cubictcp_init cubictcp_recalc_ssthresh cubictcp_cong_avoid cubictcp_state "
            "cubictcp_cwnd_event_tx_start cubictcp_acked"
        ),
    }),
    # bpf_tcp_ca_check_kfunc_ids, net/ipv4/bpf_tcp_ca.c
    Set("struct_ops", "", {
        **_plain(
            "tcp_reno_ssthresh tcp_reno_cong_avoid tcp_reno_undo_cwnd tcp_slow_start "
            "tcp_cong_avoid_ai"
        ),
    }),
    # scx_kfunc_ids_init_cids, kernel/sched/ext/cid.c
    Set("struct_ops", "scx", {
        "scx_bpf_cid_override": IMPLICIT_ARGS | SLEEPABLE,
    }),
    # scx_kfunc_ids_cid, kernel/sched/ext/cid.c
    Set("struct_ops tracing syscall", "", {
        "scx_bpf_cid_to_cpu": IMPLICIT_ARGS,
        "scx_bpf_cpu_to_cid": IMPLICIT_ARGS,
        "scx_bpf_cid_topo": IMPLICIT_ARGS,
    }),
    # scx_kfunc_ids_enqueue_dispatch, kernel/sched/ext/ext.c
    Set("struct_ops", "scx", {
        "scx_bpf_dsq_insert": IMPLICIT_ARGS | RCU,
        "scx_bpf_dsq_insert___v2": IMPLICIT_ARGS | RCU,
        "__scx_bpf_dsq_insert_vtime": IMPLICIT_ARGS | RCU,
        "scx_bpf_dsq_insert_vtime": RCU,
    }),
    # scx_kfunc_ids_dispatch, kernel/sched/ext/ext.c
    Set("struct_ops", "scx", {
        "scx_bpf_dispatch_nr_slots": IMPLICIT_ARGS,
        "scx_bpf_dispatch_cancel": IMPLICIT_ARGS,
        "scx_bpf_dsq_move_to_local": IMPLICIT_ARGS,
        "scx_bpf_dsq_move_to_local___v2": IMPLICIT_ARGS,
        "scx_bpf_dsq_move_set_slice": RCU,
        "scx_bpf_dsq_move_set_vtime": RCU,
        "scx_bpf_dsq_move": RCU,
        "scx_bpf_dsq_move_vtime": RCU,
        "scx_bpf_sub_dispatch": IMPLICIT_ARGS,
    }),
    # scx_kfunc_ids_cpu_release, kernel/sched/ext/ext.c
    Set("struct_ops", "scx", {
        "scx_bpf_reenqueue_local": IMPLICIT_ARGS,
    }),
    # scx_kfunc_ids_unlocked, kernel/sched/ext/ext.c
    Set("struct_ops syscall", "scx", {
        "scx_bpf_create_dsq": IMPLICIT_ARGS | SLEEPABLE,
        "scx_bpf_dsq_move_set_slice": RCU,
        "scx_bpf_dsq_move_set_vtime": RCU,
        "scx_bpf_dsq_move": RCU,
        "scx_bpf_dsq_move_vtime": RCU,
        "__scx_bpf_select_cpu_and": IMPLICIT_ARGS | RCU,
        "scx_bpf_select_cpu_and": RCU,
        "scx_bpf_select_cpu_dfl": IMPLICIT_ARGS | RCU,
    }),
    # scx_kfunc_ids_any, kernel/sched/ext/ext.c
    Set("struct_ops tracing syscall", "scx", {
        "scx_bpf_task_set_slice": IMPLICIT_ARGS | RCU,
        "scx_bpf_task_set_dsq_vtime": IMPLICIT_ARGS | RCU,
        "scx_bpf_kick_cpu": IMPLICIT_ARGS,
        "scx_bpf_kick_cid": IMPLICIT_ARGS,
        "scx_bpf_dsq_nr_queued": IMPLICIT_ARGS,
        "scx_bpf_destroy_dsq": IMPLICIT_ARGS,
        "scx_bpf_dsq_peek": IMPLICIT_ARGS | RCU_PROTECTED | RET_NULL,
        "scx_bpf_dsq_reenq": IMPLICIT_ARGS,
        "scx_bpf_reenqueue_local___v2": IMPLICIT_ARGS,
        "bpf_iter_scx_dsq_new": IMPLICIT_ARGS | ITER_NEW | RCU_PROTECTED,
        "bpf_iter_scx_dsq_next": ITER_NEXT | RET_NULL,
        "bpf_iter_scx_dsq_destroy": ITER_DESTROY,
        "scx_bpf_exit_bstr": IMPLICIT_ARGS,
        "scx_bpf_error_bstr": IMPLICIT_ARGS,
        "scx_bpf_dump_bstr": IMPLICIT_ARGS,
        "scx_bpf_cpuperf_cap": IMPLICIT_ARGS,
        "scx_bpf_cpuperf_cur": IMPLICIT_ARGS,
        "scx_bpf_cpuperf_set": IMPLICIT_ARGS,
        "scx_bpf_cidperf_cap": IMPLICIT_ARGS,
        "scx_bpf_cidperf_cur": IMPLICIT_ARGS,
        "scx_bpf_cidperf_set": IMPLICIT_ARGS,
        "scx_bpf_online_cmask": IMPLICIT_ARGS | ARENA_RET,
        "scx_bpf_get_possible_cpumask": ACQUIRE,
        "scx_bpf_get_online_cpumask": ACQUIRE,
        "scx_bpf_put_cpumask": RELEASE,
        "scx_bpf_task_running": RCU,
        "scx_bpf_task_cpu": RCU,
        "scx_bpf_task_cid": RCU,
        "scx_bpf_locked_rq": IMPLICIT_ARGS | RET_NULL,
        "scx_bpf_cpu_curr": IMPLICIT_ARGS | RET_NULL | RCU_PROTECTED,
        "scx_bpf_cid_curr": IMPLICIT_ARGS | RET_NULL | RCU_PROTECTED,
        "scx_bpf_tid_to_task": RET_NULL | RCU_PROTECTED,
        "scx_bpf_events": IMPLICIT_ARGS,
        "scx_bpf_task_cgroup": IMPLICIT_ARGS | RCU | ACQUIRE,
        "scx_bpf_sub_grant": IMPLICIT_ARGS,
        "scx_bpf_sub_revoke": IMPLICIT_ARGS,
        "scx_bpf_sub_caps": IMPLICIT_ARGS,
        "scx_bpf_sub_kill_bstr": IMPLICIT_ARGS,
        **_plain(
            "scx_bpf_nr_node_ids scx_bpf_nr_cpu_ids scx_bpf_nr_cids scx_bpf_nr_online_cids "
            "scx_bpf_this_cid scx_bpf_now"
        ),
    }),
    # scx_kfunc_ids_idle, kernel/sched/ext/idle.c
    Set("struct_ops tracing syscall", "scx", {
        "scx_bpf_cpu_node": IMPLICIT_ARGS,
        "scx_bpf_get_idle_cpumask_node": IMPLICIT_ARGS | ACQUIRE,
        "scx_bpf_get_idle_cpumask": IMPLICIT_ARGS | ACQUIRE,
        "scx_bpf_get_idle_smtmask_node": IMPLICIT_ARGS | ACQUIRE,
        "scx_bpf_get_idle_smtmask": IMPLICIT_ARGS | ACQUIRE,
        "scx_bpf_put_idle_cpumask": RELEASE,
        "scx_bpf_test_and_clear_cpu_idle": IMPLICIT_ARGS,
        "scx_bpf_pick_idle_cpu_node": IMPLICIT_ARGS | RCU,
        "scx_bpf_pick_idle_cpu": IMPLICIT_ARGS | RCU,
        "scx_bpf_pick_any_cpu_node": IMPLICIT_ARGS | RCU,
        "scx_bpf_pick_any_cpu": IMPLICIT_ARGS | RCU,
    }),
    # scx_kfunc_ids_select_cpu, kernel/sched/ext/idle.c
    Set("struct_ops syscall", "scx", {
        "__scx_bpf_select_cpu_and": IMPLICIT_ARGS | RCU,
        "scx_bpf_select_cpu_and": RCU,
        "scx_bpf_select_cpu_dfl": IMPLICIT_ARGS | RCU,
    }),
    # io_uring_kfunc_set, io_uring/bpf-ops.c
    Set("struct_ops", "", {
        "bpf_io_uring_submit_sqes": SLEEPABLE,
        "bpf_io_uring_get_region": RET_NULL,
    }),
    # hid_bpf_kfunc_ids, drivers/hid/bpf/hid_bpf_dispatch.c
    Set("struct_ops", "", {
        "hid_bpf_get_data": RET_NULL,
        "hid_bpf_allocate_context": ACQUIRE | RET_NULL | SLEEPABLE,
        "hid_bpf_release_context": RELEASE | SLEEPABLE,
        "hid_bpf_hw_request": SLEEPABLE,
        "hid_bpf_hw_output_report": SLEEPABLE,
        "hid_bpf_input_report": SLEEPABLE,
        **_plain("hid_bpf_try_input_report"),
    }),
    # hid_bpf_syscall_kfunc_ids, drivers/hid/bpf/hid_bpf_dispatch.c
    Set("syscall", "", {
        "hid_bpf_allocate_context": ACQUIRE | RET_NULL | SLEEPABLE,
        "hid_bpf_release_context": RELEASE | SLEEPABLE,
        "hid_bpf_hw_request": SLEEPABLE,
        "hid_bpf_hw_output_report": SLEEPABLE,
        "hid_bpf_input_report": SLEEPABLE,
    }),
    # wakeup_source_kfunc_ids, drivers/base/power/wakeup.c
    Set("syscall", "", {
        "bpf_wakeup_sources_read_lock": ACQUIRE,
        "bpf_wakeup_sources_read_unlock": RELEASE,
        **_plain("bpf_wakeup_sources_get_head"),
    }),)
# fmt: on

_SESSIONS = ("trace_kprobe_session", "trace_uprobe_session")


def _filtered(name: str, program: Program) -> bool | None:
    """Say whether the filter *name* lets *program* through; None: not known."""
    match name:
        case "session":
            if program.type == "kprobe":
                return program.attach_type in _SESSIONS
            return program.type == "tracing" and program.attach_type.startswith("trace_fsession")
        case "iter":
            return program.attach_type == "trace_iter"
        case "lsm":
            return program.type == "lsm"
        case "ksock":
            return program.type == "syscall" or (
                program.type == "lsm" and program.attach != "socket_sendmsg"
            )
        case "scx" if program.type != "struct_ops":
            return True
        case "":
            return True
    return None


_BY_NAME: dict[str, list[Set]] = {}
for _set in SETS:
    for _name in _set.flags:
        _BY_NAME.setdefault(_name, []).append(_set)


def flags_of(name: str, program: Program) -> int | None:
    """Return the flags of a function as *program* sees it (``btf_kfunc_flags``).

    None: it is in no set where the program looks.
    """
    hook = HOOKS.get(program.type, "none")
    for wanted in ("common", hook):
        for found in _BY_NAME.get(name, ()):
            if wanted in found.hooks.split():
                return found.flags[name]
    return None


def is_metadata(name: str) -> bool:
    """Say whether only programs bound to a device may call it (``bpf_dev_bound_kfunc_id``)."""
    return any(found.filter == "dev_bound" for found in _BY_NAME.get(name, ()))


def may_call(name: str, program: Program) -> bool | None:
    """Say whether *program* may call a function (``btf_kfunc_is_allowed``); None: not known."""
    hook = HOOKS.get(program.type, "none")
    answers = [
        _filtered(found.filter, program)
        for found in _BY_NAME.get(name, ())
        if {"common", hook} & set(found.hooks.split())
    ]
    if True in answers:
        return True
    return None if None in answers else False
