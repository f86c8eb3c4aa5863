"""What Linux takes out of a program that it has accepted, and bpf_loop built in before that.

``bpf_remove_fastcall_spills_fills``, ``bpf_optimize_bpf_loop``,
``bpf_opt_hard_wire_dead_code_branches``, ``bpf_opt_remove_dead_code`` and
``bpf_opt_remove_nops`` (fixups.c of Linux 7.3.4), in this order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from harness.isa.insn import (
    FP,
    Alu,
    Call,
    Goto,
    High,
    Insn,
    Jump,
    Load,
    LoadImm,
    MayGoto,
    Store,
)
from harness.verifier.env import Env
from harness.verifier.rewrite import Part, Patch, Rewriter, Slot, distance, lives

MAX_LOOPS = 8 * 1024 * 1024  # BPF_MAX_LOOPS
_E2BIG = 7
_REG_SIZE = 8


def remove_spills(rewriter: Rewriter, env: Env) -> None:
    """Make spills and fills around calls that need none jumps to the next instruction."""
    slots = {slot.at: slot for part in rewriter.parts for slot in part.slots}
    for at, pairs in env.fastcall_calls.items():
        for away in range(1, pairs + 1):
            for number in (at - away, at + away):
                slot = slots[number]
                slot.insn = Goto(0)
                slot.to = slots[number + 1]


def inline_loops(rewriter: Rewriter, loops: Mapping[int, int]) -> None:
    """Build *loops* in: slots of calls, and the subprogram that each calls back; -1: it varies."""
    for part in rewriter.parts:
        depth = part.stack_depth
        extra = 3 * _REG_SIZE + -depth % 8
        modified = False
        number = 0
        while number < len(part.slots):
            slot = part.slots[number]
            callback = loops.get(slot.at, -1)
            if callback >= 0 and isinstance(slot.insn, Call):
                patch = _loop(-(depth + extra), rewriter.parts[callback].slots[0])
                number += rewriter.put(part, number, patch)
                modified = True
            else:
                number += 1
        if modified:
            part.stack_depth += extra


def _loop(base: int, callback: Slot) -> Patch:
    """``inline_bpf_loop``: r6 the bound, r7 the count, r8 the callback's context."""
    saved = [(reg, base + at * _REG_SIZE) for at, reg in enumerate((6, 7, 8))]
    return Patch(
        Jump("le", 64, 1, None, MAX_LOOPS, 2),
        Alu("mov", 32, 0, None, -_E2BIG),
        Goto(16),
        *(Store(8, FP, off, reg) for reg, off in saved),
        Alu("mov", 64, 6, 1),
        Alu("mov", 32, 7, None, 0),
        Alu("mov", 64, 8, 3),
        Jump("ge", 64, 7, 6, 0, 5),
        Alu("mov", 64, 1, 7),
        Alu("mov", 64, 2, 8),
        Call("subprog", 0),
        Alu("add", 64, 7, None, 1),
        Jump("eq", 64, 0, None, 0, -6),
        Alu("mov", 64, 0, 7),
        *(Load(8, reg, FP, off) for reg, off in saved),
        to={12: callback},
    )


def unreached(insns: Sequence[Insn], seen: bytearray) -> frozenset[int]:
    """Return the slots that were not *seen*, without second halves of what was."""
    return frozenset(
        at
        for at, insn in enumerate(insns)
        # of a load of 64 bits only the first is looked at (``check_ld_imm``)
        if not seen[at] and not (isinstance(insn, High) and seen[at - 1])
    )


def remove_dead_code(rewriter: Rewriter, unreached: Collection[int]) -> None:
    """Take out slots that are *unreached*, and branches that only ever went one way."""
    ahead = {}
    for part in rewriter.parts:
        for slot, behind in zip(part.slots, [*part.slots[1:], rewriter.end], strict=True):
            ahead[id(slot)] = behind
    dead = {id(slot) for part in rewriter.parts for slot in part.slots if slot.at in unreached}
    for part in rewriter.parts:
        for slot in part.slots:
            if not isinstance(slot.insn, Jump | MayGoto) or slot.to is None:
                continue
            behind = ahead[id(slot)]
            if id(behind) in dead:
                slot.insn = Goto(slot.insn.off)
            elif id(slot.to) in dead:
                slot.insn, slot.to = Goto(0), behind
    _lead_into_nothing(rewriter, dead)
    for part in rewriter.parts:
        number = 0
        while number < len(part.slots):
            count = 0
            while number + count < len(part.slots) and id(part.slots[number + count]) in dead:
                count += 1
            if count:
                rewriter.remove(part, number, count)
            else:
                number += 1


def _lead_into_nothing(rewriter: Rewriter, dead: set[int]) -> None:
    """Give loads of the address of a removed function the distance Linux leaves in them.

    ``bpf_adj_delta_to_imm`` does not count the slots of a region that the distance leads
    into, so that a later function, or the end, comes into its place.
    """
    slots = [slot for part in rewriter.parts for slot in part.slots]
    loads = [
        slot
        for slot in slots
        if isinstance(slot.insn, LoadImm)
        and slot.to is not None
        and id(slot) not in dead
        and id(slot.to) in dead
    ]
    if not loads:
        return
    place = {id(slot): at for at, slot in enumerate(slots)}
    regions: list[tuple[int, int]] = []  # first slot, in what is left; how many
    gone = 0
    at = 0
    while at < len(slots):
        count = 0
        while at + count < len(slots) and id(slots[at + count]) in dead:
            count += 1
        if count:
            regions.append((at - gone, count))
            gone += count
        at += max(count, 1)
    left = [slot for slot in slots if id(slot) not in dead]
    for load in loads:
        assert load.to is not None
        here, there = place[id(load)], place[id(load.to)]
        for start, count in regions:
            if here < start and there >= start + count:
                there -= count
            elif here >= start + count:
                here -= count
                if there >= start + count:
                    there -= count
        behind = there - len(left)
        load.to = left[there] if behind < 0 else rewriter.behind_the_end(behind)


def remove_nops(rewriter: Rewriter) -> None:
    """Take out jumps to the next instruction, as far as Linux notices them."""
    for part in rewriter.parts:
        number = 0
        while number < len(part.slots):
            insn = part.slots[number].insn
            optional = isinstance(insn, MayGoto)
            if (optional or (isinstance(insn, Goto) and not insn.long)) and _is_next(part, number):
                rewriter.remove(part, number, 1)
                # one back, for a may_goto that led over what is gone
                number -= 1 if optional and number > 0 else 0
            else:
                number += 1


def _is_next(part: Part, number: int) -> bool:
    slot = part.slots[number]
    if slot.to is None:
        return distance(slot.insn) == 0
    return number + 1 < len(part.slots) and lives(slot.to) is part.slots[number + 1]
