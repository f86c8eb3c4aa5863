from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from harness.isa.asm import AsmError, assemble
from harness.isa.codec import HIGH, decode, encode
from harness.isa.disasm import format_insn
from harness.isa.forms import ALL_FORMS
from harness.isa.insn import (
    Alu,
    Atomic,
    Call,
    Exit,
    Goto,
    Insn,
    Jump,
    Load,
    LoadImm,
    LoadPacket,
    PercpuAddr,
    Raw,
    Store,
    StoreImm,
)
from harness.isa.stack_args import Dialect

# What both assemblers take, and must read alike: spellings beyond the disassembler's.
SPELLINGS = """
r1 = r2; r3 = r4
r1 = r2 # comment; r3 = r4
r1 = r2 // comment
r1=5
r1=r2
r1+=r2
r1 + = r2
r1 s>>= 3
r1 s >>= 3
r1 s>>=3
r1 s/= r2
w1 s%= 5
r1 = - 5
r1 = 0xffffffff
r1 = 4294967295
w1 = 0xffffffff
r1 = 0xffffffffffffffff ll
r1 = -1 ll
r1 = - r1
r1 = (s8) r2
R1 = 5
r1 = 'a'
r1 = 0b101
r1 = 010
r1 = 1+2
r1 = 1 << 4
r1 = 1 + 2 << 4
r1 = 6 | 1 + 8
r1 = 12 - 2 - 3
r1 = 3 * 4 % 5
r1 = -7 / 2
r1 = -7 % 3
r1 = *(u64*)(r2+8)
r1 = *(u64 *)(r2 +8)
r1 = *(u64 *)(r2 -8)
r1 = *(u32 *)(r2 + 8)
r1 = *(u8 *)(r2 + 8)
r1 = *(u64 *)(r11 + 8)
*(u64 *)(r11 - 8) = r1
*(u64 *)(r11 - 16) = -1
*(u32 *)(r1 + 8) = r2
*(u8 *)(r1 + 8) = 500
*(u64 *)(r1 + 8) = 0xffffffff
if r1 == r2 goto 3
if r1 s>r2 goto -3
if r1 == 0xffffffff goto +1
if w1 & 5 goto +0x3
goto 3
goto -3
gotol +3
may_goto 3
call -1
lock *(u32 *)(r1 + 0) += r2
ld_pseudo r1, 1, 5
first: goto first
goto after
if r1 s< -5 goto after
may_goto after
after: r1 = 1
1: goto 1b
if r1 == 1 goto 1f
if r1 == 1 goto 1b
1: goto 1b
a: b: exit
$L: exit
.L: goto .L
"a b": goto "a b"
foo.bar: goto foo.bar
.globl foo
.p2align 3
.byte 1, 2, 3, 4, 5, 6, 7, -8
.short 1, 0xffff
.long -2
.8byte 0x123456789abcdef0, -1
.quad 149
"""


def built(source: str, llvm_tool: Callable[[str], list[str]]) -> bytes:
    """Return the .text that llvm-mc makes of *source*."""
    command = [*llvm_tool("llvm-mc"), "-triple=bpf", "-mcpu=v4", "-filetype=obj", "-", "-o", "-"]
    done = subprocess.run(command, input=source.encode(), capture_output=True, check=False)
    assert not done.stderr, done.stderr.decode()
    return text_of(ELFFile(io.BytesIO(done.stdout)), ".text")


def text_of(elf: ELFFile, name: str) -> bytes:
    section = elf.get_section_by_name(name)
    assert section is not None
    code = section.data()
    assert isinstance(code, bytes)
    return code


def test_spellings_are_read_as_llvm_mc_does(llvm_tool: Callable[[str], list[str]]) -> None:
    assert encode(assemble(SPELLINGS).insns) == built(SPELLINGS, llvm_tool)


def test_forms_are_read_as_llvm_mc_does(llvm_tool: Callable[[str], list[str]]) -> None:
    """All but what LLVM's text loses: kinds of call and per-CPU addresses."""
    insns: list[Insn] = []
    for insn in ALL_FORMS:
        if isinstance(insn, PercpuAddr) or (isinstance(insn, Call) and insn.kind != "helper"):
            continue
        insns += (insn, HIGH) if isinstance(insn, LoadImm) else (insn,)
    text = "".join(format_insn(insn) + "\n" for insn in insns)
    assert assemble(text).insns == tuple(insns)
    assert built(text, llvm_tool) == encode(insns)


C = """
#define SEC(name) __attribute__((section(name), used))
#define STATIC static __attribute__((noinline))
struct args { long a[8]; short s; char c; };
STATIC long f(long a, int b, short c, long d, unsigned e, long g, char h)
{ asm volatile ("%0 += 1" : "+r"(g)); return a / (b | 1) + c * d - (e >> 3) + g % (h | 1); }
STATIC void g(struct args *p, long b, long c, long d, long e, long h)
{ __sync_fetch_and_add(&p->a[1], b); p->s = c; p->c = d; p->a[2] = __builtin_bswap64(e ^ h); }
SEC("syscall") long entry(struct args *p)
{ for (int i = 0; i < p->a[0]; i++) { p->a[3] += f(i, p->s, p->c, p->a[4], p->a[5], p->a[1], p->c);
  if (p->a[3] > 0x123456789a) g(p, 1, 2, 3, 4, i); } return p->a[3]; }
"""


@pytest.mark.parametrize("opt", ["-O0", "-O2"])
def test_output_of_clang(opt: str, clang: list[str], tmp_path: Path) -> None:
    """The text of clang -S is the program of clang -c, with calls resolved."""
    source = tmp_path / "c.c"
    source.write_text(C)
    command = [*clang, "--target=bpf", "-mcpu=v4", "-g", opt, str(source), "-o"]
    subprocess.run([*command, str(tmp_path / "c.s"), "-S"], check=True)
    subprocess.run([*command, str(tmp_path / "c.o"), "-c"], check=True)
    result = assemble((tmp_path / "c.s").read_text())
    order = (".text", "syscall") if result.labels["entry"] else ("syscall", ".text")
    elf = ELFFile(io.BytesIO((tmp_path / "c.o").read_bytes()))
    expected = decode(b"".join(text_of(elf, name) for name in order))
    calls = [slot for slot, insn in enumerate(result.insns) if isinstance(insn, Call)]
    assert len(result.insns) == len(expected)
    for slot, (ours, theirs) in enumerate(zip(result.insns, expected, strict=True)):
        if slot in calls:
            assert isinstance(theirs, Call)
            target = slot + 1 + getattr(ours, "imm", 0)
            assert target in (result.labels["f"], result.labels["g"])
        else:
            assert ours == theirs
    assert len(calls) == 2
    assert any(isinstance(insn, Load) and insn.src == 11 for insn in result.insns)


def test_output_of_llvm_objdump(llvm_tool: Callable[[str], list[str]], tmp_path: Path) -> None:
    text = "f:\nr1 = 5 ll\nif r1 < r2 goto L\nif w1 s> 5 goto f\nL:\nr0 = 0\nexit\n"
    built_at = tmp_path / "x.o"
    command = [*llvm_tool("llvm-mc"), "-triple=bpf", "-filetype=obj", "-", "-o", str(built_at)]
    subprocess.run(command, input=text.encode(), check=True)
    command = [*llvm_tool("llvm-objdump"), "-d", "--no-show-raw-insn", str(built_at)]
    dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    body = dump[dump.index("0000000000000000") :]
    result = assemble(body)
    assert result.insns == assemble(text).insns
    assert result.labels["f"] == 0


def test_the_kernels_form_and_its_log() -> None:
    text = """
; int f(int *p) @ a.c:3
0: (79) r6 = *(u64 *)(r1 +0)          ; R1=ctx() R6=scalar(id='x)
1: (18) r1 = 0xffff888100000005       ; R1=1
3: (18) r2 = map[id:5][0]+8
5: (18) r3 = map[idx:2]
7: (18) r4 = subprog[+6]
9: (85) call bpf_map_lookup_elem#1    ; R0=map_value_or_null(id=1)
10: (85) call pc+3
11: (85) call bpf_iter_num_new#4711
12: (c3) r2 = atomic_fetch_add((u32 *)(r1 +0), r2)
13: (db) r0 = atomic64_cmpxchg((u64 *)(r1 -8), r0, r2)
14: (26) if w1 > 0xfffffffe goto pc-3
15: (05) goto pc+0
16: (30) r0 = *(u8 *)skb[5]
17: (50) r0 = *(u8 *)skb[r1 + -4]
18: (bf) r1 = &(void __percpu *)(r2)
19: (95) exit
"""
    assert assemble(text).insns == (
        Load(8, 6, 1, 0),
        LoadImm(1, 0, 0xFFFF888100000005),
        HIGH,
        LoadImm(2, 2, 8 << 32 | 5),
        HIGH,
        LoadImm(3, 5, 2),
        HIGH,
        LoadImm(4, 4, 6),
        HIGH,
        Call("helper", 1),
        Call("subprog", 3),
        Call("kfunc", 4711),
        Atomic("add", 4, 1, 0, 2, fetch=True),
        Atomic("cmpxchg", 8, 1, -8, 2, fetch=True),
        Jump("gt", 32, 1, None, -2, -3),
        Goto(0),
        LoadPacket("abs", 1, 0, 5),
        LoadPacket("ind", 1, 1, -4),
        PercpuAddr(1, 2),
        Exit(),
    )


def test_labels_and_calls() -> None:
    result = assemble("""
        .text
        .globl main
        .type main,@function
    main:                       # @main
        r1 = sub ll
        call sub
        call bpf_ktime_get_ns
        call bpf_loop           // the label, not the helper
        gotol main
    sub: bpf_loop:
        exit
        .size main, .-main
    """)
    assert result.labels == {"main": 0, "sub": 6, "bpf_loop": 6}
    assert result.insns == (
        LoadImm(1, 4, 5),
        HIGH,
        Call("subprog", 3),
        Call("helper", 5),
        Call("subprog", 1),
        Goto(-6, long=True),
        Exit(),
    )


def test_addresses_of_functions_before_are_negative() -> None:
    result = assemble("f: exit\ng: r1 = f ll\ncall f\nexit")
    assert result.insns[1] == LoadImm(1, 4, 0xFFFFFFFE)
    assert result.insns[3] == Call("subprog", -4)


def test_sections_without_code_are_skipped() -> None:
    result = assemble("""
        .section xdp/frags,"ax",@progbits
    a:  call b
        exit
        .section .rodata,"a",@progbits
    t:  .asciz "anything \\" goes ("
        .zero 8
        .data
        .ascii "x"
        .text
    b:  exit
        .section .BTF,"",@progbits
        .byte 1
        .section ".text.hot","ax"
    c:  exit
    """)
    assert result.labels == {"a": 0, "b": 2, "c": 3}
    assert result.insns == (Call("subprog", 1), Exit(), Exit(), Exit())


def test_data_becomes_instructions() -> None:
    result = assemble("a: .quad 0x00000005_00000118".replace("_", "") + ", 7 << 32\nb: .quad -1\n")
    assert result.insns == (LoadImm(1, 0, 7 << 32 | 5), HIGH, Raw(0xFF, 15, 15, -1, -1))
    assert result.labels == {"a": 0, "b": 2}


def test_numeric_labels_are_the_nearest() -> None:
    result = assemble("1: goto 1f\n1: goto 1b\n goto 1f\n1: exit")
    assert result.insns == (Goto(0), Goto(-1), Goto(0), Exit())


def test_addresses() -> None:
    assert assemble("r1 = *(u64 *)(r2)").insns == (Load(8, 1, 2, 0),)
    assert assemble("*(u8 *)(r10 - 1 - 7) = 2 + 3").insns == (StoreImm(1, 10, -8, 5),)
    assert assemble("*(u64 *)(r11 - 8 * 3) = r1").insns == (Store(8, 11, -24, 1),)
    assert assemble("r1 = (1 << 4)").insns == (Alu("mov", 64, 1, None, 16),)


def test_stack_argument_counts_are_kept() -> None:
    result = assemble("main: call f\nexit\nf: .stack_args 2\nr0 = *(u64 *)(r11 + 8)\nexit")
    assert result.incoming == {2: 2}


# fmt: off
ERRORS = (
    # text, then line, column and what is wrong
    ("r1 = 4294967296",                      "1:6: 4294967296 does not fit 32 bits; write 'll'"),
    ("\n r12 = 1",                           "2:2: there is no register r12"),
    ("exit\n  r1 = r2 r3",
     "2:11: expected the end of the instruction, found 'r3'"),
    ("r1 =",                                 "1:5: expected a number, found the end of the line"),
    ("r1",
     "1:3: expected an operator, found the end of the line"),
    ("r1 ?= 2",                              "1:4: expected an operator, found '?='"),
    ("r1 += w1",                             "1:7: expected a 64-bit register, found 'w1'"),
    ("w1 = r1",                              "1:6: expected a 32-bit register, found 'r1'"),
    ("r1 = -r2",                             "1:7: a register can only be negated in place"),
    ("w1 = (s32)w2",                         "1:7: there is no sign extension 's32' to 32 bits"),
    ("r1 = be16 r2",                         "1:1: a byte swap is of a 64-bit register in place"),
    ("w1 = 5 ll",                            "1:1: a 64-bit immediate is loaded to a 64-bit"),
    ("r1 = 1 << 64 ll",                      "1:8: shift by 64"),
    ("r1 = 1 / 0",                           "1:8: division by zero"),
    ("r1 = 0x10000000000000000 ll",          "1:6: 18446744073709551616 does not fit 64 bits"),
    ("r1 = foo",                             "1:9: expected 'll', found the end of the line"),
    ("r1 = foo ll",                          "1:6: there is no label 'foo' in the code"),
    ("r1 = frob(r2)",                        "1:6: there is no instruction 'frob'"),
    ("w1 = *(u64 *)(r2 + 8)",                "1:1: this load fills a 64-bit register: write r1"),
    ("w1 = *(s8 *)(r2 + 8)",                 "1:1: this load fills a 64-bit register: write r1"),
    ("r1 = *(s64 *)(r2 + 8)",                "1:8: expected a type, found 's64'"),
    ("r1 = *(u64 *)(r2 + 0x8000)",           "1:18: offset 32768 does not fit 16 bits"),
    ("r1 = *(u64 *)(w2 + 8)",                "1:15: expected a 64-bit register, found 'w2'"),
    ("r1 = *(u64 *)(r2 + 8",                 "1:21: expected ')', found the end of the line"),
    ("*(u64 *)(r1 + 8) = w2",                "1:20: expected a 64-bit register, found 'w2'"),
    ("*(s8 *)(r1 + 8) = 1",                  "1:3: expected an unsigned type"),
    ("if w1 == r2 goto +3",                  "1:10: expected a 32-bit register, found 'r2'"),
    ("if r1 = r2 goto +3",                   "1:7: expected a comparison, found '='"),
    ("if r1 == r2 goto +40000",              "1:18: offset 40000 does not fit 16 bits"),
    ("if r1 == r2",                          "1:12: expected 'goto', found the end of the line"),
    ("goto nowhere",                         "1:6: there is no label 'nowhere' in the code"),
    ("goto 2f\n1: exit",                     "1:6: there is no label '2f' in the code"),
    ("call nowhere",                         "1:6: there is no label 'nowhere' in the code"),
    ("a: exit\nb: exit\n a: exit",           "3:2: label 'a' is already defined in line 1"),
    ("lock *(u64 *)(r1 + 0) -= r2",          "1:23: there is no atomic '-=' of 64 bits"),
    ("lock *(u8 *)(r1 + 0) += w2",           "1:22: there is no atomic '+=' of 8 bits"),
    ("r2 = atomic_fetch_add((u64 *)(r1 + 0), r3)",
     "1:40: the operand and the result are one register"),
    ("r1 = cmpxchg_64(r1 + 0, r0, r2)",      "1:1: the value compared and returned is in r0"),
    ("r0 = cmpxchg_64(r1 + 0, r3, r2)",      "1:25: the value compared and returned is in r0"),
    ("w2 = xchg_64(r1 + 0, r2)",             "1:1: a 64-bit atomic has 64-bit registers"),
    ("r2 = atomic64_xchg((u32 *)(r1 + 0), r2)", "1:6: there is no atomic64_xchg of 32 bits"),
    ("r3 = *(u8 *)skb[5]",                   "1:1: a packet load is of u8, u16 or u32 to r0"),
    ("r1 = addr_space_cast(r2, 70000, 1)",   "1:26: address spaces are 16-bit numbers"),
    ("ld_pseudo r1, 9, 5",                   "1:15: ld_pseudo has kinds 0 to 6, not 9"),
    ("(b7) r1 = r2",                         "1:1: opcode (b7), but the text says (bf)"),
    ("mov r1, 5",                            "1:1: there is no instruction 'mov'"),
    ("r1 = r2 /* c */",                      "1:9: expected the end of the instruction, found '/'"),
    ("r1 = `",                               "1:6: unexpected '`'"),
    ("r1 = \u00a0",                          "1:6: unexpected '\\xa0'"),
    ("r1 = 9" + " * 99999999999" * 9,       "1:50: the value is too large"),
    ("5",                                    "1:1: expected an instruction, found '5'"),
    (".include \"x\"",                       "1:1: directive .include is not supported"),
    (".byte 1, 2\nexit",                     "1:1: 2 bytes of data are no whole slots"),
    (".byte 256",                            "1:7: 256 does not fit 8 bits"),
    (".p2align 4",                           "1:10: instructions are aligned to 8 bytes"),
    (".stack_args 8",                        "1:13: a function takes 0 to 7 stack arguments"),
    ("r1 = " + "(" * 500 + "1" + ")" * 500,  "1:56: the expression is nested too deeply"),
    ("r1 = " + "-" * 500 + "1",              "1:56: the expression is nested too deeply"),
    ("r1 = " + "9" * 5000,                   "1:6: a number of 5000 digits"),
)
# fmt: on


@pytest.mark.parametrize(("text", "message"), ERRORS)
def test_errors_name_line_and_column(text: str, message: str) -> None:
    with pytest.raises(AsmError, match=f"^{re.escape(message)}") as caught:
        assemble(text)
    assert message.startswith(f"{caught.value.line}:{caught.value.column}: ")
    assert "\n" not in str(caught.value)


def test_a_label_too_far_away() -> None:
    text = "goto far\n" + "r0 = 0\n" * 40000 + "far: exit"
    with pytest.raises(AsmError, match=r"^1:6: far: 40000 slots away does not fit .* use gotol"):
        assemble(text)
    assert assemble(text.replace("goto", "gotol")).insns[0] == Goto(40000, long=True)


PIECES = """
    r1 r2 w3 r11 = += s>>= s -r1 *( u64 s8 *) ( ) [ ] + - ~ 5 0x8 -1 ll if goto gotol may_goto pc
    call callx exit lock skb be16 (s8) atomic_fetch_add cmpxchg_64 xchg32_32 load_acquire L: ==
    store_release addr_space_cast ld_pseudo , : ; # // 1: 1f 1b L s> & (79) map[id: subprog[ <x>
    .8byte .section .text .stack_args << ' " \\ é \0
"""
pieces = st.lists(st.sampled_from([*PIECES.split(), "\n"]), max_size=30).map(" ".join)


@given(pieces | st.text(max_size=40), st.sampled_from(get_args(Dialect)))
def test_any_text_assembles_or_is_refused(text: str, dialect: Dialect) -> None:
    try:
        result = assemble(text, dialect=dialect)
    except AsmError as error:
        place = (error.line, error.column)
        assert place >= (1, 1) and error.line <= text.count("\n") + 1  # noqa: PT017, PT018
    else:
        assert decode(encode(result.insns)) == result.insns
