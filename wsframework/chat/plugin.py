"""The plugin: what it takes, what it installs, and what a program can do with it."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from wsframework import App, ConfigurationError, Rooms, SlowPolicy
from wsframework.chat.history import Draft, HistoryStore, Message, Retention
from wsframework.chat.journal import Journal
from wsframework.chat.names import Names, clean_name, clean_room, clean_text
from wsframework.chat.page import ChatPage
from wsframework.chat.plain import PlainChat
from wsframework.chat.protocol import MAX_TEXT_CHARS, SUBPROTOCOL
from wsframework.chat.rate import Rate
from wsframework.chat.superchat import Conversation, Superchat, messages_event

__all__ = ["Chat"]

logger = logging.getLogger("wsframework.chat")

Listener = Callable[[Message], None]
ListenerT = TypeVar("ListenerT", bound=Listener)


class Chat:
    """A chat with a page, as a plugin: `app.install(Chat(history="chat.db"))`.

    Args:
        path: where its WebSocket is: the subprotocols `superchat` and `chat`, and no subprotocol.
        page: where its page is, or None for no page.
        room: the room that the page opens first.
        history: a file for the messages (SQLite); None keeps them in memory, until the program ends.
        retention: how much of them is kept.
        rate: how fast a client may be.
        slow: what happens to members that do not keep up with their rooms.
        rooms_per_connection: how many rooms a client may be in at once.
        reserved_names: names that no client can have, such as those given to `say`.

    Attributes:
        rooms: the rooms, by name, as long as somebody is in them.

    Raises:
        ConfigurationError: a path, the room's or a reserved name cannot be used.
    """

    def __init__(
        self,
        *,
        path: str = "/ws/chat",
        page: str | None = "/",
        room: str = "lobby",
        history: str | os.PathLike[str] | None = None,
        retention: Retention | None = None,
        rate: Rate | None = None,
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
        self.rooms = Rooms(slow=slow)
        self._path = path
        self._page_path = page
        self._journal = Journal(HistoryStore(history, retention), self._publish)
        names: Names[Conversation] = Names(reserved)
        self._superchat = Superchat(self.rooms, names, self._journal, rate, rooms_per_connection)
        self._plain = PlainChat(rate)
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
        """Say something in a room, as the program itself; it is kept and told like any other message.

        Args:
            room: the room's name; it need not have people in it.
            text: at most 4,000 characters.
            name: who says it. Reserve it (`reserved_names`), or somebody else may have it.

        Returns:
            The message, stored.

        Raises:
            ValueError: the room, the text or the name cannot be used.
            wsframework.chat.HistoryError: it could not be stored.

        Cancellation:
            It may be said all the same.
        """
        draft = Draft(clean_room(room), clean_name(name), clean_text(text, MAX_TEXT_CHARS))
        return await self._journal.append(draft)

    def on_message(self, listener: ListenerT) -> ListenerT:
        """Call a function with every message, in order, once it is stored and told.

        It must not wait: what takes time belongs into a task, behind a memory channel, say. An exception of
        its own is logged and changes nothing.
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
                await nursery.start(self._journal.run)
                try:
                    yield
                finally:
                    self._journal.stop()
        except BaseExceptionGroup as group:
            # The nursery is ours, and no business of those who look for the exception in it.
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from group.exceptions[0].__cause__
            raise
