"""Since when, and which step: over the builds' axes, the compilers, and LLVM's passes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.compare import agree
from harness.model import Accepted, BuildConfig, Unknown
from harness.pipeline import Plan
from harness.toolchain import Compiler, CompileResult
from harness.triage import rules
from harness.triage.classify import shape
from harness.triage.experiments import Bench, Built
from harness.triage.facts import (
    REFUSED,
    RIGHT,
    WRONG,
    WRONG_CODE,
    Diagnosis,
    Facts,
    consensus,
    ours_left_out,
    rightness,
    verdict_text,
)
from harness.triage.judge import judge

# fmt: off
AXES = (
    # name       field      from the plainest to the boldest
    ("-O",       "opt",     ("0", "1", "2", "3", "s")),
    ("-mcpu",    "mcpu",    ("v1", "v2", "v3", "v4")),
    ("linkage",  "linkage", ("hidden", "static")),
)
# fmt: on
_RUN = re.compile(r"^BISECT: (?:NOT )?running pass \((\d+)\) (.*)$", re.MULTILINE)
_POISON = re.compile(r"^.*\bcall [^\n]*\b(?:poison|undef)[,)].*$", re.MULTILINE)
_CODE = re.compile(r" on function \(")  # of code generation, in the words of its pass manager
_BANNER = re.compile(r"^(?:# )?\*\*\* IR Dump After (.*?) \*\*\*:?.*$", re.MULTILINE)
MAX_PASSES = 1 << 20
GOOD, BAD, OTHER = "good", "bad", "other"  # other: neither right nor the same failure
WORDS = 90  # characters of why a build is another


@dataclass(frozen=True, slots=True)
class Step:
    """The pass with which the trouble begins."""

    number: int  # as -opt-bisect-limit counts
    name: str
    before: str  # assembly of the function without it
    after: str  # and with it


@dataclass(frozen=True, slots=True)
class Bisection:
    """What was found; a text for each axis."""

    axes: Mapping[str, str]
    compilers: str = ""
    last_good: str = ""
    first_bad: str = ""
    step: Step | None = None
    step_why: str = ""  # why there is none
    ir: str = ""  # whether the IR that the passes end in is right
    machine: tuple[str, ...] = ()  # passes of code generation that changed the function
    selected: str = ""  # the function as instruction selection leaves it
    function: str = ""  # which
    innocent: bool = False  # the passes over IR are: what they end in is right
    hand_over: str = ""  # whether the fault is in the object but not in the assembly


Bad = Callable[[Plan, BuildConfig, Sequence[str], Compiler | None], bool]


def bad_like(bench: Bench, facts: Facts, diagnosis: Diagnosis) -> Bad:
    """Return the question whether a build shows what *diagnosis* says."""

    def bad(
        planned: Plan, config: BuildConfig, extra: Sequence[str], compiler: Compiler | None
    ) -> bool:
        if facts.subject.handed:
            text = bench.build(
                planned, config, extra, compiler=compiler, legs=(), through_text=True
            )
            return bool(text.printed)
        built = bench.build(planned, config, extra, compiler=compiler)
        return alike(facts, built, diagnosis)

    return bad


Word = Callable[[BuildConfig, Compiler | None], str]


def words_of(bench: Bench, facts: Facts, diagnosis: Diagnosis) -> Word:
    """Return the question what a build is: GOOD, BAD as *diagnosis* says, or OTHER and why."""

    def word(config: BuildConfig, compiler: Compiler | None) -> str:
        if facts.subject.handed:
            built = bench.build(
                facts.planned, config, compiler=compiler, legs=(), through_text=True
            )
            if built.printed:
                return BAD
            return GOOD if built.program is not None else other(f"no program: {built.why}")
        built = bench.build(facts.planned, config, compiler=compiler)
        return called(facts, built, diagnosis)

    return word


def called(facts: Facts, built: Built, diagnosis: Diagnosis) -> str:
    """Return GOOD, BAD, or OTHER and why: what *built* is beside *diagnosis* of *facts*."""
    if alike(facts, built, diagnosis):
        return BAD
    if diagnosis.cause == REFUSED and isinstance(built.verdict, Unknown):
        return other(verdict_text(built.verdict))  # right or not, Linux may refuse it
    found = rightness(facts, built)
    accepted = diagnosis.cause == REFUSED and isinstance(built.verdict, Accepted)
    return GOOD if found == RIGHT or (accepted and found != WRONG) else other(found)


def other(why: str) -> str:
    """Return OTHER with *why*, short."""
    lines = ours_left_out(why).strip().splitlines()
    line = lines[0] if lines else ""
    return f"{OTHER}: {line[: WORDS - 3]}..." if len(line) > WORDS else f"{OTHER}: {line}"


def alike(facts: Facts, built: Built, diagnosis: Diagnosis) -> bool:
    """Return whether *built*, of the same source, shows what *diagnosis* of *facts* says."""
    if shape(built) != shape(facts.built):
        return False
    if shape(built)[0] != "runs":
        return True  # the same refusal, or none for the same reason
    again = Facts(
        facts.subject, facts.planned, built, facts.mask, facts.natives, facts.gccs, facts.vectors
    )
    again.bad = list(facts.bad)
    again.undefined = facts.undefined
    return judge(again).signature == diagnosis.signature


def bisect(
    bench: Bench,
    facts: Facts,
    diagnosis: Diagnosis,
    *,
    function: str = "",
    passes: bool = True,
) -> Bisection:
    """Narrow *diagnosis* of *facts* down; *function* has the wrong instruction."""
    config = facts.subject.config
    bad = bad_like(bench, facts, diagnosis)
    word = words_of(bench, facts, diagnosis)
    axes = {n: _axis(word, config, key, values) for n, key, values in AXES}
    told, good, first = _compilers(bench, word, config)
    found = Bisection(axes, told, good, first)
    if not passes:
        return replace(found, step_why="not asked for")
    if facts.subject.handed:
        why = "the passes are innocent: the object is right"
        return replace(found, hand_over="the step is printing the assembly", step_why=why)
    if facts.mismatch is not None or facts.btf_damaged:
        hand_over = "the object is not what the assembly says: the step is writing the object"
        why = "the passes are innocent: the assembly they end in is another"
        return replace(found, hand_over=hand_over, step_why=why)
    text = facts.through_text or bench.build(facts.planned, config, through_text=True)
    if text.program is None:
        hand_over = f"the assembly does not assemble: {text.why}"
    elif alike(facts, text, diagnosis):
        hand_over = "the assembly shows it too: it is there before the object is written"
    else:
        hand_over = "the assembly is right, the object is wrong: the step is writing the object"
        why = "the passes are innocent: the assembly they end in is right"
        return replace(found, hand_over=hand_over, step_why=why)
    found = replace(found, hand_over=hand_over)
    step = _passes(bench, bad, facts, config)
    if isinstance(step, Unknown):
        found = replace(found, step_why=step.why)
    else:
        found = replace(found, step=step)
    if diagnosis.cause != WRONG_CODE:
        if rules.rule_of(diagnosis.detail) == "unread":
            told = _poison(bench, facts, config)
            late = found.step is not None and _CODE.search(found.step.name) is not None
            found = replace(found, ir=told, innocent=bool(told) and late)
        if found.step is None and facts.built.program is not None:
            # no pass over IR has a part in it: what code generation begins with says more
            function = function or facts.subject.function
            machine, selected = _machine(bench, facts, function)
            found = replace(found, machine=machine, selected=selected, function=function)
        return found
    right, told = _ir(bench, facts, diagnosis)
    if right is not False:
        function = function or facts.subject.function
        machine, selected = _machine(bench, facts, function)
        found = replace(found, machine=machine, selected=selected, function=function)
    return replace(found, ir=told, innocent=right is True)


def _ir(bench: Bench, facts: Facts, diagnosis: Diagnosis) -> tuple[bool | None, str]:
    """Return whether the optimised IR of the build is right, and that for people."""
    outcomes = bench.optimised(facts.planned, facts.subject.config)
    if isinstance(outcomes, Unknown):
        return None, f"the optimised IR could not be run on x86-64: {outcomes.why}"
    truth = consensus({**facts.natives, **facts.gccs}, facts.mask, len(facts.vectors))
    vectors = list(facts.vectors)
    number = vectors.index(diagnosis.vector) if diagnosis.vector in vectors else 0
    right = truth[number]
    if right is None:
        return None, "the optimised IR has nothing to be compared with"
    if agree(outcomes[number], right, facts.mask):
        return True, (
            "the optimised IR of this build, compiled for x86-64, returns the expected result: "
            "the fault is in the code generation for BPF"
        )
    return False, (
        "the optimised IR of this build, compiled for x86-64, returns the wrong result, too: the "
        "fault is in the passes over IR"
    )


def _axis(word: Word, config: BuildConfig, field: str, values: Sequence[str]) -> str:
    rows = []
    for value in values:
        made = replace(config, **{field: value})
        rows.append(f"{value} {BAD if made == config else word(made, None)}")
    return _listed(rows)


def _listed(rows: Sequence[str]) -> str:
    return ("; " if any(f" {OTHER}: " in row for row in rows) else ", ").join(rows)


def _compilers(bench: Bench, word: Word, config: BuildConfig) -> tuple[str, str, str]:
    compilers = sorted(bench.settings.compilers, key=lambda c: _version(c.version))
    if len(compilers) < 2:
        return "one compiler only: name others with --clang to compare", "", ""
    rows, good, first = [], "", ""
    for compiler in compilers:
        name, found = f"{compiler.name} ({compiler.version})", word(config, compiler)
        rows.append(f"{name} {found}")
        if found == BAD:
            first = first or name
        elif found == GOOD and not first:
            good = name
    return _listed(rows), good, first


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _passes(bench: Bench, bad: Bad, facts: Facts, config: BuildConfig) -> Step | Unknown:
    """Return the first pass with which the build is bad (``-opt-bisect-limit``)."""
    whole = bench.compile(facts.planned, config, _limit(-1), cache=False)
    runs = _RUN.findall(whole.diagnostics)
    if not runs:
        return Unknown("the compiler does not count its passes (-opt-bisect-limit)")
    last = int(runs[-1][0])
    names = {int(number): name for number, name in runs}
    if bad(facts.planned, config, _limit(0), None):
        return Unknown(
            "it shows with no optional pass at all (-opt-bisect-limit=0): the front end, "
            "instruction selection or what follows it"
        )
    if not bad(facts.planned, config, _limit(last), None):
        return Unknown("it does not show while the passes are counted")
    low, high = 0, last  # good at low, bad at high
    while high - low > 1:
        middle = (low + high) // 2
        if bad(facts.planned, config, _limit(middle), None):
            high = middle
        else:
            low = middle
    high = _earlier(bad, facts, config, names, high)
    texts = []
    for limit in (high - 1, high):
        made = bench.compile(facts.planned, config, ["-S", "-g0", *_limit(limit)], cache=False)
        texts.append((made.output or b"").decode(errors="replace"))
    return Step(high, names.get(high, f"pass {high}"), *texts)


def _poison(bench: Bench, facts: Facts, config: BuildConfig) -> str:
    """Return since which pass the IR passes poison to a function, "" where it does not."""

    def compiled(limit: int) -> CompileResult:
        arguments = ["-S", "-emit-llvm", "-g0", *_limit(limit)]
        return bench.compile(facts.planned, config, arguments, cache=False)

    def calls(limit: int) -> str:
        found = _POISON.search((compiled(limit).output or b"").decode(errors="replace"))
        return found[0].strip() if found else ""

    names = {int(number): name for number, name in _RUN.findall(compiled(-1).diagnostics)}
    if not names or not calls(max(names)):
        return ""
    low, high = 0, max(names)  # none at low, some at high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if calls(middle) else (middle, high)
    return f"since pass {high}, {names.get(high, '?')}, it passes poison: `{calls(high)}`"


def _earlier(
    bad: Bad, facts: Facts, config: BuildConfig, names: Mapping[int, str], high: int
) -> int:
    """Return the first pass over IR with which it shows, where pass *high* is not one.

    A pass of code generation that brings it out may only undo by chance what hid it: then
    it shows with fewer passes, too.
    """
    if not _CODE.search(names.get(high, "")):
        return high
    passes = [n for n in sorted(names) if n < high and not _CODE.search(names[n])]
    return next((n for n in passes if bad(facts.planned, config, _limit(n), None)), high)


def _limit(number: int) -> list[str]:
    return ["-mllvm", f"-opt-bisect-limit={number}"]


def _machine(bench: Bench, facts: Facts, function: str) -> tuple[tuple[str, ...], str]:
    """Return which passes from instruction selection on change *function*, and what that made."""
    made = bench.compile(
        facts.planned,
        facts.subject.config,
        [
            *("-S", "-g0", "-mllvm", "-print-after-all"),
            *("-mllvm", f"-filter-print-funcs={function}"),
        ],
        cache=False,
    )
    parts = _BANNER.split(made.diagnostics)
    changed, before, selected = [], "", ""
    for name, text in zip(parts[1::2], parts[2::2], strict=False):
        if "# Machine code for function" not in text:
            continue
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        body = "\n".join(re.sub(r"^\d+B", "", line).lstrip() for line in lines)
        if body != before:
            changed.append(name)
        before = body
        if "finalize-isel" in name or not selected:
            selected = "\n".join(lines)
    return tuple(changed), selected


def difference(step: Step, most: int = 40) -> str:
    """Return what a pass changed in the assembly, as a unified diff of at most *most* lines."""
    lines = list(
        difflib.unified_diff(
            _plain(step.before),
            _plain(step.after),
            f"without pass {step.number}",
            f"with pass {step.number}",
            lineterm="",
        )
    )
    if len(lines) > most:
        lines = [*lines[:most], f"... {len(lines) - most} lines more"]
    return "\n".join(lines)


def _plain(text: str) -> list[str]:
    """Return the lines of assembly that are instructions and labels."""
    lines = (line.partition("#")[0].rstrip() for line in text.splitlines())
    return [line for line in lines if line and not re.match(r"\s+\.|\.L\w+:$", line)]
