"""What is to be triaged: a finding, a case, or a C file with a function name."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import corpus, findings, pipeline
from harness.findings import Finding
from harness.model import BuildConfig, HarnessError
from harness.pipeline import Settings
from harness.toolchain import Compiler, find_compilers
from harness.triage.experiments import Bench, Subject, inlined

BUILDS = (
    ("2", "v3", "hidden"),
    ("0", "v3", "hidden"),
    ("3", "v4", "static"),
    ("3", "v3", "static"),
    ("1", "v1", "static"),
    ("s", "v4", "hidden"),
    ("2", "v2", "hidden"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be triaged."""

    name: str  # for people and for file names
    subject: Subject
    compiler: Compiler
    finding: Finding | None = None
    notes: tuple[str, ...] = ()


def target_of(
    path: Path,
    *,
    function: str = "",
    compilers: Sequence[Compiler] = (),
    build: tuple[str, str, str] | None = None,
    seed: int = 0,
    vectors: int = 64,
) -> Target:
    """Return what *path* is about: a finding, a case, or a C file with a *function*.

    *compilers* override the finding's own. Raises HarnessError.
    """
    if path.suffix == ".json":
        return _finding_target(path, compilers)
    compiler = (compilers or find_compilers())[0]
    if path.suffix == ".toml":
        case = corpus.read(path)
        if case.source is None:
            raise HarnessError(
                f"{path}: a case in BPF text has no C to triage: see `verify`, `exec`"
            )
        text = case.source.c
        builds = [
            (o, m, k)
            for o in case.source.opts
            for m in case.source.mcpus
            for k in case.source.linkages
        ]
    elif path.suffix == ".c":
        try:
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise HarnessError(f"cannot read {path}: {error.strerror}") from None
        builds = list(BUILDS)
    else:
        raise HarnessError(f"{path}: neither a finding (.json), a case (.toml) nor C (.c)")
    text = inlined(text, path.absolute().parent)
    builds.sort(key=lambda each: each[0] == "0")  # Linux refuses the BTF of -O0 as it is
    return _search(path, text, function, compiler, [build] if build else builds, seed, vectors)


def _finding_target(path: Path, compilers: Sequence[Compiler]) -> Target:
    finding = findings.read(path)
    notes: tuple[str, ...] = ()
    if compilers:
        compiler = compilers[0]
        if finding.version and compiler.version != finding.version:
            notes = (f"found with clang {finding.version}, looked at with {compiler.version}",)
    else:
        program = finding.command[0] if finding.command else finding.config.compiler
        if shutil.which(program) is None:
            raise HarnessError(
                f"{path}: its compiler {program} is gone: name another with --clang; "
                "the finding is kept"
            )
        compiler = find_compilers([_command(finding)])[0]
    config = replace(finding.config, compiler=compiler.name)
    expected = ""
    if finding.outcome == "diverge" and finding.detail.startswith("expected '"):
        expected = finding.detail[len("expected '") :].rpartition("', ")[0]
    subject = Subject(
        finding.c,
        finding.function,
        config,
        finding.seed,
        min(finding.vectors, 64),
        also=tuple(dict.fromkeys(d.vector for d in finding.divergences if d.vector)),
        expected=expected,
    )
    return Target(path.stem, subject, compiler, finding, notes)


def _command(finding: Finding) -> str:
    return shlex.join(finding.command) if finding.command else finding.config.compiler


def _handed(text: str, function: str, settings: Settings) -> Subject | None:
    """Return the first build of *function* whose assembly does not assemble as it is printed."""
    with Bench(settings) as bench:
        for config in settings.configs:
            subject = Subject(text, function, config, settings.seed, settings.vectors, handed=True)
            planned = bench.plan(subject)
            if planned.layouts and bench.build(planned, config, legs=(), through_text=True).printed:
                return subject
    return None


def _search(
    path: Path,
    text: str,
    function: str,
    compiler: Compiler,
    builds: Sequence[tuple[str, str, str]],
    seed: int,
    vectors: int,
) -> Target:
    """Find the first build of *text* that does not agree."""
    configs = tuple(BuildConfig(compiler.name, *build) for build in builds)
    settings = Settings(configs=configs, compilers=(compiler,), vectors=vectors, seed=seed)
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as folder:
        file = Path(folder, path.with_suffix(".c").name)
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
        planned = pipeline.plan(file, str(path), settings)
        if planned.failure:
            raise HarnessError(f"{path}: {planned.failure}")
        names = [p.signature.name for p in planned.layouts]
        if function and names and function not in names:
            raise HarnessError(
                f"{path}: no function {function} to test (it has {', '.join(names)})"
            )
        for config in configs:
            for check in pipeline.check_build(planned, config, settings):
                if function and check.function not in (function, "*"):
                    continue
                if check.outcome in ("diverge", "rejected", "compile_error") or check.undefined:
                    name = names[0] if check.function == "*" and names else check.function
                    expected = planned.refusals.get(name, "") if planned.programs else ""
                    subject = Subject(text, name, config, seed, vectors, expected=expected)
                    return Target(f"{path.stem}-{name}", subject, compiler)
        handed = _handed(text, function, settings) if function else None
        if handed is not None:
            return Target(f"{path.stem}-{function}", handed, compiler)
    what = f"function {function}" if function else "every function"
    raise HarnessError(f"{path}: nothing to triage: {what} agrees on {len(configs)} builds")
