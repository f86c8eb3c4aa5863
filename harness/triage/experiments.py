"""What an experiment is made of: a subject, and a bench that builds and runs it some way.

Everything goes through the pipeline's own arrows, one function at a time.
"""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from harness import pipeline, verifier
from harness.compare import agree
from harness.legs import kfuncs, native
from harness.legs.native_code import NativeModule, UnlinkableError
from harness.legs.native_code import load as load_native
from harness.load import LoadError, load_object
from harness.model import (
    Batch,
    BuildConfig,
    HarnessError,
    Mask,
    Outcome,
    Program,
    Rejected,
    Unknown,
    Vector,
    Verdict,
)
from harness.pipeline import Plan, Settings
from harness.source import driver
from harness.source.layout import Layout
from harness.toolchain import Compiler, CompileResult, remembering, run_compiler
from harness.triage.tokens import outline

_TRIPLE = "x86_64-unknown-linux-gnu"
_LAYOUT = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
GCC_TIMEOUT = 30.0  # seconds
PATIENCE = 30.0  # seconds for a compiler call on one function
HANGS = 5.0  # seconds, once the compiler did not end
# What a compiler sees of undefined behaviour, and what shortened text tends to have of it.
STRICT = tuple(
    f"-Werror={name}"
    for name in (
        "return-type", "uninitialized", "sometimes-uninitialized", "array-bounds",
        "shift-count-overflow", "shift-count-negative", "division-by-zero", "int-conversion",
        "incompatible-pointer-types", "implicit-function-declaration", "return-stack-address",
        "excess-initializers", "zero-length-array",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Subject:
    """A function of a C text, in one build, on some vectors."""

    c: str
    function: str
    config: BuildConfig
    seed: int = 0
    count: int = 64  # vectors made from the seed
    vectors: tuple[Vector, ...] = ()  # these instead, where there are any
    also: tuple[Vector, ...] = ()  # these first, where they fit the function
    whole: bool = False  # with the drivers of the file's other functions beside it
    assembly: bool = False  # compare the object with the assembly in every attempt
    strict: bool = False  # compile with STRICT: texts that a compiler warns of do not count
    expected: str = ""  # the message of a refusal that must come
    handed: bool = False  # it is about the assembly the compiler prints, and assembles or not


@dataclass(frozen=True, slots=True)
class Built:
    """What one BPF build of a subject came to."""

    config: BuildConfig
    arguments: tuple[str, ...]  # of the compiler
    data: bytes | None = None  # the object
    why: str = ""  # why there is none, or no program
    crashed: bool = False
    program: Program | None = None
    verdict: Verdict | None = None
    legs: Mapping[str, Sequence[Outcome]] | None = None
    dead: frozenset[int] = frozenset()  # slots that the verifier found dead
    whole: Sequence[Outcome] = ()  # what the JIT's image does with them, if there are any
    notes: tuple[str, ...] = ()  # of the loader
    printed: str = ""  # what the assembler has against the assembly as it is printed

    @property
    def code(self) -> object:
        """The instructions, for comparison with another build."""
        return self.program.insns if self.program else None


class Bench:
    """Builds and runs subjects; a folder of its own until it is closed.

    In its block no compiler is asked the same twice.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._folder = tempfile.TemporaryDirectory(prefix="crosscheck-")
        self._open = ExitStack()
        self._open.push(self._folder)
        self.path = Path(self._folder.name, "input.c")

    def __enter__(self) -> Bench:
        self._open.enter_context(remembering())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    # --- the source -----------------------------------------------------------

    def plan(self, subject: Subject, *, quick: bool = False) -> Plan:
        """Return the plan of *subject*'s function alone.

        *quick*: whether the bodies of its functions compile may be left to its builds.
        """
        self.path.write_text(subject.c, encoding="utf-8", errors="surrogateescape")
        settings = replace(
            self.settings,
            configs=(subject.config,),
            seed=subject.seed,
            vectors=subject.count,
            legs=("interp", "jit"),
        )
        bare = outline(subject.c) if quick else None
        if bare is None:
            planned = pipeline.plan(self.path, "input.c", settings)
        else:
            planned = replace(_planned(bare, settings), path=self.path)
        planned = replace(planned, text=subject.c)
        if planned.failure or planned.programs:
            return planned
        layouts = tuple(p for p in planned.layouts if p.signature.name == subject.function)
        if not layouts:
            whys = [u.why for u in planned.unsupported if u.function == subject.function]
            why = whys[0] if whys else f"it has no function {subject.function} to test"
            return replace(planned, failure=why, layouts=())
        made = subject.vectors or (*subject.also, *planned.vectors[subject.function])
        right = [v for v in made if len(v) == layouts[0].size]
        vectors: dict[str, Sequence[Vector]] = {subject.function: right}
        if subject.whole:
            # the compiler's choices depend on who else calls a function
            others = [p for p in planned.layouts if p.signature.name != subject.function]
            vectors |= {p.signature.name: planned.vectors[p.signature.name][:1] for p in others}
            layouts = (*layouts, *others)
        return replace(planned, layouts=layouts, vectors=vectors)

    def natives(
        self, planned: Plan, levels: tuple[int, ...]
    ) -> tuple[Mapping[str, Sequence[Outcome]], str]:
        """Return leg: outcomes of the native builds at *levels*; and why there are none."""
        settings = replace(self.settings, native_opts=levels)
        one = replace(planned, layouts=planned.layouts[:1])
        outcomes, why = pipeline.native_outcomes(one, settings)
        return outcomes.get(place_of(planned).signature.name, {}), why

    def undefined(self, planned: Plan, numbers: Sequence[int]) -> tuple[dict[int, str], str]:
        """Return which vectors have undefined behaviour and why; and why that is not known."""
        return pipeline.undefined_vectors(planned, planned.layouts[0], self.settings, numbers)

    # --- BPF --------------------------------------------------------------------

    def compile(
        self,
        planned: Plan,
        config: BuildConfig,
        extra: Sequence[str] = (),
        *,
        compiler: Compiler | None = None,
        cache: bool = True,
    ) -> CompileResult:
        """Return what the compiler makes of *planned*; *extra* are further arguments."""
        text = driver.translation_unit(planned.c, planned.layouts, config.linkage)
        compiler = compiler or self.settings.compiler(config.compiler)
        arguments = [*driver.bpf_args(config), *extra]
        patience = self.settings.patience
        result = run_compiler(compiler, arguments, source=text, cache=cache, timeout=patience)
        if result.timed_out:
            self.settings = replace(self.settings, patience=min(HANGS, patience))
        return result

    def build(
        self,
        planned: Plan,
        config: BuildConfig,
        extra: Sequence[str] = (),
        *,
        compiler: Compiler | None = None,
        cache: bool = True,
        through_text: bool = False,
        legs: Sequence[str] = ("interp", "jit"),
    ) -> Built:
        """Compile, load, verify and run *planned* as *config* says.

        *through_text*: the compiler writes assembly, and assembles that in a second call.
        """
        arguments = (*driver.bpf_args(config), *extra)
        if config.linkage == "static" and planned.externs:
            return Built(config, arguments, why="not static: it declares what it does not define")
        printed = ""
        if through_text:
            result, printed = self._through_text(planned, config, extra, compiler)
        else:
            result = self.compile(planned, config, extra, compiler=compiler, cache=cache)
        if result.output is None:
            crashed = result.crashed or result.timed_out
            return Built(config, arguments, why=result.why, crashed=crashed)
        built = self.run_object(planned, config, result.output, arguments, legs)
        return replace(built, printed=printed) if printed else built

    def program(self, planned: Plan, subject: Subject, *, cache: bool = True) -> Built:
        """Compile, load and verify the program of a file that has its own."""
        arguments = tuple(driver.program_args(subject.config))
        compiler = self.settings.compiler(subject.config.compiler)
        patience = self.settings.patience
        result = run_compiler(
            compiler, arguments, source=planned.path, cache=cache, timeout=patience
        )
        built = Built(subject.config, arguments, result.output, result.why, result.crashed)
        if result.output is None:
            return built
        try:
            loaded = load_object(result.output, fill_names=self.settings.fill_names)
        except LoadError as error:
            return replace(built, why=str(error))
        linked = kfuncs.attach(loaded.programs, self.settings.front_end)
        programs = [p for p in linked if p.name == subject.function]
        if not programs:
            return replace(built, why=f"the object has no program {subject.function}")
        verdict = verifier.verify(programs[0], log_level=0).verdict
        return replace(built, program=programs[0], verdict=verdict, legs={}, notes=loaded.notes)

    def _through_text(
        self, planned: Plan, config: BuildConfig, extra: Sequence[str], compiler: Compiler | None
    ) -> tuple[CompileResult, str]:
        """Return the object by way of assembly; and why that does not assemble as it is printed."""
        text = self.compile(planned, config, ["-S", *extra], compiler=compiler, cache=False)
        if text.output is None:
            return text, ""
        chosen = compiler or self.settings.compiler(config.compiler)
        # clang 23 prints 32-bit moves as `r1 = w2`, which its own assembler does not take
        mended = _MOVE.sub(rb"\1w\2", text.output)
        why = ""
        if mended != text.output:
            tried = self._assemble(chosen, config, text.output)
            if tried.output is None:
                why = _refused_line(tried.why, text.output)
        return self._assemble(chosen, config, mended), why

    def _assemble(self, compiler: Compiler, config: BuildConfig, text: bytes) -> CompileResult:
        path = self.path.with_suffix(".s")
        path.write_bytes(text)
        target = ["--target=bpf", f"-mcpu={config.mcpu}", "-c", "-x", "assembler", path.name]
        patience = self.settings.patience
        return run_compiler(compiler, target, cwd=path.parent, cache=False, timeout=patience)

    def run_object(
        self,
        planned: Plan,
        config: BuildConfig,
        data: bytes,
        arguments: tuple[str, ...] = (),
        legs: Sequence[str] = ("interp", "jit"),
    ) -> Built:
        """Load, verify and run the object *data* of *planned*."""
        built = Built(config, arguments, data)
        try:
            loaded = load_object(
                data, path=f"{planned.source} {config}", fill_names=self.settings.fill_names
            )
        except LoadError as error:
            return replace(built, why=str(error))
        wanted = driver.entry(planned.layouts[0].signature.name)
        programs = [p for p in loaded.programs if p.name == wanted]
        if not programs:
            refused = [r.why for r in loaded.refused if r.name == wanted]
            return replace(built, why=refused[0] if refused else "the object lacks its driver")
        (program,) = kfuncs.attach(programs[:1], self.settings.front_end)
        verification = verifier.verify(program, log_level=0)
        verdict, dead = verification.verdict, verification.dead
        vectors = planned.vectors[planned.layouts[0].signature.name]
        seen: dict[str, Sequence[Outcome]] = {}
        whole = pipeline.execute(program, "jit", vectors) if dead and "jit" in legs else ()
        for leg in legs:
            outcomes = pipeline.execute(program, leg, vectors, dead)
            if isinstance(verdict, Rejected):
                # what a refused program may not do, it need not do alike
                batch = Batch.of(outcomes)
                others = dict.fromkeys(batch.others, Unknown("the program was refused"))
                outcomes = Batch(batch.r0s, batch.contexts, others)
            seen[leg] = outcomes
        built = replace(built, program=program, verdict=verdict, legs=seen, notes=loaded.notes)
        return replace(built, dead=dead, whole=whole)

    # --- native -----------------------------------------------------------------

    def native(
        self, planned: Plan, levels: Sequence[int], extra: Sequence[str]
    ) -> list[Sequence[Outcome] | Unknown]:
        """Return what llvmlite's code does at each of *levels*, its IR made with *extra*."""
        text = driver.translation_unit(planned.c, planned.layouts)
        arguments = [*driver.native_args(), *extra]
        result = run_compiler(self.settings.front_end, arguments, source=text)
        if result.output is None:
            return [Unknown(result.why) for _ in levels]
        modules = native.build(result.output.decode(errors="replace"), levels)
        return [self._run_native(planned, modules[level]) for level in levels]

    def optimised(
        self, planned: Plan, config: BuildConfig, extra: Sequence[str] = ()
    ) -> Sequence[Outcome] | Unknown:
        """Return what the IR that a BPF build ends in does, with x86-64 code made of it."""
        arguments = ["-S", "-emit-llvm", "-g0", *extra]
        made = self.compile(planned, config, arguments)
        if made.output is None:
            return Unknown(made.why)
        text = made.output.decode(errors="replace")
        text = re.sub(r"(?m)^target datalayout = .*$", f'target datalayout = "{_LAYOUT}"', text)
        text = re.sub(r"(?m)^target triple = .*$", f'target triple = "{_TRIPLE}"', text)
        text = re.sub(r'"(target-cpu|target-features|tune-cpu)"="[^"]*"', "", text)
        path = self.path.with_suffix(".ll")
        path.write_text(text)
        plain = [f"--target={_TRIPLE}", "-fPIE", "-fcf-protection=none", "-O0", "-w", "-c"]
        result = run_compiler(
            self.settings.front_end, [*plain, "-x", "ir", path.name], cwd=path.parent, cache=False
        )
        if result.output is None:
            return Unknown(result.why)
        entry = driver.entry(place_of(planned).signature.name)
        try:
            module = load_native(result.output, frozenset({entry}))
        except (UnlinkableError, StopIteration, ValueError) as error:
            return Unknown(f"x86-64: {error}")
        return self._run_native(planned, module)

    def gcc(self, planned: Plan, compiler: Compiler, level: str) -> Sequence[Outcome] | Unknown:
        """Return what GCC's code does, in the same cage."""
        text = driver.translation_unit(planned.c, planned.layouts)
        result = run_compiler(
            compiler, gcc_args(level), source=text, timeout=GCC_TIMEOUT, cache=False
        )
        if result.output is None:
            return Unknown(result.why)
        entry = driver.entry(planned.layouts[0].signature.name)
        try:
            module = load_native(result.output, frozenset({entry}))
        except (UnlinkableError, StopIteration, ValueError) as error:
            return Unknown(f"gcc: {error}")
        return self._run_native(planned, module)

    def _run_native(
        self, planned: Plan, module: NativeModule | Unknown
    ) -> Sequence[Outcome] | Unknown:
        if isinstance(module, Unknown):
            return module
        name = planned.layouts[0].signature.name
        return native.run_many([(module, driver.entry(name), planned.vectors[name])])[0]


@functools.lru_cache(maxsize=64)
def _planned(text: str, settings: Settings) -> Plan:
    """Return the plan of *text*, which many of a reduction's texts have in common."""
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as folder:
        path = Path(folder, "input.c")
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        return pipeline.plan(path, "input.c", settings)


def gcc_args(level: str) -> list[str]:
    """Return GCC's arguments for the same source and driver, for x86-64."""
    plain = ["-fPIE", "-fvisibility=hidden", "-fno-stack-protector", "-fcf-protection=none"]
    quiet = ["-fno-asynchronous-unwind-tables", "-g0", "-w", "-fno-common"]
    return [*plain, *quiet, f"-O{level}", *driver.NATIVE_MACROS, *driver.LANGUAGE, "-c"]


_MOVE = re.compile(rb"(?m)^(\s+)r(\d+ = w\d+)$")


def _refused_line(why: str, text: bytes) -> str:
    """Return the line of assembly *text* that *why* is about, and what it says."""
    found = re.search(r":(\d+):\d+: error: (.*)", why)
    lines = text.decode(errors="replace").splitlines()
    if found is None or not 0 < int(found[1]) <= len(lines):
        return why
    return f"`{lines[int(found[1]) - 1].strip()}`, {found[2]}"


# --- comparing --------------------------------------------------------------


def differing(a: Sequence[Outcome], b: Sequence[Outcome], mask: Mask) -> list[int]:
    """Return the numbers of the vectors on which *a* and *b* disagree."""
    if a == b:
        return []
    return [n for n, (x, y) in enumerate(zip(a, b, strict=False)) if not agree(x, y, mask)]


def same_on(
    a: Sequence[Outcome], b: Sequence[Outcome], mask: Mask, numbers: Sequence[int]
) -> bool | None:
    """Return whether *a* and *b* agree on all of *numbers*; None where neither says."""
    known = [n for n in numbers if not isinstance(a[n], Unknown) and not isinstance(b[n], Unknown)]
    if not known:
        return None
    return all(agree(a[n], b[n], mask) for n in known)


def inlined(text: str, folder: Path, depth: int = 8) -> str:
    """Return C *text* with the files it includes in quotes put in place, as far as they exist."""
    if depth == 0:
        return text

    def put(match: re.Match[str]) -> str:
        path = folder / match[1]
        try:
            inner = path.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return match[0]
        return inlined(inner, path.parent, depth - 1)

    return re.sub(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"[^\n]*$', put, text, flags=re.MULTILINE)


def place_of(planned: Plan) -> Layout:
    """Return the layout of the one function of *planned*."""
    if not planned.layouts:
        raise HarnessError(f"{planned.source}: {planned.failure or 'no function to test'}")
    return planned.layouts[0]
