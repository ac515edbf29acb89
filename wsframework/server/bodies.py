"""The body of one HTTP request, from the bytes behind its head to the handler that asks for it.

A transport reads bytes only while a body `wants` some: nothing before a guard or handler has asked for it,
and nothing after its end. So a body that nobody reads costs no memory, and a client that waits for
`100 Continue` gets it only if its body is wanted. What stands behind the body is the next request's.

Lengths are counted here; `chunks` reads chunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from wsframework.errors import Reject
from wsframework.request import reason_phrase
from wsframework.server.chunks import ChunkReader
from wsframework.server.http import Head
from wsframework.tasks import standing_still
from wsframework.timers import Timer, Timers

__all__ = ["BODY_READ_BYTES", "CONTINUE", "HTTPBody"]

BODY_READ_BYTES = 16 * 1024
"""The most that is read of a body at once."""

_CHUNKS_BYTES = 2 * 1024
"""The most that is read at once outside of large chunks. 16 KiB of the smallest chunks take 2 ms or more, and
with twenty such peers everybody else would wait for all of them."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_SLOWEST_BYTES_PER_SECOND = 240
"""The rate at which a client must send a body that is waited for: the same as for taking an answer."""

_SKIPPED_BYTES = 64 * 1024
"""Up to this size the rest of a body that nobody has read is read and dropped, so that the connection can
go on. To end it, and have the client connect again, costs less than more than that."""


class HTTPBody:
    """A body as it arrives.

    Args:
        head: the head of its request; what trails it is the beginning of the body.
        max_bytes: the largest size that `read` returns, unless the route has its own limit.
        standstill: seconds without enough progress after which `read` gives up, unless the route has its own.
        timers: measure them.
        on_wanted: called when `wants` becomes true.

    Attributes:
        complete: whether its end has arrived.
        awaits_continue: whether the client waits for `100 Continue` before it sends the body.
        trailing: once it is complete: the bytes behind it.
        decided_by: the task that decides about the request: while anybody waits for the body, the limits of
            its guards and handler stand still.
    """

    __slots__ = (
        "_arrived",
        "_chunks",
        "_content",
        "_dropping",
        "_error",
        "_left",
        "_max_bytes",
        "_on_wanted",
        "_received",
        "_standstill",
        "_timer",
        "_timers",
        "_wanted",
        "_whole",
        "awaits_continue",
        "complete",
        "decided_by",
        "trailing",
    )

    def __init__(
        self,
        head: Head,
        *,
        max_bytes: int,
        standstill: float,
        timers: Timers,
        on_wanted: Callable[[], None],
    ) -> None:
        self.complete = False
        self.awaits_continue = not head.trailing and _expects_continue(head)
        self._max_bytes: float = max_bytes
        self.trailing = b""
        self.decided_by: trio.lowlevel.Task | None = None
        self._left = head.body_bytes
        self._chunks = ChunkReader() if head.body_bytes is None else None
        self._standstill = standstill
        self._timers = timers
        self._timer: Timer | None = None
        self._on_wanted = on_wanted
        self._wanted = False
        self._dropping = False
        # Not a list of pieces: each piece of a few bytes would take 50 more.
        self._content = bytearray()
        self._whole: bytes | None = None
        self._received = 0
        self._error: tuple[int, str] | None = None
        self._arrived: trio.Event | None = None
        if head.trailing:
            self.feed(head.trailing)

    # The transport's side

    @property
    def wants(self) -> bool:
        """Whether the transport is to read further bytes."""
        return self._wanted and not self.complete and self._error is None

    @property
    def step(self) -> int:
        """How many bytes to read and `feed` at once, so that it takes little time."""
        if self._chunks is None:
            return BODY_READ_BYTES
        return max(_CHUNKS_BYTES, min(self._chunks.left, BODY_READ_BYTES))

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection, at least one."""
        if self.complete or self._error is not None:
            self.trailing += data
            return
        try:
            if self._chunks is None:
                self._count(data)
            else:
                self._take(self._chunks.feed(data))
                if self._chunks.complete and self._error is None:
                    self._completed(self._chunks.trailing)
        except ValueError:
            self.fail(400, "the body's chunks are malformed (RFC 9112 §7.1)")

    def fail(self, status: int, why: str) -> None:
        """Take note that the body will not be complete; `read` raises a `Reject` with that status."""
        if not self.complete and self._error is None:
            self._error = status, why
            self._over()

    def drop_rest(self) -> bool:
        """Read what is left without keeping it, if that is little.

        Returns:
            Whether the connection can go on after the answer. If the body is not `complete`, first of all
            `wants` has to become false.
        """
        if self.complete:
            return True
        if self._error is not None or self._left is None or self._left > _SKIPPED_BYTES:
            return False
        if self.awaits_continue:
            return False  # it may send the body, or not
        self._dropping = self._wanted = True
        self._content.clear()
        return True

    def _count(self, data: bytes) -> None:
        assert self._left is not None
        mine = data if len(data) <= self._left else data[: self._left]
        self._left -= len(mine)
        self._take(mine)
        if not self._left:
            self._completed(data[len(mine) :])

    def _completed(self, trailing: bytes) -> None:
        self.complete = True
        self.trailing = trailing
        self._over()

    def _take(self, data: bytes) -> None:
        self._received += len(data)
        if self._dropping:
            return
        if self._received > self._max_bytes and self._wanted:
            self._too_large()
        else:
            self._content += data

    def _too_large(self) -> None:
        self._content.clear()
        if self._error is None:  # also if it is complete: it may have come with the head
            self._error = 413, f"the body has more than {self._max_bytes} bytes"
            self._over()

    def _over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._arrived is not None:
            self._arrived.set()

    # A reader that takes pieces

    def hand_out(self, max_bytes: int | None) -> None:
        """Keep from now on only what `take` has not taken, and let others measure the progress.

        Args:
            max_bytes: the largest size, in place of the one that there was; None for any.
        """
        if self._timer is not None:
            self._timer.cancel()
        self._max_bytes = math.inf if max_bytes is None else max_bytes
        self._wanted = True
        if self._whole is not None:  # a guard has read it
            self._content, self._whole = bytearray(self._whole), None
        if self._received + (self._left or 0) > self._max_bytes:
            self._too_large()

    def take(self) -> bytes:
        """Return what has come and was not taken."""
        content, self._content = bytes(self._content), bytearray()
        return content

    @property
    def received(self) -> int:
        """How many bytes have come."""
        return self._received

    @property
    def error(self) -> tuple[int, str] | None:
        """The status that says why the body will not be complete, and the reason, if it will not be."""
        return self._error

    # The handler's side

    def bound(self, max_bytes: int, standstill: float) -> None:
        """Take the limits of the request's route, before anybody reads it."""
        self._max_bytes = max_bytes
        self._standstill = standstill

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            Reject: there is none: 400, 408 or 413, as `Request.body` says.

        Cancellation: nothing is lost; a later call goes on.
        """
        if not self._wanted:
            self._ask()
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self.complete and self._error is None:
            if self._arrived is None:
                self._arrived = trio.Event()
            with standing_still(self.decided_by):
                await self._arrived.wait()
        if self._error is not None:
            status, why = self._error
            # A new one each time: the same would collect the frames of all that raise it.
            raise Reject(status, f"{status} {reason_phrase(status)}: {why}\n")
        if self._whole is None:
            self._whole, self._content = bytes(self._content), bytearray()
        return self._whole

    @trio.lowlevel.enable_ki_protection
    def _ask(self) -> None:
        self._wanted = True
        if self._received + (self._left or 0) > self._max_bytes:
            # Before the client sends it, if it says how much it is.
            self._too_large()
        elif self.wants:
            self._time(self._received)
            self._on_wanted()

    def _time(self, received: int) -> None:
        self._timer = self._timers.after(self._standstill, lambda: self._look(received))

    def _look(self, received: int) -> None:
        if not self.wants:
            return
        if self._received - received >= max(1.0, _SLOWEST_BYTES_PER_SECOND * self._standstill):
            self._time(self._received)
        else:
            self.fail(408, f"the body did not go on within {self._standstill:g} s")


def _expects_continue(head: Head) -> bool:
    """Whether the client waits before it sends the body (RFC 9110 §10.1.1)."""
    expectations = [value.lower() for name, value in head.headers if name == "expect"]
    return head.http_version == "1.1" and "100-continue" in expectations
