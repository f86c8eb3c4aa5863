"""Case files: what they may hold, what they say when they may not, and rewriting them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness import btf, corpus
from harness.corpus import (
    Case,
    FunctionDecl,
    ProgramText,
    RunCheck,
    SourceText,
    VerifyCheck,
    duplicates,
    fingerprint,
)
from harness.isa.insn import Call, Load, Store
from harness.model import HarnessError, MapDef

MINIMAL = '[program]\nasm = "r0 = 0; exit"\n'

FULL = """\
# why this file is here
note = "everything a program case may have"

[program]
type = "sched_cls"
attach_type = "tcx_ingress"
asm = '''
r1 = *(u64 *)(r1 + 0)   # the first word
call f
exit
f:
r0 = r1
exit
'''

[program.functions.f]
args = ["u32"]

[program.maps.counts]
value_size = 8

[verify]  # as of Linux 7.3
verdict = "accept"

[jit.x86_64]
f = "AA bb"

[[run]]
ctx = "2a 00 00 00 00 00 00 00"  # forty-two
r0 = "42"
legs = ["interp"]
"""


def case_file(folder: Path, text: str, name: str = "some_case") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_everything(tmp_path: Path) -> None:
    case = corpus.read(case_file(tmp_path, FULL))
    assert case.name == "some_case"
    assert case.note == "everything a program case may have"
    assert case.program is not None
    assert (case.program.type, case.program.attach_type) == ("sched_cls", "tcx_ingress")
    assert case.program.functions == (FunctionDecl("f", ("u32",)),)
    assert case.program.maps == (MapDef("counts", 2, 4, 8, 1),)
    assert case.verify == VerifyCheck("accept")
    assert case.jit == {"x86_64": {"f": "aabb"}}
    assert case.runs == (RunCheck(b"\x2a" + bytes(7), "returned", 42, None, ("interp",)),)


WRONG = (
    # file, what is said of it
    ("", "either [program] or [source]"),
    (MINIMAL + '[source]\nc = ""\n', "either [program] or [source]"),
    ("program = 1", "[program] is a table, not a number"),
    ("[program]\n", "[program] needs 'asm'"),
    ("[program]\nasm = 3", "[program]: asm: expected text, not a number"),
    ('[program]\nasm = ""\ntyp = "xdp"', "[program] has no 'typ' (it has asm, type"),
    ('[program]\nasm = ""\ndialect = "r13"', "dialect: expected r11 or r12, not 'r13'"),
    (MINIMAL + "[program.functions]\nf = 1", "[program.functions.f] is a table, not a number"),
    (
        MINIMAL + "[program.functions.f]\nargs = -1",
        "[program.functions.f]: args: 0 to 255 arguments, not -1",
    ),
    (MINIMAL + "[program.functions.f]\nargs = 4000000000", "0 to 255 arguments"),
    (MINIMAL + "[program.functions.f]\nargs = true", "args: expected a list, not true or false"),
    (MINIMAL + "[program.functions.f]\nargs = 1.5", "args: expected a list, not a fraction"),
    (MINIMAL + '[program.functions.f]\nargs = "u64"', "args: expected a list, not text"),
    (
        MINIMAL + "[program.functions.f]\nargs = [1]",
        "args: expected a list of texts, found a number",
    ),
    (
        MINIMAL + '[program.functions.f]\nargs = ["u63"]',
        "no argument type 'u63' (there are u8, u16",
    ),
    (MINIMAL + '[program.functions.f]\nlinkage = "weak"', "expected static or global, not 'weak'"),
    (
        MINIMAL + "[program.maps.m]\nvalue_size = -8",
        "[program.maps.m]: value_size: expected a number from 0 up",
    ),
    (
        MINIMAL + '[program.maps.m]\ndata = "abc"',
        "data: expected an even number of hexadecimal digits",
    ),
    (MINIMAL + '[program.maps.m]\nreadonly = "yes"', "readonly: expected true or false, not text"),
    (MINIMAL + '[program.maps.m]\nfield = "bpf_lock"', "expected bpf_timer, bpf_wq"),
    (MINIMAL + "[verify]\n", "[verify] needs 'verdict'"),
    (MINIMAL + '[verify]\nverdict = "maybe"', "expected accept, reject or unknown, not 'maybe'"),
    (
        MINIMAL + '[verify]\nverdict = "accept"\ninsn = "3"',
        "[verify]: insn: expected a number, not text",
    ),
    (MINIMAL + '[verify]\nverdict = "accept"\nmesage = ""', "[verify] has no 'mesage'"),
    (
        MINIMAL + '[verify]\nverdict = "accept"\nkernel = "old"',
        "expected no-jit or no-stack-args, not 'old'",
    ),
    (MINIMAL + '[jit.x86_65]\nf = ""', "[jit] has no 'x86_65' (it has x86_64)"),
    (MINIMAL + '[jit.x86_64]\nf = "0"', "[jit.x86_64]: f: expected an even number"),
    (MINIMAL + "[jit.x86_64]\nf = 90", "[jit.x86_64]: f: expected text, not a number"),
    (MINIMAL + '[run]\nctx = ""', "run: expected a list, not a table"),
    (MINIMAL + "run = [1]\n", "[program] has no 'run'"),
    (MINIMAL + '[[run]]\n[[run]]\nctx = "0g"', "[[run]] 2: ctx: expected an even number"),
    (MINIMAL + "[[run]]\nr0 = 42", "[[run]] 1: r0: expected text, not a number"),
    (MINIMAL + '[[run]]\nr0 = "forty"', "expected a number as text, e.g. '0x2a', not 'forty'"),
    (MINIMAL + '[[run]]\nr0 = "010"', "not '010'"),
    (MINIMAL + '[[run]]\nr0 = "1_0"', "not '1_0'"),
    (MINIMAL + '[[run]]\nr0 = "0x10000000000000000"', "does not fit 64 bits"),
    (MINIMAL + '[[run]]\noutcome = "crash"', "expected returned, trapped or fuel, not 'crash'"),
    (MINIMAL + '[[run]]\noutcome = "fuel"\nr0 = "1"', "fuel leaves no r0 and no context"),
    (MINIMAL + '[[run]]\nlegs = "jit"', "legs: expected a list, not text"),
    (MINIMAL + '[[run]]\nlegs = ["native"]', "expected interp, jit or kernel, not 'native'"),
    ('[source]\nc = ""\nopts = ["fast"]', "expected 0, 1, 2, 3 or s, not 'fast'"),
    ('[source]\nc = ""\nmcpus = ["v9"]', "not 'v9'"),
    ('[source]\nc = ""\nlinkages = 2', "linkages: expected a list, not a number"),
    ('[source]\nc = ""\n[verify]\nverdict = "accept"', "are checks of a [program]"),
    (MINIMAL + '[crosscheck]\noutcome = "agree"', "is a check of a [source]"),
    (
        '[source]\nc = ""\n[crosscheck]\noutcome = "fine"',
        "expected agree, diverge, rejected or compile_error",
    ),
    ("note = 2001-01-01\n" + MINIMAL, "note: expected text, not a date or time"),
    ("note = ", "Invalid value"),
    ("a = " + 3000 * "[", ""),
)


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said for _, said in WRONG])
def test_says_what_is_wrong_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = case_file(tmp_path, text)
    with pytest.raises(HarnessError) as caught:
        corpus.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert said in message
    assert "\n" not in message


def test_files_that_are_no_cases(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="No such file"):
        corpus.read(tmp_path / "none.toml")
    with pytest.raises(HarnessError, match="directory"):
        corpus.read(tmp_path)
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'note = "\xe9"')
    with pytest.raises(HarnessError, match="utf-8"):
        corpus.read(latin)
    huge = tmp_path / "huge.toml"
    huge.write_bytes(b"#" * (corpus.MAX_SIZE + 1))
    with pytest.raises(HarnessError, match="at most 4 MiB"):
        corpus.read(huge)


@settings(deadline=None)  # the file system of a busy machine takes what it takes
@given(st.text(max_size=60))
def test_any_text_is_a_case_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = case_file(tmp_path_factory.getbasetemp(), text.encode("utf-8", "replace").decode())
    with pytest.raises(HarnessError):
        corpus.read(path)


def test_find(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    one, two = case_file(tmp_path, MINIMAL, "one"), case_file(tmp_path / "deep", MINIMAL, "two")
    case_file(tmp_path, "", "known")
    (tmp_path / "notes.txt").write_text("")
    assert corpus.find([tmp_path]) == [two, one]
    assert corpus.find([one, tmp_path / "known.toml", tmp_path / "notes.txt"]) == [one]


# --- BPF text to a program ----------------------------------------------------


def test_program_has_subprograms_and_their_types() -> None:
    text = ProgramText(
        asm="""
        call f; call g; r0 = cb ll; exit
        f: r0 = *(u64 *)(r11 + 8); exit
        g: r0 = 1; goto over; over: exit
        cb: r0 = 0; exit
        """,
        functions=(FunctionDecl("f", ("u8", "s16", "bool", "ptr", "u64", "u32"), "global"),),
    )
    program = corpus.program(text, "a-b")
    assert [(s.name, s.start, s.end, s.linkage) for s in program.subprograms] == [
        ("a_b", 0, 5, "global"),
        ("f", 5, 7, "global"),
        ("g", 7, 10, "static"),
        ("cb", 10, 12, "static"),
    ]
    assert program.btf is not None
    main, f, g = (program.btf.types[s.type_id] for s in program.subprograms[:3])
    assert isinstance(main, btf.Func)
    assert isinstance(f, btf.Func)
    assert isinstance(g, btf.Func)
    assert (main.name, main.linkage) == ("a_b", btf.GLOBAL)
    assert (f.name, f.linkage) == ("f", btf.GLOBAL)
    assert (g.name, g.linkage) == ("g", btf.STATIC)
    prototype = program.btf.types[f.type]
    assert isinstance(prototype, btf.FuncProto)
    assert [p.name for p in prototype.params] == ["a1", "a2", "a3", "a4", "a5", "a6"]
    names = [getattr(program.btf.types[p.type], "name", "") for p in prototype.params]
    assert names == ["unsigned char", "short", "_Bool", "", "unsigned long", "unsigned int"]


def test_both_dialects_spell_one_program() -> None:
    def text(dialect: Any, incoming: str, outgoing: tuple[str, str]) -> ProgramText:
        first, second = outgoing
        return ProgramText(
            asm=f"""
            *(u64 *)({first}) = r1; *(u64 *)({second}) = 7; call f; exit
            f: r0 = *(u64 *)({incoming}); exit
            """,
            dialect=dialect,
            functions=(FunctionDecl("f", ("u64",) * 7),),
        )

    new = corpus.program(text("r11", "r11 + 16", ("r11 - 8", "r11 - 16")), "p")
    old = corpus.program(text("r12", "r12 - 16", ("r12 - 8", "r12 - 16")), "p")
    assert new == old
    assert new.insns[:1] == (Store(8, 11, -8, 1),)
    assert Call("subprog", 1) in new.insns
    assert Load(8, 0, 11, 16) in new.insns


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ProgramText("r0 = 0\n  r1 += \nexit"), "p: 2:8: expected"),
        (ProgramText("exit", functions=(FunctionDecl("f", ()),)), "p: no label for function f"),
    ],
)
def test_programs_that_are_none(text: ProgramText, said: str) -> None:
    with pytest.raises(HarnessError, match=said):
        corpus.program(text, "p")


# --- rewriting ------------------------------------------------------------------


def test_bless_keeps_all_but_what_changed(tmp_path: Path) -> None:
    path = case_file(tmp_path, FULL)
    runs = [RunCheck(corpus.read(path).runs[0].ctx, "returned", 43, b"\x01" * 8)]
    images = {"x86_64": {"some_case": "90", "f": "c3"}}
    assert corpus.bless(path, verify=VerifyCheck("reject", "no", 3), jit=images, runs=runs)
    expected = (
        FULL.replace('verdict = "accept"', 'verdict = "reject"\ninsn = 3\nmessage = "no"')
        .replace('f = "AA bb"', 'f = "c3"')
        .replace('r0 = "42"', 'r0 = "0x2b"')
    )
    expected = expected.rstrip("\n") + '\nafter = "0101010101010101"\n'
    assert path.read_text() == expected
    assert not corpus.bless(path, verify=VerifyCheck("reject", "no", 3), jit=images, runs=runs)
    assert path.read_text() == expected


def test_bless_of_what_is_right_changes_nothing(tmp_path: Path) -> None:
    path = case_file(tmp_path, FULL)
    case = corpus.read(path)
    path.chmod(0o600)
    before = path.stat()
    assert not corpus.bless(path, verify=case.verify, jit=case.jit, runs=case.runs)
    assert path.read_text() == FULL
    assert path.stat().st_ino == before.st_ino
    assert corpus.bless(path, verify=VerifyCheck("reject"))
    assert path.stat().st_mode == before.st_mode


def test_bless_takes_away_what_no_longer_holds(tmp_path: Path) -> None:
    path = case_file(tmp_path, FULL)
    ctx = corpus.read(path).runs[0].ctx
    corpus.bless(path, verify=VerifyCheck("reject", "no", 3), runs=[RunCheck(ctx, "fuel")])
    case = corpus.read(path)
    assert case.verify == VerifyCheck("reject", "no", 3)
    assert case.runs == (RunCheck(ctx, "fuel", None, None, ("interp",)),)
    corpus.bless(path, verify=VerifyCheck("accept"), runs=[RunCheck(ctx, "returned", 1, ctx)])
    case = corpus.read(path)
    assert case.verify == VerifyCheck("accept")
    assert case.runs == (RunCheck(ctx, "returned", 1, None, ("interp",)),)


def test_bless_fills_in_what_is_not_there(tmp_path: Path) -> None:
    path = case_file(tmp_path, MINIMAL + "[jit.x86_64]\n[[run]]\n")
    big = (1 << 64) - 1
    corpus.bless(
        path,
        verify=VerifyCheck("accept"),
        jit={"x86_64": {"some_case": "90"}},
        runs=[RunCheck(b"", "returned", big)],
    )
    case = corpus.read(path)
    assert case.verify == VerifyCheck("accept")
    assert case.jit == {"x86_64": {"some_case": "90"}}
    assert case.runs == (RunCheck(b"", "returned", big),)
    source = case_file(tmp_path, '[source]\nc = ""\n', "source")
    corpus.bless(source, crosscheck="diverge")
    assert corpus.read(source).crosscheck == "diverge"


def test_bless_wants_as_many_runs_as_there_are(tmp_path: Path) -> None:
    path = case_file(tmp_path, FULL)
    with pytest.raises(HarnessError, match="has 1 runs, not 2"):
        corpus.bless(path, runs=[RunCheck(b"")] * 2)
    assert path.read_text() == FULL


WRITTEN = (
    Case(Path("minimal"), program=ProgramText("r0 = 0\nexit\n")),
    Case(
        Path("full"),
        note="two lines\nof \"note\", and '''quotes''' and a \\ and an é",
        program=ProgramText(
            "# comment\ncall f\n",
            type="xdp",
            dialect="r12",
            functions=(
                FunctionDecl("f", ("u64",) * 7),
                FunctionDecl("g", ("ptr", "s8"), "global"),
                FunctionDecl("h", ()),
            ),
            maps=(MapDef("m", 1, 4, 16, 3), MapDef("r.o", 2, 4, 2, 1, data=b"ab", readonly=True)),
            fields=(("m", "bpf_timer"),),
        ),
        verify=VerifyCheck("reject", "R11 is invalid", 3, "0: (95) exit\n", "no-jit"),
        jit={"x86_64": {"f": "90", "r.s": ""}},
        runs=(
            RunCheck(b"\1\2", "returned", (1 << 64) - 1, b"\2\1", ("jit",)),
            RunCheck(b"", "trapped"),
            RunCheck(b"\1", "returned", 0),
        ),
    ),
    Case(
        Path("source"),
        source=SourceText(
            "int f(int a)\n{\n\treturn '\\n';\n}\n", ("0", "s"), ("v4",), ("static",)
        ),
        crosscheck="rejected",
    ),
    Case(Path("ends"), note="a\n'", program=ProgramText('exit ; "\n"')),
    Case(Path("control"), note="a\n\x00\x7f\r\n", program=ProgramText("exit\r\n")),
)


@pytest.mark.parametrize("case", WRITTEN, ids=lambda case: case.name)
def test_what_is_written_reads_the_same(tmp_path: Path, case: Case) -> None:
    case = replace(case, path=tmp_path / f"{case.path}.toml")
    assert corpus.write(case) == case.path
    assert corpus.read(case.path) == case
    text = case.path.read_text()
    with pytest.raises(HarnessError, match="File exists"):
        corpus.write(case)
    assert case.path.read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == [case.path.name]


@settings(deadline=None)
@given(note=st.text(), asm=st.text(), ctx=st.binary(max_size=8), r0=st.integers(0, (1 << 64) - 1))
def test_any_text_is_written_and_read(
    tmp_path_factory: pytest.TempPathFactory, note: str, asm: str, ctx: bytes, r0: int
) -> None:
    path = tmp_path_factory.mktemp("write") / "case.toml"
    case = Case(path, note, ProgramText(asm), runs=(RunCheck(ctx, "returned", r0),))
    try:
        corpus.write(case)
        assert corpus.read(path) == case
    except UnicodeEncodeError:
        assert any(0xD800 <= ord(c) < 0xE000 for c in note + asm)


def test_folders_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="cannot be written"):
        corpus.write(Case(tmp_path / "none" / "case.toml", program=ProgramText("exit")))


WRONG_CASE = """\
note = "four expectations, one of them right"  # kept

[program]
asm = "r0 = *(u64 *)(r1 + 0); r0 += 1; exit"

[verify]
verdict = "reject"

[[run]]
ctx = "01 00000000000000"
r0 = "2"

[[run]]  # wraps
ctx = "ffffffffffffffff"
r0 = "1"

[jit.x86_64]
plus_one = "90"
"""


def test_pytest_runs_cases_and_blesses_them(tmp_path: Path) -> None:
    root = Path(harness.__file__).parent.parent
    (tmp_path / "conftest.py").write_text((root / "conftest.py").read_text())
    (tmp_path / "corpus").mkdir()
    path = case_file(tmp_path / "corpus", WRONG_CASE, "plus_one")
    case_file(tmp_path / "corpus", "", "known")

    def pytest_says(*options: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "corpus"]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        return done.returncode, done.stdout

    status, output = pytest_says()
    assert status == 1, output
    assert "verdict: expected 'reject', got 'accept'" in output
    assert "x86_64 image of plus_one: expected 90, got f30f1efa" in output
    assert "run 2 on interp: expected" in output
    assert "run 1 on" not in output
    assert path.read_text() == WRONG_CASE
    for _ in range(2):
        assert pytest_says("--bless")[0] == 0
        blessed = path.read_text()
        code = corpus.read(path).jit["x86_64"]["plus_one"]
        expected = WRONG_CASE.replace("reject", "accept").replace('r0 = "1"', 'r0 = "0x0"')
        assert blessed == expected.replace('"90"', f'"{code}"')
    assert pytest_says()[0] == 0


# --- the same program twice -------------------------------------------------------


def of_text(asm: str, **more: Any) -> Case:
    return Case(Path("a.toml"), program=ProgramText(asm, **more))


SIX = (FunctionDecl("f", ("u64",) * 6),)
BASE = of_text("r0 = 1\nif r0 > 2 goto out\nr0 = 2\nout: exit\n")
SAME = (
    of_text("r0 = 1; if r0 > 2 goto L; r0 = 2; L: exit"),
    of_text("# other words\nr0 = 0x1\n  if r0 > 2 goto +1\nr0 = 2\nexit"),
    Case(Path("b.toml"), "a note", BASE.program, verify=VerifyCheck("accept")),
)
OTHER = (
    of_text("r0 = 1; if r0 > 3 goto L; r0 = 2; L: exit"),
    of_text("r0 = 1; if r0 > 2 goto L; r0 = 2; L: exit", type="xdp"),
    of_text("r0 = 1; if r0 > 2 goto L; r0 = 2; L: exit", dialect="r12"),
    of_text("r0 = 1; if r0 > 2 goto L; r0 = 2; L: exit", maps=(MapDef("m", 2, 4, 8, 1),)),
    Case(Path("a.toml"), program=BASE.program, runs=(RunCheck(b"\1"),)),
    Case(Path("a.toml"), program=BASE.program, verify=VerifyCheck("reject", kernel="no-jit")),
    of_text("call f; exit; f: r0 = 0; exit"),
    of_text("call f; exit; f: r0 = 0; exit", functions=SIX),
    of_text("this does not assemble"),
    Case(Path("a.toml"), source=SourceText("int f(int a) { return a; }")),
    Case(Path("a.toml"), source=SourceText("int f(int a) { return a; }", opts=("0",))),
    Case(Path("a.toml"), source=SourceText("intf(int a) { return a; }")),
    Case(Path("a.toml"), source=SourceText('int f(int a) { return a + "x //"[0]; }')),
    Case(Path("a.toml"), source=SourceText('int f(int a) { return a + "x  //"[0]; }')),
    Case(Path("a.toml"), source=SourceText("#define A\nint f(int a) { return a; }")),
    Case(Path("a.toml"), source=SourceText("#define A int f(int a) { return a; }")),
)


def test_fingerprints_tell_programs_apart() -> None:
    for case in SAME:
        assert fingerprint(case) == fingerprint(BASE)
    prints = [fingerprint(case) for case in (BASE, *OTHER)]
    assert len(set(prints)) == len(prints)
    spaced = SourceText("int f( /* x */ int a )\n{ // y\n\treturn a;\n}\n")
    assert fingerprint(Case(Path("z"), source=spaced)) == fingerprint(OTHER[9])


def test_duplicates() -> None:
    assert duplicates([BASE, *OTHER]) == []
    assert duplicates([OTHER[0], BASE, OTHER[1], *SAME]) == [(BASE, *SAME)]


# --- known.toml -------------------------------------------------------------------

KNOWN = """\
[[known]]
id = "a"
kind = "reject"
status = "by-design"
source = "*/wide.c"
message = "invalid read*"
note = "why"
"""


def test_reads_known(tmp_path: Path) -> None:
    path = case_file(tmp_path, KNOWN, "known")
    (entry,) = corpus.read_known(path)
    assert (entry.id, entry.kind, entry.function, entry.legs) == ("a", "reject", "*", ())
    assert entry.matches("reject", "c/wide.c", "f", "-O2", "invalid read from stack arg off 8")
    assert not entry.matches("reject", "c/wide.c", "f", "-O2", "R11 is invalid")
    assert not entry.matches("divergence", "c/wide.c", "f", "-O2", "invalid read")
    assert not entry.matches("reject", "c/narrow.c", "f", "-O2", "invalid read")
    assert corpus.read_known(tmp_path / "none.toml") == ()


WRONG_KNOWN = (
    # file, what is said of it
    ("known = 3", "known: expected a list, not a number"),
    ("[[knwon]]", "known.toml has no 'knwon'"),
    ("[[known]]", "[[known]] 1 needs 'id'"),
    (KNOWN + KNOWN, "two entries have the id 'a'"),
    (KNOWN.replace('note = "why"', ""), "[[known]] 1 needs 'note'"),
    (KNOWN.replace("by-design", "wontfix"), "expected open, fixed-in or by-design"),
    (KNOWN.replace("reject", "refusal"), "expected divergence, reject"),
    (KNOWN + "functon = 'x'", "[[known]] 1 has no 'functon'"),
    (KNOWN + "function = ['x']", "function: expected text, not a list"),
    (KNOWN + "legs = 'jit'", "legs: expected a list, not text"),
    (KNOWN + "legs = ['arm']", "expected interp, jit, native or kernel"),
    ("[[known", "Expected ']]'"),
)


@pytest.mark.parametrize(("text", "said"), WRONG_KNOWN, ids=[said for _, said in WRONG_KNOWN])
def test_says_what_is_wrong_with_known(tmp_path: Path, text: str, said: str) -> None:
    path = case_file(tmp_path, text, "known")
    with pytest.raises(HarnessError) as caught:
        corpus.read_known(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
