"""Serve the requests that a plain `trio_websocket.serve_websocket(app, …)` hands to the App, one by one."""

from __future__ import annotations

import functools

import trio_websocket

from wsframework.hosts.guests import Application, serve_guest
from wsframework.hosts.trio_websocket.handover import take_over

__all__ = ["serve_request"]


async def serve_request(proposal: trio_websocket.WebSocketRequest, app: Application) -> None:
    """Serve one connection of a trio-websocket server, from behind its request's head to the end.

    Whatever user code raises or does is contained, as on the native server.

    Raises:
        KeyboardInterrupt: one was raised in some handler of the App's; all its connections were drained.

    Cancellation:
        Starts the drain: Close 1001, and the handler is cancelled after `Timeouts.drain` at the latest.
    """
    await serve_guest(app, functools.partial(take_over, proposal))
