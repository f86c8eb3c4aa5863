"""A small kernel's types for tests, compiled from ``kernel_types.c``."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

from elftools.elf.elffile import ELFFile

from harness.btf_lazy import LazyBtf, parse_lazily
from harness.isa.asm import assemble
from harness.load.sections import classify
from harness.model import MapDef, Program, Rejected, Subprogram, Unknown
from harness.toolchain import Compiler, run_compiler
from harness.verifier import Options, verify

SOURCE = Path(__file__).with_name("kernel_types.c")


@cache
def kernel_types(compiler: Compiler) -> LazyBtf:
    """Return the BTF of ``kernel_types.c``."""
    arguments = ["--target=bpf", "-mcpu=v4", "-O2", "-g", "-c", "-Wno-everything"]
    built = run_compiler(compiler, arguments, source=SOURCE)
    assert built.output is not None, built.why
    section = ELFFile(io.BytesIO(built.output)).get_section_by_name(".BTF")
    assert section is not None
    return parse_lazily(section.data())


def program(
    section: str, text: str, *kfuncs: str, maps: tuple[MapDef, ...] = (), sleepable: bool = False
) -> Program:
    """Return *text* as a program of *section*; its calls of kernel functions count *kfuncs*."""
    found = classify(section)
    assembly = assemble(text)
    main = Subprogram("main", 0, len(assembly.insns))
    return Program(
        "main", section, found.type, assembly.insns, (main,), maps, kfuncs,
        attach=found.attach, attach_type=found.attach_type,
        sleepable=found.sleepable or sleepable,
    )  # fmt: skip


def judge(made: Program, kernel: LazyBtf | None, log_level: int = 1) -> tuple[str, str]:
    """Return "accept" and the log, or the message of a refusal, or "unknown: " and why."""
    seen = verify(made, log_level=log_level, options=Options(kernel_btf=kernel))
    match seen.verdict:
        case Rejected(message=message):
            return message, seen.log
        case Unknown(why=why):
            return f"unknown: {why}", seen.log
    return "accept", seen.log
