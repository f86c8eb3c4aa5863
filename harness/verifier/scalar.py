"""What the verifier knows of a scalar, and how its parts inform each other.

A ``Scalar`` is what Linux 7.3 keeps in ``struct bpf_reg_state``: a tnum (``var_off``)
and two circular ranges, 64-bit (``r64``) and 32-bit (``r32``, of the low half), from
which unsigned and signed minimum and maximum are read. ``sync`` is the kernel's, bit for
bit, also where it could be sharper; each docstring names the kernel function mirrored
(kernel/bpf/verifier.c and log.c, 7.3.4).

Integers are Python's, unsigned unless a name says signed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from harness.verifier import cnum, tnum
from harness.verifier.cnum import Cnum
from harness.verifier.tnum import M32, M64, S32, S64, Tnum

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
        if size == 8:
            return UNKNOWN
        whole = (1 << size * 8) - 1
        if not signed:
            return Scalar(0, whole, 0, whole, 0, whole)
        low = ~(whole >> 1)
        r32 = cnum.from_srange(low, whole >> 1, M32)
        return Scalar(0, M64, *cnum.from_srange(low, whole >> 1, M64), *r32)

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
ZERO = Scalar(0, 0, 0, 0, 0, 0)


@lru_cache(maxsize=1 << 14)
def const(value: int) -> Scalar:
    """Return the scalar of one value, wrapped to 64 bits (``__mark_reg_known``)."""
    value &= M64
    return Scalar(value, 0, value, 0, value & M32, 0)


# Synchronisation: what each part says of the others. It runs several times for each
# instruction, hence on plain integers, with the common cases of ``cnum`` written out.

Parts = tuple[int, int, int, int, int, int]  # the fields of a Scalar, perhaps not synchronised


def update_bounds32(parts: Parts) -> Parts:
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


def update_bounds(parts: Parts) -> Parts:
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
        low = base & M32
        if base32 == low and size32 == size:
            return base, size, base32, size32  # the same range, which does not cross 2^32
        if size32 == M32 or (base32 - low & M32) + size32 > size:
            if size32 != M32 and (low - base32 & M32) + size <= size32:
                return base, size, low, size  # the other way around: all of the 64-bit one
            base32, size32 = cnum.intersect((base32, size32), (low, size), M32)
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
    updated = value, mask, base, size, base32, size32 = update_bounds(parts)
    if mask or size or size32:
        was = size
        base, size, base32, size32 = _deduce(base, size, base32, size32)
        if size != was:  # otherwise once more finds nothing
            base, size, base32, size32 = _deduce(base, size, base32, size32)
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
            updated = update_bounds(bounded)
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


def sane(scalar: Scalar) -> Scalar:
    """Return *scalar*, without its ranges if they contradict its bits."""
    return scalar if violation(scalar) is None else forget_ranges(scalar)


# The log


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
