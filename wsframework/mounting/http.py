"""A plain request that a mounted application answers: the events of ASGI on one side, pieces on the other.

    server -> `Exchanged` -> `receive` -> application -> `send` -> `Exchanged` -> server

What an application does wrong is raised in it, by its own call of `send`. If it lets that through, or raises
anything else, its client gets a 500, or a connection that is cut if the answer has begun.
"""

from __future__ import annotations

import trio

from wsframework.crashes import forget_earlier_frames, interrupt_in
from wsframework.mounting.fields import AnswerFields, check_status, read_fields
from wsframework.mounting.leaving import ClientLeft, is_about_leaving
from wsframework.mounting.mounts import Mount
from wsframework.mounting.scopes import http_scope
from wsframework.mounting.worlds import Message, World, current_world
from wsframework.request import Request
from wsframework.streamed import Exchanged

__all__ = ["HTTPCall"]


class HTTPCall:
    """One call of an application, for one plain request.

    Args:
        mount: which one.
        request: the request.
        headers: fields that guards have added.

    Attributes:
        request: as given.
        name: of the mount.
        body_bytes: of the mount.
    """

    def __init__(self, mount: Mount, request: Request, headers: tuple[tuple[str, str], ...]) -> None:
        self.request = request
        self.name = mount.name
        self.body_bytes = mount.body_bytes
        self._mount = mount
        self._headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self._world: World = current_world()
        self._scope = trio.CancelScope(shield=True)
        self._exchanged: Exchanged
        self._head: tuple[int, AnswerFields] | None = None
        self._sent = 0

    async def run(self, exchanged: Exchanged) -> BaseException | None:
        """Call the application, and return what it raised if that was a mistake.

        Raises:
            KeyboardInterrupt: the application raised it.

        Cancellation: does not reach the application; call `cancel`.
        """
        self._exchanged = exchanged
        mount = self._mount
        scope = http_scope(self.request, mount.root_path, mount.state, exchanged.http_version)
        error: BaseException | None = None
        try:
            with self._scope:
                await self._world.run(mount.app, scope, self._receive, self._send)
        except BaseException as raised:
            error = raised
            forget_earlier_frames(error)
        try:
            if error is None:
                return self._unanswered()
            if (interrupt := interrupt_in(error)) is not None:
                raise interrupt from None
            return None if exchanged.left and is_about_leaving(error) else error
        finally:
            del error  # its frames refer to this one

    def _unanswered(self) -> BaseException | None:
        exchanged = self._exchanged
        if exchanged.over or exchanged.left or self._scope.cancelled_caught:
            return None
        what = "in the middle of its answer" if exchanged.begun else "without an answer"
        return RuntimeError(f"{self.name}: the application has returned {what}")

    def cancel(self, reason: str) -> None:
        """Cancel the application."""
        self._scope.cancel(reason=reason)

    async def _receive(self) -> Message:
        piece = await self._world.call(self._exchanged.receive)
        if piece is None:
            return {"type": "http.disconnect"}
        body, more = piece
        return {"type": "http.request", "body": body, "more_body": more}

    async def _send(self, message: Message) -> None:
        exchanged = self._exchanged
        if exchanged.lost:
            await self._world.call(trio.lowlevel.checkpoint)
            raise ClientLeft
        kind = message["type"]
        if kind == "http.response.start":
            self._start(message)
        elif kind == "http.response.body":
            self._write(message)
        else:
            raise RuntimeError(f"{kind!r} is not supported; the scope's extensions say what is")
        await self._world.call(exchanged.has_room)

    def _start(self, message: Message) -> None:
        if self._head is not None:
            raise RuntimeError("the answer has started already")
        if message.get("trailers"):
            raise RuntimeError("trailers are not supported; the scope's extensions say what is")
        # Not sent before the first piece of the body, as ASGI wants it: until then the answer may be another.
        self._head = check_status(message["status"]), read_fields(message.get("headers", ()))

    def _write(self, message: Message) -> None:
        exchanged = self._exchanged
        if self._head is None:
            raise RuntimeError("an answer starts with http.response.start")
        if exchanged.over:
            raise RuntimeError("the answer is complete already")
        body, more = message.get("body", b""), bool(message.get("more_body", False))
        if not isinstance(body, bytes | bytearray | memoryview):
            raise TypeError(f"a body is bytes, not {type(body).__name__}")
        data = bytes(body)
        status, fields = self._head
        size = fields.size
        self._sent += len(data)
        if (
            self._has_content(status)
            and size is not None
            and (self._sent > size or (not more and self._sent < size))
        ):
            raise ValueError(f"the answer has another size than its Content-Length, {size} bytes")
        if not exchanged.begun:
            if size is None and not more and self._has_content(status):
                size = len(data)
            exchanged.start(status, [*self._headers, *fields.others], size, persist=fields.persist)
        if data:
            exchanged.write(data)
        if not more:
            exchanged.complete()

    def _has_content(self, status: int) -> bool:
        return self.request.method != "HEAD" and status not in (204, 304)
