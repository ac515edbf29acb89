from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chat.stores import Clock, pass_days, say, texts
from wsframework.chat import history
from wsframework.chat.history import PAGE_MESSAGES, HistoryStore
from wsframework.chat.messages import Draft, HistoryError, Message, Retention


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
    pass_days(store, clock, 20)
    say(store, "newer")
    forget_all(store)
    assert texts(store.newest("lobby", upto=9).messages) == ["old", "newer"]
    pass_days(store, clock, 11)
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
    pass_days(store, clock, 1_000)
    forget_all(store)
    assert texts(store.newest("lobby", upto=9).messages) == ["old"]
    store.close()


def test_who_missed_something_that_is_forgotten_is_told_and_others_are_not(
    store: HistoryStore, clock: Clock
) -> None:
    say(store, "one", "two", "three")
    pass_days(store, clock, 31)
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
    pass_days(store, clock, 31)
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
    pass_days(store, clock, 31)
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
    pass_days(store, clock, 31)
    forget_all(store)
    assert say(store, "three")[0].id == 3


@pytest.mark.parametrize("mistake", [{"days": 0}, {"messages": 0}, {"messages_per_room": 0}])
def test_a_retention_that_keeps_nothing_is_refused(mistake: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Retention(**mistake)


# Life


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
