"""What a case file holds, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.isa.stack_args import Dialect
from harness.model import DEFAULT_LICENSE, MapDef

KERNELS = ("no-jit", "no-stack-args")
CROSSCHECKS = ("agree", "diverge", "rejected", "compile_error")


@dataclass(frozen=True, slots=True)
class FunctionDecl:
    """The prototype of a subprogram written as BPF text."""

    name: str
    args: tuple[str, ...]  # type names: u8 to u64, s8 to s64, bool, ptr, ctx
    linkage: str = "static"


@dataclass(frozen=True, slots=True)
class ProgramText:
    """``[program]``: BPF text; each label that is called begins a subprogram."""

    asm: str
    type: str = "syscall"
    attach_type: str = ""  # the expected attach type BPF_*, lower case
    attach: str = ""  # what it attaches to: a function, a hook, a tracepoint, an iterator
    sleepable: bool = False
    license: str = DEFAULT_LICENSE
    kfuncs: tuple[str, ...] = ()  # kernel functions, which the text calls by their number
    dialect: Dialect = "r11"
    functions: tuple[FunctionDecl, ...] = ()
    maps: tuple[MapDef, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()  # map, the kernel's struct its values begin with


@dataclass(frozen=True, slots=True)
class SourceText:
    """``[source]``: C, compiled by the clang at hand."""

    c: str
    opts: tuple[str, ...] = ("2",)
    mcpus: tuple[str, ...] = ("v3",)
    linkages: tuple[str, ...] = ("hidden",)
    tree: str = ""  # what the generator's program behind *c* is, packed (harness/grow/packing.py)


@dataclass(frozen=True, slots=True)
class VerifyCheck:
    """``[verify]``: the verdict, and for a refusal its first error line."""

    verdict: str  # "accept", "reject", "unknown"
    message: str | None = None
    insn: int | None = None
    log: str | None = None
    kernel: str = ""  # one of KERNELS: without a JIT, or with one that lacks stack arguments


@dataclass(frozen=True, slots=True)
class RunCheck:
    """``[[run]]``: one vector; every leg must do this with it."""

    ctx: bytes
    outcome: str = "returned"  # "returned", "trapped", "fuel"
    r0: int | None = None
    after: bytes | None = None  # None: as before
    legs: tuple[str, ...] = ()  # none named: interp and jit; Linux is asked about all

    @property
    def ours(self) -> tuple[str, ...]:
        """The legs of ours that must do it."""
        return tuple(leg for leg in self.legs or ("interp", "jit") if leg != "kernel")


@dataclass(frozen=True, slots=True)
class Case:
    """One case file."""

    path: Path
    note: str = ""
    program: ProgramText | None = None
    source: SourceText | None = None
    verify: VerifyCheck | None = None
    jit: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # arch: subprogram: hex
    runs: tuple[RunCheck, ...] = ()
    crosscheck: str | None = None  # outcome of a C source on every build: one of CROSSCHECKS

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem
