"""A WebSocket that a mounted application serves, from the opening handshake to the application's end.

Theory of operation
-------------------
    task of the request     decide: `open` waits until the application has accepted or refused
                            session: the handler `_serve` gives the application the connection, and
                            ends with it
    task beside it          `_run`: the application, which spans both

The application uses the `Connection` as every handler does, so limits, order and the close are those of all
connections. When the handler is cancelled, the application is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs
import trio

from wsframework.closes import CloseFrame, check_close
from wsframework.config import Deflate
from wsframework.connection import Connection
from wsframework.crashes import forget_earlier_frames, interrupt_in
from wsframework.errors import Accept, ConnectionClosed
from wsframework.mounting.fields import check_fields, check_status, read_fields
from wsframework.mounting.leaving import ClientLeft, is_about_leaving
from wsframework.mounting.mounts import Mount
from wsframework.mounting.scopes import websocket_scope
from wsframework.mounting.worlds import Message, current_world
from wsframework.records import describe, record
from wsframework.request import Request, Response
from wsframework.session import Acceptance, CrashResponse
from wsframework.tasks import Limit, start_beside

__all__ = ["MountedAcceptance", "WebSocketCall"]


@attrs.frozen(eq=False)
class MountedAcceptance(Acceptance):
    """The decision of a mounted application to upgrade.

    Attributes:
        on_dropped: called if the connection is not upgraded after all.
    """

    on_dropped: Callable[[], None] = attrs.field(kw_only=True)


class WebSocketCall:
    """One call of an application, for one opening handshake.

    Args:
        mount: which one.
        request: the handshake.
        headers: fields of the 101 that guards have added.
        compression: of the connection.
    """

    def __init__(
        self,
        mount: Mount,
        request: Request,
        headers: tuple[tuple[str, str], ...],
        compression: Deflate | None,
    ) -> None:
        self._mount = mount
        self._request = request
        self._headers = headers
        self._compression = compression
        self._world = current_world()
        self._scope = trio.CancelScope(shield=True)
        self._answer: Acceptance | Response | None = None
        self._answered = trio.Event()
        self._ws: Connection | None = None
        self._opened = trio.Event()  # or dropped
        self._ended = trio.Event()
        self._crash: BaseException | None = None
        self._told = False
        self._closed = False
        self._refusal: tuple[int, list[tuple[str, str]], bytearray] | None = None

    # In the task of the request

    async def open(self, seconds: float) -> Acceptance | Response | None:
        """Return what the application decides; None if it has not within so many seconds.

        Raises:
            GivenUp: the decision is no longer needed.
            KeyboardInterrupt: the application raised it.

        Cancellation: the application is cancelled, and this waits for its end.
        """
        start_beside(self._run, name=self._mount.name)
        with Limit(seconds):
            try:
                await self._answered.wait()
            finally:
                if self._answer is None:
                    self._drop()
                    # Within the limit: what resists its cancellation is late, and counts until it ends.
                    with trio.CancelScope(shield=True):
                        await self._ended.wait()
        if self._answer is None and (interrupt := interrupt_in(self._crash)) is not None:
            raise interrupt
        return self._answer

    def _drop(self) -> None:
        """Take note that there will be no connection."""
        self._closed = True
        self._opened.set()
        self._scope.cancel(reason="the connection was not opened")

    async def _serve(self, ws: Connection) -> None:
        """Let the application have the connection."""
        self._ws = ws
        self._opened.set()
        try:
            await self._ended.wait()
        finally:
            if not self._ended.is_set():
                self._scope.cancel(reason=f"the connection ended: {ws.closed}")
                with trio.CancelScope(shield=True):
                    await self._ended.wait()
        crash, self._crash = self._crash, None
        try:
            if crash is not None and not (ws.closed is not None and is_about_leaving(crash)):
                raise crash
        finally:
            del crash

    # In the application's task

    async def _run(self) -> None:
        mount = self._mount
        scope = websocket_scope(self._request, mount.root_path, mount.state)
        crash: BaseException | None = None
        try:
            with self._scope:
                await self._world.run(mount.app, scope, self._receive, self._send)
        except BaseException as error:
            crash = error
            forget_earlier_frames(error)
        finally:
            self._over(crash)
            del crash

    def _over(self, crash: BaseException | None) -> None:
        """Tell the other task; this one may be in a state in which no wait works."""
        if self._answer is None and not self._opened.is_set():
            if crash is None:
                crash = RuntimeError(f"{self._mount.name}: the application has returned without an answer")
            if interrupt_in(crash) is None:
                self._answer = CrashResponse("handler", self._mount.name, crash)
                crash = None
        if crash is not None and self._ws is None and interrupt_in(crash) is None:
            # It has refused the connection, or lost it before it was open.
            if not is_about_leaving(crash):
                path = self._mount.path
                record(logging.ERROR, "mount.crashed", exc_info=crash, mount=path, error=describe(crash))
            crash = None
        self._crash = crash
        self._ended.set()
        self._answered.set()

    async def _receive(self) -> Message:
        call = self._world.call
        if not self._told:
            self._told = True
            await call(trio.lowlevel.checkpoint)
            return {"type": "websocket.connect"}
        await call(self._opened.wait)
        if self._ws is None:
            return {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        try:
            message = await call(self._ws.receive)
        except ConnectionClosed as error:
            closed = error.closed
            code, reason = closed.code, closed.reason
            if closed.received is None and closed.sent is not None:
                code, reason = closed.sent.code, closed.sent.reason
            return {"type": "websocket.disconnect", "code": int(code), "reason": reason}
        kind = "text" if isinstance(message, str) else "bytes"
        return {"type": "websocket.receive", kind: message}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        await self._world.call(trio.lowlevel.checkpoint_if_cancelled)
        if self._closed:
            if self._ws is None and self._opened.is_set():
                raise ClientLeft
            raise RuntimeError(f"{kind!r} after the end of the connection")
        if self._ws is not None:
            await self._send_open(self._ws, kind, message)
        elif self._refusal is not None or kind == "websocket.http.response.start":
            self._refuse(kind, message)
        elif kind == "websocket.accept":
            await self._accept(message)
        elif kind == "websocket.close":
            self._decide(Response.error(403, "the application has refused the connection"))
        else:
            raise RuntimeError(f"{kind!r} before the connection was accepted")

    async def _send_open(self, ws: Connection, kind: str, message: Message) -> None:
        if kind == "websocket.send":
            data = message.get("text")
            if data is None:
                data = message.get("bytes")
            if data is None:
                raise ValueError("websocket.send has neither text nor bytes")
            try:
                await self._world.call(ws.send, data)
            except ConnectionClosed:
                raise ClientLeft from None
        elif kind == "websocket.close":
            code, reason = message.get("code", 1000) or 1000, message.get("reason") or ""
            check_close(code, reason)
            self._closed = True
            ws.endpoint.start_close(CloseFrame(code, reason))
        else:
            raise RuntimeError(f"{kind!r} in an open connection")

    async def _accept(self, message: Message) -> None:
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and subprotocol not in self._request.subprotocols:
            raise ValueError("the client has not offered the subprotocol that the application accepts")
        fields = _as_text(check_fields(message.get("headers") or ()))
        Accept(headers=fields)  # raises for those that are the server's
        self._answer = MountedAcceptance(
            handler=self._serve,
            subprotocol=subprotocol,
            headers=(*self._headers, *fields),
            compression=self._compression,
            name=self._mount.name,
            on_dropped=self._drop,
        )
        self._answered.set()
        await self._world.call(self._opened.wait)
        if self._ws is None:
            raise ClientLeft

    def _refuse(self, kind: str, message: Message) -> None:
        """Collect a denial response."""
        if self._refusal is None:
            fields = _as_text(read_fields(message.get("headers", ())).others)
            self._refusal = check_status(message["status"]), fields, bytearray()
            return
        if kind != "websocket.http.response.body":
            raise RuntimeError(f"{kind!r} in the middle of an HTTP answer")
        status, fields, body = self._refusal
        body += message.get("body", b"")
        if not message.get("more_body", False):
            self._decide(Response(bytes(body), status, fields))

    def _decide(self, response: Response) -> None:
        self._answer = response
        self._closed = True
        self._opened.set()
        self._answered.set()


def _as_text(fields: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
