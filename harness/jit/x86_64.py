"""From a fixed-up program to x86-64 code, byte for byte as Linux 7.3's JIT makes it.

Registers (Linux ``reg2hex``): r0 rax, r1 to r5 rdi rsi rdx rcx r8, r6 to r9 rbx r13
r14 r15, r10 rbp; r10 and r11 of x86 are scratch. Stack arguments follow the System V
convention: argument 6 in r9, later ones on the stack, where the caller writes them
and the callee reads them (isa.stack_args).

The input is what the verifier's fix-ups leave: plain divisions, may_goto rewritten.
Register 12 is Linux's auxiliary register, which only fix-ups use (x86 r10), and the
kernel's internal instructions arrive as ``Raw`` with the kernel's own opcodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from harness.frames import infer, is_tail_call
from harness.isa import opcodes as o
from harness.isa.insn import (
    AddrSpaceCast,
    Alu,
    Call,
    Exit,
    Goto,
    Insn,
    Jump,
    LoadImm,
    PercpuAddr,
    Raw,
    Store,
    StoreImm,
)
from harness.isa.stack_args import MAX_SLOTS, REG_ARGS, SLOT_SIZE
from harness.jit import x86_encoder as x
from harness.jit.x86_insns import (
    NATIVE,
    SCRATCH,
    Target,
    UnsupportedError,
    bytes_for,
    mov,
    mov_imm64,
    slot_of,
)
from harness.jit.x86_jumps import BACK_TO_SELF, CONDITIONAL, GOTO, LEAVE, Branch, settle
from harness.model import Frame, HarnessError, Image, Program, Relocation, SubImage, Unknown

PROLOGUE = -1  # in place of a slot
ARENA_MAP = 33  # BPF_MAP_TYPE_ARENA
SAVED_ORDER = ((1, x.RBX), (2, x.R13), (4, x.R14), (8, x.R15))  # bits of CALLEE_SAVED
ALL_SAVED = 15
MAX_TAIL_CALLS = 33  # MAX_TAIL_CALL_CNT
MAP_MAX_ENTRIES, PROG_BPF_FUNC = 68, 72  # byte offsets in struct bpf_map, struct bpf_prog

# fmt: off
CONDITIONS = {
    "eq": x.E, "ne": x.NE, "set": x.NE, "gt": x.A, "lt": x.B, "ge": x.AE, "le": x.BE,
    "sgt": x.G, "slt": x.L, "sge": x.GE, "sle": x.LE,
}
# fmt: on


@dataclass(frozen=True, slots=True)
class Options:
    """What Linux takes from its configuration and from the processor.

    The defaults are a stock Debian kernel started with ``mitigations=off``.
    """

    ibt: bool = True  # CONFIG_X86_KERNEL_IBT: endbr64 where an indirect branch may land
    ftrace: bool = True  # five bytes of no-operation at the entry, for trampolines
    rethunk: bool = False  # return through x86_return_thunk
    sls: bool = True  # CONFIG_MITIGATION_SLS: int3 after ret
    bmi2: bool = True  # the processor has shlx, shrx, sarx
    la57: bool = False  # the processor has five-level page tables
    near_percpu: bool = True  # per-CPU memory is that of the kernel's image, while it has room
    stack_args: bool = True  # bpf_jit_supports_stack_args()
    array_ptrs: int = 296  # byte offset of ptrs in struct bpf_array, which depends on the kernel


def compile(program: Program, options: Options = Options()) -> Image | Unknown:  # noqa: A001
    """Return the native code of *program*, which the fix-ups have been through.

    ``Unknown`` says what the JIT does not support; the words are Linux's where it has any.
    """
    frames = program.frames or infer(program)
    if len(frames) != len(program.subprograms):
        raise HarnessError(
            f"{program.name}: {len(frames)} frames for {len(program.subprograms)} subprograms:"
            " give one for each, or none"
        )
    names = unique_names(program)
    try:
        return Image(
            "x86_64",
            tuple(
                _Function(program, index, frame, options, names).image()
                for index, frame in enumerate(frames)
            ),
        )
    except UnsupportedError as error:
        return Unknown(str(error))


def unique_names(program: Program) -> dict[int, str]:
    """Return a name for each subprogram by its first slot; a second of one name gets its slot."""
    names: dict[int, str] = {}
    for sub in program.subprograms:
        taken = sub.name in names.values()
        names[sub.start] = f"{sub.name}@{sub.start}" if taken else sub.name
    return names


# --- one function ------------------------------------------------------------


class _Function:
    """One subprogram on its way to code (``do_jit``)."""

    def __init__(
        self,
        program: Program,
        index: int,
        frame: Frame,
        options: Options,
        names: dict[int, str],
    ) -> None:
        sub = program.subprograms[index]
        self.program, self.index, self.frame, self.options = program, index, frame, options
        self.names = names
        self.start = sub.start
        self.insns: Sequence[Insn] = program.insns[sub.start : sub.end]
        self.fields: list[tuple[int, Relocation]] = []  # slot, relocation from the slot's start
        fp = x.R9 if frame.private_stack else x.RBP
        self.arena = any(bpf_map.type == ARENA_MAP for bpf_map in program.maps)
        self.known = bytes_for(Target(options.bmi2, options.la57, fp, self.arena))
        self.symbols = {
            slot - sub.start: name for slot, name in program.symbols if sub.start <= slot < sub.end
        }
        depth = 0 if frame.private_stack else frame.stack_depth
        self.depth = (depth + 7) & -8

    def image(self) -> SubImage:
        """Return the code, with the jumps as short as Linux gets them."""
        known = self.known
        found = [known[insn] for insn in self.insns]
        codes = [code for code, _, _ in found]
        late = [slot for slot, (_, _, more) in enumerate(found) if more]
        self._name_addresses(codes)
        self.used = 0
        for used in {used for _, used, _ in found}:
            self.used |= used
        if self.frame.exception_boundary:
            self.used = ALL_SAVED
        self._measure(late)
        prologue = self._prologue()
        branches = self._finish(codes, late)
        self._land(codes)
        starts = list(accumulate(map(len, codes), initial=len(prologue)))
        placed = settle(starts, branches)
        if placed is None:
            raise UnsupportedError(f"{self.names[self.start]}: jumps do not settle")
        for branch, place in zip(branches, placed, strict=True):
            jump = self._jump(branch, place.distance, place.size - place.padding)
            codes[branch.slot] += x.NOPS[place.padding] + jump
        starts = list(accumulate(map(len, codes), initial=len(prologue)))
        code = prologue + b"".join(codes)
        relocations = tuple(
            replace(field, offset=field.offset + (0 if slot == PROLOGUE else starts[slot]))
            for slot, field in self.fields
        )
        return SubImage(self.names[self.start], code, tuple(starts[:-1]), relocations)

    def _measure(self, late: Sequence[int]) -> None:
        """Find the size of the area for outgoing arguments 7 and later, and where it is."""
        slots = 0
        for slot in late:
            insn = self.insns[slot]
            if isinstance(insn, Store | StoreImm):
                slots = max(slots, slot_of(insn))
        if slots > MAX_SLOTS or (slots and not self.options.stack_args):
            raise UnsupportedError(
                f"JIT does not support function {self.names[self.start]}()"
                f" with {REG_ARGS + slots} args"
            )
        self.outgoing = SLOT_SIZE * (slots - 1) if slots > 1 else 0
        saved = SLOT_SIZE * (self.used.bit_count() + self._keeps_r12)
        self.bottom = -(self.depth + saved + self.outgoing)  # rsp, from rbp

    def _name_addresses(self, codes: list[bytes]) -> None:
        """Leave room for addresses of the kernel's own: in its image, or anywhere (``*``)."""
        for slot, name in self.symbols.items():
            match self.insns[slot]:
                case Alu(op="mov", bits=64, dst=dst, src=None):
                    codes[slot] = x.MOV_ri32(NATIVE[dst], 0)
                    self._relocate(slot, 3, 4, "ksym", name)
                case LoadImm(dst=dst) if name.startswith("*"):
                    codes[slot] = x.MOV_ri64(NATIVE[dst], 0)
                    self._relocate(slot, 2, 8, "heap", name[1:])
                case LoadImm(dst=dst):
                    codes[slot] = x.MOV_ri32(NATIVE[dst], 0)
                    self._relocate(slot, 3, 4, "ksym", name)

    def _land(self, codes: list[bytes]) -> None:
        """Let indirect jumps land (``bpf_insn_is_indirect_target``)."""
        endbr = self._endbr()
        for slot in self.program.indirect:
            at = slot - self.start
            if 0 <= at < len(codes):
                codes[at] = endbr + codes[at]
                self.fields = [
                    (where, replace(field, offset=field.offset + len(endbr)))
                    if where == at
                    else (where, field)
                    for where, field in self.fields
                ]

    @property
    def _keeps_r12(self) -> bool:
        return self.frame.exception_boundary or self.arena

    def _pushes(self) -> bytes:
        code = x.PUSH_r(x.R12) if self._keeps_r12 else b""
        return code + b"".join(x.PUSH_r(reg) for bit, reg in SAVED_ORDER if self.used & bit)

    def _pops(self) -> bytes:
        code = b"".join(x.POP_r(reg) for bit, reg in reversed(SAVED_ORDER) if self.used & bit)
        return code + (x.POP_r(x.R12) if self._keeps_r12 else b"")

    def _endbr(self) -> bytes:
        return x.ENDBR64 if self.options.ibt else b""

    def _prologue(self) -> bytes:
        frame, main = self.frame, self.index == 0
        code = self._endbr()
        if self.options.ftrace:
            code += x.NOPS[5]
        code += x.XOR_rr(x.RAX, x.RAX) if frame.tail_call_reachable and main else x.NOPS[3]
        if frame.exception_callback:
            code += x.MOV_rr(x.RSP, x.RSI) + x.MOV_rr(x.RBP, x.RDX)
            code += b"".join(x.POP_r(reg) for _, reg in reversed(SAVED_ORDER)) + x.POP_r(x.R12)
            code += x.MOV_rr(x.RSP, x.RBP)
        else:
            code += x.PUSH_r(x.RBP) + x.MOV_rr(x.RBP, x.RSP)
        code += self._endbr()
        if self.depth:
            code += x.SUB_ri32(x.RSP, self.depth)
        if frame.tail_call_reachable:
            push = x.PUSH_r(x.RAX)
            if main:  # rax counts tail calls, or points to the count if it is too large for one
                first = push + x.MOV_rr(x.RAX, x.RSP) + x.JMP_i8(len(push))
                code += x.CMP_ri8(x.RAX, MAX_TAIL_CALLS) + x.JCC_i8(x.A, len(first)) + first
            code += 2 * push
        code += self._pushes()
        if self.outgoing:
            code += x.SUB_ri8(x.RSP, self.outgoing)
        if self.arena:
            code += x.MOV_ri64(x.R12, 0)
            self._relocate(PROLOGUE, len(code) - 8, 8, "arena", "kernel")
        if frame.private_stack:
            near = self.options.near_percpu
            code += x.MOV_ri32(x.R9, 0) if near else x.MOV_ri64(x.R9, 0)
            size = 4 if near else 8
            self._relocate(PROLOGUE, len(code) - size, size, "private_stack", "")
            code += x.ADD_rg(x.R9, 0)
            self._relocate(PROLOGUE, len(code) - 4, 4, "ksym", "this_cpu_off")
        return code

    def _epilogue(self, slot: int) -> bytes:
        code = x.ADD_ri8(x.RSP, self.outgoing) if self.outgoing else b""
        code += self._pops() + x.LEAVE
        if self.options.rethunk:
            code += x.JMP_i32(0)
            self._relocate(slot, len(code) - 4, 4, "thunk", "x86_return_thunk")
            return code
        return code + x.RET + (x.INT3 if self.options.sls else b"")

    def _relocate(
        self, slot: int, offset: int, size: int, kind: str, target: str, addend: int = 0
    ) -> None:
        self.fields.append((slot, Relocation(offset, size, kind, target, addend)))

    def _finish(self, codes: list[bytes], late: Sequence[int]) -> list[Branch]:
        """Fill in what depends on the function; return the jumps, which come last."""
        branches = []
        first_exit = None
        for slot in late:
            match self.insns[slot]:
                case Jump(off=off):
                    branches.append(self._branch(slot, CONDITIONAL, slot + 1 + off))
                case Goto(off=off):
                    kind = BACK_TO_SELF if off == -1 else GOTO
                    branches.append(self._branch(slot, kind, slot + 1 + off))
                case Exit():
                    if first_exit is None:
                        first_exit = slot
                        codes[slot] = self._epilogue(slot)
                    else:
                        branches.append(self._branch(slot, LEAVE, first_exit))
                case Store(off=off, src=src):
                    codes[slot] = x.MOV_mr(x.RBP, self._outgoing(off), NATIVE[src])
                case StoreImm(off=off, imm=imm):
                    codes[slot] = x.MOV_mi(x.RBP, self._outgoing(off), imm)
                case insn if is_tail_call(insn):
                    codes[slot] = self._tail_call(insn.imm if isinstance(insn, Raw) else 0)
                case Call() as insn:
                    codes[slot] = self._call(slot, insn)
                case LoadImm() as insn:
                    codes[slot] = self._address(slot, insn)
                case AddrSpaceCast(dst=dst, src=src):
                    codes[slot] = self._to_user(slot, NATIVE[dst], NATIVE[src])
                case PercpuAddr(dst=dst, src=src):
                    to = NATIVE[dst]
                    codes[slot] = mov(to, NATIVE[src]) + x.ADD_rg(to, 0)
                    self._relocate(slot, len(codes[slot]) - 4, 4, "ksym", "this_cpu_off")
        return branches

    def _branch(self, slot: int, kind: int, target: int) -> Branch:
        if not 0 <= target < len(self.insns):
            raise UnsupportedError(f"jump out of range from insn {self.start + slot}")
        return Branch(slot, kind, target)

    def _jump(self, branch: Branch, distance: int, size: int) -> bytes:
        """Return the jump itself, of *size* bytes."""
        if size == 0:
            return b""
        if branch.kind == CONDITIONAL:
            insn = self.insns[branch.slot]
            assert isinstance(insn, Jump)
            return (x.JCC_i8 if size == 2 else x.JCC_i32)(CONDITIONS[insn.op], distance)
        return (x.JMP_i8 if size == 2 else x.JMP_i32)(distance)

    def _outgoing(self, off: int) -> int:
        """Return the offset from rbp of the outgoing slot at BPF offset *off*, below -8."""
        return self.bottom - off - 2 * SLOT_SIZE

    def _call(self, slot: int, insn: Call) -> bytes:
        code = b""
        match insn.kind:
            case "subprog":
                kind, target = "call", self._callee(slot + 1 + insn.imm)
                if self.frame.tail_call_reachable:
                    code = x.MOV_rm32(x.RAX, x.RBP, self._counter())
            case "kfunc":
                kfuncs = self.program.kfuncs
                known = 0 <= insn.imm < len(kfuncs)
                kind, target = "kfunc", kfuncs[insn.imm] if known else str(insn.imm)
            case _:
                kind, target = "helper", str(insn.imm)
        if slot in self.symbols:
            kind, target = "kfunc", self.symbols[slot]
        keep = self.frame.private_stack
        code += (x.PUSH_r(x.R9) if keep else b"") + x.CALL_i32(0)
        self._relocate(slot, len(code) - 4, 4, kind, target)
        return code + (x.POP_r(x.R9) if keep else b"")

    def _callee(self, slot: int) -> str:
        """Return the name of the subprogram that starts at *slot*, from this one's start."""
        name = self.names.get(self.start + slot)
        if name is not None:
            return name
        raise UnsupportedError(f"call of insn {self.start + slot}, where no subprogram starts")

    def _address(self, slot: int, insn: LoadImm) -> bytes:
        """Return the load of an address: maps live anywhere, functions in the top 2 GB."""
        dst = NATIVE[insn.dst]
        index, offset = insn.imm & 0xFFFFFFFF, insn.imm >> 32
        match o.LD_IMM64_KINDS.get(insn.src):
            case "func" if len(self.program.subprograms) == 1:  # not resolved (jit_subprogs)
                return mov_imm64(dst, insn.imm)
            case "func":
                relative = index - (1 << 32) if index >> 31 else index
                self._relocate(slot, 3, 4, "func", self._callee(slot + 1 + relative))
                return x.MOV_ri32(dst, 0)
            case "map_idx" | "map_idx_value" as kind if index < len(self.program.maps):
                name = self.program.maps[index].name
                if kind == "map_idx":
                    self._relocate(slot, 2, 8, "map", name)
                elif self._percpu(slot) and self.options.near_percpu:
                    self._relocate(slot, 3, 4, "percpu", name, offset)
                    return x.MOV_ri32(dst, 0)
                else:
                    self._relocate(slot, 2, 8, "data", name, offset)
                return x.MOV_ri64(dst, 0)
            case kind:
                raise UnsupportedError(f"64-bit immediate load of kind {kind or insn.src}")

    def _percpu(self, slot: int) -> bool:
        """Say whether the load at *slot* is of a per-CPU value, as fix-ups leave it."""
        return slot + 2 < len(self.insns) and isinstance(self.insns[slot + 2], PercpuAddr)

    def _to_user(self, slot: int, dst: int, src: int) -> bytes:
        """Put the upper half of the arena's user address before an offset that is not zero."""
        code = (x.MOV32_rr(dst, src) if dst != src else b"") + x.SHL_ri8(dst, 32)
        code += x.OR_ai(0) if dst == x.RAX else x.OR_ri32(dst, 0)
        self._relocate(slot, len(code) - 4, 4, "arena", "user_high")
        code += x.ROL_ri8(dst, 32) + x.XOR_rr(SCRATCH, SCRATCH)
        return code + x.TEST32_rr(dst, dst) + x.CMOVE_rr(dst, SCRATCH)

    def _counter(self) -> int:
        """Return the offset from rbp of the pointer to the tail-call counter."""
        return -16 - self.depth

    def _tail_call(self, poke: int) -> bytes:
        """Jump into another program: *poke* 0 through the array, else patched in by the kernel."""
        leave = self._pops() + 2 * x.POP_r(x.RAX)
        if self.depth:
            leave += x.ADD_ri32(x.RSP, self.depth)
        skip = len(self._endbr()) + (5 if self.options.ftrace else 0) + 7  # X86_TAIL_CALL_OFFSET
        limit = x.MOV_rm32(x.RAX, x.RBP, self._counter()) + x.CMP_ni8(x.RAX, MAX_TAIL_CALLS)
        count = x.ADD_ni8(x.RAX, 1)
        if poke:
            rest = count + leave + x.NOPS[5]
            return limit + x.JCC_i8(x.AE, len(rest) + 5) + x.JMP_i32(len(rest)) + rest
        jump = x.MOV_rm(x.RCX, x.RCX, PROG_BPF_FUNC) + x.ADD_ri8(x.RCX, skip) + x.JMP_r(x.RCX)
        tail = count + leave + jump + x.INT3
        load = x.MOV_rs32(x.RCX, x.RSI, x.RDX, self.options.array_ptrs) + x.TEST_rr(x.RCX, x.RCX)
        tail = load + x.JCC_i8(x.E, len(tail)) + tail
        tail = limit + x.JCC_i8(x.AE, len(tail)) + tail
        check = x.MOV32_rr(x.RDX, x.RDX) + x.CMP32_mr(x.RSI, MAP_MAX_ENTRIES, x.RDX)
        return check + x.JCC_i8(x.BE, len(tail)) + tail
