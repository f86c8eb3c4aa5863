"""What a corpus covers: the features of its cases, what is missing, and a small set of cases."""

from __future__ import annotations

import contextlib
import fnmatch
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from harness import corpus, pipeline
from harness.corpus import Case, Known
from harness.grow import features as shown_by
from harness.grow import streams
from harness.grow.features import KINDS
from harness.grow.packing import stream_of, tree_of
from harness.grow.units import Natives, compile_units, judge, judgement_features, member
from harness.isa.forms import ALL_FORMS, form_name
from harness.isa.insn import High
from harness.model import BuildConfig, HarnessError
from harness.pipeline import Settings
from harness.run import Step, work
from harness.source import driver
from harness.source.tree import Tree

TOGETHER = 40  # cases of one look, whose C is one file for each build
FEW = 2  # vectors: enough for an image


@dataclass(frozen=True, slots=True)
class Survey:
    """The features of cases, and the forms of instructions they have, by path."""

    cases: Mapping[Path, tuple[frozenset[str], frozenset[str]]]
    why: Mapping[Path, str] = field(default_factory=dict)  # those that cannot be looked at


def survey(paths: Sequence[Path], settings: Settings) -> Survey:
    """Build and verify the cases in *paths*, and say what each shows."""
    settings = replace(settings, legs=("jit",), vectors=FEW, native_opts=(0,), budget=100_000)
    found: dict[Path, tuple[frozenset[str], frozenset[str]]] = {}
    whys: dict[Path, str] = {}
    grown: dict[BuildConfig, list[tuple[Path, Tree]]] = {}
    for path in paths:
        try:
            case = corpus.read(path)
            one = tree_of(case)
            if one is not None:
                for config in pipeline.case_configs(case, settings.compilers[0]):
                    grown.setdefault(config, []).append((path, one))
            elif case.program is not None:
                found[path] = _text(case, settings)
            else:
                found[path] = _source(case, settings)
        except HarnessError as error:
            whys[path] = str(error)
    for config, members in grown.items():
        for path, shown, forms in _trees(members, config, settings):
            before = found.get(path, (frozenset(), frozenset()))
            found[path] = before[0] | shown, before[1] | forms
    return Survey(found, whys)


def _text(case: Case, settings: Settings) -> tuple[frozenset[str], frozenset[str]]:
    stream = stream_of(case)
    assert stream is not None
    program = corpus.program(stream.text, case.name)
    seen = streams.judge(stream, program, settings, None)
    return frozenset(seen.features), _forms(program.insns)


def _forms(insns: Iterable[object]) -> frozenset[str]:
    return frozenset(form_name(insn) for insn in insns if not isinstance(insn, High))  # type: ignore[arg-type]


def _source(case: Case, settings: Settings) -> tuple[frozenset[str], frozenset[str]]:
    """Look at C that somebody wrote: there is no tree of it."""
    assert case.source is not None
    shown: set[str] = set()
    forms: set[str] = set()
    compiler = settings.compilers[0]
    configs = pipeline.case_configs(case, compiler)
    settings = replace(settings, configs=configs)
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as folder:
        path = Path(folder, f"{case.name}.c")
        path.write_text(case.source.c, encoding="utf-8")
        planned = pipeline.plan(path, str(case.path), settings)
        places = {driver.entry(p.signature.name): p for p in planned.layouts}
        for config in configs:
            built = pipeline.compile_build(planned, config, settings)
            for program, _ in pipeline.built_programs(built, settings):
                forms |= _forms(program.insns)
                place = places.get(program.name)
                if place is None:
                    shown |= shown_by.code_features(program, None)
                    continue
                seen = pipeline.judge_function(planned, place, config, settings, program)
                dead = seen.verification.dead
                shown |= shown_by.code_features(program, seen.image, dead)
                shown |= shown_by.verifier_features(seen.verification)
    return frozenset(shown), frozenset(forms)


def _trees(
    found: Sequence[tuple[Path, Tree]], config: BuildConfig, settings: Settings
) -> Iterator[tuple[Path, frozenset[str], frozenset[str]]]:
    members = {n: member(n, one, settings) for n, (_, one) in enumerate(found)}
    none = Natives()
    for unit in compile_units(list(members.values()), config, settings, none):
        for seen in judge(unit, members, settings, none, {}):
            path, one = found[seen.number]
            shown = judgement_features(seen, members[seen.number]) | shown_by.passing(one)
            forms = _forms(seen.program.insns) if seen.program else frozenset()
            yield path, frozenset(shown), forms


# --- a small set --------------------------------------------------------------------


def is_grown(case: Case, known: Sequence[Known] = ()) -> bool:
    """Return whether *case* was kept by a campaign, and nothing else speaks for it.

    A case that somebody wrote, that known.toml names, or that shows a fault, stays.
    """
    if not case.note.startswith("grown for "):
        return False
    if case.crosscheck not in (None, "agree"):
        return False
    return not any(
        entry.source not in ("*", "grow.c") and fnmatch.fnmatchcase(str(case.path), entry.source)
        for entry in known
    )


def choose(
    features: Mapping[Path, frozenset[str]], fixed: Iterable[Path], sizes: Mapping[Path, int]
) -> list[Path]:
    """Return a small set of cases that shows all that all of them show; *fixed* are in it.

    Greedy set cover: the case that adds most for its size comes next. The same for the
    same input, in whatever order it comes.
    """
    chosen = sorted(fixed)
    covered: set[str] = set().union(*(features[path] for path in chosen))
    left = {path: set(f) - covered for path, f in features.items() if path not in set(chosen)}
    picked: list[Path] = []
    while True:
        left = {path: more for path, f in left.items() if (more := f - covered)}
        if not left:
            break
        best = min(left, key=lambda p: (-len(left[p]) / (200 + sizes.get(p, 0)), str(p)))
        picked.append(best)
        covered |= left.pop(best)
    counts = Counter(f for path in [*chosen, *picked] for f in features[path])
    for path in sorted(picked, key=lambda p: (-sizes.get(p, 0), str(p))):
        if all(counts[f] > 1 for f in features[path]):  # later ones made it superfluous
            counts.subtract(features[path])
            picked.remove(path)
    return sorted([*chosen, *picked])


@dataclass(frozen=True, slots=True)
class Minimized:
    """A small set of cases, and the others."""

    kept: tuple[Path, ...]
    gone: tuple[Path, ...]
    features: int


def minimized(found: Survey, known: Sequence[Known]) -> Minimized:
    """Return which cases of *found* show all that they show together."""
    features = {path: shown for path, (shown, _) in found.cases.items()}
    grown = {path for path in features if is_grown(corpus.read(path), known)}
    sizes = {path: path.stat().st_size for path in features}
    kept = choose(features, features.keys() - grown, sizes)
    gone = sorted(features.keys() - set(kept))
    return Minimized(tuple(kept), tuple(gone), len(frozenset().union(*features.values())))


# --- what is missing -----------------------------------------------------------------

_TYPES = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64", "bool", "enum")
_WIDE = ("struct8", "union8", "pointer-to-u8", "pointer-to-u64", "pointer-to-struct")


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a corpus covers."""

    cases: int
    kinds: Mapping[str, int]  # features, by kind
    missing: Mapping[str, tuple[str, ...]]  # by what: what no case has
    unread: Mapping[str, str] = field(default_factory=dict)  # by path


def coverage(found: Survey, seen: Iterable[str] = ()) -> Coverage:
    """Return what the cases of *found* cover, and of what there is, and was *seen*, they do not."""
    shown: set[str] = set().union(*(features for features, _ in found.cases.values()))
    forms: set[str] = set().union(*(forms for _, forms in found.cases.values()))
    passed = {tuple(name.split()[1:3]) for name in shown if name.startswith("passing ")}
    places = [shown_by.place_of(at) for at in range(1, 13)]
    missing = {
        "instruction forms": tuple(sorted(set(_form_names()) - forms)),
        "arguments (type place)": tuple(
            f"{kind} {place}"
            for kind in (*_TYPES, *_WIDE)
            for place in places
            if (kind, place) not in passed
        ),
    }
    unseen = set(seen) - shown
    for kind in KINDS:
        names = tuple(sorted(name for name in unseen if name.startswith(f"{kind} ")))
        if names:
            missing[f"{kind} features that the campaign saw"] = names
    kinds = Counter(name.partition(" ")[0] for name in shown)
    unread = {str(path): why for path, why in found.why.items()}
    return Coverage(len(found.cases), dict(kinds), missing, unread)


def _form_names() -> Iterator[str]:
    yield from map(form_name, ALL_FORMS)


def seen_by_campaign(folder: Path) -> frozenset[str]:
    """Return the features that the campaign in *folder* saw, none where there is none."""
    path = folder / "campaign.sqlite"
    if not path.exists():
        return frozenset()
    try:
        with contextlib.closing(sqlite3.connect(path)) as db:
            return frozenset(name for (name,) in db.execute("SELECT name FROM feature"))
    except sqlite3.Error as error:
        raise HarnessError(f"{path}: {error}") from None


def surveyed(paths: Sequence[Path], settings: Settings, jobs: int) -> Survey:
    """Look at the cases in *paths*, in *jobs* processes."""
    parts: list[Survey] = []

    def finished(result: Survey) -> Iterator[Step]:
        parts.append(result)
        return iter(())

    steps = []
    for at in range(0, len(paths), TOGETHER):
        some = tuple(paths[at : at + TOGETHER])
        steps.append(Step(survey, (some, settings), partial(_unsurveyed, some)))
    work(steps, finished, jobs)
    return joined(parts)


def _unsurveyed(paths: Sequence[Path], why: str) -> Survey:
    return Survey({}, dict.fromkeys(paths, why))


def joined(parts: Iterable[Survey]) -> Survey:
    """Return one survey of what *parts* looked at."""
    cases: dict[Path, tuple[frozenset[str], frozenset[str]]] = {}
    whys: dict[Path, str] = {}
    for part in parts:
        cases.update(part.cases)
        whys.update(part.why)
    return Survey(cases, whys)
