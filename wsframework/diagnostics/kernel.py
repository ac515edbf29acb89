"""What Linux reports of a TCP connection, without privileges: TCP_INFO and /proc/net/tcp.

`struct tcp_info` of <linux/tcp.h> grows at its end only, so old kernels return a shorter one:

    0    state, ca_state, retransmits, probes, backoff, options, window scales (2 x 4 bits), flags   8 x u8
    8    rto, ato, snd_mss, rcv_mss, unacked, sacked, lost, retrans, fackets, 4 x last_…, pmtu,
         rcv_ssthresh, rtt, rttvar, snd_ssthresh, snd_cwnd, advmss, reordering, rcv_rtt, rcv_space,
         total_retrans                                                                               24 x u32
    104  pacing_rate, max_pacing_rate, bytes_acked, bytes_received                                    4 x u64
    136  segs_out, segs_in, …                                                                         u32

Times in it are in microseconds.
"""

from __future__ import annotations

import ipaddress
import socket as stdlib_socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import trio

from wsframework.diagnostics.steps import Kernel

__all__ = ["kernel_tells", "read_kernel", "read_state", "time_wait_ends", "watch_states"]

_STATES = (
    "",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECEIVED",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSED",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "SYN_RECEIVED",
)
"""States by the kernel's number. TCP_CLOSE is RFC 9293's CLOSED; TCP_NEW_SYN_RECV (12) is a SYN_RECEIVED."""

_OPTIONS = ((1, "timestamps"), (2, "SACK"), (4, "window scaling"), (8, "ECN"))
_WINDOW_SCALING = 4
_TIME_WAIT = "06"

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))

_FIXED = struct.Struct("=8B24I")
_COUNTERS = struct.Struct("=4Q2I")

_LOOK_AGAIN_SECONDS = 0.005


def kernel_tells() -> bool:
    """Whether this system has a TCP_INFO in the known form."""
    return sys.platform == "linux" and hasattr(stdlib_socket, "TCP_INFO")


def read_state(socket: stdlib_socket.socket) -> str | None:
    """Return the state of a TCP connection, or None where the kernel does not report it."""
    data = _read(socket)
    return _STATES[data[0]] if data else None


def read_kernel(socket: stdlib_socket.socket) -> Kernel | None:
    """Return the part of TCP_INFO that a trace shows, or None where the kernel does not report it."""
    data = _read(socket)
    if len(data) < _FIXED.size:
        return None
    fields = _FIXED.unpack_from(data)
    options, scales = fields[5], fields[6]
    scaling = bool(options & _WINDOW_SCALING)
    # Two bit fields of one byte; which one comes first follows the byte order.
    send_scale, receive_scale = (
        (scales & 0xF, scales >> 4) if sys.byteorder == "little" else (scales >> 4, scales & 0xF)
    )
    segments_sent = segments_received = acknowledged = received = None
    if len(data) >= _FIXED.size + _COUNTERS.size:
        _, _, acknowledged, received, segments_sent, segments_received = _COUNTERS.unpack_from(
            data, _FIXED.size
        )
    return Kernel(
        state=_STATES[fields[0]],
        round_trip=fields[23] / 1e6,
        round_trip_deviation=fields[24] / 1e6,
        segment_bytes=fields[10],
        options=tuple(name for bit, name in _OPTIONS if options & bit),
        send_window_scale=send_scale if scaling else None,
        receive_window_scale=receive_scale if scaling else None,
        retransmissions=fields[31],
        segments_sent=segments_sent,
        segments_received=segments_received,
        bytes_acknowledged=acknowledged,
        bytes_received=received,
    )


def _read(socket: stdlib_socket.socket) -> bytes:
    if not kernel_tells():
        return b""
    try:
        data = socket.getsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_INFO, 256)
    except OSError:
        return b""
    return data if data and data[0] < len(_STATES) else b""


async def watch_states(
    socket: stdlib_socket.socket, act: Callable[[], None], seconds: float
) -> tuple[str, ...]:
    """Act on a connection, and follow its states until they no longer change.

    Args:
        socket: the connection's socket.
        act: the action, such as a `shutdown` of the socket.
        seconds: how long to follow the states at most.

    Returns:
        The state before, the state directly after, and those that follow; empty where the kernel does not
        report states.
    """
    before = read_state(socket)
    act()
    if before is None:
        return ()
    states = [before]
    with trio.move_on_after(seconds):
        while True:
            state = read_state(socket)
            if state is not None and state != states[-1]:
                states.append(state)
            # FIN_WAIT2 waits for the peer; the other two are final.
            if state in ("CLOSED", "FIN_WAIT2", "TIME_WAIT", None):
                break
            await trio.sleep(_LOOK_AGAIN_SECONDS)
    return tuple(states)


def time_wait_ends(local: tuple[str, int], remote: tuple[str, int]) -> tuple[str, ...] | None:
    """Return which ends of a connection this machine's kernel keeps in TIME_WAIT.

    Returns:
        "client" for `local` to `remote`, "server" for the other direction, which is found when both ends are
        on this machine; None where the kernel has no such table.
    """
    try:
        waiting = set(_waiting(local[1], remote[1]))
    except OSError:
        return None
    ends = {"client": (_plain(local), _plain(remote)), "server": (_plain(remote), _plain(local))}
    return tuple(end for end, addresses in ends.items() if addresses in waiting)


_Endpoint = tuple[str, int]


def _waiting(*ports: int) -> Iterator[tuple[_Endpoint, _Endpoint]]:
    """Yield the ends of connections between two ports; of thousands in the table, the others are not read."""
    ours = {f"{port:04X}" for port in ports}
    for table in _TABLES:
        if not table.exists() and table is not _TABLES[0]:
            continue  # a kernel without IPv6
        for line in table.read_text().splitlines()[1:]:
            _, local, remote, state, *_ = line.split()
            if state == _TIME_WAIT and {local[-4:], remote[-4:]} == ours:
                yield _endpoint(local), _endpoint(remote)


def _endpoint(text: str) -> _Endpoint:
    """Read `0100007F:0BB8`: 32-bit words in the machine's order, and the port."""
    words, _, port = text.partition(":")
    packed = b"".join(
        int(words[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(words), 8)
    )
    return _plain((str(ipaddress.ip_address(packed)), int(port, 16)))


def _plain(endpoint: _Endpoint) -> _Endpoint:
    """Return an address in one form: a dual-stack server has ::ffff:127.0.0.1 for 127.0.0.1."""
    address = ipaddress.ip_address(endpoint[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address), endpoint[1]
