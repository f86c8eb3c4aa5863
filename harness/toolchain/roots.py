"""Roots: packages unpacked in the cache, and how their programs are started.

A root's programs need the root's own C library, which may be newer than the
machine's. So each gets a launcher, a small script that starts it through the
root's own dynamic linker (ld.so(8)).

    <root>/manifest.json    what it holds; written last
    <root>/files/           the unpacked packages
    <root>/bin/             launchers
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.model import HarnessError
from harness.toolchain.apt import AptRoot, Package
from harness.toolchain.cache import cache_folder, replacing
from harness.toolchain.progress import Progress

MANIFEST = "manifest.json"
UNCHECKED = ("usr/share/doc/", "usr/share/man/", "usr/share/lintian/")


@dataclass(frozen=True, slots=True)
class Root:
    """An unpacked root."""

    path: Path
    kind: str  # what it was fetched for: "clang", "llvm", ...
    packages: tuple[Package, ...]
    base: Path | None = None  # another root, whose libraries its programs need too
    sizes: tuple[tuple[str, int], ...] = ()  # path under files/, bytes

    @property
    def files(self) -> Path:
        """The folder the packages are unpacked in: a file system's ``/``."""
        return self.path / "files"

    def version(self, name: str) -> str | None:
        """Return the version of package *name* in this root."""
        return next((p.version for p in self.packages if p.name == name), None)

    def launcher(self, name: str) -> Path | None:
        """Return the launcher of program *name*, None where it has none."""
        path = self.path / "bin" / name
        return path if path.is_file() else None

    def intact(self) -> bool:
        """Return whether every file is there with the size it was unpacked with."""
        try:
            return all(
                os.stat(self.files / name, follow_symlinks=False).st_size == size
                for name, size in self.sizes
            ) and (self.base is None or (self.base / MANIFEST).is_file())
        except OSError:
            return False


def roots(kind: str) -> list[Root]:
    """Return the cache's roots of *kind*, the newest first."""
    found = []
    for manifest in (cache_folder() / "roots").glob(f"*/{MANIFEST}"):
        root = read(manifest.parent)
        if root is not None and root.kind == kind:
            found.append((manifest.stat().st_mtime_ns, root))
    return [root for _, root in sorted(found, key=lambda pair: pair[0], reverse=True)]


def read(path: Path) -> Root | None:
    """Return the root at *path*, None where its manifest cannot be read."""
    try:
        data = json.loads((path / MANIFEST).read_bytes())
        return Root(
            path,
            data["kind"],
            tuple(Package(**package) for package in data["packages"]),
            Path(data["base"]) if data["base"] else None,
            tuple((name, size) for name, size in data["sizes"].items()),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(root: Root) -> None:
    """Write the manifest of *root*, which makes it complete."""
    data = {
        "kind": root.kind,
        "packages": [package.to_json() for package in root.packages],
        "base": str(root.base) if root.base else None,
        "sizes": dict(root.sizes),
    }
    (root.path / MANIFEST).write_text(json.dumps(data, indent=1) + "\n")


class UnfitError(Exception):
    """A root that does not do what it was fetched for."""


def fetch_root(
    apt: AptRoot,
    names: Sequence[str],
    *,
    kind: str,
    progress: Progress,
    programs: Callable[[Root], Iterable[Program]],
    check: Callable[[Root], str | None],
    without: Sequence[str] = ("",),
    base: Root | None = None,
) -> Root:
    """Fetch packages *names* and all they need as a new root of the cache.

    *without* are regexes of package names to do without, tried in order until
    *check* (which says what is wrong with a root, or None) is content: what a
    package declares to need is more than what we use of it. The caller holds the
    cache's lock. Raises HarnessError where no attempt is good.
    """
    have = base.packages if base else ()
    wrong = ""
    for pattern in without:
        plan = apt.plan(names, without=pattern, have=have)
        first = names[0].partition("=")[0]
        main = next((package for package in plan if package.name == first), None)
        if main is None:
            raise HarnessError(f"apt does not want to install {first}")
        apt.download(names, plan, progress)
        target = cache_folder() / "roots" / safe(f"{main.name}-{main.version}")
        try:
            with replacing(target) as new:
                files = new / "files"
                files.mkdir()
                apt.unpack(plan, files, progress)
                base_path = base.path if base else None
                root = Root(new, kind, tuple(plan), base_path, measure(files))
                write_launchers(root, programs(root))
                fault = check(root)
                if fault is not None:
                    raise UnfitError(fault)
                write(root)
        except UnfitError as error:
            wrong = str(error)
        else:
            done = read(target)
            assert done is not None
            apt.tidy()
            return done
    raise HarnessError(f"{names[0]}: fetched, but it does not work: {wrong}")


def safe(name: str) -> str:
    """Return *name* as a file name that library paths can hold."""
    return re.sub(r"[^A-Za-z0-9.+~-]", "_", name)


def measure(files: Path) -> tuple[tuple[str, int], ...]:
    """Return path and size of every file under *files* that programs may need."""
    sizes = []
    for folder, _, names in os.walk(files):
        for name in names:
            path = Path(folder) / name
            relative = path.relative_to(files).as_posix()
            if not relative.startswith(UNCHECKED):
                sizes.append((relative, path.lstat().st_size))
    return tuple(sorted(sizes))


# --- launchers --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Program:
    """A program of a root, and what it is always started with.

    In arguments, environment and argv[0] "{files}" stands for the root's files and "{bin}"
    for its launchers.
    """

    name: str  # of the launcher
    binary: Path
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    argv0: str = "$0"  # a program that looks for itself, or starts itself again, finds this
    beside: bool = False  # it looks for its files where /proc/self/exe is: the linker goes there


def linker(root: Root) -> tuple[str, list[str]]:
    """Return the dynamic linker and the library folders of *root*, as a launcher names them.

    Those of the root itself come first, then those of its base.
    """
    places = [("$here/../files", root.files)]
    if root.base is not None:
        places.append(("$base/files", root.base / "files"))
    linkers = []
    libraries = []
    for name, files in places:
        for pattern in ("usr/lib*/ld-linux*.so.*", "usr/lib*/*/ld-linux*.so.*", "lib*/ld-*.so.*"):
            linkers += [(name, path.relative_to(files)) for path in sorted(files.glob(pattern))]
        folders = {path.parent for path in files.glob("usr/lib/*/lib*.so.*")}
        folders |= {path.parent for path in files.glob("usr/lib/lib*.so.*")}
        folders |= {path.parent for path in files.glob("usr/lib/*/pulseaudio/lib*.so*")}
        libraries += [f"{name}/{folder.relative_to(files)}" for folder in sorted(folders)]
    if not linkers:
        raise HarnessError(f"{root.path} has no dynamic linker")
    return f"{linkers[0][0]}/{linkers[0][1]}", libraries


def write_launchers(root: Root, programs: Iterable[Program]) -> None:
    """Write the launchers of *programs* into the root's ``bin``."""
    folder = root.path / "bin"
    folder.mkdir(exist_ok=True)
    for program in programs:
        loader, libraries = linker(root)
        binary = program.binary.relative_to(root.files).as_posix()
        if program.beside:
            copied = program.binary.with_name(f"{program.binary.name}.linker")
            name = loader.replace("$here/../files", str(root.files)).replace(
                "$base", str(root.base)
            )
            shutil.copyfile(name, copied)
            copied.chmod(0o755)
            loader = f"$here/../files/{copied.relative_to(root.files).as_posix()}"
        start = (
            f'exec "{loader}" --library-path "{":".join(libraries)}" --argv0 '
            f'{_quoted(program.argv0)} "$here/../files/{binary}"'
        )
        lines = ["#!/bin/sh", 'here="${0%/*}"']
        if root.base is not None:
            lines.append(f"base={shlex.quote(str(root.base))}")
        lines += [f"export {name}={_quoted(value)}" for name, value in program.environment]
        if program.arguments:
            # clang starts itself again with -cc1 first, and means it.
            arguments = " ".join(map(_quoted, program.arguments))
            lines.append(f'case "$1" in -cc1*) {start} "$@" ;; esac')
            start = f"{start} {arguments}"
        lines.append(f'{start} "$@"')
        path = folder / program.name
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o755)


def _quoted(text: str) -> str:
    """Return *text* of a Program as a launcher has it."""
    return '"' + text.replace("{files}", "$here/../files").replace("{bin}", "$here") + '"'
