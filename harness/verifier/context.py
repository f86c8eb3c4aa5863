"""The context of each program type: what may be read and written, and what comes back.

``is_valid_access`` of the program types' ``bpf_verifier_ops``, and the return values
that ``check_return_code`` demands, of Linux 7.3.4 on x86-64.
"""

from __future__ import annotations

from harness.verifier.env import Env, NotModelled
from harness.verifier.state import SCALAR

# fmt: off
# Types without convert_ctx_access: size of the context, lowest offset, writable
PLAIN = {
    "syscall":                 (0xFFFF,   0, True),
    "kprobe":                  (21 * 8,   0, True),
    "tracepoint":              (8192,     8, False),
    "raw_tracepoint":          (12 * 8,   0, False),
}

# Types whose result may be anything                return_retval_range
ANY_RESULT = frozenset({
    "syscall", "socket_filter", "sched_cls", "sched_act", "xdp", "tracepoint", "perf_event",
    "kprobe", "raw_tracepoint", "raw_tracepoint_writable", "lwt_in", "lwt_out", "lwt_xmit",
    "lwt_seg6local", "sk_skb", "sk_msg", "sk_reuseport", "flow_dissector", "lirc_mode2",
})
# fmt: on


def variable_offset(env: Env) -> bool:
    """Say whether the context may be read at an offset that varies (``is_var_ctx_off_allowed``)."""
    return env.program.type == "syscall"


def fixed_offset(env: Env) -> bool:
    """Say whether a pointer to the context may be moved."""
    return env.program.type in PLAIN


def access(env: Env, off: int, size: int, write: bool) -> int | None:
    """Return the type of register a load gives, None: refused."""
    kind = env.program.type
    if kind not in PLAIN:
        raise NotModelled(f"the context of program type {kind}")
    limit, lowest, writable = PLAIN[kind]
    if not lowest <= off < limit or (write and not writable):
        return None
    if kind == "syscall":
        return SCALAR
    if off % size or (kind == "kprobe" and off + size > limit):
        return None
    return SCALAR


def result_range(env: Env) -> tuple[int, int] | None:
    """Return the results a program may give, None: any (``return_retval_range``)."""
    kind = env.program.type
    if kind not in ANY_RESULT or ".session" in env.program.section:
        raise NotModelled(f"the results of program type {kind}")
    return None
