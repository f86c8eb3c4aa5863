"""What a triage found, as a case of the corpus and an entry of known.toml."""

from __future__ import annotations

from pathlib import Path

import tomlkit

from harness import corpus
from harness.corpus import Case, SourceText
from harness.model import HarnessError
from harness.triage.facts import KINDS, UNDECIDED
from harness.triage.session import Triage


def keep(result: Triage, folder: Path) -> tuple[Path, Path]:
    """Write the reduced case and its entry of known.toml to *folder*; return both paths.

    The case expects agreement, which the entry excuses: once it agrees the entry is stale.
    """
    subject, config = result.subject, result.subject.config
    path = folder / f"{result.target.name}.toml".replace("-", "_").lower()
    kind = KINDS.get(result.diagnosis.cause, "")
    outcome = {"divergence": "diverge", "reject": "rejected"}.get(kind, kind)
    if result.diagnosis.cause == UNDECIDED:
        raise HarnessError("undecided, and not kept: a real Linux may know (--kernel)")
    if subject.handed:
        raise HarnessError("not kept: `run` hands no assembly over, and would not show it")
    if not kind:
        raise HarnessError(
            f"{result.diagnosis.cause}: --keep is for what the compiler has to mend; "
            "mend ours, and add a test"
        )
    note = f"{result.diagnosis.cause}: {result.diagnosis.detail}."
    corpus.write(
        Case(
            path,
            note=note,
            source=SourceText(subject.c, (config.opt,), (config.mcpu,), (config.linkage,)),
            crosscheck=outcome,
        )
    )
    known = folder / "known.toml"
    document = (
        tomlkit.parse(known.read_text(encoding="utf-8")) if known.exists() else (tomlkit.document())
    )
    entries = document.setdefault("known", tomlkit.aot())
    entry = tomlkit.table()
    entry["id"] = path.stem
    entry["kind"] = kind
    entry["status"] = "open"
    entry["source"] = f"*{path.name}"
    entry["function"] = subject.function
    entry["build"] = str(config)
    entry["compiler"] = result.target.compiler.version
    entry["note"] = note
    entries.append(entry)
    corpus.write_atomically(known, tomlkit.dumps(document))
    return path, known
