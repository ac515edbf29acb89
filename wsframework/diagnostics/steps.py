"""The steps of a connection as values, and the classes for its first part: name resolution and TCP.

`as_json` returns a step as an object that begins with "step" (the step's name) and "at" (seconds since the
start), followed by the attributes below under their own names. Programs read them: names and meanings do not
change, and new ones may be added.
"""

from __future__ import annotations

from typing import Any, ClassVar

import attrs

__all__ = ["Connected", "ConnectFailed", "Connecting", "Kernel", "Resolved", "Step", "as_json"]


@attrs.frozen(kw_only=True)
class Step:
    """Something that happened.

    Attributes:
        at: seconds since the start.
    """

    step: ClassVar[str]

    at: float


def as_json(step: Step) -> dict[str, Any]:
    """Return the step as an object for `json.dumps`."""
    fields = attrs.asdict(step, value_serializer=lambda _, __, value: _rounded(value))
    return {"step": step.step, **fields}


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


@attrs.frozen(kw_only=True)
class Kernel:
    """What the kernel reports of a TCP connection (TCP_INFO of Linux); times in seconds, sizes in bytes.

    Attributes:
        state: such as "ESTABLISHED"; RFC 9293 §3.3.2 has the names.
        round_trip: the smoothed round-trip time.
        round_trip_deviation: how much it varies.
        segment_bytes: the largest segment we send (MSS).
        options: what both SYNs agreed on: "timestamps", "SACK", "window scaling", "ECN".
        send_window_scale: the peer's windows count in units of 2**this bytes; None without scaling.
        receive_window_scale: the same for our windows.
        retransmissions: segments retransmitted so far.
        segments_sent: segments sent, including those without data; None where the kernel is too old.
        segments_received: segments received, counted in the same way.
        bytes_acknowledged: bytes that the peer has acknowledged.
        bytes_received: bytes that the peer has sent.
    """

    state: str
    round_trip: float
    round_trip_deviation: float
    segment_bytes: int
    options: tuple[str, ...]
    send_window_scale: int | None
    receive_window_scale: int | None
    retransmissions: int
    segments_sent: int | None
    segments_received: int | None
    bytes_acknowledged: int | None
    bytes_received: int | None


@attrs.frozen(kw_only=True)
class Resolved(Step):
    """The host's name was resolved.

    Attributes:
        host: the name.
        addresses: in the order in which they are tried.
        is_address: whether the name was an address already, so that no resolver was asked.
    """

    step = "name.resolved"

    host: str
    addresses: tuple[str, ...]
    is_address: bool


@attrs.frozen(kw_only=True)
class Connecting(Step):
    """The kernel was asked to connect, and has sent SYN.

    Attributes:
        remote: the peer's address.
        state: the connection's state directly after that; None where the kernel does not report it.
    """

    step = "tcp.connecting"

    remote: str
    state: str | None


@attrs.frozen(kw_only=True)
class ConnectFailed(Step):
    """One address could not be connected to.

    Attributes:
        remote: the peer's address.
        error: such as "ECONNREFUSED" or "timeout".
        syns: how often SYN was sent; None where the kernel does not report it.
    """

    step = "tcp.failed"

    remote: str
    error: str
    syns: int | None


@attrs.frozen(kw_only=True)
class Connected(Step):
    """SYN+ACK came, the kernel has sent ACK, and the connection is established.

    Attributes:
        local: our address.
        remote: the peer's.
        seconds: since SYN.
        kernel: None where there is no TCP_INFO.
    """

    step = "tcp.connected"

    local: str
    remote: str
    seconds: float
    kernel: Kernel | None
