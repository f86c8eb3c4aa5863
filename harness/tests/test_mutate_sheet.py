"""Mutants of hand-written C: other C, still C, with the signature that they say they have."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import harness
from harness import corpus, findings, pipeline
from harness.findings import Finding
from harness.grow import batch, shrinking, units
from harness.grow import parents as parents_module
from harness.grow import parents as reading
from harness.grow.batch import Order, check_batch
from harness.grow.parents import excerpt_of, packed_parents, read_sheet, sheet_of
from harness.model import BuildConfig, HarnessError
from harness.pipeline import Settings
from harness.source import mutate_sheet, produce, sheet_reading, shrink_sheet
from harness.source.excerpt import Change, Excerpt
from harness.source.produce import Parents, c_program
from harness.source.sheet import Sheet
from harness.source.signature import Aggregate, Pointer, Scalar, Signature, size_of
from harness.toolchain import Compiler, builds

ROOT = Path(harness.__file__).parent.parent
SOURCES = ("chains.c", "nesting.c", "structs.c", "tables.c", "by_value.c", "conditions.c")


@pytest.fixture(scope="module")
def settings(compiler: Compiler) -> Settings:
    return Settings((), (compiler,), vectors=8)


@pytest.fixture(scope="module")
def sheets(settings: Settings) -> list[Sheet]:
    found = [read_sheet(ROOT / "c_sources" / name, settings) for name in SOURCES]
    assert None not in found
    return [sheet for sheet in found if sheet is not None]


def sheet(text: str, settings: Settings, folder: Path) -> Sheet:
    path = folder / "x.c"
    path.write_text(text)
    found = read_sheet(path, settings)
    assert found is not None
    return found


FREE = """
#include <stdint.h>
#define STEP 3
static const uint8_t table[4] = { 10, 11, 12, 13 };
static unsigned long other[2] = { 14, 15 };

static unsigned long in(unsigned long a, unsigned b, int c, int d, int e, int at);

unsigned long f(unsigned long a, unsigned b, int c, int d, int e, int g)
{
	unsigned char v[8] = { 16 };
	unsigned i = 20, n = 21;	/* 22 */

	for (unsigned j = 23; j < (n & 24); j++)
		i += 25;
	switch (b) {
	case 26:
		return 27 / (a | 28) + STEP;
	}
	return v[i & 29] + table[a & 30] + (b << 31) + other[0] + in(a, b, c, 32, 33, 34);
}

static unsigned long in(unsigned long a, unsigned b, int c, int d, int e, int at)
{
	unsigned char v[8] = { 35 };

	return v[at] + INT8_MAX + 36ul;
}
"""


def test_what_memory_hangs_on_stays(settings: Settings, tmp_path: Path):
    one = sheet(FREE, settings, tmp_path)
    constants = [*one.constants, *(c for f in one.functions.values() for c in f.constants)]
    texts = {one.text[slice(*c.span)]: c.use for c in constants}
    assert texts == {
        **dict.fromkeys(("10", "11", "12", "13", "14", "15", "16"), "value"),
        "27": "value",
        "28": "divisor",
        "3": "value",
        "31": "shift",
        **dict.fromkeys(("32", "33", "35", "36ul"), "value"),
    }
    types = {
        f.name: "".join(p.name for p in f.parameters if p.types) for f in one.functions.values()
    }
    assert types == {"f": "bcdeg", "in": "abcde"}  # a and at are indices
    assert one.functions["in"].calls == ()
    assert len(one.functions["in"].heads) == 2
    assert one.functions["f"].loops
    assert one.functions["f"].divides


@pytest.mark.parametrize(
    "text",
    [
        '#include "mine.h"\n',
        "#ifdef __bpf__\n#endif\n",
        "#include <linux/bpf.h>\n",
    ],
)
def test_what_hangs_on_more_than_the_text_is_no_parent(
    text: str, settings: Settings, tmp_path: Path
):
    (tmp_path / "x.c").write_text(text + (ROOT / "c_sources" / "loops.c").read_text())
    assert sheet_reading.split(text) is None
    assert read_sheet(tmp_path / "x.c", settings) is None


def test_programs_and_broken_text_are_no_parents(settings: Settings, tmp_path: Path):
    for text in ("int f(", "long f(long a) { return a; }", "extern long g(long);\n" + FREE + "}"):
        (tmp_path / "x.c").write_text(text)
        assert read_sheet(tmp_path / "x.c", settings) is None
    for name in ("refused/slots.c", "calls/kfuncs.c", "calls/maps.c"):
        assert read_sheet(ROOT / "c_sources" / name, settings) is None


def test_a_compiler_that_hangs_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CROSSCHECK_NO_CACHE", "1")
    monkeypatch.setattr(parents_module, "PATIENCE", 0.5)
    script = tmp_path / "clang"
    script.write_text("#!/bin/sh\nsleep 100\n")
    script.chmod(0o755)
    broken = Settings((), (Compiler((str(script),), "planted", "1", True, "option"),))
    with pytest.raises(HarnessError, match=r"^loops\.c: the compiler did not finish .*--clang$"):
        packed_parents([ROOT / "c_sources" / "loops.c"], broken)
    assert excerpt_of(FREE, "f", replace(broken, patience=0.5)) is None


def mutants(sheets: list[Sheet], count: int) -> list[Excerpt]:
    found = [mutate_sheet.excerpt(random.Random(number), sheets) for number in range(count)]
    return [one for one in found if one is not None]


def test_mutants_change_types_places_constants_and_calls(sheets: list[Sheet]):
    found = mutants(sheets, 200)
    assert len(found) > 190
    again = mutants(sheets, 200)
    assert [one.text for one in found] == [one.text for one in again]
    kinds: Counter[str] = Counter()
    for one in found:
        assert one.text != Excerpt(one.sheet, one.function).text
        for change in one.changes:
            kinds["type" if change.retyped else "call" if change.callee else "other"] += 1
            kinds["place of the root's"] += change.swapped is not None
            kinds["another sheet"] += change.other not in (None, one.sheet)
            kinds["own sheet"] += change.other is one.sheet
    assert min(kinds.values()) > 3


def test_a_mutant_that_calls_another_function_may_be_changed_again(
    settings: Settings, sheets: list[Sheet], tmp_path: Path
):
    call = next(
        each
        for number in range(400)
        if (each := mutate_sheet.excerpt(random.Random(number), sheets)) is not None
        if "unsigned long long spliced =" in each.text
    )
    again = sheet(call.text, settings, tmp_path)
    texts = [each.text for each in mutants([again], 200) if each.function == call.function]
    assert any("unsigned long long spliced_ =" in text for text in texts)


def shape(one: Signature) -> list[object]:
    """Return what a driver has to know of a signature."""

    def kind(of: Scalar | Aggregate | Pointer | None) -> object:
        if isinstance(of, Scalar):
            return of.size, of.signed, of.bool, of.values
        if isinstance(of, Pointer):  # what it points to has no need of a name
            return size_of(of.target), of.const
        return of

    return [one.name, *((p.name, kind(p.type)) for p in one.parameters), kind(one.result)]


def test_mutants_are_c_and_have_the_signature_they_say(
    sheets: list[Sheet], settings: Settings, tmp_path: Path
):
    found = mutants(sheets, 48)
    members = [units.member(number, one, settings) for number, one in enumerate(found)]
    path = tmp_path / "x.c"
    config = BuildConfig(settings.compilers[0].name, "2", "v4", "hidden")
    planning = replace(settings, configs=(config,), legs=())
    path.write_text(units.plan(members).text)  # all in one file
    planned = pipeline.plan(path, "x.c", planning)
    assert planned.failure == ""
    seen = {p.signature.name: shape(p.signature) for p in planned.layouts}
    for one in members:
        assert isinstance(one.program, Excerpt)
        (target,) = one.targets
        assert seen[target.function] == shape(target.place.signature)
    for mutant in found[:4]:  # and each for itself
        path.write_text(mutant.text)
        planned = pipeline.plan(path, "x.c", planning)
        (alone,) = [p for p in planned.layouts if p.signature.name == mutant.function]
        assert shape(alone.signature) == shape(mutant.signature())


def test_a_function_that_is_not_only_called_keeps_its_parameters(
    settings: Settings, tmp_path: Path
):
    text = """
    long f(long a, long b, long c, long d, long e, long g) { return a - g; }
    long (*volatile p)(long, long, long, long, long, long) = f;
    long h(long a, long b, long c, long d, long e, long g) { return f(g, b, c, d, e, a); }
    """
    one = sheet(text, settings, tmp_path)
    assert one.functions["f"].heads == ()
    assert all(p.types == () for p in one.functions["f"].parameters)
    assert one.functions["h"].heads != ()


def only_mutants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce, "MUTANTS", 2.0)
    monkeypatch.setattr(produce, "EXCERPTS", 2.0)
    monkeypatch.setattr(batch, "STREAMS", 0.0)


def test_a_batch_of_mutants_agrees_or_says_why(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    only_mutants(monkeypatch)
    parents = packed_parents([ROOT / "c_sources" / name for name in SOURCES], settings)
    order = Order(0, 16, 3, settings, parents)
    result = check_batch(order)
    assert result.lost == ""
    assert result.programs == 16
    assert set(result.outcomes) <= {"agree", "rejected", "unknown"}
    assert result.outcomes["agree"] > 20
    # what shows something new becomes a case that stands alone
    seen = next(s for s in result.seen if len(s.builds) == 2)
    config, features = seen.builds[0]
    made = shrinking.shrink_case(order, seen.number, frozenset(sorted(features)[:2]), config)
    assert made.case is not None
    assert made.case.source is not None
    assert made.case.source.tree == ""
    assert pipeline.check_case(made.case, settings.compilers[0]) == []
    # and may be a parent itself
    assert sheet_of(made.case, settings) is not None


def test_what_calls_a_function_that_diverges_is_no_case(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    text = """
    static __attribute__((noinline)) long in(long a, long b, long c, long d, long e, short g)
    {
        return (a ^ b ^ c ^ d ^ e) - g;
    }
    __attribute__((noinline)) long out(int a, int b, int c, int d, short e, int f)
    {
        return in(a, b, c, d, f, e);
    }
    long f(long a, long b, long c, long d, long e, long g) { return out(1, 2, 3, 4, 5, 6) + a; }
    """
    one = Excerpt(sheet(text, settings, tmp_path), "f")
    monkeypatch.setattr(produce, "c_program", lambda *_: one)
    config = BuildConfig(settings.compilers[0].name, "2", "v3", "hidden")
    order = Order(0, 1, 0, settings)
    made = shrinking.shrink_case(order, 0, frozenset(), config)
    assert made.case is None
    made = shrinking.shrink_case(order, 0, frozenset(), replace(config, mcpu="v1"))
    assert made.case is not None


def test_a_finding_of_a_mutant_stands_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    only_mutants(monkeypatch)
    config = BuildConfig(settings.compilers[0].name, "2", "v3", "hidden")
    monkeypatch.setattr(batch, "batch_configs", lambda *_: (config,))
    parents = packed_parents([ROOT / "c_sources" / "narrow_forwarded.c"], settings)
    result = check_batch(Order(0, 12, 5, settings, parents))
    found = [f for seen in result.seen for f in seen.findings if f.outcome == "diverge"]
    assert found
    one = findings.read(findings.write(found[0], tmp_path / "x.json"))
    assert "narrow signed argument in a slot" in one.bucket
    assert one.tree is None
    path = tmp_path / "x.c"
    path.write_text(one.c)
    again = replace(settings, configs=(one.config,), seed=one.seed, vectors=one.vectors)
    planned = pipeline.plan(path, "x.c", again)
    checks = {c.function: c for c in pipeline.check_build(planned, one.config, again)}
    assert checks[one.function].outcome == "diverge"
    monkeypatch.setattr(shrinking, "SHRINK_ROUNDS", 4)
    made = shrinking.shrink_finding(one, settings, 60.0).finding
    assert isinstance(made, Finding)
    assert made.bucket == one.bucket
    assert made.function == one.function
    assert len(made.c) < len(one.c)


CUTS = """
struct unused { int a; };
static unsigned long in(unsigned long a, unsigned long b) { return a * 3 + b; }
unsigned long f(unsigned long a, unsigned b, int c, int d, int e, int g)
{
	unsigned long v = a, w = b;
	int x;

	if (c) {
		v += d;
		for (x = 0; x < 3; x++)
			w ^= in(w, x);
	}
	return v + (w ? e : g) + 77;
}
"""


def test_an_excerpt_is_cut_to_what_shows_something(settings: Settings, tmp_path: Path):
    one = excerpt_of(CUTS, "f", settings)
    assert one is not None
    looked: list[str] = []

    def calls(some: Sequence[Excerpt]) -> list[bool]:
        looked.extend(each.text for each in some)
        return ["in(" in each.text.partition("unsigned long f(")[2] for each in some]

    read = partial(excerpt_of, function="f", settings=settings)
    small = shrink_sheet.shrink(one, calls, read, rounds=40)
    body = small.text.partition("unsigned long f(")[2].partition("{")[2].split()
    loop = "{ for (x = 0; x < 3; x++) w ^= in(0, 0); }"
    text = f"unsigned long v = a, w = b; int x; {loop} return 77; }}"
    assert body == text.split()
    assert "struct unused" not in small.text
    config = BuildConfig(settings.compilers[0].name, "1", "v4", "hidden")
    planning = replace(settings, configs=(config,), legs=())
    for number, each in enumerate(dict.fromkeys(looked)):  # whatever was looked at is C
        path = tmp_path / f"{number}.c"
        path.write_text(each)
        assert pipeline.plan(path, "x.c", planning).failure == ""
    assert shrink_sheet.shrink(one, lambda some: [False] * len(some), read, rounds=4) is one


def judged(one: Excerpt, settings: Settings) -> list[units.Judgement]:
    config = BuildConfig(settings.compilers[0].name, "2", "v4", "hidden")
    members = {0: units.member(0, one, settings)}
    natives = units.native_outcomes(list(members.values()), settings)
    return [
        seen
        for unit in units.compile_units(list(members.values()), config, settings, natives)
        for seen in units.judge(unit, members, settings, natives, {})
    ]


def test_a_refusal_is_blamed_on_nobody_where_the_source_is_undefined(
    settings: Settings, tmp_path: Path
):
    text = """
    long f(long a, long b, long c, long d, long e, unsigned g)
    {
        static volatile long v[4] = { 1 };
        return v[g] + a;
    }
    """
    (seen,) = judged(Excerpt(sheet(text, settings, tmp_path), "f"), settings)
    assert seen.check.outcome == "unknown"
    assert "undefined behaviour in the source" in seen.check.detail
    assert seen.check.verdict == "reject"


def test_what_is_no_c_is_blamed_on_nobody(settings: Settings, tmp_path: Path):
    one = sheet(
        "long f(long a, long b, long c, long d, long e, long g) { return a; }", settings, tmp_path
    )
    at = one.functions["f"].body
    broken = Excerpt(one, "f", (Change((((at, at), "nonsense "),)),))
    (seen,) = judged(broken, settings)
    assert seen.check.outcome == "unknown"
    assert "nonsense" in seen.check.detail


def test_known_faults_are_called_from_nowhere(settings: Settings):
    found = sheet_of(corpus.read(ROOT / "corpus" / "clang_removed_parameter.toml"), settings)
    assert found is not None
    assert not found.agrees
    assert found.linkages == ("static",)


def test_a_campaign_with_sheets_mutates_some(sheets: list[Sheet]):
    parents = Parents(sheets=tuple(sheets))
    found = [c_program(5, number, parents) for number in range(40)]
    count = sum(isinstance(one, Excerpt) for one in found)
    assert 4 < count < 24


def test_parents_are_read_once(tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CROSSCHECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(builds, "identity", lambda _: "a compiler")
    source = tmp_path / "x.c"
    source.write_text((ROOT / "c_sources" / SOURCES[0]).read_text())
    settings = Settings((), (compiler,), vectors=1)
    packed = packed_parents([tmp_path], settings)
    monkeypatch.setattr(reading, "syntax_tree", lambda *_, **__: pytest.fail("read again"))
    assert packed_parents([tmp_path], settings) == packed
    (kept,) = (tmp_path / "cache").glob("builds/*/*.parents")
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(pytest.fail.Exception, match="read again"):
        packed_parents([tmp_path], settings)
    kept.unlink()
    source.write_text(source.read_text() + "\n")
    with pytest.raises(pytest.fail.Exception, match="read again"):
        packed_parents([tmp_path], settings)
