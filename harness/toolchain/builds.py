"""Finished builds, addressed by what went into them.

Two steps, as ccache's direct mode: compiler, arguments and source name a list of
the files the compiler read (its own ``-MD``), and those files' contents name the
output. What names what, so that a stale build is never returned:

- the compiler: path, size and time of the program and of every library it loads.
  A wrapper script can hide anything, so what it compiles is not kept;
- the source text, and the text of every header, also the compiler's own;
- the names in every folder where headers are looked for, since a new file there can
  hide an old one;
- only a build that went well is kept: of one that did not, -MD may not list all.

A compiler's own configuration file (``clang.cfg``) is not looked at.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.model import HarnessError
from harness.toolchain.cache import cache_folder
from harness.toolchain.compiler import Compiler

FORMAT = b"crosscheck build 1\n"
CAPACITY = 512 << 20  # bytes; the least recently used builds go first
CLOCK = re.compile(rb"__(DATE|TIME|TIMESTAMP)__")
FOLDER_OPTIONS = ("-I", "-iquote", "-isystem", "-idirafter")
# Options that read or write more than -MD tells.
OPAQUE = re.compile(
    r"-(fplugin|fpass-plugin|load|include-pch|fprofile|fmodule|save-temps|ivfs|M)|--config|@"
)
# Variables that change what clang does or where it looks for headers.
VARIABLES = ("CPATH", "C_INCLUDE_PATH", "CCC_OVERRIDE_OPTIONS", "SOURCE_DATE_EPOCH")


@dataclass(frozen=True, slots=True)
class Kept:
    """A build that was kept."""

    output: bytes
    diagnostics: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Key:
    """What went into a build, as far as it is known before it runs."""

    digest: str
    cwd: Path
    source: str | Path

    @classmethod
    def of(
        cls, compiler: Compiler, args: Sequence[str], source: str | Path, cwd: Path | None
    ) -> Key | None:
        """Return the key of a build, None for one that must not be kept."""
        who = identity(compiler.command)
        if who is None or any(OPAQUE.match(arg) for arg in args):
            return None
        where = (cwd or Path.cwd()).absolute()
        try:
            text = (
                source.encode(errors="surrogateescape")
                if isinstance(source, str)
                else (where / source).read_bytes()
            )
            looked = folders(args, source, where)
        except OSError:
            return None
        if CLOCK.search(text):
            return None
        digest = hashlib.sha256(FORMAT)
        name = str(source) if isinstance(source, Path) else "-"
        around = [os.environ.get(variable, "") for variable in VARIABLES]
        for part in (who, *compiler.command, "", *args, "", *around, str(where), name, *looked):
            digest.update(part.encode(errors="surrogateescape") + b"\0")
        digest.update(text)
        return cls(digest.hexdigest(), where, source)

    def find(self) -> Kept | None:
        """Return the build that was kept for this key, None where there is none."""
        try:
            needs = place(self.digest, "needs")
            path = place(self._result(json.loads(needs.read_bytes())), "build")
            data = path.read_bytes()
            os.utime(needs)
            os.utime(path)
        except (OSError, ValueError, TypeError, HarnessError):
            return None
        head, _, output = data.partition(b"\n")
        try:
            fields = json.loads(head)
            if fields["sha256"] != hashlib.sha256(output).hexdigest():
                return None
            return Kept(output, fields["diagnostics"], fields["seconds"])
        except (ValueError, KeyError, TypeError):
            return None

    def keep(self, build: Kept, needed: Path) -> None:
        """Keep *build*; *needed* is the file that ``-MF`` wrote. A full disk is no fault."""
        try:
            names = prerequisites(needed.read_text(errors="surrogateescape"))
            names = [name for name in names if name not in ("-", "<stdin>")]
            result = self._result(names)
            head = {
                "sha256": hashlib.sha256(build.output).hexdigest(),
                "diagnostics": build.diagnostics,
                "seconds": build.seconds,
            }
            store(place(result, "build"), json.dumps(head).encode() + b"\n" + build.output)
            store(place(self.digest, "needs"), json.dumps(names).encode())
            trim()
        except (OSError, HarnessError):
            return

    def _result(self, names: Sequence[str]) -> str:
        """Return the digest of this key and of the files *names*; OSError where one is missing."""
        digest = hashlib.sha256(self.digest.encode())
        for name in names:
            text = (self.cwd / name).read_bytes()
            if CLOCK.search(text):
                raise OSError(f"{name} tells the time")
            digest.update(f"{name}\0{len(text)}\0".encode(errors="surrogateescape") + text)
        return digest.hexdigest()


def prerequisites(rule: str) -> list[str]:
    r"""Return the prerequisites of the make *rule* that -MD wrote, unescaped.

    >>> prerequisites("output: a.c \\\n  b\\ c.h d$$.h\n")
    ['a.c', 'b c.h', 'd$.h']
    """
    _, _, rest = rule.replace("\\\n", " ").partition(":")
    words = re.findall(r"(?:\\.|[^\s\\])+", rest)
    return [re.sub(r"\\([ #\\])", r"\1", word).replace("$$", "$") for word in words]


def folders(args: Sequence[str], source: str | Path, cwd: Path) -> list[str]:
    """Return the names in every folder where *args* and *source* look for headers."""
    places = [cwd / source.parent] if isinstance(source, Path) else [cwd]
    for index, arg in enumerate(args):
        for option in FOLDER_OPTIONS:
            if arg == option and index + 1 < len(args):
                places.append(cwd / args[index + 1])
            elif arg.startswith(option) and arg != option:
                places.append(cwd / arg.removeprefix(option))
    names = []
    for place in places:
        if place.is_dir():
            headers = sorted(entry for entry in os.listdir(place) if not entry.endswith(".c"))
            names += [str(place), *headers]
    return names


@functools.lru_cache(maxsize=64)
def identity(command: tuple[str, ...]) -> str | None:
    """Return what tells the compiler *command* from any other, None where nothing does."""
    found = shutil.which(command[0])
    if found is None or len(command) != 1:
        return None
    path = Path(found).resolve()
    manifest = path.parent.parent / "manifest.json"
    if manifest.is_file():  # a fetched root: never changed once it is there
        files = [path, manifest]
    else:
        with path.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                return None
        loaded = subprocess.run(
            ["ldd", str(path)], capture_output=True, text=True, check=False, timeout=60
        )
        files = [path, *map(Path, re.findall(r"(/\S+) \(0x", loaded.stdout))]
    try:
        facts = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    except OSError:
        return None
    return repr(facts)


# --- the folder -------------------------------------------------------------


def place(digest: str, ending: str) -> Path:
    """Return the file that holds what *digest* names."""
    return cache_folder() / "builds" / digest[:2] / f"{digest[2:]}.{ending}"


def store(path: Path, data: bytes) -> None:
    """Write *data* to *path*, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


_trimmed = False


def trim(capacity: int = CAPACITY, *, force: bool = False) -> None:
    """Remove the least recently used builds beyond *capacity* bytes; once a process."""
    global _trimmed
    if _trimmed and not force:
        return
    _trimmed = True
    entries = []
    for folder, _, names in os.walk(cache_folder() / "builds"):
        for name in names:
            with contextlib.suppress(OSError):
                path = os.path.join(folder, name)
                stat = os.stat(path)
                entries.append((stat.st_mtime_ns, stat.st_size, path))
    total = sum(size for _, size, _ in entries)
    if total <= capacity:
        return
    for _, size, path in sorted(entries):
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size
        if total <= capacity * 3 // 4:
            break
