"""Findings: what did not agree, with everything that is needed to see it again.

A finding is one JSON file. It names no machine's paths but the compiler's command, which is
only a wish: whoever replays it may name another compiler.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.corpus import write_atomically
from harness.model import (
    BuildConfig,
    Divergence,
    HarnessError,
    Outcome,
    OutOfFuel,
    Returned,
    Trapped,
    Unknown,
    outcome_json,
)

FORMAT = "crosscheck finding 1"
OUTCOMES = ("diverge", "rejected", "compile_error", "unknown")


@dataclass(frozen=True, slots=True)
class Finding:
    """One function in one build that did not agree, and how to see it again."""

    c: str  # the whole C text; includes nothing but headers of the compiler and of ours
    function: str  # the function under test, or the program of a file with its own
    config: BuildConfig
    outcome: str  # one of OUTCOMES
    command: tuple[str, ...] = ()  # argv prefix of the compiler
    version: str = ""  # of the compiler
    seed: int = 0  # of the input vectors
    vectors: int = 256  # how many were run
    legs: tuple[str, ...] = ("interp", "jit", "native")
    native_opts: tuple[int, ...] = (0, 2)
    verdict: str = ""  # "accept", "reject", "unknown"
    detail: str = ""  # why, one line
    where: str = ""  # what the first differing byte belongs to
    divergences: tuple[Divergence, ...] = ()  # the first few
    source: str = ""  # the file's name for people
    tree: Any = None  # the generator's program, as it writes it to JSON; None: hand-written C
    bucket: str = ""  # signature that like findings share
    notes: tuple[str, ...] = field(default=())


def to_json(finding: Finding) -> dict[str, Any]:
    """Return *finding* as JSON values."""
    config = finding.config
    return {
        "format": FORMAT,
        "source": finding.source,
        "function": finding.function,
        "build": {
            "compiler": config.compiler,
            "opt": config.opt,
            "mcpu": config.mcpu,
            "linkage": config.linkage,
        },
        "command": list(finding.command),
        "version": finding.version,
        "seed": finding.seed,
        "vectors": finding.vectors,
        "legs": list(finding.legs),
        "native_opts": list(finding.native_opts),
        "outcome": finding.outcome,
        "verdict": finding.verdict,
        "detail": finding.detail,
        "where": finding.where,
        "bucket": finding.bucket,
        "divergences": [
            {
                "legs": list(d.legs),
                "vector": d.vector.hex(),
                "outcomes": [outcome_json(o) for o in d.outcomes],
                "offset": d.offset,
                "notes": list(d.notes),
            }
            for d in finding.divergences
        ],
        "notes": list(finding.notes),
        "c": finding.c,
        "tree": finding.tree,
    }


def from_json(data: Any) -> Finding:
    """Return the finding in *data*; raises ValueError for what is none."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f'no "format": "{FORMAT}"')
    try:
        build = data["build"]
        config = BuildConfig(build["compiler"], build["opt"], build["mcpu"], build["linkage"])
        finding = Finding(
            c=data["c"],
            function=data["function"],
            config=config,
            outcome=data["outcome"],
            command=tuple(data["command"]),
            version=data["version"],
            seed=data["seed"],
            vectors=data["vectors"],
            legs=tuple(data["legs"]),
            native_opts=tuple(data["native_opts"]),
            verdict=data["verdict"],
            detail=data["detail"],
            where=data["where"],
            divergences=tuple(_divergence(row) for row in data["divergences"]),
            source=data["source"],
            tree=data["tree"],
            bucket=data["bucket"],
            notes=tuple(data["notes"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not whole: {error}") from None
    texts = (finding.c, finding.function, config.opt, config.mcpu, config.linkage)
    if not all(isinstance(text, str) for text in texts) or finding.outcome not in OUTCOMES:
        raise ValueError("fields of the wrong type")
    return finding


def _divergence(row: dict[str, Any]) -> Divergence:
    one, two = row["legs"]
    first, second = (_outcome(outcome) for outcome in row["outcomes"])
    vector = bytes.fromhex(row["vector"])
    return Divergence((one, two), vector, (first, second), row["offset"], tuple(row["notes"]))


def _outcome(row: dict[str, Any]) -> Outcome:
    match row["outcome"]:
        case "returned":
            return Returned(row["r0"], bytes.fromhex(row["ctx"]))
        case "trapped":
            kind, _, where = (row["detail"] or "").partition(": ")
            return Trapped(kind, where)
        case "fuel":
            return OutOfFuel()
    return Unknown(row["detail"] or "")


def write(finding: Finding, path: Path) -> Path:
    """Write *finding* to *path*, at once or not at all; raises HarnessError."""
    write_atomically(path, json.dumps(to_json(finding), indent=1) + "\n")
    return path


def read(path: Path) -> Finding:
    """Return the finding in *path*; raises HarnessError that says what is wrong with it."""
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{path}: not a finding: {error}") from None


def find(folder: Path) -> Sequence[Path]:
    """Return the findings in *folder* and its folders, in order of name."""
    return sorted(path for path in folder.rglob("*.json") if _is_finding(path))


def _is_finding(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return FORMAT in file.read(200)
    except (OSError, UnicodeDecodeError):
        return False
