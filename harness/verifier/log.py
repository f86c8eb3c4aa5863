"""The log, in the kernel's form, kept as events and rendered only when it is asked for.

A path that turns out safe is taken back, at level 1, by cutting the list of events:
registers and slots are immutable, so an event can hold them as they were.
Mirrors kernel/bpf/log.c and ``bpf_verifier_log`` of Linux 7.3.

Left out are what the analyses before the first instruction print at level 2 (live
registers, use of the stack) and the explanations (``error: ...``) behind a refusal.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from harness.model import LineInfo, MapDef
from harness.verifier.bounds import format_ranges, signed_text, unsigned_text
from harness.verifier.state import (
    ADD_CONST,
    ARENA,
    BASE,
    BTF_ID,
    DYNPTR,
    DYNPTR_SLOT,
    INVALID,
    ITER_SLOT,
    MAP_KEY,
    MAP_PTR,
    MAP_VALUE,
    MEM,
    MEM_ALLOC,
    NON_OWN_REF,
    PACKET,
    PACKET_META,
    POISON,
    SCALAR,
    SLOT_CHARS,
    SPILL,
    STACK,
    UNTRUSTED,
    Frame,
    Reg,
    Slot,
    State,
    TypeRef,
    type_name,
)

_ALIGN, _MIN_ALIGN = 40, 8  # BPF_LOG_ALIGNMENT, BPF_LOG_MIN_ALIGNMENT

TEXT, INSN, LINE, STATE = range(4)
Event = tuple[object, ...]


class Log:
    """Events of one verification; ``level`` 0 keeps none, 2 every path; 4 adds statistics."""

    def __init__(self, level: int, lines: Sequence[LineInfo]) -> None:
        self.level = level & 3
        self.on = self.level > 0
        self.stats = bool(level & 4)
        self._any = level > 0
        self.events: list[Event] = []
        self.lines = lines
        self._line_slots = [line.insn for line in lines]
        self._last_line = -1  # index of the line printed last
        self._insn_end = -1  # events behind the instruction line printed last

    # --- writing ----------------------------------------------------------------

    @property
    def position(self) -> int:
        """Where the log is now, for ``reset``."""
        return len(self.events)

    def reset(self, position: int) -> None:
        """Take back what came after *position* (``bpf_vlog_reset``)."""
        del self.events[position:]

    def text(self, text: str) -> None:
        """Append *text* as it is."""
        if self._any:
            self.events.append((TEXT, text))

    def forget_line(self) -> None:
        """Print the next source line even if it was the last one."""
        self._last_line = -1

    def line(self, slot: int) -> None:
        """Print the source line of *slot*, unless it was the last one (``verbose_linfo``)."""
        if not self.on or not self.lines:
            return
        found = bisect_right(self._line_slots, slot) - 1
        last = self._last_line
        if found < 0 or found == last:
            return
        if last >= 0:
            new, old = self.lines[found], self.lines[last]
            if new.file == old.file and new.line == old.line:
                return
        self.events.append((LINE, found))
        self._last_line = found

    def insn(self, slot: int) -> None:
        """Print the instruction at *slot*."""
        self.events.append((INSN, slot, False))
        self._insn_end = len(self.events)

    def plain_insn(self, slot: int) -> None:
        """Print the instruction at *slot* as part of another message."""
        self.events.append((INSN, slot, False))

    def insn_state(self, state: State, slot: int, regs: int, slots: int) -> None:
        """Print what changed, behind the instruction if that came last (``print_insn_state``)."""
        attached = self._insn_end == len(self.events) and self._insn_end > 0
        number = 0
        if attached:
            last = self.events[-1]
            number = int(last[1])  # type: ignore[call-overload]
            self.events[-1] = (INSN, number, True)
        self._state(state, len(state.frames) - 1, slot, attached, number, regs, slots)

    def state(
        self, state: State, frame: int, precise: tuple[int, int] = (0, 0), text: str = ""
    ) -> None:
        """Print all of a frame (``print_verifier_state``) behind *text*."""
        if self.on:
            self.events.append((TEXT, text))
            self._state(state, frame, None, False, 0, -1, -1, precise)

    def _state(
        self,
        state: State,
        number: int,
        slot: int | None,
        attached: bool,
        behind: int,
        regs: int,
        slots: int,
        precise: tuple[int, int] = (0, 0),
    ) -> None:
        frame = state.frames[number]
        kept = tuple(
            (index, reg) for index, reg in enumerate(frame.regs) if regs >> index & 1 and reg.type
        )
        stack = tuple(
            (index, entry) for index, entry in enumerate(frame.stack) if slots >> index & 1
        )
        refs = tuple(ref.id for ref in state.refs) if state.refs else ()
        self.events.append(
            (STATE, slot, attached, behind, frame, kept, stack, refs, precise, frame.number)
        )

    # --- reading ----------------------------------------------------------------

    def render(self, disassemble: Callable[[int], str]) -> str:
        """Return the log; *disassemble* gives the text of an instruction."""
        out: list[str] = []
        for event in self.events:
            match event:
                case (0, str(text)):
                    out.append(text)
                case (1, int(slot), bool(overwritten)):
                    line = f"{slot}: {disassemble(slot)}"
                    out.append(line + (" " if overwritten else "\n"))
                case (2, int(index)):
                    info = self.lines[index]
                    name = info.file.rsplit("/", 1)[-1]
                    out.append(f"; {info.text.lstrip()} @ {name}:{info.line}\n")
                case (3, slot, bool(attached), int(behind), *rest):
                    if attached:
                        width = len(f"{behind}: {disassemble(behind)}") + 1
                        out.append(" " * (_alignment(width) - 1) + ";")
                    elif slot is not None:
                        out.append(f"{slot}:")
                    out.append(_render_state(*rest))  # type: ignore[arg-type]
        return "".join(out)


def _alignment(position: int) -> int:
    """Return how many blanks go before the ``;`` of a state (``bpf_vlog_alignment``)."""
    end = max(position + _MIN_ALIGN // 2, _ALIGN)
    return -(-end // _MIN_ALIGN) * _MIN_ALIGN - position - 1


def _render_state(
    frame: Frame,
    regs: tuple[tuple[int, Reg], ...],
    stack: tuple[tuple[int, Slot], ...],
    refs: tuple[int, ...],
    precise: tuple[int, int],
    number: int,
) -> str:
    out = [f" frame{number}:"] if number else []
    for index, reg in regs:
        out.append(f" R{index}=" + format_reg(reg, number, bool(precise[0] >> index & 1)))
    skip = -1
    for index, slot in stack:
        types = slot.types
        if index == skip or all(kind in (INVALID, POISON) for kind in types):
            continue
        if types[7] == DYNPTR_SLOT:  # the first slot, which comes behind the second
            skip = index + 1
            out.append(f" fp{-(index + 2) * 8}=" + _format_dynptr(slot.reg))
            continue
        if types[7] == ITER_SLOT:
            held = slot.reg
            if held.id:
                out.append(
                    f" fp{-(index + 1) * 8}=iter_{held.info.name}(id={held.id},"
                    f"state={held.info.state},depth={held.info.depth})"
                )
            continue
        text = "".join(SLOT_CHARS[kind] for kind in types)
        if types[7] == SPILL:
            text = text[: types.index(SPILL)] + format_reg(
                slot.reg, number, bool(precise[1] >> index & 1)
            )
        out.append(f" fp{-(index + 1) * 8}={text}")
    if refs and refs[0]:
        out.append(" refs=" + ",".join(str(ref) for ref in refs if ref))
    if frame.in_callback:
        out.append(" cb")
    if frame.in_async:
        out.append(" async_cb")
    return "".join(out) + "\n"


def _format_dynptr(reg: Reg) -> str:
    parts = [f"id={reg.id}"] if reg.id else []
    if reg.parent_id:
        parts.append(f"parent_id={reg.parent_id}")
    return f"dynptr_{reg.info[0]}({','.join(parts)})"


# --- registers ------------------------------------------------------------------


def format_reg(reg: Reg, frame: int, precise: bool = False) -> str:
    """Return a register as the log shows it (``print_reg_state``)."""
    kind = reg.type
    base = kind & BASE
    num = reg.num
    out = "P" if kind == SCALAR and precise else ""
    if kind == SCALAR and num.is_const:
        return out + signed_text(num.value)
    out += type_name(kind)
    if kind == ARENA:
        return out
    if kind == STACK:
        if frame != reg.info:
            out += f"[{reg.info}]"
        if num.is_const:
            return out + signed_text(num.value)
    if base == BTF_ID and isinstance(reg.info, TypeRef):
        out += reg.info.name
    parts: list[str] = []
    if reg.id:
        parts.append(f"id={reg.id & ~ADD_CONST}")
    if reg.id & ADD_CONST:
        delta = f"{reg.delta:+d}"
        parts[-1] += delta
    if reg.parent_id:
        parts.append(f"parent_id={reg.parent_id}")
    if kind & NON_OWN_REF and kind & MEM_ALLOC and not kind & UNTRUSTED:
        parts.append("non_own_ref")
    if base in (MAP_PTR, MAP_VALUE, MAP_KEY) and isinstance(reg.info, MapDef):
        if reg.info.name:
            parts.append(f"map={reg.info.name}")
        parts.append(f"ks={reg.info.key_size},vs={reg.info.value_size}")
    if base in (PACKET, PACKET_META):
        parts.append("r=" + unsigned_text(reg.info & (1 << 64) - 1))
    if base == MEM:
        parts.append("sz=" + unsigned_text(reg.info))
    if kind == DYNPTR:
        parts.append(f"type={reg.info[0]}")
    if num.is_const:
        if num.value:
            parts.append("imm=" + signed_text(num.value))
    else:
        parts += filter(None, (format_ranges(num),))
    return f"{out}({','.join(parts)})"
