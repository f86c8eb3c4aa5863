"""Faults planted in every component: each is blamed on the right one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.isa.disasm import format_insn
from harness.model import HarnessError
from harness.tests.faults import COMPILERS, FAULTS, HARNESS, OURS, SOURCES, Fault, plant, wrapper
from harness.toolchain import Compiler, find_compilers
from harness.triage import page, report
from harness.triage.facts import AGREES, CLANG, REFUSED, UNDEFINED, WRONG_CODE
from harness.triage.session import Triage, triage
from harness.triage.targets import target_of


def named(fault: Fault) -> str:
    return fault.name


def test_there_are_enough_of_each_kind() -> None:
    counts = Counter(fault.kind for fault in FAULTS)
    assert len(FAULTS) >= 20
    assert min(counts[k] for k in ("jit", "interpreter", "verifier", "compiler", "source")) >= 4


def triaged(root: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "triage", *arguments, "--json", "-"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.stdout, done.stderr
    (row,) = json.loads(done.stdout)["triaged"]
    assert done.returncode == 1, done.stderr
    return dict(row)


@pytest.mark.parametrize("fault", OURS, ids=named)
def test_a_fault_of_ours_is_ours(fault: Fault, tmp_path: Path, clang: Sequence[str]) -> None:
    planted = plant(fault, tmp_path, clang)
    row = triaged(planted.root, *planted.arguments, "--no-reduce")
    assert row["cause"] == fault.cause, json.dumps(row["experiments"], indent=1)
    assert Path(row["report"]).read_text().startswith(f"# {fault.cause}")
    if "accepts" in fault.name:
        assert row["detail"].startswith(("accepts wrongly", "says"))


@pytest.mark.parametrize("fault", COMPILERS, ids=named)
def test_a_damaged_build_is_the_compilers(
    fault: Fault, tmp_path: Path, clang: Sequence[str]
) -> None:
    file, *_ = plant(fault, tmp_path, clang).arguments
    odd = find_compilers([str(wrapper(fault, tmp_path, clang))])[0]
    build = ("2", "v3", "hidden")
    target = target_of(Path(file), function="mixed", compilers=[odd], build=build, vectors=32)
    result = triage(target, shrink=False, passes=fault.name == "wrong offset")
    assert result.diagnosis.cause == fault.cause, result.diagnosis
    if fault.cause == WRONG_CODE:
        assert result.diagnosis.confidence in ("certain", "high"), result.diagnosis
    if fault.name in ("swapped slots", "wrong offset", "lost sign", "wrong register",
                      "wrong constant"):  # fmt: skip
        assert result.wrong is not None
        assert "assembly has" in result.wrong_why
    if fault.name == "wrong offset":
        assert result.bisection is not None
        assert "writing the object" in result.bisection.hand_over


@pytest.mark.parametrize("fault", SOURCES, ids=named)
def test_undefined_behaviour_is_the_sources(
    fault: Fault, tmp_path: Path, compiler: Compiler
) -> None:
    file, *_ = plant(fault, tmp_path, compiler.command).arguments
    target = target_of(Path(file), compilers=[compiler], vectors=32)
    result = triage(target, shrink=fault.name == "division")
    assert result.diagnosis.cause == UNDEFINED, result.diagnosis
    assert result.diagnosis.cause not in CLANG
    text = report.markdown(result)  # also where the function became part of its caller
    assert "## The code" in text
    assert result.diagnosis.undefined in text
    assert page.page(result)


def test_a_right_refusal_of_real_code(compiler: Compiler) -> None:
    path = HARNESS.parent / "c_sources" / "address_taken.c"
    target = target_of(
        path, function="address_arguments", compilers=[compiler], build=("3", "v3", "static")
    )
    result: Triage = triage(target, shrink=False)
    if result.diagnosis.cause == AGREES:
        assert compiler.version > "23.1.4"  # mended since
        return
    assert result.diagnosis.cause == REFUSED
    assert result.diagnosis.confidence in ("high", "certain")
    assert result.bisection is not None
    assert result.bisection.step is not None
    assert "deadargelim" in result.bisection.step.name.lower().replace(" ", "")


NARROW = """\
__attribute__((noinline)) long callee(long a, long b, long c, long d, long e, signed char f)
{
	return f;
}

long caller(long a, long b, long c, long d, signed char e, long f)
{
	return callee(a, b, c, d, f, e);
}
"""


def test_a_real_bug_is_narrowed_down(
    tmp_path: Path, compiler: Compiler, clang: Sequence[str]
) -> None:
    """clang 23.1.4: a narrow signed argument goes to a slot as it came (known.toml)."""
    path = tmp_path / "narrow.c"
    path.write_text(NARROW)
    build = ("1", "v3", "hidden")
    try:
        target = target_of(path, function="caller", compilers=[compiler], build=build, vectors=24)
    except HarnessError:
        assert compiler.version > "23.1.4"  # mended since
        return
    crashing = next(fault for fault in COMPILERS if fault.name == "crash")
    other = find_compilers([str(wrapper(crashing, tmp_path, clang))])[0]
    result = triage(target, compilers=[other], shrink=False)
    assert (result.diagnosis.cause, result.diagnosis.confidence) == (WRONG_CODE, "high")
    program, slot = result.facts.built.program, result.wrong
    assert program is not None
    assert slot is not None
    assert format_insn(program.insns[slot]) == "*(u64 *)(r11 - 0x8) = r5"
    assert "argument 6 (r11-8) at the call of callee" in result.wrong_why
    found = result.bisection
    assert found is not None
    assert found.axes["-mcpu"] == "v1 good, v2 good, v3 bad, v4 good"
    assert found.axes["-O"].startswith("0 good, 1 bad")
    assert found.innocent
    assert "code generation" in found.ir
    assert found.step is not None
    assert "STORE_STACK_ARG" in found.selected
    assert any("isel" in name for name in found.machine)
    # the other compiler makes nothing of it: neither bad in this way nor good
    assert f"{other.name} ({other.version}) other: no program: " in found.compilers
    assert found.first_bad.startswith(compiler.name)
    assert not found.last_good
    text = report.markdown(result)
    for words in ("With `", "is right.", "It is innocent", "as instruction selection leaves it",
                  "callee:"):  # fmt: skip
        assert words in text, words
