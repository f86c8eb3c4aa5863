"""A campaign: which batches there are, what is kept of them, and when it is over.

The campaign's own process alone writes; its workers hand back what they saw.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import corpus, findings
from harness.corpus import Case, Known
from harness.findings import Finding
from harness.grow import cover
from harness.grow.batch import (
    PROGRAMS,
    BatchResult,
    Half,
    Order,
    Seen,
    build_batch,
    check_batch,
    judge_batch,
    resident,
)
from harness.grow.buckets import apart
from harness.grow.features import KINDS
from harness.grow.packing import stream_of
from harness.grow.parents import packed_parents
from harness.grow.shrinking import (
    PATIENCE,
    NewCase,
    Representative,
    shrink_case,
    shrink_finding,
    shrink_text,
)
from harness.grow.state import Candidate, Found, State
from harness.grow.streams import Kept
from harness.grow.summary import Summary, summarise
from harness.grow.units import name_of
from harness.model import BuildConfig, HarnessError
from harness.pipeline import Linux, Settings
from harness.run import Step, TimeOver, answered, kernel_queue

if TYPE_CHECKING:
    from harness.legs.kernel import KernelAnswer
    from harness.legs.kernel_queue import KernelQueue

SHRINKING = 0.15  # of the workers' time that new cases may take
CASE_SECONDS = 6.0  # that one takes, until there are some to go by
WANTED = 6  # new features that a case is shrunk for, at most
FRESH = 16  # steps of a worker, then a new one takes its place
OFTEN = 5.0  # seconds between two samples of progress
FAULTS = 8  # batches lost in a row that end the campaign
GRACE = 1.0  # seconds behind the campaign's time after which nothing is waited for

Work = Callable[
    [list[Step], Callable[[Any], Iterator[Step]], int, Callable[[], float | None]], None
]


@dataclass(frozen=True, slots=True)
class Campaign:
    """What a campaign does."""

    settings: Settings
    folder: Path  # findings and state
    seed: int = 0
    count: int | None = None  # programs; None: until *seconds* are over
    seconds: float | None = None
    corpus: Path | None = None  # where new cases go; None: nowhere
    keep: int = 400  # new cases at most
    known: tuple[Known, ...] = ()
    jobs: int = 1
    resume: bool = False
    batch: int = PROGRAMS  # programs of a batch
    patience: float = PATIENCE  # seconds that making a finding small may take
    parents: tuple[Path, ...] = ()  # cases, and folders of them, that mutation starts from


@dataclass(frozen=True, slots=True)
class Over:
    """A step that was not begun, because the campaign's time was over."""


def in_time(until: float | None, call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what *call* returns, or Over after *until* (monotonic, the same in all processes)."""
    if until is not None and time.monotonic() >= until:
        return Over()
    return call(*arguments)


@dataclass(slots=True)
class _Session:
    campaign: Campaign
    state: State
    began: float
    progress: Callable[[Summary], None]
    queue: KernelQueue | None = None
    before: tuple[int, int, int] = (0, 0, 0)  # programs, vectors, functions of earlier sessions
    next: int = 0
    surveys: int = 0  # of the corpus, that are not done
    claimed: set[str] = field(default_factory=set)  # features that a candidate is shrunk for
    keeping: int = 0  # candidates that are being shrunk
    made: int = 0  # candidates that were, in this session
    checking_seconds: float = 0.0
    begun: bool = False  # a batch is, in this session
    batches: int = 0  # that came back in this session
    shrinking_seconds: float = 0.0
    shrinking: set[str] = field(default_factory=set)  # buckets
    texts: dict[str, Kept] = field(default_factory=dict)  # by bucket: to be shrunk
    doubted: dict[int, BatchResult] = field(default_factory=dict)  # Linux is asked again about them
    faults: int = 0
    sampled: float = 0.0
    told: float = 0.0
    memory: dict[int, int] = field(default_factory=dict)  # by process, the last that told

    def summary(self) -> Summary:
        """Return what the campaign came to so far."""
        seconds = time.monotonic() - self.began
        memory = sum(self.memory.values()) + resident()
        return summarise(self.state, seconds, self.before, memory)


def grow(
    campaign: Campaign,
    progress: Callable[[Summary], None] = lambda _: None,
    work: Work | None = None,
) -> Summary:
    """Run *campaign* and return what it came to; KeyboardInterrupt ends it cleanly.

    *work* runs the steps, by default in processes of this machine.
    """
    if work is None:
        from harness.run import work as local

        work = partial(local, fresh=FRESH * campaign.jobs)
    _writable(campaign)
    path = campaign.folder / "campaign.sqlite"
    parents = b""
    if not (campaign.resume and path.exists()):
        parents = packed_parents(campaign.parents, campaign.settings)
    state = State(path, campaign.seed, campaign.batch, resume=campaign.resume, parents=parents)
    try:
        campaign = replace(campaign, seed=state.seed, batch=state.batch)
        campaign = replace(campaign, settings=replace(campaign.settings, seed=state.seed))
        session = _Session(campaign, state, time.monotonic(), progress)
        start = summarise(state, 0.0, (0, 0, 0), 0)
        session.before = start.programs, start.vectors, start.functions
        with _queue(campaign) as queue:
            session.queue = queue
            steps = list(_unfinished(session))
            steps += [s for _ in range(campaign.jobs + 2) for s in _next_batch(session)]
            with contextlib.suppress(TimeOver):  # what ran is done again when it goes on
                work(steps, partial(_finished, session), campaign.jobs, partial(_left, session))
            for result in list(session.doubted.values()):  # what was found is written all the same
                list(_batch_done(session, result))
        _sample(session, last=True)
        return session.summary()
    finally:
        state.close()


def _queue(campaign: Campaign) -> AbstractContextManager[KernelQueue | None]:
    return kernel_queue(campaign.settings)


def _writable(campaign: Campaign) -> None:
    """Raise HarnessError now where no finding or case could be written later."""
    for folder in filter(None, (campaign.folder, campaign.corpus)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = f"{folder}: cannot be written: {error.strerror}: name another folder"
            raise HarnessError(why) from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise HarnessError(f"{folder}: cannot be written: name another folder")


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Say how to go on where the block cannot write its file."""
    try:
        yield
    except HarnessError as error:
        full = any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))
        way = "make room" if full else "make it writable"
        raise HarnessError(f"{error}: {way}, and go on with --resume") from None


def _unfinished(session: _Session) -> Iterator[Step]:
    """Yield what an earlier session left undone, and a look at the corpus as it is."""
    state, campaign = session.state, session.campaign
    for name, file in state.unshrunk():
        yield from _shrink_step(session, name, file)
    if campaign.corpus is None or campaign.keep == 0:
        return
    adopted = {f"{_case_name(campaign.seed, c.number)}.toml": c for c in state.pending()}
    for path in campaign.corpus.glob("*.toml"):
        if path.name in adopted:  # written, and then we were killed
            state.keep(adopted[path.name].number, path.name, frozenset())
    for candidate in state.pending():
        yield from _case_step(session, candidate)
    if not state.covered:
        paths = corpus.find([campaign.corpus])
        for at in range(0, len(paths), cover.TOGETHER):
            session.surveys += 1
            some = tuple(paths[at : at + cover.TOGETHER])
            yield Step(cover.survey, (some, campaign.settings), lambda _: cover.Survey({}))


# --- steps -------------------------------------------------------------------------


def _finished(session: _Session, result: Any) -> Iterator[Step]:
    match result:
        case BatchResult() if session.queue is not None and result.doubts:
            yield _ask_again(session, result)
        case BatchResult():
            yield from _batch_done(session, result)
        case Half():
            yield from _ask(session, result)
        case NewCase():
            session.keeping -= 1
            session.made += 1
            session.shrinking_seconds += result.seconds
            _keep(session, result)
        case Representative():
            _represent(session, result)
        case cover.Survey():
            session.surveys -= 1
            shown = (features for features, _ in result.cases.values())
            session.state.cover(frozenset().union(*shown))
        case Over():
            pass
    _sample(session)


def _sample(session: _Session, *, last: bool = False) -> None:
    now = time.monotonic()
    if now - session.told < 0.2 and not last:
        return
    session.told = now
    told = session.summary()
    session.progress(told)
    if now - session.sampled >= OFTEN or last:
        session.sampled = now
        seconds = session.state.before + told.seconds
        row = (told.programs, told.vectors, told.features, len(told.buckets), told.memory)
        session.state.sample((seconds, *row))


def _order(session: _Session, number: int) -> Order:
    campaign, state = session.campaign, session.state
    return Order(number, campaign.batch, campaign.seed, campaign.settings, state.parents)


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
    call = check_batch if session.queue is None else build_batch
    lost = partial(_lost, number)
    until = _until(session) if session.begun else None  # one batch is done in any case
    session.begun = True
    if until is not None and session.batches:  # what cannot end in time is not begun
        until -= session.checking_seconds / session.batches
    yield Step(in_time, (until, call, _order(session, number)), lost)


def _lost(number: int, why: str) -> BatchResult:
    return BatchResult(number, 0, 0, 0, {}, {}, (), 0.0, why)


def _ask(session: _Session, half: Half) -> Iterator[Step]:
    """Ask Linux about the programs of a batch, and go on with its answers."""
    assert session.queue is not None
    lost = partial(_lost, half.order.number)

    def heard(answers: Sequence[KernelAnswer]) -> Iterator[Step]:
        told = [Linux(answer.verdict, answer.outcomes) for answer in answers]
        yield Step(judge_batch, (half, told), lost)

    questions = half.questions
    if questions:
        yield Step(session.queue.submit, (questions,), ask=True, then=heard)
    else:
        yield Step(answered, ([],), ask=True, then=heard)


def _ask_again(session: _Session, result: BatchResult) -> Step:
    """Return the step that asks Linux about what would explain its verdicts in *result*."""
    assert session.queue is not None
    questions = [(doubt.program, doubt.vectors) for doubt in result.doubts]

    def heard(answers: Sequence[KernelAnswer]) -> Iterator[Step]:
        told = [Linux(answer.verdict, answer.outcomes) for answer in answers]
        del session.doubted[result.number]
        yield from _batch_done(session, result.settled(told))

    session.doubted[result.number] = result
    return Step(session.queue.submit, (questions,), ask=True, then=heard)


def _until(session: _Session) -> float | None:
    seconds = session.campaign.seconds
    return None if seconds is None else session.began + seconds


def _left(session: _Session) -> float | None:
    """Return the seconds to wait for what runs; the first batch is waited for in any case."""
    until = _until(session)
    if until is None or not session.batches:
        return None
    return max(0.0, until + GRACE - time.monotonic())


def _over(session: _Session) -> bool:
    seconds = session.campaign.seconds
    return seconds is not None and time.monotonic() - session.began >= seconds


def _batch_done(session: _Session, result: BatchResult) -> Iterator[Step]:
    state = session.state
    session.checking_seconds += result.seconds
    session.batches += 1
    if result.process:
        session.memory.pop(result.process, None)
        session.memory[result.process] = result.memory
        for gone in list(session.memory)[: -session.campaign.jobs]:
            del session.memory[gone]
    session.faults = session.faults + 1 if result.lost else 0
    if session.faults >= FAULTS:
        raise HarnessError(f"{FAULTS} batches were lost in a row: {result.lost}")
    written: set[str] = set()  # buckets of this batch
    found = [one for seen in result.seen for one in _findings(session, seen, written)]
    candidates = _candidates(session, result)
    fresh = {one.bucket for one in found} - state.buckets.keys()
    state.add(result, found, candidates)
    yield from _next_batch(session)
    for candidate in candidates:
        yield from _case_step(session, candidate)
    for one in found:
        if one.known is None and one.bucket in fresh and one.file:
            yield from _shrink_step(session, one.bucket, one.file)


def _findings(session: _Session, seen: Seen, written: set[str]) -> Iterator[Found]:
    """Write the findings of a program; what is not a divergence is kept once, and counted."""
    campaign, state = session.campaign, session.state
    for text in seen.texts:
        name = f"{text.outcome}-{digest(text.bucket)}-{campaign.seed}-{seen.number}.toml"
        path = campaign.folder / name
        if not path.exists():
            note = f"{text.bucket}\nprogram {seen.number} of seed {campaign.seed}"
            with _writing():
                corpus.write(replace(text.case, path=path, note=note))
        session.texts.setdefault(text.bucket, text)
        yield Found(text.bucket, text_known_as(text, campaign.known), name)
    for found in seen.findings:
        known = known_as(found, campaign.known)
        if found.outcome != "diverge" and (
            known or found.bucket in state.buckets or found.bucket in written
        ):
            yield Found(found.bucket, known)
            continue
        written.add(found.bucket)
        axes = f"O{found.config.opt}-{found.config.mcpu}-{found.config.linkage}"
        label = name_of(seen.number) + found.function.removeprefix(name_of(seen.number))
        mark = f"{campaign.seed}-{label.strip('_')}-{axes}"
        name = f"{found.outcome}-{digest(found.bucket)}-{mark}.json"
        with _writing():
            findings.write(found, campaign.folder / name)
        yield Found(found.bucket, known, name)


def digest(text: str) -> str:
    """Return a short name for *text*."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


_KINDS = {
    "diverge": "divergence",
    "rejected": "reject",
    "compile_error": "compile_error",
    "unknown": "unknown",
}


def known_as(found: Finding, known: Sequence[Known]) -> str | None:
    """Return the entry of known.toml that explains *found*: by function, build and message.

    The message is its bucket, which names what an experiment confirmed. Where it names several
    constructs each needs an entry, and the first that is open counts.
    """
    kind = _KINDS.get(found.outcome)
    entries: list[Known] = []
    for text in apart(found.bucket) if kind else ():
        about = (kind or "", "grow.c", found.function, str(found.config), text, found.version)
        entry = next((e for e in known if e.message != "*" and e.matches(*about)), None)
        if entry is None:
            return None
        entries.append(entry)
    entries.sort(key=lambda entry: entry.status == "by-design")
    return entries[0].id if entries else None


def text_known_as(text: Kept, known: Sequence[Known]) -> str | None:
    """Return the entry of known.toml that explains a finding in BPF text: source grow.toml.

    The message is its bucket, whose last words an experiment confirmed.
    """
    about = _KINDS[text.outcome], "grow.toml", "program", "", text.bucket
    return next((e.id for e in known if e.message != "*" and e.matches(*about)), None)


# --- new cases ------------------------------------------------------------------------


def _candidates(session: _Session, result: BatchResult) -> list[Candidate]:
    """Return which programs of a batch to make cases, and what for.

    Only what no case shows yet counts, and only while shrinking takes its part of the time
    and no more: what is passed over now comes again.
    """
    campaign, state = session.campaign, session.state
    room = campaign.keep - len(state.kept) - session.keeping
    if campaign.corpus is None or room <= 0 or session.surveys or result.lost or _over(session):
        return []
    spent = session.checking_seconds, session.shrinking_seconds
    room = min(room, affordable(*spent, session.made, session.keeping))
    if room <= 0:
        return []
    taken = state.covered | session.claimed
    offers = []
    for seen in result.seen:
        tree = {f for f in seen.features if f.startswith("passing")}
        shows: list[tuple[BuildConfig | None, set[str]]] = [
            (config, tree | features) for config, features in seen.builds
        ]
        if seen.agreed:
            shows.append((None, set(seen.features)))
        for config, features in shows:
            new = features - taken
            if new:
                offers.append((len(new), seen.number, config, new))
    offers.sort(key=lambda offer: (-offer[0], offer[1]))
    out: list[Candidate] = []
    for _, number, config, new in offers:
        wanted = _chosen(new - session.claimed)
        if len(out) >= min(2, room) or any(c.number == number for c in out) or not wanted:
            continue
        session.claimed |= wanted
        out.append(Candidate(number, result.number, wanted, config))
    return out


def affordable(checking: float, shrinking: float, made: int, keeping: int) -> int:
    """Return how many more cases may be made now, of which the last may exceed their share.

    *checking* seconds went into batches, and *shrinking* seconds into the cases *made*;
    *keeping* cases are being made.
    """
    each = shrinking / made if made else CASE_SECONDS
    left = SHRINKING * checking - shrinking - keeping * each
    return max(0, math.floor(left / max(each, 0.1)) + 1)


def _chosen(new: set[str]) -> frozenset[str]:
    """Return the features of *new* that a case is shrunk for: some of each kind."""
    by_kind = [sorted(f for f in new if f.startswith(kind)) for kind in KINDS]
    picked: list[str] = []
    while len(picked) < WANTED and any(by_kind):
        for names in by_kind:
            if names and len(picked) < WANTED:
                picked.append(names.pop())
    return frozenset(picked)


def _case_step(session: _Session, candidate: Candidate) -> Iterator[Step]:
    session.keeping += 1
    order = _order(session, candidate.batch)
    arguments = (order, candidate.number, candidate.wanted, candidate.config)

    def lost(_why: str) -> NewCase:
        return NewCase(candidate.number, None)

    yield Step(in_time, (_until(session), shrink_case, *arguments), lost)


def _case_name(seed: int, number: int) -> str:
    return f"grown-{seed}-{number}"


def _keep(session: _Session, made: NewCase) -> None:
    folder = session.campaign.corpus
    case = made.case
    if case is None or folder is None or not made.features - session.state.covered:
        session.state.keep(made.number, "", frozenset())
        return
    name = _case_name(session.campaign.seed, made.number)
    new = sorted(made.features - session.state.covered)
    note = _note(new)
    path = folder / f"{name}.toml"
    if not path.exists():
        with _writing():
            corpus.write(replace(case, path=path, note=note))
    session.state.keep(made.number, path.name, made.features)


def _note(new: Sequence[str]) -> str:
    """Return why a case is kept: what it was the first to show."""
    first = _chosen(set(new))
    more = f"; {len(new) - len(first)} more" if len(new) > len(first) else ""
    return "grown for " + "; ".join(sorted(first)) + more


# --- representatives ---------------------------------------------------------------------


def _shrink_step(session: _Session, name: str, file: str) -> Iterator[Step]:
    """Yield the step that makes the finding in *file* small, once a bucket and while time lasts."""
    if name in session.shrinking or _over(session):
        return
    session.shrinking.add(name)
    path = session.campaign.folder / file
    settings = session.campaign.settings
    if file.endswith(".toml"):
        kept = session.texts.pop(name, None)
        stream = stream_of(corpus.read(path))
        if kept is None and stream is not None:
            kept = Kept(corpus.read(path), name, "diverge", stream)
        if kept is not None:
            yield Step(
                in_time,
                (_until(session), shrink_text, kept, settings, session.campaign.patience),
                partial(_unshrunk, name, kept.case),
            )
        return
    start = findings.read(path)
    yield Step(
        in_time,
        (_until(session), shrink_finding, start, settings, session.campaign.patience),
        partial(_unshrunk, name, start),
    )


def _unshrunk(name: str, start: Finding | Case, _why: str) -> Representative:
    return Representative(name, start)


def _represent(session: _Session, made: Representative) -> None:
    name = f"bucket-{digest(made.bucket)}"
    folder = session.campaign.folder
    with _writing():
        if isinstance(made.finding, Finding):
            findings.write(made.finding, folder / f"{name}.json")
        else:
            path = folder / f"{name}.toml"
            path.unlink(missing_ok=True)
            corpus.write(replace(made.finding, path=path, note=made.bucket))
    session.state.shrunk(made.bucket)
