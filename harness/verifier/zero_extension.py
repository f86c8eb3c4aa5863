"""The upper half of r0 after a 32-bit compare and exchange.

``bpf_compute_live_registers`` (liveness.c) and ``bpf_opt_subreg_zext_lo32_rnd_hi32``
(fixups.c of Linux 7.3.4): the instruction loads r0 only where the comparison fails, so
that Linux clears the upper half behind it, where it is used. No other instruction needs
that on x86-64.
"""

from __future__ import annotations

from harness.isa import opcodes as o
from harness.isa.insn import (
    Alu,
    Atomic,
    Call,
    Endian,
    Exit,
    GotoX,
    High,
    Insn,
    Jump,
    Load,
    LoadImm,
    Raw,
    Store,
    StoreImm,
)
from harness.verifier.env import Env
from harness.verifier.helpers import prototype
from harness.verifier.rewrite import Patch, Rewriter

_CALLER_SAVED = 0x3F


def high_used(env: Env) -> frozenset[int]:
    """Return the slots of 32-bit exchanges behind which the upper half of r0 is used."""
    exchanges = [at for at, insn in enumerate(env.insns) if _is_exchange(insn)]
    if not exchanges:
        return frozenset()
    uses = [_high_use(env, insn) for insn in env.insns]
    live = [0] * env.count
    changed = True
    while changed:
        changed = False
        for at in env.postorder:
            use, define = uses[at]
            before = _after(env, live, at) & ~define | use
            if before != live[at]:
                live[at] = before
                changed = True
    return frozenset(at for at in exchanges if _after(env, live, at) & 1)


def _after(env: Env, live: list[int], at: int) -> int:
    after = 0
    for to in env.successors[at]:
        after |= live[to]
    return after


def _is_exchange(insn: Insn) -> bool:
    match insn:
        case Atomic(op="cmpxchg", size=4):
            return True
        case Raw(opcode=opcode, imm=o.CMPXCHG):  # in the arena
            return opcode == (o.STX | 0xE0 | o.SIZES[4])
    return False


def _high_use(env: Env, insn: Insn) -> tuple[int, int]:
    """Return whose upper halves *insn* uses and defines, as bit masks (of registers)."""
    match insn:
        case LoadImm(dst=dst):
            return 0, 1 << dst
        case High():
            return 0, 0
        case Load(dst=dst, src=src):
            return 1 << src, 1 << dst
        case StoreImm(dst=dst):
            return 1 << dst, 0
        case Store(size=size, dst=dst, src=src):
            return 1 << dst | (1 << src if size == 8 else 0), 0
        case Atomic(op=op, size=size, dst=dst, src=src, fetch=fetch):
            value = 1 << src if size == 8 else 0
            if op == "cmpxchg":
                return (1 if size == 8 else 0) | 1 << dst | value, 1
            if op == "load_acquire":
                return 1 << src, 1 << dst
            return 1 << dst | value, 1 << src if fetch else 0
        case Endian(dst=dst):
            return 1 << dst, 1 << dst
        case Alu(op=op, bits=bits, dst=dst, src=src):
            read = 0 if src is None else 1 << src
            read |= 0 if op == "mov" else 1 << dst
            return read if bits == 64 else 0, 1 << dst
        case Jump(bits=bits, dst=dst, src=src):
            return (1 << dst | (0 if src is None else 1 << src)) if bits == 64 else 0, 0
        case GotoX(dst=dst):
            return 1 << dst, 0
        case Exit():
            return 1, 0
        case Call():
            return _arguments(env, insn), _CALLER_SAVED
    return (1 << 16) - 1 if type(insn).__name__ in ("LoadPacket", "Raw", "CallX") else 0, 0


def _arguments(env: Env, insn: Call) -> int:
    """Return r1 up to what the callee takes; all five where that is not known."""
    count = 5
    if insn.kind == "helper":
        proto = prototype(env.program, insn.imm)
        if proto is not None:
            count = len(proto.args)
    elif insn.kind == "kfunc" and insn.imm in env.kfuncs:
        count = len(env.kfuncs[insn.imm].arguments)
    return (1 << min(count, 5) + 1) - 2


def extend_exchanges(rewriter: Rewriter, used: frozenset[int]) -> None:
    """Clear the upper half of r0 behind exchanges of which it is used."""
    for part in rewriter.parts:
        number = 0
        while number < len(part.slots):
            slot = part.slots[number]
            insn = slot.insn
            if _is_exchange(insn) and (slot.at in used or slot.high_used):
                number += rewriter.put(part, number, Patch(insn, ZEXT))
            else:
                number += 1


# BPF_ZEXT_REG(0): a 32-bit move to itself with 1 in its immediate
ZEXT = Raw(o.ALU | o.ALU_OPS["mov"] | o.X, 0, 0, 0, 1)
