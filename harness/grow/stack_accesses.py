"""What runs of a program show of its stack: who gets at which bytes of which frame.

What helpers read and write there on a program's behalf is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.interp import HELPERS, STACK, STACK_SIZE, Interpreter
from harness.isa.insn import FP, Atomic, Insn, Load, Store, StoreImm
from harness.legs.kfunc_models import KFUNCS
from harness.model import Program, Vector


@dataclass(frozen=True, slots=True)
class Operand:
    """Where in memory an instruction reads or writes."""

    base: int  # register
    offset: int
    size: int  # bytes
    writes: bool


@dataclass(frozen=True, slots=True)
class StackAccess:
    """An instruction that gets at bytes of a frame."""

    slot: int
    frame: int  # which of those that are active, 0: main's
    function: int  # number of the function whose frame it is
    own: bool  # the instruction is that function's own, in this activation
    offset: int  # from the frame's r10
    size: int  # bytes
    writes: bool


def operand(insn: Insn) -> Operand | None:
    """Return where *insn* reads or writes memory; None: nowhere, or in a stack argument."""
    match insn:
        case Load(src=base, off=off, size=size):
            found = Operand(base, off, size, False)
        case Store(dst=base, off=off, size=size) | StoreImm(dst=base, off=off, size=size):
            found = Operand(base, off, size, True)
        case Atomic(op="load_acquire", src=base, off=off, size=size):
            found = Operand(base, off, size, False)
        case Atomic(dst=base, off=off, size=size):
            found = Operand(base, off, size, True)
        case _:
            return None
    return found if found.base <= FP else None


def watch(
    program: Program,
    vectors: Sequence[Vector],
    see: Callable[[StackAccess], None],
    enter: Callable[[int], None] = lambda _frame: None,
) -> None:
    """Run *program* on *vectors*: *see* each access to a stack, *enter* each new frame before."""
    operands = [operand(insn) for insn in program.insns]
    functions: dict[int, int] = {}  # by frame
    innermost = -1

    def look(slot: int, held: tuple[int | None, ...]) -> None:
        nonlocal innermost
        frame = ((held[FP] or 0) >> 32) - STACK
        if frame > innermost:  # a call, or the start
            functions[frame] = program.subprogram_at(slot)
            enter(frame)
        innermost = frame
        where = operands[slot]
        if where is None:
            return
        address = (held[where.base] or 0) + where.offset
        at = (address >> 32) - STACK
        if 0 <= at <= innermost:
            offset = (address & 0xFFFF_FFFF) - STACK_SIZE
            own = at == innermost
            see(StackAccess(slot, at, functions[at], own, offset, where.size, where.writes))

    interpreter = Interpreter(program, HELPERS, KFUNCS)
    for vector in vectors:
        innermost = -1
        interpreter.run(vector, trace=look)
