"""Stack, context, maps: which accesses the verifier allows, and what they yield."""

from __future__ import annotations

import pytest

from harness.model import MapDef
from harness.tests.programs import HASH, program, text, verdict

DATA = MapDef(".data", 2, 4, 16, 1, data=bytes(16))
RODATA = MapDef(
    ".rodata", 2, 4, 16, 1, flags=0x80, data=bytes([4, 0, 0, 0, 200]) + bytes(11), readonly=True
)
READ_ONLY = "write into map forbidden, value_size=16 off=0 size=8"
PAIR = (HASH, DATA, RODATA)


def said(body: str, type: str = "syscall") -> str:  # noqa: A002
    return verdict(program(text(f"{body}; exit"), type=type, maps=PAIR))


LOOKUP = (
    "r6 = r1; *(u32 *)(r10 - 4) = 0; r1 = map[idx:0]; r2 = r10; r2 += -4; call 1; "
    "if r0 != 0 goto +1; exit; "
)
RANDOM = "r6 = r1; call 7; "  # r0: any 32-bit number


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("*(u64 *)(r10 - 8) = 1; r0 = *(u64 *)(r10 - 8)", ""),
        ("*(u8 *)(r10 - 512) = 1; r0 = 0", ""),
        ("*(u64 *)(r10 - 512) = 1; r0 = 0", ""),
        ("*(u8 *)(r10 - 513) = 1; r0 = 0", "invalid write to stack R10 off=-513 size=1"),
        ("*(u64 *)(r10 - 516) = 1; r0 = 0", "misaligned stack access off 0+-516 size 8"),
        ("*(u8 *)(r10 + 0) = 1; r0 = 0", "invalid write to stack R10 off=0 size=1"),
        ("r1 = *(u64 *)(r10 - 520); r0 = 0", "invalid read from stack R10 off=-520 size=8"),
        ("r0 = *(u8 *)(r10 + 0)", "invalid read from stack R10 off=0 size=1"),
        ("*(u64 *)(r10 - 12) = 1; r0 = 0", "misaligned stack access off 0+-12 size 8"),
        ("*(u32 *)(r10 - 6) = 1; r0 = 0", "misaligned stack access off 0+-6 size 4"),
        # what is not written may be read by the privileged, but is not a pointer
        ("r0 = *(u64 *)(r10 - 8)", ""),
        ("r1 = *(u64 *)(r10 - 8); r0 = *(u8 *)(r1 + 0)", "R1 invalid mem access 'scalar'"),
        # pointers come back whole
        ("*(u64 *)(r10 - 8) = r1; r2 = *(u64 *)(r10 - 8); r0 = *(u64 *)(r2 + 0)", ""),
        (
            "*(u64 *)(r10 - 8) = r1; *(u8 *)(r10 - 8) = 0; r2 = *(u64 *)(r10 - 8); "
            "r0 = *(u64 *)(r2 + 0)",
            "R2 invalid mem access 'scalar'",
        ),
        (
            "*(u64 *)(r10 - 8) = r1; r2 = *(u32 *)(r10 - 8); r0 = *(u64 *)(r2 + 0)",
            "invalid size of register fill",
        ),
        ("*(u32 *)(r10 - 8) = r1; r0 = 0", "invalid size of register spill"),
        # numbers come back with their bounds
        ("r2 = 8; *(u64 *)(r10 - 8) = r2; r3 = *(u64 *)(r10 - 8); r1 += r3; r0 = 0", ""),
        (
            f"{RANDOM}r0 &= 7; *(u64 *)(r10 - 16) = r0; r3 = *(u64 *)(r10 - 16); r2 = r10; "
            "r2 += -8; r2 += r3; *(u8 *)(r2 + 0) = 0; r0 = 0",
            "",
        ),
        (
            f"{RANDOM}r0 &= 7; *(u32 *)(r10 - 16) = r0; r3 = *(u32 *)(r10 - 16); r2 = r10; "
            "r2 += -8; r2 += r3; *(u8 *)(r2 + 0) = 0; r0 = 0",
            "",
        ),
        (
            f"{RANDOM}r0 &= 7; *(u64 *)(r10 - 16) = r0; *(u8 *)(r10 - 9) = 9; "
            "r3 = *(u64 *)(r10 - 16); r2 = r10; r2 += -8; r2 += r3; *(u8 *)(r2 + 0) = 0; r0 = 0",
            "math between fp pointer and register with unbounded min value is not allowed",
        ),
        # an unknown offset within bounds: written as a whole, or not at all
        (
            f"{RANDOM}r0 &= 8; r2 = r10; r2 += -16; r2 += r0; *(u64 *)(r2 + 0) = 1; "
            "r0 = *(u64 *)(r10 - 16)",
            "",
        ),
        (
            f"{RANDOM}r0 &= 16; r2 = r10; r2 += -16; r2 += r0; *(u64 *)(r2 + 0) = 1; r0 = 0",
            "invalid variable-offset write to stack R2 "
            "var_off=(0x0; 0xfffffffffffffff0) off=0 size=8",
        ),
        (
            f"{RANDOM}*(u64 *)(r10 - 8) = r6; r0 &= 8; r2 = r10; r2 += -16; r2 += r0; "
            "*(u64 *)(r2 + 0) = 1; r3 = *(u64 *)(r10 - 8); r0 = *(u64 *)(r3 + 0)",
            "R3 invalid mem access 'scalar'",
        ),
    ],
)
def test_stack(body: str, message: str) -> None:
    assert said(body) == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("r0 = *(u64 *)(r1 + 0)", ""),
        ("*(u64 *)(r1 + 0) = 1; r0 = 0", ""),
        ("r0 = *(u8 *)(r1 + 3)", ""),
        ("r0 = *(u32 *)(r1 + 2)", ""),  # x86-64 allows what is not aligned, and so do they
        ("r0 = *(u64 *)(r1 - 8)", "invalid access to context, ctx_size=65535 off=-8 size=8"),
        ("r2 = 65520; r1 += r2; r0 = *(u64 *)(r1 + 7)", ""),
        (
            "r2 = 65520; r1 += r2; r0 = *(u64 *)(r1 + 8)",
            "invalid access to context, ctx_size=65535 off=65528 size=8",
        ),
        ("*(u64 *)(r1 + 0) = r10; r0 = 0", ""),  # the privileged may see addresses
        ("r2 = *(u64 *)(r1 + 0); r2 &= 4095; r1 += r2; r0 = *(u64 *)(r1 + 0)", ""),
        (
            "r2 = *(u64 *)(r1 + 0); r1 += r2; r0 = *(u64 *)(r1 + 0)",
            "math between ctx pointer and register with unbounded min value is not allowed",
        ),
        ("lock *(u64 *)(r1 + 0) += r1; r0 = 0", "BPF_ATOMIC stores into R1 ctx is not allowed"),
    ],
)
def test_context_of_a_syscall_program(body: str, message: str) -> None:
    assert said(body) == message


@pytest.mark.parametrize(
    ("type", "body", "message"),
    [
        ("kprobe", "r0 = *(u64 *)(r1 + 112)", ""),
        ("kprobe", "r0 = *(u64 *)(r1 + 168)", "invalid bpf_context access off=168 size=8"),
        ("kprobe", "r0 = *(u32 *)(r1 + 2)", "invalid bpf_context access off=2 size=4"),
        ("kprobe", "*(u64 *)(r1 + 0) = 1; r0 = 0", ""),
        ("tracepoint", "*(u64 *)(r1 + 8) = 1; r0 = 0", "invalid bpf_context access off=8 size=8"),
        ("tracepoint", "r0 = *(u64 *)(r1 + 8)", ""),
        ("tracepoint", "r0 = *(u64 *)(r1 + 0)", "invalid bpf_context access off=0 size=8"),
        ("raw_tracepoint", "r0 = *(u64 *)(r1 + 8)", ""),
        ("raw_tracepoint", "r0 = *(u32 *)(r1 + 8)", ""),
    ],
)
def test_contexts(type: str, body: str, message: str) -> None:  # noqa: A002
    assert said(body, type) == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("r0 = *(u64 *)(r0 + 0)", ""),
        ("r0 = *(u64 *)(r0 + 8)", ""),
        ("*(u64 *)(r0 + 8) = 1; r0 = 0", ""),
        ("lock *(u64 *)(r0 + 8) += r6; r0 = 0", ""),
        ("r1 = 1; lock *(u64 *)(r0 + 8) += r1; r0 = 0", ""),
        (
            "r0 = *(u64 *)(r0 + 9)",
            "invalid access to map value, value_size=16 off=9 size=8",
        ),
        (
            "r0 = *(u8 *)(r0 - 1)",
            "invalid access to map value, value_size=16 off=-1 size=1",
        ),
        # the sum may be 0, but the pointer alone counts as far away
        (
            "r0 += -1; r0 = *(u8 *)(r0 + 1)",
            "R0 unbounded memory access, make sure to bounds check any such access",
        ),
        ("*(u64 *)(r0 + 0) = r6; r0 = 0", ""),  # pointers may leak, to the privileged
        (
            "r7 = *(u64 *)(r0 + 0); r0 += r7; r0 = *(u8 *)(r0 + 0)",
            "math between map_value pointer and register with unbounded min value is not allowed",
        ),
        ("r7 = *(u64 *)(r0 + 0); r7 &= 15; r0 += r7; r0 = *(u8 *)(r0 + 0)", ""),
        (
            "r7 = *(u64 *)(r0 + 0); r7 &= 15; r0 += r7; r0 = *(u16 *)(r0 + 0)",
            "invalid access to map value, value_size=16 off=15 size=2",
        ),
        (
            "r7 = *(u8 *)(r0 + 0); r0 -= r7; r0 = *(u8 *)(r0 + 0)",
            "R0 min value is negative, either use unsigned index or do a if (index >=0) check.",
        ),
        ("r7 = *(u32 *)(r0 + 0); if r7 > 15 goto +1; r0 += r7; r0 = *(u8 *)(r0 + 0)", ""),
        ("r1 = r0; r1 -= r0; r0 = 0", ""),
        ("r0 *= 2", "R0 pointer arithmetic with *= operator prohibited"),
        ("w0 += 1", "R0 32-bit pointer arithmetic prohibited"),
        ("r2 = r10; r2 -= 8; r0 = 0", "R2 subtraction from stack pointer prohibited"),
        ("r0 += r6", "R0 pointer += pointer prohibited"),
        ("r1 = 1; r1 -= r0; r0 = 0", "R1 tried to subtract pointer from scalar"),
    ],
)
def test_values_of_a_hash(body: str, message: str) -> None:
    assert said(LOOKUP + body) == message


def test_a_value_that_may_be_missing() -> None:
    unchecked = LOOKUP.replace("if r0 != 0 goto +1; exit; ", "")
    assert said(unchecked + "r0 = *(u64 *)(r0 + 0)") == (
        "R0 invalid mem access 'map_value_or_null'"
    )
    assert said(unchecked + "r0 += 8") == (
        "R0 pointer arithmetic on map_value_or_null prohibited, null-check it first"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("r1 = map[idx:1]+8; r0 = *(u64 *)(r1 + 0)", ""),
        (
            "r1 = map[idx:1]+8; r0 = *(u64 *)(r1 + 8)",
            "invalid access to map value, value_size=16 off=16 size=8",
        ),
        (
            "r1 = map[idx:1]+16; r0 = 0",
            "invalid access to map value pointer, value_size=16 off=16",
        ),
        ("r1 = map[idx:1]+4; r0 = *(u64 *)(r1 + 0)", ""),
        ("r1 = map[idx:2]+0; *(u64 *)(r1 + 0) = 1; r0 = 0", READ_ONLY),
        # read-only data are known: 4 is an offset, 200 is too far
        (
            "r1 = map[idx:2]+0; r2 = *(u32 *)(r1 + 0); r3 = r10; r3 += -8; r3 += r2; "
            "*(u32 *)(r3 + 0) = 1; r0 = 0",
            "",
        ),
        (
            "r1 = map[idx:2]+0; r2 = *(u8 *)(r1 + 4); r3 = r10; r3 += r2; "
            "*(u8 *)(r3 + 0) = 1; r0 = 0",
            "invalid write to stack R3 off=200 size=1",
        ),
        (
            "r1 = map[idx:2]+0; r2 = *(s8 *)(r1 + 4); r3 = r10; r3 += r2; "
            "*(u8 *)(r3 + 0) = 1; r0 = 0",
            "",
        ),
    ],
)
def test_global_data(body: str, message: str) -> None:
    assert said(body) == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("r2 = 1; *(u64 *)(r10 - 8) = r2; lock *(u64 *)(r10 - 8) += r2; r0 = 0", ""),
        ("r2 = 1; lock *(u64 *)(r10 - 8) += r2; r0 = 0", ""),
        ("r2 = 1; lock *(u32 *)(r10 - 6) += r2; r0 = 0", "misaligned stack access off 0+-6 size 4"),
        (
            "r2 = 1; *(u64 *)(r10 - 8) = r2; r2 = atomic_fetch_add((u64 *)(r10 - 8), r2); r0 = r2",
            "",
        ),
        ("r2 = 1; r2 = xchg_64(r10 - 8, r2); r0 = 0", ""),
        ("r2 = 1; r0 = cmpxchg_64(r10 - 8, r0, r2)", "R0 !read_ok"),
        ("r2 = 1; r0 = 5; r0 = cmpxchg_64(r10 - 8, r0, r2)", ""),
    ],
)
def test_atomics(body: str, message: str) -> None:
    assert said(body) == message
