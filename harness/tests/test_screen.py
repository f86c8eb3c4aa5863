"""The live screen of a campaign."""

from __future__ import annotations

import io

from rich.console import Console

from harness import screen
from harness.grow.summary import Summary


def test_it_shows_rates_features_and_buckets():
    now = Summary(
        seed=7,
        programs=10,
        builds=20,
        vectors=640,
        outcomes={"agree": 18, "rejected": 2},
        refusals={},
        features=300,
        kept=2,
        buckets={"diverge: [x]": (3, "f.json", None), "rejected: y": (2, "", "an entry")},
        lost=1,
        seconds=75.0,
        rate=1.5,
        why_lost="[planted]",
    )
    console = Console(file=io.StringIO(), width=100)
    console.print(screen.render(now, 600.0, None))
    text = console.file.getvalue()
    for part in ("1:15 of 10:00", "1.5 a second", "90.0%", "diverge: [x]", "(known: an entry)"):
        assert part in text
    assert "[planted]" in text


def test_a_curve_grows_with_its_values():
    assert screen.curve([]) == ""
    assert screen.curve([0, 50, 100]) == "▁▅█"
    assert len(screen.curve(list(range(1000)))) <= screen.WIDTH


def test_nothing_is_shown_where_there_is_no_terminal():
    with screen.campaign(60.0, None) as show:
        show(None)
