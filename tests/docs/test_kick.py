from __future__ import annotations

import functools
from typing import Any

import trio
import trio.testing

from tests.docs.conftest import Follow
from tests.docs.following import exercises
from tests.docs.snippets import DOCS, files
from tests.engines.redis.conftest import redis as redis  # the fixture
from tests.engines.redis.redis_server import RedisServer
from tests.waiting import until
from wsframework import CloseFrame, Request
from wsframework.testing import request, serve

PAGE = "howto/kick.md"
ADA, BOB, ADMIN = ({"Authorization": f"Bearer token-of-{name}"} for name in ("ada", "bob", "the-admin"))
BANNED = CloseFrame(4403, "you are banned")


@exercises(PAGE, "kick.py")
async def test_a_ban_closes_the_connections_of_one_user(follow: Follow) -> None:
    module = follow(PAGE).load("kick.py")
    async with (
        serve(module.app) as server,
        server.connect("/talk", headers=ADA) as first,
        server.connect("/talk", headers=ADA) as second,
        server.connect("/talk", headers=BOB) as other,
    ):
        for client in (first, second, other):
            await client.ping()
        await first.send("hello")
        assert await second.receive() == "hello"
        refused = await server.request("POST", "/users/Ada/ban", ADA)
        assert refused.status == 403
        banned = await server.request("POST", "/users/Ada/ban", ADMIN)
        assert banned.json() == {"banned": "Ada"}
        for client in (first, second):
            assert await client.wait_closed() == BANNED
        await other.ping()
        await until(lambda: not module.rooms.user("Ada").has_members)
        async with server.connect("/talk", headers=ADA) as again:
            assert await again.wait_closed() == BANNED


@exercises(PAGE, "online.py")
async def test_a_user_with_several_tabs_is_online_once(
    follow: Follow, autojump_clock: trio.testing.MockClock
) -> None:
    app = follow(PAGE).load("online.py").app
    async with serve(app) as server, server.connect("/online/ada") as ada:
        assert await ada.receive() == '["ada"]'
        async with server.connect("/online/bob") as bob:
            assert await ada.receive() == '["ada", "bob"]'
            async with server.connect("/online/bob") as tab:
                await tab.send("from the other tab")
                received = [await bob.receive(), await bob.receive()]
                while received[-1] != "from the other tab":
                    received.append(await bob.receive())
            async with server.connect("/online/ada"):
                await trio.sleep(10)
        await trio.sleep(1)
        assert await ada.receive() == '["ada"]'


def program(url: str, banned: set[str]) -> dict[str, Any]:
    """Return the page's program with the lines that it gives for several processes."""
    found: dict[str, Any] = {}
    texts = files(DOCS / PAGE)
    begin = texts["everywhere.py"].replace("redis://localhost", url)
    imports, rest = texts["kick.py"].split("\n\napp = App()\nrooms = Rooms()\n")
    assert begin.startswith(imports)
    text = begin + rest
    exec(compile(text, PAGE, "exec"), found)
    found["banned"] = banned
    return found


@exercises(PAGE, "everywhere.py")
async def test_a_ban_closes_the_connections_to_all_processes(redis: RedisServer) -> None:
    banned: set[str] = set()
    one, two = program(redis.url, banned), program(redis.url, banned)
    async with (
        serve(one["app"]) as here,
        serve(two["app"]) as there,
        here.connect("/talk", headers=ADA) as first,
        there.connect("/talk", headers=ADA) as second,
        there.connect("/talk", headers=BOB) as other,
    ):
        await until(lambda: len(one["rooms"].user("Ada").present()) == 2)
        await first.send("hello")
        assert await second.receive() == "hello"
        await here.request("POST", "/users/Ada/ban", ADMIN)
        assert await first.wait_closed() == await second.wait_closed() == BANNED
        await other.ping()
        async with there.connect("/talk", headers=ADA) as again:
            assert await again.wait_closed() == BANNED


async def test_a_user_who_is_banned_behind_the_look_up_is_closed_too(follow: Follow) -> None:
    module = follow(PAGE).load("kick.py")

    async def find_and_ban(request: Request) -> str:
        user = str(await module.find_user(request))
        module.banned.add(user)
        return user

    async with serve(module.app) as server:
        module.app.websocket("/late", given={"user": find_and_ban})(module.talk)
        async with server.connect("/late", headers=ADA) as client:
            assert await client.wait_closed() == BANNED


async def test_another_thread_can_disconnect_as_the_page_says(follow: Follow) -> None:
    module = follow(PAGE).load("kick.py")
    (line,) = [line for line in (DOCS / PAGE).read_text().splitlines() if "trio.from_thread.run(" in line]
    assert '(rooms.disconnect, "Ada", 4403, "you are banned", trio_token=server.trio_token)' in line
    async with serve(module.app) as server, server.connect("/talk", headers=ADA) as client:
        await client.ping()
        disconnect = functools.partial(
            trio.from_thread.run,
            module.rooms.disconnect,
            "Ada",
            4403,
            "you are banned",
            trio_token=trio.lowlevel.current_trio_token(),
        )
        await trio.to_thread.run_sync(disconnect)
        assert (await client.wait_closed()).code == 4403
    assert (await request(module.app, "POST", "/users/Ada/ban")).status == 403
