"""BPF text to a program, with the BTF that its functions need."""

from __future__ import annotations

import re
from dataclasses import replace

from harness import btf
from harness.corpus.case import FunctionDecl, ProgramText
from harness.isa import asm
from harness.isa.targets import subprogram_starts
from harness.model import HarnessError, MapDef, Program, Subprogram

# fmt: off
ARGUMENT_TYPES: dict[str, btf.BtfType] = {
    # name   BTF
    "u8":   btf.Int("unsigned char", 1, 0, 0, 8),
    "u16":  btf.Int("unsigned short", 2, 0, 0, 16),
    "u32":  btf.Int("unsigned int", 4, 0, 0, 32),
    "u64":  btf.Int("unsigned long", 8, 0, 0, 64),
    "s8":   btf.Int("signed char", 1, 1, 0, 8),
    "s16":  btf.Int("short", 2, 1, 0, 16),
    "s32":  btf.Int("int", 4, 1, 0, 32),
    "s64":  btf.Int("long", 8, 1, 0, 64),
    "bool": btf.Int("_Bool", 1, 4, 0, 8),
    "ptr":  btf.Ptr(0),
    "ctx":  btf.Ptr(0),
}
FIELDS = {
    # struct of the kernel  bytes
    "bpf_timer":            16,
    "bpf_wq":               16,
    "bpf_spin_lock":        4,
    "bpf_res_spin_lock":    4,
}
# fmt: on


def program(text: ProgramText, name: str) -> Program:
    """Return the program that *text* spells; raises HarnessError with line and column.

    A label that a declared function names, or that is called, begins a subprogram. Every
    subprogram gets BTF: its declared prototype, or ``u64 name(void)``; main gets
    ``int name(void *ctx)``.
    """
    name = re.sub(r"\W|^(?=\d)", "_", name, flags=re.ASCII)  # BTF has C's identifiers
    try:
        assembly = asm.assemble(text.asm, dialect=text.dialect)
    except ValueError as error:
        raise HarnessError(f"{name}: {error}") from None
    insns = assembly.insns
    labels = {slot: label for label, slot in assembly.labels.items()}
    starts = {slot: labels.get(slot, f"sub_{slot}") for slot in subprogram_starts(insns)}
    starts |= {assembly.labels[f.name]: f.name for f in text.functions if f.name in assembly.labels}
    starts.setdefault(0, name)
    if 0 not in labels:
        starts[0] = name
    for function in text.functions:
        if function.name not in assembly.labels:
            raise HarnessError(f"{name}: no label for function {function.name}")
    order = sorted(starts)
    declared = {f.name: f for f in text.functions}
    types: list[btf.BtfType] = [btf.Void()]
    maps = _typed_maps(types, text)
    subprograms = []
    for index, start in enumerate(order):
        label = starts[start]
        decl = declared.get(label)
        if index == 0 and decl is None:
            decl = FunctionDecl(label, ("ctx",), "global")
        type_id = _add_function(types, decl or FunctionDecl(label, ()), main=index == 0)
        end = order[index + 1] if index + 1 < len(order) else len(insns)
        linkage = decl.linkage if decl else "static"
        subprograms.append(Subprogram(label, start, end, linkage, type_id))
    return Program(
        name=name,
        section=text.type,
        type=text.type,
        insns=insns,
        subprograms=tuple(subprograms),
        maps=maps,
        btf=btf.Btf(tuple(types)),
        kfuncs=text.kfuncs,
        attach=text.attach,
        attach_type=text.attach_type,
        sleepable=text.sleepable,
        license=text.license,
    )


def _typed_maps(types: list[btf.BtfType], text: ProgramText) -> tuple[MapDef, ...]:
    """Return the maps of *text*, those whose values begin with a struct of the kernel's typed."""
    fields = dict(text.fields)
    maps = []
    for each in text.maps:
        if each.name in fields:
            name = fields[each.name]
            member = btf.Member("field", _add(types, btf.Struct(name, FIELDS[name], ())), 0)
            value = btf.Struct("value", each.value_size, (member,))
            key = _add(types, ARGUMENT_TYPES["s32"])
            each = replace(each, key_type=key, value_type=_add(types, value))
        maps.append(each)
    return tuple(maps)


def _add(types: list[btf.BtfType], kind: btf.BtfType) -> int:
    if kind not in types:
        types.append(kind)
    return types.index(kind)


def _add_function(types: list[btf.BtfType], decl: FunctionDecl, *, main: bool) -> int:
    returns = _add(types, ARGUMENT_TYPES["s32" if main else "u64"])
    params = tuple(
        btf.Param(f"a{number}", _add(types, ARGUMENT_TYPES[arg]))
        for number, arg in enumerate(decl.args, start=1)
    )
    types.append(btf.FuncProto(returns, params))
    linkage = btf.GLOBAL if decl.linkage == "global" else btf.STATIC
    types.append(btf.Func(decl.name, len(types) - 1, linkage))
    return len(types) - 1
