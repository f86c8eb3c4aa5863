"""The private apt root and the folders it fills, over a tiny repository on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness.model import HarnessError
from harness.toolchain import apt, browser, clang, cvise, fetch, roots, silent
from harness.toolchain.apt import AptRoot, Package
from harness.toolchain.cache import cache_folder, fetching, replacing
from harness.toolchain.fetch import Recipe
from harness.toolchain.progress import Display
from harness.toolchain.roots import Program, Root

needs_apt = pytest.mark.skipif(
    apt.available() is not None, reason=f"fetching is for Debian: {apt.available()}"
)

# name, version, dependencies, a file it holds
PACKAGES = (
    ("tool-1", "1:1.0-1", "libneeded1 (= 1.0-1), big-dev, virtual-thing", "usr/bin/tool"),
    ("libneeded1", "1.0-1", "", "usr/lib/x/libneeded.so.1"),
    ("big-dev", "2.0-1", "bigger-dev", "usr/include/big.h"),
    ("bigger-dev", "2.0~rc1-1", "", "usr/include/bigger.h"),
    ("thing", "3-1", "", "usr/share/thing"),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("CROSSCHECK_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat-file repository ``dists/test/main`` with the packages above, unsigned."""
    folder = tmp_path_factory.mktemp("repository")
    index = folder / "dists/test/main" / f"binary-{apt.architecture()}"
    index.mkdir(parents=True)
    (folder / "pool").mkdir()
    stanzas = []
    for name, version, depends, file in PACKAGES:
        tree = folder / "tree" / name
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / file).parent.mkdir(parents=True)
        (tree / file).write_text(f"{name}\n")
        control = f"Package: {name}\nVersion: {version}\nArchitecture: {apt.architecture()}\n"
        control += "Maintainer: nobody\n"
        control += f"Depends: {depends}\n" if depends else ""
        control += "Provides: virtual-thing\n" if name == "thing" else ""
        control += "Description: test\n"
        (tree / "DEBIAN" / "control").write_text(control)
        deb = folder / "pool" / f"{name}.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-b", str(tree), str(deb)],
            check=True,
            capture_output=True,
        )
        data = deb.read_bytes()
        stanzas.append(
            f"{control}Filename: pool/{name}.deb\nSize: {len(data)}\n"
            f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
        )
    packages = "\n".join(stanzas).encode()
    (index / "Packages").write_bytes(packages)
    (folder / "dists/test/Release").write_text(
        f"Suite: test\nCodename: test\nComponents: main\nArchitectures: {apt.architecture()}\n"
        f"Date: Sat, 01 Jan 2000 00:00:00 UTC\nSHA256:\n {hashlib.sha256(packages).hexdigest()} "
        f"{len(packages)} main/binary-{apt.architecture()}/Packages\n"
    )
    return folder


@pytest.fixture
def private(repository: Path, tmp_path: Path) -> AptRoot:
    return updated(repository, tmp_path / "apt")


def updated(repository: Path, folder: Path) -> AptRoot:
    """Return an AptRoot over *repository*, which is trusted here since no key signs it."""
    root = AptRoot(folder, ["test"], site=f"copy:{repository}", keyring=Path("/none"))
    sources = folder / "sources.list"
    sources.write_text(sources.read_text().replace("signed-by=/none", "trusted=yes"))
    root.update(silent)
    return root


def names(plan: list[Package]) -> set[str]:
    return {package.name for package in plan}


# --- apt --------------------------------------------------------------------


def test_configuration_keeps_apt_inside_the_folder() -> None:
    text = apt.configuration(Path("/cache/apt/sid"))
    assert 'Dir::State::lists "/cache/apt/sid/lists";' in text
    assert 'Dir::State::status "/cache/apt/sid/status";' in text
    assert 'Dir::Etc::SourceParts "/cache/apt/sid/empty";' in text
    assert 'APT::Default-Release "";' in text
    assert "Dir::Etc::Parts" not in text  # the machine's proxies stay in force
    assert "#clear APT::Update::Post-Invoke;" in text
    assert 'APT::Default-Release "t";' in apt.configuration(Path("/c"), target="t")


@needs_apt
def test_sources_are_signed_by_the_archive(tmp_path: Path) -> None:
    AptRoot(tmp_path / "apt", ["one", "two"], site="http://mirror", keyring=Path("/key.gpg"))
    assert (tmp_path / "apt" / "sources.list").read_text().splitlines() == [
        f"deb [arch={apt.architecture()} signed-by=/key.gpg] http://mirror {suite} main"
        for suite in ("one", "two")
    ]


@needs_apt
def test_plan_with_and_without(private: AptRoot) -> None:
    full = private.plan(["tool-1"])
    assert names(full) == {"tool-1", "libneeded1", "big-dev", "bigger-dev", "thing"}
    assert names(private.plan(["tool-1"], without=".*-dev")) == {"tool-1", "libneeded1", "thing"}
    assert names(private.plan(["tool-1=1:1.0-1"], without=".*")) == {"tool-1"}
    have = [package for package in full if package.name in ("thing", "libneeded1")]
    assert names(private.plan(["tool-1"], have=have)) == {"tool-1", "big-dev", "bigger-dev"}


@needs_apt
def test_candidates_and_versions(private: AptRoot) -> None:
    found = {package.name: package for package in private.candidates("-dev$")}
    assert set(found) == {"big-dev", "bigger-dev"}
    assert (found["big-dev"].stable, found["bigger-dev"].stable) == (True, False)
    assert private.candidate("tool-1") == private.show(["tool-1=1:1.0-1"])[0]
    assert private.candidate("tool") is None


@needs_apt
def test_download_and_unpack(private: AptRoot, tmp_path: Path) -> None:
    plan = private.plan(["tool-1"], without=".*-dev")
    seen: list[tuple[str, float | None]] = []

    def progress(what: str, fraction: float | None) -> None:
        seen.append((what, fraction))

    private.download(["tool-1"], plan, progress)
    assert names(private.plan(["tool-1"], without=".*-dev")) == names(plan)  # also when present
    private.download(["tool-1"], plan, progress)
    private.unpack(plan, tmp_path / "files", progress)
    assert (tmp_path / "files/usr/bin/tool").read_text() == "tool-1\n"
    assert not (tmp_path / "files/usr/include").exists()
    assert seen[-1] == ("unpacking 3 packages", 1.0)
    private.tidy()
    assert not list(private.archives.glob("*.deb"))


@needs_apt
def test_what_was_changed_on_the_way_is_refused(repository: Path, tmp_path: Path) -> None:
    copy = tmp_path / "repository"
    shutil.copytree(repository, copy)
    private = updated(copy, tmp_path / "apt")
    deb = copy / "pool/libneeded1.deb"
    data = bytearray(deb.read_bytes())
    data[-1] ^= 1
    deb.write_bytes(data)
    plan = private.plan(["libneeded1"])
    with pytest.raises(HarnessError, match="apt-get: ") as caught:
        private.download(["libneeded1"], plan, silent)
    assert "\n" not in str(caught.value)
    assert not list(private.archives.glob("*.deb"))


@needs_apt
def test_a_repository_without_signature_is_refused(repository: Path, tmp_path: Path) -> None:
    root = AptRoot(tmp_path / "apt", ["test"], site=f"copy:{repository}", keyring=apt.keyring())
    with pytest.raises(HarnessError, match=r"apt-get: .*signed"):
        root.update(silent)


@needs_apt
def test_packages_that_are_not_there(private: AptRoot) -> None:
    with pytest.raises(HarnessError, match="apt-get: Unable to locate package gone"):
        private.plan(["gone"])


@needs_apt
def test_the_machine_is_asked_for_its_mirrors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its lists were never updated, and in both notations."""
    parts = tmp_path / "parts"
    parts.mkdir()
    (tmp_path / "one.list").write_text("deb http://one/debian stable main\n")
    (parts / "two.sources").write_text(
        "Types: deb\nURIs: http://two/debian\nSuites: stable\nComponents: main\n\n"
        "Types: deb\nURIs: http://two/debian-security\nSuites: s\nComponents: main\n"
    )
    conf = tmp_path / "apt.conf"
    conf.write_text(
        f'Dir::Etc::SourceList "{tmp_path}/one.list"; Dir::Etc::SourceParts "{parts}";'
        f'Dir::State::lists "{tmp_path}/lists";'
    )
    monkeypatch.setenv("APT_CONFIG", str(conf))
    assert apt.sites() == ["http://one/debian", "http://two/debian"]


def test_reason_is_apts_own() -> None:
    text = "W: something\nE: Unable to fetch\nE: more\n"
    assert apt.reason(["setpriv", "--", "/usr/bin/apt-get"], 100, text) == (
        "apt-get: Unable to fetch"
    )
    assert apt.reason(["dpkg-deb"], 2, "") == "dpkg-deb: exit status 2"


@pytest.mark.parametrize(
    ("version", "stable"),
    [
        ("1:23.1.4-2", True),
        ("1:24~++20261101-1~exp1", False),
        ("1:24.1.0~+rc1-1", False),
        ("1:23.1.4-2~deb13u1", True),
    ],
)
def test_snapshots_are_not_stable(version: str, stable: bool) -> None:
    assert Package("clang-1", version, "amd64").stable is stable


def test_newest_released_clang_is_chosen() -> None:
    packages = [
        Package("clang-9", "1:9.0-1", "amd64"),
        Package("clang-22", "1:22.1.8-1", "amd64"),
        Package("clang-23", "1:23.1.4-2", "amd64"),
        Package("clang-100", "1:100.1.0-1", "amd64"),
        Package("clang-101", "1:101~++2029-1", "amd64"),
    ]
    assert [package.name for package in clang.newest_clangs(packages)] == ["clang-100", "clang-23"]


@pytest.mark.parametrize(
    ("name", "needless"),
    [
        ("libclang-common-23-dev", False),
        ("libllvm23", False),
        ("libclang-cpp23", False),
        ("libc6", False),
        ("libstdc++-16-dev", True),
        ("libclang1-23", True),
        ("binutils", True),
    ],
)
def test_what_clang_can_do_without(name: str, needless: bool) -> None:
    assert (re.fullmatch(clang.NEEDLESS, name) is not None) is needless


# --- roots ------------------------------------------------------------------


def nothing(_: Root) -> list[Program]:
    return []


@needs_apt
def test_a_root_that_does_not_work_gets_all_that_is_declared(private: AptRoot) -> None:
    tried = []

    def check(root: Root) -> str | None:
        tried.append(names(list(root.packages)))
        return None if (root.files / "usr/include/big.h").exists() else "no big.h"

    root = roots.fetch_root(
        private,
        ["tool-1"],
        kind="test",
        progress=silent,
        programs=nothing,
        check=check,
        without=(".*-dev", ""),
    )
    assert [len(packages) for packages in tried] == [3, 5]
    assert roots.roots("test") == [root]
    assert roots.roots("other") == []
    assert root.version("tool-1") == "1:1.0-1"
    assert ":" not in root.path.name
    assert root.intact()
    (root.files / "usr/bin/tool").write_text("x")
    assert not root.intact()
    (root.files / "usr/bin/tool").unlink()
    assert not root.intact()


@needs_apt
def test_a_root_that_never_works_leaves_nothing(private: AptRoot, cache: Path) -> None:
    with pytest.raises(HarnessError, match="tool-1: fetched, but it does not work: broken"):
        roots.fetch_root(
            private,
            ["tool-1"],
            kind="test",
            progress=silent,
            programs=nothing,
            check=lambda _: "broken",
        )
    assert list((cache / "roots").iterdir()) == []


def test_launchers_start_programs_through_their_own_linker(tmp_path: Path) -> None:
    """Paths with spaces and quotes, a base, arguments of its own, and -cc1."""
    base, path = tmp_path / "it's a base", tmp_path / "a root"
    loader = base / "files/usr/lib64/ld-linux-x86-64.so.2"
    for folder in (loader.parent, base / "files/usr/lib/x", path / "files/usr/lib/x"):
        folder.mkdir(parents=True)
    (base / "files/usr/lib/x/liba.so.1").touch()
    (path / "files/usr/lib/x/libb.so.1").touch()
    loader.write_text('#!/bin/sh\nfor a; do echo "$a"; done\n')
    loader.chmod(0o755)
    root = Root(path, "test", (), base)
    roots.write_launchers(root, [Program("prog", path / "files/prog", ("-r", "{files}/res"))])
    launcher = root.launcher("prog")
    assert launcher is not None
    assert root.launcher("other") is None
    files = f"{launcher.parent}/../files"
    start = [
        "--library-path",
        f"{files}/usr/lib/x:{base}/files/usr/lib/x",
        "--argv0",
        str(launcher),
        f"{files}/prog",
    ]
    run = [str(launcher), "a b", "$x"]
    told = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert told == [*start, "-r", f"{files}/res", "a b", "$x"]
    run = [str(launcher), "-cc1", "x"]
    told = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert told == [*start, "-cc1", "x"]


def test_launchers_set_an_environment_and_bring_the_linker_along(tmp_path: Path) -> None:
    path = tmp_path / "a root"
    loader, binary = path / "files/usr/lib64/ld-linux-x86-64.so.2", path / "files/usr/lib/x/prog"
    for file in (loader, binary):
        file.parent.mkdir(parents=True)
    binary.touch()
    loader.write_text('#!/bin/sh\necho "$0 $3 $4 $V"\n[ -z "$5" ] || echo "$5"\n')
    root = Root(path, "test", ())
    moved = (("V", "{files}/v:{bin}:$V"),)
    program = Program("prog", binary, ("-a={bin}/x",), moved, argv0="{bin}/other", beside=True)
    roots.write_launchers(root, [program])
    launcher = root.launcher("prog")
    assert launcher is not None
    run = subprocess.run(
        [str(launcher)], env={"V": "old"}, capture_output=True, text=True, check=True
    )
    here, files = launcher.parent, f"{launcher.parent}/../files"
    assert run.stdout.splitlines() == [
        f"{files}/usr/lib/x/prog.linker --argv0 {here}/other {files}/v:{here}:old",
        f"{files}/usr/lib/x/prog",
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "test"}'])
def test_damaged_manifests_are_no_roots(cache: Path, text: str) -> None:
    path = cache / "roots" / "x"
    path.mkdir(parents=True)
    (path / roots.MANIFEST).write_text(text)
    assert roots.roots("test") == []


def test_manifests_round_trip(tmp_path: Path) -> None:
    package = Package("a", "1:2-3", "amd64", 5, "b, c", "same")
    root = Root(tmp_path, "test", (package,), tmp_path / "base", (("usr/x", 1),))
    roots.write(root)
    assert roots.read(tmp_path) == root
    assert json.loads((tmp_path / roots.MANIFEST).read_text())["kind"] == "test"


# --- recipes ----------------------------------------------------------------


def recipe_of(*names: str, lacking: str = "", missing: str = "") -> Recipe[str]:
    return Recipe(
        kind="test",
        suites=[(("one",), None), (("two", "three"), "three")],
        names=lambda _: [[name] for name in names],
        of=lambda root: root.path.name if (root.files / "usr/bin/tool").exists() else None,
        check=lambda root: None if (root.files / "usr").is_dir() else "empty",
        failure="cannot fetch it ({why}): way out",
        lacking=lacking,
        missing=missing,
    )


@pytest.fixture
def asked(private: AptRoot, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The suites that are asked for; the first cannot be had."""
    seen: list[str] = []

    def opened(_: Path, suites: Sequence[str], __: object, *, target: str | None) -> AptRoot:
        seen.append(f"{'+'.join(suites)} {target}")
        if suites[0] == "one":
            raise HarnessError("no mirror has one")
        return private

    monkeypatch.setattr(fetch, "open_apt", opened)
    return seen


@needs_apt
def test_a_recipe_goes_on_until_something_works(asked: list[str]) -> None:
    recipe = recipe_of("thing", "tool-1")
    assert fetch.fetched(recipe) is None
    assert fetch.fetch(recipe, silent) == "tool-1-1_1.0-1"
    assert asked == ["one None", "two+three three"]
    assert fetch.fetched(recipe) == "tool-1-1_1.0-1"
    assert fetch.fetch(recipe, silent) == "tool-1-1_1.0-1"
    assert len(asked) == 2
    # one that is damaged goes, and comes again
    found = next(root for root in roots.roots("test") if root.version("tool-1"))
    (found.files / "usr/bin/tool").unlink()
    assert fetch.fetched(recipe) is None
    assert fetch.fetch(recipe, silent) == "tool-1-1_1.0-1"
    assert len(asked) == 4


@needs_apt
@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (recipe_of("thing"), "no mirror has one"),
        (recipe_of("gone"), "no mirror has one"),
        (recipe_of(lacking="tool 2 or newer"), "no mirror has one"),
    ],
)
def test_a_recipe_that_fails_says_why_first(
    asked: list[str], recipe: Recipe[str], why: str
) -> None:
    with pytest.raises(HarnessError) as caught:
        fetch.fetch(recipe, silent)
    assert str(caught.value) == f"cannot fetch it ({why}): way out"
    assert len(asked) == 2


@needs_apt
@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (recipe_of("thing"), "two and three has no test"),
        (recipe_of("thing", missing="tool"), "thing has no tool"),
        (recipe_of("gone"), "apt-get: Unable to locate package gone"),
        (recipe_of(lacking="tool 2 or newer"), "two and three has no tool 2 or newer"),
    ],
)
def test_what_a_recipe_misses(asked: list[str], recipe: Recipe[str], why: str) -> None:
    del asked
    recipe = dataclasses.replace(recipe, suites=recipe.suites[1:])
    with pytest.raises(HarnessError) as caught:
        fetch.fetch(recipe, silent)
    assert str(caught.value) == f"cannot fetch it ({why}): way out"


@pytest.mark.parametrize("find", [cvise.find_cvise, browser.find_chromium])
def test_what_can_neither_be_found_nor_fetched_is_one_line(
    find: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for may_fetch, said in (
        (False, "yet: "),
        (True, r"cannot fetch \w+ \(this machine has no apt"),
    ):
        with pytest.raises(HarnessError, match=said) as caught:
            find(fetch=may_fetch, progress=silent)
        assert "apt install" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_cvises_script_looks_in_its_root(tmp_path: Path) -> None:
    """As Debian's: where it looks for itself, and for what it starts."""
    script = tmp_path / "files/usr/bin/cvise"
    script.parent.mkdir(parents=True)
    script.write_text(
        "import os\ndestdir = os.getenv('DESTDIR', '')\n"
        "print(destdir + '/usr/share', os.path.join('/usr/share', 'cvise'))\n"
        "print(os.path.join('/usr/lib', 'cvise'), '/usr/bin/clang-format-19')\n"
    )
    (tmp_path / "files/usr/bin/python3.13").touch()
    found = list(cvise.programs(Root(tmp_path, "cvise", ())))
    assert [program.name for program in found] == ["python3", "cvise"]
    changed = script.with_name(cvise.SCRIPT)
    done = subprocess.run(
        [sys.executable, str(changed)], env={"DESTDIR": "/r"}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.split() == [
        "/r/usr/share", "/r/usr/share/cvise", "/r/../bin", "/r/../bin/clang-format",
    ]  # fmt: skip


# --- the cache folder -------------------------------------------------------


def test_cache_folder_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for name in (str(tmp_path / "file/cache"), str(tmp_path / "a:b")):
        monkeypatch.setenv("CROSSCHECK_CACHE", name)
        with pytest.raises(HarnessError, match="CROSSCHECK_CACHE"):
            cache_folder()


def interrupt(target: Path) -> None:
    with replacing(target) as new:
        (new / "half").touch()
        raise KeyboardInterrupt


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "roots" / "x"
    with replacing(target) as new:
        (new / "old").touch()
        assert not target.exists()
    with pytest.raises(KeyboardInterrupt):
        interrupt(target)
    assert [path.name for path in target.iterdir()] == ["old"]
    with replacing(target) as new:
        (new / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in target.parent.iterdir()] == ["x"]


def test_leftovers_of_killed_fetches_are_removed(cache: Path) -> None:
    (cache / "roots/.new-killed/files").mkdir(parents=True)
    (cache / "roots/good").mkdir()
    with fetching(silent):
        assert [path.name for path in (cache / "roots").iterdir()] == ["good"]


def fetch_once(log: Path) -> None:
    def progress(what: str, fraction: float | None) -> None:
        with log.open("a") as file:
            file.write(f"{what} {fraction}\n")

    with fetching(progress) as folder:
        if not (folder / "done").exists():
            with log.open("a") as file:
                file.write("fetched\n")
            time.sleep(0.5)
            (folder / "done").touch()


def test_two_processes_fetch_once(tmp_path: Path, cache: Path) -> None:
    cache.mkdir()
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fetch_once, args=(log,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert log.read_text().count("fetched") == 1


def test_plain_progress_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        for percent in range(101):
            display("downloading", percent / 100)
        display("unpacking", None)
    assert capsys.readouterr().err.splitlines() == [
        "crosscheck: downloading",
        "crosscheck: downloading: 25%",
        "crosscheck: downloading: 50%",
        "crosscheck: downloading: 75%",
        "crosscheck: downloading: 100%",
        "crosscheck: unpacking",
    ]


def test_terminal_progress_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    control, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        with Display() as display:
            display("downloading [half]", 0.5)
            display("unpacking", None)
            display("unpacking", 1.0)
        monkeypatch.undo()
        stderr.flush()
        shown = os.read(control, 1 << 16).decode()
    os.close(control)
    assert "downloading [half]" in shown
    assert "100%" in shown


@pytest.mark.parametrize(
    ("line", "fraction"),
    [
        ("dlstatus:3:14.7336:Retrieving file 3 of 3\n", 0.147336),
        ("dlstatus:3:100.0000:Retrieving\n", 1.0),
        ("dlstatus:3:nonsense\n", None),
        ("media-change: x\n", None),
    ],
)
def test_apts_status_is_a_fraction(line: str, fraction: float | None) -> None:
    seen: list[float | None] = []
    apt.report(line, lambda _, value: seen.append(value), "x")
    assert seen == ([] if fraction is None else [pytest.approx(fraction)])
