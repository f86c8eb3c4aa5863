"""What clang's syntax tree says of a C file: its declarations, and what may be changed in them.

The compiler that builds a source also parses it (`-Xclang -ast-dump=json`): so all that it
understands, attributes and extensions included, is understood here, and types are known.

Memory stays as safe as it was: an integer that an index, a pointer or the end of a loop may
hang on has to stay. To find those, values are followed from there back to where they come
from, by name, in whatever order statements run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.source.sheet import Call, Constant, Edit, Function, Parameter, Piece, Sheet, Span

Node = Mapping[str, Any]

# fmt: off
INTEGERS = {  # types of C that may take each other's place: bytes, signed
    "_Bool":              (1, False),
    "char":               (1, True),
    "signed char":        (1, True),
    "unsigned char":      (1, False),
    "short":              (2, True),
    "unsigned short":     (2, False),
    "int":                (4, True),
    "unsigned int":       (4, False),
    "long":               (8, True),
    "unsigned long":      (8, False),
    "long long":          (8, True),
    "unsigned long long": (8, False),
}
LITERALS = {  # types of integers in the text, and what stands behind the digits
    "int":                "",
    "unsigned int":       "u",
    "long":               "l",
    "unsigned long":      "ul",
    "long long":          "ll",
    "unsigned long long": "ull",
}
# fmt: on
FREESTANDING = {f"<{name}.h>" for name in ("limits", "stdbool", "stddef", "stdint")}
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*(<[^>\n]*>)[^\n]*$", re.MULTILINE)
_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(\w+)", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z_]\w*")
_ASSIGNMENTS = ("BinaryOperator", "CompoundAssignOperator")
_DIVISIONS = ("/", "%", "/=", "%=")
_LOOPS = ("ForStmt", "WhileStmt", "DoStmt")


def split(text: str) -> tuple[tuple[str, ...], str] | None:
    """Return the `#include` lines of *text* and the rest of it, for its own macros to be expanded.

    None for what depends on more than that: other files, or conditions.
    """
    includes = tuple(dict.fromkeys(f"#include {m[1]}" for m in _INCLUDE.finditer(text)))
    rest = _INCLUDE.sub("", text)
    if set(_DIRECTIVE.findall(rest)) - {"define", "undef"}:
        return None
    if not {m[1] for m in _INCLUDE.finditer(text)} <= FREESTANDING:
        return None
    return includes, rest


def joined(includes: Iterable[str], rest: str) -> str:
    """Return the text that clang is to parse: *includes*, and *rest* with its macros expanded."""
    return "".join(f"{line}\n" for line in includes) + rest


def read(text: str, includes: tuple[str, ...], tree: Node, *, cuts: bool = False) -> Sheet | None:
    """Return what is in *text*, which starts with *includes*; *tree* is clang's.

    With *cuts* also what may be cut out of functions, so that C is left. None where it cannot be
    told by place: characters of several bytes, macros that declare.
    """
    if not text.isascii():
        return None
    own = [node for node in tree.get("inner", ()) if _is_own(node)]
    pieces = _pieces(text, own)
    if pieces is None:
        return None
    flow = _Flow()
    definitions: dict[str, Node] = {}
    declarations: dict[str, list[Node]] = {}
    for node in own:
        flow.add(node)
        if node["kind"] == "FunctionDecl":
            declarations.setdefault(node["name"], []).append(node)
            if _body(node) is not None:
                definitions[node["name"]] = node
    flow.follow(definitions)
    functions = {
        name: _function(text, node, declarations[name], flow) for name, node in definitions.items()
    }
    if cuts:
        for name, node in definitions.items():
            found = tuple(dict.fromkeys(_cuts(text, node)))
            functions[name] = replace(functions[name], cuts=found)
    outside = tuple(
        constant
        for node in own
        if node["kind"] == "VarDecl"
        for constant in _constants(text, node, flow)
    )
    return Sheet(text, includes, pieces, functions, constants=outside)


def _is_own(node: Node) -> bool:
    """Return whether *node* stands in the file itself, not in a header."""
    loc = node.get("loc", {})
    loc = loc.get("expansionLoc", loc)
    return "offset" in loc and "includedFrom" not in loc and not node.get("isImplicit")


# --- places -------------------------------------------------------------------------


def _start(node: Node) -> int | None:
    begin = node.get("range", {}).get("begin", {})
    at = begin.get("expansionLoc", begin).get("offset")
    return int(at) if at is not None else None


def _end(node: Node) -> int | None:
    end = node.get("range", {}).get("end", {})
    end = end.get("expansionLoc", end)
    return int(end["offset"]) + int(end["tokLen"]) if "offset" in end else None


def _span(node: Node) -> Span | None:
    """Return where *node* stands, None where a macro has a part in that."""
    ends = node.get("range", {})
    begin, end = ends.get("begin", {}), ends.get("end", {})
    if "offset" not in begin or "offset" not in end:
        return None
    return int(begin["offset"]), int(end["offset"]) + int(end["tokLen"])


def _inner(node: Node) -> Sequence[Node]:
    # what stands in braces that leave some elements out has a name of its own
    return [c for key in ("inner", "array_filler") for c in node.get(key, ()) if c.get("kind")]


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in _inner(node):
        yield from _walk(child)


def _type(node: Node) -> str:
    kind = node.get("type", {})
    name: str = kind.get("desugaredQualType", kind.get("qualType", ""))
    return "_Bool" if name == "bool" else name


def _pieces(text: str, own: Sequence[Node]) -> tuple[Piece, ...] | None:
    """Return the declarations of *text*; None where two are one for a macro."""
    ends: list[tuple[int, set[str]]] = []
    last = 0
    for node in own:
        start, end = _start(node), _end(node)
        if start is None or end is None:
            return None
        names = {node["name"]} if "name" in node else set()
        if node["kind"] == "EnumDecl":
            names |= {child["name"] for child in _inner(node) if "name" in child}
        if ends and start < last:
            ends[-1][1].update(names)
        else:
            ends.append((0, names))
        if _body(node) is None:
            semicolon = text.find(";", end)
            if semicolon < 0:
                return None
            end = semicolon + 1
        last = max(last, end)
        ends[-1] = last, ends[-1][1]
    declared = {name for _, names in ends for name in names}
    found, at = [], _behind_includes(text)
    for end, names in ends:
        words = set(_NAME.findall(text[at:end]))
        found.append(Piece((at, end), frozenset(names), frozenset(words & declared)))
        at = end
    return tuple(found)


def _behind_includes(text: str) -> int:
    return max((m.end() for m in _INCLUDE.finditer(text)), default=0)


def _body(node: Node) -> Node | None:
    if node["kind"] != "FunctionDecl":
        return None
    return next((child for child in _inner(node) if child["kind"] == "CompoundStmt"), None)


def _parameters(node: Node) -> list[Node]:
    return [child for child in _inner(node) if child["kind"] == "ParmVarDecl"]


def _head(text: str, node: Node) -> tuple[Span, ...] | None:
    """Return where each parameter of the declaration *node* stands, with its attributes."""
    loc = node["loc"]
    if "offset" not in loc:
        return None
    at = int(loc["offset"]) + int(loc["tokLen"])
    opening = re.compile(r"\s*\(").match(text, at)
    if opening is None:
        return None
    spans: list[Span] = []
    first, depth, quoted = opening.end(), 0, False
    for at in range(opening.end(), len(text)):
        mark = text[at]
        if mark == '"':
            quoted = not quoted
        if quoted:
            continue
        if (mark == "," and not depth) or (mark == ")" and not depth):
            spans.append(_stripped(text, first, at))
            first = at + 1
            if mark == ")":
                break
        depth += (mark in "([{") - (mark in ")]}")
    parameters = _parameters(node)
    if len(spans) != len(parameters):
        return None
    for span, parameter in zip(spans, parameters, strict=True):
        start = _start(parameter)
        if start is None or not span[0] <= start < span[1]:
            return None
    return tuple(spans)


def _stripped(text: str, first: int, behind: int) -> Span:
    part = text[first:behind]
    return first + len(part) - len(part.lstrip()), first + len(part.rstrip())


# --- what may hang on a value ---------------------------------------------------------


@dataclass(slots=True)
class _Flow:
    """Which variables, functions and expressions access to memory hangs on."""

    bound: set[str] = field(default_factory=set)  # declarations, and results of functions
    fixed: set[int] = field(default_factory=set)  # expressions, by id() of their nodes
    moves: list[tuple[frozenset[str], Node]] = field(default_factory=list)  # to, from
    sinks: list[Node] = field(default_factory=list)
    guards: list[Node] = field(default_factory=list)  # conditions
    calls: list[tuple[str, Sequence[Node]]] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)  # functions that are not only called
    addressed: set[str] = field(default_factory=set)  # variables with & before them

    def add(self, node: Node, function: str = "", loop: bool = False) -> None:
        """Take notice of *node*, and of all in it."""
        kind = node["kind"]
        inner = _inner(node)
        if kind == "FunctionDecl":
            function = node.get("name", "")
        elif kind == "ArraySubscriptExpr":
            self.sinks.append(inner[1])
        elif kind in _ASSIGNMENTS and node.get("opcode", "").endswith("="):
            if node["opcode"] not in ("==", "!=", "<=", ">="):
                self.moves.append((frozenset(_targets(inner[0])), inner[1]))
                if "*" in _type(node) and kind == "CompoundAssignOperator":
                    self.sinks.append(inner[1])
        elif kind == "BinaryOperator" and "*" in _type(node):
            self.sinks.append(node)
        elif kind == "VarDecl" and inner:
            self.moves.append((frozenset((node["id"],)), node))
        elif kind == "ReturnStmt" and inner:
            self.moves.append((frozenset((f"result of {function}",)), inner[0]))
        elif kind == "CallExpr":
            callee = _callee(node)
            self.calls.append((callee or "", inner[1:]))
            if callee is None:
                self.sinks += inner[1:]
        elif kind in _LOOPS:
            self.sinks += [part for part in inner if not _is_body(part, node)]
            loop = True
        elif kind in ("IfStmt", "ConditionalOperator", "SwitchStmt"):
            (self.sinks if loop and kind == "IfStmt" else self.guards).append(inner[0])
        elif kind == "UnaryOperator" and node.get("opcode") == "&":
            self.addressed |= _names(node)
        elif kind in ("GCCAsmStmt", "AtomicExpr", "GotoStmt", "StmtExpr"):
            self.sinks.append(node)
        elif kind == "DeclRefExpr" and _referenced(node).get("kind") == "FunctionDecl":
            self.taken.add(_referenced(node)["name"])
        for child in inner[1:] if kind == "CallExpr" and _callee(node) else inner:
            self.add(child, function, loop)

    def follow(self, definitions: Mapping[str, Node]) -> None:
        """Find out all that the sinks hang on."""
        for callee, arguments in self.calls:
            if callee not in definitions:
                self.sinks += arguments
                continue
            for parameter, argument in zip(
                _parameters(definitions[callee]), arguments, strict=False
            ):
                self.moves.append((frozenset((parameter["id"],)), argument))
        for node in self.sinks:
            self._fix(node)
        before = -1
        while before != len(self.bound) + len(self.fixed):
            before = len(self.bound) + len(self.fixed)
            for to, source in self.moves:
                if to & self.bound:
                    self._fix(source)
                elif "*" in _type(source) and _names(source) & self.bound:
                    self.bound |= to  # it may point there
            for guard in self.guards:
                if _names(guard) & self.bound:
                    self._fix(guard)

    def _fix(self, node: Node) -> None:
        self.fixed.add(id(node))
        self.bound |= _names(node)


def _is_body(part: Node, loop: Node) -> bool:
    """Return whether *part* of *loop* is what it repeats: a `do` has that first, others last."""
    inner = _inner(loop)
    return part is (inner[0] if loop["kind"] == "DoStmt" else inner[-1])


def _referenced(node: Node) -> Node:
    found: Node = node.get("referencedDecl", {})
    return found


def _names(node: Node) -> set[str]:
    """Return the variables that *node* mentions, by declaration, and the functions it calls."""
    found = set()
    for one in _walk(node):
        if one["kind"] == "DeclRefExpr":
            declared = _referenced(one)
            if declared.get("kind") == "FunctionDecl":
                found.add(f"result of {declared['name']}")
            else:
                found.add(declared["id"])
    return found


def _targets(place: Node) -> set[str]:
    """Return the variables that something written to *place* changes, or that point there."""
    if place["kind"] in ("ArraySubscriptExpr", "MemberExpr", "ParenExpr", "ImplicitCastExpr"):
        return _targets(_inner(place)[0])
    return _names(place)


def _callee(call: Node) -> str | None:
    """Return the function that *call* names, None for a pointer."""
    node = _inner(call)[0]
    if node["kind"] == "ImplicitCastExpr":
        node = _inner(node)[0]
    declared = _referenced(node)
    return declared["name"] if declared.get("kind") == "FunctionDecl" else None


# --- functions ------------------------------------------------------------------------


def _function(text: str, node: Node, declarations: Sequence[Node], flow: _Flow) -> Function:
    name = node["name"]
    body = _body(node)
    assert body is not None
    heads = [_head(text, one) for one in declarations]
    free = name not in flow.taken and all(heads)
    spans = tuple(head for head in heads if head) if free else ()
    parameters = []
    for at, parameter in enumerate(_parameters(node)):
        kind = _type(parameter)
        kind = kind if kind in INTEGERS else ""
        stays = parameter["id"] in flow.bound | flow.addressed or not kind or not free
        types = () if stays else _types([_parameters(one)[at] for one in declarations])
        parameters.append(Parameter(parameter.get("name", ""), kind, types))
    statements = _inner(body)
    returned = None
    if statements and statements[-1]["kind"] == "ReturnStmt" and _inner(statements[-1]):
        returned = _span(_inner(statements[-1])[0])
    result = re.sub(r"\s*\(.*", "", node["type"]["qualType"])
    if returned is not None:
        result = _type(_inner(statements[-1])[0])
    start = _start(body)
    assert start is not None
    return Function(
        name,
        tuple(parameters),
        spans,
        _start(node) or 0,
        start + 1,
        returned,
        result if result in INTEGERS else "",
        tuple(_calls(body)),
        tuple(_constants(text, body, flow)),
        any(one["kind"] in _LOOPS for one in _walk(body)),
        any(one.get("opcode") in _DIVISIONS for one in _walk(body)),
    )


def _types(declared: Sequence[Node]) -> tuple[Span, ...]:
    """Return where the type of a parameter stands in each declaration, none if not everywhere."""
    found = []
    for node in declared:
        start, loc = _start(node), node["loc"]
        if start is None or "name" not in node or "offset" not in loc:
            return ()
        found.append((start, int(loc["offset"])))
    return tuple(found)


def _calls(body: Node) -> Iterator[Call]:
    for node in _walk(body):
        callee = _callee(node) if node["kind"] == "CallExpr" else None
        if callee is not None:
            spans = [_span(argument) for argument in _inner(node)[1:]]
            yield Call(callee, tuple(span or (0, 0) for span in spans))


def _constants(
    text: str, node: Node, flow: _Flow, use: str = "value", bits: int = 0
) -> Iterator[Constant]:
    """Yield the integers in *node* that may have another value."""
    if id(node) in flow.fixed or node["kind"] == "ConstantExpr":
        return
    if node["kind"] == "IntegerLiteral":
        span = _span(node)
        if span is not None and text[span[0]].isdigit() and _type(node) in LITERALS:
            yield Constant(span, _type(node), use, bits)
        return
    inner = _inner(node)
    opcode = node.get("opcode", "")
    for at, child in enumerate(inner):
        if opcode in ("<<", ">>", "<<=", ">>=") and at == 1:
            size = INTEGERS.get(_type(node), (4, True))[0]
            yield from _constants(text, child, flow, "shift", 8 * max(size, 4))
        elif opcode in _DIVISIONS and at == 1:
            yield from _constants(text, child, flow, "divisor")
        else:
            yield from _constants(text, child, flow, use, bits)


# --- cuts -----------------------------------------------------------------------------


def _cuts(text: str, definition: Node) -> Iterator[Edit]:
    """Yield what may be cut out of a function: statements, operands, arguments, conditions."""
    body = _body(definition)
    assert body is not None
    for node in _outside_loops(body):
        inner = _inner(node)
        match node["kind"]:
            case "CompoundStmt":
                for child in inner:
                    if node is body and child is inner[-1] and child["kind"] == "ReturnStmt":
                        continue
                    span = _statement(text, child)
                    if span is not None and _is_needless(text, child, span, body):
                        yield span, ""
            case "BinaryOperator" if node["opcode"] not in ("=", ",") and "*" not in _type(node):
                yield from _replaced(text, node, inner)
            case "ConditionalOperator":
                yield from _replaced(text, node, inner[1:])
            case "IfStmt":
                whole, then = _statement(text, node), _statement(text, inner[1])
                if whole is not None and then is not None:
                    yield whole, text[slice(*then)]
            case "CallExpr" if _callee(node):
                for argument in inner[1:]:
                    span = _span(argument)
                    if _type(argument) in INTEGERS and span and not text[slice(*span)].isdigit():
                        yield span, "0"


def _outside_loops(node: Node) -> Iterator[Node]:
    """Yield *node* and what is in it, but nothing of what says how often a loop runs."""
    yield node
    for child in _inner(node):
        if node["kind"] not in _LOOPS or _is_body(child, node):
            yield from _outside_loops(child)


def _replaced(text: str, node: Node, parts: Sequence[Node]) -> Iterator[Edit]:
    whole = _span(node)
    for part in parts:
        span = _span(part)
        if whole is not None and span is not None:
            yield whole, text[slice(*span)]


def _statement(text: str, node: Node) -> Span | None:
    """Return where a statement stands, with its semicolon; None where that cannot be told."""
    start, end = _start(node), _end(node)
    if start is None or end is None or node["kind"] in ("CaseStmt", "DefaultStmt", "LabelStmt"):
        return None
    if text[end - 1] in ";}":
        return start, end
    semicolon = re.compile(r"[\s)]*;").match(text, end)
    return (start, semicolon.end()) if semicolon else None


def _is_needless(text: str, node: Node, span: Span, body: Node) -> bool:
    """Return whether nothing else in *body* mentions what *node* declares."""
    if node["kind"] != "DeclStmt":
        return True
    first, behind = _start(body) or 0, _end(body) or 0
    rest = set(_NAME.findall(text[first : span[0]] + " " + text[span[1] : behind]))
    return not rest & {one["name"] for one in _inner(node) if "name" in one}
