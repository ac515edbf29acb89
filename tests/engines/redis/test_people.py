"""Users and closed rooms over three nodes, when connections to Redis are lost, and from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.engines.redis.redis_server import Proxy, RedisServer
from tests.fake_transport import FakeTransport
from tests.fake_transport import connect as fake_connect
from tests.rooms.stage import full
from tests.waiting import until
from wsframework import CloseFrame, Rooms, RoomUnavailable
from wsframework.engines.redis import Publisher, RedisEngine
from wsframework.testing import cancel_everywhere

BANNED = CloseFrame(4403, "you are banned")


@asynccontextmanager
async def nodes(*urls: str, outage: float = 5.0) -> AsyncIterator[list[Rooms]]:
    """Give the rooms of one node for each URL."""
    async with AsyncExitStack() as stack:
        found = []
        for url in urls:
            engine = RedisEngine(url, outage=outage)
            await stack.enter_async_context(engine.run())
            found.append(Rooms(engine=engine))
        yield found


async def test_a_user_is_reached_at_all_nodes_and_disconnected_there(redis: RedisServer) -> None:
    async with nodes(*[redis.url] * 3) as all_rooms, AsyncExitStack() as stack:
        mine = [fake_connect() for _ in all_rooms]
        slow = full()
        other = fake_connect()
        for rooms, transport in zip(all_rooms, mine, strict=True):
            await stack.enter_async_context(rooms.user("ada").join(transport.connection))
        await stack.enter_async_context(all_rooms[1].user("ada").join(slow.connection))
        await stack.enter_async_context(all_rooms[1].user("bob").join(other.connection))
        await all_rooms[2].user("ada").publish("for you")
        with trio.fail_after(30):
            await all_rooms[0].disconnect("ada", BANNED.code, BANNED.reason)
            await until(lambda: all(transport.closes == [BANNED] for transport in [*mine, slow]))
        assert all(transport.texts == ["for you"] for transport in mine)
        assert other.closes == []


async def test_a_room_is_closed_at_all_nodes_in_its_place_among_the_messages(redis: RedisServer) -> None:
    async with nodes(*[redis.url] * 3) as all_rooms, AsyncExitStack() as stack:
        transports = [fake_connect() for _ in all_rooms]
        for rooms, transport in zip(all_rooms, transports, strict=True):
            await stack.enter_async_context(rooms["closing"].join(transport.connection))
            await rooms["closing"].engine.wait_subscribed("closing")
        room = all_rooms[0]["closing"]
        room.broadcast("before")
        assert room.close(4000, "enough") == 0
        room.broadcast("after")
        await until(lambda: all(transport.closes for transport in transports))
        await room.publish("the last")
        assert all(transport.texts == ["before"] for transport in transports)
        assert all(transport.closes == [CloseFrame(4000, "enough")] for transport in transports)


async def test_who_has_joined_as_a_user_does_not_miss_a_disconnect_of_another_node(
    redis: RedisServer,
) -> None:
    async with nodes(redis.url, redis.url) as (here, there):
        for number in range(50):
            transport = fake_connect()
            async with here.user(number).join(transport.connection):
                await there.disconnect(number, 4403)
                await until(lambda closed=transport: closed.closes == [CloseFrame(4403)])  # type: ignore[misc]


async def test_a_node_that_was_cut_off_disconnects_when_it_is_back(redis: RedisServer) -> None:
    proxy = Proxy(redis.port)
    async with proxy.running(), nodes(proxy.url, redis.url) as (here, there):
        transport = fake_connect()
        async with here.user("cut").join(transport.connection):
            proxy.swallow = True
            proxy.cut()
            await there.disconnect("cut", BANNED.code, BANNED.reason)
            await trio.sleep(0.05)
            assert transport.closes == []
            proxy.swallow = False
            proxy.cut()
            await until(lambda: transport.closes == [BANNED])


async def test_without_redis_a_user_is_not_joined_and_not_disconnected(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    async with server.running(), nodes(server.url, outage=0.3) as (rooms,):
        transport = fake_connect()
        async with rooms.user("stays").join(transport.connection):
            server.kill()
            joining: list[Callable[[], Awaitable[object]]] = [
                lambda: rooms.user("new").enter(fake_connect().connection),
                lambda: rooms.user("new").join(fake_connect().connection).__aenter__(),
                lambda: rooms.disconnect("stays", 4403),
            ]
            for call in joining:
                with trio.fail_after(30), pytest.raises(RoomUnavailable):
                    await call()
            assert rooms.user("new").members == ()
            # Another connection may join: what happens to the user is read from the history.
            async with rooms.user("stays").join(fake_connect().connection):
                pass
            assert transport.closes == []


@pytest.mark.parametrize(
    "envelope", [b"c", b"c\x03", b"c\x03\xed", b"c\x03\xe8\xff", b"c\x03\xe8" + b"x" * 124, b"3close"]
)
async def test_what_no_engine_has_written_is_logged_and_closes_nobody(
    envelope: bytes, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with nodes(redis.url) as (rooms,):
        transport = fake_connect()
        async with rooms.user("mallory").join(transport.connection):
            position = await rooms.user("mallory").publish("x")
            epoch, offset, _ = position.split(".")
            stream = await trio.open_tcp_stream("127.0.0.1", redis.port)
            head = f"m {epoch} {int(offset) + 1} 1\nabcdef012345 {len(envelope)}:".encode()
            channel, payload = b"ws:{r/%00user%2Fmallory}", head + envelope
            parts = (b"PUBLISH", channel, payload)
            async with stream:
                await stream.send_all(
                    b"*3\r\n" + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])
                )
                assert await stream.receive_some(100) == b":1\r\n"
            await until(lambda: "room.malformed" in caplog.text)
            assert transport.closes == []
            assert rooms.user("mallory").has_members


async def test_a_client_that_subscribes_and_unsubscribes_does_not_delay_others(redis: RedisServer) -> None:
    proxy = Proxy(redis.port)
    async with proxy.running(), nodes(proxy.url, outage=10) as (rooms,):
        proxy.delay = 0.1
        ws = fake_connect().connection
        for number in range(500):
            (await rooms[f"fickle {number}"].enter(ws)).leave()
        # The histories of all those rooms would take 25 s.
        member = await rooms.user("patient").enter(ws)
        member.leave()


class Nodes:
    """A user with a connection at each of two nodes."""

    def __init__(self, all_rooms: list[Rooms], transports: list[FakeTransport]) -> None:
        self.rooms = all_rooms
        self.transports = transports

    async def disconnect(self) -> None:
        await self.rooms[0].disconnect("ada", 4403)

    async def check(self) -> None:
        # What was sent before it has arrived when this has.
        await self.rooms[1].user("ada").publish("x")
        await self.rooms[0].user("ada").publish("x")
        one, other = [transport.closes for transport in self.transports]
        await until(lambda: one == other)


async def test_a_disconnect_that_is_cancelled_anywhere_closes_all_or_nobody(redis: RedisServer) -> None:
    async with nodes(redis.url, redis.url) as all_rooms:

        @asynccontextmanager
        async def ready() -> AsyncIterator[Nodes]:
            transports = [fake_connect() for _ in all_rooms]
            async with AsyncExitStack() as stack:
                for rooms, transport in zip(all_rooms, transports, strict=True):
                    await stack.enter_async_context(rooms.user("ada").join(transport.connection))
                yield Nodes(all_rooms, transports)

        report = await cancel_everywhere(Nodes.disconnect, Nodes.check, setup=ready)
        assert report.cancelled


async def test_joining_as_a_user_may_be_cancelled_anywhere(redis: RedisServer) -> None:
    async with nodes(redis.url) as (rooms,):
        transport = fake_connect()

        async def join() -> None:
            async with rooms.user("ada").join(transport.connection, "x"):
                pass

        def check() -> None:
            memberships = transport.connection.endpoint.memberships
            assert rooms.user("ada").members == ()
            assert memberships is None or memberships.count == 0

        assert (await cancel_everywhere(join, check)).cancelled


async def test_a_program_without_trio_writes_to_a_user_and_disconnects_it(redis: RedisServer) -> None:
    def outside() -> None:
        with Publisher(redis.url) as publisher:
            assert publisher.publish_to_user(42, "for you", key="once")
            assert publisher.publish_to_user("42", "for you", key="once")
            publisher.publish("\0user/42", "no room reaches a user")
            publisher.disconnect(42, BANNED.code, BANNED.reason)
            for wrong in (
                lambda: publisher.disconnect(42, 1005),
                lambda: publisher.publish_to_user(42, "", key=""),
            ):
                with pytest.raises(ValueError, match=r"close code|a key has"):
                    wrong()

    async with nodes(redis.url) as (rooms,):
        transport = fake_connect()
        async with rooms.user(42).join(transport.connection):
            await trio.to_thread.run_sync(outside)
            await until(lambda: transport.closes == [BANNED])
            assert transport.texts == ["for you"]
