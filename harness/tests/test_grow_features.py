"""Features: what a program shows, whoever compiled it and whatever it is called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import verifier
from harness.corpus import Case, ProgramText, SourceText, program
from harness.grow import cover, features
from harness.jit import x86_64
from harness.model import Image, SubImage
from harness.source import tree


def test_messages_are_counted_without_their_numbers():
    general = features.general
    assert general("R3 !read_ok") == general("R7 !read_ok")
    a, b = "callee expects 7 args, stack arg2 is not", "callee expects 12 args, stack arg6 is not"
    assert general(a) == general(b)
    assert general("R3 !read_ok") != general("R3 invalid")


def test_passing_says_type_place_source_and_use():
    parameters = tuple(tree.Parameter(f"a{i}", tree.U64) for i in range(6))
    compared = tree.Binary("lt", tree.U64, tree.Name("a5"), tree.Name("a0"))
    body: tuple[Any, ...] = (tree.Return(compared),)
    callee = tree.Function("f0", parameters, tree.U64, body)
    arguments = (*(tree.Name(f"a{i}") for i in range(5)), tree.Const(tree.U8, 1))
    caller = tree.Function("f1", parameters, tree.U64, (tree.Call("f0", arguments), *body))
    shown = features.passing(tree.Tree((), (), (callee, caller)))
    assert "passing u64 slot1 const compared" in shown
    assert "passing u64 r1 register-parameter compared" in shown
    assert "passing u64 r2 register-parameter unused" in shown
    assert "passing u64 r2 driver forwarded-to-register" in shown
    assert "passing u64 slot1 driver compared" in shown


@pytest.mark.parametrize(
    ("code", "form"),
    [
        ("48 8b 45 f8", "48 8b memory8"),
        ("48 8b 85 00 ff ff ff", "48 8b memory32"),
        ("4c 89 c7", "4c 89 register"),
        ("e9 00 01 00 00", "e9"),
        ("eb 10", "eb"),
        ("0f 84 00 01 00 00", "0f84"),
        ("49 bb 01 02 03 04 05 06 07 08", "49 b8+r"),
        ("f0 48 0f c1 30", "f0 48 0fc1 memory"),
        ("41 8b 04 24", "41 8b memory sib"),
    ],
)
def test_a_form_has_no_registers_and_no_numbers(code: str, form: str):
    assert features.form(bytes.fromhex(code)) == form


def test_a_function_that_is_gone_shows_no_form():
    made = program(ProgramText("r0 = 0\nexit\n"), "p")
    gone = replace(made.subprograms[0], start=2)
    subprograms = (*made.subprograms, gone)
    image = x86_64.compile(made)
    assert isinstance(image, Image)
    images = (*image.subprograms, SubImage("gone", b"", ()))
    shown = features.code_features(
        replace(made, subprograms=subprograms), replace(image, subprograms=images)
    )
    assert shown == features.code_features(made, image)


def test_code_shows_pairs_and_forms_also_behind_fix_ups():
    text = "r0 = 7\nr1 = 3\nr0 /= r1\nif r0 > 4 goto +1\nr0 = 1\nexit\n"
    made = program(ProgramText(text), "p")
    image = x86_64.compile(verifier.fixup(made))
    assert isinstance(image, Image)
    shown = features.code_features(made, image)
    assert "pair alu-div-64, jump-gt-64-imm" in shown
    assert any(name.startswith("jit jump-gt-64-imm ") for name in shown)


def case(path: Path, note: str, crosscheck: str = "agree") -> Case:
    return Case(path, note=note, source=SourceText("int f;"), crosscheck=crosscheck)


def test_a_small_set_shows_the_same_and_keeps_what_is_fixed():
    shown = {
        Path("a"): frozenset("abc"),
        Path("b"): frozenset("bcd"),
        Path("c"): frozenset("ad"),
        Path("d"): frozenset("d"),
        Path("e"): frozenset("e"),
        Path("fixed"): frozenset("e"),
    }
    sizes = dict.fromkeys(shown, 100)
    chosen = cover.choose(shown, [Path("fixed")], sizes)
    assert frozenset().union(*(shown[p] for p in chosen)) == frozenset("abcde")
    assert Path("fixed") in chosen
    assert Path("e") not in chosen
    assert len(chosen) == 3
    backwards = dict(reversed(shown.items()))
    assert cover.choose(backwards, [Path("fixed")], sizes) == chosen


def test_only_what_a_campaign_kept_may_go():
    assert cover.is_grown(case(Path("grown-1-2.toml"), "grown for pair a, b"))
    assert not cover.is_grown(case(Path("mine.toml"), "a case of mine"))
    assert not cover.is_grown(case(Path("bug.toml"), "grown for pair a, b", "diverge"))
