"""When a session is recovered: the client has lost nothing."""

from __future__ import annotations

import pytest
import trio

from tests.sessions.stage import Stage, guest, seen
from wsframework import History, Rooms, Sessions, WrongThread
from wsframework.testing import connection_pair

pytestmark = pytest.mark.virtual_time


async def test_a_room_that_has_lost_messages_is_not_recovered() -> None:
    stage = Stage()
    async with stage.serving() as server, guest(server, None, "Bob", tea=None, milk=None) as bob:
        async with guest(server, tea=None, milk=None) as ada:
            ((_, tea),) = await ada.ask(say=["tea", "hello"])
            ((_, milk),) = await ada.ask(say=["milk", "hello"])
        for number in range(6):  # one more than the history
            await bob.ask(say=["tea", f"{number}"])
        async with guest(server, ada.token, tea=tea, milk=milk) as again:
            assert seen(again) == (True, False, {"n": 0}, ["tea", "milk"])
            ((_, newest),) = await again.ask(say=["tea", "back"])
        # It is another resume, and by now the client has what it needs.
        async with guest(server, again.token, tea=newest, milk=milk) as third:
            assert third.welcome["recovered"]


@pytest.mark.parametrize(
    "rooms",
    [{}, {"tea": None}, {"milk": None}, {"tea": ""}],
    ids=["none", "no position", "another", "no such"],
)
async def test_a_room_that_the_client_does_not_account_for_is_not_recovered(
    rooms: dict[str, str | None],
) -> None:
    async with Stage().serving() as server:
        async with guest(server, tea=None) as ada:
            await ada.ask(say=["tea", "hello"])
        async with guest(server, ada.token, **rooms) as again:
            assert again.welcome["resumed"]
            assert not again.welcome["recovered"]


async def test_a_new_room_has_lost_nothing() -> None:
    async with Stage().serving() as server:
        async with guest(server) as ada:
            pass
        async with guest(server, ada.token, tea=None) as again:
            assert seen(again) == (True, True, {"n": 0}, ["tea"])


async def test_a_room_that_was_left_is_no_part_of_the_session() -> None:
    async with Stage().serving() as server:
        async with guest(server) as ada:
            assert await ada.ask(visit="tea") == [["tea"]]
        async with guest(server, ada.token) as again:
            assert seen(again) == (True, True, {"n": 0}, [])


async def test_rooms_that_a_message_enters_and_leaves_are_in_the_record_like_those_of_a_block() -> None:
    sessions, rooms = Sessions(), Rooms(history=History())
    async with connection_pair() as (ws, _), sessions.open(ws, None, user=1) as session:
        tea, milk = [await session.enter(rooms[name], name) for name in ("tea", "milk")]
        assert (session.rooms, milk.data) == (("tea", "milk"), "milk")
        await session.leave(milk)
        await session.leave(milk)
        assert session.rooms == ("tea",)
        assert rooms["tea"].members == (tea,)
        assert not rooms["milk"].has_members
        token, position = session.token, tea.position
    async with connection_pair() as (ws, _), sessions.open(ws, token, user=1) as session:
        assert not session.recovered
        await session.enter(rooms["tea"], after=position)
        assert session.recovered


async def test_a_room_that_the_client_may_enter_no_more_can_be_left_without_joining_it() -> None:
    sessions, rooms = Sessions(), Rooms(history=History())
    async with connection_pair() as (ws, _), sessions.open(ws, None, user=1) as session:
        tea = await session.enter(rooms["tea"])
        await session.enter(rooms["milk"])
        token, position = session.token, tea.position
    for recovered in (False, True):
        async with connection_pair() as (ws, _), sessions.open(ws, token, user=1) as session:
            await session.enter(rooms["tea"], after=position)
            assert session.recovered is recovered
            if not recovered:
                await session.leave(rooms["milk"])
                assert session.recovered
            assert session.rooms == ("tea",)
            token = session.token
            with pytest.raises(WrongThread, match=r"session\.leave"):
                await trio.to_thread.run_sync(trio.run, session.leave, rooms["tea"])


async def test_the_room_of_a_user_and_one_of_the_same_name_are_two_rooms() -> None:
    sessions, rooms = Sessions(), Rooms(history=History())
    async with connection_pair() as (ws, _), sessions.open(ws, None, user=7) as session:
        async with session.join(rooms.user(7)) as own, session.join(rooms["7"]), session.join(rooms["\0x"]):
            assert session.rooms == ("7", "\0x")
            position = own.position
            await ws.aclose()
        token = session.token
    async with connection_pair() as (ws, _), sessions.open(ws, token, user=7) as session:
        assert session.rooms == ("7", "\0x")
        for name in session.rooms:
            await session.enter(rooms[name], after=position)
        assert not session.recovered
        await session.enter(rooms.user(7), after=position)
        assert session.recovered


@pytest.mark.parametrize("how", ["disconnect", "exception", "cancelled"])
async def test_a_membership_that_ends_with_its_connection_stays_in_the_record(how: str) -> None:
    sessions, rooms, token = Sessions(), Rooms(), ""
    with trio.CancelScope() as scope:
        try:
            async with connection_pair() as (ws, client), sessions.open(ws, None, user=1) as session:
                token = session.token
                async with session.join(rooms["tea"]):
                    if how == "disconnect":
                        await client.disconnect()
                        await ws.wait_closed()
                    elif how == "exception":
                        raise ValueError
                    else:
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
        except* ValueError:
            pass
    async with connection_pair() as (ws, _), sessions.open(ws, token, user=1) as session:
        assert session.rooms == ("tea",)
        assert not session.recovered


async def test_a_program_that_stops_keeps_the_rooms_of_its_clients() -> None:
    stage = Stage()
    async with stage.serving() as server, guest(server, None, "Ada", tea=None) as ada:
        server.stop()
        await ada.client.wait_closed()
    async with stage.serving() as server, guest(server, ada.token) as again:
        assert again.welcome["rooms"] == ["tea"]
