"""Buckets: the signature that findings of one cause share, as far as one can tell.

A construct that is known to trouble compilers is named only where it is the whole
explanation: ``narrow_slots`` runs the object's code again with that one thing mended, and it
must then do what the native builds do. ``refusals`` does the like for what is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations
from typing import Any

from harness import verifier
from harness.btf import Btf, Int
from harness.compare import agree
from harness.grow.constructs import CONSTRUCTS
from harness.grow.features import general
from harness.grow.refusals import explain
from harness.grow.refused import Origin, Runs
from harness.interp import HELPERS, UNDEFINED, Interpreter
from harness.isa.insn import Load
from harness.isa.stack_args import REG_ARGS, incoming_slot
from harness.legs.kfunc_models import KFUNCS
from harness.model import (
    Accepted,
    Divergence,
    Mask,
    Outcome,
    Program,
    Rejected,
    Returned,
    Subprogram,
    Trapped,
    Unknown,
)
from harness.pipeline import Check, execute

NARROW = "narrow signed argument in a slot"
FORGOTTEN = "a slot whose value Linux forgets to need"
MANY = 4  # differences that are not explained by chance
BEHIND = "and then: "  # in a bucket: what nothing explains, behind what something does


def bucket(check: Check, constructs: Sequence[str] = ()) -> str:
    """Return the bucket of *check*, which did not agree; *constructs* explain it."""
    config = check.config
    if check.outcome != "diverge" or not check.divergences:
        return ", ".join([f"{check.outcome}: {general(check.detail)}", *constructs])
    first = check.divergences[0]
    if "verifier" in first.legs:
        return f"diverge: {general(check.detail)}"
    legs = sorted({leg.partition("-")[0] for leg in first.legs})
    kinds = sorted({_word(outcome) for outcome in first.outcomes})
    parts = ["-".join(legs), "/".join(kinds)]
    if config is not None:
        parts.append("unoptimised" if config.opt == "0" else "optimised")
        wide = config.mcpu < "v3"
        parts.append("64-bit registers" if wide else "32-bit registers")
    return "diverge: " + ", ".join([*parts, _effect(first), *constructs])


def _word(outcome: Any) -> str:
    if isinstance(outcome, Trapped):
        return f"trapped {outcome.kind}"
    return type(outcome).__name__.lower()


def _effect(first: Divergence) -> str:
    """Return what differs: r0, the context, or what was submitted to a ring buffer."""
    a, b = first.outcomes
    if first.offset is not None:
        return "context"
    if isinstance(a, Returned) and isinstance(b, Returned) and a.r0 == b.r0:
        return "effects"
    return "r0" if isinstance(a, Returned) and isinstance(b, Returned) else "end"


# --- constructs, confirmed ------------------------------------------------------------


def refused_for(program: Program, refusal: Rejected, origin: Origin, runs: Runs) -> list[str]:
    """Return the constructs that explain *refusal*, by experiment, as a bucket names them.

    All that had to be mended, each once; where another refusal is behind them that nothing
    explains, that one instead.
    """
    found = explain(program, refusal, origin, runs)
    if found.left:
        return [f"{BEHIND}{general(found.left)}"] if found.constructs else []
    return list(dict.fromkeys(found.constructs))


def apart(bucket: str) -> list[str]:
    """Return what the bucket of a refusal would be with each of its constructs alone."""
    named: list[str] = []
    while word := next((word for word in CONSTRUCTS if bucket.endswith(f", {word}")), ""):
        bucket = bucket.removesuffix(f", {word}")
        named.insert(0, word)
    return [f"{bucket}, {word}" for word in named] or [bucket]


def constructs(program: Program, check: Check, mask: Mask | None) -> list[str]:
    """Return the known constructs that explain all divergences of *check*, by experiment."""
    tries = _choices(program, len(check.divergences)) if check.divergences else ()
    if any(_mended(program, sites, check.divergences, mask) for sites in tries):
        return [NARROW]
    if check.divergences and forgotten(program, check.divergences, mask):
        return [FORGOTTEN]
    return []


def forgotten(
    program: Program,
    divergences: Sequence[Divergence],
    mask: Mask | None = None,
    *,
    seen: Callable[[Outcome], Outcome] = lambda outcome: outcome,
) -> bool:
    """Return whether the image is right with what a mended verifier leaves of *program*.

    And wrong, as Linux's, with what is left as Linux does it, which forgets that the value of a
    slot counts where it cuts a path off (known.toml, linux-unpropagated-slot). *seen* is what the
    outcomes of *divergences* have of an outcome.
    """
    now, then = (
        verifier.verify(program, log_level=0, options=verifier.Options(propagate_slots=mended))
        for mended in (False, True)
    )
    if not isinstance(then.verdict, Accepted) or not then.dead < now.dead:
        return False
    vectors = [divergence.vector for divergence in divergences]
    wrongs = execute(program, "jit", vectors, now.dead)
    rights = execute(program, "jit", vectors, then.dead)
    for divergence, wrong, right in zip(divergences, wrongs, rights, strict=True):
        told: dict[str, Any] = dict(zip(divergence.legs, divergence.outcomes, strict=True))
        images = [told.pop(leg) for leg in ("jit", "kernel") if leg in told]
        others = list(told.values())
        if len(images) != 1 or len(others) != 1 or isinstance(right, Unknown):
            return False
        if not agree(seen(wrong), images[0], mask) or not agree(seen(right), others[0], mask):
            return False
    return True


def _choices(program: Program, count: int) -> Iterator[dict[int, int]]:
    """Yield sets of loads of slots that a narrow signed argument may come in: slot, bits.

    First those that BTF says. Where clang took a parameter out, those behind it are in other slots:
    few of any then, if there are *count* differences, too many to agree by chance.
    """
    sites = narrow_slots(program)
    if sites:
        yield sites
    if count < MANY or program.btf is None:
        return
    others = []
    for sub in program.subprograms:
        slots = range(sub.start, sub.end)
        widths = set(_narrow(program.btf, sub).values())
        if widths:
            loads = [slot for slot in slots if incoming_slot(program.insns[slot])]
            others.append([(slot, bits) for slot in loads for bits in sorted(widths)])
    for some in (chain(combinations(each, 1), combinations(each, 2)) for each in others):
        yield from map(dict, some)


def narrow_slots(program: Program) -> dict[int, int]:
    """Return the loads of incoming slots that hold a signed char or short: slot, bits.

    By the prototypes in BTF, which say what the caller had to pass.
    """
    out: dict[int, int] = {}
    if program.btf is None:
        return out
    for sub in program.subprograms:
        bits = _narrow(program.btf, sub)
        for slot in range(sub.start, sub.end) if bits else ():
            at = incoming_slot(program.insns[slot])
            if at in bits:
                out[slot] = bits[at]
    return out


def _narrow(btf: Btf, sub: Subprogram) -> dict[int, int]:
    """Return the stack slots of *sub*, from 1, that take a narrow signed argument, and its bits."""
    proto = btf.prototype(sub.type_id) if sub.type_id else None
    out: dict[int, int] = {}
    at = 0
    for parameter in proto.params if proto else ():
        kind = btf.resolve(parameter.type)
        at += 2 if (btf.size_of(parameter.type) or 0) > 8 else 1
        if at > REG_ARGS and isinstance(kind, Int) and kind.signed and kind.size < 4:
            out[at - REG_ARGS] = 8 * kind.size
    return out


def _mended(
    program: Program,
    sites: dict[int, int],
    divergences: Sequence[Divergence],
    mask: Mask | None,
) -> bool:
    """Return whether *program* does as the native builds once its *sites* extend what they load."""
    interpreter = Interpreter(program, HELPERS, KFUNCS)
    for slot, bits in sites.items():
        insn = program.insns[slot]
        assert isinstance(insn, Load)
        interpreter.steps[slot] = _extending(interpreter.steps[slot], insn.dst, bits)
    for divergence in divergences:
        native = [
            outcome
            for leg, outcome in zip(divergence.legs, divergence.outcomes, strict=True)
            if leg.startswith("native")
        ]
        if len(native) != 1 or not isinstance(native[0], Returned):
            return False
        seen: Outcome = interpreter.run(divergence.vector)
        if isinstance(seen, Unknown) or not agree(seen, native[0], mask):
            return False
    return True


def _extending(step: Callable[[Any], int], dst: int, bits: int) -> Callable[[Any], int]:
    def extend(machine: Any) -> int:
        following = step(machine)
        value = machine.registers[dst]
        if value is not UNDEFINED:
            low = value & ((1 << bits) - 1)
            high = low - (1 << bits) if low >> (bits - 1) else low
            machine.registers[dst] = high & ((1 << 64) - 1)
        return following

    return extend
