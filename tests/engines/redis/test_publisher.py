"""Publishing from a program without Trio."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import NoReturn

import pytest
import trio
import trustme

from tests.engines.redis.judge import Member
from tests.engines.redis.redis_server import Proxy, RedisServer
from tests.waiting import until
from wsframework import ConfigurationError, History, RoomMessage, RoomUnavailable
from wsframework.engines.redis import Publisher, RedisEngine
from wsframework.rooms import Position


class Talk(Member):
    """Also takes what is not text."""

    def __init__(self) -> None:
        super().__init__()
        self.data: list[str | bytes] = []

    def deliver(self, message: RoomMessage, position: Position | None, exclude: object) -> int:
        self.data.append(message.data)
        return super().deliver(message, position, ())


async def test_members_get_what_a_program_without_trio_publishes(redis: RedisServer) -> None:
    member, engine = Talk(), RedisEngine(redis.url, prefix="outside")
    async with engine.run():
        engine.subscribe("tea", member)
        await until(lambda: engine.position("tea") is not None)
        with Publisher(redis.url, prefix="outside") as publisher:
            first = await trio.to_thread.run_sync(lambda: publisher.publish("tea", "text", key="k"))
            again = await trio.to_thread.run_sync(lambda: publisher.publish("tea", "text", key="k"))
            last = await trio.to_thread.run_sync(publisher.publish, "tea", b"\xff")
        await until(lambda: len(member.data) == 2)
        assert member.data == ["text", b"\xff"]
        assert [position for _, position in member.messages] == [first, last]
        assert again == first
        assert engine.position("tea") == last
        assert member.gaps == []


def test_threads_share_it(redis: RedisServer) -> None:
    publisher = Publisher(redis.url, prefix="threads")
    positions: list[Position] = []

    def publish() -> None:
        positions.extend(publisher.publish("tea", "x") for _ in range(20))

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    publisher.close()
    assert sorted(int(position.split(".")[1]) for position in positions) == list(range(1, 81))


async def test_a_cut_connection_is_made_again_and_nothing_is_stored_twice(
    redis: RedisServer,
) -> None:
    proxy = Proxy(redis.port)
    async with proxy.running():
        publisher = Publisher(proxy.url, prefix="cut")
        for number in range(1, 11):
            position = await trio.to_thread.run_sync(publisher.publish, "tea", f"{number}")
            assert position.split(".")[1] == f"{number}"
            proxy.cut()
        publisher.close()


async def test_what_cannot_be_stored_says_whether_it_may_have_been(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    publisher = Publisher(server.url, timeout=0.5)
    async with server.running():
        await trio.to_thread.run_sync(publisher.publish, "tea", "x")
        await server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(RoomUnavailable, match="OOM") as caught:
            await trio.to_thread.run_sync(publisher.publish, "tea", "x")
        assert not caught.value.unknown
        server.freeze()
        with pytest.raises(RoomUnavailable, match="does not answer") as caught:
            await trio.to_thread.run_sync(publisher.publish, "tea", "x")
        assert caught.value.unknown
    publisher.close()


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(
        RoomUnavailable, match=r"127.0.0.1:1/0 cannot be reached: Connection refused"
    ) as caught:
        Publisher("redis://127.0.0.1:1", timeout=0.1).publish("tea", "x")
    assert not caught.value.unknown
    with pytest.raises(RoomUnavailable, match=r"/nowhere.sock cannot be reached: No such file"):
        Publisher("unix:///nowhere.sock", timeout=0.1).publish("tea", "x")


async def test_a_connection_that_is_dead_without_a_word_costs_half_the_time(redis: RedisServer) -> None:
    proxy = Proxy(redis.port)
    async with proxy.running():
        with Publisher(proxy.url, prefix="dead", timeout=4.0) as publisher:
            await trio.to_thread.run_sync(publisher.publish, "tea", "1")
            proxy.deaden()
            position = await trio.to_thread.run_sync(publisher.publish, "tea", "2")
            assert position.split(".")[1] == "2"


async def test_threads_wait_for_each_other_within_their_time(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    async with server.running():
        publisher = Publisher(server.url, timeout=0.5)
        await trio.to_thread.run_sync(publisher.publish, "tea", "x")
        server.freeze()
        waited: list[float] = []

        def publish() -> None:
            began = time.monotonic()
            with pytest.raises(RoomUnavailable):
                publisher.publish("tea", "x")
            waited.append(time.monotonic() - began)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(trio.to_thread.run_sync, publish)
        publisher.close()
    # One after the other, they took 4 s.
    assert max(waited) < 3


def test_each_process_is_a_publisher_of_its_own(redis: RedisServer) -> None:
    """With the numbers of its parent, the message of a child was taken for one that was stored already."""
    program = f"""
        import os
        from wsframework.engines.redis import Publisher

        publisher = Publisher({redis.url!r}, prefix="forks", timeout=20)

        def publish():
            print(publisher.publish("tea", "x").split(".")[1], flush=True)

        def fork():
            child = os.fork()
            if child:
                assert os.waitpid(child, 0)[1] == 0
            else:
                publish()
                os._exit(0)

        fork()
        fork()
        publish()
        publisher._lock.acquire()  # as another thread would
        fork()
        publisher._lock.release()
        publish()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert (ended.stdout.split(), ended.stderr) == (["1", "2", "3", "4", "5"], "")


async def test_a_new_publisher_for_each_message_does_not_make_them_slower(redis: RedisServer) -> None:
    """Redis went through the numbers of all of them for each message."""

    def publish(count: int) -> None:
        for _ in range(count):
            with Publisher(redis.url, prefix="each") as publisher:
                publisher.publish("tea", "x")

    await redis.command("CONFIG", "RESETSTAT")
    await trio.to_thread.run_sync(publish, 150)
    statistics = await redis.command("INFO", "commandstats")
    assert int(statistics.split(b"cmdstat_hgetall:calls=")[1].split(b",")[0]) == 3
    # Those of an hour ago are removed.
    for number in range(200):
        await redis.command("HSET", "each:{r/tea}:m", f"p:old{number}", "1 1 tag 1000")
    await trio.to_thread.run_sync(publish, 1)
    assert await redis.command("HLEN", "each:{r/tea}:m") == b":153\r\n"


async def test_a_port_of_another_protocol_is_named(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "pem")
    server = RedisServer(
        tmp_path, ("tls-cert-file", "pem"), ("tls-key-file", "pem"), ("tls-ca-cert-file", "pem")
    )
    async with server.running():
        plain, secure = f"127.0.0.1:{server.port}", f"127.0.0.1:{await server.free_tls_port()}"
        for url, why in (
            (
                f"rediss://{plain}",
                f"^rediss://{plain}/0 does not answer; if it does not speak TLS, write redis://",
            ),
            (
                f"redis://{secure}",
                f"^redis://{secure}/0 ends the connection before the login; if it speaks TLS",
            ),
        ):
            with pytest.raises(RoomUnavailable, match=why):
                await trio.to_thread.run_sync(Publisher(url, timeout=0.3).publish, "tea", "x")


def test_a_last_attempt_that_has_no_time_does_not_hide_why_the_others_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts = 0

    def connect(_: object, timeout: float) -> NoReturn:
        nonlocal attempts
        attempts += 1
        if attempts > 1:
            time.sleep(timeout)
            raise TimeoutError
        time.sleep(0.4)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr("wsframework.engines.redis.publisher._connect", connect)
    with pytest.raises(RoomUnavailable, match="cannot be reached: Connection refused"):
        Publisher(timeout=0.5).publish("tea", "x")
    assert attempts > 1


async def test_a_wrong_login_is_a_mistake_in_the_configuration(redis: RedisServer) -> None:
    publisher = Publisher(f"redis://ada:wrong@127.0.0.1:{redis.port}")
    with pytest.raises(ConfigurationError, match="refuses the login"):
        await trio.to_thread.run_sync(publisher.publish, "tea", "x")


@pytest.mark.parametrize("key", ["", "x" * 65])
def test_a_key_that_is_empty_or_too_long_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="a key has 1 to 64 characters"):
        Publisher().publish("tea", "x", key=key)


@pytest.mark.parametrize("history", [History(messages=3000, seconds=9000.0, bytes=10**7), None])
async def test_a_publisher_from_outside_keeps_what_the_room_keeps(
    history: History | None, redis: RedisServer
) -> None:
    """It kept what an engine does by default, and a room's longer history was gone."""
    prefix = f"kept-{'nothing' if history is None else 'much'}"
    engine = RedisEngine(redis.url, prefix=prefix, history=None)
    async with engine.run():
        async with trio.open_nursery() as nursery:
            for _ in range(1500):
                nursery.start_soon(engine.publish, "tea", RoomMessage.of("x" * 2000), (), history, None)
        with Publisher(redis.url, prefix=prefix) as publisher:
            await trio.to_thread.run_sync(publisher.publish, "tea", "y")
            await trio.to_thread.run_sync(publisher.publish, "new", "y")
        stream = f"{prefix}:{{r/tea}}:s"
        kept = 0 if history is None else 1501
        assert await engine.commands.call("XLEN", stream) == kept
        assert (await engine.commands.call("TTL", stream) > 9000) == (history is not None)
        # A room of which nobody has told it is kept as an engine does by default.
        assert 300 < await engine.commands.call("TTL", f"{prefix}:{{r/new}}:s") <= 330
