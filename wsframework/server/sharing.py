"""One server among several that accept from the same listeners: how it accepts, counts, and tells the others.

Theory of operation
-------------------
The kernel gives a connection to the process that asks first, so the processes of a plain shared listener end
up with very different numbers of long-lived connections. Here, a server that has clearly more than the least
of the others looks away for some milliseconds, so that the others accept. Measured with 2,000 connections
and 4 processes, the largest number was 1.01 times the mean, and 1.17 to 1.41 times without this. A listener
for each process (SO_REUSEPORT) spreads as well, but loses what is in its queue when it is closed, and lets
clients wait for a process that does not run.

A server that does not run, drains or is full is not waited for (`Crowd.fewest`), and one that is busy not for
long.
"""

from __future__ import annotations

from wsframework.config import Limits
from wsframework.connection import Connection
from wsframework.forwarded import Proxies
from wsframework.observer import Observer
from wsframework.request import Address
from wsframework.server.admission import Admission
from wsframework.server.crowd import Crowd, Figures, Phase
from wsframework.timers import Timers

__all__ = ["Politeness", "Presence", "SharedAdmission"]

BEAT_SECONDS = 0.5
"""How often a server tells its figures."""

SLACK = 8
"""How many more connections than the least of the others a server may have and still accept. With fewer,
equal servers would look away in turn."""

_ACCEPTS_PER_TURN = 8

_ACCEPTS_ALONE = 64

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.001, 0.005
"""How long a server looks away: longer each time, because each look costs a turn of the event loop."""

_PATIENCE_SECONDS = 0.1
"""How long connections wait in the queue, at most, for a server that has fewer but does not accept them,
because its event loop is busy."""

_GAP_SECONDS = 0.005
"""If the listener is not ready for so long after a pause, its queue was empty then."""

_BEATS_PER_SUM = 4
"""How often the messages of all connections are summed, in heartbeats: a tenth of a microsecond for each."""


class SharedAdmission(Admission):
    """The connections of one server, where `Limits.connections` is for all servers together.

    Each server tells its number with every connection that comes or goes. Between looking at the others'
    numbers and telling its own, each of the others may admit one connection, so n servers exceed the limit by
    n - 1 connections at most. The limit by file descriptors, and that on connections per address, are each
    server's own.

    Args:
        crowd: the servers.
        limits: as for `Admission`, like the rest.
    """

    def __init__(
        self, crowd: Crowd, limits: Limits, timers: Timers, observer: Observer, proxies: Proxies | None = None
    ) -> None:
        super().__init__(limits, timers, observer, proxies)
        self._crowd = crowd

    def fit_descriptors(self, *, known: bool = False) -> None:
        """Do as one server does, and log it once for all of them."""
        super().fit_descriptors(known=known or self._crowd.fewest() is not None)

    def admit(self, remote: Address) -> bool:
        """Count a new connection; return False if it is over a limit."""
        most = self._limits.connections
        if most is not None and self.open + self._crowd.others() >= most:
            return self.turn_away()
        admitted = super().admit(remote)
        self._crowd.tell(self.open)
        return admitted

    def depart(self, remote: Address) -> None:
        """Count an admitted connection as gone."""
        super().depart(remote)
        self._crowd.tell(self.open)


class Politeness:
    """How many connections a listener accepts at a time, in view of the other servers.

    Attributes:
        pause: how long to look away, in seconds, when `most` has returned 0.
    """

    def __init__(self, crowd: Crowd, admission: Admission) -> None:
        self.pause = _FIRST_PAUSE_SECONDS
        self._crowd = crowd
        self._admission = admission
        self._since: float | None = None
        self._asked_at = 0.0

    def most(self, now: float) -> int:
        """Return how many connections to accept, now that the listener is ready; 0 to look away first.

        Args:
            now: `trio.current_time()`.
        """
        full = self._admission.is_full
        # Each time, because every listener of a server has a politeness of its own.
        self._crowd.enter(Phase.FULL if full else Phase.SERVING)
        least = self._crowd.fewest()
        if least is None:
            return _ACCEPTS_ALONE  # if this one is full too, it answers with 503
        room = 0 if full else least + SLACK + 1 - self._admission.open
        if room > 0:
            self._since = None
            return min(room, _ACCEPTS_PER_TURN)
        if self._since is None or now > self._asked_at + _GAP_SECONDS:
            self._since = now
            self.pause = _FIRST_PAUSE_SECONDS
        elif now >= self._since + _PATIENCE_SECONDS and not full:
            self._since = None
            return _ACCEPTS_PER_TURN
        else:
            self.pause = min(self.pause + _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        return 0

    def ask_again(self, now: float) -> None:
        """Take note that the pause is over: `most` is called at once if the queue is not empty.

        Args:
            now: `trio.current_time()`, which may be later than planned.
        """
        self._asked_at = now

    def others_accept(self) -> bool:
        """Whether another server accepts what is in the queue."""
        return self._crowd.fewest() is not None


class Presence(Observer):
    """Tells the others that this server runs, and what it has counted.

    As an observer it learns of the connections whose messages it counts.

    Args:
        crowd: the servers.
        timers: this server's.
    """

    def __init__(self, crowd: Crowd, timers: Timers) -> None:
        self._crowd = crowd
        self._timers = timers
        self._connections: set[Connection] = set()
        self._closed = self._messages = (0, 0)
        self._beats = 0

    def connection_opened(self, connection: Connection, handler: str) -> None:
        """Count its messages from now on."""
        self._connections.add(connection)

    def connection_closed(self, connection: Connection, handler: str) -> None:
        """Keep what it has counted."""
        self._connections.discard(connection)
        received, sent = self._closed
        endpoint = connection.endpoint
        self._closed = received + endpoint.messages_received, sent + endpoint.messages_sent

    def begin(self, admission: Admission) -> None:
        """Tell that this server accepts, and from now on its figures, twice a second."""
        self._crowd.enter(Phase.SERVING)
        self._beat(admission, 0.0)

    def drain(self) -> None:
        """Tell that it accepts no more."""
        self._crowd.enter(Phase.DRAINING)

    def end(self) -> None:
        """Tell that every connection is closed."""
        self._crowd.enter(Phase.STOPPED)

    def _beat(self, admission: Admission, loop_lag: float) -> None:
        timers = self._timers
        forgiven = timers.forgiven

        def beat() -> None:
            # What was forgiven is time in which the loop did not run.
            self._beat(admission, timers.now() - timer.deadline + timers.forgiven - forgiven)

        timer = timers.after(BEAT_SECONDS, beat)
        if self._beats % _BEATS_PER_SUM == 0:
            self._messages = self._sum()
        self._beats += 1
        received, sent = self._messages
        self._crowd.beat(
            Figures(
                websockets=len(self._connections),
                accepted=admission.accepted,
                refused=admission.refused,
                messages_received=received,
                messages_sent=sent,
                loop_lag=loop_lag,
            )
        )

    def _sum(self) -> tuple[int, int]:
        received, sent = self._closed
        for connection in self._connections:
            endpoint = connection.endpoint
            received += endpoint.messages_received
            sent += endpoint.messages_sent
        return received, sent
