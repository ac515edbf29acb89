from __future__ import annotations

import json

import trio
import trio.testing

from tests.docs.conftest import Follow
from tests.docs.following import exercises
from tests.docs.snippets import DOCS
from tests.waiting import until
from wsframework import SlowPolicy
from wsframework.testing import serve

PAGE = "rooms.md"


@exercises(PAGE, "lobby.py")
async def test_the_lobby_tells_the_others(follow: Follow, autojump_clock: trio.testing.MockClock) -> None:
    app = follow(PAGE).load("lobby.py").app
    async with serve(app) as server, server.connect("/lobby") as ada, server.connect("/lobby") as bob:
        await ada.send("hello")
        assert await bob.receive() == "hello"


@exercises(PAGE, "topics.py")
async def test_clients_subscribe_by_message(follow: Follow) -> None:
    module = follow(PAGE).load("topics.py")
    async with (
        serve(module.app) as server,
        server.connect("/topics") as ada,
        server.connect("/topics") as bob,
    ):
        for message in ("subscribe tea", "subscribe milk", "unsubscribe tea"):
            await ada.send(message)
        await ada.ping()
        await until(lambda: [room.name for room in module.topics] == ["milk"])
        await bob.send("publish tea")
        await bob.send("publish milk")
        assert await ada.receive() == "milk: new"
        for number in range(100):
            await ada.send(f"subscribe {number}")
        assert (await ada.wait_closed()).code == 1008
    assert len(module.topics) == 0


@exercises(PAGE, "prices.py")
async def test_prices_are_quoted_to_who_follows(
    follow: Follow, autojump_clock: trio.testing.MockClock
) -> None:
    app = follow(PAGE).load("prices.py").app
    async with serve(app) as server, server.connect("/prices") as client:
        first = int(str(await client.receive()))
        assert [await client.receive() for _ in range(3)] == [str(first + n) for n in (1, 2, 3)]
        await client.send("enough")
        answer = await client.receive()
        while answer != "you have missed 0":
            answer = await client.receive()


@exercises(PAGE, "presence.py")
async def test_everybody_is_told_who_is_there(follow: Follow, autojump_clock: trio.testing.MockClock) -> None:
    app = follow(PAGE).load("presence.py").app
    async with serve(app) as server, server.connect("/rooms/tea/ada") as ada:
        assert await ada.receive() == "here are: ada"
        async with server.connect("/rooms/tea/bob") as bob:
            assert await ada.receive() == "here are: ada, bob"
            await bob.send("away")
            assert await ada.receive() == "here are: ada, bob (away)"
        assert await ada.receive() == "here are: ada"


@exercises(PAGE, "watch.py")
async def test_changes_of_who_is_present_are_told(
    follow: Follow, autojump_clock: trio.testing.MockClock
) -> None:
    app = follow(PAGE).load("watch.py").app
    async with serve(app) as server, server.connect("/rooms/tea/ada") as ada:
        assert json.loads(str(await ada.receive())) == {"entered": {"ada": {"name": "ada"}}, "left": []}
        async with server.connect("/rooms/tea/bob"), server.connect("/rooms/tea/bob"):
            assert json.loads(str(await ada.receive())) == {"entered": {"bob": {"name": "bob"}}, "left": []}
            await trio.sleep(10)
        begun = trio.current_time()
        await trio.sleep(1)
        assert json.loads(str(await ada.receive())) == {"entered": {}, "left": ["bob"]}
        assert 4.9 < trio.current_time() - begun < 6


@exercises(PAGE, "progress.py")
async def test_a_thread_reports_its_progress(follow: Follow) -> None:
    app = follow(PAGE).load("progress.py").app
    async with serve(app) as server, server.connect("/compute") as client:
        expected = ["0 %", "50 %", "100 %", "the answer is 42"]
        assert [await client.receive() for _ in expected] == expected


@exercises(PAGE, "resume.py")
async def test_a_client_that_comes_back_gets_what_it_missed(
    follow: Follow, autojump_clock: trio.testing.MockClock
) -> None:
    app = follow(PAGE).load("resume.py").app
    async with serve(app) as server:
        async with server.connect("/rooms/tea") as ada:
            async with server.connect("/rooms/tea") as bob:
                await trio.testing.wait_all_tasks_blocked()
                await bob.send("heard")
                seen = json.loads(str(await ada.receive()))
                assert seen["text"] == "heard"
            await ada.send("missed")
            assert json.loads(str(await ada.receive()))["text"] == "missed"
            async with server.connect(f"/rooms/tea?after={seen['position']}") as again:
                assert json.loads(str(await again.receive()))["text"] == "missed"
                await ada.send("live")
                assert json.loads(str(await again.receive()))["text"] == "live"
        async with server.connect("/rooms/tea?after=nothing") as stranger:
            assert "notice" in json.loads(str(await stranger.receive()))


def test_the_defaults_that_the_page_names_are_the_defaults() -> None:
    text = (DOCS / PAGE).read_text()
    assert f'`"{SlowPolicy().action}"` (default)' in text
