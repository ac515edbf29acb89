"""How connections end, who learns of it, and what is left afterwards: nothing."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
import trio
import trio_websocket

from tests.contract.hosts import TIMEOUTS, Host, new_app
from tests.contract.lending import lend, setting
from wsframework import App, Close, CloseFrame, Connection, ConnectionClosed, Limits, Timeouts

GRACE = TIMEOUTS.disconnect_grace


# What the handler's end means


def only_crash(caplog: pytest.LogCaptureFixture) -> BaseException | None:
    [logged] = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert logged.exc_info is not None
    return logged.exc_info[1]


async def test_a_handler_that_returns_closes_with_1000(host: Host) -> None:
    app = new_app()

    @app.websocket("/")
    async def return_at_once(ws: Connection) -> None:
        await ws.send("last words")

    async with host.serve(app) as served, served.connect() as client:
        assert await client.receive() == "last words"
        assert await client.wait_closed() == CloseFrame(1000)


async def test_close_raised_by_a_handler_closes_with_its_code_and_reason(host: Host) -> None:
    app = new_app()

    @app.websocket("/")
    async def close(ws: Connection) -> None:
        raise Close(4000, "x")

    async with host.serve(app) as served, served.connect() as client:
        assert await client.wait_closed() == CloseFrame(4000, "x")


async def test_aclose_closes_with_its_code_and_reason(host: Host) -> None:
    async with lend(host) as (ws, client):
        await ws.aclose(4001, "grüße")
        assert await client.wait_closed() == CloseFrame(4001, "grüße")
        assert ws.closed is not None
        assert ws.closed.sent == CloseFrame(4001, "grüße")
        assert ws.closed.sent_first is True


async def test_a_crash_closes_with_1011_is_logged_once_and_touches_no_neighbour(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    app = new_app()

    @app.websocket("/")
    async def crash(ws: Connection) -> None:
        async for message in ws:
            if message == "crash":
                raise ZeroDivisionError("secret")
            await ws.send(message)

    async with host.serve(app) as served, served.connect() as neighbour:
        async with served.connect() as client:
            await client.send("crash")
            closed = await client.wait_closed()
        assert closed.code == 1011
        assert "secret" not in closed.reason
        await neighbour.send("still here")
        assert await neighbour.receive() == "still here"
        async with served.connect() as newcomer:
            await newcomer.send("new")
            assert await newcomer.receive() == "new"
    assert isinstance(only_crash(caplog), ZeroDivisionError)


async def test_a_crash_in_a_task_of_the_connection_closes_with_1011(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    app = new_app()
    ended: list[str] = []

    async def crash() -> None:
        raise ZeroDivisionError

    @app.websocket("/")
    async def start_it(ws: Connection) -> None:
        ws.nursery.start_soon(crash)
        try:
            await ws.receive()
        finally:
            ended.append("handler")

    async with host.serve(app) as served, served.connect() as client:
        assert (await client.wait_closed()).code == 1011
    assert ended == ["handler"]
    assert isinstance(only_crash(caplog), ZeroDivisionError)  # and no group


async def test_connection_closed_that_escapes_is_a_normal_end_and_silent(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    app = new_app()
    ended = trio.Event()

    @app.websocket("/")
    async def wait(ws: Connection) -> None:
        with setting(ended):
            while True:
                await ws.receive()

    async with host.serve(app) as served:
        async with served.connect() as client:
            await client.aclose(4002)
        with trio.fail_after(30):
            await ended.wait()
    assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]


# What the handler learns


async def test_the_handler_sees_the_peers_code_and_reason(host: Host) -> None:
    async with lend(host) as (ws, client):
        await client.aclose(4003, "tschüß")
        with pytest.raises(ConnectionClosed) as caught:
            await ws.receive()
    error = caught.value
    assert (error.code, error.closed.reason) == (4003, "tschüß")
    assert error.closed.received == CloseFrame(4003, "tschüß")
    assert error.closed.sent_first is False
    assert error.closed.clean


async def test_the_handler_sees_that_the_peer_left_without_a_close_frame(host: Host) -> None:
    async with lend(host) as (ws, client):
        await client.disconnect()
        with pytest.raises(ConnectionClosed) as caught, trio.fail_after(30):
            await ws.receive()
    assert caught.value.code == 1006
    assert caught.value.closed.received is None
    assert caught.value.closed.sent_first is None


async def test_the_handler_sees_that_the_connection_was_reset(host: Host) -> None:
    async with lend(host) as (ws, client):
        await client.reset()
        with pytest.raises(ConnectionClosed) as caught, trio.fail_after(30):
            await ws.receive()
    assert caught.value.code == 1006


async def test_every_operation_after_the_end_raises_what_trio_websockets_users_catch(host: Host) -> None:
    async with lend(host) as (ws, client):
        await client.aclose(4004)
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await ws.receive()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 4004
        with pytest.raises(trio_websocket.ConnectionClosed):
            await ws.send("too late")
        with pytest.raises(trio_websocket.ConnectionClosed):
            await ws.ping()
        with pytest.raises(trio_websocket.ConnectionClosed):
            ws.send_nowait("too late")
        assert [message async for message in ws] == []


async def test_unread_messages_are_received_before_the_end(host: Host) -> None:
    async with lend(host) as (ws, client):
        for number in range(10):
            await client.send(str(number))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose, 4005)
            await trio.sleep(0.05)  # the Close frame is there, and ten messages before it
            assert [message async for message in ws] == [str(number) for number in range(10)]
        assert ws.closed is not None
        assert ws.closed.code == 4005


async def test_answers_to_unread_messages_reach_a_peer_that_has_closed(host: Host) -> None:
    answered: list[object] = []
    async with lend(host) as (ws, client):
        for number in range(10):
            await client.send(str(number))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose)
            await trio.sleep(0.05)
            async for message in ws:
                try:
                    await ws.send(message)
                except ConnectionClosed:
                    break
                answered.append(message)
        # trio-websocket's client drops what comes after its Close, but the wire has it.
        seen = client.recorder.messages
    assert seen == answered == [str(number) for number in range(10)]


async def test_a_handler_that_never_reads_its_messages_cannot_keep_the_peer_from_closing(host: Host) -> None:
    async with lend(host) as (_, client):
        for number in range(10):
            await client.send(str(number))
        with trio.fail_after(30):
            await client.aclose(4006)
        assert client.closed == CloseFrame(4006)


# The grace of a handler and the end of its tasks


async def test_a_handler_that_sleeps_is_cancelled_after_its_grace(host: Host) -> None:
    app = new_app()
    times: list[float] = []
    ended = trio.Event()

    @app.websocket("/")
    async def sleep(ws: Connection) -> None:
        try:
            await trio.sleep_forever()
        finally:
            times.append(trio.current_time())
            ended.set()

    async with host.serve(app) as served, served.connect() as client:
        left = trio.current_time()
        await client.aclose()
        with trio.fail_after(30):
            await ended.wait()
    assert times[0] - left > GRACE * 0.8


async def test_a_handler_may_say_goodbye_within_its_grace(host: Host) -> None:
    app = new_app()
    goodbyes: list[str] = []

    @app.websocket("/")
    async def linger(ws: Connection) -> None:
        async for _ in ws:
            pass
        await trio.sleep(GRACE / 3)
        goodbyes.append("bye")

    async with host.serve(app) as served:
        async with served.connect() as client:
            await client.aclose()
        await trio.sleep(GRACE)
    assert goodbyes == ["bye"]


async def test_without_a_grace_the_handler_is_cancelled_at_once(host: Host) -> None:
    app = App(timeouts=Timeouts(disconnect_grace=0, close=1, drain=1))
    ended = trio.Event()

    @app.websocket("/")
    async def sleep(ws: Connection) -> None:
        with setting(ended):
            await trio.sleep_forever()

    async with host.serve(app) as served, served.connect() as client:
        await client.aclose()
        with trio.fail_after(30):
            await ended.wait()


@pytest.mark.parametrize("how", ["close", "disconnect", "reset"])
async def test_tasks_of_the_connection_are_cancelled_the_moment_it_ends(host: Host, how: str) -> None:
    app = App(timeouts=Timeouts(disconnect_grace=60, close=1, drain=60))
    started, cancelled, seen = trio.Event(), trio.Event(), trio.Event()
    handler_ended = False

    async def child() -> None:
        started.set()
        with setting(cancelled):
            await trio.sleep_forever()

    @app.websocket("/")
    async def start_it(ws: Connection) -> None:
        nonlocal handler_ended
        ws.nursery.start_soon(child)
        async for _ in ws:
            pass
        await seen.wait()
        handler_ended = True

    async with host.serve(app) as served, served.connect() as client:
        await started.wait()
        match how:
            case "close":
                await client.aclose()
            case "disconnect":
                await client.disconnect()
            case _:
                await client.reset()
        with trio.fail_after(20):
            await cancelled.wait()
        assert not handler_ended
        seen.set()
    assert handler_ended


async def test_tasks_of_the_connection_end_with_the_handler(host: Host) -> None:
    app = new_app()
    cancelled = trio.Event()

    async def child(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        with setting(cancelled):
            await trio.sleep_forever()

    @app.websocket("/")
    async def start_it(ws: Connection) -> None:
        await ws.nursery.start(child)

    async with host.serve(app) as served, served.connect() as client:
        assert (await client.wait_closed()).code == 1000
        with trio.fail_after(20):
            await cancelled.wait()


# aclose


async def test_aclose_of_several_tasks_closes_once_and_all_return(host: Host) -> None:
    async with lend(host) as (ws, client):
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for code in range(4010, 4015):
                    nursery.start_soon(ws.aclose, code)
            await ws.aclose()
            await ws.wait_closed()
        closed = await client.wait_closed()
        assert 4010 <= closed.code < 4015
        assert ws.closed is not None
        assert ws.closed.sent == closed


async def test_aclose_ends_with_a_peer_that_never_answers(host: Host) -> None:
    async with lend(host) as (ws, client):
        client.vanish()
        started = trio.current_time()
        with trio.fail_after(30):
            await ws.aclose()
        assert trio.current_time() - started > TIMEOUTS.close * 0.8
        assert ws.closed is not None
        assert not ws.closed.clean


async def test_a_receiver_is_woken_when_another_task_closes(host: Host) -> None:
    async with lend(host) as (ws, _), trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(ConnectionClosed), trio.fail_after(30):
                await ws.receive()

        nursery.start_soon(receive)
        await trio.sleep(0.05)
        await ws.aclose()


@pytest.mark.parametrize("code", [999, 1004, 1005, 1006, 1015, 2000, 5000])
async def test_codes_that_may_not_be_sent_are_refused_and_leave_the_connection_open(
    host: Host, code: int
) -> None:
    async with lend(host) as (ws, client):
        with pytest.raises(ValueError, match=str(code)):
            await ws.aclose(code)
        with pytest.raises(ValueError, match="123"):
            await ws.aclose(1000, "x" * 124)
        await ws.send("still open")
        assert await client.receive() == "still open"


# Too big


async def test_a_message_past_the_limit_ends_in_1009_and_the_one_before_it_is_kept(host: Host) -> None:
    app = new_app(limits=Limits(message_bytes=1000))
    async with lend(host, app) as (ws, client):
        await client.send("x" * 1000)
        await client.send("x" * 1001)
        with trio.fail_after(30):
            assert await ws.receive() == "x" * 1000
            with pytest.raises(ConnectionClosed) as caught:
                await ws.receive()
        assert (await client.wait_closed()).code == 1009
        closed = caught.value.closed
        assert closed.sent is not None
        assert closed.sent.code == 1009


async def test_the_limit_of_a_text_counts_bytes(host: Host) -> None:
    app = new_app(limits=Limits(message_bytes=1000))
    async with lend(host, app) as (_, client):
        await client.send("ü" * 501)
        assert (await client.wait_closed()).code == 1009


async def test_wrappers_are_around_the_handler_and_see_its_exception(host: Host) -> None:
    app = new_app()
    events: list[str] = []

    @app.wrap
    async def outer(ws: Connection) -> AsyncIterator[None]:
        events.append("outer")
        try:
            yield
        except ZeroDivisionError:
            events.append("outer saw it")
            raise

    @app.wrap
    async def inner(ws: Connection) -> AsyncIterator[None]:
        events.append("inner")
        yield

    @app.websocket("/")
    async def crash(ws: Connection) -> None:
        events.append("handler")
        raise ZeroDivisionError

    async with host.serve(app) as served, served.connect() as client:
        assert (await client.wait_closed()).code == 1011
    assert events == ["outer", "inner", "handler", "outer saw it"]


async def test_a_handler_that_only_sends_ends_with_a_peer_that_left_behind_a_full_inbox(host: Host) -> None:
    app = new_app(limits=Limits(unread_bytes=1000))
    ended = trio.Event()

    @app.websocket("/")
    async def send_for_ever(ws: Connection) -> None:
        with setting(ended):
            while True:
                await ws.send("x" * 1000)
                await trio.sleep(0.01)

    async with host.serve(app) as served:
        async with served.connect() as client:
            for _ in range(30):
                await client.send("y" * 500)
            client.vanish()
        with trio.fail_after(30):
            await ended.wait()
