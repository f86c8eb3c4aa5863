"""Programs of BPF text in a campaign: verdicts, legs, Linux, and what becomes a case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import corpus, pipeline
from harness.compare import agree
from harness.corpus import ProgramText
from harness.grow import streams
from harness.interp import STACK, Machine, Places
from harness.model import Accepted, Program, Rejected, Returned, Runner, Trapped, Unknown
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


ADDRESSES = """
r6 = r1
r2 = r10
r2 += -8
*(u64 *)(r1 + 0) = r2
r3 = *(u64 *)(r1 + 8)
r3 += 1
*(u64 *)(r1 + 8) = r3
call f
*(u64 *)(r6 + 16) = r0
w0 = w6
r0 >>= 3
r0 &= 1
exit
f:
w0 = w10
r0 *= 7
exit
"""
BRANCH = "w2 = w10\nr0 = 0\nif r2 < 0x1000000 goto +1\nr0 = 1\nexit\n"


@pytest.mark.parametrize("text", [ADDRESSES, BRANCH])
def test_addresses_as_numbers_blame_nobody(text: str):
    """Pieces of them, what is computed of them, and what hangs on them, in two frames."""
    stream = Stream(ProgramText(text), (bytes(24), b"\1" * 24))
    program = streams.assembled(stream, 0)
    assert program is not None
    legs = [pipeline.execute(program, leg, stream.vectors) for leg in ("interp", "jit")]
    assert [agree(a, b) for a, b in zip(*legs, strict=True)] == [False, False]
    assert judged(stream).outcome == "unknown"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("r3 += 1", "r3 += 2"),  # a number beside the addresses
        ("r2 += -8", "r2 += -16"),  # another address
        ("r0 *= 7", "r0 *= 9"),  # another number made of one
        ("r0 >>= 3", "r0 >>= 5"),
        ("r3 += 1", "w3 = w10"),  # an address where a number should be
    ],
)
@pytest.mark.parametrize("leg", ["interp", "jit"])
def test_a_wrong_leg_is_found_beside_addresses(
    right: str, wrong: str, leg: str, monkeypatch: pytest.MonkeyPatch
):
    good = streams.assembled(Stream(ProgramText(ADDRESSES)), 0)
    bad = streams.assembled(Stream(ProgramText(ADDRESSES.replace(right, wrong))), 0)
    assert good is not None
    assert bad is not None

    def runner(program: Program, name: str, *more: frozenset[int]) -> Runner | Unknown:
        return prepare(replace(program, insns=bad.insns) if name == leg else program, name, *more)

    prepare = pipeline._runner
    monkeypatch.setattr(pipeline, "_runner", runner)
    assert judged(Stream(ProgramText(ADDRESSES), (bytes(24),))).outcome == "diverge"


def test_linux_may_have_other_bytes_of_an_address_alone():
    stream = Stream(ProgramText(ADDRESSES), (bytes(24),))

    def told(address: int, number: int) -> Linux:
        ctx = b"".join(n.to_bytes(8, "little") for n in (address, number, 7 * 0x1234_5600))
        return Linux(Accepted(), (Returned(1, ctx),))

    assert judged(stream, told(0xFFFF_C900_1234_5678, 1)).outcome == "unknown"
    assert judged(stream, told(0xFFFF_C900_1234_5678, 2)).outcome == "diverge"


def test_frames_lie_where_they_are_told_to():
    program = streams.assembled(Stream(ProgramText(ADDRESSES)), 0)
    assert program is not None
    places = Places(0x5000, (0x9000, 0x8F00))
    (seen,) = pipeline.execute_at(program, bytes(24), [places])
    numbers = 0x9000 - 8, 1, 7 * 0x8F00
    assert seen == Returned(0, b"".join(n.to_bytes(8, "little") for n in numbers), b"")
    one = replace(places, frames=(0x9000,))
    assert isinstance(pipeline.execute_at(program, bytes(24), [one])[0], Unknown)
    told = pipeline.execute_alike(program, bytes(24))
    assert told is not None
    assert told[0] == told[1]
    assert len(told[2].frames) == 2
    # addresses of another place are none
    for address in ("0x1000000000", "0x20000001f8"):
        text = f"r2 = {address} ll\nr0 = *(u64 *)(r2 + 0)\nexit\n"
        stray = streams.assembled(Stream(ProgramText(text)), 0)
        assert stray is not None
        assert isinstance(pipeline.execute(stray, "interp", [bytes(16)])[0], Returned)
        assert isinstance(pipeline.execute_at(stray, bytes(16), [places])[0], Trapped)
