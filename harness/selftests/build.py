"""Compile the kernel's selftests as their Makefile does, with headers made and fetched here.

``bpf_helper_defs.h`` comes from the tree's ``scripts/bpf_doc.py``, ``vmlinux.h`` from the
BTF of the kernel that verdicts are about by bpftool, the rest from the tree and from the
packages that bpftool is fetched with.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.model import HarnessError
from harness.toolchain import Compiler, CompileResult, run_compiler
from harness.toolchain.bpftool import Bpftool
from harness.toolchain.cache import cache_folder, replacing

PROGRAMS = "tools/testing/selftests/bpf/progs"
PATTERNS = ("verifier_*.c", "stack_arg*.c")
MCPU = "v3"  # as for test_progs
TIMEOUT = 300.0  # seconds for making a header
# What must be there, and in which part of the source
NEEDED = (
    f"{PROGRAMS}/bpf_misc.h",
    "tools/lib/bpf/bpf_helpers.h",
    "tools/include/uapi/linux/bpf.h",
    "scripts/bpf_doc.py",
)
UNPACK = (
    "name an unpacked source of Linux 7.3 "
    "(Debian: apt install linux-source-7.3, then tar -xf /usr/src/linux-source-7.3.tar.xz)"
)


@dataclass(frozen=True, slots=True)
class Tree:
    """An unpacked kernel source."""

    root: Path

    @property
    def programs(self) -> Path:
        """The folder of the programs."""
        return self.root / PROGRAMS

    def sources(self, wanted: Sequence[str] = ()) -> list[Path]:
        """Return the files with programs; with *wanted* those whose names hold one of them."""
        found = {path for pattern in PATTERNS for path in self.programs.glob(pattern)}
        return sorted(
            path for path in found if not wanted or any(part in path.name for part in wanted)
        )


def find_tree(named: str) -> Tree:
    """Return the source *named*: its root, or the folder of the BPF selftests in it.

    Raises HarnessError where it is none, or lacks what compiling takes.
    """
    folder = Path(named).expanduser().absolute()
    if not folder.is_dir():
        raise HarnessError(f"{named} is no folder: {UNPACK}")
    for root in (folder, *folder.parents):
        if (root / PROGRAMS).is_dir():
            break
    else:
        raise HarnessError(f"{named} has no {PROGRAMS}: {UNPACK}")
    for name in NEEDED:
        if not (root / name).is_file():
            raise HarnessError(f"{root} has no {name}: {UNPACK}, all of it")
    return Tree(root)


def make_headers(tree: Tree, btf: bytes, bpftool: Bpftool) -> Path:
    """Return the folder of the headers that are made; *btf* is the kernel's.

    They are kept, by what they are made of. Raises HarnessError where that fails.
    """
    script = tree.root / "scripts" / "bpf_doc.py"
    api = tree.root / "tools" / "include" / "uapi" / "linux" / "bpf.h"
    digest = hashlib.sha256(btf)
    for part in (script.read_bytes(), api.read_bytes(), bpftool.command[0].encode()):
        digest.update(hashlib.sha256(part).digest())
    folder = cache_folder() / "selftests" / f"headers-{digest.hexdigest()[:20]}"
    if folder.is_dir():
        return folder
    with replacing(folder) as new:
        (new / "vmlinux.btf").write_bytes(btf)
        helpers = [sys.executable, str(script), "--header", "--file", str(api)]
        types = [*bpftool.command, "btf", "dump", "file", str(new / "vmlinux.btf"), "format", "c"]
        for name, command in (("bpf_helper_defs.h", helpers), ("vmlinux.h", types)):
            _write(command, new / name)
    return folder


def _write(command: Sequence[str], to: Path) -> None:
    """Write what *command* prints to the file *to*; raise HarnessError where it fails."""
    try:
        with to.open("wb") as file:
            done = subprocess.run(
                command, stdout=file, stderr=subprocess.PIPE, timeout=TIMEOUT, check=False
            )
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        why = said[-1] if done.returncode or not to.stat().st_size else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    if why:
        raise HarnessError(f"cannot make {to.name}: {Path(command[0]).name}: {why}")


def include_options(tree: Tree, headers: Path, system: Sequence[Path]) -> list[str]:
    """Return the options that all programs of *tree* are compiled with.

    *headers* were made for it, *system* is where those of the C library are.
    """
    tools = tree.root / "tools"
    selftests = tree.programs.parent
    includes = [headers, selftests, tools / "include/uapi", tools / "include"]
    includes += [selftests / "libarena/include", tools / "lib"]
    return [
        *("--target=bpfel", f"-mcpu={MCPU}", "-g", "-O2", "-std=gnu11", "-c"),
        *("-fno-strict-aliasing", "-fms-extensions", "-Wno-everything"),
        *("-D__TARGET_ARCH_x86", "-DENABLE_ATOMICS_TESTS", "-fno-crash-diagnostics"),
        *(f"-I{folder}" for folder in includes),
        *(part for folder in system for part in ("-idirafter", str(folder))),
    ]


def compile_program(
    tree: Tree, source: Path, compiler: Compiler, headers: Path, system: Sequence[Path]
) -> CompileResult:
    """Compile *source* of *tree* with the *headers* made for it and the *system*'s."""
    return run_compiler(compiler, include_options(tree, headers, system), source=source)
