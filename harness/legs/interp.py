"""The ``interp`` leg: the reference interpreter, one vector after the other."""

from __future__ import annotations

from collections.abc import Sequence

from harness.interp import FUEL, Interpreter
from harness.model import Outcome, Program, Runner, Unknown, Vector


class InterpRunner:
    """A program on the reference interpreter."""

    def __init__(self, program: Program, fuel: int) -> None:
        self._interpreter = Interpreter(program)
        self._fuel = fuel

    def run(self, vectors: Sequence[Vector]) -> list[Outcome]:
        """Return one outcome for each of *vectors*, in order."""
        return [self._interpreter.run(vector, fuel=self._fuel) for vector in vectors]


class InterpLeg:
    """The reference interpreter; takes programs as loaded, before fix-ups."""

    name = "interp"

    def __init__(self, fuel: int = FUEL) -> None:
        self._fuel = fuel  # instructions a vector

    def prepare(self, program: Program) -> Runner | Unknown:
        """Return a runner of *program*; what is not modelled shows when it is reached."""
        return InterpRunner(program, self._fuel)
