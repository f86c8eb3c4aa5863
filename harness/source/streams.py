"""Random programs of BPF instructions, which the verifier accepts by construction.

What a C compiler does not make: every opcode, stack-argument slots in every pattern (gaps
filled on branches, slots that two calls share, values and pointers forwarded from slot to
slot), bounded loops, callbacks, and calls of up to twelve arguments. While a function is
written its registers and stack are typed, as the verifier will type them: a number, or a
pointer to so many bytes that hold numbers. Pointers never become data, so that all legs come
to the same result; what a program computes ends in the first bytes of its context.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from harness.corpus import FunctionDecl, ProgramText
from harness.isa import opcodes as o
from harness.isa.disasm import format_insn
from harness.isa.insn import (
    FP,
    R0,
    Alu,
    Insn,
    Load,
    LoadImm,
    Store,
    StoreImm,
)
from harness.isa.stack_args import REG_ARGS, load_incoming, store_outgoing
from harness.model import Vector
from harness.source.stream_state import (
    AREA,
    CONTEXT,
    DEPTH,
    EDGES,
    MAPS,
    NUMBER,
    SAVED,
    TABLE,
    VALUE,
    VECTORS,
    Kind,
    Memory,
    Signature,
)
from harness.source.stream_steps import Steps


def generate(seed: int, number: int) -> tuple[ProgramText, tuple[Vector, ...]]:
    """Return program *number* of *seed*, and contexts to run it on."""
    rng = random.Random(f"stream:{seed}:{number}")
    functions: list[Signature] = []
    bodies: list[list[str]] = []
    used: set[str] = set()
    for index in range(rng.choice((1, 1, 2, 2, 3, 4, 6))):
        callable_ = [f for f in functions if f.depth < DEPTH and (f.name not in used or _once(rng))]
        function = Function(rng, f"f{index}", _arguments(rng), callable_)
        bodies.append(function.write())
        depth = 1 + max((f.depth for f in functions if f.name in function.called), default=0)
        used |= function.called
        linkage = "static"
        if len(function.args) <= REG_ARGS and all(a == NUMBER for a in function.args):
            linkage = "global" if rng.random() < 0.4 else "static"
        functions.append(Signature(f"f{index}", function.args, depth, linkage))
    last = [f for f in functions if f.name not in used]
    main = Function(rng, "", (Memory("context", CONTEXT),), last or functions, main=True)
    lines = main.write()
    callbacks = main.callbacks
    called = _reached(lines, bodies)
    kept = [(f, b) for f, b in zip(functions, bodies, strict=True) if f.name in called]
    for function_, body in kept:
        lines += [f"{function_.name}:", *body]
    declared = [FunctionDecl(f.name, _types(rng, f), f.linkage) for f, _ in kept]
    for name in sorted(callbacks):
        lines += callbacks[name]
        declared.append(FunctionDecl(name, ("u64", "ptr")))
    text = ProgramText("\n".join(lines) + "\n", functions=tuple(declared), maps=MAPS)
    return text, vectors(rng)


def vectors(rng: random.Random) -> tuple[Vector, ...]:
    """Return contexts: edges, then random bytes."""
    fixed = [bytes(CONTEXT), bytes([0xFF]) * CONTEXT, bytes(range(CONTEXT))]
    made = []
    for _ in range(VECTORS - len(fixed)):
        words = [rng.choice(EDGES) if rng.random() < 0.6 else rng.getrandbits(64) for _ in range(8)]
        made.append(b"".join((w & (1 << 64) - 1).to_bytes(8, "little") for w in words))
    return (*fixed, *made)


def _once(rng: random.Random) -> bool:
    return rng.random() < 0.3


def _reached(main: list[str], bodies: list[list[str]]) -> set[str]:
    """Return the functions that main calls, and those that they call."""
    found: set[str] = set()
    left = [main]
    while left:
        for line in left.pop():
            name = line.removeprefix("call ")
            if name != line and name not in found and name.startswith("f"):
                found.add(name)
                left.append(bodies[int(name[1:])])
    return found


def _arguments(rng: random.Random) -> tuple[Kind, ...]:
    count = rng.randint(6, 12) if rng.random() < 0.8 else rng.randint(0, 5)
    pointers = 0
    kinds: list[Kind] = []
    for _ in range(count):
        if rng.random() < 0.2 and pointers < 3:
            pointers += 1
            where = rng.choice(("stack", "stack", "value", "table", "context"))
            size = {"stack": AREA, "value": VALUE, "table": TABLE, "context": CONTEXT}[where]
            size = rng.choice([n for n in (8, 16, size) if n <= size])
            kinds.append(Memory(where, size, maybe=where == "value" and rng.random() < 0.4))
        else:
            kinds.append(NUMBER)
    return tuple(kinds)


def _types(rng: random.Random, function: Signature) -> tuple[str, ...]:
    """Return the types that BTF says; of static functions only how many there are matters."""
    if function.linkage == "global":
        return ("u64",) * len(function.args)
    scalars = ("u64", "u64", "u64", "s64", "u32", "s32", "u16", "s8", "bool")
    return tuple("ptr" if isinstance(k, Memory) else rng.choice(scalars) for k in function.args)


class Function(Steps):
    """The text of one function, as it grows."""

    def __init__(
        self,
        rng: random.Random,
        name: str,
        args: tuple[Kind, ...],
        callees: list[Signature],
        *,
        main: bool = False,
    ) -> None:
        """Begin function *name*, which may call *callees*."""
        super().__init__(rng, name, area=main or rng.random() < 0.8)
        self.args = args
        self.callees = callees
        self.main = main
        self.keep = 0  # main: the register with the context
        self.called: set[str] = set()
        self.callbacks: dict[str, list[str]] = {}

    # --- the whole -----------------------------------------------------------

    def write(self) -> list[str]:
        """Return the lines of the function."""
        rng = self.rng
        for index, kind in enumerate(self.args[:REG_ARGS]):
            self.set(index + 1, kind)
        self._enter()
        if self.area:
            self._fill_area()
        calls = [c for c in self.callees if self.callable(c)]
        rng.shuffle(calls)
        calls = calls if self.main else calls[:2]
        for _ in range(rng.randint(1, 5)):
            self.statement(2)
            if calls and rng.random() < 0.6:
                self._calls(calls)
        while calls:
            self._calls(calls)
        for reg in self.numbers():
            if reg != self.acc and rng.random() < 0.5:
                self.mix(reg)
        self._leave()
        return self.lines

    def _enter(self) -> None:
        """Take the arguments in: slots before any call and any slot that is written."""
        rng = self.rng
        numbers = self.numbers()
        if numbers and rng.random() < 0.7:
            self.emit(Alu("mov", 64, self.acc, rng.choice(numbers)))
        else:
            self.emit(Alu("mov", 64, self.acc, None, self.imm()))
        self.set(self.acc, NUMBER)
        if self.main:
            (keep,) = rng.sample([r for r in SAVED if r != self.acc], 1)
            self.emit(Alu("mov", 64, keep, 1))
            self.set(keep, self.args[0])
            self.pinned.add(keep)
            self.keep = keep
            for _ in range(2):
                dst = self.free()
                self.emit(Load(8, dst, keep, 8 * rng.randrange(CONTEXT // 8)))
                self.set(dst, NUMBER)
        slots = list(range(1, len(self.args) - REG_ARGS + 1))
        rng.shuffle(slots)
        for slot in slots:
            kind = self.args[slot + REG_ARGS - 1]
            if rng.random() < 0.1:
                continue  # never read
            if kind == NUMBER and rng.random() < 0.15 and self.numbers():
                self._late(slot)
                continue
            self._incoming(slot, kind)
            if rng.random() < 0.08:
                self._incoming(slot, kind)
        for reg in range(1, 6):
            kind_ = self.state.regs.get(reg)
            if kind_ is not None and rng.random() < 0.5:
                self.put_by(reg, kind_)

    def _incoming(self, slot: int, kind: Kind) -> None:
        """Read an incoming slot."""
        rng = self.rng
        taken = {r for r in range(1, 6) if r in self.state.regs}
        free = [r for r in range(10) if r not in self.pinned and r not in taken]
        dst = rng.choice(free)
        self.emit(load_incoming(dst, slot))
        self.set(dst, kind)
        if isinstance(kind, Memory):
            if rng.random() < 0.7:
                self.put_by(dst, kind)
        elif rng.random() < 0.6:
            self.mix(dst)
        elif rng.random() < 0.5:
            self.put_by(dst, kind)

    def _late(self, slot: int) -> None:
        """Read an incoming slot on one path only."""
        over = self.label()
        self._jump(over)
        before = self.state.copy()
        free = [r for r in range(6, 10) if r not in self.pinned] or [0]
        dst = self.rng.choice(free)
        self.emit(load_incoming(dst, slot))
        self.set(dst, NUMBER)
        self.mix(dst)
        self.lines.append(f"{over}:")
        self.state = self.state.meet(before)

    def _fill_area(self) -> None:
        for at in range(self.area, self.area + AREA, 8):
            numbers = self.numbers()
            if self.rng.random() < 0.5 and numbers:
                self.emit(Store(8, FP, at, self.rng.choice(numbers)))
            else:
                self.emit(StoreImm(8, FP, at, self.imm()))

    def _leave(self) -> None:
        if self.main:
            self.emit(Store(8, self.keep, 0, self.acc))
        self.emit(Alu("mov", 64, R0, self.acc))
        self.lines.append("exit")

    # --- statements ----------------------------------------------------------

    def statement(self, depth: int) -> None:
        """Write one."""
        choices: list[tuple[int, Callable[[], None]]] = [
            (30, self.alu), (8, self.endian), (6, self.wide), (14, self.load),
            (12, self.store), (9, self.atomic), (6, self.spill), (6, self.fill),
            (4, self.exchange), (4, self.indexed), (3, self._check), (2, self._long_jump),
        ]  # fmt: skip
        if depth > 0:
            choices += [(12, lambda: self._branch(depth)), (3, lambda: self._early(depth))]
            if not self.loops:
                choices += [(7, lambda: self._loop(depth)), (4, self._lookup), (3, self._update)]
                if self.main:
                    choices.append((1, self._callback))
        weights = [w for w, _ in choices]
        (chosen,) = self.rng.choices([c for _, c in choices], weights)
        chosen()

    def block(self, depth: int) -> None:
        """Write a few statements."""
        for _ in range(self.rng.randint(1, 3)):
            self.statement(depth)

    # --- jumps ---------------------------------------------------------------

    def _condition(self) -> str:
        rng = self.rng
        bits = rng.choice((32, 64))
        name = "w" if bits == 32 else "r"
        numbers = self.numbers()
        left = rng.choice(numbers)
        sign = o.JUMP_SYMBOLS[rng.choice(tuple(o.JUMP_OPS))]
        others = [r for r in numbers if r != left]
        if others and rng.random() < 0.4:
            return f"if {name}{left} {sign} {name}{rng.choice(others)}"
        return f"if {name}{left} {sign} {self.imm()}"

    def _jump(self, label: str) -> None:
        self.lines.append(f"{self._condition()} goto {label}")

    def _branch(self, depth: int) -> None:
        other, end = self.label(), self.label()
        self._jump(other)
        before = self.state.copy()
        self.block(depth - 1)
        if self.rng.random() < 0.6:
            word = "gotol" if self.rng.random() < 0.15 else "goto"
            self.lines += [f"{word} {end}", f"{other}:"]
            after, self.state = self.state, before
            self.block(depth - 1)
            self.lines.append(f"{end}:")
            self.state = self.state.meet(after)
        else:
            self.lines.append(f"{other}:")
            self.state = self.state.meet(before)

    def _early(self, depth: int) -> None:
        """Leave on one path."""
        over = self.label()
        self._jump(over)
        before = self.state.copy()
        self.block(depth - 1)
        self._leave()
        self.lines.append(f"{over}:")
        self.state = before

    def _long_jump(self) -> None:
        """Jump over something that no path reaches but from the other side."""
        there = self.label()
        word = self.rng.choice(("goto", "gotol"))
        self.lines += [f"{word} {there}", f"{there}:"]

    def _loop(self, depth: int) -> None:
        """Count down in a register that nothing else writes."""
        rng = self.rng
        free = [r for r in SAVED if r not in self.pinned]
        if not free:
            return
        counter = rng.choice(free)
        count = rng.randint(2, 4)
        bits = rng.choice((32, 64))
        self.emit(Alu("mov", 64, counter, None, count))
        self.set(counter, NUMBER)
        for reg in range(6):
            self.state.regs.pop(reg, None)
        self.pinned.add(counter)
        self.loops += 1
        top, out = self.label(), self.label()
        self.lines.append(f"{top}:")
        may = rng.random() < 0.1
        if may:
            self.lines.append(f"may_goto {out}")
        before = self.state.copy()
        self.block(depth - 1)
        if rng.random() < 0.25:
            calls = [c for c in self.callees if self.callable(c) and c.depth == 1]
            if calls:
                self.call(rng.choice(calls))
        self.emit(Alu("sub", bits, counter, None, 1))
        name = "w" if bits == 32 else "r"
        self.lines += [f"if {name}{counter} != 0 goto {top}", f"{out}:"]
        self.loops -= 1
        self.pinned.discard(counter)
        self.state = self.state.meet(before)

    # --- calls ---------------------------------------------------------------

    def callable(self, callee: Signature) -> bool:
        """Return whether we can provide what *callee* takes."""
        return all(self._have(kind) for kind in callee.args)

    def _have(self, kind: Kind) -> bool:
        match kind:
            case Memory(where="stack"):
                return bool(self.area)
            case Memory(where="context"):
                return self.main
        return True

    def _calls(self, calls: list[Signature]) -> None:
        """Call one function, or one of two."""
        first = calls.pop()
        if calls and self.rng.random() < 0.35:
            self._either(first, calls.pop())
        else:
            self.call(first)

    def _either(self, first: Signature, second: Signature) -> None:
        """Write the slots that two calls share, and call one of the functions."""
        shared = [
            n for n in range(1, min(first.slots, second.slots) + 1)
            if first.args[n + 4] == second.args[n + 4]
        ]  # fmt: skip
        for slot in shared:
            self._outgoing(slot, first.args[slot + 4])
        other, end = self.label(), self.label()
        self._jump(other)
        before = self.state.copy()
        self.call(first, written=shared)
        self.lines += [f"goto {end}", f"{other}:"]
        after, self.state = self.state, before
        self.call(second, written=shared)
        self.lines.append(f"{end}:")
        self.state = self.state.meet(after)

    def call(self, callee: Signature, written: list[int] | None = None) -> None:
        """Write the slots that are not *written* yet, the registers, and the call."""
        rng = self.rng
        slots = [n for n in range(1, callee.slots + 1) if n not in (written or ())]
        rng.shuffle(slots)
        regs = list(range(1, min(REG_ARGS, len(callee.args)) + 1))
        rng.shuffle(regs)
        late = [slots.pop() for _ in range(rng.randint(0, len(slots)))]
        for slot in slots:
            self._outgoing(slot, callee.args[slot + 4])
        held = self.pinned.copy()
        for reg in regs:
            kind = callee.args[reg - 1]
            if self.state.regs.get(reg) != kind or rng.random() < 0.5:
                self._make(reg, kind)
            self.pinned.add(reg)
        for slot in late:
            self._outgoing(slot, callee.args[slot + 4])
        self.pinned = held
        self.lines.append(f"call {callee.name}")
        self.called.add(callee.name)
        self.forget()
        self.set(R0, NUMBER)
        self.mix(R0)

    def _make(self, reg: int, kind: Kind) -> None:
        """Put a value of *kind* into register *reg*."""
        rng = self.rng
        if isinstance(kind, Memory):
            held = [
                r for r, k in self.state.regs.items()
                if isinstance(k, Memory) and k.where == kind.where and k.size >= kind.size
                and (kind.maybe or not k.maybe)
            ]  # fmt: skip
            if held and rng.random() < 0.8:
                self.emit(Alu("mov", 64, reg, rng.choice(held)))
            elif kind.where == "stack":
                self.emit(Alu("mov", 64, reg, FP))
                room = AREA - kind.size
                self.emit(Alu("add", 64, reg, None, self.area + 8 * rng.randint(0, room // 8)))
            elif kind.where == "context":
                self.emit(Alu("mov", 64, reg, self.keep))
            else:
                whole = VALUE if kind.where == "value" else TABLE
                at = 8 * rng.randint(0, (whole - kind.size) // 8)
                self.emit(LoadImm(reg, 6, at << 32 | (0 if kind.where == "value" else 1)))
        else:
            numbers = self.numbers()
            homes = [h for h, k in self.state.homes.items() if k == NUMBER]
            draw = rng.random()
            if draw < 0.3 and homes:
                self.emit(Load(8, reg, FP, rng.choice(homes)))
            elif draw < 0.8 and numbers:
                bits = 64 if rng.random() < 0.8 else 32
                self.emit(Alu("mov", bits, reg, rng.choice(numbers)))
            else:
                self.emit(Alu("mov", 64, reg, None, self.imm()))
        self.set(reg, kind)

    def _outgoing(self, slot: int, kind: Kind) -> None:
        """Write an outgoing slot: now and then twice, or on both sides of a branch."""
        rng = self.rng
        if kind == NUMBER and self.numbers() and rng.random() < 0.12:
            other, end = self.label(), self.label()
            self._jump(other)
            before = self.state.copy()
            self._write(slot, kind)
            self.lines += [f"goto {end}", f"{other}:"]
            after, self.state = self.state, before
            self._write(slot, kind)
            self.lines.append(f"{end}:")
            self.state = self.state.meet(after)
            return
        if rng.random() < 0.06:
            self._write(slot, NUMBER)
        self._write(slot, kind)

    def _write(self, slot: int, kind: Kind) -> None:
        rng = self.rng
        if kind == NUMBER and rng.random() < 0.3:
            self.emit(StoreImm(8, 11, -8 * slot, self.imm()))
            return
        held = [r for r, k in self.state.regs.items() if k == kind]
        if held and rng.random() < 0.9:
            self.emit(store_outgoing(slot, rng.choice(held)))
            return
        free = [r for r in range(6) if r not in self.pinned]
        if not free:
            free = [r for r in range(10) if r not in self.pinned]
        reg = rng.choice(free or [0])
        self._make(reg, kind)
        self.emit(store_outgoing(slot, reg))

    # --- helpers -------------------------------------------------------------

    def _key(self) -> int:
        """Write a key of four bytes to the stack; return its place."""
        at = self.home_offsets[-1] - 8
        self.emit(StoreImm(4, FP, at, self.rng.randrange(3)))
        return at

    def _lookup(self) -> None:
        """Look an element up, and read it where it is there."""
        at, over = self._key(), self.label()
        index, size = self.rng.choice(((0, VALUE), (2, 8)))
        self.emit(Alu("mov", 64, 2, FP))
        self.emit(Alu("add", 64, 2, None, at))
        self.emit(LoadImm(1, 5, index))
        self.lines.append("call bpf_map_lookup_elem")
        self.forget()
        self.lines.append(f"if r0 == 0 goto {over}")
        before = self.state.copy()
        self.set(R0, Memory("value", size))
        self.block(0)
        self.lines.append(f"{over}:")
        self.state = self.state.meet(before)
        self.state.regs.pop(R0, None)

    def _update(self) -> None:
        if not self.area:
            return
        at = self._key()
        self.emit(Alu("mov", 64, 2, FP))
        self.emit(Alu("add", 64, 2, None, at))
        if self.rng.random() < 0.6:
            self.emit(Alu("mov", 64, 3, FP))
            self.emit(Alu("add", 64, 3, None, self.area))
            self.emit(Alu("mov", 64, 4, None, self.rng.choice((0, 0, 1, 2))))
            helper = "bpf_map_update_elem"
        else:
            helper = "bpf_map_delete_elem"
        self.emit(LoadImm(1, 5, 2))
        self.lines.append(f"call {helper}")
        self.forget()
        self.set(R0, NUMBER)
        self.mix(R0)

    def _check(self) -> None:
        """Use a pointer that may be NULL, behind a check."""
        found = [r for r, k in self.state.regs.items() if isinstance(k, Memory) and k.maybe]
        if not found or self.loops:
            return
        reg = self.rng.choice(found)
        kind = self.state.regs[reg]
        assert isinstance(kind, Memory)
        over = self.label()
        self.lines.append(f"if r{reg} == 0 goto {over}")
        before = self.state.copy()
        self.set(reg, Memory(kind.where, kind.size))
        self.block(0)
        self.lines.append(f"{over}:")
        self.state = self.state.meet(before)

    def _callback(self) -> None:
        """Call bpf_loop with a function that writes to the stack of ours."""
        name = f"cb{len(self.callbacks)}"
        self.emit(Alu("mov", 64, 1, None, self.rng.randint(1, 3)))
        self.lines.append(f"r2 = {name} ll")
        self.emit(Alu("mov", 64, 3, FP))
        self.emit(Alu("add", 64, 3, None, self.area))
        self.emit(Alu("mov", 64, 4, None, 0))
        self.lines.append("call bpf_loop")
        self.forget()
        self.set(R0, NUMBER)
        self.mix(R0)
        at = 8 * self.rng.randrange(AREA // 8)
        body: list[Insn] = [Load(8, 0, 2, at), Alu("add", 64, 0, 1), Store(8, 2, at, 0)]
        texts = [format_insn(insn) for insn in body]
        lines = [*texts, format_insn(Alu("mov", 64, 0, None, 0)), "exit"]
        self.callbacks[name] = [f"{name}:", *lines]
