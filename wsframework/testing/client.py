"""The client that tests hold: trio-websocket's, with Trio's verbs and a deadline on every wait.

Nothing of our own implementation is on its side of the connection, so every test crosses one that is not
ours; only the recorder looks at what the server sent with our decoder, and more strictly than any client.

trio-websocket reads its socket only while its queue has room, and leaves the stream open after the server's
Close. So `Client` has one task that takes every message at once (pings are answered whatever the test does)
and closes the stream when the connection is over. A client that does not read is `client.gate.hold_reads()`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self

import attrs
import trio
import trio_websocket
from wsproto.utilities import LocalProtocolError

from wsframework.closes import CloseCode, CloseFrame
from wsframework.testing.background import open_background
from wsframework.testing.deadline import DEADLINE_SECONDS, fail_after, innermost_place, waiting_frames
from wsframework.testing.faults import Gate, HalfOpen, reset_stream
from wsframework.testing.recorder import FrameRecorder, Recorded

__all__ = ["Client", "ClientSettings", "Link", "Wire", "open_client"]

_NO_LIMIT = 2**63
"""A test's client takes messages of any size, in any number: the limits under test are the server's."""

_SHOWN = 5
"""How many of the messages that came before are shown in a failure."""


@attrs.define(eq=False)
class Link:
    """What the server's side of a connection has come to.

    Attributes:
        watched: whether its handler can be watched.
        task: the handler's, once it was called.
        finished: set when the handler has ended.
        crash: what crashed for it: a handler, a guard, a given function, a wrapper.
        crash_seen: whether the test was shown the crash: as 1011, a refusal, or an answer.
    """

    watched: bool = True
    task: trio.lowlevel.Task | None = None
    finished: trio.Event = attrs.field(factory=trio.Event)
    crash: BaseException | None = None
    crash_seen: bool = False

    def raise_unseen(self) -> None:
        """Raise the crash, once, unless the test was shown it."""
        if self.crash is not None and not self.crash_seen:
            self.crash_seen = True
            raise self.crash

    def describe(self) -> str:
        """Say where the handler is."""
        if self.crash is not None:
            return f"the handler has raised {self.crash!r}"
        if not self.watched:
            return "where its handler is, this client cannot see"
        if self.task is None:
            return "no handler was called"
        if self.finished.is_set():
            return "the handler has ended"
        return f"the handler waits in {innermost_place(waiting_frames(self.task.coro))}"


@attrs.frozen(kw_only=True)
class ClientSettings:
    """What a client says in its opening handshake, and how long it waits.

    Attributes:
        subprotocols: what it offers, the best first.
        headers: more header fields.
        deadline: seconds that any one of its waits may take.
        ending_seconds: how long it waits, after it has closed, for the handler to end.
    """

    subprotocols: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    deadline: float = DEADLINE_SECONDS
    ending_seconds: float = DEADLINE_SECONDS


class Wire:
    """The client's end of the connection's bytes, and what can go wrong with it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.half_open = HalfOpen(stream)
        self.gate = Gate(self.half_open)
        self.recorded = Recorded(self.gate, check_end=False)
        self.closing = False
        self._closers: set[trio.CancelScope] = set()

    async def read(self, reader: Callable[[], Awaitable[None]]) -> None:
        """Run trio-websocket's reader."""
        try:
            await reader()
        except LocalProtocolError:
            # It answers a ping that has crossed its own Close, and wsproto does not let it.
            if not self.closing:
                raise
            for scope in self._closers:
                scope.cancel(reason="trio-websocket's reader has failed")

    async def close(self, websocket: trio_websocket.WebSocketConnection, code: int, reason: str) -> None:
        """Close as trio-websocket does, or at once when it cannot read the server's answer any more."""
        with trio.CancelScope() as scope:
            self._closers.add(scope)
            try:
                await websocket.aclose(code, reason or None)
            finally:
                self._closers.discard(scope)


class _ReaderNursery:
    """What `wrap_client_stream` starts its reader in."""

    def __init__(self, nursery: trio.Nursery, wire: Wire) -> None:
        self._nursery = nursery
        self._wire = wire

    def start_soon(self, reader: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._wire.read, reader)


class Client:
    """A WebSocket client in a test; `connect` makes it.

    Every method that waits fails with `DeadlineExceeded` after the deadline, saying what was waited for, what
    came, and where the handler is.

    Attributes:
        websocket: trio-websocket's connection, for what it alone can do.
        gate: holds back the bytes that come in or go out: `gate.hold_reads()` makes a client that does not
            read, `gate.hold_writes()` one whose bytes do not arrive, `gate.release()` ends it.
        recorder: every frame that came from the server. One that is torn or invalid fails the test by itself.
        deadline: seconds that one wait may take.
    """

    def __init__(
        self,
        websocket: trio_websocket.WebSocketConnection,
        wire: Wire,
        link: Link | None,
        *,
        deadline: float,
    ) -> None:
        self.websocket = websocket
        self.gate: Gate = wire.gate
        self.recorder: FrameRecorder = wire.recorded.recorder
        self.deadline = deadline
        self._wire = wire
        self._link = link or Link(watched=False)
        self._messages: list[str | bytes] = []
        self._inbox: deque[str | bytes] = deque()
        self._arrivals = trio.lowlevel.ParkingLot()
        self._over = trio.Event()
        self._pings: set[trio.CancelScope] = set()

    def __repr__(self) -> str:
        return f"<Client {self.websocket.path}, {self._state()}>"

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that both sides agreed on, or None."""
        return self.websocket.subprotocol

    @property
    def closed(self) -> CloseFrame | None:
        """How the connection ended: the server's close code and reason, 1006 when there was none; or None."""
        reason = self.websocket.closed if self._over.is_set() else None
        return None if reason is None else CloseFrame(int(reason.code), reason.reason or "")

    @property
    def messages(self) -> tuple[str | bytes, ...]:
        """Every message that came, received by the test or not."""
        return tuple(self._messages)

    # What clients do

    async def send(self, message: str | bytes) -> None:
        """Send one message.

        Raises:
            trio_websocket.ConnectionClosed: the connection is closed.
            DeadlineExceeded: the server does not read.

        Cancellation: trio-websocket may have sent a part of the frame; only close the connection then.
        """
        with fail_after(self.deadline, lambda: self._late("the server to take a message")):
            try:
                await self.websocket.send_message(message)
            except trio_websocket.ConnectionClosed:
                raise self._closed_error() from self._link.crash

    async def receive(self) -> str | bytes:
        """Receive the next message.

        Raises:
            trio_websocket.ConnectionClosed: the connection is closed and every message was received. When a
                handler's exception closed it, that is the `__cause__`.
            DeadlineExceeded: no message came.

        Cancellation: no message is lost.
        """
        with fail_after(self.deadline, lambda: self._late("a message")):
            await trio.lowlevel.checkpoint()
            while not self._inbox:
                if self._over.is_set():
                    raise self._closed_error() from self._link.crash
                await self._arrivals.park()
            return self._inbox.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        with fail_after(self.deadline, lambda: self._late("a message, or the end")):
            await trio.lowlevel.checkpoint()
            while not self._inbox:
                if self._over.is_set():
                    raise StopAsyncIteration
                await self._arrivals.park()
            return self._inbox.popleft()

    async def ping(self, payload: bytes | None = None) -> float:
        """Send a ping and wait for its pong; return the seconds it took.

        Raises:
            trio_websocket.ConnectionClosed: the connection is closed, or ended before the pong came.
            DeadlineExceeded: no pong came.

        Cancellation: the ping may have been sent.
        """
        started = trio.current_time()
        with fail_after(self.deadline, lambda: self._late("a pong")), trio.CancelScope() as scope:
            self._pings.add(scope)
            try:
                await self.websocket.ping(payload)
            except trio_websocket.ConnectionClosed:
                raise self._closed_error() from self._link.crash
            finally:
                self._pings.discard(scope)
        if scope.cancelled_caught:
            raise self._closed_error() from self._link.crash
        return trio.current_time() - started

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection and wait for the server's answer. Idempotent.

        Raises:
            DeadlineExceeded: the server did not answer.

        Cancellation: the stream is closed without waiting for the answer.
        """
        self._wire.closing = True
        try:
            with fail_after(self.deadline, lambda: self._late("the server's answer to Close")):
                await self._wire.close(self.websocket, code, reason)
        finally:
            self._finish()

    async def wait_closed(self) -> CloseFrame:
        """Wait until the connection is closed, and return how, as `closed` has it.

        Raises:
            DeadlineExceeded: it stayed open.

        Cancellation: nothing is left behind.
        """
        with fail_after(self.deadline, lambda: self._late("the end of the connection")):
            await self._over.wait()
        self._look_at_crash()
        assert self.closed is not None
        return self.closed

    async def wait_handler(self) -> None:
        """Wait until the server's handler of this connection has ended.

        Raises:
            DeadlineExceeded: it went on.
            RuntimeError: the client is `open_client`'s own, and cannot know.

        Cancellation: nothing is left behind.
        """
        if not self._link.watched:
            raise RuntimeError("only a client of a server in memory knows when its handler ends")
        with fail_after(self.deadline, lambda: self._late("the end of the handler")):
            await self._link.finished.wait()

    # What befalls them

    def vanish(self) -> None:
        """Be gone without a word, as a machine whose power fails: no FIN, no RST, no bytes either way."""
        self._wire.half_open.vanish()

    async def disconnect(self) -> None:
        """End TCP without a Close frame, as a killed process does: the server reads a FIN."""
        await self._wire.stream.aclose()

    async def reset(self) -> None:
        """End TCP with a RST: bytes under way in both directions are lost."""
        await reset_stream(self._wire.stream)

    # The kit's side

    async def _run(self) -> None:
        """Take every message as soon as it comes, and clean up after the last."""
        while True:
            try:
                message = await self.websocket.get_message()
            except trio_websocket.ConnectionClosed as error:
                # Closed by the test, through us or through `websocket`, or else by the server.
                by_server = isinstance(error.__context__, trio.EndOfChannel)
                break
            self._messages.append(message)
            self._inbox.append(message)
            self._arrivals.unpark()
        if by_server:
            await self._wire.recorded.aclose()
        if not self._wire.closing:
            self._finish()

    async def _leave(self, ending_seconds: float) -> None:
        """Close at the end of the test, if the connection still allows it, and wait for the handler."""
        self.gate.release()
        self._wire.closing = True
        if not self._wire.half_open.gone:
            with trio.move_on_after(self.deadline):
                await self._wire.close(self.websocket, 1000, "")
        if self._link.task is not None:
            with trio.move_on_after(ending_seconds):
                await self._link.finished.wait()
        self._link.raise_unseen()

    def _finish(self) -> None:
        self._over.set()
        self._arrivals.unpark_all()
        for scope in self._pings:
            scope.cancel(reason="the connection is closed")

    def _closed_error(self) -> trio_websocket.ConnectionClosed:
        # It is raised from the crash, so that the traceback of the test shows why the connection ended.
        self._look_at_crash()
        return trio_websocket.ConnectionClosed(self.websocket.closed)

    def _look_at_crash(self) -> None:
        # A handler that crashes after a normal close is not seen by that close.
        closed = self.closed
        if self._link.crash is not None and closed is not None and closed.code == CloseCode.INTERNAL_ERROR:
            self._link.crash_seen = True

    def _late(self, what: str) -> str:
        count = len(self._messages)
        shown = ", ".join(_short(message) for message in self._messages[-_SHOWN:])
        if not count:
            came = "no message came at all"
        elif count <= _SHOWN:
            came = f"{count} came before: {shown}"
        else:
            came = f"{count} came before, the last {_SHOWN}: {shown}"
        return (
            f"waited {self.deadline:g} s on {self.websocket.path} for {what}; {came}; "
            f"the connection is {self._state()}; {self._link.describe()}"
        )

    def _state(self) -> str:
        return f"closed ({self.closed})" if self.closed else "closing" if self._wire.closing else "open"


@asynccontextmanager
async def open_client(
    stream: trio.abc.Stream,
    host: str,
    path: str = "/",
    *,
    settings: ClientSettings | None = None,
    link: Link | None = None,
) -> AsyncIterator[Client]:
    """Connect a client over a stream that is already there: a real socket, TLS, or one with faults.

    Args:
        stream: to the server; closed at the end of the block.
        host: the Host field: `127.0.0.1:8000`.
        path: path and query.
        settings: the rest of the opening handshake, and the deadline.
        link: what the server in memory knows of the connection.

    Raises:
        trio_websocket.ConnectionRejected: the server refused.
        DeadlineExceeded: there was no answer to the opening handshake.
    """
    settings = settings or ClientSettings()
    deadline = settings.deadline
    wire = Wire(stream)
    try:
        async with open_background() as nursery:
            with fail_after(
                deadline, lambda: f"waited {deadline:g} s for the answer to the opening handshake on {path}"
            ):
                websocket = await trio_websocket.wrap_client_stream(
                    _ReaderNursery(nursery, wire),  # type: ignore[arg-type]
                    wire.recorded,  # type: ignore[arg-type]  # any stream will do
                    host,
                    path,
                    subprotocols=settings.subprotocols,
                    extra_headers=[(name.encode(), value.encode()) for name, value in settings.headers],
                    message_queue_size=_NO_LIMIT,
                    max_message_size=_NO_LIMIT,
                )
            client = Client(websocket, wire, link, deadline=deadline)
            nursery.start_soon(client._run)
            yield client
            await client._leave(settings.ending_seconds)
            nursery.cancel_scope.cancel(reason="the test's block has ended")
    finally:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)


def _short(message: str | bytes) -> str:
    text = repr(message)
    return text if len(text) <= 60 else f"{text[:50]}… ({len(message)} long)"
