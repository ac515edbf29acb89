"""A conversation: what is typed goes out, what comes is shown, until one side has had enough.

Theory of operation
-------------------
    listen       shows messages; ends everything when the connection is closed
    speak        sends lines; when they are over, waits for a quiet moment and closes
    interrupted  SIGINT: closes

Whoever comes first cancels the others, and only then the Close frame is sent, by `run`.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from typing import Protocol

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from wsframework.closes import CloseFrame, check_close

__all__ = ["Ended", "Screen", "Talk"]

HELP = (
    "what you type is sent, line by line",
    "/ping                 ask the server for a sign of life, and show how long it took",
    "/close [CODE REASON]  close the connection, with 1000 if you name no other code",
    "/help                 show this",
    "//…                   send a line that begins with /",
    "Ctrl-D and Ctrl-C close the connection, too",
)


class Screen(Protocol):
    """What shows a connection."""

    def opened(self, url: str, subprotocol: str | None) -> None:
        """The connection is open."""

    def sent(self, message: str) -> None:
        """A message was sent."""

    def received(self, message: str | bytes) -> None:
        """A message came."""

    def ponged(self, seconds: float) -> None:
        """A ping was answered."""

    def note(self, text: str) -> None:
        """Say something about a command."""

    def closed(self, by: str, code: int, reason: str) -> None:
        """The connection is closed.

        Args:
            by: "client" or "server": who sent the first Close frame.
            code: the server's close code, 1006 when it sent none.
            reason: its close reason.
        """


@attrs.frozen
class Ended:
    """How a conversation was over.

    Attributes:
        by: "client" or "server": who closed the connection.
        code: the server's close code; 1005 when its Close frame had none, 1006 when it sent none.
        reason: its close reason.
        interrupted: whether SIGINT was what ended it.
    """

    by: str
    code: int
    reason: str
    interrupted: bool = False


class Talk:
    """One connection's conversation.

    Args:
        ws: the connection.
        screen: what shows it.
        lines: what is typed.
        commands: whether lines that begin with a slash are commands.
        wait_seconds: how long nothing must come, once the lines are over, before the connection is closed.
        timeout_seconds: how long to wait for the server's answer to our Close frame.
    """

    def __init__(
        self,
        ws: WebSocketConnection,
        screen: Screen,
        lines: AsyncIterator[str],
        *,
        commands: bool,
        wait_seconds: float,
        timeout_seconds: float,
    ) -> None:
        self._ws = ws
        self._screen = screen
        self._lines = lines
        self._commands = commands
        self._wait_seconds = wait_seconds
        self._timeout_seconds = timeout_seconds
        self._quiet = trio.CancelScope()
        self._close: CloseFrame | None = None
        self._interrupted = False
        self._nursery: trio.Nursery | None = None

    async def run(self) -> Ended:
        """Talk until the connection is closed; show that, and return how it was.

        Cancellation: the connection is left open.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._listen)
            nursery.start_soon(self._speak)
            nursery.start_soon(self._wait_for_interrupt)
        by = "server" if self._close is None else "client"
        if self._close is not None:
            await self._part(self._close)
        reason = self._ws.closed
        code = 1006 if reason is None else int(reason.code)
        words = "" if reason is None else reason.reason or ""
        self._screen.closed(by, code, words)
        return Ended(by, code, words, self._interrupted)

    def _stop(self, frame: CloseFrame | None) -> None:
        assert self._nursery is not None
        self._close = frame
        self._nursery.cancel_scope.cancel(reason="the conversation is over")

    async def _part(self, frame: CloseFrame) -> None:
        with trio.move_on_after(self._timeout_seconds):
            await self._ws.aclose(frame.code, frame.reason or None)

    async def _listen(self) -> None:
        try:
            while True:
                message = await self._ws.get_message()
                self._stay()
                self._screen.received(message)
        except ConnectionClosed:
            self._stop(None)

    async def _speak(self) -> None:
        try:
            async for line in self._lines:
                await self._say(line)
        except ConnectionClosed:
            return  # the listener has seen it too
        if not self._commands:
            # From a pipe: the answers to the last lines are still to come.
            self._stay()
            with self._quiet:
                await trio.sleep_forever()
        self._stop(CloseFrame(1000))

    def _stay(self) -> None:
        """Something has come: wait for more."""
        self._quiet.deadline = trio.current_time() + self._wait_seconds

    async def _say(self, line: str) -> None:
        if self._commands:
            if not line:
                return
            if line.startswith("//"):
                line = line[1:]
            elif line.startswith("/"):
                self._obey(line)
                return
        await self._ws.send_message(line)
        self._screen.sent(line)

    def _obey(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        match command:
            case "/ping":
                assert self._nursery is not None
                self._nursery.start_soon(self._ping)
            case "/close":
                self._close_with(rest.strip())
            case "/help":
                for text in HELP:
                    self._screen.note(text)
            case _:
                self._screen.note(f"there is no command {command}; /help lists them, and / sends it: /{line}")

    def _close_with(self, words: str) -> None:
        code, _, reason = words.partition(" ")
        if code and not code.isdecimal():
            self._screen.note(f"a close code is a number, not {code!r}: /close 1000 done")
            return
        frame = CloseFrame(int(code) if code else 1000, reason.strip())
        try:
            check_close(frame.code, frame.reason)
        except ValueError as error:
            self._screen.note(str(error))
        else:
            self._stop(frame)

    async def _ping(self) -> None:
        started = trio.current_time()
        try:
            await self._ws.ping()
        except ConnectionClosed:
            return
        self._screen.ponged(trio.current_time() - started)

    async def _wait_for_interrupt(self) -> None:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            async for _ in signals:
                self._interrupted = True
                self._stop(CloseFrame(1000))
