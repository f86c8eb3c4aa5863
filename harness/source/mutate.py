"""Mutants of kept programs: a few changes that keep them programs.

A tree stays defined whatever is changed (``tree``), so a mutant only has to be one
(``scope.problems``). BPF text is changed by the line; whether it is still accepted is for a
verifier to say.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from harness.corpus import ProgramText
from harness.model import OPTS
from harness.source.expressions import constant
from harness.source.near_misses import near_miss
from harness.source.scope import problems
from harness.source.tree import (
    INTEGERS,
    U32,
    U64,
    Address,
    Argument,
    ArrayType,
    Assign,
    Binary,
    Call,
    Cast,
    Const,
    Declare,
    Element,
    EnumType,
    Function,
    Global,
    IntType,
    Name,
    Parameter,
    PointerType,
    Return,
    Statement,
    StructType,
    Tree,
    Value,
    Whole,
    closure,
    rebuilt,
    slots_of,
    walk,
)

REGISTERS = 5
MAX_SLOTS = 12
TRIES = 12
CUTS = 0.5  # mutants of trees that are of one function of the parent and what it calls
SPLICED = 6  # functions of a tree with another's in it, at most
SPLICES = 0.25  # mutants of text that take a function from another program


# --- trees --------------------------------------------------------------------


def tree(rng: random.Random, parents: Sequence[Tree]) -> Tree | None:
    """Return a mutant of one of *parents*; None: nothing that was tried gave a program."""
    parent = rng.choice(parents)
    if rng.random() < CUTS:
        parent = _cut(rng, parent)
    found = None
    for _ in range(TRIES):
        (change,) = rng.choices([c for _, c in _CHANGES], [w for w, _ in _CHANGES])
        changed = change(rng, found or parent, parents)
        if changed is None or changed == parent or problems(changed):
            continue
        found = changed
        if rng.random() < 0.5:
            break
    return found


def _cut(rng: random.Random, one: Tree) -> Tree:
    """Return one of the functions of *one* that take slots, with what it calls, as a program."""
    chosen = rng.choice([f for f in one.functions if f.slots > REGISTERS] or [one.root])
    *below, top = closure(one, chosen)
    if chosen is not one.root:
        top = replace(top, noinline=True, static=False, weak=False)
    return replace(one, functions=(*below, top))


def _constants(rng: random.Random, one: Tree, _parents: Sequence[Tree]) -> Tree | None:
    """Put other constants, boundaries mostly, where some are."""
    count = sum(isinstance(n, Const) for n in walk(one.functions))
    if not count:
        return None
    chosen = set(rng.sample(range(count), min(count, rng.randint(1, 3))))
    number = -1

    def change(node: Any) -> Any:
        nonlocal number
        if isinstance(node, Const):
            number += 1
            if number in chosen:
                return constant(rng, node.type)
        return node

    return replace(one, functions=rebuilt(one.functions, change))


def _type(rng: random.Random, one: Tree, _parents: Sequence[Tree]) -> Tree | None:
    """Give a parameter another integer type."""
    function = rng.choice(one.functions)
    numbers = [n for n, p in enumerate(function.parameters) if isinstance(p.type, IntType)]
    if not numbers:
        return None
    at = rng.choice(numbers)
    parameters = list(function.parameters)
    parameters[at] = replace(parameters[at], type=rng.choice(INTEGERS))
    return _with(one, function, replace(function, parameters=tuple(parameters)))


def _border(rng: random.Random, one: Tree, _parents: Sequence[Tree]) -> Tree | None:
    """Swap an argument in a register with one in a slot, in the function and in its calls."""
    function = rng.choice(one.functions)
    ends, slot = [], 0
    for parameter in function.parameters:
        slot += slots_of(parameter.type)
        ends.append(slot)
    low = [n for n, end in enumerate(ends) if end <= REGISTERS]
    high = [n for n, end in enumerate(ends) if end > REGISTERS]
    if not low or not high:
        return None
    a, b = rng.choice(low), rng.choice(high)
    order = list(range(len(ends)))
    order[a], order[b] = b, a
    return _reordered(one, function, order)


def _reordered(one: Tree, function: Function, order: Sequence[int]) -> Tree:
    """Return *one* with the parameters of *function* in another *order*."""

    def change(node: Any) -> Any:
        match node:
            case Call(function=name, arguments=arguments) if name == function.name:
                return replace(node, arguments=tuple(arguments[n] for n in order))
            case Function(name=name, parameters=parameters) if name == function.name:
                return replace(node, parameters=tuple(parameters[n] for n in order))
        return node

    return replace(one, functions=rebuilt(one.functions, change))


def _shift(rng: random.Random, one: Tree, _parents: Sequence[Tree]) -> Tree | None:
    """Put an argument that nothing reads in front, so that the others move on by one."""
    function = rng.choice(one.functions)
    if function.slots >= MAX_SLOTS:
        return None
    number = 0
    while any(p.name == f"a{number}" for p in function.parameters):
        number += 1
    new = Parameter(f"a{number}", rng.choice(INTEGERS))

    def change(node: Any) -> Any:
        match node:
            case Call(function=name, arguments=arguments) if name == function.name:
                return replace(node, arguments=(constant(rng, U64), *arguments))
            case Function(name=name, parameters=parameters) if name == function.name:
                return replace(node, parameters=(new, *parameters))
        return node

    return replace(one, functions=rebuilt(one.functions, change))


def _linkage(rng: random.Random, one: Tree, _parents: Sequence[Tree]) -> Tree | None:
    """Let a function be inlined or not, or be weak; the root stays as it is."""
    if len(one.functions) < 2:
        return None
    function = rng.choice(one.functions[:-1])
    if function.static or rng.random() < 0.6:
        return _with(one, function, replace(function, noinline=not function.noinline))
    changed = _with(one, function, replace(function, weak=not function.weak))
    return replace(changed, linkages=("hidden",))


def _argument(rng: random.Random, one: Tree, _parents: Sequence[Tree]) -> Tree | None:
    """Pass a parameter of the caller, as it is or cast, in the place of another number."""
    callers = [f for f in one.functions if any(isinstance(n, Call) for n in walk(f.body))]
    if not callers:
        return None
    caller = rng.choice(callers)
    calls = sum(isinstance(n, Call) for n in walk(caller.body))
    numbers = [p.name for p in caller.parameters if isinstance(p.type, IntType | EnumType)]
    if not numbers:
        return None
    chosen, number = rng.randrange(calls), -1
    value: Argument = Name(rng.choice(numbers))
    if rng.random() < 0.4:
        value = Cast(rng.choice(INTEGERS), Name(rng.choice(numbers)))

    def change(node: Any) -> Any:
        nonlocal number
        if isinstance(node, Call):
            number += 1
            if number == chosen and node.arguments:
                at = rng.randrange(len(node.arguments))
                arguments = (*node.arguments[:at], value, *node.arguments[at + 1 :])
                return replace(node, arguments=arguments)
        return node

    return _with(one, caller, replace(caller, body=rebuilt(caller.body, change)))


def _splice(rng: random.Random, one: Tree, parents: Sequence[Tree]) -> Tree | None:
    """Let the function under test call that of another program."""
    other = _renamed(rng.choice(parents), one)
    root, callee = one.root, other.root
    if len(one.functions) + len(other.functions) > SPLICED or not root.body:
        return None
    out: list[Statement] = []
    names = {n.name for n in walk(root) if isinstance(n, Declare | Parameter)}
    arguments = tuple(_new_argument(rng, p.type, root, out, names) for p in callee.parameters)
    call = Call(callee.name, arguments)
    kind = callee.result
    if isinstance(kind, IntType | EnumType):
        name = _fresh(names)
        out.append(Declare(name, U64, (Const(U32, 0),)))
        out.append(replace(call, result=Name(name)))
        if any(isinstance(s, Declare) and s.name == "v0" and s.type == U64 for s in root.body):
            out.append(Assign(Name("v0"), Binary("xor", U64, Name("v0"), Name(name))))
    elif isinstance(kind, StructType):
        name = _fresh(names)
        out += [Declare(name, kind, ()), replace(call, result=Name(name))]
    else:
        out.append(call)
    at = len(root.body) - isinstance(root.body[-1], Return)
    body = (*root.body[:at], *out, *root.body[at:])
    functions = (*other.functions, *one.functions[:-1], replace(root, body=body))
    linkages = tuple(x for x in one.linkages if x in other.linkages)
    return Tree(
        (*other.types, *one.types),
        (*other.globals, *one.globals),
        functions,
        max(one.mcpu, other.mcpu),
        linkages or ("hidden",),
        OPTS[1:],
    )


def _fresh(names: set[str]) -> str:
    number = 0
    while f"v{number}" in names:
        number += 1
    names.add(f"v{number}")
    return f"v{number}"


def _new_argument(
    rng: random.Random,
    kind: Value | PointerType,
    caller: Function,
    out: list[Statement],
    names: set[str],
) -> Argument:
    """Return an argument of type *kind*; what it needs is declared in *out*."""
    numbers = [p.name for p in caller.parameters if isinstance(p.type, IntType | EnumType)]
    number: Argument = Name(rng.choice(numbers)) if numbers else constant(rng, U64)
    match kind:
        case PointerType(target=target, count=count):
            name = _fresh(names)
            if count > 1:
                assert isinstance(target, IntType)
                out.append(Declare(name, ArrayType(target, count), ()))
                return Address(Element(Name(name), Const(U32, 0), count))
            values = () if isinstance(target, StructType) else (Const(U32, 1),)
            out.append(Declare(name, target, values))
            return Address(Name(name))
        case StructType():
            name = _fresh(names)
            out.append(Declare(name, kind, ()))
            return Whole(Name(name))
        case IntType() if rng.random() < 0.3:
            return constant(rng, kind)
    return number


def _renamed(other: Tree, one: Tree) -> Tree:
    """Return *other* with names of functions, types and globals that *one* does not have."""
    past = {"f": _next(f.name for f in one.functions), "t": _next(t.name for t in one.types)}
    past["g"] = _next(g.name for g in one.globals)

    def moved(name: str) -> str:
        return f"{name[0]}{int(name[1:]) + past[name[0]]}"

    def change(node: Any) -> Any:
        match node:
            case StructType(name=name) | EnumType(name=name) | Function(name=name):
                return replace(node, name=moved(name))
            case Global(name=name):
                return replace(node, name=moved(name))
            case Name(name=name) if name.startswith("g"):
                return Name(moved(name))
            case Call(function=name):
                return replace(node, function=moved(name))
        return node

    found: Tree = rebuilt(other, change)
    return found


def _next(names: Any) -> int:
    return 1 + max((int(name[1:]) for name in names), default=-1)


def _with(one: Tree, old: Function, new: Function) -> Tree:
    return replace(one, functions=tuple(new if f is old else f for f in one.functions))


_CHANGES: tuple[tuple[int, Callable[[random.Random, Tree, Sequence[Tree]], Tree | None]], ...] = (
    (20, _constants),
    (20, _type),
    (20, _border),
    (10, _shift),
    (6, _linkage),
    (14, _argument),
    (10, _splice),
)


# --- BPF text -----------------------------------------------------------------


def text(
    rng: random.Random, parent: ProgramText, others: Sequence[ProgramText]
) -> tuple[ProgramText, str]:
    """Return a mutant of *parent*, and the message it is after; "" for none in particular."""
    if others and rng.random() < SPLICES:
        found = _spliced(rng, parent, rng.choice(others))
        if found is not None:
            return found, ""
    return near_miss(rng, parent)


def _spliced(rng: random.Random, one: ProgramText, other: ProgramText) -> ProgramText | None:
    """Put a function of *other* that calls none in the place of one with as many arguments."""
    if one.dialect != other.dialect or one.maps != other.maps:
        return None
    ours, theirs = _bodies(one), _bodies(other)
    counts = {f.name: len(f.args) for f in one.functions}
    pairs = [
        (f.name, g.name) for f in other.functions for g in one.functions
        if f.name in theirs and g.name in ours and len(f.args) == counts[g.name]
        and not any(re.match(r"call (?!bpf_)|.* = \w+ ll$", line) for line in theirs[f.name])
    ]  # fmt: skip
    if not pairs:
        return None
    source, to = rng.choice(pairs)
    labels = {m[1] for line in theirs[source] if (m := re.match(r"(\w+):$", line))}
    body = [_relabelled(line, labels) for line in theirs[source]]
    start, end = _span(one, to)
    lines = one.asm.splitlines()
    return replace(one, asm="\n".join([*lines[: start + 1], *body, *lines[end:]]) + "\n")


def _relabelled(line: str, labels: set[str]) -> str:
    def new(match: re.Match[str]) -> str:
        return f"x_{match[0]}" if match[0] in labels else match[0]

    return re.sub(r"\b[A-Za-z_]\w*", new, line)


def _span(one: ProgramText, function: str) -> tuple[int, int]:
    """Return the line of *function*'s label, and the first line that is not its own."""
    lines = one.asm.splitlines()
    names = {f"{f.name}:" for f in one.functions}
    start = lines.index(f"{function}:")
    ends = (n for n in range(start + 1, len(lines)) if lines[n] in names)
    return start, next(ends, len(lines))


def _bodies(one: ProgramText) -> dict[str, list[str]]:
    lines = one.asm.splitlines()
    out = {}
    for function in one.functions:
        if f"{function.name}:" in lines:
            start, end = _span(one, function.name)
            out[function.name] = lines[start + 1 : end]
    return out
