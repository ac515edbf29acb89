"""The chat as a plugin, with the methods that a program calls."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from wsframework import App, ConfigurationError, Engine, LocalEngine, Rooms, SlowPolicy
from wsframework.chat.attendance import Attendance
from wsframework.chat.history import HistoryStore
from wsframework.chat.journal import Journal
from wsframework.chat.messages import Draft, Message, Retention
from wsframework.chat.names import clean_name, clean_room, clean_text
from wsframework.chat.page import ChatPage
from wsframework.chat.plain import PlainChat
from wsframework.chat.presence import Presence
from wsframework.chat.protocol import MAX_TEXT_CHARS, SUBPROTOCOL
from wsframework.chat.rate import CONNECTIONS_PER_ADDRESS, Rate, Visitors
from wsframework.chat.superchat import Superchat, messages_event
from wsframework.chat.transcript import Publish, Transcript

__all__ = ["Chat"]

logger = logging.getLogger("wsframework.chat")

Listener = Callable[[Message], None]
ListenerT = TypeVar("ListenerT", bound=Listener)


class Chat:
    """A chat with a page, as a plugin: `app.install(Chat(history="chat.db"))`.

    Args:
        path: the path of its WebSocket, with the subprotocols `superchat` and `chat` and without one.
        page: the path of its page, or None for no page.
        room: the room that the page opens first.
        history: the file for the messages (SQLite); None keeps them in memory until the program ends.
        engine: a `RedisEngine`, instead of `history`, for a chat that is the same in all processes that
            share its Redis and its `prefix`. Install it before the chat. `rate` and the limits of addresses
            count in each process.
        retention: how many messages are kept, and for how long.
        rate: how many requests a connection may make.
        address_rate: how many all connections of one address may make; three times the `rate`, and five times
            its burst, by default. A client that reconnects has a new `rate`, but the same `address_rate`.
            Behind a proxy, have the server trust it, or all clients have the proxy's address.
        connections_per_address: how many connections to the chat an address may have, or None. 100. An IPv6
            network of 64 bits counts as one address, and unix sockets are not counted.
        slow: what happens to members that do not keep up with their rooms.
        rooms_per_connection: how many rooms a client may be in at once.
        reserved_names: names that no client can have, such as those given to `say`.

    Attributes:
        rooms: the rooms that have members in this process, by name.

    Raises:
        ConfigurationError: a path, the room's or a reserved name cannot be used, or the engine cannot.
    """

    def __init__(
        self,
        *,
        path: str = "/ws/chat",
        page: str | None = "/",
        room: str = "lobby",
        history: str | os.PathLike[str] | None = None,
        engine: Engine | None = None,
        retention: Retention | None = None,
        rate: Rate | None = None,
        address_rate: Rate | None = None,
        connections_per_address: int | None = CONNECTIONS_PER_ADDRESS,
        slow: SlowPolicy | None = None,
        rooms_per_connection: int = 20,
        reserved_names: Iterable[str] = (),
    ) -> None:
        if "{" in path or not path.startswith("/"):
            raise ConfigurationError(f"the chat's path must be a fixed one such as '/ws/chat', not {path!r}")
        try:
            first_room = clean_room(room)
            reserved = [clean_name(name) for name in reserved_names]
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        rate = rate or Rate()
        # What processes tell each other is told to these rooms in each.
        self.rooms = Rooms(slow=slow, engine=LocalEngine(warn=engine is None))
        self._path = path
        self._page_path = page
        self._presence: Attendance
        self._journal: Transcript
        if engine is None:
            self._presence = Presence(self.rooms, reserved)
            self._journal = Journal(HistoryStore(history, retention), self._publish)
        elif history is not None:
            raise ConfigurationError("Chat(history=…, engine=…): messages are kept in one of them")
        else:
            self._presence, self._journal = _shared(
                engine, self.rooms, reserved, retention or Retention(), self._publish
            )
        visitors = Visitors(rate, address_rate or rate.for_addresses(), connections_per_address)
        self._superchat = Superchat(
            self.rooms, self._presence, self._journal, rate, visitors, rooms_per_connection
        )
        self._plain = PlainChat(visitors)
        self._page = None if page is None else ChatPage(path, first_room)
        self._listeners: list[Listener] = []

    def install(self, app: App) -> None:
        """Register the routes and the lifespan; `app.install(chat)` calls it."""
        app.websocket(self._path, subprotocols=[SUBPROTOCOL])(self._superchat.converse)
        app.websocket(self._path, subprotocols=["chat"])(self._plain.converse)
        app.websocket(self._path)(self._plain.converse)
        if self._page is not None and self._page_path is not None:
            app.http(self._page_path)(self._page.show)
        app.lifespan(self._running)

    async def say(self, room: str, text: str, *, name: str) -> Message:
        """Send a message to a room from the program. It is stored and sent like a client's message.

        Args:
            room: the room's name; the room may be empty.
            text: at most 4,000 characters.
            name: the sender's name. Add it to `reserved_names`, so that no client can take it.

        Returns:
            The message, stored.

        Raises:
            ValueError: the room, the text or the name cannot be used.
            wsframework.chat.HistoryError: it could not be stored.

        Cancellation:
            The message may be stored and sent anyway.
        """
        draft = Draft(clean_room(room), clean_name(name), clean_text(text, MAX_TEXT_CHARS))
        return await self._journal.append(draft)

    def on_message(self, listener: ListenerT) -> ListenerT:
        """Register a function that is called with every message, in order, after it was stored and sent.

        The function must not block. Pass slow work to a task, for example through a memory channel. Its
        exceptions are logged and have no other effect.
        """
        self._listeners.append(listener)
        return listener

    def _publish(self, room: str, messages: list[Message]) -> None:
        if room in self.rooms:
            self.rooms[room].broadcast(messages_event(room, messages))
        for listener in self._listeners:
            for message in messages:
                try:
                    listener(message)
                except Exception:
                    logger.exception("a listener of the chat failed at message %d", message.id)

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        """Keep the journal open for as long as the App serves."""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._presence.run)
                await nursery.start(self._journal.run)
                try:
                    yield
                finally:
                    self._presence.stop()
                    self._journal.stop()
        except BaseExceptionGroup as group:
            # The nursery is an internal detail, so callers get the exception without its group.
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from group.exceptions[0].__cause__
            raise


def _shared(
    engine: Engine, rooms: Rooms, reserved: Iterable[str], retention: Retention, publish: Publish
) -> tuple[Attendance, Transcript]:
    try:
        from wsframework.chat.redis import share
    except ImportError as error:
        raise ConfigurationError(str(error)) from None
    return share(engine, rooms, reserved, retention, publish)
