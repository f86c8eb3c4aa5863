"""The kernel's side of a call out: the project's kernel functions, compiled.

Their C (``source/include/crosscheck``) is compiled twice: for BPF, whose BTF is what the
verifier takes for the kernel's, and by llvmlite for x86-64, which the jit leg puts beside
the image. A program that calls them carries both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

from harness.btf import Btf
from harness.legs.native_code import compile_ir
from harness.load import LoadError, load_object
from harness.model import Program, Unknown
from harness.source.driver import HEADERS, discovery_args, native_args
from harness.toolchain import Compiler, run_compiler

SOURCE = HEADERS / "crosscheck" / "kernel.c"
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
    ir = run_compiler(compiler, [*native_args(), "-fno-builtin"], source=SOURCE)
    if ir.output is None:
        return Unknown(f"no native kernel functions: {ir.why}")
    objects = compile_ir(ir.output.decode(errors="replace"), (LEVEL,))
    if isinstance(objects, Unknown):
        return Unknown(f"no native kernel functions: {objects.why}")
    return KernelSide(btf, objects[0])


def attach(programs: Iterable[Program], compiler: Compiler) -> tuple[Program, ...]:
    """Return *programs*, those that call kernel functions with what the kernel has of them."""
    found = []
    for program in programs:
        if program.kfuncs:
            side = build(compiler)
            if not isinstance(side, Unknown):
                program = replace(program, kfunc_btf=side.btf, kfunc_code=side.code)
        found.append(program)
    return tuple(found)
