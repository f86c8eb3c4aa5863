"""The r12 dialect of the first design, over all of c_sources/: same verdict, image and result."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness import pipeline, verifier
from harness.isa.asm import assemble
from harness.isa.disasm import listing
from harness.jit import x86_64
from harness.legs import kfuncs
from harness.load import load_object
from harness.model import BuildConfig, Image
from harness.source import driver

SOURCES = sorted(Path("c_sources").rglob("*.c"))


def programs(path, compiler):
    """Return the programs of *path* at -O2, or of its drivers, each with its vectors."""
    config = BuildConfig(compiler.name, "2", "v4", "hidden")
    settings = pipeline.Settings((config,), (compiler,), legs=("interp", "jit"), vectors=8)
    built = pipeline.compile_build(pipeline.plan(path, str(path), settings), config, settings)
    assert not built.planned.failure
    found = load_object(built.data, fill_names=True).programs
    vectors = {driver.entry(name): found for name, found in built.planned.vectors.items()}
    return [(p, vectors.get(p.name, ())) for p in kfuncs.attach(found, compiler)]


def through_the_dialect(program):
    """Return *program* written in the dialect as text and read again, and whether it can be."""
    counts = {sub.start: arguments(program, sub) for sub in program.subprograms}
    text = listing(program.insns, dialect="r12", incoming=counts)
    assert "r11" not in text
    return replace(program, insns=assemble(text, dialect="r12").insns), text


def arguments(program, sub):
    proto = program.btf.prototype(sub.type_id)
    slots = sum(2 if (program.btf.size_of(param.type) or 8) > 8 else 1 for param in proto.params)
    return max(0, min(slots, 12) - 5)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_program_is_the_same_in_both_dialects(path, compiler):
    written = 0
    for program, vectors in programs(path, compiler):
        try:
            again, text = through_the_dialect(program)
        except ValueError:  # forms that the first design had no way to say: all are refused
            assert "refused" in path.parts
            continue
        written += "r12" in text
        assert again.insns == program.insns
        ours, theirs = verifier.verify(again, log_level=0), verifier.verify(program, log_level=0)
        assert ours.verdict == theirs.verdict
        images = [x86_64.compile(verifier.fixup(p)) for p in (again, program)]
        assert images[0] == images[1]
        if vectors and isinstance(images[0], Image):
            for leg in ("interp", "jit"):
                assert pipeline.execute(again, leg, vectors) == pipeline.execute(
                    program, leg, vectors
                )
    assert written or path.stem in ("globals", "forms", "functions", "objects")
