"""Programs in one translation unit: planned, compiled, judged.

A compiler costs more to start than to run, so programs share a file. Where that does not
compile, or what comes of it cannot be loaded, it is cut into parts until the guilty program
is alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from harness import pipeline
from harness.findings import Finding
from harness.grow import features as shown_by
from harness.grow.buckets import BEHIND, bucket, constructs, refused_for
from harness.grow.features import general
from harness.grow.optimised import Optimised, functions, leave_out
from harness.grow.parameters import shrunk
from harness.grow.refusals import FEW
from harness.grow.refused import Again, Origin, Runs
from harness.isa.stack_args import REG_ARGS
from harness.model import (
    BuildConfig,
    HarnessError,
    Image,
    Outcome,
    Program,
    Rejected,
    Vector,
    Verification,
)
from harness.pipeline import Built, Check, Linux, Plan, Settings
from harness.source import driver, tree
from harness.source.excerpt import Excerpt
from harness.source.layout import Layout, layout
from harness.source.printing import KEPT, Printer, print_file
from harness.source.produce import C
from harness.source.signature import Scalar, Signature
from harness.source.tree import Function, Tree, closure
from harness.source.tree_signature import signature
from harness.toolchain import ToolError

PATIENCE = 10.0, 0.5  # seconds a compiler may take, and more for each program


@dataclass(frozen=True, slots=True)
class Target:
    """A function under test: it has a driver."""

    program: C  # whose function under test it is
    place: Layout
    vectors: Sequence[Vector]

    @property
    def function(self) -> str:
        """Its name in C."""
        return self.place.signature.name


@dataclass(frozen=True, slots=True)
class Member:
    """One C program of a batch."""

    number: int
    program: C
    text: str  # C, without what all programs share
    targets: tuple[Target, ...]  # the first is the program's own
    nodes: frozenset[str] = frozenset()  # names of the kinds of nodes in a tree


def name_of(number: int) -> str:
    """Return the prefix of program *number*'s names."""
    return f"p{number}_"


def inner(one: C, known: Collection[tuple[Function, ...]]) -> list[Tree]:
    """Return the functions below the root of *one* that may be under test, too, as trees.

    They take stack arguments, and a driver of their own changes nothing for the root: a static
    function is compiled for its callers. What is *known* has been checked as it is.
    """
    if isinstance(one, Excerpt) or one.linkages != ("hidden",):
        return []
    return [
        replace(one, functions=one.functions[: at + 1])
        for at, function in enumerate(one.functions[:-1])
        if function.slots > REG_ARGS and not function.static
        if closure(one, function) not in known
    ]


def member(number: int, one: C, settings: Settings, inner: Sequence[Tree] = ()) -> Member:
    """Return the C program *one*, and *inner* parts of it, with drivers and input vectors."""
    prefix = name_of(number)
    if isinstance(one, Excerpt):
        target = _target(number, one, one.signature(prefix), settings)
        return Member(number, one, one.prefixed(prefix), (target,))
    targets = []
    for each in (one, *inner):
        try:
            targets.append(_target(number, each, signature(each, prefix), settings))
        except HarnessError:
            if each is one:
                raise
    text = Printer(prefix).tree(one)
    return Member(number, one, text, tuple(targets), shown_by.node_names(one))


def _target(number: int, one: C, tested: Signature, settings: Settings) -> Target:
    place = layout(tested)
    if not isinstance(place, Layout):
        raise HarnessError(f"program {number} has no driver: {place.why}")
    return Target(one, place, pipeline.vectors_of(place, settings))


def passing(one: C) -> set[str]:
    """Return how *one* passes its arguments, as far as that is known: by its tree."""
    return shown_by.passing(one) if isinstance(one, Tree) else set()


@dataclass(frozen=True, slots=True)
class Natives:
    """What the native builds did, by function, and why some have none."""

    outcomes: Mapping[str, Mapping[str, Sequence[Outcome]]] = field(default_factory=dict)
    whys: Mapping[str, str] = field(default_factory=dict)


@lru_cache(maxsize=1)
def _prologue() -> str:
    return print_file([])


def plan(members: Sequence[Member], natives: Natives | None = None) -> Plan:
    """Return what to check of *members*, which are one file."""
    start = _prologue()
    parts = {t.function: f"{start}\n{m.text}" for m in members for t in m.targets}
    targets = [target for m in members for target in m.targets]
    # a compiler that complains says of which program
    text = "".join([start, *(f'\n#line 1 "{name_of(m.number)}"\n{m.text}' for m in members)])
    return Plan(
        "grow.c",
        _NOWHERE,
        layouts=tuple(t.place for t in targets),
        vectors={t.function: t.vectors for t in targets},
        natives=natives.outcomes if natives else {},
        text=text,
        parts=parts,
    )


_NOWHERE = Path("grow.c")


def patient(settings: Settings, members: Sequence[Member]) -> Settings:
    """Return *settings* with as much time for a compiler as *members* deserve."""
    return replace(settings, patience=PATIENCE[0] + PATIENCE[1] * len(members))


def split(members: Sequence[Member], said: str) -> list[Sequence[Member]]:
    """Return parts of *members*: those that *said* names alone, the others together."""
    named = {int(number) for number in re.findall(r"\bp(\d+)_", said)}
    guilty = [m for m in members if m.number in named]
    rest = [m for m in members if m.number not in named]
    if guilty and rest and len(guilty) <= 3:
        return [rest, *([m] for m in guilty)]
    half = len(members) // 2
    return [members[:half], members[half:]]


def native_outcomes(members: Sequence[Member], settings: Settings) -> Natives:
    """Run the native builds of *members*, which are one file; one that fails is left out."""
    if "native" not in settings.legs or not members:
        return Natives()
    outcomes, why = pipeline.native_outcomes(plan(members), patient(settings, members))
    if not why:
        return Natives(outcomes)
    if len(members) == 1:
        return Natives({}, {target.function: why for target in members[0].targets})
    parts = [native_outcomes(part, settings) for part in split(members, why)]
    return Natives(
        {name: seen for part in parts for name, seen in part.outcomes.items()},
        {name: why for part in parts for name, why in part.whys.items()},
    )


@dataclass(frozen=True, slots=True)
class Unit:
    """Programs that were compiled together, and what is left to verify and to run."""

    numbers: tuple[int, ...]
    config: BuildConfig
    built: Built
    programs: Sequence[tuple[Program, Sequence[Vector]]]


def compile_units(
    members: Sequence[Member], config: BuildConfig, settings: Settings, natives: Natives
) -> Iterator[Unit]:
    """Compile *members* as *config* says, in as few files as can be."""
    built = pipeline.compile_build(plan(members, natives), config, patient(settings, members))
    programs = pipeline.built_programs(built, settings)
    if not programs and len(members) > 1:
        said = " ".join(check.detail for check in built.checks[:1])
        for part in split(members, said):
            yield from compile_units(part, config, settings, natives)
        return
    # Linux refuses BTF whole: one program's variable would have all the others refused
    guilty = [name for name, _ in shrunk(programs[0][0].btf)] if len(members) > 1 else []
    if guilty:
        for part in split(members, " ".join(guilty)):
            yield from compile_units(part, config, settings, natives)
        return
    yield Unit(tuple(m.number for m in members), config, built, programs)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of one program in one build."""

    number: int
    target: Target
    check: Check
    program: Program | None = None
    verification: Verification | None = None
    image: Image | None = None
    member: Member | None = None  # what was compiled with it
    natives: Mapping[str, Sequence[Outcome]] = field(default_factory=dict)
    causes: Sequence[str] | None = None  # as ``causes`` found them, where it was asked


def judge(
    unit: Unit,
    members: Mapping[int, Member],
    settings: Settings,
    natives: Natives,
    linux: Mapping[str, Linux],
) -> Iterator[Judgement]:
    """Yield what comes of each program of *unit*."""
    programs = {program.name: program for program, _ in unit.programs}
    failed = {check.function: check for check in unit.built.checks}
    if not programs:
        failed |= {c.function: c for c in pipeline.check_built(unit.built, settings)}
    targets = [(number, target) for number in unit.numbers for target in members[number].targets]
    for number, one in targets:
        name = driver.entry(one.function)
        program = programs.get(name)
        if program is None:
            why = "the object lacks its driver"
            lacking = Check("grow.c", one.function, unit.config, "compile_error", detail=why)
            check = failed.get(one.function, lacking)
            if isinstance(one.program, Excerpt) and one.function in natives.whys:
                # a mutant that no compiler takes is none
                check = replace(check, outcome="unknown", detail=natives.whys[one.function])
            yield Judgement(number, one, check)
            continue
        try:
            seen = pipeline.judge_function(
                unit.built.planned, one.place, unit.config, settings, program, linux.get(name)
            )
        except ToolError:
            raise  # a divergence may be lost otherwise
        except HarnessError as error:
            check = Check("grow.c", one.function, unit.config, "unknown", detail=str(error))
            yield Judgement(number, one, check, program)
            continue
        check = seen.check
        why = natives.whys.get(one.function, "")
        if why and check.outcome == "agree":
            check = replace(check, outcome="unknown", detail=why)
        native = unit.built.planned.natives.get(one.function, {})
        judged = Judgement(
            number, one, check, program, seen.verification, seen.image, members[number], native
        )
        if isinstance(one.program, Excerpt) and check.outcome == "rejected":
            judged = _excused(judged, unit.built.planned, settings)
        yield judged


def _excused(seen: Judgement, planned: Plan, settings: Settings) -> Judgement:
    """Return *seen*, a refusal, as unknown where nothing explains it and the C is undefined."""
    named = causes(seen, settings)
    seen = replace(seen, causes=named)
    if named and not named[0].startswith(BEHIND):
        return seen
    place = seen.target.place
    numbers = range(len(seen.target.vectors))
    undefined, why = pipeline.undefined_vectors(planned, place, settings, numbers)
    if undefined:
        why = f"undefined behaviour in the source: {next(iter(undefined.values()))}"
    if not why:
        return seen
    return replace(seen, check=replace(seen.check, outcome="unknown", detail=why), causes=())


def causes(seen: Judgement, settings: Settings) -> list[str]:
    """Return the constructs that explain why *seen* did not agree, confirmed by experiment."""
    check, one, program = seen.check, seen.member, seen.program
    if program is None or one is None or check.config is None:
        return []
    if check.outcome == "diverge":
        return constructs(program, check, seen.target.place.mask)
    verdict = seen.verification.verdict if seen.verification is not None else None
    if check.outcome != "rejected" or not isinstance(verdict, Rejected):
        return []
    place, native = seen.target.place, next(iter(seen.natives.values()), ())
    bools = {
        at.offset for at in place.arguments if at and isinstance(at.type, Scalar) and at.type.bool
    }
    runs = Runs(seen.target.vectors[:FEW], native[:FEW], place.mask, frozenset(bools))
    origin = _Source(one, check.config, settings, program.name).origin()
    return refused_for(program, verdict, origin, runs)


@dataclass(frozen=True, slots=True)
class _Source:
    """A program of a build, which may be built otherwise."""

    member: Member
    config: BuildConfig
    settings: Settings
    name: str  # of the program
    leaving: str = ""  # a pass of LLVM that is left out
    kept: bool = False  # no mask of an index can be left out

    def origin(self) -> Origin:
        """Return how it is built, and how it can be built once more."""
        return Origin(self.optimised, self.without, self.masked)

    def optimised(self) -> Mapping[str, Optimised]:
        """Return the functions in its IR, whose functions come one after the other."""
        global _last
        last = _last
        asked = self.member.text, self.config, self.leaving
        if last is None or last[0] != asked:
            planned, compiler = plan([self.member]), self.settings.compiler(self.config.compiler)
            patience = patient(self.settings, [self.member]).patience
            seen = functions(
                planned.text, planned.layouts, self.config, compiler, patience, self.leaving
            )
            last = _last = asked, seen
        return last[1]

    def without(self, llvm_pass: str) -> Again | None:
        """Return it as it is built without a pass of LLVM."""
        return None if self.leaving else replace(self, leaving=llvm_pass).again()

    def masked(self) -> Again | None:
        """Return it as it is built where no mask of an index can be left out."""
        one = self.member
        if self.kept or not isinstance(one.program, Tree):
            return None
        text = KEPT + Printer(name_of(one.number), kept=True).tree(one.program)
        return replace(self, member=replace(one, text=text), kept=True).again()

    def again(self) -> Again | None:
        """Return the program, built, if it is."""
        more = tuple(leave_out(self.leaving))
        patience = patient(self.settings, [self.member])
        built = pipeline.compile_build(plan([self.member]), self.config, patience, more)
        for program, _ in pipeline.built_programs(built, self.settings):
            if program.name == self.name:
                return program, self.origin()
        return None


_last: tuple[tuple[str, BuildConfig, str], Mapping[str, Optimised]] | None = None


def judgement_features(seen: Judgement, one: Member) -> set[str]:
    """Return what one build of *one* shows, beside what the tree itself does."""
    if seen.program is None or seen.check.config is None:
        return {f"clang error: {general(seen.check.detail)}"}
    dead = frozenset[int]() if seen.verification is None else seen.verification.dead
    found = shown_by.code_features(seen.program, seen.image, dead)
    if seen.verification is not None:
        found |= shown_by.verifier_features(seen.verification)
    prefix = name_of(seen.number)
    config = seen.check.config
    if seen.target is not one.targets[0] or not isinstance(one.program, Tree):
        return found
    return found | shown_by.clang_features(one.program, one.nodes, seen.program, config, prefix)


def finding(seen: Judgement, settings: Settings, seed: int) -> Finding:
    """Return what did not agree as a finding that stands alone."""
    check, one, number = seen.check, seen.target.program, seen.number
    assert check.config is not None
    compiler = settings.compiler(check.config.compiler)
    named = check.function
    if isinstance(one, Excerpt):  # it has its file for itself
        named = named.removeprefix(name_of(number))
    return Finding(
        c=one.text if isinstance(one, Excerpt) else print_file([(name_of(number), one)]),
        function=named,
        config=check.config,
        outcome=check.outcome,
        command=compiler.command,
        version=compiler.version,
        seed=settings.seed,
        vectors=settings.vectors,
        legs=settings.legs,
        native_opts=settings.native_opts,
        verdict=check.verdict,
        detail=check.detail,
        where=check.where,
        divergences=check.divergences[:3],
        source=f"program {number} of seed {seed}",
        tree=tree.to_json(one) if isinstance(one, Tree) else None,
        bucket=bucket(check, causes(seen, settings) if seen.causes is None else seen.causes),
    )
