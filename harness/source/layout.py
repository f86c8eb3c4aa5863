"""Where a function's arguments, pointees and result sit in the context of its driver.

    0          result            what the function returns; a pointer as an offset, see Layout
    arguments  one place each    pointers take none
    objects    one region        every pointee, copied to the driver's buffer and back
    size

All of it little-endian, places aligned to 8 bytes or more. Padding has no value in C, so
the mask leaves it out, and of a union only bits that have a value in every member count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from harness.model import Mask
from harness.source.signature import (
    MAX_BYTES,
    Aggregate,
    ArrayOf,
    Pointer,
    Scalar,
    Signature,
    Type,
    Unsupported,
    size_of,
)

STACK_OBJECTS = 128  # bytes of pointees kept on the driver's stack; more go to .bss


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes of the context."""

    name: str  # "result", or the parameter's name
    type: Type
    offset: int  # bytes from the start of the context

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.offset + size_of(self.type)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One scalar value of the input."""

    bit: int  # from the start of the context
    bits: int
    type: Scalar
    path: str  # "p->x[2]", for people


@dataclass(frozen=True, slots=True)
class Layout:
    """The context of one function's driver.

    A pointer result is kept as 0 for NULL, 1 + its offset into the objects region, or all
    ones where it points elsewhere.
    """

    signature: Signature
    result: Place | None
    arguments: tuple[Place | None, ...]  # by parameter; None: a pointer
    objects: tuple[Place | None, ...]  # by parameter; None: not a pointer
    start: int  # of the objects region
    size: int  # of the context, and the end of the objects region
    align: int  # of the objects region and of the context
    mask: Mask

    @property
    def in_bss(self) -> bool:
        """Whether the pointees are a static object.

        They are when they are large, and when r0 may hold a pointer to them as the function
        ends: because it returns one, or because it returns nothing and clang used r0 for
        something else. The verifier lets no function end with a pointer to the stack there.
        """
        result = self.signature.result
        large = self.size - self.start > STACK_OBJECTS
        return large or result is None or isinstance(result, Pointer)

    def leaves(self) -> Iterator[Leaf]:
        """Yield every scalar value of the arguments and the pointees, in order of place."""
        for place in self.arguments:
            if place:
                yield from _leaves(place.type, 8 * place.offset, place.name)
        for place in self.objects:
            if place:
                root = place.name
                match place.type:
                    case Scalar():
                        root = f"*{root}"
                    case Aggregate():
                        root = f"{root}->"
                yield from _leaves(place.type, 8 * place.offset, root)

    def describe(self, offset: int) -> str:
        """Return what the byte at *offset* of the context belongs to, for people."""
        if self.result and self.result.offset <= offset < self.result.end:
            return f"result of {self.signature.name}"
        for leaf in self.leaves():
            if leaf.bit // 8 <= offset < (leaf.bit + leaf.bits + 7) // 8:
                return leaf.path
        return "padding"


def layout(signature: Signature) -> Layout | Unsupported:
    """Return the context of *signature*'s driver, or why there is none."""
    result = None
    at = 0
    if signature.result is not None:
        result = Place("result", signature.result, 0)
        at = result.end
    arguments: list[Place | None] = []
    for parameter in signature.parameters:
        if isinstance(parameter.type, Pointer):
            arguments.append(None)
            continue
        at = _up(at, _align(parameter.type))
        arguments.append(Place(parameter.name, parameter.type, at))
        at += size_of(parameter.type)
    targets = [p.type.target for p in signature.parameters if isinstance(p.type, Pointer)]
    align = max((_align(target) for target in targets), default=8)
    align = max([align, *(_align(p.type) for p in (*arguments, result) if p)])
    start = at = _up(at, align)
    objects: list[Place | None] = []
    for parameter in signature.parameters:
        if not isinstance(parameter.type, Pointer):
            objects.append(None)
            continue
        at = _up(at, _align(parameter.type.target))
        objects.append(Place(parameter.name, parameter.type.target, at))
        at += size_of(parameter.type.target)
    size = _up(at, 8)
    if size > MAX_BYTES:
        return Unsupported(signature.name, f"a context of {size} bytes, at most {MAX_BYTES} fit")
    mask = bytearray(b"\xff" * start + bytes(size - start))
    if result:
        mask[: _up(result.end, 8)] = bytes(_up(result.end, 8))
    for place in chain((result,), objects):
        if place:
            mask[place.offset : place.end] = value_bits(place.type).to_bytes(
                size_of(place.type), "little"
            )
    return Layout(
        signature,
        result,
        tuple(arguments),
        tuple(objects),
        start,
        size,
        align,
        Mask(bytes(mask)),
    )


def value_bits(kind: Type) -> int:
    """Return the bits of *kind*'s representation that have a value, as a number."""
    match kind:
        case ArrayOf(element=element, count=count):
            one, width = value_bits(element), 8 * size_of(element)
            return sum(one << i * width for i in range(count))
        case Aggregate(fields=fields, union=union, size=size):
            parts = [(value_bits(f.type) & ((1 << f.bits) - 1)) << f.bit for f in fields if f.bits]
            if not union:
                return _or(parts)
            bits = (1 << 8 * size) - 1 if parts else 0
            for part in parts:
                bits &= part
            return bits
    return (1 << 8 * size_of(kind)) - 1


def _or(parts: list[int]) -> int:
    bits = 0
    for part in parts:
        bits |= part
    return bits


def _leaves(kind: Type, bit: int, path: str) -> Iterator[Leaf]:
    match kind:
        case Scalar(size=size):
            yield Leaf(bit, 8 * size, kind, path)
        case ArrayOf(element=element, count=count):
            for i in range(count):
                yield from _leaves(element, bit + 8 * size_of(element) * i, f"{path}[{i}]")
        case Aggregate(fields=fields):
            for field in fields:
                dot = "" if path.endswith("->") else "."
                inner = f"{path}{dot}{field.name}" if field.name else path
                if isinstance(field.type, Scalar):
                    yield Leaf(bit + field.bit, field.bits, field.type, inner)
                else:
                    yield from _leaves(field.type, bit + field.bit, inner)


def _align(kind: Type) -> int:
    """Return the alignment of a place for *kind*: 8 or 16 bytes.

    BTF says nothing of _Alignas and little of vectors, but every alignment divides the size,
    and baseline x86-64 code faults on nothing that 16 bytes do not satisfy.
    """
    size = size_of(kind)
    return 8 if size % 16 else 16


def _up(offset: int, align: int) -> int:
    return -(-offset // align) * align
