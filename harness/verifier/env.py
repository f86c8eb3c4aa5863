"""What one verification knows: the program, its subprograms, counters and marks.

Mirrors ``struct bpf_verifier_env``, ``bpf_subprog_info`` and ``bpf_insn_aux_data``
of Linux 7.3, as far as it is not a state on a path (``state.py``).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any, NoReturn

from harness.btf import Btf
from harness.isa.codec import Fields
from harness.isa.insn import Insn
from harness.isa.stack_args import REG_ARGS
from harness.model import MapDef, Program
from harness.verifier.log import Log
from harness.verifier.state import MAX_FRAMES, MAX_STACK, Frame, Reg, State, TypeRef

MAX_JUMP_SEQUENCE = 8192  # BPF_COMPLEXITY_LIMIT_JMP_SEQ


NO_KERNEL_BTF = (
    "no kernel BTF: fetch a Linux 7.3 by `crosscheck run --legs kernel`, "
    "or name an image with $CROSSCHECK_KERNEL"
)


# license_is_gpl_compatible
GPL = frozenset({
    "GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL",
})  # fmt: skip


class Refused(Exception):  # noqa: N818 - the way out, not an error
    """The kernel refuses the program here; the text is its words, one or more lines."""

    def __init__(self, message: str, insn: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.insn = insn


class NotModelled(Exception):  # noqa: N818 - as above
    """What Linux says here is not known to us; the text says of what."""


@dataclass(frozen=True)
class Options:
    """What the caller may choose.

    ``slots_by`` "parameters": an argument takes one slot, as the kernel counts;
    "layout": as many as its size needs, as the compiler counts, so that code with
    structs of 9 to 16 bytes, which the kernel refuses, can still be checked.
    """

    slots_by: str = "parameters"
    jit: bool = True  # False: switched off
    jit_stack_args: bool = True  # False: a JIT that does not know stack arguments
    privileged: bool = True
    infer_arguments: bool = False  # no BTF: a subprogram has the arguments it loads
    max_stack: int = MAX_STACK  # bytes that a chain of calls may take
    budget: int = 0  # instructions to look at before it says Unknown; 0: as many as the kernel
    strict_alignment: bool = False  # BPF_F_STRICT_ALIGNMENT
    test_state_freq: bool = False  # keep a state wherever paths may meet (BPF_F_TEST_STATE_FREQ)
    propagate_slots: bool = False  # True: mended (linux-unpropagated-slot, linux-unforced-slot)
    kernel_btf: Btf | None = field(default=None, compare=False)  # None: not at hand


@dataclass(slots=True, eq=False)
class Argument:
    """What a global function, or a static one that may be checked, expects in an argument."""

    kind: str  # "scalar", "ctx", "mem", "dynptr", "arena", "btf", "untrusted"
    size: int = 0  # mem: bytes
    nullable: bool = False
    struct: TypeRef | None = None  # btf; untrusted: None, any memory


@dataclass(slots=True, eq=False)
class Subprog:
    """One function (``bpf_subprog_info`` and ``bpf_func_info_aux``)."""

    index: int
    start: int  # slot
    end: int = 0  # slot, excluded
    name: str = ""
    type_id: int = 0  # BTF func, 0: none
    is_global: bool = False
    stack_depth: int = 0  # bytes, the deepest so far
    arg_cnt: int = 0
    stack_arg_cnt: int = 0  # incoming and most outgoing slots
    max_out: int = 0  # most outgoing slots written
    exit: int = 0  # one of its exit instructions
    has_tail_call: bool = False
    tail_call_reachable: bool = False
    has_ld_abs: bool = False
    is_callback: bool = False
    is_async_callback: bool = False
    is_exception_callback: bool = False
    changes_packet: bool = False
    might_sleep: bool = False
    might_throw: bool = False
    unreliable: bool = False  # its BTF prototype is not to be trusted
    args_cached: bool = False
    args: list[Argument] = field(default_factory=list)
    private_stack: str = ""  # "no", "adaptive", "": not decided
    called: list[bool] = field(default_factory=lambda: [False, False])  # [sleepable]
    verified: list[bool] = field(default_factory=lambda: [False, False])
    postorder: list[int] = field(default_factory=list)
    fastcall_off: int = 0  # where the spills around fastcalls end
    keeps_spills: bool = False
    insns_self: int = 0  # instructions looked at in it; kept for statistics only
    insns_total: int = 0  # and in what it calls
    returns_pair: bool = False  # layout only: r2 holds the upper half of the result

    @property
    def incoming(self) -> int:
        """Incoming stack-argument slots (``bpf_in_stack_arg_cnt``)."""
        return max(self.arg_cnt - REG_ARGS, 0)


@dataclass(slots=True, eq=False)
class CallMarks:
    """What the rewriting of one call needs to know (of ``bpf_insn_aux_data``)."""

    struct_meta: bool = False  # the type has special fields: kptr_struct_meta
    object_size: int = 0  # bytes: obj_new_size
    insert_off: int = 0  # where the node is in what is inserted
    program_arg: int = 0  # register that gets the program: arg_prog
    percpu_object: bool = False  # call_with_percpu_alloc_ptr


class Env:
    """One verification."""

    def __init__(self, program: Program, options: Options, log: Log) -> None:
        self.program = program
        self.options = options
        self.log = log
        self.insns: list[Insn] = list(program.insns)  # const_fold rewrites jumps
        self.count = len(self.insns)
        self.fields: list[Fields] = []  # opcode, registers, offset, immediate of each slot
        self.maps: tuple[MapDef, ...] = program.maps
        self.exception_callback = 0  # index of the subprogram, 0: none
        self.throws = False  # the program was seen to throw
        self.used_maps: list[MapDef] = []  # in the order of their first use
        self.btf: Btf | None = program.btf
        self.kernel_btf = options.kernel_btf
        self.symbols: dict[int, Reg] = {}  # slot: the address of a kernel symbol it loads
        self.target: Any = None  # what the program attaches to: attach.Target
        self.has_func_info = False
        self.subs: list[Subprog] = []
        self.starts: list[int] = []
        self.notes: list[str] = []  # lines said while this instruction was looked at

        count = self.count
        self.prune_point = bytearray(count + 1)
        self.jmp_point = bytearray(count + 1)
        self.jump_target = bytearray(count + 1)
        self.force_checkpoint = bytearray(count + 1)
        self.calls_callback = bytearray(count + 1)
        self.iter_next = bytearray(count + 1)  # calls of an iterator's next function
        self.seen = bytearray(count + 1)
        self.hidden_exit: dict[int, tuple[int, ...]] = {}  # slot: successors of a hidden exit
        self.successors: list[tuple[int, ...]] = []
        self.postorder: list[int] = []
        self.topo: list[int] = []  # subprograms, callees first
        self.scc = [0] * count  # loop an instruction is in, 0: none
        self.const_regs: list[dict[int, int]] = []  # constants known before each slot
        self.const_maps: list[dict[int, int]] = []
        self.const_subs: list[dict[int, int]] = []
        self.live_regs = [0] * count  # bit masks
        self.dead_regs: list[tuple[int, ...]] = []  # of r0 to r9
        self.pointer_types: list[int] = [0] * count  # of the base of a load or store
        self.unconvertible = False  # an access was let pass that Linux cannot rewrite
        self.field_sizes = [0] * count  # of the field of a context or socket accessed, in bytes
        self.strict_alignment = options.strict_alignment

        self.state: State = None  # type: ignore[assignment]  # set by the main loop
        self.insn = 0  # slot looked at
        self.prev_insn = -1
        self.pushed = False  # a history entry of this instruction exists
        self.stack: list[tuple[State, int, int, int]] = []  # state, slot, previous, log position
        self.id_gen = 0
        self.processed = 0
        self.prev_processed = 0
        self.jumps = 0
        self.prev_jumps = 0
        self.max_stack_depth = 0
        self.max_states = 0
        self.total_states = 0
        self.peak_states = 0
        self.explored_size = 0
        self.free_size = 0
        self.backedges = 0
        self.explored: list[list[Any]] = []
        self.visits: dict[tuple[int, ...], Any] = {}
        self.scratched = 0  # registers changed since the last state line
        self.scratched_slots = 0
        self.liveness: Any = None
        self.fastcall_pattern: set[int] = set()  # spills and fills around calls
        self.fastcall_calls: dict[int, int] = {}  # calls that need none: how many there are
        self.loops: dict[int, int] = {}  # calls of bpf_loop: the callback, -1 it varies
        self.map_calls: dict[int, Any] = {}  # helper calls with a map: MapDef, None they vary
        self.tail_keys: dict[int, int] = {}  # tail calls: the key, -1 it varies
        self.call_marks: dict[int, CallMarks] = {}  # what the rewriting of calls needs
        self.indirect: set[int] = set()  # slots that indirect jumps led to
        self.alu32: set[int] = set()  # 64-bit arithmetic with arena pointers (needs_zext)
        self.not_alu32: set[int] = set()  # and without (prevent_zext)
        self.has_arena = any(found.type == 33 for found in self.maps)
        self.seen_direct_write = False  # packet data are written
        self.kfuncs: dict[int, Any] = {}  # by their number in the program: kfuncs.Kfunc
        self.subtotals = [0] * MAX_FRAMES  # instructions on this path, by frame, for statistics
        self.records: dict[Any, Any] = {}  # guarded fields by type: records.py
        self.undo: list[tuple[int, int, int]] = []  # how to walk back: precision.py
        self.events: set[tuple[object, ...]] = set()  # what came up, for those who measure coverage

    def kernel(self, what: str) -> Btf:
        """Return the kernel's BTF, which *what* needs."""
        if self.kernel_btf is None:
            raise NotModelled(f"{what} ({NO_KERNEL_BTF})")
        return self.kernel_btf

    @property
    def gpl(self) -> bool:
        """Say whether the program may use what is for GPL programs only."""
        return self.program.license in GPL

    # --- places ---------------------------------------------------------------

    def subprog_at(self, slot: int) -> Subprog:
        """Return the subprogram that contains *slot* (``bpf_find_containing_subprog``)."""
        return self.subs[bisect_right(self.starts, slot) - 1]

    def find_subprog(self, slot: int) -> Subprog | None:
        """Return the subprogram that starts at *slot* (``bpf_find_subprog``)."""
        if not 0 <= slot < self.count or not self.subs:
            return None
        sub = self.subprog_at(slot)
        return sub if sub.start == slot else None

    # --- the current state ------------------------------------------------------

    def frame(self) -> Frame:
        """Return the current frame, for writing."""
        return self.state.own(len(self.state.frames) - 1)

    def call_mark(self) -> CallMarks:
        """Return the marks of the call looked at, to be changed."""
        return self.call_marks.setdefault(self.insn, CallMarks())

    def new_id(self) -> int:
        """Return an id that no register has."""
        self.id_gen += 1
        return self.id_gen

    def push(self, at: int, previous: int) -> State:
        """Keep a copy of the current state for later (``push_stack``)."""
        branch = self.state.copy()
        self.stack.append((branch, at, previous, self.log.position))
        if len(self.stack) > MAX_JUMP_SEQUENCE:
            self.refuse(f"The sequence of {len(self.stack)} jumps is too complex.")
        if branch.parent is not None:
            branch.parent.branches += 1
        return branch

    def account(self, number: int) -> None:
        """Count what frame *number* did for its function (``account_processed_insns``)."""
        insns = self.subtotals[number]
        self.subs[self.state.frames[number].subprog].insns_total += insns
        if number:
            self.subtotals[number - 1] += insns
        self.subtotals[number] = 0

    def account_path(self) -> None:
        """Count what is left of the current path (``account_current_path``)."""
        for number in range(len(self.state.frames) - 1, -1, -1):
            self.account(number)

    def scratch_all(self) -> None:
        """Let the next state line show everything (``mark_verifier_state_scratched``)."""
        self.scratched = -1
        self.scratched_slots = -1

    def insn_state(self) -> None:
        """Print what changed since the last state line (``print_insn_state``)."""
        self.log.insn_state(self.state, self.insn, self.scratched, self.scratched_slots)
        self.scratched = self.scratched_slots = 0

    # --- words ------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Log a line that need not be a refusal (``verbose``)."""
        self.notes.append(text)
        self.log.text(text + "\n")

    def refuse(self, text: str) -> NoReturn:
        """Refuse the program at the instruction looked at."""
        raise Refused(text, self.insn)
