"""Find or fetch cvise, which makes C smaller where our own passes end."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

from harness.model import HarnessError
from harness.toolchain.clang import ask
from harness.toolchain.fetch import Recipe, Suites, fetched, shown
from harness.toolchain.progress import Progress
from harness.toolchain.roots import Program, Root

CVISE = "cvise"
SUITES: Suites = ((("trixie",), None), (("sid",), None), (("bookworm",), None))
# What cvise and Python declare to need and it runs without: a preprocessor of the machine's,
# databases, time zones, line editing.
NEEDLESS = (
    r"cpp.*|libisl.*|libmpfr.*|libmpc.*|libgmp.*|dpkg|tar|debconf|libdebconf.*|tzdata|media-types|"
    r"netbase|openssl.*|libc-gconv-.*|readline-common|libreadline.*|libdb5.*|libsqlite.*|"
    r"libncurses.*"
)
# Programs that cvise starts, by where Debian has them
STARTED = ("usr/lib/cvise/*", "usr/bin/unifdef", "usr/lib/llvm-*/bin/clang-format")
SCRIPT = "cvise-script"
HINT = "apt install cvise"


def find_cvise(*, fetch: bool = True, progress: Progress | None = None) -> tuple[str, ...]:
    """Return the argv prefix of cvise: on PATH, fetched earlier, or fetched now.

    Raises HarnessError where there is none.
    """
    path = shutil.which(CVISE)
    if path is not None:
        return (path,)
    found = fetched(recipe())
    if found is None and fetch:
        found = shown(recipe(), progress)
    if found is None:
        raise HarnessError(f"no {CVISE} yet: it is fetched when `triage` needs it, or {HINT}")
    return found


def recipe() -> Recipe[tuple[str, ...]]:
    """Return how to fetch cvise."""

    def of(root: Root) -> tuple[str, ...] | None:
        return (str(root.launcher(CVISE)),) if check(root) is None else None

    return Recipe(
        kind=CVISE,
        suites=SUITES,
        names=lambda _: [[CVISE]],
        of=of,
        check=check,
        failure=f"cannot fetch {CVISE} ({{why}}): {HINT}",
        programs=programs,
        without=(NEEDLESS, ""),
    )


def programs(root: Root) -> Iterator[Program]:
    """Yield the cvise in *root*, the Python that runs it, and what it starts.

    Its script looks for everything below /usr: a copy looks in the root.
    """
    for pattern in STARTED:
        for binary in sorted(root.files.glob(pattern)):
            yield Program(binary.name, binary)
    script = root.files / "usr/bin" / CVISE
    for python in sorted(root.files.glob("usr/bin/python3.[0-9]*")):
        if not script.is_file() or not re.fullmatch(r"python3\.\d+", python.name):
            continue
        script.with_name(SCRIPT).write_text(moved(script.read_text()))
        # whatever the caller's Python is told is not for this one
        alone = (("PYTHONHOME", "{files}/usr"), ("PYTHONPATH", ""), ("PYTHONNOUSERSITE", "1"))
        yield Program("python3", python, environment=alone)
        yield Program(
            CVISE,
            python,
            (f"{{files}}/usr/bin/{SCRIPT}",),
            (*alone, ("DESTDIR", "{files}"), ("PATH", "{bin}:$PATH")),
            argv0="{bin}/python3",
        )


def moved(script: str) -> str:
    """Return cvise's *script* with what it has from /usr taken from the root (``$DESTDIR``).

    >>> print(moved("['/usr/share', '/usr/bin/clang-format-19']"))
    [destdir + '/usr/share', destdir + '/../bin/clang-format']
    >>> print(moved("os.path.join('/usr/lib', 'cvise')"))
    destdir + '/../bin'
    """
    script = script.replace("os.path.join('/usr/lib', 'cvise')", "destdir + '/../bin'")
    script = re.sub(r"'/usr/bin/clang-format-\d+'", "destdir + '/../bin/clang-format'", script)
    return script.replace("destdir + '/usr/", "'/usr/").replace("'/usr/", "destdir + '/usr/")


def check(root: Root) -> str | None:
    """Return what is wrong with the cvise of *root*: it must start, and what it starts as well."""
    for name in (CVISE, "clang_delta", "clex", "topformflat"):
        if root.launcher(name) is None:
            return f"{name} is missing"
    for command in ([CVISE, "--version"], ["clang_delta", "--transformations"]):
        done = ask([str(root.launcher(command[0])), *command[1:]])
        if done.code != 0 or not done.stdout.strip():
            words = done.stderr.strip().splitlines()
            return f"{command[0]}: {words[-1] if words else done.code}"
    return None


def version(command: tuple[str, ...]) -> str:
    """Return the version that cvise *command* tells."""
    told = re.search(r"\d+(\.\d+)+", ask([*command, "--version"]).stdout.decode(errors="replace"))
    return told[0] if told else "unknown"
