"""Entry drivers: one program a function, which feeds it from the context.

The user's file and all its drivers are one translation unit, because a compiler costs more
to start than to run. A driver copies the pointees from the context to a buffer, calls the
function once, and writes the result and the buffer back. The call is never inlined; what
the user's own functions do among each other is left to the compiler.

A user's file needs nothing of ours. Where a pointer's extent is not its type's, a
declaration tag says it: ``int *v __attribute__((btf_decl_tag("elements:8")))``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from harness.model import BuildConfig
from harness.source.layout import Layout
from harness.source.signature import Aggregate, ArrayOf, Pointer, Scalar, Type, size_of

SECTION = "syscall"  # the program type whose context may be read and written at any offset
PREFIX = "crosscheck_"  # an entry is called PREFIX + the function's name
KFUNCS = "crosscheck_kfunc_"  # the project's kernel functions are called this + a name
LOOP = 512  # bytes; more are copied in a loop, for BPF has no memcpy to call

# What both sides are told alike: no C library, hence no calls the compiler invents. Headers
# of ours stand in where the machine, or the BPF target, has none.
HEADERS = Path(__file__).with_name("include")
LANGUAGE = ("-x", "c", "-ffreestanding", "-idirafter", str(HEADERS))
# What only BPF defines and C sources ask for. __bpf__ is left undefined natively: a source
# that has inline assembly under it has C beside it.
NATIVE_MACROS = ("-D__BPF_FEATURE_STACK_ARGUMENT=1",)

CHECKS = {
    # Undefined behaviour that traps, without a run-time library. Unsigned wrap-around is
    # defined; "function" and "vptr" need type information that C objects do not have.
    "undefined": (
        "-fsanitize=undefined,nullability",
        "-fno-sanitize=function",
        "-fsanitize-trap=all",
    ),
    # Automatic variables that nothing initialised: three contents, three results.
    "zero": ("-ftrivial-auto-var-init=zero",),
    "pattern": ("-ftrivial-auto-var-init=pattern",),
}


def entry(function: str) -> str:
    """Return the name of *function*'s driver."""
    return PREFIX + function


def discovery_args(mcpu: str = "v4") -> list[str]:
    """Return clang's arguments for the build whose BTF names the functions of a file.

    A file may define other functions for other processors; hence *mcpu*.

    Every function is emitted, used or not; -O1 without passes keeps the names of parameters
    and their tags, which -O0 leaves out of BTF, and keeps always_inline functions.
    """
    passes = ["-O1", "-Xclang", "-disable-llvm-passes", "-femit-all-decls"]
    return ["--target=bpf", f"-mcpu={mcpu}", "-g", *passes, *LANGUAGE, "-c"]


def bpf_args(config: BuildConfig) -> list[str]:
    """Return clang's arguments for *config*, without input and output."""
    target = ["--target=bpf", f"-mcpu={config.mcpu}", f"-O{config.opt}", "-g"]
    return [*target, "-fvisibility=hidden", *LANGUAGE, "-c"]


def program_args(config: BuildConfig) -> list[str]:
    """Return clang's arguments for a file with programs of its own, whose maps must be visible."""
    return [arg for arg in bpf_args(config) if arg != "-fvisibility=hidden"]


def native_args(check: str | None = None) -> list[str]:
    """Return clang's arguments for the IR of the native build.

    The IR is as the front end made it for -O2, for llvmlite's LLVM to optimise. *check*
    asks for one of ``CHECKS``, to find undefined behaviour.
    """
    target = ["--target=x86_64-linux-gnu", "-O2", "-Xclang", "-disable-llvm-passes", "-g0"]
    plain = ["-fPIE", "-fvisibility=hidden", "-fno-stack-protector", "-fcf-protection=none"]
    unwind = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"]
    return [
        *target,
        *plain,
        *unwind,
        *(CHECKS[check] if check else ()),
        *NATIVE_MACROS,
        *LANGUAGE,
        *("-S", "-emit-llvm"),
    ]


def translation_unit(
    source: Path | str, layouts: Iterable[Layout], linkage: str = "hidden", *, name: str = "input.c"
) -> str:
    """Return *source*, a file or C text, with a driver for each of *layouts* behind it.

    With *linkage* ``static`` every function of *source* becomes static; a source that
    declares functions it does not define (``Discovery.externs``) cannot have that. *name*
    is what the compiler calls text that has no file.
    """
    static = linkage == "static"
    parts = [_PRAGMAS]
    if static:
        parts.append(_STATIC)
    parts.append(_include(source, name))
    if static:
        parts.append("#pragma clang attribute pop\n")
    parts.append('#line 1 "<drivers>"\n#pragma clang diagnostic ignored "-Wignored-attributes"\n')
    parts.extend(driver(layout) for layout in layouts)
    parts.append(_LICENSE)
    return "".join(parts)


# Functions that no driver calls are no concern of ours, nor is the spelling of attributes.
_PRAGMAS = """\
#pragma clang diagnostic ignored "-Wunused-function"
"""
_STATIC = """\
#ifdef __bpf__
#include <crosscheck/kfuncs.h>  // the kernel's functions cannot be static
#endif
#pragma clang attribute push(__attribute__((internal_linkage)), apply_to = function)
"""
_LICENSE = """\
#line 1 "<license>"
#ifdef __bpf__
__attribute__((section("license"), used)) static const char crosscheck_license[] = "Dual BSD/GPL";
#endif
"""


def _include(source: Path | str, name: str) -> str:
    if isinstance(source, Path):
        path = str(source.absolute())
        if not re.search(r'["\\\n\r]', path):
            return f'#include "{path}"\n'
        source, name = source.read_text(encoding="utf-8", errors="surrogateescape"), path
    quoted = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ").replace("\r", " ")
    return f'#line 1 "{quoted}"\n{source}\n'


def blame(diagnostics: str) -> set[str]:
    """Return the functions whose drivers a compiler's *diagnostics* complain about."""
    return set(re.findall(r"<driver of (\w+)>:\d+:\d+: (?:fatal )?error:", diagnostics))


def driver(layout: Layout) -> str:
    """Return the C text of *layout*'s driver."""
    signature = layout.signature
    size = layout.size - layout.start
    lines = [f'#line 1 "<driver of {signature.name}>"']
    text = [
        f'__attribute__((section("{SECTION}"), used, visibility("default")))',
        f"int {entry(signature.name)}(unsigned char *crosscheck_ctx)",
        "{",
    ]
    names = _checks(layout)
    aligned = f"__attribute__((aligned({layout.align})))"
    if size:
        # A guard behind the objects keeps the pointer to their end apart from the next
        # variable. The assembly hides the address: clang would hand the context itself to
        # a function that only reads, or tell a static one what it is given.
        kind, guard = ("static ", 8) if layout.in_bss else ("", 0)
        text += [
            f"\t{kind}unsigned char crosscheck_memory[{size + guard}] {aligned};",
            "\tunsigned char *crosscheck_objects = crosscheck_memory;",
            '\t__asm__("" : "+r"(crosscheck_objects));',
        ]
    text += [f"\t{line}" for line in names]
    # what a source that uses maps and helpers finds behind the context (crosscheck/helpers.c)
    text += [
        "#if defined(CROSSCHECK_BPF_H) && !defined(__bpf__)",
        f"\tcrosscheck_side = (void *)(crosscheck_ctx + {-(-layout.size // 8) * 8});",
        "#endif",
    ]
    if size:
        text += _copy("crosscheck_objects", f"crosscheck_ctx + {layout.start}", size)
    text += _call(layout)
    if size:
        text += _copy(f"crosscheck_ctx + {layout.start}", "crosscheck_objects", size)
    text += ["\treturn 0;", "}", ""]
    return "\n".join(lines + text)


def _checks(layout: Layout) -> list[str]:
    """Assert that the names the driver uses mean the types that BTF described."""
    kinds = [p.type for p in layout.signature.parameters]
    if layout.signature.result is not None:
        kinds.append(layout.signature.result)
    sizes = {k.name: k.size for k in kinds if isinstance(k, Aggregate)}
    return [f'_Static_assert(sizeof({name}) == {size}, "");' for name, size in sizes.items()]


def _copy(to: str, source: str, size: int) -> list[str]:
    """Copy *size* bytes, a multiple of 8, between places aligned to 8."""
    if size > LOOP:
        word = "unsigned long long __attribute__((may_alias))"
        return [
            f"\tfor (unsigned long long crosscheck_i = 0; crosscheck_i < {size // 8}; "
            "crosscheck_i++)",
            f"\t\t(({word} *)({to}))[crosscheck_i] = (({word} *)({source}))[crosscheck_i];",
        ]
    # The casts say how aligned both are, which -O0 would not find out otherwise.
    word = "unsigned long long *"
    return [f"\t__builtin_memcpy(({word})({to}), (const {word})({source}), {size});"]


def _call(layout: Layout) -> list[str]:
    arguments = []
    for place, pointee in zip(layout.arguments, layout.objects, strict=True):
        if place:
            arguments.append(f"*({_c(place.type)} *)(crosscheck_ctx + {place.offset})")
        elif pointee:
            arguments.append(f"(void *)(crosscheck_objects + {pointee.offset - layout.start})")
    call = f"({layout.signature.name})({', '.join(arguments)})"
    result = layout.signature.result
    match result:
        case None:
            return [f"\t[[clang::noinline]] {call};"]
        case Scalar():
            return [f"\t[[clang::noinline]] *({_c(result)} *)crosscheck_ctx = {call};"]
        case Aggregate(name=name, size=size):
            return [
                f"\t[[clang::noinline]] {{ {name} crosscheck_result = {call};",
                f"\t__builtin_memcpy(({name} *)crosscheck_ctx, &crosscheck_result, {size}); }}",
            ]
    return _pointer_result(layout, call)


def _pointer_result(layout: Layout, call: str) -> list[str]:
    """Keep a pointer as where it points, for addresses differ between the legs.

    The empty assembly keeps the subtraction behind the test: the verifier subtracts no
    pointer from NULL.
    """
    size = layout.size - layout.start
    lines = [
        "\tunsigned long long crosscheck_at = 0;",
        "\tconst volatile void *crosscheck_result;",
        f"\t[[clang::noinline]] crosscheck_result = {call};",
        "\tif (crosscheck_result) {",
    ]
    if size:
        lines += [
            '\t\t__asm__ volatile("" : "+r"(crosscheck_result));',
            "\t\tcrosscheck_at = (unsigned long long)crosscheck_result - "
            "(unsigned long long)crosscheck_objects;",
            f"\t\tcrosscheck_at = crosscheck_at <= {size} ? crosscheck_at + 1 : -1ULL;",
        ]
    else:
        lines.append("\t\tcrosscheck_at = -1ULL;")
    return [*lines, "\t}", "\t*(unsigned long long *)crosscheck_ctx = crosscheck_at;"]


def _c(kind: Type) -> str:
    if isinstance(kind, Pointer | ArrayOf):
        raise AssertionError(f"{size_of(kind)} bytes that are no value")
    return kind.name
