"""Random expressions over the names in scope, and the places that statements write."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.source import signature as under_test
from harness.source.printing import COMPARISONS
from harness.source.tree import (
    BOOL,
    INTEGERS,
    S32,
    U16,
    U32,
    U64,
    WORDS,
    ArrayType,
    Binary,
    Cast,
    Choice,
    Const,
    Deref,
    Element,
    EnumType,
    Expr,
    Field,
    Function,
    Global,
    IntType,
    Name,
    Parameter,
    Place,
    PointerType,
    StructType,
    Type,
    Unary,
    size_of,
)
from harness.source.vectors import boundaries

OR_INDEX = 0.02  # programs that index small arrays on the stack, whose address clang makes with |=
STRADDLES = 16  # bytes of an array on the stack from which on clang adds the index
DEAD = 0.12  # arguments that nothing reads, where that costs no slot


@dataclass(frozen=True, slots=True)
class Variable:
    """A name that statements may use."""

    name: str
    type: Type
    fixed: bool = False  # nothing may write it
    volatile: bool = False
    parameter: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the functions of a program get."""

    statements: int  # beside calls, at most
    locals: int
    depth: int  # of statements in statements
    mixed: int  # numbers of one object that count in the result


@dataclass(slots=True)
class Given:
    """What the bodies of a program's functions are made under."""

    rng: random.Random
    mcpu: str  # the oldest instruction set
    hidden: bool  # clang does not know all callers
    shape: Shape
    types: list[StructType | EnumType] = field(default_factory=list)
    globals: list[Global] = field(default_factory=list)
    functions: dict[str, Function] = field(default_factory=dict)
    or_index: bool = False


def pick(rng: random.Random, choices: Sequence[tuple[int, str]]) -> str:
    """Return one of *choices*, by their weights."""
    draw = rng.randrange(sum(weight for weight, _ in choices))
    for weight, name in choices:
        draw -= weight
        if draw < 0:
            return name
    raise AssertionError("weights are positive")


def constant(rng: random.Random, kind: IntType) -> Const:
    """Return a constant of *kind*, mostly at a boundary."""
    if kind == BOOL:
        return Const(kind, rng.randrange(2))
    if rng.random() < 0.8:
        scalar = under_test.Scalar(kind.name, kind.size, kind.signed)
        return Const(kind, rng.choice(boundaries(scalar)))
    return Const(kind, rng.getrandbits(8 * kind.size))


class Scope:
    """What the statements of one function may name, and what is made of it."""

    def __init__(self, given: Given, parameters: Sequence[Parameter]) -> None:
        """Begin with the file's variables and *parameters*."""
        self.given = given
        self.rng = given.rng
        self.scope = [Variable(g.name, g.type, g.const) for g in given.globals]
        self.scope += [Variable(p.name, p.type, parameter=True) for p in parameters]

    # --- places --------------------------------------------------------------

    def places(self, variable: Variable, depth: int) -> list[tuple[Place, Type]]:
        """Return the scalar places of *variable*."""
        name, kind = variable.name, variable.type
        match kind:
            case IntType() | EnumType():
                return [(Name(name), kind)]
            case ArrayType(element=element, count=count):
                stack = 0 if name.startswith("g") else size_of(kind)
                index = self.index(count, depth, stack=stack)
                return [(Element(Name(name), index, count), element)]
            case StructType():
                return self.members_of(Name(name), kind, depth)
            case PointerType(target=StructType() as target):
                return self.members_of(Deref(name), target, depth)
            case PointerType(target=target, count=1):
                return [(Deref(name), target)]
            case PointerType(target=target, count=count):
                return [(Element(Deref(name), self.index(count, depth), count), target)]

    def members_of(self, base: Place, kind: StructType, depth: int) -> list[tuple[Place, Type]]:
        """Return the scalar places of a struct object."""
        out: list[tuple[Place, Type]] = []
        for member in kind.members:
            place: Place = Field(base, member.name)
            inner: Type = member.type
            if isinstance(inner, ArrayType):
                stack = size_of(inner) if isinstance(base, Name) else 0
                place = Element(place, self.index(inner.count, depth, stack=stack), inner.count)
                inner = inner.element
            out.append((place, inner))
        return out

    def index(self, count: int, depth: int, *, stack: int = 0) -> Expr:
        """Return an index below *count*, of an array of *stack* bytes in the frame or none there.

        clang makes the address of an element with ``|=`` where it knows that no bit of the
        index meets one of the address, and Linux refuses that.
        """
        adds = stack == 0 or stack >= STRADDLES or self.given.or_index
        if depth <= 0 or not adds or self.rng.random() < 0.6:
            return Const(U32, self.rng.randrange(count))
        # clang leaves out the mask of a bool, which Linux does not know to be 0 or 1
        places = [
            place
            for variable in self.scope
            if not variable.volatile
            for place, kind in self.places(variable, 0)
            if kind != BOOL
        ]
        return self.rng.choice(places) if places else Const(U32, self.rng.randrange(count))

    def readable(self, depth: int) -> Expr:
        """Return something to read, a constant if there is nothing."""
        rng = self.rng
        variables = [v for v in self.scope if not v.volatile]
        if not variables:
            return constant(rng, rng.choice(INTEGERS))
        if rng.random() < 0.5:
            variables = [v for v in variables if v.parameter] or variables
        places = self.places(rng.choice(variables), depth)
        return rng.choice(places)[0]

    def writable(self, depth: int, kinds: Sequence[Type] | None = None) -> Place | None:
        """Return a number to write, of one of *kinds*; None if there is none."""
        rng = self.rng
        found = []
        for variable in self.scope:
            kind = variable.type
            if variable.fixed or (isinstance(kind, PointerType) and kind.const):
                continue
            for place, inner in self.places(variable, depth):
                if isinstance(inner, IntType | EnumType) and (kinds is None or inner in kinds):
                    found.append(place)
        return rng.choice(found) if found else None

    # --- expressions ---------------------------------------------------------

    def expr(self, depth: int) -> Expr:
        """Return a number."""
        rng = self.rng
        if depth <= 0:
            if rng.random() < 0.15:
                return constant(rng, rng.choice(INTEGERS))
            return self.readable(0)
        kind = rng.choice(WORDS)
        choice = pick(
            rng,
            [(25, "leaf"), (40, "binary"), (12, "cast"), (8, "unary"), (8, "compare"),
             (5, "choice"), (2, "logic")],
        )  # fmt: skip
        match choice:
            case "binary":
                return self._binary(kind, depth)
            case "cast":
                return Cast(rng.choice((*INTEGERS, BOOL)), self.expr(depth - 1))
            case "unary":
                op = rng.choice(("neg", "not", "lnot", "bswap"))
                kind = rng.choice((U16, U32, U64)) if op == "bswap" else kind
                return Unary(op, kind, self.expr(depth - 1))
            case "compare":
                op = rng.choice(COMPARISONS)
                return Binary(op, kind, self.expr(depth - 1), self.operand(kind, depth - 1))
            case "choice":
                condition = self.condition(depth - 1)
                return Choice(kind, condition, self.expr(depth - 1), self.expr(depth - 1))
            case "logic":
                op = rng.choice(("land", "lor"))
                return Binary(op, S32, self.condition(depth - 1), self.condition(depth - 1))
        return self.readable(depth)

    def _binary(self, kind: IntType, depth: int) -> Expr:
        rng = self.rng
        op = pick(
            rng,
            [(20, "add"), (15, "sub"), (10, "mul"), (12, "and"), (10, "or"), (14, "xor"),
             (8, "shl"), (10, "shr"), (4, "div"), (4, "mod")],
        )  # fmt: skip
        if op in ("div", "mod") and kind.signed and self.given.mcpu < "v4":
            kind = U32 if kind == S32 else U64  # older ones have no signed division
        return Binary(op, kind, self.expr(depth - 1), self.operand(kind, depth - 1))

    def operand(self, kind: IntType, depth: int) -> Expr:
        """Return the right operand of an operator in *kind*."""
        return constant(self.rng, kind) if self.rng.random() < 0.3 else self.expr(depth)

    def condition(self, depth: int) -> Expr:
        """Return something to branch on."""
        kind = self.rng.choice(WORDS)
        op = self.rng.choice(COMPARISONS)
        return Binary(op, kind, self.expr(depth), self.operand(kind, depth))
