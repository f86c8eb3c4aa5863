"""Hand-written C as its declarations, and what may be changed in them.

A sheet is one file: its own macros are expanded, its comments gone, its `#include` lines apart.
All places are offsets into its text. ``sheet_reading`` makes one of what clang says of a file;
``excerpt`` cuts out one function with all it needs, and changes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from harness.model import LINKAGES, OPTS
from harness.source.signature import Signature

Span = tuple[int, int]  # offsets: first, behind the last
Edit = tuple[Span, str]  # what stands there, and what comes in its place


@dataclass(frozen=True, slots=True)
class Piece:
    """One declaration at file scope, or several that share their beginning."""

    span: Span
    names: frozenset[str]  # that it gives a meaning to, for all of the file
    needs: frozenset[str]  # of the file's names, those that occur in it


@dataclass(frozen=True, slots=True)
class Constant:
    """An integer that stands in the text, and whose value no access to memory hangs on."""

    span: Span
    type: str  # of C: one of sheet_reading.LITERALS
    use: str  # "value", "shift" (by less than *bits*), "divisor"
    bits: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A direct call."""

    callee: str
    arguments: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a function, in its definition."""

    name: str
    type: str = ""  # one of sheet_reading.INTEGERS; "": no integer
    types: tuple[Span, ...] = ()  # where it stands in each declaration; none: it has to stay


@dataclass(frozen=True, slots=True)
class Function:
    """A function that the sheet defines."""

    name: str
    parameters: tuple[Parameter, ...]
    heads: tuple[tuple[Span, ...], ...]  # of each declaration: its parameters; none: they stay
    start: int  # of the definition
    body: int  # where its first statement may stand
    returned: Span | None = None  # the value of a return that ends the body
    result: str = ""  # one of sheet_reading.INTEGERS
    calls: tuple[Call, ...] = ()  # in it
    constants: tuple[Constant, ...] = ()  # in it
    loops: bool = False
    divides: bool = False
    cuts: tuple[Edit, ...] = ()  # that leave C behind, where they were asked for


@dataclass(frozen=True, slots=True)
class Sheet:
    """One file."""

    text: str
    includes: tuple[str, ...]  # lines
    pieces: tuple[Piece, ...]
    functions: Mapping[str, Function]
    tests: Mapping[str, Signature] = field(default_factory=dict)  # of functions under test
    constants: tuple[Constant, ...] = ()  # of variables at file scope
    mcpu: str = "v1"  # the oldest instruction set that it is for
    opts: tuple[str, ...] = OPTS
    linkages: tuple[str, ...] = LINKAGES
    agrees: bool = True  # as far as is known: its functions may be called from elsewhere

    def defined(self, pieces: Iterable[int]) -> list[Function]:
        """Return the functions that *pieces* define."""
        spans = [self.pieces[n].span for n in pieces]
        return [f for f in self.functions.values() if any(a <= f.start < b for a, b in spans)]

    def needed(self, *names: str) -> frozenset[int]:
        """Return the pieces that the functions *names* need."""
        found: set[int] = set()
        wanted, known = set(names), set[str]()
        while wanted:
            known |= wanted
            new = {n for n, p in enumerate(self.pieces) if p.names & wanted} - found
            found |= new
            wanted = {name for n in new for name in self.pieces[n].needs} - known
        return frozenset(found)
