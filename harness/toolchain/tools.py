"""LLVM's small tools (llvm-objdump, llvm-mc, ...), and what the machine has."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.model import HarnessError
from harness.toolchain import browser, cvise
from harness.toolchain.apt import AptRoot
from harness.toolchain.clang import FIRST, SUITES, ask, on_path
from harness.toolchain.fetch import Recipe, fetched, shown
from harness.toolchain.progress import Progress
from harness.toolchain.roots import Program, Root, roots

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
        found = shown(recipe(name), progress)
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
    return fetched(recipe(name))


def recipe(name: str) -> Recipe[tuple[str, ...]]:
    """Return how to fetch LLVM's tools, on top of the clang that was fetched if they fit."""

    def of(root: Root) -> tuple[str, ...] | None:
        launcher = root.launcher(name)
        return (str(launcher),) if launcher is not None and major(str(launcher)) else None

    return Recipe(
        kind="llvm",
        suites=SUITES,
        names=newest_tools,
        of=of,
        check=check_tools,
        failure=f"cannot fetch {name} ({{why}}): install LLVM's tools, {FIRST} or newer, "
        "from elsewhere",
        programs=tool_programs,
        without=(NEEDLESS, ""),
        lacking=f"LLVM {FIRST} or newer",
        missing=name,
        base=fitting_clang,
    )


def newest_tools(apt: AptRoot) -> Iterator[list[str]]:
    """Yield the released packages llvm-NN that are new enough, the newest first."""
    numbered = {int(package.name[5:]): package for package in apt.candidates(r"^llvm-[0-9]+$")}
    for number in sorted(numbered, reverse=True):
        if number >= FIRST and numbered[number].stable:
            yield [f"{numbered[number].name}={numbered[number].version}"]


def fitting_clang(names: Sequence[str]) -> Root | None:
    """Return the clang that was fetched, if it is of the same version as the llvm-NN of *names*."""
    name, _, version = names[0].partition("=")
    base = next((root for root in roots("clang") if root.intact()), None)
    fits = base is not None and base.version(name.replace("llvm", "clang")) == version
    return base if fits else None


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
    tools["cvise"] = fetchable(cvise.find_cvise, cvise.version)
    tools["chromium"] = fetchable(browser.find_chromium, browser.version)
    return tools


def fetchable(
    find: Callable[..., tuple[str, ...]], version: Callable[[tuple[str, ...]], str]
) -> Tool:
    """Return what there is of a tool that is fetched when it is needed."""
    try:
        return Tool(version(find(fetch=False)))
    except HarnessError as error:
        return Tool(None, str(error))


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
