"""Worker processes that end with their parent, and that a KeyboardInterrupt ends at once."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import multiprocessing
import os
import signal
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from harness.model import HarnessError


class Pool:
    """A pool of workers, as long as its block runs."""

    def __init__(self, jobs: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["harness.pipeline"])
        # what a worker leaves that is ended in the middle goes with the pool
        try:
            self._scratch = tempfile.TemporaryDirectory(
                prefix="crosscheck-", ignore_cleanup_errors=True
            )
        except OSError as error:
            where = error.filename or "the temporary folder"
            raise HarnessError(
                f"{where}: {error.strerror}: make room, or name another folder in $TMPDIR"
            ) from None
        try:
            self._executor = ProcessPoolExecutor(
                jobs, mp_context=context, initializer=_start_worker, initargs=(self._scratch.name,)
            )
        except OSError as error:
            raise HarnessError(
                f"cannot make worker processes ({error.strerror}): they need a writable /dev/shm, "
                "e.g. mount -t tmpfs tmpfs /dev/shm"
            ) from None

    def __enter__(self) -> ProcessPoolExecutor:
        return self._executor

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, Exception):
            for process in multiprocessing.active_children():
                process.terminate()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._scratch.cleanup()


def _start_worker(scratch: str) -> None:
    tempfile.tempdir = scratch
    # Most of what a step makes lives as long as the step: looking for cycles is in vain.
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, _leave)
    # A parent that is killed leaves no worker behind: its end of this pipe closes then.
    parent = multiprocessing.parent_process()
    if parent is not None:
        signal.signal(signal.SIGIO, _leave)
        fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(parent.sentinel, fcntl.F_GETFL)
        fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)


def _leave(*_: object) -> None:
    """End this worker at once, with the compilers that it runs, each a group of its own."""
    for path in Path("/proc/self/task").glob("*/children"):
        for child in path.read_text().split():
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(OSError):
                    kill(int(child), signal.SIGKILL)
    os._exit(1)  # an exception would be taken for the result of a step
