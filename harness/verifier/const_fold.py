"""Constants known before any path is followed, and branches they decide.

``bpf_compute_const_regs`` and ``bpf_prune_dead_branches`` (const_fold.c) of Linux 7.3.4.
A value is (state, number): nothing yet, unknown, a 64-bit constant, a map, an offset
into a map's value, a subprogram.
"""

from __future__ import annotations

from harness.isa.insn import (
    AddrSpaceCast,
    Alu,
    Atomic,
    Call,
    CallX,
    Endian,
    Goto,
    Insn,
    Jump,
    Load,
    LoadImm,
    LoadPacket,
)
from harness.isa.stack_args import incoming_slot
from harness.verifier.cfg import compute_postorder
from harness.verifier.env import Env

M64 = (1 << 64) - 1
M32 = (1 << 32) - 1

_CONST, _MAP, _MAP_VALUE, _SUBPROG = "const", "map", "value", "subprog"
_Known = tuple[str, int, int] | None  # kind, map, number; None: unknown
_UNKNOWN: list[_Known] = [None] * 10
_CHANGES = (Endian, AddrSpaceCast, LoadImm, Load, Call, CallX, LoadPacket, Atomic)


def _signed(value: int, bits: int) -> int:
    sign = 1 << bits - 1
    return ((value & (sign << 1) - 1) ^ sign) - sign


def map_word(env: Env, index: int, off: int, size: int, signed: bool) -> int | None:
    """Return *size* bytes of a read-only map's value, sign- or zero-extended to 64 bits."""
    found = env.maps[index]
    if not found.readonly or found.data is None or off < 0 or off + size > found.value_size:
        return None
    data = found.data[off : off + size].ljust(size, b"\0")
    return int.from_bytes(data, "little", signed=signed) & M64


def _after(env: Env, regs: list[_Known], insn: Insn, at: int) -> list[_Known]:
    """Return what is known after *insn*: *regs* itself where that is the same."""
    if isinstance(insn, Alu):
        value = _alu_value(regs, insn)
        if value == regs[insn.dst]:
            return regs
        out = regs.copy()
        out[insn.dst] = value
        return out
    if isinstance(insn, _CHANGES):
        out = regs.copy()
        _transfer(env, out, insn, at)
        return out
    return regs


def _alu_value(regs: list[_Known], insn: Alu) -> _Known:
    value = _alu(insn, regs[insn.dst], None if insn.src is None else regs[insn.src])
    if insn.bits == 32 and value is not None:
        value = (_CONST, 0, value[2] & M32) if value[0] == _CONST else None
    return value


def _transfer(env: Env, regs: list[_Known], insn: Insn, at: int) -> None:
    """Apply *insn*, no arithmetic, to *regs* (``const_reg_xfer``)."""
    match insn:
        case Endian(dst=dst) | AddrSpaceCast(dst=dst):
            regs[dst] = None
        case LoadImm(dst=dst, src=kind, imm=imm):
            low = imm & M32
            if kind == 0:
                regs[dst] = (_CONST, 0, imm)
            elif kind == 4:
                sub = env.find_subprog(at + _signed(low, 32) + 1)
                regs[dst] = None if sub is None else (_SUBPROG, 0, sub.index)
            elif kind == 5:
                regs[dst] = (_MAP, low, 0)
            elif kind == 6:
                regs[dst] = (_MAP_VALUE, low, imm >> 32)
            else:
                regs[dst] = None
        case Load(size=size, dst=dst, src=src, off=off, signed=signed):
            if incoming_slot(insn) is not None:
                regs[dst] = None
                return
            base = regs[src]
            regs[dst] = None
            if base is not None and base[0] == _MAP_VALUE:
                word = map_word(env, base[1], _signed(base[2] + off, 32), size, signed)
                if word is not None:
                    regs[dst] = (_CONST, 0, word)
        case Call() | CallX() | LoadPacket():
            regs[0:6] = [None] * 6
        case Atomic(op="load_acquire", dst=dst):
            regs[dst] = None
        case Atomic(op="cmpxchg"):
            regs[0] = None
        case Atomic(fetch=True, src=src):
            regs[src] = None


def _alu(insn: Alu, dst: _Known, src: _Known) -> _Known:
    imm = insn.imm
    op = insn.op
    if insn.src is None:
        if op == "mov":
            return (_CONST, 0, imm & M64)
        if op in ("add", "sub"):
            if dst is None or dst[0] not in (_CONST, _MAP_VALUE):
                return None
            return (dst[0], dst[1], (dst[2] + (imm if op == "add" else -imm)) & M64)
        if op == "and":
            if dst is None or dst[0] != _CONST:
                return None if imm else (_CONST, 0, 0)
            return (_CONST, 0, dst[2] & imm & M64)
        return None
    if op == "mov":
        if not insn.sx:
            return src
        if src is None or src[0] != _CONST:
            return None
        return (_CONST, 0, _signed(src[2], insn.sx) & M64)
    if op == "and":
        if dst is not None and dst[0] == _CONST and dst[2] == 0:
            return dst
        if src is not None and src[0] == _CONST and src[2] == 0:
            return (_CONST, 0, 0)
        if dst is None or src is None or dst[0] != _CONST or src[0] != _CONST:
            return None
        return (_CONST, 0, dst[2] & src[2])
    return None


def compute_const_regs(env: Env) -> None:
    """Fill ``const_regs``, ``const_maps``, ``const_subs`` (``bpf_compute_const_regs``)."""
    before: list[list[_Known] | None] = [None] * env.count
    for sub in env.subs:
        before[sub.start] = [None] * 12
    order = env.postorder[::-1]
    dirty = bytearray(env.count)  # what goes in changed since it was last followed
    for sub in env.subs:
        dirty[sub.start] = 1
    insns, successors = env.insns, env.successors
    while 1 in dirty:
        for at in order:
            regs = before[at]
            if regs is None or not dirty[at]:
                continue
            dirty[at] = 0
            out = _after(env, regs, insns[at], at)
            for to in successors[at]:
                target = before[to]
                if target is None:
                    before[to] = out  # shared; so what is known is never changed in place
                    dirty[to] = 1
                elif target is not out and target != out:
                    joined = [
                        old if old is None or old == new else None
                        for old, new in zip(target, out, strict=True)
                    ]
                    if joined != target:
                        before[to] = joined
                        dirty[to] = 1
    empty: dict[int, int] = {}
    nothing = empty, empty, empty
    last: list[_Known] | None = None
    consts, maps, subs = nothing
    for known in before:
        if known is not last:
            last = known
            if known is None or known[:10] == _UNKNOWN:
                consts, maps, subs = nothing
            else:
                consts, maps, subs = _split(known)
        env.const_regs.append(consts)
        env.const_maps.append(maps)
        env.const_subs.append(subs)


def _split(known: list[_Known]) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    """Return the constants, maps and subprograms that registers r0 to r9 hold."""
    consts: dict[int, int] = {}
    maps: dict[int, int] = {}
    subs: dict[int, int] = {}
    for reg, value in enumerate(known[:10]):
        if value is None:
            continue
        kind, _, number = value
        if kind == _CONST:
            if number <= M32:
                consts[reg] = number
        elif kind == _MAP:
            maps[reg] = value[1]
        elif kind == _SUBPROG:
            subs[reg] = number
    return consts, maps, subs


def _taken(op: str, a: int, b: int) -> bool:
    """``eval_const_branch``, of unsigned 64-bit values."""
    x, y = a - ((a >> 63) << 64), b - ((b >> 63) << 64)
    return {
        "eq": a == b,
        "ne": a != b,
        "gt": a > b,
        "ge": a >= b,
        "lt": a < b,
        "le": a <= b,
        "sgt": x > y,
        "sge": x >= y,
        "slt": x < y,
        "sle": x <= y,
        "set": bool(a & b),
    }[op]


def prune_dead_branches(env: Env) -> None:
    """Make branches with a known outcome unconditional (``bpf_prune_dead_branches``)."""
    changed = False
    for at, insn in enumerate(env.insns):
        if not isinstance(insn, Jump):
            continue
        known = env.const_regs[at]
        if insn.dst not in known:
            continue
        left = known[insn.dst]
        if insn.src is None:
            right = insn.imm & M64
        elif insn.src in known:
            right = known[insn.src]
        else:
            continue
        if insn.bits == 32:
            left, right = _signed(left, 32) & M64, _signed(right, 32) & M64
        off = insn.off if _taken(insn.op, left, right) else 0
        env.insns[at] = Goto(off)
        changed = True
    if changed:
        compute_postorder(env)
