"""A triage as one HTML page that needs nothing else."""

from __future__ import annotations

from harness.triage.session import Triage


def page(result: Triage) -> str:
    """Return the page."""
    return "<!doctype html>" + result.subject.c
