"""Publish to rooms from a program without Trio: a web application, a task, a shell."""

from __future__ import annotations

import os
import secrets
import socket
import ssl as ssl_module
import threading
import time
from types import TracebackType
from typing import Any, Literal, TypeVar

from wsframework.engines.redis.address import RedisAddress, SentinelAddress, parse_address
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
)
from wsframework.engines.redis.login import Steps, locate, login, unreachable
from wsframework.engines.redis.names import Names
from wsframework.engines.redis.outgoing import PUBLISH, Expiries, publish_command
from wsframework.engines.redis.places import Place, encode_envelope, new_tag
from wsframework.engines.redis.sentinel import Sentinels
from wsframework.errors import ConfigurationError, RoomUnavailable
from wsframework.rooms import History, Position, RoomMessage
from wsframework.rooms.addresses import address_of_room, address_of_user
from wsframework.rooms.closing import message_that_closes
from wsframework.rooms.engine import check_key
from wsframework.transport import BytesLike

__all__ = ["Publisher"]

_READ_BYTES = 16 * 1024

T = TypeVar("T")


class Publisher:
    """Publishes to the rooms of `RedisEngine`s, and blocks while it does.

        with Publisher("redis://localhost") as publisher:
            publisher.publish("tea", "The kettle is on.")

    It connects at the first message, and again after a lost connection. It may be shared by threads, and by
    processes that are forked: each has a connection of its own. It does not run in a program that uses Trio:
    there, `room.publish` does not block the other connections.

    Args:
        url: as for `RedisEngine`, like `prefix` and `ssl`.
        history: what is kept of the rooms. By default it is what the programs with their members keep, once
            one of them has published, and before that what an engine keeps by default.
        timeout: seconds within which a message is stored or given up.

    Raises:
        ConfigurationError: the URL is none.
    """

    def __init__(
        self,
        url: str = "redis://127.0.0.1",
        *,
        prefix: str = "ws",
        history: History | Literal["room"] | None = "room",
        timeout: float = 5.0,
        ssl: ssl_module.SSLContext | None = None,
    ) -> None:
        self.address = parse_address(url, ssl)
        self._sentinels = Sentinels(self.address) if isinstance(self.address, SentinelAddress) else None
        self._names = Names(prefix)
        self._keep = history
        self._timeout = timeout
        self._connection: _Connection | None = None
        self._begin()

    def _begin(self) -> None:
        """Begin in this process, as a node of its own: the messages of two would be taken for one another."""
        self._process = os.getpid()
        self._node = secrets.token_hex(8)
        self._number = 0
        self._expiries = Expiries()
        self._lock = threading.Lock()  # another thread may have held it when the process was forked
        self.close()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def publish(self, room: str, message: str | BytesLike, *, key: str | None = None) -> Position:
        """Store a message, which all members of the room get.

        Args:
            room: the room's name.
            message: `str` for Text, bytes-like for Binary.
            key: for callers that try again, as for `Room.publish`.

        Returns:
            Its position, when Redis has confirmed it.

        Raises:
            TypeError: the message is neither `str` nor bytes-like.
            ValueError: the key is empty or has more than 64 characters.
            RoomUnavailable: it was not stored within `timeout`, or Redis refuses it; `unknown` says whether
                it may have been stored.
            ConfigurationError: the server refuses the login, or is none that can be used.
        """
        return self._publish(address_of_room(room), RoomMessage.of(message), key)

    def publish_to_user(
        self, user: str | int, message: str | BytesLike, *, key: str | None = None
    ) -> Position:
        """Store a message, which all connections get that have joined `rooms.user(user)`.

        Args:
            user: the id of the user.
            message: as for `publish`.
            key: as for `publish`.

        Returns:
            Its position, when Redis has confirmed it.

        Raises:
            Exception: as `publish`; `TypeError` also if the id is neither `str` nor `int`.
        """
        return self._publish(address_of_user(user), RoomMessage.of(message), key)

    def disconnect(self, user: str | int, code: int = 1000, reason: str = "") -> None:
        """Close all connections of a user in all processes, as `Rooms.disconnect` does.

        Args:
            user: the id of the user.
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999.
            reason: at most 123 bytes of UTF-8.

        Raises:
            TypeError: the id is neither `str` nor `int`.
            ValueError: the code or the reason may not be sent.
            RoomUnavailable, ConfigurationError: as `publish`.
        """
        self._publish(address_of_user(user), message_that_closes(code, reason), None)

    def _publish(self, address: str, message: RoomMessage, key: str | None) -> Position:
        check_key(key)
        envelope = encode_envelope(message)
        room_key = self._names.room(address)
        name = None if key is None else self._names.publication(room_key, key)
        if self._process != os.getpid():
            self._begin()
        due = time.monotonic() + self._timeout
        lock = self._lock
        if not lock.acquire(timeout=self._timeout):
            raise RoomUnavailable(f"{self.address} did not take the messages of other threads")
        try:
            self._number += 1
            return self._store(room_key, name, (self._number, new_tag(), envelope), due)
        finally:
            lock.release()

    def _store(self, room: bytes, name: bytes | None, stored: tuple[int, str, bytes], due: float) -> Position:
        sent = False
        why = ""
        while True:
            began = time.monotonic()
            try:
                if self._connection is None:
                    self._expiries.clear()
                    self._connection = self._open(due)
                place = (self._names, self._node, room, name, self._keep, self._expiries)
                command = publish_command(*place, [stored], time.monotonic())
                sent = True
                # A connection that is dead without a word leaves time for another one.
                reply = self._connection.call(command, time.monotonic() + _left(due) / 2)
                if isinstance(reply, RedisError) and reply.is_of_connection:
                    raise LinkLost(str(reply))
            except (LinkLost, OSError) as error:
                # The same number again: if it was stored, it is not stored twice.
                self.close()
                # What fails for want of time, at the end, tells less than what failed before.
                if not why or due - began > self._timeout / 4:
                    why = str(error)
                if time.monotonic() >= due - 0.05:
                    server = str(self.address)
                    text = why if why.startswith(server) else f"{server} did not take it: {why}"
                    raise RoomUnavailable(text, unknown=sent) from None
                time.sleep(0.05)
                continue
            except BaseException:
                self.close()  # its replies would be taken for those of later commands
                raise
            if isinstance(reply, RedisError):
                text = f"{self.address} cannot store it: {reply}"
                raise RoomUnavailable(text, unknown=not reply.is_refusal)
            return str(Place(reply[0].decode("ascii"), int(reply[2]), reply[3].decode("ascii")))

    def _open(self, due: float) -> _Connection:
        if isinstance(self.address, RedisAddress):
            return _Connection.follow(self.address, due, login(self.address, [PUBLISH.text]))[0]
        assert self._sentinels is not None
        errors: list[Exception] = []
        masters: dict[RedisAddress, Exception] = {}
        waiting = self._sentinels.order()
        for number, sentinel in enumerate(waiting):
            # One that hangs takes a part of the time only; the master needs some of it too.
            share = time.monotonic() + _left(due) / (len(waiting) - number + 1)
            try:
                connection, found = _Connection.follow(sentinel, share, locate(sentinel, self.address.master))
            except (LinkLost, OSError, ConfigurationError) as error:
                errors.append(error)
                continue
            connection.close()
            master = self.address.at(*found)
            if master not in masters:
                share = time.monotonic() + _left(due) / (len(waiting) - number)
                try:
                    connection = _Connection.follow(master, share, login(master, [PUBLISH.text]))[0]
                except (LinkLost, OSError, ConfigurationError) as error:
                    masters[master] = error
                else:
                    self._sentinels.succeeded(sentinel)
                    return connection
        raise self._sentinels.failure([*masters.values()] or errors)

    def close(self) -> None:
        """Close the connection; the next message opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Connection:
    """A blocking connection that is logged in."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = make_reader()

    @classmethod
    def follow(cls, address: RedisAddress, due: float, steps: Steps[T]) -> tuple[_Connection, T]:
        """Connect, and take these steps; return the connection and their result."""
        try:
            connection = cls(_connect(address, _left(due)))
        except OSError as error:
            raise unreachable(address, error) from None
        try:
            command = next(steps)
            while True:
                command = steps.send(connection.call(command, due))
        except StopIteration as end:
            return connection, end.value
        except (OSError, Ended, NotRedis) as error:
            connection.close()
            raise unreachable(address, error) from None
        except BaseException:
            connection.close()
            raise

    def call(self, command: Command, due: float) -> Any:
        """Send one command and return its reply."""
        self._socket.settimeout(_left(due))
        self._socket.sendall(pack(command))
        while True:
            while (reply := self._reader.gets()) is NOT_YET:
                self._socket.settimeout(_left(due))
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    raise Ended("the server closed the connection")
                self._reader.feed(data)
            if not is_push(reply):
                return reply

    def close(self) -> None:
        self._socket.close()


def _connect(address: RedisAddress, timeout: float) -> socket.socket:
    if address.path is not None:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(timeout)
            sock.connect(address.path)
        except BaseException:
            sock.close()
            raise
        return sock
    assert address.host is not None
    sock = socket.create_connection((address.host, address.port), timeout)
    if address.tls is None:
        return sock
    try:
        return address.tls.wrap_socket(sock, server_hostname=address.host)
    except BaseException:
        sock.close()
        raise


def _left(due: float) -> float:
    return max(0.001, due - time.monotonic())
