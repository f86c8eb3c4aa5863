"""Faults planted in every component, for tests and for the benchmark `triage`.

Each is a wrong rule in a copy of the harness, a compiler wrapper that damages what clang
writes, or C with undefined behaviour; and what triage must blame for it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.triage.facts import (
    CRASH,
    INTERPRETER,
    JIT,
    UNDEFINED,
    VERIFIER,
    WRONG_CODE,
)

HARNESS = Path(harness.__file__).parent
REFUSED_SOURCES = HARNESS.parent / "c_sources" / "refused"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault and who is to be blamed."""

    name: str
    kind: str  # "jit", "interpreter", "verifier", "compiler", "source"
    cause: str  # the verdict
    file: str = ""  # of the harness, in which *old* becomes *new*
    old: str = ""
    new: str = ""
    source: str = ""  # a file of c_sources/refused, or C
    wrapper: str = ""  # what the compiler wrapper does


@dataclass(frozen=True, slots=True)
class Planted:
    """A fault in place."""

    root: Path  # where the harness is that has it, or not
    arguments: tuple[str, ...]  # of `crosscheck triage`


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

# fmt: off
OURS = (
    Fault("jit slots", "jit", JIT, "jit/x86_64.py",
          "self.bottom - off - 2 * SLOT_SIZE", "self.bottom - off - 3 * SLOT_SIZE"),
    Fault("jit shift", "jit", JIT, "jit/x86_insns.py",
          "(x.SAR_r1,   x.SAR_ri8,", "(x.SAR_r1,   x.SHR_ri8,"),
    Fault("jit condition", "jit", JIT, "jit/x86_64.py",
          '"sge": x.GE, "sle": x.LE,', '"sge": x.AE, "sle": x.BE,'),
    Fault("jit extension", "jit", JIT, "jit/x86_insns.py",
          "\nSIGNED_LOADS = {1: x.MOVSX8_rm,", "\nSIGNED_LOADS = {1: x.MOVZX8_rm,"),
    Fault("interp multiply", "interpreter", INTERPRETER, "interp.py",
          "lambda a, b, _: a * b,", "lambda a, b, _: a * (b & 0xFFFF) + 1,"),
    Fault("interp shift", "interpreter", INTERPRETER, "interp.py",
          '"arsh": lambda a, b, n: signed(a, n) >>', '"arsh": lambda a, b, n: a >>'),
    Fault("interp condition", "interpreter", INTERPRETER, "interp.py",
          '"sle": lambda a, b, n: signed(a, n) <= signed(b, n)', '"sle": lambda a, b, n: a <= b'),
    Fault("interp exclusive", "interpreter", INTERPRETER, "interp.py",
          '"xor":  lambda a, b, _: a ^ b,', '"xor":  lambda a, b, _: a | b,'),
    Fault("verifier slots", "verifier", VERIFIER, "verifier/memory.py",
          "    if slot >= MAX_SLOTS:", "    if slot >= 2:"),
    Fault("verifier incoming", "verifier", VERIFIER, "verifier/memory.py",
          "    if slot + 1 > incoming:", "    if slot + 1 >= incoming:"),
    Fault("verifier needless", "verifier", VERIFIER, "verifier/depth.py",
          "        if sub.max_out > outgoing:",
          "        if sub.max_out and sub.max_out >= outgoing:"),
    Fault("verifier late", "verifier", VERIFIER, "verifier/memory.py",
          "    if frame.no_arg_load:", "    if frame.no_arg_load or off > SLOT_SIZE:"),
    Fault("verifier accepts unwritten", "verifier", VERIFIER, "verifier/call.py",
          "    for slot in range(count - REG_ARGS):", "    for slot in range(0):", "slots.c"),
    Fault("verifier accepts order", "verifier", VERIFIER, "verifier/memory.py",
          "    if frame.no_arg_load:", "    if frame.no_arg_load and not off:", "slots.c"),
    Fault("verifier accepts needless", "verifier", VERIFIER, "verifier/depth.py",
          "        if sub.max_out > outgoing:", "        if sub.max_out > outgoing + 7:",
          "slots.c"),
    Fault("verifier accepts tail call", "verifier", VERIFIER, "verifier/depth.py",
          "            if sub.stack_arg_cnt:\n                raise Refused(\"tail_calls",
          "            if sub.stack_arg_cnt > 7:\n                raise Refused(\"tail_calls",
          "functions.c"),
    Fault("verifier dead code", "verifier", VERIFIER, "verifier/check.py",
          "unreached(env.insns, env.seen) if accepted and 0 in env.seen else",
          "frozenset({env.count - 4}) if accepted else"),
)
# fmt: on

WRAPPER = """\
#!{python} -IS
import os, sys
arguments = sys.argv[1:]
bpf = "--target=bpf" in arguments and "-c" in arguments and "-S" not in arguments
if not bpf or "-disable-llvm-passes" in arguments or "assembler" in arguments:
    os.execvp({clang[0]!r}, [*{clang!r}, *arguments])
import re, subprocess
name = arguments[arguments.index("-o") + 1]
def assembled(change):
    source = sys.stdin.read()
    command = [*{clang!r}, *arguments, "-S", "-o", name + ".s"]
    done = subprocess.run(command, input=source, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    # clang 23 prints 32-bit moves in a way that its own assembler does not take
    text = re.sub(r"(?m)^(\\s+)r(\\d+ = w\\d+)$", r"\\1w\\2", open(name + ".s").read())
    text = change(text)
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
COMPILERS = (
    Fault("swapped slots", "compiler", WRONG_CODE, wrapper=SWAP),
    Fault("wrong offset", "compiler", WRONG_CODE,
          wrapper='assembled(lambda t: t.replace("(r11 + 16)", "(r11 + 8)"))'),
    Fault("lost sign", "compiler", WRONG_CODE,
          wrapper='assembled(lambda t: t.replace(" s>>= ", " >>= "))'),
    Fault("wrong register", "compiler", WRONG_CODE,
          wrapper=r'assembled(lambda t: re.sub(r"([rw])(\d) \^= ..", r"\1\2 ^= \g<1>4", t))'),
    Fault("dropped store", "compiler", WRONG_CODE,
          wrapper=r'assembled(lambda t: re.sub(r"\n[^\n]*\(r11 - 16\) =.*", "", t))'),
    Fault("wrong constant", "compiler", WRONG_CODE,
          wrapper='patched(lambda d: d.replace((70001).to_bytes(4, "little"), '
                  '(70002).to_bytes(4, "little")))'),
    Fault("damaged BTF", "compiler", WRONG_CODE,
          wrapper=r'patched(lambda d: d.replace(b"\x9f\xeb\x01\0", b"\x9f\xeb\x02\0"))'),
    Fault("crash", "compiler", CRASH, wrapper=CRASHING),
)
SOURCES = (
    Fault("uninitialised", "source", UNDEFINED,
          source="int f(int a, int b, int c, int d, int e, int g, int h)"
                 "{ int x; if (a > b) x = c; return x + d + e + g + h; }"),
    Fault("division", "source", UNDEFINED,
          source="int f(int a, int b, int c, int d, int e, int g, int h)"
                 "{ return (a + 0u) / (h & 1u) + b + c; }"),
    Fault("overflow", "source", UNDEFINED,
          source="int f(int a, int b, int c, int d, int e, int g, int h)"
                 "{ return (h + 1 > h) + (g + 2147483647 > g) * 2; }"),
    Fault("shift", "source", UNDEFINED,
          source="int f(int a, int b, int c, int d, int e, int g, int h)"
                 "{ unsigned n = 31u + (a & 7u); return (int)(1u << n) + ((1u << n) == 0u); }"),
)
# fmt: on
FAULTS = (*OURS, *COMPILERS, *SOURCES)


def plant(fault: Fault, folder: Path, clang: Sequence[str]) -> Planted:
    """Put *fault* in place in *folder*; *clang* is the command of the right compiler."""
    root, command = HARNESS.parent, clang[0]
    file, more = folder / "mixed.c", ["--function", "mixed"]
    if fault.file:
        root = changed_copy(fault, folder)
        more += ["--mcpu", "v4"]
    if fault.wrapper:
        command = str(wrapper(fault, folder, clang))
        more += ["-O", "2", "--mcpu", "v3", "--linkage", "hidden"]
    if fault.source.endswith(".c"):
        file, more = REFUSED_SOURCES / fault.source, []
    else:
        file.write_text(fault.source + "\n" if fault.source else MIXED)
        more = more if not fault.source else []
    return Planted(root, (str(file), *more, "--clang", command, "--out", str(folder / "out")))


def changed_copy(fault: Fault, folder: Path) -> Path:
    """Return a folder with a copy of the harness that has *fault*."""
    root = folder / "copy"
    ignored = shutil.ignore_patterns("__pycache__", "tests")
    shutil.copytree(HARNESS, root / "harness", ignore=ignored)
    path = root / "harness" / fault.file
    text = path.read_text()
    assert text.count(fault.old) == 1, f"{fault.file} has {text.count(fault.old)} of {fault.old!r}"
    path.write_text(text.replace(fault.old, fault.new))
    return root


def wrapper(fault: Fault, folder: Path, clang: Sequence[str]) -> Path:
    """Return a compiler that has *fault*."""
    path = folder / "odd-clang"
    text = WRAPPER.format(python=sys.executable, clang=list(clang), body=fault.wrapper)
    path.write_text(text)
    path.chmod(0o755)
    return path
