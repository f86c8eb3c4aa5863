"""Faults planted in every component: each is blamed on the right one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.toolchain import Compiler, find_compilers
from harness.triage.facts import (
    AGREES,
    CLANG,
    CRASH,
    INTERPRETER,
    JIT,
    REFUSED,
    UNDEFINED,
    VERIFIER,
    WRONG_CODE,
)
from harness.triage.session import Triage, triage
from harness.triage.targets import target_of

HARNESS = Path(harness.__file__).parent
REFUSED_SOURCES = HARNESS.parent / "c_sources" / "refused"

MIXED = """\
#include <stdint.h>

static __attribute__((noinline)) int64_t inner(int64_t a, int64_t b, int64_t c, int64_t d,
	int64_t e, int64_t f, int64_t g, int8_t h)
{
	if (f > g)
		return ((a ^ b) & 0xffffff) + 3 * (f >> 5) + h;
	return (c & d & 0xffff) + e * (g >> 3) - h + 70001;
}

uint64_t mixed(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f, int64_t g,
	int8_t h)
{
	return (uint64_t)inner(a, b & 255, c, d, e & 255, f >> 8, g >> 8, h) * 3 + (uint64_t)a;
}
"""


# --- ours -------------------------------------------------------------------

# fmt: off
OURS = {
    # name                what is changed in a copy of the harness, once
    "jit slots":         (JIT, "jit/x86_64.py", "self.bottom - off - 2 * SLOT_SIZE",
                          "self.bottom - off - 3 * SLOT_SIZE"),
    "jit shift":         (JIT, "jit/x86_insns.py", "(x.SAR_r1,   x.SAR_ri8,",
                          "(x.SAR_r1,   x.SHR_ri8,"),
    "jit condition":     (JIT, "jit/x86_64.py", '"sge": x.GE, "sle": x.LE,',
                          '"sge": x.AE, "sle": x.BE,'),
    "jit extension":     (JIT, "jit/x86_insns.py", "\nSIGNED_LOADS = {1: x.MOVSX8_rm,",
                          "\nSIGNED_LOADS = {1: x.MOVZX8_rm,"),
    "interp multiply":   (INTERPRETER, "interp.py", "lambda a, b, _: a * b,",
                          "lambda a, b, _: a * (b & 0xFFFF) + 1,"),
    "interp shift":      (INTERPRETER, "interp.py", '"arsh": lambda a, b, n: signed(a, n) >>',
                          '"arsh": lambda a, b, n: a >>'),
    "interp condition":  (INTERPRETER, "interp.py",
                          '"sle": lambda a, b, n: signed(a, n) <= signed(b, n)',
                          '"sle": lambda a, b, n: a <= b'),
    "interp exclusive":  (INTERPRETER, "interp.py", '"xor":  lambda a, b, _: a ^ b,',
                          '"xor":  lambda a, b, _: a | b,'),
    "verifier slots":    (VERIFIER, "verifier/memory.py", "    if slot >= MAX_SLOTS:",
                          "    if slot >= 2:"),
    "verifier incoming": (VERIFIER, "verifier/memory.py", "    if slot + 1 > incoming:",
                          "    if slot + 1 >= incoming:"),
}
ACCEPTS = {
    # name                what is changed, and a program that must be refused
    "verifier unwritten": ("verifier/call.py", "for slot in range(count - REG_ARGS):",
                           "for slot in range(0):", "slots.c"),
    "verifier order":     ("verifier/memory.py", "    if frame.no_arg_load:",
                           "    if frame.no_arg_load and not off:", "slots.c"),
}
# fmt: on


def changed_copy(tmp_path: Path, file: str, old: str, new: str) -> Path:
    """Return a folder with a copy of the harness in which *old*, once in *file*, is *new*."""
    root = tmp_path / "copy"
    shutil.copytree(
        HARNESS, root / "harness", ignore=shutil.ignore_patterns("__pycache__", "tests")
    )
    path = root / "harness" / file
    text = path.read_text()
    assert text.count(old) == 1, f"{file} has {text.count(old)} of {old!r}"
    path.write_text(text.replace(old, new))
    return root


def triaged(root: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "triage", *arguments, "--json", "-"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.stdout, done.stderr
    (row,) = json.loads(done.stdout)["triaged"]
    assert done.returncode == 1, done.stderr
    return dict(row)


@pytest.mark.parametrize("name", OURS)
def test_a_fault_of_ours_is_ours(name: str, tmp_path: Path, clang: Sequence[str]) -> None:
    cause, file, old, new = OURS[name]
    root = changed_copy(tmp_path, file, old, new)
    path = tmp_path / "mixed.c"
    path.write_text(MIXED)
    row = triaged(
        root, str(path), "--function", "mixed", "--clang", clang[0], "--mcpu", "v4",
        "--no-reduce", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert row["cause"] == cause, json.dumps(row["experiments"], indent=1)
    assert (tmp_path / "out" / "mixed-mixed.md").read_text().startswith(f"# {cause}")


@pytest.mark.parametrize("name", ACCEPTS)
def test_a_verifier_that_accepts_too_much(name: str, tmp_path: Path, clang: Sequence[str]) -> None:
    file, old, new, source = ACCEPTS[name]
    root = changed_copy(tmp_path, file, old, new)
    row = triaged(
        root, str(REFUSED_SOURCES / source), "--clang", clang[0], "--no-reduce",
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert row["cause"] == VERIFIER, json.dumps(row["experiments"], indent=1)
    assert re.search("accepts wrongly|must say|not broken", row["detail"])


# --- the compiler -----------------------------------------------------------

WRAPPER = """\
#!{python}
import re, subprocess, sys
arguments = sys.argv[1:]
bpf = "--target=bpf" in arguments and "-c" in arguments and "-S" not in arguments
if not bpf or "-disable-llvm-passes" in arguments or "assembler" in arguments:
    sys.exit(subprocess.run([*{clang!r}, *arguments]).returncode)
name = arguments[arguments.index("-o") + 1]
def assembled(change):
    source = sys.stdin.read()
    command = [*{clang!r}, *arguments, "-S", "-o", name + ".s"]
    done = subprocess.run(command, input=source, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    text = change(open(name + ".s").read())
    open(name + ".s", "w").write(text)
    target = [a for a in arguments if a.startswith(("--target", "-mcpu"))]
    sys.exit(subprocess.run(
        [*{clang!r}, *target, "-c", "-x", "assembler", name + ".s", "-o", name]).returncode)
def patched(change):
    status = subprocess.run([*{clang!r}, *arguments]).returncode
    if status == 0:
        data = open(name, "rb").read()
        open(name, "wb").write(change(data))
    sys.exit(status)
{body}
"""

SWAP = """\
def swap(text):
    text = text.replace("(r11 - 24) =", "(r11 - X) =").replace("(r11 - 16) =", "(r11 - 24) =")
    return text.replace("(r11 - X) =", "(r11 - 16) =")
assembled(swap)"""
CRASHING = """\
sys.stderr.write("PLEASE submit a bug report to the moon\\n1. Running pass 'BPF' on function\\n")
sys.exit(134)"""

# fmt: off
COMPILERS = {
    # name              class        what it does to the output
    "swapped slots":   (WRONG_CODE, SWAP),
    "wrong offset":    (WRONG_CODE, 'assembled(lambda t: t.replace("(r11 + 16)", "(r11 + 8)"))'),
    "lost sign":       (WRONG_CODE, 'assembled(lambda t: t.replace(" s>>= ", " >>= "))'),
    "wrong register":  (WRONG_CODE,
                        r'assembled(lambda t: re.sub(r"([rw])(\d) \^= ..", r"\1\2 ^= \g<1>4", t))'),
    "dropped store":   (WRONG_CODE,
                        r'assembled(lambda t: re.sub(r"\n[^\n]*\(r11 - 16\) =.*", "", t))'),
    "wrong constant":  (WRONG_CODE, 'patched(lambda d: d.replace((70001).to_bytes(4, "little"), '
                                    '(70002).to_bytes(4, "little")))'),
    "damaged BTF":     (WRONG_CODE,
                        r'patched(lambda d: d.replace(b"\x9f\xeb\x01\0", b"\x9f\xeb\x02\0"))'),
    "crash":           (CRASH, CRASHING),
}
# fmt: on


def wrapper(tmp_path: Path, clang: Sequence[str], body: str) -> Compiler:
    path = tmp_path / "odd-clang"
    path.write_text(WRAPPER.format(python=sys.executable, clang=list(clang), body=body))
    path.chmod(0o755)
    return find_compilers([str(path)])[0]


@pytest.mark.parametrize("name", COMPILERS)
def test_a_damaged_build_is_the_compilers(name: str, tmp_path: Path, clang: Sequence[str]) -> None:
    cause, body = COMPILERS[name]
    odd = wrapper(tmp_path, clang, body)
    path = tmp_path / "mixed.c"
    path.write_text(MIXED)
    target = target_of(
        path, function="mixed", compilers=[odd], build=("2", "v3", "hidden"), vectors=32
    )
    result = triage(target, shrink=False)
    assert result.diagnosis.cause == cause, result.diagnosis
    if cause == WRONG_CODE:
        assert result.diagnosis.confidence in ("certain", "high"), result.diagnosis
    if name in ("swapped slots", "wrong offset", "lost sign", "wrong register", "wrong constant"):
        assert result.wrong is not None
        assert "assembly has" in result.wrong_why


# --- the source -------------------------------------------------------------

# fmt: off
UNDEFINED_SOURCES = {
    "uninitialised": "int f(int a, int b, int c, int d, int e, int g, int h)"
                     "{ int x; if (a > b) x = c; return x + d + e + g + h; }",
    "division":      "int f(int a, int b, int c, int d, int e, int g, int h)"
                     "{ return (a + 0u) / (h & 1u) + b + c; }",
    "overflow":      "int f(int a, int b, int c, int d, int e, int g, int h)"
                     "{ return (h + 1 > h) + (g + 2147483647 > g) * 2; }",
    "shift":         "int f(int a, int b, int c, int d, int e, int g, int h)"
                     "{ unsigned n = 31u + (a & 7u); return (int)(1u << n) + ((1u << n) == 0u); }",
}
# fmt: on


@pytest.mark.parametrize("name", UNDEFINED_SOURCES)
def test_undefined_behaviour_is_the_sources(name: str, tmp_path: Path, compiler: Compiler) -> None:
    path = tmp_path / "source.c"
    path.write_text(UNDEFINED_SOURCES[name] + "\n")
    target = target_of(path, compilers=[compiler], vectors=32)
    result = triage(target, shrink=False)
    assert result.diagnosis.cause == UNDEFINED, result.diagnosis
    assert result.diagnosis.cause not in CLANG


def test_a_right_refusal_of_real_code(compiler: Compiler) -> None:
    path = HARNESS.parent / "c_sources" / "address_taken.c"
    target = target_of(
        path, function="address_arguments", compilers=[compiler], build=("3", "v3", "static")
    )
    result: Triage = triage(target, shrink=False)
    if result.diagnosis.cause == AGREES:
        assert compiler.version > "23.1.4"  # mended since
        return
    assert result.diagnosis.cause == REFUSED
    assert result.diagnosis.confidence in ("high", "certain")
    assert result.bisection is not None
    assert result.bisection.step is not None
    assert "deadargelim" in result.bisection.step.name.lower().replace(" ", "")
