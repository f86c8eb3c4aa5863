"""CO-RE: what instructions say of the kernel's types, made true for the kernel at hand.

After ``bpf_core_calc_relo_insn`` and ``bpf_core_patch_insn`` of libbpf 1.8 (Linux 7.3). A
record names a type of the object, a path of members in it, and what it wants to know of
it; the same is looked for in the kernel's BTF by name, flavours (``NAME___flavour``) aside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from harness.btf import (
    MAX_DEPTH,
    Array,
    Btf,
    BtfType,
    Enum,
    Float,
    FuncProto,
    Fwd,
    Int,
    Modifier,
    Ptr,
    Struct,
    Typedef,
    Void,
    essential,
)
from harness.btf_lazy import LazyBtf
from harness.isa.insn import Alu, Call, Insn, Load, LoadImm, Store, StoreImm, signed32
from harness.load.btf_ext import CoreRecord

POISON = 195896080  # the helper that an instruction without a target calls, "bad relo"
_MAX_PATH = 64  # BPF_CORE_SPEC_MAX_LEN
_FIELDS = ("byte_off", "byte_sz", "field_exists", "signed", "lshift_u64", "rshift_u64")
_TYPES = ("target_type_id", "type_exists", "type_size", "type_matches")


class Unfit(Exception):  # noqa: N818 - the way out, not an error
    """libbpf refuses the program; the text says why."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One named member, or one element of an array."""

    type_id: int
    index: int
    name: str = ""  # of the member or enumerator; empty: an element


@dataclass(frozen=True, slots=True)
class _Path:
    """A way through the types of one BTF (``bpf_core_spec``)."""

    btf: Btf
    root: int
    steps: tuple[_Step, ...] = ()
    bits: int = 0  # offset from the start of the root


@dataclass(frozen=True, slots=True)
class _Value:
    """What a record asks for, in one BTF."""

    value: int
    size: int = 0  # bytes of the field, 0: no matter
    type_id: int = 0  # of the field
    exact: bool = True  # the compiler had to put it into the instruction as it is


def relocate(local: Btf, target: LazyBtf, record: CoreRecord, insn: Insn) -> Insn:
    """Return what *insn* becomes for the kernel with the BTF *target*.

    Raises Unfit where libbpf would refuse the program.
    """
    path = _local_path(local, record)
    before = _value(record.kind, path)
    after: _Value | None = None
    found: _Path | None = None
    for candidate in _candidates(local, target, record.type_id):
        match = _match(path, target, candidate, record.kind)
        if match is None:
            continue
        value = _value(record.kind, match)
        if after is None or found is None:
            after, found = value, match
        elif match.bits != found.bits:
            raise Unfit(f"field offset ambiguity: {match.bits} != {found.bits}")
        elif value is None or value.value != after.value:
            raise Unfit("relocation decision ambiguity")
    if found is None:
        after = _missing(record.kind)
    return _patched(insn, local, target, before, after)


# --- what the object means --------------------------------------------------


def _local_path(btf: Btf, record: CoreRecord) -> _Path:
    """``bpf_core_parse_spec``."""
    where = f"CO-RE relocation {record.kind} of {btf.get(record.type_id).name or 'a type'}"
    if not btf.get(record.type_id).name:
        raise Unfit(f"{where}: relocation doesn't support anonymous types")
    if record.kind in _TYPES:
        return _Path(btf, record.type_id)
    if not re.fullmatch(r"\d{1,9}(:\d{1,9})*", record.access):
        raise Unfit(f"{where}: its path {record.access!r} is none")
    indices = [int(part) for part in record.access.split(":")]
    if len(indices) > _MAX_PATH:
        raise Unfit(f"{where}: its path is too long")
    type_id = _behind(btf, record.type_id)
    kind = btf.get(type_id)
    if record.kind.startswith("enumval"):
        if not isinstance(kind, Enum) or len(indices) > 1 or indices[0] >= len(kind.values):
            raise Unfit(f"{where}: it is no enumerator")
        step = _Step(type_id, indices[0], kind.values[indices[0]].name)
        return _Path(btf, record.type_id, (step,))
    if record.kind not in _FIELDS:
        raise Unfit(f"{where}: unrecognized CO-RE relocation")
    steps = [_Step(type_id, indices[0])]
    bits = indices[0] * _size(btf, type_id) * 8
    for index in indices[1:]:
        type_id = _behind(btf, type_id)
        kind = btf.get(type_id)
        match kind:
            case Struct(members=members) if index < len(members):
                bits += members[index].bit_offset
                if members[index].name:
                    steps.append(_Step(type_id, index, members[index].name))
                type_id = members[index].type
            case Array(type=element, count=count):
                type_id = _behind(btf, element)
                if index >= count and not _flexible(btf, steps[-1], kind):
                    raise Unfit(f"{where}: its path leaves an array")
                steps.append(_Step(type_id, index))
                bits += index * _size(btf, type_id) * 8
            case _:
                raise Unfit(f"{where}: its path leads nowhere")
    return _Path(btf, record.type_id, tuple(steps), bits)


def _flexible(btf: Btf, last: _Step, array: Array) -> bool:
    """``is_flex_arr``."""
    if not last.name or array.count:
        return False
    struct = btf.get(last.type_id)
    return isinstance(struct, Struct) and last.index == len(struct.members) - 1


def _behind(btf: Btf, type_id: int) -> int:
    """``skip_mods_and_typedefs``."""
    for _ in range(MAX_DEPTH):
        kind = btf.get(type_id)
        if not isinstance(kind, Typedef | Modifier):
            return type_id
        type_id = kind.type
    raise Unfit("types behind one another without end")


def _size(btf: Btf, type_id: int) -> int:
    size = btf.size_of(type_id)
    if size is None:
        raise Unfit(f"CO-RE relocation: {btf.get(type_id).name or 'a type'} has no size")
    return size


# --- the kernel's counterpart -------------------------------------------------


def _candidates(local: Btf, target: LazyBtf, type_id: int) -> Iterator[int]:
    """Yield the kernel's types of the same name and kind (``bpf_core_add_cands``)."""
    kind = local.get(type_id)
    wanted = essential(kind.name)
    for found in target.flavours(wanted):
        if _same_kind(kind, target[found]):
            yield found


def _same_kind(one: BtfType, other: BtfType) -> bool:
    """``btf_kind_core_compat``."""
    if isinstance(one, Struct) and isinstance(other, Struct):
        return one.union == other.union
    if isinstance(one, Modifier) and isinstance(other, Modifier):
        return one.kind == other.kind
    return type(one) is type(other)


def _match(path: _Path, target: Btf, candidate: int, kind: str) -> _Path | None:
    """Find the same path from *candidate* on (``bpf_core_spec_match``)."""
    if kind == "type_matches":
        raise Unfit("CO-RE relocation type_matches is not modelled")
    if kind in _TYPES:
        same = _compatible(path.btf, path.root, target, candidate)
        return _Path(target, candidate) if same else None
    if kind.startswith("enumval"):
        type_id = _behind(target, candidate)
        found = target.get(type_id)
        wanted = essential(path.steps[0].name)
        for index, each in enumerate(found.values if isinstance(found, Enum) else ()):
            if essential(each.name) == wanted:
                return _Path(target, candidate, (_Step(type_id, index, each.name),))
        return None
    steps: list[_Step] = []
    bits, type_id = 0, candidate
    for number, step in enumerate(path.steps):
        type_id = _behind(target, type_id)
        if step.name:
            member = _member(path.btf, step, target, type_id, 0)
            if member is None:
                return None
            found_step, offset, type_id = member
            steps.append(found_step)
            bits += offset
            continue
        if number:
            array = target.get(type_id)
            if not isinstance(array, Array):
                return None
            if step.index >= array.count and not _flexible(target, steps[-1], array):
                return None
            type_id = _behind(target, array.type)
        steps.append(_Step(type_id, step.index))
        bits += step.index * _size(target, type_id) * 8
    return _Path(target, candidate, tuple(steps), bits)


def _member(
    local: Btf, step: _Step, target: Btf, type_id: int, depth: int
) -> tuple[_Step, int, int] | None:
    """Return a member of the same name, where it is, and its type (``bpf_core_match_member``)."""
    type_id = _behind(target, type_id)
    struct, mine = target.get(type_id), local.get(step.type_id)
    if not isinstance(struct, Struct) or depth > _MAX_PATH:
        return None
    assert isinstance(mine, Struct)
    for index, each in enumerate(struct.members):
        if not each.name:
            inner = _member(local, step, target, each.type, depth + 1)
            if inner is not None:
                return inner[0], inner[1] + each.bit_offset, inner[2]
        elif each.name == step.name:
            if not _fields_fit(local, mine.members[step.index].type, target, each.type):
                return None
            return _Step(type_id, index, each.name), each.bit_offset, each.type
    return None


def _fields_fit(local: Btf, mine: int, target: Btf, theirs: int) -> bool:
    """``bpf_core_fields_are_compat``."""
    for _ in range(MAX_DEPTH):
        one, other = local.get(_behind(local, mine)), target.get(_behind(target, theirs))
        if isinstance(one, Struct) and isinstance(other, Struct):
            return True
        if not _same_kind(one, other):
            return False
        match one, other:
            case (Ptr(), _) | (Float(), _):
                return True
            case Fwd() | Enum(), Fwd() | Enum():
                names = essential(one.name), essential(other.name)
                return "" in names or names[0] == names[1]
            case Int(bit_offset=at), Int(bit_offset=other_at):
                return at == other_at == 0
            case Array(type=mine), Array(type=theirs):
                continue
            case _:
                return False
    return False


def _compatible(local: Btf, mine: int, target: Btf, theirs: int, level: int = 2) -> bool:
    """``bpf_core_types_are_compat``."""
    if not _same_kind(local.get(mine), target.get(theirs)):
        return False
    for _ in range(MAX_DEPTH):
        mine, theirs = _behind(local, mine), _behind(target, theirs)
        one, other = local.get(mine), target.get(theirs)
        if not _same_kind(one, other):
            return False
        match one, other:
            case (Void(), _) | (Struct(), _) | (Enum(), _) | (Fwd(), _):
                return True
            case Int(bit_offset=at), Int(bit_offset=other_at):
                return at == other_at == 0
            case Ptr(type=mine), Ptr(type=theirs):
                continue
            case Array(type=mine), Array(type=theirs):
                continue
            case FuncProto(), FuncProto():
                if len(one.params) != len(other.params) or (one.params and level <= 0):
                    return False
                for a, b in zip(one.params, other.params, strict=True):
                    a_id, b_id = _behind(local, a.type), _behind(target, b.type)
                    if not _compatible(local, a_id, target, b_id, level - 1):
                        return False
                mine, theirs = one.returns, other.returns
            case _:
                return False
    return False


# --- what a record asks for ---------------------------------------------------


def _missing(kind: str) -> _Value | None:
    """Return what a record gets without a counterpart, None: its instruction is poisoned."""
    if kind in _TYPES or kind.endswith("exists"):
        return _Value(0)
    return None


def _value(kind: str, path: _Path) -> _Value:
    """``bpf_core_calc_field_relo``, ``_type_relo`` and ``_enumval_relo``."""
    btf = path.btf
    match kind:
        case "field_exists" | "enumval_exists" | "type_exists" | "type_matches":
            return _Value(1)
        case "target_type_id":
            return _Value(path.root, exact=False)
        case "type_size":
            return _Value(_size(btf, path.root))
        case "enumval_value":
            enum = btf.get(path.steps[0].type_id)
            assert isinstance(enum, Enum)
            return _Value(enum.values[path.steps[0].index].value & (1 << 64) - 1)
    last = path.steps[-1]
    if not last.name:
        return _element(kind, path, last)
    struct = btf.get(last.type_id)
    assert isinstance(struct, Struct)
    member = struct.members[last.index]
    type_id = _behind(btf, member.type)
    if member.bitfield_size:
        width = _size(btf, type_id)
        start = path.bits // 8 // width * width
        while path.bits + member.bitfield_size - start * 8 > width * 8:
            if width >= 8:
                raise Unfit(f"CO-RE relocation {kind} can't be satisfied for bitfield")
            width *= 2
            start = path.bits // 8 // width * width
        return _field(kind, path, type_id, start, width, member.bitfield_size)
    width = _size(btf, type_id)
    return _field(kind, path, type_id, path.bits // 8, width, 0)


def _element(kind: str, path: _Path, last: _Step) -> _Value:
    if kind == "byte_off":
        return _Value(path.bits // 8, _scalar_size(path.btf, last.type_id), last.type_id)
    if kind == "byte_sz":
        return _Value(_size(path.btf, last.type_id))
    raise Unfit(f"CO-RE relocation {kind} can't be applied to array access")


def _scalar_size(btf: Btf, type_id: int) -> int:
    """Return the size of a type, of an array: of an element."""
    for _ in range(MAX_DEPTH):
        kind = btf.get(_behind(btf, type_id))
        if not isinstance(kind, Array):
            break
        type_id = kind.type
    return _size(btf, type_id)


def _field(kind: str, path: _Path, type_id: int, start: int, width: int, bits: int) -> _Value:
    exact = not bits
    used = bits or width * 8
    match kind:
        case "byte_off":
            if bits:
                return _Value(start, exact=False)
            return _Value(start, _scalar_size(path.btf, type_id), type_id)
        case "byte_sz":
            return _Value(width, exact=exact)
        case "signed":
            found = path.btf.get(type_id)
            return _Value(int(isinstance(found, Int | Enum) and found.signed))
        case "lshift_u64":
            return _Value(64 - (path.bits + used - start * 8), exact=exact)
        case _:
            return _Value(64 - used)


# --- instructions ---------------------------------------------------------------


def _patched(insn: Insn, local: Btf, target: Btf, before: _Value, after: _Value | None) -> Insn:
    """``bpf_core_patch_insn``; a poisoned LoadImm is the caller's to fill up."""
    match insn:
        case Alu(src=None, imm=held):
            if after is None:
                return Call("helper", POISON)
            _expect(held, before, 32)
            return replace(insn, imm=signed32(after.value))
        case Load(off=held, size=size) | Store(off=held, size=size) | StoreImm(off=held, size=size):
            if after is None:
                return Call("helper", POISON)
            _expect(held, before, 64)
            if after.value > 0x7FFF:
                raise Unfit(f"CO-RE relocation: offset {after.value} is too big")
            if before.size == after.size:
                return replace(insn, off=after.value)
            if not _may_resize(local.get(before.type_id), target.get(after.type_id)):
                return Call("helper", POISON)
            if size != before.size or after.size not in (1, 2, 4, 8):
                raise Unfit("CO-RE relocation: unexpected size of a load or store")
            return replace(insn, off=after.value, size=after.size)
        case LoadImm(src=0, imm=wide):
            if after is None:
                return Call("helper", POISON)
            _expect(wide, before, 64)
            return replace(insn, imm=after.value)
    raise Unfit("CO-RE relocation of an unrecognized instruction")


def _expect(held: int, before: _Value, bits: int) -> None:
    if before.exact and (held - before.value) & (1 << bits) - 1:
        raise Unfit(f"CO-RE relocation: the instruction holds {held}, not {before.value}")


def _may_resize(one: BtfType, other: BtfType) -> bool:
    if isinstance(one, Ptr) and isinstance(other, Ptr):
        return True
    both = isinstance(one, Int) and isinstance(other, Int)
    return both and one.encoding != 1 and other.encoding != 1  # type: ignore[union-attr]
