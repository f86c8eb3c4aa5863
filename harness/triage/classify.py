"""Who is wrong: experiments, then a judgement that quotes them.

``examine`` runs the experiments and ``judge`` reads their results; neither guesses. What
the experiments do not decide is said to be undecided, and a verdict that they support only
in part carries less confidence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.btf_check import validate
from harness.compare import agree
from harness.model import (
    Accepted,
    BuildConfig,
    Mask,
    Outcome,
    Program,
    Rejected,
    Returned,
    Trapped,
    Unknown,
    Vector,
    Verdict,
)
from harness.pipeline import Plan
from harness.toolchain import Compiler
from harness.triage import assembly, rules
from harness.triage.assembly import Mismatch
from harness.triage.experiments import STRICT, Bench, Built, Subject, differing, place_of, same_on

# fmt: off
UNDEFINED   = "source has undefined behaviour"
WRONG_CODE  = "clang BPF back end (wrong code)"
CRASH       = "clang BPF back end (crash or refusal of valid code)"
REFUSED     = "clang produces code the verifier rightly refuses"
X86         = "LLVM x86"
VERIFIER    = "our verifier"
JIT         = "our JIT"
INTERPRETER = "our interpreter"
LINUX_VERIFIER = "Linux verifier"
LINUX_JIT   = "Linux JIT"
UNSTABLE    = "unstable"
INVALID     = "source is not valid C"
AGREES      = "nothing diverges"
UNDECIDED   = "undecided"
# fmt: on
CLANG = (WRONG_CODE, CRASH, REFUSED)
CERTAIN, HIGH, MEDIUM, LOW = "certain", "high", "medium", "low"

NATIVE_LEVELS = (0, 1, 2, 3)
GCC_LEVELS = ("0", "2")
AXIS_OPTS = ("0", "1", "2", "3", "s")
AXIS_MCPUS = ("v1", "v2", "v3", "v4")
AXIS_LINKAGES = ("hidden", "static")
# What stands in the way of many an optimisation that relies on what the standard forbids.
LENIENT = ("-fno-strict-aliasing", "-fwrapv", "-fno-delete-null-pointer-checks")

NO_MASK = Mask(b"")

Kernel = Callable[[Program, Sequence[Vector]], tuple[Verdict, Sequence[Outcome]]]
"""What a real Linux says to a program, and does on vectors."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One question and what came out."""

    name: str
    result: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Who is wrong, and the experiments that say so."""

    cause: str  # one of the above
    detail: str  # one sentence
    confidence: str  # CERTAIN to LOW
    experiments: tuple[Experiment, ...] = ()
    suspects: tuple[str, ...] = ()  # where undecided
    vector: Vector | None = None  # the first that shows it
    undefined: str = ""  # what is undefined about the source

    @property
    def signature(self) -> tuple[str, str]:
        """What a reduction must keep: the cause, and its sentence without numbers."""
        return self.cause, re.sub(r"0x[0-9a-f]+|\d+", "N", self.detail)


@dataclass(slots=True)
class Facts:
    """Results of the experiments; None: not carried out."""

    subject: Subject
    planned: Plan
    built: Built
    mask: Mask = NO_MASK
    natives: Mapping[str, Sequence[Outcome]] = field(default_factory=dict)  # llvmlite's
    gccs: Mapping[str, Sequence[Outcome]] = field(default_factory=dict)
    vectors: Sequence[Vector] = ()
    bad: list[int] = field(default_factory=list)  # vectors on which anything disagrees
    undefined: Mapping[int, str] = field(default_factory=dict)
    undefined_why: str = ""
    lenient_native: bool | None = None  # native code differs where aliasing rules are off
    lenient: Built | None = None
    again: Built | None = None
    through_text: Built | None = None
    mismatch: Mismatch | None = None  # an instruction that the assembly has otherwise
    btf_damaged: bool = False  # the object's BTF is not what the assembly has
    others: Mapping[BuildConfig, Built] = field(default_factory=dict)
    kernel: tuple[Verdict, Sequence[Outcome]] | None = None
    log: list[Experiment] = field(default_factory=list)

    def note(self, name: str, result: str) -> None:
        """Add an experiment to the log, without the names of our scratch folders."""
        self.log.append(Experiment(name, re.sub(r"/\S*/crosscheck-\w+/", "", result)))

    @property
    def legs(self) -> dict[str, Sequence[Outcome]]:
        """The outcomes of our legs in the build in question."""
        return dict(self.built.legs or {})


def classify(
    bench: Bench,
    subject: Subject,
    *,
    thorough: bool = True,
    gcc: Compiler | None = None,
    kernel: Kernel | None = None,
) -> Diagnosis:
    """Return who is wrong about *subject*.

    Without *thorough* only the experiments that a reduction repeats are carried out.
    """
    facts = examine(bench, subject, thorough=thorough, gcc=gcc, kernel=kernel)
    return concluded(facts)


def concluded(facts: Facts) -> Diagnosis:
    """Return the judgement of *facts* with all experiments."""
    diagnosis = judge(facts)
    return replace(diagnosis, experiments=tuple(facts.log))


# --- experiments ------------------------------------------------------------


def examine(
    bench: Bench,
    subject: Subject,
    *,
    thorough: bool = True,
    gcc: Compiler | None = None,
    kernel: Kernel | None = None,
) -> Facts:
    """Carry out the experiments on *subject*."""
    planned = bench.plan(subject, NATIVE_LEVELS if thorough else (0, 2))
    if planned.programs:
        facts = Facts(subject, planned, bench.program(planned, subject))
        facts.note("compile, load, verify", _built_text(facts.built))
        if thorough:
            facts.again = bench.program(planned, subject, cache=False)
            facts.note("replay: compile and verify again", _built_text(facts.again))
            _kernel(facts, kernel)
        return facts
    if not planned.layouts:
        why = planned.failure or "it has no function to test"
        facts = Facts(subject, planned, Built(subject.config, (), why=why))
        facts.note("compile for discovery", why)
        return facts
    place = place_of(planned)
    facts = Facts(
        subject,
        planned,
        bench.build(planned, subject.config, STRICT if subject.strict else ()),
        place.mask,
        planned.natives.get(subject.function, {}),
        vectors=planned.vectors[subject.function],
    )
    facts.note("compile, load, verify", _built_text(facts.built))
    if planned.native_why:
        facts.note("native build", planned.native_why)
    if thorough:
        _replay(bench, facts)
        _native(bench, facts, gcc)
    _disagreements(facts)
    _undefined(bench, facts)
    if thorough or subject.assembly:
        _assembly(bench, facts)
    if thorough:
        _others(bench, facts)
        _text(bench, facts)
        _kernel(facts, kernel)
    return facts


def _replay(bench: Bench, facts: Facts) -> None:
    facts.again = again = bench.build(facts.planned, facts.subject.config, cache=False)
    same = _same_behaviour(facts.built, again)
    bytes_too = "the same object" if again.data == facts.built.data else "another object"
    words = "the same outcome" if same else f"another outcome: {_built_text(again)}"
    facts.note("replay: compile and run again", f"{bytes_too}, {words}")


def _same_behaviour(a: Built, b: Built) -> bool:
    if (a.program is None) != (b.program is None) or type(a.verdict) is not type(b.verdict):
        return False
    return a.program is None or dict(a.legs or {}) == dict(b.legs or {})


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
    numbers = facts.bad
    if isinstance(facts.built.verdict, Rejected) or facts.built.program is None:
        numbers = list(range(len(facts.vectors)))  # no outcome tells which vectors matter
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


RIGHT, WRONG = "right", "wrong"


def rightness(facts: Facts, built: Built) -> str:
    """Return how *built* compares with the native consensus, in few words."""
    if built.program is None:
        return f"no program: {built.why}"
    if isinstance(built.verdict, Rejected):
        return f"refused: {built.verdict.message}"
    truth = consensus({**facts.natives, **facts.gccs}, facts.mask, len(facts.vectors))
    for outcomes in (built.legs or {}).values():
        for number, outcome in enumerate(outcomes):
            right = truth[number] if number < len(truth) else None
            if number in facts.undefined or right is None:
                continue
            if not agree(outcome, right, facts.mask):
                return WRONG
    return RIGHT if any(truth) else "no native result to compare with"


def consensus(
    legs: Mapping[str, Sequence[Outcome]], mask: Mask, count: int
) -> list[Outcome | None]:
    """Return for each vector the outcome all *legs* agree on, None where they do not."""
    found: list[Outcome | None] = []
    for number in range(count):
        known = [o for leg in legs.values() if not isinstance(o := leg[number], Unknown)]
        same = known and all(agree(known[0], outcome, mask) for outcome in known[1:])
        found.append(known[0] if same else None)
    return found


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
    facts.note("hand-over through textual assembly", f"{same}; {rightness(facts, text)}")
    if facts.bad or isinstance(facts.built.verdict, Rejected):
        facts.lenient = bench.build(facts.planned, facts.subject.config, LENIENT)
        facts.note(f"build with {' '.join(LENIENT)}", rightness(facts, facts.lenient))


def _kernel(facts: Facts, kernel: Kernel | None) -> None:
    if kernel is None or facts.built.program is None:
        facts.note("a real Linux", "not asked")
        return
    facts.kernel = kernel(facts.built.program, facts.vectors)
    verdict, outcomes = facts.kernel
    facts.note("a real Linux: verdict", _verdict_text(verdict))
    if outcomes:
        words = _groups({**facts.natives, **facts.legs, "kernel": outcomes}, facts.mask)
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


def _verdict_text(verdict: Verdict | None) -> str:
    match verdict:
        case Accepted():
            return "accepted"
        case Rejected(insn=insn, message=message):
            return f"refused at {insn}: {message}"
        case Unknown(why=why):
            return f"unknown: {why}"
    return "not verified"


def _built_text(built: Built) -> str:
    if built.program is None:
        return f"no program: {built.why}"
    return _verdict_text(built.verdict)


# --- judgement --------------------------------------------------------------


def judge(facts: Facts) -> Diagnosis:
    """Return who is wrong, by the experiments in *facts*."""
    built, expected = facts.built, facts.subject.expected
    if not facts.planned.layouts and not facts.planned.programs:
        return Diagnosis(INVALID, built.why, HIGH)
    if facts.again is not None and not _same_behaviour(built, facts.again):
        return Diagnosis(UNSTABLE, "the same again gives another outcome", CERTAIN)
    if built.program is None:
        return _no_program(facts)
    if isinstance(built.verdict, Rejected):
        return _refused(facts, built.verdict, expected)
    if expected:
        return _accepted(facts, expected)
    if isinstance(built.verdict, Unknown) and not facts.bad:
        return Diagnosis(UNDECIDED, f"verifier: {built.verdict.why}", LOW, suspects=(VERIFIER,))
    return _results(facts)


def _no_program(facts: Facts) -> Diagnosis:
    built = facts.built
    why = built.why
    if built.data is not None:  # an object that does not load
        text = facts.through_text
        if facts.btf_damaged:
            return Diagnosis(WRONG_CODE, f"the object is damaged: {why}", CERTAIN)
        if text is not None and text.program is not None:
            return Diagnosis(WRONG_CODE, f"the object is damaged: {why}", HIGH)
        if facts.through_text is None:
            return Diagnosis(WRONG_CODE, f"the object is damaged: {why}", LOW)
        return Diagnosis(
            UNDECIDED, f"the object does not load: {why}", LOW, suspects=(WRONG_CODE, "our loader")
        )
    if not facts.natives:
        return Diagnosis(INVALID, why, MEDIUM)
    if facts.undefined and len(facts.undefined) == len(facts.vectors) and not built.crashed:
        return _undefined_source(facts, HIGH)
    if built.crashed:
        return Diagnosis(CRASH, why, CERTAIN)
    fine = [c for c, b in facts.others.items() if b.program is not None]
    confidence = HIGH if fine else MEDIUM
    return Diagnosis(CRASH, f"x86 takes the source, BPF does not: {why}", confidence)


def _undefined_source(facts: Facts, confidence: str) -> Diagnosis:
    number, why = next(iter(facts.undefined.items()))
    return Diagnosis(UNDEFINED, why, confidence, vector=facts.vectors[number], undefined=why)


def _refused(facts: Facts, verdict: Rejected, expected: str) -> Diagnosis:
    message = verdict.message
    if expected == message:
        return Diagnosis(AGREES, "it is refused, as it must be", HIGH)
    if facts.kernel is not None and not isinstance(facts.kernel[0], Unknown):
        linux = facts.kernel[0]
        if isinstance(linux, Accepted):
            detail = f"refuses what Linux accepts: {message}"
            return Diagnosis(VERIFIER, detail, CERTAIN)
        if isinstance(linux, Rejected) and linux.message == message:
            return Diagnosis(REFUSED, message, CERTAIN)
        detail = f"says {message!r} where Linux says {_verdict_text(linux)}"
        return Diagnosis(VERIFIER, detail, HIGH)
    program = facts.built.program
    assert program is not None
    wanted = rules.rule_of(expected) if expected else None
    if wanted is not None and any(b.rule == wanted for b in rules.broken(program)):
        return Diagnosis(VERIFIER, f"says {message!r} where it must say {expected!r}", HIGH)
    if _damaged(facts):
        return Diagnosis(WRONG_CODE, f"the object is damaged, and refused: {message}", CERTAIN)
    wrong_btf = validate(program.btf) if program.btf is not None else None
    if wrong_btf is not None:
        facts.note("the BTF, which Linux checks as a whole", f"refused: {wrong_btf}")
    rule = _rule_of(message)
    found = rules.broken(program)
    here = [b for b in found if b.rule == rule]
    if rule is not None:
        facts.note(
            f"the rule {rule!r} again, as data flow",
            "; ".join(f"slot {b.insn}: {b.why}" for b in here[:3]) or "not broken on any path",
        )
        if not here:
            detail = f"refuses wrongly: {message}; the rule is not broken on any path"
            return Diagnosis(VERIFIER, detail, HIGH)
        if _undefined_matters(facts):
            return _undefined_source(facts, HIGH)
        at = [b for b in here if b.insn in (verdict.insn, None)]
        return _rightly(facts, message, HIGH if at else MEDIUM)
    if _undefined_matters(facts):
        return _undefined_source(facts, MEDIUM)
    return _second_thoughts(facts, message)


def _undefined_matters(facts: Facts) -> bool:
    """Return whether undefined behaviour may explain a refusal, which is about all inputs.

    It does where no input is defined, or where something is read that nobody wrote.
    """
    unset = any("uninitialised" in why for why in facts.undefined.values())
    return unset or (bool(facts.undefined) and len(facts.undefined) == len(facts.vectors))


def _damaged(facts: Facts) -> bool:
    """Return whether the object is not what the compiler wrote as assembly."""
    dropped = any("damaged BTF" in note for note in facts.built.notes)
    return facts.mismatch is not None or facts.btf_damaged or dropped


def _rule_of(message: str) -> str | None:
    return rules.rule_of(message)


def _rightly(facts: Facts, message: str, confidence: str) -> Diagnosis:
    """Return that the verifier is right, unless the object is not what clang had in mind."""
    text = facts.through_text
    if text is not None and isinstance(text.verdict, Accepted) and text.code != facts.built.code:
        return Diagnosis(WRONG_CODE, f"the object is damaged, and refused: {message}", HIGH)
    return Diagnosis(REFUSED, message, confidence)


def _second_thoughts(facts: Facts, message: str) -> Diagnosis:
    """Judge a refusal that no rule here is about."""
    built, text = facts.built, facts.through_text
    program = built.program
    assert program is not None
    if text is not None and isinstance(text.verdict, Accepted):
        detail = f"the object is damaged, and refused: {message}"
        if text.code != built.code or any("BTF" in note for note in built.notes):
            return Diagnosis(WRONG_CODE, detail, HIGH)
        return Diagnosis(WRONG_CODE, detail, MEDIUM)
    accepted = [b for b in facts.others.values() if isinstance(b.verdict, Accepted)]
    if accepted:
        facts.note("builds of the same source that are accepted", str(len(accepted)))
    return Diagnosis(
        UNDECIDED,
        f"refused: {message}; no second opinion on this message without a real Linux",
        LOW,
        suspects=(REFUSED, VERIFIER),
    )


def _accepted(facts: Facts, expected: str) -> Diagnosis:
    program = facts.built.program
    assert program is not None
    rule = rules.rule_of(expected)
    here = [b for b in rules.broken(program) if b.rule == rule]
    words = "; ".join(f"slot {b.insn}: {b.why}" for b in here[:3]) or "not broken on any path"
    facts.note(f"the rule {rule!r} again, as data flow", words)
    if rule is not None and here:
        return Diagnosis(VERIFIER, f"accepts wrongly: {expected}", HIGH)
    return Diagnosis(
        UNDECIDED, f"accepted; expected: {expected}", LOW, suspects=(VERIFIER, REFUSED)
    )


def _results(facts: Facts) -> Diagnosis:
    """Judge a program that is accepted and whose outcomes differ."""
    if not facts.bad:
        if facts.undefined:
            return _undefined_source(facts, HIGH)
        linux = _linux(facts)
        return linux or Diagnosis(AGREES, "all legs agree", HIGH)
    first = facts.bad[0]
    diagnosis = _blame(facts)
    if diagnosis.vector is None:
        diagnosis = replace(diagnosis, vector=facts.vectors[first])
    return diagnosis


def _linux(facts: Facts) -> Diagnosis | None:
    if facts.kernel is None:
        return None
    verdict, outcomes = facts.kernel
    if isinstance(verdict, Rejected):
        detail = f"accepts what Linux refuses: {verdict.message}"
        return Diagnosis(VERIFIER, detail, HIGH, suspects=(LINUX_VERIFIER,))
    jit = facts.legs.get("jit")
    if jit is not None and outcomes and differing(jit, outcomes, facts.mask):
        return Diagnosis(LINUX_JIT, "its results differ from every other leg", HIGH)
    return None


def _blame(facts: Facts) -> Diagnosis:
    legs, mask, bad = facts.legs, facts.mask, facts.bad
    interp, jit = legs.get("interp"), legs.get("jit")
    count = len(facts.vectors)
    natives = consensus(facts.natives, mask, count)
    if interp is not None and jit is not None:
        numbers = [n for n in differing(interp, jit, mask) if n in set(bad)]
        if numbers:
            return _interp_or_jit(facts, interp, jit, numbers)
    ours = jit if jit is not None else interp
    if ours is None:
        return Diagnosis(UNDECIDED, "no leg of ours ran", LOW)
    split = [n for n in bad if natives[n] is None and _known(facts.natives, n)]
    if split:
        return _x86(facts, ours, split)
    wrong = [n for n in bad if natives[n] is not None and not _agrees(ours, natives, n, mask)]
    gcc = consensus(facts.gccs, mask, count) if facts.gccs else [None] * count
    if not wrong:  # gcc alone differs
        return Diagnosis(AGREES, "gcc alone differs from all others", MEDIUM)
    against = [n for n in wrong if (g := gcc[n]) is not None and agree(g, ours[n], mask)]
    if against:
        # two x86 compilers differ, and one has our result: theirs is the fault, or the source's
        detail = "gcc and every BPF build have another result than LLVM's x86 code"
        others = [rightness(facts, b) for b in facts.others.values()]
        if all(words == WRONG for words in others):
            return Diagnosis(X86, detail, MEDIUM, vector=facts.vectors[against[0]])
    if facts.lenient_native:
        why = "native code changes with the rules on aliasing and overflow"
        return Diagnosis(UNDEFINED, why, MEDIUM, undefined=why)
    return _wrong_code(facts, wrong, backed=any(gcc[n] is not None for n in wrong))


def _known(legs: Mapping[str, Sequence[Outcome]], number: int) -> bool:
    return any(not isinstance(leg[number], Unknown) for leg in legs.values())


def _agrees(
    leg: Sequence[Outcome], truth: Sequence[Outcome | None], number: int, mask: Mask
) -> bool:
    right = truth[number]
    return right is not None and agree(leg[number], right, mask)


def _wrong_code(facts: Facts, wrong: Sequence[int], *, backed: bool) -> Diagnosis:
    """Return that clang's code is wrong, with as much confidence as the builds give."""
    detail = _what(facts, wrong)
    vector = facts.vectors[wrong[0]]
    if not facts.others:  # the quick look of a reduction
        return Diagnosis(WRONG_CODE, detail, LOW, vector=vector)
    rights = [c for c, b in facts.others.items() if rightness(facts, b) == RIGHT]
    text = facts.through_text
    if facts.mismatch is not None:
        facts.note("which step", "the assembly is right: the object is written wrongly")
        return Diagnosis(WRONG_CODE, detail, CERTAIN, vector=vector)
    if text is not None and text.code != facts.built.code and rightness(facts, text) == RIGHT:
        facts.note("which step", "the assembly is right: the object is written wrongly")
        return Diagnosis(WRONG_CODE, detail, CERTAIN if backed else HIGH, vector=vector)
    if rights:
        return Diagnosis(WRONG_CODE, detail, HIGH, vector=vector)
    # every build is wrong alike: clang, or what all builds share on our side
    confidence = MEDIUM if backed else LOW
    return Diagnosis(WRONG_CODE, detail, confidence, vector=vector)


def _what(facts: Facts, wrong: Sequence[int]) -> str:
    """Return what differs, in words that do not depend on the input."""
    ours = facts.legs.get("jit") or facts.legs["interp"]
    outcome = ours[wrong[0]]
    if isinstance(outcome, Returned):
        return "interpreter and JIT agree with each other and not with native code"
    kind = outcome.kind if isinstance(outcome, Trapped) else "does not end"
    return f"interpreter and JIT: {kind}, native code returns"


def _x86(facts: Facts, ours: Sequence[Outcome], split: Sequence[int]) -> Diagnosis:
    vector = facts.vectors[split[0]]
    if facts.lenient_native:
        why = "native code changes with the rules on aliasing and overflow"
        return Diagnosis(UNDEFINED, why, MEDIUM, vector=vector, undefined=why)
    with_ours = [
        name
        for name, leg in facts.natives.items()
        if same_on(leg, ours, facts.mask, split) is not False
    ]
    gccs = [
        name
        for name, leg in facts.gccs.items()
        if same_on(leg, ours, facts.mask, split) is not False
    ]
    odd = [name for name in facts.natives if name not in with_ours]
    detail = "native code differs between levels"
    if with_ours and odd:
        words = f"{', '.join(odd)} differ from {', '.join([*with_ours, *gccs])} and BPF"
        facts.note("which native code", words)
        sure = bool(facts.gccs) and len(gccs) == len(facts.gccs)
        return Diagnosis(X86, detail, HIGH if sure else MEDIUM, vector=vector)
    return Diagnosis(UNDECIDED, detail, LOW, suspects=(X86, UNDEFINED, WRONG_CODE), vector=vector)


def _interp_or_jit(
    facts: Facts, interp: Sequence[Outcome], jit: Sequence[Outcome], numbers: Sequence[int]
) -> Diagnosis:
    mask = facts.mask
    judges = {**facts.natives, **facts.gccs}
    if facts.kernel is not None and facts.kernel[1]:
        judges["kernel"] = facts.kernel[1]
    truth = consensus(judges, mask, len(facts.vectors))
    told = [n for n in numbers if truth[n] is not None]
    interp_right = bool(told) and all(_agrees(interp, truth, n, mask) for n in told)
    jit_right = bool(told) and all(_agrees(jit, truth, n, mask) for n in told)
    vector = facts.vectors[told[0] if told else numbers[0]]
    strict = [n for n in numbers if isinstance(interp[n], Trapped)]
    program = facts.built.program
    if strict and len(strict) == len(numbers) and program is not None:
        return _strict(facts, interp, strict, vector)
    if interp_right and not jit_right:
        detail = "its result differs from interpreter and native code"
        return Diagnosis(JIT, detail, HIGH, vector=vector)
    if jit_right and not interp_right:
        detail = "its result differs from JIT and native code"
        return Diagnosis(INTERPRETER, detail, HIGH, vector=vector)
    detail = "interpreter and JIT disagree, and native code with both"
    fair = {
        leg: sum(_agrees(seen, truth, n, mask) for n in range(len(truth)))
        for leg, seen in (("interp", interp[: len(truth)]), ("jit", jit[: len(truth)]))
        if len(seen) == len(truth)
    }
    if len(fair) == 2 and fair["interp"] != fair["jit"]:
        worse = JIT if fair["jit"] < fair["interp"] else INTERPRETER
        facts.note("vectors each has right", f"interp {fair['interp']}, jit {fair['jit']}")
        return Diagnosis(worse, detail, MEDIUM, vector=vector)
    return Diagnosis(UNDECIDED, detail, LOW, suspects=(JIT, INTERPRETER), vector=vector)


def _strict(
    facts: Facts, interp: Sequence[Outcome], strict: Sequence[int], vector: Vector
) -> Diagnosis:
    """Judge an accepted program that the interpreter alone stops: it checks what others do not."""
    trap = interp[strict[0]]
    assert isinstance(trap, Trapped)
    assert facts.built.program is not None
    found = [b for b in rules.broken(facts.built.program) if b.rule in ("unread", "unwritten")]
    words = "; ".join(f"slot {b.insn}: {b.why}" for b in found[:3]) or "not broken on any path"
    facts.note("the rules on what must be written, as data flow", words)
    if trap.kind in ("undefined", "access", "stack") and found:
        detail = f"accepts wrongly: a program that the interpreter stops ({trap.kind})"
        return Diagnosis(VERIFIER, detail, HIGH, vector=vector)
    if trap.kind == "undefined":
        detail = f"traps ({trap.kind}) where nothing is missing"
        return Diagnosis(INTERPRETER, detail, HIGH, vector=vector)
    return Diagnosis(
        UNDECIDED,
        f"the interpreter stops an accepted program ({trap.kind}: {trap.where})",
        LOW,
        suspects=(VERIFIER, INTERPRETER),
        vector=vector,
    )
