"""What came up in a verification, for campaigns to measure coverage by; and the budget."""

from __future__ import annotations

from harness import verifier
from harness.corpus import ProgramText, program
from harness.model import Accepted, Unknown

SPILLS = """
    *(u64 *)(r10 - 8) = r1
    r2 = *(u64 *)(r10 - 8)
    r3 = *(u32 *)(r2 + 0)
    if r3 > 7 goto out
    r3 += 1
out:
    r0 = 0
    exit
"""


def test_spills_fills_and_branches_are_events():
    seen = verifier.verify(program(ProgramText(SPILLS), "p"), log_level=0)
    assert isinstance(seen.verdict, Accepted)
    kinds = {event.split()[0] for event in seen.events}
    assert {"spill", "fill", "branch"} <= kinds
    assert any(event.endswith("None") for event in seen.events if event.startswith("branch"))


def test_a_budget_says_unknown_where_linux_would_go_on():
    options = verifier.Options(budget=3)
    seen = verifier.verify(program(ProgramText(SPILLS), "p"), log_level=0, options=options)
    assert isinstance(seen.verdict, Unknown)
    assert "budget" in seen.verdict.why
