"""Accesses of contexts and sockets as the kernel's own structs need them.

``bpf_convert_ctx_accesses`` (fixups.c of Linux 7.3.4): what a program reads of ``__sk_buff``
is in ``sk_buff``, and so on; loads that may fault, and accesses of an arena, get forms of
their own; and what programs that write packets begin with.
"""

from __future__ import annotations

from dataclasses import replace

from harness.isa.codec import encode
from harness.isa.insn import (
    Alu,
    Atomic,
    Call,
    Exit,
    Insn,
    Jump,
    Load,
    Raw,
    Store,
    StoreImm,
)
from harness.verifier.convert_fields import CONTEXTS, ROWS, SOCKETS, STRUCTS
from harness.verifier.convert_rows import Conversion
from harness.verifier.env import Env
from harness.verifier.kernel_layout import Layout
from harness.verifier.rewrite import Patch, Rewriter
from harness.verifier.state import ARENA, BASE, BTF_ID, CTX, MEM, UNTRUSTED

PROBE_MEM, PROBE_MEMSX = 0x20, 0x40  # BPF_PROBE_MEM, BPF_PROBE_MEMSX
PROBE_MEM32, PROBE_MEM32SX, PROBE_ATOMIC = 0xA0, 0xC0, 0xE0
_MODE = 0xE0

_SHOT, _SK_DROP = 2, 0  # TC_ACT_SHOT, SK_DROP
_PULL_DATA = 39  # BPF_FUNC_skb_pull_data
_CLONED = 1  # CLONED_MASK
_TC = ("sched_cls", "sched_act")
_CLOCK = 180  # __sk_buff.tstamp_type
_UNCLONE = {"sched_cls": _SHOT, "sched_act": _SHOT, "lwt_xmit": _SHOT, "sk_skb": _SK_DROP}


def convert_accesses(rewriter: Rewriter, env: Env, layout: Layout) -> None:
    """Rewrite every load and store whose base says so."""
    if env.seen_direct_write and env.program.type in _UNCLONE:
        rewriter.put_before(rewriter.parts[0], _unclone(layout, _UNCLONE[env.program.type]))
    clock = any(
        kind == CTX and env.program.type in _TC and isinstance(insn, Load) and insn.off == _CLOCK
        for insn, kind in zip(env.insns, env.pointer_types, strict=True)
    )
    for part in rewriter.parts:
        number = 0
        while number < len(part.slots):
            slot = part.slots[number]
            insn = slot.insn
            kind = env.pointer_types[slot.at] if slot.at >= 0 else 0
            if not kind or not isinstance(insn, Load | Store | StoreImm | Atomic):
                number += 1
            elif isinstance(insn, Atomic):
                if kind == ARENA:
                    slot.insn = _of_mode(insn, PROBE_ATOMIC)
                number += 1
            elif kind in SOCKETS or (kind == CTX and env.program.type in CONTEXTS):
                rows = SOCKETS[kind] if kind in SOCKETS else CONTEXTS[env.program.type]
                patch = Patch(*_converted(insn, rows, env.field_sizes[slot.at], layout, clock))
                number += rewriter.put(part, number, patch)
            else:
                slot.insn = _guarded(insn, kind)
                number += 1


def _guarded(insn: Load | Store | StoreImm, kind: int) -> Insn:
    """Return an access of an arena, or a load that may fault, in the kernel's own form."""
    if kind == ARENA:
        signed = isinstance(insn, Load) and insn.signed
        return _of_mode(insn, PROBE_MEM32SX if signed else PROBE_MEM32)
    if isinstance(insn, Load) and may_fault(kind):
        return _of_mode(insn, PROBE_MEMSX if insn.signed else PROBE_MEM)
    return insn


def may_fault(kind: int) -> bool:
    """Say whether a load through a pointer may fault (``bpf_may_fault_on_deref``)."""
    return kind == BTF_ID or (kind & BASE in (MEM, BTF_ID) and bool(kind & UNTRUSTED))


def _of_mode(insn: Load | Store | StoreImm | Atomic, mode: int) -> Raw:
    code = encode((insn,))
    opcode, registers = code[0], code[1]
    return Raw(
        opcode & ~_MODE & 0xFF | mode,
        registers & 0xF,
        registers >> 4,
        int.from_bytes(code[2:4], "little", signed=True),
        int.from_bytes(code[4:8], "little", signed=True),
    )


def _converted(
    insn: Load | Store | StoreImm, rows: str, field: int, layout: Layout, clock: bool
) -> list[Insn]:
    """Return the instructions for *insn*, of a field of *field* bytes (0: not in parts)."""
    size, off = insn.size, insn.off
    narrow = size < field
    whole = min(field, 8) if field % 8 == 0 and field else field
    wide = replace(insn, off=off & -whole, size=max(field, 2)) if narrow else insn
    if isinstance(wide, Load):
        wide = replace(wide, signed=False)
    conversion = Conversion(wide, layout, clock)
    conversion.convert(STRUCTS[rows], ROWS[rows])
    out = conversion.out
    if narrow and size < conversion.target:
        assert isinstance(insn, Load)
        shift = (off & whole - 1) * 8
        if shift:
            out.append(Alu("rsh", 32 if field <= 4 else 64, insn.dst, None, shift))
        mask = (1 << size * 8) - 1
        out.append(Alu("and", 32, insn.dst, None, mask - (1 << 32) if mask >> 31 else mask))
    if isinstance(insn, Load) and insn.signed:
        out.append(Alu("mov", 64, insn.dst, insn.dst, sx=size * 8))
    return out


# --- what programs begin with -------------------------------------------------------------


def _unclone(layout: Layout, drop: int) -> list[Insn]:
    """``bpf_unclone_prologue``: a packet that is shared is copied before it is written."""
    return [
        Load(1, 6, 1, layout.offset("sk_buff", "__cloned_offset")),
        Alu("and", 32, 6, None, _CLONED),
        Jump("eq", 64, 6, None, 0, 7),
        Alu("mov", 64, 6, 1),
        Alu("xor", 64, 2, 2),
        Call("helper", _PULL_DATA),
        Jump("eq", 64, 0, None, 0, 2),
        Alu("mov", 32, 0, None, drop),
        Exit(),
        Alu("mov", 64, 1, 6),
    ]
