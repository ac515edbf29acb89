from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wsframework import ConfigurationError
from wsframework.chat import history
from wsframework.chat.history import PAGE_MESSAGES, HistoryStore
from wsframework.chat.messages import Draft, HistoryError, Message, Retention

DAY = 86400.0


class Clock:
    """Seconds since 1970, set by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["file", "memory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "chat.db" if request.param == "file" else None


@pytest.fixture
def store(path: Path | None, clock: Clock) -> Iterator[HistoryStore]:
    store = HistoryStore(path, clock=clock)
    store.open()
    yield store
    store.close()


def say(store: HistoryStore, *texts: str, room: str = "lobby", name: str = "Ada") -> list[Message]:
    return [message for message, _ in store.append([Draft(room, name, text) for text in texts])]


def texts(messages: tuple[Message, ...]) -> list[str]:
    return [message.text for message in messages]


# Writing


def test_a_message_gets_an_id_and_the_servers_time(store: HistoryStore, clock: Clock) -> None:
    first, second = say(store, "one", "two")
    assert first == Message(1, "lobby", "Ada", "one", int(clock.now * 1000))
    assert (second.id, store.last_id) == (2, 2)


def test_the_same_key_in_the_same_room_is_the_same_message(store: HistoryStore) -> None:
    draft = Draft("lobby", "Ada", "once", key="k1")
    ((first, new),) = store.append([draft])
    assert new
    again, (elsewhere, new_elsewhere), once_more = store.append(
        [draft, Draft("tea", "Ada", "there", key="k1"), draft]
    )
    assert again == once_more == (first, False)
    assert new_elsewhere
    assert elsewhere.id > first.id
    assert texts(store.newest("lobby", upto=99).messages) == ["once"]


def test_a_key_is_its_senders_own(store: HistoryStore) -> None:
    drafts = [Draft("lobby", name, name, key="1", sender=name) for name in ("Ada", "Bob", "Ada")]
    (ada, _), (bob, new), (again, new_again) = store.append(drafts)
    assert (new, bob.text) == (True, "Bob")
    assert (again, new_again) == (ada, False)


def test_messages_without_a_key_may_repeat_themselves(store: HistoryStore) -> None:
    say(store, "again", "again")
    assert texts(store.newest("lobby", upto=99).messages) == ["again", "again"]


def test_a_batch_that_fails_leaves_nothing_behind(store: HistoryStore) -> None:
    with pytest.raises(HistoryError):
        store.append([Draft("lobby", "Ada", "fine"), Draft("lobby", "Ada", None)])  # type: ignore[arg-type]
    assert store.newest("lobby", upto=99).messages == ()
    (message,) = say(store, "next")
    assert texts(store.newest("lobby", upto=message.id).messages) == ["next"]


# Reading


def test_pages_go_back_to_the_first_message_without_gap_or_repetition(store: HistoryStore) -> None:
    say(store, *(str(number) for number in range(130)))
    say(store, "elsewhere", room="tea")
    page = store.newest("lobby", upto=130)
    seen = [*page.messages]
    sizes = [len(page.messages)]
    while page.more:
        page = store.before("lobby", seen[0].id)
        sizes.append(len(page.messages))
        seen[:0] = page.messages
    assert sizes == [50, 50, 30]
    assert texts(tuple(seen)) == [str(number) for number in range(130)]


def test_a_page_of_exactly_all_messages_says_that_there_are_no_more(store: HistoryStore) -> None:
    say(store, *(str(number) for number in range(50)))
    assert not store.newest("lobby", upto=50).more
    assert store.newest("lobby", upto=51).messages == store.newest("lobby", upto=50).messages


def test_what_is_not_published_yet_is_not_shown(store: HistoryStore) -> None:
    say(store, "published", "not yet")
    assert texts(store.newest("lobby", upto=1).messages) == ["published"]
    assert texts(store.after("lobby", 0, upto=1).messages) == ["published"]


def test_a_page_is_bounded_in_characters_too(store: HistoryStore) -> None:
    say(store, *["x" * 16_000] * 5)
    page = store.newest("lobby", upto=5)
    assert [message.id for message in page.messages] == [4, 5]
    assert page.more
    missed = store.after("lobby", 1, upto=5)
    assert ([message.id for message in missed.messages], missed.complete, missed.more) == ([2, 3], True, True)
    rest = store.after("lobby", 3, upto=5)
    assert ([message.id for message in rest.messages], rest.complete, rest.more) == ([4, 5], True, False)


def test_one_message_larger_than_a_page_is_still_shown(
    store: HistoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE_CHARS", 10)
    say(store, "x" * 100, "y" * 100)
    assert texts(store.newest("lobby", upto=2).messages) == ["y" * 100]
    assert texts(store.after("lobby", 0, upto=2).messages) == ["x" * 100]


def test_after_an_id_comes_exactly_what_was_missed(store: HistoryStore) -> None:
    say(store, "one", "two")
    say(store, "elsewhere", room="tea")
    say(store, "three")
    missed = store.after("lobby", 1, upto=4)
    assert (texts(missed.messages), missed.complete) == (["two", "three"], True)
    nothing = store.after("lobby", 4, upto=4)
    assert (nothing.messages, nothing.complete) == ((), True)


def test_too_much_is_told_honestly(store: HistoryStore) -> None:
    say(store, *(str(number) for number in range(501)))
    assert not store.after("lobby", 0, upto=501).complete
    just = store.after("lobby", 1, upto=501)
    assert (len(just.messages), just.complete, just.more) == (PAGE_MESSAGES, True, True)
    seen = [*just.messages]
    while just.more:
        just = store.after("lobby", seen[-1].id, upto=501)
        seen += just.messages
    assert [message.id for message in seen] == list(range(2, 502))


def test_a_history_is_bounded_in_bytes(clock: Clock, tmp_path: Path) -> None:
    for path in (tmp_path / "chat.db", None):
        store = HistoryStore(path, Retention(days=None, bytes=512 * 1024), clock=clock)
        store.open()
        for _ in range(20):
            say(store, *["\U0001f98a" * 1000] * 20)
        while store.prune():
            pass
        kept: list[Message] = []
        page = store.newest("lobby", upto=400)
        while page.more:
            kept += page.messages
            page = store.before("lobby", page.messages[0].id)
        # Of 1,600 kB; and what is left is the newest, most of what fits.
        assert 80 <= len(kept) <= 128
        assert kept[0].id > 400 - 130
        assert not store.after("lobby", 1, upto=400).complete
        store.close()
        if path is not None:
            assert path.stat().st_size < 3 * 1024 * 1024


def test_an_id_from_the_future_is_not_taken_for_up_to_date(store: HistoryStore) -> None:
    say(store, "one")
    assert not store.after("lobby", 2, upto=1).complete


# Forgetting


def forget_all(store: HistoryStore) -> None:
    while store.prune():
        pass


def test_messages_that_are_too_old_are_forgotten(store: HistoryStore, clock: Clock) -> None:
    say(store, "old")
    clock.now += 20 * DAY
    say(store, "newer")
    forget_all(store)
    assert texts(store.newest("lobby", upto=9).messages) == ["old", "newer"]
    clock.now += 11 * DAY
    forget_all(store)
    assert texts(store.newest("lobby", upto=9).messages) == ["newer"]


@pytest.mark.parametrize("path", ["memory"], indirect=True)
def test_each_room_keeps_its_newest(path: None, clock: Clock) -> None:
    store = HistoryStore(path, Retention(messages_per_room=3), clock=clock)
    store.open()
    say(store, "a", "b", "c", "d", "e")
    say(store, "quiet", room="tea")
    forget_all(store)
    assert texts(store.newest("lobby", upto=9).messages) == ["c", "d", "e"]
    assert texts(store.newest("tea", upto=9).messages) == ["quiet"]
    store.close()


@pytest.mark.parametrize("path", ["memory"], indirect=True)
def test_all_rooms_together_keep_so_many(path: None, clock: Clock) -> None:
    store = HistoryStore(path, Retention(messages=3), clock=clock)
    store.open()
    for number in range(6):
        say(store, str(number), room=f"room{number % 2}")
    forget_all(store)
    kept = [*store.newest("room0", upto=9).messages, *store.newest("room1", upto=9).messages]
    assert sorted(texts(tuple(kept))) == ["3", "4", "5"]
    store.close()


def test_nothing_is_forgotten_by_age_without_an_age(path: Path | None, clock: Clock) -> None:
    store = HistoryStore(path, Retention(days=None), clock=clock)
    store.open()
    say(store, "old")
    clock.now += 10_000 * DAY
    forget_all(store)
    assert texts(store.newest("lobby", upto=9).messages) == ["old"]
    store.close()


def test_who_missed_something_that_is_forgotten_is_told_and_others_are_not(
    store: HistoryStore, clock: Clock
) -> None:
    say(store, "one", "two", "three")
    clock.now += 31 * DAY
    say(store, "four")
    forget_all(store)
    assert [store.after("lobby", id, upto=4).complete for id in (0, 1, 2, 3, 4)] == [False] * 3 + [True] * 2
    assert texts(store.after("lobby", 3, upto=4).messages) == ["four"]
    # Somebody in another room has missed nothing there.
    assert store.after("tea", 0, upto=4).complete


def test_the_floors_of_many_rooms_become_one(
    store: HistoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_MAX_FLOORS", 3)
    for number in range(1, 9):
        say(store, "x", room=f"room{number}")
    clock.now += 31 * DAY
    forget_all(store)
    # The floors of the last three rooms are known by room; of the others, that they are at most 5.
    assert not store.after("room8", 7, upto=8).complete
    assert store.after("room8", 8, upto=8).complete
    assert not store.after("room1", 0, upto=8).complete
    assert store.after("room1", 5, upto=8).complete


def test_forgetting_goes_in_steps_and_says_when_it_is_done(
    store: HistoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_PRUNE_AT_ONCE", 4)
    say(store, *"abcdefghij")
    clock.now += 31 * DAY
    assert [store.prune() for _ in range(4)] == [True, True, True, False]
    assert store.newest("lobby", upto=99).messages == ()


def test_forgetting_is_due_after_a_thousand_messages(store: HistoryStore) -> None:
    due = []
    for count in (999, 1):
        say(store, *["x"] * count)
        due.append(store.prune_is_due)
    forget_all(store)
    due.append(store.prune_is_due)
    assert due == [False, True, False]


def test_ids_are_never_given_twice(store: HistoryStore, clock: Clock) -> None:
    say(store, "one", "two")
    clock.now += 31 * DAY
    forget_all(store)
    assert say(store, "three")[0].id == 3


@pytest.mark.parametrize("mistake", [{"days": 0}, {"messages": 0}, {"messages_per_room": 0}])
def test_a_retention_that_keeps_nothing_is_refused(mistake: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Retention(**mistake)


# The file


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
    store.close()
    clock.now += 31 * DAY
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
    HistoryStore(path).open()


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
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(ConfigurationError, match="a chat history of version 3"):
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


def test_a_closed_history_says_so(store: HistoryStore) -> None:
    store.close()
    store.close()
    with pytest.raises(HistoryError, match="not open"):
        store.append([Draft("lobby", "Ada", "too late")])
    with pytest.raises(HistoryError, match="not open"):
        store.newest("lobby", upto=1)


def test_a_database_that_breaks_is_a_history_error(store: HistoryStore) -> None:
    assert store._writer is not None
    store._writer.execute("DROP TABLE messages")
    with pytest.raises(HistoryError, match="cannot be written"):
        say(store, "x")
    with pytest.raises(HistoryError, match="cannot be read"):
        store.newest("lobby", upto=1)


def test_any_thread_may_read_while_another_one_writes(store: HistoryStore) -> None:
    errors: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(50):
                page = store.newest("lobby", upto=10_000)
                ids = [message.id for message in page.messages]
                assert ids == list(range(ids[0], ids[0] + len(ids))) if ids else True
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(50):
        say(store, *[str(number)] * 5)
    for thread in threads:
        thread.join()
    assert errors == []
