"""What several tests of the server stand on: transports without sockets, pairs of sockets, pollers, TLS."""

from __future__ import annotations

import select
import socket as stdlib_socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import trio
import trustme

from tests.server.desk import Desk
from tests.server.framed import Make, Transport
from wsframework.config import Limits, Timeouts
from wsframework.server.core import Core
from wsframework.server.hub import Hub, tune
from wsframework.server.pollers import EpollPoller, Poller, SelectorPoller
from wsframework.timers import Timers

Sockets = list[stdlib_socket.socket]
Pair = tuple[stdlib_socket.socket, stdlib_socket.socket]

POLLERS: list[Callable[[], Poller]] = [SelectorPoller]
if hasattr(select, "epoll"):
    POLLERS.append(EpollPoller)


@pytest.fixture(params=POLLERS, ids=lambda poller: poller.__name__)
def poller(request: pytest.FixtureRequest) -> Poller:
    made: Poller = request.param()
    return made


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two connected sockets; the first is ready for the hub."""
    ours, theirs = stdlib_socket.socketpair()
    tune(ours)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture(scope="session")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's TLS context for "localhost", and a client's that trusts it."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


@pytest.fixture(params=["hub", "hub-tls", "stream", "stream-tls"])
def kind(request: pytest.FixtureRequest) -> str:
    """What `tests.server.plain.port` serves with."""
    return str(request.param)


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Make transports whose timers run."""
    timers = Timers()

    def make(
        *, limits: Limits | None = None, timeouts: Timeouts | None = None, deflate: bool = False
    ) -> Transport:
        return Transport(timers, limits or Limits(), timeouts or Timeouts(), deflate)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        yield make
        nursery.cancel_scope.cancel()


@pytest.fixture
async def transport(make: Make) -> Transport:
    return make()


@pytest.fixture
async def hub(poller: Poller) -> AsyncIterator[Hub]:
    """A hub that runs."""
    hub = Hub(poller)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        yield hub
        nursery.cancel_scope.cancel()
    hub.close()


@pytest.fixture
async def core_and_hub() -> AsyncIterator[tuple[Core, Hub]]:
    core = Core(
        limits=Limits(head_bytes=1000),
        timeouts=Timeouts(handshake=0.1, close=0.1),
        secure=False,
        observers=(),
    )
    hub = Hub()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        nursery.start_soon(core.timers.run)
        with trio.fail_after(120):
            yield core, hub
        nursery.cancel_scope.cancel()
    hub.close()


@pytest.fixture
async def desk(core_and_hub: tuple[Core, Hub]) -> AsyncIterator[Desk]:
    desk = Desk(*core_and_hub)
    yield desk
    if desk.listener.fileno() >= 0:
        desk.pollee.close()


@pytest.fixture
def opened() -> Iterator[Sockets]:
    """Sockets that are closed at the end of the test."""
    sockets: Sockets = []
    yield sockets
    for socket in sockets:
        socket.close()
