"""The access log."""

from __future__ import annotations

import logging

import pytest
from trio.testing import MockClock

from wsframework import AccessLog, App, Request
from wsframework.testing import connect, request, serve


async def test_each_plain_request_is_one_record_without_its_query(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    app.observe(AccessLog())

    @app.http("/page")
    async def page(request: Request) -> str:
        return "a page"

    @app.websocket("/")
    async def echo(ws: object) -> None: ...

    caplog.set_level(logging.INFO, logger="wsframework")
    async with serve(app):
        await request(app, "GET", "/page?token=secret")
        await request(app, "HEAD", "/nothing")
        async with connect(app):
            pass
    records = [entry for entry in caplog.records if entry.__dict__["event"] == "request.answered"]
    fields = [entry.__dict__["fields"] for entry in records]
    assert [(entry["method"], entry["path"], entry["status"], entry["bytes"]) for entry in fields] == [
        ("GET", "/page", 200, 6),
        ("HEAD", "/nothing", 404, len("404 Not Found: there is nothing at /nothing\n")),
    ]
    assert {entry["seconds"] for entry in fields} == {0}
    assert {entry.levelno for entry in records} == {logging.INFO}
    assert "secret" not in caplog.text


async def test_without_it_or_above_level_info_there_is_none(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    for level, observed in ((logging.INFO, False), (logging.WARNING, True)):
        app = App()
        if observed:
            app.observe(AccessLog())
        caplog.set_level(level, logger="wsframework")
        await request(app, "GET", "/")
    assert "request.answered" not in {entry.__dict__["event"] for entry in caplog.records}
