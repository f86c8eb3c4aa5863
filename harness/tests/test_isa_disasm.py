from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.isa.asm import assemble
from harness.isa.codec import HIGH, OPCODES, SLOT, decode, encode
from harness.isa.disasm import Form, bpftool_imm64, disassemble, format_insn, listing
from harness.isa.forms import ALL_FORMS, form_name
from harness.isa.helpers import HELPERS
from harness.isa.insn import Alu, Call, Exit, Goto, Insn, Jump, Load, LoadImm, Raw

EDGES = (0, 1, -1, 5, -0x10, 0x7FFFFFFF, -0x80000000)


def program(insns: tuple[Insn, ...]) -> tuple[Insn, ...]:
    """Give each LoadImm its second slot."""
    out: list[Insn] = []
    for insn in insns:
        out += (insn, HIGH) if isinstance(insn, LoadImm) else (insn,)
    return tuple(out)


def variations() -> tuple[Insn, ...]:
    """Every opcode, with registers and numbers at their edges, as far as they are instructions."""
    code = bytearray()
    regs = cycle((0x21, 0x09, 0xBA, 0x3B, 0x00))
    for opcode in sorted(OPCODES - {0x18}):
        for off in (0, 1, 8, 16, 32, -8, 0x7FFF, -0x8000):
            for imm in (*EDGES, 16, 32, 64, 0x41, 0x50, 0xA1, 0xE1, 0xF1, 0x100, 0x110, 0x10000):
                pair = next(regs)
                for candidate in (pair, pair & 15, pair & 0xF0):
                    slot = SLOT.pack(opcode, candidate, off, imm)
                    if not isinstance(decode(slot)[0], Raw):
                        code += slot
                        break
    wide = tuple(
        LoadImm(dst, kind, imm & 0xFFFFFFFFFFFFFFFF)
        for dst in (0, 9)
        for kind in range(7)
        for imm in (*EDGES, 0x80000000, -(1 << 63), (1 << 63) - 1, 1 << 32)
    )
    return (*decode(bytes(code)), *program(wide))


def objdump(insns: tuple[Insn, ...], llvm_tool: Callable[[str], list[str]], at: Path) -> str:
    words = encode(insns).hex(" ", 8).split()
    source = at / "code.s"
    source.write_text("".join(f".8byte 0x{bytes.fromhex(word)[::-1].hex()}\n" for word in words))
    built = at / "code.o"
    subprocess.run(
        [*llvm_tool("llvm-mc"), "-triple=bpf", "-filetype=obj", str(source), "-o", str(built)],
        check=True,
    )
    return subprocess.run(
        [*llvm_tool("llvm-objdump"), "-d", "--no-show-raw-insn", "-z", str(built)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_llvm_form_is_what_llvm_objdump_prints(
    llvm_tool: Callable[[str], list[str]], tmp_path: Path
) -> None:
    insns = (*program(ALL_FORMS), *variations())
    theirs = {
        int(slot): text if text == "<unknown>" else re.sub(r" <\S+>$", "", text)
        for slot, text in re.findall(
            r"^ *(\d+):\t(.*)$", objdump(insns, llvm_tool, tmp_path), re.MULTILINE
        )
    }
    ours = dict(disassemble(insns))
    assert len(ours) > 4000
    assert ours.keys() == theirs.keys()
    assert {slot: (insns[slot], text) for slot, text in ours.items() if text != theirs[slot]} == {}


# fmt: off
KERNEL = (  # as kernel/bpf/disasm.c of Linux 7.3 prints them
    ("0701000005000000", "(07) r1 += 5"),
    ("0c21000000000000", "(0c) w1 += w2"),
    ("3f21010000000000", "(3f) r1 s/= r2"),
    ("94010100f6ffffff", "(94) w1 s%= -10"),
    ("8401000000000000", "(84) w1 = -w1"),
    ("8701000000000000", "(87) r1 = -r1"),
    ("c701000003000000", "(c7) r1 s>>= 3"),
    ("b4010000ffffffff", "(b4) w1 = -1"),
    ("bf21080000000000", "(bf) r1 = (s8)r2"),
    ("bc21100000000000", "(bc) w1 = (s16)w2"),
    ("bf21200000000000", "(bf) r1 = (s32)r2"),
    ("bf21010001000000", "(bf) r1 = addr_space_cast(r2, 0, 1)"),
    ("bf2101000000ffff", "(bf) r1 = addr_space_cast(r2, 65535, 0)"),
    ("bf21ffff00000000", "(bf) r1 = &(void __percpu *)(r2)"),
    ("d401000010000000", "(d4) r1 = le16 r1"),
    ("dc01000020000000", "(dc) r1 = be32 r1"),
    ("d701000040000000", "(d7) r1 = bswap64 r1"),
    ("7921080000000000", "(79) r1 = *(u64 *)(r2 +8)"),
    ("61b1080000000000", "(61) r1 = *(u32 *)(r11 +8)"),
    ("91210080000000" + "00", "(91) r1 = *(s8 *)(r2 -32768)"),
    ("8121000000000000", "(81) r1 = *(s32 *)(r2 +0)"),
    ("7b2bf8ff00000000", "(7b) *(u64 *)(r11 -8) = r2"),
    ("6b21000000000000", "(6b) *(u16 *)(r1 +0) = r2"),
    ("7a0bf8fffbffffff", "(7a) *(u64 *)(r11 -8) = -5"),
    ("c321080000000000", "(c3) lock *(u32 *)(r1 +8) += r2"),
    ("db2108004000" + "0000", "(db) lock *(u64 *)(r1 +8) |= r2"),
    ("c321f8ff51000000", "(c3) r2 = atomic_fetch_and((u32 *)(r1 -8), r2)"),
    ("db210000a1000000", "(db) r2 = atomic64_fetch_xor((u64 *)(r1 +0), r2)"),
    ("c3210000e1000000", "(c3) r2 = atomic_xchg((u32 *)(r1 +0), r2)"),
    ("db210000e1000000", "(db) r2 = atomic64_xchg((u64 *)(r1 +0), r2)"),
    ("c3210000f1000000", "(c3) r0 = atomic_cmpxchg((u32 *)(r1 +0), r0, r2)"),
    ("db210000f1000000", "(db) r0 = atomic64_cmpxchg((u64 *)(r1 +0), r0, r2)"),
    ("d321040000010000", "(d3) r1 = load_acquire((u8 *)(r2 +4))"),
    ("db21040010010000", "(db) store_release((u64 *)(r1 +4), r2)"),
    ("30000000f0ffffff", "(30) r0 = *(u8 *)skb[-16]"),
    ("4830000004000000", "(48) r0 = *(u16 *)skb[r3 + 4]"),
    ("15010300ffffffff", "(15) if r1 == 0xffffffff goto pc+3"),
    ("de21fdff00000000", "(de) if w1 s<= w2 goto pc-3"),
    ("4501000007000000", "(45) if r1 & 0x7 goto pc+0"),
    ("0500fdff00000000", "(05) goto pc-3"),
    ("0600000000000100", "(06) gotol pc+65536"),
    ("e500030000000000", "(e5) may_goto pc+3"),
    ("0d01000000000000", "(0d) gotox r1"),
    ("8500000001000000", "(85) call bpf_map_lookup_elem#1"),
    ("85000000d3000000", "(85) call bpf_cgrp_storage_delete#211"),
    ("85000000d4000000", "(85) call unknown#212"),
    ("8510000003000000", "(85) call pc+3"),
    ("85100000ffffffff", "(85) call pc-1"),
    ("8520000007000000", "(85) call kernel-function#7"),
    ("9500000000000000", "(95) exit"),
    ("9500050000000000", "(95) exit"),             # reserved fields do not show
    ("0421010005000000", "(04) w1 += 5"),
    ("79c1f8ff00000000", "(79) r1 = *(u64 *)(r12 -8)"),
    ("db21000002000000", "BUG_db"),
)
# fmt: on


@pytest.mark.parametrize(("code", "text"), KERNEL)
def test_kernel_form(code: str, text: str) -> None:
    (insn,) = decode(bytes.fromhex(code))
    assert format_insn(insn, form="kernel") == text


def test_kernel_form_reaches_every_opcode() -> None:
    for insn in ALL_FORMS:
        text = format_insn(insn, form="kernel")
        assert text.startswith(f"({encode(program((insn,)))[0]:02x}) ")


def test_kernel_form_asks_for_names() -> None:
    call, kfunc, wide = Call("helper", 1), Call("kfunc", 77), LoadImm(1, 5, 0)
    assert format_insn(call, form="kernel", helper=lambda _: None) == "(85) call unknown#1"
    assert format_insn(kfunc, form="kernel", kfunc=lambda _: "bpf_f") == "(85) call bpf_f#77"
    text = format_insn(wide, form="kernel", imm64=lambda _: "map[name:m]")
    assert text == "(18) r1 = map[name:m]"
    assert format_insn(LoadImm(1, 0, 2**64 - 1), form="kernel") == "(18) r1 = 0xffffffffffffffff"


@pytest.mark.parametrize(
    ("insn", "text"),
    [
        (LoadImm(1, 0, 1 << 40), "0x10000000000"),
        (LoadImm(1, 1, 5), "map[id:5]"),
        (LoadImm(1, 2, 8 << 32 | 5), "map[id:5][0]+8"),
        (LoadImm(1, 3, 5), "btf[id:5]"),
        (LoadImm(1, 4, 0xFFFFFFFF), "subprog[-1]"),
        (LoadImm(1, 5, 5), "map[idx:5]"),
        (LoadImm(1, 6, 8 << 32 | 5), "map[idx:5]+8"),
    ],
)
def test_wide_immediates_as_bpftool_writes_them(insn: LoadImm, text: str) -> None:
    assert bpftool_imm64(insn) == text


def test_labels_of_jumps() -> None:
    insns = (Jump("eq", 64, 1, None, 0, 1), Goto(-2), Exit())
    names = {0: "f", 2: "f+0x10"}
    assert disassemble(insns, label=names.get) == [
        (0, "if r1 == 0x0 goto +0x1 <f+0x10>"),
        (1, "goto -0x2 <f>"),
        (2, "exit"),
    ]
    assert format_insn(insns[1], slot=3, label=names.get) == "goto -0x2 <f+0x10>"


def test_the_second_slot_has_no_line() -> None:
    assert [slot for slot, _ in disassemble((LoadImm(1, 0, 5), HIGH, Exit()))] == [0, 2]
    assert format_insn(HIGH) == format_insn(HIGH, form="kernel") == ""


def test_helper_names_are_where_the_kernel_has_them() -> None:
    known = {1: "map_lookup_elem", 5: "ktime_get_ns", 12: "tail_call", 130: "ringbuf_output"}
    known |= {181: "loop", 201: "dynptr_read", 211: "cgrp_storage_delete"}
    assert {number: HELPERS[number] for number in known} == {
        number: f"bpf_{name}" for number, name in known.items()
    }
    assert len(HELPERS) == 212


# --- listings assemble to the same program -----------------------------------


@pytest.mark.parametrize("form", ["llvm", "kernel"])
@pytest.mark.parametrize("insn", ALL_FORMS, ids=form_name)
def test_every_form_is_listed_and_read_back(insn: Insn, form: Form) -> None:
    insns = (*program((insn,)), *(Alu("mov", 64, 0, None, 0), Load(8, 0, 10, -8), Exit()))
    assert assemble(listing(insns, form=form)).insns == insns


@pytest.mark.parametrize("form", ["llvm", "kernel"])
def test_variations_are_read_back(form: Form) -> None:
    insns = variations()
    assert assemble(listing(insns, form=form)).insns == insns


def test_plain_lines_of_the_kernel_form_are_read_back() -> None:
    lossless = tuple(insn for insn in variations() if not isinstance(insn, LoadImm) or not insn.src)
    text = "\n".join(f"{slot}: {line}" for slot, line in disassemble(lossless, form="kernel"))
    kept = tuple(
        Call("kfunc", insn.imm) if isinstance(insn, Call) and insn.kind == "kfunc" else insn
        for insn in lossless
        if insn != HIGH
    )
    assert tuple(insn for insn in assemble(text).insns if insn != HIGH) == kept


@given(
    st.lists(
        st.builds(
            SLOT.pack,
            st.sampled_from(sorted(OPCODES)) | st.integers(0, 255),
            st.sampled_from((0x00, 0x01, 0x10, 0x21, 0xBA, 0xAB, 0x40, 0x51, 0xC1)),
            st.integers(-6, 6) | st.integers(-0x8000, 0x7FFF),
            st.integers(-6, 6) | st.integers(-(2**31), 2**31 - 1),
        ),
        min_size=1,
        max_size=12,
    ).map(b"".join),
    st.sampled_from(("llvm", "kernel")),
)
def test_listings_of_anything_are_read_back(code: bytes, form: Form) -> None:
    insns = decode(code)
    assert assemble(listing(insns, form=form)).insns == insns


def test_a_listing_has_names_and_labels() -> None:
    insns = decode(
        bytes.fromhex("85100000020000001501010000000000 0500fdff00000000 9500000000000000")
    )
    assert listing(insns, names={0: "main"}) == (
        "main:\n\tcall sub_3\n\tif r1 == 0x0 goto sub_3\n\tgoto main\nsub_3:\n\texit\n"
    )
    assert "L1:" in listing((Goto(0), Exit()))
    assert ".L1:" in listing((Goto(0), Exit()), names={0: "L1"})


def test_what_no_text_says_is_listed_as_data() -> None:
    assert listing((Raw(0xFF, 1, 2, 3, 4),)) == "sub_0:\n\t.8byte 0x00000004000321ff  # BUG_ff\n"
    assert listing((Call("kfunc", 7),)).endswith("# (85) call kernel-function#7\n")
