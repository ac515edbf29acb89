"""What a type checker has to accept: every way to register what the documentation shows."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, assert_type

from wsframework import (
    Accept,
    App,
    Connection,
    Member,
    Reject,
    Request,
    Response,
    Rooms,
    Session,
    Sessions,
    set_cookie_field,
)

app = App()
rooms = Rooms()
ValueT = TypeVar("ValueT")


class User:
    pass


async def find_user(request: Request) -> User:
    raise Reject(401, "please sign in", close=4401)


async def member(request: Request, room: str, *, role: str = "any") -> User | None:
    return None


class Store:
    async def find(self, request: Request, room: str) -> User:
        raise Reject(404)

    async def __call__(self, request: Request) -> int:
        return 1

    async def talk(self, ws: Connection, room: str) -> None: ...


async def renewed(request: Request) -> User | Accept[User]:
    return Accept(User(), headers=[set_cookie_field("session", "x")])


async def with_a_field(request: Request) -> Response | Accept[None] | None:
    return Accept(headers={"X-Extra": "yes"})


def cached(function: Callable[[Request], Awaitable[ValueT]]) -> Callable[[Request], Awaitable[ValueT]]:
    return function


@app.guard
async def everywhere(request: Request) -> Response | None:
    return None


@app.guard
async def never(request: Request) -> None: ...


async def of_a_room(request: Request, room: str) -> Response:
    return Response("no", 403)


@app.websocket("/")
async def bare(ws: Connection) -> None: ...


@app.websocket("/answer")
async def returns(ws: Connection) -> object:
    return 42


@app.websocket("/{room}/{id:int}", guards=[of_a_room, never], given={"user": renewed, "other": member})
async def talk(ws: Connection, room: str, id: int, *, user: User, other: User | None) -> None: ...


@app.websocket("/store/{room}", given={"user": Store().find, "number": Store(), "cached": cached(find_user)})
async def anything(connection: Connection, **arguments: Any) -> None: ...


sessions = Sessions()
app.install(sessions)


@app.websocket("/resumed", given={"user": find_user})
async def resumed(ws: Connection, user: User) -> None:
    async with sessions.open(ws, await ws.receive(), user=1) as session, session.join(rooms["a"]) as joined:
        assert_type(session, Session)
        assert_type(joined, Member)


app.guard(with_a_field)
app.websocket("/method/{room}")(Store().talk)
app.websocket("/partial")(functools.partial(anything, room="tea"))


@app.http("/text", given={"user": find_user})
async def text(request: Request, user: User) -> str:
    return "text"


@app.http("/{name}/page", guards=[everywhere, with_a_field])
async def page(request: Request, name: str) -> Response | bytes:
    return b""


@app.http("/plain/{name}")
def plain(request: Request, name: str) -> Response:
    return Response(name)


@app.http("/object")
async def takes_any(request: object) -> str:
    return ""


def decorators_return_what_they_were_given() -> tuple[Awaitable[str], Awaitable[Response | None]]:
    request = Request("/")
    return text(request, User()), everywhere(request)
