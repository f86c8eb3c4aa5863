"""Steps on a Dask cluster: what comes back, and what a worker that dies takes with it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import run
from harness.grow import engines
from harness.model import HarnessError
from harness.run import Step, TimeOver


def double(number: int) -> int:
    return 2 * number


def die_once(mark: str) -> str:
    path = Path(mark)
    if not path.exists():
        path.write_text("")
        os._exit(1)
    return "second time"


def die() -> None:
    os._exit(1)


def wait_long() -> None:
    time.sleep(300)


@pytest.mark.parametrize("engine", ["local", "dask"])
def test_what_runs_when_the_time_is_over_is_not_waited_for(engine: str):
    results: list[Any] = []

    def finished(result: Any) -> Iterator[Step]:
        results.append(result)
        return iter(())

    work = engines.engine(engine) or run.work
    began = time.monotonic()

    def left() -> float | None:
        return 0.2 if results else None

    with pytest.raises(TimeOver):
        work([Step(double, (3,)), Step(wait_long)], finished, 2, left)
    assert results == [6]
    assert time.monotonic() - began < 100


def test_workers_are_replaced():
    seen: list[int] = []

    def finished(result: int) -> Iterator[Step]:
        seen.append(result)
        if len(seen) < 7:
            yield Step(os.getpid)

    run.work([Step(os.getpid)], finished, 1, fresh=3)
    assert len(seen) == 7
    assert [len(set(seen[at : at + 3])) for at in (0, 3, 6)] == [1, 1, 1]
    assert len(set(seen)) == 3


def complain() -> None:
    raise HarnessError("planted: do this")


def test_steps_and_what_follows_run_on_a_cluster(tmp_path: Path):
    results: list[Any] = []

    def finished(result: Any) -> Iterator[Step]:
        results.append(result)
        if result == 6:
            yield Step(double, (100,))

    steps = [
        Step(double, (3,)),
        Step(die_once, (str(tmp_path / "mark"),)),
        Step(die, (), lambda why: f"lost: {why}"),
    ]
    engines.dask_work(steps, finished, 2)
    assert sorted(map(str, results)) == sorted(
        ["6", "200", "second time", next(str(r) for r in results if "lost" in str(r))]
    )
    with pytest.raises(HarnessError, match="planted: do this"):
        engines.dask_work([Step(complain)], finished, 1)


_inside = 0  # steps that run in this process


def overlapping(seconds: float) -> tuple[int, int]:
    """Return the process, and how many steps ran in it at once."""
    global _inside
    _inside += 1
    time.sleep(seconds)
    found = _inside
    _inside -= 1
    return os.getpid(), found


def test_a_worker_of_many_threads_runs_one_step_at_a_time():
    import distributed

    results: list[tuple[int, int]] = []

    def finished(result: tuple[int, int]) -> Iterator[Step]:
        results.append(result)
        return iter(())

    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=4, dashboard_address=None, silence_logs=50
    ) as cluster:
        steps = [Step(overlapping, (0.1,)) for _ in range(6)]
        engines.dask_work(steps, finished, 1, scheduler=cluster.scheduler_address)
        with distributed.Client(cluster, set_as_default=False) as client:
            assert list(client.nthreads().values()) == [4]
            bare = [client.submit(overlapping, 0.5, pure=False) for _ in range(4)]
            assert max(found for _, found in client.gather(bare)) > 1  # they would run together
    assert [found for _, found in results] == [1] * 6
    assert len({process for process, _ in results}) == 1


def test_a_scheduler_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines, "CONNECT", 1)
    with pytest.raises(HarnessError, match=r"no Dask cluster at tcp://127\.0\.0\.1:9"):
        engines.dask_work([], lambda _: iter(()), 1, scheduler="tcp://127.0.0.1:9")


def test_without_dask_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(HarnessError, match=r"pip install 'crosscheck\[dask\]'"):
        engines.dask_work([], lambda _: iter(()), 1)


def test_a_result_that_dies_with_its_worker_is_made_again():
    killed = type("KilledWorker", (Exception,), {})

    class Future:
        status = "finished"

        def result(self) -> None:
            raise killed

    runner = engines._Dask(None, lambda _: iter(()), lambda: None)
    step = Step(double, (3,))
    runner._take(step, Future())
    assert runner.suspects == [step]
    assert step.alone
