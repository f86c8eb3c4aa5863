"""The run verb as its users start it: faults put in on purpose must be caught."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import harness
from harness import run
from harness.corpus import Known
from harness.model import BuildConfig, HarnessError
from harness.pipeline import Check, Settings

HARNESS = Path(harness.__file__).parent

SOURCE = """\
#include <stdint.h>

uint64_t weigh(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g)
{
	return a + 3 * b + 5 * c + 7 * d + 11 * e + 1234567 * f + 17 * g;
}
"""


def crosscheck(
    *arguments: str, cwd: Path, root: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **more}
    if root:
        environment["PYTHONPATH"] = str(root)
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=root or cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


def report_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "weigh.c"
    path.write_text(SOURCE)
    return path


def test_a_right_function_agrees_on_every_build(source: Path, clang: Sequence[str]) -> None:
    done = crosscheck(
        "run", str(source), "--clang", clang[0], "--vectors", "64", "--json", "-", cwd=source.parent
    )
    report = report_of(done)
    assert done.returncode == 0, done.stderr
    summary = report["summary"]
    assert summary["agree"] == len(run.DEFAULT_BUILDS)
    assert summary["functions"] == 1
    assert summary["vectors"] == 64 * len(run.DEFAULT_BUILDS)
    assert summary["unknown"] == summary["diverge"] == summary["rejected"] == 0
    assert {row["verdict"] for row in report["builds"]} == {"accept"}


def test_a_source_may_be_about_one_of_its_functions(source: Path) -> None:
    source.write_text(
        SOURCE + SOURCE.replace("weigh", "other") + "/*\n * crosscheck: only other\n */\n"
    )
    done = crosscheck(
        "run", str(source), "-O", "2", "--mcpu", "v4", "--json", "-", cwd=source.parent
    )
    assert {row["function"] for row in report_of(done)["builds"]} == {"other"}


def changed_copy(tmp_path: Path, file: str, old: str, new: str) -> Path:
    """Return a folder with a copy of the harness in which *old*, once in *file*, is *new*."""
    root = tmp_path / "copy"
    shutil.copytree(HARNESS, root / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    path = root / "harness" / file
    text = path.read_text()
    assert text.count(old) == 1, f"{file} has {text.count(old)} of {old!r}"
    path.write_text(text.replace(old, new))
    return root


def diverging_legs(done: subprocess.CompletedProcess[str]) -> set[tuple[str, ...]]:
    report = report_of(done)
    assert done.returncode == 1, done.stderr
    assert report["summary"]["diverge"] > 0
    return {tuple(d["legs"]) for d in report["divergences"]}


def test_a_wrong_constant_in_clangs_output_is_caught(
    source: Path, tmp_path: Path, clang: Sequence[str]
) -> None:
    wrapper = tmp_path / "wrong-clang"
    constant, wrong = (n.to_bytes(4, "little").hex() for n in (1234567, 1234566))
    wrapper.write_text(
        f"""#!{sys.executable}
import subprocess, sys
status = subprocess.run([{clang[0]!r}, *sys.argv[1:]]).returncode
if status == 0 and "--target=bpf" in sys.argv and "-disable-llvm-passes" not in sys.argv:
    name = sys.argv[sys.argv.index("-o") + 1]
    data = open(name, "rb").read()
    open(name, "wb").write(data.replace(bytes.fromhex("{constant}"), bytes.fromhex("{wrong}")))
sys.exit(status)
"""
    )
    wrapper.chmod(0o755)
    done = crosscheck(
        "run", str(source), "--clang", str(wrapper), "--vectors", "32", "--json", "-", cwd=tmp_path
    )
    assert diverging_legs(done) == {("interp", "native-O0"), ("jit", "native-O0")}


def test_a_wrong_constant_in_the_jit_is_caught(
    source: Path, tmp_path: Path, clang: Sequence[str]
) -> None:
    # arguments from the seventh on one slot too low
    root = changed_copy(tmp_path, *JIT_FAULT)
    done = crosscheck(
        "run", str(source), "--clang", clang[0], "--vectors", "32", "--json", "-",
        cwd=tmp_path, root=root,
    )  # fmt: skip
    assert ("interp", "jit") in diverging_legs(done)


def test_a_wrong_constant_in_the_interpreter_is_caught(
    source: Path, tmp_path: Path, clang: Sequence[str]
) -> None:
    root = changed_copy(tmp_path, *INTERP_FAULT)
    done = crosscheck(
        "run", str(source), "--clang", clang[0], "--vectors", "32", "--json", "-",
        cwd=tmp_path, root=root,
    )  # fmt: skip
    assert ("interp", "jit") in diverging_legs(done)


JIT_FAULT = (
    "jit/x86_64.py",
    "self.bottom - off - 2 * SLOT_SIZE",
    "self.bottom - off - 3 * SLOT_SIZE",
)
INTERP_FAULT = ("interp.py", "lambda a, b, _: a * b,", "lambda a, b, _: a * (b & 0xFFFF),")


def test_undefined_behaviour_is_not_blamed_on_anyone(tmp_path: Path, clang: Sequence[str]) -> None:
    path = tmp_path / "undefined.c"
    path.write_text(
        "int f(int a, int b, int c, int d, int e, int f, int g)\n"
        "{ int x; if (a > b) x = c; return (x / (g - g + 1) + a * b) / (d & 0) + e + f; }\n"
    )
    done = crosscheck(
        "run", str(path), "--clang", clang[0], "--vectors", "32", "--json", "-", cwd=tmp_path
    )
    report = report_of(done)
    assert report["summary"]["diverge"] == 0
    assert report["summary"]["unknown"] > 0
    assert report["summary"]["undefined"] > 0


def test_a_compiler_that_fails_is_an_outcome(source: Path, tmp_path: Path) -> None:
    wrapper = tmp_path / "old-clang"
    wrapper.write_text(
        "#!/bin/sh\ncase \"$*\" in *--version*) echo 'clang version 9.9.9';; "
        "*) echo 'x.c:1:1: error: too many arguments' >&2; exit 1;; esac\n"
    )
    wrapper.chmod(0o755)
    done = crosscheck("run", str(source), "--clang", str(wrapper), "--json", "-", cwd=tmp_path)
    report = report_of(done)
    assert done.returncode == 1
    assert report["summary"]["compile_errors"] == len(run.DEFAULT_BUILDS)
    assert all("too many arguments" in row["detail"] for row in report["builds"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nothing-here.c"], "no such file"),
        (["run", "--legs", "jit"], "two legs"),
        (["run", "--legs", "jit,gpu"], "no leg 'gpu'"),
        (["run", "--vectors", "0", "x.c"], "no number from 1 up"),
        (["run", "--clang", "no-such-clang", "x.c"], "not there"),
        (["run"], "no c_sources/ or corpus/"),
        (["frobnicate"], "invalid choice"),
        (["verify", "missing.o"], "cannot read missing.o"),
        (["exec", "x.c"], "not an ELF"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "x.c").write_text("int x;\n")
    done = crosscheck(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_an_interrupt_ends_everything_at_once(
    number: int, status: int, tmp_path: Path, clang: Sequence[str]
) -> None:
    wrapper = tmp_path / "slow-clang"
    wrapper.write_text(
        f'#!/bin/sh\ncase "$*" in *-c*) echo $$ >> {tmp_path}/pids; exec sleep 100;; '
        f'esac\nexec {clang[0]} "$@"\n'
    )
    wrapper.chmod(0o755)
    (tmp_path / "weigh.c").write_text(SOURCE)
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "run", "weigh.c", "--clang", str(wrapper)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # what a shell started in the background, and so all below it, ignores interrupts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    pids = tmp_path / "pids"
    deadline = time.monotonic() + 60
    while not (pids.exists() and pids.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == status, said
    assert "Traceback" not in said
    deadline = time.monotonic() + 10
    while (left := running_in(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def running_in(session: int) -> list[str]:
    """Return what still runs in *session*, the compilers' own groups included."""
    left = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        if int(rest.split()[3]) == session and rest.split()[0] != "Z":
            left.append(name)
    return left


# --- the parts --------------------------------------------------------------


def test_default_builds_have_every_level_cpu_and_linkage() -> None:
    opts, mcpus, linkages = zip(*run.DEFAULT_BUILDS, strict=True)
    assert set(opts) == set("0123s")
    assert set(mcpus) == {"v1", "v2", "v3", "v4"}
    assert set(linkages) == {"hidden", "static"}


def test_named_axes_are_combined() -> None:
    builds = run.configurations(["clang"], opts=["2"], mcpus=["v1", "v4"], linkages=["static"])
    assert [str(b) for b in builds] == ["-O2 -mcpu=v1 static", "-O2 -mcpu=v4 static"]
    assert len(run.configurations(["a", "b"])) == 2 * len(run.DEFAULT_BUILDS)


def test_expand_refuses_what_it_cannot_check(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(HarnessError, match="neither a C file nor a case"):
        run.expand([str(tmp_path / "x.py")])
    with pytest.raises(HarnessError, match="no C file and no case"):
        run.expand([str(tmp_path / "empty")])


CONFIG = BuildConfig("clang", "2", "v3", "hidden")
WIDE = Known("wide", "reject", "by-design", "counts parameters", function="wide_*", message="bad *")


def check(function: str = "wide_a", outcome: str = "rejected", detail: str = "bad slot") -> Check:
    return Check("a.c", function, CONFIG, outcome, detail=detail)


def test_known_entries_explain_and_nothing_else_is_excused() -> None:
    assert run.explain(check(), [WIDE]).known == "wide"
    assert run.explain(check(function="narrow"), [WIDE]).known is None
    assert run.explain(check(detail="other"), [WIDE]).known is None
    assert run.explain(check(outcome="diverge"), [WIDE]).known is None


def test_an_open_entry_that_agrees_now_fails_the_run() -> None:
    entry = Known("bug", "divergence", "open", "wrong code", source="a.c", function="f")
    settings = Settings(configs=(CONFIG,), compilers=())
    agrees = [check("f", "agree", "")]
    assert run.stale([entry], agrees, settings) == (entry,)
    assert run.stale([entry], [check("f", "unknown", "")], settings) == ()
    assert run.stale([entry], [check("g", "agree", "")], settings) == ()
    report = run.Report(tuple(agrees), 0.0, 0, stale=(entry,))
    assert not report.ok
    elsewhere = replace(entry, legs=("kernel",))  # a leg that did not run
    assert run.stale([elsewhere], agrees, settings) == ()
    with_kernel = replace(settings, legs=(*settings.legs, "kernel"))
    assert run.stale([elsewhere], agrees, with_kernel) == (elsewhere,)


def test_what_is_fixed_is_explained_on_older_compilers_only() -> None:
    fixed = Known("w", "reject", "fixed-in", "mended", function="wide_*", compiler="23.*")
    assert run.explain(check(), [fixed], {"clang": "23.1.4"}).known == "w"
    assert run.explain(check(), [fixed], {"clang": "24.1.0"}).known is None
    everywhere = Known("w", "reject", "fixed-in", "mended", function="wide_*")
    assert run.explain(check(), [everywhere], {"clang": "23.1.4"}).known is None


def test_an_explained_refusal_does_not_fail_the_run() -> None:
    explained = run.explain(check(), [WIDE])
    assert run.Report((explained,), 0.0, 0).ok
    assert not run.Report((check(),), 0.0, 0).ok
