"""Abstract machine states: registers, stack slots, frames, and what Linux notes beside them.

Registers and slots are immutable values and are shared freely. Frames are shared
between states until one of them writes (``Frame.copy``). Precision marks, which the
kernel sets in registers of past states, live in ``Checkpoint`` as bit masks.

Mirrors ``struct bpf_reg_state``, ``bpf_stack_state``, ``bpf_func_state`` and
``bpf_verifier_state`` of Linux 7.3.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from harness.btf import Btf
from harness.verifier.bounds import UNKNOWN, Scalar
from harness.verifier.bounds import const as known

# fmt: off
# Register types                                  enum bpf_reg_type
(NOT_INIT, SCALAR, CTX, MAP_PTR, MAP_VALUE, MAP_KEY, STACK, PACKET_META, PACKET, PACKET_END,
 FLOW_KEYS, SOCKET, SOCK_COMMON, TCP_SOCK, TP_BUFFER, XDP_SOCK, BTF_ID, MEM, ARENA, BUF,
 FUNC, INSN, DYNPTR) = range(23)
BASE = 0xFF

# Flags of a type                                 enum bpf_type_flag
MAYBE_NULL  = 1 << 8
MEM_RDONLY  = 1 << 9
MEM_RINGBUF = 1 << 10
MEM_USER    = 1 << 11
MEM_PERCPU  = 1 << 12
UNTRUSTED   = 1 << 14
DYNPTR_LOCAL, DYNPTR_RINGBUF = 1 << 16, 1 << 17
MEM_ALLOC   = 1 << 19
TRUSTED     = 1 << 20
MEM_RCU     = 1 << 21
NON_OWN_REF = 1 << 22
DYNPTR_SKB, DYNPTR_XDP, DYNPTR_SKB_META, DYNPTR_FILE = 1 << 23, 1 << 24, 1 << 27, 1 << 28
DYNPTR_FLAGS = (DYNPTR_LOCAL | DYNPTR_RINGBUF | DYNPTR_SKB | DYNPTR_XDP | DYNPTR_SKB_META
                | DYNPTR_FILE)

TYPE_NAMES = {                                    # reg_type_str
    NOT_INIT: "?", SCALAR: "scalar", CTX: "ctx", MAP_PTR: "map_ptr", MAP_VALUE: "map_value",
    STACK: "fp", PACKET: "pkt", PACKET_META: "pkt_meta", PACKET_END: "pkt_end",
    FLOW_KEYS: "flow_keys", SOCKET: "sock", SOCK_COMMON: "sock_common", TCP_SOCK: "tcp_sock",
    TP_BUFFER: "tp_buffer", XDP_SOCK: "xdp_sock", BTF_ID: "ptr_", MEM: "mem", ARENA: "arena",
    BUF: "buf", FUNC: "func", INSN: "insn", MAP_KEY: "map_key", DYNPTR: "dynptr_ptr",
}

# Bytes of a stack slot                           enum bpf_stack_slot_type
INVALID, SPILL, MISC, ZERO, DYNPTR_SLOT, ITER_SLOT, IRQ_SLOT, POISON = range(8)
SLOT_CHARS = "?rm0difp"

# What a reference is to                          enum ref_state_type
REF_PTR, REF_IRQ, REF_LOCK, REF_RES_LOCK, REF_RES_LOCK_IRQ = 2, 4, 8, 16, 32
REF_LOCKS = REF_LOCK | REF_RES_LOCK | REF_RES_LOCK_IRQ

# Instruction history                             INSN_F_*
STACK_ACCESS, DST_STACK, SRC_STACK, ARG_ACCESS = 1, 2, 4, 8
# fmt: on

ADD_CONST64, ADD_CONST32 = 1 << 31, 1 << 30
ADD_CONST = ADD_CONST64 | ADD_CONST32

MAX_FRAMES = 16  # MAX_CALL_FRAMES
MAX_STACK = 512  # bytes of stack a call chain may use
MAIN = -1  # call site of an entry function, BPF_MAIN_FUNC
REG_SIZE = 8  # bytes of a stack slot


PACKET_TYPES = frozenset({PACKET, PACKET_META, PACKET_END})
_PACKET_SLICES = DYNPTR_SKB | DYNPTR_XDP | DYNPTR_SKB_META


def in_packet(kind: int) -> bool:
    """Say whether a pointer is one to a packet, or to a dynptr's slice of one."""
    return kind in PACKET_TYPES or bool(kind & _PACKET_SLICES and kind & BASE == MEM)


def type_name(kind: int) -> str:
    """Return a register type in the words of the log (``reg_type_str``)."""
    prefix = "".join(
        word
        for flag, word in (
            (MEM_RDONLY, "rdonly_"),
            (MEM_RINGBUF, "ringbuf_"),
            (MEM_USER, "user_"),
            (MEM_PERCPU, "percpu_"),
            (MEM_RCU, "rcu_"),
            (UNTRUSTED, "untrusted_"),
            (TRUSTED, "trusted_"),
        )
        if kind & flag
    )
    base = kind & BASE
    null = ("or_null_" if base == BTF_ID else "_or_null") if kind & MAYBE_NULL else ""
    return f"{prefix}{TYPE_NAMES[base]}{null}"


class Reg:
    """What is known of one register or spilled register. Treat as immutable."""

    __slots__ = ("delta", "id", "info", "map_uid", "num", "parent_id", "type")

    type: int  # base type and flags
    num: Scalar  # the value of a scalar, the offset of a pointer
    id: int  # links scalars of one origin, or pointers of one object; with ADD_CONST flags
    delta: int  # signed 32-bit: this scalar minus the one its id names
    info: Any  # frame number, MapDef, packet range, memory size or subprogram, by type
    parent_id: int
    map_uid: int

    def __init__(
        self,
        type: int,  # noqa: A002 - the kernel's name
        num: Scalar,
        id: int = 0,  # noqa: A002
        delta: int = 0,
        info: Any = 0,
        parent_id: int = 0,
        map_uid: int = 0,
    ) -> None:
        self.type = type
        self.num = num
        self.id = id
        self.delta = delta
        self.info = info
        self.parent_id = parent_id
        self.map_uid = map_uid

    def with_id(self, new_id: int, delta: int = 0) -> Reg:
        """Return this register with another id."""
        return Reg(self.type, self.num, new_id, delta, self.info, self.parent_id, self.map_uid)

    def with_num(self, num: Scalar) -> Reg:
        """Return this register with another value or offset."""
        return Reg(self.type, num, self.id, self.delta, self.info, self.parent_id, self.map_uid)

    def with_type(self, kind: int) -> Reg:
        """Return this register with another type."""
        return Reg(kind, self.num, self.id, self.delta, self.info, self.parent_id, self.map_uid)

    def with_info(self, info: Any) -> Reg:
        """Return this register with other type-specific data."""
        return Reg(self.type, self.num, self.id, self.delta, info, self.parent_id, self.map_uid)

    def derived(self, parent_id: int) -> Reg:
        """Return this register as something that comes from *parent_id*."""
        new = self.with_id(self.id, self.delta)
        new.parent_id = parent_id
        return new

    def same(self, other: Reg) -> bool:
        """Say whether both hold the same, ids included."""
        return self is other or (
            self.type == other.type
            and self.id == other.id
            and self.delta == other.delta
            and self.parent_id == other.parent_id
            and self.map_uid == other.map_uid
            and self.info == other.info
            and self.num == other.num
        )

    @property
    def is_null(self) -> bool:
        """A scalar that is the constant 0 (``bpf_register_is_null``)."""
        return self.type == SCALAR and self.num.is_const and self.num.value == 0

    def __repr__(self) -> str:
        return f"Reg({type_name(self.type)}, {self.num!r}, id={self.id}, info={self.info!r})"


ZERO_NUM = known(0)
UNINIT = Reg(NOT_INIT, UNKNOWN)
UNKNOWN_REG = Reg(SCALAR, UNKNOWN)
ZERO_REG = Reg(SCALAR, ZERO_NUM)


class TypeRef(NamedTuple):
    """A type of one BTF: ``info`` of a BTF pointer."""

    btf: Btf
    id: int

    @property
    def name(self) -> str:
        """The name of the type."""
        return self.btf[self.id].name

    def same(self, other: TypeRef) -> bool:
        """``btf_types_are_same``."""
        return self.id == other.id and self.btf is other.btf


class Ref(NamedTuple):
    """Something a path has to give back (``bpf_reference_state``)."""

    kind: int  # REF_*
    id: int
    insn: int  # slot of the call that took it
    link: Any = 0  # REF_PTR: id of what it belongs to; a lock: the map or BTF it lies in


class Iter(NamedTuple):
    """What is known of an iterator on the stack, ``info`` of its slots."""

    name: str  # of its type, without bpf_iter_
    active: bool  # else drained
    depth: int  # rounds so far

    @property
    def state(self) -> str:
        """The word of the log (``iter_state_str``)."""
        return "active" if self.active else "drained"


class Slot:
    """Eight bytes of stack. Treat as immutable.

    ``types[7]`` is the byte at the lowest address, as in the kernel's ``slot_type``.
    """

    __slots__ = ("dead", "reg", "types")

    def __init__(self, types: bytes, reg: Reg = UNINIT, dead: int = 0) -> None:
        self.types = types
        self.reg = reg
        self.dead = dead  # halves known to be poisoned: 1 the upper, 2 the lower addresses

    @property
    def spilled(self) -> bool:
        """Say whether a register is spilled here."""
        return self.types[7] == SPILL

    @property
    def spilled_scalar(self) -> bool:
        """Say whether a scalar is spilled here."""
        return self.types[7] == SPILL and self.reg.type == SCALAR

    @property
    def special(self) -> bool:
        """Say whether the slot holds more than plain bytes (``is_stack_slot_special``)."""
        return self.types[7] in (SPILL, DYNPTR_SLOT, ITER_SLOT, IRQ_SLOT)


EMPTY = Slot(bytes(8))


class Frame:
    """One function on the call stack (``bpf_func_state``)."""

    __slots__ = (
        "args",
        "async_entry",
        "callback_depth",
        "callback_range",
        "callsite",
        "in_async",
        "in_callback",
        "no_arg_load",
        "number",
        "plain",
        "regs",
        "shared",
        "stack",
        "subprog",
    )

    def __init__(self, callsite: int, number: int, subprog: int) -> None:
        self.regs: list[Reg] = [UNINIT] * 10 + [Reg(STACK, ZERO_NUM, info=number)]
        self.stack: list[Slot] = []  # [0] is fp-8
        self.args: list[Reg] = []  # outgoing stack-argument slots, [0] is argument 6
        self.callsite = callsite  # slot of the call that entered it, MAIN
        self.number = number  # depth, from 0
        self.subprog = subprog
        self.no_arg_load = False  # an r11 store or a call came by
        self.in_callback = False
        self.in_async = False
        self.callback_range = (0, 0)
        self.callback_depth = 0
        self.async_entry = 0
        self.shared = False  # another state refers to it: copy before writing
        self.plain: bool | None = None  # shared: holds no id; None: not known yet

    def copy(self) -> Frame:
        """Return a frame of one's own to write to."""
        new = Frame.__new__(Frame)
        new.regs = self.regs.copy()
        new.stack = self.stack.copy()
        new.args = self.args.copy()
        new.callsite = self.callsite
        new.number = self.number
        new.subprog = self.subprog
        new.no_arg_load = self.no_arg_load
        new.in_callback = self.in_callback
        new.in_async = self.in_async
        new.callback_range = self.callback_range
        new.callback_depth = self.callback_depth
        new.async_entry = self.async_entry
        new.shared = False
        new.plain = None
        return new

    def without_ids(self) -> bool:
        """Say whether no register in a shared frame has an id."""
        if self.plain is None:
            self.plain = not (
                any(reg.id or reg.parent_id or reg.map_uid for reg in self.regs)
                or any(slot.reg.id or slot.reg.parent_id or slot.reg.map_uid for slot in self.stack)
                or any(reg.id or reg.parent_id or reg.map_uid for reg in self.args)
            )
        return self.plain


# instruction history entry: (slot, previous slot, flags, stack slot, frame, linked registers)
Linked = tuple[tuple[int, int, bool], ...]  # (frame, register or stack slot, is a register)
History = tuple[int, int, int, int, int, Linked]


class State:
    """A point on a path under exploration (``bpf_verifier_state``)."""

    __slots__ = (
        "branches",
        "callback_unroll",
        "dfs_depth",
        "first",
        "frames",
        "history",
        "insn",
        "last",
        "may_goto_depth",
        "parent",
        "preempt_locks",
        "rcu_locks",
        "refs",
        "sleepable",
        "walked",
    )

    def __init__(self, frame: Frame, first: int) -> None:
        self.frames: list[Frame] = [frame]
        self.parent: Checkpoint | None = None
        self.branches = 1
        self.insn = first
        self.first = first
        self.last = -1
        self.history: list[History] = []
        self.walked: set[Hashable] | None = None  # places in it that marks were looked for from
        self.dfs_depth = 0
        self.callback_unroll = 0
        self.may_goto_depth = 0
        self.sleepable = False
        self.refs: tuple[Ref, ...] = ()  # oldest first
        self.rcu_locks = 0
        self.preempt_locks = 0

    def _take(self, other: State) -> None:
        frames = other.frames
        for frame in frames:
            frame.shared = True
        self.frames = frames.copy()
        self.parent = other.parent
        self.branches = other.branches
        self.insn = other.insn
        self.first = other.first
        self.last = other.last
        self.history = other.history.copy()
        self.walked = None
        self.dfs_depth = other.dfs_depth
        self.callback_unroll = other.callback_unroll
        self.may_goto_depth = other.may_goto_depth
        self.sleepable = other.sleepable
        self.refs = other.refs
        self.rcu_locks = other.rcu_locks
        self.preempt_locks = other.preempt_locks

    def copy(self) -> State:
        """Return a state that shares the frames (``bpf_copy_verifier_state``)."""
        new = State.__new__(State)
        new._take(self)
        return new

    def own(self, number: int) -> Frame:
        """Return frame *number*, for writing."""
        frame = self.frames[number]
        if frame.shared:
            frame = self.frames[number] = frame.copy()
        return frame

    def frame_insn(self, number: int) -> int:
        """Return the slot where frame *number* is (``bpf_frame_insn_idx``)."""
        frames = self.frames
        return self.insn if number == len(frames) - 1 else frames[number + 1].callsite


class Checkpoint(State):
    """A remembered state, with the marks later paths set on it (``bpf_verifier_state_list``)."""

    __slots__ = (
        "callchain",
        "equal",
        "hits",
        "in_free_list",
        "miss_frame",
        "miss_loop",
        "miss_reg",
        "miss_reg_frame",
        "miss_slot",
        "misses",
        "precise_args",
        "precise_regs",
        "precise_slots",
    )

    def __init__(self, state: State) -> None:
        self._take(state)
        depth = len(self.frames)
        self.precise_regs = [0] * depth  # a bit mask for each frame
        self.precise_slots = [0] * depth
        self.precise_args = [0] * depth
        self.hits = 0
        self.misses = 0
        self.in_free_list = False
        self.miss_frame = 0  # where a comparison failed last
        self.miss_slot = -1
        self.miss_loop = 0
        self.miss_reg_frame = 0
        self.miss_reg = -1
        self.callchain: tuple[int, ...] | None = None  # call sites and the loop it is in
        self.equal: Checkpoint | None = None  # of a back edge: the state it reached
