"""What was said: messages in SQLite, bounded by age and by count. It blocks; callers use threads.

Theory of operation
-------------------
One writer connection and, for a file, one reader connection: in WAL mode readers and the writer do not wait
for each other. Each is guarded by a lock, so methods may be called from any thread; but those that write by
one caller at a time, because the counts they keep belong together with what they write.

    append   one transaction for a batch; it returns after the commit. `synchronous=FULL` makes the commit
             wait for the disk, so what it returned survives a kill -9 and a power cut. A batch waits once.
    after    exactly the messages behind an id, page by page, or that some of them are gone or too many
    prune    forgets what is too old or too much, and writes down how far: the *floor*

Ids are given by SQLite, rise, and are never given twice (AUTOINCREMENT). They mean something only within one
*log*: the identity that a database is given when it is made, so that ids of a lost database are not mistaken
for ids of the new one.

Without a path the same tables are kept in memory and end with the process.
"""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from wsframework.chat.database import Database, transaction
from wsframework.chat.messages import Draft, HistoryError, Message, Missed, Page, Retention

__all__ = ["MISSED_MESSAGES", "PAGE_CHARS", "PAGE_MESSAGES", "HistoryStore"]

logger = logging.getLogger("wsframework.chat")

PAGE_MESSAGES = 50
MISSED_MESSAGES = 500
"""How far behind a client may be to be sent what it missed."""

PAGE_CHARS = 32 * 1024
"""Characters of text that one page holds at most, besides the count above."""

_PRUNE_EVERY_MESSAGES = 1000
_PRUNE_AT_ONCE = 5000
"""Rows deleted in one transaction, so that no writer waits long for it (10,000 take about 30 ms)."""

_PRUNE_BYTES = 32 * 1024
"""At least so much is deleted of a history that is too large."""

_MAX_FLOORS = 10_000

_JUMP_DAYS = 7
"""A clock that has gone on by more since it was last looked at has jumped, or no server ran: the time between
does not count for the age of messages. While the history is open, it is looked at every hour."""

_BACK_SECONDS = 60
"""A clock that has gone back by more is told of."""

_DAY_MS = 86400 * 1000


class HistoryStore:
    """The messages of one chat.

    Args:
        path: the database's file, made if it is not there; None keeps everything in memory.
        retention: how much is kept.
        clock: returns seconds since 1970.

    Attributes:
        log: the log's identity, once it is open.
        last_id: the newest id that was given, once it is open.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        retention: Retention | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.retention = retention or Retention()
        self.log = ""
        self.last_id = 0
        self._clock = clock
        self._resources = ExitStack()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._since_prune = 0
        self._wall = self._age = 0
        self._counts: Counter[str] = Counter()
        """How many messages each room has."""

    # The life of the database

    def open(self) -> None:
        """Open the database, making it if need be, and forget what is too old.

        Raises:
            ConfigurationError: the file cannot be opened, is no chat history, or is in use by another server.
        """
        with ExitStack() as resources:
            database = Database(self.path, int(self._clock() * 1000), resources)
            self._writer, self._reader, self.log = database.writer, database.reader, database.log
            if self.path is None:
                # A database in memory belongs to its connection, so both share the lock.
                self._read_lock = self._write_lock
            resources.callback(self._forget_connections)
            with self._reading() as reader:
                self._counts = Counter(
                    dict(reader.execute("SELECT room, count(*) FROM messages GROUP BY room"))
                )
                (self.last_id,) = reader.execute(
                    "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0)"
                ).fetchone()
                self._wall, self._age = reader.execute("SELECT wall, age FROM log").fetchone()
            while self.prune():
                pass
            self._resources = resources.pop_all()

    def close(self) -> None:
        """Close the database. Idempotent."""
        with ExitStack() as locks:
            locks.enter_context(self._write_lock)
            if self._read_lock is not self._write_lock:
                locks.enter_context(self._read_lock)
            self._resources.close()

    def _forget_connections(self) -> None:
        self._writer = self._reader = None

    # Writing

    def append(self, drafts: Sequence[Draft]) -> list[tuple[Message, bool]]:
        """Store messages in one transaction; they are safe when this returns.

        Returns:
            For each draft its message, and whether it is new: False when a message with its room, sender and
            key was there already, which is then the one returned.

        Raises:
            HistoryError: nothing was stored.
        """
        stored = []
        with self._writing() as writer:
            now = self._tick(writer)
            for draft in drafts:
                cursor = writer.execute(
                    "INSERT INTO messages (room, name, text, time, key, sender, age) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT (room, sender, key) WHERE key IS NOT NULL DO NOTHING",
                    (draft.room, draft.name, draft.text, now, draft.key, draft.sender, self._age),
                )
                if cursor.rowcount:
                    assert cursor.lastrowid is not None
                    message = Message(cursor.lastrowid, draft.room, draft.name, draft.text, now)
                    stored.append((message, True))
                else:
                    row = writer.execute(
                        "SELECT id, room, name, text, time FROM messages "
                        "WHERE room = ? AND sender = ? AND key = ?",
                        (draft.room, draft.sender, draft.key),
                    ).fetchone()
                    stored.append((Message(*row), False))
        fresh = [message for message, new in stored if new]
        if fresh:
            self.last_id = fresh[-1].id
        self._counts.update(message.room for message in fresh)
        self._since_prune += len(fresh)
        return stored

    def _tick(self, writer: sqlite3.Connection) -> int:
        """Look at the clock; return its milliseconds since 1970.

        Messages are not forgotten by their times, which a wrong clock may have given them, but by their
        *age*: a clock of the history's own, which goes on with the other one and not when that jumps.
        """
        now = int(self._clock() * 1000)
        gone_on = now - self._wall
        if -_BACK_SECONDS * 1000 <= gone_on <= _JUMP_DAYS * _DAY_MS:
            self._age += max(0, gone_on)
        else:
            logger.warning(
                "the clock is %.1f days %s where the chat history saw it last; no message is forgotten for "
                "that, because the time between does not count for Retention.days",
                abs(gone_on) / _DAY_MS,
                "ahead of" if gone_on > 0 else "behind",
            )
        self._wall = now
        writer.execute("UPDATE log SET wall = ?, age = ?", (self._wall, self._age))
        return now

    @property
    def prune_is_due(self) -> bool:
        """Whether so much was written since the last `prune` that there may be something to forget."""
        return self._since_prune >= _PRUNE_EVERY_MESSAGES

    def prune(self) -> bool:
        """Forget a number of messages that are too old or too many.

        Returns:
            True when there may be more of them: call it again.

        Raises:
            HistoryError: nothing was forgotten.
        """
        with self._writing() as writer:
            self._tick(writer)
            doomed = list(itertools.islice(self._doomed(writer), _PRUNE_AT_ONCE))
            if doomed:
                writer.executemany(
                    "INSERT INTO floors VALUES (?, ?) "
                    "ON CONFLICT (room) DO UPDATE SET id = max(id, excluded.id)",
                    [(room, id) for id, room in doomed],
                )
                writer.executemany("DELETE FROM messages WHERE id = ?", [(id,) for id, _ in doomed])
                self._merge_floors(writer)
        self._counts -= Counter(room for _, room in doomed)
        if not doomed:
            self._since_prune = 0
        return bool(doomed)

    def _doomed(self, writer: sqlite3.Connection) -> Iterator[tuple[int, str]]:
        """Yield (id, room) of messages to forget, the oldest of each kind first."""
        retention = self.retention
        total = self._counts.total()
        excess = max(0, total - retention.messages)
        oldest = 0 if retention.days is None else self._age - int(retention.days * _DAY_MS)
        too_large = self._size(writer) - retention.bytes
        if too_large > 0:
            too_large = max(too_large, _PRUNE_BYTES)
        count = 0
        rows = writer.execute("SELECT id, room, age, length(CAST(text AS BLOB)) FROM messages ORDER BY id")
        for id, room, age, size in rows:
            if count >= excess and age >= oldest and too_large <= 0:
                break
            count += 1
            # More than most take, so that not too many are deleted: there is another turn.
            too_large -= size + 200
            yield id, room
        if count:
            return  # the counts are about to change
        for room, messages in self._counts.items():
            if messages > retention.messages_per_room:
                yield from writer.execute(
                    "SELECT id, room FROM messages WHERE room = ? ORDER BY id LIMIT ?",
                    (room, messages - retention.messages_per_room),
                )

    def _size(self, writer: sqlite3.Connection) -> int:
        """Return the bytes of the database that are in use."""
        (pages,) = writer.execute("PRAGMA page_count").fetchone()
        (free,) = writer.execute("PRAGMA freelist_count").fetchone()
        (page_bytes,) = writer.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * page_bytes)

    def _merge_floors(self, writer: sqlite3.Connection) -> None:
        """Keep the floors of so many rooms; the log's own floor stands for the rest."""
        row = writer.execute(
            "SELECT id FROM floors ORDER BY id DESC LIMIT 1 OFFSET ?", (_MAX_FLOORS,)
        ).fetchone()
        if row is not None:
            writer.execute("UPDATE log SET floor = max(floor, ?)", row)
            writer.execute("DELETE FROM floors WHERE id <= ?", row)

    # Reading

    def newest(self, room: str, *, upto: int) -> Page:
        """Return the newest messages of a room among those with ids up to and including `upto`.

        Raises:
            HistoryError: the database cannot be read.
        """
        kept, more = self._read_page("WHERE room = ? AND id <= ? ORDER BY id DESC", (room, upto))
        return Page(tuple(reversed(kept)), more)

    def before(self, room: str, id: int) -> Page:
        """Return the messages of a room right before an id.

        Raises:
            HistoryError: the database cannot be read.
        """
        return self.newest(room, upto=id - 1)

    def after(self, room: str, id: int, *, upto: int) -> Missed:
        """Return the messages of a room right behind an id, of those up to and including `upto`.

        Raises:
            HistoryError: the database cannot be read.
        """
        # The messages before the floor: what is pruned between the reads is then in the floor.
        kept, more = self._read_page("WHERE room = ? AND id > ? AND id <= ? ORDER BY id", (room, id, upto))
        behind = self._read_number(
            "SELECT count(*) FROM (SELECT 1 FROM messages WHERE room = ? AND id > ? AND id <= ? LIMIT ?)",
            (room, id, upto, MISSED_MESSAGES + 1),
        )
        floor = self._read_number(
            "SELECT max(floor, coalesce((SELECT id FROM floors WHERE room = ?), 0)) FROM log", (room,)
        )
        if id < floor or id > upto or behind > MISSED_MESSAGES:
            return Missed((), complete=False, more=False)
        return Missed(tuple(kept), complete=True, more=more)

    def _read_page(self, which: str, parameters: tuple[object, ...]) -> tuple[list[Message], bool]:
        """Return the first messages, as many as fit into a page but at least one, and if there are more."""
        kept: list[Message] = []
        chars = 0
        with self._reading() as reader:
            rows = reader.execute(f"SELECT id, room, name, text, time FROM messages {which}", parameters)
            for row in rows:
                message = Message(*row)
                chars += len(message.text)
                if len(kept) == PAGE_MESSAGES or (kept and chars > PAGE_CHARS):
                    rows.close()
                    return kept, True
                kept.append(message)
        return kept, False

    def _read_number(self, query: str, parameters: tuple[object, ...]) -> int:
        with self._reading() as reader:
            return int(reader.execute(query, parameters).fetchone()[0])

    # Borders: sqlite3's errors become ours here

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._read_lock:
            if self._reader is None:
                raise HistoryError("the chat history is not open")
            try:
                yield self._reader
            except sqlite3.Error as error:
                raise HistoryError(f"the chat history cannot be read: {error}") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock:
            if self._writer is None:
                raise HistoryError("the chat history is not open")
            try:
                with transaction(self._writer):
                    yield self._writer
            except sqlite3.Error as error:
                raise HistoryError(f"the chat history cannot be written: {error}") from error
