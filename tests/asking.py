"""Requests for an App, and what it decides on them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from wsframework.app import App
from wsframework.config import Timeouts
from wsframework.connection import Connection
from wsframework.request import Request, Response
from wsframework.session import Acceptance


async def handler(ws: Connection) -> None:
    """Stand for a handler."""


def upgrade(path: str = "/ws", *subprotocols: str, **headers: str) -> Request:
    return Request(path, headers, subprotocols=subprotocols)


def plain(path: str = "/ws", method: str = "GET") -> Request:
    return Request(path, method=method, is_websocket=False)


async def accepted(app: App, request: Request) -> Acceptance:
    decision = await app.decide(request)
    assert isinstance(decision, Acceptance), decision
    return decision


async def answered(app: App, request: Request) -> Response:
    decision = await app.decide(request)
    assert isinstance(decision, Response)
    return decision


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.__dict__["event"] for entry in caplog.records]


class Wrapper:
    """A wrapper that writes down what happens to it."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    @asynccontextmanager
    async def __call__(self, ws: Connection) -> AsyncIterator[None]:
        self.log.append(f"{self.name} entered for {ws.request.path}")
        try:
            yield
        except Exception as error:
            self.log.append(f"{self.name} saw {error!r}")
            raise
        finally:
            self.log.append(f"{self.name} left")


# Guards


def guarded(*guards: Any, own: Iterable[Any] = (), timeouts: Timeouts | None = None) -> App:
    app = App(timeouts=timeouts)
    for guard in guards:
        app.guard(guard)
    app.websocket("/ws", guards=own)(handler)
    return app


async def public_page(request: Request) -> str:
    return "page"
