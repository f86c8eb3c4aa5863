"""What a run looks like: a progress bar, a table, findings; and JUnit XML for CI machines."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from harness.compare import first_difference
from harness.model import (
    Accepted,
    BuildConfig,
    Divergence,
    Outcome,
    OutOfFuel,
    Rejected,
    Returned,
    Trapped,
    Unknown,
    Verdict,
)
from harness.pipeline import Check, Settings
from harness.run import Progress, Report, outcome_of

MARKS = {
    "agree": ("green", ""),
    "diverge": ("bold red", " diverge"),
    "known": ("yellow", " known"),
    "rejected": ("magenta", " reject"),
    "compile_error": ("red", " error"),
    "unknown": ("cyan", " unknown"),
}
MOST = 20  # findings of a kind that are told one by one


@contextmanager
def progress() -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar on standard error, if that is a terminal, while the block runs."""
    console = Console(stderr=True)
    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[what]}", style="dim"),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("cross-checking", total=None, what="")

        def advance(now: Progress) -> None:
            bar.update(task, completed=now.done, total=now.total, what=now.what)

        yield advance


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """Show one changing line on standard error, if that is a terminal, while the block runs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("starting") as line:
        yield lambda text: line.update(escape(text))


def show(report: Report, settings: Settings) -> None:
    """Print *report* for people: the table, what was found, the summary."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())
    if any(not c.source.endswith(".toml") for c in report.checks):
        console.print(_table(report, settings))
    cases = Counter(outcome_of(c) for c in report.checks if c.source.endswith(".toml"))
    if cases:
        counts = " ".join(_cell(cases).split("\n"))
        console.print(f"corpus cases that agree: {counts}")
    _explained(console, report)
    everywhere: dict[str, set[str]] = {}
    for check in report.checks:
        everywhere.setdefault(check.source, set()).add(check.build)
    for outcome, title in (
        ("unknown", "Unknown"),
        ("compile_error", "Compile errors"),
        ("rejected", "Rejected"),
        ("diverge", "Divergences"),
    ):
        checks = [c for c in report.checks if c.outcome == outcome and c.known is None]
        if checks:
            _section(console, title, checks, everywhere)
    for entry in report.stale:
        console.print(
            f"[bold red]stale[/]: known.toml says {escape(entry.id)} is open, and it agrees now: "
            "update the entry"
        )
    console.print(_summary(report))


def _label(config: BuildConfig, several: bool) -> str:
    compiler = f"{config.compiler}\n" if several else ""
    return f"{compiler}-O{config.opt} {config.mcpu}\n{config.linkage}"


def _table(report: Report, settings: Settings) -> Table:
    sources = list(dict.fromkeys(c.source for c in report.checks if not c.source.endswith(".toml")))
    folder = os.path.commonpath([os.path.dirname(s) for s in sources]) if sources else ""
    below = f" in {escape(folder)}/" if folder else ""
    table = Table(
        title=f"functions that agree, by source{below} and build",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("source", no_wrap=True)
    several = len(settings.compilers) > 1
    columns: list[BuildConfig | None] = list(settings.configs) if sources else []
    if any(c.config is None and not c.source.endswith(".toml") for c in report.checks):
        columns.append(None)
    for config in columns:
        table.add_column(_label(config, several) if config else "text", justify="right")
    cells: dict[tuple[str, BuildConfig | None], Counter[str]] = {}
    for check in report.checks:
        if not check.source.endswith(".toml"):
            cells.setdefault((check.source, check.config), Counter())[outcome_of(check)] += 1
    for source in sources:
        name = os.path.relpath(source, folder) if folder else source
        row = [_cell(cells.get((source, config), Counter())) for config in columns]
        table.add_row(escape(name), *row)
    return table


def _cell(counts: Counter[str]) -> str:
    parts = [
        f"[{style}]{counts[outcome]}{mark}[/]"
        for outcome, (style, mark) in MARKS.items()
        if counts[outcome]
    ]
    return "\n".join(parts) or "[dim]-[/]"


def _explained(console: Console, report: Report) -> None:
    explained = Counter((c.known, c.outcome) for c in report.checks if c.known)
    for (name, outcome), count in sorted(explained.items(), key=str):
        console.print(
            f"{count} {outcome.replace('_', ' ')}: known as [yellow]{escape(name or '')}[/]"
        )


def _section(
    console: Console, title: str, checks: list[Check], everywhere: dict[str, set[str]]
) -> None:
    console.print(f"\n[bold]{title}[/]")
    if title in ("Divergences",):
        for check in checks[:MOST]:
            _divergence(console, check)
        if len(checks) > MOST:
            console.print(f"  and {len(checks) - MOST} more (--json has all)")
        return
    groups: dict[tuple[str, str], list[Check]] = {}
    for check in checks:
        groups.setdefault((check.source, check.detail), []).append(check)
    for (source, detail), members in list(groups.items())[:MOST]:
        names = ", ".join(dict.fromkeys(m.function for m in members))
        builds = list(dict.fromkeys(m.build for m in members if m.build))
        where = f" [{', '.join(builds)}]" if builds else ""
        if set(builds) >= everywhere.get(source, set()) and len(builds) > 1:
            where = " [every build]"
        console.print(f"  {escape(source)}: {escape(names)}{escape(where)}")
        console.print(f"    {escape(detail)}")
    if len(groups) > MOST:
        console.print(f"  and {len(groups) - MOST} more (--json has all)")


def _divergence(console: Console, check: Check) -> None:
    console.print(
        f"  [bold]{escape(check.source)}: {escape(check.function)}[/] {escape(check.build)}"
    )
    if check.detail:
        console.print(f"    {escape(check.detail)}")
    if not check.divergences:
        return
    first = check.divergences[0]
    if "verifier" in first.legs:
        console.print(f"    {escape(describe(first))}")
        return
    console.print(
        f"    {first.legs[0]} and {first.legs[1]} differ on "
        f"{len({d.vector for d in check.divergences})} of {check.vectors} vectors"
    )
    console.print(f"    {escape(describe(first, check.where))}")
    console.print(f"    vector {first.vector.hex()}")


def describe(divergence: Divergence, where: str = "") -> str:
    """Return one line: what each leg did, with the first differing bytes."""
    a, b = divergence.outcomes
    left, right = divergence.legs
    if isinstance(a, Returned) and isinstance(b, Returned):
        offset = divergence.offset
        if offset is None:
            offset = first_difference(a.ctx, b.ctx)
        if a.r0 != b.r0:
            return f"{left}: r0 {a.r0:#x}; {right}: r0 {b.r0:#x}"
        if offset is not None:
            end = min(offset + 8, len(a.ctx))
            place = f" ({where})" if where else ""
            return (
                f"byte {offset}{place}: {left} {a.ctx[offset:end].hex(' ')}; "
                f"{right} {b.ctx[offset:end].hex(' ')}"
            )
    return f"{left}: {_outcome(a)}; {right}: {_outcome(b)}"


def _outcome(outcome: Outcome | Verdict) -> str:
    match outcome:
        case Accepted():
            return "accepts it"
        case Rejected(message=message):
            return f"refuses it ({message})"
        case Returned(r0=r0):
            return f"returned {r0:#x}"
        case Trapped(kind=kind, where=where):
            return f"trapped ({kind}{': ' + where if where else ''})"
        case OutOfFuel():
            return "ran out of fuel"
        case Unknown(why=why):
            return f"unknown ({why})"


def _summary(report: Report) -> str:
    functions = len({(c.source, c.function) for c in report.checks})
    builds = len({(c.source, c.config) for c in report.checks if c.config})
    vectors = sum(c.vectors for c in report.checks)
    counts = ", ".join(
        f"[{style}]{report.count(outcome)} {outcome.replace('_', ' ')}[/]"
        for outcome, (style, _) in MARKS.items()
    )
    undefined = sum(c.undefined for c in report.checks)
    left_out = f"; {undefined} vectors left out: undefined behaviour in C" if undefined else ""
    return (
        f"\n{_many(functions, 'function')}, {_many(builds, 'build')}, "
        f"{_many(vectors, 'vector')}{left_out}\n{counts}\n"
        f"{report.seconds:.1f} s, seed {report.seed}"
    )


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def junit(report: Report) -> str:
    """Return *report* as JUnit XML: a suite a source, a case a function and build."""
    suites = ElementTree.Element("testsuites", name="crosscheck", time=f"{report.seconds:.3f}")
    by_source: dict[str, list[Check]] = {}
    for check in report.checks:
        by_source.setdefault(check.source, []).append(check)
    for source, checks in by_source.items():
        bad = [c for c in checks if _is_failure(c)]
        skipped = [c for c in checks if c.outcome == "unknown" or c.known]
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=source,
            tests=str(len(checks)),
            failures=str(len(bad)),
            errors="0",
            skipped=str(len(skipped)),
        )
        for check in checks:
            case = ElementTree.SubElement(
                suite, "testcase", classname=source, name=f"{check.function} {check.build}".strip()
            )
            text = check.detail or (
                describe(check.divergences[0], check.where) if check.divergences else ""
            )
            if _is_failure(check):
                element = ElementTree.SubElement(case, "failure", type=check.outcome)
                element.set("message", _printable(text))
                vectors = "\n".join(d.vector.hex() for d in check.divergences[:MOST])
                element.text = _printable(f"{text}\n{vectors}".strip())
            elif check.known or check.outcome == "unknown":
                message = f"known: {check.known}" if check.known else text
                ElementTree.SubElement(case, "skipped", message=_printable(message))
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _is_failure(check: Check) -> bool:
    return check.known is None and check.outcome in ("diverge", "rejected", "compile_error")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
