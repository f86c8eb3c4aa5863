"""Two executions of one program side by side: interpreter, and our image under unicorn.

Both stop before each BPF instruction. Values are compared where they mean the same on both
sides: numbers as they are, pointers by being pointers and, into the context, by their
offset. The instruction before the first difference is the one that did it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unicorn import UC_HOOK_CODE
from unicorn import x86_const as x86

from harness import verifier
from harness.interp import CONTEXT, FUNCTION, MAP, STACK, Interpreter
from harness.isa.disasm import format_insn
from harness.isa.insn import Call, CallX, Exit, High, Store, StoreImm
from harness.isa.stack_args import outgoing_slot
from harness.isa.targets import function_target
from harness.jit import text as x86_text
from harness.jit.x86_64 import compile as compile_program
from harness.legs import jit as jit_leg
from harness.legs.jit import JitLeg, JitRunner
from harness.model import Image, Outcome, Program, Unknown, Vector

MOST = 4000  # instructions of a trace
# fmt: off
REGISTERS = (  # x86-64 home of r0 to r9 (the kernel's reg2hex)
    x86.UC_X86_REG_RAX, x86.UC_X86_REG_RDI, x86.UC_X86_REG_RSI, x86.UC_X86_REG_RDX,
    x86.UC_X86_REG_RCX, x86.UC_X86_REG_R8, x86.UC_X86_REG_RBX, x86.UC_X86_REG_R13,
    x86.UC_X86_REG_R14, x86.UC_X86_REG_R15,
)
# fmt: on
Value = int | str | None  # a number, a pointer in words, or nothing known


@dataclass(frozen=True, slots=True)
class Moment:
    """The state before one instruction."""

    slot: int
    values: tuple[Value, ...]  # r0 to r9


@dataclass(frozen=True, slots=True)
class Lockstep:
    """Two traces and where they part."""

    interp: tuple[Moment, ...]
    jit: tuple[Moment, ...]
    parts_at: int | None  # index of the first moment that differs; None: nowhere
    wrong: int | None  # slot of the instruction before it
    why: str  # one sentence
    outcomes: tuple[Outcome, Outcome]


def trace_interp(program: Program, vector: Vector) -> tuple[list[Moment], Outcome]:
    """Return the interpreter's moments on *vector*, and its outcome."""
    moments: list[Moment] = []

    def note(slot: int, registers: tuple[int | None, ...]) -> None:
        if len(moments) < MOST:
            moments.append(Moment(slot, tuple(_of_interp(r) for r in registers[:10])))

    outcome = Interpreter(program).run(vector, trace=note)
    return moments, outcome


def _of_interp(value: int | None) -> Value:
    if value is None:
        return None
    region, offset = value >> 32, value & 0xFFFFFFFF
    if region == CONTEXT:
        return f"ctx+{offset}"
    if STACK <= region < FUNCTION:
        return "stack pointer"
    if region >= MAP and region < (1 << 21):
        return "pointer"
    return value


def trace_jit(program: Program, vector: Vector) -> tuple[list[Moment], Outcome] | Unknown:
    """Return the moments of our image of *program* on *vector*, by slot, and its outcome."""
    fixed = verifier.fixup(program)
    if len(fixed.insns) != len(program.insns):
        return Unknown("the verifier's fix-ups moved instructions")
    image = compile_program(fixed)
    if isinstance(image, Unknown):
        return image
    runner = JitLeg().prepare_image(image, fixed.maps)
    if isinstance(runner, Unknown):
        return runner
    places = _places(runner, image, fixed)
    moments: list[Moment] = []
    engine = runner._emulator.engine

    def step(_uc: object, address: int, _size: int, _data: object) -> None:
        slot = places.get(address)
        if slot is not None and len(moments) < MOST:
            values = tuple(_of_jit(engine.reg_read(register)) for register in REGISTERS)
            moments.append(Moment(slot, values))

    start, size = jit_leg.CODE
    hook = engine.hook_add(UC_HOOK_CODE, step, None, start, start + size)
    try:
        outcome = runner.run([vector])[0]
    finally:
        engine.hook_del(hook)
    return moments, outcome


def _places(runner: JitRunner, image: Image, program: Program) -> dict[int, int]:
    """Return native address: slot, for each instruction that emits something."""
    places: dict[int, int] = {}
    for sub, code in zip(program.subprograms, image.subprograms, strict=True):
        base = runner.linked.symbols[code.name]
        for offset, address in reversed(list(enumerate(code.addrs))):
            if not isinstance(program.insns[sub.start + offset], High):
                places[base + address] = sub.start + offset
    return places


def _of_jit(value: int) -> Value:
    for (start, size), name in (
        (jit_leg.CONTEXTS, "ctx"),
        (jit_leg.STACK, "stack pointer"),
        (jit_leg.DATA, "pointer"),
        (jit_leg.RODATA, "pointer"),
        (jit_leg.HEAP, "pointer"),
        (jit_leg.HANDLES, "pointer"),
    ):
        if start <= value < start + size:
            return f"ctx+{value - start - jit_leg.GAP}" if name == "ctx" else name
    return value


def compare(program: Program, vector: Vector) -> Lockstep | Unknown:
    """Run *program* on *vector* both ways and return where the executions part."""
    left, first = trace_interp(program, vector)
    traced = trace_jit(program, vector)
    if isinstance(traced, Unknown):
        return traced
    right, second = traced
    # an instruction that emits nothing shares its address with the next one
    shown = {moment.slot for moment in right}
    left = [m for m in left if m.slot in shown or _emits(program, m.slot)]
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        words = _difference(a, b)
        if words:
            return _parted(program, left, right, index, words, (first, second))
    if len(left) != len(right):
        index = min(len(left), len(right))
        words = f"one ends after {index} instructions"
        return _parted(program, left, right, index, words, (first, second))
    if first != second and left:
        words = "the states are the same up to the last instruction, the results are not"
        return _parted(program, left, right, len(left), words, (first, second))
    return Lockstep(tuple(left), tuple(right), None, None, "they do not part", (first, second))


def _emits(program: Program, slot: int) -> bool:
    return not isinstance(program.insns[slot], High)


def _difference(a: Moment, b: Moment) -> str:
    if a.slot != b.slot:
        return f"the interpreter goes on at {a.slot}, the image at {b.slot}"
    for register, (x, y) in enumerate(zip(a.values, b.values, strict=True)):
        if x is None or x == y:
            continue
        return f"r{register} is {value_text(x)} in the interpreter and {value_text(y)} in the image"
    return ""


def value_text(value: Value) -> str:
    """Return *value* for people."""
    return f"{value:#x}" if isinstance(value, int) else str(value)


def _parted(
    program: Program,
    left: Sequence[Moment],
    right: Sequence[Moment],
    index: int,
    words: str,
    outcomes: tuple[Outcome, Outcome],
) -> Lockstep:
    wrong = left[index - 1].slot if 0 < index <= len(left) else None
    if wrong is not None and isinstance(program.insns[wrong], Call | CallX):
        words += " (on entry of the callee)"
    after = (
        f"after `{format_insn(program.insns[wrong])}` (slot {wrong}) " if wrong is not None else ""
    )
    return Lockstep(tuple(left), tuple(right), index, wrong, after + words, outcomes)


def x86_lines(program: Program) -> dict[int, list[str]]:
    """Return our x86 of each slot of *program*, as capstone writes it."""
    fixed = verifier.fixup(program)
    image = compile_program(fixed)
    lines: dict[int, list[str]] = {}
    if isinstance(image, Unknown) or len(fixed.insns) != len(program.insns):
        return lines
    for sub, code in zip(fixed.subprograms, image.subprograms, strict=True):
        at = -1  # before the first slot: the prologue
        bounds = list(code.addrs)
        for offset, _, text in x86_text.disassemble(code):
            while at + 1 < len(bounds) and bounds[at + 1] <= offset:
                at += 1
            lines.setdefault(sub.start + at if at >= 0 else -1 - sub.start, []).append(text)
    return lines


def slots(program: Program, moments: Sequence[Moment]) -> list[tuple[tuple[str, Value], ...]]:
    """Return, for each of *moments*, the argument slots that are written, and their values.

    ``r11+8`` is an incoming slot, ``r11-8`` an outgoing one, as instructions name them.
    """
    starts = {sub.start for sub in program.subprograms}
    incoming: list[dict[int, Value]] = [{}]
    outgoing: dict[int, Value] = {}
    found: list[tuple[tuple[str, Value], ...]] = []
    for moment in moments:
        there = [(f"r11+{8 * n}", v) for n, v in sorted(incoming[-1].items())]
        there += [(f"r11-{8 * n}", v) for n, v in sorted(outgoing.items())]
        found.append(tuple(there))
        insn = program.insns[moment.slot]
        out = outgoing_slot(insn)
        if out is not None and isinstance(insn, Store | StoreImm):
            put = insn.imm % (1 << 64) if isinstance(insn, StoreImm) else moment.values[insn.src]
            outgoing[out] = put
        elif isinstance(insn, Call):
            if function_target(insn, moment.slot) in starts:
                incoming.append(outgoing)
            outgoing = {}
        elif isinstance(insn, Exit) and len(incoming) > 1:
            incoming.pop()
            outgoing = {}
    return found
