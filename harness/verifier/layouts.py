"""Fields of contexts and sockets, and how each may be read and written.

The structs are those of include/uapi/linux/bpf.h, Linux 7.3.4 on x86-64. A word says
what size an access in bytes may have:

    4, 8    exactly that           4-      up to 4          4/first  up to 4, from its start
    4ptr    4, not sign-extended   4-8     up to 4, or 8 within the field
    any     any within the field   2-4     2 or 4
    port    2 or less, or 4 (a 16-bit field)       2-,4     the same, whole in both cases
    word    4, or 8 within the field (for stores)
    8/half  8; and 4, the second half, which is looked at no more closely: Linux lets that
            pass and then cannot rewrite it (docs/findings/linux_tcp_sock_half.md)

An empty word: never. An access is aligned to its size in any case.
"""

from __future__ import annotations

from typing import NamedTuple

from harness.verifier.state import (
    FLOW_KEYS,
    MAYBE_NULL,
    PACKET,
    PACKET_END,
    PACKET_META,
    SCALAR,
    SOCK_COMMON,
    SOCKET,
)

UNCONVERTIBLE = -1  # bytes of the whole field: there is no such field to Linux


class Field(NamedTuple):
    """One field of a struct, or several alike that lie side by side."""

    name: str
    start: int  # bytes
    size: int  # bytes
    read: str  # a word of the module
    write: str = ""
    gives: int = SCALAR  # type of the register that holds what was read


# fmt: off
SK_BUFF = (
    #     name             offset size read     write    struct __sk_buff, bpf_skb_is_valid_access
    Field("len",                0,  4, "4-",    "4"),
    Field("pkt_type",           4,  4, "4-",    "4"),
    Field("mark",               8,  4, "4-",    "4"),
    Field("queue_mapping",     12,  4, "4-",    "4"),
    Field("protocol",          16,  4, "4-",    "4"),
    Field("vlan_present",      20,  4, "4-",    "4"),
    Field("vlan_tci",          24,  4, "4-",    "4"),
    Field("vlan_proto",        28,  4, "4-",    "4"),
    Field("priority",          32,  4, "4-",    "4"),
    Field("ingress_ifindex",   36,  4, "4-",    "4"),
    Field("ifindex",           40,  4, "4-",    "4"),
    Field("tc_index",          44,  4, "4-",    "4"),
    Field("cb",                48, 20, "any",   "any"),
    Field("hash",              68,  4, "4-",    "4"),
    Field("tc_classid",        72,  4, "4-",    "4"),
    Field("data",              76,  4, "4ptr",  "4"),
    Field("data_end",          80,  4, "4ptr",  "4"),
    Field("napi_id",           84,  4, "4-",    "4"),
    Field("family",            88,  4, "4-",    "4"),
    Field("remote_ip4",        92,  4, "4",     "4"),
    Field("local_ip4",         96,  4, "4",     "4"),
    Field("remote_ip6",       100, 16, "4",     "4"),
    Field("local_ip6",        116, 16, "4",     "4"),
    Field("remote_port",      132,  4, "4-",    "4"),
    Field("local_port",       136,  4, "4-",    "4"),
    Field("data_meta",        140,  4, "4ptr",  "4"),
    Field("flow_keys",        144,  8, ""),
    Field("tstamp",           152,  8, "8",     "8"),
    Field("wire_len",         160,  4, "4-",    "4"),
    Field("gso_segs",         164,  4, "4-",    "4"),
    Field("sk",               168,  8, "8",     "", SOCK_COMMON | MAYBE_NULL),
    Field("gso_size",         176,  4, "4-",    "4"),
    Field("tstamp_type",      180,  1, ""),
    Field("hwtstamp",         184,  8, "8"),
)
_ADDRESSES = frozenset({                          # family to local_port
    "family", "remote_ip4", "local_ip4", "remote_ip6", "local_ip6", "remote_port", "local_port",
})


class SkbRules(NamedTuple):
    """What a program type makes of ``__sk_buff``."""

    hidden: frozenset[str]   # fields out of bounds
    writable: frozenset[str]
    packet: bool             # data and data_end are pointers


_TC = SkbRules(                                   # tc_cls_act_is_valid_access
    _ADDRESSES,
    frozenset({"mark", "tc_index", "priority", "tc_classid", "cb", "tstamp", "queue_mapping"}),
    True)
_LWT = SkbRules(                                  # lwt_is_valid_access
    _ADDRESSES | {"tc_classid", "data_meta", "tstamp", "wire_len", "hwtstamp"},
    frozenset({"mark", "priority", "cb"}), True)
SKB_RULES = {
    "socket_filter": SkbRules(                    # sk_filter_is_valid_access
        _ADDRESSES | {"tc_classid", "data", "data_meta", "data_end", "tstamp", "wire_len",
                      "hwtstamp"},
        frozenset({"cb"}), False),
    "cgroup_skb": SkbRules(                       # cg_skb_is_valid_access
        frozenset({"tc_classid", "data_meta", "wire_len"}),
        frozenset({"mark", "priority", "cb", "tstamp"}), True),
    "sk_skb": SkbRules(                           # sk_skb_is_valid_access
        frozenset({"tc_classid", "data_meta", "tstamp", "wire_len", "hwtstamp", "mark"}),
        frozenset({"tc_index", "priority"}), True),
    "sched_cls": _TC, "sched_act": _TC,
    "lwt_in": _LWT, "lwt_out": _LWT, "lwt_xmit": _LWT, "lwt_seg6local": _LWT,
}
SKB_PACKET = {"data": PACKET, "data_end": PACKET_END, "data_meta": PACKET_META}

# The other contexts               *_is_valid_access; vmlinux types for netfilter
CONTEXTS = {
    "xdp": (                                      # struct xdp_md
        Field("data",               0,  4, "4ptr", "", PACKET),
        Field("data_end",           4,  4, "4ptr", "", PACKET_END),
        Field("data_meta",          8,  4, "4ptr", "", PACKET_META),
        Field("ingress_ifindex",   12,  4, "4"),
        Field("rx_queue_index",    16,  4, "4"),
        Field("egress_ifindex",    20,  4, "4"),
    ),
    "cgroup_sock_addr": (                         # struct bpf_sock_addr
        Field("user_family",        0,  4, "4"),
        Field("user_ip4",           4,  4, "4-",   "4"),
        Field("user_ip6",           8, 16, "4-8",  "word"),
        Field("user_port",         24,  4, "4-",   "4"),
        Field("family",            28,  4, "4"),
        Field("type",              32,  4, "4"),
        Field("protocol",          36,  4, "4"),
        Field("msg_src_ip4",       40,  4, "4-",   "4"),
        Field("msg_src_ip6",       44, 16, "4-8",  "word"),
        Field("sk",                64,  8, "8",    "", SOCKET),
    ),
    "sock_ops": (                                 # struct bpf_sock_ops
        Field("op",                 0,  4, "4"),
        Field("reply",              4,  4, "4",    "4"),
        Field("replylong",          8, 12, "4"),
        Field("family",            20, 144, "4"),
        Field("sk_txhash",        164,  4, "4",    "4"),
        Field("bytes_received",   168,  8, "8"),
        Field("bytes_acked",      176,  8, "8"),
        Field("sk",               184,  8, "8",    "", SOCKET | MAYBE_NULL),
        Field("skb_data",         192,  8, "8",    "", PACKET),
        Field("skb_data_end",     200,  8, "8",    "", PACKET_END),
        Field("skb_len",          208,  4, "4"),
        Field("skb_tcp_flags",    212,  4, "4/first"),
        Field("skb_hwtstamp",     216,  8, "8"),
    ),
    "sk_msg": (                                   # struct sk_msg_md
        Field("data",               0,  8, "8",    "", PACKET),
        Field("data_end",           8,  8, "8",    "", PACKET_END),
        Field("family",            16,  4, "4"),
        Field("remote_ip4",        20,  4, "4"),
        Field("local_ip4",         24,  4, "4"),
        Field("remote_ip6",        28, 16, "4"),
        Field("local_ip6",         44, 16, "4"),
        Field("remote_port",       60,  4, "4"),
        Field("local_port",        64,  4, "4"),
        Field("size",              68,  4, "4"),
        Field("sk",                72,  8, "8",    "", SOCKET),
    ),
    "flow_dissector": (                           # struct __sk_buff
        Field("data",              76,  4, "4ptr", "", PACKET),
        Field("data_end",          80,  4, "4ptr", "", PACKET_END),
        Field("flow_keys",        144,  8, "8",    "", FLOW_KEYS),
    ),
    "sk_reuseport": (                             # struct sk_reuseport_md
        Field("data",               0,  8, "8",    "", PACKET),
        Field("data_end",           8,  8, "8",    "", PACKET_END),
        Field("len",               16,  4, "4-"),
        Field("eth_protocol",      20,  4, "2-4"),
        Field("ip_protocol",       24,  4, "4-"),
        Field("bind_inany",        28,  4, "4-"),
        Field("hash",              32,  4, "4"),
        Field("sk",                40,  8, "8",    "", SOCKET),
        Field("migrating_sk",      48,  8, "8",    "", SOCK_COMMON | MAYBE_NULL),
    ),
    "sk_lookup": (                                # struct bpf_sk_lookup
        Field("sk",                 0,  8, "8",    "", SOCKET | MAYBE_NULL),
        Field("family",             8,  4, "4-"),
        Field("protocol",          12,  4, "4-"),
        Field("remote_ip4",        16,  4, "4-"),
        Field("remote_ip6",        20, 16, "4-"),
        Field("remote_port",       36,  2, "2-,4"),
        Field("zero padding",      38,  2, "2-"),
        Field("local_ip4",         40,  4, "4-"),
        Field("local_ip6",         44, 16, "4-"),
        Field("local_port",        60,  4, "4-"),
        Field("ingress_ifindex",   64,  4, "4-"),
    ),
    "cgroup_sysctl": (                            # struct bpf_sysctl
        Field("write",              0,  4, "4-"),
        Field("file_pos",           4,  4, "4-",   "4"),
    ),
    "cgroup_sockopt": (                           # struct bpf_sockopt
        Field("sk",                 0,  8, "8",    "", SOCKET),
        Field("optval",             8,  8, "8",    "", PACKET),
        Field("optval_end",        16,  8, "8",    "", PACKET_END),
        Field("level",             24,  4, "4",    "4"),
        Field("optname",           28,  4, "4",    "4"),
        Field("optlen",            32,  4, "4",    "4"),
        Field("retval",            36,  4, "4",    "4"),
    ),
    "cgroup_device": (                            # struct bpf_cgroup_dev_ctx
        Field("access_type",        0,  4, "4-"),
        Field("major",              4,  4, "4"),
        Field("minor",              8,  4, "4"),
    ),
    "perf_event": (                               # struct bpf_perf_event_data
        Field("regs",               0, 168, "8"),
        Field("sample_period",    168,  8, "8-"),
        Field("addr",             176,  8, "8-"),
    ),
    "lirc_mode2": (
        Field("sample",             0,  4, "4"),
    ),
}

# A socket, as a context and behind a pointer       bpf_sock_is_valid_access
SOCK = (
    Field("bound_dev_if",       0,  4, "4",       "4"),
    Field("family",             4,  4, "4/first"),
    Field("type",               8,  4, "4/first"),
    Field("protocol",          12,  4, "4/first"),
    Field("mark",              16,  4, "4",       "4"),
    Field("priority",          20,  4, "4",       "4"),
    Field("src_ip4",           24,  4, "4-"),
    Field("src_ip6",           28, 16, "4-"),
    Field("src_port",          44,  4, "4/first"),
    Field("dst_port",          48,  2, "port"),
    Field("dst_ip4",           52,  4, "4-"),
    Field("dst_ip6",           56, 16, "4-"),
    Field("state",             72,  4, "4/first"),
    Field("rx_queue_mapping",  76,  4, "4/first"),
)
CONTEXTS["cgroup_sock"] = SOCK
SOCK_COMMON_HIDDEN = frozenset({"type", "protocol", "mark", "priority"})
TCP_SOCKET = (                                    # bpf_tcp_sock_is_valid_access
    Field("snd_cwnd",           0, 80, "4"),
    Field("bytes_received",    80,  8, "8/half"),
    Field("bytes_acked",       88,  8, "8/half"),
    Field("dsack_dups",        96, 16, "4"),
)
XDP_SOCKET = (Field("queue_id", 0, 4, "4"),)      # bpf_xdp_sock_is_valid_access

# Attach types that may access a field: for reads, for writes; None: all
_CREATE = frozenset({"cgroup_inet_sock_create", "cgroup_inet_sock_release"})
_BIND4, _BIND6 = "cgroup_inet4_post_bind", "cgroup_inet6_post_bind"
_GET, _SET = frozenset({"cgroup_getsockopt"}), frozenset({"cgroup_setsockopt"})
_NONE: frozenset[str] = frozenset()


def _family(version: int) -> frozenset[str]:
    inet = (f"inet{version}_{what}" for what in ("bind", "connect", "getpeername", "getsockname"))
    udp = (f"udp{version}_sendmsg", f"udp{version}_recvmsg")
    return frozenset(f"cgroup_{name}" for name in (*inet, *udp))


_Attached = tuple[frozenset[str] | None, frozenset[str] | None]
BY_ATTACH: dict[str, dict[str, _Attached]] = {
    "xdp": {"egress_ifindex": (frozenset({"xdp_devmap"}), _NONE)},
    "cgroup_sock": {                              # __sock_filter_check_attach_type
        "bound_dev_if": (_CREATE, _CREATE),
        "mark":         (_CREATE, _CREATE),
        "priority":     (_CREATE, _CREATE),
        "src_ip4":      (frozenset({_BIND4}), _NONE),
        "src_ip6":      (frozenset({_BIND6}), _NONE),
        "src_port":     (frozenset({_BIND4, _BIND6}), _NONE),
    },
    "cgroup_sock_addr": {                         # sock_addr_is_valid_access
        "user_ip4":    (_family(4), _family(4)),
        "user_ip6":    (_family(6), _family(6)),
        "msg_src_ip4": (frozenset({"cgroup_udp4_sendmsg"}), frozenset({"cgroup_udp4_sendmsg"})),
        "msg_src_ip6": (frozenset({"cgroup_udp6_sendmsg"}), frozenset({"cgroup_udp6_sendmsg"})),
    },
    "cgroup_sockopt": {                           # cg_sockopt_is_valid_access
        "retval":  (_GET, _GET),
        "optname": (None, _SET),
        "level":   (None, _SET),
    },
}
# fmt: on


def by_byte(fields: tuple[Field, ...]) -> tuple[Field | None, ...]:
    """Return the field that each byte of a struct belongs to."""
    out: list[Field | None] = []
    for field in fields:
        out += [None] * (field.start - len(out))
        out += [field] * field.size
    return tuple(out)


def fits(word: str, field: Field, off: int, size: int, sign: bool) -> int | None:
    """Return the bytes of the whole field where it may be loaded, 0 unless in part; None: no."""
    left = field.start + field.size - off
    match word:
        case "4":
            return 0 if size == 4 else None
        case "8":
            return 0 if size == 8 else None
        case "8/half":
            if size == 4 and off != field.start:
                return UNCONVERTIBLE
            return 0 if size == 8 else None
        case "4ptr":
            return 0 if size == 4 and not sign else None
        case "4-":
            return 4 if size <= 4 else None
        case "8-":
            return 8
        case "2-":
            return 2 if size <= 2 else None
        case "4/first":
            return 4 if size <= 4 and off == field.start else None
        case "2-4":
            return 4 if size in (2, 4) else None
        case "port":
            return 4 if size == 4 else 2 if size <= 2 else None
        case "2-,4":
            return 0 if size == 4 else 2 if size <= 2 else None
        case "any":
            return 0 if size <= left else None
        case "4-8":
            return 4 if size <= 4 or size <= left else None
        case "word":
            return 0 if size == 4 or (size == 8 and size <= left) else None
    return None
