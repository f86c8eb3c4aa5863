"""Planted faults: who is blamed, how small the input gets, and how long it takes."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.model import HarnessError
from harness.tests.faults import FAULTS, Fault, plant
from harness.toolchain import find_compilers
from harness.triage.facts import CLANG

GOAL = 12  # lines of C, the median
PATIENCE = 1800  # seconds
PR_SET_CHILD_SUBREAPER = 36


def faults(names: Sequence[str] = ()) -> None:
    """Triage planted faults, as a user would, and print what came of it.

    *names* are of faults or of kinds of them; none: all.
    """
    chosen = choose(names)
    (compiler,) = find_compilers()
    # the server that forks the workers outlives the command: its time is counted as well
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    rows: list[tuple[Fault, dict[str, Any]]] = []
    for fault in chosen:
        with tempfile.TemporaryDirectory(prefix="crosscheck-") as folder:
            row = _triage(fault, Path(folder), compiler.command)
        rows.append((fault, row))
        right = "right" if row["cause"] == fault.cause else "WRONG"
        print(
            f"{fault.kind:12} {fault.name:28} {right:5} {row['lines']:3} lines "
            f"{row['wall']:6.1f} s, {row['cpu']:6.1f} s of processor: "
            f"{row['cause']} ({row['confidence']})",
            flush=True,
        )
    right = sum(row["cause"] == fault.cause for fault, row in rows)
    innocent = [f for f, row in rows if f.kind != "compiler" and row["cause"] in CLANG]
    lines = [row["lines"] for _, row in rows]
    wall, cpu = [row["wall"] for _, row in rows], [row["cpu"] for _, row in rows]
    print(
        f"blamed right: {right} of {len(rows)} (bar: 19 of 20)\n"
        f"clang blamed when innocent: {len(innocent)} (bar: 0)\n"
        f"median of reduced lines of C: {statistics.median(lines):g} (bar: {GOAL}), "
        f"most {max(lines)}\n"
        f"time: median {statistics.median(wall):.1f} s, most {max(wall):.1f} s; of processor "
        f"median {statistics.median(cpu):.1f} s, most {max(cpu):.1f} s (bar: 120 s on two cores)"
    )


def choose(names: Sequence[str]) -> tuple[Fault, ...]:
    """Return the planted faults that *names* mean; raise HarnessError where one means none."""
    known = {fault.name for fault in FAULTS} | {fault.kind for fault in FAULTS}
    for name in names:
        if name not in known:
            told = ", ".join(fault.name for fault in FAULTS)
            raise HarnessError(f"no planted fault {name!r} ({told})")
    return tuple(f for f in FAULTS if not names or {f.name, f.kind} & set(names))


def _triage(fault: Fault, folder: Path, clang: tuple[str, ...]) -> dict[str, Any]:
    planted = plant(fault, folder, clang)
    began, used = time.monotonic(), _used()
    call = [sys.executable, "-m", "harness", "triage", *planted.arguments, "--json", "-"]
    try:
        done = subprocess.run(
            call, cwd=planted.root, env={**os.environ, "PYTHONPATH": str(planted.root)},
            capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        done = subprocess.CompletedProcess(call, 1, "", str(error))
    wall = time.monotonic() - began
    time.sleep(0.2)
    took = {"wall": wall, "cpu": _used() - used}
    try:
        (row,) = json.loads(done.stdout)["triaged"]
    except ValueError:
        row = {"cause": done.stderr.strip()[-200:], "confidence": "none", "lines": 0}
    return {**row, **took}


def _used() -> float:
    """Return seconds of processor of all who ended below us, orphans included."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
