"""Changes of a session's record that take time: several at once, and a session that is taken meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.sessions.stage import Stage, guest
from wsframework import (
    App,
    Connection,
    ConnectionClosed,
    LocalSessionStore,
    Rooms,
    Session,
    SessionClaim,
    Sessions,
    WrongThread,
)
from wsframework.testing import connection_pair, serve

pytestmark = pytest.mark.virtual_time


class Slow(LocalSessionStore):
    """Takes a second for each change."""

    async def save(self, claim: SessionClaim, body: bytes) -> None:
        await trio.sleep(1)
        await super().save(claim, body)

    async def confirm(self, claim: SessionClaim) -> None:
        await trio.sleep(1)
        await super().confirm(claim)

    async def end(self, claim: SessionClaim) -> None:
        await trio.sleep(1)
        await super().end(claim)


async def test_changes_at_once_are_made_one_after_the_other_and_none_is_lost() -> None:
    sessions, rooms = Sessions(store=Slow()), Rooms()
    async with connection_pair() as (ws, _), sessions.open(ws, None, user=1) as session:
        async with trio.open_nursery() as nursery:
            for name in ("a", "b", "c"):
                nursery.start_soon(session.enter, rooms[name])
            nursery.start_soon(session.save, 7)
        assert sorted(session.rooms) == ["a", "b", "c"]
        assert session.data == 7
        async with sessions.open(ws, session.token, user=1) as again:
            assert (sorted(again.rooms), again.data) == (["a", "b", "c"], 7)


@pytest.mark.parametrize("change", [lambda session: session.save(1), Session.confirm, Session.end])
async def test_a_change_during_which_the_session_is_taken_says_so(
    change: Callable[[Session], Awaitable[None]],
) -> None:
    sessions = Sessions(store=Slow())
    async with connection_pair() as (first, _), connection_pair() as (ws, _), connection_pair() as (new, _):
        async with sessions.open(first, None, user=1) as session:
            token = session.token
        async with sessions.open(ws, token, user=1) as session:
            raised: list[bool] = []

            async def make() -> None:
                with pytest.raises(ConnectionClosed, match="4409"):
                    await change(session)
                raised.append(True)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(make)
                await trio.sleep(0.5)
                async with sessions.open(new, session.token, user=1) as again:
                    assert again.resumed
                    await trio.sleep(1)
                    assert raised
                    await again.save("still here")


async def test_what_was_saved_does_not_change_with_the_object() -> None:
    sessions, mine = Sessions(), {"list": [1]}
    async with connection_pair() as (ws, _), sessions.open(ws, None, user=1) as session:
        await session.save(mine)
        mine["list"].append(2)
        assert session.data == {"list": [1]}


async def test_a_room_can_be_left_after_the_session_has_ended() -> None:
    sessions, rooms = Sessions(), Rooms()
    async with connection_pair() as (ws, _), sessions.open(ws, None, user=1) as session:
        async with session.join(rooms["tea"]):
            await session.end()
        assert not rooms["tea"].has_members
        with pytest.raises(RuntimeError, match="has ended"):
            await session.enter(rooms["tea"])


async def test_a_handler_that_returns_because_the_server_stops_keeps_the_rooms_of_its_client() -> None:
    sessions, rooms, app = Sessions(), Rooms(), App()
    tokens: list[str] = []

    @app.websocket("/")
    async def handle(ws: Connection) -> None:
        async with sessions.open(ws, None, user=1) as session, session.join(rooms["tea"]):
            tokens.append(session.token)
            await ws.send("ready")
            await ws.wait_draining()

    async with serve(app) as server, server.connect("/") as client:
        assert await client.receive() == "ready"
        server.stop()
        await client.wait_closed()
    async with connection_pair() as (ws, _), sessions.open(ws, tokens[0], user=1) as session:
        assert session.rooms == ("tea",)


async def test_rooms_are_joined_and_entered_in_the_servers_thread() -> None:
    sessions, rooms = Sessions(), Rooms()
    async with connection_pair() as (ws, _), sessions.open(ws, None, user=1) as session:
        for attempt in (session.join(rooms["tea"]).__aenter__, lambda: session.enter(rooms["tea"])):
            with pytest.raises(WrongThread, match=r"session\.join"):
                await trio.to_thread.run_sync(trio.run, attempt)
        assert session.rooms == ()


async def test_a_record_that_no_session_has_written_expires() -> None:
    stage = Stage()
    async with stage.serving() as server:
        async with guest(server) as ada:
            pass
        stage.store._records[ada.welcome["id"]].claim.body = b"[]"
        async with guest(server, ada.token), guest(server):
            assert len(stage.store) == 3
            await trio.sleep(121)
            async with guest(server):
                assert ada.welcome["id"] not in stage.store._records
