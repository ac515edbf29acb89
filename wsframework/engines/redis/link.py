"""One connection to a Redis server: commands go out in a pipeline, replies and pushes come in.

It speaks RESP3, in which messages of channels arrive on the connection of the commands. So everything is in
the order in which the server did it: a message that a script published before another script ran arrives
before that one's reply.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import trio

from wsframework.engines.redis.address import RedisAddress
from wsframework.errors import ConfigurationError

try:
    import hiredis
except ImportError:
    raise ImportError(
        "wsframework.engines.redis needs hiredis; install it with: pip install 'wsframework[redis]'"
    ) from None

__all__ = ["Link", "LinkLost", "RedisError", "Replied", "pack"]

_READ_BYTES = 64 * 1024

_NOT_YET: Final = object()

_OLDEST_VERSION = (6, 2)
"""XTRIM MINID came with it."""


class LinkLost(Exception):
    """The connection to Redis is lost, or is of no more use."""


class RedisError(Exception):
    """What the server answered instead of doing a command.

    Attributes:
        code: its first word, such as OOM or NOPERM.
    """

    @property
    def code(self) -> str:
        """The error's first word; of an error in a script, that of the command in it."""
        words = str(self).replace("-", " ").split()
        for word in words[:12]:
            if word in _CODES_IN_SCRIPTS:
                return word
        return words[0] if words else ""


_CODES_IN_SCRIPTS = frozenset(
    {"OOM", "MISCONF", "NOREPLICAS", "READONLY", "WRONGTYPE", "MASTERDOWN", "NOPERM"}
)

pack: Callable[[tuple[bytes | str | int, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]
"""Encode one command."""


class Replied(Protocol):
    """What waits for a command's reply."""

    def replied(self, reply: Any) -> None:
        """Take the reply, which may be a `RedisError`."""

    def lost(self) -> None:
        """Take note that the connection was lost before it came."""


class Link:
    """A connection that is logged in.

    Attributes:
        heard_at: `trio.current_time()` of the last bytes from the server.
        evicts: whether the server removes keys of rooms when its memory is full.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET, replyError=RedisError, protocolError=_NotRedis)
        self._waiting: deque[Replied] = deque()
        self._asked_at: deque[float] = deque()
        self._out = bytearray()
        self._closed = False
        self._wanted = trio.Event()
        self.heard_at = trio.current_time()
        self.evicts = False

    @classmethod
    async def open(
        cls,
        address: RedisAddress,
        timeout: float,
        scripts: Sequence[bytes] = (),
        trials: Sequence[tuple[bytes | str | int, ...]] = (),
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
        try:
            with trio.fail_after(timeout):
                stream = await _connect(address)
                link = cls(stream)
                try:
                    await link._log_in(address)
                    await link._prepare(address, scripts, trials)
                except BaseException:
                    await trio.aclose_forcefully(stream)
                    raise
        except trio.TooSlowError:
            raise LinkLost(f"{address} does not answer within {timeout:g} s") from None
        except (OSError, trio.BrokenResourceError) as error:
            cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise ConfigurationError(f"{address}: its certificate: {cause.verify_message}") from None
            if isinstance(cause, ssl.SSLError):
                raise ConfigurationError(f"{address} does not speak TLS: {cause.reason or cause}") from None
            raise LinkLost(f"{address} cannot be reached: {_reason(cause or error)}") from None
        return link

    async def _log_in(self, address: RedisAddress) -> None:
        command: list[bytes | str] = ["HELLO", "3"]
        if address.password is not None or address.username is not None:
            command += ["AUTH", address.username or "default", address.password or ""]
        try:
            server = await self._call(*command, "SETNAME", "wsframework")
            if address.database:
                await self._call("SELECT", str(address.database))
        except RedisError as error:
            _check_login(address, error)
            raise LinkLost(f"{address}: {error}") from None
        known = {_text(key): value for key, value in server.items()} if isinstance(server, dict) else {}
        version = _text(known.get("version", b"0"))
        if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _OLDEST_VERSION:
            raise ConfigurationError(f"{address} is Redis {version}; 6.2 or newer is needed")
        if _text(known.get("mode", b"")) == "cluster":
            raise ConfigurationError(f"{address} is a Redis Cluster, which is not supported yet")
        if _text(known.get("role", b"master")) != "master":
            raise LinkLost(f"{address} is a replica")

    async def _prepare(
        self,
        address: RedisAddress,
        scripts: Sequence[bytes],
        trials: Sequence[tuple[bytes | str | int, ...]],
    ) -> None:
        try:
            for text in scripts:
                await self._call("SCRIPT", "LOAD", text)
            for command in trials:
                await self._call(*command)
        except RedisError as error:
            if error.code == "NOPERM" or "can't run this command" in str(error):
                raise ConfigurationError(f"{address}: the user's rights do not suffice: {error}") from None
            raise LinkLost(f"{address}: {error}") from None
        # Managed servers often do not tell.
        with suppress(RedisError):
            info = _text(await self._call("INFO", "memory"))
            known = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
            if known.get("maxmemory", "0") != "0":
                self.evicts = known.get("maxmemory_policy", "").startswith("allkeys")

    async def _call(self, *command: bytes | str | int) -> Any:
        """Send one command and wait for its reply; only before the pipeline is in use."""
        await self._stream.send_all(pack(command))
        while True:
            while (reply := self._reader.gets()) is _NOT_YET:
                self._reader.feed(await self._read())
            # A push is the reply of (UN)SUBSCRIBE, or a message of another program's trial.
            if type(reply) is not hiredis.PushNotification or reply[0].decode().upper() == command[0]:
                break
        if isinstance(reply, RedisError):
            raise reply
        return reply

    # The pipeline

    def ask(self, command: bytes, waiting: Replied) -> None:
        """Send a command, and hand its reply to `waiting`."""
        if self._closed:
            waiting.lost()
            return
        self._waiting.append(waiting)
        self._asked_at.append(trio.current_time())
        self.tell(command)

    def tell(self, command: bytes) -> None:
        """Send a command that has no reply, such as SUBSCRIBE in RESP3."""
        self._out += command
        self._wanted.set()

    def wake(self) -> None:
        """Have `send`'s `fill` called."""
        self._wanted.set()

    @property
    def unanswered(self) -> int:
        """How many commands have no reply yet."""
        return len(self._waiting)

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
                    raise LinkLost(f"the connection was lost: {_reason(error)}") from None
            else:
                self._wanted = trio.Event()
                await self._wanted.wait()

    async def receive(self, pushed: Callable[[Sequence[Any]], None]) -> None:
        """Hand each reply to what waits for it, and each push to `pushed`, until cancelled.

        Raises:
            LinkLost: the connection is lost, or the server sent something that is not Redis' protocol.
        """
        reader, waiting = self._reader, self._waiting
        while True:
            reader.feed(await self._read())
            self.heard_at = trio.current_time()
            while (reply := reader.gets()) is not _NOT_YET:
                if type(reply) is hiredis.PushNotification:
                    pushed(reply)
                elif waiting:
                    self._asked_at.popleft()
                    waiting.popleft().replied(reply)
                else:
                    raise LinkLost(f"the server sent what was not asked for: {reply!r:.100}")

    async def _read(self) -> bytes:
        try:
            data = await self._stream.receive_some(_READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LinkLost(f"the connection was lost: {_reason(error.__cause__ or error)}") from None
        if not data:
            raise LinkLost("the server closed the connection")
        return bytes(data)

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


def _check_login(address: RedisAddress, error: RedisError) -> None:
    """Raise what a person has to mend."""
    if error.code in ("WRONGPASS", "NOAUTH"):
        raise ConfigurationError(f"{address} refuses the login: {error}") from None
    if "invalid password" in str(error) or "without any password" in str(error):
        raise ConfigurationError(f"{address} refuses the login: {error}") from None
    if error.code == "NOPERM":
        raise ConfigurationError(f"{address}: the user may not log in so: {error}") from None
    if "unknown command" in str(error):
        raise ConfigurationError(f"{address} is older than Redis 6.2, which is needed") from None
    if "DB index" in str(error):
        raise ConfigurationError(f"{address}: there is no such database") from None


class _NotRedis(LinkLost):
    def __str__(self) -> str:
        return f"what answers there does not speak Redis' protocol: {super().__str__()}"


def _reason(error: BaseException) -> str:
    # Of several addresses that were tried, the first one tells enough.
    while isinstance(cause := error.__cause__, OSError | BaseExceptionGroup):
        error = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
