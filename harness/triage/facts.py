"""What the experiments found, and what can be concluded: the words of a triage."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.compare import agree
from harness.model import (
    Accepted,
    BuildConfig,
    Mask,
    Outcome,
    Program,
    Rejected,
    Unknown,
    Vector,
    Verdict,
)
from harness.pipeline import Plan
from harness.triage.assembly import Mismatch
from harness.triage.experiments import Built, Subject

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
KINDS = {WRONG_CODE: "divergence", CRASH: "compile_error", REFUSED: "reject"}  # in known.toml
CERTAIN, HIGH, MEDIUM, LOW = "certain", "high", "medium", "low"

NO_MASK = Mask(b"")


@dataclass(frozen=True, slots=True)
class Linux:
    """What a real Linux says to a program, and does with it."""

    verdict: Verdict
    outcomes: Sequence[Outcome] = ()  # one for each vector
    images: tuple[tuple[str, bytes], ...] = ()  # name and code of each function


Kernel = Callable[[Program, Sequence[Vector]], Linux]
"""A real Linux that can be asked."""


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
        return self.cause, general(self.detail)


def general(text: str) -> str:
    """Return *text* without its numbers, and without the names of our scratch folders."""
    return re.sub(r"0x[0-9a-f]+|\d+", "N", ours_left_out(text))


def ours_left_out(text: str) -> str:
    """Return *text* without the names of our scratch folders."""
    return re.sub(r"/\S*/crosscheck-\w+/", "", text)


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
    kernel: Linux | None = None
    log: list[Experiment] = field(default_factory=list)

    def note(self, name: str, result: str) -> None:
        """Add an experiment to the log, without the names of our scratch folders."""
        self.log.append(Experiment(name, ours_left_out(result)))

    @property
    def legs(self) -> dict[str, Sequence[Outcome]]:
        """The outcomes of our legs in the build in question."""
        return dict(self.built.legs or {})


def same_behaviour(a: Built, b: Built) -> bool:
    """Return whether two builds came to the same."""
    if (a.program is None) != (b.program is None) or type(a.verdict) is not type(b.verdict):
        return False
    return a.program is None or dict(a.legs or {}) == dict(b.legs or {})


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


def verdict_text(verdict: Verdict | None) -> str:
    """Return *verdict* for people."""
    match verdict:
        case Accepted():
            return "accepted"
        case Rejected(insn=None, message=message):
            return f"refused: {message}"
        case Rejected(insn=insn, message=message):
            return f"refused at {insn}: {message}"
        case Unknown(why=why):
            return f"unknown: {why}"
    return "not verified"


def built_text(built: Built) -> str:
    """Return what *built* came to, for people."""
    if built.program is None:
        return f"no program: {built.why}"
    return verdict_text(built.verdict)
