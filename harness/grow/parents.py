"""What mutation starts from: trees and BPF text of cases, and C that somebody wrote."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import harness
from harness import corpus, pipeline
from harness.corpus import Case
from harness.grow.batch import pack_parents
from harness.grow.packing import stream_of, tree_of
from harness.model import MCPUS, BuildConfig, HarnessError
from harness.pipeline import Settings
from harness.source import driver, sheet_reading
from harness.source.excerpt import Excerpt
from harness.source.produce import Parents
from harness.source.sheet import Sheet
from harness.toolchain import Compiler, builds, run_compiler, syntax_tree

PATIENCE = 60.0  # seconds that a compiler may take over a file


class StuckError(Exception):
    """A compiler did not finish over a file of C that is to be read."""


def packed_parents(paths: Sequence[Path], settings: Settings) -> bytes:
    """Return what mutation can start from in *paths*, cases and C files and folders of them.

    What was found once is kept: reading it takes clang for seconds.
    """
    there = [path for path in paths if path.exists()]
    cases = corpus.find(there)
    c = sorted({c for p in there for c in (p.rglob("*.c") if p.is_dir() else [p])})
    sources = [path for path in c if path.suffix == ".c"]
    place = _place([*cases, *sources], settings)
    kept = _read(place)
    if kept is not None:
        return kept
    packed = _packed(cases, sources, settings)
    if place is not None:
        with contextlib.suppress(OSError):  # a full disk is no fault
            builds.store(place, hashlib.sha256(packed).digest() + packed)
    return packed


def _packed(cases: Sequence[Path], sources: Sequence[Path], settings: Settings) -> bytes:
    trees, streams, texts = [], [], list[Case | Path]()
    for path in cases:
        case = corpus.read(path)
        one, stream = tree_of(case), stream_of(case)
        if one is not None:
            trees.append(one)
        elif stream is not None:
            streams.append(stream)
        else:
            texts.append(case)
    texts += sources
    settings = replace(settings, patience=PATIENCE)
    try:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # they wait for clang
            sheets = list(pool.map(partial(_sheet, settings=settings), texts))
    except StuckError as stuck:
        raise HarnessError(f"{stuck}: name another compiler with --clang") from None
    known = tuple(sheet for sheet in sheets if sheet is not None)
    found = Parents(tuple(trees), tuple(streams), known)
    return pack_parents(found) if found != Parents() else b""


def _place(files: Sequence[Path], settings: Settings) -> Path | None:
    """Return where what comes of *files* is kept; None: nowhere.

    It follows from them, from the compiler, and from our own code.
    """
    who = builds.identity(settings.compilers[0].command) if settings.compilers else None
    if who is None or os.environ.get("CROSSCHECK_NO_CACHE"):
        return None
    code = Path(harness.__file__).parent
    ours = [path for name in _CODE for path in sorted((code / name).glob("*.py"))]
    digest = hashlib.sha256(f"{sys.version}\0{who}".encode())
    try:
        for path in (*ours, *files):
            text = path.read_bytes()
            digest.update(f"{path}\0{len(text)}\0".encode(errors="surrogateescape") + text)
        return builds.place(digest.hexdigest(), "parents")
    except (OSError, HarnessError):
        return None


_CODE = (".", "corpus", "grow", "isa", "source")


def _read(place: Path | None) -> bytes | None:
    """Return what is kept in *place*, if it is whole."""
    try:
        data = place.read_bytes() if place is not None else b""
    except OSError:
        return None
    head, packed = data[:32], data[32:]
    if place is None or hashlib.sha256(packed).digest() != head:
        return None
    with contextlib.suppress(OSError):
        os.utime(place)
    return packed


def _sheet(text: Case | Path, settings: Settings) -> Sheet | None:
    return read_sheet(text, settings) if isinstance(text, Path) else sheet_of(text, settings)


def excerpt_of(c: str, function: str, settings: Settings) -> Excerpt | None:
    """Return the text *c* as a program that tests *function*, with what may be cut from it."""
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as folder:
        path = Path(folder, "whole.c")
        path.write_text(c, encoding="utf-8")
        try:
            found = read_sheet(path, settings, cuts=True)
        except StuckError:
            return None
    return Excerpt(found, function) if found is not None and function in found.tests else None


def sheet_of(case: Case, settings: Settings) -> Sheet | None:
    """Return the C of *case*, on builds like those that it names."""
    assert case.source is not None
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as folder:
        path = Path(folder, "case.c")
        path.write_text(case.source.c, encoding="utf-8")
        found = read_sheet(path, settings)
    if found is None:
        return None
    source = case.source
    mcpu = max(min(source.mcpus), found.mcpu)
    agrees = case.crosscheck in (None, "agree")
    found = replace(found, mcpu=mcpu, opts=source.opts, linkages=source.linkages)
    return replace(found, agrees=agrees)


def read_sheet(path: Path, settings: Settings, *, cuts: bool = False) -> Sheet | None:
    """Return the C file *path*, with *cuts* if asked.

    None where clang does not take it, or it is nothing to mutate: programs that have sections or
    kernel functions of their own, and C that depends on conditions or other files.
    """
    compiler = settings.compilers[0]
    try:
        whole = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    parts = sheet_reading.split(whole)
    if parts is None:
        return None
    newest = BuildConfig(compiler.name, "2", MCPUS[-1], "hidden")
    settings = replace(settings, configs=(newest,), legs=(), vectors=1)
    began = time.monotonic()
    planned = pipeline.plan(path, str(path), settings)
    if planned.failure and time.monotonic() - began >= settings.patience:
        raise StuckError(f"{path.name}: {planned.failure}")
    if planned.failure or planned.programs or planned.externs or not planned.layouts:
        return None
    mcpu = min(planned.mcpus, default="v1")
    text = _expanded(parts[0], parts[1], compiler)
    if text is None:
        return None
    tree = syntax_tree(compiler, driver.discovery_args(max(mcpu, "v4")), text)
    if tree is None:
        return None
    found = sheet_reading.read(text, parts[0], tree, cuts=cuts)
    if found is None:
        return None
    tests = {p.signature.name: p.signature for p in planned.layouts}
    tests = {name: one for name, one in tests.items() if name in found.functions}
    return replace(found, tests=tests, mcpu=mcpu) if tests else None


def _expanded(includes: tuple[str, ...], rest: str, compiler: Compiler) -> str | None:
    """Return the text with its own macros expanded, and without comments."""
    arguments = [arg for arg in driver.discovery_args(MCPUS[-1]) if arg != "-c"]
    made = run_compiler(compiler, [*arguments, "-E", "-P"], source=rest)
    if made.output is None:
        return None
    return sheet_reading.joined(includes, made.output.decode(errors="replace"))
