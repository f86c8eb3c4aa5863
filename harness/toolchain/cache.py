"""The per-user cache folder: fetched roots, apt's private state, finished builds.

    <cache>/fetch.lock        held while anything is fetched or removed
    <cache>/roots/<name>/     unpacked packages; appears by rename, complete or not at all
    <cache>/roots/.new-*      being unpacked; leftovers of killed fetches
    <cache>/apt/<suites>/     apt's lists and archives; a killed download resumes here
    <cache>/builds/           what compilers answered

``$CROSSCHECK_CACHE`` names another folder than the platform's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from harness.model import HarnessError
from harness.toolchain.progress import Progress

TEMPORARY = ".new-"  # prefix of folders that are not complete yet


def cache_folder() -> Path:
    """Return the cache folder's absolute path, made if need be.

    Raises HarnessError where it cannot be made or cannot be used in a library path.
    """
    named = os.environ.get("CROSSCHECK_CACHE")
    folder = (Path(named).expanduser() if named else user_cache_path("crosscheck")).absolute()
    if any(character in str(folder) for character in ":;\n"):
        raise HarnessError(
            f"the cache folder {str(folder)!r} has a colon, semicolon or line break in its name, "
            "which library paths cannot hold: name another with $CROSSCHECK_CACHE"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise HarnessError(
            f"cannot use the cache folder {folder} ({error.strerror}): "
            "name another with $CROSSCHECK_CACHE"
        ) from None
    return folder


@contextmanager
def fetching(progress: Progress) -> Iterator[Path]:
    """Hold the cache's lock, one process at a time; yield the cache folder."""
    # Here, because it has every id() of its process go through a hook of its own, and workers,
    # which fetch nothing, take a great many of them.
    from filelock import FileLock, Timeout

    folder = cache_folder()
    lock = FileLock(folder / "fetch.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress("waiting for another process that is fetching", None)
        lock.acquire()
    try:
        for stale in (folder / "roots").glob(f"{TEMPORARY}*"):
            shutil.rmtree(stale, ignore_errors=True)
        yield folder
    finally:
        lock.release()


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of *target* when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=target.parent))
    try:
        new.chmod(0o755)
        yield new
        remove(target)
        new.rename(target)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def remove(folder: Path) -> None:
    """Remove *folder*; it is renamed first, so that nobody sees half of it."""
    doomed = folder.with_name(f"{TEMPORARY}{os.getpid()}-{folder.name}")
    try:
        folder.rename(doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed, ignore_errors=True)
