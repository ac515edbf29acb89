from __future__ import annotations

import functools

import trio

from tests.docs.conftest import Follow
from tests.docs.following import exercises, until
from tests.docs.snippets import DOCS
from wsframework import CloseFrame, Request
from wsframework.testing import request, serve

PAGE = "howto/kick.md"
ADA, BOB, ADMIN = ({"Authorization": f"Bearer token-of-{name}"} for name in ("ada", "bob", "the-admin"))


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
        refused = await server.request("POST", "/users/Ada/ban", ADA)
        assert refused.status == 403
        banned = await server.request("POST", "/users/Ada/ban", ADMIN)
        assert banned.json() == {"closed": 2}
        for client in (first, second):
            assert await client.wait_closed() == CloseFrame(4403, "you are banned")
        await other.send("hello")
        assert await other.receive() == "Bob: hello"
        await until(lambda: "Ada" not in module.users)
        async with server.connect("/talk", headers=ADA) as again:
            assert await again.wait_closed() == CloseFrame(4403, "you are banned")


async def test_a_user_who_is_banned_behind_the_look_up_is_closed_too(follow: Follow) -> None:
    module = follow(PAGE).load("kick.py")

    async def find_and_ban(request: Request) -> str:
        user = str(await module.find_user(request))
        module.banned.add(user)
        return user

    async with serve(module.app) as server:
        module.app.websocket("/late", given={"user": find_and_ban})(module.talk)
        async with server.connect("/late", headers=ADA) as client:
            assert await client.wait_closed() == CloseFrame(4403, "you are banned")


async def test_another_thread_can_kick_as_the_page_says(follow: Follow) -> None:
    module = follow(PAGE).load("kick.py")
    (line,) = [line for line in (DOCS / PAGE).read_text().splitlines() if "trio.from_thread.run(" in line]
    assert '(kick, "Ada", "you are banned", trio_token=server.trio_token)' in line
    async with serve(module.app) as server, server.connect("/talk", headers=ADA) as client:
        await client.ping()
        kick = functools.partial(
            trio.from_thread.run,
            module.kick,
            "Ada",
            "you are banned",
            trio_token=trio.lowlevel.current_trio_token(),
        )
        assert await trio.to_thread.run_sync(kick) == 1
        assert (await client.wait_closed()).code == 4403
    assert (await request(module.app, "POST", "/users/Ada/ban")).status == 403
