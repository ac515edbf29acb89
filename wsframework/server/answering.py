"""One request whose answer an application streams, from the decision to the end of the application.

The application may outlive its answer: what it does then, such as the background tasks of a framework,
belongs to no connection. It counts as one, because otherwise clients could start any amount of it. So the
drain waits for it; it is cancelled when the drain's time is over.
"""

from __future__ import annotations

import logging

import trio

from wsframework.records import record
from wsframework.request import Address
from wsframework.server.core import Core
from wsframework.server.http import Head
from wsframework.server.incoming import Incoming
from wsframework.server.opening import draining_response, mistake_response
from wsframework.server.streaming import Streaming
from wsframework.server.streams import StreamIncoming
from wsframework.streamed import Streamed

__all__ = ["Answering"]


class Answering:
    """Runs what was decided to answer a request.

    Args:
        core: the server's.
        incoming: the connection.
        head: of the request.
        streamed: the decision.
        persist: whether the connection may go on after the answer.
    """

    def __init__(
        self,
        core: Core,
        incoming: Incoming | StreamIncoming,
        head: Head,
        streamed: Streamed,
        *,
        persist: bool,
    ) -> None:
        self._core = core
        self._streamed = streamed
        self._began = trio.current_time()
        self._ended = False  # the application
        self._lingers = False  # whether it counts, because it has outlived its answer
        self._streaming = Streaming(
            incoming,
            head,
            core,
            body_bytes=streamed.body_bytes,
            persist=persist,
            on_left=self._client_left,
            on_over=self._tell,
        )
        core.streamed.add(self)

    @property
    def remote(self) -> Address:
        """The client's address."""
        return self._streamed.request.remote

    async def run(self) -> None:
        """Have the request answered.

        Raises:
            KeyboardInterrupt: the application raised it.

        Cancellation: does not reach the application; call `cancel`.
        """
        streamed, observer = self._streamed, self._core.observer
        error: BaseException | None = None
        try:
            error = await streamed.run(self._streaming)
            if error is not None:
                observer.handler_crashed(streamed.request, streamed.name, error)
        finally:
            self._end(crashed=error is not None)
            del error

    def _end(self, *, crashed: bool) -> None:
        core, streaming = self._core, self._streaming
        self._ended = True
        core.streamed.discard(self)
        if self._lingers:
            core.admission.depart(self.remote)
        if crashed:
            streaming.fail(mistake_response())
        elif not streaming.left and core.draining:
            streaming.fail(draining_response())
        else:
            streaming.cut()

    def _tell(self, status: int | None) -> None:
        """Tell observers that the answer was written, or as much of it as there will be."""
        core, request = self._core, self._streamed.request
        if not self._ended:
            self._lingers = True
            core.admission.linger(self.remote)
        if status is None:
            record(logging.DEBUG, "request.lost", remote=request.remote, path=request.path)
            return
        seconds = trio.current_time() - self._began
        core.observer.request_answered(request, status, self._streaming.content_bytes, seconds)
        core.observer.http_answered(request.remote, status)

    def _client_left(self) -> None:
        """Let the application finish for a while."""
        timeouts = self._core.timeouts
        # As for the handlers of our own pages: to cancel a POST could leave its work half done.
        reads_only = self._streamed.request.method in ("GET", "HEAD")
        seconds = timeouts.disconnect_grace if reads_only else timeouts.http
        self._core.timers.after(seconds, self._cancel_late)

    def _cancel_late(self) -> None:
        self._streamed.cancel("the client has left")

    # For the server

    def cancel(self) -> None:
        """Cancel the application: the time to drain is over."""
        self._streamed.cancel("the time to drain was over")

    def abandon(self) -> None:
        """End the connection, whatever the application does."""
        self._streaming.abort("the time to drain was over")

    def leave(self) -> None:
        """Take note that `run` ended before its time: it has ended the answer."""

    give_up = leave
