"""The channel between the parent and one worker: JSON, one object with one key a line.

    worker → parent    {"imported": null}                  it waits to be told to serve, if it was asked to
                       {"running": {"ends_within": 18.0}}  its event loop runs; how long its end may take
                       {"ready": null}                     it serves
                       {"failed": {"line": "…", "details": "…", "mistake": true}}    it will not
                       {"leaving": null}                   it has begun to stop, told or not
    parent → worker    {"start": {…}}                      what to serve; the first line
                       {"serve": null}                     go on after "imported"
                       {"drain": {"restarting": true}}     stop, gracefully
                       {"stop": "now"}                     cut it short

The end of the channel means that the other process is gone. A line that is not a message is left out: code
of the program may write to any descriptor, and the parent serves the other workers' clients too. So is a
message of an unknown kind, by those who receive it: the other process may have another version.
"""

from __future__ import annotations

import contextlib
import json
import socket

import trio

__all__ = ["Channel"]

_PIECE_BYTES = 64 * 1024

_LINE_BYTES = 1024 * 1024
"""No message is so long."""


class Channel:
    """One end of a channel.

    Args:
        end: one of the sockets of a `socket.socketpair()`.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._buffer = bytearray()

    def fileno(self) -> int:
        """Return the descriptor of this end."""
        return self._end.fileno()

    def send(self, kind: str, value: object = None) -> None:
        """Send a message, and do not wait; without effect when the other process is gone.

        Messages are few and short, so there is always room for them.
        """
        # A process that is gone is noticed by whoever receives.
        with contextlib.suppress(OSError):
            self._end.send(json.dumps({kind: value}).encode() + b"\n")

    def receive_blocking(self) -> tuple[str, object]:
        """Wait for the next message, without Trio.

        Raises:
            EOFError: the other process is gone.
        """
        self._end.setblocking(True)
        try:
            while (message := self._next()) is None:
                piece = self._end.recv(_PIECE_BYTES)
                if not piece:
                    raise EOFError("the channel has ended")
                self._buffer += piece
        finally:
            self._end.setblocking(False)
        return message

    def __aiter__(self) -> Channel:
        return self

    async def __anext__(self) -> tuple[str, object]:
        """Wait for the next message; the end of the iteration is that of the other process.

        Cancellation: loses no message.
        """
        while (message := self._next()) is None:
            await trio.lowlevel.wait_readable(self._end)
            try:
                piece = self._end.recv(_PIECE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                piece = b""  # a process that is killed resets its end if it has not read everything
            if not piece:
                raise StopAsyncIteration
            self._buffer += piece
        return message

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def _next(self) -> tuple[str, object] | None:
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if not newline:
                if len(line) > _LINE_BYTES:
                    self._buffer.clear()  # its rest is no message either
                return None
            self._buffer = rest
            message = _message(line)
            if message is not None:
                return message


def _message(line: bytes | bytearray) -> tuple[str, object] | None:
    try:
        match json.loads(line):
            case dict(fields) if len(fields) == 1:
                ((kind, value),) = fields.items()
                return kind, value
    except (ValueError, RecursionError):
        pass
    return None
