"""Campaigns: what they find is kept, and nothing is lost or doubled when they are killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import cli, corpus, findings, grow
from harness.grow import BatchResult, Campaign, Seen, State
from harness.model import BuildConfig, Divergence, HarnessError, Returned
from harness.pipeline import Check, Settings
from harness.source import tree
from harness.source.generate import generate
from harness.source.printing import print_file
from harness.toolchain import Compiler


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


def comparable(result: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in result.items() if k not in ("seconds", "rate")}


def batches(path: Path) -> int:
    try:
        with sqlite3.connect(path) as db:
            return int(db.execute("SELECT count(*) FROM batch").fetchone()[0])
    except sqlite3.Error:
        return 0


@pytest.mark.usefixtures("compiler")
def test_a_killed_campaign_goes_on_with_nothing_lost_or_doubled(tmp_path: Path):
    whole = grown(tmp_path / "whole", "--count", "6", "--seed", "7", cwd=tmp_path)
    assert whole["programs"] == 6
    assert whole["builds"] == 12
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        command(folder, "--count", "6", "--seed", "7"),
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
    again = grown(folder, "--count", "6", "--resume", cwd=tmp_path)
    assert comparable(again) == comparable(whole)
    names = [sorted(p.name for p in f.glob("*.json")) for f in (folder, tmp_path / "whole")]
    assert names[0] == names[1]


def test_what_is_new_becomes_a_case_that_agrees(tmp_path: Path, compiler: Compiler):
    campaign = Campaign(
        Settings((), (compiler,), vectors=8),
        tmp_path / "findings",
        seed=7,
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
    assert "passing" in case.note
    assert len(case.source.c) < len(print_file([("", generate(7, 0))])) * 4


def divergence(one: tree.Tree, config: BuildConfig) -> Check:
    outcomes = (Returned(0, b"\1"), Returned(0, b"\2"))
    found = Divergence(("interp", "native-O0"), b"\0", outcomes, 0)
    return Check("grow.c", f"p0_{one.root.name}", config, "diverge", divergences=(found,))


CONFIG = BuildConfig("clang", "2", "v3", "hidden")


def test_a_finding_holds_all_it_takes_and_one_bucket_holds_its_like(
    tmp_path: Path, compiler: Compiler
):
    config = BuildConfig(compiler.name, "2", "v3", "hidden")
    settings = Settings((), (compiler,))
    one = generate(7, 0)
    found = grow.finding(one, 0, divergence(one, config), settings, 4)
    path = findings.write(found, tmp_path / "x.json")
    again = findings.read(path)
    assert again == found
    assert tree.from_json(again.tree) == one
    assert again.bucket.startswith("diverge: interp-native")
    assert "32-bit registers" in again.bucket


def test_a_narrow_signed_argument_in_a_slot_is_suspected():
    wide = tuple(tree.Parameter(f"a{i}", tree.U64) for i in range(5))
    body = (tree.Return(tree.Const(tree.U32, 0)),)
    for kind, suspected in ((tree.S8, True), (tree.U8, False), (tree.S32, False)):
        function = tree.Function("f0", (*wide, tree.Parameter("a5", kind)), tree.U64, body)
        assert bool(grow.suspects(tree.Tree((), (), (function,)))) is suspected


def test_messages_are_counted_without_their_numbers():
    assert grow.general("R3 !read_ok") == grow.general("R7 !read_ok")
    a, b = "callee expects 7 args, stack arg2 is not", "callee expects 12 args, stack arg6 is not"
    assert grow.general(a) == grow.general(b)
    assert grow.general("R3 !read_ok") != grow.general("R3 invalid")


def test_passing_says_type_place_and_source():
    parameters = tuple(tree.Parameter(f"a{i}", tree.U64) for i in range(6))
    body: tuple[Any, ...] = (tree.Return(tree.Name("a5")),)
    callee = tree.Function("f0", parameters, tree.U64, body)
    arguments = (*(tree.Name(f"a{i}") for i in range(5)), tree.Const(tree.U8, 1))
    caller = tree.Function("f1", parameters, tree.U64, (tree.Call("f0", arguments), *body))
    shown = grow.passing(tree.Tree((), (), (callee, caller)))
    assert shown == {f"passing u64 r{i} Name" for i in range(1, 6)} | {"passing u64 slot1 Const"}


def result(number: int, features: Sequence[str]) -> BatchResult:
    seen = (Seen(2 * number, frozenset(features)),)
    return BatchResult(number, 2, 4, 32, {"agree": 4}, {}, seen, 1.0)


def test_a_batch_is_counted_once(tmp_path: Path):
    state = State(tmp_path / "s.sqlite", 9, 2, resume=False)
    state.add(result(0, ["a"]), [("x.json", "bucket", None)])
    with pytest.raises(HarnessError, match="cannot be written"):
        state.add(result(0, ["b"]), [])
    state.close()
    again = State(tmp_path / "s.sqlite", 1, 16, resume=True)
    assert (again.seed, again.batch, again.done) == (9, 2, {0})
    assert again.table("SELECT name, count FROM outcome") == [("agree", 4)]
    assert again.features == {"a"}
    again.close()


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


def test_a_compiler_that_breaks_is_counted_and_named(tmp_path: Path, compiler: Compiler):
    broken = tmp_path / "clang"
    inner = compiler.command[0]
    broken.write_text(
        "#!/bin/sh\n"
        'case " $* " in *--target=bpf*__BPF*|*" -E "*|*--version*|*-dM*) ;;\n'
        '*--target=bpf*" -c "*) echo "LLVM ERROR: planted" >&2; exit 134;; esac\n'
        f'exec {inner} "$@"\n'
    )
    broken.chmod(0o755)
    made = Compiler((str(broken),), "broken", compiler.version, True, "option")
    config = BuildConfig("broken", "2", "v4", "hidden")
    settings = Settings((), (made,), vectors=8, legs=("interp", "jit"))
    trees = grow.batch_trees(4, 0, 2)
    seen = list(grow.check_trees(trees, config, settings, grow.Natives({}, {})))
    assert [check.outcome for _, check, _ in seen] == ["compile_error"] * 2
    assert all("planted" in check.detail for _, check, _ in seen)


def test_no_step_begins_when_the_time_is_over():
    assert grow.in_time(time.monotonic() - 1, int, "7") == grow.Over()
    assert grow.in_time(time.monotonic() + 60, int, "7") == 7
    assert grow.in_time(None, int, "7") == 7
