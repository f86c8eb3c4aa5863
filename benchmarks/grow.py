"""A campaign on one core against its compiler processes alone; functions a second; memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from harness import pipeline
from harness.cli_grow import PARENTS
from harness.grow.batch import PROGRAMS, Half, Order, build_batch
from harness.grow.parents import packed_parents
from harness.legs import native_code
from harness.pipeline import Settings
from harness.toolchain import Compiler, find_compilers

SEED = 5  # most of its first batches are of C
BATCHES = 4  # so that a worker's start counts about as in a campaign
ROUNDS = 3
SECONDS = 180  # of the look at throughput: a batch that cannot end in time is not begun
MINUTES = 4  # of the look at memory


def campaign() -> None:
    """Print the ratio of a campaign on one core to its compilers, and functions a second."""
    (compiler,) = find_compilers()
    cores = sorted(os.sched_getaffinity(0))
    calls, functions = _compiler_calls(compiler)
    wholes, alones, ratios = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        os.sched_setaffinity(0, cores[:1])
        for number in range(ROUNDS):
            alones.append(_seconds(calls))
            count = str(BATCHES * PROGRAMS)
            found = Path(folder, f"whole{number}")
            ends = ("--jobs", "1", "--count", count, "--keep", "0", "--patience", "0")
            told = _grow(found, compiler, *ends)
            if told["functions"] != functions:
                raise SystemExit(f"other programs: {told['functions']} functions, not {functions}")
            wholes.append(told["seconds"])
            ratios.append(wholes[-1] / alones[-1])
        os.sched_setaffinity(0, cores)
        told = _grow(Path(folder, "rate"), compiler, "--for", f"{SECONDS}s")
    print(
        f"grow: {BATCHES} batches of {PROGRAMS} programs of C on one core: {functions} functions, "
        f"{len(calls)} calls of clang and LLVM"
    )
    print(
        f"  {statistics.median(wholes):.1f} s, a worker's start in it; the calls alone "
        f"{statistics.median(alones):.1f} s; ratio {statistics.median(ratios):.2f} (bar 1.5)"
    )
    print(
        f"  {len(cores)} cores, {SECONDS} s and its end: {told['function_rate']:.1f} functions a "
        f"second (bar 25), "
        f"{told['rate']:.1f} programs, {told['vector_rate']:.0f} vectors, "
        f"{told['accepted']:.1%} accepted (bar 90 %)"
    )


def memory() -> None:
    """Print what a campaign holds in its second minute, and in its last."""
    (compiler,) = find_compilers()
    with tempfile.TemporaryDirectory() as folder:
        told = _grow(Path(folder, "memory"), compiler, "--for", f"{MINUTES}m")
    samples = [s for s in told["history"] if s["seconds"] >= 60]
    # workers are replaced now and then, so that what they hold goes up and down
    end = samples[-1]["seconds"] - 60
    first = max(s["memory"] for s in samples if s["seconds"] < 120)
    last = max(s["memory"] for s in samples if s["seconds"] >= end)
    most = max(s["memory"] for s in samples)
    print(
        f"grow: at most {first / 1e6:.0f} MB in the second minute, {last / 1e6:.0f} MB in the last "
        f"of {MINUTES}: {last / first - 1:+.0%} (bar 10 %); at most {most / 1e6:.0f} MB between"
    )


def grow() -> None:
    """Print all of it."""
    campaign()
    memory()


def _compiler_calls(compiler: Compiler) -> tuple[list[Callable[[], Any]], int]:
    """Return the calls of clang, and of LLVM for the native builds, that the batches make.

    The programs are the campaign's own, with the same parents; also returns their functions.
    """
    functions = 0
    settings = Settings((), (compiler,), vectors=64, seed=SEED)
    parents = packed_parents(PARENTS, settings)
    calls: list[Callable[[], Any]] = []

    def noting(call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **named: Any) -> Any:
            calls.append(partial(call, *arguments, **named))
            return call(*arguments, **named)

        return noted

    with (
        mock.patch.object(pipeline, "run_compiler", noting(pipeline.run_compiler)),
        mock.patch.object(native_code, "compile_ir", noting(native_code.compile_ir)),
    ):
        for number in range(BATCHES):
            half = build_batch(Order(number, PROGRAMS, SEED, settings, parents))
            assert isinstance(half, Half), half.lost
            functions += sum(len(one.targets) for one in half.members.values())
    return calls, functions


def _seconds(calls: list[Callable[[], Any]]) -> float:
    began = time.monotonic()
    for call in calls:
        call()
    return time.monotonic() - began


def _grow(folder: Path, compiler: Compiler, *ends: str) -> Any:
    """Run a campaign and return its summary."""
    command = [sys.executable, "-m", "harness", "grow", "--findings", str(folder)]
    more = ["--seed", str(SEED), "--clang", compiler.shell, "--json", "-", *ends]
    done = subprocess.run([*command, *more], stdout=subprocess.PIPE, check=False)
    return json.loads(done.stdout)
