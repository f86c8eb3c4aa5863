"""The prototypes of the kernel functions of the selftests' own module, ``bpf_testmod``.

No stock kernel has the module, so Linux is not asked about programs that call them; their
tags tell. What the verifier needs of them is in the tree: ``bpf_testmod_kfunc.h`` declares
them, and ``bpf_testmod.c`` defines them, with the names of their parameters, and lists
them with their flags.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from harness.btf import Btf
from harness.load import LoadError, load_object
from harness.model import Program
from harness.selftests.build import Tree, include_options
from harness.toolchain import Compiler, run_compiler
from harness.verifier import kfunc_table

FOLDER = "test_kmods"
HEADER, TYPES, LIST = "bpf_testmod_kfunc.h", "bpf_testmod.h", "bpf_testmod.c"
ALL = "unspec"

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|^\s*#[^\n]*(?:\\\n[^\n]*)*", re.DOTALL | re.MULTILINE)
_DECLARED = re.compile(r"([A-Za-z_][\w\s]*?[\s*]+)(\w+)\s*\(([^()]*)\)\s*(?:__ksym)?\s*;")
_DEFINED = re.compile(r"\b__bpf_kfunc\s+([A-Za-z_][\w\s]*?[\s*]+)(bpf_\w+)\s*\(([^()]*)\)\s*\{")
_SET = re.compile(r"BTF_KFUNCS_START\((\w+)\)(.*?)BTF_KFUNCS_END", re.DOTALL)
_LISTED = re.compile(r"BTF_ID_FLAGS\(func,\s*(\w+)\s*(?:,\s*([\w\s|]+))?\)")
_SET_OF = re.compile(r"struct btf_kfunc_id_set (\w+) = \{[^}]*\.set\s*=\s*&(\w+)", re.DOTALL)
_REGISTERED = re.compile(r"register_btf_kfunc_id_set\(BPF_PROG_TYPE_(\w+), &(\w+)\)")


@dataclass(frozen=True, slots=True)
class Listed:
    """A function of the module, as it registers it."""

    types: frozenset[str]  # of programs that may call it
    flags: int  # KF_*


def registered(text: str) -> dict[str, Listed]:
    """Return the functions that *text* registers; those with flags we do not know are not."""
    sets = dict(_SET_OF.findall(text))
    types: dict[str, set[str]] = {}
    for kind, name in _REGISTERED.findall(text):
        types.setdefault(sets.get(name, name), set()).add(kind.lower())
    found = {}
    for name, listed in _SET.findall(text):
        for function, words in _LISTED.findall(listed):
            names = [word.strip().removeprefix("KF_") for word in words.split("|") if word.strip()]
            flags = [getattr(kfunc_table, each, None) for each in names]
            if None not in flags:
                may = frozenset(types.get(name, ()))
                found[function] = Listed(may, sum(filter(None, flags)))
    return found


def definitions(declared: str, defined: str, wanted: set[str], *, others: bool = True) -> str:
    """Return C that defines the functions *wanted* of the header *declared*, and *others*.

    Parameters are called as where the module has them *defined*, for names say how the
    verifier takes them; others are functions that only the programs declare.
    """
    real = {name: (words, given) for words, name, given in _DEFINED.findall(_bare(defined))}
    functions = {
        name: (words.replace("extern ", ""), real.get(name, ("", given))[1])
        for words, name, given in _DECLARED.findall(_bare(declared))
    }
    for name, (words, given) in real.items() if others else ():
        functions.setdefault(name, (words.replace("noinline ", ""), given))
    found = []
    for name, (words, given) in functions.items():
        if name in wanted:
            body = 'asm volatile("");' if words.split() == ["void"] else f"return ({words})0;"
            found.append(f"{words} {name}({given}) {{ {body} }}")
    return "\n".join(found)


def _bare(text: str) -> str:
    """Return C *text* without comments and directives."""
    return _COMMENT.sub("", text)


@cache
def prototypes(
    tree: Tree, compiler: Compiler, headers: Path, system: tuple[Path, ...]
) -> tuple[Btf, dict[str, Listed]] | None:
    """Return the BTF of the functions, and how each is registered.

    None where the tree has no such module, or it is not what we know.
    """
    folder = tree.programs.parent / FOLDER
    try:
        header, listed = ((folder / name).read_text() for name in (HEADER, LIST))
    except (OSError, UnicodeDecodeError):
        return None
    functions = registered(listed)
    before = (
        "#include <vmlinux.h>\n#include <bpf/bpf_helpers.h>\n#undef __ksym\n#define __ksym\n"
        f'#include "{folder / HEADER}"\n'
    )
    # What only the programs declare may have types that are nowhere else.
    more = f'#define _TOOLS_LINUX_TYPES_H_\n#include "{folder / TYPES}"\n'
    texts = (
        before + more + definitions(header, listed, set(functions)),
        before + definitions(header, listed, set(functions), others=False),
    )
    options = include_options(tree, headers, system)
    tries = (run_compiler(compiler, options, source=text + "\n") for text in texts)
    built = next((built for built in tries if built.output is not None), None)
    if built is None or built.output is None:
        return None
    try:
        btf = load_object(built.output).btf
    except LoadError:
        return None
    return (btf, functions) if btf is not None else None


def attach(program: Program, found: tuple[Btf, dict[str, Listed]] | None) -> Program:
    """Return *program* with the prototypes of the module's functions, if it may call them."""
    if found is None:
        return program
    btf, functions = found
    ours = [name for name in program.kfuncs if name in functions]
    if not ours or any(not functions[name].types & {ALL, program.type} for name in ours):
        return program
    flags = tuple((name, functions[name].flags) for name in ours)
    return replace(program, kfunc_btf=btf, kfunc_flags=flags)
