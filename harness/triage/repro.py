"""C and commands that show it and need nothing of ours."""

from __future__ import annotations

import re
import shlex

from harness.model import Vector
from harness.source import driver
from harness.source.layout import Layout
from harness.source.signature import Scalar, size_of
from harness.triage.facts import REFUSED
from harness.triage.session import Triage

_OURS = re.compile(r"#if defined\(CROSSCHECK_BPF_H\).*?#endif\n", re.DOTALL)
_HEADER = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<(crosscheck/[^>]+)>[^\n]*$", re.MULTILINE)
_STATIC = "#pragma clang attribute push(__attribute__((internal_linkage)), apply_to = function)\n"
_POP = "#ifdef __bpf__\n#pragma clang attribute pop\n#endif\n"


def standalone(result: Triage) -> str:
    """Return C that needs nothing of ours: the function, a program that calls it, a ``main``."""
    planned = result.facts.planned
    text = with_headers(result.subject.c).rstrip() + "\n"
    if not planned.layouts:
        return text
    place = planned.layouts[0]
    defined = (
        v
        for n, v in enumerate(planned.vectors[result.subject.function])
        if n not in result.facts.undefined
    )
    vector = result.diagnosis.vector or next(defined, bytes(place.size))
    if result.subject.config.linkage == "static":
        text = f"#ifdef __bpf__\n{_STATIC}#endif\n{text}{_POP}"
    return text + _program(place, ours="CROSSCHECK_BPF_H" in text) + _main(place, vector)


def with_headers(text: str, depth: int = 8) -> str:
    """Return *text* with the project's headers put in place, those of the compiler as they are."""

    def put(match: re.Match[str]) -> str:
        inner = (driver.HEADERS / match[1]).read_text(encoding="utf-8")
        return re.sub(r"^#pragma once\n", "", inner, flags=re.MULTILINE)

    for _ in range(depth):
        changed = _HEADER.sub(put, text)
        if changed == text:
            break
        text = changed
    return text


def _program(place: Layout, *, ours: bool) -> str:
    """Return the program that reads the arguments from its context and calls the function.

    *ours*: the source uses the project's maps and helpers, which the driver tells where to be.
    """
    text = re.sub(r"(?m)^#line .*\n", "", driver.driver(place))
    text = text.replace(driver.entry(place.signature.name), "entry")
    if not ours:
        text = _OURS.sub("", text).replace("crosscheck_", "")
    license_ = '__attribute__((section("license"), used)) static const char gpl[] = "GPL";'
    if not _plain(place):  # main goes through it as well
        return f"\n{text}\n#ifdef __bpf__\n{license_}\n#endif\n"
    return f"\n#ifdef __bpf__\n{text}\n{license_}\n#endif\n"


def _plain(place: Layout) -> bool:
    """Return whether the function takes and returns numbers only."""
    kinds = [parameter.type for parameter in place.signature.parameters]
    return all(isinstance(kind, Scalar) for kind in kinds) and isinstance(
        place.signature.result, Scalar
    )


def _main(place: Layout, vector: Vector) -> str:
    name = place.signature.name
    head = "\n#ifndef __bpf__\n#include <stdio.h>\n\nint main(void)\n{\n"
    if _plain(place):
        bits = 8 * size_of(place.signature.result) if place.signature.result else 64
        mask = "" if bits == 64 else f" & {(1 << bits) - 1:#x}"
        values = ", ".join(value for _, value in inputs(place, vector))
        body = f'\tprintf("%#llx\\n", (unsigned long long){name}({values}){mask});\n'
    else:
        values = ", ".join(f"{byte:#04x}" for byte in vector) or "0"
        body = (
            f"\tstatic unsigned char ctx[{max(len(vector), 1)}] __attribute__((aligned(16))) =\n"
            f"\t\t{{ {values} }};\n\n\tentry(ctx);\n"
            f'\tfor (int i = 0; i < {len(vector)}; i++)\n\t\tprintf("%02x", ctx[i]);\n'
            '\tprintf("\\n");\n'
        )
    return f"{head}{body}\treturn 0;\n}}\n#endif\n"


def inputs(place: Layout, vector: Vector) -> list[tuple[str, str]]:
    """Return path and value of each scalar of *vector*."""
    whole = int.from_bytes(vector, "little")
    rows = []
    for leaf in place.leaves():
        value = whole >> leaf.bit & (1 << leaf.bits) - 1
        if leaf.type.signed and value >> leaf.bits - 1:
            value -= 1 << leaf.bits
            least = value == -(1 << 63)
            rows.append((leaf.path, f"(-{-value - 1} - 1)" if least else str(value)))
        else:
            rows.append((leaf.path, str(value) if value < 10 else f"{value:#x}"))
    return rows


def commands(result: Triage) -> list[str]:
    """Return the commands that show it, with clang alone."""
    ours = result.facts.built.arguments
    kept, skip = [], False
    for argument in ours:
        if skip:
            skip = False
        elif argument in ("-x", "-idirafter"):
            skip = True
        elif argument != "-c":
            kept.append(argument)
    if result.subject.handed:
        cpu = f"-mcpu={result.subject.config.mcpu}"
        return [
            shlex.join(["clang", *kept, "-S", "repro.c", "-o", "repro.s"]),
            f"clang --target=bpf {cpu} -c repro.s -o repro.o   # the assembler's refusal",
        ]
    found = [shlex.join(["clang", *kept, "-c", "repro.c", "-o", "repro.o"])]
    if result.facts.built.data is not None:
        found.append("llvm-objdump -dr repro.o")
    if result.diagnosis.cause == REFUSED:
        found.append("bpftool prog load repro.o /sys/fs/bpf/repro   # the kernel's refusal")
    if result.facts.planned.layouts:
        found.append("clang -O0 repro.c -o repro && ./repro   # what the C means")
    return found
