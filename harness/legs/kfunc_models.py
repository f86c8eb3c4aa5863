"""What the project's kernel functions do, for the interpreter.

Written beside the C of ``source/include/crosscheck/kfuncs.c``, not from it: that both say
the same is a test. An argument is what the register or slot holds, of which the function
looks at as many bits as its type has. Here a result below 64 bits is extended to 32 by its
sign and to 64 by zeros. Native code need not do so, and expects its caller to extend what
is narrower than 32 bits: those bits are nobody's, and a program must not look at them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from harness.interp import M32, M64, Host, Kfunc, signed

WEIGHTS = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)  # of the arguments, by position
PREFIX = "crosscheck_kfunc_"

BITS = {"u8": 8, "s8": 8, "u16": 16, "s16": 16, "u32": 32, "s32": 32, "u64": 64, "s64": 64}


def typed(value: int, kind: str) -> int:
    """Return the number of C type *kind* in the register *value*."""
    if kind == "bool":
        return value & 1
    bits = BITS[kind]
    return signed(value, bits) if kind[0] == "s" else value & ((1 << bits) - 1)


def result(value: int, kind: str) -> int:
    """Return the register that holds *value* as a result of C type *kind*."""
    if kind == "bool":
        return int(value != 0)
    number = typed(value, kind)
    return number & (M64 if BITS[kind] == 64 else M32)


def _weighted(returns: str, kinds: Sequence[str]) -> Kfunc:
    def call(_host: Host, arguments: Sequence[int]) -> int:
        values = (typed(value, kind) for value, kind in zip(arguments, kinds, strict=True))
        total = sum(value * weight for value, weight in zip(values, WEIGHTS, strict=False))
        if returns == "bool":
            total = int((total & M64) % 3 == 1)
        return result(total, returns)

    return Kfunc(len(kinds), call)


def _sum(arguments: Sequence[int], at: Sequence[int]) -> int:
    """Return the weighted sum of the 64-bit arguments at the positions *at*, from 0."""
    return sum(arguments[index] * WEIGHTS[index] for index in at)


def _number(host: Host, address: int, kind: str) -> int:
    size = BITS[kind] // 8
    return typed(int.from_bytes(host.read(address, size), "little"), kind)


def _write(host: Host, address: int, size: int, value: int) -> None:
    host.write(address, (value & ((1 << 8 * size) - 1)).to_bytes(size, "little"))


def _pointers9(host: Host, arguments: Sequence[int]) -> int:
    _, b, c, d, _, f, g, h, i = arguments
    right = _number(host, f + 4, "s32")
    total = _sum(arguments, (0, 2, 3, 4)) + g * 29
    total += _number(host, b, "u32") * 5 + _number(host, h, "u64") * 31
    total += _number(host, f, "u32") * 17 + right * 19 + _number(host, f + 8, "u64") * 23
    total += typed(i, "s16") * 37
    total &= M64
    _write(host, b, 4, total >> 32)
    _write(host, f, 4, _number(host, f, "u32") + 1)
    _write(host, f + 4, 4, right ^ g)
    _write(host, f + 8, 8, total)
    _write(host, h, 8, c - d)
    return total


def _swap8(host: Host, arguments: Sequence[int]) -> None:
    a, b, c, d, e, f, g, h = arguments
    first, second = host.read(g, 16), host.read(h, 16)
    host.write(g, second[:8])
    _write(host, g + 8, 8, int.from_bytes(second[8:], "little") + (a ^ b ^ c))
    host.write(h, first[:8])
    _write(host, h + 8, 8, int.from_bytes(first[8:], "little") + (d ^ e ^ f))


def _digest(seed: int, data: bytes) -> int:
    for byte in data:
        seed = seed * 33 + byte & M64
    return seed & M64


def _memory6(host: Host, arguments: Sequence[int]) -> int:
    size = typed(arguments[5], "u32")
    data = host.read(arguments[4], size) if size else b""
    return _digest(_sum(arguments, range(4)), data)


def _memory9(host: Host, arguments: Sequence[int]) -> int:
    size = typed(arguments[7], "u32")
    data = host.read(arguments[6], size) if size else b""
    return _digest(_sum(arguments, (0, 1, 2, 3, 4, 5, 8)), data)


def _fill8(host: Host, arguments: Sequence[int]) -> int:
    total = _sum(arguments, range(5)) & M64
    size, value = arguments[6], arguments[7]
    if size:
        filled = bytes((value + at + (total >> at % 8)) & 0xFF for at in range(size))
        host.write(arguments[5], filled)
    return result(total, "s32")


def _string7(host: Host, arguments: Sequence[int]) -> int:
    text, limit = b"", typed(arguments[6], "u32")
    while (byte := host.read(arguments[5] + len(text), 1)) != b"\0" and len(text) < limit:
        text += byte
    return _digest(_sum(arguments, range(5)), text)


def _nullable7(host: Host, arguments: Sequence[int]) -> int:
    total = _sum(arguments, (0, 1, 2, 3, 4, 6)) & M64
    address = arguments[5]
    if not address:
        return total
    _write(host, address, 8, _number(host, address, "u64") ^ total)
    return total + 1


MIXED_12 = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64", "bool", "s8", "u16", "s32")
MIXED_9 = ("s64", "bool", "s32", "u8", "u16", "s8", "u32", "s16", "u64")
_OTHERS: Mapping[str, tuple[int, Callable[[Host, Sequence[int]], int | None]]] = {
    "pointers9": (9, _pointers9),
    "swap8": (8, _swap8),
    "memory6": (6, _memory6),
    "memory9": (9, _memory9),
    "fill8": (8, _fill8),
    "string7": (7, _string7),
    "nullable7": (7, _nullable7),
}

KFUNCS: Mapping[str, Kfunc] = {
    PREFIX + name: kfunc
    for name, kfunc in {
        **{f"u64x{n}": _weighted("u64", ["u64"] * n) for n in range(6, 13)},
        **{
            f"{kind}x12": _weighted("u64", [kind] * 12)
            for kind in ("u8", "s8", "u16", "s16", "u32", "s32", "bool")
        },
        "mixed12": _weighted("u64", MIXED_12),
        "mixed9": _weighted("u64", MIXED_9),
        **{
            f"{kind}_of_6": _weighted(kind, ["u64"] * 6)
            for kind in ("bool", "u8", "s8", "u16", "s16", "u32", "s32", "s64")
        },
        **{name: Kfunc(*model) for name, model in _OTHERS.items()},
    }.items()
}
"""By name. Those that no program may call have no model."""
