"""Programs that break one rule: accepted streams with one thing changed.

Each rule names the refusal it is after by the beginning of Linux's message, and changes the
lines of a program's text. Whether the result is refused, and with which words, is for a
verifier to say: a change may hit a path that is never walked, or meet another rule first.
``line_changes`` are blind ones, which meet rules nobody thought of.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness.corpus import FunctionDecl, ProgramText

Lines = list[str]
Change = Callable[[random.Random, Lines], "Lines | None"]

_STORE = re.compile(r"\*\(u64 \*\)\(r11 - 0x([0-9a-f]+)\) = ")
_LOAD = re.compile(r"r(\d+) = \*\(u64 \*\)\(r11 \+ 0x([0-9a-f]+)\)")
_MEMORY = re.compile(r"\*\((u|s)(8|16|32|64) \*\)\(r(\d+) ([+-]) 0x([0-9a-f]+)\)")
_ALU = re.compile(r"([rw])(\d+) (\S+)= (-?\w+)$")
_REGISTER = re.compile(r"\b([rw])(\d+)\b")
_NUMBER = re.compile(r"(?<![\w])-?0x[0-9a-f]+\b")
_VALUE = re.compile(r"(map\[idx:\d\]\+)\d+")
_LABEL = re.compile(r"(\w+):$")
_JUMP = re.compile(r"(?:goto|gotol) (\w+)$")


def _where(lines: Lines, pattern: re.Pattern[str] | str) -> list[int]:
    return [n for n, line in enumerate(lines) if re.search(pattern, line)]


def _put(lines: Lines, at: int, *new: str) -> Lines:
    return [*lines[:at], *new, *lines[at + 1 :]]


def _pick(rng: random.Random, found: Sequence[int]) -> int | None:
    return rng.choice(found) if found else None


def _edit(
    pattern: re.Pattern[str] | str, change: Callable[[random.Random, re.Match[str]], str | None]
) -> Change:
    """Return a change of one match of *pattern*."""

    def edit(rng: random.Random, lines: Lines) -> Lines | None:
        at = _pick(rng, _where(lines, pattern))
        if at is None:
            return None
        match = re.search(pattern, lines[at])
        assert match is not None
        new = change(rng, match)
        if new is None:
            return None
        line = lines[at]
        return _put(lines, at, line[: match.start()] + new + line[match.end() :])

    return edit


def _insert(where: re.Pattern[str] | str, *new: str, after: bool = False) -> Change:
    """Return a change that puts lines before, or *after*, a match of *where*."""

    def insert(rng: random.Random, lines: Lines) -> Lines | None:
        at = _pick(rng, _where(lines, where))
        if at is None:
            return None
        at += after
        return [*lines[:at], *new, *lines[at:]]

    return insert


def _at_exit(*new: str) -> Change:
    return _insert(r"^exit$", *new)


def _behind(where: str, *new: str) -> Change:
    return _insert(where, *new, after=True)


def _drop(pattern: re.Pattern[str] | str) -> Change:
    def drop(rng: random.Random, lines: Lines) -> Lines | None:
        at = _pick(rng, _where(lines, pattern))
        return None if at is None else _put(lines, at)

    return drop


def _late_load(rng: random.Random, lines: Lines) -> Lines | None:
    """Move an incoming load behind the first call or outgoing store that follows."""
    loads = _where(lines, _LOAD)
    at = _pick(rng, loads)
    if at is None:
        return None
    for later in range(at + 1, len(lines)):
        if _LABEL.match(lines[later]) and not _LABEL.match(lines[later])[1].count("_"):  # type: ignore[index]
            return None
        if _STORE.search(lines[later]) or lines[later].startswith("call "):
            copy = lines[at]
            return [*lines[: later + 1], copy, *lines[later + 1 :]]
    return None


def _endless(rng: random.Random, lines: Lines) -> Lines | None:
    """Take the count out of a loop."""
    found = [
        n for n in _where(lines, r"^if [rw]\d+ != 0 goto") if re.search(r" -= 0x1$", lines[n - 1])
    ]  # fmt: skip
    at = _pick(rng, found)
    return None if at is None else _put(lines, at - 1)


def _self_jump(rng: random.Random, lines: Lines) -> Lines | None:
    at = _pick(rng, _where(lines, r"^exit$"))
    return None if at is None else [*lines[:at], "goto -1", *lines[at:]]


def _wrong_label(rng: random.Random, lines: Lines) -> Lines | None:
    """Let a jump lead into another function, or to another place of its own."""
    at = _pick(rng, _where(lines, _JUMP))
    labels = [m[1] for line in lines if (m := _LABEL.match(line))]
    if at is None or not labels:
        return None
    return _put(lines, at, _JUMP.sub(lambda m: m[0].replace(m[1], rng.choice(labels)), lines[at]))


def _recursive(rng: random.Random, lines: Lines) -> Lines | None:
    """Let a function call itself, or one that calls it."""
    names = [m[1] for line in lines if (m := re.match(r"(f\d+):$", line))]
    at = _pick(rng, _where(lines, r"^call f\d+$"))
    return None if at is None else _put(lines, at, f"call {rng.choice(names)}")


def _narrower(rng: random.Random, match: re.Match[str]) -> str:
    return match[0].replace("u64", rng.choice(("u8", "u16", "u32")))


def _moved(rng: random.Random, match: re.Match[str]) -> str:
    off = int(match[1] if match.re is _STORE else match[2], 16)
    sign, new = ("-", off) if match.re is _STORE else ("+", off)
    draw = rng.randrange(4)
    if draw == 0:
        new = off + rng.choice((1, 2, 4))
    elif draw == 1:
        new = 0
    elif draw == 2:
        sign = "+" if sign == "-" else "-"
    else:
        new = 8 * rng.randint(8, 40)
    return re.sub(r"[+-] 0x[0-9a-f]+", f"{sign} {new:#x}", match[0])


def _far(rng: random.Random, match: re.Match[str]) -> str | None:
    if match[3] == "11":
        return None
    off = rng.choice((0x10, 0x38, 0x40, 0x100, 0x7FF8, 1, 3))
    return f"*({match[1]}{match[2]} *)(r{match[3]} {rng.choice('+-')} {off:#x})"


def _other_register(rng: random.Random, match: re.Match[str]) -> str:
    return f"{match[1]}{rng.randrange(11)}"


def _beyond(rng: random.Random, match: re.Match[str]) -> str:
    return f"r{match[1]} = *(u64 *)(r11 + {8 * rng.randint(5, 9):#x})"


def _deeper(rng: random.Random, _match: re.Match[str]) -> str:
    return f"r10 - 0x{rng.randint(1, 4)}"


def _shift(rng: random.Random, match: re.Match[str]) -> str:
    return f" {match[1]}= {rng.choice((32, 64, 255, -1))}"


def _comparison(rng: random.Random, _match: re.Match[str]) -> str:
    return rng.choice(_COMPARISONS)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule and the change that breaks it."""

    message: str  # how Linux's message begins, numbers left out; "": any
    change: Change


# fmt: off
RULES = (
    Rule("callee expects",             _drop(_STORE)),
    Rule("R11 is invalid",             _edit(_STORE, _narrower)),
    Rule("R11 is invalid",             _edit(_LOAD, _narrower)),
    Rule("R11 is invalid",             _edit(_STORE, _moved)),
    Rule("R11 is invalid",             _edit(_LOAD, _moved)),
    Rule("R11 is invalid",             _insert(_STORE, "r11 += 8")),
    Rule("R11 is invalid",             _insert(_STORE, "r0 = r11")),
    Rule("R11 is invalid",             _insert(_STORE, "lock *(u64 *)(r11 - 0x8) += r10")),
    Rule("R11 is invalid",             _insert(_STORE, "r1 = (s8)r11")),
    Rule("R11 is invalid",             _edit(r"^if r\d+", lambda _r, _m: "if r11")),
    Rule("stack arg write offset",     _edit(_STORE, lambda _r, _m: "*(u64 *)(r11 - 0x40) = ")),
    Rule("invalid read from stack arg", _edit(_LOAD, _beyond)),
    Rule("r11 load must be before",    _late_load),
    Rule("func# writes",               _insert(_STORE, "*(u64 *)(r11 - 0x38) = 1")),
    Rule("R# !read_ok",                _edit(_REGISTER, _other_register)),
    Rule("R# !read_ok",                _behind(r"^call ", "r0 = r5")),
    Rule("R# !read_ok",                _drop(r"^r0 = r\d+$")),
    Rule("invalid access",             _edit(_MEMORY, _far)),
    Rule("invalid access",             _edit(r"r10 - 0x", _deeper)),
    Rule("invalid access",             _edit(_VALUE, lambda _r, m: f"{m[1]}63")),
    Rule("direct value offset",        _edit(_VALUE, lambda _r, m: f"{m[1]}64")),
    Rule("leaks addr",                 _edit(r"^r0 = r\d+$", lambda _r, _m: "r0 = r10")),
    Rule("unreachable insn",           _behind(r"^exit$", "r0 = 0", "exit")),
    Rule("unreachable insn",           _edit(r"^if .* goto", lambda _r, _m: "goto")),
    Rule("infinite loop detected",     _endless),
    Rule("infinite loop detected",     _self_jump),
    Rule("back-edge",                  _wrong_label),
    Rule("recursive call",             _recursive),
    Rule("frame pointer is read only", _insert(r"^r\d+ ", "r10 = 8")),
    Rule("frame pointer is read only", _insert(r"^r\d+ ", "r10 += -8")),
    Rule("div by zero",                _edit(r" (s?[/%])= 0x\w+$", lambda _r, m: f" {m[1]}= 0x0")),
    Rule("invalid shift",              _edit(r" (<<|s?>>)= 0x\w+$", _shift)),
    Rule("R# invalid mem access",      _drop(r"^if r\d+ == 0 goto")),
    Rule("R# invalid mem access",      _behind(r"^call ", "r0 = *(u64 *)(r0 + 0)")),
    Rule("write into map forbidden",   _edit(r"idx:0\]\+", lambda _r, _m: "idx:1]+")),
    Rule("R# pointer arithmetic",      _insert(r"^r\d+ = r10$", "r1 = r10", "r1 *= 2")),
    Rule("R# pointer arithmetic",      _at_exit("r1 = r10", "w1 += 8")),
    Rule("R# pointer arithmetic",      _at_exit("r1 = r10", "r1 = -r1")),
    Rule("R# bitwise operator",        _at_exit("r1 = r10", "r1 |= 4")),
    Rule("R# 32-bit pointer",          _at_exit("r1 = r10", "w1 ^= w1")),
    Rule("misaligned",                 _at_exit("lock *(u64 *)(r10 - 0xc) += r0")),
    Rule("BPF_ATOMIC",                 _at_exit("lock *(u32 *)(r0 + 0x0) += r0")),
    Rule("last insn is not an exit",   _drop(r"^exit$")),
    Rule("R# type=",                   _edit(r"^r2 = r10$", lambda _r, _m: "r2 = 5")),
    Rule("R# type=",                   _edit(r"^r1 = map\[idx:\d\]$", lambda _r, _m: "r1 = r10")),
    Rule("R# type=",                   _insert(r"^call bpf_", "r2 = 0")),
    Rule("jump out of range",          _edit(_JUMP, lambda _r, _m: "goto +999")),
    Rule("jump into the middle",       _at_exit("if r1 > 3 goto +1", "r2 = 1 ll")),
    Rule("invalid func",               _at_exit("call 0x7fff")),
    Rule("unknown opcode",             _at_exit(".8byte 0x00000000000000ff")),
    Rule("uses reserved fields",       _at_exit(".8byte 0x0000000100010107")),
)
# fmt: on


def _swapped(rng: random.Random, lines: Lines) -> Lines | None:
    if len(lines) < 3:
        return None
    at = rng.randrange(len(lines) - 1)
    return [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]


def _doubled(rng: random.Random, lines: Lines) -> Lines | None:
    at = _pick(rng, _where(lines, r"[^:]$"))
    return None if at is None else [*lines[:at], lines[at], *lines[at:]]


def _spliced(rng: random.Random, lines: Lines) -> Lines | None:
    """Put a line where it does not belong."""
    source = _pick(rng, _where(lines, r"[^:]$"))
    if source is None:
        return None
    to = rng.randrange(len(lines))
    return [*lines[:to], lines[source], *lines[to:]]


def _number(rng: random.Random, _match: re.Match[str]) -> str:
    values = (0, 1, 2, 4, 7, 8, 16, 31, 32, 63, 64, 127, 128, 255, 0x7FFF, 0x7FFFFFFF)
    return f"{rng.choice(values):#x}"


_OPERATORS = ("+=", "-=", "*=", "|=", "&=", "<<=", ">>=", "%=", "^=", "s>>=", "s/=", "=")
_COMPARISONS = ("==", "!=", "<", "s<", ">", "s>=", "&")
line_changes: tuple[Change, ...] = (
    _drop(r"[^:]$"),
    _swapped,
    _doubled,
    _spliced,
    _edit(_REGISTER, _other_register),
    _edit(_NUMBER, _number),
    _edit(r" (s?[-+*/|&^%]|s?>>|<<)= ", lambda r, _m: f" {r.choice(_OPERATORS)} "),
    _edit(r"\bu(8|16|32|64) ", lambda r, _m: f"{r.choice('us')}{r.choice((8, 16, 32, 64))} "),
    _edit(r"(?<=[rw]\d )(s?[<>]=?|[!=]=|&)(?= )", _comparison),
    _edit(r"\b([rw])(?=\d)", lambda _r, m: "w" if m[1] == "r" else "r"),
    _wrong_label,
)  # fmt: skip


def near_miss(rng: random.Random, text: ProgramText) -> tuple[ProgramText, str]:
    """Return *text* with one rule broken, and the message it is after; "" for blind changes."""
    lines = text.asm.splitlines()
    for _ in range(50):
        if rng.random() < 0.08:
            other = _declared_otherwise(rng, text)
            if other is not None and other[0] != text:
                return other
            continue
        rule = Rule("", rng.choice(line_changes)) if rng.random() < 0.3 else rng.choice(RULES)
        broken = rule.change(rng, lines)
        if broken is not None and broken != lines:
            return replace(text, asm="\n".join(broken) + "\n"), rule.message
    return text, ""


def _declared_otherwise(rng: random.Random, text: ProgramText) -> tuple[ProgramText, str] | None:
    """Return *text* with a function that takes more or fewer arguments, or is global."""
    functions = [f for f in text.functions if f.name.startswith("f")]
    if not functions:
        return None
    chosen = rng.choice(functions)
    match rng.randrange(4):
        case 0:
            new, message = (*chosen.args, *["u64"] * rng.choice((1, 1, 2, 8))), "callee expects"
        case 1:
            cut = max(0, len(chosen.args) - rng.choice((1, 1, 3)))
            new, message = chosen.args[:cut], "invalid read from stack arg"
        case 2:
            new, message = (*chosen.args, *["u64"] * 13), "kernel supports at most"
        case _:
            return _with(text, replace(chosen, linkage="global")), "global function"
    return _with(text, replace(chosen, args=tuple(new))), message


def _with(text: ProgramText, function: FunctionDecl) -> ProgramText:
    functions = tuple(function if f.name == function.name else f for f in text.functions)
    return replace(text, functions=functions)
