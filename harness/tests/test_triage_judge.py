"""Judgements from facts, with a Linux that says what the test wants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.corpus import FunctionDecl, Known, ProgramText
from harness.corpus import program as assembled
from harness.isa.disasm import format_insn
from harness.model import (
    Accepted,
    BuildConfig,
    HarnessError,
    Outcome,
    Program,
    Rejected,
    Returned,
    Unknown,
    Vector,
    Verdict,
)
from harness.pipeline import Plan, Settings
from harness.tests.faults import Fault, wrapper
from harness.toolchain import Compiler, find_compilers
from harness.triage import page, report
from harness.triage.bisect import alike, called
from harness.triage.classify import Wanted, examine, look, shape, shows
from harness.triage.experiments import Bench, Built, Subject
from harness.triage.facts import (
    AGREES,
    CERTAIN,
    CRASH,
    HIGH,
    LINUX_JIT,
    LINUX_VERIFIER,
    MEDIUM,
    REFUSED,
    UNDECIDED,
    VERIFIER,
    WRONG_CODE,
    Facts,
    Linux,
    general,
    verdict_text,
)
from harness.triage.judge import judge
from harness.triage.keeping import keep
from harness.triage.linux import image_difference
from harness.triage.marking import refusal
from harness.triage.session import Triage, as_json, describe, triage
from harness.triage.targets import Target, target_of

SEVEN = """\
long take(long a, long b, long c, long d, long e, long f, long g)
{
	return a + 3 * b + 70001 * f + 5 * g;
}
"""
# clang 23 removes f and leaves it in BTF (corpus/clang_removed_parameter.toml)
REMOVED = """\
long dead(long a, long b, long c, long d, long e, long f, long g)
{
	f = a;
	__asm__ volatile("" : : "r"(&f) : "memory");
	return a + b + c + d + e + f + g;
}
"""
WRONG = Fault(
    "wrong constant",
    "compiler",
    WRONG_CODE,
    wrapper='patched(lambda d: d.replace((70001).to_bytes(4, "little"), '
    '(70002).to_bytes(4, "little")))',
)


def bench_of(compiler: Compiler) -> Bench:
    config = BuildConfig(compiler.name, "2", "v3", "hidden")
    return Bench(Settings(configs=(config,), compilers=(compiler,)))


def facts_of(bench: Bench, text: str, function: str, **changes: str) -> Facts:
    config = replace(bench.settings.configs[0], **changes)
    found = look(bench, Subject(text, function, config, count=12))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def right(compiler: Compiler) -> Iterator[Facts]:
    with bench_of(compiler) as bench:
        yield facts_of(bench, SEVEN, "take")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, compiler: Compiler) -> Compiler:
    folder = tmp_path_factory.mktemp("odd")
    return find_compilers([str(wrapper(WRONG, folder, compiler.command))])[0]


@pytest.fixture(scope="module")
def wrong(odd: Compiler) -> Iterator[Facts]:
    with bench_of(odd) as bench:
        facts = facts_of(bench, SEVEN, "take")
        other = replace(facts.subject.config, opt="0")
        yield replace(facts, others={other: bench.build(facts.planned, other)})


@pytest.fixture(scope="module")
def refused(compiler: Compiler) -> Iterator[Facts]:
    with bench_of(compiler) as bench:
        yield facts_of(bench, REMOVED, "dead", linkage="static")


def with_linux(facts: Facts, verdict: Verdict, outcomes: Sequence[Outcome] = ()) -> Facts:
    return replace(facts, kernel=Linux(verdict, outcomes), log=[])


# --- a real Linux -----------------------------------------------------------


def test_a_linux_that_agrees_changes_nothing(right: Facts) -> None:
    assert judge(right).cause == AGREES
    assert judge(with_linux(right, Accepted(), right.legs["jit"])).cause == AGREES


@pytest.mark.parametrize(
    ("message", "cause", "confidence"),
    [
        # a rule that data flow finds broken nowhere
        ("callee expects 7 args, stack arg1 is not initialized", LINUX_VERIFIER, MEDIUM),
        # no second opinion: Linux is what we are to be like
        ("math between ctx pointer and 4294967295 is not allowed", VERIFIER, MEDIUM),
    ],
)
def test_a_linux_that_refuses(right: Facts, message: str, cause: str, confidence: str) -> None:
    found = judge(with_linux(right, Rejected(4, message)))
    assert (found.cause, found.confidence) == (cause, confidence)
    assert message in found.detail
    assert {found.cause, *found.suspects} == {VERIFIER, LINUX_VERIFIER}


def test_a_linux_with_other_results(right: Facts) -> None:
    outcomes = list(right.legs["jit"])
    third = outcomes[3]
    assert isinstance(third, Returned)
    outcomes[3] = replace(third, ctx=bytes([third.ctx[0] ^ 1]) + third.ctx[1:])
    found = judge(with_linux(right, Accepted(), outcomes))
    assert (found.cause, found.confidence) == (LINUX_JIT, HIGH)
    assert found.vector == right.vectors[3]
    outcomes[3] = Unknown("the guest died")
    assert judge(with_linux(right, Accepted(), outcomes)).cause == AGREES


def test_linux_is_a_witness_of_wrong_code(wrong: Facts) -> None:
    assert (judge(wrong).cause, judge(wrong).confidence) == (WRONG_CODE, "low")
    same = judge(with_linux(wrong, Accepted(), wrong.legs["jit"]))
    assert (same.cause, same.confidence) == (WRONG_CODE, HIGH)
    other = judge(with_linux(wrong, Accepted(), wrong.natives["native-O0"]))
    assert other.cause == UNDECIDED
    assert "our loader" in other.suspects


def test_linux_on_a_refusal(refused: Facts) -> None:
    verdict = refused.built.verdict
    if isinstance(verdict, Accepted):
        return  # mended since clang 23.1.4
    assert isinstance(verdict, Rejected)
    assert judge(refused).cause == REFUSED
    assert judge(with_linux(refused, verdict)).confidence == CERTAIN
    other = judge(with_linux(refused, Rejected(0, "something else")))
    assert other.cause == VERIFIER
    alone = judge(with_linux(refused, Accepted()))
    # the rule is broken: whether Linux or we are wrong is not certain
    assert (alone.cause, alone.confidence) == (VERIFIER, MEDIUM)
    assert alone.suspects == (LINUX_VERIFIER,)
    why = refusal(refused, verdict)
    assert why.startswith("BTF gives `dead` 7 parameters, which makes 2 slots, and its code reads ")


def test_all_experiments_ask_linux(compiler: Compiler) -> None:
    asked: list[Program] = []

    def kernel(program: Program, vectors: Sequence[Vector]) -> Linux:
        asked.append(program)
        image = tuple((sub.name, b"\xc3") for sub in program.subprograms)
        return Linux(Accepted(), [Unknown("not run")] * len(vectors), image)

    with bench_of(compiler) as bench:
        subject = Subject(SEVEN, "take", bench.settings.configs[0], count=4)
        facts = examine(bench, subject, kernel=kernel)
    told = {e.name: e.result for e in facts.log}
    assert len(asked) == 1
    assert told["a real Linux: verdict"] == "accepted; ours: the same"
    assert told["a real Linux: image against ours"].startswith("byte 0x0 of ")
    assert "there" in image_difference(asked[0], [])
    assert judge(facts).cause == AGREES


PRINTED = """
long printed(int a, long b, long c, long d, long e, long f)
{
	return a;
}
"""


def test_assembly_that_does_not_assemble_as_it_is_printed(
    tmp_path: Path, compiler: Compiler
) -> None:
    """clang 23 prints a 32-bit move as its assembler does not take it; asked for by name."""
    path = tmp_path / "printed.c"
    path.write_text(PRINTED)
    with pytest.raises(HarnessError, match="every function agrees"):
        target_of(path, compilers=[compiler])
    target = target_of(path, function="printed", compilers=[compiler])
    assert target.subject.handed
    found = triage(target, shrink=False, passes=False)
    assert found.diagnosis.cause == CRASH
    assert found.diagnosis.detail.endswith("prints: `r0 = w1`, invalid operand for instruction")
    assert found.wrong is not None
    assert found.facts.built.program is not None
    assert format_insn(found.facts.built.program.insns[found.wrong]) == "w0 = w1"
    with pytest.raises(HarnessError, match="would not show it"):
        keep(found, tmp_path)
    path.write_text(PRINTED.replace("int a", "long a"))
    with pytest.raises(HarnessError, match="function printed agrees"):
        target_of(path, function="printed", compilers=[compiler])


SPOILT = """
r1 = 0
call f
*(u64 *)(r11 - 8) = r1
call f
r0 = 0
exit
f:
r0 = *(u64 *)(r11 + 16)
exit
"""


@pytest.mark.parametrize(
    ("message", "slot", "said"),
    [
        ("R1 !read_ok", 2, "the call at 1 leaves r1 undefined, and nothing writes it since"),
        (
            "invalid read from stack arg off 16 depth 8",
            6,
            "BTF gives `f` 6 parameters, which makes 1 slot, and its code reads slot 2; the kernel",
        ),
        (
            "callee expects 6 args, stack arg1 is not initialized",
            1,
            "BTF gives `f` 6 parameters, which makes 1 slot, and its code reads slot 2; the kernel",
        ),
    ],
)
def test_why_it_is_refused(message: str, slot: int, said: str) -> None:
    functions = (FunctionDecl("f", ("u64",) * 6),)
    program = assembled(ProgramText(SPOILT, functions=functions), "spoilt")
    config = BuildConfig("clang", "2", "v3", "hidden")
    built = Built(config, (), program=program, verdict=Rejected(slot, message))
    facts = Facts(Subject("", "f", config), Plan("", Path()), built)
    assert refusal(facts, Rejected(slot, message)).startswith(said)


# --- what a reduction keeps -------------------------------------------------


def test_a_reduction_never_slips_into_undefined_behaviour(odd: Compiler) -> None:
    text = SEVEN.replace("\treturn a", "\tint x = 3;\n\n\tif (c > 9)\n\t\tx = 4;\n\treturn x + a")
    with bench_of(odd) as bench:
        subject = Subject(text, "take", bench.settings.configs[0], count=12)
        facts = look(bench, subject)
        assert facts is not None
        wanted = Wanted.of(facts)
        assert wanted.shape == ("runs", "")
        assert shows(bench, subject, wanted)
        assert wanted.allowed  # long overflows, on some inputs; nothing else is let in
        for old, new in (
            ("int x = 3;", "int x;"),
            ("x + a", "x + a / (d & 0)"),
            ("x + a", "x + (a << (int)(d | 64))"),
            ("70001 *", "1 *"),  # defined, and right
            ("{", "{ return 0;"),
        ):
            assert not shows(bench, replace(subject, c=text.replace(old, new, 1)), wanted), new
        assert shows(bench, replace(subject, c=text.replace("3 * b", "b")), wanted)


def test_a_quick_plan_is_the_plan(compiler: Compiler) -> None:
    with bench_of(compiler) as bench:
        subject = Subject(SEVEN, "take", bench.settings.configs[0], count=12)
        whole, quick = bench.plan(subject), bench.plan(subject, quick=True)
        assert (quick.layouts, quick.vectors) == (whole.layouts, whole.vectors)
        assert quick.c == whole.c
        # what does not compile shows when it is built
        broken = replace(subject, c=SEVEN.replace("return", "retrun"))
        assert bench.plan(broken).failure
        assert bench.build(bench.plan(broken, quick=True), subject.config).program is None


def test_no_compiler_is_asked_twice(tmp_path: Path, compiler: Compiler) -> None:
    log, path = tmp_path / "log", tmp_path / "clang"
    path.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {compiler.shell} "$@"\n')
    path.chmod(0o755)
    counting = find_compilers([str(path)])[0]
    with bench_of(counting) as bench:
        first = facts_of(bench, SEVEN, "take")
        asked = log.read_text()
        assert facts_of(bench, SEVEN, "take").built.data == first.built.data
        assert log.read_text() == asked
        other = facts_of(bench, SEVEN.replace("70001", "70002"), "take")
        assert other.built.data != first.built.data
        more = log.read_text()
        assert len(more) > len(asked)
        bench.build(first.planned, first.subject.config, cache=False)
        assert len(log.read_text()) > len(more)


def test_shapes_leave_numbers_out(refused: Facts, right: Facts) -> None:
    assert shape(right.built) == ("runs", "")
    verdict = refused.built.verdict
    if isinstance(verdict, Rejected):
        assert shape(refused.built) == ("refused", general(verdict.message))
        assert alike(refused, refused.built, judge(refused))
        assert not alike(refused, right.built, judge(refused))
    assert general("R3 at /tmp/crosscheck-ab12/x.c, 0x1f") == "RN at x.c, N"


def test_a_build_is_good_bad_or_another(refused: Facts) -> None:
    found, built = judge(refused), refused.built
    assert called(refused, built, found) == "bad"
    assert called(refused, replace(built, verdict=Accepted()), found) == "good"
    why = "invalid write to stack R1 off=0 size=8"
    other = replace(built, verdict=Rejected(3, why))
    assert called(refused, other, found) == f"other: refused: {why}"
    doubtful = replace(built, verdict=Unknown("a kfunc"))
    assert called(refused, doubtful, found) == "other: unknown: a kfunc"
    none = replace(built, program=None, why="/tmp/crosscheck-ab/x.c:1: " + "no " * 99 + "\nmore")
    assert called(refused, none, found).startswith("other: no program: x.c:1: no no")
    assert len(called(refused, none, found)) == len("other: ") + 90


def test_what_is_known_to_be_by_design_blames_nobody(refused: Facts, compiler: Compiler) -> None:
    found = judge(refused)
    assert found.cause == REFUSED
    target = Target("a", refused.subject, compiler)
    plain = Triage(target, refused.subject, found, found, refused, (compiler,))
    entry = Known("a", "reject", "by-design", "why")
    for status, known in (("open", False), ("by-design", True)):
        result = replace(plain, entry=replace(entry, status=status))
        assert report.title(result).startswith("[BPF] known, by design: ver") == known
        assert report.summary(result).startswith("**known, by design** (") == known
        texts = report.markdown(result), page.page(result)
        assert [found.cause in text for text in texts] == [not known] * 2
        assert (
            "known, by design: a" in describe(result, as_json(result) | {"report": ""})
        ) == known


def test_a_refusal_says_where_if_anywhere() -> None:
    assert verdict_text(Rejected(3, "no")) == "refused at 3: no"
    assert verdict_text(Rejected(None, "no BTF")) == "refused: no BTF"


def test_kernel_functions_have_bodies_in_a_triage(tmp_path: Path, compiler: Compiler) -> None:
    text = (Path(__file__).parents[2] / "c_sources" / "calls" / "kfuncs.c").read_text()
    with bench_of(compiler) as bench:
        signature = find_function(bench, text, tmp_path)
        facts = look(bench, Subject(text, signature, bench.settings.configs[0], count=6))
    assert facts is not None
    assert facts.built.program is not None
    assert facts.built.program.kfuncs
    assert judge(facts).cause == AGREES, judge(facts)


def find_function(bench: Bench, text: str, folder: Path) -> str:
    from harness import pipeline

    path = folder / "kfuncs.c"
    path.write_text(text)
    settings = replace(bench.settings, legs=("interp",), vectors=1)
    return pipeline.plan(path, "kfuncs.c", settings).layouts[0].signature.name
