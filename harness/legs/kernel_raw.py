"""Programs that have no BTF, as a kernel takes them.

A kernel counts arguments by BTF, and BPF_PROG_TEST_RUN tells half of r0: raw programs get
types that say what their code shows, and a main that keeps r0 behind the context.
"""

from __future__ import annotations

import re
from dataclasses import replace

from harness.btf import STATIC, Btf, BtfType, Func, FuncProto, Int, Param, Void
from harness.isa.insn import R0, R1, R6, Alu, Call, Exit, Insn, Store
from harness.isa.stack_args import REG_ARGS, incoming_count
from harness.model import Program, Subprogram

_LONG = 1  # type id


def with_btf(program: Program) -> Program:
    """Return *program* with BTF of static functions: five arguments, and the slots they read."""
    types: list[BtfType] = [Void(), Int("long", 8, 1, 0, 64)]
    subprograms, names = [], set[str]()
    for each in program.subprograms:
        slots = incoming_count(program.insns[each.start : each.end])
        params = (Param(f"a{number + 1}", _LONG) for number in range(REG_ARGS + slots))
        name = re.sub(r"\W", "_", each.name, flags=re.ASCII)
        name = name if re.match(r"[A-Za-z_]", name) else f"_{name}"
        while name in names:
            name += "_"
        names.add(name)
        types.append(FuncProto(_LONG, tuple(params)))
        types.append(Func(name, len(types) - 1))
        subprograms.append(replace(each, type_id=len(types) - 1, linkage="static"))
    return replace(program, btf=Btf(tuple(types)), subprograms=tuple(subprograms))


def keep_r0(program: Program, length: int) -> Program:
    """Return *program*, which has BTF, called by a main that stores r0 behind the context.

    *length* is that of contexts, in bytes, a multiple of 8; they are 8 bytes longer then.
    """
    start = 5
    main: list[Insn] = [
        Alu("mov", 64, R6, R1),
        Call("subprog", start - 2),
        Store(8, R6, length, R0),
        Alu("mov", 64, R0, None, 0),
        Exit(),
    ]
    assert len(main) == start
    assert program.btf is not None
    types = list(program.btf.types)
    first = len(types)
    old = program.btf.get(program.subprograms[0].type_id)
    types += [
        Int("long", 8, 1, 0, 64),
        FuncProto(first, (Param("ctx", first),)),
        Func("keep_r0", first + 1),
        # the old main is verified where it is called, as static functions are
        replace(old, linkage=STATIC) if isinstance(old, Func) else Func("main", first + 1),
    ]
    subprograms = [Subprogram("keep_r0", 0, start, "static", first + 2)]
    for index, each in enumerate(program.subprograms):
        moved = replace(each, start=each.start + start, end=each.end + start)
        if index == 0:
            moved = replace(moved, type_id=first + 3, linkage="static")
        subprograms.append(moved)
    return replace(
        program,
        insns=(*main, *program.insns),
        subprograms=tuple(subprograms),
        btf=replace(program.btf, types=tuple(types)),
        lines=(),
        frames=(),
    )
