"""The ``parity`` verb: ours beside Linux's, program by program and part by part.

Every program of C sources, cases and BPF objects is verified, fixed up, compiled and run by
us and by the Linux of the leg ``kernel``. What an address makes different is masked: our
image says where such fields are, and the kernel names maps by numbers of its own.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from harness import corpus, pipeline, verifier
from harness.compare import agree, first_difference
from harness.corpus import Case, Known
from harness.frames import TAIL_CALL, TAIL_CALL_OPCODE
from harness.isa import codec, disasm
from harness.isa import opcodes as o
from harness.isa.insn import Call, Insn, LoadImm
from harness.jit import text as x86_text
from harness.jit import x86_64
from harness.jit.x86_insns import PROBE_MEM, PROBE_MEM32
from harness.legs import kfuncs
from harness.model import (
    Accepted,
    BuildConfig,
    Crashed,
    HarnessError,
    Image,
    Mask,
    Outcome,
    Program,
    Rejected,
    Relocation,
    Returned,
    SubImage,
    Unknown,
    Vector,
    Verdict,
    Verification,
)
from harness.pipeline import Plan, Settings
from harness.run import Progress, Step, answered, kernel_queue, work
from harness.source import driver
from harness.toolchain.kernel import find_kernel_types

if TYPE_CHECKING:
    from harness.legs.kernel import KernelAnswer
    from harness.legs.kernel_queue import KernelQueue

PARTS = ("verdict", "message", "processed", "log", "translated", "image", "results")
STATES = ("same", "differs", "unknown", "")  # of a part; "": there is nothing to compare
VECTORS = 8  # of each function, where nobody says
# What programs without a signature get for a context: zeros, and bytes that tell their place
PLAIN_CONTEXTS = (bytes(256), bytes(range(256)))
WIDTH = 76  # of a column
AROUND = 3  # lines before and after a difference that are shown


@dataclass(frozen=True, slots=True)
class Difference:
    """Where ours and Linux's first differ in one part of one program."""

    part: str  # one of PARTS
    where: str  # "insn 12", "line 40", "byte 0x1c of f", "vector 3"
    ours: str  # one line
    linux: str
    beside: tuple[tuple[str, str], ...] = ()  # both in columns, around the difference
    known: str | None = None  # the entry of known.toml that explains it

    @property
    def text(self) -> str:
        """One line; what known.toml matches as the message."""
        return f"{self.part}: {self.where}: ours {self.ours}; Linux {self.linux}"


@dataclass(frozen=True, slots=True)
class Subject:
    """A program and what it is run on."""

    source: str  # file, as named
    build: str  # "-O2 -mcpu=v3 hidden", "" where nothing was compiled
    program: Program
    vectors: tuple[Vector, ...] = ()
    mask: Mask | None = None


@dataclass(frozen=True, slots=True)
class Ours:
    """What our stages make of a subject."""

    verification: Verification
    translated: Program | Unknown
    image: Image | Unknown
    outcomes: Mapping[str, Sequence[Outcome]]  # by leg


@dataclass(frozen=True, slots=True)
class Comparison:
    """One program, ours beside Linux's."""

    source: str
    build: str
    program: str
    section: str
    verdicts: tuple[Verdict, Verdict]  # ours, Linux's
    parts: Mapping[str, str]  # part: one of STATES
    whys: tuple[str, ...] = ()  # why parts are unknown
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class Parity:
    """What a comparison of many programs came to."""

    comparisons: tuple[Comparison, ...]
    missing: tuple[str, ...]  # what gave no programs, and why
    seconds: float
    boots: tuple[float, ...]  # seconds each guest took to start

    def count(self, part: str, state: str) -> int:
        """Return in how many programs *part* is *state*."""
        return sum(each.parts.get(part, "") == state for each in self.comparisons)

    @property
    def same(self) -> int:
        """How many programs differ in nothing that was compared."""
        return sum(not each.differences for each in self.comparisons)

    @property
    def ok(self) -> bool:
        """Whether something was compared, all of what was named, and only what is known differs."""
        return (
            bool(self.comparisons)
            and not self.missing
            and all(d.known is not None for c in self.comparisons for d in c.differences)
        )


# --- subjects ---------------------------------------------------------------


def split_paths(paths: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Return *paths* as those of sources, cases and folders, and those of BPF objects."""
    others, objects = [], []
    for name in paths:
        path = Path(name)
        if path.is_file() and path.suffix not in (".c", ".toml"):
            objects.append(path)
        else:
            others.append(name)
    return others, objects


def object_subjects(path: Path, settings: Settings) -> tuple[list[Subject], list[str]]:
    """Return the programs of the BPF object *path*, and what it has beside them."""
    from harness.load import load_object

    try:
        data = path.read_bytes()
    except OSError as error:
        return [], [f"{path}: cannot read it: {error.strerror}"]
    try:
        loaded = load_object(
            data, path=str(path), fill_names=settings.fill_names, kernel_btf=find_kernel_types()
        )
    except HarnessError as error:
        return [], [f"{path}: {str(error).removeprefix(f'{path}: ')}"]
    linked = kfuncs.attach(loaded.programs, settings.front_end)
    subjects = [Subject(str(path), "", p, _plain_vectors(p)) for p in linked]
    return subjects, [f"{path}: {r.name}: {r.why}" for r in loaded.refused]


def build_subjects(
    planned: Plan, config: BuildConfig, settings: Settings
) -> tuple[list[Subject], list[str]]:
    """Compile *planned* as *config* says; return its programs, and what did not become one."""
    built = pipeline.compile_build(planned, config, settings)
    missing = [f"{c.source} {c.build}: {c.function}: {c.detail}" for c in built.checks]
    masks = {driver.entry(p.signature.name): p.mask for p in planned.layouts}
    subjects = []
    for program, vectors in pipeline.built_programs(built, settings):
        run = tuple(vectors) or _plain_vectors(program)
        source, mask = planned.source, masks.get(program.name)
        subjects.append(Subject(source, str(config), program, run, mask))
    if built.data and not subjects:
        missing.append(f"{planned.source} {config}: no program that can be loaded")
    return subjects, missing


def case_subjects(path: Path, settings: Settings) -> tuple[list[Subject], list[str]]:
    """Return the programs of the case *path*: its BPF text, or the builds of its C.

    A case about a kernel that is not at hand has none.
    """
    try:
        case = corpus.read(path)
        if case.source is not None:
            return _source_subjects(case, settings)
        if case.program is None or (case.verify is not None and case.verify.kernel):
            return [], []
        program = corpus.program(case.program, case.name)
    except HarnessError as error:
        return [], [str(error)]
    return [Subject(str(path), "", program, tuple(run.ctx for run in case.runs))], []


def _source_subjects(case: Case, settings: Settings) -> tuple[list[Subject], list[str]]:
    assert case.source is not None
    subjects: list[Subject] = []
    missing: list[str] = []
    with TemporaryDirectory(prefix="crosscheck-") as folder:
        path = Path(folder, f"{case.name}.c")
        path.write_text(case.source.c, encoding="utf-8")
        for compiler in settings.compilers:
            configs = pipeline.case_configs(case, compiler)
            planned = pipeline.plan(path, str(case.path), replace(settings, configs=configs))
            if planned.failure:
                return [], [f"{case.path}: {planned.failure}"]
            for config in configs:
                found, without = build_subjects(planned, config, settings)
                subjects += found
                missing += without
    return subjects, missing


def _plain_vectors(program: Program) -> tuple[Vector, ...]:
    return PLAIN_CONTEXTS if program.type == "syscall" else ()


# --- our side ---------------------------------------------------------------


def ours(
    subject: Subject, settings: Settings, options: verifier.Options, log_level: int = 0
) -> Ours:
    """Return what our stages make of *subject*."""
    program = subject.program
    verification, fixed = verifier.translate(program, log_level=log_level, options=options)
    if not isinstance(verification.verdict, Accepted):
        nothing = Unknown("not accepted")
        return Ours(verification, nothing, nothing, {})
    outcomes: Mapping[str, Sequence[Outcome]] = {}
    if subject.vectors:
        outcomes, _ = pipeline.run_legs(program, subject.vectors, settings)
    if isinstance(fixed, Unknown):
        return Ours(verification, fixed, fixed, outcomes)
    return Ours(verification, fixed, x86_64.compile(fixed), outcomes)


# --- ours beside Linux's ----------------------------------------------------


def compare(subject: Subject, us: Ours, linux: KernelAnswer, *, log: bool = False) -> Comparison:
    """Return how *us* and *linux* differ on *subject*; with *log* in the log, too."""
    parts: dict[str, str] = dict.fromkeys(PARTS, "")
    whys: list[str] = []
    differences: list[Difference] = []

    def note(part: str, found: Difference | Unknown | None) -> None:
        match found:
            case Unknown(why=why):
                parts[part] = "unknown"
                whys.append(f"{part}: {why}")
            case Difference():
                parts[part] = "differs"
                differences.append(found)
            case None:
                parts[part] = "same"

    mine, theirs = us.verification.verdict, linux.verdict
    if isinstance(theirs, Crashed):
        note("verdict", Difference("verdict", "program", _verdict(mine), _verdict(theirs)))
    elif isinstance(mine, Unknown) or isinstance(theirs, Unknown):
        who = "ours" if isinstance(mine, Unknown) else "Linux"
        first = mine if isinstance(mine, Unknown) else theirs
        assert isinstance(first, Unknown)
        note("verdict", Unknown(f"{who}: {first.why}"))
    elif type(mine) is not type(theirs):
        note("verdict", Difference("verdict", "program", _verdict(mine), _verdict(theirs)))
    else:
        note("verdict", None)
        if isinstance(mine, Rejected) and isinstance(theirs, Rejected):
            same = mine.message == theirs.message
            told = Difference("message", "first error line", mine.message, theirs.message)
            note("message", None if same else told)
        else:
            _compare_accepted(subject, us, linux, note)
    if log and parts["verdict"] != "unknown" and not isinstance(theirs, Crashed):
        if linux.truncated:
            note("log", Unknown("Linux's log is longer than what is kept"))
        else:
            note("log", compare_logs(us.verification.log, linux.log))
    return Comparison(
        subject.source,
        subject.build,
        subject.program.name,
        subject.program.section,
        (mine, theirs),
        parts,
        tuple(whys),
        tuple(differences),
    )


def _compare_accepted(
    subject: Subject,
    us: Ours,
    linux: KernelAnswer,
    note: Callable[[str, Difference | Unknown | None], None],
) -> None:
    processed = us.verification.processed, linux.processed
    if processed[0] != processed[1]:
        a, b = (f"{count} instructions processed" for count in processed)
        note("processed", Difference("processed", "program", a, b))
    else:
        note("processed", None)
    other_insns = False
    if isinstance(us.translated, Unknown):
        note("translated", us.translated)
    elif not linux.translated:
        note("translated", Unknown("the kernel does not show them"))
    else:
        translated = compare_translated(us.translated, linux.translated)
        note("translated", translated)
        other_insns = translated is not None
    if isinstance(us.image, Unknown):
        note("image", us.image)
    elif not linux.images:
        note("image", Unknown("the kernel has no image of it"))
    else:
        codes = [(image.name, image.code) for image in linux.images]
        found = compare_program_image(us.translated, us.image, codes)
        if found is not None and other_insns:
            found = replace(found, where=f"{found.where} (of other instructions)")
        note("image", found)
    if subject.vectors:
        note("results", compare_results(us.outcomes, linux.outcomes, subject.mask))


def _verdict(verdict: Verdict) -> str:
    match verdict:
        case Accepted():
            return "accept"
        case Rejected(message=message):
            return f"reject: {message}"
        case Crashed(why=why):
            return f"breaks: {why}"
        case Unknown(why=why):
            return f"unknown: {why}"


def compare_results(
    us: Mapping[str, Sequence[Outcome]], linux: Sequence[Outcome], mask: Mask | None
) -> Difference | Unknown | None:
    """Return the first vector on which a leg of ours does what Linux does not.

    Of r0 the kernel tells the low half.
    """
    why: Unknown | None = None
    compared = False
    for leg, seen in us.items():
        for number, (mine, theirs) in enumerate(zip(seen, linux, strict=False)):
            for outcome in (theirs, mine):
                if isinstance(outcome, Unknown):
                    why = why or outcome
            if isinstance(mine, Unknown) or isinstance(theirs, Unknown):
                continue
            compared = True
            if isinstance(mine, Returned):
                mine = replace(mine, r0=mine.r0 & 0xFFFFFFFF)
            if not agree(mine, theirs, mask):
                return Difference(
                    "results", f"vector {number} on {leg}", *_apart(mine, theirs, mask)
                )
    return None if compared else why or Unknown("nothing ran")


def _apart(mine: Outcome, theirs: Outcome, mask: Mask | None) -> tuple[str, str]:
    if isinstance(mine, Returned) and isinstance(theirs, Returned):
        if mine.r0 != theirs.r0:
            return f"r0 {mine.r0:#x}", f"r0 {theirs.r0:#x}"
        at = first_difference(mine.ctx, theirs.ctx, mask)
        if at is None:
            records = ((each.effects or b"").hex(" ") or "nothing" for each in (mine, theirs))
            a, b = (f"ring buffers hold {each}" for each in records)
            return a, b
        left, right = (ctx[at : at + 8].hex(" ") for ctx in (mine.ctx, theirs.ctx))
        return f"byte {at} {left}", f"byte {at} {right}"
    return str(mine), str(theirs)


# --- translated instructions ------------------------------------------------

_CALL, _LDIMM64 = 0x85, 0x18
_SUBPROG, _HELPER, _KFUNC = 1, 0, 2
_MAP_FD, _MAP_VALUE, _FUNC = 1, 2, 4
_BY_INDEX = {5: _MAP_FD, 6: _MAP_VALUE}


def compare_translated(mine: Program, theirs: bytes) -> Difference | None:
    """Return where Linux's instructions after the fix-ups, *theirs*, first differ from *mine*.

    Linux names maps by their numbers, helpers and kfuncs by addresses, and puts where a
    call leads into its offset (``bpf_insn_prepare_dump``).
    """
    ours = dumped(mine.insns)
    named = dict(mine.symbols)
    slots = max(len(ours), len(theirs)) // 8
    wide = False  # the slot before was the first of two
    source = 0
    for slot in range(slots):
        a, b = ours[8 * slot : 8 * slot + 8], theirs[8 * slot : 8 * slot + 8]
        if wide:
            same = source == _FUNC or slot - 1 in named or a == b
            wide = False
        else:
            same = (slot in named and a[:4] == b[:4]) or _same_insn(a, b)
            wide = a[:1] == bytes([_LDIMM64])
            source = a[1] >> 4 if wide else 0
        if not same:
            return _translated_difference(codec.decode(ours, registers=13), theirs, slot)
    return None


def _same_insn(a: bytes, b: bytes) -> bool:
    if a == b:
        return True
    if len(a) != len(b) or a[0] != b[0]:
        return False
    if a[0] == _CALL:
        kind = a[1] >> 4
        if a[1] != b[1]:
            return False
        if kind == _SUBPROG:  # Linux: where to in the offset, and the number of the function
            to = int.from_bytes(a[4:8], "little", signed=True)
            return b[2:4] == (a[4:6] if -0x8000 <= to <= 0x7FFF else bytes(2))
        return kind in (_HELPER, _KFUNC)  # an address
    if a[0] == _LDIMM64:
        kind = a[1] >> 4
        if kind in _BY_INDEX:
            return b[1] == (a[1] & 0xF) | _BY_INDEX[kind] << 4 and a[2:4] == b[2:4]
        return kind == _FUNC and a[1] == b[1]  # an address
    return False


def dumped(insns: Sequence[Insn]) -> bytes:
    """Return the code of *insns* as Linux shows it (``bpf_insn_prepare_dump``).

    Its own forms of tail calls and of loads and stores that may fault look like the plain.
    """
    out = bytearray(codec.encode(insns))
    wide = False
    for at in range(0, len(out), 8):
        if wide:
            wide = False
            continue
        opcode = out[at]
        wide = opcode == _LDIMM64
        if opcode == TAIL_CALL_OPCODE:
            out[at] = _CALL
            out[at + 4 : at + 8] = TAIL_CALL.to_bytes(4, "little")
        elif opcode & 0xE7 == PROBE_MEM | o.LDX or (
            opcode & 0xE0 == PROBE_MEM32 and opcode & 7 in (o.LDX, o.ST, o.STX)
        ):
            out[at] = opcode & 0x1F | o.MEM
    return bytes(out)


def _readable(code: bytes) -> tuple[Insn, ...]:
    """Return Linux's translated instructions in our form of calls and maps."""
    out = bytearray(code)
    back = {number: index for index, number in _BY_INDEX.items()}
    at = 0
    while at + 8 <= len(out):
        if out[at] == _CALL and out[at + 1] >> 4 == _SUBPROG:
            to = int.from_bytes(out[at + 2 : at + 4], "little", signed=True)
            out[at + 2 : at + 8] = bytes(2) + to.to_bytes(4, "little", signed=True)
        if out[at] == _LDIMM64 and out[at + 1] >> 4 in back:
            out[at + 1] = out[at + 1] & 0xF | back[out[at + 1] >> 4] << 4
        at += 16 if out[at] == _LDIMM64 else 8
    return codec.decode(bytes(out), registers=13)


def _translated_difference(mine: Sequence[Insn], code: bytes, slot: int) -> Difference:
    left = _bpf_lines(mine)
    right = _bpf_lines(_readable(code))
    lines = sorted({*left, *right})
    first = max((at for at in lines if at <= slot), default=0)
    index = lines.index(first)
    shown = lines[max(index - AROUND, 0) : index + AROUND + 1]
    beside = tuple((left.get(at, ""), right.get(at, "")) for at in shown)
    a, b = left.get(first, "<end>"), right.get(first, "<end>")
    return Difference("translated", f"insn {slot}", a, b, beside)


def _bpf_lines(insns: Sequence[Insn]) -> dict[int, str]:
    """Return slot: text, without what is an address or a number of the kernel's."""
    lines = {}
    for slot, line in disasm.disassemble(insns, form="kernel"):
        insn = insns[slot]
        if isinstance(insn, Call) and insn.kind != "subprog":
            line = f"call {insn.kind}"
        elif isinstance(insn, LoadImm) and insn.src:
            line = re.sub(r"= .*", "= <address>", line)
        lines[slot] = f"{slot}: {line}"
    return lines


# --- images -----------------------------------------------------------------


def compare_images(mine: Image, theirs: Sequence[tuple[str, bytes]]) -> Difference | None:
    """Return where the kernel's code, by function, first differs from *mine*, masked."""
    shown = [sub for sub in mine.subprograms if sub.name]  # not where exceptions end
    if len(shown) != len(theirs):
        a, b = (f"{len(each)} functions" for each in (shown, theirs))
        return Difference("image", "program", a, b)
    for sub, (_, code) in zip(shown, theirs, strict=True):
        left, right = masked(sub.code, sub.relocations), masked(code, sub.relocations)
        at = _first_byte(left, right)
        if at is not None:
            return _image_difference(sub, code, at)
    return None


_PERCPU = ("private_stack", "percpu")


def compare_program_image(
    program: Program | Unknown, mine: Image, theirs: Sequence[tuple[str, bytes]]
) -> Difference | None:
    """``compare_images`` of what *program* was compiled to.

    Per-CPU memory may lie near the kernel's image or elsewhere, which takes longer loads.
    """
    found = compare_images(mine, theirs)
    if (
        found is None
        or not isinstance(program, Program)
        or not any(r.kind in _PERCPU for sub in mine.subprograms for r in sub.relocations)
    ):
        return found
    far = x86_64.compile(program, x86_64.Options(near_percpu=False))
    assert isinstance(far, Image)
    subs = tuple(
        away if index < len(theirs) and len(theirs[index][1]) == len(away.code) else near
        for index, (near, away) in enumerate(zip(mine.subprograms, far.subprograms, strict=True))
    )
    return compare_images(replace(mine, subprograms=subs), theirs)


def masked(code: bytes, relocations: Sequence[Relocation]) -> bytes:
    """Return *code* with zeros where a field depends on an address."""
    out = bytearray(code)
    for field_ in relocations:
        end = min(field_.offset + field_.size, len(out))
        if field_.offset < end:
            out[field_.offset : end] = bytes(end - field_.offset)
    return bytes(out)


def _first_byte(a: bytes, b: bytes) -> int | None:
    if a == b:
        return None
    pairs = enumerate(zip(a, b, strict=False))
    return next((at for at, (x, y) in pairs if x != y), min(len(a), len(b)))


def _image_difference(sub: SubImage, code: bytes, at: int) -> Difference:
    left = _x86_lines(sub)
    right = _x86_lines(SubImage(sub.name, code, ()))
    rows = list(zip_longest(left, right, fillvalue=(0, "")))
    index = next(n for n, (a, b) in enumerate(rows) if max(a[0], b[0]) > at)
    shown = rows[max(index - AROUND, 0) : index + AROUND + 1]
    beside = tuple((a[1], b[1]) for a, b in shown)
    a, b = (line or "<end>" for _, line in rows[index])
    return Difference("image", f"byte {at:#x} of {sub.name}", a, b, beside)


def _x86_lines(sub: SubImage) -> list[tuple[int, str]]:
    """Return where each instruction ends, and its text."""
    lines = x86_text.disassemble(sub)
    return [(at + len(code), f"{at:x}: {line}") for at, code, line in lines]


# --- logs -------------------------------------------------------------------

_PASSES = re.compile(r"subprog#\d+: analyzing |subprog#\d+ |stack use/def |topo_order\[")
_LIVE_REGS = re.compile(r"(\s+\d+)?\s*\d+: [.0-9]{10} ")
_ADDRESS = re.compile(r"(\(18\) r\d+ = )0x([0-9a-f]+)")
_SPACES = re.compile(r"\s+(?=;)")


def states(log: str) -> list[str]:
    """Return the lines of a level 2 *log* that follow the program: instructions and states.

    Left out are the passes before it (the analysis of the stack, the order of functions,
    live registers), the report in prose behind a refusal, and how long it all took.
    """
    lines: list[str] = []
    passes = live = report = last = False
    for line in log.splitlines():
        if line.startswith("Verification failed: "):
            report, last = True, False
            if lines and not lines[-1]:
                lines.pop()
        report = report and not line.startswith("processed ")
        if report:  # a blank line behind what it suggests ends it; more of the error may follow
            report = not (last and not line)
            last = last or line == "Suggestion:"
            continue
        if passes or live:
            if line == "Live regs before insn:":
                passes, live = False, True
                continue
            if passes or _LIVE_REGS.match(line):
                continue
            live = False
        if line == "Live regs before insn:":
            live = True
            continue
        if _PASSES.match(line):
            passes = not line.startswith("topo_order[")
            continue
        if line.startswith("verification time "):
            continue
        lines.append(_SPACES.sub(" ", line.rstrip()))
    return lines


def compare_logs(mine: str, theirs: str) -> Difference | None:
    """Return the first line in which the logs differ, addresses aside."""
    left, right = states(mine), states(theirs)
    for number, (a, b) in enumerate(zip_longest(left, right, fillvalue="<end>")):
        if a == b or _same_but_address(a, b):
            continue
        shown = range(max(number - AROUND, 0), number + AROUND + 1)
        beside = tuple(
            (left[n] if n < len(left) else "", right[n] if n < len(right) else "") for n in shown
        )
        return Difference("log", f"line {number + 1}", a, b, beside)
    return None


def _same_but_address(a: str, b: str) -> bool:
    told = _ADDRESS.search(b)
    if told is None or int(told[2], 16) < 0xFFFF_8000_0000_0000:
        return False
    return _ADDRESS.sub(r"\1", a) == _ADDRESS.sub(r"\1", b)


# --- the verb ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Subjects and our side of each, from one step in a worker."""

    subjects: tuple[Subject, ...]
    ours: tuple[Ours, ...]
    missing: tuple[str, ...]


def _prepare(
    find: Callable[..., tuple[list[Subject], list[str]]],
    arguments: tuple[Any, ...],
    settings: Settings,
    log_level: int,
) -> _Prepared:
    subjects, missing = find(*arguments)
    options = verifier.Options(kernel_btf=find_kernel_types())
    mine = tuple(ours(subject, settings, options, log_level) for subject in subjects)
    return _Prepared(tuple(subjects), mine, tuple(missing))


def _with_log(subject: Subject, us: Ours, linux: KernelAnswer) -> tuple[Comparison, ...]:
    options = verifier.Options(kernel_btf=find_kernel_types())
    verification = verifier.verify(subject.program, log_level=2, options=options)
    again = replace(us, verification=verification)
    return (compare(subject, again, linux, log=True),)


@dataclass(slots=True)
class _State:
    queue: KernelQueue
    settings: Settings
    log: bool
    done: int = 0
    total: int = 0
    missing: list[str] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)


def parity(
    sources: Sequence[tuple[str, Path]],
    cases: Sequence[Path],
    objects: Sequence[Path],
    settings: Settings,
    *,
    known: Sequence[Known] = (),
    log: bool = False,
    jobs: int | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Parity:
    """Compare every program of *sources*, *cases* and *objects*, ours beside Linux's.

    With *log* every log is compared state by state; without, those of programs whose
    verdict or first error line differ. Raises HarnessError where no Linux can be had.
    """
    began = time.monotonic()
    settings = replace(settings, legs=("interp", "jit", "kernel"))
    with kernel_queue(settings) as queue:
        assert queue is not None
        state = _State(queue, settings, log, total=len(sources) + len(cases) + len(objects))
        level = 2 if log else 0

        def finished(result: Any) -> Iterator[Step]:
            what = ""
            match result:
                case Plan():
                    what = result.source
                    if result.failure:
                        state.missing.append(f"{result.source}: {result.failure}")
                    for config in _configs(result, settings):
                        state.total += 1
                        arguments = (build_subjects, (result, config, settings), settings, level)
                        yield Step(_prepare, arguments, _lost(state, f"{result.source} {config}"))
                case _Prepared():
                    state.missing += result.missing
                    if result.subjects:
                        what = f"{result.subjects[0].source} {result.subjects[0].build}"
                        state.total += 1
                        yield _ask(result, state)
                case tuple():
                    state.comparisons += result
                    what = result[0].source if result else ""
            state.done += 1
            progress(Progress(state.done, state.total, what))

        steps = [
            Step(pipeline.plan, (path, name, settings), _lost(state, name))
            for name, path in sources
        ]
        found: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
            (case_subjects, (p, settings)) for p in cases
        ]
        found += [(object_subjects, (p, settings)) for p in objects]
        steps += [
            Step(_prepare, (find, arguments, settings, level), _lost(state, str(arguments[0])))
            for find, arguments in found
        ]
        work(steps, finished, jobs or len(os.sched_getaffinity(0)))
        boots = tuple(queue.leg.boots)
    order = {name: n for n, name in enumerate([n for n, _ in sources] + [str(p) for p in cases])}
    builds = {str(config): number for number, config in enumerate(settings.configs)}
    comparisons = sorted(
        state.comparisons,
        key=lambda c: (order.get(c.source, len(order)), c.source, builds.get(c.build, 0)),
    )
    return Parity(
        tuple(explain(each, known) for each in comparisons),
        tuple(state.missing),
        time.monotonic() - began,
        boots,
    )


def _lost(state: _State, name: str) -> Callable[[str], Any]:
    def lost(why: str) -> tuple[Comparison, ...]:
        state.missing.append(f"{name}: {why}")
        return ()

    return lost


def _configs(planned: Plan, settings: Settings) -> Iterator[BuildConfig]:
    seen = set()
    for config in settings.configs:
        same = replace(config, linkage="") if planned.programs else config
        if same in seen or (planned.mcpus and config.mcpu not in planned.mcpus):
            continue
        seen.add(same)
        yield config


def _ask(prepared: _Prepared, state: _State) -> Step:
    """Return the question about *prepared*; it is compared here, except for logs."""

    def heard(answers: Sequence[KernelAnswer]) -> Iterator[Step]:
        found, again = [], []
        for subject, us, answer in zip(prepared.subjects, prepared.ours, answers, strict=True):
            comparison = compare(subject, us, answer, log=state.log)
            differ = {"verdict", "message"} & {d.part for d in comparison.differences}
            if differ and not state.log:
                again.append((subject, us))
            else:
                found.append(comparison)
        yield Step(answered, (tuple(found),), ask=True)
        for subject, us in again:
            state.total += 1
            yield _ask_log(subject, us, state)

    items = [(subject.program, subject.vectors) for subject in prepared.subjects]
    level = 2 if state.log else 0

    def submit() -> Future[list[KernelAnswer]]:
        return state.queue.submit(items, log_level=level, images=True)

    return Step(submit, ask=True, then=heard)


def _ask_log(subject: Subject, us: Ours, state: _State) -> Step:
    def heard(answers: Sequence[KernelAnswer]) -> Iterator[Step]:
        yield Step(_with_log, (subject, us, answers[0]), _lost(state, subject.program.name))

    def submit() -> Future[list[KernelAnswer]]:
        return state.queue.submit([(subject.program, ())], log_level=2)

    return Step(submit, ask=True, then=heard)


def explain(comparison: Comparison, known: Sequence[Known]) -> Comparison:
    """Return *comparison* with the entries of *known* that explain its differences."""
    differences = []
    for difference in comparison.differences:
        name, build = comparison.program, comparison.build
        for entry in known:
            if entry.matches("parity", comparison.source, name, build, difference.text):
                difference = replace(difference, known=entry.id)
                break
        differences.append(difference)
    return replace(comparison, differences=tuple(differences))


# --- results ----------------------------------------------------------------


def parity_json(parity: Parity) -> dict[str, Any]:
    """Return *parity* as JSON values."""
    return {
        "summary": {
            "programs": len(parity.comparisons),
            "same": parity.same,
            "parts": {p: {s: parity.count(p, s) for s in STATES if s} for p in PARTS},
            "seconds": round(parity.seconds, 3),
            "boots": [round(seconds, 3) for seconds in parity.boots],
            "missing": list(parity.missing),
        },
        "programs": [
            {
                "source": c.source,
                "build": c.build or None,
                "name": c.program,
                "section": c.section,
                "verdicts": dict(zip(("ours", "linux"), map(_verdict, c.verdicts), strict=True)),
                "parts": {part: state or None for part, state in c.parts.items()},
                "unknown": list(c.whys),
                "differences": [
                    {
                        "part": d.part,
                        "where": d.where,
                        "ours": d.ours,
                        "linux": d.linux,
                        "beside": [list(row) for row in d.beside],
                        "known": d.known,
                    }
                    for d in c.differences
                ],
            }
            for c in parity.comparisons
        ],
    }


def parity_text(parity: Parity, *, most: int = 20) -> str:
    """Return *parity* for people: counts, then each kind of difference with one example."""
    lines = [f"{'':<12}{'same':>8}{'differs':>9}{'unknown':>9}"]
    for part in PARTS:
        counts = {state: parity.count(part, state) for state in STATES}
        if counts["same"] or counts["differs"] or counts["unknown"]:
            row = f"{counts['same']:>8}{counts['differs']:>9}{counts['unknown']:>9}"
            lines.append(f"{part:<12}{row}")
    told: Counter[str] = Counter()
    for comparison in parity.comparisons:
        for difference in comparison.differences:
            if difference.known:
                told[difference.known] += 1
    lines += [f"{count} differences: known as {name}" for name, count in sorted(told.items())]
    new = [(c, d) for c in parity.comparisons for d in c.differences if d.known is None]
    for comparison, difference in new[:most]:
        lines += ["", *_difference_lines(comparison, difference)]
    if len(new) > most:
        lines += ["", f"and {len(new) - most} more differences (--json has all)"]
    whys = Counter(why for c in parity.comparisons for why in c.whys)
    if whys:
        lines += ["", "Unknown"]
        lines += [f"  {count} {why}" for why, count in whys.most_common(most)]
    if parity.missing:
        lines += ["", "No programs"]
        lines += [f"  {why}" for why in list(dict.fromkeys(parity.missing))[:most]]
    boots = ", ".join(f"{seconds:.1f}" for seconds in parity.boots)
    lines += [
        "",
        f"{len(parity.comparisons)} programs, {parity.same} differ in nothing; "
        f"{parity.seconds:.1f} s, guests started in {boots or 'no'} s",
    ]
    return "\n".join(lines) + "\n"


def _difference_lines(comparison: Comparison, difference: Difference) -> list[str]:
    lines = [
        f"{comparison.source} {comparison.program} {comparison.build}".rstrip(),
        f"  {difference.part}, {difference.where}",
    ]
    if not difference.beside:
        return [*lines, f"    ours:  {difference.ours}", f"    Linux: {difference.linux}"]
    width = min(max(len(left) for left, _ in difference.beside), WIDTH)
    for left, right in difference.beside:
        here = (left or "<end>", right or "<end>") == (difference.ours, difference.linux)
        mark = ">" if here else " "
        lines.append(f"  {mark} {left[:WIDTH]:<{width}} | {right[:WIDTH]}".rstrip())
    return lines
