from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.isa.codec import HIGH, OPCODES, SLOT, decode, encode, fields
from harness.isa.forms import ALL_FORMS, form_name
from harness.isa.insn import (
    AddrSpaceCast,
    Alu,
    Atomic,
    Call,
    CallX,
    Endian,
    Exit,
    Goto,
    GotoX,
    High,
    Insn,
    Jump,
    Load,
    LoadImm,
    LoadPacket,
    MayGoto,
    PercpuAddr,
    Raw,
    Store,
    StoreImm,
)

REGS = (0x00, 0x01, 0x10, 0x21, 0xBA, 0xAB, 0xC1, 0x1C, 0xFF)
OFFS = (0, 1, 8, 16, 32, -1, -8, 0x7FFF, -0x8000)
IMMS = (0, 1, 16, 32, 64, 0x40, 0xE1, 0xF1, 0x100, 0x110, 0x10000, -1, 0x7FFFFFFF, -0x80000000)

likely_slots = st.builds(
    SLOT.pack,
    st.sampled_from(sorted(OPCODES)) | st.integers(0, 255),
    st.sampled_from(REGS) | st.integers(0, 255),
    st.sampled_from(OFFS),
    st.sampled_from(IMMS) | st.integers(-(2**31), 2**31 - 1),
)


def whole(insn: Insn) -> tuple[Insn, ...]:
    return (insn, HIGH) if isinstance(insn, LoadImm) else (insn,)


@given(st.binary(max_size=256).map(lambda code: code[: len(code) // 8 * 8]))
def test_any_bytes_round_trip(code: bytes) -> None:
    insns = decode(code)
    assert len(insns) == len(code) // 8
    assert encode(insns) == code


@given(st.lists(likely_slots, max_size=40).map(b"".join))
def test_likely_code_round_trips(code: bytes) -> None:
    assert encode(decode(code)) == code
    assert encode(decode(code, registers=13)) == code


@pytest.mark.parametrize("opcode", range(256))
def test_every_opcode_round_trips_in_all_fields(opcode: int) -> None:
    code = b"".join(
        SLOT.pack(opcode, regs, off, imm) for regs in REGS for off in OFFS for imm in IMMS
    )
    insns = decode(code)
    assert encode(insns) == code
    assert any(not isinstance(insn, Raw) for insn in insns) == (opcode in OPCODES - {0x18})


@pytest.mark.parametrize("insn", ALL_FORMS, ids=form_name)
def test_every_form_round_trips(insn: Insn) -> None:
    assert decode(encode(whole(insn))) == whole(insn)


def test_the_forms_reach_every_opcode_and_are_distinct() -> None:
    assert {fields(insn)[0] for insn in ALL_FORMS} == OPCODES
    assert len({form_name(insn) for insn in ALL_FORMS}) == len(ALL_FORMS)


# fmt: off
KNOWN = (  # by hand from RFC 9669, and Linux for what is newer
    # code                 instruction                            section
    ("0701000005000000", Alu("add", 64, 1, None, 5)),           # 4.1
    ("0c21000000000000", Alu("add", 32, 1, 2)),
    ("3f21010000000000", Alu("sdiv", 64, 1, 2)),
    ("94010100f6ffffff", Alu("smod", 32, 1, None, -10)),
    ("8701000000000000", Alu("neg", 64, 1, None)),
    ("bc21100000000000", Alu("mov", 32, 1, 2, 0, 16)),
    ("bf21200000000000", Alu("mov", 64, 1, 2, 0, 32)),
    ("bf21010000000100", AddrSpaceCast(1, 2, 1 << 16)),
    ("bf21ffff00000000", PercpuAddr(1, 2)),
    ("d401000010000000", Endian("le", 16, 1)),                  # 4.2
    ("dc01000020000000", Endian("be", 32, 1)),
    ("d701000040000000", Endian("bswap", 64, 1)),
    ("15010300ffffffff", Jump("eq", 64, 1, None, -1, 3)),       # 4.3
    ("de21fdff00000000", Jump("sle", 32, 1, 2, 0, -3)),
    ("0500fdff00000000", Goto(-3)),
    ("0600000000000100", Goto(0x10000, long=True)),
    ("e500030000000000", MayGoto(3)),
    ("0d01000000000000", GotoX(1)),
    ("8500000005000000", Call("helper", 5)),
    ("85100000ffffffff", Call("subprog", -1)),
    ("8520030007000000", Call("kfunc", 7, 3)),
    ("8d01000000000000", CallX(1)),
    ("9500000000000000", Exit()),
    ("7921f8ff00000000", Load(8, 1, 2, -8)),                    # 5.1
    ("9121080000000000", Load(1, 1, 2, 8, signed=True)),        # 5.2
    ("6321080000000000", Store(4, 1, 8, 2)),
    ("7a010800fbffffff", StoreImm(8, 1, 8, -5)),
    ("db21080001000000", Atomic("add", 8, 1, 8, 2, fetch=True)),  # 5.3
    ("c321080050000000", Atomic("and", 4, 1, 8, 2)),
    ("c3210800e1000000", Atomic("xchg", 4, 1, 8, 2, fetch=True)),
    ("db210800f1000000", Atomic("cmpxchg", 8, 1, 8, 2, fetch=True)),
    ("d321080000010000", Atomic("load_acquire", 1, 1, 8, 2)),
    ("cb21080010010000", Atomic("store_release", 2, 1, 8, 2)),
    ("30000000f0ffffff", LoadPacket("abs", 1, 0, -16)),         # 5.5
    ("4830000004000000", LoadPacket("ind", 2, 3, 4)),
    ("7ab0f8ff80000000", Raw(0x7A, 0, 11, -8, 0x80)),           # source register of a store of imm
    ("7a0bf8ff80000000", StoreImm(8, 11, -8, 0x80)),
)
# fmt: on


@pytest.mark.parametrize(("code", "insn"), KNOWN)
def test_known_encodings(code: str, insn: Insn) -> None:
    assert decode(bytes.fromhex(code)) == (insn,)
    assert encode((insn,)).hex() == code


@pytest.mark.parametrize(
    "code",
    [
        "0401010005000000",  # add with an offset
        "0411000005000000",  # add imm with a source register
        "0f21000005000000",  # add reg with an immediate
        "3f21020000000000",  # division with offset 2
        "8c01000000000000",  # neg by register
        "8701000001000000",  # neg with an immediate
        "bc21200000000000",  # 32-bit mov of 32 bits sign-extended
        "bf21180000000000",  # sign extension of 24 bits
        "bf21ffff01000000",  # per-CPU address with an immediate
        "b701080000000000",  # mov imm, sign-extended
        "d401000008000000",  # le8
        "df01000010000000",  # bswap of the "register" kind
        "1511030000000000",  # jump by imm with a source register
        "1d21030001000000",  # jump by register with an immediate
        "0500030001000000",  # goto with both offsets
        "0600030001000000",
        "0d01010000000000",  # gotox with an offset
        "e510030000000000",  # may_goto of another kind
        "e501030000000000",
        "8501000005000000",  # call with a destination
        "8530000005000000",  # call of no kind
        "8500010005000000",  # helper call with an offset
        "8d01000001000000",  # callx with an immediate
        "8600000005000000",  # call in class JMP32
        "9500010000000000",  # exit with an offset
        "9600000000000000",  # exit in class JMP32
        "7921080001000000",  # load with an immediate
        "9921080000000000",  # sign-extending load of 8 bytes
        "7b21080001000000",  # store with an immediate
        "7a21080001000000",  # store of imm with a source register
        "db21080002000000",  # no such atomic
        "db210800e0000000",  # xchg without fetch
        "d321080000000000",  # atomic add of a byte
        "3010000000000000",  # LD ABS with a source register
        "3001000000000000",
        "5030010000000000",  # LD IND with an offset
        "3800000000000000",  # LD ABS of 8 bytes
        "791c080000000000",  # r12
        "79c1080000000000",
        "0000000000000000",
        "ffffffffffffffff",
    ],
)
def test_reserved_fields_make_it_raw(code: str) -> None:
    (insn,) = decode(bytes.fromhex(code))
    opcode, regs, off, imm = SLOT.unpack(bytes.fromhex(code))
    assert insn == Raw(opcode, regs & 15, regs >> 4, off, imm)


def test_a_wide_immediate_takes_two_slots() -> None:
    insn = LoadImm(3, 0, 0x8000000180000002)
    code = bytes.fromhex("1803000002000080" + "0000000001000080")
    assert decode(code) == (insn, High())
    assert encode((insn, HIGH)) == code


@pytest.mark.parametrize(
    "code",
    [
        "1803000002000000",  # the second slot is missing
        "1803000002000000" + "0100000001000000",
        "1803000002000000" + "0001000001000000",
        "1803000002000000" + "0000010001000000",
        "1803000002000000" + "9500000000000000",
        "1803010002000000" + "0000000001000000",  # an offset in the first
        "1873000002000000" + "0000000001000000",  # no such kind
        "180c000002000000" + "0000000001000000",
    ],
)
def test_an_ill_formed_wide_immediate_is_raw(code: str) -> None:
    first, *second = decode(bytes.fromhex(code))
    assert isinstance(first, Raw)
    assert all(isinstance(insn, Raw | Exit) for insn in second)
    assert encode((first, *second)).hex() == code


def test_the_first_design_admits_register_12() -> None:
    code = bytes.fromhex("79c1f8ff00000000")
    assert decode(code, registers=13) == (Load(8, 1, 12, -8),)
    assert encode((Load(8, 1, 12, -8),)) == code


@pytest.mark.parametrize("size", [1, 7, 9, 15])
def test_a_broken_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes: the length must be a multiple of 8"):
        decode(bytes(size))


@pytest.mark.parametrize(
    ("insns", "reason"),
    [
        ((Alu("add", 64, 1, None, 2**31),), "slot 0: a field of Alu"),
        ((Exit(), Goto(0x8000)), "slot 1: a field of Goto"),
        ((Alu("add", 64, 16, None, 1),), "slot 0: no register of that number"),
        ((Alu("add", 64, 1, -1),), "slot 0: no register of that number"),
        ((Alu("nand", 64, 1, 2),), "no encoding for Alu"),
        ((Alu("add", 16, 1, 2),), "no encoding for Alu"),
        ((Alu("add", 64, 1, 2, 5),), "no encoding for Alu"),
        ((Alu("neg", 64, 1, 2),), "no encoding for Alu"),
        ((Alu("neg", 64, 1, None, 1),), "no encoding for Alu"),
        ((Alu("add", 64, 1, 2, 0, 8),), "no encoding for Alu"),
        ((Alu("mov", 32, 1, 2, 0, 32),), "no encoding for Alu"),
        ((Load(8, 1, 2, 0, signed=True),), "no encoding for Load"),
        ((Load(3, 1, 2, 0),), "no encoding for Load"),
        ((LoadPacket("abs", 8, 0, 0),), "no encoding for LoadPacket"),
        ((Atomic("add", 1, 1, 0, 2),), "no encoding for Atomic"),
        ((Atomic("xchg", 8, 1, 0, 2),), "no encoding for Atomic"),
        ((Endian("be", 8, 1),), "no encoding for Endian"),
        ((Jump("eq", 64, 1, 2, 5, 0),), "no encoding for Jump"),
        ((Call("helper", 1, 1),), "no encoding for Call"),
        ((LoadImm(1, 9, 0), HIGH), "no encoding for LoadImm"),
        ((LoadImm(1, 0, -1), HIGH), "no encoding for LoadImm"),
        ((LoadImm(1, 0, 0),), "slot 1: a LoadImm and a High"),
        ((LoadImm(1, 0, 0), Exit()), "slot 1: a LoadImm and a High"),
        ((HIGH,), "slot 0: a LoadImm and a High"),
    ],
)
def test_what_has_no_encoding_is_refused(insns: tuple[Insn, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        encode(insns)
