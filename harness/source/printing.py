"""Trees as C text, with every operator spelt so that it is defined for all values.

Arithmetic is done in the unsigned type of the width and converted back; shift counts are
masked; a divisor that is no constant gets a bit set (unsigned), or its lowest bit cleared
and the next one set (signed), so that it is neither 0 nor -1. Names of functions, types and
globals carry a prefix, so that many trees make one file.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from harness.source.tree import (
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
    Global,
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
    Whole,
)

# fmt: off
OPERATORS = {
    "add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^",
    "shl": "<<", "shr": ">>", "div": "/", "mod": "%",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
    "land": "&&", "lor": "||",
}
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
# fmt: on
_ATOMICS = {
    "add": "__sync_fetch_and_add",
    "or": "__sync_fetch_and_or",
    "and": "__sync_fetch_and_and",
    "xor": "__sync_fetch_and_xor",
    "xchg": "__sync_lock_test_and_set",
    "cmpxchg": "__sync_val_compare_and_swap",
}
_TYPEDEFS = """\
typedef unsigned char u8;
typedef signed char s8;
typedef unsigned short u16;
typedef short s16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;
typedef _Bool bool;
"""

KEPT = """\
static inline u64 kept(u64 index)
{
	__asm__("" : "+r"(index));
	return index;
}
"""


def print_file(trees: Iterable[tuple[str, Tree]]) -> str:
    """Return a C file that holds each tree under its prefix."""
    trees = list(trees)
    newest = max((tree.mcpu for _, tree in trees), default="v1")
    lines = []
    if newest > "v1":
        cpus = [f"v{n}" for n in range(int(newest[1:]), 5)]
        lines = ["/*", *(f" * crosscheck: -mcpu={cpu}" for cpu in cpus), " */"]
    parts = (Printer(prefix).tree(tree) for prefix, tree in trees)
    return "\n".join([*lines, _TYPEDEFS, *parts])


class Printer:
    """Prints the nodes of one tree.

    *kept*: a compiler does not see what the masks of elements' indices and of switches mask, and
    so cannot leave them out; ``KEPT`` goes before.
    """

    def __init__(self, prefix: str = "", *, kept: bool = False) -> None:
        self.prefix = prefix
        self.kept = kept

    def tree(self, tree: Tree) -> str:
        """Return the text of *tree*."""
        lines: list[str] = []
        for kind in tree.types:
            lines += self._definition(kind)
        lines += [self._global(variable) for variable in tree.globals]
        for function in tree.functions:
            lines += ["", *self.function(function)]
        return "\n".join(lines) + "\n"

    def _definition(self, kind: StructType | EnumType) -> list[str]:
        if isinstance(kind, EnumType):
            names = [f"\t{self.prefix}{kind.name}_{n} = {v}," for n, v in enumerate(kind.values)]
            return [f"{self.type(kind)} {{", *names, "};"]
        members = [f"\t{self._declare(m.type, m.name)};" for m in kind.members]
        return [f"{self.type(kind)} {{", *members, "};"]

    def _global(self, variable: Global) -> str:
        kind = variable.type
        element = kind.element if isinstance(kind, ArrayType) else kind
        values = ", ".join(self.constant(Const(element, v)) for v in variable.values)
        value = f"{{ {values} }}" if isinstance(kind, ArrayType) else values
        linkage = "static const " if variable.const else ""
        return f"{linkage}{self._declare(kind, self.prefix + variable.name)} = {value};"

    def type(self, kind: Type) -> str:
        """Return the C type *kind*, without what an array adds behind the name."""
        match kind:
            case IntType(name=name):
                return name
            case EnumType(name=name):
                return f"enum {self.prefix}{name}"
            case StructType(name=name, union=union):
                return f"{'union' if union else 'struct'} {self.prefix}{name}"
            case PointerType(target=target, const=const):
                return f"{'const ' if const else ''}{self.type(target)} *"
            case ArrayType(element=element):
                return self.type(element)

    def _declare(self, kind: Type, name: str) -> str:
        text = self.type(kind)
        text = f"{text}{name}" if text.endswith("*") else f"{text} {name}"
        return f"{text}[{kind.count}]" if isinstance(kind, ArrayType) else text

    def _parameter(self, kind: Type, name: str) -> str:
        text = self._declare(kind, name)
        if isinstance(kind, PointerType):
            byte = isinstance(kind.target, IntType) and kind.target.name in ("u8", "s8")
            if kind.count > 1 or byte:
                text += f' __attribute__((btf_decl_tag("elements:{kind.count}")))'
        return text

    def function(self, function: Function) -> list[str]:
        """Return the lines of *function*."""
        result = "void" if function.result is None else self.type(function.result)
        parameters = ", ".join(self._parameter(p.type, p.name) for p in function.parameters)
        head = "static " if function.static else ""
        if function.weak:
            head += "__attribute__((weak)) "
        elif function.noinline:
            head += "__attribute__((noinline)) "
        signature = f"{head}{result} {self.prefix}{function.name}({parameters or 'void'})"
        return [signature, "{", *self.block(function.body), "}"]

    def block(self, body: Iterable[Statement], depth: int = 1) -> list[str]:
        """Return the lines of *body*, indented."""
        return list(chain.from_iterable(self.statement(s, depth) for s in body))

    def statement(self, statement: Statement, depth: int) -> list[str]:
        """Return the lines of *statement*."""
        tab = "\t" * depth
        match statement:
            case Declare(name=name, type=kind, values=values, volatile=volatile):
                text = ", ".join(self.expr(v) for v in values)
                if isinstance(kind, ArrayType | StructType):
                    text = f"{{ {text or '0'} }}"
                word = "volatile " if volatile else ""
                return [f"{tab}{word}{self._declare(kind, name)} = {text};"]
            case Assign(place=place, value=value):
                return [f"{tab}{self.place(place)} = {self.expr(value)};"]
            case CopyObject(place=place, other=other, memcpy=memcpy):
                to, source = self.place(place), self.place(other)
                if memcpy:
                    return [f"{tab}__builtin_memcpy(&{to}, &{source}, sizeof({to}));"]
                return [f"{tab}{to} = {source};"]
            case CopyBytes(place=place, other=other):
                to, source = self.place(place), self.place(other)
                return [f"{tab}__builtin_memcpy(&{to}, &{source}, sizeof({to}));"]
            case Fill(name=name, byte=byte):
                where = self.place(Name(name))
                return [f"{tab}__builtin_memset(&{where}, {byte}, sizeof({where}));"]
            case Call():
                return [f"{tab}{self.call(statement)};"]
            case CallIf(call=call, op=op, type=kind, value=value, then=then, other=other):
                text = f"({kind.name}){self.call(call)} {OPERATORS[op]} {self.constant(value)}"
                return self._if(text, then, other, depth)
            case If(condition=condition, then=then, other=other):
                return self._if(self.expr(condition), then, other, depth)
            case Loop(name=name, count=count, body=body):
                head = f"{tab}for (u64 {name} = 0; {name} < {count}; {name}++) {{"
                return [head, *self.block(body, depth + 1), f"{tab}}}"]
            case Switch(value=value, mask=mask, cases=cases, default=default):
                lines = [f"{tab}switch ((u32){self._masked(value)} & {mask}) {{"]
                for number, body in enumerate(cases):
                    lines += [f"{tab}case {number}: {{", *self.block(body, depth + 1)]
                    lines += [f"{tab}\tbreak;", f"{tab}}}"]
                lines += [f"{tab}default: {{", *self.block(default, depth + 1), f"{tab}}}"]
                return [*lines, f"{tab}}}"]
            case AtomicOp(op=op, place=place, value=value, expected=expected, result=result):
                to = "" if result is None else f"{self.place(result)} = "
                where = f"&{self.place(place)}"
                if op == "load":
                    return [f"{tab}{to}__atomic_load_n({where}, __ATOMIC_ACQUIRE);"]
                if op == "store":
                    put = self.expr(value)
                    return [f"{tab}__atomic_store_n({where}, {put}, __ATOMIC_RELEASE);"]
                old = "" if expected is None else f"{self.expr(expected)}, "
                text = f"{_ATOMICS[op]}({where}, {old}{self.expr(value)})"
                return [f"{tab}{to}{text};"]
            case Return(value=None):
                return [f"{tab}return;"]
            case Return(value=Whole(place=place)):
                return [f"{tab}return {self.place(place)};"]
            case Return(value=value):
                return [f"{tab}return {self.argument(value)};"] if value else []

    def _if(
        self, text: str, then: tuple[Statement, ...], other: tuple[Statement, ...], depth: int
    ) -> list[str]:
        tab = "\t" * depth
        lines = [f"{tab}if ({text}) {{", *self.block(then, depth + 1)]
        if other:
            lines += [f"{tab}}} else {{", *self.block(other, depth + 1)]
        return [*lines, f"{tab}}}"]

    def call(self, call: Call) -> str:
        """Return the call, with its assignment."""
        arguments = ", ".join(self.argument(a) for a in call.arguments)
        to = "" if call.result is None else f"{self.place(call.result)} = "
        return f"{to}{self.prefix}{call.function}({arguments})"

    def argument(self, argument: Argument) -> str:
        """Return an argument of a call."""
        match argument:
            case Address(place=Deref(name=name)):
                return name
            case Address(place=place):
                return f"&{self.place(place)}"
            case Whole(place=place):
                return self.place(place)
            case Result(call=call):
                return self.call(call)
            case _:
                return self.expr(argument)

    def place(self, place: Place) -> str:
        """Return an lvalue."""
        match place:
            case Name(name=name):
                return self.prefix + name if name.startswith("g") else name
            case Deref(name=name):
                return f"(*{name})"
            case Field(base=Deref(name=name), member=member):
                return f"{name}->{member}"
            case Field(base=base, member=member):
                return f"{self.place(base)}.{member}"
            case Element(base=base, index=index, count=count):
                array = base.name if isinstance(base, Deref) else self.place(base)
                if isinstance(index, Const):
                    return f"{array}[{index.value & (count - 1)}]"
                return f"{array}[(u32){self._masked(index)} & {count - 1}]"

    def expr(self, expr: Expr) -> str:
        """Return an expression that needs no more parentheses."""
        match expr:
            case Const():
                return self.constant(expr)
            case Name() | Field() | Element() | Deref():
                return self.place(expr)
            case Cast(type=kind, operand=operand):
                return f"({kind.name}){self.expr(operand)}"
            case Unary(op=op, type=kind, operand=operand):
                return self._unary(op, kind, operand)
            case Choice(type=kind, condition=condition, yes=yes, no=no):
                a, b = (f"({kind.name}){self.expr(e)}" for e in (yes, no))
                return f"({self.expr(condition)} ? {a} : {b})"
            case Binary():
                return self._binary(expr)

    def _masked(self, expr: Expr) -> str:
        return f"kept({self.expr(expr)})" if self.kept else self.expr(expr)

    def _as(self, kind: str, expr: Expr) -> str:
        """Return *expr* converted to the type named *kind*, without a cast where it has it."""
        text = self.expr(expr)
        return text if _type_name(expr) == kind else f"({kind}){text}"

    def _unary(self, op: str, kind: IntType, operand: Expr) -> str:
        unsigned = f"u{8 * kind.size}"
        back = f"({kind.name})" if kind.signed else ""
        match op:
            case "neg":
                return f"{back}(0 - {self._as(unsigned, operand)})"
            case "not":
                return f"{back}(~{self._as(unsigned, operand)})"
            case "bswap":
                text = self._as(unsigned, operand)
                return f"({kind.name})__builtin_bswap{8 * kind.size}({text})"
        return f"(!{self.expr(operand)})"

    def _binary(self, expr: Binary) -> str:
        kind, op = expr.type, expr.op
        sign = OPERATORS[op]
        bits = 8 * kind.size
        name, unsigned = kind.name, f"u{bits}"
        left, right = expr.left, expr.right
        back = f"({name})" if kind.signed else ""
        match op:
            case "land" | "lor":
                return f"({self.expr(left)} {sign} {self.expr(right)})"
            case "lt" | "le" | "gt" | "ge" | "eq" | "ne":
                return f"({self._as(name, left)} {sign} {self._as(name, right)})"
            case "shl":
                return f"{back}({self._as(unsigned, left)} << {self._count(right, bits)})"
            case "shr":
                return f"({self._as(name, left)} >> {self._count(right, bits)})"
            case "div" | "mod":
                return f"({self._as(name, left)} {sign} {self._divisor(right, kind)})"
        return f"{back}({self._as(unsigned, left)} {sign} {self._as(unsigned, right)})"

    def _count(self, expr: Expr, bits: int) -> str:
        if isinstance(expr, Const):
            return str(expr.value & (bits - 1))
        return f"({self.expr(expr)} & {bits - 1})"

    def _divisor(self, expr: Expr, kind: IntType) -> str:
        bits = 8 * kind.size
        if isinstance(expr, Const):
            value = _cut(expr.value, Const(expr.type, 0).type)
            value = _cut(value, kind)
            if value not in (0, -1):
                return self.constant(Const(kind, value))
        text = self.expr(expr)
        if kind.signed:
            return f"({kind.name})((u{bits}){text} & ~(u{bits})1 | 2)"
        return f"((u{bits}){text} | 1)"

    @staticmethod
    def constant(const: Const) -> str:
        """Return a constant of its type."""
        value, kind = _cut(const.value, const.type), const.type
        if kind.name == "bool":
            return f"(bool){value & 1}"
        top = (1 << 8 * kind.size) - 1
        suffix = "ull" if kind.size == 8 else "u"
        number = value & top
        text = f"{number}{suffix}" if number < 1024 else f"{number:#x}{suffix}"
        if kind == IntType("u32", 4) or kind == IntType("u64", 8):
            return text
        return f"({kind.name}){text}"


def _type_name(expr: Expr) -> str:
    """Return the type of an operator's value where it needs no scope to know, else ""."""
    match expr:
        case Const(type=kind) | Cast(type=kind):
            return kind.name
        case Unary(op="neg" | "not", type=kind):
            return kind.name
        case Binary(op=op, type=kind) if op not in (*COMPARISONS, "land", "lor"):
            return kind.name
    return ""


def _cut(value: int, kind: IntType) -> int:
    """Return *value* as *kind* holds it."""
    bits = 8 * kind.size
    value &= (1 << bits) - 1
    return value - (1 << bits) if kind.signed and value >> (bits - 1) else value
