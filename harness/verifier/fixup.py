"""The rewriting that any program needs before the JIT, verified or not.

Division and modulo by zero and by -1, and casts between address spaces: what the legs run.
What Linux makes of a program that its verifier has accepted is ``translate``'s.
"""

from __future__ import annotations

from dataclasses import replace

from harness.isa.insn import AddrSpaceCast, Alu, Insn
from harness.model import Frame, HarnessError, Program
from harness.verifier.arithmetic import AX, divided
from harness.verifier.rewrite import OutOfReachError, Patch, Rewriter

__all__ = ["AX", "fixup"]


def fixup(program: Program) -> Program:
    """Return *program* as the JIT gets it: offsets, lines and subprograms moved along.

    *program* need not be verified. Raises HarnessError where a jump no longer reaches.
    """
    global _last
    last = _last
    if last is not None and last[0] is program:
        return last[1]
    found = _fixed(program)
    _last = program, found
    return found


_last: tuple[Program, Program] | None = None  # a program is asked for by the JIT, and looked at


def _fixed(program: Program) -> Program:
    patches = {
        at: patch
        for at, insn in enumerate(program.insns)
        if type(insn) in _PATCHED and (patch := _patch(insn))
    }
    if not patches:
        return program
    frames = program.frames or (Frame(0),) * len(program.subprograms)
    rewriter = Rewriter(program, program.insns, frames)
    for part in rewriter.parts:
        number = 0
        while number < len(part.slots):
            patch = patches.get(part.slots[number].at)
            number += 1 if patch is None else rewriter.put(part, number, Patch(*patch))
    try:
        found = rewriter.program_now()
    except OutOfReachError as error:
        raise HarnessError(f"{program.name}: {error}; make the function shorter") from None
    return found if program.frames else replace(found, frames=())


_PATCHED = (Alu, AddrSpaceCast)


def _patch(insn: Insn) -> tuple[Insn, ...] | None:
    match insn:
        case AddrSpaceCast(dst=dst, src=src, imm=1):
            return (Alu("mov", 32, dst, src),)
    return divided(insn)
