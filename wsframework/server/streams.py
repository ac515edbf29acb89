"""Connections over Trio streams: in memory, and on platforms without a hub.

The task of a connection runs no user code. It reads the head, waits for the decision of a user task, and then
moves bytes until the end. So it ends the connection properly even if user code has damaged its own task.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from typing import cast

import trio

from wsframework.certificates import TLSEnd
from wsframework.crashes import interrupt_in, split_cancelled
from wsframework.errors import HandshakeError
from wsframework.forwarded import Client
from wsframework.records import record, record_failure
from wsframework.request import Address, Response
from wsframework.server.core import Core
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
        self._stream = stream
        self._core = core
        self._on_head = on_head
        self._admitted = False
        self._method = ""
        self._trailing = received
        self._transport: StreamTransport | None = None
        self._on_release: Callable[[], None] = _nothing
        self._decided = trio.Event()
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

    def answer(self, response: Response) -> None:
        """Answer in HTTP and end the connection."""
        self._trailing = b""
        self._transport = self._make_transport(None)
        self._transport.answer(encode_response(response, head_only=self._method == "HEAD"))
        self._decided.set()

    def upgrade(
        self, codecs: tuple[Deflater, Inflater] | None, on_release: Callable[[], None]
    ) -> StreamTransport:
        """Return the connection's transport; call `hand_over` when its endpoint is there.

        From here on the caller counts the connection: its handler may outlive its stream.
        """
        self._admitted = False
        self._on_release = on_release
        self._transport = self._make_transport(codecs)
        return self._transport

    def hand_over(self) -> None:
        """Let the transport move the bytes."""
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
        try:
            head = await self._read_head()
        except BROKEN as error:
            record(logging.DEBUG, "handshake.lost", remote=self.remote, error=str(error.__cause__ or error))
            return
        if head is None:
            await self._move_bytes()  # None for a probe, which connected and left
            return
        tls = self._stream.version() if isinstance(self._stream, trio.SSLStream) else None
        self._core.observer.connection_accepted(self.remote, self.local, tls)
        if isinstance(head, Response):
            self.answer(head)
        else:
            self._method, self._trailing = head.method, head.trailing
            self._on_head(self, head)
            del head  # an idle connection keeps what its task refers to
            # The decision is nearly always there after the first step of the user task.
            for _ in range(2):
                await trio.lowlevel.checkpoint()
            if not self._decided.is_set():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch)
                    await self._decided.wait()
                    nursery.cancel_scope.cancel(reason="it is decided")
        await self._move_bytes()

    async def _read_head(self) -> Head | Response | None:
        """Read a request's head. A Response refuses it; None means that the peer left or sent nothing."""
        core = self._core
        reader = HeadReader(core.limits.head_bytes, core.limits.head_fields)
        received = self._trailing
        scope = trio.CancelScope()

        def time_out() -> None:
            core.handshakes[scope] = core.timers.after(_LATE_SECONDS, scope.cancel)

        # Not the scope's own deadline: time in which this process did not run is forgiven.
        core.handshakes[scope] = core.timers.after(core.timeouts.handshake, time_out)
        try:
            with scope:
                if self._preface is not None and not await self._read_preface(self._preface):
                    return None
                if isinstance(self._stream, trio.SSLStream):
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

    async def _read_preface(self, preface: Preface) -> bool:
        """Read what precedes TLS and the head; return False if the connection is over or answered."""
        stream = self._stream.transport_stream if isinstance(self._stream, trio.SSLStream) else self._stream
        while not preface.complete:
            if not preface.take(self, await stream.receive_some(preface.wants)):
                return False
        del self._preface
        return True

    async def _watch(self) -> None:
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
        if self._method not in ("GET", "HEAD"):
            return  # cancelling a POST could leave its work half done
        self.gone = True
        if self.on_left is not None:
            self.on_left()

    async def _move_bytes(self) -> None:
        if self._transport is not None:
            transport, self._transport = self._transport, None
            await transport.run(self._trailing)

    def _give_up(self) -> None:
        """Take note that the peer has left: end the decision, or the transport that was not started."""
        self.gone = True
        if self.on_left is not None:
            self.on_left()
        if self._transport is not None:
            self._transport.discard("the connection was lost before it began")

    def _make_transport(self, codecs: tuple[Deflater, Inflater] | None) -> StreamTransport:
        core = self._core
        return stream_transport(core.observer)(
            self._stream, limits=core.limits, timeouts=core.timeouts, timers=core.timers, codecs=codecs
        )


def _nothing() -> None:
    """Do nothing: used as a callback until there is a transport."""
