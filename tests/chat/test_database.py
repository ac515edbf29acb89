from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.chat.stores import DAY, Clock, pass_days, say, texts
from wsframework import ConfigurationError
from wsframework.chat.history import HistoryStore
from wsframework.chat.messages import Draft, HistoryError, Retention

FIRST_VERSION = """
    CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, room TEXT NOT NULL, name TEXT NOT NULL,
                           text TEXT NOT NULL, time INTEGER NOT NULL, key TEXT);
    CREATE INDEX messages_of_room ON messages (room, id);
    CREATE UNIQUE INDEX keys_of_room ON messages (room, key) WHERE key IS NOT NULL;
    CREATE TABLE floors (room TEXT PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE log (id TEXT NOT NULL, floor INTEGER NOT NULL);
    INSERT INTO log VALUES ('k3Jz0', 0);
    INSERT INTO messages (room, name, text, time, key) VALUES ('lobby', 'Ada', 'old', 1, 'k1');
    PRAGMA application_id = 0x77736368;
    PRAGMA user_version = 1;
"""


def prune_all(store: HistoryStore) -> None:
    """Forget all that is too old, step by step."""
    while store.prune():
        pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[HistoryStore]:
    """A history that is open; a test may close it and open it again."""
    with opened(HistoryStore(path, clock=clock)) as store:
        yield store


@contextlib.contextmanager
def opened(store: HistoryStore) -> Iterator[HistoryStore]:
    store.open()
    try:
        yield store
    finally:
        store.close()


@contextlib.contextmanager
def editing(path: Path) -> Iterator[sqlite3.Connection]:
    """Change a database that nothing has open."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        yield connection


def test_everything_is_there_again_when_the_file_is_opened_again(store: HistoryStore, path: Path) -> None:
    said = say(store, "one", "two")
    store.close()
    with opened(HistoryStore(path, Retention(messages=1), clock=Clock())) as again:
        assert again.log == store.log
        assert again.last_id == 2
        assert again.newest("lobby", upto=9).messages == (said[1],)  # opening forgets what is too much
        assert not again.after("lobby", 0, upto=2).complete


def test_last_id_outlives_the_messages(store: HistoryStore, clock: Clock) -> None:
    say(store, "one", "two")
    pass_days(store, clock, 31)
    store.close()
    store.open()
    assert (store.last_id, store.newest("lobby", upto=9).messages) == (2, ())


def test_a_new_database_is_a_new_log(store: HistoryStore, tmp_path: Path) -> None:
    with opened(HistoryStore(tmp_path / "b.db")) as other:
        assert store.log != other.log


def test_a_history_in_use_by_another_server_is_refused(store: HistoryStore, path: Path) -> None:
    with pytest.raises(ConfigurationError, match="in use by another server"):
        HistoryStore(path).open()
    store.close()
    with opened(HistoryStore(path)):
        pass


def test_a_history_whose_server_was_killed_is_free_and_whole(path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from wsframework.chat.history import HistoryStore\n"
        "from wsframework.chat.messages import Draft\n"
        "store = HistoryStore(sys.argv[1])\n"
        "store.open()\n"
        "store.append([Draft('lobby', 'Ada', 'last words')])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], timeout=30).returncode == -9
    with opened(HistoryStore(path)) as store:
        assert texts(store.newest("lobby", upto=1).messages) == ["last words"]


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("buy milk\n" * 200)
    with pytest.raises(ConfigurationError, match=r"cannot open the chat history .*not a database"):
        HistoryStore(path).open()
    assert path.read_text() == "buy milk\n" * 200


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with editing(path) as connection:
        connection.execute("CREATE TABLE messages (id INTEGER)")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="a database of another program"):
        HistoryStore(path).open()
    assert path.read_bytes() == before


def test_a_history_of_a_later_version_is_refused(store: HistoryStore, path: Path) -> None:
    store.close()
    with editing(path) as connection:
        connection.execute("PRAGMA user_version = 4")
    with pytest.raises(ConfigurationError, match="a chat history of version 4"):
        store.open()


def test_a_history_of_the_first_version_is_taken_over(path: Path) -> None:
    with editing(path) as connection:
        connection.executescript(FIRST_VERSION)
    for _ in range(2):
        with opened(HistoryStore(path, Retention(days=None))) as store:
            assert (store.log, store.newest("lobby", upto=9).messages[0].text) == ("k3Jz0", "old")
            ((message, _),) = store.append([Draft("lobby", "Bob", "new", key="k1", sender="bob")])
            assert (message.id, message.text) == (2, "new")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot open the chat history"):
        HistoryStore(tmp_path / "nowhere" / "chat.db").open()


def test_commits_wait_for_the_disk_and_readers_do_not_wait_for_the_writer(store: HistoryStore) -> None:
    assert store._writer is not None
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    say(store, "before")
    with store._writing():
        # The test itself holds the writer's lock and an open transaction.
        assert texts(store.newest("lobby", upto=9).messages) == ["before"]


# One process


@pytest.mark.parametrize("kind", ["file", "folder", "dangling"])
def test_a_symbolic_link_leads_to_the_same_lock(tmp_path: Path, kind: str) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "chat.db"
    store = HistoryStore(path)
    link = tmp_path / "link"
    if kind == "folder":
        link.symlink_to(tmp_path / "data")
        link = link / "chat.db"
    else:
        link.symlink_to(path)
    first, second = (HistoryStore(link), store) if kind == "dangling" else (store, HistoryStore(link))
    with opened(first):
        with pytest.raises(ConfigurationError, match="in use by another server"):
            second.open()
        say(first, "one")
    with opened(second):
        assert texts(second.newest("lobby", upto=1).messages) == ["one"]
    assert not list(tmp_path.glob("link-*"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems lock the name only")
def test_a_history_that_was_renamed_is_still_in_use(store: HistoryStore, path: Path) -> None:
    renamed = path.with_name("renamed.db")
    path.rename(renamed)
    opening = (
        "import sys; from wsframework.chat.history import HistoryStore; HistoryStore(sys.argv[1]).open()"
    )
    command = [sys.executable, "-c", opening, str(renamed)]
    other = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert f"the chat history {renamed} is in use by another server" in other.stderr
    renamed.rename(path)
    say(store, "one")
    store.close()
    store.open()
    assert texts(store.newest("lobby", upto=1).messages) == ["one"]


def test_a_file_with_two_names_is_refused(store: HistoryStore, path: Path) -> None:
    store.close()
    other = path.with_name("other.db")
    os.link(path, other)
    for name in (path, other):
        with pytest.raises(ConfigurationError, match="has more than one name"):
            HistoryStore(name).open()


# The clock


def test_a_clock_that_is_a_year_ahead_deletes_nothing(
    store: HistoryStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    say(store, "one")
    pass_days(store, clock, 20)
    say(store, "two")
    store.close()
    clock.now += 365 * DAY
    for _ in range(2):  # and not at the next start either, when the newest message has that time too
        store.open()
        say(store, "later")
        store.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the clock is 365.0 days ahead of where the chat history saw it last" in caplog.text
    clock.now -= 365 * DAY
    store.open()
    assert "365.0 days behind" in caplog.text
    assert texts(store.newest("lobby", upto=9).messages) == ["one", "two", "later", "later"]
    # What is kept for thirty days of the right clock is forgotten then, whatever time it says.
    pass_days(store, clock, 11)
    prune_all(store)
    assert texts(store.newest("lobby", upto=9).messages) == ["two", "later", "later"]
    pass_days(store, clock, 20)
    prune_all(store)
    assert store.newest("lobby", upto=9).messages == ()


def test_a_clock_that_jumps_while_the_history_is_open_deletes_nothing(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(HistoryStore(None, clock=clock)) as store:
        say(store, "one")
        for jump in (365, -700, 4000):
            clock.now += jump * DAY
            say(store, "more")
            assert not store.prune()
        assert len(caplog.records) == 3


def test_a_week_without_a_server_counts(
    store: HistoryStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    say(store, "one")
    for _ in range(5):
        store.close()
        clock.now += 6.9 * DAY
        store.open()
    assert store.newest("lobby", upto=9).messages == ()
    assert not caplog.records


def test_an_older_history_with_a_message_from_the_future_is_kept_and_forgotten(
    store: HistoryStore, path: Path, clock: Clock
) -> None:
    say(store, "one", "from the future")
    store.close()
    with editing(path) as connection:
        connection.executescript(
            f"""
            UPDATE messages SET time = {int((clock.now + 365 * DAY) * 1000)} WHERE id = 2;
            ALTER TABLE messages DROP COLUMN age;
            ALTER TABLE log DROP COLUMN wall;
            ALTER TABLE log DROP COLUMN age;
            PRAGMA user_version = 2;
            """
        )
    store.open()
    assert len(store.newest("lobby", upto=9).messages) == 2
    pass_days(store, clock, 31)
    prune_all(store)
    assert store.newest("lobby", upto=9).messages == ()


# Damage and leaks


def test_a_history_without_an_identity_gets_a_new_one(
    store: HistoryStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    say(store, "one")
    log = store.log
    store.close()
    with editing(path) as connection:
        connection.execute("DELETE FROM log")
    store.open()
    assert store.log not in ("", log)
    assert "had lost its identity" in caplog.text
    assert texts(store.newest("lobby", upto=9).messages) == ["one"]
    assert store.after("lobby", 0, upto=1).complete


def test_a_write_ahead_log_that_grew_under_a_reader_shrinks_again(store: HistoryStore, path: Path) -> None:
    wal = path.with_name("chat.db-wal")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM messages").fetchone()
    for _ in range(40):
        say(store, *["x" * 4000] * 100)
    assert wal.stat().st_size > 12 * 1024 * 1024
    reader.execute("COMMIT")
    reader.close()
    for _ in range(3):
        say(store, *["x" * 4000] * 300)
    assert wal.stat().st_size <= 6 * 1024 * 1024


class _Connection(sqlite3.Connection):
    open_ones: ClassVar[set[int]] = set()

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.open_ones.add(id(self))

    def close(self) -> None:
        self.open_ones.discard(id(self))
        super().close()


MISTAKES: dict[str | None, str] = {
    "other program": "PRAGMA application_id = 1",
    "later version": "PRAGMA user_version = 99",
    "no tables": "DROP TABLE messages; DROP TABLE floors",
    "full": "CREATE TRIGGER full BEFORE DELETE ON messages BEGIN SELECT RAISE(ABORT, 'full'); END",
}


@pytest.mark.parametrize("mistake", [None, *MISTAKES, "no database"])
def test_connections_are_closed_on_every_path(
    path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str | None
) -> None:
    store = HistoryStore(path, Retention(messages=1))
    with opened(store):
        say(store, "one", "two")
    with editing(path) as connection:
        connection.executescript(MISTAKES.get(mistake, ""))
    if mistake == "no database":
        path.write_bytes(b"x" * 10_000)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **o: connect(*a, factory=_Connection, **o))
    _Connection.open_ones.clear()
    if mistake is None:
        with opened(store):
            pass
    else:
        with pytest.raises((ConfigurationError, HistoryError)):
            store.open()
    assert not _Connection.open_ones
    with pytest.raises(HistoryError, match="not open"):
        store.newest("lobby", upto=1)
    monkeypatch.undo()
    if mistake is None:
        with opened(store):
            pass  # and the lock is free
