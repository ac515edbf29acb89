"""Rooms and sessions that end at a process, in one of several."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from wsframework import LocalEngine, Rooms, Sessions
from wsframework.rooms.local import call_for_local_rooms
from wsframework.server.crowd import Phase
from wsframework.sessions.local import call_for_local_sessions
from wsframework.testing import connection_pair
from wsframework.workers.page import Page
from wsframework.workers.rooms import warn_of_local_rooms, warn_of_local_sessions


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.create(2)
    yield page
    page.close()
    call_for_local_rooms(None)
    call_for_local_sessions(None)


def serve(page: Page, slot: int) -> None:
    other = Page.attach(page.fd, slot)
    other.enter(Phase.SERVING)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING]


async def join_and_leave(rooms: Rooms, name: str) -> None:
    async with connection_pair() as (ws, _), rooms[name].join(ws):
        pass


async def test_the_first_room_in_one_of_several_workers_is_warned_of_once(
    page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_local_rooms(Page.attach(page.fd, 0))
    rooms = Rooms()
    await join_and_leave(rooms, "a")
    assert warnings(caplog) == [], "no other worker serves"
    serve(page, 1)
    for name in ("b", "c", "b"):
        await join_and_leave(rooms, name)
    await join_and_leave(Rooms(), "d")
    (warning,) = warnings(caplog)
    assert warning.startswith("rooms.one_process hint=")
    assert "run one worker" in warning


async def test_one_worker_warns_for_all_of_them(page: Page, caplog: pytest.LogCaptureFixture) -> None:
    for slot, other in ((0, 1), (1, 0)):
        warn_of_local_rooms(Page.attach(page.fd, slot))
        serve(page, other)
        await join_and_leave(Rooms(), "a")
    assert len(warnings(caplog)) == 1


async def test_the_first_session_in_one_of_several_workers_is_warned_of_once(
    page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_local_sessions(Page.attach(page.fd, 0))
    for others in (False, True, True):
        if others:
            serve(page, 1)
        async with connection_pair() as (ws, _), Sessions().open(ws, None, user=None):
            assert len(warnings(caplog)) == others
    (warning,) = warnings(caplog)
    assert warning.startswith("sessions.one_process hint=")
    assert "use a RedisSessionStore" in warning


async def test_a_process_alone_is_not_warned(page: Page, caplog: pytest.LogCaptureFixture) -> None:
    serve(page, 1)
    await join_and_leave(Rooms(), "a")
    async with connection_pair() as (ws, _), Sessions().open(ws, None, user=None):
        assert warnings(caplog) == []


async def test_rooms_that_are_meant_to_end_at_a_process_are_not_warned_of(
    page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_local_rooms(Page.attach(page.fd, 0))
    serve(page, 1)
    await join_and_leave(Rooms(engine=LocalEngine(warn=False)), "a")
    assert warnings(caplog) == []
    await join_and_leave(Rooms(), "b")
    assert len(warnings(caplog)) == 1
