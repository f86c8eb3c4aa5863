"""Pointers to packet data: how far a comparison with the end makes them safe.

``find_good_pkt_pointers``, ``try_match_pkt_pointers``, ``is_pkt_ptr_branch_taken``,
``clear_all_pkt_pointers`` (verifier.c of Linux 7.3.4). The range is in ``Reg.info``.
"""

from __future__ import annotations

from harness.isa.insn import Jump
from harness.verifier import refs
from harness.verifier.env import Env
from harness.verifier.state import (
    PACKET,
    PACKET_END,
    PACKET_META,
    UNKNOWN_REG,
    Reg,
    State,
    in_packet,
)

MAX_OFFSET = 0xFFFF  # MAX_PACKET_OFF
AT_END, BEYOND_END = -1, -2  # ranges of pointers at or behind the end
_SWAPPED = {"gt": "lt", "lt": "gt", "ge": "le", "le": "ge"}


def taken(insn: Jump, left: Reg, right: Reg) -> bool | None:
    """Say whether a comparison of packet pointers jumps (``is_pkt_ptr_branch_taken``)."""
    op: str | None = insn.op
    if right.type == PACKET_END:
        pointer = left
    elif left.type == PACKET_END:
        pointer, op = right, _SWAPPED.get(insn.op)
    else:
        return None
    reached = pointer.info
    if reached >= 0:
        return None
    if op in ("le", "gt") and reached == BEYOND_END:
        return op == "gt"
    if op in ("lt", "ge"):
        return op == "ge"
    return None


def learn(state: State, other: State, number: int, insn: Jump) -> None:
    """Learn from a comparison how much of the packet is there (``try_match_pkt_pointers``).

    *other* is the state behind the jump.
    """
    if insn.src is None or insn.bits == 32 or insn.op not in _SWAPPED:
        return
    regs = state.frames[number].regs
    left, right = regs[insn.dst], regs[insn.src]
    if _below(left, right):  # pointer <op> end
        pointer, index, op = left, insn.dst, insn.op
    elif _below(right, left):
        pointer, index, op = right, insn.src, _SWAPPED[insn.op]
    else:
        return
    # The pointer does not pass the end where it is less; behind "less or equal" by one byte more.
    inside, outside = (state, other) if op in ("gt", "ge") else (other, state)
    strictly = op in ("ge", "lt")
    _good(inside, pointer, strictly)
    _mark_end(outside, number, index, not strictly)


def _below(pointer: Reg, end: Reg) -> bool:
    """Say whether *end* ends what *pointer* points into: the packet, or what lies before it."""
    if pointer.type == PACKET:
        return end.type == PACKET_END
    if pointer.type != PACKET_META or end.type != PACKET:
        return False
    return not end.id and end.num.is_const and end.num.value == 0


def _good(state: State, pointer: Reg, strictly: bool) -> None:
    """Let all that moved with *pointer* reach as far (``find_good_pkt_pointers``)."""
    most = pointer.num.umax
    if (most == 0 and strictly) or most > MAX_OFFSET:
        return
    reach = most + strictly
    kind, ident = pointer.type, pointer.id

    def reaching(reg: Reg) -> Reg:
        if reg.type == kind and reg.id == ident and reg.info < reach:
            return reg.with_info(reach)
        return reg

    refs.rewrite(state, reaching)


def _mark_end(state: State, number: int, index: int, beyond: bool) -> None:
    """``mark_pkt_end``."""
    reg = state.frames[number].regs[index]
    if reg.type == PACKET:
        state.own(number).regs[index] = reg.with_info(BEYOND_END if beyond else AT_END)


def forget(env: Env) -> None:
    """Forget pointers to a packet that may have moved (``clear_all_pkt_pointers``)."""
    refs.rewrite(env.state, lambda reg: UNKNOWN_REG if in_packet(reg.type) else reg)
