"""Log records with one event name a step and fields instead of prose.

    record(logging.INFO, "connection.opened", path="/chat", remote="127.0.0.1:5123")

reads `connection.opened path=/chat remote=127.0.0.1:5123` as text and one JSON object with `JsonFormatter`.
Everything goes to the logger `wsframework` or one below it, and nothing is configured here: that is the
program's business (`wsframework run` does it for its own process).
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

__all__ = ["JsonFormatter", "describe", "record"]

logger = logging.getLogger("wsframework")


def record(level: int, event: str, /, *, exc_info: BaseException | None = None, **fields: Any) -> None:
    """Log one step of a connection's or a server's life.

    Args:
        level: a `logging` level.
        event: the step's name, such as `connection.opened`.
        exc_info: an exception whose traceback belongs to the record.
        fields: what is known about it; values that are None are left out.
    """
    if not logger.isEnabledFor(level):
        return
    known = {name: value for name, value in fields.items() if value is not None}
    text = " ".join([event, *(f"{name}={_quoted(value)}" for name, value in known.items())])
    logger.log(level, "%s", text, exc_info=exc_info, extra={"event": event, "fields": known}, stacklevel=2)


def describe(error: BaseException) -> str:
    """Return `repr(error)`, or what can be said where that fails: many exceptions are of a user's making."""
    try:
        return repr(error)
    except Exception:
        return f"<{type(error).__qualname__}, whose repr() fails>"


def _quoted(value: object) -> str:
    text = str(value)
    printable = text.isprintable()
    if text and printable and " " not in text and '"' not in text:
        return text
    # The peer chooses some of these values, so none may break its line or speak to the reader's terminal.
    return json.dumps(text, ensure_ascii=not printable)


class JsonFormatter(logging.Formatter):
    """Format every record as one JSON object a line: time, level, event, and the event's own fields."""

    def format(self, entry: logging.LogRecord) -> str:
        """Return one line of JSON."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(entry.created, UTC).isoformat(timespec="milliseconds"),
            "level": entry.levelname.lower(),
            "logger": entry.name,
        }
        if (event := getattr(entry, "event", None)) is not None:
            fields["event"] = event
            fields |= entry.__dict__.get("fields", {})
        else:
            fields["message"] = entry.getMessage()
        if entry.exc_info:
            fields["traceback"] = self.formatException(entry.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)
