"""How long an application runs that answers a request: beside its client, its connection and the drain."""

from __future__ import annotations

import gc
import logging

import attrs
import pytest
import trio

from tests.mounting.stage import (
    LASTING,
    Plain,
    application,
    body,
    mounted_at,
    new_app,
    start,
)
from tests.server.plain import Contexts, get, port, post
from tests.waiting import until
from wsframework import AccessLog
from wsframework.mounting.worlds import Receive, Scope, Send
from wsframework.server.answering import Answering
from wsframework.server.streaming import Streaming
from wsframework.testing import request


async def test_an_application_that_does_not_listen_is_cancelled_when_its_client_has_left(
    kind: str, contexts: Contexts
) -> None:
    ended = trio.Event()

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with mounted_at("/", application(deaf), kind, contexts) as served:
        async with served.connect() as client:
            await client.send(get("/"))
            await trio.testing.wait_all_tasks_blocked()
        await ended.wait()


async def test_an_application_that_outlives_its_answer_counts_until_it_ends(
    kind: str, contexts: Contexts
) -> None:
    """Its client could start more of it."""
    over = trio.Event()

    async def lasting(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"done"))
        with trio.CancelScope(shield=True):
            await over.wait()

    async with mounted_at("/", application(lasting), kind, contexts) as served:
        try:
            for number in (1, 2):
                async with served.connect() as client:
                    await client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    assert await client.answer() == (200, b"done")
                    assert await client.at_end()
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert served.server.statistics().connections == number
        finally:
            over.set()
        await until(lambda: served.server.statistics().connections == 0)


async def test_what_follows_the_answer_does_not_delay_the_next_request(kind: str, contexts: Contexts) -> None:
    over, seen = trio.Event(), list[str]()

    async def background(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"done"))
        seen.append((await receive())["type"])
        await over.wait()
        seen.append("over")

    async with mounted_at("/", application(background), kind, contexts) as served:
        async with served.connect() as client:
            for _ in range(2):
                await client.send(get("/"))
                assert await client.answer() == (200, b"done")
        over.set()
        await until(lambda: len(seen) == 4)
        assert sorted(seen) == ["http.disconnect"] * 2 + ["over"] * 2


async def test_the_drain_waits_for_answers_and_closes_idle_connections_at_once(
    kind: str, contexts: Contexts
) -> None:
    go_on = trio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"be", more=True))
        await go_on.wait()
        await send(body(b"gun"))

    app = new_app(attrs.evolve(LASTING, drain=30.0))
    app.mount("/", application(slow))
    async with app.running(), port(kind, contexts, app) as served:
        async with served.connect() as client, served.connect() as idle:
            await idle.send(get("/ours"))
            assert await idle.answer() == (200, b"ours")
            await client.send(get("/"))
            _, fields = await client.head()
            assert await client.chunk() == b"be"
            served.server.stop()
            assert await idle.at_end()
            assert not served.server.stopped
            go_on.set()
            assert await client.content(fields) == b"gun"
            assert await client.at_end()
        await served.server.wait_stopped()


async def test_the_end_of_the_drain_cancels_what_still_answers(kind: str, contexts: Contexts) -> None:
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/begun":
            await send(start())
            await send(body(b"be", more=True))
        if scope["path"] == "/after":
            await send(start())
            await send(body(b"answered"))
        await trio.sleep_forever()

    app = new_app()
    app.mount("/", application(endless))
    async with app.running(), port(kind, contexts, app) as served:
        async with served.connect() as begun, served.connect() as silent, served.connect() as after:
            await begun.send(get("/begun"))
            _, fields = await begun.head()
            assert await begun.chunk() == b"be"
            await silent.send(get("/silent"))
            await after.send(get("/after"))
            assert await after.answer() == (200, b"answered")
            served.server.stop()
            assert (await silent.answer())[0] == 503
            assert fields["transfer-encoding"] == "chunked"
            assert await begun.rest() == b""
        await served.server.wait_stopped()


async def test_observers_and_the_access_log_see_what_is_mounted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = new_app()
    app.observe(AccessLog())
    app.mount("/", Plain())
    await request(app, "GET", "/x?secret")
    text = caplog.text
    assert "request.answered method=GET path=/x " in text
    assert "status=200 bytes=7" in text


async def test_nothing_of_a_request_waits_for_the_garbage_collection(contexts: Contexts) -> None:
    async with mounted_at("/", Plain(), "hub", contexts) as served, served.connect() as client:
        for _ in range(2):
            await client.send(post("/", "body"))
            assert await client.answer() == (200, b"mounted")
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                await client.send(post("/", "body"))
                assert await client.answer() == (200, b"mounted")
            left = [kept for kept in gc.get_objects() if isinstance(kept, Streaming | Answering)]
        finally:
            gc.enable()
    assert len(left) <= 1


async def test_the_drain_waits_for_what_an_application_does_after_its_answer(contexts: Contexts) -> None:
    done: list[str] = []

    async def background(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"soon"))
        await trio.sleep(0.3)
        done.append("done")

    app = new_app(attrs.evolve(LASTING, drain=30.0))
    app.mount("/", application(background))
    async with app.running(), port("hub", contexts, app) as served:
        async with served.connect() as client:
            await client.send(get("/", "Connection: close"))
            assert await client.answer() == (200, b"soon")
        served.server.stop()
        await served.server.wait_stopped()
        assert done == ["done"]
