"""Connections over Trio streams: in memory, and on platforms without a hub.

The task of a connection runs no user code. It reads the head, waits for the decision of a user task, and
reads the body meanwhile if it is asked for. Then it writes the answer and reads the next head, or moves bytes
until the end. So it ends the connection properly even if user code has damaged its own task.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Callable
from typing import cast

import trio

from wsframework.certificates import TLSEnd
from wsframework.config import Limits, Timeouts
from wsframework.crashes import interrupt_in, split_cancelled
from wsframework.errors import HandshakeError
from wsframework.forwarded import Client
from wsframework.records import record, record_failure
from wsframework.request import Address, Response
from wsframework.server.bodies import CONTINUE, HTTPBody
from wsframework.server.core import Core
from wsframework.server.ending import NoReceiver
from wsframework.server.framing import READ_BYTES
from wsframework.server.http import Head, HeadReader, encode_response, read_head
from wsframework.server.observed import stream_transport
from wsframework.server.opening import crowded_response, draining_response
from wsframework.server.prefaces import Preface
from wsframework.server.stream import BROKEN, StreamTransport, close_stream
from wsframework.wire import Deflater, Inflater

__all__ = ["StreamIncoming"]

_READ_AHEAD_BYTES = 16 * 1024
"""How much is read from a client before its answer, in order to notice when it leaves."""

_LATE_SECONDS = 0.05
"""The time after `Timeouts.handshake`: at least one turn of the event loop, in which bytes that came in time
reach the task."""


class StreamIncoming:
    """One connection over a Trio stream: its opening handshake, and then its bytes.

    Args:
        stream: both directions of its bytes.
        remote: the peer's address, for the application.
        local: the server's address, for the application.
        core: the server's.
        on_head: called with a complete head; the task then waits for `answer`, `hand_over` or `abort`.
        received: bytes that were read from the stream already.
        preface: reads what comes before TLS and the request.

    Attributes:
        remote: the peer's address.
        local: the server's address.
        secure: whether the request came over TLS.
        client: what a trusted proxy says of its client.
        body: the request's body, if it has one.
        gone: whether the peer left while the application was deciding.
        on_left: called when it does, if the decision is no longer needed.
    """

    # Of the class, because only connections behind a trusted proxy have their own.
    client: Client | None = None
    _preface: Preface | None = None

    def __init__(
        self,
        stream: trio.abc.Stream,
        remote: Address,
        local: Address,
        core: Core,
        on_head: Callable[[StreamIncoming, Head], None],
        received: bytes = b"",
        preface: Preface | None = None,
    ) -> None:
        self.remote = remote
        self.local = local
        self.secure = core.secure or isinstance(stream, trio.SSLStream)
        self.gone = False
        self.on_left: Callable[[], None] | None = None
        self.body: HTTPBody | None = None
        self._stream = stream
        self._core = core
        self._on_head = on_head
        self._admitted = False
        self._head: Head | None = None
        self._proxy: tuple[Address, Client | None] | None = None
        self._trailing = received
        self._goes_on = False
        self._transport: StreamTransport | None = None
        self._on_release: Callable[[], None] = _nothing
        self._decided = trio.Event()
        self._body_wanted = trio.Event()
        if preface is not None:
            self._preface = preface

    @property
    def tls(self) -> TLSEnd | None:
        """The TLS connection that has the client's certificate, if one was asked for."""
        stream = self._stream
        if isinstance(stream, trio.SSLStream) and stream.context.verify_mode is not ssl.CERT_NONE:
            return cast(TLSEnd, stream)  # it has the methods of its `ssl.SSLObject`
        return None

    # Called by the task that decides

    def want_body(self) -> None:
        """Read the body, because somebody waits for it."""
        self._body_wanted.set()

    def forwarded(self, client: Client) -> None:
        """Take note that the request comes from this client of the peer, as the next one may not."""
        self._proxy = self.remote, self.client
        self.remote, self.client = client.remote, client

    def answer(self, response: Response, *, persist: bool = False) -> None:
        """Answer in HTTP, and end the connection or, with `persist`, wait for the next request on it."""
        head_only = self._head is not None and self._head.method == "HEAD"
        persist = persist and (self.body is None or self.body.drop_rest())
        data = encode_response(response, head_only=head_only, persist=persist)
        self._transport = self._make_transport(None)
        self._transport.answer(data, self._go_on if persist else None)
        if persist:
            self._transport.pause_reading()  # what comes is the next request
        else:
            self._trailing = b""
        self._decided.set()

    def _go_on(self) -> None:
        self._goes_on = True

    def stream(self, receiver: NoReceiver) -> StreamTransport:
        """Return a transport for an answer in pieces; it gives all that the client sends to the receiver."""
        self._transport = transport = self._make_transport(None)
        transport.carry(receiver)
        transport.pause_reading()  # what has come already is kept here
        self._decided.set()
        return transport

    @property
    def kept(self) -> bool:
        """Whether anything has come behind a request without a body."""
        return bool(self._trailing)

    def keep(self, data: bytes) -> None:
        """Keep what came behind the request while its answer was streamed."""
        self._trailing += data

    def end_stream(self, receiver: NoReceiver, *, persist: bool) -> None:
        """Have the connection wait for the next request after an answer in pieces, or else end."""
        if persist and (self.body is None or self.body.drop_rest()):
            receiver.then = self._go_on

    def upgrade(
        self,
        codecs: tuple[Deflater, Inflater] | None,
        on_release: Callable[[], None],
        *,
        limits: Limits,
        timeouts: Timeouts,
    ) -> StreamTransport:
        """Return the connection's transport; call `hand_over` when its endpoint is there.

        From here on the caller counts the connection: its handler may outlive its stream.
        """
        self._admitted = False
        self._on_release = on_release
        self._transport = self._make_transport(codecs, limits, timeouts)
        return self._transport

    def hand_over(self) -> None:
        """Let the transport move the bytes."""
        self._head = None  # an idle connection would keep it
        self._decided.set()

    async def answered(self) -> None:
        """Wait until the answer to the upgrade is written, or the connection is over.

        Cancellation: it cannot be cancelled.
        """
        if self._transport is not None:
            await self._transport.written()

    def abort(self) -> None:
        """Close the stream without an answer."""
        self._transport = None
        self._decided.set()

    def abandon(self) -> None:
        """Close the stream, unless the application has decided."""
        if self._transport is None:
            self.abort()

    # The connection's task

    async def serve(self, *, refuse: bool = False) -> None:
        """Serve the connection from its first byte to its last, and close the stream.

        Raises nothing but cancellation.

        Args:
            refuse: only answer that there are too many connections.
        """
        admission = self._core.admission
        self._admitted = admission.admit(self.remote) if not refuse else admission.turn_away()
        try:
            try:
                await (self._serve_admitted() if self._admitted else self._refuse())
            finally:
                self._on_release()  # before the handler can end: it is the last part of what is counted
                await close_stream(self._stream)
        except BaseException as error:
            # A bug here or in the stream's class; it must not affect other connections.
            cancelled, mistakes = split_cancelled(error)
            if (interrupt := interrupt_in(mistakes)) is not None:
                self._core.lifetime.interrupt(interrupt)
            elif mistakes is not None:
                record_failure(mistakes, remote=self.remote)
            if cancelled is not None:
                raise cancelled from None
        finally:
            self._give_up()
            if self._admitted:
                self._core.admission.depart(self.remote)

    async def _refuse(self) -> None:
        admission = self._core.admission
        if not admission.begin_refusal(self.remote):
            return
        try:
            # Over TLS an answer would cost a handshake.
            if not isinstance(self._stream, trio.SSLStream):
                self.answer(crowded_response())
                await self._move_bytes()
        finally:
            admission.end_refusal()

    async def _serve_admitted(self) -> None:
        first = True
        while first or self._goes_on:
            self._goes_on = False
            try:
                head = await self._read_head(first=first)
            except BROKEN as error:
                if first:
                    cause = str(error.__cause__ or error)
                    record(logging.DEBUG, "handshake.lost", remote=self.remote, error=cause)
                return
            if first and head is not None:
                tls = self._stream.version() if isinstance(self._stream, trio.SSLStream) else None
                self._core.observer.connection_accepted(self.remote, self.local, tls)
            first = False
            if isinstance(head, Response):
                self._core.observer.http_answered(self.remote, head.status)
                self.answer(head)
            elif head is not None:
                await self._exchange(head)
                del head  # an idle connection keeps what its task refers to
            # None for a probe, which connected and left
            await self._move_bytes()
            if self._goes_on and not await self._begin_again():
                return

    async def _exchange(self, head: Head) -> None:
        """Have a request decided about."""
        self._head, self._trailing = head, head.trailing
        self._decided, self._body_wanted = trio.Event(), trio.Event()
        self._on_head(self, head)
        method = head.method
        del head
        # The decision is nearly always there after the first step of the user task.
        for _ in range(2):
            await trio.lowlevel.checkpoint()
        if not self._decided.is_set():
            async with trio.open_nursery() as nursery:
                if self.body is None:
                    nursery.start_soon(self._watch, method)
                else:
                    nursery.start_soon(self._pump, self.body)
                await self._decided.wait()
                nursery.cancel_scope.cancel(reason="it is decided")

    async def _pump(self, body: HTTPBody) -> None:
        """Read the body once it is wanted."""
        await self._body_wanted.wait()
        try:
            if body.awaits_continue:
                body.awaits_continue = False
                await self._stream.send_all(CONTINUE)
            await self._read_body(body)
        except BROKEN:
            body.fail(400, "the connection was lost before the body was complete")

    async def _read_body(self, body: HTTPBody) -> None:
        while body.wants:
            data = await self._stream.receive_some(body.step)
            if data:
                body.feed(bytes(data))
            else:
                body.fail(400, "the connection ended before the body was complete")

    async def _begin_again(self) -> bool:
        """Drop what is left of the body; return whether there can be another request."""
        body, core = self.body, self._core
        if body is not None:
            if body.wants:
                with trio.CancelScope() as scope, contextlib.suppress(*BROKEN):
                    timer = core.timers.after(core.timeouts.body, scope.cancel)
                    try:
                        await self._read_body(body)
                    finally:
                        timer.cancel()
            if not body.complete:
                return False
            self._trailing = body.trailing
        self._head = self.body = None
        if self._proxy is not None:
            core.admission.forget(self.remote)
            (self.remote, self.client), self._proxy = self._proxy, None
        return True

    async def _read_head(self, *, first: bool) -> Head | Response | None:
        """Read a request's head. A Response refuses it; None means that the peer left or sent nothing."""
        core = self._core
        if not first and not self._trailing and not await self._idle():
            return None
        reader = HeadReader(core.limits.head_bytes, core.limits.head_fields)
        received, self._trailing = self._trailing, b""
        scope = trio.CancelScope()

        def time_out() -> None:
            core.handshakes[scope] = core.timers.after(_LATE_SECONDS, scope.cancel)

        # Not the scope's own deadline: time in which this process did not run is forgiven.
        core.handshakes[scope] = core.timers.after(core.timeouts.handshake, time_out)
        try:
            with scope:
                if self._preface is not None and not await self._read_preface(self._preface):
                    return None
                if first and isinstance(self._stream, trio.SSLStream):
                    with core.admission.handshaking(scope):
                        await self._stream.do_handshake()
                if received and (head := reader.feed(received)) is not None:
                    return head
                return await read_head(self._stream, reader)
        except HandshakeError as error:
            return Response.error(error.status, str(error), error.headers)
        finally:
            core.handshakes.pop(scope).cancel()
        if not reader.started:
            return None
        if core.lifetime.stopping.is_set():
            return draining_response()
        limit = core.timeouts.handshake
        return Response.error(408, f"the request's head was not complete within {limit:g} s")

    async def _idle(self) -> bool:
        """Wait for the first bytes of the next request; return whether they came."""
        idle = _Idle()
        core = self._core
        core.idle.add(idle)
        timer = core.timers.after(core.timeouts.keep_alive, idle.end)
        if core.lifetime.stopping.is_set():
            idle.end()
        try:
            with idle.scope:
                self._trailing = bytes(await self._stream.receive_some(READ_BYTES))
        finally:
            core.idle.discard(idle)
            timer.cancel()
        if idle.scope.cancelled_caught:
            self._transport = self._make_transport(None)
            self._transport.answer(b"")
        return bool(self._trailing)

    async def _read_preface(self, preface: Preface) -> bool:
        """Read what precedes TLS and the head; return False if the connection is over or answered."""
        stream = self._stream.transport_stream if isinstance(self._stream, trio.SSLStream) else self._stream
        while not preface.complete:
            if not preface.take(self, await stream.receive_some(preface.wants)):
                return False
        del self._preface
        return True

    async def _watch(self, method: str) -> None:
        """Notice when the client leaves while the application decides."""
        try:
            while len(self._trailing) < _READ_AHEAD_BYTES:
                data = await self._stream.receive_some(_READ_AHEAD_BYTES)
                if not data:
                    break
                self._trailing += bytes(data)
            if self._trailing:
                return  # what came before a FIN counts
        except BROKEN:
            pass
        if method not in ("GET", "HEAD"):
            return  # cancelling a POST could leave its work half done
        self.gone = True
        if self.on_left is not None:
            self.on_left()

    async def _move_bytes(self) -> None:
        if self._transport is not None:
            transport, self._transport = self._transport, None
            await transport.run(b"" if transport.carries_bytes else self._trailing)

    def _give_up(self) -> None:
        """Take note that the peer has left: end the decision, or the transport that was not started."""
        self.gone = True
        if self.on_left is not None:
            self.on_left()
        if self._transport is not None:
            self._transport.discard("the connection was lost before it began")

    def _make_transport(
        self,
        codecs: tuple[Deflater, Inflater] | None,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
    ) -> StreamTransport:
        core = self._core
        return stream_transport(core.observer)(
            self._stream,
            limits=limits or core.limits,
            timeouts=timeouts or core.timeouts,
            timers=core.timers,
            codecs=codecs,
        )


class _Idle:
    """A connection between two requests."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()

    def end(self) -> None:
        """Close it."""
        self.scope.cancel(reason="no request came")


def _nothing() -> None:
    """Do nothing: used as a callback until there is a transport."""
