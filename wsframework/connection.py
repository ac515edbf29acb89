"""The connection that a handler gets, with sends and closes that may be cancelled anywhere.

A `Connection` is the public side of an `Endpoint`, which has the state and the rules. Its methods first check
that they are called in the connection's own thread: in another one, even `reschedule` would wake the task in
the wrong run. They compare threads and not tasks, so host code of that thread may call them as well. They
hold back a KeyboardInterrupt, so that it arrives between two messages and never within one.
"""

from __future__ import annotations

import itertools
from sys import getsizeof
from threading import get_ident
from typing import Self

import trio
from trio.lowlevel import checkpoint_if_cancelled, current_task

from wsframework.closes import Closed, CloseFrame, check_close
from wsframework.config import Limits
from wsframework.endpoint import HEADER_BYTES, Endpoint
from wsframework.errors import ConnectionClosed, WrongThread
from wsframework.parking import ENDED
from wsframework.pings import Pings
from wsframework.request import Request
from wsframework.statistics import ConnectionStatistics
from wsframework.transport import BytesLike, Transport, to_bytes, to_payload
from wsframework.wire import PING, TEXT, DeflateParameters

__all__ = ["Connection"]


_ping_numbers = itertools.count(1)


class Connection:
    """One open WebSocket connection, as its handler sees it.

    All methods may be called from any number of tasks of the connection, except that only one task at a
    time may receive. In a thread other than the server's they raise `WrongThread` and change nothing;
    only reading `request`, `subprotocol`, `compression`, `closed`, `draining` and `statistics()` is allowed
    there.

    Attributes:
        endpoint: the connection's state, for hosts, rooms and engines; handlers do not need it.
    """

    __slots__ = ("__weakref__", "_compression", "_subprotocol", "endpoint")

    def __init__(
        self,
        transport: Transport,
        request: Request,
        *,
        subprotocol: str | None = None,
        compression: DeflateParameters | None = None,
        limits: Limits,
    ) -> None:
        self.endpoint = Endpoint(transport, request, limits)
        self._subprotocol = subprotocol
        self._compression = compression

    def __repr__(self) -> str:
        endpoint = self.endpoint
        state = "closed" if endpoint.ended else "closing" if endpoint.closing else "open"
        return f"<Connection {endpoint.request.path} from {endpoint.request.remote}, {state}>"

    @property
    def request(self) -> Request:
        """The opening handshake."""
        return self.endpoint.request

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that both sides agreed on, or None."""
        return self._subprotocol

    @property
    def compression(self) -> DeflateParameters | None:
        """The parameters of permessage-deflate (RFC 7692) that both sides agreed on, or None without it."""
        return self._compression

    @property
    def nursery(self) -> trio.Nursery:
        """The nursery for tasks that belong to this connection; cancelled as soon as the connection ends.

        An exception in one of them ends the connection as an exception in the handler would: Close 1011.

        Raises:
            RuntimeError: the handler has not started, or has ended.
            WrongThread: this is not the server's thread.
        """
        if get_ident() != self.endpoint.thread:
            raise WrongThread("ws.nursery")
        session = self.endpoint.session
        if session is None:
            raise RuntimeError("ws.nursery is there only while the connection's handler runs")
        return session.nursery()

    @property
    def closed(self) -> Closed | None:
        """How the connection ended: both Close frames and their order. None while it is open.

        During the closing handshake it has what is known so far.
        """
        return self.endpoint.closed

    @property
    def draining(self) -> bool:
        """True when the handler should finish, because a Close follows.

        The server has begun to stop, or the connection has reached `Limits.connection_age`.
        """
        return self.endpoint.draining is True

    async def wait_draining(self) -> None:
        """Wait until `draining` is true.

        Raises:
            WrongThread: this is not the server's thread.

        Cancellation: nothing is left behind.
        """
        endpoint = self.endpoint
        if get_ident() != endpoint.thread:
            raise WrongThread("ws.wait_draining")
        if endpoint.draining is True:
            await trio.lowlevel.checkpoint()
            return
        if not isinstance(endpoint.draining, trio.Event):
            endpoint.draining = trio.Event()
        await endpoint.draining.wait()

    def statistics(self) -> ConnectionStatistics:
        """Return the connection's counters."""
        return self.endpoint.statistics()

    # Receiving

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> str | bytes:
        """Receive the next message: `str` for Text, `bytes` for Binary.

        Raises:
            ConnectionClosed: the connection is closed and every message that arrived before was received; or
                our side has started to close it.
            trio.BusyResourceError: another task is already receiving.
            WrongThread: this is not the server's thread.

        Cancellation:
            Cancelled means nothing was taken: the message stays for the next call.

        Source: RFC 6455 §6.2.
        """
        endpoint = self.endpoint
        if get_ident() != endpoint.thread:
            raise WrongThread("ws.receive")
        # No task switch when a message is at hand. That is fair to other tasks: one read brings in a bounded
        # number of bytes, so the inbox runs dry and the task parks.
        if endpoint.inbox:
            await checkpoint_if_cancelled()
            return endpoint.take()
        if endpoint.on_idle is not None:
            endpoint.received_all()
        # Only now, because that may have ended the connection.
        if endpoint.closed is not None:
            raise ConnectionClosed(endpoint.closed)
        if endpoint.receiver is not None:
            raise trio.BusyResourceError("another task is already receiving from this connection")
        endpoint.receiver = current_task()
        message: str | bytes | object = await endpoint.parked
        if message is None:
            message, endpoint.handed = endpoint.handed, None
        elif message is ENDED:
            assert endpoint.closed is not None
            raise ConnectionClosed(endpoint.closed)
        return message  # type: ignore[return-value]

    def __aiter__(self) -> Self:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> str | bytes:
        # `receive` without its coroutine, because nearly every handler is this loop.
        endpoint = self.endpoint
        if get_ident() != endpoint.thread:
            raise WrongThread("ws.receive")
        if endpoint.inbox:
            await checkpoint_if_cancelled()
            # `Endpoint.take`, without the calls.
            message = endpoint.inbox.popleft()
            endpoint.unread_bytes -= (
                len(message) + HEADER_BYTES
                if type(message) is bytes or message.isascii()
                else getsizeof(message)
            )
            if endpoint.paused:
                endpoint.resume_reading()
            return message
        if endpoint.on_idle is not None:
            endpoint.received_all()
        if endpoint.closed is not None:
            raise StopAsyncIteration
        if endpoint.receiver is not None:
            raise trio.BusyResourceError("another task is already receiving from this connection")
        endpoint.receiver = current_task()
        parked: str | bytes | object = await endpoint.parked
        if parked is None:
            parked, endpoint.handed = endpoint.handed, None
        elif parked is ENDED:
            raise StopAsyncIteration
        return parked  # type: ignore[return-value]

    # Sending

    @trio.lowlevel.enable_ki_protection
    async def send(self, message: str | BytesLike) -> None:
        """Send one message as a single Text or Binary frame.

        Returns as soon as the whole frame is in the outbox, in the order of calls; it waits only while the
        outbox is full, which is when the peer or the network is slower than we are. Broadcasts that wait for
        the connection go first.

        Args:
            message: `str` goes out as Text (UTF-8), bytes-like as Binary.

        Raises:
            ConnectionClosed: the closing handshake has started or the transport is gone.
            TypeError: the message is neither `str` nor bytes-like.
            UnicodeEncodeError: the text contains a lone surrogate, which UTF-8 cannot encode.
            WrongThread: this is not the server's thread.

        Cancellation:
            Cancelled means not sent; the connection stays usable.

        Source: RFC 6455 §5.6, §6.1.
        """
        endpoint = self.endpoint
        if get_ident() != endpoint.thread:
            raise WrongThread("ws.send")
        await checkpoint_if_cancelled()
        if type(message) is str:
            opcode, payload = TEXT, message.encode()
        else:
            opcode, payload = to_payload(message)
        if endpoint.closed is not None:
            raise ConnectionClosed(endpoint.closed)
        # `Endpoint.has_room`, without the call: this is the path of every message.
        transport = endpoint.transport
        outbox = transport.outbox_bytes
        if endpoint.waiting is None and (outbox == 0 or outbox + len(payload) <= endpoint.outbox_limit):
            endpoint.messages_sent += 1
            transport.send(opcode, payload)
        else:
            await endpoint.send_in_line(opcode, payload)

    @trio.lowlevel.enable_ki_protection
    def send_nowait(self, message: str | BytesLike) -> None:
        """Send one message if the outbox has room for it now.

        Raises:
            trio.WouldBlock: there is no room, or a task or a broadcast is already waiting for some; nothing
                was sent.
            ConnectionClosed, TypeError, UnicodeEncodeError, WrongThread: as `send`.
        """
        endpoint = self.endpoint
        if get_ident() != endpoint.thread:
            raise WrongThread("ws.send_nowait")
        opcode, payload = to_payload(message)
        if endpoint.closed is not None:
            raise ConnectionClosed(endpoint.closed)
        if not endpoint.has_room(len(payload)):
            raise trio.WouldBlock
        endpoint.messages_sent += 1
        endpoint.transport.send(opcode, payload)

    @trio.lowlevel.enable_ki_protection
    async def ping(self, payload: BytesLike | None = None) -> float:
        """Send a ping and wait for its pong.

        Args:
            payload: at most 125 bytes, not the payload of a ping still in flight; None makes a unique one.

        Returns:
            The round-trip time in seconds.

        Raises:
            ConnectionClosed: the connection is closed, or ended before the pong arrived.
            ValueError: the payload is too long or in flight already.
            WrongThread: this is not the server's thread.

        Cancellation:
            The ping may have been sent; its pong is then ignored.

        Source: RFC 6455 §5.5.2, §5.5.3.
        """
        endpoint = self.endpoint
        if get_ident() != endpoint.thread:
            raise WrongThread("ws.ping")
        await checkpoint_if_cancelled()
        data = next(_ping_numbers).to_bytes(8) if payload is None else to_bytes(payload)
        if endpoint.pings is None:
            endpoint.pings = Pings()
        pings = endpoint.pings
        ping = pings.begin(data)
        try:
            if endpoint.closed is not None:
                raise ConnectionClosed(endpoint.closed)
            if endpoint.has_room(len(data)):
                endpoint.transport.send(PING, data)
            else:
                await endpoint.send_in_line(PING, data)
                ping.sent_at = trio.current_time()
            if endpoint.ended and ping.round_trip is None and endpoint.closed is not None:
                raise ConnectionClosed(endpoint.closed)
        except BaseException:
            pings.forget(ping)
            raise
        return await pings.wait(ping)

    # Closing

    @trio.lowlevel.enable_ki_protection
    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection: Close frame, the peer's Close frame, the orderly end of TCP.

        Calling it again, or on a connection that the peer has closed, waits for the end and is no error.
        Messages that were not received, and broadcasts that wait for room, are dropped. Bounded by
        `Timeouts.close`.

        Args:
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999.
            reason: at most 123 bytes of UTF-8.

        Raises:
            ValueError: the code or the reason may not be sent.
            WrongThread: this is not the server's thread.

        Cancellation:
            The closing handshake has started and continues without the caller: the peer gets the
            Close frame if its socket can take it, and ours is released within `Timeouts.close`.

        Source: RFC 6455 §7.1.2, §7.4.
        """
        if get_ident() != self.endpoint.thread:
            raise WrongThread("ws.aclose")
        check_close(code, reason)
        self.endpoint.start_close(CloseFrame(code, reason))
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until the connection is closed, by either side, and its socket released.

        Raises:
            WrongThread: this is not the server's thread.

        Cancellation: nothing is left behind.
        """
        if get_ident() != self.endpoint.thread:
            raise WrongThread("ws.wait_closed")
        await self.endpoint.wait_finished()
