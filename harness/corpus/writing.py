"""Cases to files: new ones, and new expectations of old ones."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import String, StringType, Table, Trivia

from harness.corpus.case import Case, ProgramText, RunCheck, SourceText, VerifyCheck
from harness.corpus.reading import read
from harness.model import DEFAULT_LICENSE, HarnessError


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
        if case.source.tree:
            source["tree"] = case.source.tree
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
    if program.attach_type:
        table["attach_type"] = program.attach_type
    if program.attach:
        table["attach"] = program.attach
    if program.sleepable:
        table["sleepable"] = True
    if program.license != DEFAULT_LICENSE:
        table["license"] = program.license
    if program.kfuncs:
        table["kfuncs"] = list(program.kfuncs)
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
    fields = dict(program.fields)
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
                "field": fields.get(definition.name),
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
