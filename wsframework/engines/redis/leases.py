"""The leases by which nodes show that they are there, and the end of those that are not."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from wsframework.engines.redis.codec import Command, RedisError, pack
from wsframework.engines.redis.link import Link
from wsframework.engines.redis.names import Names, Script
from wsframework.engines.redis.presence import Own
from wsframework.records import record

__all__ = ["Leases"]

_ROOMS_AT_ONCE = 64
"""Rooms of a dead node that are read at once."""


class Leases:
    """This node's lease, and the others'.

    Args:
        node: this node.
        names: of keys.
        seconds: how long a lease lasts.
        own: this node's members.
        scripts: `lease` and `reap`.
    """

    def __init__(
        self, node: str, names: Names, seconds: float, own: Own, scripts: tuple[Script, Script]
    ) -> None:
        self.seconds = seconds
        self._node = node
        self._names = names
        self._own = own
        self._lease, self._reap = scripts
        self._rooms = names.rooms_of(node.encode())
        self._connections = 0

    def begin(self, link: Link) -> None:
        """Tell Redis of all members over a new connection, which has taken a lease: its copy may be gone."""
        self._connections += 1
        self._own.all_again()
        link.wake()

    @property
    def command(self) -> Command:
        """The call that takes or extends the lease."""
        milliseconds = round(self.seconds * 1000)
        return (b"EVALSHA", self._lease.digest, 1, self._names.nodes, self._node, milliseconds)

    def tell(
        self, link: Link, key: bytes, room: str, changes: Mapping[str, bytes | None], script: Script
    ) -> None:
        """Tell Redis of changed members of one room."""
        keys = self._names.members(key), self._names.connection_of(self._node.encode()), self._rooms
        stays = "+" if room in self._own.rooms else "-"
        arguments: list[bytes | str | int] = [key, self._node, self._connections, stays]
        for member, data in changes.items():
            arguments += (b"L", member, b"") if data is None else (b"E", member, data)
        link.ask(pack(script.call(keys, *arguments)), _Told(self._own, room, list(changes)))

    async def extend(self, link: Link) -> None:
        """Extend the lease, remove the members of nodes that are gone, and tell again what was refused.

        Cancellation: nothing is left behind; another node goes on.
        """
        self._own.try_again()
        reply = await link.answer(self.command)
        if reply is None:
            return
        had, gone = reply
        # A server that evicts keys may have removed the rooms alone.
        if not had or (self._own.rooms and await link.answer((b"EXISTS", self._rooms)) == 0):
            record(logging.WARNING, "redis.lease_lost")
            self._own.all_again()
            link.wake()
        for node in gone:
            if node != self._node.encode():
                await self._remove(link, node)

    async def _remove(self, link: Link, node: bytes) -> None:
        """Remove a node's members from all its rooms."""
        names = self._names
        rooms_key = names.rooms_of(node)
        # One node does it; if that one is killed too, another goes on later.
        if await link.answer((b"SET", names.reaping(node), self._node, b"NX", b"PX", 10_000)) is None:
            return
        count = 0
        while rooms := await link.answer((b"SRANDMEMBER", rooms_key, _ROOMS_AT_ONCE)):
            for room in rooms:
                keys = (names.members(room), names.nodes, rooms_key)
                cursor: bytes | None = b"0"
                while cursor is not None:
                    cursor = await link.answer(self._reap.call(keys, room, node, cursor))
                    if cursor == b"":
                        return  # it has come back
                    if cursor == b"0":
                        break
                else:
                    # A room whose key holds something else is left alone.
                    if link.is_closed or await link.answer((b"SREM", rooms_key, room)) is None:
                        return
                count += 1
        forget = self._reap.call((names.nodes, names.nodes, rooms_key), b"", node, b"")
        if await link.answer(forget) == b"0":
            name = node.decode(errors="replace")
            record(logging.INFO, "redis.node_gone", node=name, rooms=count)

    async def end(self, link: Link) -> None:
        """Give the lease back: this node has no members any more.

        Cancellation: the lease ends by itself.
        """
        await link.answer((b"DEL", self._rooms))
        await link.answer((b"ZREM", self._names.nodes, self._node))


class _Told:
    def __init__(self, own: Own, room: str, members: list[str]) -> None:
        self._own, self._room, self._members = own, room, members

    def replied(self, reply: Any) -> None:
        self._own.told()
        if isinstance(reply, RedisError):
            if reply.is_of_connection:
                raise reply
            self._own.refused(self._room, self._members, str(reply))

    def lost(self) -> None:
        self._own.again(self._room, self._members)
