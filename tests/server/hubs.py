"""A pollee for tests of the hub."""

from __future__ import annotations

import socket as stdlib_socket

import trio
import trio.testing

from wsframework.server.hub import Hub
from wsframework.server.pollers import READ, WRITE


class Watcher:
    """A pollee that remembers what happened to it."""

    def __init__(self, hub: Hub, socket: stdlib_socket.socket) -> None:
        self.dirty = False
        self.events: list[int] = []
        self.received = b""
        self.flushes = 0
        self.queued = False
        self.steps = 0
        self.steps_wanted = 0
        self.aborted = False
        self.cause = ""
        self.mistake: BaseException | None = None
        self.protected: set[bool] = set()
        self._hub = hub
        self._socket = socket

    def on_ready(self, events: int, now: float) -> None:
        self.events.append(events)
        self.protected.add(trio.lowlevel.currently_ki_protected())
        if self.mistake is not None:
            raise self.mistake
        if events & READ:
            self.received += self._socket.recv(100)
        if events & WRITE:
            self._hub.ask(self._socket.fileno(), READ)

    def flush(self) -> None:
        self.flushes += 1
        self.protected.add(trio.lowlevel.currently_ki_protected())
        if self.mistake is not None:
            raise self.mistake

    def go_on(self, now: float) -> None:
        self.steps += 1
        self.protected.add(trio.lowlevel.currently_ki_protected())
        if self.mistake is not None:
            raise self.mistake
        if self.steps < self.steps_wanted:
            self._hub.again(self)

    def abort(self, cause: str) -> None:
        self.aborted = True
        self.cause = cause
        self._hub.remove(self._socket.fileno())
        self._socket.close()


async def turn() -> None:
    """Let the hub do what is to be done."""
    await trio.testing.wait_all_tasks_blocked(0.005)
