"""The parts of triage: shrinking, rules, assembly, reports, and the page in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness import corpus, findings, run
from harness.cli import main
from harness.corpus import Known
from harness.findings import Finding
from harness.isa.asm import assemble
from harness.load import load_object
from harness.model import (
    BuildConfig,
    Divergence,
    HarnessError,
    OutOfFuel,
    Program,
    Returned,
    Subprogram,
    Trapped,
    Unknown,
)
from harness.pipeline import Settings
from harness.toolchain import Compiler, browser, find_compilers
from harness.triage import assembly, page, report, rules
from harness.triage.experiments import Subject, inlined
from harness.triage.facts import REFUSED, WRONG_CODE, Diagnosis
from harness.triage.keeping import keep
from harness.triage.session import Triage, entry_of, triage
from harness.triage.targets import Target, target_of

CONFIG = BuildConfig("clang", "2", "v3", "hidden")
WEIGH = """\
#include <stdint.h>

/* An unused neighbour. */
static int other(int a) { return a + 1; }

uint64_t weigh(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g)
{
	uint64_t sum = a + 3 * b + 5 * c;
	if (d > 7)
		sum += other(3);
	return sum + 7 * d + 11 * e + 1234567 * f + 17 * g;
}
"""


# --- findings ---------------------------------------------------------------


def test_a_finding_is_read_as_it_was_written(tmp_path: Path) -> None:
    outcomes = (Returned(3, b"\1\2"), Trapped("access", "slot 3: 8 bytes"), OutOfFuel())
    finding = Finding(
        c=WEIGH,
        function="weigh",
        config=CONFIG,
        outcome="diverge",
        command=("clang", "-v"),
        seed=7,
        divergences=tuple(
            Divergence(("jit", "interp"), b"\0\xff", (o, Unknown("why")), 1) for o in outcomes
        ),
        tree={"functions": [1, 2]},
    )
    path = findings.write(finding, tmp_path / "a.json")
    assert findings.read(path) == finding
    (tmp_path / "b.json").write_text("{}")
    assert findings.find(tmp_path) == [path]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "crosscheck finding 1"}', "\0", "[" * 100000]
)
def test_what_is_no_finding_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(HarnessError, match="not a finding") as caught:
        findings.read(path)
    assert "\n" not in str(caught.value)


# --- targets ---------------------------------------------------------------


def test_quoted_includes_are_put_in_place(tmp_path: Path) -> None:
    (tmp_path / "a.h").write_text('#include "b.h"\nint a;\n')
    (tmp_path / "b.h").write_text("int b;\n")
    assert inlined('#include "a.h"\n#include "no.h"\n', tmp_path).split("\n") == [
        "int b;", "", "int a;", "", '#include "no.h"', "",
    ]  # fmt: skip


# --- the rules, once more ---------------------------------------------------


def program(text: str, *subprograms: Subprogram) -> Program:
    insns = assemble(text).insns
    return Program("main", "syscall", "syscall", tuple(insns), subprograms)


def rules_of(text: str, split: int) -> set[str]:
    count = len(assemble(text).insns)
    subs = (Subprogram("main", 0, split), Subprogram("callee", split, count))
    return {fault.rule for fault in rules.broken(program(text, *subs))}


CALLEE = "callee:\nr0 = *(u64 *)(r11 + 8)\nexit\n"
READY = "r2 = 0\nr3 = 0\nr4 = 0\nr5 = 0\n"


def test_a_right_call_breaks_no_rule() -> None:
    assert rules_of(READY + "*(u64 *)(r11 - 8) = 1\ncall callee\nexit\n" + CALLEE, 7) == set()


@pytest.mark.parametrize(
    ("text", "split", "rule"),
    [
        (READY + "call callee\nexit\n" + CALLEE, 6, "unwritten"),
        (READY + "if r1 == 0 goto +1\n*(u64 *)(r11 - 8) = 1\ncall callee\nexit\n" + CALLEE, 8,
         "unwritten"),
        ("*(u64 *)(r11 - 8) = 1\ncall callee\nexit\n" + CALLEE, 3, "unread"),
        (READY + "*(u64 *)(r11 - 16) = 1\n*(u64 *)(r11 - 8) = 1\ncall callee\nexit\n" + CALLEE, 8,
         "needless"),
        (READY + "*(u64 *)(r11 - 8) = 1\nr2 = 1\ncall callee\nexit\n"
         + "callee:\nr0 = *(u64 *)(r11 + 16)\nexit\n", 8, "unwritten"),
        (READY + "*(u64 *)(r11 - 8) = 1\ncall callee\nexit\n"
         + "callee:\ncall 7\nr0 = *(u64 *)(r11 + 8)\nexit\n", 7, "order"),
        ("r0 = r11\nexit\nexit\n", 2, "form"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_seen(text: str, split: int, rule: str) -> None:
    assert rule in rules_of(text, split)


def test_messages_have_rules() -> None:
    assert rules.rule_of("callee expects 8 args, stack arg1 is not initialized") == "unwritten"
    assert rules.rule_of("R11 is invalid") == "form"
    assert rules.rule_of("math between map_value pointer and register") is None


# --- assembly and object ----------------------------------------------------


def test_btf_in_assembly_is_read() -> None:
    text = '\t.section\t.BTF,"",@progbits\n\t.short\t60319  # 0xeb9f\n\t.byte\t1\n'
    text += '\t.ascii\t"a\\tb\\"#c"\t# string\n\t.byte\t0\n\t.text\n\t.long 4\n'
    assert assembly.section(text, ".BTF") == b'\x9f\xeb\x01a\tb"#c\0'
    assert assembly.section(text, ".none") is None


def test_an_instruction_that_differs_is_found() -> None:
    text = "\t.type\tmain,@function\nmain:\n\tr0 = 16\n\t*(u64 *)(r10 - 8) = r0\n\texit\n"
    same = program("r0 = 0x10\n*(u64 *)(r10 - 8) = r0\nexit\n", Subprogram("main", 0, 3))
    assert assembly.compare(text, same) == (None, 3)
    other = replace(same, insns=tuple(assemble("r0 = 16\n*(u64 *)(r10 - 16) = r0\nexit\n").insns))
    found, _ = assembly.compare(text, other)
    assert found is not None
    assert found.slot == 1


# --- from one end to the other ----------------------------------------------

WRAPPER = """\
#!{python}
import subprocess, sys
status = subprocess.run([*{clang!r}, *sys.argv[1:]]).returncode
if status == 0 and "--target=bpf" in sys.argv and "-S" not in sys.argv and "-c" in sys.argv:
    name = sys.argv[sys.argv.index("-o") + 1]
    data = open(name, "rb").read()
    right, wrong = ((n).to_bytes(4, "little") for n in (1234567, 1234566))
    open(name, "wb").write(data.replace(right, wrong))
sys.exit(status)
"""


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, compiler: Compiler) -> Compiler:
    path, clang = tmp_path_factory.mktemp("odd") / "odd-clang", compiler.command
    path.write_text(WRAPPER.format(python=sys.executable, clang=list(clang)))
    path.chmod(0o755)
    return find_compilers([str(path)])[0]


def test_a_wrong_constant_from_c_to_report(
    tmp_path: Path, odd: Compiler, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "weigh.c"
    source.write_text(WEIGH)
    status = main(
        ["triage", str(source), "--function", "weigh", "--clang", odd.name, "--no-cvise",
         "--attempts", "20", "--out", str(tmp_path / "out"), "--json", "-"]
    )  # fmt: skip
    (row,) = json.loads(capsys.readouterr().out)["triaged"]
    assert status == 1
    assert row["cause"] == WRONG_CODE
    assert row["lines"] <= 12
    assert "1234567" in row["c"]
    text = Path(row["report"]).read_text()
    for part in ("## The C", "## To see it", "## Expected and actual", "## The code",
                 "## Bisection", "## How the source is known to be valid", "-->"):  # fmt: skip
        assert part in text, part
    assert re.search("[Tt]he compiler's assembly has `", text)
    assert str(tmp_path / "crosscheck-") not in text
    assert "crosscheck_" not in text
    # what the report tells people to do needs nothing of ours
    repro = re.search(r"repro\.c</summary>\n\n```c\n(.*?)```", text, re.DOTALL)
    assert repro is not None
    path = tmp_path / "repro.c"
    path.write_text(repro[1])
    command = re.search(r"^clang (--target=bpf .*)$", text, re.MULTILINE)
    assert command is not None
    subprocess.run([*odd.command, *command[1].split()], cwd=tmp_path, check=True)
    (made,) = load_object((tmp_path / "repro.o").read_bytes()).programs
    assert made.name == "entry"
    if shutil.which("gcc"):
        subprocess.run(["gcc", "-w", str(path), "-o", str(tmp_path / "repro")], check=True)
        said = subprocess.run([tmp_path / "repro"], capture_output=True, text=True, check=True)
        expected = re.search(r"native-O0 \| (0x[0-9a-f]+)", text)
        assert expected is not None
        assert said.stdout.split() == [expected[1]]


@pytest.mark.parametrize(
    ("cause", "detail", "entry"),
    [
        (WRONG_CODE, "interpreter and JIT agree with each other", None),
        (REFUSED, "R1 !read_ok", None),
        (
            REFUSED,
            "math between fp pointer and register with unbounded min value is not allowed",
            "index-in-half-a-slot",
        ),
    ],
)
def test_an_entry_of_known_explains_its_own_kind_and_message(
    cause: str, detail: str, entry: str | None, compiler: Compiler
) -> None:
    path = Path("mine/sum.c")
    subject = Subject("", "sum_array", BuildConfig(compiler.name, "0", "v3", "hidden"))
    target = Target("sum-sum_array", subject, compiler)
    known = corpus.read_known(Path(__file__).parents[2] / "corpus" / "known.toml")
    found = entry_of(path, target, Diagnosis(cause, detail, "high"), known)
    assert (found.id if found is not None else None) == entry


def test_a_fixed_fault_is_that_of_the_compilers_that_had_it(compiler: Compiler) -> None:
    subject = Subject("", "f", BuildConfig(compiler.name, "0", "v3", "hidden"))
    entry = Known("a", "divergence", "fixed-in", "why", source="*.c", compiler="22.*")
    first = Diagnosis(WRONG_CODE, "", "high")
    for version, found in (("22.1.0", entry), ("23.1.4", None)):
        target = Target("a", subject, replace(compiler, version=version))
        assert entry_of(Path("a.c"), target, first, [entry]) is found


def test_a_kept_case_is_known_until_it_is_mended(
    tmp_path: Path, odd: Compiler, compiler: Compiler, weighed: Triage
) -> None:
    result = weighed
    folder = tmp_path / "corpus"
    folder.mkdir()
    case, known = keep(result, folder)
    entries = corpus.read_known(known)
    for who, ok in ((odd, True), (compiler, False)):
        settings = Settings(configs=(), compilers=(who,), vectors=16)
        seen = run.run([], [case], settings, known=entries, jobs=1)
        assert seen.ok == ok, seen
        assert (seen.count("known") > 0) == ok
        if not ok:  # and the run says so, until case and entry are updated
            assert [c.detail for c in seen.checks] == ["expected diverge, got agree"]
    with pytest.raises(HarnessError):
        keep(result, folder)  # never over an old one


def test_a_finding_that_is_gone_or_agrees_is_kept(
    tmp_path: Path, compiler: Compiler, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = Finding(WEIGH, "weigh", CONFIG, "diverge", ("no-such-clang-1",), vectors=16)
    path = findings.write(finding, tmp_path / "a.json")
    before = path.read_bytes()
    assert main(["triage", str(path)]) == 2
    said = capsys.readouterr().err
    assert "is gone: name another with --clang" in said
    assert len(said.splitlines()) == 1
    out = str(tmp_path / "out")
    named = compiler.shell
    assert main(["triage", "--all", str(tmp_path), "--clang", named, "--out", out]) == 0
    assert "no longer diverges" in capsys.readouterr().out
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["triage"], "takes a file, or --all"),
        (["triage", "x.py"], "neither a finding"),
        (["triage", "--all", "."], "no finding"),
        (["triage", "missing.json"], "cannot read missing.json"),
    ],
)
def test_wrong_usage_of_triage_is_one_line(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert said in told
    assert len(told.splitlines()) == 1


# --- the page ---------------------------------------------------------------


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory, odd: Compiler) -> Triage:
    """A triage of a wrong constant, as it is."""
    source = tmp_path_factory.mktemp("weigh") / "weigh.c"
    source.write_text(WEIGH)
    target = target_of(source, function="weigh", compilers=[odd], build=("2", "v3", "hidden"))
    return triage(target, shrink=False, passes=False)


@pytest.fixture
def page_file(tmp_path: Path, weighed: Triage) -> Path:
    path = tmp_path / "page.html"
    path.write_text(page.page(weighed))
    assert report.title(weighed) in path.read_text()
    return path


def test_a_page_needs_nothing_else(page_file: Path) -> None:
    text = page_file.read_text()
    assert not re.search(r"\b(src|href)\s*=|@import|url\(|https?://", text)
    assert text.count("<svg") == 1
    assert "r11-16" in text
    assert "[rbp+16]" in text
    assert 'class="row wrong"' in text


@pytest.mark.browser
def test_a_page_works_in_a_browser(
    page_file: Path, tmp_path: Path, chromium: tuple[str, ...]
) -> None:
    # a click, then what the page looks like to a reader
    text = page_file.read_text().replace(
        "document.body.dataset.ready",
        "document.querySelector('.side:nth-child(2) [data-line]').click();"
        "document.body.dataset.hits=document.querySelectorAll('.side .hit').length;"
        "document.body.dataset.sides=[...document.querySelectorAll('.side')]"
        ".filter(s=>s.querySelector('.hit')).length;"
        "document.body.dataset.wide=document.documentElement.scrollWidth<=innerWidth;"
        "document.body.dataset.ready",
    )
    page_file.write_text(text)
    done = browser.dump(chromium, page_file, tmp_path / "profile")
    assert done.code == 0, done.stderr[-500:]
    body = re.search(r"<body[^>]*>", done.stdout.decode(errors="replace"))
    assert body is not None
    assert 'data-ready="yes"' in body[0], done.stderr[-500:]
    sides = re.search(r'data-sides="(\d+)"', body[0])
    assert sides is not None
    assert int(sides[1]) >= 3  # C, BPF and our x86 at least light up together
    assert 'data-wide="true"' in body[0]  # nothing sticks out
