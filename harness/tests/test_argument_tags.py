"""Tags of global functions' arguments: trusted, untrusted, ctx, arena."""

from __future__ import annotations

import pytest

from harness.btf_lazy import LazyBtf
from harness.load import load_object
from harness.model import Accepted, Rejected
from harness.tests.kernel_side import kernel_types
from harness.toolchain import Compiler, run_compiler
from harness.verifier import Options, verify

HEAD = """
#define SEC(name) __attribute__((section(name), used))
#define tag(name) __attribute__((btf_decl_tag("arg:" name)))
typedef unsigned long u64;
struct task_struct { int pid; };
struct task_struct___mine { int pid; };
struct nothing { int a; };
struct file { int x; };
enum e { A };
struct pt_regs { u64 ip; };
struct __sk_buff { int len; };
static struct task_struct *(*current)(void) = (void *)158;
"""


@pytest.fixture(scope="module")
def kernel(compiler: Compiler) -> LazyBtf:
    return kernel_types(compiler)


def said(compiler: Compiler, kernel: LazyBtf, text: str) -> tuple[str, str]:
    arguments = ["--target=bpf", "-mcpu=v4", "-O2", "-g", "-c", "-Wno-everything"]
    built = run_compiler(compiler, arguments, source=HEAD + text)
    assert built.output is not None, built.why
    (made,) = load_object(built.output, kernel_btf=kernel).programs
    seen = verify(made, log_level=2, options=Options(kernel_btf=kernel))
    match seen.verdict:
        case Accepted():
            return "accept", seen.log
        case Rejected(message=message):
            return message, seen.log
    return str(seen.verdict), seen.log


def calls(argument: str, body: str, passed: str, section: str = "tp_btf/task_newtask") -> str:
    return (
        f"__attribute__((noinline)) int f({argument}) {{ {body} }}\n"
        f'SEC("{section}") int main_(u64 *ctx) '
        f'{{ int kept = f({passed}); asm volatile("" :: "r"(kept)); return 0; }}\n'
        'char terms[] SEC("license") = "GPL";\n'
    )


@pytest.mark.parametrize(
    ("argument", "body", "passed", "expected"),
    [
        ('struct task_struct *p tag("trusted")', "return p->pid;", "current()", "accept"),
        ('struct task_struct___mine *p tag("trusted")', "return p->pid;", "(void *)current()",
         "accept"),
        ('struct task_struct *p tag("trusted") tag("nullable")', "return p ? p->pid : 0;",
         "(void *)0", "accept"),
        ('struct task_struct *p tag("trusted") tag("nullable")', "return p->pid;", "current()",
         "R1 invalid mem access 'trusted_ptr_or_null_'"),
        ('struct task_struct *p tag("trusted")', "return p->pid;", "(void *)0",
         "R1 type=scalar expected=ptr_, trusted_ptr_, rcu_ptr_"),
        ('struct task_struct *p tag("trusted")', "return p->pid;", "(void *)ctx",
         "R1 type=ctx expected=ptr_, trusted_ptr_, rcu_ptr_"),
        ('struct task_struct *p tag("trusted") tag("nonnull")', "return p->pid;", "current()",
         "arg#0 has invalid combination of tags"),
        ('struct nothing *p tag("trusted")', "return p->a;", "(void *)current()",
         "arg#0 reference type('STRUCT nothing') has no matches"),
        ('struct task_struct *p tag("untrusted")', "return p->pid;", "(void *)7", "accept"),
        ('int *p tag("untrusted")', "return *p;", "(void *)7", "accept"),
        ('int *p tag("untrusted")', "*p = 1; return 0;", "(void *)7",
         "R1 cannot write into rdonly_untrusted_mem"),
        ('int *p tag("untrusted") tag("nonnull")', "return *p;", "(void *)7",
         "arg#0 untrusted cannot be combined with any other tags"),
        ('void *p tag("ctx")', "return *(u64 *)p != 0;", "ctx", "accept"),
        ('u64 *p tag("ctx")', "return p[1] != 0;", "ctx", "accept"),
        ('struct pt_regs *p tag("ctx")', "return p->ip != 0;", "(void *)ctx",
         "arg#0 should be void pointer"),
        ('int p tag("ctx")', "return p + *(volatile int *)&p;", "ctx[1]",
         "arg#0 has pointer tag, but is not a pointer type"),
        ('struct task_struct *p tag("odd")', "return p->pid;", "(void *)0",
         "arg#0 has unsupported set of tags"),
    ],
)  # fmt: skip
def test_tags(
    argument: str, body: str, passed: str, expected: str, compiler: Compiler, kernel: LazyBtf
) -> None:
    assert said(compiler, kernel, calls(argument, body, passed))[0] == expected


def test_a_context_has_the_struct_of_its_type(compiler: Compiler, kernel: LazyBtf) -> None:
    right = calls('struct __sk_buff *p tag("ctx")', "return p->len;", "(void *)ctx", "tc")
    assert said(compiler, kernel, right)[0] == "accept"
    wrong = calls('struct pt_regs *p tag("ctx")', "return p->ip != 0;", "(void *)ctx", "tc")
    assert said(compiler, kernel, wrong)[0] == "arg#0 should be `struct __sk_buff *`"


def test_what_the_function_sees(compiler: Compiler, kernel: LazyBtf) -> None:
    text = calls('struct task_struct *p tag("trusted")', "return p->pid;", "current()")
    assert "R1=trusted_ptr_task_struct(id=1)" in said(compiler, kernel, text)[1]
    text = calls('enum e *p tag("untrusted")', "return *p;", "(void *)7")
    assert "R1=rdonly_untrusted_mem(sz=0)" in said(compiler, kernel, text)[1]
