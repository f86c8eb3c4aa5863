import dataclasses
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import interp
from harness.interp import (
    ALU,
    MAX_FRAMES,
    STACK_FILL,
    Interpreter,
    NotModelledError,
    TrapError,
    interpret,
    signed,
)
from harness.isa.asm import assemble
from harness.isa.insn import (
    AddrSpaceCast,
    Alu,
    Atomic,
    Call,
    Endian,
    Exit,
    Goto,
    GotoX,
    High,
    Jump,
    Load,
    LoadImm,
    LoadPacket,
    PercpuAddr,
    Raw,
    Store,
    StoreImm,
)
from harness.model import MapDef, OutOfFuel, Program, Returned, Subprogram, Trapped, Unknown

U64 = (1 << 64) - 1


def program(insns, starts=(0,), **rest):
    ends = [*starts[1:], len(insns)]
    subprograms = tuple(
        Subprogram(f"f{start}", start, end) for start, end in zip(starts, ends, strict=True)
    )
    return Program("f0", "syscall", "syscall", tuple(insns), subprograms, **rest)


def text(source, **rest):
    assembly = assemble(source)
    starts = sorted({0} | {slot for name, slot in assembly.labels.items() if name[0].islower()})
    return program(assembly.insns, tuple(starts), **rest)


def run(source, vector=b"", **rest):
    return interpret(text(source), vector, **rest)


# --- what traps ------------------------------------------------------------------

UNDEFINED = (
    "exit",
    "r0 = r2\nexit",
    "w0 = w2\nexit",
    "r0 = (s8)r2\nexit",
    "r0 = 1\nr0 += r3\nexit",
    "r3 ^= r3\nr0 = 0\nexit",
    "r0 = 0\nr5 = -r5\nexit",
    "r0 = 0\nr4 = be16 r4\nexit",
    "r0 = *(u64 *)(r2 + 0)\nexit",
    "*(u64 *)(r2 + 0) = 1\nr0 = 0\nexit",
    "*(u64 *)(r10 - 8) = r6\nr0 = 0\nexit",
    "r0 = 0\nif r2 == 0 goto L\nL: exit",
    "r2 = 0\nif w2 s> w3 goto L\nL: r0 = 0\nexit",
    "r1 = 0\n*(u64 *)(r10 - 8) = 0\nlock *(u64 *)(r10 - 8) += r2\nr0 = 0\nexit",
    "*(u64 *)(r10 - 8) = 0\nr2 = 0\nr0 = cmpxchg_64(r10 - 8, r0, r2)\nexit",
    "*(u64 *)(r11 - 8) = r2\nr0 = 0\nexit",
    # after a call r1 to r5 are spoilt, in the callee r0 and r6 to r9 hold nothing
    "r1 = 1\ncall f\nr0 = r1\nexit\nf: r0 = 0\nexit",
    "r2 = 1\ncall 5\nr0 = r2\nexit",
    "r6 = 1\ncall f\nexit\nf: r0 = r6\nexit",
    "r0 = 1\ncall f\nexit\nf: exit",
    "callx r3\nexit",
    "r1 = 0\ncall 1\nexit",  # map_lookup_elem(0, nothing)
)


@pytest.mark.parametrize("source", UNDEFINED)
def test_reading_a_register_that_holds_nothing_traps(source):
    outcome = run(source)
    expected = "call" if "call 1" in source else "undefined"
    assert isinstance(outcome, Trapped)
    assert outcome.kind == expected


def test_moving_nothing_about_is_allowed_where_no_one_reads_it():
    assert run("call f\nr0 = 7\nexit\nf: exit") == Returned(7, b"")


STACK = (
    "r0 = *(u64 *)(r11 + 8)\nexit",  # main has no caller
    "call f\nexit\nf: r0 = *(u64 *)(r11 + 8)\nexit",
    "*(u64 *)(r11 - 8) = 1\ncall f\nexit\nf: r0 = *(u64 *)(r11 + 16)\nexit",
    # a call forgets the slots
    "*(u64 *)(r11 - 8) = 1\ncall f\ncall f\nexit\nf: r0 = *(u64 *)(r11 + 8)\nexit",
    "*(u64 *)(r11 - 8) = 1\ncall 5\ncall f\nexit\nf: r0 = *(u64 *)(r11 + 8)\nexit",
    # incoming slots are there until a store to a slot, or a call
    "*(u64 *)(r11 - 8) = 1\ncall f\nexit\nf: *(u64 *)(r11 - 8) = 2\nr0 = *(u64 *)(r11 + 8)\nexit",
    "*(u64 *)(r11 - 8) = 1\ncall f\nexit\nf: call 5\nr0 = *(u64 *)(r11 + 8)\nexit",
    "*(u64 *)(r11 - 8) = 1\ncall f\nexit\nf: call g\nr0 = *(u64 *)(r11 + 8)\nexit\ng: r0 = 0\nexit",
    # a callee's slots are not its caller's
    "call f\nr0 = *(u64 *)(r11 + 8)\nexit\nf: *(u64 *)(r11 - 8) = 1\nr0 = 0\nexit",
    "*(u64 *)(r11 - 64) = 1\nr0 = 0\nexit",  # the eighth
    "r0 = 0\n*(u64 *)(r11 - 64) = r0\nexit",
)


@pytest.mark.parametrize("source", STACK)
def test_stack_argument_rules(source):
    outcome = run(source)
    assert isinstance(outcome, Trapped)
    assert outcome.kind == "stack"


MISUSES = (
    Alu("mov", 64, 10, None, 1),
    Alu("add", 64, 10, 1),
    Endian("be", 16, 10),
    Load(8, 10, 1, 0),
    LoadImm(10, 0, 5),
    Atomic("load_acquire", 8, 10, 0, 1),
    Atomic("add", 8, 1, 0, 10, fetch=True),
    Atomic("xchg", 8, 1, 0, 10, fetch=True),
    Alu("mov", 64, 0, 11),
    Alu("mov", 64, 11, None, 1),
    Load(8, 0, 11, -8),
    Load(8, 0, 11, 4),
    Load(4, 0, 11, 8),
    Load(8, 10, 11, 8),
    Load(8, 11, 11, 8),
    Store(8, 11, 8, 1),
    Store(8, 11, -8, 11),
    Store(4, 11, -8, 1),
    StoreImm(8, 11, -4, 1),
    StoreImm(2, 11, -8, 1),
    Store(8, 10, -8, 11),
    Atomic("add", 8, 11, -8, 1),
    Jump("eq", 64, 11, None, 0, 0),
    Jump("eq", 64, 1, 11, 0, 0),
    Raw(0xFF, 0, 0, 0, 0),
    High(),
)


@pytest.mark.parametrize("insn", MISUSES, ids=repr)
def test_instruction_that_is_none_traps_when_it_is_reached(insn):
    outcome = interpret(program((insn, Exit())), bytes(8))
    assert isinstance(outcome, Trapped)
    assert outcome.kind == "instruction"
    assert outcome.where.startswith("slot 0: ")
    skipped = (Alu("mov", 64, 0, None, 4), Goto(1), insn, Exit())
    assert interpret(program(skipped), b"") == Returned(4, b"")


@pytest.mark.parametrize("insn", [Goto(5), Goto(-5), Goto(5, long=True), Alu("mov", 64, 0, None)])
def test_leaving_the_program_traps(insn):
    assert interpret(program((insn,)), b"").kind == "instruction"


ACCESS = (
    ("r0 = *(u8 *)(r1 + 8)", "access"),
    ("r0 = *(u64 *)(r1 + 1)", "access"),
    ("r0 = *(u8 *)(r1 - 1)", "access"),
    ("r0 = *(u8 *)(r10 + 0)", "access"),
    ("r0 = *(u8 *)(r10 - 513)", "access"),
    ("r0 = *(u64 *)(r10 - 4)", "access"),
    ("*(u64 *)(r10 - 4) = 1", "access"),
    ("r2 = -1 ll\nr0 = *(u8 *)(r2 + 0)", "access"),
    ("r2 = -1 ll\nr0 = *(u8 *)(r2 + 1)", "access"),  # wraps to 0
    ("r2 = 1\nlock *(u64 *)(r1 + 8) += r2", "access"),
    ("ld_pseudo r2, 4, 3\nr0 = *(u8 *)(r2 + 0)", "access"),
)


@pytest.mark.parametrize(("source", "kind"), ACCESS)
def test_bad_access_traps(source, kind):
    outcome = run(f"{source}\nr0 = 0\nexit", bytes(8))
    assert isinstance(outcome, Trapped)
    assert outcome.kind == kind


@pytest.mark.parametrize("at", [0, 3, 504, 511])
def test_stack_is_512_bytes_of_a_pattern(at):
    assert run(f"r0 = *(u8 *)(r10 - {512 - at})\nexit") == Returned(STACK_FILL, b"")


def test_stack_of_a_callee_is_gone_after_it():
    assert run("call f\nr0 = *(u8 *)(r0 - 8)\nexit\nf: r0 = r10\nexit").kind == "access"
    assert run("call f\ncall f\nexit\nf: r0 = *(u8 *)(r10 - 1)\n*(u8 *)(r10 - 1) = 1\nexit") == (
        Returned(STACK_FILL, b"")
    )


@pytest.mark.parametrize("depth", [MAX_FRAMES, MAX_FRAMES + 1])
def test_frames_are_limited(depth):
    source = f"r1 = {depth}\ncall f\nexit\nf: r1 -= 1\nr0 = 3\nif r1 == 1 goto L\ncall f\nL: exit"
    outcome = run(source)
    if depth == MAX_FRAMES:
        assert outcome == Returned(3, b"")
    else:
        assert outcome.kind == "call"


# --- calls through registers -------------------------------------------------------


def test_call_through_a_register():
    source = """
        r1 = 4
        *(u64 *)(r11 - 8) = 30
        ld_pseudo r2, 4, 3
        callx r2
        exit
        r0 = 1
     f: r2 = *(u64 *)(r11 + 8)
        r0 = r1
        r0 += r2
        exit"""
    good = text(source)
    target = good.subprograms[1].start
    insns = list(good.insns)
    at = next(i for i, insn in enumerate(insns) if isinstance(insn, LoadImm))
    insns[at] = LoadImm(2, 4, target - at - 1)
    assert interpret(dataclasses.replace(good, insns=tuple(insns)), b"") == Returned(34, b"")
    insns[at] = LoadImm(2, 4, target - at)  # inside f
    assert interpret(dataclasses.replace(good, insns=tuple(insns)), b"").kind == "call"


@pytest.mark.parametrize("value", ["0", "8", "-8", "0x3000000004"])
def test_call_through_anything_else_traps(value):
    assert run(f"r2 = {value} ll\ncallx r2\nexit").kind == "call"


def test_function_address_may_lie_before():
    insns = (
        Goto(2),
        Alu("mov", 64, 0, None, 9),
        Exit(),
        LoadImm(2, 4, -3 & 0xFFFF_FFFF),
        High(),
        *assemble("callx r2\nexit").insns,
    )
    assert interpret(program(insns, (0, 1, 3)), b"") == Returned(9, b"")


def test_call_of_what_is_no_subprogram_traps():
    assert interpret(program((Call("subprog", 0), Exit())), b"").kind == "call"


# --- what is not modelled ------------------------------------------------------------

NOT_MODELLED = (
    (AddrSpaceCast(0, 1, 1), "arena"),
    (PercpuAddr(0, 1), "per-CPU"),
    (LoadPacket("abs", 1, 0, 0), "packet"),
    (GotoX(1), "jump tables"),
    (Call("helper", 12), "helper 12 "),
    (Call("helper", 0), "helper 0 "),
    (Call("kfunc", 0), "kfunc bpf_one "),
    (Call("kfunc", 7), "kfunc 7 "),
    (LoadImm(0, 1, 0), "map_fd"),
    (LoadImm(0, 3, 0), "btf_id"),
    (LoadImm(0, 5, 9), "map_idx"),
    (LoadImm(0, 6, 1), "map_idx_value"),
)


@pytest.mark.parametrize(("insn", "why"), NOT_MODELLED, ids=repr)
def test_what_is_not_modelled_is_unknown_when_it_is_reached(insn, why):
    maps = (MapDef("m", 2, 4, 8, 1), MapDef("h", 1, 4, 8, 1))
    outcome = interpret(program((insn, Exit()), maps=maps, kfuncs=("bpf_one",)), b"")
    assert isinstance(outcome, Unknown)
    assert why in outcome.why
    good = (Alu("mov", 64, 0, None, 4), Exit(), insn)
    assert interpret(program(good), b"") == Returned(4, b"")


def test_fields_of_a_map_are_not_modelled():
    maps = (MapDef("m", 2, 4, 8, 1),)
    source = "ld_pseudo r1, 5, 0\nr0 = *(u32 *)(r1 + 0)\nexit"
    assert isinstance(interpret(text(source, maps=maps), b""), Unknown)


# --- fuel, traces, may_goto -------------------------------------------------------------


@pytest.mark.parametrize(("fuel", "ends"), [(0, False), (2, False), (3, True), (100, True)])
def test_fuel_counts_instructions(fuel, ends):
    outcome = run("r0 = 1\nr0 += 1\nexit", fuel=fuel)
    assert outcome == (Returned(2, b"") if ends else OutOfFuel())


def test_trace_sees_every_step_before_it_happens():
    steps = []
    outcome = interpret(
        text("r0 = 6\nr0 += 1\nexit"), bytes(8), trace=lambda slot, r: steps.append((slot, r))
    )
    assert outcome == Returned(7, bytes(8))
    assert [slot for slot, _ in steps] == [0, 1, 2]
    assert [r[0] for _, r in steps] == [None, 6, 7]
    assert all(r[2:10] == (None,) * 8 and r[1] and r[10] for _, r in steps)
    assert {len(r) for _, r in steps} == {11}


def test_trace_changes_nothing():
    source = "r0 = *(u64 *)(r1 + 0)\nL: r0 -= 1\nif r0 > 5 goto L\ncall f\nexit\nf: r0 = 2\nexit"
    vector = (50).to_bytes(8, "little")
    assert run(source, vector, trace=lambda *_: None) == run(source, vector)


def test_may_goto_ends_a_loop_at_the_limit(monkeypatch):
    source = "r0 = 0\nL: may_goto E\nr0 += 1\ngoto L\nE: exit"
    machine_loops = 20

    class Short(interp.Machine):
        def __init__(self, *args):
            super().__init__(*args)
            self.frame.loops = machine_loops

    monkeypatch.setattr(interp, "Machine", Short)
    assert run(source) == Returned(20, b"")


# --- bpf_loop: more in test_legs_jit_runtime.py ---------------------------------------------


def test_a_callback_is_a_frame():
    chain = "".join(f"f{n}: call f{n + 1}\nexit\n" for n in range(MAX_FRAMES - 2))
    last = f"f{MAX_FRAMES - 2}: r1 = 1\nr2 = back ll\nr3 = 0\nr4 = 0\ncall bpf_loop\nexit\n"
    outcome = run(f"call f0\nexit\n{chain}{last}back: r0 = 0\nexit")
    assert isinstance(outcome, Trapped)
    assert "more than 16 frames" in outcome.where


def test_bpf_loop_forgets_what_a_call_forgets():
    source = "*(u64 *)(r11 - 8) = 1\nr1 = {}\nr2 = back ll\nr3 = 0\nr4 = 0\ncall bpf_loop\n"
    callback = "\nexit\nback: r0 = 0\nexit\nsix: r0 = *(u64 *)(r11 + 8)\nexit"
    for rounds in (0, 2):
        before = source.format(rounds)
        assert run(before + "r0 += 5" + callback) == Returned(rounds + 5, b"")
        for after in ("r0 = r3", "call six"):
            assert isinstance(run(before + after + callback), Trapped)


# --- helpers ------------------------------------------------------------------------------


def test_helper_gets_five_arguments_and_the_machine():
    def helper(host, r1, r2, r3, r4, r5):
        host.write(r1, host.vector[::-1])
        return r2 * 1000 + r3 * 100 + r4 * 10 + r5 - (1 << 64)

    source = "r2 = 2\nr3 = 3\nr4 = 4\nr5 = 5\ncall 99\nexit"
    outcome = run(source, b"abc", helpers={99: helper})
    assert outcome == Returned(2345, b"cba")


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [
        (TrapError("access", "there"), Trapped("access", "slot 0: there")),
        (NotModelledError("that"), Unknown("that")),
    ],
)
def test_helper_may_trap(raised, outcome):
    def helper(*_):
        raise raised

    assert run("call 99\nexit", helpers={99: helper}) == outcome


def test_helpers_with_fixed_results():
    assert run("call 7\nexit", b"abc") == Returned(zlib.crc32(b"abc"), b"abc")
    assert run("call 8\nexit", b"abc") == Returned(0, b"abc")
    assert run("call 5\nexit").r0 > 0


UPDATE = """
    r6 = r1
    r4 = *(u64 *)(r6 + 8)
    ld_pseudo r1, 5, 0
    r2 = r6
    r3 = r6
    r3 += 16
    call 2
    exit"""


@pytest.mark.parametrize(
    ("kind", "key", "flags", "result"),
    [
        (1, 1, 0, 0),  # hash: BPF_ANY
        (1, 1, 2, -2),  # BPF_EXIST: ENOENT
        (1, 1, 3, -22),  # EINVAL
        (2, 1, 0, 0),  # array
        (2, 1, 1, -17),  # BPF_NOEXIST: EEXIST
        (2, 2, 0, -7),  # no such element: E2BIG
        (2, 1, 3, -22),
        (5, 1, 0, None),  # per-CPU: not modelled
    ],
)
def test_map_update_results(kind, key, flags, result):
    maps = (MapDef("m", kind, 4, 8, 2),)
    vector = b"".join(word.to_bytes(8, "little") for word in (key, flags, 77))
    outcome = interpret(text(UPDATE, maps=maps), vector)
    if result is None:
        assert isinstance(outcome, Unknown)
    else:
        assert outcome == Returned(result & U64, vector)


def test_hash_map_has_room_for_its_entries_only():
    source = "".join(
        f"r1 = {key}\n*(u64 *)(r10 - 8) = r1\nld_pseudo r1, 5, 0\nr2 = r10\nr2 += -8\nr3 = r2\n"
        "r4 = 0\ncall 2\n"
        for key in (1, 2, 1, 3)
    )
    maps = (MapDef("m", 1, 8, 8, 2),)
    assert interpret(text(source + "exit", maps=maps), b"") == Returned(-7 & U64, b"")
    assert interpret(text(source[: source.rindex("r1 = 3")] + "exit", maps=maps), b"") == (
        Returned(0, b"")
    )


def test_deleting_from_an_array_is_refused():
    source = "*(u32 *)(r10 - 4) = 0\nld_pseudo r1, 5, 0\nr2 = r10\nr2 += -4\ncall 3\nexit"
    assert interpret(text(source, maps=(MapDef("m", 2, 4, 8, 2),)), b"") == (
        Returned(-22 & U64, b"")
    )


def test_helper_gets_no_map_where_there_is_none():
    source = "ld_pseudo r1, 5, 0\nr1 += 4\nr2 = r10\nr2 += -8\ncall 1\nexit"
    assert interpret(text(source, maps=(MapDef("m", 2, 4, 8, 2),)), b"").kind == "call"


def test_helper_cannot_read_out_of_bounds():
    source = "ld_pseudo r1, 5, 0\nr2 = r10\nr2 += -2\ncall 1\nexit"
    assert interpret(text(source, maps=(MapDef("m", 2, 4, 8, 2),)), b"").kind == "access"


# --- arithmetic against laws -----------------------------------------------------------------

EDGES = st.sampled_from(
    [(1 << n) + d & U64 for n in (0, 1, 7, 8, 15, 16, 31, 32, 33, 62, 63, 64) for d in (-1, 0, 1)]
)
WORDS = st.one_of(EDGES, st.integers(0, U64))
WIDTHS = st.sampled_from((32, 64))


@given(WORDS, WORDS, WIDTHS)
def test_division_laws(a, b, bits):
    mask = (1 << bits) - 1
    a, b = a & mask, b & mask
    q, r = ALU["div"](a, b, bits), ALU["mod"](a, b, bits)
    sq, sr = ALU["sdiv"](a, b, bits), ALU["smod"](a, b, bits)
    if b == 0:
        assert (q, r, sq, sr) == (0, a, 0, a)
        return
    assert q * b + r == a
    assert 0 <= r < b
    sa, sb = signed(a, bits), signed(b, bits)
    assert sq * sb + signed(sr, bits) == sa
    assert abs(sr) < abs(sb)
    assert sr == 0 or (sr < 0) == (sa < 0)


@given(WORDS, st.integers(0, U64), WIDTHS)
def test_shift_laws(a, count, bits):
    mask = (1 << bits) - 1
    a, n = a & mask, count % bits
    assert ALU["lsh"](a, count & mask, bits) & mask == a * 2**n & mask
    assert ALU["rsh"](a, count & mask, bits) & mask == a // 2**n
    assert ALU["arsh"](a, count & mask, bits) & mask == signed(a, bits) // 2**n & mask


@given(WORDS, st.sampled_from((8, 16, 32, 64)))
def test_signed_is_twos_complement(value, bits):
    size = bits // 8
    low = (value & (1 << bits) - 1).to_bytes(size, "little")
    assert signed(value, bits) == int.from_bytes(low, "little", signed=True)


@given(st.binary(max_size=40))
def test_context_comes_back_and_is_not_shared(vector):
    machine = Interpreter(text("r0 = 1\nexit"))
    assert machine.run(vector) == machine.run(vector) == Returned(1, vector)
