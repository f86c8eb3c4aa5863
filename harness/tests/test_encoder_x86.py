"""Every form of the x86 encoder against LLVM's assembler."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from itertools import product

import capstone
import pytest

from harness.jit import x86_encoder as x

LOW = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
NAMES64 = [f"r{name}" for name in LOW] + [f"r{n}" for n in range(8, 16)]
NAMES32 = [f"e{name}" for name in LOW] + [f"r{n}d" for n in range(8, 16)]
NAMES16 = [*LOW] + [f"r{n}w" for n in range(8, 16)]
NAMES8 = ["al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"] + [f"r{n}b" for n in range(8, 16)]
NAMES = {64: NAMES64, 32: NAMES32, 16: NAMES16, 8: NAMES8}
SIZE = {64: "qword", 32: "dword", 16: "word", 8: "byte"}

ENGINE = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)

REGS = range(16)
INDEXES = [x.RAX, x.RBP, x.R8, x.R12, x.R15]
DISPS = [0, 1, -1, 127, -128, 128, -129, 2**31 - 1, -(2**31)]
IMM8 = [0, 1, -1, 127, -128]
WIDE8 = [128, -129, 255, 256]  # needs four bytes: there the assembler has one choice
IMM32 = [*WIDE8, 0x12345678, 2**31 - 1, -(2**31)]

# Forms that, for some operands, are not what the assembler would choose, and why.
LINUX_CHOICE = {
    "TEST_ri32": "no short form for rax",
    "TEST32_ri32": "no short form for rax",
    "CMP_ri32": "no short form for rax",
    "CMP32_ri32": "no short form for rax",
    "ADD_ri32": "no short form for rax",
    "ADD32_ri32": "no short form for rax",
    "SUB_ri32": "no short form for rax",
    "SUB32_ri32": "no short form for rax",
    "AND_ri32": "no short form for rax",
    "AND32_ri32": "no short form for rax",
    "OR_ri32": "no short form for rax",
    "OR32_ri32": "no short form for rax",
    "XOR_ri32": "no short form for rax",
    "XOR32_ri32": "no short form for rax",
    "MOV32SX8_rr": "REX even where it carries no bit",
    "SHL_ri8": "one by a byte",
    "SHL32_ri8": "one by a byte",
    "SHR_ri8": "one by a byte",
    "SHR32_ri8": "one by a byte",
    "SAR_ri8": "one by a byte",
    "SAR32_ri8": "one by a byte",
    "ROL_ri8": "one by a byte",
    "ROR16_ri8": "one by a byte",
    "MOV_rm32": "four bytes of displacement that fit in one",
    "MOV_rs32": "four bytes of displacement that fit in one",
}

NAME = re.compile(
    r"(?P<lock>LOCK_)?(?P<op>[A-Z]+?)(?P<bits>8|16|32)?(?P<extend>(?:SX|ZX)(?:8|16))?"
    r"_(?P<operands>[a-z]+[0-9]*)$"
)
JUMPS = {"JMP_i8", "JMP_i32", "CALL_i32", "JCC_i8", "JCC_i32"}
FORMS = sorted(name for name in vars(x) if NAME.match(name) and name not in JUMPS)
CONSTANTS = {
    "CDQ": "cdq",
    "CQO": "cqo",
    "LEAVE": "leave",
    "RET": "ret",
    "INT3": "int3",
    "LFENCE": "lfence",
    "ENDBR64": "endbr64",
}


def offset(disp: int) -> str:
    return f"{'+' if disp >= 0 else '-'} {abs(disp)}"


def samples(name: str) -> Iterator[tuple[str, bytes]]:
    """Yield assembly and our bytes for every operand worth trying of one form."""
    match = NAME.match(name)
    assert match
    form: Callable[..., bytes] = getattr(x, name)
    op, operands = match["op"].lower(), match["operands"]
    bits = int(match["bits"] or 64)
    source = bits
    if op in ("movzx", "movsx"):  # the width is the source's
        bits = 64
    if match["extend"]:
        op, source = "mov" + match["extend"][:2].lower(), int(match["extend"][2:])
    if op == "movsx" and source == 32:
        op = "movsxd"
    if name == "MOV_ri64":
        op = "movabs"
    prefix = "lock " if match["lock"] else ""
    dst, src = NAMES[bits], NAMES[source]
    size = SIZE[source]

    def at(base: int, disp: int) -> tuple[str, str]:
        # the assembler leaves a displacement of zero out unless it is told to
        small = "{disp8} " if disp == 0 else ""
        return small, f"{size} ptr [{NAMES64[base]} {offset(disp)}]"

    def line(text: str, small: str = "") -> str:
        return f"{small}{prefix}{op} {text}"

    match operands:
        case "rr":
            for a, b in product(REGS, REGS):
                yield line(f"{dst[a]}, {src[b]}"), form(a, b)
        case "r" | "r1" | "rc":
            also = {"r": "", "r1": ", 1", "rc": ", cl"}[operands]
            for a in REGS:
                wide = NAMES64 if op in ("push", "pop", "jmp") else dst
                yield line(f"{wide[a]}{also}"), form(a)
        case "ri8" if op in ("shl", "shr", "sar", "rol", "ror"):
            for a, imm in product(REGS, (0, 1, 2, 8, 31, 32, 63, 255)):
                yield line(f"{dst[a]}, {imm}"), form(a, imm)
        case "ri8" | "ri32" | "ri64":
            values = {"ri8": IMM8, "ri32": IMM32, "ri64": [1 << 32, 2**64 - 1 - 2**31]}[operands]
            if name == "MOV32_ri32":
                values = [0, 1, 2**31, 2**32 - 1]
            if name == "MOV_ri32":
                values = [-1, -(2**31), 0, 2**31 - 1]
            for a, imm in product(REGS, values):
                yield line(f"{dst[a]}, {imm}"), form(a, imm)
        case "ai":
            for imm in IMM32:
                yield line(f"{dst[0]}, {imm}"), form(imm)
        case "rri8" | "rri32":
            for a, b, imm in product(REGS, REGS, IMM8 if operands == "rri8" else IMM32):
                yield line(f"{dst[a]}, {dst[b]}, {imm}"), form(a, b, imm)
        case "rrr":
            for a, b, c in product(REGS, REGS, REGS):
                yield line(f"{dst[a]}, {dst[b]}, {dst[c]}"), form(a, b, c)
        case "rm" | "mr":
            for a, base, disp in product(REGS, REGS, DISPS):
                small, mem = at(base, disp)
                if operands == "rm":
                    yield line(f"{dst[a]}, {mem}", small), form(a, base, disp)
                else:
                    yield line(f"{mem}, {src[a]}", small), form(base, disp, a)
        case "rm32":
            for a, base, disp in product(REGS, REGS, DISPS):
                yield line(f"{dst[a]}, {at(base, disp)[1]}"), form(a, base, disp)
        case "rs32":
            for a, base, index, disp in product(REGS, REGS, INDEXES, DISPS):
                mem = f"{size} ptr [{NAMES64[base]} + 8*{NAMES64[index]} {offset(disp)}]"
                yield line(f"{dst[a]}, {mem}"), form(a, base, index, disp)
        case "rg":
            for a, disp in product(REGS, DISPS):
                yield line(f"{dst[a]}, {size} ptr gs:[{disp}]"), form(a, disp)
        case "rx" | "xr":
            for a, base, index, disp in product(REGS, REGS, INDEXES, (0, -128, 128)):
                small = "{disp8} " if disp == 0 else ""
                mem = f"{size} ptr [{NAMES64[base]} + {NAMES64[index]} {offset(disp)}]"
                if operands == "rx":
                    yield line(f"{dst[a]}, {mem}", small), form(a, base, index, disp)
                else:
                    yield line(f"{mem}, {src[a]}", small), form(base, index, disp, a)
        case "mi" | "xi":
            limit = 1 << min(bits, 32) - 1
            for base, disp, imm in product(REGS, DISPS, (0, -1, limit - 1, -limit)):
                small, mem = at(base, disp)
                if operands == "mi":
                    yield line(f"{mem}, {imm}", small), form(base, disp, imm)
                    continue
                for index in INDEXES:
                    mem = f"{size} ptr [{NAMES64[base]} + {NAMES64[index]} {offset(disp)}]"
                    yield line(f"{mem}, {imm}", small), form(base, index, disp, imm)
        case "ni8":
            for base, imm in product(set(REGS) - {x.RSP, x.RBP, x.R12, x.R13}, IMM8):
                yield line(f"{size} ptr [{NAMES64[base]}], {imm}"), form(base, imm)
        case _:
            raise AssertionError(f"{name}: no samples for operands {operands}")


@pytest.fixture(scope="module")
def assembled(llvm_tool: Callable[[str], list[str]]) -> dict[str, list[tuple[str, bytes, bytes]]]:
    """Assembly, our bytes and the assembler's, by form: one call for everything."""
    wanted = {name: list(samples(name)) for name in FORMS}
    wanted |= {name: [(text, getattr(x, name))] for name, text in CONSTANTS.items()}
    text = "\n".join(line for lines in wanted.values() for line, _ in lines) + "\n"
    command = [
        *llvm_tool("llvm-mc"),
        "--triple=x86_64",
        "--mattr=+bmi2",
        "--x86-asm-syntax=intel",
        "--show-encoding",
    ]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
    theirs = iter(
        bytes.fromhex(found.replace("0x", "").replace(",", ""))
        for found in re.findall(r"encoding: \[(.*?)\]", done.stdout)
    )
    result = {
        name: [(line, ours, next(theirs)) for line, ours in lines] for name, lines in wanted.items()
    }
    assert next(theirs, None) is None
    return result


def reading(code: bytes) -> list[tuple[str, str]]:
    return [(mnemonic, operands) for _, _, mnemonic, operands in ENGINE.disasm_lite(code, 0)]


@pytest.mark.parametrize("name", [*FORMS, *CONSTANTS])
def test_form_equals_the_assembler(
    name: str, assembled: dict[str, list[tuple[str, bytes, bytes]]]
) -> None:
    differ = [(line, ours, theirs) for line, ours, theirs in assembled[name] if ours != theirs]
    if name not in LINUX_CHOICE:
        assert [(line, ours.hex(), theirs.hex()) for line, ours, theirs in differ[:5]] == []
        return
    assert differ, f"{name} is what the assembler chooses: take it out of LINUX_CHOICE"
    for line, ours, theirs in differ:
        assert len(reading(ours)) == 1, line
        assert reading(ours) == reading(theirs), line


@pytest.mark.parametrize(("disp", "near"), [(0, 0), (123, 124), (-128, -129), (5, 2**31 - 1)])
def test_jumps_land_where_they_say(disp: int, near: int) -> None:
    names = ["b", "ae", "e", "ne", "be", "a", "l", "ge", "le", "g"]
    codes = [x.B, x.AE, x.E, x.NE, x.BE, x.A, x.L, x.GE, x.LE, x.G]
    top = 1 << 64
    for name, code in zip(names, codes, strict=True):
        assert reading(x.JCC_i8(code, disp)) == [("j" + name, hex_of((disp + 2) % top))]
        assert reading(x.JCC_i32(code, near)) == [("j" + name, hex_of((near + 6) % top))]
    assert reading(x.JMP_i8(disp)) == [("jmp", hex_of((disp + 2) % top))]
    assert reading(x.JMP_i32(near)) == [("jmp", hex_of((near + 5) % top))]
    assert reading(x.CALL_i32(near)) == [("call", hex_of((near + 5) % top))]


def hex_of(value: int) -> str:
    return hex(value) if value > 9 else str(value)


@pytest.mark.parametrize("length", range(1, 6))
def test_no_operations_are_one_instruction_of_their_length(length: int) -> None:
    assert len(x.NOPS[length]) == length
    assert [mnemonic for mnemonic, _ in reading(x.NOPS[length])] == ["nop"]


def test_every_public_form_is_tested() -> None:
    public = {name for name in vars(x) if name[0].isupper() and "_" in name}
    assert public == set(FORMS) | JUMPS
