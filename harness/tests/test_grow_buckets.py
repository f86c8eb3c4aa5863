"""A construct explains a divergence only where mending it, and nothing else, ends it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import harness
from harness import corpus, pipeline
from harness.corpus.text import program as case_program
from harness.grow import buckets
from harness.grow.buckets import FORGOTTEN, NARROW, bucket, constructs, narrow_slots
from harness.isa.asm import assemble
from harness.isa.stack_args import incoming_slot
from harness.model import BuildConfig, Divergence, Program, Returned, Subprogram
from harness.pipeline import Check, Settings
from harness.source import driver
from harness.toolchain import Compiler

CORPUS = Path(harness.__file__).parent.parent / "corpus"
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


MOVED = """
static __attribute__((noinline))
long in(long a, long b, long c, long d, long e, signed char f, long g)
{
	return (a ^ b ^ c ^ d ^ e) - f + g;
}

long f(int a, int b, int c, int d, signed char e, int f)
{
	return in(a, b, c, d, f, e, c);
}
"""


def test_a_narrow_slot_is_looked_for_where_btf_has_it_elsewhere(
    tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
):
    """As where clang takes a parameter out, and those behind it move."""
    config = BuildConfig(compiler.name, "2", "v3", "hidden")
    settings = Settings((config,), (compiler,), vectors=64)
    path = tmp_path / "x.c"
    path.write_text(MOVED)
    planned = pipeline.plan(path, "x.c", settings)
    built = pipeline.compile_build(planned, config, settings)
    place = next(place for place in planned.layouts if place.signature.name == "f")
    programs = {p.name: p for p, _ in pipeline.built_programs(built, settings)}
    program = programs[driver.entry("f")]
    check = pipeline.judge_function(planned, place, config, settings, program).check
    assert check.outcome == "diverge"
    sites = narrow_slots(program)
    (right,) = sites
    other = next(
        slot
        for slot, insn in enumerate(program.insns)
        if incoming_slot(insn) and program.subprogram_at(slot) == program.subprogram_at(right)
        if slot != right
    )
    for wrong in ({other: sites[right]}, {}):  # a load of what came to lie there, or none at all
        monkeypatch.setattr(buckets, "narrow_slots", lambda _, wrong=wrong: wrong)
        assert constructs(program, check, place.mask) == [NARROW]
    few = replace(check, divergences=check.divergences[:3])  # which may be chance
    assert constructs(program, few, place.mask) == []


def test_a_slot_that_linux_forgets_to_need_is_confirmed_by_a_mended_verifier():
    text = corpus.read(CORPUS / "linux_unpropagated_slot.toml").program
    assert text is not None
    program = case_program(text, "p")
    right, wrong = Returned(0, b"\2" + bytes(7)), Returned(0, b"\1" + bytes(7))
    first = Divergence(("interp", "jit"), bytes(8), (right, wrong))
    check = Check("x.c", "f", None, "diverge", divergences=(first,))
    assert constructs(program, check, None) == [FORGOTTEN]
    linux = replace(first, legs=("interp", "kernel"))
    assert constructs(program, replace(check, divergences=(first, linux)), None) == [FORGOTTEN]
    for other in (
        replace(first, outcomes=(right, Returned(0, bytes(8)))),  # neither image does that
        replace(first, outcomes=(wrong, right)),
        replace(first, legs=("interp", "native-O0")),
        replace(first, legs=("jit", "kernel")),
    ):
        both = replace(check, divergences=(first, other))
        assert constructs(program, both, None) == []
    # what a mended verifier takes for dead, too, is another fault
    good = assemble("r0 = 1\nif r0 == 1 goto out\nr0 = 2\nout: exit").insns
    simple = Program("p", "syscall", "syscall", good, (Subprogram("p", 0, len(good)),))
    assert constructs(simple, check, None) == []
