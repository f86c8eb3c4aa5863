"""Find a clang that passes more than five arguments, or fetch one."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.model import HarnessError
from harness.toolchain.apt import Package
from harness.toolchain.compiler import Compiler, Source
from harness.toolchain.fetch import Recipe, Suites, fetched, shown
from harness.toolchain.progress import Progress
from harness.toolchain.roots import Program, Root
from harness.toolchain.run import MEMORY, Finished, run, run_compiler

FEATURE = "__BPF_FEATURE_STACK_ARGUMENT"
FIRST = 23  # the first clang that has it
ENVIRONMENT = "CROSSCHECK_CLANG"
PROBE_TIMEOUT = 60.0  # seconds
SUITES: Suites = ((("sid",), None), (("sid", "experimental"), None), (("forky",), None))

# What clang-NN declares to need and C for BPF does not: headers and libraries for
# programs of the machine itself, a linker, and the C interface.
NEEDLESS = r"(?!libclang-common-).*-dev|binutils|llvm-.*-linker-tools|libclang1-.*|libc-gconv-.*"

ELSEWHERE = (
    f"install clang {FIRST} or newer with the BPF target "
    f"(Debian: apt install clang-{FIRST}; Fedora: dnf install clang; Arch: pacman -S clang), "
    "or name one with --clang"
)

# Two arguments more than the registers hold, so that only stack arguments compile it.
SAMPLE = """\
__attribute__((noinline)) static long sum(long a, long b, long c, long d, long e, long f, long g)
{ return a - b + c * d - e + f * g; }
__attribute__((section("syscall"))) long entry(long *p)
{ return sum(p[0], p[1], p[2], p[3], p[4], p[5], p[6]); }
"""


def find_compilers(
    options: Sequence[str] = (), *, fetch: bool = True, progress: Progress | None = None
) -> list[Compiler]:
    """Return the compilers to use: those named, else the first good one.

    Looked for in this order: *options* (command lines), ``$CROSSCHECK_CLANG``, clang-NN
    and clang on PATH, one fetched earlier, one fetched now (only with *fetch*). One that
    is named may lack stack arguments; any other has them. *progress* None: shown on
    standard error. Raises HarnessError where there is none, saying what to install.
    """
    if options:
        return [named(option, "option") for option in dict.fromkeys(options)]
    environment = os.environ.get(ENVIRONMENT, "").strip()
    if environment:
        return [named(environment, "environment")]
    for command in on_path():
        found = probe((command,), Path(command).name, "path")
        if found is not None and found.stack_arguments:
            return [found]
    earlier = fetched_compiler()
    if earlier is not None:
        return [earlier]
    if not fetch:
        raise HarnessError(f"found no clang that passes more than five arguments: {ELSEWHERE}")
    return [shown(recipe(), progress)]


def named(command: str, source: Source) -> Compiler:
    """Return the compiler a user named as the command line *command*."""
    origin = "--clang" if source == "option" else f"${ENVIRONMENT}"
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise HarnessError(f"{origin} {command!r} is no command line: {error}") from None
    if not argv:
        raise HarnessError(f"{origin} names no command")
    program = shutil.which(os.path.expanduser(argv[0]))
    if program is None:
        raise HarnessError(
            f"{origin}: {argv[0]} is not there or not executable: name another compiler"
        )
    # A name on PATH stays as it is; a path must mean the same from any folder.
    if os.sep in argv[0]:
        argv[0] = os.path.abspath(program)
    else:
        argv[0] = program
    found = probe(tuple(argv), command, source)
    if found is None:
        raise HarnessError(f"{origin}: {command} does not answer --version: name another compiler")
    return found


def probe(command: tuple[str, ...], name: str, source: Source) -> Compiler | None:
    """Ask *command* what it is; None where it does not even tell its version."""
    macros = ["--target=bpf", "-dM", "-E", "-x", "c", "/dev/null"]
    limited = True
    done = ask([*command, *macros])
    if done.code != 0:
        unlimited = ask([*command, *macros], memory=None)
        if unlimited.code == 0:
            limited, done = False, unlimited
    text = done.stdout.decode(errors="replace")
    version = re.search(r'^#define __clang_version__ "(\S+?)[" ]', text, re.MULTILINE)
    if done.code == 0 and version is not None:
        stack = re.search(rf"^#define {FEATURE}\b", text, re.MULTILINE) is not None
        return Compiler(command, name, version[1], stack, source, limited)
    done = ask([*command, "--version"], memory=None)
    if done.code != 0:
        return None
    told = re.search(r"\b\d+\.\d+(\.\d+)?\S*", done.stdout.decode(errors="replace"))
    return Compiler(command, name, told[0] if told else "unknown", False, source, limited)


def ask(argv: Sequence[str], memory: int | None = MEMORY) -> Finished:
    """Run *argv* for its answer; one that cannot be started answers with status 127."""
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as scratch:
        try:
            return run(argv, timeout=PROBE_TIMEOUT, memory=memory, scratch=Path(scratch))
        except HarnessError as error:
            return Finished(127, b"", str(error), 0.0)


def on_path(stem: str = "clang") -> Iterator[str]:
    """Yield the paths of ``clang-NN`` on PATH, the highest first, then of ``clang``."""
    numbered: dict[int, str] = {}
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            match = re.fullmatch(rf"{re.escape(stem)}-(\d+)", name)
            path = os.path.join(folder, name)
            if match and os.access(path, os.X_OK):
                numbered.setdefault(int(match[1]), os.path.abspath(path))
    for number in sorted(numbered, reverse=True):
        yield numbered[number]
    plain = shutil.which(stem)
    if plain is not None:
        yield os.path.abspath(plain)


# --- fetching ---------------------------------------------------------------


def fetched_compiler() -> Compiler | None:
    """Return the clang that was fetched earlier, None where there is none that works."""
    return fetched(recipe())


def compiler_of(root: Root) -> Compiler | None:
    """Return the compiler of *root*, None where it does not start or lacks stack arguments."""
    for launcher in sorted((root.path / "bin").glob("clang-*")):
        found = probe((str(launcher),), launcher.name, "fetched")
        return found if found is not None and found.stack_arguments else None
    return None


def recipe() -> Recipe[Compiler]:
    """Return how to fetch the newest released clang."""
    return Recipe(
        kind="clang",
        suites=SUITES,
        names=lambda apt: (
            [f"{package.name}={package.version}"]
            for package in newest_clangs(apt.candidates(r"^clang-[0-9]+$"))
        ),
        of=compiler_of,
        check=check_clang,
        failure=f"cannot fetch clang ({{why}}): {ELSEWHERE}",
        programs=clang_programs,
        without=(NEEDLESS, ""),
        lacking=f"clang {FIRST} or newer",
    )


def newest_clangs(packages: Sequence[Package]) -> list[Package]:
    """Return the released ones of the clang-NN *packages* that are new enough, newest first."""

    def number(package: Package) -> int:
        return int(package.name.rpartition("-")[2])

    released = [package for package in packages if package.stable and number(package) >= FIRST]
    return sorted(released, key=number, reverse=True)


def clang_programs(root: Root) -> list[Program]:
    """Return the clang in *root*: its own headers are named, since it cannot find them itself."""
    programs = []
    for binary in root.files.glob("usr/lib/llvm-*/bin/clang"):
        number = binary.parent.parent.name.rpartition("-")[2]
        for headers in (root.files / f"usr/lib/llvm-{number}/lib/clang").glob("*"):
            resources = headers.relative_to(root.files).as_posix()
            arguments = ("-no-canonical-prefixes", "-resource-dir", f"{{files}}/{resources}")
            programs.append(Program(f"clang-{number}", binary, arguments))
    return programs[:1]


def check_clang(root: Root) -> str | None:
    """Return what is wrong with the clang of *root*: it must compile seven arguments."""
    launchers = sorted((root.path / "bin").glob("clang-*"))
    found = probe((str(launchers[0]),), launchers[0].name, "fetched") if launchers else None
    if found is None:
        return "clang does not start"
    if not found.stack_arguments:
        return f"clang {found.version} does not define {FEATURE}"
    for args in (
        ("-g", "-O2", "--target=bpf", "-c"),
        ("-O2", "--target=x86_64", "-S", "-emit-llvm"),
    ):
        result = run_compiler(found, args, source=SAMPLE, cache=False)
        if not result.ok:
            return result.why
    return None
