"""Random C programs about the passing of arguments, free of undefined behaviour.

``generate(seed, number)`` is one program, the same in every process. What makes a tree
defined is said in ``tree``; here is chosen what to try: signatures that mix widths, signs,
structs and pointers over registers and stack slots, chains and fans of calls, arguments
forwarded in other places and other widths, and enough arithmetic that a wrong byte of any
argument shows in the result (``bodies``). What Linux refuses for a reason that is known is
tried seldom: the constants below say how often.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import accumulate

from harness.model import OPTS
from harness.source.bodies import Body
from harness.source.expressions import OR_INDEX, Given, Shape, constant, pick
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
    ArrayType,
    Binary,
    Call,
    CallIf,
    Cast,
    Choice,
    Declare,
    EnumType,
    Function,
    Global,
    If,
    IntType,
    Loop,
    Member,
    Parameter,
    PointerType,
    Statement,
    StructType,
    Switch,
    Tree,
    Unary,
    Value,
    size_of,
    slots_of,
    walk,
)
from harness.source.tree_signature import signature

CPUS = ("v1", "v1", "v1", "v1", "v3", "v4")  # the oldest instruction set a program is for
MAX_SLOTS = 12
FRAMES = 7  # below the driver, which is the first of eight
STACK = 512  # bytes of a chain of calls
DRIVER = 48  # bytes of the driver's frame beside the objects
PATHS = 7  # of a program for -O0, as a power of two
SPILLS = 48  # bytes of an optimised frame beside its variables, about
NARROW = 0.1  # programs with signed arguments of less than 32 bits in slots (docs/notes/grow.md)
WIDE = 0.01  # structs of more than eight bytes beside stack arguments, which Linux miscounts
VOID = 3  # of 100 functions: r0 of such may hold a pointer to the stack as it ends

# How large programs are: most are small, because campaigns want many.
SHAPES = (
    (70, Shape(statements=2, locals=1, depth=1, mixed=2)),
    (24, Shape(statements=3, locals=2, depth=1, mixed=3)),
    (6, Shape(statements=5, locals=4, depth=2, mixed=8)),
)
LINKS = Shape(statements=0, locals=0, depth=0, mixed=1)  # of functions in a long chain of calls


def generate(seed: int, number: int) -> Tree:
    """Return program *number* of *seed*."""
    return _Program(random.Random(f"crosscheck:{seed}:{number}")).tree()


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a function takes together with all that it calls."""

    calls: int  # frames below it
    stack: int  # bytes, optimised, about
    unoptimised: int  # the same at -O0
    paths: float  # logarithm of how many there are at -O0, about


class _Program:
    """The choices of one program."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        (shape,) = rng.choices([s for _, s in SHAPES], [w for w, _ in SHAPES])
        # Where clang knows all callers of a function it takes the argument that all of them
        # agree on out of the call; Linux, which counts by prototype, then misses its slot.
        hidden = rng.random() < 0.75
        self.given = Given(rng, rng.choice(CPUS), hidden, shape)
        self.given.or_index = rng.random() < OR_INDEX
        self.narrow = rng.random() < NARROW
        self.costs: dict[str, _Cost] = {}
        self.called: set[str] = set()

    def tree(self) -> Tree:
        """Return the program."""
        rng, given = self.rng, self.given
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            given.types.append(self._struct(f"t{len(given.types)}"))
        if rng.random() < 0.3:
            given.types.append(self._enum(f"t{len(given.types)}"))
        if rng.random() < 0.35:
            self._add_globals()
        chain = rng.random() < 0.1
        if chain:
            given.shape = LINKS
            count = rng.randint(4, FRAMES)
        else:
            count = int(pick(rng, [(32, "1"), (38, "2"), (18, "3"), (8, "4"), (4, "5")]))
        for index in range(count):
            self._function(index, last=index == count - 1, chain=chain)
        functions = tuple(given.functions.values())
        used = {kind for f in functions for kind in _named_types(f)}
        weak = any(f.weak for f in functions)
        root = functions[-1]
        pointees = sum(_objects(p.type) for p in root.parameters)
        cost = self.costs[root.name]
        fits = cost.unoptimised + DRIVER + pointees <= STACK and cost.paths <= PATHS
        return Tree(
            tuple(t for t in given.types if t in used),
            tuple(given.globals),
            functions,
            given.mcpu,
            ("hidden",) if given.hidden or weak else ("hidden", "static"),
            OPTS if fits else OPTS[1:],
        )

    # --- types ---------------------------------------------------------------

    def _struct(self, name: str) -> StructType:
        rng = self.rng
        if rng.random() < 0.2:
            size = rng.choice((4, 8, 8, 16))
            views = [ArrayType(U8, size), ArrayType(U16, size // 2), ArrayType(S16, size // 2)]
            whole: tuple[IntType | ArrayType, ...] = (U32, S32)
            if size == 8:
                whole = (U64, S64, ArrayType(U32, 2))
            elif size == 16:
                whole = (ArrayType(U64, 2), ArrayType(U32, 4), ArrayType(S64, 2))
            kinds = [rng.choice(whole), *rng.sample(views, rng.randrange(1, 3))]
            return StructType(name, tuple(Member(f"m{i}", k) for i, k in enumerate(kinds)), True)
        limit = rng.choice((4, 8, 8, 8, 16, 16, 24))
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
            self.given.globals.append(Global(f"g{index}", shape, values, const))

    # --- signatures ----------------------------------------------------------

    def _values(self, low: int, high: int) -> list[StructType]:
        """Return the structs of more than *low* and up to *high* bytes."""
        structs = [t for t in self.given.types if isinstance(t, StructType)]
        return [t for t in structs if low < size_of(t) <= high]

    def _parameters(self, root: bool, chain: bool) -> tuple[Parameter, ...]:
        rng = self.rng
        many = root or rng.random() < 0.8
        want = rng.randint(*((6, MAX_SLOTS) if many else (1, 5)))
        structs, wide = self._values(0, 8), self._values(8, 16)
        enums = [t for t in self.given.types if isinstance(t, EnumType)]
        kinds: list[Value | PointerType] = []
        objects = 0  # bytes that the driver provides
        if wide and rng.random() < (WIDE if many else 0.5):
            kinds.append(rng.choice(wide))
        while (slots := sum(map(slots_of, kinds))) < want:
            match pick(
                rng, [(60, "int"), (12, "pointer"), (12, "struct"), (5, "enum"), (6, "bool")]
            ):
                case "struct" if structs:
                    kinds.append(rng.choice(structs))
                case "struct" if wide and slots + 2 <= want and not many:
                    kinds.append(rng.choice(wide))
                case "enum" if enums:
                    kinds.append(rng.choice(enums))
                case "bool":
                    kinds.append(BOOL)
                case "pointer":
                    pointer = self._pointer()
                    size = _objects(pointer)
                    if objects + size > (48 if root else 96) or (chain and size > 8):
                        continue
                    objects += size
                    kinds.append(pointer)
                case _:
                    kinds.append(rng.choice(INTEGERS))
        rng.shuffle(kinds)
        if not self.narrow:
            ends = accumulate(map(slots_of, kinds))
            kinds = [_unsigned(k) if end > 5 else k for k, end in zip(kinds, ends, strict=True)]
        return tuple(Parameter(f"a{i}", kind) for i, kind in enumerate(kinds))

    def _pointer(self) -> PointerType:
        rng = self.rng
        const = rng.random() < 0.35
        if rng.random() < 0.35 and self.given.types:
            return PointerType(rng.choice(self.given.types), 1, const)
        kind = rng.choice(INTEGERS)
        return PointerType(kind, rng.choice((1, 1, 1, 2, 4)) if kind.size < 8 else 1, const)

    def _result(self, parameters: tuple[Parameter, ...]) -> Value | None:
        rng = self.rng
        choice = pick(rng, [(70, "int"), (8, "struct"), (4, "enum"), (5, "bool"), (VOID, "void")])
        structs = self._values(0, 16 if rng.random() < WIDE else 8)
        enums = [t for t in self.given.types if isinstance(t, EnumType)]
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

    def _function(self, index: int, *, last: bool, chain: bool) -> None:
        rng, given = self.rng, self.given
        parameters = self._parameters(last, chain)
        uncalled = [f for f in given.functions.values() if f.name not in self.called]
        chosen = [f for f in uncalled if last or chain or rng.random() < 0.6]
        if not chain and given.functions and rng.random() < 0.3:
            chosen.append(rng.choice(list(given.functions.values())))
        chosen = [f for f in chosen if self.costs[f.name].calls + 1 < FRAMES]
        below = [self.costs[f.name] for f in chosen]
        weak = given.hidden and not last and rng.random() < 0.15
        room = STACK - DRIVER - SPILLS - max((c.stack for c in below), default=0)
        result = self._result(parameters)
        body = Body(given, parameters, result, chosen, room=max(16, room), keeps=weak)
        statements = body.statements()
        name = f"f{index}"
        given.functions[name] = Function(
            name,
            parameters,
            body.result,
            statements,
            static=not last and not given.hidden,
            noinline=last or rng.random() < (0.9 if chain else 0.75),
            weak=weak,
        )
        self.called.update(f.name for f in chosen)
        frame = _unoptimised(parameters, statements)
        self.costs[name] = _Cost(
            1 + max((c.calls for c in below), default=0),
            SPILLS + body.locals + max((c.stack for c in below), default=0),
            frame + max((c.unoptimised for c in below), default=0),
            _paths(statements, {n: c.paths for n, c in self.costs.items()}),
        )


def _unoptimised(parameters: tuple[Parameter, ...], statements: tuple[Statement, ...]) -> int:
    """Return about how many bytes of stack a function takes at -O0.

    Measured: parameters and variables have homes, and of the operators' values some are
    spilled, more the longer the expressions are.
    """
    homes = sum(size_of(p.type) for p in parameters)
    operators = 0
    for node in walk(statements):
        match node:
            case Declare(type=kind):
                homes += size_of(kind)
            case Binary():
                operators += 1
    return -(-(homes + 3 * operators) // 16) * 16


def _paths(statements: tuple[Statement, ...], below: dict[str, float]) -> float:
    """Return the logarithm of how many paths a verifier may walk that merges none.

    At -O0 each comparison is kept on the stack as a zero or a one that tells paths apart.
    """
    total = 0.0
    for node in walk(statements):
        match node:
            case If() | CallIf() | Choice() | Binary(op="land" | "lor"):
                total += 1
            case Binary(op=op) if op in COMPARISONS:
                total += 1
            case Unary(op="lnot") | Cast(type=IntType(name="bool")):
                total += 1
            case Switch(cases=cases):
                total += math.log2(len(cases) + 1)
            case Loop(count=count, body=body):
                total += (count - 1) * _paths(body, below)
            case Call(function=name):
                total += below[name]
    return total


def _objects(kind: Value | PointerType) -> int:
    """Return the bytes behind a pointer, in whole slots."""
    if not isinstance(kind, PointerType):
        return 0
    return -(-kind.count * size_of(kind.target) // 8) * 8


def _unsigned(kind: Value | PointerType) -> Value | PointerType:
    return {S8: U8, S16: U16}.get(kind, kind) if isinstance(kind, IntType) else kind


def _named_types(function: Function) -> set[StructType | EnumType]:
    return {node for node in walk(function) if isinstance(node, StructType | EnumType)}


__all__ = ["constant", "generate", "print_file", "signature"]
