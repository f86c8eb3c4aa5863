"""Which instruction is wrong, and where two executions part."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.btf_check import validate
from harness.isa.disasm import format_insn
from harness.isa.insn import Call
from harness.isa.stack_args import REG_ARGS, SLOT_SIZE, incoming_slot
from harness.isa.targets import function_target
from harness.model import Accepted, Program, Rejected, Subprogram, Unknown
from harness.triage import lockstep, passing, rules
from harness.triage.experiments import Built
from harness.triage.facts import (
    CLANG,
    INTERPRETER,
    JIT,
    RIGHT,
    VERIFIER,
    Diagnosis,
    Facts,
    rightness,
)


@dataclass(frozen=True, slots=True)
class Mark:
    """An instruction and what is wrong with it, as far as the experiments show."""

    slot: int | None = None
    why: str = ""  # one sentence


NO_MARK = Mark()


def trace(facts: Facts, diagnosis: Diagnosis) -> lockstep.Lockstep | Unknown | None:
    """Return both executions of the vector that shows it; None where nothing is executed."""
    program, vector = facts.built.program, diagnosis.vector
    if program is None or vector is None or isinstance(facts.built.verdict, Rejected):
        return None
    return lockstep.compare(program, vector)


def mark(facts: Facts, diagnosis: Diagnosis, traced: lockstep.Lockstep | Unknown | None) -> Mark:
    """Say which instruction is wrong."""
    built, cause = facts.built, diagnosis.cause
    program = built.program
    if program is None:
        return NO_MARK
    if facts.mismatch is not None and cause in CLANG:
        odd = facts.mismatch
        why = f"the compiler's assembly has `{odd.assembly}`, its object `{odd.object}`"
        return Mark(odd.slot, why)
    if facts.subject.handed and facts.through_text is not None:
        return _printed(program, facts.through_text.printed)
    if isinstance(built.verdict, Rejected):
        return Mark(built.verdict.insn, refusal(facts, built.verdict))
    if cause in (JIT, INTERPRETER, VERIFIER):
        if isinstance(traced, lockstep.Lockstep) and traced.wrong is not None:
            return Mark(traced.wrong, traced.why)
        return NO_MARK
    if cause not in CLANG:
        return NO_MARK
    right, name = _right_build(facts)
    if right is None or right.program is None or diagnosis.vector is None:
        return Mark(None, "no build of this source is right to compare with")
    parted = passing.first_difference(program, right.program, diagnosis.vector)
    if parted is None:
        return Mark(None, f"{name} is right, and calls and returns the same way")
    slot, words = parted
    return Mark(slot, f"against {name}, which is right: {words}")


def _printed(program: Program, why: str) -> Mark:
    """Return the first instruction that clang prints as its assembler does not take it."""
    line = re.match(r"`r(\d+ = w\d+)`", why)
    if line is not None:
        for slot, insn in enumerate(program.insns):
            if format_insn(insn) == f"w{line[1]}":
                return Mark(slot, f"clang prints it as `r{line[1]}`, which its assembler refuses")
    return NO_MARK


def refusal(facts: Facts, verdict: Rejected) -> str:
    """Return what the verifier has against the program, in one sentence."""
    program, slot, message = facts.built.program, verdict.insn, verdict.message
    assert program is not None
    rule = rules.rule_of(message)
    wrong_btf = validate(program.btf) if program.btf is not None else None
    if wrong_btf is not None and rule in ("incoming", "unwritten", "needless"):
        return (
            f"the kernel refuses all of the object's BTF (`{' '.join(wrong_btf.split())}`); the "
            f"loader goes on without, no function's arguments can be counted, and so: {message}"
        )
    here = [b for b in rules.broken(program) if b.rule == rule and b.insn in (slot, None)]
    if here and slot is not None:
        if rule == "unwritten":
            return f"{_read(program, slot)}: {message}"
        if rule == "incoming":
            sub = program.subprograms[program.subprogram_at(slot)]
            return f"{_counted(program, sub)}; {_asks(program, sub)}: {message}"
        if rule == "unread":
            return f"{_unread(program, slot, message) or here[0].why}: {message}"
    if here:
        return f"{here[0].why}: {message}"
    if "bitwise operator" in message:
        return f"the verifier allows addition to a pointer and subtraction alone: {message}"
    return f"the verifier stops here: {message}"


def _read(program: Program, slot: int) -> str:
    """Return what the callee of the call in *slot* reads of its incoming slots."""
    target = function_target(program.insns[slot], slot)
    sub = next((s for s in program.subprograms if s.start == target), None)
    if sub is None:
        return "the callee is unknown"
    return f"{_counted(program, sub)}; the kernel asks for all that BTF counts"


def _counted(program: Program, sub: Subprogram) -> str:
    """Return how many slots BTF gives *sub*, and which its code reads."""
    insns = program.insns[sub.start : sub.end]
    loads = sorted({place for insn in insns if (place := incoming_slot(insn))})
    words = f"{_plural(loads, 'slot')} {', '.join(map(str, loads))}" if loads else "no slot"
    count = rules.arguments(program, sub)
    slots = max(count - REG_ARGS, 0)
    given = f"{slots} slot{'s' if slots > 1 else ''}" if slots else "no slot"
    made = f"BTF gives `{sub.name}` {count} parameters, which makes {given}"
    return f"{made}, and its code reads {words}"


def _asks(program: Program, sub: Subprogram) -> str:
    """Return why code of *sub* may have more slots than parameters."""
    btf = program.btf
    proto = btf.prototype(sub.type_id) if btf is not None and sub.type_id else None
    if btf is not None and proto is not None:
        wide = [p for p in proto.params if (btf.size_of(p.type) or 0) > SLOT_SIZE]
        if wide:
            names = ", ".join(f"`{btf.declare(p.type, p.name)}`" for p in wide)
            return (
                f"{names} of more than {SLOT_SIZE} bytes take two places each, and Linux counts one"
            )
    return "the kernel allows what BTF counts"


def _plural(things: Sequence[object], word: str) -> str:
    return f"{word}s" if len(things) > 1 else word


def _unread(program: Program, slot: int, message: str) -> str:
    """Return which call spoilt the register that *message* says is read in *slot*."""
    found = re.match(r"R(\d+) !read_ok", message)
    if found is None:
        return ""
    register = int(found[1])
    sub = program.subprograms[program.subprogram_at(slot)]
    calls = [
        n
        for n in range(sub.start, slot)
        if isinstance(program.insns[n], Call) and register <= REG_ARGS
    ]
    written = [n for n in range(sub.start, slot) if register in rules.operands(program.insns[n])[1]]
    if calls and (not written or written[-1] < calls[-1]):
        return f"the call at {calls[-1]} leaves r{register} undefined, and nothing writes it since"
    return ""


def _right_build(facts: Facts) -> tuple[Built | None, str]:
    """Return the build that is right and most like the one in question, and its name."""
    ours = _texts(facts.built)
    best: tuple[float, Built | None, str] = (-1.0, None, "")
    for config, built in facts.others.items():
        if isinstance(built.verdict, Accepted) and rightness(facts, built) == RIGHT:
            alike = difflib.SequenceMatcher(None, _texts(built), ours, autojunk=False).ratio()
            if alike > best[0]:
                best = (alike, built, f"the build {config}")
    return best[1], best[2]


def _texts(built: Built) -> list[str]:
    return [format_insn(insn) for insn in built.program.insns] if built.program else []
