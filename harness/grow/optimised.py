"""What clang's passes left of a function's signature, read from the IR that a build ends in.

BTF is made from the source's types; the code follows the IR. Only as much of the text of LLVM
IR is understood as tells parameters and arguments apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.model import BuildConfig
from harness.source import driver
from harness.source.layout import Layout
from harness.toolchain import Compiler, run_compiler

PROMOTION = "argpromotion"  # the pass ArgumentPromotion, as -opt-disable calls it
_DEFINE = re.compile(r"^define\b(.*?)@([\w.$]+)\(", re.MULTILINE)
_CALL = re.compile(r"\bcall\b[^@\n]*?@([\w.$]+)\(")
_NOTHING = re.compile(r"\b(poison|undef)$")
_NO_BEGIN = re.compile(r" = phi [^\n]*\[ (poison|undef), ")


@dataclass(frozen=True, slots=True)
class Optimised:
    """One function of the IR."""

    words: int  # registers and slots that its parameters take
    void: bool  # it returns nothing
    nothing: Mapping[str, frozenset[int]]  # by callee: words, from 1, that it gets no value in
    results: int = 1  # words that it returns; 0: nothing
    begins: bool = True  # each value that changes from block to block has a value to begin with


def functions(
    c: str,
    layouts: Sequence[Layout],
    config: BuildConfig,
    compiler: Compiler,
    patience: float,
    without: str = "",
) -> Mapping[str, Optimised]:
    """Return the functions of *c* with its drivers, by symbol, as *config* optimises them.

    *without* names a pass of LLVM that is left out. None where the compiler does not say.
    """
    text = driver.translation_unit(c, layouts, config.linkage)
    # debug information changes no code, and would be most of the text
    args = [*driver.bpf_args(config), "-g0", "-S", "-emit-llvm", *leave_out(without)]
    made = run_compiler(compiler, args, source=text, timeout=patience)
    return parsed((made.output or b"").decode(errors="replace"))


def leave_out(llvm_pass: str) -> list[str]:
    """Return clang's arguments for a build without *llvm_pass*; "": with all of them."""
    return ["-mllvm", f"-opt-disable={llvm_pass}"] if llvm_pass else []


def parsed(ir: str) -> Mapping[str, Optimised]:
    """Return the functions that *ir* defines."""
    found = list(_DEFINE.finditer(ir))
    ends = [*(match.start() for match in found), len(ir)][1:]
    return {
        match[2]: Optimised(
            sum(_words(parameter) for parameter in _list(ir, match.end())),
            match[1].rstrip().endswith(" void"),
            _nothing(ir, match.end(), end),
            _results(match[1]),
            _NO_BEGIN.search(ir, match.end(), end) is None,
        )
        for match, end in zip(found, ends, strict=True)
    }


def _results(head: str) -> int:
    """Return how many words a function returns, by what stands before its name."""
    several = re.search(r"\{([^{}]*)\}\s*$", head)
    if several:
        return sum(_words(each.strip()) for each in several[1].split(","))
    kind = re.search(r"(\[\d+ x i64\]|\S+)\s*$", head)
    return 0 if kind is None or kind[1] == "void" else _words(kind[1])


def _nothing(ir: str, start: int, end: int) -> dict[str, frozenset[int]]:
    """Return which words the calls between *start* and *end* pass no value in, by callee."""
    out: dict[str, frozenset[int]] = {}
    for match in _CALL.finditer(ir, start, end):
        at = 0
        for argument in _list(ir, match.end()):
            first, at = at + 1, at + _words(argument)
            if _NOTHING.search(argument):
                out[match[1]] = out.get(match[1], frozenset()) | set(range(first, at + 1))
    return out


def _list(ir: str, start: int) -> Iterator[str]:
    """Yield what stands between the commas from *start* to the bracket that closes them."""
    depth, first = 0, start
    for at in range(start, len(ir)):
        mark = ir[at]
        if mark in "([{<":
            depth += 1
        elif mark in ")]}>":
            depth -= 1
        if depth < 0 or (mark == "," and not depth):
            if ir[first:at].strip():
                yield ir[first:at].strip()
            first = at + 1
        if depth < 0:
            return


def _words(parameter: str) -> int:
    """Return how many registers or slots a parameter or an argument takes, by its type."""
    array = re.match(r"\[(\d+) x i64\]", parameter)
    if array:
        return int(array[1])
    wide = re.match(r"i(\d+)\b", parameter)
    return -(-int(wide[1]) // 64) if wide else 1
