"""Maps: which helpers take which, which programs may use them, where their values are.

``check_map_func_compatibility``, ``check_map_prog_compatibility``, ``__add_used_map``,
``map_direct_value_addr`` of the map types and ``bpf_insn_array_init`` of Linux 7.3.4.
"""

from __future__ import annotations

import struct

from harness.isa.insn import LoadImm
from harness.model import MapDef
from harness.verifier import records
from harness.verifier.env import Env, NotModelled, Refused
from harness.verifier.helpers import helper_name

# fmt: off
# Types                                            enum bpf_map_type
HASH, ARRAY, PROG_ARRAY, PERF_EVENT_ARRAY, PERCPU_HASH, PERCPU_ARRAY = range(1, 7)
(STACK_TRACE, CGROUP_ARRAY, LRU_HASH, LRU_PERCPU_HASH, LPM_TRIE, ARRAY_OF_MAPS, HASH_OF_MAPS,
 DEVMAP, SOCKMAP, CPUMAP, XSKMAP, SOCKHASH, CGROUP_STORAGE, REUSEPORT_SOCKARRAY,
 PERCPU_CGROUP_STORAGE, QUEUE, STACK, SK_STORAGE, DEVMAP_HASH, STRUCT_OPS, RINGBUF,
 INODE_STORAGE, TASK_STORAGE, BLOOM_FILTER, USER_RINGBUF, CGRP_STORAGE, ARENA, INSN_ARRAY,
 RHASH) = range(7, 36)

RDONLY_PROG, WRONLY_PROG, INNER_MAP = 1 << 7, 1 << 8, 1 << 12  # flags

# The struct of the kernel that a map is              map_btf_id
_ARRAYS = {ARRAY, PROG_ARRAY, PERF_EVENT_ARRAY, PERCPU_ARRAY, CGROUP_ARRAY, ARRAY_OF_MAPS}
_HASHES = {HASH, PERCPU_HASH, LRU_HASH, LRU_PERCPU_HASH, HASH_OF_MAPS}
_STORAGES = {SK_STORAGE, INODE_STORAGE, TASK_STORAGE, CGRP_STORAGE}
STRUCTS = {
    **dict.fromkeys(_ARRAYS, "bpf_array"), **dict.fromkeys(_HASHES, "bpf_htab"),
    **dict.fromkeys(_STORAGES, "bpf_local_storage_map"),
    STACK_TRACE: "bpf_stack_map", LPM_TRIE: "lpm_trie", DEVMAP: "bpf_dtab",
    DEVMAP_HASH: "bpf_dtab", SOCKMAP: "bpf_stab", SOCKHASH: "bpf_shtab", CPUMAP: "bpf_cpu_map",
    XSKMAP: "xsk_map", CGROUP_STORAGE: "bpf_cgroup_storage_map",
    PERCPU_CGROUP_STORAGE: "bpf_cgroup_storage_map", REUSEPORT_SOCKARRAY: "reuseport_array",
    QUEUE: "bpf_queue_stack", STACK: "bpf_queue_stack", RINGBUF: "bpf_ringbuf_map",
    USER_RINGBUF: "bpf_ringbuf_map", BLOOM_FILTER: "bpf_bloom_filter", ARENA: "bpf_arena",
    INSN_ARRAY: "bpf_insn_array", RHASH: "bpf_rhtab",
}

_REDIRECT, _LOOKUP, _KPTR_XCHG = 51, 1, 194
_RING = frozenset({130, 131, 134, 198, 199, 200})
_SOCKETS = {SOCKMAP: {52, 53, 60, 82, _LOOKUP}, SOCKHASH: {70, 71, 72, 82, _LOOKUP}}
# What a map of a type may be passed to            check_map_func_compatibility
_HELPERS = {
    PROG_ARRAY:            {12},
    PERF_EVENT_ARRAY:      {22, 25, 55, 111, 121},
    RINGBUF:               _RING,
    USER_RINGBUF:          {209},
    STACK_TRACE:           {27},
    CGROUP_ARRAY:          {33, 37},
    CGROUP_STORAGE:        {81},
    PERCPU_CGROUP_STORAGE: {81},
    DEVMAP:                {_REDIRECT, _LOOKUP},
    DEVMAP_HASH:           {_REDIRECT, _LOOKUP},
    CPUMAP:                {_REDIRECT},
    XSKMAP:                {_REDIRECT, _LOOKUP},
    ARRAY_OF_MAPS:         {_LOOKUP},
    HASH_OF_MAPS:          {_LOOKUP},
    REUSEPORT_SOCKARRAY:   {82},
    QUEUE:                 {87, 88, 89},
    STACK:                 {87, 88, 89},
    SK_STORAGE:            {107, 108, _KPTR_XCHG},
    INODE_STORAGE:         {145, 146, _KPTR_XCHG},
    TASK_STORAGE:          {156, 157, _KPTR_XCHG},
    CGRP_STORAGE:          {210, 211, _KPTR_XCHG},
    BLOOM_FILTER:          {87, 89},
    INSN_ARRAY:            frozenset[int](),
}
# What a helper may be given
_TYPES = {
    12: {PROG_ARRAY},
    **{number: frozenset({PERF_EVENT_ARRAY}) for number in (22, 25, 55, 111, 121)},
    **{number: frozenset({RINGBUF}) for number in _RING},
    209: {USER_RINGBUF},
    27: {STACK_TRACE},
    33: {CGROUP_ARRAY}, 37: {CGROUP_ARRAY},
    _REDIRECT: {DEVMAP, DEVMAP_HASH, CPUMAP, XSKMAP},
    52: {SOCKMAP}, 60: {SOCKMAP}, 53: {SOCKMAP},
    72: {SOCKHASH}, 71: {SOCKHASH}, 70: {SOCKHASH},
    81: {CGROUP_STORAGE, PERCPU_CGROUP_STORAGE},
    82: {REUSEPORT_SOCKARRAY, SOCKMAP, SOCKHASH},
    88: {QUEUE, STACK},
    87: {QUEUE, STACK, BLOOM_FILTER}, 89: {QUEUE, STACK, BLOOM_FILTER},
    195: {PERCPU_ARRAY, PERCPU_HASH, LRU_PERCPU_HASH},
    107: {SK_STORAGE}, 108: {SK_STORAGE},
    145: {INODE_STORAGE}, 146: {INODE_STORAGE},
    156: {TASK_STORAGE}, 157: {TASK_STORAGE},
    210: {CGRP_STORAGE}, 211: {CGRP_STORAGE},
}
_SLEEPABLE = frozenset({
    HASH, RHASH, LRU_HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH, LPM_TRIE,
    ARRAY_OF_MAPS, HASH_OF_MAPS, RINGBUF, USER_RINGBUF, INODE_STORAGE, SK_STORAGE,
    TASK_STORAGE, CGRP_STORAGE, QUEUE, STACK, ARENA, INSN_ARRAY, PROG_ARRAY,
})
WITH_CALLBACK = frozenset({       # map_for_each_callback
    HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY, LRU_HASH, LRU_PERCPU_HASH, RHASH,
})
_TRACING = frozenset({            # is_tracing_prog_type
    "kprobe", "tracepoint", "perf_event", "raw_tracepoint", "raw_tracepoint_writable",
})
# fmt: on
_MAX_MAPS = 64  # MAX_USED_MAPS


def is_tracing(env: Env) -> bool:
    """Say whether the program may run anywhere, in an NMI too (``is_tracing_prog_type``)."""
    return env.program.type in _TRACING


def may_elide_null(found: MapDef) -> bool:
    """``can_elide_value_nullness``."""
    return not found.flags & INNER_MAP and found.type in (ARRAY, PERCPU_ARRAY)


def read_only(found: MapDef) -> bool:
    """Say whether programs may not write to a map: device maps are so by themselves."""
    return bool(found.readonly or found.flags & RDONLY_PROG or found.type in (DEVMAP, DEVMAP_HASH))


def check_helper(env: Env, found: MapDef, number: int) -> None:
    """Refuse a map that a helper does not take (``check_map_func_compatibility``)."""
    wrong = f"cannot pass map_type {found.type} into func {helper_name(number)}#{number}"
    kind = found.type
    if kind in _SOCKETS:
        if number not in _SOCKETS[kind] and not _may_update(env, number):
            updates = number in (2, 3)
            env.refuse(f"cannot update sockmap in this context\n{wrong}" if updates else wrong)
    elif kind in _HELPERS and number not in _HELPERS[kind]:
        env.refuse(wrong)
    if kind not in _TYPES.get(number, {kind}):
        env.refuse(wrong)
    if number == 12 and len(env.subs) > 1 and not env.options.jit:
        env.refuse("mixing of tail_calls and bpf-to-bpf calls is not supported")


def _may_update(env: Env, number: int) -> bool:
    """``may_update_sockmap``."""
    if number not in (2, 3):
        return False
    match env.program.type:
        case "tracing":
            return env.program.attach_type == "trace_iter"
        case "sock_ops":
            return number == 3
        case "sk_reuseport" | "sk_lookup":
            return True
    return False


# --- programs ----------------------------------------------------------------------------


def use(env: Env, found: MapDef, at: int) -> None:
    """Let the program have a map, or not (``__add_used_map``)."""
    if any(found is one for one in env.used_maps):
        return
    if len(env.used_maps) >= _MAX_MAPS:
        raise Refused(
            f"The total number of maps per program has reached the limit of {_MAX_MAPS}", at
        )
    wrong = _unfit(env, found)
    if wrong is not None:
        raise Refused(wrong, at)
    env.used_maps.append(found)
    if found.type == INSN_ARRAY and not _fits(env, found):
        raise Refused("Failed to properly initialize insn array", at)


def _unfit(env: Env, found: MapDef) -> str | None:
    """``check_map_prog_compatibility``."""
    record = records.of_map(env, found)
    kind = env.program.type
    if record is not None:
        if record.has(*records.ROOTS) and is_tracing(env):
            return "tracing progs cannot use bpf_{list_head,rb_root} yet"
        if record.has(*records.LOCKS) and kind == "socket_filter":
            return "socket filter progs cannot use bpf_spin_lock yet"
        if record.has("bpf_spin_lock") and is_tracing(env):
            return "tracing progs cannot use bpf_spin_lock yet"
    if found.type == STRUCT_OPS:
        return "bpf_struct_ops map cannot be used in prog"
    if (env.program.sleepable or kind == "syscall") and found.type not in _SLEEPABLE:
        return "Sleepable programs can only use array, hash, ringbuf and local storage maps"
    types = [one.type for one in env.used_maps]
    if found.type in (CGROUP_STORAGE, PERCPU_CGROUP_STORAGE) and found.type in types:
        return "only one cgroup storage of each type is allowed"
    if found.type == ARENA:
        if ARENA in types:
            return "Only one arena per program"
        if not env.options.jit:
            return "JIT is required to use arena"
    return None


# --- values -------------------------------------------------------------------------------


def direct_value(found: MapDef, off: int) -> str | None:
    """Return why *off* bytes into a map's values have no address, None: they do.

    ``map_direct_value_addr``.
    """
    kind = found.type
    if kind == ARENA:
        wrong = off >> 32 > 0 or off >= found.max_entries * 4096
    elif kind == INSN_ARRAY:
        wrong = off % 8 != 0 or off // 8 >= found.max_entries
    elif kind in (ARRAY, PERCPU_ARRAY):
        wrong = found.max_entries != 1 or off >= found.value_size
    else:
        return "no direct value access support for this map type"
    if wrong:
        return f"invalid access to map value pointer, value_size={found.value_size} off={off}"
    return None


def frozen(found: MapDef) -> bool:
    """Say whether the contents are known and stay as they are (``bpf_map_is_rdonly``).

    libbpf freezes the maps of sections only, whose contents it has.
    """
    return found.readonly and found.data is not None


def value_size(found: MapDef) -> int:
    """Return how many bytes a pointer to a value reaches (``map_mem_size``)."""
    return found.max_entries * 8 if found.type == INSN_ARRAY else found.value_size


def targets(found: MapDef) -> tuple[int, ...]:
    """Return the slots that an array of instructions names, in its order."""
    data = found.data
    if data is None or len(data) < found.max_entries * 16:
        raise NotModelled("an instruction array without contents")
    return tuple(slot for slot, *_ in struct.iter_unpack("<IIII", data[: found.max_entries * 16]))


def _fits(env: Env, found: MapDef) -> bool:
    """``bpf_insn_array_init``, of a frozen map."""
    return all(
        slot < env.count and not (slot and isinstance(env.insns[slot - 1], LoadImm))
        for slot in targets(found)
    )
