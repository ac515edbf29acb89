"""The App whose handlers play random programs, and what each of them did.

Every client has a `Part`: the number in its path. The part holds what its handler, guards and pages shall
do, and notes what they did: which sends returned, what they received, which broadcasts they were a member
for, and which exceptions they raised. `judging.py` compares that with what the client saw.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

import attrs
import trio
import trio.lowlevel

from tests.hostile.labels import Torn, label, parse
from tests.hostile.programs import ROOMS, Program, Step
from wsframework import (
    App,
    Close,
    Connection,
    ConnectionClosed,
    Deflate,
    Keepalive,
    Limits,
    Reject,
    Request,
    Response,
    Room,
    SlowPolicy,
    Timeouts,
)

__all__ = ["LIMITS", "TIMEOUTS", "Own", "Part", "Play", "make_error"]

LIMITS = Limits(
    message_bytes=150_000,
    unread_bytes=20_000,
    outbox_bytes=20_000,
    connections=500,
    connections_per_address=None,
)
TIMEOUTS = Timeouts(handshake=1.0, guard=1.0, close=1.0, disconnect_grace=0.2, last_words=0.3, drain=1.0)
KEEPALIVE = Keepalive(interval=0.4, timeout=2.0)
POLICIES = (
    SlowPolicy(action="close", max_bytes=50_000, max_seconds=5.0),
    SlowPolicy(action="drop_newest", max_bytes=50_000, max_seconds=5.0),
    SlowPolicy(action="drop_oldest", max_bytes=50_000, max_seconds=5.0),
)


class Own(BaseException):
    """A program's own, which is no Exception."""


class Unprintable(Exception):
    def __repr__(self) -> str:
        raise Unprintable

    __str__ = __repr__


class UnprintableBase(BaseException):
    def __repr__(self) -> str:
        raise UnprintableBase

    __str__ = __repr__


def _deep() -> Exception:
    error: Exception = ValueError("at the bottom")
    for _ in range(1500):
        error = ExceptionGroup("deep", [error])
    return error


ERRORS: dict[str, Callable[[], BaseException]] = {
    "value": lambda: ValueError("a mistake"),
    "unprintable": Unprintable,
    "loud": lambda: ValueError("\x1b[31m\x9b31m\u202e\r\n\0"),
    "huge": lambda: ValueError("x" * 1_000_000),
    "stop": StopAsyncIteration,
    "memory": MemoryError,
    "group": lambda: ExceptionGroup("two", [ValueError(1), KeyError("two")]),
    "nested": lambda: ExceptionGroup("outer", [ExceptionGroup("inner", [Close(4000), ValueError(1)])]),
    "deep": _deep,
    "own": lambda: Own("own"),
    "asyncio": asyncio.CancelledError,
    "generator": GeneratorExit,
    "exit": lambda: SystemExit(3),
    "base_group": lambda: BaseExceptionGroup("two", [Own(1), SystemExit(2)]),
    "mixed_group": lambda: BaseExceptionGroup("mixed", [ValueError(1), Own(2), Close(4000)]),
    "unprintable_base": UnprintableBase,
}


def make_error(kind: str) -> BaseException:
    return ERRORS[kind]()


@attrs.define(eq=False)
class Part:
    """What one client's side of the server shall do, and has done.

    Attributes:
        sends: numbers of its direct sends, in the order of calls.
        sent: those that returned.
        expected: the broadcasts that were made while it was a member: room, membership, number.
        received: how many labelled messages its handler received, which came in order.
        raised: exceptions raised that nothing in the program catches.
        raised_at: when the last of them was.
        returned_at: when its handler returned, wrapper included, if it did.
        masked: whether one of those may have been lost on its way, by the rules of Python or Trio.
        corrupted: how many things it left entered.
        closed: whether the program closed the connection itself, by whatever means.
        wrongs: what must not be.
    """

    number: int
    handler: Program = ()
    guard: Program = ()
    wrapper: tuple[Program, Program] = ((), ())
    page: Program = ()
    sends: list[int] = attrs.field(factory=list)
    sent: set[int] = attrs.field(factory=set)
    expected: list[tuple[str, str, int]] = attrs.field(factory=list)
    received: int = 0
    receiving: bool = False
    raised: int = 0
    raised_at: float = 0.0
    returned_at: float | None = None
    masked: bool = False
    corrupted: int = 0
    closed: bool = False
    started: bool = False
    wrongs: list[str] = attrs.field(factory=list)

    def __str__(self) -> str:
        lines = [f"handler: {'; '.join(map(str, self.handler))}"]
        if self.guard:
            lines.append(f"guard: {'; '.join(map(str, self.guard))}")
        if any(self.wrapper):
            before, after = ("; ".join(map(str, program)) for program in self.wrapper)
            lines.append(f"wrapper: {before} | {after}")
        if self.page:
            lines.append(f"page: {'; '.join(map(str, self.page))}")
        return "\n    ".join(lines)

    @contextmanager
    def receiver(self) -> Iterator[None]:
        """Be the only task that receives: between two, the order is theirs."""
        self.receiving = True
        try:
            yield
        finally:
            self.receiving = False


class _Return(Exception):
    """Ends a program that is not nested in a nursery; inside one it is only the end of that child."""


class Play:
    """An App, its rooms and its parts."""

    def __init__(self) -> None:
        self.app = App(limits=LIMITS, timeouts=TIMEOUTS, keepalive=KEEPALIVE, compression=Deflate())
        self.parts: dict[int, Part] = {}
        self.rooms: dict[str, Room] = {policy.action: Room(policy.action, slow=policy) for policy in POLICIES}
        self.connections: WeakSet[Connection] = WeakSet()
        self.left: list[object] = []
        """What was entered and never left, kept from being collected."""
        self._leavers: set[str] = set()
        self._numbers = {name: itertools.count(1) for name in ROOMS}
        self._register()

    def _register(self) -> None:
        app = self.app

        @app.guard
        async def guard(request: Request) -> Response | None:
            part = self._part(request)
            if part is not None:
                await self._perform(part, None, part.guard)
            return None

        @app.wrap
        async def wrapper(ws: Connection) -> AsyncIterator[None]:
            part = self._part(ws.request)
            if part is None:
                yield
                return
            before, after = part.wrapper
            await self._child_of(part, ws, before)
            try:
                yield
            except BaseException:
                # What it raises itself hides what comes through it.
                part.masked = part.masked or bool(after)
                await self._child_of(part, ws, after)
                raise
            part.returned_at = None
            await self._child_of(part, ws, after)
            part.returned_at = trio.current_time()

        @app.websocket("/echo")
        async def echo(ws: Connection) -> None:
            self.connections.add(ws)
            async for message in ws:
                await ws.send(message)

        @app.websocket("/part/{number:int}")
        async def play(ws: Connection, number: int) -> None:
            self.connections.add(ws)
            part = self.parts[number]
            part.started = True
            with suppress(_Return):
                await self._perform(part, ws, part.handler)
            part.returned_at = trio.current_time()

        @app.http("/page/{number:int}", methods=["GET", "POST"])
        async def page(request: Request, number: int) -> Any:
            part = self.parts[number]
            await self._perform(part, None, part.page[:-1])
            match part.page[-1].values[0]:
                case "text":
                    return "page"
                case "bytes":
                    return Response(b"\0" * 1000, headers={"X-Own": "1"})
                case "big":
                    return b"x" * 300_000
                case "none":
                    part.raised += 1
                    return None
                case _:
                    part.raised += 1
                    return object()

    def is_left(self, ws: Connection) -> bool:
        """Whether what its handler has left entered may keep the connection alive."""
        return ws.request.path.rpartition("/")[2] in self._leavers

    def _part(self, request: Request) -> Part | None:
        kind, _, number = request.path.lstrip("/").partition("/")
        return self.parts.get(int(number)) if kind in ("part", "page") and number.isdigit() else None

    # Playing

    async def _perform(self, part: Part, ws: Connection | None, program: Program) -> None:
        for step in program:
            action: Callable[[Part, Connection | None, Step], Awaitable[None]] = getattr(
                self, f"_{step.verb}"
            )
            await action(part, ws, step)

    async def _sleep(self, part: Part, ws: object, step: Step) -> None:
        await trio.sleep(step.values[0])

    async def _receive(self, part: Part, ws: Connection, step: Step) -> None:
        count, seconds = step.values
        with trio.move_on_after(seconds):
            for _ in range(count):
                if part.receiving:
                    return
                with part.receiver():
                    self._take(part, await ws.receive())

    async def _echo(self, part: Part, ws: Connection, step: Step) -> None:
        for _ in range(step.values[0]):
            if part.receiving:
                return
            with part.receiver():
                try:
                    size = self._take(part, await anext(ws))
                except StopAsyncIteration:
                    return
            await self._send_one(part, ws, min(size, 2000))

    def _take(self, part: Part, message: str | bytes) -> int:
        if message[:1] not in ("~", b"~"):
            try:
                found = parse(message)
            except Torn as torn:
                part.wrongs.append(f"the handler received {torn}")
            else:
                if found.number != part.received:
                    part.wrongs.append(f"the handler received {found}, not number {part.received}")
                part.received = found.number + 1
        return len(message)

    async def _send_one(self, part: Part, ws: Connection, size: int) -> None:
        number = len(part.sends)
        part.sends.append(number)
        await ws.send(label(">", number, size))
        part.sent.add(number)

    async def _send(self, part: Part, ws: Connection, step: Step) -> None:
        count, size = step.values
        for _ in range(count):
            await self._send_one(part, ws, size)

    async def _send_impatiently(self, part: Part, ws: Connection, step: Step) -> None:
        count, size, seconds = step.values
        with trio.move_on_after(seconds):
            for _ in range(count):
                await self._send_one(part, ws, size)

    async def _send_nowait(self, part: Part, ws: Connection, step: Step) -> None:
        count, size = step.values
        for _ in range(count):
            number = len(part.sends)
            part.sends.append(number)
            try:
                ws.send_nowait(label(">", number, size))
            except trio.WouldBlock:
                await trio.lowlevel.checkpoint()
            else:
                part.sent.add(number)

    async def _send_guarded(self, part: Part, ws: Connection, step: Step) -> None:
        with trio.move_on_after(step.values[0], shield=True):
            try:
                await self._send_one(part, ws, 10)
            except ConnectionClosed:
                return

    async def _ping(self, part: Part, ws: Connection, step: Step) -> None:
        with trio.move_on_after(step.values[0]):
            await ws.ping()

    async def _broadcast(self, part: Part, ws: object, step: Step) -> None:
        name, count, size = step.values
        for _ in range(count):
            self._broadcast_one(name, size)

    def _broadcast_one(self, name: str, size: int) -> None:
        room, number = self.rooms[name], next(self._numbers[name])
        for member in room.members:
            self.parts[member.data].expected.append((name, member.id, number))
        room.broadcast(label(name, number, size))

    async def _join(self, part: Part, ws: Connection, step: Step) -> None:
        room = self.rooms[step.values[0]]
        if any(member.ws is ws for member in room.members):
            await self._perform(part, ws, step.inner[0])
            return
        async with room.join(ws, part.number):
            await self._perform(part, ws, step.inner[0])

    async def _come_and_go(self, part: Part, ws: Connection, step: Step) -> None:
        name, count, size = step.values
        for _ in range(count):
            if any(member.ws is ws for member in self.rooms[name].members):
                return
            async with self.rooms[name].join(ws, part.number):
                self._broadcast_one(name, size)
            await trio.lowlevel.checkpoint()

    async def _nursery(self, part: Part, ws: Connection, step: Step) -> None:
        async with trio.open_nursery() as nursery:
            for program in step.inner:
                nursery.start_soon(self._child_of, part, ws, program)

    async def _nursery_cancelled(self, part: Part, ws: Connection, step: Step) -> None:
        async with trio.open_nursery() as nursery:
            for program in step.inner:
                nursery.start_soon(self._child_of, part, ws, program)
            await trio.sleep(0.005)
            nursery.cancel_scope.cancel()

    async def _child(self, part: Part, ws: Connection, step: Step) -> None:
        try:
            nursery = ws.nursery
        except RuntimeError:
            return  # the handler has ended, and this is a child of its that runs for the last time
        nursery.start_soon(self._child_of, part, ws, step.inner[0])

    async def _child_of(self, part: Part, ws: Connection, program: Program) -> None:
        try:
            await self._perform(part, ws, program)
        except _Return:
            return

    async def _move_on(self, part: Part, ws: Connection, step: Step) -> None:
        with trio.move_on_after(step.values[0]):
            await self._perform(part, ws, step.inner[0])

    async def _finally(self, part: Part, ws: Connection, step: Step) -> None:
        try:
            await self._perform(part, ws, step.inner[0])
        finally:
            try:
                await self._perform(part, ws, step.inner[1])
            except BaseException:
                part.masked = True
                raise

    async def _shield(self, part: Part, ws: object, step: Step) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(step.values[0])

    async def _swallow(self, part: Part, ws: object, step: Step) -> None:
        try:
            await trio.sleep(step.values[0])
        except trio.Cancelled:
            return

    async def _thread(self, part: Part, ws: object, step: Step) -> None:
        await trio.to_thread.run_sync(time.sleep, step.values[0])

    # Ending

    async def _aclose(self, part: Part, ws: Connection, step: Step) -> None:
        part.closed = True
        await ws.aclose(step.values[0], "by the program")

    async def _aclose_impatiently(self, part: Part, ws: Connection, step: Step) -> None:
        part.closed = True
        with trio.move_on_after(step.values[1]):
            await ws.aclose(step.values[0], "by the program")

    async def _close(self, part: Part, ws: object, step: Step) -> None:
        part.closed = True
        if ws is None:
            part.raised += 1  # in a guard or a page it is a mistake like any other
        raise Close(step.values[0], "by the program")

    async def _return(self, part: Part, ws: object, step: Step) -> None:
        if ws is not None:
            raise _Return

    async def _reject(self, part: Part, ws: object, step: Step) -> None:
        status, close = step.values
        part.closed = part.closed or close is not None
        raise Reject(status, close=close)

    async def _raise(self, part: Part, ws: object, step: Step) -> None:
        part.raised += 1
        part.raised_at = trio.current_time()
        raise make_error(step.values[0])

    async def _leave(self, part: Part, ws: object, step: Step) -> None:
        part.corrupted += 1
        self._leavers.add(str(part.number))
        match step.values[0]:
            case "generator_nursery":
                await self._break_out_of(ticks())
            case "generator_scope":
                await self._break_out_of(scoped())
            case "generator_task":
                await self._break_out_of(failing())
            case "scope":
                scope = trio.CancelScope()
                scope.__enter__()
                self.left.append(scope)
            case "cancelled_scope":
                scope = trio.CancelScope()
                scope.__enter__()
                scope.cancel()
                self.left.append(scope)
            case "nursery":
                manager = trio.open_nursery()
                nursery = await manager.__aenter__()
                nursery.start_soon(trio.sleep, 0.02)
                self.left.append(manager)

    async def _break_out_of(self, generator: AsyncIterator[str]) -> None:
        self.left.append(generator)
        async for _ in generator:
            break


async def ticks() -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 0.01)
        while True:
            yield "tick"


async def scoped() -> AsyncIterator[str]:
    with trio.move_on_after(10):
        while True:
            yield "tick"


async def failing() -> AsyncIterator[str]:
    async def fail() -> None:
        await trio.sleep(0.01)
        raise ValueError("in a generator's nursery")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        while True:
            yield "tick"
