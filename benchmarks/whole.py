"""A whole ``run`` over c_sources/ against the same compiler commands alone."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.toolchain import find_compilers

ROUNDS = 3


def run_against_compilers() -> None:
    """Time both in turn, on the same cores, without the build cache; print the ratio."""
    (compiler,) = find_compilers()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "commands")
        wrapper = Path(folder, "clang")
        # keeps every command and the source it read, so that exactly those run again
        wrapper.write_text(
            f"""#!/bin/sh
n={folder}/input.$$
for last; do :; done
case " $* " in *" - -o "*) cat > $n; exec 0< $n;; esac
printf '%s\\0' "$PWD" "$n" "$@" >> {log}.$$
exec {compiler.command[0]} "$@"
"""
        )
        wrapper.chmod(0o755)
        crosscheck = [sys.executable, "-m", "harness", "run", "c_sources", "--json", "/dev/null"]
        environment = {**os.environ, "CROSSCHECK_NO_CACHE": "1"}
        subprocess.run(
            [*crosscheck, "--clang", str(wrapper)], env=environment, stdout=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
        commands = [_read(path, compiler.command[0]) for path in Path(folder).glob("commands.*")]
        if shutil.which(compiler.command[0]) is None or not commands:
            raise SystemExit("the compiler was never called")
        whole, alone, peaks = [], [], []
        for _ in range(ROUNDS):
            alone.append(_compile(commands))
            began = time.monotonic()
            subprocess.run(
                [*crosscheck, "--clang", compiler.command[0]], env=environment,
                stdout=subprocess.DEVNULL, check=False,
            )  # fmt: skip
            whole.append(time.monotonic() - began)
            peaks.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
    ratio = statistics.median(w / a for w, a in zip(whole, alone, strict=True))
    print(
        f"run over c_sources/: {statistics.median(whole):.1f} s; {len(commands)} compiler commands"
    )
    print(f"  alone, same cores: {statistics.median(alone):.1f} s; ratio {ratio:.2f} (bar 2.0)")
    print(
        f"  largest process: {max(peaks):.0f} MB; all at once: {_peak(crosscheck):.0f} MB (bar 600)"
    )


def _read(path: Path, command: str) -> tuple[str, str | None, list[str]]:
    cwd, source, *arguments = path.read_bytes().decode().split("\0")[:-1]
    arguments[arguments.index("-o") + 1 if "-o" in arguments else -1] = "/dev/null"
    return cwd, source if Path(source).exists() else None, [command, *arguments]


def _compile(commands: list[tuple[str, str | None, list[str]]]) -> float:
    def one(job: tuple[str, str | None, list[str]]) -> None:
        cwd, source, argv = job
        with open(source or os.devnull, "rb") as text:
            subprocess.run(
                argv, cwd=cwd, stdin=text, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                check=False,
            )  # fmt: skip

    began = time.monotonic()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(one, commands))
    return time.monotonic() - began


def _peak(command: list[str]) -> float:
    """Return the largest sum, in MB, of the resident memory of a run's processes, compilers too."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    peak = 0
    while process.poll() is None:
        total = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == process.pid:  # session
                    rollup = stat.with_name("smaps_rollup").read_text()
                    pss = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
                    total += int(pss.split()[1])
            except (OSError, StopIteration, ValueError, IndexError):
                continue
        peak = max(peak, total)
        time.sleep(0.02)
    return peak / 1024
