"""What Linux makes of an accepted program before its JIT; each text was seen on Linux 7.3.4.

``crosscheck parity corpus`` compares the same on a kernel, where there is one.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.btf import Array, Btf, Int, Member, Struct, Void
from harness.interp import Interpreter
from harness.isa import disasm
from harness.isa.insn import LoadImm
from harness.jit import x86_64
from harness.model import LineInfo, MapDef, Program, Returned, Unknown
from harness.tests.programs import ARRAY, HASH, PROG_ARRAY, program, text
from harness.verifier import Options, translate
from harness.verifier.depth import check_stack_depth
from harness.verifier.env import Env, Subprog
from harness.verifier.form import slot_fields
from harness.verifier.log import Log
from harness.verifier.zero_extension import ZEXT

# As Debian's kernel has them
KERNEL = Btf(
    (
        Void(),
        Int("char", 1, 1, bits=8),
        Array(1, 1, 0),
        Struct(
            "bpf_array",
            296,
            (Member("value", 2, 296 * 8), Member("pptrs", 2, 296 * 8)),
        ),
        Struct("htab_elem", 48, (Member("lru_node", 6, 16 * 8), Member("key", 2, 48 * 8))),
        Int("long", 8, 1, bits=64),
        Struct("bpf_lru_node", 24, (Member("ref", 1, 20 * 8),)),
    )
)
OPTIONS = Options(kernel_btf=KERNEL)


def translated(subject: Program, options: Options = OPTIONS) -> Program:
    verification, found = translate(subject, options=options)
    assert isinstance(found, Program), (verification.verdict, found)
    return found


def lines(subject: Program, options: Options = OPTIONS) -> list[str]:
    """Return the translated instructions, with the names of addresses behind them."""
    found = translated(subject, options)
    names = dict(found.symbols)
    return [
        f"{line} <{names[at]}>" if at in names else line
        for at, line in disasm.disassemble(found.insns, form="kernel")
    ]


def short(subject: Program, options: Options = OPTIONS) -> str:
    return "; ".join(line.partition(") ")[2] for line in lines(subject, options))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # a branch that is always taken, and what it leads over
        ("r0 = 0; if r0 == 0 goto L; r0 = 5; L: exit", "r0 = 0; exit"),
        # never taken: nothing is left of it
        ("r0 = 1; if r0 == 0 goto L; r0 = 5; L: exit", "r0 = 1; r0 = 5; exit"),
        ("goto L; L: r0 = 0; exit", "r0 = 0; exit"),
        # Linux does not look back at a jump that leads to the next one only now
        (
            "r2 = *(u64 *)(r1 + 0); r0 = 0; if r2 == 0 goto M; goto L; M: goto L; L: exit",
            "r2 = *(u64 *)(r1 +0); r0 = 0; if r2 == 0x0 goto pc+1; goto pc+0; exit",
        ),
        # but at a may_goto it does
        ("r0 = 0; may_goto L; may_goto L; L: exit", "r0 = 0; exit"),
        ("gotol L; L: r0 = 0; exit", "gotol pc+0; r0 = 0; exit"),
    ],
)
def test_dead_code_goes(source: str, expected: str) -> None:
    assert short(program(text(source))) == expected


def test_functions_that_nothing_calls_go() -> None:
    source = (
        "r0 = 0; if r0 != 0 goto D; call live; exit; D: call dead; exit; "
        "dead: r0 = 7; exit; live: r0 = 1; exit"
    )
    found = translated(program(text(source), {"dead": 0, "live": 0}))
    assert [sub.name for sub in found.subprograms] == ["main", "live"]
    assert [(sub.start, sub.end) for sub in found.subprograms] == [(0, 3), (3, 5)]
    assert len(found.frames) == 2


def test_lines_are_inherited() -> None:
    """A line whose instructions went away is that of the next one, unless that has its own."""
    given = [LineInfo(slot, "a.c", f"line {slot}", slot, 1) for slot in (0, 1, 3)]
    subject = program("r0 = 0\nif r0 == 0 goto L\nr0 = 2\nL: r0 = 1\nexit\n", lines=given)
    found = [(line.insn, line.line) for line in translated(subject).lines]
    assert found == [(0, 0), (1, 3)]
    given = [LineInfo(slot, "a.c", f"line {slot}", slot, 1) for slot in (0, 1, 2)]
    subject = program("r0 = 0\nif r0 == 0 goto L\nr0 = 2\nL: r0 = 1\nexit\n", lines=given)
    assert [(line.insn, line.line) for line in translated(subject).lines] == [(0, 0), (1, 2)]


def test_loops_are_built_in() -> None:
    source = "r1 = 4; r2 = cb ll; r3 = 0; r4 = 0; call 181; r0 = 0; exit; cb: r0 = 0; exit"
    subject = program(text(source), {"cb": 2})
    assert short(subject).split("; ")[4:20] == [
        "if r1 <= 0x800000 goto pc+2",
        "w0 = -7",
        "goto pc+16",
        "*(u64 *)(r10 -24) = r6",
        "*(u64 *)(r10 -16) = r7",
        "*(u64 *)(r10 -8) = r8",
        "r6 = r1",
        "w7 = 0",
        "r8 = r3",
        "if r7 >= r6 goto pc+5",
        "r1 = r7",
        "r2 = r8",
        "call pc+8",
        "r7 += 1",
        "if r0 == 0x0 goto pc-6",
        "r0 = r7",
    ]
    assert translated(subject).frames[0].stack_depth == 24
    # flags that are not known to be zero: a call
    source = source.replace("r4 = 0", "r4 = *(u64 *)(r1 + 0)").replace("r1 = 4; ", "")
    source = source.replace("r2 = cb ll", "r4 = *(u64 *)(r1 + 0); r1 = 4; r2 = cb ll", 1)
    source = source.replace("r3 = 0; r4 = *(u64 *)(r1 + 0)", "r3 = 0")
    assert "call bpf_loop#181" in short(program(text(source), {"cb": 2}))


def test_a_may_goto_counts_in_the_frame() -> None:
    source = "r6 = 0; L: may_goto E; r6 += 1; goto L; E: r0 = r6; exit"
    found = lines(program(text(source)))
    assert [line.partition(") ")[2] for line in found] == [
        "*(u64 *)(r10 -16) = 65535",
        "*(u64 *)(r10 -8) = 0",
        "r6 = 0",
        "r12 = *(u64 *)(r10 -16)",
        "if r12 == 0x0 goto pc+7",
        "r12 -= 1",
        "if r12 != 0x0 goto pc+2",
        "r12 = -16",
        "call bpf_unspec#0 <arch_bpf_timed_may_goto>",
        "*(u64 *)(r10 -16) = r12",
        "r6 += 1",
        "goto pc-9",
        "r0 = r6",
        "exit",
    ]


def test_a_loop_to_the_first_instruction_does_not_set_the_count_again() -> None:
    found = short(program(text("L: may_goto E; goto L; E: r0 = 0; exit")))
    assert found.split("; ")[2] == "r12 = *(u64 *)(r10 -16)"
    assert "goto pc-8" in found  # to the third


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            ARRAY,
            "r1 += 296; r0 = *(u32 *)(r2 +0); if r0 >= 0x8 goto pc+3; r0 <<= 4; r0 += r1; "
            "goto pc+1; r0 = 0",
        ),
        (
            replace(ARRAY, value_size=20, max_entries=3),
            "r1 += 296; r0 = *(u32 *)(r2 +0); if r0 >= 0x3 goto pc+3; r0 *= 24; r0 += r1; "
            "goto pc+1; r0 = 0",
        ),
        (HASH, "call <__htab_map_lookup_elem>; if r0 == 0x0 goto pc+1; r0 += 56"),
        (
            replace(HASH, type=9),
            "call <__htab_map_lookup_elem>; if r0 == 0x0 goto pc+4; r1 = *(u8 *)(r0 +36); "
            "if r1 != 0x0 goto pc+1; *(u8 *)(r0 +36) = 1; r0 += 56",
        ),
        (
            replace(ARRAY, type=6),
            "r1 += 296; r0 = *(u32 *)(r2 +0); if r0 >= 0x8 goto pc+5; r0 <<= 3; r0 += r1; "
            "r0 = *(u64 *)(r0 +0); r0 = &(void __percpu *)(r0); goto pc+1; r0 = 0",
        ),
        (
            replace(HASH, type=5),
            "call <__htab_map_lookup_elem>; if r0 == 0x0 goto pc+3; r0 += 56; "
            "r0 = *(u64 *)(r0 +0); r0 = &(void __percpu *)(r0)",
        ),
    ],
)
def test_maps_are_searched_in_place(found: MapDef, expected: str) -> None:
    source = (
        "r1 = map[idx:0]; r2 = r10; r2 += -4; *(u32 *)(r10 - 4) = 0; call bpf_map_lookup_elem; "
        "r0 = 0; exit"
    )
    said = short(program(text(source), maps=[found]))
    said = said.replace("call bpf_map_lookup_elem#1 <", "call <")
    start, end = "*(u32 *)(r10 -4) = 0; ", "; r0 = 0; exit"
    assert said.partition(start)[2].removesuffix(end) == expected


def test_without_the_kernels_types_that_is_not_known() -> None:
    source = (
        "r1 = map[idx:0]; r2 = r10; r2 += -4; *(u32 *)(r10 - 4) = 0; call bpf_map_lookup_elem; "
        "r0 = 0; exit"
    )
    _, found = translate(program(text(source), maps=[ARRAY]))
    assert found == Unknown("where Linux has bpf_array.value (no kernel BTF)")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (8, "r0 = 0 <cpu_number>; r0 = &(void __percpu *)(r0); r0 = *(u32 *)(r0 +0)"),
        (35, "r0 = 0 <current_task>; r0 = &(void __percpu *)(r0); r0 = *(u64 *)(r0 +0)"),
        (118, "r0 = 0x0 <jiffies>; r0 = *(u64 *)(r0 +0)"),
    ],
)
def test_calls_of_little_helpers_are_inlined(number: int, expected: str) -> None:
    assert short(program(f"call {number}\nexit")) == f"{expected}; exit"
    image = x86_64.compile(translated(program(f"call {number}\nexit")))
    assert not isinstance(image, Unknown)
    (relocation, *_) = image.subprograms[0].relocations
    assert (relocation.kind, relocation.size) == ("ksym", 4)


def test_a_tail_call_of_a_known_program_is_direct() -> None:
    source = "r2 = map[idx:0]; r3 = {}; call bpf_tail_call; r0 = 0; exit"
    for key, poke in (("2", 1), ("*(u32 *)(r1 + 0)", 0)):
        found = translated(program(text(source.format(key)), maps=[PROG_ARRAY]))
        (call,) = [insn for insn in found.insns if getattr(insn, "opcode", 0) == 0xF5]
        assert call.imm == poke  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("end", "clears"), [("r1 = r0; ", True), ("w1 = w0; r0 = 0; ", False), ("", True)]
)
def test_an_exchange_clears_what_is_used(end: str, clears: bool) -> None:
    source = f"*(u64 *)(r10 - 8) = 0; r1 = 3; r0 = 0; w0 = cmpxchg32_32(r10 - 8, w0, w1); {end}exit"
    found = translated(program(text(source)))
    assert found.insns.count(ZEXT) == clears


def test_what_remains_means_the_same() -> None:
    source = text(
        "r6 = *(u64 *)(r1 + 0); r0 = 0; r2 = 5; if r2 > 4 goto A; r0 = 99; A: r0 += r6; "
        "if r6 == 3 goto B; r0 *= 7; goto C; B: r0 *= 9; C: r6 %= r2; r0 += r6; exit"
    )
    subject = program(source)
    after = translated(subject)
    assert len(after.insns) < len(subject.insns) + 1
    for value in (0, 3, 4, 2**64 - 1):
        vector = value.to_bytes(8, "little")
        before, now = (Interpreter(each).run(vector) for each in (subject, after))
        assert isinstance(before, Returned)
        assert before == now


@pytest.mark.parametrize(
    ("kind", "attach_type", "private"),
    [
        ("kprobe", "", True),
        ("tracing", "trace_fentry", True),
        ("tracing", "trace_iter", False),
        ("lsm", "lsm_mac", False),
        ("xdp", "", False),
    ],
)
def test_who_gets_stack_of_its_own(kind: str, attach_type: str, private: bool) -> None:
    subject = replace(program("r0 = 0\nexit", type=kind), attach_type=attach_type)
    env = Env(subject, Options(), Log(0, ()))
    env.subs = [Subprog(0, 0, 2, stack_depth=64)]
    env.fields = slot_fields(env.insns)
    check_stack_depth(env)
    assert (env.subs[0].private_stack == "adaptive") == private


def test_distances_to_what_is_gone_stay() -> None:
    """Seen on Linux 7.3.4: what lies within a removed region is not counted out of it."""
    source = "r1 = one ll; r3 = two ll; r0 = 0; exit; one: r0 = 0; exit; two: r0 = 0; exit"
    found = translated(program(text(source), {"one": 0, "two": 0}))
    assert [insn.imm for insn in found.insns if isinstance(insn, LoadImm)] == [5, 5]
    assert len(found.subprograms) == 1
