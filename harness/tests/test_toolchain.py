"""Finding and running compilers; fakes are shell scripts."""

from __future__ import annotations

import errno
import os
import shlex
import time
from pathlib import Path

import pytest

from harness.model import HarnessError
from harness.toolchain import (
    Compiler,
    CompileResult,
    ToolError,
    builds,
    clang,
    find_compilers,
    find_tool,
    run_compiler,
    silent,
    tools,
    tools_report,
)

CACHE = os.environ.get("CROSSCHECK_CACHE")  # the user's own, for the real thing

MODERN = """\
case "$*" in *-dM*)
  echo '#define __clang_version__ "24.0.1 (made up)"'
  echo '#define __BPF_FEATURE_STACK_ARGUMENT 1' ;;
esac
"""
OLD = """\
case "$*" in *-dM*) echo '#define __clang_version__ "21.1.8 "' ;; esac
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("CROSSCHECK_CACHE", str(folder))
    monkeypatch.delenv("CROSSCHECK_CLANG", raising=False)
    monkeypatch.delenv("CROSSCHECK_NO_CACHE", raising=False)
    return folder


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on PATH, the machine's own programs after it."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setattr(clang, "fetched_compiler", lambda: None)
    plain = [name for name in ("/usr/bin", "/bin") if os.path.isdir(name)]
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), *plain]))
    return folder


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def fake(tmp_path: Path, body: str) -> Compiler:
    path = script(tmp_path / "cc", body)
    return Compiler((str(path),), "cc", "24", True, "option")


def compile_with(tmp_path: Path, body: str, *, timeout: float = 20.0) -> CompileResult:
    return run_compiler(fake(tmp_path, body), ["-c"], source="int x;", timeout=timeout)


# What a fake needs to know where to write.
OUTPUT = 'while [ $# -gt 1 ]; do shift; [ "$1" = -o ] && out="$2"; done\n'


# --- finding ----------------------------------------------------------------


def test_named_compilers_come_first_in_the_order_named(tmp_path: Path, path: Path) -> None:
    script(path / "clang-24", MODERN)
    old, new = script(tmp_path / "old", OLD), script(tmp_path / "new one", MODERN)
    found = find_compilers([str(old), f"{shlex.quote(str(new))} -fsome-flag", str(old)])
    assert [(c.version, c.stack_arguments, c.source) for c in found] == [
        ("21.1.8", False, "option"),
        ("24.0.1", True, "option"),
    ]
    assert found[1].command == (str(new), "-fsome-flag")
    assert found[0].name == str(old)


def test_environment_comes_before_the_path(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(path / "clang-24", MODERN)
    old = script(tmp_path / "old", OLD)
    monkeypatch.setenv("CROSSCHECK_CLANG", str(old))
    (found,) = find_compilers()
    assert (found.source, found.command, found.stack_arguments) == (
        "environment",
        (str(old),),
        False,
    )


def test_highest_clang_on_path_that_has_the_feature(path: Path) -> None:
    script(path / "clang", MODERN)
    script(path / "clang-9", MODERN)
    script(path / "clang-24", MODERN)
    script(path / "clang-100", OLD)
    script(path / "clang-format-99", MODERN)
    (found,) = find_compilers()
    assert (found.name, found.source) == ("clang-24", "path")


def test_plain_clang_is_the_last_on_path(path: Path) -> None:
    script(path / "clang", MODERN)
    script(path / "clang-22", OLD)
    assert find_compilers()[0].command == (str(path / "clang"),)


def test_without_any_the_message_says_what_to_install(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(path))
    for fetch in (False, True):
        with pytest.raises(HarnessError, match=r"dnf install clang.*--clang") as caught:
            find_compilers(fetch=fetch, progress=silent)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/nowhere/clang", "not there or not executable"),
        ("'unbalanced", "no command line"),
        ("  ", "names no command"),
        ("/bin/false", "does not answer --version"),
        ("/etc/passwd", "not there or not executable"),
    ],
)
def test_bad_option_is_one_line(command: str, message: str) -> None:
    with pytest.raises(HarnessError, match=message) as caught:
        find_compilers([command])
    assert "--clang" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_compiler_that_is_no_clang_may_be_named(tmp_path: Path) -> None:
    other = script(tmp_path / "gcc", '[ "$1" = --version ] && echo "gcc (GCC) 16.2.0" || exit 1')
    (found,) = find_compilers([str(other)])
    assert (found.version, found.stack_arguments) == ("16.2.0", False)


def test_a_compiler_that_needs_much_address_space_is_not_limited(tmp_path: Path) -> None:
    # The limit comes a moment after the start.
    body = 'sleep 0.2; [ "$(ulimit -v)" = unlimited ] || exit 1\n'
    sanitized = script(tmp_path / "asan", body + MODERN)
    (found,) = find_compilers([str(sanitized)])
    assert not found.limited
    assert found.stack_arguments


def test_relative_commands_work_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "mine", MODERN)
    monkeypatch.chdir(tmp_path)
    (found,) = find_compilers(["./mine"])
    assert found.command == (str(tmp_path / "mine"),)
    assert found.name == "./mine"


def test_tools_older_than_clang_are_passed_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "fetched_tool", lambda _: None)
    script(path / "llvm-nm-22", "echo LLVM version 22.1.8")
    with pytest.raises(HarnessError, match="llvm-nm 23 or newer"):
        find_tool("llvm-nm", fetch=False)
    script(path / "llvm-nm", "echo LLVM version 23.1.4")
    assert find_tool("llvm-nm", fetch=False) == (str(path / "llvm-nm"),)


def test_report_names_versions_and_hints(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(path))
    script(path / "gcc", "echo 'gcc (Debian 12.2.0-14) 12.2.0'")
    report = tools_report()
    assert report["gcc"].version == "12.2.0-14"
    assert report["python"].version
    assert report["unicorn"].version
    assert report["LLVM of llvmlite"].version
    assert report["cvise"].version is None
    assert "apt install" in report["cvise"].hint
    for name, tool in report.items():
        assert (tool.version is None) == bool(tool.hint), name


# --- running ----------------------------------------------------------------


def test_output_and_warnings(tmp_path: Path) -> None:
    result = compile_with(tmp_path, f'{OUTPUT}cat > "$out"; echo "warning: w" >&2')
    assert result.ok
    assert result.output == b"int x;"
    assert result.diagnostics == "warning: w\n"
    assert result.why == ""


def test_errors_are_results(tmp_path: Path) -> None:
    result = compile_with(tmp_path, 'echo "x.c:1: error: too many" >&2; exit 1')
    assert (result.ok, result.output) == (False, None)
    assert (result.crashed, result.timed_out) == (False, False)
    assert result.why == "x.c:1: error: too many"


def test_success_without_output_is_no_success(tmp_path: Path) -> None:
    assert not compile_with(tmp_path, "exit 0").ok


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("kill -SEGV $$", "it said nothing"),
        (
            'echo "PLEASE submit a bug report to" >&2; echo "0.\tProgram arguments" >&2;'
            'echo "1.\tRunning pass" >&2; exit 139',
            "Running pass",
        ),
        ('echo "LLVM ERROR: Cannot select: t3" >&2; exit 1', "LLVM ERROR: Cannot select: t3"),
        (
            'echo "clang: error: clang frontend command failed with exit code 70" >&2; exit 70',
            "clang: error: clang frontend command failed with exit code 70",
        ),
    ],
)
def test_crashes_are_told_from_errors(tmp_path: Path, body: str, why: str) -> None:
    result = compile_with(tmp_path, body)
    assert result.crashed
    assert not result.ok
    assert result.why == f"the compiler crashed: {why}"


def test_running_out_of_our_memory_limit_is_no_crash(tmp_path: Path) -> None:
    result = compile_with(tmp_path, 'echo "LLVM ERROR: out of memory" >&2; exit 1')
    assert not result.crashed
    assert not result.ok


def test_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    began = time.monotonic()
    result = compile_with(tmp_path, f"(sleep 1; touch {mark}) & sleep 60", timeout=0.3)
    assert result.timed_out
    assert not result.crashed
    assert time.monotonic() - began < 20
    time.sleep(1.2)
    assert not mark.exists()


def test_what_a_compiler_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    result = compile_with(tmp_path, f'{OUTPUT}(sleep 1; touch {mark}) & echo > "$out"')
    assert result.ok
    time.sleep(1.2)
    assert not mark.exists()


def test_a_flood_of_diagnostics_is_cut(tmp_path: Path) -> None:
    result = compile_with(tmp_path, "yes 'error: no' | head -c 5000000 >&2; exit 1")
    assert len(result.diagnostics) == 1 << 20
    assert result.why == "error: no"


def test_a_full_disk_is_no_fault_of_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """clang, whose output does not fit, fails and cannot even say why: stderr is there, too."""

    def full(*_arguments: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ToolError, match=r"No space left on device: make room, or .* \$TMPDIR"):
        compile_with(tmp_path, "exit 1")


def test_memory_is_limited(tmp_path: Path) -> None:
    result = run_compiler(
        fake(tmp_path, f'{OUTPUT}sleep 0.3; ulimit -v > "$out"'),
        [],
        source="",
        memory=1 << 30,
    )
    assert result.output == b"1048576\n"


def test_missing_compiler_is_wrong_usage(tmp_path: Path) -> None:
    gone = Compiler((str(tmp_path / "gone"),), "gone", "1", True, "option")
    with pytest.raises(HarnessError, match="cannot start the compiler"):
        run_compiler(gone, [], source="")


# --- kept builds ------------------------------------------------------------


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """A compiler that counts its calls, copies its input and reports a.h as needed."""
    compiler = fake(
        tmp_path,
        f'echo x >> {tmp_path}/calls; for a; do case "$p" in -o) out="$a";; -MF) mf="$a";; esac; '
        f'p="$a"; done; cat - {tmp_path}/inc/a.h > "$out"; '
        f'echo "output: {tmp_path}/inc/a.h" > "$mf"',
    )
    (tmp_path / "inc").mkdir()
    (tmp_path / "inc" / "a.h").write_text("one\n")
    monkeypatch.setattr(builds, "identity", lambda _: "known")
    return compiler


def calls(tmp_path: Path) -> int:
    return len((tmp_path / "calls").read_text().split())


def test_builds_are_kept_until_something_changes(tmp_path: Path, counting: Compiler) -> None:
    args = ["-I", str(tmp_path / "inc")]

    def build(source: str = "int x;\n", *extra: str) -> CompileResult:
        return run_compiler(counting, [*args, *extra], source=source)

    first, second = build(), build()
    assert (first.cached, second.cached) == (False, True)
    assert (first.output, first.diagnostics) == (second.output, second.diagnostics)
    assert not build("int y;\n").cached
    assert not build("int x;\n", "-O2").cached
    (tmp_path / "inc" / "a.h").write_text("two\n")
    changed = build()
    assert not changed.cached
    assert changed.output == b"int x;\ntwo\n"
    assert build().cached
    (tmp_path / "inc" / "new.h").touch()  # may hide another
    assert not build().cached
    assert calls(tmp_path) == 5


def test_cache_can_be_switched_off(
    tmp_path: Path, counting: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_compiler(counting, [], source="int x;")
    run_compiler(counting, [], source="int x;")
    assert calls(tmp_path) == 1
    monkeypatch.setattr(builds, "identity", lambda _: pytest.fail("looked at the cache"))
    script(tmp_path / "cc", f'{OUTPUT}echo x >> {tmp_path}/calls; cat > "$out"')
    run_compiler(counting, [], source="int x;", cache=False)
    monkeypatch.setenv("CROSSCHECK_NO_CACHE", "1")
    run_compiler(counting, [], source="int x;")
    assert calls(tmp_path) == 3


@pytest.mark.parametrize("source", ["int t = __LINE__; char d[] = __DATE__;", "#if __TIME__\n"])
def test_what_tells_the_time_is_not_kept(counting: Compiler, source: str) -> None:
    assert builds.Key.of(counting, [], source, None) is None


@pytest.mark.parametrize("arg", ["-fplugin=x.so", "@args", "-save-temps", "-MMD", "--config=a"])
def test_what_reads_more_than_it_tells_is_not_kept(counting: Compiler, arg: str) -> None:
    assert builds.Key.of(counting, [arg], "", None) is None
    assert builds.Key.of(counting, ["-mcpu=v4", "-Xclang", "-disable-llvm-passes"], "", None)


def test_damaged_builds_are_made_again(counting: Compiler, cache: Path) -> None:
    run_compiler(counting, [], source="int x;")
    for kept in cache.glob("builds/*/*.build"):
        kept.write_bytes(kept.read_bytes()[:-3])
    assert not run_compiler(counting, [], source="int x;").cached
    for kept in cache.glob("builds/*/*.needs"):
        kept.write_bytes(b"{")
    again = run_compiler(counting, [], source="int x;")
    assert (again.ok, again.cached) == (True, False)
    assert run_compiler(counting, [], source="int x;").cached


def test_a_cache_that_cannot_be_written_is_no_fault(counting: Compiler, cache: Path) -> None:
    cache.mkdir()
    (cache / "builds").write_text("in the way")
    assert run_compiler(counting, [], source="int x;").ok


def test_scripts_hide_what_they_run_and_are_not_trusted(tmp_path: Path) -> None:
    builds.identity.cache_clear()
    assert builds.identity((str(script(tmp_path / "wrapper", MODERN)),)) is None
    assert builds.identity(("/bin/sh", "-c")) is None
    assert builds.identity(("/bin/sh",)) is not None


def test_least_recently_used_builds_go_first() -> None:
    paths = [builds.place(f"{number:064}", "build") for number in range(10)]
    for number, path in enumerate(paths):
        builds.store(path, bytes(1000))
        os.utime(path, (number, number))
    os.utime(paths[0], (100, 100))
    builds.trim(capacity=5000, force=True)
    kept = [number for number, path in enumerate(paths) if path.exists()]
    assert kept == [0, 8, 9]


def test_prerequisites_unescape() -> None:
    rule = "output: a.c \\\n  b\\ c.h d$$.h \\\n e\\#f.h\n"
    assert builds.prerequisites(rule) == ["a.c", "b c.h", "d$.h", "e#f.h"]
    assert builds.prerequisites("output:\n") == []


# --- the real thing ---------------------------------------------------------


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    if CACHE is None:
        monkeypatch.delenv("CROSSCHECK_CACHE")
    else:
        monkeypatch.setenv("CROSSCHECK_CACHE", CACHE)
    return find_compilers()[0]


def test_real_clang_compiles_stack_arguments(real: Compiler) -> None:
    assert real.stack_arguments
    args = ["-g", "-O2", "--target=bpf", "-mcpu=v4", "-c"]
    result = run_compiler(real, args, source=clang.SAMPLE, cache=False)
    assert result.ok, result.why
    assert result.output is not None
    assert result.output.startswith(b"\x7fELF\x02\x01\x01")
    assert b"\x7b\x1b" in result.output or b"\x7b\x2b" in result.output  # stx [r11 - 8k]


def test_real_clang_keeps_builds_and_sees_headers_change(
    real: Compiler, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSCHECK_CACHE", str(cache))
    builds.identity.cache_clear()
    if builds.identity(real.command) is None:
        pytest.skip(f"builds of {real.name} are not kept: it is a script")
    header, source = tmp_path / "src" / "a.h", tmp_path / "src" / "a.c"
    source.parent.mkdir()
    header.write_text("#define N 1\n")
    source.write_text('#include <stddef.h>\n#include "a.h"\nsize_t f(void) { return N; }\n')
    args = ["-O2", "--target=bpf", "-c"]
    assert [run_compiler(real, args, source=source).cached for _ in range(2)] == [False, True]
    header.write_text("#define N 2\n")
    assert not run_compiler(real, args, source=source).cached


def test_real_clang_crashes_are_recognised(real: Compiler) -> None:
    for trouble in ("crash", "llvm_fatal_error"):
        text = f"#pragma clang __debug {trouble}\n"
        result = run_compiler(real, ["--target=bpf", "-c"], source=text)
        assert (result.ok, result.crashed) == (False, True)
    result = run_compiler(real, ["--target=bpf", "-c"], source="int x = ;")
    assert (result.ok, result.crashed) == (False, False)
    assert "expected expression" in result.why


def test_real_clang_takes_several_inputs(real: Compiler, tmp_path: Path) -> None:
    """With more than one job clang starts itself again, which a launcher must survive."""
    for name in ("a.c", "b.c"):
        (tmp_path / name).write_text(f"int {name[0]};\n")
    args = ["--target=bpf", "-c", "-save-temps=obj", str(tmp_path / "a.c")]
    assert run_compiler(real, args).ok
    macros = run_compiler(
        real, ["--target=bpf", "-E", "-include", str(tmp_path / "b.c")], source=""
    )
    assert macros.output is not None
    assert b"int b;" in macros.output


def test_real_tools_know_the_stack_argument_register(real: Compiler, tmp_path: Path) -> None:
    result = run_compiler(real, ["-g", "-O2", "--target=bpf", "-c"], source=clang.SAMPLE)
    assert result.output is not None
    (tmp_path / "a.o").write_bytes(result.output)
    done = clang.ask([*find_tool("llvm-objdump"), "-d", str(tmp_path / "a.o")])
    assert done.code == 0, done.stderr
    assert b"(r11 + 0x8)" in done.stdout
