"""LLVM IR to x86-64 code in memory: compiled by llvmlite, placed by a loader of our own.

llvmlite parses, optimises and compiles in a forked child, because LLVM ends the process on
what it cannot do; what comes back is an object file, or the reason there is none. The
loader keeps the writable data together, with a pristine copy, so that it can be renewed.
"""

from __future__ import annotations

import ctypes
import faulthandler
import marshal
import mmap
import os
import platform
import re
import resource
import select
import signal
import struct
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from harness.model import HarnessError, Unknown

LEVELS = (0, 1, 2, 3)
COMPILE_SECONDS = 60  # wall clock, for one module at all levels asked for
PAGE = mmap.PAGESIZE


# --- compiling --------------------------------------------------------------


def unsuited() -> str | None:
    """Return why no code of ours can run on this machine, None if it can."""
    if sys.platform == "linux" and platform.machine() == "x86_64":
        return None
    return f"the native leg needs Linux on x86-64, this is {sys.platform} on {platform.machine()}"


def build(
    ir: str, levels: Sequence[int] = (0, 2), image: PlacedImage | None = None
) -> dict[int, NativeModule | Unknown]:
    """Compile *ir* at each of *levels*; IR that LLVM cannot take is unknown, with the reason.

    What *ir* declares and *image* defines is the image's.
    """
    why = unsuited() or _refusal(ir)
    if why:
        return dict.fromkeys(levels, Unknown(why))
    objects = compile_ir(ir, tuple(levels))
    if isinstance(objects, Unknown):
        return dict.fromkeys(levels, objects)
    narrow = _narrow(ir)
    modules: dict[int, NativeModule | Unknown] = {}
    for level, data in zip(levels, objects, strict=True):
        try:
            modules[level] = load(data, narrow, image)
        except UnlinkableError as error:
            modules[level] = Unknown(f"native: {error}")
    return modules


def _refusal(ir: str) -> str | None:
    """Return why *ir* must not reach LLVM's code generator, None if it may."""
    triple = re.search(r'^target triple = "([^"]*)"', ir, re.MULTILINE)
    if not triple or not triple[1].startswith("x86_64"):
        return f"native: IR for {triple[1] if triple else 'no target'}, x86_64 is needed"
    if re.search(r"^module asm", ir, re.MULTILINE):
        return "native: assembly outside of functions"
    for template in re.findall(r'\basm (?:[a-z]+ )*"([^"]*)"', ir):
        if template.strip():
            return f"native: inline assembly ({template[:40]!r})"
    return None


def _narrow(ir: str) -> frozenset[str]:
    """Return the functions of *ir* that return 32 bits: the upper half of rax is no value."""
    found = re.findall(r"^\s*define [^@]*\bi32 @([\w.$]+)\(", ir, re.MULTILINE)
    return frozenset(found)


@cache
def _llvm() -> None:
    """Import llvmlite in the parent, so that no child has to."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()


def compile_ir(ir: str, levels: tuple[int, ...]) -> tuple[bytes, ...] | Unknown:
    """Return the object of *ir* at each level, compiled in a child."""
    _llvm()
    read, write = os.pipe()
    log = os.memfd_create("llvm")
    try:
        with warnings.catch_warnings():
            # The child runs no Python but this and takes no lock that a thread may hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            _compile_in_child(ir, levels, write, log)
        os.close(write)
        write = -1
        answer, status = _answer(child, read)
        os.lseek(log, 0, os.SEEK_SET)
        said = os.read(log, 1 << 16).decode(errors="replace")
    finally:
        for fd in (read, write, log):
            if fd >= 0:
                os.close(fd)
    if answer is None:
        return Unknown(f"native: LLVM took more than {COMPILE_SECONDS} s")
    try:
        made = marshal.loads(answer)
    except (EOFError, ValueError, TypeError):
        lines = [line for line in said.splitlines() if line.strip()]
        said = next((line for line in lines if "rror" in line), lines[0] if lines else "no word")
        return Unknown(f"native: LLVM ended with status {status}: {said.strip()[:200]}")
    if isinstance(made, str):
        return Unknown(f"native: {made}")
    return tuple(made)


def _answer(child: int, read: int) -> tuple[bytes | None, int]:
    """Return what *child* wrote, None if it took too long, and its exit status."""
    chunks = []
    deadline = time.monotonic() + COMPILE_SECONDS
    late = False
    try:
        while True:
            ready, _, _ = select.select([read], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                late = True
                break
            chunk = os.read(read, 1 << 16)
            if not chunk:
                break
            chunks.append(chunk)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    if late:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return None if late else b"".join(chunks), os.waitstatus_to_exitcode(status)


def _compile_in_child(ir: str, levels: tuple[int, ...], write: int, log: int) -> None:
    try:
        os.dup2(log, 2)
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (COMPILE_SECONDS, COMPILE_SECONDS))
        try:
            made: list[bytes] | str = _objects(ir, levels)
        except Exception as error:  # the reason is the answer
            first = next((line for line in str(error).splitlines() if line.strip()), repr(error))
            made = f"llvmlite: {first.strip()[:300]}"
        data = marshal.dumps(made)
        while data:
            data = data[os.write(write, data) :]
    finally:
        os._exit(0)


def _objects(ir: str, levels: tuple[int, ...]) -> list[bytes]:
    import llvmlite.binding as llvm

    target = llvm.Target.from_triple("x86_64-unknown-linux-gnu")
    module = llvm.parse_assembly(ir)
    module.verify()
    objects = []
    for level in levels:
        machine = target.create_target_machine(
            cpu="x86-64", features="", opt=level, reloc="pic", codemodel="default"
        )
        copy = module.clone() if level != levels[-1] else module
        tuning = llvm.create_pipeline_tuning_options(speed_level=level)
        builder = llvm.create_pass_builder(machine, tuning)
        builder.getModulePassManager().run(copy, builder)
        objects.append(bytes(machine.emit_object(copy)))
    return objects


# --- loading ----------------------------------------------------------------
# The objects are our own compiler's: relocatable ELF of x86-64, System V ABI, section 4.

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
_SHT_SYMTAB, _SHT_RELA, _SHT_NOBITS = 2, 4, 8
_SHF_WRITE, _SHF_ALLOC, _SHF_EXEC, _SHF_TLS = 1, 2, 4, 0x400
_SHN_ABS, _SHN_COMMON = 0xFFF1, 0xFFF2
# fmt: off
_R_64, _R_PC32, _R_PLT32, _R_GOTPCREL, _R_32, _R_32S = 1, 2, 4, 9, 10, 11
_R_PC64, _R_GOTPCRELX, _R_REX_GOTPCRELX = 24, 41, 42
# fmt: on
# What the code generator calls on its own; everything else must be in the module.
_LIBRARY = ("memcpy", "memmove", "memset", "memcmp", "bcmp")
NOWHERE, APART, _LOWEST = 4096, 256, 65536  # bytes; the last is mmap_min_addr
MAX_DATA, MAX_MEMORY = 4 << 20, 256 << 20  # bytes of writable data, of a module
_JUMP = b"\xff\x25\x00\x00\x00\x00"  # jmp *[rip], the address follows


class UnlinkableError(Exception):
    """Why an object cannot be loaded."""


@dataclass(frozen=True, slots=True)
class _Section:
    type: int
    flags: int
    data: bytes
    size: int  # bytes in memory
    align: int
    info: int


@dataclass(frozen=True)
class NativeModule:
    """A module's code and data in memory, ready to be called in the cage."""

    symbols: Mapping[str, int] = field(repr=False)  # functions and their addresses
    narrow: frozenset[str] = field(repr=False)  # functions whose result has 32 bits
    missing: Mapping[int, str]  # what the module declares only: a place in no man's land
    code: tuple[int, int]  # address and size
    data: tuple[int, int, int]  # address of the writable data, of its pristine copy, and size
    memory: mmap.mmap = field(repr=False)
    image: PlacedImage | None = None  # what it calls besides

    def bytes_at(self, address: int, size: int) -> bytes:
        """Return up to *size* bytes of code from *address*, empty if it is none of ours."""
        start, length = self.code
        if not start <= address < start + length:
            return b""
        return ctypes.string_at(address, min(size, start + length - address))


def _sections(data: bytes) -> list[_Section]:
    header = _EHDR.unpack_from(data)
    offset, size, count = header[6], header[11], header[12]
    found = []
    for index in range(count):
        _, kind, flags, _, start, length, _, info, align, _ = _SHDR.unpack_from(
            data, offset + index * size
        )
        body = b"" if kind == _SHT_NOBITS else data[start : start + length]
        found.append(_Section(kind, flags, body, length, max(align, 1), info))
    return found


@dataclass(frozen=True)
class PlacedImage:
    """A JIT's image in executable memory of this process."""

    symbols: Mapping[str, int]  # functions and their addresses
    memory: mmap.mmap = field(repr=False)


def place_image(size: int, code: Callable[[int], tuple[bytes, Mapping[str, int]]]) -> PlacedImage:
    """Make up to *size* bytes executable; *code* gives them for the address they will have."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    base = address_of(memory)
    content, symbols = code(base)
    memory[: len(content)] = content
    protect(base, (0, size), mmap.PROT_READ | mmap.PROT_EXEC)
    return PlacedImage(symbols, memory)


def load(data: bytes, narrow: frozenset[str], image: PlacedImage | None = None) -> NativeModule:
    """Place the object *data* in memory: code, read-only data, data and its pristine copy."""
    parts = _Object(data)
    starts, at = [], 0
    for size in parts.sizes:
        starts.append(at)
        at = -(-(at + size) // PAGE) * PAGE
    code, rodata, writable = parts.sizes
    if writable > MAX_DATA or at > MAX_MEMORY:
        raise UnlinkableError(f"{writable} bytes of variables, {at} in all")
    pristine = at
    memory = mmap.mmap(-1, max(at + writable, PAGE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    base = address_of(memory)
    missing: dict[int, str] = {}
    others = image.symbols if image else {}
    contents, functions = parts.place([base + start for start in starts], missing, others)
    for start, content in zip([*starts, pristine], [*contents, contents[2]], strict=True):
        memory[start : start + len(content)] = content
    protect(base, (starts[0], starts[0] + code), mmap.PROT_READ | mmap.PROT_EXEC)
    protect(base, (starts[1], starts[1] + rodata), mmap.PROT_READ)
    protect(base, (pristine, pristine + writable), mmap.PROT_READ)
    return NativeModule(
        functions,
        narrow,
        missing,
        (base, code),
        (base + starts[2], base + pristine, writable),
        memory,
        image,
    )


class _Object:
    """A relocatable object, laid out in three parts: code, read-only data, writable data."""

    def __init__(self, data: bytes) -> None:
        self._sections = sections = _sections(data)
        header = _EHDR.unpack_from(data)
        index = next(i for i, s in enumerate(sections) if s.type == _SHT_SYMTAB)
        link = _SHDR.unpack_from(data, header[6] + index * header[11])[6]
        self._symbols = list(_SYM.iter_unpack(sections[index].data))
        self._names = [_name(sections[link].data, symbol[0]) for symbol in self._symbols]
        self._offsets: dict[int, tuple[int, int]] = {}  # section: part, offset in it
        self.sizes: list[int] = []  # bytes of each part
        for part, group in enumerate((_SHF_EXEC, 0, _SHF_WRITE)):
            at = self._lay_out(part, group)
            if part == 0:  # stubs and addresses of what lies elsewhere
                self._stubs = at = -(-at // 16) * 16
                at += 16 * len(self._symbols)
            elif part == 1:
                self._table = at = -(-at // 8) * 8
                at += 8 * len(self._symbols)
            self.sizes.append(-(-at // 8) * 8)

    def _lay_out(self, part: int, group: int) -> int:
        at = 0
        for index, section in enumerate(self._sections):
            flags = section.flags
            if not flags & _SHF_ALLOC or flags & (_SHF_EXEC | _SHF_WRITE) != group:
                continue
            if flags & _SHF_TLS:
                raise UnlinkableError("thread-local variables")
            at = -(-at // section.align) * section.align
            self._offsets[index] = part, at
            at += section.size
        return at

    def place(
        self,
        bases: Sequence[int],
        missing: dict[int, str],
        others: Mapping[str, int],
        library: bool = True,
    ) -> tuple[list[bytearray], dict[str, int]]:
        """Return the contents of the parts at *bases*, relocated, and its functions' addresses.

        What is declared only is looked up in *others*, and in the C library if *library*;
        the rest is added to *missing*. Raises UnlinkableError.
        """
        parts = [bytearray(size) for size in self.sizes]
        starts: dict[int, int] = {}
        for index, (part, offset) in self._offsets.items():
            content = self._sections[index].data
            parts[part][offset : offset + len(content)] = content
            starts[index] = bases[part] + offset
        values = [
            others[name]
            if not symbol[3] and name in others
            else _symbol(name, symbol, starts, missing, library)
            for name, symbol in zip(self._names, self._symbols, strict=True)
        ]
        for number, value in enumerate(values):
            if isinstance(value, int):
                stub, slot = self._stubs + 16 * number, self._table + 8 * number
                parts[0][stub : stub + 14] = _JUMP + value.to_bytes(8, "little")
                parts[1][slot : slot + 8] = value.to_bytes(8, "little")
        for section in self._sections:
            if section.type != _SHT_RELA or section.info not in self._offsets:
                continue
            part, offset = self._offsets[section.info]
            for where, info, addend in _RELA.iter_unpack(section.data):
                number, kind = info >> 32, info & 0xFFFFFFFF
                value = values[number]
                if not isinstance(value, int):
                    raise UnlinkableError(value)
                stub = bases[0] + self._stubs + 16 * number
                slot = bases[1] + self._table + 8 * number
                place = offset + where
                _relocate(parts[part], bases[part], place, kind, value, addend, stub, slot)
        functions = {
            name: value
            for name, symbol, value in zip(self._names, self._symbols, values, strict=True)
            if symbol[1] & 15 == 2 and isinstance(value, int)
        }
        return parts, functions


@dataclass(frozen=True)
class PlacedObject:
    """An object relocated to addresses that the caller chose."""

    code: bytes
    rodata: bytes
    data: bytes  # of whole words
    symbols: Mapping[str, int]  # functions and their addresses


def place(
    data: bytes, bases: tuple[int, int, int], others: Mapping[str, int] | None = None
) -> PlacedObject:
    """Relocate the object *data* for code, read-only and writable data at *bases*.

    It must define all it uses but *others*. Raises UnlinkableError.
    """
    missing: dict[int, str] = {}
    parts, symbols = _Object(data).place(bases, missing, others or {}, library=False)
    code, rodata, writable = parts
    if missing:
        raise UnlinkableError(f"{', '.join(missing.values())} not defined")
    return PlacedObject(bytes(code), bytes(rodata), bytes(writable), symbols)


def _name(strings: bytes, offset: int) -> str:
    return strings[offset : strings.index(b"\0", offset)].decode(errors="replace")


def _symbol(
    name: str,
    symbol: tuple[int, ...],
    starts: Mapping[int, int],
    missing: dict[int, str],
    library: bool,
) -> int | str:
    """Return the address of *symbol*, or why it has none.

    What is declared only gets a place in the first pages, where nothing may be mapped: who
    calls or reads it faults there, and the others are not bothered.
    """
    _, info, _, section, value, _ = symbol
    if section in starts:
        return starts[section] + value
    if section == _SHN_ABS:
        return value
    if section == _SHN_COMMON or info & 15 == 6:
        return f"{name} is common or thread-local"
    if section or not name:
        return f"{name or 'a symbol'} is in a section without memory"
    if library and name in _LIBRARY:
        address = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
        return address or f"the C library has no {name}"
    place = NOWHERE + APART * len(missing)
    if place >= _LOWEST:
        return f"{len(missing)} declarations without definition"
    missing[place] = name
    return place


def _relocate(
    memory: bytearray,
    base: int,
    place: int,
    kind: int,
    value: int,
    addend: int,
    stub: int,
    slot: int,
) -> None:
    """Apply one relocation (System V ABI, x86-64, table 4.9); *stub* and *slot* are addresses."""
    match kind:
        case 0:
            return
        case 1 | 24:
            number = value + addend - (base + place if kind == _R_PC64 else 0)
            memory[place : place + 8] = (number & (1 << 64) - 1).to_bytes(8, "little")
            return
        case 2 | 4:
            number = value + addend - base - place
            if kind == _R_PLT32 and not -(1 << 31) <= number < 1 << 31:
                number = stub + addend - base - place
        case 9 | 41 | 42:
            number = slot + addend - base - place
        case _:
            raise UnlinkableError(f"a relocation of type {kind}")
    if not -(1 << 31) <= number < 1 << 31:
        raise UnlinkableError("an address out of reach")
    memory[place : place + 4] = (number & (1 << 32) - 1).to_bytes(4, "little")


def address_of(memory: mmap.mmap) -> int:
    """Return where *memory* begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def protect(base: int, bounds: tuple[int, int], rights: int) -> None:
    """Give the pages from *bounds*, offsets from *base*, the PROT_* *rights*."""
    start, end = bounds
    size = -(-(end - start) // PAGE) * PAGE
    libc = ctypes.CDLL(None, use_errno=True)
    if size and libc.mprotect(ctypes.c_void_p(base + start), ctypes.c_size_t(size), rights):
        error = os.strerror(ctypes.get_errno())
        raise HarnessError(f"native: this machine refuses executable memory ({error})")
