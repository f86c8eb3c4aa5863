"""Which registers, and which halves of stack slots, may still be read.

Registers: ``bpf_compute_live_registers``. Stack: ``bpf_compute_subprog_arg_access``, a
forward pass that follows frame pointers through registers, spills and calls, and a
backward one over the reads and writes found; both in liveness.c of Linux 7.3.4.

A set of stack is an integer: bit 2k and 2k+1 are the halves of slot k, fp-8(k+1), the
one closer to fp first.
"""

from __future__ import annotations

from functools import cache

from harness.isa.decoded import Facts
from harness.isa.insn import (
    FP,
    AddrSpaceCast,
    Alu,
    Atomic,
    Call,
    CallX,
    Endian,
    Exit,
    Goto,
    GotoX,
    Insn,
    Jump,
    Load,
    LoadImm,
    LoadPacket,
    MayGoto,
    Raw,
    Store,
    StoreImm,
)
from harness.isa.stack_args import MAX_SLOTS, REG_ARGS, incoming_slot, outgoing_slot
from harness.model import MapDef
from harness.verifier import kfuncs
from harness.verifier.env import Env, Refused, Subprog
from harness.verifier.helper_prototypes import Prototype
from harness.verifier.helpers import prototype
from harness.verifier.state import MAX_FRAMES, MAX_STACK, State

ALL_HALVES = (1 << 128) - 1
_MAX_CALLS = 10000
_SPILL_SLOTS = 64
_REGS = 11
_TRACKED = _REGS + MAX_SLOTS

# --- registers ------------------------------------------------------------------

_CALLER_SAVED = 0x3F


def _use_def(insn: Insn) -> tuple[int, int] | None:
    """Return registers read and written, as bit masks (``compute_insn_live_regs``).

    None: a call, of which more must be known.
    """
    match insn:
        case Alu(op="mov", dst=dst, src=src):
            return (0 if src is None else 1 << src), 1 << dst
        case Alu(op="neg", dst=dst) | Endian(dst=dst) | Alu(dst=dst, src=None):
            return 1 << dst, 1 << dst
        case Alu(dst=dst, src=int(src)):
            return 1 << dst | 1 << src, 1 << dst
        case AddrSpaceCast(dst=dst, src=src) | Load(dst=dst, src=src):
            return 1 << src, 1 << dst
        case LoadImm(dst=dst):
            return 0, 1 << dst
        case StoreImm(dst=dst):
            return 1 << dst, 0
        case Store(dst=dst, src=src):
            return 1 << dst | 1 << src, 0
        case Atomic(op="cmpxchg", dst=dst, src=src):
            return 1 | 1 << dst | 1 << src, 1
        case Atomic(op="load_acquire", dst=dst, src=src):
            return 1 << src, 1 << dst
        case Atomic(dst=dst, src=src, fetch=fetch):
            return 1 << dst | 1 << src, (1 << src if fetch else 0)
        case Goto() | MayGoto():
            return 0, 0
        case GotoX(dst=dst):
            return 1 << dst, 0
        case Exit():
            return 1, 0
        case Call():
            return None
        case CallX():
            return _CALLER_SAVED & ~1, _CALLER_SAVED
        case Jump(dst=dst, src=None):
            return 1 << dst, 0
        case Jump(dst=dst, src=int(src)):
            return 1 << dst | 1 << src, 0
        case Raw(dst=dst, src=src):  # an atomic operation that is none
            return 1 << dst | 1 << src, 0
        case LoadPacket():
            return -1, 0
    return 0, 0


_USE_DEF = Facts(_use_def)


def _call_use(env: Env, insn: Insn) -> int:
    assert isinstance(insn, Call)
    if insn.kind == "kfunc":
        return (1 << min(len(kfuncs.prototype(env, insn).arguments), REG_ARGS) + 1) - 2
    proto = summary(env, insn)
    if proto is None:
        return _CALLER_SAVED & ~1
    return (1 << min(len(proto.args), REG_ARGS) + 1) - 2


def summary(env: Env, insn: Call) -> Prototype | None:
    """Return the prototype of a helper that is called (``bpf_get_call_summary``)."""
    return prototype(env.program, insn.imm) if insn.kind == "helper" else None


def compute_live_registers(env: Env) -> None:
    """Fill ``live_regs`` and ``dead_regs`` (``bpf_compute_live_registers``)."""
    use_def = [
        (_call_use(env, insn), _CALLER_SAVED) if masks is None else masks
        for insn, masks in zip(env.insns, _USE_DEF.of(env.insns), strict=True)
    ]
    if any(sub.returns_pair for sub in env.subs):
        for sub in env.subs:
            for at in range(sub.start, sub.end):
                if sub.returns_pair and isinstance(env.insns[at], Exit):
                    use_def[at] = (0b101, 0)
    env.liveness = StackLiveness(env)
    env.liveness.compute()
    live = [0] * env.count
    successors = env.successors
    for sub in env.subs:
        order = _backwards(sub)
        changed = again = True
        while changed and again:
            changed = again = False
            for at in order:
                after = 0
                for to in successors[at]:
                    after |= live[to]
                    if to <= at:
                        again = True  # it was looked at too early
                use, define = use_def[at]
                before = (after & ~define) | use
                if before != live[at]:
                    live[at] = before
                    changed = True
    env.live_regs = [mask & 0xFFFF for mask in live]
    env.dead_regs = [_dead(mask & 0x3FF) for mask in env.live_regs]


@cache
def _dead(live: int) -> tuple[int, ...]:
    return tuple(reg for reg in range(10) if not live >> reg & 1)


def _backwards(sub: Subprog) -> list[int]:
    """Return the instructions of *sub* that are reached, the last one first.

    The least fixed point of a backward analysis does not depend on the order; in this one a
    round is enough where no jump leads backwards, and finding it sorted costs next to nothing.
    """
    return sorted(sub.postorder, reverse=True)


# --- stack: where a register points ------------------------------------------------

# None: not derived from a frame pointer. (frame, offsets): an offset into a frame's
# stack, () if it is not known. (-1, mask): lost, may be in any frame of the mask.
_Track = tuple[int, tuple[int, ...]] | tuple[int, int] | None
_LOST = -1


def _join_lost(a: _Track, b: _Track) -> _Track:
    mask = 0
    for track in (a, b):
        if track is not None:
            frame, rest = track
            if frame == _LOST:
                assert isinstance(rest, int)
                mask |= rest
            else:
                mask |= 1 << frame
    return (_LOST, mask)


def _merge(frame: int, a: tuple[int, ...], b: tuple[int, ...]) -> _Track:
    """Union of offsets, at most four (``arg_merge_offsets``)."""
    offsets = tuple(sorted({*a, *b}))
    return (frame, offsets if len(offsets) <= 4 else ())


def _join(a: _Track, b: _Track) -> _Track:
    """``__arg_track_join`` of two visited values."""
    if a is b or a == b:
        return a
    if a is None or b is None:
        known = b if a is None else a
        assert known is not None
        frame, offsets = known
        if frame != _LOST:
            assert isinstance(offsets, tuple)
            # a fake fp+0 keeps the read and prevents the write
            return _merge(frame, offsets, (0,)) if len(offsets) == 1 else known
        return known
    if a[0] == b[0] != _LOST:
        assert isinstance(a[1], tuple)
        assert isinstance(b[1], tuple)
        if not a[1] or not b[1]:
            return (a[0], ())
        return _merge(a[0], a[1], b[1])
    return _join_lost(a, b)


def _moved(track: _Track, delta: int) -> _Track:
    """Add a constant to the offsets, signed 16-bit (``arg_padd``)."""
    if track is None or track[0] == _LOST:
        return track
    offsets = track[1]
    assert isinstance(offsets, tuple)
    if len(offsets) == 1:  # nearly always
        to = offsets[0] + delta
        inside = -0x8000 <= to <= 0x7FFF and -0x8000 <= delta <= 0x7FFF
        return (track[0], (to,) if inside else ())
    out = tuple(off + delta for off in offsets)
    if any(not -0x8000 <= off <= 0x7FFF for off in out) or not -0x8000 <= delta <= 0x7FFF:
        return (track[0], ())
    return (track[0], out)


def _mixed(dst: _Track, src: _Track) -> _Track:
    """Return what 64-bit arithmetic of two registers leaves (``arg_track_alu64``)."""
    if dst is not None and dst[0] >= 0 and (src is None or src[0] == dst[0]):
        return (dst[0], ())
    if src is not None and src[0] >= 0 and dst is None:
        return (src[0], ())
    if dst is None and src is None:
        return None
    return _join_lost(dst, src)


def _slot_of(off: int) -> int:
    """Return the slot of an aligned offset from fp, -1 for any other (``fp_off_to_slot``)."""
    if off >= 0 or off < -_SPILL_SLOTS * 8 or off % 8:
        return -1
    return -off // 8 - 1


_Regs = list[_Track]
_Spills = dict[int, _Track]  # slot: what was spilled there, if derived from a frame pointer


def _lost_up_to(depth: int) -> _Track:
    return (_LOST, (1 << depth + 1) - 1)


def _offsets(base: int, track: _Track, off: int) -> tuple[int, ...] | None:
    """Return the offsets an access may have, None: not known."""
    if base == FP:
        return (off,)
    if track is None or track[0] == _LOST:
        return None
    moved = _moved(track, 0)
    assert moved is not None
    assert isinstance(moved[1], tuple)
    out = tuple(one + off for one in moved[1])
    return out if out and all(-0x8000 <= one <= 0x7FFF for one in out) else None


def _fill(base: int, track: _Track, off: int, spills: _Spills, depth: int) -> _Track:
    """``fill_from_stack``."""
    offsets = _offsets(base, track, off)
    if offsets is None:
        return _lost_up_to(depth)
    result: _Track = None
    for index, one in enumerate(offsets):
        slot = _slot_of(one)
        if slot < 0:
            return _lost_up_to(depth)
        found = spills.get(slot)
        result = found if base == FP and not index else _join(result, found)
    return result


def _spill(base: int, track: _Track, off: int, spills: _Spills, value: _Track, size: int) -> None:
    """``spill_to_stack``."""
    value = value if size == 8 else None
    if base != FP:
        known = track is not None and track[0] != _LOST and track[1]
        if not known:
            for slot in range(_SPILL_SLOTS):
                _put(spills, slot, _join(spills.get(slot), value))
            return
    assert base == FP or track is not None
    offsets = (0,) if base == FP else track[1]  # type: ignore[index]
    assert isinstance(offsets, tuple)
    for one in offsets:
        if not -0x8000 <= one + off <= 0x7FFF:
            continue
        slot = _slot_of(one + off)
        if slot < 0:
            continue
        _put(spills, slot, value if len(offsets) == 1 else _join(spills.get(slot), value))


def _put(spills: _Spills, slot: int, value: _Track) -> None:
    if value is None:
        spills.pop(slot, None)
    else:
        spills[slot] = value


def _clear(base: int, track: _Track, off: int, spills: _Spills, size: int) -> None:
    """Forget spills that a write may overlap (``clear_stack_for_all_offs``)."""
    offsets = _offsets(base, track, off)
    for slot in list(spills):
        low = -(slot + 1) * 8
        if offsets is None:
            _put(spills, slot, _join(spills[slot], None))
            continue
        for one in offsets:
            if low < one + size and low + 8 > one and slot in spills:
                _put(spills, slot, None if len(offsets) == 1 else _join(spills[slot], None))


_ACCESSES = (Load, Store, StoreImm, Atomic, Call)


def _touched(insn: Insn) -> tuple[int, ...]:
    """Return registers: while none is derived from a frame pointer, *insn* changes no track."""
    match insn:
        case Alu(dst=dst, src=int(src)):
            return (dst, src)
        case Alu(dst=dst) | AddrSpaceCast(dst=dst) | LoadImm(dst=dst) | Endian(dst=dst):
            return (dst,)
        case Call() | CallX():
            return (0, 1, 2, 3, 4, 5)
        case Load(dst=dst, src=src) if src < FP:
            return (dst, src)
        case Store(dst=dst) | StoreImm(dst=dst) if dst < FP:
            return (dst,)
        case Load() | Store() | StoreImm() | Atomic():
            return (FP,)  # which always is
    return ()  # a jump, or the like


_TOUCHED = Facts(_touched)


def _joined(target: _Regs, out: _Regs) -> _Regs | None:
    """Return the join of two visited sets of registers, None where it is *target*."""
    joined: _Regs | None = None
    for index, (old, new) in enumerate(zip(target, out, strict=True)):
        if old is not new:
            value = _join(old, new)
            if value != old:
                joined = joined or target.copy()
                joined[index] = value
    return joined


class _Instance:
    """One function at one call site and depth (``func_instance``)."""

    def __init__(self, callsite: int, depth: int, sub: Subprog) -> None:
        self.callsite = callsite
        self.depth = depth
        self.sub = sub
        self.reads: list[dict[int, int] | None] = [None] * (depth + 1)  # frame: slot: halves
        self.writes: list[dict[int, int]] = [{} for _ in range(depth + 1)]
        self.live: list[dict[int, int]] = [{} for _ in range(depth + 1)]
        self.done = False

    def read(self, frame: int, at: int, halves: int) -> None:
        reads = self.reads[frame]
        if reads is None:
            reads = self.reads[frame] = {}
        reads[at] = reads.get(at, 0) | halves

    def write(self, frame: int, at: int, halves: int) -> None:
        if self.reads[frame] is None:
            self.reads[frame] = {}
        writes = self.writes[frame]
        writes[at] = writes.get(at, 0) | halves


# For each frame: halves that its callers may read, and by slot of the last function the others
_Chain = list[tuple[int, dict[int, int]]]
_NOWHERE: dict[int, int] = {}


class StackLiveness:
    """The analysis, and the questions pruning asks it."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self.instances: dict[tuple[int, int], _Instance] = {}  # (depth, call site)
        self.calls = 0
        self.analysed: set[int] = set()
        self.before: list[list[_Regs | None]] = [[] for _ in env.subs]  # of the latest pass
        self.call_spills: dict[int, _Spills] = {}
        self._touched: list[tuple[int, ...]] = []  # by slot
        self._chains: dict[tuple[int, ...], _Chain] = {}  # by call sites and functions

    # --- asking -------------------------------------------------------------------

    def _lookup(self, state: State, number: int) -> _Instance | None:
        frame = state.frames[number]
        start = self.env.subs[frame.subprog].start
        for depth in range(number, -1, -1):
            found = self.instances.get((depth, frame.callsite if depth else start))
            if found is not None:
                return found
        return None

    def live_halves(self, state: State) -> list[int]:
        """Return, for each frame, the halves that may still be read (``bpf_stack_slot_alive``)."""
        frames = state.frames
        key = tuple([part for frame in frames for part in (frame.callsite, frame.subprog)])
        chain = self._chains.get(key)
        if chain is None:
            chain = self._chains[key] = self._chain(state)
        at = state.insn
        return [outer | live.get(at, 0) for outer, live in chain]

    def _chain(self, state: State) -> _Chain:
        """Return, for each frame, what its callers may read, and what the last function may."""
        env = self.env
        depth = len(state.frames) - 1
        instances = [self._lookup(state, number) for number in range(depth + 1)]
        current = instances[depth]
        if current is None:
            return [(ALL_HALVES, _NOWHERE)] * (depth + 1)
        out: _Chain = []
        for number in range(depth + 1):
            halves = 0
            live = _NOWHERE
            relative = number + current.depth - depth
            # a negative relative frame wraps in the kernel's u32 and is never in range
            if 0 <= relative <= current.depth:
                live = current.live[relative]
            for outer in range(number, depth):
                instance = instances[outer]
                if instance is None:
                    halves = ALL_HALVES
                    break
                relative = number + instance.depth - outer
                if not 0 <= relative <= instance.depth:
                    halves = ALL_HALVES
                    break
                callsite = state.frames[outer + 1].callsite
                at = callsite if env.calls_callback[callsite] else callsite + 1
                halves |= instance.live[relative].get(at, 0)
            out.append((halves, live))
        return out

    # --- computing ------------------------------------------------------------------

    def compute(self) -> None:
        """``bpf_compute_subprog_arg_access``."""
        env = self.env
        for index in reversed(env.topo):
            sub = env.subs[index]
            if index in self.analysed and not sub.is_global:
                continue
            self._analyse(self._instance(None, 0, sub), None)

    def _instance(self, caller: _Instance | None, callsite: int, sub: Subprog) -> _Instance:
        depth = caller.depth + 1 if caller else 0
        key = callsite if depth else sub.start
        found = self.instances.get((depth, key))
        if found is None:
            found = self.instances[depth, key] = _Instance(key, depth, sub)
        return found

    def _analyse(self, top: _Instance, args: _Regs | None) -> None:
        """Analyse a function and what it passes frame pointers to (``analyze_subprog``).

        The kernel recurses; here each entry of *work* is one activation, and its
        position in the loop over call sites.
        """
        callsites = [0] * MAX_FRAMES
        work: list[_Activation] = [self._enter(top, args, callsites)]
        while work:
            active = work[-1]
            instance = active.instance
            at = active.next()
            if at is None:
                work.pop()
                kept = active.finish()
                self._update(kept)
                if work:
                    outer = work[-1]
                    for frame in range(kept.depth):
                        if kept.reads[frame] is not None:
                            outer.instance.read(
                                frame, outer.at, kept.live[frame].get(kept.sub.start, 0)
                            )
                continue
            found = self._callee(active, at)
            if found is None:
                continue
            callee, callee_args = found
            if not any(
                callee_args[index] is not None for index in (*range(1, 6), *range(_REGS, _TRACKED))
            ):
                continue
            if instance.depth == MAX_FRAMES - 1:
                raise Refused("")  # -EINVAL without a word
            callsites[instance.depth] = at
            work.append(self._enter(self._instance(instance, at, callee), callee_args, callsites))

    def _enter(self, instance: _Instance, args: _Regs | None, callsites: list[int]) -> _Activation:
        self.calls += 1
        if self.calls > _MAX_CALLS:
            raise Refused(f"liveness analysis exceeded complexity limit ({self.calls} calls)")
        previous = None
        if instance.done:
            previous = instance
            instance = _Instance(previous.callsite, previous.depth, previous.sub)
        self.analysed.add(instance.sub.index)
        self._follow(instance, args, callsites)
        insns = self.env.insns
        sites = [at for at in instance.sub.postorder if isinstance(insns[at], Call)]
        return _Activation(instance, previous, sites)

    def _callee(self, active: _Activation, at: int) -> tuple[Subprog, _Regs] | None:
        """Return who is called at *at*, and with which frame pointers."""
        env = self.env
        insn = env.insns[at]
        sub = active.instance.sub
        if not isinstance(insn, Call):
            return None
        regs = self.before[sub.index][at - sub.start]
        if insn.kind == "subprog":
            callee = env.find_subprog(at + insn.imm + 1)
            if callee is None or regs is None:
                return None
            args: _Regs = [None] * _TRACKED
            args[1:6] = regs[1:6]
            args[_REGS:] = regs[_REGS:]
            return callee, args
        if not env.calls_callback[at] or insn.kind != "helper" or regs is None:
            return None
        places = {181: (2, 3, 2), 164: (2, 3, 4), 180: (3, 4, 3), 209: (2, 3, 2)}
        function_reg, caller_reg, callee_reg = places[insn.imm]
        number = env.const_subs[at].get(function_reg)
        if number is None:
            if regs[caller_reg] is not None:
                for frame in range(active.instance.depth + 1):
                    active.instance.read(frame, at, ALL_HALVES)
            return None
        args = [None] * _TRACKED
        args[callee_reg] = regs[caller_reg]
        return env.subs[number], args

    def _follow(self, instance: _Instance, args: _Regs | None, callsites: list[int]) -> None:
        """Follow frame pointers through one function (``compute_subprog_args``)."""
        env = self.env
        sub, depth = instance.sub, instance.depth
        start, end = sub.start, sub.end
        before: list[_Regs | None] = [None] * (end - start)
        spills: list[_Spills] = [{} for _ in range(start, end)]
        entry: _Regs = [None] * _TRACKED
        if args is not None:
            entry[1:6] = args[1:6]
        entry[FP] = (depth, (0,))
        before[0] = entry
        incoming: _Regs = args[_REGS:] if args is not None else [None] * MAX_SLOTS
        order = sub.postorder[::-1]
        dirty = bytearray(end - start)  # what goes in changed since it was last followed
        dirty[0] = 1
        insns, successors = env.insns, env.successors
        touched = self._touched
        if not touched:
            touched = self._touched = _TOUCHED.of(insns)
        while 1 in dirty:
            for at in order:
                if not dirty[at - start]:
                    continue
                dirty[at - start] = 0
                regs = before[at - start]
                assert regs is not None
                # what is known is shared between instructions, and never changed in place
                out, out_spills = regs, spills[at - start]
                insn = insns[at]
                for reg in touched[at]:
                    if regs[reg] is not None:
                        out, out_spills = out.copy(), out_spills.copy()
                        self._transfer(insn, out, out_spills, incoming, depth, callsites)
                        break
                for to in successors[at]:
                    if not start <= to < end:
                        continue
                    target = before[to - start]
                    if target is None:
                        before[to - start] = out
                        spills[to - start] = out_spills
                        dirty[to - start] = 1
                        continue
                    if target is not out:
                        joined_regs = _joined(target, out)
                        if joined_regs is not None:
                            before[to - start] = joined_regs
                            dirty[to - start] = 1
                    kept = spills[to - start]
                    if kept is not out_spills and (kept or out_spills):
                        changed: _Spills = {}
                        for slot in {*kept, *out_spills}:
                            old = kept.get(slot)
                            joined = _join(old, out_spills.get(slot))
                            if joined != old:
                                changed[slot] = joined
                        if changed:
                            spills[to - start] = {**kept, **changed}
                            dirty[to - start] = 1
        for at in order:
            regs = before[at - start]
            insn = insns[at]
            if regs is None or not isinstance(insn, _ACCESSES):
                continue
            self._record_access(instance, insn, at, regs)
            if isinstance(insn, Call):
                self._record_call(instance, insn, at, regs)
                if insn.kind == "subprog" or env.calls_callback[at]:
                    self.call_spills[at] = spills[at - start]
        self.before[sub.index] = before

    def _transfer(
        self,
        insn: Insn,
        out: _Regs,
        spills: _Spills,
        incoming: _Regs,
        depth: int,
        callsites: list[int],
    ) -> None:
        """``arg_track_xfer``."""
        match insn:
            case Alu(op=op, bits=64, dst=dst, src=None, imm=imm):
                track = out[dst]
                if op == "mov":
                    out[dst] = None
                elif track is not None and track[0] >= 0:
                    if op == "add":
                        out[dst] = _moved(track, imm)
                    elif op == "sub":
                        out[dst] = _moved(track, -imm)
                    else:
                        out[dst] = (track[0], ())
            case Alu(op="mov", bits=64, dst=dst, src=int(src), sx=sx):
                out[dst] = None if sx else out[src]
            case Alu(op=_, bits=64, dst=dst, src=int(src)):
                out[dst] = _mixed(out[dst], out[src])
            case Alu(dst=dst) | AddrSpaceCast(dst=dst) | LoadImm(dst=dst):
                out[dst] = None
            case Endian(op=op, dst=dst):
                track = out[dst]
                if op != "bswap":
                    out[dst] = None
                elif track is not None and track[0] >= 0:
                    out[dst] = (track[0], ())
            case Call() | CallX():
                out[0:6] = [None] * 6
            case Load(size=size, dst=dst, src=src, off=off, signed=signed):
                slot = incoming_slot(insn)
                if slot is not None:
                    out[dst] = incoming[slot - 1] if slot <= MAX_SLOTS else None
                    return
                out[dst] = self._loaded(
                    src, out[src], off, size == 8 and not signed, spills, depth, callsites
                )
            case Store(size=size, dst=dst, off=off, src=src):
                slot = outgoing_slot(insn)
                if slot is not None:
                    if slot <= MAX_SLOTS:
                        out[_REGS + slot - 1] = out[src]
                elif _may_be_local(depth, dst, out[dst]):
                    _spill(dst, out[dst], off, spills, out[src], size)
            case StoreImm(size=size, dst=dst, off=off):
                slot = outgoing_slot(insn)
                if slot is not None:
                    if slot <= MAX_SLOTS:
                        out[_REGS + slot - 1] = None
                elif _may_be_local(depth, dst, out[dst]):
                    _clear(dst, out[dst], off, spills, size)
            case Atomic(op=op, size=size, dst=dst, off=off, src=src, fetch=fetch):
                if op != "load_acquire" and _may_be_local(depth, dst, out[dst]):
                    _clear(dst, out[dst], off, spills, size)
                if op == "load_acquire":
                    out[dst] = None
                elif op == "cmpxchg":
                    out[0] = None
                elif fetch:
                    out[src] = None

    def _loaded(
        self,
        base: int,
        track: _Track,
        off: int,
        whole: bool,
        spills: _Spills,
        depth: int,
        callsites: list[int],
    ) -> _Track:
        if not whole:
            return None
        if _may_be_local(depth, base, track):
            return _fill(base, track, off, spills, depth)
        if track is None:
            return None
        frame, rest = track
        if 0 <= frame < depth:
            return _fill(base, track, off, self.call_spills.get(callsites[frame], {}), frame)
        if frame == _LOST and isinstance(rest, int) and rest and not rest >> depth & 1:
            return track
        return None

    def _record_access(self, instance: _Instance, insn: Insn, at: int, regs: _Regs) -> None:
        """``record_load_store_access``."""
        match insn:
            case Load(size=size, src=base, off=off):
                if base >= _REGS:
                    return
                self._record(instance, _moved(regs[base], off), size, at)
            case Store(size=size, dst=base, off=off) | StoreImm(size=size, dst=base, off=off):
                if base >= _REGS:
                    return
                self._record(instance, _moved(regs[base], off), -size, at)
            case Atomic(op=op, size=size, dst=dst, off=off, src=src):
                base = src if op == "load_acquire" else dst
                size = -size if op == "store_release" else size
                self._record(instance, _moved(regs[base], off), size, at)

    def _record(self, instance: _Instance, track: _Track, size: int | None, at: int) -> None:
        """Note *size* bytes read, or -*size* written, None: unknown (``record_stack_access``)."""
        if track is None or size == 0:
            return
        frame, rest = track
        if frame == _LOST:
            assert isinstance(rest, int)
            for number in range(instance.depth + 1):
                if rest >> number & 1:
                    instance.read(number, at, ALL_HALVES)
            return
        if frame > instance.depth:
            return
        assert isinstance(rest, tuple)
        if not rest:
            if size is None or size > 0:
                instance.read(frame, at, ALL_HALVES)
            return
        if size is not None and size < 0 and len(rest) != 1:
            return
        for off in rest:
            if off >= 0:
                continue
            if size is None:
                instance.read(frame, at, _halves(0, (-off - 1) // 4))
            elif size > 0:
                low = max(int((-off - size) / 4), 0)
                instance.read(frame, at, _halves(low, (-off - 1) // 4))
            else:
                high = -off // 4 - 1
                low = max(int((-off + size + 3) / 4), 0)
                if low <= high:
                    instance.write(frame, at, _halves(low, high))

    def _record_call(self, instance: _Instance, insn: Call, at: int, regs: _Regs) -> None:
        """``record_call_access``."""
        if insn.kind == "subprog":
            return
        if insn.kind == "kfunc":
            kfunc = kfuncs.prototype(self.env, insn)
            for arg in range(len(kfunc.arguments)):
                track = regs[arg + 1] if arg < REG_ARGS else regs[_REGS + arg - REG_ARGS]
                if track is not None:
                    bytes_read = kfuncs.stack_bytes(self.env, kfunc, arg, at)
                    self._record(instance, track, bytes_read, at)
            return
        proto = prototype(self.env.program, insn.imm)
        for arg in range(REG_ARGS if proto is None else len(proto.args)):
            track = regs[arg + 1]
            if track is None:
                continue
            size = None if proto is None else self._helper_bytes(proto, arg, at)
            self._record(instance, track, size, at)

    def _helper_bytes(self, proto: Prototype, arg: int, at: int) -> int | None:
        """Return bytes a helper reads, negative: writes (``bpf_helper_stack_access_bytes``)."""
        env = self.env
        kind, _, flags = proto.args[arg].partition("|")
        uninit = "uninit" in flags.split("|")
        size: int | None
        if kind in ("map_key", "map_value"):
            size = None
            if "map" in proto.args[:arg]:
                known = env.const_maps[at].get(proto.args.index("map") + 1)
                if known is not None and known < len(env.maps):
                    found = env.maps[known]
                    size = found.key_size if kind == "map_key" else found.value_size
            if size is None:
                used = _used_maps(env)
                size = max(
                    (one.key_size if kind == "map_key" else one.value_size for one in used),
                    default=0,
                )
                if not size:
                    return None
        elif kind == "fixed_mem":
            size = proto.sizes[sum(a.startswith("fixed_mem") for a in proto.args[:arg])]
        elif kind == "mem":
            if arg + 1 >= len(proto.args) or not proto.args[arg + 1].startswith("size"):
                return None
            size = env.const_regs[at].get(arg + 2)
            if size is None:
                return 0 if uninit else MAX_STACK
        elif kind == "dynptr":
            size = 16
        elif kind == "stack_or_null":
            return 0
        else:
            return None
        return -size if uninit else size

    def _update(self, instance: _Instance) -> None:
        """Compute what is live before each instruction (``update_instance``)."""
        env = self.env
        instance.done = True
        order: list[int] = []
        for frame in range(instance.depth + 1):
            reads = instance.reads[frame]
            writes, live = instance.writes[frame], instance.live[frame]
            if reads is None or not (reads or live):
                continue
            order = order or _backwards(instance.sub)
            changed = again = True
            while changed and again:
                changed = again = False
                for at in order:
                    successors = env.successors[at]
                    if not successors:
                        continue
                    after = 0
                    for to in successors:
                        after |= live.get(to, 0)
                        if to <= at:
                            again = True  # it was looked at too early
                    before = (after & ~writes.get(at, 0)) | reads.get(at, 0)
                    if before != live.get(at, 0):
                        live[at] = before
                        changed = True


class _Activation:
    """A function under analysis, and how far its call sites are done."""

    def __init__(self, instance: _Instance, previous: _Instance | None, sites: list[int]) -> None:
        self.instance = instance
        self.previous = previous
        self.at = -1
        self._sites = iter(sites)

    def next(self) -> int | None:
        self.at = next(self._sites, -1)
        return None if self.at < 0 else self.at

    def finish(self) -> _Instance:
        """Merge with an earlier analysis of the same instance (``merge_instances``)."""
        old, new = self.previous, self.instance
        if old is None:
            return new
        for frame in range(old.depth + 1):
            old_reads, new_reads = old.reads[frame], new.reads[frame]
            if new_reads is None:
                old.writes[frame] = {}
                continue
            if old_reads is None:
                old.reads[frame] = new_reads
                old.writes[frame] = {}
                continue
            for at, halves in new_reads.items():
                old_reads[at] = old_reads.get(at, 0) | halves
            writes = new.writes[frame]
            old.writes[frame] = {
                at: halves & writes[at] for at, halves in old.writes[frame].items() if at in writes
            }
        return old


def _used_maps(env: Env) -> list[MapDef]:
    numbers = {
        insn.imm & 0xFFFFFFFF
        for insn in env.insns
        if isinstance(insn, LoadImm) and insn.src in (5, 6)
    }
    return [env.maps[number] for number in numbers if number < len(env.maps)]


def _halves(low: int, high: int) -> int:
    """Return the set of halves *low* to *high*, at most 128."""
    high = min(high, 127)
    return (1 << high + 1) - (1 << low) if low <= high else 0


def _may_be_local(depth: int, reg: int, track: _Track) -> bool:
    """``can_be_local_fp``."""
    if reg == FP:
        return True
    if track is None:
        return False
    frame, rest = track
    if frame == _LOST:
        return isinstance(rest, int) and bool(rest >> depth & 1)
    return frame == depth
