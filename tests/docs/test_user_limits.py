from __future__ import annotations

import pytest
import trio

from tests.docs.conftest import Follow
from tests.docs.following import exercises
from tests.waiting import until
from wsframework import CloseFrame
from wsframework.testing import serve

PAGE = "howto/user-limits.md"
ADA, BOB = ({"Authorization": f"Bearer token-of-{name}"} for name in ("ada", "bob"))
FULL = CloseFrame(4429, "you have too many connections")


@exercises(PAGE, "limited.py")
async def test_a_user_has_three_connections_and_others_have_their_own(follow: Follow) -> None:
    module = follow(PAGE).load("limited.py")
    async with serve(module.app) as server, server.connect("/talk", headers=BOB) as bob:
        async with (
            server.connect("/talk", headers=ADA) as first,
            server.connect("/talk", headers=ADA),
            server.connect("/talk", headers=ADA),
        ):
            async with server.connect("/talk", headers=ADA) as fourth:
                assert await fourth.wait_closed() == FULL
            await first.send("hello")
            assert await first.receive() == "Ada: hello"
        await until(lambda: not module.rooms.user("Ada").has_members)
        async with server.connect("/talk", headers=ADA) as again:
            await again.send("back")
            assert await again.receive() == "Ada: back"
        await bob.send("hello")
        assert await bob.receive() == "Bob: hello"


@pytest.mark.parametrize("connections", [1, 2])
async def test_a_users_messages_are_slowed_down_over_all_connections_and_none_is_lost(
    follow: Follow, autojump_clock: trio.testing.MockClock, connections: int
) -> None:
    module = follow(PAGE).load("limited.py")
    async with (
        serve(module.app) as server,
        server.connect("/talk", headers=ADA) as one,
        server.connect("/talk", headers=ADA) as two,
        server.connect("/talk", headers=BOB) as bob,
    ):
        clients = [one, two][:connections]
        started = trio.current_time()
        count = 60 // connections
        for client in clients:
            for number in range(count):
                await client.send(str(number))
        for client in clients:
            for number in range(count):
                assert await client.receive() == f"Ada: {number}"
        # 20 at once, and then 40 at 10 a second.
        assert 3.9 < trio.current_time() - started < 4.2
        await bob.send("at once")
        before = trio.current_time()
        assert await bob.receive() == "Bob: at once"
        assert trio.current_time() == before
