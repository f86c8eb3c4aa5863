"""A compiler as a value."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

Source = Literal["option", "environment", "path", "fetched"]


@dataclass(frozen=True, slots=True)
class Compiler:
    """A clang that was found, and what it can do."""

    command: tuple[str, ...]  # argv prefix
    name: str  # as the user named it, or the program's name
    version: str  # "23.1.4"
    stack_arguments: bool  # defines __BPF_FEATURE_STACK_ARGUMENT for --target=bpf
    source: Source  # how it was found
    limited: bool = True  # starts under a memory limit; a sanitized clang does not

    def __str__(self) -> str:
        return self.name

    @property
    def shell(self) -> str:
        """The command as one types it."""
        return shlex.join(self.command)
