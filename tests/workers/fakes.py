"""Workers without processes: a test says what each of them does, in virtual time."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from wsframework.workers.channel import Channel
from wsframework.workers.launching import Launch, Process
from wsframework.workers.page import Page
from wsframework.workers.supervisor import Supervisor


class FakeProcess(Process):
    """A process that ends when it is told to, and notes its signals."""

    def __init__(self, pid: int, channel: Channel) -> None:
        self.pid = pid
        self.channel = channel
        self.signals: list[signal.Signals] = []
        self._status: int | None = None
        self._ended = trio.Event()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self._status is not None
        return self._status

    def send_signal(self, number: signal.Signals) -> None:
        if self._status is None:
            self.signals.append(number)
            if number == signal.SIGKILL:
                self.end(-number)

    def end(self, status: int) -> None:
        """End with a status."""
        self._status = status
        self.channel.close()
        self._ended.set()

    def run(self) -> None:
        """Have a running event loop."""
        self.channel.send("running", {"ends_within": 20.0})

    def serve(self) -> None:
        """Be ready."""
        self.run()
        self.channel.send("ready")

    async def hear(self) -> tuple[str, object]:
        """Return the parent's next message."""
        return await anext(self.channel)


@attrs.define(init=False, slots=False)
class FakeLaunch(Launch):
    """Starts such processes: the first ones serve at once, as many as `serving` says."""

    def __init__(self, serving: int = 1000) -> None:
        self.processes: list[FakeProcess] = []
        self.at: list[float] = []
        self.serving = serving
        self._more = trio.Event()

    def start(self, number: int, slot: int) -> tuple[Process, Channel]:
        ours, theirs = socket.socketpair()
        process = FakeProcess(1000 + number, Channel(theirs))
        self.processes.append(process)
        self.at.append(trio.current_time())
        self._more.set()
        self._more = trio.Event()
        if len(self.processes) <= self.serving:
            process.serve()
        return process, Channel(ours)

    async def started(self, count: int) -> None:
        """Wait until so many have been started."""
        while len(self.processes) < count:
            await self._more.wait()


@asynccontextmanager
async def supervising(launch: FakeLaunch, count: int) -> AsyncIterator[tuple[Supervisor, Page]]:
    """Run a supervisor whose workers are ready; at the end they are killed."""
    page = Page.create(64)
    supervisor, ready = Supervisor(launch, page, lambda: None), trio.Event()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run, count, ready.set)
            await ready.wait()
            yield supervisor, page
            supervisor.kill()
    finally:
        page.close()
        for process in launch.processes:
            process.channel.close()
