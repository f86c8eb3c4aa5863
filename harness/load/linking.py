"""From functions of an object to programs, as libbpf links them.

A program is a function in a section of its own; the functions in .text are subprograms,
copied behind each program that reaches them, in the order in which its calls name them.
An object is decoded once: each function keeps its instructions and the few places in
them that depend on where things end up, and linking patches those.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from itertools import pairwise

from harness.btf import GLOBAL, Btf, DeclTag, Func, Var, Void
from harness.btf_lazy import LazyBtf
from harness.isa.codec import decode
from harness.isa.insn import Call, Insn, LoadImm
from harness.load import btf_ext, co_re, elf, fixups, maps
from harness.load.errors import LoadError
from harness.load.fixups import KCONFIG
from harness.load.sections import classify
from harness.model import LineInfo, MapDef, Program, Subprogram

TEXT = ".text"
SLOT = 8  # bytes
# A small object can describe programs of any size: what linking one costs, in units of
# some 0.1 us, and how much all programs of an object may cost together
SLOT_COST, PATCH_COST, LINE_COST, CORE_COST = 1, 8, 8, 800
MAX_COST = 8_000_000
CALL, LD_IMM64 = 0x85, 0x18  # opcodes that take relocations
_SLOT = struct.Struct("<BBhi")
MAP_BY_INDEX, VALUE_BY_INDEX, SUBPROGRAM, KERNEL_ADDRESS = 5, 6, 4, 3  # kinds of LoadImm
NO_KFUNC = 2002000000  # the helper a weak kfunc's call becomes, POISON_CALL_KFUNC_BASE


@dataclass(frozen=True, slots=True)
class Refused:
    """A program of an object that cannot be linked without a kernel at hand."""

    name: str
    section: str
    why: str


@dataclass(frozen=True, slots=True)
class Function:
    """A function of an executable section, as its symbol has it."""

    name: str
    part: elf.Part
    start: int  # slot in its section
    count: int  # slots
    visible: bool  # not local to its object
    hidden: bool  # global, but of hidden visibility


def read_functions(file: elf.Elf) -> tuple[Function, ...]:
    """Return all functions by section and offset (``bpf_object__add_programs``)."""
    found: dict[tuple[int, int], Function] = {}
    for symbol in file.symbols:
        if symbol.type != elf.FUNC or not 0 < symbol.section < len(file.parts):
            continue
        part = file.parts[symbol.section]
        if not part.executable:
            continue
        where = f"{file.path}: {part.name}: function {symbol.name}"
        if symbol.value + symbol.size > len(part.data):
            raise LoadError(f"{where} ends beyond its section")
        if not symbol.size or symbol.size % SLOT or symbol.value % SLOT:
            raise LoadError(f"{where}: offset {symbol.value}, {symbol.size} bytes: not in slots")
        if part.name != TEXT and symbol.bind == elf.LOCAL:
            raise LoadError(f"{where} is static; a program must be global")
        visible = symbol.bind != elf.LOCAL
        function = Function(
            symbol.name,
            part,
            symbol.value // SLOT,
            symbol.size // SLOT,
            visible,
            visible and symbol.hidden,
        )
        found.setdefault((part.index, function.start), function)
    functions = tuple(found[key] for key in sorted(found))
    for before, after in pairwise(functions):
        if before.part is after.part and before.start + before.count > after.start:
            raise LoadError(f"{file.path}: functions {before.name} and {after.name} overlap")
    return functions


@dataclass(frozen=True, slots=True)
class _Patch:
    """An instruction of a function that depends on where things end up."""

    slot: int  # in the function
    kind: str  # "call", "func", "map", "value", "jump", "ksym", "kfunc"
    target: int = 0  # call, func: index of the function; map, value: of the map
    offset: int = 0  # bytes: into the value; jump: into .jumptables
    size: int = 0  # bytes: jump
    name: str = ""  # ksym and kfunc
    weak: bool = False  # ksym and kfunc: the kernel need not have it
    number: int = 0  # kfunc: of the extern


class Linker:
    """Links programs of one object; decodes each function once, when it is first needed."""

    def __init__(
        self,
        file: elf.Elf,
        functions: tuple[Function, ...],
        placed: tuple[maps.PlacedMap, ...],
        externs: tuple[fixups.Extern, ...],
        btf: Btf | None,
        ext: btf_ext.BtfExt,
        kernel: LazyBtf | None = None,
        license: str = "",  # noqa: A002
    ) -> None:
        self.file = file
        self._license = license
        self._kernel = kernel  # its BTF, None: not at hand
        self.functions = functions
        self._btf = btf
        self._placed = placed
        self._ext = ext
        self._externs = {extern.symbol: extern for extern in externs}
        self._starts: dict[int, tuple[list[int], list[int]]] = {}  # section: starts, functions
        for index, function in enumerate(functions):
            starts, indices = self._starts.setdefault(function.part.index, ([], []))
            starts.append(function.start)
            indices.append(index)
        text = file.part(TEXT)
        self._text = text.index if text is not None else -1
        self._data_maps = {p.section: number for number, p in enumerate(placed) if p.data}
        self._defined_maps = {
            (p.section, p.offset): number for number, p in enumerate(placed) if not p.data
        }
        self._arena = next((n for n, p in enumerate(placed) if p.map.type == maps.ARENA), None)
        self._with_pointers = {  # data sections with relocations, which libbpf does not apply
            part.info for part in file.parts if part.type == elf.REL and part.data
        }
        self._type_ids = {
            section: {record.slot: record.type_id for record in reversed(records)}
            for section, records in ext.functions.items()
        }
        self._callbacks = self._exception_callbacks()
        self._options = next((n for n, p in enumerate(placed) if p.section_name == KCONFIG), 0)
        self._text_names = {
            function.name: index
            for index, function in reversed(tuple(enumerate(functions)))
            if function.part.index == self._text
        }
        self._core = {
            section: sorted(
                (record for record in records if record.kind != "local_type_id"), key=_slot_of
            )
            for section, records in ext.core.items()
        }
        self._code: dict[int, tuple[tuple[Insn, ...], tuple[_Patch, ...]]] = {}
        self._lines: dict[int, tuple[btf_ext.LineRecord, ...]] = {}
        self._kernel_needs: dict[int, str | None] = {}
        self._unfit: dict[int, str] = {}  # functions that libbpf would refuse for CO-RE: why
        self._cost = 0
        self._relocations = self._collect()

    # What the object says about each place, before any program is linked

    def _exception_callbacks(self) -> dict[str, str]:
        """Return the name of each function's exception callback, where a tag names one."""
        found: dict[str, str] = {}
        if self._btf is None:
            return found
        prefix = "exception_callback:"
        for tag in self._btf.types:
            if isinstance(tag, DeclTag) and tag.component == -1 and tag.name.startswith(prefix):
                tagged = self._btf.get(tag.type)
                if isinstance(tagged, Func):
                    found[tagged.name] = tag.name.removeprefix(prefix)
        return found

    def _collect(self) -> dict[int, dict[int, _Patch]]:
        """Return the relocations of each function, by slot in it."""
        found: dict[int, dict[int, _Patch]] = {}
        for part in self.file.parts:
            if part.type != elf.REL or part.info >= len(self.file.parts):
                continue
            target = self.file.parts[part.info]
            if not target.executable:
                continue
            for reference in self.file.references(part):
                slot, rest = divmod(reference.offset, SLOT)
                if rest or reference.offset + SLOT > len(target.data):
                    raise LoadError(
                        f"{self.file.path}: {part.name}: offset {reference.offset:#x} is no "
                        "instruction"
                    )
                index = self._function_at(target.index, slot)
                if index is None:
                    continue  # code of a weak function that another one overrides
                slot -= self.functions[index].start
                found.setdefault(index, {})[slot] = self._patch(index, slot, reference)
        return found

    def _function_at(self, section: int, slot: int) -> int | None:
        """Return the index of the function that holds *slot* (``find_prog_by_sec_insn``)."""
        starts, indices = self._starts.get(section, ([], []))
        at = bisect_right(starts, slot) - 1
        if at < 0:
            return None
        function = self.functions[indices[at]]
        return indices[at] if slot < function.start + function.count else None

    def _fault(self, index: int, slot: int, why: str) -> LoadError:
        name = self.functions[index].name
        return LoadError(f"{self.file.path}: {name}: instruction {slot}: {why}")

    def _patch(self, index: int, slot: int, reference: elf.Reference) -> _Patch:
        """Return what *reference* does to an instruction (``bpf_program__record_reloc``)."""
        function, symbol = self.functions[index], reference.symbol
        opcode, registers, _, imm = _SLOT.unpack_from(
            function.part.data, (function.start + slot) * SLOT
        )
        call = opcode == CALL
        if not call and opcode != LD_IMM64:
            raise self._fault(index, slot, f"a relocation of opcode {opcode:#04x}")
        if symbol.extern:
            return self._extern_patch(index, slot, symbol, call)
        if call:
            if registers >> 4 != 1:
                raise self._fault(index, slot, "a call of a helper has a relocation")
            offset = symbol.value + SLOT * (imm + 1)
            return _Patch(slot, "call", self._callee(index, slot, symbol, offset))
        if symbol.section == elf.UNDEF or symbol.section >= len(self.file.parts):
            raise self._fault(
                index, slot, f"refers to {symbol.name or 'something'}, which nothing defines"
            )
        part = self.file.parts[symbol.section]
        anchor = symbol.bind == elf.LOCAL and symbol.type == elf.SECTION
        visible = symbol.bind != elf.LOCAL and symbol.type == elf.FUNC
        if part.index == self._text and (anchor or visible):
            callee = self._callee(index, slot, symbol, symbol.value + imm)
            return _Patch(slot, "func", callee)
        if part.name == maps.JUMP_TABLES:
            return _Patch(slot, "jump", offset=symbol.value, size=symbol.size)
        if part.name == maps.ARENA_DATA and self._arena is not None:
            start = maps.arena_data_offset(self._placed[self._arena].map)
            return _Patch(slot, "value", self._arena, imm + symbol.value + start)
        if part.index in self._data_maps:
            return _Patch(slot, "value", self._data_maps[part.index], imm + symbol.value)
        if (part.index, symbol.value) in self._defined_maps:
            return _Patch(slot, "map", self._defined_maps[part.index, symbol.value])
        raise self._fault(
            index,
            slot,
            f"refers to {symbol.name or 'data'} in section {part.name or '(none)'}: no map",
        )

    def _extern_patch(self, index: int, slot: int, symbol: elf.Symbol, call: bool) -> _Patch:
        extern = self._externs.get(symbol.index)
        if extern is None:
            raise self._fault(index, slot, "refers to an extern without a name")
        if call:
            return _Patch(slot, "kfunc", number=extern.number, name=extern.name, weak=extern.weak)
        if extern.kconfig and extern.weak:  # no kernel, so no such option: 0
            return _Patch(slot, "value", self._options, extern.offset)
        return _Patch(slot, "ksym", name=extern.name, weak=extern.weak)

    def _ksym(self, name: str, weak: bool) -> LoadImm | None:
        """Return what the address of a symbol of the kernel is loaded with, None: not known.

        ``bpf_object__resolve_ksyms_btf_id``; symbols without a type are not in BTF.
        """
        type_id = self._btf.find(name, Var) if self._btf is not None else None
        kind: type[Func | Var] = Func if type_id is None else Var
        if self._kernel is None or self._btf is None:
            return None
        if type_id is not None:
            var = self._btf.get(type_id)
            assert isinstance(var, Var)
            if isinstance(self._btf.resolve(var.type), Void):
                return None
        found = self._kernel.find(name, kind)
        if found is not None:
            return LoadImm(0, KERNEL_ADDRESS, found)
        return LoadImm(0, 0, 0) if weak else None

    def _callee(self, index: int, slot: int, symbol: elf.Symbol, offset: int) -> int:
        """Return the index of the function at *offset* bytes of the section of *symbol*."""
        if symbol.section != self._text or offset % SLOT:
            raise self._fault(
                index,
                slot,
                f"refers to {symbol.name or 'code'}, which is no function in .text, where all "
                "subprograms must be",
            )
        callee = self._function_at(self._text, offset // SLOT)
        if callee is None:
            raise self._fault(index, slot, f"refers to offset {offset:#x} of .text: no function")
        return callee

    # Functions, decoded

    def _decoded(self, index: int) -> tuple[tuple[Insn, ...], tuple[_Patch, ...]]:
        """Return the instructions of function *index*, and its patches by slot."""
        known = self._code.get(index)
        if known is None:
            function = self.functions[index]
            code = function.part.data[function.start * SLOT :][: function.count * SLOT]
            insns = decode(code)
            if self._kernel is not None:
                insns = self._relocated(index, insns, self._kernel)
            patches = dict(self._relocations.get(index, {}))
            for slot, insn in enumerate(insns):
                if isinstance(insn, Call) and insn.kind == "subprog" and slot not in patches:
                    patches[slot] = self._relative_call(index, slot, insn.imm)
                elif isinstance(insn, LoadImm) and insn.src == SUBPROGRAM and slot not in patches:
                    raise self._fault(index, slot, "the address of a function, but no relocation")
            known = self._code[index] = insns, tuple(patches[slot] for slot in sorted(patches))
        return known

    def _core_records(self, function: Function) -> list[btf_ext.CoreRecord]:
        records = self._core.get(function.part.name, [])
        first = bisect_left(records, function.start, key=_slot_of)
        last = bisect_left(records, function.start + function.count, key=_slot_of)
        return records[first:last]

    def _relocated(self, index: int, insns: tuple[Insn, ...], kernel: LazyBtf) -> tuple[Insn, ...]:
        """Return a function's instructions, made for the kernel (``bpf_object__relocate_core``)."""
        function = self.functions[index]
        new = list(insns)
        for record in self._core_records(function):
            slot = record.slot - function.start
            self._spend(CORE_COST)
            try:
                if self._btf is None:
                    raise co_re.Unfit("CO-RE relocation without BTF")
                new[slot] = co_re.relocate(self._btf, kernel, record, insns[slot])
            except co_re.Unfit as why:
                self._unfit[index] = str(why)
            if isinstance(insns[slot], LoadImm) and isinstance(new[slot], Call):
                new[slot + 1] = new[slot]  # poisoned
        return tuple(new)

    def _relative_call(self, index: int, slot: int, imm: int) -> _Patch:
        # the compiler leaves none for a static function of the same section; libbpf takes
        # the offset for one into .text, whatever the section
        target = self.functions[index].start + slot + imm + 1
        callee = self._function_at(self._text, target)
        if callee is None:
            raise self._fault(index, slot, f"calls slot {target} of .text: no function")
        return _Patch(slot, "call", callee)

    # Programs

    def link(self, root: int) -> Program | Refused:
        """Return function *root* with every subprogram that it reaches behind it."""
        main = self.functions[root]
        section = classify(main.part.name)
        section_name = main.part.name.removeprefix("?")
        order, bases, total = self._reach(root)
        for index in order:
            why = self._needs_kernel(index)
            if why is not None:
                return Refused(main.name, section_name, why)
        table = _Tables(self._placed)
        insns: list[Insn] = []
        for index in order:
            insns.extend(self._decoded(index)[0])
        for index in order:
            base = bases[index]
            for patch in self._decoded(index)[1]:
                slot = base + patch.slot
                insns[slot] = self._patched(insns[slot], slot, patch, bases, table, index)
        return Program(
            name=main.name,
            section=section_name,
            type=section.type,
            insns=tuple(insns),
            subprograms=self._subprograms(order, bases, total),
            maps=tuple(table.maps),
            kfuncs=tuple(table.kfuncs),
            btf=self._btf,
            lines=self._program_lines(order, bases),
            attach=section.attach,
            attach_type=section.attach_type,
            sleepable=section.sleepable,
            license=self._license,
        )

    def _reach(self, root: int) -> tuple[list[int], dict[int, int], int]:
        """Return the functions behind *root* in libbpf's order, where each begins, and the end.

        A function is appended when a call names it first, and is gone through before the
        function that calls it is gone on with (``bpf_object__reloc_code``). An exception
        callback comes last.
        """
        order: list[int] = []
        bases: dict[int, int] = {}
        total = 0
        for start in (root, self._callback(root)):
            if start is None or start in bases:
                continue
            pending = [iter((_Patch(0, "call", start),))]
            while pending:
                patch = next(pending[-1], None)
                if patch is None:
                    pending.pop()
                elif patch.kind in ("call", "func") and patch.target not in bases:
                    order.append(patch.target)
                    bases[patch.target] = total
                    total += self.functions[patch.target].count
                    patches = self._decoded(patch.target)[1]
                    self._spend(self.functions[patch.target].count * SLOT_COST)
                    self._spend(len(patches) * PATCH_COST)
                    self._spend(len(self._function_lines(patch.target)) * LINE_COST)
                    pending.append(iter(patches))
        return order, bases, total

    def _spend(self, cost: int) -> None:
        self._cost += cost
        if self._cost > MAX_COST:
            raise LoadError(f"{self.file.path}: its programs are too large together")

    def _callback(self, root: int) -> int | None:
        name = self._callbacks.get(self.functions[root].name)
        if name is None or self.functions[root].part.index == self._text:
            return None
        index = self._text_names.get(name)
        if index is None:
            raise self._fault(root, 0, f"its exception callback {name} is not defined")
        if not self.functions[index].visible or self.functions[index].hidden:
            raise self._fault(root, 0, f"its exception callback {name} is not global")
        return index

    def _needs_kernel(self, index: int) -> str | None:
        """Return why function *index* needs a kernel, None if it does not."""
        if index not in self._kernel_needs:
            self._kernel_needs[index] = self._kernel_need(self.functions[index], index)
        return self._kernel_needs[index]

    def _kernel_need(self, function: Function, index: int) -> str | None:
        records = self._core_records(function)
        if records and self._kernel is None:
            kind = self._btf.get(records[0].type_id) if self._btf is not None else Void()
            name = kind.name or "an unnamed type"
            return f"CO-RE relocation {records[0].kind} of {name} needs a kernel's BTF"
        patches = self._decoded(index)[1]
        if index in self._unfit:
            return self._unfit[index]
        for patch in patches:
            if patch.kind == "ksym" and self._ksym(patch.name, patch.weak) is None:
                return f"the value of extern {patch.name} needs a kernel"
            if patch.kind == "value" and self._placed[patch.target].section in self._with_pointers:
                name = self._placed[patch.target].section_name
                return f"{name} holds pointers, which libbpf leaves unrelocated"
        return None

    def _patched(
        self,
        insn: Insn,
        slot: int,
        patch: _Patch,
        bases: dict[int, int],
        table: _Tables,
        index: int,
    ) -> Insn:
        """Return what *insn*, now at *slot*, becomes."""
        match patch.kind, insn:
            case "call", Call():
                return Call("subprog", bases[patch.target] - slot - 1)
            case "kfunc", Call():
                missing = self._kernel is not None and self._kernel.find(patch.name, Func) is None
                if missing and patch.weak:
                    return Call("helper", NO_KFUNC + patch.number)
                return Call("kfunc", table.kfunc(patch.name))
            case "ksym", LoadImm(dst=dst):
                address = self._ksym(patch.name, patch.weak)
                assert address is not None  # _kernel_need
                return replace(address, dst=dst)
            case "func", LoadImm(dst=dst):
                relative = bases[patch.target] - slot - 1
                return LoadImm(dst, SUBPROGRAM, relative & 0xFFFFFFFF)
            case "map", LoadImm(dst=dst):
                return LoadImm(dst, MAP_BY_INDEX, table.map(patch.target))
            case "value", LoadImm(dst=dst):
                offset = patch.offset & 0xFFFFFFFF
                return LoadImm(dst, VALUE_BY_INDEX, table.map(patch.target) | offset << 32)
            case "jump", LoadImm(dst=dst):
                key = f"jump table {patch.offset}"
                number = table.index.get(key)
                if number is None:
                    number = table.add(key, self._jump_table(patch, bases[index], index))
                return LoadImm(dst, VALUE_BY_INDEX, number)
        raise self._fault(index, patch.slot, "a relocation of what is no instruction")

    def _jump_table(self, patch: _Patch, base: int, index: int) -> MapDef:
        """Return the map of a jump table: slots of the program (``create_jt_map``)."""
        part = self.file.part(maps.JUMP_TABLES)
        end = patch.offset + patch.size
        if part is None or patch.offset % 8 or patch.size % 8 or end > len(part.data):
            raise self._fault(index, patch.slot, "its jump table lies outside .jumptables")
        self._spend(patch.size // 8 * PATCH_COST)
        values = bytearray()
        start = self.functions[index].start
        for (offset,) in struct.iter_unpack("<Q", part.data[patch.offset : end]):
            slot = offset // SLOT - start + base
            if not 0 <= slot <= 0xFFFFFFFF:
                raise self._fault(index, patch.slot, f"its jump table holds {offset:#x}")
            values += struct.pack("<IIII", slot, 0, 0, 0)  # struct bpf_insn_array_value
        count = len(values) // 16
        return MapDef(maps.JUMP_TABLES, maps.INSN_ARRAY, 4, 16, count, data=bytes(values))

    # What BTF.ext says; as libbpf has it, either all functions of a program have it or none

    def _subprograms(
        self, order: list[int], bases: dict[int, int], total: int
    ) -> tuple[Subprogram, ...]:
        ends = [*(bases[index] for index in order[1:]), total]
        known = self._type_id(order[0]) != 0
        found = []
        for index, end in zip(order, ends, strict=True):
            type_id = self._type_id(index) if known else 0
            if known and not type_id:
                raise self._fault(index, 0, "BTF.ext has no function info for it")
            # without BTF the kernel knows no global functions
            func = self._btf.get(type_id) if self._btf is not None else None
            linkage = "global" if isinstance(func, Func) and func.linkage == GLOBAL else "static"
            found.append(
                Subprogram(self.functions[index].name, bases[index], end, linkage, type_id)
            )
        return tuple(found)

    def _type_id(self, index: int) -> int:
        function = self.functions[index]
        return self._type_ids.get(function.part.name, {}).get(function.start, 0)

    def _program_lines(self, order: list[int], bases: dict[int, int]) -> tuple[LineInfo, ...]:
        if not self._function_lines(order[0]):
            return ()
        found: list[LineInfo] = []
        for index in order:
            records = self._function_lines(index)
            if not records:
                raise self._fault(index, 0, "BTF.ext has no line info for it")
            shift = bases[index] - self.functions[index].start
            found.extend(
                LineInfo(r.slot + shift, r.file, r.text, r.line, r.column) for r in records
            )
        return tuple(found)

    def _function_lines(self, index: int) -> tuple[btf_ext.LineRecord, ...]:
        known = self._lines.get(index)
        if known is None:
            function = self.functions[index]
            records = self._ext.lines.get(function.part.name, [])
            first = bisect_left(records, function.start, key=_slot_of)
            last = bisect_left(records, function.start + function.count, key=_slot_of)
            known = self._lines[index] = tuple(records[first:last])
        return known


def _slot_of(record: btf_ext.LineRecord | btf_ext.CoreRecord) -> int:
    return record.slot


class _Tables:
    """Maps and kfuncs of one program, in the order in which it names them."""

    def __init__(self, placed: tuple[maps.PlacedMap, ...]) -> None:
        self.maps: list[MapDef] = []
        self.kfuncs: dict[str, int] = {}
        self.index: dict[int | str, int] = {}  # number in the object, or name: index
        self._placed = placed

    def map(self, number: int) -> int:
        """Return the index of the object's map *number*."""
        return self.add(number, self._placed[number].map)

    def kfunc(self, name: str) -> int:
        """Return the index of the kfunc *name*."""
        return self.kfuncs.setdefault(name, len(self.kfuncs))

    def add(self, key: int | str, value: MapDef) -> int:
        """Return the index of the map that *key* stands for, added as *value* if it is new."""
        if key not in self.index:
            self.index[key] = len(self.maps)
            self.maps.append(value)
        return self.index[key]
