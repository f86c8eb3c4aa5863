"""Programs of BPF text in a campaign: verdicts, legs, Linux, and what becomes a case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import harness
from harness import corpus, pipeline, verifier
from harness.compare import agree
from harness.corpus import FunctionDecl, ProgramText
from harness.grow import linux_faults, streams
from harness.grow.buckets import FORGOTTEN
from harness.grow.campaign import text_known_as
from harness.grow.packing import stream_of
from harness.interp import STACK, Machine, Places
from harness.model import (
    Accepted,
    Crashed,
    MapDef,
    Program,
    Rejected,
    Returned,
    Runner,
    Trapped,
    Unknown,
)
from harness.pipeline import Linux, Settings
from harness.source.produce import Stream

ROOT = Path(harness.__file__).parents[1]
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


EXCHANGED = """
r6 = *(u32 *)(r1 + 0)
*(u64 *)(r10 - 8) = r6
w0 = 5
w0 = cmpxchg32_32(r10 - 8, w0, w1)
w0 = cmpxchg32_32(r10 - 8, w0, w1)
exit
"""  # as of a campaign (seed 2029, program 1453)


@pytest.mark.parametrize("text", [ADDRESSES, BRANCH, EXCHANGED])
def test_addresses_as_numbers_blame_nobody(text: str):
    """Pieces of them, what is computed of them, and what hangs on them, in two frames."""
    stream = Stream(ProgramText(text), (b"\5" + bytes(23), b"\5\0\0\0" + b"\1" * 20))
    program = streams.assembled(stream, 0)
    assert program is not None
    legs = [pipeline.execute(program, leg, stream.vectors) for leg in ("interp", "jit")]
    assert [agree(a, b) for a, b in zip(*legs, strict=True)] == [False, False]
    assert judged(stream).outcome == "unknown"


VALUE = """
r2 = map[idx:0]+4
r3 = *(u32 *)(r2 + 0)
w4 = w2
r4 += r3
*(u64 *)(r1 + 0) = r4
*(u32 *)(r2 + 0) = 9
r3 = *(u32 *)(r2 + 0)
*(u64 *)(r1 + 8) = r3
r0 = 0
exit
"""


def test_an_address_of_a_map_is_one_too():
    maps = (MapDef("values", 2, 4, 16, 1, data=b"\7" * 16),)
    stream = Stream(ProgramText(VALUE, maps=maps), (bytes(16),))
    assert judged(stream).outcome == "unknown"
    program = streams.assembled(stream, 0)
    assert program is not None
    told = pipeline.execute_alike(program, bytes(16))
    assert told is not None
    assert told[0] == told[1]
    assert isinstance(told[0], Returned)
    assert told[0].ctx[8:] == (9).to_bytes(8, "little")


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


UNWRITTEN = """
*(u64 *)(r11 - 8) = 1
r1 = 0; r2 = 0; r3 = 0; r4 = 0; r5 = 0
call f
call g
r0 = 0
exit
f:
r0 = *(u64 *)(r11 + 8)
exit
g:
r1 = 0; r2 = 0; r3 = 0; r4 = 0; r5 = 0
call f
r0 = 0
exit
"""
CALLBACK = """
r6 = r1
r1 = 1; r2 = 0; r3 = 0; r4 = 0; r5 = 0
*(u64 *)(r11 - 8) = 7
call f
*(u64 *)(r11 - 8) = 7
r1 = 1
r2 = g ll
r3 = 0
r4 = 0
call 181
*(u64 *)(r6 + 0) = r0
r0 = 0
exit
f:
r0 = *(u64 *)(r11 + 8)
exit
g:
r0 = *(u64 *)(r11 + 8)
r0 &= 1
exit
"""
REMOVED = """
r1 = one ll
r2 = one ll
r0 = 0
if r1 == r2 goto +1
r0 = 1
exit
one:
r0 = 5
exit
"""
RANDOM = "call 7\nr6 = r0\ncall 7\nr0 += r6\nr0 += 1\nexit\n"
DIED = Crashed("the guest died: BUG: kernel NULL pointer dereference, address: 0")


def kept_text(name: str) -> Stream:
    stream = stream_of(corpus.read(ROOT / "corpus" / name))
    assert stream is not None
    return stream


PRIVATE = kept_text("linux_may_goto_private_stack.toml")


def text_of(asm: str, vectors: tuple[bytes, ...], first: str = "u64") -> Stream:
    names = [name for name in ("f", "g") if f"{name}:\nr0 = *(u64 *)(r11" in asm]
    functions = [FunctionDecl(name, (first, *["u64"] * 5)) for name in names]
    return Stream(ProgramText(asm, functions=tuple(functions)), vectors)


@pytest.mark.parametrize(
    ("stream", "linux", "fault"),
    [
        (text_of(UNWRITTEN, (), "ptr"), Linux(DIED), linux_faults.UNWRITTEN),
        (text_of(RANDOM, (b"",)), Linux(Accepted(), (Returned(9, b""),)), linux_faults.CHANGING),
        (kept_text("linux_async_callback_slot.toml"), Linux(DIED), linux_faults.CALLBACK),
        (
            PRIVATE,
            Linux(Accepted(), tuple(Returned(9, v) for v in PRIVATE.vectors)),
            linux_faults.PRIVATE,
        ),
        (text_of(REMOVED, (b"",)), Linux(Accepted(), (Returned(1, b""),)), linux_faults.REMOVED),
        (
            text_of(CALLBACK, (bytes(8),)),
            Linux(Accepted(), (Returned(1, bytes(8)),)),
            linux_faults.CALLBACK,
        ),
    ],
)
def test_a_fault_of_linux_is_named_once_it_is_mended(stream: Stream, linux: Linux, fault: str):
    known = corpus.read_known(ROOT / "corpus" / "known.toml")
    kept = judged(stream, linux).kept
    assert kept is not None
    (doubt,) = kept.doubts
    assert doubt.fault == fault
    assert text_known_as(kept, known) is None
    good = Linux(doubt.verdict, doubt.outcomes)
    named = kept.settled(iter([good]))
    assert named.bucket == f"{kept.bucket}, {fault}"
    assert text_known_as(named, known) is not None
    assert not named.doubts
    # Linux does so of the mended text, too, or something else: it has another fault
    refused = Linux(Rejected(0, "R0 is odd"))
    others = (Returned(7, stream.vectors[0]),) if stream.vectors else (Returned(7, b""),)
    for wrong in (linux, refused, Linux(DIED), Linux(Accepted(), others)):
        assert kept.settled(iter([wrong])).bucket == kept.bucket


def test_a_death_for_another_reason_is_a_new_finding():
    written = UNWRITTEN.replace("g:\n", "g:\n*(u64 *)(r11 - 8) = 1\n")
    for asm in (written, "r0 = 0\nexit\n"):
        kept = judged(text_of(asm, ()), Linux(DIED)).kept
        assert kept is not None
        assert not kept.doubts


def test_an_address_of_a_function_that_stays_excuses_nothing():
    called = REMOVED.replace("r1 = one ll", "call one\nr1 = one ll")
    wrong = Linux(Accepted(), (Returned(9, b""),))
    for asm in (called, "r0 = 0\nexit\n"):
        kept = judged(text_of(asm, (b"",)), wrong).kept
        assert kept is not None
        assert not kept.doubts


def test_a_callback_that_reads_slots_is_named_without_linux():
    kept = judged(text_of(CALLBACK, (bytes(8),))).kept
    assert kept is not None
    assert kept.bucket.endswith(f", {linux_faults.CALLBACK}")
    assert not kept.doubts


def test_a_slot_whose_value_linux_forgets_is_named_in_text():
    stream = kept_text("linux_unpropagated_slot.toml")
    kept = judged(stream).kept
    assert kept is not None
    assert kept.bucket.endswith(f", {FORGOTTEN}")
    known = corpus.read_known(ROOT / "corpus" / "known.toml")
    assert text_known_as(kept, known) == "linux-unpropagated-slot-grown"
    # beside Linux, too, whose image is as ours
    program = streams.assembled(stream, 0)
    assert program is not None
    dead = verifier.verify(program, log_level=0).dead
    told = tuple(pipeline.execute(program, "jit", stream.vectors, dead))
    beside = judged(stream, Linux(Accepted(), told)).kept
    assert beside is not None
    assert beside.bucket == kept.bucket
