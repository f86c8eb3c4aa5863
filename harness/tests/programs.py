"""Programs for tests of the verifier, from assembler text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.btf import (
    GLOBAL,
    STATIC,
    Btf,
    BtfType,
    Func,
    FuncProto,
    Int,
    Modifier,
    Param,
    Ptr,
    Struct,
    Void,
)
from harness.isa.asm import assemble
from harness.model import Accepted, LineInfo, MapDef, Program, Rejected, Subprogram, Unknown
from harness.verifier import Options, verify

# ids in the BTF of every program here
VOID, LONG, INT, PTR_VOID, WIDE, CTX, PTR_CTX, PTR_LONG, PTR_WIDE, SKB, PTR_SKB = range(11)
_TYPES: tuple[BtfType, ...] = (
    Void(),
    Int("long", 8, 1, bits=64),
    Int("int", 4, 1, bits=32),
    Ptr(VOID),
    Struct("wide", 16, ()),
    Modifier("const", VOID),
    Ptr(CTX),
    Ptr(LONG),
    Ptr(WIDE),
    Struct("__sk_buff", 192, ()),
    Ptr(SKB),
)

HASH = MapDef("hash", 1, 4, 16, 8)
ARRAY = MapDef("array", 2, 4, 16, 8)
DATA = MapDef(".data", 2, 4, 16, 1, data=bytes(16))
PROG_ARRAY = MapDef("programs", 3, 4, 4, 8)


def program(
    text: str,
    signatures: Mapping[str, Sequence[int] | int] | None = None,
    *,
    type: str = "syscall",  # noqa: A002 - the field's name
    maps: Sequence[MapDef] = (),
    results: dict[str, int] | None = None,
    linkage: dict[str, str] | None = None,
    lines: Sequence[LineInfo] = (),
) -> Program:
    """Return the program that *text* is.

    *signatures* names labels that begin a subprogram; the parameters of each are type ids,
    or their number, where all are long. None: one function, and no BTF.
    """
    assembly = assemble(text)
    count = len(assembly.insns)
    if signatures is None:
        whole = (Subprogram("main", 0, count),)
        return Program("main", type, type, assembly.insns, whole, tuple(maps), lines=tuple(lines))
    types = list(_TYPES)
    starts = {"main": 0} | {name: assembly.labels[name] for name in signatures if name != "main"}
    places = sorted(starts.items(), key=lambda place: place[1])
    subprograms = []
    for index, (name, start) in enumerate(places):
        wanted = signatures.get(name, [PTR_VOID])
        params = [LONG] * wanted if isinstance(wanted, int) else wanted
        kind = (linkage or {}).get(name, "static" if index else "global")
        proto = FuncProto(
            (results or {}).get(name, LONG),
            tuple(Param(f"a{n}", param) for n, param in enumerate(params)),
        )
        types += [proto, Func(name, len(types), GLOBAL if kind == "global" else STATIC)]
        end = places[index + 1][1] if index + 1 < len(places) else count
        subprograms.append(Subprogram(name, start, end, kind, len(types) - 1))
    return Program(
        "main",
        type,
        type,
        assembly.insns,
        tuple(subprograms),
        tuple(maps),
        btf=Btf(tuple(types)),
        lines=tuple(lines),
    )


def verdict(subject: Program, options: Options | None = None) -> str:
    """Return what the verifier says: "" accepted, its words, or "unknown: " and why."""
    match verify(subject, log_level=0, options=options).verdict:
        case Accepted():
            return ""
        case Rejected(message=message):
            return message
        case Unknown(why=why):
            return f"unknown: {why}"


def text(body: str) -> str:
    """Return statements, parted by ``; ``, one a line: "; " begins a comment after some."""
    return body.replace("; ", "\n")
