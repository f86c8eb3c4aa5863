"""BTF: the type information of BPF objects, as values, and its binary form.

After Documentation/bpf/btf.rst of Linux 7.3. Type id 0 is void; every other id is
an index into ``Btf.types``.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

# Linkage of a function                   btf.rst, 2.2.12
STATIC, GLOBAL, EXTERN = range(3)
LINKAGES = ("static", "global", "extern")


@dataclass(frozen=True, slots=True)
class Void:
    """Type id 0."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class Int:
    """An integer, a character or a boolean."""

    name: str
    size: int  # bytes
    encoding: int = 0  # 1 signed, 2 char, 4 bool
    bit_offset: int = 0
    bits: int = 0  # value bits

    @property
    def signed(self) -> bool:
        """Return whether values are signed."""
        return bool(self.encoding & 1)

    @property
    def bool(self) -> bool:
        """Return whether it is a boolean."""
        return bool(self.encoding & 4)


@dataclass(frozen=True, slots=True)
class Ptr:
    """A pointer; *name* is empty in any valid BTF, as for every unnamed kind below."""

    type: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Array:
    """An array; BTF keeps one dimension a type."""

    type: int
    index_type: int
    count: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a struct or union."""

    name: str
    type: int
    bit_offset: int  # from the start of the struct
    bitfield_size: int = 0  # bits, 0: not a bit-field


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct, or a union (``union``)."""

    name: str
    size: int  # bytes
    members: tuple[Member, ...]
    union: bool = False
    kind_flag: bool = False


@dataclass(frozen=True, slots=True)
class Enumerator:
    """One value of an enum."""

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class Enum:
    """An enum of 32 bits (ENUM) or 64 bits (ENUM64, ``wide``)."""

    name: str
    size: int  # bytes
    values: tuple[Enumerator, ...]
    signed: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Fwd:
    """A forward declaration of a struct or union."""

    name: str
    union: bool = False


@dataclass(frozen=True, slots=True)
class Typedef:
    """A typedef."""

    name: str
    type: int


@dataclass(frozen=True, slots=True)
class Modifier:
    """``const``, ``volatile``, ``restrict`` or ``type_tag`` (which has a name)."""

    kind: str
    type: int
    name: str = ""
    kind_flag: bool = False


@dataclass(frozen=True, slots=True)
class Func:
    """A function: its name, prototype and linkage."""

    name: str
    type: int  # id of a FuncProto
    linkage: int = STATIC


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of a prototype."""

    name: str
    type: int  # 0 in the last place: variadic


@dataclass(frozen=True, slots=True)
class FuncProto:
    """A function prototype."""

    returns: int
    params: tuple[Param, ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Var:
    """A global variable."""

    name: str
    type: int
    linkage: int = STATIC


@dataclass(frozen=True, slots=True)
class SecInfo:
    """Where a variable lies in its section."""

    type: int
    offset: int  # bytes
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class DataSec:
    """An ELF section of variables (or of extern functions)."""

    name: str
    size: int  # bytes
    variables: tuple[SecInfo, ...]


@dataclass(frozen=True, slots=True)
class Float:
    """A floating-point type."""

    name: str
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class DeclTag:
    """A declaration tag, or with *kind_flag* an attribute, of *type*."""

    name: str
    type: int
    component: int  # parameter or member, -1: the declaration itself
    kind_flag: bool = False


BtfType = (
    Void
    | Int
    | Ptr
    | Array
    | Struct
    | Enum
    | Fwd
    | Typedef
    | Modifier
    | Func
    | FuncProto
    | Var
    | DataSec
    | Float
    | DeclTag
)


def essential(name: str) -> str:
    """Return *name* without its flavour, ``___`` and what follows.

    ``bpf_core_essential_name_len``.
    """
    for at in range(len(name) - 5, -1, -1):
        if _FLAVOUR.match(name, at):
            return name[: at + 1]
    return name


_FLAVOUR = re.compile(r"[^_]___[^_]")
MAX_DEPTH = 32  # types behind one another that are followed; the kernel's limit (MAX_RESOLVE_DEPTH)
PTR_SIZE = 8  # bytes


class BtfError(ValueError):
    """Bytes that are no BTF; the message says what is wrong with them."""


@dataclass(frozen=True)
class Btf:
    """All types of an object; ``types[0]`` is ``Void()``."""

    types: tuple[BtfType, ...]
    # What the binary form holds and the values cannot say: (type id, vlen and kind_flag
    # where the kind has no use for them, other bits that must be 0). Valid BTF has none.
    stray: tuple[tuple[int, int, int], ...] = field(default=(), repr=False)

    def __getitem__(self, type_id: int) -> BtfType:
        return self.types[type_id]

    def __len__(self) -> int:
        return len(self.types)

    def get(self, type_id: int) -> BtfType:
        """Return the type *type_id*, ``Void()`` if there is none."""
        return self.types[type_id] if 0 <= type_id < len(self.types) else Void()

    def resolve(self, type_id: int) -> BtfType:
        """Return the type behind typedefs and modifiers (``btf_type_skip_modifiers``)."""
        kind = self.get(type_id)
        for _ in range(len(self.types)):
            if not isinstance(kind, Typedef | Modifier):
                return kind
            kind = self.get(kind.type)
        return Void()  # a cycle, which the loader refuses

    def prototype(self, func_id: int) -> FuncProto | None:
        """Return the prototype of the Func *func_id*, None if there is none."""
        func = self.get(func_id)
        if not isinstance(func, Func):
            return None
        proto = self.get(func.type)
        return proto if isinstance(proto, FuncProto) else None

    def tags(self, type_id: int) -> Sequence[DeclTag]:
        """Return the declaration tags of the type *type_id*, in order."""
        return self._tags.get(type_id, ())

    @functools.cached_property
    def _tags(self) -> dict[int, list[DeclTag]]:
        found: dict[int, list[DeclTag]] = {}
        for kind in self.types:
            if isinstance(kind, DeclTag):
                found.setdefault(kind.type, []).append(kind)
        return found

    def flavours(self, name: str) -> list[int]:
        """Return the ids of all types called *name*, their flavours aside, in order."""
        return [number for number, kind in enumerate(self.types) if essential(kind.name) == name]

    def functions(self) -> Iterator[tuple[int, Func, FuncProto]]:
        """Yield every function that has a prototype: type id, function, prototype."""
        for type_id, kind in enumerate(self.types):
            if isinstance(kind, Func):
                proto = self.get(kind.type)
                if isinstance(proto, FuncProto):
                    yield type_id, kind, proto

    def find(self, name: str, kind: type) -> int | None:
        """Return the id of the first type of class *kind* that is called *name*."""
        for type_id, value in enumerate(self.types):
            if isinstance(value, kind) and value.name == name:
                return type_id
        return None

    def size_of(self, type_id: int) -> int | None:
        """Return the size in bytes of *type_id*, None if it has none (``btf__resolve_size``)."""
        count = 1
        for _ in range(MAX_DEPTH):
            match self.get(type_id):
                case Int(size=size) | Struct(size=size) | Enum(size=size) | Float(size=size):
                    return count * size
                case DataSec(size=size):
                    return count * size
                case Ptr():
                    return count * PTR_SIZE
                case Typedef(type=next_id) | Modifier(type=next_id):
                    type_id = next_id
                case Var(type=next_id) | DeclTag(type=next_id):
                    type_id = next_id
                case Array(type=next_id, count=elements):
                    count *= elements
                    type_id = next_id
                case _:
                    return None
        return None

    def align_of(self, type_id: int) -> int:
        """Return the alignment in bytes of *type_id* by C's rules; 1 where it has none.

        A struct whose members are not where C would put them is packed, as libbpf
        infers it (``btf__align_of``); ``_Alignas`` leaves no trace in BTF.
        """
        return self._align(type_id, 0, [0])

    def _align(self, type_id: int, depth: int, work: list[int]) -> int:
        work[0] += 1
        if depth > MAX_DEPTH or work[0] > 10_000:  # shared members of hostile BTF multiply
            return 1
        match self.get(type_id):
            case Int(size=size) | Enum(size=size) | Float(size=size):
                return size if size in (1, 2, 4, 8, 16) else 1
            case Ptr():
                return PTR_SIZE
            case Typedef(type=next_id) | Modifier(type=next_id) | Array(type=next_id):
                return self._align(next_id, depth + 1, work)
            case Var(type=next_id) | DeclTag(type=next_id):
                return self._align(next_id, depth + 1, work)
            case Struct(members=members, size=size):
                widest = 1
                for member in members:
                    align = self._align(member.type, depth + 1, work)
                    widest = max(widest, align)
                    if not member.bitfield_size and member.bit_offset % (8 * align):
                        return 1
                return 1 if size % widest else widest
        return 1

    def c_name(self, type_id: int) -> str:
        """Return *type_id* in C syntax: ``unsigned int``, ``struct pair *``, ``int[4]``."""
        return self.declare(type_id, "")

    def declare(self, type_id: int, name: str) -> str:
        """Return a C declaration of *name* with type *type_id*: ``int (*name)[4]``."""
        return self._declare(type_id, name, [200])

    def _declare(self, type_id: int, text: str, budget: list[int]) -> str:
        # inside out: *text* is what stands around the name so far
        pointer, qualifiers = False, ""
        while budget[0]:
            budget[0] -= 1  # types to go through: prototypes may take themselves
            kind = self.get(type_id)
            match kind:
                case Modifier(kind="type_tag"):
                    type_id = kind.type
                case Modifier():
                    qualifiers, type_id = f"{qualifiers}{kind.kind} ", kind.type
                case Ptr():
                    text, pointer, qualifiers = f"*{qualifiers}{text}".rstrip(), True, ""
                    type_id = kind.type
                case Array():
                    text, pointer = f"{f'({text})' if pointer else text}[{kind.count}]", False
                    type_id = kind.type
                case FuncProto():
                    params = (
                        self._declare(param.type, "", budget) if param.type else "..."
                        for param in kind.params
                    )
                    inner = ", ".join(params) or "void"
                    text, pointer = f"{f'({text})' if pointer else text}({inner})", False
                    type_id, qualifiers = kind.returns, ""
                case _:
                    gap = "" if not text or text.startswith("[") else " "
                    return f"{qualifiers}{_c_base(kind)}{gap}{text}"
        return "(too deep)"


def _c_base(kind: BtfType) -> str:
    match kind:
        case Void():
            return "void"
        case Struct(name=name, union=union) | Fwd(name=name, union=union):
            return f"{'union' if union else 'struct'} {name or '(anon)'}"
        case Enum(name=name):
            return f"enum {name or '(anon)'}"
        case _:
            return kind.name or "(anon)"


def fill_parameter_names(btf: Btf) -> Btf:
    """Return *btf* with a name (``arg1``, ``arg2``, ...) for each nameless parameter.

    clang leaves them nameless at -O0 and in prototypes that it takes from declarations,
    and the kernel refuses such BTF. A prototype that no function has needs no names.
    """
    types = list(btf.types)
    for type_id in {func.type for _, func, _ in btf.functions()}:
        proto = types[type_id]
        if isinstance(proto, FuncProto) and not all(param.name for param in proto.params):
            params = tuple(
                replace(param, name=f"arg{number}") if not param.name and param.type else param
                for number, param in enumerate(proto.params, 1)
            )
            types[type_id] = replace(proto, params=params)
    return replace(btf, types=tuple(types))


# --- the binary form: reading -----------------------------------------------

MAGIC = 0xEB9F
MAX_TYPE = 0xFFFFF  # BTF_MAX_TYPE
MAX_VLEN = 0xFFFFFF
_HEADER = struct.Struct("<HBBIIIII")
_LAYOUT = struct.Struct("<II")  # Linux 7.3 adds them to the header
_TYPE = struct.Struct("<III")  # name, info, size or type
_WORD, _PAIR, _TRIPLE = struct.Struct("<I"), struct.Struct("<II"), struct.Struct("<III")
_INT_UNUSED = 0xFF00  # bits of an INT's word that mean nothing
_ENUM, _COMPONENT = struct.Struct("<Ii"), struct.Struct("<i")

# fmt: off
# Kinds                                   include/uapi/linux/btf.h, Linux 7.3
(INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC,
 FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64) = range(1, 20)
MODIFIERS = {VOLATILE: "volatile", CONST: "const", RESTRICT: "restrict", TYPE_TAG: "type_tag"}

# What follows the twelve bytes of a type: once, and for each of its vlen elements
_FOLLOWS = {
    INT: (4, 0), ARRAY: (12, 0), VAR: (4, 0), DECL_TAG: (4, 0),
    STRUCT: (0, 12), UNION: (0, 12), ENUM: (0, 8), ENUM64: (0, 12),
    FUNC_PROTO: (0, 8), DATASEC: (0, 12),
}
_HAS_VLEN = {STRUCT, UNION, ENUM, ENUM64, FUNC_PROTO, DATASEC, FUNC}
_HAS_FLAG = {STRUCT, UNION, ENUM, ENUM64, FWD, DECL_TAG, TYPE_TAG}
# fmt: on


def strings_of(data: bytes) -> Callable[[int], str]:
    """Return a function from string offset to string of the BTF in *data*.

    BTF.ext names files and source lines with it. It raises ``BtfError`` for an offset
    outside; bytes that are no UTF-8 come back as escapes.
    """
    return _Strings(sections(data)[1]).__getitem__


class _Strings(dict[int, str]):
    """A string section by offset, which decodes each string once."""

    def __init__(self, section: bytes) -> None:
        super().__init__()
        self._section = section
        self._budget = 16 * len(section) + 4096  # hostile strings share one long tail

    def __missing__(self, offset: int) -> str:
        if offset >= len(self._section):
            raise BtfError(f"string offset {offset} is beyond the string section")
        text = self._section[offset : self._section.index(0, offset)]
        self._budget -= len(text)
        if self._budget < 0:
            raise BtfError("strings overlap")
        name = self[offset] = text.decode("utf-8", "backslashreplace")
        return name


def strings_in(section: bytes) -> Callable[[int], str]:
    """Return a function from offset to string of the string section *section*."""
    return _Strings(section).__getitem__


def follows(kind: int) -> tuple[int, int]:
    """Return how many bytes follow the twelve of a type: once, and for each element."""
    return _FOLLOWS.get(kind, (0, 0))


def sections(data: bytes) -> tuple[bytes, bytes]:
    """Return the type section and the string section of *data*."""
    if len(data) < _HEADER.size:
        raise BtfError(f"{len(data)} bytes are less than a header")
    magic, version, _, header, type_off, type_len, str_off, str_len = _HEADER.unpack_from(data)
    if magic == 0x9FEB:
        raise BtfError("big-endian BTF is not read")
    if magic != MAGIC:
        raise BtfError(f"magic 0x{magic:04x} is not 0x{MAGIC:04x}")
    if version != 1:
        raise BtfError(f"version {version} is not 1")
    if not _HEADER.size <= header <= len(data):
        raise BtfError(f"header length {header} does not fit in {len(data)} bytes")
    left = len(data) - header
    if str_off + str_len > left or type_off + type_len > str_off:
        raise BtfError("a section lies outside, or types lie behind strings")
    if type_off % 4:
        raise BtfError("types are not aligned to 4 bytes")
    strings = data[header + str_off : header + str_off + str_len]
    if not strings or strings[0] or strings[-1]:
        raise BtfError("strings do not begin and end with a zero byte")
    return data[header + type_off : header + type_off + type_len], strings


def parse(data: bytes) -> Btf:
    """Return the types in *data*, the contents of a .BTF section; ``BtfError`` if it is none.

    What it checks is what reading needs (``btf__new`` of libbpf): sizes, kinds, strings
    and that type ids are in range. Whether the kernel takes the types is another
    question: ``btf_check.validate``.
    """
    section, strings = sections(data)
    read = _Strings(strings).__getitem__
    types: list[BtfType] = [Void()]
    stray: list[tuple[int, int, int]] = []
    offset, end = 0, len(section)
    while offset < end:
        if end - offset < _TYPE.size:
            raise BtfError(f"type {len(types)} is cut short")
        name_off, info, word = _TYPE.unpack_from(section, offset)
        kind, vlen, flag = info >> 24 & 0x7F, info & MAX_VLEN, bool(info >> 31)
        if not INT <= kind <= ENUM64:
            raise BtfError(f"type {len(types)} has unknown kind {kind}")
        once, each = _FOLLOWS.get(kind, (0, 0))
        offset += _TYPE.size
        if offset + once + each * vlen > end:
            raise BtfError(f"type {len(types)} is cut short")
        body = section[offset : offset + once + each * vlen]
        offset += len(body)
        odd_info = (0 if kind in _HAS_VLEN else vlen) | (0 if kind in _HAS_FLAG else info & 1 << 31)
        odd_word = word if kind in (ARRAY, FWD) else 0
        if kind == INT:
            odd_word = _WORD.unpack(body)[0] & _INT_UNUSED
        if odd_info or odd_word:
            stray.append((len(types), odd_info, odd_word))
        if len(types) > MAX_TYPE:
            raise BtfError("too many types")
        types.append(_type(kind, read(name_off), vlen, flag, word, body, read))
    _check_ids(types)
    return Btf(tuple(types), tuple(stray))


def read_type(section: bytes, offset: int, read: Callable[[int], str]) -> BtfType:
    """Return the type at *offset* of a type section that is known to be whole."""
    name_off, info, word = _TYPE.unpack_from(section, offset)
    kind, vlen = info >> 24 & 0x7F, info & MAX_VLEN
    once, each = _FOLLOWS.get(kind, (0, 0))
    start = offset + _TYPE.size
    body = section[start : start + once + each * vlen]
    return _type(kind, read(name_off), vlen, bool(info >> 31), word, body, read)


def _type(
    kind: int,
    name: str,
    vlen: int,
    flag: bool,
    word: int,
    body: bytes,
    read: Callable[[int], str],
) -> BtfType:
    """Return the type of *kind* that *body* completes."""
    match kind:
        case 1:  # INT
            (bits,) = _WORD.unpack(body)
            return Int(name, word, bits >> 24, bits >> 16 & 0xFF, bits & 0xFF)
        case 2:  # PTR
            return Ptr(word, name)
        case 3:  # ARRAY
            element, index, count = _TRIPLE.unpack(body)
            return Array(element, index, count, name)
        case 4 | 5:  # STRUCT, UNION
            rows = _TRIPLE.iter_unpack(body)
            if flag:
                members = tuple(
                    Member(read(at), type_id, bits & MAX_VLEN, bits >> 24)
                    for at, type_id, bits in rows
                )
            else:
                members = tuple(Member(read(at), type_id, bits) for at, type_id, bits in rows)
            return Struct(name, word, members, kind == UNION, flag)
        case 6:  # ENUM
            values = tuple(
                Enumerator(read(at), value if flag else value & 0xFFFFFFFF)
                for at, value in _ENUM.iter_unpack(body)
            )
            return Enum(name, word, values, flag)
        case 19:  # ENUM64
            values = tuple(
                Enumerator(read(at), _signed64(high << 32 | low) if flag else high << 32 | low)
                for at, low, high in _TRIPLE.iter_unpack(body)
            )
            return Enum(name, word, values, flag, wide=True)
        case 7:  # FWD
            return Fwd(name, flag)
        case 8:  # TYPEDEF
            return Typedef(name, word)
        case 9 | 10 | 11 | 18:  # VOLATILE, CONST, RESTRICT, TYPE_TAG
            return Modifier(MODIFIERS[kind], word, name, flag and kind == TYPE_TAG)
        case 12:  # FUNC
            return Func(name, word, vlen)
        case 13:  # FUNC_PROTO
            params = tuple(Param(read(at), type_id) for at, type_id in _PAIR.iter_unpack(body))
            return FuncProto(word, params, name)
        case 14:  # VAR
            return Var(name, word, _WORD.unpack(body)[0])
        case 15:  # DATASEC
            return DataSec(name, word, tuple(SecInfo(*row) for row in _TRIPLE.iter_unpack(body)))
        case 16:  # FLOAT
            return Float(name, word)
        case _:  # DECL_TAG
            return DeclTag(name, word, _COMPONENT.unpack(body)[0], flag)


def _signed64(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def references(kind: BtfType) -> tuple[int, ...]:
    """Return the ids of the types that *kind* names, in the order of its fields."""
    match kind:
        case Array(type=type_id, index_type=index):
            return type_id, index
        case Struct(members=members):
            return tuple(member.type for member in members)
        case FuncProto(returns=returns, params=params):
            return returns, *(param.type for param in params)
        case DataSec(variables=variables):
            return tuple(variable.type for variable in variables)
        case Void() | Int() | Enum() | Fwd() | Float():
            return ()
        case _:
            return (kind.type,)


def renumbered(types: Mapping[int, BtfType], more: Iterable[DeclTag] = ()) -> Btf:
    """Return *types*, by id, and *more* as a BTF without gaps: ids count from 0, in order.

    All that the types name must be among them.
    """
    new = {old: number for number, old in enumerate(sorted(types))}
    kinds = [_with_ids(types[old], new) for old in sorted(types)]
    return Btf((*kinds, *(_with_ids(tag, new) for tag in more)))


def _with_ids(kind: BtfType, new: Mapping[int, int]) -> BtfType:
    """Return *kind* with the types it names by other numbers."""
    match kind:
        case Array():
            return replace(kind, type=new[kind.type], index_type=new[kind.index_type])
        case Struct(members=members):
            return replace(kind, members=tuple(replace(m, type=new[m.type]) for m in members))
        case FuncProto(returns=returns, params=params):
            given = tuple(replace(param, type=new[param.type]) for param in params)
            return replace(kind, returns=new[returns], params=given)
        case DataSec(variables=variables):
            return replace(
                kind, variables=tuple(replace(each, type=new[each.type]) for each in variables)
            )
        case Void() | Int() | Enum() | Fwd() | Float():
            return kind
        case _:
            return replace(kind, type=new[kind.type])


def _check_ids(types: list[BtfType]) -> None:
    for type_id, kind in enumerate(types):
        for target in references(kind):
            if target >= len(types):
                raise BtfError(f"type {type_id} names type {target}, which does not exist")


# --- the binary form: writing -----------------------------------------------


def encode(btf: Btf) -> bytes:
    """Return *btf* in its binary form, little endian, without a layout section."""
    return encode_with_strings(btf, ())[0]


def encode_with_strings(btf: Btf, more: Iterable[str]) -> tuple[bytes, dict[str, int]]:
    """Return *btf* in its binary form with the strings *more* in it, and strings by offset.

    Line info names files and source lines by their offsets.
    """
    strings = bytearray(b"\0")
    offsets = {"": 0}

    def at(name: str) -> int:
        if name not in offsets:
            offsets[name] = len(strings)
            strings.extend(name.encode() + b"\0")
        return offsets[name]

    stray = {type_id: (info, word) for type_id, info, word in btf.stray}
    out = bytearray()
    for type_id, value in enumerate(btf.types):
        if type_id == 0:
            continue
        kind, vlen, flag, word, body = _encode_type(value, at)
        odd_info, odd_word = stray.get(type_id, (0, 0))
        info = kind << 24 | vlen | flag << 31 | odd_info
        if kind == INT:
            body = _WORD.pack(_WORD.unpack(body)[0] | odd_word)
        else:
            word |= odd_word
        out += _TYPE.pack(at(value.name), info, word) + body
    for text in more:
        at(text)
    header = _HEADER.pack(MAGIC, 1, 0, _HEADER.size, 0, len(out), len(out), len(strings))
    return bytes(header + out + strings), offsets


def _encode_type(value: BtfType, at: Callable[[str], int]) -> tuple[int, int, bool, int, bytes]:
    """Return kind, vlen, kind_flag, the size or type word and what follows."""
    match value:
        case Int():
            bits = value.encoding << 24 | value.bit_offset << 16 | value.bits
            return INT, 0, False, value.size, _WORD.pack(bits)
        case Ptr():
            return PTR, 0, False, value.type, b""
        case Array():
            return ARRAY, 0, False, 0, _TRIPLE.pack(value.type, value.index_type, value.count)
        case Struct(members=members):
            body = b"".join(
                _TRIPLE.pack(at(m.name), m.type, m.bitfield_size << 24 | m.bit_offset)
                for m in members
            )
            kind = UNION if value.union else STRUCT
            return kind, len(members), value.kind_flag, value.size, body
        case Enum(values=values, wide=False):
            body = b"".join(_PAIR.pack(at(v.name), v.value & 0xFFFFFFFF) for v in values)
            return ENUM, len(values), value.signed, value.size, body
        case Enum(values=values):
            mask = 0xFFFFFFFF
            body = b"".join(
                _TRIPLE.pack(at(v.name), v.value & mask, v.value >> 32 & mask) for v in values
            )
            return ENUM64, len(values), value.signed, value.size, body
        case Fwd():
            return FWD, 0, value.union, 0, b""
        case Typedef():
            return TYPEDEF, 0, False, value.type, b""
        case Modifier():
            kind = next(kind for kind, name in MODIFIERS.items() if name == value.kind)
            return kind, 0, value.kind_flag, value.type, b""
        case Func():
            return FUNC, value.linkage, False, value.type, b""
        case FuncProto(params=params):
            body = b"".join(_PAIR.pack(at(p.name), p.type) for p in params)
            return FUNC_PROTO, len(params), False, value.returns, body
        case Var():
            return VAR, 0, False, value.type, _WORD.pack(value.linkage)
        case DataSec(variables=variables):
            body = b"".join(_TRIPLE.pack(v.type, v.offset, v.size) for v in variables)
            return DATASEC, len(variables), False, value.size, body
        case Float():
            return FLOAT, 0, False, value.size, b""
        case DeclTag():
            return DECL_TAG, 0, value.kind_flag, value.type, _COMPONENT.pack(value.component)
        case Void():
            raise BtfError("void has the id 0 and no other")
