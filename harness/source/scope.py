"""What makes a tree a program: names in scope, pointers that fit, types that agree."""

from __future__ import annotations

from dataclasses import dataclass

from harness.source.tree import (
    INTEGERS,
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
    CopyBytes,
    CopyObject,
    Declare,
    Deref,
    Element,
    EnumType,
    Expr,
    Field,
    Fill,
    Function,
    If,
    IntType,
    Loop,
    Name,
    Place,
    PointerType,
    Result,
    Return,
    Statement,
    StructType,
    Switch,
    Tree,
    Type,
    Unary,
    Value,
    Whole,
    all_bytes,
    has_bool,
    root,
    size_of,
    walk,
)


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
        if function.static and function.weak:
            out.append(f"{function.name}: weak and static")
        known[function.name] = function
    return out


def is_pure(function: Function, functions: dict[str, Function]) -> bool:
    """Return whether a call of *function* changes nothing that its caller can see."""
    if any(isinstance(p.type, PointerType) and not p.type.const for p in function.parameters):
        return False
    for node in walk(function.body):
        match node:
            case Assign(place=place) | CopyObject(place=place) | CopyBytes(place=place):
                places: tuple[Place | None, ...] = (place,)
            case AtomicOp(place=place, result=result):
                places = (place, result)
            case Call(function=name, result=result):
                callee = functions.get(name)
                if callee is None or not is_pure(callee, functions):
                    return False
                places = (result,)
            case _:
                continue
        if any(place is not None and root(place).startswith("g") for place in places):
            return False
    return True


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
                if statement.memcpy and not _apart(place, other):
                    self.wrong("a copy that may overlap")
            case CopyBytes(place=place, other=other):
                a, b = self.writable(place, whole=True), self.place(other)
                if a is None or b is None or size_of(a) != size_of(b):
                    self.wrong("a copy of two sizes")
                elif not (all_bytes(a) and all_bytes(b)):
                    self.wrong("a copy of padding or bool")
                if not _apart(place, other):
                    self.wrong("a copy that may overlap")
            case Fill(name=name, byte=byte):
                filled = self.names.get(name)
                if not isinstance(filled, ArrayType | StructType) or name in self.fixed:
                    self.wrong(f"{name} is no array and no struct")
                elif byte and has_bool(filled):
                    self.wrong(f"{name} has a bool")
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
            case AtomicOp(op=op, place=place, value=value, expected=expected, result=result):
                self.scalar(value)
                if expected is not None:
                    self.scalar(expected)
                kinds = INTEGERS if op in ("load", "store") else WORDS
                if self.writable(place) not in kinds:
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
            case _, Result(call=call):
                result = self.call(call)
                callee = self.functions.get(call.function)
                if not isinstance(result, IntType | EnumType):
                    self.wrong("an argument that is no number")
                if call.result is not None:
                    self.wrong("an argument that is assigned")
                if callee is not None and not is_pure(callee, self.functions):
                    self.wrong(f"{call.function} is not pure")
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


def _apart(place: Place, other: Place) -> bool:
    """Return whether two places never overlap: one at least is in a variable of the function.

    Pointers are parameters, so none points into the variables of this call; but two of them
    may meet, and one may point to a global variable.
    """
    a, b = root(place), root(other)
    if a == b:
        return False
    return any(_is_local(base) for base in (_base(place), _base(other)))


def _base(place: Place) -> Name | Deref:
    while not isinstance(place, Name | Deref):
        place = place.base
    return place


def _is_local(base: Name | Deref) -> bool:
    return isinstance(base, Name) and not base.name.startswith("g")
