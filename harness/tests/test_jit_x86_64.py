"""The x86-64 JIT against bytes seen from Linux's."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.isa.asm import assemble
from harness.isa.codec import decode, encode
from harness.isa.forms import ALL_FORMS, form_name
from harness.isa.insn import (
    AddrSpaceCast,
    Alu,
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
    Raw,
    Store,
    StoreImm,
)
from harness.jit.text import disassemble
from harness.jit.x86_64 import Options
from harness.jit.x86_64 import compile as compile_program
from harness.model import (
    Frame,
    HarnessError,
    Image,
    MapDef,
    Program,
    Relocation,
    SubImage,
    Subprogram,
    Unknown,
)

HERE = Path(__file__).parent
NO_FRAME = Frame(0)
ARENA = MapDef("arena", 33, 0, 0, 1)


Body = tuple[Insn, ...]


def program(*bodies: Body, frames: tuple[Frame, ...] = (), **more: Any) -> Program:
    """Return a program of *bodies*, called f0, f1, ...; without frames: none has a stack."""
    subs: list[Subprogram] = []
    insns: Body = ()
    for index, body in enumerate(bodies):
        subs.append(Subprogram(f"f{index}", len(insns), len(insns) + len(body)))
        insns += body
    frames = frames or (NO_FRAME,) * len(bodies)
    return Program("p", "syscall", "syscall", insns, tuple(subs), frames=frames, **more)


def image(*bodies: Body, options: Options | None = None, **more: Any) -> Image:
    compiled = compile_program(program(*bodies, **more), options or Options())
    assert isinstance(compiled, Image), compiled
    return compiled


def text(source: str) -> Body:
    """Assemble; fix-ups' r12 and the kernel's own forms come as data."""
    return decode(encode(assemble(source).insns), registers=13)


# --- single instructions ----------------------------------------------------


def linux_insns() -> dict[str, list[tuple[str, str]]]:
    """Return the table of linux_x86_64.txt: form to (BPF, native) in hexadecimal."""
    table: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for line in (HERE / "linux_x86_64.txt").read_text().splitlines():
        if line.startswith("  "):
            bpf, _, native = line[2:].partition(" ")
            table[name].append((bpf, native))
        elif line and not line.startswith("#"):
            name = line
            table[name] = []
    return table


LINUX = linux_insns()


@pytest.mark.parametrize("name", LINUX)
def test_instruction_is_what_linux_emits(name: str) -> None:
    options = Options(bmi2="without bmi2" not in name)
    for bpf, native in LINUX[name]:
        insns = decode(bytes.fromhex(bpf), registers=13)
        sub = image((*insns, Exit()), options=options).subprograms[0]
        found = sub.code[sub.addrs[0] : sub.addrs[len(insns)]]
        if isinstance(insns[0], Jump):  # over nothing: two bytes, which the table has too
            assert found[-2] & 0xF0 == 0x70, bpf
        assert (bpf, found.hex()) == (bpf, native)


def test_every_form_is_in_the_table_or_out_of_reach() -> None:
    elsewhere = {  # need a function around them, or are refused
        "AddrSpaceCast", "Call", "CallX", "Exit", "Goto", "GotoX", "LoadPacket", "MayGoto",
        "PercpuAddr",
    }  # fmt: skip
    missing = {
        form_name(form)
        for form in ALL_FORMS
        if type(form).__name__ not in elsewhere and form_name(form) not in LINUX
    }
    assert {name for name in missing if "loadimm" not in name} == set()


# --- whole functions --------------------------------------------------------

FUNCTIONS = tomllib.loads((HERE / "linux_x86_64.toml").read_text())["function"]


@pytest.mark.parametrize("case", FUNCTIONS, ids=[case["name"] for case in FUNCTIONS])
def test_function_is_what_linux_emits(case: dict[str, Any]) -> None:
    frame = replace(NO_FRAME, **case.get("frame", {}))
    bodies: tuple[Body, ...] = (text(case["bpf"]),)
    frames: tuple[Frame, ...] = (frame,)
    if case.get("subprogram"):
        bodies, frames = ((Exit(),), *bodies), (NO_FRAME, *frames)
    maps = (ARENA,) if case.get("arena") else ()
    options = Options(**case.get("options", {}))
    sub = image(*bodies, options=options, frames=frames, maps=maps).subprograms[-1]
    expected = [line.split()[0] for line in case["native"].strip().splitlines()]
    assert [code.hex() for _, code, _ in disassemble(sub)] == expected


def test_options_take_endbr_and_the_trampoline_out() -> None:
    bare = image((Exit(),), options=Options(ibt=False, ftrace=False, sls=False)).subprograms[0]
    assert bare.code.hex() == "0f1f00" + "55" + "4889e5" + "c9" + "c3"


# --- jumps ------------------------------------------------------------------


def jumpy(seed: int, count: int, span: int) -> Body:
    """Return a program dense with jumps, from a generator that never changes."""
    state = seed
    insns: list[Insn] = []
    for slot in range(count - 1):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        draw = state >> 33
        target = min(max(slot + draw % (2 * span) - span, 0), count - 1)
        if draw >> 20 & 7 == 0:
            insns.append(Alu("add", 64, 5, None, draw % 300 - 150))
        elif draw >> 20 & 7 < 4:
            insns.append(Goto(target - slot - 1))
        else:
            insns.append(Jump("sgt", 64, 1, 2, 0, target - slot - 1))
    return (*insns, Exit())


# seed, slots, span: length and digest of what Linux emits
SETTLED = (
    (1, 40, 10, 175, "cfc884f00bfbeda8"),
    (2, 200, 20, 747, "c1eb2245d4790254"),
    (3, 300, 40, 1352, "0dd6eb02ad2cfab1"),
    (4, 600, 30, 2564, "3a7205a822d8690b"),
    (5, 1200, 35, 5845, "0f9b914d2c1e8bc7"),
    (7, 3000, 45, 17119, "f9532016c07d255e"),
    (8, 5000, 40, 29275, "9cd08c2be902d1b9"),
    (100, 3000, 25, 14741, "bb6e68cf76007236"),
    (100, 3000, 32, 15857, "9b43c7d747045883"),
)


@pytest.mark.parametrize(("seed", "count", "span", "length", "digest"), SETTLED)
def test_jumps_settle_as_in_linux(
    seed: int, count: int, span: int, length: int, digest: str
) -> None:
    sub = image(jumpy(seed, count, span)).subprograms[0]
    assert (len(sub.code), hashlib.sha256(sub.code).hexdigest()[:16]) == (length, digest)


def test_jumps_that_linux_gives_up_on_are_unknown() -> None:
    assert compile_program(program(jumpy(103, 3000, 32))) == Unknown("f0: jumps do not settle")


def test_jump_out_of_the_function_is_unknown() -> None:
    out = compile_program(program((Goto(5), Exit())))
    assert out == Unknown("jump out of range from insn 0")


# --- addresses and relocations ----------------------------------------------


def test_addrs_are_where_each_slot_begins() -> None:
    body = (LoadImm(1, 0, 1 << 40), High(), Goto(0), Alu("add", 64, 0, 1), Exit())
    sub = image(body).subprograms[0]
    start = 20  # of the first slot, behind the prologue
    # a goto to the next instruction has no code; the second slot of a LoadImm neither
    assert sub.addrs == (start, start + 10, start + 10, start + 10, start + 13)


def test_relocations_name_what_is_called_and_loaded() -> None:
    maps = (MapDef("counts", 2, 4, 8, 1), MapDef(".rodata", 2, 4, 64, 1, readonly=True))
    main = (
        LoadImm(1, 5, 0), High(), LoadImm(8, 6, 16 << 32 | 1), High(), LoadImm(2, 4, 5), High(),
        Call("helper", 2), Call("kfunc", 0), Call("subprog", 1), Exit(),
    )  # fmt: skip
    callee = (Alu("mov", 64, 0, None, 0), Exit())
    sub = image(main, callee, maps=maps, kfuncs=("bpf_f",)).subprograms[0]
    where = dict(zip(range(10), sub.addrs, strict=True))
    assert sub.relocations == (
        Relocation(where[0] + 2, 8, "map", "counts"),
        Relocation(where[2] + 2, 8, "data", ".rodata", 16),
        Relocation(where[4] + 3, 4, "func", "f1"),
        Relocation(where[6] + 1, 4, "helper", "2"),
        Relocation(where[7] + 1, 4, "kfunc", "bpf_f"),
        Relocation(where[8] + 1, 4, "call", "f1"),
    )
    assert [name for _, _, name in disassemble(sub) if "<" in name][1].endswith("<data .rodata+16>")


def test_two_subprograms_of_one_name_stay_apart() -> None:
    subs = (Subprogram("main", 0, 2), Subprogram("f", 2, 3), Subprogram("f", 3, 4))
    two = Program("p", "", "", (Call("subprog", 2), Exit(), Exit(), Exit()), subs)
    compiled = compile_program(two)
    assert isinstance(compiled, Image)
    assert [sub.name for sub in compiled.subprograms] == ["main", "f", "f@3"]
    assert compiled.subprograms[0].relocations[0].target == "f@3"


def test_indirect_jumps_land_on_an_endbr() -> None:
    """Seen on Linux 7.3.4: jumps that lead there lead in front of it."""
    insns = (Jump("eq", 64, 1, None, 0, 1), GotoX(9), Alu("mov", 64, 0, None, 0), Exit())
    whole = (Subprogram("p", 0, len(insns)),)
    compiled = compile_program(Program("p", "", "", insns, whole, indirect=(2,)))
    assert isinstance(compiled, Image)
    (sub,) = compiled.subprograms
    ends = [*sub.addrs[1:], len(sub.code)]
    parts = [sub.code[a:b].hex() for a, b in zip(sub.addrs, ends, strict=True)]
    assert parts[:3] == ["4885ff7404", "41ffe7cc", "f30f1efa31c0"]


# --- what is refused --------------------------------------------------------

REFUSED: dict[str, Body] = {
    "may_goto: the verifier's fix-ups rewrite it before the JIT": (MayGoto(0),),
    "packet load: the verifier's fix-ups rewrite it before the JIT": (LoadPacket("abs", 4, 0, 0),),
    "callx: Linux does not know it": (CallX(1),),
    "address-space cast without an arena": (AddrSpaceCast(1, 1, 1 << 16),),
    "R11 is invalid": (Load(4, 1, 11, 8),),
    "R13 is invalid": (Alu("mov", 64, 0, 13),),
    "JIT does not support function f0() with 13 args": (Store(8, 11, -64, 1),),
    "64-bit immediate load of kind btf_id": (LoadImm(1, 3, 1), High()),
    "64-bit immediate load of kind map_fd": (LoadImm(1, 1, 1), High()),
    "64-bit immediate load of kind map_idx": (LoadImm(1, 5, 7), High()),
    "call of insn 3, where no subprogram starts": (Call("subprog", 2),),
    "unknown opcode ff": (Raw(0xFF, 0, 0, 0, 0),),
    "unknown opcode a1": (Raw(0xA1, 0, 0, 0, 0),),  # an arena load without an arena
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_not_supported_is_unknown(why: str) -> None:
    assert compile_program(program((*REFUSED[why], Exit()))) == Unknown(why)


@pytest.mark.parametrize(
    "insn",
    [
        StoreImm(8, 11, 8, 0), Store(4, 11, -8, 1), Store(8, 11, -12, 1), Load(8, 0, 11, -8),
        Alu("add", 64, 0, 11), Alu("mov", 64, 11, 0), Jump("eq", 64, 11, None, 0, 0),
        Endian("be", 16, 11),
    ],
)  # fmt: skip
def test_r11_is_for_stack_arguments_only(insn: Insn) -> None:
    assert compile_program(program((insn, Exit()))) == Unknown("R11 is invalid")


def test_jit_without_stack_arguments_says_so() -> None:
    body = (StoreImm(8, 11, -8, 1), StoreImm(8, 11, -16, 1), Exit())
    out = compile_program(program(body), Options(stack_args=False))
    assert out == Unknown("JIT does not support function f0() with 7 args")


def test_every_form_compiles_or_is_unknown() -> None:
    for form in ALL_FORMS:
        rest = (High(),) if isinstance(form, LoadImm) else (Exit(), Exit())
        assert isinstance(compile_program(program((form, *rest, Exit()))), Image | Unknown)


def test_frames_of_another_program_are_a_fault() -> None:
    with pytest.raises(HarnessError, match="2 frames for 1 subprograms"):
        compile_program(program((Exit(),), frames=(NO_FRAME, NO_FRAME)))


# --- text -------------------------------------------------------------------


def test_bytes_that_are_no_instruction_do_not_stop_the_text() -> None:
    sub = SubImage("f", bytes.fromhex("06c3"), ())
    assert disassemble(sub) == [(0, b"\x06", "(bad)"), (1, b"\xc3", "ret")]
