"""The chat's database: its file, its tables, and that one process has it."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from wsframework import ConfigurationError

__all__ = ["Database", "transaction"]

logger = logging.getLogger("wsframework.chat")

_APPLICATION_ID = 0x77736368  # "wsch"
_VERSION = 3

_WAL_BYTES = 4 * 1024 * 1024
"""What stays of a write-ahead log that grew while somebody read; it grows to 1,000 pages of 4 KiB without."""

_LOCKED_BYTE = 1 << 62
"""Far behind the end of any database; SQLite's own locks are at 1 GiB."""

_SCHEMA = """
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    room TEXT NOT NULL,
    name TEXT NOT NULL,
    text TEXT NOT NULL,
    time INTEGER NOT NULL,
    key TEXT,
    sender TEXT NOT NULL DEFAULT '',
    age INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX messages_of_room ON messages (room, id);
CREATE UNIQUE INDEX keys_of_senders ON messages (room, sender, key) WHERE key IS NOT NULL;
CREATE TABLE floors (room TEXT PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE log (
    id TEXT NOT NULL, floor INTEGER NOT NULL, wall INTEGER NOT NULL DEFAULT 0, age INTEGER NOT NULL DEFAULT 0
);
"""

_STEPS = {
    1: """
ALTER TABLE messages ADD COLUMN sender TEXT NOT NULL DEFAULT '';
DROP INDEX keys_of_room;
CREATE UNIQUE INDEX keys_of_senders ON messages (room, sender, key) WHERE key IS NOT NULL;
""",
    2: """
ALTER TABLE messages ADD COLUMN age INTEGER NOT NULL DEFAULT 0;
UPDATE messages SET age = min(time, :now);
ALTER TABLE log ADD COLUMN wall INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log ADD COLUMN age INTEGER NOT NULL DEFAULT 0;
UPDATE log SET wall = min(:now, coalesce((SELECT time FROM messages ORDER BY id DESC LIMIT 1), :now));
UPDATE log SET age = wall;
""",
}
"""From each earlier version to the next."""


class Database:
    """An open database.

    Args:
        path: its file, made if it is not there; None keeps everything in memory.
        now: the time, in milliseconds since 1970.
        resources: what closes it again.

    Attributes:
        writer: the connection for writing.
        reader: the connection for reading: the same one in memory.
        log: the log's identity.

    Raises:
        ConfigurationError: the file cannot be opened, is no chat history, or is in use by another server.
    """

    def __init__(self, path: Path | None, now: int, resources: ExitStack) -> None:
        where = "in memory" if path is None else str(path)
        try:
            # SQLite names the files beside it after the file that links lead to.
            self._path = None if path is None else Path(os.path.realpath(path))
            if self._path is not None:
                resources.enter_context(_only_one(self._path))
            self.writer = self._connect(resources)
            self.log = self._prepare(where, now)
            _set_up(self.writer)
            self.reader = self.writer
            if self._path is not None:
                self.reader = self._connect(resources)
                _set_up(self.reader)
        except (sqlite3.Error, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigurationError(f"cannot open the chat history {where}: {reason}") from error

    def _connect(self, resources: ExitStack) -> sqlite3.Connection:
        # No isolation level: transactions begin and end where it is written. Any thread: the locks see to it.
        connection = sqlite3.connect(
            self._path or ":memory:", timeout=5.0, isolation_level=None, check_same_thread=False
        )
        resources.enter_context(closing(connection))
        return connection

    def _prepare(self, where: str, now: int) -> str:
        connection = self.writer
        with transaction(connection):
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if application == 0 and version == 0 and tables == 0:
                _execute(connection, _SCHEMA, now)
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            elif application != _APPLICATION_ID:
                raise ConfigurationError(f"{where} is a database of another program, not a chat history")
            elif not 1 <= version <= _VERSION:
                raise ConfigurationError(
                    f"{where} is a chat history of version {version}, and this program knows {_VERSION}"
                )
            else:
                for step in range(version, _VERSION):
                    _execute(connection, _STEPS[step], now)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            row = connection.execute("SELECT id FROM log").fetchone()
            if row is None:
                if tables:
                    logger.warning("the chat history %s had lost its identity; clients load it anew", where)
                row = (secrets.token_urlsafe(9),)
                connection.execute("INSERT INTO log VALUES (?, 0, ?, ?)", (*row, now, now))
            return str(row[0])


def _execute(connection: sqlite3.Connection, statements: str, now: int) -> None:
    for statement in statements.split(";"):
        connection.execute(statement, {"now": now} if ":now" in statement else {})


def _set_up(connection: sqlite3.Connection) -> None:
    """Choose how a connection writes; only once it is known that the database is ours."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what the block does, or undo it if it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # After some errors (a full disk) SQLite has rolled back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold the history for this process: two servers on one log would hide each other's messages.

    The lock is on a file beside it, because closing any descriptor of the database's own file would drop
    SQLite's locks (https://sqlite.org/howtocorrupt.html §2.2). It ends with the process, however that ends.
    Symbolic links have been followed. A file with two names has two such locks and, worse, two write-ahead
    logs (§2.5 there). On Linux the file itself is locked besides, which holds when it is renamed.
    """
    if path.exists() and path.stat().st_nlink > 1:
        raise ConfigurationError(
            f"the chat history {path} has more than one name (hard links); copy it to a file of its own"
        )
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.with_name(f"{path.name}-lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(path) from None
        if not hasattr(fcntl, "F_OFD_SETLK"):
            yield
            return
        # Of this descriptor and not of the process, so it is apart from SQLite's locks, on a byte that SQLite
        # does not lock. It is closed after SQLite's own descriptors.
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "rb") as file:
            byte = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _LOCKED_BYTE, 1, 0)
            try:
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, byte)
            except (BlockingIOError, PermissionError):
                raise _in_use(path) from None
            yield


def _in_use(path: Path) -> ConfigurationError:
    return ConfigurationError(f"the chat history {path} is in use by another server")
