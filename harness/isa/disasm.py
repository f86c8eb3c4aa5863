"""Instructions as text, in two forms.

``llvm``: as ``llvm-objdump -d --no-show-raw-insn`` of LLVM 23 prints them. What
that loses (it writes all kinds of call alike, and leaves out the upper half of a
pseudo ``ld_imm64`` and the displacement of ``LD IND``) is lost here too, and what
it does not know (per-CPU addresses, ``Raw``) is ``<unknown>``.

``kernel``: as ``print_bpf_insn`` of Linux 7.3 (kernel/bpf/disasm.c) writes to the
verifier's log and bpftool prints, opcode first. Reserved fields do not show.

``listing`` in either form assembles to the same instructions again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from struct import iter_unpack
from typing import Literal

from harness.isa import opcodes as o
from harness.isa.codec import HIGH, SLOT, decode, encode, fields
from harness.isa.helpers import HELPERS
from harness.isa.insn import (
    AddrSpaceCast,
    Alu,
    Atomic,
    Call,
    CallX,
    Endian,
    Exit,
    Goto,
    GotoX,
    High,
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
    signed32,
)
from harness.isa.stack_args import Dialect, frames, incoming_count, to_r12
from harness.isa.targets import function_target, jump_target, subprogram_ranges

Form = Literal["llvm", "kernel"]
_NAME = re.compile(r"[A-Za-z_.$][\w.$]*", re.ASCII)  # a label that needs no quotes
_QUOTABLE = re.compile(r"[^\"\\\x00-\x1f\x7f]+")


def format_insn(
    insn: Insn,
    *,
    form: Form = "llvm",
    slot: int = 0,
    label: Callable[[int], str | None] | None = None,
    helper: Callable[[int], str | None] = HELPERS.get,
    kfunc: Callable[[Call], str | None] | None = None,
    imm64: Callable[[LoadImm], str | None] | None = None,
) -> str:
    """Return the text of *insn*, empty for ``High``.

    *label* names the slot a jump of the llvm form leads to, which *slot*, the place of
    *insn*, is needed for. The others serve the kernel form, and may return None:
    *helper* and *kfunc* name what is called, *imm64* writes a ``LoadImm``
    (``bpftool_imm64`` as bpftool does; otherwise its value, as in the verifier's log).
    """
    if isinstance(insn, High):
        return ""
    if form == "kernel":
        return _kernel(insn, helper, kfunc, imm64)
    text = _llvm(insn)
    target = jump_target(insn, slot)
    name = label(target) if label and target is not None else None
    return f"{text} <{name}>" if name else text


def disassemble(
    insns: Sequence[Insn],
    *,
    form: Form = "llvm",
    label: Callable[[int], str | None] | None = None,
    helper: Callable[[int], str | None] = HELPERS.get,
    kfunc: Callable[[Call], str | None] | None = None,
    imm64: Callable[[LoadImm], str | None] | None = None,
) -> list[tuple[int, str]]:
    """Return slot and text of each instruction; keywords as of ``format_insn``."""
    return [
        (
            slot,
            format_insn(
                insn, form=form, slot=slot, label=label, helper=helper, kfunc=kfunc, imm64=imm64
            ),
        )
        for slot, insn in enumerate(insns)
        if not isinstance(insn, High)
    ]


# --- LLVM's form ------------------------------------------------------------


def _hex(value: int) -> str:
    return f"{value:#x}"


def _reg(number: int, bits: int) -> str:
    return f"{'w' if bits <= 32 else 'r'}{number}"


def _at(base: int, off: int) -> str:
    return f"r{base} {'-' if off < 0 else '+'} {abs(off):#x}"


def _llvm(insn: Insn) -> str:
    match insn:
        case Alu(op="neg", bits=bits, dst=dst):
            return f"{_reg(dst, bits)} = -{_reg(dst, bits)}"
        case Alu(op=op, bits=bits, dst=dst, src=src, imm=imm, sx=sx):
            cast = f"(s{sx})" if sx else ""
            operand = _hex(imm) if src is None else cast + _reg(src, bits)
            return f"{_reg(dst, bits)} {o.ALU_SYMBOLS[op]} {operand}"
        case Endian(op=op, bits=bits, dst=dst):
            return f"r{dst} = {op}{bits} r{dst}"
        case AddrSpaceCast(dst=dst, src=src, imm=imm):
            return f"r{dst} = addr_space_cast(r{src}, {imm >> 16 & 0xFFFF:#x}, {imm & 0xFFFF:#x})"
        case Load(size=size, dst=dst, src=src, off=off, signed=signed):
            register = f"r{dst}" if signed else _reg(dst, 8 * size)
            return f"{register} = *({'s' if signed else 'u'}{8 * size} *)({_at(src, off)})"
        case LoadImm(dst=dst, src=0, imm=imm):
            return f"r{dst} = {_hex(imm - (imm >> 63 << 64))} ll"
        case LoadImm(dst=dst, src=src, imm=imm):
            return f"ld_pseudo\tr{dst}, {src:#x}, {imm & 0xFFFFFFFF:#x}"
        case LoadPacket(mode=mode, size=size, src=src, imm=imm):
            return f"r0 = *(u{8 * size} *)skb[{_hex(imm) if mode == 'abs' else f'r{src}'}]"
        case Store(size=size, dst=dst, off=off, src=src):
            return f"*(u{8 * size} *)({_at(dst, off)}) = {_reg(src, 8 * size)}"
        case StoreImm(size=size, dst=dst, off=off, imm=imm):
            return f"*(u{8 * size} *)({_at(dst, off)}) = {_hex(imm)}"
        case Atomic():
            return _llvm_atomic(insn)
        case Jump(op=op, bits=bits, dst=dst, src=src, imm=imm, off=off):
            operand = _hex(imm) if src is None else _reg(src, bits)
            return f"if {_reg(dst, bits)} {o.JUMP_SYMBOLS[op]} {operand} goto {off:+#x}"
        case Goto(off=off, long=long):
            return f"{'gotol' if long else 'goto'} {off:+#x}"
        case MayGoto(off=off):
            return f"may_goto {off:+#x}"
        case GotoX(dst=dst):
            return f"gotox r{dst}"
        case Call(imm=imm):
            return f"call {_hex(imm)}"
        case CallX(dst=dst):
            return f"callx r{dst}"
        case Exit():
            return "exit"
        case Raw() | PercpuAddr() | High():
            return "<unknown>"


def _llvm_atomic(insn: Atomic) -> str:
    bits = 8 * insn.size
    at = _at(insn.dst, insn.off)
    src = _reg(insn.src, bits)
    width = "_64" if bits == 64 else "32_32"
    match insn.op:
        case "xchg":
            return f"{src} = xchg{width}({at}, {src})"
        case "cmpxchg":
            return f"{_reg(0, bits)} = cmpxchg{width}({at}, {_reg(0, bits)}, {src})"
        case "load_acquire":
            at = _at(insn.src, insn.off)
            return f"{_reg(insn.dst, bits)} = load_acquire((u{bits} *)({at}))"
        case "store_release":
            return f"store_release((u{bits} *)({at}), {src})"
        case op if insn.fetch:
            return f"{src} = atomic_fetch_{op}((u{bits} *)({at}), {src})"
        case op:
            return f"lock *(u{bits} *)({at}) {o.ALU_SYMBOLS[op]} {src}"


# --- the kernel's form ------------------------------------------------------


def bpftool_imm64(insn: LoadImm) -> str:
    """Return a ``LoadImm`` as bpftool writes it; kinds 3 and 5, which it has no word for, alike."""
    low = signed32(insn.imm)
    high = signed32(insn.imm >> 32)
    match o.LD_IMM64_KINDS[insn.src]:
        case "map_fd" if not high:
            return f"map[id:{low}]"
        case "map_value":
            return f"map[id:{low}][0]+{high}"
        case "btf_id" if not high:
            return f"btf[id:{low}]"
        case "func" if not high:
            return f"subprog[{low:+d}]"
        case "map_idx" if not high:
            return f"map[idx:{low}]"
        case "map_idx_value":
            return f"map[idx:{low}]+{high}"
    return f"{insn.imm:#x}"


def _kernel(
    insn: Insn,
    helper: Callable[[int], str | None],
    kfunc: Callable[[Call], str | None] | None,
    imm64: Callable[[LoadImm], str | None] | None,
) -> str:
    opcode = fields(insn)[0]
    match insn:
        case Raw():
            relaxed = _relaxed(insn)
            if relaxed is None:
                return f"BUG_{opcode:02x}"
            return _kernel(relaxed, helper, kfunc, imm64)
        case Alu(op="neg", bits=bits, dst=dst):
            text = f"{_reg(dst, bits)} = -{_reg(dst, bits)}"
        case Alu(op=op, bits=bits, dst=dst, src=src, imm=imm, sx=sx):
            cast = f"(s{sx})" if sx else ""
            operand = str(imm) if src is None else cast + _reg(src, bits)
            text = f"{_reg(dst, bits)} {o.ALU_SYMBOLS[op]} {operand}"
        case Endian(op=op, bits=bits, dst=dst):
            text = f"r{dst} = {op}{bits} r{dst}"
        case AddrSpaceCast(dst=dst, src=src, imm=imm):
            text = f"r{dst} = addr_space_cast(r{src}, {imm >> 16 & 0xFFFF}, {imm & 0xFFFF})"
        case PercpuAddr(dst=dst, src=src):
            text = f"r{dst} = &(void __percpu *)(r{src})"
        case Load(size=size, dst=dst, src=src, off=off, signed=signed):
            text = f"r{dst} = *({'s' if signed else 'u'}{8 * size} *)(r{src} {off:+d})"
        case LoadImm(dst=dst, imm=imm):
            text = f"r{dst} = {(imm64(insn) if imm64 else None) or _hex(imm)}"
        case LoadPacket(mode=mode, size=size, src=src, imm=imm):
            index = f"r{src} + {imm}" if mode == "ind" else str(imm)
            text = f"r0 = *(u{8 * size} *)skb[{index}]"
        case Store(size=size, dst=dst, off=off, src=src):
            text = f"*(u{8 * size} *)(r{dst} {off:+d}) = r{src}"
        case StoreImm(size=size, dst=dst, off=off, imm=imm):
            text = f"*(u{8 * size} *)(r{dst} {off:+d}) = {imm}"
        case Atomic():
            text = _kernel_atomic(insn)
        case Jump(op=op, bits=bits, dst=dst, src=src, imm=imm, off=off):
            operand = _hex(imm & 0xFFFFFFFF) if src is None else _reg(src, bits)
            text = f"if {_reg(dst, bits)} {o.JUMP_SYMBOLS[op]} {operand} goto pc{off:+d}"
        case Goto(off=off, long=long):
            text = f"{'gotol' if long else 'goto'} pc{off:+d}"
        case MayGoto(off=off):
            text = f"may_goto pc{off:+d}"
        case GotoX(dst=dst):
            text = f"gotox r{dst}"
        case Call(kind="subprog", imm=imm):
            text = f"call pc{imm:+d}"
        case Call(kind="helper", imm=imm):
            text = f"call {helper(imm) or 'unknown'}#{imm}"
        case Call(imm=imm):
            text = f"call {(kfunc(insn) if kfunc else None) or 'kernel-function'}#{imm}"
        case CallX(dst=dst):
            text = f"callx r{dst}"  # the kernel has no such instruction
        case Exit():
            text = "exit"
        case High():
            return ""
    return f"({opcode:02x}) {text}"


def _kernel_atomic(insn: Atomic) -> str:
    kind = f"u{8 * insn.size} *"
    at = f"(r{insn.dst} {insn.off:+d})"
    wide = "64" if insn.size == 8 else ""
    match insn.op:
        case "xchg":
            return f"r{insn.src} = atomic{wide}_xchg(({kind}){at}, r{insn.src})"
        case "cmpxchg":
            return f"r0 = atomic{wide}_cmpxchg(({kind}){at}, r0, r{insn.src})"
        case "load_acquire":
            return f"r{insn.dst} = load_acquire(({kind})(r{insn.src} {insn.off:+d}))"
        case "store_release":
            return f"store_release(({kind}){at}, r{insn.src})"
        case op if insn.fetch:
            return f"r{insn.src} = atomic{wide}_fetch_{op}(({kind}){at}, r{insn.src})"
        case op:
            return f"lock *({kind}){at} {o.ALU_SYMBOLS[op]} r{insn.src}"


def _relaxed(raw: Raw) -> Insn | None:
    """Return what *raw* would be with as few reserved fields as possible cleared, if anything."""
    atomic = raw.opcode & 0xE7 == o.STX | o.ATOMIC  # the immediate is the operation
    imms = (raw.imm,) if atomic else (raw.imm, 0)
    for imm, off, src, dst in product(imms, (raw.off, 0), (raw.src, 0), (raw.dst, 0)):
        insn = decode(SLOT.pack(raw.opcode, src << 4 | dst, off, imm), registers=16)[0]
        if not isinstance(insn, Raw):
            return insn
    return None


# --- whole programs ---------------------------------------------------------


def listing(
    insns: Sequence[Insn],
    *,
    form: Form = "llvm",
    names: Mapping[int, str] | None = None,
    dialect: Dialect = "r11",
    incoming: Mapping[int, int] | None = None,
) -> str:
    """Return assembler text with labels, from which ``assemble`` makes *insns* again.

    *names* has names of subprograms by their first slot; others are ``sub_<slot>``.
    *incoming* has the number of incoming stack arguments by first slot, where it is
    known, for the r12 dialect; elsewhere it is counted. What the form cannot say is
    a ``.8byte`` directive with the text as a comment. Raises ValueError where the
    program cannot be written in the dialect.
    """
    ranges = subprogram_ranges(insns, (*(names or {}), *(incoming or {})))
    labels = _labels(insns, [start for start, _ in ranges], names or {})
    notes: dict[int, int] = {}
    shown = insns
    if dialect == "r12":
        counts = {start: incoming_count(insns[start:end]) for start, end in ranges}
        all_frames = frames(insns, counts | dict(incoming or {}))
        notes = {frame.start: frame.incoming for frame in all_frames}
        shown = to_r12(insns, all_frames)
    lines: list[str] = []
    for slot, insn in enumerate(shown):
        if slot in labels:
            lines.append(f"{labels[slot]}:")
        if slot in notes:
            lines.append(f"\t.stack_args {notes[slot]}")
        if not isinstance(insn, High):
            lines.append("\t" + _line(insn, slot, form, labels))
    return "\n".join(lines) + "\n"


def _labels(
    insns: Sequence[Insn], starts: Sequence[int], names: Mapping[int, str]
) -> dict[int, str]:
    """Return a label, as it is written, for each slot that a listing of *insns* names."""
    targets = (jump_target(insn, slot) for slot, insn in enumerate(insns))
    wanted = dict.fromkeys(starts, "sub_{}")
    for target in targets:
        if target is not None and 0 <= target < len(insns):
            wanted.setdefault(target, "L{}")
    labels: dict[int, str] = {}
    taken = set(names.values())
    for slot, pattern in wanted.items():
        if isinstance(insns[slot], High):
            continue  # no place between two lines
        name = names.get(slot)
        if name is None or not _QUOTABLE.fullmatch(name):
            name = pattern.format(slot)
            while name in taken:
                name = f".{name}"
            taken.add(name)
        labels[slot] = name if _NAME.fullmatch(name) else f'"{name}"'
    return labels


def _line(insn: Insn, slot: int, form: Form, labels: Mapping[int, str]) -> str:
    """Return the line of a listing for *insn*."""
    text = format_insn(insn, form=form, imm64=bpftool_imm64)
    target = jump_target(insn, slot)
    if target is not None and target in labels:
        return f"{text[: text.rindex(' ')]} {labels[target]}"
    function = function_target(insn, slot)
    if function is not None and function in labels and isinstance(insn, Call):
        return f"{text[: text.rindex(' ')]} {labels[function]}"
    if _assembles(insn, form):
        return text
    comment = format_insn(insn, form="kernel", imm64=bpftool_imm64)
    code = encode((insn, HIGH) if isinstance(insn, LoadImm) else (insn,))
    words = ", ".join(f"{word:#018x}" for (word,) in iter_unpack("<Q", code))
    return f".8byte {words}  # {comment}"


def _assembles(insn: Insn, form: Form) -> bool:
    """Return whether the text of *insn* in *form* says all of it."""
    match insn, form:
        case (Raw(), _) | (Call(kind="subprog" | "kfunc") | PercpuAddr(), "llvm"):
            return False
        case LoadImm(src=src, imm=imm), "llvm":
            return not src or not imm >> 32
        case LoadImm(src=src), "kernel":
            return not src or "[" in bpftool_imm64(insn)
        case LoadPacket(mode="ind", imm=imm), "llvm":
            return not imm
        case Call(kind="kfunc", off=off), "kernel":
            return not off
    return True
