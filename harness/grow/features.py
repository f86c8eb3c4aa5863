"""Features: what a program shows, as short texts whose first word is their kind.

passing   type, place, source and use of an argument, from the tree
pair      two instructions in a row
jit       an instruction and the form that the JIT gave it
verifier  what came up while it was verified, and the refusal
clang     what its passes made of the tree, as far as the object tells
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

from harness import verifier
from harness.btf import FuncProto
from harness.isa.decoded import Facts
from harness.isa.insn import PARAMS, Goto, Insn, Jump
from harness.model import BuildConfig, Image, Program, Rejected, Unknown, Verification
from harness.source import tree
from harness.source.tree import PointerType, StructType, Tree, slots_of

KINDS = ("passing", "verifier", "clang", "jit", "pair")  # the most telling first


def general(text: str) -> str:
    """Return a message without its numbers and names, which differ from program to program."""
    text = re.sub(r"p\d+_", "", text)
    text = re.sub(r"0x[0-9a-fA-F]+|\b[0-9a-f]{16}\b|\b[0-9]+\b", "N", text)
    return re.sub(r"(?<=\bR)\d+|(?<=arg)\d+", "N", text)[:160]


# --- passing ------------------------------------------------------------------


def place_of(at: int) -> str:
    """Return where the argument that ends with slot *at* (from 1) is: a register or a slot."""
    return f"r{at}" if at <= 5 else f"slot{at - 5}"


def passing(one: Tree) -> set[str]:
    """Return the patterns of passing in *one*: type, place, what is passed and its use."""
    out: set[str] = set()
    functions = {f.name: f for f in one.functions}
    uses = {f.name: _uses(f) for f in one.functions}
    for function in one.functions:
        sources = _sources(function)
        for node in tree.walk(function.body):
            if not isinstance(node, tree.Call):
                continue
            at = 0
            callee = functions[node.function]
            for parameter, argument in zip(callee.parameters, node.arguments, strict=True):
                at += slots_of(parameter.type)
                start = f"passing {_kind(parameter.type)} {place_of(at)} "
                start += _source(argument, sources)
                out.update(
                    f"{start} {use}" for use in uses[callee.name].get(parameter.name, ("unused",))
                )
    for parameter, at in _places(one.root):
        start = f"passing {_kind(parameter.type)} {place_of(at)} driver"
        found = uses[one.root.name].get(parameter.name, ("unused",))
        out.update(f"{start} {use}" for use in found)
    return out


def _places(function: tree.Function) -> Iterator[tuple[tree.Parameter, int]]:
    at = 0
    for parameter in function.parameters:
        at += slots_of(parameter.type)
        yield parameter, at


def _sources(function: tree.Function) -> dict[str, str]:
    """Return what the names of parameters stand for."""
    return {
        p.name: "register-parameter" if at <= 5 else "slot-parameter" for p, at in _places(function)
    }


def _source(argument: Any, sources: dict[str, str]) -> str:
    match argument:
        case tree.Name(name=name):
            return sources.get(name, "global" if name.startswith("g") else "variable")
        case tree.Address(place=place) | tree.Whole(place=place):
            base = tree.root(place)
            word = "address" if isinstance(argument, tree.Address) else "object"
            of = sources.get(base, "global" if base.startswith("g") else "variable")
            return f"{word}-of-{of}"
    return type(argument).__name__.lower()


def _uses(function: tree.Function) -> dict[str, set[str]]:
    """Return the words for what a function does with each of its parameters."""
    names = {p.name for p in function.parameters}
    out: dict[str, set[str]] = {}

    def look(node: Any, use: str) -> None:
        if isinstance(node, tuple):
            for each in node:
                look(each, use)
            return
        match node:
            case tree.Name(name=name):
                if name in names:
                    out.setdefault(name, set()).add(use)
            case tree.Deref(name=name):
                if name in names:
                    out.setdefault(name, set()).add("dereferenced")
            case tree.Element(base=base, index=index):
                look(base, use)
                look(index, "index")
            case tree.Call(arguments=arguments, result=result):
                for at, argument in enumerate(arguments):
                    plain = isinstance(argument, tree.Name)
                    word = "register" if at < 5 else "slot"
                    look(argument, f"forwarded-to-{word}" if plain else "computed")
                look(result, "written")
            case tree.Assign(place=place, value=value):
                look(place, "written")
                look(value, "copied" if isinstance(value, tree.Name) else "computed")
            case tree.AtomicOp(place=place, value=value, expected=expected, result=result):
                look(place, "atomic")
                look((value, expected), "computed")
                look(result, "written")
            case tree.Address(place=place):
                look(place, "address-taken")
            case tree.Cast(operand=operand):
                look(operand, "converted")
            case tree.Binary(op=op, left=left, right=right):
                compared = op in ("lt", "le", "gt", "ge", "eq", "ne")
                word = "compared" if compared else "computed"
                look(left, word)
                look(right, "shift" if op in ("shl", "shr") else word)
            case tree.If(condition=condition, then=then, other=other):
                look(condition, "condition")
                look((then, other), "computed")
            case tree.Switch(value=value, cases=cases, default=default):
                look(value, "switch")
                look((cases, default), "computed")
            case tree.Return(value=value):
                look(value, "returned")
            case None | int() | str():
                return
            case _:
                names_here = tree.names_of(type(node))  # type: ignore[arg-type]
                look(tuple([getattr(node, name) for name in names_here]), use)

    look(function.body, "computed")
    return out


@lru_cache(maxsize=256)
def _kind(kind: tree.Type) -> str:
    match kind:
        case PointerType(target=StructType()):
            return "pointer-to-struct"
        case PointerType(target=target, const=const):
            to = "enum" if isinstance(target, tree.EnumType) else target.name
            return f"pointer-to-{'const-' if const else ''}{to}"
        case StructType(union=union):
            return f"{'union' if union else 'struct'}{tree.size_of(kind)}"
        case tree.EnumType():
            return "enum"
        case tree.IntType(name=name):
            return name
    return "array"


# --- code -----------------------------------------------------------------------


def code_features(
    program: Program, image: Image | None, dead: frozenset[int] = frozenset()
) -> set[str]:
    """Return the pairs of opcodes of *program*, and the forms its image, without *dead*, has."""
    names = _OPCODES.of(program.insns)
    out = {_pair(a, b) for a, b in set(pairwise(names))}
    if image is None:
        return out
    if dead or sum(len(emitted.addrs) for emitted in image.subprograms) != len(names):
        program = verifier.fixup(program, dead)  # it made other instructions of some
        names = _OPCODES.of(program.insns)
    for sub, emitted in zip(program.subprograms, image.subprograms, strict=False):
        if not emitted.addrs or len(emitted.addrs) != sub.end - sub.start:
            continue  # dead code, for one, has no image
        ends = (*emitted.addrs[1:], len(emitted.code))
        code = emitted.code
        each = zip(names[sub.start : sub.end], emitted.addrs, ends, strict=True)
        found = {(name, code[start : start + 5], end - start) for name, start, end in each}
        out.update([_emitted(*one) for one in found])
    return out


@lru_cache(maxsize=1 << 13)
def _pair(a: str, b: str) -> str:
    return f"pair {a}, {b}"


def opcode(insn: Insn) -> str:
    """Return the kind of an instruction: its operation, widths and operands, no numbers."""
    get = getattr
    return _opcode(
        type(insn).__name__,
        get(insn, "op", None),
        get(insn, "bits", None),
        get(insn, "size", None),
        get(insn, "kind", None),
        get(insn, "sx", 0) or get(insn, "signed", False),
        get(insn, "src", 0) is None,
        PARAMS in (get(insn, "dst", None), get(insn, "src", None)),
        isinstance(insn, Jump | Goto) and insn.off < 0,
    )


_OPCODES = Facts(opcode)


@lru_cache(maxsize=4096)
def _opcode(
    name: str,
    op: str | None,
    bits: int | None,
    size: int | None,
    kind: str | None,
    signed: int,
    immediate: bool,
    params: bool,
    back: bool,
) -> str:
    parts = [name.lower(), *(str(p) for p in (op, bits, size, kind) if p is not None)]
    if signed:
        parts.append(f"signed{signed}" if signed is not True else "signed")
    for word, has in (("imm", immediate), ("r11", params), ("back", back)):
        if has:
            parts.append(word)
    return "-".join(parts)


@lru_cache(maxsize=1 << 13)
def _emitted(name: str, start: bytes, length: int) -> str:
    return f"jit {name} {form(start)} {min(length, 48)}"


# One byte and no ModRM (SDM, volume 2, table A-2): push, pop, short jumps, mov immediate, ...
_PLAIN = frozenset({*range(0x50, 0x60), *range(0x70, 0x80), *range(0xB0, 0xC0)}) | frozenset(
    {0x05, 0x25, 0x2D, 0x0D, 0x35, 0x3D, 0x90, 0x98, 0x99, 0xC3, 0xC9, 0xCC, 0xE8, 0xE9, 0xEB}
)


def form(code: bytes) -> str:
    """Return the form of an instruction that *code* begins with.

    Its prefixes, which say the classes of its registers, its opcode, and from ModRM the
    size of its displacement; no registers and no numbers.
    """
    at = 0
    prefixes = ""
    while at < len(code) and code[at] in (0x66, 0xF0, 0xF2, 0xF3):
        prefixes += f"{code[at]:02x} "
        at += 1
    if at < len(code) and code[at] & 0xF0 == 0x40:
        prefixes += f"{code[at]:02x} "
        at += 1
    if at >= len(code):
        return prefixes + "nothing"
    if code[at] == 0x0F and at + 1 < len(code):
        what, plain = f"0f{code[at + 1]:02x}", code[at + 1] & 0xF0 == 0x80
        at += 1
    else:
        plain = code[at] in _PLAIN
        grouped = 0x50 <= code[at] < 0x60 or 0xB0 <= code[at] < 0xC0
        what = f"{code[at] & 0xF8:02x}+r" if grouped else f"{code[at]:02x}"
    if plain or at + 1 >= len(code):
        return prefixes + what
    mod = code[at + 1] >> 6
    word = ("memory", "memory8", "memory32", "register")[mod]
    return f"{prefixes}{what} {word}{' sib' if mod < 3 and code[at + 1] & 7 == 4 else ''}"


# --- verifier and clang ------------------------------------------------------------


def verifier_features(verification: Verification) -> set[str]:
    """Return what came up while a program was verified."""
    out = {f"verifier {event}" for event in verification.events}
    match verification.verdict:
        case Rejected(message=message):
            out.add(f"verifier refuses: {general(message)}")
        case Unknown(why=why):
            out.add(f"verifier unknown: {general(why)}")
    return out


def node_names(one: Tree) -> frozenset[str]:
    """Return the names of the kinds of nodes in *one*."""
    return frozenset(type(node).__name__ for node in tree.walk(one.functions))


def clang_features(
    one: Tree, nodes: frozenset[str], program: Program, config: BuildConfig, prefix: str
) -> set[str]:
    """Return what became of *one* in *program*, as far as names, prototypes and jumps tell."""
    start = f"clang -O{config.opt}"
    out = set()
    names = {sub.name: sub for sub in program.subprograms}
    for function in one.functions[:-1]:
        sub = names.get(prefix + function.name)
        if sub is None:
            # inlined, or never called: the tree's own functions are called as a rule
            out.add(f"{start} inlined {'noinline' if function.noinline else 'free'}")
            continue
        proto = program.btf.prototype(sub.type_id) if program.btf and sub.type_id else None
        if isinstance(proto, FuncProto) and len(proto.params) < len(function.parameters):
            out.add(f"{start} removed {len(function.parameters) - len(proto.params)} parameters")
    back = any(isinstance(i, Jump | Goto) and i.off < 0 for i in program.insns)
    if "Loop" in nodes:
        out.add(f"{start} {'kept a loop' if back else 'unrolled'}")
    elif back:
        out.add(f"{start} made a loop")
    constants = any(g.const for g in one.globals)
    if not constants and any(m.readonly for m in program.maps):
        out.add(f"{start} made read-only data" + (" of a switch" if "Switch" in nodes else ""))
    for name in ("Switch", "Choice", "CallIf", "Fill", "CopyObject", "AtomicOp"):
        if name in nodes:
            out.add(f"{start} compiled {name} with -mcpu={config.mcpu}")
    return out
