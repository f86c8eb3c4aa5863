"""A program being rewritten: slots that jumps refer to by identity, not by distance.

``bpf_patch_insn_data`` and ``verifier_remove_insns`` (fixups.c of Linux 7.3.4) move every
offset, subprogram and line along with each patch; here distances are worked out once, at
the end. A patch keeps the slot that it stands in: what led there leads to its first
instruction. What led to a removed slot leads to what follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.isa.insn import Call, Goto, Insn, Jump, LoadImm, MayGoto
from harness.isa.targets import function_target, jump_target
from harness.model import Frame, LineInfo, Program, Subprogram

HEAP = "*"  # before the name of what lies anywhere, not in the kernel's image


class OutOfReachError(Exception):
    """A jump became too long for its 16 bits."""

    def __init__(self, at: int) -> None:
        super().__init__(f"insn {at} cannot be patched due to 16-bit range")
        self.at = at


@dataclass(slots=True, eq=False)
class Slot:
    """One slot of the program."""

    insn: Insn
    at: int = -1  # slot of the verified program whose marks it has, -1: made by a patch
    to: Slot | None = None  # where a jump, a call or the address of a function leads
    symbol: str = ""  # the kernel's name of the address that the immediate is
    indirect: bool = False  # an indirect jump may lead here
    high_used: bool = False  # a patch's: Linux takes the upper half of its result for used
    next: Slot | None = None  # removed: the slot behind it


@dataclass(slots=True, eq=False)
class Part:
    """One subprogram."""

    name: str
    slots: list[Slot]
    linkage: str
    type_id: int
    index: int  # in the verified program, -1: hidden
    stack_depth: int
    frame: Frame
    stack_extra: int = 0  # bytes of it that may_goto counts in


class Patch:
    """Instructions for the place of one; distances within it count its own slots.

    A distance that leaves it at the end leads behind the patch. *to* gives the target of
    an instruction, by its number, where it is a slot elsewhere.
    """

    __slots__ = ("insns", "symbols", "to")

    def __init__(
        self,
        *insns: Insn,
        symbols: dict[int, str] | None = None,
        to: dict[int, Slot] | None = None,
    ) -> None:
        self.insns = insns
        self.symbols = symbols or {}
        self.to = to or {}


class Rewriter:
    """*program* being rewritten, which starts as the verifier left it."""

    def __init__(self, program: Program, insns: Sequence[Insn], frames: Sequence[Frame]) -> None:
        self.program = program
        self.end = Slot(Goto(0))  # behind the last
        self.beyond: list[tuple[Slot, int]] = []  # further behind it: by how many slots
        self.grown: list[tuple[Slot, int, int]] = []  # slot, its first mark, how many it became
        slots = [Slot(insn, at) for at, insn in enumerate(insns)]
        all_slots = [*slots, self.end]
        for at, slot in enumerate(slots):
            off = distance(slot.insn)
            if off is not None and 0 <= at + 1 + off < len(all_slots):
                slot.to = all_slots[at + 1 + off]
        self.parts = [
            Part(
                sub.name, slots[sub.start : sub.end], sub.linkage, sub.type_id, index,
                frame.stack_depth, frame,
            )
            for index, (sub, frame) in enumerate(zip(program.subprograms, frames, strict=True))
        ]  # fmt: skip
        self.lines: dict[int, list[LineInfo]] = {}  # by slot of the verified program
        for line in program.lines:
            self.lines.setdefault(line.insn, []).append(line)
        self.first_of = {id(slot): slot for slot in slots}
        self.line_of: dict[int, list[LineInfo]] = {
            id(slots[at]): lines for at, lines in self.lines.items() if 0 <= at < len(slots)
        }

    def behind_the_end(self, more: int) -> Slot:
        """Return the place *more* slots behind the last, where nothing is."""
        slot = Slot(Goto(0))
        self.beyond.append((slot, more))
        return slot

    def put(self, part: Part, number: int, patch: Patch) -> int:
        """Put *patch* in the place of slot *number* of *part*; return how many slots it has.

        Marks stay with the last of its instructions (``adjust_insn_aux_data``).
        """
        first = part.slots[number]
        insns = patch.insns
        count = len(insns)
        at, last_to = first.at, first.to
        if count > 1:
            self.grown.append((first, max(at, 0), count - 1))
        old = first.insn
        slots = [first, *(Slot(insn) for insn in insns[1:])]
        first.insn, first.to, first.symbol, first.at = insns[0], None, "", -1
        slots[-1].at = at
        behind = part.slots[number + 1] if number + 1 < len(part.slots) else None
        for index, slot in enumerate(slots):
            slot.high_used = True
            slot.symbol = patch.symbols.get(index, "")
            off = distance(slot.insn)
            if off is None:
                continue
            if index in patch.to:
                slot.to = patch.to[index]
            elif slot.insn is old and slot.insn is insns[-1]:
                slot.to = last_to
            elif 0 <= index + 1 + off < count:
                slot.to = slots[index + 1 + off]
            else:
                assert index + 1 + off == count
                slot.to = behind if behind is not None else self._after(part)
        part.slots[number : number + 1] = slots
        return count

    def put_before(self, part: Part, insns: Sequence[Insn]) -> None:
        """Put *insns* in front of *part*; jumps to its first instruction go behind them."""
        first = part.slots[0]
        leading = [
            slot
            for each in self.parts
            for slot in each.slots
            if isinstance(slot.insn, Jump | Goto | MayGoto)
            and slot.to is not None
            and lives(slot.to) is first
        ]
        symbols = {len(insns): first.symbol} if first.symbol else None
        last = self.put(part, 0, Patch(*insns, first.insn, symbols=symbols)) - 1
        for slot in leading:
            (part.slots[last] if slot is first else slot).to = part.slots[last]

    def _after(self, part: Part) -> Slot:
        where = self.parts.index(part) + 1
        return self.parts[where].slots[0] if where < len(self.parts) else self.end

    def remove(self, part: Part, first: int, count: int) -> None:
        """Take slots *first* and the *count* - 1 behind it out of *part*."""
        gone = part.slots[first : first + count]
        del part.slots[first : first + count]
        behind = part.slots[first] if first < len(part.slots) else self._after_removed(part)
        last: list[LineInfo] = []
        for slot in gone:
            slot.next = behind
            last = self.line_of.pop(id(slot), last)
        if last and first < len(part.slots) and id(behind) not in self.line_of:
            self.line_of[id(behind)] = last[-1:]

    def _after_removed(self, part: Part) -> Slot:
        where = self.parts.index(part) + 1
        while where < len(self.parts):
            if self.parts[where].slots:
                return self.parts[where].slots[0]
            where += 1
        return self.end

    def program_now(self) -> Program:
        """Return the program with its distances, lines, symbols and frames.

        Raises OutOfReachError.
        """
        parts = [part for part in self.parts if part.slots]
        places: dict[int, int] = {}
        out: list[Slot] = []
        subprograms, frames = [], []
        for part in parts:
            start = len(out)
            for slot in part.slots:
                places[id(slot)] = len(out)
                out.append(slot)
            subprograms.append(Subprogram(part.name, start, len(out), part.linkage, part.type_id))
            frames.append(replace(part.frame, stack_depth=part.stack_depth))
        places[id(self.end)] = len(out)
        places |= {id(slot): len(out) + more for slot, more in self.beyond}
        try:
            insns = tuple(_placed(slot, at, places) for at, slot in enumerate(out))
        except OutOfReachError:
            raise OutOfReachError(self._first_out_of_reach(out, places)) from None
        lines = tuple(
            line if line.insn == at else replace(line, insn=at)
            for at, slot in enumerate(out)
            for line in self.line_of.get(id(slot), ())
        )
        return replace(
            self.program,
            insns=insns,
            subprograms=tuple(subprograms),
            lines=lines,
            frames=tuple(frames),
            indirect=tuple(at for at, slot in enumerate(out) if slot.indirect),
            symbols=tuple((at, slot.symbol) for at, slot in enumerate(out) if slot.symbol),
        )

    def _first_out_of_reach(self, out: list[Slot], places: dict[int, int]) -> int:
        """Return the slot whose patch was the first to make a jump too long."""
        grown = [(places[id(lives(slot))], mark, more) for slot, mark, more in self.grown]
        first = len(grown) - 1
        for at, slot in enumerate(out):
            if slot.to is None or not isinstance(slot.insn, Jump | Goto | MayGoto):
                continue
            to = places[id(lives(slot.to))]
            far = to - at - 1
            if -0x8000 <= far <= 0x7FFF or (isinstance(slot.insn, Goto) and slot.insn.long):
                continue
            low, high = min(at, to), max(at, to)
            inside = [(n, more) for n, (where, _, more) in enumerate(grown) if low <= where < high]
            too_far = abs(far) - (0x7FFF if far > 0 else 0x8000)
            for number, more in reversed(inside):
                too_far -= more
                if too_far <= 0:
                    first = min(first, number)
                    break
        return grown[first][1]


def lives(slot: Slot) -> Slot:
    """Return *slot*, or what came into its place when it was removed."""
    while slot.next is not None:
        slot = slot.next
    return slot


def distance(insn: Insn) -> int | None:
    """Return how far *insn* leads, in slots from the next; None: nowhere."""
    target = jump_target(insn, -1)
    return function_target(insn, -1) if target is None else target


def _placed(slot: Slot, at: int, places: dict[int, int]) -> Insn:
    insn = slot.insn
    if slot.to is None:
        return insn
    new = places[id(lives(slot.to))] - at - 1
    if new == distance(insn):
        return insn
    match insn:
        case Goto(long=True):
            return replace(insn, off=new)
        case Jump() | Goto() | MayGoto():
            if not -0x8000 <= new <= 0x7FFF:
                raise OutOfReachError(slot.at)
            return replace(insn, off=new)
        case Call():
            return replace(insn, imm=new)
    assert isinstance(insn, LoadImm)
    return replace(insn, imm=insn.imm & ~0xFFFFFFFF | new & 0xFFFFFFFF)
