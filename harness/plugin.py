"""``crosscheck plugin``: the bpf_conformance plugin protocol.

The runner starts one process a test: memory as a hexadecimal first argument (absent when
the test has none), the program as hexadecimal text on standard input, r0 in hexadecimal
on standard output; status 1 and a line on standard error for a refusal or a trap, 2 for
wrong usage. Imports are lazy because of that one process a test.

The program finds the address of its memory in r1 and the memory's length in r2: one
instruction, ``r2 = length``, is put before it. Raw programs carry no BTF, so the argument
count of a subprogram is inferred from its highest incoming slot.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.model import HarnessError

if TYPE_CHECKING:
    from harness.model import Program, Runner, Unknown

USAGE = "usage: crosscheck plugin [MEMORY] [--jit | --interpret] [--no-verify] [--elf]"
OPTIONS = frozenset({"--jit", "--interpret", "--no-verify", "--elf"})


class UsageError(HarnessError):
    """The command line is wrong."""


def plugin(argv: Sequence[str]) -> int:
    """Run the program on standard input as *argv* says; return the exit status."""
    arguments = list(argv)
    if "--help" in arguments:
        print(USAGE)
        return 0
    memory = arguments.pop(0) if arguments and not arguments[0].startswith("--") else ""
    try:
        print(f"{_run(memory, arguments):x}")
    except HarnessError as error:
        print(f"crosscheck plugin: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


def _run(memory: str, options: Sequence[str]) -> int:
    """Return what r0 holds at the end; raises HarnessError where there is no end."""
    from harness.model import Returned, Unknown

    for option in options:
        if option not in OPTIONS:
            raise UsageError(f"no option {option}; {USAGE}")
    if "--jit" in options and "--interpret" in options:
        raise UsageError(f"either --jit or --interpret; {USAGE}")
    try:
        ctx = bytes.fromhex(memory)
    except ValueError:
        raise UsageError(f"memory is hexadecimal bytes; {USAGE}") from None
    program = _program(sys.stdin.buffer.read(), elf="--elf" in options)
    program = _handed_length(program, len(ctx))
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
    try:
        code = bytes.fromhex(data.decode("ascii"))
    except ValueError:
        if not elf:
            raise UsageError("the program is hexadecimal text on standard input") from None
        code = data
    if not elf:
        from harness.load.raw import raw_program

        return raw_program(code)
    from harness.load.objects import load_object

    loaded = load_object(code, path="<stdin>")
    if loaded.programs:
        return loaded.programs[0]
    if loaded.functions:
        return loaded.link(loaded.functions[0], "syscall")
    raise HarnessError("the object holds no program")


def _handed_length(program: Program, length: int) -> Program:
    """Return *program* behind ``r2 = length``, everything moved on by one slot."""
    from dataclasses import replace

    from harness.isa.insn import R2, Alu
    from harness.isa.targets import function_target, jump_target

    for slot, insn in enumerate(program.insns):
        if -1 in (jump_target(insn, slot), function_target(insn, slot)):
            raise HarnessError(f"refused at insn {slot}: jump out of range from insn {slot} to -1")
    main, *rest = program.subprograms
    return replace(
        program,
        insns=(Alu("mov", 64, R2, None, length), *program.insns),
        subprograms=(
            replace(main, end=main.end + 1),
            *(replace(sub, start=sub.start + 1, end=sub.end + 1) for sub in rest),
        ),
        # a function's first slot has its line, or Linux refuses the line information
        lines=tuple(replace(line, insn=line.insn + (line.insn > 0)) for line in program.lines),
    )


def _verify(program: Program) -> None:
    """Raise HarnessError where the verifier refuses *program*."""
    from harness import verifier
    from harness.model import Rejected, Unknown

    options = verifier.Options(infer_arguments=program.btf is None)
    verdict = verifier.verify(program, log_level=0, options=options).verdict
    if isinstance(verdict, Rejected):
        # the instruction put before the program is not counted
        where = f" at insn {verdict.insn - 1}" if verdict.insn else ""
        raise HarnessError(f"refused{where}: {verdict.message}")
    if isinstance(verdict, Unknown):
        print(f"crosscheck plugin: not verified: {verdict.why}", file=sys.stderr)


def _prepare(program: Program, *, interpret: bool) -> Runner | Unknown:
    if interpret:
        from harness.legs.interp import InterpLeg

        return InterpLeg().prepare(program)
    from harness.legs.jit import JitLeg
    from harness.verifier.fixup import fixup

    return JitLeg().prepare(fixup(program))
