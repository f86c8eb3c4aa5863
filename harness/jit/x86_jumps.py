"""How long each jump of a subprogram is: Linux's passes over one function (``do_jit``).

A jump's length depends on its distance, which depends on the lengths of the jumps
between. Linux starts from an estimate of 64 bytes an instruction and repeats until
the length stops changing, which fixes one of several stable layouts. Everything but
jumps keeps its length, so a pass here visits jumps only: the native offset of a slot
is its offset without any jump plus the length of the jumps before it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

CONDITIONAL, GOTO, LEAVE, BACK_TO_SELF = range(4)
MAX_PASSES = 20
PADDING_PASS = MAX_PASSES - 5  # from here on a jump that could shrink is padded
ESTIMATE = 64  # bytes an instruction, before the first pass
SHORT_MIN, SHORT_MAX = -128, 123  # a short forward jump stops before 127, so that passes end


# No-operations that may stand for what a jump has shrunk by; -1: a goto of no bytes
_FILLS = {CONDITIONAL: (0, 4), GOTO: (0, 3), LEAVE: (0, 3), BACK_TO_SELF: (0, 3), -1: (0, 2, 5)}
_Row = tuple[
    int, int, int
]  # kind, bytes from its end to its target but for jumps, jumps before that


@dataclass(frozen=True, slots=True)
class Branch:
    """One jump."""

    slot: int
    kind: int  # CONDITIONAL, GOTO, LEAVE (to the first exit), BACK_TO_SELF (goto -1)
    target: int  # slot


@dataclass(frozen=True, slots=True)
class Placed:
    """Where one jump ends up."""

    size: int  # bytes, no-operations included
    distance: int  # bytes from its end to its target
    padding: int  # bytes of no-operations before it


def settle(starts: Sequence[int], branches: Sequence[Branch]) -> list[Placed] | None:
    """Return where each of *branches* (by slot) ends up; None where the passes do not end.

    *starts* are the native offsets of the slots, one more than there are, counting
    every jump as no bytes; prologue included.
    """
    slots = [branch.slot for branch in branches]
    rows: list[_Row] = [
        (
            branch.kind,
            starts[branch.target] - starts[branch.slot + 1],
            bisect_left(slots, branch.target),
        )
        for branch in branches
    ]
    passed = _first_pass(starts, branches, rows)
    length = -1
    for number in range(1, MAX_PASSES + 1):
        before = passed.copy() if passed[-1] == length else None
        if number == MAX_PASSES and before is None:
            return None
        length = passed[-1]
        if not _pass(rows, passed, padding=number >= PADDING_PASS):
            return None
        if before is not None:
            return _places(rows, passed) if passed == before else None
    return None


def _places(rows: Sequence[_Row], passed: Sequence[int]) -> list[Placed]:
    placed = []
    for index, (kind, apart, before) in enumerate(rows):
        end = passed[index + 1]
        size = end - passed[index]
        distance = apart + passed[before] - end if kind != BACK_TO_SELF else -2
        placed.append(Placed(size, distance, size - _size(kind, distance)))
    return placed


def _size(kind: int, distance: int) -> int:
    """Return the length of a jump without padding."""
    if distance == 0 and kind == GOTO:
        return 0
    if SHORT_MIN <= distance <= SHORT_MAX:
        return 2
    return 6 if kind == CONDITIONAL else 5


def _first_pass(
    starts: Sequence[int], branches: Sequence[Branch], rows: Sequence[_Row]
) -> list[int]:
    """Return the length of all jumps before each jump (and before the end), from the estimate."""
    passed = [0]
    for branch, (kind, _, before) in zip(branches, rows, strict=True):
        slot, target = branch.slot, branch.target
        if kind == BACK_TO_SELF:
            distance = -2
        elif target > slot:
            distance = ESTIMATE * (target - slot - 1)
        else:
            distance = starts[target] + passed[before] - ESTIMATE * (slot + 2)
        passed.append(passed[-1] + _size(kind, distance))
    return passed


def _pass(rows: Sequence[_Row], passed: list[int], padding: bool) -> bool:
    """Do one pass over *passed*, in place: backward targets are new, forward ones old.

    With *padding*, a jump that could shrink gets no-operations instead; returns
    False where Linux gives up, because the gap is not one that a jump leaves.
    """
    total = 0
    for index, (kind, apart, before) in enumerate(rows):
        old_end = passed[index + 1]
        distance = apart + passed[before] - old_end if kind != BACK_TO_SELF else -2
        if distance == 0 and kind == GOTO:
            size = 0
        elif SHORT_MIN <= distance <= SHORT_MAX:
            size = 2
        else:
            size = 6 if kind == CONDITIONAL else 5
        if padding and size <= 2:
            fill = old_end - total - size
            if fill not in _FILLS[kind if size else -1]:
                return False
            size += fill
        total += size
        passed[index + 1] = total
    return True
