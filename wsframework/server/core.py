"""What the parts of one server share: its settings, its clocks, its observers and its connections.

Listeners and incoming connections register here, requests add their sessions, and the drain ends all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import trio

from wsframework.config import Limits, Timeouts
from wsframework.forwarded import Proxies
from wsframework.observer import Observer
from wsframework.server.admission import Admission
from wsframework.server.aging import Aging
from wsframework.server.blocking import BlockedLoop
from wsframework.server.crowd import Crowd
from wsframework.server.framing import FrameTransport
from wsframework.server.lifetime import Lifetime
from wsframework.server.observers import Observers
from wsframework.server.prefaces import Prefaces
from wsframework.server.sharing import Presence, SharedAdmission
from wsframework.session import Session
from wsframework.timers import Timer, Timers

__all__ = ["Core"]


class _Waiting(Protocol):
    def drain(self) -> None:
        """Take note that the server is stopping: do not wait for the rest of the head."""


class _Idle(Protocol):
    def end(self) -> None:
        """Close the connection."""


class _Deciding(Protocol):
    on_left: Callable[[], None] | None

    def abandon(self) -> None:
        """Close the connection, unless the application has decided."""


class _Running(Protocol):
    def cancel(self) -> None:
        """End what answers."""

    def abandon(self) -> None:
        """Close the connection, if it is still there."""


class Core:
    """The shared state of one server.

    Attributes:
        limits: as given, like `timeouts` and `secure`.
        proxies: whose header fields are read; None if no proxy is trusted.
        prefaces: reads what accepted connections begin with; None if that is TLS or a request.
        lifetime: from its start to its end.
        timers: the deadlines of all connections.
        observer: the log and the user's observers.
        admission: counts connections, and applies the limits on them.
        crowd: the servers of other processes that accept from the same listeners; None without them.
        presence: tells them of this server.
        blocked_loop: reports that the event loop was blocked.
        transports: of all WebSocket connections.
        sessions: of all handlers that have not ended.
        waiting: sockets in the hub whose head is not complete.
        idle: connections between an HTTP answer and the next request.
        handshakes: scopes in which heads are read from streams, and their deadlines.
        deciding: requests about which the application decides, and the tasks that do, once they run.
        streamed: requests that mounted applications answer, or have answered and not ended.
        draining: whether the drain has begun, so that no more requests are upgraded.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        timeouts: Timeouts,
        proxies: Proxies | None = None,
        proxy_protocol: bool = False,
        secure: bool,
        observers: Iterable[Observer],
        crowd: Crowd | None = None,
    ) -> None:
        self.limits = limits
        self.timeouts = timeouts
        self.proxies = proxies if proxies is not None and proxies.any else None
        self.secure = secure
        self.lifetime = Lifetime(lambda error: self.observer.server_failed(error))
        self.timers = Timers(on_blocked=lambda seconds: self.blocked_loop.report(seconds))
        self.crowd = crowd
        self.presence: Presence | None = None
        if limits.connection_age is not None:
            observers = (*observers, Aging(limits.connection_age, self.timers))
        if crowd is not None:
            self.presence = Presence(crowd, self.timers)
            observers = (*observers, self.presence)
        self.observer = Observers(observers, self.timers, self.lifetime.interrupt)
        counted = limits, self.timers, self.observer, self.proxies
        self.admission = Admission(*counted) if crowd is None else SharedAdmission(crowd, *counted)
        self.prefaces: Prefaces | None = None
        if proxy_protocol and self.proxies is not None:
            self.prefaces = Prefaces(self.proxies, self.admission, self.timers, limits.head_bytes)
        self.blocked_loop = BlockedLoop(self.timers, self.observer)
        self.transports: set[FrameTransport] = set()
        self.sessions: set[Session] = set()
        self.waiting: set[_Waiting] = set()
        self.idle: set[_Idle] = set()
        self.handshakes: dict[trio.CancelScope, Timer] = {}
        self.deciding: dict[_Deciding, trio.lowlevel.Task | None] = {}
        self.streamed: set[_Running] = set()
        self.draining = False
