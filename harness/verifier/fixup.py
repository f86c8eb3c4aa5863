"""The rewriting that any program needs before the JIT, verified or not.

Division and modulo by zero and by -1, casts between address spaces, may_goto, and bpf_loop
where it can be built in: what the legs run. What Linux makes of a program that its verifier
has accepted is ``translate``'s.
"""

from __future__ import annotations

from dataclasses import replace

from harness.frames import infer
from harness.isa.insn import AddrSpaceCast, Alu, Call, Insn, LoadImm, MayGoto
from harness.isa.opcodes import PSEUDO_FUNC
from harness.model import Frame, HarnessError, Program
from harness.verifier.arithmetic import AX, divided
from harness.verifier.dead_code import inline_loops, remove_dead_code
from harness.verifier.loop_calls import fit_loops, is_loop
from harness.verifier.misc_fixups import count_loops, may_goto_patch
from harness.verifier.rewrite import OutOfReachError, Patch, Rewriter

__all__ = ["AX", "fixup"]


def fixup(program: Program, dead: frozenset[int] = frozenset()) -> Program:
    """Return *program* as the JIT gets it: offsets, lines and subprograms moved along.

    *program* need not be verified; the slots of it that a verifier found *dead* are left out,
    unless it holds a function's address: that would be another, and may be compared.
    Raises HarnessError where a jump no longer reaches.
    """
    global _last
    last = _last
    if last is not None and last[0] is program and last[1] == dead:
        return last[2]
    found = _fixed(_alive(program, dead) if dead else program)
    _last = program, dead, found
    return found


# a program is asked for by the JIT, and looked at
_last: tuple[Program, frozenset[int], Program] | None = None


def _alive(program: Program, dead: frozenset[int]) -> Program:
    """Return *program* without what is *dead*."""
    if any(isinstance(insn, LoadImm) and insn.src == PSEUDO_FUNC for insn in program.insns):
        return program
    frames = program.frames or (Frame(0),) * len(program.subprograms)
    rewriter = Rewriter(program, program.insns, frames)
    for part in rewriter.parts:
        for slot in part.slots:
            slot.indirect = slot.at in program.indirect
    remove_dead_code(rewriter, dead)
    found = rewriter.program_now()
    return found if program.frames else replace(found, frames=())


def _fixed(program: Program) -> Program:
    patches = {}
    loops, counts = False, False
    for at, insn in enumerate(program.insns):
        if type(insn) not in _PATCHED:
            continue
        if type(insn) is MayGoto:
            counts = True
        elif type(insn) is Call:
            loops = loops or is_loop(insn)
        elif patch := _patch(insn):
            patches[at] = patch
    fit = fit_loops(program) if loops else {}
    if not (patches or fit or counts):
        return program
    grows = counts or bool(fit)  # its frames hold more than what the program says
    frames = program.frames or (infer(program) if grows else (Frame(0),) * len(program.subprograms))
    rewriter = Rewriter(program, program.insns, frames)
    if fit:
        inline_loops(rewriter, fit)
    for part in rewriter.parts:
        number = 0
        while number < len(part.slots):
            slot = part.slots[number]
            insns = patches.get(slot.at)
            if insns is not None:
                number += rewriter.put(part, number, Patch(*insns))
            elif type(slot.insn) is MayGoto and slot.to is not None:
                number += rewriter.put(part, number, may_goto_patch(part, slot))
            else:
                number += 1
    count_loops(rewriter)
    try:
        found = rewriter.program_now()
    except OutOfReachError as error:
        raise HarnessError(f"{program.name}: {error}; make the function shorter") from None
    return found if program.frames or grows else replace(found, frames=())


_PATCHED = frozenset({Alu, AddrSpaceCast, MayGoto, Call})


def _patch(insn: Insn) -> tuple[Insn, ...] | None:
    match insn:
        case AddrSpaceCast(dst=dst, src=src, imm=1):
            return (Alu("mov", 32, dst, src),)
    return divided(insn)
