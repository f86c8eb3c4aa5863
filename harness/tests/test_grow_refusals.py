"""Refusals are explained only by what an experiment confirmed; another cause stays open."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import harness
from harness import corpus, pipeline, verifier
from harness.findings import Finding
from harness.grow import constructs, frames, half_slots, refusals, results, undefined, units
from harness.grow.batch import Order, batch_c
from harness.grow.buckets import refused_for
from harness.grow.campaign import known_as
from harness.grow.frames import depth, frames_too_large, touched
from harness.grow.optimised import Optimised, functions, leave_out, parsed
from harness.grow.packing import unpack
from harness.grow.parameters import shrunk
from harness.grow.refusals import explain
from harness.grow.refused import Again, Origin, Refused, Runs, Trial, placed
from harness.grow.slots import goes_nowhere
from harness.interp import Interpreter
from harness.isa.asm import assemble
from harness.isa.insn import Alu, Call, Goto, Store
from harness.isa.stack_args import outgoing_slot
from harness.model import (
    Accepted,
    BuildConfig,
    Program,
    Rejected,
    Returned,
    Subprogram,
    Unknown,
    Verification,
)
from harness.pipeline import Settings
from harness.source import driver
from harness.source.printing import Printer
from harness.source.signature import Scalar
from harness.toolchain import Compiler
from harness.verifier import Options

ROOT = Path(harness.__file__).parent.parent

VOID = """
static __attribute__((noinline)) void in(long a, long b, long c, long d, long e, long f, long *g)
{
	*g = *g * 31 + a;
}

long f(long a, long b, long c, long d, long e, long f)
{
	long v = b;

	in(a, b, c, d, e, f, &v);
	return v + c;
}
"""
BOOL = """
long f(long a, long b, long c, long d, long e, long g, _Bool h)
{
	unsigned char v[9] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
	unsigned char *p = v + 1;

	__asm__ volatile("" : "+r"(p) : : "memory");
	return p[h & 7] + a;
}
"""
FRAMES = """
static __attribute__((noinline)) long in(long a, long b, long c, long d, long e, long f)
{
	volatile char v[320];

	v[a & 63] = b;
	return v[a & 63] + f;
}

long f(long a, long b, long c, long d, long e, long f)
{
	volatile char v[320];

	v[a & 63] = b;
	return in(a, b, c, d, e, f) + v[a & 63];
}
"""


def case(name: str) -> str:
    source = corpus.read(ROOT / "corpus" / name).source
    assert source is not None
    return source.c


def read(name: str) -> str:
    return (ROOT / "c_sources" / name).read_text()


# fmt: off
CONFIRMED = {
    constructs.WIDE:    (read("by_value_wide.c"), "2", "v4", "hidden"),
    constructs.REMOVED: (case("clang_removed_parameter.toml"), "2", "v4", "static"),
    constructs.ADDED:   (read("promoted_pointer.c"), "3", "v3", "static"),
    constructs.BEYOND:  (case("clang_promoted_beyond_limit.toml"), "3", "v3", "hidden"),
    constructs.UNSET:   (case("clang_unset_argument.toml"), "2", "v3", "hidden"),
    constructs.SHRUNK:  (case("clang_shrunk_global.toml"), "2", "v3", "hidden"),
    constructs.UNREAD:  (read("undefined_slot.c"), "2", "v3", "hidden"),
    constructs.BLANK:   (read("undefined_phi.c"), "s", "v3", "hidden"),
    constructs.OR:      (case("clang_or_on_stack_pointer.toml"), "2", "v3", "hidden"),
    constructs.BOOL:    (BOOL, "2", "v3", "hidden"),
    constructs.VOID:    (read("void_function.c"), "2", "v3", "hidden"),
    constructs.TWO:     (read("wide_result.c"), "2", "v3", "hidden"),
    constructs.FRAMES:  (FRAMES, "1", "v3", "hidden"),
    constructs.HALF:    (read("half_slot.c"), "s", "v3", "hidden"),
}
# fmt: on


def origin(
    planned: pipeline.Plan, config: BuildConfig, settings: Settings, name: str, leaving: str = ""
) -> Origin:
    text = planned.text or planned.path.read_text()

    def seen() -> Mapping[str, Optimised]:
        compiler = settings.compiler(config.compiler)
        return functions(text, planned.layouts, config, compiler, 60.0, leaving)

    def without(llvm_pass: str) -> Again | None:
        built = pipeline.compile_build(planned, config, settings, leave_out(llvm_pass))
        programs = {p.name: p for p, _ in pipeline.built_programs(built, settings)}
        return programs[name], origin(planned, config, settings, name, llvm_pass)

    return Origin(seen, without)


def refused(
    c: str, config: BuildConfig, compiler: Compiler, folder: Path
) -> Iterator[tuple[Program, Rejected, Origin, Runs]]:
    path = folder / "x.c"
    path.write_text(c)
    settings = Settings((config,), (compiler,), vectors=8)
    planned = pipeline.plan(path, "x.c", settings)
    built = pipeline.compile_build(planned, config, settings)
    programs = {program.name: program for program, _ in pipeline.built_programs(built, settings)}
    for place in planned.layouts:
        name = place.signature.name
        program = programs[driver.entry(name)]
        text = origin(planned, config, settings, program.name)
        verdict = verifier.verify(program, log_level=0).verdict
        native = next(iter(planned.natives[name].values()))
        bools = [
            a.offset for a in place.arguments if a and isinstance(a.type, Scalar) and a.type.bool
        ]
        runs = Runs(planned.vectors[name], native, place.mask, frozenset(bools))
        if isinstance(verdict, Rejected):
            yield program, verdict, text, runs


@pytest.mark.parametrize("construct", CONFIRMED)
def test_a_construct_is_confirmed_by_mending_it(construct: str, tmp_path: Path, compiler: Compiler):
    c, opt, mcpu, linkage = CONFIRMED[construct]
    config = BuildConfig(compiler.name, opt, mcpu, linkage)
    seen = list(refused(c, config, compiler, tmp_path))
    assert seen
    for program, verdict, text, runs in seen:
        assert refused_for(program, verdict, text, runs) == [construct]
        # a program that does something else than natively has another fault beside it
        others = [
            Returned(o.r0, bytes(b ^ 1 for b in o.ctx))
            for o in runs.outcomes
            if isinstance(o, Returned)
        ]
        assert others
        wrong = replace(runs, outcomes=others, mask=None)
        (words,) = refused_for(program, verdict, text, wrong)
        assert words == "and then: another result than natively"
        for unknown in ((), [Unknown("no native build")] * len(runs.outcomes)):
            nothing = replace(runs, outcomes=unknown)
            (words,) = refused_for(program, verdict, text, nothing)
            assert words == "and then: not run natively"


def test_an_address_in_r0_counts_where_a_function_returns_nothing(
    tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
):
    config = BuildConfig(compiler.name, "2", "v3", "hidden")
    path = tmp_path / "x.c"
    path.write_text(VOID)
    settings = Settings((config,), (compiler,), vectors=4)
    planned = pipeline.plan(path, "x.c", settings)
    built = pipeline.compile_build(planned, config, settings)
    (program,) = [p for p, _ in pipeline.built_programs(built, settings) if p.name[-2:] == "_f"]
    at = next(s for s in program.subprograms if s.name == "in")
    text = origin(planned, config, settings, program.name)
    runs = Runs(planned.vectors["f"], next(iter(planned.natives["f"].values())), None)
    refusal = Rejected(at.end - 1, "cannot return stack pointer to the caller")
    it = Refused(Trial(program, text, program), at.end - 1, refusal.message, runs)
    # r0 is no address here: the refusal would be a fault of the verifier
    assert results.cleared(it) is None
    assert named(program, refusal.message, text, runs, monkeypatch) == set()


SPILLED = """
__attribute__((noinline)) long first(int a, long b, long c, long d, long e, long f)
{
	return a;
}

__attribute__((noinline))
long unread(long a, long b, unsigned short c, long d, long e, long f, long g, long h)
{
	__sync_fetch_and_add(&e, h);
	return f;
}

long spilled(long a, unsigned short b, long c, long d, long f, long e)
{
	unread(a, b, c, d, e, f, -16777217, 0);
	return unread(a, b, c, d, e, !a, f, a) ^ first(c, e, b, -1, 65536, -1);
}
"""


def test_an_undefined_register_may_be_spilled_on_its_way(tmp_path: Path, compiler: Compiler):
    config = BuildConfig(compiler.name, "2", "v4", "hidden")
    seen = {p.name: rest for p, *rest in refused(SPILLED, config, compiler, tmp_path)}
    assert list(seen) == ["crosscheck_spilled"]
    for program, verdict, origin, runs in refused(SPILLED, config, compiler, tmp_path):
        assert explain(program, verdict, origin, runs).constructs == (constructs.UNREAD,) * 2


@pytest.mark.parametrize(
    ("between", "nowhere"),
    [
        ("*(u64 *)(r11 - 8) = r1\nr1 = 0", True),
        ("r2 = 5\n*(u64 *)(r11 - 8) = r1\nr1 = 0", True),
        ("*(u64 *)(r11 - 8) = r1", True),  # the call spoils it
        ("*(u64 *)(r11 - 8) = r1\nr2 = r1", False),
        ("*(u64 *)(r11 - 8) = r1\nif r2 == 0 goto +0\nr1 = 0", False),
        ("*(u64 *)(r11 - 8) = r2", False),
        ("r1 += 1\n*(u64 *)(r11 - 8) = r1", False),
    ],
)
def test_what_only_goes_to_dead_slots_goes_nowhere(between: str, nowhere: bool):
    text = f"r1 = *(u64 *)(r10 - 8)\n{between}\ncall f\nexit\nf:\nr0 = 0\nexit"
    functions = (corpus.FunctionDecl("f", ("u64",) * 6),)
    program = corpus.program(corpus.ProgramText(text, functions=functions), "x")
    end = program.subprograms[0].end
    assert goes_nowhere(program, 0, end, lambda _callee, slot: slot == 1) is nowhere
    assert not goes_nowhere(program, 0, end, lambda _callee, _slot: False)


@pytest.mark.parametrize("opt", ["0", "3"])
def test_a_second_register_is_excused_by_the_ir_alone(opt: str, tmp_path: Path, compiler: Compiler):
    config = BuildConfig(compiler.name, opt, "v4", "static")
    found = list(refused(read("wide_result.c"), config, compiler, tmp_path))
    for program, verdict, text, runs in found:
        assert explain(program, verdict, text, runs) == refusals.Explanation((constructs.TWO,))
        # a function that returns one word: whoever reads r2 behind it is wrong
        ir = {name: replace(seen, results=1) for name, seen in text.functions().items()}
        one = replace(text, functions=ir.copy)
        assert explain(program, verdict, one, runs).constructs == ()
        # r2 behind another call, too
        insns = program.insns[: verdict.insn]
        at = max(n for n, insn in enumerate(insns) if isinstance(insn, Call))
        other = placed(program, {}, {at: [Call("helper", 5)]})
        assert other is not None
        wrong = verifier.verify(other, log_level=0).verdict
        assert isinstance(wrong, Rejected)
        assert wrong.message == "R2 !read_ok"
        assert explain(other, wrong, text, runs).constructs == ()
    assert len(found) == 4


def test_what_no_run_shows_is_no_address(tmp_path: Path, compiler: Compiler):
    c, opt, mcpu, linkage = CONFIRMED[constructs.VOID]
    config = BuildConfig(compiler.name, opt, mcpu, linkage)
    ((program, verdict, text, runs),) = refused(c, config, compiler, tmp_path)
    assert explain(program, verdict, text, runs).constructs == (constructs.VOID,)
    assert explain(program, verdict, text, replace(runs, vectors=())).constructs == ()


SELDOM = """
static __attribute__((noinline)) void in(long a, long b, long c, long d, long e, long f, long *g)
{
	*g = a;
#ifdef __bpf__
	if (b == 0x123456789abcdef)
		__asm__ volatile("*(u64 *)(r10 - 8) = %0\\nr0 = *(u64 *)(r10 - 8)" : : "r"(WHAT) : "r0");
#endif
}

long f(long a, long b, long c, long d, long e, long f)
{
	long v = b;

	in(a, b, c, d, e, f, &v);
	return v + c;
}
"""


@pytest.mark.parametrize("what", ["g", "c"])
def test_an_address_may_come_by_a_way_that_no_run_takes(
    what: str, tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
):
    config = BuildConfig(compiler.name, "2", "v3", "hidden")
    path = tmp_path / "x.c"
    path.write_text(SELDOM.replace("WHAT", what))
    settings = Settings((config,), (compiler,), vectors=4)
    planned = pipeline.plan(path, "x.c", settings)
    built = pipeline.compile_build(planned, config, settings)
    (program,) = [p for p, _ in pipeline.built_programs(built, settings) if p.name[-2:] == "_f"]
    text = origin(planned, config, settings, program.name)
    runs = Runs(planned.vectors["f"], next(iter(planned.natives["f"].values())))
    verdict = verifier.verify(program, log_level=0).verdict
    message = "cannot return stack pointer to the caller"
    if what == "g":
        assert isinstance(verdict, Rejected)
        assert explain(program, verdict, text, runs).constructs == (constructs.VOID,)
    else:  # a number: a verifier that says so is wrong
        assert verdict == Accepted()
        assert named(program, message, text, runs, monkeypatch) == set()


def test_the_same_words_for_another_reason_stay_open(tmp_path: Path, compiler: Compiler):
    """A store that the compiler lost, and a register that it mixed up, are no known thing."""
    config = BuildConfig(compiler.name, "2", "v3", "hidden")
    c = read("undefined_slot.c")
    ((program, _, text, runs),) = refused(c, config, compiler, tmp_path)
    good = undefined.unread(
        Refused(Trial(program, text, program), _slot(program, 0), "R1 !read_ok", runs)
    )
    assert good is None  # this store passes a value
    stores = [n for n, insn in enumerate(program.insns) if outgoing_slot(insn)]
    insns = list(program.insns)
    calls = [n for n, insn in enumerate(insns) if isinstance(insn, Call)]
    first = [n for n in stores if calls[0] < n < calls[1]]
    for at in first:
        changed = list(insns)
        changed[at] = Goto(0)
        broken = replace(program, insns=tuple(changed))
        verdict = verifier.verify(broken, log_level=0).verdict
        assert isinstance(verdict, Rejected)
        assert "is not initialized" in verdict.message
        found = explain(broken, verdict, text, runs)
        slot = outgoing_slot(insns[at])
        assert slot is not None
        # of g, which nobody reads, the IR passes no value
        assert found.constructs[:1] == ((constructs.BARE,) if slot == 2 else ())


def _slot(program: Program, number: int) -> int:
    return [n for n, i in enumerate(program.insns) if isinstance(i, Store) and outgoing_slot(i)][
        number
    ]


@pytest.mark.parametrize(
    "message",
    [
        "callee expects 7 args, stack arg2 is not initialized",
        "invalid read from stack arg off 24 depth 16",
        "R1 !read_ok",
        "R1 bitwise operator |= on pointer prohibited",
        "cannot return stack pointer to the caller",
        "combined stack size of 2 calls is 544. Too large",
        "stack arg write offset -64 exceeds max 7 stack args",
        "infinite loop detected at insn 9",
        "The sequence of 8193 jumps is too complex.",
        "invalid variable-offset read from stack R1 var_off=(0x0; 0xff) off=0 size=1",
    ],
)
def test_a_wrong_refusal_of_ours_is_no_known_construct(
    message: str, tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
):
    """A verifier that refuses what is right, in words that are known, has no excuse."""
    config = BuildConfig(compiler.name, "2", "v3", "hidden")
    path = tmp_path / "x.c"
    path.write_text(BOOL.replace("h & 7", "a & 7"))
    settings = Settings((config,), (compiler,), vectors=4)
    planned = pipeline.plan(path, "x.c", settings)
    built = pipeline.compile_build(planned, config, settings)
    ((program, _),) = pipeline.built_programs(built, settings)
    assert verifier.verify(program, log_level=0).verdict == Accepted()
    text = origin(planned, config, settings, program.name)
    runs = Runs(planned.vectors["f"], next(iter(planned.natives["f"].values())), None)
    assert named(program, message, text, runs, monkeypatch) == set()


def named(
    program: Program,
    message: str,
    text: Origin,
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
) -> set[str]:
    """Return what explains *message* at any instruction; whatever is changed is accepted."""
    found: set[str] = set()
    for at, _ in enumerate(program.insns):
        refusal = Rejected(at, message)

        def verify(
            changed: Program, *_: object, options: Options, refusal=refusal, **__: object
        ) -> Verification:
            same = changed.insns == program.insns and changed.btf == program.btf
            same &= options.max_stack == Options().max_stack
            return Verification(refusal if same else Accepted())

        monkeypatch.setattr(verifier, "verify", verify)
        found.update(explain(program, refusal, text, runs).constructs)
    return found


OR_NUMBERS = """
r2 = *(u64 *)(r1 + 8)
r2 &= 255
r1 = *(u64 *)(r1 + 0)
r1 <<= 8
r1 |= r2
r0 = r1
exit
"""
OR_ADDRESS = """
r2 = *(u64 *)(r1 + 8)
r2 &= 1
r3 = r10
r3 += -32
*(u64 *)(r3 + 0) = r2
r3 |= r2
r0 = *(u8 *)(r3 + 0)
exit
"""
OR_ADDRESS_NOWHERE = """
r2 = *(u64 *)(r1 + 8)
r2 &= 1
r3 = r10
if r2 < 2 goto on
r3 += -32
r3 |= r2
on: r0 = 0
exit
"""
OR_NUMBERS_NOWHERE = """
r2 = *(u64 *)(r1 + 8)
r2 &= 1
r3 = r10
if r2 < 2 goto on
r3 = *(u64 *)(r1 + 0)
r3 |= r2
on: r0 = 0
exit
"""
BOOL_IN_STACK = """
r2 = *(u64 *)(r1 + 8)
r2 &= 1
r3 = r10
r3 += -32
*(u64 *)(r3 + 8) = r2
r0 = *(u8 *)(r3 + 8)
r3 += r0
r0 = *(u8 *)(r3 + 8)
exit
"""
BOOL_IN_CONTEXT = """
r0 = *(u8 *)(r1 + 8)
r3 = r10
r3 += -32
*(u64 *)(r3 + 8) = r0
r3 += r0
r0 = *(u8 *)(r3 + 8)
exit
"""
OR_WORDS = "R1 bitwise operator |= on pointer prohibited"
INDEX_WORDS = "invalid variable-offset read from stack R3 var_off=(0x0; 0xff) off=0 size=1"


@pytest.mark.parametrize(
    ("code", "message", "constructs"),
    [
        (OR_NUMBERS, OR_WORDS, set()),
        (OR_ADDRESS, OR_WORDS, {constructs.OR}),
        (OR_NUMBERS_NOWHERE, OR_WORDS, set()),
        (OR_ADDRESS_NOWHERE, OR_WORDS, {constructs.OR}),
        (BOOL_IN_STACK, INDEX_WORDS, set()),
        (BOOL_IN_CONTEXT, INDEX_WORDS, {constructs.BOOL}),
    ],
)
def test_a_run_shows_what_is_an_address_and_what_a_bool(
    code: str, message: str, constructs: set[str], monkeypatch: pytest.MonkeyPatch
):
    insns = assemble(code).insns
    program = Program("p", "syscall", "syscall", insns, (Subprogram("p", 0, len(insns)),))
    # some numbers look like addresses
    vectors = [a.to_bytes(8, "little") + bytes([b, *bytes(7)]) for a in (2**29, 7) for b in (0, 1)]
    interpreter = Interpreter(program)
    runs = Runs(vectors, [interpreter.run(v) for v in vectors], None, frozenset({8}))
    assert all(isinstance(outcome, Returned) for outcome in runs.outcomes)
    assert named(program, message, Origin(dict[str, Optimised]), runs, monkeypatch) == constructs


# a loop that ends by a flag or a counter on the stack
FLAG_BESIDE = """
r6 = *(u64 *)(r1 + 0)
w1 = 1
*(u32 *)(r10 - 8) = w1
again:
*(u32 *)(r10 - 4) = w6
w2 = *(u32 *)(r10 - 8)
w2 &= 1
w3 = 0
*(u32 *)(r10 - 8) = w3
if w2 != 0 goto again
r0 = r6
exit
"""
COUNTER_ABOVE = """
w1 = 3
*(u32 *)(r10 - 4) = w1
again:
w2 = *(u32 *)(r10 - 4)
w2 += -1
*(u32 *)(r10 - 4) = w2
if w2 != 0 goto again
r0 = 0
exit
"""
FLAG_WHOLE = """
r6 = *(u64 *)(r1 + 0)
r1 = 1
*(u64 *)(r10 - 16) = r1
again:
*(u32 *)(r10 - 4) = w6
r2 = *(u64 *)(r10 - 16)
r2 &= 1
r3 = 0
*(u64 *)(r10 - 16) = r3
if r2 != 0 goto again
r0 = r6
exit
"""
FLAG_IN_REGISTER = """
r6 = *(u64 *)(r1 + 0)
w1 = 1
*(u32 *)(r10 - 8) = w1
r7 = 2
again:
*(u32 *)(r10 - 4) = w6
w2 = *(u32 *)(r10 - 8)
r7 += -1
if r7 != 0 goto again
r0 = r2
exit
"""
FLAG_BY_ADDRESS = """
r6 = *(u64 *)(r1 + 0)
r7 = r10
r7 += -8
w1 = 1
*(u32 *)(r10 - 8) = w1
again:
*(u32 *)(r10 - 4) = w6
w2 = *(u32 *)(r10 - 8)
w2 &= 1
w3 = 0
*(u32 *)(r10 - 8) = w3
r4 = *(u16 *)(r7 + 0)
if w2 != 0 goto again
r0 = r6
exit
"""
# the loop is over before what is forgotten is loaded
FLAG_BEHIND = """
r6 = *(u64 *)(r1 + 0)
w1 = 1
*(u32 *)(r10 - 8) = w1
r7 = 2
again:
*(u32 *)(r10 - 4) = w6
r7 += -1
if r7 != 0 goto again
w2 = *(u32 *)(r10 - 8)
r0 = 0
if w2 != 0 goto +1
r0 = 1
exit
"""
LOOP_WORDS = "infinite loop detected at insn 4"


@pytest.mark.parametrize(
    ("code", "constructs"),
    [
        (FLAG_BESIDE, {constructs.HALF}),
        (COUNTER_ABOVE, {constructs.HALF}),
        (FLAG_BESIDE.replace("r10 - 4", "r10 - 12"), set()),  # its slot is its own
        (FLAG_WHOLE, set()),
        (FLAG_IN_REGISTER, set()),
        (FLAG_BEHIND, set()),
        (FLAG_BY_ADDRESS, set()),  # nothing shows that it would be well elsewhere
    ],
)
def test_a_loop_ends_by_what_is_forgotten_in_a_part_of_a_slot(
    code: str, constructs: set[str], monkeypatch: pytest.MonkeyPatch
):
    program = text_program(code)
    vectors = [a.to_bytes(8, "little") for a in (0, 7)]
    interpreter = Interpreter(program)
    runs = Runs(vectors, [interpreter.run(v) for v in vectors])
    assert all(isinstance(outcome, Returned) for outcome in runs.outcomes)
    real = verifier.verify(program, log_level=0).verdict
    assert isinstance(real, Rejected) == (bool(constructs) or code == FLAG_BY_ADDRESS)
    assert named(program, LOOP_WORDS, Origin(dict[str, Optimised]), runs, monkeypatch) == constructs
    monkeypatch.undo()
    if isinstance(real, Rejected):
        assert explain(program, real, Origin(dict[str, Optimised]), runs).constructs == tuple(
            constructs
        )
        assert explain(program, real, Origin(dict[str, Optimised]), Runs()).constructs == ()


def test_counters_of_unoptimised_code_are_forgotten_too(tmp_path: Path, compiler: Compiler):
    config = BuildConfig(compiler.name, "0", "v3", "hidden")
    seen = {
        program.name: explain(program, verdict, text, runs)
        for program, verdict, text, runs in refused(read("loops.c"), config, compiler, tmp_path)
        if "infinite loop" in verdict.message
    }
    assert len(seen) == 5
    assert all(found.constructs == (constructs.HALF,) and not found.left for found in seen.values())


def test_an_index_is_forgotten_in_a_part_of_a_slot(tmp_path: Path, compiler: Compiler):
    config = BuildConfig(compiler.name, "0", "v3", "hidden")
    ((program, verdict, text, runs),) = refused(read("spills.c"), config, compiler, tmp_path)
    assert "unbounded min value" in verdict.message
    assert explain(program, verdict, text, runs).constructs == (constructs.HALF,)
    # which excuses no other instruction
    assert half_slots.moved(program, 0, runs.vectors, looping=False) is None


def text_program(code: str) -> Program:
    insns = assemble(code).insns
    return Program("p", "syscall", "syscall", insns, (Subprogram("p", 0, len(insns)),))


def test_a_verifier_that_sees_no_end_of_any_loop_has_no_excuse(
    tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
):
    """Where what is forgotten has a slot of its own, it still says the same."""
    config = BuildConfig(compiler.name, "s", "v3", "hidden")
    ((program, verdict, text, runs),) = refused(read("half_slot.c"), config, compiler, tmp_path)
    moved = half_slots.moved(program, verdict.insn or 0, runs.vectors, looping=True)
    assert moved is not None
    assert verifier.verify(moved, log_level=0).verdict == Accepted()
    monkeypatch.setattr(verifier, "verify", lambda *_, **__: Verification(verdict))
    assert explain(program, verdict, text, runs).constructs == ()
    assert half_slots.moved(moved, verdict.insn or 0, runs.vectors, looping=True) is None
    # nor does it excuse a refusal outside of the loop
    assert half_slots.moved(program, 0, runs.vectors, looping=True) is None


def test_a_thirteenth_argument_needs_the_compiler_to_say_so(
    tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
):
    c, opt, mcpu, linkage = CONFIRMED[constructs.BEYOND]
    config = BuildConfig(compiler.name, opt, mcpu, linkage)
    name = driver.entry("promoted_beyond_twelve")
    found = [one for one in refused(c, config, compiler, tmp_path) if one[0].name == name]
    ((program, verdict, text, runs),) = found
    assert explain(program, verdict, text, runs).constructs == (constructs.BEYOND,)
    # the store of a slot that there is, refused in the same words
    for at in (n for n, i in enumerate(program.insns) if (outgoing_slot(i) or 8) <= 7):
        wrong = Rejected(at, verdict.message)
        assert explain(program, wrong, text, runs).constructs == ()
    # the IR has no more than twelve: the back end, or whoever reads it, is to blame
    ir = {name: replace(seen, words=min(seen.words, 12)) for name, seen in text.functions().items()}
    assert explain(program, verdict, replace(text, functions=lambda: ir), runs).constructs == ()
    # there is no other build, or it has as many
    assert explain(program, verdict, Origin(text.functions), runs).constructs == ()
    same = Origin(text.functions, lambda _: (program, Origin(text.functions)))
    assert explain(program, verdict, same, runs).constructs == ()
    # a verifier that refuses the other build, too
    monkeypatch.setattr(verifier, "verify", lambda *_, **__: Verification(verdict))
    assert explain(program, verdict, text, runs).constructs == ()


BEYOND_BEHIND = """
static __attribute__((noinline)) long seven(long a, long b, long c, long d, long e, long f,
		const long *l __attribute__((btf_decl_tag("elements:2"))))
{
	return a ^ b ^ c ^ d ^ e ^ f ^ l[0] * l[1];
}

static __attribute__((noinline)) long twelve(long a, long b, long c, long d, long e, long f, long g,
		long h, long i, long j, long k, const long *l __attribute__((btf_decl_tag("elements:2"))))
{
	return a ^ b ^ c ^ d ^ e ^ f ^ g ^ h ^ i ^ j ^ k ^ l[0] ^ l[1];
}

long both(long a, long b, long c, long d, long e, long f, long g)
{
	long l[2] = { a, b };

	return seven(a, b, c, d, e, f, l) + twelve(a, b, c, d, e, f, g, a, b, c, d, l);
}
"""


def test_what_is_built_again_needs_no_mend_of_the_first_build(tmp_path: Path, compiler: Compiler):
    config = BuildConfig(compiler.name, "3", "v3", "hidden")
    seen = {p.name: rest for p, *rest in refused(BEYOND_BEHIND, config, compiler, tmp_path)}
    first = seen[driver.entry("both")][0]
    assert isinstance(first, Rejected)
    assert "invalid read from stack arg" in first.message
    for program, verdict, text, runs in refused(BEYOND_BEHIND, config, compiler, tmp_path):
        if program.name == driver.entry("both"):
            assert explain(program, verdict, text, runs) == refusals.Explanation(
                (constructs.BEYOND,)
            )


def test_another_way_is_tried_where_the_first_leads_nowhere(
    tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
):
    """A mend that gets past a refusal, and into another that nothing explains, is not the end."""
    config = BuildConfig(compiler.name, "1", "v3", "hidden")
    ((program, verdict, text, runs),) = refused(FRAMES, config, compiler, tmp_path)

    def astray(it: Refused) -> tuple[str, Program]:
        insns = (Alu("mov", 64, 0, 9, 0), *it.program.insns[1:])  # r9 is undefined
        return "astray", replace(it.program, insns=insns)

    monkeypatch.setattr(refusals, "MENDS", ((r"combined", astray), *refusals.MENDS))
    assert explain(program, verdict, text, runs) == refusals.Explanation((constructs.FRAMES,))
    monkeypatch.setattr(refusals, "TRIES", 1)  # not for ever
    (words,) = refused_for(program, verdict, text, runs)
    assert words.startswith("and then: ")


def test_frames_are_run_where_there_is_room_for_them(
    tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
):
    config = BuildConfig(compiler.name, "1", "v3", "hidden")
    ((program, verdict, text, runs),) = refused(FRAMES, config, compiler, tmp_path)
    room = verifier.verify(program, log_level=0, options=Options(max_stack=refusals.ROOM))
    assert room.verdict == Accepted()
    # a verifier that has other reasons to say so
    monkeypatch.setattr(verifier, "verify", lambda *_, **__: Verification(verdict))
    assert explain(program, verdict, text, runs).constructs == ()


def test_a_bool_is_to_blame_where_it_leads_astray(monkeypatch: pytest.MonkeyPatch):
    """What stays in its array whatever the byte is, is no index that a verifier has to fear."""
    program = text_program(BOOL_IN_CONTEXT.replace("r3 += r0", "r0 &= 7\nr3 += r0"))
    vectors = [bytes([*bytes(8), b, *bytes(7)]) for b in (0, 1)]
    interpreter = Interpreter(program)
    runs = Runs(vectors, [interpreter.run(v) for v in vectors], None, frozenset({8}))
    assert named(program, INDEX_WORDS, Origin(dict[str, Optimised]), runs, monkeypatch) == set()


IR = """
define internal fastcc void @p1_f0(i8 noundef signext %0, [2 x i64] %1, ptr byval({ i8, i16 }) %2) {
  %4 = call i64 @p1_f1(i64 noundef 1, i128 poison, ptr null, i16 zeroext undef)
  ret void
}

define internal [2 x i64] @p1_f2(i64 %0) {
define dso_local i128 @p1_f3(i64 %0) {
define internal fastcc { i64, i32 } @p1_f4(i64 %0) {
define hidden noundef i64 @p1_f1(i64 %0, i128 %1, ptr %2, i16 %3) local_unnamed_addr #0 !dbg !1 {
  call void @llvm.lifetime.start.p0(ptr nonnull %8)
  ret i64 0
}
"""


def test_parameters_and_arguments_are_read_from_ir():
    seen = parsed(IR)
    assert (seen["p1_f0"].words, seen["p1_f0"].void) == (4, True)
    assert (seen["p1_f1"].words, seen["p1_f1"].void) == (5, False)
    assert seen["p1_f0"].nothing == {"p1_f1": {2, 3, 5}}
    words = {name: function.results for name, function in seen.items()}
    assert words == {"p1_f0": 0, "p1_f1": 1, "p1_f2": 2, "p1_f3": 2, "p1_f4": 2}
    assert parsed("") == {}


def test_frames_are_added_up(tmp_path: Path, compiler: Compiler):
    config = BuildConfig(compiler.name, "1", "v3", "hidden")
    ((program, verdict, _, runs),) = refused(FRAMES, config, compiler, tmp_path)
    sizes = [depth(program, sub) for sub in program.subprograms]
    assert min(sizes[1:]) >= 320
    assert frames_too_large(program, verdict.message, runs.vectors)
    number = re.findall(r"\d+", verdict.message)[-1]
    more = verdict.message.replace(number, str(int(number) + 16))
    assert not frames_too_large(program, more, runs.vectors)


def test_frames_are_too_large_where_runs_use_them(tmp_path: Path, compiler: Compiler):
    config = BuildConfig(compiler.name, "1", "v3", "hidden")
    ((program, verdict, text, runs),) = refused(FRAMES, config, compiler, tmp_path)
    seen = touched(program, runs.vectors)
    assert all(
        seen[number] <= depth(program, sub)
        for number, sub in enumerate(program.subprograms)
        if number in seen
    )
    assert sum(seen.values()) > 512
    # what nobody gets at may be a mistake in adding up
    assert not frames_too_large(program, verdict.message, ())
    assert explain(program, verdict, text, replace(runs, vectors=())).constructs == ()


def test_a_frame_that_no_run_gets_to_counts_as_it_is_written(tmp_path: Path, compiler: Compiler):
    config = BuildConfig(compiler.name, "1", "v3", "hidden")
    seldom = FRAMES.replace("return in(", "if (a == 0x123456789abcdef)\n\t\tb = in(")
    seldom = seldom.replace("f) + v[a & 63];\n}\n", "f);\n\treturn b + v[a & 63];\n}\n", 1)
    ((program, verdict, text, runs),) = refused(seldom, config, compiler, tmp_path)
    assert set(touched(program, runs.vectors)) == {1}  # f, and not in
    assert explain(program, verdict, text, runs).constructs == (constructs.FRAMES,)


def test_what_no_run_gets_to_in_a_frame_counts_as_it_is_written(tmp_path: Path, compiler: Compiler):
    """Found by a campaign (seed 60604, program 2607 at -O0): a branch that is never taken."""
    config = BuildConfig(compiler.name, "1", "v3", "hidden")
    seldom = FRAMES.replace("\tv[a & 63] = b;", "\tif (a == 0x123456789abcdef)\n\t\tv[0] = b;")
    seldom = seldom.replace("v[a & 63]", "v[256 + (a & 63)]")
    ((program, verdict, text, runs),) = refused(seldom, config, compiler, tmp_path)
    assert sum(touched(program, runs.vectors).values()) > 512
    assert explain(program, verdict, text, runs).constructs == (constructs.FRAMES,)


SPARE = """
static __attribute__((noinline)) long last(long a, long b, long c, long d, long e, long f)
{
	volatile char v[240];

	v[a & 63] = b;
	return v[a & 63] + f;
}

static __attribute__((noinline)) long in(long a, long b, long c, long d, long e, long f)
{
	volatile char v[240];

	v[a & 63] = b;
	return last(a, b, c, d, e, f) + v[a & 63];
}

long f(long a, long b, long c, long d, long e, long f)
{
	volatile char v[320];

	v[256 + (b & 63) - (a == 0x123456789abcdef ? 256 : 0)] = a;
	return in(a, b, c, d, e, f) + v[256 + (b & 63)];
}
"""


def test_frames_of_what_is_called_in_turn_count(tmp_path: Path, compiler: Compiler):
    """The chain that is named may spare a little; that does not help where it goes on."""
    config = BuildConfig(compiler.name, "1", "v3", "hidden")
    ((program, verdict, text, runs),) = refused(SPARE, config, compiler, tmp_path)
    named = re.search(r"of (\d+) calls", verdict.message)
    assert named is not None
    used = touched(program, runs.vectors)
    chain = int(named[1])
    assert sum(used[n] for n in range(1, chain)) <= 512 < sum(used.values())
    assert explain(program, verdict, text, runs).constructs == (constructs.FRAMES,)


def test_frames_that_linux_allows_are_not_too_large(
    tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
):
    config = BuildConfig(compiler.name, "1", "v3", "hidden")
    path = tmp_path / "x.c"
    path.write_text(FRAMES.replace("v[320]", "v[64]"))
    settings = Settings((config,), (compiler,), vectors=4)
    planned = pipeline.plan(path, "x.c", settings)
    built = pipeline.compile_build(planned, config, settings)
    (program,) = [p for p, _ in pipeline.built_programs(built, settings) if p.name[-2:] == "_f"]
    message = "combined stack size of 3 calls is 128. Too large"
    vectors = planned.vectors["f"]
    assert not frames_too_large(program, message, vectors)  # a verifier whose limit slipped
    monkeypatch.setattr(frames, "LIMIT", 111)
    assert frames_too_large(program, message, vectors)


def test_a_variable_that_shrank_takes_no_other_program_with_it(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
):
    settings = Settings((), (compiler,), vectors=4, legs=("interp", "jit"))
    members = [units.member(n, t, settings) for n, t in batch_c(Order(0, 4, 4, settings))]

    def planted(btf):
        names = {kind.name for kind in btf.types}
        return [("p2_g0", None)] if any(name.startswith("p2_f") for name in names) else []

    monkeypatch.setattr(units, "shrunk", planted)
    config = BuildConfig(compiler.name, "1", "v4", "hidden")
    found = [u.numbers for u in units.compile_units(members, config, settings, units.Natives())]
    assert found == [(0, 1, 3), (2,)]


def test_shrunk_variables_are_named(tmp_path: Path, compiler: Compiler):
    config = BuildConfig(compiler.name, "2", "v3", "hidden")
    c = case("clang_shrunk_global.toml")
    ((program, _, _, _),) = refused(c, config, compiler, tmp_path)
    assert [name for name, _ in shrunk(program.btf)] == ["g"]


def test_entries_for_campaigns_name_a_confirmed_construct():
    known = corpus.read_known(ROOT / "corpus" / "known.toml")
    config = BuildConfig("clang", "2", "v3", "hidden")
    words = {
        value
        for name, value in vars(constructs).items()
        if name.isupper() and isinstance(value, str)
    }
    for message in ("callee expects N args, stack argN is not initialized", "RN !read_ok"):
        found = Finding("", "p1_f0", config, "rejected", bucket=f"rejected: {message}")
        assert known_as(found, known) is None
        behind = replace(found, bucket=f"{found.bucket}, and then: {message}")
        assert known_as(behind, known) is None
    explained = {
        word
        for word in words
        if known_as(Finding("", "f", config, "rejected", bucket=f"rejected: x, {word}"), known)
    }
    assert words - explained <= {constructs.BARE}  # which no campaign has met
    assert words == set(constructs.CONSTRUCTS)


def test_a_construct_by_design_hides_no_open_one():
    known = corpus.read_known(ROOT / "corpus" / "known.toml")
    config = BuildConfig("clang", "2", "v3", "hidden")
    found = Finding("", "f", config, "rejected")
    both = replace(found, bucket=f"rejected: x, {constructs.WIDE}, {constructs.OR}")
    assert known_as(both, known) == "clang-or-on-stack-pointer-grown"
    wide = [entry for entry in known if entry.id == "linux-counts-parameters-grown"]
    assert known_as(both, wide) is None
    assert known_as(replace(found, bucket=f"rejected: x, {constructs.WIDE}"), wide) is not None


WIDE_AND_OR = """
struct wide { unsigned long x, y; };

__attribute__((noinline)) unsigned long in(unsigned long a, unsigned long b, unsigned long c,
		unsigned long d, unsigned long e, struct wide w)
{
	return (a ^ b ^ c ^ d ^ e) + w.x * 3 + w.y;
}

unsigned long f(unsigned long a, unsigned long b, unsigned long c, unsigned long d,
		unsigned long e, unsigned long g)
{
	unsigned short v[4] __attribute__((aligned(8))) = { a, b, c, d };
	struct wide w = { a, g };

	v[e & 3] = g;
	return in(a, b, c, d, e, w) + v[g & 3];
}
"""


def test_all_that_had_to_be_mended_is_named(tmp_path: Path, compiler: Compiler):
    config = BuildConfig(compiler.name, "2", "v3", "hidden")
    named = [
        set(refused_for(program, verdict, text, runs))
        for program, verdict, text, runs in refused(WIDE_AND_OR, config, compiler, tmp_path)
    ]
    assert {constructs.WIDE, constructs.OR} in named


# trees of campaigns' findings (seed 4242, programs 6285 and 10996)
# fmt: off
QUOTIENT = (
    'c-qBN!A`?44E-0Mb7;3xb_E6!2haq&RXt>_2a(bgB`MPW9w((~)3G8>+#37&`T5x`V6PE@6{?ex74T|xSK0mPgJNLQ'
    'G4X`W0W}4igo5y>2GF5xC9sqoxinao5j0(dmSc@;Qifg+ovN&86_p$(5_Vkk2Cb*&p8B8E#!50*wrho=cV9YX>DDV?'
    '*>`RDI3u~5Ri!zw)g^Gg(Bcey9fM5|Cgc1}5l>E|YzC==m0PSN*Dn7#^YUl>U8{^;@*oLT#_Tiu&BmGUbq4Nd8mph_'
    '0!Q{c$KUkb7$e>kjJ-*wi{A>x^~qgLTQ8B(F$<LSgn&B&cWmV(mP5acvE9AI29+1OMUBV)(#n~TY#K<wbG)GKbR;=}'
    'aK7G*a4NlF-WYfnb&c+qGnQLX!QdFs)`4~dG#0E~p4h$sJ6%hV'
)  # a4[(a1.m1 % (a6 | 1)) & 3]: of a bool it is 0 or 1
REMAINDER = (
    'c-qxh!EU245d9aQIbdVJ9J||A>S3#D+gs!V4Ni+h%*vQ{^Y?252FwNrs#I-miJA9i=FNBpHsDDx2D}Zgi^AK0M=9#9'
    'd^-G5XF&SHgI{d_%!E4J>qBtIjZqaK;9*bU7^RjW)P`3=q=(jYjH(Inptnnlict?wfXD@e5%7>fBC4RqwT_hb0pHeq'
    'EAx^o%nlBDJftGsGub#wn^YdkoU8xF)x|2%v(agqa6-_=J7bL27zb`8EL(g;>={4vse~&WMsA0ejBth{o`52i1(^$u'
    'fD6Atb~=dz_kWN1tE{0*S8B`CB-*yP(ej#Yi&W^RZ@z=6xBpr4O1c`(S56HETvb*6!nOHr&WcR`xL2{aC8kXQ=~7ZF'
    'R&?0|rkk+6PNU3%^H<^VJ(t^8ZT=(YsW|Ac%ghBI$^>UCH14KAxr<G7_VyTBprce7E~+`C^kXcRVkivhWTl;f6%vf2'
    '7-K&UVm}EXAviuuxDXL~79s)@5{4*2Fv27vN!ZdJA#4lWcSf3J&JG;)P+csv{0z>je*Vs!wz?<F71HsgLx6q&6)Z#r'
    'u(6v?WHnQ}iM)p8reJ%<C736KORu{gtzXunUtRjsI-;ekQZJen6&wwgiTu}0uwDDYX({lx6l)Y1>c%H^t6E&Q6OTqb'
    'UcCs#C#34$D&S(Na5olzGg*si&zT+C1lYfTfw%r62)yQ5#yBwZ8mK2gc>sY<P7(YA7g0r9'
)  # switch (a10 % 3 & 7), from a table of three
# fmt: on


@pytest.mark.parametrize(("packed", "opt"), [(QUOTIENT, "1"), (REMAINDER, "2")])
def test_an_index_whose_mask_clang_left_out(
    packed: str, opt: str, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
):
    config = BuildConfig(compiler.name, opt, "v4", "hidden")
    settings = Settings((config,), (compiler,), vectors=16)
    one = units.member(0, unpack(packed), settings)
    natives = units.native_outcomes([one], settings)
    (unit,) = units.compile_units([one], config, settings, natives)
    (seen,) = units.judge(unit, {0: one}, settings, natives, {})
    assert seen.check.outcome == "rejected"
    assert units.causes(seen, settings) == [constructs.MASK]
    # a verifier that says the same of the program that has the mask is wrong
    assert seen.verification is not None
    said = seen.verification
    monkeypatch.setattr(verifier, "verify", lambda *_, **__: said)
    assert units.causes(seen, settings) == []
    # what is built so must do what the native builds do
    monkeypatch.undo()
    lost = Printer._masked
    monkeypatch.setattr(
        Printer, "_masked", lambda self, e: f"(1 ^ {lost(self, e)})" if self.kept else lost(self, e)
    )
    assert constructs.MASK not in units.causes(seen, settings)
