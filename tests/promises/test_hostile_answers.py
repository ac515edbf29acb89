"""Promise 11 for answers of a user's own classes: what cannot be sent is a 500 with a record."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.promises.rawclient import parse_answer
from tests.promises.stage import Journal, Stage, new_app
from tests.waiting import until
from wsframework import Accept, Connection, Request, Response
from wsframework.server import Server


class Added(Accept[str]):
    def __init__(self, headers: Any) -> None:
        super().__init__("given")
        self.headers = headers


class Odd(Response):
    def __init__(self, attribute: str, value: object) -> None:
        super().__init__("odd")
        object.__setattr__(self, attribute, value)


UPGRADE = (
    "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
PAGE = "GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def serve_giving(stage: Stage, answer: object) -> Server:
    app = new_app()

    async def give(request: Request) -> object:
        return answer

    @app.websocket("/", given={"value": give})
    async def handler(ws: Connection, value: object) -> None:
        raise AssertionError("it was refused")

    @app.http("/page", given={"value": give})
    async def page(request: Request, value: object) -> str:
        return "page"

    return await stage.serve(app)


@pytest.mark.parametrize("headers", [[("X", "a\r\nY: b")], [("X\t", "a")], [("X",)], [(1, 2)], None])
@pytest.mark.parametrize("request_", [UPGRADE, PAGE], ids=["websocket", "page"])
async def test_fields_that_make_no_head_are_a_500(
    stage: Stage, journal: Journal, headers: object, request_: str
) -> None:
    server = await serve_giving(stage, Added(headers))
    assert (await stage.ask(server, request_)).status == 500
    assert journal.events(least=logging.WARNING) in (["connection.failed"], ["guard.crashed"])
    await until(lambda: server.statistics().connections == 0)


@pytest.mark.parametrize(
    ("attribute", "value"), [("body", "text"), ("body", 5), ("headers", None), ("headers", [("X", "y")])]
)
async def test_a_response_that_cannot_be_encoded_is_a_500(
    stage: Stage, journal: Journal, attribute: str, value: object
) -> None:
    app = new_app()

    async def refuse(request: Request) -> Response:
        return Odd(attribute, value)

    @app.http("/page")
    async def page(request: Request) -> Response:
        return Odd(attribute, value)

    @app.websocket("/", guards=[refuse])
    async def handler(ws: Connection) -> None:
        raise AssertionError("it was refused")

    server = await stage.serve(app)
    for request in (PAGE, UPGRADE):
        assert (await stage.ask(server, request)).status == 500
        assert journal.events(least=logging.WARNING) == ["connection.failed"]
        assert journal.fields("http.answered")["status"] == 500
        journal.clear()


class Failing(Response):
    """Raises when an attribute is read for the nth time."""

    def __init__(self, attribute: str, nth: int, kind: type[BaseException]) -> None:
        super().__init__("failing")
        vars(self).update(attribute=attribute, left=nth, kind=kind)

    def __getattribute__(self, name: str) -> Any:
        own = super().__getattribute__("__dict__")
        if name == own.get("attribute"):
            own["left"] -= 1
            if own["left"] == 0:
                raise own["kind"]
        return super().__getattribute__(name)


class Pair(tuple[str, str]):
    """A field that fails when the head is made of it."""

    def __iter__(self) -> Any:
        raise SystemExit("in the middle")


@pytest.mark.parametrize("nth", range(1, 6))
@pytest.mark.parametrize("attribute", ["status", "headers", "body"])
@pytest.mark.parametrize("kind", [ValueError, SystemExit, GeneratorExit])
async def test_a_response_that_fails_at_any_time_is_answered_and_lets_go_of_its_connection(
    stage: Stage, attribute: str, nth: int, kind: type[BaseException]
) -> None:
    app = new_app()

    @app.http("/page")
    async def page(request: Request) -> Response:
        return Failing(attribute, nth, kind)

    server = await stage.serve(app)
    client = await stage.dial(server)
    await client.send(PAGE.encode())
    assert parse_answer(await client.read_all(), client.end).status in (200, 500)
    client.vanish()
    await until(lambda: server.statistics().connections == 0)


@pytest.mark.parametrize("request_", [UPGRADE, PAGE], ids=["websocket", "page"])
async def test_a_field_that_raises_system_exit_while_the_head_is_made_is_a_500(
    stage: Stage, journal: Journal, request_: str
) -> None:
    server = await serve_giving(stage, Added([Pair(("X", "value"))]))
    assert (await stage.ask(server, request_)).status == 500
    assert journal.events(least=logging.WARNING) == ["connection.failed"]
    await until(lambda: server.statistics().connections == 0)
