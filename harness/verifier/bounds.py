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


# Synchronisation: what each part says of the others. It runs several times for each
# instruction, hence on plain integers, with the common cases of ``cnum`` written out.

Parts = tuple[int, int, int, int, int, int]  # the fields of a Scalar, perhaps not synchronised


def _update32(parts: Parts) -> Parts:
    """Tighten the 32-bit range by the bits (``__update_reg32_bounds``)."""
    value, mask, base, size, base32, size32 = parts
    mask32 = mask & M32
    if mask32 == M32 and size32 != M32:
        return parts
    # Members of a tnum span its mask, from the lowest, signed if the sign is not known.
    low = 0 if mask32 == M32 else value & M32 | mask32 & S32
    if (base32 - low & M32) + size32 > mask32 or size32 == M32:
        base32, size32 = cnum.intersect((base32, size32), (low, mask32), M32)
    return value, mask, base, size, base32, size32


def _update(parts: Parts) -> Parts:
    """Tighten both ranges by the bits (``__update_reg_bounds``)."""
    value, mask, base, size, base32, size32 = parts
    mask32 = mask & M32
    if mask32 != M32 or size32 == M32:
        low = 0 if mask32 == M32 else value & M32 | mask32 & S32
        if (base32 - low & M32) + size32 > mask32 or size32 == M32:
            base32, size32 = cnum.intersect((base32, size32), (low, mask32), M32)
    if mask != M64 or size == M64:
        low = 0 if mask == M64 else value | mask & S64
        if (base - low & M64) + size > mask or size == M64:
            base, size = cnum.intersect((base, size), (low, mask), M64)

    # Where bits and unsigned range have one value in common, that is it.
    umin = base
    umax = base + size
    if umax > M64:
        umin, umax = 0, M64
    high = value | mask
    if umin & ~mask == value:
        # The next member is above umin, by the lowest unknown bit if umin is the first.
        following = value | mask & -mask if umin == value else tnum.step((value, mask), umin)
        if following > umax:
            return umin, 0, umin, 0, umin & M32, 0
    else:
        following = tnum.step((value, mask), umin)
        if following == high or (following <= umax and tnum.step((value, mask), following) > umax):
            return following, 0, following, 0, following & M32, 0
    return value, mask, base, size, base32, size32


def _deduce(base: int, size: int, base32: int, size32: int) -> tuple[int, int, int, int]:
    """Tighten the 32-bit range by the 64-bit one, and back (``__reg_deduce_bounds``)."""
    if size < M32:
        if (base32 - base & M32) + size32 > size or size32 == M32:
            base32, size32 = cnum.intersect((base32, size32), (base & M32, size), M32)
    elif size32 == M32 or size == M64:
        base32, size32 = cnum.intersect((base32, size32), cnum.low_half((base, size)), M32)
    if size32 != M32 or base32 == M32:
        base, size = cnum.narrow((base, size), (base32, size32))
    return base, size, base32, size32


def sync(parts: Parts) -> Scalar:
    """Let the bits and both ranges tighten each other (``reg_bounds_sync``).

    Takes a Scalar or its fields. As the kernel's, it is not a fixed point: another turn
    may tighten more, so it must run where the kernel runs it and nowhere else.
    """
    _, _, base, size, base32, size32 = parts
    if (base32 == M32 and size32 == M32) or (base == M64 and size == M64):
        return _new(Scalar, parts)
    updated = value, mask, base, size, base32, size32 = _update(parts)
    if mask or size or size32:
        rings = base, size, base32, size32
        deduced = _deduce(base, size, base32, size32)
        if deduced != rings:
            deduced = _deduce(*deduced)
        base, size, base32, size32 = deduced
        # Bits equal in the unsigned minimum and maximum (``__reg_bound_offset``)
        if size <= M64 - base:
            above = M64 ^ (1 << (base ^ base + size).bit_length()) - 1
            mask &= ~above
            value = (value | base & above) & ~mask
        if size32 <= M32 - base32:
            above = M32 ^ (1 << (base32 ^ base32 + size32).bit_length()) - 1
            mask &= ~above
            value = (value | base32 & above) & ~mask
        bounded = value, mask, base, size, base32, size32
        if bounded != updated:
            updated = _update(bounded)
    return _new(Scalar, updated)


def violation(parts: Parts) -> str | None:
    """Name the invariant that *parts* break, if any (``reg_bounds_sanity_check``)."""
    value, mask, base, size, base32, size32 = parts
    if (base32 == M32 and size32 == M32) or (base == M64 and size == M64):
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
    return sync(_zero_extend((*var_off, *scalar.r64, *r32)))


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
    return _sub(_ZERO, a)


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
    return _update((value, mask, value, size, base32, size32))


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
    return _update((value, mask, base, (value | mask) - base & M64, base32, size32))


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
        return _update32((value & M32, mask & M32, 0, M64, *r32))
    r64 = cnum.UNBOUNDED64
    high = a.umax
    if high <= 1 << 63 - shift:
        low = a.umin
        r64 = low << shift, high - low << shift
    if shift == 32:  # with an arithmetic shift back, how compilers extend the sign
        r64 = cnum.intersect(r64, cnum.from_srange(a.s32_min << 32, a.s32_max << 32, M64), M64)
    return _update((value & M64, mask & M64, *r64, *r32))


def _rsh(bits: int, a: Scalar, shift: int) -> Parts:
    """``scalar_min_max_rsh``, ``scalar32_min_max_rsh``."""
    value, mask = a[0], a[1]
    if bits == 32:
        low, high = a.u32_min >> shift, a.u32_max >> shift
        return _update32(((value & M32) >> shift, (mask & M32) >> shift, 0, M64, low, high - low))
    low, high = a.umin >> shift, a.umax >> shift
    return _update((value >> shift, mask >> shift, low, high - low, 0, M32))


def _arsh(bits: int, a: Scalar, shift: int) -> Parts:
    """``scalar_min_max_arsh``, ``scalar32_min_max_arsh``."""
    var_off = tnum.arshift(a.var_off, shift, bits)
    if bits == 32:
        r32 = cnum.from_srange(a.s32_min >> shift, a.s32_max >> shift, M32)
        return _update32((*var_off, 0, M64, *r32))
    r64 = cnum.from_srange(a.smin >> shift, a.smax >> shift, M64)
    return _update((*var_off, *r64, 0, M32))


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
        return _ZERO
    low, high = (a.umin, a.umax) if bits == 64 else (a.u32_min, a.u32_max)
    low, high = low // divisor, high // divisor
    return _only(bits, (low, high - low))


def _sdiv(bits: int, a: Scalar, divisor: int) -> Parts:
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
    result = (*var_off, *r64, 0, M32)
    return sync(result) if tighten else _new(Scalar, _update32(result))


def clamp(scalar: Scalar, low: int, high: int) -> Scalar:
    """Limit to signed 32-bit *low* to *high* in both widths (``__mark_reg_s32_range``)."""
    r32 = cnum.from_srange(max(scalar.s32_min, low), min(scalar.s32_max, high), M32)
    r64 = cnum.from_srange(max(scalar.smin, low), min(scalar.smax, high), M64)
    return _sane(sync((scalar.value, scalar.mask, *r64, *r32)))


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
    full = M64 if bits == 64 else M32
    match op:
        case "ge" | "gt" | "sge" | "sgt":
            parts_b, parts_a = _constrain(_FLIPPED[op], bits, b, a)
            return parts_a, parts_b
        case "ne" | "set" | "clear":
            if not b.mask & full:
                return _constrain_by(op, bits, a, b.value & full), b
            if not a.mask & full:
                return a, _constrain_by(op, bits, b, a.value & full)
            return a, b
        case "eq" if bits == 64:
            r64 = cnum.intersect(a[2:4], b[2:4], M64)
            mask = a[1] & b[1]
            value = (a[0] | b[0]) & ~mask
            return (value, mask, *r64, *a[4:6]), (value, mask, *r64, *b[4:6])
        case "eq":
            r32 = cnum.intersect(a[4:6], b[4:6], M32)
            mask = a[1] & b[1] & M32
            value = (a[0] | b[0]) & M32 & ~mask
            return (
                (a[0] & HIGH | value, a[1] & HIGH | mask, *a[2:4], *r32),
                (b[0] & HIGH | value, b[1] & HIGH | mask, *b[2:4], *r32),
            )
    mine, theirs = (a[2:4], b[2:4]) if bits == 64 else (a[4:6], b[4:6])
    strict = 1 if op in ("lt", "slt") else 0
    if op in ("lt", "le"):
        mine = cnum.intersect(mine, (0, cnum.umax(theirs, full) - strict & full), full)
        low = cnum.umin(mine, full) + strict & full
        theirs = cnum.intersect(theirs, (low, full - low), full)
    else:
        most = full >> 1
        below = cnum.from_srange(~most, cnum.smax(theirs, full) - strict, full)
        mine = cnum.intersect(mine, below, full)
        above = cnum.from_srange(cnum.smin(mine, full) + strict, most, full)
        theirs = cnum.intersect(theirs, above, full)
    if bits == 64:
        return (*a[:2], *mine, *a[4:6]), (*b[:2], *theirs, *b[4:6])
    return (*a[:4], *mine), (*b[:4], *theirs)


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
    return None if y.is_empty else (_sane(x), _sane(y))


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
        pair = _sane(a), _sane(b)
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
