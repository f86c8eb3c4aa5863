"""The kernel's side of a call out: the project's kernel functions and helpers, compiled.

The C of kernel functions (``source/include/crosscheck``) is compiled twice: for BPF, whose
BTF is what the verifier takes for the kernel's, and by llvmlite for x86-64, which the jit
leg puts beside the image; that of helpers natively only. A program carries what it calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from harness.btf import Btf
from harness.isa.insn import Call
from harness.legs.native_code import compile_ir
from harness.load import LoadError, load_object
from harness.model import Program, Unknown
from harness.source.driver import HEADERS, discovery_args, native_args
from harness.toolchain import Compiler, run_compiler

SOURCE = HEADERS / "crosscheck" / "kernel.c"
HELPERS = HEADERS / "crosscheck" / "emulated.c"
LEVEL = 2  # llvmlite's; the bodies are no party to any comparison


@dataclass(frozen=True, slots=True)
class KernelSide:
    """The kernel functions a program may call."""

    btf: Btf  # their prototypes
    code: bytes  # a relocatable object for x86-64


@cache
def build(compiler: Compiler) -> KernelSide | Unknown:
    """Compile the kernel functions with *compiler*, and by llvmlite."""
    prototypes = run_compiler(
        compiler, [*discovery_args(), "-DCROSSCHECK_KFUNC_BODIES"], source=SOURCE
    )
    if prototypes.output is None:
        return Unknown(f"no prototypes of kernel functions: {prototypes.why}")
    try:
        btf = load_object(prototypes.output, path=SOURCE.name).btf
    except LoadError as error:
        return Unknown(f"no prototypes of kernel functions: {error}")
    if btf is None:
        return Unknown("no prototypes of kernel functions: the compiler wrote no BTF")
    code = _native(compiler, SOURCE)
    if isinstance(code, Unknown):
        return Unknown(f"no native kernel functions: {code.why}")
    return KernelSide(btf, code)


@cache
def build_helpers(compiler: Compiler) -> bytes | Unknown:
    """Return a relocatable object for x86-64 that defines helpers, by their names."""
    return _native(compiler, HELPERS)


def _native(compiler: Compiler, source: Path) -> bytes | Unknown:
    # -fno-builtin: a loop that copies must not become a call of what is not there
    ir = run_compiler(compiler, [*native_args(), "-fno-builtin"], source=source)
    if ir.output is None:
        return Unknown(ir.why)
    objects = compile_ir(ir.output.decode(errors="replace"), (LEVEL,))
    return objects if isinstance(objects, Unknown) else objects[0]


def wanted(program: Program) -> bool:
    """Say whether *program* calls what ``attach`` gives."""
    return bool(program.kfuncs) or _calls_helpers(program)


def _calls_helpers(program: Program) -> bool:
    return any(isinstance(insn, Call) and insn.kind == "helper" for insn in program.insns)


def attach(programs: Iterable[Program], compiler: Compiler) -> tuple[Program, ...]:
    """Return *programs*, each with what the kernel has of the functions and helpers it calls."""
    found = []
    for program in programs:
        if program.kfuncs:
            side = build(compiler)
            if not isinstance(side, Unknown):
                program = replace(program, kfunc_btf=side.btf, kfunc_code=side.code)
        if _calls_helpers(program):
            helpers = build_helpers(compiler)
            if not isinstance(helpers, Unknown):
                program = replace(program, helper_code=helpers)
        found.append(program)
    return tuple(found)
