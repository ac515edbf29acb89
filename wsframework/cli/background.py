"""A logging handler that does not block its callers: a thread writes the records.

Theory of operation
-------------------
The caller formats the record, so that it has the values of that moment, and appends the line to a queue of
bounded size. The writer, a daemon thread that starts with the first record, takes all that is in the queue
and writes it to the descriptor, however long that takes. What does not fit into the queue is dropped and
counted; the writer adds a record with the count at the place of the gap.

Nothing here uses Python's buffered streams. A thread that blocks inside one holds its lock, and then a print
to stderr and the interpreter's shutdown would wait for it.

A forked child has no writer thread. There, and after `close`, the caller writes the record itself, and waits
a second at most.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator

__all__ = ["BackgroundHandler"]

_QUEUE_BYTES = 1024 * 1024
"""About 8,000 records: what a busy server logs in a second, and little memory."""

_QUEUE_BYTES_FOR_ERRORS = _QUEUE_BYTES + _QUEUE_BYTES // 4
"""Errors still fit when records of lower levels have filled the queue."""

_FLUSH_SECONDS = 1.0
"""How long the end of the program waits for the reader of the log."""

_ERROR_SECONDS = 0.05
"""How long the caller waits for an error to be written: the process may end because of the error."""

_PIPE_BYTES = 4096
"""What a pipe takes in one piece, and without blocking when it is writable (PIPE_BUF on Linux)."""


class BackgroundHandler(logging.Handler):
    """Write formatted records to a descriptor, in order, without making the caller wait.

    `flush` waits until everything is written, for a second at most; `logging.shutdown` calls it at the end
    of the program.
    """

    def __init__(self, descriptor: int, encoding: str = "utf-8") -> None:
        super().__init__()
        self._descriptor = descriptor
        self._encoding = encoding
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._dropped = 0
        self._dropped_errors = 0
        self._stuck = False
        self._patient_at = 0.0
        self._direct = False
        self._thread: threading.Thread | None = None
        self._start_over()
        _handlers.add(self)

    def _start_over(self) -> None:
        # Reentrant, because a finalizer may log while its thread is in here.
        self._changed = threading.Condition(threading.RLock())
        self._writing = False

    def emit(self, entry: logging.LogRecord) -> None:
        """Put a record into the queue, or count it as dropped."""
        error = entry.levelno >= logging.ERROR
        line = self._encode(entry)
        if self._direct:
            self._write_soon(line)
            return
        with self._changed:
            room = _QUEUE_BYTES_FOR_ERRORS if error else _QUEUE_BYTES
            if not line or self._queued_bytes + len(line) > room:
                self._dropped += 1
                self._dropped_errors += error
                return
            self._queue.append(line)
            self._queued_bytes += len(line)
            if self._thread is None:
                self._start()
            self._changed.notify_all()
        if error and (start := time.monotonic()) >= self._patient_at:
            self._wait_until_written(_ERROR_SECONDS)
            # A flood of errors and a slow reader together may take a twentieth of the caller's time.
            now = time.monotonic()
            self._patient_at = now + 20 * (now - start)

    def flush(self) -> None:
        """Wait until everything is written, or for a second."""
        if not self._wait_until_written(_FLUSH_SECONDS):
            # A reader that does not read is waited for once; the writer notices when it reads again.
            self._stuck = True

    def close(self) -> None:
        """Write what is left, as `flush` does; later records are written by the caller, or dropped."""
        self.flush()
        self._direct = True
        with self._changed:
            self._changed.notify_all()
        _handlers.discard(self)
        super().close()

    def _encode(self, entry: logging.LogRecord) -> bytes:
        try:
            return f"{self.format(entry)}\n".encode(self._encoding, "backslashreplace")
        except Exception:
            # Not `handleError`: it prints to stderr, and blocks.
            return b""

    def _wait_until_written(self, seconds: float) -> bool:
        """Wait, unless the reader is known not to read; return False if that took too long."""
        if self._thread is None or self._thread is threading.current_thread():
            return True
        deadline = time.monotonic() + seconds
        with self._changed:
            return bool(
                self._changed.wait_for(
                    lambda: self._stuck or not (self._queue or self._writing), deadline - time.monotonic()
                )
            )

    # The thread

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._write_for_ever, name="log writer", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            # There can be no more threads, or the interpreter is shutting down.
            self._thread, self._direct = None, True
            while self._queue:
                self._write_soon(self._queue.popleft())

    def _write_for_ever(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                while not self._queue:
                    if self._direct:
                        return
                    self._changed.wait()
                lines = list(self._queue)
                self._queue.clear()
                self._queued_bytes = 0
                dropped, errors = self._dropped, self._dropped_errors
                self._dropped = self._dropped_errors = 0
                self._writing = True
            if dropped:
                lines.append(self._encode(_dropped_entry(dropped, errors)))
            for piece in _whole_lines(lines):
                self._write(piece)

    def _write(self, piece: bytes) -> None:
        while piece:
            try:
                piece = piece[os.write(self._descriptor, piece) :]
            except BlockingIOError:
                # A process that shares the descriptor has made it non-blocking.
                _wait_writable(self._descriptor, None)
            except OSError:
                return  # the reader is gone, or the disk is full; there is no place to report it
            self._stuck = False

    # Without the thread

    def _write_soon(self, line: bytes) -> None:
        deadline = time.monotonic() + (0 if self._stuck else _FLUSH_SECONDS)
        while line:
            seconds = deadline - time.monotonic()
            if not _wait_writable(self._descriptor, max(0.0, seconds)):
                self._stuck = True
                return
            try:
                line = line[os.write(self._descriptor, line[:_PIPE_BYTES]) :]
            except BlockingIOError:
                if seconds < 0:
                    return
            except OSError:
                return
            else:
                self._stuck = False

    def _forked(self) -> None:
        self._start_over()
        # The parent writes what is in the queue.
        self._queue.clear()
        self._queued_bytes = self._dropped = self._dropped_errors = 0
        self._stuck, self._direct, self._thread = False, True, None


def _entry(level: int, text: str, **extra: object) -> logging.LogRecord:
    content = {"name": "wsframework", "levelno": level, "levelname": logging.getLevelName(level)}
    return logging.makeLogRecord({**content, "msg": text, **extra})


def _dropped_entry(records: int, errors: int) -> logging.LogRecord:
    text = f"log.dropped records={records} errors={errors}"
    fields = {"records": records, "errors": errors}
    return _entry(logging.WARNING, text, event="log.dropped", fields=fields)


def _whole_lines(lines: list[bytes]) -> Iterator[bytes]:
    """Join lines as far as a pipe takes them in one piece, even if other processes write to it too."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > _PIPE_BYTES:
            yield piece
            piece = b""
        piece += line
    yield piece


def _wait_writable(descriptor: int, seconds: float | None) -> bool:
    if not hasattr(select, "poll"):
        return True  # Windows
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


_handlers: weakref.WeakSet[BackgroundHandler] = weakref.WeakSet()


def _after_fork() -> None:
    for handler in list(_handlers):
        handler._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
