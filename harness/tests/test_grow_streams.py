"""Programs of BPF text in a campaign: verdicts, legs, Linux, and what becomes a case."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import corpus
from harness.corpus import ProgramText
from harness.grow import streams
from harness.interp import STACK, Machine
from harness.model import Accepted, Rejected, Returned
from harness.pipeline import Linux, Settings
from harness.source.produce import Stream

SETTINGS = Settings((), (), legs=("interp", "jit"))
ADDS = Stream(ProgramText("r0 = *(u64 *)(r1 + 0)\nr0 += 1\nexit\n"), (bytes(8), b"\xff" * 8))


def judged(stream: Stream, linux: Linux | None = None) -> streams.Judged:
    program = streams.assembled(stream, 0)
    assert program is not None
    return streams.judge(stream, program, SETTINGS, linux)


def test_what_agrees_becomes_a_case_that_expects_it(tmp_path: Path):
    seen = judged(ADDS)
    assert seen.outcome == "agree"
    assert seen.vectors == 2
    path = corpus.write(streams.kept_case(ADDS, seen, tmp_path / "x.toml"))
    case = corpus.read(path)
    assert [run.r0 for run in case.runs] == [1, 0]
    assert case.verify is not None
    assert case.verify.verdict == "accept"


def test_a_verdict_that_linux_does_not_share_is_a_finding():
    seen = judged(ADDS, Linux(Rejected(0, "R0 is odd")))
    assert seen.outcome == "diverge"
    assert seen.kept is not None
    assert "RN is odd" in seen.kept.bucket
    assert seen.kept.case.verify is not None
    assert seen.kept.case.verify.message == "R0 is odd"


def test_a_result_that_linux_does_not_share_is_a_finding():
    told = (Returned(1, bytes(8)), Returned(5, b"\xff" * 8))
    seen = judged(ADDS, Linux(Accepted(), told))
    assert seen.outcome == "diverge"
    assert judged(ADDS, Linux(Accepted(), (told[0],))).outcome == "agree"


def test_a_refusal_is_counted_and_runs_nowhere():
    seen = judged(Stream(ProgramText("r0 = r7\nexit\n"), (bytes(8),)))
    assert (seen.outcome, seen.refusal, seen.vectors) == ("rejected", "R7 !read_ok", 0)


def test_an_address_that_is_returned_is_not_compared():
    assert judged(Stream(ProgramText("r0 = r10\nexit\n"), (bytes(8),))).outcome == "agree"


def test_text_that_is_no_program_is_left_out():
    assert streams.assembled(Stream(ProgramText("nonsense")), 0) is None


def test_memory_that_nobody_has_written_is_not_compared():
    unwritten = "r2 = *(u64 *)(r10 - 8)\n*(u64 *)(r1 + 0) = r2\nr0 = 0\nexit\n"
    assert judged(Stream(ProgramText(unwritten), (bytes(8),))).outcome == "unknown"
    copied = "r2 = *(u64 *)(r10 - 8)\n*(u64 *)(r10 - 16) = r2\nr0 = 0\nexit\n"
    assert judged(Stream(ProgramText(copied), (bytes(8),))).outcome == "agree"


def test_a_context_that_is_too_short_is_no_difference():
    beyond = Stream(ProgramText("r0 = *(u64 *)(r1 + 63)\nr0 &= 255\nexit\n"), (bytes(64),))
    assert judged(beyond).outcome == "unknown"
    program = streams.assembled(beyond, 0)
    assert program is not None
    assert streams.reads_beyond(program, bytes(64))
    assert not streams.reads_beyond(program, bytes(71))
    elsewhere = streams.assembled(Stream(ProgramText("r2 = 0\nr0 = *(u64 *)(r2 + 0)\nexit\n")), 0)
    assert elsewhere is not None
    assert not streams.reads_beyond(elsewhere, bytes(64))


def test_a_leg_that_stores_to_a_wrong_place_is_found(monkeypatch: pytest.MonkeyPatch):
    store = Machine.store

    def wrong(machine: Machine, address: int, size: int, value: int) -> None:
        off = 8 if machine.regions[address >> 32].data is machine.regions[STACK].data else 0
        store(machine, address - off, size, value)

    monkeypatch.setattr(Machine, "store", wrong)
    text = "*(u64 *)(r10 - 16) = 5\nr2 = *(u64 *)(r10 - 16)\n*(u64 *)(r1 + 0) = r2\nr0 = 0\nexit\n"
    assert judged(Stream(ProgramText(text), (bytes(8),))).outcome == "diverge"
