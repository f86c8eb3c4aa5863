"""The C generator: defined by construction, the driver's own view of it, cuts that stay valid."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from harness import pipeline
from harness.compare import compare_all
from harness.load import load_object
from harness.model import BuildConfig
from harness.source import driver, tree
from harness.source.generate import generate, signature
from harness.source.layout import Layout, layout
from harness.source.printing import print_file
from harness.source.scope import problems
from harness.source.shrink import shrink, variants
from harness.source.signature import functions_under_test
from harness.source.tree import Binary, Const, Name, Tree, size, walk
from harness.toolchain import Compiler, run_compiler

COUNT = 24


def batch(count: int = COUNT, seed: int = 11) -> list[tuple[str, Tree]]:
    return [(f"p{n}_", generate(seed, n)) for n in range(count)]


def plan(
    path: Path, trees: Sequence[tuple[str, Tree]], settings: pipeline.Settings
) -> pipeline.Plan:
    path.write_text(print_file(trees))
    places = []
    for prefix, one in trees:
        place = layout(signature(one, prefix))
        assert isinstance(place, Layout)
        places.append(place)
    vectors = {p.signature.name: pipeline.vectors_of(p, settings) for p in places}
    return pipeline.Plan(path.name, path, layouts=tuple(places), vectors=vectors)


def settings(compiler: Compiler) -> pipeline.Settings:
    return pipeline.Settings((), (compiler,), vectors=64, seed=3)


def test_every_name_is_in_scope_and_every_pointer_fits():
    for number in range(120):
        assert problems(generate(5, number)) == []


def test_the_same_seed_makes_the_same_program():
    assert generate(1, 2) == generate(1, 2)
    assert generate(1, 2) != generate(2, 2)


def test_programs_have_many_arguments_and_deep_calls():
    trees = [generate(5, number) for number in range(120)]
    slots = {f.slots for one in trees for f in one.functions}
    assert {6, 7, 8, 9, 10, 11, 12} <= slots
    assert max(slots) <= 12
    assert {1, 2, 3, 4, 6, 7} <= {len(one.functions) for one in trees}


def test_programs_have_all_kinds_of_statements_and_arguments():
    trees = [generate(5, number) for number in range(200)]
    nodes = [node for one in trees for node in walk(one)]
    statements = {"Call", "CallIf", "Loop", "Switch", "AtomicOp", "CopyObject", "CopyBytes", "Fill"}
    assert statements <= {type(node).__name__ for node in nodes}
    arguments = {type(a).__name__ for n in nodes if isinstance(n, tree.Call) for a in n.arguments}
    assert {"Address", "Whole", "Result", "Const", "Cast", "Binary", "Name"} <= arguments
    assert {"load", "store", "add", "cmpxchg"} <= {
        n.op for n in nodes if isinstance(n, tree.AtomicOp)
    }
    functions = [f for one in trees for f in one.functions]
    assert any(f.weak for f in functions)
    assert any(f.static for f in functions)
    assert any(not f.noinline for f in functions)
    by_value = {p.type for f in functions for p in f.parameters}
    wide = [t for t in by_value if isinstance(t, tree.StructType) and tree.size_of(t) > 8]
    assert any(t.union for t in wide)
    assert any(not t.union for t in wide)


def test_an_argument_may_call_only_what_is_pure():
    writes = tree.Function(
        "f0",
        (tree.Parameter("a0", tree.PointerType(tree.U32)),),
        tree.U32,
        (
            tree.Assign(tree.Deref("a0"), Const(tree.U32, 1)),
            tree.Return(Const(tree.U32, 2)),
        ),
    )
    inner = tree.Call("f0", (tree.Address(Name("v0")),))
    body = (
        tree.Declare("v0", tree.U32, (Const(tree.U32, 0),)),
        tree.Call("f1", (tree.Result(inner), Name("v0"))),
        tree.Return(Name("v0")),
    )
    takes = tree.Function(
        "f1",
        (tree.Parameter("a0", tree.U32), tree.Parameter("a1", tree.U32)),
        tree.U32,
        (tree.Return(Name("a0")),),
    )
    caller = tree.Function("f2", (), tree.U32, body)
    one = Tree((), (), (writes, takes, caller))
    assert problems(one) == ["f2: f0 is not pure"]
    reads = replace(
        writes,
        parameters=(tree.Parameter("a0", tree.PointerType(tree.U32, 1, True)),),
        body=(tree.Return(tree.Deref("a0")),),
    )
    assert problems(replace(one, functions=(reads, takes, caller))) == []


def test_copies_of_bytes_have_one_size_and_do_not_overlap():
    def problem(*kinds: tree.Type) -> list[str]:
        parameters = tuple(tree.Parameter(f"a{i}", k) for i, k in enumerate(kinds))  # type: ignore[arg-type]
        places = [
            tree.Deref(p.name) if isinstance(p.type, tree.PointerType) else Name(p.name)
            for p in parameters
        ]
        copy = tree.CopyBytes(places[0], places[1])
        function = tree.Function("f0", parameters, None, (copy,))
        return problems(Tree((), (), (function,)))

    assert problem(tree.U32, tree.S32) == []
    assert problem(tree.U64, tree.PointerType(tree.S64)) == []
    assert problem(tree.U64, tree.S32) == ["f0: a copy of two sizes"]
    assert problem(tree.BOOL, tree.U8) == ["f0: a copy of padding or bool"]
    pointer = tree.PointerType(tree.U64)
    assert problem(pointer, tree.PointerType(tree.S64)) == ["f0: a copy that may overlap"]


def test_a_tree_survives_json():
    one = generate(5, 3)
    assert tree.from_json(tree.to_json(one)) == one
    with pytest.raises(ValueError, match="no node"):
        tree.from_json(["Nothing", 1])


def test_what_is_out_of_scope_is_a_problem():
    one = generate(5, 0)
    body = (tree.Assign(Name("nobody"), Const(tree.U32, 0)), *one.root.body)
    broken = replace(one, functions=(*one.functions[:-1], replace(one.root, body=body)))
    assert any("nobody" in text for text in problems(broken))


def test_no_vector_meets_undefined_behaviour(tmp_path: Path, compiler: Compiler):
    chosen = settings(compiler)
    trees = [(p, t) for p, t in batch() if t.mcpu < "v4"]
    undefined = pipeline.undefined_in(plan(tmp_path / "a.c", trees, chosen), chosen)
    assert undefined == {}


def test_native_builds_agree(tmp_path: Path, compiler: Compiler):
    chosen = settings(compiler)
    planned = plan(tmp_path / "a.c", batch(), chosen)
    natives, why = pipeline.native_outcomes(planned, chosen)
    assert not why
    for place in planned.layouts:
        seen = natives[place.signature.name]
        assert not compare_all(seen, planned.vectors[place.signature.name], place.mask)


def test_discovery_finds_the_signature_that_the_tree_says(tmp_path: Path, compiler: Compiler):
    trees = batch()
    path = tmp_path / "a.c"
    path.write_text(print_file(trees))
    built = run_compiler(compiler, driver.discovery_args(), source=path)
    assert built.output, built.diagnostics
    info = load_object(built.output).btf
    assert info is not None
    found = {s.name: s for s in functions_under_test(info).signatures}
    for prefix, one in trees:
        ours = signature(one, prefix)
        if ours.slots <= 5:
            continue
        theirs = found[ours.name]
        assert [p.type for p in ours.parameters] == [p.type for p in theirs.parameters]
        assert ours.result == theirs.result


def test_most_builds_are_accepted(tmp_path: Path, compiler: Compiler):
    chosen = replace(settings(compiler), legs=("interp",), vectors=1)
    trees = [(p, replace(t, mcpu="v1")) for p, t in batch(40) if t.mcpu == "v1"]
    config = BuildConfig(compiler.name, "2", "v3", "hidden")
    checks = pipeline.check_build(plan(tmp_path / "a.c", trees, chosen), config, chosen)
    assert len(checks) == len(trees)
    refused = [c.detail for c in checks if c.verdict != "accept"]
    assert len(refused) <= len(checks) / 10, refused


def test_cuts_are_smaller_and_valid_and_compile(tmp_path: Path, compiler: Compiler):
    one = generate(5, 8)
    cuts = [cut for cut in variants(one) if not problems(cut) and size(cut) < size(one)]
    assert len(cuts) > 50
    path = tmp_path / "a.c"
    path.write_text(print_file([(f"c{i}_", cut) for i, cut in enumerate(islice(cuts, 0, None, 9))]))
    built = run_compiler(compiler, ["--target=bpf", "-O0", "-c", "-mcpu=v4"], source=path)
    assert built.ok, built.diagnostics[:2000]


def test_shrinking_keeps_what_is_interesting_and_little_else():
    def divides(trees: Sequence[Tree]) -> list[bool]:
        return [any(isinstance(n, Binary) and n.op == "div" for n in walk(t)) for t in trees]

    start = next(t for t in (generate(5, n) for n in range(100)) if divides([t])[0])
    small = shrink(start, divides)
    assert divides([small]) == [True]
    assert problems(small) == []
    assert len(small.functions) == 1
    assert size(small) < 32


def host_compiler(folder: Path) -> str | None:
    """Return a compiler of this machine that has both sanitizers' run-time libraries."""
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    for name in ("gcc", "clang", "cc"):
        if shutil.which(name):
            command = [name, SANITIZE, "-o", str(folder / "empty"), str(folder / "empty.c")]
            if not subprocess.run(command, capture_output=True).returncode:
                return name
    return None


SANITIZE = "-fsanitize=undefined,address"


def test_sanitizers_find_nothing(tmp_path: Path, compiler: Compiler):
    host = host_compiler(tmp_path)
    if host is None:
        pytest.skip(f"no C compiler here has the libraries of {SANITIZE}")
    chosen = replace(settings(compiler), vectors=10)
    planned = plan(tmp_path / "a.c", batch(16, seed=12), chosen)
    text = driver.translation_unit(planned.path, planned.layouts)
    lines = ["void *memcpy(void *, const void *, __SIZE_TYPE__);", "int main(void) {"]
    for name, vectors in planned.vectors.items():
        for vector in vectors:
            lines += [
                "\t{",
                f"\tstatic const unsigned char from[] = {{ {', '.join(map(str, vector))} }};",
                f"\tstatic _Alignas(16) unsigned char to[{len(vector)}];",
                f"\tmemcpy(to, from, {len(vector)});",
                f"\t{driver.entry(name)}(to);",
                "\t}",
            ]
    path = tmp_path / "main.c"
    path.write_text("\n".join([text, *lines, "\treturn 0;", "}", ""]))
    binary = str(tmp_path / "main")
    options = ["-std=gnu2x", "-O1", "-w", SANITIZE, "-fno-sanitize-recover=all"]
    built = subprocess.run([host, *options, "-o", binary, str(path)], capture_output=True)
    assert not built.returncode, built.stderr.decode()[:2000]
    ran = subprocess.run([binary], capture_output=True, timeout=60)
    assert not ran.returncode, ran.stderr.decode()[:2000]
