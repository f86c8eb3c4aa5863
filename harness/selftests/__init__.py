"""The kernel's own verifier programs, judged by us: ``parity --selftests``.

An unpacked kernel source has some two thousand small programs in
``tools/testing/selftests/bpf/progs``, each with tags that say what the verifier does with
it. They are compiled where they are, and none of them enters the project.
"""

from harness.selftests.build import Tree, find_tree
from harness.selftests.judge import Row
from harness.selftests.report import selftests_json, selftests_text
from harness.selftests.session import Selftests, selftests

__all__ = [
    "Row",
    "Selftests",
    "Tree",
    "find_tree",
    "selftests",
    "selftests_json",
    "selftests_text",
]
