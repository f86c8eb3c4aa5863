"""The stack-argument ABI: arguments six and later, addressed by r11.

Outgoing slot k (k = 1 is argument 6) is ``*(u64 *)(r11 - 8k)``, incoming slot k
is ``*(u64 *)(r11 + 8k)``. Measured on clang 23.1.4 and Linux 7.3.4; the origin is
the kernel series "bpf: Support stack arguments for BPF functions and kfuncs".

Its first version, read and written here as the dialect r12, had base register r12
and one area of negative offsets a frame: with n incoming slots, incoming slot k is
``r12 - 8k`` and outgoing slot k is ``r12 - 8(n + k)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from harness.isa.insn import PARAMS, Insn, Load, LoadImm, Store, StoreImm
from harness.isa.targets import subprogram_ranges

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


# --- the first design -------------------------------------------------------

FIRST_BASE = 12  # BPF_REG_STACK_ARG_BASE of version 1
Dialect = Literal["r11", "r12"]


class Frame(NamedTuple):
    """A subprogram, and how many stack arguments it takes: what the r12 offsets depend on."""

    start: int  # slot
    end: int  # slot, excluded
    incoming: int  # slots


def incoming_count(insns: Iterable[Insn]) -> int:
    """Return the highest incoming slot that *insns* read: the least count they can have."""
    return max((incoming_slot(insn) or 0 for insn in insns), default=0)


def frames(insns: Sequence[Insn], incoming: Mapping[int, int] | None = None) -> tuple[Frame, ...]:
    """Return the subprograms of *insns*, the merged design.

    *incoming* has counts by first slot, where they are known (BTF), and its slots begin
    subprograms; elsewhere they are counted with ``incoming_count``.
    """
    known = incoming or {}
    return tuple(
        Frame(start, end, known.get(start, incoming_count(insns[start:end])))
        for start, end in subprogram_ranges(insns, known)
    )


def frames_r12(
    insns: Sequence[Insn], incoming: Mapping[int, int] | None = None
) -> tuple[Frame, ...]:
    """Return the subprograms of *insns*, the first design (register 12).

    Where *incoming* has no count it is inferred: outgoing slots begin right below
    the incoming ones and the first is written before every call that has any, so
    the store nearest to the base tells; without stores, the farthest load does.
    """
    known = incoming or {}
    out = []
    for start, end in subprogram_ranges(insns, known):
        count = known.get(start)
        if count is None:
            loads = [slot for insn in insns[start:end] if (slot := _r12_load(insn))]
            stores = [slot for insn in insns[start:end] if (slot := _r12_store(insn))]
            count = min(stores) - 1 if stores else max(loads, default=0)
        out.append(Frame(start, end, count))
    return tuple(out)


def to_r12(insns: Sequence[Insn], program: Sequence[Frame]) -> tuple[Insn, ...]:
    """Return *insns*, the merged design, in the first one.

    *program* has all subprograms. Raises ValueError where an instruction that names
    r11 has no counterpart: it is none of the three forms, or reads a slot that its
    subprogram does not have.
    """
    out = list(insns)
    for frame in program:
        for slot in range(frame.start, frame.end):
            insn = insns[slot]
            if (k := incoming_slot(insn)) is not None:
                if k > frame.incoming:
                    raise ValueError(
                        f"slot {slot}: reads incoming stack slot {k}, of {frame.incoming}; "
                        "the first design has no place for it"
                    )
                assert isinstance(insn, Load)
                out[slot] = replace(insn, src=FIRST_BASE, off=-SLOT_SIZE * k)
            elif (k := outgoing_slot(insn)) is not None:
                assert isinstance(insn, Store | StoreImm)
                off = -SLOT_SIZE * (frame.incoming + k)
                out[slot] = replace(insn, dst=FIRST_BASE, off=off)
            elif {PARAMS, FIRST_BASE} & _registers(insn):
                raise ValueError(f"slot {slot}: {insn} has no counterpart in the first design")
    return tuple(out)


def from_r12(insns: Sequence[Insn], program: Sequence[Frame]) -> tuple[Insn, ...]:
    """Return *insns*, the first design, in the merged one; the inverse of ``to_r12``.

    Raises ValueError where an instruction names r11, which this dialect does not
    have, or r12 other than to read an incoming or write an outgoing slot.
    """
    out = list(insns)
    for frame in program:
        for slot in range(frame.start, frame.end):
            insn = insns[slot]
            load, store = _r12_load(insn), _r12_store(insn)
            if load and load <= frame.incoming:
                assert isinstance(insn, Load)
                out[slot] = replace(insn, src=PARAMS, off=SLOT_SIZE * load)
            elif store and store > frame.incoming:
                assert isinstance(insn, Store | StoreImm)
                off = -SLOT_SIZE * (store - frame.incoming)
                out[slot] = replace(insn, dst=PARAMS, off=off)
            elif load or store:
                raise ValueError(
                    f"slot {slot}: {'reads' if load else 'writes'} r12 - "
                    f"{SLOT_SIZE * (load or store or 0)}, but the subprogram's incoming slots "
                    f"are the first {frame.incoming} (.stack_args)"
                )
            elif {PARAMS, FIRST_BASE} & _registers(insn):
                raise ValueError(f"slot {slot}: {insn} is no instruction of the r12 dialect")
    return tuple(out)


def _r12_load(insn: Insn) -> int | None:
    match insn:
        case Load(size=8, src=12, off=off, signed=False) if off < 0 and off % SLOT_SIZE == 0:
            return -off // SLOT_SIZE
    return None


def _r12_store(insn: Insn) -> int | None:
    match insn:
        case Store(size=8, dst=12, off=off) | StoreImm(size=8, dst=12, off=off):
            if off < 0 and off % SLOT_SIZE == 0:
                return -off // SLOT_SIZE
    return None


def _registers(insn: Insn) -> set[int]:
    """Return the register numbers that *insn* names."""
    if isinstance(insn, LoadImm):
        return {insn.dst}  # src is its kind
    return {getattr(insn, field, None) or 0 for field in ("dst", "src")}
