"""A second opinion on refusals: the rules again, as plain data flow over the instructions.

The verifier follows paths and values; these rules follow the edges of the control-flow
graph alone, so that they see every path the verifier sees and some that cannot be taken.
What they do not find broken is therefore not broken; what they find broken may be on a
path that is never taken. Nothing here is shared with the verifier but the instruction set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from harness.btf_check import validate
from harness.isa.insn import (
    FP,
    PARAMS,
    AddrSpaceCast,
    Alu,
    Atomic,
    Call,
    CallX,
    Endian,
    Exit,
    Goto,
    GotoX,
    High,
    Insn,
    Jump,
    Load,
    LoadImm,
    LoadPacket,
    MayGoto,
    Store,
    StoreImm,
)
from harness.isa.stack_args import MAX_ARGS, MAX_SLOTS, REG_ARGS, incoming_slot, outgoing_slot
from harness.isa.targets import function_target, jump_target
from harness.model import Program, Subprogram


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that an instruction breaks on some path."""

    rule: str  # one of RULES
    insn: int | None  # slot
    why: str


# fmt: off
RULES = {
    # rule           the verifier's messages it stands for (STACK_ARGS.md)
    "form":        r"R\d+ is invalid|stack arg write offset",
    "order":       r"r11 load must be before",
    "incoming":    r"invalid read from stack arg",
    "unwritten":   r"callee expects \d+ args, stack arg",
    "needless":    r"writes \d+ stack arg slots, but calls only require",
    "global":      r"stack args not supported$",
    "many":        r"supports at most \d+ (function )?(parameters|args)",
    "unread":      r"R\d+ !read_ok",
    "tail call":   r"tail_calls are not allowed in programs with stack args",
    "frame":       r"frame pointer is read only",
    "reach":       r"invalid (read from|write to|indirect access to) stack|invalid stack",
    "callback":    r"(?!)",  # Linux 7.3 has none
}
# fmt: on


def rule_of(message: str) -> str | None:
    """Return the rule that *message* of a refusal is about, None where there is none here."""
    return next((rule for rule, words in RULES.items() if re.search(words, message)), None)


def broken(program: Program) -> tuple[Broken, ...]:
    """Return every rule that *program* breaks on some path, in order of the slots."""
    if program.btf is not None and validate(program.btf) is not None:
        # Linux refuses it whole; libbpf goes on without, and no count is known
        names = tuple(replace(sub, type_id=-1 if sub.start else 0) for sub in program.subprograms)
        program = replace(program, btf=None, subprograms=names)
    found = [fault for sub in program.subprograms for fault in _of(program, sub)]
    counts = {sub.start: arguments(program, sub) for sub in program.subprograms}
    with_slots = any(count > REG_ARGS for count in counts.values())
    for sub in program.subprograms:
        count = counts[sub.start]
        if count > MAX_ARGS:
            found.append(Broken("many", None, f"{sub.name} has {count} arguments"))
        if sub.linkage == "global" and count > REG_ARGS and sub.start:
            found.append(Broken("global", None, f"global {sub.name} has {count} arguments"))
    for slot, insn in enumerate(program.insns):
        if insn == Call("helper", 12) and with_slots:
            found.append(Broken("tail call", slot, "a tail call beside stack arguments"))
    return (*found, *_callbacks(program))


def _callbacks(program: Program) -> Iterator[Broken]:
    """Yield the incoming slots that functions read whose address only is taken."""
    called: dict[bool, set[int]] = {True: set(), False: set()}
    for slot, insn in enumerate(program.insns):
        target = function_target(insn, slot)
        if target is not None:
            called[isinstance(insn, Call)].add(target)
    for sub in program.subprograms:
        if sub.start in called[False] - called[True]:
            for slot in range(sub.start, sub.end):
                place = incoming_slot(program.insns[slot])
                if place is not None:
                    why = f"{sub.name} reads slot {place}, and what calls a callback fills no slot"
                    yield Broken("callback", slot, why)


def arguments(program: Program, sub: Subprogram) -> int:
    """Return how many arguments BTF gives *sub*; without BTF what its loads show."""
    if sub.start == 0:
        return 1
    if program.btf is not None and sub.type_id:
        proto = program.btf.prototype(sub.type_id)
        if proto is not None:
            return len(proto.params)
    if sub.type_id < 0:
        return REG_ARGS
    slots = [incoming_slot(insn) or 0 for insn in program.insns[sub.start : sub.end]]
    return REG_ARGS + max(slots, default=0) if max(slots, default=0) else REG_ARGS


@dataclass(frozen=True, slots=True)
class _State:
    """What holds on every path to a slot (written, ready) or on some (late)."""

    written: frozenset[int]  # outgoing slots written since the last call
    ready: frozenset[int]  # registers that hold something
    late: bool  # an r11 store or a call was passed

    def joined(self, other: _State) -> _State:
        return _State(
            self.written & other.written, self.ready & other.ready, self.late or other.late
        )


def _of(program: Program, sub: Subprogram) -> Iterator[Broken]:
    count = arguments(program, sub)
    ready = frozenset(range(1, min(count, REG_ARGS) + 1)) | {FP, PARAMS}
    states: dict[int, _State] = {sub.start: _State(frozenset(), ready, False)}
    work = [sub.start]
    while work:
        slot = work.pop()
        if not sub.start <= slot < sub.end:
            continue
        after = _after(program, slot, states[slot])
        for target in successors(program.insns[slot], slot):
            new = states[target].joined(after) if target in states else after
            if states.get(target) != new:
                states[target] = new
                work.append(target)
    required = 0
    stored = 0
    for slot in sorted(states):
        if not sub.start <= slot < sub.end:
            continue
        insn = program.insns[slot]
        stored = max(stored, outgoing_slot(insn) or 0)
        callee = callee_at(program, slot)
        if callee is not None:
            required = max(required, arguments(program, callee) - REG_ARGS)
        if isinstance(insn, Call) and insn.kind == "kfunc":
            required = MAX_SLOTS  # its prototype is the kernel's
        yield from _check(program, slot, insn, states[slot], count - REG_ARGS)
    if stored > max(required, 0):
        why = f"{sub.name} writes {stored} slots, its calls need {max(required, 0)}"
        yield Broken("needless", None, why)


def _check(
    program: Program, slot: int, insn: Insn, state: _State, incoming: int
) -> Iterator[Broken]:
    reads, writes = operands(insn)
    into, out = incoming_slot(insn), outgoing_slot(insn)
    if PARAMS in reads | writes and into is None and out is None:
        yield Broken("form", slot, "r11 outside of its three forms")
    if out is not None and out > MAX_SLOTS:
        yield Broken("form", slot, f"outgoing slot {out} of {MAX_SLOTS}")
    if into is not None and state.late:
        yield Broken("order", slot, "a load behind a store or a call on some path")
    if into is not None and into > incoming:
        yield Broken("incoming", slot, f"incoming slot {into} of {max(incoming, 0)}")
    if FP in writes:
        yield Broken("frame", slot, "r10 is written")
    for register in sorted(reads - state.ready):
        yield Broken("unread", slot, f"r{register} holds nothing on some path")
    if isinstance(insn, Load | Store | StoreImm):
        base = insn.src if isinstance(insn, Load) else insn.dst
        if base == FP and not -512 <= insn.off <= -insn.size:
            yield Broken("reach", slot, f"{insn.size} bytes at r10{insn.off:+d}")
    callee = callee_at(program, slot)
    if callee is not None:
        needed = arguments(program, callee)
        for register in range(1, min(needed, REG_ARGS) + 1):
            if register not in state.ready:
                yield Broken("unread", slot, f"r{register} holds nothing on some path")
        missing = set(range(1, needed - REG_ARGS + 1)) - state.written
        if missing:
            why = f"{callee.name} takes {needed} arguments, slot {min(missing)} is not written"
            yield Broken("unwritten", slot, f"{why} on some path")


def callee_at(program: Program, slot: int) -> Subprogram | None:
    """Return the function that the instruction at *slot* calls, if any."""
    insn = program.insns[slot]
    if not isinstance(insn, Call):
        return None
    target = function_target(insn, slot)
    return next((s for s in program.subprograms if s.start == target), None)


def successors(insn: Insn, slot: int) -> tuple[int, ...]:
    """Return the slots that may follow *insn* at *slot*; a call returns."""
    match insn:
        case Exit() | GotoX():
            return ()
        case Goto():
            target = jump_target(insn, slot)
            return () if target is None else (target,)
        case Jump() | MayGoto():
            target = jump_target(insn, slot)
            return (slot + 1,) if target is None else (slot + 1, target)
    return (slot + 1,)


def predecessors(program: Program, slots: Iterable[int]) -> dict[int, list[int]]:
    """Return which of *slots* lead to each slot."""
    before: dict[int, list[int]] = {}
    for at in slots:
        for target in successors(program.insns[at], at):
            before.setdefault(target, []).append(at)
    return before


def _after(program: Program, slot: int, state: _State) -> _State:
    insn = program.insns[slot]
    _, writes = operands(insn)
    ready = state.ready | writes
    out = outgoing_slot(insn)
    if out is not None:
        return _State(state.written | {out}, ready, True)
    if isinstance(insn, Call | CallX):
        kept = ready - set(range(1, REG_ARGS + 1)) | {0}
        return _State(frozenset(), kept, True)
    return _State(state.written, ready, state.late)


def operands(insn: Insn) -> tuple[frozenset[int], frozenset[int]]:
    """Return the registers that *insn* reads and those that it writes; of calls none."""
    reads: set[int] = set()
    writes: set[int] = set()
    match insn:
        case Alu(op=op, dst=dst, src=src):
            writes.add(dst)
            if op != "mov":
                reads.add(dst)
            if src is not None:
                reads.add(src)
        case Endian(dst=dst):
            reads.add(dst)
            writes.add(dst)
        case AddrSpaceCast(dst=dst, src=src) | Load(dst=dst, src=src):
            reads.add(src)
            writes.add(dst)
        case LoadImm(dst=dst):
            writes.add(dst)
        case LoadPacket():
            writes.add(0)
        case Store(dst=dst, src=src):
            reads |= {dst, src}
        case StoreImm(dst=dst) | GotoX(dst=dst) | CallX(dst=dst):
            reads.add(dst)
        case Atomic(op="load_acquire", dst=dst, src=src):
            reads.add(src)
            writes.add(dst)
        case Atomic(op=op, dst=dst, src=src, fetch=fetch):
            reads |= {dst, src} | ({0} if op == "cmpxchg" else set())
            if fetch:
                writes.add(0 if op == "cmpxchg" else src)
        case Jump(dst=dst, src=src):
            reads.add(dst)
            if src is not None:
                reads.add(src)
        case Exit():
            reads.add(0)
        case High() | Goto() | MayGoto() | Call():
            pass
    return frozenset(reads), frozenset(writes)
