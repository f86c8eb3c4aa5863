"""What Linux's verifier says it knows of results, read from its log (level 2).

A store to the context of a register that holds a constant on every path is a promise: the
context holds one of those constants when the program ends. So is a constant put into r0 right
before the program ends. A run that leaves anything else
there shows that the verifier, or the code made of what it let pass, is wrong. The log does
not have every path, though: one that differs from another in imprecise scalars alone is
pruned (`from 6 to 8: safe`), with what it would store. ``trusted`` tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.model import Program, Returned
from harness.triage import reaching
from harness.triage.rules import predecessors

_STORE = re.compile(
    r"^(?P<insn>\d+): \([0-9a-f]{2}\) \*\(u(?P<bits>\d+) \*\)\(r(?P<base>\d+) (?P<off>[+-]\d+)\) = "
    r"[rw](?P<src>\d+)\s*; (?P<state>.*)$"
)
_RESULT = re.compile(
    r"^(?P<insn>\d+): \([0-9a-f]{2}\) [rw]0 \S*= [^;]*; (?P<state>.*)\n(?P<exit>\d+): \(95\) exit$",
    re.MULTILINE,
)
RESULT = -8  # as an offset: r0


@dataclass(frozen=True, slots=True)
class Belief:
    """A store of known values to the context, or a known result."""

    insn: int  # that stores, or ends the program
    offset: int  # bytes into the context; RESULT: r0
    size: int  # bytes
    values: tuple[int, ...]  # on one path or another
    source: int  # register
    pruned: bool = False  # there are paths that the log does not have, and it is not precise

    @property
    def text(self) -> str:
        """For people."""
        values = " or ".join(f"{value:#x}" for value in self.values)
        if self.offset == RESULT:
            return f"instruction {self.insn} returns R0={values}"
        return f"instruction {self.insn} stores R{self.source}={values} at byte {self.offset}"

    def holds(self, outcome: Returned) -> bool:
        """Return whether *outcome* is what is believed."""
        return self.offset + self.size > len(outcome.ctx) or self._found(outcome) in self.values

    def against(self, outcome: Returned) -> str:
        """Return what *outcome* has instead, for people."""
        values = " or ".join(f"{value:#x}" for value in self.values)
        done = "returned" if self.offset == RESULT else "stored"
        return (
            f"Linux's verifier knows that R{self.source} is {values} here; "
            f"what is {done} is {self._found(outcome):#x}"
        )

    def _found(self, outcome: Returned) -> int:
        if self.offset == RESULT:
            return outcome.r0 & (1 << 8 * self.size) - 1
        return int.from_bytes(outcome.ctx[self.offset : self.offset + self.size], "little")


def read(log: str) -> tuple[Belief, ...]:
    """Return what *log* promises of the context.

    Only of stores through an unmoved pointer to it, in the entry program, whose value is a
    constant each time and whose bytes no other instruction writes.
    """
    values: dict[tuple[int, int, int, int], set[int]] = {}
    unknown: set[int] = set()
    imprecise: set[int] = set()
    written: dict[int, set[int]] = {}  # byte: instructions
    safe = re.search(r"^(from \d+ to )?\d+.*: safe$", log, re.MULTILINE) is not None
    for insn, off, size, source, state in (*_stores(log), *_results(log)):
        for byte in range(off, off + size):
            written.setdefault(byte, set()).add(insn)
        found = re.search(rf"\bR{source}=(P?)(-?\d+|0x[0-9a-f]+)(?=\s|$)", state)
        if found is None:
            unknown.add(insn)
            continue
        if not found[1]:
            imprecise.add(insn)
        value = int(found[2], 0) & (1 << 8 * size) - 1
        values.setdefault((insn, off, size, source), set()).add(value)
    return tuple(
        Belief(insn, off, size, tuple(sorted(known)), source, safe and insn in imprecise)
        for (insn, off, size, source), known in values.items()
        if insn not in unknown and all(len(written[b]) == 1 for b in range(off, off + size))
    )


def trusted(belief: Belief, program: Program) -> bool:
    """Return whether *belief* is about every path of *program*, not about those of the log."""
    if not reaching.always(program, belief.insn):
        return False
    if belief.offset == RESULT:
        before = predecessors(program, range(len(program.insns))).get(belief.insn, [])
        if any(at + 1 != belief.insn for at in before):
            return False  # the program ends there on other ways, too
    if not belief.pruned:
        return True
    found = reaching.constants(program, belief.insn, belief.source)
    mask = (1 << 8 * belief.size) - 1
    return found is not None and {value & mask for value in found} <= set(belief.values)


def _results(log: str) -> Iterator[tuple[int, int, int, int, str]]:
    """Yield what is put into r0 where the entry program ends next; Linux tells its low half."""
    for found in _RESULT.finditer(log):
        insn, state = int(found["insn"]), found["state"]
        if int(found["exit"]) == insn + 1 and "frame" not in state:
            yield insn + 1, RESULT, 4, 0, state


def _stores(log: str) -> Iterator[tuple[int, int, int, int, str]]:
    for line in log.splitlines():
        found = _STORE.match(line)
        if found is None or "frame" in found["state"]:
            continue
        state = found["state"]
        if re.search(rf"\bR{found['base']}=ctx\(\)", state) and int(found["off"]) >= 0:
            size = int(found["bits"]) // 8
            yield int(found["insn"]), int(found["off"]), size, int(found["src"]), state
