"""What a tree is to the driver: the signature of its last function."""

from __future__ import annotations

from harness.source import signature as under_test
from harness.source.tree import (
    ArrayType,
    EnumType,
    IntType,
    PointerType,
    StructType,
    Tree,
    Value,
    size_of,
    struct_layout,
)


def signature(tree: Tree, prefix: str = "") -> under_test.Signature:
    """Return the signature of *tree*'s last function, as discovery finds it in BTF."""
    function = tree.root
    parameters = tuple(
        under_test.Parameter(p.name, _parameter(p.type, prefix), p.name)
        for p in function.parameters
    )
    result = None if function.result is None else _value(function.result, prefix)
    return under_test.Signature(prefix + function.name, parameters, result)


def _parameter(
    kind: Value | PointerType, prefix: str
) -> under_test.Scalar | under_test.Aggregate | under_test.Pointer:
    if not isinstance(kind, PointerType):
        return _value(kind, prefix)
    target: under_test.Type = _value(kind.target, prefix)
    if kind.count > 1:
        size = kind.count * size_of(kind.target)
        target = under_test.ArrayOf(target, kind.count, size)
    return under_test.Pointer(target, kind.const)


_C_NAMES = {1: "char", 2: "short", 4: "int", 8: "long long"}


def _scalar(size: int, signed: bool, values: tuple[int, ...] = ()) -> under_test.Scalar:
    name = f"{'signed' if signed else 'unsigned'} {_C_NAMES[size]}"
    return under_test.Scalar(name, size, signed, values=values)


def _value(kind: Value, prefix: str) -> under_test.Scalar | under_test.Aggregate:
    match kind:
        case EnumType(values=values):
            return _scalar(4, kind.signed, values)
        case StructType(name=name, members=members, union=union):
            offsets, size = struct_layout(kind)
            fields = tuple(
                under_test.Field(m.name, 8 * at, 8 * size_of(m.type), _member(m.type, prefix))
                for m, at in zip(members, offsets, strict=True)
            )
            spelling = f"{'union' if union else 'struct'} {prefix}{name}"
            return under_test.Aggregate(spelling, size, fields, union)
        case IntType(name="bool"):
            return under_test.Scalar("_Bool", 1, bool=True)
    return _scalar(kind.size, kind.signed)


def _member(kind: IntType | EnumType | ArrayType, prefix: str) -> under_test.Type:
    if isinstance(kind, ArrayType):
        return under_test.ArrayOf(_value(kind.element, prefix), kind.count, size_of(kind))
    return _value(kind, prefix)
