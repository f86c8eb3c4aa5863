import os
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.interp import CONVERTED_CONTEXTS, interpret
from harness.isa.asm import assemble
from harness.isa.insn import Alu, Exit, Load, Store
from harness.jit.x86_64 import compile as compile_program
from harness.legs import jit
from harness.legs.jit import GAP, MAX_OUT_OF_FUEL, JitLeg, JitRunner
from harness.model import (
    Image,
    MapDef,
    OutOfFuel,
    Program,
    Relocation,
    Returned,
    SubImage,
    Subprogram,
    Trapped,
    Unknown,
)

U64 = (1 << 64) - 1
LEG = JitLeg(patience=0.05)

# x86-64, by hand
LOAD = bytes.fromhex("488b07")  # mov rax, [rdi]
RET = b"\xc3"
ECHO = LOAD + RET


def text(source, maps=(), kind="syscall"):
    assembly = assemble(source)
    starts = sorted({0} | {slot for name, slot in assembly.labels.items() if name[0].islower()})
    ends = [*starts[1:], len(assembly.insns)]
    names = {slot: name for name, slot in assembly.labels.items()}
    subprograms = tuple(
        Subprogram(names.get(start, "main"), start, end)
        for start, end in zip(starts, ends, strict=True)
    )
    return Program("main", kind, kind, assembly.insns, subprograms, maps=tuple(maps))


def prepared(source, maps=()):
    runner = LEG.prepare(text(source, maps))
    assert isinstance(runner, JitRunner), runner
    return runner


def native(code, relocations=(), maps=()):
    image = Image("x86_64", (SubImage("f", bytes(code), (0,), tuple(relocations)),))
    runner = LEG.prepare_image(image, maps)
    assert isinstance(runner, JitRunner), runner
    return runner


def words(*values):
    return struct.pack(f"<{len(values)}Q", *(value & U64 for value in values))


NUMBERED = [words(index, index * index) for index in range(10)]


# --- batches ------------------------------------------------------------------------


def test_batch_gives_one_outcome_for_each_vector_in_order():
    runner = native(ECHO)
    assert runner.run(NUMBERED) == [Returned(i, v) for i, v in enumerate(NUMBERED)]
    assert runner.run([]) == []
    assert runner.run(NUMBERED[3:4]) == [Returned(3, NUMBERED[3])]


def test_batch_larger_than_the_memory_for_contexts():
    size = 200
    count = jit.CONTEXTS[1] // size + 1000
    vectors = [index.to_bytes(8, "little") + bytes(size - 8) for index in range(count)]
    outcomes = native(ECHO).run(vectors)
    assert [outcome.r0 for outcome in outcomes] == list(range(count))
    assert [outcome.ctx for outcome in outcomes] == vectors


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 15, 16, 100, 4096])
def test_context_of_any_size(size):
    vectors = [bytes([index]) * size for index in range(5)]
    assert native(b"\x31\xc0" + RET).run(vectors) == [Returned(0, v) for v in vectors]


def test_contexts_of_different_sizes():
    vectors = [bytes(8), bytes(24), bytes(9), bytes(0), bytes(8)]
    outcomes = native(bytes.fromhex("31c0 c6470701 c3")).run(vectors)  # mov byte [rdi+7], 1
    written = [bytes(7) + b"\x01" + v[8:] for v in vectors]
    assert outcomes[:3] == [Returned(0, v) for v in written[:3]]
    assert outcomes[3].kind == "access"
    assert outcomes[4] == Returned(0, written[4])


def test_context_too_large_is_unknown():
    assert isinstance(native(ECHO).run([bytes(jit.CONTEXTS[1])])[0], Unknown)


@given(st.lists(st.binary(min_size=8, max_size=40), max_size=12))
@settings(max_examples=50, deadline=None)
def test_batch_does_what_single_runs_do(vectors):
    runner = prepared("r0 = *(u64 *)(r1 + 0)\nr0 *= 3\n*(u32 *)(r1 + 4) = r0\nexit")
    assert runner.run(vectors) == [runner.run([vector])[0] for vector in vectors]


def test_images_replace_each_other():
    runners = [prepared(f"r0 = {k}\nr0 += {k}\nexit") for k in range(40)]
    runners += [prepared("r0 = 1\n" * k + "r0 += 40\nexit") for k in range(1, 40)]
    expected = [2 * k for k in range(40)] + [41] * 39
    for _ in range(3):
        assert [runner.run([b""])[0].r0 for runner in runners] == expected
        runners.reverse()
        expected.reverse()


def test_forked_process_has_memory_of_its_own():
    runner = native(ECHO)
    before = runner.run(NUMBERED)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        outcomes = runner.run([words(77)] * 10)
        os.write(write, b"y" if outcomes == [Returned(77, words(77))] * 10 else b"n")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 1) == b"y"
    contexts = runner._emulator.contexts
    assert bytes(contexts[GAP : GAP + 16]) == NUMBERED[0]
    assert runner.run(NUMBERED) == before
    os.close(read)
    os.close(write)


# --- faults name their vector, and the batch goes on ------------------------------------

ON_THREE = bytes.fromhex("48833f03 7404") + ECHO  # cmp qword [rdi], 3; je behind ECHO
FAULTS = (
    ("int3", "cc", "instruction"),
    ("ud2", "0f0b", "instruction"),
    ("invalid in 64-bit mode", "06", "instruction"),
    ("hlt", "f4", "instruction"),
    ("cli", "fa f4", "instruction"),
    ("divide by zero", "31c9 f7f1", "divide"),
    ("divide overflow", "31d2 48ffca 31c9 48ffc1 48f7f1", "divide"),
    ("read of null", "31c0 488b00", "access"),
    ("write of null", "31c0 488900", "access"),
    ("push below the stack", "50 ebfd", "access"),
    ("write to code", "e800000000 58 c60000", "access"),
    ("write beside the context", "c6471000 31c0 c3", "access"),
    ("write before the context", "c647ff00 31c0 c3", "access"),
    ("jump to null", "31c0 ffe0", "call"),
    ("jump to data", "ffe7", "call"),
    ("return to null", "31c0 50 c3", "call"),
    ("rbx not kept", "31db 31c0 c3", "call"),
    ("rbp not kept", "31ed 31c0 c3", "call"),
    ("r12 not kept", "4531e4 31c0 c3", "call"),
    ("r13 not kept", "4531ed 31c0 c3", "call"),
    ("r14 not kept", "4531f6 31c0 c3", "call"),
    ("r15 not kept", "4531ff 31c0 c3", "call"),
    ("rsp not kept", "58 4883ec10 50 31c0 c3", "call"),
)


@pytest.mark.parametrize(("code", "kind"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_fault_names_its_vector(code, kind):
    runner = native(ON_THREE[:6] + ECHO + bytes.fromhex(code))
    for _ in range(2):
        outcomes = list(runner.run(NUMBERED))
        assert outcomes[3].kind == kind, outcomes[3]
        assert outcomes[3].where
        del outcomes[3]
        assert outcomes == [Returned(i, v) for i, v in enumerate(NUMBERED) if i != 3]


def test_every_vector_may_fault():
    runner = native(bytes.fromhex("31c9 f7f1"))
    assert {outcome.kind for outcome in runner.run(NUMBERED)} == {"divide"}


def test_fault_says_where():
    where = prepared("r0 = 1\nr2 = 0\nr0 = *(u64 *)(r2 + 0)\nexit").run([b""])[0].where
    assert where.startswith("main, slot 2, ")


def test_endless_loop_is_out_of_fuel_and_the_batch_goes_on():
    runner = native(ON_THREE[:6] + ECHO + bytes.fromhex("ebfe"))
    outcomes = runner.run(NUMBERED)
    assert outcomes[3] == OutOfFuel()
    assert [o.r0 for o in outcomes if isinstance(o, Returned)] == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_long_loops_that_end_are_not_out_of_fuel():
    leg = JitLeg(patience=0.02)
    runner = leg.prepare(text("r0 = 0\nr2 = 400000 ll\nL: r0 += 1\nif r0 != r2 goto L\nexit"))
    outcomes = runner.run([bytes(8)] * 60)  # all of them take far longer than one patience
    assert outcomes == [Returned(400000, bytes(8))] * 60


def test_many_endless_vectors_are_not_all_tried():
    outcomes = native(bytes.fromhex("ebfe")).run([b""] * 100)
    assert outcomes[:MAX_OUT_OF_FUEL] == [OutOfFuel()] * MAX_OUT_OF_FUEL
    assert all(isinstance(outcome, Unknown) for outcome in outcomes[MAX_OUT_OF_FUEL:])
    assert len(outcomes) == 100


# --- data, maps and helpers -----------------------------------------------------------------


def test_read_only_data_cannot_be_written_and_stays():
    maps = (MapDef(".rodata", 2, 4, 8, 1, data=words(5), readonly=True),)
    source = "ld_pseudo r2, 6, 0\nr0 = *(u64 *)(r2 + 0)\n"
    assert prepared(source + "exit", maps).run([b""]) == [Returned(5, b"")]
    assert prepared(source + "*(u8 *)(r2 + 0) = 1\nexit", maps).run([b""])[0].kind == "access"
    assert prepared(source + "exit", maps).run([b""]) == [Returned(5, b"")]


def test_too_much_data_is_unknown():
    maps = (MapDef(".bss", 2, 4, jit.DATA[1] + 1, 1, data=bytes(jit.DATA[1] + 1)),)
    assert isinstance(LEG.prepare(text("r0 = 0\nexit", maps)), Unknown)


def test_fields_of_a_map_are_unknown():
    maps = (MapDef("m", 1, 4, 8, 1),)
    runner = prepared("ld_pseudo r2, 5, 0\nr0 = *(u64 *)(r2 + 0)\nexit", maps)
    assert isinstance(runner.run([b""])[0], Unknown)


@pytest.mark.parametrize("call", ["call 13", "call 0", "call 9999"])
def test_helper_that_is_not_modelled_is_unknown(call):
    runner = prepared(f"r0 = *(u64 *)(r1 + 0)\nif r0 != 3 goto L\n{call}\nL: exit")
    outcomes = runner.run(NUMBERED)
    assert isinstance(outcomes[3], Unknown)
    assert outcomes[4] == Returned(4, NUMBERED[4])


def test_kfunc_is_unknown():
    runner = native(b"\xe8\0\0\0\0" + RET, [Relocation(1, 4, "kfunc", "bpf_one")])
    assert "bpf_one" in runner.run([b""])[0].why


@pytest.mark.parametrize("kind", ["ksym", "private_stack", "map", "data"])
def test_relocation_that_is_not_modelled_is_unknown(kind):
    field = Relocation(2, 8, kind, "nothing")
    image = Image("x86_64", (SubImage("f", b"\x48\xb8" + bytes(8) + RET, (0,), (field,)),))
    assert isinstance(LEG.prepare_image(image), Unknown)


def test_helper_traps_on_a_bad_pointer_and_the_batch_goes_on():
    maps = (MapDef("m", 2, 4, 8, 4),)
    source = "r2 = *(u64 *)(r1 + 0)\nif r2 == 3 goto B\nr2 = r10\nr2 += -8\n"
    source += "*(u64 *)(r10 - 8) = 9\nB: ld_pseudo r1, 5, 0\ncall 1\nexit"
    outcomes = list(prepared(source, maps).run(NUMBERED))
    assert outcomes[3].kind == "access"
    assert outcomes[:3] + outcomes[4:] == [Returned(0, v) for i, v in enumerate(NUMBERED) if i != 3]


def test_helper_sees_its_own_vector():
    def first_byte(host, *_):
        return host.vector[0]

    leg = JitLeg({99: first_byte})
    outcomes = leg.prepare(text("call 99\nexit")).run(NUMBERED)
    assert [outcome.r0 for outcome in outcomes] == list(range(10))


def test_map_elements_have_room_of_their_own():
    maps = (MapDef("m", 1, 8, 8, 50),)
    store = "".join(
        f"r1 = {k}\n*(u64 *)(r10 - 8) = r1\nld_pseudo r1, 5, 0\nr2 = r10\nr2 += -8\nr3 = r2\n"
        "r4 = 0\ncall 2\n"
        for k in range(50)
    )
    add = "".join(
        f"r1 = {k}\n*(u64 *)(r10 - 8) = r1\nld_pseudo r1, 5, 0\nr2 = r10\nr2 += -8\ncall 1\n"
        "if r0 == 0 goto E\nr1 = *(u64 *)(r0 + 0)\nr6 += r1\n"
        for k in range(50)
    )
    source = f"r6 = 0\n{store}{add}r0 = r6\nE: exit"
    program = text(source, maps)
    expected = Returned(sum(range(50)), b"")
    assert LEG.prepare(program).run([b""] * 3) == [expected] * 3
    assert interpret(program, b"") == expected


# --- what is prepared ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(CONVERTED_CONTEXTS))
def test_contexts_the_kernel_converts_are_unknown(kind):
    assert isinstance(LEG.prepare(text("r0 = 0\nexit", kind=kind)), Unknown)


def test_what_the_jit_does_not_support_is_unknown():
    assert isinstance(LEG.prepare(text("may_goto L\nL: r0 = 0\nexit")), Unknown)


# --- direct calls ---------------------------------------------------------------------------------

TWELVE = "f: r0 = r1\n" + "".join(f"r0 *= 3\nr0 += r{r}\n" for r in range(2, 6))
TWELVE += "".join(f"r1 = *(u64 *)(r11 + {8 * k})\nr0 *= 3\nr0 += r1\n" for k in range(1, 8))
MAIN = "".join(f"*(u64 *)(r11 - {8 * k}) = 0\n" for k in range(1, 8))
MAIN += "".join(f"r{r} = 0\n" for r in range(1, 6)) + "call f\nexit\n"


@given(st.lists(st.lists(st.integers(0, U64), min_size=12, max_size=12), max_size=5))
@settings(max_examples=30, deadline=None)
def test_function_of_twelve_arguments_can_be_called_from_native_code(rows):
    runner = prepared(MAIN + TWELVE + "exit")
    expected = []
    for row in rows:
        total = 0
        for value in row:
            total = (total * 3 + value) & U64
        expected.append(total)
    assert [outcome.r0 for outcome in runner.call("f", rows)] == expected
    assert runner.run([b""]) == [Returned(0, b"")]


def test_call_with_fewer_arguments():
    runner = prepared("r0 = r1\nexit")
    assert runner.call("main", [(-1,), ()]) == [
        Returned(U64, words(U64, *[0] * 11)),
        Returned(0, bytes(96)),
    ]


# --- against the interpreter ----------------------------------------------------------------------


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_random_arithmetic_gives_what_the_interpreter_gives(data):
    ops = ("add", "sub", "mul", "or", "and", "xor", "lsh", "rsh", "arsh", "mov", "neg")
    imm = st.one_of(st.integers(-8, 8), st.integers(-(1 << 31), (1 << 31) - 1))
    insns = [Load(8, r, 1, 8 * r) for r in range(2, 10)] + [Alu("mov", 64, 0, None, 5)]
    for _ in range(data.draw(st.integers(1, 30))):
        op, bits = data.draw(st.sampled_from(ops)), data.draw(st.sampled_from((32, 64)))
        dst, src = data.draw(st.sampled_from((0, *range(2, 10)))), None
        value = 0
        if op != "neg":
            src = data.draw(st.sampled_from((None, 0, *range(2, 10))))
            value = 0 if src is not None else data.draw(imm)
            if src is None and op in ("lsh", "rsh", "arsh"):
                value %= bits
        insns.append(Alu(op, bits, dst, src, value))
    insns += [Store(8, 1, 8 * r, r) for r in range(2, 10)] + [Exit()]
    program = Program("f", "syscall", "syscall", tuple(insns), (Subprogram("f", 0, len(insns)),))
    vectors = [words(*row) for row in data.draw(st.lists(
        st.lists(st.integers(0, U64), min_size=10, max_size=10), min_size=1, max_size=4
    ))]  # fmt: skip
    assert LEG.prepare(program).run(vectors) == [interpret(program, v) for v in vectors]


def test_wrong_constant_in_the_image_is_noticed():
    program = text("r0 = *(u64 *)(r1 + 0)\nr0 += 77\nexit")
    image = compile_program(program)
    sub = image.subprograms[0]
    wrong = sub.code.replace(bytes([77]), bytes([78]))
    assert wrong != sub.code
    altered = Image("x86_64", (SubImage(sub.name, wrong, sub.addrs, sub.relocations),))
    assert LEG.prepare(program).run(NUMBERED) == [interpret(program, v) for v in NUMBERED]
    assert all(
        outcome != interpret(program, vector)
        for outcome, vector in zip(LEG.prepare_image(altered).run(NUMBERED), NUMBERED, strict=True)
    )


def test_traps_of_one_program_do_not_reach_the_next():
    for _ in range(5):
        assert native(bytes.fromhex("31c9 f7f1")).run([b""])[0] == Trapped(
            "divide", "f, slot 0, 0x10000002"
        )
        assert native(ECHO).run(NUMBERED[:1]) == [Returned(0, NUMBERED[0])]


def test_images_that_ran_do_not_pile_up():
    for number in range(96):
        more = [Load(8, 2, 1, 0)] * 4000
        insns = (Alu("mov", 64, 0, None, number), *more, Exit())
        subprograms = (Subprogram("p", 0, len(insns)),)
        runner = LEG.prepare(Program("p", "syscall", "syscall", insns, subprograms))
        assert runner.run([bytes(8)])[0] == Returned(number, bytes(8))
    regions = re.split(r"^(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text(), flags=re.M)
    sizes = [re.search(r"^Rss: +(\d+) kB", each, re.M) for each in regions if " rwxp " in each]
    translated = sum(int(size[1]) << 10 for size in sizes)
    assert 0 < translated <= jit.TRANSLATED
