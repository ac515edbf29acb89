"""A conversation: send what is typed and show what comes, until one side closes the connection.

Theory of operation
-------------------
    listen       shows messages; ends when the connection is closed
    speak        sends lines; after the last one, waits until no more messages come
    interrupted  waits for SIGINT

The first task that ends cancels the others, and then `run` sends the Close frame.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator
from typing import Protocol

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from wsframework.closes import CloseCode, CloseFrame, check_close
from wsframework.diagnostics.connecting.opening import Overheard
from wsframework.diagnostics.problems import Problem, Unreachable

__all__ = ["Ended", "Screen", "Talk"]

HELP = (
    "each line that you type is sent as a message",
    "/ping                 send a ping, and show how long the answer takes",
    "/close [CODE REASON]  close the connection, with code 1000 unless you give one",
    "/help                 show this",
    "//…                   send a line that begins with /",
    "Ctrl-D and Ctrl-C close the connection too",
)


class Screen(Protocol):
    """Shows a connection."""

    def opened(self, url: str, subprotocol: str | None) -> None:
        """Show that the connection is open."""

    def sent(self, message: str) -> None:
        """Show a message that was sent."""

    def received(self, message: str | bytes) -> None:
        """Show a message that came."""

    def ponged(self, seconds: float) -> None:
        """Show that a ping was answered."""

    def note(self, text: str) -> None:
        """Show the answer to a command."""

    def closed(self, by: str, code: int, reason: str) -> None:
        """Show that the connection is closed.

        Args:
            by: "client" or "server": the side that sent the first Close frame.
            code: the server's close code, 1006 when it sent none.
            reason: its close reason.
        """


@attrs.frozen
class Ended:
    """How a conversation ended.

    Attributes:
        by: "client" or "server": the side that closed the connection.
        code: the server's close code; 1005 when its Close frame had none, 1006 when it sent none.
        reason: its close reason.
        interrupted: whether SIGINT ended it.
    """

    by: str
    code: int
    reason: str
    interrupted: bool = False


class Talk:
    """One connection's conversation.

    Args:
        ws: the connection.
        stream: its bytes.
        screen: shows it.
        lines: the lines that are typed.
        commands: whether lines that begin with a slash are commands.
        wait_seconds: after the last line, close when no message has come for so long.
        timeout_seconds: how long to wait for the server's answer to our Close frame; and how long messages
            may go on to come after the last line, beside `wait_seconds`.
    """

    def __init__(
        self,
        ws: WebSocketConnection,
        stream: Overheard,
        screen: Screen,
        lines: AsyncIterator[str],
        *,
        commands: bool,
        wait_seconds: float,
        timeout_seconds: float,
    ) -> None:
        self._ws = ws
        self._stream = stream
        self._screen = screen
        self._lines = lines
        self._commands = commands
        self._wait_seconds = wait_seconds
        self._timeout_seconds = timeout_seconds
        self._quiet = trio.CancelScope()
        self._close: CloseFrame | None = None
        self._interrupted = False
        self._endless = False
        self._nursery: trio.Nursery | None = None

    async def run(self) -> Ended:
        """Talk until the connection is closed; show and return how it ended.

        Raises:
            Unreachable: the server broke the protocol, did not stop sending messages after the last line, or
                did not answer our Close frame.

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
        problem = self._stream.failure
        if problem is not None:
            by, code, words = "client", int(CloseCode.ABNORMAL_CLOSURE), ""
        self._screen.closed(by, code, words)
        if problem is None and not self._interrupted:
            problem = self._judge_end(by, code)
        if problem is not None:
            raise Unreachable(problem)
        return Ended(by, code, words, self._interrupted)

    def _judge_end(self, by: str, code: int) -> Problem | None:
        if self._endless:
            seconds = self._wait_seconds + self._timeout_seconds
            return Problem(
                "messages.endless",
                f"The server still sent messages {seconds:g} s after the last line. Use a longer --timeout, "
                "or keep the input open.",
            )
        if by == "client" and code == CloseCode.ABNORMAL_CLOSURE:
            return Problem(
                "close.unanswered",
                "The server did not answer our Close frame (RFC 6455 §5.5.1).",
            )
        return None

    def _stop(self, frame: CloseFrame | None) -> None:
        assert self._nursery is not None
        self._close = frame
        self._nursery.cancel_scope.cancel(reason="the conversation is over")

    async def _part(self, frame: CloseFrame) -> None:
        # Not `aclose` of trio-websocket: it fails when a ping comes before the server's Close frame.
        with (
            trio.move_on_after(self._timeout_seconds),
            contextlib.suppress(ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError),
        ):
            await self._stream.close(frame)
            while True:
                await self._ws.get_message()

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
            # Lines from a pipe have ended, and their answers may still come.
            self._stay()
            with trio.move_on_after(self._wait_seconds + self._timeout_seconds) as talkative, self._quiet:
                await trio.sleep_forever()
            self._endless = talkative.cancelled_caught
        self._stop(CloseFrame(1000))

    def _stay(self) -> None:
        """Wait again for `wait_seconds`."""
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
                self._screen.note(
                    f"there is no command {command}; /help lists the commands, and /{line} sends the line"
                )

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
