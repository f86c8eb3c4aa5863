"""The page of a ``run``: figures, sources by builds, and all that did not simply agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from harness.corpus import Known
from harness.model import LINKAGES, MCPUS, OPTS
from harness.report import contexts
from harness.report.markup import (
    ORDER,
    WORDS,
    counted,
    css,
    document,
    item,
    note,
    number,
    safe,
    table,
    tag,
    tiles,
    unbroken,
    verdict,
    worst,
)
from harness.report.rows import Row

MOST = 400  # divergences shown in full
OPENED = 3  # of them, folded out
BAD = ("diverge", "rejected", "compile_error")

Config = tuple[str, str, str, str]  # compiler, opt, mcpu, linkage


@dataclass(frozen=True, slots=True)
class Check:
    """One function in one build, as ``run --json`` writes it."""

    source: str
    function: str
    config: Config | None
    outcome: str
    detail: str
    known: str
    vectors: int

    @property
    def build(self) -> str:
        """The build for people, without the compiler."""
        return f"-O{self.config[1]} -mcpu={self.config[2]} {self.config[3]}" if self.config else ""

    @property
    def said(self) -> str:
        """What was said, without the place, which a compile error begins with."""
        return self.detail.removeprefix(f"{self.source} {self.build}: ")


def page(name: str, data: Row, known: Sequence[Known]) -> str:
    """Return the page of *data*, as ``run --json`` wrote it."""
    summary, compilers = (
        data.row("summary"),
        data.row("compilers") if data.has("compilers") else None,
    )
    versions = {c: compilers.text(c) for c in compilers.value} if compilers else {}
    checks = [_check(row) for row in data.rows("builds")]
    stale = summary.texts("stale")
    entries = {entry.id: entry for entry in known}
    bad = sum(c.outcome in BAD and not c.known for c in checks)
    parts = [
        _verdict(bad, stale, checks),
        _figures(summary, versions),
        *_divergences(checks, data.rows("divergences"), len(versions) > 1),
        *_groups(checks, "rejected", "Refusals not explained", explained=False),
        *_groups(checks, "compile_error", "Compile errors", explained=False),
        *_cross(checks, versions),
        *_cases(checks),
        *_known(checks, stale, entries),
        *_groups(checks, "rejected", "Explained refusals", explained=True),
        *_groups(checks, "compile_error", "Explained compile errors", explained=True),
        *_groups(checks, "unknown", "Unknown", explained=False),
    ]
    return document(f"crosscheck run: {name}", parts)


def _check(row: Row) -> Check:
    config = None
    if row.has("opt"):
        config = row.text("compiler"), row.text("opt"), row.text("mcpu"), row.text("linkage")
    texts = (row.text("outcome"), row.text("detail"), row.text("known"))
    return Check(row.text("source"), row.text("function"), config, *texts, row.whole("vectors"))


def _verdict(bad: int, stale: Sequence[str], checks: Sequence[Check]) -> str:
    if not checks:
        return verdict(False, "Nothing was checked.")
    said = []
    if bad:
        said.append(f"{number(bad)} of {counted(len(checks), 'result')} to look at.")
    if stale:
        said.append(f"Known, but agrees now: {', '.join(stale)}.")
    if not said:
        return verdict(True, "Everything agrees, or is explained.")
    return verdict(False, " ".join(said))


def _figures(summary: Row, versions: Mapping[str, str]) -> str:
    outcomes = ("agree", "diverge", "known", "rejected", "compile_error", "unknown")
    figures: list[tuple[str, object, str]] = [
        (key, summary.whole(key), "") for key in ("functions", "builds", "vectors")
    ]
    for outcome in outcomes:
        key = "compile_errors" if outcome == "compile_error" else outcome
        figures.append((key.replace("_", " "), summary.whole(key), outcome))
    figures.append(("explained", summary.whole("explained"), "known"))
    figures.append(("vectors left out: undefined behaviour", summary.whole("undefined"), ""))
    figures.append(("seconds", float(summary.number("seconds")), ""))
    figures.append(("seed", str(summary.whole("seed")), ""))
    figures += [(f"version of {name}", text or "?", "") for name, text in versions.items()]
    return tiles(figures)


# --- what did not agree -----------------------------------------------------


def _divergences(checks: Sequence[Check], rows: Sequence[Row], several: bool) -> list[str]:
    shown = [c for c in checks if c.outcome in ("diverge", "known")]
    if not shown:
        return []
    shown.sort(key=lambda c: c.outcome == "known")
    found: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        key = (row.text("source"), row.text("function"), row.text("build"), row.text("compiler"))
        found.setdefault(key, []).append(row)
    out = ["<h2>Divergences</h2>"]
    for index, check in enumerate(shown[:MOST]):
        compiler = check.config[0] if check.config else ""
        place = (check.source, check.function, check.build)
        # files of earlier versions do not say which compiler
        own = found.get((*place, compiler)) or found.get((*place, "")) or []
        legs = sorted({leg for row in own for leg in row.texts("legs")})
        head = f"{tag(check.outcome)} <b>{safe(check.function)}</b> {safe(check.source)} "
        head += (
            f"<small>{safe(check.build)}{_by(compiler, several)} {safe(', '.join(legs))}</small>"
        )
        body = [f"<p>{safe(check.detail)}</p>"] if check.detail else []
        if check.known:
            body.append(f"<p>Known: {safe(check.known)}</p>")
        body += [contexts.divergence(row) for row in own]
        opened = index < OPENED and check.outcome == "diverge"
        out.append(item(head, body, check.outcome, opened=opened))
    if len(shown) > MOST:
        out.append(f"<p>And {number(len(shown) - MOST)} more, in the JSON.</p>")
    return out


def _by(compiler: str, several: bool) -> str:
    return f" by {safe(compiler)}" if several and compiler else ""


def _groups(checks: Sequence[Check], outcome: str, title: str, *, explained: bool) -> list[str]:
    """Return the checks that ended as *outcome*, by what was said."""
    groups: dict[tuple[str, str], list[Check]] = {}
    for check in checks:
        if check.outcome == outcome and bool(check.known) == explained:
            groups.setdefault((check.said, check.known), []).append(check)
    if not groups:
        return []
    out = [f"<h2>{safe(title)} ({number(sum(map(len, groups.values())))})</h2>"]
    for (detail, known), members in sorted(groups.items(), key=lambda g: -len(g[1])):
        head = (
            f"{tag(outcome)} <b>{number(len(members))}</b> <code>{safe(detail or 'no word')}</code>"
        )
        if known:
            head += f" <small>known: {safe(known)}</small>"
        out.append(item(head, [_where(members)], outcome))
    return out


def _where(members: Iterable[Check]) -> str:
    places: dict[tuple[str, str], list[str]] = {}
    for check in members:
        places.setdefault((check.source, check.function), []).append(check.build or "no build")
    rows = [
        (safe(source), safe(function), ", ".join(unbroken(b) for b in dict.fromkeys(builds)))
        for (source, function), builds in places.items()
    ]
    return table(("source", "function", "builds"), rows)


# --- sources by builds ------------------------------------------------------


def _cross(checks: Sequence[Check], versions: Mapping[str, str]) -> list[str]:
    """Return the table of sources and builds; what has no build at all is a column of its own."""
    cells: dict[tuple[str, Config | None], list[Check]] = {}
    built = {c.source for c in checks if c.config or PurePath(c.source).suffix != ".toml"}
    for check in checks:
        if check.source in built:
            cells.setdefault((check.source, check.config), []).append(check)
    if not cells:
        return []
    configs = sorted({config for _, config in cells}, key=lambda c: _place(c, versions))
    several = len({c[0] for c in configs if c}) > 1
    out = ["<h2>Sources and builds</h2>"]
    out.append("<p class=dim>A cell is the number of functions that agree, and what else came.</p>")
    out.append('<div class="wide"><table class="cross"><thead><tr><th>source</th>')
    for config in configs:
        if config is None:
            out.append("<th>no build</th>")
            continue
        compiler, opt, mcpu, linkage = config
        who = f"{safe(PurePath(compiler).name)} {safe(versions.get(compiler, ''))}<br>"
        words = f"-O{safe(opt)} {safe(mcpu)}<br><small>{safe(linkage)}</small>"
        out.append(f"<th>{who if several else ''}{words}</th>")
    out.append("</tr></thead><tbody>")
    for source in dict.fromkeys(source for source, _ in cells):
        row = [cells.get((source, config), []) for config in configs]
        outcomes = sorted({c.outcome for members in row for c in members})
        out.append(f'<tr data-o="{safe(" ".join(outcomes))}"><th>{safe(source)}</th>')
        out += [_cell(members) for members in row]
        out.append("</tr>")
    return [*out, "</tbody></table></div>"]


def _place(config: Config | None, versions: Mapping[str, str]) -> tuple[int | str, ...]:
    if config is None:
        return (1, 0, "", 0, 0, 0, "")
    compiler, opt, mcpu, linkage = config
    named = list(versions)
    axes = zip((OPTS, MCPUS, LINKAGES), (opt, mcpu, linkage), strict=True)
    numbers = [axis.index(at) if at in axis else len(axis) for axis, at in axes]
    order = named.index(compiler) if compiler in named else len(named)
    return (0, order, compiler, *numbers, f"{opt} {mcpu} {linkage}")


def _cell(members: Sequence[Check]) -> str:
    if not members:
        return "<td></td>"
    counts = Counter(c.outcome for c in members)
    others = [(o, counts[o]) for o in (*ORDER, *sorted(counts)) if o in counts and o != "agree"]
    words = "".join(f"<small>{n} {safe(WORDS.get(o, o))}</small>" for o, n in dict(others).items())
    vectors = sum(c.vectors for c in members)
    head = number(counts["agree"]) if counts["agree"] or not others else ""
    kind = css(worst(counts))
    return f'<td class="cell {kind}" title="{vectors} vectors">{head}{words}</td>'


def _cases(checks: Sequence[Check]) -> list[str]:
    """Return the cases that no compiler had a part in: they have one result each."""
    cases = [c for c in checks if not c.config and PurePath(c.source).suffix == ".toml"]
    if not cases:
        return []
    counts = Counter(c.outcome for c in cases)
    said = " ".join(f"{tag(o)} {number(n)}" for o, n in counts.most_common())
    rows = [(safe(c.source), tag(c.outcome), number(c.vectors), safe(c.detail)) for c in cases]
    body = table(("case", "outcome", "vectors", "detail"), rows)
    head = f"{counted(len(cases), 'case')} of BPF text {said}"
    return ["<h2>Cases</h2>", item(head, [body], worst(counts))]


# --- what is known ----------------------------------------------------------


def _known(
    checks: Sequence[Check], stale: Sequence[str], entries: Mapping[str, Known]
) -> list[str]:
    shown: dict[str, list[Check]] = {}
    for check in checks:
        if check.known:
            shown.setdefault(check.known, []).append(check)
    if not shown and not stale:
        return []
    out = ["<h2>Known</h2>"]
    for name in stale:
        head = f"{tag('diverge')} <b>{safe(name)}</b> <small>agrees now</small>"
        out.append(item(head, [note(entries.get(name))], "diverge", opened=True))
    for name, members in sorted(shown.items(), key=lambda g: -len(g[1])):
        head = (
            f"{tag('known')} <b>{safe(name)}</b> <small>{counted(len(members), 'result')}</small>"
        )
        out.append(item(head, [note(entries.get(name)), _where(members)], "known"))
    return out
