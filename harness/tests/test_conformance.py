from collections import defaultdict

import pytest

from harness.isa.forms import form_name, forms
from harness.isa.insn import High, Raw
from harness.legs.conformance import NOT_EXECUTED, Check, check_leg, checks
from harness.legs.interp import InterpLeg
from harness.legs.jit import JitLeg
from harness.model import Outcome, Returned, Runner, Trapped, Unknown

CHECKS = tuple(checks())
GROUPS: dict[str, list[Check]] = defaultdict(list)
for _check in CHECKS:
    GROUPS["_".join(_check.name.split("_")[:2])].append(_check)

# A fuel that all terminating checks fit in, so that the endless ones end soon
LEGS = {"interp": InterpLeg(fuel=10_000), "jit": JitLeg(patience=0.05)}


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


@pytest.mark.parametrize(
    "check", [c for c in CHECKS if "guarded" in c.name], ids=lambda check: check.name
)
def test_unguarded_division_traps_in_the_image(check):
    runner = LEGS["jit"].prepare(check.program)
    for outcome in runner.run([vector for vector, _ in check.runs]):
        assert isinstance(outcome, Returned) or outcome.kind == "divide"
    assert any(isinstance(o, Trapped) for o in runner.run([v for v, _ in check.runs])) or (
        "mod" in check.name  # -1 as an immediate
    )


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
