"""The C sources themselves: enough of them, many-argument, and free of undefined behaviour."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import pipeline, run
from harness.toolchain import Compiler

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "c_sources").glob("*.c"))


def settings(compiler: Compiler) -> pipeline.Settings:
    return pipeline.Settings(
        run.configurations([compiler.name]),
        (compiler,),
        legs=("interp", "jit"),
        vectors=500,
        seed=7,
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_no_vector_meets_undefined_behaviour(path: Path, compiler: Compiler) -> None:
    chosen = settings(compiler)
    planned = pipeline.plan(path, path.name, chosen)
    assert planned.layouts, planned.failure
    assert not planned.unsupported
    undefined = pipeline.undefined_in(planned, chosen)
    assert isinstance(undefined, dict), undefined
    assert undefined == {}


def test_there_are_eighty_functions_of_six_to_twelve_arguments(compiler: Compiler) -> None:
    chosen = settings(compiler)
    counts = []
    for path in SOURCES:
        planned = pipeline.plan(path, path.name, chosen)
        counts += [len(place.signature.parameters) for place in planned.layouts]
    assert sum(6 <= count <= 12 for count in counts) >= 80
    assert {6, 7, 8, 9, 12} <= set(counts)
