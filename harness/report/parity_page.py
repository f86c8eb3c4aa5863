"""The page of a ``parity``: each part of what Linux makes of programs beside what ours makes."""

from __future__ import annotations

from collections.abc import Sequence

from harness.corpus import Known
from harness.report.markup import (
    counted,
    document,
    item,
    note,
    number,
    safe,
    table,
    tag,
    tiles,
    verdict,
)
from harness.report.rows import Row

STATES = ("same", "differs", "unknown")
MOST = 400  # differences shown


def page(name: str, data: Row, known: Sequence[Known]) -> str:
    """Return the page of *data*, as ``parity --json`` wrote it."""
    summary, programs = data.row("summary"), data.rows("programs")
    entries = {entry.id: entry for entry in known}
    found = [(p, d) for p in programs for d in p.rows("differences")]
    open_ = sum(not d.has("known") for _, d in found)
    if not programs:
        said = verdict(False, "Nothing was compared.")
    elif open_:
        said = verdict(False, f"{counted(open_, 'difference')} not explained.")
    else:
        said = verdict(True, "Linux and ours make the same of every program, or it is explained.")
    figures: list[tuple[str, object, str]] = [
        ("programs", summary.whole("programs"), ""),
        ("the same in all parts", summary.whole("same"), "agree"),
        ("differences not explained", open_, "diverge"),
        ("differences explained", len(found) - open_, "known"),
        ("not compared", len(summary.texts("missing")), "unknown"),
        ("seconds", float(summary.number("seconds")), ""),
    ]
    parts = [said, tiles(figures), *_parts(summary), *_differences(found, entries)]
    parts += _listed("Unknown", [(p, why) for p in programs for why in p.texts("unknown")])
    missing = summary.texts("missing")
    if missing:
        parts.append("<h2>Not compared</h2>")
        parts.append(table(("program and why",), [(safe(why),) for why in missing]))
    return document(f"crosscheck parity: {name}", parts)


def _parts(summary: Row) -> list[str]:
    parts = summary.row("parts")
    rows = []
    for part in parts.value:
        counts = parts.counts(part)
        rows.append((safe(part), *(number(counts.get(state, 0)) for state in STATES)))
    return ["<h2>Parts</h2>", table(("part", *STATES), rows)]


def _name(program: Row) -> str:
    build = safe(program.text("build"))
    return f"<b>{safe(program.text('name'))}</b> {safe(program.text('source'))} {build}"


def _differences(found: Sequence[tuple[Row, Row]], entries: dict[str, Known]) -> list[str]:
    out = ["<h2>Differences</h2>"] if found else []
    order = sorted(found, key=lambda pair: pair[1].has("known"))
    for program, one in order[:MOST]:
        known = one.text("known")
        outcome = "known" if known else "diverge"
        where = safe(one.text("where"))
        head = f"{tag(outcome)} {safe(one.text('part'))}: {_name(program)} <small>{where}</small>"
        body = [note(entries.get(known))] if known else []
        body.append('<div class="pair">')
        for side in ("ours", "linux"):
            body.append(f"<div><p><b>{side}</b></p><pre>{safe(one.text(side))}</pre></div>")
        out.append(item(head, [*body, "</div>"], outcome))
    if len(found) > MOST:
        out.append(f"<p>And {number(len(found) - MOST)} more, in the JSON.</p>")
    return out


def _listed(title: str, rows: Sequence[tuple[Row, str]]) -> list[str]:
    groups: dict[str, list[Row]] = {}
    for program, why in rows:
        groups.setdefault(why, []).append(program)
    out = [f"<h2>{title}</h2>"] if groups else []
    for why, members in sorted(groups.items(), key=lambda g: -len(g[1])):
        head = f"{tag('unknown')} <b>{number(len(members))}</b> {safe(why)}"
        body = "".join(f"<li>{_name(program)}</li>" for program in members)
        out.append(item(head, [f"<ul>{body}</ul>"], "unknown"))
    return out
