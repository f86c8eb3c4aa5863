"""The bpf_conformance protocol: transcripts as its runner makes them, one process each.

The runner writes bytes as hexadecimal digits with two spaces between, ends the program
with a newline, and reads r0 back in hexadecimal; the order of arguments is memory, the
options it was told to pass on, then its own ``--elf``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from harness.isa.asm import assemble
from harness.isa.codec import encode


def plugin(
    *arguments: str, program: bytes | str, check: bool = False
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "harness", "plugin", *arguments],
        input=program if isinstance(program, bytes) else program.encode(),
        capture_output=True,
        timeout=120,
        check=check,
    )


def spaced(data: bytes) -> str:
    """Write *data* as the runner does."""
    return "".join(f"{byte:02x}  " for byte in data)


def hexed(text: str) -> str:
    return spaced(encode(assemble(text).insns)) + "\n"


SEVEN = """
*(u64 *)(r11 - 16) = 70
*(u64 *)(r11 - 8) = r2
r1 = 1; r2 = 2; r3 = 3; r4 = 4; r5 = 5
call seven
exit
seven:
r0 = *(u64 *)(r11 + 8)
r1 = *(u64 *)(r11 + 16)
r0 *= r1
exit
"""

RETURNS = (
    # program, memory, options, r0
    ("r0 = 0\nexit", "", (), "0"),
    ("w0 = -1\nexit", "", ("--jit",), "ffffffff"),
    ("r0 = -1\nexit", "", ("--interpret",), "f" * 16),
    ("r0 = r2\nexit", "aa bb cc", ("--jit",), "3"),
    ("r0 = r2\nexit", "aa bb cc", ("--interpret",), "3"),
    ("r0 = r2\nexit", "", (), "0"),
    ("r0 = *(u32 *)(r1 + 1)\nexit", "aa 11 22 33 44", ("--jit",), "44332211"),
    ("r0 = *(u32 *)(r1 + 1)\nexit", "aa 11 22 33 44", ("--interpret",), "44332211"),
    ("*(u8 *)(r1 + 0) = 7; r0 = *(u8 *)(r1 + 0)\nexit", "aa", (), "7"),
    ("r0 = 1; w1 = 0; r0 /= r1\nexit", "", (), "0"),
    ("r1 = -1; call 5; r1 = r0; r0 = 1; if r1 != 0 goto +1; r0 = 0\nexit", "", (), "1"),
    ("r1 = 1; call f; exit; f: r0 = r1; r0 += 4\nexit", "", (), "5"),
    (SEVEN, "00 01 02", ("--jit",), "d2"),
    (SEVEN, "00 01 02", ("--interpret",), "d2"),
    ("r0 = 1; r0 <<= 68\nexit", "", ("--no-verify",), "10"),
    ("r0 = 1; r0 <<= 68\nexit", "", ("--interpret", "--no-verify"), "10"),
)


@pytest.mark.parametrize(("text", "memory", "options", "r0"), RETURNS)
def test_returns(text: str, memory: str, options: Sequence[str], r0: str) -> None:
    given = [spaced(bytes.fromhex(memory))] if memory else []
    done = plugin(*given, *options, program=hexed(text))
    assert (done.stdout.decode(), done.stderr.decode()) == (f"{r0}\n", "")
    assert done.returncode == 0


FAILS = (
    # program, arguments, status, message
    ("r0 = r3\nexit", (), 1, "refused at insn 0: R3 !read_ok"),
    ("r0 = 1; r0 <<= 68\nexit", (), 1, "refused at insn 1: invalid shift 68"),
    ("r0 = *(u8 *)(r11 + 8)\nexit", (), 1, "refused at insn 0: R11 is invalid"),
    ("goto -2", ("--no-verify",), 1, "jump out of range from insn 0 to -1"),
    (
        "r0 = *(u8 *)(r1 + 0)\nexit",
        ("--interpret", "--no-verify"),
        1,
        "did not return: Trapped(kind='access'",
    ),
    ("r0 = 0\nexit", ("--jti",), 2, "no option --jti; usage: crosscheck plugin"),
    ("r0 = 0\nexit", ("--jit", "zz"), 2, "no option zz"),
    ("r0 = 0\nexit", ("abc",), 2, "memory is hexadecimal bytes"),
    ("r0 = 0\nexit", ("--jit", "--interpret"), 2, "either --jit or --interpret"),
)


@pytest.mark.parametrize(("text", "arguments", "status", "message"), FAILS)
def test_says_why_not(text: str, arguments: Sequence[str], status: int, message: str) -> None:
    done = plugin(*arguments, program=hexed(text))
    assert (done.returncode, done.stdout) == (status, b"")
    error = done.stderr.decode()
    assert error.startswith("crosscheck plugin: ")
    assert message in error
    assert error.count("\n") == 1


NO_PROGRAMS = (
    # standard input, options, status, message
    (b"", (), 1, "no instructions"),
    (b"\n", (), 1, "no instructions"),
    (b"95 00 00 00", (), 1, "8"),
    (b"not hexadecimal", (), 2, "hexadecimal text on standard input"),
    (b"\xff\xfe", (), 2, "hexadecimal text on standard input"),
    (b"", ("--elf",), 1, "ELF"),
    (b"7f 45 4c 46", ("--elf",), 1, "ELF"),
)


@pytest.mark.parametrize(("data", "options", "status", "message"), NO_PROGRAMS)
def test_input_that_is_no_program(
    data: bytes, options: Sequence[str], status: int, message: str
) -> None:
    done = plugin(*options, program=data)
    assert (done.returncode, done.stdout) == (status, b"")
    assert message in done.stderr.decode()
    assert done.stderr.decode().count("\n") == 1


def test_help() -> None:
    done = plugin("--help", program="")
    assert done.returncode == 0
    assert done.stdout.startswith(b"usage: crosscheck plugin [MEMORY]")


@pytest.fixture(scope="session")
def objects(clang: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Objects of one function, by the section it is in."""
    folder = tmp_path_factory.mktemp("objects")
    out = {}
    for section in (".text", "syscall"):
        place = "" if section == ".text" else f'__attribute__((section("{section}")))'
        source = folder / "source.c"
        source.write_text(
            "static __attribute__((noinline)) long seven(long a, long b, long c, long d, long e,"
            " long f, long g) { return f * g; }\n"
            f"{place} long entry(unsigned char *p) {{ return seven(1, 2, 3, 4, 5, p[1], 70); }}\n"
        )
        target = folder / "object.o"
        subprocess.run(
            [*clang, "-target", "bpf", "-O2", "-g", "-c", str(source), "-o", str(target)],
            check=True,
            capture_output=True,
        )
        out[section] = target.read_bytes()
    return out


@pytest.mark.parametrize("section", [".text", "syscall"])
def test_elf(objects: dict[str, bytes], section: str) -> None:
    for program in (spaced(objects[section]) + "\n", objects[section]):
        done = plugin("00  03  ", "--jit", "--elf", program=program)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"d2\n", b"")


def test_imports_no_more_than_a_test_needs() -> None:
    """The runner starts hundreds of processes; what reports and C need is not for them."""
    code = (
        "import sys; from harness.__main__ import main\n"
        "sys.argv[1:] = ['plugin', '--interpret']\n"
        "status = main()\n"
        "heavy = {'argparse', 'asyncio', 'capstone', 'elftools', 'json', 'llvmlite', 'rich',"
        " 'subprocess', 'tempfile', 'tomlkit', 'tomllib', 'unicorn'}\n"
        "print(status, *sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=hexed("r0 = 0x2a\nexit").encode(),
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == b"2a\n0\n"
