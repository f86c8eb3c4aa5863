"""A batch, in a worker: programs are made, built, verified, run and compared.

A batch is a number: which programs it has, and how they are built, follows from it, the seed
and the parents, so that a batch that was lost is simply done again.

With the leg `kernel` a batch is done in two halves: between them Linux is asked.
"""

from __future__ import annotations

import errno
import os
import pickle
import random
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from harness.findings import Finding
from harness.grow import streams
from harness.grow.features import general
from harness.grow.linux_faults import Doubt
from harness.grow.units import (
    Member,
    Natives,
    Unit,
    compile_units,
    finding,
    inner,
    judge,
    judgement_features,
    member,
    native_outcomes,
    passing,
)
from harness.model import MCPUS, BuildConfig, HarnessError, Program, Vector
from harness.pipeline import Linux, Settings
from harness.source import produce
from harness.source.produce import C, Parents, Stream
from harness.source.tree import Function, closure

PROGRAMS = 64  # of a batch, unless a campaign says otherwise
BUILDS = 2  # of a batch
# -O0 has frames so large that few chains of calls fit 512 bytes: it comes up less often.
OPTS = ("0", "1", "1", "2", "2", "2", "2", "3", "3", "s", "s")
NATIVE_OPTS = (1, 2, 2, 3)  # one of them beside -O0
STREAMS = 0.15  # batches of BPF text
FEW = 4  # vectors that the slow interpreter runs
BUDGET = 20_000  # instructions that the verifier may look at, of one program


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one program of a batch."""

    number: int
    features: frozenset[str]
    builds: tuple[tuple[BuildConfig, frozenset[str]], ...] = ()  # those that agreed, their features
    agreed: bool = False  # of BPF text: its legs agree
    findings: tuple[Finding, ...] = ()
    texts: tuple[streams.Kept, ...] = ()  # findings in BPF text


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What came of a batch."""

    number: int
    programs: int
    builds: int  # functions x builds
    vectors: int
    outcomes: Mapping[str, int]  # by outcome
    refusals: Mapping[str, int]  # by message, numbers left out
    seen: tuple[Seen, ...]
    seconds: float  # of the worker
    lost: str = ""  # why there is nothing else
    streams: int = 0  # how many of the programs are BPF text
    functions: int = 0  # functions under test of the others
    process: int = 0  # the worker
    memory: int = 0  # bytes that it holds

    @property
    def doubts(self) -> list[Doubt]:
        """What Linux is to be asked about before it is said what its verdicts come from."""
        return [doubt for seen in self.seen for text in seen.texts for doubt in text.doubts]

    def settled(self, answers: Sequence[Linux]) -> BatchResult:
        """Return the result with *answers* to its doubts: buckets name what is confirmed."""
        told = iter(answers)
        seen = [
            replace(one, texts=tuple(text.settled(told) for text in one.texts)) for one in self.seen
        ]
        return replace(self, seen=tuple(seen))


@dataclass(frozen=True, slots=True)
class Order:
    """What a batch is made from."""

    number: int
    programs: int
    seed: int
    settings: Settings
    parents: bytes = b""  # pack_parents; empty: none


def pack_parents(parents: Parents) -> bytes:
    """Return *parents* as bytes, for workers that share nothing with us."""
    return zlib.compress(pickle.dumps(parents), 6)


@lru_cache(maxsize=1)
def _parents(data: bytes) -> Parents:
    return pickle.loads(zlib.decompress(data)) if data else Parents()


@lru_cache(maxsize=1)
def _known_functions(data: bytes) -> frozenset[tuple[Function, ...]]:
    """Return the functions of the parents, each with all that it calls."""
    return frozenset(closure(one, f) for one in _parents(data).trees for f in one.functions)


def parents_of(order: Order) -> Parents:
    """Return what mutation in the campaign of *order* starts from."""
    return _parents(order.parents)


# --- what a batch has --------------------------------------------------------


def batch_c(order: Order) -> list[tuple[int, C]]:
    """Return the C programs of a batch, by their number."""
    first = order.number * order.programs
    numbers = range(first, first + order.programs)
    parents = parents_of(order)
    return [(number, produce.c_program(order.seed, number, parents)) for number in numbers]


def batch_streams(order: Order) -> list[tuple[int, Stream]]:
    """Return the programs of a batch of BPF text; none: it is a batch of C."""
    if random.Random(f"kind:{order.seed}:{order.number}").random() >= STREAMS:
        return []
    first = order.number * order.programs
    parents = parents_of(order)
    made = (
        (number, produce.stream(order.seed, number, parents))
        for number in range(first, first + order.programs)
    )
    return [(number, stream) for number, stream in made if stream is not None]


def batch_configs(seed: int, batch: int, compiler: str) -> tuple[BuildConfig, ...]:
    """Return the builds of a batch."""
    rng = random.Random(f"builds:{seed}:{batch}")
    chosen: dict[BuildConfig, None] = {}
    while len(chosen) < BUILDS:
        linkage = "static" if rng.random() < 0.2 else "hidden"
        chosen[BuildConfig(compiler, rng.choice(OPTS), rng.choice(MCPUS), linkage)] = None
    return tuple(chosen)


def batch_settings(order: Order) -> Settings:
    """Return the settings of a batch: its native builds, and bounds on time."""
    rng = random.Random(f"native:{order.seed}:{order.number}")
    opts = (0, rng.choice(NATIVE_OPTS))
    budget = order.settings.budget or BUDGET
    return replace(order.settings, native_opts=opts, budget=budget, interp_vectors=FEW)


def groups(
    configs: Sequence[BuildConfig], programs: Sequence[tuple[int, C]]
) -> Iterator[tuple[BuildConfig, list[int]]]:
    """Yield each build with the programs that can be built so: the others go to a near one."""
    for config in configs:
        found: dict[BuildConfig, list[int]] = {}
        for number, one in programs:
            near = replace(config, mcpu=max(config.mcpu, one.mcpu))
            if config.linkage not in one.linkages:
                near = replace(near, linkage=one.linkages[0])
            if config.opt not in one.opts:
                near = replace(near, opt=one.opts[0])
            found.setdefault(near, []).append(number)
        yield from found.items()


# --- a whole batch ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Half:
    """A batch whose programs Linux is to be asked about."""

    order: Order
    seconds: float
    settings: Settings
    members: Mapping[int, Member] = field(default_factory=dict)
    natives: Natives = field(default_factory=Natives)
    units: tuple[Unit, ...] = ()
    texts: tuple[tuple[int, Stream, Program], ...] = ()

    @property
    def questions(self) -> list[tuple[Program, Sequence[Vector]]]:
        """The programs to ask about, with their vectors."""
        found = [item for unit in self.units for item in unit.programs]
        return found + [(program, stream.vectors) for _, stream, program in self.texts]


def check_batch(order: Order) -> BatchResult:
    """Generate, build, verify, run and compare the programs of a batch."""
    half = build_batch(order)
    return half if isinstance(half, BatchResult) else judge_batch(half, [])


def build_batch(order: Order) -> Half | BatchResult:
    """Do the first half of a batch: what takes compilers."""
    began = time.monotonic()
    os.environ["CROSSCHECK_NO_CACHE"] = "1"  # no program comes twice
    try:
        half = _build(order)
    except Exception as fault:
        return faulty(order, fault, began)
    return replace(half, seconds=time.monotonic() - began)


def judge_batch(half: Half, answers: Sequence[Linux]) -> BatchResult:
    """Do the second half of a batch, with *answers* to its questions, if Linux was asked."""
    began = time.monotonic()
    try:
        result = _judge_texts(half, answers) if half.texts else _judge(half, answers)
    except Exception as fault:
        return faulty(half.order, fault, began)
    return replace(
        result,
        seconds=half.seconds + time.monotonic() - began,
        process=os.getpid(),
        memory=resident(),
    )


def resident() -> int:
    """Return the bytes of memory this process holds."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        return 0


def faulty(order: Order, fault: Exception, began: float) -> BatchResult:
    """Return a batch lost to a fault of ours; what would end every batch ends the campaign."""
    if isinstance(fault, HarnessError):
        raise fault
    if isinstance(fault, OSError) and fault.errno in _FULL:
        where = fault.filename or os.environ.get("TMPDIR", "/tmp")
        raise HarnessError(
            f"{where}: {fault.strerror}: make room, or name another folder in $TMPDIR, "
            "and go on with --resume"
        ) from None
    places = traceback.extract_tb(fault.__traceback__)[-1:]
    at = "".join(f" ({os.path.basename(place.filename)}:{place.lineno})" for place in places)
    why = f"{type(fault).__name__}: {fault}{at}"
    return BatchResult(order.number, 0, 0, 0, {}, {}, (), time.monotonic() - began, why)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE, errno.ENOMEM)


def _build(order: Order) -> Half:
    settings = batch_settings(order)
    texts = tuple(
        (number, stream, program)
        for number, stream in batch_streams(order)
        if (program := streams.assembled(stream, number)) is not None
    )
    if texts:
        return Half(order, 0.0, settings, texts=texts)
    programs = batch_c(order)
    known = _known_functions(order.parents)
    members = {n: member(n, one, settings, inner=inner(one, known)) for n, one in programs}
    natives = native_outcomes(list(members.values()), settings)
    units = [
        unit
        for compiler in settings.compilers
        for config, numbers in groups(
            batch_configs(order.seed, order.number, compiler.name), programs
        )
        for unit in compile_units([members[n] for n in numbers], config, settings, natives)
    ]
    return Half(order, 0.0, settings, members, natives, tuple(units))


def _judge(half: Half, answers: Sequence[Linux]) -> BatchResult:
    order, members, told = half.order, half.members, iter(answers)
    outcomes: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    features = {n: passing(one.program) for n, one in members.items()}
    agreed: dict[int, list[tuple[BuildConfig, frozenset[str]]]] = {n: [] for n in members}
    found: dict[int, list[Finding]] = {n: [] for n in members}
    builds = vectors = 0
    for unit in half.units:
        linux = {program.name: one for (program, _), one in zip(unit.programs, told, strict=False)}
        for seen in judge(unit, members, half.settings, half.natives, linux):
            check, number = seen.check, seen.number
            builds += 1
            vectors += check.vectors
            outcomes[check.outcome] += 1
            shown = judgement_features(seen, members[number])
            features[number] |= shown
            if check.outcome == "rejected":
                refusals[general(check.detail)] += 1
            if check.outcome == "agree":
                if seen.target.program is members[number].program:
                    agreed[number].append((unit.config, frozenset(shown)))
            else:
                found[number].append(finding(seen, half.settings, order.seed))
    kept = tuple(
        Seen(n, frozenset(features[n]), tuple(agreed[n]), findings=tuple(found[n])) for n in members
    )
    functions = sum(len(one.targets) for one in members.values())
    return BatchResult(
        order.number,
        len(members),
        builds,
        vectors,
        outcomes,
        refusals,
        kept,
        0.0,
        functions=functions,
    )


def _judge_texts(half: Half, answers: Sequence[Linux]) -> BatchResult:
    outcomes: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    told = iter(answers)
    vectors = 0
    kept = []
    for number, stream, program in half.texts:
        seen = streams.judge(stream, program, half.settings, next(told, None))
        vectors += seen.vectors
        outcomes[seen.outcome] += 1
        if seen.refusal:
            refusals[general(seen.refusal)] += 1
        texts = (seen.kept,) if seen.kept else ()
        good = seen.outcome in ("agree", "rejected")
        kept.append(Seen(number, frozenset(seen.features), (), good, (), texts))
    count = len(half.texts)
    return BatchResult(
        half.order.number, count, 0, vectors, outcomes, refusals, tuple(kept), 0.0, streams=count
    )
