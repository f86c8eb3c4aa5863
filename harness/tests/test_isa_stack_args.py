from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.isa.asm import AsmError, assemble
from harness.isa.codec import HIGH, decode, encode
from harness.isa.disasm import Form, listing
from harness.isa.insn import Alu, Call, Exit, Insn, Load, LoadImm, Raw, Store, StoreImm
from harness.isa.stack_args import (
    MAX_SLOTS,
    Frame,
    frames,
    frames_r12,
    from_r12,
    incoming_count,
    incoming_slot,
    load_incoming,
    outgoing_slot,
    store_outgoing,
    to_r12,
)
from harness.isa.targets import function_target, jump_target, subprogram_ranges

# main passes 2 stack arguments; f takes 2 and passes 3; g takes 3.
MERGED = """
main:
    *(u64 *)(r11 - 8) = 6
    *(u64 *)(r11 - 16) = r1
    call f
    exit
f:
    r1 = *(u64 *)(r11 + 8)
    r2 = *(u64 *)(r11 + 16)
    *(u64 *)(r11 - 8) = r1
    *(u64 *)(r11 - 16) = r2
    *(u64 *)(r11 - 24) = -1
    call g
    exit
g:
    r0 = *(u64 *)(r11 + 24)
    exit
"""
FIRST = """
main:
    *(u64 *)(r12 - 8) = 6
    *(u64 *)(r12 - 16) = r1
    call f
    exit
f:
    r1 = *(u64 *)(r12 - 8)
    r2 = *(u64 *)(r12 - 16)
    *(u64 *)(r12 - 24) = r1
    *(u64 *)(r12 - 32) = r2
    *(u64 *)(r12 - 40) = -1
    call g
    exit
g:
    r0 = *(u64 *)(r12 - 24)
    exit
"""


@pytest.mark.parametrize("slot", range(1, MAX_SLOTS + 1))
def test_slots_of_the_merged_design(slot: int) -> None:
    load, store = load_incoming(3, slot), store_outgoing(slot, 4)
    assert (load, store) == (Load(8, 3, 11, 8 * slot), Store(8, 11, -8 * slot, 4))
    assert (incoming_slot(load), outgoing_slot(load)) == (slot, None)
    assert (incoming_slot(store), outgoing_slot(store)) == (None, slot)
    assert outgoing_slot(StoreImm(8, 11, -8 * slot, 5)) == slot


@pytest.mark.parametrize(
    "insn",
    [
        Load(8, 1, 11, -8),
        Load(8, 1, 11, 0),
        Load(8, 1, 11, 4),
        Load(4, 1, 11, 8),
        Load(4, 1, 11, 8, signed=True),
        Load(8, 1, 10, 8),
        Store(8, 11, 8, 1),
        Store(8, 11, 0, 1),
        Store(8, 11, -12, 1),
        Store(4, 11, -8, 1),
        StoreImm(4, 11, -8, 1),
        StoreImm(8, 10, -8, 1),
        Alu("mov", 64, 1, 11),
    ],
)
def test_what_is_no_slot(insn: Insn) -> None:
    assert incoming_slot(insn) is None
    assert outgoing_slot(insn) is None


def test_both_dialects_are_one_program() -> None:
    merged = assemble(MERGED)
    first = assemble(FIRST, dialect="r12")
    assert first.insns == merged.insns
    assert first.labels == merged.labels == {"main": 0, "f": 4, "g": 11}


def test_translation_is_by_subprogram() -> None:
    insns = assemble(MERGED).insns
    program = frames(insns)
    assert program == (Frame(0, 4, 0), Frame(4, 11, 2), Frame(11, 13, 3))
    r12 = to_r12(insns, program)
    assert r12[4:9] == (
        Load(8, 1, 12, -8),
        Load(8, 2, 12, -16),
        Store(8, 12, -24, 1),
        Store(8, 12, -32, 2),
        StoreImm(8, 12, -40, -1),
    )
    assert from_r12(r12, frames_r12(r12)) == insns
    assert decode(encode(r12), registers=13) == r12


def test_counts_from_elsewhere_shift_the_slots() -> None:
    insns = (store_outgoing(1, 1), Exit())
    assert to_r12(insns, frames(insns, {0: 5})) == (Store(8, 12, -48, 1), Exit())
    unused = assemble("f: r1 = *(u64 *)(r11 + 8)\nexit").insns
    assert incoming_count(unused) == 1
    assert frames(unused, {0: 3}) == (Frame(0, 2, 3),)


def test_inference_in_the_first_design() -> None:
    def count(text: str) -> int:
        insns = decode(bytes.fromhex(text), registers=13)
        return frames_r12(insns)[0].incoming

    load1, load2, store3, store1 = (
        "79c1f8ff00000000",  # r1 = *(u64 *)(r12 - 8)
        "79c1f0ff00000000",
        "7b1ce8ff00000000",  # *(u64 *)(r12 - 24) = r1
        "7b1cf8ff00000000",
    )
    assert count("9500000000000000") == 0
    assert count(load1) == 1
    assert count(load1 + load2) == 2
    assert count(load1 + store3) == 2  # slot 2 comes in, and is not read
    assert count(store1) == 0


def test_a_directive_says_the_count() -> None:
    text = "f: .stack_args 3\n*(u64 *)(r12 - 40) = r1\nexit"
    result = assemble(text, dialect="r12")
    assert result.insns == (store_outgoing(2, 1), Exit())
    assert result.incoming == {0: 3}
    apart = "f: exit\ng: .stack_args 2\n r1 = *(u64 *)(r12 - 8)\nexit"  # g is called by nobody
    assert assemble(apart, dialect="r12").insns[1] == load_incoming(1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("r1 = r12", "1:1: slot 0: Alu(.*) is no instruction of the r12 dialect"),
        ("exit\n r1 = *(u64 *)(r11 + 8)", "2:2: slot 1: Load(.*) is no instruction of the r12"),
        ("r1 = *(u32 *)(r12 - 8)", "1:1: slot 0: Load(.*) is no instruction of the r12 dialect"),
        ("*(u64 *)(r12 + 8) = r1", "1:1: slot 0: Store(.*) is no instruction of the r12 dialect"),
        (".stack_args 1\nr1 = *(u64 *)(r12 - 16)", "2:1: slot 0: reads r12 - 16, but .* first 1"),
        (".stack_args 2\n*(u64 *)(r12 - 16) = r1", "2:1: slot 0: writes r12 - 16, but .* first 2"),
    ],
)
def test_what_is_not_of_the_first_design_is_refused(text: str, message: str) -> None:
    with pytest.raises(AsmError, match=f"^{message}"):
        assemble(text, dialect="r12")


@pytest.mark.parametrize(
    "insn",
    [
        Alu("mov", 64, 1, 11),
        Load(8, 1, 11, -8),
        Load(4, 1, 11, 8),
        Store(8, 11, 8, 1),
        Load(8, 1, 12, -8),
        Raw(0x79, 1, 12, 8, 0),
    ],
)
def test_what_the_first_design_cannot_say_is_refused(insn: Insn) -> None:
    with pytest.raises(ValueError, match=r"slot 0: .* has no counterpart in the first design"):
        to_r12((insn,), (Frame(0, 1, 7),))


def test_a_slot_that_does_not_come_in_has_no_place() -> None:
    with pytest.raises(ValueError, match="reads incoming stack slot 3, of 2"):
        to_r12((load_incoming(1, 3),), (Frame(0, 1, 2),))


bodies = st.lists(
    st.one_of(
        st.builds(load_incoming, st.integers(0, 9), st.integers(1, MAX_SLOTS)),
        st.builds(store_outgoing, st.integers(1, MAX_SLOTS), st.integers(0, 10)),
        st.builds(
            StoreImm, st.just(8), st.just(11), st.integers(-7, -1).map((8).__mul__), st.just(3)
        ),
        st.just(Alu("add", 64, 1, 2)),
        st.just(Load(8, 1, 10, -8)),
        st.just(LoadImm(1, 0, 11 << 32)),
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(st.lists(bodies, min_size=1, max_size=4), st.sampled_from(("llvm", "kernel")), st.data())
def test_any_program_round_trips_through_the_dialect(
    functions: list[list[Insn]], form: Form, data: st.DataObject
) -> None:
    insns: list[Insn] = []
    known: dict[int, int] = {}
    for body in functions:
        known[len(insns)] = data.draw(st.integers(incoming_count(body), MAX_SLOTS))
        for insn in body:
            insns += (insn, HIGH) if isinstance(insn, LoadImm) else (insn,)
    program = frames(insns, known)
    assert [frame.incoming for frame in program] == list(known.values())
    r12 = to_r12(insns, program)
    assert not any(11 in (getattr(insn, "dst", 0), getattr(insn, "src", 0)) for insn in r12)
    assert from_r12(r12, program) == tuple(insns)
    text = listing(insns, form=form, dialect="r12", incoming=known)
    assert assemble(text, dialect="r12").insns == tuple(insns)


def test_targets() -> None:
    insns = assemble("a: call c\nb: if r1 == 1 goto b\nr1 = b ll\nc: may_goto a\nexit").insns
    assert [function_target(insn, slot) for slot, insn in enumerate(insns)] == [
        4,
        None,
        1,
        None,
        None,
        None,
    ]
    assert [jump_target(insn, slot) for slot, insn in enumerate(insns)] == [
        None,
        1,
        None,
        None,
        0,
        None,
    ]
    assert subprogram_ranges(insns) == ((0, 1), (1, 4), (4, 6))
    assert subprogram_ranges(insns, (5,)) == ((0, 1), (1, 4), (4, 5), (5, 6))
    assert subprogram_ranges((Call("subprog", 7), Exit())) == ((0, 2),)
    assert subprogram_ranges(()) == ()
