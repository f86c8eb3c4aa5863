"""What code keeps in a part of a stack slot, and is forgotten there by a verifier.

Linux 7.3.4 knows one register's value for each slot of eight bytes
(``check_stack_write_fixed_off``). Of four bytes or fewer it knows it where they begin the slot,
until another part of that slot is written; where they do not begin it, it knows nothing.
Compilers lay out such a spill beside any other variable. What is loaded then has any value to
Linux: a loop that it is to end has no end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.frames import MAX_STACK
from harness.grow.frames import depth
from harness.grow.stack_accesses import StackAccess, operand, watch
from harness.isa.insn import FP, Alu, Call, Jump, Load, Store, StoreImm
from harness.isa.stack_args import SLOT_SIZE
from harness.model import Program, Subprogram, Vector
from harness.triage.rules import callee_at, operands, successors


@dataclass(frozen=True, slots=True)
class Home:
    """A few bytes of a function's stack that instructions name as they are."""

    sub: int  # number of the function
    offset: int  # from r10
    size: int  # bytes
    slots: frozenset[int]  # the loads and stores of exactly these bytes


def moved(
    program: Program, refused: int, vectors: Sequence[Vector], *, looping: bool
) -> Program | None:
    """Return *program* with slots of their own for what is forgotten and matters at *refused*.

    That is what ends the loop that *refused* is in, if *looping*, else what *refused* has for an
    operand. None where there is no such thing, by data flow and by runs on *vectors*.
    """
    matters = ends_loop if looping else is_operand
    insns = list(program.insns)
    lowest = {
        number: -(-depth(program, sub) // SLOT_SIZE) * SLOT_SIZE
        for number, sub in enumerate(program.subprograms)
    }
    for home, loads in forgotten(program, vectors).items():
        if not any(matters(program, home.sub, load, refused) for load in loads):
            continue
        lowest[home.sub] += SLOT_SIZE
        if lowest[home.sub] > MAX_STACK:
            return None
        for slot in home.slots:
            insn = insns[slot]
            assert isinstance(insn, Load | Store | StoreImm)
            insns[slot] = replace(insn, off=-lowest[home.sub])
    changed = tuple(insns)
    return None if changed == program.insns else replace(program, insns=changed)


# --- where ---------------------------------------------------------------------------------


def homes(program: Program, number: int) -> Iterator[Home]:
    """Yield the parts of stack slots in function *number* that are loaded and stored as they are.

    Of an instruction that names some of their bytes and others, too, they are none.
    """
    sub = program.subprograms[number]
    named: dict[tuple[int, int], set[int]] = {}
    loaded: set[tuple[int, int]] = set()
    stored: set[tuple[int, int]] = set()
    other: set[tuple[int, int]] = set()
    for slot in range(sub.start, sub.end):
        insn = program.insns[slot]
        access = operand(insn)
        if access is None or access.base != FP:
            continue
        place = access.offset, access.size
        named.setdefault(place, set()).add(slot)
        if not isinstance(insn, Load | Store | StoreImm):
            other.add(place)
        (stored if access.writes else loaded).add(place)
    for (offset, size), slots in named.items():
        place = offset, size
        alone = all(at == place or not _meet(at, place) for at in named)
        inside = offset % SLOT_SIZE + size <= SLOT_SIZE and size < SLOT_SIZE
        if alone and inside and place in loaded & stored - other:
            yield Home(number, offset, size, frozenset(slots))


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[0] + other[1] and other[0] < one[0] + one[1]


# --- what runs show --------------------------------------------------------------------------


@dataclass(slots=True)
class _Kept:
    """What is in a home, in one activation of its function."""

    beside: bool = False  # another part of the slot was written since it was stored


def forgotten(program: Program, vectors: Sequence[Vector]) -> Mapping[Home, set[int]]:
    """Return the loads that get back what was stored and Linux forgot, by home, as runs show.

    Homes that anything but their own loads and stores gets at in a run are left out.
    """
    candidates = [list(homes(program, number)) for number in range(len(program.subprograms))]
    if not any(candidates):
        return {}
    found: dict[Home, set[int]] = {}
    shared: set[Home] = set()
    kept: dict[tuple[int, Home], _Kept] = {}  # by frame

    def enter(frame: int) -> None:
        for key in [key for key in kept if key[0] == frame]:
            del kept[key]

    def see(seen: StackAccess) -> None:
        at, place = seen.frame, (seen.offset, seen.size)
        for home in candidates[seen.function]:
            if seen.slot in home.slots and seen.own:
                if seen.writes:
                    kept[at, home] = _Kept()
                elif (at, home) not in kept:
                    shared.add(home)  # what is there before anything is stored
                elif kept[at, home].beside or home.offset % SLOT_SIZE:
                    found.setdefault(home, set()).add(seen.slot)
            elif _meet(place, (home.offset, home.size)):
                shared.add(home)
            elif (
                seen.writes
                and (at, home) in kept
                and _meet(place, (home.offset // SLOT_SIZE * SLOT_SIZE, SLOT_SIZE))
            ):
                kept[at, home].beside = True

    watch(program, vectors, see, enter)
    return {home: loads for home, loads in found.items() if home not in shared}


# --- what it is for ----------------------------------------------------------------------------


def is_operand(program: Program, number: int, load: int, refused: int) -> bool:
    """Return whether *refused* has for an operand what *load*, in function *number*, gets."""
    held = _flow(program, program.subprograms[number], load)
    return any((refused, register) in held for register in operands(program.insns[refused])[0])


def ends_loop(program: Program, number: int, load: int, refused: int) -> bool:
    """Return whether what *load*, in function *number*, gets ends the loop *refused* is in.

    Or the loop that calls the function *refused* is in.
    """
    sub = program.subprograms[number]
    held = _flow(program, sub, load)
    loop = _loop(program, sub, load)
    return _within(program, loop, refused) and any(
        isinstance(insn := program.insns[slot], Jump)
        and not loop.issuperset(successors(insn, slot))
        and any((slot, register) in held for register in operands(insn)[0])
        for slot in loop
    )


def _flow(program: Program, sub: Subprogram, load: int) -> set[tuple[int, int]]:
    """Return where registers hold what *load* gets, or what is made of it: slot, register."""
    first = program.insns[load]
    assert isinstance(first, Load)
    held: set[tuple[int, int]] = set()
    work = [(after, first.dst) for after in successors(first, load)]
    while work:
        slot, register = work.pop()
        if (slot, register) in held or not sub.start <= slot < sub.end:
            continue
        held.add((slot, register))
        insn = program.insns[slot]
        reads, writes = operands(insn)
        if isinstance(insn, Call):
            writes = frozenset(range(6))
        out = {register} if register not in writes else set()
        if isinstance(insn, Alu) and register in reads:
            out.add(insn.dst)
        work += [(after, one) for after in successors(insn, slot) for one in out]
    return held


def _loop(program: Program, sub: Subprogram, slot: int) -> set[int]:
    """Return the slots of *sub* that *slot* leads to and that lead back to it."""
    edges = {
        at: [to for to in successors(program.insns[at], at) if sub.start <= to < sub.end]
        for at in range(sub.start, sub.end)
    }
    back: dict[int, list[int]] = {at: [] for at in edges}
    for at, targets in edges.items():
        for to in targets:
            back[to].append(at)
    return _reached(edges, slot) & _reached(back, slot)


def _reached(edges: Mapping[int, Sequence[int]], start: int) -> set[int]:
    """Return what one edge or more from *start* leads to."""
    seen: set[int] = set()
    work = list(edges[start])
    while work:
        at = work.pop()
        if at not in seen:
            seen.add(at)
            work += edges[at]
    return seen


def _within(program: Program, loop: set[int], slot: int) -> bool:
    """Return whether *slot* is in *loop*, or in a function that it calls."""
    if slot in loop:
        return True
    wanted = program.subprogram_at(slot)
    start = program.subprograms[wanted].start
    seen: set[int] = set()
    work = [callee.start for at in loop if (callee := callee_at(program, at)) is not None]
    while work:
        at = work.pop()
        if at == start:
            return True
        if at in seen:
            continue
        seen.add(at)
        sub = program.subprograms[program.subprogram_at(at)]
        work += [
            callee.start
            for inside in range(sub.start, sub.end)
            if (callee := callee_at(program, inside)) is not None
        ]
    return False
