"""Rooms on the server that sentinels name: through a failover, and with one sentence if there is none."""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from tests.engines.redis.judge import Conversation, Member
from tests.engines.redis.redis_server import RedisServer
from tests.engines.redis.sentinels import MASTER, Sentinel, Watched, replica_of, watched
from tests.engines.redis.stage import SECONDS, SEED
from tests.proxies.running import free_port
from tests.waiting import until
from wsframework import ConfigurationError, RoomMessage, RoomUnavailable
from wsframework.engines.redis import Publisher, RedisEngine
from wsframework.engines.redis.address import RedisAddress, SentinelAddress, parse_address
from wsframework.engines.redis.codec import LinkLost
from wsframework.engines.redis.login import where
from wsframework.engines.redis.sentinel import Sentinels


@asynccontextmanager
async def one_sentinel(folder: Path, *settings: str, **options: str) -> AsyncIterator[Sentinel]:
    """Give a sentinel that watches a server without replicas."""
    server = RedisServer(folder / "server", *options.items())
    sentinel = Sentinel(folder / "sentinel", server.port, 1, *settings)
    async with server.running(), sentinel.running():
        yield sentinel


async def message_of(engine: RedisEngine, publish: Callable[[], str]) -> tuple[str, str]:
    """Return the message that a member gets when this is called, and the position that it returned."""
    member = Member()
    async with engine.run():
        engine.subscribe("tea", member)
        await until(lambda: engine.position("tea") is not None)
        position = await trio.to_thread.run_sync(publish)
        await until(lambda: bool(member.messages))
    return member.messages[0][0], position


async def test_an_engine_a_publisher_and_a_shell_find_the_master(tmp_path: Path) -> None:
    async with one_sentinel(tmp_path) as sentinel:
        # Nothing listens at the first address.
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/{MASTER}/2"

        def publish() -> str:
            with Publisher(url) as publisher:
                return publisher.publish("tea", "from outside")

        assert (await message_of(RedisEngine(url), publish))[0] == "from outside"

        def publish_by_shell() -> str:
            command = [sys.executable, "-m", "wsframework", "publish", "tea", "shell", "--redis", url]
            return subprocess.run(command, capture_output=True, check=True, timeout=60, text=True).stdout

        text, position = await message_of(RedisEngine(url), publish_by_shell)
        assert text == "shell"
        assert ".2." in position


async def test_sentinels_and_the_server_have_accounts_of_their_own(tmp_path: Path) -> None:
    async with one_sentinel(
        tmp_path, f"sentinel auth-pass {MASTER} s3rver", "requirepass w@tch", requirepass="s3rver"
    ) as sentinel:
        host = f"127.0.0.1:{sentinel.port}"
        url = f"redis+sentinel://:s3rver@{host}/{MASTER}?sentinel_password=w%40tch"

        def publish(url: str = url) -> str:
            with Publisher(url) as publisher:
                return publisher.publish("tea", "x")

        assert (await message_of(RedisEngine(url), publish))[0] == "x"
        for wrong, why in (
            (
                f"redis+sentinel://:s3rver@{host}/{MASTER}",
                f"sentinel {host}: refuses the login: it needs a password; add .sentinel_password",
            ),
            (url.replace("w%40tch", "x"), f"sentinel {host}: refuses the login: WRONGPASS"),
            (url.replace(":s3rver@", ":x@"), r"redis://127.0.0.1:\d+/0: refuses the login: WRONGPASS"),
        ):
            with pytest.raises(ConfigurationError, match=why):
                async with RedisEngine(wrong).run():
                    pass
            with pytest.raises(ConfigurationError, match=why):
                await trio.to_thread.run_sync(publish, wrong)


async def test_sentinels_and_the_server_speak_tls(tmp_path: Path) -> None:
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = {"tls-cert-file": "cert.pem", "tls-key-file": "key.pem", "tls-ca-cert-file": "ca.pem"}
    tls = {name: str(tmp_path / file) for name, file in files.items()} | {"tls-auth-clients": "no"}
    server_port, sentinel_port = free_port(), free_port()
    server = RedisServer(tmp_path / "server", ("tls-port", f"{server_port}"), *tls.items())
    lines = [f"{name} {value}" for name, value in tls.items()]
    sentinel = Sentinel(
        tmp_path / "sentinel", server_port, 1, *lines, f"tls-port {sentinel_port}", "tls-replication yes"
    )
    context = ssl.create_default_context()
    ca.configure_trust(context)
    async with server.running(), sentinel.running():
        url = f"rediss+sentinel://127.0.0.1:{sentinel_port}/{MASTER}"

        def publish() -> str:
            with Publisher(url, ssl=context) as publisher:
                return publisher.publish("tea", "x")

        assert (await message_of(RedisEngine(url, ssl=context), publish))[0] == "x"
        await fails(url, f"sentinel 127.0.0.1:{sentinel_port}: its certificate")
        plain, secure = (f"127.0.0.1:{port}" for port in (sentinel.port, sentinel_port))
        await fails(
            f"rediss+sentinel://{plain}/{MASTER}", f"sentinel {plain} does not answer.*write redis://"
        )
        await fails(
            f"redis+sentinel://{secure}/{MASTER}", f"sentinel {secure} ends the conn.*write rediss://"
        )


async def fails(url: str, why: str, timeout: float = 4.0) -> None:
    """Expect one sentence of an engine and of a publisher."""
    with pytest.raises(ConfigurationError, match=why) as caught:
        async with RedisEngine(url, timeout=timeout).run():
            pass
    assert "\n" not in str(caught.value)
    with pytest.raises((ConfigurationError, RoomUnavailable), match=why):
        await trio.to_thread.run_sync(Publisher(url, timeout=timeout).publish, "tea", "x")


async def test_what_is_wrong_is_one_sentence(tmp_path: Path, redis: RedisServer) -> None:
    async with one_sentinel(tmp_path / "found") as sentinel:
        await fails(
            f"redis+sentinel://127.0.0.1:{sentinel.port}/other",
            f"sentinel 127.0.0.1:{sentinel.port} knows no master 'other'; it knows {MASTER}",
        )
        await fails(
            f"redis://127.0.0.1:{sentinel.port}",
            r"is a sentinel: write redis\+sentinel://host:port/master",
        )
        sentinel.freeze()
        await fails(
            f"redis+sentinel://127.0.0.1:{sentinel.port},127.0.0.1:1/{MASTER}",
            f"leads to the master '{MASTER}': sentinel 127.0.0.1:{sentinel.port} does not answer.*; sentinel "
            "127.0.0.1:1 cannot be reached: .*Connection refused",
            timeout=0.5,
        )
    await fails(f"redis+sentinel://127.0.0.1:{redis.port}/{MASTER}", "it is a Redis server and no sentinel")


async def test_a_replica_that_is_named_is_no_master(tmp_path: Path, redis: RedisServer) -> None:
    # As in the middle of a failover: this sentinel knows no other master.
    async with (
        replica_of(redis, tmp_path / "replica") as replica,
        Sentinel(tmp_path / "sentinel", replica.port, 2).running() as sentinel,
    ):
        await fails(
            f"redis+sentinel://127.0.0.1:{sentinel.port}/{MASTER}",
            f"/{MASTER}.*: redis://127.0.0.1:{replica.port}/0 is a replica",
        )


async def test_an_engine_follows_when_another_server_becomes_the_master(
    tmp_path: Path, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if the old one still answers."""
    caplog.set_level("INFO")
    async with one_sentinel(tmp_path) as sentinel:
        member = Member()
        engine = RedisEngine(f"redis+sentinel://127.0.0.1:{sentinel.port}/{MASTER}", prefix="follows")
        async with engine.run():
            engine.subscribe("tea", member)
            await engine.publish("tea", RoomMessage.of("1:1"), (), None, None)
            sentinel.kill()
            await trio.sleep(1.2)
            assert engine.statistics().generation == 1  # rooms need no sentinel
            await sentinel.start()
            await sentinel.command("SENTINEL", "REMOVE", MASTER)
            await sentinel.command("SENTINEL", "MONITOR", MASTER, "127.0.0.1", f"{redis.port}", "1")
            await until(lambda: engine.statistics().generation == 2 and engine.statistics().up)
            await engine.publish("tea", RoomMessage.of("1:2"), (), None, None)
            await until(lambda: len(member.messages) == 2)
        # It is another history.
        assert member.gaps == ["epoch"]
    assert "is no longer the master of" in caplog.text or "is no longer the master" in caplog.text
    assert f"redis.up server=redis://127.0.0.1:{redis.port}/0" in caplog.text


async def test_sentinels_may_tell_names_or_addresses_of_one_server(tmp_path: Path) -> None:
    """A name that leads to one of several sentinels, as in Kubernetes, ended the connection every second."""
    async with one_sentinel(tmp_path) as sentinel:
        server = sentinel.master_port
        engine = RedisEngine(f"redis+sentinel://127.0.0.1:{sentinel.port}/{MASTER}")
        async with engine.run():
            for setting in ("resolve-hostnames", "announce-hostnames"):
                await sentinel.command("SENTINEL", "CONFIG", "SET", setting, "yes")
            await sentinel.command("SENTINEL", "REMOVE", MASTER)
            await sentinel.command("SENTINEL", "MONITOR", MASTER, "localhost", f"{server}", "1")
            answer = await sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
            assert b"localhost" in answer
            await trio.sleep(2.5)
            assert engine.statistics().generation == 1


async def test_a_sentinel_that_names_a_server_which_is_gone_leaves_it_to_the_others(tmp_path: Path) -> None:
    """It was cut off from them during a failover, and was asked first again and again."""
    async with (
        one_sentinel(tmp_path / "right") as right,
        Sentinel(tmp_path / "wrong", free_port(), 1).running() as wrong,
    ):
        url = f"redis+sentinel://127.0.0.1:{wrong.port},127.0.0.1:{right.port}/{MASTER}"

        def publish() -> str:
            with Publisher(url, timeout=30) as publisher:
                return publisher.publish("tea", "x")

        assert (await message_of(RedisEngine(url), publish))[0] == "x"
        gone = f"127.0.0.1:{wrong.master_port}"
        await fails(
            f"redis+sentinel://127.0.0.1:{wrong.port},127.0.0.1:1/{MASTER}",
            f"no sentinel leads to the master '{MASTER}': redis://{gone}/0 cannot be reached",
            timeout=0.5,
        )


async def talk_through(watched: Watched, fault: Callable[[Watched], object], seconds: float) -> Conversation:
    """Let three nodes talk while something happens, and judge."""
    engines = [RedisEngine(watched.url, timeout=1.0, outage=15.0) for _ in range(3)]
    async with engines[0].run(), engines[1].run(), engines[2].run():
        talk = Conversation(engines, SEED)
        talk.subscribe()
        await talk.settled()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.talk, seconds)
            await trio.sleep(0.5)
            fault(watched)
        await talk.settled()
        talk.judge()
        for engine in engines:
            assert engine.statistics().generation == 2
    return talk


@pytest.mark.slow
async def test_rooms_go_on_when_the_master_is_killed_and_comes_back(tmp_path: Path) -> None:
    async with watched(tmp_path) as found:
        talk = await talk_through(found, lambda found: found.master.kill(), SECONDS + 2)
        assert set(talk.gaps) <= {"regressed", "forked"}
        assert not talk.refused
        # It still takes itself for the master, until the sentinels tell it.
        await found.master.start()
        engine = RedisEngine(found.url)
        async with engine.run():
            position = await engine.publish("tea", RoomMessage.of("x"), (), None, None)
        (epoch,) = {at.split(".")[0] for room, at in talk.acknowledged.values() if room == "tea"}
        assert position.startswith(epoch)


@pytest.mark.slow
async def test_rooms_go_on_when_the_master_hangs_and_wakes(tmp_path: Path) -> None:
    async with watched(tmp_path) as found:
        publisher = Publisher(found.url, timeout=6)
        await trio.to_thread.run_sync(publisher.publish, "outside", "1")
        talk = await talk_through(found, lambda found: found.master.freeze(), SECONDS + 2)
        # Its connection is to the master that hangs.
        position = await trio.to_thread.run_sync(publisher.publish, "outside", "2")
        assert position.split(".")[1] == "2"
        publisher.close()
        found.master.thaw()
        assert set(talk.gaps) <= {"regressed", "forked"}
        assert not talk.refused


@pytest.mark.parametrize("reply", [b"x", 7, [b"h"], [b"h", b"port"], [b"h", b"1", b"2"], [b"a..b", b"1"]])
def test_an_answer_that_is_no_address_is_told(reply: object) -> None:
    steps = where(RedisAddress("h", 26379, is_sentinel=True), "m")
    next(steps)
    with pytest.raises(LinkLost, match=r"sentinel h:26379 answers .* instead of an address"):
        steps.send(reply)


def test_the_sentinel_that_led_to_a_server_is_asked_first() -> None:
    address = parse_address("redis+sentinel://a,b,c/m")
    assert isinstance(address, SentinelAddress)
    sentinels = Sentinels(address)
    sentinels.succeeded(address.sentinels[2])
    assert [each.host for each in sentinels.order()] == ["c", "a", "b"]
