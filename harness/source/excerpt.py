"""One function of hand-written C with all it needs, changed in some places."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TypeVar

from harness.model import LINKAGES, MCPUS, OPTS
from harness.source.sheet import Edit, Function, Sheet
from harness.source.signature import Aggregate, Parameter, Pointer, Scalar, Signature


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """Something changed."""

    edits: tuple[Edit, ...] = ()  # of the excerpt's own sheet
    retyped: bool = False  # a parameter got another type
    types: tuple[tuple[int, Scalar], ...] = ()  # of parameters of the function under test
    swapped: tuple[int, int] | None = None  # two of them changed places
    callee: str = ""  # the function of *other* that is called
    other: Sheet | None = None  # may be the excerpt's own
    others: tuple[Edit, ...] = ()  # of *other*, where that is another one


@dataclass(frozen=True, slots=True, eq=False)
class Excerpt:
    """A program: C that somebody wrote, and *changes* that were made to it."""

    sheet: Sheet
    function: str  # under test
    changes: tuple[Change, ...] = field(default=())

    @property
    def others(self) -> tuple[tuple[Sheet, str, tuple[Edit, ...]], ...]:
        """What is called of other sheets."""
        return tuple(
            (c.other, c.callee, c.others)
            for c in self.changes
            if c.other is not None and c.other is not self.sheet
        )

    @property
    def kept(self) -> frozenset[int]:
        """The pieces of its own sheet that it has."""
        own = [c.callee for c in self.changes if c.other is self.sheet]
        return self.sheet.needed(self.function, *own)

    @property
    def sheets(self) -> tuple[Sheet, ...]:
        """The sheets that it comes from; the last is its own."""
        return (*(sheet for sheet, _, _ in self.others), self.sheet)

    @property
    def mcpu(self) -> str:
        """The oldest instruction set that it is for: v4 where a division may be signed now."""
        retyped = any(change.retyped for change in self.changes)
        if retyped and any(function.divides for function in self.functions):
            return MCPUS[-1]
        return max(sheet.mcpu for sheet in self.sheets)

    @property
    def opts(self) -> tuple[str, ...]:
        """The levels that it is for.

        At -O0 a counter is half a slot of the stack, which Linux does not follow in a loop.
        """
        common = tuple(o for o in self.sheet.opts if all(o in s.opts for s in self.sheets))
        if any(function.loops for function in self.functions):
            common = tuple(opt for opt in common if opt != "0")
        return common or OPTS[1:]

    @property
    def functions(self) -> tuple[Function, ...]:
        """The functions that it has, of all sheets."""
        found = [f for sheet, callee, _ in self.others for f in sheet.defined(sheet.needed(callee))]
        return (*found, *self.sheet.defined(self.kept))

    @property
    def linkages(self) -> tuple[str, ...]:
        """The linkages that it is for."""
        found = tuple(x for x in LINKAGES if all(x in sheet.linkages for sheet in self.sheets))
        return found or self.sheet.linkages

    @property
    def names(self) -> frozenset[str]:
        """Its names at file scope."""
        found = _names(self.sheet, self.kept)
        for sheet, callee, _ in self.others:
            found |= _names(sheet, sheet.needed(callee))
        return found

    @property
    def includes(self) -> tuple[str, ...]:
        """Its `#include` lines."""
        return tuple(dict.fromkeys(line for s in self.sheets for line in s.includes))

    @property
    def body(self) -> str:
        """Its text, without ``includes``."""
        parts = [_cut(sheet, sheet.needed(callee), edits) for sheet, callee, edits in self.others]
        edits = [edit for change in self.changes for edit in change.edits]
        return "\n".join([*parts, _cut(self.sheet, self.kept, edits)]) + "\n"

    @property
    def text(self) -> str:
        """The whole text, as a file."""
        lines: list[str] = []
        if self.mcpu > "v1":
            cpus = [f"v{n}" for n in range(int(self.mcpu[1:]), 5)]
            lines = ["/*", *(f" * crosscheck: -mcpu={cpu}" for cpu in cpus), " */"]
        return "\n".join([*lines, *self.includes, "", self.body])

    def prefixed(self, prefix: str) -> str:
        """Return the text with *prefix* before its names, for a file that it shares with others.

        The preprocessor puts it there, which knows best what is a name.
        """
        names = sorted(self.names)
        return "\n".join(
            [
                *self.includes,
                *(f"#define {name} {prefix}{name}" for name in names),
                f'#line 1 "{prefix}"',
                self.body,
                *(f"#undef {name}" for name in names),
                "",
            ]
        )

    def signature(self, prefix: str = "") -> Signature:
        """Return the signature of the function under test, of the text with *prefix*."""
        start = self.sheet.tests[self.function]
        parameters = list(start.parameters)
        for change in self.changes:
            for at, kind in change.types:
                parameters[at] = replace(parameters[at], type=kind, text=parameters[at].name)
        order = list(range(len(parameters)))
        for change in self.changes:
            if change.swapped is not None:
                a, b = (order.index(at) for at in change.swapped)
                order[a], order[b] = order[b], order[a]
        names = self.names
        return Signature(
            prefix + start.name,
            tuple(_renamed(parameters[at], prefix, names) for at in order),
            None if start.result is None else _named(start.result, prefix, names),
        )

    @property
    def fits(self) -> bool:
        """Whether its changes leave each other alone."""
        spans = sorted(span for change in self.changes for span, _ in change.edits)
        apart = all(a[1] <= b[0] and a != b for a, b in pairwise(spans))
        return apart and not self._clash()

    def _clash(self) -> bool:
        """Return whether two sheets have a name in common."""
        seen = set(_names(self.sheet, self.kept))
        seen |= _words(self.sheet, self.kept)
        for sheet, callee, _ in self.others:
            pieces = sheet.needed(callee)
            if (_names(sheet, pieces) & seen) or (_words(sheet, pieces) & seen & _all(self.sheet)):
                return True
            seen |= _names(sheet, pieces)
        return False


def _all(sheet: Sheet) -> frozenset[str]:
    return _names(sheet, range(len(sheet.pieces)))


def _names(sheet: Sheet, pieces: frozenset[int] | range) -> frozenset[str]:
    return frozenset().union(*(sheet.pieces[n].names for n in pieces))


def _words(sheet: Sheet, pieces: frozenset[int]) -> frozenset[str]:
    spans = (sheet.pieces[n].span for n in pieces)
    return frozenset(word for a, b in spans for word in re.findall(r"\w+", sheet.text[a:b]))


def _cut(sheet: Sheet, pieces: frozenset[int], edits: Sequence[Edit]) -> str:
    """Return the text of *pieces*, with *edits*."""
    out = []
    for first, behind in (sheet.pieces[n].span for n in sorted(pieces)):
        at = first
        for (start, end), text in sorted(edits):
            if first <= start < behind:
                out += [sheet.text[at:start], text]
                at = end
        out.append(sheet.text[at:behind])
    return "".join(out).strip("\n")


def _renamed(parameter: Parameter, prefix: str, names: frozenset[str]) -> Parameter:
    return replace(parameter, type=_named(parameter.type, prefix, names))


_Kind = TypeVar("_Kind", bound=Scalar | Aggregate | Pointer)


def _named(kind: _Kind, prefix: str, names: frozenset[str]) -> _Kind:
    """Return *kind*, which a driver may have to name, as the text with *prefix* calls it."""
    if not isinstance(kind, Aggregate):
        return kind
    spelled = re.sub(r"\w+", lambda m: (prefix if m[0] in names else "") + m[0], kind.name)
    return replace(kind, name=spelled)
