"""What calls of kernel functions become (``bpf_fixup_kfunc_call``, verifier.c of Linux 7.3.4)."""

from __future__ import annotations

from harness.isa.insn import Alu, Call, Goto, High, Insn, Jump, Load, LoadImm, Store, StoreImm
from harness.verifier.env import CallMarks, Env, NotModelled
from harness.verifier.inline import E2BIG, EINVAL
from harness.verifier.rewrite import HEAP, Patch, Slot

MAX_LOOPS = 8 * 1024 * 1024  # BPF_MAX_LOOPS
_IS_RETURN, _COOKIE = 63, 8  # BPF_TRAMP_IS_RETURN_SHIFT, BPF_TRAMP_COOKIE_INDEX_SHIFT
_SESSIONS = ("trace_fsession", "trace_fsession_multi")

# fmt: off
_ITER_NEW = (                           # it, start, end
    Jump("sgt", 32, 2, 3, 0, 8),
    Alu("mov", 32, 0, 3),
    Alu("sub", 32, 0, 2),
    Jump("gt", 64, 0, None, MAX_LOOPS, 8),
    Alu("add", 32, 2, None, -1),
    Store(4, 1, 0, 2),
    Store(4, 1, 4, 3),
    Alu("mov", 64, 0, None, 0),
    Goto(5),
    StoreImm(8, 1, 0, 0),
    Alu("mov", 64, 0, None, -EINVAL),
    Goto(2),
    StoreImm(8, 1, 0, 0),
    Alu("mov", 64, 0, None, -E2BIG),
)
_ITER_NEXT = (
    Load(4, 0, 1, 0),
    Alu("add", 32, 0, None, 1),
    Load(4, 2, 1, 4),
    Jump("sge", 32, 0, 2, 0, 3),
    Store(4, 1, 0, 0),
    Alu("mov", 64, 0, 1),
    Goto(2),
    StoreImm(8, 1, 0, 0),
    Alu("mov", 64, 0, None, 0),
)
_CAST = (Alu("mov", 64, 0, 1),)
_SESSION_IS_RETURN = (
    Load(8, 0, 1, -8), Alu("rsh", 64, 0, None, _IS_RETURN), Alu("and", 64, 0, None, 1),
)
_SESSION_COOKIE = (
    Load(8, 0, 1, -8), Alu("rsh", 64, 0, None, _COOKIE), Alu("and", 64, 0, None, 0xFF),
    Alu("lsh", 64, 0, None, 3), Alu("sub", 64, 0, 1), Alu("neg", 64, 0, None),
)

# Functions that are built in
_INLINED: dict[str, tuple[Insn, ...]] = {
    "bpf_cast_to_kern_ctx": _CAST,
    "bpf_rdonly_cast": _CAST,
    "bpf_iter_num_new": _ITER_NEW,
    "bpf_iter_num_next": _ITER_NEXT,
    "bpf_iter_num_destroy": (Goto(0),),
}
_IN_SESSIONS: dict[str, tuple[Insn, ...]] = {
    "bpf_session_is_return": _SESSION_IS_RETURN,
    "bpf_session_cookie": _SESSION_COOKIE,
}
# Functions that are told more: the register of what the kernel knows of the type
_MAKE = ("bpf_obj_new", "bpf_percpu_obj_new")
_RELEASE = ("bpf_obj_drop", "bpf_percpu_obj_drop", "bpf_refcount_acquire")
_PUT = {
    "bpf_list_push_front": 3, "bpf_list_push_back": 3, "bpf_list_add": 4, "bpf_rbtree_add": 4,
}
_TOLD = frozenset({*_MAKE, *_RELEASE, *_PUT})
# fmt: on


def kfunc_patch(env: Env, slot: Slot, call: Call) -> Patch | None:
    """Return what stands for *call*, None: itself."""
    kfunc = env.kfuncs[call.imm]
    name = kfunc.name.removesuffix("_impl")
    marks = env.call_marks.get(slot.at, CallMarks())
    if any(argument.kind == "arena" for argument in kfunc.arguments):
        raise NotModelled(f"the addresses in an arena that Linux's JIT makes for {kfunc.name}")
    if not kfunc.in_kernel:
        return None
    if name in _TOLD and slot.at not in env.call_marks:
        raise NotModelled(f"what Linux tells {name} of the type")
    if name in _INLINED:
        return Patch(*_INLINED[name])
    if name in _IN_SESSIONS and env.program.attach_type in _SESSIONS:
        return Patch(*_IN_SESSIONS[name])
    before: tuple[Insn, ...] = ()
    symbols: dict[int, str] = {}

    def address(register: int, known: bool, what: str) -> None:
        nonlocal before
        if known:
            symbols[len(before)] = HEAP + what
        before += (LoadImm(register, 0, 0), High())

    if name in _MAKE:
        before = (Alu("mov", 64, 1, None, marks.object_size),)
        address(2, marks.struct_meta, "struct meta")
    elif name in _RELEASE:
        address(2, marks.struct_meta, "struct meta")
    elif name in _PUT:
        address(_PUT[name], marks.struct_meta, "struct meta")
        before += (Alu("mov", 64, _PUT[name] + 1, None, marks.insert_off),)
    if marks.program_arg:
        if before:
            before += (call,)
        address(marks.program_arg, True, "prog aux")
    return Patch(*before, call, symbols=symbols) if before else None
