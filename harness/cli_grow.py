"""The commands ``grow`` and ``corpus``: arguments in, a campaign or a corpus looked at."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.model import HarnessError
from harness.options import import_in_workers, json_option, legs, positive, write_json

if TYPE_CHECKING:
    from harness.grow.cover import Survey

AGREE, DIVERGE = 0, 1
GROWN = Path("corpus")
PARENTS = (Path("c_sources"), GROWN)  # what mutation starts from, where they are there
SHOWN = 6  # missing features of a kind that are named; --json has all


def add_grow(commands: Any) -> None:
    """Add ``grow``."""
    parser = commands.add_parser(
        "grow",
        help="generate programs, cross-check them, keep what is new",
        description="Run a campaign of generated programs over all legs. Its state is one "
        "file in the folder of findings: --resume goes on, also after it was killed.",
    )
    add = parser.add_argument
    add("--for", dest="duration", type=_duration, metavar="TIME", help="e.g. 90s, 10m, 2h")
    add("--count", type=positive, metavar="N", help="programs in all, in whole batches")
    add(
        "--batch",
        type=positive,
        metavar="N",
        help="programs a compiler call (64; 16 where --for is less than a minute)",
    )
    add("--seed", type=int, default=0, metavar="S", help="of the programs and their inputs (0)")
    add("--resume", action="store_true", help="go on with the campaign of the folder")
    add("--findings", default="findings", metavar="DIR", help="findings and state (findings)")
    add(
        "--corpus",
        metavar="DIR",
        help="where programs that show something new are kept (corpus in the folder of findings)",
    )
    add("--keep", type=_number, default=400, metavar="N", help="cases to keep at most (400)")
    add("--clang", action="append", default=[], metavar="CMD", help="compiler (repeatable)")
    add("--vectors", type=positive, default=64, metavar="N", help="inputs a program (64)")
    add(
        "--legs",
        type=legs,
        default=("interp", "jit", "native"),
        help="default: interp,jit,native; kernel is a real Linux",
    )
    add("--known", metavar="FILE", help="known divergences (corpus/known.toml)")
    add("--patience", type=_number, default=40, metavar="S", help="to shrink a finding (40 s)")
    add("--jobs", type=positive, metavar="N", help="processes (all cores)")
    add("--engine", choices=("local", "dask"), default="local", help="where programs are checked")
    add("--scheduler", metavar="ADDRESS", help="of a Dask cluster (default: one of our own)")
    json_option(parser)
    parser.set_defaults(command=_grow)


def _duration(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1:]) if text[-1:] in units else (text, "s")
    if not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no time (90s, 10m, 2h)")
    return float(int(number) * units[unit])


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return int(text)


def _grow(options: argparse.Namespace) -> int:
    if options.duration is None and options.count is None:
        raise HarnessError("grow needs an end: --for TIME or --count N")
    if options.engine == "local":
        import_in_workers()
    from harness import corpus, grow, screen
    from harness.grow.engines import engine
    from harness.pipeline import Settings
    from harness.toolchain import find_compilers

    work = engine(options.engine, options.scheduler)
    compilers = find_compilers(options.clang)
    folder = Path(options.findings)
    settings = Settings(
        (), tuple(compilers), legs=options.legs, vectors=options.vectors, seed=options.seed
    )
    kept = Path(options.corpus) if options.corpus else folder / "corpus"
    campaign = grow.Campaign(
        settings=settings,
        folder=folder,
        seed=options.seed,
        count=options.count,
        seconds=options.duration,
        corpus=kept if options.keep else None,
        keep=options.keep,
        known=corpus.read_known(Path(options.known or "corpus/known.toml")),
        jobs=options.jobs or len(os.sched_getaffinity(0)),
        resume=options.resume,
        batch=options.batch or (16 if (options.duration or 60) < 60 else 64),
        patience=options.patience,
        parents=(*PARENTS, kept),
    )
    with screen.campaign(options.duration, options.count) as show:
        result = grow.grow(campaign, show, work)
    if options.json is not None:
        write_json(grow.summary_json(result), options.json)
    if options.json != "-":
        print(grow.text(result, folder), end="")
    return AGREE if result.ok else DIVERGE


# --- corpus -------------------------------------------------------------------


def add_corpus(commands: Any) -> None:
    """Add ``corpus``."""
    parser = commands.add_parser("corpus", help="what a corpus covers, and a smaller one")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    stats = actions.add_parser(
        "stats",
        help="features that cases cover, by kind, and what is missing",
        description="Build and verify the cases of a corpus, and say what they cover and what "
        "they do not: of instructions and arguments that there are, and of what the campaign in "
        "the folder of findings saw.",
    )
    stats.add_argument("paths", nargs="*", metavar="PATH", help="cases, folders (corpus)")
    stats.add_argument("--findings", default="findings", metavar="DIR", help="of the campaign")
    small = actions.add_parser(
        "minimize",
        help="choose a small set of grown cases with the same features",
        description="Remove the cases that campaigns kept and that others cover together. What "
        "somebody wrote, what known.toml names and what shows a fault stays.",
    )
    small.add_argument("paths", nargs="*", metavar="PATH", help="cases, folders (corpus)")
    small.add_argument("--dry-run", action="store_true", help="only say what would go")
    small.add_argument("--known", metavar="FILE", help="known divergences (corpus/known.toml)")
    for action, command in ((stats, _stats), (small, _minimize)):
        action.add_argument(
            "--clang", action="append", default=[], metavar="CMD", help="the compiler"
        )
        action.add_argument("--jobs", type=positive, metavar="N", help="processes (all cores)")
        json_option(action)
        action.set_defaults(command=command)


def _surveyed(options: argparse.Namespace) -> Survey:
    import_in_workers()
    from harness import corpus
    from harness.grow import cover
    from harness.pipeline import Settings
    from harness.toolchain import find_compilers

    named = [Path(p) for p in options.paths] or [GROWN]
    for path in named:
        if not path.exists():
            raise HarnessError(f"{path}: no such file or folder: name cases, or folders of them")
    paths = corpus.find(named)
    settings = Settings((), tuple(find_compilers(options.clang)[:1]))
    return cover.surveyed(paths, settings, options.jobs or len(os.sched_getaffinity(0)))


def _stats(options: argparse.Namespace) -> int:
    from harness.grow import cover

    seen = cover.seen_by_campaign(Path(options.findings))
    found = cover.coverage(_surveyed(options), seen)
    if options.json is not None:
        write_json(
            {
                "cases": found.cases,
                "features": dict(found.kinds),
                "campaign": len(seen),
                "missing": {what: list(names) for what, names in found.missing.items()},
                "unread": dict(found.unread),
            },
            options.json,
        )
    if options.json != "-":
        print(f"{found.cases} cases")
        for kind, count in sorted(found.kinds.items()):
            print(f"  {count:5} {kind}")
        for what, names in found.missing.items():
            print(f"missing {what}: {len(names)}{_some(names)}")
        for path, why in found.unread.items():
            print(f"not looked at: {path}: {why}")
    return AGREE


def _some(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" ({', '.join(names[:SHOWN])}{more})"


def _minimize(options: argparse.Namespace) -> int:
    from harness import corpus
    from harness.grow import cover

    known = corpus.read_known(Path(options.known or "corpus/known.toml"))
    found = _surveyed(options)
    result = cover.minimized(found, known)
    if not options.dry_run:
        for path in result.gone:
            try:
                path.unlink()
            except OSError as error:
                raise HarnessError(f"{path}: cannot be removed: {error.strerror}") from None
    if options.json is not None:
        write_json(
            {
                "cases": len(found.cases),
                "kept": [str(path) for path in result.kept],
                "removed": [str(path) for path in result.gone],
                "features": result.features,
                "dry_run": options.dry_run,
            },
            options.json,
        )
    if options.json != "-":
        would = "would go" if options.dry_run else "removed"
        print(
            f"{len(found.cases)} cases, {result.features} features: {len(result.kept)} cases "
            f"show them all, {len(result.gone)} {would}"
        )
        for path in result.gone:
            print(f"  {path}")
    return AGREE
