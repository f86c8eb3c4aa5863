"""Triage of BPF text beside a real Linux: a case, or what a campaign found without C.

The experiments are ours and Linux's verdicts, what our legs and Linux's image do, and what
Linux's verifier says it knows (its log) beside what the program then does. A fault of
Linux's is proved by Linux alone: it breaks, blames itself, contradicts itself, or does what
its own verifier ruled out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from harness import corpus, pipeline, verifier
from harness.corpus import Case, Known, ProgramText, RunCheck
from harness.legs import kfuncs
from harness.legs.interp import InterpLeg
from harness.legs.kernel import KernelAnswer, KernelLeg
from harness.model import (
    Accepted,
    Crashed,
    Outcome,
    OutOfFuel,
    Program,
    Rejected,
    Returned,
    Trapped,
    Unknown,
    Vector,
    Verdict,
)
from harness.source.stream_shrink import Text, shrink
from harness.toolchain import Compiler
from harness.triage import beliefs, rules
from harness.triage.beliefs import Belief
from harness.triage.facts import (
    AGREES,
    CERTAIN,
    HIGH,
    INTERPRETER,
    JIT,
    LINUX_JIT,
    LINUX_VERIFIER,
    LOW,
    MEDIUM,
    UNDECIDED,
    UNSTABLE,
    VERIFIER,
    Diagnosis,
    Experiment,
    general,
    verdict_text,
)
from harness.triage.judge import accepted_alone, refused_alone, taken_for_dead
from harness.triage.linux import image_difference
from harness.triage.marking import NO_MARK, Mark

CONTEXT = 64  # bytes, zero, of a case that has no vector
FUEL = 1 << 18  # instructions a vector may take: may_goto asks the clock after 65535 rounds
TEXTS = 64  # that are looked at together, by ours
BATCH = 8  # texts that Linux is asked about together, where none ends a guest
ATTEMPTS = 12800  # texts that a reduction looks at
QUESTIONS = 150  # that it may ask Linux
POISONED = "slot poisoned by dead code elimination"
BUG = "verifier bug"


@dataclass(slots=True)
class TextFacts:
    """Results of the experiments on one text."""

    text: Text
    program: Program
    verdict: Verdict  # of our verifier
    legs: dict[str, Sequence[Outcome]]  # interp, jit
    linux: KernelAnswer | None = None
    again: KernelAnswer | None = None
    expected: Sequence[RunCheck] = ()  # by vector
    dead: frozenset[int] = frozenset()  # slots that our verifier finds dead
    cut: Sequence[Outcome] = ()  # what the JIT's image does without them, if there are any
    log: list[Experiment] = field(default_factory=list)

    def note(self, name: str, result: str) -> None:
        """Add an experiment to the log."""
        self.log.append(Experiment(name, result))


@dataclass(frozen=True, slots=True)
class TextTriage:
    """What came of it."""

    name: str
    case: Case
    text: Text  # reduced, or as it was
    first: Diagnosis  # of the original
    diagnosis: Diagnosis
    facts: TextFacts
    release: str = ""  # of the Linux that was asked
    attempts: int = 0
    cause: str = ""  # what somebody wrote about it: of known.toml, or of the case
    mark: Mark = NO_MARK
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def lines(self) -> int:
        """Lines of BPF text."""
        return len(self.text.program.asm.splitlines())


Tell = Callable[[str], None]


def triage_text(
    case: Case,
    leg: KernelLeg | None,
    *,
    known: Sequence[Known] = (),
    compiler: Compiler | None = None,
    reduce: bool = True,
    questions: int = QUESTIONS,
    tell: Tell = lambda _: None,
) -> TextTriage:
    """Answer for the BPF text of *case*: who is wrong, and how small.

    *compiler* makes what our verifier knows of the project's kernel functions.
    """
    began = time.monotonic()
    assert case.program is not None
    tell("classify")
    start = Text(plain(case.program), tuple(run.ctx for run in case.runs) or _contexts(case))
    bench = TextBench(case, leg, compiler)
    facts = examine(bench, start)
    first = judge(facts)
    diagnosis, text, attempts, notes = first, start, 0, []
    if reduce and leg is not None and first.cause in (LINUX_VERIFIER, LINUX_JIT, VERIFIER):
        tell("reduce")
        text, attempts = _reduced(bench, start, facts, questions, tell)
        if text != start:
            shorter = examine(bench, text)
            diagnosis = judge(shorter)
            if diagnosis.cause == first.cause:
                facts = shorter
            else:
                told = f"{diagnosis.cause}: {diagnosis.detail}"
                notes.append(f"the reduced text is judged otherwise ({told}): kept the original")
                diagnosis, text = first, start
    return TextTriage(
        name=case.name,
        case=case,
        text=text,
        first=first,
        diagnosis=replace(diagnosis, experiments=tuple(facts.log)),
        facts=facts,
        release=leg.kernel.release if leg is not None and leg.kernel is not None else "",
        attempts=attempts,
        cause=cause_of(case, known),
        mark=marked(facts),
        notes=tuple(notes),
        seconds=time.monotonic() - began,
    )


def cause_of(case: Case, known: Sequence[Known]) -> str:
    """Return what is written about *case*: by the entry of *known* about it, or in itself."""
    return corpus.told(known, str(case.path)) or case.note.strip()


def plain(text: ProgramText) -> ProgramText:
    """Return *text* with one statement a line, as it can be cut."""
    lines = (part.strip() for line in text.asm.splitlines() for part in line.split(";"))
    return replace(text, asm="\n".join(line for line in lines if line) + "\n")


def _contexts(case: Case) -> tuple[Vector, ...]:
    runs = case.program is not None and case.program.type == "syscall"
    return (bytes(CONTEXT),) if runs else ()


# --- experiments --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextBench:
    """Who looks at the texts of *case*."""

    case: Case
    leg: KernelLeg | None  # None: Linux is not asked
    compiler: Compiler | None = None

    def program(self, text: Text) -> Program:
        """Return the program of *text*."""
        program = corpus.program(text.program, self.case.name)
        if program.kfuncs and self.compiler is not None:
            (program,) = kfuncs.attach([program], self.compiler)
        return program


def look(
    bench: TextBench,
    texts: Sequence[Text],
    *,
    ask: bool = True,
    log: bool = False,
    images: bool = False,
    run: bool = True,
) -> list[TextFacts]:
    """Carry out the experiments on *texts*, with one question to Linux; *run*: on our legs."""
    found = []
    options = verifier.Options(kernel_btf=corpus.kernel_types())
    for text in texts:
        program = bench.program(text)
        given = options if program.kfunc_btf is None else verifier.Options()
        verification = verifier.verify(program, log_level=0, options=given)
        dead, cut = verification.dead, list[Outcome]()
        runs: dict[str, Sequence[Outcome]] = {"interp": [], "jit": []}
        if run and text.vectors:
            interp = InterpLeg(FUEL).prepare(program)
            if isinstance(interp, Unknown):
                runs["interp"] = [interp for _ in text.vectors]
            else:
                runs["interp"] = list(interp.run(text.vectors))
            runs["jit"] = list(pipeline.execute(program, "jit", text.vectors))
            if dead:
                cut = list(pipeline.execute(program, "jit", text.vectors, dead))
        by_context = {check.ctx: check for check in bench.case.runs}
        expected = [by_context[v] for v in text.vectors if v in by_context]
        verdict = verification.verdict
        facts = TextFacts(text, program, verdict, runs, expected=expected, dead=dead, cut=cut)
        found.append(facts)
    if bench.leg is not None and ask:
        answers = bench.leg.check(
            [facts.program for facts in found],
            [text.vectors for text in texts],
            log_level=2 if log else 0,
            images=images,
        )
        for facts, answer in zip(found, answers, strict=True):
            facts.linux = answer
    return found


def examine(bench: TextBench, text: Text) -> TextFacts:
    """Carry out all experiments on *text*."""
    (facts,) = look(bench, [text], log=True, images=True)
    facts.note("our verifier", verdict_text(facts.verdict))
    for name, outcomes in facts.legs.items():
        for number, outcome in enumerate(outcomes):
            facts.note(f"{name}, context {_short(text.vectors[number])}", outcome_text(outcome))
    if facts.linux is None:
        facts.note("a real Linux", "not asked (--kernel)")
        return facts
    linux = facts.linux
    facts.note("Linux: verdict", said(linux.verdict))
    if isinstance(linux.verdict, Accepted):
        for number, outcome in enumerate(linux.outcomes):
            name = f"Linux: run, context {_short(text.vectors[number])}"
            facts.note(name, outcome_text(outcome))
        if bench.case.program is not None and text.program == plain(bench.case.program):
            for run in facts.expected:
                facts.note("the case expects", _wanted(run))
        for belief in beliefs.read(linux.log):
            facts.note("Linux: what its verifier knows", belief.text)
        theirs = tuple((image.name, image.code) for image in linux.images)
        if theirs:
            apart = image_difference(facts.program, theirs, facts.dead)
            facts.note("Linux: image against ours", apart or "the same, but for addresses")
    (second,) = look(bench, [text])
    facts.again = second.linux
    if facts.again is not None:
        same = _gist(facts.again.verdict) == _gist(linux.verdict)
        words = "the same verdict" if same else said(facts.again.verdict)
        facts.note("Linux: load it again", words)
    return facts


def said(verdict: Verdict) -> str:
    """Return Linux's *verdict* for people."""
    return f"breaks: {verdict.why}" if isinstance(verdict, Crashed) else verdict_text(verdict)


def _gist(verdict: Verdict) -> tuple[type, str]:
    match verdict:
        case Rejected(message=message):
            return Rejected, message
        case Crashed():
            return Crashed, ""
    return type(verdict), ""


def _changed(first: Verdict, again: Verdict) -> bool:
    """Return whether Linux says otherwise of the same program; no answer says nothing."""
    answers = all(isinstance(v, Crashed) or not isinstance(v, Unknown) for v in (first, again))
    return answers and _gist(first) != _gist(again)


def _short(vector: Vector) -> str:
    places = [at for at, byte in enumerate(vector) if byte]
    if len(vector) <= 16 or len(places) > 8 or (places and len(vector) <= 256):
        return vector.hex()
    but = "".join(f", {vector[at]:#04x} at {at}" for at in places)
    return f"{len(vector)} zero bytes" if not but else f"{len(vector)} bytes, zero{but}"


def outcome_text(outcome: Outcome) -> str:
    """Return *outcome* for people."""
    match outcome:
        case Returned(r0=r0, ctx=ctx):
            return f"returns {r0:#x}, context after {_short(ctx)}"
        case Trapped(kind=kind, where=where):
            return f"stops: {kind} ({where})"
        case Unknown(why=why):
            return f"unknown: {why}"
    return "does not end"


def _wanted(run: RunCheck) -> str:
    if run.outcome != "returned":
        return run.outcome
    after = run.ctx if run.after is None else run.after
    return f"returns {run.r0 or 0:#x}, context after {_short(after)}"


# --- judgement ----------------------------------------------------------------------


def judge(facts: TextFacts) -> Diagnosis:
    """Return who is wrong, by the experiments in *facts*."""
    linux = facts.linux
    if linux is None:
        return _between_ours(facts) or Diagnosis(
            UNDECIDED, "BPF text is judged beside a real Linux: --kernel", LOW
        )
    if facts.again is not None and _changed(linux.verdict, facts.again.verdict):
        return Diagnosis(UNSTABLE, "Linux says one thing now and another then", CERTAIN)
    match linux.verdict:
        case Crashed(why=why):
            detail = f"breaks while it loads the program: {_death(why)}"
            return Diagnosis(LINUX_VERIFIER, detail, CERTAIN)
        case Rejected(message=message):
            return _refused(facts, message)
        case Unknown(why=why):
            return Diagnosis(UNDECIDED, f"Linux: {why}", LOW)
    for number, outcome in enumerate(linux.outcomes):
        if isinstance(outcome, Trapped):  # the guest died of it
            words = _death(outcome.where)
            detail = f"accepts what breaks the kernel when it runs: {words}"
            vector = facts.text.vectors[number]
            return Diagnosis(LINUX_VERIFIER, detail, HIGH, suspects=(LINUX_JIT,), vector=vector)
    if isinstance(facts.verdict, Rejected):
        return refused_alone(facts.program, facts.verdict.message, facts.note)
    found = _results(facts, linux) or _between_ours(facts)
    if found is None and not _compared(facts, linux):
        return Diagnosis(AGREES, "the verdicts agree, and no result was compared", LOW)
    return found or _agreed()


def _death(why: str) -> str:
    """Return what the guest died of, without the address."""
    return why.removeprefix("the guest died: ").partition(", address")[0]


def _compared(facts: TextFacts, linux: KernelAnswer) -> bool:
    """Return whether a leg of ours and Linux got to the end on the same vector."""
    return any(
        isinstance(a, Returned) and isinstance(b, Returned)
        for leg in facts.legs.values()
        for a, b in zip(leg, linux.outcomes, strict=False)
    )


def _agreed() -> Diagnosis:
    return Diagnosis(AGREES, "ours and Linux's verdicts and results agree", HIGH)


def _refused(facts: TextFacts, message: str) -> Diagnosis:
    if message.startswith(BUG):
        return Diagnosis(LINUX_VERIFIER, f"blames itself: {message}", CERTAIN)
    if POISONED in message:
        detail = f"refuses what its own analysis of live stack lost: {message}"
        return Diagnosis(LINUX_VERIFIER, detail, CERTAIN if _returns(facts) else HIGH)
    match facts.verdict:
        case Rejected(message=ours) if ours == message:
            return Diagnosis(AGREES, "Linux refuses it, as we do", HIGH)
        case Rejected(message=ours):
            return Diagnosis(VERIFIER, f"says {ours!r} where Linux says {message!r}", HIGH)
        case Unknown(why=why):
            return Diagnosis(UNDECIDED, f"Linux refuses it: {message}; ours: {why}", LOW)
    return accepted_alone(facts.program, message, facts.note)


def _returns(facts: TextFacts) -> bool:
    """Return whether the interpreter, which checks every access, gets to the end each time."""
    runs = facts.legs["interp"]
    return bool(runs) and all(isinstance(outcome, Returned) for outcome in runs)


def _results(facts: TextFacts, linux: KernelAnswer) -> Diagnosis | None:
    """Judge what Linux's image did, by what its verifier knew, and by our legs."""
    ruled_out = _ruled_out(facts, linux)
    if ruled_out is not None:
        return _contradiction(facts, *ruled_out)
    taken = _taken_for_dead(facts, linux.outcomes)
    if taken is not None:
        return taken
    for number, (ours, outcome) in enumerate(
        zip(facts.legs["interp"], linux.outcomes, strict=False)
    ):
        match ours, outcome:
            case Trapped(kind="stack" | "access", where=where), Returned():
                detail = f"accepts what it must refuse: {where}"
                vector = facts.text.vectors[number]
                suspects = (INTERPRETER,)
                return Diagnosis(LINUX_VERIFIER, detail, MEDIUM, suspects=suspects, vector=vector)
    differing = {
        name: [
            n for n, (a, b) in enumerate(zip(leg, linux.outcomes, strict=False)) if not _same(a, b)
        ]
        for name, leg in facts.legs.items()
    }
    against = [name for name, numbers in differing.items() if numbers]
    if len(against) == 2:
        vector = facts.text.vectors[differing["interp"][0]]
        return Diagnosis(LINUX_JIT, "its results differ from interp, jit", HIGH, vector=vector)
    if against:
        (name,) = against
        cause = INTERPRETER if name == "interp" else JIT
        vector = facts.text.vectors[differing[name][0]]
        return Diagnosis(cause, "its result differs from Linux's", MEDIUM, vector=vector)
    # of a text that is reduced it says nothing, but then this is not how it was judged
    expected = {run.ctx: run for run in facts.expected}
    for vector, outcome in zip(facts.text.vectors, linux.outcomes, strict=False):
        if vector in expected and not _expected(expected[vector], outcome):
            detail = "its results are not what the case expects"
            return Diagnosis(
                UNDECIDED, detail, LOW, suspects=(LINUX_JIT, LINUX_VERIFIER), vector=vector
            )
    return None


def _expected(run: RunCheck, outcome: Outcome) -> bool:
    """Return whether Linux did with the program what the case expects; it tells half of r0."""
    match outcome:
        case Unknown():
            return True
        case Returned(r0=r0, ctx=ctx) if run.outcome == "returned":
            after = run.ctx if run.after is None else run.after
            return run.r0 is None or (r0 & 0xFFFFFFFF, ctx) == (run.r0 & 0xFFFFFFFF, after)
        case OutOfFuel():
            return run.outcome == "fuel"
    return run.outcome == "trapped" and isinstance(outcome, Trapped)


def _ruled_out(facts: TextFacts, linux: KernelAnswer) -> tuple[Vector, Belief] | None:
    """Return the first vector whose result goes against what Linux's verifier knows.

    Only where ours has another result too, or none; and of what the verifier knows, what is
    about every path, or about a program that breaks a rule on what fills a slot.
    """
    known = beliefs.read(linux.log)
    broken = bool(known) and bool(_slots_broken(facts))
    for number, outcome in enumerate(linux.outcomes):
        ours = [leg[number] for leg in facts.legs.values() if number < len(leg)]
        ended = [mine for mine in ours if isinstance(mine, Returned)]
        if not isinstance(outcome, Returned) or (ended and _same(ended[0], outcome)):
            continue  # the interpreter's first: our JIT is made as Linux's is
        for belief in known:
            guessed = broken and belief.offset != beliefs.RESULT
            if not belief.holds(outcome) and (guessed or beliefs.trusted(belief, facts.program)):
                return facts.text.vectors[number], belief
    return None


def _slots_broken(facts: TextFacts) -> list[rules.Broken]:
    return [b for b in rules.broken(facts.program) if b.rule in ("callback", "unwritten")]


def _contradiction(facts: TextFacts, vector: Vector, belief: Belief) -> Diagnosis:
    """Judge a result that Linux's verifier had ruled out: it, or the code, is wrong."""
    found = _slots_broken(facts)
    words = "; ".join(f"slot {b.insn}: {b.why}" for b in found[:3]) or "none is broken on any path"
    facts.note("the rules on what fills a slot, as data flow", words)
    if found:
        detail = f"accepts what it must refuse: {found[0].why}"
        sure = CERTAIN if beliefs.trusted(belief, facts.program) else HIGH
        return Diagnosis(LINUX_VERIFIER, detail, sure, vector=vector)
    return Diagnosis(
        LINUX_JIT, "the image does what the verifier ruled out", CERTAIN, vector=vector
    )


def _same(a: Outcome, b: Outcome) -> bool:
    """Return whether a leg of ours and Linux agree; of r0 Linux tells the low half."""
    if isinstance(a, Unknown) or isinstance(b, Unknown):
        return True
    if isinstance(a, Returned) and isinstance(b, Returned):
        return (a.r0 & 0xFFFFFFFF, a.ctx) == (b.r0 & 0xFFFFFFFF, b.ctx)
    return type(a) is type(b) or not isinstance(a, Returned)


def _taken_for_dead(facts: TextFacts, linux: Sequence[Outcome]) -> Diagnosis | None:
    """Judge an image that is right with the code that our verifier leaves out of it.

    *linux* is what Linux's did, if it was asked: the same without that code blames its verifier.
    """
    numbers = [
        n
        for n, (whole, right, cut) in enumerate(
            zip(facts.legs["jit"], facts.legs["interp"], facts.cut, strict=False)
        )
        if isinstance(right, Returned) and _same(whole, right) and not _same(cut, right)
    ]
    if not numbers or (linux and not all(_same(facts.cut[n], linux[n]) for n in numbers)):
        return None
    vector = facts.text.vectors[numbers[0]]
    return taken_for_dead(facts.dead, vector, facts.note, linux=bool(linux))


def _between_ours(facts: TextFacts) -> Diagnosis | None:
    taken = _taken_for_dead(facts, ())
    if taken is not None:
        return taken
    for number, (a, b) in enumerate(zip(facts.legs["interp"], facts.legs["jit"], strict=False)):
        if isinstance(a, Returned) and isinstance(b, Returned) and not _same(a, b):
            detail = "interpreter and JIT disagree, and Linux did not decide"
            vector = facts.text.vectors[number]
            suspects = (JIT, INTERPRETER)
            return Diagnosis(UNDECIDED, detail, LOW, suspects=suspects, vector=vector)
    return None


def marked(facts: TextFacts) -> Mark:
    """Say at which instruction it shows."""
    linux = facts.linux
    if linux is None:
        return NO_MARK
    match linux.verdict:
        case Rejected(message=message) if message.startswith(BUG):
            # found after the walk: the last instruction that the log names means nothing
            ours = facts.verdict
            if isinstance(ours, Rejected) and ours.message == message and ours.insn is not None:
                return Mark(ours.insn, "it is about this instruction")
        case Rejected(insn=insn, message=message) if insn is not None:
            return Mark(insn, f"Linux stops here: {message}")
        case Crashed():
            for outcome in facts.legs["interp"]:
                where = re.match(r"slot (\d+): (.*)", getattr(outcome, "where", ""))
                if where:
                    why = f"the interpreter stops here ({where[2]}), and Linux's verifier breaks"
                    return Mark(int(where[1]), why)
        case Accepted():
            ruled_out = _ruled_out(facts, linux)
            if ruled_out is not None:
                vector, belief = ruled_out
                outcome = linux.outcomes[facts.text.vectors.index(vector)]
                assert isinstance(outcome, Returned)
                return Mark(belief.insn, belief.against(outcome))
    return NO_MARK


# --- reduction ----------------------------------------------------------------------


def _reduced(
    bench: TextBench, start: Text, facts: TextFacts, most: int, tell: Tell
) -> tuple[Text, int]:
    """Return a small text that Linux is still wrong about in the same way, and the attempts.

    Where our verifier says of the text what Linux does, it is asked in Linux's place, and
    Linux about what comes out.
    """
    assert facts.linux is not None
    wanted, ours, runs = _shape(facts), _ours(facts.verdict), _returns(facts)
    accepted = isinstance(facts.linux.verdict, Accepted)
    batch = 1 if isinstance(facts.linux.verdict, Crashed) else BATCH
    tried = questions = 0

    def alike(texts: Sequence[Text]) -> Sequence[bool]:
        nonlocal tried
        tried += len(texts)
        tell(f"reduce: {tried} attempts")
        seen = look(bench, texts, ask=False, run=False)
        good = [_ours(found.verdict) == ours for found in seen]
        if not runs or isinstance(facts.verdict, Accepted):
            return good
        # what the interpreter takes to the end must stay so: it is how a refusal is known wrong
        left = [n for n, fits in enumerate(good) if fits]
        for number, found in zip(
            left, look(bench, [texts[n] for n in left], ask=False), strict=True
        ):
            good[number] = _returns(found)
        return good

    rounds = ATTEMPTS // TEXTS
    if not isinstance(facts.verdict, Accepted):
        small = shrink(start, alike, batch=TEXTS, rounds=rounds)
        (found,) = look(bench, [small])
        if _shape(found) == wanted:
            return small, tried

    def interesting(texts: Sequence[Text]) -> Sequence[bool]:
        """Ask Linux about those that ours is alike about, until one is good: it is taken."""
        nonlocal questions
        good = [False] * len(texts)
        left = [n for n, fits in enumerate(alike(texts)) if fits]
        for at in range(0, len(left), batch):
            if questions == most:
                break
            questions += 1
            chunk = left[at : at + batch]
            asked = look(bench, [texts[n] for n in chunk], log=accepted)
            for number, found in zip(chunk, asked, strict=True):
                good[number] = _shape(found) == wanted
            if any(good):
                break
        return good

    return shrink(start, interesting, batch=TEXTS, rounds=rounds), tried


def _ours(verdict: Verdict) -> tuple[type, str]:
    """Return what ours makes of it, without numbers: texts that differ in it are not tried."""
    match verdict:
        case Rejected(message=words) | Unknown(why=words):
            return type(verdict), general(words)
    return type(verdict), ""


def _shape(facts: TextFacts) -> tuple[object, ...]:
    """Return what a shorter text must keep."""
    diagnosis = judge(facts)
    told = general(diagnosis.detail)
    if diagnosis.cause == LINUX_VERIFIER and isinstance(facts.verdict, Accepted):
        told = told.partition(":")[0]
    return diagnosis.cause, told, diagnosis.confidence
