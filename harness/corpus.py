"""Case files: kept inputs with their expectations, one TOML file each.

A case holds a program as BPF text (``[program]``) or a C source (``[source]``), and
checks: ``[verify]``, ``[jit.x86_64]``, ``[[run]]``, ``[crosscheck]``. ``note`` says why
it is kept. A table or key that is not known here is an error, so that a misspelt
check does not pass by being ignored.
"""

from __future__ import annotations

import fnmatch
import os
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit

from harness import btf
from harness.isa import asm
from harness.isa.stack_args import Dialect
from harness.isa.targets import subprogram_starts
from harness.model import HarnessError, MapDef, Program, Subprogram

STATUSES = ("open", "fixed-in", "by-design")


@dataclass(frozen=True, slots=True)
class FunctionDecl:
    """The prototype of a subprogram written as BPF text."""

    name: str
    args: tuple[str, ...]  # type names: u8 to u64, s8 to s64, bool, ptr, ctx
    linkage: str = "static"


@dataclass(frozen=True, slots=True)
class ProgramText:
    """``[program]``: BPF text; each label that is called begins a subprogram."""

    asm: str
    type: str = "syscall"
    dialect: Dialect = "r11"
    functions: tuple[FunctionDecl, ...] = ()
    maps: tuple[MapDef, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceText:
    """``[source]``: C, compiled by the clang at hand."""

    c: str
    opts: tuple[str, ...] = ("2",)
    mcpus: tuple[str, ...] = ("v3",)
    linkages: tuple[str, ...] = ("hidden",)


@dataclass(frozen=True, slots=True)
class VerifyCheck:
    """``[verify]``: the verdict, and for a refusal its first error line."""

    verdict: str  # "accept", "reject", "unknown"
    message: str | None = None
    insn: int | None = None
    log: str | None = None


@dataclass(frozen=True, slots=True)
class RunCheck:
    """``[[run]]``: one vector; every leg must do this with it."""

    ctx: bytes
    outcome: str = "returned"  # "returned", "trapped", "fuel"
    r0: int | None = None
    after: bytes | None = None  # None: as before
    legs: tuple[str, ...] = ()  # none named: interp and jit


@dataclass(frozen=True, slots=True)
class Case:
    """One case file."""

    path: Path
    note: str = ""
    program: ProgramText | None = None
    source: SourceText | None = None
    verify: VerifyCheck | None = None
    jit: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # arch: subprogram: hex
    runs: tuple[RunCheck, ...] = ()
    crosscheck: str | None = None  # outcome of a C source on every build: "agree", "known"

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem


def read(path: Path) -> Case:
    """Return the case in *path*; raises HarnessError that names the file and what is wrong."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise HarnessError(f"{path}: {error}") from None
    try:
        return _case(path, table)
    except (TypeError, ValueError, KeyError) as error:
        raise HarnessError(f"{path}: {error}") from None


def _case(path: Path, table: dict[str, Any]) -> Case:
    _only(table, "the case", "note program source verify jit run crosscheck")
    if ("program" in table) == ("source" in table):
        raise ValueError("a case has either [program] or [source]")
    crosscheck = table.get("crosscheck")
    if crosscheck is not None:
        _only(crosscheck, "[crosscheck]", "outcome")
    return Case(
        path=path,
        note=_string(table.get("note", ""), "note"),
        program=_program(table["program"]) if "program" in table else None,
        source=_source(table["source"]) if "source" in table else None,
        verify=_verify(table["verify"]) if "verify" in table else None,
        jit={arch: dict(images) for arch, images in table.get("jit", {}).items()},
        runs=tuple(_run(run) for run in table.get("run", ())),
        crosscheck=crosscheck["outcome"] if crosscheck else None,
    )


def _program(table: dict[str, Any]) -> ProgramText:
    _only(table, "[program]", "asm type dialect functions maps")
    functions = []
    for name, decl in table.get("functions", {}).items():
        _only(decl, f"[program.functions.{name}]", "args linkage")
        args = decl.get("args", 0)
        types = ("u64",) * args if isinstance(args, int) else tuple(args)
        for arg in types:
            if arg not in _ARGUMENT_TYPES:
                raise ValueError(f"function {name}: no argument type {arg!r}")
        functions.append(FunctionDecl(name, types, decl.get("linkage", "static")))
    maps = []
    for name, decl in table.get("maps", {}).items():
        _only(decl, f"[program.maps.{name}]", "type key_size value_size max_entries data readonly")
        data = bytes.fromhex(decl["data"]) if "data" in decl else None
        maps.append(
            MapDef(
                name=name,
                type=decl.get("type", 2),
                key_size=decl.get("key_size", 4),
                value_size=decl.get("value_size", len(data or b"")),
                max_entries=decl.get("max_entries", 1),
                data=data,
                readonly=decl.get("readonly", False),
            )
        )
    return ProgramText(
        asm=_string(table["asm"], "asm"),
        type=table.get("type", "syscall"),
        dialect=_dialect(table.get("dialect", "r11")),
        functions=tuple(functions),
        maps=tuple(maps),
    )


def _source(table: dict[str, Any]) -> SourceText:
    _only(table, "[source]", "c opts mcpus linkages")
    default = SourceText("")
    return SourceText(
        c=_string(table["c"], "c"),
        opts=tuple(table.get("opts", default.opts)),
        mcpus=tuple(table.get("mcpus", default.mcpus)),
        linkages=tuple(table.get("linkages", default.linkages)),
    )


def _verify(table: dict[str, Any]) -> VerifyCheck:
    _only(table, "[verify]", "verdict message insn log")
    if table["verdict"] not in ("accept", "reject", "unknown"):
        raise ValueError(f"verdict is accept, reject or unknown, not {table['verdict']!r}")
    return VerifyCheck(**table)


def _run(table: dict[str, Any]) -> RunCheck:
    _only(table, "[[run]]", "ctx outcome r0 after legs")
    if table.get("outcome", "returned") not in ("returned", "trapped", "fuel"):
        raise ValueError(f"outcome is returned, trapped or fuel, not {table['outcome']!r}")
    return RunCheck(
        ctx=bytes.fromhex(table.get("ctx", "")),
        outcome=table.get("outcome", "returned"),
        r0=int(table["r0"], 0) if "r0" in table else None,
        after=bytes.fromhex(table["after"]) if "after" in table else None,
        legs=tuple(table.get("legs", ())),
    )


def _dialect(value: object) -> Dialect:
    match value:
        case "r11" | "r12":
            return value
    raise ValueError(f"dialect is r11 or r12, not {value!r}")


def _only(table: object, where: str, known: str) -> None:
    if not isinstance(table, dict):
        raise TypeError(f"{where} is a table")
    for key in table:
        if key not in known.split():
            raise ValueError(f"{where} has no {key!r} (it has {', '.join(known.split())})")


def _string(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} is a string")
    return value


def find(paths: Iterable[Path]) -> list[Path]:
    """Return the case files among *paths* and below the folders among them, sorted."""
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            found.update(p for p in path.rglob("*.toml") if p.name != "known.toml")
        elif path.suffix == ".toml" and path.name != "known.toml":
            found.add(path)
    return sorted(found)


# --- BPF text to a program --------------------------------------------------

# fmt: off
_ARGUMENT_TYPES: dict[str, btf.BtfType] = {
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
# fmt: on


def program(text: ProgramText, name: str) -> Program:
    """Return the program that *text* spells; raises HarnessError with line and column.

    A label that a declared function names, or that is called, begins a subprogram. Every
    subprogram gets BTF: its declared prototype, or ``u64 name(void)``; main gets
    ``int name(void *ctx)``.
    """
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
        maps=text.maps,
        btf=btf.Btf(tuple(types)),
    )


def _add_function(types: list[btf.BtfType], decl: FunctionDecl, *, main: bool) -> int:
    def add(kind: btf.BtfType) -> int:
        if kind not in types:
            types.append(kind)
        return types.index(kind)

    returns = add(_ARGUMENT_TYPES["s32" if main else "u64"])
    params = tuple(
        btf.Param(f"a{number}", add(_ARGUMENT_TYPES[arg]))
        for number, arg in enumerate(decl.args, start=1)
    )
    types.append(btf.FuncProto(returns, params))
    linkage = btf.GLOBAL if decl.linkage == "global" else btf.STATIC
    types.append(btf.Func(decl.name, len(types) - 1, linkage))
    return len(types) - 1


# --- rewriting --------------------------------------------------------------


def bless(
    path: Path,
    *,
    verify: VerifyCheck | None = None,
    jit: Mapping[str, Mapping[str, str]] | None = None,
    runs: Sequence[RunCheck] = (),
    crosscheck: str | None = None,
) -> bool:
    """Rewrite the expectations of the case in *path*; return whether the file changed.

    Comments, notes and programs stay as they are; the file is replaced in one step.
    """
    before = path.read_text(encoding="utf-8")
    document = tomlkit.parse(before)
    if verify is not None:
        table = tomlkit.table()
        table["verdict"] = verify.verdict
        if verify.insn is not None:
            table["insn"] = verify.insn
        if verify.message is not None:
            table["message"] = verify.message
        if verify.log is not None:
            table["log"] = tomlkit.string(verify.log, multiline=True)
        document["verify"] = table
    for arch, images in (jit or {}).items():
        section = document.setdefault("jit", tomlkit.table(is_super_table=True))
        section[arch] = dict(images)
    if runs:
        array = tomlkit.aot()
        for run in runs:
            table = tomlkit.table()
            table["ctx"] = run.ctx.hex()
            if run.outcome != "returned":
                table["outcome"] = run.outcome
            if run.r0 is not None:
                table["r0"] = hex(run.r0)  # text: a TOML integer ends at 2^63
            if run.after is not None and run.after != run.ctx:
                table["after"] = run.after.hex()
            if run.legs:
                table["legs"] = list(run.legs)
            array.append(table)
        document["run"] = array
    if crosscheck is not None:
        document["crosscheck"] = {"outcome": crosscheck}
    after = tomlkit.dumps(document)
    if after == before:
        return False
    write_atomically(path, after)
    return True


def write_atomically(path: Path, text: str) -> None:
    """Replace *path* by *text* in one step: a reader sees the old file or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


# --- known divergences ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """One entry of known.toml: what is expected not to agree, and why."""

    id: str
    kind: str  # "divergence", "reject", "compile_error"
    status: str  # "open", "fixed-in", "by-design"
    note: str
    source: str = "*"  # patterns, as fnmatch
    function: str = "*"
    build: str = "*"  # of "-O2 -mcpu=v3 hidden"
    compiler: str = "*"  # of the compiler's version
    legs: tuple[str, ...] = ()
    message: str = "*"
    link: str = ""

    def matches(self, kind: str, source: str, function: str, build: str, text: str) -> bool:
        """Return whether the entry explains a *kind* of finding on this build."""
        return (
            self.kind == kind
            and self.status != "fixed-in"
            and fnmatch.fnmatchcase(source, self.source)
            and fnmatch.fnmatchcase(function, self.function)
            and fnmatch.fnmatchcase(build, self.build)
            and fnmatch.fnmatchcase(text, self.message)
        )


def read_known(path: Path) -> tuple[Known, ...]:
    """Return the entries of *path*, none if there is no such file; raises HarnessError."""
    if not path.exists():
        return ()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        _only(table, "known.toml", "known")
        entries = []
        for entry in table.get("known", ()):
            _only(entry, "[[known]]", " ".join(Known.__dataclass_fields__))
            if entry.get("status") not in STATUSES:
                raise ValueError(f"status is one of {', '.join(STATUSES)}")
            entries.append(Known(**{**entry, "legs": tuple(entry.get("legs", ()))}))
    except (OSError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise HarnessError(f"{path}: {error}") from None
    return tuple(entries)
