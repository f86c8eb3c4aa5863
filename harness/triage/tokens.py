"""C text as tokens, and back: what the passes of a reduction work on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

_TOKEN = re.compile(
    r"""(?P<comment>/\*.*?\*/|//[^\n]*)
    |(?P<directive>^[ \t]*\#(?:[^\n\\]|\\.)*(?=\n|\Z))
    |(?P<space>\s+)
    |(?P<token>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\w+|<<=|>>=|\.\.\.
       |->|\+\+|--|<<|>>|[<>=!+\-*/%&|^]=|&&|\|\||.)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
CONTROL = ("if", "while", "for", "switch")
CLOSING = {"(": ")", "[": "]", "{": "}"}
BINARY = {
    "+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "&&", "||", "<", ">", "<=", ">=",
    "==", "!=", "=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>=", ",", "?", ":",
}  # fmt: skip


_TYPE = re.compile(r"\b(struct|union|enum)\b[^(){}=;]*$")  # a declarator may follow its braces


def split(text: str) -> list[str]:
    """Return the tokens of *text*, directives whole, without comments and space."""
    return [
        m[0].strip()
        for m in _TOKEN.finditer(text)
        if m.lastgroup in ("directive", "token") and m[0].strip()
    ]


def join(tokens: Sequence[str]) -> str:
    """Return *tokens* as text, one statement a line."""
    lines: list[str] = []
    line = ""
    depth = values = 0  # open brackets; open braces of an initialiser
    types: list[bool] = []  # for each other open brace: whether it is a type's
    for token in tokens:
        if token.startswith("#"):
            if line:
                lines.append(line)
            lines.append(token)
            line = ""
            continue
        depth += token in ("(", "[")
        depth -= token in (")", "]")
        glue = line and (
            ((line[-1].isalnum() or line[-1] == "_") and (token[0].isalnum() or token[0] in "_\"'"))
            or (line[-1] in ")}" and (token[0].isalpha() or token[0] == "_"))
            or line[-1] + token[0] in ("++", "--", "&&", "<<", ">>", "==", "//", "/*")
        )
        values += token == "{" and (values > 0 or line.endswith("="))
        inside = values > 0
        values -= token == "}" and inside
        if token == "{" and not inside:
            types.append(_TYPE.search(line) is not None)
        named = token == "}" and not inside and bool(types) and types.pop()
        line += (" " if glue else "") + token
        if not depth and not inside and token in (";", "{", "}") and not named:
            lines.append(line)
            line = ""
    return "\n".join([*lines, line]).strip() + "\n"


def closing(tokens: Sequence[str], start: int) -> int | None:
    """Return the index of the bracket that closes the one at *start*."""
    depth = 0
    for index in range(start, len(tokens)):
        if tokens[index] in CLOSING:
            depth += 1
        elif tokens[index] in CLOSING.values():
            depth -= 1
            if depth == 0:
                return index
    return None


def statement_end(tokens: Sequence[str], start: int) -> int | None:
    """Return the end (excluded) of the statement or definition at *start*."""
    index = start
    while index < len(tokens):
        token = tokens[index]
        if token.startswith("#") and index == start:
            return index + 1
        if token == ";":
            return index + 1
        if token in ("}", ")", "]"):
            return None
        if token in CLOSING:
            end = closing(tokens, index)
            if end is None:
                return None
            index = end
            follows = tokens[end + 1] if end + 1 < len(tokens) else ""
            if token == "{" and tokens[max(start, 0)] not in ("struct", "union", "enum", "do"):
                initialiser = follows in (";", ",") or "=" in tokens[start:index]
                if follows == "else":
                    index += 1
                elif not (initialiser and follows == ";"):
                    return end + 1
        index += 1
    return None


def statement_starts(tokens: Sequence[str]) -> list[int]:
    """Return where statements and definitions may start."""
    found, depth = [0], 0
    controlled: list[bool] = []  # for each open parenthesis: whether a statement follows it
    for index, token in enumerate(tokens[:-1]):
        if token == "(":
            controlled.append(index > 0 and tokens[index - 1] in CONTROL)
        closes = token == ")" and bool(controlled) and controlled.pop()
        depth += token in ("(", "[")
        depth -= token in (")", "]")
        ends = token in (";", "{", "}", ":", "else") or closes or token.startswith("#")
        if not depth and ends:
            found.append(index + 1)
    return found


_SAYS_MORE = {
    "extern", "asm", "__asm__", "__asm", "section", "alias", "weak", "ifunc", "typeof",
    "__typeof__", "naked", "_Static_assert", "_Generic",
}  # fmt: skip
_NOT_CALLED = {*CONTROL, "return", "sizeof", "_Alignof", "case", "else", "do", "__attribute__"}


def outline(text: str) -> str | None:
    """Return *text* with the bodies of its functions empty, which have the same types then.

    None where a body may matter to more than its own function: where something is used that
    *text* does not define, or where macros, comments or assembly may say anything.
    """
    tokens = split(text)
    if "/*" in text or "//" in text or _SAYS_MORE & set(tokens):
        return None
    out: list[str] = []
    defined: set[str] = set()
    called: set[str] = set()
    at = 0
    while at < len(tokens):
        end = statement_end(tokens, at)
        if end is None:
            return None
        chunk = tokens[at:end]
        at = end
        if chunk[0].startswith("#"):
            if not re.match(r"#\s*include\s*<std\w+\.h>", chunk[0]):
                return None
            out += chunk
            continue
        body = chunk.index("{") if "{" in chunk else 0
        names = _before_brackets(chunk[:body])
        if body and chunk[body - 1] == ")" and closing(chunk, body) == len(chunk) - 1 and names:
            defined.add(names[0])
            called.update(_before_brackets(chunk[body:]))
            out += [*chunk[: body + 1], "}"]
        elif "(" in chunk and chunk[0] != "typedef":
            return None
        else:
            out += chunk
    return join(out) if called <= defined else None


def _before_brackets(tokens: Sequence[str]) -> list[str]:
    """Return the names that a bracket follows, which may be called or defined."""
    return [
        token
        for token, after in pairwise(tokens)
        if after == "(" and (token[0].isalpha() or token[0] == "_") and token not in _NOT_CALLED
    ]


def layout_text(text: str) -> str:
    """Return *text* as people write it: indented, spaces around operators."""
    lines: list[str] = []
    depth = 0
    for line in join(split(text)).splitlines():
        if line.startswith("#"):
            lines.append(line)
            continue
        if line.startswith("}"):
            depth = max(depth - 1, 0)
            if line == "};" or line == "}":
                lines.append("\t" * depth + line)
                continue
            depth_after = depth
        else:
            depth_after = depth
        pieces = re.sub(r"([,;])(?=\S)", r"\1 ", line)
        pieces = re.sub(
            r"(?<=[\w)\]])(\+|-|\*|/|%|\^|\||<<|>>|==|!=|<=|>=|=|\?|:)(?=[\w(~])", r" \1 ", pieces
        )
        pieces = re.sub(r"^\}(?=[*\w])", "} ", pieces)
        pieces = re.sub(r"(?<=\S)\{$", " {", pieces)
        pieces = re.sub(r"\)(?=\w)", ") ", pieces)
        pieces = re.sub(r"(?<=\))=(?=[\w{ ])", " = ", pieces)
        pieces = re.sub(r"=\{", "= {", pieces)
        pieces = re.sub(r"(?<=[\w\]])__attribute__", " __attribute__", pieces)
        pieces = re.sub(r"\b(if|while|for|switch)\(", r"\1 (", pieces)
        lines.append("\t" * depth_after + pieces)
        if line.endswith("{"):
            depth = depth_after + 1
    out = "\n".join(lines) + "\n"
    out = re.sub(r"\{\n\s*\}", "{}", out)
    return re.sub(r"\}\n\s*;", "};", out)
