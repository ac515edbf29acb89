"""All sessions of a program: where they are kept, and for how long."""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager
from typing import Any

from wsframework.connection import Connection
from wsframework.errors import ConfigurationError
from wsframework.sessions.local import LocalSessionStore
from wsframework.sessions.session import Session, SessionTerms
from wsframework.sessions.statistics import SessionStatistics
from wsframework.sessions.store import SessionStore

__all__ = ["Sessions"]


class Sessions:
    """Sessions that outlive their connections: a client that reconnects with its token resumes its own.

        sessions = Sessions()
        app.install(sessions)

        @app.websocket("/chat", given={"user": find_user})
        async def chat(ws: Connection, user: User) -> None:
            async with sessions.open(ws, await ws.receive(), user=user.id) as session:
                await ws.send(session.token)

    Each connection has a handler of its own. What a session keeps is its `data` and the names of its rooms.
    Who the client is, is no part of it: guards and given functions are called for each connection.

    Args:
        store: what keeps the sessions; a `LocalSessionStore` by default.
        window: seconds for which a session stays after its connection has ended. 120 s. If the process was
            killed, up to half as long again.
        overlap: seconds for which the token that a client has resumed with stays valid, because the new one
            may be lost with the connection. 30 s; `session.confirm` ends it before.
        record_bytes: the maximum size of what is kept for one session, as JSON. 16 KiB.
        rooms: the maximum number of rooms in it. 64. So the replay that a client can ask for is at most the
            `History` of as many rooms.

    Raises:
        ConfigurationError: a number is not more than 0, or infinite.
    """

    def __init__(
        self,
        *,
        store: SessionStore | None = None,
        window: float = 120.0,
        overlap: float = 30.0,
        record_bytes: int = 16 * 1024,
        rooms: int = 64,
    ) -> None:
        numbers = {"window": window, "overlap": overlap, "record_bytes": record_bytes, "rooms": rooms}
        for name, value in numbers.items():
            if not 0 < value < math.inf:
                raise ConfigurationError(f"Sessions({name}={value}): it must be more than 0, and finite")
        self._terms = SessionTerms(
            # Not `store or …`: a store may have a length, and be empty.
            store=LocalSessionStore() if store is None else store,
            window=window,
            overlap=overlap,
            record_bytes=record_bytes,
            rooms=rooms,
        )

    def install(self, app: Any, /) -> None:
        """Let an App run the store: `app.install(sessions)`."""
        self._terms.store.install(app)

    def statistics(self) -> SessionStatistics:
        """Return the counters of this process."""
        return self._terms.counters.read()

    def open(
        self, ws: Connection, token: Any, *, user: str | int | None, data: Any = None
    ) -> AbstractAsyncContextManager[Session]:
        """Resume the session of a token, or begin a new one, for the duration of the `async with` block.

        The connection that had the session until now is closed with 4409, in whatever process it is. So is
        this one when another connection resumes the session.

        Args:
            ws: the connection.
            token: what the client sent; anything but the token of a session of this user begins a new one.
            user: the user's name or number, as guards and given functions have found it; 42 and "42" are the
                same. None for sessions of anonymous clients.
            data: the data of a new session.

        Raises:
            ConnectionClosed: the connection has ended already.
            SessionUnavailable: the store cannot be used now. A handler that lets it through ends its
                connection with 1013.
            TypeError: the user is no name or number, or the data are not JSON.
            ValueError: the data are larger than `record_bytes`.
            WrongThread: this is not the connection's thread.

        Cancellation:
            Before the block, the session may have been resumed, and the connection that had it closed; the
            client can resume it again with the same token for `overlap` seconds. Leaving does not wait.
        """
        return Session(self._terms, ws, token, user, data)
