"""What tracing and lsm programs attach to: facts of Linux 7.3.4 by name.

The sets of kernel/bpf/bpf_lsm.c, ``raw_tp_null_args`` of btf.c, the sets of verifier.c
that ``check_attach_btf_id`` asks, and the iterators that ``bpf_iter_reg_target`` is called
for.
"""

from __future__ import annotations

from harness.verifier.state import BTF_ID, BUF, MAYBE_NULL, MEM_RDONLY, TRUSTED


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# fmt: off
# Hooks of the kernel's security modules, without bpf_lsm_
DISABLED_HOOKS = _names(
    "vm_enough_memory inode_need_killpriv inode_getsecurity inode_listsecurity "
    "inode_copy_up_xattr getselfattr getprocattr setprocattr key_getsecurity audit_rule_match "
    "xfrm_decode_session ismaclabel file_alloc_security"
)
SLEEPABLE_HOOKS = _names(
    "bpf bpf_map bpf_map_create bpf_map_free bpf_prog bpf_prog_load bpf_token_create "
    "bpf_token_free bpf_token_cmd bpf_token_capable bprm_check_security bprm_committed_creds "
    "bprm_committing_creds bprm_creds_for_exec bprm_creds_from_file capget capset cred_prepare "
    "file_ioctl file_lock file_open file_post_open file_receive inode_create "
    "inode_free_security inode_getattr inode_getxattr inode_mknod inode_need_killpriv "
    "inode_post_setxattr inode_post_removexattr inode_readlink inode_removexattr inode_rename "
    "inode_rmdir inode_setattr inode_setxattr inode_symlink inode_unlink kernel_module_request "
    "kernel_read_file kernfs_init_security path_unlink path_mkdir path_rmdir path_truncate "
    "path_symlink path_link path_rename path_chmod path_chown mmap_file netlink_send "
    "path_notify release_secctx sb_alloc_security sb_eat_lsm_opts sb_kern_mount sb_mount "
    "sb_remount sb_set_mnt_opts sb_show_options sb_statfs sb_umount settime socket_accept "
    "socket_bind socket_connect socket_create socket_getpeername socket_getpeersec_dgram "
    "socket_getsockname socket_getsockopt socket_listen socket_post_create socket_recvmsg "
    "socket_sendmsg socket_shutdown socket_socketpair syslog task_alloc task_prctl "
    "task_setscheduler userns_create bdev_alloc_security bdev_setintegrity"
)
UNTRUSTED_HOOKS = _names(
    "bpf_map_free bpf_prog_free file_alloc_security file_free_security sk_alloc_security "
    "sk_free_security task_free bdev_alloc_security bdev_free_security"
)
BOOLEAN_HOOKS = _names(
    "xfrm_state_pol_flow_match audit_rule_known inode_xattr_skipcap"
)
# Hooks in which bpf_setsockopt may be called: with the socket locked, or not yet in use
SOCKOPT_HOOKS = _names(
    "sock_graft inet_csk_clone inet_conn_established socket_post_create socket_socketpair"
)
# Functions in which bpf_d_path may be called      btf_allowlist_d_path
D_PATH = _names(
    "security_file_permission security_inode_getattr security_file_open security_path_truncate "
    "vfs_truncate vfs_fallocate dentry_open vfs_getattr filp_close"
)
# Functions of such a name that are no hooks
NO_HOOKS = _names(
    "get_retval_range find_cgroup_shim is_sleepable_hook has_d_inode_locked verify_prog "
    "is_trusted init func_proto hook_returns_errno"
)

# Functions that no tracing program may watch       btf_id_deny
DENIED = _names(
    "___migrate_enable migrate_disable migrate_enable rcu_read_unlock_strict preempt_count_add "
    "preempt_count_sub __rcu_read_lock __rcu_read_unlock"
)
# Functions that do not return                      noreturn_deny
NO_RETURN = _names(
    "__ia32_sys_exit __ia32_sys_exit_group __kunit_abort kunit_try_catch_throw "
    "__module_put_and_kthread_exit __x64_sys_exit __x64_sys_exit_group do_exit do_group_exit "
    "kthread_complete_and_exit make_task_dead"
)
# Tracepoints that may fault                        tracepoint_is_faultable
FAULTABLE = frozenset({"sys_enter", "sys_exit"})

# Arguments of tracepoints: of the bits four by four, 1 may be NULL, 2 may be an error
_NULL_ARGS = {
    0x0: "bpf_testmod_test_read",
    0x1: (
        "sched_process_wait afs_protocol_error cachefiles_unlink cachefiles_rename "
        "cachefiles_prep_read cachefiles_mark_active cachefiles_mark_failed "
        "cachefiles_mark_inactive cachefiles_vfs_error cachefiles_io_error "
        "mm_collapse_huge_page_isolate mm_page_alloc mm_page_pcpu_drain "
        "mm_page_alloc_zone_locked rxrpc_recvdata rxrpc_client xs_stream_read_data "
        "tmigr_update_events amdgpu_vm_bo_map amdgpu_vm_bo_unmap netfs_folioq "
        "xfs_defer_create_intent xfs_defer_cancel_list xfs_defer_pending_finish "
        "xfs_defer_pending_abort xfs_defer_relog_intent xfs_defer_isolate_paused "
        "xfs_defer_item_pause xfs_defer_item_unpause xfs_defer_add_item "
        "xfs_defer_cancel_item xfs_defer_finish_item xfs_inodegc_flush xfs_inodegc_push "
        "xfs_inodegc_start xfs_inodegc_stop xfs_inodegc_queue xfs_inodegc_throttle "
        "xfs_fs_sync_fs xfs_blockgc_start xfs_blockgc_stop xfs_blockgc_worker "
        "xfs_blockgc_flush_all nfsd_dirent nfsd_file_insert_err nfsd_file_cons_err "
        "nfs4_setup_sequence"
    ),
    0x10: (
        "sched_pi_setprio afs_make_fs_call afs_make_fs_calli afs_make_fs_call1 "
        "afs_make_fs_call2 afs_flock_ev ext4_mballoc_discard ext4_mballoc_free "
        "posix_lock_inode fcntl_setlk locks_remove_posix flock_lock_inode "
        "break_lease_noblock break_lease_block break_lease_unblock generic_delete_lease "
        "time_out_leases mm_khugepaged_scan_pmd mm_khugepaged_scan_file "
        "mm_khugepaged_collapse_file netfs_failure device_pm_callback_start rxrpc_resend "
        "rxrpc_tq xprt_reserve_cong xprt_release_cong xprt_get_cong xprt_put_cong "
        "writeback_dirty_folio folio_wait_writeback xfs_ioc_free_eofblocks "
        "xfs_blockgc_free_space xchk_nlinks_live_update coda_dec_pic_run coda_dec_pic_done "
        "rdev_set_coalesce wiphy_work_queue wiphy_work_run wiphy_work_cancel "
        "wiphy_work_flush hugetlbfs_alloc_inode spufs_context neigh_update"
    ),
    0x11: "tcp_send_reset cfg80211_scan_done",
    0x20: "signal_generate signal_deliver",
    0x100: (
        "sched_stick_numa sched_swap_numa fib_table_lookup tcp_sendmsg_locked "
        "tegra_dma_tx_status xfs_btree_updkeys xfs_btree_overlapped_query_range "
        "xchk_metapath_lookup cfg80211_report_wowlan_wakeup cfg80211_inform_bss_frame "
        "kvm_page_fault_enter dpu_crtc_setup_mixer binder_transaction btree_path_free "
        "amdtp_packet"
    ),
    0x200: "nfs4_inode_callback_event nfs4_inode_stateid_callback_event",
    0x201: "cachefiles_lookup",
    0x1000: (
        "qdisc_dequeue kfree_skb xfs_iomap_alloc xfs_iomap_found hfi1_sdma_progress "
        "iptfs_ingress_postq_event"
    ),
    0x1001: "nfsd_file_acquire",
    0x2000: "mr_integ_alloc",
    0x10000: (
        "host1x_cdma_push_gather xfs_map_blocks_found xfs_map_blocks_alloc "
        "pnfs_update_layout pnfs_mds_fallback_pg_init_read pnfs_mds_fallback_pg_init_write "
        "pnfs_mds_fallback_pg_get_mirror_count pnfs_mds_fallback_read_done "
        "pnfs_mds_fallback_write_done pnfs_mds_fallback_read_pagelist "
        "pnfs_mds_fallback_write_pagelist cfg80211_michael_mic_failure"
    ),
}
NULL_ARGS = {name: mask for mask, names in _NULL_ARGS.items() for name in names.split()}

# Iterators: what their programs' arguments are, beside bpf_iter_meta   ctx_arg_info
_OR_NULL = BTF_ID | MAYBE_NULL
ITERATORS = {
    "ksym":               {"ksym": _OR_NULL},
    "bpf_prog":           {"prog": _OR_NULL},
    "cgroup":             {"cgroup": _OR_NULL | TRUSTED},
    "kmem_cache":         {"s": _OR_NULL | TRUSTED},
    "task":               {"task": _OR_NULL | TRUSTED},
    "task_file":          {"task": _OR_NULL, "file": _OR_NULL},
    "task_vma":           {"task": _OR_NULL, "vma": _OR_NULL},
    "bpf_map":            {"map": _OR_NULL | TRUSTED},
    "bpf_map_elem":       {"key": BUF | MAYBE_NULL | MEM_RDONLY, "value": BUF | MAYBE_NULL},
    "dmabuf":             {"dmabuf": _OR_NULL},
    "bpf_link":           {"link": _OR_NULL},
    "netlink":            {"sk": _OR_NULL},
    "ipv6_route":         {"rt": _OR_NULL},
    "sockmap":            {"key": BUF | MAYBE_NULL | MEM_RDONLY, "sk": _OR_NULL},
    "bpf_sk_storage_map": {"sk": _OR_NULL, "value": BUF | MAYBE_NULL},
    "unix":               {"unix_sk": _OR_NULL},
    "tcp":                {"sk_common": _OR_NULL | TRUSTED},
    "udp":                {"udp_sk": _OR_NULL | TRUSTED},
}
# fmt: on
