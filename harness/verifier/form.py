"""The form of a program, before any path is followed.

Subprograms and jump ranges (``add_subprogs``, ``check_subprogs``), reserved fields,
registers and opcodes (``check_and_resolve_insns``), function and line information
(check_btf.c) of Linux 7.3.4, in the kernel's order.
"""

from __future__ import annotations

from harness.btf import GLOBAL, Enum, Func, Int
from harness.isa import opcodes as o
from harness.isa.codec import LD_IMM64, Fields, fields
from harness.isa.decoded import Facts
from harness.isa.insn import PARAMS, High, Insn, LoadImm
from harness.isa.stack_args import incoming_slot, outgoing_slot
from harness.verifier import ksyms, maps
from harness.verifier.env import Env, NotModelled, Refused, Subprog

MAX_SUBPROGS = 256
TAIL_CALL = 12  # helper number
_STDERR = 2  # no file descriptor up to it is a map

_CLASS, _OP = 0x07, 0xF0
_DIV, _MOD = o.ALU_OPS["div"], o.ALU_OPS["mod"]
_NEG, _MOV = o.ALU_OPS["neg"], o.ALU_OPS["mov"]
_STRAIGHT = frozenset({o.ALU, o.ALU64, o.LDX, o.ST, o.STX})  # classes without jumps
_MAY_CALL = frozenset({o.JMP | o.CALL, LD_IMM64})


def _known_opcode(code: int) -> bool:
    """``bpf_opcode_in_insntable``."""
    kind, op, mode = code & _CLASS, code & _OP, code & 0xE0
    if kind in (o.ALU, o.ALU64):
        if op == o.END:
            return kind == o.ALU or code & o.X == 0
        if op == _NEG:
            return code & o.X == 0
        return op in o.ALU_OPS.values()
    if kind in (o.JMP, o.JMP32):
        if op == o.JA:
            return kind == o.JMP or code & o.X == 0
        if op in o.JUMP_OPS.values():
            return True
        return kind == o.JMP and code & o.X == 0 and op in (o.CALL, o.EXIT, o.JCOND)
    if kind == o.LDX:
        return mode == o.MEM or (mode == o.MEMSX and code & 0x18 != o.SIZES[8])
    if kind == o.STX:
        return mode in (o.MEM, o.ATOMIC)
    if kind == o.ST:
        return mode == o.MEM
    return mode in (o.ABS, o.IND) and code & 0x18 != o.SIZES[8]  # LD; ld_imm64 is apart


_FIELDS = Facts(fields)


def slot_fields(insns: list[Insn]) -> list[Fields]:
    """Return opcode, registers, offset and immediate of every slot."""
    out: list[Fields] = []
    high = 0
    try:
        found = _FIELDS.of(insns)
    except ValueError as problem:
        raise NotModelled(str(problem)) from None
    for insn, slot in zip(insns, found, strict=True):
        if slot[0] == LD_IMM64 and isinstance(insn, LoadImm):
            high = insn.imm >> 32
            high -= (high & 0x80000000) << 1
        elif high and isinstance(insn, High):
            slot, high = (0, 0, 0, 0, high), 0
        out.append(slot)
    return out


def prepare_func_info(env: Env) -> list[tuple[int, int]]:
    """Check the func_info records by themselves (``prepare_btf_func``); return (slot, type)."""
    program, btf = env.program, env.btf
    records = [(sub.start, sub.type_id) for sub in program.subprograms if sub.type_id]
    if btf is None or not records:
        return []
    previous = 0
    for index, (start, type_id) in enumerate(records):
        if not index and start:
            raise Refused(f"nonzero insn_off {start} for the first func info record")
        if index and start <= previous:
            raise Refused(
                f"same or smaller insn offset ({start}) than previous func info record ({previous})"
            )
        if btf.prototype(type_id) is None:
            raise Refused(f"invalid type id {type_id} in func info")
        previous = start
    return records


def _exception_callback(env: Env, records: list[tuple[int, int]]) -> int:
    """Return the slot of the function that a program's exceptions go to, 0: none.

    ``bpf_find_exception_callback_insn_off``.
    """
    btf, prefix = env.btf, "exception_callback:"
    if btf is None or not records:
        return 0
    tags = [
        tag.name[len(prefix) :]
        for tag in btf.tags(records[0][1])
        if tag.component == -1 and tag.name.startswith(prefix)
    ]
    if not tags:
        return 0
    if len(tags) > 1:
        raise Refused("multiple exception callback tags for main subprog")
    name = tags[0]
    found = btf.find(name, Func)
    if found is None:
        raise Refused(f"exception callback '{name}' could not be found in BTF")
    func = btf[found]
    assert isinstance(func, Func)
    if func.linkage != GLOBAL:
        raise Refused(f"exception callback '{name}' must have global linkage")
    start = 0
    for at, type_id in records:
        if type_id == found:
            start = at
            if not start:
                raise Refused("invalid exception callback insn_off in func_info: 0")
    if not start:
        raise Refused("exception callback type id not found in func_info")
    return start


def add_subprogs(env: Env, records: list[tuple[int, int]]) -> None:
    """Find where subprograms start (``add_subprogs``)."""
    starts = {0}
    for index, (code, _, src, _, imm) in enumerate(env.fields):
        if code not in _MAY_CALL or not (is_call(code, src) or is_func_address(code, src)):
            continue
        target = index + imm + 1
        if not 0 <= target < env.count:
            raise Refused("call to invalid destination", index)
        if target not in starts:
            if len(starts) >= MAX_SUBPROGS:
                raise Refused("too many subprograms", index)
            starts.add(target)
    callback = _exception_callback(env, records)
    if callback:
        if callback not in starts and len(starts) >= MAX_SUBPROGS:
            raise Refused("too many subprograms")
        starts.add(callback)
    env.starts = sorted(starts)
    ends = [*env.starts[1:], env.count]
    env.subs = [
        Subprog(index, start, end)
        for index, (start, end) in enumerate(zip(env.starts, ends, strict=True))
    ]
    for sub in env.subs[1:]:
        if sub.start == callback:
            env.exception_callback = sub.index
            sub.is_callback = sub.is_async_callback = sub.is_exception_callback = True
    if env.log.level > 1:
        for sub in env.subs:
            env.log.text(f"func#{sub.index} @{sub.start}\n")


def is_call(code: int, src: int) -> bool:
    """Say whether this is a call of a subprogram (``bpf_pseudo_call``)."""
    return code == o.JMP | o.CALL and src == o.CALL_KINDS["subprog"]


def is_func_address(code: int, src: int) -> bool:
    """Say whether this loads the address of a subprogram (``bpf_pseudo_func``)."""
    return code == LD_IMM64 and src == 4


def check_subprogs(env: Env) -> None:
    """Check that jumps stay inside their subprogram (``check_subprogs``)."""
    for sub in env.subs:
        last = sub.end - 1
        for index, (code, _, src, off, imm) in enumerate(
            env.fields[sub.start : sub.end], sub.start
        ):
            kind, op = code & _CLASS, code & _OP
            if kind in _STRAIGHT and index != last:
                continue
            if code == o.JMP | o.CALL and src == 0 and imm == TAIL_CALL:
                sub.has_tail_call = sub.tail_call_reachable = True
            if kind == o.LD and code & 0xE0 in (o.ABS, o.IND):
                sub.has_ld_abs = True
            if kind in (o.JMP, o.JMP32):
                if op == o.EXIT:
                    sub.exit = index
                elif op != o.CALL and not (kind == o.JMP and op == o.JA and code & o.X):
                    target = index + 1 + (imm if code == o.JMP32 | o.JA else off)
                    if not sub.start <= target < sub.end:
                        raise Refused(f"jump out of range from insn {index} to {target}", index)
            if index == last and code not in (
                o.JMP | o.EXIT,
                o.JMP32 | o.JA,
                o.JMP | o.JA,
                o.JMP | o.JA | o.X,
            ):
                raise Refused("last insn is not an exit or jmp", index)


def check_abnormal_return(env: Env) -> None:
    """Refuse hidden exits in subprograms without BTF (``check_abnormal_return``)."""
    for sub in env.subs[1:]:
        if sub.has_ld_abs:
            raise Refused("LD_ABS is not allowed in subprogs without BTF")
        if sub.has_tail_call:
            raise Refused("tail_call is not allowed in subprogs without BTF")


def check_btf_info(env: Env, records: list[tuple[int, int]]) -> None:
    """Match func_info and line_info with the layout (``bpf_check_btf_info``)."""
    btf = env.btf
    if btf is None or not records:
        check_abnormal_return(env)
        if btf is None or not env.program.lines:
            return
    else:
        if len(records) != len(env.subs):
            raise Refused("number of funcs in func_info doesn't match number of subprogs")
        for sub, (start, type_id) in zip(env.subs, records, strict=True):
            if sub.start != start:
                raise Refused("func_info BTF section doesn't match subprog layout in BPF program")
            proto = btf.prototype(type_id)
            assert proto is not None  # prepare_func_info
            returned = btf.resolve(proto.returns)
            scalar = isinstance(returned, Enum) or (
                isinstance(returned, Int) and returned.size in (1, 2, 4, 8)
            )
            if sub.index and not scalar and sub.has_ld_abs:
                raise Refused("LD_ABS is only allowed in functions that return 'int'.")
            if sub.index and not scalar and sub.has_tail_call:
                raise Refused("tail_call is only allowed in functions that return 'int'.")
            sub.type_id = type_id
            func = btf[type_id]
            sub.name = func.name
            sub.is_global = getattr(func, "linkage", 0) == 1
        env.has_func_info = True
        for model in env.program.subprograms:  # hidden visibility: static for the verifier
            found = env.find_subprog(model.start)
            if found is not None and model.linkage == "static":
                found.is_global = False
    _check_lines(env)


def _check_lines(env: Env) -> None:
    """``check_btf_line``."""
    lines = env.program.lines
    if not lines:
        return
    previous, reached = 0, 0
    for index, line in enumerate(lines):
        if (index and line.insn <= previous) or not 0 <= line.insn < env.count:
            raise Refused(
                f"Invalid line_info[{index}].insn_off:{line.insn} "
                f"(prev_offset:{previous} prog->len:{env.count})"
            )
        if not env.fields[line.insn][0]:
            raise Refused(f"Invalid insn code at line_info[{index}].insn_off")
        if reached < len(env.subs):
            start = env.subs[reached].start
            if line.insn == start:
                reached += 1
            elif start < line.insn:
                raise Refused(f"missing bpf_line_info for func#{reached}")
        previous = line.insn
    if reached != len(env.subs):
        raise Refused(
            f"missing bpf_line_info for {len(env.subs) - reached} funcs "
            f"starting from func#{reached}"
        )


def check_insns(env: Env) -> None:
    """Check registers, opcodes and reserved fields (``check_and_resolve_insns``)."""
    skip = False
    fine: set[int] = set()  # ids: what is decoded shares equal instructions
    for index, insn in enumerate(env.insns):
        if skip:
            skip = False
            continue
        if id(insn) in fine:
            continue
        code, dst, src, off, imm = env.fields[index]
        if dst >= PARAMS and outgoing_slot(insn) is None:
            raise Refused(f"R{dst} is invalid", index)
        if src >= PARAMS and incoming_slot(insn) is None:
            raise Refused(f"R{src} is invalid", index)
        if code == LD_IMM64:
            _check_load_imm(env, index)
            skip = True
            continue
        if not _known_opcode(code):
            raise Refused(f"unknown opcode {code:02x}", index)
        wrong = _reserved(code, dst, src, off, imm)
        if wrong:
            raise Refused(wrong, index)
        fine.add(id(insn))


def _check_load_imm(env: Env, index: int) -> None:
    insn = env.insns[index]
    if index == env.count - 1 or env.fields[index + 1][:4] != (0, 0, 0, 0):
        raise Refused("invalid bpf_ld_imm64 insn", index)
    _, _, kind, off, imm = env.fields[index]
    if off:
        raise Refused("BPF_LD_IMM64 uses reserved fields", index)
    if kind in (0, 4):
        return
    if kind == 3:
        ksyms.check(env, index)
        return
    if kind > 6 or not isinstance(insn, LoadImm):
        raise Refused("unrecognized bpf_ld_imm64 insn", index)
    high = insn.imm >> 32
    if kind in (1, 5) and high:
        raise Refused("unrecognized bpf_ld_imm64 insn", index)
    if kind in (1, 2):
        if imm > _STDERR:
            raise NotModelled("a map by file descriptor")
        raise Refused(f"fd {imm} is not pointing to valid bpf_map", index)
    if not 0 <= imm < len(env.maps):
        raise NotModelled(f"map {imm} of {len(env.maps)}")
    maps.use(env, env.maps[imm], index)
    if kind == 5:
        return
    wrong = maps.direct_value(env.maps[imm], high)
    if wrong is not None:
        raise Refused(wrong, index)


def _reserved(code: int, dst: int, src: int, off: int, imm: int) -> str | None:
    """Return what is wrong with the fields (``check_insn_fields``)."""
    kind, mode = code & _CLASS, code & 0xE0
    if kind in (o.ALU, o.ALU64):
        return _reserved_alu(code, src, off, imm)
    if kind in (o.JMP, o.JMP32):
        return _reserved_jump(code, dst, src, off, imm)
    if kind == o.LDX:
        return "BPF_LDX uses reserved fields" if imm else None
    if kind == o.STX:
        return "BPF_STX uses reserved fields" if imm and mode != o.ATOMIC else None
    if kind == o.ST:
        return "BPF_ST uses reserved fields" if src else None
    if dst or off or (mode == o.ABS and src):
        return "BPF_LD_[ABS|IND] uses reserved fields"
    return None


def _reserved_alu(code: int, src: int, off: int, imm: int) -> str | None:
    """``check_alu_fields``."""
    kind, op = code & _CLASS, code & _OP
    by_reg = bool(code & o.X)
    if op == _NEG:
        return "BPF_NEG uses reserved fields" if src or off or imm else None
    if op == o.END:
        wrong = src or off or imm not in (16, 32, 64)
        return "BPF_END uses reserved fields" if wrong else None
    if op == _MOV:
        if not by_reg:
            return "BPF_MOV uses reserved fields" if src or off else None
        if kind == o.ALU:
            return "BPF_MOV uses reserved fields" if off not in (0, 8, 16) or imm else None
        if off == 1:
            if imm in (1, 1 << 16):
                return None
            return "addr_space_cast insn can only convert between address space 1 and 0"
        return "BPF_MOV uses reserved fields" if off not in (0, 8, 16, 32) or imm else None
    wrong = off not in (0, 1) or (off == 1 and op not in (_DIV, _MOD))
    wrong = wrong or bool(imm if by_reg else src)
    return "BPF_ALU uses reserved fields" if wrong else None


def _reserved_jump(code: int, dst: int, src: int, off: int, imm: int) -> str | None:
    """``check_jmp_fields``."""
    kind, op = code & _CLASS, code & _OP
    by_reg = bool(code & o.X)
    if op == o.CALL:
        kinds = o.CALL_KINDS.values()
        wrong = (off and src != o.CALL_KINDS["kfunc"]) or src not in kinds or dst
        return "BPF_CALL uses reserved fields" if wrong else None
    if op == o.JA:
        if by_reg:
            return "BPF_JA|BPF_X uses reserved fields" if src or imm or off else None
        wrong = src or dst or (imm if kind == o.JMP else off)
        return "BPF_JA uses reserved fields" if wrong else None
    if op == o.EXIT:
        return "BPF_EXIT uses reserved fields" if imm or src or dst else None
    if op == o.JCOND:
        return f"invalid may_goto imm {imm}" if src or dst or imm else None
    return "BPF_JMP/JMP32 uses reserved fields" if (imm if by_reg else src) else None
