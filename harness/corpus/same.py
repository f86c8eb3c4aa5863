"""Whether two cases test the same."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable

from harness.corpus.case import Case
from harness.corpus.text import program
from harness.isa import codec
from harness.model import HarnessError


def fingerprint(case: Case) -> str:
    """Return text that two cases share if they hold the same program and run it on the same.

    BPF text counts as what it assembles to, so labels, comments and layout do not tell;
    C counts by its tokens. Expectations and notes do not count.
    """
    parts: list[object] = [sorted((run.ctx, run.legs) for run in case.runs)]
    if case.source is not None:
        parts += [_c_tokens(case.source.c), case.source.opts, case.source.mcpus]
        parts.append(case.source.linkages)
    if case.program is not None:
        text = case.program
        parts += [
            text.type,
            (text.attach_type, text.attach, text.sleepable, text.license, text.kfuncs),
            text.dialect,
            sorted(text.maps, key=lambda m: m.name),
            sorted(text.fields),
        ]
        parts.append(case.verify.kernel if case.verify else "")
        try:
            built = program(text, case.name)
        except HarnessError:
            parts.append(text.asm.split())  # a case that does not assemble
        else:
            parts.append(codec.encode(built.insns).hex())
            declared = {f.name: (f.args, f.linkage) for f in text.functions}
            parts.append([(s.start, declared.get(s.name)) for s in built.subprograms])
    return hashlib.sha256(repr(parts).encode()).hexdigest()


_C_TOKEN = re.compile(
    r"(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<line>^[ \t]*\#[^\n]*)"
    r"|[A-Za-z_]\w*|\.?\d[\w.]*|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\S",
    re.DOTALL | re.MULTILINE,
)


def _c_tokens(text: str) -> list[str]:
    """Return the tokens of C, enough to tell whether layout and comments alone differ."""
    return [match[0].strip() for match in _C_TOKEN.finditer(text) if not match["comment"]]


def duplicates(cases: Iterable[Case]) -> list[tuple[Case, ...]]:
    """Return the groups of *cases* that test the same, each in the given order."""
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[fingerprint(case)].append(case)
    return [tuple(group) for group in groups.values() if len(group) > 1]
