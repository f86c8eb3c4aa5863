"""The reference interpreter: what a BPF program means, slow and obvious.

Written from RFC 9669 and, for what Linux adds to it (sign-extending moves and loads,
signed division, byte swaps, long jumps, ``may_goto``, ordered loads and stores, calls
through a register, stack arguments), from the kernel's documentation of each. It shares
no semantics with the verifier or a JIT, and runs a program as loaded, before fix-ups.

Each slot is translated once to a *step*: a closure that changes the machine and returns
the next slot. The machine's addresses are 64 bits wide: the high half names a region,
the low half is the offset into it, so that nothing lies next to a region. A register no
one has written, or a call has spoilt, holds ``UNDEFINED``, which traps when it is read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NoReturn, Protocol, cast

from harness.isa.insn import (
    FP,
    PARAMS,
    AddrSpaceCast,
    Alu,
    Atomic,
    Call,
    CallX,
    Endian,
    Exit,
    Goto,
    GotoX,
    High,
    Insn,
    Jump,
    Load,
    LoadImm,
    LoadPacket,
    MayGoto,
    PercpuAddr,
    Raw,
    Store,
    StoreImm,
)
from harness.isa.opcodes import LD_IMM64_KINDS
from harness.isa.stack_args import MAX_SLOTS, REG_ARGS, incoming_slot, outgoing_slot
from harness.model import MapDef, Outcome, OutOfFuel, Program, Returned, Trapped, Unknown

FUEL = 1 << 20  # instructions a vector may take
STACK_SIZE = 512  # bytes of stack in each frame
STACK_FILL = 0xA5  # every byte of a stack nobody has written
_FRESH_STACK = bytes([STACK_FILL]) * STACK_SIZE
MAX_FRAMES = 16  # main included (Linux 7.3: MAX_CALL_FRAMES)
MAX_LOOPS = 1 << 23  # times one frame may pass may_goto, rounds of bpf_loop (BPF_MAX_LOOPS)
LOOP = 181  # helper number of bpf_loop, which calls back

# Program types whose context is not the bytes the program sees: the kernel rewrites every
# access to it (convert_ctx_access in the verifier's table of each type).
CONVERTED_CONTEXTS = frozenset({
    "cgroup_skb", "cgroup_sock", "cgroup_sock_addr", "cgroup_sockopt", "cgroup_sysctl",
    "flow_dissector", "lwt_in", "lwt_out", "lwt_seg6local", "lwt_xmit", "netfilter",
    "perf_event", "sched_act", "sched_cls", "sk_lookup", "sk_msg", "sk_reuseport", "sk_skb",
    "sock_ops", "socket_filter", "xdp",
})  # fmt: skip

M32, M64 = (1 << 32) - 1, (1 << 64) - 1

# High halves of addresses: one region each; 0 holds nothing, so that null traps.
CONTEXT, STACK, FUNCTION, MAP, VALUE = 0x10, 0x20, 0x30, 0x1000, 0x10_0000

Trace = Callable[[int, tuple[int | None, ...]], None]
"""Called before each step with the slot and r0 to r10; None: undefined."""


class _Done(Exception):  # noqa: N818 (a signal, no error)
    """The main program's exit."""


class TrapError(Exception):
    """A trap: kind (as in ``Trapped``) and detail; helpers may raise it."""


class NotModelledError(Exception):
    """The reason why an effect is not known; helpers may raise it."""


class _Undefined:
    """The value of a register nobody may read: every operation on it traps."""

    def _read(self, *_: object) -> NoReturn:
        raise TrapError("undefined", "read of a register that holds nothing")

    __add__ = __radd__ = __and__ = __rand__ = __rshift__ = __index__ = __int__ = _read
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = _read
    __hash__ = None  # type: ignore[assignment]


UNDEFINED = cast(int, _Undefined())


# --- memory, maps and helpers -------------------------------------------------


@dataclass(slots=True)
class Map:
    """A map while a program runs."""

    definition: MapDef
    entries: dict[bytes, int] = field(default_factory=dict)  # key: address of its value


RECORD = struct.Struct("<II")  # what is before each record of the effects: map, bytes
RING_HEADER = 8  # bytes of a record's header in a ring buffer
MAX_RING_RECORD = 0xFFFFFFFF >> 2  # bytes (RINGBUF_MAX_RECORD_SZ)


@dataclass(slots=True)
class Record:
    """What a program writes to a ring buffer."""

    map: int  # ``name_hash`` of its name
    size: int  # bytes
    address: int = 0  # where a reserved one lies, 0: nowhere
    data: bytes | None = None  # None: discarded, or not submitted yet


class Rings:
    """The ring buffers of one run: nobody reads them before it ends."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self.used: dict[int, int] = {}  # bytes, by map

    def add(self, definition: MapDef, size: int) -> Record | None:
        """Return a new record, None where the buffer has no room for it."""
        number = name_hash(definition.name)
        used = self.used.get(number, 0) + -(-(size + RING_HEADER) // 8) * 8
        if size > MAX_RING_RECORD or used > definition.max_entries - 1:
            return None
        self.used[number] = used
        self._records.append(Record(number, size))
        return self._records[-1]

    def at(self, address: int) -> Record:
        """Return the reserved record at *address*."""
        for record in self._records:
            if record.address == address:
                return record
        raise TrapError("call", f"{address:#x} is no reserved record")

    def effects(self) -> bytes:
        """Return what a reader finds, over all ring buffers in order of reservation."""
        done = [record for record in self._records if record.data is not None]
        return b"".join(RECORD.pack(r.map, r.size) + (r.data or b"") for r in done)


def name_hash(name: str) -> int:
    """Return what stands for a map's name in the effects: its 32-bit FNV-1a."""
    value = 0x811C9DC5
    for byte in name.encode():
        value = (value ^ byte) * 0x01000193 & M32
    return value


class Host(Protocol):
    """What a helper may touch of the machine that calls it."""

    vector: bytes
    rings: Rings

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes at *address*."""
        ...

    def write(self, address: int, data: bytes) -> None:
        """Write *data* at *address*."""
        ...

    def allocate(self, data: bytes, writable: bool = True) -> int:
        """Return the address of fresh memory that holds *data*, for a map's value."""
        ...

    def map_at(self, handle: int) -> Map:
        """Return the map *handle* points to."""
        ...


Helper = Callable[[Host, int, int, int, int, int], int]
"""A helper: the machine and r1 to r5; returns r0, any integer (taken modulo 2^64)."""


@dataclass(frozen=True, slots=True)
class Kfunc:
    """A model of a kfunc: how many arguments it takes, and what it does with them.

    *call* gets the machine and the arguments as registers and slots hold them, and returns
    r0, any integer (taken modulo 2^64), or None where the function returns nothing.
    """

    arguments: int
    call: Callable[[Host, Sequence[int]], int | None]


HASH_MAP, ARRAY_MAP, RINGBUF = 1, 2, 27  # BPF_MAP_TYPE_*
BPF_ANY, BPF_NOEXIST, BPF_EXIST = range(3)
ENOENT, E2BIG, EAGAIN, EEXIST, EINVAL = 2, 7, 11, 17, 22


def map_value(host: Host, target: Map, key: bytes) -> int:
    """Return the address of the value under *key*, 0 when there is none."""
    definition = target.definition
    if definition.type == ARRAY_MAP and key not in target.entries:
        if int.from_bytes(key, "little") >= definition.max_entries:
            return 0
        data = definition.data or b""
        value = data.ljust(definition.value_size, b"\0")
        target.entries[key] = host.allocate(value, not definition.readonly)
    return target.entries.get(key, 0)


def _map(host: Host, handle: int) -> Map:
    target = host.map_at(handle)
    if target.definition.type not in (HASH_MAP, ARRAY_MAP):
        raise NotModelledError(f"maps of type {target.definition.type} are not modelled")
    return target


def _map_lookup(host: Host, r1: int, r2: int, _r3: int, _r4: int, _r5: int) -> int:
    target = _map(host, r1)
    return map_value(host, target, host.read(r2, target.definition.key_size))


def _map_update(host: Host, r1: int, r2: int, r3: int, r4: int, _r5: int) -> int:
    target = _map(host, r1)
    key = host.read(r2, target.definition.key_size)
    value = host.read(r3, target.definition.value_size)
    flags = r4 & M64
    if flags > BPF_EXIST:
        return -EINVAL
    address = map_value(host, target, key)
    if address and flags == BPF_NOEXIST:
        return -EEXIST
    if not address and target.definition.type == ARRAY_MAP:
        return -E2BIG
    if not address and flags == BPF_EXIST:
        return -ENOENT
    if not address and len(target.entries) >= target.definition.max_entries:
        return -E2BIG
    if address:
        host.write(address, value)
    else:
        target.entries[key] = host.allocate(value)
    return 0


def _map_delete(host: Host, r1: int, r2: int, _r3: int, _r4: int, _r5: int) -> int:
    target = _map(host, r1)
    key = host.read(r2, target.definition.key_size)
    if target.definition.type == ARRAY_MAP:
        return -EINVAL
    return 0 if target.entries.pop(key, 0) else -ENOENT


# BPF_RB_NO_WAKEUP, BPF_RB_FORCE_WAKEUP
_WAKE_FLAGS = 3


def _ring(host: Host, handle: int) -> MapDef:
    definition = host.map_at(handle).definition
    if definition.type != RINGBUF:
        raise TrapError("call", f"map {definition.name} is no ring buffer")
    return definition


def _ringbuf_output(host: Host, r1: int, r2: int, r3: int, r4: int, _r5: int) -> int:
    if r4 & M64 & ~_WAKE_FLAGS:
        return -EINVAL
    record = host.rings.add(_ring(host, r1), r3 & M64)
    if record is None:
        return -EAGAIN
    record.data = host.read(r2, record.size) if record.size else b""
    return 0


def _ringbuf_reserve(host: Host, r1: int, r2: int, r3: int, _r4: int, _r5: int) -> int:
    definition = _ring(host, r1)
    if r3 & M64:
        return 0
    record = host.rings.add(definition, r2 & M64)
    if record is None:
        return 0
    record.address = host.allocate(bytes(record.size))
    return record.address


def _ringbuf_submit(host: Host, r1: int, _r2: int, _r3: int, _r4: int, _r5: int) -> int:
    record = host.rings.at(r1 & M64)
    record.data = host.read(record.address, record.size) if record.size else b""
    record.address = 0
    return 0


def _ringbuf_discard(host: Host, r1: int, _r2: int, _r3: int, _r4: int, _r5: int) -> int:
    host.rings.at(r1 & M64).address = 0
    return 0


def _ringbuf_query(host: Host, r1: int, r2: int, _r3: int, _r4: int, _r5: int) -> int:
    definition = _ring(host, r1)
    used = host.rings.used.get(name_hash(definition.name), 0)
    match r2 & M64:
        case 0 | 3:  # available data, producer's position: nothing is read while it runs
            return used
        case 1:
            return definition.max_entries
    return 0  # the consumer's position, and what does not exist


def _ktime_get_ns(_host: Host, *_args: int) -> int:
    return 0x0123_4567_89AB


def _get_prandom_u32(host: Host, *_args: int) -> int:
    return zlib.crc32(host.vector)


def _get_smp_processor_id(_host: Host, *_args: int) -> int:
    return 0


# fmt: off
HELPERS: Mapping[int, Helper] = {
    # number            name, as in include/uapi/linux/bpf.h
    1: _map_lookup,     # map_lookup_elem
    2: _map_update,     # map_update_elem
    3: _map_delete,     # map_delete_elem
    5: _ktime_get_ns,
    7: _get_prandom_u32,
    8: _get_smp_processor_id,
    130: _ringbuf_output,
    131: _ringbuf_reserve,
    132: _ringbuf_submit,
    133: _ringbuf_discard,
    134: _ringbuf_query,
}
# fmt: on


# --- the machine --------------------------------------------------------------


@dataclass(slots=True)
class Region:
    """Memory that may be read, and written if *writable*."""

    data: bytearray
    writable: bool = True


@dataclass(slots=True)
class Loop:
    """A call of ``bpf_loop`` that is under way."""

    rounds: int  # how many it is to take
    callback: int  # slot
    context: int  # r2 of each round
    following: int  # slot behind the call
    done: int = 0  # rounds


@dataclass(slots=True)
class Frame:
    """One activation of a subprogram."""

    return_to: int  # slot
    saved: list[int]  # the caller's r6 to r10
    incoming: dict[int, int]  # stack arguments the caller wrote, by slot
    outgoing: dict[int, int] = field(default_factory=dict)
    at_entry: bool = True  # no store to a slot and no call yet: incoming slots may be read
    loops: int = MAX_LOOPS  # what is left for may_goto
    loop: Loop | None = None  # of a callback: what calls it


class Machine:
    """Registers, frames and memory of one run; a ``Host`` for helpers."""

    def __init__(self, program: Program, vector: bytes, stack: bytes = _FRESH_STACK) -> None:
        self.vector = vector
        self.stack = stack  # what a frame's holds before anybody writes
        self.regions: dict[int, Region] = {CONTEXT: Region(bytearray(vector))}
        self.maps = [Map(definition) for definition in program.maps]
        self.rings = Rings()
        self.allocated = 0  # regions
        self.registers = [UNDEFINED] * 11
        self.frames: list[Frame] = []
        self.frame = Frame(0, [], {})
        self._push_stack()
        self.registers[1] = CONTEXT << 32

    def load(self, address: int, size: int) -> int:
        """Return the unsigned number in the *size* bytes at *address*; traps if it may not."""
        region = self.regions.get(address >> 32)
        start = address & M32
        if region is None or start + size > len(region.data):
            self._refuse(address, size)
        return int.from_bytes(region.data[start : start + size], "little")

    def store(self, address: int, size: int, value: int) -> None:
        """Write the unsigned *value* to the *size* bytes at *address*; traps if it may not."""
        region = self.regions.get(address >> 32)
        start = address & M32
        if region is None or start + size > len(region.data) or not region.writable:
            self._refuse(address, size)
        region.data[start : start + size] = value.to_bytes(size, "little")

    def _refuse(self, address: int, size: int) -> NoReturn:
        if MAP <= address >> 32 < MAP + len(self.maps):
            raise NotModelledError("reading a map's own fields is not modelled")
        region = self.regions.get(address >> 32)
        inside = region is not None and (address & M32) + size <= len(region.data)
        what = "read-only bytes" if inside else "bytes"
        raise TrapError("access", f"{size} {what} at {address:#x}")

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes at *address*, for helpers."""
        return self.load(address, size).to_bytes(size, "little")

    def write(self, address: int, data: bytes) -> None:
        """Write *data* at *address*, for helpers."""
        self.store(address, len(data), int.from_bytes(data, "little"))

    def allocate(self, data: bytes, writable: bool = True) -> int:
        """Return the address of a fresh region that holds *data*."""
        self.allocated += 1  # never the same twice, though stacks come and go
        window = VALUE + self.allocated
        self.regions[window] = Region(bytearray(data), writable)
        return window << 32

    def map_at(self, handle: int) -> Map:
        """Return the map *handle* points to; traps when it points to none."""
        index = (handle >> 32) - MAP
        if handle & M32 or not 0 <= index < len(self.maps):
            raise TrapError("call", f"{handle:#x} points to no map")
        return self.maps[index]

    def call(self, return_to: int) -> None:
        """Enter a subprogram: a new frame and stack, and the slots handed over."""
        if len(self.frames) + 1 == MAX_FRAMES:
            raise TrapError("call", f"more than {MAX_FRAMES} frames")
        caller = self.frame
        self.frames.append(caller)
        self.frame = Frame(return_to, self.registers[6:11], caller.outgoing)
        self._push_stack()
        self.registers[0] = UNDEFINED
        self.registers[6:10] = [UNDEFINED] * 4

    def leave(self) -> int:
        """Leave the subprogram and return the slot to go on at."""
        frame = self.frame
        if not self.frames:
            raise _Done
        del self.regions[STACK + len(self.frames)]
        self.frame = self.frames.pop()
        self.registers[6:11] = frame.saved
        self.called()
        if frame.loop is not None:
            frame.loop.done += 1
            return self.go_on(frame.loop, stop=self.registers[0] != 0)
        return frame.return_to

    def go_on(self, loop: Loop, *, stop: bool = False) -> int:
        """Call the callback of *loop* once more, or end it; return the slot to go on at."""
        if stop or loop.done == loop.rounds:
            self.registers[0] = loop.done
            self.called()
            return loop.following
        self.frame.outgoing = {}
        self.call(loop.following)
        self.frame.loop = loop
        self.registers[1:6] = [loop.done, loop.context, UNDEFINED, UNDEFINED, UNDEFINED]
        return loop.callback

    def called(self) -> None:
        """Spoil what any call spoils in the caller: r1 to r5 and the stack arguments."""
        self.registers[1:6] = [UNDEFINED] * 5
        self.frame.outgoing = {}
        self.frame.at_entry = False

    def _push_stack(self) -> None:
        window = STACK + len(self.frames)
        self.regions[window] = Region(bytearray(self.stack))
        self.registers[FP] = (window << 32) + STACK_SIZE


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run's memory lies, as on another leg."""

    context: int  # address
    frames: tuple[int, ...]  # r10 of each frame, in the order in which they are entered
    values: tuple[tuple[str, int], ...] = ()  # of maps of one value: name, the value's address


class _Elsewhere(Machine):
    """A machine whose memory lies where *places* says; what it does not name is as ever."""

    def __init__(self, program: Program, vector: bytes, stack: bytes, places: Places) -> None:
        self.context = places.context
        self.coming = iter(places.frames)
        self.tops: list[int] = []  # r10 of the frames that are active
        self.values: list[tuple[int, int, int]] = []  # address, bytes, where they are kept
        super().__init__(program, vector, stack)
        self.registers[1] = self.context
        where = dict(places.values)
        for each in self.maps:
            address, key = where.get(each.definition.name), bytes(each.definition.key_size)
            if address is not None:
                kept = map_value(self, each, key)
                self.values.append((address, each.definition.value_size, kept))
                each.entries[key] = address

    def load(self, address: int, size: int) -> int:
        return super().load(self._home(address), size)

    def store(self, address: int, size: int, value: int) -> None:
        super().store(self._home(address), size, value)

    def _home(self, address: int) -> int:
        """Return where what lies at *address* is kept."""
        offset = address - self.context
        if 0 <= offset < len(self.vector):
            return (CONTEXT << 32) + offset
        for number in range(len(self.frames), -1, -1):  # a frame ends where a callee's begins
            offset = address - self.tops[number] + STACK_SIZE
            if 0 <= offset < STACK_SIZE:
                return (STACK + number << 32) + offset
        for start, size, kept in self.values:
            if start <= address < start + size:
                return kept + address - start
        return 0 if address >> 32 < FUNCTION else address

    def _push_stack(self) -> None:
        super()._push_stack()
        top = next(self.coming, None)
        if top is None:
            raise NotModelledError("a frame that has no place is not modelled")
        self.tops[len(self.frames) :] = [top]
        self.registers[FP] = top


# --- what instructions compute ------------------------------------------------


def signed(value: int, bits: int) -> int:
    """Return the two's complement reading of the low *bits* of *value*."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _sdiv(a: int, b: int, bits: int) -> int:
    """Divide toward zero; by zero is 0, and the one overflow wraps."""
    a, b = signed(a, bits), signed(b, bits)
    if b == 0:
        return 0
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _smod(a: int, b: int, bits: int) -> int:
    """Return the remainder of ``_sdiv``, with the dividend's sign; by zero is *a*."""
    return a if b == 0 else signed(a, bits) - signed(b, bits) * _sdiv(a, b, bits)


# fmt: off
# a, b: unsigned, of n bits; the result is truncated to n bits    RFC 9669, section 4.1
ALU: Mapping[str, Callable[[int, int, int], int]] = {
    "add":  lambda a, b, _: a + b,
    "sub":  lambda a, b, _: a - b,
    "mul":  lambda a, b, _: a * b,
    "div":  lambda a, b, _: a // b if b else 0,
    "sdiv": _sdiv,
    "or":   lambda a, b, _: a | b,
    "and":  lambda a, b, _: a & b,
    "lsh":  lambda a, b, n: a << (b & (n - 1)),
    "rsh":  lambda a, b, n: a >> (b & (n - 1)),
    "neg":  lambda a, _b, _: -a,
    "mod":  lambda a, b, _: a % b if b else a,
    "smod": _smod,
    "xor":  lambda a, b, _: a ^ b,
    "arsh": lambda a, b, n: signed(a, n) >> (b & (n - 1)),
}

# a, b: unsigned, of n bits                                       RFC 9669, section 4.3
JUMP: Mapping[str, Callable[[int, int, int], bool]] = {
    "eq":  lambda a, b, _: a == b,
    "gt":  lambda a, b, _: a > b,
    "ge":  lambda a, b, _: a >= b,
    "set": lambda a, b, _: a & b != 0,
    "ne":  lambda a, b, _: a != b,
    "sgt": lambda a, b, n: signed(a, n) > signed(b, n),
    "sge": lambda a, b, n: signed(a, n) >= signed(b, n),
    "lt":  lambda a, b, _: a < b,
    "le":  lambda a, b, _: a <= b,
    "slt": lambda a, b, n: signed(a, n) < signed(b, n),
    "sle": lambda a, b, n: signed(a, n) <= signed(b, n),
}

# old, operand: the new value                                     RFC 9669, section 5.3
ATOMIC: Mapping[str, Callable[[int, int], int]] = {
    "add":  lambda old, operand: old + operand,
    "or":   lambda old, operand: old | operand,
    "and":  lambda old, operand: old & operand,
    "xor":  lambda old, operand: old ^ operand,
    "xchg": lambda _old, operand: operand,
}
# fmt: on


# --- translation: one step for each slot --------------------------------------

Step = Callable[[Machine], int]
"""Carry out one instruction and return the next slot."""


class Interpreter:
    """A program made ready to run on vectors."""

    def __init__(
        self,
        program: Program,
        helpers: Mapping[int, Helper] = HELPERS,
        kfuncs: Mapping[str, Kfunc] = MappingProxyType({}),
    ) -> None:
        self.program = program
        self.helpers = helpers
        self.kfuncs = kfuncs
        self.starts = {subprogram.start for subprogram in program.subprograms}
        self.end = len(program.insns)
        self.steps = [self._translate(slot, insn) for slot, insn in enumerate(program.insns)]
        self.steps.append(_trap("instruction", "no instruction there"))

    def run(
        self,
        vector: bytes,
        *,
        fuel: int = FUEL,
        trace: Trace | None = None,
        stack: bytes = _FRESH_STACK,
        places: Places | None = None,
    ) -> Outcome:
        """Run the program on *vector* for at most *fuel* instructions.

        *stack* is what the ``STACK_SIZE`` bytes of each frame hold that nobody has written,
        *places* where they lie, and where the context does.
        """
        steps, slot = self.steps, 0
        try:
            if places is None:
                machine = Machine(self.program, vector, stack)
            else:
                machine = _Elsewhere(self.program, vector, stack, places)
            if trace is None:
                for _ in range(fuel):
                    slot = steps[slot](machine)
            else:
                for _ in range(fuel):
                    registers = machine.registers
                    trace(slot, tuple(None if r is UNDEFINED else r for r in registers))
                    slot = steps[slot](machine)
        except _Done:
            if machine.registers[0] is UNDEFINED:
                return Trapped("undefined", f"slot {slot}: r0 holds nothing")
            after = bytes(machine.regions[CONTEXT].data)
            return Returned(machine.registers[0], after, machine.rings.effects())
        except TrapError as trap:
            kind, detail = trap.args
            return Trapped(kind, f"slot {slot}: {detail}")
        except NotModelledError as why:
            return Unknown(str(why))
        return OutOfFuel()

    def walk(self, vector: bytes, *, fuel: int = FUEL) -> Iterator[tuple[int, Machine]]:
        """Run the program on *vector*; yield slot and machine before each step, to be looked at.

        Raises TrapError and NotModelledError where ``run`` tells of them.
        """
        machine, slot = Machine(self.program, vector), 0
        try:
            for _ in range(fuel):
                yield slot, machine
                slot = self.steps[slot](machine)
        except _Done:
            return

    def _target(self, slot: int) -> int:
        """Return *slot*, or the slot past the end, which traps, if there is no such slot."""
        return slot if 0 <= slot < self.end else self.end

    def _translate(self, slot: int, insn: Insn) -> Step:
        """Return the step for *insn*, which is at *slot*."""
        following = self._target(slot + 1)
        if isinstance(insn, Load | Store | StoreImm) and (
            (slots := (incoming_slot(insn), outgoing_slot(insn))) != (None, None)
        ):
            return _stack_argument(insn, *slots, following)
        if _misuses_a_register(insn):
            return _trap("instruction", "r10 is read only, r11 addresses stack arguments only")
        match insn:
            case Alu():
                return _alu(insn, following)
            case Endian():
                return _endian(insn, following)
            case Load() | Store() | StoreImm():
                return _memory(insn, following)
            case Atomic():
                return _atomic(insn, following)
            case LoadImm():
                return self._load_imm(insn, slot)
            case Jump() | Goto() | MayGoto():
                return _jump(insn, self._target(slot + 1 + insn.off), following)
            case Call():
                return self._call(insn, slot, following)
            case CallX():
                return self._call_through(insn, following)
            case Exit():
                return lambda machine: machine.leave()
            case AddrSpaceCast():
                return _not_modelled("arena address spaces are not modelled")
            case PercpuAddr():
                return _not_modelled("per-CPU addresses are not modelled")
            case LoadPacket():
                return _not_modelled("legacy packet access is not modelled")
            case GotoX():
                return _not_modelled("jump tables are not modelled")
            case High():
                return _trap("instruction", "second half of a 64-bit immediate load")
            case Raw(opcode=opcode):
                return _trap("instruction", f"opcode {opcode:#04x} is no instruction")

    def _load_imm(self, insn: LoadImm, slot: int) -> Step:
        """Load a value, or an address (RFC 9669, 5.4)."""
        dst, following = insn.dst, self._target(slot + 2)
        low, high = insn.imm & M32, insn.imm >> 32
        kind = LD_IMM64_KINDS.get(insn.src, str(insn.src))
        maps = self.program.maps
        match kind:
            case "value":
                value = insn.imm
            case "func":
                value = (FUNCTION << 32) + 8 * (slot + 1 + signed(low, 32)) & M64
            case "map_idx" if low < len(maps):
                value = MAP + low << 32
            case "map_idx_value" if low < len(maps) and maps[low].type == ARRAY_MAP:

                def value_step(machine: Machine) -> int:
                    first = bytes(maps[low].key_size)
                    base = map_value(machine, machine.maps[low], first)
                    machine.registers[dst] = base + high & M64
                    return following

                return value_step
            case _:
                return _not_modelled(f"a 64-bit immediate load of kind {kind} is not modelled")

        def step(machine: Machine) -> int:
            machine.registers[dst] = value
            return following

        return step

    def _call(self, insn: Call, slot: int, following: int) -> Step:
        match insn.kind:
            case "subprog":
                target = slot + 1 + insn.imm
                if target not in self.starts:
                    return _trap("call", f"no subprogram starts at {target}")

                def enter(machine: Machine) -> int:
                    machine.call(following)
                    return target

                return enter
            case "helper" if insn.imm == LOOP:
                return self._loop(following)
            case "helper":
                helper = self.helpers.get(insn.imm)
                if helper is None:
                    return _not_modelled(f"helper {insn.imm} is not modelled")

                def call(machine: Machine) -> int:
                    machine.registers[0] = helper(machine, *machine.registers[1:6]) & M64
                    machine.called()
                    return following

                return call
        names = self.program.kfuncs
        name = names[insn.imm] if 0 <= insn.imm < len(names) else str(insn.imm)
        kfunc = self.kfuncs.get(name)
        if kfunc is None:
            return _not_modelled(f"kfunc {name} is not modelled")
        return _call_kfunc(kfunc, following)

    def _call_through(self, insn: CallX, following: int) -> Step:
        dst = insn.dst

        def step(machine: Machine) -> int:
            target = self._start_at(machine.registers[dst] & M64)
            machine.call(following)
            return target

        return step

    def _start_at(self, address: int) -> int:
        """Return the slot of the subprogram at *address*; traps where none starts."""
        target, rest = divmod(address - (FUNCTION << 32), 8)
        if rest or target not in self.starts:
            raise TrapError("call", f"no subprogram starts at {address:#x}")
        return target

    def _loop(self, following: int) -> Step:
        """``bpf_loop``: call r2 with the round and r3, r1 times or until it returns not 0.

        Linux builds the loop in where it can. What is built in takes all of r1 for the number
        of rounds and the helper the lower half, and they do not say alike that it is too much.
        """

        def step(machine: Machine) -> int:
            rounds, callback, context, flags = machine.registers[1:5]
            if flags & M64:
                machine.registers[0] = -EINVAL & M64
                machine.called()
                return following
            if rounds & M64 > MAX_LOOPS:
                raise NotModelledError(
                    f"bpf_loop of more than {MAX_LOOPS} rounds returns what depends on whether"
                    " Linux builds it in"
                )
            if rounds == 0:
                return machine.go_on(Loop(0, 0, 0, following))
            target = self._start_at(callback & M64)
            return machine.go_on(Loop(rounds, target, context, following))

        return step


def _trap(kind: str, detail: str) -> Step:
    def step(_machine: Machine) -> int:
        raise TrapError(kind, detail)

    return step


def _call_kfunc(kfunc: Kfunc, following: int) -> Step:
    """Call a function of the kernel with arguments in r1 to r5 and in outgoing slots."""
    in_registers = min(kfunc.arguments, REG_ARGS)
    slots = range(1, kfunc.arguments - REG_ARGS + 1)

    def step(machine: Machine) -> int:
        arguments = [r & M64 for r in machine.registers[1 : in_registers + 1]]
        for slot in slots:
            if slot not in machine.frame.outgoing:
                raise TrapError("stack", f"outgoing slot {slot} was not written")
            arguments.append(machine.frame.outgoing[slot] & M64)
        result = kfunc.call(machine, arguments)
        machine.registers[0] = UNDEFINED if result is None else result & M64
        machine.called()
        return following

    return step


def _not_modelled(why: str) -> Step:
    def step(_machine: Machine) -> int:
        raise NotModelledError(why)

    return step


def _misuses_a_register(insn: Insn) -> bool:
    """Say whether *insn* writes r10, or names r11 where only r0 to r10 may stand."""
    dst, src = getattr(insn, "dst", 0), getattr(insn, "src", 0) or 0
    if dst < FP and src < FP:
        return False
    match insn:
        case Raw():
            return False
        case LoadImm():  # its source is a kind
            return dst >= FP
        case Alu() | Endian() | Load() | AddrSpaceCast() | PercpuAddr() if dst == FP:
            return True
        case Atomic(op="load_acquire") if dst == FP:
            return True
        case Atomic(op="add" | "or" | "and" | "xor" | "xchg", fetch=True) if src == FP:
            return True
    return max(dst, src) >= PARAMS


def _alu(insn: Alu, following: int) -> Step:
    """Arithmetic (RFC 9669, 4.1); the 32-bit forms clear the high half of dst."""
    dst, src, bits = insn.dst, insn.src, insn.bits
    mask = (1 << bits) - 1
    constant = insn.imm & mask  # sign-extended to *bits*

    if insn.op == "mov":

        def move(machine: Machine) -> int:
            machine.registers[dst] = machine.registers[cast(int, src)] & mask
            return following

        def move_constant(machine: Machine) -> int:
            machine.registers[dst] = constant
            return following

        def move_signed(machine: Machine) -> int:
            machine.registers[dst] = signed(machine.registers[cast(int, src)], insn.sx) & mask
            return following

        if src is None:
            return move_constant
        return move_signed if insn.sx else move

    compute = ALU[insn.op]

    def with_register(machine: Machine) -> int:
        r = machine.registers
        r[dst] = compute(r[dst] & mask, r[cast(int, src)] & mask, bits) & mask
        return following

    def with_constant(machine: Machine) -> int:
        r = machine.registers
        r[dst] = compute(r[dst] & mask, constant, bits) & mask
        return following

    return with_constant if src is None else with_register


def _endian(insn: Endian, following: int) -> Step:
    """Byte order conversion (RFC 9669, 4.2) on a little-endian machine."""
    dst, size = insn.dst, insn.bits // 8
    mask = (1 << insn.bits) - 1
    order: Any = "little" if insn.op == "le" else "big"

    def step(machine: Machine) -> int:
        value = machine.registers[dst] & mask
        machine.registers[dst] = int.from_bytes(value.to_bytes(size, "little"), order)
        return following

    return step


def _memory(insn: Load | Store | StoreImm, following: int) -> Step:
    """Plain loads and stores (RFC 9669, 5.1 and 5.2)."""
    size, off, dst = insn.size, insn.off, insn.dst
    mask = (1 << 8 * size) - 1
    match insn:
        case Load(src=src, signed=sign):

            def load(machine: Machine) -> int:
                r = machine.registers
                value = machine.load(r[src] + off & M64, size)
                r[dst] = signed(value, 8 * size) & M64 if sign else value
                return following

            return load
        case Store(src=src):

            def store(machine: Machine) -> int:
                r = machine.registers
                machine.store(r[dst] + off & M64, size, r[src] & mask)
                return following

            return store
        case StoreImm(imm=imm):
            constant = imm & mask  # sign-extended

            def store_constant(machine: Machine) -> int:
                machine.store(machine.registers[dst] + off & M64, size, constant)
                return following

            return store_constant


def _atomic(insn: Atomic, following: int) -> Step:
    """Atomic operations (RFC 9669, 5.3) and Linux's ordered loads and stores."""
    op, size, off, dst, src = insn.op, insn.size, insn.off, insn.dst, insn.src
    mask = (1 << 8 * size) - 1
    if op == "load_acquire":
        return _memory(Load(size, dst, src, off), following)
    if op == "store_release":
        return _memory(Store(size, dst, off, src), following)

    def compare_exchange(machine: Machine) -> int:
        r = machine.registers
        address = r[dst] + off & M64
        new, expected = r[src] & mask, r[0] & mask
        old = machine.load(address, size)
        machine.store(address, size, new if old == expected else old)
        r[0] = old
        return following

    if op == "cmpxchg":
        return compare_exchange
    compute = ATOMIC[op]

    def step(machine: Machine) -> int:
        r = machine.registers
        address = r[dst] + off & M64
        operand = r[src] & mask
        old = machine.load(address, size)
        machine.store(address, size, compute(old, operand) & mask)
        if insn.fetch:
            r[src] = old
        return following

    return step


def _jump(insn: Jump | Goto | MayGoto, target: int, following: int) -> Step:
    """Jumps (RFC 9669, 4.3) and ``may_goto``."""
    match insn:
        case Goto():
            return lambda _machine: target
        case MayGoto():

            def may_goto(machine: Machine) -> int:
                if machine.frame.loops == 0:
                    return target
                machine.frame.loops -= 1
                return following

            return may_goto
        case Jump(op=op, bits=bits, dst=dst, src=src, imm=imm):
            mask = (1 << bits) - 1
            constant = imm & mask  # sign-extended to *bits*
            holds = JUMP[op]

            def jump(machine: Machine) -> int:
                r = machine.registers
                taken = holds(r[dst] & mask, r[cast(int, src)] & mask, bits)
                return target if taken else following

            def jump_constant(machine: Machine) -> int:
                taken = holds(machine.registers[dst] & mask, constant, bits)
                return target if taken else following

            return jump_constant if src is None else jump


def _stack_argument(insn: Insn, incoming: int | None, outgoing: int | None, following: int) -> Step:
    """Read an incoming slot or write an outgoing one (isa/stack_args.py).

    An incoming slot is there only until the first store to a slot, and the first call:
    the native convention keeps argument 6 in a register that both of them reuse.
    """
    match insn:
        case Load(dst=dst):
            slot = cast(int, incoming)
            if dst >= FP:
                return _trap("instruction", f"r{dst} may not be loaded")

            def load(machine: Machine) -> int:
                frame = machine.frame
                if not frame.at_entry:
                    raise TrapError("stack", "incoming slot read after an r11 store or a call")
                if slot not in frame.incoming:
                    raise TrapError("stack", f"incoming slot {slot} was not written")
                machine.registers[dst] = frame.incoming[slot]
                return following

            return load
        case Store(src=src) if src <= FP:
            slot = cast(int, outgoing)
            if slot > MAX_SLOTS:
                return _trap("stack", f"outgoing slot {slot} is past the last")

            def store(machine: Machine) -> int:
                machine.frame.outgoing[slot] = machine.registers[src] & M64
                machine.frame.at_entry = False
                return following

            return store
        case StoreImm(imm=imm):
            slot = cast(int, outgoing)
            if slot > MAX_SLOTS:
                return _trap("stack", f"outgoing slot {slot} is past the last")

            def store_constant(machine: Machine) -> int:
                machine.frame.outgoing[slot] = imm & M64
                machine.frame.at_entry = False
                return following

            return store_constant
    return _trap("instruction", "r11 addresses stack arguments only")


def interpret(
    program: Program,
    vector: bytes,
    *,
    fuel: int = FUEL,
    helpers: Mapping[int, Helper] = HELPERS,
    trace: Trace | None = None,
) -> Outcome:
    """Run *program* on *vector* for at most *fuel* instructions, and return what it did."""
    return Interpreter(program, helpers).run(vector, fuel=fuel, trace=trace)
