"""Fetch bpftool, and the system headers that the kernel's own BPF programs include.

All from one root, so that neither the machine's headers nor its older bpftool, which
declares no kernel functions, change what those programs compile to.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.model import HarnessError
from harness.toolchain.clang import ask
from harness.toolchain.fetch import Recipe, fetched, shown
from harness.toolchain.kernel import SUITES
from harness.toolchain.progress import Progress
from harness.toolchain.roots import Program, Root

BPFTOOL = "bpftool"
FIRST = (7, 6)  # the first bpftool whose C of a BTF declares kernel functions by their tags
PACKAGES = (BPFTOOL, "linux-libc-dev", "libc6-dev")
# What these declare to need and neither headers nor bpftool do
NEEDLESS = r"libc-dev-bin|libcrypt.*|rpcsvc-proto|libc-gconv-.*|openssl-provider-legacy"
HEADERS = ("usr/include", "usr/include/x86_64-linux-gnu")
HINT = (
    f"install bpftool {FIRST[0]}.{FIRST[1]} or newer with the C library's headers "
    "(Debian: apt install bpftool libc6-dev; Fedora: dnf install bpftool glibc-headers; "
    "Arch: pacman -S bpf)"
)


@dataclass(frozen=True, slots=True)
class Bpftool:
    """bpftool, and where headers of the C library and the kernel are."""

    command: tuple[str, ...]  # argv prefix
    headers: tuple[Path, ...]  # folders for -idirafter


def find_bpftool(*, fetch: bool = True, progress: Progress | None = None) -> Bpftool:
    """Return bpftool: fetched earlier, fetched now, or the machine's own.

    Raises HarnessError where there is none.
    """
    found = fetched_bpftool()
    why = "it is fetched when `parity --selftests` needs it"
    if found is None and fetch:
        try:
            found = shown(recipe(), progress)
        except HarnessError as error:
            why = str(error)
    found = found or machines_bpftool()
    if found is None:
        raise HarnessError(f"no {BPFTOOL} ({why}): {HINT}")
    return found


def machines_bpftool() -> Bpftool | None:
    """Return the machine's own bpftool and headers, None where they are missing or too old."""
    path = shutil.which(BPFTOOL) or shutil.which(BPFTOOL, path="/usr/sbin:/sbin")
    if path is None or (version((path,)) or (0,)) < FIRST:
        return None
    folders = tuple(Path("/", name) for name in HEADERS if Path("/", name).is_dir())
    return Bpftool((path,), folders) if folders else None


def version(command: Sequence[str]) -> tuple[int, ...] | None:
    """Return the version that bpftool *command* tells, None where it tells none."""
    done = ask([*command, "version"])
    told = re.search(rf"{BPFTOOL} v([0-9.]+)", done.stdout.decode(errors="replace"))
    if done.code != 0 or told is None:
        return None
    return tuple(int(part) for part in told[1].strip(".").split("."))


def fetched_bpftool() -> Bpftool | None:
    """Return the bpftool that was fetched earlier, None where there is none that works."""
    return fetched(recipe())


def of(root: Root) -> Bpftool | None:
    """Return what *root* holds, None where it does not work."""
    if check(root) is not None:
        return None
    headers = tuple(root.files / name for name in HEADERS if (root.files / name).is_dir())
    return Bpftool((str(root.launcher(BPFTOOL)),), headers)


def recipe() -> Recipe[Bpftool]:
    """Return how to fetch bpftool and headers."""
    return Recipe(
        kind=BPFTOOL,
        suites=SUITES,
        names=lambda _: [PACKAGES],
        of=of,
        check=check,
        failure="cannot fetch it: {why}",
        programs=programs,
        without=(NEEDLESS, ""),
    )


def programs(root: Root) -> list[Program]:
    """Return the bpftool in *root*."""
    return [Program(BPFTOOL, path) for path in root.files.glob(f"usr/sbin/{BPFTOOL}")]


def check(root: Root) -> str | None:
    """Return what is wrong with *root*."""
    launcher = root.launcher(BPFTOOL)
    if launcher is None:
        return f"{BPFTOOL} is missing"
    told = version((str(launcher),))
    if told is None:
        return f"{BPFTOOL} does not start"
    if told < FIRST:
        return f"{BPFTOOL} {'.'.join(map(str, told))} is older than {FIRST[0]}.{FIRST[1]}"
    missing = [name for name in HEADERS if not (root.files / name).is_dir()]
    return f"{missing[0]} is missing" if missing else None
