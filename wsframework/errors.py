"""Every exception wsframework raises.

    WSFrameworkError
    ├── ConnectionClosed        (also a trio_websocket.ConnectionClosed)
    ├── WrongThread             our caller: a connection or a room was used in another thread (a RuntimeError)
    ├── PostRefused             our caller: the server takes no function from a thread now (a RuntimeError)
    ├── Unavailable             what a connection needs cannot do its work now; closes with 1013
    │   ├── RoomUnavailable     what carries a room cannot take or give a message
    │   └── SessionUnavailable  what keeps sessions cannot store or return one
    ├── Close                   raised *by* a handler to end its connection with a code of its choice
    │   └── TooManyRooms        a connection would be a member of more rooms than it may
    ├── Reject                  raised *by* a guard or given function to refuse a request
    ├── Accept                  returned or raised *by* one to let a request through and say more
    ├── ConfigurationError      our caller: a mistake in set-up, found before anything is served
    │   ├── RouteError          a path, subprotocol or handler that cannot be registered
    │   ├── ListenError         an address that cannot be listened on
    │   ├── PluginError         a plugin that cannot be found, loaded or installed
    │   ├── MountError          a mounted application that could not start
    │   └── ImportStringError   a `module:app` that names no App
    └── HandshakeError          the peer's opening handshake breaks RFC 6455; carries the HTTP answer

Errors of the first kinds are about one connection. A `ConfigurationError` is raised where the mistake
is made: at import or start-up, never while serving.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

import trio_websocket

from wsframework.closes import MAX_REASON_BYTES, Closed, CloseFrame, check_close
from wsframework.headers import HeaderFields, Headers, check_field
from wsframework.tokens import is_status

__all__ = [
    "WSFrameworkError",
    "ConnectionClosed",
    "WrongThread",
    "PostRefused",
    "Unavailable",
    "RoomUnavailable",
    "SessionUnavailable",
    "Close",
    "TooManyRooms",
    "Reject",
    "Accept",
    "ConfigurationError",
    "RouteError",
    "ListenError",
    "PluginError",
    "MountError",
    "ImportStringError",
    "HandshakeError",
]


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


class PostRefused(WSFrameworkError, RuntimeError):
    """`Server.post` does not take a function, which will not be called.

    Args:
        why: the reason.
        ended: whether the server has ended. Otherwise `Limits.posts` functions wait, and later there is room.

    Attributes:
        ended: as given.
    """

    def __init__(self, why: str, *, ended: bool) -> None:
        super().__init__(f"the function was not posted and will not be called: {why}")
        self.ended = ended


class Unavailable(WSFrameworkError):
    """What a connection needs cannot do its work now; the same call may succeed later.

    A handler that lets it through ends its connection with 1013, "try again later", and one line in the log.

    Args:
        message: what failed, for logs.
        unknown: True if it may have been done all the same: it was on its way when the connection to what
            does it was lost. False: it was not.
    """

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class RoomUnavailable(Unavailable):
    """What carries a room cannot store, queue or read a message now; the same call may succeed later.

    If `unknown`, the message may have been stored and delivered all the same.
    """


class SessionUnavailable(Unavailable):
    """What keeps sessions cannot store or return one now, or has lost it.

    If `unknown`, the session may have been changed all the same.
    """


class Close(WSFrameworkError):
    """Raise in a handler to end the connection with a close code of your choice.

    Args:
        code: 1000 to 1003, 1007 to 1014, or 3000 to 4999 (RFC 6455 §7.4).
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


class TooManyRooms(Close):
    """A connection would be a member of more rooms than `Limits.memberships`; it has not become one.

    A handler that lets it through ends its connection with 1008: clients choose their rooms, nearly always.

    Args:
        limit: how many it may be a member of.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(1008, f"a connection may be in {limit} rooms at once")
        self.limit = limit


class Reject(WSFrameworkError):
    """Raise in a guard or a given function to refuse the request with an HTTP answer.

    The order is that of `Response.error`: `Reject(401, "who are you?", {"WWW-Authenticate": "Bearer"})`.

    A browser's page cannot read the status of a refused WebSocket: it sees code 1006, as for a server that is
    down. With `close=4401` it sees 4401: the WebSocket is opened and closed at once, before its handler.

    Args:
        status: the HTTP status, 300 to 599.
        body: `str` is sent as UTF-8 text, bytes as they are.
        headers: extra header fields, as a mapping or (name, value) pairs.
        close: a close code, such as 4401, to refuse a WebSocket with in place of the HTTP answer. The reason
            is the body's beginning, and `headers` are not sent. An HTTP route answers with the status.

    Attributes:
        status: as given, like `body`.
        headers: the fields, as pairs.
        close: the Close frame for a WebSocket, or None. Its reason is what fits: 123 bytes (RFC 6455 §5.5).

    Raises:
        ValueError: the status cannot refuse anything, or the code may not be sent (RFC 6455 §7.4).
        TypeError: the body is neither text nor bytes.
    """

    def __init__(
        self,
        status: int,
        body: str | bytes = b"",
        headers: HeaderFields = (),
        *,
        close: int | None = None,
    ) -> None:
        if not is_status(status, lowest=300):
            raise ValueError(f"Reject needs an HTTP status from 300 to 599, not {status!r}")
        if not isinstance(body, str | bytes):
            raise TypeError(
                f"a body is str or bytes, not {type(body).__name__}: Reject(status, body, headers)"
            )
        super().__init__(status)
        self.status = int(status)  # an enum that is an int is written with the name of its class
        self.headers = Headers(headers).pairs()
        self.body = body
        self.close = None if close is None else _close_frame(close, body)


def _close_frame(code: int, body: str | bytes) -> CloseFrame:
    data = body.encode(errors="ignore") if isinstance(body, str) else bytes(body)
    # What is cut in the middle of a character loses it, and bytes that are no text say nothing.
    reason = data.strip()[:MAX_REASON_BYTES].decode(errors="ignore")
    check_close(code, reason)
    return CloseFrame(code, reason)


ValueT = TypeVar("ValueT")


class Accept(WSFrameworkError, Generic[ValueT]):
    """Return or raise in a guard or a given function to let the request through, and add to the answer.

        async def find_user(request: Request) -> User | Accept[User]:
            ...
            return Accept(user, headers=[set_cookie_field("session", renewed)])

    The guards and given functions after it are still called, and may refuse. The fields are added to the 101
    or, on an HTTP route, to the handler's answer, in front of its own; not to a refusal.

    Args:
        value: the handler's argument; only for a given function.
        headers: header fields, as a mapping or (name, value) pairs.

    Attributes:
        value: as given.
        headers: the fields, as pairs.

    Raises:
        ValueError: a field is part of the handshake or of HTTP's framing, describes a body, is about a single
            hop (RFC 9110 §7.6.1), or is no header field.
        TypeError: `headers` is not made of pairs of `str`.
    """

    @overload
    def __init__(self: Accept[None], *, headers: HeaderFields = ()) -> None: ...
    @overload
    def __init__(self, value: ValueT, *, headers: HeaderFields = ()) -> None: ...
    def __init__(self, value: Any = None, *, headers: HeaderFields = ()) -> None:
        super().__init__(value)
        self.value: ValueT = value
        self.headers = Headers(headers).pairs()
        for field in self.headers:
            check_field(field)
            _check_addable(field[0])


_NOT_TO_ADD = {
    **dict.fromkeys(("upgrade", "connection"), "it is part of the handshake (RFC 6455 §4.2.2)"),
    **dict.fromkeys(("content-length", "transfer-encoding"), "it says where the answer ends (RFC 9112 §6)"),
    **dict.fromkeys(
        ("keep-alive", "proxy-connection", "te", "trailer"), "it is about a single hop (RFC 9110 §7.6.1)"
    ),
    **dict.fromkeys(
        ("content-type", "content-encoding", "content-range"), "it describes a body: set it on the Response"
    ),
}


def _check_addable(name: str) -> None:
    why = _NOT_TO_ADD.get(name.lower())
    if name.lower().startswith("sec-websocket-"):
        why = "it is part of the handshake (RFC 6455 §4.2.2); the route chooses the subprotocol"
    if why is not None:
        raise ValueError(f"Accept cannot add {name}: {why}")


class ConfigurationError(WSFrameworkError):
    """A mistake in an application's set-up, found before anything is served."""


class RouteError(ConfigurationError):
    """A path, a subprotocol or a handler that cannot be registered."""


class ListenError(ConfigurationError):
    """An address that cannot be listened on: in use, not ours, or not allowed."""


class PluginError(ConfigurationError):
    """A plugin that cannot be found, loaded or installed."""


class MountError(ConfigurationError):
    """A mounted application that could not start; with what it has said."""


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
