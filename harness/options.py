"""Options that several commands take, and how a command writes JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from harness.model import HarnessError


def json_option(parser: argparse.ArgumentParser) -> None:
    """Let *parser* take --json."""
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write the result as JSON to FILE, or to standard output",
    )


def write_json(value: object, file: str) -> None:
    """Write *value* as JSON to *file*, - for standard output."""
    text = json.dumps(value, indent=2) + "\n"
    if file == "-":
        sys.stdout.write(text)
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise HarnessError(f"cannot write {file}: {error.strerror}") from None


def legs(text: str) -> tuple[str, ...]:
    """Return the legs that *text* names, for argparse."""
    legs = tuple(dict.fromkeys(text.split(",")))
    for leg in legs:
        if leg not in ("interp", "jit", "native", "kernel"):
            raise argparse.ArgumentTypeError(f"no leg {leg!r} (interp, jit, native, kernel)")
    if len(legs) < 2:
        raise argparse.ArgumentTypeError("a comparison needs two legs")
    return legs


def positive(text: str) -> int:
    """Return the number in *text*, from 1 up, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 up")
    return int(text)


def import_in_workers() -> None:
    """Let the server of worker processes begin its imports, which take as long as ours."""
    from multiprocessing import forkserver, set_forkserver_preload

    set_forkserver_preload(["harness.pipeline"])
    forkserver.ensure_running()
