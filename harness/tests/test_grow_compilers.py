"""Compilers that break in a campaign: counted, named, and the others' programs go on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harness.grow import units
from harness.grow.batch import Order, batch_c, check_batch
from harness.model import BuildConfig
from harness.pipeline import Settings
from harness.toolchain import Compiler

# What a compiler does when it is asked for BPF of a program that is called p5_...
FAULTS = {
    "crashes": ('echo "LLVM ERROR: planted" >&2; exit 134', "planted"),
    "is killed": ("kill -SEGV $$", "crashed"),
    "hangs": ("sleep 100", "did not finish"),
    "floods": ("yes error: flood | head -c 3000000 >&2; exit 1", "error: flood"),
    "writes nonsense": (
        'for last; do :; done; head -c 100 /dev/zero > "$last"; exit 0',
        "ELF",
    ),
    "writes nothing": ('for last; do :; done; : > "$last"; exit 0', "lacks its driver"),
    "writes no file": ("exit 0", "said nothing"),
    "complains": ('echo "p5_:3:1: error: planted" >&2; exit 1', "planted"),
}


def planted(folder: Path, compiler: Compiler, fault: str) -> Compiler:
    """Return *compiler* with *fault* where it sees program 5."""
    path = folder / "clang"
    path.write_text(
        "#!/bin/sh\n"
        'case " $* " in *--target=bpf*" -c "*)\n'
        f"  input={folder}/input.$$; cat > $input\n"
        f"  if grep -q p5_ $input; then rm $input; {fault}; fi\n"
        f'  exec {compiler.command[0]} "$@" < $input;;\n'
        "esac\n"
        f'exec {compiler.command[0]} "$@"\n'
    )
    path.chmod(0o755)
    return Compiler((str(path),), "planted", compiler.version, True, "option")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_compiler_that_breaks_loses_one_program(
    tmp_path: Path, compiler: Compiler, fault: str, monkeypatch: pytest.MonkeyPatch
):
    script, said = FAULTS[fault]
    monkeypatch.setattr(units, "PATIENCE", (1.5 if fault == "hangs" else 30.0, 0.0))
    monkeypatch.setenv("CROSSCHECK_NO_CACHE", "1")
    broken = planted(tmp_path, compiler, script)
    settings = Settings((), (broken,), vectors=4, legs=("interp", "jit"))
    order = Order(1, 4, 4, settings)
    members = {n: units.member(n, one, settings) for n, one in batch_c(order)}
    config = BuildConfig("planted", "1", "v4", "hidden")
    none = units.Natives()
    outcomes: Counter[str] = Counter()
    for unit in units.compile_units(list(members.values()), config, settings, none):
        for seen in units.judge(unit, members, settings, none, {}):
            outcomes[seen.check.outcome] += 1
            if seen.number == 5:
                assert seen.check.outcome == "compile_error"
                assert said in seen.check.detail
    assert outcomes["compile_error"] == 1
    assert outcomes.total() == 4


def test_the_program_that_a_compiler_names_is_alone_at_once(compiler: Compiler):
    settings = Settings((), (compiler,), vectors=4)
    members = [units.member(n, one, settings) for n, one in batch_c(Order(0, 4, 4, settings))]
    parts = units.split(members, "p2_:7:1: error: planted")
    assert [[m.number for m in part] for part in parts] == [[0, 1, 3], [2]]
    parts = units.split(members, "no word of it")
    assert [[m.number for m in part] for part in parts] == [[0, 1], [2, 3]]


def test_a_broken_compiler_is_a_bucket(
    tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CROSSCHECK_NO_CACHE", "1")
    broken = planted(tmp_path, compiler, 'echo "LLVM ERROR: planted" >&2; exit 134')
    settings = Settings((), (broken,), vectors=4, legs=("interp", "jit"))
    result = check_batch(Order(1, 2, 5, settings))
    assert result.lost == ""
    found = [f for seen in result.seen for f in seen.findings if f.outcome == "compile_error"]
    # p2_ and p3_: nothing is planted for them; of the next batches' only p5_
    assert found == []
    result = check_batch(Order(2, 2, 5, settings))
    found = [f for seen in result.seen for f in seen.findings if f.outcome == "compile_error"]
    assert {f.function.partition("_")[0] for f in found} == {"p5"}
    assert all("planted" in f.bucket for f in found)
