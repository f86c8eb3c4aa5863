"""The question cvise asks of every text: does it still show the same? (exit status 0: yes)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from harness.model import BuildConfig, HarnessError
from harness.pipeline import Settings
from harness.toolchain import Compiler
from harness.triage.classify import classify
from harness.triage.experiments import Bench, Subject


def main(spec: str, source: str) -> int:
    """Return 0 if the C in *source* shows what the JSON in *spec* says."""
    wanted = json.loads(Path(spec).read_text())
    fields = wanted["subject"]
    config = BuildConfig(**fields.pop("config"))
    fields.update(c=Path(source).read_text(errors="surrogateescape"), config=config, vectors=())
    told = wanted["compiler"]
    compiler = Compiler(**{**told, "command": tuple(told["command"])})
    try:
        with Bench(Settings(configs=(config,), compilers=(compiler,))) as bench:
            found = classify(bench, Subject(**fields), thorough=False)
    except HarnessError:
        return 1
    if found.undefined and not wanted["undefined"]:
        return 1
    return 0 if list(found.signature) == wanted["signature"] else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
