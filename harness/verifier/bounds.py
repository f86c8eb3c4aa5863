"""How instructions change what is known of scalars: arithmetic, moves, comparisons.

Transfer functions are pure, take and return ``Scalar``, and give the result of Linux
7.3.4, bit for bit, also where it could be sharper: later states, and so verdicts and
logs, depend on it. Each docstring names the function of kernel/bpf/verifier.c mirrored.

Operands of 32-bit operations are whole registers; results are zero-extended as the
kernel does it. The slow functions keep their last results, since a verifier meets the
same operands on many paths.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from harness.verifier import cnum, tnum
from harness.verifier.cnum import Cnum
from harness.verifier.scalar import (
    UNKNOWN,
    ZERO,
    Parts,
    Scalar,
    const,
    forget_ranges,
    format_ranges,
    format_scalar,
    sane,
    signed_text,
    sync,
    unsigned_text,
    update_bounds,
    update_bounds32,
    violation,
)
from harness.verifier.tnum import HIGH, M32, M64, Tnum

__all__ = [
    "UNKNOWN",
    "ZERO",
    "Parts",
    "Scalar",
    "add_linked",
    "add_offset",
    "alu",
    "branch_taken",
    "clamp",
    "const",
    "endian",
    "forget_ranges",
    "fork",
    "format_ranges",
    "format_scalar",
    "is_subset",
    "mov32",
    "range_within",
    "refine",
    "sext",
    "signed_text",
    "sync",
    "truncate",
    "unsigned_text",
    "violation",
]

_new = tuple.__new__


def _zero_extend(parts: Parts) -> Parts:
    """Let the low half be the whole (``zext_32_to_64``)."""
    value, mask, _, _, base32, size32 = parts
    if size32 > M32 - base32:
        return value & M32, mask & M32, 0, M32, base32, size32
    return value & M32, mask & M32, base32, size32, base32, size32


# Moves, loads and byte order


@lru_cache(maxsize=1 << 12)
def mov32(src: Scalar) -> Scalar:
    """Return the low half of *src*, zero-extended (``check_alu_op``, 32-bit mov)."""
    return sane(sync(_zero_extend(src)))


@lru_cache(maxsize=1 << 12)
def truncate(scalar: Scalar, size: int) -> Scalar:
    """Keep the low *size* bytes, 1, 2 or 4, as a narrow load or fill (``coerce_reg_to_size``).

    8 bytes are *scalar* as it is.
    """
    return scalar if size == 8 else sane(_truncate(scalar, size))


def _truncate(scalar: Scalar, size: int) -> Scalar:
    """Keep the low *size* bytes, less than 8."""
    keep = (1 << size * 8) - 1
    low, high = scalar.umin, scalar.umax
    if low & ~keep == high & ~keep:
        low &= keep
        r64 = low, (high & keep) - low
    else:
        r64 = 0, keep
    r32 = cnum.UNBOUNDED32 if size < 4 else scalar.r32
    return sync((scalar.value & keep, scalar.mask & keep, *r64, *r32))


def _signed(value: int, bits: int) -> int:
    """Return the low *bits* of *value* as a signed number."""
    sign = 1 << bits - 1
    return (value & (sign << 1) - 1 ^ sign) - sign


@lru_cache(maxsize=1 << 12)
def sext(scalar: Scalar, bits: int, to: int = 64) -> Scalar:
    """Sign-extend the low *bits*, 8, 16 or 32, to *to*, 32 or 64 (``coerce_reg_to_size_sx``).

    With *to* 32 the upper half of the result is 0 (``coerce_subreg_to_size_sx``).
    """
    full = M64 if to == 64 else M32
    if scalar.is_const:
        value = _signed(scalar.value, bits)
        return const(value if to == 64 else value & M32)
    ring = scalar.r64 if to == 64 else scalar.r32
    lowest, highest = cnum.smin(ring, full), cnum.smax(ring, full)
    var_off = Tnum(0, full)
    low, high = -1 << bits - 1, (1 << bits - 1) - 1
    if lowest >> bits == highest >> bits:
        first, last = sorted((_signed(lowest, bits), _signed(highest, bits)))
        if (first >= 0) == (last >= 0):
            low, high = first, last
            var_off = tnum.range(low & full, high & full)
    r32 = cnum.from_srange(low, high, M32)
    if to == 64:
        return Scalar(*var_off, *cnum.from_srange(low, high, M64), *r32)
    return sane(sync(_zero_extend((*var_off, *scalar.r64, *r32))))


@lru_cache(maxsize=1 << 12)
def endian(op: str, bits: int, scalar: Scalar) -> Scalar:
    """Apply "le", "be" or "bswap" on a little-endian machine (``scalar_byte_swap``)."""
    if op != "le":
        scalar = Scalar.make(tnum.bswap(scalar.var_off, bits))
    if bits != 64:
        scalar = _truncate(scalar, bits // 8)
    return sane(sync(scalar))


# Arithmetic. Each function takes whole registers and returns the parts of the result before
# synchronisation. Those without *bits* compute both ranges, whatever the width.


def _add(a: Scalar, b: Scalar) -> Parts:
    """``scalar_min_max_add``, ``scalar32_min_max_add``."""
    value, mask, base, size, base32, size32 = a
    value_b, mask_b, base_b, size_b, base32_b, size32_b = b
    value += value_b
    mask = ((value + mask + mask_b) ^ value | mask | mask_b) & M64
    if size + size_b < M64:
        base, size = base + base_b & M64, size + size_b
    else:
        base, size = cnum.add((base, size), (base_b, size_b), M64)
    if size32 + size32_b < M32:
        base32, size32 = base32 + base32_b & M32, size32 + size32_b
    else:
        base32, size32 = cnum.add((base32, size32), (base32_b, size32_b), M32)
    return value & ~mask & M64, mask, base, size, base32, size32


def _sub(a: Scalar, b: Scalar) -> Parts:
    """``scalar_min_max_sub``, ``scalar32_min_max_sub``."""
    value, mask, base, size, base32, size32 = a
    value_b, mask_b, base_b, size_b, base32_b, size32_b = b
    value -= value_b
    mask = ((value + mask) ^ (value - mask_b) | mask | mask_b) & M64
    if size + size_b < M64:
        base, size = base - base_b - size_b & M64, size + size_b
    else:
        base, size = cnum.add((base, size), cnum.negate((base_b, size_b), M64), M64)
    if size32 + size32_b < M32:
        base32, size32 = base32 - base32_b - size32_b & M32, size32 + size32_b
    else:
        base32, size32 = cnum.add((base32, size32), cnum.negate((base32_b, size32_b), M32), M32)
    return value & ~mask & M64, mask, base, size, base32, size32


def _neg(a: Scalar, _: Scalar) -> Parts:
    """``adjust_scalar_min_max_vals``, BPF_NEG."""
    return _sub(ZERO, a)


def _product(a: Cnum, b: Cnum, full: int) -> Cnum:
    """Return the range of all products, the ring's whole if one may overflow."""
    most = full >> 1
    if a[0] + a[1] <= most and b[0] + b[1] <= most:  # no negative ones
        low, high = a[0] * b[0], (a[0] + a[1]) * (b[0] + b[1])
        if high <= most:
            return low, high - low
    low, high = cnum.umin(a, full) * cnum.umin(b, full), cnum.umax(a, full) * cnum.umax(b, full)
    unsigned = (low, high - low) if high <= full else (0, full)
    a_low, a_high = cnum.smin(a, full), cnum.smax(a, full)
    b_low, b_high = cnum.smin(b, full), cnum.smax(b, full)
    corners = a_low * b_low, a_low * b_high, a_high * b_low, a_high * b_high
    low, high = min(corners), max(corners)
    if low < ~most or high > most:
        low, high = ~most, most
    return cnum.intersect(unsigned, cnum.from_srange(low, high, full), full)


def _mul(a: Scalar, b: Scalar) -> Parts:
    """``scalar_min_max_mul``, ``scalar32_min_max_mul``."""
    r64, r32 = _product(a.r64, b.r64, M64), _product(a.r32, b.r32, M32)
    return *tnum.mul(a.var_off, b.var_off), *r64, *r32


def _and(a: Scalar, b: Scalar) -> Parts:
    """``scalar_min_max_and``, ``scalar32_min_max_and``."""
    value_a, mask_a, base, size, base32, size32 = a
    value_b, mask_b, base_b, size_b, base32_b, size32_b = b
    value = value_a & value_b
    mask = (value_a | mask_a) & (value_b | mask_b) & ~value
    low = value & M32
    if not mask_b and not mask:
        return value, 0, value, 0, low, 0
    if (mask_b | mask) & M32:
        high = M32 if size32 > M32 - base32 else base32 + size32
        high_b = M32 if size32_b > M32 - base32_b else base32_b + size32_b
        base32, size32 = low, (high if high < high_b else high_b) - low & M32
    else:
        base32, size32 = low, 0
    high = M64 if size > M64 - base else base + size
    high_b = M64 if size_b > M64 - base_b else base_b + size_b
    size = (high if high < high_b else high_b) - value & M64
    return update_bounds((value, mask, value, size, base32, size32))


def _or(a: Scalar, b: Scalar) -> Parts:
    """``scalar_min_max_or``, ``scalar32_min_max_or``."""
    value_a, mask_a, base, size, base32, size32 = a
    value_b, mask_b, base_b, size_b, base32_b, size32_b = b
    value = value_a | value_b
    mask = (mask_a | mask_b) & ~value
    low = value & M32
    if not mask_b and not mask:
        return value, 0, value, 0, low, 0
    if (mask_b | mask) & M32:
        base32 = max(
            0 if size32 > M32 - base32 else base32, 0 if size32_b > M32 - base32_b else base32_b
        )
        size32 = (low | mask & M32) - base32 & M32
    else:
        base32, size32 = low, 0
    base = max(0 if size > M64 - base else base, 0 if size_b > M64 - base_b else base_b)
    return update_bounds((value, mask, base, (value | mask) - base & M64, base32, size32))


def _xor(a: Scalar, b: Scalar) -> Parts:
    """``scalar_min_max_xor``, ``scalar32_min_max_xor``."""
    mask = a[1] | b[1]
    value = (a[0] ^ b[0]) & ~mask
    return value, mask, value, mask, value & M32, mask & M32


def _shifted32(a: Scalar, shift: int) -> Cnum:
    """Return the low range shifted left, if no bit can leave it (``__scalar32_min_max_lsh``)."""
    high = a.u32_max
    if shift > 31 or high > 1 << 31 - shift:
        return cnum.UNBOUNDED32
    low = a.u32_min
    return low << shift, high - low << shift


def _lsh(bits: int, a: Scalar, shift: int) -> Parts:
    """``scalar_min_max_lsh``, ``scalar32_min_max_lsh``."""
    r32 = _shifted32(a, shift)
    value, mask = a[0] << shift, a[1] << shift
    if bits == 32:
        return update_bounds32((value & M32, mask & M32, 0, M64, *r32))
    r64 = cnum.UNBOUNDED64
    high = a.umax
    if high <= 1 << 63 - shift:
        low = a.umin
        r64 = low << shift, high - low << shift
    if shift == 32:  # with an arithmetic shift back, how compilers extend the sign
        r64 = cnum.intersect(r64, cnum.from_srange(a.s32_min << 32, a.s32_max << 32, M64), M64)
    return update_bounds((value & M64, mask & M64, *r64, *r32))


def _rsh(bits: int, a: Scalar, shift: int) -> Parts:
    """``scalar_min_max_rsh``, ``scalar32_min_max_rsh``."""
    value, mask = a[0], a[1]
    if bits == 32:
        low, high = a.u32_min >> shift, a.u32_max >> shift
        return update_bounds32(
            ((value & M32) >> shift, (mask & M32) >> shift, 0, M64, low, high - low)
        )
    low, high = a.umin >> shift, a.umax >> shift
    return update_bounds((value >> shift, mask >> shift, low, high - low, 0, M32))


def _arsh(bits: int, a: Scalar, shift: int) -> Parts:
    """``scalar_min_max_arsh``, ``scalar32_min_max_arsh``."""
    var_off = tnum.arshift(a.var_off, shift, bits)
    if bits == 32:
        r32 = cnum.from_srange(a.s32_min >> shift, a.s32_max >> shift, M32)
        return update_bounds32((*var_off, 0, M64, *r32))
    r64 = cnum.from_srange(a.smin >> shift, a.smax >> shift, M64)
    return update_bounds((*var_off, *r64, 0, M32))


def _only(bits: int, ring: Cnum) -> Parts:
    """Return a range of that width, and nothing else known."""
    if bits == 64:
        return 0, M64, *ring, 0, M32
    return 0, M64, 0, M64, *ring


def _quotient(a: int, b: int) -> int:
    """Divide signed integers, rounding to zero."""
    return a // b if (a < 0) == (b < 0) else -(-a // b)


def _div(bits: int, a: Scalar, divisor: int) -> Parts:
    """Divide by a constant (``scalar_min_max_udiv``, ``scalar32_min_max_udiv``)."""
    if not divisor:
        return ZERO
    low, high = (a.umin, a.umax) if bits == 64 else (a.u32_min, a.u32_max)
    low, high = low // divisor, high // divisor
    return _only(bits, (low, high - low))


def _sdiv(bits: int, a: Scalar, divisor: int) -> Parts:
    """Divide by a constant, signed (``scalar_min_max_sdiv``, ``scalar32_min_max_sdiv``)."""
    if not divisor:
        return ZERO
    divisor = _signed(divisor, bits)
    low, high = (a.smin, a.smax) if bits == 64 else (a.s32_min, a.s32_max)
    lowest = -1 << bits - 1
    if divisor == -1 and low == lowest:  # whose quotient is itself
        high = low if high == low else ~lowest
    else:
        low, high = sorted((_quotient(low, divisor), _quotient(high, divisor)))
    return _only(bits, cnum.from_srange(low, high, (1 << bits) - 1))


def _mod(bits: int, a: Scalar, divisor: int) -> Parts:
    """Remainder by a constant (``scalar_min_max_umod``, ``scalar32_min_max_umod``)."""
    high = a.umax if bits == 64 else a.u32_max
    if not divisor or high < divisor:
        return a
    return _only(bits, (0, divisor - 1))


def _smod(bits: int, a: Scalar, divisor: int) -> Parts:
    """Remainder by a constant, signed (``scalar_min_max_smod``, ``scalar32_min_max_smod``)."""
    if not divisor:
        return a
    most = abs(_signed(divisor, bits)) - 1
    low, high = (a.smin, a.smax) if bits == 64 else (a.s32_min, a.s32_max)
    if low >= -most and high <= most:
        return a
    if low >= 0:  # the sign of the remainder is the dividend's
        low, high = 0, min(high, most)
    elif high <= 0:
        low, high = max(low, -most), 0
    else:
        low, high = -most, most
    return _only(bits, cnum.from_srange(low, high, (1 << bits) - 1))


_SHIFTS = frozenset(("lsh", "rsh", "arsh"))
_ANY = {"add": _add, "sub": _sub, "neg": _neg, "mul": _mul, "and": _and, "or": _or, "xor": _xor}
_BY_CONST = {
    "lsh": _lsh,
    "rsh": _rsh,
    "arsh": _arsh,
    "div": _div,
    "sdiv": _sdiv,
    "mod": _mod,
    "smod": _smod,
}


@lru_cache(maxsize=1 << 14)
def _alu(op: str, bits: int, dst: Scalar, src: Scalar) -> Scalar:
    """``adjust_scalar_min_max_vals`` without its byte swap and its fork."""
    result: Parts
    plain = _ANY.get(op)
    if plain:
        result = plain(dst, src)
    else:
        # Computed for a known operand only (``is_safe_to_compute_dst_reg_range``).
        if bits == 64:
            known, operand = not src.mask and not src.size, src.base
        else:
            known, operand = not src.mask & M32 and not src.size32, src.base32
        if not known or (op in _SHIFTS and src.umax >= bits):
            return UNKNOWN
        result = _BY_CONST[op](bits, dst, operand)
    return sane(sync(result if bits == 64 else _zero_extend(result)))


# Two constants give one, here without the work. The kernel does not compute remainders.
_EXACT: dict[str, Callable[[int, int], int]] = {
    "add": int.__add__,
    "sub": int.__sub__,
    "mul": int.__mul__,
    "and": int.__and__,
    "or": int.__or__,
    "xor": int.__xor__,
    "mov": lambda _, b: b,
    "neg": lambda a, _: -a,
}


def alu(op: str, bits: int, dst: Scalar, src: Scalar) -> Scalar:
    """Return the register after ``dst = dst op src`` (``adjust_scalar_min_max_vals``).

    *op* is a name of ``Alu.op``, *bits* 32 or 64. An immediate is ``const(imm)``; neg does
    not look at *src*. What the kernel refuses (a shift by a too large immediate, division
    by an immediate 0) is for the caller to refuse; see ``fork`` for and and or.
    """
    if not (dst[1] or src[1] or dst[3] or src[3] or dst[5] or src[5]):
        exact = _EXACT.get(op)
        if exact:
            if bits == 64:
                return const(exact(dst[0], src[0]))
            return const(exact(dst[0], src[0]) & M32)
    if op == "mov":
        return src if bits == 64 else mov32(src)
    return _alu(op, bits, dst, src)


def fork(op: str, dst: Scalar, src: Scalar) -> tuple[Scalar, Scalar] | None:
    """Split *dst* before ``dst op= src``, if it is 0 or -1 (``maybe_fork_scalars``).

    Returns *dst* for the state to push, at this same instruction, and *dst* to go on with
    here: the operation is still to be applied to both. None: no split.
    """
    if src.mask or (op != "and" and op != "or"):
        return None
    if dst.base == M64 and dst.size == 1:
        return ZERO, const(M64)
    if dst.base32 == M32 and dst.size32 == 1:
        value, mask = dst.value & HIGH, dst.mask & HIGH
        r64 = dst.r64
        return Scalar(value, mask, *r64, 0, 0), Scalar(value | M32, mask, *r64, M32, 0)
    return None


def add_offset(op: str, pointer: Scalar, offset: Scalar, tighten: bool = True) -> Scalar:
    """Add or subtract an offset to that of a pointer (``adjust_ptr_min_max_vals``).

    *op* is "add" or "sub". *tighten* is false for a packet pointer that keeps its id or
    range: the new bits then do not narrow its 64-bit range.
    """
    if op == "add":
        var_off = tnum.add(pointer.var_off, offset.var_off)
        r64 = cnum.add(pointer.r64, offset.r64, M64)
    else:
        var_off = tnum.sub(pointer.var_off, offset.var_off)
        r64 = cnum.add(pointer.r64, cnum.negate(offset.r64, M64), M64)
    result = (*var_off, *r64, 0, M32)
    return sync(result) if tighten else _new(Scalar, update_bounds32(result))


def add_linked(known: Scalar, offset: Scalar, bits: int) -> Scalar:
    """Return a register that is *known* plus a constant *offset* (``sync_linked_regs``).

    *bits* is 32 where the link was made by a 32-bit addition.
    """
    return alu("add", bits, known, offset)


def clamp(scalar: Scalar, low: int, high: int) -> Scalar:
    """Limit to signed 32-bit *low* to *high* in both widths (``__mark_reg_s32_range``)."""
    r32 = cnum.from_srange(max(scalar.s32_min, low), min(scalar.s32_max, high), M32)
    r64 = cnum.from_srange(max(scalar.smin, low), min(scalar.smax, high), M64)
    return sane(sync((scalar.value, scalar.mask, *r64, *r32)))


# Comparison

Pair = tuple[Scalar, Scalar]


def _unsigned(ring: Cnum, full: int) -> tuple[int, int]:
    """Return unsigned minimum and maximum."""
    base, size = ring
    return (0, full) if size > full - base else (base, base + size)


def _signed_bounds(ring: Cnum, full: int) -> tuple[int, int]:
    """Return signed minimum and maximum."""
    sign = (full >> 1) + 1
    base, size = ring[0] ^ sign, ring[1]  # turned by half, as if unsigned
    return (-sign, full - sign) if size > full - base else (base - sign, base + size - sign)


def _decide(op: str, bits: int, a: Scalar, b: Scalar) -> bool | None:
    """Compare what is known of both (``is_scalar_branch_taken``, up to the simulation)."""
    if bits == 64:
        full, mine, theirs = M64, a[2:4], b[2:4]
    else:
        full, mine, theirs = M32, a[4:6], b[4:6]
    if op == "eq" or op == "ne":
        differ, unknown = a[0] ^ b[0], a[1] | b[1]
        if not unknown & full:
            return (not differ & full) == (op == "eq")
        if (
            differ & ~unknown & full
            or _apart(mine, theirs, full)
            or (bits == 64 and _apart(a[4:6], b[4:6], M32))
        ):
            return op == "ne"
        return None
    if op == "set":
        if b[1] & full:
            a, b = b, a
        if b[1] & full:
            return None
        tested = b[0] & full
        if a[0] & tested:
            return True
        return None if (a[0] | a[1]) & tested else False
    bounds = _signed_bounds if op[0] == "s" else _unsigned
    low, high = bounds(mine, full)
    low_b, high_b = bounds(theirs, full)
    relation = op[-2:]
    if relation == "lt" or relation == "ge":
        if high < low_b:
            return relation == "lt"
        if low >= high_b:
            return relation == "ge"
    else:
        if low > high_b:
            return relation == "gt"
        if high <= low_b:
            return relation == "le"
    return None


def _apart(a: Cnum, b: Cnum, full: int) -> bool:
    """Say whether the unsigned or the signed ranges have no value in common."""
    low, high = _unsigned(a, full)
    low_b, high_b = _unsigned(b, full)
    if low > high_b or high < low_b:
        return True
    low, high = _signed_bounds(a, full)
    low_b, high_b = _signed_bounds(b, full)
    return low > high_b or high < low_b


def _constrain(op: str, bits: int, a: Scalar, b: Scalar) -> tuple[Parts, Parts]:
    """Narrow both, given that ``a op b`` holds (``regs_refine_cond_op``).

    The operation "clear" is the opposite of "set".
    """
    order = _ORDERS.get(op)
    if order:
        swapped, signed, strict = order
        if not swapped:
            return _constrain_below(bits, signed, strict, a, b)
        parts_b, parts_a = _constrain_below(bits, signed, strict, b, a)
        return parts_a, parts_b
    full = M64 if bits == 64 else M32
    if op != "eq":
        if not b[1] & full:
            return _constrain_by(op, bits, a, b[0] & full), b
        if not a[1] & full:
            return a, _constrain_by(op, bits, b, a[0] & full)
        return a, b
    if bits == 64:
        base, size = cnum.intersect(a[2:4], b[2:4], M64)
        mask = a[1] & b[1]
        value = (a[0] | b[0]) & ~mask
        return (value, mask, base, size, *a[4:6]), (value, mask, base, size, *b[4:6])
    base, size = cnum.intersect(a[4:6], b[4:6], M32)
    mask = a[1] & b[1] & M32
    value = (a[0] | b[0]) & M32 & ~mask
    return (
        (a[0] & HIGH | value, a[1] & HIGH | mask, a[2], a[3], base, size),
        (b[0] & HIGH | value, b[1] & HIGH | mask, b[2], b[3], base, size),
    )


def _constrain_below(
    bits: int, signed: bool, strict: int, a: Scalar, b: Scalar
) -> tuple[Parts, Parts]:
    """Narrow both, given that *a* is below *b*, or equal if not *strict*."""
    if bits == 64:
        full, mine, theirs = M64, a[2:4], b[2:4]
    else:
        full, mine, theirs = M32, a[4:6], b[4:6]
    if signed:
        most = full >> 1
        below = cnum.from_srange(~most, _signed_bounds(theirs, full)[1] - strict, full)
        mine = cnum.intersect(mine, below, full)
        above = cnum.from_srange(_signed_bounds(mine, full)[0] + strict, most, full)
    else:
        mine = cnum.intersect(mine, (0, _unsigned(theirs, full)[1] - strict & full), full)
        low = _unsigned(mine, full)[0] + strict & full
        above = low, full - low
    base, size = mine
    base_b, size_b = cnum.intersect(theirs, above, full)
    if bits == 64:
        return (
            (a[0], a[1], base, size, a[4], a[5]),
            (b[0], b[1], base_b, size_b, b[4], b[5]),
        )
    return (
        (a[0], a[1], a[2], a[3], base, size),
        (b[0], b[1], b[2], b[3], base_b, size_b),
    )


def _constrain_by(op: str, bits: int, scalar: Scalar, known: int) -> Parts:
    """Narrow the other operand of "ne", "set" or "clear" with a constant."""
    full = M64 if bits == 64 else M32
    if op == "ne":
        others = known + 1 & full, full - 1
        if bits == 64:
            r64 = cnum.intersect(scalar[2:4], others, M64)
            return (*scalar[:2], *r64, *scalar[4:6])
        return (*scalar[:4], *cnum.intersect(scalar[4:6], others, M32))
    if op == "set":
        if known & (known - 1) or not known:
            return scalar  # which of several bits is set is not known
        return (scalar[0] | known, scalar[1] & ~known, *scalar[2:])
    return scalar[0] & ~known, scalar[1] & ~known, 0, M64, 0, M32


def _narrowed(op: str, bits: int, a: Scalar, b: Scalar) -> Pair | None:
    """Return both where ``a op b`` holds, synchronised; None if it cannot."""
    parts_a, parts_b = _constrain(op, bits, a, b)
    x = sync(parts_a)
    if x.is_empty:
        return None
    # A constant that lost nothing stays as it is.
    y = b if parts_b == b and not (b[1] or b[3] or b[5]) else sync(parts_b)
    return None if y.is_empty else (sane(x), sane(y))


@lru_cache(maxsize=1 << 14)
def _simulate(op: str, bits: int, a: Scalar, b: Scalar) -> tuple[Pair | None, Pair | None]:
    """Narrow for both branches, or find one dead (``simulate_both_branches_taken``)."""
    otherwise = _narrowed(_REVERSED[op], bits, a, b)
    if otherwise is None:
        return (a, b), None
    taken = _narrowed(op, bits, a, b)
    if taken is None:
        return None, (a, b)
    return taken, otherwise


def refine(
    op: str, bits: int, a: Scalar, b: Scalar, same: bool = False
) -> tuple[Pair | None, Pair | None]:
    """Return both operands where ``a op b`` jumps, and where it does not (``check_cond_jmp_op``).

    *op* is a name of ``Jump.op``, *bits* 32 or 64; *same* says that both operands are one
    register. None is a branch that cannot be taken, and then the operands of the other
    one are as they were: the kernel learns nothing from a decided jump.
    """
    taken = _decide_same(op, bits, a) if same else _decide(op, bits, a, b)
    if taken is not None:
        return ((a, b), None) if taken else (None, (a, b))
    full = M64 if bits == 64 else M32
    if same or (op == "set" and a.mask & full and b.mask & full):
        pair = sane(a), sane(b)
        return pair, pair
    return _simulate(op, bits, a, b)


def _decide_same(op: str, bits: int, a: Scalar) -> bool | None:
    """Compare a register with itself (``is_scalar_branch_taken``)."""
    if op != "set":
        return op in ("eq", "ge", "le", "sge", "sle")
    value, mask, low, high = a.value, a.mask, a.smin, a.smax
    if bits == 32:
        value, mask, low, high = value & M32, mask & M32, a.s32_min, a.s32_max
    if not mask:
        return value != 0
    return None if low <= 0 <= high else True


def branch_taken(op: str, bits: int, a: Scalar, b: Scalar, same: bool = False) -> bool | None:
    """Say whether ``a op b`` always jumps, or never, or None: may do both (``is_branch_taken``)."""
    taken, otherwise = refine(op, bits, a, b, same)
    if taken is None:
        return False
    return True if otherwise is None else None


# fmt: off
_ORDERS = {  # which operand is the lower one (1: the second), signed, strict
    "le": (0, False, 0), "lt": (0, False, 1), "sle": (0, True, 0), "slt": (0, True, 1),
    "ge": (1, False, 0), "gt": (1, False, 1), "sge": (1, True, 0), "sgt": (1, True, 1),
}
_REVERSED = {  # where it does not hold, this does (``rev_opcode``)
    "eq": "ne", "ne": "eq", "set": "clear", "ge": "lt", "gt": "le", "le": "gt", "lt": "ge",
    "sge": "slt", "sgt": "sle", "sle": "sgt", "slt": "sge",
}
# fmt: on


# Pruning and the log


def is_subset(old: Scalar, cur: Scalar) -> bool:
    """Say whether all of *cur* was covered by *old* (``range_within`` and ``tnum_in``)."""
    if old == cur:
        return True
    value, mask, base, size, base32, size32 = old
    cur_value, cur_mask, cur_base, cur_size, cur_base32, cur_size32 = cur
    if cur_mask & ~mask or cur_value & ~mask != value:
        return False
    if size == M64 or size32 == M32 or cur_size == M64 or cur_size32 == M32:
        return range_within(old, cur)  # among them the empty ones
    return (cur_base - base & M64) + cur_size <= size and (
        cur_base32 - base32 & M32
    ) + cur_size32 <= size32


def range_within(old: Scalar, cur: Scalar) -> bool:
    """Say whether both ranges of *cur* lie in those of *old* (``range_within``)."""
    return cnum.is_subset(old.r64, cur.r64, M64) and cnum.is_subset(old.r32, cur.r32, M32)
