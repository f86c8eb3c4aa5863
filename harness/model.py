"""The vocabulary: what the stages hand to each other (DESIGN.md, Vocabulary).

Values only. A program's behaviour is a value (``Outcome``, ``Verdict``); only a
fault of ours, or wrong usage, raises a ``HarnessError``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, overload

from harness.btf import Btf
from harness.isa.insn import Insn


class HarnessError(Exception):
    """A fault of ours or wrong usage; the message is one line and names what to do."""


# --- programs ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MapDef:
    """A BPF map as the object declares it."""

    name: str
    type: int  # BPF_MAP_TYPE_*: 1 hash, 2 array
    key_size: int  # bytes
    value_size: int  # bytes
    max_entries: int
    flags: int = 0
    data: bytes | None = None  # initial value of .data, .rodata, .bss and their kin
    readonly: bool = False  # .rodata: frozen, the program may not write (BPF_F_RDONLY_PROG)
    key_type: int = 0  # BTF type ids, 0: none
    value_type: int = 0
    extra: int = 0  # map_extra: hash functions of a bloom filter, address of an arena
    inner: MapDef | None = None  # what a map of maps holds


@dataclass(frozen=True, slots=True)
class Subprogram:
    """One function of a program: slots ``start`` up to ``end``, excluded."""

    name: str
    start: int  # slot
    end: int  # slot
    linkage: str = "static"  # "static" or "global": how the verifier treats calls of it
    type_id: int = 0  # id of its BTF func, 0: none


@dataclass(frozen=True, slots=True)
class Frame:
    """What the verifier learnt of one subprogram that a JIT builds its frame from."""

    stack_depth: int  # bytes of program stack, before rounding
    tail_call_reachable: bool = False  # it, or a subprogram that it calls, makes a tail call
    exception_boundary: bool = False  # main of a program that may throw
    exception_callback: bool = False
    private_stack: bool = False  # program stack in per-CPU memory, not below rbp


@dataclass(frozen=True, slots=True)
class LineInfo:
    """Where an instruction comes from (BTF.ext line_info)."""

    insn: int  # slot
    file: str
    text: str  # the source line
    line: int
    column: int


DEFAULT_LICENSE = "Dual BSD/GPL"  # of programs that come without one


@dataclass(frozen=True, slots=True)
class Program:
    """One BPF program, linked: main first, then every subprogram it reaches.

    ``LoadImm`` of maps uses kinds 5 and 6 (index into *maps*, offset in the high
    half); kind 4 and subprogram calls are relative slots. A ``Call`` of kind kfunc
    has in *imm* an index of *kfuncs*.
    """

    name: str
    section: str  # ELF section, which names the program type
    type: str  # "syscall", "xdp", "tc", "socket_filter", ...: load.sections
    insns: tuple[Insn, ...]  # by slot
    subprograms: tuple[Subprogram, ...]  # by start; [0] is main
    maps: tuple[MapDef, ...] = ()
    kfuncs: tuple[str, ...] = ()
    btf: Btf | None = None
    lines: tuple[LineInfo, ...] = ()
    attach: str = ""  # what follows the type in the section name, e.g. a function for fentry
    attach_type: str = ""  # the expected attach type BPF_*, lower case; empty: 0
    sleepable: bool = False
    license: str = DEFAULT_LICENSE
    frames: tuple[Frame, ...] = ()  # by subprogram; empty: not verified, a JIT infers them
    kfunc_btf: Btf | None = None  # the kernel's prototypes of *kfuncs*; None: not at hand
    kfunc_flags: tuple[tuple[str, int], ...] = ()  # KF_*, of those of a module that have some
    kfunc_code: bytes = b""  # relocatable x86-64 object that defines them; empty: not at hand
    helper_code: bytes = b""  # the same of the helpers that have one
    indirect: tuple[int, ...] = ()  # slots that indirect jumps may lead to
    symbols: tuple[tuple[int, str], ...] = ()  # slot, the kernel's name of its immediate's address

    def subprogram_at(self, slot: int) -> int:
        """Return the index of the subprogram that holds *slot*."""
        for index, subprogram in enumerate(self.subprograms):
            if subprogram.start <= slot < subprogram.end:
                return index
        raise HarnessError(f"{self.name}: slot {slot} is in no subprogram")


# --- verdicts ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accepted:
    """The verifier accepts the program."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The verifier refuses the program."""

    insn: int | None  # slot, None where the refusal names none (BTF, program as a whole)
    message: str  # the kernel's words, first error line


@dataclass(frozen=True, slots=True)
class Unknown:
    """Not modelled or not possible here; agrees with everything, and is counted."""

    why: str


@dataclass(frozen=True, slots=True)
class Crashed(Unknown):
    """A kernel that broke over the program: no verdict, but a fault of the kernel's."""


Verdict = Accepted | Rejected | Unknown


@dataclass(frozen=True, slots=True)
class Verification:
    """A verdict and how it came about."""

    verdict: Verdict
    log: str = ""  # in the kernel's form
    processed: int = 0  # instructions
    seconds: float = 0.0
    frames: tuple[Frame, ...] = ()  # by subprogram, of what is accepted: for a JIT
    dead: frozenset[int] = frozenset()  # slots that no path reached, of what is accepted
    events: frozenset[str] = frozenset()  # what came up: kinds of spills, pruning, refinements


# --- images -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Relocation:
    """A field of an image that depends on an address chosen later."""

    offset: int  # bytes from the start of the subprogram's image
    size: int  # bytes: 8 (absolute), 4 (from the field's end; func, ksym, arena: signed absolute)
    kind: str  # "call", "helper", "kfunc", "map", "data"; "func", "ksym", "thunk", "arena", ...
    target: str  # subprogram, helper number, kfunc, or map name
    addend: int = 0  # data: offset into the map's value; call: offset into the subprogram


@dataclass(frozen=True, slots=True)
class SubImage:
    """What the JIT emitted for one subprogram."""

    name: str
    code: bytes
    addrs: tuple[int, ...]  # native offset of each slot, in order
    relocations: tuple[Relocation, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """What the JIT emitted for a program; ``subprograms[0]`` is the entry."""

    arch: str  # "x86_64"
    subprograms: tuple[SubImage, ...]


# --- execution --------------------------------------------------------------

Vector = bytes  # the bytes of the context the entry program reads its arguments from


@dataclass(slots=True, unsafe_hash=True)  # frozen ones take three times as long to make
class Returned:
    """The program ended with ``exit``; never changed, though made without the guard."""

    r0: int  # unsigned 64-bit
    ctx: bytes  # the context afterwards
    effects: bytes | None = b""  # records of ring buffers, in order; None: not looked at


@dataclass(frozen=True, slots=True)
class Trapped:
    """The program did what no program may: a bad access, a bad instruction."""

    kind: str  # "access", "divide", "instruction", "stack", "call", "undefined"
    where: str = ""  # slot or native offset, for people


@dataclass(frozen=True, slots=True)
class OutOfFuel:
    """The program ran longer than it was given."""


Outcome = Returned | Trapped | OutOfFuel | Unknown


def outcome_json(outcome: Outcome | Verdict) -> dict[str, Any]:
    """Return *outcome*, or a verdict in its place, in the form of the command contract."""
    name, r0, ctx, detail = "", None, None, None
    match outcome:
        case Returned():
            name, r0, ctx = "returned", outcome.r0, outcome.ctx.hex()
        case Trapped():
            name = "trapped"
            detail = ": ".join(filter(None, (outcome.kind, outcome.where)))
        case OutOfFuel():
            name = "fuel"
        case Unknown():
            name, detail = "unknown", outcome.why
        case Accepted():
            name = "accepted"
        case Rejected():
            name, detail = "rejected", outcome.message
    return {"outcome": name, "r0": r0, "ctx": ctx, "detail": detail}


class Batch(Sequence[Outcome]):
    """The outcomes of a batch, kept as columns: most return, and are compared by the column.

    Equal to any sequence of equal outcomes. Not to be changed once it is made.
    """

    __slots__ = ("contexts", "effects", "others", "r0s")

    def __init__(
        self,
        r0s: list[int],
        contexts: list[bytes],
        others: Mapping[int, Outcome] | None = None,
        effects: Mapping[int, bytes | None] | None = None,
    ) -> None:
        self.r0s = r0s  # by vector
        self.contexts = contexts  # by vector; of the same length
        self.others: Mapping[int, Outcome] = (
            others or {}
        )  # by vector: the outcomes that did not return
        self.effects: Mapping[int, bytes | None] = (
            effects or {}
        )  # by vector: those that are not empty

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Batch:
        """Return *outcomes* as columns."""
        if isinstance(outcomes, Batch):
            return outcomes
        others = {i: o for i, o in enumerate(outcomes) if not isinstance(o, Returned)}
        r0s = [o.r0 if isinstance(o, Returned) else 0 for o in outcomes]
        contexts = [o.ctx if isinstance(o, Returned) else b"" for o in outcomes]
        effects = {
            i: o.effects
            for i, o in enumerate(outcomes)
            if isinstance(o, Returned) and o.effects != b""
        }
        return cls(r0s, contexts, others, effects)

    def __len__(self) -> int:
        return len(self.r0s)

    @overload
    def __getitem__(self, index: int) -> Outcome: ...
    @overload
    def __getitem__(self, index: slice) -> Batch: ...
    def __getitem__(self, index: int | slice) -> Outcome | Batch:
        if isinstance(index, slice):
            others: dict[int, Outcome] = {}
            effects: dict[int, bytes | None] = {}
            if self.others or self.effects:
                chosen = list(enumerate(range(len(self))[index]))
                others = {new: self.others[old] for new, old in chosen if old in self.others}
                effects = {new: self.effects[old] for new, old in chosen if old in self.effects}
            return Batch(self.r0s[index], self.contexts[index], others, effects)
        if index < 0:
            index += len(self)
        if index in self.others:
            return self.others[index]
        return Returned(self.r0s[index], self.contexts[index], self.effects.get(index, b""))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        batch = Batch.of(other)
        if not self.others and not batch.others:
            same = self.r0s == batch.r0s and self.contexts == batch.contexts
            return same and self.effects == batch.effects
        return list(self) == list(batch)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Batch({list(self)!r})"


class Runner(Protocol):
    """One program made ready on one leg."""

    def run(self, vectors: Sequence[Vector]) -> Sequence[Outcome]:
        """Return one outcome for each of *vectors*, in order; never raises for what they do."""
        ...


# --- builds and comparisons -------------------------------------------------


# The axes of builds
OPTS = ("0", "1", "2", "3", "s")
MCPUS = ("v1", "v2", "v3", "v4")
LINKAGES = ("hidden", "static")


@dataclass(frozen=True, slots=True, order=True)
class BuildConfig:
    """One way to compile a source to BPF."""

    compiler: str  # the command as the user names it
    opt: str  # of OPTS
    mcpu: str  # of MCPUS
    linkage: str  # of LINKAGES

    def __str__(self) -> str:
        return f"-O{self.opt} -mcpu={self.mcpu} {self.linkage}"


@dataclass(frozen=True, slots=True)
class Mask:
    """Which bits of a context two legs must agree on; padding is left out."""

    bits: bytes  # as long as the context


@dataclass(frozen=True, slots=True)
class Divergence:
    """Two legs, one vector, two outcomes that disagree; or two verifiers, two verdicts."""

    legs: tuple[str, str]
    vector: Vector  # of verdicts: empty
    outcomes: tuple[Outcome | Verdict, Outcome | Verdict]
    offset: int | None = None  # first differing byte of the context; None: r0 or the kind differs
    notes: tuple[str, ...] = field(default=())
