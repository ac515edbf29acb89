from __future__ import annotations

import functools
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import trio
import trio_websocket

from tests.asking import Wrapper, accepted, answered, handler, plain, upgrade
from wsframework import plugins
from wsframework.app import App
from wsframework.config import Deflate, Keepalive, Limits, Timeouts
from wsframework.connection import Connection
from wsframework.errors import ConfigurationError, ListenError, PluginError, RouteError
from wsframework.request import Request, Response
from wsframework.server import Server
from wsframework.wire import build_request

# Settings


def test_an_app_has_the_default_settings_or_those_it_was_given() -> None:
    app = App()
    assert (app.limits, app.timeouts, app.keepalive) == (Limits(), Timeouts(), Keepalive())
    assert app.compression is None
    limits, timeouts, keepalive = Limits(unread_bytes=1), Timeouts(close=1), Keepalive(interval=None)
    app = App(limits=limits, timeouts=timeouts, keepalive=keepalive, compression=Deflate())
    assert app.limits is limits
    assert app.timeouts is timeouts
    assert app.keepalive is keepalive
    assert app.compression == Deflate()


def test_an_origin_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"'example\.com' is no origin"):
        App(origins=["example.com"])
    with pytest.raises(ConfigurationError, match=r"'example\.com' is no origin"):
        App().websocket("/ws", origins="example.com")
    with pytest.raises(ConfigurationError, match=r"'example\.com' is no origin"):
        App().http("/page", origins="example.com")


# Registering


def test_decorators_return_the_function_they_were_given() -> None:
    app = App()

    async def page(request: Request) -> str:
        return "hello"

    async def check(request: Request) -> None: ...

    async def around(ws: Connection) -> AsyncIterator[None]:
        yield

    async def life() -> AsyncIterator[None]:
        yield

    assert app.websocket("/ws")(handler) is handler
    assert app.http("/page")(page) is page
    assert app.guard(check) is check
    assert app.wrap(around) is around
    assert app.lifespan(life) is life


def test_routes_are_listed_with_websockets_first() -> None:
    app = App()

    @app.http("/page")
    async def page(request: Request) -> str:
        return "hello"

    app.websocket("/b", subprotocols=["chat", "draw"])(handler)
    app.websocket("/a")(handler)
    listed = [(route.kind, route.template.text, route.keys, route.name) for route in app.routes]
    assert listed == [
        ("websocket", "/b", ("chat", "draw"), "handler"),
        ("websocket", "/a", (None,), "handler"),
        ("http", "/page", ("GET", "HEAD"), listed[2][3]),
    ]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"path": "ws"}, "a path starts with '/'"),
        ({"path": "/{a:number}"}, "unknown converter 'number'"),
        ({"path": "/{room}"}, "cannot be called as handler(ws, room)"),
        ({"path": "/ws", "compression": "off"}, "compression is a Deflate, None or \"app\", not 'off'"),
        ({"path": "/ws", "subprotocols": "chat"}, "write ['chat'], not 'chat'"),
        ({"path": "/taken"}, "path '/taken' is already registered for no subprotocol: handler at "),
        ({"path": "/taken", "subprotocols": ["x", "chat"]}, "is already registered for subprotocol 'chat'"),
    ],
)
def test_a_websocket_that_cannot_be_registered_is_refused_with_the_reason(
    arguments: dict[str, Any], why: str
) -> None:
    app = App()
    app.websocket("/taken")(handler)
    app.websocket("/taken", subprotocols=["chat"])(handler)
    with pytest.raises(RouteError) as caught:
        app.websocket(**arguments)(handler)
    assert why in str(caught.value)
    assert len(app.routes) == 2


def test_a_page_that_cannot_be_registered_is_refused_with_the_reason() -> None:
    app = App()

    async def page(request: Request) -> str:
        return ""

    app.http("/page")(page)
    with pytest.raises(RouteError, match="already registered for HEAD"):
        app.http("/page", methods=["HEAD"])(page)
    with pytest.raises(RouteError, match=r"cannot be called as .*page\(request, name\)"):
        app.http("/{name}")(page)


def not_async(request: Request) -> None: ...


@pytest.mark.parametrize("guard", [not_async, "token", None])
def test_a_guard_that_is_not_async_is_refused(guard: Any) -> None:
    app = App()
    expected = r"a guard is an async function of the request \(async def\)"
    with pytest.raises(ConfigurationError, match=expected):
        app.guard(guard)
    with pytest.raises(ConfigurationError, match=expected):
        app.websocket("/ws", guards=[guard])
    with pytest.raises(ConfigurationError, match=expected):
        app.http("/ws", guards=[guard])


async def of_a_room(request: Request, room: str) -> None: ...


def test_a_guard_that_names_what_is_not_in_the_path_is_refused() -> None:
    app = App()
    for register in (app.websocket, app.http):
        with pytest.raises(ConfigurationError, match="asks for 'room', which is no parameter of the path"):
            register("/{place}", guards=[of_a_room])
    with pytest.raises(ConfigurationError, match="a guard of the App is called on every path"):
        app.guard(of_a_room)  # type: ignore[type-var]


async def lenient(request: Request) -> None: ...


@pytest.mark.parametrize("guards", [lenient, None])
def test_guards_that_are_no_list_are_refused_with_what_to_write(guards: Any) -> None:
    for register in (App().websocket, App().http):
        with pytest.raises(ConfigurationError, match="guards is a list of async functions"):
            register("/ws", guards=guards)


async def forgot_the_yield(ws: Connection) -> None: ...


@pytest.mark.parametrize("kind", ["wrapper", "lifespan"])
def test_what_is_no_context_manager_is_refused_with_the_reason(kind: str) -> None:
    app = App()
    register: Any = app.wrap if kind == "wrapper" else app.lifespan
    with pytest.raises(ConfigurationError, match=f"a {kind} is a function that returns .*, not 'x'"):
        register("x")
    with pytest.raises(ConfigurationError, match=f"the {kind} forgot_the_yield has no yield: write 'yield'"):
        register(forgot_the_yield)


# Lifespans


def living(app: App, log: list[str]) -> None:
    """Register one lifespan of every kind."""

    @app.lifespan
    async def generator(app: App) -> AsyncIterator[None]:
        log.append(f"generator entered with {type(app).__name__}")
        try:
            yield
        finally:
            log.append("generator left")

    @app.lifespan
    @asynccontextmanager
    async def manager() -> AsyncIterator[None]:
        log.append("manager entered")
        try:
            yield
        finally:
            log.append("manager left")

    class Database(AbstractAsyncContextManager[None]):
        async def __aenter__(self) -> None:
            log.append("database entered")

        async def __aexit__(self, *error: object) -> None:
            log.append("database left")

    app.lifespan(Database)


ENTERED = ["generator entered with App", "manager entered", "database entered"]
LEFT = ["database left", "manager left", "generator left"]


async def test_lifespans_are_entered_in_order_and_left_in_reverse() -> None:
    app, log = App(), list[str]()
    living(app, log)
    async with app.running() as running:
        assert running is app
        assert log == ENTERED
    assert log == ENTERED + LEFT


async def test_a_lifespan_that_fails_leaves_those_before_it_and_serves_nothing() -> None:
    app, log = App(), list[str]()
    living(app, log)

    @app.lifespan
    async def broken() -> AsyncIterator[None]:
        if log:
            raise LookupError("no database")
        yield

    with pytest.raises(LookupError, match="no database"):
        await app.serve(port=0)
    assert log == ENTERED + LEFT


# Plugins


class Greeting:
    """A plugin that brings one of everything."""

    def __init__(self, path: str = "/greet") -> None:
        self.path = path

    def install(self, app: App, /) -> None:
        app.websocket(self.path)(handler)

        @app.http(self.path + "/page")
        async def page(request: Request) -> str:
            return "hello"

        app.guard(lenient)
        app.wrap(Wrapper("plugin", []))


async def test_a_plugin_brings_routes_guards_and_wrappers() -> None:
    app = App()
    app.install(Greeting())
    assert [route.template.text for route in app.routes] == ["/greet", "/greet/page"]
    await accepted(app, upgrade("/greet"))
    assert (await answered(app, plain("/greet/page"))).body == b"hello"


def test_a_plugin_is_installed_by_name_with_options(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("greeting", f"{__name__}:Greeting", plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
    app = App()
    app.install("greeting", path="/hi")
    app.install("greeting", path="/hello")  # another instance
    assert [route.template.text for route in app.routes if route.kind == "websocket"] == ["/hi", "/hello"]
    with pytest.raises(PluginError, match="there is no plugin 'missing'"):
        app.install("missing")
    with pytest.raises(PluginError, match="plugin 'greeting' could not be installed: path '/hi' is already"):
        app.install("greeting", path="/hi")


def test_the_same_plugin_object_is_installed_once() -> None:
    app, plugin = App(), Greeting()
    app.install(plugin)
    with pytest.raises(PluginError, match="is installed already"):
        app.install(plugin)


def test_a_plugin_that_fails_is_not_installed_and_says_why() -> None:
    class Broken:
        def __repr__(self) -> str:
            return "<Broken>"

        def install(self, app: App, /) -> None:
            raise LookupError("no database")

    app, plugin = App(), Broken()
    for _ in range(2):
        with pytest.raises(PluginError) as caught:
            app.install(plugin)
        assert str(caught.value) == "plugin <Broken> could not be installed: no database"
        assert isinstance(caught.value.__cause__, LookupError)


def test_what_is_no_plugin_is_refused_with_what_to_do() -> None:
    with pytest.raises(PluginError, match=r"install an instance: Greeting\(\)"):
        App().install(Greeting)  # type: ignore[arg-type]
    with pytest.raises(PluginError, match="options are for a plugin given by name"):
        App().install(Greeting(), path="/hi")


# Serving, on a real socket


def echo() -> App:
    app = App()

    @app.websocket("/echo", subprotocols=["echo"])
    async def talk(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    return app


async def exchange(port: int) -> None:
    url = f"ws://127.0.0.1:{port}/echo"
    with trio.fail_after(30):
        async with trio_websocket.open_websocket_url(url, subprotocols=["echo"]) as client:
            await client.send_message("hello")
            assert await client.get_message() == "hello"
            assert client.subprotocol == "echo"


async def test_serve_starts_like_any_trio_server_and_lives_within_its_lifespans(
    nursery: trio.Nursery,
) -> None:
    app, log = echo(), list[str]()
    living(app, log)
    over = trio.Event()

    async def serve(*, task_status: trio.TaskStatus[Server]) -> None:
        try:
            await app.serve("127.0.0.1", 0, task_status=task_status)
        finally:
            over.set()

    server: Server = await nursery.start(serve)
    assert log == ENTERED
    await exchange(server.port)
    server.stop()
    with trio.fail_after(30):
        await over.wait()
    assert log == ENTERED + LEFT


async def test_serve_takes_a_unix_path(nursery: trio.Nursery, tmp_path: Any) -> None:
    path = str(tmp_path / "chat.sock")
    server: Server = await nursery.start(functools.partial(echo().serve, unix_path=path))
    assert [address.host for address in server.addresses] == [path]
    stream = await trio.open_unix_socket(path)
    async with trio_websocket_client(stream) as client:
        await client.send_message("hello")
        assert await client.get_message() == "hello"
    nursery.cancel_scope.cancel()


@asynccontextmanager
async def trio_websocket_client(
    stream: Any,
) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    async with trio.open_nursery() as nursery:
        client = await trio_websocket.wrap_client_stream(
            nursery, stream, "localhost", "/echo", subprotocols=["echo"]
        )
        yield client
        await client.aclose()


async def test_an_address_that_cannot_be_listened_on_is_a_listen_error() -> None:
    with pytest.raises(ListenError):
        await App().serve("192.0.2.1", 0)  # TEST-NET-1 (RFC 5737): never ours


async def test_an_app_is_a_handler_for_trio_websockets_own_server(nursery: trio.Nursery) -> None:
    app, log = echo(), list[str]()
    living(app, log)
    async with app.running():
        server = await nursery.start(
            functools.partial(trio_websocket.serve_websocket, app, "127.0.0.1", 0, None)
        )
        assert log == ENTERED
        await exchange(server.port)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("why", "status", "line"), [("caf\xe9", b"403", b"\r\nx-why: caf\xe9\r\n"), ("☃", b"500", b"\r\n")]
)
async def test_a_refusal_with_any_header_value_does_not_stop_trio_websockets_server(
    nursery: trio.Nursery, why: str, status: bytes, line: bytes
) -> None:
    app = echo()

    @app.guard
    async def refuse(request: Request) -> Response | None:
        return Response("no", 403, {"X-Why": why}) if request.query else None

    server = await nursery.start(functools.partial(trio_websocket.serve_websocket, app, "127.0.0.1", 0, None))
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(build_request("localhost", "/echo?refuse=1", key, subprotocols=["echo"]))
        with trio.fail_after(30):
            answer = b"".join([data async for data in stream])
    assert answer.split()[1] == status
    assert line in answer.lower()
    await exchange(server.port)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_serves_until_a_signal_and_returns(number: signal.Signals) -> None:
    app, log = App(), list[str]()
    living(app, log)
    servers: list[Server] = []

    def on_listening(server: Server) -> None:
        servers.append(server)
        os.kill(os.getpid(), number)

    app.run(port=0, on_listening=on_listening)
    assert servers[0].draining
    assert log == ENTERED + LEFT


def test_run_raises_a_mistake_in_the_set_up_alone() -> None:
    with pytest.raises(ListenError):
        App().run("192.0.2.1", 0)
