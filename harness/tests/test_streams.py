"""Generated BPF text: accepted by construction, every form of instruction, legs that agree."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from harness import corpus, pipeline, verifier
from harness.corpus import ProgramText
from harness.isa.forms import form_name, forms
from harness.isa.insn import High, LoadImm, Raw
from harness.model import Accepted, HarnessError, Program, Rejected, Returned
from harness.source import near_misses, stream_shrink, streams
from harness.source.near_misses import RULES, near_miss
from harness.source.produce import Parents, Stream, shrink_stream, stream
from harness.source.stream_shrink import Text

NUMBERS = st.integers(0, 1 << 20)
OPTIONS = verifier.Options(budget=20_000)


def program(text: ProgramText) -> Program:
    return corpus.program(text, "stream")


@settings(max_examples=40, deadline=None)
@given(NUMBERS)
def test_a_stream_is_accepted_and_its_legs_agree(number: int):
    text, vectors = streams.generate(3, number)
    built = program(text)
    assert verifier.verify(built, log_level=0).verdict == Accepted()
    outcomes = [pipeline.execute(built, leg, vectors[:6]) for leg in ("interp", "jit")]
    for ours, theirs in zip(*outcomes, strict=True):
        assert isinstance(ours, Returned)
        assert isinstance(theirs, Returned)
        assert (ours.r0, ours.ctx) == (theirs.r0, theirs.ctx)


def test_the_same_seed_makes_the_same_stream():
    assert streams.generate(1, 2) == streams.generate(1, 2)
    assert streams.generate(1, 2) != streams.generate(1, 3)


def test_streams_have_every_form_that_a_program_may_have():
    # Packets, arenas, functions of the kernel and jump tables need other programs.
    others = {"addrspacecast", "percpuaddr", "loadpacket", "gotox", "callx", "map_fd", "btf_id"}
    others |= {"kfunc", "18_loadimm_map_value"}
    seen: set[str] = set()
    for number in range(260):
        insns = program(streams.generate(2, number)[0]).insns
        seen |= {form_name(insn) for insn in insns if not isinstance(insn, High | Raw)}
    missing = {form_name(insn) for insn in forms()} - seen
    assert {name for name in missing if not any(other in name for other in others)} == set()


def test_slots_come_in_all_patterns():
    texts = [streams.generate(4, number)[0] for number in range(120)]
    counts = {len(f.args) for text in texts for f in text.functions}
    assert set(range(13)) <= counts | {0, 1, 2, 3, 4, 5}
    assert any("ptr" in f.args[5:] for text in texts for f in text.functions)
    assert any(f.linkage == "global" for text in texts for f in text.functions)
    joined = "\n".join(text.asm for text in texts)
    store = r"\*\(u64 \*\)\(r11 - 0x[0-9a-f]+\) = "
    assert re.search(rf"{store}\S+\ngoto \w+\n\w+:\n{store}", joined)  # filled on a branch
    assert re.search(rf"{store}r\d+\n(?:.*\n)?if .* goto \w+\n(?:.*\n)*?call f", joined)  # shared


def test_near_misses_break_what_they_say():
    refused, met = 0, set()
    total = 120
    for number in range(total):
        text, _ = streams.generate(6, number)
        broken, near = near_miss(random.Random(number), text)
        assert broken != text
        try:
            verdict = verifier.verify(program(broken), log_level=0, options=OPTIONS).verdict
        except HarnessError:
            continue  # it does not assemble
        if isinstance(verdict, Rejected):
            refused += 1
            general = re.sub(r"(?<=[R#])\d+", "#", verdict.message).replace("##", "#")
            if near and near in general:
                met.add(near)
    assert refused > total / 2
    assert len(met) > 12


def test_every_rule_has_programs_to_break():
    texts = [streams.generate(7, number)[0].asm.splitlines() for number in range(80)]
    for rule in RULES:
        rng = random.Random(0)
        assert any(rule.change(rng, lines) for lines in texts), rule
    for change in near_misses.line_changes:
        assert any(change(random.Random(0), lines) for lines in texts)


def test_shrinking_a_stream_keeps_what_is_interesting_and_little_else():
    text, vectors = next(
        found for n in range(50) if "r11 - 0x20" in (found := streams.generate(8, n))[0].asm
    )
    start = Stream(text, vectors, "near")

    def keeps(found: Sequence[Stream]) -> list[bool]:
        return ["r11 - 0x20" in s.text.asm and "exit" in s.text.asm for s in found]

    small = shrink_stream(start, keeps, rounds=25)
    assert keeps([small]) == [True]
    assert small.near == "near"
    assert len(small.vectors) == 1
    assert len(small.text.asm.splitlines()) == 2
    assert small.text.functions == ()


@settings(max_examples=2, deadline=None)
@given(NUMBERS)
def test_cuts_of_text_are_smaller_or_not_taken(number: int):
    start = Text(*streams.generate(9, number))
    judged: list[Text] = []

    def all_good(found: Sequence[Text]) -> list[bool]:
        judged.extend(found)
        return [True] * len(found)

    small = stream_shrink.shrink(start, all_good, rounds=3)
    weights = [stream_shrink.weight(text) for text in (start, *judged)]
    assert max(weights) == weights[0]
    program(small.program)


def test_streams_of_a_campaign_are_fresh_near_misses_and_mutants():
    fresh = [stream(1, number, Parents()) for number in range(40)]
    assert fresh == [stream(1, number, Parents()) for number in range(40)]
    assert {bool(s.near) for s in fresh if s} == {True, False}
    parents = Parents(streams=tuple(s for s in fresh if s and not s.near)[:4])
    mutants = [stream(1, number, parents) for number in range(40)]
    assert mutants != fresh
    assert mutants == [stream(1, number, parents) for number in range(40)]


def test_a_wide_immediate_keeps_both_slots():
    for number in range(20):
        insns = program(streams.generate(10, number)[0]).insns
        for slot, insn in enumerate(insns):
            if isinstance(insn, LoadImm):
                assert isinstance(insns[slot + 1], High)
