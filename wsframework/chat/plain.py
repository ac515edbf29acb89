"""The plain conversation: asks for the client's name, one second after each of its messages.

It behaves like the first chat (examples/chat_server.py). Clients that offer the subprotocol `chat`, or none,
get it.
"""

from __future__ import annotations

import logging

import trio

from wsframework import Close, Connection, ConnectionClosed
from wsframework.chat.rate import Visit, Visitors

__all__ = ["PlainChat"]

logger = logging.getLogger("wsframework.chat")

QUESTION = "What's your name?"
_THOUGHT_SECONDS = 1.0
_LOGGED_CHARS = 200


class PlainChat:
    """The handler of the subprotocol `chat`, and of clients that offer none.

    Args:
        visitors: who is connected, and how fast they may talk: every message costs a task for a second.
    """

    def __init__(self, visitors: Visitors) -> None:
        self._visitors = visitors

    async def converse(self, ws: Connection) -> None:
        """Serve one connection.

        Raises:
            Close: the client flooded, or its address has too many connections.
        """
        logger.info("[SERVER] connection()")
        with self._visitors.visit(ws.request.remote, trio.current_time()) as visit:
            await self._talk(ws, visit)

    async def _talk(self, ws: Connection, visit: Visit) -> None:
        # The handler's own nursery: its tasks outlive the connection by up to a second, and so find out that
        # it has ended. Those in `ws.nursery` would be cancelled with it.
        async with trio.open_nursery() as nursery:
            async for message in ws:
                if visit.take(trio.current_time()):
                    if visit.exhausted:
                        raise Close(1008, "too many messages")
                    await ws.send("Not so fast, please.")
                    continue
                logger.info("[SERVER] Received: %s", _shown(message))
                nursery.start_soon(_ask, ws)


async def _ask(ws: Connection) -> None:
    await trio.sleep(_THOUGHT_SECONDS)
    try:
        await ws.send(QUESTION)
    except ConnectionClosed as error:
        logger.warning("[SERVER] error: %s", error)


def _shown(message: str | bytes) -> str:
    """Return what a log line can hold of a message: what it says must not look like another line."""
    start = message[: _LOGGED_CHARS + 1]  # a message may be a megabyte
    text = start if isinstance(start, str) else repr(start)
    cut = text if len(text) <= _LOGGED_CHARS else f"{text[:_LOGGED_CHARS]}…"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in cut)
