"""The native leg: what code does to itself is an outcome, and nothing else happens."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import struct
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from harness.legs import native
from harness.legs.native import NativeRunner
from harness.legs.native_code import compile_ir, load
from harness.model import HarnessError, Mask, Outcome, OutOfFuel, Returned, Trapped, Unknown

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="the native leg needs Linux on x86-64",
)

TRIPLE = 'target triple = "x86_64-unknown-linux-gnu"\n'
WORD = struct.Struct("<Q")


def module(body: str, level: int = 0) -> native.NativeModule:
    built = native.build(TRIPLE + body, (level,))[level]
    assert isinstance(built, native.NativeModule), built
    return built


def why(ir: str) -> str:
    (built,) = native.build(ir, (0,)).values()
    assert isinstance(built, Unknown)
    return built.why


def run(body: str, *words: int, level: int = 0) -> Sequence[Outcome]:
    return NativeRunner(module(body, level), "f").run([WORD.pack(word) for word in words])


ADD = """
define i64 @f(ptr %c) {
  %v = load i64, ptr %c
  %w = add i64 %v, 7
  store i64 %w, ptr %c
  ret i64 %v
}
"""


@pytest.mark.parametrize("level", native.LEVELS)
def test_contexts_go_in_and_come_back(level: int) -> None:
    found = run(ADD, 1, 2, 1 << 63, level=level)
    assert found == [Returned(w, WORD.pack(w + 7)) for w in (1, 2, 1 << 63)]


def test_vectors_of_several_sizes_and_none() -> None:
    runner = NativeRunner(module(ADD), "f")
    assert runner.run([]) == []
    long = WORD.pack(5) + bytes(range(200))
    assert runner.run([long, WORD.pack(1)]) == [
        Returned(5, WORD.pack(12) + bytes(range(200))),
        Returned(1, WORD.pack(8)),
    ]


def test_a_narrow_result_has_32_bits() -> None:
    body = """
    define i32 @f(ptr %c) {
      %r = call i64 asm sideeffect "", "={ax},0"(i64 -1)
      ret i32 1
    }
    """
    assert module(body).narrow == {"f"}
    assert run(body, 0) == [Returned(1, WORD.pack(0))]


TRAPS = """
declare void @llvm.ubsantrap(i8)
declare void @llvm.trap()
define i64 @f(ptr %c) {
  %v = load i64, ptr %c
  switch i64 %v, label %fine [i64 1, label %divide i64 2, label %access i64 3, label %undefined
                              i64 4, label %instruction i64 5, label %spin i64 6, label %helper
                              i64 7, label %deep i64 8, label %constant]
fine:
  ret i64 %v
divide:
  %z = sub i64 %v, 1
  %q = udiv i64 10, %z
  ret i64 %q
access:
  %p = inttoptr i64 12345678 to ptr
  store volatile i64 1, ptr %p
  ret i64 0
undefined:
  call void @llvm.ubsantrap(i8 20)
  unreachable
instruction:
  call void @llvm.trap()
  unreachable
spin:
  br label %spin
helper:
  %h = inttoptr i64 5 to ptr
  %r = call i64 %h(i64 1)
  ret i64 %r
deep:
  %n = call i64 @deep(ptr %c)
  ret i64 %n
constant:
  store volatile i64 1, ptr @constant
  ret i64 0
}
define i64 @deep(ptr %c) noinline optnone {
  %room = alloca [100 x i64]
  store volatile i64 1, ptr %room
  %n = call i64 @deep(ptr %room)
  %m = load volatile i64, ptr %room
  %s = add i64 %n, %m
  ret i64 %s
}
@constant = internal constant i64 5
"""
EXPECTED = {
    0: Returned(0, WORD.pack(0)),
    1: "divide",
    2: "access",
    3: "undefined",
    4: "instruction",
    5: OutOfFuel(),
    6: Unknown("native: calls BPF helper 5"),
    7: "stack",
    8: "access",
}


def test_every_way_to_end_is_an_outcome_of_its_vector_alone() -> None:
    order = [0, 1, 0, 2, 3, 0, 4, 5, 0, 6, 7, 0, 8, 0]
    for word, outcome in zip(order, run(TRAPS, *order), strict=True):
        expected = EXPECTED[word]
        if isinstance(expected, str):
            assert isinstance(outcome, Trapped), (word, outcome)
            assert outcome.kind == expected
        else:
            assert outcome == expected
    (undefined,) = run(TRAPS, 3)
    assert isinstance(undefined, Trapped)
    assert undefined.where.startswith("shift out of bounds at +0x")


def test_endless_loops_cost_a_bounded_time_and_the_rest_is_unknown() -> None:
    start = time.monotonic()
    found = run(TRAPS, *[5] * 1000, 0)
    assert time.monotonic() - start < 30
    assert found[: native.SLOW] == [OutOfFuel()] * native.SLOW
    assert set(found[native.SLOW :]) == {
        Unknown(f"native: not run, {native.SLOW} vectors before it ran out of fuel")
    }


GLOBALS = """
@word = internal global i64 40
@zero = internal global [3 x i64] zeroinitializer
define i64 @f(ptr %c) {
  %v = load i64, ptr %c
  %a = load i64, ptr @word
  %b = load i64, ptr getelementptr ([3 x i64], ptr @zero, i64 0, i64 2)
  %s = add i64 %a, %b
  store i64 %v, ptr @word
  store i64 %v, ptr getelementptr ([3 x i64], ptr @zero, i64 0, i64 2)
  %t = icmp eq i64 %v, 99
  br i1 %t, label %trap, label %done
trap:
  store volatile i64 1, ptr null
  unreachable
done:
  ret i64 %s
}
"""


def test_every_vector_finds_the_variables_as_new() -> None:
    found = run(GLOBALS, 1, 2, 99, 3)
    assert [o.r0 for o in found if isinstance(o, Returned)] == [40, 40, 40]
    assert isinstance(found[2], Trapped)


def test_library_calls_and_tables_link() -> None:
    body = """
    declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
    @near = internal constant [2 x ptr] [ptr @one, ptr @two]
    define internal i64 @one() { ret i64 11 }
    define internal i64 @two() { ret i64 22 }
    define i64 @f(ptr %c) {
      %room = alloca [100 x i64]
      %n = load i64, ptr %c
      call void @llvm.memcpy.p0.p0.i64(ptr %room, ptr %c, i64 8, i1 false)
      %size = mul i64 %n, 8
      call void @llvm.memcpy.p0.p0.i64(ptr %c, ptr %room, i64 %size, i1 false)
      %slot = getelementptr ptr, ptr @near, i64 %n
      %g = load ptr, ptr %slot
      %r = call i64 %g()
      ret i64 %r
    }
    """
    assert [o.r0 for o in run(body, 0, 1, level=2) if isinstance(o, Returned)] == [11, 22]


def test_what_is_only_declared_is_unknown_where_it_is_reached() -> None:
    body = """
    declare i64 @kfunc(i64)
    @ksym = external global i64
    define i64 @f(ptr %c) {
      %v = load i64, ptr %c
      switch i64 %v, label %fine [i64 1, label %call i64 2, label %read]
    fine:
      ret i64 0
    call:
      %r = call i64 @kfunc(i64 1)
      ret i64 %r
    read:
      %w = load i64, ptr @ksym
      ret i64 %w
    }
    """
    assert run(body, 0, 1, 2) == [
        Returned(0, WORD.pack(0)),
        Unknown("native: uses kfunc, which is not defined"),
        Unknown("native: uses ksym, which is not defined"),
    ]


SYSCALL = """
define i64 @f(ptr %c) {
  %v = load i64, ptr %c
  %t = icmp eq i64 %v, 0
  br i1 %t, label %done, label %go
go:
  %r = call i64 asm sideeffect "syscall", "={ax},0,{di},{si},{dx}"(i64 %v, i64 1, ptr %c, i64 8)
  ret i64 %r
done:
  ret i64 0
}
"""


def smuggled(*words: int) -> Sequence[Outcome]:
    """Run what ``build`` refuses: code that makes the system calls *words*."""
    objects = compile_ir(TRIPLE + SYSCALL, (0,))
    assert not isinstance(objects, Unknown)
    runner = NativeRunner(load(objects[0], frozenset()), "f")
    return runner.run([WORD.pack(word) for word in words])


@pytest.mark.parametrize(
    "number", [39, 57, 2, 9, 62, 231], ids=["getpid", "fork", "open", "mmap", "kill", "exit_group"]
)
def test_a_system_call_ends_the_child_and_only_its_vector_is_lost(number: int) -> None:
    fine = Returned(0, WORD.pack(0))
    assert smuggled(0, number, 0) == [fine, Unknown("native: killed by SIGKILL"), fine]


def test_the_child_has_no_file_to_write_to() -> None:
    assert smuggled(1) == [Returned((1 << 64) - 9, WORD.pack(1))]  # EBADF


def test_leaving_early_does_not_pass_for_an_end() -> None:
    found = smuggled(0, 60, 0)
    assert found[1] == Unknown("native: the child ended itself with status 1")
    assert found[2] == Returned(0, WORD.pack(0))


def test_a_child_that_is_killed_again_and_again_is_given_up() -> None:
    found = smuggled(*[39] * 20)
    assert found[-1] == Unknown("native: not run, the child was killed again and again")


def test_this_machine_has_the_leg() -> None:
    assert native.available() is None


def test_many_entries_run_in_one_child() -> None:
    one, two = module(ADD), module(GLOBALS)
    vectors = [WORD.pack(n) for n in range(3)]
    before = _children()
    found = native.run_many([(one, "f", vectors), (two, "f", vectors), (one, "none", vectors)])
    assert [o.r0 for o in found[0] if isinstance(o, Returned)] == [0, 1, 2]
    assert [o.r0 for o in found[1] if isinstance(o, Returned)] == [40, 40, 40]
    assert found[2] == [Unknown("native: the module has no none")] * 3
    assert _children() == before


def _children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def test_processes_forked_after_a_batch_do_not_meet_in_its_memory() -> None:
    runner = NativeRunner(module(ADD), "f")
    vectors = [WORD.pack(n) for n in range(2000)]
    expected = runner.run(vectors)
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(_many_times, [0, 1]))
    assert found == [True, True]
    assert runner.run(vectors) == expected


def _many_times(offset: int) -> bool:
    runner = NativeRunner(module(ADD), "f")
    words = range(offset, offset + 2000)
    expected = [Returned(n, WORD.pack(n + 7)) for n in words]
    return all(runner.run([WORD.pack(n) for n in words]) == expected for _ in range(20))


@pytest.mark.parametrize(
    ("ir", "reason"),
    [
        (TRIPLE + "define i64 @f(", "native: llvmlite: "),
        (
            TRIPLE + "define void @f() { %x = add i32 1, 2\n %x = add i32 1, 2\n ret void }",
            "native: llvmlite: ",
        ),
        (ADD, "native: IR for no target, x86_64 is needed"),
        ('target triple = "bpf"\n' + ADD, "native: IR for bpf, x86_64 is needed"),
        (TRIPLE + 'module asm "nop"\n' + ADD, "native: assembly outside of functions"),
        (
            TRIPLE + 'define void @f() {\n call void asm sideeffect "r1 = 1", ""()\n ret void\n}',
            "native: inline assembly ('r1 = 1')",
        ),
        (
            TRIPLE + "@x = thread_local global i32 0\n" + ADD,
            "native: thread-local variables",
        ),
        (
            TRIPLE + "@x = global [9000000 x i8] zeroinitializer\n" + ADD,
            "native: 9000000 bytes of variables",
        ),
    ],
)
def test_ir_that_cannot_be_built_is_unknown(ir: str, reason: str) -> None:
    assert why(ir).startswith(reason)


def test_llvm_ending_its_process_does_not_end_ours() -> None:
    fatal = 'define void @f(ptr %c) "target-features"="-sse,-sse2" { ret void }\n'
    fatal += "declare void @llvm.x86.avx512.rdpid()\n"
    fatal += (
        "define i64 @g() { %x = call token @llvm.coro.id(i32 0, ptr null, ptr null, ptr null)\n"
    )
    fatal += " ret i64 0 }\ndeclare token @llvm.coro.id(i32, ptr, ptr, ptr)\n"
    assert why(TRIPLE + fatal).startswith("native: LLVM ended with status")


def test_undefined_behaviour_is_named() -> None:
    trapping = module(TRAPS)
    zero, pattern = (
        module(f"define i64 @f(ptr %c) {{\n store i64 {n}, ptr %c\n ret i64 0\n}}")
        for n in (0, 170)
    )
    vectors = [WORD.pack(n) for n in (3, 1, 0)]
    builds = {"undefined": trapping, "zero": zero, "pattern": pattern}
    first, second, third = native.undefined_behaviour(builds, "f", vectors, Mask(b"\xff" * 8))
    assert first
    assert first.startswith("shift out of bounds")
    assert second == "division by zero or overflow"
    assert third == "the result depends on an uninitialised variable"
    padding = native.undefined_behaviour(builds, "f", vectors, Mask(bytes(8)))
    assert padding[2] is None
    del builds["pattern"]
    assert native.undefined_behaviour(builds, "f", vectors, Mask(b"\xff" * 8))[2] is None


def test_a_failing_fork_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "PYFUNCTYPE", lambda *_: lambda _: lambda _: -11)
    with pytest.raises(HarnessError, match="cannot fork"):
        run(ADD, 1)


def test_another_machine_has_no_native_leg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert native.available() == ("the native leg needs Linux on x86-64, this is linux on riscv64")
    assert why(TRIPLE + ADD) == native.available()
