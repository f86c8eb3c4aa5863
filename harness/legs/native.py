"""The ``native`` leg: LLVM IR compiled for x86-64 by llvmlite, run in a cage.

The IR is a stranger's, so both halves happen where they can do no harm:

- llvmlite parses, optimises and compiles in a forked child, because LLVM ends the process
  on what it cannot do; what comes back is an object file, or the reason there is none;
- the code runs in a forked child under strict seccomp: it may read, write (with no file
  open) and exit. From the fork on that child executes only the loop below, in assembly:
  it calls the entry on one context after the other and notes what came of each. A signal
  is an outcome of its vector, a timer ends what runs too long, writable data is as new for
  every vector.

Contexts, jobs and records lie in memory that both processes share, laid out as in
``_Block`` and the comment of ``_LOOP``.
"""

from __future__ import annotations

import contextlib
import ctypes
import marshal
import mmap
import os
import platform
import re
import select
import signal
import struct
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain

from harness.model import (
    HarnessError,
    Mask,
    Outcome,
    OutOfFuel,
    Returned,
    Runner,
    Trapped,
    Unknown,
    Vector,
)

LEVELS = (0, 1, 2, 3)
COMPILE_SECONDS = 60  # wall clock, for one module at all levels asked for
TICK = 20_000  # microseconds of CPU between two looks at the clock
FUEL = 5  # ticks that one vector may last: 0.1 s
SLOW = 8  # vectors out of fuel after which a job ends
STACK = 1 << 20  # bytes
PAGE = mmap.PAGESIZE
ALIGN = 64  # bytes, of every context


def available() -> str | None:
    """Return why this machine has no native leg, None if it has one."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return f"the native leg needs Linux on x86-64, this is {sys.platform} {platform.machine()}"
    return _cage_works()


@cache
def _cage_works() -> str | None:
    try:
        module = build(_TRIAL, (0,))[0]
    except ImportError as error:
        return f"llvmlite cannot be imported: {error}"
    if isinstance(module, Unknown):
        return module.why
    (outcome,) = module.runner("trial").run([bytes(8)])
    return outcome.why if isinstance(outcome, Unknown) else None


_TRIAL = """\
target triple = "x86_64-unknown-linux-gnu"
define i32 @trial(ptr %context) {
  ret i32 0
}
"""


# --- compiling --------------------------------------------------------------


def build(ir: str, levels: Sequence[int] = (0, 2)) -> dict[int, NativeModule | Unknown]:
    """Compile *ir* at each of *levels*; IR that LLVM cannot take is unknown, with the reason."""
    why = _refusal(ir)
    if why:
        return dict.fromkeys(levels, Unknown(why))
    objects = _compile(ir, tuple(levels))
    if isinstance(objects, Unknown):
        return dict.fromkeys(levels, objects)
    narrow = _narrow(ir)
    modules: dict[int, NativeModule | Unknown] = {}
    for level, data in zip(levels, objects, strict=True):
        try:
            modules[level] = _load(data, narrow)
        except _UnlinkableError as error:
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
    found = re.findall(r"^define [^@]*\bi32 @([\w.$]+)\(", ir, re.MULTILINE)
    return frozenset(found)


@cache
def _llvm() -> None:
    """Import llvmlite in the parent, so that no child has to."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()


def _compile(ir: str, levels: tuple[int, ...]) -> tuple[bytes, ...] | Unknown:
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
_NOWHERE, _APART, _LOWEST = 4096, 256, 65536  # bytes; the last is mmap_min_addr
MAX_DATA, MAX_MEMORY = 4 << 20, 256 << 20  # bytes of writable data, of a module
_JUMP = b"\xff\x25\x00\x00\x00\x00"  # jmp *[rip], the address follows


class _UnlinkableError(Exception):
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

    def runner(self, entry: str) -> Runner:
        """Return a runner of the function *entry*, which takes a context."""
        return NativeRunner(self, entry)

    def bytes_at(self, address: int, size: int) -> bytes:
        """Return up to *size* bytes of code from *address*, empty if it is none of ours."""
        start, length = self.code
        if not start <= address < start + length:
            return b""
        return ctypes.string_at(address, min(size, start + length - address))


@dataclass(frozen=True, slots=True)
class NativeRunner:
    """One entry of a module."""

    module: NativeModule
    entry: str

    def run(self, vectors: Sequence[Vector]) -> list[Outcome]:
        """Return one outcome for each of *vectors*, in order."""
        return run_many([(self.module, self.entry, vectors)])[0]


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


def _load(data: bytes, narrow: frozenset[str]) -> NativeModule:
    """Place the object *data* in memory: code, read-only data, data and its pristine copy."""
    sections = _sections(data)
    header = _EHDR.unpack_from(data)
    symtab_index = next(i for i, s in enumerate(sections) if s.type == _SHT_SYMTAB)
    symtab_link = _SHDR.unpack_from(data, header[6] + symtab_index * header[11])[6]
    strings = sections[symtab_link].data
    symbols = list(_SYM.iter_unpack(sections[symtab_index].data))

    offsets: dict[int, int] = {}
    bounds = []
    at = 0
    for group in (_SHF_EXEC, 0, _SHF_WRITE):
        start = at
        for index, section in enumerate(sections):
            if not section.flags & _SHF_ALLOC or section.flags & (_SHF_EXEC | _SHF_WRITE) != group:
                continue
            if section.flags & _SHF_TLS:
                raise _UnlinkableError("thread-local variables")
            at = -(-at // section.align) * section.align
            offsets[index] = at
            at += section.size
        if group == _SHF_EXEC:  # stubs and addresses of what lies elsewhere
            stubs = at = -(-at // 16) * 16
            at += 16 * len(symbols)
        elif group == 0:
            table = at = -(-at // 8) * 8
            at += 8 * len(symbols)
        else:
            at = -(-at // 8) * 8
        bounds.append((start, at))
        at = -(-at // PAGE) * PAGE
    start, end = bounds[2]
    if end - start > MAX_DATA or at > MAX_MEMORY:
        raise _UnlinkableError(f"{end - start} bytes of variables, {at} in all")
    pristine = at
    memory = mmap.mmap(-1, max(at + end - start, PAGE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    base = _address(memory)
    for index, offset in offsets.items():
        memory[offset : offset + len(sections[index].data)] = sections[index].data

    names = [_name(strings, symbol[0]) for symbol in symbols]
    missing: dict[int, str] = {}
    values = [
        _symbol(name, symbol, base, offsets, missing)
        for name, symbol in zip(names, symbols, strict=True)
    ]
    for number, value in enumerate(values):
        if isinstance(value, int):
            memory[stubs + 16 * number : stubs + 16 * number + 14] = _JUMP + value.to_bytes(
                8, "little"
            )
            memory[table + 8 * number : table + 8 * number + 8] = value.to_bytes(8, "little")
    for section in sections:
        if section.type == _SHT_RELA and section.info in offsets:
            for where, info, addend in _RELA.iter_unpack(section.data):
                number, kind = info >> 32, info & 0xFFFFFFFF
                value = values[number]
                if not isinstance(value, int):
                    raise _UnlinkableError(value)
                place = offsets[section.info] + where
                _relocate(
                    memory,
                    base,
                    place,
                    kind,
                    value,
                    addend,
                    stubs + 16 * number,
                    table + 8 * number,
                )
    memory[pristine : pristine + end - start] = memory[start:end]
    _protect(base, bounds[0], mmap.PROT_READ | mmap.PROT_EXEC)
    _protect(base, bounds[1], mmap.PROT_READ)
    _protect(base, (pristine, pristine + end - start), mmap.PROT_READ)
    functions = {
        name: value
        for name, symbol, value in zip(names, symbols, values, strict=True)
        if symbol[1] & 15 == 2 and isinstance(value, int)
    }
    return NativeModule(
        functions,
        narrow,
        missing,
        (base, bounds[0][1]),
        (base + start, base + pristine, end - start),
        memory,
    )


def _name(strings: bytes, offset: int) -> str:
    return strings[offset : strings.index(b"\0", offset)].decode(errors="replace")


def _symbol(
    name: str,
    symbol: tuple[int, ...],
    base: int,
    offsets: Mapping[int, int],
    missing: dict[int, str],
) -> int | str:
    """Return the address of *symbol*, or why it has none.

    What is declared only gets a place in the first pages, where nothing may be mapped: who
    calls or reads it faults there, and the others are not bothered.
    """
    _, info, _, section, value, _ = symbol
    if section in offsets:
        return base + offsets[section] + value
    if section == _SHN_ABS:
        return value
    if section == _SHN_COMMON or info & 15 == 6:
        return f"{name} is common or thread-local"
    if section or not name:
        return f"{name or 'a symbol'} is in a section without memory"
    if name in _LIBRARY:
        address = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
        return address or f"the C library has no {name}"
    place = _NOWHERE + _APART * len(missing)
    if place >= _LOWEST:
        return f"{len(missing)} declarations without definition"
    missing[place] = name
    return place


def _relocate(
    memory: mmap.mmap,
    base: int,
    place: int,
    kind: int,
    value: int,
    addend: int,
    stub: int,
    slot: int,
) -> None:
    """Apply one relocation (System V ABI, x86-64, table 4.9)."""
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
                number = stub + addend - place
        case 9 | 41 | 42:
            number = slot + addend - place
        case _:
            raise _UnlinkableError(f"a relocation of type {kind}")
    if not -(1 << 31) <= number < 1 << 31:
        raise _UnlinkableError("an address out of reach")
    memory[place : place + 4] = (number & (1 << 32) - 1).to_bytes(4, "little")


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _protect(base: int, bounds: tuple[int, int], rights: int) -> None:
    start, end = bounds
    size = -(-(end - start) // PAGE) * PAGE
    libc = ctypes.CDLL(None, use_errno=True)
    if size and libc.mprotect(ctypes.c_void_p(base + start), ctypes.c_size_t(size), rights):
        error = os.strerror(ctypes.get_errno())
        raise HarnessError(f"native: this machine refuses executable memory ({error})")


# --- the cage ---------------------------------------------------------------

# The shared block, by byte offset:
#     0 job    number of the job at work       8 vector  number of its vector
#    16 state  1: in the cage, 2: done         24 jobs   how many
#    32 stack  its top                         40 sigaltstack's argument (24 bytes)
#    64 the new action of every signal (32)    96 the timer (32)
#   128 rlimit core (16)                      144 rlimit CPU (16)
#   160 job and 168 vector at the last tick   176 ticks that vector lasted
#   184 fuel: ticks a vector may last         192 an empty signal mask
#   256 the jobs, 80 bytes each:
#       0 entry   8 contexts  16 stride  24 count  32 records  40 data
#      48 its pristine copy   56 its size in 8 bytes   64 vectors that may run out of fuel
# A record has 24 bytes: status, value, address. Status 1: returned, value is rax;
# 2: out of fuel; 0x100 + signal: trapped, value is rip, address si_addr.
_JOBS = 256
_JOB = struct.Struct("<10Q")
_RECORD = struct.Struct("<3Q")

_SIGNALS = (signal.SIGILL, signal.SIGTRAP, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV)
_SA_NODEFER, _SA_ONSTACK, _SA_SIGINFO, _SA_RESTORER = 0x40000000, 0x08000000, 4, 0x04000000

_LOOP = r"""
        .text
        .globl crosscheck_batch
        .type crosscheck_batch, @function
crosscheck_batch:                       # (block) -> pid or -errno; the child does not return
        movl $57, %eax                  # fork
        syscall
        testq %rax, %rax
        jz 1f
        ret
1:      movq %rdi, block(%rip)
        movq %rdi, %rbx
        movl $157, %eax                 # prctl(PR_SET_PDEATHSIG, SIGKILL)
        movl $1, %edi
        movl $9, %esi
        syscall
        movl $436, %eax                 # close_range(0, all)
        xorl %edi, %edi
        movl $-1, %esi
        xorl %edx, %edx
        syscall
        movl $160, %eax                 # setrlimit(RLIMIT_CORE)
        movl $4, %edi
        leaq 128(%rbx), %rsi
        syscall
        movl $160, %eax                 # setrlimit(RLIMIT_CPU)
        xorl %edi, %edi
        leaq 144(%rbx), %rsi
        syscall
        movl $131, %eax                 # sigaltstack
        leaq 40(%rbx), %rdi
        xorl %esi, %esi
        syscall
        leaq signals(%rip), %r12
2:      movzbl (%r12), %edi             # rt_sigaction, for each signal
        testl %edi, %edi
        jz 3f
        movl $13, %eax
        leaq 64(%rbx), %rsi
        xorl %edx, %edx
        movl $8, %r10d
        syscall
        incq %r12
        jmp 2b
3:      movl $14, %eax                  # rt_sigprocmask(SIG_SETMASK, none)
        movl $2, %edi
        leaq 192(%rbx), %rsi
        xorl %edx, %edx
        movl $8, %r10d
        syscall
        movl $38, %eax                  # setitimer(ITIMER_VIRTUAL)
        movl $1, %edi
        leaq 96(%rbx), %rsi
        xorl %edx, %edx
        syscall
        movl $157, %eax                 # prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)
        movl $22, %edi
        movl $1, %esi
        xorl %edx, %edx
        xorl %r10d, %r10d
        xorl %r8d, %r8d
        syscall
        testq %rax, %rax
        jnz leave
        movq $1, 16(%rbx)

again:                                  # nothing survives in registers from here on
        cld
        movq block(%rip), %rbx
        movq 32(%rbx), %rsp
        movq (%rbx), %rax
        cmpq 24(%rbx), %rax
        jae done
        imulq $80, %rax, %rax
        leaq 256(%rbx,%rax), %r12       # the job
        movq 8(%rbx), %r13              # the vector
        cmpq 24(%r12), %r13
        jae 4f
        movq 40(%r12), %rdi             # data as new
        movq 48(%r12), %rsi
        movq 56(%r12), %rcx
        rep movsq
        movq 16(%r12), %rdi
        imulq %r13, %rdi
        addq 8(%r12), %rdi
        xorl %eax, %eax
        callq *(%r12)
after:  movq block(%rip), %rbx
        callq record
        movq $1, (%rdi)
        movq %rax, 8(%rdi)
        incq 8(%rbx)
        jmp again
4:      incq (%rbx)                     # the next job
        movq $0, 8(%rbx)
        jmp again
done:   movq $2, 16(%rbx)
leave:  movl $60, %eax                  # exit, since exit_group is forbidden
        xorl %edi, %edi
        syscall

record:                                 # the current vector's record, in rdi
        imulq $80, (%rbx), %rcx
        leaq 256(%rbx,%rcx), %r12
        imulq $24, 8(%rbx), %rdi
        addq 32(%r12), %rdi
        ret

        .globl crosscheck_signal
        .type crosscheck_signal, @function
crosscheck_signal:                      # (signal, siginfo, ucontext)
        movq block(%rip), %rbx
        movq 168(%rdx), %r8             # rip
        cmpl $26, %edi                  # SIGVTALRM
        je 5f
        movl %edi, %r9d
        addl $0x100, %r9d
        callq record
        movq %r9, (%rdi)
        movq %r8, 8(%rdi)
        movq 16(%rsi), %rax             # si_addr
        movq %rax, 16(%rdi)
        incq 8(%rbx)
        jmp again
5:      leaq again(%rip), %rax          # in the loop itself: let it finish
        cmpq %rax, %r8
        jb 6f
        leaq 8f(%rip), %rax
        cmpq %rax, %r8
        jb 7f
6:      movq (%rbx), %rax               # the same vector as at the last tick?
        movq 8(%rbx), %rcx
        movq 160(%rbx), %r9
        movq 168(%rbx), %r10
        movq %rax, 160(%rbx)
        movq %rcx, 168(%rbx)
        xorq %rax, %r9
        xorq %rcx, %r10
        orq %r9, %r10
        jnz 9f
        incq 176(%rbx)
        movq 176(%rbx), %rax
        cmpq 184(%rbx), %rax
        jb 7f
        movq $0, 176(%rbx)
        callq record
        movq $2, (%rdi)
        incq 8(%rbx)
        decq 64(%r12)                   # too many of them: the job ends
        jnz again
        incq (%rbx)
        movq $0, 8(%rbx)
        jmp again
9:      movq $0, 176(%rbx)
7:      ret
8:
        .globl crosscheck_restore
        .type crosscheck_restore, @function
crosscheck_restore:
        movl $15, %eax                  # rt_sigreturn
        syscall

        .section .rodata
signals:
        .byte 4, 5, 7, 8, 11, 26, 0
        .data
        .balign 8
block:  .quad 0
"""


@cache
def _loop() -> NativeModule:
    """Return the loop, assembled."""
    text = "".join(
        f'module asm "{line}"\n' for line in _LOOP.replace('"', "\\22").splitlines() if line.strip()
    )
    objects = _compile(f'target triple = "x86_64-unknown-linux-gnu"\n{text}', (0,))
    if isinstance(objects, Unknown):
        raise HarnessError(f"native: the batch loop does not assemble: {objects.why}")
    return _load(objects[0], frozenset())


@cache
def _stacks() -> tuple[mmap.mmap, int]:
    """Return memory for the child's two stacks and its address: guard, signals, guard, calls."""
    memory = mmap.mmap(
        -1, STACK + 16 * PAGE + 2 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )
    base = _address(memory)
    _protect(base, (0, PAGE), 0)
    _protect(base, (17 * PAGE, 18 * PAGE), 0)
    return memory, base


Job = tuple[NativeModule, str, Sequence[Vector]]


def run_many(jobs: Sequence[Job]) -> list[list[Outcome]]:
    """Run every (module, entry, vectors) in one child; return their outcomes in order.

    A child that is killed is started again behind the vector that killed it, a few times.
    """
    outcomes: list[list[Outcome]] = [[] for _ in jobs]
    ready = []
    for number, (module, entry, vectors) in enumerate(jobs):
        if entry in module.symbols:
            ready.append(number)
        else:
            outcomes[number] = [Unknown(f"native: the module has no {entry}")] * len(vectors)
    if not ready:
        return outcomes
    batch = _Batch([jobs[number] for number in ready])
    batch.run()
    for number, found in zip(ready, batch.outcomes(), strict=True):
        outcomes[number] = found
    return outcomes


class _Batch:
    """Jobs in shared memory."""

    def __init__(self, jobs: list[Job]) -> None:
        self._jobs = jobs
        self._sizes = [set(map(len, vectors)) for _, _, vectors in jobs]
        self._strides = [
            -(-max(sizes, default=0) // ALIGN) * ALIGN or ALIGN for sizes in self._sizes
        ]
        at = -(-(_JOBS + _JOB.size * len(jobs)) // ALIGN) * ALIGN
        self._contexts, self._records = [], []
        for (_, _, vectors), stride in zip(jobs, self._strides, strict=True):
            self._contexts.append(at)
            at += stride * len(vectors)
            self._records.append(at)
            at += -(-_RECORD.size * len(vectors) // ALIGN) * ALIGN
        self._memory = mmap.mmap(-1, at)
        self._base = _address(self._memory)
        self._end = ""  # why vectors at the end did not run

    def run(self) -> None:
        """Run all jobs."""
        loop = _loop()
        self._fill(loop)
        prototype = ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_void_p)
        batch = prototype(loop.symbols["crosscheck_batch"])
        for _ in range(4):
            struct.pack_into("<Q", self._memory, 16, 0)
            child = batch(self._base)
            if child < 0:
                raise HarnessError(f"native: cannot fork ({os.strerror(-child)})")
            status = _wait(child)
            job, vector, state = struct.unpack_from("<3Q", self._memory)
            if state == 2:
                return
            if state == 0:
                self._end = "the child could not enter strict seccomp"
                return
            name = signal.Signals(-status).name if status < 0 else f"status {status}"
            if job >= len(self._jobs) or vector >= len(self._jobs[job][2]):
                break
            _RECORD.pack_into(
                self._memory, self._records[job] + _RECORD.size * vector, 3, abs(status), 0
            )
            if name == "SIGXCPU":
                self._end = "the batch used all its CPU time"
                return
            struct.pack_into("<Q", self._memory, 8, vector + 1)
        self._end = "the child was killed again and again"

    def _fill(self, loop: NativeModule) -> None:
        _, stacks = _stacks()
        seconds = 10 + sum(len(vectors) for _, _, vectors in self._jobs) // 1000
        flags = _SA_NODEFER | _SA_ONSTACK | _SA_SIGINFO | _SA_RESTORER
        top = stacks + 18 * PAGE + STACK
        words = [
            *(0, 0, 0, len(self._jobs), top),
            *(stacks + PAGE, 0, 16 * PAGE),
            *(loop.symbols["crosscheck_signal"], flags, loop.symbols["crosscheck_restore"], 0),
            *(0, TICK, 0, TICK),
            *(0, 0, seconds, seconds + 2),
            *((1 << 64) - 1, 0, 0, FUEL, 0),
        ]
        struct.pack_into(f"<{len(words)}Q", self._memory, 0, *words)
        for index, (module, entry, vectors) in enumerate(self._jobs):
            data, pristine, size = module.data
            stride, at = self._strides[index], self._contexts[index]
            _JOB.pack_into(
                self._memory,
                _JOBS + _JOB.size * index,
                module.symbols[entry],
                self._base + at,
                stride,
                len(vectors),
                self._base + self._records[index],
                data,
                pristine,
                size // 8,
                SLOW,
                0,
            )
            if self._sizes[index] != {stride}:
                vectors = [vector.ljust(stride, b"\0") for vector in vectors]
            self._memory[at : at + stride * len(vectors)] = b"".join(vectors)

    def outcomes(self) -> list[list[Outcome]]:
        """Return the outcomes of each job."""
        return [self._outcomes_of(index) for index in range(len(self._jobs))]

    def _outcomes_of(self, index: int) -> list[Outcome]:
        module, entry, vectors = self._jobs[index]
        at, stride = self._contexts[index], self._strides[index]
        contexts = self._memory[at : at + stride * len(vectors)]
        start = self._records[index]
        records = self._memory[start : start + _RECORD.size * len(vectors)]
        keep = 0xFFFFFFFF if entry in module.narrow else (1 << 64) - 1
        if len(self._sizes[index]) == 1:
            (size,) = self._sizes[index]
            rows = struct.Struct(f"{size}s{stride - size}x").iter_unpack(contexts)
            after = list(chain.from_iterable(rows))
        else:
            marks = range(0, len(contexts), stride)
            after = [contexts[m : m + len(v)] for m, v in zip(marks, vectors, strict=True)]
        words = memoryview(records).cast("Q")
        statuses, values = words[::3].tolist(), words[1::3].tolist()
        if statuses.count(1) == len(statuses):
            if max(values, default=0) > keep:
                values = [value & keep for value in values]
            return list(map(Returned, values, after))
        why = self._end or f"{statuses.count(2)} vectors before it ran out of fuel"
        not_run = Unknown(f"native: not run, {why}")
        found: list[Outcome] = []
        for status, value, address, context in zip(
            statuses, words[1::3], words[2::3], after, strict=True
        ):
            if status == 1:
                found.append(Returned(value & keep, context))
            elif status == 2:
                found.append(OutOfFuel())
            elif status == 3:
                found.append(Unknown(f"native: killed by {_signal_name(value)}"))
            else:
                trapped = status and _trapped(module, status - 0x100, value, address)
                found.append(trapped or not_run)
        return found


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _wait(child: int) -> int:
    """Return the exit status of *child*, negative for a signal; end it if we are interrupted."""
    try:
        _, status = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    return os.waitstatus_to_exitcode(status)


def _trapped(module: NativeModule, number: int, rip: int, address: int) -> Outcome:
    offset = f"+{rip - module.code[0]:#x}" if module.bytes_at(rip, 1) else f"{rip:#x}"
    match number:
        case signal.SIGFPE:
            return Trapped("divide", offset)
        case signal.SIGSEGV | signal.SIGBUS:
            if rip < _NOWHERE:  # (void *)5 called: a BPF helper by its number
                return Unknown(f"native: calls BPF helper {rip}")
            name = module.missing.get(address // _APART * _APART)
            if name:
                return Unknown(f"native: uses {name}, which is not defined")
            _, stacks = _stacks()
            if stacks + 17 * PAGE <= address < stacks + 18 * PAGE:
                return Trapped("stack", offset)
            return Trapped("access", offset)
    kind = _sanitizer(module.bytes_at(rip, 5))
    return Trapped("undefined", f"{kind} at {offset}") if kind else Trapped("instruction", offset)


# --- undefined behaviour ----------------------------------------------------

# fmt: off
# What a trap of -fsanitize-trap says, by the immediate of its ud1; clang numbers its
# checks in this order (SanitizerHandler).
_CHECKS = (
    "addition overflows", "unreachable code", "call-flow check", "division by zero or overflow",
    "dynamic type", "conversion from floating point overflows", "function type",
    "implicit conversion", "builtin called with a value it does not take", "Objective-C cast",
    "value not valid for its type", "no value returned", "multiplication overflows",
    "negation overflows", "null for a nonnull argument", "null for a nonnull result",
    "null for a nonnull argument", "null for a nonnull result", "index out of bounds",
    "pointer arithmetic overflows", "shift out of bounds", "subtraction overflows",
    "null or misaligned pointer, or object too small", "alignment assumption",
    "variable array bound not positive", "bounds safety",
)

_FAULTS = {
    "divide": "division by zero or overflow", "access": "an access to memory that is not there",
    "stack": "recursion without end", "instruction": "a trap in the program",
}
# fmt: on


def _sanitizer(code: bytes) -> str | None:
    """Return the check behind the trap *code*, None if it is none (67 0f b9 40 imm8)."""
    if code[:3] != b"\x67\x0f\xb9" or len(code) < 4:
        return None
    number = code[4] if code[3] == 0x40 and len(code) > 4 else 0
    return _CHECKS[number] if number < len(_CHECKS) else f"check {number}"


def undefined_behaviour(
    builds: Mapping[str, NativeModule], entry: str, vectors: Sequence[Vector], mask: Mask
) -> list[str | None]:
    """Return for each vector what is undefined about it, None where nothing was seen.

    *builds* has the source compiled with ``driver.CHECKS``: one that traps ("undefined")
    and two whose automatic variables begin differently ("zero", "pattern"). What none of
    them shows (aliasing, reads beyond an object through a pointer) stays unseen.
    """
    names = [name for name in ("undefined", "zero", "pattern") if name in builds]
    results = dict(
        zip(names, run_many([(builds[name], entry, vectors) for name in names]), strict=True)
    )
    blank = [Unknown("not built")] * len(vectors)
    bits = int.from_bytes(mask.bits, "little")
    found: list[str | None] = []
    for trapping, zero, pattern in zip(
        *(results.get(name, blank) for name in ("undefined", "zero", "pattern")), strict=True
    ):
        if isinstance(trapping, Trapped):
            found.append(_FAULTS.get(trapping.kind, trapping.where))
        elif _differ(zero, pattern, bits):
            found.append("the result depends on an uninitialised variable")
        else:
            found.append(None)
    return found


def _differ(a: Outcome, b: Outcome, bits: int) -> bool:
    if isinstance(a, Unknown) or isinstance(b, Unknown):
        return False
    if isinstance(a, Returned) and isinstance(b, Returned):
        x, y = int.from_bytes(a.ctx, "little"), int.from_bytes(b.ctx, "little")
        return a.r0 != b.r0 or bool((x ^ y) & bits)
    return type(a) is not type(b)
