"""Logging for a process of ours: every record to stderr, as text or as one JSON object a line."""

from __future__ import annotations

import logging
import re
import sys
from enum import StrEnum

from wsframework.cli.output import make_console
from wsframework.records import JsonFormatter

__all__ = ["LogFormat", "LogLevel", "TextFormatter", "set_up_logging"]


class LogLevel(StrEnum):
    """From which level on records are shown."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How records are written."""

    TEXT = "text"
    JSON = "json"


_DIM, _BOLD, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class TextFormatter(logging.Formatter):
    """Format a record as `10:54:23.123 info connection.opened path=/chat …`, perhaps in colour."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, entry: logging.LogRecord) -> str:
        """Return the record's line, with its traceback behind it."""
        time = f"{self.formatTime(entry, '%H:%M:%S')}.{int(entry.msecs):03}"
        level, text = entry.levelname.lower(), entry.getMessage()
        lines = [text, *([self.formatException(entry.exc_info)] if entry.exc_info else [])]
        # Paths and close reasons are the peer's words: they must not move the cursor of who reads the log.
        text, *traceback = [_CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", line) for line in lines]
        if self._colour:
            event, space, fields = text.partition(" ")
            time, text = f"{_DIM}{time}{_RESET}", f"{_BOLD}{event}{_RESET}{space}{fields}"
            level = f"{_COLOURS.get(entry.levelname, _DIM)}{level}{_RESET}"
        return "\n".join([f"{time} {level} {text}", *traceback])


def set_up_logging(level: LogLevel, form: LogFormat) -> None:
    """Send the records of the whole process to stderr, in place of what was set up before."""
    handler = logging.StreamHandler(sys.stderr)
    if form is LogFormat.JSON:
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(TextFormatter(colour=make_console(stderr=True).color_system is not None))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
