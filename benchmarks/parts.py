"""Instructions a second of the verifier and the JIT, bytes a second of the loader."""

from __future__ import annotations

import resource
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from harness import pipeline
from harness import verifier as v
from harness.isa.asm import assemble
from harness.isa.insn import PARAMS, Alu, Exit, Insn, Jump, Load, Store, StoreImm
from harness.jit import x86_64
from harness.load import load_object
from harness.model import Accepted, BuildConfig, Program, Rejected, Subprogram
from harness.source import driver
from harness.toolchain import find_compilers, run_compiler

ROUNDS = 5
LARGE = 100_000  # instructions of one program


@cache
def _objects() -> tuple[bytes, ...]:
    """Every source of c_sources/ at -O0 and -O2, with its drivers."""
    (compiler,) = find_compilers()
    found = []
    for opt in "02":
        config = BuildConfig(compiler.name, opt, "v4", "hidden")
        settings = pipeline.Settings((config,), (compiler,), legs=("interp", "jit"))
        for path in sorted(Path("c_sources").glob("*.c")):
            planned = pipeline.plan(path, str(path), settings)
            text = driver.translation_unit(path, planned.layouts)
            built = run_compiler(compiler, driver.bpf_args(config), source=text)
            if built.output:
                found.append(built.output)
    return tuple(found)


def _programs() -> Iterator[Program]:
    for data in _objects():
        yield from load_object(data, fill_names=True).programs


def _median(call: Callable[[], float]) -> float:
    """Return the median of what *call* did a second of processor time: others may be busy."""
    rates = []
    for _ in range(ROUNDS):
        began = time.process_time()
        done = call()
        rates.append(done / (time.process_time() - began))
    return statistics.median(rates)


def verifier() -> None:
    """Print processed instructions a second."""
    programs = list(_programs())

    def once() -> float:
        return sum(v.verify(p, log_level=0).processed for p in programs)

    print(f"verifier: {_median(once):,.0f} instructions a second, {len(programs)} programs")


# Programs of the kinds that make the kernel's own tests long: what is accepted after many
# rounds, and what never ends
ROUNDS_OF_A_LOOP = """
r6 = r1
r7 = 0
r8 = *(u64 *)(r1 + 0)
r8 &= 15
again:
r7 += 1
*(u64 *)(r10 - 8) = r8
r9 = *(u64 *)(r10 - 8)
r9 += r7
if r7 < 20000 goto again
r0 = r9
exit
"""
NO_END = """
r6 = *(u16 *)(r1 + 0)
again:
r6 += 0x1ab064b9
if r6 & 0x702000 goto again
r0 = 0
exit
"""


def _program(text: str) -> Program:
    insns = assemble(text).insns
    return Program("main", "syscall", "syscall", insns, (Subprogram("main", 0, len(insns)),))


def limits() -> None:
    """Print how long many rounds and a program that never ends take, and how much memory."""
    many = _program(ROUNDS_OF_A_LOOP)
    rates = []
    for _ in range(ROUNDS):
        began = time.process_time()
        found = v.verify(many, log_level=0)
        rates.append(found.processed / (time.process_time() - began))
    assert isinstance(found.verdict, Accepted)
    print(
        f"verifier: {statistics.median(rates):,.0f} instructions a second, "
        f"one loop of {found.processed:,} (bar 40,000)"
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    found = v.verify(_program(NO_END), log_level=0)
    seconds = time.process_time() - began
    assert isinstance(found.verdict, Rejected)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"verifier: {found.processed:,} instructions, the limit, in {seconds:.1f} s (bar 60 s), "
        f"{peak / 1024:.0f} MB at most (bar 1,000 MB), {(peak - before) / 1024:.0f} MB more "
        "than before"
    )


def jit() -> None:
    """Print instructions a second, first sight of each program."""
    programs = [v.fixup(p) for p in _programs()]

    def once() -> float:
        for program in programs:
            x86_64.compile(program)
        return float(sum(len(p.insns) for p in programs))

    print(f"jit: {_median(once):,.0f} instructions a second (bar 150,000)")
    large = _large(programs)
    began = time.process_time()
    x86_64.compile(large)
    seconds = time.process_time() - began
    tracemalloc.start()
    x86_64.compile(large)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(
        f"jit: {len(large.insns):,} instructions in {seconds:.2f} s (bar 1 s), "
        f"{peak / 1e6:.0f} MB at most (bar 200 MB)"
    )


def _large(programs: list[Program]) -> Program:
    """Return one function of LARGE instructions: those of *programs* again and again, and jumps."""
    kinds = (Alu, Load, Store, StoreImm)
    body = [insn for program in programs for insn in program.insns if isinstance(insn, kinds)]
    body = [insn for insn in body if getattr(insn, "src", None) != PARAMS]
    found: list[Insn] = []
    while len(found) < LARGE:
        at = len(found) // 20 % len(body)
        found += [*body[at : at + 19], Jump("eq", 64, 1, None, 7, -10)]
    found[LARGE - 1 :] = [Exit()]
    return Program("large", "syscall", "syscall", tuple(found), (Subprogram("large", 0, LARGE),))


def loader() -> None:
    """Print bytes of object a second."""
    objects = _objects()

    def once() -> float:
        for data in objects:
            load_object(data, fill_names=True)
        return float(sum(map(len, objects)))

    size = sum(map(len, objects)) / len(objects) / 1024
    print(f"loader: {_median(once) / 1e6:.2f} MB a second, objects of {size:.0f} kB on average")
