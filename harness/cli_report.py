"""The command ``report``: a result in, a page out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

DONE = 0


def add_report(commands: Any) -> None:
    """Add ``report``."""
    parser = commands.add_parser(
        "report",
        help="a run or a campaign as one HTML page",
        description="Write a self-contained HTML page of what `run --json`, `grow --json` or "
        "`parity --json` wrote, or of a campaign's folder of findings.",
    )
    add = parser.add_argument
    add("input", metavar="FILE_OR_FOLDER", help="JSON, - for standard input, or findings/")
    add("-o", dest="output", metavar="OUT.html", help="(the input's name with .html, here)")
    add("--known", metavar="FILE", help="known divergences (corpus/known.toml)")
    parser.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> int:
    from harness import corpus, report
    from harness.model import HarnessError

    source = report.read(options.input)
    known = Path(options.known or "corpus/known.toml")
    if options.known and not known.is_file():
        raise HarnessError(f"{known}: no such file: name one, or leave --known out")
    text = report.page(source, corpus.read_known(known))
    output = options.output or _beside(options.input)
    if output == "-":
        sys.stdout.write(text)
        return DONE
    corpus.write_atomically(Path(output), text)
    print(f"{output}: the page of a {source.kind}, {len(text.encode()) / 1024:.0f} KiB")
    return DONE


def _beside(name: str) -> str:
    """Return the page's name: it is written where we are, as a compiler's object is."""
    if name == "-":
        return "-"
    return f"{Path(name).resolve().stem or 'report'}.html"
