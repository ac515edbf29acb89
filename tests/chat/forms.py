"""The forms of a chat, which clients cannot tell apart: one process, one on Redis, several on Redis."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from wsframework import Address, App, Limits, Server
from wsframework.chat import Chat
from wsframework.engines.redis import RedisEngine

__all__ = ["FORMS", "Form", "Workers", "choose", "chosen", "only"]

FORMS = ("one process", "redis", "two workers")


@attrs.define
class Form:
    """What a test's chats are.

    Attributes:
        workers: how many processes there are in the test's one.
        urls: of the Redis of each, which may lead through proxies; empty for none.
        prefix: of the chat's keys.
    """

    workers: int = 1
    urls: list[str] = attrs.field(factory=list)
    prefix: str = attrs.field(factory=lambda: secrets.token_hex(4))


_chosen = [Form()]


def choose(form: Form) -> None:
    """Set the form of the chats that `serving.chatting` makes."""
    _chosen[:] = [form]


def chosen() -> Form:
    return _chosen[0]


def only(*forms: str) -> pytest.MarkDecorator:
    """Mark a test that is about some of the forms."""
    return pytest.mark.parametrize("form", forms, indirect=True)


class Workers:
    """Several servers that look like one: new connections come to one after the other."""

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers
        self._next = itertools.cycle(servers)

    def serve_soon(self, stream: trio.abc.Stream, remote: Address, local: Address) -> None:
        next(self._next).serve_soon(stream, remote, local)


@asynccontextmanager
async def workers_of(
    form: Form, limits: Limits | None, options: dict[str, Any], **engine_options: Any
) -> AsyncIterator[tuple[list[Server], list[Chat]]]:
    """Serve a chat in its form."""
    from tests.chat.serving import serving

    servers, chats = [], []
    async with AsyncExitStack() as stack:
        for number in range(form.workers):
            app = App(limits=limits)
            engine = None
            if form.urls:
                engine = RedisEngine(form.urls[number], **{"prefix": form.prefix, **engine_options})
                app.install(engine)
            chat = Chat(engine=engine, **options)
            app.install(chat)
            chats.append(chat)
            servers.append(await stack.enter_async_context(serving(app)))
        yield servers, chats
