"""C programs as trees: what the generator makes, the printer prints and the reducer cuts.

Definedness is a property of the nodes, not of how they were chosen: an operator node means
wrapping arithmetic, masked shifts and guarded division (``printing`` spells that out), an
element node masks its index, a variable is declared with its value. So any tree whose names
are in scope and whose pointers fit (``scope.problems``) is free of undefined behaviour, and one
can cut and change trees without looking at values.

Expressions have no side effects and hold no call; calls are statements of their own, which
fixes the order of evaluation. Only a call of a function that writes nothing of its caller's
may be an argument (``Result``), where the order does not show.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from harness.model import LINKAGES, OPTS

# --- types --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IntType:
    """An integer type of C, by the name it is printed with."""

    name: str  # "u8" to "u64", "s8" to "s64", "bool"
    size: int  # bytes
    signed: bool = False


# fmt: off
BOOL = IntType("bool", 1)
U8,  S8  = IntType("u8", 1),  IntType("s8", 1, True)
U16, S16 = IntType("u16", 2), IntType("s16", 2, True)
U32, S32 = IntType("u32", 4), IntType("s32", 4, True)
U64, S64 = IntType("u64", 8), IntType("s64", 8, True)
# fmt: on
INTEGERS = (U8, S8, U16, S16, U32, S32, U64, S64)
WORDS = (U32, S32, U64, S64)  # what operators compute in


@dataclass(frozen=True, slots=True)
class EnumType:
    """An enum; its values tell whether C gives it a signed type."""

    name: str
    values: tuple[int, ...]  # 32 bits

    @property
    def size(self) -> int:
        """Bytes."""
        return 4

    @property
    def signed(self) -> bool:
        """Whether the type that stands for it is signed."""
        return min(self.values) < 0


@dataclass(frozen=True, slots=True)
class ArrayType:
    """An array; *count* is a power of two, so that an index can be masked."""

    element: IntType
    count: int


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a struct or a union."""

    name: str
    type: IntType | EnumType | ArrayType


@dataclass(frozen=True, slots=True)
class StructType:
    """A struct, or a union whose members are all of one size (so that none has padding)."""

    name: str
    members: tuple[Member, ...]
    union: bool = False


@dataclass(frozen=True, slots=True)
class PointerType:
    """A pointer to *count* objects, a power of two."""

    target: IntType | EnumType | StructType
    count: int = 1
    const: bool = False


Value = IntType | EnumType | StructType  # what can be passed and returned
Type = Value | ArrayType | PointerType


def size_of(kind: Type) -> int:
    """Return the size of *kind* in bytes."""
    match kind:
        case IntType() | EnumType():
            return kind.size
        case ArrayType(element=element, count=count):
            return element.size * count
        case PointerType():
            return 8
        case StructType(members=members, union=union):
            if union:
                return max(size_of(m.type) for m in members)
            return struct_layout(kind)[1]


def align_of(kind: Type) -> int:
    """Return the alignment of *kind* in bytes, the same on BPF and x86-64."""
    match kind:
        case ArrayType(element=element):
            return element.size
        case StructType(members=members):
            return max(align_of(m.type) for m in members)
    return size_of(kind)


def struct_layout(kind: StructType) -> tuple[tuple[int, ...], int]:
    """Return the offset of each member, and the size, in bytes."""
    offsets, end = [], 0
    for member in kind.members:
        align = align_of(member.type)
        at = 0 if kind.union else -(-end // align) * align
        offsets.append(at)
        end = max(end, at + size_of(member.type))
    return tuple(offsets), -(-end // align_of(kind)) * align_of(kind)


def leaves_of(kind: Type) -> Iterator[tuple[int, IntType | EnumType]]:
    """Yield the numbers in *kind*, no pointer, each with its offset in bytes."""
    match kind:
        case IntType() | EnumType():
            yield 0, kind
        case ArrayType(element=element, count=count):
            for index in range(count):
                yield index * element.size, element
        case StructType(members=members):
            for member, at in zip(members, struct_layout(kind)[0], strict=True):
                for offset, leaf in leaves_of(member.type):
                    yield at + offset, leaf


def has_bool(kind: Type) -> bool:
    """Return whether a bool is in *kind*, which not all bytes are valid for."""
    return any(leaf == BOOL for _, leaf in leaves_of(kind))


def all_bytes(kind: Type) -> bool:
    """Return whether every byte of *kind* is part of a number that all bytes are valid for."""
    if isinstance(kind, PointerType) or has_bool(kind):
        return False
    covered = {at + n for at, leaf in leaves_of(kind) for n in range(leaf.size)}
    return len(covered) == size_of(kind)


def slots_of(kind: Type) -> int:
    """Return how many argument slots a parameter of *kind* takes."""
    return 2 if size_of(kind) > 8 else 1


# --- expressions: no side effects --------------------------------------------


@dataclass(frozen=True, slots=True)
class Const:
    """A number of a type; *value* is cut to it."""

    type: IntType
    value: int


@dataclass(frozen=True, slots=True)
class Name:
    """A variable or a parameter; a global one where *name* begins with ``g``."""

    name: str


@dataclass(frozen=True, slots=True)
class Field:
    """A member of a struct object."""

    base: Place
    member: str


@dataclass(frozen=True, slots=True)
class Element:
    """An element of an array object, or of what a pointer points to; the index is masked."""

    base: Place
    index: Expr
    count: int


@dataclass(frozen=True, slots=True)
class Deref:
    """What the pointer variable *name* points to."""

    name: str


Place = Name | Field | Element | Deref


@dataclass(frozen=True, slots=True)
class Cast:
    """A conversion."""

    type: IntType
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary:
    """``left op right``, computed in *type* (a word), wrapping.

    Shifts count modulo the width; divisors are made valid. A comparison gives 0 or 1.
    """

    op: str  # a key of printing.OPERATORS
    type: IntType
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Unary:
    """``neg``, ``not`` (bitwise), ``lnot``, ``bswap``; computed in *type*."""

    op: str
    type: IntType
    operand: Expr


@dataclass(frozen=True, slots=True)
class Choice:
    """``condition ? yes : no``, of *type*."""

    type: IntType
    condition: Expr
    yes: Expr
    no: Expr


Expr = Const | Name | Field | Element | Deref | Cast | Binary | Unary | Choice


@dataclass(frozen=True, slots=True)
class Address:
    """``&place``: an argument for a pointer parameter."""

    place: Place


@dataclass(frozen=True, slots=True)
class Whole:
    """A struct object by value: an argument, or what is returned."""

    place: Place


@dataclass(frozen=True, slots=True)
class Result:
    """What a pure function returns, as an argument of another call."""

    call: Call


Argument = Expr | Address | Whole | Result


# --- statements ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Declare:
    """``type name = value``; an array or a struct starts as its *values*, the rest as zero."""

    name: str
    type: IntType | EnumType | ArrayType | StructType
    values: tuple[Expr, ...]
    volatile: bool = False


@dataclass(frozen=True, slots=True)
class Assign:
    """``place = value``."""

    place: Place
    value: Expr


@dataclass(frozen=True, slots=True)
class CopyObject:
    """``place = other`` of two structs, or memcpy of them; never parts of one object."""

    place: Place
    other: Place
    memcpy: bool = False


@dataclass(frozen=True, slots=True)
class CopyBytes:
    """memcpy between two objects of one size and of any types without padding and bool."""

    place: Place
    other: Place


@dataclass(frozen=True, slots=True)
class Fill:
    """memset of an array or a struct variable; with a bool in it to 0 only."""

    name: str
    byte: int


@dataclass(frozen=True, slots=True)
class Call:
    """``result = function(arguments)``; the result of a scalar function may be dropped."""

    function: str
    arguments: tuple[Argument, ...]
    result: Place | None = None


@dataclass(frozen=True, slots=True)
class CallIf:
    """``if (function(arguments) op value) ...``."""

    call: Call
    op: str
    type: IntType
    value: Const
    then: tuple[Statement, ...]
    other: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class If:
    """``if (condition) ... else ...``."""

    condition: Expr
    then: tuple[Statement, ...]
    other: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class Loop:
    """``for (u64 name = 0; name < count; name++) ...``.

    The counter has 64 bits: at -O0 it lives on the stack, where Linux keeps track of whole
    slots only, and would otherwise see a loop without end.
    """

    name: str
    count: int
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Switch:
    """``switch (value & mask)`` with a case for each of *cases*, which break."""

    value: Expr
    mask: int
    cases: tuple[tuple[Statement, ...], ...]
    default: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class AtomicOp:
    """``__sync_fetch_and_op``, or exchange and compare-and-exchange, of a place of 4 or 8 bytes.

    An acquiring load, which has no value, and a releasing store are of any integer.
    """

    op: str  # "add", "or", "and", "xor", "xchg", "cmpxchg", "load", "store"
    place: Place
    value: Expr
    expected: Expr | None = None
    result: Place | None = None  # None: the old value is dropped


@dataclass(frozen=True, slots=True)
class Return:
    """``return value``."""

    value: Expr | Whole | None


Statement = (
    Declare
    | Assign
    | CopyObject
    | CopyBytes
    | Fill
    | Call
    | CallIf
    | If
    | Loop
    | Switch
    | AtomicOp
    | Return
)


# --- functions and programs --------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter."""

    name: str
    type: Value | PointerType


@dataclass(frozen=True, slots=True)
class Function:
    """A function; it calls only functions before it."""

    name: str
    parameters: tuple[Parameter, ...]
    result: Value | None
    body: tuple[Statement, ...]
    static: bool = True
    noinline: bool = True
    weak: bool = False  # clang knows its callers to be unknown, and keeps arguments it ignores

    @property
    def slots(self) -> int:
        """Argument slots: registers and stack slots together."""
        return sum(slots_of(p.type) for p in self.parameters)


@dataclass(frozen=True, slots=True)
class Global:
    """A variable of the file."""

    name: str
    type: IntType | ArrayType
    values: tuple[int, ...]
    const: bool = False


@dataclass(frozen=True, slots=True)
class Tree:
    """A program: the last function is the one under test."""

    types: tuple[StructType | EnumType, ...]
    globals: tuple[Global, ...]
    functions: tuple[Function, ...]
    mcpu: str = "v1"  # the oldest instruction set that has what it uses
    linkages: tuple[str, ...] = LINKAGES  # of the builds it is meant for
    opts: tuple[str, ...] = OPTS  # the same: -O0 has frames that not every chain of calls fits

    @property
    def root(self) -> Function:
        """The function under test."""
        return self.functions[-1]


# --- looking at trees ---------------------------------------------------------


def closure(one: Tree, function: Function) -> tuple[Function, ...]:
    """Return *function* of *one* and all that it calls, in order: itself the last."""
    reached, found = {function.name}, list[Function]()
    for each in reversed(one.functions):
        if each.name in reached:
            reached |= {node.function for node in walk(each.body) if isinstance(node, Call)}
            found.append(each)
    return tuple(reversed(found))


@functools.cache
def names_of(kind: type) -> tuple[str, ...]:
    """Return the fields of a dataclass, none of another type."""
    return tuple(f.name for f in fields(kind)) if is_dataclass(kind) else ()


@functools.cache
def _parts(kind: type) -> Callable[[Any], tuple[Any, ...]] | None:
    """Return what gives the fields of a dataclass, the last first; None: it has none."""
    names = names_of(kind)[::-1]
    if len(names) < 2:
        return (lambda node: (getattr(node, names[0]),)) if names else None
    return operator.attrgetter(*names)


def walk(node: Any) -> Iterator[Any]:
    """Yield every dataclass in *node*, itself included, in order of the text."""
    left = [node]
    pop, extend = left.pop, left.extend
    while left:
        node = pop()
        kind = type(node)
        if kind is tuple:
            extend(node[::-1])
        elif parts := _parts(kind):  # type: ignore[arg-type]
            yield node
            extend(parts(node))


def rebuilt(node: Any, change: Callable[[Any], Any]) -> Any:
    """Return *node* with every dataclass in it replaced by what *change* says, innermost first."""
    if isinstance(node, tuple):
        return tuple(rebuilt(each, change) for each in node)
    names = names_of(type(node))  # type: ignore[arg-type]
    if not names:
        return node
    changes = {}
    for name in names:
        old = getattr(node, name)
        new = rebuilt(old, change)
        if new is not old and new != old:
            changes[name] = new
    return change(replace(node, **changes) if changes else node)


def size(node: Any) -> int:
    """Return the number of nodes, which reduction makes smaller."""
    return sum(1 for _ in walk(node))


# --- trees in JSON ------------------------------------------------------------


def to_json(node: Any) -> Any:
    """Return *node* as JSON values: a node is a list that begins with its class's name."""
    if isinstance(node, tuple):
        return [None, *map(to_json, node)]
    if is_dataclass(node):
        return [type(node).__name__, *(to_json(getattr(node, f.name)) for f in fields(node))]
    return node


def from_json(data: Any) -> Any:
    """Return the node that ``to_json`` wrote; raises ValueError for what is none."""
    if not isinstance(data, list):
        return data
    name, *values = data
    values = [from_json(value) for value in values]
    if name is None:
        return tuple(values)
    kind = globals().get(name)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise ValueError(f"no node {name!r}")
    try:
        return kind(*values)
    except TypeError as error:
        raise ValueError(str(error)) from None


def root(place: Place) -> str:
    """Return the name of the variable that *place* is in, or is reached through."""
    while not isinstance(place, Name | Deref):
        place = place.base
    return place.name
