"""Functions that other threads post to a server: their order, their limit, and what goes wrong in them."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest
import trio

from wsframework.errors import PostRefused
from wsframework.server.posting import Posts


def in_a_thread(*calls: object) -> None:
    """Make calls in a thread of no event loop, and wait until it has ended: the event loop stands still."""
    thread = threading.Thread(target=lambda: [call() for call in calls if callable(call)])
    thread.start()
    thread.join()


def posts_of(most: int | None = None) -> tuple[Posts, trio.Event, list[KeyboardInterrupt]]:
    stopped, interrupts = trio.Event(), list[KeyboardInterrupt]()
    return Posts(most, stopped, interrupts.append), stopped, interrupts


async def test_posts_are_called_in_order_in_the_servers_thread() -> None:
    posts, _, _ = posts_of()
    seen: list[tuple[int, int]] = []

    def see(number: int) -> None:
        seen.append((number, threading.get_ident()))

    in_a_thread(*(lambda number=number: posts.add(see, number) for number in range(5000)))
    assert seen == []
    await trio.testing.wait_all_tasks_blocked()
    assert seen == [(number, threading.get_ident()) for number in range(5000)]


async def test_the_limit_is_for_those_that_wait() -> None:
    posts, _, _ = posts_of(2)
    seen: list[int] = []
    posts.add(seen.append, 1)
    posts.add(seen.append, 2)
    with pytest.raises(PostRefused, match="2 functions wait already") as refused:
        posts.add(seen.append, 3)
    assert not refused.value.ended
    await trio.testing.wait_all_tasks_blocked()
    posts.add(seen.append, 4)
    await trio.testing.wait_all_tasks_blocked()
    assert seen == [1, 2, 4]


async def test_what_one_raises_is_one_record_and_the_next_is_called(caplog: pytest.LogCaptureFixture) -> None:
    posts, _, interrupts = posts_of()
    seen: list[int] = []

    def fail() -> None:
        raise SystemExit("wrong")

    posts.add(fail)
    posts.add(seen.append, 1)
    await trio.testing.wait_all_tasks_blocked()
    (entry,) = caplog.records
    assert entry.__dict__["event"] == "post.failed"
    assert "SystemExit('wrong')" in entry.getMessage()
    assert seen == [1]
    assert interrupts == []


async def test_a_keyboard_interrupt_stops_the_server(caplog: pytest.LogCaptureFixture) -> None:
    posts, _, interrupts = posts_of()

    def interrupt() -> None:
        raise KeyboardInterrupt

    posts.add(interrupt)
    await trio.testing.wait_all_tasks_blocked()
    assert len(interrupts) == 1
    assert caplog.records == []


async def test_async_functions_are_refused_and_coroutines_are_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    posts, _, _ = posts_of()

    async def wait() -> None:
        raise AssertionError("it is never called")

    with pytest.raises(TypeError, match="plain functions"):
        posts.add(wait)
    posts.add(lambda: wait())
    await trio.testing.wait_all_tasks_blocked()
    assert "returned a coroutine" in caplog.text


async def test_the_context_is_the_posters() -> None:
    posts, _, _ = posts_of()
    color = ContextVar("color", default="none")
    seen: list[str] = []

    def post() -> None:
        color.set("red")
        posts.add(lambda: seen.append(color.get()))

    in_a_thread(post)
    await trio.testing.wait_all_tasks_blocked()
    assert seen == ["red"]
    assert color.get() == "none"


async def test_many_posts_leave_the_other_tasks_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsframework.server.posting._SECONDS", 0)
    posts, _, _ = posts_of()
    seen: list[int] = []
    for number in range(100):
        posts.add(seen.append, number)
    while not seen:
        await trio.lowlevel.checkpoint()
    assert len(seen) < 100
    await trio.testing.wait_all_tasks_blocked()
    assert seen == list(range(100))


async def test_after_the_server_it_refuses_but_what_waits_is_called() -> None:
    posts, stopped, _ = posts_of()
    seen: list[int] = []
    posts.add(seen.append, 1)
    stopped.set()
    with pytest.raises(PostRefused, match="the server has ended") as refused:
        posts.add(seen.append, 2)
    assert refused.value.ended
    await trio.testing.wait_all_tasks_blocked()
    assert seen == [1]


def test_what_waits_at_the_end_of_the_run_is_called_and_more_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wsframework.server.posting._SECONDS", 0)
    seen: list[int] = []

    async def run() -> Posts:
        posts, _, _ = posts_of()
        for number in range(20):
            posts.add(seen.append, number)
        return posts

    posts = trio.run(run)
    assert seen == list(range(20))
    with pytest.raises(PostRefused, match="run has ended") as refused:
        posts.add(seen.append, 20)
    assert refused.value.ended
