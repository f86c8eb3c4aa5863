"""From agent.c to a static program and an initramfs, with no more than a compiler.

The agent is freestanding: any compiler of C for x86-64 makes its object, the clang that
was fetched for BPF too, which comes without linker, C library and headers. What a linker
has left to do is little: lay out the sections and fill in a handful of relocations
(System V ABI, AMD64 supplement, 4.4.1).
"""

from __future__ import annotations

import io
import platform
import shutil
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

from harness.model import HarnessError
from harness.toolchain import Compiler, run_compiler

SOURCE = Path(__file__).with_name("agent.c")
FLAGS = (
    *("-O2", "-g0", "-ffreestanding", "-fno-pic", "-fno-stack-protector", "-fcf-protection=none"),
    *("-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-mno-sse", "-mno-red-zone", "-c"),
)
BASE = 0x40_0000  # address the program is linked at
PAGE = 4096
ALLOC = 2  # SHF_ALLOC

# Relocation types: the size of the field, and whether it counts from its own place
R_64, R_PC32, R_PLT32, R_32, R_32S = 1, 2, 4, 10, 11
_FIELDS = {R_64: (8, False), R_PC32: (4, True), R_PLT32: (4, True), R_32: (4, False)}
_FIELDS[R_32S] = (4, False)


def build_agent(compilers: Iterable[Compiler] = ()) -> bytes:
    """Return the agent as a static ELF program, compiled by the first of *compilers* that can.

    The machine's own ``cc`` and ``gcc`` are tried after them. Raises HarnessError where
    none can.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        raise HarnessError(f"the leg `kernel` is for x86-64 machines, not {platform.machine()}")
    why = "no compiler"
    own = [path for name in ("cc", "gcc") if (path := shutil.which(name))]
    tried = [
        *compilers,
        *(Compiler((path,), path, "unknown", False, "path") for path in dict.fromkeys(own)),
    ]
    for compiler in tried:
        target = () if compiler.source == "path" and compiler.name in own else TARGET
        result = run_compiler(compiler, [*target, *FLAGS], source=SOURCE)
        if result.output is not None:
            return link(result.output)
        why = f"{compiler}: {result.why}"
    raise HarnessError(
        f"cannot compile the agent of the leg `kernel` ({why}): it takes a clang with the "
        "X86 target, or gcc"
    )


TARGET = ("--target=x86_64-linux-gnu",)


def link(data: bytes) -> bytes:
    """Return the object *data* as a static program that starts at ``_start``."""
    try:
        return _link(ELFFile(io.BytesIO(data)))
    except (ELFError, struct.error, KeyError) as error:
        raise HarnessError(f"cannot link the agent: {error!r}") from None


def _link(elf: ELFFile) -> bytes:
    sections = list(elf.iter_sections())
    header = 64 + 56  # ELF header, one program header
    image = bytearray(header)
    addresses: dict[int, int] = {}
    # sections with contents first, so that those of zeros need none
    order = sorted(range(len(sections)), key=lambda n: sections[n]["sh_type"] == "SHT_NOBITS")
    end = header
    for number in order:
        section = sections[number]
        if not section["sh_flags"] & ALLOC:
            continue
        align = max(section["sh_addralign"], 1)
        end = -(-end // align) * align
        addresses[number] = BASE + end
        if section["sh_type"] != "SHT_NOBITS":
            image += bytes(end - len(image)) + section.data()
        end += section["sh_size"]
    symbols = elf.get_section_by_name(".symtab")
    if not isinstance(symbols, SymbolTableSection):
        raise HarnessError("cannot link the agent: the object has no symbols")

    def address(index: int) -> int:
        symbol = symbols.get_symbol(index)
        place = symbol["st_shndx"]
        if place == "SHN_ABS":
            return int(symbol["st_value"])
        if place not in addresses:
            raise HarnessError(f"cannot link the agent: {symbol.name or place} is not defined")
        return addresses[place] + int(symbol["st_value"])

    for section in sections:
        if not isinstance(section, RelocationSection) or section["sh_info"] not in addresses:
            continue
        base = addresses[section["sh_info"]]
        for entry in section.iter_relocations():
            size, relative = _FIELDS[entry["r_info_type"]]
            place = base + entry["r_offset"]
            value = address(entry["r_info_sym"]) + entry["r_addend"] - (place if relative else 0)
            at = place - BASE
            image[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    start = next(
        address(index)
        for index, symbol in enumerate(symbols.iter_symbols())
        if symbol.name == "_start"
    )
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    # type EXEC, machine x86-64, version 1; one program header: LOAD, read, write, execute
    struct.pack_into(
        "<16sHHIQQQIHHHHHH", image, 0, ident, 2, 62, 1, start, 64, 0, 0, 64, 56, 1, 64, 0, 0
    )
    struct.pack_into("<IIQQQQQQ", image, 64, 1, 7, 0, BASE, BASE, len(image), end, PAGE)
    return bytes(image)


def initramfs(files: Mapping[str, bytes]) -> bytes:
    """Return a cpio archive of *files*, all executable (initramfs: buffer format, "newc")."""
    out = bytearray()
    entries = [*((name, 0o100755, data) for name, data in files.items()), ("TRAILER!!!", 0, b"")]
    for number, (name, mode, data) in enumerate(entries, 1):
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % field for field in fields)
        out += name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)
