"""A class that a page shows in JavaScript, run by Node.js under a small program of the tests."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from subprocess import PIPE

import trio

__all__ = ["NodeProgram", "node_program"]


class NodeProgram:
    """The program: it is told lines, and reports lines."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._lines: deque[str] = deque()

    async def line(self) -> str:
        """Return what it reports next."""
        assert self._process.stdout is not None
        with trio.fail_after(30):
            while not self._lines:
                data = await self._process.stdout.receive_some()
                assert data, "the program has ended"
                assert data.endswith(b"\n")
                self._lines.extend(data.decode().splitlines())
        return self._lines.popleft()

    async def say(self, line: str) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(f"{line}\n".encode())


@asynccontextmanager
async def node_program(*command: str) -> AsyncIterator[NodeProgram]:
    """Run a program until the block ends."""
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            functools.partial(trio.run_process, command, stdin=PIPE, stdout=PIPE, check=False)
        )
        try:
            yield NodeProgram(process)
        finally:
            process.kill()
