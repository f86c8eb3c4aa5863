"""Experiments: what is compiled, run and compared before anybody is blamed.

``examine`` carries out all of them, ``look`` the few that a reduction repeats with every
text. Neither guesses and neither blames: that is ``judge``'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.model import (
    BuildConfig,
    Mask,
    Outcome,
    Rejected,
    Unknown,
)
from harness.pipeline import Plan
from harness.toolchain import Compiler
from harness.triage import assembly
from harness.triage.experiments import STRICT, Bench, Built, Subject, differing, place_of
from harness.triage.facts import (
    INTERPRETER,
    JIT,
    UNDEFINED,
    Diagnosis,
    Facts,
    Kernel,
    built_text,
    general,
    ours_left_out,
    rightness,
    same_behaviour,
    verdict_text,
)
from harness.triage.judge import judge
from harness.triage.linux import image_difference

NATIVE_LEVELS = (0, 1, 2, 3)
GCC_LEVELS = ("0", "2")
AXIS_OPTS = ("0", "1", "2", "3", "s")
AXIS_MCPUS = ("v1", "v2", "v3", "v4")
AXIS_LINKAGES = ("hidden", "static")
# What stands in the way of many an optimisation that relies on what the standard forbids.
LENIENT = ("-fno-strict-aliasing", "-fwrapv", "-fno-delete-null-pointer-checks")


def classify(
    bench: Bench, subject: Subject, *, gcc: Compiler | None = None, kernel: Kernel | None = None
) -> Diagnosis:
    """Return who is wrong about *subject*."""
    return concluded(examine(bench, subject, gcc=gcc, kernel=kernel))


def concluded(facts: Facts) -> Diagnosis:
    """Return the judgement of *facts* with all experiments."""
    diagnosis = judge(facts)
    detail = ours_left_out(diagnosis.detail)
    return replace(diagnosis, detail=detail, experiments=tuple(facts.log))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a shorter text must show to be as good as the longer one."""

    signature: tuple[str, str]
    shape: tuple[str, str]  # of the build
    legs: bool  # interpreter and JIT must differ
    undefined: bool  # undefined behaviour is what it is about
    allowed: frozenset[str]  # kinds of it that some inputs of the original have
    agrees: bool  # whatever runs agrees, though it is refused: so it must stay

    @staticmethod
    def of(facts: Facts) -> Wanted:
        """Return what *facts* show."""
        diagnosis = judge(facts)
        blamed = diagnosis.cause in (JIT, INTERPRETER)
        undefined = diagnosis.cause == UNDEFINED
        form = shape(facts.built)
        agrees = form[0] == "refused" and not facts.bad
        return Wanted(diagnosis.signature, form, blamed, undefined, kinds(facts), agrees)


def kinds(facts: Facts) -> frozenset[str]:
    """Return what kinds of undefined behaviour some of the inputs have."""
    return frozenset(why.partition(" at ")[0] for why in facts.undefined.values())


def shape(built: Built) -> tuple[str, str]:
    """Return what a build came to, without numbers: whatever the blame, it must stay."""
    if built.program is None:
        return ("no object" if built.data is None else "no program"), general(built.why)
    if isinstance(built.verdict, Rejected):
        return "refused", general(built.verdict.message)
    return "runs", ""


def shows(bench: Bench, subject: Subject, wanted: Wanted) -> bool:
    """Return whether *subject* shows *wanted*, and slips into nothing undefined."""
    facts = look(bench, subject, wanted)
    if facts is None:
        return False
    found = judge(facts)
    if not wanted.undefined and (found.undefined or not kinds(facts) <= wanted.allowed):
        return False
    return found.signature == wanted.signature


# --- experiments ------------------------------------------------------------


def look(bench: Bench, subject: Subject, wanted: Wanted | None = None) -> Facts | None:
    """Carry out the quick experiments, the cheapest first.

    None as soon as *subject* cannot show *wanted* any more.
    """
    planned = bench.plan(subject, quick=wanted is not None)
    if planned.programs:
        facts = Facts(subject, planned, bench.program(planned, subject))
        facts.note("compile, load, verify", built_text(facts.built))
        return facts
    if not planned.layouts:
        return _nothing(subject, planned) if wanted is None else None
    facts = _begun(bench, subject, planned)
    if wanted is not None and shape(facts.built) != wanted.shape:
        return None
    if wanted is not None and wanted.legs:
        legs = list(facts.legs.values())
        if len(legs) < 2 or not differing(legs[0], legs[1], facts.mask):
            return None
    facts.natives, why = bench.natives(planned, (0, 2))
    if why:
        facts.note("native build", why)
    if wanted is not None and not facts.natives:
        return None
    _disagreements(facts)
    if wanted is not None and wanted.agrees and facts.bad:
        return None
    runs = wanted is not None and wanted.shape[0] == "runs" and not subject.expected
    if runs and not facts.bad and not subject.handed:
        return None
    _undefined(bench, facts)
    if subject.assembly and shape(facts.built)[0] != "runs":
        _assembly(bench, facts)  # whose damage it is matters to a refusal alone
    if subject.handed:
        _text(bench, facts)
    return facts


def _begun(bench: Bench, subject: Subject, planned: Plan) -> Facts:
    facts = Facts(
        subject,
        planned,
        bench.build(planned, subject.config, STRICT if subject.strict else ()),
        place_of(planned).mask,
        vectors=planned.vectors[subject.function],
    )
    facts.note("compile, load, verify", built_text(facts.built))
    return facts


def _nothing(subject: Subject, planned: Plan) -> Facts:
    why = planned.failure or "it has no function to test"
    facts = Facts(subject, planned, Built(subject.config, (), why=why))
    facts.note("compile for discovery", why)
    return facts


def examine(
    bench: Bench, subject: Subject, *, gcc: Compiler | None = None, kernel: Kernel | None = None
) -> Facts:
    """Carry out all experiments on *subject*."""
    planned = bench.plan(subject)
    if planned.programs:
        facts = Facts(subject, planned, bench.program(planned, subject))
        facts.note("compile, load, verify", built_text(facts.built))
        facts.again = bench.program(planned, subject, cache=False)
        facts.note("replay: compile and verify again", built_text(facts.again))
        _kernel(facts, kernel)
        return facts
    if not planned.layouts:
        return _nothing(subject, planned)
    facts = _begun(bench, subject, planned)
    facts.natives, why = bench.natives(planned, NATIVE_LEVELS)
    if why:
        facts.note("native build", why)
    _replay(bench, facts)
    _native(bench, facts, gcc)
    _disagreements(facts)
    _undefined(bench, facts)
    _assembly(bench, facts)
    _others(bench, facts)
    _text(bench, facts)
    _kernel(facts, kernel)
    return facts


def _replay(bench: Bench, facts: Facts) -> None:
    facts.again = again = bench.build(facts.planned, facts.subject.config, cache=False)
    same = same_behaviour(facts.built, again)
    bytes_too = "the same object" if again.data == facts.built.data else "another object"
    words = "the same outcome" if same else f"another outcome: {built_text(again)}"
    facts.note("replay: compile and run again", f"{bytes_too}, {words}")


def _native(bench: Bench, facts: Facts, gcc: Compiler | None) -> None:
    groups = _groups(facts.natives, facts.mask)
    facts.note("native O0, O1, O2, O3 among each other (llvmlite)", groups or "none ran")
    if gcc is None:
        facts.note("a second x86 compiler", "no gcc on this machine")
    else:
        seen = {}
        for level in GCC_LEVELS:
            outcomes = bench.gcc(facts.planned, gcc, level)
            if isinstance(outcomes, Unknown):
                facts.note(f"gcc {gcc.version} -O{level}", f"unknown: {outcomes.why}")
            else:
                seen[f"gcc-O{level}"] = outcomes
        facts.gccs = seen
        if seen:
            words = _groups({**facts.natives, **seen}, facts.mask)
            facts.note(f"native with gcc {gcc.version}", words)
    base = facts.natives.get("native-O2")
    (lenient,) = bench.native(facts.planned, (2,), LENIENT)
    if base is not None and not isinstance(lenient, Unknown):
        facts.lenient_native = bool(differing(base, lenient, facts.mask))
        words = "another result" if facts.lenient_native else "the same result"
        facts.note(f"native O2 with {' '.join(LENIENT)}", words)


def _disagreements(facts: Facts) -> None:
    """Find the vectors on which two legs disagree, whichever."""
    legs = {**facts.natives, **facts.gccs, **facts.legs}
    bad: set[int] = set()
    names = list(legs)
    for index, name in enumerate(names):
        for other in names[index + 1 :]:
            bad.update(differing(legs[name], legs[other], facts.mask))
    facts.bad = sorted(bad)
    if legs:
        words = _groups(legs, facts.mask)
        facts.note("all legs", f"{words}; {len(bad)} of {len(facts.vectors)} vectors differ")


def _undefined(bench: Bench, facts: Facts) -> None:
    """Ask for undefined behaviour on all inputs: a text is not valid on some of them."""
    unrun = isinstance(facts.built.verdict, Rejected) or facts.built.program is None
    if not facts.bad and not unrun and not facts.subject.handed:
        return
    numbers = list(range(len(facts.vectors)))
    if not numbers:
        return
    facts.undefined, facts.undefined_why = bench.undefined(facts.planned, numbers)
    if facts.undefined_why:
        result = f"not possible: {facts.undefined_why}"
    elif facts.undefined:
        why = next(iter(facts.undefined.values()))
        result = f"undefined on {len(facts.undefined)} of {len(numbers)} vectors: {why}"
    else:
        result = f"defined on all {len(numbers)} vectors"
    facts.note("sanitised builds (traps; variables of two contents)", result)
    facts.bad = [n for n in facts.bad if n not in facts.undefined]


def _others(bench: Bench, facts: Facts) -> None:
    config = facts.subject.config
    others = {}
    for other in axes(config):
        others[other] = bench.build(facts.planned, other)
    for compiler in bench.settings.compilers:
        if compiler.name != config.compiler:
            others[replace(config, compiler=compiler.name)] = bench.build(
                facts.planned, replace(config, compiler=compiler.name)
            )
    facts.others = others
    rows = [(c, rightness(facts, b)) for c, b in [(config, facts.built), *others.items()]]
    counted = Counter(words for _, words in rows)
    lines = [f"{number} {words}" for words, number in counted.most_common()]
    facts.note(f"{len(rows)} BPF builds among each other", ", ".join(lines))
    for build, words in rows:
        name = "" if build.compiler == config.compiler else f" ({build.compiler})"
        facts.note(f"build {build}{name}", words)


def axes(config: BuildConfig) -> list[BuildConfig]:
    """Return the builds that differ from *config* in one thing."""
    found = [replace(config, opt=opt) for opt in AXIS_OPTS]
    found += [replace(config, mcpu=mcpu) for mcpu in AXIS_MCPUS]
    found += [replace(config, linkage=linkage) for linkage in AXIS_LINKAGES]
    return [other for other in dict.fromkeys(found) if other != config]


def _assembly(bench: Bench, facts: Facts) -> None:
    """Compare what the compiler writes as text with what it writes as an object."""
    built = facts.built
    if built.data is None:
        return
    made = bench.compile(facts.planned, facts.subject.config, ["-S"], cache=False)
    if made.output is None:
        facts.note("assembly against object", f"no assembly: {made.why}")
        return
    text = made.output.decode(errors="replace")
    words = []
    if built.program is not None:
        facts.mismatch, compared = assembly.compare(text, built.program)
        if facts.mismatch is not None:
            there = facts.mismatch
            words.append(
                f"{there.function}, slot {there.slot}: the assembly has `{there.assembly}`, "
                f"the object `{there.object}`"
            )
        else:
            words.append(f"the same {compared} instructions")
    written, held = assembly.section(text, ".BTF"), assembly.held(built.data, ".BTF")
    if written is not None:
        facts.btf_damaged = written != held
        words.append(f"{'another' if facts.btf_damaged else 'the same'} BTF")
    facts.note("assembly against object", "; ".join(words))


def _text(bench: Bench, facts: Facts) -> None:
    facts.through_text = text = bench.build(facts.planned, facts.subject.config, through_text=True)
    same = "the same code" if text.code == facts.built.code else "other code"
    if text.printed:
        facts.note("the assembly as it is printed, assembled", f"refused: {text.printed}")
        same = f"written as the assembler takes it, {same}"
    facts.note("hand-over through textual assembly", f"{same}; {rightness(facts, text)}")
    if facts.bad or isinstance(facts.built.verdict, Rejected):
        facts.lenient = bench.build(facts.planned, facts.subject.config, LENIENT)
        facts.note(f"build with {' '.join(LENIENT)}", rightness(facts, facts.lenient))


def _kernel(facts: Facts, kernel: Kernel | None) -> None:
    if kernel is None or facts.built.program is None:
        facts.note("a real Linux", "not asked" if kernel is None else "there is no program to ask")
        return
    facts.kernel = linux = kernel(facts.built.program, facts.vectors)
    ours = verdict_text(facts.built.verdict)
    theirs = verdict_text(linux.verdict)
    words = f"{theirs}; ours: the same" if ours == theirs else f"{theirs}; ours: {ours}"
    facts.note("a real Linux: verdict", words)
    if linux.images:
        apart = image_difference(facts.built.program, linux.images, facts.built.dead)
        facts.note("a real Linux: image against ours", apart or "the same, but for addresses")
    if linux.outcomes and any(not isinstance(o, Unknown) for o in linux.outcomes):
        words = _groups({**facts.natives, **facts.legs, "kernel": linux.outcomes}, facts.mask)
        facts.note("a real Linux: results", words)


def _groups(legs: Mapping[str, Sequence[Outcome]], mask: Mask) -> str:
    """Return which of *legs* agree on everything, for people: "a = b, c"."""
    groups: list[list[str]] = []
    for name, outcomes in legs.items():
        if all(isinstance(outcome, Unknown) for outcome in outcomes):
            continue
        for group in groups:
            if not differing(legs[group[0]], outcomes, mask):
                group.append(name)
                break
        else:
            groups.append([name])
    return " | ".join(" = ".join(group) for group in groups)
