"""A construct explains a divergence only where mending it, and nothing else, ends it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import harness
from harness import pipeline
from harness.grow.buckets import NARROW, bucket, constructs, narrow_slots
from harness.model import BuildConfig, Returned
from harness.pipeline import Settings
from harness.source import driver
from harness.toolchain import Compiler

SOURCE = Path(harness.__file__).parent.parent / "c_sources" / "narrow_forwarded.c"


def test_a_narrow_signed_slot_is_confirmed_by_experiment(compiler: Compiler):
    config = BuildConfig(compiler.name, "2", "v3", "hidden")
    settings = Settings((config,), (compiler,), vectors=32)
    planned = pipeline.plan(SOURCE, "narrow_forwarded.c", settings)
    built = pipeline.compile_build(planned, config, settings)
    programs = {p.name: p for p, _ in pipeline.built_programs(built, settings)}
    confirmed = 0
    for place in planned.layouts:
        program = programs[driver.entry(place.signature.name)]
        check = pipeline.judge_function(planned, place, config, settings, program).check
        if check.outcome != "diverge":
            continue
        assert narrow_slots(program)
        assert constructs(program, check, place.mask) == [NARROW]
        assert bucket(check, [NARROW]).endswith(NARROW)
        confirmed += 1
        # another difference beside it, and the construct is no longer the explanation
        first = check.divergences[0]
        outcomes = tuple(
            Returned(o.r0, bytes(b ^ 1 for b in o.ctx)) if leg.startswith("native") else o
            for leg, o in zip(first.legs, first.outcomes, strict=True)
            if isinstance(o, Returned)
        )
        assert len(outcomes) == 2
        other = replace(first, outcomes=(outcomes[0], outcomes[1]))
        both = replace(check, divergences=(*check.divergences, other))
        assert constructs(program, both, place.mask) == []
    assert confirmed >= 2
