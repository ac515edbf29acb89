"""The events of a server and its connections, and the base class of objects that observe them.

An observer is an object with one method for each event. The server calls only those that the observer's class
defines, so events that it does not use cost nothing. The log is an observer, the test kit has one to see
crashes, and a program registers its own with `app.observe`.

Messages are counted by the connection and not reported one by one: read `connection.statistics()` when the
connection is closed, or at any time before. Only an observer that defines one of the four methods about
frames is called for each message, and only then does the server use transports that make these calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs

from wsframework.connection import Connection
from wsframework.request import Address, Request

__all__ = [
    "FRAME_EVENTS",
    "FrameKind",
    "ObservedFrame",
    "Observer",
    "TransportStep",
    "event_names",
    "observes",
]

FrameKind = Literal["text", "binary", "ping", "pong", "close"]
"""A message by its type, or a control frame."""

TransportStep = Literal["fin.sent", "fin.received", "transport.broken", "transport.aborted"]
"""What happens to the bytes below the frames: an end in one direction, a failure, or our own reset."""

FRAME_EVENTS = frozenset({"frame_received", "frame_sent", "protocol_broken", "transport_step"})
"""The methods of an observer of frames."""


@attrs.frozen
class ObservedFrame:
    """A message or a control frame, without its content.

    Attributes:
        kind: `text` or `binary` for a whole message, whatever number of frames it came in; or `ping`, `pong`,
            `close`.
        payload_bytes: the payload's size before compression; for text, of its UTF-8.
        code: a Close frame's code, 1005 where the frame has none (RFC 6455 §7.1.5); None for all others.
        reason: a Close frame's reason.
    """

    kind: FrameKind
    payload_bytes: int
    code: int | None = None
    reason: str = ""


class Observer:
    """A base class for observers; each method is an event, and does nothing here.

    Subclasses define the methods that they need. Later versions may add methods, and attributes to the values
    that methods take; the parameters of a method do not change.

    Methods are called in the server's thread, synchronously. They must not block, and cannot wait: hand what
    takes time to a task or a thread of the program, through a memory channel or a queue. An exception that a
    method raises is logged as `observer.failed`, at most once in ten seconds for each observer, and changes
    nothing else; a KeyboardInterrupt stops the server, as it does from anywhere else. An observer is not told
    of what its own method causes.
    """

    # The server

    def server_listening(self, addresses: Sequence[Address]) -> None:
        """The server accepts connections; `addresses` is empty for one that is handed its connections."""

    def server_draining(self, connections: int) -> None:
        """The server has stopped accepting and begins to close the connections that are open."""

    def server_stopped(self, accepted: int) -> None:
        """All connections are closed and all handlers have ended; `accepted` is a count since the start."""

    def server_failed(self, error: BaseException) -> None:
        """The server ends because of a mistake in wsframework itself."""

    def loop_blocked(self, seconds: float, function: str | None, stack: str | None) -> None:
        """The event loop did not run for half a second or more.

        Args:
            seconds: for how long, to a quarter of a second.
            function: which function held it up, if that was seen.
            stack: the stack at that time, if it was seen; several lines.
        """

    # From the accepted socket to the answer

    def connection_accepted(self, remote: Address, local: Address, tls: str | None) -> None:
        """A client connected and has sent bytes, or finished its TLS handshake.

        One that connects and leaves without a byte is not told.

        Args:
            remote: the peer's address. Behind a proxy it is the proxy's, unless the PROXY protocol has
                announced the client: header fields come later.
            local: ours.
            tls: the version of TLS, such as `TLSv1.3`; None for plain connections.
        """

    def connection_refused(self, remote: Address) -> None:
        """A connection was not let in because there are too many, or no file descriptors are left."""

    def handshake_refused(self, remote: Address, status: int, reason: str, request: Request | None) -> None:
        """An opening handshake was refused, by an HTTP answer in place of the upgrade, or a Close after it.

        Args:
            remote: the client's address.
            status: the HTTP status; with a Close, that of the `Reject`.
            reason: what is wrong with the handshake itself, or the Close frame; empty when the application
                refused with the HTTP answer.
            request: the request; None when the handshake is not valid.
        """

    def http_answered(self, remote: Address, status: int) -> None:
        """A request got an HTTP answer: a page, an error, or a refused handshake."""

    def request_answered(self, request: Request, status: int, body_bytes: int, seconds: float) -> None:
        """A plain HTTP request was decided about, and gets its answer.

        Args:
            request: the request.
            status: the answer's HTTP status.
            body_bytes: the size of the answer's content.
            seconds: how long guards, given functions and the handler have taken, the body's arrival included.
        """

    def guard_crashed(self, request: Request, guard: str, error: BaseException) -> None:
        """A guard or a given function raised an exception; the client gets a 500.

        Args:
            request: what it was asked about.
            guard: the function's name.
            error: what it raised.
        """

    # A WebSocket connection

    def connection_opened(self, connection: Connection, handler: str) -> None:
        """The handshake is complete and the handler is about to run.

        Args:
            connection: the handler's `ws`. Read it; `statistics()` may be asked until it is closed and after.
            handler: the handler's name.
        """

    def connection_closed(self, connection: Connection, handler: str) -> None:
        """The connection is closed and its handler has ended; told once for each that was opened.

        Args:
            connection: `connection.closed` says how it ended and `statistics()` what was counted.
            handler: the handler's name.
        """

    def handler_crashed(self, request: Request, handler: str, error: BaseException) -> None:
        """A handler, or a task in its connection's nursery, raised an exception that is not about the close.

        The client gets Close 1011, or a 500 from an HTTP handler (`request.is_websocket` tells them apart).

        Args:
            request: the connection's opening handshake, or the HTTP request.
            handler: the handler's name.
            error: what it raised.
        """

    # Frames. To define one of these costs a call for each message of every connection.

    def frame_received(self, request: Request, frame: ObservedFrame) -> None:
        """A message or a control frame arrived on the connection that `request` opened."""

    def frame_sent(self, request: Request, frame: ObservedFrame) -> None:
        """A message or a control frame was committed to be sent, in this order."""

    def protocol_broken(self, request: Request, code: int, reason: str) -> None:
        """The peer broke the protocol, and the connection fails with this close code (RFC 6455 §7.1.7)."""

    def transport_step(self, request: Request, step: TransportStep, cause: str) -> None:
        """Something happened to the bytes below the frames; `cause` is a sentence, or empty."""


def event_names() -> tuple[str, ...]:
    """Return the names of all events: the public methods of `Observer`."""
    return tuple(name for name in vars(Observer) if not name.startswith("_"))


def observes(observer: Observer, event: str) -> bool:
    """Return whether an observer has a method of its own for an event."""
    method = getattr(observer, event)
    return getattr(method, "__func__", method) is not vars(Observer)[event]
