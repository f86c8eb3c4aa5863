"""One build of a source against another: the first value that is passed otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.isa.insn import Call, Exit, Store, StoreImm
from harness.isa.stack_args import REG_ARGS, SLOT_SIZE, incoming_slot, outgoing_slot
from harness.isa.targets import function_target
from harness.model import Program, Subprogram, Vector
from harness.triage.lockstep import Moment, Value, trace_interp, value_text
from harness.triage.rules import arguments, operands

WIDTH = 64  # bits of a register, and of a slot


@dataclass(frozen=True, slots=True)
class Event:
    """A call or a return of one execution, as another build of the same source has it too."""

    name: str  # "call of f", "return of f"
    values: tuple[Value, ...]  # arguments, or the result
    written: tuple[int | None, ...]  # slot of the instruction that wrote each
    widths: tuple[int, ...]  # bits of each that mean something; 0: nobody reads it


def events(program: Program, moments: Sequence[Moment]) -> list[Event]:
    """Return the calls and returns among *moments*, with what is passed."""
    found: list[Event] = []
    starts = {s.start: s for s in program.subprograms}
    counts = {s.start: arguments(program, s) for s in program.subprograms}
    writers: dict[int, int] = {}  # register, or 100 + outgoing slot: who wrote it last
    slots: dict[int, Value] = {}
    for index, moment in enumerate(moments):
        insn = program.insns[moment.slot]
        out = outgoing_slot(insn)
        if out is not None and isinstance(insn, Store | StoreImm):
            if isinstance(insn, StoreImm):
                slots[out] = insn.imm % (1 << WIDTH)
            else:
                slots[out] = moment.values[insn.src]
            writers[100 + out] = moment.slot
        target = function_target(insn, moment.slot) if isinstance(insn, Call) else None
        if target is not None and target in starts:
            count = counts[target]
            passed = [moment.values[n] for n in range(1, min(count, REG_ARGS) + 1)]
            passed += [slots.get(n) for n in range(1, count - REG_ARGS + 1)]
            who = [writers.get(n) for n in range(1, min(count, REG_ARGS) + 1)]
            who += [writers.get(100 + n) for n in range(1, count - REG_ARGS + 1)]
            widths, _ = _widths(program, starts[target], count)
            taken = _taken(program, moments[index + 1 :], counts)
            widths = tuple(w if n + 1 in taken else 0 for n, w in enumerate(widths))
            found.append(Event(f"call of {starts[target].name}", tuple(passed), tuple(who), widths))
            slots = {}
        if isinstance(insn, Exit):
            sub = program.subprograms[program.subprogram_at(moment.slot)]
            _, width = _widths(program, sub, counts[sub.start])
            found.append(
                Event(f"return of {sub.name}", (moment.values[0],), (writers.get(0),), (width,))
            )
        for register in operands(insn)[1]:
            writers[register] = moment.slot
    return found


def _taken(program: Program, moments: Sequence[Moment], counts: Mapping[int, int]) -> set[int]:
    """Return the numbers of the arguments that a callee, which *moments* begin with, reads.

    What it does not read need not be passed. Incoming slots are read before any call.
    """
    taken: set[int] = set()
    fresh = set(range(1, REG_ARGS + 1))
    for moment in moments:
        insn = program.insns[moment.slot]
        slot = incoming_slot(insn)
        if slot is not None:
            taken.add(REG_ARGS + slot)
        reads, writes = operands(insn)
        if isinstance(insn, Call):
            target = function_target(insn, moment.slot)
            passed = counts.get(target, REG_ARGS) if target is not None else REG_ARGS
            return taken | (fresh & set(range(1, passed + 1)))
        taken |= reads & fresh
        fresh -= writes
        if isinstance(insn, Exit):
            break
    return taken


def _widths(program: Program, sub: Subprogram, count: int) -> tuple[tuple[int, ...], int]:
    """Return how many bits of each argument of *sub* mean something, and of its result."""
    full = (WIDTH,) * count, WIDTH
    proto = program.btf.prototype(sub.type_id) if program.btf is not None else None
    if proto is None or program.btf is None or len(proto.params) != count:
        return full
    sizes = [program.btf.size_of(p.type) or SLOT_SIZE for p in proto.params]
    if any(size > SLOT_SIZE for size in sizes):
        return full  # takes two places
    result = min(program.btf.size_of(proto.returns) or 0, SLOT_SIZE)
    return tuple(8 * size for size in sizes), 8 * result


@dataclass(frozen=True, slots=True)
class _Difference:
    """A value that is passed otherwise."""

    written: int | None
    words: str
    upper: bool  # only in bits above those of its type
    slot: bool  # passed in a slot


def first_difference(
    program: Program, other: Program, vector: Vector
) -> tuple[int | None, str] | None:
    """Return the first value passed that *program* has otherwise than *other*, and who wrote it.

    A value that differs only above its type's bits is no fault by itself: whoever takes it
    may extend it. It is named where a result differs after it. None where they pass the
    same, or call so differently that nothing can be said.
    """
    upper: _Difference | None = None
    for found in _differences(program, other, vector):
        if found.upper:
            if upper is None or found.slot or not upper.slot:
                upper = found
            continue
        if upper is None:
            return found.written, found.words
        return upper.written, f"{upper.words}; after it, {found.words}"
    return (upper.written, upper.words) if upper else None


def _differences(program: Program, other: Program, vector: Vector) -> Iterator[_Difference]:
    ours = events(program, trace_interp(program, vector)[0])
    theirs = events(other, trace_interp(other, vector)[0])
    for a, b in zip(ours, theirs, strict=False):
        if a.name != b.name or len(a.values) != len(b.values):
            return
        for number, (x, y) in enumerate(zip(a.values, b.values, strict=True)):
            if x is None or y is None or x == y or not a.widths[number]:
                continue
            slot = number >= REG_ARGS
            place = f"r11-{SLOT_SIZE * (number + 1 - REG_ARGS)}" if slot else f"r{number + 1}"
            what = f"argument {number + 1} ({place}) at the {a.name}"
            if a.name.startswith("return"):
                what = f"the result at the {a.name}"
            words = f"{what} is {value_text(x)} here and {value_text(y)} there"
            width = a.widths[number]
            low = (1 << width) - 1
            upper = isinstance(x, int) and isinstance(y, int) and x & low == y & low
            if upper:
                words += f", which differ only above the {width} bits of its type"
            yield _Difference(a.written[number], words, upper, slot)
