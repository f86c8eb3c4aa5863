"""The rewrites of one instruction at a time (``bpf_do_misc_fixups``, fixups.c of Linux 7.3.4).

As x86-64 gets them, for a privileged user. What calls become is ``inline``'s.
"""

from __future__ import annotations

from dataclasses import replace

from harness.isa import opcodes as o
from harness.isa.insn import (
    FP,
    AddrSpaceCast,
    Alu,
    Call,
    Exit,
    Insn,
    Jump,
    Load,
    LoadImm,
    LoadPacket,
    MayGoto,
    PercpuAddr,
    Raw,
    Store,
    StoreImm,
)
from harness.model import Frame
from harness.verifier.arithmetic import AX, divided
from harness.verifier.env import Env
from harness.verifier.inline import call_patch
from harness.verifier.inline_kfuncs import kfunc_patch
from harness.verifier.kernel_layout import Layout
from harness.verifier.rewrite import HEAP, Part, Patch, Rewriter, Slot

TIMED_LOOPS = 0xFFFF  # BPF_MAX_TIMED_LOOPS
_NO_USER_CONV = 1 << 18  # BPF_F_NO_USER_CONV
_PERCPU_ARRAY, _ARENA, _INSN_ARRAY = 6, 33, 34
_MAP_VALUE = 6  # by index, as our programs name maps
_REG_SIZE = 8
_LOAD_PACKET = {
    1: "bpf_skb_load_helper_8_no_cache",
    2: "bpf_skb_load_helper_16_no_cache",
    4: "bpf_skb_load_helper_32_no_cache",
}


def misc_fixups(rewriter: Rewriter, env: Env, layout: Layout) -> None:
    """Rewrite every instruction that the JIT does not take as it is."""
    if env.throws and not env.exception_callback:
        _add_hidden(rewriter)
    pokes = 0
    no_user_conv = any(m.type == _ARENA and m.flags & _NO_USER_CONV for m in env.maps)
    for part in rewriter.parts:
        number = 0
        while number < len(part.slots):
            slot = part.slots[number]
            if slot.at in env.alu32:  # arithmetic with a pointer into an arena
                assert isinstance(slot.insn, Alu)
                slot.insn = replace(slot.insn, bits=32)
            patch: Patch | None = None
            match slot.insn:
                case AddrSpaceCast(dst=dst, src=src, imm=imm):
                    if imm == 1 or no_user_conv:
                        slot.insn = Alu("mov", 32, dst, src)
                case Alu() as insn:
                    insns = divided(insn)
                    patch = Patch(*insns) if insns else None
                case LoadPacket() as packet:
                    patch = _packet(packet)
                case MayGoto():
                    patch = may_goto_patch(part, slot)
                case LoadImm(src=kind, imm=imm, dst=dst) if kind == _MAP_VALUE:
                    found = env.maps[imm & 0xFFFFFFFF]
                    if found.type == _PERCPU_ARRAY:
                        number += 1
                        patch = Patch(part.slots[number].insn, PercpuAddr(dst, dst))
                    elif found.type in (_ARENA, _INSN_ARRAY):  # Linux then forgets the map
                        slot.insn, slot.symbol = LoadImm(dst, 0, 0), HEAP + found.name
                case Call(kind="helper", imm=12):
                    pokes += _tail_call(env, slot, pokes)
                case Call(kind="helper") as call:
                    patch = call_patch(env, slot, call, layout)
                case Call(kind="kfunc") as call:
                    patch = kfunc_patch(env, slot, call)
            number += 1 if patch is None else rewriter.put(part, number, patch)


def _add_hidden(rewriter: Rewriter) -> None:
    """Add the function that exceptions end in where the program has none of its own."""
    slots = [Slot(Alu("mov", 64, 0, 1)), Slot(Exit())]
    frame = Frame(0, exception_callback=True)
    rewriter.parts.append(Part("", slots, "static", 0, -1, 0, frame))


def _packet(insn: LoadPacket) -> Patch:
    """``bpf_gen_ld_abs``: a packet that is too short ends the program."""
    if insn.mode == "abs":
        place: tuple[Insn, ...] = (Alu("mov", 64, 2, None, insn.imm),)
    else:
        place = (Alu("mov", 64, 2, insn.src),)
        if insn.imm:
            place += (Alu("add", 64, 2, None, insn.imm),)
    return Patch(
        *place,
        Alu("mov", 64, 1, 6),
        Call("helper", 0),
        Jump("sge", 64, 0, None, 0, 2),
        Alu("xor", 32, 0, 0),
        Exit(),
        symbols={len(place) + 1: _LOAD_PACKET[insn.size]},
    )


def may_goto_patch(part: Part, slot: Slot) -> Patch:
    """Count in the frame; after so many rounds ask the clock."""
    assert slot.to is not None
    off = -part.stack_depth - 2 * _REG_SIZE
    part.stack_extra = 2 * _REG_SIZE
    return Patch(
        Load(8, AX, FP, off),
        Jump("eq", 64, AX, None, 0, 0),
        Alu("sub", 64, AX, None, 1),
        Jump("ne", 64, AX, None, 0, 2),
        Alu("mov", 64, AX, None, off),
        Call("helper", 0),
        Store(8, FP, off, AX),
        symbols={5: "arch_bpf_timed_may_goto"},
        to={1: slot.to},
    )


def _tail_call(env: Env, slot: Slot, pokes: int) -> int:
    """Make the kernel's own instruction of a tail call; return how many pokes it adds."""
    key = env.tail_keys.get(slot.at, -1)
    direct = key >= 0 and env.map_calls.get(slot.at) is not None
    slot.insn = Raw(o.JMP | 0xF0, 0, 0, 0, pokes + 1 if direct else 0)
    return int(direct)


def count_loops(rewriter: Rewriter) -> None:
    """Give functions with may_goto the room for the count, and set it where they begin."""
    for part in rewriter.parts:
        if not part.stack_extra:
            continue
        part.stack_depth += part.stack_extra
        depth = part.stack_depth
        count = StoreImm(8, FP, -depth, TIMED_LOOPS)
        rewriter.put_before(part, [count, StoreImm(8, FP, -depth + _REG_SIZE, 0)])
