"""Smaller trees that still do what a larger one did.

``variants`` cuts a tree in one place: functions, parameters with their arguments, runs of
statements, bodies of branches, operands in place of operators, constants. Every cut leaves
a tree that is defined, so that a reduction cannot slip into undefined behaviour; those that
leave a name without its declaration are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any, cast

from harness.source.descent import descend
from harness.source.scope import problems
from harness.source.tree import (
    U32,
    Assign,
    AtomicOp,
    Binary,
    Call,
    CallIf,
    Cast,
    Choice,
    Const,
    CopyBytes,
    CopyObject,
    Declare,
    Deref,
    Element,
    EnumType,
    Field,
    Fill,
    Function,
    Global,
    If,
    Loop,
    Name,
    Result,
    Return,
    StructType,
    Switch,
    Tree,
    Unary,
    names_of,
    rebuilt,
)

_STATEMENTS = frozenset(
    kind.__name__
    for kind in (
        Declare, Assign, CopyObject, CopyBytes, Fill, Call, CallIf, If, Loop, Switch, AtomicOp,
        Return,
    )
)  # fmt: skip
_PLACES = ("place", "result", "base", "other")  # fields that hold a place
_EXPRESSIONS = (Const, Name, Field, Element, Deref, Cast, Binary, Unary, Choice, Result)


def shrink(
    tree: Tree,
    interesting: Callable[[Sequence[Tree]], Sequence[bool]],
    *,
    batch: int = 16,
    rounds: int = 400,
    over: Callable[[], bool] = lambda: False,
) -> Tree:
    """Return a small tree that is still *interesting*.

    *interesting* judges up to *batch* trees in one call; *rounds* is the most calls of it, and
    *over* ends it before the next one. The same for the same input, unless it is ended.
    """
    valid = partial(_valid, sizes=_Sizes())
    return descend(tree, valid, interesting, batch=batch, rounds=rounds, over=over)


def _valid(tree: Tree, position: int, sizes: _Sizes) -> Iterator[tuple[int, Tree]]:
    """Yield the cuts worth a look, by number.

    The ones before *position* were tried already, on a tree that differs in little.
    """
    weight = _weight(tree, sizes)
    for number, candidate in enumerate(variants(tree)):
        if number < position:
            continue
        trimmed = _trim(candidate, sizes)
        if _weight(trimmed, sizes) < weight and not problems(trimmed):
            yield number, trimmed


@dataclass(frozen=True, slots=True)
class _Size:
    """What cuts ask of a part of a tree."""

    nodes: int = 0  # names twice
    odd: int = 0  # constants that are neither 0 nor 1
    names: frozenset[str] = frozenset()
    types: frozenset[StructType | EnumType] = frozenset()


_NOTHING = _Size()


class _Sizes:
    """The sizes of the parts of trees; a cut shares most of its parts with what it is cut from."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Any, _Size]] = {}  # by id, of parts that it keeps alive

    def of(self, node: Any) -> _Size:
        """Return the size of *node*: a node of a tree, or a tuple of them."""
        found = self.known.get(id(node))
        if found is not None:
            return found[1]
        if type(node) is tuple:
            parts, nodes = node, 0
        elif names := names_of(type(node)):  # type: ignore[arg-type]
            parts, nodes = tuple([getattr(node, name) for name in names]), 1
        else:
            return _NOTHING
        odd = 0
        named: set[str] = set()
        types: set[StructType | EnumType] = set()
        for part in parts:
            size = self.of(part)
            if size is not _NOTHING:
                nodes += size.nodes
                odd += size.odd
                named |= size.names
                types |= size.types
        if isinstance(node, Name):
            nodes += 1
            named.add(node.name)
        elif isinstance(node, Const):
            odd += node.value not in (0, 1) or node.type != U32
        elif isinstance(node, StructType | EnumType):
            types.add(node)
        size = _Size(nodes, odd, frozenset(named), frozenset(types))
        if len(self.known) > _MOST_SIZES:
            self.known.clear()
        self.known[id(node)] = node, size
        return size


_MOST_SIZES = 100_000


def _weight(tree: Tree, sizes: _Sizes) -> tuple[int, int]:
    """Return what reduction makes smaller: nodes, then constants that are neither 0 nor 1."""
    size = sizes.of(tree)
    return size.nodes, size.odd


def _trim(tree: Tree, sizes: _Sizes) -> Tree:
    """Take out the types and globals that nothing names any more."""
    size = sizes.of(tree.functions)
    return replace(
        tree,
        types=tuple(t for t in tree.types if t in size.types),
        globals=tuple(g for g in tree.globals if g.name in size.names),
    )


def variants(tree: Tree) -> Iterator[Tree]:
    """Yield *tree* with one thing less, the largest first."""
    for index in range(len(tree.functions) - 1):
        gone = tree.functions[index].name
        rest = tree.functions[:index] + tree.functions[index + 1 :]
        yield replace(tree, functions=tuple(_without_calls(f, gone) for f in rest))
    for index in range(len(tree.functions) - 1, 0, -1):
        # what is under test may sit deeper
        yield replace(tree, functions=tree.functions[:index])
    for index, function in enumerate(tree.functions):
        for body in _rewrites(function.body):
            yield _put(tree, index, replace(function, body=body))
    for index, function in enumerate(tree.functions):
        for at in range(len(function.parameters)):
            yield _without_parameter(tree, index, at)
        if function.result is not None:
            yield _without_result(tree, index)
    for index, variable in enumerate(tree.globals):
        for smaller in _simpler_global(variable):
            variables = (*tree.globals[:index], smaller, *tree.globals[index + 1 :])
            yield replace(tree, globals=variables)


def _put(tree: Tree, index: int, function: Function) -> Tree:
    functions = (*tree.functions[:index], function, *tree.functions[index + 1 :])
    return replace(tree, functions=functions)


def _without_calls(function: Function, gone: str) -> Function:
    function = _without_results(function, gone)
    return replace(function, body=_map_blocks(function.body, lambda s: _uncalled(s, gone)))


def _uncalled(statement: Any, gone: str) -> tuple[Any, ...]:
    match statement:
        case Call(function=name) if name == gone:
            return ()
        case CallIf(call=Call(function=name), then=then) if name == gone:
            return then
    return (statement,)


def _map_blocks(node: Any, change: Callable[[Any], tuple[Any, ...]]) -> Any:
    """Return *node* with every statement in every block replaced by what *change* says."""
    if isinstance(node, tuple):
        if node and type(node[0]).__name__ in _STATEMENTS:
            return tuple(new for s in node for new in change(_map_blocks(s, change)))
        return tuple(_map_blocks(n, change) for n in node)
    if not is_dataclass(node) or type(node).__name__ not in _STATEMENTS:
        return node
    changes = {
        f.name: _map_blocks(value, change)
        for f in fields(node)
        if isinstance(value := getattr(node, f.name), tuple)
    }
    return replace(cast(Any, node), **changes) if changes else node


def _without_parameter(tree: Tree, index: int, at: int) -> Tree:
    function = tree.functions[index]
    parameters = function.parameters[:at] + function.parameters[at + 1 :]
    functions = [*tree.functions[:index], replace(function, parameters=parameters)]
    for caller in tree.functions[index + 1 :]:
        functions.append(_map_calls(caller, function.name, lambda c: _drop(c, at)))
    return replace(tree, functions=tuple(functions))


def _without_result(tree: Tree, index: int) -> Tree:
    function = tree.functions[index]
    body = _map_blocks(function.body, lambda s: (Return(None),) if isinstance(s, Return) else (s,))
    functions = [*tree.functions[:index], replace(function, result=None, body=body)]
    for caller in tree.functions[index + 1 :]:
        caller = _without_results(caller, function.name)
        functions.append(_map_calls(caller, function.name, lambda c: replace(c, result=None)))
    return replace(tree, functions=tuple(functions))


def _drop(call: Call, at: int) -> Call:
    return replace(call, arguments=call.arguments[:at] + call.arguments[at + 1 :])


def _map_calls(function: Function, name: str, change: Callable[[Call], Call]) -> Function:
    def one(node: Any) -> Any:
        return change(node) if isinstance(node, Call) and node.function == name else node

    return cast(Function, rebuilt(function, one))


def _without_results(function: Function, name: str) -> Function:
    """Return *function* with a constant in the place of arguments that call *name*."""

    def one(node: Any) -> Any:
        match node:
            case Result(call=Call(function=called)) if called == name:
                return Const(U32, 0)
        return node

    return cast(Function, rebuilt(function, one))


def _simpler_global(variable: Global) -> Iterator[Global]:
    for index, value in enumerate(variable.values):
        if value not in (0, 1):
            values = (*variable.values[:index], 1, *variable.values[index + 1 :])
            yield replace(variable, values=values)


def _rewrites(node: Any, *, place: bool = False) -> Iterator[Any]:
    """Yield *node*, a block, a statement or an expression, with one thing less in it.

    What must stay a *place* only loses something in its index.
    """
    if isinstance(node, tuple):
        yield from _rewrites_of_tuple(node)
        return
    if not is_dataclass(node) or isinstance(node, type):
        return
    if isinstance(node, _EXPRESSIONS) and not place:
        yield from _simpler(node)
    for field in fields(node):
        value = getattr(node, field.name)
        for new in _rewrites(value, place=field.name in _PLACES):
            yield replace(node, **{field.name: new})


def _rewrites_of_tuple(nodes: tuple[Any, ...]) -> Iterator[Any]:
    if nodes and type(nodes[0]).__name__ in _STATEMENTS:
        length = len(nodes)
        while length:
            for start in range(0, len(nodes), length):
                yield nodes[:start] + nodes[start + length :]
            length //= 2
        for index, node in enumerate(nodes):
            for unwrapped in _unwrapped(node):
                yield nodes[:index] + unwrapped + nodes[index + 1 :]
    for index, node in enumerate(nodes):
        for new in _rewrites(node):
            yield (*nodes[:index], new, *nodes[index + 1 :])


def _unwrapped(statement: Any) -> Iterator[tuple[Any, ...]]:
    match statement:
        case If(then=then, other=other):
            yield then
            if other:
                yield other
        case CallIf(call=call, then=then, other=other):
            yield (call, *then)
            yield (call, *other)
        case Loop(body=body):
            yield body
        case Switch(cases=cases, default=default):
            yield default
            yield from cases
        case AtomicOp(place=place, value=value):
            yield (Assign(place, value),)


def _simpler(node: Any) -> Iterator[Any]:
    match node:
        case Const(type=kind, value=value):
            for small in (0, 1):
                if value != small or kind != U32:
                    yield Const(U32, small)
            return
        case Cast(operand=operand) | Unary(operand=operand):
            yield operand
        case Binary(left=left, right=right):
            yield left
            yield right
        case Choice(condition=condition, yes=yes, no=no):
            yield from (yes, no, condition)
        case Element(base=Deref() as base):
            yield base
    yield Const(U32, 0)
    yield Const(U32, 1)
