"""A running server, as its users see it; what it does is tested in test_native and in the promises."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.server.serving import QUICK
from wsframework import WrongThread
from wsframework.config import Limits
from wsframework.request import Address, Request, Response
from wsframework.server import Server
from wsframework.server.core import Core
from wsframework.server.requests import Requests
from wsframework.session import Acceptance


def plain_server(nursery: trio.Nursery, *addresses: Address, secure: bool = False) -> Server:
    """Return a server as its users see it, with nothing behind it."""

    async def decide(request: Request) -> Acceptance | Response:
        return Response("here")

    core = Core(limits=Limits(), timeouts=QUICK, secure=secure, observers=())
    return Server(core, Requests(core, decide), addresses, nursery)


async def test_its_port_and_urls_are_those_of_its_addresses(nursery: trio.Nursery) -> None:
    server = plain_server(nursery, Address("127.0.0.1", 80), Address("::1", 80))
    assert server.port == 80
    assert server.urls == ("ws://127.0.0.1:80", "ws://[::1]:80")
    assert plain_server(nursery, Address("127.0.0.1", 443), secure=True).urls == ("wss://127.0.0.1:443",)


async def test_a_unix_socket_has_no_port_and_no_url(nursery: trio.Nursery) -> None:
    server = plain_server(nursery, Address("/run/socket"))
    assert server.urls == ()
    with pytest.raises(RuntimeError, match="unix socket"):
        _ = server.port


async def test_a_server_that_stops_takes_no_more_streams(nursery: trio.Nursery) -> None:
    server = plain_server(nursery)
    server.stop()
    stream, _ = trio.testing.memory_stream_pair()
    with pytest.raises(RuntimeError, match="begun to stop"):
        server.serve_soon(stream, Address(""), Address(""))


async def test_it_belongs_to_the_run_that_it_was_made_in(nursery: trio.Nursery) -> None:
    server = plain_server(nursery)
    seen: list[bool] = []

    def in_another_thread() -> None:
        trio.from_thread.run_sync(server.stop, trio_token=server.trio_token)
        seen.append(server.draining)

    await trio.to_thread.run_sync(in_another_thread)
    assert seen == [True]
    await server.wait_stopping()


@pytest.mark.parametrize(
    "call", [Server.stop, lambda server: server.serve_soon(None, Address(""), Address(""))]
)
async def test_a_call_from_another_thread_changes_nothing(
    nursery: trio.Nursery, call: Callable[[Server], None]
) -> None:
    server = plain_server(nursery)

    def in_another_thread() -> None:
        with pytest.raises(WrongThread):
            call(server)

    await trio.to_thread.run_sync(in_another_thread)
    assert not server.draining


async def test_another_thread_posts_and_does_not_wait(nursery: trio.Nursery) -> None:
    server = plain_server(nursery)
    thread = threading.Thread(target=server.post, args=(server.stop,))
    thread.start()
    thread.join()
    assert not server.draining
    await server.wait_stopping()


async def test_it_has_stopped_when_its_lifetime_says_so(nursery: trio.Nursery) -> None:
    core = Core(limits=Limits(), timeouts=QUICK, secure=False, observers=())

    async def decide(request: Request) -> Response:
        return Response("here")

    server = Server(core, Requests(core, decide), (), nursery)
    assert not server.stopped
    core.lifetime.stopped.set()
    await server.wait_stopped()
    assert server.stopped
