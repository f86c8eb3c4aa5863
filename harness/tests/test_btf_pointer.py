"""Loads through pointers to the kernel's structs, and calls that take them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.btf_lazy import LazyBtf
from harness.isa.insn import High, LoadImm
from harness.tests.kernel_side import judge, kernel_types, program
from harness.toolchain import Compiler

OK = "r0 = 0\nexit"
TASK = "r1 = *(u64 *)(r1 + 0)"  # of tp_btf/task_newtask: trusted
PID, COMM, PARENT, LEADER, CGROUPS, CRED, STACK = 0, 8, 24, 32, 40, 48, 56
INNER, MM, UADDR, PFILE, LIST, SIZE = 64, 80, 88, 96, 104, 136


@pytest.fixture(scope="module")
def kernel(compiler: Compiler) -> LazyBtf:
    return kernel_types(compiler)


def traced(*lines: str, section: str = "tp_btf/task_newtask") -> tuple[str, str]:
    return section, "\n".join([TASK, *lines, OK])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["r2 = *(u32 *)(r1 + 0)"], "accept"),
        (["r2 = *(u64 *)(r1 + 0)"],
         "access beyond the end of member pid (mend:4) in struct task_struct with off 0 size 8"),
        (["r2 = *(u64 *)(r1 + 8)", "r2 = *(u8 *)(r1 + 23)"], "accept"),
        (["r2 = *(u64 *)(r1 + 32)", "r2 = *(u32 *)(r2 + 0)"], "accept"),
        (["r2 = *(u32 *)(r1 + 24)"],
         "cannot access ptr member real_parent with moff 24 in struct task_struct with off 24 "
         "size 4"),
        (["r2 = *(u32 *)(r1 + 68)"], "struct (anon) doesn't have field at offset 4"),
        (["r2 = *(u32 *)(r1 + 104)", "r2 = *(u32 *)(r1 + 124)"], "accept"),
        (["r2 = *(u64 *)(r1 + 136)"],
         "access beyond struct task_struct at off 136 size 8"),
        (["r2 = *(u64 *)(r1 - 8)"], "R1 is ptr_task_struct invalid negative access: off=-8"),
        (["r1 += 4", "r2 = *(u32 *)(r1 + 0)"], "accept"),
        (["r2 = *(u32 *)(r1 + 0)", "r1 += r2"],
         "R1 is ptr_task_struct invalid variable offset: off=0, var_off=(0x0; 0xffffffff)"),
        (["*(u32 *)(r1 + 0) = 1"], "only read is supported"),
        (["r2 = *(u64 *)(r1 + 88)", "r2 = *(u32 *)(r2 + 0)"],
         "R2 is ptr_mm_struct access user memory: off=0"),
        (["r2 = *(u64 *)(r1 + 96)", "r2 = *(u64 *)(r2 + 0)"],
         "R2 is ptr_file access percpu memory: off=0"),
        (["r2 = *(u64 *)(r1 + 56)", "r2 = *(u64 *)(r2 + 0)"], "accept"),  # void *
        (["r2 = *(u64 *)(r1 + 56)", "*(u64 *)(r2 + 0) = 1"],
         "R2 cannot write into rdonly_untrusted_mem"),
    ],
)  # fmt: skip
def test_loads(lines: list[str], expected: str, kernel: LazyBtf) -> None:
    section, text = traced(*lines)
    if any("r1 += r2" in line for line in lines):
        text = text.replace(OK, f"r2 = *(u32 *)(r1 + 0)\n{OK}")
    assert judge(program(section, text), kernel)[0] == expected


@pytest.mark.parametrize(
    ("off", "shown"),
    [
        (PARENT, "R2=rcu_ptr_or_null_task_struct(id=1)"),  # tagged __rcu
        (LEADER, "R2=rcu_ptr_task_struct()"),  # on the list
        (CGROUPS, "R2=rcu_ptr_css_set()"),  # on the list, which goes before the tag
        (CRED, "R2=ptr_cred()"),  # neither
        (INNER + 8, "R2=ptr_file()"),
        (MM, "R2=untrusted_ptr_mm_struct()"),  # in a union
        (UADDR, "R2=user_ptr_mm_struct()"),
        (PFILE, "R2=percpu_ptr_file()"),
        (STACK, "R2=rdonly_untrusted_mem(sz=0)"),
    ],
)
def test_trust_that_members_inherit(off: int, shown: str, kernel: LazyBtf) -> None:
    section, text = traced(f"r2 = *(u64 *)(r1 + {off})")
    verdict, log = judge(program(section, text), kernel, log_level=2)
    assert verdict == "accept"
    assert shown in log


@pytest.mark.parametrize(
    ("off", "shown"),
    [(PARENT, "R2=untrusted_ptr_task_struct()"), (LEADER, "R2=untrusted_ptr_task_struct()")],
)
def test_a_program_that_sleeps_trusts_less(off: int, shown: str, kernel: LazyBtf) -> None:
    text = f"call kfunc#0\nif r0 == 0 goto +2\nr2 = *(u64 *)(r0 + {off})\nr6 = r2\n{OK}"
    made = program("syscall", f"r1 = 1\n{text}", "bpf_task_from_pid")
    assert shown in judge(made, kernel, log_level=2)[1]


def test_a_full_trust_that_lists_give(kernel: LazyBtf) -> None:
    text = f"{TASK}\nr2 = *(u64 *)(r1 + 16)\nr3 = *(u64 *)(r1 + 8)\n{OK}"
    log = judge(program("lsm.s/file_open", text), kernel, log_level=2)[1]
    assert "R2=trusted_ptr_inode()" in log
    assert "R3=untrusted_ptr_dentry()" in log


def test_a_pointer_that_may_be_null_is_not_followed(kernel: LazyBtf) -> None:
    section, text = traced(f"r2 = *(u64 *)(r1 + {PARENT})", "r2 = *(u32 *)(r2 + 0)")
    assert judge(program(section, text.replace("*(u32 *)(r2", "*(u32 *)(r2")), kernel)[0] == (
        "R2 invalid mem access 'rcu_ptr_or_null_'"
    )
    checked = text.replace("r2 = *(u32", "if r2 == 0 goto +1\nr2 = *(u32")
    assert judge(program(section, checked), kernel)[0] == "accept"


# --- calls ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "text", "kfuncs", "expected"),
    [
        ("tp_btf/task_newtask", f"{TASK}\ncall kfunc#0\nif r0 == 0 goto +2\nr1 = r0\ncall kfunc#1",
         ("bpf_task_acquire", "bpf_task_release"), "accept"),
        ("tp_btf/task_newtask", f"{TASK}\ncall kfunc#0", ("bpf_task_acquire",),
         "Unreleased reference id=2 alloc_insn=1"),
        ("tp_btf/task_newtask", f"{TASK}\ncall kfunc#0", ("bpf_task_release",),
         "release kfunc bpf_task_release expects referenced PTR_TO_BTF_ID passed to R1"),
        ("fentry/vfs_read", f"{TASK}\ncall kfunc#0", ("bpf_task_acquire",),
         "R1 must be a rcu pointer"),
        ("tp_btf/sched_process_wait", f"{TASK}\ncall kfunc#0", ("bpf_task_acquire",),
         "Possibly NULL pointer passed to trusted R1"),
        ("lsm/file_open", f"{TASK}\ncall kfunc#0", ("bpf_task_acquire",),
         "cannot access ptr member mnt with moff 0 in struct path with off 0 size 1"),
        ("tp_btf/task_newtask", f"{TASK}\ncall kfunc#0", ("bpf_put_file",),
         "calling kernel function bpf_put_file is not allowed"),
        ("tp_btf/task_newtask", "r1 = r10\ncall kfunc#0", ("bpf_task_acquire",),
         "R1 is fp expected STRUCT task_struct"),
        ("tp_btf/task_newtask", "r1 = 1\ncall kfunc#0", ("bpf_unlisted",),
         "calling kernel function bpf_unlisted is not allowed"),
        ("tp_btf/task_newtask", "r1 = 0\ncall kfunc#0", ("__bpf_trap",),
         "unexpected __bpf_trap() due to uninitialized variable?"),
        ("tp_btf/task_newtask", "r2 = 4\nr3 = 0\nr4 = 0\nr1 = r10\nr1 += -8\ncall kfunc#0",
         ("bpf_copy_from_user_str",),
         "program must be sleepable to call sleepable kfunc bpf_copy_from_user_str"),
        ("tp_btf/task_newtask", f"{TASK}\nr2 = *(u64 *)(r1 + 8)\nr1 = 0\ncall kfunc#0\n"
         "r2 = *(u32 *)(r0 + 8)", ("bpf_rdonly_cast",), "R2 must be a known constant"),
        ("lsm/file_open", f"{TASK}\nr2 = r10\nr2 += -16\nr3 = 16\ncall kfunc#0",
         ("bpf_path_d_path",), "accept"),
        ("lsm/file_open", f"{TASK}\nr1 += 8\nr2 = r10\nr2 += -16\nr3 = 16\ncall kfunc#0",
         ("bpf_path_d_path",),
         "cannot access ptr member dentry with moff 8 in struct path with off 8 size 1"),
        ("tp_btf/task_newtask", "call kfunc#0\nif r0 == 0 goto +4\nr6 = r0\nr1 = r0\n"
         "call kfunc#1\nr1 = r6\ncall kfunc#2",
         ("bpf_cpumask_create", "bpf_cpumask_first", "bpf_cpumask_release"), "accept"),
    ],
)  # fmt: skip
def test_kernel_functions(
    section: str, text: str, kfuncs: tuple[str, ...], expected: str, kernel: LazyBtf
) -> None:
    if "+4\nr6" in text:
        text = text.replace("+4", "+5")
    assert judge(program(section, f"{text}\n{OK}", *kfuncs), kernel)[0] == expected


def test_implicit_arguments_are_the_verifiers(kernel: LazyBtf) -> None:
    text = f"r1 = 1\nr2 = 0\nr3 = 0\nr4 = 0\ncall kfunc#0\n{OK}"
    made = program("tp_btf/task_newtask", text, "bpf_stream_vprintk")
    assert judge(made, kernel)[0] == "Possibly NULL pointer passed to trusted R2"


def test_casts(kernel: LazyBtf) -> None:
    number = kernel.ids("task_struct")[0]
    text = f"r1 = 1\nr2 = {number}\ncall kfunc#0\nr1 = *(u32 *)(r0 + 0)\n{OK}"
    verdict, log = judge(program("syscall", text, "bpf_rdonly_cast"), kernel, log_level=2)
    assert verdict == "accept"
    assert "R0=untrusted_ptr_task_struct()" in log
    text = f"r1 = 1\nr2 = 99999\ncall kfunc#0\n{OK}"
    assert judge(program("syscall", text, "bpf_rdonly_cast"), kernel)[0] == (
        "Unknown type ID 99999 passed to kfunc bpf_rdonly_cast"
    )
    made = program("tc", f"call kfunc#0\nr1 = *(u32 *)(r0 + 0)\n{OK}", "bpf_cast_to_kern_ctx")
    verdict, log = judge(made, kernel, log_level=2)
    assert verdict == "accept"
    assert "R0=trusted_ptr_sk_buff()" in log


def test_a_wrong_struct_is_named(kernel: LazyBtf) -> None:
    made = program("lsm/file_open", f"{TASK}\ncall kfunc#0\n{OK}", "bpf_task_acquire")
    assert (
        "kernel function bpf_task_acquire R1 expected pointer to STRUCT task_struct but R1 has "
        "a pointer to STRUCT file\n"
    ) in judge(made, kernel)[1]


def test_a_function_that_moves_the_packet(kernel: LazyBtf) -> None:
    text = (
        "r6 = *(u32 *)(r1 + 0)\nr7 = *(u32 *)(r1 + 4)\nr8 = r6\nr8 += 8\nif r8 > r7 goto +4\n"
        f"r2 = 8\ncall kfunc#0\nr0 = *(u8 *)(r6 + 0)\nr0 = 0\n{OK}"
    )
    made = program("xdp", text, "bpf_xdp_pull_data")
    assert judge(made, kernel)[0] == "R6 invalid mem access 'scalar'"
    kept = program("xdp", text.replace("call kfunc#0", "r2 = 0"), "bpf_xdp_pull_data")
    assert judge(kept, kernel)[0] == "accept"


# --- helpers and symbols ----------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("call 158\nr1 = r0\nr2 = r10\nr2 += -16\nr3 = 16\nr4 = 0\ncall 141", "accept"),
        ("call 158\nr1 = r0\ncall 175\nr1 = *(u64 *)(r0 + 0)", "accept"),
        ("r1 = r10\ncall 175", "R1 type=fp expected=ptr_, trusted_ptr_, rcu_ptr_"),
        ("call 158\nr1 = *(u64 *)(r0 + 48)\ncall 175",
         "R1 is of type cred but task_struct is expected"),
        ("call 158\nr1 = *(u64 *)(r0 + 24)\ncall 175",
         "R1 type=rcu_ptr_or_null_ expected=ptr_, trusted_ptr_, rcu_ptr_"),
    ],
)  # fmt: skip
def test_helpers(text: str, expected: str, kernel: LazyBtf) -> None:
    made = program("tp_btf/task_newtask", f"{text}\n{OK}")
    assert judge(made, kernel)[0] == expected


@pytest.mark.parametrize(
    ("name", "shown"),
    [("init_task", "R1=ptr_task_struct()"), ("jiffies", "R1=rdonly_mem(sz=8)"),
     ("bpf_prog_active", "R1=percpu_ptr_int()"), ("vfs_read", "R1=rdonly_mem(sz=0)")],
)  # fmt: skip
def test_addresses_of_kernel_symbols(name: str, shown: str, kernel: LazyBtf) -> None:
    number = kernel.ids(name)[-1]
    made = program("tp_btf/task_newtask", f"r1 = 0 ll\n{OK}")
    made = replace(made, insns=(LoadImm(1, 3, number), High(), *made.insns[2:]))
    verdict, log = judge(made, kernel, log_level=2)
    assert verdict == "accept"
    assert shown in log
