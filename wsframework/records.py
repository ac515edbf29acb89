"""Log records with one event name a step and fields instead of prose.

    record(logging.INFO, "connection.opened", path="/chat", remote="127.0.0.1:5123")

reads `connection.opened path=/chat remote=127.0.0.1:5123` as text and one JSON object with `JsonFormatter`.
Records go to the logger `wsframework` or one below it. The program configures logging; `wsframework run` does
so for its own process.

Clients choose paths, close reasons and often the text of an exception. So every field and every traceback has
a limit, and characters that could move a terminal's cursor, hide or reorder text, or start a new line are
escaped.
"""

from __future__ import annotations

import json
import logging
import math
import reprlib
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import trio

__all__ = [
    "JsonFormatter",
    "bounded_lines",
    "describe",
    "details_of",
    "escape",
    "escape_json",
    "interrupts_passed_to",
    "logger",
    "message_of",
    "record",
    "record_failure",
    "traceback_of",
]

logger = logging.getLogger("wsframework")
"""Every record of the framework goes to it, or to a child of it such as `wsframework.chat`."""

FIELD_CHARACTERS = 2 * 1024
"""One field of a record, and the text of one exception in a traceback. nginx cuts a line of its error log at
2 KiB, RFC 5424 asks receivers of syslog for as much."""

MESSAGE_CHARACTERS = 16 * 1024
"""The text of another library's record, where one field may be all there is."""

_TRACEBACK_HEAD, _TRACEBACK_TAIL = 8 * 1024, 16 * 1024
"""The start and the end of a traceback, which are kept: the end has the exception and where it was raised."""

_NESTED_ITEMS, _NESTED_LEVELS = 32, 4
"""What is written of a field that is a list or a mapping."""

_NAME_CHARACTERS = 128

_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")
"""Letters and marks that show nothing; Python counts them as printable."""


def record(level: int, event: str, /, *, exc_info: BaseException | None = None, **fields: Any) -> None:
    """Log one step of a connection's or a server's life.

    Args:
        level: a `logging` level.
        event: the step's name, such as `connection.opened`.
        exc_info: an exception whose traceback belongs to the record.
        fields: what is known about it; values that are None are left out, and long ones are cut. `stack` is
            the one that has lines: they stand below the record, as a traceback does.
    """
    if not logger.isEnabledFor(level):
        return
    try:
        stack = fields.pop("stack", None)
        known = {
            name: cut(value) if type(value) is str else value
            for name, value in fields.items()
            if value is not None
        }
        text = " ".join([event, *(f"{_quoted(name)}={_quoted(value)}" for name, value in known.items())])
        extra = {"event": event, "fields": known, "stack": stack}
        try:
            logger.log(level, "%s", text, exc_info=exc_info, extra=extra, stacklevel=2)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # A handler or filter of the program's own, which must not end what it only hears of; SystemExit
            # too. Not the standard library's traceback, which may fail as the handler did: an exception can
            # be a user's code too.
            with suppress(OSError, ValueError):  # stderr is closed, or a pipe without a reader
                print(f"wsframework: the record {event} could not be logged", file=sys.__stderr__)
                print(traceback_of(error), file=sys.__stderr__)
    except KeyboardInterrupt as interrupt:
        _pass_on(interrupt)


@contextmanager
def interrupts_passed_to(callback: Callable[[KeyboardInterrupt], object]) -> Iterator[None]:
    """Have a KeyboardInterrupt that a log handler raises passed to a function, in this Trio run.

    It is about the whole program. Raised by `record`, which is called in the middle of everything, it would
    end what was in progress there: the hub, a timer, the last Close frames.

    Args:
        callback: of one server. Of several servers in one run, the one that began last is told.
    """
    tellers = _tellers.get([])
    _tellers.set([*tellers, callback])
    try:
        yield
    finally:
        _tellers.set([teller for teller in _tellers.get() if teller != callback])


_tellers: trio.lowlevel.RunVar[list[Callable[[KeyboardInterrupt], object]]] = trio.lowlevel.RunVar(
    "wsframework.records.tellers"
)


def _pass_on(interrupt: KeyboardInterrupt) -> None:
    try:
        tellers = _tellers.get([])
    except RuntimeError:  # in a thread, or in a program without Trio
        tellers = []
    if not tellers:
        raise interrupt
    tellers[-1](interrupt)


def record_failure(error: BaseException, **fields: Any) -> None:
    """Log `connection.failed`: an internal error that ended one connection.

    Args:
        error: what was raised.
        fields: which connection, if that is known.
    """
    record(logging.ERROR, "connection.failed", exc_info=error, **fields, error=describe(error))


def describe(error: BaseException) -> str:
    """Return `repr(error)`, cut, or what can be said where that fails: many exceptions are a user's."""
    return _text_of(error, repr)


def cut(text: str, limit: int = FIELD_CHARACTERS) -> str:
    """Return the text, or its start and how much is missing."""
    # Not for a few characters, nor what has been cut already.
    return text if len(text) <= limit + 64 else f"{text[:limit]}… ({len(text) - limit} more characters)"


def escape(text: str) -> str:
    r"""Return one line of text without a character that acts on a terminal or shows nothing.

    Those are controls (C0, DEL, C1), whatever reorders or joins text (bidirectional overrides, zero-width
    characters), line and paragraph separators, surrogates, and characters that are not assigned. Each becomes
    what Python would write: `\n`, `\x1b`, `\u202e`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join([c if _harmless(c) else c.encode("unicode_escape").decode() for c in text])


def traceback_of(error: BaseException) -> str:
    """Return an exception's traceback, each of its texts and the whole of bounded length, lines escaped."""
    try:
        # Each piece is a frame, or the text of one exception, or one line of a note.
        pieces = list(traceback.TracebackException.from_exception(error).format())
        text = "\n".join([cut(piece.rstrip("\n")) for piece in pieces])
    except KeyboardInterrupt:
        raise
    except BaseException:  # SystemExit too: the standard library asks a user's class
        text = f"{describe(error)}\n(its traceback cannot be formatted)"
    return bounded_lines(text)


def bounded_lines(text: str) -> str:
    """Return lines of bounded length together, each of them escaped."""
    # Cut twice: escaping a mebibyte takes long, and makes it longer.
    return _cut_middle("\n".join([escape(line) for line in _cut_middle(text).split("\n")]))


def _cut_middle(text: str) -> str:
    missing = len(text) - _TRACEBACK_HEAD - _TRACEBACK_TAIL
    if missing <= 0:
        return text
    return f"{text[:_TRACEBACK_HEAD]}\n… ({missing} more characters) …\n{text[-_TRACEBACK_TAIL:]}"


def message_of(entry: logging.LogRecord) -> str:
    """Return a record's message, cut, even if it does not fit its arguments."""
    try:
        return cut(entry.getMessage(), MESSAGE_CHARACTERS)
    except Exception:
        return f"{_text_of(entry.msg)} (this message cannot be formatted with its arguments)"


def details_of(entry: logging.LogRecord) -> dict[str, str]:
    """Return what stands below a record: its `traceback` and its `stack`, as far as it has them."""
    details = {}
    if entry.exc_info and (error := entry.exc_info[1]) is not None:
        details["traceback"] = traceback_of(error)
    stack = entry.__dict__.get("stack") or entry.stack_info
    if isinstance(stack, str):
        details["stack"] = bounded_lines(stack)
    return details


class _BoundedRepr(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = _NESTED_LEVELS
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = _NESTED_ITEMS
        self.maxdict = self.maxdeque = self.maxarray = _NESTED_ITEMS
        self.maxstring = self.maxother = self.maxlong = FIELD_CHARACTERS


_bounded_repr = _BoundedRepr().repr
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})


def _text_of(value: object, render: Callable[[object], str] = str) -> str:
    """Return a field's value as text, cut; values may be user objects, or a peer's million items."""
    try:
        if isinstance(value, bytes | bytearray):
            missing = len(value) - FIELD_CHARACTERS
            text = repr(value[:FIELD_CHARACTERS])
            return cut(f"{text}… ({missing} more bytes)" if missing > 0 else text)
        return cut(_bounded_repr(value) if type(value) in _CONTAINERS else render(value))
    except KeyboardInterrupt:
        raise
    except BaseException:
        # SystemExit too: a user's method that fails while we write about its object ends nothing.
        return f"<{type(value).__qualname__}, whose {render.__name__}() fails>"


def _harmless(character: str) -> bool:
    return character.isprintable() and character not in _INVISIBLE


def _quoted(value: object) -> str:
    text = value if type(value) is str else _text_of(value)
    if text.isascii() and text.isprintable():
        plain = bool(text) and " " not in text and '"' not in text
        return text if plain else json.dumps(text)
    harmless = all(map(_harmless, text))
    if harmless and " " not in text and '"' not in text:
        return text
    # The peer chooses some of these values, so none may break its line or speak to the reader's terminal.
    return escape_json(json.dumps(text, ensure_ascii=False))


def escape_json(line: str) -> str:
    r"""Return JSON in one line with every character as `\uXXXX` that `escape` would not let through."""
    if line.isascii() and line.isprintable():
        return line
    return "".join([c if _harmless(c) else json.dumps(c)[1:-1] for c in line])


class JsonFormatter(logging.Formatter):
    """Format every record as one JSON object a line: time, level, event, and the event's own fields.

    Args:
        ascii_only: write every other character as an escape, for a stream that is not UTF-8.
        worker: the number of this process among several, which every record then has.
    """

    def __init__(self, *, ascii_only: bool = False, worker: int | None = None) -> None:
        super().__init__()
        self._ascii_only = ascii_only
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, entry: logging.LogRecord) -> str:
        """Return one line of JSON."""
        ours: dict[str, Any] = {
            "time": datetime.fromtimestamp(entry.created, UTC).isoformat(timespec="milliseconds"),
            "level": entry.levelname.lower(),
            "logger": cut(entry.name, _NAME_CHARACTERS),
            **self._worker,
        }
        event, fields = getattr(entry, "event", None), entry.__dict__.get("fields")
        if isinstance(event, str):
            ours["event"] = cut(event, _NAME_CHARACTERS)
        else:
            ours["message"] = message_of(entry)
        if isinstance(event, str) and isinstance(fields, Mapping):
            for name, value in _plain(fields).items():
                # What the record says about itself stands, whatever a field is called.
                ours[f"field.{name}" if name in ours else name] = value
        ours |= details_of(entry)
        return escape_json(json.dumps(ours, ensure_ascii=self._ascii_only))


def _plain(value: Any, level: int = _NESTED_LEVELS) -> Any:
    """Return a field as what JSON knows, of bounded size and depth."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, int) and value.bit_length() <= 64:
        return int(value)
    if isinstance(value, Mapping | list | tuple) and level:
        try:
            return _plain_items(value, level - 1)
        except Exception:
            pass  # a mapping of a user's
    return _text_of(value)


def _plain_items(value: Any, level: int) -> Any:
    missing = len(value) - _NESTED_ITEMS
    if isinstance(value, Mapping):
        pairs = zip(range(_NESTED_ITEMS), value.items(), strict=False)
        plain = {cut(_text_of(name), _NAME_CHARACTERS): _plain(item, level) for _, (name, item) in pairs}
        return plain | ({"…": f"{missing} more"} if missing > 0 else {})
    return [_plain(item, level) for item in value[:_NESTED_ITEMS]] + (
        [f"… ({missing} more)"] if missing > 0 else []
    )
