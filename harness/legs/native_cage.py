"""The cage: strangers' x86-64 code on a batch of contexts, where it can do no harm.

The code runs in a forked child under strict seccomp: it may read, write (with no file open)
and exit. From the fork on that child executes only the loop below, in assembly: it calls
the entry on one context after the other and notes what came of each. A signal is an outcome
of its vector, a timer ends what runs too long, writable data is as new for every vector.
Contexts, jobs and records lie in memory that both processes share.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import struct
from collections.abc import Sequence
from functools import cache
from itertools import chain

from harness.legs import sides
from harness.legs.native_code import (
    APART,
    NOWHERE,
    PAGE,
    NativeModule,
    address_of,
    compile_ir,
    load,
    protect,
)
from harness.model import (
    Batch,
    HarnessError,
    Outcome,
    OutOfFuel,
    Returned,
    Trapped,
    Unknown,
    Vector,
)

TICK = 20_000  # microseconds of CPU between two looks at the clock
FUEL = 5  # ticks that one vector may last: 0.1 s
SLOW = 8  # vectors out of fuel after which a job ends
STACK = 1 << 20  # bytes
ALIGN = 64  # bytes, of every context
KEEP = 8 << 20  # bytes of shared memory kept from batch to batch


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
    objects = compile_ir(f'target triple = "x86_64-unknown-linux-gnu"\n{text}', (0,))
    if isinstance(objects, Unknown):
        raise HarnessError(f"native: the batch loop does not assemble: {objects.why}")
    return load(objects[0], frozenset())


@cache
def _stacks() -> tuple[mmap.mmap, int]:
    """Return memory for the child's two stacks and its address: guard, signals, guard, calls."""
    memory = mmap.mmap(
        -1, STACK + 16 * PAGE + 2 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )
    base = address_of(memory)
    protect(base, (0, PAGE), 0)
    protect(base, (17 * PAGE, 18 * PAGE), 0)
    return memory, base


Job = tuple[NativeModule, str, Sequence[Vector]]


def run_many(jobs: Sequence[Job]) -> list[Sequence[Outcome]]:
    """Run every (module, entry, vectors) in one child; return their outcomes in order.

    A child that is killed is started again behind the vector that killed it, a few times.
    """
    outcomes: list[Sequence[Outcome]] = [[] for _ in jobs]
    ready = []
    for number, (module, entry, vectors) in enumerate(jobs):
        if entry in module.symbols:
            ready.append(number)
        else:
            outcomes[number] = [Unknown(f"native: the module has no {entry}")] * len(vectors)
    if not ready:
        return outcomes
    batch = _Batch([_with_side(jobs[number]) for number in ready])
    try:
        batch.run()
        for number, found in zip(ready, batch.outcomes(), strict=True):
            module, _, vectors = jobs[number]
            outcomes[number] = _without_side(found, vectors) if _side(module) else found
    finally:
        batch.close()
    return outcomes


# --- what lies behind the context of a module that calls helpers (crosscheck/helpers.c) ---


def _side(module: NativeModule) -> bool:
    return "crosscheck_wants_side" in module.symbols


def _with_side(job: Job) -> Job:
    module, entry, vectors = job
    if not _side(module):
        return job
    rest = bytes(sides.SIZE - sides.HEAD.size)
    return (
        module,
        entry,
        [
            vector.ljust(-(-len(vector) // 8) * 8, b"\0") + sides.head(vector) + rest
            for vector in vectors
        ],
    )


def _without_side(found: Sequence[Outcome], vectors: Sequence[Vector]) -> Sequence[Outcome]:
    outcomes: list[Outcome] = []
    for outcome, vector in zip(found, vectors, strict=True):
        if isinstance(outcome, Returned):
            effects = sides.effects(outcome.ctx[-(-len(vector) // 8) * 8 :])
            outcome = Returned(outcome.r0, outcome.ctx[: len(vector)], effects)
        outcomes.append(outcome)
    return Batch.of(outcomes)


# Shared memory of an earlier batch, for new pages cost a fault each, and whose it is: a
# process forked since then shares it too.
_kept: list[tuple[int, mmap.mmap]] = []


def _shared(size: int) -> mmap.mmap:
    """Return shared memory of at least *size* bytes; what is in it is anyone's guess."""
    while _kept:
        owner, memory = _kept.pop()
        if owner == os.getpid() and len(memory) >= size:
            return memory
    return mmap.mmap(-1, max(size, KEEP // 4))


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
        self._memory = _shared(at)
        self._base = address_of(self._memory)
        self._end = ""  # why vectors at the end did not run

    def close(self) -> None:
        """Leave the memory to the next batch."""
        if len(self._memory) <= KEEP and not _kept:
            _kept.append((os.getpid(), self._memory))

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
            if job >= len(self._jobs) or vector >= len(self._jobs[job][2]):
                break
            record = (3 if status < 0 else 4, abs(status), 0)
            _RECORD.pack_into(self._memory, self._records[job] + _RECORD.size * vector, *record)
            if status == -signal.SIGXCPU:
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
            if len(self._sizes[index]) == 1:
                gap = bytes(stride - len(vectors[0]))
                self._memory[at : at + stride * len(vectors)] = gap.join(vectors) + gap
            else:
                padded = b"".join([vector.ljust(stride, b"\0") for vector in vectors])
                self._memory[at : at + len(padded)] = padded
            records = _RECORD.size * len(vectors)
            self._memory[self._records[index] : self._records[index] + records] = bytes(records)

    def outcomes(self) -> list[Sequence[Outcome]]:
        """Return the outcomes of each job."""
        return [self._outcomes_of(index) for index in range(len(self._jobs))]

    def _outcomes_of(self, index: int) -> Sequence[Outcome]:
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
            return Batch(values, after)
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
            elif status == 4:
                found.append(Unknown(f"native: the child ended itself with status {value}"))
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
            if rip < NOWHERE:  # (void *)5 called: a BPF helper by its number
                return Unknown(f"native: calls BPF helper {rip}")
            name = module.missing.get(address // APART * APART)
            if name:
                return Unknown(f"native: uses {name}, which is not defined")
            _, stacks = _stacks()
            if stacks + 17 * PAGE <= address < stacks + 18 * PAGE:
                return Trapped("stack", offset)
            return Trapped("access", offset)
    kind = _sanitizer(module.bytes_at(rip, 5))
    return Trapped("undefined", f"{kind} at {offset}") if kind else Trapped("instruction", offset)


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
# fmt: on


def _sanitizer(code: bytes) -> str | None:
    """Return the check behind the trap *code*, None if it is none (67 0f b9 40 imm8)."""
    if code[:3] != b"\x67\x0f\xb9" or len(code) < 4:
        return None
    number = code[4] if code[3] == 0x40 and len(code) > 4 else 0
    return _CHECKS[number] if number < len(_CHECKS) else f"check {number}"
