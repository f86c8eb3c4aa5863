"""Native code as text for people, through capstone (Intel syntax)."""

from __future__ import annotations

import capstone

from harness.model import SubImage


def disassemble(sub: SubImage) -> list[tuple[int, bytes, str]]:
    """Return offset, bytes and text of each instruction of *sub*.

    A field that a relocation fills is followed by its name in angle brackets; bytes
    that are no instruction read ``(bad)``, one at a time.
    """
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    fields = {field.offset: field for field in sub.relocations}
    lines = []
    at = 0
    while at < len(sub.code):
        for _, size, mnemonic, operands in engine.disasm_lite(sub.code[at:], at):
            text = f"{mnemonic} {operands}".rstrip()
            for inside in range(at, at + size):
                if inside in fields:
                    field = fields[inside]
                    more = f"+{field.addend}" if field.addend else ""
                    text += f" <{field.kind} {field.target}{more}>"
            lines.append((at, sub.code[at : at + size], text))
            at += size
        if at < len(sub.code):
            lines.append((at, sub.code[at : at + 1], "(bad)"))
            at += 1
    return lines
