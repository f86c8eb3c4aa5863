"""The smallest C and the smallest input that still show the same thing.

Passes over the tokens of the text, each a plain function that proposes shorter texts; a
proposal is kept if the same classification comes out, without undefined behaviour. In
order, without chance and without a clock in what is decided: the same finding reduces to
the same text. ``cvise`` goes on from there, where the machine has it.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness.model import HarnessError, Vector
from harness.source.layout import Leaf
from harness.toolchain import Compiler
from harness.triage.classify import UNDEFINED, Diagnosis, classify, examine, judge
from harness.triage.experiments import Bench, Subject, place_of

VECTORS = 24  # of each attempt
ATTEMPTS = 600  # that compile and run; the rest of the work is for cvise
PATIENCE = 75.0  # seconds for our own passes
CVISE_PATIENCE = 60.0  # seconds
ROUNDS = 4  # of shrinking the input


@dataclass(frozen=True, slots=True)
class Reduction:
    """What a reduction came to."""

    subject: Subject
    attempts: int
    kept: int
    complete: bool  # no pass has anything left to propose
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> int:
        """Lines of C that are not empty."""
        return sum(bool(line.strip()) for line in self.subject.c.splitlines())


Interesting = Callable[[Subject], bool]


def keeps(bench: Bench, diagnosis: Diagnosis) -> Interesting:
    """Return the test that a reduction of *diagnosis* must pass: the same again."""
    wanted = diagnosis.signature

    def interesting(subject: Subject) -> bool:
        found = classify(bench, subject, thorough=False)
        if found.undefined and diagnosis.cause != UNDEFINED:
            return False
        return found.signature == wanted

    return interesting


def reduce(
    subject: Subject,
    interesting: Interesting,
    *,
    attempts: int = ATTEMPTS,
    patience: float = PATIENCE,
    step: Callable[[int, int], None] = lambda _attempts, _length: None,
) -> Reduction:
    """Return the smallest *subject* that is *interesting*; itself where it is not.

    *step* hears after each attempt how many there were and how long the text is.
    """
    began = time.monotonic()
    subject = replace(subject, count=min(subject.count, VECTORS), vectors=())
    if not interesting(subject):
        why = "not reduced: with fewer vectors it does not show"
        return Reduction(subject, 1, 0, False, (why,))
    seen: dict[str, bool] = {}
    tried = kept = 0

    def over() -> bool:
        return tried >= attempts or time.monotonic() - began > patience

    changed = True
    while changed and not over():
        changed = False
        for propose in PASSES:
            index = 0
            while not over():
                text = propose(subject.c, index, subject.function)
                if text is None:
                    break
                if text in seen or len(_tokens(text)) > len(_tokens(subject.c)):
                    index += 1
                    continue
                tried += 1
                seen[text] = good = interesting(replace(subject, c=text))
                if good:
                    subject = replace(subject, c=text)
                    kept += 1
                    changed = True
                else:
                    index += 1
                step(tried, len(subject.c))
    pretty = layout_text(subject.c)
    if pretty != subject.c and interesting(replace(subject, c=pretty)):
        subject = replace(subject, c=pretty)
    notes: tuple[str, ...] = ()
    if over():
        notes = (f"reduction stopped after {tried} attempts: shorter texts may do",)
    return Reduction(subject, tried, kept, not over(), notes)


# --- the text as tokens -----------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<comment>/\*.*?\*/|//[^\n]*)
    |(?P<directive>^[ \t]*\#(?:[^\n\\]|\\.)*(?=\n|\Z))
    |(?P<space>\s+)
    |(?P<token>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\w+|<<=|>>=|\.\.\.
       |->|\+\+|--|<<|>>|[<>=!+\-*/%&|^]=|&&|\|\||.)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_CONTROL = ("if", "while", "for", "switch")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_BINARY = {
    "+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "&&", "||", "<", ">", "<=", ">=",
    "==", "!=", "=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>=", ",", "?", ":",
}  # fmt: skip


def _tokens(text: str) -> list[str]:
    """Return the tokens of *text*, directives whole, without comments and space."""
    return [
        m[0].strip()
        for m in _TOKEN.finditer(text)
        if m.lastgroup in ("directive", "token") and m[0].strip()
    ]


def _join(tokens: Sequence[str]) -> str:
    """Return *tokens* as text, one statement a line."""
    lines: list[str] = []
    line = ""
    depth = 0
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
            or (line[-1] == ")" and (token[0].isalpha() or token[0] == "_"))
            or line[-1] + token[0] in ("++", "--", "&&", "<<", ">>", "==", "//", "/*")
        )
        line += (" " if glue else "") + token
        if not depth and token in (";", "{", "}"):
            lines.append(line)
            line = ""
    return "\n".join([*lines, line]).strip() + "\n"


def _match(tokens: Sequence[str], start: int) -> int | None:
    """Return the index of the bracket that closes the one at *start*."""
    depth = 0
    for index in range(start, len(tokens)):
        if tokens[index] in _CLOSING:
            depth += 1
        elif tokens[index] in _CLOSING.values():
            depth -= 1
            if depth == 0:
                return index
    return None


def _statement(tokens: Sequence[str], start: int) -> int | None:
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
        if token in _CLOSING:
            end = _match(tokens, index)
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


def _starts(tokens: Sequence[str]) -> list[int]:
    """Return where statements and definitions may start."""
    found, depth = [0], 0
    controlled: list[bool] = []  # for each open parenthesis: whether a statement follows it
    for index, token in enumerate(tokens[:-1]):
        if token == "(":
            controlled.append(index > 0 and tokens[index - 1] in _CONTROL)
        closes = token == ")" and bool(controlled) and controlled.pop()
        depth += token in ("(", "[")
        depth -= token in (")", "]")
        ends = token in (";", "{", "}", ":", "else") or closes or token.startswith("#")
        if not depth and ends:
            found.append(index + 1)
    return found


# --- passes -----------------------------------------------------------------
# Each returns proposal number *index* for *text*, None where it has no more.

Propose = Callable[[str, int, str], str | None]


def _numbered(make: Callable[[list[str], str], Iterator[list[str]]]) -> Propose:
    def propose(text: str, index: int, function: str) -> str | None:
        tokens = _tokens(text)
        for number, proposal in enumerate(make(tokens, function)):
            if number == index:
                return _join(proposal)
        return None

    return propose


def _bare(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """Only tokens: no comments, one statement a line."""
    yield tokens


def _chunks(tokens: list[str]) -> list[tuple[int, int]]:
    chunks, at = [], 0
    while at < len(tokens):
        end = _statement(tokens, at) or at + 1
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


def _without_statements(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """Without one statement or definition, the longest first."""
    spans = {(a, b) for a in _starts(tokens) if (b := _statement(tokens, a)) is not None}
    for a, b in sorted(spans, key=lambda s: (s[0] - s[1], s[0])):
        yield tokens[:a] + tokens[b:]


def _unwrapped(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """Propose a block or a statement without what controls it: if, else, for, while, do, switch."""
    for index, token in enumerate(tokens):
        if token in ("if", "while", "for", "switch") and tokens[index + 1 : index + 2] == ["("]:
            end = _match(tokens, index + 1)
            if end is None:
                continue
            yield tokens[:index] + tokens[end + 1 :]
            after = _statement(tokens, end + 1)
            if after is not None and tokens[end + 1] == "{":
                yield tokens[:index] + tokens[end + 2 : after - 1] + tokens[after:]
        if token == "{" and index and tokens[index - 1] in ("{", "}", ";"):
            end = _match(tokens, index)
            if end is not None:
                yield tokens[:index] + tokens[index + 1 : end] + tokens[end + 1 :]


def _operand_after(tokens: Sequence[str], index: int) -> int:
    """Return the end (excluded) of the operand that starts at *index*."""
    while index < len(tokens) and tokens[index] in ("-", "~", "!", "*", "&", "+", "++", "--"):
        index += 1
    if index < len(tokens) and tokens[index] == "(":
        end = _match(tokens, index)
        index = index if end is None else end
        following = tokens[index + 1] if index + 1 < len(tokens) else ""
        if following and (following[0].isalnum() or following[0] in "_(~!"):
            return _operand_after(tokens, index + 1)  # that was a cast
    index += 1
    while index < len(tokens) and tokens[index] in ("(", "[", ".", "->"):
        if tokens[index] in ("(", "["):
            end = _match(tokens, index)
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
        if token not in _BINARY or token in (",", "=", "?", ":") or index == 0:
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
            depth += tokens[colon] in _CLOSING
            depth -= tokens[colon] in _CLOSING.values()
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
    for index, token in enumerate(tokens):
        if token not in ("(", "["):
            continue
        end = _match(tokens, index)
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
    end = _match(tokens, start)
    if end is None:
        return None
    found, at, depth = [], start + 1, 0
    for index in range(start + 1, end):
        depth += tokens[index] in _CLOSING
        depth -= tokens[index] in _CLOSING.values()
        if depth == 0 and tokens[index] == ",":
            found.append((at, index))
            at = index + 1
    return [*found, (at, end)] if end > start + 1 else []


def _parameters(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """Without one parameter of a function, its argument everywhere, and its uses made 0."""
    names: dict[str, int] = {}
    for index, token in enumerate(tokens[:-1]):
        if tokens[index + 1] == "(" and (token[0].isalpha() or token[0] == "_"):
            end = _match(tokens, index + 1)
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
            end = _match(tokens, index + 1)
            if places and end is not None and number < len(places):
                definition = tokens[end + 1 : end + 2] == ["{"]
                a, b = places[number]
                if definition:
                    close = _match(tokens, end + 1)
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


_NEEDLESS = {
    "static", "const", "volatile", "inline", "restrict", "else", "unsigned",
    "-", "~", "!", "&", "*", "++", "--",
}  # fmt: skip


def _without_tokens(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """Without a word that need not be there: a qualifier, an attribute, a sign, a label."""
    for index, token in enumerate(tokens):
        if token in ("__attribute__", "_Alignas", "_Static_assert"):
            end = _match(tokens, index + 1) if tokens[index + 1 : index + 2] == ["("] else None
            if end is not None:
                yield tokens[:index] + tokens[end + 1 :]
        elif token in _NEEDLESS or token.startswith("#"):
            yield tokens[:index] + tokens[index + 1 :]
        elif token == "," and index + 1 < len(tokens):
            yield tokens[:index] + tokens[_operand_after(tokens, index + 1) :]


def _assignments(tokens: list[str], _function: str) -> Iterator[list[str]]:
    """Propose an assigned or returned value replaced by 0."""
    for index, token in enumerate(tokens):
        if token in ("=", "return"):
            depth = 0
            for end in range(index + 1, len(tokens)):
                depth += tokens[end] in _CLOSING
                depth -= tokens[end] in _CLOSING.values()
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


def layout_text(text: str) -> str:
    """Return *text* as people write it: indented, spaces around operators."""
    lines: list[str] = []
    depth = 0
    for line in _join(_tokens(text)).splitlines():
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
        pieces = re.sub(r"(?<=\S)\{$", " {", pieces)
        lines.append("\t" * depth_after + pieces)
        if line.endswith("{"):
            depth = depth_after + 1
    out = "\n".join(lines) + "\n"
    out = re.sub(r"\{\n\s*\}", "{}", out)
    return re.sub(r"\}\n\s*;", "};", out)


# --- inputs -----------------------------------------------------------------


def shrink_input(bench: Bench, subject: Subject, diagnosis: Diagnosis) -> Vector | None:
    """Return the simplest input that shows the same, None where no input matters.

    Simple: as many zero bytes as can be, then small values. Each round tries a batch.
    """
    facts = examine(bench, subject, thorough=False)
    now = judge(facts)
    if now.signature != diagnosis.signature or now.vector is None:
        return None
    place = place_of(facts.planned)
    leaves = list(place.leaves())
    best = now.vector
    blank = _blank(best, leaves)
    if blank != best and _shows(bench, subject, diagnosis, [blank]):
        best = blank
    for _ in range(ROUNDS):
        proposals: list[Vector] = []
        for leaf in leaves:
            value = _value(best, leaf)
            for small in (
                0,
                1,
                2,
                value >> 1,
                value & 0xFF,
                value & ~(1 << value.bit_length() - 1) if value else 0,
            ):
                if small < value:
                    proposals.append(_with(best, leaf, small))
        proposals = list(dict.fromkeys(p for p in proposals if p != best))
        good = _shows(bench, subject, diagnosis, proposals)
        if not good:
            break
        # all single steps that work, taken together if that works too
        together = best
        for vector in good:
            together = bytes(
                g if g != b else t for g, b, t in zip(vector, best, together, strict=True)
            )
        both = _shows(bench, subject, diagnosis, [together, min(good, key=_weight)])
        best = min(both or good, key=_weight)
    return best


def _blank(vector: Vector, leaves: Sequence[Leaf]) -> Vector:
    """Return *vector* with zero bytes where no value is."""
    out = bytes(len(vector))
    for leaf in leaves:
        out = _with(out, leaf, _value(vector, leaf))
    return out


def _value(vector: Vector, leaf: Leaf) -> int:
    return int.from_bytes(vector, "little") >> leaf.bit & (1 << leaf.bits) - 1


def _with(vector: Vector, leaf: Leaf, value: int) -> Vector:
    whole = int.from_bytes(vector, "little")
    whole &= ~(((1 << leaf.bits) - 1) << leaf.bit)
    return (whole | value << leaf.bit).to_bytes(len(vector), "little")


def _weight(vector: Vector) -> tuple[int, int]:
    return sum(byte != 0 for byte in vector), sum(vector)


def _shows(
    bench: Bench, subject: Subject, diagnosis: Diagnosis, vectors: Sequence[Vector]
) -> list[Vector]:
    """Return those of *vectors* that show the same."""
    if not vectors:
        return []
    facts = examine(bench, replace(subject, vectors=tuple(vectors)), thorough=False)
    if judge(facts).signature != diagnosis.signature:
        return []
    return [facts.vectors[number] for number in facts.bad]


# --- cvise ------------------------------------------------------------------


def with_cvise(
    argv: Sequence[str],
    subject: Subject,
    diagnosis: Diagnosis,
    compiler: Compiler,
    *,
    patience: float = CVISE_PATIENCE,
    jobs: int = 2,
) -> Reduction:
    """Go on with cvise (*argv* its command) from *subject*; the original where it fails."""
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as scratch:
        folder = Path(scratch)
        source = folder / "input.c"
        source.write_text(subject.c, encoding="utf-8")
        spec = folder / "spec.json"
        spec.write_text(
            json.dumps(
                {
                    "subject": asdict(replace(subject, c="", vectors=())),
                    "compiler": asdict(compiler),
                    "signature": list(diagnosis.signature),
                    "undefined": diagnosis.cause == UNDEFINED,
                }
            )
        )
        test = folder / "interesting"
        command = [sys.executable, "-m", "harness.triage.interesting", str(spec)]
        root = shlex.quote(str(Path(__file__).parents[2]))
        test.write_text(
            f"#!/bin/sh\nPYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}} "
            f"exec {shlex.join(command)} input.c\n"
        )
        test.chmod(0o755)
        call = [*argv, "--n", str(jobs), "--timeout", "20", str(test), "input.c"]
        note = ""
        try:
            done = subprocess.run(
                call, cwd=folder, capture_output=True, text=True, timeout=patience, check=False
            )
            if done.returncode:
                said = (done.stderr or done.stdout).strip().splitlines()
                note = f"cvise failed: {said[-1] if said else done.returncode}"
        except subprocess.TimeoutExpired:
            note = f"cvise stopped after {patience:.0f} s: shorter texts may do"
        except OSError as error:
            raise HarnessError(f"cannot start cvise: {error.strerror}") from None
        text = source.read_text(encoding="utf-8", errors="surrogateescape")
    notes = (note,) if note else ()
    shorter = len(_tokens(text)) < len(_tokens(subject.c))
    return Reduction(replace(subject, c=text) if shorter else subject, 0, shorter, not note, notes)
