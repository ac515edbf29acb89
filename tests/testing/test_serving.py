"""An App in memory: one line for one client, lifespans once, and no failure unseen."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
import trio
import trio.lowlevel
import trio.testing
import trio_websocket

from wsframework import App, Close, Connection, ConnectionClosed, Request, Response, Timeouts
from wsframework.testing import (
    DeadlineExceeded,
    TornReads,
    connect,
    connection_pair,
    memory_pair,
    request,
    serve,
)


def fail(why: str) -> None:
    raise ZeroDivisionError(why)


def new_app() -> App:
    app = App()

    @app.websocket("/echo", subprotocols=["chat"])
    @app.websocket("/echo")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            if message == "crash":
                raise ZeroDivisionError("by handler")
            await ws.send(message)

    @app.http("/health")
    async def health(request: Request) -> Response:
        return Response.json({"ok": True, "agent": request.headers.get("user-agent")})

    @app.http("/broken")
    async def broken(request: Request) -> str:
        raise ZeroDivisionError("by page")

    return app


async def test_one_line_connects_a_client() -> None:
    async with connect(new_app(), "/echo") as client:
        await client.send("hello")
        assert await client.receive() == "hello"


async def test_the_opening_handshake_says_what_it_is_told() -> None:
    app = App(origins=["https://friend.example"])
    seen: list[Request] = []

    @app.websocket("/{room}", subprotocols=["chat"])
    async def look(ws: Connection, room: str) -> None:
        seen.append(ws.request)
        await ws.send(room)

    async with connect(
        app,
        "/a?b=c",
        subprotocols=["x", "chat"],
        headers={"X-Token": "1"},
        origin="https://friend.example",
    ) as client:
        assert await client.receive() == "a"
        assert client.subprotocol == "chat"
    [request] = seen
    assert request.subprotocols == ("x", "chat")
    assert request.query == {"b": "c"}
    assert request.headers["x-token"] == "1"
    assert request.origin == "https://friend.example"
    assert request.host == "localhost"
    assert request.remote.host == "127.0.0.1"


async def test_ones_own_origin_is_localhost() -> None:
    async with connect(new_app(), "/echo", origin="http://localhost"):
        pass
    with pytest.raises(trio_websocket.ConnectionRejected) as caught:
        async with connect(new_app(), "/echo", origin="http://elsewhere.example"):
            pass
    assert caught.value.status_code == 403


async def test_a_refusal_comes_out_with_status_headers_and_body() -> None:
    app = new_app()

    @app.guard
    async def refuse(request: Request) -> Response:
        return Response("go away", 401, {"X-Why": "because"})

    with pytest.raises(trio_websocket.ConnectionRejected) as caught:
        async with connect(app, "/echo"):
            pytest.fail("it was let in")
    assert caught.value.status_code == 401
    assert (b"x-why", b"because") in caught.value.headers
    assert caught.value.body == b"go away"


async def test_several_clients_meet_on_one_server_and_lifespans_run_once() -> None:
    app = App()
    events: list[str] = []
    connections: set[Connection] = set()

    @app.lifespan
    async def lifespan() -> AsyncIterator[None]:
        events.append("begin")
        yield
        events.append("end")

    @app.websocket("/")
    async def shout(ws: Connection) -> None:
        connections.add(ws)
        async for message in ws:
            for other in connections:
                await other.send(message)
        connections.discard(ws)

    async with connect(app) as first, connect(app) as second:
        await first.send("hi")
        assert (await first.receive(), await second.receive()) == ("hi", "hi")
        assert events == ["begin"]
    assert events == ["begin", "end"]
    async with serve(app) as server, server.connect("/") as first, connect(app) as second:
        assert server.server.statistics().connections == 2
        await second.send("hi")
        assert await first.receive() == "hi"
    assert events == ["begin", "end"] * 2


async def test_a_server_that_was_stopped_is_not_joined() -> None:
    app = new_app()
    async with serve(app) as server:
        server.stop()
        await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        async with connect(app, "/echo") as client:
            await client.send("on a new one")
            assert await client.receive() == "on a new one"


async def test_two_apps_do_not_get_into_each_others_way() -> None:
    one, other = new_app(), new_app()
    async with connect(one, "/echo") as first, connect(other, "/echo") as second:
        await first.send("one")
        await second.send("other")
        assert (await second.receive(), await first.receive()) == ("other", "one")


async def test_at_the_end_of_the_block_the_handler_has_ended() -> None:
    app = App()
    ended: list[str] = []

    @app.websocket("/")
    async def linger(ws: Connection) -> None:
        async for _ in ws:
            pass
        await trio.sleep(0.01)
        ended.append("handler")

    async with serve(app):
        async with connect(app):
            pass
        assert ended == ["handler"]


async def test_a_handler_that_sleeps_for_ever_costs_its_grace_in_virtual_time(
    autojump_clock: trio.abc.Clock,
) -> None:
    app = App()

    @app.websocket("/")
    async def sleep(ws: Connection) -> None:
        await trio.sleep_forever()

    async with connect(app):
        pass
    assert trio.current_time() <= 10


# What goes wrong


async def test_what_the_test_raises_comes_out_as_it_is(autojump_clock: trio.abc.Clock) -> None:
    app = App()

    @app.lifespan
    async def with_tasks() -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            yield
            nursery.cancel_scope.cancel()

    @app.websocket("/")
    async def sleep(ws: Connection) -> None:
        await trio.sleep_forever()

    error = AssertionError("mine")
    with pytest.raises(AssertionError) as caught:
        async with connect(app):
            raise error
    assert caught.value is error
    assert trio.current_time() < 1  # a test that has failed does not wait for graces


async def test_a_crash_of_the_handler_is_the_cause_of_what_the_client_sees() -> None:
    async with connect(new_app(), "/echo") as client:
        await client.send("crash")
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await client.receive()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.reason is not None
    assert caught.value.reason.code == 1011


async def test_a_crash_is_seen_though_the_program_has_turned_its_log_off() -> None:
    logging.disable(logging.CRITICAL)
    try:
        with pytest.raises(ZeroDivisionError, match="by handler"):
            async with connect(new_app(), "/echo") as client:
                await client.send("crash")
        assert isinstance((await request(new_app(), "GET", "/broken")).crash, ZeroDivisionError)
    finally:
        logging.disable(logging.NOTSET)


async def test_a_crash_that_the_test_did_not_see_fails_it() -> None:
    with pytest.raises(ZeroDivisionError, match="by handler"):
        async with connect(new_app(), "/echo") as client:
            await client.send("crash")


async def test_a_crash_in_a_task_of_the_connection_fails_the_test_too() -> None:
    app = App()

    async def crash() -> None:
        raise ZeroDivisionError("by child")

    @app.websocket("/")
    async def start(ws: Connection) -> None:
        ws.nursery.start_soon(crash)
        await ws.receive()

    async def test() -> None:
        async with connect(app):
            await trio.sleep(0.01)

    with pytest.raises(ZeroDivisionError, match="by child"):
        await test()


async def test_a_crash_whose_close_code_the_test_has_looked_at_is_no_failure() -> None:
    async with connect(new_app(), "/echo") as client:
        await client.send("crash")
        assert (await client.wait_closed()).code == 1011


async def test_a_crash_is_told_to_the_client_that_has_it_and_to_no_other() -> None:
    app = new_app()
    async with connect(app, "/echo") as neighbour:
        with pytest.raises(ZeroDivisionError):
            async with connect(app, "/echo") as client:
                await client.send("crash")
        await neighbour.send("fine")
        assert await neighbour.receive() == "fine"


@pytest.mark.parametrize("error", [Close(4000), None])
async def test_a_handlers_way_to_close_is_no_crash(error: Exception | None) -> None:
    app = App()

    @app.websocket("/")
    async def end(ws: Connection) -> None:
        if error is not None:
            raise error
        await ws.receive()  # and ConnectionClosed comes out

    async with connect(app):
        await trio.sleep(0.01)


async def test_a_guards_crash_is_the_cause_of_the_refusal() -> None:
    app = new_app()

    @app.guard
    async def crash(request: Request) -> None:
        raise ZeroDivisionError("by guard")

    with pytest.raises(trio_websocket.ConnectionRejected) as caught:
        async with connect(app, "/echo"):
            pass
    assert caught.value.status_code == 500
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_a_lifespan_that_fails_comes_out(autojump_clock: trio.abc.Clock) -> None:
    app = new_app()

    @app.lifespan
    async def broken() -> AsyncIterator[None]:
        fail("by lifespan")
        yield

    with pytest.raises(ZeroDivisionError, match="by lifespan"):
        async with connect(app, "/echo"):
            pytest.fail("it was served")


async def test_a_connection_may_be_cancelled_from_outside(autojump_clock: trio.abc.Clock) -> None:
    with trio.move_on_after(1) as limit:
        async with connect(new_app(), "/echo"):
            await trio.sleep_forever()
    assert limit.cancelled_caught


async def test_the_log_is_left_as_it_was() -> None:
    handlers = list(logging.getLogger("wsframework").handlers)
    async with connect(new_app(), "/echo"):
        pass
    assert logging.getLogger("wsframework").handlers == handlers


# Stopping, raw bytes, faults


async def test_a_server_may_be_stopped_while_clients_are_connected(autojump_clock: trio.abc.Clock) -> None:
    app = new_app()
    async with serve(app) as server, server.connect("/echo") as client:
        server.stop()
        assert (await client.wait_closed()).code == 1001


async def test_bytes_of_ones_own_making(autojump_clock: trio.abc.Clock) -> None:
    async with serve(new_app()) as server, server.open_stream() as stream:
        await stream.send_all(b"nonsense\r\n\r\n")
        answer = b""
        while data := await stream.receive_some():
            answer += data
    assert answer.startswith(b"HTTP/1.1 400")


async def test_faults_go_around_either_end() -> None:
    def torn_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        client, server = memory_pair(buffer_bytes=100)
        return TornReads(client, 3), TornReads(server, [1, 2])

    async with connect(new_app(), "/echo", pair=torn_pair) as client:
        await client.send("x" * 1000)
        assert await client.receive() == "x" * 1000


async def test_a_server_cannot_be_used_before_it_runs() -> None:
    from wsframework.testing import MemoryServer

    with pytest.raises(RuntimeError, match="not started"):
        MemoryServer(new_app()).open_stream()


# Plain HTTP


async def test_a_request_gets_its_answer() -> None:
    answer = await request(new_app(), "GET", "/health", {"User-Agent": "test"})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"ok": True, "agent": "test"}
    assert answer.text == '{"ok": true, "agent": "test"}'
    assert answer.crash is None


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("HEAD", "/health", 200), ("POST", "/health", 405), ("GET", "/nowhere", 404), ("GET", "/echo", 426)],
)
async def test_every_status_comes_as_it_is(method: str, path: str, status: int) -> None:
    answer = await request(new_app(), method, path)
    assert answer.status == status
    assert bool(answer.body) is (method != "HEAD")


async def test_a_page_that_crashes_is_a_500_that_says_why() -> None:
    answer = await request(new_app(), "GET", "/broken")
    assert answer.status == 500
    assert isinstance(answer.crash, ZeroDivisionError)


async def test_a_test_chooses_the_clients_address_where_it_is_a_trusted_proxy() -> None:
    app = App(trusted_proxies="127.0.0.1")

    @app.websocket("/")
    async def whoami(ws: Connection) -> None:
        await ws.send(str(ws.request.remote))
        if ws.request.remote.host == "203.0.113.9":
            raise ValueError("not this one")

    @app.http("/")
    async def fail(request: Request) -> str:
        raise ValueError(request.remote.host)

    fields = {"X-Forwarded-For": "203.0.113.9"}
    async with serve(app) as server:
        async with (
            server.connect(headers={"X-Forwarded-For": "203.0.113.10"}) as other,
            server.connect(headers=fields) as client,
        ):
            assert await other.receive() == "203.0.113.10"
            assert await client.receive() == "203.0.113.9"
            # Its crash is known to be this client's.
            assert (await client.wait_closed()).code == 1011
        answer = await server.request("GET", "/", fields)
        assert (answer.status, str(answer.crash)) == (500, "203.0.113.9")


async def test_a_request_joins_the_server_around_it() -> None:
    app = new_app()
    async with serve(app) as server:
        assert (await request(app, "GET", "/health", [("Host", "example.com")])).status == 200
        assert (await server.request("GET", "/health")).status == 200
        assert server.server.statistics().accepted == 2


async def test_a_page_that_never_answers_fails_the_test(autojump_clock: trio.abc.Clock) -> None:
    app = App(timeouts=Timeouts(drain=1))

    @app.http("/slow")
    async def slow(request: Request) -> str:
        await trio.sleep(20)
        return "late"

    with pytest.raises(DeadlineExceeded, match="answer to GET /slow"):
        await request(app, "GET", "/slow")


# Both ends


async def test_both_ends_of_a_connection() -> None:
    async with connection_pair() as (ws, client):
        await ws.send("from the server")
        assert await client.receive() == "from the server"
        await client.send("from the client")
        assert await ws.receive() == "from the client"
        assert ws.subprotocol is None


async def test_both_ends_with_a_subprotocol_and_an_apps_settings() -> None:
    settings = App(timeouts=Timeouts(close=1))
    async with connection_pair(settings, subprotocols=["chat"]) as (ws, client):
        assert ws.subprotocol == client.subprotocol == "chat"
        await client.aclose(4000)
        with pytest.raises(ConnectionClosed):
            await ws.receive()


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        (None, "localhost"),
        (["*"], "localhost"),
        (["chat.example", "localhost"], "localhost"),
        (["chat.example", "*"], "localhost"),
        (["chat.example", "www.example"], "chat.example"),
        (["chat.example:8443"], "chat.example:8443"),
        (["*.chat.example"], "test.chat.example"),
        (["bücher.example"], "xn--bcher-kva.example"),
        (["10.0.0.0/8"], "10.0.0.0"),
        (["::1"], "[::1]"),
        (["2001:db8::/32"], "[2001:db8::]"),
    ],
)
async def test_a_client_asks_for_a_host_that_the_app_answers_to(allowed: list[str] | None, host: str) -> None:
    app = App(allowed_hosts=allowed)

    @app.websocket("/")
    async def tell(ws: Connection) -> None:
        await ws.send(ws.request.host)

    async with connect(app, origin=f"http://{host}") as client:
        assert await client.receive() == host
    assert (await request(app, "GET", "/")).status == 426
    if allowed is not None and "*" not in allowed:
        assert (await request(app, "GET", "/", {"Host": "evil.example"})).status == 421
