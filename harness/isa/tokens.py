"""Tokens and constant expressions of assembler text."""

from __future__ import annotations

import re
from dataclasses import dataclass


class AsmError(ValueError):
    """Text that is no program; the message begins with line and column, from 1."""

    def __init__(self, line: int, column: int, reason: str) -> None:
        super().__init__(f"{line}:{column}: {reason}")
        self.line = line
        self.column = column
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Token:
    """A word of a line."""

    kind: str  # "name", "number", "local" (1f, 1b), "string", "op", "called", "opcode", "end"
    text: str
    column: int  # from 1
    value: int = 0  # of "number" and "opcode"; of "called", what follows the #


_TOKEN = re.compile(
    r"""[ \t\r\f\v]+ | (?P<comment>\#.*|//.*)
    | (?P<local>[0-9]+[bf])(?![\w.$])
    | (?P<number>0[xX][0-9a-fA-F]+|0[bB][01]+|[0-9]+)(?![\w.$])
    | '(?P<char>[^'\\])'
    | "(?P<string>(?:[^"\\]|\\.)*)"
    | (?P<name>[A-Za-z_.$][\w.$]*)
    | (?P<op><<=|>>=|<<|>>|[-+*/|&^%=!<>]=|[-+*/|&^%=<>()\[\],:;@{}!~?\\])
    """,
    re.VERBOSE | re.ASCII,
)
_CALLED = re.compile(r"([A-Za-z_][\w.-]*)#(-?[0-9]{1,10})(?![\w.])", re.ASCII)  # name#5, after call
_OPCODE = re.compile(r"\s*\(([0-9a-f]{2})\)(?=\s)")  # before an instruction
_SUFFIX = re.compile(r"\s*<[^<>]+>\s*$", re.ASCII)  # the symbol llvm-objdump appends to a jump
_LEVELS = (("+", "-"), ("|", "^", "&"), ("*", "/", "%", "<<", ">>"))  # as GNU as, loosest first
_JUMPS = frozenset({"goto", "gotol", "may_goto", "call", "callx"})
_DEPTH = 50  # of nested parentheses and signs in an expression
_DIGITS = 100
_LARGEST = 1 << 128  # intermediate value of an expression


def scan(number: int, text: str) -> list[Token]:
    """Return the tokens of line *number*, the last of kind "end". Raises AsmError."""
    tokens: list[Token] = []
    at = 0
    jump = False  # whether this is a jump with its target, so that "<" can be no operator
    while at < len(text):
        if tokens and tokens[-1].text == "call" and (called := _CALLED.match(text, at)):
            tokens.append(Token("called", called[1], at + 1, int(called[2])))
            at = called.end()
            continue
        if (not tokens or tokens[-1].text in (":", ";")) and (code := _OPCODE.match(text, at)):
            tokens.append(Token("opcode", code[1], code.start(1), int(code[1], 16)))
            at = code.end()
            continue
        if jump and (suffix := _SUFFIX.match(text, at)):
            at = suffix.end()
            continue
        found = _TOKEN.match(text, at)
        if not found:
            raise AsmError(number, at + 1, f"unexpected {text[at]!r}")
        at = found.end()
        kind, column = found.lastgroup, found.start() + 1
        if kind == "comment":
            break
        if kind == "number":
            if len(found[0]) > _DIGITS:
                raise AsmError(number, column, f"a number of {len(found[0])} digits")
            tokens.append(Token(kind, found[0], column, _number(found[0])))
        elif kind == "char":
            tokens.append(Token("number", found[0], column, ord(found["char"])))
        elif kind:
            tokens.append(Token(kind, found[kind], column))
        jump = jump or (len(tokens) > 1 and tokens[-2].text in _JUMPS)
    tokens.append(Token("end", "", len(text.rstrip()) + 1))
    return tokens


def _number(text: str) -> int:
    """Return the value of a literal: decimal, 0x, 0b, or octal with a leading 0."""
    if text[:2].lower() in ("0x", "0b"):
        return int(text, 0)
    if text[0] == "0" and set(text) <= set("01234567"):
        return int(text, 8)
    return int(text)


class TokenReader:
    """A line's tokens and how far they are read."""

    def __init__(self) -> None:
        self._line = 1
        self._tokens: list[Token] = []
        self._next = 0
        self._depth = 0

    def _open(self, number: int, text: str) -> None:
        """Begin to read line *number*."""
        self._line = number
        self._tokens = scan(number, text)
        self._next = self._depth = 0

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _ahead(self, count: int = 1) -> Token:
        """Return the token *count* after the present one."""
        return self._tokens[min(self._next + count, len(self._tokens) - 1)]

    def _error(self, reason: str, token: Token | None = None) -> AsmError:
        """Return an error at *token*, by default the present one."""
        return AsmError(self._line, (token or self._token).column, reason)

    def _take(self) -> Token:
        token = self._token
        if token.kind != "end":
            self._next += 1
        return token

    def _at(self, text: str) -> bool:
        return self._token.kind in ("op", "name") and self._token.text == text

    def _accept(self, text: str) -> bool:
        if self._at(text):
            self._next += 1
            return True
        return False

    def _expect(self, *texts: str) -> None:
        for text in texts:
            if not self._accept(text):
                raise self._error(f"expected {text!r}, found {self._found()}")

    def _ended(self) -> bool:
        """Return whether the statement is at its end."""
        return self._token.kind == "end" or self._at(";")

    def _found(self) -> str:
        return repr(self._token.text) if self._token.kind != "end" else "the end of the line"

    # --- numbers ------------------------------------------------------------

    def _expression(self, level: int = 0) -> int:
        """Read a constant expression, with the precedence of GNU as."""
        if level == len(_LEVELS):
            return self._term()
        value = self._expression(level + 1)
        while self._token.kind == "op" and self._token.text in _LEVELS[level]:
            token = self._take()
            right = self._expression(level + 1)
            match token.text:
                case "+":
                    value += right
                case "-":
                    value -= right
                case "|":
                    value |= right
                case "^":
                    value ^= right
                case "&":
                    value &= right
                case "*":
                    value *= right
                case "<<" | ">>" if not 0 <= right < 64:
                    raise self._error(f"shift by {right}", token)
                case "<<":
                    value <<= right
                case ">>":
                    value >>= right
                case _ if right == 0:
                    raise self._error("division by zero", token)
                case "/":
                    value = abs(value) // abs(right) * (1 if value * right >= 0 else -1)
                case _:
                    value = abs(value) % abs(right) * (1 if value >= 0 else -1)
            if abs(value) > _LARGEST:
                raise self._error("the value is too large", token)
        return value

    def _term(self) -> int:
        token = self._take()
        if token.kind == "number":
            return token.value
        if token.kind == "op" and token.text in ("-", "+", "~", "("):
            self._depth += 1
            if self._depth > _DEPTH:
                raise self._error("the expression is nested too deeply", token)
            match token.text:
                case "-":
                    value = -self._term()
                case "+":
                    value = self._term()
                case "~":
                    value = ~self._term()
                case _:
                    value = self._expression()
                    self._expect(")")
            self._depth -= 1
            return value
        found = repr(token.text) if token.kind != "end" else "the end of the line"
        raise self._error(f"expected a number, found {found}", token)

    def _imm(self, bits: int = 32) -> int:
        """Read an immediate, written signed or unsigned; return it signed."""
        token = self._token
        return self._signed(self._expression(), bits, token)

    def _signed(self, value: int, bits: int, token: Token) -> int:
        if not -(1 << bits - 1) <= value < 1 << bits:
            way_out = "; write 'll' after it for a 64-bit load" if bits == 32 else ""
            raise self._error(f"{value} does not fit {bits} bits{way_out}", token)
        return (value & (1 << bits) - 1 ^ 1 << bits - 1) - (1 << bits - 1)
