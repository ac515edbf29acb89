"""What a type checker has to find: each line that ends in `# wrong`, and no other."""

from __future__ import annotations

from wsframework import Accept, App, Connection, Request, Response

app = App()


async def find(request: Request) -> int:
    return 1


def not_async(request: Request) -> int:
    return 1


async def of_a_connection(ws: Connection) -> int:
    return 1


async def of_nothing() -> int:
    return 1


async def flag(request: Request) -> bool:
    return True


async def accepts_with_a_value(request: Request) -> Accept[str]:
    return Accept("Ada")


async def says_none_and_gives_one(request: Request) -> Accept[None]:
    return Accept("Ada")  # wrong


async def promises_another_type(request: Request) -> Accept[int]:
    return Accept("Ada")  # wrong


async def of_a_path(request: Request, room: str) -> None: ...


async def handler(ws: Connection) -> None: ...


def sync_handler(ws: Connection) -> None: ...


async def handler_of_a_request(request: Request) -> None: ...


async def page(request: Request) -> Response:
    return Response()


async def page_of_a_connection(ws: Connection) -> str:
    return ""


def plain_number_page(request: Request) -> int:
    return 404


async def number_page(request: Request) -> int:
    return 404


app.websocket("/", given={"user": not_async})  # wrong
app.websocket("/", given={"user": of_a_connection})  # wrong
app.websocket("/", given={"user": of_nothing})  # wrong
app.websocket("/", given={"user": 1})  # wrong
app.websocket("/", given={1: find})  # wrong
app.websocket("/", given=[find])  # wrong
app.http("/", given={"user": not_async})  # wrong

app.websocket("/")(sync_handler)  # wrong
app.websocket("/")(handler_of_a_request)  # wrong
app.websocket("/")(of_nothing)  # wrong
app.http("/")(page_of_a_connection)  # wrong
app.http("/")(number_page)  # wrong
app.http("/")(plain_number_page)  # wrong
app.http("/")(handler)  # wrong

app.websocket("/", guards=[flag])  # wrong
app.websocket("/", guards=[of_a_connection])  # wrong
app.http("/", guards=[not_async])  # wrong
app.http("/", guards=[accepts_with_a_value])  # wrong
app.guard(flag)  # wrong
app.guard(of_a_path)  # wrong
