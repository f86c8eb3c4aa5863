"""LLVM's small tools (llvm-objdump, llvm-mc, ...), and what the machine has."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
from dataclasses import dataclass

from harness.model import HarnessError
from harness.toolchain.apt import open_apt
from harness.toolchain.cache import fetching, remove
from harness.toolchain.clang import FIRST, SUITES, ask, on_path
from harness.toolchain.progress import Display, Progress
from harness.toolchain.roots import Program, Root, fetch_root, roots

# What llvm-NN declares to need and its tools do not, or only to reach the network.
NEEDLESS = r".*-dev|binutils|llvm-.*-(linker-tools|runtime)|libc-gconv-.*"
CHECKED = ("llvm-objdump", "llvm-mc", "llvm-readelf")


def find_tool(
    name: str, *, fetch: bool = True, progress: Progress | None = None
) -> tuple[str, ...]:
    """Return the argv prefix of LLVM's tool *name* (``llvm-objdump``, ...), clang's age or newer.

    Looked for as clang is: on PATH, fetched earlier, fetched now. Raises HarnessError
    where there is none.
    """
    for path in on_path(name):
        if (major(path) or 0) >= FIRST:
            return (path,)
    found = fetched_tool(name)
    if found is None and fetch:
        if progress is not None:
            found = fetch_tool(name, progress)
        else:
            with Display() as display:
                found = fetch_tool(name, display)
    if found is None:
        raise HarnessError(
            f"found no {name} {FIRST} or newer: install LLVM's tools "
            f"(Debian: apt install llvm-{FIRST}; Fedora: dnf install llvm; Arch: pacman -S llvm)"
        )
    return found


def major(path: str) -> int | None:
    """Return the LLVM version of the tool at *path*, None where it tells none."""
    told = re.search(
        r"LLVM version (\d+)", ask([path, "--version"]).stdout.decode(errors="replace")
    )
    return int(told[1]) if told else None


def fetched_tool(name: str) -> tuple[str, ...] | None:
    """Return a tool that was fetched earlier, None where there is none that works."""
    for root in roots("llvm"):
        launcher = root.launcher(name)
        if launcher is not None and root.intact() and major(str(launcher)) is not None:
            return (str(launcher),)
    return None


def fetch_tool(name: str, progress: Progress) -> tuple[str, ...]:
    """Fetch LLVM's tools, on top of the clang that was fetched if they fit together."""
    why = None
    with fetching(progress) as cache:
        found = fetched_tool(name)
        if found is not None:
            return found
        for broken in roots("llvm"):
            if not broken.intact():
                remove(broken.path)
        base = next((root for root in roots("clang") if root.intact()), None)
        for suites in SUITES:
            try:
                apt = open_apt(cache, suites, progress)
                candidates = apt.candidates(r"^llvm-[0-9]+$")
                numbered = {int(package.name[5:]): package for package in candidates}
                for number in sorted(numbered, reverse=True):
                    package = numbered[number]
                    if number < FIRST or not package.stable:
                        continue
                    fits = base is not None and base.version(f"clang-{number}") == package.version
                    root = fetch_root(
                        apt,
                        [f"{package.name}={package.version}"],
                        kind="llvm",
                        progress=progress,
                        programs=tool_programs,
                        check=check_tools,
                        without=(NEEDLESS, ""),
                        base=base if fits else None,
                    )
                    launcher = root.launcher(name)
                    if launcher is None:
                        raise HarnessError(f"{package.name} has no {name}")
                    return (str(launcher),)
                why = why or f"{' and '.join(suites)} has no LLVM {FIRST} or newer"
            except HarnessError as error:
                why = why or str(error)
    raise HarnessError(
        f"cannot fetch {name} ({why}): install LLVM's tools, {FIRST} or newer, from elsewhere"
    )


def tool_programs(root: Root) -> list[Program]:
    """Return every program of llvm-NN in *root*."""
    return [
        Program(binary.name, binary) for binary in sorted(root.files.glob("usr/lib/llvm-*/bin/*"))
    ]


def check_tools(root: Root) -> str | None:
    """Return what is wrong with the tools of *root*."""
    for name in CHECKED:
        launcher = root.launcher(name)
        if launcher is None:
            return f"{name} is missing"
        done = ask([str(launcher), "--version"])
        if done.code != 0:
            return f"{name}: {done.stderr.strip() or done.code}"
    return None


# --- for doctor -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tool:
    """What the machine has of one tool."""

    version: str | None  # None: missing
    hint: str = ""  # how to get it, where it is missing


@dataclass(frozen=True, slots=True)
class Wanted:
    """A program the harness can use, and how to get it."""

    name: str
    hint: str


# fmt: off
PROGRAMS = (
    # name                       how to get it
    Wanted("gcc",                "apt install gcc (the benchmarks compare with it)"),
    Wanted("qemu-system-x86_64", "apt install qemu-system-x86 (for the leg `kernel`)"),
    Wanted("cvise",              "apt install cvise (`triage` reduces C further with it)"),
    Wanted("apt-get",            "Debian and its kin have it; elsewhere install clang yourself"),
)
DISTRIBUTIONS = ("llvmlite", "capstone", "unicorn", "pyelftools")
# fmt: on


def tools_report() -> dict[str, Tool]:
    """Return what this machine has, by name, for ``doctor``; nothing is fetched."""
    tools = {"python": Tool(platform.python_version())}
    for name in DISTRIBUTIONS:
        tools[name] = distribution(name)
    tools["LLVM of llvmlite"] = llvmlite_llvm()
    for wanted in PROGRAMS:
        version = program_version(wanted.name)
        tools[wanted.name] = Tool(version, "" if version else wanted.hint)
    tools["llvm-objdump"] = objdump()
    return tools


def distribution(name: str) -> Tool:
    """Return the installed version of a Python package."""
    try:
        return Tool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Tool(None, f"python3 -m pip install {name}")


def llvmlite_llvm() -> Tool:
    """Return the version of the LLVM inside llvmlite."""
    try:
        import llvmlite.binding
    except (ImportError, OSError):
        return Tool(None, "python3 -m pip install llvmlite")
    return Tool(".".join(map(str, llvmlite.binding.llvm_version_info)))


def program_version(name: str) -> str | None:
    """Return the version program *name* on PATH tells, None where there is no such program."""
    path = shutil.which(name)
    if path is None:
        return None
    told = ask([path, "--version"])
    numbers = re.findall(r"\d+(?:\.\d+)+\S*", told.stdout.decode(errors="replace"))
    return numbers[0].rstrip(",)") if numbers else "unknown"


def objdump() -> Tool:
    """Return the LLVM version of the llvm-objdump that tests would use."""
    try:
        (path,) = find_tool("llvm-objdump", fetch=False)
    except HarnessError as error:
        return Tool(None, f"fetched when a test needs it; {error}")
    told = ask([path, "--version"]).stdout.decode(errors="replace")
    found = re.search(r"LLVM version (\S+)", told)
    return Tool(found[1] if found else "unknown")
