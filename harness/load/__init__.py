"""From object bytes to linked programs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.load.errors import LoadError
    from harness.load.linking import Refused
    from harness.load.objects import NAMES_FILLED, Object, load_object
    from harness.load.raw import raw_program

__all__ = ["NAMES_FILLED", "LoadError", "Object", "Refused", "load_object", "raw_program"]

_HOMES = {
    "NAMES_FILLED": "objects",
    "LoadError": "errors",
    "Object": "objects",
    "Refused": "linking",
    "load_object": "objects",
    "raw_program": "raw",
}


def __getattr__(name: str) -> Any:
    """Import on first use: pyelftools takes long, and raw programs do without."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
