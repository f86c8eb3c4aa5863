"""How a fetch tells people what it is doing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.progress

# Called with what is being done and how far it came, 0.0 to 1.0; None: not known.
Progress = Callable[[str, float | None], None]


def silent(what: str, fraction: float | None) -> None:
    """Say nothing."""


class Display:
    """A progress bar where standard error is a terminal, plain lines elsewhere.

    Nothing is shown, and rich is not imported, before the first call.
    """

    def __init__(self) -> None:
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None
        self._what = ""
        self._quarter = 0

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, what: str, fraction: float | None) -> None:
        """Show *what*, *fraction* of it done."""
        if sys.stderr.isatty():
            self._draw(what, fraction)
        else:
            self._print(what, fraction)
        self._what = what

    def _draw(self, what: str, fraction: float | None) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
        if what != self._what or self._task is None:
            if self._task is not None:
                self._bar.update(self._task, total=1.0, completed=1.0)
            self._task = self._bar.add_task(what, total=None)
        if fraction is not None:
            self._bar.update(self._task, total=1.0, completed=fraction)

    def _print(self, what: str, fraction: float | None) -> None:
        quarter = int((fraction or 0.0) * 4)
        if what != self._what:
            print(f"crosscheck: {what}", file=sys.stderr, flush=True)
        elif quarter > self._quarter:
            print(f"crosscheck: {what}: {quarter * 25}%", file=sys.stderr, flush=True)
        self._quarter = quarter
