"""One program of the selftests: ours, its tags and Linux side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import verifier
from harness.btf import Btf, Func, FuncProto, Param
from harness.isa.insn import PARAMS, Load, Store, StoreImm
from harness.jit import x86_64
from harness.legs.kernel import KernelAnswer
from harness.load import load_object
from harness.model import (
    Accepted,
    HarnessError,
    Image,
    Program,
    Rejected,
    Unknown,
    Verdict,
    Verification,
)
from harness.parity import compare_program_image, compare_translated
from harness.selftests import kmod
from harness.selftests.build import Tree, compile_program
from harness.selftests.tags import FLAGS, Spec, read_spec, tags, unmatched
from harness.toolchain import Compiler
from harness.toolchain.kernel import find_kernel_types


@dataclass(frozen=True, slots=True)
class Question:
    """A program of a file, what its tags say, and what ours makes of it."""

    program: Program
    spec: Spec
    ours: Verification
    unmatched: str | None  # first message that ours does not bear out; None: it does
    image: Image | Unknown
    translated: Program | Unknown  # after the fix-ups


@dataclass(frozen=True, slots=True)
class Row:
    """How one program came out."""

    file: str
    program: str
    section: str
    stack_arguments: bool
    expected: str | None  # by its tags: "accept", "reject", None: they do not tell
    ours: Verdict
    linux: Verdict | None  # None: Linux was not asked
    verdict: str = "unknown"  # "equal", "different", "unknown"
    line: str = ""  # first error line: "equal", "different", "unknown", "": no refusal
    messages: str = ""  # of the tags, in our log: "equal", "different", "": none
    unmatched: str = ""  # the first message that is not there
    linux_messages: str = ""  # as *messages*, of Linux's log
    translated: str = ""  # instructions after the fix-ups, as Linux's: as *line*
    image: str = ""
    why: str = ""  # of what is unknown, "" where nothing is
    processed: int = 0
    seconds: float = 0.0
    known: str | None = None  # the entry of known.toml that explains a difference

    @property
    def reference(self) -> str | None:
        """What Linux does, or else what the tags say it does."""
        if self.linux is None or isinstance(self.linux, Unknown):
            return self.expected
        return word(self.linux)

    @property
    def unsound(self) -> bool:
        """Whether Linux refuses what we accept."""
        return self.verdict == "different" and isinstance(self.ours, Accepted)

    @property
    def text(self) -> str:
        """The difference of verdicts in one line; what known.toml matches as the message."""
        linux = told(self.linux) if self.linux is not None else f"{self.expected} (by its tags)"
        return f"verdict: program: ours {told(self.ours)}; Linux {linux}"

    @property
    def against_tags(self) -> bool:
        """Whether Linux itself does not do what the tags say."""
        if self.expected is None or self.linux is None or isinstance(self.linux, Unknown):
            return False
        return word(self.linux) != self.expected or self.linux_messages == "different"


def word(verdict: Verdict) -> str:
    """Return *verdict* in a word."""
    match verdict:
        case Accepted():
            return "accept"
        case Rejected():
            return "reject"
        case Unknown():
            return "unknown"


def told(verdict: Verdict) -> str:
    """Return *verdict* in a line."""
    match verdict:
        case Rejected(message=message):
            return f"reject: {message}"
        case Unknown(why=why):
            return f"unknown: {why}"
    return word(verdict)


# --- ours -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class File:
    """One file, compiled and judged by us."""

    name: str
    data: bytes  # the object
    questions: tuple[Question, ...]
    refused: tuple[tuple[str, str, Spec, str], ...]  # name, section, spec, why: not loaded
    fault: str = ""  # why there is no program of it at all


@dataclass(frozen=True, slots=True)
class Setting:
    """What all files are compiled and judged with."""

    tree: Tree
    compiler: Compiler
    headers: Path
    system: tuple[Path, ...]


def judge_file(source: Path, setting: Setting) -> File:
    """Compile *source* and verify, fix up and compile each of its programs."""
    built = compile_program(setting.tree, source, setting.compiler, setting.headers, setting.system)
    if built.output is None:
        return File(source.name, b"", (), (), built.why)
    try:
        loaded = load_object(built.output, path=source.name, kernel_btf=find_kernel_types())
    except HarnessError as error:
        return File(source.name, built.output, (), (), str(error))
    btf = loaded.btf
    if btf is None:
        return File(source.name, built.output, (), (), "no BTF")
    specs = {}
    for program in loaded.programs:
        specs[program.name] = read_spec(tags(btf, program.subprograms[0].type_id))
    for refused in loaded.refused:
        specs[refused.name] = read_spec(tags(btf, btf.find(refused.name, Func) or 0))
    if not any(specs.values()):  # no test of the loader's, but one that loads it as a whole
        specs = dict.fromkeys(specs, Spec("accept"))
    functions = None
    if any(program.kfuncs for program in loaded.programs):
        functions = kmod.prototypes(setting.tree, setting.compiler, setting.headers, setting.system)
    questions = []
    for program in loaded.programs:
        spec = specs[program.name]
        if spec is not None and spec.judged:
            named = kmod.attach(_with_names(program, spec, setting), functions)
            questions.append(_judge(named, spec))
    missing = tuple(
        (each.name, each.section, spec, each.why)
        for each in loaded.refused
        if (spec := specs[each.name]) is not None and spec.judged
    )
    return File(source.name, built.output, tuple(questions), missing)


def _judge(program: Program, spec: Spec) -> Question:
    if spec.flags & FLAGS["BPF_F_SLEEPABLE"]:
        program = replace(program, sleepable=True)
    options = verifier.Options(
        jit=spec.jit,
        test_state_freq=bool(spec.flags & FLAGS["BPF_F_TEST_STATE_FREQ"]),
        strict_alignment=bool(spec.flags & FLAGS["BPF_F_STRICT_ALIGNMENT"]),
        kernel_btf=find_kernel_types(),
    )
    level = spec.log_level
    result, fixed = verifier.translate(program, log_level=level, options=options)
    if isinstance(result.verdict, Rejected) and not level:
        # libbpf asks again for the log of a refusal
        result = verifier.verify(program, log_level=1, options=options)
    missing = None
    if not isinstance(result.verdict, Unknown):
        message = unmatched(result.log, spec.messages)
        missing = message.pattern if message is not None else None
    image = fixed if isinstance(fixed, Unknown) else x86_64.compile(fixed)
    short = replace(result, log="")
    return Question(program, spec, short, missing, image, fixed)


def _with_names(program: Program, spec: Spec, setting: Setting) -> Program:
    """Give parameters the names that another object has (``fixup_btf_from_path``)."""
    if not spec.names or program.btf is None:
        return program
    source = setting.tree.programs / Path(spec.names).name.replace(".bpf.o", ".c")
    built = compile_program(setting.tree, source, setting.compiler, setting.headers, setting.system)
    if built.output is None:
        return program
    other = load_object(built.output, path=source.name).btf
    return replace(program, btf=_names_from(program.btf, other)) if other else program


def _names_from(btf: Btf, other: Btf) -> Btf:
    types = list(btf.types)
    for type_id, func in enumerate(btf.types):
        proto = types[func.type] if isinstance(func, Func) else None
        if not isinstance(func, Func) or not isinstance(proto, FuncProto):
            continue
        if not proto.params or proto.params[0].name:
            continue
        found = other.find(func.name, Func)
        named = other.prototype(found) if found else None
        if named is None or len(named.params) != len(proto.params):
            continue
        pairs = zip(proto.params, named.params, strict=True)
        params = tuple(Param(theirs.name, mine.type) for mine, theirs in pairs)
        types.append(replace(proto, params=params))
        types[type_id] = Func(func.name, len(types) - 1, func.linkage)
    return replace(btf, types=tuple(types))


# --- beside Linux -----------------------------------------------------------


def rows(file: File, answers: Sequence[KernelAnswer] | None) -> list[Row]:
    """Return how the programs of *file* came out; *answers* are Linux's, in their order."""
    found = []
    for number, question in enumerate(file.questions):
        answer = answers[number] if answers is not None else None
        found.append(_row(file.name, question, answer))
    for name, section, spec, why in file.refused:
        found.append(
            Row(
                file.name,
                name,
                section,
                stack_arguments="stack_arg" in file.name,
                expected=spec.verdict,
                ours=Unknown(f"not loaded: {why}"),
                linux=None,
                why=f"not loaded: {why}",
            )
        )
    return found


def _row(file: str, question: Question, answer: KernelAnswer | None) -> Row:
    program, spec, ours = question.program, question.spec, question.ours.verdict
    linux = answer.verdict if answer is not None else None
    row = Row(
        file,
        program.name,
        program.section,
        "stack_arg" in file or _uses_slots(program),
        spec.verdict,
        ours,
        linux,
        unmatched=question.unmatched or "",
        why=ours.why if isinstance(ours, Unknown) else "",
        processed=question.ours.processed,
        seconds=question.ours.seconds,
    )
    if answer is not None and spec.messages and not isinstance(linux, Unknown):
        fault = unmatched(answer.log, spec.messages)
        row = replace(row, linux_messages="equal" if fault is None else "different")
    if isinstance(ours, Unknown):
        return row
    if row.reference is None:
        return replace(row, why="neither Linux nor tags tell")
    equal = row.reference == word(ours)
    row = replace(row, verdict="equal" if equal else "different")
    if not equal:
        return row
    if spec.messages:
        row = replace(row, messages="equal" if question.unmatched is None else "different")
    if isinstance(ours, Rejected):
        return replace(row, line=_line(ours, linux))
    return _images(row, question, answer)


def _line(ours: Rejected, linux: Verdict | None) -> str:
    if not isinstance(linux, Rejected):
        return "unknown"
    return "equal" if ours.message == linux.message else "different"


def _images(row: Row, question: Question, answer: KernelAnswer | None) -> Row:
    if answer is None or not answer.accepted:
        return row  # there is nothing to compare
    translated = image = "unknown"
    if isinstance(question.translated, Program) and answer.translated:
        found = compare_translated(question.translated, answer.translated)
        translated = "equal" if found is None else "different"
    if isinstance(question.image, Image) and answer.images:
        codes = [(each.name, each.code) for each in answer.images]
        other = compare_program_image(question.translated, question.image, codes)
        image = "equal" if other is None else "different"
    return replace(row, translated=translated, image=image)


def _uses_slots(program: Program) -> bool:
    """Return whether *program* names the register of stack arguments."""
    for insn in program.insns:
        match insn:
            case Load(src=register) | Store(dst=register) | StoreImm(dst=register):
                if register == PARAMS:
                    return True
    return False
