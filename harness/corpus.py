"""Case files: kept inputs with their expectations, one TOML file each.

A case holds a program as BPF text (``[program]``) or a C source (``[source]``), and
checks: ``[verify]``, ``[jit.x86_64]``, ``[[run]]``, ``[crosscheck]``. ``note`` says why
it is kept. A table or key that is not known here is an error, so that a misspelt
check does not pass by being ignored. Inputs are written by people, expectations by
``bless``, which leaves comments and everything else as it is.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import String, StringType, Table, Trivia

from harness import btf
from harness.isa import asm, codec
from harness.isa.stack_args import Dialect
from harness.isa.targets import subprogram_starts
from harness.model import HarnessError, MapDef, Program, Subprogram

MAX_SIZE = 4 << 20  # bytes of a case file
MAX_PARAMETERS = 255  # of a function declared in a case; Linux refuses more than 12
KERNELS = ("no-jit", "no-stack-args")
CROSSCHECKS = ("agree", "diverge", "rejected", "compile_error")
STATUSES = ("open", "fixed-in", "by-design")
FINDINGS = ("divergence", "reject", "compile_error")


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
    kernel: str = ""  # one of KERNELS: without a JIT, or with one that lacks stack arguments


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
    crosscheck: str | None = None  # outcome of a C source on every build: one of CROSSCHECKS

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem


def read(path: Path) -> Case:
    """Return the case in *path*; raises HarnessError that names the file and what is wrong."""
    table = _parse(path)
    try:
        return _case(path, _Table(table, "the case", _CASE))
    except ValueError as error:
        raise HarnessError(f"{path}: {error}") from None


def _parse(path: Path) -> dict[str, Any]:
    """Return the TOML of *path*; raises HarnessError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
        if len(data) > MAX_SIZE:
            raise HarnessError(f"{path}: a case file has at most {MAX_SIZE >> 20} MiB")
        return tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise HarnessError(f"{path}: {error.strerror}") from None
    except RecursionError:
        raise HarnessError(f"{path}: nested too deep") from None
    except ValueError as error:  # not UTF-8, not TOML
        raise HarnessError(f"{path}: {error}") from None


def _case(path: Path, table: _Table) -> Case:
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
_PROGRAM = "asm type dialect functions maps"
_SOURCE  = "c opts mcpus linkages"
_VERIFY  = "verdict message insn log kernel"
_JIT     = "x86_64"
_RUN     = "ctx outcome r0 after legs"
_FUNC    = "args linkage"
_MAP     = "type key_size value_size max_entries data readonly"
# fmt: on


def _program(table: _Table) -> ProgramText:
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
            if arg not in _ARGUMENT_TYPES:
                raise decl.wrong(
                    "args", f"no argument type {arg!r} (there are {', '.join(_ARGUMENT_TYPES)})"
                )
        linkage = decl.choice("linkage", ("static", "global"), "static")
        functions.append(FunctionDecl(name, tuple(types or ()), linkage))
    maps = []
    for name, decl in table.named("maps", _MAP):
        data = decl.hex("data")
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
        dialect="r12" if table.choice("dialect", ("r11", "r12"), "r11") == "r12" else "r11",
        functions=tuple(functions),
        maps=tuple(maps),
    )


def _source(table: _Table) -> SourceText:
    default = SourceText("")
    return SourceText(
        c=table.string("c"),
        opts=table.choices("opts", ("0", "1", "2", "3", "s"), default.opts),
        mcpus=table.choices("mcpus", ("v1", "v2", "v3", "v4"), default.mcpus),
        linkages=table.choices("linkages", ("hidden", "static"), default.linkages),
    )


def _verify(table: _Table) -> VerifyCheck:
    return VerifyCheck(
        verdict=table.choice("verdict", ("accept", "reject", "unknown")),
        message=table.string("message", None),
        insn=table.integer("insn", None),
        log=table.string("log", None),
        kernel=table.choice("kernel", KERNELS, ""),
    )


def _jit(table: _Table) -> dict[str, dict[str, str]]:
    out = {}
    for arch in _JIT.split():
        images = table.table(arch, None)
        if images is not None:
            out[arch] = {name: (images.hex(name) or b"").hex() for name in images.keys}
    return out


def _run(table: _Table) -> RunCheck:
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
        legs=table.choices("legs", ("interp", "jit"), ()),
    )


_R0 = re.compile(r"-?(0x[0-9a-fA-F]+|[1-9][0-9]*|0)")
_KINDS = {str: "text", bool: "true or false", int: "a number", float: "a fraction",
          list: "a list", dict: "a table"}  # fmt: skip


class _Table:
    """A TOML table and its place; what is read from it has the type that is asked for.

    Raises ValueError, which names place, key and what was expected.
    """

    def __init__(self, table: object, where: str, known: str | None) -> None:
        if not isinstance(table, dict):
            raise ValueError(f"{where} is a table, not {_kind(table)}")
        self.keys: tuple[str, ...] = tuple(table)
        self._table: dict[str, Any] = table
        self._where = where
        for key in table:
            if known is not None and key not in known.split():
                raise ValueError(f"{where} has no {key!r} (it has {', '.join(known.split())})")

    def wrong(self, key: str, text: str) -> ValueError:
        """Return the error that *text* is about *key*."""
        return ValueError(f"{self._where}: {key}: {text}")

    def value(self, key: str) -> Any:
        """Return what *key* has, None if there is none (TOML has no None)."""
        return self._table.get(key)

    def _of(self, key: str, kind: type, default: Any) -> Any:
        value = self._table.get(key)
        if value is None:
            if default is ...:
                raise ValueError(f"{self._where} needs {key!r}")
            return default
        if type(value) is not kind:
            raise self.wrong(key, f"expected {_KINDS[kind]}, not {_kind(value)}")
        return value

    def string(self, key: str, default: Any = ...) -> Any:
        """Return text; without a default it must be there."""
        return self._of(key, str, default)

    def integer(self, key: str, default: Any = ...) -> Any:
        """Return a number from 0 up."""
        value = self._of(key, int, default)
        if value is not None and value < 0:
            raise self.wrong(key, f"expected a number from 0 up, not {value}")
        return value

    def boolean(self, key: str) -> bool:
        """Return a truth value, false if there is none."""
        return bool(self._of(key, bool, False))

    def strings(self, key: str, default: Sequence[str]) -> tuple[str, ...]:
        """Return a list of texts."""
        values = self._of(key, list, list(default))
        for value in values:
            if not isinstance(value, str):
                raise self.wrong(key, f"expected a list of texts, found {_kind(value)}")
        return tuple(values)

    def choice(self, key: str, choices: Sequence[str], default: Any = ...) -> str:
        """Return one of *choices*."""
        value: str = self._of(key, str, default)
        if value not in choices and value != default:
            raise self.wrong(key, f"expected {_or(choices)}, not {value!r}")
        return value

    def choices(self, key: str, choices: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
        """Return a list of some of *choices*."""
        values = self.strings(key, default)
        for value in values:
            if value not in choices:
                raise self.wrong(key, f"expected {_or(choices)}, not {value!r}")
        return values

    def hex(self, key: str) -> bytes | None:
        """Return the bytes that text of hexadecimal digits means."""
        text = self._of(key, str, None)
        try:
            return None if text is None else bytes.fromhex(text)
        except ValueError:
            raise self.wrong(key, "expected an even number of hexadecimal digits") from None

    def table(self, key: str, known: str | None) -> _Table | None:
        """Return a table within this one."""
        if key not in self._table:
            return None
        where = f"[{key}]" if self._where == "the case" else f"{self._where[:-1]}.{key}]"
        return _Table(self._table[key], where, known)

    def named(self, key: str, known: str) -> list[tuple[str, _Table]]:
        """Return the tables in table *key*, with their names."""
        outer = self.table(key, None)
        return [] if outer is None else [(n, _must(outer.table(n, known))) for n in outer.keys]

    def tables(self, key: str, known: str) -> list[_Table]:
        """Return the array of tables *key*."""
        values = self._of(key, list, [])
        return [_Table(v, f"[[{key}]] {n}", known) for n, v in enumerate(values, 1)]


def _must(table: _Table | None) -> _Table:
    assert table is not None
    return table


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a date or time")


def _or(choices: Sequence[str]) -> str:
    return " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices)


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


# --- writing ----------------------------------------------------------------


def bless(
    path: Path,
    *,
    verify: VerifyCheck | None = None,
    jit: Mapping[str, Mapping[str, str]] | None = None,
    runs: Sequence[RunCheck] = (),
    crosscheck: str | None = None,
) -> bool:
    """Rewrite the expectations of the case in *path*; return whether the file changed.

    *runs* are those of the file, in order. Images are rewritten of the subprograms that
    the file names, or of all where it names none. Comments, notes, inputs, and the
    spelling of what is right stay as they are; the file is replaced in one step.
    """
    case = read(path)
    before = path.read_text(encoding="utf-8")
    document = tomlkit.parse(before)
    if verify is not None:
        _expect(_section(document, "verify"), _verify_keys(verify), _verify_keys(case.verify))
    for arch, images in (jit or {}).items():
        section = _section(_section(document, "jit", is_super_table=True), arch)
        had = case.jit.get(arch, {})
        _expect(section, {n: c for n, c in images.items() if n in had or not had}, had)
    if len(runs) != len(case.runs) and runs:
        raise HarnessError(f"{path}: has {len(case.runs)} runs, not {len(runs)}")
    for table, run, had_run in zip(document.get("run", ()), runs, case.runs, strict=False):
        _expect(table, _run_keys(run), _run_keys(had_run))
    if crosscheck is not None:
        _expect(
            _section(document, "crosscheck"), {"outcome": crosscheck}, {"outcome": case.crosscheck}
        )
    after = tomlkit.dumps(document)
    if after == before:
        return False
    write_atomically(path, after)
    return True


def write(case: Case) -> Path:
    """Write *case* to a new file, its ``path``, and return that; raises HarnessError if it exists.

    ``read`` of the file gives *case* again.
    """
    document = tomlkit.document()
    if case.note:
        document["note"] = _text(case.note)
    if case.program is not None:
        document["program"] = _program_table(case.program)
    if case.source is not None:
        source, default = tomlkit.table(), SourceText("")
        for key in ("opts", "mcpus", "linkages"):
            if getattr(case.source, key) != getattr(default, key):
                source[key] = list(getattr(case.source, key))
        source["c"] = _text(case.source.c)
        document["source"] = source
    if case.verify is not None:
        document["verify"] = _filled(_verify_keys(case.verify))
    if case.jit:
        jit = tomlkit.table(is_super_table=True)
        for arch, images in case.jit.items():
            jit[arch] = _filled(images)
        document["jit"] = jit
    if case.runs:
        array = tomlkit.aot()
        for run in case.runs:
            inputs = {"ctx": run.ctx.hex() or None, "legs": list(run.legs) or None}
            array.append(_filled(inputs | _run_keys(run)))
        document["run"] = array
    if case.crosscheck is not None:
        document["crosscheck"] = _filled({"outcome": case.crosscheck})
    write_atomically(case.path, tomlkit.dumps(document), new=True)
    return case.path


def _program_table(program: ProgramText) -> Table:
    table = tomlkit.table()
    if program.type != "syscall":
        table["type"] = program.type
    if program.dialect != "r11":
        table["dialect"] = program.dialect
    table["asm"] = _text(program.asm)
    for name, decl in ((f.name, f) for f in program.functions):
        functions = table.setdefault("functions", tomlkit.table(is_super_table=True))
        plain = set(decl.args) <= {"u64"}
        functions[name] = _filled(
            {
                "args": len(decl.args) if plain else list(decl.args),
                "linkage": None if decl.linkage == "static" else decl.linkage,
            }
        )
    for definition in program.maps:
        maps = table.setdefault("maps", tomlkit.table(is_super_table=True))
        data = definition.data
        maps[definition.name] = _filled(
            {
                "type": definition.type,
                "key_size": definition.key_size,
                "value_size": definition.value_size,
                "max_entries": definition.max_entries,
                "data": None if data is None else data.hex(),
                "readonly": definition.readonly or None,
            }
        )
    return table


def _verify_keys(check: VerifyCheck | None) -> dict[str, Any]:
    """Return what [verify] says of what is observed, None for what it does not say."""
    if check is None:
        return {}
    return {
        "verdict": check.verdict,
        "insn": check.insn,
        "message": check.message,
        "log": check.log,
        "kernel": check.kernel or None,
    }


def _run_keys(run: RunCheck) -> dict[str, Any]:
    """Return what a [[run]] says of what is observed, None for what it does not say."""
    changed = run.after is not None and run.after != run.ctx
    return {
        "outcome": None if run.outcome == "returned" else run.outcome,
        "r0": None if run.r0 is None else hex(run.r0),  # a TOML integer ends at 2^63
        "after": run.after.hex() if run.after is not None and changed else None,
    }


def _expect(table: Any, keys: Mapping[str, Any], had: Mapping[str, Any]) -> None:
    """Set the *keys* of *table* that it *had* otherwise; None removes."""
    for key, value in keys.items():
        if value is None:
            table.pop(key, None)
        elif had.get(key) != value:
            table[key] = _text(value) if isinstance(value, str) else value


def _filled(keys: Mapping[str, Any]) -> Table:
    table = tomlkit.table()
    _expect(table, keys, {})
    return table


def _section(table: Any, name: str, *, is_super_table: bool = False) -> Any:
    """Return the table *name* of *table*, a new one if there is none."""
    return table.setdefault(name, tomlkit.table(is_super_table=is_super_table))


def _text(text: str) -> String:
    """Return a TOML string that a person can read: of several lines where it has them."""
    plain = all(char in "\n\t" or char.isprintable() for char in text)
    if "\n" in text and plain and "\\" not in text:
        for kind, quote in ((StringType.MLL, "'"), (StringType.MLB, '"')):
            if 3 * quote not in text and not text.endswith(quote):
                return String(kind, text, "\n" + text, Trivia())
    return tomlkit.string(text)


def write_atomically(path: Path, text: str, *, new: bool = False) -> None:
    """Replace *path* by *text* in one step: a reader sees the old file or the new one.

    With *new* there must not be an old one. Raises HarnessError where it cannot be written.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise HarnessError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        mode = 0o644 if new or not path.exists() else path.stat().st_mode & 0o777
        Path(temporary).chmod(mode)
        if new:
            os.link(temporary, path)  # fails where there is one already, unlike a rename
        else:
            Path(temporary).replace(path)
    except OSError as error:
        raise HarnessError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


# --- the same program twice ---------------------------------------------------


def fingerprint(case: Case) -> str:
    """Return text that two cases share if they hold the same program and run it on the same.

    BPF text counts as what it assembles to, so labels, comments and layout do not tell;
    C counts by its tokens. Expectations and notes do not count.
    """
    parts: list[object] = [sorted((run.ctx, run.legs) for run in case.runs)]
    if case.source is not None:
        parts += [_c_tokens(case.source.c), case.source.opts, case.source.mcpus]
        parts.append(case.source.linkages)
    if case.program is not None:
        text = case.program
        parts += [text.type, text.dialect, sorted(text.maps, key=lambda m: m.name)]
        parts.append(case.verify.kernel if case.verify else "")
        try:
            built = program(text, case.name)
        except HarnessError:
            parts.append(text.asm.split())  # a case that does not assemble
        else:
            parts.append(codec.encode(built.insns).hex())
            declared = {f.name: (f.args, f.linkage) for f in text.functions}
            parts.append([(s.start, declared.get(s.name)) for s in built.subprograms])
    return hashlib.sha256(repr(parts).encode()).hexdigest()


_C_TOKEN = re.compile(
    r"(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<line>^[ \t]*\#[^\n]*)"
    r"|[A-Za-z_]\w*|\.?\d[\w.]*|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\S",
    re.DOTALL | re.MULTILINE,
)


def _c_tokens(text: str) -> list[str]:
    """Return the tokens of C, enough to tell whether layout and comments alone differ."""
    return [match[0].strip() for match in _C_TOKEN.finditer(text) if not match["comment"]]


def duplicates(cases: Iterable[Case]) -> list[tuple[Case, ...]]:
    """Return the groups of *cases* that test the same, each in the given order."""
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[fingerprint(case)].append(case)
    return [tuple(group) for group in groups.values() if len(group) > 1]


# --- known divergences ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """One entry of known.toml: what is expected not to agree, and why."""

    id: str
    kind: str  # one of FINDINGS
    status: str  # one of STATUSES
    note: str
    source: str = "*"  # patterns, as fnmatch
    function: str = "*"
    build: str = "*"  # of "-O2 -mcpu=v3 hidden"
    compiler: str = "*"  # of the compiler's version
    legs: tuple[str, ...] = ()
    message: str = "*"
    link: str = ""

    def matches(
        self, kind: str, source: str, function: str, build: str, text: str, version: str = ""
    ) -> bool:
        """Return whether the entry explains a *kind* of finding on this build.

        *version* is that of the compiler. What is fixed is explained only where the entry
        names the compilers that still have it.
        """
        return (
            self.kind == kind
            and not (self.status == "fixed-in" and self.compiler == "*")
            and fnmatch.fnmatchcase(version, self.compiler)
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
        entries = _Table(_parse(path), "known.toml", "known").tables("known", _KNOWN)
        found = tuple(_known(entry) for entry in entries)
    except ValueError as error:
        raise HarnessError(f"{path}: {error}") from None
    for index, entry in enumerate(found):
        if entry.id in {other.id for other in found[:index]}:
            raise HarnessError(f"{path}: two entries have the id {entry.id!r}")
    return found


_KNOWN = "id kind status note source function build compiler legs message link"


def _known(table: _Table) -> Known:
    return Known(
        id=table.string("id"),
        kind=table.choice("kind", FINDINGS),
        status=table.choice("status", STATUSES),
        note=table.string("note"),
        source=table.string("source", "*"),
        function=table.string("function", "*"),
        build=table.string("build", "*"),
        compiler=table.string("compiler", "*"),
        legs=table.choices("legs", ("interp", "jit", "native", "kernel"), ()),
        message=table.string("message", "*"),
        link=table.string("link", ""),
    )
