"""Where the steps of a campaign run: in processes of this machine, or on a Dask cluster.

On a cluster workers share nothing but the scheduler: all that a step needs is in its
arguments, and all that it found is in its result. A worker that dies takes only its step with
it, which runs once more elsewhere and is then lost. What checks programs remembers things by the
process (an emulator, the last program), so a worker of many threads runs one step at a time.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

from harness.grow.campaign import Work
from harness.model import HarnessError
from harness.run import Step, TimeOver

ENGINES = ("local", "dask")
AHEAD = 2  # steps that wait at the scheduler, so that no worker waits for us
CONNECT = 30  # seconds to reach a scheduler

_turn = threading.Lock()  # of this process: who has it runs a step


def in_turn(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what *call* returns, once no other step runs in this process."""
    with _turn:
        return call(*arguments)


def engine(name: str, scheduler: str | None = None) -> Work | None:
    """Return what runs steps on the engine *name*, None for a campaign's own.

    *scheduler* is the address of a cluster's.
    """
    if name == "local":
        if scheduler:
            raise HarnessError("--scheduler is of --engine dask")
        return None
    return partial(dask_work, scheduler=scheduler)


def dask_work(
    steps: list[Step],
    finished: Callable[[Any], Iterator[Step]],
    jobs: int,
    left: Callable[[], float | None] = lambda: None,
    *,
    scheduler: str | None = None,
) -> None:
    """Do as ``run.work`` on the cluster of *scheduler*, by default one of *jobs* workers here."""
    try:
        import dask
        import distributed
    except ImportError:
        raise HarnessError(
            "--engine dask needs Dask: pip install 'crosscheck[dask]', or use --engine local"
        ) from None
    # All that a dying worker had is suspect; who did it, we find out one by one.
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.admin.tick.limit": "60s",  # a step may hold the interpreter that long
        "distributed.logging.distributed": "critical",
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        try:
            if scheduler is None:
                cluster = distributed.LocalCluster(
                    n_workers=jobs, threads_per_worker=1, dashboard_address=None, silence_logs=50
                )
                stack.enter_context(cluster)
                client = distributed.Client(cluster, timeout=CONNECT)
            else:
                client = distributed.Client(scheduler, timeout=CONNECT, set_as_default=False)
            stack.enter_context(client)
        except (OSError, ValueError, TimeoutError) as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise HarnessError(f"no Dask cluster at {scheduler or 'localhost'}: {said}") from None
        _Dask(client, finished, left).run(steps)


class _Dask:
    """The steps of one campaign on one cluster."""

    def __init__(
        self,
        client: Any,
        finished: Callable[[Any], Iterator[Step]],
        left: Callable[[], float | None],
    ) -> None:
        self.client = client
        self.finished = finished
        self.left = left
        self.waiting: list[Step] = []
        self.suspects: list[Step] = []  # what a worker that died had: to be run alone
        self.running: dict[Any, Step] = {}  # by future
        self.done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.asked = 0

    def run(self, steps: list[Step]) -> None:
        """Run *steps* and all that follows."""
        self._add(iter(reversed(steps)))
        while self.waiting or self.suspects or self.running or self.asked:
            if self.suspects and not self.running:
                self._submit(self.suspects.pop())
            elif not self.suspects and not any(step.alone for step in self.running.values()):
                # workers, not their threads: those of one process take turns
                room = len(self.client.nthreads()) + AHEAD
                while self.waiting and len(self.running) < room:
                    self._submit(self.waiting.pop())
            try:
                step, future = self.done.get(timeout=self.left())
            except queue.Empty:
                self.client.cancel(list(self.running), force=True)
                raise TimeOver from None
            if future not in self.running:
                self.asked -= 1
                self._add((step.then or self.finished)(future.result()))
                continue
            del self.running[future]
            self._take(step, future)

    def _add(self, more: Iterator[Step]) -> None:
        for step in more:
            if step.ask:
                self.asked += 1
                future: Future[Any] = step.call(*step.arguments)
                future.add_done_callback(partial(self._done, step))
            else:
                self.waiting.append(step)

    def _submit(self, step: Step) -> None:
        future = self.client.submit(in_turn, step.call, *step.arguments, pure=False)
        self.running[future] = step
        future.add_done_callback(partial(self._done, step))

    def _done(self, step: Step, future: Any) -> None:
        self.done.put((step, future))

    def _take(self, step: Step, future: Any) -> None:
        """Go on with what *future* came to."""
        error = result = None
        try:
            if future.status == "finished":
                result = future.result()
            elif future.status == "error":
                error = future.exception()
        except Exception as fault:  # its worker died with the result
            error = fault
        if future.status == "finished" and error is None:
            future.release()
            self._add((step.then or self.finished)(result))
            return
        if isinstance(error, HarnessError):
            raise error
        name = type(error).__name__
        if error is not None and name not in _GONE:
            raise error
        if not step.alone:
            step.alone = True
            self.suspects.append(step)
        else:
            why = "the process that checked it died: a crash in LLVM or the emulator"
            self._add(self.finished(step.lost(why)))


# What Dask says of a step whose worker died, or left
_GONE = ("KilledWorker", "CancelledError", "FutureCancelledError", "CommClosedError")
