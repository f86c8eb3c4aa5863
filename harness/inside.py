"""Whether a run stays inside what the verifier knows: two of our own parts, cross-checked.

The interpreter runs a program that the verifier accepts; before every step each register,
stack slot and stack argument must be a member of what the verifier has of it there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness import interp
from harness.interp import CONTEXT, FUNCTION, MAP, STACK, STACK_SIZE, UNDEFINED, VALUE, Machine
from harness.model import Program
from harness.verifier import Options
from harness.verifier import state as v
from harness.verifier.bounds import truncate
from harness.verifier.env import NotModelled, Refused
from harness.verifier.follow import Follower, LostError

STEPS = 2_000  # of one run that are followed


@dataclass(frozen=True, slots=True)
class Inside:
    """How far one run was followed."""

    steps: int
    fault: str = ""  # where it left what the verifier knows, "" if it did not
    why: str = ""  # why it was not followed to its end, "" if it was


def follow(
    program: Program,
    vector: bytes,
    *,
    options: Options | None = None,
    interpreter: interp.Interpreter | None = None,
    steps: int = STEPS,
) -> Inside:
    """Run *program*, which the verifier accepts, on *vector* and follow it for *steps*.

    That the verifier refuses the path, or that the run traps, is a fault too: the program
    was accepted.
    """
    done = 0
    try:
        follower = Follower(program, options)
        for slot, machine in (interpreter or interp.Interpreter(program)).walk(vector):
            if done == steps:
                return Inside(done, why=f"more than {steps} steps")
            if done:
                follower.step()

            def fault(state: v.State, machine: Machine = machine) -> str | None:
                return outside(state, machine, follower.base)

            follower.arrive(slot, len(machine.frames), fault)
            done += 1
    except LostError as lost:
        return Inside(done, fault=str(lost))
    except Refused as refused:
        return Inside(done, fault=f"refused after {done} steps: {refused.message}")
    except interp.TrapError as trap:
        return Inside(done, fault=f"trapped after {done} steps: {': '.join(map(str, trap.args))}")
    except (NotModelled, interp.NotModelledError) as why:
        return Inside(done, why=str(why))
    return Inside(done)


def outside(state: v.State, machine: Machine, base: int = 0) -> str | None:
    """Return what of *machine* is no member of *state*, None if all is.

    *base* of the machine's frames are below those of the state.
    """
    return next(_faults(state, machine, base), None)


def _faults(state: v.State, machine: Machine, base: int) -> Iterator[str]:
    frames = [*machine.frames, machine.frame][base:]
    if len(frames) != len(state.frames):
        yield f"{len(frames)} frames, the verifier has {len(state.frames)}"
        return
    linked: dict[int, tuple[str, int]] = {}
    found = list(_values(state, machine, frames, base))
    for name, reg, value in found:
        if value is UNDEFINED:
            yield f"{name} holds nothing, the verifier has {_text(reg)}"
            return
        if not member(reg, value, machine, base):
            yield f"{name} is {value:#x}, the verifier has {_text(reg)}"
            return
    for name, reg, value in found:
        if not reg.id:
            continue
        if reg.type == v.SCALAR:
            number, value = reg.id & ~v.ADD_CONST, _without_delta(reg, value)
        elif reg.type & v.MAYBE_NULL:
            number, value = reg.id, int(value == 0)
        else:
            continue
        first = linked.setdefault(number, (name, value))
        same = first[1] == value or (
            reg.id & v.ADD_CONST32 and first[1] & interp.M32 == value & interp.M32
        )
        if not same:
            yield f"{name} and {first[0]} have the id {number}, but not the same value"
            return


def _without_delta(reg: v.Reg, value: int) -> int:
    return value - reg.delta & (interp.M32 if reg.id & v.ADD_CONST32 else interp.M64)


def _values(
    state: v.State, machine: Machine, frames: list[interp.Frame], base: int
) -> Iterator[tuple[str, v.Reg, int]]:
    """Yield name, abstract and concrete value of all that the verifier knows something of."""
    last = len(frames) - 1
    for number, frame in enumerate(state.frames):
        # a caller's r6 to r9 are kept with the frame it called
        values = machine.registers if number == last else None
        saved = frames[number + 1].saved if number < last else []
        for index, reg in enumerate(frame.regs[:10]):
            if reg.type == v.NOT_INIT:
                continue
            if values is not None:
                yield f"r{index}", reg, values[index]
            elif index >= 6:
                yield f"r{index} of frame {number}", reg, saved[index - 6]
        for index, reg in enumerate(frame.args):
            slots = frames[number].outgoing
            if reg.type != v.NOT_INIT:
                yield f"outgoing slot {index + 1}", reg, slots.get(index + 1, UNDEFINED)
        memory = machine.regions[STACK + base + number].data
        for index, slot in enumerate(frame.stack):
            start = STACK_SIZE - 8 * (index + 1)
            yield from _slot(f"fp{-8 * (index + 1)} of frame {number}", slot, memory, start)


def _slot(
    name: str, slot: v.Slot, memory: bytearray, start: int
) -> Iterator[tuple[str, v.Reg, int]]:
    types = slot.types[::-1]  # by address
    spilled = 0
    while spilled < 8 and types[spilled] == v.SPILL:
        spilled += 1
    if spilled:
        reg = slot.reg
        if spilled < 8:  # what is kept is the register, of which the low bytes were stored
            reg = reg.with_num(truncate(reg.num, spilled))
        yield name, reg, int.from_bytes(memory[start : start + spilled], "little")
    for at, kind in enumerate(types):
        if kind == v.ZERO:
            yield f"byte {at} of {name}", v.ZERO_REG, memory[start + at]


def _text(reg: v.Reg) -> str:
    return f"{v.type_name(reg.type)}({reg.num})"


def member(reg: v.Reg, value: int, machine: Machine, base: int = 0) -> bool:
    """Say whether *reg* may hold *value*; of what the machine does not have, yes."""
    if reg.type == v.SCALAR:
        return reg.num.contains(value)
    if value == 0 and reg.type & v.MAYBE_NULL:
        return True
    high, low = value >> 32, value & interp.M32
    match reg.type & v.BASE:
        case v.CTX:
            return high == CONTEXT and reg.num.contains(low)
        case v.STACK:
            return high == STACK + base + reg.info and reg.num.contains(
                low - STACK_SIZE & interp.M64
            )
        case v.MAP_PTR:
            return low == 0 and machine.maps[high - MAP].definition == reg.info
        case v.MAP_VALUE:
            values = next((m.entries for m in machine.maps if m.definition == reg.info), {})
            # an entry that was deleted may still be looked at
            known = any(address >> 32 == high for address in values.values())
            return (known or high >= VALUE) and reg.num.contains(low)
        case v.FUNC:
            return high == FUNCTION
    return value != 0
