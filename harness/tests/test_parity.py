"""Ours beside Linux's: what is masked, what is not, and what a whole comparison finds."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import harness
from harness import parity, run, verifier
from harness.btf import Btf, Func, FuncProto, Int, Param, Ptr, Struct, Void, encode, parse
from harness.corpus import Case, Known, RunCheck, VerifyCheck
from harness.isa import codec
from harness.isa.insn import Alu, Call, Exit, High, LoadImm, Raw
from harness.jit import x86_64
from harness.legs import guest, kernel_module
from harness.legs.kernel import KernelAnswer
from harness.legs.kernel_queue import KernelQueue
from harness.model import (
    Accepted,
    Crashed,
    Frame,
    HarnessError,
    Image,
    Outcome,
    OutOfFuel,
    Program,
    Rejected,
    Relocation,
    Returned,
    SubImage,
    Subprogram,
    Trapped,
    Unknown,
    Verification,
)
from harness.pipeline import Settings
from harness.toolchain import Compiler, run_compiler
from harness.toolchain.kernel import find_kernel, find_qemu

# --- translated instructions ------------------------------------------------

MINE = (
    LoadImm(1, 6, 0x10_0000_0002),  # offset 16 in the value of map 2
    High(),
    Call("helper", 5),
    Call("subprog", 1),
    Exit(),
    Alu("mov", 64, 0, 2),
    Exit(),
)


MINE_PROGRAM = Program("p", "", "syscall", MINE, (Subprogram("p", 0, len(MINE)),))


def shown(*changes: tuple[int, int]) -> bytes:
    """Return MINE as Linux shows it, with *changes*: byte, value."""
    code = bytearray(codec.encode(MINE))
    code[1] = 0x21  # BPF_PSEUDO_MAP_VALUE
    code[4:8] = (77).to_bytes(4, "little")  # the map's id
    code[8 * 2 + 4 : 8 * 2 + 8] = b"\xde\xad\xbe\xef"  # the helper's address
    code[8 * 3 + 2 : 8 * 3 + 8] = b"\x01\x00\x01\x00\x00\x00"  # where to, and which function
    for at, value in changes:
        code[at] = value
    return bytes(code)


def test_what_linux_numbers_is_no_difference() -> None:
    assert parity.compare_translated(MINE_PROGRAM, shown()) is None


@pytest.mark.parametrize(
    ("change", "insn"),
    [
        ((1, 0x22), 0),  # another register
        ((12, 17), 0),  # another place in the map's value
        ((8 * 3 + 2, 2), 3),  # another function
        ((8 * 5 + 1, 0x30), 5),  # another source
        ((8 * 6, 0x05), 6),
    ],
)
def test_another_instruction_is_a_difference(change: tuple[int, int], insn: int) -> None:
    found = parity.compare_translated(MINE_PROGRAM, shown(change))
    assert found is not None
    assert found.part == "translated"
    assert f"{insn}: " in found.ours


def test_a_missing_instruction_is_a_difference() -> None:
    found = parity.compare_translated(MINE_PROGRAM, shown()[:-8])
    assert found is not None
    assert found.linux == "<end>"


def test_per_cpu_memory_may_be_near_or_far() -> None:
    frame = Frame(8, private_stack=True)
    subject = replace(MINE_PROGRAM, insns=(Exit(),), frames=(frame,))
    subject = replace(subject, subprograms=(Subprogram("p", 0, 1),), maps=())
    near, far = (
        x86_64.compile(subject, x86_64.Options(near_percpu=is_near)) for is_near in (True, False)
    )
    assert isinstance(near, Image)
    assert isinstance(far, Image)
    for image in (near, far):
        code = image.subprograms[0].code
        assert parity.compare_program_image(subject, near, [("p", code)]) is None
        found = parity.compare_program_image(subject, near, [("p", code[:-1] + b"\x90")])
        assert found is not None


def test_what_only_the_kernel_may_write_looks_plain() -> None:
    """Tail calls, loads and stores that may fault; and addresses have names."""
    insns = (
        Raw(0xF5, 0, 0, 0, 1),
        Raw(0x79 & 0x1F | 0x20, 1, 2, 8, 0),
        Raw(0x7B & 0x1F | 0xA0, 1, 2, 8, 0),
        Alu("mov", 64, 0, None, 0),
        Exit(),
    )
    subject = replace(MINE_PROGRAM, insns=insns, symbols=((3, "cpu_number"),))
    theirs = bytes.fromhex("850000000c000000792108000000000079210800000000007b21080000000000")
    theirs = theirs[:16] + theirs[24:] + bytes.fromhex("b7000000785634129500000000000000")
    assert parity.compare_translated(subject, theirs) is None
    assert parity.compare_translated(replace(subject, symbols=()), theirs) is not None


# --- images -----------------------------------------------------------------

RELOCATION = Relocation(1, 4, "helper", "5")
# call (relocated); mov rax, rdi; ret
CODE = bytes.fromhex("e8000000004889f8c3")


def test_a_relocated_field_is_no_difference() -> None:
    image = Image("x86_64", (SubImage("f", CODE, (), (RELOCATION,)),))
    theirs = bytes.fromhex("e8deadbeef4889f8c3")
    assert parity.compare_images(image, [("f", theirs)]) is None
    assert parity.masked(theirs, (RELOCATION,)) == CODE


@pytest.mark.parametrize("at", [0, 5, 6, 7, 8])
def test_any_other_byte_is_a_difference(at: int) -> None:
    image = Image("x86_64", (SubImage("f", CODE, (), (RELOCATION,)),))
    theirs = bytearray(CODE)
    theirs[at] ^= 1
    found = parity.compare_images(image, [("f", bytes(theirs))])
    assert found is not None
    assert found.where == f"byte {at:#x} of f"
    assert found.beside


def test_code_that_goes_on_is_a_difference() -> None:
    image = Image("x86_64", (SubImage("f", CODE, ()),))
    found = parity.compare_images(image, [("f", CODE + b"\xcc")])
    assert found is not None
    assert found.where == "byte 0x9 of f"
    assert (found.ours, found.linux) == ("<end>", "9: int3")
    two = parity.compare_images(image, [("f", CODE), ("g", CODE)])
    assert two is not None
    assert two.linux == "2 functions"


# --- logs -------------------------------------------------------------------

LINUX_LOG = """\
func#0 @0
topo_order[0] = main
subprog#0: analyzing (depth 0)...
subprog#0 main:
  0: (b7) r0 = 0
stack use/def subprog#0 main (d0,cs0):
  0: (b7) r0 = 0
Live regs before insn:
      0: .......... (b7) r0 = 0
  1   1: 0......... (95) exit
0: R1=ctx() R10=fp0
0: (18) r1 = 0xffff888005a39f28       ; R1=map_value(map=m,ks=4,vs=8)
2: (95) exit
verification time 12 usec
processed 2 insns (limit 1000000)
"""
OUR_LOG = """\
func#0 @0
0: R1=ctx() R10=fp0
0: (18) r1 = 0x0                      ; R1=map_value(map=m,ks=4,vs=8)
2: (95) exit
processed 2 insns (limit 1000000)
"""


def test_passes_times_and_addresses_are_no_difference() -> None:
    assert parity.compare_logs(OUR_LOG, LINUX_LOG) is None


@pytest.mark.parametrize(
    ("old", "new"), [("R10=fp0", "R10=fp-8"), ("vs=8", "vs=16"), ("2: (95) exit\n", "")]
)
def test_another_state_is_a_difference(old: str, new: str) -> None:
    found = parity.compare_logs(OUR_LOG.replace(old, new), LINUX_LOG)
    assert found is not None
    assert found.part == "log"
    assert old.strip() in found.linux


# --- results, and all of it -------------------------------------------------


def test_results_are_compared_by_the_low_half_of_r0() -> None:
    linux = [Returned(7, b"ab"), Returned(8, b"ab")]
    same = {"jit": [Returned(0x5_0000_0007, b"ab"), Returned(8, b"ab")]}
    assert parity.compare_results(same, linux, None) is None
    for wrong in (Returned(9, b"ab"), Returned(8, b"aa")):
        found = parity.compare_results({"jit": [same["jit"][0], wrong]}, linux, None)
        assert isinstance(found, parity.Difference)
        assert found.where == "vector 1 on jit"
    said = parity.compare_results(
        {"jit": [Returned(7, b"ab", b"x")]}, [Returned(7, b"ab", b"y")], None
    )
    assert isinstance(said, parity.Difference)
    assert said.linux == "ring buffers hold 79"
    nothing = parity.compare_results({"jit": [Unknown("x"), Unknown("x")]}, linux, None)
    assert nothing == Unknown("x")


PROGRAM = Program("p", "syscall", "syscall", (Exit(),), (Subprogram("p", 0, 1),))
SUBJECT = parity.Subject("a.c", "-O2 -mcpu=v3 hidden", PROGRAM, (b"",))


def our_side(verdict: Any, processed: int = 1) -> parity.Ours:
    image = Image("x86_64", (SubImage("p", CODE, ()),))
    verification = Verification(verdict, OUR_LOG, processed)
    return parity.Ours(verification, PROGRAM, image, {"jit": [Returned(0, b"")]})


def linux_side(verdict: Any, **more: Any) -> KernelAnswer:
    from harness.legs.kernel import KernelImage

    told: dict[str, Any] = {
        "translated": codec.encode(PROGRAM.insns),
        "images": (KernelImage("p", 0, CODE),),
        "outcomes": (Returned(0, b""),),
        "processed": 1,
        "log": LINUX_LOG,
    }
    return KernelAnswer(verdict, **(told | more))


@pytest.mark.parametrize(
    ("mine", "theirs", "differ"),
    [
        (our_side(Accepted()), linux_side(Accepted()), set()),
        (our_side(Accepted()), linux_side(Rejected(0, "no")), {"verdict"}),
        (our_side(Rejected(3, "no")), linux_side(Rejected(0, "no")), set()),
        (our_side(Rejected(0, "yes")), linux_side(Rejected(0, "no")), {"message"}),
        (our_side(Accepted(), 2), linux_side(Accepted()), {"processed"}),
        (our_side(Accepted()), linux_side(Accepted(), translated=b"\0" * 8), {"translated"}),
        (our_side(Accepted()), linux_side(Accepted(), outcomes=(Returned(1, b""),)), {"results"}),
        (our_side(Accepted()), linux_side(Accepted(), log="x\n"), {"log"}),
        (our_side(Accepted()), linux_side(Crashed("BUG: NULL")), {"verdict"}),
        (our_side(Unknown("not modelled")), linux_side(Crashed("BUG: NULL")), {"verdict"}),
    ],
)
def test_each_part_is_compared(mine: Any, theirs: Any, differ: set[str]) -> None:
    found = parity.compare(SUBJECT, mine, theirs, log=True)
    assert {d.part for d in found.differences} == differ
    assert {part for part, state in found.parts.items() if state == "differs"} == differ
    whole = parity.Parity((found,), (), 1.0, (2.0,))
    assert whole.ok == (not differ)
    assert whole.same == (not differ)
    text = parity.parity_text(whole)
    row = parity.parity_json(whole)["programs"][0]
    assert [d["part"] for d in row["differences"]] == [d.part for d in found.differences]
    assert ("a.c p -O2" in text) == bool(differ)


@pytest.mark.parametrize(
    ("line", "broke"),
    [
        ("BUG: kernel NULL pointer dereference, address: 0000000000000050", True),
        ("Oops: general protection fault, probably for non-canonical address", True),
        ("kernel BUG at kernel/bpf/verifier.c:1!", True),
        ("Kernel panic - not syncing: System is deadlocked on memory", False),
        ("it ended", False),
    ],
)
def test_a_kernel_that_breaks_is_told_from_one_that_ends(line: str, broke: bool) -> None:
    assert (guest.OOPS.match(line) is not None) == broke


def test_what_linux_does_not_say_is_unknown() -> None:
    found = parity.compare(SUBJECT, our_side(Accepted()), linux_side(Unknown("no such kfunc")))
    assert found.parts["verdict"] == "unknown"
    assert found.whys == ("verdict: Linux: no such kfunc",)
    assert not found.differences


def test_known_differences_are_explained() -> None:
    found = parity.compare(SUBJECT, our_side(Accepted(), 2), linux_side(Accepted()))
    entry = Known("k", "parity", "open", "", source="a*", message="processed: *")
    explained = parity.explain(found, [entry])
    assert [d.known for d in explained.differences] == ["k"]
    assert parity.Parity((explained,), (), 1.0, ()).ok
    other = parity.explain(found, [Known("k", "parity", "open", "", message="image: *")])
    assert not parity.Parity((other,), (), 1.0, ()).ok


# --- cases beside Linux -----------------------------------------------------


@pytest.mark.parametrize(
    ("verify", "verdict", "outcomes", "failures"),
    [
        ("accept", Accepted(), [Returned(5, b"")], 0),
        ("accept", Accepted(), [Returned(6, b"")], 1),
        ("accept", Accepted(), [Unknown("")], 0),
        ("accept", Accepted(), [Trapped("kernel", "the guest died: BUG: NULL")], 1),
        ("accept", Accepted(), [OutOfFuel()], 1),
        ("accept", Rejected(0, "no"), [Unknown("")], 1),
        ("reject", Rejected(0, "no"), [], 0),
        ("reject", Rejected(0, "other"), [], 1),
        ("reject", Accepted(), [], 1),
        ("unknown", Rejected(0, "any"), [], 0),
        ("unknown", Crashed("BUG: NULL"), [], 1),
    ],
)
def test_cases_beside_linux(
    verify: str, verdict: Any, outcomes: list[Outcome], failures: int
) -> None:
    message = "no" if verify == "reject" else None
    case = Case(
        Path("x.toml"),
        verify=VerifyCheck(verify, message),
        runs=(RunCheck(b"", r0=0x1_0000_0005),) if verify == "accept" else (),
    )
    assert len(run.beside_linux(case, verdict, outcomes)) == failures


# --- the queue --------------------------------------------------------------


class FakeLeg:
    """Answers with the program's name, once it may."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []  # programs, log level
        self.may = threading.Event()

    def check(
        self,
        programs: Sequence[Program],
        _vectors: Any,
        *,
        log_level: int,
        images: bool,
        **_options: Any,
    ) -> list[KernelAnswer]:
        assert self.may.wait(10)
        assert not images
        self.asked.append((len(programs), log_level))
        if log_level == 1:
            raise HarnessError("no guest")
        return [
            KernelAnswer(Unknown(f"the kernel has no kfunc {p.name}"), outcomes=(Unknown(""),))
            for p in programs
        ]

    def close(self) -> None:
        self.may.set()


def test_what_waits_is_asked_together() -> None:
    leg: Any = FakeLeg()
    named = [(Program(name, "", "", (), ()), ()) for name in ("a", "b", "crosscheck_kfunc_c")]
    with KernelQueue(leg, without="no compiler") as queue:
        first = queue.submit(named[:1])
        while not queue._thread or queue._waiting:
            pass  # until it is being asked
        rest = [queue.submit([each]) for each in named[1:]]
        wrong = queue.submit(named, log_level=1)
        leg.may.set()
        whys = [a.verdict.why for f in (first, *rest) for a in f.result(10)]  # type: ignore[union-attr]
        assert whys == [
            "the kernel has no kfunc a",
            "the kernel has no kfunc b",
            "the kernel has no kfunc crosscheck_kfunc_c: no compiler",
        ]
        with pytest.raises(HarnessError, match="no guest"):
            wrong.result(10)
    assert leg.asked == [(1, 0), (2, 0), (3, 1)]


# --- BTF of a module --------------------------------------------------------


def btf_of(*names: str) -> Btf:
    types: list[Any] = [Void(), Int("int", 4, 1, 0, 32), Ptr(1), Struct("pair", 8, ())]
    for name in names:
        types.append(FuncProto(1, (Param("a", 1), Param("b", 2))))
        types.append(Func(name, len(types) - 1))
    return Btf(tuple(types))


def test_a_modules_btf_continues_the_kernels() -> None:
    kernel, module = btf_of("one", "two"), btf_of("three")
    base_types, base_strings = kernel_module.sections(encode(kernel))
    base = kernel_module.Base(len(kernel), len(base_strings), 0, 0, 0, "")
    types, strings = kernel_module.sections(kernel_module.split(encode(module), base))
    sizes = len(base_types) + len(types), len(base_strings) + len(strings)
    together = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, sizes[0], *sizes)
    whole = parse(together + base_types + types + base_strings + strings)
    assert len(whole) == len(kernel) + len(module) - 1
    found = {function.name: (number, proto) for number, function, proto in whole.functions()}
    assert found.keys() == {"one", "two", "three"}
    number, proto = found["three"]
    assert number == base.types - 1 + next(n for n, _, _ in module.functions())
    assert [p.name for p in proto.params] == ["a", "b"]
    pointer = whole.get(proto.params[1].type)
    assert isinstance(pointer, Ptr)
    assert whole.get(pointer.type) == Int("int", 4, 1, 0, 32)


def test_a_kernel_that_takes_no_modules() -> None:
    assert isinstance(kernel_module.examine(encode(btf_of("x")), b"\x7fELF"), Unknown)
    image = b"\0" + b"7.3.4 SMP preempt mod_unload " + b"\0"
    told = kernel_module.examine(encode(btf_of("x")), image)
    assert told == Unknown("the kernel's BTF has no struct module")


# --- subjects ---------------------------------------------------------------

CASE = """\
[source]
c = '''
long f(long a, long b, long c, long d, long e, long f) { return a - f; }
'''
opts = ["0", "2"]
"""
REFUSED = """\
[program]
asm = "exit"

[verify]
verdict = "reject"
kernel = "no-jit"
"""


def test_cases_in_c_give_their_builds(tmp_path: Path, compiler: Compiler) -> None:
    (tmp_path / "c.toml").write_text(CASE)
    (tmp_path / "no-jit.toml").write_text(REFUSED)
    settings = Settings((), (compiler,), legs=("jit",), vectors=4)
    subjects, missing = parity.case_subjects(tmp_path / "c.toml", settings)
    assert not missing
    assert [s.build for s in subjects] == ["-O0 -mcpu=v3 hidden", "-O2 -mcpu=v3 hidden"]
    assert all(len(s.vectors) == 4 and s.mask for s in subjects)
    assert parity.case_subjects(tmp_path / "no-jit.toml", settings) == ([], [])
    subjects, missing = parity.case_subjects(tmp_path / "none.toml", settings)
    assert not subjects
    assert "No such file" in missing[0]


def test_objects_give_their_programs(tmp_path: Path, compiler: Compiler) -> None:
    source = tmp_path / "p.c"
    source.write_text('__attribute__((section("syscall"), used)) int p(long *c) { return c[1]; }\n')
    built = run_compiler(compiler, ["--target=bpf", "-O2", "-g", "-c"], source=source)
    assert built.output
    (tmp_path / "p.o").write_bytes(built.output)
    settings = Settings((), (compiler,), legs=("interp", "jit"))
    (subject,), missing = parity.object_subjects(tmp_path / "p.o", settings)
    assert (subject.program.name, missing) == ("p", [])
    assert parity.split_paths([str(tmp_path / "p.o"), "x.c", str(tmp_path)]) == (
        ["x.c", str(tmp_path)],
        [tmp_path / "p.o"],
    )
    us = parity.ours(subject, settings, verifier.Options())
    assert isinstance(us.verification.verdict, Accepted)
    assert us.outcomes["jit"][0] == Returned(0, parity.PLAIN_CONTEXTS[0])
    (tmp_path / "bad.o").write_bytes(b"\x7fELF")
    subjects, missing = parity.object_subjects(tmp_path / "bad.o", settings)
    assert not subjects
    assert len(missing) == 1


# --- a real Linux -----------------------------------------------------------

SOURCE = """\
#include <crosscheck/kfuncs.h>

long seven(long a, long b, long c, long d, long e, long f, long g)
{
	return a + 3 * b + 5 * c + 7 * d + 11 * e + 13 * f + 1234567 * g;
}

long out(long a, long b, long c, long d, long e, long f, long g)
{
	return crosscheck_kfunc_u64x7(g, f, e, d, c, b, a) - g;
}
"""
HARNESS = Path(harness.__file__).parent


@pytest.fixture(scope="module")
def linux() -> None:
    """Skip where there is no Linux to ask, for one reason that is told."""
    try:
        find_qemu()
        find_kernel()
    except HarnessError as error:
        pytest.skip(str(error))


def crosscheck(*arguments: str, cwd: Path, python: Path | None = None) -> dict[str, Any]:
    environment = dict(os.environ)
    if python:
        environment["PYTHONPATH"] = str(python)
    done = subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    report["status"] = done.returncode
    return report


@pytest.mark.kernel
@pytest.mark.usefixtures("linux")
def test_parity_with_a_real_linux(tmp_path: Path, clang: Sequence[str]) -> None:
    (tmp_path / "s.c").write_text(SOURCE)
    report = crosscheck(
        "parity", "s.c", "--log", "--clang", clang[0], "--vectors", "4", "--json", cwd=tmp_path
    )
    assert len(report["programs"]) == 2 * len(run.DEFAULT_BUILDS)
    for program in report["programs"]:
        parts = program["parts"]
        assert parts["verdict"] == parts["processed"] == parts["results"] == "same", program
        assert parts["translated"] == parts["image"] == "same", program
        assert parts["log"] in ("same", "differs")
        assert program["verdicts"] == {"ours": "accept", "linux": "accept"}
    assert report["summary"]["boots"]


@pytest.mark.kernel
@pytest.mark.usefixtures("linux")
def test_a_wrong_verdict_and_a_wrong_jit_are_caught(tmp_path: Path, clang: Sequence[str]) -> None:
    (tmp_path / "s.c").write_text(SOURCE)
    shutil.copytree(
        HARNESS, tmp_path / "harness", ignore=shutil.ignore_patterns("__pycache__", "tests")
    )
    pipeline = tmp_path / "harness" / "pipeline.py"
    text = pipeline.read_text()
    told = "    verdict = verification.verdict\n"
    old = told + "    base = Check(planned.source, name,"
    assert text.count(old) == 1
    lie = '    verdict: Verdict = Rejected(0, "a lie") if name == "out" else Accepted()\n'
    pipeline.write_text(text.replace(old, old.replace(told, lie)))
    jit = tmp_path / "harness" / "jit" / "x86_64.py"
    right = "self.bottom - off - 2 * SLOT_SIZE"
    assert jit.read_text().count(right) == 1
    jit.write_text(jit.read_text().replace(right, "self.bottom - off - 3 * SLOT_SIZE"))
    report = crosscheck(
        *("run", "s.c", "--clang", clang[0], "--vectors", "8", "--legs", "jit,kernel"),
        *("-O", "2", "--mcpu", "v4", "--linkage", "hidden", "--json", "-"),
        cwd=tmp_path,
        python=tmp_path,
    )
    assert report["status"] == 1
    legs = {(d["function"], *d["legs"]) for d in report["divergences"]}
    assert legs == {("out", "verifier", "kernel"), ("seven", "jit", "kernel")}
    (verdicts,) = (d for d in report["divergences"] if d["function"] == "out")
    assert [o["outcome"] for o in verdicts["outcomes"]] == ["rejected", "accepted"]


def test_what_follows_the_report_in_prose_is_kept() -> None:
    log = (
        "3: (95) exit\nUnreleased reference id=2 alloc_insn=1\n\nVerification failed: Resource\n"
        "\nReason:\n  Owned.\n\nSuggestion:\n  Release it.\n\n"
        "BPF_EXIT instruction in main prog would lead to reference leak\nprocessed 4 insns\n"
    )
    assert parity.states(log) == [
        "3: (95) exit",
        "Unreleased reference id=2 alloc_insn=1",
        "BPF_EXIT instruction in main prog would lead to reference leak",
        "processed 4 insns",
    ]
