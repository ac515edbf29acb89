"""Answers that are written piece by piece: what a server offers for one, and the decision to give one.

The answer of a route of ours is one `Response`. An application that is mounted reads the request's body and
writes its answer in pieces, while it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from wsframework.request import Request

__all__ = ["Exchanged", "Streamed"]


class Exchanged(Protocol):
    """One request's body and its answer, as they are streamed over a connection.

    The methods that do not wait may be called at any time, also when the connection is lost.
    """

    http_version: str
    """"1.1" or "1.0"."""

    left: bool
    """Whether nothing more comes from the client: it has left, or waits for its answer in silence."""

    lost: bool
    """Whether nothing reaches the client any longer."""

    begun: bool
    """Whether the answer's head was written."""

    over: bool
    """Whether the answer was written to its end, or has failed."""

    async def receive(self) -> tuple[bytes, bool] | None:
        """Return the next piece of the body, and whether more follow; None if there will be none.

        There will be none once the client has left, the body is broken, or the answer is over. After the last
        piece this waits for one of these.

        Cancellation: nothing is lost.
        """

    def start(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], size: int | None, *, persist: bool
    ) -> None:
        """Write the answer's head.

        Args:
            status: the HTTP status.
            fields: the header fields, without those about the connection and the size.
            size: the size of the content, if it is known.
            persist: False if the answer is to be the last one on its connection.
        """

    def write(self, data: bytes) -> None:
        """Write a piece of the content."""

    def complete(self) -> None:
        """Take note that the answer is complete."""

    def cut(self) -> None:
        """End the connection, because the answer cannot be completed."""

    async def has_room(self) -> None:
        """Wait until the client has taken nearly all that was written, or is lost.

        Cancellation: nothing is lost.
        """


class Streamed(Protocol):
    """The decision to let an application write the answer."""

    request: Request
    """What is answered."""

    name: str
    """What answers it, for records."""

    body_bytes: int | None
    """The largest body that it takes, or None."""

    async def run(self, exchanged: Exchanged) -> BaseException | None:
        """Have it answered; return what the application raised, if that was a mistake.

        The answer need not be complete then, or begun.

        Raises:
            KeyboardInterrupt: the application raised it.

        Cancellation: does not reach the application; call `cancel`.
        """

    def cancel(self, reason: str) -> None:
        """Cancel the application."""
