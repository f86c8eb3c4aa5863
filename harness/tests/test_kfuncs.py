"""Kernel functions of six to twelve arguments: three legs and the verifier."""

import json
import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from harness import cli, pipeline, verifier
from harness.btf import Btf, Void
from harness.interp import interpret
from harness.isa.asm import assemble
from harness.isa.insn import Call
from harness.legs import kfuncs
from harness.legs.interp import InterpLeg
from harness.legs.jit import JitLeg, JitRunner
from harness.legs.kfunc_models import BITS, KFUNCS, MIXED_9, MIXED_12, PREFIX, typed
from harness.model import (
    BuildConfig,
    MapDef,
    Program,
    Rejected,
    Returned,
    Subprogram,
    Trapped,
    Unknown,
)
from harness.run import outcome_of
from harness.verifier import Options

SCALARS = sorted(name.removeprefix(PREFIX) for name in KFUNCS if "x" in name or "_of_" in name)
SOURCE = Path("c_sources/calls/kfuncs.c")
U64 = (1 << 64) - 1
EDGES = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 1 << 31, (1 << 31) - 1, (1 << 32) - 1,
         1 << 32, 1 << 63, (1 << 63) - 1, (1 << 64) - 1)  # fmt: skip


@pytest.fixture(scope="module")
def side(compiler):
    built = kfuncs.build(compiler)
    assert isinstance(built, kfuncs.KernelSide), built
    return built


def program(name, text, side, **fields):
    """Return the program *text* is, whose calls of kernel function 0 are of *name*."""
    assembly = assemble(text)
    main = Subprogram("main", 0, len(assembly.insns))
    fields.setdefault("kfuncs", (PREFIX + name,))
    return Program(
        "main", "syscall", "syscall", assembly.insns, (main,),
        kfunc_btf=side.btf, kfunc_code=side.code, **fields,
    )  # fmt: skip


def forward(count):
    """Return text that calls a function with *count* values of the context, and keeps r0."""
    lines = ["r6 = r1"]
    for index in range(5, count):
        lines += [f"r1 = *(u64 *)(r6 + {8 * index})", f"*(u64 *)(r11 - {8 * (index - 4)}) = r1"]
    lines += [f"r{index + 1} = *(u64 *)(r6 + {8 * index})" for index in range(min(count, 5))]
    return "\n".join([*lines, "call kfunc#0", "*(u64 *)(r6 + 0) = r0", "r0 = 0", "exit"])


def both(made, vectors):
    """Return the outcomes of the interpreter, which the image shares."""
    runner = JitLeg(patience=0.05).prepare(made)
    assert isinstance(runner, JitRunner), runner
    seen = InterpLeg().prepare(made).run(vectors)
    assert list(runner.run(vectors)) == seen
    return seen


def kinds_of(name):
    """Return the types of a function's arguments and the bits of its result."""
    if name.startswith("mixed"):
        return {"mixed12": MIXED_12, "mixed9": MIXED_9}[name], 64
    kind, _, count = name.partition("_of_") if "_of_" in name else name.partition("x")
    if "_of_" in name:
        return ("u64",) * int(count), BITS.get(kind, 8)
    return (kind,) * int(count), 64


@pytest.mark.parametrize("name", SCALARS)
def test_model_and_native_code_agree(name, side):
    kinds, bits = kinds_of(name)
    count = KFUNCS[PREFIX + name].arguments
    assert len(kinds) == count
    chance = random.Random(name)

    def row():
        values = (chance.choice((chance.choice(EDGES), chance.getrandbits(64))) for _ in kinds)
        return [typed(v, kind) & U64 for v, kind in zip(values, kinds, strict=True)]

    vectors = [struct.pack(f"<{count}Q", *row()) for _ in range(200)]
    narrow = f"r0 <<= {64 - bits}\nr0 s>>= {64 - bits}\n" if bits < 64 else ""
    text = forward(count).replace("*(u64 *)(r6 + 0) = r0", narrow + "*(u64 *)(r6 + 0) = r0")
    seen = both(program(name, text, side), vectors)
    assert all(isinstance(outcome, Returned) for outcome in seen)
    assert len({outcome.ctx[:8] for outcome in seen}) > 1


@pytest.mark.parametrize("count", range(6, 13))
def test_every_argument_counts(count, side):
    vectors = [struct.pack(f"<{count}Q", *[7 * (at == index) for at in range(count)])
               for index in range(count)]  # fmt: skip
    seen = both(program(f"u64x{count}", forward(count), side), vectors)
    weights = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)
    assert [struct.unpack_from("<Q", o.ctx)[0] for o in seen] == [7 * w for w in weights[:count]]


def test_a_slot_that_was_not_written_traps(side):
    text = forward(7).replace("*(u64 *)(r11 - 16) = r1", "r2 = 0")
    made = program("u64x7", text, side)
    assert interpret(made, bytes(56)) == Unknown(f"kfunc {PREFIX}u64x7 is not modelled")
    (seen,) = InterpLeg().prepare(made).run([bytes(56)])
    assert seen == Trapped("stack", "slot 10: outgoing slot 2 was not written")


def test_calls_forget_slots_and_registers(side):
    again = forward(6).replace("call kfunc#0", "call kfunc#0\nr1 = 0\nr2 = 0\nr3 = 0\nr4 = 0\n"
                               "r5 = 0\ncall kfunc#0")  # fmt: skip
    made = program("u64x6", again, side)
    (seen,) = InterpLeg().prepare(made).run([bytes(48)])
    assert seen == Trapped("stack", "slot 14: outgoing slot 1 was not written")
    verdict = verifier.verify(made).verdict
    assert verdict.message == "callee expects 6 args, stack arg1 is not initialized"


def test_without_the_kernels_side_nothing_is_known(side):
    made = replace(program("u64x6", forward(6), side), kfunc_btf=None, kfunc_code=b"")
    assert verifier.verify(made).verdict.why.startswith("a kfunc call (no kernel BTF: fetch ")
    (seen,) = JitLeg().prepare(made).run([bytes(48)])
    assert seen.why == f"kfunc {PREFIX}u64x6 is not modelled"


# --- verdicts ----------------------------------------------------------------

POINTER = "r1 = 1\nr2 = 2\nr3 = 3\nr4 = 4\nr5 = 5\n"
STACK = "r6 = r10\nr6 += -8\n*(u64 *)(r10 - 8) = 0\n"
CALL = "call kfunc#0\nr0 = 0\nexit"
TEXT = MapDef(".rodata", 2, 4, 8, 1, data=b"twelve\0\0", readonly=True)
OPEN = replace(TEXT, data=b"twelve!!")
WRITABLE = replace(TEXT, name=".data", readonly=False)
STRING = POINTER + "r6 = map[idx:0]+0\n*(u64 *)(r11 - 8) = r6\n*(u64 *)(r11 - 16) = 9\n" + CALL

REFUSED = [
    ("struct6", forward(6), "Unrecognized *(R11-8) type STRUCT"),
    ("large6", forward(6), f"The function {PREFIX}large6 arg5 type STRUCT is unsupported."),
    ("args13", forward(12), f"The function {PREFIX}args13 has 13 arguments. Too many."),
    ("u64x6", POINTER + CALL, "callee expects 6 args, stack arg1 is not initialized"),
    ("u64x6", POINTER + "*(u64 *)(r11 - 8) = r10\n" + CALL, "*(R11-8) is not a scalar"),
    ("u64x6", forward(6).replace("r5 = *(u64 *)(r6 + 32)", "r5 = r10"), "R5 is not a scalar"),
    ("u64x6", forward(7), "func#0 writes 2 stack arg slots, but calls only require 1"),
    (
        "memory9",
        POINTER + "*(u64 *)(r11 - 8) = 6\n*(u64 *)(r11 - 16) = 0\n*(u64 *)(r11 - 24) = 8\n"
        "*(u64 *)(r11 - 32) = 9\n" + CALL,
        "Possibly NULL pointer passed to trusted *(R11-16)",
    ),
    (
        "memory9",
        STACK + POINTER + "*(u64 *)(r11 - 8) = 6\n*(u64 *)(r11 - 16) = r6\n"
        "*(u64 *)(r11 - 24) = 16\n*(u64 *)(r11 - 32) = 9\n" + CALL,
        "invalid read from stack *(R11-16) off=-8 size=16",
    ),
    (
        "memory9",
        STACK + POINTER + "*(u64 *)(r11 - 8) = 6\n*(u64 *)(r11 - 16) = r6\n"
        "*(u64 *)(r11 - 24) = -1\n*(u64 *)(r11 - 32) = 9\n" + CALL,
        "*(R11-24) min value is negative, either use unsigned or 'var &= const'",
    ),
    (
        "nullable7",
        POINTER + "*(u64 *)(r11 - 8) = 6\n*(u64 *)(r11 - 16) = 9\n" + CALL,
        "*(R11-8) type=scalar expected=fp",
    ),
    (
        "string7",
        POINTER + "*(u64 *)(r11 - 8) = r10\n*(u64 *)(r11 - 16) = 9\n" + CALL,
        "*(R11-8) doesn't point to a const string",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "message"), REFUSED)
def test_refusals_in_the_kernels_words(name, text, message, side):
    verdict = verifier.verify(program(name, text, side)).verdict
    assert isinstance(verdict, Rejected), verdict
    assert verdict.message == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(jit=False), "JIT is required for calling kernel function"),
        (
            Options(jit_stack_args=False),
            f"JIT does not support kfunc {PREFIX}u64x6() with 6 args",
        ),
    ],
)
def test_refusals_for_want_of_a_jit(options, message, side):
    made = program("u64x6", forward(6), side)
    assert verifier.verify(made, options=options).verdict == Rejected(None, message)


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (TEXT, None),
        (OPEN, "string is not zero-terminated"),
        (WRITABLE, "*(R11-8) does not point to a readonly map'"),
    ],
)
def test_strings(definition, message, side):
    made = program("string7", STRING, side, maps=(definition,))
    verdict = verifier.verify(made).verdict
    assert getattr(verdict, "message", None) == message, verdict


def test_a_size_in_a_slot_is_precise(side):
    text = (
        STACK + "r7 = *(u64 *)(r1 + 0)\nr7 &= 7\n" + POINTER + "*(u64 *)(r11 - 8) = 6\n"
        "*(u64 *)(r11 - 16) = r6\n*(u64 *)(r11 - 24) = r7\n*(u64 *)(r11 - 32) = 9\n" + CALL
    )
    verification = verifier.verify(program("memory9", text, side), log_level=2)
    assert verification.verdict == verifier.verify(program("memory9", text, side)).verdict
    assert "mark_precise: frame0: regs=r7 stack= before" in verification.log


def test_a_function_the_kernel_does_not_have(side):
    made = program("u64x6", forward(6), side)
    assert [insn.imm for insn in made.insns if isinstance(insn, Call)] == [0]
    bad = replace(made, kfuncs=("bpf_none",))
    kernel = verifier.Options(kernel_btf=Btf((Void(),)))
    known = verifier.verify(bad, options=kernel)
    assert known.verdict.why == "kfunc bpf_none (not in the kernel BTF)"
    assert verifier.verify(bad).verdict.why.startswith("a kfunc call (no kernel BTF")


# --- C -----------------------------------------------------------------------


@pytest.mark.parametrize(("opt", "linkage"), [("2", "hidden"), ("0", "static")])
def test_c_that_calls_out_agrees_on_all_legs(opt, linkage, compiler):
    config = BuildConfig(compiler.name, opt, "v4", linkage)
    settings = pipeline.Settings((config,), (compiler,), vectors=48)
    planned = pipeline.plan(SOURCE, "kfuncs.c", settings)
    checks = pipeline.check_build(planned, config, settings)
    assert len(checks) > 30
    bad = [(c.function, c.detail) for c in checks if outcome_of(c) != "agree"]
    assert not bad


def test_objects_on_the_command_line_have_the_kernels_side(compiler, tmp_path, capsys):
    config = BuildConfig(compiler.name, "2", "v4", "hidden")
    settings = pipeline.Settings((config,), (compiler,), vectors=1)
    planned = pipeline.plan(SOURCE, str(SOURCE), settings)
    file = tmp_path / "kfuncs.o"
    file.write_bytes(pipeline.compile_build(planned, config, settings).data)
    assert cli.main(["verify", str(file), "--prog", "crosscheck_out_12"]) == 0
    assert "crosscheck_out_12: accept" in capsys.readouterr().out
    vector = planned.vectors["out_12"][0]
    place = next(p for p in planned.layouts if p.signature.name == "out_12")
    (expected,) = planned.natives["out_12"]["native-O2"]
    for leg in ("interp", "jit"):
        arguments = ["--prog", "crosscheck_out_12", "--ctx", vector.hex(), "--leg", leg, "--json"]
        assert cli.main(["exec", str(file), *arguments]) == 0
        seen = bytes.fromhex(json.loads(capsys.readouterr().out)["ctx"])
        mask = int.from_bytes(place.mask.bits, "little")
        both = (int.from_bytes(context, "little") & mask for context in (seen, expected.ctx))
        assert len(set(both)) == 1
