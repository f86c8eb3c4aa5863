"""Requests to the agent: a block of memory, and steps to take on it (agent.c).

A step is one system call beside the kernel. Its result goes to a *slot*; later steps
name slots where they need a file descriptor, and depend on them: a step is skipped
whose condition fails or whose descriptor is missing.

    script = Script()
    btf = script.bpf(BTF_LOAD, (Address(script.place(data)), Quad(0), len(data), 0, 0))
    reply = guest.ask(script)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

MAGIC = int.from_bytes(b"CCGA", "little")
VERSION = 1
SKIPPED = -125  # ECANCELED: the result of a step that was not taken
ROOMS = 1 << 27  # offset in memory where the rooms begin; what is brought lies below
MAX_MEMORY = 0xF000_0000
ANY = 0xFFFFFFFF  # instead of a slot: none has to hold anything

_REQUEST = struct.Struct("<10I")
_STEP, _PATCH, _RANGE = struct.Struct("<10I"), struct.Struct("<4I"), struct.Struct("<5I")
HELLO = REPLY = struct.Struct("<4IQ")

# What a step does, what it asks of a slot, and kinds of patches: agent.c
BPF, RUN, READ, WRITE, MODULE, MAP, RING = range(7)
ALWAYS, IF_OK, IF_FAILED = range(3)
ADDRESS, DESCRIPTOR = range(2)


@dataclass(frozen=True, slots=True)
class Address:
    """In an attribute: 8 bytes, where *offset* of the memory lies in the agent."""

    offset: int


@dataclass(frozen=True, slots=True)
class Fd:
    """In an attribute: 4 bytes, the file descriptor in *slot*."""

    slot: int


@dataclass(frozen=True, slots=True)
class Quad:
    """In an attribute: 8 bytes."""

    value: int


Field = int | bytes | Address | Fd | Quad  # an int is 4 bytes
Condition = tuple[int, int]  # ALWAYS, IF_OK or IF_FAILED, and the slot it is about


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a script."""

    results: tuple[int, ...]  # by step: 0 or more, -errno, or SKIPPED
    ranges: tuple[bytes, ...]  # by number
    seconds: float = 0.0  # since the agent could begin with it


@dataclass
class Script:
    """A request being written."""

    patience: float = 60.0  # seconds one bpf(2) may take before it is told to give up
    slots: int = 0
    _memory: bytearray = field(default_factory=bytearray)
    _room: int = ROOMS
    _steps: list[bytes] = field(default_factory=list)
    _patches: list[bytes] = field(default_factory=list)
    _ranges: list[bytes] = field(default_factory=list)

    def slot(self) -> int:
        """Return the number of a new slot."""
        self.slots += 1
        return self.slots - 1

    @property
    def size(self) -> int:
        """The bytes it brings, about."""
        return len(self._memory) + 40 * len(self._steps)

    # --- memory -------------------------------------------------------------

    def place(self, data: bytes) -> int:
        """Put *data* into the memory; return its offset, a multiple of 8."""
        self._memory += bytes(-len(self._memory) % 8)
        offset = len(self._memory)
        self._memory += data
        if len(self._memory) > ROOMS:
            raise ValueError(f"a request of more than {ROOMS} bytes")
        return offset

    def text(self, text: str) -> int:
        """Put *text* into the memory with a zero byte behind; return its offset."""
        return self.place(text.encode("utf-8", "surrogateescape") + b"\0")

    def room(self, size: int) -> int:
        """Return the offset of *size* bytes of zeros, a multiple of 8."""
        offset = self._room
        self._room += -(-size // 8) * 8
        if self._room > MAX_MEMORY:
            raise ValueError(f"a request that needs more than {MAX_MEMORY} bytes of memory")
        return offset

    # --- steps --------------------------------------------------------------

    def bpf(
        self,
        command: int,
        fields: Sequence[Field],
        *,
        slot: int | None = None,
        when: Condition = (ALWAYS, 0),
    ) -> Step:
        """Add one bpf call with the attribute *fields*; its result goes to *slot*."""
        offset, size, patches = self.attribute(fields)
        return self.step(BPF, command, offset, size, slot=slot, when=when, patches=patches)

    def attribute(self, fields: Sequence[Field]) -> tuple[int, int, list[bytes]]:
        """Put an attribute into the memory; return its offset, size and patches."""
        data = bytearray()
        late: list[tuple[int, int, int]] = []
        for each in fields:
            match each:
                case int():
                    data += (each & 0xFFFFFFFF).to_bytes(4, "little")
                case bytes():
                    data += each
                case Quad(value=value):
                    data += (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little")
                case Address(offset=at):
                    late.append((len(data), ADDRESS, at))
                    data += bytes(8)
                case Fd(slot=number):
                    late.append((len(data), DESCRIPTOR, number))
                    data += bytes(4)
        start = self.place(bytes(data))
        return start, len(data), [_PATCH.pack(start + at, k, v, 0) for at, k, v in late]

    def step(
        self,
        op: int,
        a: int = 0,
        b: int = 0,
        c: int = 0,
        d: int = 0,
        *,
        slot: int | None = None,
        when: Condition = (ALWAYS, 0),
        patches: Sequence[bytes] = (),
    ) -> Step:
        """Add a step; what *a* to *d* mean depends on *op*."""
        slot = self.slot() if slot is None else slot
        first = len(self._patches)
        self._patches += patches
        condition, subject = when
        self._steps.append(
            _STEP.pack(op, slot, condition, subject, first, len(patches), a, b, c, d)
        )
        return Step(len(self._steps) - 1, slot)

    def read_file(self, path: str, limit: int) -> tuple[Step, int]:
        """Add reading the file *path*; return the step and the number of the range it fills."""
        to, length = self.room(limit), self.room(8)
        step = self.step(READ, self.text(path), limit, to, length)
        return step, self.counted(to, limit, length, 1, step.slot)

    def write_file(self, path: str, data: bytes) -> Step:
        """Add writing *data* to the file *path*."""
        return self.step(WRITE, self.text(path), len(data), self.place(data))

    def module(self, data: bytes) -> Step:
        """Add loading the kernel module *data*, uncompressed; it stays until the kernel ends."""
        return self.step(MODULE, 0, len(data), self.place(data))

    # --- what comes back ----------------------------------------------------

    def fixed(self, at: int, size: int, slot: int) -> int:
        """Ask for *size* bytes at *at* if *slot* holds no error; return the range's number."""
        return self.counted(at, size, self.place(struct.pack("<I", size)), 1, slot)

    def string(self, at: int, limit: int, slot: int | None = None) -> int:
        """Ask for the string at *at*, without its zero byte, if *slot* holds no error."""
        return self.counted(at, limit, 0, 0, ANY if slot is None else slot)

    def counted(self, at: int, limit: int, length_at: int, scale: int, slot: int) -> int:
        """Ask for as many elements of *scale* bytes at *at* as the u32 at *length_at* says."""
        self._ranges.append(_RANGE.pack(at, limit, length_at, scale, slot))
        return len(self._ranges) - 1

    def encode(self, number: int) -> bytes:
        """Return the request in its binary form."""
        header = _REQUEST.pack(
            MAGIC,
            number,
            self._room,
            len(self._memory),
            len(self._steps),
            len(self._patches),
            len(self._ranges),
            max(self.slots, 1),
            int(self.patience * 1000),
            0,
        )
        return b"".join((header, *self._steps, *self._patches, *self._ranges, self._memory))


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a script."""

    number: int
    slot: int


def reply_size(header: bytes) -> tuple[int, int]:
    """Return the number in a reply's *header* and how many bytes follow it.

    Raises ValueError for what is no reply.
    """
    magic, number, steps, ranges, size = REPLY.unpack(header)
    if magic != MAGIC:
        raise ValueError(f"the agent says {header.hex()}")
    return number, steps * 8 + ranges * 4 + size


def decode(header: bytes, body: bytes, seconds: float = 0.0) -> Reply:
    """Return the reply that *header* and *body* hold."""
    _, _, steps, ranges, _ = REPLY.unpack(header)
    results = struct.unpack_from(f"<{steps}q", body)
    lengths = struct.unpack_from(f"<{ranges}I", body, 8 * steps)
    parts, at = [], 8 * steps + 4 * ranges
    for length in lengths:
        parts.append(body[at : at + length])
        at += length
    return Reply(results, tuple(parts), seconds)
