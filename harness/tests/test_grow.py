"""Campaigns: what they find is kept, and nothing is lost or doubled when they are killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness import cli, corpus, findings, grow, verifier
from harness.corpus import Known
from harness.grow import campaign as engine
from harness.grow import constructs, refusals, shrinking, streams, units
from harness.grow.batch import BatchResult, Order, Seen, batch_c, faulty
from harness.grow.buckets import bucket
from harness.grow.campaign import affordable
from harness.grow.packing import pack, stream_of, tree_of, unpack
from harness.grow.state import Candidate, Found, State
from harness.grow.summary import summarise
from harness.grow.units import inner
from harness.model import (
    BuildConfig,
    Crashed,
    Divergence,
    HarnessError,
    Program,
    Returned,
    Trapped,
    Vector,
)
from harness.pipeline import Check, Linux, Settings
from harness.run import Step, TimeOver
from harness.source import tree
from harness.source.generate import generate
from harness.source.printing import print_file
from harness.toolchain import Compiler

ROOT = Path(grow.__file__).parents[2]


def command(folder: Path, *more: str) -> list[str]:
    words = ["grow", "--findings", str(folder), "--batch", "2", "--vectors", "8", "--jobs", "1"]
    return [sys.executable, "-m", "harness", *words, *more]


def grown(folder: Path, *more: str, cwd: Path) -> dict[str, Any]:
    done = subprocess.run(
        [*command(folder, *more), "--json", "-"],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


MEASURED = ("seconds", "rate", "vector_rate", "function_rate", "memory", "history")


def comparable(result: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in result.items() if k not in MEASURED}


def batches(path: Path) -> int:
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:  # it makes none
            return int(db.execute("SELECT count(*) FROM batch").fetchone()[0])
    except sqlite3.Error:
        return 0


@pytest.mark.usefixtures("compiler")
def test_a_killed_campaign_goes_on_with_nothing_lost_or_doubled(tmp_path: Path):
    ends = ("--count", "6", "--keep", "0", "--patience", "0")
    whole = grown(tmp_path / "whole", *ends, "--seed", "4", cwd=tmp_path)
    assert whole["programs"] == 6
    assert whole["functions"] >= 6
    assert whole["builds"] == 2 * whole["functions"]
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        command(folder, *ends, "--seed", "4"),
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while batches(folder / "campaign.sqlite") < 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert batches(folder / "campaign.sqlite") >= 1
    again = grown(folder, *ends, "--resume", cwd=tmp_path)
    assert comparable(again) == comparable(whole)
    names = [sorted(p.name for p in f.glob("*.json")) for f in (folder, tmp_path / "whole")]
    assert names[0] == names[1]


def test_what_is_new_becomes_a_case_that_agrees(tmp_path: Path, compiler: Compiler):
    campaign = grow.Campaign(
        Settings((), (compiler,), vectors=8),
        tmp_path / "findings",
        seed=5,  # whose first batch is C
        count=2,
        batch=2,
        corpus=tmp_path / "cases",
        keep=1,
    )
    result = grow.grow(campaign)
    assert result.kept == 1
    (path,) = (tmp_path / "cases").glob("*.toml")
    case = corpus.read(path)
    assert case.source is not None
    assert case.crosscheck == "agree"
    assert case.note.startswith("grown for ")
    one = tree_of(case)
    assert one is not None
    assert print_file([("", one)]).count("\n") <= case.source.c.count("\n") + 8


def test_a_tree_is_packed_into_a_line():
    one = generate(4, 0)
    assert unpack(pack(one)) == one
    for text in ("", "!!!", pack(one)[:-7]):
        with pytest.raises(ValueError, match="no packed tree"):
            unpack(text)


def divergence(one: tree.Tree, config: BuildConfig) -> Check:
    outcomes = (Returned(0, b"\1"), Returned(0, b"\2"))
    found = Divergence(("interp", "native-O0"), b"\0", outcomes, 0)
    return Check("grow.c", f"p0_{one.root.name}", config, "diverge", divergences=(found,))


CONFIG = BuildConfig("clang", "2", "v3", "hidden")


def test_a_finding_holds_all_it_takes_and_one_bucket_holds_its_like(
    tmp_path: Path, compiler: Compiler
):
    config = BuildConfig(compiler.name, "2", "v3", "hidden")
    settings = Settings((), (compiler,), vectors=8)
    program = generate(4, 0)
    one = units.member(0, program, settings)
    seen = units.Judgement(0, one.targets[0], divergence(program, config))
    found = units.finding(seen, settings, 4)
    path = findings.write(found, tmp_path / "x.json")
    again = findings.read(path)
    assert again == found
    assert tree.from_json(again.tree) == program
    assert again.bucket.startswith("diverge: interp-native")
    assert "32-bit registers" in again.bucket


@pytest.mark.parametrize("right", [True, False])
def test_a_refusal_is_made_small_in_its_bucket(
    right: bool, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
):
    """Whether it does what the native builds do once it is mended, or another fault is behind."""
    if not right:
        monkeypatch.setattr(refusals, "agree", lambda *_: False)
    config = BuildConfig(compiler.name, "3", "v3", "static")
    settings = Settings((config,), (compiler,), vectors=8, legs=("interp", "native"))
    members = {2: units.member(2, generate(2026, 2), settings)}
    natives = units.native_outcomes(list(members.values()), settings)
    (unit,) = units.compile_units(list(members.values()), config, settings, natives)
    (seen,) = units.judge(unit, members, settings, natives, {})
    start = units.finding(seen, settings, 2026)
    last = constructs.REMOVED if right else "and then: another result than natively"
    assert start.bucket.endswith(f", {last}")
    monkeypatch.setattr(shrinking, "SHRINK_ROUNDS", 1)
    monkeypatch.setenv("CROSSCHECK_NO_CACHE", "1")  # which it sets for a worker
    made = shrinking.shrink_finding(start, settings).finding
    assert isinstance(made, findings.Finding)
    assert made.bucket == start.bucket
    assert len(made.c) < len(start.c)


def test_a_thirteenth_argument_is_found_by_another_build(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
):
    config = BuildConfig(compiler.name, "3", "v3", "static")
    settings = Settings((config,), (compiler,), vectors=8, legs=("interp", "native"))
    members = {460: units.member(460, generate(2026, 460), settings)}
    natives = units.native_outcomes(list(members.values()), settings)
    (unit,) = units.compile_units(list(members.values()), config, settings, natives)
    (seen,) = units.judge(unit, members, settings, natives, {})
    assert "stack arg write offset" in seen.check.detail
    assert units.causes(seen, settings) == [constructs.BEYOND]
    known = corpus.read_known(ROOT / "corpus" / "known.toml")
    found = units.finding(seen, settings, 2026)
    assert engine.known_as(found, known) == "clang-promoted-beyond-limit-grown"
    # a compiler that cannot leave a pass out leaves the bucket open
    monkeypatch.setattr(units, "leave_out", lambda _: ["-mllvm", "-no-such-option"])
    assert units.causes(seen, settings) == []
    assert engine.known_as(units.finding(seen, settings, 2026), known) is None


def test_buckets_tell_what_ends_differently():
    check = divergence(generate(4, 0), CONFIG)
    outcomes = (Returned(0, b"\1"), Trapped("access", "somewhere"))
    other = Divergence(("jit", "native-O2"), b"\0", outcomes)
    trapped = Check("grow.c", "f", CONFIG, "diverge", divergences=(other,))
    assert bucket(check) != bucket(trapped)
    assert "trapped access" in bucket(trapped)
    assert bucket(check, ["a cause"]) == bucket(check) + ", a cause"


def test_known_divergences_are_told_by_their_bucket():
    check = divergence(generate(4, 0), CONFIG)
    found = findings.Finding("", "f", CONFIG, "diverge", bucket=bucket(check, ["a cause"]))
    entry = Known("k", "divergence", "open", "", source="grow.c", message="diverge: *, a cause")
    assert engine.known_as(found, [entry]) == "k"
    other = findings.Finding("", "f", CONFIG, "diverge", bucket=bucket(check))
    assert engine.known_as(other, [entry]) is None


def result(number: int, features: Sequence[str]) -> BatchResult:
    seen = (Seen(2 * number, frozenset(features)),)
    return BatchResult(number, 2, 4, 32, {"agree": 4}, {}, seen, 1.0)


def test_a_batch_is_counted_once(tmp_path: Path):
    state = State(tmp_path / "s.sqlite", 9, 2, resume=False, parents=b"p")
    wanted = Candidate(0, 0, frozenset({"pair a, b"}), CONFIG)
    state.add(result(0, ["a"]), [Found("bucket", None, "x.json"), Found("bucket", None)], [wanted])
    with pytest.raises(HarnessError, match="cannot be written"):
        state.add(result(0, ["b"]), [Found("bucket", None, "y.json")])
    state.close()
    again = State(tmp_path / "s.sqlite", 1, 16, resume=True)
    assert (again.seed, again.batch, again.done, again.parents) == (9, 2, {0}, b"p")
    assert again.table("SELECT name, count FROM outcome") == [("agree", 4)]
    assert again.table("SELECT file FROM finding") == [("x.json",)]
    assert again.table("SELECT name, count FROM bucket") == [("bucket", 2)]
    assert again.features == {"a"}
    assert again.pending() == [wanted]
    again.keep(0, "case.toml", frozenset({"pair a, b"}))
    assert again.pending() == []
    assert again.covered == {"pair a, b"}
    again.close()


class AnsweringQueue:
    """A queue to a Linux that says of each program what ours says."""

    def __init__(self) -> None:
        self.asked: list[Program] = []

    def submit(self, items: Sequence[tuple[Program, Sequence[Vector]]]) -> Future[list[Linux]]:
        answers = Future[list[Linux]]()
        answers.set_result([Linux(verifier.verify(p, log_level=0).verdict) for p, _ in items])
        self.asked += [program for program, _ in items]
        return answers


BESIDE_LINUX = Settings((), (), legs=("interp", "jit", "kernel"))


def breaking() -> streams.Kept:
    """Return what is kept of a text that Linux breaks over."""
    stream = stream_of(corpus.read(ROOT / "corpus" / "linux_forgotten_slot.toml"))
    assert stream is not None
    program = streams.assembled(stream, 3)
    assert program is not None
    died = Linux(Crashed("the guest died: BUG"))
    kept = streams.judge(stream, program, BESIDE_LINUX, died).kept
    assert kept is not None
    return kept


def test_linux_is_asked_again_before_its_verdict_is_a_new_finding(tmp_path: Path):
    known = corpus.read_known(ROOT / "corpus" / "known.toml")
    campaign = engine.Campaign(BESIDE_LINUX, tmp_path, count=1, known=known)
    state = State(tmp_path / "s.sqlite", 9, 2, resume=False)
    queue = AnsweringQueue()
    session = engine._Session(campaign, state, 0.0, lambda _: None, queue)  # type: ignore[arg-type]
    session.next = 1
    seen = (Seen(3, frozenset(), texts=(breaking(),)),)
    (step,) = engine._finished(session, BatchResult(0, 1, 0, 0, {"diverge": 1}, {}, seen, 1.0))
    assert step.ask
    assert step.then is not None
    assert not state.done  # not before it has answered
    assert list(session.doubted) == [0]
    assert list(step.then(step.call(*step.arguments).result())) == []
    assert len(queue.asked) == 1
    assert state.done == {0}
    assert not session.doubted
    told = summarise(state, 1.0, (0, 0, 0), 0)
    assert [known for _, _, known in told.buckets.values()] == ["linux-forgotten-slot-grown"]
    assert told.ok
    assert len(list(tmp_path.glob("diverge-*.toml"))) == 1
    state.close()


def test_what_linux_does_not_answer_in_time_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = (Seen(3, frozenset(), texts=(breaking(),)),)
    found = BatchResult(0, 1, 0, 0, {"diverge": 1}, {}, seen, 1.0)

    def work(_steps: list[Step], finished: Callable[[Any], Iterator[Step]], *_: object) -> None:
        assert [step.ask for step in finished(found)] == [True]
        raise TimeOver

    monkeypatch.setattr(engine, "_queue", lambda _: contextlib.nullcontext(AnsweringQueue()))
    campaign = engine.Campaign(BESIDE_LINUX, tmp_path, count=1)
    told = engine.grow(campaign, work=work)
    assert [known for _, _, known in told.buckets.values()] == [None]
    assert not told.ok
    assert len(list(tmp_path.glob("diverge-*.toml"))) == 1


@pytest.mark.parametrize(
    ("bucket", "known", "ok"),
    [
        ("diverge: interp-jit", None, False),
        ("BPF text diverge: interp-jit", None, False),
        ("rejected: RN !read_ok", None, False),
        ("compile_error: it crashed", None, False),
        ("unknown: the budget is used up", None, True),
        ("rejected: RN !read_ok", "an entry", True),
    ],
)
def test_what_is_open_ends_with_status_1(
    tmp_path: Path, bucket: str, known: str | None, ok: bool
) -> None:
    state = State(tmp_path / "s.sqlite", 9, 2, resume=False)
    state.add(result(0, ["a"]), [Found(bucket, known, "x.json")])
    assert summarise(state, 1.0, (0, 0, 0), 0).ok is ok
    state.close()


def test_a_folder_with_a_campaign_needs_resume(tmp_path: Path):
    State(tmp_path / "s.sqlite", 9, 2, resume=False).close()
    with pytest.raises(HarnessError, match="--resume"):
        State(tmp_path / "s.sqlite", 9, 2, resume=False)


def test_a_state_that_is_no_database_is_one_line(tmp_path: Path):
    path = tmp_path / "s.sqlite"
    path.write_text("not a database, " * 100)
    with pytest.raises(HarnessError, match="not a database"):
        State(path, 1, 2, resume=True)


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    assert cli.main(["grow", "--count", "1", "--findings", str(tmp_path / "file" / "x")]) == 2
    error = capsys.readouterr().err
    assert "cannot be written" in error
    assert error.count("\n") == 1


def test_a_campaign_needs_an_end(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["grow"]) == 2
    assert "--for" in capsys.readouterr().err


def test_a_scheduler_is_of_dask(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["grow", "--count", "1", "--scheduler", "tcp://127.0.0.1:1"]) == 2
    assert "--engine dask" in capsys.readouterr().err


def test_a_batch_that_does_not_end_in_time_is_left_to_the_next_session(
    tmp_path: Path, compiler: Compiler
):
    script = tmp_path / "clang"
    script.write_text(
        "#!/bin/sh\n"
        f'input={tmp_path}/input.$$; case " $* " in *" - "*) cat > $input; '
        "grep -q p2_ $input && sleep 300; "
        f'exec {compiler.command[0]} "$@" < $input;; esac\n'
        f'exec {compiler.command[0]} "$@"\n'
    )
    script.chmod(0o755)
    slow = Compiler((str(script),), compiler.name, compiler.version, True, "option")
    settings = Settings((), (slow,), vectors=4)
    first = grow.Campaign(
        settings, tmp_path / "f", seed=4, batch=2, seconds=3.0, patience=0.0, jobs=1
    )
    began = time.monotonic()
    result = grow.grow(first)
    assert result.programs >= 2  # the first batch, however long it took
    assert result.lost == 0
    assert time.monotonic() - began < 120
    again = replace(
        first,
        settings=replace(settings, compilers=(compiler,)),
        seconds=None,
        count=4,
        resume=True,
    )
    assert grow.grow(again).programs == 4


def inline(
    steps: list[Step],
    finished: Callable[[Any], Iterator[Step]],
    _jobs: int,
    _left: Callable[[], float | None],
) -> None:
    while steps:
        step = steps.pop(0)
        steps += finished(step.call(*step.arguments))


def full(*_arguments: Any, **_named: Any) -> tuple[int, str]:
    return os.open("/dev/full", os.O_WRONLY), "/nonexistent"


@pytest.fixture
def crashing(tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> grow.Campaign:
    """A campaign of two programs, one of which the compiler crashes over."""
    script = tmp_path / "clang"
    script.write_text(
        "#!/bin/sh\n"
        'case " $* " in *--target=bpf*" - "*) cat > input.$$\n'
        'if grep -q p1_ input.$$; then echo "LLVM ERROR: planted" >&2; exit 134; fi\n'
        f'exec {compiler.command[0]} "$@" < input.$$;; esac\n'
        f'exec {compiler.command[0]} "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    broken = Compiler((str(script),), compiler.name, compiler.version, True, "option")
    settings = Settings((), (broken,), vectors=4, legs=("interp", "jit"))
    folder = tmp_path / "findings"
    return grow.Campaign(settings, folder, seed=5, batch=2, count=2, patience=0.0)  # C


def test_a_disk_that_is_full_where_findings_go_loses_nothing(
    crashing: grow.Campaign, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr("harness.corpus.writing.tempfile.mkstemp", full)
        with pytest.raises(HarnessError, match=r"No space left.*make room, and go on with --res"):
            grow.grow(crashing, work=inline)
    assert list(crashing.folder.glob("*.json")) == []
    result = grow.grow(replace(crashing, resume=True), work=inline)
    assert result.programs == 2
    assert result.outcomes["compile_error"] >= 1
    assert [name for name in result.buckets if "planted" in name]
    assert list(crashing.folder.glob("compile_error-*.json"))


def test_a_disk_that_is_full_where_the_state_is_loses_nothing(
    crashing: grow.Campaign, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        begin = State.add

        def limited(state: State, *arguments: Any) -> None:
            state.db.execute("PRAGMA max_page_count = 1")  # SQLite's own: the disk is full
            begin(state, *arguments)

        patch.setattr(State, "add", limited)
        with pytest.raises(HarnessError, match="disk is full: make room, and go on with --resume"):
            grow.grow(crashing, work=inline)
    assert batches(crashing.folder / "campaign.sqlite") == 0
    assert grow.grow(replace(crashing, resume=True), work=inline).programs == 2
    assert batches(crashing.folder / "campaign.sqlite") == 1


def test_a_compiler_that_is_gone_ends_the_campaign_with_one_line(crashing: grow.Campaign):
    Path(crashing.settings.compilers[0].command[0]).unlink()
    with pytest.raises(HarnessError, match=r"cannot start the compiler .*No such file"):
        grow.grow(crashing, work=inline)


def test_no_step_begins_when_the_time_is_over():
    assert engine.in_time(time.monotonic() - 1, int, "7") == engine.Over()
    assert engine.in_time(time.monotonic() + 60, int, "7") == 7
    assert engine.in_time(None, int, "7") == 7


def test_new_cases_take_their_share_of_the_time_and_one_more():
    assert affordable(1.0, 0.0, 0, 0) == 1  # the first batch has one
    assert affordable(1.0, 0.0, 0, 1) == 0  # and no second while it is being made
    assert affordable(100.0, 14.9, 3, 0) == 1
    assert affordable(100.0, 15.1, 3, 0) == 0
    assert affordable(1000.0, 30.0, 10, 0) == 41
    assert affordable(1000.0, 30.0, 10, 39) == 2  # those that are being made count


def test_what_a_parent_has_gets_no_driver_in_its_mutant():
    one = next(t for t in map(partial(generate, 31), range(50)) if inner(t, ()))
    below = inner(one, ())
    known = {tree.closure(one, f) for f in one.functions}
    assert inner(one, known) == []
    *rest, last = below[-1].functions
    changed = replace(last, noinline=not last.noinline)
    mutant = replace(one, functions=(*rest, changed, *one.functions[len(rest) + 1 :]))
    assert [t.root for t in inner(mutant, known)] == [changed]


def test_a_fault_of_ours_loses_a_batch_and_a_full_disk_ends_the_campaign(compiler: Compiler):
    order = Order(3, 2, 4, Settings((), (compiler,)))
    lost = faulty(order, ZeroDivisionError("planted"), time.monotonic())
    assert "planted" in lost.lost
    assert lost.programs == 0
    with pytest.raises(HarnessError, match="make room"):
        faulty(order, OSError(28, "No space left on device", "/tmp/x"), time.monotonic())


def test_batches_follow_from_their_number(compiler: Compiler):
    order = Order(3, 2, 4, Settings((), (compiler,)))
    assert [n for n, _ in batch_c(order)] == [6, 7]
    assert batch_c(order) == batch_c(order)
