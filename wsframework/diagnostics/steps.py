"""The values that say what happened on a connection, and those of its first part: the name and TCP.

`as_json` gives each as an object with "step" (the class's name for programs) and "at" (seconds since the
start) first, then the attributes below under their own names. Programs read them: names and meanings stay,
new ones may be added.
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
    """What the kernel says of a TCP connection (Linux's TCP_INFO); seconds are floats, sizes bytes.

    Attributes:
        state: such as "ESTABLISHED"; RFC 9293 §3.3.2 has the names.
        round_trip: the smoothed round-trip time.
        round_trip_deviation: how much it varies.
        segment_bytes: the largest segment we send (MSS).
        options: what both SYNs agreed on: "timestamps", "SACK", "window scaling", "ECN".
        send_window_scale: the peer's windows count in units of 2**this bytes; None without scaling.
        receive_window_scale: the same for ours.
        retransmissions: segments sent again so far.
        segments_sent: all that we sent, those without data included; None where the kernel is too old.
        segments_received: all that came.
        bytes_acknowledged: of ours, by the peer.
        bytes_received: of the peer's.
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
    """The host's name has become addresses.

    Attributes:
        host: the name.
        addresses: in the order in which they are tried.
        is_address: whether the name was an address already, so that nobody was asked.
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
        state: of the connection directly after that; None where the kernel does not say.
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
        syns: how often SYN was sent, where the kernel says so.
    """

    step = "tcp.failed"

    remote: str
    error: str
    syns: int | None


@attrs.frozen(kw_only=True)
class Connected(Step):
    """SYN+ACK came, the kernel has sent ACK, and the connection stands.

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
