"""Programs of BPF text: verified, run on the legs that need no C, and compared."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import pipeline, verifier
from harness.compare import compare_all
from harness.corpus import Case, RunCheck, VerifyCheck
from harness.corpus import program as assemble
from harness.grow import features as shown_by
from harness.grow.buckets import FORGOTTEN, bucket, forgotten
from harness.grow.linux_faults import Asked, Doubt, confirmed, confirmed_by_ours, low
from harness.grow.linux_faults import doubts as doubted
from harness.grow.placing import by_place
from harness.interp import STACK_SIZE
from harness.model import (
    Accepted,
    Divergence,
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
)
from harness.pipeline import Check, Linux, Settings
from harness.source.produce import Stream
from harness.verifier.state import SCALAR

RUNS = 4  # vectors that a case keeps
CONTEXT = 4096  # bytes behind a vector, which is more than programs get at
STACKS = 8  # contents that unwritten stack memory is given, to see whether it matters


@dataclass(frozen=True, slots=True)
class Kept:
    """A finding in BPF text: a case that shows it, and its bucket."""

    case: Case
    bucket: str
    outcome: str
    stream: Stream
    doubts: tuple[Doubt, ...] = ()  # what Linux is to be asked about before it is new

    def settled(self, answers: Iterator[Linux]) -> Kept:
        """Return the finding with the next of *answers* to its doubts: all it comes from."""
        faults = [doubt.fault for doubt in self.doubts if confirmed(doubt, next(answers))]
        return replace(self, bucket=", ".join([self.bucket, *faults]), doubts=())


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of one program."""

    outcome: str  # as of a Check
    features: set[str]
    vectors: int
    refusal: str = ""  # the message of ours
    kept: Kept | None = None
    verdict: Verdict = field(default_factory=Accepted)
    agreed: tuple[Outcome, ...] = ()  # of the first vectors


def assembled(stream: Stream, number: int) -> Program | None:
    """Return the program of *stream*, None where its text is none."""
    try:
        return assemble(stream.text, f"p{number}")
    except HarnessError:
        return None


def judge(stream: Stream, program: Program, settings: Settings, linux: Linux | None) -> Judged:
    """Verify *program*, run it, and compare its legs, and the verdict with that of Linux."""
    options = verifier.Options(budget=settings.budget)
    verification = verifier.verify(program, log_level=0, options=options)
    verdict = verification.verdict
    features = shown_by.verifier_features(verification)
    refusal = verdict.message if isinstance(verdict, Rejected) else ""
    vectors = stream.vectors if isinstance(verdict, Accepted) else ()
    dead = verification.dead
    legs, whys, image = pipeline.run_legs_and_image(program, vectors, settings, dead)
    features |= shown_by.code_features(program, image, dead)
    check = Check("grow.toml", program.name, None, "agree", vectors=len(vectors))
    found: Sequence[Divergence] = ()
    if linux is not None:
        if pipeline.verdicts_differ(verdict, linux.verdict):
            check = pipeline.verdict_check(check, verdict, linux.verdict)
            found = check.divergences
        elif vectors and linux.outcomes:
            legs["kernel"] = linux.outcomes
    exits = {event for event in verification.events if event.startswith("exit ")}
    if exits - {f"exit {SCALAR}"}:  # it returns an address, which no two legs share
        legs = {leg: [_no_r0(outcome) for outcome in told] for leg, told in legs.items()}
    if not found:
        seen = {leg: [low(o) for o in told] for leg, told in legs.items()} if linux else legs
        all_found = compare_all(seen, vectors)
        found = [
            one
            for at, one in all_found
            if not by_place(program, one, dead)
            and not reads_unwritten(program, vectors[at])
            and not reads_beyond(program, vectors[at])
        ]
        if all_found and not found:  # what it reads there is for no leg to say
            return Judged("unknown", features, len(vectors))
    if found:
        why = check.detail
        check = Check("grow.toml", program.name, None, "diverge", detail=why, divergences=(*found,))
        case = case_of(stream, verdict, linux, found[0])
        doubts: tuple[Doubt, ...] = ()
        causes: list[str] = []
        if "verifier" not in found[0].legs:
            lost = forgotten(program, found, seen=low) if linux else forgotten(program, found)
            causes = [FORGOTTEN] if lost else []
        if not causes:
            asked = Asked(program, verification, linux.verdict if linux else verdict, vectors)
            doubts = doubted(asked, settings.budget)
        if linux is None:  # ours does as Linux does: the image shows it, too
            causes += [doubt.fault for doubt in doubts if confirmed_by_ours(doubt)]
            doubts = ()
        kept = Kept(case, f"BPF text {bucket(check, causes)}", "diverge", stream, doubts)
        return Judged("diverge", features, len(vectors), refusal, kept)
    if isinstance(verdict, Rejected):
        return Judged("rejected", features, 0, refusal, verdict=verdict)
    if isinstance(verdict, Unknown) or whys or len(legs) < 2:
        return Judged("unknown", features, len(vectors))
    agreed = tuple(next(iter(legs.values()))[:RUNS])
    return Judged("agree", features, len(vectors), agreed=agreed)


def reads_unwritten(program: Program, vector: Vector) -> bool:
    """Return whether what *program* does hangs on stack memory that nobody has written.

    A privileged program may read it, and what is there differs from leg to leg. Generated
    programs do not; those that mutation makes of them may. Each leg that runs it must say so:
    one that stores to a wrong place would read what it has not written, too.
    """
    rng = random.Random(len(program.insns))
    stacks = [rng.randbytes(STACK_SIZE) for _ in range(STACKS)]
    told = [pipeline.execute_over(program, leg, vector, stacks) for leg in ("interp", "jit")]
    return all(len(set(map(repr, each))) > 1 for each in told if each)


def reads_beyond(program: Program, vector: Vector) -> bool:
    """Return whether *program* gets at more context than *vector* has.

    Linux runs no program on a context that is shorter than what it gets at.
    """
    shorter, longer = pipeline.execute(program, "interp", [vector, vector + bytes(CONTEXT)])
    return isinstance(shorter, Trapped) and shorter.kind == "access" and longer != shorter


def _no_r0(outcome: Outcome) -> Outcome:
    return replace(outcome, r0=0) if isinstance(outcome, Returned) else outcome


def case_of(stream: Stream, verdict: Verdict, linux: Linux | None, divergence: Divergence) -> Case:
    """Return a case that shows *divergence*: it expects what the first leg said, or Linux."""
    if "verifier" in divergence.legs and linux is not None:
        return Case(Path("grow.toml"), program=stream.text, verify=_verify(linux.verdict))
    run = _run(divergence.vector, divergence.outcomes[0])
    return Case(
        Path("grow.toml"), program=stream.text, verify=_verify(verdict), runs=(run,) if run else ()
    )


def kept_case(stream: Stream, seen: Judged, path: Path) -> Case:
    """Return a case of the corpus that expects what *stream* does today."""
    runs = [
        run
        for vector, outcome in zip(stream.vectors, seen.agreed, strict=False)
        if (run := _run(vector, outcome)) is not None
    ]
    return Case(path, program=stream.text, verify=_verify(seen.verdict), runs=tuple(runs))


def _verify(verdict: Verdict) -> VerifyCheck:
    match verdict:
        case Rejected(message=message):
            return VerifyCheck("reject", message)
        case Unknown(why=why):
            return VerifyCheck("unknown", why)
    return VerifyCheck("accept")


def _run(vector: bytes, outcome: object) -> RunCheck | None:
    match outcome:
        case Returned(r0=r0, ctx=ctx):
            return RunCheck(vector, "returned", r0, None if ctx == vector else ctx)
        case Trapped():
            return RunCheck(vector, "trapped")
        case OutOfFuel():
            return RunCheck(vector, "fuel")
    return None
