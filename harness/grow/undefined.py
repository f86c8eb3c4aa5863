"""Registers and slots that hold no value where none is needed: mends of refusals."""

from __future__ import annotations

import re

from harness.grow.constructs import BARE, BLANK, UNREAD, UNSET
from harness.grow.refused import ANYTHING, Refused, put, swapped
from harness.grow.slots import callees_behind, goes_nowhere
from harness.isa.insn import FP, PARAMS, Alu, Call, Load, Store, StoreImm
from harness.isa.stack_args import REG_ARGS, SLOT_SIZE, outgoing_slot
from harness.model import Program
from harness.triage.rules import callee_at


def unread(it: Refused) -> tuple[str, Program] | None:
    """Store something in a slot that gets an undefined register: the call passes no value."""
    insn, slot = it.at, outgoing_slot(it.at)
    if slot is None or not isinstance(insn, Store) or it.message != f"R{insn.src} !read_ok":
        return None
    callees = callees_behind(it.program, it.insn, slot)
    if not callees or not all(it.passes_nothing(sub, slot) for sub in callees):
        return None
    if not it.broken("unread"):
        return None
    return UNREAD, swapped(it.program, {it.insn: StoreImm(insn.size, insn.dst, insn.off, ANYTHING)})


def spilled(it: Refused) -> tuple[str, Program] | None:
    """Spill something where an undefined register is kept for slots that get no value."""
    insn = it.at
    if not isinstance(insn, Store) or (insn.dst, insn.size) != (FP, SLOT_SIZE):
        return None
    if it.message != f"R{insn.src} !read_ok" or not it.broken("unread"):
        return None
    back = [
        slot
        for slot, load in enumerate(it.program.insns[it.sub.start : it.sub.end], it.sub.start)
        if isinstance(load, Load) and (load.src, load.off) == (FP, insn.off)
    ]
    if not back or not all(
        goes_nowhere(it.program, slot, it.sub.end, it.passes_nothing) for slot in back
    ):
        return None
    return UNREAD, swapped(it.program, {it.insn: StoreImm(insn.size, insn.dst, insn.off, ANYTHING)})


def unset(it: Refused) -> tuple[str, Program] | None:
    """Put something in a register for which a call of a global function has no value."""
    named = re.fullmatch(r"R(\d+) is not a scalar", it.message)
    callee = callee_at(it.program, it.insn)
    if named is None or callee is None or not 1 <= int(named[1]) <= REG_ARGS:
        return None
    register = int(named[1])
    if not it.passes_nothing(callee, register - REG_ARGS):
        return None
    return put(it, UNSET, {it.insn: Alu("mov", 64, register, None, ANYTHING)})


def bare(it: Refused) -> tuple[str, Program] | None:
    """Store something in a slot that is not written, because the call passes no value."""
    callee = callee_at(it.program, it.insn)
    named = re.search(r"stack arg(\d+) is not initialized", it.message)
    if callee is None or named is None or not it.broken("unwritten"):
        return None
    slot = int(named[1])
    if not it.passes_nothing(callee, slot):
        return None
    return put(it, BARE, {it.insn: StoreImm(SLOT_SIZE, PARAMS, -SLOT_SIZE * slot, ANYTHING)})


def blank(it: Refused) -> tuple[str, Program] | None:
    """Define a register where the IR goes on from no value: it holds anything, until it counts."""
    named = re.fullmatch(r"R(\d+) !read_ok", it.message)
    seen = it.functions().get(it.sub.name)
    if named is None or seen is None or seen.begins or not it.broken("unread"):
        return None
    register = int(named[1])
    if 1 <= register <= min(seen.words, REG_ARGS) or register > FP:
        return None
    value = Alu("mov", 64, register, None, ANYTHING)
    insns = it.program.insns[it.sub.start : it.sub.end]
    # before all else, and behind what spoils it: there it is of no use to anybody
    spoilt = [
        slot
        for slot, insn in enumerate(insns, it.sub.start + 1)
        if isinstance(insn, Call) and 1 <= register <= REG_ARGS and slot < it.sub.end
    ]
    return put(it, BLANK, dict.fromkeys([it.sub.start, *spoilt], value))
