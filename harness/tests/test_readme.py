"""README.md stays true: its console sessions are run and their output compared.

``...`` in an expected line stands for any text in it, a line of ``...`` for any lines.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from harness.toolchain import Compiler

ROOT = Path(__file__).parents[2]


def sessions(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and the text of each console block."""
    for block in re.finditer(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, block.start()) + 2, block[1]


def commands(session: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a session and what it is to print."""
    command, said = "", ""
    for line in session.splitlines(keepends=True):
        if line.startswith("$ "):
            if command:
                yield command, said
            command, said = line[2:].strip(), ""
        elif line.startswith("> ") and command and not said:
            command += "\n" + line[2:].rstrip("\n")
        else:
            said += line
    if command:
        yield command, said


def pattern(said: str) -> str:
    parts = []
    for line in said.strip("\n").splitlines():
        if line == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(re.escape(line.rstrip()).replace(r"\.\.\.", ".*") + r" *\n")
    return "".join(parts)


README = (ROOT / "README.md").read_text(encoding="utf-8")
SESSIONS = list(sessions(README))


def test_the_sessions_of_the_readme_are_true(tmp_path: Path, compiler: Compiler) -> None:
    for folder in ("c_sources", "corpus"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "80",
        "NO_COLOR": "1",
        "CLANG": compiler.command[0],
    }
    for line, command, said in (
        (line, *step) for line, session in SESSIONS for step in commands(session)
    ):
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=280,
        )
        lines = "".join(line.rstrip() + "\n" for line in done.stdout.strip("\n").splitlines())
        assert re.fullmatch(pattern(said), lines), f"line {line}: $ {command}\n{done.stdout}"


def test_the_readme_has_both_commands_and_ci_runs_the_second() -> None:
    assert "python3 -m pip install tox && tox run -e crosscheck" in README
    assert re.search(r"^python3 -m pip install tox && tox$", README, re.MULTILINE)
    assert "python3 -m pip install tox && tox\n" in (ROOT / ".ci/run").read_text()
    assert len(SESSIONS) >= 3
