"""``crosscheck plugin``: the bpf_conformance plugin protocol.

The runner starts one process a test: memory as a hexadecimal first argument (absent when
the test has none), the program as hexadecimal text on standard input, r0 in hexadecimal
on standard output, any message on standard error with status 1. Imports are lazy for
that reason. Raw programs carry no BTF, so a subprogram's argument count is inferred
from its highest incoming slot.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.model import HarnessError

if TYPE_CHECKING:
    from harness.model import Program, Runner, Unknown

USAGE = "usage: crosscheck plugin [MEMORY] [--jit | --interpret] [--no-verify] [--elf]"


def plugin(argv: Sequence[str]) -> int:
    """Run the program on standard input as *argv* says; return the exit status."""
    arguments = list(argv)
    memory = arguments.pop(0) if arguments and not arguments[0].startswith("--") else ""
    known = {"--jit", "--interpret", "--no-verify", "--elf"}
    try:
        for argument in arguments:
            if argument not in known:
                raise HarnessError(f"no option {argument}; {USAGE}")
        print(f"{_run(memory, set(arguments)):x}")
    except HarnessError as error:
        print(f"crosscheck plugin: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _run(memory: str, options: set[str]) -> int:
    from harness.model import Returned, Unknown

    program = _program(sys.stdin.buffer.read(), elf="--elf" in options)
    try:
        ctx = bytes.fromhex(memory)
    except ValueError:
        raise HarnessError(f"memory is hexadecimal bytes; {USAGE}") from None
    if "--no-verify" not in options:
        _verify(program)
    runner = _prepare(program, interpret="--interpret" in options)
    if isinstance(runner, Unknown):
        raise HarnessError(runner.why)
    (outcome,) = runner.run([ctx])
    if not isinstance(outcome, Returned):
        raise HarnessError(f"the program did not return: {outcome}")
    return outcome.r0


def _program(data: bytes, *, elf: bool) -> Program:
    if elf:
        from harness.load import load_object

        try:
            binary = bytes.fromhex(data.decode("ascii"))
        except ValueError:
            binary = data
        loaded = load_object(binary, path="<stdin>")
        if loaded.programs:
            return loaded.programs[0]
        if loaded.functions:
            return loaded.link(loaded.functions[0], "syscall")
        raise HarnessError("the object holds no program")
    from harness.load import raw_program

    try:
        code = bytes.fromhex(data.decode("ascii"))
    except ValueError:
        raise HarnessError("the program is hexadecimal text on standard input") from None
    return raw_program(code)


def _verify(program: Program) -> None:
    from harness import verifier
    from harness.model import Rejected

    options = verifier.Options(infer_arguments=program.btf is None)
    verdict = verifier.verify(program, log_level=0, options=options).verdict
    if isinstance(verdict, Rejected):
        where = f" at insn {verdict.insn}" if verdict.insn is not None else ""
        raise HarnessError(f"refused{where}: {verdict.message}")


def _prepare(program: Program, *, interpret: bool) -> Runner | Unknown:
    if interpret:
        from harness.legs.interp import InterpLeg

        return InterpLeg().prepare(program)
    from harness import verifier
    from harness.legs.jit import JitLeg

    return JitLeg().prepare(verifier.fixup(program))
