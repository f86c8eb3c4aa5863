"""BTF: the type information of BPF objects, as values, and its binary form.

After Documentation/bpf/btf.rst of Linux 7.3. Type id 0 is void; every other id is
an index into ``Btf.types``.
"""

from __future__ import annotations

from dataclasses import dataclass

# Linkage of a function                   btf.rst, 2.2.12
STATIC, GLOBAL, EXTERN = range(3)
LINKAGES = ("static", "global", "extern")


@dataclass(frozen=True, slots=True)
class Void:
    """Type id 0."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class Int:
    name: str
    size: int  # bytes
    encoding: int = 0  # 1 signed, 2 char, 4 bool
    bit_offset: int = 0
    bits: int = 0  # value bits

    @property
    def signed(self) -> bool:
        return bool(self.encoding & 1)

    @property
    def bool(self) -> bool:
        return bool(self.encoding & 4)


@dataclass(frozen=True, slots=True)
class Ptr:
    type: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Array:
    type: int
    index_type: int
    count: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Member:
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
    name: str
    union: bool = False


@dataclass(frozen=True, slots=True)
class Typedef:
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
    name: str
    type: int  # id of a FuncProto
    linkage: int = STATIC


@dataclass(frozen=True, slots=True)
class Param:
    name: str
    type: int  # 0 in the last place: variadic


@dataclass(frozen=True, slots=True)
class FuncProto:
    returns: int
    params: tuple[Param, ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Var:
    name: str
    type: int
    linkage: int = STATIC


@dataclass(frozen=True, slots=True)
class SecInfo:
    type: int
    offset: int  # bytes
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class DataSec:
    name: str
    size: int  # bytes
    variables: tuple[SecInfo, ...]


@dataclass(frozen=True, slots=True)
class Float:
    name: str
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class DeclTag:
    name: str
    type: int
    component: int  # parameter or member, -1: the declaration itself


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


@dataclass(frozen=True)
class Btf:
    """All types of an object; ``types[0]`` is ``Void()``."""

    types: tuple[BtfType, ...]

    def __getitem__(self, type_id: int) -> BtfType:
        return self.types[type_id]

    def resolve(self, type_id: int) -> BtfType:
        """Return the type behind typedefs and modifiers (``btf_type_skip_modifiers``)."""
        kind = self.types[type_id]
        for _ in self.types:
            if not isinstance(kind, Typedef | Modifier):
                return kind
            kind = self.types[kind.type]
        return Void()  # a cycle, which the loader refuses

    def prototype(self, func_id: int) -> FuncProto | None:
        """Return the prototype of the Func *func_id*, None if there is none."""
        func = self.types[func_id] if 0 < func_id < len(self.types) else None
        if not isinstance(func, Func):
            return None
        proto = self.types[func.type] if func.type < len(self.types) else None
        return proto if isinstance(proto, FuncProto) else None
