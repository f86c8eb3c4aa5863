"""Mutants of hand-written C: other types, places, constants and calls.

Nothing is changed that memory may hang on (``sheet_reading``); that arithmetic stays defined is
not promised: what differs is asked for undefined behaviour before anybody is blamed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.source.excerpt import Change, Excerpt
from harness.source.sheet import Constant, Edit, Function, Sheet
from harness.source.sheet_reading import INTEGERS, LITERALS
from harness.source.signature import REGISTERS, Scalar, size_of
from harness.source.vectors import boundaries

TRIES = 12
MORE = 0.5  # mutants that one more change is made to, each time
TYPES = tuple(name for name in INTEGERS if name not in ("_Bool", "char", "long", "unsigned long"))
OWN = 0.25  # functions taken from the same sheet
NOINLINE = 0.6  # functions taken from elsewhere that stay functions


def excerpt(rng: random.Random, sheets: Sequence[Sheet]) -> Excerpt | None:
    """Return a mutant of a function of *sheets*; None: nothing that was tried gave one."""
    sheet, name = rng.choice([(sheet, name) for sheet in sheets for name in sheet.tests])
    found = Excerpt(sheet, name)
    for _ in range(TRIES):
        (change,) = rng.choices([c for _, c in _CHANGES], [w for w, _ in _CHANGES])
        made = change(rng, found, sheets)
        if made is None:
            continue
        changed = replace(found, changes=(*found.changes, made))
        if not changed.fits:
            continue
        found = changed
        if rng.random() >= MORE:
            break
    return found if found.changes else None


def smaller(one: Excerpt) -> list[Excerpt]:
    """Return *one* without each of its changes."""
    return [
        replace(one, changes=one.changes[:at] + one.changes[at + 1 :])
        for at in range(len(one.changes))
    ]


def _type(rng: random.Random, one: Excerpt, _sheets: Sequence[Sheet]) -> Change | None:
    """Give a parameter another integer type."""
    places = [
        (f, at) for f in one.sheet.defined(one.kept) for at, p in enumerate(f.parameters) if p.types
    ]
    if not places:
        return None
    function, at = rng.choice(places)
    parameter = function.parameters[at]
    name = rng.choice([name for name in TYPES if INTEGERS[name] != INTEGERS[parameter.type]])
    edits = tuple((span, f"{name} ") for span in parameter.types)
    size, signed = INTEGERS[name]
    kind = Scalar(name, size, signed)
    return Change(edits, True, ((at, kind),) if function.name == one.function else ())


def _border(rng: random.Random, one: Excerpt, _sheets: Sequence[Sheet]) -> Change | None:
    """Swap an argument in a register with one in a slot, in the function and in its calls."""
    places = []
    for function in one.sheet.defined(one.kept):
        signature = one.sheet.tests.get(function.name)
        if signature is None or not function.heads:
            continue
        ends, slot = [], 0
        for parameter in signature.parameters:
            slot += 2 if size_of(parameter.type) > 8 else 1
            ends.append(slot)
        low = [at for at, end in enumerate(ends) if end <= REGISTERS]
        high = [at for at, end in enumerate(ends) if end > REGISTERS]
        if low and high and len(ends) == len(function.parameters):
            places.append((function, low, high))
    if not places:
        return None
    function, low, high = rng.choice(places)
    a, b = rng.choice(low), rng.choice(high)
    lists = list(function.heads)
    lists += [
        call.arguments
        for caller in one.sheet.functions.values()
        for call in caller.calls
        if call.callee == function.name
    ]
    text, edits = one.sheet.text, list[Edit]()
    for spans in lists:
        if len(spans) != len(function.parameters) or (0, 0) in spans:
            return None
        for here, there in ((a, b), (b, a)):
            start, end = spans[there]
            edits.append((spans[here], text[start:end]))
    return Change(tuple(edits), swapped=(a, b) if function.name == one.function else None)


def _constants(rng: random.Random, one: Excerpt, _sheets: Sequence[Sheet]) -> Change | None:
    """Put other constants, boundaries mostly, where some are."""
    spans = [one.sheet.pieces[n].span for n in one.kept]
    places = [c for f in one.sheet.defined(one.kept) for c in f.constants]
    places += [c for c in one.sheet.constants if any(a <= c.span[0] < b for a, b in spans)]
    if not places:
        return None
    chosen = rng.sample(places, min(len(places), rng.randint(1, 3)))
    edits = tuple((c.span, _constant(rng, c)) for c in chosen)
    text = one.sheet.text
    return Change(edits) if any(text[a:b] != new for (a, b), new in edits) else None


def _constant(rng: random.Random, old: Constant) -> str:
    if old.use == "shift":
        return str(rng.choice((0, 1, old.bits // 2 - 1, old.bits // 2, old.bits - 1)))
    size, signed = INTEGERS[old.type]
    value = rng.choice(boundaries(Scalar(old.type, size, signed)))
    if old.use == "divisor" and not value:
        value = 1
    suffix = LITERALS[old.type]
    top = 1 << 8 * size - 1
    if not signed or value < top:
        return f"{value}{suffix}"
    if value == top:
        return f"(-{top - 1}{suffix} - 1)"
    return f"(-{2 * top - value}{suffix})"


def _splice(rng: random.Random, one: Excerpt, sheets: Sequence[Sheet]) -> Change | None:
    """Let the function under test call that of another program, and mix what it returns in."""
    root = one.sheet.functions.get(one.function)
    if root is None or root.returned is None or not root.result or one.others:
        return None
    others = [sheet for sheet in sheets if sheet.agrees]
    other = rng.choice(others) if others and rng.random() >= OWN else one.sheet
    names = [name for name, f in other.functions.items() if name in other.tests and f.result]
    callee = other.functions[rng.choice(names)] if names else None
    if callee is None or not all(p.type for p in callee.parameters):
        return None
    if other is one.sheet and (callee.start >= root.start or _reaches(other, callee, root)):
        return None
    numbers = [p.name for p in root.parameters if p.type and p.name]
    arguments = [
        rng.choice(numbers)
        if numbers and rng.random() < 0.8
        else _constant(rng, Constant((0, 0), "int", "value"))
        for _ in callee.parameters
    ]
    call = f"{callee.name}({', '.join(arguments)})"
    a, b = root.returned
    wide = "(unsigned long long)"
    edits: list[Edit] = [((a, a), f"{wide}("), ((b, b), f") ^ {wide}{call}")]
    # its result is alive all the time; always so where it may matter which comes first
    if rng.random() < 0.5 or re.search(r"=|\+\+|--", one.sheet.text[a:b]):
        name = "spliced"
        while name in one.sheet.text or name in other.text:
            name += "_"
        edits = [((root.body, root.body), f"\n\tunsigned long long {name} = {wide}{call};")]
        edits += [((a, a), f"{wide}("), ((b, b), f") ^ {name}")]
    stays: list[Edit] = []
    if rng.random() < NOINLINE and "noinline" not in other.text[callee.start : callee.body]:
        stays = [((callee.start, callee.start), "__attribute__((noinline)) ")]
    if other is one.sheet:
        return Change((*edits, *stays), callee=callee.name, other=other)
    return Change(tuple(edits), callee=callee.name, other=other, others=tuple(stays))


def _reaches(sheet: Sheet, start: Function, name: Function) -> bool:
    pieces = sheet.needed(start.name)
    return any(name.name in sheet.pieces[n].names for n in pieces)


_CHANGES: tuple[
    tuple[int, Callable[[random.Random, Excerpt, Sequence[Sheet]], Change | None]], ...
] = (
    (30, _type),
    (25, _border),
    (25, _constants),
    (20, _splice),
)
