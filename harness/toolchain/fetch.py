"""Recipes: which packages a tool is fetched with, and how it is found again.

All tools are fetched in the same way: once, by one process at a time, from the first of some
suites of Debian whose packages turn out to work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from harness.model import HarnessError
from harness.toolchain.apt import AptRoot, open_apt
from harness.toolchain.cache import fetching, remove
from harness.toolchain.progress import Display, Progress
from harness.toolchain.roots import Program, Root, fetch_root, roots

T = TypeVar("T")
Suites = Sequence[tuple[tuple[str, ...], str | None]]
"""Suites of Debian to look in together, and the one of them whose versions are preferred."""


@dataclass(frozen=True, slots=True)
class Recipe(Generic[T]):
    """How to fetch one kind of root, and what is found in it."""

    kind: str  # of the roots
    suites: Suites
    names: Callable[[AptRoot], Iterable[Sequence[str]]]  # packages to try, the best first
    of: Callable[[Root], T | None]  # what a root has, None where it does not work
    check: Callable[[Root], str | None]  # what is wrong with a new root
    failure: str  # "{why}" in it is the reason of the first suite
    programs: Callable[[Root], Iterable[Program]] = lambda _: ()
    without: Sequence[str] = ("",)  # regexes of packages to do without, as fetch_root has them
    lacking: str = ""  # what a suite has not where *names* gives nothing for it
    missing: str = ""  # what packages have not where *of* gives nothing
    base: Callable[[Sequence[str]], Root | None] = lambda _: None  # root below that of packages


def fetched(recipe: Recipe[T]) -> T | None:
    """Return what was fetched earlier, None where there is none that works."""
    for root in roots(recipe.kind):
        if root.intact():
            found = recipe.of(root)
            if found is not None:
                return found
    return None


def fetch(recipe: Recipe[T], progress: Progress) -> T:
    """Fetch what *recipe* says; raise HarnessError where that cannot be done."""
    why = None
    with fetching(progress) as cache:
        # Another process may have fetched it while we waited.
        found = fetched(recipe)
        if found is not None:
            return found
        for root in roots(recipe.kind):
            if not root.intact() or recipe.check(root) is not None:
                remove(root.path)
        for suites, target in recipe.suites:
            try:
                found = _from(recipe, open_apt(cache, suites, progress, target=target), progress)
            except HarnessError as error:
                why = why or str(error)
                continue
            if found is not None:
                return found
            why = why or f"{' and '.join(suites)} has no {recipe.lacking or recipe.kind}"
    raise HarnessError(recipe.failure.replace("{why}", str(why)))


def _from(recipe: Recipe[T], apt: AptRoot, progress: Progress) -> T | None:
    for names in recipe.names(apt):
        root = fetch_root(
            apt,
            names,
            kind=recipe.kind,
            progress=progress,
            programs=recipe.programs,
            check=recipe.check,
            without=recipe.without,
            base=recipe.base(names),
        )
        found = recipe.of(root)
        if found is not None:
            return found
        if recipe.missing:
            raise HarnessError(f"{names[0].partition('=')[0]} has no {recipe.missing}")
    return None


def shown(recipe: Recipe[T], progress: Progress | None) -> T:
    """Fetch as ``fetch`` does, shown on standard error where *progress* is None."""
    if progress is not None:
        return fetch(recipe, progress)
    with Display() as display:
        return fetch(recipe, display)
