"""How the selftests came out, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from harness.selftests.judge import Row, told, word
from harness.selftests.session import Selftests

# Columns of the table: what is counted, in which state
COLUMNS = (
    ("verdict", "equal"),
    ("verdict", "different"),
    ("verdict", "unknown"),
    ("line", "equal"),
    ("line", "different"),
    ("messages", "equal"),
    ("messages", "different"),
    ("translated", "equal"),
    ("translated", "different"),
    ("image", "equal"),
    ("image", "different"),
    ("image", "unknown"),
)
HEAD = (
    f"{'':<44}{'pro-':>6}  {'verdict':^17} {'error line':^11} {'messages':^11} "
    f"{'translated':^11} {'image':^17}",
    f"{'file':<44}{'grams':>6}  {'=':>5} {'/=':>5} {'?':>5} {'=':>5} {'/=':>5} {'=':>5} {'/=':>5} "
    f"{'=':>5} {'/=':>5} {'=':>5} {'/=':>5} {'?':>5}",
)
BARS = {"verdict": 90, "line": 80, "image": 95}  # percent


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """Return how many of *rows* are in each state of each column."""
    found = {"programs": len(rows)}
    for column, state in COLUMNS:
        found[f"{column} {state}"] = sum(getattr(row, column) == state for row in rows)
    return found


def percent(rows: Sequence[Row], column: str) -> float | None:
    """Return how much of *rows*, in percent, is equal in *column*; None of nothing.

    Of verdicts that is of all programs, of error lines of the refusals that Linux told us,
    of images of the programs that both accept.
    """
    asked = [row for row in rows if getattr(row, column) not in ("", "unknown")]
    if column in ("verdict", "image"):
        asked = [row for row in rows if getattr(row, column)]
    if not asked:
        return None
    equal = [row for row in asked if getattr(row, column) == "equal"]
    return 100 * len(equal) / len(asked)


def line(row: Row) -> str:
    """Return where *row* is from."""
    return f"{row.file}: {row.program}"


# --- for people -------------------------------------------------------------


def selftests_text(result: Selftests) -> str:
    """Return *result* for people: the table, then every difference in one line."""
    lines = [*HEAD]
    by_file: dict[str, list[Row]] = {}
    for row in result.rows:
        by_file.setdefault(row.file, []).append(row)
    for file, rows in by_file.items():
        lines.append(_table_row(file, rows))
    stack = [row for row in result.rows if row.stack_arguments]
    lines += [_table_row("all", result.rows), _table_row("stack arguments", stack)]
    lines += _differences(result.rows)
    whys = Counter(row.why for row in result.rows if row.why)
    lines += _section("Unknown, by reason", (f"{n} {why}" for why, n in whys.most_common()))
    lines += _section("No programs", (f"{name}: {why}" for name, why in result.faults))
    lines += ["", *_summary(result)]
    return "\n".join(lines) + "\n"


def _table_row(name: str, rows: Sequence[Row]) -> str:
    found = counts(rows)
    cells = " ".join(f"{found[f'{column} {state}'] or '':>5}" for column, state in COLUMNS)
    return f"{name:<44}{found['programs']:>6}  {cells}".rstrip()


def _section(title: str, lines: Iterable[str]) -> list[str]:
    found = list(lines)
    return ["", f"{title}: {len(found)}", *(f"  {each}" for each in found)] if found else []


def _differences(rows: Sequence[Row]) -> list[str]:
    unsound = [row for row in rows if row.unsound]
    lines = ["", f"Linux refuses, we accept: {len(unsound)}"]
    lines += [f"  {line(row)}: {_linux(row)}{_known(row)}" for row in unsound]
    strict = (row for row in rows if row.verdict == "different" and not row.unsound)
    lines += _section(
        "Linux accepts, we refuse", (f"{line(r)}: {told(r.ours)}{_known(r)}" for r in strict)
    )
    lines += _section(
        "First error lines that differ",
        (
            f"{line(row)}: ours {told(row.ours)[8:]}; Linux {_linux(row)[8:]}"
            for row in rows
            if row.line == "different"
        ),
    )
    lines += _section(
        "Messages of the tags that our log has not",
        (f"{line(row)}: {row.unmatched!r}" for row in rows if row.messages == "different"),
    )
    lines += _section(
        "Linux does not do as the tags say",
        (
            f"{line(row)}: {_linux(row)}, tags {row.expected}"
            + (", other messages" if row.linux_messages == "different" else "")
            for row in rows
            if row.against_tags
        ),
    )
    return lines


def _linux(row: Row) -> str:
    if row.linux is None or word(row.linux) == "unknown":
        return f"{row.expected}: (by its tags)"
    return told(row.linux)


def _known(row: Row) -> str:
    return f" (known as {row.known})" if row.known else ""


def _summary(result: Selftests) -> list[str]:
    lines = []
    stack = [row for row in result.rows if row.stack_arguments]
    for name, rows in (("all", result.rows), ("stack arguments", stack)):
        parts = []
        for column, bar in BARS.items():
            value = percent(rows, column)
            if value is not None:
                wanted = 100 if rows is stack and column != "image" else bar
                parts.append(f"{column} {value:.1f} % (bar {wanted})")
        lines.append(f"{name}: {len(rows)} programs; equal: {', '.join(parts)}")
    boots = ", ".join(f"{seconds:.1f}" for seconds in result.boots)
    lines.append(
        f"Linux: {result.linux}; {result.seconds:.1f} s, guests started in {boots or 'no'} s"
    )
    return lines


# --- JSON -------------------------------------------------------------------


def selftests_json(result: Selftests) -> dict[str, Any]:
    """Return *result* as JSON values."""
    rows = result.rows
    stack = [row for row in rows if row.stack_arguments]
    return {
        "summary": {
            **counts(rows),
            "stack_arguments": counts(stack),
            "unsound": [line(row) for row in rows if row.unsound and not row.known],
            "percent": {column: percent(rows, column) for column in BARS},
            "linux": result.linux,
            "seconds": round(result.seconds, 3),
            "boots": [round(seconds, 3) for seconds in result.boots],
            "unknown": dict(Counter(row.why for row in rows if row.why).most_common()),
            "missing": [list(fault) for fault in result.faults],
        },
        "programs": [
            {
                "file": row.file,
                "name": row.program,
                "section": row.section,
                "stack_arguments": row.stack_arguments,
                "expected": row.expected,
                "ours": told(row.ours),
                "linux": told(row.linux) if row.linux is not None else None,
                "verdict": row.verdict,
                "line": row.line or None,
                "messages": row.messages or None,
                "unmatched": row.unmatched or None,
                "linux_messages": row.linux_messages or None,
                "translated": row.translated or None,
                "image": row.image or None,
                "why": row.why or None,
                "processed": row.processed,
                "seconds": round(row.seconds, 4),
                "known": row.known,
            }
            for row in rows
        ],
    }
