"""What a campaign looks like while it runs: a live screen on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from harness.grow.features import KINDS
from harness.grow.summary import Sample, Summary

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 40  # characters of the curve of features
MOST = 8  # buckets that are shown


@contextmanager
def campaign(seconds: float | None, count: int | None) -> Iterator[Callable[[Summary], None]]:
    """Show a campaign on standard error, if that is a terminal, while the block runs.

    *seconds* and *count* are its ends, as far as it has them.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with Live(Text("starting"), console=console, transient=True, auto_refresh=False) as live:

        def show(now: Summary) -> None:
            live.update(render(now, seconds, count), refresh=True)

        yield show


def render(now: Summary, seconds: float | None, count: int | None) -> RenderableType:
    """Return the screen for *now*."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="bold")
    table.add_column()
    of = f" of {_duration(seconds)}" if seconds else f" of {count}" if count else ""
    table.add_row("seed", f"{now.seed}")
    table.add_row("time", _duration(now.seconds) + (of if seconds else ""))
    programs = f"{now.programs}{of if count and not seconds else ''}, {now.rate:.1f} a second"
    table.add_row("programs", f"{programs}, {now.streams} of BPF text")
    table.add_row("functions", f"{now.functions} of C, {now.function_rate:.1f} a second")
    table.add_row("vectors", f"{now.vectors}, {now.vector_rate:.0f} a second")
    table.add_row("accepted", f"{now.accepted:.1%} of {sum(now.outcomes.values())}")
    kinds = now.kinds or {}
    named = ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kind in kinds)
    table.add_row("features", f"{now.features}: {named}" if named else f"{now.features}")
    table.add_row("", curve([s.features for s in now.history]))
    table.add_row("kept", f"{now.kept} cases, {now.pending} being shrunk")
    table.add_row("memory", f"{now.memory / 1e6:.0f} MB")
    if now.lost:
        table.add_row("lost", escape(f"{now.lost} batches: {now.why_lost}"))
    return Group(table, *_buckets(now))


def _buckets(now: Summary) -> Sequence[RenderableType]:
    if not now.buckets:
        return [Text("no buckets", style="dim")]
    rows = sorted(now.buckets.items(), key=lambda item: (item[1][2] is not None, -item[1][0]))
    table = Table(box=None, padding=(0, 1, 0, 0), show_header=False)
    table.add_column(justify="right")
    table.add_column()
    for name, (count, _, known) in rows[:MOST]:
        style = "yellow" if known else "bold red" if "diverge" in name[:18] else ""
        mark = f" (known: {known})" if known else ""
        table.add_row(f"{count}", Text(name + mark, style=style))
    rest = len(rows) - MOST
    return [table, *([Text(f"and {rest} more", style="dim")] if rest > 0 else [])]


def curve(values: Sequence[int], width: int = WIDTH) -> str:
    """Return *values* over time as bars, the last ones rightmost."""
    if not values:
        return ""
    step = max(1, -(-len(values) // width))
    shown = list(values[::-1][::step][::-1])
    top = max(max(shown), 1)
    return "".join(BARS[min(value * len(BARS) // top, len(BARS) - 1)] for value in shown)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


__all__ = ["Sample", "campaign", "curve", "render"]
