"""From files to cases."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from harness.corpus.case import (
    CROSSCHECKS,
    KERNELS,
    Case,
    FunctionDecl,
    ProgramText,
    RunCheck,
    SourceText,
    VerifyCheck,
)
from harness.corpus.tables import Table, parse
from harness.corpus.text import ARGUMENT_TYPES, FIELDS
from harness.model import DEFAULT_LICENSE, HarnessError, MapDef

MAX_PARAMETERS = 255  # of a function declared in a case; Linux refuses more than 12


def read(path: Path) -> Case:
    """Return the case in *path*; raises HarnessError that names the file and what is wrong."""
    table = parse(path)
    try:
        return _case(path, Table(table, "the case", _CASE))
    except ValueError as error:
        raise HarnessError(f"{path}: {error}") from None


def _case(path: Path, table: Table) -> Case:
    program, source = table.table("program", _PROGRAM), table.table("source", _SOURCE)
    if (program is None) == (source is None):
        raise ValueError("a case has either [program] or [source]")
    verify = table.table("verify", _VERIFY)
    jit = table.table("jit", _JIT)
    runs = tuple(_run(run) for run in table.tables("run", _RUN))
    crosscheck = table.table("crosscheck", "outcome")
    if source is not None and (verify or jit or runs):
        raise ValueError("[verify], [jit] and [[run]] are checks of a [program]")
    if program is not None and crosscheck:
        raise ValueError("[crosscheck] is a check of a [source]")
    return Case(
        path=path,
        note=table.string("note", ""),
        program=_program(program) if program else None,
        source=_source(source) if source else None,
        verify=_verify(verify) if verify else None,
        jit=_jit(jit) if jit else {},
        runs=runs,
        crosscheck=crosscheck.choice("outcome", CROSSCHECKS) if crosscheck else None,
    )


# fmt: off
_CASE    = "note program source verify jit run crosscheck"
_PROGRAM = "asm type attach_type attach sleepable license kfuncs dialect functions maps"
_SOURCE  = "c opts mcpus linkages tree"
_VERIFY  = "verdict message insn log kernel"
_JIT     = "x86_64"
_RUN     = "ctx outcome r0 after legs"
_FUNC    = "args linkage"
_MAP     = "type key_size value_size max_entries data readonly field"
# fmt: on


def _program(table: Table) -> ProgramText:
    functions = []
    for name, decl in table.named("functions", _FUNC):
        types = decl.value("args")
        if isinstance(types, int) and not isinstance(types, bool):
            if not 0 <= types <= MAX_PARAMETERS:
                raise decl.wrong("args", f"0 to {MAX_PARAMETERS} arguments, not {types}")
            types = ["u64"] * types
        elif types is not None:
            types = decl.strings("args", ())
        for arg in types or ():
            if arg not in ARGUMENT_TYPES:
                raise decl.wrong(
                    "args", f"no argument type {arg!r} (there are {', '.join(ARGUMENT_TYPES)})"
                )
        linkage = decl.choice("linkage", ("static", "global"), "static")
        functions.append(FunctionDecl(name, tuple(types or ()), linkage))
    maps, fields = [], []
    for name, decl in table.named("maps", _MAP):
        data = decl.hex("data")
        field = decl.choice("field", tuple(FIELDS), "")
        if field:
            fields.append((name, field))
        maps.append(
            MapDef(
                name=name,
                type=decl.integer("type", 2),
                key_size=decl.integer("key_size", 4),
                value_size=decl.integer("value_size", len(data or b"")),
                max_entries=decl.integer("max_entries", 1),
                data=data,
                readonly=decl.boolean("readonly"),
            )
        )
    return ProgramText(
        asm=table.string("asm"),
        type=table.string("type", "syscall"),
        attach_type=table.string("attach_type", ""),
        attach=table.string("attach", ""),
        sleepable=table.boolean("sleepable"),
        license=table.string("license", DEFAULT_LICENSE),
        kfuncs=table.strings("kfuncs", ()),
        dialect="r12" if table.choice("dialect", ("r11", "r12"), "r11") == "r12" else "r11",
        functions=tuple(functions),
        maps=tuple(maps),
        fields=tuple(fields),
    )


def _source(table: Table) -> SourceText:
    default = SourceText("")
    return SourceText(
        c=table.string("c"),
        opts=table.choices("opts", ("0", "1", "2", "3", "s"), default.opts),
        mcpus=table.choices("mcpus", ("v1", "v2", "v3", "v4"), default.mcpus),
        linkages=table.choices("linkages", ("hidden", "static"), default.linkages),
        tree=table.string("tree", ""),
    )


def _verify(table: Table) -> VerifyCheck:
    return VerifyCheck(
        verdict=table.choice("verdict", ("accept", "reject", "unknown")),
        message=table.string("message", None),
        insn=table.integer("insn", None),
        log=table.string("log", None),
        kernel=table.choice("kernel", KERNELS, ""),
    )


def _jit(table: Table) -> dict[str, dict[str, str]]:
    out = {}
    for arch in _JIT.split():
        images = table.table(arch, None)
        if images is not None:
            out[arch] = {name: (images.hex(name) or b"").hex() for name in images.keys}
    return out


def _run(table: Table) -> RunCheck:
    outcome = table.choice("outcome", ("returned", "trapped", "fuel"), "returned")
    r0 = table.string("r0", None)
    after = table.hex("after")
    if outcome != "returned" and (r0 is not None or after is not None):
        raise table.wrong("outcome", f"{outcome} leaves no r0 and no context")
    if r0 is not None and not _R0.fullmatch(r0):
        raise table.wrong("r0", f"expected a number as text, e.g. '0x2a', not {r0!r}")
    value = None if r0 is None else int(r0, 0)
    if value is not None and not -(1 << 63) <= value < 1 << 64:
        raise table.wrong("r0", f"{r0} does not fit 64 bits")
    return RunCheck(
        ctx=table.hex("ctx") or b"",
        outcome=outcome,
        r0=None if value is None else value & ((1 << 64) - 1),
        after=after,
        legs=table.choices("legs", ("interp", "jit", "kernel"), ()),
    )


_R0 = re.compile(r"-?(0x[0-9a-fA-F]+|[1-9][0-9]*|0)")


def find(paths: Iterable[Path]) -> list[Path]:
    """Return the case files among *paths* and below the folders among them, sorted."""
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            found.update(p for p in path.rglob("*.toml") if p.name != "known.toml")
        elif path.suffix == ".toml" and path.name != "known.toml":
            found.add(path)
    return sorted(found)
