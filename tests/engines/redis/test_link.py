"""Connections to Redis: what is wrong with a server is one sentence, and what is lost is told."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from tests.engines.redis.redis_server import RedisServer
from wsframework import ConfigurationError
from wsframework.engines.redis.address import RedisAddress
from wsframework.engines.redis.codec import LinkLost, RedisError, pack
from wsframework.engines.redis.link import Link


@asynccontextmanager
async def answering(*replies: bytes) -> AsyncIterator[RedisAddress]:
    """Give a server that answers with these bytes, one for each read, and then says nothing."""

    async def serve(stream: trio.SocketStream) -> None:
        for reply in replies:
            await stream.receive_some()
            await stream.send_all(reply)
        await stream.receive_some()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield RedisAddress("127.0.0.1", listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


def hello(**fields: str) -> bytes:
    known = {"server": "redis", "version": "7.0.15", "mode": "standalone", "role": "master", **fields}
    parts = [f"${len(part)}\r\n{part}\r\n" for pair in known.items() for part in pair]
    return f"%{len(known)}\r\n{''.join(parts)}".encode()


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (hello(version="6.0.16"), r"is Redis 6\.0\.16; 6\.2 or newer is needed"),
        (b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n", "is older than Redis 6.2"),
        (hello(mode="cluster"), "is a Redis Cluster, which is not supported yet"),
        (b"-NOAUTH HELLO must be called with the client already authenticated\r\n", "refuses the login"),
        (
            b"-ERR unknown command 'EVALSHA', with args beginning with: \r\n",
            "lacks a command that rooms need",
        ),
        (hello(mode="sentinel"), r"is a sentinel: write redis\+sentinel://host:port/master"),
        (b"-WRONGPASS invalid username-password pair or user is disabled.\r\n", "refuses the login"),
    ],
)
async def test_what_trying_again_does_not_mend_is_a_mistake_in_the_configuration(
    reply: bytes, why: str
) -> None:
    async with answering(reply) as address:
        with pytest.raises(ConfigurationError, match=why):
            await Link.open(address, 5)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (hello(role="slave"), "is a replica"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", r"redis://127.0.0.1:\d+/0: it does not speak Redis' protocol"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "LOADING"),
    ],
)
async def test_what_may_be_better_later_is_a_lost_connection(reply: bytes, why: str) -> None:
    async with answering(reply) as address:
        with pytest.raises(LinkLost, match=why):
            await Link.open(address, 5)


async def test_a_server_that_is_not_there_or_does_not_answer_is_named() -> None:
    async with answering() as address:
        with pytest.raises(LinkLost, match=rf"{address} does not answer within 0.1 s"):
            await Link.open(address, 0.1)
    with pytest.raises(LinkLost, match="cannot be reached"):
        await Link.open(address, 5)
    with pytest.raises(LinkLost, match=r"unix:///nowhere.sock cannot be reached: No such file"):
        await Link.open(RedisAddress(None, path="/nowhere.sock"), 5)
    with pytest.raises(LinkLost, match="cannot be reached"):
        await Link.open(RedisAddress("no-such-host.invalid"), 5)


async def test_a_server_without_tls_is_named() -> None:
    async with answering(b"-ERR what?\r\n") as address:
        secure = RedisAddress(address.host, address.port, tls=ssl.create_default_context())
        with pytest.raises(ConfigurationError, match="does not speak TLS"):
            await Link.open(secure, 5)


async def test_tls_and_unix_sockets_and_accounts(tmp_path: Path) -> None:
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    plain = RedisServer(tmp_path)
    async with plain.running():
        for option, value in (
            ("tls-cert-file", "cert.pem"),
            ("tls-key-file", "key.pem"),
            ("tls-ca-cert-file", "ca.pem"),
        ):
            await plain.command("CONFIG", "SET", option, str(tmp_path / value))
        await plain.command("CONFIG", "SET", "tls-auth-clients", "no")
        secure_port = await plain.free_tls_port()
        await plain.command("ACL", "SETUSER", "ada", "on", ">p@ss", "allkeys", "allchannels", "allcommands")
        context = ssl.create_default_context()
        with pytest.raises(ConfigurationError, match="its certificate: self-signed"):
            await Link.open(RedisAddress("127.0.0.1", secure_port, tls=context), 5)
        ca.configure_trust(context)
        url = f"rediss://ada:p%40ss@127.0.0.1:{secure_port}/1"
        await (await Link.open(RedisAddress.parse(url, context), 5)).aclose()
        with pytest.raises(
            LinkLost, match="ends the connection before the login; if it speaks TLS, write redi"
        ):
            await Link.open(RedisAddress.parse(f"redis://127.0.0.1:{secure_port}"), 5)
        with pytest.raises(
            LinkLost, match=r"does not answer within 0.3 s; if it does not speak TLS, write re"
        ):
            await Link.open(RedisAddress.parse(f"rediss://127.0.0.1:{plain.port}"), 0.3)
        with pytest.raises(ConfigurationError, match="refuses the login: WRONGPASS"):
            await Link.open(RedisAddress.parse(f"redis://ada:wrong@127.0.0.1:{plain.port}"), 5)
        with pytest.raises(ConfigurationError, match="there is no such database"):
            await Link.open(RedisAddress.parse(f"{plain.url}/99"), 5)
    local = RedisServer(tmp_path, ("unixsocket", str(tmp_path / "r.sock")))
    async with local.running():
        await (await Link.open(RedisAddress.parse(f"unix://{tmp_path}/r.sock"), 5)).aclose()


class Answer:
    """A reply, or the word that there will be none."""

    def __init__(self) -> None:
        self.reply: Any = None
        self.is_lost = False
        self.event = trio.Event()

    def replied(self, reply: Any) -> None:
        self.reply = reply
        self.event.set()

    def lost(self) -> None:
        self.is_lost = True
        self.event.set()


async def test_replies_go_to_what_waits_for_them_and_pushes_apart(redis: RedisServer) -> None:
    link = await Link.open(RedisAddress.parse(redis.url), 5)
    pushes: list[list[Any]] = []
    answers = [Answer() for _ in range(3)]

    def pushed(push: Sequence[Any]) -> None:
        pushes.append(list(push))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.send, lambda: None)
        nursery.start_soon(link.receive, pushed)
        link.subscribe(b"a channel")
        for answer, command in zip(
            answers, [("PING",), ("NO SUCH",), ("PUBLISH", "a channel", b"\xff")], strict=True
        ):
            link.ask(pack(command), answer)
        assert link.unanswered == 4
        await answers[-1].event.wait()
        nursery.cancel_scope.cancel()
    assert [answers[0].reply, answers[2].reply] == [b"PONG", 1]
    assert isinstance(answers[1].reply, RedisError)
    assert [b"message", b"a channel", b"\xff"] in pushes
    assert link.unanswered == 0
    assert link.quiet_since == float("inf")
    await link.aclose()


async def test_a_lost_connection_is_told_to_everything_that_waits(redis: RedisServer) -> None:
    link = await Link.open(RedisAddress.parse(redis.url), 5)
    waiting, late = Answer(), Answer()
    link.ask(pack(("PING",)), waiting)
    await link.aclose()
    link.ask(pack(("PING",)), late)
    assert waiting.is_lost
    assert late.is_lost


@pytest.mark.parametrize("tail", [b"+OK\r\n", b"nonsense\r\n"])
async def test_what_was_not_asked_for_ends_the_connection(tail: bytes) -> None:
    async with answering(hello(), b"$0\r\n\r\n", tail) as address:
        link = await Link.open(address, 5)
        link.subscribe(b"x")
        lost: list[LinkLost] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.send, lambda: None)
            try:
                await link.receive(lambda _: None)
            except LinkLost as error:
                lost.append(error)
            nursery.cancel_scope.cancel()
        assert lost
        await link.aclose()
