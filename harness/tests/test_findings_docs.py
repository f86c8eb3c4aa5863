"""The reports under docs/findings hold: what they tell people to do shows what they say."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import verifier
from harness.legs.interp import InterpLeg
from harness.load import load_object
from harness.model import Rejected, Returned, Unknown
from harness.toolchain import Compiler, find_compilers

FOLDER = Path(__file__).parents[2] / "docs" / "findings"
REPORTS = sorted(FOLDER.glob("*.md"))
REPRO = re.compile(r"<summary>repro\.c</summary>\n\n```c\n(.*?)```", re.DOTALL)
REFUSAL = re.compile(
    r"^# \[BPF\] (?:known, by design: )?verifier refuses code of [^:]*: (.*)$", re.MULTILINE
)
GCC = shutil.which("gcc")


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return find_compilers()[0]


def test_each_has_a_page() -> None:
    assert REPORTS
    assert [p.with_suffix(".html").exists() for p in REPORTS] == [True] * len(REPORTS)
    for path in REPORTS:
        page = path.with_suffix(".html").read_text()
        assert page.startswith("<!doctype html>")
        assert "src=" not in page, "a page needs no other file"
        assert ("cc repro.c" in page) == ("cc repro.c" in path.read_text())


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_what_it_tells_people_to_do(path: Path, tmp_path: Path, compiler: Compiler) -> None:
    """The commands compile repro.c; the object is refused, or returns, as it is said."""
    text = path.read_text()
    found = REPRO.search(text)
    if found is None:
        assert "No program of its own shows it" in text
        return
    (tmp_path / "repro.c").write_text(found[1])
    if GCC is not None:
        made = [GCC, "-w", "repro.c", "-o", "repro"]
        seen = subprocess.run(made, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert seen.returncode == 0 or "No such file" in seen.stderr, seen.stderr
    command = re.search(r"^clang (--target=bpf .*)$", text, re.MULTILINE)
    if command is None:
        assert "cc repro.c -o repro && ./repro" in text  # as root, on the kernel in question
        return
    if compiler.version not in text:
        pytest.skip(f"another clang: {compiler.version}")
    words = [*compiler.command, "-fno-crash-diagnostics", *shlex.split(command[1])]
    crash = re.search(r"the compiler crashed: (fatal error: [^:]*: [A-Z][a-z ]+)", text)
    if crash is not None:
        seen = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert seen.returncode != 0
        assert crash[1] in seen.stderr
        return
    subprocess.run(words, cwd=tmp_path, check=True)
    if "its assembler refuses what it prints" in text:
        again = re.search(r"^clang (--target=bpf .* repro\.s .*?)  +#", text, re.MULTILINE)
        assert again is not None
        told = [*compiler.command, *shlex.split(again[1])]
        seen = subprocess.run(told, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert seen.returncode == 1
        assert "error: invalid operand for instruction" in seen.stderr
        return
    (program,) = load_object((tmp_path / "repro.o").read_bytes()).programs
    verdict = verifier.verify(program, log_level=0).verdict
    refusal = REFUSAL.search(text)
    if refusal is not None:
        assert isinstance(verdict, Rejected)
        assert verdict.message == refusal[1]
        return
    assert "# [BPF] wrong code" in text
    wrong = re.search(r"^\| interp \| (0x[0-9a-f]+)", text, re.MULTILINE)
    right = re.search(r"^\| native-O0 \| (0x[0-9a-f]+)", text, re.MULTILINE)
    context = re.findall(r"`\w+ = (-?\w+)`", text.partition("Input: ")[2].partition("\n")[0])
    assert wrong is not None
    assert right is not None
    given = b"".join((int(v, 0) % (1 << 64)).to_bytes(8, "little") for v in context)
    runner = InterpLeg().prepare(program)
    assert not isinstance(runner, Unknown)
    (outcome,) = runner.run([bytes(8) + given])
    assert isinstance(outcome, Returned)
    assert int.from_bytes(outcome.ctx[:8], "little") == int(wrong[1], 16)
    if GCC is not None:
        said = subprocess.run([tmp_path / "repro"], capture_output=True, text=True, check=True)
        assert said.stdout.split() == [right[1]]
