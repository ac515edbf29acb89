"""What a session is to a handler and its client."""

from __future__ import annotations

import gc
import json
import weakref

import pytest
import trio
from trio_websocket import ConnectionClosed as ClosedByServer
from trio_websocket import ConnectionRejected

from tests.sessions.stage import Guest, Stage, cancel_resuming_everywhere, guest, hello, seen
from wsframework import (
    Close,
    ConnectionClosed,
    LocalSessionStore,
    Rooms,
    Session,
    SessionClaim,
    Sessions,
    SessionUnavailable,
    TooManyRooms,
    WrongThread,
)
from wsframework.testing import Client, cancel_everywhere, connection_pair

pytestmark = pytest.mark.virtual_time


async def test_a_client_that_comes_back_with_its_token_has_its_data_and_rooms() -> None:
    stage = Stage()
    async with stage.serving() as server:
        async with guest(server, tea=None) as ada:
            assert seen(ada) == (False, False, {"n": 0}, ["tea"])
            await ada.ask(save={"n": 1, "text": "ü"})
            ((_, position),) = await ada.ask(say=["tea", "hello"])
        async with guest(server, ada.token, tea=position) as again:
            assert seen(again) == (True, True, {"n": 1, "text": "ü"}, ["tea"])
            assert again.welcome["id"] == ada.welcome["id"]
            assert again.token != ada.token


async def test_who_was_away_gets_what_was_said_and_then_what_is_said() -> None:
    stage = Stage()
    async with stage.serving() as server, guest(server, None, "Bob", tea=None) as bob:
        async with guest(server, tea=None) as ada:
            ((_, position),) = await ada.ask(say=["tea", "hello"])
        for number in range(3):
            await bob.ask(say=["tea", f"{number}"])
        async with guest(server, ada.token, tea=position) as ada:
            assert [message for message, _ in ada.messages] == ["0", "1", "2"]
            assert ada.welcome["recovered"]
            assert [message for message, _ in await ada.ask(say=["tea", "3"])] == ["3"]


@pytest.mark.parametrize("token", [None, "", "x", 7, {"a": 1}, f"{'x' * 22}.{'y' * 22}"])
async def test_without_the_token_of_a_session_a_new_one_begins(token: object) -> None:
    async with Stage().serving() as server, guest(server, token) as ada:
        assert seen(ada) == (False, False, {"n": 0}, [])


async def test_the_token_of_another_user_resumes_nothing_and_disturbs_nobody() -> None:
    async with Stage().serving() as server, guest(server) as ada:
        await ada.ask(save={"secret": 1})
        async with guest(server, ada.token, "Bob") as bob:
            assert seen(bob) == (False, False, {"n": 0}, [])
            assert bob.welcome["id"] != ada.welcome["id"]
        await ada.ask(save={"secret": 2})
        async with guest(server, ada.token) as again:
            assert seen(again) == (True, True, {"secret": 2}, [])


async def test_guards_and_given_functions_are_called_for_each_connection() -> None:
    stage = Stage()
    async with stage.serving() as server:
        async with guest(server) as ada:
            pass
        stage.banned.add("Ada")
        with pytest.RaisesGroup(ConnectionRejected, flatten_subgroups=True, allow_unwrapped=True):
            async with guest(server, ada.token):
                pass
        stage.banned.clear()
        async with guest(server, ada.token) as again:
            assert again.welcome["resumed"]


# Taking over


async def test_the_connection_that_had_the_session_is_closed_with_4409() -> None:
    async with Stage().serving() as server, guest(server) as old, guest(server, old.token) as new:
        closed = await old.client.wait_closed()
        assert (closed.code, closed.reason) == (4409, "another connection has resumed the session")
        await new.ask(save={"n": 2})


async def test_a_connection_whose_client_is_gone_without_a_word_is_closed_too() -> None:
    """Its handler ends at once, and what it still writes is refused."""
    sessions, ended = Sessions(), trio.Event()
    async with connection_pair() as (old, client), connection_pair() as (new, _):

        async def handle() -> None:
            async with sessions.open(old, None, user=1) as session:
                tokens.append(session.token)
                opened.set()
                with pytest.raises(ConnectionClosed):
                    await old.receive()
                with pytest.raises(ConnectionClosed, match="4409"):
                    await session.save("late")
            ended.set()

        tokens: list[str] = []
        opened = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle)
            await opened.wait()
            client.vanish()
            began = trio.current_time()
            async with sessions.open(new, tokens[0], user=1) as session:
                assert session.resumed
                await ended.wait()
                assert trio.current_time() == began
                assert session.data is None


async def test_of_two_that_resume_at_once_one_stays() -> None:
    stage = Stage()
    async with stage.serving() as server:
        async with guest(server) as ada:
            pass
        async with server.connect("/") as one, server.connect("/") as two:
            staying: list[Guest] = []
            codes: list[int] = []

            async def resume(client: Client) -> None:
                try:
                    found = await hello(client, ada.token)
                    assert found.welcome["resumed"]
                    await trio.sleep(1)
                    await found.ask(save={"n": 7})
                except ClosedByServer as closed:
                    codes.append(0 if closed.reason is None else closed.reason.code)
                else:
                    staying.append(found)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(resume, one)
                nursery.start_soon(resume, two)
            (stays,) = staying
            assert codes == [4409]
        async with guest(server, stays.token) as again:
            assert again.welcome["data"] == {"n": 7}


async def test_a_connection_that_has_ended_takes_nothing() -> None:
    """A client that gave up one attempt may already have the session with its next one."""
    sessions = Sessions()
    async with (
        connection_pair() as (one, _),
        connection_pair() as (two, client),
        sessions.open(one, None, user=1) as session,
    ):
        await client.disconnect()
        await two.wait_closed()
        with pytest.raises(ConnectionClosed):
            async with sessions.open(two, session.token, user=1):
                pass
        await session.save(1)


async def test_a_session_that_was_left_does_not_close_its_connection() -> None:
    sessions = Sessions()
    async with connection_pair() as (one, _), connection_pair() as (two, _):
        async with sessions.open(one, None, user=1) as session:
            token = session.token
        async with sessions.open(two, token, user=1) as again:
            assert again.resumed
        assert one.closed is None
        with pytest.raises(RuntimeError, match="the session has ended, or its block was left"):
            await session.save(1)


# Tokens


async def test_a_token_that_was_used_is_good_for_another_try_until_the_new_one_is_confirmed() -> None:
    """The answer with the new one may be lost with its connection."""
    async with Stage().serving() as server:
        async with guest(server) as ada:
            pass
        for _ in range(2):
            async with guest(server, ada.token) as again:
                assert again.welcome["resumed"]
        async with guest(server, ada.token) as again:
            await again.ask(confirm=True)
        async with guest(server, ada.token) as replayed:
            assert not replayed.welcome["resumed"]
            assert replayed.welcome["id"] != ada.welcome["id"]
        async with guest(server, again.token) as last:
            assert last.welcome["resumed"]


async def test_only_the_first_confirmation_asks_the_store() -> None:
    confirmed: list[str] = []

    class Counting(LocalSessionStore):
        async def confirm(self, claim: SessionClaim) -> None:
            confirmed.append(claim.id)
            await super().confirm(claim)

    async with Stage(Sessions(store=Counting())).serving() as server:
        async with guest(server) as ada:
            await ada.ask(confirm=True)
        assert not confirmed
        async with guest(server, ada.token) as again:
            for _ in range(3):
                await again.ask(confirm=True)
        assert len(confirmed) == 1


@pytest.mark.parametrize(("seconds", "resumed"), [(29, True), (31, False)])
async def test_without_a_confirmation_it_is_good_for_half_a_minute(seconds: float, resumed: bool) -> None:
    async with Stage().serving() as server:
        async with guest(server) as ada, guest(server, ada.token):
            pass
        await trio.sleep(seconds)
        async with guest(server, ada.token) as again:
            assert again.welcome["resumed"] is resumed


@pytest.mark.parametrize(("seconds", "resumed"), [(119, True), (121, False)])
async def test_a_session_stays_for_two_minutes_after_its_connection(seconds: float, resumed: bool) -> None:
    async with Stage().serving() as server:
        async with guest(server) as ada:
            await trio.sleep(1000)
            await ada.ask(save={"n": 1})
        await trio.sleep(seconds)
        async with guest(server, ada.token) as again:
            assert again.welcome["resumed"] is resumed
            assert again.welcome["recovered"] is resumed


async def test_a_session_that_was_ended_cannot_be_resumed() -> None:
    async with Stage().serving() as server:
        async with guest(server) as ada:
            await ada.ask(end=True)
        async with guest(server, ada.token) as again:
            assert not again.welcome["resumed"]


# Bounds and mistakes


async def test_a_record_has_bounds_and_what_exceeds_them_changes_nothing() -> None:
    sessions, rooms = Sessions(record_bytes=100, rooms=2), Rooms()
    async with connection_pair() as (ws, _), sessions.open(ws, None, user=1, data="x") as session:
        with pytest.raises(ValueError, match="may have 100"):
            await session.save("x" * 100)
        async with session.join(rooms["tea"]), session.join(rooms["milk"]):
            with pytest.raises(TooManyRooms, match=r"1008 .*2 rooms"):
                await session.enter(rooms["coffee"])
            assert session.rooms == ("tea", "milk")
        with pytest.raises(Close, match=r"1008 .*no place for another room"):
            async with session.join(rooms["x" * 100]):
                pass
        with pytest.raises(TypeError, match="data of a session are JSON"):
            await session.save(object())
        assert [session.data, *session.rooms] == ["x"]


async def test_data_are_a_copy_until_they_are_saved() -> None:
    sessions = Sessions()
    async with connection_pair() as (ws, _):
        mine = {"list": [1]}
        async with sessions.open(ws, None, user=1, data=mine) as session:
            mine["list"].append(2)
            assert session.data == {"list": [1]}
            session.data["list"].append(3)
            await session.save(session.data)
            token = session.token
        async with sessions.open(ws, token, user=1, data=mine) as session:
            assert session.data == {"list": [1, 3]}


async def test_what_is_saved_at_once_by_several_tasks_is_one_after_the_other() -> None:
    sessions, rooms = Sessions(), Rooms()
    async with connection_pair() as (ws, _), sessions.open(ws, None, user=1) as session:

        async def visit(number: int) -> None:
            async with session.join(rooms[f"{number}"]):
                await session.save(number)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(visit, number)
        assert session.rooms == ()
        assert session.data in range(5)
        token = session.token
        async with sessions.open(ws, token, user=1) as again:
            assert (again.data, again.rooms) == (session.data, ())


async def test_a_session_is_opened_once_and_in_its_own_thread() -> None:
    sessions = Sessions()
    async with connection_pair() as (ws, _):
        opening = sessions.open(ws, None, user=1)
        assert isinstance(opening, Session)
        with pytest.raises(RuntimeError, match="the session is not open"):
            _ = opening.token
        assert "not open" in repr(opening)
        with pytest.raises(WrongThread, match=r"sessions\.open"):
            await trio.to_thread.run_sync(trio.run, opening.__aenter__)
        async with opening as session:
            assert session.id in repr(session)
            assert session.token not in repr(session)
            with pytest.raises(RuntimeError, match="opened once"):
                await opening.__aenter__()
            for verb in (session.confirm, session.end):
                with pytest.raises(WrongThread, match=f"session.{verb.__name__}"):
                    await trio.to_thread.run_sync(trio.run, verb)
            with pytest.raises(WrongThread, match=r"session\.save"):
                await trio.to_thread.run_sync(trio.run, session.save, 1)


class Failing(LocalSessionStore):
    """Is away when the test says so."""

    away = False

    async def create(self, claim: SessionClaim) -> None:
        self._fail()
        await super().create(claim)

    async def save(self, claim: SessionClaim, body: bytes) -> None:
        self._fail()
        await super().save(claim, body)

    def _fail(self) -> None:
        if self.away:
            raise SessionUnavailable("the database is away")


async def test_a_store_that_is_away_closes_with_1013_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    store = Failing()
    stage = Stage(Sessions(store=store))
    async with stage.serving() as server, guest(server) as ada:
        store.away = True
        await ada.client.send(json.dumps({"save": 1}))
        assert (await ada.client.wait_closed()).code == 1013
        async with server.connect("/") as other:
            await other.send("{}")
            closed = await other.wait_closed()
            assert (closed.code, closed.reason) == (1013, "try again later")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [line.split()[0] for line in warnings] == ["session.unavailable"] * 2
    assert "the database is away" in warnings[0]


async def test_a_record_that_no_session_has_written_begins_a_new_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage()
    async with stage.serving() as server:
        async with guest(server) as ada:
            pass
        stage.store._records[ada.welcome["id"]].claim.body = b"[]"
        async with guest(server, ada.token) as again:
            assert seen(again) == (False, False, {"n": 0}, [])
    assert "session.malformed" in caplog.text


async def test_a_record_does_not_keep_the_connection_alive() -> None:
    sessions = Sessions()
    async with connection_pair() as (ws, _):
        async with sessions.open(ws, None, user=1) as session:
            token = session.token
        kept = weakref.ref(session)
        del session
        gc.collect()
        assert kept() is None
        async with sessions.open(ws, token, user=1) as again:
            assert again.resumed


# Cancellation


async def test_wherever_opening_and_writing_are_cancelled_the_session_can_be_resumed() -> None:
    async with connection_pair() as (ws, _):
        await cancel_resuming_everywhere(Sessions(), Rooms(), ws)


async def test_a_cancelled_end_has_ended_it_or_not() -> None:
    sessions = Sessions()
    async with connection_pair() as (ws, _):

        async def use() -> None:
            async with sessions.open(ws, None, user=1) as session:
                await session.end()
                with pytest.raises(RuntimeError, match="has ended"):
                    await session.save(1)

        assert (await cancel_everywhere(use)).points
