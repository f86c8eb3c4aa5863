"""Find or fetch a headless Chromium, in which the tests look at the pages of reports."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.model import HarnessError
from harness.toolchain.clang import ask
from harness.toolchain.fetch import Recipe, Suites, fetched, shown
from harness.toolchain.progress import Progress
from harness.toolchain.roots import Program, Root
from harness.toolchain.run import Finished

NAMES = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
SHELL = "chromium-headless-shell"
SUITES: Suites = ((("trixie",), None), (("sid",), None))
# What it declares to need for screens, their drivers and desktops: a page is printed as text.
NEEDLESS = (
    r"libllvm.*|mesa-.*|libgl1.*|libglx.*|libglvnd.*|libz3.*|x11-.*|xdg-.*|xkb-data|libx11-data|"
    r"libdrm-.*|libpciaccess.*|libxaw.*|libxt6.*|libxmu.*|libxft.*|libxpm.*|libice.*|libsm6|"
    r"libvulkan.*|libsensors.*|libelf.*|libedit.*|libbsd.*|libmd0|libxml2.*|libxshmfence.*|pci.ids|"
    r"debconf|libdebconf.*|dpkg|tar|openssl.*|libc-gconv-.*"
)
HINT = "apt install chromium (about 110 MB are fetched for the tests' page instead)"
# Without a sandbox, which needs root or what many machines do not allow: the pages are ours.
HEADLESS = ("--headless", "--no-sandbox", "--disable-gpu")


def find_chromium(*, fetch: bool = True, progress: Progress | None = None) -> tuple[str, ...]:
    """Return the argv prefix of a Chromium without a screen: on PATH, fetched earlier, or now.

    Raises HarnessError where there is none.
    """
    for name in NAMES:
        path = shutil.which(name)
        if path is not None:
            return (path, *HEADLESS)
    found = fetched(recipe())
    if found is None and fetch:
        found = shown(recipe(), progress)
    if found is None:
        raise HarnessError(f"no Chromium yet: {HINT}")
    return found


def recipe() -> Recipe[tuple[str, ...]]:
    """Return how to fetch Chromium."""

    def of(root: Root) -> tuple[str, ...] | None:
        launcher = root.launcher(SHELL)
        return (str(launcher), *HEADLESS) if launcher is not None else None

    return Recipe(
        kind="chromium",
        suites=SUITES,
        names=lambda _: [[SHELL]],
        of=of,
        check=check,
        failure="cannot fetch Chromium ({why}): apt install chromium",
        programs=programs,
        without=(NEEDLESS, ""),
    )


def programs(root: Root) -> Iterator[Program]:
    """Yield the Chromium in *root*, with the fonts of the root.

    It starts itself again, but not as /proc/self/exe, which is the linker.
    """
    for binary in root.files.glob(f"usr/lib/chromium/{SHELL}"):
        again = ("--no-zygote", f"--browser-subprocess-path={{bin}}/{SHELL}")
        fonts = (("FONTCONFIG_SYSROOT", "{files}"),)
        yield Program(SHELL, binary, again, fonts, beside=True)


def check(root: Root) -> str | None:
    """Return what is wrong with the Chromium of *root*: it must run the script of a page."""
    launcher = root.launcher(SHELL)
    if launcher is None:
        return f"{SHELL} is missing"
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as folder:
        page = Path(folder, "page.html")
        page.write_text("<body><script>document.body.title = 6 * 7</script></body>\n")
        said = dump([str(launcher), *HEADLESS], page, Path(folder, "profile"))
    return None if 'title="42"' in said.stdout.decode(errors="replace") else last(said.stderr)


def dump(
    command: Sequence[str], page: Path, profile: Path, window: tuple[int, int] = (1400, 1000)
) -> Finished:
    """Return *page* as it is when its scripts ran, from Chromium *command*; *profile*: a folder."""
    size = f"--window-size={window[0]},{window[1]}"
    arguments = ["--dump-dom", f"--user-data-dir={profile}", size]
    return ask([*command, *arguments, page.as_uri()], memory=None)


def last(text: str) -> str:
    """Return the last line of what a program said."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it does not show a page"


def version(command: Sequence[str]) -> str:
    """Return the version that Chromium *command* tells."""
    done = ask([command[0], "--version"], memory=None)
    told = re.search(r"\d+(\.\d+)+", done.stdout.decode(errors="replace"))
    return told[0] if told else "unknown"
