"""Read lines from a terminal or a pipe without blocking the event loop.

Reading blocks, so a thread reads, and it is abandoned when the connection ends first. A pipe is read with
`os.read` rather than `sys.stdin`, whose lock the abandoned thread would hold when the interpreter shuts down.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from types import ModuleType

import trio

try:
    import readline as _readline
except ImportError:  # Python was built without it; then there is no history
    readline: ModuleType | None = None
else:
    readline = _readline

__all__ = ["CLEAR_LINE", "PROMPT", "Keyboard", "has_editing", "lines_of_pipe", "unchanged_terminal"]

PROMPT = "> "

CLEAR_LINE = "\r\x1b[K"

_READ_BYTES = 64 * 1024


def has_editing() -> bool:
    """Whether a prompt has editing and history: at a terminal, with readline."""
    return readline is not None and sys.stdin.isatty() and sys.stdout.isatty()


async def lines_of_pipe(descriptor: int) -> AsyncIterator[str]:
    """Yield each line of a file or pipe without its line end; the last line may have none.

    Cancellation: the thread that reads is abandoned, and what it reads is lost.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    while True:
        data = await trio.to_thread.run_sync(os.read, descriptor, _READ_BYTES, abandon_on_cancel=True)
        rest += decoder.decode(data, final=not data)
        *lines, rest = rest.split("\n")
        for line in lines:
            yield line.removesuffix("\r")
        if not data:
            if rest:
                yield rest
            return


class Keyboard:
    """A person at a terminal, with a prompt, editing and history.

    readline does not know of other lines that are printed. They are printed inside `printing`, which removes
    the prompt, and then shows it again with what was typed so far.
    """

    def __init__(self) -> None:
        # readline's thread shows the prompt shortly before it calls `_start`.
        self._lock = threading.Lock()
        self._prompting = False
        self._printed = False

    async def lines(self) -> AsyncIterator[str]:
        """Yield each line that is typed; end with Ctrl-D.

        Cancellation: as for `lines_of_pipe`.
        """
        while True:
            try:
                yield await trio.to_thread.run_sync(self._read, abandon_on_cancel=True)
            except EOFError:
                return

    def _read(self) -> str:
        assert readline is not None
        with self._lock:
            self._printed = False
        if hasattr(readline, "set_pre_input_hook"):  # some builds with libedit lack it
            readline.set_pre_input_hook(self._start)
        try:
            return input(PROMPT)
        finally:
            with self._lock:
                self._prompting = False

    def _start(self) -> None:
        """Take note that the prompt is shown; readline calls this."""
        with self._lock:
            self._prompting = True
            if self._printed:  # before or after the prompt was shown
                sys.stdout.write(f"{CLEAR_LINE}{PROMPT}")
                sys.stdout.flush()

    @contextlib.contextmanager
    def printing(self) -> Iterator[None]:
        """Let lines be printed above the prompt."""
        with self._lock:
            if self._prompting:
                sys.stdout.write(CLEAR_LINE)
            yield
            if self._prompting and readline is not None:
                sys.stdout.write(PROMPT + readline.get_line_buffer())
            self._printed = True


@contextlib.contextmanager
def unchanged_terminal() -> Iterator[None]:
    """Restore the terminal's settings, which a thread that is abandoned inside a line does not."""
    try:
        import termios
    except ImportError:  # not on Windows
        yield
        return
    try:
        before = termios.tcgetattr(sys.stdin.fileno())
    except (termios.error, OSError):
        yield  # no terminal
        return
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
