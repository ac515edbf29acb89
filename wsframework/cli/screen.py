"""Show a connection: with time and direction on a terminal, unchanged in a pipe, as JSON for programs."""

from __future__ import annotations

import base64
import contextlib
import io
import shutil
import sys
from datetime import datetime

from rich.text import Text

from wsframework.cli.keyboard import CLEAR_LINE, PROMPT, Keyboard
from wsframework.cli.output import make_console, print_json
from wsframework.diagnostics.close_codes import describe_close
from wsframework.diagnostics.connecting.talk import Screen
from wsframework.records import escape_json

__all__ = ["make_screen"]

_PREVIEW_BYTES = 32


def make_screen(*, as_json: bool, keyboard: Keyboard | None) -> Screen:
    """Return the screen that fits stdout.

    Args:
        as_json: whether to print one JSON object a line in any case.
        keyboard: the keyboard whose prompt is on the screen, or None.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Messages may hold characters that the encoding of the terminal lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    if as_json:
        return _JsonScreen()
    return _TerminalScreen(keyboard) if sys.stdout.isatty() else _PipeScreen()


def _preview(message: bytes) -> str:
    more = " …" if len(message) > _PREVIEW_BYTES else ""
    return f"<{len(message)} bytes: {message[:_PREVIEW_BYTES].hex(' ')}{more}>"


class _TerminalScreen:
    """Lines with time and direction, above the prompt if there is one."""

    def __init__(self, keyboard: Keyboard | None) -> None:
        self._console = make_console()
        self._keyboard = keyboard

    def opened(self, url: str, subprotocol: str | None) -> None:
        agreed = f", subprotocol {escape_json(subprotocol)}" if subprotocol is not None else ""
        hint = "; /help lists the commands" if self._keyboard is not None else ""
        self._line("*", f"connected to {escape_json(url)}{agreed}{hint}", "dim")

    def sent(self, message: str) -> None:
        if self._keyboard is not None:
            # What was typed is on the screen already: replace it, and the prompt, by this line.
            columns = shutil.get_terminal_size().columns
            rows = 1 + max(0, len(PROMPT + message) - 1) // columns
            sys.stdout.write(f"\x1b[{rows}A\r\x1b[J")
        self._line("→", escape_json(message), "green")

    def received(self, message: str | bytes) -> None:
        self._line("←", escape_json(message) if isinstance(message, str) else _preview(message), "cyan")

    def ponged(self, seconds: float) -> None:
        self._line("*", f"pong after {seconds * 1000:.2f} ms", "dim")

    def note(self, text: str) -> None:
        self._line("*", text, "dim")

    def closed(self, by: str, code: int, reason: str) -> None:
        self._keyboard = None  # no more input is read
        sys.stdout.write(CLEAR_LINE)
        self._line("*", describe_close(by, code, reason), "dim")

    def _line(self, mark: str, text: str, style: str) -> None:
        time = datetime.now().strftime("%H:%M:%S.%f")[:-3]
        line = Text.assemble((time, "dim"), " ", (mark, f"bold {style}"), " ", (text, style))
        with contextlib.nullcontext() if self._keyboard is None else self._keyboard.printing():
            self._console.print(line, soft_wrap=True)
        sys.stdout.flush()


class _PipeScreen:
    """Messages as they are, one after the other; problems go to stderr."""

    def opened(self, url: str, subprotocol: str | None) -> None:
        """Not shown."""

    def sent(self, message: str) -> None:
        """Not shown."""

    def received(self, message: str | bytes) -> None:
        print(message if isinstance(message, str) else _preview(message), flush=True)

    def ponged(self, seconds: float) -> None:
        self.note(f"pong after {seconds * 1000:.2f} ms")

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def closed(self, by: str, code: int, reason: str) -> None:
        if by == "server" and code not in (1000, 1005):
            self.note(describe_close(by, code, reason))


class _JsonScreen:
    """One object a line, with "time" and "event" first."""

    def opened(self, url: str, subprotocol: str | None) -> None:
        self._print("opened", url=url, subprotocol=subprotocol)

    def sent(self, message: str) -> None:
        self._print("sent", kind="text", text=message)

    def received(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self._print("received", kind="text", text=message)
        else:
            self._print("received", kind="binary", base64=base64.b64encode(message).decode())

    def ponged(self, seconds: float) -> None:
        self._print("ponged", seconds=round(seconds, 6))

    def note(self, text: str) -> None:
        self._print("note", text=text)

    def closed(self, by: str, code: int, reason: str) -> None:
        self._print("closed", by=by, code=code, reason=reason)

    def _print(self, event: str, **fields: object) -> None:
        time = datetime.now().astimezone().isoformat(timespec="milliseconds")
        print_json({"time": time, "event": event, **fields})
