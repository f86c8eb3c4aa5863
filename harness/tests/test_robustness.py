"""Whatever comes in, every stage ends with a value: damaged objects, and any instructions.

``CROSSCHECK_EXAMPLES=10000`` makes it as many of each.
"""

from __future__ import annotations

import contextlib
import random
import struct
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import pipeline, verifier
from harness.interp import interpret
from harness.isa.codec import decode, encode
from harness.jit import x86_64
from harness.legs import kfuncs
from harness.legs.kernel_raw import with_btf
from harness.load import LoadError, load_object, raw_program
from harness.model import (
    BuildConfig,
    HarnessError,
    Image,
    OutOfFuel,
    Program,
    Rejected,
    Returned,
    Trapped,
    Unknown,
)
from harness.tests.programs import ARRAY, DATA, HASH, PROG_ARRAY
from harness.tests.streams import CODE, END, PROGRAMS, TYPES, examples
from harness.toolchain import Compiler

ROOT = Path(__file__).parents[2]
SOURCES = ("chains", "tables", "globals", "by_value", "calls/maps", "calls/kfuncs")
PATIENCE = 60.0  # seconds of processor time for one example: more is a hang
BUDGET = 20_000  # instructions the verifier looks at
MOST = 4  # programs of one object
CONTEXT = bytes(range(256)) * 2
EVERYTHING = settings(
    deadline=None, max_examples=examples(60), suppress_health_check=list(HealthCheck)
)


def through_all_stages(subject: Program, level: int = 0) -> None:
    """Verify, rewrite, compile and run *subject*; whatever it is, each answers with a value."""
    options = verifier.Options(budget=BUDGET)
    found, fixed = verifier.translate(subject, log_level=level, options=options)
    verdict = found.verdict
    if isinstance(verdict, Unknown):
        assert not verdict.why.startswith("internal: "), verdict.why
    if isinstance(verdict, Rejected):
        assert isinstance(verdict.message, str)
    if isinstance(fixed, Program):
        assert isinstance(x86_64.compile(fixed), Image | Unknown)
    # what is refused comes to the other stages, too, where somebody asks for it
    with contextlib.suppress(HarnessError):  # a jump that no longer reaches
        assert isinstance(x86_64.compile(verifier.fixup(subject)), Image | Unknown)
    outcome = interpret(subject, CONTEXT, fuel=2_000)
    assert isinstance(outcome, Returned | Trapped | OutOfFuel | Unknown)


def in_time(subjects: Sequence[Program], level: int = 0) -> None:
    began = time.process_time()
    for subject in subjects:
        through_all_stages(subject, level)
    assert time.process_time() - began < PATIENCE


@pytest.fixture(scope="module")
def objects(compiler: Compiler) -> list[bytes]:
    config = BuildConfig(compiler.name, "2", "v4", "static")
    chosen = pipeline.Settings((config,), (compiler,), legs=("interp",))
    found = []
    for name in SOURCES:
        planned = pipeline.plan(ROOT / f"c_sources/{name}.c", name, chosen)
        built = pipeline.compile_build(planned, config, chosen)
        assert built.data
        assert load_object(built.data).programs
        found.append(built.data)
    return found


def areas(whole: bytes) -> list[tuple[int, int]]:
    """Return where each section with anything but debug information lies, and the headers."""
    (table,) = struct.unpack_from("<Q", whole, 0x28)
    count, names = struct.unpack_from("<HH", whole, 0x3C)
    rows = [struct.unpack_from("<IIQQQQ", whole, table + 64 * n) for n in range(count)]
    found = [(table, table + 64 * count)]
    for name, kind, _, _, start, size in rows:
        at = rows[names][4] + name
        if kind not in (0, 8) and size and not whole[at:].startswith((b".debug", b".rel.debug")):
            found.append((start, start + size))
    return found


def damaged(seed: int, whole: bytes) -> bytes:
    """Return *whole* with bits or words changed or copied, and sometimes cut off."""
    chance = random.Random(seed)
    changed = bytearray(whole)
    places = areas(whole)
    for _ in range(chance.randint(1, 6)):
        start, end = chance.choice(places) if chance.random() < 0.95 else (0, len(whole))
        at = chance.randrange(start, end)
        width = chance.choice((1, 1, 2, 4, 8))
        match chance.choice(("bit", "word", "word", "copy")):
            case "bit":
                changed[at] ^= 1 << chance.randrange(8)
            case "word":
                usual = (0, 1, 2, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
                value = chance.choice((*usual, chance.randrange(len(changed))))
                patch = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
                changed[at : at + width] = patch[: len(changed) - at]
            case "copy":
                other = chance.randrange(start, end)
                piece = changed[other : other + 8 * width]
                changed[at : at + len(piece)] = piece[: len(changed) - at]
    if chance.random() < 0.03:
        return bytes(changed[: chance.randrange(len(changed))])
    return bytes(changed)


@EVERYTHING
@given(st.integers(0, len(SOURCES) - 1), st.integers(0, (1 << 64) - 1))
def test_a_damaged_object(objects: list[bytes], compiler: Compiler, number: int, seed: int) -> None:
    changed = damaged(seed, objects[number])
    try:
        programs = load_object(changed).programs
    except LoadError:
        return
    start = seed % max(len(programs), 1)
    in_time(kfuncs.attach(programs[start : start + MOST], compiler))


@EVERYTHING
@given(CODE, TYPES, st.integers(0, 2), st.booleans(), st.booleans())
def test_any_instructions(code: bytes, kind: str, level: int, ends: bool, typed: bool) -> None:
    subject = raw_program(code + END if ends else code)
    subject = replace(subject, type=kind, maps=(HASH, DATA, PROG_ARRAY))
    in_time([with_btf(subject) if typed else subject], level)


@EVERYTHING
@given(PROGRAMS, st.data())
def test_good_instructions_with_some_bits_changed(subject: Program, data: st.DataObject) -> None:
    code = bytearray(encode(subject.insns))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(code) - 1))
        code[place] ^= 1 << data.draw(st.integers(0, 7))
    in_time([replace(subject, insns=decode(bytes(code)), maps=(HASH, ARRAY, DATA))])
