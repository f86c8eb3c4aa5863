"""The ``run`` verb: sources and cases over all builds and all cores.

Work is cut into steps that run in worker processes: one plans a source (and runs its
native builds once), then one checks each of its builds. A worker that dies takes only its
step with it, which is tried once more alone and then reported as unknown.

With the leg `kernel` a build is three steps: it is compiled, Linux is asked about all its
programs, and then it is checked. The guests belong to this process, not to the workers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from harness import corpus, pipeline
from harness.corpus import Case, Known
from harness.model import (
    LINKAGES,
    OPTS,
    Accepted,
    BuildConfig,
    Crashed,
    HarnessError,
    Outcome,
    OutOfFuel,
    Program,
    Rejected,
    Returned,
    Trapped,
    Unknown,
    Vector,
    Verdict,
    outcome_json,
)
from harness.pipeline import Built, Check, Linux, Plan, Settings
from harness.workers import Pool

if TYPE_CHECKING:
    from harness.legs.kernel import KernelAnswer
    from harness.legs.kernel_queue import KernelQueue

# Every level, cpu and linkage once, in few builds; --opt, --mcpu and --linkage ask for more.
DEFAULT_BUILDS = (
    ("0", "v3", "hidden"),
    ("1", "v1", "static"),
    ("2", "v2", "hidden"),
    ("2", "v4", "static"),
    ("3", "v3", "static"),
    ("s", "v4", "hidden"),
)
OUTCOMES = ("agree", "diverge", "known", "rejected", "compile_error", "unknown")


@dataclass(frozen=True, slots=True)
class Report:
    """What a run came to."""

    checks: tuple[Check, ...]
    seconds: float
    seed: int
    stale: tuple[Known, ...] = ()  # entries of known.toml that nothing shows any more

    def count(self, outcome: str) -> int:
        """Return how many checks ended as *outcome*, one of ``OUTCOMES``."""
        return sum(outcome_of(check) == outcome for check in self.checks)

    @property
    def ok(self) -> bool:
        """Whether nothing needs a person's eyes: no divergence, no unexplained refusal."""
        bad = ("diverge", "rejected", "compile_error")
        unexplained = [c for c in self.checks if c.known is None and c.outcome in bad]
        return not unexplained and not self.stale


def outcome_of(check: Check) -> str:
    """Return *check*'s outcome as the summary counts it."""
    return "known" if check.known and check.outcome == "diverge" else check.outcome


# --- what to run ------------------------------------------------------------


def expand(paths: Sequence[str]) -> tuple[list[tuple[str, Path]], list[Path]]:
    """Return the C sources, as (name for people, path), and the case files that *paths* name.

    Folders are searched; no paths mean c_sources/ and corpus/ of the folder we are in.
    Raises HarnessError where there is nothing.
    """
    named = [Path(p) for p in paths]
    if not named:
        named = [p for p in (Path("c_sources"), Path("corpus")) if p.is_dir()]
        if not named:
            raise HarnessError(
                "no c_sources/ or corpus/ in this folder: name C files, folders or cases, "
                "e.g. crosscheck run my.c"
            )
    sources: dict[Path, None] = {}
    for path in named:
        if path.is_dir():
            sources.update(dict.fromkeys(sorted(path.rglob("*.c"))))
        elif not path.exists():
            raise HarnessError(f"{path}: no such file or folder")
        elif path.suffix == ".c":
            sources[path] = None
        elif path.suffix != ".toml":
            raise HarnessError(f"{path}: neither a C file nor a case (.toml)")
    cases = corpus.find(named)
    if not sources and not cases:
        raise HarnessError(f"no C file and no case in {', '.join(map(str, named))}")
    return [(str(path), path) for path in sources], cases


def configurations(
    compilers: Sequence[str],
    opts: Sequence[str] = (),
    mcpus: Sequence[str] = (),
    linkages: Sequence[str] = (),
) -> tuple[BuildConfig, ...]:
    """Return the builds to make: ``DEFAULT_BUILDS``, or all combinations of what is named.

    An axis that is not named takes the values the default builds have.
    """
    if not (opts or mcpus or linkages):
        builds: Sequence[tuple[str, str, str]] = DEFAULT_BUILDS
    elif opts and not mcpus and not linkages:
        builds = [(o, m, k) for o in opts for m in ("v3", "v4") for k in ("hidden", "static")]
    else:
        builds = list(
            itertools.product(
                opts or OPTS,
                mcpus or ("v3", "v4"),
                linkages or LINKAGES,
            )
        )
    return tuple(BuildConfig(c, *build) for c in compilers for build in dict.fromkeys(builds))


# --- the steps, in processes ------------------------------------------------


@dataclass(slots=True)
class Step:
    """One call in a worker, or a question to Linux."""

    call: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    lost: Callable[[str], Any] = lambda _: None  # its result when its process dies
    alone: bool = False  # it was running when a process died
    ask: bool = False  # *call* is a question: it returns a future at once, here
    then: Callable[[Any], Iterator[Step]] | None = None  # what follows, if it is not as usual


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    done: int
    total: int
    what: str  # what was finished last


def run(
    sources: Sequence[tuple[str, Path]],
    cases: Sequence[Path],
    settings: Settings,
    *,
    known: Sequence[Known] = (),
    jobs: int | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Report:
    """Check every source and case on every build and return the report.

    *jobs*: worker processes, default all cores. KeyboardInterrupt ends the workers and
    their compilers and goes on to the caller.
    """
    began = time.monotonic()
    jobs = jobs or len(os.sched_getaffinity(0))
    checks: list[Check] = []
    state = _State(total=len(sources) * (1 + len(settings.configs)) + len(cases))

    def finished(result: Any) -> Iterator[Step]:
        what = ""
        match result:
            case Plan():
                yield from _build_steps(result, settings, state)
                what = result.source
            case Compiled():
                yield _ask_step(result, settings, state)
                return
            case list():
                expected = [_as_expected(state.cases.get(c.source), c) for c in result]
                checks.extend(explain(check, known) for check in expected)
                what = f"{result[0].source} {result[0].build}" if result else ""
        state.done += 1
        progress(Progress(state.done, state.total, what))

    with TemporaryDirectory(prefix="crosscheck-") as folder, kernel_queue(settings) as queue:
        state.queue = queue
        steps = [_plan_step(name, path, settings) for name, path in sources]
        for path in cases:
            steps.append(_case_step(path, settings, state, Path(folder)))
        work(steps, finished, jobs)
    order = {name: number for number, (name, _) in enumerate(sources)}
    configs = {config: number for number, config in enumerate(settings.configs)}
    checks.sort(
        key=lambda c: (
            order.get(c.source, len(order)),
            c.source,
            configs.get(c.config, -1) if c.config else -1,
        )
    )
    return Report(
        tuple(checks),
        time.monotonic() - began,
        settings.seed,
        stale(known, checks, settings),
    )


@dataclass(slots=True)
class _State:
    total: int
    done: int = 0
    queue: KernelQueue | None = None
    cases: dict[str, Case] = field(default_factory=dict)  # those in C, by name of the source


@contextlib.contextmanager
def kernel_queue(settings: Settings) -> Iterator[KernelQueue | None]:
    """Give the guests, if *settings* ask for the leg `kernel`, as long as the block runs."""
    if "kernel" not in settings.legs:
        yield None
        return
    from harness.legs import kernel_module
    from harness.legs.kernel import KernelLeg, ModuleFile
    from harness.legs.kernel_queue import KernelQueue

    # a module of ours is nothing to load into the machine's own kernel
    module: ModuleFile | Unknown = Unknown("the machine's own kernel gets no module")
    if not settings.host:
        module = kernel_module.build(settings.compilers)
    modules = [] if isinstance(module, Unknown) else [module]
    why = module.why if isinstance(module, Unknown) else ""
    leg = KernelLeg(host=settings.host, compilers=settings.compilers, modules=modules)
    with KernelQueue(leg, without=why) as queue:
        yield queue


def _plan_step(name: str, path: Path, settings: Settings) -> Step:
    def lost(why: str) -> list[Check]:
        return [Check(name, "*", None, "unknown", detail=why)]

    return Step(pipeline.plan, (path, name, settings), lost)


def _build_steps(planned: Plan, settings: Settings, state: _State) -> Iterator[Step]:
    seen: set[BuildConfig] = set()
    configs = settings.configs
    case = state.cases.get(planned.source)
    if case is not None:
        configs = tuple(
            config
            for compiler in settings.compilers
            for config in pipeline.case_configs(case, compiler)
        )
        state.total += len(configs)
    for config in configs:
        # programs of a file's own are built as they are: linkage makes no difference
        same = replace(config, linkage="") if planned.programs else config
        if same in seen or (planned.mcpus and config.mcpu not in planned.mcpus):
            state.total -= 1
            continue
        seen.add(same)
        lost = _LostBuild(planned, config)
        call = pipeline.check_build if state.queue is None else compiled
        yield Step(call, (planned, config, settings), lost)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A build, and the programs of it that Linux is asked about."""

    built: Built
    programs: Sequence[tuple[Program, Sequence[Vector]]]


def compiled(planned: Plan, config: BuildConfig, settings: Settings) -> Compiled:
    """Compile *planned* as *config* says, and load what came of it."""
    built = pipeline.compile_build(planned, config, settings)
    return Compiled(built, pipeline.built_programs(built, settings))


def _ask_step(question: Compiled, settings: Settings, state: _State) -> Step:
    """Return the step that asks Linux, which the checks of the build follow."""
    built = question.built
    lost = _LostBuild(built.planned, built.config)
    if not question.programs:
        return Step(pipeline.check_built, (built, settings), lost)
    assert state.queue is not None

    def heard(answers: Sequence[KernelAnswer]) -> Iterator[Step]:
        linux = {
            program.name: Linux(answer.verdict, answer.outcomes)
            for (program, _), answer in zip(question.programs, answers, strict=True)
        }
        yield Step(pipeline.check_built, (built, settings, linux), lost)

    return Step(state.queue.submit, (question.programs,), ask=True, then=heard)


@dataclass(frozen=True, slots=True)
class _LostBuild:
    planned: Plan
    config: BuildConfig

    def __call__(self, why: str) -> list[Check]:
        names = [p.signature.name for p in self.planned.layouts] or ["*"]
        return [Check(self.planned.source, n, self.config, "unknown", detail=why) for n in names]


def _case_step(path: Path, settings: Settings, state: _State, folder: Path) -> Step:
    def lost(why: str) -> list[Check]:
        return [Check(str(path), path.stem, None, "unknown", detail=why)]

    step = Step(check_case, (path, settings), lost)
    if state.queue is None:
        return step
    case = corpus.read(path)
    if case.source is not None:
        # Linux is asked about it as about any C file
        source = folder / str(len(state.cases)) / f"{case.name}.c"
        source.parent.mkdir()
        source.write_text(case.source.c, encoding="utf-8")
        state.cases[str(path)] = case
        return _plan_step(str(path), source, settings)
    if case.verify is not None and case.verify.kernel:
        return step  # of a kernel that is not at hand
    step.then = partial(_ask_about_case, case, state.queue)
    return step


def _ask_about_case(case: Case, queue: KernelQueue, checks: list[Check]) -> Iterator[Step]:
    """Ask Linux about a case of BPF text that was checked."""
    program = corpus.program(case.program, case.name) if case.program else None
    if program is None or any(check.outcome == "unknown" for check in checks):
        yield Step(answered, (checks,), ask=True)
        return

    def heard(answers: Sequence[KernelAnswer]) -> Iterator[Step]:
        failures = beside_linux(case, answers[0].verdict, answers[0].outcomes)
        (check,) = checks
        if failures:
            detail = "; ".join([*filter(None, [check.detail]), *failures])
            check = replace(check, outcome="diverge", detail=detail)
        yield Step(answered, ([check],), ask=True)

    vectors = [run.ctx for run in case.runs]
    yield Step(queue.submit, ([(program, vectors)],), ask=True, then=heard)


def answered(result: Any) -> Future[Any]:
    """Return *result* as what a question gives that needs nobody's answer."""
    future: Future[Any] = Future()
    future.set_result(result)
    return future


def beside_linux(case: Case, verdict: Verdict, outcomes: Sequence[Outcome]) -> list[str]:
    """Return what Linux does not do as *case* expects, one line each.

    Of r0 the kernel tells the low half.
    """
    failures = []
    expected = case.verify.verdict if case.verify else "accept"
    match verdict:
        case Rejected(message=message) if expected != "unknown":
            if expected == "accept":
                failures.append(f"kernel: refuses it: {message}")
            elif case.verify and case.verify.message not in (None, message):
                failures.append(f"kernel: expected {case.verify.message!r}, got {message!r}")
        case Accepted() if expected == "reject":
            failures.append("kernel: accepts it")
        case Crashed(why=why):
            failures.append(f"kernel: breaks over it: {why}")
    for number, (run, outcome) in enumerate(zip(case.runs, outcomes, strict=False), 1):
        after = run.ctx if run.after is None else run.after
        match outcome:
            case Returned(r0=r0, ctx=ctx) if run.outcome == "returned" and run.r0 is not None:
                if (r0, ctx) != (run.r0 & 0xFFFFFFFF, after):
                    failures.append(f"run {number} on kernel: r0 {r0:#x}, context {ctx.hex()}")
            case Trapped(where=where) if run.outcome == "returned":
                failures.append(f"run {number} on kernel: breaks over it: {where}")
            case OutOfFuel() if run.outcome == "returned":
                failures.append(f"run {number} on kernel: does not end")
    return failures


def check_case(path: Path, settings: Settings) -> list[Check]:
    """Check the case in *path*: its expectations, and for C its builds."""
    case = corpus.read(path)
    if case.source is not None:
        checks = []
        for compiler in settings.compilers:
            for check in pipeline.source_case_checks(case, settings, compiler):
                checks.append(_as_expected(case, check))
        return checks
    failures = pipeline.check_case(case, None)
    outcome = "diverge" if failures else "agree"
    return [
        Check(
            str(path), case.name, None, outcome, detail="; ".join(failures), vectors=len(case.runs)
        )
    ]


def _as_expected(case: Case | None, check: Check) -> Check:
    """Return *check* of the C of *case* as agreement with what the case expects."""
    if case is None:
        return check
    expected = case.crosscheck or "agree"
    same = check.outcome == expected
    if same and expected != "agree" and case is not None:
        # kept because of somebody's fault: shown as known until it is mended
        return replace(check, known=case.name)
    detail = check.detail or f"expected {expected}, got {check.outcome}"
    outcome = "agree" if same else "diverge" if check.outcome == "agree" else check.outcome
    return replace(check, outcome=outcome, detail="" if same else detail)


class TimeOver(BaseException):
    """The time was over while steps ran: they and their processes are ended."""


def work(
    steps: list[Step],
    finished: Callable[[Any], Iterator[Step]],
    jobs: int,
    left: Callable[[], float | None] = lambda: None,
    fresh: int | None = None,
) -> None:
    """Run *steps*, and the ones that follow from their results, in *jobs* processes.

    *finished* takes a result and returns what follows, unless the step itself says that.
    *left* says for how many seconds to wait for another result, None for ever; raises
    TimeOver after them. After *fresh* steps there are new processes: what one holds grows, with
    the largest it has done.
    """
    waiting: list[Step] = []
    asked: dict[Future[Any], Step] = {}

    def add(more: Iterable[Step]) -> None:
        for step in more:
            if step.ask:
                asked[step.call(*step.arguments)] = step
            else:
                waiting.append(step)

    add(reversed(steps))
    while waiting or asked:
        alone = [step for step in waiting if step.alone]
        if alone:
            step = alone[0]
            waiting.remove(step)
            then = step.then or finished
            try:
                with Pool(1) as pool:
                    future = pool.submit(step.call, *step.arguments)
                    done, _ = wait([future], left())
                    if not done:
                        raise TimeOver
                    result = future.result()
            except BrokenProcessPool:
                why = "the process that checked it died: a crash in LLVM or the emulator"
                result, then = step.lost(why), finished
            add(then(result))
            continue
        running: dict[Future[Any], Step] = {}
        begun = 0
        try:
            with Pool(jobs) as pool:
                while waiting or running or asked:
                    # a few more than can run, so that no worker waits for us
                    while waiting and len(running) < jobs + 2 and begun != fresh:
                        step = waiting.pop()
                        running[pool.submit(step.call, *step.arguments)] = step
                        begun += 1
                    if not running and begun == fresh:
                        break
                    done, _ = wait([*running, *asked], left(), return_when=FIRST_COMPLETED)
                    if not done:
                        raise TimeOver
                    for future in done:
                        result = future.result()  # raises where the process died
                        step = asked.pop(future) if future in asked else running.pop(future)
                        add((step.then or finished)(result))
        except BrokenProcessPool:
            for step in running.values():
                step.alone = True
                waiting.append(step)


# --- known.toml -------------------------------------------------------------

_KINDS = {"diverge": "divergence", "rejected": "reject", "compile_error": "compile_error"}


def explain(
    check: Check, known: Sequence[Known], versions: Mapping[str, str] | None = None
) -> Check:
    """Return *check* with the entry of *known* that explains it, if one does.

    *versions*: by compiler.
    """
    kind = _KINDS.get(check.outcome)
    if kind is None:
        return check
    legs = {leg for divergence in check.divergences for leg in divergence.legs}
    for entry in known:
        if _concerns(entry, check, check.detail, versions) and (
            not entry.legs or not legs or legs <= set(entry.legs)
        ):
            return replace(check, known=entry.id)
    return check


def _concerns(entry: Known, check: Check, text: str, versions: Mapping[str, str] | None) -> bool:
    """Return whether *entry* is about *check*, were it to say *text*."""
    kind = _KINDS.get(check.outcome, entry.kind)
    version = (versions or {}).get(check.config.compiler, "") if check.config else ""
    return entry.matches(kind, check.source, check.function, check.build, text, version)


def stale(
    known: Sequence[Known],
    checks: Sequence[Check],
    settings: Settings,
) -> tuple[Known, ...]:
    """Return the open entries whose function was checked on the builds they name, and agrees.

    An entry that no longer shows is news: a compiler was mended, or the harness went blind.
    """
    shown = {check.known for check in checks}
    versions = {c.name: c.version for c in settings.compilers}
    found = []
    for entry in known:
        if entry.status != "open" or entry.kind == "parity" or entry.id in shown:
            continue
        if not set(entry.legs) <= set(settings.legs):
            continue  # it shows on legs that did not run
        # what an agreeing check would have said is not known: any message counts
        anything = replace(entry, message="*")
        seen = {check.outcome for check in checks if _concerns(anything, check, "", versions)}
        if seen == {"agree"} and set(settings.legs) >= {"interp", "jit", "native"}:
            found.append(entry)
    return tuple(found)


# --- JSON -------------------------------------------------------------------


def report_json(report: Report, settings: Settings) -> dict[str, Any]:
    """Return *report* in the form of the command contract."""
    checks = report.checks
    versions = {c.name: c.version for c in settings.compilers}
    return {
        "summary": {
            "functions": len({(c.source, c.function) for c in checks}),
            "builds": len({(c.source, c.config) for c in checks if c.config}),
            "vectors": sum(c.vectors for c in checks),
            "agree": report.count("agree"),
            "diverge": report.count("diverge"),
            "known": report.count("known"),
            "rejected": report.count("rejected"),
            "compile_errors": report.count("compile_error"),
            "unknown": report.count("unknown"),
            "explained": sum(c.known is not None for c in checks),
            "undefined": sum(c.undefined for c in checks),
            "seconds": round(report.seconds, 3),
            "seed": report.seed,
            "stale": [entry.id for entry in report.stale],
        },
        "compilers": versions,
        "builds": [
            {
                "source": c.source,
                "function": c.function,
                "compiler": c.config.compiler if c.config else None,
                "opt": c.config.opt if c.config else None,
                "mcpu": c.config.mcpu if c.config else None,
                "linkage": c.config.linkage if c.config else None,
                "verdict": c.verdict or None,
                "vectors": c.vectors,
                "outcome": outcome_of(c),
                "detail": c.detail or None,
                "known": c.known,
            }
            for c in checks
        ],
        "divergences": [
            {
                "source": c.source,
                "function": c.function,
                "build": c.build,
                "compiler": c.config.compiler if c.config else None,
                "legs": list(d.legs),
                "vector": d.vector.hex(),
                "outcomes": [outcome_json(o) for o in d.outcomes],
                "offset": d.offset,
                "known": c.known,
            }
            for c in checks
            for d in c.divergences
        ],
    }
