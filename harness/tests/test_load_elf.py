"""Objects that are damaged, hostile, or made by hand to say one thing."""

from __future__ import annotations

import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.btf_check import validate
from harness.isa.codec import encode
from harness.isa.insn import Alu, Call, Exit, High, Insn, LoadImm
from harness.load import LoadError, Object, load_object
from harness.load.elf import FUNC, GLOBAL, LOCAL, NOBITS, PROGBITS, REL, SECTION, SYMTAB
from harness.model import Program

AX, WA = 6, 3  # section flags: code, data
STRTAB = 3
MOV = Alu("mov", 64, 0, None, 0)
LEAF = encode([MOV, Exit()])
CALL = encode([Call("subprog", -1), Exit()])


@dataclass(frozen=True)
class Sec:
    """A section to write."""

    name: str
    data: bytes = b""
    type: int = PROGBITS
    flags: int = AX
    size: int | None = None
    info: int = 0
    entry: int = 0


@dataclass(frozen=True)
class Sym:
    """A symbol to write; *section* counts the sections given, from 1."""

    name: str
    section: int
    value: int = 0
    size: int = 16
    bind: int = GLOBAL
    type: int = FUNC


def write_elf(sections: Sequence[Sec], symbols: Sequence[Sym]) -> bytes:
    """Return an object of *sections*, then symbols and names."""
    names = b"\0"
    rows = [(0, 0, 0, 0, 0, 0)]
    table = bytes(24)
    for symbol in symbols:
        info = symbol.bind << 4 | symbol.type
        table += struct.pack(
            "<IBBHQQ", len(names), info, 0, symbol.section, symbol.value, symbol.size
        )
        names += symbol.name.encode() + b"\0"
    strings = len(sections) + 2
    body = b""
    for section in (
        *sections,
        Sec(".symtab", table, SYMTAB, 0, entry=24),
        Sec(".strtab", b"", STRTAB, 0),
    ):
        rows.append((len(names), section.type, section.flags, 64 + len(body), 0, 0))
        names += section.name.encode() + b"\0"
        body += section.data
    body += names
    offset = 64 + len(body)
    headers = bytes(64)
    at = 64
    for (name, kind, flags, _, _, _), section in zip(
        rows[1:],
        (*sections, Sec("", table, entry=24), Sec("", names)),
        strict=True,
    ):
        size = len(section.data) if section.size is None else section.size
        link = strings if kind == SYMTAB else 0
        headers += struct.pack(
            "<IIQQQQIIQQ", name, kind, flags, 0, at, size, link, section.info, 0, section.entry
        )
        at += len(section.data)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 1, 247, 1, 0, 0, offset, 0, 64, 0, 0, 64,
        len(sections) + 3, strings,
    )  # fmt: skip
    return header + body + headers


def rel(target: int, *rows: tuple[int, int, int]) -> Sec:
    """Return a relocation section of *rows*: offset, symbol, type."""
    data = b"".join(struct.pack("<QQ", at, symbol << 32 | kind) for at, symbol, kind in rows)
    return Sec(".rel", data, REL, 0, info=target, entry=16)


def code(*insns: Insn) -> bytes:
    slots: list[Insn] = []
    for insn in insns:
        slots += [insn, High()] if isinstance(insn, LoadImm) else [insn]
    return encode(slots)


def message(data: bytes) -> str:
    with pytest.raises(LoadError) as caught:
        load_object(data, path="dir/a.o")
    text = str(caught.value)
    assert text.startswith("dir/a.o: ")
    assert text.isprintable()
    return text.removeprefix("dir/a.o: ")


def test_the_writer_writes_objects() -> None:
    loaded = load_object(
        write_elf(
            [Sec(".text", LEAF), Sec("xdp", CALL), rel(2, (0, 1, 10))],
            [Sym("leaf", 1), Sym("main", 2)],
        )
    )
    (program,) = loaded.programs
    assert program.insns == (Call("subprog", 1), Exit(), MOV, Exit())
    assert [sub.name for sub in program.subprograms] == ["main", "leaf"]


# --- not an object at all ----------------------------------------------------

GOOD = write_elf(
    [Sec(".text", LEAF), Sec("xdp", CALL), rel(2, (0, 1, 10))], [Sym("leaf", 1), Sym("main", 2)]
)


def patched(offset: int, form: str, value: int) -> bytes:
    data = bytearray(GOOD)
    struct.pack_into(form, data, offset, value)
    return bytes(data)


def header_of(index: int, field: int) -> int:
    return int(struct.unpack_from("<Q", GOOD, 0x28)[0]) + 64 * index + field


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not an ELF file"),
        (b"int main(void) { return 0; }", "not an ELF file"),
        (GOOD[:40], "40 bytes are less than an ELF header (cut short?)"),
        (patched(4, "<B", 1), "a 32-bit ELF file, not a 64-bit one"),
        (patched(4, "<B", 9), "a damaged ELF header: Invalid EI_CLASS"),
        (patched(5, "<B", 9), "a damaged ELF header: Invalid EI_DATA"),
        (patched(0x12, "<H", 62), "for machine x86_64, not BPF; compile it with clang -target"),
        (patched(0x12, "<H", 0xFFFF), "for machine 65535, not BPF"),
        (patched(0x10, "<H", 2), "not a relocatable object (clang -c)"),
        (patched(0x28, "<Q", 0), "no section headers"),
        (patched(0x28, "<Q", 1 << 63), "no section headers"),
        (patched(0x3A, "<H", 1), "no section headers"),
        (patched(0x3C, "<H", 0xFFF0), "65520 section headers do not fit in the file (cut short?)"),
        (patched(0x3E, "<H", 99), "section names in section 99, of 6"),
        (patched(header_of(1, 0), "<I", 1 << 30), "a name lies beyond its string table"),
        (patched(header_of(1, 24), "<Q", 1 << 40), "section .text ends beyond the file"),
        (patched(header_of(1, 32), "<Q", 1 << 60), "section .text ends beyond the file"),
        (patched(header_of(1, 32), "<Q", 12), ".text: function leaf ends beyond its section"),
        (patched(header_of(3, 56), "<Q", 24), "section .rel has entries of 24 bytes"),
        (patched(header_of(4, 4), "<I", 1), "no symbol table; is it a stripped object?"),
        (patched(header_of(1, 4), "<I", 2), "section .text has entries of 0 bytes"),
        (patched(header_of(4, 40), "<I", 77), "the symbol table has no strings"),
        (patched(header_of(5, 32), "<Q", 1 << 40), "the section names lie beyond the end"),
    ],
)
def test_damaged_files(data: bytes, text: str) -> None:
    assert text in message(data)


def test_two_symbol_tables() -> None:
    assert message(
        write_elf([Sec("xdp", LEAF), Sec(".more", b"", SYMTAB, entry=24)], [Sym("main", 1)])
    ) == "more than one symbol table"  # fmt: skip


def test_other_targets_of_clang(clang: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int f(int x) { return x; }")
    for target, text in (
        ("bpfeb", "big-endian BPF; compile it with clang -target bpfel"),
        ("x86_64-linux-gnu", "for machine x86_64, not BPF"),
    ):
        command = [*clang, "-target", target, "-c", "a.c", "-o", "a.o"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        assert text in message((tmp_path / "a.o").read_bytes())


def test_names_cannot_break_the_message() -> None:
    text = message(write_elf([Sec("xdp\x1b\n" + "y" * 900, LEAF)], [Sym("a\nb", 1, size=9)]))
    assert "\\x1b\\n" in text
    assert len(text) < 450


# --- functions ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbol", "text"),
    [
        (Sym("f", 1, 8, 16), "xdp: function f ends beyond its section"),
        (Sym("f", 1, 1 << 63, 1 << 63), "xdp: function f ends beyond its section"),
        (Sym("f", 1, 0, 0), "xdp: function f: offset 0, 0 bytes: not in slots"),
        (Sym("f", 1, 0, 12), "xdp: function f: offset 0, 12 bytes: not in slots"),
        (Sym("f", 1, 4, 8), "xdp: function f: offset 4, 8 bytes: not in slots"),
        (Sym("f", 1, bind=LOCAL), "xdp: function f is static; a program must be global"),
    ],
)
def test_functions_that_are_none(symbol: Sym, text: str) -> None:
    assert message(write_elf([Sec("xdp", LEAF)], [symbol])) == text


def test_functions_that_overlap() -> None:
    sections = [Sec("xdp", LEAF)]
    assert message(
        write_elf(sections, [Sym("f", 1), Sym("g", 1, 8, 8)])
    ) == "functions f and g overlap"  # fmt: skip
    alias = load_object(write_elf(sections, [Sym("f", 1), Sym("g", 1)]))
    assert [program.name for program in alias.programs] == ["f"]


def test_code_of_odd_length_has_no_last_instruction() -> None:
    loaded = load_object(write_elf([Sec("xdp", LEAF + b"\0\0\0")], [Sym("f", 1)]))
    assert loaded.programs[0].insns == (MOV, Exit())


def test_an_object_without_code_is_empty() -> None:
    loaded = load_object(write_elf([Sec(".data", b"1234", flags=WA)], []))
    assert (loaded.programs, loaded.functions, len(loaded.maps)) == ((), (), 1)


def test_sections_with_a_question_mark_are_programs() -> None:
    (program,) = load_object(write_elf([Sec("?fentry.s/f", LEAF)], [Sym("p", 1)])).programs
    assert (program.section, program.type) == ("fentry.s/f", "tracing")
    assert (program.attach, program.sleepable) == ("f", True)


# --- relocations -------------------------------------------------------------

LOAD = code(LoadImm(1, 0, 8), MOV, Exit())


@pytest.mark.parametrize(
    ("main", "row", "symbol", "text"),
    [
        (CALL, (3, 1, 10), Sym("f", 1), ".rel: offset 0x3 is no instruction"),
        (CALL, (16, 1, 10), Sym("f", 1), ".rel: offset 0x10 is no instruction"),
        (CALL, (1 << 63, 1, 10), Sym("f", 1), "is no instruction"),
        (CALL, (0, 9, 10), Sym("f", 1), ".rel: relocation 0 names symbol 9, of 3"),
        (CALL, (8, 1, 10), Sym("f", 1), "main: instruction 1: a relocation of opcode 0x95"),
        (CALL, (0, 1, 10), Sym("f", 1, 4, 8), "f: offset 4, 8 bytes: not in slots"),
        (CALL, (0, 1, 10), Sym("f", 2, type=0), "refers to f, which is no function in .text"),
        (CALL, (0, 1, 10), Sym("f", 1, 64, type=0), "refers to offset 0x40 of .text: no function"),
        (CALL, (0, 1, 10), Sym("f", 0, type=0, bind=LOCAL), "refers to f, which is no function"),
        (CALL, (0, 1, 10), Sym("f", 0, type=0), "extern f needs BTF"),
        (
            code(Call("helper", 1), Exit()),
            (0, 1, 10),
            Sym("f", 1),
            "instruction 0: a call of a helper has a relocation",
        ),
        (LOAD, (0, 1, 1), Sym("v", 0xFFF1), "refers to v, which nothing defines"),
        (LOAD, (0, 1, 1), Sym("v", 0, type=1, bind=LOCAL), "refers to v, which nothing defines"),
        (LOAD, (0, 1, 1), Sym("", 2, type=SECTION, bind=LOCAL), "in section xdp: no map"),
        (LOAD, (8, 1, 1), Sym("f", 1), "a relocation of opcode 0x00"),
        (
            struct.pack("<BBhi", 0x85, 0x1F, 0, -1) + code(Exit()),
            (0, 1, 10),
            Sym("f", 1),
            "a relocation of what is no instruction",
        ),
    ],
)
def test_relocations_that_lead_nowhere(
    main: bytes, row: tuple[int, int, int], symbol: Sym, text: str
) -> None:
    data = write_elf(
        [Sec(".text", LEAF), Sec("xdp", main), rel(2, row)],
        [symbol, Sym("main", 2, size=len(main))],
    )
    assert text in message(data)


def test_addresses_of_functions() -> None:
    main = code(LoadImm(1, 0, 16), LoadImm(2, 0, 0), Exit())
    loaded = load_object(
        write_elf(
            [Sec(".text", LEAF * 2), Sec("xdp", main), rel(2, (0, 4, 1), (16, 2, 1))],
            [
                Sym("main", 2, size=len(main)),
                Sym("global", 1),
                Sym("local", 1, 16, bind=LOCAL),
                Sym("", 1, 0, 0, LOCAL, SECTION),
            ],
        )
    )
    (program,) = loaded.programs
    assert [sub.name for sub in program.subprograms] == ["main", "local", "global"]
    assert program.insns[0] == LoadImm(1, 4, 4)  # from slot 1 to slot 5
    assert program.insns[2] == LoadImm(2, 4, 4)


def test_an_address_of_a_function_needs_a_relocation() -> None:
    main = code(LoadImm(1, 4, 1), Exit())
    data = write_elf([Sec("xdp", main)], [Sym("main", 1, size=len(main))])
    assert message(data).endswith("instruction 0: the address of a function, but no relocation")


def test_calls_within_a_section_lead_into_text() -> None:
    inside = code(Call("subprog", 0), Exit(), MOV, Exit())
    data = write_elf([Sec("xdp", inside)], [Sym("f", 1, 0, 16), Sym("g", 1, 16, 16)])
    assert message(data) == "f: instruction 0: calls slot 1 of .text: no function"


def test_relocations_of_code_that_no_symbol_holds_are_skipped() -> None:
    loaded = load_object(
        write_elf([Sec("xdp", LEAF + CALL), rel(1, (16, 1, 10))], [Sym("main", 1)])
    )
    assert loaded.programs[0].insns == (MOV, Exit())


# --- hostile sizes -----------------------------------------------------------


def timed(data: bytes) -> tuple[Object | LoadError, float]:
    start = time.perf_counter()
    try:
        result: Object | LoadError = load_object(data)
    except LoadError as error:
        result = error
    return result, time.perf_counter() - start


def test_a_huge_bss_is_refused() -> None:
    data = write_elf([Sec(".bss", b"", NOBITS, WA, size=1 << 60)], [])
    assert message(data) == f".bss of {1 << 60} bytes is too large"


def test_sections_that_overlap_are_refused() -> None:
    data = bytearray(write_elf([Sec("xdp", LEAF * 50), Sec(".a", b"", flags=WA)], []))
    table = struct.unpack_from("<Q", data, 0x28)[0]
    struct.pack_into("<QQ", data, table + 2 * 64 + 24, 0, len(data))
    assert "overlaps others" in message(bytes(data))


def test_a_symbol_table_that_is_its_own_string_table() -> None:
    data = bytearray(GOOD)
    struct.pack_into("<I", data, header_of(4, 40), 4)
    result, seconds = timed(bytes(data))
    assert isinstance(result, Object)
    assert [program.name for program in result.programs] == [""]
    assert seconds < 1


def test_a_deep_chain_of_calls_links() -> None:
    depth = 5000
    chain = CALL * (depth - 1) + LEAF
    symbols = [Sym(f"f{number}", 1, 16 * number) for number in range(depth)]
    rows = [(16 * number, number + 2, 10) for number in range(depth - 1)]
    result, seconds = timed(
        write_elf(
            [Sec(".text", chain), Sec("xdp", CALL), rel(2, (0, 1, 10)), rel(1, *rows)],
            [*symbols, Sym("main", 2)],
        )
    )
    assert isinstance(result, Object)
    assert len(result.programs[0].subprograms) == depth + 1
    assert seconds < 3


def test_programs_that_multiply_are_refused() -> None:
    mains, length = 3000, 20_000
    text = code(*[MOV] * (length - 1), Exit())
    rows = [(16 * number, 1, 10) for number in range(mains)]
    programs = [Sym(f"p{number}", 2, 16 * number) for number in range(mains)]
    result, seconds = timed(
        write_elf(
            [Sec(".text", text), Sec("xdp", CALL * mains), rel(2, *rows)],
            [Sym("sub", 1, 0, len(text)), *programs],
        )
    )
    assert isinstance(result, LoadError)
    assert "its programs are too large together" in str(result)
    assert seconds < 10


def test_names_that_share_a_long_tail_are_refused() -> None:
    rows = b"".join(
        struct.pack("<IBBHQQ", at + 1, GLOBAL << 4 | FUNC, 0, 1, 0, 16) for at in range(1000)
    )
    many = bytearray(write_elf([Sec("xdp", LEAF), Sec(".pad", rows)], [Sym("x" * 100_000, 1)]))
    headers = struct.unpack_from("<Q", many, 0x28)[0]
    pad = struct.unpack_from("<Q", many, headers + 2 * 64 + 24)[0]
    struct.pack_into("<I", many, headers + 2 * 64 + 4, 0)  # .pad is no section any more
    struct.pack_into("<QQ", many, headers + 3 * 64 + 24, pad, len(rows))  # but the symbols
    result, seconds = timed(bytes(many))
    assert isinstance(result, LoadError)
    assert seconds < 2


# --- any change of bytes -----------------------------------------------------

SOURCE = r"""
typedef unsigned long u64;
#define SEC(name) __attribute__((section(name), used))
#define NOINLINE __attribute__((noinline))
int counter = 3; volatile const int table[4] = {1, 2, 3, 4}; int zero[4];
struct { int (*type)[1]; int (*max_entries)[8]; int *key; u64 *value; } hash SEC(".maps");
extern int kfunc(int) SEC(".ksyms");
static NOINLINE int sub(int a, int b, int c, int d, int e, int f) {
    return a + b + c + d + e + f + counter++ + table[a & 3];
}
NOINLINE int global(int a) { return sub(a, 1, 2, 3, 4, 5) + zero[a & 3]; }
SEC("syscall") int program(int *ctx) {
    void *(*lookup)(void *, void *) = (void *)1;
    return global(*ctx) + kfunc(2) + (lookup(&hash, ctx) != 0);
}
SEC("license") char terms[] = "GPL";
"""


@pytest.fixture(scope="session")
def real_object(clang: list[str], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("mutate")
    (folder / "a.c").write_text(SOURCE)
    command = [*clang, "-target", "bpf", "-g", "-O2", "-mcpu=v4", "-c", "a.c", "-o", "a.o"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return (folder / "a.o").read_bytes()


def attempt(action: Callable[[], Object | Program]) -> Object | Program | None:
    """Return what *action* returns, None if it raises a LoadError of one line."""
    fault = ""
    result = None
    try:
        result = action()
    except LoadError as error:
        fault = str(error)
    assert fault.isprintable()
    return result


def check_any(data: bytes) -> None:
    start = time.perf_counter()
    loaded = attempt(lambda: load_object(data, path="a.o", fill_names=True))
    if isinstance(loaded, Object):
        for program in loaded.programs:
            assert program.subprograms[-1].end == len(program.insns)
        for name in loaded.functions:
            attempt(partial(loaded.link, name))
        if loaded.btf is not None:
            validate(loaded.btf)
    assert time.perf_counter() - start < 2


WORDS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 1 << 31, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_change_of_bytes_is_an_object_or_an_error(
    real_object: bytes, data: st.DataObject
) -> None:
    changed = bytearray(real_object)
    table = struct.unpack_from("<Q", real_object, 0x28)[0]
    regions = st.sampled_from(((0, 64), (table, len(changed)), (64, table), (0, len(changed))))
    for _ in range(data.draw(st.integers(1, 5))):
        start, end = data.draw(regions)
        at = data.draw(st.integers(start, end - 1))
        width = data.draw(st.sampled_from((1, 2, 4, 8)))
        value = data.draw(st.sampled_from(WORDS) | st.integers(0, len(changed)))
        patch = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
        changed[at : at + width] = patch[: len(changed) - at]
    check_any(bytes(changed))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_part_of_an_object_is_an_object_or_an_error(
    real_object: bytes, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(real_object)))
    length = data.draw(st.integers(0, len(real_object)))
    check_any(real_object[:start] + real_object[start + length :])
    check_any(real_object[:start])


@given(st.binary(max_size=300))
def test_any_bytes_are_an_error(data: bytes) -> None:
    with pytest.raises(LoadError):
        load_object(data)
    with pytest.raises(LoadError):
        load_object(GOOD[:64] + data)
