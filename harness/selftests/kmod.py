"""The prototypes of the kernel functions of the selftests' own module, ``bpf_testmod``.

No stock kernel has the module, so Linux is not asked about programs that call them; their
tags tell. What the verifier needs of them is in the tree: ``bpf_testmod_kfunc.h`` declares
them, and ``bpf_testmod.c`` defines them, with the names of their parameters, and lists
them. Those with flags are left out, for a module's functions have none here.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from harness.btf import Btf
from harness.load import LoadError, load_object
from harness.model import Program
from harness.selftests.build import Tree, include_options
from harness.toolchain import Compiler, run_compiler

FOLDER = "test_kmods"
HEADER, LIST = "bpf_testmod_kfunc.h", "bpf_testmod.c"
ALL = "unspec"

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|^\s*#[^\n]*(?:\\\n[^\n]*)*", re.DOTALL | re.MULTILINE)
_DECLARED = re.compile(r"([A-Za-z_][\w\s]*?[\s*]+)(\w+)\s*\(([^()]*)\)\s*(?:__ksym)?\s*;")
_DEFINED = re.compile(r"\b(bpf_\w+)\s*\(([^()]*)\)\s*\{")
_SET = re.compile(r"BTF_KFUNCS_START\((\w+)\)(.*?)BTF_KFUNCS_END", re.DOTALL)
_LISTED = re.compile(r"BTF_ID_FLAGS\(func,\s*(\w+)\s*(?:,\s*([\w\s|]+))?\)")
_SET_OF = re.compile(r"struct btf_kfunc_id_set (\w+) = \{[^}]*\.set\s*=\s*&(\w+)", re.DOTALL)
_REGISTERED = re.compile(r"register_btf_kfunc_id_set\(BPF_PROG_TYPE_(\w+), &(\w+)\)")


def callable_by(text: str) -> dict[str, set[str]]:
    """Return the program types that may call each function without flags that *text* lists."""
    sets = dict(_SET_OF.findall(text))
    types: dict[str, set[str]] = {}
    for kind, name in _REGISTERED.findall(text):
        types.setdefault(sets.get(name, name), set()).add(kind.lower())
    found = {}
    for name, listed in _SET.findall(text):
        for function, flags in _LISTED.findall(listed):
            if not flags:
                found[function] = types.get(name, set())
    return found


def definitions(declared: str, defined: str, wanted: set[str]) -> str:
    """Return C that defines the functions *wanted* of the header *declared*.

    Parameters are called as where the module has them *defined*, for names say how the
    verifier takes them.
    """
    real = dict(_DEFINED.findall(_COMMENT.sub("", defined)))
    found = []
    for before, name, parameters in _DECLARED.findall(_COMMENT.sub("", declared)):
        if name in wanted:
            words = before.replace("extern ", "")
            body = 'asm volatile("");' if words.split() == ["void"] else f"return ({words})0;"
            found.append(f"{words} {name}({real.get(name, parameters)}) {{ {body} }}")
    return "\n".join(found)


@cache
def prototypes(
    tree: Tree, compiler: Compiler, headers: Path, system: tuple[Path, ...]
) -> tuple[Btf, dict[str, set[str]]] | None:
    """Return the BTF of the functions, and which program types may call each.

    None where the tree has no such module, or it is not what we know.
    """
    folder = tree.programs.parent / FOLDER
    try:
        header, listed = ((folder / name).read_text() for name in (HEADER, LIST))
    except (OSError, UnicodeDecodeError):
        return None
    types = callable_by(listed)
    source = (
        "#include <vmlinux.h>\n#include <bpf/bpf_helpers.h>\n#undef __ksym\n#define __ksym\n"
        f'#include "{folder / HEADER}"\n{definitions(header, listed, set(types))}\n'
    )
    built = run_compiler(compiler, include_options(tree, headers, system), source=source)
    if built.output is None:
        return None
    try:
        btf = load_object(built.output).btf
    except LoadError:
        return None
    return (btf, types) if btf is not None else None


def attach(program: Program, found: tuple[Btf, dict[str, set[str]]] | None) -> Program:
    """Return *program* with the prototypes of the module's functions, if it may call them."""
    if found is None:
        return program
    btf, types = found
    ours = [name for name in program.kfuncs if name in types]
    if not ours or any(not types[name] & {ALL, program.type} for name in ours):
        return program
    return replace(program, kfunc_btf=btf)
