"""Random bodies of functions: statements around the calls they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.source.expressions import Given, Scope, Variable, constant, pick
from harness.source.printing import COMPARISONS
from harness.source.scope import is_pure
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
    Parameter,
    Place,
    PointerType,
    Result,
    Return,
    Statement,
    StructType,
    Switch,
    Type,
    Value,
    Whole,
    all_bytes,
    has_bool,
    size_of,
    slots_of,
)

DEAD = 0.12  # parameters that nothing reads, where Linux finds their slots written all the same
LOST = 0.01  # the same, where clang then leaves the slot bare and Linux refuses the call


class Body(Scope):
    """The choices of one function."""

    def __init__(
        self,
        given: Given,
        parameters: tuple[Parameter, ...],
        result: Value | None,
        callees: Sequence[Function],
        *,
        room: int,
        keeps: bool,
    ) -> None:
        """Begin a function with *parameters* that calls *callees*.

        *room* is how many bytes of variables it may have. It *keeps* arguments where clang
        passes them whether it reads them or not.
        """
        super().__init__(given, parameters)
        self.result = result
        self.callees = list(callees)
        self.parameters = parameters
        self.room = room
        self.keeps = keeps
        self.names = 0
        self.locals = 0  # bytes
        self.loops = 0  # nested ones we are in
        self.calls = 0  # in the text

    def statements(self) -> tuple[Statement, ...]:
        """Return the body."""
        rng, shape = self.rng, self.given.shape
        out: list[Statement] = []
        acc = self._declare(out, U64, (constant(rng, U64),))
        needed = self._needed()
        out += self._mix(acc, needed)
        for _ in range(rng.randint(0, shape.locals)):
            out += self._local()
        calls = list(self.callees)
        for _ in range(rng.randint(0, shape.statements)):
            out += self._statement(shape.depth)
            if calls and rng.random() < 0.6:
                out += self._call_statement(calls.pop(), acc)
        while calls:
            out += self._call_statement(calls.pop(), acc)
        out += self._mix(acc, [v for v in self.scope if self._counts(v, needed, acc)])
        out += self._write_back(acc)
        out += self._return(acc)
        return tuple(out)

    def _counts(self, variable: Variable, needed: Sequence[Variable], acc: str) -> bool:
        """Return whether *variable* counts in the result at the end."""
        if variable.name == acc:
            return False
        if variable in needed:  # once already
            return self.rng.random() < (0.8 if isinstance(variable.type, PointerType) else 0.15)
        return self.rng.random() >= DEAD

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
        self.scope.append(Variable(name, kind, volatile=volatile))
        return name

    def _object(self, out: list[Statement], kind: Value | ArrayType) -> str:
        """Declare an object of *kind* with values; it may stand before the loop we are to be in."""
        scope = self.scope
        self.scope = [v for v in scope if not (v.fixed and v.parameter)]
        match kind:
            case ArrayType(element=element, count=count):
                values = tuple(
                    self._value(element) for _ in range(count)
                )  # clang loops over the rest
            case StructType(members=members):
                first = members[0].type
                if any(isinstance(m.type, ArrayType) for m in members):
                    values = ()
                elif kind.union:
                    values = (self._value(first),)
                else:
                    values = tuple(self._value(m.type) for m in members)
            case _:
                values = (self._value(kind),)
        self.scope = scope
        return self._declare(out, kind, values)

    def _value(self, kind: Type) -> Expr:
        if isinstance(kind, IntType) and self.rng.random() < 0.25:
            return constant(self.rng, kind)
        return self.expr(1)

    def _local(self) -> list[Statement]:
        rng, out = self.rng, list[Statement]()
        if self.locals + 16 > self.room:
            return out
        match pick(rng, [(60, "int"), (14, "array"), (15, "struct"), (10, "volatile")]):
            case "array":
                kind = rng.choice((U8, S8, U16, S16, U32, S32, U64))
                counts = [n for n in (2, 4, 8) if n * kind.size <= min(32, self.room)]
                self._object(out, ArrayType(kind, rng.choice(counts)))
            case "struct" if self.given.types:
                self._object(out, rng.choice(self.given.types))
            case "volatile":
                self._declare(out, rng.choice(INTEGERS), (self.expr(1),), volatile=True)
            case _:
                self._declare(out, rng.choice(INTEGERS), (self.expr(2),))
        return out

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
        choices = [(40, "assign"), (8, "local"), (7, "volatile"), (5, "copy"), (5, "bytes")]
        choices += [(4, "fill"), (7, "atomic")]
        if depth > 0:
            choices += [(14, "if"), (7, "loop"), (4, "switch"), (4, "table")]
        match pick(rng, choices):
            case "local":
                return self._local() or self._assign()
            case "volatile":
                return self._volatile()
            case "copy":
                return self._copy()
            case "bytes":
                return self._bytes()
            case "fill":
                return self._fill()
            case "if":
                other = self._block(depth - 1) if rng.random() < 0.5 else ()
                return [If(self.condition(1), self._block(depth - 1), other)]
            case "loop" if not self.loops:
                return self._loop(depth)
            case "switch":
                mask = rng.choice((3, 7))
                cases = tuple(self._block(0, 1) for _ in range(rng.randint(2, mask + 1)))
                return [Switch(self.expr(1), mask, cases, self._block(0, 1))]
            case "table":
                return self._table()
            case "atomic":
                return self._atomic()
        return self._assign()

    def _assign(self) -> list[Statement]:
        place = self.writable(1)
        return [Assign(place, self.expr(2))] if place else []

    def _loop(self, depth: int) -> list[Statement]:
        name = f"i{self.names}"
        self.names += 1
        self.loops += 1
        scope = list(self.scope)
        self.scope.append(Variable(name, U64, fixed=True))
        body = self._block(depth - 1)
        self.scope = scope
        self.loops -= 1
        return [Loop(name, self.rng.randint(2, 4), body)]

    def _table(self) -> list[Statement]:
        """Give a variable one of several constants, which clang may look up in a table."""
        rng = self.rng
        numbers = [
            v for v in self.scope
            if isinstance(v.type, IntType) and v.type != BOOL and not v.fixed and not v.volatile
        ]  # fmt: skip
        if not numbers:
            return self._assign()
        to = rng.choice(numbers)
        assert isinstance(to.type, IntType)
        mask = rng.choice((3, 7))
        each = [(Assign(Name(to.name), constant(rng, to.type)),) for _ in range(mask + 1)]
        return [Switch(self.expr(1), mask, tuple(each[:-1]), each[-1])]

    def _volatile(self) -> list[Statement]:
        """Read or write a volatile variable on its own: each access is an effect."""
        variables = [v.name for v in self.scope if v.volatile]
        plain = [
            v.name for v in self.scope
            if not v.volatile and not v.fixed and isinstance(v.type, IntType)
        ]  # fmt: skip
        if not variables or not plain:
            return self._assign()
        one, other = Name(self.rng.choice(variables)), Name(self.rng.choice(plain))
        return [Assign(one, other) if self.rng.random() < 0.3 else Assign(other, one)]

    def _own(self) -> list[Variable]:
        """Return the variables of this function that may be written as a whole."""
        return [
            v for v in self.scope
            if v.name[0] == "v" and not v.fixed and not v.volatile
        ]  # fmt: skip

    def _copy(self) -> list[Statement]:
        """Copy a struct to a local one."""
        rng = self.rng
        to = [v for v in self._own() if isinstance(v.type, StructType)]
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

    def _bytes(self) -> list[Statement]:
        """Copy the bytes of one object to another one of its size."""
        rng = self.rng
        found: list[tuple[Place, Type, bool]] = []  # place, type, whether it is our own
        for variable in self.scope:
            if variable.volatile or variable.name[0] == "i":
                continue
            kind, local = variable.type, variable.name[0] != "g"
            if isinstance(kind, PointerType):
                if kind.count == 1 and all_bytes(kind.target):
                    found.append((Deref(variable.name), kind.target, False))
            elif all_bytes(kind):
                found.append((Name(variable.name), kind, local))
        pairs = [
            (a, b) for a, kind, _ in found if a in self._targets()
            for b, other, local in found
            if a != b and kind != other and size_of(kind) == size_of(other)
        ]  # fmt: skip
        if not pairs:
            return self._copy()
        return [CopyBytes(*rng.choice(pairs))]

    def _targets(self) -> list[Place]:
        return [Name(v.name) for v in self._own()]

    def _fill(self) -> list[Statement]:
        rng = self.rng
        found = [v for v in self._own() if isinstance(v.type, ArrayType | StructType)]
        if not found:
            return self._assign()
        target = rng.choice(found)
        byte = 0 if has_bool(target.type) else rng.choice((0, 0xFF, 0x80, 0x5A))
        return [Fill(target.name, byte)]

    def _atomic(self) -> list[Statement]:
        rng = self.rng
        if self.given.mcpu >= "v4" and rng.random() < 0.5:
            place = self.writable(0, INTEGERS)
            to = self.writable(0)
            if place is None or to is None:
                return self._assign()
            if rng.random() < 0.5:
                return [AtomicOp("load", place, Const(U32, 0), None, to)]
            return [AtomicOp("store", place, self.expr(1))]
        fetch = self.given.mcpu >= "v3"
        place = self.writable(0, WORDS if fetch else (U64, S64))
        if place is None:
            return self._assign()
        if not fetch:
            return [AtomicOp("add", place, self.expr(1))]
        op = rng.choice(("add", "or", "and", "xor", "xchg", "cmpxchg"))
        result = self.writable(0) if rng.random() < 0.6 or op in ("xchg", "cmpxchg") else None
        value = self.expr(1)
        expected = self.expr(1) if op == "cmpxchg" else None
        return [AtomicOp(op, place, value, expected, result)]

    # --- calls ---------------------------------------------------------------

    def _call(self, callee: Function, out: list[Statement], *, nested: bool = True) -> Call:
        """Return a call of *callee*; what its arguments need is declared in *out*."""
        self.calls += 1
        kinds = [p.type for p in callee.parameters]
        return Call(callee.name, tuple(self._argument(k, out, nested=nested) for k in kinds))

    def _call_statement(self, callee: Function, acc: str) -> list[Statement]:
        rng = self.rng
        out: list[Statement] = []
        loop = None
        if rng.random() < 0.12 and self.given.shape.depth > 0:
            loop = Variable(f"i{self.names}", U64, fixed=True, parameter=True)
            self.names += 1
            self.scope.append(loop)  # among the arguments it may be
        call = self._call(callee, out)
        if loop is not None:
            self.scope.remove(loop)
        kind = callee.result
        form = pick(rng, [(60, "assign"), (15, "condition"), (10, "place"), (5, "dropped")])
        if kind is None or isinstance(kind, StructType):
            form = "dropped"
        elif form == "dropped" and is_pure(callee, self.given.functions):
            form = "assign"
        after: list[Statement] = []
        match form:
            case "condition" if loop is None:
                word = rng.choice(WORDS)
                branch, other = self._block(0), self._block(0) if rng.random() < 0.5 else ()
                op = rng.choice(COMPARISONS)
                out.append(CallIf(call, op, word, constant(rng, word), branch, other))
                return out
            case "place" if (place := self.writable(0)) is not None:
                call = replace(call, result=place)
            case "dropped":
                if isinstance(kind, StructType):
                    call = replace(call, result=Name(self._declare(out, kind, ())))
            case _:
                assert isinstance(kind, IntType | EnumType)
                into = rng.choice(INTEGERS) if rng.random() < 0.4 else kind
                name = self._declare(out, into, (Const(U32, 0),))
                call = replace(call, result=Name(name))
                after.append(Assign(Name(acc), self._step(Name(acc), Name(name))))
        if loop is not None:
            out.append(Loop(loop.name, rng.randint(2, 3), (call, *after)))
        elif rng.random() < 0.13:
            out.append(If(self.condition(1), (call, *after)))
        else:
            out += [call, *after]
        return out

    def _argument(
        self, kind: Value | PointerType, out: list[Statement], *, nested: bool
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
        choice = pick(
            rng,
            [(40, "forward"), (18, "constant"), (28, "expression"), (12, "cast"), (4, "nested")],
        )
        numbers = [
            v for v in self.scope
            if v.parameter and isinstance(v.type, IntType | EnumType)
        ]  # fmt: skip
        if choice == "nested" and nested:
            pure = [f for f in self.callees if self._nests(f)]
            if pure:
                return Result(self._call(rng.choice(pure), out, nested=False))
        if not self.given.hidden:
            # nothing that folds to a constant: clang would take the parameter out
            value: Expr = self.readable(0)
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
        return self.expr(1 if rng.random() < 0.7 else 2)

    def _nests(self, callee: Function) -> bool:
        """Return whether *callee* may be called in the middle of another call's arguments."""
        number = isinstance(callee.result, IntType | EnumType)
        return number and is_pure(callee, self.given.functions)

    def _pointee(self, kind: PointerType, out: list[Statement]) -> Place:
        """Return an object for a pointer parameter of type *kind*."""
        rng = self.rng
        places: list[Place] = []
        slots: list[Place] = []  # what the caller was itself passed
        for variable in self.scope:
            if variable.volatile or (variable.fixed and not kind.const):
                continue
            if variable.name[0] == "i":
                continue  # a loop's counter may not change
            found = self._addresses(variable, kind)
            places += found
            if variable.parameter and not isinstance(variable.type, PointerType):
                slots += found
        if slots and rng.random() < 0.4:
            return rng.choice(slots)
        if places and rng.random() < 0.85:
            return rng.choice(places)
        if kind.count > 1:
            assert isinstance(kind.target, IntType)
            name = self._object(out, ArrayType(kind.target, kind.count))
            return Element(Name(name), Const(U32, 0), kind.count)
        return Name(self._object(out, kind.target))

    def _addresses(self, variable: Variable, want: PointerType) -> list[Place]:
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
            if want.count == 1:
                stack = 0 if name.startswith("g") else size_of(kind)
                return [Element(Name(name), self.index(kind.count, 1, stack=stack), kind.count)]
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

    def _needed(self) -> list[Variable]:
        """Return the parameters that must count, because Linux wants all slots to be passed.

        Where clang may take a dead argument out, later ones move to other slots.
        """
        found, slot = [], 0
        for parameter in self.parameters:
            slot += slots_of(parameter.type)
            dead = self.rng.random() < (DEAD if self.keeps else LOST)
            if (slot > 5 or not self.given.hidden) and not dead:
                found.append(Variable(parameter.name, parameter.type, parameter=True))
        return found

    def _mix(self, acc: str, variables: Sequence[Variable]) -> list[Statement]:
        """Let the values of *variables* count in the result."""
        value: Expr = Name(acc)
        out: list[Statement] = []
        steps = 0
        for variable in variables:
            if variable.volatile:
                continue
            for place, _ in self.places(variable, 0)[: self.given.shape.mixed]:
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
                variable = Variable(parameter.name, kind)
                place, _ = rng.choice(self.places(variable, 1))
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
                for number, (place, _) in enumerate(self.members_of(Name(name), kind, 0)):
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
