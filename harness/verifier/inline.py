"""What calls of helpers become: instructions in their place, or calls of what does the work.

``bpf_do_misc_fixups`` (fixups.c), ``map_gen_lookup`` of the maps (arraymap.c, hashtab.c,
xskmap.c) of Linux 7.3.4 on x86-64. The tables read like the places that fill them in.
"""

from __future__ import annotations

from harness.isa.insn import (
    Alu,
    Atomic,
    Call,
    Goto,
    High,
    Insn,
    Jump,
    Load,
    LoadImm,
    PercpuAddr,
    Store,
    StoreImm,
    signed32,
)
from harness.model import MapDef
from harness.verifier.env import CallMarks, Env, NotModelled
from harness.verifier.kernel_layout import Layout
from harness.verifier.rewrite import HEAP, Patch, Slot

ENOENT, E2BIG, EINVAL, EOPNOTSUPP = 2, 7, 22, 95
_INNER_MAP = 1 << 12  # BPF_F_INNER_MAP


# fmt: off
_NO_MARKS = CallMarks()


class _Map:
    """Types of maps (include/uapi/linux/bpf.h)."""

    HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY = 1, 2, 5, 6
    LRU_HASH, ARRAY_OF_MAPS, HASH_OF_MAPS, XSKMAP, RHASH = 9, 12, 13, 17, 35


class _Helper:
    """Numbers of helpers (include/uapi/linux/bpf.h)."""

    LOOKUP, SMP_PROCESSOR_ID, CURRENT_TASK, CURRENT_TASK_BTF = 1, 8, 35, 158
    JIFFIES64, TIMER_SET_CALLBACK, KPTR_XCHG = 118, 170, 194
    FUNC_IP, BRANCH_SNAPSHOT, FUNC_ARG, FUNC_RET, FUNC_ARG_CNT = 173, 176, 183, 184, 185
# fmt: on


def call_patch(env: Env, slot: Slot, call: Call, layout: Layout) -> Patch | None:
    """Return what stands for *call* of a helper, None: itself, though maybe elsewhere."""
    if env.call_marks.get(slot.at, _NO_MARKS).percpu_object:
        return Patch(Load(8, 1, 1, 0), call)
    match call.imm:
        case _Helper.TIMER_SET_CALLBACK:
            return Patch(LoadImm(3, 0, 0), High(), call, symbols={0: HEAP + "prog aux"})
        case _Helper.LOOKUP:
            found = env.map_calls.get(slot.at)
            return lookup(found, layout) if found is not None else None
        case _Helper.JIFFIES64:
            return Patch(LoadImm(0, 0, 0), High(), Load(8, 0, 0, 0), symbols={0: "jiffies"})
        case _Helper.SMP_PROCESSOR_ID:
            return _this_cpu("cpu_number", 4)
        case _Helper.CURRENT_TASK | _Helper.CURRENT_TASK_BTF:
            return _this_cpu("current_task", 8)
        case _Helper.KPTR_XCHG:
            return Patch(Alu("mov", 64, 0, 2), Atomic("xchg", 8, 1, 0, 0, True))
        case _Helper.BRANCH_SNAPSHOT:
            return _branch_snapshot()
    if env.program.type == "tracing":
        return _traced(env, call.imm)
    return None


def _this_cpu(name: str, size: int) -> Patch:
    """Read a variable of the processor's own."""
    return Patch(
        Alu("mov", 64, 0, None, 0), PercpuAddr(0, 0), Load(size, 0, 0, 0), symbols={0: name}
    )


# --- maps -------------------------------------------------------------------------------


def lookup(found: MapDef, layout: Layout) -> Patch | None:
    """Return the search in the map *found* (``map_gen_lookup``), None: a call."""
    match found.type:
        case _Map.ARRAY:
            return None if found.flags & _INNER_MAP else _array(found, layout)
        case _Map.PERCPU_ARRAY:
            return None if found.flags & _INNER_MAP else _percpu_array(found, layout)
        case _Map.ARRAY_OF_MAPS:
            return _array_of_maps(layout, found)
        case _Map.HASH:
            return _hash(1, _value_of(found, layout))
        case _Map.LRU_HASH:
            ref = layout.offset("htab_elem", "lru_node") + layout.offset("bpf_lru_node", "ref")
            return _hash(
                4,
                Load(1, 1, 0, ref),
                Jump("ne", 64, 1, None, 0, 1),
                StoreImm(1, 0, ref, 1),
                _value_of(found, layout),
            )
        case _Map.PERCPU_HASH:
            return _hash(3, _value_of(found, layout), Load(8, 0, 0, 0), PercpuAddr(0, 0))
        case _Map.HASH_OF_MAPS:
            return _hash(2, _value_of(found, layout), Load(8, 0, 0, 0))
        case _Map.RHASH:
            key = -(-found.key_size // 8) * 8
            return Patch(
                Call("helper", _Helper.LOOKUP),
                Jump("eq", 64, 0, None, 0, 1),
                Alu("add", 64, 0, None, layout.offset("rhtab_elem", "data") + key),
                symbols={0: "rhtab_lookup_elem"},
            )
        case _Map.XSKMAP:
            return Patch(
                Load(4, 0, 2, 0),
                Jump("ge", 32, 0, None, signed32(found.max_entries), 5),
                Alu("lsh", 64, 0, None, 3),
                Alu("add", 64, 1, None, layout.offset("xsk_map", "xsk_map")),
                Alu("add", 64, 0, 1),
                Load(8, 0, 0, 0),
                Goto(1),
                Alu("mov", 64, 0, None, 0),
            )
    return None


def _hash(skip: int, *then: Insn) -> Patch:
    """Call what finds an element; if there is one go on with *then*."""
    call = Call("helper", _Helper.LOOKUP)
    test = Jump("eq", 64, 0, None, 0, skip)
    return Patch(call, test, *then, symbols={0: "__htab_map_lookup_elem"})


def _value_of(found: MapDef, layout: Layout) -> Insn:
    key = layout.offset("htab_elem", "key") + -(-found.key_size // 8) * 8
    return Alu("add", 64, 0, None, key)


def _scaled(size: int) -> Insn:
    if size & size - 1:
        return Alu("mul", 64, 0, None, size)
    return Alu("lsh", 64, 0, None, size.bit_length() - 1)


def _element_size(found: MapDef) -> int:
    return -(-found.value_size // 8) * 8


def _array(found: MapDef, layout: Layout) -> Patch:
    return Patch(
        Alu("add", 64, 1, None, layout.offset("bpf_array", "value")),
        Load(4, 0, 2, 0),
        Jump("ge", 64, 0, None, signed32(found.max_entries), 3),
        _scaled(_element_size(found)),
        Alu("add", 64, 0, 1),
        Goto(1),
        Alu("mov", 64, 0, None, 0),
    )


def _percpu_array(found: MapDef, layout: Layout) -> Patch:
    return Patch(
        Alu("add", 64, 1, None, layout.offset("bpf_array", "pptrs")),
        Load(4, 0, 2, 0),
        Jump("ge", 64, 0, None, signed32(found.max_entries), 5),
        Alu("lsh", 64, 0, None, 3),
        Alu("add", 64, 0, 1),
        Load(8, 0, 0, 0),
        PercpuAddr(0, 0),
        Goto(1),
        Alu("mov", 64, 0, None, 0),
    )


def _array_of_maps(layout: Layout, found: MapDef) -> Patch:
    return Patch(
        Alu("add", 64, 1, None, layout.offset("bpf_array", "value")),
        Load(4, 0, 2, 0),
        Jump("ge", 64, 0, None, signed32(found.max_entries), 5),
        _scaled(_element_size(found)),
        Alu("add", 64, 0, 1),
        Load(8, 0, 0, 0),
        Jump("eq", 64, 0, None, 0, 1),
        Goto(1),
        Alu("mov", 64, 0, None, 0),
    )


# --- tracing ----------------------------------------------------------------------------

_TRACED = (_Helper.FUNC_IP, _Helper.FUNC_ARG, _Helper.FUNC_RET, _Helper.FUNC_ARG_CNT)
_RETURNS = frozenset({"fexit", "fmod_ret", "fsession"})


def _traced(env: Env, number: int) -> Patch | None:
    """Arguments and result of the function that a program is attached to."""
    kind = env.program.section.split("/")[0].removesuffix(".s")
    if number not in _TRACED:
        return None
    if kind == "tp_btf" and number in (_Helper.FUNC_ARG, _Helper.FUNC_ARG_CNT):
        raise NotModelled("how many arguments a raw tracepoint has")
    count: tuple[Insn, ...] = (Load(8, 0, 1, -8), Alu("and", 64, 0, None, 0xFF))
    match number:
        case _Helper.FUNC_IP:
            return Patch(Load(8, 0, 1, -16))
        case _Helper.FUNC_ARG_CNT:
            return Patch(*count)
        case _Helper.FUNC_ARG:
            return Patch(
                *count,
                Jump("ge", 32, 2, 0, 0, 6),
                Alu("lsh", 64, 2, None, 3),
                Alu("add", 64, 2, 1),
                Load(8, 0, 2, 0),
                Store(8, 3, 0, 0),
                Alu("mov", 64, 0, None, 0),
                Goto(1),
                Alu("mov", 64, 0, None, -EINVAL),
            )
    if kind not in _RETURNS:
        return Patch(Alu("mov", 64, 0, None, -EOPNOTSUPP))
    return Patch(
        *count,
        Alu("lsh", 64, 0, None, 3),
        Alu("add", 64, 0, 1),
        Load(8, 3, 0, 0),
        Store(8, 2, 0, 3),
        Alu("mov", 64, 0, None, 0),
    )


def _branch_snapshot() -> Patch:
    size = 24  # struct perf_branch_entry
    return Patch(
        Jump("ne", 64, 3, None, 0, 7),
        Alu("mov", 32, 0, None, signed32(0xAAAAAAAB)),
        Alu("mul", 64, 2, 0),
        Alu("rsh", 64, 2, None, 36),
        Call("helper", _Helper.BRANCH_SNAPSHOT),
        Jump("eq", 64, 0, None, 0, 4),
        Alu("mul", 32, 0, None, size),
        Goto(3),
        Alu("mov", 64, 0, None, -EINVAL),
        Goto(1),
        Alu("mov", 64, 0, None, -ENOENT),
        symbols={4: "perf_snapshot_branch_stack"},
    )
