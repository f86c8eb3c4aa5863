"""The arrows of the picture: from C or BPF text to outcomes and their comparison.

Each function is one arrow or a short chain of them; everything it takes and returns is a
value that pickles, because ``harness.run`` calls them in worker processes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from harness import verifier
from harness.compare import compare_all
from harness.corpus import Case, RunCheck, VerifyCheck, bless, kernel_types
from harness.corpus import program as case_program
from harness.interp import RINGBUF, Places
from harness.isa.insn import MayGoto
from harness.jit import x86_64
from harness.legs import kfuncs, native
from harness.legs.interp import InterpLeg, InterpRunner
from harness.legs.jit import JitLeg, JitRunner
from harness.load import NAMES_FILLED, LoadError, load_object
from harness.model import (
    Accepted,
    Batch,
    BuildConfig,
    Crashed,
    Divergence,
    HarnessError,
    Image,
    Outcome,
    OutOfFuel,
    Program,
    Rejected,
    Returned,
    Runner,
    Trapped,
    Unknown,
    Vector,
    Verdict,
    Verification,
)
from harness.source import driver
from harness.source.layout import Layout, layout
from harness.source.signature import Unsupported, functions_under_test
from harness.source.vectors import vectors as make_vectors
from harness.toolchain import TIMEOUT, Compiler, run_compiler
from harness.verifier.loop_calls import is_loop

INTERP_VECTORS = 16  # vectors of each function that the slow interpreter runs too


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run does with each source."""

    configs: tuple[BuildConfig, ...]
    compilers: tuple[Compiler, ...]  # by the name in BuildConfig.compiler
    legs: tuple[str, ...] = ("interp", "jit", "native")
    vectors: int = 256
    seed: int = 0
    native_opts: tuple[int, ...] = (0, 2)
    native_compiler: Compiler | None = None  # None: the first of *compilers*
    host: bool = False  # the leg `kernel` is the machine's own
    patience: float = TIMEOUT  # seconds for one compiler call
    interp_vectors: int = INTERP_VECTORS  # of each function, on the slow interpreter
    budget: int = 0  # instructions the verifier may look at; 0: as many as Linux
    fill_names: bool = True  # name the BTF parameters that -O0 and naked functions leave nameless

    def compiler(self, name: str) -> Compiler:
        """Return the compiler that a configuration names."""
        return next(c for c in self.compilers if c.name == name)

    @property
    def front_end(self) -> Compiler:
        """The clang that makes the IR of the native build."""
        return self.native_compiler or self.compilers[0]


@dataclass(frozen=True, slots=True)
class Check:
    """What came of one function, program or case in one build."""

    source: str
    function: str
    config: BuildConfig | None  # None: no compiler had a part in it
    outcome: str  # "agree", "diverge", "rejected", "compile_error", "unknown"
    verdict: str = ""  # "accept", "reject", "unknown"; "" where nothing was verified
    detail: str = ""  # why, one line
    vectors: int = 0  # compared
    divergences: tuple[Divergence, ...] = ()
    where: str = ""  # what the first differing byte belongs to
    known: str | None = None  # the entry of known.toml that explains it
    names_filled: bool = False  # BTF parameters were named, without which Linux refuses
    undefined: int = 0  # vectors left out: the source has undefined behaviour on them

    @property
    def build(self) -> str:
        """The build as text, as known.toml matches it."""
        return str(self.config) if self.config else ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a C source has to check, and what its native builds do."""

    source: str  # as named by the user
    path: Path
    layouts: tuple[Layout, ...] = ()
    unsupported: tuple[Unsupported, ...] = ()
    externs: tuple[str, ...] = ()
    programs: bool = False  # it has programs of its own: they are verified, not driven
    vectors: Mapping[str, Sequence[Vector]] = field(default_factory=dict)  # by function
    natives: Mapping[str, Mapping[str, Sequence[Outcome]]] = field(default_factory=dict)
    native_why: str = ""  # why there is no native outcome
    mcpus: tuple[str, ...] = ()  # the only ones the source is for; none: all
    refusals: Mapping[str, str] = field(default_factory=dict)  # program: expected message
    failure: str = ""  # it does not compile at all
    text: str = ""  # C text in place of what *path* holds
    parts: Mapping[str, str] = field(default_factory=dict)  # function: C text with it alone

    @property
    def c(self) -> Path | str:
        """The C text, or the file that holds it."""
        return self.text or self.path


# --- C source to plan -------------------------------------------------------

_REFUSE = re.compile(r"^\W*refuse (\w+): (.*\S)\s*$", re.MULTILINE)
_MCPU = re.compile(r"^\W*crosscheck: -mcpu=(\S+)\s*$", re.MULTILINE)
_ONLY = re.compile(r"^\W*crosscheck: only (\w+)\s*$", re.MULTILINE)


def plan(path: Path, source: str, settings: Settings) -> Plan:
    """Find the functions under test in *path* and run their native builds."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        return Plan(source, path, failure=f"cannot read it: {error.strerror}")
    refusals = dict(_REFUSE.findall(text))
    mcpus = tuple(_MCPU.findall(text))
    empty = Plan(source, path, refusals=refusals, mcpus=mcpus)
    newest = max(mcpus or [config.mcpu for config in settings.configs])
    arguments = [*driver.discovery_args(), f"-mcpu={newest}"]
    result = run_compiler(_newest(settings), arguments, source=path, timeout=settings.patience)
    if result.output is None:
        return replace(empty, failure=result.why)
    try:
        found = load_object(result.output, path=source)
    except HarnessError as error:
        return replace(empty, failure=str(error))
    if found.programs:
        return replace(empty, programs=True)
    if found.btf is None:
        return replace(empty, failure="it defines no function")
    discovery = functions_under_test(found.btf, _ONLY.findall(text) or None)
    layouts, unsupported = [], list(discovery.unsupported)
    for signature in discovery.signatures:
        place = layout(signature)
        if isinstance(place, Unsupported):
            unsupported.append(place)
        else:
            layouts.append(place)
    planned = replace(
        empty,
        layouts=tuple(layouts),
        unsupported=tuple(unsupported),
        externs=tuple(e for e in discovery.externs if not e.startswith(driver.KFUNCS)),
        vectors={p.signature.name: vectors_of(p, settings) for p in layouts},
    )
    if "native" in settings.legs and layouts:
        natives, why = native_outcomes(planned, settings)
        planned = replace(planned, natives=natives, native_why=why)
    return planned


def _newest(settings: Settings) -> Compiler:
    capable = [c for c in settings.compilers if c.stack_arguments]
    return (capable or settings.compilers)[0]


def vectors_of(place: Layout, settings: Settings) -> list[Vector]:
    """Return the input vectors of one function; the same in every process."""
    return make_vectors(place, settings.vectors, settings.seed)


def native_outcomes(
    planned: Plan, settings: Settings
) -> tuple[dict[str, dict[str, Sequence[Outcome]]], str]:
    """Return function: leg: outcomes of the native builds, and why there are none."""
    ir = _native_ir(planned, settings)
    if isinstance(ir, Unknown):
        return {}, ir.why
    outcomes: dict[str, dict[str, Sequence[Outcome]]] = {
        p.signature.name: {} for p in planned.layouts
    }
    jobs: list[native.Job] = []
    for built in native.build(ir, settings.native_opts).values():
        if isinstance(built, Unknown):
            return {}, built.why
        jobs += [
            (built, driver.entry(p.signature.name), planned.vectors[p.signature.name])
            for p in planned.layouts
        ]
    seen = iter(native.run_many(jobs))
    for opt in settings.native_opts:
        for place in planned.layouts:
            outcomes[place.signature.name][f"native-O{opt}"] = next(seen)
    return outcomes, ""


def _native_ir(planned: Plan, settings: Settings, check: str | None = None) -> str | Unknown:
    text = driver.translation_unit(planned.c, planned.layouts)
    args = driver.native_args(check)
    result = run_compiler(settings.front_end, args, source=text, timeout=settings.patience)
    if result.output is None:
        return Unknown(f"no native build: {result.why}")
    return result.output.decode(errors="replace")


# --- plan and build to checks -----------------------------------------------


@dataclass(frozen=True, slots=True)
class Built:
    """A source compiled one way: what is left to verify and to run."""

    planned: Plan  # its functions are those that compiled
    config: BuildConfig
    checks: tuple[Check, ...] = ()  # what became of the others
    data: bytes = b""  # the object; empty: there is nothing to check


@dataclass(frozen=True, slots=True)
class Linux:
    """What the leg `kernel` says of a program."""

    verdict: Accepted | Rejected | Unknown
    outcomes: Sequence[Outcome] = ()  # one for each vector


def check_build(planned: Plan, config: BuildConfig, settings: Settings) -> list[Check]:
    """Compile *planned* as *config* says and check every function or program of it."""
    return check_built(compile_build(planned, config, settings), settings)


def compile_build(
    planned: Plan, config: BuildConfig, settings: Settings, more: Sequence[str] = ()
) -> Built:
    """Compile *planned* as *config* and *more* arguments of the compiler say."""
    if planned.failure:
        check = Check(planned.source, "*", config, "compile_error", detail=planned.failure)
        return Built(planned, config, (check,))
    if planned.programs:
        compiler = settings.compiler(config.compiler)
        args = [*driver.program_args(config), *more]
        result = run_compiler(compiler, args, source=planned.path)
        if result.output is None:
            check = Check(planned.source, "*", config, "compile_error", detail=result.why)
            return Built(planned, config, (check,))
        return Built(planned, config, data=result.output)
    checks = [
        Check(planned.source, u.function, config, "unknown", detail=u.why)
        for u in planned.unsupported
    ]
    if not planned.layouts:
        return Built(planned, config, tuple(checks))
    if config.linkage == "static" and planned.externs:
        why = f"not static: it declares {', '.join(planned.externs)} and does not define it"
        checks += [
            Check(planned.source, p.signature.name, config, "unknown", detail=why)
            for p in planned.layouts
        ]
        return Built(planned, config, tuple(checks))
    compiler = settings.compiler(config.compiler)
    layouts = planned.layouts
    while layouts:
        text = driver.translation_unit(planned.c, layouts, config.linkage)
        args = [*driver.bpf_args(config), *more]
        result = run_compiler(compiler, args, source=text, timeout=settings.patience)
        # a function that this build's preprocessor leaves out must not take the others with it
        blamed = driver.blame(result.diagnostics) if result.output is None else set()
        left = tuple(p for p in layouts if p.signature.name not in blamed)
        checks += [
            Check(planned.source, p.signature.name, config, "compile_error", detail=result.why)
            for p in layouts
            if result.output is None and (p.signature.name in blamed or len(left) == len(layouts))
        ]
        if result.output is not None:
            kept = replace(planned, layouts=layouts)
            return Built(kept, config, tuple(checks), result.output)
        if len(left) == len(layouts):
            break
        layouts = left
    return Built(planned, config, tuple(checks))


def built_programs(built: Built, settings: Settings) -> list[tuple[Program, Sequence[Vector]]]:
    """Return the programs that *built* has to check, each with its vectors."""
    if not built.data:
        return []
    planned, path = built.planned, f"{built.planned.source} {built.config}"
    try:
        loaded = load_object(built.data, path=path, fill_names=settings.fill_names)
    except LoadError:
        return []  # check_built says so
    linked = kfuncs.attach(loaded.programs, settings.front_end)
    if planned.programs:
        return [(program, ()) for program in linked]
    vectors = {driver.entry(name): found for name, found in planned.vectors.items()}
    return [(program, vectors[program.name]) for program in linked if program.name in vectors]


def check_built(
    built: Built, settings: Settings, linux: Mapping[str, Linux] = MappingProxyType({})
) -> list[Check]:
    """Check every function or program of *built*, beside *linux* by the program's name."""
    if not built.data:
        return list(built.checks)
    check = check_programs if built.planned.programs else check_object
    return [*built.checks, *check(built.planned, built.config, settings, built.data, linux)]


def check_object(
    planned: Plan,
    config: BuildConfig,
    settings: Settings,
    data: bytes,
    linux: Mapping[str, Linux] = MappingProxyType({}),
) -> list[Check]:
    """Check every function of the object *data*, which *planned* compiled to."""
    path = f"{planned.source} {config}"
    try:
        loaded = load_object(data, path=path, fill_names=settings.fill_names)
    except LoadError as error:
        return [
            Check(planned.source, p.signature.name, config, "compile_error", detail=str(error))
            for p in planned.layouts
        ]
    linked = kfuncs.attach(loaded.programs, settings.front_end)
    programs = {program.name: program for program in linked}
    checks = []
    for place in planned.layouts:
        name = driver.entry(place.signature.name)
        program = programs.get(name)
        if program is None:
            why = "the object lacks its driver"
            checks.append(
                Check(planned.source, place.signature.name, config, "compile_error", detail=why)
            )
        else:
            checks.append(
                check_function(planned, place, config, settings, program, linux.get(name))
            )
    filled = NAMES_FILLED in loaded.notes
    return [replace(check, names_filled=filled) for check in checks]


@dataclass(frozen=True, slots=True)
class Judged:
    """A check, and what it was made of."""

    check: Check
    program: Program
    verification: Verification
    image: Image | None  # None: the JIT did not run, or could not


def check_function(
    planned: Plan,
    place: Layout,
    config: BuildConfig,
    settings: Settings,
    program: Program,
    linux: Linux | None = None,
) -> Check:
    """Verify, fix up, JIT and run one driver program, and compare its legs."""
    return judge_function(planned, place, config, settings, program, linux).check


def judge_function(
    planned: Plan,
    place: Layout,
    config: BuildConfig,
    settings: Settings,
    program: Program,
    linux: Linux | None = None,
) -> Judged:
    """Do as ``check_function``, and return what it saw on the way."""
    verification = verifier.verify(program, log_level=0, options=_options(settings))
    vectors = planned.vectors[place.signature.name]
    legs, whys, image = run_legs_and_image(program, vectors, settings, verification.dead)
    check = _compared(planned, place, config, settings, program, verification, legs, whys, linux)
    return Judged(check, program, verification, image)


def _options(settings: Settings) -> verifier.Options:
    return verifier.Options(budget=settings.budget)


def _compared(
    planned: Plan,
    place: Layout,
    config: BuildConfig,
    settings: Settings,
    program: Program,
    verification: Verification,
    legs: dict[str, Sequence[Outcome]],
    whys: list[str],
    linux: Linux | None,
) -> Check:
    name = place.signature.name
    verdict = verification.verdict
    base = Check(planned.source, name, config, "agree", verdict=_verdict_name(verdict))
    match verdict:
        case Unknown(why=why):
            base = replace(base, detail=f"verifier: {why}")
        case Rejected(message=message):
            base = replace(base, outcome="rejected", detail=message)
    vectors = planned.vectors[name]
    if linux is not None:
        if linux.outcomes:
            told = linux.outcomes
            if any(bpf_map.type == RINGBUF for bpf_map in program.maps):
                # the kernel leg reads no ring buffer
                told = [replace(o, effects=None) if isinstance(o, Returned) else o for o in told]
            legs["kernel"], unsure = _known_outcomes("kernel", told)
            whys += unsure
        if verdicts_differ(verdict, linux.verdict):
            return verdict_check(base, verdict, linux.verdict)
    if isinstance(verdict, Rejected):
        # The compiler's code is checked all the same, for the refusal may be Linux's own
        # limit; but what a refused program may not do, it need not do alike.
        legs = {leg: _returned_only(seen) for leg, seen in legs.items()}
    legs.update(planned.natives.get(name, {}))
    if "native" in settings.legs and planned.native_why:
        whys.append(planned.native_why)
    found = compare_all(legs, vectors, place.mask)
    undefined: dict[int, str] = {}
    if found:
        undefined, why = undefined_vectors(planned, place, settings, [n for n, _ in found])
        if why:
            whys.append(why)
        found = [(n, d) for n, d in found if n not in undefined]
    base = replace(base, vectors=len(vectors), undefined=len(undefined))
    if undefined:
        whys.append(f"undefined behaviour in the source: {next(iter(undefined.values()))}")
    if found:
        first = found[0][1]
        where = place.describe(first.offset) if first.offset is not None else ""
        return replace(base, outcome="diverge", divergences=tuple(d for _, d in found), where=where)
    if base.outcome == "agree" and (whys or len(legs) < 2 or isinstance(verdict, Unknown)):
        detail = "; ".join(dict.fromkeys([base.detail, *whys])).strip("; ")
        return replace(base, outcome="unknown", detail=detail or "only one leg ran")
    return base


def _returned_only(seen: Sequence[Outcome]) -> Sequence[Outcome]:
    batch = Batch.of(seen)
    others = dict.fromkeys(batch.others, Unknown("the program was refused"))
    return Batch(batch.r0s, batch.contexts, others, batch.effects)


def run_legs(
    program: Program, vectors: Sequence[Vector], settings: Settings
) -> tuple[dict[str, Sequence[Outcome]], list[str]]:
    """Return leg: outcomes of the BPF legs of *settings*, and why some have none."""
    legs, whys, _ = run_legs_and_image(program, vectors, settings)
    return legs, whys


def run_legs_and_image(
    program: Program,
    vectors: Sequence[Vector],
    settings: Settings,
    dead: frozenset[int] = frozenset(),
) -> tuple[dict[str, Sequence[Outcome]], list[str], Image | None]:
    """Do as ``run_legs``, and return the JIT's image too, if there is one.

    The JIT gets *program* without what the verifier found *dead*, as Linux does it: where that
    is not dead, its results tell.
    """
    legs: dict[str, Sequence[Outcome]] = {}
    whys: list[str] = []
    image = None
    for leg in ("interp", "jit"):
        if leg not in settings.legs:
            continue
        runner = _runner(program, leg, dead)
        some = vectors[: settings.interp_vectors] if leg == "interp" else vectors
        seen: Sequence[Outcome]
        if isinstance(runner, Unknown):
            seen = [runner] * len(some)
        else:
            seen = _run(program, runner, some, legs.get("interp", ()))
        legs[leg], why = _known_outcomes(leg, seen)
        whys += why
        if isinstance(runner, JitRunner):
            image = runner.image
    return legs, whys, image


def _known_outcomes(leg: str, seen: Sequence[Outcome]) -> tuple[Batch, list[str]]:
    """Return *seen* as columns, and why some of it is not known."""
    batch = Batch.of(seen)
    unknown = next((o for o in batch.others.values() if isinstance(o, Unknown)), None)
    return batch, [f"{leg}: {unknown.why}"] if unknown else []


def verdicts_differ(ours: Verdict, linux: Verdict) -> bool:
    """Return whether one takes the program and the other does not, or breaks over it."""
    if isinstance(linux, Crashed):
        return True
    if isinstance(ours, Unknown) or isinstance(linux, Unknown):
        return False
    return type(ours) is not type(linux)


def verdict_check(base: Check, ours: Verdict, linux: Verdict) -> Check:
    """Return *base* as a divergence of the verifiers."""
    if isinstance(linux, Crashed):
        why = f"Linux breaks over it: {linux.why}"
        divergence = Divergence(("verifier", "kernel"), b"", (ours, linux))
        return replace(base, outcome="diverge", detail=why, divergences=(divergence,))
    refusal = next(v.message for v in (ours, linux) if isinstance(v, Rejected))
    who = "ours" if isinstance(ours, Rejected) else "Linux"
    divergence = Divergence(("verifier", "kernel"), b"", (ours, linux))
    why = f"the verdicts differ: {who} refuses it: {refusal}"
    return replace(base, outcome="diverge", detail=why, divergences=(divergence,))


def execute(
    program: Program, leg: str, vectors: Sequence[Vector], dead: frozenset[int] = frozenset()
) -> Sequence[Outcome]:
    """Run *program* on the BPF leg named *leg*, the JIT without what is *dead*."""
    runner = _runner(program, leg, dead)
    if isinstance(runner, Unknown):
        return [runner for _ in vectors]
    return _run(program, runner, vectors)


def _run(
    program: Program, runner: Runner, vectors: Sequence[Vector], beside: Sequence[Outcome] = ()
) -> Sequence[Outcome]:
    """Return the outcomes of *program* on *vectors*.

    Where Linux itself ends a loop, however long it takes, a leg that is out of fuel knows
    nothing of what comes then: unless the leg *beside* it has returned.
    """
    seen = Batch.of(runner.run(vectors))
    late = [number for number, o in seen.others.items() if isinstance(o, OutOfFuel)]
    if not late:
        return seen
    if not any(isinstance(insn, MayGoto) or is_loop(insn) for insn in program.insns):
        return seen
    why = Unknown("out of fuel in a program with may_goto or bpf_loop, whose loops Linux ends")
    others = dict(seen.others)
    for number in late:
        if not (number < len(beside) and isinstance(beside[number], Returned)):
            others[number] = why
    return Batch(seen.r0s, seen.contexts, others, seen.effects)


def execute_over(
    program: Program, leg: str, vector: Vector, stacks: Iterable[bytes]
) -> list[Outcome]:
    """Return what *program* does on *vector* over each of *stacks*: bytes nobody has written.

    Nothing where *leg* cannot run it.
    """
    runner = _runner(program, leg)
    return runner.over(vector, stacks) if isinstance(runner, InterpRunner | JitRunner) else []


def execute_alike(
    program: Program, vector: Vector, dead: frozenset[int] = frozenset()
) -> tuple[Outcome, Outcome, Places] | None:
    """Return what the image does on *vector*, and the interpreter where all lies as it did there.

    And where that was. None where one of them cannot run *program*; the image lacks what is *dead*.
    """
    jit, interp = _runner(program, "jit", dead), _runner(program, "interp")
    if not isinstance(jit, JitRunner) or not isinstance(interp, InterpRunner):
        return None
    outcome, places = jit.at(vector)
    return outcome, interp.at(vector, places), places


def execute_at(program: Program, vector: Vector, places: Sequence[Places]) -> list[Outcome]:
    """Return what the interpreter does on *vector* where memory lies at each of *places*."""
    runner = _runner(program, "interp")
    if not isinstance(runner, InterpRunner):
        return []
    return [runner.at(vector, each) for each in places]


def _runner(program: Program, leg: str, dead: frozenset[int] = frozenset()) -> Runner | Unknown:
    if leg == "interp":
        return InterpLeg().prepare(program)
    if leg == "jit":
        return _jit_leg().prepare(verifier.fixup(program, dead))
    raise HarnessError(f"no leg {leg} that runs BPF (interp, jit)")


@functools.cache
def _jit_leg() -> JitLeg:
    """One emulator a process: it costs more to make than to use."""
    return JitLeg()


def _verdict_name(verdict: Accepted | Rejected | Unknown) -> str:
    return {Accepted: "accept", Rejected: "reject", Unknown: "unknown"}[type(verdict)]


def undefined_vectors(
    planned: Plan, place: Layout, settings: Settings, numbers: Sequence[int]
) -> tuple[dict[int, str], str]:
    """Return which of the vectors *numbers* the C source has no defined behaviour on, and why.

    Also returns why that could not be found out, "" if it could.
    """
    alone = replace(planned, layouts=(place,))
    alone = replace(alone, text=planned.parts.get(place.signature.name, planned.text))
    builds = _checking_builds(alone, settings)
    if isinstance(builds, Unknown):
        return {}, f"undefined behaviour not ruled out: {builds.why}"
    return _undefined(planned, place, builds, list(dict.fromkeys(numbers))), ""


def undefined_in(planned: Plan, settings: Settings) -> dict[str, dict[int, str]] | Unknown:
    """Return function: vector: what is undefined about it, over all of *planned*."""
    builds = _checking_builds(planned, settings)
    if isinstance(builds, Unknown):
        return builds
    found = {}
    for place in planned.layouts:
        numbers = range(len(planned.vectors[place.signature.name]))
        undefined = _undefined(planned, place, builds, numbers)
        if undefined:
            found[place.signature.name] = undefined
    return found


def _checking_builds(planned: Plan, settings: Settings) -> dict[str, native.NativeModule] | Unknown:
    """Return native builds that tell undefined behaviour: one traps, two fill what is unset."""
    plain, zero = _native_ir(planned, settings), _native_ir(planned, settings, "zero")
    # where nothing is unset, nothing is filled: the code that fills it is the code that does not
    full = isinstance(plain, str) and plain == zero
    builds: dict[str, native.NativeModule] = {}
    for check in driver.CHECKS:
        if full and check in ("zero", "pattern"):
            continue
        ir = zero if check == "zero" else _native_ir(planned, settings, check)
        built = ir if isinstance(ir, Unknown) else native.build(ir, (0,))[0]
        if isinstance(built, Unknown):
            return built
        builds[check] = built
    return builds


def _undefined(
    planned: Plan,
    place: Layout,
    builds: Mapping[str, native.NativeModule],
    numbers: Sequence[int],
) -> dict[int, str]:
    vectors = planned.vectors[place.signature.name]
    entry = driver.entry(place.signature.name)
    whys = native.undefined_behaviour(builds, entry, [vectors[n] for n in numbers], place.mask)
    return {n: why for n, why in zip(numbers, whys, strict=True) if why}


# --- programs with sections of their own ------------------------------------


def check_programs(
    planned: Plan,
    config: BuildConfig,
    settings: Settings,
    data: bytes,
    linux: Mapping[str, Linux] = MappingProxyType({}),
) -> list[Check]:
    """Verify the programs of a source that has its own, against the refusals it expects."""
    path = f"{planned.source} {config}"
    try:
        loaded = load_object(data, path=path, fill_names=settings.fill_names)
    except LoadError as error:
        return [Check(planned.source, "*", config, "compile_error", detail=str(error))]
    linked = kfuncs.attach(loaded.programs, settings.front_end)
    checks = [_check_program(planned, config, p, linux.get(p.name)) for p in linked]
    checks += [
        Check(planned.source, r.name, config, "unknown", detail=r.why) for r in loaded.refused
    ]
    filled = NAMES_FILLED in loaded.notes
    checks = [replace(check, names_filled=filled) for check in checks]
    for missing in sorted(planned.refusals.keys() - {p.name for p in loaded.programs}):
        why = "the source expects a refusal of it, and has no such program"
        checks.append(Check(planned.source, missing, config, "diverge", detail=why))
    return checks


def _check_program(
    planned: Plan, config: BuildConfig, program: Program, linux: Linux | None
) -> Check:
    verdict = verifier.verify(program, log_level=0).verdict
    base = Check(planned.source, program.name, config, "agree", verdict=_verdict_name(verdict))
    if linux is not None and verdicts_differ(verdict, linux.verdict):
        return verdict_check(base, verdict, linux.verdict)
    expected = planned.refusals.get(program.name)
    match verdict:
        case Unknown(why=why):
            return replace(base, outcome="unknown", detail=f"verifier: {why}")
        case Rejected(message=message) if expected is None:
            return replace(base, outcome="rejected", detail=message)
        case Rejected(message=message) if message != expected:
            return replace(
                base, outcome="diverge", detail=f"expected {expected!r}, got {message!r}"
            )
        case Accepted() if expected is not None:
            return replace(base, outcome="diverge", detail=f"expected {expected!r}, accepted")
    return base


# --- cases ------------------------------------------------------------------


def check_case(case: Case, compiler: Compiler | None) -> list[str]:
    """Return what the case *case* expects and does not get, one line each."""
    if case.source is not None:
        return _check_source_case(case, compiler)
    failures: list[str] = []
    seen = observe(case)
    expected = case.verify
    if expected is not None:
        got = seen.verify
        for name in ("verdict", "message", "insn", "log"):
            want = getattr(expected, name)
            if (want is not None or name == "message") and want != getattr(got, name):
                failures.append(f"{name}: expected {want!r}, got {getattr(got, name)!r}")
    for arch, images in case.jit.items():
        for name, code in images.items():
            if seen.jit.get(arch, {}).get(name) != code:
                got_code = seen.jit.get(arch, {}).get(name)
                failures.append(f"{arch} image of {name}: expected {code}, got {got_code}")
    for number, run in enumerate(case.runs, 1):
        for leg in run.ours:
            got_run = seen.runs[number - 1][leg]
            if got_run != _expected(run):
                failures.append(f"run {number} on {leg}: expected {_expected(run)}, got {got_run}")
    return failures


@dataclass(frozen=True, slots=True)
class Observation:
    """What a case's program does today."""

    verify: VerifyCheck
    jit: Mapping[str, Mapping[str, str]]
    runs: Sequence[Mapping[str, tuple[str, int | None, bytes | None]]]


def observe(case: Case) -> Observation:
    """Return what the BPF text of *case* does."""
    assert case.program is not None
    program = case_program(case.program, case.name)
    kernel = case.verify.kernel if case.verify else ""
    options = verifier.Options(
        jit=kernel != "no-jit",
        jit_stack_args=kernel != "no-stack-args",
        kernel_btf=kernel_types(),
    )
    verification = verifier.verify(program, log_level=1, options=options)
    insn, message = None, None
    match verification.verdict:
        case Rejected():
            insn, message = verification.verdict.insn, verification.verdict.message
        case Unknown():
            message = verification.verdict.why
    verdict = _verdict_name(verification.verdict)
    image = x86_64.compile(verifier.fixup(program)) if case.jit else None
    images = {s.name: s.code.hex() for s in image.subprograms} if isinstance(image, Image) else {}
    runs = []
    for run in case.runs:
        runs.append({leg: _summary(execute(program, leg, [run.ctx])[0]) for leg in run.ours})
    return Observation(
        VerifyCheck(verdict, message, insn, verification.log, kernel), {"x86_64": images}, runs
    )


def _summary(outcome: Outcome) -> tuple[str, int | None, bytes | None]:
    match outcome:
        case Returned():
            return "returned", outcome.r0, outcome.ctx
        case Trapped():
            return "trapped", None, None
        case OutOfFuel():
            return "fuel", None, None
    return f"unknown: {outcome.why}", None, None


def _expected(run: RunCheck) -> tuple[str, int | None, bytes | None]:
    if run.outcome != "returned":
        return run.outcome, None, None
    return run.outcome, run.r0, run.ctx if run.after is None else run.after


def bless_case(case: Case, compiler: Compiler | None) -> bool:
    """Rewrite the expectations of *case* to what it does today; return whether they changed.

    Raises HarnessError where that is not one thing: legs that disagree, or that do not know.
    """
    if case.source is not None:
        outcomes = {check.outcome for check in _source_case_checks(case, compiler)}
        if len(outcomes) != 1 or "unknown" in outcomes:
            raise HarnessError(f"{case.path}: nothing to bless: {', '.join(sorted(outcomes))}")
        return bless(case.path, crosscheck=outcomes.pop())
    seen = observe(case)
    keep = case.verify or VerifyCheck("")
    verify = replace(
        seen.verify,
        log=seen.verify.log if keep.log is not None else None,
        insn=seen.verify.insn,
    )
    runs = []
    for number, (run, legs) in enumerate(zip(case.runs, seen.runs, strict=True), 1):
        if not legs:  # Linux's alone
            runs.append(run)
            continue
        outcome, r0, after = next(iter(legs.values()))
        if len(set(legs.values())) > 1 or outcome.startswith("unknown"):
            raise HarnessError(f"{case.path}: run {number}: nothing to bless: {dict(legs)}")
        runs.append(replace(run, outcome=outcome, r0=r0, after=after))
    return bless(case.path, verify=verify, jit=seen.jit if case.jit else None, runs=runs)


def source_case_checks(case: Case, settings: Settings, compiler: Compiler) -> list[Check]:
    """Check the C of *case* on the builds it names."""
    import tempfile

    assert case.source is not None
    checks: list[Check] = []
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as folder:
        path = Path(folder, f"{case.name}.c")
        path.write_text(case.source.c, encoding="utf-8")
        configs = case_configs(case, compiler)
        settings = replace(settings, configs=configs)
        planned = plan(path, str(case.path), settings)
        for config in configs:
            checks += check_build(planned, config, settings)
    return checks


def case_configs(case: Case, compiler: Compiler) -> tuple[BuildConfig, ...]:
    """Return the builds that *case*, which is C, names."""
    assert case.source is not None
    return tuple(
        BuildConfig(compiler.name, opt, mcpu, linkage)
        for opt in case.source.opts
        for mcpu in case.source.mcpus
        for linkage in case.source.linkages
    )


def _source_case_checks(case: Case, compiler: Compiler | None) -> list[Check]:
    if compiler is None:
        raise HarnessError(f"{case.path}: needs a clang")
    return source_case_checks(case, Settings(configs=(), compilers=(compiler,)), compiler)


def _check_source_case(case: Case, compiler: Compiler | None) -> list[str]:
    expected = case.crosscheck or "agree"
    return [
        f"{check.function} {check.build}: expected {expected}, got {check.outcome} {check.detail}"
        for check in _source_case_checks(case, compiler)
        if check.outcome != expected
    ]
