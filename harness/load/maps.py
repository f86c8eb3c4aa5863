"""Maps: those that ``.maps`` defines in BTF, and those that hold an object's data.

A BTF definition is a struct of pointers that says everything in its types:
``int (*max_entries)[8]`` is the number 8, ``u32 *key`` a key of type u32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePath

from harness.btf import GLOBAL, STATIC, Array, Btf, DataSec, Enum, FuncProto, Ptr, Struct, Var
from harness.load.elf import NOBITS, PROGBITS, Elf, Part
from harness.load.errors import LoadError
from harness.load.fixups import KCONFIG, Extern
from harness.model import MapDef

MAPS, ARENA_DATA, JUMP_TABLES = ".maps", ".addr_space.1", ".jumptables"
MAX_BSS = 64 << 20  # bytes of zeros that are kept for an object
PAGE = 4096

# Map types                               enum bpf_map_type, include/uapi/linux/bpf.h
ARRAY, PROG_ARRAY, PERCPU_ARRAY = 2, 3, 6
ARRAY_OF_MAPS, HASH_OF_MAPS = 12, 13
RINGBUF, USER_RINGBUF, ARENA, INSN_ARRAY = 27, 31, 33, 34
# whose key and value types libbpf keeps from the kernel (bpf_object__create_map): perf event,
# cgroup, stack trace, of maps, devmap, sockmap, cpumap, xskmap, queue, stack, devmap hash, arena
WITHOUT_TYPES = frozenset({4, 7, 8, 12, 13, 14, 15, 16, 17, 18, 22, 23, 25, ARENA})

# Flags                                   include/uapi/linux/bpf.h
RDONLY_PROG, MMAPABLE = 1 << 7, 1 << 10


@dataclass(frozen=True, slots=True)
class PlacedMap:
    """A map and the ELF section and offset that references to it name."""

    map: MapDef
    section: int
    offset: int
    data: bool  # references are to its value, not to it
    section_name: str


def read_maps(elf: Elf, btf: Btf | None, externs: tuple[Extern, ...]) -> tuple[PlacedMap, ...]:
    """Return the maps of *elf* in libbpf's order (``bpf_object__init_maps``)."""
    maps = _defined_maps(elf, btf)
    sections: dict[str, int] = {}
    for type_id, kind in enumerate(btf.types if btf is not None else ()):
        if isinstance(kind, DataSec):
            sections.setdefault(kind.name, type_id)
    zeros = 0
    for part in elf.parts:
        if part.name in (ARENA_DATA, JUMP_TABLES) or part.executable or not part.size:
            continue
        data_kind = _data_kind(part)
        if data_kind is None:
            continue
        if part.type == NOBITS:
            zeros += part.size
            if zeros > MAX_BSS:
                raise LoadError(f"{elf.path}: {part.name} of {part.size} bytes is too large")
        maps.append(_data_map(elf, btf, part, data_kind, sections.get(part.name, 0)))
    options = [extern for extern in externs if extern.kconfig]
    if options:
        maps.append(_option_map(elf, btf, options))
    return tuple(maps)


def _option_map(elf: Elf, btf: Btf | None, options: list[Extern]) -> PlacedMap:
    """Return the map of the kernel's options, all of them unset."""
    size = max(option.offset + option.size for option in options)
    value = MapDef(
        name=data_map_name(elf.path, KCONFIG),
        type=ARRAY,
        key_size=4,
        value_size=size,
        max_entries=1,
        flags=RDONLY_PROG | MMAPABLE,
        data=bytes(min(size, MAX_BSS)),
        readonly=True,
        value_type=btf.find(KCONFIG, DataSec) or 0 if btf is not None else 0,
    )
    return PlacedMap(value, -1, 0, True, KCONFIG)


def _data_kind(part: Part) -> str | None:
    """Return what kind of data section *part* is, None if it is none."""
    for kind, section_type in (
        (".data", PROGBITS),
        (".rodata", PROGBITS),
        (".percpu", PROGBITS),
        (".bss", NOBITS),
    ):
        if part.type == section_type and (part.name == kind or part.name.startswith(kind + ".")):
            return kind
    return None


def _data_map(elf: Elf, btf: Btf | None, part: Part, kind: str, value_type: int) -> PlacedMap:
    """Return the one-element array that holds *part* (``bpf_object__init_internal_map``)."""
    readonly = kind == ".rodata"
    flags = RDONLY_PROG if readonly else 0
    if btf is not None and value_type and kind != ".percpu":
        section = btf.get(value_type)
        assert isinstance(section, DataSec)
        variables = (btf.get(row.type) for row in section.variables)
        if any(isinstance(v, Var) and v.linkage != STATIC for v in variables):
            flags |= MMAPABLE  # some variable is to be seen from outside
    value = MapDef(
        name=data_map_name(elf.path, part.name, kind == ".percpu"),
        type=PERCPU_ARRAY if kind == ".percpu" else ARRAY,
        key_size=4,
        value_size=part.size,
        max_entries=1,
        flags=flags,
        data=bytes(part.size) if part.type == NOBITS else part.data,
        readonly=readonly,
        value_type=value_type,
    )
    return PlacedMap(value, part.index, 0, True, part.name)


def data_map_name(path: str, section: str, percpu: bool = False) -> str:
    """Return the name that libbpf gives the map of *section* (``internal_map_name``).

    At most 15 characters: a prefix of the object's name where there is room, and never
    before a name of two dots.
    """
    stem = PurePath(path).name.partition(".")[0][:15]
    if "." in section[1:] or percpu:
        stem = ""
    suffix = section[:15]
    name = stem[: max(0, 15 - max(7, len(suffix)))] + suffix
    return "".join(c if (c.isascii() and c.isalnum()) or c in "_." else "_" for c in name)


def _defined_maps(elf: Elf, btf: Btf | None) -> list[PlacedMap]:
    """Return the maps of section .maps (``bpf_object__init_user_btf_maps``)."""
    part = elf.part(MAPS)
    if part is None:
        return _place_arena(elf, [])
    section_id = btf.find(MAPS, DataSec) if btf is not None else None
    if btf is None or section_id is None:
        raise LoadError(f"{elf.path}: section {MAPS} needs BTF, which is missing; compile with -g")
    section = btf.get(section_id)
    assert isinstance(section, DataSec)
    maps = []
    for row in section.variables:
        variable = btf.get(row.type)
        where = f"{elf.path}: map {variable.name}"
        if not isinstance(variable, Var) or not variable.name:
            raise LoadError(f"{where}: not a variable")
        if row.offset + row.size > part.size:
            raise LoadError(f"{where}: lies outside {MAPS}")
        if variable.linkage != GLOBAL:
            raise LoadError(f"{where}: a static map; libbpf takes global ones only")
        definition = btf.resolve(variable.type)
        if not isinstance(definition, Struct) or definition.size > row.size:
            raise LoadError(f"{where}: its definition is not a struct of its size")
        value = _define(where, variable.name, btf, definition)
        maps.append(PlacedMap(value, part.index, row.offset, False, MAPS))
    return _place_arena(elf, maps)


def _place_arena(elf: Elf, maps: list[PlacedMap]) -> list[PlacedMap]:
    """Give the one arena its global variables; they lie at its end."""
    data = elf.part(ARENA_DATA)
    arenas = [number for number, placed in enumerate(maps) if placed.map.type == ARENA]
    if len(arenas) > 1:
        raise LoadError(f"{elf.path}: more than one arena")
    if data is None or not data.size:
        return maps
    if not arenas:
        raise LoadError(f"{elf.path}: {ARENA_DATA} needs an arena in {MAPS}")
    number = arenas[0]
    placed = maps[number]
    if -(-data.size // PAGE) > placed.map.max_entries:
        raise LoadError(f"{elf.path}: arena {placed.map.name} is too small for {ARENA_DATA}")
    maps[number] = replace(placed, map=replace(placed.map, data=data.data))
    return maps


def arena_data_offset(arena: MapDef) -> int:
    """Return where in *arena* its global variables begin, in bytes."""
    return (arena.max_entries - -(-len(arena.data or b"") // PAGE)) * PAGE


def _define(where: str, name: str, btf: Btf, definition: Struct, inner: bool = False) -> MapDef:
    """Return the map that *definition* describes (``parse_btf_map_def``)."""
    numbers: dict[str, int] = {}
    types: dict[str, int] = {}
    inner_map = None

    def set_size(which: str, size: int) -> None:
        if numbers.get(which, size) not in (0, size):
            raise LoadError(f"{where}: two sizes of its {which.removesuffix('_size')}")
        numbers[which] = size

    for number, member in enumerate(definition.members):
        match member.name:
            case "type" | "max_entries" | "map_flags" | "numa_node":
                numbers[member.name] = _number(where, btf, member.name, member.type)
            case "key_size" | "value_size":
                set_size(member.name, _number(where, btf, member.name, member.type))
            case "key" | "value":
                pointer = btf.get(member.type)
                size = btf.size_of(pointer.type) if isinstance(pointer, Ptr) else None
                if not isinstance(pointer, Ptr) or size is None or size > 0xFFFFFFFF:
                    raise LoadError(f"{where}: its {member.name} is no pointer to a sized type")
                set_size(f"{member.name}_size", size)
                types[member.name] = pointer.type
            case "values":
                if inner or number != len(definition.members) - 1:
                    raise LoadError(f"{where}: values must come last, and inner maps have none")
                set_size("value_size", 4)
                inner_map = _values(where, name, btf, member.type, numbers.get("type", 0))
            case "pinning":
                if inner or _number(where, btf, member.name, member.type) > 1:
                    raise LoadError(f"{where}: its pinning is not valid")
            case "map_extra":
                numbers["map_extra"] = _long(where, btf, member.type)
            case unknown:
                raise LoadError(f"{where}: unknown field {unknown or '(none)'}")
    map_type = numbers.get("type", 0)
    if not map_type:
        raise LoadError(f"{where}: its type is not specified")
    if map_type in WITHOUT_TYPES:
        types = {}
    entries = numbers.get("max_entries", 0)
    return MapDef(
        name=name,
        type=map_type,
        key_size=numbers.get("key_size", 0),
        value_size=numbers.get("value_size", 0),
        max_entries=_ring_size(entries) if map_type in (RINGBUF, USER_RINGBUF) else entries,
        flags=numbers.get("map_flags", 0),
        readonly=bool(numbers.get("map_flags", 0) & RDONLY_PROG),
        key_type=types.get("key", 0),
        value_type=types.get("value", 0),
        extra=numbers.get("map_extra", 0),
        inner=inner_map,
    )


def _values(where: str, name: str, btf: Btf, type_id: int, map_type: int) -> MapDef | None:
    """Return the inner map that a ``values`` member describes; None in a program array."""
    array = btf.get(type_id)
    if map_type not in (ARRAY_OF_MAPS, HASH_OF_MAPS, PROG_ARRAY):
        raise LoadError(f"{where}: values are for maps of maps and program arrays")
    pointer = btf.resolve(array.type) if isinstance(array, Array) and not array.count else None
    target = btf.resolve(pointer.type) if isinstance(pointer, Ptr) else None
    if map_type == PROG_ARRAY:
        if not isinstance(target, FuncProto):
            raise LoadError(f"{where}: its values are no functions")
        return None
    if not isinstance(target, Struct) or target.union:
        raise LoadError(f"{where}: its values are no map definition")
    return _define(f"{where}.inner", f"{name}.inner", btf, target, inner=True)


def _number(where: str, btf: Btf, field: str, type_id: int) -> int:
    """Return the number that a pointer to an array of so many elements stands for."""
    pointer = btf.resolve(type_id)
    array = btf.get(pointer.type) if isinstance(pointer, Ptr) else None
    if not isinstance(array, Array):
        raise LoadError(f"{where}: its {field} is no pointer to an array (__uint)")
    return array.count


def _long(where: str, btf: Btf, type_id: int) -> int:
    """Return the number of a ``__uint`` or ``__ulong`` field."""
    kind = btf.resolve(type_id)
    if isinstance(kind, Enum) and len(kind.values) == 1:
        return kind.values[0].value & 0xFFFF_FFFF_FFFF_FFFF
    return _number(where, btf, "map_extra", type_id)


def _ring_size(entries: int) -> int:
    """Round *entries* up to pages, a power of two of them (``adjust_ringbuf_sz``)."""
    pages = entries // PAGE
    if entries == 0 or (entries % PAGE == 0 and pages & (pages - 1) == 0):
        return entries
    size = PAGE
    while size <= entries:
        size *= 2
    return size if size <= 0xFFFFFFFF else entries
