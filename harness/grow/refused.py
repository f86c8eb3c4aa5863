"""A program that is refused, as a mend looks at it, and what mends of any kind do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

from harness.grow.constructs import BEYOND, FRAMES, MASK
from harness.grow.optimised import Optimised
from harness.interp import CONTEXT, FUNCTION, HELPERS, STACK, VALUE, Interpreter
from harness.isa.insn import Insn
from harness.isa.stack_args import REG_ARGS
from harness.legs.kfunc_models import KFUNCS
from harness.model import Frame, Mask, Outcome, Program, Subprogram, Vector
from harness.triage.rules import broken
from harness.verifier import Options
from harness.verifier.rewrite import OutOfReachError, Patch, Rewriter

BUILT = (BEYOND, MASK, FRAMES)  # mended by building or verifying otherwise, not in the code
BUDGET = 100_000  # instructions that the verifier may look at, of a mended program
ANYTHING = 0x5EED  # where a value must not matter

Functions = Callable[[], Mapping[str, Optimised]]
"""The functions in the IR of a build, by symbol; costs a call of the compiler."""


def _never(*_: object) -> None:
    """Build nothing."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What the compiler says of a program's build, and how it builds it otherwise.

    *without* a pass of LLVM; with the masks of indices *kept*, which a compiler leaves out where it
    knows more of what is masked than the verifier.
    """

    functions: Functions
    without: Callable[[str], Again | None] = _never
    kept: Callable[[], Again | None] = _never


Again = tuple[Program, Origin]
"""A program as it is built otherwise, and how it can be built from there on."""


@dataclass(frozen=True, slots=True)
class Runs:
    """What a program is to do: vectors, and what the native builds do on them, where known."""

    vectors: Sequence[Vector] = ()
    outcomes: Sequence[Outcome] = ()
    mask: Mask | None = None
    bools: frozenset[int] = frozenset()  # where the context has arguments that are 0 or 1


@dataclass(frozen=True, slots=True)
class Trial:
    """A program as it was built or mended, and how it is to be verified."""

    program: Program
    origin: Origin
    built: Program  # as *origin* has it, before anything was mended
    options: Options = field(default_factory=partial(Options, budget=BUDGET))
    constructs: tuple[str, ...] = ()  # what was mended, in order

    def again(self, built: Again) -> Trial:
        """Return what is built otherwise; what was mended in the code is not mended in it."""
        program, origin = built
        mended = tuple(name for name in self.constructs if name in BUILT)
        return replace(self, program=program, built=program, origin=origin, constructs=mended)


@dataclass(frozen=True, slots=True)
class Refused:
    """A program, and what it is refused for."""

    trial: Trial
    insn: int  # slot
    message: str
    runs: Runs

    @property
    def program(self) -> Program:
        """The program as it was built or mended so far."""
        return self.trial.program

    @property
    def functions(self) -> Functions:
        """The functions in the IR of its build."""
        return self.trial.origin.functions

    @property
    def at(self) -> Insn:
        """The instruction that is refused."""
        return self.program.insns[self.insn]

    @property
    def sub(self) -> Subprogram:
        """The subprogram that is refused, as it stands."""
        return self.program.subprograms[self.program.subprogram_at(self.insn)]

    def broken(self, rule: str) -> bool:
        """Return whether plain data flow finds *rule* broken there, too (``triage.rules``)."""
        return any(fault.rule == rule and fault.insn == self.insn for fault in broken(self.program))

    def passes_nothing(self, callee: Subprogram, slot: int) -> bool:
        """Return whether a call of *callee* in this function passes no value in *slot*."""
        seen = self.functions().get(self.sub.name)
        return seen is not None and REG_ARGS + slot in seen.nothing.get(callee.name, ())


Mend = Callable[[Refused], tuple[str, Program | Trial] | None]
"""Returns the construct that a program is refused for, and the program with it mended."""

Registers = tuple[int | None, ...]  # r0 to r10; None: undefined


def met(it: Refused, tests: Mapping[int, Callable[[Registers], bool]]) -> dict[int, set[bool]]:
    """Return what the test of each slot says when runs get there; only of those they get to."""
    seen: dict[int, set[bool]] = {}

    def look(slot: int, registers: Registers) -> None:
        if slot in tests:
            seen.setdefault(slot, set()).add(tests[slot](registers))

    interpreter = Interpreter(it.program, HELPERS, KFUNCS)
    for vector in it.runs.vectors:
        interpreter.run(vector, trace=look)
    return seen


def is_address(value: int | None) -> bool:
    """Return whether *value* looks like an address of memory."""
    high = (value or 0) >> 32
    return high == CONTEXT or STACK <= high < FUNCTION or VALUE <= high < 2 * VALUE


def swapped(program: Program, others: Mapping[int, Insn]) -> Program:
    """Return *program* with other instructions in the slots named."""
    insns = list(program.insns)
    for slot, insn in others.items():
        insns[slot] = insn
    return replace(program, insns=tuple(insns))


def put(
    it: Refused, construct: str, more: Mapping[int, Insn], *, behind: bool = False
) -> tuple[str, Program] | None:
    """Put instructions before those in the slots named, or *behind* them; jumps follow."""
    each = {slot: (insn,) for slot, insn in more.items()}
    program = placed(it.program, {}, each) if behind else placed(it.program, each)
    return None if program is None else (construct, program)


def placed(
    program: Program,
    before: Mapping[int, Sequence[Insn]],
    behind: Mapping[int, Sequence[Insn]] = MappingProxyType({}),
) -> Program | None:
    """Return *program* with more instructions by the slots they go before or behind.

    Jumps follow; None where one does not reach any more.
    """
    rewriter = Rewriter(program, program.insns, (Frame(0),) * len(program.subprograms))
    for slot in sorted({*before, *behind}, reverse=True):
        number = program.subprogram_at(slot)
        part, at = rewriter.parts[number], slot - program.subprograms[number].start
        first = before.get(slot, ())
        insns = [*first, program.insns[slot], *behind.get(slot, ())]
        target = part.slots[at].to
        rewriter.put(part, at, Patch(*insns, to={} if target is None else {len(first): target}))
    try:
        return replace(rewriter.program_now(), frames=())
    except OutOfReachError:
        return None
