"""The server that the attacks are run against: `python -m tests.hostile.target`, by `process.Target`.

HOSTILE_SETTINGS is JSON: limits, timeouts, keepalive, and under "tls" a file with certificate and key.
"""

from __future__ import annotations

import concurrent.futures
import gc
import json
import logging
import os
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import attrs
import trio
import trio.lowlevel

from tests.hostile.playing import make_error
from wsframework import (
    App,
    Connection,
    Deflate,
    JsonFormatter,
    Keepalive,
    Limits,
    Request,
    Response,
    Room,
    Server,
    SlowPolicy,
    Timeouts,
)

settings = json.loads(os.environ.get("HOSTILE_SETTINGS") or "{}")
app = App(
    limits=Limits(**settings.get("limits", {})),
    timeouts=Timeouts(**settings.get("timeouts", {})),
    keepalive=Keepalive(**settings.get("keepalive", {})),
)
rooms = {
    action: Room(action, slow=SlowPolicy(action=action, max_bytes=100_000))
    for action in ("close", "drop_newest", "drop_oldest")
}
servers: list[Server] = []
pools: list[object] = []


def raise_if_asked(request: Request, place: str) -> None:
    """Raise the error KIND for ?PLACE=KIND; KeyboardInterrupt, too."""
    wanted = request.query.get(place)
    if wanted:
        raise KeyboardInterrupt if wanted == "interrupt" else make_error(wanted)


@app.guard
async def guard(request: Request) -> None:
    raise_if_asked(request, "guard")


@app.wrap
async def wrapper(ws: Connection) -> AsyncIterator[None]:
    raise_if_asked(ws.request, "enter")
    yield
    raise_if_asked(ws.request, "leave")


async def user(request: Request) -> str:
    raise_if_asked(request, "given")
    return "Ada"


@app.websocket("/given", given={"user": user})
async def given(ws: Connection, user: str) -> None:
    await ws.send(user)


@app.websocket("/echo")
async def echo(ws: Connection) -> None:
    async for message in ws:
        await ws.send(message)


@app.websocket("/deflate", compression=Deflate())
async def deflate(ws: Connection) -> None:
    async for message in ws:
        await ws.send(f"{len(message)}")


@app.websocket("/deaf", compression=Deflate())
async def deaf(ws: Connection) -> None:
    await trio.sleep_forever()


@app.websocket("/raise")
async def raise_in_handler(ws: Connection) -> None:
    """Raise where the query says: in the handler, in a child, in a thread, in a nursery's child."""
    if (kind := ws.request.query.get("child")) is not None:
        ws.nursery.start_soon(raise_soon, kind)
        await trio.sleep_forever()
    if (kind := ws.request.query.get("thread")) is not None:
        await trio.to_thread.run_sync(lambda: raise_if_asked(ws.request, "thread"))
    raise_if_asked(ws.request, "handler")


async def raise_soon(kind: str) -> None:
    raise make_error(kind)


@app.http("/raise-page")
async def raise_in_page(request: Request) -> str:
    raise_if_asked(request, "page")
    return "nothing was raised"


@app.websocket("/push/{size:int}/{count:int}")
async def push(ws: Connection, size: int, count: int) -> None:
    for number in range(count):
        await ws.send(bytes([number % 256]) * size)


@app.websocket("/block/{seconds:float}")
async def block(ws: Connection, seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - the mistake


@app.websocket("/pool")
async def pool(ws: Connection) -> None:
    """Start a process pool by fork, as a handler may."""
    import multiprocessing

    executor = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    pools.append(executor)
    await ws.send(str(await trio.to_thread.run_sync(executor.submit(abs, -1).result)))


@app.websocket("/room/{action}")
async def room(ws: Connection, action: str) -> None:
    async with rooms[action].join(ws):
        async for message in ws:
            rooms[action].broadcast(message)


@app.websocket("/come-and-go/{action}/{count:int}")
async def come_and_go(ws: Connection, action: str, count: int) -> None:
    """Join a room again and again, and broadcast a message of 60,000 bytes each time."""
    for _ in range(count):
        async with rooms[action].join(ws):
            rooms[action].broadcast(b"x" * 60_000)
        await trio.lowlevel.checkpoint()
    await trio.sleep_forever()


@app.websocket("/fork/{how}")
async def fork(ws: Connection, how: str) -> None:
    """Fork, and let the child do what only the server may; say that the parent is here, then echo."""
    if how == "child":
        ws.nursery.start_soon(fork_and, "return", ws)
        await trio.sleep(0.1)
    elif how == "thread":
        await trio.to_thread.run_sync(os.fork)
    elif await fork_and(how, ws):
        return
    await ws.send("the parent")
    async for message in ws:
        await ws.send(message)


@app.http("/fork-page/{how}")
async def fork_page(request: Request, how: str) -> str:
    return "the child" if await fork_and(how) else "the parent"


async def fork_and(how: str, ws: Connection | None = None) -> bool:
    """Return True in the child, unless it is to do something else."""
    if os.fork() != 0:
        return False
    match how:
        case "exit":
            sys.exit(0)
        case "raise":
            raise ValueError("in the child")
        case "interrupt":
            raise KeyboardInterrupt
        case "wait":
            await trio.sleep(0.1)
        case "send" if ws is not None:
            await ws.send("from the child")
    return True


@app.websocket("/from-thread/{verb}")
async def from_thread(ws: Connection, verb: str) -> None:
    """Call a synchronous verb from a thread; say what came of it, then echo."""

    def call() -> str:
        try:
            if verb == "broadcast":
                rooms["close"].broadcast("from a thread")
            elif verb == "send_nowait":
                ws.send_nowait("from a thread")
            elif verb == "stop":
                servers[0].stop()
            else:
                ws.nursery.start_soon(trio.sleep, 0)
        except Exception as error:
            return type(error).__name__
        return "returned"

    async with rooms["close"].join(ws):
        await ws.send(await trio.to_thread.run_sync(call))
        async for message in ws:
            await ws.send(message)


@app.websocket("/stuck/{how}")
async def stuck(ws: Connection, how: str) -> None:
    await ws.send("stuck")
    await be_stuck(how)


@app.http("/stuck/{how}")
async def stuck_page(request: Request, how: str) -> str:
    await be_stuck(how)
    return "no more"


async def be_stuck(how: str) -> None:
    match how:
        case "shield":
            with trio.CancelScope(shield=True):
                await trio.sleep(3600)
        case "thread":
            await trio.to_thread.run_sync(time.sleep, 3600)
        case "swallow":
            while True:
                with suppress(trio.Cancelled):  # the mistake
                    await trio.sleep_forever()
        case "block":
            time.sleep(3600)  # noqa: ASYNC251 - the mistake
        case "sleep":
            await trio.sleep(3600)


@app.websocket("/date/{year}-{month}-{day}")
async def date(ws: Connection, year: str, month: str, day: str) -> None:
    await ws.send(f"{year} {month} {day}")


@app.websocket("/pair/{a}-{b}")
async def pair(ws: Connection, a: str, b: str) -> None:
    await ws.send(f"{a} {b}")


@app.websocket("/dots/{a}.{b}.{c}.{d}/{rest:path}/end")
async def dots(ws: Connection, a: str, b: str, c: str, d: str, rest: str) -> None:
    await ws.send(rest)


@app.websocket("/number/{number:int}/{real:float}")
async def number(ws: Connection, number: int, real: float) -> None:
    await ws.send(f"{number} {real}")


@app.websocket("/chat", subprotocols=["chat", "superchat"])
async def chat(ws: Connection) -> None:
    await ws.send(str(ws.subprotocol))


@app.http("/page/{size:int}")
async def page(request: Request, size: int) -> bytes:
    return b"x" * size


@app.http("/figures")
async def figures(request: Request) -> Response:
    """What the process has: for what cannot be seen from outside."""
    gc.collect()
    found = {
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "threads": threading.active_count(),
        "backlogs": sum(member.backlog_bytes for room in rooms.values() for member in room.members),
        "members": sum(len(room.members) for room in rooms.values()),
        **attrs.asdict(servers[0].statistics()),
    }
    return Response(json.dumps(found))


if settings.get("lifespan"):

    @app.lifespan
    async def lifespan(app: App) -> AsyncIterator[None]:
        match settings["lifespan"]:
            case "starting":
                print(0, flush=True)
                await trio.sleep(3600)
                yield
            case "ending":
                yield
                await trio.sleep(3600)
            case "exit":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(exit_soon)
                    yield


async def exit_soon() -> None:
    await trio.sleep(1)
    raise SystemExit(5)


def listening(server: Server) -> None:
    servers.append(server)
    print(server.port, flush=True)


if __name__ == "__main__":
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    context = None
    if "tls" in settings:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings["tls"])
    app.run("127.0.0.1", 0, ssl=context, on_listening=listening)
