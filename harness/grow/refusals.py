"""Refusals, explained by experiment: the one thing that is to blame is mended, and it ends.

A message says what the verifier missed, not who is to blame for it: a fault of our verifier
and another of the compiler may say the same. So a construct is named only where something else
than the verifier shows it (the IR that the build ends in, BTF, data flow over the instructions,
a run), where the program is accepted once that is mended and nothing else is changed, and
where it then does what the native builds do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from harness import verifier
from harness.btf import Btf, DataSec, DeclTag, Func, FuncProto, Int, Param, SecInfo, Var, Void
from harness.btf_check import validate
from harness.compare import agree
from harness.grow import half_slots, optimised
from harness.grow.frames import LIMIT, frames_too_large
from harness.grow.optimised import Optimised
from harness.grow.slots import callees_behind, goes_nowhere
from harness.interp import CONTEXT, FUNCTION, HELPERS, MAX_FRAMES, STACK, VALUE, Interpreter
from harness.isa.insn import (
    FP,
    PARAMS,
    Alu,
    Call,
    CallX,
    Exit,
    Insn,
    Load,
    LoadPacket,
    Store,
    StoreImm,
)
from harness.isa.stack_args import MAX_ARGS, MAX_SLOTS, REG_ARGS, SLOT_SIZE, outgoing_slot
from harness.legs.kfunc_models import KFUNCS
from harness.model import (
    Accepted,
    Frame,
    Mask,
    Outcome,
    Program,
    Rejected,
    Returned,
    Subprogram,
    Trapped,
    Unknown,
    Vector,
    Verdict,
)
from harness.triage.rules import broken, callee_at, operands, successors
from harness.verifier import Options
from harness.verifier.rewrite import OutOfReachError, Patch, Rewriter

# fmt: off
WIDE    = "a value of two slots"
REMOVED = "a parameter that clang took out"
ADDED   = "a parameter that clang made of a pointer"
BEYOND  = "an argument beyond the twelfth that clang made of a pointer"
SHRUNK  = "a variable that clang made smaller than its type"
UNREAD  = "an undefined register in a slot for no value"
UNSET   = "no value for an argument of a global function"
BARE    = "no store to a slot for no value"
BLANK   = "an undefined register that clang goes on from"
OR      = "|= in place of += on an address"
BOOL    = "an index made of a bool"
MASK    = "an index whose mask clang left out"
VOID    = "r0 of a function without a result"
FRAMES  = "frames of more than 512 bytes"
HALF    = "a value in a part of a stack slot"
# fmt: on
CONSTRUCTS = (
    WIDE,
    REMOVED,
    ADDED,
    BEYOND,
    SHRUNK,
    UNREAD,
    UNSET,
    BARE,
    BLANK,
    OR,
    BOOL,
    MASK,
    VOID,
    FRAMES,
    HALF,
)  # fmt: skip

MOST = 24  # mends of one program
BUDGET = 100_000  # instructions that the verifier may look at, of a mended program
ANYTHING = 0x5EED  # in a slot whose value must not matter
ROOM = MAX_FRAMES * LIMIT  # bytes of stack that frames may take, where that is the mend
FEW = 8  # vectors that a mended program is run on
# of a bool that is neither 0 nor 1: what an index may go astray at first, and the largest
NO_BOOLS = (2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 254, 255)

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
    without: Callable[[str], tuple[Program, Functions] | None] = _never
    kept: Callable[[], tuple[Program, Functions] | None] = _never


@dataclass(frozen=True, slots=True)
class Runs:
    """What a program is to do: vectors, and what the native builds do on them, where known."""

    vectors: Sequence[Vector] = ()
    outcomes: Sequence[Outcome] = ()
    mask: Mask | None = None
    bools: frozenset[int] = frozenset()  # where the context has arguments that are 0 or 1


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a refusal comes from."""

    constructs: tuple[str, ...] = ()  # confirmed, in order
    left: str = ""  # what the program is refused for once they are mended, or does wrong


def explain(program: Program, refusal: Rejected, origin: Origin, runs: Runs) -> Explanation:
    """Return the constructs that *program* is refused for."""
    found: list[str] = []
    now = _Trial(program, origin)
    verdict: Verdict = refusal
    while isinstance(verdict, Rejected) and len(found) < MOST:
        mended = _mended(now, verdict, runs)
        if mended is None:
            break
        construct, now, verdict = mended
        found.append(construct)
    match verdict:
        case Accepted():
            return Explanation(tuple(found), _difference(now.program, runs))
        case Rejected(message=message):
            return Explanation(tuple(found), message)
        case Unknown(why=why):
            return Explanation(tuple(found), f"unknown: {why}")


@dataclass(frozen=True, slots=True)
class _Trial:
    """A program as it was built or mended, and how it is to be verified."""

    program: Program
    origin: Origin
    options: Options = field(default_factory=partial(Options, budget=BUDGET))


def _mended(now: _Trial, refusal: Rejected, runs: Runs) -> tuple[str, _Trial, Verdict] | None:
    """Return the first construct whose mending gets the program past *refusal*."""
    for words, mend in MENDS:
        if not re.search(words, refusal.message):
            continue
        mended = mend(_Refused(now, refusal.insn or 0, refusal.message, runs))
        if mended is None:
            continue
        construct, changed = mended
        if isinstance(changed, Program):
            changed = replace(now, program=changed)
        verdict = verifier.verify(changed.program, log_level=0, options=changed.options).verdict
        if verdict != refusal:
            return construct, changed, verdict
    return None


def _difference(program: Program, runs: Runs) -> str:
    """Return what *program*, which is accepted, does otherwise than the native builds.

    Also where there is no vector on which both are known: then nothing is confirmed.
    """
    interpreter = Interpreter(program, HELPERS, KFUNCS)
    compared = False
    for vector, expected in zip(runs.vectors, runs.outcomes[:FEW], strict=False):
        seen: Outcome = interpreter.run(vector)
        if not isinstance(seen, Returned | Unknown) or not agree(seen, expected, runs.mask):
            return "another result than natively"
        compared |= not isinstance(seen, Unknown) and not isinstance(expected, Unknown)
    return "" if compared else "not run natively"


# --- mends ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Refused:
    """A program, and what it is refused for."""

    trial: _Trial
    insn: int  # slot
    message: str
    runs: Runs

    @property
    def program(self) -> Program:
        return self.trial.program

    @property
    def functions(self) -> Functions:
        return self.trial.origin.functions

    @property
    def at(self) -> Insn:
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


_Mend = Callable[[_Refused], tuple[str, Program | _Trial] | None]


def _shrunk(it: _Refused) -> tuple[str, Program] | None:
    """Give variables that are smaller than their type, which Linux refuses, one of their size."""
    btf = it.program.btf
    if btf is None or validate(btf) is None:
        return None
    types = list(btf.types)
    for _, info in shrunk(btf):
        variable = types[info.type]
        assert isinstance(variable, Var)
        types.append(Int(f"shrunk{info.size}", info.size, 0, 0, 8 * info.size))
        types[info.type] = replace(variable, type=len(types) - 1)
    mended = Btf(tuple(types))
    return None if validate(mended) else (SHRUNK, replace(it.program, btf=mended))


def shrunk(btf: Btf | None) -> list[tuple[str, SecInfo]]:
    """Return the variables that BTF says are smaller than their type: name, and where."""
    if btf is None:
        return []
    return [
        (variable.name, info)
        for section in btf.types
        if isinstance(section, DataSec)
        for info in section.variables
        if isinstance(variable := btf.get(info.type), Var)
        and info.size in (1, 2, 4, 8)
        and info.size < (btf.size_of(variable.type) or 0)
    ]


def _signature(it: _Refused) -> tuple[str, Program] | None:
    """Give the functions as many parameters in BTF as they have in the IR, if for one reason."""
    btf = it.program.btf
    guilty = callee_at(it.program, it.insn) or it.sub
    if btf is None or not guilty.type_id:
        return None
    seen = it.functions()
    counts: dict[str, dict[int, int]] = {}  # by construct, which are mended one by one
    found: dict[int, str] = {}
    for sub in it.program.subprograms[1:]:
        proto = btf.prototype(sub.type_id)
        if sub.name not in seen or proto is None or len(proto.params) == seen[sub.name].words:
            continue
        words, in_source = seen[sub.name].words, _words(btf, sub)
        construct = WIDE if words == in_source else REMOVED if words < in_source else ADDED
        counts.setdefault(construct, {})[sub.type_id] = words
        found[sub.type_id] = construct
    if guilty.type_id not in found:
        return None
    construct = found[guilty.type_id]
    return construct, replace(it.program, btf=_with_parameters(btf, counts[construct]))


def _words(btf: Btf, sub: Subprogram) -> int:
    """Return how many registers and slots the parameters of *sub* take by their types."""
    proto = btf.prototype(sub.type_id)
    assert proto is not None
    total = 1 if (btf.size_of(proto.returns) or 0) > 2 * SLOT_SIZE else 0
    sizes = (btf.size_of(parameter.type) or SLOT_SIZE for parameter in proto.params)
    return total + sum(2 if SLOT_SIZE < size <= 2 * SLOT_SIZE else 1 for size in sizes)


def _with_parameters(btf: Btf, counts: Mapping[int, int]) -> Btf:
    """Return *btf* with other numbers of parameters, by function."""
    types = [*btf.types, Int("word", SLOT_SIZE, 0, 0, 8 * SLOT_SIZE)]
    word = len(types) - 1
    for type_id, count in counts.items():
        func, proto = btf[type_id], btf.prototype(type_id)
        assert isinstance(func, Func)
        assert proto is not None
        types.append(FuncProto(proto.returns, tuple(Param(f"w{n}", word) for n in range(count))))
        types[type_id] = replace(func, type=len(types) - 1)
    for type_id, tag in enumerate(types):
        if isinstance(tag, DeclTag) and tag.type in counts:
            types[type_id] = replace(tag, component=-1)  # the parameter may be gone
    return Btf(tuple(types))


def _beyond(it: _Refused) -> tuple[str, _Trial] | None:
    """Build without argument promotion where that gave a call more arguments than there may be.

    By the types of its parameters the function has no more; by the IR it has, and by that of
    the other build it has not.
    """
    slot, btf = outgoing_slot(it.at), it.program.btf
    if slot is None or slot <= MAX_SLOTS or btf is None or not it.broken("form"):
        return None
    callees = callees_behind(it.program, it.insn, slot)
    now = it.functions()
    for sub in callees:
        seen = now.get(sub.name)
        if seen is None or seen.words < REG_ARGS + slot or not btf.prototype(sub.type_id):
            return None
        if _words(btf, sub) > MAX_ARGS:
            return None
    again = it.trial.origin.without(optimised.PROMOTION) if callees else None
    if again is None:
        return None
    program, functions = again
    then = functions()
    if any(then[sub.name].words > MAX_ARGS for sub in callees if sub.name in then):
        return None
    return BEYOND, replace(it.trial, program=program, origin=Origin(functions))


def _frames(it: _Refused) -> tuple[str, _Trial] | None:
    """Let frames take more than they may, where they do by what the instructions show."""
    if not frames_too_large(it.program, it.message, it.runs.vectors):
        return None
    options = replace(it.trial.options, max_stack=ROOM)
    return FRAMES, replace(it.trial, options=options)


def _half(it: _Refused) -> tuple[str, Program] | None:
    """Give what is kept in a part of a stack slot, and is forgotten there, a slot of its own."""
    looping = "unbounded" not in it.message
    moved = half_slots.moved(it.program, it.insn, it.runs.vectors, looping=looping)
    return None if moved is None else (HALF, moved)


def _unread(it: _Refused) -> tuple[str, Program] | None:
    """Store something in a slot that gets an undefined register: the call passes no value."""
    insn, slot = it.at, outgoing_slot(it.at)
    if slot is None or not isinstance(insn, Store) or it.message != f"R{insn.src} !read_ok":
        return None
    callees = callees_behind(it.program, it.insn, slot)
    if not callees or not all(it.passes_nothing(sub, slot) for sub in callees):
        return None
    if not it.broken("unread"):
        return None
    insns = list(it.program.insns)
    insns[it.insn] = StoreImm(insn.size, insn.dst, insn.off, ANYTHING)
    return UNREAD, replace(it.program, insns=tuple(insns))


def _spilled(it: _Refused) -> tuple[str, Program] | None:
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
    insns = list(it.program.insns)
    insns[it.insn] = StoreImm(insn.size, insn.dst, insn.off, ANYTHING)
    return UNREAD, replace(it.program, insns=tuple(insns))


def _unset(it: _Refused) -> tuple[str, Program] | None:
    """Put something in a register for which a call of a global function has no value."""
    named = re.fullmatch(r"R(\d+) is not a scalar", it.message)
    callee = callee_at(it.program, it.insn)
    if named is None or callee is None or not 1 <= int(named[1]) <= REG_ARGS:
        return None
    register = int(named[1])
    if not it.passes_nothing(callee, register - REG_ARGS):
        return None
    return _put(it, UNSET, {it.insn: Alu("mov", 64, register, None, ANYTHING)})


def _bare(it: _Refused) -> tuple[str, Program] | None:
    """Store something in a slot that is not written, because the call passes no value."""
    callee = callee_at(it.program, it.insn)
    named = re.search(r"stack arg(\d+) is not initialized", it.message)
    if callee is None or named is None or not it.broken("unwritten"):
        return None
    slot = int(named[1])
    if not it.passes_nothing(callee, slot):
        return None
    return _put(it, BARE, {it.insn: StoreImm(SLOT_SIZE, PARAMS, -SLOT_SIZE * slot, ANYTHING)})


def _blank(it: _Refused) -> tuple[str, Program] | None:
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
    return _put(it, BLANK, dict.fromkeys([it.sub.start, *spoilt], value))


def _or(it: _Refused) -> tuple[str, Program] | None:
    """Add where an address and what is below its alignment are or-ed."""
    insn = it.at
    if not (isinstance(insn, Alu) and insn.op == "or" and insn.bits == 64):
        return None
    sides = {insn.dst, insn.dst if insn.src is None else insn.src} - {PARAMS}
    met = _met(it, {it.insn: lambda held: any(_is_address(held[r]) for r in sides)})
    # a number may look like an address, but not in every run
    if met.get(it.insn, {any(_in_frame(it, r) for r in sides)}) != {True}:
        return None
    insns = list(it.program.insns)
    insns[it.insn] = replace(insn, op="add")
    return OR, replace(it.program, insns=tuple(insns))


def _in_frame(it: _Refused, register: int) -> bool:
    """Return whether *register* is r10 and a constant, by every way that leads there."""
    insns, before = it.program.insns, dict[int, list[int]]()
    for at in range(it.sub.start, it.sub.end):
        for target in successors(insns[at], at):
            before.setdefault(target, []).append(at)
    work = [(it.insn, register)]
    seen = set(work)
    while work:
        at, place = work.pop()
        if at == it.sub.start or at not in before:
            return False
        for last in before[at]:
            match insns[last]:
                case Call() | CallX() | LoadPacket() if place <= REG_ARGS:
                    return False
                case insn if place not in operands(insn)[1]:
                    origin = last, place
                case Alu(op="mov", bits=64, src=int(src), sx=0):
                    origin = last, src
                case Alu(op="add" | "sub", bits=64, src=None):
                    origin = last, place
                case _:
                    return False
            if origin[1] != FP and origin not in seen:
                seen.add(origin)
                work.append(origin)
    return True


def _bool(it: _Refused) -> tuple[str, Program] | None:
    """Let the driver show the verifier that a bool is 0 or 1, as the compiler knows it."""
    main = it.program.subprograms[0]
    bools = {(CONTEXT << 32) + offset for offset in it.runs.bools}

    def test(load: Load) -> Callable[[_Registers], bool]:
        return lambda held: (held[load.src] or 0) + load.off in bools

    loads = {
        slot: insn
        for slot in range(main.start, main.end)
        if isinstance(insn := it.program.insns[slot], Load) and insn.size == 1 and insn.src <= FP
    }
    met = _met(it, {slot: test(load) for slot, load in loads.items()})
    after = {
        slot: Alu("and", 64, loads[slot].dst, None, 1)
        for slot, seen in met.items()
        if seen == {True}
    }
    return _put(it, BOOL, after, behind=True) if after and _strays(it) else None


def _mask(it: _Refused) -> tuple[str, _Trial] | None:
    """Build so that the mask of each index is in the code, as it is in the source."""
    again = it.trial.origin.kept()
    if again is None:
        return None
    program, functions = again
    return MASK, replace(it.trial, program=program, origin=Origin(functions))


def _strays(it: _Refused) -> bool:
    """Return whether a bool that is neither 0 nor 1 makes the access in question go astray.

    That is what the verifier has to fear, which does not know what a bool is.
    """
    interpreter = Interpreter(it.program, HELPERS, KFUNCS)
    reached = False

    def look(slot: int, _held: _Registers) -> None:
        nonlocal reached
        reached |= slot == it.insn

    for vector in it.runs.vectors:
        for offset in it.runs.bools:
            for value in NO_BOOLS:
                other = vector[:offset] + bytes([value]) + vector[offset + 1 :]
                reached = False
                seen = interpreter.run(other, trace=look)
                if reached and isinstance(seen, Trapped) and seen.kind == "access":
                    return True
    return False


def _void(it: _Refused) -> tuple[str, Program] | None:
    """Clear r0 where a function ends that has no result, in the source or in the IR."""
    btf = it.program.btf
    proto = btf.prototype(it.sub.type_id) if btf is not None and it.sub.type_id else None
    if not isinstance(it.at, Exit) or proto is None:
        return None
    if not isinstance(btf.resolve(proto.returns) if btf else None, Void):
        seen = it.functions().get(it.sub.name)
        if seen is None or not seen.void:
            return None
    if not _address_at(it):
        return None
    return _put(it, VOID, {it.insn: Alu("mov", 64, 0, None, 0)})


def _address_at(it: _Refused) -> bool:
    """Return whether a run gets there with an address in a stack in r0."""
    met = _met(it, {it.insn: lambda held: STACK <= (held[0] or 0) >> 32 < FUNCTION})
    return True in met.get(it.insn, ())


def _is_address(value: int | None) -> bool:
    """Return whether *value* looks like an address of memory."""
    high = (value or 0) >> 32
    return high == CONTEXT or STACK <= high < FUNCTION or VALUE <= high < 2 * VALUE


_Registers = tuple[int | None, ...]  # r0 to r10; None: undefined


def _met(it: _Refused, tests: Mapping[int, Callable[[_Registers], bool]]) -> dict[int, set[bool]]:
    """Return what the test of each slot says when runs get there; only of those they get to."""
    met: dict[int, set[bool]] = {}

    def look(slot: int, registers: _Registers) -> None:
        if slot in tests:
            met.setdefault(slot, set()).add(tests[slot](registers))

    interpreter = Interpreter(it.program, HELPERS, KFUNCS)
    for vector in it.runs.vectors:
        interpreter.run(vector, trace=look)
    return met


# message, and what may mend it: the first that gets the program past its refusal counts
MENDS: tuple[tuple[str, _Mend], ...] = (
    (r"invalid read from stack arg|callee expects|calls only require", _shrunk),
    (r"invalid read from stack arg|callee expects|calls only require", _signature),
    (r"callee expects", _bare),
    (r"!read_ok", _unread),
    (r"!read_ok", _spilled),
    (r"!read_ok", _blank),
    (r"is not a scalar", _unset),
    (r"bitwise operator \|= on pointer prohibited", _or),
    (r"cannot return stack pointer to the caller", _void),
    (r"variable-offset|map value|unbounded|outside of the allowed", _bool),
    (r"infinite loop|jumps is too complex|program is too large|unbounded min value", _half),
    (r"variable-offset|map value|unbounded|outside of the allowed", _mask),
    (r"stack arg write offset", _beyond),
    (r"combined stack size", _frames),
)


def _put(
    it: _Refused, construct: str, more: Mapping[int, Insn], *, behind: bool = False
) -> tuple[str, Program] | None:
    """Put instructions before those in the slots named, or *behind* them; jumps follow."""
    program = it.program
    rewriter = Rewriter(program, program.insns, (Frame(0),) * len(program.subprograms))
    for slot in sorted(more, reverse=True):
        number = program.subprogram_at(slot)
        insns = (more[slot], program.insns[slot])
        patch = Patch(*(reversed(insns) if behind else insns))
        rewriter.put(rewriter.parts[number], slot - program.subprograms[number].start, patch)
    try:
        return construct, replace(rewriter.program_now(), frames=())
    except OutOfReachError:
        return None


# --- code ---------------------------------------------------------------------------------
