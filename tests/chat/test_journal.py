from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from wsframework import ConfigurationError
from wsframework.chat.history import HistoryStore
from wsframework.chat.journal import Journal
from wsframework.chat.messages import Draft, HistoryError, Message


class Slow(HistoryStore):
    """A store whose transactions end when the test says so."""

    def __init__(self) -> None:
        super().__init__(None)
        self.batches: list[list[str]] = []
        self.broken = False
        self.may_commit = threading.Semaphore(0)

    def append(self, drafts: list[Draft]) -> list[tuple[Message, bool]]:  # type: ignore[override]
        self.batches.append([draft.text for draft in drafts])
        assert self.may_commit.acquire(timeout=30)
        if self.broken:
            raise HistoryError("the disk is full")
        return super().append(drafts)


@asynccontextmanager
async def running(
    store: HistoryStore, published: list[tuple[str, list[str]]] | None = None
) -> AsyncIterator[Journal]:
    def publish(room: str, messages: list[Message]) -> None:
        if published is not None:
            published.append((room, [message.text for message in messages]))

    journal = Journal(store, publish)
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        try:
            yield journal
        finally:
            journal.stop()


async def until(condition: Callable[[], object]) -> None:
    """Wait, in real time whatever Trio's clock says, because threads are at work."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await trio.to_thread.run_sync(time.sleep, 0.002)


async def test_while_one_transaction_is_under_way_the_next_batch_gathers() -> None:
    store = Slow()
    published: list[tuple[str, list[str]]] = []
    done: list[str] = []

    async def say(text: str) -> None:
        message = await journal.append(Draft("lobby", "Ada", text))
        assert message.text == text
        done.append(text)

    async with running(store, published) as journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, "first")
            await until(lambda: store.batches)
            for number in range(10):
                nursery.start_soon(say, f"{number}")
                await trio.lowlevel.checkpoint()
            assert (published, done) == ([], [])  # nothing is told or acknowledged before it is safe
            store.may_commit.release()
            await until(lambda: len(store.batches) == 2)
            assert (published, done) == ([("lobby", ["first"])], ["first"])
            store.may_commit.release()
        assert store.batches == [["first"], [f"{number}" for number in range(10)]]
        assert published[1] == ("lobby", [f"{number}" for number in range(10)])
        assert journal.last_id == 11


async def test_a_batch_is_published_room_by_room_in_the_order_of_ids() -> None:
    store = Slow()
    published: list[tuple[str, list[str]]] = []
    async with running(store, published) as journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.append, Draft("a", "Ada", "0"))
            await until(lambda: store.batches)
            for number in range(1, 7):
                nursery.start_soon(journal.append, Draft("ab"[number % 2], "Ada", f"{number}"))
            await trio.testing.wait_all_tasks_blocked()
            store.may_commit.release(2)
        told = {
            room: [text for batch_room, batch in published[1:] if batch_room == room for text in batch]
            for room in "ab"
        }
        assert sorted(told["a"] + told["b"]) == [f"{number}" for number in range(1, 7)]
        page = await journal.read(lambda opened: opened.newest("b", upto=journal.last_id))
        assert told["b"] == [message.text for message in page.messages]


async def test_a_batch_that_cannot_be_stored_is_refused_and_the_next_one_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Slow()
    published: list[tuple[str, list[str]]] = []
    async with running(store, published) as journal:
        store.broken = True
        store.may_commit.release()
        with pytest.raises(HistoryError, match="the disk is full"):
            await journal.append(Draft("lobby", "Ada", "lost"))
        assert "the disk is full; 1 messages were refused" in caplog.text
        store.broken = False
        store.may_commit.release()
        await journal.append(Draft("lobby", "Ada", "kept"))
        assert published == [("lobby", ["kept"])]


async def test_a_message_that_was_there_already_is_not_published_again() -> None:
    published: list[tuple[str, list[str]]] = []
    async with running(HistoryStore(None), published) as journal:
        draft = Draft("lobby", "Ada", "once", key="k")
        assert await journal.append(draft) == await journal.append(draft)
        assert published == [("lobby", ["once"])]


async def test_whoever_waits_may_be_cancelled_and_the_message_goes_on() -> None:
    store = Slow()
    published: list[tuple[str, list[str]]] = []
    async with running(store, published) as journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.append, Draft("lobby", "Ada", "on its way"))
            await until(lambda: store.batches)
            nursery.cancel_scope.cancel()
        store.may_commit.release()
        await until(lambda: published)
        assert published == [("lobby", ["on its way"])]


async def test_stopping_writes_what_is_queued_and_takes_nothing_more() -> None:
    store = Slow()
    published: list[tuple[str, list[str]]] = []
    async with trio.open_nursery() as appending, running(store, published) as journal:
        for text in ("one", "two"):
            appending.start_soon(journal.append, Draft("lobby", "Ada", text))
        await until(lambda: store.batches)
        journal.stop()
        with pytest.raises(HistoryError, match="closing"):
            await journal.append(Draft("lobby", "Ada", "too late"))
        store.may_commit.release(2)
    assert sorted(text for _, batch in published for text in batch) == ["one", "two"]


async def test_cancelling_what_runs_the_journal_does_not_stop_it() -> None:
    async with trio.open_nursery() as nursery:
        journal = Journal(HistoryStore(None), lambda room, messages: None)
        await nursery.start(journal.run)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            # A handler that has its grace after the server was told to stop.
            assert (await journal.append(Draft("lobby", "Ada", "goodbye"))).id == 1
            journal.stop()


async def test_a_recording_and_what_was_before_it_are_everything_once() -> None:
    async with running(HistoryStore(None)) as journal:
        await journal.append(Draft("lobby", "Ada", "before"))
        with journal.recording("lobby") as recording:
            await journal.append(Draft("lobby", "Ada", "meanwhile"))
            await journal.append(Draft("tea", "Ada", "elsewhere"))
            page = await journal.read(lambda store: store.newest("lobby", upto=recording.upto))
            assert [message.text for message in page.messages] == ["before"]
            assert [message.text for message in recording.messages] == ["meanwhile"]
        await journal.append(Draft("lobby", "Ada", "after"))
        assert [message.text for message in recording.messages] == ["meanwhile"]


def reached(pruned: list[bool], count: int) -> bool:
    return len(pruned) == count


def count_prunes(store: HistoryStore, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that grows with every call of the store's `prune`."""
    pruned: list[bool] = []
    prune = store.prune

    def count() -> bool:
        pruned.append(prune())
        return pruned[-1]

    monkeypatch.setattr(store, "prune", count)
    return pruned


async def test_forgetting_happens_while_writing_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsframework.chat.history._PRUNE_EVERY_MESSAGES", 10)
    store = HistoryStore(None)
    pruned = count_prunes(store, monkeypatch)
    async with running(store) as journal:
        opened = len(pruned)
        async with trio.open_nursery() as nursery:
            for _ in range(25):
                nursery.start_soon(journal.append, Draft("lobby", "Ada", "x"))
        await until(lambda: len(pruned) > opened)


async def test_forgetting_by_age_happens_every_hour(
    monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    store = HistoryStore(None)
    pruned = count_prunes(store, monkeypatch)
    async with running(store):
        opened = len(pruned)
        for hour in (1, 2, 3):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(3599)
            await trio.testing.wait_all_tasks_blocked()
            assert len(pruned) == opened + hour - 1
            mock_clock.jump(1)
            await until(partial(reached, pruned, opened + hour))


async def test_a_history_that_cannot_forget_is_logged_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = HistoryStore(None)

    def fail() -> bool:
        raise HistoryError("cannot forget")

    async with running(store) as journal:
        monkeypatch.setattr(store, "prune", fail)
        monkeypatch.setattr("wsframework.chat.history._PRUNE_EVERY_MESSAGES", 1)
        await journal.append(Draft("lobby", "Ada", "one"))
        await until(lambda: "cannot forget" in caplog.text)
        assert (await journal.append(Draft("lobby", "Ada", "two"))).id == 2


async def test_what_cannot_be_read_is_logged_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    store = HistoryStore(None)
    async with running(store) as journal:
        assert isinstance(store._writer, sqlite3.Connection)
        store._writer.execute("DROP TABLE messages")
        with pytest.raises(HistoryError):
            await journal.read(lambda opened: opened.newest("lobby", upto=1))
        assert "cannot be read" in caplog.text


async def test_a_history_that_cannot_be_opened_is_told_by_start(tmp_path: Path) -> None:
    journal = Journal(HistoryStore(tmp_path / "no" / "chat.db"), lambda room, messages: None)
    async with trio.open_nursery() as nursery:
        with pytest.raises(ConfigurationError):
            await nursery.start(journal.run)


async def test_a_journal_can_run_again(tmp_path: Path) -> None:
    journal = Journal(HistoryStore(tmp_path / "chat.db"), lambda room, messages: None)
    for number in (1, 2):
        async with trio.open_nursery() as nursery:
            await nursery.start(journal.run)
            assert (await journal.append(Draft("lobby", "Ada", "x"))).id == number
            journal.stop()
