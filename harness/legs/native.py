"""The ``native`` leg: the same C, compiled for x86-64 by llvmlite, run in a cage.

``native_code`` makes the code, ``native_cage`` runs it; both say how they keep a stranger's
program from doing harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from harness.jit.linker import link
from harness.legs.native_cage import FUEL, SLOW, TICK, Job, run_many
from harness.legs.native_code import LEVELS, NativeModule, build, place_image, unsuited
from harness.model import (
    HarnessError,
    Image,
    Mask,
    Outcome,
    Relocation,
    Returned,
    Trapped,
    Unknown,
    Vector,
)

__all__ = [
    "FUEL",
    "LEVELS",
    "SLOW",
    "TICK",
    "Job",
    "NativeModule",
    "NativeRunner",
    "available",
    "build",
    "build_caller",
    "run_many",
    "undefined_behaviour",
]


def available() -> str | None:
    """Return why this machine has no native leg, None if it has one."""
    return unsuited() or _cage_works()


@cache
def _cage_works() -> str | None:
    try:
        module = build(_TRIAL, (0,))[0]
    except ImportError as error:
        return f"llvmlite cannot be imported: {error}"
    if isinstance(module, Unknown):
        return module.why
    (outcome,) = NativeRunner(module, "trial").run([bytes(8)])
    return outcome.why if isinstance(outcome, Unknown) else None


_TRIAL = """\
target triple = "x86_64-unknown-linux-gnu"
define i32 @trial(ptr %context) {
  ret i32 0
}
"""


@dataclass(frozen=True, slots=True)
class NativeRunner:
    """One entry of a module."""

    module: NativeModule
    entry: str

    def run(self, vectors: Sequence[Vector]) -> Sequence[Outcome]:
        """Return one outcome for each of *vectors*, in order."""
        return run_many([(self.module, self.entry, vectors)])[0]


def build_caller(
    ir: str, image: Image, levels: Sequence[int] = (0, 2)
) -> dict[int, NativeModule | Unknown]:
    """Compile *ir*, whose calls of what it only declares go to the functions of *image*.

    So native code calls what a JIT made directly, by the System V convention alone. The
    image may refer to nothing but itself; this processor must know its instructions.
    """

    def code(base: int) -> tuple[bytes, Mapping[str, int]]:
        linked = link(image, base, _nothing)
        return linked.code, linked.symbols

    size = sum(len(sub.code) + 16 for sub in image.subprograms)
    return build(ir, levels, place_image(size, code))


def _nothing(relocation: Relocation) -> int:
    raise HarnessError(
        f"native code cannot call an image that refers to {relocation.kind} "
        f"{relocation.target}: choose functions that call no helper and use no data"
    )


_FAULTS = {
    "divide": "division by zero or overflow",
    "access": "an access to memory that is not there",
    "stack": "recursion without end",
    "instruction": "a trap in the program",
}


def undefined_behaviour(
    builds: Mapping[str, NativeModule], entry: str, vectors: Sequence[Vector], mask: Mask
) -> list[str | None]:
    """Return for each vector what is undefined about it, None where nothing was seen.

    *builds* has the source compiled with ``driver.CHECKS``: one that traps ("undefined")
    and two whose automatic variables begin differently ("zero", "pattern"). What none of
    them shows (aliasing, reads beyond an object through a pointer) stays unseen.
    """
    names = [name for name in ("undefined", "zero", "pattern") if name in builds]
    results = dict(
        zip(names, run_many([(builds[name], entry, vectors) for name in names]), strict=True)
    )
    blank = [Unknown("not built")] * len(vectors)
    bits = int.from_bytes(mask.bits, "little")
    found: list[str | None] = []
    for trapping, zero, pattern in zip(
        *(results.get(name, blank) for name in ("undefined", "zero", "pattern")), strict=True
    ):
        if isinstance(trapping, Trapped):
            found.append(_FAULTS.get(trapping.kind, trapping.where))
        elif _differ(zero, pattern, bits):
            found.append("the result depends on an uninitialised variable")
        else:
            found.append(None)
    return found


def _differ(a: Outcome, b: Outcome, bits: int) -> bool:
    if isinstance(a, Unknown) or isinstance(b, Unknown):
        return False
    if isinstance(a, Returned) and isinstance(b, Returned):
        x, y = int.from_bytes(a.ctx, "little"), int.from_bytes(b.ctx, "little")
        return a.r0 != b.r0 or bool((x ^ y) & bits)
    return type(a) is not type(b)
