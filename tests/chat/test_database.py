from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from tests.chat.stores import DAY, Clock, pass_days, say, texts
from wsframework import ConfigurationError
from wsframework.chat.history import HistoryStore
from wsframework.chat.messages import Draft, HistoryError, Retention


def prune_all(store: HistoryStore) -> None:
    """Forget all that is too old, step by step."""
    while store.prune():
        pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_everything_is_there_again_when_the_file_is_opened_again(tmp_path: Path, clock: Clock) -> None:
    store = HistoryStore(tmp_path / "chat.db", clock=clock)
    store.open()
    said = say(store, "one", "two")
    store.close()
    again = HistoryStore(tmp_path / "chat.db", Retention(messages=1), clock=clock)
    again.open()
    assert again.log == store.log
    assert again.last_id == 2
    assert again.newest("lobby", upto=9).messages == (said[1],)  # opening forgets what is too much
    assert not again.after("lobby", 0, upto=2).complete
    again.close()


def test_last_id_outlives_the_messages(tmp_path: Path, clock: Clock) -> None:
    store = HistoryStore(tmp_path / "chat.db", clock=clock)
    store.open()
    say(store, "one", "two")
    pass_days(store, clock, 31)
    store.close()
    store.open()
    assert (store.last_id, store.newest("lobby", upto=9).messages) == (2, ())
    store.close()


def test_a_new_database_is_a_new_log(tmp_path: Path) -> None:
    logs = set()
    for name in ("a.db", "b.db"):
        store = HistoryStore(tmp_path / name)
        store.open()
        logs.add(store.log)
        store.close()
    assert len(logs) == 2


def test_a_history_in_use_by_another_server_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    store = HistoryStore(path)
    store.open()
    with pytest.raises(ConfigurationError, match="in use by another server"):
        HistoryStore(path).open()
    store.close()
    again = HistoryStore(path)
    again.open()
    again.close()


def test_a_history_whose_server_was_killed_is_free_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
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
    store = HistoryStore(path)
    store.open()
    assert texts(store.newest("lobby", upto=1).messages) == ["last words"]
    store.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("buy milk\n" * 200)
    with pytest.raises(ConfigurationError, match=r"cannot open the chat history .*not a database"):
        HistoryStore(path).open()
    assert path.read_text() == "buy milk\n" * 200


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE messages (id INTEGER)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="a database of another program"):
        HistoryStore(path).open()
    assert path.read_bytes() == before


def test_a_history_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    store = HistoryStore(path)
    store.open()
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 4")
    connection.close()
    with pytest.raises(ConfigurationError, match="a chat history of version 4"):
        store.open()


def test_a_history_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    connection = sqlite3.connect(path)
    connection.executescript(
        """
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
    )
    connection.close()
    for _ in range(2):
        store = HistoryStore(path, Retention(days=None))
        store.open()
        assert (store.log, store.newest("lobby", upto=9).messages[0].text) == ("k3Jz0", "old")
        ((message, _),) = store.append([Draft("lobby", "Bob", "new", key="k1", sender="bob")])
        assert (message.id, message.text) == (2, "new")
        store.close()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot open the chat history"):
        HistoryStore(tmp_path / "nowhere" / "chat.db").open()


def test_commits_wait_for_the_disk_and_readers_do_not_wait_for_the_writer(tmp_path: Path) -> None:
    store = HistoryStore(tmp_path / "chat.db")
    store.open()
    assert store._writer is not None
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    say(store, "before")
    with store._writing():
        # The test itself holds the writer's lock and an open transaction.
        assert texts(store.newest("lobby", upto=9).messages) == ["before"]
    store.close()


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
    first.open()
    with pytest.raises(ConfigurationError, match="in use by another server"):
        second.open()
    say(first, "one")
    first.close()
    second.open()
    assert texts(second.newest("lobby", upto=1).messages) == ["one"]
    second.close()
    assert not list(tmp_path.glob("link-*"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems lock the name only")
def test_a_history_that_was_renamed_is_still_in_use(tmp_path: Path) -> None:
    path, renamed = tmp_path / "chat.db", tmp_path / "renamed.db"
    store = HistoryStore(path)
    store.open()
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
    store.close()


def test_a_file_with_two_names_is_refused(tmp_path: Path) -> None:
    store = HistoryStore(tmp_path / "chat.db")
    store.open()
    store.close()
    os.link(tmp_path / "chat.db", tmp_path / "other.db")
    for name in ("chat.db", "other.db"):
        with pytest.raises(ConfigurationError, match="has more than one name"):
            HistoryStore(tmp_path / name).open()


# The clock


def test_a_clock_that_is_a_year_ahead_deletes_nothing(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = HistoryStore(tmp_path / "chat.db", clock=clock)
    store.open()
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
    store.close()


def test_a_clock_that_jumps_while_the_history_is_open_deletes_nothing(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = HistoryStore(None, clock=clock)
    store.open()
    say(store, "one")
    for jump in (365, -700, 4000):
        clock.now += jump * DAY
        say(store, "more")
        assert not store.prune()
    assert len(caplog.records) == 3
    store.close()


def test_a_week_without_a_server_counts(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = HistoryStore(tmp_path / "chat.db", clock=clock)
    store.open()
    say(store, "one")
    for _ in range(5):
        store.close()
        clock.now += 6.9 * DAY
        store.open()
    assert store.newest("lobby", upto=9).messages == ()
    assert not caplog.records
    store.close()


def test_an_older_history_with_a_message_from_the_future_is_kept_and_forgotten(
    tmp_path: Path, clock: Clock
) -> None:
    store = HistoryStore(tmp_path / "chat.db", clock=clock)
    store.open()
    say(store, "one", "from the future")
    store.close()
    with sqlite3.connect(tmp_path / "chat.db") as connection:
        connection.executescript(
            f"""
            UPDATE messages SET time = {int((clock.now + 365 * DAY) * 1000)} WHERE id = 2;
            ALTER TABLE messages DROP COLUMN age;
            ALTER TABLE log DROP COLUMN wall;
            ALTER TABLE log DROP COLUMN age;
            PRAGMA user_version = 2;
            """
        )
    connection.close()
    store.open()
    assert len(store.newest("lobby", upto=9).messages) == 2
    pass_days(store, clock, 31)
    prune_all(store)
    assert store.newest("lobby", upto=9).messages == ()
    store.close()


# Damage and leaks


def test_a_history_without_an_identity_gets_a_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = HistoryStore(tmp_path / "chat.db")
    store.open()
    say(store, "one")
    log = store.log
    store.close()
    with sqlite3.connect(tmp_path / "chat.db") as connection:
        connection.execute("DELETE FROM log")
    connection.close()
    store.open()
    assert store.log not in ("", log)
    assert "had lost its identity" in caplog.text
    assert texts(store.newest("lobby", upto=9).messages) == ["one"]
    assert store.after("lobby", 0, upto=1).complete
    store.close()


def test_a_write_ahead_log_that_grew_under_a_reader_shrinks_again(tmp_path: Path) -> None:
    store = HistoryStore(tmp_path / "chat.db")
    store.open()
    wal = tmp_path / "chat.db-wal"
    reader = sqlite3.connect(tmp_path / "chat.db", isolation_level=None)
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
    store.close()


class _Connection(sqlite3.Connection):
    open_ones: ClassVar[set[int]] = set()

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.open_ones.add(id(self))

    def close(self) -> None:
        self.open_ones.discard(id(self))
        super().close()


@pytest.mark.parametrize(
    "mistake", [None, "other program", "later version", "no tables", "no database", "full"]
)
def test_connections_are_closed_on_every_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str | None
) -> None:
    path = tmp_path / "chat.db"
    store = HistoryStore(path, Retention(messages=1))
    store.open()
    say(store, "one", "two")
    store.close()
    connection = sqlite3.connect(path)
    if mistake == "other program":
        connection.execute("PRAGMA application_id = 1")
    elif mistake == "later version":
        connection.execute("PRAGMA user_version = 99")
    elif mistake == "no tables":
        connection.executescript("DROP TABLE messages; DROP TABLE floors")
    elif mistake == "full":
        connection.execute(
            "CREATE TRIGGER full BEFORE DELETE ON messages BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    connection.commit()
    connection.close()
    if mistake == "no database":
        path.write_bytes(b"x" * 10_000)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **o: connect(*a, factory=_Connection, **o))
    _Connection.open_ones.clear()
    if mistake is None:
        store.open()
        store.close()
    else:
        with pytest.raises((ConfigurationError, HistoryError)):
            store.open()
    assert not _Connection.open_ones
    with pytest.raises(HistoryError, match="not open"):
        store.newest("lobby", upto=1)
    monkeypatch.undo()
    if mistake is None:
        store.open()  # and the lock is free
        store.close()
