"""Triage of BPF text: what Linux does wrong, with a Linux that says what the test wants."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from harness import corpus, verifier
from harness.corpus import Case, Known, ProgramText, RunCheck
from harness.isa.codec import encode
from harness.isa.insn import Call, LoadImm, Store
from harness.legs import kernel_request as request
from harness.legs.kernel import KernelAnswer, KernelLeg
from harness.model import (
    Accepted,
    Crashed,
    HarnessError,
    Outcome,
    OutOfFuel,
    Program,
    Rejected,
    Returned,
    Trapped,
    Unknown,
    Vector,
    Verdict,
)
from harness.tests.programs import program
from harness.triage import beliefs, reaching, text, text_report, text_repro
from harness.triage.facts import (
    AGREES,
    CERTAIN,
    HIGH,
    INTERPRETER,
    LINUX_JIT,
    LINUX_VERIFIER,
    LOW,
    MEDIUM,
    UNDECIDED,
    UNSTABLE,
    VERIFIER,
    Diagnosis,
)
from harness.triage.judge import DEAD
from harness.triage.session import describe, triage_file
from harness.triage.text import TextTriage, triage_text

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "corpus"
LINUX = [p for p in sorted(CORPUS.glob("linux_*.toml")) if corpus.read(p).program is not None]
LOG = """\
20: (79) r1 = *(u64 *)(r10 -8)        ; R1=0 R10=fp0 fp-8=0
21: (7b) *(u64 *)(r6 +0) = r1         ; R1=0 R6=ctx()
22: (63) *(u32 *)(r6 +8) = r2         ; R2=P-1 R6=ctx()
23: (7b) *(u64 *)(r6 +16) = r3        ; R3=scalar(umax=5) R6=ctx()
24: (7b) *(u64 *)(r7 +24) = r3        ; frame1: R3=5 R7=ctx()
25: (7b) *(u64 *)(r10 -8) = r3        ; R3=5 R10=fp0 fp-8=5
26: (7b) *(u64 *)(r6 +32) = r1        ; R1=0 R6=ctx()
27: (7b) *(u64 *)(r6 +32) = r1        ; R1=1 R6=ctx()
21: (7b) *(u64 *)(r6 +0) = r1         ; R1=5 R6=ctx()
"""


class FakeLinux:
    """What Linux would say, as the test has it."""

    kernel = None

    def __init__(self, answer: Callable[[Program, Sequence[Vector]], KernelAnswer]) -> None:
        self.answer = answer
        self.asked = 0

    def check(
        self, programs: Sequence[Program], vectors: Sequence[Sequence[Vector]], **_: Any
    ) -> list[KernelAnswer]:
        self.asked += 1
        return [self.answer(p, v) for p, v in zip(programs, vectors, strict=True)]


def fake(answer: Callable[[Program, Sequence[Vector]], KernelAnswer]) -> KernelLeg:
    return cast(KernelLeg, FakeLinux(answer))


def says(verdict: Verdict, *outcomes: Outcome, log: str = "") -> KernelLeg:
    return fake(lambda *_: KernelAnswer(verdict, log, outcomes=outcomes))


def as_ours(program: Program, _: Sequence[Vector]) -> KernelAnswer:
    """Answer as our verifier does."""
    return KernelAnswer(verifier.verify(program, log_level=0).verdict)


def triaged(name: str, leg: KernelLeg | None, **options: Any) -> TextTriage:
    return triage_text(corpus.read(CORPUS / f"{name}.toml"), leg, **options)


# --- what Linux knows -------------------------------------------------------------


def test_what_the_log_promises_of_the_context() -> None:
    found = {b.offset: b for b in beliefs.read(LOG)}
    assert set(found) == {0, 8}
    assert found[0].values == (0, 5)
    assert found[8].values == (0xFFFFFFFF,)
    assert found[0].holds(Returned(0, bytes([5]) + bytes(31)))
    wrong = Returned(0, bytes([7]) + bytes(31))
    assert not found[0].holds(wrong)
    assert found[0].against(wrong).endswith("R1 is 0x0 or 0x5 here; what is stored is 0x7")


def test_what_the_log_promises_of_the_result() -> None:
    log = "6: (b7) r0 = 7                        ; R0=7\n7: (57) r0 &= 5    ; R0=5\n8: (95) exit\n"
    (found,) = beliefs.read(log)
    assert found.text == "instruction 8 returns R0=0x5"
    assert found.holds(Returned(1 << 32 | 5, b""))
    assert found.against(Returned(7, b"")).endswith("R0 is 0x5 here; what is returned is 0x7")
    assert beliefs.trusted(found, program("r0 = 0\n" * 7 + "r0 &= 5\nexit"))
    assert not beliefs.trusted(found, program("if r1 == 0 goto +7\n" + "r0 = 0\n" * 7 + "exit"))
    assert beliefs.read(log.replace("; R0=5", "; frame1: R0=5")) == ()


# --- who is wrong -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "verdict", "cause", "detail"),
    [
        ("linux_forgotten_slot", Crashed("the guest died: BUG: NULL"), LINUX_VERIFIER, "BUG: NULL"),
        ("jump_chain", Rejected(3, "verifier bug: oops"), LINUX_VERIFIER, "blames itself"),
        (
            "stack_args_6",
            Rejected(3, f"reading from stack off -8+0 size 8, {text.POISONED}"),
            LINUX_VERIFIER,
            "lost",
        ),
        ("stack_args_6", Rejected(3, "R3 !read_ok"), LINUX_VERIFIER, "refuses wrongly"),
        ("stack_args_6", Rejected(3, "something new"), VERIFIER, "accepts what Linux refuses"),
        ("reject_eighth_slot", Accepted(), VERIFIER, "refuses what Linux accepts"),
        ("reject_eighth_slot", Rejected(0, "other words"), VERIFIER, "where Linux says"),
        ("stack_args_6", Unknown("no guest"), UNDECIDED, "no guest"),
        ("stack_args_6", Accepted(), AGREES, "agree"),
    ],
)
def test_verdicts_of_linux(name: str, verdict: Verdict, cause: str, detail: str) -> None:
    found = triaged(name, says(verdict), reduce=False).diagnosis
    assert found.cause == cause
    assert detail in found.detail


def test_a_refusal_that_both_have_is_no_fault() -> None:
    assert triaged("reject_eighth_slot", fake(as_ours)).diagnosis.cause == AGREES


def test_without_linux_nothing_is_decided() -> None:
    found = triaged("stack_args_6", None)
    assert found.diagnosis.cause == UNDECIDED
    assert "--kernel" in found.diagnosis.detail
    assert text_report.expected(found)[1] == "Linux was not asked"


@pytest.mark.parametrize(
    ("first", "again", "cause"),
    [
        (Accepted(), Rejected(0, "no"), UNSTABLE),
        (Rejected(3, "R3 !read_ok"), Accepted(), UNSTABLE),
        (Rejected(3, "verifier bug: oops"), Accepted(), UNSTABLE),
        (Crashed("the guest died: BUG: NULL"), Accepted(), UNSTABLE),
        (Rejected(3, "R3 !read_ok"), Rejected(3, "R3 !read_ok"), LINUX_VERIFIER),
        (Rejected(3, "R3 !read_ok"), Unknown("no guest"), LINUX_VERIFIER),
        (Unknown("no guest"), Accepted(), UNDECIDED),
    ],
)
def test_a_linux_that_changes_its_mind(first: Verdict, again: Verdict, cause: str) -> None:
    answers: Iterator[Verdict] = iter([first, again])
    leg = fake(lambda *_: KernelAnswer(next(answers)))
    assert triaged("stack_args_6", leg, reduce=False).diagnosis.cause == cause


STORED = "8: (7b) *(u64 *)(r6 +0) = r0          ; R0=5 R6=ctx()\n"


def test_an_image_that_does_what_the_verifier_ruled_out() -> None:
    leg = says(Accepted(), Returned(0, bytes(8)), log=STORED)
    found = triaged("linux_may_goto_slot", leg, reduce=False)
    assert (found.diagnosis.cause, found.diagnosis.confidence) == (LINUX_JIT, CERTAIN)
    assert found.mark.slot == 8
    assert "R0 is 0x5 here; what is stored is 0x0" in found.mark.why
    assert "actual" in text_report.html(found).lower()
    right = says(Accepted(), Returned(0, (5).to_bytes(8, "little")), log=STORED)
    assert triaged("linux_may_goto_slot", right, reduce=False).diagnosis.cause == AGREES


def test_a_callback_that_reads_slots_is_the_verifiers_fault() -> None:
    log = "21: (7b) *(u64 *)(r6 +0) = r1         ; R1=5 R6=ctx()\n"
    leg = says(Accepted(), Returned(0, bytes(8)), log=log)
    found = triaged("linux_callback_slot", leg, reduce=False).diagnosis
    assert found.cause == LINUX_VERIFIER
    assert "callback reads slot 2" in found.detail


def test_results_that_differ_from_both_legs_of_ours() -> None:
    case = corpus.read(CORPUS / "stack_args_6.toml")
    wrong = [Returned(77, run.ctx) for run in case.runs]
    found = triage_text(case, says(Accepted(), *wrong), reduce=False).diagnosis
    assert (found.cause, found.detail) == (LINUX_JIT, "its results differ from interp, jit")


def test_an_image_without_what_is_not_dead() -> None:
    """linux_unpropagated_slot: what is left out is reached, so that no JIT is to blame."""
    case = corpus.read(CORPUS / "linux_unpropagated_slot.toml")
    (run,) = case.runs
    wrong = Returned(0, (1).to_bytes(8, "little"))
    found = triage_text(case, says(Accepted(), wrong), reduce=False).diagnosis
    assert (found.cause, found.detail, found.confidence) == (LINUX_VERIFIER, DEAD, CERTAIN)
    assert found.vector == run.ctx
    alone = triage_text(case, None, reduce=False).diagnosis
    assert (alone.cause, alone.detail, alone.suspects) == (VERIFIER, DEAD, (LINUX_VERIFIER,))
    other = Returned(0, (3).to_bytes(8, "little"))  # neither
    found = triage_text(case, says(Accepted(), other), reduce=False).diagnosis
    assert (found.cause, found.detail) == (LINUX_JIT, "its results differ from interp, jit")
    # Linux right, and ours alone takes it for dead
    right = Returned(0, (2).to_bytes(8, "little"))
    found = triage_text(case, says(Accepted(), right), reduce=False).diagnosis
    assert (found.cause, found.detail) == (VERIFIER, DEAD)


def test_a_result_where_the_interpreter_stops_at_a_slot_nobody_wrote() -> None:
    """Our JIT reads what lies there, and is not to blame that it differs from Linux's."""
    leg = says(Accepted(), Returned(7, bytes(64)))
    found = triaged("linux_forgotten_slot_beyond", leg, reduce=False).diagnosis
    assert (found.cause, found.confidence) == (LINUX_VERIFIER, MEDIUM)
    assert found.detail.endswith("slot 10: incoming slot 2 was not written")
    assert found.suspects == (INTERPRETER,)
    unanswered = says(Accepted(), Unknown("not asked"))
    found = triaged("linux_forgotten_slot_beyond", unanswered, reduce=False).diagnosis
    assert found.cause != LINUX_VERIFIER


def test_a_kernel_that_dies_of_running_what_it_accepted() -> None:
    died = Trapped("kernel", "the guest died: BUG: NULL pointer, address: 0x7")
    for name in ("linux_forgotten_slot_beyond", "stack_args_6", "linux_may_goto_slot"):
        found = triaged(name, says(Accepted(), died), reduce=False).diagnosis
        assert (found.cause, found.confidence) == (LINUX_VERIFIER, HIGH)
        assert found.detail.endswith("when it runs: BUG: NULL pointer")
        assert found.suspects == (LINUX_JIT,)


@pytest.mark.parametrize(
    ("outcome", "cause"),
    [
        (Returned(0xFFFFFFFF00000000, bytes([5, *bytes(7)])), AGREES),
        (Returned(1, bytes([5, *bytes(7)])), UNDECIDED),
        (Returned(0, bytes(8)), UNDECIDED),
        (OutOfFuel(), UNDECIDED),
        (Unknown("no guest"), AGREES),
    ],
)
def test_results_that_the_case_does_not_expect(outcome: Outcome, cause: str) -> None:
    """Of a program that none of ours runs."""
    found = triaged("linux_callback_slot", says(Accepted(), outcome), reduce=False).diagnosis
    assert (found.cause, found.confidence) == (cause, LOW)


def test_agreement_with_legs_that_ran_is_high() -> None:
    case = corpus.read(CORPUS / "stack_args_6.toml")
    right = [Returned((run.r0 or 0) & 0xFFFFFFFF, run.ctx) for run in case.runs]
    found = triage_text(case, says(Accepted(), *right), reduce=False).diagnosis
    assert (found.cause, found.confidence) == (AGREES, HIGH)
    found = triage_text(case, says(Accepted()), reduce=False).diagnosis
    assert (found.cause, found.confidence) == (AGREES, LOW)


PRUNED = """
    r6 = r1
    {first}
    r2 = *(u64 *)(r6 + 0)
    r3 = *(u64 *)(r6 + 16)
    r1 = 5
    if r2 > 100 goto one
    r1 = 6
one:
    if r3 > 50 goto two
    r1 = 7
two:
    r4 = 0
    {last}
    *(u64 *)(r6 + 8) = r1
    r0 = 0
out:
    exit
"""
SEEN = "9: (7b) *(u64 *)(r6 +8) = r1          ; R1=7 R6=ctx()\n"
NOT_OURS = "call 118"  # jiffies64


def pruned(first: str, last: str, log: str, *results: int) -> Diagnosis:
    """Judge the program above: Linux stores *results*, and has *log*, of instruction 9."""
    made = ProgramText(PRUNED.format(first=first, last=last))
    program = corpus.program(made, "p")
    (store,) = (n for n, i in enumerate(program.insns) if isinstance(i, Store) and i.dst == 6)
    contexts = [struct.pack("<QQQ", 200, 0, 200), bytes(24)]
    outcomes = [
        Returned(0, context[:8] + struct.pack("<Q", stored) + context[16:])
        for context, stored in zip(contexts, results, strict=True)
    ]
    case = Case(Path("p.toml"), program=made, runs=tuple(RunCheck(c) for c in contexts))
    leg = says(Accepted(), *outcomes, log=log.replace("9: (", f"{store}: (", 1))
    return triage_text(case, leg, reduce=False).diagnosis


def test_what_ours_does_too_is_not_ruled_out() -> None:
    """R1=7 is all that the log has; 5 is right where the path with 5 was pruned."""
    assert pruned("r4 = 0", "r4 = 0", SEEN, 5, 7).cause == AGREES
    assert pruned("r4 = 0", "r4 = 0", SEEN + "from 6 to 8: safe\n", 5, 7).cause == AGREES
    wrong = pruned("r4 = 0", "r1 = 7", SEEN, 4, 7)
    assert (wrong.cause, wrong.confidence) == (LINUX_JIT, CERTAIN)


@pytest.mark.parametrize(
    ("last", "log", "cause"),
    [
        ("r4 = 0", SEEN, LINUX_JIT),
        ("r4 = 0", f"{SEEN}from 6 to 8: safe\n", AGREES),
        ("r4 = 0", f"{SEEN}8: safe\n", AGREES),
        ("r4 = 0", f"{SEEN.replace('R1=7', 'R1=P7')}8: safe\n", LINUX_JIT),
        ("r1 = 7", f"{SEEN}8: safe\n", LINUX_JIT),
        ("r5 = 7; r1 = r5", f"{SEEN}8: safe\n", LINUX_JIT),
        ("*(u64 *)(r10 - 8) = r1; r1 = *(u64 *)(r10 - 8)", f"{SEEN}8: safe\n", AGREES),
        ("r0 = 0; if r2 == 0 goto out", SEEN, AGREES),
    ],
)
def test_what_is_promised_where_none_of_ours_ends(last: str, log: str, cause: str) -> None:
    """Pruned paths promise nothing of what is not known by data flow; a store may be passed by."""
    assert pruned(NOT_OURS, last, log, 5, 7).cause == cause


def test_constants_that_reach_a_register_through_calls() -> None:
    may_goto = corpus.read(CORPUS / "linux_may_goto_slot.toml").program
    assert may_goto is not None
    assert reaching.constants(corpus.program(may_goto, "p"), 8, 0) == frozenset({5})
    asm = """
    r1 = 3; r6 = 1
    call f
    r6 = r0
    r1 = -4
    call f
    *(u64 *)(r10 - 8) = r6
    r0 = 0
    exit
f:
    r0 = r1
    if r1 == 3 goto out
    w0 = -1
out:
    exit
    """
    program = corpus.program(ProgramText(asm), "p")
    (store,) = (n for n, i in enumerate(program.insns) if isinstance(i, Store))
    assert reaching.constants(program, store, 6) == frozenset({3, 2**64 - 4, 2**32 - 1})
    assert reaching.constants(program, store, 1) is None


# --- how small --------------------------------------------------------------------


def test_reduced_with_ours_in_linuxs_place() -> None:
    """Linux is asked about the original, twice, about the result, and about that again."""
    leg = fake(as_ours)
    found = triaged("reject_address_of_last_removed_function", leg)
    assert found.diagnosis.cause == LINUX_VERIFIER
    assert found.lines < len(found.case.program.asm.splitlines()) if found.case.program else False
    assert cast(FakeLinux, leg).asked <= 6
    again = triaged("reject_address_of_last_removed_function", fake(as_ours))
    assert again.text == found.text


def test_reduced_with_linux_alone() -> None:
    """What ours accepts, Linux is asked about each time."""

    def answer(program: Program, _: Sequence[Vector]) -> KernelAnswer:
        calls = any(isinstance(insn, Call) for insn in program.insns)
        return KernelAnswer(Rejected(0, "verifier bug: a call") if calls else Accepted())

    leg = fake(answer)
    found = triaged("stack_args_not_read", leg)
    assert found.diagnosis.cause == LINUX_VERIFIER
    assert found.lines <= 10
    assert any(isinstance(insn, Call) for insn in found.facts.program.insns)
    assert cast(FakeLinux, leg).asked > 6


def test_what_is_judged_otherwise_in_the_end_is_kept_as_it_was() -> None:
    count = 0

    def answer(*_: Any) -> KernelAnswer:
        nonlocal count
        count += 1
        first = count <= 6
        return KernelAnswer(Rejected(0, "verifier bug: at first") if first else Accepted())

    found = triaged("stack_args_not_read", fake(answer), questions=3)
    assert found.text.program == text.plain(cast(Any, found.case.program))
    assert any("kept the original" in note for note in found.notes)


# --- the report -------------------------------------------------------------------


def test_what_somebody_wrote_about_it_is_the_cause() -> None:
    case = corpus.read(CORPUS / "linux_may_goto_slot.toml")
    entry = Known("x", "divergence", "open", "r9 is not kept.", source="*may_goto_slot.toml")
    assert text.cause_of(case, [entry]) == "r9 is not kept."
    assert text.cause_of(case, [replace(entry, status="fixed-in")]) == case.note.strip()
    assert text.cause_of(case, [replace(entry, source="*")]) == case.note.strip()


def test_the_report_and_the_page() -> None:
    log = "some line\nverifier bug: No program to jit at insn 6 (subprog < 0)\n"
    leg = fake(lambda program, _: replace(as_ours(program, _), log=log))
    found = triaged("reject_address_of_last_removed_function", leg)
    told = text_report.markdown(found)
    assert told.startswith("# [BPF] verifier bug: No program to jit")
    for part in ("## Cause", "-->    0: r1 = dead ll", "cc repro.c", "call live", "## Versions"):
        assert part in told
    shown = text_report.html(found)
    assert shown.startswith("<!doctype html>")
    assert "r1 = dead ll" in shown
    assert 'class="row wrong"' in shown
    row = text_report.as_json(found) | {"report": "x.md"}
    assert "lines of BPF text" in text_report.describe(found, row)


def test_a_program_is_offered_where_there_is_one_and_with_a_warning() -> None:
    dies = says(Crashed("the guest died: BUG: kernel NULL pointer dereference"))
    found = triaged("linux_forgotten_slot", dies, reduce=False)
    for made in (text_report.markdown(found), text_report.html(found)):
        assert made.index("takes the machine down") < made.index("cc repro.c")
    found = triaged("linux_size_in_slot", fake(as_ours), reduce=False)
    for made in (text_report.markdown(found), text_report.html(found)):
        assert "cc repro.c" not in made
        assert "No program of its own shows it. It calls crosscheck_kfunc_memory6" in made
        assert "takes the machine down" not in made


def test_a_case_of_text_from_the_command(tmp_path: Path) -> None:
    path = CORPUS / "reject_address_of_last_removed_function.toml"
    result, row = triage_file(path, out=tmp_path)
    assert row["cause"] == UNDECIDED
    assert (tmp_path / f"{path.stem}.html").exists()
    assert "--kernel" in describe(result, row)
    with pytest.raises(HarnessError, match="--keep is for C"):
        triage_file(path, out=tmp_path, keep_in=tmp_path)


GCC = shutil.which("gcc")


@pytest.mark.parametrize(
    "path",
    [*LINUX, *(CORPUS / f"{n}.toml" for n in ("alu_mod", "jump_loop", "socket_cast", "map_hash"))],
    ids=lambda path: path.stem,
)
def test_repro_has_the_program(path: Path) -> None:
    """The numbers in it are the instructions and the BTF; a compiler takes it."""
    found = triage_text(corpus.read(path), None)
    if found.text.vectors:
        found = replace(found, diagnosis=replace(found.diagnosis, vector=found.text.vectors[0]))
    made = text_repro.standalone(found)
    program = found.facts.program
    if "crosscheck_kfunc_memory6" in program.kfuncs:  # of our own module
        assert made.startswith("/* It calls ")
        return
    calls = [
        slot for slot, i in enumerate(program.insns) if isinstance(i, Call) and i.kind == "kfunc"
    ]
    assert all(f"program[{slot}].imm = function(" in made for slot in calls)
    typed = [each for each in program.maps if each.value_type]
    assert made.count("attr.btf_fd = types;") == len(typed)
    assert all(f"attr.btf_value_type_id = {each.value_type};" in made for each in typed)
    rows = re.findall(r"^\t\{ (0x\w+), (\d+), (\d+), (-?\d+), (-?\d+) \},", made, re.MULTILINE)
    code = b""
    for opcode, dst, src, off, imm in rows:
        registers = int(src) << 4 | int(dst)
        code += struct.pack("<BBhi", int(opcode, 16), registers, int(off), int(imm))
    wanted = bytearray(encode(program.insns))
    for slot, insn in enumerate(program.insns):
        if isinstance(insn, LoadImm) and insn.src == 5:
            wanted[8 * slot + 1] = wanted[8 * slot + 1] & 15 | 1 << 4
            assert f"program[{slot}].imm = fd;" in made
    assert code == bytes(wanted)
    assert program.btf is not None
    text_of = made.partition("btf[] = {")[2].partition("};")[0]
    data = bytes(int(number, 16) for number in re.findall(r"0x\w\w", text_of))
    assert data == request.encode_btf(program.btf, [program])[0]
    for sub in program.subprograms:
        assert f"\t{{ {sub.start}, {sub.type_id} }}," in made
    assert ("BPF_PROG_TEST_RUN" in made) == any(found.text.vectors)
    if GCC is not None:
        strict = [GCC, "-x", "c", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-"]
        seen = subprocess.run(strict, input=made, text=True, capture_output=True, check=False)
        assert seen.returncode == 0 or "No such file" in seen.stderr, seen.stderr


def test_what_no_program_of_its_own_shows() -> None:
    assert text_repro.standalone(triaged("map_global_data", None)).startswith("/* Its maps hold")
    kfunc = corpus.read(CORPUS / "btf_acquire_release.toml")
    found = triage_text(kfunc, None)
    assert text_repro.standalone(found).startswith("/* It ")
    assert "No program of its own shows it" in text_report.markdown(found)


@pytest.mark.kernel
def test_a_real_linux_blames_itself(tmp_path: Path) -> None:
    path = CORPUS / "linux_tcp_sock_half.toml"
    _, row = triage_file(path, out=tmp_path, linux=True)
    assert (row["cause"], row["confidence"]) == (LINUX_VERIFIER, CERTAIN)
    assert row["kernel"].startswith("7.")
    assert "error during ctx access conversion" in (tmp_path / f"{path.stem}.md").read_text()
