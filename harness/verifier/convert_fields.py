"""Where the kernel has the fields of contexts and sockets that programs see.

One row a field: the path to it in the kernel's structs. ``*_convert_ctx_access`` of
net/core/filter.c, kernel/bpf/cgroup.c and kernel/trace/bpf_trace.c of Linux 7.3.4, as
Debian configures it (IPv6, NET_XGRESS, NET_SCHED, busy polling).
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.isa.insn import Alu, Goto, Insn, Jump, Load, Store, StoreImm
from harness.verifier.arithmetic import AX
from harness.verifier.convert_rows import Conversion, Path, Row
from harness.verifier.state import SOCK_COMMON, SOCKET, TCP_SOCK, XDP_SOCK

_PKT_TYPE = 7  # PKT_TYPE_MAX
_NO_QUEUE = 0xFFFF  # NO_QUEUE_MAPPING
_MIN_NAPI = 8192 + 1  # MIN_NAPI_ID: CONFIG_NR_CPUS + 1
_CLOCK = 3  # SKB_TSTAMP_TYPE_MASK
_INGRESS = 1 << 2  # TC_AT_INGRESS_MASK


def _p(steps: str, size: int = 0, *, null: bool = False, shift: int = 0, spill: str = "") -> Path:
    """Return a path whose last member is what narrow loads are cut out of."""
    return Path(steps, size, target=True, null=null, shift=shift, spill=spill)


def _own(steps: str, *, spill: str = "") -> Path:
    """Return a path that is accessed in as many bytes as the program asks for."""
    return Path(steps, own=True, target=True, spill=spill)


# --- __sk_buff ----------------------------------------------------------------------------


def _packet_type(c: Conversion) -> None:
    c.target = 1
    c.out += [
        Load(1, c.dst, c.base, c.layout.offset("sk_buff", "__pkt_type_offset")),
        Alu("and", 32, c.dst, None, _PKT_TYPE),
    ]


def _queue(c: Conversion) -> None:
    """Store queues only that there are."""
    off = c.layout.offset("sk_buff", "queue_mapping")
    c.target = 2
    if isinstance(c.insn, Load):
        c.out.append(Load(2, c.dst, c.base, off))
    elif isinstance(c.insn, StoreImm) and c.insn.imm >= _NO_QUEUE:
        c.out.append(Goto(0))
    else:
        if isinstance(c.insn, Store):
            c.out.append(Jump("ge", 64, c.insn.src, None, _NO_QUEUE, 1))
        c.store(2, c.base, off)


def _vlan_present(c: Conversion) -> None:
    c.follow(_p("sk_buff.vlan_all", 4))
    c.out += [Jump("eq", 64, c.dst, None, 0, 1), Alu("mov", 32, c.dst, None, 1)]


def _cb(struct: str, member: str) -> Row:
    """Return the row of a part of the control block, accessed as the program does."""

    def row(c: Conversion) -> None:
        start = c.layout.offset("__sk_buff", "cb")
        off = (
            c.insn.off - start + c.layout.offset("sk_buff", "cb") + c.layout.offset(struct, member)
        )
        if c.write:
            c.store(c.insn.size, c.base, off)
        else:
            c.out.append(Load(c.insn.size, c.dst, c.base, off))

    return row


def _in_cb(struct: str, member: str, size: int, target: int = 0) -> Row:
    """Return the row of a field that the kernel keeps in the control block."""

    def row(c: Conversion) -> None:
        off = c.layout.offset("sk_buff", "cb") + c.layout.offset(struct, member)
        c.target = target
        if c.write:
            c.store(size, c.base, off)
        else:
            c.out.append(Load(size, c.dst, c.base, off))

    return row


def _napi(c: Conversion) -> None:
    c.follow(_p("sk_buff.napi_id", 4))
    c.out += [Jump("ge", 64, c.dst, None, _MIN_NAPI, 1), Alu("mov", 64, c.dst, None, 0)]


def _tstamp(c: Conversion) -> None:
    """Time stamps: which clock's decides, unless the program looks at that itself."""
    plain = c.knows_clock
    flags = c.layout.offset("sk_buff", "__mono_tc_offset")
    stamp = c.layout.offset("sk_buff", "tstamp")
    asks: list[Insn] = [] if plain else [Load(1, AX, c.base, flags)]
    if isinstance(c.insn, Load):
        if not plain:
            asks += [
                Jump("set", 32, AX, None, _INGRESS, 1),
                Goto(4),
                Jump("set", 32, AX, None, _CLOCK, 1),
                Goto(2),
                Alu("mov", 64, c.dst, None, 0),
                Goto(1),
            ]
        c.out += [*asks, Load(8, c.dst, c.base, stamp)]
        return
    if not plain:
        asks += [
            Jump("set", 32, AX, None, _INGRESS, 1),
            Goto(2),
            Alu("and", 32, AX, None, ~_CLOCK),
            Store(1, c.base, flags, AX),
        ]
    c.out += asks
    c.store(8, c.base, stamp)


def _tstamp_type(c: Conversion) -> None:
    c.out += [
        Load(1, c.dst, c.base, c.layout.offset("sk_buff", "__mono_tc_offset")),
        Alu("and", 32, c.dst, None, _CLOCK),
    ]


def _shared(c: Conversion, base: int) -> list[Insn]:
    """``bpf_convert_shinfo_access``."""
    return [
        Load(c.layout.size("sk_buff", "end"), AX, base, c.layout.offset("sk_buff", "end")),
        Load(8, c.dst, base, c.layout.offset("sk_buff", "head")),
        Alu("add", 64, c.dst, AX),
    ]


def _in_shared(member: str, size: int) -> Row:
    def row(c: Conversion) -> None:
        c.target = size
        off = c.layout.offset("skb_shared_info", member)
        c.out += [*_shared(c, c.base), Load(size, c.dst, c.dst, off)]

    return row


def _data_end(c: Conversion) -> None:
    """``bpf_convert_data_end_access``: the end of what lies in one piece."""
    keep = c.layout.offset("sk_buff", "cb") + c.layout.offset("sk_skb_cb", "temp_reg")
    same = c.base == c.dst
    register = c.borrowed() if same else c.dst
    if same:
        c.out.append(Store(8, c.base, keep, register))
    c.out += [
        Load(8, register, c.base, c.layout.offset("sk_buff", "data")),
        Load(4, AX, c.base, c.layout.offset("sk_buff", "len")),
        Alu("add", 64, register, AX),
        Load(4, AX, c.base, c.layout.offset("sk_buff", "data_len")),
        Alu("sub", 64, register, AX),
    ]
    if same:
        c.out += [
            Alu("mov", 64, AX, c.base),
            Alu("mov", 64, c.dst, register),
            Load(8, register, AX, keep),
        ]


# fmt: off
_ADDRESSES: dict[str, Row] = {         # of a socket, behind a pointer that {} stands for
    "family":      _p("{} sock_common.skc_family", 2),
    "remote_ip4":  _p("{} sock_common.skc_daddr", 4),
    "local_ip4":   _p("{} sock_common.skc_rcv_saddr", 4),
    "remote_ip6":  Path("{} sock_common.skc_v6_daddr", 4),
    "local_ip6":   Path("{} sock_common.skc_v6_rcv_saddr", 4),
    "remote_port": _p("{} sock_common.skc_dport", 2, shift=16),
    "local_port":  _p("{} sock_common.skc_num", 2),
}


def _addresses(pointer: str, *, target: bool = False) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for name, row in _ADDRESSES.items():
        assert isinstance(row, Path)
        steps = row.steps.format(pointer)
        found[name] = Path(steps, row.size, target=target and row.target, shift=row.shift)
    return found


_SKB: dict[str, Row] = {               # bpf_convert_ctx_access
    "len":             _p("sk_buff.len"),
    "pkt_type":        _packet_type,
    "mark":            _p("sk_buff.mark"),
    "queue_mapping":   _queue,
    "protocol":        _p("sk_buff.protocol"),
    "vlan_present":    _vlan_present,
    "vlan_tci":        _p("sk_buff.vlan_tci"),
    "vlan_proto":      _p("sk_buff.vlan_proto"),
    "priority":        _p("sk_buff.priority"),
    "ingress_ifindex": _p("sk_buff.skb_iif"),
    "ifindex":         _p("sk_buff.dev net_device.ifindex", null=True),
    "tc_index":        _p("sk_buff.tc_index"),
    "cb":              _cb("qdisc_skb_cb", "data"),
    "hash":            _p("sk_buff.hash"),
    "tc_classid":      _in_cb("qdisc_skb_cb", "tc_classid", 2, 2),
    "data":            Path("sk_buff.data"),
    "data_end":        _in_cb("bpf_skb_data_end", "data_end", 8),
    "napi_id":         _napi,
    **_addresses("sk_buff.sk", target=True),
    "data_meta":       _in_cb("bpf_skb_data_end", "data_meta", 8),
    "tstamp":          _tstamp,
    "wire_len":        _in_cb("qdisc_skb_cb", "pkt_len", 4, 4),
    "gso_segs":        _in_shared("gso_segs", 2),
    "sk":              Path("sk_buff.sk"),
    "gso_size":        _in_shared("gso_size", 2),
    "tstamp_type":     _tstamp_type,
    "hwtstamp":        _in_shared("hwtstamps", 8),
}
_TC: dict[str, Row] = {                # tc_cls_act_convert_ctx_access
    **_SKB, "ifindex": _p("sk_buff.dev net_device.ifindex"),
}
_SK_SKB: dict[str, Row] = {            # sk_skb_convert_ctx_access
    **_SKB, "data_end": _data_end, "cb": _cb("sk_skb_cb", "data"),
}
_FLOW: dict[str, Row] = {              # flow_dissector_convert_ctx_access
    "data":            Path("bpf_flow_dissector.data"),
    "data_end":        Path("bpf_flow_dissector.data_end"),
    "flow_keys":       Path("bpf_flow_dissector.flow_keys"),
}
_XDP: dict[str, Row] = {               # xdp_convert_ctx_access
    "data":            Path("xdp_buff.data"),
    "data_meta":       Path("xdp_buff.data_meta"),
    "data_end":        Path("xdp_buff.data_end"),
    "ingress_ifindex": Path("xdp_buff.rxq xdp_rxq_info.dev net_device.ifindex"),
    "rx_queue_index":  Path("xdp_buff.rxq xdp_rxq_info.queue_index"),
    "egress_ifindex":  Path("xdp_buff.txq xdp_txq_info.dev net_device.ifindex"),
}
_SK_MSG: dict[str, Row] = {            # sk_msg_convert_ctx_access
    "data":            Path("sk_msg.data"),
    "data_end":        Path("sk_msg.data_end"),
    **_addresses("sk_msg.sk"),
    "size":            Path("sk_msg_sg.size"),
    "sk":              Path("sk_msg.sk"),
}
_KERN = "bpf_sock_addr_kern"
_SOCK_ADDR: dict[str, Row] = {         # sock_addr_convert_ctx_access
    "user_family":     _p(f"{_KERN}.uaddr sockaddr.sa_family"),
    "user_ip4":        _own(f"{_KERN}.uaddr sockaddr_in.sin_addr", spill="tmp_reg"),
    "family":          _p(f"{_KERN}.sk sock_common.skc_family"),
    "type":            _p(f"{_KERN}.sk sock.sk_type"),
    "protocol":        _p(f"{_KERN}.sk sock.sk_protocol"),
    "msg_src_ip4":     _own(f"{_KERN}.t_ctx in_addr.s_addr", spill="tmp_reg"),
    "sk":              Path(f"{_KERN}.sk"),
}
_REUSE = "sk_reuseport_kern"
_REUSEPORT: dict[str, Row] = {         # sk_reuseport_convert_ctx_access
    "data":            _p(f"{_REUSE}.skb sk_buff.data"),
    "data_end":        _p(f"{_REUSE}.data_end"),
    "len":             _p(f"{_REUSE}.skb sk_buff.len"),
    "eth_protocol":    _p(f"{_REUSE}.skb sk_buff.protocol"),
    "ip_protocol":     _p(f"{_REUSE}.sk sock.sk_protocol"),
    "bind_inany":      _p(f"{_REUSE}.bind_inany"),
    "hash":            _p(f"{_REUSE}.hash"),
    "sk":              _p(f"{_REUSE}.sk"),
    "migrating_sk":    _p(f"{_REUSE}.migrating_sk"),
}
# fmt: on


def _in_address(struct: str, pointer: str, member: str) -> Row:
    """Four or eight bytes of an IPv6 address."""

    def row(c: Conversion) -> None:
        names = ("user_ip6", "msg_src_ip6")
        _, start = c.layout.member_at("bpf_sock_addr", c.insn.off, names)
        path = Path(f"{_KERN}.{pointer} {struct}.{member}", own=True, spill="tmp_reg")
        c.follow(path, c.insn.off - start)
        c.target = 4

    return row


def _user_port(c: Conversion) -> None:
    size = min(c.layout.size("sockaddr_in6", "sin6_port"), c.insn.size)
    c.follow(Path(f"{_KERN}.uaddr sockaddr_in6.sin6_port", size, spill="tmp_reg"))
    c.target = c.layout.size("sockaddr_in6", "sin6_port")


_SOCK_ADDR |= {
    "user_ip6": _in_address("sockaddr_in6", "uaddr", "sin6_addr"),
    "msg_src_ip6": _in_address("in6_addr", "t_ctx", ""),
    "user_port": _user_port,
}


# --- sockets ------------------------------------------------------------------------------


def _rx_queue(c: Conversion) -> None:
    c.target = 4
    if not c.layout.has("sock_common", "skc_rx_queue_mapping"):  # CONFIG_SOCK_RX_QUEUE_MAPPING
        c.out.append(Alu("mov", 32, c.dst, None, -1))
        return
    off, size = c.layout.place("sock_common", "skc_rx_queue_mapping")
    c.out += [
        Load(size, c.dst, c.base, off),
        Jump("ne", 64, c.dst, None, _NO_QUEUE, 1),
        Alu("mov", 32, c.dst, None, -1),
    ]


# fmt: off
_SOCK: dict[str, Row] = {              # bpf_sock_convert_ctx_access
    "bound_dev_if":     Path("sock.__sk_common.skc_bound_dev_if"),
    "family":           _p("sock_common.skc_family"),
    "type":             _p("sock.sk_type"),
    "protocol":         _p("sock.sk_protocol"),
    "mark":             Path("sock.sk_mark"),
    "priority":         Path("sock.sk_priority"),
    "src_ip4":          _own("sock_common.skc_rcv_saddr"),
    "src_ip6":          Path("sock_common.skc_v6_rcv_saddr", 4, own=True, target=True),
    "src_port":         _p("sock_common.skc_num"),
    "dst_port":         _p("sock_common.skc_dport"),
    "dst_ip4":          _own("sock_common.skc_daddr"),
    "dst_ip6":          Path("sock_common.skc_v6_daddr", 4, own=True, target=True),
    "state":            _p("sock_common.skc_state"),
    "rx_queue_mapping": _rx_queue,
}
_TCP_FIELDS = (
    "snd_cwnd", "srtt_us", "snd_ssthresh", "rcv_nxt", "snd_nxt", "snd_una", "mss_cache",
    "ecn_flags", "rate_delivered", "rate_interval_us", "packets_out", "retrans_out",
    "total_retrans", "segs_in", "data_segs_in", "segs_out", "data_segs_out", "lost_out",
    "sacked_out", "bytes_received", "bytes_acked",
)
_TCP: dict[str, Row] = {               # bpf_tcp_sock_convert_ctx_access
    **{name: Path(f"tcp_sock.{name}") for name in
       (*_TCP_FIELDS, "dsack_dups", "delivered", "delivered_ce")},
    "rtt_min":          Path("tcp_sock.rtt_min", 4),
    "icsk_retransmits": Path("inet_connection_sock.icsk_retransmits"),
}
_XDP_SOCK: dict[str, Row] = {          # bpf_xdp_sock_convert_ctx_access
    "queue_id":         Path("xdp_sock.queue_id"),
}
# fmt: on


def _in6(name: str) -> Row:
    """Four bytes of an address that may not be there."""

    def row(c: Conversion) -> None:
        c.target = 4
        start = c.layout.offset("bpf_sk_lookup", "remote_ip6" if name == "saddr" else "local_ip6")
        c.out += [
            Load(8, c.dst, c.base, c.layout.offset("bpf_sk_lookup_kern", f"v6.{name}")),
            Jump("eq", 64, c.dst, None, 0, 1),
            Load(4, c.dst, c.dst, c.insn.off - start),
        ]

    return row


def _no_port(c: Conversion) -> None:
    c.target = 2
    c.out.append(Alu("mov", 32, c.dst, None, 0))


# fmt: off
_LOOKUP: dict[str, Row] = {            # sk_lookup_convert_ctx_access
    "sk":              Path("bpf_sk_lookup_kern.selected_sk"),
    "family":          _p("bpf_sk_lookup_kern.family", 2),
    "protocol":        _p("bpf_sk_lookup_kern.protocol", 2),
    "remote_ip4":      _p("bpf_sk_lookup_kern.v4.saddr", 4),
    "remote_ip6":      _in6("saddr"),
    "remote_port":     _p("bpf_sk_lookup_kern.sport", 2),
    "":                _no_port,         # the padding behind it
    "local_ip4":       _p("bpf_sk_lookup_kern.v4.daddr", 4),
    "local_ip6":       _in6("daddr"),
    "local_port":      _p("bpf_sk_lookup_kern.dport", 2),
    "ingress_ifindex": _p("bpf_sk_lookup_kern.ingress_ifindex", 4),
}
# fmt: on


# --- sock_ops -----------------------------------------------------------------------------

_OPS = "bpf_sock_ops_kern"


def _full_socket(c: Conversion, flag: str, then: list[Insn]) -> None:
    """Read through the socket where it has what is asked for, else give 0."""
    off, size = c.layout.place(_OPS, flag)
    keep = c.layout.offset(_OPS, "temp")
    same = c.dst == c.base
    register = c.borrowed()
    asked = register if same else c.dst
    jump = len(then) + (2 if same else 0)
    if same:
        c.out.append(Store(8, c.base, keep, register))
    c.out += [Load(size, asked, c.base, off), Jump("eq", 64, asked, None, 0, jump)]
    if same:
        c.out.append(Load(8, register, c.base, keep))
    c.out += then
    if same:
        c.out += [Goto(2), Load(8, register, c.base, keep), Alu("mov", 64, c.dst, None, 0)]


def _ops_socket(c: Conversion) -> None:
    """``SOCK_OPS_GET_SK``."""
    sk = Load(8, c.dst, c.base, c.layout.offset(_OPS, "sk"))
    _full_socket(c, "is_fullsock", [sk])


def _ops_field(struct: str, member: str) -> Row:
    """``SOCK_OPS_GET_OR_SET_FIELD``."""

    def row(c: Conversion) -> None:
        off, size = c.layout.place(struct, member)
        sk = c.layout.offset(_OPS, "sk")
        if not c.write:
            then: list[Insn] = [Load(8, c.dst, c.base, sk), Load(size, c.dst, c.dst, off)]
            _full_socket(c, "is_locked_tcp_sock", then)
            return
        flag, flag_size = c.layout.place(_OPS, "is_locked_tcp_sock")
        keep, register = c.layout.offset(_OPS, "temp"), c.borrowed()
        c.out += [
            Store(8, c.base, keep, register),
            Load(flag_size, register, c.base, flag),
            Jump("eq", 64, register, None, 0, 2),
            Load(8, register, c.base, sk),
        ]
        c.store(size, register, off)
        c.out.append(Load(8, register, c.base, keep))

    return row


def _ops_reply(c: Conversion) -> None:
    off = c.insn.off - c.layout.offset("bpf_sock_ops", "replylong")
    off += c.layout.offset(_OPS, "replylong")
    if c.write:
        c.store(4, c.base, off)
    else:
        c.out.append(Load(4, c.dst, c.base, off))


def _ops_packet(struct: str, member: str, base: tuple[str, str] | None = None) -> Row:
    """Read through the packet, where there is one."""

    def row(c: Conversion) -> None:
        off, size = c.layout.place(struct, member)
        if base is not None:
            off += c.layout.offset(*base)
            c.target = size
        c.out += [
            Load(8, c.dst, c.base, c.layout.offset(_OPS, "skb")),
            Jump("eq", 64, c.dst, None, 0, 1),
            Load(size, c.dst, c.dst, off),
        ]

    return row


def _ops_hwtstamp(c: Conversion) -> None:
    c.target = 8
    shared = _shared(c, c.dst)
    c.out += [
        Load(8, c.dst, c.base, c.layout.offset(_OPS, "skb")),
        Jump("eq", 64, c.dst, None, 0, len(shared) + 1),
        *shared,
        Load(8, c.dst, c.dst, c.layout.offset("skb_shared_info", "hwtstamps")),
    ]


# fmt: off
_SOCK_OPS: dict[str, Row] = {          # sock_ops_convert_ctx_access
    "op":              Path(f"{_OPS}.op"),
    "replylong":       _ops_reply,
    **_addresses(f"{_OPS}.sk"),
    "is_fullsock":     Path(f"{_OPS}.is_fullsock"),
    "state":           Path(f"{_OPS}.sk sock_common.skc_state"),
    **{name: _ops_field("tcp_sock", name) for name in _TCP_FIELDS},
    "bpf_sock_ops_cb_flags": _ops_field("tcp_sock", "bpf_sock_ops_cb_flags"),
    "sk_txhash":       _ops_field("sock", "sk_txhash"),
    "sk":              _ops_socket,
    "skb_data_end":    Path(f"{_OPS}.skb_data_end"),
    "skb_data":        _ops_packet("sk_buff", "data"),
    "skb_len":         _ops_packet("sk_buff", "len"),
    "skb_tcp_flags":   _ops_packet("tcp_skb_cb", "tcp_flags", ("sk_buff", "cb")),
    "skb_hwtstamp":    _ops_hwtstamp,
}
# fmt: on


def _rtt_min(c: Conversion) -> None:
    """``rtt_min.s[0].v``."""
    off = c.layout.offset("tcp_sock", "rtt_min") + c.layout.offset("minmax_sample", "v")
    sk = c.layout.offset(_OPS, "sk")
    then: list[Insn] = [Load(8, c.dst, c.base, sk), Load(4, c.dst, c.dst, off)]
    _full_socket(c, "is_locked_tcp_sock", then)


def _tcp_rtt_min(c: Conversion) -> None:
    off = c.layout.offset("tcp_sock", "rtt_min") + c.layout.offset("minmax_sample", "v")
    c.out.append(Load(4, c.dst, c.base, off))


_SOCK_OPS["rtt_min"] = _rtt_min
_TCP["rtt_min"] = _tcp_rtt_min


# --- cgroups, perf ------------------------------------------------------------------------


def _file_pos(c: Conversion) -> None:
    ppos = c.layout.offset("bpf_sysctl_kern", "ppos")
    c.target = 4
    if not c.write:
        c.out += [Load(8, c.dst, c.base, ppos), Load(c.insn.size, c.dst, c.dst, 0)]
        return
    keep, register = c.layout.offset("bpf_sysctl_kern", "tmp_reg"), c.borrowed()
    c.out += [Store(8, c.base, keep, register), Load(8, register, c.base, ppos)]
    c.store(4, register, 0)
    c.out.append(Load(8, register, c.base, keep))


def _registers(c: Conversion) -> None:
    regs = c.layout.offset("bpf_perf_event_data_kern", "regs")
    c.out += [Load(8, c.dst, c.base, regs), Load(8, c.dst, c.dst, c.insn.off)]


# fmt: off
_SYSCTL: dict[str, Row] = {            # sysctl_convert_ctx_access
    "write":           _own("bpf_sysctl_kern.write"),
    "file_pos":        _file_pos,
}
_SOCKOPT: dict[str, Row] = {           # cg_sockopt_convert_ctx_access
    "sk":              Path("bpf_sockopt_kern.sk"),
    "optval":          Path("bpf_sockopt_kern.optval"),
    "optval_end":      Path("bpf_sockopt_kern.optval_end"),
    "level":           Path("bpf_sockopt_kern.level"),
    "optname":         Path("bpf_sockopt_kern.optname"),
    "optlen":          Path("bpf_sockopt_kern.optlen"),
    "retval":          Path("bpf_sockopt_kern.current_task task_struct.bpf_ctx "
                            "bpf_cg_run_ctx.retval", spill="tmp_reg"),
}
_PERF: dict[str, Row] = {              # pe_prog_convert_ctx_access
    "sample_period":   _p("bpf_perf_event_data_kern.data perf_sample_data.period", 8),
    "addr":            _p("bpf_perf_event_data_kern.data perf_sample_data.addr", 8),
    "regs":            _registers,
}

ROWS: Mapping[str, Mapping[str, Row]] = {
    "skb": _SKB, "tc": _TC, "sk_skb": _SK_SKB, "flow": _FLOW, "xdp": _XDP, "sk_msg": _SK_MSG,
    "sock_addr": _SOCK_ADDR, "reuseport": _REUSEPORT, "sock": _SOCK, "tcp": _TCP,
    "xdp_sock": _XDP_SOCK, "lookup": _LOOKUP, "sock_ops": _SOCK_OPS, "sysctl": _SYSCTL,
    "sockopt": _SOCKOPT, "perf": _PERF,
}
STRUCTS: Mapping[str, str] = {          # as programs see them
    "skb": "__sk_buff", "tc": "__sk_buff", "sk_skb": "__sk_buff", "flow": "__sk_buff",
    "xdp": "xdp_md", "sk_msg": "sk_msg_md", "sock_addr": "bpf_sock_addr",
    "reuseport": "sk_reuseport_md", "sock": "bpf_sock", "tcp": "bpf_tcp_sock",
    "xdp_sock": "bpf_xdp_sock", "lookup": "bpf_sk_lookup", "sock_ops": "bpf_sock_ops",
    "sysctl": "bpf_sysctl", "sockopt": "bpf_sockopt", "perf": "bpf_perf_event_data",
}
CONTEXTS: Mapping[str, str] = {         # by program type
    "socket_filter": "skb", "sched_cls": "tc", "sched_act": "tc", "xdp": "xdp",
    "cgroup_skb": "skb", "lwt_in": "skb", "lwt_out": "skb", "lwt_xmit": "skb",
    "lwt_seg6local": "skb", "cgroup_sock": "sock", "cgroup_sock_addr": "sock_addr",
    "sock_ops": "sock_ops", "sk_skb": "sk_skb", "sk_msg": "sk_msg", "flow_dissector": "flow",
    "sk_reuseport": "reuseport", "sk_lookup": "lookup", "perf_event": "perf",
    "cgroup_sysctl": "sysctl", "cgroup_sockopt": "sockopt",
}
SOCKETS: Mapping[int, str] = {          # by type of register
    SOCKET: "sock", SOCK_COMMON: "sock", TCP_SOCK: "tcp", XDP_SOCK: "xdp_sock",
}
# fmt: on
