"""A real Linux as a witness: its verdict, its image and its results, beside ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from harness import verifier
from harness.jit import text as x86_text
from harness.jit.x86_64 import compile as compile_program
from harness.legs import kernel_module
from harness.legs.kernel import KernelLeg
from harness.model import HarnessError, Program, SubImage, Unknown, Vector
from harness.toolchain import Compiler
from harness.triage.facts import Kernel, Linux


@contextmanager
def linux_kernel(wanted: bool, compilers: Sequence[Compiler] = ()) -> Iterator[Kernel | None]:
    """Give the question to a real Linux, which ends with the block; None if not *wanted*.

    *compilers* build the module with the project's kernel functions.
    """
    with linux_leg(wanted, compilers) as leg:
        if leg is None:
            yield None
            return

        def ask(program: Program, vectors: Sequence[Vector]) -> Linux:
            (answer,) = leg.check([program], [vectors], images=True)
            images = tuple((image.name, image.code) for image in answer.images)
            return Linux(answer.verdict, answer.outcomes, images)

        yield ask


@contextmanager
def linux_leg(
    wanted: bool, compilers: Sequence[Compiler] = (), guests: int = 1
) -> Iterator[KernelLeg | None]:
    """Give the leg itself, as ``linux_kernel`` gives the question."""
    if not wanted:
        yield None
        return
    module = kernel_module.build(compilers)
    modules = [] if isinstance(module, Unknown) else [module]
    with KernelLeg(guests=guests, compilers=compilers or None, modules=modules) as leg:
        yield leg


def image_difference(
    program: Program, theirs: Sequence[tuple[str, bytes]], dead: frozenset[int] = frozenset()
) -> str:
    """Return where Linux's image of *program* first differs from ours, "" nowhere.

    Ours is made without what our verifier found *dead*.

    Fields that depend on addresses are not compared.
    """
    try:
        image = compile_program(verifier.fixup(program, dead))
    except HarnessError as error:
        return f"ours: {error}"
    if isinstance(image, Unknown):
        return f"ours: {image.why}"
    ours = [sub for sub in image.subprograms if sub.name]
    if len(ours) != len(theirs):
        return f"{len(ours)} functions here, {len(theirs)} there"
    for sub, (_, code) in zip(ours, theirs, strict=True):
        fixed = {n for r in sub.relocations for n in range(r.offset, r.offset + r.size)}
        pairs = enumerate(zip(sub.code, code, strict=False))
        at = next((n for n, (x, y) in pairs if x != y and n not in fixed), None)
        if at is None and len(sub.code) != len(code):
            at = min(len(sub.code), len(code))
        if at is not None:
            here, there = _line(sub, at), _line(SubImage(sub.name, code, ()), at)
            return f"byte {at:#x} of {sub.name}: `{here}` here, `{there}` there"
    return ""


def _line(sub: SubImage, at: int) -> str:
    """Return the instruction of *sub* that byte *at* is part of."""
    lines = x86_text.disassemble(sub)
    return next((text for start, code, text in lines if start <= at < start + len(code)), "<end>")
