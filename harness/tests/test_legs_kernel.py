"""The leg ``kernel``: what its logs and types mean, and (marker ``kernel``) a real Linux."""

from __future__ import annotations

import re
import struct
import time
from pathlib import Path

import pytest

from harness.btf import (
    Btf,
    Enum,
    Enumerator,
    Func,
    FuncProto,
    Int,
    Member,
    Param,
    Struct,
    Typedef,
    Void,
    encode,
)
from harness.corpus import FunctionDecl, ProgramText
from harness.corpus import program as text_program
from harness.interp import RECORD, name_hash
from harness.isa.asm import assemble
from harness.isa.codec import encode as encode_insns
from harness.isa.insn import Exit, LoadImm
from harness.legs import conformance
from harness.legs import kernel_request as request
from harness.legs.agent import Address, Fd, Quad, Script
from harness.legs.interp import InterpLeg
from harness.legs.kernel import MAX_DEATHS, KernelLeg, ModuleFile, first_error, verdict_of
from harness.legs.kernel_raw import keep_r0, with_btf
from harness.load import load_object
from harness.model import (
    Accepted,
    BuildConfig,
    HarnessError,
    MapDef,
    OutOfFuel,
    Program,
    Rejected,
    Returned,
    Subprogram,
    Unknown,
)
from harness.source import driver
from harness.source.layout import Layout, layout
from harness.source.signature import functions_under_test
from harness.source.vectors import vectors
from harness.toolchain import apt, run_compiler
from harness.toolchain.kernel import ENVIRONMENT
from harness.verifier import verify

SOURCES = Path(__file__).parents[2] / "c_sources"


def program(
    text, name="main", *, kind="syscall", section="syscall", maps=(), callbacks=(), **fields
):
    """The program *text*; labels that begin with a small letter start subprograms.

    *callbacks* are (slot of an ld_pseudo of kind 4, label) to point at subprograms.
    """
    assembly = assemble(text)
    insns = list(assembly.insns)
    starts = {label: slot for label, slot in assembly.labels.items() if label[0].islower()}
    for slot, label in callbacks:
        insns[slot] = LoadImm(insns[slot].dst, 4, (starts[label] - slot - 1) & 0xFFFFFFFF)
    names = sorted((starts | {name: 0}).items(), key=lambda item: item[1])
    ends = [start for _, start in names[1:]] + [len(insns)]
    subprograms = tuple(
        Subprogram(label, start, end) for (label, start), end in zip(names, ends, strict=True)
    )
    return Program(name, section, kind, tuple(insns), subprograms, tuple(maps), **fields)


def words(*values):
    return struct.pack(f"<{len(values)}Q", *values)


SEVEN = program("r0 = 7\nexit")

# --- without a kernel ---------------------------------------------------------

LOG = """\
func#0 @0
func#1 @9
Live regs before insn:
      0: .1........ (79) r5 = *(u64 *)(r1 +32)
0: R1=ctx() R10=fp0
; long r = seven(1, 2); @ slots.c:12
0: (b7) r1 = 1                        ; R1=1
1: (85) call pc+2
caller:
 R10=fp0
callee:
 frame1: R1=1 R10=fp0
mark_precise: frame1: last_idx 5 first_idx 0 subseq_idx -1
from 3 to 5: R0=1 R10=fp0
5: (85) call pc+9
callee expects 7 args, stack arg2 is not initialized
second line of it
processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0

"""


@pytest.mark.parametrize(
    ("log", "insn", "message"),
    [
        (LOG, 5, "callee expects 7 args, stack arg2 is not initialized"),
        ("R11 is invalid\nprocessed 0 insns (limit 1000000)\n", None, "R11 is invalid"),
        ("unreachable insn 4\nprocessed 0 insns (limit 1000000)\n", 4, "unreachable insn 4"),
        (
            "3: (05) goto pc-1\ninfinite loop detected at insn 2\ncur state: R0=1\n",
            2,
            "infinite loop detected at insn 2",
        ),
        (
            "func#0 @0\nfunc#0 writes 3 stack arg slots, but calls only require 2\n"
            "processed 21 insns (limit 1000000)\n",
            None,
            "func#0 writes 3 stack arg slots, but calls only require 2",
        ),
        (
            "2: (85) call x#12\nexpected a mapprocessed 3 insns (limit 1000000) peak_states 0\n",
            2,
            "expected a map",
        ),
        (
            "8: (56) if w2 != 0x0 goto pc-6 3: R6=scalar() R10=fp0\n4: (b7) r1 = 1\n"
            "8: (56) if w2 != 0x0 goto pc-6 infinite loop detected at insn 3\ncur state: R6=1\n",
            3,
            "infinite loop detected at insn 3",
        ),
        ("8: (56) if w2 != 0x0 goto pc-6        ; R2=0\n", 8, ""),
        ("", None, ""),
    ],
)
def test_the_error_in_a_log(log, insn, message):
    assert first_error(log) == (insn, message)


def test_verdicts():
    assert verdict_of(5, "") == Accepted()
    assert verdict_of(-22, LOG) == Rejected(
        5, "callee expects 7 args, stack arg2 is not initialized"
    )
    assert verdict_of(-22, "") == Rejected(None, "BPF_PROG_LOAD: EINVAL")
    assert isinstance(verdict_of(-11, ""), Unknown)
    assert isinstance(verdict_of(-1, ""), Unknown)


BTF = Btf(
    (
        Void(),
        Int("long", 8, 1, 0, 64),
        Struct("pair", 16, (Member("a", 1, 0), Member("b", 1, 64))),
        Enum("e", 4, (Enumerator("A", 1), Enumerator("B", 2))),
        FuncProto(1, (Param("a", 1), Param("b", 1))),
        Func("first", 4),
        Typedef("word", 1),
        Func("second", 4),
        Func("first", 4),
    )
)


def test_names_of_types():
    found = request.type_names(encode(BTF))
    assert found == {"func": {"first": 5, "second": 7}, "typedef": {"word": 6}}


def test_names_of_types_in_split_btf():
    base = encode(BTF)
    strings = base[base.index(b"\0long") :]
    # a module's: its ids and its string offsets go on where the kernel's end
    whole = encode(Btf((Void(), Func("extra", 4))))
    split = bytearray(whole)
    (type_off,) = struct.unpack_from("<I", whole, 8)
    name = struct.unpack_from("<I", whole, 24 + type_off)[0]
    struct.pack_into("<I", split, 24 + type_off, name + len(strings))
    assert request.type_names(bytes(split), base)["func"] == {"extra": 9}


def test_what_a_program_names_of_the_kernel():
    module = request.Module("ours", 3, {"of_ours": 90_000})
    types = request.Types(encode(BTF), [module])
    from harness.isa.insn import Call

    insns = (Call("kfunc", 0), Call("kfunc", 1), Exit())
    both = Program("p", "syscall", "syscall", insns, (), kfuncs=("second", "of_ours"))
    goal = request.target(both, types)
    assert isinstance(goal, request.Target)
    assert goal.modules == (module,)
    assert struct.unpack_from("<BBhi", goal.insns, 0) == (0x85, 0x20, 0, 7)
    assert struct.unpack_from("<BBhi", goal.insns, 8) == (0x85, 0x20, 1, 90_000)
    absent = Program("p", "syscall", "syscall", insns, (), kfuncs=("second", "third"))
    assert request.target(absent, types) == Unknown("the kernel has no kfunc third")
    fentry = Program("p", "fentry/first", "tracing", (Exit(),), (), attach="first")
    goal = request.target(fentry, types)
    assert isinstance(goal, request.Target)
    assert goal.attach_type == 24
    assert goal.attach_btf_id == 5
    fentry = Program("p", "fentry/nowhere", "tracing", (Exit(),), (), attach="nowhere")
    assert isinstance(request.target(fentry, types), Unknown)
    for kind in ("ext", "struct_ops", "unheard_of"):
        assert isinstance(request.target(Program("p", kind, kind, (Exit(),), ()), types), Unknown)


@pytest.mark.parametrize(
    ("maps", "again"),
    [
        ((), True),
        ((MapDef(".data", 2, 4, 8, 1, data=bytes(8)),), True),
        ((MapDef("hash", 1, 4, 8, 10),), True),
        ((MapDef("programs", 3, 4, 4, 1),), True),
        ((MapDef(".rodata", 2, 4, 1 << 20, 1, data=bytes(1 << 20), readonly=True),), True),
        ((MapDef("large", 2, 4, 1 << 20, 1),), False),
        ((MapDef("ring", 27, 0, 0, 4096),), False),
    ],
)
def test_which_maps_can_be_brought_back(maps, again):
    assert request.repeatable(maps) == again


def test_names_that_a_kernel_takes():
    assert request.object_name("a b-c.d") == b"a_b_c.d".ljust(16, b"\0")
    assert request.object_name("x" * 40) == b"x" * 15 + b"\0"


def test_raw_programs_get_types_that_our_verifier_takes_too():
    checks = [c for c in conformance.checks() if c.name.startswith("stack_args_12")]
    assert checks
    for check in checks:
        typed = with_btf(check.program)
        assert isinstance(verify(typed).verdict, Accepted)
        assert isinstance(verify(keep_r0(typed, 96)).verdict, Accepted)
        (vector, expected), *_ = check.runs
        (outcome,) = InterpLeg().prepare(keep_r0(typed, 96)).run([vector.ljust(104, b"\0")])
        assert isinstance(outcome, Returned)
        assert isinstance(expected, Returned)
        assert int.from_bytes(outcome.ctx[96:], "little") == expected.r0


def test_modules_are_not_for_the_machines_own_kernel(compiler):
    with pytest.raises(HarnessError, match="no module"):
        KernelLeg(host=True, modules=[ModuleFile("ours", b"")], compilers=[compiler])


def test_a_kernel_that_is_none_is_one_line(tmp_path, monkeypatch, compiler):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "absent"))
    with pytest.raises(HarnessError, match="is no file"):
        KernelLeg(compilers=[compiler])


# --- with one -----------------------------------------------------------------

kernel = pytest.mark.kernel


@pytest.fixture(scope="module")
def leg(compiler):
    why = apt.available()
    try:
        leg = KernelLeg(guests=1, compilers=[compiler])
    except HarnessError as error:
        if why is None:
            raise
        pytest.skip(f"{why}: {error}")
    with leg:
        yield leg


@kernel
def test_it_starts_and_says_what_it_is(leg):
    release = leg.read_file("/proc/sys/kernel/osrelease").decode().strip()
    assert tuple(map(int, re.match(r"(\d+)\.(\d+)", release).groups())) >= (7, 3)
    assert leg.boots
    btf = leg.btf()
    assert btf[:2] == b"\x9f\xeb"
    assert leg.types().find("func", "bpf_prog_test_run_syscall")
    assert leg.types().find("typedef", "btf_trace_sys_enter")


@kernel
def test_a_program_its_image_and_what_it_does(leg):
    (answer,) = leg.check([SEVEN], [[b"", b"12345678"]])
    assert answer.verdict == Accepted()
    assert answer.outcomes == (Returned(7, b""), Returned(7, b"12345678"))
    assert answer.translated == bytes.fromhex("b7000000070000009500000000000000")
    (image,) = answer.images
    assert b"\xb8\x07\x00\x00\x00" in image.code  # mov eax, 7
    assert image.address >> 32 == 0xFFFFFFFF
    assert answer.processed == 2
    assert answer.log == ""


@kernel
def test_logs(leg):
    for level, line in ((1, "processed 2 insns"), (2, "0: (b7) r0 = 7 ")):
        (answer,) = leg.check([SEVEN], log_level=level, images=False)
        assert answer.verdict == Accepted()
        assert any(each.startswith(line) for each in answer.log.splitlines())
        assert not answer.images


_WITHOUT_KFUNCS = ("forms", "functions", "objects", "slots")


@pytest.fixture(scope="module")
def refused(compiler):
    """Programs of the refusal folder without kfuncs, and the message each is refused with."""
    found = []
    for path in (SOURCES / "refused" / f"{stem}.c" for stem in _WITHOUT_KFUNCS):
        config = BuildConfig(compiler.name, "2", "v4", "hidden")
        built = run_compiler(compiler, driver.program_args(config), source=path)
        loaded = load_object(built.output, path=path.name, fill_names=True)
        expected = dict(re.findall(r"^\W*refuse (\w+): (.*\S)\s*$", path.read_text(), re.MULTILINE))
        found += [(each, expected.get(each.name)) for each in loaded.programs]
    assert len(found) > 15
    return found


@kernel
def test_linux_refuses_what_is_to_be_refused_in_those_words(leg, refused):
    answers = leg.check([each for each, _ in refused])
    for (each, expected), answer in zip(refused, answers, strict=True):
        said = getattr(answer.verdict, "message", None)
        assert said == expected, f"{each.name}:\n{answer.log}\n{answer.btf_log}"
        assert getattr(verify(each, log_level=0).verdict, "message", None) == expected


@kernel
def test_c_functions_do_what_the_interpreter_does(leg, compiler):
    path = SOURCES / "pointers.c"
    found = run_compiler(compiler, driver.discovery_args(), source=path)
    signatures = functions_under_test(load_object(found.output).btf).signatures
    layouts = [each for each in map(layout, signatures) if isinstance(each, Layout)]
    config = BuildConfig(compiler.name, "2", "v4", "static")
    text = driver.translation_unit(path, layouts, "static")
    built = run_compiler(compiler, driver.bpf_args(config), source=text)
    programs = {each.name: each for each in load_object(built.output).programs}
    chosen = [programs[driver.entry(each.signature.name)] for each in layouts]
    batches = [vectors(each, 12, 1) for each in layouts]
    answers = leg.check(chosen, batches)
    for each, batch, answer in zip(chosen, batches, answers, strict=True):
        assert answer.verdict == Accepted(), answer.log
        assert len(answer.images) == len(each.subprograms)
        assert list(answer.outcomes) == InterpLeg().prepare(each).run(batch), each.name


# Linux runs none of the traps, and a context has room behind it for r0
CHECKS = [c for c in conformance.checks() if not c.name.startswith("trap_")]
CHECKS = [c for c in CHECKS if not c.name.startswith("registers_")][::3]


@kernel
def test_it_passes_the_conformance_kit(leg):
    assert len(CHECKS) > 100
    wrong = [line for check in CHECKS for line in conformance.check_leg(leg.prepare, check)]
    assert not wrong, "\n".join(wrong)


@kernel
def test_btf_that_is_refused_changes_the_verdict(leg):
    six = program(
        "r1 = 1\nr2 = 2\nr3 = 3\nr4 = 4\nr5 = 5\n*(u64 *)(r11 - 8) = 6\ncall six\nexit\n"
        "six:\nr0 = *(u64 *)(r11 + 8)\nexit\n"
    )
    typed = with_btf(six)
    nameless = [
        FuncProto(kind.returns, tuple(Param("", p.type) for p in kind.params))
        if isinstance(kind, FuncProto)
        else kind
        for kind in typed.btf.types
    ]
    bad = Program(**{f: getattr(typed, f) for f in typed.__slots__} | {"btf": Btf(tuple(nameless))})
    good, refusal = leg.check([typed, bad], [[b""], [b""]])
    assert good.outcomes == (Returned(6, b""),)
    assert refusal.verdict == Rejected(8, "invalid read from stack arg off 8 depth 0")
    assert "Invalid arg#1" in refusal.btf_log
    assert isinstance(refusal.outcomes[0], Unknown)


COUNTER = MapDef(".bss", 2, 4, 8, 1, data=bytes(8))
TABLE = MapDef("table", 2, 4, 8, 4)
HASH = MapDef("hash", 1, 8, 8, 4)
RING = MapDef("ring", 27, 0, 0, 4096)


@kernel
def test_every_vector_finds_maps_as_they_began(leg):
    counts = program(
        "r6 = r1\nld_pseudo r1, 6, 0\nr0 = *(u64 *)(r1 + 0)\nr0 += 1\n*(u64 *)(r1 + 0) = r0\nexit",
        maps=[COUNTER],
    )
    keeps = program(
        "*(u64 *)(r10 - 8) = 5\n*(u64 *)(r10 - 16) = 9\n"
        "ld_pseudo r1, 5, 0\nr2 = r10\nr2 += -8\nr3 = r10\nr3 += -16\nr4 = 1\ncall 2\nexit",
        maps=[HASH],  # BPF_NOEXIST: refused where the element is still there
    )
    ring = program(
        "*(u64 *)(r10 - 8) = 5\nld_pseudo r1, 5, 0\nr2 = r10\nr2 += -8\nr3 = 8\nr4 = 0\n"
        "call 130\nld_pseudo r1, 5, 0\nr2 = 0\ncall 134\nexit",
        maps=[RING],  # bytes in the ring
    )
    answers = leg.check([counts, keeps, ring], [[b""] * 5] * 3, images=False)
    assert [set(answer.outcomes) for answer in answers] == [
        {Returned(1, b"")},
        {Returned(0, b"")},
        {Returned(16, b"", RECORD.pack(name_hash("ring"), 8) + words(5))},
    ]


@kernel
def test_what_is_in_a_ring_buffer_is_what_the_interpreter_put_there(leg):
    writes = program(
        "r6 = *(u64 *)(r1 + 0)\n*(u64 *)(r10 - 16) = r6\n*(u64 *)(r10 - 8) = 9\n"
        "ld_pseudo r1, 5, 0\nr2 = r10\nr2 += -16\nr3 = 13\nr4 = 0\ncall 130\n"
        "ld_pseudo r1, 5, 0\nr2 = 16\nr3 = 0\ncall 131\nif r0 == 0 goto Out\n"
        "*(u64 *)(r0 + 0) = r6\nr1 = r0\nr2 = 0\ncall 133\n"
        "ld_pseudo r1, 5, 0\nr2 = 8\nr3 = 0\ncall 131\nif r0 == 0 goto Out\n"
        "*(u64 *)(r0 + 0) = r6\nr1 = r0\nr2 = 0\ncall 132\nOut:\nr0 = 0\nexit",
        maps=[RING],
    )
    batch = [words(1), words(2)]
    (answer,) = leg.check([writes], [batch])
    assert list(answer.outcomes) == list(InterpLeg().prepare(writes).run(batch))
    assert len(answer.outcomes[0].effects) == 8 + 13 + 8 + 8
    two = program("r0 = 0\nld_pseudo r1, 5, 0\nld_pseudo r1, 5, 1\nexit", maps=[RING, RING])
    assert leg.check([two], [[b""]])[0].outcomes == (Returned(0, b"", None),)


@kernel
def test_packets(leg):
    text = "r0 = 2\nr2 = *(u32 *)(r1 + 4)\nr1 = *(u32 *)(r1 + 0)\nr3 = r1\nr3 += 14\n"
    text += "if r3 > r2 goto Out\n*(u8 *)(r1 + 0) = 7\nOut:\nexit"
    xdp = program(text, kind="xdp", section="xdp")
    cls = program("r0 = 3\nexit", kind="sched_cls", section="tc")
    raw = program("r0 = *(u64 *)(r1 + 8)\nexit", kind="raw_tracepoint", section="raw_tp/sys_enter")
    probe = program("r0 = 0\nexit", kind="kprobe", section="kprobe/do_nanosleep")
    packet = bytes(range(64))
    answers = leg.check(
        [xdp, cls, raw, probe], [[packet, bytes(14)], [packet], [words(1, 77)], [b""]]
    )
    assert [type(answer.verdict) for answer in answers] == [Accepted] * 4, answers
    assert answers[0].outcomes == (
        Returned(2, b"\x07" + packet[1:]),
        Returned(2, b"\x07" + bytes(13)),
    )
    assert answers[1].outcomes == (Returned(3, packet),)
    assert answers[2].outcomes == (Returned(77, words(1, 77)),)
    assert answers[3].outcomes == (Unknown("BPF_PROG_TEST_RUN does not run kprobe programs"),)


@kernel
def test_many_programs_and_many_vectors_are_quick_enough(leg):
    programs = [program(f"r0 = *(u64 *)(r1 + 0)\nr0 += {n}\nexit") for n in range(100)]
    began = time.perf_counter()
    answers = leg.check(programs, [[words(n), words(2 * n)] for n in range(100)])
    seconds = time.perf_counter() - began
    assert [a.outcomes[1].r0 for a in answers] == [3 * n for n in range(100)]
    print(f"{100 / seconds:.0f} programs a second, boot {leg.boots[0]:.1f} s")
    assert seconds < 60

    many = [words(n) for n in range(10_000)]
    (answer,) = leg.check([programs[1]], [many], images=False)
    assert [outcome.r0 for outcome in answer.outcomes] == [n + 1 for n in range(10_000)]


@kernel
def test_a_log_that_does_not_fit_is_cut_off_and_the_verdict_stays(leg, monkeypatch):
    monkeypatch.setattr(leg, "log_limit", 2048)
    loop = "r6 = 0\nL:\nr6 += 1\nif r6 != 100 goto L\n"
    good = program(f"{loop}r0 = 0\nexit")
    bad = program(f"{loop}r0 = r9\nexit")
    for level in (2, 1):
        fine, wrong = leg.check([good, bad], [[b""], [b""]], log_level=level)
        assert fine.verdict == Accepted()
        assert fine.outcomes == (Returned(0, b""),)
        assert wrong.verdict == Rejected(3, "R9 !read_ok")
        assert wrong.truncated
        assert len(wrong.log) < 2048
    assert fine.images
    (silent,) = leg.check([bad])
    assert silent.verdict == Rejected(3, "R9 !read_ok")


@kernel
def test_a_guest_that_dies_takes_nothing_with_it(leg):
    boots = len(leg.boots)
    crash = Script()
    crash.write_file("/proc/sysrq-trigger", b"c")
    with pytest.raises(HarnessError, match=r"the guest died: .*sysrq triggered crash"):
        leg.ask(crash)
    answers = leg.check([SEVEN] * 3, [[b""]] * 3)
    assert [answer.outcomes for answer in answers] == [(Returned(7, b""),)] * 3
    assert len(leg.boots) == boots + 1


# bpf_loop of 8 million rounds of 8 million rounds, where the context begins with 13
ENDLESS = program(
    """
    r7 = *(u64 *)(r1 + 0)
    if r7 != 13 goto Out
    r1 = 8388608
    ld_pseudo r2, 4, 0
    r3 = 0
    r4 = 0
    call 181
Out:
    r0 = 1
    exit
outer:
    r1 = 8388608
    ld_pseudo r2, 4, 0
    r3 = 0
    r4 = 0
    call 181
    r0 = 0
    exit
inner:
    r0 = 0
    exit
""",
    callbacks=[(3, "outer"), (11, "inner")],
)


@kernel
def test_a_vector_that_hangs_the_guest_is_named(leg, monkeypatch):
    monkeypatch.setattr(leg, "patience", 3.0)
    monkeypatch.setattr(leg, "run_patience", 3.0)
    one, endless, two = words(1), words(13), words(2)
    other, hung = leg.check([SEVEN, with_btf(ENDLESS)], [[b""], [one, endless, two]], images=False)
    assert other.outcomes == (Returned(7, b""),)
    assert hung.verdict == Accepted()
    assert hung.outcomes == (Returned(1, one), OutOfFuel(), Returned(1, two))
    assert MAX_DEATHS > 1


@kernel
def test_the_verifier_is_told_to_give_up(leg, monkeypatch):
    monkeypatch.setattr(leg, "patience", 0.3)
    slow = program("r6 = 0\nr1 = r6\nL:\nr6 += 1\nif r6 != 400000 goto L\nr0 = 0\nexit")
    (answer,) = leg.check([slow])
    assert answer.verdict == Unknown("Linux did not finish verifying it in the time it was given")


FENTRY, FEXIT = 24, 25
TRACER = text_program(
    ProgramText(
        "r1 = 0; r2 = 0; r3 = 0; r4 = 0; r5 = 0\n*(u64 *)(r11 - 8) = 99\ncall g\nr0 = 0\nexit\n"
        "g: r0 = *(u64 *)(r11 + 8)\nexit",
        functions=(FunctionDecl("g", ("u64",) * 6),),
    ),
    "tracer",
)


def with_tracer(leg, one, attach):
    """What *one* does with 8 zero bytes while a tracing program is attached to its function f.

    A case has one program, so these findings (docs/findings/linux_*traced*.md) are tests.
    """
    script = Script()
    btf, own = (
        request.load_btf(script, *request.encode_btf(each.btf, [each])) for each in (one, TRACER)
    )
    goal = request.target(one, leg.types())
    load = request.Load(script, one, goal, btf, level=0, log_limit=1 << 16, cpus=1)
    code = encode_insns(TRACER.insns)
    records = b"".join(struct.pack("<II", x.start, x.type_id) for x in TRACER.subprograms)
    tracer = script.bpf(
        request.PROG_LOAD,
        [
            *(request.PROGRAM_TYPES["tracing"], len(code) // 8, Address(script.place(code))),
            *(Address(script.text("GPL")), 0, 0, Quad(0), 0, 0, bytes(16), 0, attach),
            *(Fd(own.step.slot), 8, Address(script.place(records)), 2, 0, Quad(0), 0),
            *(one.subprograms[1].type_id, Fd(load.slot), 0, Quad(0)),
        ],
    )
    opened = script.bpf(17, [Quad(0), Fd(tracer.slot), 0])  # BPF_RAW_TRACEPOINT_OPEN
    batch = request.Batch(script, load, [bytes(8)])
    reply = leg.ask(script)
    assert reply.results[opened.number] >= 0
    (seen,) = batch.outcomes(reply)
    return seen


TAIL_CALL = "r1 = r6\nr2 = map[idx:0]\nr3 = 0\ncall 12\n"


def traced(leg, types, values, slot, attach, last=""):
    """What f, of *types*, finds in *slot* of *values*, with a tracing program attached.

    *last* is what the main function does in the end.
    """
    stores = "".join(f"*(u64 *)(r11 - {8 * n}) = {value}\n" for n, value in enumerate(values, 1))
    zeros = "r1 = 0; r2 = 0; r3 = 0; r4 = 0; r5 = 0\n"
    text = (
        f"r6 = r1\n{zeros}call caller\n*(u64 *)(r6 + 0) = r0\n{last}r0 = 0\nexit\n"
        f"f: r0 = *(u64 *)(r11 + {8 * slot})\nexit\ncaller: {zeros}{stores}call f\nexit"
    )
    maps = (MapDef("programs", 3, 4, 4, 1),) if last else ()
    functions = (FunctionDecl("f", types),)
    one = text_program(ProgramText(text, functions=functions, maps=maps), "target")
    return int.from_bytes(with_tracer(leg, one, attach).ctx, "little", signed=True)


@kernel
def test_linux_changes_stack_arguments_of_what_is_traced(leg):
    """Until it is mended: then docs/findings/linux_traced_slots.md is to say so."""
    numbers, pointer = ("u64",) * 7, ("ptr", *["u64"] * 6)
    for attach in (FENTRY, FEXIT):
        assert [traced(leg, numbers, (5, 6), slot, attach) for slot in (1, 2)] == [5, 6]
    assert [traced(leg, pointer, (5, 6), slot, FENTRY) for slot in (1, 2)] == [99, 6]
    assert traced(leg, pointer, (5, 6), 2, FEXIT) != 6
    narrow = (*numbers[:6], "s32")
    assert traced(leg, narrow, (5, -1), 2, FENTRY) == -1
    assert traced(leg, narrow, (5, -1), 2, FEXIT) == (1 << 32) - 1
    assert traced(leg, numbers, (5, 6), 2, FENTRY, TAIL_CALL) == 6
    assert traced(leg, numbers, (5, 6), 2, FEXIT, TAIL_CALL) != 6


@kernel
def test_linux_breaks_over_what_is_thrown_through_a_trampoline(leg):
    """Until it is mended: then docs/findings/linux_throw_traced.md is to say so."""
    text = "r1 = 1\ncall f\nr0 = 9\nexit\nf: r1 = 7\ncall kfunc#0\nexit"
    functions = (FunctionDecl("f", ("u64",)),)
    one = text_program(ProgramText(text, kfuncs=("bpf_throw",), functions=functions), "target")
    assert with_tracer(leg, one, FENTRY) == Returned(7, bytes(8))
    with pytest.raises(HarnessError, match="NULL pointer dereference"):
        with_tracer(leg, one, FEXIT)


@kernel
def test_what_is_refused_has_no_runs(leg):
    (answer,) = leg.check([program("r0 = r9\nexit")], [[b"12345678"]])
    assert answer.outcomes == (Unknown("Linux refuses it: R9 !read_ok"),)
