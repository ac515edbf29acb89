"""Three nodes that talk in three rooms while something breaks, and a judge of what arrived.

The invariants are those of the design:

    I1  the positions that a member gets are contiguous, or a gap was reported between them
    I2  a position has one content at all members
    I3  no message comes twice
    I4  an acknowledged message is at every member, or a gap was reported where it would have been
    I5  the messages of each publisher come in its order
    I6  a message that was refused as not stored is nowhere
    I7  everybody who is present is present at every node, with the newest data
    I8  queues stay within their bounds
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection

import attrs
import trio

from wsframework import History, RoomUnavailable
from wsframework.engines.redis import RedisEngine
from wsframework.rooms import Position, RoomMessage

__all__ = ["ROOMS", "Conversation", "Member"]

ROOMS = ("tea", "coffee", "milk")

_MARKER = 8
"""The publisher of messages that only show how far a node is."""

_RATE = 50.0
"""Messages of each node in a second."""


@attrs.define(eq=False)
class Member:
    """What one node heard of one room, in order; a gap is its reason."""

    heard: list[tuple[str, Position] | str] = attrs.field(factory=list)

    def deliver(self, message: RoomMessage, position: Position | None, exclude: Collection[str]) -> int:
        assert position is not None
        self.heard.append((str(message.data), position))
        return 1

    def presence_changed(self, entered: object, left: object) -> None:
        pass

    def presence_read(self) -> None:
        pass

    def lost(self, reason: str) -> None:
        self.heard.append(reason)

    @property
    def gaps(self) -> list[str]:
        return [each for each in self.heard if isinstance(each, str)]

    @property
    def messages(self) -> list[tuple[str, Position]]:
        return [each for each in self.heard if not isinstance(each, str)]


class Conversation:
    """Nodes, their members, and what became of each message."""

    def __init__(self, engines: list[RedisEngine], seed: int, history: History | None = None) -> None:
        self.engines = engines
        self.seed = seed
        self.random = random.Random(seed)
        self.history = history
        self.members = {(node, room): Member() for node in range(len(engines)) for room in ROOMS}
        self.acknowledged: dict[str, tuple[str, Position]] = {}
        self.refused: set[str] = set()
        self.unknown: set[str] = set()
        self.present: dict[tuple[int, str], int] = {}
        self.may_be_lost: set[str] = set()  # although it was acknowledged
        self._numbers = Counter[int]()

    async def talk(self, seconds: float, until: trio.Event | None = None) -> None:
        """Publish from all nodes for a while, and wait until every publish has its outcome.

        Args:
            seconds: the while.
            until: it lasts at least until this is set.
        """
        async with trio.open_nursery() as nursery:
            for node in range(len(self.engines)):
                nursery.start_soon(self._talk, node, seconds, until)

    async def _talk(self, node: int, seconds: float, until: trio.Event | None) -> None:
        end = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            while trio.current_time() < end or not (until is None or until.is_set()):
                self._numbers[node] += 1
                text = f"{node}:{self._numbers[node]}"
                room = self.random.choice(ROOMS)
                nursery.start_soon(self._publish, node, room, text)
                if self.random.random() < 0.2:
                    self._enter(node, room)
                await trio.sleep(self.random.uniform(0, 2 / _RATE))

    async def _publish(self, node: int, room: str, text: str) -> None:
        try:
            position = await self.engines[node].publish(room, RoomMessage.of(text), (), self.history, None)
        except RoomUnavailable as error:
            (self.unknown if error.unknown else self.refused).add(text)
        else:
            self.acknowledged[text] = room, position

    def subscribe(self) -> None:
        for (node, room), member in self.members.items():
            self.engines[node].subscribe(room, member)
            self._enter(node, room)

    def _enter(self, node: int, room: str) -> None:
        """Let the member of a node be present, or change its data."""
        data = self.present.get((node, room), 0) + 1
        self.present[node, room] = data
        self.engines[node].enter(room, f"{self.engines[node].node}/1", data)

    async def meets(self, seconds: float = 30.0) -> None:
        """Wait until every node sees everybody (I7)."""
        for room in ROOMS:
            truth = {f"{engine.node}/1": self.present[node, room] for node, engine in enumerate(self.engines)}
            with trio.move_on_after(seconds):
                while any(engine.present(room) != truth for engine in self.engines):  # noqa: ASYNC110
                    await trio.sleep(0.02)
            for engine in self.engines:
                assert engine.present(room) == truth, f"I7 room {room}, seed {self.seed}"

    def said(self, node: int) -> set[str]:
        """Return what a node has published until now, whatever became of it."""
        return {f"{node}:{number}" for number in range(1, self._numbers[node] + 1)}

    async def goes_on(self, node: int) -> None:
        """Wait until a node has heard something that it says after this call."""
        before = self.said(node)
        while not any(  # noqa: ASYNC110
            text.startswith(f"{node}:") and text not in before
            for room in ROOMS
            for text, _ in self.members[node, room].messages
        ):
            await trio.sleep(0.01)

    async def settled(self, seconds: float = 30.0) -> None:
        """Wait until every node has a message that is published now, and with it all before."""
        with trio.fail_after(seconds):
            for room in ROOMS:
                position = await self._mark(room)
                while any(engine.position(room) != position for engine in self.engines):  # noqa: ASYNC110
                    await trio.sleep(0.02)

    async def _mark(self, room: str) -> Position:
        while True:
            self._numbers[_MARKER] += 1
            mark = RoomMessage.of(f"{_MARKER}:{self._numbers[_MARKER]}")
            try:
                return await self.engines[-1].publish(room, mark, (), self.history, None)
            except RoomUnavailable:
                await trio.sleep(0.1)

    def judge(self) -> None:
        """Raise AssertionError for the first invariant that does not hold."""
        content: dict[tuple[str, Position], str] = {}
        for (node, room), member in self.members.items():
            where = f"node {node}, room {room}, seed {self.seed}"
            texts = [text for text, _ in member.messages]
            assert len(texts) == len(set(texts)), f"I3 {where}"
            for text, position in member.messages:
                assert content.setdefault((room, position), text) == text, f"I2 {where}, {position}"
            self._judge_places(member, where)
            self._judge_order(texts, where)
            assert not self.refused & set(texts), f"I6 {where}"
            self._judge_acknowledged(room, member, where)
        for engine in self.engines:
            assert engine.statistics().queued == 0, "I8"

    def _judge_places(self, member: Member, where: str) -> None:
        before: str | None = None
        for each in member.heard:
            if isinstance(each, str):
                before = None
                continue
            epoch, offset, _ = each[1].split(".")
            if before is not None:
                assert before == f"{epoch}.{int(offset) - 1}", f"I1 {where}: {before} then {each}"
            before = f"{epoch}.{offset}"

    def _judge_order(self, texts: list[str], where: str) -> None:
        newest: dict[str, int] = {}
        for text in texts:
            publisher, _, number = text.split(" ")[0].partition(":")
            assert newest.get(publisher, 0) < int(number), f"I5 {where}: {text}"
            newest[publisher] = int(number)

    def _judge_acknowledged(self, room: str, member: Member, where: str) -> None:
        heard = {text for text, _ in member.messages}
        missing = [
            text
            for text, (its_room, _) in self.acknowledged.items()
            if its_room == room and text not in heard and text not in self.may_be_lost
        ]
        if not member.gaps:
            assert not missing, f"I4 {where}: {missing[:5]} of {len(missing)}"

    @property
    def gaps(self) -> Counter[str]:
        return Counter(reason for member in self.members.values() for reason in member.gaps)
