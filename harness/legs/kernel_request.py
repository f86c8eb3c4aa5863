"""What is asked of bpf(2) for one program: its BTF, maps, load, answers and runs.

Attributes are those of ``union bpf_attr`` (include/uapi/linux/bpf.h, Linux 7.3), and what
is asked in which order is what libbpf asks, refused BTF included: the program is then
loaded without it.
"""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.btf import Btf, encode_with_strings
from harness.interp import RECORD, RING_HEADER, RINGBUF, name_hash
from harness.isa.codec import encode
from harness.isa.insn import Call, LoadImm
from harness.legs.agent import (
    ALWAYS,
    BPF,
    IF_FAILED,
    MAP,
    RING,
    RUN,
    SKIPPED,
    Address,
    Condition,
    Fd,
    Field,
    Quad,
    Reply,
    Script,
    Step,
)
from harness.load.maps import RDONLY_PROG
from harness.load.sections import classify
from harness.model import MapDef, Outcome, Program, Returned, Unknown, Vector

# Commands                                include/uapi/linux/bpf.h, enum bpf_cmd
MAP_CREATE, MAP_UPDATE_ELEM, PROG_LOAD = 0, 2, 5
OBJ_GET_INFO_BY_FD, BTF_LOAD, BTF_GET_FD_BY_ID, MAP_FREEZE = 15, 18, 19, 22
MAP_UPDATE_BATCH = 26
CLEAR = 0xFFFF  # the agent's own: delete every element

# Map types                               enum bpf_map_type
HASH, ARRAY, PROG_ARRAY, PERCPU_ARRAY, LRU_HASH = 1, 2, 3, 6, 9
STRUCT_OPS, ARENA, INSN_ARRAY = 26, 33, 34

# fmt: off
PROGRAM_TYPES = {name: number for number, name in enumerate((
    # enum bpf_prog_type
    "unspec", "socket_filter", "kprobe", "sched_cls", "sched_act", "tracepoint", "xdp",
    "perf_event", "cgroup_skb", "cgroup_sock", "lwt_in", "lwt_out", "lwt_xmit", "sock_ops",
    "sk_skb", "cgroup_device", "sk_msg", "raw_tracepoint", "cgroup_sock_addr",
    "lwt_seg6local", "lirc_mode2", "sk_reuseport", "flow_dissector", "cgroup_sysctl",
    "raw_tracepoint_writable", "cgroup_sockopt", "tracing", "struct_ops", "ext", "lsm",
    "sk_lookup", "syscall", "netfilter",
))}
ATTACH_TYPES = {name: number for number, name in enumerate((
    # enum bpf_attach_type
    "cgroup_inet_ingress", "cgroup_inet_egress", "cgroup_inet_sock_create", "cgroup_sock_ops",
    "sk_skb_stream_parser", "sk_skb_stream_verdict", "cgroup_device", "sk_msg_verdict",
    "cgroup_inet4_bind", "cgroup_inet6_bind", "cgroup_inet4_connect", "cgroup_inet6_connect",
    "cgroup_inet4_post_bind", "cgroup_inet6_post_bind", "cgroup_udp4_sendmsg",
    "cgroup_udp6_sendmsg", "lirc_mode2", "flow_dissector", "cgroup_sysctl",
    "cgroup_udp4_recvmsg", "cgroup_udp6_recvmsg", "cgroup_getsockopt", "cgroup_setsockopt",
    "trace_raw_tp", "trace_fentry", "trace_fexit", "modify_return", "lsm_mac", "trace_iter",
    "cgroup_inet4_getpeername", "cgroup_inet6_getpeername", "cgroup_inet4_getsockname",
    "cgroup_inet6_getsockname", "xdp_devmap", "cgroup_inet_sock_release", "xdp_cpumap",
    "sk_lookup", "xdp", "sk_skb_verdict", "sk_reuseport_select",
    "sk_reuseport_select_or_migrate", "perf_event", "trace_kprobe_multi", "lsm_cgroup",
    "struct_ops", "netfilter", "tcx_ingress", "tcx_egress", "trace_uprobe_multi",
    "cgroup_unix_connect", "cgroup_unix_sendmsg", "cgroup_unix_recvmsg",
    "cgroup_unix_getpeername", "cgroup_unix_getsockname", "netkit_primary", "netkit_peer",
    "trace_kprobe_session", "trace_uprobe_session", "trace_fsession", "trace_fentry_multi",
    "trace_fexit_multi", "trace_fsession_multi",
))}
# What the kernel attaches to, by attach type: its kind in the kernel's BTF, and a prefix
ATTACHED = {
    "trace_raw_tp": ("typedef", "btf_trace_"), "trace_fentry": ("func", ""),
    "trace_fexit": ("func", ""), "modify_return": ("func", ""), "trace_fsession": ("func", ""),
    "lsm_mac": ("func", "bpf_lsm_"), "lsm_cgroup": ("func", "bpf_lsm_"),
    "trace_iter": ("func", "bpf_iter_"),
}
# How BPF_PROG_TEST_RUN gives a program its input: a context, changed in place or not, or a packet
CONTEXT  = frozenset({"syscall"})
COPY     = frozenset({"raw_tracepoint", "raw_tracepoint_writable"})
PACKET   = frozenset({"sched_cls", "sched_act", "xdp", "socket_filter", "cgroup_skb", "lwt_in",
                      "lwt_out", "lwt_xmit", "lwt_seg6local", "flow_dissector"})
# fmt: on

SLEEPABLE, XDP_HAS_FRAGS = 1 << 4, 1 << 5  # program flags
RING_BUSY, RING_DISCARD = 1 << 31, 1 << 30  # of a ring buffer's record
LOG_FIXED = 8  # log level flag: keep the beginning, not the end
BTF_LOG = 1 << 20  # bytes
TAIL = 1 << 16  # bytes of a log's end, where the whole does not fit
MAX_TRANSLATED, MAX_IMAGE, MAX_FUNCTIONS = 16 << 20, 32 << 20, 4096
MAX_RESET = 1 << 16  # bytes of a map's values that are set again before each vector
PACKET_ROOM = 4096  # bytes
_INFO = 232  # bytes of struct bpf_prog_info
MAP_BY_INDEX = {5: 1, 6: 2}  # BPF_PSEUDO_MAP_IDX and _IDX_VALUE, to BPF_PSEUDO_MAP_FD and _VALUE
_VECTOR = struct.Struct("<IIIIiI")
_RUN = struct.Struct("<8I")


@dataclass(frozen=True, slots=True)
class Module:
    """A module that is loaded in every guest, and what of it programs may name."""

    name: str
    btf_id: int  # of its BTF, for BPF_BTF_GET_FD_BY_ID
    functions: Mapping[str, int]  # type id by name


class Types:
    """The kernel's own types, as far as programs name them: functions and typedefs."""

    def __init__(self, btf: bytes | None, modules: Sequence[Module] = ()) -> None:
        self._btf = btf
        self._ids: dict[str, dict[str, int]] | None = None
        self.modules = tuple(modules)

    def find(self, kind: str, name: str) -> int | None:
        """Return the id of the kernel's "func" or "typedef" called *name*."""
        if self._btf is None:
            return None
        if self._ids is None:
            self._ids = type_names(self._btf)
        return self._ids[kind].get(name)

    def kfunc(self, name: str) -> tuple[int, Module | None] | None:
        """Return the id of kfunc *name* and its module, None for the kernel itself."""
        for module in self.modules:
            if name in module.functions:
                return module.functions[name], module
        found = self.find("func", name)
        return (found, None) if found is not None else None


def type_names(data: bytes, base: bytes | None = None) -> dict[str, dict[str, int]]:
    """Return kind: name: id of the functions and typedefs in the BTF *data*.

    *base* is the BTF that split BTF continues. 0.2 s a megabyte.
    """
    types, strings = _btf_sections(data)
    number, skip = 1, 0
    if base is not None:
        base_types, base_strings = _btf_sections(base)
        number += sum(1 for _ in _walk(base_types))
        skip = len(base_strings)
    found: dict[str, dict[str, int]] = {"func": {}, "typedef": {}}
    for type_id, (name, kind) in enumerate(_walk(types), number):
        if kind in (8, 12) and name >= skip:
            text = strings[name - skip : strings.index(0, name - skip)].decode("ascii", "replace")
            found["func" if kind == 12 else "typedef"].setdefault(text, type_id)
    return found


def _btf_sections(data: bytes) -> tuple[bytes, bytes]:
    header, type_off, type_len, str_off, str_len = struct.unpack_from("<4xIIIII", data)
    types = data[header + type_off : header + type_off + type_len]
    return types, data[header + str_off : header + str_off + str_len]


def _walk(types: bytes) -> Iterator[tuple[int, int]]:
    """Yield name offset and kind of each type."""
    # bytes behind the twelve of each kind, and of each of its vlen elements (btf.rst, 2.2)
    once = {1: 4, 3: 12, 14: 4, 17: 4}
    each = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
    at, end = 0, len(types)
    unpack = struct.Struct("<II").unpack_from
    while at < end:
        name, info = unpack(types, at)
        kind = info >> 24 & 0x1F
        yield name, kind
        at += 12 + once.get(kind, 0)
        if kind in each:
            at += each[kind] * (info & 0xFFFF)


# --- a program's BTF --------------------------------------------------------


def encode_btf(btf: Btf, programs: Iterable[Program]) -> tuple[bytes, dict[str, int]]:
    """Return *btf* with the strings of all *programs*' line info, and strings by offset."""
    strings = {text: None for p in programs for line in p.lines for text in (line.file, line.text)}
    return encode_with_strings(btf, strings)


@dataclass(frozen=True, slots=True)
class LoadedBtf:
    """BTF that a script loads, for the programs after it."""

    step: Step
    log: int  # range
    strings: Mapping[str, int]


def load_btf(script: Script, data: bytes, strings: Mapping[str, int]) -> LoadedBtf:
    """Add loading the BTF *data*; where it is refused, the log says why."""
    address, log = Address(script.place(data)), script.room(BTF_LOG)
    slot = script.slot()

    def fields(level: int) -> list[Field]:
        logging: list[Field] = [Address(log)] if level else [Quad(0)]
        return [address, *logging, len(data), BTF_LOG if level else 0, level, 0]

    first = script.bpf(BTF_LOAD, fields(0), slot=slot)
    script.bpf(BTF_LOAD, fields(1), slot=slot, when=(IF_FAILED, slot))
    return LoadedBtf(first, script.string(log, BTF_LOG), strings)


# --- maps -------------------------------------------------------------------


class Maps:
    """The maps that a script makes for one program."""

    def __init__(
        self, script: Script, maps: Sequence[MapDef], btf: LoadedBtf | None, cpus: int
    ) -> None:
        self.steps: list[tuple[MapDef, tuple[Step, ...]]] = []
        self.resets: list[tuple[int, int, int]] = []  # command, attribute and size
        self.patches: list[bytes] = []  # of those
        self.again = True  # whether the resets bring all maps to where they began
        self._script = script
        self._btf = btf
        self._cpus = cpus
        self.slots = [self._make(each) for each in maps]

    def _make(self, each: MapDef) -> int:
        inner = self._make(each.inner) if each.inner is not None else None
        slot = self._script.slot()
        steps = []
        typed = self._btf is not None and (each.key_type or each.value_type)
        if typed and self._btf is not None:
            steps.append(self._create(each, slot, inner, (ALWAYS, 0), typed=True))
            # as libbpf does where the kernel does not like the types
            steps.append(self._create(each, slot, inner, (IF_FAILED, slot), typed=False))
        else:
            steps.append(self._create(each, slot, inner, (ALWAYS, 0), typed=False))
        self.steps.append((each, tuple(steps)))
        self._fill(each, slot)
        self._reset(each, slot)
        return slot

    def _create(
        self, each: MapDef, slot: int, inner: int | None, when: Condition, *, typed: bool
    ) -> Step:
        btf: list[Field] = [0, 0, 0]
        if typed and self._btf is not None:
            btf = [Fd(self._btf.step.slot), each.key_type, each.value_type]
        flags = each.flags | (RDONLY_PROG if each.readonly else 0)
        fields: list[Field] = [
            *(each.type, each.key_size, each.value_size, each.max_entries, flags),
            Fd(inner) if inner is not None else 0,
            *(0, object_name(each.name), 0, *btf, 0),
            *(Quad(each.extra), 0, 0),
        ]
        return self._script.bpf(MAP_CREATE, fields, slot=slot, when=when)

    def _update(self, slot: int, key: int, value: bytes) -> list[Field]:
        where = Address(self._script.place(value))
        return [Fd(slot), 0, Address(self._script.place(struct.pack("<I", key))), where, Quad(0)]

    def _fill(self, each: MapDef, slot: int) -> None:
        if each.type == ARENA:
            data = each.data or b""
            area = struct.pack("<QQ", each.extra, each.max_entries * 4096)
            place = self._script.place
            self._script.step(MAP, slot, place(area), place(data), len(data))
        elif each.data is not None and each.type == INSN_ARRAY:
            for key in range(each.max_entries):
                value = each.data[16 * key : 16 * key + 16]
                self._script.bpf(MAP_UPDATE_ELEM, self._update(slot, key, value))
            self._script.bpf(MAP_FREEZE, [Fd(slot)])
        elif each.data is not None:
            value = each.data
            if each.type == PERCPU_ARRAY:
                value = (value + bytes(-len(value) % 8)) * self._cpus
            if any(value):
                self._script.bpf(MAP_UPDATE_ELEM, self._update(slot, 0, value))
            if each.readonly:
                self._script.bpf(MAP_FREEZE, [Fd(slot)])

    def _reset(self, each: MapDef, slot: int) -> None:
        """Note how the map comes back to where it began, before the next vector."""
        if each.readonly or each.type in (PROG_ARRAY, INSN_ARRAY) or each.inner is not None:
            return
        script, count = self._script, each.max_entries
        fields: list[Field]
        if each.type == ARRAY and count * (each.value_size + 4) <= MAX_RESET:
            values = each.data if each.data is not None else bytes(count * each.value_size)
            if count == 1:
                command, fields = MAP_UPDATE_ELEM, self._update(slot, 0, values)
            else:
                keys = script.place(struct.pack(f"<{count}I", *range(count)))
                where = Address(script.place(values))
                command = MAP_UPDATE_BATCH
                fields = [Quad(0), Quad(0), Address(keys), where, count, Fd(slot), Quad(0), Quad(0)]
        elif each.type in (HASH, LRU_HASH):
            command, key, other = CLEAR, *(script.room(each.key_size) for _ in range(2))
            fields = [Fd(slot), 0, Address(key), Address(other), Quad(0)]
        else:
            self.again = False
            return
        offset, size, patches = script.attribute(fields)
        self.resets.append((command, offset, size))
        self.patches += patches

    def fault(self, reply: Reply) -> str | None:
        """Return which map the kernel did not make and why, None if it made all."""
        for each, steps in self.steps:
            results = [reply.results[step.number] for step in steps]
            taken = [result for result in results if result != SKIPPED]
            if not taken or taken[-1] < 0:
                return f"map {each.name}: {error_name(taken[-1] if taken else SKIPPED)}"
        return None


def repeatable(maps: Sequence[MapDef]) -> bool:
    """Return whether *maps* can be brought back to where they began, between two vectors."""
    return Maps(Script(), maps, None, 1).again


def object_name(name: str) -> bytes:
    """Return *name* as the kernel takes it: 15 letters, digits, underscores and dots."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", name)[:15].encode().ljust(16, b"\0")


def error_name(result: int) -> str:
    """Return the name of the error *result*, which is negative."""
    return errno.errorcode.get(-result, str(result))


# --- a program --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """What a program's instructions and attachment become in this kernel."""

    insns: bytes
    modules: tuple[Module, ...]  # in the order of the fd array, behind the maps
    attach_type: int
    attach_btf_id: int


def target(program: Program, types: Types) -> Target | Unknown:
    """Find in *types* what *program* names of the kernel, or say what is not there."""
    if program.type not in PROGRAM_TYPES:
        return Unknown(f"no program type {program.type}")
    if program.type in ("struct_ops", "ext"):
        return Unknown(f"a {program.type} program needs a target, which this leg does not make")
    if any(each.type == STRUCT_OPS for each in program.maps):
        return Unknown("a struct_ops map needs the kernel's types")
    attach = attach_type_of(program)
    attach_type, attach_id = ATTACH_TYPES.get(attach, 0), 0
    if attach in ATTACHED:
        kind, prefix = ATTACHED[attach]
        found = types.find(kind, prefix + program.attach)
        if found is None:
            return Unknown(f"the kernel has no {prefix}{program.attach} to attach to")
        attach_id = found
    modules: list[Module] = []
    insns = list(program.insns)
    for slot, insn in enumerate(insns):
        if not isinstance(insn, Call) or insn.kind != "kfunc":
            continue
        if not 0 <= insn.imm < len(program.kfuncs):
            continue  # as the bytes have it: a number, not a name
        name = program.kfuncs[insn.imm]
        kfunc = types.kfunc(name)
        if kfunc is None:
            return Unknown(f"the kernel has no kfunc {name}")
        type_id, module = kfunc
        index = 0
        if module is not None:
            if module not in modules:
                modules.append(module)
            index = max(len(program.maps), 1) + modules.index(module)
        insns[slot] = replace(insn, imm=type_id, off=index)
    return Target(encode(insns), tuple(modules), attach_type, attach_id)


def attach_type_of(program: Program) -> str:
    """Return the expected attach type, which a program in text says itself."""
    if program.attach_type:
        return program.attach_type
    section = classify(program.section)
    return section.attach_type if section.type == program.type else ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One load of a program in a script."""

    step: Step
    log: int  # range
    level: int


class Load:
    """Loading one program in a script, what is asked of it, and what comes back."""

    def __init__(
        self,
        script: Script,
        program: Program,
        goal: Target,
        btf: LoadedBtf | None,
        *,
        level: int,
        log_limit: int,
        cpus: int,
        flags: int = 0,
        overflow: bool = False,
    ) -> None:
        """Add it to *script*: at *level*, and at 1 where it is refused at 0.

        *flags* are those of the program (BPF_F_*) that do not follow from its section. With
        *overflow* the log is known not to fit: it is cut off, and its end comes too.
        """
        self.program = program
        self._flags = flags
        self.btf = btf
        self.maps = Maps(script, program.maps, btf, cpus)
        self.slot = script.slot()
        self.attempts: list[Attempt] = []
        self.beginning: Attempt | None = None
        self.info: Info | None = None
        self._script = script
        self._goal = goal
        self._place()
        if overflow:
            self._attempt(btf, 0, 0)
            self.beginning = self._attempt(btf, level | LOG_FIXED, log_limit, script.slot())
            self._attempt(btf, level or 1, TAIL, script.slot(), (IF_FAILED, self.slot))
            return
        self._attempt(btf, level, log_limit)
        if not level:
            self._attempt(btf, 1, log_limit, when=(IF_FAILED, self.slot))
        if btf is not None:
            # libbpf loads it all the same when its BTF is refused
            self._attempt(None, level or 1, log_limit, when=(IF_FAILED, btf.step.slot))

    def _place(self) -> None:
        """Put what all attempts need into the memory."""
        script, program = self._script, self.program
        fds: list[Field] = [Fd(slot) for slot in self.maps.slots] or [0]
        for module in self._goal.modules:
            fds.append(Fd(script.bpf(BTF_GET_FD_BY_ID, [module.btf_id, 0, 0, 0]).slot))
        self._fds, _, self._patches = script.attribute(fds)
        self._insns, more = self._instructions()
        self._patches += more
        self._license = script.text(program.license)
        functions = lines = b""
        if self.btf is not None:
            if all(each.type_id for each in program.subprograms):
                functions = b"".join(
                    struct.pack("<II", each.start, each.type_id) for each in program.subprograms
                )
            at = self.btf.strings
            lines = b"".join(
                struct.pack("<IIII", x.insn, at[x.file], at[x.text], x.line << 10 | x.column)
                for x in program.lines
            )
        self._functions, self._function_count = script.place(functions), len(functions) // 8
        self._lines, self._line_count = script.place(lines), len(lines) // 16

    def _instructions(self) -> tuple[int, list[bytes]]:
        """Place the instructions, which name maps by descriptor, as libbpf's do.

        An index in the descriptors would do, but for the JIT, which takes the source
        register of that form, 6, for a use of r6.
        """
        code, at = self._goal.insns, 0
        fields: list[Field] = []
        for slot, insn in enumerate(self.program.insns):
            index = insn.imm & 0xFFFFFFFF if isinstance(insn, LoadImm) else 0
            if not isinstance(insn, LoadImm) or insn.src not in MAP_BY_INDEX:
                continue
            if index < len(self.maps.slots):
                registers = insn.dst | MAP_BY_INDEX[insn.src] << 4
                begin = code[at : 8 * slot + 1] + bytes([registers]) + bytes(2)
                fields += [begin, Fd(self.maps.slots[index])]
                at = 8 * slot + 8
        offset, _, patches = self._script.attribute([*fields, code[at:]])
        return offset, patches

    def _attempt(
        self,
        btf: LoadedBtf | None,
        level: int,
        limit: int,
        slot: int | None = None,
        when: Condition = (ALWAYS, 0),
    ) -> Attempt:
        limit = limit if level else 0
        log = self._script.room(limit)
        offset, size, patches = self._script.attribute(self._attribute(btf, level, log, limit))
        step = self._script.step(
            BPF,
            *(PROG_LOAD, offset, size),
            slot=self.slot if slot is None else slot,
            when=when,
            patches=[*self._patches, *patches],
        )
        attempt = Attempt(step, self._script.string(log, limit), level)
        self.attempts.append(attempt)
        return attempt

    def _attribute(self, btf: LoadedBtf | None, level: int, log: int, limit: int) -> list[Field]:
        program, goal = self.program, self._goal
        flags = SLEEPABLE if program.sleepable or program.type == "syscall" else 0
        if program.section.startswith("xdp.frags"):
            flags |= XDP_HAS_FRAGS
        flags |= self._flags
        functions: list[Field] = [0, 0, Quad(0), 0]  # BTF, size, address and number of records
        lines: list[Field] = [0, Quad(0), 0]
        if btf is not None:
            functions = [Fd(btf.step.slot), 8, Address(self._functions), self._function_count]
            lines = [16, Address(self._lines), self._line_count]
        return [
            *(PROGRAM_TYPES[program.type], len(goal.insns) // 8),
            *(Address(self._insns), Address(self._license)),
            *(level, limit, Address(log) if level else Quad(0)),
            *(0, flags, object_name(program.name), 0, goal.attach_type),
            *functions,
            *lines,
            *(goal.attach_btf_id, 0, 0, Address(self._fds)),
        ]

    def ask_info(self) -> None:
        """Ask for translated instructions and images."""
        self.info = Info(self._script, self.slot)

    def verdict(self, reply: Reply) -> tuple[int, Attempt] | Unknown:
        """Return the result of loading it, and the attempt it came of."""
        fault = self.maps.fault(reply)
        if fault is not None:
            return Unknown(f"{fault}: the kernel does not make it")
        taken = [each for each in self.attempts if reply.results[each.step.number] != SKIPPED]
        if not taken:
            return Unknown("the kernel gives no access to the module's types")
        last = taken[0] if self.beginning is not None else taken[-1]
        return reply.results[last.step.number], last


class Info:
    """What BPF_OBJ_GET_INFO_BY_FD says of a program: ``struct bpf_prog_info``."""

    def __init__(self, script: Script, slot: int) -> None:
        translated, image = script.room(MAX_TRANSLATED), script.room(MAX_IMAGE)
        symbols, lengths = script.room(8 * MAX_FUNCTIONS), script.room(4 * MAX_FUNCTIONS)
        info, size, patches = script.attribute(
            [
                *(0, 0, bytes(8), MAX_IMAGE, MAX_TRANSLATED, Address(image), Address(translated)),
                *(Quad(0), 0, 0, Quad(0), bytes(16), 0, 0, Quad(0), Quad(0)),
                *(MAX_FUNCTIONS, MAX_FUNCTIONS, Address(symbols), Address(lengths)),
                bytes(_INFO - 128),
            ]
        )
        offset, length, more = script.attribute([Fd(slot), size, Address(info)])
        step = script.step(BPF, OBJ_GET_INFO_BY_FD, offset, length, patches=[*patches, *more])
        self._fixed = script.fixed(info, size, step.slot)
        self._translated = script.counted(translated, MAX_TRANSLATED, info + 20, 1, step.slot)
        self._image = script.counted(image, MAX_IMAGE, info + 16, 1, step.slot)
        self._symbols = script.counted(symbols, 8 * MAX_FUNCTIONS, info + 104, 8, step.slot)
        self._lengths = script.counted(lengths, 4 * MAX_FUNCTIONS, info + 108, 4, step.slot)

    def translated(self, reply: Reply) -> bytes:
        """Return the instructions after the verifier's fix-ups, as the kernel shows them."""
        return reply.ranges[self._translated]

    def images(self, reply: Reply) -> list[tuple[int, bytes]]:
        """Return address and code of each function, main first; empty without a JIT."""
        code, at, found = reply.ranges[self._image], 0, []
        symbols = struct.iter_unpack("<Q", reply.ranges[self._symbols])
        lengths = struct.iter_unpack("<I", reply.ranges[self._lengths])
        for (address,), (length,) in zip(symbols, lengths, strict=False):
            found.append((address, code[at : at + length]))
            at += length
        return found

    def processed(self, reply: Reply) -> int:
        """Return how many instructions the verifier processed."""
        fixed = reply.ranges[self._fixed]
        return int(struct.unpack_from("<I", fixed, 216)[0]) if len(fixed) == _INFO else 0


class Batch:
    """A program run on vectors, in the script that loads it."""

    def __init__(self, script: Script, load: Load, vectors: Sequence[Vector]) -> None:
        program, maps = load.program, load.maps
        self._vectors = vectors
        self._packet = program.type in PACKET
        self._copy = program.type in COPY
        table = bytearray()
        outs = script.room(PACKET_ROOM * len(vectors)) if self._packet else 0
        start = at = script.place(b"".join(_padded(vector) for vector in vectors))
        for number, vector in enumerate(vectors):
            out = outs + number * PACKET_ROOM if self._packet else 0
            table += _VECTOR.pack(at, len(vector), out, 0, 0, 0)
            at += len(_padded(vector))
        rows = script.place(bytes(table))
        resets = script.place(b"".join(struct.pack("<III", *row) for row in maps.resets))
        fields: list[Field] = [Fd(load.slot), 0, 0, 0, Quad(0), Quad(0)]
        fields += [int(self._packet), 0, 0, 0, Quad(0), Quad(0), 0, 0, 0, 0]
        attr, size, patches = script.attribute(fields)
        run = script.place(
            _RUN.pack(
                *(attr, size - 4, self._packet, len(vectors)),
                *(rows, resets, len(maps.resets), PACKET_ROOM),
            )
        )
        self._step = script.step(RUN, run, patches=[*patches, *maps.patches])
        slot = self._step.slot
        self._table = script.fixed(rows, len(table), slot)
        self._after = [
            script.counted(outs + n * PACKET_ROOM, PACKET_ROOM, rows + 24 * n + 12, 1, slot)
            for n in range(len(vectors) if self._packet else 0)
        ]
        if not self._packet:
            self._after = [script.fixed(start, at - start, slot)]
        self._rings = [n for n, each in enumerate(program.maps) if each.type == RINGBUF]
        self._ring: tuple[int, int] | None = None  # what stands for its name, and the range
        if len(self._rings) == 1 and len(vectors) == 1:
            each = program.maps[self._rings[0]]
            data, length = script.room(each.max_entries), script.room(8)
            ring = script.step(RING, maps.slots[self._rings[0]], each.max_entries, data, length)
            record = script.counted(data, each.max_entries, length, 1, ring.slot)
            self._ring = name_hash(each.name), record

    def outcomes(self, reply: Reply) -> list[Outcome]:
        """Return the outcome of each vector; the kernel tells the low half of r0 only."""
        result = reply.results[self._step.number]
        if result < 0:
            why = Unknown("not run: not loaded" if result == SKIPPED else error_name(result))
            return [why for _ in self._vectors]
        outcomes: list[Outcome] = []
        rows = _VECTOR.iter_unpack(reply.ranges[self._table])
        at = 0
        for number, (vector, row) in enumerate(zip(self._vectors, rows, strict=True)):
            error, r0 = row[4], row[5]
            if self._packet:
                after = reply.ranges[self._after[number]]
            else:
                after = reply.ranges[self._after[0]][at : at + len(vector)]
                at += len(_padded(vector))
            if error:
                outcomes.append(Unknown(f"BPF_PROG_TEST_RUN: {error_name(error)}"))
            else:
                after = bytes(vector) if self._copy else after
                outcomes.append(Returned(r0, after, self._effects(reply)))
        return outcomes

    def _effects(self, reply: Reply) -> bytes | None:
        """Return the records of the ring buffer; None of several, whose order is not known."""
        if not self._rings:
            return b""
        if self._ring is None:
            return None
        name, number = self._ring
        return ring_records(name, reply.ranges[number])


def ring_records(name: int, data: bytes) -> bytes:
    """Return what a reader finds in *data*, a ring buffer from its start, as interp has it.

    A record's header is its length, with two bits for one that is busy or discarded, and a
    word that is the kernel's own (struct bpf_ringbuf_hdr).
    """
    at, found = 0, bytearray()
    while at + RING_HEADER <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        size = length & ~(RING_BUSY | RING_DISCARD)
        if not length & (RING_BUSY | RING_DISCARD):
            start = at + RING_HEADER
            found += RECORD.pack(name, size) + data[start : start + size]
        at += -(-(size + RING_HEADER) // 8) * 8
    return bytes(found)


def ask_btf_name(script: Script, number: int) -> Callable[[Reply], str]:
    """Ask for the name of the BTF object *number*; return what reads it in the reply."""
    fd = script.bpf(BTF_GET_FD_BY_ID, [number, 0, 0, 0])
    name = script.room(64)
    info, size, patches = script.attribute([Quad(0), 0, 0, Address(name), 64, 0])
    offset, length, more = script.attribute([Fd(fd.slot), size, Address(info)])
    step = script.step(BPF, OBJ_GET_INFO_BY_FD, offset, length, patches=[*patches, *more])
    number = script.string(name, 64, step.slot)
    return lambda reply: reply.ranges[number].decode("ascii", "replace")


def runnable(program: Program) -> str | None:
    """Return why BPF_PROG_TEST_RUN does not run programs like *program*, None if it does."""
    if program.type in CONTEXT or program.type in COPY or program.type in PACKET:
        return None
    return f"BPF_PROG_TEST_RUN does not run {program.type} programs"


def _padded(vector: Vector) -> bytes:
    return vector + bytes(-len(vector) % 8)
