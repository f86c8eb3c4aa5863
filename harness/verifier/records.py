"""The fields of a type that the kernel guards: locks, timers, kptrs, lists, trees, counts.

``btf_parse_fields`` and what it calls, ``btf_find_struct_meta`` (btf.c) and what
``map_check_btf`` (syscall.c) asks of the record of a map's value, of Linux 7.3.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from harness.btf import Array, Btf, BtfType, DataSec, DeclTag, Modifier, Ptr, Struct, Typedef, Var
from harness.model import MapDef
from harness.verifier.env import Env, NotModelled

# fmt: off
# Kinds of fields               size, alignment (btf_field_type_size, btf_field_type_align)
SIZES = {
    "bpf_spin_lock":            (4, 4),
    "bpf_res_spin_lock":        (4, 4),
    "bpf_timer":                (16, 8),
    "bpf_wq":                   (16, 8),
    "bpf_task_work":            (8, 8),
    "bpf_list_head":            (16, 8),
    "bpf_list_node":            (24, 8),
    "bpf_rb_root":              (16, 8),
    "bpf_rb_node":              (32, 8),
    "bpf_refcount":             (4, 4),
    "kptr_untrusted":           (8, 8),
    "kptr":                     (8, 8),
    "percpu_kptr":              (8, 8),
    "uptr":                     (8, 8),
}
# fmt: on
LOCKS = ("bpf_spin_lock", "bpf_res_spin_lock")
KPTRS = ("kptr_untrusted", "kptr", "percpu_kptr")  # BPF_KPTR
ROOTS = {"bpf_list_head": "bpf_list_node", "bpf_rb_root": "bpf_rb_node"}
NODES = ("bpf_list_node", "bpf_rb_node")  # BPF_GRAPH_NODE
_POINTERS = (*KPTRS, "uptr")
_MANY = frozenset({"bpf_list_head", "bpf_list_node", "bpf_rb_root", "bpf_rb_node"})
_IN_VALUES = frozenset(SIZES) - set(NODES)
_IN_OBJECTS = frozenset(SIZES) - {"bpf_timer", "bpf_wq", "bpf_task_work", "uptr"}
_MAX_FIELDS = 11  # BTF_FIELDS_MAX
_ALL = "types"  # key of what of_type knows
_MAX_OWNERS = 8  # BTF_MAX_OWNERSHIP_DEPTH
_MAX_DEPTH = 32  # MAX_RESOLVE_DEPTH

# fmt: off
_HASH, _ARRAY, _PERCPU_HASH, _PERCPU_ARRAY, _LRU_HASH, _LRU_PERCPU_HASH = 1, 2, 5, 6, 9, 10
_CGROUP_STORAGE, _TASK_STORAGE, _RHASH = 19, 29, 35
_STORAGES = {24, 28, 29, 32}                       # of sockets, inodes, tasks, cgroups
# Maps whose values may hold a kind of field       map_check_btf
_LOCK_MAPS = {_HASH, _RHASH, _ARRAY, _CGROUP_STORAGE} | _STORAGES
_TIMER_MAPS = {_HASH, _RHASH, _LRU_HASH, _ARRAY}
_KPTR_MAPS = {_HASH, _RHASH, _PERCPU_HASH, _LRU_HASH, _LRU_PERCPU_HASH, _ARRAY,
              _PERCPU_ARRAY} | _STORAGES
_MAPS = {
    **dict.fromkeys(LOCKS, _LOCK_MAPS),
    **dict.fromkeys(("bpf_timer", "bpf_wq", "bpf_task_work"), _TIMER_MAPS),
    **dict.fromkeys((*KPTRS, "bpf_refcount"), _KPTR_MAPS),
    "uptr": {_TASK_STORAGE},
    **dict.fromkeys(ROOTS, frozenset({_HASH, _LRU_HASH, _ARRAY})),
}
# fmt: on


class Invalid(Exception):  # noqa: N818 - the way out, not an error
    """The kernel does not take this type."""


class Field(NamedTuple):
    """One guarded field (``btf_field``)."""

    kind: str  # of SIZES
    offset: int  # bytes
    target: int = 0  # BTF id in the program's BTF: what a kptr points to, a list or tree holds
    node: int = 0  # a list or tree: bytes from the start of its members to their node

    @property
    def size(self) -> int:
        """Return its bytes."""
        return SIZES[self.kind][0]

    @property
    def name(self) -> str:
        """Return what messages call it (``btf_field_type_name``)."""
        return "kptr" if self.kind == "kptr_untrusted" else self.kind


@dataclass(frozen=True, slots=True)
class Record:
    """The guarded fields of one type, by offset (``btf_record``)."""

    fields: tuple[Field, ...]

    def offset(self, kind: str) -> int:
        """Return where the one field of *kind* is, -22: there is none."""
        return next((field.offset for field in self.fields if field.kind == kind), -22)

    def has(self, *kinds: str) -> bool:
        """Say whether there is a field of any of *kinds* (``btf_record_has_field``)."""
        return any(field.kind in kinds for field in self.fields)

    def find(self, offset: int, *kinds: str) -> Field | None:
        """Return the field of one of *kinds* at *offset* (``btf_record_find``)."""
        for field in self.fields:
            if field.offset == offset and field.kind in kinds:
                return field
        return None


def of_map(env: Env, found: MapDef) -> Record | None:
    """Return the fields of a map's values, None: it has none (``map->record``)."""
    if not found.value_type:
        return None
    key = (found.value_type, found.type)
    if key not in env.records:
        env.records[key] = _of_map(env, found)
    record: Record | None = env.records[key]
    return record


def has_btf(env: Env, found: MapDef) -> bool:
    """Say whether a map was made with the types of its keys and values (``map->btf``)."""
    return env.btf is not None and bool(found.key_type or found.value_type)


def of_type(env: Env, type_id: int) -> Record | None:
    """Return the fields of a struct that programs allocate (``btf_find_struct_meta``)."""
    if env.btf is None:
        return None
    if _ALL not in env.records:
        env.records[_ALL] = _of_types(env.btf)
    found: Record | None = env.records[_ALL].get(type_id)
    return found


def _of_types(btf: Btf) -> dict[int, Record]:
    """Find all structs with guarded fields (``btf_parse_struct_metas``)."""
    found: dict[int, Record] = {}
    try:
        guarded = {
            type_id
            for type_id, kind in enumerate(btf.types)
            if (isinstance(kind, Struct) and not kind.union and kind.name in _IN_OBJECTS)
            or _is_kptr(btf, kind)
        }
        for type_id, kind in enumerate(btf.types):
            if isinstance(kind, Struct) and any(m.type in guarded for m in kind.members):
                if kind.union:
                    continue
                record = _parse(btf, kind, _IN_OBJECTS)
                if record is None:
                    raise Invalid
                found[type_id] = record
    except Invalid:
        raise NotModelled("BTF with guarded fields that the kernel does not take") from None
    if any(_depth(found, type_id, _MAX_OWNERS) > _MAX_OWNERS for type_id in found):
        raise NotModelled("objects that own too many objects in a row")
    return found


def _depth(found: dict[int, Record], type_id: int, left: int) -> int:
    """Return how long a chain of owners may get from here (``btf_ownership_depth``)."""
    if not left or type_id not in found:
        return 0 if left else _MAX_OWNERS + 1
    owned = {f.target for f in found[type_id].fields if f.kind in (*ROOTS, "kptr", "percpu_kptr")}
    return 1 + max((_depth(found, target, left - 1) for target in owned), default=0)


def _is_kptr(btf: Btf, kind: BtfType) -> bool:
    try:
        return isinstance(kind, Ptr | Modifier) and _kptr(btf, kind) is not None
    except Invalid:
        return False  # as the kernel goes on


def _of_map(env: Env, found: MapDef) -> Record | None:
    """``map_check_btf``."""
    btf = env.btf
    if btf is None:
        return None
    kind = btf.resolve(found.value_type)
    if not isinstance(kind, Struct | DataSec):
        return None
    try:
        record = _parse(btf, kind, _IN_VALUES)
    except Invalid:
        return None  # the kernel then guards nothing
    if record is None:
        return None
    wrong = found.flags & 0x180  # BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG
    if wrong or any(found.type not in _MAPS[field.kind] for field in record.fields):
        raise NotModelled(f"map {found.name}, whose value the kernel does not take")
    for field in record.fields:
        if field.kind in ROOTS and of_type(env, field.target) is None:
            raise NotModelled(f"map {found.name}, whose value the kernel does not take")
    return record


def _parse(btf: Btf, kind: Struct | DataSec, wanted: frozenset[str]) -> Record | None:
    """``btf_parse_fields``."""
    seen: set[str] = set()
    fields = list(_members(btf, kind, wanted, seen, 0))
    if not fields:
        return None
    if len(fields) > _MAX_FIELDS:
        raise Invalid
    after = 0
    for field in fields:
        if field.offset < after:
            raise Invalid
        after = field.offset + field.size
    record = Record(tuple(sorted(fields, key=lambda field: field.offset)))
    locks = [field for field in fields if field.kind in LOCKS]
    if len(locks) > 1 or (not locks and record.has(*ROOTS)):
        raise Invalid
    if record.has("bpf_list_node") and record.has("bpf_rb_node") and not record.has("bpf_refcount"):
        raise Invalid
    return record


def _members(
    btf: Btf, kind: Struct | DataSec, wanted: frozenset[str], seen: set[str], depth: int
) -> Iterator[Field]:
    """``btf_find_struct_field``, ``btf_find_datasec_var``."""
    if isinstance(kind, DataSec):
        for row in kind.variables:
            variable = btf.get(row.type)
            if isinstance(variable, Var):
                yield from _one(
                    btf, variable, variable.type, -1, row.offset, row.size, wanted, seen, depth
                )
        return
    for index, member in enumerate(kind.members):
        if member.bit_offset % 8:
            raise Invalid
        yield from _one(
            btf, kind, member.type, index, member.bit_offset // 8, 0, wanted, seen, depth
        )


def _one(
    btf: Btf,
    owner: BtfType,
    type_id: int,
    index: int,
    offset: int,
    expected: int,
    wanted: frozenset[str],
    seen: set[str],
    depth: int,
) -> Iterator[Field]:
    """``btf_find_field_one``."""
    kind, count = btf.get(type_id), 1
    for _ in range(_MAX_DEPTH):
        if not isinstance(kind, Array):
            break
        count *= kind.count
        kind = btf.get(kind.type)
    else:
        raise Invalid
    if not count:
        return
    named = kind.name in wanted and kind.name not in _POINTERS
    if not named and isinstance(kind, Struct) and not kind.union:
        if expected and expected != kind.size * count:
            return
        if depth + 1 >= _MAX_DEPTH:
            raise Invalid
        fields = [
            field._replace(offset=field.offset + offset)
            for field in _members(btf, kind, wanted, seen, depth + 1)
        ]
        yield from _repeated(fields, count, kind.size)
        return
    name = kind.name
    if named:
        if name not in _MANY:
            if name in seen:
                raise Invalid
            seen.add(name)
    else:
        name = "kptr"
        if not set(_POINTERS) & wanted:
            return
    size, align = SIZES[name]
    if (expected and expected != size * count) or offset % align:
        return
    if name == "kptr":
        pointer = _kptr(btf, kind)
        if pointer is None or pointer[0] not in wanted:
            return
        target = pointer[1]
        behind = btf.get(target)
        if not isinstance(behind, Struct) or behind.union:
            raise Invalid
        field = Field(pointer[0], offset, target)
    else:
        if not isinstance(kind, Struct) or kind.union or kind.size != size:
            return
        field = Field(name, offset)
        if name in ROOTS:
            field = _contains(btf, owner, index, field)
    yield from _repeated([field], count, size)


def _repeated(fields: list[Field], count: int, size: int) -> Iterator[Field]:
    """``btf_repeat_fields``."""
    if count > 1 and any(field.kind not in (*_POINTERS, *ROOTS) for field in fields):
        raise Invalid
    if len(fields) * count > _MAX_FIELDS:
        raise Invalid
    for number in range(count if fields else 0):
        for field in fields:
            yield field._replace(offset=field.offset + number * size)


def _kptr(btf: Btf, kind: BtfType) -> tuple[str, int] | None:
    """Return the tag of a pointer and what it points to (``btf_find_kptr``)."""
    if isinstance(kind, Modifier) and kind.kind == "volatile":
        kind = btf.get(kind.type)
    if not isinstance(kind, Ptr):
        return None
    tags = []
    target = kind.type
    for _ in range(len(btf)):
        behind = btf.get(target)
        if not isinstance(behind, Modifier | Typedef):
            break
        if (
            isinstance(behind, Modifier)
            and behind.kind == "type_tag"
            and not behind.kind_flag
            and behind.name in _POINTERS
        ):
            tags.append(behind.name)
        target = behind.type
    if len(set(tags)) > 1:
        raise Invalid
    return (tags[0], target) if tags else None


def _contains(btf: Btf, owner: BtfType, index: int, field: Field) -> Field:
    """Find what a list or tree holds: a tag says it (``btf_find_graph_root``)."""
    tags = [
        kind.name.removeprefix("contains:")
        for kind in btf.types
        if isinstance(kind, DeclTag)
        and kind.component == index
        and kind.name.startswith("contains:")
        and btf.get(kind.type) is owner
    ]
    name, colon, node = tags[0].partition(":") if len(tags) == 1 else ("", "", "")
    target = btf.find(name, Struct) if colon and node else None
    if target is None:
        raise Invalid
    value = btf.get(target)
    assert isinstance(value, Struct)
    matching = [member for member in value.members if member.name == node]
    if len(matching) != 1:
        raise Invalid
    member = matching[0]
    held = btf.get(member.type)
    if not isinstance(held, Struct) or held.name != ROOTS[field.kind] or member.bit_offset % 64:
        raise Invalid
    return field._replace(target=target, node=member.bit_offset // 8)
