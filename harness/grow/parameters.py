"""Parameters and variables of which BTF says otherwise than the code: mends of refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.btf import Btf, DataSec, DeclTag, Func, FuncProto, Int, Param, SecInfo, Var
from harness.btf_check import validate
from harness.grow import optimised
from harness.grow.constructs import ADDED, BEYOND, REMOVED, SHRUNK, WIDE
from harness.grow.refused import Refused, Trial
from harness.grow.slots import callees_behind
from harness.isa.stack_args import MAX_ARGS, MAX_SLOTS, REG_ARGS, SLOT_SIZE, outgoing_slot
from harness.model import Program, Subprogram
from harness.triage.rules import callee_at


def of_its_size(it: Refused) -> tuple[str, Program] | None:
    """Give variables that are smaller than their type, which Linux refuses, one of their size."""
    btf = it.program.btf
    if btf is None or validate(btf) is None:
        return None
    types = list(btf.types)
    for _, info in shrunk(btf):
        variable = types[info.type]
        assert isinstance(variable, Var)
        types.append(Int(f"shrunk{info.size}", info.size, 0, 0, 8 * info.size))
        types[info.type] = replace(variable, type=len(types) - 1)
    mended = Btf(tuple(types))
    return None if validate(mended) else (SHRUNK, replace(it.program, btf=mended))


def shrunk(btf: Btf | None) -> list[tuple[str, SecInfo]]:
    """Return the variables that BTF says are smaller than their type: name, and where."""
    if btf is None:
        return []
    return [
        (variable.name, info)
        for section in btf.types
        if isinstance(section, DataSec)
        for info in section.variables
        if isinstance(variable := btf.get(info.type), Var)
        and info.size in (1, 2, 4, 8)
        and info.size < (btf.size_of(variable.type) or 0)
    ]


def counted(it: Refused) -> tuple[str, Program] | None:
    """Give the functions as many parameters in BTF as they have in the IR, if for one reason."""
    btf = it.program.btf
    guilty = callee_at(it.program, it.insn) or it.sub
    if btf is None or not guilty.type_id:
        return None
    seen = it.functions()
    counts: dict[str, dict[int, int]] = {}  # by construct, which are mended one by one
    found: dict[int, str] = {}
    for sub in it.program.subprograms[1:]:
        proto = btf.prototype(sub.type_id)
        if sub.name not in seen or proto is None or len(proto.params) == seen[sub.name].words:
            continue
        words, in_source = seen[sub.name].words, _words(btf, sub)
        construct = WIDE if words == in_source else REMOVED if words < in_source else ADDED
        counts.setdefault(construct, {})[sub.type_id] = words
        found[sub.type_id] = construct
    if guilty.type_id not in found:
        return None
    construct = found[guilty.type_id]
    return construct, replace(it.program, btf=_with_parameters(btf, counts[construct]))


def _words(btf: Btf, sub: Subprogram) -> int:
    """Return how many registers and slots the parameters of *sub* take by their types."""
    proto = btf.prototype(sub.type_id)
    assert proto is not None
    total = 1 if (btf.size_of(proto.returns) or 0) > 2 * SLOT_SIZE else 0
    sizes = (btf.size_of(parameter.type) or SLOT_SIZE for parameter in proto.params)
    return total + sum(2 if SLOT_SIZE < size <= 2 * SLOT_SIZE else 1 for size in sizes)


def _with_parameters(btf: Btf, counts: Mapping[int, int]) -> Btf:
    """Return *btf* with other numbers of parameters, by function."""
    types = [*btf.types, Int("word", SLOT_SIZE, 0, 0, 8 * SLOT_SIZE)]
    word = len(types) - 1
    for type_id, count in counts.items():
        func, proto = btf[type_id], btf.prototype(type_id)
        assert isinstance(func, Func)
        assert proto is not None
        types.append(FuncProto(proto.returns, tuple(Param(f"w{n}", word) for n in range(count))))
        types[type_id] = replace(func, type=len(types) - 1)
    for type_id, tag in enumerate(types):
        if isinstance(tag, DeclTag) and tag.type in counts:
            types[type_id] = replace(tag, component=-1)  # the parameter may be gone
    return Btf(tuple(types))


def not_promoted(it: Refused) -> tuple[str, Trial] | None:
    """Build without argument promotion where that gave a call more arguments than there may be.

    By the types of its parameters the function has no more; by the IR it has, and by that of
    the other build it has not.
    """
    slot, btf = outgoing_slot(it.at), it.trial.built.btf
    if slot is None or slot <= MAX_SLOTS or btf is None or not it.broken("form"):
        return None
    names = {sub.name for sub in callees_behind(it.program, it.insn, slot)}
    callees = [sub for sub in it.trial.built.subprograms if sub.name in names]
    now = it.functions()
    for sub in callees:
        seen = now.get(sub.name)
        if seen is None or seen.words < REG_ARGS + slot or not btf.prototype(sub.type_id):
            return None
        if _words(btf, sub) > MAX_ARGS:
            return None
    again = it.trial.origin.without(optimised.PROMOTION) if callees else None
    if again is None:
        return None
    then = again[1].functions()
    if any(then[name].words > MAX_ARGS for name in names if name in then):
        return None
    return BEYOND, it.trial.again(again)
