"""Apps that are traced."""

from __future__ import annotations

import json
import ssl
from functools import partial
from typing import Any

import trio

from tests.diagnostics.broken import Story, plan_for
from wsframework import App, Connection
from wsframework.diagnostics.steps import Step, as_json
from wsframework.diagnostics.tracing.tracer import trace


async def trace_app(
    app: App, path: str = "/", *, context: ssl.SSLContext | None = None, **plan: Any
) -> tuple[Story, bool]:
    """Trace a connection to an App that is served for this one."""
    steps: list[Step] = []
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(app.serve, "127.0.0.1", 0, ssl=context))
        url = str(server.urls[0]) + path
        settings = {"wait_seconds": 0.1, "timeout_seconds": 5.0, **plan}
        if context is not None:
            url = url.replace("127.0.0.1", "localhost")
        with trio.fail_after(20):
            well = await trace(plan_for(url, **settings), steps.append)
        nursery.cancel_scope.cancel()
    return json.loads(json.dumps([as_json(step) for step in steps])), well


def echoing(**options: object) -> App:
    app = App(**options)  # type: ignore[arg-type]

    @app.websocket("/", subprotocols=["chat"])
    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    return app
