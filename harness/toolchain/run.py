"""Run a compiler: whatever it does, crash, hang or flood, is a result.

``run_compiler`` keeps finished builds in the cache folder, addressed by what went in.
``$CROSSCHECK_NO_CACHE`` switches that off.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.model import HarnessError
from harness.toolchain import builds
from harness.toolchain.compiler import Compiler

TIMEOUT = 120.0  # seconds for one compiler call
MEMORY = 4 << 30  # bytes of address space
OUTPUT = 256 << 20  # bytes of any file it writes
DIAGNOSTICS = 1 << 20  # bytes of diagnostics that are kept
TREE = 1 << 26  # bytes of a syntax tree

# What clang and LLVM say when they, not the source, are at fault.
CRASH = re.compile(
    r"PLEASE submit a bug report|"
    r"^LLVM ERROR: |"
    r"frontend command failed (with exit code|due to signal)|"
    r"unable to execute command: .*(Aborted|Segmentation fault|Killed)|"
    r"internal compiler error",
    re.MULTILINE,
)
CAUSE = r"Assertion|UNREACHABLE|LLVM ERROR|error in backend|internal compiler error"
STARVED = re.compile(r"LLVM ERROR: out of memory|std::bad_alloc")  # our limit, not a bug


ROOM = 1 << 20  # bytes that must be free where a compiler fails


class ToolError(HarnessError):
    """No compiler can be run here: it is gone, or the disk is full."""


@dataclass(frozen=True, slots=True)
class CompileResult:
    """What one compiler call came to."""

    ok: bool  # exit status 0, and an output
    output: bytes | None  # what it wrote, None unless ok
    diagnostics: str  # standard error, at most DIAGNOSTICS bytes of it
    crashed: bool = False  # the compiler's own fault: a signal, or it asks for a bug report
    timed_out: bool = False
    seconds: float = 0.0  # of this call; of the original one where *cached*
    cached: bool = False

    @property
    def why(self) -> str:
        """One line that says what went wrong, "" if nothing did."""
        if self.ok:
            return ""
        if self.timed_out:
            return f"the compiler did not finish in {self.seconds:.1f} s"
        lines = [line.strip() for line in self.diagnostics.splitlines() if line.strip()]
        if self.crashed:
            return f"the compiler crashed: {self._last_words(lines)}"
        errors = [line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)]
        return (errors or lines or ["the compiler failed and said nothing"])[0]

    @staticmethod
    def _last_words(lines: Sequence[str]) -> str:
        """Return the line that tells a crash best: its cause, or what it was at."""
        for pattern in (CAUSE, r"^\d+\.\s", r"\berror\b"):
            found = [line for line in lines if re.search(pattern, line)]
            if found:
                # The innermost thing it was at comes last.
                return re.sub(r"^\d+\.\s+", "", found[0 if pattern == CAUSE else -1])
        return lines[0] if lines else "it said nothing"


@dataclass(frozen=True, slots=True)
class Finished:
    """How a process ended."""

    code: int | None  # exit status, negative: signal; None: timed out
    stdout: bytes
    stderr: str
    seconds: float


_remembered: dict[object, CompileResult] | None = None


@contextlib.contextmanager
def remembering() -> Iterator[None]:
    """Ask no compiler the same twice until the block ends, also one whose builds are not kept.

    Compilers are taken to be deterministic and headers to stay as they are; a call with
    ``cache=False`` is made in any case.
    """
    global _remembered
    before, _remembered = _remembered, {}
    try:
        yield
    finally:
        _remembered = before


def run_compiler(
    compiler: Compiler,
    args: Sequence[str],
    *,
    source: str | Path | None = None,
    timeout: float = TIMEOUT,
    memory: int | None = MEMORY,
    cwd: Path | None = None,
    cache: bool = True,
) -> CompileResult:
    """Compile *source* with *compiler* and *args*, which say neither input nor output.

    *source* is C text, which the compiler reads from standard input as ``<stdin>``,
    or a path; None where *args* name their input. *memory* is in bytes of address
    space, None for no limit. Raises ToolError only where the compiler cannot be
    started at all, or the disk is full.
    """
    if memory is not None and not compiler.limited:
        memory = None
    if not cache or source is None or os.environ.get("CROSSCHECK_NO_CACHE"):
        return _made(compiler, args, source, timeout, memory, cwd, None)
    text = source if isinstance(source, str) else _bytes_of(source, cwd)
    asked = (compiler, *args, text, source, cwd)
    if _remembered is not None and text is not None and asked in _remembered:
        return _remembered[asked]
    key = builds.Key.of(compiler, args, source, cwd)
    kept = key.find() if key else None
    if kept is not None:
        result = CompileResult(
            True, kept.output, kept.diagnostics, False, False, kept.seconds, True
        )
    else:
        result = _made(compiler, args, source, timeout, memory, cwd, key)
    if _remembered is not None and text is not None and not result.timed_out:
        _remembered[asked] = result
    return result


def _bytes_of(source: Path, cwd: Path | None) -> bytes | None:
    try:
        return ((cwd or Path()) / source).read_bytes()
    except OSError:
        return None


def _made(
    compiler: Compiler,
    args: Sequence[str],
    source: str | Path | None,
    timeout: float,
    memory: int | None,
    cwd: Path | None,
    key: builds.Key | None,
) -> CompileResult:
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as scratch:
        output = Path(scratch, "output")
        needed = Path(scratch, "needed")
        argv = [*compiler.command, *args]
        if key is not None:
            argv += ["-MD", "-MF", str(needed), "-MT", "output"]
        match source:
            case str():
                argv += ["-x", "c", "-"]
            case Path():
                argv.append(str(source))
        argv += ["-o", str(output)]
        text = source.encode(errors="surrogateescape") if isinstance(source, str) else b""
        done = run(argv, text, timeout=timeout, memory=memory, cwd=cwd, scratch=Path(scratch))
        written = output.read_bytes() if output.is_file() else None
        crashed = (
            done.code is not None
            and (done.code < 0 or (done.code != 0 and CRASH.search(done.stderr) is not None))
            and STARVED.search(done.stderr) is None
        )
        ok = done.code == 0 and written is not None
        if not ok and done.code is not None:
            _room(Path(scratch))
        if ok and key is not None and written is not None:
            key.keep(builds.Kept(written, done.stderr, done.seconds), needed)
        return CompileResult(
            ok,
            written if ok else None,
            done.stderr,
            crashed,
            done.code is None,
            done.seconds,
        )


def syntax_tree(
    compiler: Compiler, args: Sequence[str], source: str, *, timeout: float = TIMEOUT
) -> Any:
    """Return clang's syntax tree of the C text *source*, as JSON; None where it has none.

    *args* say how to compile it, and neither input nor output.
    """
    argv = [*compiler.command, *args, "-fsyntax-only", "-Xclang", "-ast-dump=json", "-x", "c", "-"]
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as scratch:
        memory = MEMORY if compiler.limited else None
        done = run(
            argv,
            source.encode(errors="surrogateescape"),
            timeout=timeout,
            memory=memory,
            scratch=Path(scratch),
            most=TREE,
        )
    try:
        return json.loads(done.stdout) if done.code == 0 else None
    except (ValueError, RecursionError):
        return None


def _room(scratch: Path) -> None:
    """Raise ToolError where the disk is full: a compiler that fails there says nothing of it.

    What it said is on that disk, too, and what it wrote it has removed.
    """
    try:
        with tempfile.TemporaryFile(dir=scratch) as probe:
            os.posix_fallocate(probe.fileno(), 0, ROOM)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ToolError(
                f"{scratch.parent}: {error.strerror}: make room, or name another folder in $TMPDIR"
            ) from None


def run(
    argv: Sequence[str],
    text: bytes = b"",
    *,
    timeout: float,
    memory: int | None = MEMORY,
    cwd: Path | None = None,
    scratch: Path,
    most: int = DIAGNOSTICS,
) -> Finished:
    """Run *argv* with *text* as standard input, in a process group that ends with it.

    *scratch* is a folder for its temporary files; of standard output the first *most* bytes
    are kept. Raises HarnessError where it cannot be started.
    """
    environment = {
        **os.environ,
        "LC_ALL": "C.UTF-8",
        "TMPDIR": str(scratch),  # crash reproducers go where we clean up
        "LLVM_DISABLE_SYMBOLIZATION": "1",
    }
    with (
        tempfile.TemporaryFile(dir=scratch) as stdin,
        tempfile.TemporaryFile(dir=scratch) as stdout,
        tempfile.TemporaryFile(dir=scratch) as stderr,
    ):
        stdin.write(text)
        stdin.seek(0)
        began = time.perf_counter()
        try:
            process = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env=environment,
                process_group=0,
            )
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else str(error)
            raise ToolError(f"cannot start the compiler {argv[0]}: {said}") from None
        code: int | None = None
        try:
            limit(process.pid, memory)
            if ended(process, timeout):
                code = 0
        finally:
            # Before it is reaped its number cannot belong to another group.
            kill_group(process.pid)
            status = process.wait()
        if code is not None:
            code = status
        seconds = time.perf_counter() - began
        stdout.seek(0)
        stderr.seek(0)
        said = stderr.read(DIAGNOSTICS).decode(errors="replace")
        return Finished(code, stdout.read(most), said, seconds)


def limit(pid: int, memory: int | None) -> None:
    """Limit what process *pid* may use; the parent does it, so that starting stays cheap."""
    try:
        if memory is not None:
            resource.prlimit(pid, resource.RLIMIT_AS, (memory, memory))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (OUTPUT, OUTPUT))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
    except (ProcessLookupError, PermissionError):
        pass  # already over


def ended(process: subprocess.Popen[bytes], timeout: float) -> bool:
    """Wait until *process* ends, without reaping it; return False after *timeout* seconds.

    ``Popen.wait`` with a timeout sleeps in steps of up to 50 ms, more than a short
    compilation takes.
    """
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:  # Linux before 5.3
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
            return True
        return False
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(fd)


def kill_group(pid: int) -> None:
    """Kill whatever is left of the process group *pid*."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
