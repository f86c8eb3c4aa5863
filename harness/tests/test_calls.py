"""Calling in: JITed functions of up to twelve arguments, called by Python and by native C."""

import random
import struct
from pathlib import Path

import pytest

from harness import pipeline, verifier
from harness.jit import x86_64
from harness.legs import jit, native
from harness.load import load_object
from harness.model import BuildConfig, HarnessError, Image, Returned
from harness.source import driver
from harness.source.signature import Scalar
from harness.toolchain import run_compiler

SOURCE = Path("c_sources/calls/in.c")
FILES = [SOURCE, *(Path("c_sources", f"{name}.c") for name in ("widths", "extension", "shifts"))]
U64 = (1 << 64) - 1


def images(path, compiler, opt):
    """Return the plan, and the image of each function's driver with the function in it."""
    config = BuildConfig(compiler.name, opt, "v4", "hidden")
    settings = pipeline.Settings((config,), (compiler,), vectors=64)
    plan = pipeline.plan(path, str(path), settings)
    text = driver.translation_unit(path, plan.layouts)
    built = run_compiler(compiler, driver.bpf_args(config), source=text)
    found = {}
    for program in load_object(built.output, fill_names=True).programs:
        image = x86_64.compile(verifier.fixup(program))
        assert isinstance(image, Image)
        found[program.name.removeprefix(driver.PREFIX)] = image
    return plan, found


def scalars_only(place):
    kinds = [p.type for p in place.signature.parameters]
    return all(isinstance(k, Scalar) for k in [*kinds, place.signature.result])


def arguments(place, vector):
    """Return the arguments in *vector* as a C caller hands them over, extended by their type."""
    found = []
    for at in place.arguments:
        raw = vector[at.offset : at.offset + at.type.size]
        found.append(int.from_bytes(raw, "little", signed=at.type.signed))
    return found


@pytest.mark.parametrize("opt", ["0", "2"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_python_calls_what_native_code_computes(path, opt, compiler):
    plan, found = images(path, compiler, opt)
    places = [place for place in plan.layouts if scalars_only(place)]
    assert places
    for place in places:
        name, result = place.signature.name, place.result.type
        vectors, natives = plan.vectors[name], plan.natives[name]["native-O2"]
        runner = jit.JitLeg().prepare_image(found[name])
        seen = runner.call(name, [arguments(place, vector) for vector in vectors])
        keep = (1 << 8 * result.size) - 1
        expected = [int.from_bytes(o.ctx[: result.size], "little") for o in natives]
        assert [outcome.r0 & keep for outcome in seen] == expected, name


def test_one_call(compiler):
    _, found = images(SOURCE, compiler, "2")
    image = found["in_12"]
    weights = (1, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    for index, weight in enumerate(weights):
        values = [int(at == index) for at in range(12)]
        outcome = jit.call(image, "in_12", values)
        assert isinstance(outcome, Returned)
        assert outcome.r0 == weight
    assert jit.call(image, "in_12", [-1] * 12).r0 == -sum(weights) & U64
    with pytest.raises(HarnessError, match="no function none, but crosscheck_in_12, in_12"):
        jit.call(image, "none", [])
    with pytest.raises(HarnessError, match="13 arguments, functions take up to 12"):
        jit.call(image, "in_12", [0] * 13)


CALLER = r"""
#include "%s"
struct context { unsigned long long v[12]; unsigned long long results[5]; };
int caller(struct context *at)
{
    unsigned long long *v = at->v;

    at->results[0] = in_6(v[0], v[1], v[2], v[3], v[4], v[5]);
    at->results[1] = in_7(v[6], v[5], v[4], v[3], v[2], v[1], v[0]);
    at->results[2] = in_12(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10],
                   v[11]);
    at->results[3] = in_chain(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9]);
    at->results[4] = in_narrow(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9],
                   v[10], v[11]);
    return 0;
}
"""
# the same caller, with the functions declared only
DECLARED = r"""
long long in_6(long long, long long, long long, long long, long long, long long);
long long in_7(long long, long long, long long, long long, long long, long long, long long);
typedef unsigned long long u;
u in_12(u, u, u, u, u, u, u, u, u, u, u, u);
u in_chain(u, u, u, u, u, u, u, u, u, u);
int in_narrow(signed char, unsigned char, short, unsigned short, int, unsigned int,
          signed char, unsigned char, short, unsigned short, int, unsigned int);
"""
# one BPF program that reaches them all, so that one image holds them all
ROOT = r"""
#include "%s"
__attribute__((section("syscall"))) int root(unsigned long long *v)
{
    v[0] = in_6(v[0], v[1], v[2], v[3], v[4], v[5]) + in_7(v[0], v[1], v[2], v[3], v[4], v[5],
           v[6]) + in_12(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10],
           v[11]) + in_chain(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9]) +
           in_narrow(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11]);
    return 0;
}
"""


def bmi2():
    return " bmi2 " in Path("/proc/cpuinfo").read_text()


@pytest.mark.parametrize("opt", ["0", "2"])
@pytest.mark.parametrize("level", [0, 2])
def test_native_code_calls_the_image(opt, level, compiler):
    config = BuildConfig(compiler.name, opt, "v4", "hidden")
    noinline = "#pragma clang attribute push(__attribute__((noinline)), apply_to = function)\n"
    text = noinline + ROOT % SOURCE.absolute() + "#pragma clang attribute pop\n"
    built = run_compiler(compiler, driver.bpf_args(config), source=text)
    assert built.output, built.why
    (program,) = load_object(built.output, fill_names=True).programs
    image = x86_64.compile(verifier.fixup(program), x86_64.Options(bmi2=bmi2()))

    def ir(text):
        return run_compiler(compiler, driver.native_args(), source=text).output.decode()

    ours = native.build_caller(ir(DECLARED + CALLER.partition("\n#include")[2].partition("\n")[2]),
                               image, (level,))[level]  # fmt: skip
    theirs = native.build(ir(CALLER % SOURCE.absolute()), (level,))[level]
    chance = random.Random(0)
    vectors = [
        struct.pack("<12Q40x", *(chance.getrandbits(chance.choice((1, 8, 16, 32, 64)))
                                 for _ in range(12)))
        for _ in range(500)
    ]  # fmt: skip
    a, b = native.run_many([(ours, "caller", vectors), (theirs, "caller", vectors)])
    assert all(isinstance(outcome, Returned) for outcome in a)
    assert list(a) == list(b)


def test_an_image_that_needs_more_is_refused(compiler):
    config = BuildConfig(compiler.name, "2", "v4", "hidden")
    text = 'static int (*now)(void) = (void *)5;\n__attribute__((section("syscall"))) int f(void) '
    built = run_compiler(compiler, driver.bpf_args(config), source=text + "{ return now(); }")
    (program,) = load_object(built.output).programs
    with pytest.raises(HarnessError, match="refers to helper 5"):
        native.build_caller("", x86_64.compile(program))
