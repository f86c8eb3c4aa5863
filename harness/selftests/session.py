"""All files of the selftests through our stages and Linux's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.corpus import Known
from harness.legs.kernel import KernelAnswer, KernelLeg
from harness.legs.kernel_queue import KernelQueue
from harness.model import HarnessError
from harness.run import Progress, Step, answered, work
from harness.selftests.answers import Answers
from harness.selftests.build import Tree, make_headers
from harness.selftests.judge import File, Question, Row, Setting, judge_file, rows
from harness.toolchain import Compiler
from harness.toolchain.bpftool import find_bpftool
from harness.toolchain.kernel import find_kernel, kernel_btf


@dataclass(frozen=True, slots=True)
class Selftests:
    """How all programs came out."""

    rows: tuple[Row, ...]
    faults: tuple[tuple[str, str], ...]  # file, and why it has no programs
    linux: str  # the release that was asked; or why none was, in brackets
    seconds: float
    boots: tuple[float, ...]  # seconds each guest took to start

    def where(self, **values: object) -> list[Row]:
        """Return the rows that have *values* in their fields."""
        return [
            row
            for row in self.rows
            if all(getattr(row, name) == value for name, value in values.items())
        ]

    @property
    def ok(self) -> bool:
        """Whether there are programs, and no verdict differs that nobody explained."""
        return bool(self.rows) and not any(
            row.verdict == "different" and row.known is None for row in self.rows
        )


@dataclass(slots=True)
class _State:
    queue: KernelQueue | None
    kernel: str
    total: int
    done: int = 0
    files: dict[str, File] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)


def selftests(
    tree: Tree,
    compiler: Compiler,
    *,
    wanted: Sequence[str] = (),
    linux: bool = True,
    host: bool = False,
    known: Sequence[Known] = (),
    jobs: int | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Selftests:
    """Compile the programs of *tree* and judge each, beside its tags and beside Linux.

    *wanted*: parts of the names of files. Without *linux*, or where no guest can be had,
    tags alone tell. Raises HarnessError where headers or tools cannot be had.
    """
    began = time.monotonic()
    setting = prepare(tree, compiler)
    sources = tree.sources(wanted)
    if not sources:
        raise HarnessError(f"{tree.programs} has no file called {' or '.join(wanted)}")
    with ExitStack() as stack:
        queue, told = None, "(not asked)"
        if linux:
            try:
                leg = KernelLeg(host=host, compilers=[compiler])
                queue = stack.enter_context(KernelQueue(leg))
                told = _release(leg)
            except HarnessError as error:
                told = f"({error})"
        state = _State(queue, told, len(sources))

        def finished(result: Any) -> Iterator[Step]:
            match result:
                case File():
                    state.files[result.name] = result
                    yield _beside_linux(result, state)
                case (str() as name, list() as found):
                    state.rows += found
                    state.done += 1
                    progress(Progress(state.done, state.total, name))

        # the slowest first, or the last file decides how long it takes
        order = sorted(sources, key=lambda path: (path.name not in SLOW, path.name))
        steps = [Step(judge_file, (path, setting), _lost(path)) for path in order]
        work(steps, finished, jobs or len(os.sched_getaffinity(0)))
        boots = tuple(queue.leg.boots) if queue is not None else ()
    faults = tuple((f.name, f.fault) for f in state.files.values() if f.fault)
    ordered = sorted(state.rows, key=lambda row: row.file)
    return Selftests(
        tuple(explain(row, known) for row in ordered),
        tuple(sorted(faults)),
        told,
        time.monotonic() - began,
        boots,
    )


# Files with programs that reach the million instructions
SLOW = ("verifier_loops1.c", "verifier_search_pruning.c", "verifier_bpf_fastcall.c")


def prepare(tree: Tree, compiler: Compiler) -> Setting:
    """Find and make what compiling the programs of *tree* takes; raises HarnessError."""
    bpftool = find_bpftool()
    kernel = find_kernel()
    btf = kernel_btf(kernel)
    if btf is None:
        raise HarnessError(
            f"cannot read the BTF in {kernel.image}: "
            "name an unpacked vmlinux with $CROSSCHECK_KERNEL"
        )
    return Setting(tree, compiler, make_headers(tree, btf, bpftool), bpftool.headers)


def _release(leg: KernelLeg) -> str:
    if leg.kernel is None:
        return f"{os.uname().release} (this machine's)"
    return leg.kernel.release


def _identity(leg: KernelLeg) -> str:
    if leg.kernel is None:
        return f"{os.uname().release} {os.uname().version}"
    status = leg.kernel.image.stat()
    return f"{leg.kernel.image} {status.st_size} {status.st_mtime_ns}"


def _lost(path: Path) -> Callable[[str], File]:
    return lambda why: File(path.name, b"", (), (), why)


def _beside_linux(file: File, state: _State) -> Step:
    """Return the question to Linux about *file*, and what follows from the answers."""

    def heard(told: Sequence[KernelAnswer] | None) -> Iterator[Step]:
        found = rows(file, told)
        yield Step(answered, ((file.name, found),), ask=True)

    queue = state.queue
    if queue is None or not file.questions:
        return Step(answered, (None,), ask=True, then=heard)
    kept = Answers(file, _identity(queue.leg))
    left = [number for number, answer in enumerate(kept.found) if answer is None]
    if not left:
        return Step(answered, (kept.found,), ask=True, then=heard)

    def keep_and_hear(told: Sequence[KernelAnswer]) -> Iterator[Step]:
        new = dict(zip(left, told, strict=True))
        whole = [answer or new[number] for number, answer in enumerate(kept.found)]
        kept.keep(whole)
        return heard(whole)

    asked = [file.questions[number] for number in left]
    return Step(lambda: _ask(queue, asked), ask=True, then=keep_and_hear)


def _ask(queue: KernelQueue, questions: Sequence[Question]) -> Future[list[KernelAnswer]]:
    """Return what will be the answers to *questions*, each at the level of its tags."""
    whole: Future[list[KernelAnswer]] = Future()
    levels: dict[int, list[int]] = {}
    for number, question in enumerate(questions):
        levels.setdefault(question.spec.log_level, []).append(number)
    found: dict[int, KernelAnswer] = {}
    left = len(levels)

    def arrived(numbers: Sequence[int], part: Future[list[KernelAnswer]]) -> None:
        nonlocal left
        error = None if part.cancelled() else part.exception()
        if part.cancelled() or error is not None:
            if not whole.done():
                whole.set_exception(error or HarnessError("Linux was not asked to the end"))
            return
        found.update(zip(numbers, part.result(), strict=True))
        left -= 1
        if not left:
            whole.set_result([found[number] for number in range(len(questions))])

    for level, numbers in levels.items():
        part = queue.submit(
            [(questions[n].program, ()) for n in numbers],
            log_level=level,
            images=True,
            flags=[questions[n].spec.flags for n in numbers],
        )
        part.add_done_callback(partial(arrived, numbers))
    return whole


def explain(row: Row, known: Sequence[Known]) -> Row:
    """Return *row* with the entry of *known* that explains how its verdict differs."""
    if row.verdict != "different":
        return row
    for entry in known:
        if entry.matches("parity", row.file, row.program, "", row.text):
            return replace(row, known=entry.id)
    return row
