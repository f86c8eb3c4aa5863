"""What ``report`` is given: a file or a folder, what kind of result is in it, and its page."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import findings
from harness.corpus import Known
from harness.grow.state import State
from harness.grow.summary import summarise, summary_json
from harness.model import HarnessError
from harness.report import campaign_page, parity_page, run_page
from harness.report.rows import Row

STATE = "campaign.sqlite"  # of a folder of findings
SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True)
class Source:
    """A result to make a page of."""

    kind: str  # "run", "campaign", "parity"
    name: str  # for people
    data: Row
    folder: Path | None = None  # of the findings, where it is at hand


def read(file: str) -> Source:
    """Return the result in *file*, a folder of findings or - for standard input.

    Raises HarnessError that says what is wrong with it.
    """
    path = Path(file)
    if file != "-" and path.is_dir():
        if not (path / STATE).exists():
            raise HarnessError(
                f"{path}: no {STATE} there: name the folder of `grow --findings`, or the file "
                "of `run --json`"
            )
        return _campaign(path / STATE, path)
    try:
        data = sys.stdin.buffer.read() if file == "-" else path.read_bytes()
    except OSError as error:
        raise HarnessError(f"cannot read {file}: {error.strerror}") from None
    if data.startswith(SQLITE) and file != "-":
        return _campaign(path, path.parent)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{file}: not JSON: {_line(error)}") from None
    return Source(_kind(value, file), "standard input" if file == "-" else file, Row(value, file))


def page(source: Source, known: Sequence[Known] = ()) -> str:
    """Return the page of *source*; *known* are the entries whose notes it shows.

    Raises HarnessError for a result that is not whole.
    """
    try:
        match source.kind:
            case "run":
                return run_page.page(source.name, source.data, known)
            case "parity":
                return parity_page.page(source.name, source.data, known)
        return campaign_page.page(source.name, source.data, known, source.folder)
    except ValueError as error:
        raise HarnessError(
            f"{source.name}: no result of `{_command(source.kind)}`: {error}"
        ) from None


def _campaign(path: Path, folder: Path) -> Source:
    state = State.read(path)
    try:
        data = summary_json(summarise(state, state.before, (0, 0, 0), 0))
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise HarnessError(f"{path}: not a whole state of a campaign: {_line(error)}") from None
    finally:
        state.close()
    return Source("campaign", str(folder), Row(data, str(path)), folder)


def _kind(value: Any, file: str) -> str:
    keys = set(value) if isinstance(value, dict) else set()
    if keys >= {"summary", "builds", "divergences"}:
        return "run"
    if keys >= {"buckets", "outcomes", "refusals"}:
        return "campaign"
    if keys >= {"summary", "programs"}:
        return "parity"
    if keys and value.get("format") == findings.FORMAT:
        raise HarnessError(f"{file}: one finding: `crosscheck triage {file}` writes its page")
    raise HarnessError(f"{file}: JSON, but not what `run`, `grow` or `parity` write with --json")


def _command(kind: str) -> str:
    return {"campaign": "grow"}.get(kind, kind) + " --json"


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
