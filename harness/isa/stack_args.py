"""The stack-argument ABI: arguments six and later, addressed by r11.

Outgoing slot k (k = 1 is argument 6) is ``*(u64 *)(r11 - 8k)``, incoming slot k
is ``*(u64 *)(r11 + 8k)``. Measured on clang 23.1.4 and Linux 7.3.4; the origin is
the kernel series "bpf: Support stack arguments for BPF functions and kfuncs".
"""

from __future__ import annotations

from harness.isa.insn import PARAMS, Insn, Load, Store, StoreImm

REG_ARGS = 5  # MAX_BPF_FUNC_REG_ARGS: arguments in r1 to r5
MAX_ARGS = 12  # MAX_BPF_FUNC_ARGS
MAX_SLOTS = MAX_ARGS - REG_ARGS
SLOT_SIZE = 8  # bytes


def incoming_slot(insn: Insn) -> int | None:
    """Return the incoming slot (from 1) that *insn* reads, or None if it reads none."""
    match insn:
        case Load(size=8, src=11, off=off, signed=False) if off > 0 and off % SLOT_SIZE == 0:
            return off // SLOT_SIZE
    return None


def outgoing_slot(insn: Insn) -> int | None:
    """Return the outgoing slot (from 1) that *insn* writes, or None if it writes none."""
    match insn:
        case Store(size=8, dst=11, off=off) | StoreImm(size=8, dst=11, off=off):
            if off < 0 and off % SLOT_SIZE == 0:
                return -off // SLOT_SIZE
    return None


def load_incoming(dst: int, slot: int) -> Load:
    """Return the load of incoming *slot* (from 1) to *dst*."""
    return Load(8, dst, PARAMS, SLOT_SIZE * slot)


def store_outgoing(slot: int, src: int) -> Store:
    """Return the store of *src* to outgoing *slot* (from 1)."""
    return Store(8, PARAMS, -SLOT_SIZE * slot, src)
