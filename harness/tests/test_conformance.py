from collections import defaultdict
from typing import Any

import pytest

from harness.isa.forms import form_name, forms
from harness.isa.insn import High, Raw
from harness.legs.conformance import NOT_EXECUTED, Check, check_leg, checks
from harness.legs.interp import InterpLeg
from harness.legs.jit import JitLeg
from harness.model import Accepted, Outcome, Rejected, Returned, Runner, Trapped, Unknown
from harness.verifier import fixup, verify

CHECKS = tuple(checks())
GROUPS: dict[str, list[Check]] = defaultdict(list)
for _check in CHECKS:
    GROUPS["_".join(_check.name.split("_")[:2])].append(_check)

# A fuel that all terminating checks fit in, so that the endless ones end soon
LEGS: dict[str, Any] = {"interp": InterpLeg(fuel=10_000), "jit": JitLeg(patience=0.05)}


@pytest.mark.parametrize("leg", LEGS)
@pytest.mark.parametrize("group", GROUPS)
def test_leg_does_what_the_specification_says(leg, group):
    wrong = [
        line
        for check in GROUPS[group]
        if leg == "interp" or not check.fixups
        for line in check_leg(LEGS[leg].prepare, check)
    ]
    assert not wrong, "\n".join(wrong)


NEED_FIXUPS = [check for check in CHECKS if check.fixups]


@pytest.mark.parametrize("check", NEED_FIXUPS, ids=lambda check: check.name)
def test_fixups_make_the_image_right(check):
    wrong = check_leg(lambda program: LEGS["jit"].prepare(fixup(program)), check)
    assert not wrong


def test_without_fixups_a_division_by_zero_traps():
    guarded = [c for c in NEED_FIXUPS if "guarded_reg" in c.name]
    assert len(guarded) == 8
    for check in guarded:
        outcomes = LEGS["jit"].prepare(check.program).run([vector for vector, _ in check.runs])
        assert {o.kind for o in outcomes if isinstance(o, Trapped)} == {"divide"}, check.name


SAMPLE = [c for c in CHECKS if not c.name.startswith("registers_")]
SAMPLE += [c for c in CHECKS if c.name.startswith("registers_")][::13]


def test_verifier_accepts_what_ends_well_and_refuses_the_rest():
    wrong = []
    for check in SAMPLE:
        verdict = verify(check.program).verdict
        ends = check.name == "trap_write_behind_context" or all(
            isinstance(outcome, Returned) for _, outcome in check.runs
        )
        if not isinstance(verdict, Accepted if ends else Rejected):
            wrong.append(f"{check.name}: {verdict}")
    assert not wrong, "\n".join(wrong)


def test_names_are_unique():
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)


def test_every_form_is_reached_or_has_a_reason():
    reached = {
        form_name(insn)
        for check in CHECKS
        for insn in check.program.insns
        if not isinstance(insn, High | Raw)
    }
    missing = {form_name(insn) for insn in forms()} - reached
    assert {name for name in missing if not name.startswith(tuple(NOT_EXECUTED))} == set()
    assert {name for name in reached if name.startswith(tuple(NOT_EXECUTED))} == set()


class _Altered:
    """A runner whose outcomes go through *alter*."""

    def __init__(self, runner, alter):
        self.runner, self.alter = runner, alter

    def run(self, vectors):
        return [self.alter(outcome) for outcome in self.runner.run(vectors)]


def _altered(alter):
    def prepare(program) -> Runner | Unknown:
        return _Altered(LEGS["interp"].prepare(program), alter)

    return prepare


@pytest.mark.parametrize(
    "alter",
    [
        lambda o: Returned(o.r0 ^ 1, o.ctx) if isinstance(o, Returned) else o,
        lambda o: Returned(o.r0, o.ctx + b"x") if isinstance(o, Returned) else o,
        lambda _: Trapped("divide"),
        lambda _: Unknown("no"),
    ],
    ids=["r0", "context", "trap", "unknown"],
)
def test_kit_notices_a_leg_that_is_wrong(alter):
    for check in CHECKS[::50]:
        assert check_leg(_altered(alter), check), check.name


def test_kit_notices_a_leg_that_does_not_prepare():
    assert check_leg(lambda _: Unknown("cannot"), CHECKS[0])[0].endswith("cannot")


def test_kit_notices_what_one_vector_leaves_to_the_next():
    class Leaky:
        def __init__(self) -> None:
            self.count = 0

        def run(self, vectors) -> list[Outcome]:
            self.count += 1
            return [
                outcome if self.count == 1 else Returned(1 << 63, b"")
                for vector in vectors
                for known, outcome in check.runs
                if known == vector
            ]

    check = next(c for c in CHECKS if len(c.runs) > 1 and len({v for v, _ in c.runs}) > 1)
    assert check_leg(lambda _: Leaky(), check)
