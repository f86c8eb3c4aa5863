"""What the verifier knows of a scalar: its bits and its ranges, and how instructions change them.

A ``Scalar`` is what Linux 7.3 keeps in ``struct bpf_reg_state``: a tnum (``var_off``)
and two circular ranges, 64-bit (``r64``) and 32-bit (``r32``, of the low half), from
which unsigned and signed minimum and maximum are read. Transfer functions are pure and
give the kernel's own result, bit for bit, also where it could be sharper; each docstring
names the kernel function mirrored (kernel/bpf/verifier.c, 7.3.4).

Operands of 32-bit operations are whole registers; results are zero-extended as the
kernel does it. Integers are Python's, unsigned unless a name says signed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from harness.verifier import cnum, tnum
from harness.verifier.cnum import Cnum
from harness.verifier.tnum import HIGH, M32, M64, S32, S64, Tnum

_new = tuple.__new__  # half the time of the named constructor


class Scalar(NamedTuple):
    """The abstract value of a register: bits, 64-bit range, range of the low 32 bits.

    A tuple, because the verifier makes one for each instruction it processes and
    compares them when it prunes. A pointer has one too, for its variable offset.
    """

    value: int  # of the tnum: bits known to be 1
    mask: int  # of the tnum: bits not known
    base: int  # of the 64-bit range
    size: int
    base32: int  # of the 32-bit range
    size32: int

    @staticmethod
    def unknown() -> Scalar:
        """Return the scalar of which nothing is known (``__mark_reg_unknown``)."""
        return UNKNOWN

    @staticmethod
    def const(value: int) -> Scalar:
        """Return the scalar of one value, wrapped to 64 bits (``__mark_reg_known``)."""
        return const(value)

    @staticmethod
    def make(var_off: Tnum, r64: Cnum = cnum.UNBOUNDED64, r32: Cnum = cnum.UNBOUNDED32) -> Scalar:
        """Return a scalar of these parts, not synchronised (see ``sync``)."""
        return Scalar(*var_off, *r64, *r32)

    @staticmethod
    def from_load(size: int, signed: bool = False) -> Scalar:
        """Return what a load of *size* bytes of unknown memory gives (``check_mem_access``)."""
        return _LOADS[size, signed]

    @staticmethod
    def from_srange(low: int, high: int) -> Scalar:
        """Return signed *low* to *high*, 32-bit values both (``do_refine_retval_range``)."""
        return sync(
            Scalar(0, M64, *cnum.from_srange(low, high, M64), *cnum.from_srange(low, high, M32))
        )

    @staticmethod
    def from_urange(low: int, high: int) -> Scalar:
        """Return unsigned *low* to *high*, 32-bit values both (``do_refine_retval_range``)."""
        return sync(Scalar(0, M64, low, high - low, low, high - low))

    @property
    def var_off(self) -> Tnum:
        """The bits."""
        return Tnum(self[0], self[1])

    @property
    def r64(self) -> Cnum:
        """The 64-bit range."""
        return self[2], self[3]

    @property
    def r32(self) -> Cnum:
        """The range of the low 32 bits."""
        return self[4], self[5]

    @property
    def is_const(self) -> bool:
        """Say whether all 64 bits are known (``tnum_is_const``)."""
        return not self[1]

    @property
    def is_const32(self) -> bool:
        """Say whether the low 32 bits are known (``tnum_subreg_is_const``)."""
        return not self[1] & M32

    @property
    def signed_value(self) -> int:
        """The value of a constant, as a signed number."""
        return self[0] - ((self[0] & S64) << 1)

    @property
    def umin(self) -> int:
        """Unsigned 64-bit minimum (``reg_umin``)."""
        return 0 if self[3] > M64 - self[2] else self[2]

    @property
    def umax(self) -> int:
        """Unsigned 64-bit maximum (``reg_umax``)."""
        return M64 if self[3] > M64 - self[2] else self[2] + self[3]

    @property
    def smin(self) -> int:
        """Signed 64-bit minimum (``reg_smin``)."""
        return cnum.smin((self[2], self[3]), M64)

    @property
    def smax(self) -> int:
        """Signed 64-bit maximum (``reg_smax``)."""
        return cnum.smax((self[2], self[3]), M64)

    @property
    def u32_min(self) -> int:
        """Unsigned 32-bit minimum (``reg_u32_min``)."""
        return 0 if self[5] > M32 - self[4] else self[4]

    @property
    def u32_max(self) -> int:
        """Unsigned 32-bit maximum (``reg_u32_max``)."""
        return M32 if self[5] > M32 - self[4] else self[4] + self[5]

    @property
    def s32_min(self) -> int:
        """Signed 32-bit minimum (``reg_s32_min``)."""
        return cnum.smin((self[4], self[5]), M32)

    @property
    def s32_max(self) -> int:
        """Signed 32-bit maximum (``reg_s32_max``)."""
        return cnum.smax((self[4], self[5]), M32)

    @property
    def width(self) -> int:
        """How many low bits may be set (``get_reg_width``)."""
        return self.umax.bit_length()

    @property
    def is_empty(self) -> bool:
        """Say whether a range is empty: the branch is dead (``range_bounds_violation``)."""
        return (self[4] == M32 and self[5] == M32) or (self[2] == M64 and self[3] == M64)

    def contains(self, value: int) -> bool:
        """Say whether unsigned 64-bit *value* may be in the register."""
        return (
            value & ~self[1] == self[0]
            and cnum.contains(self.r64, value, M64)
            and cnum.contains(self.r32, value & M32, M32)
        )

    def __str__(self) -> str:
        """Return the kernel's text (``print_reg_state``)."""
        return format_scalar(self)


UNKNOWN = Scalar(0, M64, 0, M64, 0, M32)
_ZERO = Scalar(0, 0, 0, 0, 0, 0)


@lru_cache(maxsize=1 << 14)
def const(value: int) -> Scalar:
    """Return the scalar of one value, wrapped to 64 bits (``__mark_reg_known``)."""
    value &= M64
    return Scalar(value, 0, value, 0, value & M32, 0)


# Synchronisation: what each part says of the others


def _known(value: int) -> Scalar:
    """Return the constant; *value* is unsigned (``___mark_reg_known``)."""
    return _new(Scalar, (value, 0, value, 0, value & M32, 0))


def _from_tnum(value: int, mask: int, full: int) -> Cnum:
    """Return the range of a tnum of the ring's width (``cnum64_from_tnum``)."""
    sign = (full >> 1) + 1
    if mask & sign:
        return cnum.from_srange(value | sign, value | mask & ~sign, full)
    return value, mask


def _update32(scalar: Scalar) -> Scalar:
    """Tighten the 32-bit range by the bits (``__update_reg32_bounds``)."""
    value, mask, base, size, base32, size32 = scalar
    mask32 = mask & M32
    base32, size32 = cnum.intersect((base32, size32), _from_tnum(value & M32, mask32, M32), M32)
    return _new(Scalar, (value, mask, base, size, base32, size32))


def _update(scalar: Scalar) -> Scalar:
    """Tighten the ranges by the bits (``__update_reg_bounds``)."""
    value, mask, base, size, base32, size32 = scalar
    low_mask = mask & M32
    if low_mask != M32 or size32 == M32:
        base32, size32 = cnum.intersect(
            (base32, size32), _from_tnum(value & M32, low_mask, M32), M32
        )
    if mask != M64 or size == M64:
        base, size = cnum.intersect((base, size), _from_tnum(value, mask, M64), M64)

    # Where bits and unsigned range have one value in common, that is it.
    if size > M64 - base:
        umin, umax = 0, M64
    else:
        umin, umax = base, base + size
    following = tnum.step((value, mask), umin)
    if umin & ~mask == value:
        if following > umax:
            return _known(umin)
    elif following == value | mask or (
        following <= umax and tnum.step((value, mask), following) > umax
    ):
        return _known(following)
    return _new(Scalar, (value, mask, base, size, base32, size32))


def _deduce(scalar: Scalar) -> Scalar:
    """Tighten the 32-bit range by the 64-bit one and back (``__reg_deduce_bounds``)."""
    value, mask, base, size, base32, size32 = scalar
    if size < M32 or size32 == M32 or size == M64:
        base32, size32 = cnum.intersect((base32, size32), cnum.low_half((base, size)), M32)
    base, size = cnum.narrow((base, size), (base32, size32))
    return _new(Scalar, (value, mask, base, size, base32, size32))


def _offset(scalar: Scalar) -> Scalar:
    """Tighten the bits by the unsigned ranges (``__reg_bound_offset``)."""
    value, mask, base, size, base32, size32 = scalar
    if size <= M64 - base:
        bits = (base ^ base + size).bit_length()
        if bits < 64:
            above = M64 ^ (1 << bits) - 1  # the bits equal in minimum and maximum
            mask &= ~above
            value = (value | base & above) & ~mask
    if size32 <= M32 - base32:
        bits = (base32 ^ base32 + size32).bit_length()
        above = M32 ^ (1 << bits) - 1
        mask &= ~above
        value = (value | base32 & above) & ~mask
    return _new(Scalar, (value, mask, base, size, base32, size32))


def sync(scalar: Scalar) -> Scalar:
    """Let the bits and both ranges tighten each other (``reg_bounds_sync``)."""
    if scalar.is_empty:
        return scalar
    updated = _update(scalar)
    deduced = _deduce(updated)
    if deduced != updated:
        deduced = _deduce(deduced)
    bounded = _offset(deduced)
    return bounded if bounded == updated else _update(bounded)


def violation(scalar: Scalar) -> str | None:
    """Name the invariant that *scalar* breaks, if any (``reg_bounds_sanity_check``)."""
    value, mask, base, size, base32, size32 = scalar
    if scalar.is_empty:
        return "range bounds violation"
    if not mask and (size or base != value):
        return "const tnum out of sync with range bounds"
    if not mask & M32 and (size32 or base32 != value & M32):
        return "const subreg tnum out of sync with range bounds"
    return None


def forget_ranges(scalar: Scalar) -> Scalar:
    """Keep the bits only, as after a broken invariant (``__mark_reg_unbounded``)."""
    return _new(Scalar, (scalar[0], scalar[1], 0, M64, 0, M32))


def _sane(scalar: Scalar) -> Scalar:
    """Return *scalar*, without its ranges if they contradict its bits."""
    return scalar if violation(scalar) is None else forget_ranges(scalar)


def _zero_extend(scalar: Scalar) -> Scalar:
    """Let the low half be the whole (``zext_32_to_64``); not synchronised."""
    value, mask, _, _, base32, size32 = scalar
    low, size = (0, M32) if size32 > M32 - base32 else (base32, size32)
    return _new(Scalar, (value & M32, mask & M32, low, size, base32, size32))


# Moves, loads and byte order


def mov32(src: Scalar) -> Scalar:
    """Return the low half of *src*, zero-extended (``check_alu_op``, 32-bit mov)."""
    return sync(_zero_extend(src))


@lru_cache(maxsize=1 << 12)
def truncate(scalar: Scalar, size: int) -> Scalar:
    """Keep the low *size* bytes, 1, 2 or 4, as a narrow load or fill (``coerce_reg_to_size``).

    8 bytes are *scalar* as it is.
    """
    if size == 8:
        return scalar
    keep = (1 << size * 8) - 1
    low, high = scalar.umin, scalar.umax
    if low & ~keep == high & ~keep:
        low &= keep
        r64 = low, (high & keep) - low
    else:
        r64 = 0, keep
    r32 = cnum.UNBOUNDED32 if size < 4 else scalar.r32
    return sync(Scalar(scalar.value & keep, scalar.mask & keep, *r64, *r32))


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
        if to == 64:
            return const(value)
        r32 = cnum.from_srange(value, value, M32)
        return sync(_zero_extend(Scalar(value & M64, 0, *scalar.r64, *r32)))
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
    return sync(_zero_extend(Scalar(*var_off, *scalar.r64, *r32)))


@lru_cache(maxsize=1 << 12)
def endian(op: str, bits: int, scalar: Scalar) -> Scalar:
    """Apply "le", "be" or "bswap" on a little-endian machine (``scalar_byte_swap``)."""
    if op != "le":
        scalar = Scalar.make(tnum.bswap(scalar.var_off, bits))
    if bits != 64:
        scalar = truncate(scalar, bits // 8)
    return sync(scalar)


_LOADS = {
    **{(size, False): truncate(UNKNOWN, size) for size in (1, 2, 4, 8)},
    **{(size, True): sext(UNKNOWN, size * 8) for size in (1, 2, 4)},
}


# Arithmetic. Each function takes whole registers and returns the result before
# synchronisation. Those without *bits* compute both ranges, whatever the width.


def _add(a: Scalar, b: Scalar) -> Scalar:
    """``scalar_min_max_add``, ``scalar32_min_max_add``."""
    var_off = tnum.add(a.var_off, b.var_off)
    return Scalar(*var_off, *cnum.add(a.r64, b.r64, M64), *cnum.add(a.r32, b.r32, M32))


def _sub(a: Scalar, b: Scalar) -> Scalar:
    """``scalar_min_max_sub``, ``scalar32_min_max_sub``."""
    r64 = cnum.add(a.r64, cnum.negate(b.r64, M64), M64)
    r32 = cnum.add(a.r32, cnum.negate(b.r32, M32), M32)
    return Scalar(*tnum.sub(a.var_off, b.var_off), *r64, *r32)


def _neg(a: Scalar, _: Scalar) -> Scalar:
    """``adjust_scalar_min_max_vals``, BPF_NEG."""
    return _sub(_ZERO, a)


def _product(a: Cnum, b: Cnum, full: int) -> Cnum:
    """Return the range of all products, the ring's whole if one may overflow."""
    low, high = cnum.umin(a, full) * cnum.umin(b, full), cnum.umax(a, full) * cnum.umax(b, full)
    unsigned = (low, high - low) if high <= full else (0, full)
    a_low, a_high = cnum.smin(a, full), cnum.smax(a, full)
    b_low, b_high = cnum.smin(b, full), cnum.smax(b, full)
    corners = a_low * b_low, a_low * b_high, a_high * b_low, a_high * b_high
    low, high = min(corners), max(corners)
    most = full >> 1
    if low < ~most or high > most:
        low, high = ~most, most
    return cnum.intersect(unsigned, cnum.from_srange(low, high, full), full)


def _mul(a: Scalar, b: Scalar) -> Scalar:
    """``scalar_min_max_mul``, ``scalar32_min_max_mul``."""
    r64, r32 = _product(a.r64, b.r64, M64), _product(a.r32, b.r32, M32)
    return Scalar(*tnum.mul(a.var_off, b.var_off), *r64, *r32)


def _and(a: Scalar, b: Scalar) -> Scalar:
    """``scalar_min_max_and``, ``scalar32_min_max_and``."""
    value, mask = tnum.and_(a.var_off, b.var_off)
    if not b.mask and not mask:
        return const(value)
    low = value & M32
    if (b.mask | mask) & M32:
        r32 = cnum.from_urange(low, min(a.u32_max, b.u32_max), M32)
    else:
        r32 = low, 0
    return _update(Scalar(value, mask, *cnum.from_urange(value, min(a.umax, b.umax), M64), *r32))


def _or(a: Scalar, b: Scalar) -> Scalar:
    """``scalar_min_max_or``, ``scalar32_min_max_or``."""
    value, mask = tnum.or_(a.var_off, b.var_off)
    if not b.mask and not mask:
        return const(value)
    low = value & M32
    if (b.mask | mask) & M32:
        r32 = cnum.from_urange(max(a.u32_min, b.u32_min), low | mask & M32, M32)
    else:
        r32 = low, 0
    r64 = cnum.from_urange(max(a.umin, b.umin), value | mask, M64)
    return _update(Scalar(value, mask, *r64, *r32))


def _xor(a: Scalar, b: Scalar) -> Scalar:
    """``scalar_min_max_xor``, ``scalar32_min_max_xor``."""
    value, mask = tnum.xor(a.var_off, b.var_off)
    return Scalar(value, mask, value, mask, value & M32, mask & M32)


def _shifted32(a: Scalar, shift: int) -> Cnum:
    """Return the low range shifted left, if no bit can leave it (``__scalar32_min_max_lsh``)."""
    high = a.u32_max
    if shift > 31 or high > 1 << 31 - shift:
        return cnum.UNBOUNDED32
    low = a.u32_min
    return low << shift, high - low << shift


def _lsh(bits: int, a: Scalar, shift: int) -> Scalar:
    """``scalar_min_max_lsh``, ``scalar32_min_max_lsh``."""
    r32 = _shifted32(a, shift)
    if bits == 32:
        low = Tnum(a.value << shift & M32, a.mask << shift & M32)
        return _update32(Scalar(*low, 0, M64, *r32))
    r64 = cnum.UNBOUNDED64
    if a.umax <= 1 << 63 - shift:
        r64 = a.umin << shift, a.umax - a.umin << shift
    if shift == 32:  # with an arithmetic shift back, how compilers extend the sign
        r64 = cnum.intersect(r64, cnum.from_srange(a.s32_min << 32, a.s32_max << 32, M64), M64)
    return _update(Scalar(*tnum.lshift(a.var_off, shift), *r64, *r32))


def _rsh(bits: int, a: Scalar, shift: int) -> Scalar:
    """``scalar_min_max_rsh``, ``scalar32_min_max_rsh``."""
    if bits == 32:
        var_off = tnum.rshift(tnum.subreg(a.var_off), shift)
        r32 = cnum.from_urange(a.u32_min >> shift, a.u32_max >> shift, M32)
        return _update32(Scalar(*var_off, 0, M64, *r32))
    r64 = cnum.from_urange(a.umin >> shift, a.umax >> shift, M64)
    return _update(Scalar(*tnum.rshift(a.var_off, shift), *r64, 0, M32))


def _arsh(bits: int, a: Scalar, shift: int) -> Scalar:
    """``scalar_min_max_arsh``, ``scalar32_min_max_arsh``."""
    var_off = tnum.arshift(a.var_off, shift, bits)
    if bits == 32:
        r32 = cnum.from_srange(a.s32_min >> shift, a.s32_max >> shift, M32)
        return _update32(Scalar(*var_off, 0, M64, *r32))
    r64 = cnum.from_srange(a.smin >> shift, a.smax >> shift, M64)
    return _update(Scalar(*var_off, *r64, 0, M32))


def _only(bits: int, ring: Cnum) -> Scalar:
    """Return a scalar with a range of that width and nothing else known."""
    if bits == 64:
        return Scalar(0, M64, *ring, 0, M32)
    return Scalar(0, M64, 0, M64, *ring)


def _quotient(a: int, b: int) -> int:
    """Divide signed integers, rounding to zero."""
    return a // b if (a < 0) == (b < 0) else -(-a // b)


def _div(bits: int, a: Scalar, divisor: int) -> Scalar:
    """Divide by a constant (``scalar_min_max_udiv``, ``scalar32_min_max_udiv``)."""
    if not divisor:
        return _ZERO
    low, high = (a.umin, a.umax) if bits == 64 else (a.u32_min, a.u32_max)
    low, high = low // divisor, high // divisor
    return _only(bits, (low, high - low))


def _sdiv(bits: int, a: Scalar, divisor: int) -> Scalar:
    """Divide by a constant, signed (``scalar_min_max_sdiv``, ``scalar32_min_max_sdiv``)."""
    if not divisor:
        return _ZERO
    divisor = _signed(divisor, bits)
    low, high = (a.smin, a.smax) if bits == 64 else (a.s32_min, a.s32_max)
    lowest = -1 << bits - 1
    if divisor == -1 and low == lowest:  # whose quotient is itself
        high = low if high == low else ~lowest
    else:
        low, high = sorted((_quotient(low, divisor), _quotient(high, divisor)))
    return _only(bits, cnum.from_srange(low, high, (1 << bits) - 1))


def _mod(bits: int, a: Scalar, divisor: int) -> Scalar:
    """Remainder by a constant (``scalar_min_max_umod``, ``scalar32_min_max_umod``)."""
    high = a.umax if bits == 64 else a.u32_max
    if not divisor or high < divisor:
        return a
    return _only(bits, (0, divisor - 1))


def _smod(bits: int, a: Scalar, divisor: int) -> Scalar:
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
    if op == "mov":
        return src if bits == 64 else mov32(src)
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
    return _sane(sync(result if bits == 64 else _zero_extend(result)))


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
    return _alu(op, bits, dst, src)


def fork(op: str, dst: Scalar, src: Scalar) -> tuple[Scalar, Scalar] | None:
    """Split *dst* before ``dst op= src``, if it is 0 or -1 (``maybe_fork_scalars``).

    Returns *dst* for the state to push, at this same instruction, and *dst* to go on with
    here: the operation is still to be applied to both. None: no split.
    """
    if src.mask or (op != "and" and op != "or"):
        return None
    if dst.base == M64 and dst.size == 1:
        return _ZERO, const(M64)
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
    result = Scalar(*var_off, *r64, 0, M32)
    return sync(result) if tighten else _update32(result)


def clamp(scalar: Scalar, low: int, high: int) -> Scalar:
    """Limit to signed 32-bit *low* to *high* in both widths (``__mark_reg_s32_range``)."""
    r32 = cnum.from_srange(max(scalar.s32_min, low), min(scalar.s32_max, high), M32)
    r64 = cnum.from_srange(max(scalar.smin, low), min(scalar.smax, high), M64)
    return _sane(sync(Scalar(scalar.value, scalar.mask, *r64, *r32)))


# Comparison

Pair = tuple[Scalar, Scalar]


def _decide(op: str, bits: int, a: Scalar, b: Scalar) -> bool | None:
    """Compare what is known of both (``is_scalar_branch_taken``, up to the simulation)."""
    if bits == 64:
        full, mine, theirs = M64, a.r64, b.r64
    else:
        full, mine, theirs = M32, a.r32, b.r32
    match op:
        case "gt" | "le":
            low, high = cnum.umin(theirs, full), cnum.umax(theirs, full)
            if cnum.umin(mine, full) > high:
                return op == "gt"
            if cnum.umax(mine, full) <= low:
                return op == "le"
        case "lt" | "ge":
            low, high = cnum.umin(theirs, full), cnum.umax(theirs, full)
            if cnum.umax(mine, full) < low:
                return op == "lt"
            if cnum.umin(mine, full) >= high:
                return op == "ge"
        case "sgt" | "sle":
            low, high = cnum.smin(theirs, full), cnum.smax(theirs, full)
            if cnum.smin(mine, full) > high:
                return op == "sgt"
            if cnum.smax(mine, full) <= low:
                return op == "sle"
        case "slt" | "sge":
            low, high = cnum.smin(theirs, full), cnum.smax(theirs, full)
            if cnum.smax(mine, full) < low:
                return op == "slt"
            if cnum.smin(mine, full) >= high:
                return op == "sge"
        case "eq" | "ne":
            if not (a.mask | b.mask) & full:
                return (not (a.value ^ b.value) & full) == (op == "eq")
            if (a.value ^ b.value) & ~a.mask & ~b.mask & full:
                return op == "ne"
            if _apart(mine, theirs, full) or (bits == 64 and _apart(a.r32, b.r32, M32)):
                return op == "ne"
        case "set":
            if b.mask & full:
                a, b = b, a
            tested = b.value & full
            if a.value & tested:
                return True
            if not (a.value | a.mask) & tested:
                return False
    return None


def _apart(a: Cnum, b: Cnum, full: int) -> bool:
    """Say whether the unsigned or the signed ranges have no value in common."""
    return (
        cnum.umin(a, full) > cnum.umax(b, full)
        or cnum.umax(a, full) < cnum.umin(b, full)
        or cnum.smin(a, full) > cnum.smax(b, full)
        or cnum.smax(a, full) < cnum.smin(b, full)
    )


def _with_ring(scalar: Scalar, bits: int, ring: Cnum) -> Scalar:
    """Return *scalar* with its range of that width replaced."""
    value, mask, base, size, base32, size32 = scalar
    if bits == 64:
        return _new(Scalar, (value, mask, *ring, base32, size32))
    return _new(Scalar, (value, mask, base, size, *ring))


def _constrain(op: str, bits: int, a: Scalar, b: Scalar) -> Pair:
    """Narrow both, given that ``a op b`` holds (``regs_refine_cond_op``); not synchronised.

    The operation "clear" is the opposite of "set".
    """
    match op:
        case "ge" | "gt" | "sge" | "sgt":
            b, a = _constrain(_FLIPPED[op], bits, b, a)
            return a, b
        case "ne" | "set" | "clear":
            full = M64 if bits == 64 else M32
            if not b.mask & full:
                return _constrain_by(op, bits, a, b.value & full), b
            if not a.mask & full:
                return a, _constrain_by(op, bits, b, a.value & full)
            return a, b
        case "eq" if bits == 64:
            r64 = cnum.intersect(a.r64, b.r64, M64)
            var_off = tnum.intersect(a.var_off, b.var_off)
            return Scalar(*var_off, *r64, *a.r32), Scalar(*var_off, *r64, *b.r32)
        case "eq":
            r32 = cnum.intersect(a.r32, b.r32, M32)
            low = tnum.intersect(tnum.subreg(a.var_off), tnum.subreg(b.var_off))
            return (
                Scalar(*tnum.with_subreg(a.var_off, low), *a.r64, *r32),
                Scalar(*tnum.with_subreg(b.var_off, low), *b.r64, *r32),
            )
    full = M64 if bits == 64 else M32
    mine, theirs = (a.r64, b.r64) if bits == 64 else (a.r32, b.r32)
    strict = 1 if op in ("lt", "slt") else 0
    if op in ("lt", "le"):
        below = cnum.from_urange(0, cnum.umax(theirs, full) - strict & full, full)
        mine = cnum.intersect(mine, below, full)
        above = cnum.from_urange(cnum.umin(mine, full) + strict & full, full, full)
    else:
        most = full >> 1
        below = cnum.from_srange(~most, cnum.smax(theirs, full) - strict, full)
        mine = cnum.intersect(mine, below, full)
        above = cnum.from_srange(cnum.smin(mine, full) + strict, most, full)
    theirs = cnum.intersect(theirs, above, full)
    return _with_ring(a, bits, mine), _with_ring(b, bits, theirs)


def _constrain_by(op: str, bits: int, scalar: Scalar, known: int) -> Scalar:
    """Narrow the other operand of "ne", "set" or "clear" with a constant."""
    full = M64 if bits == 64 else M32
    if op == "ne":
        ring = scalar.r64 if bits == 64 else scalar.r32
        other = known + 1 & full, full - 1
        return _with_ring(scalar, bits, cnum.intersect(ring, other, full))
    value, mask = scalar.value, scalar.mask
    if op == "set":
        if known & (known - 1) or not known:
            return scalar  # which of several bits is set is not known
        return _new(Scalar, (value | known, mask & ~known, *scalar[2:]))
    return Scalar(value & ~known, mask & ~known, 0, M64, 0, M32)


@lru_cache(maxsize=1 << 14)
def _simulate(op: str, bits: int, a: Scalar, b: Scalar) -> tuple[Pair | None, Pair | None]:
    """Narrow for both branches, or find one dead (``simulate_both_branches_taken``)."""
    x, y = _constrain(_REVERSED[op], bits, a, b)
    x, y = sync(x), sync(y)
    if x.is_empty or y.is_empty:
        return (a, b), None
    otherwise = _sane(x), _sane(y)
    x, y = _constrain(op, bits, a, b)
    x, y = sync(x), sync(y)
    if x.is_empty or y.is_empty:
        return None, (a, b)
    return (_sane(x), _sane(y)), otherwise


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
        return (a, b), (a, b)
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
_FLIPPED = {"ge": "le", "gt": "lt", "sge": "sle", "sgt": "slt"}  # with operands exchanged
_REVERSED = {  # where it does not hold, this does (``rev_opcode``)
    "eq": "ne", "ne": "eq", "set": "clear", "ge": "lt", "gt": "le", "le": "gt", "lt": "ge",
    "sge": "slt", "sgt": "sle", "sle": "sgt", "slt": "sge",
}
# fmt: on


# Pruning and the log


def is_subset(old: Scalar, cur: Scalar) -> bool:
    """Say whether all of *cur* was covered by *old* (``range_within`` and ``tnum_in``)."""
    return old == cur or (range_within(old, cur) and tnum.is_subset(old.var_off, cur.var_off))


def range_within(old: Scalar, cur: Scalar) -> bool:
    """Say whether both ranges of *cur* lie in those of *old* (``range_within``)."""
    return cnum.is_subset(old.r64, cur.r64, M64) and cnum.is_subset(old.r32, cur.r32, M32)


def unsigned_text(number: int) -> str:
    """Return *number* as the log writes unsigned ones (``verbose_unum``)."""
    return str(number) if number <= 0xFFFF else f"{number:#x}"


def signed_text(number: int) -> str:
    """Return *number*, signed or not, as the log writes signed ones (``verbose_snum``)."""
    number &= M64
    signed = number - ((number & S64) << 1)
    return str(signed) if -0x8000 <= signed <= 0x7FFF else f"{number:#x}"


def _low_signed(number: int) -> int:
    """Extend the sign of a 32-bit bound in the log only if it is written in decimal."""
    return number & M64 if -0x8000 <= number <= 0x7FFF else number & M32


@lru_cache(maxsize=1 << 12)
def format_ranges(scalar: Scalar) -> str:
    """Return the bounds that say something, then the bits (``print_scalar_ranges``).

    For example ``smin=0,smax=umax=umax32=255,var_off=(0x0; 0xff)``; "" for a wholly
    unknown one. What ``print_reg_state`` writes for a scalar or an offset not constant.
    """
    s32_min, s32_max = scalar.s32_min, scalar.s32_max
    bounds = [
        ("smin", scalar.smin & M64, scalar.smin == -S64),
        ("smax", scalar.smax & M64, scalar.smax == S64 - 1),
        ("umin", scalar.umin, scalar.umin == 0),
        ("umax", scalar.umax, scalar.umax == M64),
        ("smin32", _low_signed(s32_min), s32_min == -S32),
        ("smax32", _low_signed(s32_max), s32_max == S32 - 1),
        ("umin32", scalar.u32_min, scalar.u32_min == 0),
        ("umax32", scalar.u32_max, scalar.u32_max == M32),
    ]
    parts: list[str] = []
    said = {name for name, _, omit in bounds if omit}
    for index, (name, number, _) in enumerate(bounds):
        if name in said:
            continue
        signed = name[0] == "s"
        negative = signed and number >= S64
        names = name
        for other, same, _ in bounds[index + 2 :: 2]:  # minima with minima
            if other in said or same != number or negative != (other[0] == "s" and same >= S64):
                continue
            said.add(other)
            names += f"={other}"
        parts.append(f"{names}={signed_text(number) if signed else unsigned_text(number)}")
    if scalar.mask != M64:
        parts.append(f"var_off={scalar.var_off}")
    return ",".join(parts)


def format_scalar(scalar: Scalar) -> str:
    """Return a scalar register without id as the log writes it (``print_reg_state``)."""
    if not scalar.mask:
        return signed_text(scalar.value)
    return f"scalar({format_ranges(scalar)})"
