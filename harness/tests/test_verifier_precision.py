"""Walks for precision: those that end early mark what whole ones mark."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from harness.model import Program
from harness.tests.programs import program
from harness.tests.streams import PROGRAMS, examples
from harness.verifier.check import explore

LOOP = """
r6 = *(u16 *)(r1 + 0)
r7 = 0
again:
r7 += 1
r6 += 3
if r6 & 1 goto odd
r6 += r7
odd:
if r7 < 40 goto again
r0 = r6
exit
"""


def same(subject: Program) -> None:
    """At log level 2 every walk is a whole one, for each step of it is shown."""
    (one, quick), (other, whole) = (explore(subject, log_level=level) for level in (0, 2))
    assert quick.verdict == whole.verdict
    assert quick.processed == whole.processed
    assert (one.total_states, one.max_states) == (other.total_states, other.max_states)


def test_a_loop() -> None:
    same(program(LOOP))


@settings(deadline=None, max_examples=examples(40), suppress_health_check=list(HealthCheck))
@given(PROGRAMS)
def test_any_program(subject: Program) -> None:
    same(subject)
