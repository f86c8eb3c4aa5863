"""Programs that attach to the kernel by its types: what their context holds, what they return."""

from __future__ import annotations

import pytest

from harness.btf_lazy import LazyBtf
from harness.tests.kernel_side import judge, kernel_types, program
from harness.toolchain import Compiler

OK = "r0 = 0\nexit"


@pytest.fixture(scope="module")
def kernel(compiler: Compiler) -> LazyBtf:
    return kernel_types(compiler)


def load(off: int, size: int = 64) -> str:
    return f"r2 = *(u{size} *)(r1 + {off})\n{OK}"


@pytest.mark.parametrize(
    ("section", "text", "expected"),
    [
        ("fentry/vfs_read", load(0), "accept"),
        ("fentry/vfs_read", load(16, 32), "accept"),
        ("fentry/vfs_read", load(0, 32), "func 'vfs_read' size 4 must be 8"),
        ("fentry/vfs_read", load(4, 32), "func 'vfs_read' offset 4 is not multiple of 8"),
        ("fentry/vfs_read", load(4), "invalid bpf_context access off=4 size=8"),
        ("fentry/vfs_read", load(32), "func 'vfs_read' doesn't have 5-th argument"),
        ("fentry/vfs_read", load(96), "invalid bpf_context access off=96 size=8"),
        ("fentry/vfs_read", f"*(u64 *)(r1 + 0) = 1\n{OK}",
         "invalid bpf_context access off=0 size=8"),
        ("fexit/vfs_read", load(32), "accept"),
        ("fexit/vfs_read", load(40), "func 'vfs_read' doesn't have 6-th argument"),
        ("fexit/vfs_nothing", load(8),
         "func 'vfs_nothing' doesn't have 3-th argument"),
        ("fmod_ret/security_file_open", load(8), "accept"),
        ("fmod_ret/security_file_open", "r0 = 7\nexit", "accept"),
        ("fmod_ret/vfs_read", OK, "vfs_read() is not modifiable"),
        ("fentry.s/vfs_read", OK, "vfs_read is not sleepable"),
        ("fentry.s/__x64_sys_getpgid", OK, "accept"),
        ("fentry.s/bpf_fentry_test1", OK, "accept"),
        ("fentry/migrate_disable", OK,
         "Attaching tracing programs to function 'migrate_disable' is rejected."),
        ("fentry/do_exit", OK, "accept"),
        ("fexit/do_exit", OK,
         "Attaching fexit/fsession/fmod_ret to __noreturn function 'do_exit' is rejected."),
        ("fentry/vfs_read", "r0 = 1\nexit",
         "At program exit the register R0 has smin=1 smax=1 should have been in [0, 0]"),
        ("tp_btf/task_newtask", load(0), "accept"),
        ("tp_btf/task_newtask", "r0 = 7\nexit", "accept"),
        ("tp_btf/task_newtask", load(16), "func 'task_newtask' doesn't have 3-th argument"),
        ("tp_btf.s/task_newtask", OK,
         "Sleepable program cannot attach to non-faultable tracepoint task_newtask"),
        ("iter/task", load(8), "accept"),
        ("iter/task", "r0 = 2\nexit",
         "At program exit the register R0 has smin=2 smax=2 should have been in [0, 1]"),
        ("lsm/file_open", load(8), "accept"),
        ("lsm/file_open", "r0 = -4095\nexit", "accept"),
        ("lsm/file_open", "r0 = 1\nexit",
         "At program exit the register R0 has smin=1 smax=1 should have been in [-4095, 0]"),
        ("lsm/file_open", "r0 = *(u64 *)(r1 + 8)\nexit", "accept"),
        ("lsm/file_open", "w0 = -1\nexit", "accept"),
        ("lsm/inode_xattr_skipcap", "r0 = 1\nexit", "accept"),
        ("lsm/inode_xattr_skipcap", "r0 = -1\nexit",
         "At program exit the register R0 has smin=-1 smax=-1 should have been in [0, 1]"),
        ("lsm/sk_free_security", "exit", "accept"),
        ("lsm.s/file_open", OK, "accept"),
        ("lsm.s/task_free", OK, "bpf_lsm_task_free is not sleepable"),
        ("lsm_cgroup/socket_create", "r0 = 1\nexit", "accept"),
        ("lsm_cgroup/socket_create", "r0 = 2\nexit",
         "At program exit the register R0 has smin=2 smax=2 should have been in [0, 1]"),
        ("lsm_cgroup/sk_free_security", OK,
         "At program exit the register R0 has smin=0 smax=0 should have been in [1, 1]"),
        ("lsm/no_such_hook", OK, "unknown: bpf_lsm_no_such_hook to attach to (not in the kernel "
         "BTF)"),
        ("fentry/nf:nat", OK, "unknown: a program that attaches to a module's function"),
        ("fentry", OK, "unknown: a program that does not say what it attaches to"),
    ],
)  # fmt: skip
def test_verdicts(section: str, text: str, expected: str, kernel: LazyBtf) -> None:
    assert judge(program(section, text), kernel)[0] == expected


def test_hooks_that_are_none(kernel: LazyBtf) -> None:
    number = kernel.ids("bpf_lsm_file_alloc_security")[0]
    assert judge(program("lsm/file_alloc_security", OK), kernel)[0] == (
        f"attach_btf_id {number} points to disabled hook bpf_lsm_file_alloc_security"
    )
    number = kernel.ids("bpf_lsm_verify_prog")[0]
    assert judge(program("lsm/verify_prog", OK), kernel)[0] == (
        f"attach_btf_id {number} points to wrong type name bpf_lsm_verify_prog"
    )


def test_a_cgroup_hook_cannot_sleep(kernel: LazyBtf) -> None:
    made = program("lsm_cgroup/socket_create", "r0 = 1\nexit", sleepable=True)
    assert judge(made, kernel)[0] == "Program of this type cannot be sleepable"


@pytest.mark.parametrize(
    ("section", "off", "shown"),
    [
        ("fentry/vfs_read", 0, "R2=ptr_file()"),
        ("tp_btf/task_newtask", 0, "R2=trusted_ptr_task_struct()"),
        ("tp_btf/sched_process_wait", 0, "R2=trusted_ptr_or_null_task_struct(id=1)"),
        ("tp_btf/cachefiles_lookup", 16, "R2=scalar()"),  # it may hold an error
        ("lsm/file_open", 0, "R2=trusted_ptr_file()"),
        ("lsm/file_open", 8, "R2=scalar(smin=smin32=-4095,smax=smax32=0)"),
        ("lsm/task_free", 0, "R2=ptr_task_struct()"),
        ("iter/task", 8, "R2=trusted_ptr_or_null_task_struct(id=1)"),
        ("iter/task", 0, "R2=trusted_ptr_bpf_iter_meta()"),
        ("iter/bpf_map_elem", 16, "R2=rdonly_buf_or_null(id=1)"),
    ],
)
def test_what_a_load_gives(section: str, off: int, shown: str, kernel: LazyBtf) -> None:
    verdict, log = judge(program(section, load(off)), kernel, log_level=2)
    assert verdict == "accept"
    assert shown in log


def test_the_log_names_the_type_of_an_argument(kernel: LazyBtf) -> None:
    log = judge(program("fentry/vfs_read", load(0)), kernel, log_level=2)[1]
    number = kernel.ids("file")[0]
    assert f"func 'vfs_read' arg0 has btf_id {number} type STRUCT 'file'\n" in log


def test_without_the_kernels_types_nothing_is_known() -> None:
    why = judge(program("lsm/file_open", OK), None)[0]
    assert why.startswith("unknown: what a program of type lsm attaches to (no kernel BTF: fetch")


@pytest.mark.parametrize(
    ("section", "text", "expected"),
    [
        ("lsm.s/file_open", "r1 = *(u64 *)(r1 + 0)\nr2 = r10\nr2 += -8\n*(u64 *)(r2 + 0) = 0\n"
         "r3 = 8\ncall 147",
         "accept"),
        ("lsm/task_free", "r1 = *(u64 *)(r1 + 0)\nr2 = 0\nr3 = 0\ncall 147",
         "helper call is not allowed in probe"),
        ("fentry/vfs_read", "r1 = *(u64 *)(r1 + 0)\nr2 = 0\nr3 = 0\ncall 147",
         "helper call is not allowed in probe"),
        ("lsm_cgroup/socket_create", "r1 = -1\ncall 187", "accept"),
        ("lsm_cgroup/socket_create", "r1 = 1\ncall 187",
         "At bpf_set_retval the register R1 has smin=1 smax=1 should have been in [-4095, 0]"),
        ("lsm_cgroup/sk_free_security", "r1 = -1\ncall 187",
         "BPF_LSM_CGROUP that attach to void LSM hooks can't modify return value!"),
        ("lsm_cgroup/socket_create", "r2 = 0\nr3 = 0\nr4 = 0\nr5 = 0\ncall 49",
         "program of this type cannot use helper bpf_setsockopt#49"),
    ],
)  # fmt: skip
def test_helpers_by_hook(section: str, text: str, expected: str, kernel: LazyBtf) -> None:
    made = program(section, f"{text}\nr0 = 1\nexit" if "cgroup" in section else f"{text}\n{OK}")
    assert judge(made, kernel)[0] == expected


def test_a_function_of_a_device_needs_one(kernel: LazyBtf) -> None:
    made = program("xdp", f"call kfunc#0\n{OK}", "bpf_xdp_metadata_rx_hash")
    assert judge(made, kernel)[0] == "metadata kfuncs require device-bound program"
