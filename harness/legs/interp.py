"""The ``interp`` leg: the reference interpreter, one vector after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.interp import CONVERTED_CONTEXTS, FUEL, HELPERS, Interpreter, Places
from harness.legs.kfunc_models import KFUNCS
from harness.model import Outcome, OutOfFuel, Program, Runner, Unknown, Vector

MAX_OUT_OF_FUEL = 16  # vectors of one batch, then the rest is not tried


class InterpRunner:
    """A program on the reference interpreter."""

    def __init__(self, program: Program, fuel: int) -> None:
        self._interpreter = Interpreter(program, HELPERS, KFUNCS)
        self._fuel = fuel

    def over(self, vector: Vector, stacks: Iterable[bytes]) -> list[Outcome]:
        """Return what it does on *vector* over each of *stacks*: a frame's unwritten bytes."""
        run = self._interpreter.run
        return [run(vector, fuel=self._fuel, stack=stack) for stack in stacks]

    def at(self, vector: Vector, places: Places) -> Outcome:
        """Return what it does on *vector* where its memory lies at *places*."""
        return self._interpreter.run(vector, fuel=self._fuel, places=places)

    def run(self, vectors: Sequence[Vector]) -> list[Outcome]:
        """Return one outcome for each of *vectors*, in order."""
        outcomes: list[Outcome] = []
        out_of_fuel = 0
        for vector in vectors:
            if out_of_fuel == MAX_OUT_OF_FUEL:
                why = f"not tried: {MAX_OUT_OF_FUEL} vectors before it ran out of fuel"
                outcomes.append(Unknown(why))
                continue
            outcome = self._interpreter.run(vector, fuel=self._fuel)
            out_of_fuel += isinstance(outcome, OutOfFuel)
            outcomes.append(outcome)
        return outcomes


class InterpLeg:
    """The reference interpreter; takes programs as loaded, before fix-ups."""

    name = "interp"

    def __init__(self, fuel: int = FUEL) -> None:
        self._fuel = fuel  # instructions a vector

    def prepare(self, program: Program) -> Runner | Unknown:
        """Return a runner of *program*; most of what is not modelled shows when it is reached."""
        if program.type in CONVERTED_CONTEXTS:
            return Unknown(f"contexts of type {program.type} are not modelled")
        return InterpRunner(program, self._fuel)
