"""Run connections on a trio-websocket server: `await serve_websocket(app, host, port, ssl_context)`.

Theory of operation
-------------------
trio-websocket reads, parses and writes; three tasks of ours stand between it and a `Connection`:

- the *pump* receives every message at once and puts it into the connection's inbox, so pings are answered
  while the handler is busy, up to the inbox's budget;
- the *writer* is the only task that sends, and no user scope can cancel it, so no frame is ever torn;
- the *watch* notices that the server was cancelled and starts the drain.

What this host cannot do, because trio-websocket decides it: hold back the answer to the peer's Close until
unread messages were handled; end TCP by FIN and a bounded wait for the peer's (the socket is closed at once,
which can destroy data in flight); bound the request head in bytes; answer plain HTTP requests; compress;
keepalive; and the drain cannot read the peers' answers, since the server's cancellation has by then stopped
the reading. It reports a connection lost in mid-message the same as one that was closed badly: code 1006.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio
import trio_websocket
from wsproto.events import Event, Pong
from wsproto.utilities import LocalProtocolError

from wsframework.config import Limits, Timeouts
from wsframework.connection import Connection
from wsframework.errors import Closed, CloseFrame
from wsframework.request import Address, Headers, Request, Response
from wsframework.session import Acceptance, Decide, Session
from wsframework.timers import Timer, Timers
from wsframework.transport import EncodedMessage
from wsframework.wire import Opcode

__all__ = ["serve_request"]

_SHUTTING_DOWN = CloseFrame(1001, "the server is shutting down")

_FRAME_DEPARTURE_SECONDS = 0.1
"""How long a Close frame may take into the socket's buffer when nobody reads the peer's answer any more."""


async def serve_request(
    proposal: trio_websocket.WebSocketRequest, decide: Decide, *, limits: Limits, timeouts: Timeouts
) -> None:
    """Serve one connection of a trio-websocket server, from the opening handshake to the end.

    Cancellation:
        Starts the drain: Close 1001, and the handler is cancelled after `Timeouts.drain` at the latest.
    """
    request = _read_request(proposal)
    decision = await decide(request)
    if isinstance(decision, Response):
        await _reject(proposal, decision)
        return
    extra_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in decision.headers]
    try:
        peer = await proposal.accept(subprotocol=decision.subprotocol, extra_headers=extra_headers)
    except trio_websocket.ConnectionClosed:
        return  # it left while we were deciding
    await _HostedConnection(peer, request, decision, limits, timeouts).run()


def _read_request(proposal: trio_websocket.WebSocketRequest) -> Request:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in proposal.headers]
    # wsproto takes Host out of the header fields and trio-websocket hides it; the Origin check needs it.
    headers.insert(0, ("host", proposal._event.host))
    return Request(
        target=proposal.path,
        headers=Headers(headers),
        subprotocols=tuple(proposal.proposed_subprotocols),
        secure=getattr(proposal.local, "is_ssl", False),
        remote=_address(proposal.remote),
        local=_address(proposal.local),
    )


def _address(endpoint: object) -> Address:
    if isinstance(endpoint, trio_websocket.Endpoint):
        return Address(str(endpoint.address), endpoint.port)
    return Address(str(endpoint))


async def _reject(proposal: trio_websocket.WebSocketRequest, response: Response) -> None:
    headers = [
        (name.encode("latin-1", "replace"), value.encode("latin-1", "replace"))
        for name, value in response.headers.pairs()
    ]
    # "Connection: close" makes the client read up to the end instead of waiting for more.
    headers.append((b"Connection", b"close"))
    try:
        await proposal.reject(response.status, extra_headers=headers, body=response.body)
    except trio_websocket.ConnectionClosed:
        return
    # Its aclose() does nothing after a refusal, and its reader would wait for the client to leave first.
    await proposal._connection._close_stream()


class _HostedConnection:
    """The transport of one connection, and the tasks that serve it."""

    def __init__(
        self,
        peer: trio_websocket.WebSocketConnection,
        request: Request,
        acceptance: Acceptance,
        limits: Limits,
        timeouts: Timeouts,
    ) -> None:
        self.outbox_bytes = 0
        self.room_wanted = False
        self._peer = peer
        self._timeouts = timeouts
        self._timers = Timers()
        self._outbox: deque[tuple[int, bytes] | CloseFrame] = deque()
        self._outbox_filled = trio.Event()
        self._may_read = trio.Event()
        self._may_read.set()
        self._sent: CloseFrame | None = None
        self._lost: Closed | None = None
        self._peer_lost = False
        self._writing = trio.CancelScope()
        self._pings: trio.Nursery | None = None
        _let_pings_cross_close(peer)
        self._ws = Connection(self, request, subprotocol=acceptance.subprotocol, limits=limits)
        self._session = Session(
            self._ws, acceptance, timers=self._timers, timeouts=timeouts, on_over=lambda _: None
        )

    async def run(self) -> None:
        """Serve the connection until its socket is closed and its handler gone."""
        async with trio.open_nursery() as watchers:
            # User code's and the server's cancellations stop here; `_watch` turns them into a drain.
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    self._pings = nursery
                    watchers.start_soon(self._watch)
                    nursery.start_soon(self._timers.run)
                    nursery.start_soon(self._pump)
                    nursery.start_soon(self._write)
                    try:
                        await self._session.run()
                        await self._ws.wait_closed()
                    finally:
                        nursery.cancel_scope.cancel(reason="the connection is closed")
            watchers.cancel_scope.cancel(reason="the connection is closed")

    async def _watch(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._ws._drain()
            self._ws._start_close(_SHUTTING_DOWN)
            self._timers.after(self._timeouts.drain, self._ws._cancel_handler)

    async def _pump(self) -> None:
        while True:
            await self._may_read.wait()
            try:
                message = await self._peer.get_message()
            except trio_websocket.ConnectionClosed:
                break
            self._ws._deliver(message)
        if self._sent is not None:
            return  # we are closing, and the writer reports the end
        reason = self._peer.closed
        if reason is None:
            # Only a cancelled server stops trio-websocket's reader without a reason. No answer will be read.
            self._ws._start_close(_SHUTTING_DOWN)
            self._timers.after(_FRAME_DEPARTURE_SECONDS, self._abort)
        else:
            self._lost = _closed_by_peer(reason)
            self._ws._end(self._lost)
            self._abort()

    async def _write(self) -> None:
        """Send what is in the outbox, in order, up to a Close frame; then end the connection."""
        with self._writing:
            await self._send_outbox()
        if self._writing.cancelled_caught:
            with trio.CancelScope() as at_once:
                # Cancelled, trio-websocket's aclose closes the socket without a handshake.
                at_once.cancel()
                await self._peer.aclose()
        if self._lost is not None:
            self._ws._finish(self._lost)
            return
        reason = None if self._writing.cancelled_caught else self._peer.closed
        received = None if reason is None else _frame(reason)
        self._ws._finish(Closed(sent=self._sent, received=received, sent_first=True))

    async def _send_outbox(self) -> None:
        while True:
            while self._outbox:
                item = self._outbox.popleft()
                if isinstance(item, CloseFrame):
                    await self._peer.aclose(item.code, item.reason or None)
                    return
                opcode, payload = item
                try:
                    await self._send(opcode, payload)
                except trio_websocket.ConnectionClosed:
                    # The pump sees it too and ends the connection; nothing more can be sent. It must not
                    # wait for room in the inbox, which a handler that only sends will never make.
                    self._peer_lost = True
                    self._may_read.set()
                    await trio.sleep_forever()
                self.outbox_bytes -= len(payload)
                if self.room_wanted:
                    self.room_wanted = False
                    self._ws._made_room()
            self._outbox_filled = trio.Event()
            await self._outbox_filled.wait()

    async def _send(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.PING:
            assert self._pings is not None
            self._pings.start_soon(self._ping, payload)
        elif opcode == Opcode.TEXT:
            await self._peer.send_message(payload.decode())
        else:
            await self._peer.send_message(payload)

    async def _ping(self, payload: bytes) -> None:
        # trio-websocket's ping never wakes when the connection dies; ours does, and this task is cancelled.
        try:
            await self._peer.ping(payload)
        except (trio_websocket.ConnectionClosed, ValueError):
            return
        self._ws._deliver_pong(payload)

    # Transport

    def send(self, opcode: int, payload: bytes) -> None:
        self.outbox_bytes += len(payload)
        self._outbox.append((opcode, payload))
        self._outbox_filled.set()

    def send_encoded(self, message: EncodedMessage) -> None:
        self.send(message.opcode, message.payload)

    def close(self, frame: CloseFrame) -> None:
        self._sent = frame
        self._outbox.append(frame)
        self._outbox_filled.set()
        self._may_read.set()
        self._timers.after(self._timeouts.close, self._abort)

    def _abort(self) -> None:
        self._writing.cancel(reason="the connection was lost, or the close timeout is over")

    def pause_reading(self) -> None:
        if not self._peer_lost:
            self._may_read = trio.Event()

    def resume_reading(self) -> None:
        self._may_read.set()

    def flush_now(self) -> None:
        pass  # the writer is a task

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return self._timers.after(seconds, callback)


def _let_pings_cross_close(peer: trio_websocket.WebSocketConnection) -> None:
    """Drop pongs that wsproto does not let out.

    A ping that crosses our Close frame makes trio-websocket answer it, which wsproto forbids then, and the
    exception stops the whole server: any client could do that.
    """
    send = peer._send

    async def send_or_drop(event: Event) -> None:
        try:
            await send(event)
        except LocalProtocolError:
            if not isinstance(event, Pong):
                raise

    peer._send = send_or_drop  # type: ignore[method-assign]


def _frame(reason: trio_websocket.CloseReason) -> CloseFrame | None:
    """Return the peer's Close frame; 1006 is how trio-websocket spells that there was none."""
    return None if reason.code == 1006 else CloseFrame(int(reason.code), reason.reason or "")


def _closed_by_peer(reason: trio_websocket.CloseReason) -> Closed:
    if reason.code == 1009 and (reason.reason or "").startswith("Exceeded maximum message size"):
        ours = CloseFrame(1009, reason.reason or "")
        return Closed(sent=ours, received=None, sent_first=True, cause="the peer's message was too big")
    frame = _frame(reason)
    if frame is None:
        return Closed(sent=None, received=None, sent_first=None, cause="the connection was lost")
    # trio-websocket echoes the peer's frame by itself (RFC 6455 §5.5.1).
    return Closed(sent=frame, received=frame, sent_first=False)
