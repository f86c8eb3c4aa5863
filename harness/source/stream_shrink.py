"""Smaller BPF text that still does what a larger one did.

As ``shrink`` does for trees, in one place at a time: functions, runs of lines, arguments,
immediates, contexts. A cut that no longer assembles is left out; what it means is for the
judge to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness import corpus
from harness.corpus import ProgramText
from harness.model import HarnessError, Vector
from harness.source.descent import descend

_NUMBER = re.compile(r"(?<![\w+-])-?(?:0x[0-9a-f]+|\d+)\b(?! \*)")


@dataclass(frozen=True, slots=True)
class Text:
    """BPF text and the contexts it is run on."""

    program: ProgramText
    vectors: tuple[Vector, ...] = ()


def shrink(
    start: Text,
    interesting: Callable[[Sequence[Text]], Sequence[bool]],
    *,
    batch: int = 16,
    rounds: int = 400,
    over: Callable[[], bool] = lambda: False,
) -> Text:
    """Return a small text that is still *interesting*; the same for the same input.

    *interesting* judges up to *batch* texts in one call; *rounds* is the most calls of it, and
    *over* ends it before the next one.
    """
    return descend(start, _valid, interesting, batch=batch, rounds=rounds, over=over)


def _valid(text: Text, position: int) -> Iterator[tuple[int, Text]]:
    most = weight(text)
    for number, candidate in enumerate(variants(text)):
        if number >= position and weight(candidate) < most and _assembles(candidate):
            yield number, candidate


def _assembles(text: Text) -> bool:
    try:
        corpus.program(text.program, "candidate")
    except HarnessError:
        return False
    return True


def weight(text: Text) -> tuple[int, int, int, int, int]:
    """Return what shrinking makes smaller: lines, arguments, types, contexts, odd immediates."""
    lines = text.program.asm.splitlines()
    arguments = sum(1 + len(f.args) for f in text.program.functions)
    odd = sum(number not in ("0", "1") for line in lines for number in _NUMBER.findall(line))
    types = sum(arg != "u64" for f in text.program.functions for arg in f.args)
    return len(lines), arguments, types, len(text.vectors) + len(text.program.maps), odd


def variants(text: Text) -> Iterator[Text]:
    """Yield *text* with one thing less, the largest first."""
    program, lines = text.program, text.program.asm.splitlines()
    if len(text.vectors) > 1:
        for vector in text.vectors:
            yield replace(text, vectors=(vector,))
    for function in program.functions:
        gone = _without(lines, function.name, {f.name for f in program.functions})
        rest = tuple(f for f in program.functions if f.name != function.name)
        yield replace(text, program=replace(program, asm=_join(gone), functions=rest))
    length = len(lines)
    while length:
        for at in range(0, len(lines), length):
            yield _lines(text, lines[:at] + lines[at + length :])
        length //= 2
    for index, function in enumerate(program.functions):
        for args in (function.args[:-1], ("u64",) * len(function.args)):
            changed = replace(function, args=args)
            functions = (*program.functions[:index], changed, *program.functions[index + 1 :])
            yield replace(text, program=replace(program, functions=functions))
    for number in range(len(program.maps)):
        yield replace(text, program=replace(program, maps=program.maps[:number]))
    for at, line in enumerate(lines):
        for match in _NUMBER.finditer(line):
            for small in ("0", "1"):
                if match[0] != small:
                    new = line[: match.start()] + small + line[match.end() :]
                    yield _lines(text, [*lines[:at], new, *lines[at + 1 :]])


def _without(lines: list[str], function: str, functions: set[str]) -> list[str]:
    """Return *lines* without the calls of *function*, and without its body."""
    out, inside = [], False
    for line in lines:
        if line[:-1] in functions or re.match(r"(f|cb)\d+:$", line):
            inside = line == f"{function}:"
        if not inside and line != f"call {function}":
            out.append(line)
    return out


def _lines(text: Text, lines: list[str]) -> Text:
    return replace(text, program=replace(text.program, asm=_join(lines)))


def _join(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
