"""The x86-64 code the compiler itself makes of a function, with the C line of each instruction."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import capstone
from elftools.common.exceptions import DWARFError, ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from harness.pipeline import Plan
from harness.source import driver
from harness.toolchain import Compiler, run_compiler


@dataclass(frozen=True, slots=True)
class NativeLine:
    """One instruction."""

    offset: int  # bytes from the start of the function
    text: str
    line: int | None  # of the C


def native_text(planned: Plan, compiler: Compiler, function: str) -> tuple[NativeLine, ...]:
    """Return *function*'s x86-64 code at -O2, empty where there is none."""
    text = driver.translation_unit(planned.c, planned.layouts)
    plain = [a for a in driver.native_args() if a not in ("-S", "-emit-llvm", "-g0")]
    arguments = [a for a in plain if a not in ("-Xclang", "-disable-llvm-passes")]
    result = run_compiler(compiler, [*arguments, "-gline-tables-only", "-c"], source=text)
    if result.output is None:
        return ()
    try:
        return _read(result.output, function)
    except (ELFError, DWARFError, ValueError, KeyError, AttributeError):
        return ()


def _read(data: bytes, function: str) -> tuple[NativeLine, ...]:
    file = ELFFile(BytesIO(data))
    table = file.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        return ()
    symbols = table.get_symbol_by_name(function)
    if not symbols:
        return ()
    symbol = symbols[0]
    start, size = symbol["st_value"], symbol["st_size"]
    section = file.get_section(symbol["st_shndx"])
    code = section.data()[start : start + size]
    lines = _lines(file)
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    found = []
    for at, _, mnemonic, operands in engine.disasm_lite(code, start):
        below = [address for address in lines if address <= at]
        line = lines[max(below)] if below and section.name == ".text" else None
        found.append(NativeLine(at - start, f"{mnemonic} {operands}".rstrip(), line))
    return tuple(found)


def _lines(file: ELFFile) -> dict[int, int]:
    """Return address in .text: line of the C."""
    found: dict[int, int] = {}
    if not file.has_dwarf_info():
        return found
    info = file.get_dwarf_info()
    for unit in info.iter_CUs():
        program = info.line_program_for_CU(unit)
        if program is None:
            continue
        for entry in program.get_entries():
            if entry.state is not None and not entry.state.end_sequence:
                found[entry.state.address] = entry.state.line
    return found
