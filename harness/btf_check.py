"""Whether Linux takes an object's BTF: the checks of kernel/bpf/btf.c, Linux 7.3.

The kernel checks BTF as a whole, in two passes: every type by itself, then every type
with those behind it, depth first with a stack of 32. A refusal changes verdicts: libbpf
loads the programs without BTF then, so that no function has a prototype. Methods are
named after the kernel's functions, and the messages are its own.

Not looked into: the special fields (locks, lists, trees, kptrs) that the kernel collects
last, from structs that hold them.
"""

from __future__ import annotations

from typing import NoReturn

from harness.btf import (
    GLOBAL,
    MAX_DEPTH,
    MAX_VLEN,
    PTR_SIZE,
    STATIC,
    Array,
    Btf,
    BtfType,
    DataSec,
    DeclTag,
    Enum,
    Float,
    Func,
    FuncProto,
    Fwd,
    Int,
    Member,
    Modifier,
    Ptr,
    SecInfo,
    Struct,
    Typedef,
    Var,
    Void,
)

KSYM_NAME_LEN = 512  # bytes of an identifier
U32_MAX = 0xFFFFFFFF
MAX_CHAIN = 32  # modifiers behind one another
ENCODINGS = {0: "(none)", 1: "SIGNED", 2: "CHAR", 4: "BOOL"}

SourceOnly = Var | DeclTag | DataSec  # nothing may refer to them but each other
NeedsResolve = Typedef | Modifier | Ptr | Struct | Array | Var | Func | DeclTag | DataSec
NoSize = Void | Fwd | Func | FuncProto | DeclTag

NOT_VISITED, VISITED, RESOLVED = range(3)
TBD, PTR, STRUCT_OR_ARRAY = range(3)  # what is being resolved decides where it may stop


def validate(btf: Btf) -> str | None:
    """Return the kernel's log of why it refuses *btf*, None if it takes it.

    The log is the line of the refusal, for example ``[6] FUNC sum type_id=5 Invalid
    arg#1``; where that names a member, the line of its struct stands before it.
    """
    # the programs of an object share its BTF, and are looked at one after the other
    global _last
    if _last is None or _last[0] is not btf:
        try:
            _Check(btf).run()
            _last = btf, None
        except _RefusedError as refusal:
            _last = btf, str(refusal)
    return _last[1]


_last: tuple[Btf, str | None] | None = None


class _RefusedError(Exception):
    """The kernel's log."""


class _DepthError(Exception):
    """The stack is full (-E2BIG)."""


class _LoopError(Exception):
    """A type is met again while it is being resolved (-EEXIST)."""


class _Check:
    """One pass of the kernel over a BTF (``struct btf_verifier_env``)."""

    def __init__(self, btf: Btf) -> None:
        self.types = btf.types
        self.stray = {type_id: (info, word) for type_id, info, word in btf.stray}
        self.current = 0  # the type that the log names
        self.meta = True  # in the first pass
        self.mode = TBD
        self.stack: list[list[int]] = []  # type id and next member
        self.visits = [NOT_VISITED] * len(btf.types)
        self.resolved_ids = [0] * len(btf.types)
        self.resolved_sizes = [0] * len(btf.types)

    def run(self) -> None:
        """Raise ``_RefusedError`` if the kernel refuses the BTF (``btf_parse``)."""
        if len(self.types) < 2:
            raise _RefusedError("No type found")
        for type_id, kind in enumerate(self.types):
            if type_id:
                self.current = type_id
                self.check_meta(type_id, kind)
        self.meta = False
        for type_id, kind in enumerate(self.types):
            if type_id:
                self.current = type_id
                if isinstance(kind, NeedsResolve) and self.visits[type_id] != RESOLVED:
                    self.resolve(type_id)
                if isinstance(kind, FuncProto):
                    self.func_proto_check(kind)
        self.check_modifier_chain_length()

    # The log

    def refuse(self, kind: BtfType, why: str) -> NoReturn:
        """Refuse *kind*, the current type (``btf_verifier_log_type``)."""
        raise _RefusedError(f"{self.line(kind)} {why}")

    def line(self, kind: BtfType) -> str:
        return f"[{self.current}] {_kind_name(kind)} {kind.name or '(anon)'} {_details(kind)}"

    def refuse_member(self, struct: Struct, member: Member, why: str) -> NoReturn:
        """Refuse *member* of the current type (``btf_verifier_log_member``)."""
        line = f"\t{member.name or '(anon)'} type_id={member.type}"
        if struct.kind_flag:
            line += f" bitfield_size={member.bitfield_size}"
        line += f" bits_offset={member.bit_offset} {why}"
        raise _RefusedError(line if self.meta else f"{self.line(struct)}\n{line}")

    def refuse_row(self, section: DataSec, row: SecInfo, why: str) -> NoReturn:
        """Refuse *row* of the current type (``btf_verifier_log_vsi``)."""
        line = f"\t type_id={row.type} offset={row.offset} size={row.size} {why}"
        raise _RefusedError(line if self.meta else f"{self.line(section)}\n{line}")

    # First pass: each type by itself

    def check_meta(self, type_id: int, kind: BtfType) -> None:
        info, word = self.stray.get(type_id, (0, 0))
        vlen, flag = bool(info & MAX_VLEN), bool(info >> 31)
        match kind:
            case Int():
                self.no_stray(kind, vlen, flag)
                self.int_check_meta(kind, word)
            case Ptr() | Typedef() | Modifier():
                self.no_stray(kind, vlen, flag)
                if isinstance(kind, Typedef):
                    valid = _is_identifier(kind.name)
                elif isinstance(kind, Modifier) and kind.kind == "type_tag":
                    valid = bool(kind.name)
                else:
                    valid = not kind.name
                if not valid:
                    self.refuse(kind, "Invalid name")
            case Array():
                if kind.name:
                    self.refuse(kind, "Invalid name")
                self.no_stray(kind, vlen, flag)
                if word:
                    self.refuse(kind, "size != 0")
                if not kind.type:
                    self.refuse(kind, "Invalid elem")
                if not kind.index_type:
                    self.refuse(kind, "Invalid index")
            case Struct():
                self.struct_check_meta(kind)
            case Enum():
                if kind.size not in (1, 2, 4, 8):
                    self.refuse(kind, "Unexpected size")
                if kind.name and not _is_identifier(kind.name):
                    self.refuse(kind, "Invalid name")
                if not all(_is_identifier(value.name) for value in kind.values):
                    self.refuse(kind, "Invalid name")
            case Fwd():
                self.no_stray(kind, vlen, False)
                if word:
                    self.refuse(kind, "type != 0")
                if not _is_identifier(kind.name):
                    self.refuse(kind, "Invalid name")
            case Func():
                if not _is_identifier(kind.name):
                    self.refuse(kind, "Invalid name")
                if kind.linkage > GLOBAL:
                    self.refuse(kind, "Invalid func linkage")
                self.no_stray(kind, False, flag)
            case FuncProto():
                if kind.name:
                    self.refuse(kind, "Invalid name")
                self.no_stray(kind, False, flag)
            case Var():
                self.no_stray(kind, vlen, flag)
                if not _is_identifier(kind.name):
                    self.refuse(kind, "Invalid name")
                if not kind.type:
                    self.refuse(kind, "Invalid type_id")
                if kind.linkage not in (STATIC, GLOBAL):
                    self.refuse(kind, "Linkage not supported")
            case DataSec():
                if not kind.size:
                    self.refuse(kind, "size == 0")
                self.no_stray(kind, False, flag)
                self.datasec_check_meta(kind)
            case Float():
                self.no_stray(kind, vlen, flag)
                if kind.size not in (2, 4, 8, 12, 16):
                    self.refuse(kind, "Invalid type_size")
            case DeclTag():
                if not kind.name:
                    self.refuse(kind, "Invalid value")
                self.no_stray(kind, vlen, False)
                if kind.component < -1:
                    self.refuse(kind, "Invalid component_idx")
            case Void():
                raise _RefusedError(f"[{self.current}] Invalid kind:0")

    def no_stray(self, kind: BtfType, vlen: bool, flag: bool) -> None:
        if vlen:
            self.refuse(kind, "vlen != 0")
        if flag:
            self.refuse(kind, "Invalid btf_info kind_flag")

    def int_check_meta(self, kind: Int, unused: int) -> None:
        if kind.encoding > 0xF:
            data = kind.encoding << 24 | kind.bit_offset << 16 | unused | kind.bits
            raise _RefusedError(
                f"[{self.current}] INT {kind.name or '(anon)'} Invalid int_data:{data:x}"
            )
        bits = kind.bits + kind.bit_offset
        if bits > 128:
            self.refuse(kind, "nr_bits exceeds 128")
        if _bytes_up(bits) > kind.size:
            self.refuse(kind, "nr_bits exceeds type_size")
        if kind.encoding not in ENCODINGS:
            self.refuse(kind, "Unsupported encoding")

    def struct_check_meta(self, kind: Struct) -> None:
        if kind.name and not _is_identifier(kind.name):
            self.refuse(kind, "Invalid name")
        last = 0
        for member in kind.members:
            if member.name and not _is_identifier(member.name):
                self.refuse_member(kind, member, "Invalid name")
            if not member.type:
                self.refuse_member(kind, member, "Invalid type_id")
            offset = member.bit_offset
            if (kind.union and offset) or last > offset:
                self.refuse_member(kind, member, "Invalid member bits_offset")
            if _bytes_up(offset) > kind.size:
                self.refuse_member(kind, member, "Member bits_offset exceeds its struct size")
            last = offset

    def datasec_check_meta(self, kind: DataSec) -> None:
        if not _is_section(kind.name):
            self.refuse(kind, "Invalid name")
        end = total = 0
        for row in kind.variables:
            if not row.type:
                self.refuse_row(kind, row, "Invalid type_id")
            if row.offset < end or row.offset >= kind.size:
                self.refuse_row(kind, row, "Invalid offset")
            if not row.size or row.size > kind.size:
                self.refuse_row(kind, row, "Invalid size")
            end = row.offset + row.size
            if end > kind.size:
                self.refuse_row(kind, row, "Invalid offset+size")
            total += row.size
        if kind.size < total:
            self.refuse(kind, "Invalid btf_info size")

    # Second pass: each type with those behind it

    def by_id(self, type_id: int) -> BtfType | None:
        return self.types[type_id] if type_id < len(self.types) else None

    def push(self, type_id: int) -> None:
        if len(self.stack) == MAX_DEPTH:
            raise _DepthError
        if self.visits[type_id] != NOT_VISITED:
            raise _LoopError
        self.visits[type_id] = VISITED
        self.stack.append([type_id, 0])
        if self.mode == TBD:
            match self.types[type_id]:
                case Ptr():
                    self.mode = PTR
                case Struct() | Array():
                    self.mode = STRUCT_OR_ARRAY

    def pop(self, resolved_id: int, size: int = 0) -> None:
        type_id, _ = self.stack.pop()
        self.resolved_ids[type_id], self.resolved_sizes[type_id] = resolved_id, size
        self.visits[type_id] = RESOLVED

    def pending(self, type_id: int) -> bool:
        """Return whether *type_id* must be resolved before what is on top of the stack."""
        kind = self.types[type_id]
        if self.mode == TBD:
            stops = not isinstance(kind, NeedsResolve)
        elif self.mode == PTR:
            stops = not isinstance(kind, Typedef | Modifier | Ptr)
        else:
            stops = not isinstance(kind, Typedef | Modifier | Array | Struct)
        return not stops and self.visits[type_id] != RESOLVED

    def sized(self, type_id: int) -> tuple[int, int] | None:
        """Return id and size of what *type_id* is, None if it has no size.

        Mirrors ``btf_type_id_size``; *type_id* must be resolved.
        """
        for _ in range(2):
            match self.by_id(type_id):
                case Int() | Struct() | Enum() | DataSec() | Float() as kind:
                    return type_id, kind.size
                case Array():
                    return type_id, self.resolved_sizes[type_id]
                case Ptr():
                    return type_id, PTR_SIZE
                case Typedef() | Modifier() | Var():
                    type_id = self.resolved_ids[type_id]
                case _:
                    return None
        return None

    def resolve(self, type_id: int) -> None:
        """Resolve *type_id* and all that it needs (``btf_resolve``)."""
        saved = self.current
        self.mode = TBD
        kind = self.types[type_id]
        try:
            self.push(type_id)
            while self.stack:
                self.current = self.stack[-1][0]
                self.step(self.types[self.current], self.stack[-1][1])
        except _DepthError:
            self.current = type_id
            self.refuse(kind, f"Exceeded max resolving depth:{MAX_DEPTH}")
        except _LoopError:
            self.current = type_id
            self.refuse(kind, "Loop detected")
        self.current = type_id
        if not self.resolve_valid(kind, type_id):
            self.refuse(kind, "Invalid resolve state")
        self.current = saved

    def resolve_valid(self, kind: BtfType, type_id: int) -> bool:
        match kind:
            case Struct() | DataSec():
                return not self.resolved_ids[type_id] and not self.resolved_sizes[type_id]
            case DeclTag() | Func():
                return bool(self.resolved_ids[type_id]) and not self.resolved_sizes[type_id]
            case Array():
                sized = self.sized(kind.type)
                if sized is None or isinstance(self.types[sized[0]], Typedef | Modifier):
                    return False
                return kind.count * sized[1] & U32_MAX == self.resolved_sizes[type_id]
            case _:
                behind = self.types[self.resolved_ids[type_id]]
                return not isinstance(behind, Typedef | Modifier | Var | DataSec)

    def step(self, kind: BtfType, member: int) -> None:
        """Take *kind*, on top of the stack, further: push what it needs, or pop it."""
        match kind:
            case Typedef() | Modifier():
                self.reference_resolve(kind, through_ptr=False)
            case Ptr():
                self.reference_resolve(kind, through_ptr=True)
            case Var():
                self.var_resolve(kind)
            case Array():
                self.array_resolve(kind)
            case Struct():
                self.struct_resolve(kind, member)
            case Func():
                self.func_check(kind)
                self.pop(kind.type)
            case DataSec():
                self.datasec_resolve(kind, member)
            case DeclTag():
                self.decl_tag_resolve(kind)
            case _:
                self.refuse(kind, "Unsupported resolve")

    def target(self, kind: Ptr | Typedef | Modifier | Var) -> BtfType:
        target = self.by_id(kind.type)
        if target is None or isinstance(target, SourceOnly):
            self.refuse(kind, "Invalid type_id")
        return target

    def behind_modifiers(self, target: BtfType, type_id: int) -> int | None:
        """Return the pointer at which resolving of a modifier stopped, if it is pending."""
        if isinstance(target, Typedef | Modifier):
            resolved = self.resolved_ids[type_id]
            if isinstance(self.types[resolved], Ptr) and self.pending(resolved):
                return resolved
        return None

    def reference_resolve(self, kind: Ptr | Typedef | Modifier, *, through_ptr: bool) -> None:
        target = self.target(kind)
        if self.pending(kind.type):
            self.push(kind.type)
            return
        if through_ptr:
            pointer = self.behind_modifiers(target, kind.type)
            if pointer is not None:
                self.push(pointer)
                return
        sized = self.sized(kind.type)
        if sized is not None:
            self.pop(sized[0])
            return
        type_id = kind.type
        if self.visits[type_id] == RESOLVED:
            type_id = self.resolved_ids[type_id]
            target = self.types[type_id]
        if not isinstance(target, Void | Fwd | FuncProto):
            self.refuse(kind, "Invalid type_id")
        self.pop(type_id)

    def var_resolve(self, kind: Var) -> None:
        target = self.target(kind)
        if self.pending(kind.type):
            self.push(kind.type)
            return
        pointer = self.behind_modifiers(target, kind.type)
        if pointer is not None:
            self.push(pointer)
            return
        sized = self.sized(kind.type)
        if sized is None:
            self.refuse(kind, "Invalid type_id")
        self.pop(sized[0])

    def array_resolve(self, kind: Array) -> None:
        index = self.by_id(kind.index_type)
        if index is None or isinstance(index, NoSize | SourceOnly):
            self.refuse(kind, "Invalid index")
        if self.pending(kind.index_type):
            self.push(kind.index_type)
            return
        sized = self.sized(kind.index_type)
        index = self.types[sized[0]] if sized is not None else None
        if not isinstance(index, Int) or not _is_regular(index):
            self.refuse(kind, "Invalid index")
        element = self.by_id(kind.type)
        if element is None or isinstance(element, NoSize | SourceOnly):
            self.refuse(kind, "Invalid elem")
        if self.pending(kind.type):
            self.push(kind.type)
            return
        sized = self.sized(kind.type)
        if sized is None:
            self.refuse(kind, "Invalid elem")
        element_id, size = sized
        element = self.types[element_id]
        if isinstance(element, Int) and not _is_regular(element):
            self.refuse(kind, "Invalid array of int")
        if kind.count and size > U32_MAX // kind.count:
            self.refuse(kind, "Array size overflows U32_MAX")
        self.pop(element_id, size * kind.count)

    def struct_resolve(self, kind: Struct, start: int) -> None:
        if start:  # the member that was pushed for is resolved now
            self.check_member(kind, kind.members[start - 1])
        for number in range(start, len(kind.members)):
            member = kind.members[number]
            target = self.by_id(member.type)
            if target is None or isinstance(target, NoSize | SourceOnly):
                self.refuse_member(kind, member, "Invalid member")
            if self.pending(member.type):
                self.stack[-1][1] = number + 1
                self.push(member.type)
                return
            self.check_member(kind, member)
        self.pop(0)

    def check_member(self, struct: Struct, member: Member) -> None:
        """Check where *member* lies (``check_member`` and ``check_kflag_member``)."""
        target = self.types[member.type]
        if isinstance(target, Typedef | Modifier):
            sized = self.sized(member.type)
            if sized is None:
                self.refuse_member(struct, member, "Invalid member")
            # the kernel's copy of the member, which its log names, has the type behind
            member = Member(member.name, sized[0], member.bit_offset, member.bitfield_size)
            target = self.types[sized[0]]
        match target:
            case Int():
                self.check_int_member(struct, member, target)
            case Enum() if struct.kind_flag:
                self.check_enum_bits(struct, member)
            case Enum() | Struct() | Array() | Ptr() | Float():
                if struct.kind_flag and member.bitfield_size:
                    self.refuse_member(struct, member, "Invalid member bitfield_size")
                self.check_plain_member(struct, member, target)
            case _:
                flag = "kflag_" if struct.kind_flag else ""
                raise _RefusedError(
                    f"[{self.current}] {_kind_name(struct)} {struct.name or '(anon)'} "
                    f"Unsupported check_{flag}member"
                )

    def check_int_member(self, struct: Struct, member: Member, target: Int) -> None:
        offset, bits = member.bit_offset, target.bits
        if struct.kind_flag:
            if not _is_regular(target):
                self.refuse_member(struct, member, "Invalid member base type")
            if not member.bitfield_size and offset % 8:
                self.refuse_member(struct, member, "Invalid member offset")
            if member.bitfield_size > bits:
                self.refuse_member(struct, member, "Invalid member bitfield_size")
            bits = member.bitfield_size or bits
        else:
            if U32_MAX - offset < target.bit_offset:
                self.refuse_member(struct, member, "bits_offset exceeds U32_MAX")
            offset += target.bit_offset
        bits += offset % 8
        if bits > 128:
            self.refuse_member(struct, member, "nr_copy_bits exceeds 128")
        if struct.size < offset // 8 or struct.size - offset // 8 < _bytes_up(bits):
            self.refuse_member(struct, member, "Member exceeds struct_size")

    def check_enum_bits(self, struct: Struct, member: Member) -> None:
        if not member.bitfield_size and member.bit_offset % 8:
            self.refuse_member(struct, member, "Member is not byte aligned")
        if member.bitfield_size > 32:
            self.refuse_member(struct, member, "Invalid member bitfield_size")
        bits = member.bitfield_size or 32  # whatever the size of the enum
        if struct.size < _bytes_up(member.bit_offset + bits):
            self.refuse_member(struct, member, "Member exceeds struct_size")

    def check_plain_member(
        self, struct: Struct, member: Member, target: Enum | Struct | Array | Ptr | Float
    ) -> None:
        if isinstance(target, Float):
            if member.bit_offset % (8 * min(PTR_SIZE, target.size)):
                self.refuse_member(struct, member, "Member is not properly aligned")
        elif member.bit_offset % 8:
            self.refuse_member(struct, member, "Member is not byte aligned")
        sized = self.sized(member.type)
        size = sized[1] if sized is not None else 0
        if struct.size - member.bit_offset // 8 < size:
            self.refuse_member(struct, member, "Member exceeds struct_size")

    def datasec_resolve(self, kind: DataSec, start: int) -> None:
        self.mode = TBD
        for number in range(start, len(kind.variables)):
            row = kind.variables[number]
            variable = self.by_id(row.type)
            if not isinstance(variable, Var):
                self.refuse_row(kind, row, "Not a VAR kind member")
            if self.pending(row.type):
                self.stack[-1][1] = number + 1
                self.push(row.type)
                return
            sized = self.sized(variable.type)
            if sized is None:
                self.refuse_row(kind, row, "Invalid type")
            if row.size < sized[1]:
                self.refuse_row(kind, row, "Invalid size")
        self.pop(0)

    def decl_tag_resolve(self, kind: DeclTag) -> None:
        target = self.by_id(kind.type)
        if not isinstance(target, Func | Struct | Var | Typedef):
            self.refuse(kind, "Invalid type_id")
        if self.pending(kind.type):
            self.push(kind.type)
            return
        if kind.component != -1:
            match target:
                case Struct():
                    count = len(target.members)
                case Func():
                    proto = self.by_id(target.type)
                    count = len(proto.params) if isinstance(proto, FuncProto) else 0
                case _:
                    count = 0
            if kind.component >= count:
                self.refuse(kind, "Invalid component_idx")
        self.pop(kind.type)

    # Functions

    def func_check(self, kind: Func) -> None:
        proto = self.by_id(kind.type)
        if not isinstance(proto, FuncProto):
            self.refuse(kind, "Invalid type_id")
        for number, param in enumerate(proto.params, 1):
            if not param.name and param.type:
                self.refuse(kind, f"Invalid arg#{number}")

    def func_proto_check(self, kind: FuncProto) -> None:
        if kind.returns:
            self.check_slot(kind, kind.returns, "Invalid return type")
        params = kind.params
        if params and not params[-1].type:
            if params[-1].name:
                self.refuse(kind, f"Invalid arg#{len(params)}")
            params = params[:-1]
        for number, param in enumerate(params, 1):
            named = not param.name or _is_identifier(param.name)
            self.check_slot(kind, param.type, f"Invalid arg#{number}", named)

    def check_slot(self, proto: FuncProto, type_id: int, why: str, named: bool = True) -> None:
        """Check that *type_id* is a type of values."""
        kind = self.by_id(type_id)
        if kind is None or isinstance(kind, SourceOnly) or not named:
            self.refuse(proto, why)
        if isinstance(kind, NeedsResolve) and self.visits[type_id] != RESOLVED:
            self.resolve(type_id)
        if self.sized(type_id) is None:
            self.refuse(proto, why)

    def check_modifier_chain_length(self) -> None:
        good = 0
        for start, kind in enumerate(self.types):
            if not isinstance(kind, Typedef | Modifier):
                continue
            limit, type_id = MAX_CHAIN, start
            while isinstance(kind, Typedef | Modifier):
                if not limit:
                    raise _RefusedError("Max chain length or cycle detected")
                limit -= 1
                if type_id <= good:
                    break
                type_id = kind.type
                kind = self.types[type_id]
            good = start


def _bytes_up(bits: int) -> int:
    return (bits + 7) // 8


def _is_regular(kind: Int) -> bool:
    """Return whether *kind* is a C integer, not a bit-field (``btf_type_int_is_regular``)."""
    size = _bytes_up(kind.bits)
    return kind.bits % 8 == 0 and not kind.bit_offset and size in (1, 2, 4, 8, 16)


# isalpha() of the kernel, whose character set is Latin-1; and what else a name may hold
_LETTERS = frozenset(
    [*range(0x41, 0x5B), *range(0x61, 0x7B), *range(0xC0, 0x100), ord("_"), ord(".")]
) - {0xD7, 0xF7}
_REST = _LETTERS | frozenset(range(0x30, 0x3A))


def _is_identifier(name: str) -> bool:
    if len(name) > KSYM_NAME_LEN:
        return False
    data = name.encode()
    if not 0 < len(data) <= KSYM_NAME_LEN or data[0] not in _LETTERS:
        return False
    return name.isidentifier() if name.isascii() and "." not in name else _REST.issuperset(data)


def _is_section(name: str) -> bool:
    data = name[: KSYM_NAME_LEN + 1].encode()
    printable = all(0x20 <= byte < 0x7F or byte >= 0xA0 for byte in data)
    return 0 < len(data) <= KSYM_NAME_LEN and printable


def _kind_name(kind: BtfType) -> str:
    match kind:
        case Struct():
            return "UNION" if kind.union else "STRUCT"
        case Enum():
            return "ENUM64" if kind.wide else "ENUM"
        case Modifier():
            return kind.kind.upper()
        case FuncProto():
            return "FUNC_PROTO"
        case DeclTag():
            return "DECL_TAG"
        case _:
            return type(kind).__name__.upper()


def _details(kind: BtfType) -> str:
    """Return what the log says of *kind* (``log_details``)."""
    match kind:
        case Int():
            encoding = ENCODINGS.get(kind.encoding, "UNKN")
            return (
                f"size={kind.size} bits_offset={kind.bit_offset} nr_bits={kind.bits} "
                f"encoding={encoding}"
            )
        case Struct():
            return f"size={kind.size} vlen={len(kind.members)}"
        case Enum():
            return f"size={kind.size} vlen={len(kind.values)}"
        case DataSec():
            return f"size={kind.size} vlen={len(kind.variables)}"
        case Float():
            return f"size={kind.size}"
        case Fwd():
            return "union" if kind.union else "struct"
        case Array():
            return f"type_id={kind.type} index_type_id={kind.index_type} nr_elems={kind.count}"
        case Var():
            return f"type_id={kind.type} linkage={kind.linkage}"
        case DeclTag():
            return f"type={kind.type} component_idx={kind.component}"
        case FuncProto():
            return _proto_details(kind)
        case Ptr() | Typedef() | Modifier() | Func():
            return f"type_id={kind.type}"
        case Void():
            return ""


def _proto_details(kind: FuncProto) -> str:
    params = [f"{param.type} {param.name or '(anon)'}" for param in kind.params]
    if params and not kind.params[-1].type:
        params[-1] = "vararg"
    return f"return={kind.returns} args=({', '.join(params) or 'void'})"
