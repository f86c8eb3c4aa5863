"""Random C programs about the passing of arguments, free of undefined behaviour.

``generate(seed, number)`` is one program, the same in every process. What makes a tree
defined is said in ``tree``; here is chosen what to try: signatures that mix widths, signs,
structs and pointers over registers and stack slots, chains and fans of calls, arguments
forwarded in other places and other widths, and enough arithmetic that a wrong byte of any
argument shows in the result.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from harness.source import signature as under_test
from harness.source.printing import COMPARISONS, print_file
from harness.source.tree import (
    BOOL,
    INTEGERS,
    S8,
    S16,
    S32,
    S64,
    U8,
    U16,
    U32,
    U64,
    WORDS,
    Address,
    Argument,
    ArrayType,
    Assign,
    AtomicOp,
    Binary,
    Call,
    CallIf,
    Cast,
    Choice,
    Const,
    CopyObject,
    Declare,
    Deref,
    Element,
    EnumType,
    Expr,
    Field,
    Fill,
    Function,
    Global,
    If,
    IntType,
    Loop,
    Member,
    Name,
    Parameter,
    Place,
    PointerType,
    Return,
    Statement,
    StructType,
    Switch,
    Tree,
    Type,
    Unary,
    Value,
    Whole,
    size_of,
    slots_of,
    struct_layout,
    walk,
)
from harness.source.vectors import boundaries

_PARAMETERS = ((60, "int"), (12, "pointer"), (12, "struct"), (5, "enum"), (6, "bool"))
CPUS = ("v1", "v1", "v1", "v1", "v3", "v4")  # the oldest instruction set a program is for
MAX_SLOTS = 12
FRAMES = 7  # below the driver, which is the first of eight
STACK = 512 - 64  # bytes of the call chain, less what the driver has
# What an unoptimised frame was seen to take beyond its variables.
OVERHEAD = 96
VARIABLE = 0.06  # programs with variable indices, whose addresses clang makes with |= at times
NARROW = 0.1  # programs with signed arguments of less than 32 bits in slots (docs/notes/grow.md)
DEAD = 0.02  # functions that ignore an argument in a slot, whose calls clang then leaves bare


def generate(seed: int, number: int) -> Tree:
    """Return program *number* of *seed*."""
    rng = random.Random(f"crosscheck:{seed}:{number}")
    return _Program(rng).tree()


@dataclass(frozen=True, slots=True)
class _Variable:
    """A name that statements may use."""

    name: str
    type: Type
    fixed: bool = False  # nothing may write it
    volatile: bool = False
    parameter: bool = False


def _pick(rng: random.Random, choices: Sequence[tuple[int, str]]) -> str:
    total = sum(weight for weight, _ in choices)
    draw = rng.randrange(total)
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


class _Program:
    """The choices of one program."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.mcpu = rng.choice(CPUS)
        # Where clang knows all callers of a function it takes the argument that all of them
        # agree on out of the call; Linux, which counts by prototype, then misses its slot.
        self.hidden = rng.random() < 0.75
        self.variable = rng.random() < VARIABLE
        self.narrow = rng.random() < NARROW
        self.types: list[StructType | EnumType] = []
        self.globals: list[Global] = []
        self.functions: list[Function] = []
        self.depths: dict[str, int] = {}  # calls below a function
        self.stacks: dict[str, int] = {}  # bytes of the deepest chain, estimated
        self.called: set[str] = set()

    def tree(self) -> Tree:
        """Return the program."""
        rng = self.rng
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            self.types.append(self._struct(f"t{len(self.types)}"))
        if rng.random() < 0.3:
            self.types.append(self._enum(f"t{len(self.types)}"))
        if rng.random() < 0.35:
            self._add_globals()
        many = _pick(rng, [(15, "1"), (30, "2"), (25, "3"), (15, "4"), (8, "6"), (7, "7")])
        count = int(many)
        for index in range(count):
            self._function(index, last=index == count - 1, small=count > 4)
        used = {kind for f in self.functions for kind in _named_types(f)}
        return Tree(
            tuple(t for t in self.types if t in used),
            tuple(self.globals),
            tuple(self.functions),
            self.mcpu,
            ("hidden",) if self.hidden else ("hidden", "static"),
        )

    # --- types ---------------------------------------------------------------

    def _struct(self, name: str) -> StructType:
        rng = self.rng
        if rng.random() < 0.2:
            size = rng.choice((4, 8))
            views = [ArrayType(U8, size), ArrayType(U16, size // 2)]
            whole = (U32, S32) if size == 4 else (U64, S64, ArrayType(U32, 2))
            kinds = [rng.choice(whole), *rng.sample(views, rng.randrange(1, 3))]
            return StructType(name, tuple(Member(f"m{i}", k) for i, k in enumerate(kinds)), True)
        limit = rng.choice((4, 8, 8, 8, 16, 24))
        members: list[Member] = []
        for index in range(rng.randrange(1, 6)):
            kind: IntType | ArrayType = rng.choice((*INTEGERS, BOOL))
            if rng.random() < 0.15 and limit > 4:
                kind = ArrayType(rng.choice((U8, S8, U16, S16)), 2)
            wider = StructType(name, (*members, Member(f"m{index}", kind)))
            if size_of(wider) <= limit:
                members = list(wider.members)
        return StructType(name, tuple(members or [Member("m0", rng.choice((U8, S16, S32)))]))

    def _enum(self, name: str) -> EnumType:
        low = self.rng.choice((0, 0, -3))
        return EnumType(name, tuple(range(low, low + self.rng.randrange(2, 6))))

    def _add_globals(self) -> None:
        rng = self.rng
        for index in range(rng.randrange(1, 3)):
            kind = rng.choice(INTEGERS)
            const = rng.random() < 0.5
            count = rng.choice((4, 8)) if const or rng.random() < 0.5 else 1
            values = tuple(constant(rng, kind).value for _ in range(count))
            shape = ArrayType(kind, count) if count > 1 else kind
            self.globals.append(Global(f"g{index}", shape, values, const))

    # --- signatures ----------------------------------------------------------

    def _parameters(self, root: bool, small: bool) -> tuple[Parameter, ...]:
        rng = self.rng
        low, high = (6, MAX_SLOTS) if root or rng.random() < 0.8 else (1, 6)
        want = rng.randint(low, high if not small else min(high, 9))
        structs = [t for t in self.types if isinstance(t, StructType) and size_of(t) <= 8]
        wide = [t for t in self.types if isinstance(t, StructType) and 8 < size_of(t) <= 16]
        enums = [t for t in self.types if isinstance(t, EnumType)]
        kinds: list[Value | PointerType] = []
        pointees = 0
        if rng.random() < 0.02 and wide:  # Linux refuses them beside stack arguments
            kinds.append(rng.choice(wide))
        while sum(map(slots_of, kinds)) < want:
            match _pick(
                rng, [(60, "int"), (12, "pointer"), (12, "struct"), (5, "enum"), (6, "bool")]
            ):
                case "struct" if structs:
                    kinds.append(rng.choice(structs))
                case "enum" if enums:
                    kinds.append(rng.choice(enums))
                case "bool":
                    kinds.append(BOOL)
                case "pointer":
                    pointer = self._pointer()
                    size = pointer.count * size_of(pointer.target)
                    if pointees + size > (48 if root else 96) or (small and size > 8):
                        continue
                    pointees += -(-size // 8) * 8
                    kinds.append(pointer)
                case _:
                    kinds.append(rng.choice(INTEGERS))
        rng.shuffle(kinds)
        if any(size_of(k) > 8 for k in kinds):
            # in registers, they are accepted
            kinds.sort(key=lambda k: -size_of(k) if isinstance(k, StructType) else 0)
            while sum(map(slots_of, kinds)) > 5 and rng.random() < 0.9:
                kinds.pop()
        if not self.narrow:
            ends = accumulate(map(slots_of, kinds))
            kinds = [_unsigned(k) if end > 5 else k for k, end in zip(kinds, ends, strict=True)]
        return tuple(Parameter(f"a{i}", kind) for i, kind in enumerate(kinds))

    def _pointer(self) -> PointerType:
        rng = self.rng
        const = rng.random() < 0.35
        if rng.random() < 0.35 and self.types:
            return PointerType(rng.choice(self.types), 1, const)
        kind = rng.choice(INTEGERS)
        return PointerType(kind, rng.choice((1, 1, 1, 2, 4)) if kind.size < 8 else 1, const)

    def _result(self, parameters: tuple[Parameter, ...]) -> Value | None:
        rng = self.rng
        choice = _pick(rng, [(70, "int"), (8, "struct"), (4, "enum"), (5, "bool"), (10, "void")])
        structs = [t for t in self.types if isinstance(t, StructType) and size_of(t) <= 8]
        enums = [t for t in self.types if isinstance(t, EnumType)]
        if choice == "struct" and structs:
            return rng.choice(structs)
        if choice == "enum" and enums:
            return rng.choice(enums)
        if choice == "bool":
            return BOOL
        writes = any(isinstance(p.type, PointerType) and not p.type.const for p in parameters)
        if choice == "void" and writes:
            return None
        return rng.choice((*INTEGERS, U64, U64, U32, S64, S32))

    # --- functions -----------------------------------------------------------

    def _function(self, index: int, *, last: bool, small: bool) -> None:
        rng = self.rng
        parameters = self._parameters(last, small)
        uncalled = [f for f in self.functions if f.name not in self.called]
        chosen = [f for f in uncalled if last or rng.random() < 0.6]
        if not small and self.functions and rng.random() < 0.3:
            chosen.append(rng.choice(self.functions))
        chosen = [f for f in chosen if self.depths[f.name] + 1 < FRAMES]
        name = f"f{index}"
        body = _Body(self, parameters, self._result(parameters), chosen, small)
        statements = body.statements()
        frame = OVERHEAD + sum(-(-size_of(p.type) // 8) * 8 for p in parameters) + body.locals
        below = max((self.stacks[f.name] for f in chosen), default=0)
        self.functions.append(
            Function(
                name,
                parameters,
                body.result,
                statements,
                static=not last and not self.hidden,
                noinline=last or rng.random() < 0.75,
            )
        )
        self.called.update(f.name for f in chosen)
        self.depths[name] = 1 + max((self.depths[f.name] for f in chosen), default=0)
        self.stacks[name] = frame + below


class _Body:
    """The choices of one function."""

    def __init__(
        self,
        program: _Program,
        parameters: tuple[Parameter, ...],
        result: Value | None,
        callees: Sequence[Function],
        small: bool,
    ) -> None:
        self.program = program
        self.rng = program.rng
        self.result = result
        self.small = small
        self.callees = list(callees)
        self.scope: list[_Variable] = [_Variable(g.name, g.type, g.const) for g in program.globals]
        self.scope += [_Variable(p.name, p.type, parameter=True) for p in parameters]
        self.parameters = parameters
        self.names = 0
        self.locals = 0  # bytes
        self.loops = 0  # nested ones we are in
        budget = STACK - max((program.stacks[f.name] for f in callees), default=0)
        self.room = max(16, budget - OVERHEAD - 8 * len(parameters))

    def statements(self) -> tuple[Statement, ...]:
        """Return the body."""
        rng = self.rng
        out: list[Statement] = []
        acc = self._declare(out, U64, (constant(rng, U64),))
        dead = rng.random() < DEAD
        out += self._mix(acc, [v for v in self._needed() if not (dead and rng.random() < 0.3)])
        for _ in range(rng.randrange(0, 2 if self.small else 4)):
            out += self._local()
        calls = list(self.callees)
        for _ in range(rng.randrange(1, 3 if self.small else 6)):
            out += self._statement(2)
            if calls and rng.random() < 0.6:
                out += self._call_statement(calls.pop(), acc)
        while calls:
            out += self._call_statement(calls.pop(), acc)
        out += self._mix(acc, [v for v in self.scope if v.name != acc and rng.random() < 0.85])
        out += self._write_back(acc)
        out += self._return(acc)
        return tuple(out)

    # --- variables -----------------------------------------------------------

    def _declare(
        self,
        out: list[Statement],
        kind: IntType | EnumType | ArrayType | StructType,
        values: tuple[Expr, ...],
        *,
        volatile: bool = False,
    ) -> str:
        name = f"v{self.names}"
        self.names += 1
        self.locals += -(-size_of(kind) // 8) * 8
        out.append(Declare(name, kind, values, volatile))
        self.scope.append(_Variable(name, kind, volatile=volatile))
        return name

    def _object(self, out: list[Statement], kind: Value | ArrayType) -> str:
        """Declare an object of *kind* with values."""
        match kind:
            case ArrayType(element=element, count=count):
                values = tuple(self._value(element) for _ in range(min(count, 4)))
            case StructType(members=members):
                first = members[0].type
                if isinstance(first, ArrayType) or any(
                    isinstance(m.type, ArrayType) for m in members
                ):
                    values = ()
                elif kind.union:
                    values = (self._value(first),)
                else:
                    values = tuple(self._value(m.type) for m in members)
            case _:
                values = (self._value(kind),)
        return self._declare(out, kind, values)

    def _value(self, kind: Type) -> Expr:
        if isinstance(kind, IntType) and self.rng.random() < 0.25:
            return constant(self.rng, kind)
        return self.expr(1)

    def _local(self) -> list[Statement]:
        rng, out = self.rng, list[Statement]()
        if self.locals + 16 > self.room:
            return out
        match _pick(rng, [(60, "int"), (12, "array"), (15, "struct"), (8, "volatile")]):
            case "array":
                kind = rng.choice((U8, S8, U16, S16, U32, S32))
                self._object(out, ArrayType(kind, rng.choice((2, 4))))
            case "struct" if self.program.types:
                self._object(out, rng.choice(self.program.types))
            case "volatile":
                self._declare(out, rng.choice(INTEGERS), (self.expr(1),), volatile=True)
            case _:
                self._declare(out, rng.choice(INTEGERS), (self.expr(2),))
        return out

    # --- places --------------------------------------------------------------

    def _places(self, variable: _Variable, depth: int) -> list[tuple[Place, Type]]:
        """Return the scalar places of *variable*."""
        name, kind = variable.name, variable.type
        match kind:
            case IntType() | EnumType():
                return [(Name(name), kind)]
            case ArrayType(element=element, count=count):
                return [(Element(Name(name), self._index(count, depth), count), element)]
            case StructType():
                return self._members(Name(name), kind, depth)
            case PointerType(target=StructType() as target):
                return self._members(Deref(name), target, depth)
            case PointerType(target=target, count=1):
                return [(Deref(name), target)]
            case PointerType(target=target, count=count):
                return [(Element(Deref(name), self._index(count, depth), count), target)]

    def _members(self, base: Place, kind: StructType, depth: int) -> list[tuple[Place, Type]]:
        out: list[tuple[Place, Type]] = []
        for member in kind.members:
            place: Place = Field(base, member.name)
            inner: Type = member.type
            if isinstance(inner, ArrayType):
                place = Element(place, self._index(inner.count, depth), inner.count)
                inner = inner.element
            out.append((place, inner))
        return out

    def _index(self, count: int, depth: int) -> Expr:
        if depth <= 0 or not self.program.variable or self.rng.random() < 0.7:
            return Const(U32, self.rng.randrange(count))
        return self.expr(depth - 1)

    def _readable(self, depth: int) -> Expr:
        """Return something to read, a constant if there is nothing."""
        rng = self.rng
        variables = [v for v in self.scope if not v.volatile]
        if not variables:
            return constant(rng, rng.choice(INTEGERS))
        if rng.random() < 0.5:
            variables = [v for v in variables if v.parameter] or variables
        places = self._places(rng.choice(variables), depth)
        return rng.choice(places)[0]

    def _writable(self, depth: int, kinds: Sequence[Type] | None = None) -> Place | None:
        rng = self.rng
        found = []
        for variable in self.scope:
            kind = variable.type
            if variable.fixed or (isinstance(kind, PointerType) and kind.const):
                continue
            for place, inner in self._places(variable, depth):
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
            return self._readable(0)
        kind = rng.choice(WORDS)
        choice = _pick(
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
                return Binary(op, kind, self.expr(depth - 1), self._operand(kind, depth - 1))
            case "choice":
                condition = self.condition(depth - 1)
                return Choice(kind, condition, self.expr(depth - 1), self.expr(depth - 1))
            case "logic":
                op = rng.choice(("land", "lor"))
                return Binary(op, S32, self.condition(depth - 1), self.condition(depth - 1))
        return self._readable(depth)

    def _binary(self, kind: IntType, depth: int) -> Expr:
        rng = self.rng
        op = _pick(
            rng,
            [(20, "add"), (15, "sub"), (10, "mul"), (12, "and"), (10, "or"), (14, "xor"),
             (8, "shl"), (10, "shr"), (4, "div"), (4, "mod")],
        )  # fmt: skip
        if op in ("div", "mod") and kind.signed and self.program.mcpu < "v4":
            kind = U32 if kind == S32 else U64  # older ones have no signed division
        return Binary(op, kind, self.expr(depth - 1), self._operand(kind, depth - 1))

    def _operand(self, kind: IntType, depth: int) -> Expr:
        return constant(self.rng, kind) if self.rng.random() < 0.3 else self.expr(depth)

    def condition(self, depth: int) -> Expr:
        """Return something to branch on."""
        kind = self.rng.choice(WORDS)
        op = self.rng.choice(COMPARISONS)
        return Binary(op, kind, self.expr(depth), self._operand(kind, depth))

    # --- statements ----------------------------------------------------------

    def _block(self, depth: int, most: int = 2) -> tuple[Statement, ...]:
        scope = list(self.scope)
        out: list[Statement] = []
        for _ in range(self.rng.randint(1, most)):
            out += self._statement(depth)
        self.scope = scope
        return tuple(out)

    def _statement(self, depth: int) -> list[Statement]:
        rng = self.rng
        choices = [(40, "assign"), (10, "local"), (6, "volatile"), (4, "copy"), (3, "fill")]
        if depth > 0:
            choices += [(14, "if"), (8, "loop"), (6, "switch")]
        choices.append((6, "atomic"))
        match _pick(rng, choices):
            case "local":
                return self._local() or self._assign()
            case "volatile":
                return self._volatile()
            case "copy":
                return self._copy()
            case "fill":
                arrays = [
                    v.name for v in self.scope
                    if isinstance(v.type, ArrayType) and not v.fixed and v.name[0] == "v"
                ]  # fmt: skip
                if arrays:
                    return [Fill(rng.choice(arrays), rng.choice((0, 0xFF, 0x80, 0x5A)))]
            case "if":
                other = self._block(depth - 1) if rng.random() < 0.5 else ()
                return [If(self.condition(1), self._block(depth - 1), other)]
            case "loop" if not self.loops:
                return self._loop(depth)
            case "switch":
                mask = rng.choice((3, 7))
                cases = tuple(self._block(0, 1) for _ in range(rng.randint(2, mask + 1)))
                return [Switch(self.expr(1), mask, cases, self._block(0, 1))]
            case "atomic":
                return self._atomic()
        return self._assign()

    def _assign(self) -> list[Statement]:
        place = self._writable(1)
        return [Assign(place, self.expr(2))] if place else []

    def _loop(self, depth: int) -> list[Statement]:
        name = f"i{self.names}"
        self.names += 1
        self.loops += 1
        scope = list(self.scope)
        self.scope.append(_Variable(name, U64, fixed=True))
        body = self._block(depth - 1)
        self.scope = scope
        self.loops -= 1
        return [Loop(name, self.rng.randint(2, 6), body)]

    def _volatile(self) -> list[Statement]:
        """Read a volatile variable into another, on its own: each access is an effect."""
        variables = [v.name for v in self.scope if v.volatile]
        plain = [
            v.name for v in self.scope
            if not v.volatile and not v.fixed and isinstance(v.type, IntType)
        ]  # fmt: skip
        if not variables or not plain:
            return self._assign()
        return [Assign(Name(self.rng.choice(plain)), Name(self.rng.choice(variables)))]

    def _copy(self) -> list[Statement]:
        """Copy a struct to a local one."""
        rng = self.rng
        to = [v for v in self.scope if isinstance(v.type, StructType) and not v.parameter]
        if not to:
            return self._assign()
        target = rng.choice(to)
        places: list[Place] = []
        for other in self.scope:
            if other.name != target.name and other.type == target.type:
                places.append(Name(other.name))
            elif isinstance(other.type, PointerType) and other.type.target == target.type:
                places.append(Deref(other.name))
        if not places:
            return self._assign()
        return [CopyObject(Name(target.name), rng.choice(places), rng.random() < 0.5)]

    def _atomic(self) -> list[Statement]:
        rng = self.rng
        fetch = self.program.mcpu >= "v3"
        kinds = WORDS if fetch else (U64, S64)
        place = self._writable(0, kinds)
        if place is None:
            return self._assign()
        if not fetch:
            return [AtomicOp("add", place, self.expr(1))]
        op = rng.choice(("add", "or", "and", "xor", "xchg", "cmpxchg"))
        result = self._writable(0) if rng.random() < 0.6 or op in ("xchg", "cmpxchg") else None
        value = self.expr(1)
        expected = self.expr(1) if op == "cmpxchg" else None
        return [AtomicOp(op, place, value, expected, result)]

    # --- calls ---------------------------------------------------------------

    def _call_statement(self, callee: Function, acc: str) -> list[Statement]:
        rng = self.rng
        out: list[Statement] = []
        arguments = []
        for parameter in callee.parameters:
            free = self.program.hidden
            arguments.append(self._argument(parameter.type, out, constants=free))
        call = Call(callee.name, tuple(arguments))
        kind = callee.result
        if kind is None:
            out.append(call)
            return self._around(out, call)
        if isinstance(kind, StructType):
            name = self._declare(out, kind, ())
            out.append(replace(call, result=Name(name)))
            return out
        form = _pick(rng, [(60, "assign"), (15, "condition"), (10, "place"), (5, "dropped")])
        if form == "condition":
            word = rng.choice(WORDS)
            branch, other = self._block(0), self._block(0) if rng.random() < 0.5 else ()
            op = rng.choice(COMPARISONS)
            out.append(CallIf(call, op, word, constant(rng, word), branch, other))
            return out
        if form == "dropped" and any(isinstance(p.type, PointerType) for p in callee.parameters):
            out.append(call)
            return self._around(out, call)
        place = self._writable(0) if form == "place" else None
        if place is not None:
            out.append(replace(call, result=place))
            return out
        kind = rng.choice(INTEGERS) if rng.random() < 0.4 else kind
        name = self._declare(out, kind, (Const(U32, 0),))
        call = replace(call, result=Name(name))
        out += self._around([], call)
        out.append(Assign(Name(acc), self._step(Name(acc), Name(name))))
        return out

    def _around(self, out: list[Statement], call: Call) -> list[Statement]:
        """Put *call* in a loop or a branch, at times; *out* may end with it."""
        rng = self.rng
        if out and out[-1] is call:
            out.pop()
        draw = rng.random()
        if draw < 0.12 and not self.small:
            name = f"i{self.names}"
            self.names += 1
            out.append(Loop(name, rng.randint(2, 4), (call,)))
        elif draw < 0.25:
            out.append(If(self.condition(1), (call,)))
        else:
            out.append(call)
        return out

    def _argument(
        self, kind: Value | PointerType, out: list[Statement], *, constants: bool
    ) -> Argument:
        rng = self.rng
        match kind:
            case StructType():
                places: list[Place] = [Name(v.name) for v in self.scope if v.type == kind]
                places += [
                    Deref(v.name) for v in self.scope
                    if isinstance(v.type, PointerType) and v.type.target == kind
                ]  # fmt: skip
                if places and rng.random() < 0.8:
                    return Whole(rng.choice(places))
                return Whole(Name(self._object(out, kind)))
            case PointerType():
                return Address(self._pointee(kind, out))
        choice = _pick(rng, [(40, "forward"), (18, "constant"), (30, "expression"), (12, "cast")])
        numbers = [
            v for v in self.scope
            if v.parameter and isinstance(v.type, IntType | EnumType)
        ]  # fmt: skip
        if not constants:
            # nothing that folds to a constant either
            value: Expr = self._readable(0)
            if choice == "cast":
                return Cast(rng.choice(INTEGERS), value)
            if choice == "expression" and numbers:
                return Binary("add", rng.choice(WORDS), value, Name(rng.choice(numbers).name))
            return Name(rng.choice(numbers).name) if numbers else value
        if choice == "constant":
            return constant(rng, kind if isinstance(kind, IntType) else U8)
        if choice == "forward" and numbers:
            return Name(rng.choice(numbers).name)
        if choice == "cast" and numbers:
            return Cast(rng.choice(INTEGERS), Name(rng.choice(numbers).name))
        return self.expr(2)

    def _pointee(self, kind: PointerType, out: list[Statement]) -> Place:
        """Return an object for a pointer parameter of type *kind*."""
        rng = self.rng
        places: list[Place] = []
        for variable in self.scope:
            if variable.volatile or (variable.fixed and not kind.const):
                continue
            if variable.name[0] == "i":
                continue  # a loop's counter may not change
            places += self._addresses(variable, kind)
        if places and rng.random() < 0.85:
            return rng.choice(places)
        if kind.count > 1:
            assert isinstance(kind.target, IntType)
            name = self._object(out, ArrayType(kind.target, kind.count))
            return Element(Name(name), Const(U32, 0), kind.count)
        return Name(self._object(out, kind.target))

    def _addresses(self, variable: _Variable, want: PointerType) -> list[Place]:
        rng = self.rng
        name, kind = variable.name, variable.type
        if isinstance(kind, PointerType):
            if kind.const and not want.const:
                return []
            if kind.target == want.target and kind.count >= want.count:
                if kind.count == want.count:
                    return [Deref(name)]
                at = rng.randrange(kind.count - want.count + 1)
                return [Element(Deref(name), Const(U32, at), kind.count)]
            if isinstance(kind.target, StructType) and want.count == 1:
                return [
                    Field(Deref(name), m.name) for m in kind.target.members
                    if m.type == want.target
                ]  # fmt: skip
            return []
        if isinstance(kind, ArrayType):
            if kind.element != want.target or kind.count < want.count:
                return []
            if want.count == 1 and self.program.variable and rng.random() < 0.3:
                return [Element(Name(name), self.expr(0), kind.count)]
            at = rng.randrange(kind.count - want.count + 1)
            return [Element(Name(name), Const(U32, at), kind.count)]
        if kind == want.target and want.count == 1:
            return [Name(name)]
        if isinstance(kind, StructType) and want.count == 1:
            return [Field(Name(name), m.name) for m in kind.members if m.type == want.target]
        return []

    # --- the end -------------------------------------------------------------

    def _step(self, acc: Expr, value: Expr) -> Expr:
        """Return *acc* with *value* mixed in: each bit of both counts, also in narrow results."""
        rng = self.rng
        # a rotation names the accumulator twice, so it must be short
        match rng.randrange(4 if isinstance(acc, Name) else 3):
            case 0:
                return Binary("add", U64, Binary("mul", U64, acc, Const(U64, 31)), value)
            case 1:
                return Binary("xor", U64, Binary("mul", U64, acc, Const(U64, 7)), value)
            case 2:
                return Binary("sub", U64, Binary("mul", U64, acc, Const(U64, 5)), value)
        shifted = Binary("shr", U64, acc, Const(U32, 51))
        rotated = Binary("or", U64, Binary("shl", U64, acc, Const(U32, 13)), shifted)
        return Binary("add", U64, rotated, value)

    def _needed(self) -> list[_Variable]:
        """Return the parameters that must count, because Linux wants all slots to be passed.

        Where clang may take a dead argument out, later ones move to other slots.
        """
        found, slot = [], 0
        for parameter in self.parameters:
            slot += slots_of(parameter.type)
            if slot > 5 or not self.program.hidden:
                found.append(_Variable(parameter.name, parameter.type, parameter=True))
        return found

    def _mix(self, acc: str, variables: Sequence[_Variable]) -> list[Statement]:
        """Let the values of *variables* count in the result."""
        value: Expr = Name(acc)
        out: list[Statement] = []
        steps = 0
        for variable in variables:
            if variable.volatile:
                continue
            for place, _ in self._places(variable, 0)[: 2 if self.small else 8]:
                value = self._step(value, place)
                steps += 1
                if steps % 4 == 0:
                    out.append(Assign(Name(acc), value))
                    value = Name(acc)
        if value != Name(acc):
            out.append(Assign(Name(acc), value))
        return out

    def _write_back(self, acc: str) -> list[Statement]:
        rng = self.rng
        out: list[Statement] = []
        for parameter in self.parameters:
            kind = parameter.type
            if (
                isinstance(kind, PointerType)
                and not kind.const
                and (self.result is None or rng.random() < 0.7)
            ):
                variable = _Variable(parameter.name, kind)
                place, _ = rng.choice(self._places(variable, 1))
                value = Binary(rng.choice(("add", "xor", "sub")), U64, Name(acc), self.expr(1))
                out.append(Assign(place, value))
        return out

    def _return(self, acc: str) -> list[Statement]:
        out: list[Statement] = []
        match self.result:
            case None:
                return [Return(None)]
            case StructType() as kind:
                name = self._declare(out, kind, ())
                for number, (place, _) in enumerate(self._members(Name(name), kind, 0)):
                    part = Binary("shr", U64, Name(acc), Const(U32, 11 * number))
                    out.append(Assign(place, part))
                out.append(Return(Whole(Name(name))))
            case EnumType():
                out.append(Return(Binary("and", U64, Name(acc), Const(U64, 1))))
            case _:
                folded = Binary(
                    "xor", U64, Name(acc), Binary("shr", U64, Name(acc), Const(U32, 32))
                )
                choice = self.rng.random()
                value: Expr = Name(acc) if choice < 0.5 else folded
                if choice > 0.9:
                    value = Cast(self.rng.choice(INTEGERS), value)
                out.append(Return(value))
        return out


def _unsigned(kind: Value | PointerType) -> Value | PointerType:
    return {S8: U8, S16: U16}.get(kind, kind) if isinstance(kind, IntType) else kind


def _named_types(function: Function) -> set[StructType | EnumType]:
    return {node for node in walk(function) if isinstance(node, StructType | EnumType)}


# --- what a tree is to the driver ---------------------------------------------


def signature(tree: Tree, prefix: str = "") -> under_test.Signature:
    """Return the signature of *tree*'s last function, as discovery finds it in BTF."""
    function = tree.root
    parameters = tuple(
        under_test.Parameter(p.name, _parameter(p.type, prefix), p.name)
        for p in function.parameters
    )
    result = None if function.result is None else _value(function.result, prefix)
    return under_test.Signature(prefix + function.name, parameters, result)


def _parameter(
    kind: Value | PointerType, prefix: str
) -> under_test.Scalar | under_test.Aggregate | under_test.Pointer:
    if not isinstance(kind, PointerType):
        return _value(kind, prefix)
    target: under_test.Type = _value(kind.target, prefix)
    if kind.count > 1:
        size = kind.count * size_of(kind.target)
        target = under_test.ArrayOf(target, kind.count, size)
    return under_test.Pointer(target, kind.const)


_C_NAMES = {1: "char", 2: "short", 4: "int", 8: "long long"}


def _scalar(size: int, signed: bool, values: tuple[int, ...] = ()) -> under_test.Scalar:
    name = f"{'signed' if signed else 'unsigned'} {_C_NAMES[size]}"
    return under_test.Scalar(name, size, signed, values=values)


def _value(kind: Value, prefix: str) -> under_test.Scalar | under_test.Aggregate:
    match kind:
        case EnumType(values=values):
            return _scalar(4, kind.signed, values)
        case StructType(name=name, members=members, union=union):
            offsets, size = struct_layout(kind)
            fields = tuple(
                under_test.Field(m.name, 8 * at, 8 * size_of(m.type), _member(m.type, prefix))
                for m, at in zip(members, offsets, strict=True)
            )
            spelling = f"{'union' if union else 'struct'} {prefix}{name}"
            return under_test.Aggregate(spelling, size, fields, union)
        case IntType(name="bool"):
            return under_test.Scalar("_Bool", 1, bool=True)
    return _scalar(kind.size, kind.signed)


def _member(kind: IntType | EnumType | ArrayType, prefix: str) -> under_test.Type:
    if isinstance(kind, ArrayType):
        return under_test.ArrayOf(_value(kind.element, prefix), kind.count, size_of(kind))
    return _value(kind, prefix)


__all__ = ["constant", "generate", "print_file", "signature"]
