"""One connection to a Redis server: commands go out in a pipeline, replies and pushes come in.

It speaks RESP3, in which messages of channels arrive on the connection of the commands. So everything is in
the order in which the server did it: a message that a script published before another script ran arrives
before that one's reply.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import trio

from wsframework.engines.redis.address import RedisAddress
from wsframework.engines.redis.codec import (
    NOT_YET,
    Command,
    Ended,
    LinkLost,
    NotRedis,
    RedisError,
    is_push,
    make_reader,
    pack,
    text_of,
)
from wsframework.engines.redis.login import Steps, login, unreachable

__all__ = ["Link", "Replied"]

_READ_BYTES = 64 * 1024

_MOST_UNANSWERED = 1024
_MOST_UNSENT_BYTES = 256 * 1024
"""Commands that are best sent at once: a pipeline gains nothing by more."""

_SUBSCRIBED = (b"subscribe", b"unsubscribe")

T = TypeVar("T")


class Replied(Protocol):
    """What waits for a command's reply."""

    def replied(self, reply: Any) -> None:
        """Take the reply, which may be a `RedisError`. If it raises, the connection is lost."""

    def lost(self) -> None:
        """Take note that the connection was lost before it came."""


class Link:
    """A connection that is logged in.

    Attributes:
        address: the server.
        heard_at: `trio.current_time()` of the last bytes from it.
        eviction: the policy by which it removes keys of rooms when its memory is full, or None.
    """

    def __init__(self, stream: trio.abc.Stream, address: RedisAddress) -> None:
        self.address = address
        self._stream = stream
        self._reader = make_reader()
        self._waiting: deque[Replied] = deque()
        self._asked_at: deque[float] = deque()
        self._out = bytearray()
        self._closed = False
        self._wanted = trio.Event()
        self.heard_at = trio.current_time()
        self.eviction: str | None = None

    @classmethod
    async def open(
        cls,
        address: RedisAddress,
        timeout: float,
        scripts: Sequence[bytes] = (),
        trials: Sequence[Command] = (),
    ) -> Link:
        """Connect, log in, load scripts, and try whether the account's rights suffice.

        Args:
            address: the server.
            timeout: for all of it, in seconds.
            scripts: their texts.
            trials: commands that have to succeed.

        Raises:
            LinkLost: the server cannot be reached, or not now.
            ConfigurationError: it can, and something is wrong that trying again does not mend.

        Cancellation: the connection is closed.
        """
        link, eviction = await cls.follow(address, timeout, login(address, scripts, trials))
        link.eviction = eviction
        return link

    @classmethod
    async def follow(cls, address: RedisAddress, timeout: float, steps: Steps[T]) -> tuple[Link, T]:
        """Connect, and take these steps.

        Returns:
            The connection and the steps' result.

        Raises:
            LinkLost, ConfigurationError: as for `open`.

        Cancellation: the connection is closed.
        """
        try:
            with trio.fail_after(timeout):
                stream = await _connect(address)
                link: Link = cls(stream, address)
                try:
                    return link, await link.take(steps)
                except BaseException:
                    await trio.aclose_forcefully(stream)
                    raise
        except trio.TooSlowError:
            hint = "" if address.tls is None else "; if it does not speak TLS, write redis://"
            raise LinkLost(f"{address} does not answer within {timeout:g} s{hint}") from None
        except (OSError, trio.BrokenResourceError, Ended, NotRedis) as error:
            raise unreachable(address, error) from None

    async def take(self, steps: Steps[T]) -> T:
        """Send commands one by one; only while the pipeline is not in use.

        Raises:
            LinkLost: the connection is lost, or the steps say so.

        Cancellation: replies may be left behind; close it then.
        """
        try:
            command = next(steps)
            while True:
                command = steps.send(await self._call(command))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _call(self, command: Command) -> Any:
        await self._stream.send_all(pack(command))
        while True:
            while (reply := self._reader.gets()) is NOT_YET:
                self._reader.feed(await self._read())
            # A push is the reply of (UN)SUBSCRIBE, or a message of another program's trial.
            if not is_push(reply) or text_of(reply[0]).upper() == command[0]:
                return reply

    # The pipeline

    def ask(self, command: bytes, waiting: Replied) -> None:
        """Send a command, and hand its reply to `waiting`."""
        if self._closed:
            waiting.lost()
            return
        self._waiting.append(waiting)
        self._asked_at.append(trio.current_time())
        self._out += command
        self._wanted.set()

    async def answer(self, command: Command) -> Any:
        """Send a command and return its reply; None if there is none, or an error.

        Cancellation: the command may have been done.
        """
        answer = _Answer()
        self.ask(pack(command), answer)
        await answer.arrived.wait()
        return None if isinstance(answer.reply, RedisError) else answer.reply

    def subscribe(self, channel: bytes) -> None:
        """Have messages of a channel pushed. If the server refuses it, the connection is lost."""
        self.ask(pack((b"SUBSCRIBE", channel)), _SUBSCRIPTION)

    def unsubscribe(self, channel: bytes) -> None:
        """Have no more of them pushed."""
        self.ask(pack((b"UNSUBSCRIBE", channel)), _SUBSCRIPTION)

    def wake(self) -> None:
        """Have `send`'s `fill` called."""
        self._wanted.set()

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._closed

    @property
    def unanswered(self) -> int:
        """How many commands have no reply yet."""
        return len(self._waiting)

    @property
    def has_room(self) -> bool:
        """Whether what can wait may be sent now."""
        return len(self._waiting) < _MOST_UNANSWERED and len(self._out) < _MOST_UNSENT_BYTES

    @property
    def quiet_since(self) -> float:
        """Since when the server owes us bytes; infinity if it owes none."""
        return max(self.heard_at, self._asked_at[0]) if self._asked_at else float("inf")

    async def send(self, fill: Callable[[], None]) -> None:
        """Send what there is until cancelled.

        Args:
            fill: called before each write, to add commands with `ask`.

        Raises:
            LinkLost: the connection is lost.
        """
        while True:
            fill()
            if self._out:
                data, self._out = bytes(self._out), bytearray()
                try:
                    await self._stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    raise LinkLost(f"the connection was lost: {error.__cause__ or error}") from None
            else:
                self._wanted = trio.Event()
                await self._wanted.wait()

    async def receive(self, pushed: Callable[[Sequence[Any]], None]) -> None:
        """Hand each reply to what waits for it, and each message to `pushed`, until cancelled.

        Raises:
            LinkLost: the connection is lost, or the server sent something that is not Redis' protocol.
        """
        reader, waiting = self._reader, self._waiting
        while True:
            reader.feed(await self._read())
            self.heard_at = trio.current_time()
            while (reply := reader.gets()) is not NOT_YET:
                if is_push(reply):
                    if reply[0] == b"message":
                        pushed(reply)
                    elif reply[0] in _SUBSCRIBED and waiting and waiting[0] is _SUBSCRIPTION:
                        self._asked_at.popleft()
                        waiting.popleft()
                elif waiting:
                    # First, because one that raises has yet to be told that the connection is lost.
                    waiting[0].replied(reply)
                    self._asked_at.popleft()
                    waiting.popleft()
                else:
                    raise LinkLost(f"the server sent what was not asked for: {reply!r:.100}")

    async def _read(self) -> bytes:
        try:
            data = await self._stream.receive_some(_READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Ended(f"the connection was lost: {error.__cause__ or error}") from None
        if not data:
            raise Ended("the server closed the connection")
        return bytes(data)

    @property
    def peer(self) -> tuple[str, int] | None:
        """The address and port of the server; None for a unix socket, or if the connection is lost."""
        stream = self._stream.transport_stream if isinstance(self._stream, trio.SSLStream) else self._stream
        assert isinstance(stream, trio.SocketStream)
        try:
            host, port, *_ = stream.socket.getpeername()
        except (OSError, ValueError):
            return None
        return host, port

    async def aclose(self) -> None:
        """Close it at once.

        Cancellation: it is closed nevertheless.
        """
        self._closed = True
        waiting, self._waiting = self._waiting, deque()
        self._asked_at.clear()
        for each in waiting:
            each.lost()
        await trio.aclose_forcefully(self._stream)


async def _connect(address: RedisAddress) -> trio.abc.Stream:
    if address.path is not None:
        return await trio.open_unix_socket(address.path)
    assert address.host is not None
    stream = await trio.open_tcp_stream(address.host, address.port)
    if address.tls is None:
        return stream
    secure = trio.SSLStream(stream, address.tls, server_hostname=address.host)
    try:
        await secure.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(secure)
        raise
    return secure


class _Answer:
    def __init__(self) -> None:
        self.reply: Any = None
        self.arrived = trio.Event()

    def replied(self, reply: Any) -> None:
        self.reply = reply
        self.arrived.set()
        if isinstance(reply, RedisError) and reply.is_of_connection:
            raise reply

    def lost(self) -> None:
        self.arrived.set()


class _Subscription:
    """Waits for the push that answers SUBSCRIBE in RESP3; a reply instead is an error."""

    def replied(self, reply: Any) -> None:
        raise LinkLost(f"the server refuses a subscription: {reply}")

    def lost(self) -> None:
        pass


_SUBSCRIPTION = _Subscription()
