"""Shrinking, in a worker: of a program that shows something new, and of a bucket's finding.

Both have a bound on rounds and on time: the campaign goes on meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from harness import pipeline
from harness.corpus import Case, SourceText
from harness.findings import Finding
from harness.grow import streams
from harness.grow.batch import BUDGET, Order, faulty, parents_of
from harness.grow.features import general
from harness.grow.packing import pack
from harness.grow.parents import excerpt_of
from harness.grow.units import (
    Natives,
    compile_units,
    finding,
    judge,
    judgement_features,
    member,
    native_outcomes,
    passing,
)
from harness.model import BuildConfig, HarnessError
from harness.pipeline import Settings
from harness.source import produce, shrink_sheet, tree
from harness.source.excerpt import Excerpt
from harness.source.printing import print_file
from harness.source.produce import C, Stream
from harness.source.shrink import shrink
from harness.source.tree import Tree

ROUNDS = 8  # compiler calls that shrinking a new case may take
SHRINK_ROUNDS = 60  # the same, for the representative of a bucket
CASE_PATIENCE = 8.0  # seconds that a new case may take
PATIENCE = 40.0  # the same, for a representative
FEW = 8  # vectors that are enough to see that a new case agrees, or why one is refused


@dataclass(frozen=True, slots=True)
class NewCase:
    """A program that showed features nothing had shown, made small."""

    number: int
    case: Case | None  # None: it does not show them again
    features: frozenset[str] = frozenset()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Representative:
    """The finding of a bucket, made small."""

    bucket: str
    finding: Finding | Case
    seconds: float = 0.0


def _after(deadline: float) -> bool:
    return time.monotonic() > deadline


def shrink_case(
    order: Order, number: int, wanted: frozenset[str], config: BuildConfig | None
) -> NewCase:
    """Return program *number* as a case, small, that shows *wanted*; *config* None: BPF text."""
    began = time.monotonic()
    os.environ["CROSSCHECK_NO_CACHE"] = "1"
    try:
        if config is None:
            made = _small_stream(order, number, wanted)
        else:
            made = _small_c(order, number, wanted, config)
    except Exception as fault:
        faulty(order, fault, began)  # raises what ends the campaign
        made = NewCase(number, None)
    return replace(made, seconds=time.monotonic() - began)


def _small_c(order: Order, number: int, wanted: frozenset[str], config: BuildConfig) -> NewCase:
    settings = replace(order.settings, legs=("interp", "jit"), vectors=FEW, budget=BUDGET)
    deadline = time.monotonic() + CASE_PATIENCE
    shown: dict[C, frozenset[str]] = {}

    def shows(programs: Sequence[C]) -> list[bool]:
        good = [False] * len(programs)
        if time.monotonic() > deadline and shown:
            return good
        members, found = {}, {}
        for index, one in enumerate(programs):
            features = passing(one)
            if {f for f in wanted if f.startswith("passing")} <= features:
                members[index], found[index] = member(index, one, settings), features
        if not members:
            return good
        none = Natives()
        for unit in compile_units(list(members.values()), config, settings, none):
            for seen in judge(unit, members, settings, none, {}):
                if time.monotonic() > deadline and shown:
                    return good
                features = found[seen.number] | judgement_features(seen, members[seen.number])
                if seen.check.outcome == "agree" and wanted <= features:
                    good[seen.number] = True
                    shown[programs[seen.number]] = frozenset(features)
        return good

    one = produce.c_program(order.seed, number, parents_of(order))
    if not shows([one])[0]:
        return NewCase(number, None)
    small = produce.shrink_c(one, shows, rounds=ROUNDS, over=partial(_after, deadline))
    case = c_case(small, config, Path("grow.toml"))
    compiler = settings.compiler(config.compiler)
    if isinstance(small, Excerpt) and pipeline.check_case(case, compiler):
        return NewCase(number, None)  # for a function that it calls, which is under test there, too
    return NewCase(number, case, shown[small])


def c_case(one: C, config: BuildConfig, path: Path) -> Case:
    """Return *one*, which agrees as *config* builds it, as a case of the corpus."""
    source = SourceText(
        c=print_file([("", replace(one, mcpu="v1"))]) if isinstance(one, Tree) else one.text,
        opts=(config.opt,),
        mcpus=(config.mcpu,),
        linkages=(config.linkage,),
        tree=pack(one) if isinstance(one, Tree) else "",
    )
    return Case(path=path, source=source, crosscheck="agree")


def _small_stream(order: Order, number: int, wanted: frozenset[str]) -> NewCase:
    settings = replace(order.settings, legs=("interp", "jit"), budget=BUDGET)
    deadline = time.monotonic() + CASE_PATIENCE
    start = produce.stream(order.seed, number, parents_of(order))
    if start is None:
        return NewCase(number, None)

    def judged(stream: Stream) -> streams.Judged | None:
        program = streams.assembled(stream, number)
        return streams.judge(stream, program, settings, None) if program else None

    def shows(candidates: Sequence[Stream]) -> list[bool]:
        out = []
        for candidate in candidates:
            seen = None if time.monotonic() > deadline else judged(candidate)
            good = seen is not None and seen.outcome in ("agree", "rejected")
            out.append(good and seen is not None and wanted <= seen.features)
        return out

    if not shows([start])[0]:
        return NewCase(number, None)
    over = partial(_after, deadline)
    small = produce.shrink_stream(start, shows, rounds=ROUNDS, over=over)
    seen = judged(small)
    assert seen is not None
    case = streams.kept_case(small, seen, Path())
    return NewCase(number, case, frozenset(seen.features))


# --- representatives --------------------------------------------------------------


def shrink_finding(
    start: Finding, settings: Settings, patience: float = PATIENCE
) -> Representative:
    """Return *start* made small as long as it falls into its bucket."""
    began = time.monotonic()
    os.environ["CROSSCHECK_NO_CACHE"] = "1"
    settings = replace(settings, native_opts=start.native_opts)
    settings = replace(settings, budget=BUDGET)
    smallest: dict[C, Finding] = {}
    deadline = began + patience
    if start.outcome == "unknown":  # a limit of ours: there is nothing to be learnt
        return Representative(start.bucket, start)
    if start.outcome == "rejected":  # what explains it is compared with the native builds
        legs = ("interp", *(leg for leg in settings.legs if leg == "native"))
        settings = replace(settings, legs=legs, vectors=FEW)
    elif start.outcome != "diverge":  # nothing needs to run
        settings = replace(settings, legs=("interp",), vectors=1)

    said = general(start.detail)

    def same(programs: Sequence[C]) -> list[bool]:
        good = [False] * len(programs)
        if time.monotonic() > deadline:
            return good
        members = {n: member(n, one, settings) for n, one in enumerate(programs)}
        natives = native_outcomes(list(members.values()), settings)
        for unit in compile_units(list(members.values()), start.config, settings, natives):
            for seen in judge(unit, members, settings, natives, {}):
                if time.monotonic() > deadline:
                    return good
                if seen.check.outcome != start.outcome:
                    continue
                if start.outcome == "rejected" and general(seen.check.detail) != said:
                    continue  # its bucket is another, too: nothing to find out
                small = finding(seen, settings, 0)
                good[seen.number] = small.bucket == start.bucket
                if good[seen.number]:
                    smallest[seen.target.program] = small
        return good

    try:
        over = partial(_after, deadline)
        if start.tree is None:  # C that somebody wrote
            small = _small_excerpt(start, same, settings, over)
        else:
            small = shrink(tree.from_json(start.tree), same, rounds=SHRINK_ROUNDS, over=over)
    except HarnessError:
        raise
    except Exception:  # a fault of ours, or of a cut: the finding stays as it was
        return Representative(start.bucket, start, time.monotonic() - began)
    made = smallest.get(small, start) if small is not None else start
    made = replace(made, source=start.source, legs=start.legs, vectors=start.vectors)
    return Representative(start.bucket, made, time.monotonic() - began)


def _small_excerpt(
    start: Finding,
    same: Callable[[Sequence[C]], list[bool]],
    settings: Settings,
    over: Callable[[], bool],
) -> C | None:
    """Return the C of *start*, small; None where there is nothing to be cut."""
    read = partial(excerpt_of, function=start.function, settings=settings)
    whole = read(start.c)
    if whole is None:
        return None
    return shrink_sheet.shrink(whole, same, read, rounds=SHRINK_ROUNDS, over=over)


def shrink_text(
    start: streams.Kept, settings: Settings, patience: float = PATIENCE
) -> Representative:
    """Return the case of a finding in BPF text, made small; Linux is not asked again."""
    began = time.monotonic()
    deadline = began + patience
    best = start.case

    def same(candidates: Sequence[Stream]) -> list[bool]:
        nonlocal best
        out = []
        for candidate in candidates:
            program = streams.assembled(candidate, 0)
            good = False
            if program is not None and time.monotonic() < deadline:
                seen = streams.judge(candidate, program, settings, None)
                if seen.kept is not None and seen.kept.bucket == start.bucket:
                    good, best = True, seen.kept.case
            out.append(good)
        return out

    try:
        if same([start.stream])[0]:
            over = partial(_after, deadline)
            small = produce.shrink_stream(start.stream, same, rounds=SHRINK_ROUNDS, over=over)
            same([small])
    except HarnessError:
        raise
    except Exception:  # a fault of ours, or of a cut: what was found so far is a finding, too
        return Representative(start.bucket, best, time.monotonic() - began)
    return Representative(start.bucket, best, time.monotonic() - began)
