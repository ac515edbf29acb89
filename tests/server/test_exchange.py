"""Plain HTTP on the wire: bodies, and connections that go on, on both transports, with and without TLS."""

from __future__ import annotations

import attrs
import pytest
import trio

from tests.server.plain import Client, Contexts, get, port, post
from tests.server.serving import QUICK
from tests.waiting import until
from wsframework import App, Connection, Limits, Reject, Request, Response, Timeouts
from wsframework.wire import build_request

LASTING = attrs.evolve(QUICK, keep_alive=60.0, handshake=30.0, body=30.0, http=30.0, close=30.0)
UPGRADE = build_request("x", "/ws", "dGhlIHNhbXBsZSBub25jZQ==")


def new_app(timeouts: Timeouts = LASTING, *, trusted_proxies: tuple[str, ...] = ()) -> App:
    limits = Limits(body_bytes=200_000, connections_per_address=2 if trusted_proxies else None)
    app = App(limits=limits, timeouts=timeouts, trusted_proxies=trusted_proxies)

    @app.http("/echo", methods=["GET", "POST"])
    async def echo(request: Request) -> Response:
        return Response(await request.body(), content_type="text/plain")

    @app.http("/unread", methods=["POST"])
    async def unread(request: Request) -> str:
        return "not read"

    @app.http("/page")
    async def page(request: Request) -> str:
        return request.query.get("say", "page") * int(request.query.get("times", "1"))

    @app.http("/last")
    async def last(request: Request) -> Response:
        return Response("the last", headers={"Connection": "close"})

    @app.http("/crash", methods=["POST"])
    async def crash(request: Request) -> str:
        raise ZeroDivisionError

    @app.http("/remote")
    async def remote(request: Request) -> str:
        return str(request.remote)

    @app.websocket("/ws")
    async def ws(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    return app


def chunks(path: str, *pieces: bytes) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))
    return get(path, "Transfer-Encoding: chunked", method="POST") + body


LARGE = bytes(range(256)) * 700


@pytest.mark.parametrize("step", [1_000_000, 7])
async def test_requests_of_one_connection_are_answered_one_after_the_other(
    kind: str, contexts: Contexts, step: int
) -> None:
    asked = (
        post("/echo", "one")
        + get("/page")
        + chunks("/echo", b"tw", b"o")
        + get("/page?say=x", method="HEAD")
        + get("/nothing")
        + post("/unread", "dropped")
        + get("/echo")
        + post("/crash", "")
        + get("/page?say=last")
    )
    async with port(kind, contexts, new_app()) as served, served.connect() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, *[asked[at : at + step] for at in range(0, len(asked), step)])
            assert await client.answer() == (200, b"one")
            assert await client.answer() == (200, b"page")
            assert await client.answer() == (200, b"two")
            assert await client.answer(head_only=True) == (200, b"")
            assert (await client.answer())[0] == 404
            assert await client.answer() == (200, b"not read")
            assert await client.answer() == (200, b"")
            assert (await client.answer())[0] == 500
            assert await client.answer() == (200, b"last")
        assert served.server.statistics().accepted == 1


async def test_large_bodies_and_large_answers_take_turns(kind: str, contexts: Contexts) -> None:
    async with port(kind, contexts, new_app()) as served, served.connect() as client:
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, post("/echo", LARGE) + get("/page?times=1000000"))
                assert await client.answer() == (200, LARGE)
                assert await client.answer() == (200, b"page" * 1_000_000)


async def test_an_upgrade_may_follow_on_the_same_connection(kind: str, contexts: Contexts) -> None:
    async with port(kind, contexts, new_app()) as served, served.connect() as client:
        await client.send(post("/echo", "first") + UPGRADE + b"\x81\x81\0\0\0\0A")
        assert await client.answer() == (200, b"first")
        assert await client.answer() == (101, b"")
        while len(client.data) < 3:
            assert await client._more()
        assert client.data == b"\x81\x01A"
        assert served.server.statistics().websockets == 1


@pytest.mark.parametrize(
    "asked",
    [
        get("/page", "Connection: close"),
        get("/page", "Connection: x, Close"),
        get("/page", version="1.0"),
        get("/page", "Connection: keep-alive", version="1.0"),
        get("/last"),
        post("/unread", "x" * 100_000),
        post("/echo", "x" * 200_001),
        chunks("/unread", b"x")[:-1],
        chunks("/echo", b"x" * 200_001),
        get("/echo", "Transfer-Encoding: chunked", method="POST") + b"x\r\n",
        get("/echo", "Content-Length: 5", "Transfer-Encoding: chunked", method="POST"),
        get("/nothing", *UPGRADE.decode().split("\r\n")[2:-2]),
    ],
    ids=lambda asked: asked[:60].decode(),
)
async def test_after_some_answers_the_connection_ends(kind: str, contexts: Contexts, asked: bytes) -> None:
    async with port(kind, contexts, new_app()) as served, served.connect() as client:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, asked + get("/page?say=smuggled"))
                await client.answer()
                assert await client.at_end()
                nursery.cancel_scope.cancel()


async def test_a_client_that_waits_for_100_continue_gets_it_when_its_body_is_wanted(
    kind: str, contexts: Contexts
) -> None:
    async with port(kind, contexts, new_app()) as served, served.connect() as client:
        await client.send(get("/page", "Expect: 100-continue"))
        assert await client.answer() == (200, b"page")
        for _ in range(2):
            await client.send(get("/echo", "Content-Length: 5", "Expect: 100-Continue", method="POST"))
            assert await client.answer() == (100, b"")
            await client.send(b"he", b"llo")
            assert await client.answer() == (200, b"hello")


async def test_a_client_whose_body_is_not_wanted_need_not_send_it(kind: str, contexts: Contexts) -> None:
    async with port(kind, contexts, new_app()) as served, served.connect() as client:
        await client.send(get("/unread", "Content-Length: 5", "Expect: 100-continue", method="POST"))
        assert await client.answer() == (200, b"not read")
        assert await client.at_end(), "what comes next could be the body, or another request"


async def test_a_body_is_read_by_guards_and_given_functions_too(kind: str, contexts: Contexts) -> None:
    app = new_app()

    async def signed(request: Request) -> None:
        if not (await request.body()).endswith(b"!"):
            raise Reject(403, "unsigned")

    async def word(request: Request) -> str:
        return (await request.text()).strip("!")

    async def hook(request: Request, word: str) -> str:
        assert await request.body() is await request.body()
        return word

    app.http("/hook", methods=["POST"], guards=[signed], given={"word": word})(hook)
    async with port(kind, contexts, app) as served, served.connect() as client:
        await client.send(post("/hook", "hello!")[:-3], b"lo!")
        assert await client.answer() == (200, b"hello")
        await client.send(post("/hook", "hello"))
        assert (await client.answer())[0] == 403


@pytest.mark.parametrize("leave", ["FIN", "close"])
async def test_a_client_that_leaves_in_its_body_is_counted_out(
    kind: str, contexts: Contexts, leave: str
) -> None:
    app, seen = new_app(), list[int]()

    @app.http("/hook", methods=["POST"])
    async def hook(request: Request) -> str:
        try:
            return await request.text()
        except Reject as reject:
            seen.append(reject.status)
            raise

    async with port(kind, contexts, app) as served:
        async with served.connect() as client:
            await client.send(post("/hook", "hello")[:-1])
            await until(lambda: served.server.statistics().connections == 1)
            if leave == "FIN" and isinstance(client.stream, trio.SocketStream):
                await client.stream.send_eof()
                assert (await client.answer())[0] == 400
                assert await client.at_end()
        await until(lambda: seen)
        await until(lambda: served.server.statistics().connections == 0)
    assert seen == [400]


async def test_a_body_that_stops_coming_is_408(kind: str, contexts: Contexts) -> None:
    app = new_app(attrs.evolve(LASTING, body=0.1, http=0.05))
    async with port(kind, contexts, app) as served, served.connect() as client:
        await client.send(post("/echo", "hello")[:-1])
        assert (await client.answer())[0] == 408
        assert await client.at_end()


async def test_a_rest_that_does_not_come_ends_the_connection(kind: str, contexts: Contexts) -> None:
    app = new_app(attrs.evolve(LASTING, body=0.1))
    async with port(kind, contexts, app) as served, served.connect() as client:
        await client.send(post("/unread", "hello")[:-1])
        assert await client.answer() == (200, b"not read")
        assert await client.at_end()
        await until(lambda: served.server.statistics().connections == 0)


async def test_an_idle_connection_ends_after_its_time_and_one_with_half_a_head_is_told(
    kind: str, contexts: Contexts
) -> None:
    app = new_app(attrs.evolve(LASTING, keep_alive=0.1, handshake=0.3))
    async with port(kind, contexts, app) as served:
        async with served.connect() as client:
            await client.send(get("/page"))
            assert await client.answer() == (200, b"page")
            assert await client.at_end()
        async with served.connect() as client:
            await client.send(get("/page") + b"GET / HT")
            assert await client.answer() == (200, b"page")
            assert (await client.answer())[0] == 408
            assert await client.at_end()
        await until(lambda: served.server.statistics().connections == 0)


async def test_without_keep_alive_every_answer_is_the_last(kind: str, contexts: Contexts) -> None:
    async with port(kind, contexts, new_app(QUICK)) as served, served.connect() as client:
        await client.send(get("/page"))
        assert await client.answer() == (200, b"page")
        assert await client.at_end()


async def test_a_server_that_stops_ends_idle_connections_at_once_and_others_after_their_answer(
    kind: str, contexts: Contexts
) -> None:
    app, going = new_app(attrs.evolve(LASTING, drain=30.0)), trio.Event()
    begun = trio.Event()

    @app.http("/slow")
    async def slow(request: Request) -> str:
        begun.set()
        await going.wait()
        return "slow"

    async with (
        port(kind, contexts, app) as served,
        served.connect() as idle,
        served.connect() as busy,
    ):
        await idle.send(get("/page"))
        assert await idle.answer() == (200, b"page")
        await busy.send(get("/slow") + get("/page"))
        await begun.wait()
        served.server.stop()
        with trio.fail_after(20):
            assert await idle.at_end()
            going.set()
            assert await busy.answer() == (200, b"slow")
            assert await busy.at_end()


async def test_each_request_of_a_trusted_proxy_is_its_own_clients(kind: str, contexts: Contexts) -> None:
    app = new_app(trusted_proxies=("127.0.0.1",))
    async with port(kind, contexts, app) as served:

        async def ask(client: Client, address: str) -> tuple[int, bytes]:
            await client.send(get("/remote", f"X-Forwarded-For: {address}"))
            return await client.answer()

        async with served.connect() as first, served.connect() as second, served.connect() as third:
            for number in range(5):
                for client in (first, second, third):
                    address = f"192.0.2.{number}"
                    if client is not third:
                        assert await ask(client, address) == (200, address.encode())
            # The proxy's connections count for the client of the request that is being answered.
            assert await ask(third, "192.0.2.9") == (200, b"192.0.2.9")
        await until(lambda: served.server.statistics().connections == 0)


async def test_a_hundred_connections_that_end_anywhere_leave_nothing_behind(
    kind: str, contexts: Contexts
) -> None:
    asked = post("/echo", "hello") + chunks("/unread", b"x") + get("/page")
    async with port(kind, contexts, new_app()) as served:
        for cut in range(0, len(asked), 4):
            async with served.connect() as client:
                await client.send(asked[:cut])
                if cut % 3:
                    await trio.sleep(0.001)
        async with served.connect() as client:
            await client.send(get("/page"))
            assert await client.answer() == (200, b"page")
        await until(lambda: served.server.statistics().connections == 0)
