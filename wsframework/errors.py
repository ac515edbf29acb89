"""Every exception wsframework raises, and the values they carry.

    WSFrameworkError
    ├── ConnectionClosed        (also a trio_websocket.ConnectionClosed)
    ├── WrongThread             our caller: a connection or a room was used in another thread (a RuntimeError)
    ├── Close                   raised *by* a handler to end its connection with a code of its choice
    ├── Reject                  raised *by* a guard to refuse an opening handshake
    ├── ConfigurationError      our caller: a mistake in set-up, found before anything is served
    │   ├── RouteError          a path, subprotocol or handler that cannot be registered
    │   ├── ListenError         an address that cannot be listened on
    │   ├── PluginError         a plugin that cannot be found, loaded or installed
    │   └── ImportStringError   a `module:app` that names no App
    └── HandshakeError          the peer's opening handshake breaks RFC 6455; carries the HTTP answer

Errors of the first three kinds are about one connection. A `ConfigurationError` is raised where the mistake
is made: at import or start-up, never while serving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import trio_websocket

__all__ = [
    "CloseFrame",
    "Closed",
    "WSFrameworkError",
    "ConnectionClosed",
    "WrongThread",
    "Close",
    "Reject",
    "ConfigurationError",
    "RouteError",
    "ListenError",
    "PluginError",
    "ImportStringError",
    "HandshakeError",
]


@attrs.frozen
class CloseFrame:
    """The contents of one Close frame (RFC 6455 §5.5.1).

    Attributes:
        code: the close code; 1005 stands for a Close frame with an empty payload.
        reason: the close reason, at most 123 bytes of UTF-8.
    """

    code: int
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.code} ({self.reason})" if self.reason else str(self.code)


@attrs.frozen
class Closed:
    """How a connection ended: both Close frames, and whose came first.

    Attributes:
        sent: the Close frame we sent, or None when the connection died before we could.
        received: the peer's Close frame, or None when it left without one.
        sent_first: True when we started the closing handshake, False when the peer did, None when
            neither side sent a Close frame (the transport was lost).
        cause: one plain sentence for logs.
    """

    sent: CloseFrame | None
    received: CloseFrame | None
    sent_first: bool | None
    cause: str = ""

    @property
    def code(self) -> int:
        """The peer's close code, or 1006 when it sent no Close frame (RFC 6455 §7.1.5)."""
        return self.received.code if self.received is not None else 1006

    @property
    def reason(self) -> str:
        """The peer's close reason, or an empty string (RFC 6455 §7.1.6)."""
        return self.received.reason if self.received is not None else ""

    @property
    def clean(self) -> bool:
        """True when both Close frames crossed: "closed cleanly" (RFC 6455 §7.1.4)."""
        return self.sent is not None and self.received is not None

    def __str__(self) -> str:
        match self.sent_first:
            case True:
                answer = f"the peer answered {self.received}" if self.received else "the peer sent none"
                text = f"we sent Close {self.sent}, {answer}"
            case False:
                answer = f"we answered {self.sent}" if self.sent else "we could not answer"
                text = f"the peer sent Close {self.received}, {answer}"
            case None:
                text = "no Close frame was sent or received"
        return f"{text}; {self.cause}" if self.cause else text


class WSFrameworkError(Exception):
    """The base of every exception that wsframework raises."""


class ConnectionClosed(WSFrameworkError, trio_websocket.ConnectionClosed):
    """The connection is closed or closing, so the operation cannot be done.

    `except trio_websocket.ConnectionClosed` catches it too, and `reason` is what trio-websocket's own
    exception carries, so code written for that library keeps working.

    Attributes:
        closed: both Close frames and their order.
        reason: the same as a `trio_websocket.CloseReason`.
    """

    def __init__(self, closed: Closed) -> None:
        super().__init__(trio_websocket.CloseReason(closed.code, closed.reason or None))
        self.closed = closed

    @property
    def code(self) -> int:
        """The peer's close code, or 1006 when it sent no Close frame."""
        return self.closed.code

    def __str__(self) -> str:
        return f"connection closed: {self.closed}"

    def __repr__(self) -> str:
        return f"ConnectionClosed({str(self.closed)!r})"


class WrongThread(WSFrameworkError, RuntimeError):
    """A connection, a room or a server was used in another thread than its own; nothing has changed.

    Trio, like every event loop, belongs to one thread. Another one asks it to make the call:
    `trio.from_thread.run_sync(room.broadcast, message, trio_token=server.trio_token)`.

    Args:
        verb: what was tried, such as `room.broadcast`.
    """

    def __init__(self, verb: str) -> None:
        super().__init__(
            f"{verb} in another thread than the server's: nothing was done. Other threads call "
            "trio.from_thread.run_sync(…, trio_token=server.trio_token), or trio.from_thread.run for what is "
            "async"
        )
        self.verb = verb


class Close(WSFrameworkError):
    """Raise in a handler to end the connection with a close code of your choice.

    Args:
        code: 1000, 1001, 1003, 1007 to 1014, or 3000 to 4999 (RFC 6455 §7.4).
        reason: at most 123 bytes of UTF-8.

    Raises:
        ValueError: the code or the reason may not be sent.
    """

    def __init__(self, code: int = 1000, reason: str = "") -> None:
        check_close(code, reason)
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return str(CloseFrame(self.code, self.reason))


class Reject(WSFrameworkError):
    """Raise in a guard to refuse the opening handshake with an HTTP answer.

    Args:
        status: the HTTP status, 300 to 599.
        headers: extra header fields, as a mapping or (name, value) pairs.
        body: `str` is sent as UTF-8 text, bytes as they are.

    Raises:
        ValueError: the status cannot refuse anything.
    """

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: str | bytes = b"",
    ) -> None:
        if not 300 <= status <= 599:
            raise ValueError(f"Reject needs an HTTP status from 300 to 599, not {status}")
        super().__init__(status)
        self.status = status
        self.headers = tuple(headers.items()) if isinstance(headers, Mapping) else tuple(headers)
        self.body = body


class ConfigurationError(WSFrameworkError):
    """A mistake in an application's set-up, found before anything is served."""


class RouteError(ConfigurationError):
    """A path, a subprotocol or a handler that cannot be registered."""


class ListenError(ConfigurationError):
    """An address that cannot be listened on: in use, not ours, or not allowed."""


class PluginError(ConfigurationError):
    """A plugin that cannot be found, loaded or installed."""


class ImportStringError(ConfigurationError):
    """A `module:app` string that does not lead to an App."""


class HandshakeError(WSFrameworkError):
    """The peer's opening handshake breaks RFC 6455; carries the HTTP answer it gets.

    Attributes:
        status: the HTTP status of the answer: 400, 405 or 426.
        headers: header fields the answer must carry, such as `Sec-WebSocket-Version`.
    """

    def __init__(self, message: str, status: int = 400, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def unwrap_group(error: BaseException) -> BaseException:
    """Take an exception out of groups that hold nothing else: ours are no business of users."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


MAX_REASON_BYTES = 123
"""A control frame's payload is at most 125 bytes (RFC 6455 §5.5), and the code takes two of them."""


def check_close(code: int, reason: str) -> None:
    """Raise ValueError unless `code` and `reason` may stand in a Close frame (RFC 6455 §7.4)."""
    if not is_valid_close_code(code):
        raise ValueError(
            f"close code {code} may not be sent: use 1000, 1001, 1003, 1007 to 1014, or 3000 to 4999 "
            "(RFC 6455 §7.4)"
        )
    size = len(reason.encode())
    if size > MAX_REASON_BYTES:
        raise ValueError(f"a close reason has at most {MAX_REASON_BYTES} bytes of UTF-8; this one has {size}")


def is_valid_close_code(code: int) -> bool:
    """Whether `code` may stand in a Close frame on the wire (RFC 6455 §7.4.1, §7.4.2, IANA registry)."""
    return code in _WIRE_CODES or 3000 <= code <= 4999


# 1004 is reserved, 1005, 1006 and 1015 "MUST NOT be set as a status code in a Close control frame".
_WIRE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
