"""Who is wrong: a judgement that quotes the experiments, and no more than they say.

What they do not decide is said to be undecided, and a verdict that they support only in
part carries less confidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from harness.btf_check import validate
from harness.compare import agree
from harness.model import (
    Accepted,
    Mask,
    Outcome,
    Program,
    Rejected,
    Returned,
    Trapped,
    Unknown,
    Vector,
)
from harness.triage import rules
from harness.triage.experiments import differing, same_on
from harness.triage.facts import (
    AGREES,
    CERTAIN,
    CRASH,
    HIGH,
    INTERPRETER,
    INVALID,
    JIT,
    LINUX_JIT,
    LINUX_VERIFIER,
    LOW,
    MEDIUM,
    REFUSED,
    RIGHT,
    UNDECIDED,
    UNDEFINED,
    UNSTABLE,
    VERIFIER,
    WRONG,
    WRONG_CODE,
    X86,
    Diagnosis,
    Facts,
    consensus,
    rightness,
    same_behaviour,
)


def judge(facts: Facts) -> Diagnosis:
    """Return who is wrong, by the experiments in *facts*."""
    built, expected = facts.built, facts.subject.expected
    if not facts.planned.layouts and not facts.planned.programs:
        return Diagnosis(INVALID, built.why, HIGH)
    if facts.again is not None and not same_behaviour(built, facts.again):
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
    if facts.kernel is not None and isinstance(facts.kernel.verdict, Accepted):
        assert facts.built.program is not None
        return refused_alone(facts.built.program, message, facts.note)
    if _damaged(facts):
        return Diagnosis(WRONG_CODE, f"the object is damaged, and refused: {message}", CERTAIN)
    if facts.kernel is not None and isinstance(facts.kernel.verdict, Rejected):
        linux = facts.kernel.verdict
        if linux.message == message:
            return Diagnosis(REFUSED, message, CERTAIN)
        detail = f"says {message!r} where Linux says {linux.message!r}"
        return Diagnosis(VERIFIER, detail, HIGH)
    program = facts.built.program
    assert program is not None
    wanted = rules.rule_of(expected) if expected else None
    if wanted is not None and any(b.rule == wanted for b in rules.broken(program)):
        return Diagnosis(VERIFIER, f"says {message!r} where it must say {expected!r}", HIGH)
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


def refused_alone(program: Program, message: str, note: Callable[[str, str], None]) -> Diagnosis:
    """Judge what Linux accepts and our verifier refuses."""
    detail = f"refuses what Linux accepts: {message}"
    rule = _rule_of(message)
    here = [b for b in rules.broken(program) if b.rule == rule]
    if rule is not None and here:
        words = "; ".join(f"slot {b.insn}: {b.why}" for b in here[:3])
        note(f"the rule {rule!r} again, as data flow", words)
        return Diagnosis(VERIFIER, detail, MEDIUM, suspects=(LINUX_VERIFIER,))
    return Diagnosis(VERIFIER, detail, CERTAIN)


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
        text = facts.through_text
        if linux is None and facts.subject.handed and text is not None and text.printed:
            detail = f"its assembler refuses what it prints: {text.printed}"
            return Diagnosis(CRASH, detail, CERTAIN)
        return linux or Diagnosis(AGREES, "all legs agree", HIGH)
    first = facts.bad[0]
    diagnosis = _blame(facts)
    if diagnosis.vector is None:
        diagnosis = replace(diagnosis, vector=facts.vectors[first])
    return diagnosis


def _linux(facts: Facts) -> Diagnosis | None:
    """Judge a program that nobody here has anything against: perhaps Linux has."""
    linux, program = facts.kernel, facts.built.program
    if linux is None or program is None:
        return None
    if isinstance(linux.verdict, Rejected):
        return accepted_alone(program, linux.verdict.message, facts.note)
    if not linux.outcomes:
        return None
    apart = {
        name: differing(leg, linux.outcomes, facts.mask)
        for name, leg in {**facts.natives, **facts.gccs, **facts.legs}.items()
    }
    numbers = sorted(set().union(*apart.values()))
    if not numbers:
        return None
    against = [name for name, found in apart.items() if found]
    detail = "its results differ from every other leg"
    if len(against) < len(apart):
        detail = f"its results differ from {', '.join(against)}"
    confidence = HIGH if len(against) >= 3 else MEDIUM
    return Diagnosis(LINUX_JIT, detail, confidence, vector=facts.vectors[numbers[0]])


def accepted_alone(program: Program, message: str, note: Callable[[str, str], None]) -> Diagnosis:
    """Judge what our verifier accepts and Linux refuses with *message*."""
    detail = f"accepts what Linux refuses: {message}"
    rule = _rule_of(message)
    if rule is None:
        return Diagnosis(VERIFIER, detail, MEDIUM, suspects=(LINUX_VERIFIER,))
    here = [b for b in rules.broken(program) if b.rule == rule]
    words = "; ".join(f"slot {b.insn}: {b.why}" for b in here[:3]) or "not broken on any path"
    note(f"the rule {rule!r} again, as data flow", words)
    if here:
        return Diagnosis(VERIFIER, detail, HIGH)
    detail = f"refuses wrongly: {message}; the rule is not broken on any path"
    return Diagnosis(LINUX_VERIFIER, detail, MEDIUM, suspects=(VERIFIER,))


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
    linux = facts.kernel.outcomes if facts.kernel is not None else ()
    ours = facts.legs.get("jit") or facts.legs["interp"]
    witness = same_on(linux, ours, facts.mask, wrong) if linux else None
    if witness is False:
        detail = "Linux runs the same object otherwise than our legs"
        suspects = ("our loader", JIT, INTERPRETER, LINUX_JIT)
        return Diagnosis(UNDECIDED, detail, LOW, suspects=suspects, vector=vector)
    rights = [c for c, b in facts.others.items() if rightness(facts, b) == RIGHT]
    text = facts.through_text
    if facts.mismatch is not None:
        facts.note("which step", "the assembly is right: the object is written wrongly")
        return Diagnosis(WRONG_CODE, detail, CERTAIN, vector=vector)
    if text is not None and text.code != facts.built.code and rightness(facts, text) == RIGHT:
        facts.note("which step", "the assembly is right: the object is written wrongly")
        return Diagnosis(WRONG_CODE, detail, CERTAIN if backed else HIGH, vector=vector)
    if rights or witness:
        sure = CERTAIN if rights and witness else HIGH
        return Diagnosis(WRONG_CODE, detail, sure, vector=vector)
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
    whole = facts.built.whole
    if whole and same_on(whole, interp, mask, numbers):
        linux = facts.kernel.outcomes if facts.kernel is not None else ()
        alike = bool(linux) and bool(same_on(linux, jit, mask, numbers))
        vector = facts.vectors[numbers[0]]
        return taken_for_dead(facts.built.dead, vector, facts.note, linux=alike)
    judges = {**facts.natives, **facts.gccs}
    if facts.kernel is not None and facts.kernel.outcomes:
        judges["kernel"] = facts.kernel.outcomes
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


DEAD = "takes code for dead that is reached"


def taken_for_dead(
    dead: frozenset[int], vector: Vector, note: Callable[[str, str], None], *, linux: bool
) -> Diagnosis:
    """Judge an image that is right on *vector* with the code that our verifier finds *dead*.

    *linux*: a real one has the results of the image without that code.
    """
    named = sorted(dead)
    words = f"slots {', '.join(map(str, named[:8]))}{', ...' if len(named) > 8 else ''}"
    words += "; with them the JIT's image does what the interpreter does"
    note("what our verifier finds dead", words)
    if linux:
        note("Linux's results", "those of the image without that code")
        return Diagnosis(LINUX_VERIFIER, DEAD, CERTAIN, vector=vector)
    return Diagnosis(VERIFIER, DEAD, HIGH, suspects=(LINUX_VERIFIER,), vector=vector)


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
