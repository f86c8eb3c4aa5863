"""Helpers: their prototypes and who may call them (``struct bpf_func_proto``, Linux 7.3.4).

A helper that is not in ``PROTOTYPES`` is not modelled. Argument types are words: see
``call.py``. Flags follow a ``|``.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.isa.helpers import HELPERS

# fmt: off
SYNC_CALLBACKS  = frozenset({164, 180, 181, 209})  # is_sync_callback_calling_function
ASYNC_CALLBACKS = frozenset({170})                 # timer_set_callback
MIGHT_SLEEP     = frozenset({148, 161, 166, 167, 168, 191, 193})
CHANGES_PACKET  = frozenset({                      # bpf_helper_changes_pkt_data
    9, 10, 11, 12, 13, 18, 19, 31, 38, 39, 43, 44, 50, 54, 63, 65, 73, 74, 75, 76, 90, 91,
    143,
})
MAX_HELPER = max(HELPERS)


@dataclass(frozen=True, slots=True)
class Prototype:
    """What a helper takes and gives."""

    name: str
    returns: str                 # "integer", "void", "map_value", "mem"; null, ringbuf
    args: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()  # bytes of "fixed_mem" arguments, in order
    packet: bool = False         # memory arguments may be packet data (pkt_access)
    fastcall: bool = False       # allow_fastcall


def _p(name: str, returns: str, *args: str, packet: bool = False, fastcall: bool = False,
       sizes: tuple[int, ...] = ()) -> Prototype:
    return Prototype(name, returns, args, sizes, packet, fastcall)


# Where they are                   kernel/bpf/helpers.c, kernel/trace/bpf_trace.c
PROTOTYPES = {
    1:   _p("map_lookup_elem", "map_value|null", "map", "map_key", packet=True),
    2:   _p("map_update_elem", "integer", "map", "map_key", "map_value", "anything", packet=True),
    3:   _p("map_delete_elem", "integer", "map", "map_key", packet=True),
    5:   _p("ktime_get_ns", "integer"),
    6:   _p("trace_printk", "integer", "mem|rdonly", "size"),
    7:   _p("get_prandom_u32", "integer"),
    8:   _p("get_smp_processor_id", "integer", fastcall=True),
    12:  _p("tail_call", "void", "ctx", "map", "anything"),
    14:  _p("get_current_pid_tgid", "integer"),
    15:  _p("get_current_uid_gid", "integer"),
    16:  _p("get_current_comm", "integer", "mem|uninit|write", "size"),
    35:  _p("get_current_task", "integer"),
    42:  _p("get_numa_node_id", "integer"),
    45:  _p("probe_read_str", "integer", "mem|uninit|write", "size_or_zero", "anything"),
    4:   _p("probe_read", "integer", "mem|uninit|write", "size_or_zero", "anything"),
    80:  _p("get_current_cgroup_id", "integer"),
    87:  _p("map_push_elem", "integer", "map", "map_value", "anything", packet=True),
    88:  _p("map_pop_elem", "integer", "map", "map_value|uninit|write"),
    89:  _p("map_peek_elem", "integer", "map", "map_value|uninit|write"),
    105: _p("strtol", "integer", "mem|rdonly", "size", "anything",
            "fixed_mem|uninit|write|aligned", sizes=(8,)),
    106: _p("strtoul", "integer", "mem|rdonly", "size", "anything",
            "fixed_mem|uninit|write|aligned", sizes=(8,)),
    112: _p("probe_read_user", "integer", "mem|uninit|write", "size_or_zero", "anything"),
    113: _p("probe_read_kernel", "integer", "mem|uninit|write", "size_or_zero", "anything"),
    114: _p("probe_read_user_str", "integer", "mem|uninit|write", "size_or_zero", "anything"),
    115: _p("probe_read_kernel_str", "integer", "mem|uninit|write", "size_or_zero", "anything"),
    118: _p("jiffies64", "integer"),
    120: _p("get_ns_current_pid_tgid", "integer", "anything", "anything", "mem|uninit|write",
            "size"),
    123: _p("get_current_ancestor_cgroup_id", "integer", "anything"),
    125: _p("ktime_get_boot_ns", "integer"),
    160: _p("ktime_get_coarse_ns", "integer"),
    81:  _p("get_local_storage", "map_value", "map", "anything"),
    93:  _p("spin_lock", "void", "spin_lock"),
    94:  _p("spin_unlock", "void", "spin_lock"),
    131: _p("ringbuf_reserve", "mem|null|ringbuf", "map", "alloc_size", "anything"),
    132: _p("ringbuf_submit", "void", "ringbuf_mem|release", "anything"),
    133: _p("ringbuf_discard", "void", "ringbuf_mem|release", "anything"),
    165: _p("snprintf", "integer", "mem|null|write", "size_or_zero", "const_str",
            "mem|null|rdonly", "size_or_zero"),
    169: _p("timer_init", "integer", "timer", "map", "anything"),
    170: _p("timer_set_callback", "integer", "timer", "func"),
    171: _p("timer_start", "integer", "timer", "anything", "anything"),
    172: _p("timer_cancel", "integer", "timer"),
    195: _p("map_lookup_percpu_elem", "map_value|null", "map", "map_key", "anything",
            packet=True),
    197: _p("dynptr_from_mem", "integer", "mem|uninit|write", "size_or_zero", "anything",
            "dynptr|local|uninit|write"),
    198: _p("ringbuf_reserve_dynptr", "integer", "map", "anything", "anything",
            "dynptr|ringbuf|uninit|write"),
    199: _p("ringbuf_submit_dynptr", "void", "dynptr|ringbuf|release", "anything"),
    200: _p("ringbuf_discard_dynptr", "void", "dynptr|ringbuf|release", "anything"),
    201: _p("dynptr_read", "integer", "mem|uninit|write", "size_or_zero", "dynptr", "anything",
            "anything"),
    202: _p("dynptr_write", "integer", "dynptr", "anything", "mem|rdonly", "size_or_zero",
            "anything"),
    203: _p("dynptr_data", "mem|null", "dynptr", "anything", "alloc_size"),
    209: _p("user_ringbuf_drain", "integer", "map", "func", "stack_or_null", "anything"),
    130: _p("ringbuf_output", "integer", "map", "mem|rdonly", "size_or_zero", "anything"),
    134: _p("ringbuf_query", "integer", "map", "anything"),
    164: _p("for_each_map_elem", "integer", "map", "func", "stack_or_null", "anything"),
    177: _p("trace_vprintk", "integer", "mem|rdonly", "size", "mem|null|rdonly", "size_or_zero"),
    181: _p("loop", "integer", "scalar", "func", "stack_or_null", "anything"),
    182: _p("strncmp", "integer", "mem|rdonly", "size", "const_str"),
    208: _p("ktime_get_tai_ns", "integer"),
}

# Which programs may call them      bpf_base_func_proto, with CAP_BPF and CAP_PERFMON
BASE = frozenset({
    1, 2, 3, 5, 6, 7, 8, 12, 14, 15, 16, 35, 42, 80, 87, 88, 89, 93, 94, 105, 106, 112, 113,
    114, 115, 118, 120, 123, 125, 130, 131, 132, 133, 134, 148, 149, 153, 154, 156, 157, 158,
    164, 165, 169, 170, 171, 172, 175, 176, 177, 180, 181, 182, 191, 194, 195, 197, 198, 199,
    200, 201, 202, 203, 208, 209, 210, 211, 17, 22, 37, 55, 109, 117, 141,
})
_TRACING = BASE | {4, 36, 45, 173}  # bpf_tracing_func_proto

# Everything a type may call; a type that is not here may call BASE and others not listed.
CALLABLE = {
    "syscall": _TRACING | {
        46, 107, 108, 111, 121, 136, 137, 138, 139, 140, 147, 162, 166, 167, 168, 178, 179,
        188, 196,
    },
    "kprobe": _TRACING | {25, 27, 58, 67, 174},
}
# fmt: on


def may_call(program_type: str, number: int) -> bool | None:
    """Say whether a program may call the helper; None: not known."""
    callable_ = CALLABLE.get(program_type)
    if callable_ is not None:
        return number in callable_
    return True if number in BASE else None


def helper_name(number: int) -> str:
    """Return the helper's name as messages write it (``func_id_name``)."""
    return HELPERS.get(number, "unknown")
