"""Logging of the commands: records go to stderr, as text or as one JSON object a line."""

from __future__ import annotations

import codecs
import contextlib
import logging
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import TextIO

from wsframework.cli.background import BackgroundHandler
from wsframework.cli.output import make_console
from wsframework.crashes import unwrap_group
from wsframework.errors import ConfigurationError
from wsframework.records import JsonFormatter, describe, details_of, escape, message_of, record

__all__ = ["LogFormat", "LogLevel", "TextFormatter", "crashes_logged", "set_up_logging"]


class LogLevel(StrEnum):
    """The lowest level of records that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """The form of the log."""

    TEXT = "text"
    JSON = "json"


_DIM, _BOLD, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}

_INDENT = "  "
"""Precedes the lines of a traceback, so that none of them looks like a record."""


class TextFormatter(logging.Formatter):
    """Format a record as `10:54:23.123 info connection.opened path=/chat …`, perhaps in colour.

    Args:
        colour: whether to use colours.
        worker: the number of this process among several, which follows the time: `10:54:23.123 [2] info …`.
    """

    def __init__(self, *, colour: bool, worker: int | None = None) -> None:
        super().__init__()
        self._colour = colour
        self._worker = "" if worker is None else f" [{worker}]"

    def format(self, entry: logging.LogRecord) -> str:
        """Return the record's line, with its traceback or stack indented below it."""
        time = f"{self.formatTime(entry, '%H:%M:%S')}.{int(entry.msecs):03}{self._worker}"
        # Paths and close reasons come from the peer, and must not contain control characters of terminals.
        level, text = escape(entry.levelname.lower()), escape(message_of(entry))
        if self._colour:
            event, space, fields = text.partition(" ")
            time, text = f"{_DIM}{time}{_RESET}", f"{_BOLD}{event}{_RESET}{space}{fields}"
            level = f"{_COLOURS.get(entry.levelname, _DIM)}{level}{_RESET}"
        below = [f"{_INDENT}{line}" for part in details_of(entry).values() for line in part.split("\n")]
        return "\n".join([f"{time} {level} {text}", *below])


def set_up_logging(level: LogLevel, form: LogFormat, worker: int | None = None) -> None:
    """Send the records of the whole process to stderr; this replaces earlier handlers.

    A thread writes them, so that a reader of stderr that does not read cannot block the server.

    Args:
        level: the lowest level that is written.
        form: text or JSON.
        worker: the number of this process among several; every record has it.
    """
    handler = _handler(sys.stderr)
    if form is LogFormat.JSON:
        handler.setFormatter(JsonFormatter(ascii_only=not _is_utf8(sys.stderr), worker=worker))
    else:
        colour = make_console(stderr=True).color_system is not None
        handler.setFormatter(TextFormatter(colour=colour, worker=worker))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


@contextlib.contextmanager
def crashes_logged() -> Iterator[None]:
    """Around a server: end the program with exit code 1 after an exception, logged as `server.crashed`.

    Exceptions that a server raises are a lifespan's, or a bug in wsframework. ConfigurationError, SystemExit
    and KeyboardInterrupt go through.
    """
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        found = unwrap_group(error)  # of the nurseries of lifespans
        record(logging.ERROR, "server.crashed", exc_info=found, error=describe(found))
        sys.exit(1)


def _handler(stream: TextIO) -> logging.Handler:
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError):
        return logging.StreamHandler(stream)  # an object in memory, which cannot block
    return BackgroundHandler(descriptor, stream.encoding)


def _is_utf8(stream: TextIO) -> bool:
    return codecs.lookup(stream.encoding or "ascii").name == "utf-8"
