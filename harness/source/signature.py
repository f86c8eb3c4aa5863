"""Functions under test: what BTF says of their parameters and results.

A discovery build (``driver.discovery_args``) emits every function of a file; this module
reads the functions out of its BTF. A signature says only what the entry driver and the
input vectors need: sizes, value bits, names that C code can spell.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from harness.btf import (
    EXTERN,
    Array,
    Btf,
    DeclTag,
    Enum,
    Float,
    Func,
    FuncProto,
    Fwd,
    Int,
    Modifier,
    Ptr,
    Struct,
    Typedef,
    Void,
)

MAX_SLOTS = 12  # argument registers and stack slots together, Linux 7.3
REGISTERS = 5
MAX_BYTES = 4096  # of one pointee, and of a context
MAX_BY_VALUE = 16  # bytes of a struct that clang passes by value
MAX_DEPTH = 16  # types within one another
BUFFER = 16  # bytes behind a char * or void * whose extent nothing declares


@dataclass(frozen=True, slots=True)
class Scalar:
    """An integer, a bool or an enum."""

    name: str  # a C type of the same size and sign, which the driver reads and writes it as
    size: int  # bytes
    signed: bool = False
    bool: bool = False
    values: tuple[int, ...] = ()  # enum: the enumerators


@dataclass(frozen=True, slots=True)
class Field:
    """A member of an aggregate."""

    name: str
    bit: int  # offset from the start of the aggregate, in bits
    bits: int  # width, in bits
    type: Type


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A struct or a union."""

    name: str  # as C spells it; "" where C code elsewhere cannot name it
    size: int  # bytes
    fields: tuple[Field, ...]
    union: bool = False


@dataclass(frozen=True, slots=True)
class ArrayOf:
    """An array, or the elements behind a pointer."""

    element: Type
    count: int
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Pointer:
    """A pointer to an object that the driver provides."""

    target: Type
    const: bool = False


Type = Scalar | Aggregate | ArrayOf | Pointer


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a function under test."""

    name: str
    type: Scalar | Aggregate | Pointer
    text: str  # the declaration, for people


@dataclass(frozen=True, slots=True)
class Signature:
    """A function under test."""

    name: str
    parameters: tuple[Parameter, ...]
    result: Scalar | Aggregate | Pointer | None  # None: void; a pointer: into an argument's object

    @property
    def slots(self) -> int:
        """Argument slots the parameters take: r1 to r5 and the stack slots."""
        return sum(2 if size_of(p.type) > 8 else 1 for p in self.parameters)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(p.text for p in self.parameters) or 'void'})"


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A function that no driver can be made for; counted as unknown."""

    function: str
    why: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a file has to test."""

    signatures: tuple[Signature, ...]
    unsupported: tuple[Unsupported, ...]
    externs: tuple[str, ...] = ()  # functions it declares and does not define


class _NoDriverError(Exception):
    """Why a type is not supported."""


def size_of(kind: Type) -> int:
    """Return the size of *kind* in bytes."""
    return 8 if isinstance(kind, Pointer) else kind.size


def functions_under_test(
    btf: Btf, among: Collection[str] | None = None, *, everything: bool = False
) -> Discovery:
    """Return the functions of *btf* with more than five argument slots.

    *among* names the functions that count, the symbols of .text for example; None: all
    that are defined. *everything* takes functions with fewer slots too.
    """
    extents = _extents(btf)
    signatures: list[Signature] = []
    unsupported: list[Unsupported] = []
    externs = tuple(
        func.name
        for _, func, proto in btf.functions()
        if func.linkage == EXTERN or _of_the_kernel(proto)
    )
    seen: set[str] = set()
    for type_id, func, proto in btf.functions():
        if func.linkage == EXTERN or _of_the_kernel(proto) or func.name in seen:
            continue
        seen.add(func.name)
        if among is not None and func.name not in among:
            continue
        if not everything and _slots(btf, proto) <= REGISTERS:
            continue
        try:
            signatures.append(_signature(btf, func, proto, extents.get(type_id, {})))
        except _NoDriverError as no:
            unsupported.append(Unsupported(func.name, str(no)))
    return Discovery(tuple(signatures), tuple(unsupported), externs)


def _of_the_kernel(proto: FuncProto) -> bool:
    """Say whether loading made a kernel function, declared only, look defined, as libbpf does."""
    return bool(proto.params) and all(p.name == "dummy_ksym" for p in proto.params)


def _slots(btf: Btf, proto: FuncProto) -> int:
    return sum(2 if (btf.size_of(p.type) or 8) > 8 else 1 for p in proto.params)


def _extents(btf: Btf) -> dict[int, dict[int, int]]:
    """Return what ``btf_decl_tag("elements:N")`` says: function id, parameter index, N."""
    found: dict[int, dict[int, int]] = {}
    for kind in btf.types:
        if isinstance(kind, DeclTag) and kind.component >= 0:
            match = re.fullmatch(r"elements:([1-9][0-9]{0,3})", kind.name)
            if match:
                found.setdefault(kind.type, {})[kind.component] = int(match[1])
    return found


def _signature(btf: Btf, func: Func, proto: FuncProto, extents: dict[int, int]) -> Signature:
    if not re.fullmatch(r"[A-Za-z_]\w*", func.name, re.ASCII):
        raise _NoDriverError("its name is no C identifier")
    parameters = []
    for index, param in enumerate(proto.params):
        name = param.name or f"arg{index + 1}"
        try:
            kind = _parameter(btf, param.type, extents.get(index))
        except _NoDriverError as no:
            raise _NoDriverError(f"argument {index + 1} ({name}): {no}") from None
        parameters.append(Parameter(name, kind, btf.declare(param.type, name)))
    try:
        result = _result(btf, proto.returns)
    except _NoDriverError as no:
        raise _NoDriverError(f"result: {no}") from None
    signature = Signature(func.name, tuple(parameters), result)
    if signature.slots > MAX_SLOTS:
        raise _NoDriverError(f"{signature.slots} argument slots, at most {MAX_SLOTS} exist")
    return signature


def _parameter(btf: Btf, type_id: int, elements: int | None) -> Scalar | Aggregate | Pointer:
    behind = btf.resolve(type_id)
    if isinstance(behind, Void):
        raise _NoDriverError("a type BTF does not describe, or a variable argument list")
    if isinstance(behind, Ptr):
        return _pointer(btf, behind, elements)
    return _value(btf, type_id)


def _value(btf: Btf, type_id: int) -> Scalar | Aggregate:
    kind = _type(btf, type_id, 0)
    if isinstance(kind, ArrayOf | Pointer):
        raise _NoDriverError("a vector by value")
    if not kind.size:
        raise _NoDriverError("an empty struct by value")
    if kind.size > MAX_BY_VALUE:
        raise _NoDriverError(f"{kind.size} bytes by value, at most {MAX_BY_VALUE} are passed")
    if isinstance(kind, Aggregate) and not kind.name:
        raise _NoDriverError("an unnamed struct or union, which a driver cannot name")
    return kind


def _result(btf: Btf, type_id: int) -> Scalar | Aggregate | Pointer | None:
    behind = btf.resolve(type_id)
    if isinstance(behind, Void):
        return None
    if isinstance(behind, Ptr):
        if isinstance(btf.resolve(behind.type), FuncProto):
            raise _NoDriverError("a pointer to a function")
        return Pointer(Scalar("unsigned char", 1))
    return _value(btf, type_id)


def _pointer(btf: Btf, pointer: Ptr, elements: int | None) -> Pointer:
    const = _is_const(btf, pointer.type)
    behind = btf.resolve(pointer.type)
    match behind:
        case Void():
            target: Type = ArrayOf(Scalar("unsigned char", 1), elements or BUFFER, 0)
        case FuncProto():
            raise _NoDriverError("a pointer to a function")
        case Fwd():
            raise _NoDriverError(f"a pointer to an incomplete type ({btf.c_name(pointer.type)})")
        case _:
            one = _type(btf, pointer.type, 0)
            byte = isinstance(one, Scalar) and one.size == 1 and not one.bool and not one.values
            count = elements or (BUFFER if byte else 1)
            target = ArrayOf(one, count, 0) if count > 1 else one
    if isinstance(target, ArrayOf) and not target.size:
        target = ArrayOf(target.element, target.count, target.count * size_of(target.element))
    size = size_of(target)
    if not size:
        raise _NoDriverError("a pointer to an object without a size")
    if size > MAX_BYTES:
        raise _NoDriverError(f"a pointer to {size} bytes, at most {MAX_BYTES} fit a context")
    return Pointer(target, const)


def _is_const(btf: Btf, type_id: int) -> bool:
    kind = btf.get(type_id)
    for _ in range(MAX_DEPTH):
        if not isinstance(kind, Modifier | Typedef):
            return False
        if isinstance(kind, Modifier) and kind.kind == "const":
            return True
        kind = btf.get(kind.type)
    return False


def _type(btf: Btf, type_id: int, depth: int) -> Type:
    """Return the type of a value; raise ``_NoDriverError`` where no driver can give one."""
    if depth > MAX_DEPTH:
        raise _NoDriverError("types nested too deep")
    match btf.resolve(type_id):
        case Int() as kind:
            return _integer(kind)
        case Enum(size=size, signed=signed, values=values):
            # Without the kind flag an ENUM of unsigned 32 bits is stored as signed words.
            numbers = tuple(dict.fromkeys(_fold(v.value, size, signed) for v in values))
            return Scalar(_c_integer(size, signed), size, signed, values=numbers)
        case Ptr():
            raise _NoDriverError("a pointer inside an object")
        case Array(type=element_id, count=count):
            total = btf.size_of(type_id)
            if total is None or total > MAX_BYTES:
                raise _NoDriverError("an array that does not fit a context")
            return ArrayOf(_type(btf, element_id, depth + 1), count if total else 0, total)
        case Struct() as kind:
            return _aggregate(btf, type_id, kind, depth)
        case Float(name=name):
            raise _NoDriverError(f"a floating-point number ({name})")
        case Fwd(name=name):
            raise _NoDriverError(f"an incomplete type ({name})")
        case kind:
            raise _NoDriverError(f"a type BTF does not describe ({type(kind).__name__.lower()})")


def _integer(kind: Int) -> Scalar:
    if kind.bool:
        if kind.size != 1:
            raise _NoDriverError(f"a bool of {kind.size} bytes")
        return Scalar("_Bool", 1, bool=True)
    if kind.size not in (1, 2, 4, 8, 16) or kind.bits != 8 * kind.size:
        raise _NoDriverError(f"an integer of {kind.bits} bits in {kind.size} bytes ({kind.name})")
    if "_BitInt" in kind.name:
        raise _NoDriverError(f"a bit-precise integer ({kind.name})")
    return Scalar(_c_integer(kind.size, kind.signed), kind.size, kind.signed)


def _c_integer(size: int, signed: bool) -> str:
    names = {1: "char", 2: "short", 4: "int", 8: "long long", 16: "__int128"}
    return f"{'signed' if signed else 'unsigned'} {names[size]}"


def _fold(value: int, size: int, signed: bool) -> int:
    value &= (1 << 8 * size) - 1
    return value - (1 << 8 * size) if signed and value >> (8 * size - 1) else value


def _aggregate(btf: Btf, type_id: int, kind: Struct, depth: int) -> Aggregate:
    if kind.size > MAX_BYTES:
        raise _NoDriverError(f"{kind.size} bytes, at most {MAX_BYTES} fit a context")
    fields = []
    for member in kind.members:
        name = member.name or "(unnamed)"
        try:
            inner = _type(btf, member.type, depth + 1)
        except _NoDriverError as no:
            raise _NoDriverError(f"{no} ({name})" if depth == 0 else str(no)) from None
        bits = member.bitfield_size or 8 * size_of(inner)
        if member.bit_offset + bits > 8 * kind.size:
            raise _NoDriverError(f"member {name} lies outside its struct")
        fields.append(Field(member.name, member.bit_offset, bits, inner))
    return Aggregate(_spelling(btf, type_id, kind), kind.size, tuple(fields), kind.union)


def _spelling(btf: Btf, type_id: int, kind: Struct) -> str:
    """Return how C code names the struct: by its tag, or by a typedef of it."""
    if kind.name:
        return f"{'union' if kind.union else 'struct'} {kind.name}"
    name, qualified = "", False
    for _ in range(MAX_DEPTH):
        behind = btf.get(type_id)
        if isinstance(behind, Typedef):
            name, qualified = behind.name, False
        elif isinstance(behind, Modifier):
            qualified = True
        else:
            break
        type_id = behind.type
    return f"__typeof_unqual__({name})" if name and qualified else name
