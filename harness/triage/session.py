"""A triage from beginning to end: classify, reduce, narrow down, explain."""

from __future__ import annotations

import difflib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import corpus, findings, pipeline
from harness.corpus import Case, SourceText
from harness.findings import Finding
from harness.isa.disasm import format_insn
from harness.model import (
    Accepted,
    BuildConfig,
    HarnessError,
    Outcome,
    Program,
    Rejected,
    Unknown,
    Vector,
    Verdict,
)
from harness.pipeline import Settings
from harness.toolchain import Compiler, Display, find_compilers
from harness.toolchain.tools import program_version
from harness.triage import lockstep
from harness.triage.bisect import Bisection, bisect
from harness.triage.classify import (
    AGREES,
    CLANG,
    INTERPRETER,
    INVALID,
    JIT,
    RIGHT,
    UNDECIDED,
    UNSTABLE,
    VERIFIER,
    Diagnosis,
    Facts,
    Kernel,
    concluded,
    examine,
    rightness,
)
from harness.triage.experiments import STRICT, Bench, Built, Subject, inlined
from harness.triage.native_text import NativeLine, native_text
from harness.triage.reduce import Reduction, keeps, reduce, shrink_input, with_cvise

BUILDS = (
    ("2", "v3", "hidden"),
    ("0", "v3", "hidden"),
    ("3", "v4", "static"),
    ("3", "v3", "static"),
    ("1", "v1", "static"),
    ("s", "v4", "hidden"),
    ("2", "v2", "hidden"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be triaged."""

    name: str  # for people and for file names
    subject: Subject
    compiler: Compiler
    finding: Finding | None = None
    notes: tuple[str, ...] = ()


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
    wrong: int | None = None  # slot of the wrong instruction
    wrong_why: str = ""  # one sentence
    native: tuple[NativeLine, ...] = ()  # what the compiler makes of it for x86-64
    notes: tuple[str, ...] = field(default=())
    seconds: float = 0.0


Tell = Callable[[str], None]


# --- targets ----------------------------------------------------------------


def target_of(
    path: Path,
    *,
    function: str = "",
    compilers: Sequence[Compiler] = (),
    build: tuple[str, str, str] | None = None,
    seed: int = 0,
    vectors: int = 64,
) -> Target:
    """Return what *path* is about: a finding, a case, or a C file with a *function*.

    *compilers* override the finding's own. Raises HarnessError.
    """
    if path.suffix == ".json":
        return _finding_target(path, compilers)
    compiler = (compilers or find_compilers())[0]
    if path.suffix == ".toml":
        case = corpus.read(path)
        if case.source is None:
            raise HarnessError(
                f"{path}: a case in BPF text has no C to triage: see `verify`, `exec`"
            )
        text = case.source.c
        builds = [
            (o, m, k)
            for o in case.source.opts
            for m in case.source.mcpus
            for k in case.source.linkages
        ]
    elif path.suffix == ".c":
        try:
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise HarnessError(f"cannot read {path}: {error.strerror}") from None
        builds = list(BUILDS)
    else:
        raise HarnessError(f"{path}: neither a finding (.json), a case (.toml) nor C (.c)")
    text = inlined(text, path.absolute().parent)
    return _search(path, text, function, compiler, [build] if build else builds, seed, vectors)


def _finding_target(path: Path, compilers: Sequence[Compiler]) -> Target:
    finding = findings.read(path)
    notes: tuple[str, ...] = ()
    if compilers:
        compiler = compilers[0]
        if finding.version and compiler.version != finding.version:
            notes = (f"found with clang {finding.version}, looked at with {compiler.version}",)
    else:
        program = finding.command[0] if finding.command else finding.config.compiler
        if shutil.which(program) is None:
            raise HarnessError(
                f"{path}: its compiler {program} is gone: name another with --clang; "
                "the finding is kept"
            )
        compiler = find_compilers([_command(finding)])[0]
    config = replace(finding.config, compiler=compiler.name)
    expected = ""
    if finding.outcome == "diverge" and finding.detail.startswith("expected '"):
        expected = finding.detail[len("expected '") :].rpartition("', ")[0]
    subject = Subject(
        finding.c,
        finding.function,
        config,
        finding.seed,
        min(finding.vectors, 64),
        expected=expected,
    )
    return Target(path.stem, subject, compiler, finding, notes)


def _command(finding: Finding) -> str:
    import shlex

    return shlex.join(finding.command) if finding.command else finding.config.compiler


def _search(
    path: Path,
    text: str,
    function: str,
    compiler: Compiler,
    builds: Sequence[tuple[str, str, str]],
    seed: int,
    vectors: int,
) -> Target:
    """Find the first build of *text* that does not agree."""
    configs = tuple(BuildConfig(compiler.name, *build) for build in builds)
    settings = Settings(configs=configs, compilers=(compiler,), vectors=vectors, seed=seed)
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as folder:
        file = Path(folder, path.with_suffix(".c").name)
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
        planned = pipeline.plan(file, str(path), settings)
        if planned.failure:
            raise HarnessError(f"{path}: {planned.failure}")
        names = [p.signature.name for p in planned.layouts]
        if function and names and function not in names:
            raise HarnessError(
                f"{path}: no function {function} to test (it has {', '.join(names)})"
            )
        for config in configs:
            for check in pipeline.check_build(planned, config, settings):
                if function and check.function not in (function, "*"):
                    continue
                if check.outcome in ("diverge", "rejected", "compile_error") or check.undefined:
                    name = names[0] if check.function == "*" and names else check.function
                    expected = planned.refusals.get(name, "") if planned.programs else ""
                    subject = Subject(text, name, config, seed, vectors, expected=expected)
                    return Target(f"{path.stem}-{name}", subject, compiler)
    what = f"function {function}" if function else "every function"
    raise HarnessError(f"{path}: nothing to triage: {what} agrees on {len(configs)} builds")


def gcc_compiler() -> Compiler | None:
    """Return this machine's GCC, None where there is none."""
    path = shutil.which("gcc")
    if path is None:
        return None
    return Compiler((path,), "gcc", program_version("gcc") or "", False, "path")


def cvise_command() -> tuple[str, ...] | None:
    """Return cvise's command, None where there is none on PATH."""
    path = shutil.which("cvise")
    return (path,) if path else None


# --- the triage -------------------------------------------------------------


def triage(
    target: Target,
    *,
    compilers: Sequence[Compiler] = (),
    native: Compiler | None = None,
    shrink: bool = True,
    cvise: Sequence[str] | None = None,
    passes: bool = True,
    kernel: Kernel | None = None,
    patience: float = 75.0,
    tell: Tell = lambda _: None,
) -> Triage:
    """Answer for *target*: who, how small, since when, which step.

    *compilers* are compared in the bisection; *native* makes the IR of the native builds.
    """
    began = time.monotonic()
    everyone = (target.compiler, *(c for c in compilers if c.name != target.compiler.name))
    settings = Settings(
        configs=(target.subject.config,), compilers=everyone, native_compiler=native
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
            result, facts = _reduced(bench, result, gcc, kernel, cvise, patience, notes, tell)
        subject, diagnosis = result.subject, result.diagnosis
        if diagnosis.cause in CLANG and result.facts.planned.layouts:
            tell("bisect")
            result = replace(
                result, bisection=bisect(bench, subject, facts, diagnosis, passes=passes)
            )
        tell("trace")
        result = _traced(result, facts)
        result = _marked(result, facts)
        code = native_text(facts.planned, bench.settings.front_end, subject.function)
        result = replace(result, native=code)
        return replace(result, notes=tuple(notes), seconds=time.monotonic() - began)


def _reduced(
    bench: Bench,
    result: Triage,
    gcc: Compiler | None,
    kernel: Kernel | None,
    cvise: Sequence[str] | None,
    patience: float,
    notes: list[str],
    tell: Tell,
) -> tuple[Triage, Facts]:
    first = result.first
    damaged = result.facts.mismatch is not None or result.facts.btf_damaged
    original = replace(result.subject, assembly=damaged)
    if result.facts.planned.layouts and result.facts.built.program is not None:
        warned = bench.build(result.facts.planned, original.config, STRICT, legs=())
        original = replace(original, strict=warned.program is not None)
    quick = concluded(examine(bench, original, thorough=False))
    # without Linux a refusal may be undecided; the message is kept, and Linux asked at the end
    if quick.cause not in (first.cause, UNDECIDED):
        notes.append("not reduced: it takes every experiment to tell")
        return result, result.facts
    wanted = replace(quick)
    reduction = reduce(
        original,
        keeps(bench, wanted),
        patience=patience,
        step=lambda tried, size: (
            tell(f"reduce: {tried} attempts, {size} bytes") if tried % 25 == 0 else None
        ),
    )
    if cvise is not None:
        tell("reduce with cvise")
        more = with_cvise(cvise, reduction.subject, wanted, result.target.compiler)
        reduction = replace(
            reduction,
            subject=more.subject,
            notes=(*reduction.notes, *more.notes),
            complete=reduction.complete and more.complete,
        )
    subject = replace(reduction.subject, strict=False)
    vector = None
    if result.facts.planned.layouts:
        vector = shrink_input(bench, subject, wanted)
    if vector is not None:
        subject = replace(subject, vectors=(vector,))
    facts = examine(bench, subject, gcc=gcc, kernel=kernel)
    diagnosis = concluded(facts)
    if diagnosis.cause != first.cause:
        notes.append(f"the reduced text is judged otherwise ({diagnosis.cause}); kept the original")
        return result, result.facts
    notes.extend(reduction.notes)
    reduction = replace(reduction, subject=subject)
    result = replace(result, subject=subject, diagnosis=diagnosis, facts=facts, reduction=reduction)
    return result, facts


def _traced(result: Triage, facts: Facts) -> Triage:
    program, vector = facts.built.program, result.diagnosis.vector
    if program is None or vector is None or isinstance(facts.built.verdict, Rejected):
        return result
    traced = lockstep.compare(program, vector)
    if isinstance(traced, Unknown):
        return replace(result, trace_why=traced.why)
    return replace(result, trace=traced)


def _marked(result: Triage, facts: Facts) -> Triage:
    """Say which instruction is wrong, as far as the experiments show it."""
    built = facts.built
    program = built.program
    cause = result.diagnosis.cause
    if program is None:
        return result
    if facts.mismatch is not None and cause in CLANG:
        odd = facts.mismatch
        words = f"the compiler's assembly has `{odd.assembly}`, its object `{odd.object}`"
        return replace(result, wrong=odd.slot, wrong_why=words)
    if isinstance(built.verdict, Rejected):
        slot = built.verdict.insn
        words = f"the verifier stops here: {built.verdict.message}"
        return replace(result, wrong=slot, wrong_why=words)
    if cause in (JIT, INTERPRETER, VERIFIER) and result.trace is not None:
        if result.trace.wrong is not None:
            return replace(result, wrong=result.trace.wrong, wrong_why=result.trace.why)
        return result
    if cause not in CLANG:
        return result
    vector = result.diagnosis.vector
    right, name = _right_build(facts)
    if right is None or right.program is None or vector is None:
        return replace(result, wrong_why="no build of this source is right to compare with")
    parted = lockstep.first_difference(program, right.program, vector)
    if parted is None:
        return replace(result, wrong_why=f"{name} is right, and calls and returns the same way")
    slot, words = parted
    return replace(result, wrong=slot, wrong_why=f"against {name}, which is right: {words}")


def _right_build(facts: Facts) -> tuple[Built | None, str]:
    """Return the build that is right and most like the one in question, and its name."""
    ours = _texts(facts.built)
    best: tuple[float, Built | None, str] = (-1.0, None, "")
    for config, built in facts.others.items():
        if isinstance(built.verdict, Accepted) and rightness(facts, built) == RIGHT:
            alike = difflib.SequenceMatcher(None, _texts(built), ours, autojunk=False).ratio()
            if alike > best[0]:
                best = (alike, built, f"the build {config}")
    return best[1], best[2]


def _texts(built: Built) -> list[str]:
    return [format_insn(insn) for insn in built.program.insns] if built.program else []


# --- to files ---------------------------------------------------------------


@contextmanager
def linux_kernel(wanted: bool) -> Iterator[Kernel | None]:
    """Give the question to a real Linux, which ends with the block; None if not *wanted*."""
    if not wanted:
        yield None
        return
    from harness.legs.kernel import KernelLeg

    with KernelLeg(guests=1) as leg:

        def ask(program: Program, vectors: Sequence[Vector]) -> tuple[Verdict, Sequence[Outcome]]:
            answer = leg.check([program], [vectors], images=False)[0]
            return answer.verdict, answer.outcomes

        yield ask


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
    patience: float = 75.0,
    keep_in: Path | None = None,
    linux: bool = False,
) -> tuple[Triage, dict[str, Any]]:
    """Triage what *path* names and write its report to *out*; return it, and it as JSON."""
    from harness.triage import page, report

    target = target_of(
        path, function=function, compilers=compilers, build=build, seed=seed, vectors=vectors
    )
    with Display() as display, linux_kernel(linux) as kernel:
        result = triage(
            target,
            compilers=compilers,
            native=native,
            shrink=shrink,
            cvise=cvise_command() if cvise else None,
            patience=patience,
            kernel=kernel,
            tell=lambda words: display(f"{target.name}: {words}", None),
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HarnessError(f"{out}: cannot be made: {error.strerror}") from None
    text, html = out / f"{target.name}.md", out / f"{target.name}.html"
    corpus.write_atomically(text, report.markdown(result))
    corpus.write_atomically(html, page.page(result))
    row = as_json(result) | {"file": str(path), "report": str(text), "page": str(html)}
    if keep_in is not None:
        case, known = keep(result, keep_in)
        row |= {"case": str(case), "known": str(known)}
    return result, row


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
        "lines": sum(bool(line.strip()) for line in result.subject.c.splitlines()),
        "c": result.subject.c,
        "vector": diagnosis.vector.hex() if diagnosis.vector is not None else None,
        "wrong": result.wrong,
        "pass": found.step.name if found and found.step else None,
        "first_bad": found.first_bad if found else None,
        "experiments": [[e.name, e.result] for e in diagnosis.experiments],
        "notes": list(result.notes),
        "seconds": round(result.seconds, 1),
    }


def describe(result: Triage, row: dict[str, Any]) -> str:
    """Return a few lines for people."""
    lines = [
        f"{result.target.name}: {row['cause']} ({row['confidence']})",
        f"  {row['detail']}",
        f"  {row['function']} at {row['build']}, {row['lines']} lines of C, {row['seconds']} s",
    ]
    if result.wrong_why:
        lines.append(f"  {result.wrong_why}")
    if row["pass"]:
        lines.append(f"  first bad pass: {row['pass']}")
    lines += [f"  note: {note}" for note in result.notes]
    lines.append(f"  report: {row['report']}")
    return "\n".join(lines)


# --- into the corpus --------------------------------------------------------


def keep(result: Triage, folder: Path) -> tuple[Path, Path]:
    """Write the reduced case and its entry of known.toml to *folder*; return both paths.

    The case expects agreement, which the entry excuses: once it agrees the entry is stale.
    """
    import tomlkit

    subject, config = result.subject, result.subject.config
    path = folder / f"{result.target.name}.toml".replace("-", "_").lower()
    kind, outcome = {
        CLANG[0]: ("divergence", "diverge"),
        CLANG[1]: ("compile_error", "compile_error"),
        CLANG[2]: ("reject", "rejected"),
    }.get(result.diagnosis.cause, ("", ""))
    if not kind:
        raise HarnessError(
            f"{result.diagnosis.cause}: --keep is for what the compiler has to mend; "
            "mend ours, and add a test"
        )
    note = f"{result.diagnosis.cause}: {result.diagnosis.detail}."
    corpus.write(
        Case(
            path,
            note=note,
            source=SourceText(subject.c, (config.opt,), (config.mcpu,), (config.linkage,)),
            crosscheck=outcome,
        )
    )
    known = folder / "known.toml"
    document = (
        tomlkit.parse(known.read_text(encoding="utf-8")) if known.exists() else (tomlkit.document())
    )
    entries = document.setdefault("known", tomlkit.aot())
    entry = tomlkit.table()
    entry["id"] = path.stem
    entry["kind"] = kind
    entry["status"] = "open"
    entry["source"] = f"*{path.name}"
    entry["function"] = subject.function
    entry["build"] = str(config)
    entry["compiler"] = result.target.compiler.version
    entry["note"] = note
    entries.append(entry)
    corpus.write_atomically(known, tomlkit.dumps(document))
    return path, known
