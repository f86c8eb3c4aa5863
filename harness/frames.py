"""The frame of a subprogram that no verifier has looked at (``model.Frame``).

Raw programs (the conformance plugin, ``--no-verify``) come without the verifier's
stack depth. What is inferred here is never too small for a program that a verifier
would accept, but may be more than Linux would give.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.isa.insn import (
    FP,
    R6,
    Alu,
    Atomic,
    Call,
    CallX,
    Goto,
    Insn,
    Jump,
    Load,
    MayGoto,
    Raw,
    Store,
    StoreImm,
)
from harness.model import Frame, Program

MAX_STACK = 512  # MAX_BPF_STACK, bytes
TAIL_CALL = 12  # helper number of bpf_tail_call
TAIL_CALL_OPCODE = 0xF5  # JMP | TAIL_CALL: the kernel's own form of a tail call

_BRANCHES = (Jump, Goto, MayGoto)
_MAYBE_TAIL_CALLS = (Call, Raw)
_ANY = None  # a register that may point anywhere, the stack included


def infer(program: Program) -> tuple[Frame, ...]:
    """Return a frame for each subprogram of *program*, from the instructions alone."""
    bodies = [program.insns[sub.start : sub.end] for sub in program.subprograms]
    tail = [
        any(isinstance(i, _MAYBE_TAIL_CALLS) and is_tail_call(i) for i in body) for body in bodies
    ]
    index_of = {sub.start: index for index, sub in enumerate(program.subprograms)}
    callers = {
        (index_of.get(sub.start + at + 1 + insn.imm, -1), index)
        for index, (sub, body) in enumerate(zip(program.subprograms, bodies, strict=True))
        for at, insn in enumerate(body)
        if isinstance(insn, Call) and insn.kind == "subprog"
    }
    changed = True
    while changed:
        changed = False
        for callee, caller in callers:
            if callee >= 0 and tail[callee] and not tail[caller]:
                tail[caller] = changed = True
    return tuple(
        Frame(stack_depth(body), tail_call_reachable=reachable)
        for body, reachable in zip(bodies, tail, strict=True)
    )


def is_tail_call(insn: Insn) -> bool:
    """Say whether *insn* is a tail call, as the program or as the kernel writes it."""
    if isinstance(insn, Call):
        return insn.kind == "helper" and insn.imm == TAIL_CALL
    return isinstance(insn, Raw) and insn.opcode == TAIL_CALL_OPCODE


def stack_depth(body: Sequence[Insn]) -> int:
    """Return how many bytes below its frame pointer *body* may use.

    One walk in order: registers that hold the frame pointer plus a constant are
    followed up to the next jump target; anything less clear counts as the whole stack.
    """
    targets = {at + 1 + insn.off for at, insn in enumerate(body) if isinstance(insn, _BRANCHES)}
    pointers: dict[int, int | None] = {}
    lowest = 0
    derived = False  # a stack pointer has left r10
    for at, insn in enumerate(body):
        if at in targets:
            pointers = dict.fromkeys(range(FP), _ANY) if derived else {}
        match insn:
            case Alu():
                dst, src = insn.dst, insn.src
                whole = insn.bits == 64
                if insn.op == "mov":
                    if whole and src == FP and not insn.sx:
                        pointers[dst], derived = 0, True
                    elif whole and src in pointers and not insn.sx:
                        pointers[dst] = pointers[src]
                    else:
                        pointers.pop(dst, None)
                elif whole and src is None and dst in pointers and insn.op in ("add", "sub"):
                    was = pointers[dst]
                    step = insn.imm if insn.op == "add" else -insn.imm
                    if was is _ANY:
                        lowest = -MAX_STACK if step < 0 else lowest
                    else:
                        pointers[dst] = was + step
                        lowest = min(lowest, was + step)
                elif dst in pointers or src == FP or src in pointers:
                    pointers[dst] = _ANY
                    lowest = -MAX_STACK
            case Load(dst=dst, src=base, off=off):
                lowest = min(lowest, _reach(pointers, base, off))
                pointers.pop(dst, None)
                if derived:
                    pointers[dst] = _ANY  # may be a spilled one
            case Jump() | Goto():
                pass
            case Store(dst=base, off=off) | StoreImm(dst=base, off=off) | Atomic(dst=base, off=off):
                lowest = min(lowest, _reach(pointers, base, off))
                if isinstance(insn, Atomic):
                    lowest = min(lowest, _reach(pointers, insn.src, off))
                    for dst in (0, insn.src, insn.dst):
                        pointers[dst] = _ANY
            case Call() | CallX():
                for dst in range(R6):
                    pointers.pop(dst, None)
        if lowest <= -MAX_STACK:
            return MAX_STACK
    return -lowest


def _reach(pointers: dict[int, int | None], base: int, off: int) -> int:
    """Return the lowest offset from the frame pointer that an access touches, 0 for none."""
    if base == FP:
        return min(off, 0)
    if base not in pointers:
        return 0
    known = pointers[base]
    if known is _ANY:
        return -MAX_STACK if off < 0 else 0
    return min(known + off, 0)
