"""What is found out about a client before the upgrade reaches its handler, and no other one's."""

from __future__ import annotations

import pytest
import trio

from tests.contract.differences import Difference
from tests.contract.hosts import TIMEOUTS, Host, new_app
from tests.contract.test_crashes import ask
from tests.contract.test_opening import handshake, refused
from tests.waiting import until
from wsframework import Accept, App, Connection, Reject, Request, Timeouts


async def member(request: Request, room: str) -> str:
    if "name" not in request.query:
        raise Reject(401, "who are you?", {"WWW-Authenticate": "Bearer"})
    return f"{request.query['name']} of {room}"


def club(app: App) -> App:
    @app.websocket("/{room}", given={"user": member})
    async def talk(ws: Connection, room: str, user: str) -> None:
        await ws.send(f"{room}: {user}")

    @app.http("/{room}/page", given={"user": member})
    async def page(request: Request, room: str, user: str) -> str:
        return f"{room}: {user}"

    return app


async def test_what_a_given_function_returns_is_its_own_connections_handlers(host: Host) -> None:
    async with host.serve(club(new_app())) as served:
        async with served.connect("/tea?name=Ada") as ada, served.connect("/tea?name=Bob") as bob:
            assert await bob.receive() == "tea: Bob of tea"
            assert await ada.receive() == "tea: Ada of tea"
        if not host.differs(Difference.SPEAKS_NO_HTTP):
            assert (await ask(served, "/tea/page?name=Ada")).endswith(b"\r\n\r\ntea: Ada of tea")


async def test_who_is_refused_by_a_given_function_gets_its_answer(host: Host) -> None:
    async with host.serve(club(new_app())) as served:
        rejected = await refused(served, "/tea")
        assert (rejected.status_code, rejected.body) == (401, b"who are you?")
        assert dict(rejected.headers or ())[b"www-authenticate"] == b"Bearer"
        if not host.differs(Difference.SPEAKS_NO_HTTP):
            assert (await ask(served, "/tea/page")).startswith(b"HTTP/1.1 401 Unauthorized\r\n")


async def test_a_given_function_that_hangs_is_503(host: Host) -> None:
    app = new_app(timeouts=Timeouts(guard=0.1))

    async def hang(request: Request) -> None:
        await trio.sleep_forever()

    @app.websocket("/", given={"user": hang})
    async def talk(ws: Connection, user: None) -> None:
        raise AssertionError("it must not run")

    async with host.serve(app) as served:
        assert (await refused(served)).status_code == 503


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_client_that_leaves_while_it_is_looked_up_has_no_handler(host: Host, stubborn: bool) -> None:
    app = new_app()
    log: list[str] = []

    async def find(request: Request) -> str:
        log.append("asked")
        try:
            with trio.CancelScope(shield=stubborn):
                await trio.sleep(0.2 if stubborn else 60)
        finally:
            log.append("done")
        return "Ada"

    @app.websocket("/", given={"user": find})
    async def talk(ws: Connection, user: str) -> None:
        log.append("handler")

    async with host.serve(app) as served:
        stream = await served.open_stream()
        await stream.send_all(handshake(served, "/"))
        await until(lambda: log == ["asked"])
        await trio.aclose_forcefully(stream)
        await until(lambda: log != ["asked"])
        await trio.sleep(TIMEOUTS.disconnect_grace)
        assert log == ["asked", "done"]


async def test_fields_that_a_guard_or_given_function_adds_are_in_the_answer(host: Host) -> None:
    app = new_app()

    async def visit(request: Request) -> Accept[None]:
        return Accept(headers=[("Set-Cookie", "visits=1"), ("Set-Cookie", "seen=now")])

    async def user(request: Request) -> str:
        raise Accept("Ada", headers={"X-User": "Ada"})

    @app.websocket("/", subprotocols=["chat"], guards=[visit], given={"user": user})
    async def talk(ws: Connection, user: str) -> None:
        await ws.send(f"{ws.subprotocol}: {user}")

    @app.http("/page", guards=[visit], given={"user": user})
    async def page(request: Request, user: str) -> str:
        return user

    added = [(b"set-cookie", b"visits=1"), (b"set-cookie", b"seen=now"), (b"x-user", b"Ada")]
    async with host.serve(app) as served:
        async with served.connect(subprotocols=["chat"]) as client:
            assert await client.receive() == "chat: Ada"
            fields = [(name.lower(), value) for name, value in client.websocket.handshake_headers]
            assert [field for field in fields if field in added] == added
        if not host.differs(Difference.SPEAKS_NO_HTTP):
            head, _, body = (await ask(served, "/page")).partition(b"\r\n\r\n")
            lines = [line.lower() for line in head.split(b"\r\n")]
            assert [line for line in lines if line.startswith((b"set-cookie", b"x-user"))] == [
                b"set-cookie: visits=1",
                b"set-cookie: seen=now",
                b"x-user: ada",
            ]
            assert body == b"Ada"
