"""The gate: what no case file reaches shows here.

Each form of instruction must be in a program that a case runs, or be what a case expects to
be refused; each form of the x86 encoder must be in an image that a case runs or compares;
each refusal of stack arguments must be expected by a case. What cannot be reached from a
case file is listed with the reason, and the list is strict: what is reached is not on it.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import harness
from harness import corpus, pipeline, run, verifier
from harness.corpus import Case
from harness.isa.forms import ALL_FORMS, form_name
from harness.isa.insn import High, Insn
from harness.model import Accepted, Program, Returned

CORPUS = Path(harness.__file__).parent.parent / "corpus"

# fmt: off
UNREACHED_FORMS = {
    # form                              why no case can reach it
    "bf_percpuaddr":                    "kernel-internal: only fix-ups make it",
    "18_loadimm_btf_id":                "which variables there are only a kernel says",
    "18_loadimm_map_fd":                "file descriptors are of a running kernel",
    "18_loadimm_map_value":             "file descriptors are of a running kernel",
    "0d_gotox":                         "jump tables are not modelled",
}

_ATOMICS = ("ADD", "OR", "AND", "XOR", "XADD", "CMPXCHG")
_ARENA = "accesses to an arena are kernel-internal instructions, which only fix-ups make"
UNREACHED_ENCODINGS = {
    # form                              why no image of a case holds it
    "ADD_rg":                           "per-CPU addresses and private stacks are the kernel's",
    **dict.fromkeys(("MOV_rx", "MOV_xr", "MOV_xi", "MOV32_rx", "MOV32_xr", "MOV32_xi"), _ARENA),
    **dict.fromkeys(("MOV16_xr", "MOV16_xi", "MOV8_xr", "MOV8_xi"), _ARENA),
    **dict.fromkeys(("MOV32ZX8_rx", "MOV32ZX16_rx"), _ARENA),
    **dict.fromkeys(("MOVSX8_rx", "MOVSX16_rx", "MOVSX32_rx"), _ARENA),
    **dict.fromkeys((f"LOCK_{op}_xr" for op in _ATOMICS), _ARENA),
    **dict.fromkeys((f"LOCK_{op}32_xr" for op in _ATOMICS), _ARENA),
    **dict.fromkeys(("XCHG_xr", "XCHG32_xr"), _ARENA),
}

REFUSALS = (
    # STACK_ARGS.md: rules and messages
    r"R11 is invalid",
    r"stack arg write offset -\d+ exceeds max 7 stack args",
    r"r11 load must be before any r11 store or call insn",
    r"invalid read from stack arg off \d+ depth \d+",
    r"callee expects \d+ args, stack arg\d+ is not initialized",
    r"func#\d+ writes \d+ stack arg slots, but calls only require \d+",
    r"global function \w+ has \d+ > 5 args, stack args not supported",
    r"kernel supports at most 12 parameters, function \w+ has \d+",
    r"tail_calls are not allowed in programs with stack args",
    r"stack args are not supported in non-JITed programs",
    r"JIT does not support function \w+\(\) with \d+ args",
    r"freplace programs with >5 args not supported yet",
)
# fmt: on


@cache
def cases() -> tuple[Case, ...]:
    return tuple(map(corpus.read, corpus.find([CORPUS])))


def programs() -> Iterator[tuple[Case, Program]]:
    for case in cases():
        if case.program is not None:
            yield case, corpus.program(case.program, case.name)


def test_every_case_says_why_it_is_kept_and_checks_something() -> None:
    assert len(cases()) > 100
    for case in cases():
        assert case.note.strip(), case.path
        assert case.verify or case.jit or case.runs or case.source, case.path
        if case.program is not None:
            assert case.verify is not None, case.path


def test_no_two_cases_test_the_same() -> None:
    assert [[c.name for c in group] for group in corpus.duplicates(cases())] == []


GROWN = r"grown-\d+-\d+(-\d+)?"  # a campaign's seed, and the number of the program


def test_every_case_is_named_by_its_theme() -> None:
    for case in cases():
        ours = r"[a-z][a-z0-9]*(_[a-z0-9]+)+"
        assert re.fullmatch(GROWN if case.path.parent.name == "grown" else ours, case.name)


@pytest.mark.parametrize("number", range(0, 180, 20))
def test_bless_of_a_case_that_passes_changes_nothing(number: int, tmp_path: Path) -> None:
    case = [case for case in cases() if case.program][number]
    copy = tmp_path / case.path.name
    copy.write_bytes(case.path.read_bytes())
    assert not pipeline.bless_case(corpus.read(copy), None)
    assert copy.read_bytes() == case.path.read_bytes()


# --- the first design -----------------------------------------------------------


def twins() -> list[tuple[Case, Case]]:
    named = {case.name: case for case in cases()}
    return [(named[n.removesuffix("_r12")], c) for n, c in named.items() if n.endswith("_r12")]


@pytest.mark.parametrize(("merged", "first"), twins(), ids=lambda case: case.name)
def test_both_designs_mean_the_same(merged: Case, first: Case) -> None:
    assert merged.program is not None
    assert first.program is not None
    assert (merged.program.dialect, first.program.dialect) == ("r11", "r12")
    assert "r11" not in re.sub(r"#.*", "", first.program.asm)
    assert merged.runs == first.runs
    # the name of main is in the log, and is the case's
    ours = pipeline.observe(replace(merged, jit={"x86_64": {}}))
    theirs = pipeline.observe(replace(first, path=merged.path, jit={"x86_64": {}}))
    assert ours == theirs


# --- what is reached ------------------------------------------------------------


def test_every_form_of_instruction_is_in_a_case() -> None:
    reached: set[str] = set()
    for case, program in programs():
        insns: list[Insn] = []
        if case.runs:
            insns += program.insns
        elif case.verify and case.verify.verdict == "reject" and case.verify.insn is not None:
            insns.append(program.insns[case.verify.insn])
        reached |= {form_name(insn) for insn in insns if not isinstance(insn, High)}
    forms = {form_name(form) for form in ALL_FORMS}
    assert sorted(forms - reached - UNREACHED_FORMS.keys()) == []
    assert sorted(reached & UNREACHED_FORMS.keys()) == []


def test_every_form_of_the_encoder_is_in_an_image(used: tuple[set[str], set[str]]) -> None:
    public, reached = used
    assert sorted(public - reached - UNREACHED_ENCODINGS.keys()) == []
    assert sorted(reached & UNREACHED_ENCODINGS.keys()) == []


@pytest.fixture(scope="module")
def used() -> tuple[set[str], set[str]]:
    """The public forms of the encoder, and those that the images of the cases need."""
    inputs = [verifier.fixup(program) for case, program in programs() if case.runs or case.jit]
    with_recorders: dict[str, ModuleType] = {}
    before = {name: module for name, module in sys.modules.items() if is_jit(name)}
    for name in before:
        del sys.modules[name]
    reached: set[str] = set()
    try:
        encoder = importlib.import_module("harness.jit.x86_encoder")
        public = {name for name in vars(encoder) if name[0].isupper() and "_" in name}
        for name in public:
            setattr(encoder, name, recorder(name, getattr(encoder, name), reached))
        jit = importlib.import_module("harness.jit.x86_64")
        for program in inputs:
            jit.compile(program)
    finally:
        for name in [name for name in sys.modules if is_jit(name)]:
            with_recorders[name] = sys.modules.pop(name)
        sys.modules.update(before)
        harness.jit = before["harness.jit"]
    assert with_recorders.keys() & before.keys()
    return public, reached


def is_jit(name: str) -> bool:
    return name == "harness.jit" or name.startswith("harness.jit.")


def recorder(name: str, form: Callable[..., bytes], reached: set[str]) -> Callable[..., bytes]:
    def record(*operands: Any) -> bytes:
        reached.add(name)
        return form(*operands)

    return record


@pytest.mark.parametrize("pattern", REFUSALS)
def test_every_refusal_of_stack_arguments_is_in_a_case(pattern: str) -> None:
    messages = [c.verify.message for c in cases() if c.verify and c.verify.verdict == "reject"]
    assert any(message and re.fullmatch(pattern, message) for message in messages)


def test_what_only_linux_runs_is_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "endless.toml"
    path.write_text(
        "[program]\nasm = '''\nr0 = 0\nagain:\nmay_goto out\ngoto again\nout:\nexit\n'''\n"
        '[verify]\nverdict = "accept"\n[[run]]\nr0 = "0x7"\nlegs = ["kernel"]\n'
    )
    case = corpus.read(path)
    assert pipeline.check_case(case, None) == []
    assert not pipeline.bless_case(case, None)
    assert run.beside_linux(case, Accepted(), [Returned(7, b"")]) == []
    assert len(run.beside_linux(case, Accepted(), [Returned(8, b"")])) == 1
