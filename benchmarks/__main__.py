"""Print every figure of the README's speed section, as ratios measured in one run.

``python -m benchmarks [NAME...]``: all benchmarks, or the ones named.
``python -m benchmarks triage FAULT...``: the planted faults named, or of the kinds named.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks import grow, kernel, legs, parts, triage, whole
from harness.model import HarnessError

BENCHMARKS: dict[str, Callable[[], None]] = {
    "run": whole.run_against_compilers,
    "legs": legs.vectors,
    "verifier": parts.verifier,
    "limits": parts.limits,
    "jit": parts.jit,
    "loader": parts.loader,
    "kernel": kernel.kernel,
    "grow": grow.grow,
    "triage": triage.faults,
}


def main() -> int:
    """Run the benchmarks that the command line names."""
    names = sys.argv[1:] or list(BENCHMARKS)
    if names[0] == "triage" and not set(names[1:]) & set(BENCHMARKS):
        try:
            triage.faults(names[1:])
        except HarnessError as error:
            print(error, file=sys.stderr)
            return 2
        return 0
    for name in names:
        if name not in BENCHMARKS:
            print(f"no benchmark {name} ({', '.join(BENCHMARKS)})", file=sys.stderr)
            return 2
    for name in names:
        BENCHMARKS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
