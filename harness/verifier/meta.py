"""What the arguments of one call tell each other (``bpf_call_arg_meta``)."""

from __future__ import annotations

from typing import Any, Protocol

from harness.verifier.env import Env, NotModelled
from harness.verifier.refs import referenced
from harness.verifier.state import Reg


class Noted(Protocol):
    """What objects among the arguments note, of helpers and kernel functions."""

    map: Reg | None
    dynptr: Reg | None

    @property
    def ref_id(self) -> int:
        """The id of the one argument that is a reference, 0: none."""
        ...


class Meta:
    """Filled argument by argument, read when all of them are checked."""

    def __init__(self) -> None:
        self.map: Reg | None = None  # a pointer to it: the map and its uid
        self.subprog = 0
        self.const_key: int | None = None
        self.raw_reg = 0  # register of memory that the helper fills
        self.raw: list[int] = [0]  # its size
        self.size_max = 0
        self.release = 0  # register whose reference is given back
        self.ref: Reg | None = None  # the referenced argument
        self.ref_count = 0
        self.dynptr: Reg | None = None
        self.mem_size: int | None = None  # of memory that is returned
        self.percpu: Reg | None = None  # a per-CPU pointer, which the result belongs to
        self.kptr: Any = None  # field that a pointer is exchanged with

    def note_reference(self, env: Env, reg: Reg) -> None:
        """Remember an argument that holds a reference (``update_ref_obj``)."""
        if reg.id and referenced(env.state, reg.id):
            self.ref = reg
            self.ref_count += 1

    @property
    def ref_id(self) -> int:
        """The id of the one referenced argument, 0: none (``validate_ref_obj``)."""
        if self.ref_count > 1:
            raise NotModelled("verifier bug: function expects only one referenced object")
        return self.ref.id if self.ref is not None else 0
