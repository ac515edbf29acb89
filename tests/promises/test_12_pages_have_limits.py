"""Promise 12, and 8: an HTTP handler has a limit, and none works for somebody who has left."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import trio

from tests.promises.rawclient import Client, parse_answer, upgrade_request
from tests.promises.stage import Journal, Stage, new_app
from tests.waiting import until
from wsframework import Connection, Limits, Reject, Request, Timeouts


async def test_an_http_handler_that_takes_too_long_gets_503(stage: Stage, journal: Journal) -> None:
    app = new_app(timeouts=Timeouts(http=0.2))
    ended: list[str] = []

    @app.http("/", methods=["GET", "POST"])
    async def page(request: Request) -> str:
        try:
            await trio.sleep(60)
        finally:
            ended.append(request.method)
        return "too late"

    server = await stage.serve(app)
    for method in ("GET", "POST"):
        answer = await stage.ask(server, f"{method} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.status == 503
    assert ended == ["GET", "POST"]
    assert journal.events(least=logging.WARNING) == ["handler.timeout"] * 2


@pytest.mark.parametrize("leave", [Client.vanish, Client.reset], ids=["FIN", "RST"])
@pytest.mark.parametrize("what", ["GET", "HEAD", "guard", "upgrade"])
async def test_a_client_that_leaves_cancels_what_only_it_would_have_got(
    stage: Stage, what: str, leave: Callable[[Client], None]
) -> None:
    app = new_app(timeouts=Timeouts(http=60, guard=60, drain=1))
    begun = trio.Event()
    cancelled = trio.Event()

    async def wait() -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.set()
            raise

    async def guard(request: Request) -> None:
        await wait()

    @app.http("/page")
    async def page(request: Request) -> str:
        await wait()
        return "never"

    @app.http("/guarded", guards=[guard])
    async def guarded(request: Request) -> str:
        return "never"

    @app.websocket("/ws", guards=[guard])
    async def handler(ws: Connection) -> None:
        raise AssertionError("it must not begin")

    server = await stage.serve(app)
    client = await stage.dial(server)
    if what == "upgrade":
        await client.send(upgrade_request("/ws"))
    else:
        path = "/guarded" if what == "guard" else "/page"
        method = "HEAD" if what == "HEAD" else "GET"
        await client.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    await begun.wait()
    leave(client)
    await cancelled.wait()
    await until(lambda: not server.statistics().connections)


@pytest.mark.parametrize("leave", [Client.vanish, Client.reset], ids=["FIN", "RST"])
@pytest.mark.parametrize("during", ["given", "handler"])
async def test_a_handler_of_another_method_runs_on_when_its_client_leaves(
    stage: Stage, leave: Callable[[Client], None], during: str
) -> None:
    app = new_app(timeouts=Timeouts(http=60, guard=60, drain=1))
    begun, go_on, done = trio.Event(), trio.Event(), trio.Event()

    async def wait(where: str) -> None:
        if where == during:
            begun.set()
            await go_on.wait()

    async def find_user(request: Request) -> str:
        await wait("given")
        return "Ada"

    @app.http("/hook", methods=["POST"], given={"user": find_user})
    async def hook(request: Request, user: str) -> str:
        await wait("handler")
        done.set()
        return "written"

    server = await stage.serve(app)
    client = await stage.dial(server)
    await client.send(b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    await begun.wait()
    leave(client)
    await trio.sleep(0.1)
    assert server.statistics().connections == 1
    go_on.set()
    await done.wait()
    await until(lambda: not server.statistics().connections)


async def test_a_client_that_has_closed_one_direction_gets_the_answer_to_its_post(stage: Stage) -> None:
    app = new_app()
    begun, go_on = trio.Event(), trio.Event()

    @app.http("/hook", methods=["POST"])
    async def hook(request: Request) -> str:
        begun.set()
        await go_on.wait()
        return "written"

    server = await stage.serve(app)
    client = await stage.dial(server)
    await client.send(b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    await begun.wait()
    await client.half_close()
    await trio.sleep(0.05)
    go_on.set()
    answer = parse_answer(await client.read_all(), client.end)
    assert (answer.status, answer.body) == (200, b"written")


@pytest.mark.parametrize("request_", ["GET /page", "POST /page", "GET /guarded", "upgrade"])
async def test_code_that_resists_its_cancellation_does_not_keep_its_client(
    stage: Stage, journal: Journal, request_: str
) -> None:
    app = new_app(timeouts=Timeouts(http=0.2, guard=0.2, drain=1))
    release, ended = trio.Event(), trio.Event()
    outcomes: list[object] = []

    async def resist(request: Request) -> None:
        try:
            with trio.CancelScope(shield=True):
                await release.wait()
                outcomes.append(await request.body())
        except Reject as refused:
            outcomes.append(refused.status)
        finally:
            ended.set()

    @app.http("/page", methods=["GET", "POST"])
    async def page(request: Request) -> str:
        await resist(request)
        return "too late"

    @app.http("/guarded", guards=[resist])
    async def guarded(request: Request) -> str:
        return "too late"

    @app.http("/quick")
    async def quick(request: Request) -> str:
        return "quick"

    @app.websocket("/ws", guards=[resist])
    async def handler(ws: Connection) -> None:
        raise AssertionError("it must not begin")

    server = await stage.serve(app)
    fields = "Host: x\r\nContent-Length: 5\r\nExpect: 100-continue" if "POST" in request_ else "Host: x"
    asked: bytes | str = f"{request_} HTTP/1.1\r\n{fields}\r\n\r\n"
    try:
        answer = await stage.ask(server, upgrade_request("/ws") if request_ == "upgrade" else asked)
    finally:
        release.set()  # else a failure would wait for it
    await ended.wait()
    assert (answer.status, answer.headers["connection"]) == (503, "close")
    # Its connection is another's business by now, so it cannot read the body.
    assert outcomes == [503 if "POST" in request_ else b""]
    await until(lambda: server.statistics().connections == 0)
    assert (
        await stage.ask(server, "GET /quick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    ).status == 200
    assert "request.overdue" in journal.events(least=logging.WARNING)
    assert journal.events(least=logging.ERROR) == []


@pytest.mark.parametrize("per_address", [False, True])
async def test_code_that_resists_its_cancellation_counts_until_it_ends(
    stage: Stage, per_address: bool
) -> None:
    """Its client has been answered, and could start more of it."""
    limits = Limits(connections_per_address=2) if per_address else Limits(connections=2)
    app = new_app(limits=limits, timeouts=Timeouts(http=0.1, drain=1))
    release = trio.Event()
    asked = 0

    @app.http("/")
    async def page(request: Request) -> str:
        nonlocal asked
        asked += 1
        with trio.CancelScope(shield=True):
            await release.wait()
        return "late"

    server = await stage.serve(app)
    ask = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    try:
        for number in (1, 2):
            assert (await stage.ask(server, ask)).status == 503
            await until(lambda number=number: server.statistics().connections == number)  # type: ignore[misc]
        assert (await stage.ask(server, ask)).status == 503
        assert asked == 2
    finally:
        release.set()
    await until(lambda: server.statistics().connections == 0)
    assert (await stage.ask(server, ask)).status == 200
