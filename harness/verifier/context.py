"""The context of each program type: what may be read and written, and what comes back.

``is_valid_access`` of the program types' ``bpf_verifier_ops``, of sockets, and the
return values that ``check_return_code`` demands, of Linux 7.3.4 on x86-64.
"""

from __future__ import annotations

from typing import NamedTuple

from harness.verifier import attach
from harness.verifier.env import Env, NotModelled
from harness.verifier.layouts import (
    BY_ATTACH,
    CONTEXTS,
    SK_BUFF,
    SKB_PACKET,
    SKB_RULES,
    SOCK,
    SOCK_COMMON_HIDDEN,
    TCP_SOCKET,
    XDP_SOCKET,
    by_byte,
    fits,
)
from harness.verifier.state import (
    BTF_ID,
    SCALAR,
    SOCK_COMMON,
    SOCKET,
    TCP_SOCK,
    TP_BUFFER,
    TRUSTED,
    XDP_SOCK,
    TypeRef,
)


class Access(NamedTuple):
    """An access that is fine."""

    gives: int = SCALAR  # type of the register that a load fills
    field_size: int = 0  # bytes of the field where it may be loaded in part (ctx_field_size)
    struct: str = ""  # of the kernel, behind a BTF pointer
    info: TypeRef | None = None  # what a BTF pointer points to
    errno: tuple[int, int] | None = None  # a result of a hook: its range


_SCALAR = Access()

# fmt: off
# Types without convert_ctx_access: size of the context, lowest offset, writable
PLAIN = {
    "syscall":                 (0xFFFF,   0, True),
    "kprobe":                  (21 * 8,   0, True),
    "tracepoint":              (8192,     8, False),
    "raw_tracepoint":          (12 * 8,   0, False),
    "raw_tracepoint_writable": (12 * 8,   0, False),
}
_UNCONVERTED = PLAIN.keys() | {"tracing", "lsm", "cgroup_device", "netfilter", "lirc_mode2"}

# Types whose result may be anything                return_retval_range
ANY_RESULT = frozenset({
    "syscall", "socket_filter", "sched_cls", "sched_act", "xdp", "tracepoint", "perf_event",
    "kprobe", "raw_tracepoint", "raw_tracepoint_writable", "lwt_in", "lwt_out", "lwt_xmit",
    "lwt_seg6local", "sk_skb", "sk_msg", "sk_reuseport", "flow_dissector", "lirc_mode2",
})
# Types whose result is 0 or 1, unless RESULTS says otherwise
_BOOLEAN = frozenset({
    "cgroup_sock_addr", "cgroup_skb", "cgroup_sock", "sock_ops", "cgroup_device", "cgroup_sysctl",
    "cgroup_sockopt", "sk_lookup", "netfilter",
})
RESULTS = {
    # attach type                lowest, highest
    "trace_kprobe_session":         (0, 1),
    "trace_uprobe_session":         (0, 1),
    "cgroup_udp4_recvmsg":          (1, 1),
    "cgroup_udp6_recvmsg":          (1, 1),
    "cgroup_unix_recvmsg":          (1, 1),
    "cgroup_inet4_getpeername":     (1, 1),
    "cgroup_inet6_getpeername":     (1, 1),
    "cgroup_unix_getpeername":      (1, 1),
    "cgroup_inet4_getsockname":     (1, 1),
    "cgroup_inet6_getsockname":     (1, 1),
    "cgroup_unix_getsockname":      (1, 1),
    "cgroup_inet4_bind":            (0, 3),
    "cgroup_inet6_bind":            (0, 3),
    "cgroup_inet_egress":           (0, 3),
}
# Types that may access packets: True, for writing too     may_access_direct_pkt_data
PACKETS = {
    "lwt_in": False, "lwt_out": False, "lwt_seg6local": False, "sk_reuseport": False,
    "flow_dissector": False, "cgroup_skb": False,
    "sched_cls": True, "sched_act": True, "xdp": True, "lwt_xmit": True, "sk_skb": True,
    "sk_msg": True, "cgroup_sockopt": True,
}
# Types that the kernel loads with one of these attach types only   bpf_prog_load_check_attach
_MUST_ATTACH = frozenset({"cgroup_sock_addr", "cgroup_sockopt"})
# fmt: on

_SKB = by_byte(SK_BUFF)
_FIELDS = {kind: by_byte(fields) for kind, fields in CONTEXTS.items()}
_SOCKETS = {
    SOCKET: by_byte(SOCK),
    SOCK_COMMON: by_byte(SOCK),
    TCP_SOCK: by_byte(TCP_SOCKET),
    XDP_SOCK: by_byte(XDP_SOCKET),
}


def check_attach_type(env: Env) -> None:
    """Stop where the kernel looks at the attach type before it verifies."""
    program = env.program
    if program.type in _MUST_ATTACH and not program.attach_type:
        raise NotModelled(f"a program of type {program.type} without an attach type")


def variable_offset(env: Env) -> bool:
    """Say whether the context may be read at an offset that varies (``is_var_ctx_off_allowed``)."""
    return env.program.type == "syscall"


def fixed_offset(env: Env) -> bool:
    """Say whether a pointer to the context may be moved."""
    return env.program.type in _UNCONVERTED


def access(env: Env, off: int, size: int, write: bool, sign: bool = False) -> Access | None:
    """Return what an access of *size* bytes at *off* is, None: refused (``is_valid_access``)."""
    kind = env.program.type
    if env.target is not None:
        seen = attach.access(env, off, size, write)
        return None if seen is None else Access(seen.kind, 0, "", seen.ref, seen.errno)
    if kind in PLAIN:
        return _plain(kind, off, size, write)
    if kind in SKB_RULES:
        return _skb(kind, off, size, write, sign)
    if kind == "netfilter":
        if off not in (0, 8) or size != 8 or write:
            return None
        return Access(BTF_ID | TRUSTED, 0, "sk_buff" if off else "nf_hook_state")
    fields = _FIELDS.get(kind)
    if fields is None:
        raise NotModelled(f"the context of program type {kind}")
    if not 0 <= off < len(fields) or off % size:
        return None
    field = fields[off]
    if field is None:
        return None
    attached = BY_ATTACH.get(kind, {}).get(field.name)
    if attached is not None:
        allowed = attached[write]
        attach_type = env.program.attach_type or _default_attach(kind)
        if allowed is not None and attach_type not in allowed:
            return None
    whole = fits(field.write if write else field.read, field, off, size, sign)
    return None if whole is None else Access(field.gives, whole)


def _default_attach(kind: str) -> str:
    """``bpf_prog_load_fixup_attach_type``."""
    return "cgroup_inet_sock_create" if kind == "cgroup_sock" else ""


def _plain(kind: str, off: int, size: int, write: bool) -> Access | None:
    limit, lowest, writable = PLAIN[kind]
    if not lowest <= off < limit or (write and not writable):
        return None
    if kind == "syscall":
        return _SCALAR
    if off % size or (kind == "kprobe" and off + size > limit):
        return None
    if kind == "raw_tracepoint_writable" and not off:
        return Access(TP_BUFFER) if size == 8 else None
    return _SCALAR


def _skb(kind: str, off: int, size: int, write: bool, sign: bool) -> Access | None:
    if not 0 <= off < len(_SKB):
        return None
    field = _SKB[off]
    rules = SKB_RULES[kind]
    if field is None or field.name in rules.hidden or (write and field.name not in rules.writable):
        return None
    if field.name == "tstamp_type" and kind in ("sched_cls", "sched_act"):
        return _SCALAR if size == 1 else None
    if off % size:
        return None
    whole = fits(field.write if write else field.read, field, off, size, sign)
    if whole is None:
        return None
    gives = SKB_PACKET.get(field.name, field.gives) if rules.packet else field.gives
    return Access(gives, whole)


def sock_access(kind: int, off: int, size: int) -> Access | None:
    """Return what a load through a pointer to a socket is (``check_sock_access``)."""
    fields = _SOCKETS[kind]
    if not 0 <= off < len(fields) or off % size:
        return None
    field = fields[off]
    if field is None or (kind == SOCK_COMMON and field.name in SOCK_COMMON_HIDDEN):
        return None
    whole = fits(field.read, field, off, size, False)
    return None if whole is None else Access(SCALAR, whole)


def result_range(env: Env) -> tuple[int, int] | None:
    """Return the results a program may give, None: any (``return_retval_range``)."""
    program = env.program
    if env.target is not None:
        return attach.result_range(env.target)
    known = RESULTS.get(program.attach_type)
    if known is not None:
        return known
    if program.type in _BOOLEAN:
        return (0, 1)
    if program.type not in ANY_RESULT:
        raise NotModelled(f"the results of program type {program.type}")
    return None
