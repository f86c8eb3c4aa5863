"""known.toml: what is expected not to agree, and why."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.corpus.tables import Table, parse
from harness.model import HarnessError

STATUSES = ("open", "fixed-in", "by-design")
FINDINGS = ("divergence", "reject", "compile_error", "parity", "unknown")  # unknown: of campaigns


@dataclass(frozen=True, slots=True)
class Known:
    """One entry of known.toml: what is expected not to agree, and why."""

    id: str
    kind: str  # one of FINDINGS
    status: str  # one of STATUSES
    note: str
    source: str = "*"  # patterns, as fnmatch
    function: str = "*"
    build: str = "*"  # of "-O2 -mcpu=v3 hidden"
    compiler: str = "*"  # of the compiler's version
    legs: tuple[str, ...] = ()
    message: str = "*"
    link: str = ""

    def matches(
        self, kind: str, source: str, function: str, build: str, text: str, version: str = ""
    ) -> bool:
        """Return whether the entry explains a *kind* of finding on this build.

        *version* is that of the compiler. What is fixed is explained only where the entry
        names the compilers that still have it.
        """
        return (
            self.kind == kind
            and not (self.status == "fixed-in" and self.compiler == "*")
            and fnmatch.fnmatchcase(version, self.compiler)
            and fnmatch.fnmatchcase(source, self.source)
            and fnmatch.fnmatchcase(function, self.function)
            and fnmatch.fnmatchcase(build, self.build)
            and fnmatch.fnmatchcase(text, self.message)
        )


def read_known(path: Path) -> tuple[Known, ...]:
    """Return the entries of *path*, none if there is no such file; raises HarnessError."""
    if not path.exists():
        return ()
    try:
        entries = Table(parse(path), "known.toml", "known").tables("known", _KNOWN)
        found = tuple(_known(entry) for entry in entries)
    except ValueError as error:
        raise HarnessError(f"{path}: {error}") from None
    for index, entry in enumerate(found):
        if entry.id in {other.id for other in found[:index]}:
            raise HarnessError(f"{path}: two entries have the id {entry.id!r}")
    return found


def explaining(
    known: Iterable[Known],
    kind: str,
    source: str,
    function: str,
    build: str,
    text: str,
    version: str = "",
) -> Known | None:
    """Return the first entry of *known* that names *source* and explains the finding, if any.

    The arguments are those of ``Known.matches``.
    """
    for entry in known:
        if entry.source != "*" and entry.matches(kind, source, function, build, text, version):
            return entry
    return None


def told(known: Iterable[Known], source: str) -> str:
    """Return the note of the first entry of *known* that names the BPF text *source*, or "".

    What is fixed is not meant, nor what `crosscheck parity` shows.
    """
    for entry in known:
        meant = entry.status != "fixed-in" and entry.kind != "parity" and entry.source != "*"
        if meant and fnmatch.fnmatchcase(source, entry.source):
            return entry.note.strip()
    return ""


_KNOWN = "id kind status note source function build compiler legs message link"


def _known(table: Table) -> Known:
    return Known(
        id=table.string("id"),
        kind=table.choice("kind", FINDINGS),
        status=table.choice("status", STATUSES),
        note=table.string("note"),
        source=table.string("source", "*"),
        function=table.string("function", "*"),
        build=table.string("build", "*"),
        compiler=table.string("compiler", "*"),
        legs=table.choices("legs", ("interp", "jit", "native", "kernel"), ()),
        message=table.string("message", "*"),
        link=table.string("link", ""),
    )
