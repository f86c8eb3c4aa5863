"""What libbpf changes in an object's BTF before the kernel sees it.

The compiler does not know where variables land in their sections, and the kernel takes
no extern declarations: section sizes and offsets come from ELF, externs turn into
allocated variables, functions of hidden visibility become static.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from harness.btf import (
    EXTERN,
    GLOBAL,
    STATIC,
    Array,
    Btf,
    BtfType,
    DataSec,
    Enum,
    Func,
    FuncProto,
    Int,
    Param,
    SecInfo,
    Var,
)
from harness.load.elf import GLOBAL as BIND_GLOBAL
from harness.load.elf import OBJECT, WEAK, Elf, Symbol
from harness.load.errors import LoadError

KSYMS, KCONFIG = ".ksyms", ".kconfig"


@dataclass(frozen=True, slots=True)
class Extern:
    """Something that the kernel defines."""

    symbol: int  # index of its ELF symbol
    name: str
    kconfig: bool  # a kernel option; else a kernel symbol
    function: bool  # a kfunc
    weak: bool
    offset: int = 0  # bytes, in .kconfig
    size: int = 0  # bytes, in .kconfig
    number: int = 0  # in libbpf's order


def collect_externs(elf: Elf, btf: Btf | None) -> tuple[Btf | None, tuple[Extern, ...]]:
    """Return the externs of *elf*, and *btf* with all of them allocated.

    Mirrors ``bpf_object__collect_externs``.
    """
    symbols = [symbol for symbol in elf.symbols if symbol.extern and symbol.name]
    if btf is not None:
        btf, dummy = _add_dummy(btf)
    if not symbols:
        return btf, ()
    if btf is None:
        raise LoadError(
            f"{elf.path}: extern {symbols[0].name} needs BTF, which is missing or damaged; "
            "compile with -g"
        )
    first: dict[str, int] = {}
    sections: dict[int, str] = {}
    for type_id, kind in enumerate(btf.types):
        if isinstance(kind, Var | Func):
            first.setdefault(kind.name, type_id)
        elif isinstance(kind, DataSec):
            for variable in kind.variables:
                sections.setdefault(variable.type, kind.name)
    found = []
    for symbol in symbols:
        type_id = first.get(symbol.name, 0)
        kind = btf.types[type_id]
        if not isinstance(kind, Var | Func) or kind.linkage != EXTERN:
            raise LoadError(f"{elf.path}: extern {symbol.name} is not declared in BTF")
        section = sections.get(type_id)
        if section not in (KSYMS, KCONFIG):
            raise LoadError(
                f"{elf.path}: extern {symbol.name} is in section {section or '(none)'}; "
                f"the kernel defines externs of {KSYMS} and {KCONFIG} only"
            )
        extern = Extern(
            symbol.index,
            symbol.name,
            section == KCONFIG,
            isinstance(kind, Func),
            symbol.bind == WEAK,
        )
        if extern.kconfig:
            size = btf.size_of(kind.type)
            if extern.function or not size or not _is_option(btf, kind.type):
                raise LoadError(
                    f"{elf.path}: extern {symbol.name}: its type is none of a kernel option"
                )
            extern = replace(extern, size=size)
        found.append(extern)
    externs = tuple(
        replace(extern, number=number) for number, extern in enumerate(_place(btf, found, first))
    )
    return _allocate(elf, btf, externs, dummy), externs


def _is_option(btf: Btf, type_id: int) -> bool:
    """Return whether a kernel option can have type *type_id* (``find_kcfg_type``)."""
    match btf.resolve(type_id):
        case Int(size=size) as number:
            return size == 1 if number.bool else size in (1, 2, 4, 8)
        case Enum(name="libbpf_tristate", size=size, wide=wide):
            return wide or size == 4
        case Array(type=element, count=count):
            inner = btf.resolve(element)
            return count > 0 and isinstance(inner, Int) and inner.size == 1 and not inner.bool
    return False


def _place(btf: Btf, externs: Iterable[Extern], first: dict[str, int]) -> tuple[Extern, ...]:
    """Order *externs* as libbpf does and lay the options out: widest alignment first."""

    def align(extern: Extern) -> int:
        kind = btf.types[first[extern.name]]
        assert isinstance(kind, Var)
        return min(8, btf.align_of(kind.type))  # libbpf knows no wider one

    def order(extern: Extern) -> tuple[int, int, int, str]:
        if not extern.kconfig:
            return (1, 0, 0, extern.name)
        return (0, -align(extern), extern.size, extern.name)

    placed, offset = [], 0
    for extern in sorted(externs, key=order):
        if extern.kconfig:
            offset = -(-offset // align(extern)) * align(extern)
            placed.append(replace(extern, offset=offset))
            offset += extern.size
        else:
            placed.append(extern)
    return tuple(placed)


def _int32(btf: Btf) -> int:
    """Return the id of the first 32-bit integer (``find_int_btf_id``)."""
    for type_id, kind in enumerate(btf.types):
        if isinstance(kind, Int) and kind.bits == 32:
            return type_id
    return 0


def _add_dummy(btf: Btf) -> tuple[Btf, int]:
    """Add the variable that stands for the kfuncs in .ksyms, if there are any."""
    section_id = btf.find(KSYMS, DataSec)
    section = btf.get(section_id) if section_id else None
    if not isinstance(section, DataSec) or not any(
        isinstance(btf.get(variable.type), Func) for variable in section.variables
    ):
        return btf, 0
    dummy = Var("dummy_ksym", _int32(btf), GLOBAL)
    return replace(btf, types=(*btf.types, dummy)), len(btf.types)


def _allocate(elf: Elf, btf: Btf, externs: tuple[Extern, ...], dummy: int) -> Btf:
    """Turn extern variables and functions of *btf* into allocated ones."""
    types = list(btf.types)
    int32 = _int32(btf)
    by_name = {extern.name: extern for extern in externs}
    kinds = {extern.kconfig for extern in externs}
    for section_id, section in enumerate(btf.types):
        if not isinstance(section, DataSec) or section.name not in (KSYMS, KCONFIG):
            continue
        if (section.name == KCONFIG) not in kinds:
            continue
        rows, end = [], 0
        for number, row in enumerate(section.variables):
            kind = types[row.type]
            extern = by_name.get(kind.name)
            if extern is None or not isinstance(kind, Var | Func):
                raise LoadError(f"{elf.path}: {section.name} declares {kind.name}, no symbol does")
            if extern.kconfig:
                types[row.type] = replace(kind, linkage=GLOBAL)
                rows.append(SecInfo(row.type, extern.offset, row.size))
                end = max(end, extern.offset + extern.size)
                continue
            if isinstance(kind, Func):
                _name_params(types, kind.type)
                types[row.type] = replace(kind, linkage=GLOBAL)
                rows.append(SecInfo(dummy, 4 * number, 4))
            else:
                types[row.type] = replace(kind, linkage=GLOBAL, type=int32)
                rows.append(SecInfo(row.type, 4 * number, 4))
            end = 4 * number + 4
        types[section_id] = replace(section, size=end, variables=tuple(rows))
    return replace(btf, types=tuple(types))


def _name_params(types: list[BtfType], proto_id: int) -> None:
    proto = types[proto_id]
    if isinstance(proto, FuncProto):
        params = tuple(
            Param("dummy_ksym", param.type) if param.type and not param.name else param
            for param in proto.params
        )
        types[proto_id] = replace(proto, params=params)


def place_variables(elf: Elf, btf: Btf) -> Btf:
    """Fill in sizes and offsets of data sections from ELF (``btf_fixup_datasec``)."""
    types = list(btf.types)
    symbols: dict[str, Symbol] = {}
    for symbol in elf.symbols:
        if symbol.type == OBJECT and symbol.bind in (BIND_GLOBAL, WEAK):
            symbols.setdefault(symbol.name, symbol)
    for section_id, section in enumerate(btf.types):
        if not isinstance(section, DataSec):
            continue
        rows = list(section.variables)
        size = section.size
        if section.name not in (KSYMS, KCONFIG):
            if not size:
                part = elf.part(section.name)
                size = part.size if part is not None else 0
                if not size or size > 0xFFFFFFFF:
                    raise LoadError(f"{elf.path}: BTF names data section {section.name}: no size")
            for number, row in enumerate(rows):
                variable = types[row.type]
                if not isinstance(variable, Var):
                    raise LoadError(
                        f"{elf.path}: data section {section.name} of the BTF holds what is "
                        "no variable"
                    )
                if variable.linkage in (STATIC, EXTERN):
                    continue
                at = symbols.get(variable.name)
                if at is None:
                    raise LoadError(
                        f"{elf.path}: {section.name}: no symbol for variable {variable.name}"
                    )
                if not section.size:
                    rows[number] = replace(row, offset=at.value & 0xFFFFFFFF)
                if at.hidden:
                    types[row.type] = replace(variable, linkage=STATIC)
        rows.sort(key=lambda row: row.offset)
        types[section_id] = replace(section, size=size, variables=tuple(rows))
    return replace(btf, types=tuple(types))


def make_static(btf: Btf, names: Iterable[str]) -> Btf:
    """Give the global functions called *names* static linkage (``mark_btf_static``)."""
    wanted = set(names)
    types = list(btf.types)
    for type_id, kind in enumerate(types):
        if isinstance(kind, Func) and kind.linkage == GLOBAL and kind.name in wanted:
            wanted.discard(kind.name)  # libbpf takes the first
            types[type_id] = replace(kind, linkage=STATIC)
    return replace(btf, types=tuple(types))
