"""C programs as trees: what the generator makes, the printer prints and the reducer cuts.

Definedness is a property of the nodes, not of how they were chosen: an operator node means
wrapping arithmetic, masked shifts and guarded division (``printing`` spells that out), an
element node masks its index, a variable is declared with its value. So any tree whose names
are in scope and whose pointers fit (``problems``) is free of undefined behaviour, and one
can cut and change trees without looking at values.

Expressions have no side effects and hold no call; calls are statements of their own, which
fixes the order of evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

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


Argument = Expr | Address | Whole


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
class Fill:
    """memset of an array variable."""

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
    """``__sync_fetch_and_op``, or exchange and compare-and-exchange, of a place of 4 or 8 bytes."""

    op: str  # "add", "or", "and", "xor", "xchg", "cmpxchg"
    place: Place
    value: Expr
    expected: Expr | None = None
    result: Place | None = None  # None: the old value is dropped


@dataclass(frozen=True, slots=True)
class Return:
    """``return value``."""

    value: Expr | Whole | None


Statement = (
    Declare | Assign | CopyObject | Fill | Call | CallIf | If | Loop | Switch | AtomicOp | Return
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
    linkages: tuple[str, ...] = ("hidden", "static")  # of the builds it is meant for

    @property
    def root(self) -> Function:
        """The function under test."""
        return self.functions[-1]


# --- looking at trees ---------------------------------------------------------


def children(node: Any) -> Iterator[Any]:
    """Yield the nodes right below *node*, which is a node or a tuple."""
    if isinstance(node, tuple):
        yield from node
    elif is_dataclass(node):
        for field in fields(node):
            value = getattr(node, field.name)
            if isinstance(value, tuple) or is_dataclass(value):
                yield value


def walk(node: Any) -> Iterator[Any]:
    """Yield every dataclass in *node*, itself included, in order of the text."""
    if is_dataclass(node):
        yield node
    for child in children(node):
        yield from walk(child)


def size(node: Any) -> int:
    """Return the number of nodes, which reduction makes smaller."""
    return sum(1 for _ in walk(node))


def problems(tree: Tree) -> list[str]:
    """Return what makes *tree* no program: names out of scope, pointers that do not fit."""
    out: list[str] = []
    known: dict[str, Function] = {}
    types = {t.name: t for t in tree.types}
    outer: dict[str, Type] = {g.name: g.type for g in tree.globals}
    fixed = {g.name for g in tree.globals if g.const}
    if not tree.functions:
        return ["no function"]
    for function in tree.functions:
        if function.slots > 12:
            out.append(f"{function.name}: {function.slots} slots")
        for kind in [p.type for p in function.parameters] + [function.result]:
            base = kind.target if isinstance(kind, PointerType) else kind
            if isinstance(base, StructType | EnumType) and types.get(base.name) != base:
                out.append(f"{function.name}: no type {base.name}")
        scope = _Scope(dict(outer), set(fixed), known, function, types, out)
        for parameter in function.parameters:
            scope.names[parameter.name] = parameter.type
        scope.block(function.body)
        if function.result is not None and not _returns(function.body):
            out.append(f"{function.name}: does not end in return")
        known[function.name] = function
    return out


def _returns(body: tuple[Statement, ...]) -> bool:
    return bool(body) and isinstance(body[-1], Return)


@dataclass(slots=True)
class _Scope:
    """What the statements of one function may name."""

    names: dict[str, Type]
    fixed: set[str]  # what nothing may write
    functions: dict[str, Function]
    function: Function
    types: dict[str, StructType | EnumType]
    out: list[str]

    def wrong(self, text: str) -> None:
        self.out.append(f"{self.function.name}: {text}")

    def block(self, body: tuple[Statement, ...]) -> None:
        names, fixed = dict(self.names), set(self.fixed)
        for statement in body:
            self.statement(statement)
        self.names, self.fixed = names, fixed

    def statement(self, statement: Statement) -> None:
        match statement:
            case Declare(name=name, type=kind, values=values):
                for value in values:
                    self.scalar(value)
                if isinstance(kind, StructType | EnumType) and self.types.get(kind.name) != kind:
                    self.wrong(f"no type {kind.name}")
                if not isinstance(kind, ArrayType | StructType) and len(values) != 1:
                    self.wrong(f"{name} needs a value")
                self.names[name] = kind
            case Assign(place=place, value=value):
                self.scalar(value)
                self.writable(place)
            case CopyObject(place=place, other=other):
                a, b = self.writable(place, whole=True), self.place(other)
                if a != b or not isinstance(a, StructType):
                    self.wrong("a copy of two types")
                if statement.memcpy and root(place) == root(other):
                    self.wrong("a copy within one object")
            case Fill(name=name):
                if not isinstance(self.names.get(name), ArrayType) or name in self.fixed:
                    self.wrong(f"{name} is no array")
            case Call():
                self.call(statement)
            case CallIf(call=call, then=then, other=other):
                result = self.call(call)
                if not isinstance(result, IntType | EnumType):
                    self.wrong("a condition on no number")
                self.block(then)
                self.block(other)
            case If(condition=condition, then=then, other=other):
                self.scalar(condition)
                self.block(then)
                self.block(other)
            case Loop(name=name, body=body):
                self.names[name] = U64
                self.fixed.add(name)
                self.block(body)
                del self.names[name]
            case Switch(value=value, cases=cases, default=default):
                self.scalar(value)
                for body in (*cases, default):
                    self.block(body)
            case AtomicOp(place=place, value=value, expected=expected, result=result):
                self.scalar(value)
                if expected is not None:
                    self.scalar(expected)
                if self.writable(place) not in WORDS:
                    self.wrong("an atomic operation on no word")
                if result is not None:
                    self.writable(result)
            case Return(value=value):
                self.returned(value)

    def returned(self, value: Expr | Whole | None) -> None:
        want = self.function.result
        match value:
            case None:
                if want is not None:
                    self.wrong("returns nothing")
            case Whole(place=place):
                if self.place(place) != want:
                    self.wrong("returns another struct")
            case _:
                self.scalar(value)
                if want is None or isinstance(want, StructType):
                    self.wrong("returns a number")

    def call(self, call: Call) -> Value | None:
        callee = self.functions.get(call.function)
        if callee is None:
            self.wrong(f"no function {call.function}")
            return None
        if len(callee.parameters) != len(call.arguments):
            self.wrong(f"{call.function} takes other arguments")
        for parameter, argument in zip(callee.parameters, call.arguments, strict=False):
            self.argument(parameter.type, argument)
        if call.result is not None:
            kind = self.writable(call.result, whole=True)
            struct = isinstance(kind, StructType) or isinstance(callee.result, StructType)
            if callee.result is None or (struct and kind != callee.result):
                self.wrong(f"{call.function} returns something else")
        return callee.result

    def argument(self, want: Value | PointerType, argument: Argument) -> None:
        match want, argument:
            case PointerType(target=target, count=count, const=const), Address(place=place):
                kind, extent = self.extent(place)
                if kind != target or extent < count:
                    self.wrong(f"a pointer to {extent} of {kind}")
                if not const and self.is_const(place):
                    self.wrong("a pointer to a constant")
            case StructType(), Whole(place=place):
                if self.place(place) != want:
                    self.wrong("a struct of another type")
            case (PointerType() | StructType(), _) | (_, Address() | Whole()):
                self.wrong("an argument of another kind")
            case _, (Const() | Name() | Field() | Element() | Deref() | Cast() | Binary()
                     | Unary() | Choice()):  # fmt: skip
                self.scalar(argument)

    def extent(self, place: Place) -> tuple[Type | None, int]:
        """Return what ``&place`` points to, and how many of them lie there."""
        if isinstance(place, Element):
            kind = self.place(place)
            start = place.index.value if isinstance(place.index, Const) else place.count - 1
            return kind, place.count - (start & (place.count - 1))
        if isinstance(place, Deref):
            pointer = self.names.get(place.name)
            self.place(place)
            return (
                (pointer.target, pointer.count) if isinstance(pointer, PointerType) else (None, 0)
            )
        return self.place(place), 1

    def is_const(self, place: Place) -> bool:
        name = root(place)
        kind = self.names.get(name)
        return name in self.fixed or (isinstance(kind, PointerType) and kind.const)

    def writable(self, place: Place, *, whole: bool = False) -> Type | None:
        if self.is_const(place):
            self.wrong(f"writes {root(place)}")
        kind = self.place(place)
        if not whole and not isinstance(kind, IntType | EnumType):
            self.wrong(f"writes {root(place)} as a number")
        return kind

    def scalar(self, expr: Expr) -> None:
        """Check every place that *expr* reads."""
        match expr:
            case Name() | Field() | Element() | Deref():
                if not isinstance(self.place(expr), IntType | EnumType):
                    self.wrong(f"reads {root(expr)} as a number")
            case Cast(operand=operand) | Unary(operand=operand):
                self.scalar(operand)
            case Binary(left=left, right=right):
                self.scalar(left)
                self.scalar(right)
            case Choice(condition=condition, yes=yes, no=no):
                self.scalar(condition)
                self.scalar(yes)
                self.scalar(no)

    def place(self, place: Place) -> Type | None:
        """Return the type of *place*, None where there is none."""
        kind: Type | None = None
        match place:
            case Name(name=name):
                kind = self.names.get(name)
                if isinstance(kind, PointerType):
                    kind = None
            case Deref(name=name):
                pointer = self.names.get(name)
                kind = pointer.target if isinstance(pointer, PointerType) else None
            case Field(base=base, member=member):
                outer = self.place(base)
                if isinstance(outer, StructType):
                    kind = next((m.type for m in outer.members if m.name == member), None)
            case Element(base=base, index=index, count=count):
                self.scalar(index)
                if isinstance(base, Deref):
                    pointer = self.names.get(base.name)
                    if isinstance(pointer, PointerType) and count <= pointer.count:
                        kind = pointer.target
                else:
                    array = self.place(base)
                    if isinstance(array, ArrayType) and count <= array.count:
                        kind = array.element
        if kind is None:
            self.wrong(f"no place {place}")
        return kind


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
