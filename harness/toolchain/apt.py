"""A private apt root: Debian packages without being root and without installing.

apt itself downloads and checks signatures and hashes; its lists, caches, sources
and package database are ours (apt.conf(5)), while the machine's own apt.conf.d,
with its proxies, stays in force. The mirror is the one the machine's sources name.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from harness.model import HarnessError
from harness.toolchain.progress import Progress

KEYRING = "debian-archive-keyring"
KEYRING_FOLDERS = ("/usr/share/keyrings", "/etc/apt/keyrings")
KEYRING_ENDINGS = ("gpg", "pgp", "asc")

# Hooks of the machine's configuration: they would act on the machine's own apt.
HOOKS = (
    "APT::Update::Pre-Invoke",
    "APT::Update::Post-Invoke",
    "APT::Update::Post-Invoke-Success",
    "APT::Update::Auth-Failure",
    "DPkg::Pre-Invoke",
    "DPkg::Post-Invoke",
    "DPkg::Pre-Install-Pkgs",
    "AptCli::Hooks",
)


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a binary package, as apt knows it."""

    name: str
    version: str
    architecture: str
    size: int = 0  # bytes to download
    provides: str = ""  # as in its control file
    multi_arch: str = ""  # as in its control file

    @property
    def archive(self) -> str:
        """The name apt gives its archive."""
        version = self.version.replace("_", "%5f").replace(":", "%3a")
        return f"{self.name}_{version}_{self.architecture}.deb"

    @property
    def stable(self) -> bool:
        """Whether upstream released it: no snapshot and no release candidate."""
        upstream = self.version.rpartition("-")[0] or self.version
        return "~" not in upstream

    def to_json(self) -> dict[str, Any]:
        """Return its fields, as a manifest keeps them."""
        return asdict(self)


class AptRoot:
    """apt over *suites* of one mirror, with state of its own in *folder*."""

    def __init__(
        self,
        folder: Path,
        suites: Sequence[str],
        *,
        site: str,
        keyring: Path,
        target: str | None = None,
        components: str = "main",
    ) -> None:
        """Write apt's configuration; nothing is downloaded yet.

        *target* is the suite whose versions are preferred, as ``apt-get -t`` does.
        """
        self.folder = folder
        self.suites = tuple(suites)
        self.site = site
        self.archives = folder / "archives"
        self._conf = folder / "apt.conf"
        self._status = folder / "status"
        self._preferences = folder / "preferences"
        for name in ("lists/partial", "archives/partial", "empty/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._pretend(())
        options = f"[arch={architecture()} signed-by={keyring}]"
        (folder / "sources.list").write_text(
            "".join(f"deb {options} {site} {suite} {components}\n" for suite in suites)
        )
        self._conf.write_text(configuration(folder, target=target))

    # --- questions ----------------------------------------------------------

    def update(self, progress: Progress) -> None:
        """Download the package lists; raise HarnessError where the mirror has them not."""
        what = f"package lists of {' and '.join(self.suites)}"
        self._apt(["apt-get", "update", "-qq"], progress=progress, what=what)

    def candidates(self, pattern: str) -> list[Package]:
        """Return the candidate of every package whose name matches *pattern* (a regex)."""
        found = self._apt(["apt-cache", "search", "--names-only", "--", pattern])
        names = [line.partition(" ")[0] for line in found.splitlines() if line]
        wanted = [name for name in names if re.search(pattern, name)]
        return self.show(f"{name}={version}" for name, version in self._policy(wanted).items())

    def candidate(self, name: str) -> Package | None:
        """Return the candidate of package *name*, None where there is none."""
        return next(iter(self.candidates(f"^{re.escape(name)}$")), None)

    def _policy(self, names: Sequence[str]) -> dict[str, str]:
        versions: dict[str, str] = {}
        name = ""
        if not names:
            return versions
        for line in self._apt(["apt-cache", "policy", *names]).splitlines():
            if not line.startswith(" "):
                name = line.rstrip(":")
            elif line.startswith("  Candidate: ") and not line.endswith("(none)"):
                versions[name] = line.removeprefix("  Candidate: ").strip()
        return versions

    def show(self, names: Iterable[str]) -> list[Package]:
        """Return what apt knows of *names*, each ``name=version``."""
        wanted = list(names)
        if not wanted:
            return []
        packages = []
        for stanza in self._apt(["apt-cache", "show", *wanted]).split("\n\n"):
            fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", stanza, re.MULTILINE))
            if "Package" in fields:
                packages.append(
                    Package(
                        fields["Package"],
                        fields["Version"],
                        fields["Architecture"],
                        int(fields.get("Size", "0")),
                        fields.get("Provides", ""),
                        fields.get("Multi-Arch", ""),
                    )
                )
        return packages

    # --- packages -----------------------------------------------------------

    def plan(
        self, names: Sequence[str], *, without: str = "", have: Sequence[Package] = ()
    ) -> list[Package]:
        """Return what apt would install for *names* (also ``name=version``) and all they need.

        Packages whose names match *without* (a regex), and what only they need, are
        left out, as are the packages of *have*. So ``.*`` leaves just *names*.
        """
        self._pretend(have)
        plan = self._resolve(names)
        if without:
            asked = {name.partition("=")[0] for name in names}
            dropped = [
                package
                for package in plan
                if re.fullmatch(without, package.name) and package.name not in asked
            ]
            if dropped:
                self._pretend([*have, *dropped])
                plan = self._resolve(names)
        return plan

    def _resolve(self, names: Sequence[str]) -> list[Package]:
        # What was downloaded before is to be listed, too: look in an empty folder.
        nowhere = f"Dir::Cache::archives={self.folder / 'empty'}"
        text = self._apt([*INSTALL, "--print-uris", "-o", nowhere, *names])
        found = re.findall(r"^'[^']*' ([^_ ]+)_([^_ ]+)_[^_ ]+\.deb ", text, re.MULTILINE)
        return self.show(f"{name}={unquote(version)}" for name, version in found)

    def download(self, names: Sequence[str], plan: Sequence[Package], progress: Progress) -> None:
        """Download *plan*, made for *names*, into ``archives``."""
        size = sum(package.size for package in plan) / 1e6
        what = f"downloading {names[0].partition('=')[0]}: {len(plan)} packages, {size:.0f} MB"
        self._apt([*INSTALL, "--download-only", *names], progress=progress, what=what)

    def unpack(self, plan: Sequence[Package], into: Path, progress: Progress) -> None:
        """Unpack the downloaded *plan* into the folder *into*."""
        what = f"unpacking {len(plan)} packages"
        total = sum(package.size for package in plan) or 1
        done = 0
        for package in plan:
            progress(what, done / total)
            self._run(["dpkg-deb", "-x", str(self.archives / package.archive), str(into)])
            done += package.size
        progress(what, 1.0)

    def tidy(self) -> None:
        """Remove the archives and binary caches; the lists stay for the next question."""
        for path in (*self.archives.glob("*.deb"), *self.folder.glob("*.bin")):
            path.unlink(missing_ok=True)

    def _pretend(self, packages: Iterable[Package]) -> None:
        """Make apt believe that just *packages* are installed, and are to stay as they are.

        Without their dependencies they look to apt like other builds of the same
        versions, which it would replace: hence the pins (apt_preferences(5)).
        """
        stanzas = []
        pins = []
        for package in packages:
            fields = {
                "Package": package.name,
                "Status": "install ok installed",
                "Maintainer": "crosscheck",
                "Architecture": package.architecture,
                "Multi-Arch": package.multi_arch,
                "Version": package.version,
                "Provides": package.provides,
                "Description": "present",
            }
            stanzas.append("".join(f"{key}: {value}\n" for key, value in fields.items() if value))
            pins.append(f"Package: {package.name}\nPin: release a=now\nPin-Priority: 1001\n")
        self._status.write_text("\n".join(stanzas))
        self._preferences.write_text("\n".join(pins))

    # --- running apt --------------------------------------------------------

    def _apt(
        self, command: Sequence[str], *, progress: Progress | None = None, what: str = ""
    ) -> str:
        argv = [command[0], "-c", str(self._conf), *command[1:]]
        return self._run(argv, progress=progress, what=what)

    def _run(self, argv: Sequence[str], *, progress: Progress | None = None, what: str = "") -> str:
        """Return standard output of *argv*; raise HarnessError with apt's own reason."""
        argv = [*leash(), *argv]
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            reader, writer = os.pipe()
            if progress is not None:
                progress(what, None)
                argv += ["-o", f"APT::Status-Fd={writer}"]
            with open(reader, encoding="utf-8", errors="replace") as status:
                try:
                    process = subprocess.Popen(
                        argv,
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=err,
                        env=environment,
                        cwd=self.folder,
                        pass_fds=(writer,),
                        process_group=0,
                    )
                except OSError as error:
                    raise HarnessError(f"cannot run {argv[0]}: {error.strerror}") from None
                finally:
                    os.close(writer)
                try:
                    for line in status:
                        report(line, progress, what)
                    code = process.wait()
                except BaseException:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    raise
            out.seek(0)
            err.seek(0)
            if code:
                raise HarnessError(reason(argv, code, err.read().decode(errors="replace")))
            return out.read().decode(errors="replace")


INSTALL = ("apt-get", "install", "-y", "-qq", "--no-install-recommends")


def configuration(folder: Path, *, target: str | None = None) -> str:
    """Return the apt.conf(5) that keeps apt inside *folder*.

    It is read after the machine's own (``-c``), whose proxies it leaves alone.
    """
    settings = {
        "Dir::State": folder,
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::State::extended_states": folder / "extended_states",
        "Dir::Cache": folder,
        "Dir::Cache::archives": folder / "archives",
        "Dir::Cache::pkgcache": folder / "pkgcache.bin",
        "Dir::Cache::srcpkgcache": folder / "srcpkgcache.bin",
        "Dir::Log": folder / "empty",
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": folder / "empty",
        "Dir::Etc::Preferences": folder / "preferences",
        "Dir::Etc::PreferencesParts": folder / "empty",
        # The machine's default release may be none of ours, which apt refuses.
        "APT::Default-Release": target or "",
        "APT::Update::Error-Mode": "any",
        # The cache may lie in a folder that only its owner can enter; root would
        # otherwise hand the download to a user who cannot, and warn.
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::GzipIndexes": "true",
        "Acquire::PDiffs": "false",
        "Acquire::Retries": "3",
    }
    lines = [f"#clear {name};" for name in HOOKS]
    lines += [f'{key} "{value}";' for key, value in settings.items()]
    # Only package lists: neither descriptions, nor metadata of applications, nor contents.
    lines += ['Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";']
    lines += ['Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";']
    return "\n".join(lines) + "\n"


def report(line: str, progress: Progress | None, what: str) -> None:
    """Hand one line of apt's status (``dlstatus:1:12.5:...``) to *progress*."""
    kind, _, rest = line.partition(":")
    if progress is None or kind not in ("dlstatus", "pmstatus"):
        return
    _, _, rest = rest.partition(":")
    try:
        percent = float(rest.partition(":")[0])
    except ValueError:
        return
    progress(what, min(max(percent / 100, 0.0), 1.0))


def reason(argv: Sequence[str], code: int, text: str) -> str:
    """Return one line that says why *argv* failed with *code*, from its standard error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line[2:].strip() for line in lines if line.startswith("E:")]
    program = next((Path(arg).name for arg in argv if Path(arg).name in PROGRAMS), argv[0])
    said = errors[0] if errors else lines[-1] if lines else f"exit status {code}"
    return f"{program}: {said}"


PROGRAMS = ("apt-get", "apt-cache", "dpkg-deb")


def leash() -> list[str]:
    """Return a prefix with which a command dies when we are killed, where there is one."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


# --- the machine's own apt --------------------------------------------------


def available() -> str | None:
    """Return why this machine cannot fetch Debian packages, None if it can."""
    for program in PROGRAMS:
        if shutil.which(program) is None:
            return f"this machine has no {program}"
    return None


def ask(argv: Sequence[str]) -> str:
    """Return what a command of the machine's apt prints, "" where it fails."""
    try:
        answer = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout


def architecture() -> str:
    """Return Debian's name for this machine's architecture."""
    return ask(["dpkg", "--print-architecture"]).strip() or "amd64"


def sites() -> list[str]:
    """Return the mirrors of the machine's apt sources, Debian's own archive first.

    Where the lists were never updated apt knows no origins, and names the sites of
    the sources alone (``--no-release-info``).
    """
    ordered: dict[str, None] = {}
    known = ask(["apt-get", "indextargets", "--format", "$(ORIGIN)\t$(SITE)"])
    for line in known.splitlines():
        origin, _, site = line.partition("\t")
        if origin == "Debian":
            ordered[site] = None
    for site in ask(
        ["apt-get", "indextargets", "--no-release-info", "--format", "$(SITE)"]
    ).splitlines():
        ordered[site] = None
    return [
        site
        for site in ordered
        if site and "security" not in site and not site.startswith(("cdrom:", "$("))
    ]


def keyring() -> Path:
    """Return the file with the keys of Debian's archive, or raise HarnessError."""
    for folder in KEYRING_FOLDERS:
        for ending in KEYRING_ENDINGS:
            path = Path(folder) / f"{KEYRING}.{ending}"
            if path.is_file():
                return path
    raise HarnessError(
        f"the keys of Debian's archive are missing ({KEYRING_FOLDERS[0]}/{KEYRING}.*): "
        f"apt install {KEYRING}"
    )


def open_apt(
    cache: Path,
    suites: Sequence[str],
    progress: Progress,
    *,
    target: str | None = None,
    components: str = "main",
) -> AptRoot:
    """Return an updated AptRoot over *suites*, from the first mirror that has them all.

    Raises HarnessError where there is no apt, no key, no mirror, or none has the suites.
    """
    why = available()
    if why:
        raise HarnessError(why)
    keys = keyring()
    mirrors = sites()
    if not mirrors:
        raise HarnessError("apt's sources name no mirror")
    folder = cache / "apt" / "+".join([*suites, *([f"t={target}"] if target else [])])
    first: HarnessError | None = None
    for site in mirrors:
        root = AptRoot(
            folder, suites, site=site, keyring=keys, target=target, components=components
        )
        try:
            root.update(progress)
        except HarnessError as error:
            first = first or error
        else:
            return root
    assert first is not None
    raise first
