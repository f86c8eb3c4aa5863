"""Passes over C: each proposes texts with one thing less, in a fixed order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from harness.triage.tokens import (
    BINARY,
    CLOSING,
    closing,
    join,
    split,
    statement_end,
    statement_starts,
)

# Each returns proposal number *index* for *text*, None where it has no more.

Propose = Callable[[str, int, str], str | None]


def _numbered(make: Callable[[list[str], str], Iterator[list[str]]]) -> Propose:
    def propose(text: str, index: int, function: str) -> str | None:
        tokens = split(text)
        for number, proposal in enumerate(make(tokens, function)):
            if number == index:
                return join(proposal)
        return None

    return propose


def _bare(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """Only tokens: no comments, one statement a line."""
    yield tokens


def _chunks(tokens: list[str]) -> list[tuple[int, int]]:
    chunks, at = [], 0
    while at < len(tokens):
        end = statement_end(tokens, at) or at + 1
        chunks.append((at, end))
        at = end
    return chunks


def _reachable(tokens: list[str], function: str) -> Iterator[list[str]]:
    """Only what *function* names, and what that names."""
    chunks = [tokens[a:b] for a, b in _chunks(tokens)]
    names = {function}
    while True:
        kept = [c for c in chunks if c[0].startswith("#") or _defined(c) & names]
        more = names | {t for c in kept for t in c if t[0].isalpha() or t[0] == "_"}
        if more == names:
            break
        names = more
    yield [token for chunk in kept for token in chunk]


def _without_macros(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """Propose a macro's body wherever it is used, and the macro gone."""
    for index, token in enumerate(tokens):
        macro = _MACRO.fullmatch(token)
        if macro is None or "..." in token:
            continue
        name, parameters, text = macro.groups()
        text = re.sub(r"\\\n", " ", text or "")
        body = split(text)
        rest = tokens[:index] + tokens[index + 1 :]
        if "#" in text or any(re.search(rf"\b{name}\b", t) for t in rest if t.startswith("#")):
            continue
        names = None if parameters is None else [p.strip() for p in parameters.split(",")]
        yield _expanded(rest, name, names, body)


def _expanded(
    tokens: Sequence[str], name: str, parameters: list[str] | None, body: list[str]
) -> list[str]:
    out: list[str] = []
    at = 0
    while at < len(tokens):
        places = None
        if tokens[at] == name and parameters is None:
            out += body
        elif tokens[at] == name and tokens[at + 1 : at + 2] == ["("]:
            places = _arguments(tokens, at + 1)
            values = [list(tokens[a:b]) for a, b in places or ()]
            if places is None or len(values) != len(parameters or ()):
                return list(tokens)
            given = dict(zip(parameters or (), values, strict=True))
            for token in body:
                out += given.get(token, [token])
            at = closing(tokens, at + 1) or at
        else:
            out.append(tokens[at])
        at += 1
    return out


_MACRO = re.compile(r"#\s*define\s+(\w+)(?:\(([^)]*)\))?(?:\s+(.*))?", re.DOTALL)


def _defined(chunk: Sequence[str]) -> set[str]:
    """Return the names that *chunk* may define: those before its body or initialiser."""
    names: set[str] = set()
    depth = 0
    for index, token in enumerate(chunk):
        body = token == "{" and chunk[0] not in ("typedef", "enum", "union", "struct")
        if body or (token == "=" and chunk[0] != "struct"):
            break
        depth += token in ("(", "[")
        depth -= token in (")", "]")
        if not depth and (token[0].isalpha() or token[0] == "_"):
            names.add(token)
        if token == "(" and index and chunk[0] != "typedef":
            names.add(chunk[index - 1])
    return names


def _heads(tokens: Sequence[str]) -> dict[int, int]:
    """Return where the parameters of each function that has a body begin and end."""
    found, depth = {}, 0
    for index, token in enumerate(tokens):
        name = tokens[index - 1] if index else ""
        if token == "(" and not depth and (name[:1].isalpha() or name[:1] == "_"):
            end = closing(tokens, index)
            if end is not None and tokens[end + 1 : end + 2] == ["{"]:
                found[index] = end
        depth += token in CLOSING
        depth -= token in CLOSING.values()
    return found


def _without_statements(tokens: list[str], function: str) -> Iterator[list[str]]:
    """Without one statement or definition, the longest first."""
    spans = {
        (a, b) for a in statement_starts(tokens) if (b := statement_end(tokens, a)) is not None
    }
    tested = [start for start in _heads(tokens) if tokens[start - 1] == function]
    for a, b in sorted(spans, key=lambda s: (s[0] - s[1], s[0])):
        if any(a <= start < b for start in tested):
            continue
        yield tokens[:a] + tokens[b:]


def _unwrapped(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """Propose a block or a statement without what controls it: if, else, for, while, do, switch."""
    for index, token in enumerate(tokens):
        if token in ("if", "while", "for", "switch") and tokens[index + 1 : index + 2] == ["("]:
            end = closing(tokens, index + 1)
            if end is None:
                continue
            yield tokens[:index] + tokens[end + 1 :]
            after = statement_end(tokens, end + 1)
            if after is not None and tokens[end + 1] == "{":
                yield tokens[:index] + tokens[end + 2 : after - 1] + tokens[after:]
        if token == "{" and index and tokens[index - 1] in ("{", "}", ";"):
            end = closing(tokens, index)
            if end is not None:
                yield tokens[:index] + tokens[index + 1 : end] + tokens[end + 1 :]


def _operand_after(tokens: Sequence[str], index: int) -> int:
    """Return the end (excluded) of the operand that starts at *index*."""
    while index < len(tokens) and tokens[index] in ("-", "~", "!", "*", "&", "+", "++", "--"):
        index += 1
    if index < len(tokens) and tokens[index] == "(":
        end = closing(tokens, index)
        index = index if end is None else end
        following = tokens[index + 1] if index + 1 < len(tokens) else ""
        if following and (following[0].isalnum() or following[0] in "_(~!"):
            return _operand_after(tokens, index + 1)  # that was a cast
    index += 1
    while index < len(tokens) and tokens[index] in ("(", "[", ".", "->"):
        if tokens[index] in ("(", "["):
            end = closing(tokens, index)
            if end is None:
                return index
            index = end + 1
        else:
            index += 2
    return index


def _operand_before(tokens: Sequence[str], end: int) -> int:
    """Return the start of the operand that ends before *end*."""
    index = end - 1
    while index > 0:
        if tokens[index] in (")", "]"):
            depth = 0
            while index >= 0:
                depth += tokens[index] in (")", "]")
                depth -= tokens[index] in ("(", "[")
                if depth == 0:
                    break
                index -= 1
            before = tokens[index - 1] if index > 0 else ""
            if before and (before[0].isalnum() or before[0] == "_" or before in (")", "]")):
                if before in ("return", "if", "while", "for", "switch", "sizeof"):
                    return index
                index -= 1
                continue
            return index
        if index >= 1 and tokens[index - 1] in (".", "->"):
            index -= 2
            continue
        return index
    return max(index, 0)


def _without_operands(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """Without one operand of a binary operator, and the operator."""
    for index, token in enumerate(tokens):
        if token not in BINARY or token in (",", "=", "?", ":") or index == 0:
            continue
        end = _operand_after(tokens, index + 1)
        yield tokens[:index] + tokens[end:]
        start = _operand_before(tokens, index)
        yield tokens[:start] + tokens[index + 1 :]


def _choices(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """One side of a conditional expression."""
    for index, token in enumerate(tokens):
        if token != "?":
            continue
        depth = 0
        for colon in range(index + 1, len(tokens)):
            depth += tokens[colon] in CLOSING
            depth -= tokens[colon] in CLOSING.values()
            if depth < 0:
                break
            if depth == 0 and tokens[colon] == ":":
                start = _operand_before(tokens, index)
                end = _operand_after(tokens, colon + 1)
                yield tokens[:start] + tokens[index + 1 : colon] + tokens[end:]
                yield tokens[:start] + tokens[colon + 1 :]
                break


def _groups(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """Propose a group, a call or an element replaced by nothing, by a number, or by its content."""
    heads = _heads(tokens)
    for index, token in enumerate(tokens):
        attribute = "__attribute__" in tokens[max(index - 2, 0) : index]
        if token not in ("(", "[") or index in heads or attribute:
            continue
        end = closing(tokens, index)
        if end is None or end == index + 1:
            continue
        before = tokens[index - 1] if index else ""
        named = bool(before) and (before[0].isalpha() or before[0] == "_")
        if token == "(":
            if named and before not in ("return", "if", "while", "for", "switch"):
                yield [*tokens[: index - 1], "0", *tokens[end + 1 :]]
            yield [*tokens[:index], "0", *tokens[end + 1 :]]
            yield tokens[:index] + tokens[index + 1 : end] + tokens[end + 1 :]
        yield tokens[:index] + tokens[end + 1 :]


def _arguments(tokens: Sequence[str], start: int) -> list[tuple[int, int]] | None:
    """Return start and end of each argument in the parentheses that open at *start*."""
    end = closing(tokens, start)
    if end is None:
        return None
    found, at, depth = [], start + 1, 0
    for index in range(start + 1, end):
        depth += tokens[index] in CLOSING
        depth -= tokens[index] in CLOSING.values()
        if depth == 0 and tokens[index] == ",":
            found.append((at, index))
            at = index + 1
    return [*found, (at, end)] if end > start + 1 else []


def _parameters(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """Without one parameter of a function, its argument everywhere, and its uses made 0."""
    names: dict[str, int] = {}
    for index, token in enumerate(tokens[:-1]):
        if tokens[index + 1] == "(" and (token[0].isalpha() or token[0] == "_"):
            end = closing(tokens, index + 1)
            defined = end is not None and tokens[end + 1 : end + 2] == ["{"]
            if defined and token not in (*names, "if", "while", "for", "switch"):
                names[token] = len(_arguments(tokens, index + 1) or [])
    for name, count in names.items():
        for number in reversed(range(count)):
            if count == 1 and number == 0:
                yield _without_parameter(tokens, name, number, "void")
            else:
                yield _without_parameter(tokens, name, number, "")


def _without_parameter(tokens: list[str], name: str, number: int, left: str) -> list[str]:
    out: list[str] = []
    index = 0
    body: tuple[int, str] | None = None  # where the definition ends, and the parameter's name
    while index < len(tokens):
        if tokens[index] == name and tokens[index + 1 : index + 2] == ["("]:
            places = _arguments(tokens, index + 1)
            end = closing(tokens, index + 1)
            if places and end is not None and number < len(places):
                definition = tokens[end + 1 : end + 2] == ["{"]
                a, b = places[number]
                if definition:
                    close = closing(tokens, end + 1)
                    words = [t for t in tokens[a:b] if t[0].isalpha() or t[0] == "_"]
                    body = (close or len(tokens), words[-1] if words else "")
                keep = [tokens[x:y] for n, (x, y) in enumerate(places) if n != number]
                out += [name, "("]
                for n, words in enumerate(keep):
                    out += ([","] if n else []) + words
                if not keep and definition and left:
                    out.append(left)
                out.append(")")
                index = end + 1
                continue
        if body is not None and index >= body[0]:
            body = None
        out.append("0" if body is not None and tokens[index] == body[1] else tokens[index])
        index += 1
    return out


def _numbers(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """Smaller numbers."""
    for index, token in enumerate(tokens):
        match = re.fullmatch(r"(0[xX][0-9a-fA-F]+|\d+)[uUlL]*", token)
        if not match:
            continue
        value = int(match[1], 16 if match[1][:2].lower() == "0x" else 10)
        smaller = dict.fromkeys(n for n in (0, 1, 2, value // 2) if n < value)
        for number in smaller:
            yield [*tokens[:index], str(number), *tokens[index + 1 :]]
        if token != str(value):
            yield [*tokens[:index], str(value), *tokens[index + 1 :]]


# fmt: off
_PLAIN = {
    "int8_t": "signed char", "int16_t": "short", "int32_t": "int", "int64_t": "long",
    "uint8_t": "unsigned char", "uint16_t": "unsigned short", "uint32_t": "unsigned",
    "uint64_t": "unsigned long", "bool": "_Bool", "size_t": "unsigned long",
}
# fmt: on


def _plain_types(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """Propose plain types instead of names for them, so that headers and typedefs may go."""
    plain = {name: text.split() for name, text in _PLAIN.items() if name in tokens}
    for start, end in _chunks(tokens):
        words = tokens[start : end - 1]
        simple = all(word[0].isalpha() or word[0] == "_" for word in words)
        if tokens[start] == "typedef" and simple and "{" not in words and len(words) > 2:
            plain[words[-1]] = words[1:-1]
    if len(plain) > 1:
        yield _renamed(tokens, plain)
    for name, text in plain.items():
        yield _renamed(tokens, {name: text})


def _renamed(tokens: list[str], plain: dict[str, list[str]]) -> list[str]:
    out: list[str] = []
    at = 0
    while at < len(tokens):
        end = statement_end(tokens, at) if tokens[at] == "typedef" else None
        if end is not None and tokens[end - 2] in plain:
            at = end  # its own definition
            continue
        out += plain.get(tokens[at], [tokens[at]])
        at += 1
    return out


_NEEDLESS = {
    "static", "const", "volatile", "inline", "restrict", "else", "unsigned",
    "-", "~", "!", "&", "*", "++", "--",
}  # fmt: skip


def _without_tokens(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """Without a word that need not be there: a qualifier, an attribute, a sign, a label."""
    heads = _heads(tokens).items()
    for index, token in enumerate(tokens):
        if token in ("__attribute__", "_Alignas", "_Static_assert"):
            end = closing(tokens, index + 1) if tokens[index + 1 : index + 2] == ["("] else None
            if end is not None:
                yield tokens[:index] + tokens[end + 1 :]
        elif token in _NEEDLESS or token.startswith("#"):
            yield tokens[:index] + tokens[index + 1 :]
        elif token == "," and index + 1 < len(tokens):
            if any(a < index < b for a, b in heads):
                continue  # a parameter goes with its arguments, or not at all
            yield tokens[:index] + tokens[_operand_after(tokens, index + 1) :]


def _assignments(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """Propose an assigned or returned value replaced by 0."""
    for index, token in enumerate(tokens):
        if token in ("=", "return"):
            depth = 0
            for end in range(index + 1, len(tokens)):
                depth += tokens[end] in CLOSING
                depth -= tokens[end] in CLOSING.values()
                if depth < 0 or (depth == 0 and tokens[end] in (";", ",")):
                    if end > index + 2:
                        yield [*tokens[: index + 1], "0", *tokens[end:]]
                    break


PASSES: tuple[Propose, ...] = tuple(
    _numbered(make)
    for make in (
        _bare,
        _reachable,
        _without_statements,
        _without_macros,
        _plain_types,
        _parameters,
        _unwrapped,
        _assignments,
        _without_operands,
        _choices,
        _groups,
        _numbers,
        _without_tokens,
    )
)
