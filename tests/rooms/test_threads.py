"""Rooms in other threads, and under Ctrl-C."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
import trio.testing

from tests.fake_transport import FakeTransport
from tests.fake_transport import connect as fake_connect
from tests.rooms.stage import staged
from wsframework import (
    Connection,
    LocalEngine,
    Member,
    Room,
    RoomMessage,
    WrongThread,
)

# Other threads


async def test_a_broadcast_from_another_thread_is_refused_before_anything_changes() -> None:
    async with staged() as stage:
        peer = await stage.member()
        with pytest.raises(WrongThread, match=r"trio_token=server\.trio_token") as caught:
            await trio.to_thread.run_sync(stage.room.broadcast, "from a thread")
        assert isinstance(caught.value, RuntimeError)
        assert stage.room.statistics().broadcasts == 0
        assert stage.room.broadcast("from here") == 1
        assert await peer.receive() == "from here"


async def test_a_thread_may_have_the_event_loop_broadcast() -> None:
    async with staged() as stage:
        peer = await stage.member()
        token = trio.lowlevel.current_trio_token()

        def elsewhere() -> int:
            return trio.from_thread.run_sync(stage.room.broadcast, "by way of", trio_token=token)

        assert await trio.to_thread.run_sync(elsewhere) == 1
        assert await peer.receive() == "by way of"


async def test_joining_leaving_and_presence_are_refused_in_another_thread() -> None:
    transport, other = fake_connect(), fake_connect()
    engine = LocalEngine()
    room = Room("lobby", engine=engine)
    membership = room.join(transport.connection, "ada")

    async def enter(ws: Connection) -> None:
        async with room.join(ws):
            pytest.fail("joined in another thread")

    async def leave() -> None:
        await membership.__aexit__(None, None, None)

    def set_data(member: Member) -> None:
        member.data = "eve"

    def check(*members: Member) -> None:
        assert room.members == members
        assert room.present() == [member.data for member in members]

    with pytest.raises(WrongThread, match=r"room\.join"):
        await trio.to_thread.run_sync(trio.run, enter, other.connection)
    check()
    async with membership as member:
        for call in ((trio.run, enter, other.connection), (trio.run, leave), (set_data, member)):
            with pytest.raises(WrongThread):
                await trio.to_thread.run_sync(*call)
            check(member)
        assert member.data == "ada"
        # An empty room of the same name publishes to the same members, and an engine may call from anywhere.
        with pytest.raises(WrongThread):
            await trio.to_thread.run_sync(Room("lobby", engine=engine).broadcast, "x")
        with pytest.raises(WrongThread):
            await trio.to_thread.run_sync(engine.broadcast, "lobby", RoomMessage.of("x"), (), None)
        assert transport.sent == []
    check()


async def test_a_room_belongs_to_the_thread_of_its_members_wherever_it_was_made() -> None:
    room = Room("made in the main thread")

    async def serve() -> int:
        async with room.join(fake_connect().connection):
            return room.broadcast("x")

    for _ in range(2):
        assert await trio.to_thread.run_sync(trio.run, serve) == 1
    assert room.broadcast("nobody is there any more") == 0
    assert await serve() == 1


async def test_members_of_two_threads_do_not_share_a_room() -> None:
    room = Room("lobby")

    async def join() -> None:
        async with room.join(fake_connect().connection):
            pytest.fail("joined")

    async with room.join(fake_connect().connection) as member:
        with pytest.raises(WrongThread, match=r"room\.join"):
            await trio.to_thread.run_sync(trio.run, join)
        assert room.members == (member,)


# Ctrl-C


@pytest.mark.parametrize("verb", ["broadcast", "send", "send_nowait"])
def test_ctrl_c_in_the_middle_of_a_commit_tears_nothing(verb: str) -> None:
    room = Room("lobby")
    transports: list[FakeTransport] = []
    calls: list[str] = []

    async def main() -> None:
        transports.extend(fake_connect() for _ in range(3))
        transports[0].on_send = lambda: signal.raise_signal(signal.SIGINT)
        async with AsyncExitStack() as stack:
            for transport in transports:
                await stack.enter_async_context(room.join(transport.connection))
            if verb == "broadcast":
                room.broadcast("x")
            elif verb == "send":
                await transports[0].connection.send("x")
            else:
                transports[0].connection.send_nowait("x")
            calls.append("it has returned")
            await trio.lowlevel.checkpoint()
            calls.append("the next checkpoint has returned")

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert calls == ["it has returned"]
    reached = [transport.texts for transport in transports]
    assert reached == [["x"]] * 3 if verb == "broadcast" else [["x"], [], []]
    assert room.members == ()


def test_ctrl_c_while_a_member_comes_or_goes_leaves_no_half_a_member() -> None:
    class Interrupted(LocalEngine):
        def enter(self, room: str, member: str, data: Any) -> None:
            signal.raise_signal(signal.SIGINT)
            super().enter(room, member, data)

        def leave(self, room: str, member: str) -> None:
            signal.raise_signal(signal.SIGINT)
            super().leave(room, member)

    room = Room("lobby", engine=Interrupted())
    seen: list[object] = []

    async def main() -> None:
        async with room.join(fake_connect().connection, "x"):
            seen.append(room.present())
        seen.append(room.present())
        await trio.lowlevel.checkpoint()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert seen == [["x"], []]
    assert room.members == ()
