"""The ``grow`` verb: a campaign of generated programs, and what it keeps.

Work is cut into batches. A batch is a number: which programs it has, and how they are built,
follows from it and the seed, so that a batch that was lost is simply done again. Its workers
hand back what they saw; the campaign's own process alone writes: first files (a finding, a
case), whose names follow from the batch as well, then one transaction that says the batch is
done. So a campaign killed at any moment goes on with nothing lost and nothing twice.

Feedback is a set of features, short texts: pairs of opcodes, forms the JIT emitted, verdicts,
and patterns of passing (type, place, what is passed). A program that shows a new one is
shrunk as long as it shows it, and becomes a case of the corpus.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import corpus, findings, pipeline
from harness.corpus import Case, Known, SourceText
from harness.findings import Finding
from harness.jit import x86_64
from harness.model import BuildConfig, HarnessError, Image, Outcome, Program
from harness.pipeline import Check, Plan, Settings
from harness.run import Step, work
from harness.source import driver, tree
from harness.source.generate import generate, signature
from harness.source.layout import Layout, layout
from harness.source.printing import print_file
from harness.source.shrink import shrink
from harness.source.tree import PointerType, StructType, Tree, slots_of
from harness.verifier import fixup

PROGRAMS = 16  # of a batch, unless a campaign says otherwise: one compiler call each build
BUILDS = 2  # of a batch
ROUNDS = 8  # compiler calls that shrinking a new case may take
SHRINK_ROUNDS = 40  # the same, for the representative of a bucket
PATIENCE = 30.0  # seconds that one shrinking may take: the campaign goes on meanwhile
# -O0 has frames so large that few chains of calls fit 512 bytes: it comes up less often.
OPTS = ("0", "1", "1", "2", "2", "2", "2", "3", "3", "s", "s")
CPUS = ("v1", "v2", "v3", "v4")
FORMAT = 1  # of the state


@dataclass(frozen=True, slots=True)
class Campaign:
    """What a campaign does."""

    settings: Settings
    folder: Path  # findings and state
    seed: int = 0
    count: int | None = None  # programs; None: until *seconds* are over
    seconds: float | None = None
    corpus: Path | None = None  # where new cases go; None: nowhere
    keep: int = 100  # new cases at most
    known: tuple[Known, ...] = ()
    jobs: int = 1
    resume: bool = False
    batch: int = PROGRAMS  # programs of a batch


@dataclass(frozen=True, slots=True)
class Over:
    """A step that was not begun, because the campaign's time was over."""


def in_time(until: float | None, call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what *call* returns, or Over after *until* (monotonic, the same in all processes)."""
    if until is not None and time.monotonic() >= until:
        return Over()
    return call(*arguments)


# --- a batch, in a worker ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one program of a batch."""

    number: int
    features: frozenset[str]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What came of a batch."""

    number: int
    programs: int
    builds: int  # programs x builds
    vectors: int
    outcomes: Mapping[str, int]  # by outcome
    refusals: Mapping[str, int]  # by message, numbers left out
    seen: tuple[Seen, ...]
    seconds: float  # of the worker
    lost: str = ""  # why there is nothing else


def batch_trees(seed: int, batch: int, programs: int) -> list[tuple[int, Tree]]:
    """Return the *programs* of a batch, by their number."""
    first = batch * programs
    return [(number, generate(seed, number)) for number in range(first, first + programs)]


def batch_configs(seed: int, batch: int, compiler: str) -> tuple[BuildConfig, ...]:
    """Return the builds of a batch."""
    rng = random.Random(f"builds:{seed}:{batch}")
    chosen: dict[BuildConfig, None] = {}
    while len(chosen) < BUILDS:
        linkage = "static" if rng.random() < 0.2 else "hidden"
        chosen[BuildConfig(compiler, rng.choice(OPTS), rng.choice(CPUS), linkage)] = None
    return tuple(chosen)


def check_batch(batch: int, programs: int, seed: int, settings: Settings) -> BatchResult:
    """Generate, build, verify, run and compare the programs of *batch*."""
    began = time.monotonic()
    os.environ["CROSSCHECK_NO_CACHE"] = "1"  # no program comes twice
    trees = batch_trees(seed, batch, programs)
    outcomes: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    features: dict[int, set[str]] = {n: passing(t) for n, t in trees}
    found: dict[int, list[Finding]] = {n: [] for n, _ in trees}
    builds = vectors = 0
    natives = native_outcomes(trees, settings)
    by_number = dict(trees)
    for compiler in settings.compilers:
        for config, members in _groups(batch_configs(seed, batch, compiler.name), trees):
            for number, check, more in check_trees(members, config, settings, natives):
                builds += 1
                vectors += check.vectors
                outcomes[check.outcome] += 1
                features[number] |= more
                if check.outcome == "rejected":
                    refusals[general(check.detail)] += 1
                if check.outcome != "agree":
                    one = by_number[number]
                    found[number].append(finding(one, number, check, settings, seed))
    seen = tuple(Seen(n, frozenset(features[n]), tuple(found[n])) for n, _ in trees)
    return BatchResult(
        batch,
        len(trees),
        builds,
        vectors,
        outcomes,
        refusals,
        seen,
        time.monotonic() - began,
    )


def _groups(
    configs: Sequence[BuildConfig], trees: Sequence[tuple[int, Tree]]
) -> Iterator[tuple[BuildConfig, list[tuple[int, Tree]]]]:
    """Yield each build with the programs that can be built so: the others go to a near one."""
    for config in configs:
        groups: dict[BuildConfig, list[tuple[int, Tree]]] = {}
        for number, one in trees:
            near = replace(config, mcpu=max(config.mcpu, one.mcpu))
            if config.linkage not in one.linkages:
                near = replace(near, linkage=one.linkages[0])
            if config.opt not in one.opts:
                near = replace(near, opt=one.opts[0])
            groups.setdefault(near, []).append((number, one))
        yield from groups.items()


def name_of(number: int) -> str:
    """Return the prefix of program *number*'s names."""
    return f"p{number}_"


@dataclass(frozen=True, slots=True)
class Natives:
    """What the native builds did, by function, and why some have none."""

    outcomes: Mapping[str, Mapping[str, Sequence[Outcome]]]
    whys: Mapping[str, str]


def native_outcomes(trees: Sequence[tuple[int, Tree]], settings: Settings) -> Natives:
    """Run the native builds of *trees*, which are one file; one that fails is left out."""
    if "native" not in settings.legs:
        return Natives({}, {})
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as folder:
        planned = _plan(Path(folder), trees, settings)
        outcomes, why = pipeline.native_outcomes(planned, settings)
    if not why:
        return Natives(outcomes, {})
    if len(trees) == 1:
        ((number, one),) = trees
        return Natives({}, {name_of(number) + one.root.name: why})
    half = len(trees) // 2
    a, b = (native_outcomes(part, settings) for part in (trees[:half], trees[half:]))
    return Natives({**a.outcomes, **b.outcomes}, {**a.whys, **b.whys})


def check_trees(
    trees: Sequence[tuple[int, Tree]],
    config: BuildConfig,
    settings: Settings,
    natives: Natives,
    *,
    features: bool = True,
) -> Iterator[tuple[int, Check, set[str]]]:
    """Yield what came of each of *trees* in the build *config*, and the *features* it shows.

    They are one file. One that does not compile must not take the others with it: then the
    file is halved.
    """
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as folder:
        planned = _plan(Path(folder), trees, settings)
        planned = replace(planned, natives=natives.outcomes)
        built = pipeline.compile_build(planned, config, settings)
        if not built.data and len(trees) > 1:
            half = len(trees) // 2
            for part in (trees[:half], trees[half:]):
                yield from check_trees(part, config, settings, natives, features=features)
            return
        checks = {c.function: c for c in pipeline.check_built(built, settings)}
        programs = (
            {p.name: p for p, _ in pipeline.built_programs(built, settings)} if features else {}
        )
    for number, one in trees:
        function = name_of(number) + one.root.name
        check = checks[function]
        why = natives.whys.get(function)
        if why and check.outcome == "agree":
            check = replace(check, outcome="unknown", detail=why)
        shown = {f"verdict {check.verdict} {general(check.detail)}"}
        program = programs.get(driver.entry(function))
        if program is not None:
            shown |= code_features(program)
        yield number, check, shown


def _plan(folder: Path, trees: Sequence[tuple[int, Tree]], settings: Settings) -> Plan:
    path = folder / "grow.c"
    path.write_text(print_file([(name_of(n), t) for n, t in trees]), encoding="utf-8")
    places = []
    for number, one in trees:
        place = layout(signature(one, name_of(number)))
        if not isinstance(place, Layout):
            raise HarnessError(f"program {number} has no driver: {place.why}")
        places.append(place)
    vectors = {p.signature.name: pipeline.vectors_of(p, settings) for p in places}
    return Plan("grow.c", path, layouts=tuple(places), vectors=vectors)


def finding(one: Tree, number: int, check: Check, settings: Settings, seed: int) -> Finding:
    """Return *check* of program *number* as a finding that stands alone."""
    assert check.config is not None
    compiler = settings.compiler(check.config.compiler)
    return Finding(
        c=print_file([(name_of(number), one)]),
        function=check.function,
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
        tree=tree.to_json(one),
        bucket=bucket(one, check),
    )


# --- features and buckets -----------------------------------------------------


def general(text: str) -> str:
    """Return a message without its numbers and names, which differ from program to program."""
    text = re.sub(r"p\d+_", "", text)
    text = re.sub(r"0x[0-9a-fA-F]+|\b[0-9]+\b", "N", text)
    return re.sub(r"(?<=\bR)\d+|(?<=arg)\d+", "N", text)[:160]


def passing(one: Tree) -> set[str]:
    """Return the patterns of passing in *one*: type, place and what is passed."""
    out = set()
    functions = {f.name: f for f in one.functions}
    for node in tree.walk(one):
        if not isinstance(node, tree.Call):
            continue
        at = 0
        callee = functions[node.function]
        for parameter, argument in zip(callee.parameters, node.arguments, strict=True):
            kind = parameter.type
            at += slots_of(kind)
            place = f"r{at}" if at <= 5 else f"slot{at - 5}"
            out.add(f"passing {_kind(kind)} {place} {type(argument).__name__}")
    return out


def _kind(kind: tree.Type) -> str:
    match kind:
        case PointerType(target=StructType()):
            return "pointer-to-struct"
        case PointerType(target=target, const=const):
            return f"pointer-to-{'const-' if const else ''}{target.name}"
        case StructType(union=union):
            return f"{'union' if union else 'struct'}{tree.size_of(kind)}"
        case tree.EnumType():
            return "enum"
        case tree.IntType(name=name):
            return name
    return "array"


def code_features(program: Program) -> set[str]:
    """Return the pairs of opcodes of *program*, and the forms its image has."""
    out: set[str] = set()
    names = [_opcode(insn) for insn in program.insns]
    out.update(f"pair {a}, {b}" for a, b in pairwise(names))
    image = x86_64.compile(fixup(program))
    if not isinstance(image, Image):
        return out
    slot = 0
    for sub in image.subprograms:
        ends = (*sub.addrs[1:], len(sub.code))
        for start, end in zip(sub.addrs, ends, strict=True):
            if slot < len(names):
                out.add(f"jit {names[slot]} {min(end - start, 32)}")
            slot += 1
    return out


def _opcode(insn: object) -> str:
    parts = [type(insn).__name__]
    for name in ("op", "bits", "size", "kind"):
        value = getattr(insn, name, None)
        if value is not None:
            parts.append(str(value))
    if getattr(insn, "src", 0) is None:
        parts.append("imm")
    if 11 in (getattr(insn, "dst", None), getattr(insn, "src", None)):
        parts.append("r11")
    return "-".join(parts)


def bucket(one: Tree, check: Check) -> str:
    """Return the signature that findings of one cause share, as far as one can tell."""
    config = check.config
    assert config is not None
    if check.outcome != "diverge" or not check.divergences:
        return f"{check.outcome}: {general(check.detail)}"
    first = check.divergences[0]
    legs = sorted({leg.partition("-")[0] for leg in first.legs})
    effect = "context" if first.offset is not None else "r0"
    kinds = sorted({type(o).__name__.lower() for o in first.outcomes})
    level = "unoptimised" if config.opt == "0" else "optimised"
    width = "32-bit registers" if config.mcpu >= "v3" else "64-bit registers"
    parts = ["-".join(legs), "/".join(kinds), effect, level, width, *suspects(one)]
    return "diverge: " + ", ".join(parts)


def suspects(one: Tree) -> list[str]:
    """Return constructs of *one* that are known to trouble compilers."""
    out = []
    for function in one.functions:
        at = 0
        for parameter in function.parameters:
            kind = parameter.type
            at += slots_of(kind)
            if at > 5 and kind in (tree.S8, tree.S16):
                out.append("narrow signed argument in a slot")
    return sorted(set(out))


# --- shrinking, in a worker ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewCase:
    """A program that showed features nothing had shown, made small."""

    number: int
    tree: Tree
    config: BuildConfig
    features: frozenset[str]


@dataclass(frozen=True, slots=True)
class Representative:
    """The finding of a bucket, made small."""

    bucket: str
    finding: Finding


def shrink_case(
    number: int, seed: int, wanted: frozenset[str], config: BuildConfig, settings: Settings
) -> NewCase | None:
    """Return program *number* made small as long as it shows *wanted*; None: it agrees not."""
    os.environ["CROSSCHECK_NO_CACHE"] = "1"
    settings = replace(settings, legs=("interp", "jit"), vectors=8)

    def shows(trees: Sequence[Tree]) -> list[bool]:
        members = [(n, t) for n, t in enumerate(trees) if wanted <= passing(t)]
        good = [False] * len(trees)
        if members:
            none = Natives({}, {})
            for index, check, _ in check_trees(members, config, settings, none, features=False):
                good[index] = check.outcome == "agree"
        return good

    one = generate(seed, number)
    if not shows([one])[0]:
        return None
    return NewCase(number, shrink(one, shows, rounds=ROUNDS), config, wanted)


def shrink_finding(start: Finding, settings: Settings) -> Representative:
    """Return *start* made small as long as it falls into its bucket."""
    os.environ["CROSSCHECK_NO_CACHE"] = "1"
    smallest: dict[Tree, Check] = {}
    deadline = time.monotonic() + PATIENCE
    if start.outcome != "diverge":  # a verdict, or none: nothing needs to run
        settings = replace(settings, legs=("interp",), vectors=1)

    def same(trees: Sequence[Tree]) -> list[bool]:
        good = [False] * len(trees)
        if time.monotonic() > deadline:
            return good
        members = list(enumerate(trees))
        natives = native_outcomes(members, settings)
        for index, check, _ in check_trees(
            members, start.config, settings, natives, features=False
        ):
            good[index] = check.outcome == start.outcome and (
                bucket(trees[index], check) == start.bucket
            )
            if good[index]:
                smallest[trees[index]] = check
        return good

    one = tree.from_json(start.tree)
    small = shrink(one, same, rounds=SHRINK_ROUNDS)
    check = smallest.get(small)
    if check is None:
        return Representative(start.bucket, start)
    made = finding(small, 0, check, settings, 0)
    made = replace(made, source=start.source, legs=start.legs, vectors=start.vectors)
    return Representative(start.bucket, made)


# --- the state ----------------------------------------------------------------

_SCHEMA = """
CREATE TABLE IF NOT EXISTS campaign (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batch (
    number INTEGER PRIMARY KEY, programs INTEGER, builds INTEGER, vectors INTEGER,
    seconds REAL, lost TEXT);
CREATE TABLE IF NOT EXISTS outcome (name TEXT PRIMARY KEY, count INTEGER);
CREATE TABLE IF NOT EXISTS refusal (message TEXT PRIMARY KEY, count INTEGER);
CREATE TABLE IF NOT EXISTS feature (name TEXT PRIMARY KEY, batch INTEGER);
CREATE TABLE IF NOT EXISTS finding (file TEXT PRIMARY KEY, bucket TEXT, known TEXT, batch INTEGER);
CREATE TABLE IF NOT EXISTS bucket (name TEXT PRIMARY KEY, file TEXT, shrunk INTEGER);
CREATE TABLE IF NOT EXISTS kept (number INTEGER PRIMARY KEY, file TEXT);
"""


class State:
    """The campaign's SQLite file; every method is one transaction or none."""

    def __init__(self, path: Path, seed: int, batch: int, *, resume: bool) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not resume:
                raise HarnessError(f"{path}: a campaign is there: --resume, or another --findings")
            self.db = sqlite3.connect(path, isolation_level=None)
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.executescript(_SCHEMA)
            row = self.db.execute("SELECT value FROM campaign WHERE key = 'seed'").fetchone()
            if row is None:
                self.db.execute("BEGIN")
                self.db.execute("INSERT INTO campaign VALUES ('seed', ?)", (str(seed),))
                self.db.execute("INSERT INTO campaign VALUES ('batch', ?)", (str(batch),))
                self.db.execute("INSERT INTO campaign VALUES ('format', ?)", (str(FORMAT),))
                self.db.execute("COMMIT")
            values = dict(self.db.execute("SELECT key, value FROM campaign"))
            if values["format"] != str(FORMAT):
                raise HarnessError(f"{path}: of another version of crosscheck: another --findings")
            self.seed, self.batch = int(values["seed"]), int(values["batch"])
        except OSError as error:
            raise HarnessError(f"{path}: cannot be written: {error.strerror}") from None
        except sqlite3.Error as error:
            raise HarnessError(f"{path}: {error}") from None
        self.done = {n for (n,) in self.db.execute("SELECT number FROM batch")}
        self.features = {f for (f,) in self.db.execute("SELECT name FROM feature")}
        self.buckets = dict(self.db.execute("SELECT name, file FROM bucket"))
        self.kept = {n for (n,) in self.db.execute("SELECT number FROM kept")}

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Do all of the block or nothing of it."""
        try:
            self.db.execute("BEGIN IMMEDIATE")
            yield self.db
            self.db.execute("COMMIT")
        except sqlite3.Error as error:
            raise HarnessError(f"the campaign's state cannot be written: {error}") from None

    def add(self, result: BatchResult, files: Sequence[tuple[str, str, str | None]]) -> None:
        """Say that a batch is done; *files* are its findings: file, bucket, known as."""
        new = set().union(*(s.features for s in result.seen)) - self.features
        with self.transaction() as db:
            row = (
                result.number,
                result.programs,
                result.builds,
                result.vectors,
                result.seconds,
                result.lost,
            )
            db.execute("INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?)", row)
            for name, count in result.outcomes.items():
                _count(db, "outcome", "name", name, count)
            for message, count in result.refusals.items():
                _count(db, "refusal", "message", message, count)
            db.executemany(
                "INSERT OR IGNORE INTO feature VALUES (?, ?)", [(f, result.number) for f in new]
            )
            for file, name, known in files:
                db.execute(
                    "INSERT OR IGNORE INTO finding VALUES (?, ?, ?, ?)",
                    (file, name, known, result.number),
                )
                db.execute("INSERT OR IGNORE INTO bucket VALUES (?, ?, 0)", (name, file))
                self.buckets.setdefault(name, file)
        self.done.add(result.number)
        self.features |= new

    def keep(self, number: int, file: str) -> None:
        """Say that program *number* became the case in *file*."""
        with self.transaction() as db:
            db.execute("INSERT OR IGNORE INTO kept VALUES (?, ?)", (number, file))
        self.kept.add(number)

    def shrunk(self, name: str) -> None:
        """Say that a bucket's representative is as small as it gets."""
        with self.transaction() as db:
            db.execute("UPDATE bucket SET shrunk = 1 WHERE name = ?", (name,))

    def unshrunk(self) -> list[tuple[str, str]]:
        """Return the buckets, with their first finding, that no one made small yet."""
        return self.table(
            "SELECT bucket.name, bucket.file FROM bucket JOIN finding USING (file) "
            "WHERE shrunk = 0 AND known IS NULL"
        )

    def table(self, query: str) -> list[Any]:
        """Return the rows of *query*."""
        return self.db.execute(query).fetchall()

    def close(self) -> None:
        """Leave one file behind."""
        with contextlib.suppress(sqlite3.Error):
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.db.close()


def _count(db: sqlite3.Connection, table: str, key: str, name: str, count: int) -> None:
    db.execute(
        f"INSERT INTO {table} ({key}, count) VALUES (?, ?) "
        f"ON CONFLICT ({key}) DO UPDATE SET count = count + excluded.count",
        (name, count),
    )


# --- the campaign ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Summary:
    """What a campaign came to, all its sessions together."""

    seed: int
    programs: int
    builds: int
    vectors: int
    outcomes: Mapping[str, int]
    refusals: Mapping[str, int]
    features: int
    kept: int
    buckets: Mapping[str, tuple[int, str, str | None]]  # findings, representative, known as
    lost: int  # batches
    seconds: float  # of this session
    rate: float  # programs a second, this session

    @property
    def accepted(self) -> float:
        """Which part of the builds the verifier accepted."""
        refused = self.outcomes.get("rejected", 0) + self.outcomes.get("compile_error", 0)
        return 1 - refused / self.builds if self.builds else 0.0

    @property
    def ok(self) -> bool:
        """Whether every divergence is known."""
        return not any(
            known is None and name.startswith(("diverge", "compile_error"))
            for name, (_, _, known) in self.buckets.items()
        )


@dataclass(slots=True)
class _Session:
    campaign: Campaign
    state: State
    began: float
    programs: int = 0
    next: int = 0
    keeping: int = 0  # cases that are being shrunk
    shrinking: set[str] = field(default_factory=set)


def grow(campaign: Campaign, progress: Callable[[Summary], None] = lambda _: None) -> Summary:
    """Run *campaign* and return what it came to; KeyboardInterrupt ends it cleanly."""
    path = campaign.folder / "campaign.sqlite"
    state = State(path, campaign.seed, campaign.batch, resume=campaign.resume)
    campaign = replace(campaign, seed=state.seed, batch=state.batch)
    campaign = replace(campaign, settings=replace(campaign.settings, seed=state.seed))
    session = _Session(campaign, state, time.monotonic())
    if campaign.corpus is not None:
        try:
            campaign.corpus.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HarnessError(f"{campaign.corpus}: {error.strerror}") from None

    def finished(result: Any) -> Iterator[Step]:
        match result:
            case BatchResult():
                yield from _batch_done(session, result)
            case NewCase():
                session.keeping -= 1
                _keep(session, result)
            case Representative():
                _represent(session, result)
            case None:
                session.keeping -= 1
        progress(summary(session))

    try:
        steps = [s for _ in range(campaign.jobs + 2) for s in _next_batch(session)]
        steps += [s for name, file in state.unshrunk() for s in _shrink_step(session, name, file)]
        work(steps, finished, campaign.jobs)
        return summary(session)
    finally:
        state.close()


def _next_batch(session: _Session) -> Iterator[Step]:
    """Yield the next batch that is not done, unless the campaign is over."""
    campaign = session.campaign
    while session.next in session.state.done:
        session.next += 1
    if campaign.count is not None and session.next * campaign.batch >= campaign.count:
        return
    if _over(session):
        return
    number = session.next
    session.next += 1

    def lost(why: str) -> BatchResult:
        return BatchResult(number, 0, 0, 0, {}, {}, (), 0.0, why)

    arguments = (number, campaign.batch, campaign.seed, campaign.settings)
    yield Step(in_time, (_until(session), check_batch, *arguments), lost)


def _until(session: _Session) -> float | None:
    seconds = session.campaign.seconds
    return None if seconds is None else session.began + seconds


def _over(session: _Session) -> bool:
    seconds = session.campaign.seconds
    return seconds is not None and time.monotonic() - session.began >= seconds


def _batch_done(session: _Session, result: BatchResult) -> Iterator[Step]:
    state, campaign = session.state, session.campaign
    fresh = set(state.buckets)
    files = []
    for seen in result.seen:
        for found in seen.findings:
            known = _known(found, campaign.known)
            kind = found.outcome
            if kind != "diverge" and (found.bucket in fresh or known):
                continue  # a refusal is kept once, and counted
            fresh.add(found.bucket)
            name = f"{kind}-{_digest(found.bucket)}-{campaign.seed}-{seen.number}.json"
            findings.write(found, campaign.folder / name)
            files.append((name, found.bucket, known))
    new = _new_features(session, result)
    state.add(result, files)
    session.programs += result.programs
    yield from _next_batch(session)
    if result.lost or _over(session):
        return
    config_of = campaign.settings.compilers[0].name
    for number, wanted in new:
        session.keeping += 1
        configs = _own_configs(campaign.seed, result.number, number, config_of)
        yield Step(
            in_time,
            (
                _until(session),
                shrink_case,
                number,
                campaign.seed,
                wanted,
                configs[0],
                campaign.settings,
            ),
            lambda _: None,
        )
    for file, name, known in files:
        if known is None and state.buckets[name] == file:
            yield from _shrink_step(session, name, file)


def _shrink_step(session: _Session, name: str, file: str) -> Iterator[Step]:
    """Yield the step that makes the finding in *file* small, once a bucket and while time lasts."""
    if name in session.shrinking or _over(session):
        return
    session.shrinking.add(name)
    start = findings.read(session.campaign.folder / file)
    arguments = (start, session.campaign.settings)
    yield Step(in_time, (_until(session), shrink_finding, *arguments), partial(_unshrunk, start))


def _unshrunk(start: Finding, _why: str) -> Representative:
    return Representative(start.bucket, start)


def _own_configs(seed: int, batch: int, number: int, compiler: str) -> list[BuildConfig]:
    one = generate(seed, number)
    configs = batch_configs(seed, batch, compiler)
    return [config for config, _ in _groups(configs, [(number, one)])]


def _new_features(session: _Session, result: BatchResult) -> list[tuple[int, frozenset[str]]]:
    """Return which programs of a batch to keep, and what for: patterns of passing alone.

    Pairs of opcodes and forms are counted, but each program shows a dozen new ones of them
    for a long time: kept for their sake, the corpus would be all that was generated.
    """
    campaign, state = session.campaign, session.state
    room = campaign.keep - len(state.kept) - session.keeping
    if campaign.corpus is None:
        return []
    known = set(state.features)
    out: list[tuple[int, frozenset[str]]] = []
    for seen in result.seen:
        new = {f for f in seen.features - known if f.startswith("passing")}
        if not new or seen.findings or len(out) >= room:
            continue
        known |= seen.features
        out.append((seen.number, frozenset(sorted(new)[:4])))
    return out


def _keep(session: _Session, case: NewCase) -> None:
    folder = session.campaign.corpus
    assert folder is not None
    name = f"grown-{session.campaign.seed}-{case.number}"
    config = case.config
    mcpus = tuple(cpu for cpu in CPUS if cpu >= config.mcpu)
    source = SourceText(
        c=print_file([("", replace(case.tree, mcpu="v1"))]),
        opts=(config.opt,),
        mcpus=mcpus[:1],
        linkages=(config.linkage,),
    )
    note = "grown for " + "; ".join(sorted(case.features))
    path = folder / f"{name}.toml"
    kept = Case(path=path, note=note, source=source, crosscheck="agree")
    if not path.exists():
        corpus.write(kept)
    session.state.keep(case.number, path.name)


def _represent(session: _Session, made: Representative) -> None:
    name = f"bucket-{_digest(made.bucket)}.json"
    findings.write(made.finding, session.campaign.folder / name)
    session.state.shrunk(made.bucket)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


_KINDS = {"diverge": "divergence", "rejected": "reject", "compile_error": "compile_error"}


def _known(found: Finding, known: Sequence[Known]) -> str | None:
    """Return the entry of known.toml that explains *found*: by function, build and message.

    The message of a divergence is its bucket.
    """
    kind = _KINDS.get(found.outcome)
    text = found.bucket if found.outcome == "diverge" else found.detail
    for entry in known:
        if (
            kind
            and entry.message != "*"
            and entry.matches(kind, "grow.c", found.function, str(found.config), text)
        ):
            return entry.id
    return None


def summary(session: _Session) -> Summary:
    """Return what the campaign came to so far."""
    state = session.state
    ((programs, builds, vectors, lost),) = state.table(
        "SELECT coalesce(sum(programs), 0), coalesce(sum(builds), 0), coalesce(sum(vectors), 0), "
        "coalesce(sum(lost != ''), 0) FROM batch"
    )
    buckets = {
        name: (count, file, known)
        for name, count, file, known in state.table(
            "SELECT bucket.name, count(finding.file), bucket.file, max(finding.known) FROM bucket "
            "LEFT JOIN finding ON finding.bucket = bucket.name GROUP BY bucket.name"
        )
    }
    seconds = time.monotonic() - session.began
    return Summary(
        seed=state.seed,
        programs=programs,
        builds=builds,
        vectors=vectors,
        outcomes=dict(state.table("SELECT name, count FROM outcome ORDER BY count DESC")),
        refusals=dict(state.table("SELECT message, count FROM refusal ORDER BY count DESC")),
        features=len(state.features),
        kept=len(state.kept),
        buckets=buckets,
        lost=lost,
        seconds=seconds,
        rate=session.programs / seconds if seconds else 0.0,
    )


def summary_json(result: Summary) -> dict[str, Any]:
    """Return *result* as JSON values."""
    return {
        "seed": result.seed,
        "programs": result.programs,
        "builds": result.builds,
        "vectors": result.vectors,
        "accepted": round(result.accepted, 4),
        "outcomes": dict(result.outcomes),
        "refusals": dict(result.refusals),
        "features": result.features,
        "kept": result.kept,
        "lost": result.lost,
        "buckets": [
            {"bucket": name, "findings": count, "file": file, "known": known}
            for name, (count, file, known) in result.buckets.items()
        ],
        "seconds": round(result.seconds, 3),
        "rate": round(result.rate, 3),
    }


def line(now: Summary) -> str:
    """Return one line for the live screen."""
    vectors = now.vectors
    return (
        f"{now.programs} programs ({now.rate:.1f}/s), {now.builds} builds, {vectors} vectors, "
        f"{now.accepted:.0%} accepted, {now.features} features, {now.kept} kept, "
        f"{len(now.buckets)} buckets"
    )


def text(result: Summary, folder: Path) -> str:
    """Return *result* for people."""
    lines = [line(result), f"seed {result.seed}, {result.seconds:.1f} s"]
    lines.append(", ".join(f"{count} {name}" for name, count in result.outcomes.items()))
    if result.lost:
        lines.append(f"{result.lost} batches lost: a worker died")
    if result.refusals:
        lines.append("refusals:")
        lines += [f"  {count:5} {message}" for message, count in result.refusals.items()]
    if result.buckets:
        lines.append(f"buckets ({folder}/):")
        for name, (count, file, known) in sorted(result.buckets.items()):
            mark = f" (known: {known})" if known else ""
            lines.append(f"  {count:5} {name}{mark}")
            lines.append(f"        {file}")
    return "\n".join(lines) + "\n"


def feature_counts(folder: Path) -> dict[str, int]:
    """Return how many features of each kind the campaign in *folder* has seen."""
    path = folder / "campaign.sqlite"
    if not path.exists():
        raise HarnessError(f"{path}: no campaign there (crosscheck grow makes one)")
    try:
        with contextlib.closing(sqlite3.connect(path)) as db:
            names = [name for (name,) in db.execute("SELECT name FROM feature")]
    except sqlite3.Error as error:
        raise HarnessError(f"{path}: {error}") from None
    return dict(Counter(name.partition(" ")[0] for name in names))
