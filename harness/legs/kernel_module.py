"""A module for the Linux of the leg ``kernel``: the project's kernel functions, to be called.

A stock kernel has no function of more than five arguments that programs may call. The
module is made without the kernel's headers and their tools: all it has to agree on with
the kernel is in the kernel's own BTF and image, and the found clang compiles it.
"""

from __future__ import annotations

import hashlib
import re
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.btf import encode
from harness.legs import kfuncs
from harness.legs.kernel import ModuleFile
from harness.model import HarnessError, Unknown
from harness.source.driver import HEADERS, KFUNCS
from harness.toolchain import Compiler, run_compiler
from harness.toolchain.cache import cache_folder, replacing
from harness.toolchain.kernel import Kernel, find_kernel, kernel_btf

SOURCE = Path(__file__).with_name("kernel_module.c")
NAME = "crosscheck_kfuncs"  # as the source has it
FLAGS = (
    *("--target=x86_64-linux-gnu", "-O2", "-g0", "-ffreestanding", "-fno-pic", "-mcmodel=kernel"),
    *("-mno-red-zone", "-mno-sse", "-fno-stack-protector", "-fcf-protection=branch"),
    *("-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-addrsig", "-fno-builtin"),
    *("-fno-jump-tables", "-c"),
)

# Kinds of BTF (Documentation/bpf/btf.rst, 2.2)
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF = range(1, 9)
VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC = range(9, 16)
FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(16, 20)
REFERS = {PTR, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DECL_TAG, TYPE_TAG}
# What follows the twelve bytes of a type: words, and words for each of its elements
ONCE = {INT: 1, ARRAY: 3, VAR: 1, DECL_TAG: 1}
EACH = {STRUCT: 3, UNION: 3, ENUM: 2, FUNC_PROTO: 2, DATASEC: 3, ENUM64: 3}
# Which of those words are names and which are types
ONCE_TYPES = {ARRAY: (0, 1)}
EACH_NAMES = {STRUCT: 0, UNION: 0, ENUM: 0, FUNC_PROTO: 0, ENUM64: 0}
EACH_TYPES = {STRUCT: 1, UNION: 1, FUNC_PROTO: 1, DATASEC: 0}
VERMAGIC = re.compile(rb"\0(\d+\.\d+[^ \0]* [ -~]*\bmod_unload\b[ -~]*)\0")


@dataclass(frozen=True, slots=True)
class Base:
    """What a module has to know of its kernel."""

    types: int  # of its BTF, void included: the id of a module's first type
    strings: int  # bytes of its BTF's strings
    size: int  # of struct module, bytes
    name: int  # offset of its member
    init: int  # offset of its member
    vermagic: str


def build(compilers: Sequence[Compiler], kernel: Kernel | None = None) -> ModuleFile | Unknown:
    """Return the module for *kernel*, the found one by default; kept in the cache folder."""
    try:
        kernel = kernel or find_kernel()
        why = "no compiler"
        for compiler in compilers:
            made = _kept(compiler, kernel)
            if isinstance(made, bytes):
                return ModuleFile(NAME, made)
            why = made.why
    except (HarnessError, OSError) as error:
        why = str(error)
    return Unknown(f"no module of kernel functions: {why}")


def _kept(compiler: Compiler, kernel: Kernel) -> bytes | Unknown:
    status = kernel.image.stat()
    key = hashlib.sha256(
        repr((kernel.release, status.st_size, status.st_mtime_ns, compiler.command)).encode()
    )
    here = (*sorted((HEADERS / "crosscheck").iterdir()), SOURCE, Path(__file__))
    for path in here:
        key.update(path.read_bytes())
    folder = cache_folder() / "modules" / key.hexdigest()[:32]
    file = folder / f"{NAME}.ko"
    if file.is_file():
        return file.read_bytes()
    made = compile_module(compiler, kernel)
    if isinstance(made, bytes):
        with replacing(folder) as new:
            (new / file.name).write_bytes(made)
    return made


def compile_module(compiler: Compiler, kernel: Kernel) -> bytes | Unknown:
    """Return the module for *kernel*, compiled by *compiler*."""
    data = kernel_btf(kernel)
    if data is None:
        return Unknown(f"the image of {kernel.release} could not be unpacked")
    base = examine(data, kernel.image.read_bytes())
    if isinstance(base, Unknown):
        return base
    side = kfuncs.build(compiler)
    if isinstance(side, Unknown):
        return side
    btf = split(encode(side.btf), base)
    ids = [
        base.types - 1 + number
        for number, function, _ in side.btf.functions()
        if function.name.startswith(KFUNCS)
    ]
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as folder:
        file = Path(folder, "btf")
        file.write_bytes(btf)
        macros = {
            "MODULE_SIZE": base.size,
            "MODULE_NAME_AT": base.name,
            "MODULE_INIT_AT": base.init,
            "MODULE_VERMAGIC": f'"{base.vermagic}"',
            "KFUNC_COUNT": len(ids),
            "KFUNC_IDS": ", ".join(f"{{ {number}, 0 }}" for number in sorted(ids)),
            "MODULE_BTF": f'"{file}"',
        }
        defines = [f"-D{name}={value}" for name, value in macros.items()]
        arguments = [*FLAGS, "-idirafter", str(HEADERS), *defines]
        result = run_compiler(compiler, arguments, source=SOURCE, cache=False)
    return result.output if result.output is not None else Unknown(result.why)


def examine(btf: bytes, image: bytes) -> Base | Unknown:
    """Return what a module has to know of the kernel with *btf* in the ELF file *image*."""
    magic = VERMAGIC.search(image)
    if magic is None:
        return Unknown("the kernel does not say what modules it takes")
    types, strings = sections(btf)
    wanted = strings.find(b"\0module\0") + 1
    count, found = 1, None
    for _, kind, name, at, vlen in walk(types):
        count += 1
        if kind == STRUCT and name == wanted and vlen:
            found = at, vlen
    if not wanted or found is None:
        return Unknown("the kernel's BTF has no struct module")
    at, vlen = found
    (size,) = struct.unpack_from("<I", types, at + 8)
    offsets = {}
    bitfields = struct.unpack_from("<I", types, at + 4)[0] >> 31
    for number in range(vlen):
        name, _, offset = struct.unpack_from("<III", types, at + 12 + 12 * number)
        text = strings[name : strings.index(0, name)].decode("ascii", "replace")
        offsets[text] = (offset & 0xFFFFFF if bitfields else offset) // 8
    if not offsets.keys() >= {"name", "init"}:
        return Unknown("the kernel's struct module has no name or no init")
    vermagic = magic[1].decode("ascii")
    return Base(count, len(strings), size, offsets["name"], offsets["init"], vermagic)


# --- BTF that continues the kernel's ----------------------------------------


def sections(data: bytes) -> tuple[bytes, bytes]:
    """Return the types and the strings of the BTF *data*."""
    header, types, types_size, strings, strings_size = struct.unpack_from("<4xIIIII", data)
    return (
        data[header + types : header + types + types_size],
        data[header + strings : header + strings + strings_size],
    )


def walk(types: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield id, kind, name, offset and number of elements of each type."""
    at, number = 0, 1
    unpack = struct.Struct("<II").unpack_from
    while at < len(types):
        name, info = unpack(types, at)
        kind, vlen = info >> 24 & 0x1F, info & 0xFFFF
        yield number, kind, name, at, vlen
        at += 12 + 4 * (ONCE.get(kind, 0) + EACH.get(kind, 0) * vlen)
        number += 1


def split(data: bytes, base: Base) -> bytes:
    """Return the BTF *data* as one that continues the kernel's: ids and strings count on."""
    types, strings = sections(data)
    out = bytearray(types)

    def add(at: int, value: int) -> None:
        (old,) = struct.unpack_from("<I", out, at)
        if old:
            struct.pack_into("<I", out, at, old + value)

    for _, kind, _, at, vlen in walk(types):
        add(at, base.strings)
        if kind in REFERS:
            add(at + 8, base.types - 1)
        for word in ONCE_TYPES.get(kind, ()):
            add(at + 12 + 4 * word, base.types - 1)
        start, size = at + 12 + 4 * ONCE.get(kind, 0), 4 * EACH.get(kind, 0)
        for element in range(vlen):
            if kind in EACH_NAMES:
                add(start + size * element + 4 * EACH_NAMES[kind], base.strings)
            if kind in EACH_TYPES:
                add(start + size * element + 4 * EACH_TYPES[kind], base.types - 1)
    # magic, version, flags, length of the header, then where types and strings are
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(out), len(out), len(strings))
    return header + bytes(out) + strings
