"""The leg ``kernel``: seconds a guest takes to start, programs a second, and what agrees."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from harness import parity, run
from harness.corpus import read_known
from harness.legs.kernel import KernelLeg
from harness.model import BuildConfig, Program, Vector
from harness.pipeline import Settings, built_programs, compile_build, plan
from harness.toolchain import find_compilers

SMALL = 200  # instructions of a small program, at most
ROUNDS = 3  # the best counts: guests that share a machine with others are slowed by them
VECTORS = 8


def guests() -> None:
    """Print how long a guest takes to start, and programs a second with images and results."""
    (compiler,) = find_compilers()
    config = BuildConfig(compiler.name, "2", "v4", "hidden")
    settings = Settings((config,), (compiler,), legs=("interp", "jit"), vectors=VECTORS)
    items = []
    for path in sorted(Path("c_sources").glob("*.c")):
        built = compile_build(plan(path, str(path), settings), config, settings)
        items += [i for i in built_programs(built, settings) if len(i[0].insns) <= SMALL]
    programs = [program for program, _ in items]
    vectors = [found for _, found in items]
    with KernelLeg(compilers=[compiler]) as leg:
        leg.check(programs[:2], images=False)
        verdicts = _rate(leg, programs, [])
        everything = _rate(leg, programs, vectors)
        boots = ", ".join(f"{seconds:.1f}" for seconds in leg.boots)
    print(f"kernel: guests start in {boots} s")
    print(f"kernel: {verdicts:.0f} verdicts a second, {len(programs)} programs on two guests")
    print(f"kernel: {everything:.0f} with images and results on {VECTORS} vectors")


def _rate(leg: KernelLeg, programs: list[Program], vectors: list[Sequence[Vector]]) -> float:
    best = 0.0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        leg.check(programs, vectors, images=bool(vectors))
        best = max(best, len(programs) / (time.perf_counter() - began))
    return best


def agreement() -> None:
    """Print how much of c_sources/, its refusals and corpus/ agrees with Linux."""
    compilers = find_compilers()
    configs = run.configurations([compiler.name for compiler in compilers])
    settings = Settings(configs, tuple(compilers), vectors=VECTORS)
    sources, cases = run.expand([])
    known = read_known(Path("corpus/known.toml"))
    found = parity.parity(sources, cases, [], settings, known=known)
    for group in ("c_sources/", "c_sources/refused/", "corpus/"):
        members = [c for c in found.comparisons if _group(c.source) == group]
        same = sum(not c.differences for c in members)
        verdicts = sum(c.parts["verdict"] == "same" for c in members)
        print(
            f"kernel: {group:<19} {len(members)} programs, {verdicts} verdicts agree, "
            f"{same} in every part"
        )
    print(f"kernel: {found.seconds:.0f} s, {len(found.comparisons) / found.seconds:.0f} a second")


def _group(source: str) -> str:
    if source.endswith(".toml"):
        return "corpus/"
    return "c_sources/refused/" if "/refused/" in source else "c_sources/"


def kernel() -> None:
    """Print all of it."""
    guests()
    agreement()
