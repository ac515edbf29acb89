"""`Reject(…, close=…)`: a refusal that a browser's page can read."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
import trio

from tests.contract.differences import Difference
from tests.contract.hosts import TIMEOUTS, Host, Served, new_app
from tests.contract.test_crashes import ask
from tests.contract.test_opening import handshake, refused
from tests.waiting import until
from wsframework import App, CloseFrame, Connection, Limits, Observer, Reject, Request


async def user(request: Request) -> str:
    if request.query.get("user") != "Ada":
        raise Reject(401, "please sign in\n", close=4401)
    return "Ada"


def club(app: App) -> list[str]:
    """Make an App that writes down what runs for a connection."""
    log: list[str] = []

    class Log(Observer):
        def connection_opened(self, connection: Connection, handler: str) -> None:
            log.append("opened")

        def connection_closed(self, connection: Connection, handler: str) -> None:
            log.append("closed")

    app.observe(Log())

    @app.wrap
    async def around(ws: Connection) -> AsyncIterator[None]:
        log.append("wrapper")
        yield

    @app.websocket("/", given={"user": user})
    @app.websocket("/", subprotocols=["chat"], given={"user": user})
    async def talk(ws: Connection, user: str) -> None:
        log.append("handler")
        async for message in ws:
            await ws.send(f"{user}: {message!s}")

    @app.http("/page", given={"user": user})
    async def page(request: Request, user: str) -> str:
        return user

    return log


@pytest.mark.parametrize("offered", [[], ["chat"], ["unknown", "chat"]])
async def test_a_refused_websocket_is_opened_and_closed_before_anything_runs(
    host: Host, offered: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "wsframework")
    app = new_app()
    log = club(app)
    async with host.serve(app) as served:
        async with served.connect(subprotocols=offered) as client:
            assert client.subprotocol == ("chat" if offered else None)
            assert await client.wait_closed() == CloseFrame(4401, "please sign in")
        assert log == []
        async with served.connect("/?user=Ada", subprotocols=offered) as client:
            await client.send("hello")
            assert await client.receive() == "Ada: hello"
    assert [entry for entry in log if entry not in ("opened", "closed")] == ["wrapper", "handler"]
    [told] = [
        vars(entry)["fields"] for entry in caplog.records if vars(entry)["event"] == "handshake.refused"
    ]
    assert (told["status"], told["error"]) == (401, "Close 4401 (please sign in)")


async def test_a_foreign_page_is_refused_before_and_a_page_gets_the_status(host: Host) -> None:
    app = new_app()
    club(app)
    async with host.serve(app) as served:
        assert (await refused(served, origin="https://evil.example")).status_code == 403
        if not host.differs(Difference.SPEAKS_NO_HTTP):
            answer = await ask(served, "/page")
            assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
            assert answer.endswith(b"\r\n\r\nplease sign in\n")


async def test_a_refused_client_counts_until_it_answers_or_its_time_is_up(host: Host) -> None:
    app = new_app(limits=Limits(connections=1))
    club(app)
    async with host.serve(app) as served, await served.open_stream() as stream:
        # With a message that it does not wait to send.
        await stream.send_all(handshake(served, "/") + b"\x81\x82\0\0\0\0hi")
        started = trio.current_time()
        answer = bytes(await stream.receive_some())
        assert not await let_in(served)
        with trio.fail_after(30):
            while data := await stream.receive_some():
                answer += data
        # It has not answered the Close, so the server waits for as long as it does for others.
        assert trio.current_time() - started > TIMEOUTS.close * 0.9
        head, _, frames = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert frames == b"\x88\x10\x11\x31please sign in"
        with trio.fail_after(30):
            while not await let_in(served):  # noqa: ASYNC110 - its place is free a moment later
                await trio.sleep(0.01)


async def let_in(served: Served) -> bool:
    async with await served.open_stream() as stream:
        try:
            await stream.send_all(handshake(served, "/?user=Ada"))
            return bytes(await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
        except trio.BrokenResourceError:  # over TLS nobody is told that there are too many
            return False


async def test_a_refused_client_that_does_not_answer_holds_up_no_drain(host: Host) -> None:
    app = new_app()
    club(app)
    async with host.serve(app) as served, await served.open_stream() as stream:
        await stream.send_all(handshake(served, "/"))
        assert bytes(await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
        served.stop()
        with trio.fail_after(30):
            await served.stopped.wait()


async def test_many_refused_clients_leave_nothing_behind(host: Host) -> None:
    app = new_app()
    log = club(app)
    async with host.serve(app) as served:
        for _ in range(10):
            async with served.connect() as client:
                await client.wait_closed()
        count = getattr(served.server, "statistics", None)
        if count is not None and not host.name.startswith("trio"):
            await until(lambda: count().connections == 0)
    assert log == []
