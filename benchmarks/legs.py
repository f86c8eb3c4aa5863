"""10,000 vectors of one function on each leg, against raw loops without any bookkeeping."""

from __future__ import annotations

import statistics
import struct
import time
from collections.abc import Callable
from pathlib import Path

import unicorn
from unicorn import x86_const

from harness import pipeline, verifier
from harness.jit import linker, x86_64
from harness.legs import native
from harness.legs.jit import JitLeg
from harness.load import load_object
from harness.model import BuildConfig, Image, Unknown
from harness.source import driver
from harness.toolchain import find_compilers, run_compiler

COUNT = 10_000
ROUNDS = 5
SOURCE, FUNCTION = Path("c_sources/chains.c"), "chain_shared_slots"


def _median(call: Callable[[], object]) -> float:
    """Return microseconds a vector."""
    call()
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) / COUNT * 1e6


def vectors() -> None:
    """Print microseconds a vector, and ratios to the raw loops."""
    (compiler,) = find_compilers()
    config = BuildConfig(compiler.name, "2", "v3", "hidden")
    settings = pipeline.Settings((config,), (compiler,), vectors=COUNT)
    planned = pipeline.plan(SOURCE, str(SOURCE), settings)
    place = next(p for p in planned.layouts if p.signature.name == FUNCTION)
    inputs = pipeline.vectors_of(place, settings)
    text = driver.translation_unit(SOURCE, [place])
    built = run_compiler(compiler, driver.bpf_args(config), source=text)
    assert built.output
    program = next(
        p for p in load_object(built.output).programs if p.name == driver.entry(FUNCTION)
    )
    fixed = verifier.fixup(program)
    runner = JitLeg().prepare(fixed)
    assert not isinstance(runner, Unknown)
    emulated = _median(lambda: runner.run(inputs))
    raw = _raw_unicorn(fixed, inputs[0])
    print(f"{FUNCTION}, {len(program.insns)} instructions, {COUNT} vectors")
    print(f"  jit leg    {emulated:6.2f} us a vector (bar 2 us)")
    print(f"  raw unicorn loop {raw:.2f} us; ratio {emulated / raw:.2f}")
    ir = run_compiler(compiler, driver.native_args(), source=text)
    assert ir.output
    module = native.build(ir.output.decode(), (2,))[2]
    assert not isinstance(module, Unknown)
    jobs = [(module, driver.entry(FUNCTION), inputs)]
    machine = _median(lambda: native.run_many(jobs))
    print(f"  native leg {machine:6.2f} us a vector (bar 0.5 us)")


def _raw_unicorn(program: object, context: bytes) -> float:
    """Return microseconds a call of the image in a bare emulated loop."""
    image = x86_64.compile(program)  # type: ignore[arg-type]
    assert isinstance(image, Image)
    base, data, stack = 0x100000, 0x400000, 0x600000
    linked = linker.link(image, base, lambda _: 0)
    emulator = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    for address, size in ((base, 0x100000), (data, 0x1000), (stack, 0x10000)):
        emulator.mem_map(address, size)
    emulator.mem_write(base, linked.code)
    emulator.mem_write(data, context)
    loop = base + 0x80000
    # mov rbx, COUNT; 1: mov rdi, data; mov rax, entry; call rax; dec rbx; jnz 1b; hlt
    body = b"\x48\xbf" + struct.pack("<Q", data) + b"\x48\xb8" + struct.pack("<Q", linked.entry)
    body += b"\xff\xd0\x48\xff\xcb"
    code = b"\x48\xbb" + struct.pack("<Q", COUNT) + body
    code += b"\x0f\x85" + struct.pack("<i", -(len(body) + 6)) + b"\xf4"
    emulator.mem_write(loop, code)

    def once() -> None:
        emulator.reg_write(x86_const.UC_X86_REG_RSP, stack + 0xFF00)
        emulator.emu_start(loop, loop + len(code) - 1)

    return _median(once)
