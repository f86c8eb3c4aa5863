"""Fixtures of the real tools, and corpus case files as tests.

``pytest --bless`` rewrites the expectations of the case files it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest._code.code import TerminalRepr

from harness import corpus, pipeline
from harness.model import HarnessError
from harness.toolchain import Compiler, browser, find_compilers, find_tool


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bless", action="store_true", help="rewrite the expectations of corpus case files"
    )


@pytest.fixture(autouse=True)
def _cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign's steps switch the cache of builds off where they run: until a test ends."""
    monkeypatch.setenv("CROSSCHECK_NO_CACHE", "")


@pytest.fixture(scope="session")
def compiler() -> Compiler:
    """The clang under test: found, or fetched once for all workers."""
    return find_compilers()[0]


@pytest.fixture(scope="session")
def clang(compiler: Compiler) -> list[str]:
    """The command of the clang under test."""
    return list(compiler.command)


@pytest.fixture(scope="session")
def llvm_tool() -> Callable[[str], list[str]]:
    """The command of an LLVM tool, e.g. ``llvm_tool("llvm-objdump")``."""
    return lambda name: list(find_tool(name))


@pytest.fixture(scope="session")
def chromium() -> tuple[str, ...]:
    """Chromium: the machine's, or the one that is fetched once."""
    try:
        return browser.find_chromium()
    except HarnessError as error:
        pytest.skip(str(error))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix == ".toml" and file_path.parent.name == "corpus":
        if file_path.name == "known.toml":
            return None
        return CaseFile.from_parent(parent, path=file_path)
    return None


class CaseFile(pytest.File):
    """A case file: one test."""

    def collect(self) -> Iterator[pytest.Item]:
        yield CaseItem.from_parent(self, name=self.path.stem)


class CaseFailureError(Exception):
    """What a case expected and what it got."""


class CaseItem(pytest.Item):
    """The checks of one case file."""

    def runtest(self) -> None:
        case = corpus.read(self.path)
        compilers = find_compilers() if case.source is not None else []
        compiler = compilers[0] if compilers else None
        if self.config.getoption("--bless"):
            pipeline.bless_case(case, compiler)
            return
        failures = pipeline.check_case(case, compiler)
        if failures:
            raise CaseFailureError("\n".join(failures))

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None
    ) -> str | TerminalRepr:
        if isinstance(excinfo.value, CaseFailureError | HarnessError):
            return f"{self.path.name}:\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"case {self.name}"
