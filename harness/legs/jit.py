"""The ``jit`` leg: our x86-64 image, run by unicorn on a batch of contexts at a time.

One emulator serves every program of the process. Contexts lie side by side in emulated
memory, each between two gaps of a known pattern; a small loop there (``_loop``) restores
the program's writable data, calls the entry on each context, keeps its result and counts.
A fault stops the emulator; the count names the vector, and the loop goes on at the next.

All memory the host looks at is mapped from the host's own, so that nothing is copied
through unicorn. Guard pages, which nothing is mapped to, lie around the stack.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import unicorn
from unicorn import x86_const as x86

from harness.interp import (
    ARRAY_MAP,
    CONVERTED_CONTEXTS,
    HELPERS,
    Helper,
    Map,
    NotModelledError,
    Places,
    Rings,
    TrapError,
)
from harness.isa.insn import GotoX
from harness.jit.linker import link
from harness.jit.x86_64 import compile as compile_program
from harness.jit.x86_encoder import (
    INT3,
    LEAVE,
    NE,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    RET,
    RSI,
    RSP,
    ADD_ri8,
    ADD_rr,
    B,
    CMP_rr,
    JCC_i32,
    JMP_i32,
    MOV32_ri32,
    MOV_mr,
    MOV_ri64,
    MOV_rm,
    MOV_rr,
    PUSH_r,
    SUB_ri8,
)
from harness.legs import jit_helpers, jit_runtime, sides
from harness.legs.jit_helpers import aligned
from harness.legs.native_code import PlacedObject, UnlinkableError, place
from harness.model import (
    Batch,
    HarnessError,
    Image,
    MapDef,
    Outcome,
    OutOfFuel,
    Program,
    Relocation,
    Runner,
    Trapped,
    Unknown,
    Vector,
)

uc: Any = unicorn  # it says it is typed, and is not

TRANSLATED = 32 << 20  # bytes of translated code that unicorn keeps at most; 1 GiB if not told
FORGET = 512 << 10  # bytes of images, after which it forgets what it translated
PATIENCE = 0.5  # seconds; a vector that runs through two of them is out of fuel
IMPATIENCE = 0.1  # the same, once a vector of the program has been
MAX_OUT_OF_FUEL = 16  # vectors of one batch, then the rest is not tried

# fmt: off
# Emulated memory: start, size in bytes. Everything between is unmapped.
CODE     = 0x1000_0000, 32 << 20  # the image
LOOP     = 0x1800_0000, 1 << 16   # the batch loop, stubs of helpers
KERNEL   = 0x1900_0000, 1 << 20   # code of the kernel's side: its functions
KERNEL_RO = 0x1A00_0000, 1 << 20  # their read-only data
NATIVE   = 0x1B00_0000, 1 << 16   # code of helpers
NATIVE_RO = 0x1C00_0000, 1 << 16  # its read-only data
STATE    = 0x2000_0000, 1 << 12   # what the loop works on
CONTEXTS = 0x2100_0000, 2 << 20
RESULTS  = 0x2200_0000, 1 << 18
STACK    = 0x2300_0000, 1 << 17
DATA     = 0x2400_0000, 4 << 20   # data of the kernel's side, maps that the program may write
PRISTINE = 0x2500_0000, 4 << 20   # the same, as every vector finds them
RODATA   = 0x2600_0000, 4 << 20   # maps that it may only read
HEAP     = 0x2700_0000, 4 << 20   # values of map elements that helpers in Python make
HANDLES  = 0x2800_0000, 1 << 20   # addresses of maps themselves; never mapped
SIDES    = 0x2900_0000, 8 << 20   # what native helpers keep for each vector

# Cells of the state, 8 bytes each
INDEX, COUNT, CONTEXT, STRIDE, RESULT, ENTRY, RESTORE, TARGET = range(0, 64, 8)
HELPER = 64                       # what a stub was called with: number, five arguments
ANSWER = HELPER + 6 * 8           # and what it returns
MAPS, SIDE_STRIDE = 128, 136      # for native helpers: their table of maps, bytes of a side
# fmt: on

GAP = 32  # bytes between two contexts
FILL = 0xC5  # what they hold
KEPT = 0x5AFE_5AFE_5AFE_5AFE  # what registers that a call keeps hold before it
KEPT_REGISTERS = RBX, RBP, R12, R13, R14, R15
RUNTIME = LOOP[0] + (LOOP[1] >> 2)  # what must be code, behind the loop
STUBS = LOOP[0] + (LOOP[1] >> 1)  # the helpers' stubs, in order of first use
STUB_SIZE = 16
MAX_STUBS = (LOOP[1] >> 1) // STUB_SIZE
HELPER_CALL = STUBS - 128  # what all stubs go on to
HANDLE_SIZE = 256  # bytes between two maps' handles
ARGUMENT_REGISTERS = RDI, RSI, RDX, RCX, R8, R9  # System V, in order
MAX_NATIVE_ARGS = 12
NOP = b"\x90"  # 90: where the emulator stops
_CALL_RAX = b"\xff\xd0"  # FF /2
_REP_MOVSQ = b"\xf3\x48\xa5"  # F3 REX.W A5
_SYSCALL = b"\x0f\x05"  # 0F 05: here a call of the host


_SIX = struct.Struct("<6Q")
_NATIVE_SYMBOLS = (  # what native helpers want to know
    ("crosscheck_index", STATE[0] + INDEX),
    ("crosscheck_stride", STATE[0] + SIDE_STRIDE),
    ("crosscheck_maps", STATE[0] + MAPS),
    ("crosscheck_sides", SIDES[0]),
    ("crosscheck_handles", HANDLES[0]),
)


def _stub(number: int) -> bytes:
    """Return the stub of helper *number*; memory is many times quicker to ask than registers."""
    code = MOV32_ri32(RAX, number)
    place = STUBS + STUB_SIZE * number + len(code)
    jump = JMP_i32(HELPER_CALL - (place + len(JMP_i32(0))))
    return (code + jump).ljust(STUB_SIZE, INT3)


def _helper_call() -> bytes:
    """Return the code that hands a helper's number and arguments to the host."""
    registers = (RAX, RDI, RSI, RDX, RCX, R8)
    return b"".join(
        (
            MOV_ri64(R11, STATE[0]),
            *(MOV_mr(R11, HELPER + 8 * n, register) for n, register in enumerate(registers)),
            _SYSCALL,
            MOV_ri64(R11, STATE[0]),
            MOV_rm(RAX, R11, ANSWER),
            RET,
        )
    )


def _loop() -> tuple[bytes, int, int]:
    """Return the batch loop's code, and the offsets of its end and of its trampoline.

    The loop keeps nothing in registers: a wrong image may spoil any of them. A call that
    does not keep what System V says it keeps ends in the ``int3`` behind the end.
    """
    top_of_stack = STACK[0] + STACK[1] - 64
    before = (
        MOV_ri64(RBX, STATE[0]),
        MOV_rm(RCX, RBX, RESTORE),
        MOV_ri64(RSI, PRISTINE[0]),
        MOV_ri64(RDI, DATA[0]),
        _REP_MOVSQ,
        MOV_rm(RDI, RBX, CONTEXT),
        MOV_rm(RAX, RBX, ENTRY),
        MOV_ri64(RSP, top_of_stack),
        *(MOV_ri64(register, KEPT) for register in KEPT_REGISTERS),
        *(MOV_rr(register, RBX) for register in (RSI, RDX, RCX, R8, R9, R10, R11)),
        _CALL_RAX,
        MOV_ri64(RCX, KEPT),
    )
    after = (
        MOV_ri64(RBX, STATE[0]),
        MOV_rm(RDX, RBX, RESULT),
        MOV_mr(RDX, 0, RAX),
        ADD_ri8(RDX, 8),
        MOV_mr(RBX, RESULT, RDX),
        MOV_rm(RDX, RBX, CONTEXT),
        MOV_rm(RCX, RBX, STRIDE),
        ADD_rr(RDX, RCX),
        MOV_mr(RBX, CONTEXT, RDX),
        MOV_rm(RDX, RBX, INDEX),
        ADD_ri8(RDX, 1),
        MOV_mr(RBX, INDEX, RDX),
        MOV_rm(RCX, RBX, COUNT),
        CMP_rr(RDX, RCX),
    )
    checks = [CMP_rr(register, RCX) for register in KEPT_REGISTERS]
    checks.append(MOV_ri64(RCX, top_of_stack) + CMP_rr(RSP, RCX))
    jump = len(JCC_i32(NE, 0))
    body = b"".join(before)
    tail = b"".join(after)
    rest = sum(len(check) + jump for check in checks)
    end = len(body) + rest + len(tail) + jump
    for check in checks:
        body += check
        body += JCC_i32(NE, end + len(NOP) - len(body) - jump)
    body += tail
    body += JCC_i32(B, -len(body) - jump)
    body += NOP + INT3
    return body + _trampoline(), end, len(body)


def _trampoline() -> bytes:
    """Return code that calls TARGET with the twelve values the context holds, System V."""
    on_stack = MAX_NATIVE_ARGS - len(ARGUMENT_REGISTERS)
    code = PUSH_r(RBP) + MOV_rr(RBP, RSP) + SUB_ri8(RSP, 8 * on_stack) + MOV_rr(RAX, RDI)
    for index in range(on_stack):
        code += MOV_rm(RCX, RAX, 8 * (len(ARGUMENT_REGISTERS) + index))
        code += MOV_mr(RSP, 8 * index, RCX)
    for index, register in enumerate(ARGUMENT_REGISTERS):
        code += MOV_rm(register, RAX, 8 * index)
    code += MOV_ri64(RAX, STATE[0]) + MOV_rm(RAX, RAX, TARGET) + _CALL_RAX
    return code + LEAVE + RET


class _Emulator:
    """The one unicorn instance, its memory, and the runner whose image is in it."""

    def __init__(self) -> None:
        self.engine = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
        self.engine.ctl_set_tcg_buffer_size(TRANSLATED)
        self.engine.ctl_set_cpu_model(x86.UC_CPU_X86_HASWELL)
        read, write, execute = uc.UC_PROT_READ, uc.UC_PROT_WRITE, uc.UC_PROT_EXEC
        self.code = self._map(CODE, read | execute)
        self.loop = self._map(LOOP, read | execute)
        self.kernel = self._map(KERNEL, read | execute)
        self.kernel_rodata = self._map(KERNEL_RO, read)
        self.native = self._map(NATIVE, read | execute)
        self.native_rodata = self._map(NATIVE_RO, read)
        self.state = self._map(STATE, read | write)
        self.contexts = self._map(CONTEXTS, read | write)
        self.results = self._map(RESULTS, read | write)
        self.stack = self._map(STACK, read | write)
        self.data = self._map(DATA, read | write)
        self.pristine = self._map(PRISTINE, read)
        self.rodata = self._map(RODATA, read)
        self.heap = self._map(HEAP, read | write)
        self.sides = self._map(SIDES, read | write)
        self.areas = (  # what a helper may read, and whether it may write it
            (CONTEXTS, self.contexts, True),
            (STACK, self.stack, True),
            (DATA, self.data, True),
            (HEAP, self.heap, True),
            (RODATA, self.rodata, False),
        )
        code, end, trampoline = _loop()
        self.loop[: len(code)] = code
        call = _helper_call()
        self.loop[HELPER_CALL - LOOP[0] : HELPER_CALL - LOOP[0] + len(call)] = call
        self.runtime = jit_runtime.runtime(RUNTIME)
        start = RUNTIME - LOOP[0]
        self.loop[start : start + len(self.runtime.code)] = self.runtime.code
        self.loop[STUBS - LOOP[0] :] = b"".join(map(_stub, range(MAX_STUBS)))
        self.end = LOOP[0] + end
        self.trampoline = LOOP[0] + trampoline
        self.loaded: JitRunner | None = None
        self.images = 0  # bytes of images since the translations were forgotten
        self.side: PlacedObject | None = None  # the kernel's side that is in place
        self.native_helpers: PlacedObject | None = None  # the same, helpers
        self.stopped: Outcome | None = None  # why the emulator stopped before the end
        # Stores to a page that may be executed, or that a hook watches, are twenty times
        # slower: say what each page is for, and watch only what nothing may be written to.
        self.engine.ctl_set_tlb_mode(uc.UC_TLB_VIRTUAL)
        self.engine.hook_add(uc.UC_HOOK_TLB_FILL, self._on_page)
        start = 0
        for area in (STATE, CONTEXTS, RESULTS, STACK, DATA, HEAP, SIDES):
            self._watch(start, area[0])
            start = sum(area)
        self._watch(start, 1 << 64)
        self.engine.hook_add(uc.UC_HOOK_INTR, self._on_interrupt)
        self.engine.hook_add(uc.UC_HOOK_INSN, self._on_call, None, 1, 0, x86.UC_X86_INS_SYSCALL)
        # An exception unicorn reports stays pending in its registers, and changes what
        # the next one does: start from these every time.
        self.clean = self.engine.context_save()

    def _map(self, area: tuple[int, int], permissions: int) -> memoryview:
        """Map host memory at *area* and return it."""
        # private: a process forked from this one gets its own
        memory = mmap.mmap(-1, area[1], mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pointer = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self.engine.mem_map_ptr(*area, permissions, pointer)
        return memoryview(memory)

    def _watch(self, start: int, end: int) -> None:
        """Call ``_on_invalid`` for bad accesses from *start* up to *end*, excluded."""
        self.engine.hook_add(uc.UC_HOOK_MEM_INVALID, self._on_invalid, None, start, end - 1)

    def cell(self, name: int) -> int:
        """Return the state's cell at offset *name*."""
        return int.from_bytes(self.state[name : name + 8], "little")

    def set_cell(self, name: int, value: int) -> None:
        """Set the state's cell at offset *name*."""
        self.state[name : name + 8] = value.to_bytes(8, "little")

    def load(self, runner: JitRunner) -> None:
        """Put *runner*'s image and data in place, unless they are there."""
        if self.loaded is runner:
            return
        new, old = runner.linked.code, 0 if self.loaded is None else len(self.loaded.linked.code)
        self.code[: max(old, len(new))] = new.ljust(old, INT3)
        self.rodata[: len(runner.rodata)] = runner.rodata
        self.pristine[: len(runner.data)] = runner.data
        self.set_cell(RESTORE, len(runner.data) // 8)
        side = runner.side
        if side is not None and side is not self.side:
            self.kernel[: len(side.code)] = side.code
            self.kernel_rodata[: len(side.rodata)] = side.rodata
            self.engine.ctl_remove_cache(KERNEL[0], sum(KERNEL))
            self.side = side
        native = runner.native
        if native is not None:
            if native is not self.native_helpers:
                self.native[: len(native.code)] = native.code
                self.native_rodata[: len(native.rodata)] = native.rodata
                self.engine.ctl_remove_cache(NATIVE[0], sum(NATIVE))
                self.native_helpers = native
            self.set_cell(MAPS, runner.table)
            self.set_cell(SIDE_STRIDE, runner.room)
        # unicorn does not see what the host writes to code it has translated, and keeps what
        # it has no use for until its room is full: emptying that takes long, so not while a
        # vector's time is measured
        self.images += len(new)
        if self.images > FORGET:
            self.images = 0
            self.engine.ctl_flush_tb()
        else:
            self.engine.ctl_remove_cache(CODE[0], CODE[0] + max(old, len(new)))
        self.loaded = runner

    def go(self, first: int, count: int, stride: int, patience: float) -> Outcome | None:
        """Run vectors *first* to *count*; the first that does not return ends it.

        Return what that one did, and leave its number in INDEX; None: all returned.
        """
        self.set_cell(INDEX, first)
        self.set_cell(COUNT, count)
        self.set_cell(STRIDE, stride)
        self.set_cell(CONTEXT, CONTEXTS[0] + GAP + first * stride)
        self.set_cell(RESULT, RESULTS[0] + 8 * first)
        self.engine.context_restore(self.clean)
        self.stopped = None
        address = LOOP[0]
        index, began = first, time.thread_time()
        while True:
            try:
                self.engine.emu_start(address, self.end, timeout=int(patience * 1e6))
            except uc.UcError as error:
                if error.errno == uc.UC_ERR_INSN_INVALID:  # ud2: how our own code gives up
                    where = self.engine.reg_read(x86.UC_X86_REG_RIP)
                    if where == self.runtime.clock:
                        return OutOfFuel()
                    if NATIVE[0] <= where < sum(NATIVE):
                        return Unknown(f"more than {sides.SIZE} bytes of records are not modelled")
                fetch = error.errno in (uc.UC_ERR_FETCH_UNMAPPED, uc.UC_ERR_FETCH_PROT)
                kind = "call" if fetch else "instruction"
                return self.stopped or Trapped(kind, f"{self.where()}: {error}")
            if self.stopped is not None:
                return self.stopped
            address = self.engine.reg_read(x86.UC_X86_REG_RIP)
            if address == self.end:
                return None
            if not self.engine.query(uc.UC_QUERY_TIMEOUT):
                return Trapped("instruction", f"{self.where()}: the processor halted")
            if self.cell(INDEX) != index:
                index, began = self.cell(INDEX), time.thread_time()
            elif time.thread_time() - began >= patience / 2:
                # unicorn's clock goes on while a busy machine lets us wait, ours does not
                return OutOfFuel()

    def where(self) -> str:
        """Return the place in the image the processor is at, for people."""
        address = self.engine.reg_read(x86.UC_X86_REG_RIP)
        place = self.loaded.linked.where(address) if self.loaded is not None else None
        if place is None:
            return f"{address:#x}"
        name, slot = place
        return f"{name}, {'prologue' if slot is None else f'slot {slot}'}, {address:#x}"

    def _on_page(self, _engine: Any, page: int, access: int, entry: Any, _data: Any) -> bool:
        """Say where *page* is, and what for; what is mapped there may allow less."""
        code = access == uc.UC_MEM_FETCH
        entry.paddr = page
        entry.perms = uc.UC_PROT_READ | (uc.UC_PROT_EXEC if code else uc.UC_PROT_WRITE)
        return True

    def _on_invalid(
        self, _engine: Any, access: int, address: int, size: int, _value: int, _data: Any
    ) -> bool:
        """Note a bad access; unicorn then stops with an error."""
        if access in (uc.UC_MEM_FETCH_UNMAPPED, uc.UC_MEM_FETCH_PROT):
            self.stopped = Trapped("call", f"no code at {address:#x}")
        elif HANDLES[0] <= address < HANDLES[0] + HANDLES[1]:
            self.stopped = Unknown("reading a map's own fields is not modelled")
        else:
            self.stopped = Trapped("access", f"{self.where()}: {size} bytes at {address:#x}")
        return False

    def _on_interrupt(self, engine: Any, number: int, _data: Any) -> None:
        """Stop at an exception: 0 is a divide error, 3 a breakpoint (SDM, volume 3, 6.3.1)."""
        if engine.reg_read(x86.UC_X86_REG_RIP) == self.end + len(NOP + INT3):
            self.stopped = Trapped("call", "a register that calls keep was not kept")
        elif number == 0:
            self.stopped = Trapped("divide", self.where())
        else:
            self.stopped = Trapped("instruction", f"{self.where()}: exception {number}")
        engine.emu_stop()

    def _on_call(self, engine: Any, _data: Any) -> None:
        """Do what a stub stands for: a helper of the loaded runner."""
        if self.loaded is None:
            raise HarnessError("a stub was called without an image")
        number, *arguments = _SIX.unpack_from(self.state, HELPER)
        try:
            result = self.loaded.call_helper(number, self.cell(INDEX), arguments)
        except TrapError as trap:
            kind, detail = trap.args
            self.stopped = Trapped(kind, detail)
            engine.emu_stop()
        except NotModelledError as why:
            self.stopped = Unknown(str(why))
            engine.emu_stop()
        else:
            self.set_cell(ANSWER, result & (1 << 64) - 1)


@cache
def _emulator() -> _Emulator:
    return _Emulator()


class _Host:
    """What a helper sees of the emulator while it runs one vector; a ``Host``."""

    def __init__(self, emulator: _Emulator, vector: bytes, maps: list[Map]) -> None:
        self.vector = vector
        self.rings = Rings()
        self._emulator = emulator
        self._maps = maps
        self._top = 0  # of the heap, bytes

    def _find(self, address: int, size: int, writing: bool) -> memoryview:
        for (start, length), memory, writable in self._emulator.areas:
            if start <= address and address + size <= start + length and writing <= writable:
                return memory[address - start : address - start + size]
        raise TrapError("access", f"a helper's {size} bytes at {address:#x}")

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes at *address*."""
        return bytes(self._find(address, size, writing=False))

    def write(self, address: int, data: bytes) -> None:
        """Write *data* at *address*."""
        self._find(address, len(data), writing=True)[:] = data

    def allocate(self, data: bytes, writable: bool = True) -> int:
        """Return the address of fresh memory that holds *data*."""
        if not writable:
            raise NotModelledError("read-only maps of several elements are not modelled")
        address = HEAP[0] + self._top
        self._top += aligned(len(data), 64) + 64
        if self._top > HEAP[1]:
            raise NotModelledError(f"map elements of more than {HEAP[1]} bytes are not modelled")
        self.write(address, data)
        return address

    def map_at(self, handle: int) -> Map:
        """Return the map *handle* points to."""
        index, rest = divmod(handle - HANDLES[0], HANDLE_SIZE)
        if rest or not 0 <= index < len(self._maps):
            raise TrapError("call", f"{handle:#x} points to no map")
        return self._maps[index]


@cache
def _side(kernel: bytes) -> PlacedObject:
    """Return the object *kernel* relocated to where it lies in emulated memory."""
    try:
        placed = place(kernel, (KERNEL[0], KERNEL_RO[0], DATA[0]))
    except UnlinkableError as error:
        raise NotModelledError(f"the kernel's side: {error}") from None
    sizes = len(placed.code), len(placed.rodata), len(placed.data)
    if any(size > area[1] for size, area in zip(sizes, (KERNEL, KERNEL_RO, DATA), strict=True)):
        raise NotModelledError(f"a kernel's side of {sizes} bytes is not modelled")
    return placed


def _placed(definition: MapDef) -> bool:
    """Say whether the image may hold the address of the map's value."""
    return definition.type == ARRAY_MAP and definition.max_entries == 1


class JitRunner:
    """An image in place, ready for vectors."""

    def __init__(
        self,
        image: Image,
        maps: Sequence[MapDef],
        helpers: Mapping[int, Helper],
        patience: float,
        kernel: bytes = b"",
        native: bytes = b"",
    ) -> None:
        """Link *image*, with the object *kernel* beside it that defines kernel functions.

        *native* defines helpers; without it, or where it does not know what the image
        needs, they are those in Python. Raises ``NotModelledError`` for what does not fit.
        """
        self.image = image
        self.side = _side(kernel) if kernel else None
        self._emulator = _emulator()
        self._maps = maps
        self._helpers = helpers
        self._calls: list[tuple[str, str]] = []  # what each stub stands for: kind, target
        self._places: dict[str, int] = {}  # address of each map's first value
        own = b"" if self.side is None else self.side.data
        self.data = self._place(DATA, [m for m in maps if _placed(m) and not m.readonly], own)
        self.rodata = self._place(RODATA, [m for m in maps if _placed(m) and m.readonly])
        self.table, self.room = 0, sides.HEAD.size  # native helpers': maps, bytes of a side
        self.sided = False  # a helper looks at its vector's side
        self.native = self._native_helpers(image, native) if native else None
        self.linked = link(image, CODE[0], self._resolve)
        if len(self.linked.code) > CODE[1]:
            raise NotModelledError(f"an image of {len(self.linked.code)} bytes is not modelled")
        self._vectors: Sequence[Vector] = ()  # of the chunk that runs
        self._host: _Host | None = None
        self._host_index = -1  # vector the host is for
        self._patience = patience
        self._rings: dict[int, Rings] = {}  # by vector of the chunk, of those that call helpers

    def _place(self, area: tuple[int, int], maps: Sequence[MapDef], content: bytes = b"") -> bytes:
        """Give each of *maps* an address in *area* behind *content*; return what lies there."""
        if content:
            content = content.ljust(aligned(len(content), 64), b"\0")
        for definition in maps:
            self._places[definition.name] = area[0] + len(content)
            value = (definition.data or b"").ljust(definition.value_size, b"\0")
            content += value.ljust(aligned(len(value), 64) + 64, bytes([FILL]))
        if len(content) > area[1]:
            raise NotModelledError(f"{len(content)} bytes of global data are not modelled")
        return content

    def _native_helpers(self, image: Image, code: bytes) -> PlacedObject | None:
        """Return the helpers that *image* calls, and lay out their maps; None: not all of them."""
        called = jit_helpers.numbers(image)
        if not called or self._helpers is not HELPERS:
            return None
        native = jit_helpers.placed(code, (NATIVE[0], NATIVE_RO[0], 0), _NATIVE_SYMBOLS)
        if len(native.code) > NATIVE[1] or len(native.rodata) > NATIVE_RO[1]:
            raise NotModelledError("helpers of that size are not modelled")
        stores = [jit_helpers.storage(definition) for definition in self._maps]
        size = sum(len(store) for store in stores if store is not None)
        if (
            any(jit_helpers.address(native, n) is None for n in called if n in HELPERS)
            or None in stores
            or size > jit_helpers.MAX_STORAGE
        ):
            return None
        places = dict(self._places)
        for definition, store in zip(self._maps, stores, strict=True):
            if definition.name not in places and store:
                places[definition.name] = DATA[0] + len(self.data)
                self.data += store
        self.table = DATA[0] + len(self.data)
        self.data += jit_helpers.table(self._maps, self.table, places)
        if called & jit_helpers.RING_HELPERS:
            self.room = sides.SIZE
        self.sided = bool(called & jit_helpers.SIDED)
        return native

    def _resolve(self, relocation: Relocation) -> int:
        """Return the address of a relocation's target (``jit.link``)."""
        own = self._emulator.runtime.address(relocation.kind, relocation.target)
        if own is not None:
            return own
        if relocation.kind == "helper" and self.native is not None:
            address = jit_helpers.address(self.native, int(relocation.target))
            if address is not None:
                return address
        match relocation.kind:
            case "kfunc" if self.side is not None and relocation.target in self.side.symbols:
                return self.side.symbols[relocation.target]
            case "helper" | "kfunc":
                call = relocation.kind, relocation.target
                if call not in self._calls:
                    self._calls.append(call)
                if len(self._calls) > MAX_STUBS:
                    raise NotModelledError(f"more than {MAX_STUBS} functions of the kernel")
                return STUBS + STUB_SIZE * self._calls.index(call)
            case "data" if relocation.target in self._places:
                return self._places[relocation.target]
            case "map":
                for index, definition in enumerate(self._maps):
                    if definition.name == relocation.target:
                        return HANDLES[0] + HANDLE_SIZE * index
        raise NotModelledError(f"{relocation.kind} {relocation.target} is not modelled")

    def call_helper(self, number: int, index: int, arguments: Sequence[int]) -> int:
        """Return what the helper behind stub *number* returns, in vector *index*."""
        kind, target = self._calls[number]
        helper = self._helpers.get(int(target)) if kind == "helper" else None
        if helper is None:
            raise NotModelledError(f"{kind} {target} is not modelled")
        if self._host is None or self._host_index != index:
            maps = [Map(definition) for definition in self._maps]
            for place in maps:
                if place.definition.name in self._places:
                    key = bytes(place.definition.key_size)
                    place.entries[key] = self._places[place.definition.name]
            self._host = _Host(self._emulator, self._vectors[index], maps)
            self._host_index = index
            self._rings[index] = self._host.rings
        r1, r2, r3, r4, r5 = arguments
        return helper(self._host, r1, r2, r3, r4, r5)

    def run(self, vectors: Sequence[Vector]) -> Batch:
        """Return one outcome for each of *vectors*, in order."""
        self._emulator.set_cell(ENTRY, self.linked.entry)
        return self._run(vectors)

    def over(self, vector: Vector, stacks: Iterable[bytes]) -> list[Outcome]:
        """Return what it does on *vector* over each of *stacks*: the stack's bytes, repeated."""
        outcomes = []
        for stack in stacks:
            room = self._emulator.stack
            room[:] = (stack * (len(room) // len(stack) + 1))[: len(room)]
            outcomes.append(self.run([vector])[0])
        return outcomes

    def at(self, vector: Vector) -> tuple[Outcome, Places]:
        """Return what it does on *vector*, and where its memory lay."""
        emulator, frames = self._emulator, list[int]()

        def enter(engine: Any, _address: int, _size: int, _data: Any) -> None:
            # behind the return address lies the caller's frame pointer, which the new one points to
            frames.append(engine.reg_read(x86.UC_X86_REG_RSP) - 8)

        emulator.load(self)
        entries = {self.linked.entry, *self.linked.symbols.values()}
        hooks = [emulator.engine.hook_add(uc.UC_HOOK_CODE, enter, None, a, a) for a in entries]
        emulator.engine.ctl_flush_tb()  # what is translated calls no hook
        try:
            outcome = self.run([vector])[0]
        finally:
            for hook in hooks:
                emulator.engine.hook_del(hook)
            emulator.engine.ctl_flush_tb()
        values = tuple(self._places.items())
        return outcome, Places(CONTEXTS[0] + GAP, tuple(frames), values)

    def call(self, symbol: str, arguments: Sequence[Sequence[int]]) -> Batch:
        """Call the function *symbol* with each of *arguments*, up to twelve values, System V.

        Returns an outcome for each; contexts in them are the arguments as they were read.
        """
        self._emulator.set_cell(ENTRY, self._emulator.trampoline)
        self._emulator.set_cell(TARGET, self.linked.symbols[symbol])
        mask = (1 << 64) - 1
        padded = ([value & mask for value in row] for row in arguments)
        return self._run(
            [struct.pack("<12Q", *row, *[0] * (MAX_NATIVE_ARGS - len(row))) for row in padded]
        )

    def _run(self, vectors: Sequence[Vector]) -> Batch:
        self._emulator.load(self)
        length = max(map(len, vectors), default=0)
        stride = aligned(length, 8) + GAP
        chunk = min((CONTEXTS[1] - GAP) // stride, RESULTS[1] // 8, SIDES[1] // self.room)
        if chunk == 0:
            why = Unknown(f"contexts of {length} bytes are not modelled")
            return Batch.of([why] * len(vectors))
        batch, fuel = Batch([], []), MAX_OUT_OF_FUEL
        for start in range(0, len(vectors), chunk):
            part = self._run_chunk(vectors[start : start + chunk], length, stride, fuel)
            fuel -= sum(isinstance(outcome, OutOfFuel) for outcome in part.others.values())
            batch = _joined(batch, part) if start else part
        return batch

    def _run_chunk(self, vectors: Sequence[Vector], length: int, stride: int, fuel: int) -> Batch:
        """Run as many vectors as fit at once; each context gets *stride* bytes.

        After *fuel* vectors that do not end the rest is not tried.
        """
        emulator, count = self._emulator, len(vectors)
        self._vectors, self._host = vectors, None
        rings: dict[int, Rings] = {}
        self._rings = rings
        contexts = emulator.contexts[GAP : GAP + count * stride]
        emulator.contexts[:GAP] = bytes([FILL]) * GAP
        fill = bytes([FILL])
        alike = set(map(len, vectors)) == {length}
        if alike:
            gap = fill * (stride - length)
            contexts[:] = gap.join(vectors) + gap
        else:
            contexts[:] = b"".join([vector.ljust(stride, fill) for vector in vectors])
        if self.sided:
            for at, vector in enumerate(vectors):
                start = at * self.room
                emulator.sides[start : start + sides.HEAD.size] = sides.head(vector)
        odd: dict[int, Outcome] = {}  # the vectors that did not return
        index = 0
        while index < count:
            if fuel == 0:
                why = f"not tried: {MAX_OUT_OF_FUEL} vectors before it ran out of fuel"
                odd.update(dict.fromkeys(range(index, count), Unknown(why)))
                break
            outcome = emulator.go(index, count, stride, self._patience)
            if outcome is None:
                break
            index = emulator.cell(INDEX)
            odd[index] = outcome
            index += 1
            if isinstance(outcome, OutOfFuel):
                self._patience = min(self._patience, IMPATIENCE)
                fuel -= 1
        memory = bytes(emulator.contexts[: GAP + count * stride])
        results = struct.unpack(f"<{count}Q", emulator.results[: 8 * count])
        for index in _beside_broken_gaps(memory, vectors, length, stride) - odd.keys():
            if count == 1:
                odd[index] = Trapped("access", "wrote beside the context")
            else:
                odd[index] = self._run_chunk([vectors[index]], length, stride, 1)[0]
        rows = struct.iter_unpack(f"{length}s{stride - length}x", memory[GAP:])
        after = [context for (context,) in rows]
        if not alike:
            after = [ctx[: len(vector)] for ctx, vector in zip(after, vectors, strict=True)]
        if self.room == sides.SIZE:
            starts = range(0, count * self.room, self.room)
            kept = (emulator.sides[start : start + self.room] for start in starts)
            written = {index: sides.effects(records) for index, records in enumerate(kept)}
        else:
            written = {index: ring.effects() for index, ring in rings.items()}
        effects = {index: data for index, data in written.items() if data and index not in odd}
        return Batch(list(results), after, odd, effects)


def _joined(first: Batch, second: Batch) -> Batch:
    others = dict(first.others)
    others.update((len(first) + index, outcome) for index, outcome in second.others.items())
    effects = dict(first.effects)
    effects.update((len(first) + index, data) for index, data in second.effects.items())
    return Batch(first.r0s + second.r0s, first.contexts + second.contexts, others, effects)


def _beside_broken_gaps(
    memory: bytes, vectors: Sequence[Vector], length: int, stride: int
) -> set[int]:
    """Return the numbers of the vectors beside a gap that no longer holds FILL."""
    count, fill = len(vectors), bytes([FILL])
    body = memory[GAP:]
    words = memoryview(body).cast("Q")
    first = aligned(length, 8)  # bytes from here on lie in gaps, whatever the vector
    intact = (
        memory[:GAP] == fill * GAP
        and set(map(len, vectors)) == {length}
        and all(body[at::stride] == fill * count for at in range(length, first))
        and all(
            words[at :: stride // 8].tobytes() == fill * 8 * count
            for at in range(first // 8, stride // 8)
        )
    )
    beside: set[int] = set()
    if intact:
        return beside
    if memory[:GAP] != fill * GAP:
        beside.add(0)
    for index, vector in enumerate(vectors):
        gap = body[index * stride + len(vector) : (index + 1) * stride]
        if gap != fill * len(gap):
            beside |= {index, min(index + 1, count - 1)}
    return beside


def call(image: Image, symbol: str, arguments: Sequence[int], *, kernel: bytes = b"") -> Outcome:
    """Call the function *symbol* of *image* with up to twelve values, as native code would.

    *kernel* is an object that defines the kernel functions it calls. Returns what it did;
    r0 is the whole register, of which a narrow result has the lower bits only. Raises
    HarnessError for an unknown *symbol* or too many values. Many calls of one image are
    quicker by ``JitLeg.prepare_image`` and ``JitRunner.call``.
    """
    names = [sub.name for sub in image.subprograms]
    if symbol not in names:
        raise HarnessError(f"the image has no function {symbol}, but {', '.join(names)}")
    if len(arguments) > MAX_NATIVE_ARGS:
        raise HarnessError(
            f"{symbol}: {len(arguments)} arguments, functions take up to {MAX_NATIVE_ARGS}"
        )
    runner = JitLeg().prepare_image(image, kernel=kernel)
    if isinstance(runner, Unknown):
        return runner
    return runner.call(symbol, [arguments])[0]


class JitLeg:
    """Our x86-64 JIT under unicorn; takes programs after the verifier's fix-ups."""

    name = "jit"

    def __init__(self, helpers: Mapping[int, Helper] = HELPERS, patience: float = PATIENCE) -> None:
        self._helpers = helpers
        self._patience = patience  # seconds

    def prepare(self, program: Program) -> Runner | Unknown:
        """Compile and link *program*; Unknown for what the JIT or this leg does not model."""
        if program.type in CONVERTED_CONTEXTS:
            return Unknown(f"contexts of type {program.type} are not modelled")
        if any(isinstance(insn, GotoX) for insn in program.insns):
            return Unknown("gotox: jump tables are not modelled")
        image = compile_program(program)
        if isinstance(image, Unknown):
            return image
        return self.prepare_image(image, program.maps, program.kfunc_code, program.helper_code)

    def prepare_image(
        self,
        image: Image,
        maps: Sequence[MapDef] = (),
        kernel: bytes = b"",
        native: bytes = b"",
    ) -> JitRunner | Unknown:
        """Return a runner of an image that was made elsewhere, for a program with *maps*.

        *kernel* is a relocatable object for x86-64 that defines the kernel functions it
        calls, *native* one of helpers.
        """
        try:
            return JitRunner(image, maps, self._helpers, self._patience, kernel, native)
        except NotModelledError as why:
            return Unknown(str(why))
