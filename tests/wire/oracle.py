"""wsproto, asked the same questions as our decoder."""

from __future__ import annotations

from collections.abc import Iterable

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage
from wsproto.events import Ping as WsprotoPing
from wsproto.events import Pong as WsprotoPong
from wsproto.extensions import Extension, PerMessageDeflate

from wsframework.closes import CloseCode, CloseFrame
from wsframework.wire import CloseReceived, Event, Failure, Ping, Pong


class Oracle:
    """A wsproto connection that answers in our events; a failure's reason is left out."""

    def __init__(self, *, client: bool = False, compressed: bool = False) -> None:
        extensions: list[Extension] = []
        if compressed:
            extension = PerMessageDeflate()
            extension.finalize("permessage-deflate")
            extensions.append(extension)
        self._connection = Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER, extensions)
        self._text: list[str] = []
        self._bytes: list[bytes] = []
        self._over = False

    def feed_all(self, chunks: Iterable[bytes]) -> list[Event]:
        return [event for chunk in chunks for event in self.feed(chunk)]

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if self._over:
            return events
        self._connection.receive_data(data)
        for event in self._connection.events():
            if isinstance(event, TextMessage):
                self._text.append(event.data)
                if event.message_finished:
                    events.append("".join(self._text))
                    self._text.clear()
            elif isinstance(event, BytesMessage):
                self._bytes.append(bytes(event.data))
                if event.message_finished:
                    events.append(b"".join(self._bytes))
                    self._bytes.clear()
            elif isinstance(event, WsprotoPing):
                events.append(Ping(bytes(event.payload)))
            elif isinstance(event, WsprotoPong):
                events.append(Pong(bytes(event.payload)))
            elif isinstance(event, CloseConnection):
                self._over = True
                # A Close frame moves the connection's state, a protocol error does not.
                if self._connection.state is ConnectionState.OPEN:
                    events.append(Failure(CloseCode(event.code), ""))
                else:
                    events.append(CloseReceived(CloseFrame(event.code, event.reason or "")))
        return events
