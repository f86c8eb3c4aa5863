"""Equal instructions are one object, and what is known of them goes when they go."""

from __future__ import annotations

import pytest

from harness.isa import decoded
from harness.isa.codec import decode, encode
from harness.isa.decoded import Facts
from harness.isa.insn import Alu, Exit, Insn


@pytest.fixture
def asked() -> list[Insn]:
    return []


@pytest.fixture
def facts(asked: list[Insn]) -> Facts[str]:
    def find(insn: Insn) -> str:
        asked.append(insn)
        return repr(insn)

    return Facts(find)


def test_equal_instructions_of_two_programs_are_one_and_are_asked_of_once(facts, asked):
    code = encode([Alu("mov", 64, 0, None, 77), Exit()])
    first, second = decode(code), decode(code)
    assert all(a is b for a, b in zip(first, second, strict=True))
    assert facts.of(first) == facts.of(second) == [repr(insn) for insn in first]
    assert len(asked) == 2


def test_what_was_not_decoded_is_not_kept(facts, asked):
    insn = Alu("mov", 64, 1, None, 78)
    assert facts.of([insn, insn]) == [repr(insn)] * 2
    assert len(asked) == 1
    assert not facts.known


def test_facts_go_with_their_instructions(facts, monkeypatch):
    code = encode([Alu("mov", 64, 2, None, 79), Exit()])
    kept = decode(code)
    facts.of(kept)
    monkeypatch.setattr(decoded, "_MOST", 0)
    again = decode(code)
    assert again == kept
    assert again[0] is not kept[0]
    assert not facts.known
    assert facts.of(kept) == facts.of(again) == [repr(insn) for insn in kept]
