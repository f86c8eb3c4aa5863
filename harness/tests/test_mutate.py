"""Mutants of kept programs: still programs, still defined, in other places and types."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from harness import corpus, pipeline, verifier
from harness.model import Accepted, HarnessError
from harness.source import mutate, streams
from harness.source.generate import generate
from harness.source.layout import Layout, layout
from harness.source.printing import print_file
from harness.source.produce import Parents, c_program
from harness.source.scope import problems
from harness.source.tree import Call, IntType, Tree, walk
from harness.source.tree_signature import signature
from harness.toolchain import Compiler

PARENTS = [generate(31, number) for number in range(24)]


def mutant(number: int) -> Tree:
    found = mutate.tree(random.Random(number), PARENTS)
    assert found is not None
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 20))
def test_a_mutant_is_a_program_and_another_one(number: int):
    found = mutant(number)
    assert problems(found) == []
    assert found not in PARENTS
    assert found == mutant(number)


def test_mutants_change_types_places_constants_and_calls():
    changed, swapped, spliced = 0, 0, 0
    by_shape = {tuple(f.name for f in p.functions): p for p in PARENTS}
    for number in range(200):
        found = mutant(number)
        parent = by_shape.get(tuple(f.name for f in found.functions))
        if parent is None:
            spliced += 1
            continue
        old, new = parent.root.parameters, found.root.parameters
        names = [p.name for p in old], [p.name for p in new]
        swapped += names[0] != names[1] and sorted(names[0]) == sorted(names[1])
        types = {p.name: p.type for p in old}
        changed += any(
            isinstance(p.type, IntType) and types.get(p.name) not in (None, p.type) for p in new
        )
    assert min(changed, swapped, spliced) > 3


def test_some_mutants_are_of_one_function_of_the_parent_and_what_it_calls():
    roots = [p.root.name for p in PARENTS if len(p.functions) > 1]
    small = 0
    for number in range(100):
        parent = random.Random(number).choice(PARENTS)
        found = mutant(number)
        small += len(found.functions) < len(parent.functions) and found.root.name not in roots
        assert not found.root.static
        assert not found.root.weak
    assert small > 5


def test_mutants_have_no_undefined_behaviour(tmp_path: Path, compiler: Compiler):
    chosen = pipeline.Settings((), (compiler,), vectors=32, seed=3)
    trees = [(f"m{n}_", one) for n in range(40) if (one := mutant(n)).mcpu < "v4"][:20]
    path = tmp_path / "a.c"
    path.write_text(print_file(trees))
    places = [layout(signature(one, prefix)) for prefix, one in trees]
    kept = tuple(place for place in places if isinstance(place, Layout))
    assert len(kept) == len(trees)
    vectors = {p.signature.name: pipeline.vectors_of(p, chosen) for p in kept}
    planned = pipeline.Plan("a.c", path, layouts=kept, vectors=vectors)
    assert pipeline.undefined_in(planned, chosen) == {}


def test_a_campaign_with_parents_mutates_some():
    parents = Parents(trees=tuple(PARENTS))
    found = [c_program(5, number, parents) for number in range(30)]
    fresh = [generate(5, number) for number in range(30)]
    assert found == [c_program(5, number, parents) for number in range(30)]
    assert 3 < sum(a != b for a, b in zip(found, fresh, strict=True)) < 20


def test_a_spliced_tree_calls_the_other_program():
    rng = random.Random(1)
    small = [one for one in PARENTS if len(one.functions) == 1][:2]
    found = mutate._splice(rng, small[0], small)
    assert found is not None
    assert problems(found) == []
    assert any(isinstance(n, Call) for n in walk(found.root.body))


def test_mutants_of_text_assemble_mostly_and_some_are_accepted():
    texts = [streams.generate(32, number)[0] for number in range(8)]
    verdicts = []
    for number in range(60):
        rng = random.Random(number)
        found, _ = mutate.text(rng, rng.choice(texts), texts)
        try:
            built = corpus.program(found, "mutant")
        except HarnessError:
            continue
        options = verifier.Options(budget=20_000)
        verdicts.append(verifier.verify(built, log_level=0, options=options).verdict)
    assert len(verdicts) > 50
    assert any(isinstance(verdict, Accepted) for verdict in verdicts)
