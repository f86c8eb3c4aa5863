"""Pages of runs, campaigns and parities: whole, safe, and readable without anything else."""

from __future__ import annotations

import io
import json
import re
import sqlite3
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import findings, report
from harness.cli import main
from harness.corpus import Known
from harness.grow.batch import BatchResult, Seen
from harness.grow.campaign import digest
from harness.grow.state import Found, State
from harness.model import BuildConfig, Divergence, HarnessError, Returned, Trapped
from harness.report.contexts import dump
from harness.report.rows import Row
from harness.toolchain import Compiler, browser

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202e\ud800\x00&amp;"
ENTRY = Known("entry", "divergence", "open", f"Why: {EVIL}", link="https://example.org/?a&b")


def check(outcome: str = "agree", **more: Any) -> dict[str, Any]:
    row = {
        "source": "a.c", "function": "f", "compiler": "clang", "opt": "2", "mcpu": "v4",
        "linkage": "hidden", "verdict": "accept", "vectors": 8, "outcome": outcome,
        "detail": None, "known": None,
    }  # fmt: skip
    return {**row, **more}


def a_run(*builds: dict[str, Any], divergences: Any = (), **summary: Any) -> dict[str, Any]:
    figures = {
        "functions": 2, "builds": 1, "vectors": 1234567, "agree": 1, "diverge": 0, "known": 0,
        "rejected": 0, "compile_errors": 0, "unknown": 0, "seconds": 1.5, "seed": 77, "stale": [],
    }  # fmt: skip
    return {
        "summary": {**figures, **summary},
        "compilers": {"clang": "23.1.4"},
        "builds": list(builds),
        "divergences": list(divergences),
    }


def returned(r0: int, ctx: str) -> dict[str, Any]:
    return {"outcome": "returned", "r0": r0, "ctx": ctx, "detail": None}


APART = {
    "source": "a.c", "function": "f", "build": "-O2 -mcpu=v4 hidden",
    "legs": ["interp", "native-O2"], "vector": "000102030405060708090a0b0c0d0e0f1011",
    "offset": 9, "known": None,
    "outcomes": [returned(5, "00" * 18), returned(2**64 - 2, "00" * 9 + "ff" + "00" * 7 + "01")],
}  # fmt: skip


def shown(data: Any, tmp_path: Path, known: tuple[Known, ...] = ()) -> str:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(data))
    return report.page(report.read(str(file)), known)


class Tags(HTMLParser):
    """The elements of a page, and its text; what is opened must be closed."""

    VOID = ("meta", "input", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words += data


def harmless(text: str) -> str:
    """Return what *text* says; it has one script, ours, and loads nothing."""
    page = Tags(text)
    names = [name for name, _ in page.all]
    assert names.count("script") == 1
    assert not {"img", "link", "iframe", "object", "base", "form"} & set(names)
    for name, attributes in page.all:
        assert not [key for key in attributes if key.startswith("on") or key in ("src", "srcset")]
        assert name == "a" or "href" not in attributes
    assert not re.search(r"@import|url\(", text)
    assert "default-src 'none'" in text
    text.encode()  # a lone surrogate cannot be written
    return page.words


# --- runs -------------------------------------------------------------------


def test_a_run_shows_figures_and_builds(tmp_path: Path) -> None:
    data = a_run(
        check(), check(function="g"), check("rejected", function="h", detail="R1 !read_ok"),
        check(source="b.c", opt="0"), check(source="c.toml", opt=None, compiler=None),
        agree=4, rejected=1,
    )  # fmt: skip
    text = shown(data, tmp_path)
    words = harmless(text)
    for said in ("1,234,567vectors", "77seed", "23.1.4version of clang", "R1 !read_ok"):
        assert said in words
    assert "1 of 5 results to look at." in words
    # builds in order of level: -O0 has nothing of a.c, -O2 two that agree and one that does not
    assert re.search(r"<th>-O0 v4.*\n<th>-O2 v4", text)
    row = re.search(r'<tr data-o="agree rejected"><th>a\.c</th>\n(.*?)</tr>', text, re.DOTALL)
    assert row is not None
    assert row[1].replace("\n", "") == (
        '<td></td><td class="cell rejected" title="24 vectors">2<small>1 rejected</small></td>'
    )
    assert "c.toml" not in re.findall(r"<tr data-o.*?</tr>", text, re.DOTALL)[-1]
    assert "1 case of BPF text" in words


def test_a_run_that_agrees_says_so_and_an_empty_one_does_not(tmp_path: Path) -> None:
    assert "Everything agrees, or is explained." in shown(a_run(check()), tmp_path)
    explained = check("rejected", detail="no", known="entry")
    text = shown(a_run(explained), tmp_path, (ENTRY,))
    assert "Everything agrees, or is explained." in text
    assert "Explained refusals (1)" in text
    assert 'href="https://example.org/?a&amp;b"' in text
    assert "No such entry" in shown(a_run(explained), tmp_path)
    assert "Nothing was checked." in shown(a_run(), tmp_path)
    stale = shown(a_run(check(), stale=["entry"]), tmp_path, (ENTRY,))
    assert "Known, but agrees now: entry." in stale
    assert "Everything agrees" not in stale


def test_a_divergence_shows_where_the_outcomes_part(tmp_path: Path) -> None:
    text = shown(a_run(check("diverge"), divergences=[APART], diverge=1), tmp_path)
    words = harmless(text)
    assert "interp against native-O2" in words
    assert "The contexts differ first at byte 9 (0x9)." in words
    assert "r0 = 0xfffffffffffffffe (-2)" in words
    assert "0000  00 01 02 03 04 05 06 07  08 09" in words
    assert "0010  10 11" in words
    assert text.count('<mark class="first">00</mark>') == 1
    assert text.count('<mark class="first">ff</mark>') == 1
    assert text.count("<mark>01</mark>") == 1  # it differs too, and may be padding


def test_divergences_belong_to_their_compiler(tmp_path: Path) -> None:
    other = {**APART, "compiler": "old", "legs": ["interp", "jit"]}
    data = a_run(
        check("diverge"), check("diverge", compiler="old"),
        divergences=[{**APART, "compiler": "clang"}, other],
    )  # fmt: skip
    data["compilers"]["old"] = "22.1"
    items = re.findall(r"<details.*?</details>", shown(data, tmp_path), re.DOTALL)
    assert "by clang" in items[0]
    assert "native-O2" in items[0]
    assert "by old" in items[1]
    assert "native-O2" not in items[1]


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([returned(1, ""), returned(2, "")], "r0 differs."),
        ([returned(1, ""), {"outcome": "trapped", "detail": "null"}], "They end differently."),
        ([{"outcome": "rejected", "detail": w} for w in "ab"], "They say different things."),
        ([returned(1, ""), returned(1, "")], "what they did besides differs"),
    ],
)
def test_what_differs_is_said(outcomes: Any, said: str, tmp_path: Path) -> None:
    row = {**APART, "offset": None, "vector": "", "outcomes": outcomes}
    assert said in shown(a_run(check("diverge"), divergences=[row]), tmp_path)


def test_a_long_context_is_cut_and_contexts_of_two_lengths_are_marked() -> None:
    assert dump(bytes(5000)).endswith("and 904 bytes more")
    assert dump(b"\x01\x02", b"\x01", 1).endswith('01 <mark class="first">02</mark>')


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    bad = {"source": EVIL, "function": EVIL, "detail": EVIL, "linkage": EVIL, "known": EVIL}
    outcomes = ("agree", "diverge", "known", "rejected", "compile_error", "unknown", EVIL)
    rows = [check(o, **bad) for o in outcomes] + [check(o, detail=EVIL) for o in outcomes]
    row = {**APART, "source": EVIL, "function": EVIL, "build": f"-O2 -mcpu=v4 {EVIL}"}
    row["legs"] = [EVIL, EVIL]
    row["outcomes"] = [{"outcome": EVIL, "detail": EVIL}] * 2
    data = a_run(*rows, divergences=[row], stale=[EVIL])
    data["compilers"] = {EVIL: EVIL}
    entry = Known(EVIL, "divergence", "open", EVIL, link="javascript:alert(3)")
    words = harmless(shown(data, tmp_path, (entry,)))
    assert "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>" in words
    assert r"\u202e\ud800\x00&amp;" in words
    assert "javascript:alert(3)" in words


def test_a_run_of_now_becomes_a_page(
    tmp_path: Path,
    compiler: Compiler,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("six.c").write_text(
        "long six(int a, int b, int c, int d, int e, long f) { return a - f; }"
    )
    arguments = ["-O", "2", "--mcpu", "v4", "--linkage", "hidden", "--vectors", "4"]
    clang = ["--clang", compiler.command[0], "--jobs", "1"]
    assert main(["run", "six.c", *arguments, *clang, "--json", "six.json"]) == 0
    capsys.readouterr()
    assert main(["report", "six.json"]) == 0
    assert re.fullmatch(r"six\.html: the page of a run, \d+ KiB\n", capsys.readouterr().out)
    words = harmless(Path("six.html").read_text())
    assert "Everything agrees, or is explained." in words
    assert "six.c" in words
    assert compiler.version in words


# --- campaigns --------------------------------------------------------------

STORED = EVIL.replace("\ud800", "")  # a database holds no lone surrogate
DIVERGES, REFUSED = "diverge: interp-jit, returned", f"rejected: {STORED}"


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    """A folder of findings with a state, as a campaign leaves it."""
    folder = tmp_path / "found"
    state = State(folder / "campaign.sqlite", 5, 64, resume=False)
    seen = tuple(Seen(n, frozenset({f"jit {n}", "clang x"})) for n in range(3))
    state.add(
        BatchResult(
            0, 64, 640, 4000, {"agree": 90, "diverge": 2, "rejected": 8}, {STORED: 6, "Rn": 2},
            seen, 9.0, streams=8, functions=70,
        ),
        [Found(DIVERGES, None, "diverge-1.json"), Found(REFUSED, "entry", "../../evil.toml")],
    )  # fmt: skip
    state.sample((1.0, 0, 0, 0, 0, 1 << 20))
    state.sample((10.0, 64, 4000, 4, 2, 2 << 20))
    state.close()
    config = BuildConfig("clang", "2", "v4", "hidden")
    outcomes = Returned(1, bytes(8)), Trapped("null", "insn 3")
    finding = findings.Finding(
        f"int small; /* {STORED} */", "small", config, "diverge",
        divergences=(Divergence(("interp", "jit"), bytes(8), outcomes),),
    )  # fmt: skip
    findings.write(finding, folder / f"bucket-{digest(DIVERGES)}.json")
    (tmp_path.parent / "evil.toml").write_text("not to be read")
    return folder


def test_a_campaign_becomes_a_page(campaign: Path) -> None:
    before = {path.name: path.read_bytes() for path in campaign.iterdir()}
    text = report.page(report.read(str(campaign)), (ENTRY,))
    words = harmless(text)
    assert {path.name: path.read_bytes() for path in campaign.iterdir()} == before
    for said in ("64programs", "92.0%accepted", "4features", "2buckets", "5seed"):
        assert said in words
    assert "1 bucket of divergences, refusals or compile errors not explained." in words
    assert text.count('<polyline class="curve"') == 1
    assert "int small; /*" in words
    assert "interp against jit" in words
    assert "They end differently." in words
    assert "not to be read" not in words
    assert words.index("interp-jit, returned") < words.index("known: entry")
    assert re.search(r"75\.0%.*25\.0%", words, re.DOTALL)  # of the refusals
    # the file of the state is as good as its folder
    assert report.page(report.read(str(campaign / "campaign.sqlite")), (ENTRY,)) == text


def test_a_campaign_that_runs_can_be_looked_at(campaign: Path) -> None:
    state = State(campaign / "campaign.sqlite", 5, 64, resume=True)
    try:
        state.add(BatchResult(1, 36, 1, 1, {"agree": 1}, {}, (), 1.0))
        assert "100programs" in harmless(report.page(report.read(str(campaign))))
        state.add(BatchResult(2, 1, 1, 1, {"agree": 1}, {}, (), 1.0))
    finally:
        state.close()


def test_grow_json_becomes_a_page(tmp_path: Path) -> None:
    data = {"programs": 3, "outcomes": {"agree": 3}, "refusals": {}, "buckets": []}
    assert "Every divergence and refusal is known." in harmless(shown(data, tmp_path))
    data["programs"] = 0
    assert "Nothing was checked." in shown(data, tmp_path)


# --- parity -----------------------------------------------------------------


def test_a_parity_becomes_a_page(tmp_path: Path) -> None:
    one = {"part": "image", "where": EVIL, "ours": EVIL, "linux": "90", "known": None}
    program = {"source": EVIL, "build": None, "name": EVIL, "unknown": [EVIL]}
    data: dict[str, Any] = {
        "summary": {"programs": 1, "same": 0, "parts": {EVIL: {"differs": 1}}, "missing": [EVIL]},
        "programs": [{**program, "differences": [one, {**one, "known": "entry"}]}],
    }
    assert "1 difference not explained." in harmless(shown(data, tmp_path, (ENTRY,)))
    data["programs"][0]["differences"] = [{**one, "known": "entry"}]
    assert "or it is explained." in shown(data, tmp_path, (ENTRY,))


# --- what is no result ------------------------------------------------------

WHOLE = a_run(check("diverge"), divergences=[APART])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not JSON"),
        ("\xff", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not what `run`, `grow` or `parity` write"),
        ('{"programs": []}', "not what `run`, `grow` or `parity` write"),
        (json.dumps({"format": findings.FORMAT}), "crosscheck triage x"),
        ("SQLite format 3\0 and no more", "not the state of a campaign"),
        (json.dumps({**WHOLE, "summary": 1}), "summary is no object"),
        (json.dumps({**WHOLE, "builds": 1}), "builds is no list"),
        (json.dumps({**WHOLE, "builds": [1]}), "builds[0] is no object"),
        (json.dumps(a_run(check(opt=1))), "builds[0]: opt is no string"),
        (json.dumps(a_run(check(vectors=1.5))), "vectors is no whole number"),
        (json.dumps(a_run(seconds=True)), "seconds is no number"),
        (json.dumps(a_run(seconds=float("nan"))), "seconds is out of range"),
        (json.dumps(a_run(check(vectors=10**400))), "vectors is out of range"),
        (json.dumps(a_run(stale=[1])), "stale is not all strings"),
        (
            json.dumps(a_run(check("diverge"), divergences=[{**APART, "vector": "0x"}])),
            "vector is not hexadecimal",
        ),
        (
            json.dumps(a_run(check("diverge"), divergences=[{**APART, "legs": ["jit"]}])),
            "a divergence has two legs",
        ),
    ],
)
def test_what_is_no_result_is_refused_in_one_line(
    content: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x").write_bytes(content.encode("latin-1"))
    assert main(["report", "x"]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert len(told.err.splitlines()) == 1
    assert told.out == ""
    assert [path.name for path in Path().iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.json"], "cannot read nothing.json: No such file"),
        (["."], "no campaign.sqlite there"),
        (["ok.json", "-o", "no/where.html"], "cannot be written"),
        (["ok.json", "--known", "none.toml"], "none.toml: no such file"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ok.json").write_text(json.dumps(a_run(check())))
    assert main(["report", *arguments]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert len(told.splitlines()) == 1


def test_a_state_of_another_version_is_refused(campaign: Path) -> None:
    with sqlite3.connect(campaign / "campaign.sqlite") as db:
        db.execute("UPDATE campaign SET value = 1 WHERE key = 'format'")
    db.close()
    with pytest.raises(HarnessError, match="of another version of crosscheck"):
        report.read(str(campaign))


@pytest.mark.parametrize("table", ["campaign", "feature", "bucket", "progress"])
def test_a_state_that_is_not_whole_is_refused(table: str, campaign: Path) -> None:
    with sqlite3.connect(campaign / "campaign.sqlite") as db:
        db.execute(f"DROP TABLE {table}")
    db.close()
    with pytest.raises(HarnessError, match=f"state of a campaign: no such table: {table}"):
        report.read(str(campaign))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_is_a_page_or_one_error(data: st.DataObject, tmp_path_factory: Any) -> None:
    whole = json.loads(json.dumps({**WHOLE, "builds": [check("known", known="entry")]}))
    whole["builds"][0] |= {"detail": "why"}
    at, places = whole, []
    while isinstance(at, dict | list) and at:
        keys = sorted(at) if isinstance(at, dict) else list(range(len(at)))
        places.append((at, data.draw(st.sampled_from(keys))))
        at = places[-1][0][places[-1][1]]
    holder, key = data.draw(st.sampled_from(places))
    junk = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
    holder[key] = data.draw(junk | st.lists(junk, max_size=2) | st.just({}) | st.just(-(2**63)))
    try:
        text = shown(whole, tmp_path_factory.getbasetemp(), (ENTRY,))
    except HarnessError as error:
        said = str(error)
    else:
        said = harmless(text).splitlines()[0]
    assert said.count("\n") == 0


def test_compile_errors_are_grouped_without_their_place(tmp_path: Path) -> None:
    rows = [
        check("compile_error", opt=o, detail=f"a.c -O{o} -mcpu=v4 hidden: a static map")
        for o in ("0", "2")
    ]
    text = shown(a_run(*rows), tmp_path)
    assert "<b>2</b> <code>a static map</code>" in text
    assert "Compile errors (2)" in text


def test_standard_input_goes_to_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stdin:
        buffer = io.BytesIO(json.dumps(a_run(check())).encode())

    monkeypatch.setattr("sys.stdin", Stdin)
    assert main(["report", "-"]) == 0
    assert "crosscheck run: standard input" in harmless(capsys.readouterr().out)


def test_a_field_says_where_it_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"file: a: b is no whole number"):
        Row({"a": {"b": 0.5}}, "file").counts("a")
    assert Row({}, "file").counts("a") == {}


# --- in a browser -----------------------------------------------------------


@pytest.mark.browser
def test_the_filter_works_in_a_browser(tmp_path: Path, chromium: tuple[str, ...]) -> None:
    rows = [check(source=f"s{n}.c") for n in range(4)] + [check("diverge", source="s4.c")]
    text = shown(a_run(*rows, divergences=[{**APART, "source": "s4.c"}]), tmp_path)
    file = tmp_path / "page.html"
    file.write_text(
        text.replace(
            "document.body.dataset.ready",
            "const left=()=>rows.filter(r=>!r.hidden).length;"
            "const data=document.body.dataset;data.all=left();"
            "const box=document.querySelector('input');box.value='S2.C';"
            "box.dispatchEvent(new Event('input'));data.words=left();box.value='';"
            "const pick=document.querySelector('select');pick.value='diverge';"
            "pick.dispatchEvent(new Event('change'));data.picked=left();"
            "data.wide=document.documentElement.scrollWidth<=innerWidth;"
            "document.body.dataset.ready",
        )
    )
    done = browser.dump(chromium, file, tmp_path / "profile", (700, 900))
    assert done.code == 0, done.stderr[-500:]
    body = re.search(r"<body[^>]*>", done.stdout.decode(errors="replace"))
    assert body is not None
    # five sources and a divergence; one source; the divergence and its source
    for said in ("all=6", "words=1", "picked=2", "wide=true", "ready=yes"):
        name, _, value = said.partition("=")
        assert f'data-{name}="{value}"' in body[0], (said, body[0], done.stderr[-300:])
