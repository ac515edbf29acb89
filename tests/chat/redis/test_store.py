"""What a chat asks of Redis, and what it does when Redis cannot do it."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import wsframework.chat.redis
from tests.chat.people import Person
from tests.chat.redis.talking import talking
from tests.docs.snippets import DOCS, files
from tests.engines.redis.redis_server import Proxy, RedisServer
from tests.waiting import until
from wsframework import App, ConfigurationError, LocalEngine, RoomUnavailable
from wsframework.chat import Chat
from wsframework.chat.redis.store import Store
from wsframework.engines.redis import RedisEngine

SCRIPTS = Path(wsframework.chat.redis.__file__).parent / "scripts"


@asynccontextmanager
async def a_store(url: str, **options: float) -> AsyncIterator[Store]:
    engine = RedisEngine(url, prefix="store", **options)  # type: ignore[arg-type]
    store = Store(engine)
    async with engine.run():
        yield store


def test_every_script_is_loaded_and_used() -> None:
    module = importlib.import_module("wsframework.chat.redis.store")
    assert {*module._NAMES, "common"} == {path.stem for path in SCRIPTS.glob("*.lua")}
    text = "".join(path.read_text() for path in SCRIPTS.parent.glob("*.py"))
    assert [name for name in module._NAMES if len(re.findall(rf'"{name}"', text)) < 2] == []


async def test_what_a_redis_lacks_to_keep_messages_is_named(tmp_path: Path, redis: RedisServer) -> None:
    async with a_store(redis.url) as store:
        assert await store.shortcomings() == [
            "appendonly is 'no' instead of 'yes'",
            "appendfsync is 'everysec' instead of 'always'",
        ]
    durable = RedisServer(tmp_path / "redis", ("appendonly", "yes"), ("appendfsync", "always"))
    async with durable.running(), a_store(durable.url) as store:
        assert await store.shortcomings() == []
        await durable.command("CONFIG", "SET", "appendfsync", "everysec")
        assert await store.shortcomings() == ["appendfsync is 'everysec' instead of 'always'"]


async def test_a_script_is_run_again_when_its_answer_is_lost(redis: RedisServer) -> None:
    async with Proxy(redis.port).running() as proxy, a_store(proxy.url) as store:
        await store.run("counts")
        proxy.swallow = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run, "counts", "lobby")
            await trio.sleep(0.05)
            proxy.cut()
            proxy.swallow = False


async def test_a_redis_that_is_away_is_given_up_after_the_outage_and_logged_once(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with Proxy(redis.port).running() as proxy, a_store(proxy.url, outage=0.2) as store:
        await store.run("counts")
        proxy.swallow = True
        proxy.cut()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(_refused, store)
    assert caplog.text.count("requests are refused") == 1


async def _refused(store: Store) -> None:
    with pytest.raises(RoomUnavailable):
        await store.run("counts")


def test_an_engine_without_a_store_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="LocalEngine has no store"):
        Chat(engine=LocalEngine())


def test_without_the_extra_the_chat_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "hiredis.py").write_text("raise ImportError")
    (tmp_path / "try.py").write_text(
        "from wsframework import LocalEngine\nfrom wsframework.chat import Chat\nChat(engine=LocalEngine())"
    )
    result = subprocess.run([sys.executable, "try.py"], cwd=tmp_path, capture_output=True, text=True)
    assert "pip install 'wsframework[redis]'" in result.stderr.splitlines()[-1]


async def test_the_rights_in_the_documentation_suffice(tmp_path: Path) -> None:
    """Everything that people and workers do, with the account of the page."""
    text = files(DOCS / "howto/redis.md")["rooms.acl"] + files(DOCS / "chat.md")["chat.acl"]
    rights = " ".join(text.split())
    assert rights.startswith("user rooms on >secret ")
    server = RedisServer(tmp_path / "redis")
    async with server.running():
        assert await server.command("ACL", "SETUSER", *rights.split()[1:]) == b"+OK\r\n"
        url = server.url.replace("redis://", "redis://rooms:secret@")
        async with talking(url, lease=0.3, prefix="ws") as workers:
            ada = await Person.come(workers.first, "Ada", "lobby", "tea")
            bob = await Person.come(workers.second, "Bob", "lobby")
            for request in (
                {"type": "say", "room": "lobby", "text": "hello", "key": "k"},
                {"type": "history", "room": "lobby", "before": 9},
                {"type": "history", "room": "lobby", "after": 0},
                {"type": "people", "room": "lobby", "cursor": "1"},
                {"type": "rooms", "cursor": "1/a"},
                {"type": "name", "name": "Grace"},
                {"type": "typing", "room": "lobby", "on": True},
                {"type": "leave", "room": "tea"},
            ):
                answer = await ada.ask(**request)
                assert answer["type"] != "error", answer
            assert (await bob.event("typing"))["name"] == "Grace"
            # A worker that is gone is found, and its guests depart.
            await server.command("DEL", "ws:{chat}:nodes")
            await trio.sleep(0.5)
            assert (await ada.ask("say", room="lobby", text="again"))["type"] == "said"
            assert sorted((await bob.ask("people", room="lobby"))["people"]) == ["Bob", "Grace"]
        refused = re.findall(rb"object\r\n\$\d+\r\n(\S+)", await server.command("ACL", "LOG"))
        assert set(refused) == {b"info"}  # the engine does without it


async def test_what_a_stranger_publishes_is_logged_and_skipped(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with talking(redis.url) as workers:
        ada = await Person.come(workers.first, "Ada", "lobby")
        log = workers.chats[0]._journal.log
        for payload in (
            "",
            "x",
            "said",
            "said a b c",
            f"said {log} 1 tag now lobby {{}}",
            f"said {log} 1 tag 0 lobby []",
            f"said {log} 999999999999 tag 0 lobby {{}}",
            "said other 7 tag 0 lobby {}",
            "entered {",
            "entered []",
            'left {"room": 1}',
            'end {"holder": "x"}',
            f'end {{"holder": "{workers.node(0)} x", "why": 1}}',
            "log {}",
            "unknown {}",
        ):
            await redis.command("PUBLISH", workers.key("events"), payload)
        await ada.ask("say", room="lobby", text="hello")
        assert await ada.hear(1) == [("Ada", "hello")]
        assert ada.events == []
        reads = await redis.command("INFO", "commandstats")
        assert "server.crashed" not in caplog.text
        # And nothing asks again and again for what does not exist.
        await trio.sleep(0.2)
        again = await redis.command("INFO", "commandstats")
        calls = [int(re.search(rb"cmdstat_evalsha:calls=(\d+)", info).group(1)) for info in (reads, again)]  # type: ignore[union-attr]
        assert calls[1] - calls[0] < 10


async def test_two_chats_with_different_prefixes_do_not_meet(redis: RedisServer) -> None:
    async with talking(redis.url) as one, talking(redis.url) as two:
        ada = await Person.come(one.first, "Ada", "lobby")
        other = await Person.come(two.first, "Ada", "lobby")
        await other.ask("say", room="lobby", text="hello")
        assert await other.hear(1) == [("Ada", "hello")]
        await ada.ask("ping")
        assert ada.events == []


async def test_a_program_in_each_process_hears_every_message_and_says_its_own(redis: RedisServer) -> None:
    async with talking(redis.url) as workers:
        heard: list[list[str]] = [[], []]
        for number, chat in enumerate(workers.chats):
            chat.on_message(lambda message, number=number: heard[number].append(message.text))
        for number, chat in enumerate(workers.chats):
            await chat.say("lobby", f"from {number}", name="Herald")
        await until(lambda: heard[0] == heard[1] == ["from 0", "from 1"])


async def test_the_chat_is_installed_after_its_engine() -> None:
    app, engine = App(), RedisEngine()
    app.install(Chat(engine=engine))
    app.install(engine)
    with pytest.raises(ConfigurationError, match=r"before app.install\(chat\)"):
        await app.serve("127.0.0.1", 0)
