"""A triage from beginning to end: classify, reduce, narrow down, explain."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness import corpus
from harness.corpus import Case, Known
from harness.load import NAMES_FILLED
from harness.model import HarnessError, Unknown
from harness.pipeline import Settings
from harness.toolchain import Compiler, Display, find_compilers
from harness.toolchain.cvise import find_cvise
from harness.toolchain.tools import program_version
from harness.triage import lockstep
from harness.triage.bisect import Bisection, bisect
from harness.triage.classify import Wanted, concluded, examine, kinds, look
from harness.triage.cvise import PATIENCE as CVISE_PATIENCE
from harness.triage.cvise import with_cvise
from harness.triage.experiments import PATIENCE as COMPILER_PATIENCE
from harness.triage.experiments import STRICT, Bench, Subject
from harness.triage.facts import (
    AGREES,
    CLANG,
    INVALID,
    KINDS,
    UNDECIDED,
    UNSTABLE,
    Diagnosis,
    Facts,
    Kernel,
)
from harness.triage.judge import judge
from harness.triage.linux import linux_kernel, linux_leg
from harness.triage.marking import NO_MARK, Mark, mark, trace
from harness.triage.native_text import NativeLine, native_text
from harness.triage.reduce import (
    ATTEMPTS,
    JOBS,
    PATIENCE,
    Interesting,
    Reduction,
    in_turn,
    keeps,
    lines_of,
    reduce,
    shrink_input,
)
from harness.triage.targets import Target, target_of
from harness.triage.text import TextTriage, triage_text
from harness.triage.tokens import layout_text
from harness.triage.trees import shrink_tree

KNOWN = Path("corpus/known.toml")
GOAL = 12  # lines of C: where ours come to more, cvise goes on
ATTEMPTS_OF_ALL = 80  # where each attempt takes every experiment


@dataclass(frozen=True, slots=True)
class Triage:
    """What came of it."""

    target: Target
    subject: Subject  # reduced, or as it was
    first: Diagnosis  # of the original
    diagnosis: Diagnosis  # of the reduced one
    facts: Facts
    compilers: tuple[Compiler, ...]
    reduction: Reduction | None = None
    bisection: Bisection | None = None
    trace: lockstep.Lockstep | None = None
    trace_why: str = ""
    mark: Mark = NO_MARK
    native: tuple[NativeLine, ...] = ()  # what the compiler makes of it for x86-64
    notes: tuple[str, ...] = field(default=())
    known: str = ""  # what somebody wrote about it
    entry: Known | None = None  # of known.toml, which explains it
    seconds: float = 0.0

    @property
    def by_design(self) -> bool:
        """Whether it is known, and nobody is to mend anything."""
        return self.entry is not None and self.entry.status == "by-design"

    @property
    def wrong(self) -> int | None:
        """The slot of the wrong instruction."""
        return self.mark.slot

    @property
    def wrong_why(self) -> str:
        """One sentence on what is wrong with it."""
        return self.mark.why


Tell = Callable[[str], None]
Cvise = Callable[[], Sequence[str]]
"""Returns cvise's command, which may have to be fetched first; HarnessError where it cannot."""


def gcc_compiler() -> Compiler | None:
    """Return this machine's GCC, None where there is none."""
    path = shutil.which("gcc")
    if path is None:
        return None
    return Compiler((path,), "gcc", program_version("gcc") or "", False, "path")


# --- the triage -------------------------------------------------------------


def triage(
    target: Target,
    *,
    compilers: Sequence[Compiler] = (),
    native: Compiler | None = None,
    shrink: bool = True,
    cvise: Cvise | None = None,
    passes: bool = True,
    kernel: Kernel | None = None,
    attempts: int = ATTEMPTS,
    patience: float = PATIENCE,
    tell: Tell = lambda _: None,
) -> Triage:
    """Answer for *target*: who, how small, since when, which step.

    *compilers* are compared in the bisection; *native* makes the IR of the native builds.
    """
    began = time.monotonic()
    everyone = (target.compiler, *(c for c in compilers if c.name != target.compiler.name))
    settings = Settings(
        configs=(target.subject.config,),
        compilers=everyone,
        native_compiler=native,
        patience=COMPILER_PATIENCE,
    )
    gcc = gcc_compiler()
    with Bench(settings) as bench:
        tell("classify")
        subject = target.subject
        facts = examine(bench, subject, gcc=gcc, kernel=kernel)
        first = concluded(facts)
        if first.cause == AGREES and not subject.expected:
            whole = replace(subject, whole=True)
            again = examine(bench, whole, gcc=gcc, kernel=kernel)
            if concluded(again).cause != AGREES:
                subject, facts, first = whole, again, concluded(again)
        notes = list(target.notes)
        result = Triage(target, subject, first, first, facts, everyone)
        if first.cause in (AGREES, UNSTABLE, INVALID):
            if target.finding is not None and first.cause == AGREES:
                notes.append("it no longer diverges; the finding is kept as it is")
            seconds = time.monotonic() - began
            return replace(result, notes=tuple(notes), seconds=seconds)
        if shrink:
            tell("reduce")
            result = _reduced(bench, result, gcc, kernel, cvise, attempts, patience, notes, tell)
        subject, diagnosis, facts = result.subject, result.diagnosis, result.facts
        if NAMES_FILLED in facts.built.notes:
            notes.append(
                "parameters without names were given names in BTF, which Linux refuses without"
            )
        tell("trace")
        traced = trace(facts, diagnosis)
        marked = mark(facts, diagnosis, traced)
        result = replace(
            result,
            trace=None if isinstance(traced, Unknown) else traced,
            trace_why=traced.why if isinstance(traced, Unknown) else "",
            mark=marked,
            native=native_text(facts.planned, bench.settings.front_end, subject.function),
        )
        if diagnosis.cause in CLANG and facts.planned.layouts:
            tell("bisect")
            program, function = facts.built.program, ""
            if program is not None and marked.slot is not None:
                function = program.subprograms[program.subprogram_at(marked.slot)].name
            found = bisect(bench, facts, diagnosis, function=function, passes=passes)
            result = replace(result, bisection=found)
        return replace(result, notes=tuple(notes), seconds=time.monotonic() - began)


def _reduced(
    bench: Bench,
    result: Triage,
    gcc: Compiler | None,
    kernel: Kernel | None,
    cvise: Cvise | None,
    attempts: int,
    patience: float,
    notes: list[str],
    tell: Tell,
) -> Triage:
    first, facts = result.first, result.facts
    damaged = facts.mismatch is not None or facts.btf_damaged
    original = replace(result.subject, assembly=damaged)
    if facts.planned.layouts and facts.built.program is not None:
        warned = bench.build(facts.planned, original.config, STRICT, legs=())
        original = replace(original, strict=warned.program is not None)
    quick = look(bench, original)
    assert quick is not None
    # without Linux a refusal may be undecided; the message is kept, and Linux asked at the end
    if judge(quick).cause in (first.cause, UNDECIDED):
        wanted, every = Wanted.of(quick), False
        test: AbstractContextManager[Interesting] = keeps(bench.settings, wanted)
    else:
        wanted, every = Wanted.of(facts), True
        attempts = min(attempts, ATTEMPTS_OF_ALL)
        test = nullcontext(in_turn(partial(_all_show, bench, wanted, gcc, kernel)))
        notes.append(f"it takes every experiment to tell: at most {attempts} attempts to reduce")
    with test as interesting:
        reduction = by_all_means(
            result, original, interesting, every, attempts, cvise, patience, tell
        )
    subject = replace(reduction.subject, strict=False)
    if facts.planned.layouts:
        vector = shrink_input(bench, subject, wanted)
        if vector is not None:
            subject = replace(subject, vectors=(vector,))
    facts = examine(bench, subject, gcc=gcc, kernel=kernel)
    diagnosis = concluded(facts)
    if diagnosis.cause != first.cause:
        notes.append(f"the reduced text is judged otherwise ({diagnosis.cause}); kept the original")
        return result
    notes.extend(reduction.notes)
    reduction = replace(reduction, subject=subject)
    return replace(result, subject=subject, diagnosis=diagnosis, facts=facts, reduction=reduction)


def _all_show(
    bench: Bench, wanted: Wanted, gcc: Compiler | None, kernel: Kernel | None, subject: Subject
) -> bool:
    """Return whether *subject* shows *wanted* when all is asked."""
    facts = examine(bench, subject, gcc=gcc, kernel=kernel)
    found = judge(facts)
    valid = wanted.undefined or kinds(facts) <= wanted.allowed
    return found.signature == wanted.signature and valid


def by_all_means(
    result: Triage,
    subject: Subject,
    interesting: Interesting,
    every: bool,
    attempts: int,
    cvise: Cvise | None,
    patience: float,
    tell: Tell,
) -> Reduction:
    """Shrink the tree, if the finding has one; then the text; then with cvise, if it is long."""
    began = time.monotonic()
    told: list[str] = []
    tried = 0
    finding = result.target.finding
    if finding is not None and finding.tree is not None and not every:
        tell("reduce the generated program")
        found = shrink_tree(
            finding.tree, subject, interesting, rounds=attempts // JOBS, patience=patience
        )
        subject, tried = found.subject, found.attempts
        told += found.notes
    reduction = reduce(
        subject,
        interesting,
        attempts=attempts,
        patience=max(patience - (time.monotonic() - began), 1.0),
        step=lambda n, size: tell(f"reduce: {n} attempts, {size} bytes") if n % 25 == 0 else None,
    )
    told += reduction.notes
    tried += reduction.attempts
    subject, complete = reduction.subject, reduction.complete
    if reduction.lines > GOAL and not every and reduction.attempts > 1:
        why, command = "it was not asked for", None
        if cvise is not None:
            try:
                command = cvise()
            except HarnessError as error:
                why = str(error)
        if command is None:
            told.append(f"more than {GOAL} lines, and no cvise to go on with: {why}")
        else:
            tell("reduce with cvise")
            patience = min(CVISE_PATIENCE, max(patience - (time.monotonic() - began), 1.0))
            try:
                more = with_cvise(command, subject, interesting, patience=patience)
            except HarnessError as error:
                more = Reduction(subject, 0, 0, False, (f"more than {GOAL} lines: {error}",))
            subject, complete = more.subject, complete and more.complete
            pretty = replace(subject, c=layout_text(subject.c))
            if interesting([pretty])[0]:
                subject = pretty
            told += more.notes
            tried += more.attempts
    return Reduction(subject, tried, reduction.kept, complete, tuple(told))


# --- to files ---------------------------------------------------------------


def triage_file(
    path: Path,
    *,
    out: Path,
    function: str = "",
    compilers: Sequence[Compiler] = (),
    native: Compiler | None = None,
    build: tuple[str, str, str] | None = None,
    seed: int = 0,
    vectors: int = 64,
    shrink: bool = True,
    cvise: bool = True,
    attempts: int = ATTEMPTS,
    patience: float = PATIENCE,
    keep_in: Path | None = None,
    linux: bool = False,
    known: Path = KNOWN,
) -> tuple[Triage | TextTriage, dict[str, Any]]:
    """Triage what *path* names and write its report to *out*; return it, and it as JSON.

    What *known* (known.toml) says about it goes into the report.
    """
    from harness.triage import page, report
    from harness.triage.keeping import keep

    case = corpus.read(path) if path.suffix == ".toml" else None
    if case is not None and case.program is not None:
        return _text_file(case, out, compilers, shrink, keep_in, linux, known)
    target = target_of(
        path, function=function, compilers=compilers, build=build, seed=seed, vectors=vectors
    )
    with Display() as display, linux_kernel(linux, [target.compiler]) as kernel:
        result = triage(
            target,
            compilers=compilers,
            native=native,
            shrink=shrink,
            cvise=partial(find_cvise, progress=display) if cvise else None,
            attempts=attempts,
            patience=patience,
            kernel=kernel,
            tell=lambda words: display(f"{target.name}: {words}", None),
        )
    explained = entry_of(path, target, result.first, corpus.read_known(known))
    if explained is not None:
        result = replace(result, known=explained.note.strip(), entry=explained)
    elif case is not None:
        result = replace(result, known=case.note.strip())
    row = as_json(result) | {"file": str(path)}
    row |= _written(out, target.name, report.markdown(result), page.page(result))
    if keep_in is not None:
        kept, entry = keep(result, keep_in)
        row |= {"case": str(kept), "known": str(entry)}
    return result, row


def entry_of(path: Path, target: Target, first: Diagnosis, known: Sequence[Known]) -> Known | None:
    """Return the entry of *known* that explains *first* of *target*, of *path*, if one does."""
    subject, version = target.subject, target.compiler.version
    build, kind = str(subject.config), KINDS.get(first.cause, "")
    return corpus.explaining(known, kind, str(path), subject.function, build, first.detail, version)


def _text_file(
    case: Case,
    out: Path,
    compilers: Sequence[Compiler],
    shrink: bool,
    keep_in: Path | None,
    linux: bool,
    known: Path,
) -> tuple[TextTriage, dict[str, Any]]:
    """Triage the BPF text of *case*, as ``triage_file`` does with C."""
    from harness.triage import text_report

    if keep_in is not None:
        raise HarnessError(f"{case.path}: --keep is for C; a case in BPF text is kept already")
    try:
        compilers = compilers or find_compilers()
    except HarnessError:
        compilers = ()  # text needs none
    with Display() as display, linux_leg(linux, compilers) as leg:
        result = triage_text(
            case,
            leg,
            compiler=compilers[0] if compilers else None,
            known=corpus.read_known(known),
            reduce=shrink,
            tell=lambda words: display(f"{case.name}: {words}", None),
        )
    row = text_report.as_json(result) | {"file": str(case.path)}
    made = text_report.markdown(result), text_report.html(result)
    return result, row | _written(out, case.name, *made)


def _written(out: Path, name: str, text: str, html: str) -> dict[str, str]:
    """Write a report and a page to *out*; return where they are."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HarnessError(f"{out}: cannot be made: {error.strerror}") from None
    corpus.write_atomically(out / f"{name}.md", text)
    corpus.write_atomically(out / f"{name}.html", html)
    return {"report": str(out / f"{name}.md"), "page": str(out / f"{name}.html")}


def as_json(result: Triage) -> dict[str, Any]:
    """Return *result* in the form of ``triage --json``."""
    diagnosis, config = result.diagnosis, result.subject.config
    found = result.bisection
    return {
        "function": result.subject.function,
        "build": str(config),
        "compiler": result.target.compiler.version,
        "cause": diagnosis.cause,
        "detail": diagnosis.detail,
        "confidence": diagnosis.confidence,
        "suspects": list(diagnosis.suspects),
        "diverges": diagnosis.cause not in (AGREES, INVALID),
        "lines": lines_of(result.subject.c),
        "c": result.subject.c,
        "vector": diagnosis.vector.hex() if diagnosis.vector is not None else None,
        "wrong": result.wrong,
        "pass": found.step.name if found and found.step else None,
        "first_bad": found.first_bad if found else None,
        "experiments": [[e.name, e.result] for e in diagnosis.experiments],
        "notes": list(result.notes),
        "seconds": round(result.seconds, 1),
    }


def describe(result: Triage | TextTriage, row: dict[str, Any]) -> str:
    """Return a few lines for people."""
    if isinstance(result, TextTriage):
        from harness.triage import text_report

        return text_report.describe(result, row)
    lines = [
        f"{result.target.name}: {row['cause']} ({row['confidence']})",
        f"  {row['detail']}",
        f"  {row['function']} at {row['build']}, {row['lines']} lines of C, {row['seconds']} s",
    ]
    if result.by_design and result.entry is not None:
        lines.append(f"  known, by design: {result.entry.id}")
    if result.wrong_why:
        lines.append(f"  {result.wrong_why}")
    if row["pass"]:
        lines.append(f"  first bad pass: {row['pass']}")
    lines += [f"  note: {note}" for note in result.notes]
    lines.append(f"  report: {row['report']}")
    return "\n".join(lines)
