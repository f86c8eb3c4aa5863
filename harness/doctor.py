"""``crosscheck doctor``: what this machine has, and how to get what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.model import HarnessError
from harness.toolchain import Compiler, Tool, find_compilers, tools_report


@dataclass(frozen=True, slots=True)
class Leg:
    """Whether a way to execute works here."""

    available: bool
    why: str | None  # not available: why, and the way out


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found."""

    compilers: tuple[Compiler, ...]
    missing: str  # why there is no compiler, and the way out; "" where there is one
    legs: dict[str, Leg]
    tools: dict[str, Tool]

    @property
    def ok(self) -> bool:
        """Whether ``crosscheck run`` can work."""
        needed = (leg for name, leg in self.legs.items() if name != "kernel")
        return not self.missing and all(leg.available for leg in needed)

    def json(self) -> dict[str, Any]:
        """Return the form of the command contract."""
        return {
            "compilers": [
                {
                    "command": list(c.command),
                    "version": c.version,
                    "stack_arguments": c.stack_arguments,
                    "source": c.source,
                }
                for c in self.compilers
            ],
            "legs": {n: {"available": g.available, "why": g.why} for n, g in self.legs.items()},
            "tools": {name: tool.version for name, tool in self.tools.items()},
        }


def examine(options: Sequence[str] = ()) -> Examination:
    """Look for compilers (*options*: command lines), legs and tools; fetches nothing."""
    missing = ""
    compilers: tuple[Compiler, ...] = ()
    try:
        compilers = tuple(find_compilers(options, fetch=False))
    except HarnessError as error:
        missing = str(error)
    return Examination(compilers, missing, examine_legs(), tools_report())


def examine_legs() -> dict[str, Leg]:
    """Try each leg on the smallest thing it can run."""
    legs = {"interp": _interp, "jit": _jit, "native": _native, "kernel": _kernel}
    return {name: _try(leg) for name, leg in legs.items()}


def _try(leg: Any) -> Leg:
    try:
        why = leg()
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
    return Leg(why is None, why)


def _exit_42(leg: str) -> str | None:
    from harness import pipeline
    from harness.isa.insn import Alu, Exit
    from harness.model import Program, Returned, Subprogram

    insns = (Alu("mov", 64, 0, None, 42), Exit())
    program = Program("doctor", "syscall", "syscall", insns, (Subprogram("doctor", 0, 2),))
    (outcome,) = pipeline.execute(program, leg, [bytes(8)])
    return None if outcome == Returned(42, bytes(8)) else f"42 came back as {outcome}"


def _interp() -> str | None:
    return _exit_42("interp")


def _jit() -> str | None:
    return _exit_42("jit")


def _native() -> str | None:
    from harness.legs import native

    return native.available()


def _kernel() -> str | None:
    """Look for what a guest takes; none is started."""
    from harness.toolchain.kernel import find_kernel, find_qemu

    try:
        find_qemu(fetch=False)
        find_kernel(fetch=False)
    except HarnessError as error:
        return str(error)
    return None


def show(report: Examination) -> None:
    """Print *report* for people."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    console.print("[bold]compilers[/]")
    for compiler in report.compilers:
        good = "passes more than five arguments"
        if not compiler.stack_arguments:
            good = "[red]no stack arguments[/]: clang 23 or newer has them"
        console.print(
            f"  clang {escape(compiler.version)} ({compiler.source}), {good}\n"
            f"    {escape(' '.join(compiler.command))}"
        )
    if report.missing:
        console.print(f"  [red]{escape(report.missing)}[/]")
        console.print("  on Debian and its kin, crosscheck run fetches one by itself")
    console.print("[bold]legs[/]")
    for name, leg in report.legs.items():
        state = "[green]works[/]" if leg.available else f"[red]no[/]: {escape(leg.why or '')}"
        console.print(f"  {name:<8} {state}")
    console.print("[bold]tools[/]")
    for name, tool in report.tools.items():
        state = escape(tool.version) if tool.version else f"[yellow]missing[/]: {escape(tool.hint)}"
        console.print(f"  {name:<22} {state}")
