"""Entry drivers: they compile everywhere, and carry every value there and back."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from harness import btf
from harness.compare import agree
from harness.legs import native
from harness.legs.interp import InterpLeg
from harness.load import load_object
from harness.model import BuildConfig, Returned, Trapped, Unknown
from harness.source import driver
from harness.source.layout import Layout, layout
from harness.source.signature import Discovery, functions_under_test
from harness.source.vectors import vectors

SOURCE = """\
#include <linux/types.h>
#include <stdbool.h>
#include <stdint.h>

struct pair { const int a; signed char b; };
typedef struct { uint8_t bytes[3]; } three_t;
typedef const struct { long x, y; } both_t;
union either { int i; char c[6]; };
enum color { RED, GREEN = 5, BLUE = -3 };
typedef enum { OFF, ON } state_t;
struct bits { int a : 5; unsigned b : 9; bool c : 1; bool d; };
struct large { uint64_t w[70]; uint8_t tail; };

static int integers(int8_t a, uint16_t b, long c, unsigned long long d, bool e, char f, __u32 g)
{
	return (uint64_t)a * 3 + b * 5 + (uint64_t)c * 7 + d * 11 + e * 13 + f * 17 + g * 19;
}

struct pair structs(struct pair a, three_t b, both_t c, union either d, enum color e, state_t f)
{
	unsigned low = (unsigned)a.a ^ (unsigned)c.x ^ (unsigned)d.i;

	return (struct pair){ (int)low, b.bytes[1] + e - f };
}

both_t wide(both_t a, int b, int c, int d, int e)
{
	return (both_t){ (long)((unsigned long)a.y + b + d), (long)((unsigned long)a.x - c - e) };
}

void pointers(int *a, const uint8_t *b, struct bits *c, int (*d)[3], void *e, bool *f,
	enum color *g, int *h __attribute__((btf_decl_tag("elements:4"))))
{
	*a ^= b[15];
	c->a = b[0] & 7;
	c->d = !c->d;
	(*d)[2] ^= (*d)[0];
	((uint8_t *)e)[14] = b[2];
	*f = !*f;
	*g = GREEN;
	h[3] ^= h[1];
}

static __attribute__((noinline)) int large(struct large *a, int b, int c, int d, int e, int f)
{
	a->w[b & 63] ^= a->w[69] + (unsigned)c + (unsigned)d;
	a->tail ^= e ^ f;
	return a->tail;
}

int *within(int *a, int *b, int c, int d, int e, int f)
{
	static int elsewhere;
	return c & 1 ? a : c & 2 ? b : c & 4 ? 0 : (elsewhere = d ^ e ^ f, &elsewhere);
}

static inline __attribute__((always_inline)) int inlined(int a, int b, int c, int d, int e, int f)
{
	return a ^ b ^ c ^ d ^ e ^ f;
}

int caller(int a, int b, int c, int d, int e, int f)
{
	return inlined(f, e, d, c, b, a) ^ integers(a, b, c, d, e & 1, f, 1);
}
"""

Compile = Callable[..., bytes]
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")


@pytest.fixture(scope="module")
def compile_c(clang: list[str]) -> Compile:
    def run(arguments: list[str], text: str) -> bytes:
        command = [*clang, *arguments, "-o", "-", "-"]
        done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
        assert not done.returncode, done.stderr.decode()
        return done.stdout

    return run


@pytest.fixture(scope="module")
def discovered(compile_c: Compile) -> Discovery:
    elf = ELFFile(io.BytesIO(compile_c(driver.discovery_args(), SOURCE)))
    section = elf.get_section_by_name(".BTF")
    assert section
    return functions_under_test(btf.parse(section.data()))


@pytest.fixture(scope="module")
def places(discovered: Discovery) -> list[Layout]:
    found = [layout(signature) for signature in discovered.signatures]
    return [place for place in found if isinstance(place, Layout)]


def test_discovery_finds_all_functions_static_and_inline_ones_too(discovered: Discovery) -> None:
    assert {s.name for s in discovered.signatures} == {
        *("integers", "structs", "wide", "pointers", "large", "within", "inlined", "caller"),
    }
    assert not discovered.unsupported
    assert not discovered.externs


@pytest.mark.parametrize("linkage", ["hidden", "static"])
@pytest.mark.parametrize(("opt", "mcpu"), [("0", "v1"), ("1", "v2"), ("2", "v4"), ("s", "v3")])
def test_bpf_and_native_code_agree_through_the_drivers(
    compile_c: Compile,
    places: list[Layout],
    natives: native.NativeModule,
    opt: str,
    mcpu: str,
    linkage: str,
) -> None:
    text = driver.translation_unit(SOURCE, places, linkage)
    config = BuildConfig("clang", opt, mcpu, linkage)
    data = compile_c([*driver.bpf_args(config), *STRICT, "-Wno-pedantic"], text)
    programs = {p.name: p for p in load_object(data).programs}
    for place in places:
        entry = driver.entry(place.signature.name)
        program = programs[entry]
        assert not isinstance(program, Unknown)
        assert program is not None
        runner = InterpLeg().prepare(program)
        assert not isinstance(runner, Unknown)
        inputs = vectors(place, 24, 1)
        for data, ours, theirs in zip(
            inputs, runner.run(inputs), native.NativeRunner(natives, entry).run(inputs), strict=True
        ):
            if entry == "crosscheck_wide":  # a result in r0 and r2: BPF calls forget r2
                assert isinstance(ours, Trapped)
                continue
            assert isinstance(ours, Returned), (entry, ours)
            assert isinstance(theirs, Returned), (entry, theirs)
            assert agree(ours, theirs, place.mask), (entry, data.hex(), ours, theirs)


@pytest.fixture(scope="module")
def natives(compile_c: Compile, places: list[Layout]) -> native.NativeModule:
    text = driver.translation_unit(SOURCE, places)
    ir = compile_c([*driver.native_args(), *STRICT, "-Wno-pedantic"], text).decode()
    module = native.build(ir, (2,))[2]
    assert isinstance(module, native.NativeModule), module
    return module


def test_the_sources_are_free_of_undefined_behaviour(
    compile_c: Compile, places: list[Layout]
) -> None:
    text = driver.translation_unit(SOURCE, places)
    builds = {}
    for check in driver.CHECKS:
        module = native.build(compile_c(driver.native_args(check), text).decode(), (0,))[0]
        assert isinstance(module, native.NativeModule), module
        builds[check] = module
    for place in places:
        entry = driver.entry(place.signature.name)
        inputs = vectors(place, 50, 2)
        found = native.undefined_behaviour(builds, entry, inputs, place.mask)
        assert set(found) == {None}, (entry, found)


def test_the_call_stays_a_call_and_all_arguments_are_passed(
    compile_c: Compile, places: list[Layout], llvm_tool: Callable[[str], list[str]], tmp_path: Path
) -> None:
    text = driver.translation_unit(SOURCE, places)
    path = tmp_path / "out.o"
    path.write_bytes(compile_c(driver.bpf_args(BuildConfig("clang", "2", "v4", "hidden")), text))
    command = [*llvm_tool("llvm-objdump"), "-d", "--section=syscall", str(path)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    bodies = listing.split("<crosscheck_")[1:]
    assert len(bodies) == len(places)
    for body in bodies:
        assert body.count("call ") == 1, body
        assert "(r11 - 0x8)" in body, body


def test_diagnostics_name_the_users_file(clang: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.c"
    path.write_text("int f(void) { return nothing; }\n")
    text = driver.translation_unit(path, [])
    command = [*clang, *driver.native_args(), "-o", "-", "-"]
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    assert f"{path}:1:22: error:" in done.stderr
    assert driver.blame(done.stderr) == set()
    odd = tmp_path / 'odd"name.c'
    odd.write_text("int g(void) { return nothing; }\n")
    text = driver.translation_unit(odd, [])
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    assert 'odd"name.c:1:22: error:' in done.stderr


def test_a_driver_that_does_not_compile_is_blamed_by_its_function(
    clang: list[str], places: list[Layout]
) -> None:
    text = driver.translation_unit("int unrelated;\n", places[:2])
    command = [*clang, *driver.native_args(), "-o", "-", "-"]
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    assert done.returncode
    assert driver.blame(done.stderr) == {place.signature.name for place in places[:2]}


@pytest.mark.parametrize("target", ["bpf", "x86_64-linux-gnu"])
def test_integer_headers_exist_without_a_c_library(clang: list[str], target: str) -> None:
    text = (
        "#include <linux/types.h>\n#include <stdint.h>\n#include <stdbool.h>\n"
        "#include <stddef.h>\n#include <limits.h>\n"
        '_Static_assert(sizeof(__u64) == sizeof(uint64_t) && sizeof(__be16) == 2, "");\n'
    )
    for extra in ((), ("-nostdlibinc",)):
        command = [*clang, f"--target={target}", *driver.LANGUAGE, *extra, "-fsyntax-only", "-"]
        subprocess.run(command, input=text, text=True, check=True)
