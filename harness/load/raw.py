"""Raw instructions as a program: what has no object around it."""

from __future__ import annotations

from harness.isa.codec import decode
from harness.isa.targets import subprogram_ranges
from harness.load.errors import LoadError
from harness.model import Program, Subprogram


def raw_program(code: bytes, name: str = "main") -> Program:
    """Return the program that *code*, encoded instructions, is; without BTF.

    Subprograms begin where calls lead. Raises LoadError where the length is no multiple
    of 8 or zero.
    """
    try:
        insns = decode(code)
    except ValueError as error:
        raise LoadError(f"{name}: {error}") from None
    if not insns:
        raise LoadError(f"{name}: no instructions")
    subprograms = tuple(
        Subprogram(name if start == 0 else f"sub_{start}", start, end)
        for start, end in subprogram_ranges(insns)
    )
    return Program(name, "syscall", "syscall", insns, subprograms)
