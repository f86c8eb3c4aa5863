"""Reduction: texts, trees, inputs, cvise; what ends it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness import findings
from harness.cli import main
from harness.findings import Finding
from harness.model import BuildConfig, HarnessError
from harness.pipeline import Plan, Settings
from harness.source import tree
from harness.source.generate import generate
from harness.tests.test_triage import WEIGH
from harness.toolchain import Compiler
from harness.triage import experiments
from harness.triage.cvise import with_cvise
from harness.triage.experiments import Bench, Built, Subject
from harness.triage.facts import WRONG_CODE, Diagnosis, Facts
from harness.triage.passes import PASSES
from harness.triage.reduce import Reduction, in_turn, lines_of, reduce
from harness.triage.session import Cvise, Triage, by_all_means
from harness.triage.targets import Target
from harness.triage.tokens import layout_text, outline
from harness.triage.trees import shrink_tree
from harness.workers import Pool

CONFIG = BuildConfig("clang", "2", "v3", "hidden")


def shrunk(text: str, wanted: str, function: str = "f") -> str:
    """Reduce *text* as long as it holds *wanted*, a pattern over its tokens."""
    subject = Subject(text, function, CONFIG)

    def interesting(candidate: Subject) -> bool:
        return re.search(wanted, re.sub(r"\s+", "", candidate.c)) is not None

    return re.sub(r"\s+", "", reduce(subject, in_turn(interesting), patience=20).subject.c)


def test_a_reduction_keeps_what_is_asked_and_nothing_else() -> None:
    small = shrunk(WEIGH, r"1234567\*f", "weigh")
    assert "1234567*f" in small
    assert len(small) < 40
    assert len(shrunk("int f(int a, int b) { if (a) { b = 2; g(b, 4); } return b; }", "g")) < 16


def test_a_parameter_goes_with_its_arguments() -> None:
    text = "int g(int a, int b) { return a + b; }\nint f(int x) { return g(x, 1) + g(2, x); }\n"
    small = shrunk(text, r"intg\(inta.*\{returna.*g\(x.*g\(2")
    assert "intg(inta)" in small
    assert "g(x)" in small
    assert "g(2)" in small


def test_a_reduction_is_the_same_every_time() -> None:
    assert shrunk(WEIGH, r"\bif.*7\*d", "weigh") == shrunk(WEIGH, r"\bif.*7\*d", "weigh")


def test_what_is_not_interesting_is_left_as_it_is() -> None:
    result = reduce(Subject(WEIGH, "weigh", CONFIG), in_turn(lambda _: False))
    assert result.subject.c == WEIGH
    assert result.notes


def test_laid_out_text_has_the_same_tokens() -> None:
    once = layout_text(WEIGH)
    assert re.sub(r"\s+", "", once) == re.sub(r"\s+|/\*.*?\*/", "", WEIGH)
    assert "#include <stdint.h>\n" in once


def test_initialisers_stay_on_their_line() -> None:
    text = "int f(int a){short v[2]__attribute__((aligned(8)))={a,{1}};return v[0];}"
    assert layout_text(text) == (
        "int f(int a) {\n\tshort v[2] __attribute__((aligned(8))) = {a, {1}};\n\treturn v[0];\n}\n"
    )


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_it_does_not_matter_how_many_are_looked_at_together(jobs: int) -> None:
    def once(jobs: int) -> tuple[Reduction, list[str]]:
        asked: list[str] = []

        def interesting(subjects: Sequence[Subject]) -> Sequence[bool]:
            asked.extend(subject.c for subject in subjects)
            return ["1234567" in s.c and "sum" in s.c for s in subjects]

        subject = Subject(WEIGH, "weigh", CONFIG)
        return reduce(subject, interesting, attempts=20, jobs=jobs), asked

    alone, _ = once(1)
    found, asked = once(jobs)
    assert found == alone
    assert len(asked) >= found.attempts
    assert found.notes == ("reduction ended after 20 attempts: shorter texts may do",)


def test_a_reduction_that_takes_too_long_says_so() -> None:
    def slow(subject: Subject) -> bool:
        time.sleep(0.05)
        return "1234567" in subject.c

    result = reduce(Subject(WEIGH, "weigh", CONFIG), in_turn(slow), patience=0.2)
    assert not result.complete
    assert "was cut off after 0 s" in result.notes[0]
    assert "1234567" in result.subject.c


def test_names_of_types_give_way_to_plain_ones() -> None:
    text = "#include <stdint.h>\ntypedef unsigned char u8;\nuint64_t f(int8_t a, u8 b) { g(b); }\n"

    def compiles(subject: Subject) -> bool:
        needs = {"u8": "typedef", "uint64_t": "#include", "int8_t": "#include"}
        words = set(re.findall(r"#?\w+", subject.c))
        whole = re.search(r"f\(.*\bb\).*g\(b\)", subject.c, re.DOTALL) and "f" in words
        return bool(whole) and all(v in words for k, v in needs.items() if k in words)

    small = reduce(Subject(text, "f", CONFIG), in_turn(compiles)).subject.c
    assert not re.search("#include|typedef|_t|u8", small), small


def test_what_no_compiler_takes_is_not_proposed() -> None:
    """The function in question goes nowhere, and a parameter only with its arguments."""
    text = "static __attribute__((noinline)) int g(int a, int b) { return a; }\n"
    text += "int f(int x) { return g(x, 2); }\n"
    count = 0
    for propose in PASSES:
        index = 0
        while (proposal := propose(text, index, "f")) is not None:
            assert re.search(r"int f\((int x|void)\)\s*\{", proposal), proposal
            assert "__attribute__" not in proposal or "((noinline))" in proposal, proposal
            assert not re.search(r"int g\((0|int a b|int a int)", proposal), proposal
            index += 1
        count += index
    assert 10 < count < 30


def test_macros_are_put_in_place(clang: Sequence[str]) -> None:
    text = "#define A static __attribute__((noinline))\n#define CALL(f, a) ((f)(a))\n"
    text += "#define NO(a, ...) a\nA int g(int a) { return a; }\n"
    text += "int f(int x) { return CALL(g, x + 2) + NO(1, 2) + NO(3, 4) + NO(5, 6); }\n"

    def same(subject: Subject) -> bool:
        plain = subprocess.run(
            [*clang, "-E", "-P", "-"], input=subject.c, capture_output=True, text=True, check=True
        )
        return re.sub(r"\s", "", plain.stdout) == want

    want = re.sub(r"\s", "", "static __attribute__((noinline)) int g(int a) { return a; }"
                  "int f(int x) { return ((g)(x + 2)) + 1 + 3 + 5; }")  # fmt: skip
    small = reduce(Subject(text, "f", CONFIG), in_turn(same)).subject.c
    assert small.count("#") == small.count("#define NO(") == 1
    assert lines_of(small) == 7


def test_a_variable_stays_with_its_struct() -> None:
    text = 'struct { int a; union { int b; } u; } *v SEC("x");\nstruct s f(void) { return w; }\n'
    once = layout_text(text)
    assert once.splitlines() == [
        "struct {", "\tint a;", "\tunion {", "\t\tint b;", "\t} u;", '} *v SEC("x");',
        "struct s f(void) {", "\treturn w;", "}",
    ]  # fmt: skip
    assert layout_text(once) == once
    assert layout_text("struct s { int a; };\n") == "struct s {\n\tint a;\n};\n"


# --- outlines ---------------------------------------------------------------


def test_an_outline_has_the_functions_and_not_what_they_do() -> None:
    text = "#include <stdint.h>\nstruct s { int a; };\nstatic int v[2] = {1, 2};\n"
    text += "static __attribute__((noinline)) int g(struct s *p) { if (p) { return p->a; } }\n"
    text += "uint64_t f(int a) { struct s x = {a}; return g(&x) + sizeof(int); }\n"
    bare = outline(text)
    assert bare is not None
    assert re.sub(r"\s", "", bare) == (
        "#include<stdint.h>structs{inta;};staticintv[2]={1,2};"
        "static__attribute__((noinline))intg(structs*p){}uint64_tf(inta){}"
    )
    assert outline(text.replace("return p->a", "return 3 * p->a")) == bare
    assert outline(text.replace("int a)", "long a)")) != bare


@pytest.mark.parametrize(
    "text",
    [
        "int f(int a) { return h(a); }\n",  # what is h?
        "int h(int);\nint f(int a) { return h(a); }\n",
        "int f(int a) { extern int h; return h; }\n",
        "#define X }\nint f(int a) { return a; X\n",
        "/* mcpu: v4 */\nint f(int a) { return a; }\n",
        'int f(int a) { asm volatile(""); return a; }\n',
        '__attribute__((section("syscall"))) int f(void *a) { return 0; }\n',
        "int f(int a) { return a;\n",
    ],
)
def test_where_more_is_said_there_is_no_outline(text: str) -> None:
    assert outline(text) is None


# --- trees ------------------------------------------------------------------


def test_a_generated_program_shrinks_on_its_tree() -> None:
    one = generate(3, 5)
    data = tree.to_json(one)
    original = Subject("the text", "p5_root", CONFIG, count=64)

    def keeps(subject: Subject) -> bool:
        return subject.function == one.root.name and "return" in subject.c

    found = shrink_tree(data, original, in_turn(keeps), rounds=400, patience=60)
    again = shrink_tree(data, original, in_turn(keeps), rounds=400, patience=60)
    assert found == again
    assert found.kept
    assert keeps(found.subject)
    assert lines_of(found.subject.c) < 20
    same = shrink_tree(data, original, in_turn(lambda _: False), rounds=9, patience=60)
    assert same.subject == original
    assert same.notes == ("the tree does not show it; its text does",)
    late = shrink_tree(data, original, in_turn(keeps), rounds=400, patience=0.0)
    assert late.subject == original
    with pytest.raises(HarnessError, match="tree cannot be read"):
        shrink_tree({"functions": 3}, original, in_turn(keeps), rounds=9, patience=60)


# --- cvise ------------------------------------------------------------------

# Does what cvise does: asks about shorter texts, keeps what it may, and never ends by itself.
CVISE = """\
#!{python} -IS
import subprocess, sys, time
test, name = sys.argv[-2:]
lines = open(name).read().splitlines()
while True:
    tried = False
    for n in range(len(lines)):
        left = lines[:n] + lines[n + 1:]
        open(name, "w").write("\\n".join(left) + "\\n")
        if subprocess.run([test]).returncode == 0:
            lines, tried = left, True
            break
    open(name, "w").write("\\n".join(lines) + "\\n")
    if not tried:
        {end}
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    path = tmp_path / "cvise"
    path.write_text(CVISE.format(python=sys.executable, end="sys.exit(0)"))
    path.chmod(0o755)
    return path


def lines_with(word: str, count: int) -> Subject:
    lines = [f"int v{n}; {word if n == count // 2 else ''}" for n in range(count)]
    return Subject("\n".join(lines) + "\n", "f", CONFIG)


def test_cvise_asks_us(fake: Path) -> None:
    subject = lines_with("this", 6)
    asked: list[str] = []

    def interesting(candidate: Subject) -> bool:
        asked.append(candidate.c)
        return "this" in candidate.c

    result = with_cvise([str(fake)], subject, in_turn(interesting), patience=60)
    assert result.subject.c == "int v3; this\n"
    assert result.complete
    assert result.attempts == len(asked) == len(set(asked))


def test_cvise_ends_by_count_and_else_by_the_clock(fake: Path) -> None:
    subject = lines_with("this", 8)
    test = in_turn(lambda candidate: "this" in candidate.c)
    few = with_cvise([str(fake)], subject, test, questions=3, patience=60)
    again = with_cvise([str(fake)], subject, test, questions=3, patience=60)
    assert few == again
    assert few.attempts == 3
    assert lines_of(few.subject.c) == 5
    assert few.notes == ("cvise ended after 3 attempts: shorter texts may do",)
    fake.write_text(CVISE.format(python=sys.executable, end="time.sleep(60)"))
    late = with_cvise([str(fake)], subject, test, patience=2)
    assert late.subject == subject
    assert "did not end in 2 s" in late.notes[0]


def missing() -> Sequence[str]:
    raise HarnessError("cannot fetch cvise (no apt): apt install cvise")


@pytest.mark.parametrize(
    ("cvise", "said"),
    [(missing, "cannot fetch cvise (no apt): apt install cvise"), (None, "it was not asked for")],
)
def test_without_cvise_the_report_says_why(
    cvise: Cvise | None, said: str, compiler: Compiler
) -> None:
    subject = lines_with("this", 20)
    facts = Facts(subject, Plan("input.c", Path("input.c")), Built(CONFIG, ()))
    target = Target("a", subject, compiler)
    diagnosis = Diagnosis(WRONG_CODE, "", "high")
    before = Triage(target, subject, diagnosis, diagnosis, facts, ())
    test = in_turn(lambda candidate: candidate.c.count("int") >= 20)
    found = by_all_means(before, subject, test, False, 50, cvise, 60.0, lambda _: None)
    assert found.lines >= 13
    assert found.notes[-1] == f"more than 12 lines, and no cvise to go on with: {said}"


def test_what_cvise_leaves_is_laid_out(fake: Path, compiler: Compiler) -> None:
    body = "\n".join(f"\tint v{n} = a{'; this' if n == 9 else ''};" for n in range(18))
    subject = Subject(f"int f(int a)\n{{\n{body}\n}}\n", "f", CONFIG)
    facts = Facts(subject, Plan("input.c", Path("input.c")), Built(CONFIG, ()))
    diagnosis = Diagnosis(WRONG_CODE, "", "high")
    before = Triage(Target("a", subject, compiler), subject, diagnosis, diagnosis, facts, ())
    test = in_turn(lambda candidate: "this" in candidate.c)
    found = by_all_means(before, subject, test, False, 2, lambda: [str(fake)], 60.0, lambda _: None)
    assert layout_text(found.subject.c) == found.subject.c
    assert found.lines < 5


def test_a_cvise_that_fails_changes_nothing(fake: Path) -> None:
    subject = lines_with("this", 3)
    fake.write_text("#!/bin/sh\necho no luck >&2\nexit 7\n")
    result = with_cvise([str(fake)], subject, in_turn(lambda _: True), patience=60)
    assert (result.subject, result.notes) == (subject, ("cvise failed: no luck",))
    with pytest.raises(HarnessError, match="cannot start cvise"):
        with_cvise(["/no/cvise"], subject, in_turn(lambda _: True), patience=60)


def test_a_cvise_that_does_not_start_leaves_our_own_text(compiler: Compiler) -> None:
    subject = lines_with("this", 20)
    facts = Facts(subject, Plan("input.c", Path("input.c")), Built(CONFIG, ()))
    diagnosis = Diagnosis(WRONG_CODE, "", "high")
    before = Triage(Target("a", subject, compiler), subject, diagnosis, diagnosis, facts, ())
    test = in_turn(lambda candidate: candidate.c.count("int") >= 20)
    found = by_all_means(before, subject, test, False, 50, lambda: ["/no/cvise"], 60.0, print)
    assert found.lines == 20
    said = "more than 12 lines: cannot start cvise: No such file or directory"
    assert found.notes[-1] == said


def test_cvise_asks_from_a_long_folder_and_a_python_with_spaces(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long, spaced = tmp_path / ("long" * 30), tmp_path / "a b" / "python"
    long.mkdir()
    spaced.parent.mkdir()
    spaced.symlink_to(sys.executable)
    monkeypatch.setattr("tempfile.tempdir", str(long))
    monkeypatch.setattr("sys.executable", str(spaced))
    test = in_turn(lambda candidate: "this" in candidate.c)
    result = with_cvise([str(fake)], lines_with("this", 6), test, patience=60)
    assert result.subject.c == "int v3; this\n"


# --- from the command line --------------------------------------------------

ODD = """\
#!{python} -IS
import subprocess, sys
status = subprocess.run([*{clang!r}, *sys.argv[1:]]).returncode
if status == 0 and "--target=bpf" in sys.argv and "-S" not in sys.argv and "-c" in sys.argv:
    name = sys.argv[sys.argv.index("-o") + 1]
    data = open(name, "rb").read()
    right, wrong = ((n).to_bytes(4, "little") for n in (1234567, 1234566))
    open(name, "wb").write(data.replace(right, wrong))
sys.exit(status)
"""


def test_a_compiler_that_hangs_is_waited_for_once(
    tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "HANGS", 1.0)
    path = tmp_path / "slow-clang"
    slow = 'case "$*" in *-disable-llvm-passes*) ;; *--target=bpf*) sleep 99;; esac'
    path.write_text(f'#!/bin/sh\n{slow}\nexec {compiler.shell} "$@"\n')
    path.chmod(0o755)
    hanging = Compiler((str(path),), "slow", compiler.version, True, "option")
    config = replace(CONFIG, compiler=hanging.name)
    with Bench(Settings(configs=(config,), compilers=(hanging,), patience=20)) as bench:
        planned = bench.plan(Subject(WEIGH, "weigh", config, count=4))
        bench.settings = replace(bench.settings, patience=3)
        for patience in (3, 1):
            built = bench.build(planned, config)
            assert (built.crashed, built.program) == (True, None)
            assert f"did not finish in {patience}." in built.why
        assert bench.settings.patience == 1


def test_what_an_interrupted_worker_leaves_goes_with_the_pool() -> None:
    pool = Pool(1)
    with pool as executor:
        left = Path(executor.submit(tempfile.mkdtemp, prefix="crosscheck-").result())
        assert left.is_dir()
        pool.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert not left.parent.exists()


def test_a_reduction_that_never_ends_keeps_the_finding(
    tmp_path: Path, compiler: Compiler, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "odd-clang"
    odd.write_text(ODD.format(python=sys.executable, clang=list(compiler.command)))
    odd.chmod(0o755)
    finding = Finding(WEIGH, "weigh", CONFIG, "diverge", (str(odd),), vectors=8)
    path = findings.write(finding, tmp_path / "a.json")
    before = path.read_bytes()
    out = str(tmp_path / "out")
    assert main(["triage", str(path), "--patience", "1", "--no-cvise", "--out", out]) == 1
    said = capsys.readouterr().out
    assert re.search(r"note: reduction was cut off after 1 s and \d+ attempts \(--patience\)", said)
    assert path.read_bytes() == before
    assert "1234567" in (tmp_path / "out" / "a.md").read_text()
