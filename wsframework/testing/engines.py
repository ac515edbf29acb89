"""Tests that every engine of rooms must pass, for authors of engines.

    class TestMyEngine(EngineContract):
        @asynccontextmanager
        async def engines(self) -> AsyncIterator[list[Engine]]:
            one, two = MyEngine(url), MyEngine(url)
            async with one.run(), two.run():
                yield [one, two]

A test runner that runs `async def test_…` methods with Trio, such as pytest with pytest-trio, does the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio

from wsframework.rooms import Engine, History, Position, RoomMessage
from wsframework.testing.cancelling import cancel_everywhere
from wsframework.testing.deadline import DEADLINE_SECONDS

__all__ = ["EngineContract", "RecordingSubscriber"]

_KEPT = History(messages=100, seconds=60.0)

_POLL_SECONDS = 0.005


class RecordingSubscriber:
    """Notes what an engine delivers, and ignores what it reports of members.

    Attributes:
        received: (message, position, ids excluded) of each delivery.
        opcodes: of each message.
        reasons: of each loss that was reported.
    """

    def __init__(self) -> None:
        self.opcodes: list[int] = []
        self.received: list[tuple[str | bytes, Position | None, Collection[str]]] = []
        self.reasons: list[str] = []

    @property
    def messages(self) -> list[str | bytes]:
        """What was delivered."""
        return [message for message, _, _ in self.received]

    def deliver(self, message: RoomMessage, position: Position | None, exclude: Collection[str]) -> int:
        """Note a delivery."""
        self.opcodes.append(message.opcode)
        self.received.append((message.data, position, exclude))
        return 1

    def presence_changed(self, entered: Mapping[str, Any], left: Collection[str]) -> None:
        """Ignore it."""

    def presence_read(self) -> None:
        """Ignore it."""

    def lost(self, reason: str) -> None:
        """Note a loss."""
        self.reasons.append(reason)


class _Following(RecordingSubscriber):
    """Applies what an engine reports of a room's members to a copy of its own."""

    def __init__(self, engine: Engine, room: str) -> None:
        super().__init__()
        self.engine = engine
        self.room = room
        self.members: dict[str, Any] = {}

    def presence_changed(self, entered: Mapping[str, Any], left: Collection[str]) -> None:
        """Apply a change, which `present` has already."""
        self.members.update(entered)
        for member in left:
            self.members.pop(member, None)
        assert self.members == self.engine.present(self.room)

    def presence_read(self) -> None:
        """Begin anew."""
        self.members = dict(self.engine.present(self.room))


async def _until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what an engine has done shows no event here
            await trio.sleep(_POLL_SECONDS)


class EngineContract:
    """What programs rely on. Derive from it, and write `engines`.

    The engines may be one or several; several must carry the same rooms, as they would in several processes.
    Rooms have new names in each test, so that the tests may share a broker.
    """

    _numbers = itertools.count()

    def engines(self) -> AbstractAsyncContextManager[Sequence[Engine]]:
        """Return running engines that carry the same rooms."""
        raise NotImplementedError

    @asynccontextmanager
    async def _room(self) -> AsyncIterator[tuple[str, Sequence[Engine], list[RecordingSubscriber]]]:
        """Give a room with a member at each engine."""
        room = f"contract {next(self._numbers)} {id(self)}"
        async with self.engines() as engines:
            subscribers = [RecordingSubscriber() for _ in engines]
            for engine, subscriber in zip(engines, subscribers, strict=True):
                engine.subscribe(room, subscriber)
            await _until(lambda: all(engine.position(room) is not None for engine in engines))
            yield room, engines, subscribers
            for engine in engines:
                engine.unsubscribe(room)

    # Messages

    async def test_a_message_reaches_the_members_of_all_nodes_once_and_unchanged(self) -> None:
        """Text stays text, bytes stay bytes, and nothing comes twice."""
        messages: list[str | bytes] = ["text", b"\x00\xff", "", b"", "ü\x00€"]
        async with self._room() as (room, engines, subscribers):
            for message in messages:
                engines[0].broadcast(room, RoomMessage.of(message), (), None)
            await engines[0].publish(room, RoomMessage.of("the last"), (), None, None)
            await _until(lambda: all("the last" in subscriber.messages for subscriber in subscribers))
            assert all(each.messages == [*messages, "the last"] for each in subscribers)

    async def test_all_members_see_one_order_and_each_publisher_keeps_its_own(self) -> None:
        """Broadcasts and stored messages of all nodes are one sequence."""
        async with self._room() as (room, engines, subscribers):

            async def talk(number: int, engine: Engine) -> None:
                for turn in range(20):
                    message = RoomMessage.of(f"{number}:{turn}")
                    if turn % 3:
                        engine.broadcast(room, message, (), _KEPT)
                    else:
                        await engine.publish(room, message, (), _KEPT, None)

            async with trio.open_nursery() as nursery:
                for number, engine in enumerate(engines):
                    nursery.start_soon(talk, number, engine)
            await _until(lambda: all(len(each.received) == 20 * len(engines) for each in subscribers))
            heard = subscribers[0].messages
            assert all(subscriber.messages == heard for subscriber in subscribers)
            for number in range(len(engines)):
                own = [message for message in heard if str(message).startswith(f"{number}:")]
                assert own == [f"{number}:{turn}" for turn in range(20)]

    async def test_ids_are_excluded_at_the_node_that_has_them(self) -> None:
        """Elsewhere they mean nothing and may be left out."""
        async with self._room() as (room, engines, subscribers):
            excluded = f"{engines[0].node}/1"
            engines[0].broadcast(room, RoomMessage.of("one"), (excluded,), None)
            await engines[0].publish(room, RoomMessage.of("two"), (excluded,), None, None)
            await _until(lambda: len(subscribers[0].received) == 2)
            assert [list(exclude) for _, _, exclude in subscribers[0].received] == [[excluded]] * 2

    async def test_nodes_have_different_names(self) -> None:
        """Ids of members begin with them."""
        async with self.engines() as engines:
            assert len({engine.node for engine in engines}) == len(engines)
            assert not any("/" in engine.node for engine in engines)

    async def test_rooms_are_apart_whatever_their_names(self) -> None:
        """A path may hand any text to a room."""
        names = ["", "@42", "a}:m", "{a}", "a b\n", "ü", "*", "x" * 200]
        async with self.engines() as engines:
            names = [f"{name}{next(self._numbers)} {id(self)}" for name in names]
            heard = {name: RecordingSubscriber() for name in names}
            for name, subscriber in heard.items():
                engines[-1].subscribe(name, subscriber)
            await _until(lambda: all(engines[-1].position(name) is not None for name in names))
            for name in names:
                await engines[0].publish(name, RoomMessage.of(name), (), None, None)
            await _until(lambda: all(subscriber.received for subscriber in heard.values()))
            assert [subscriber.messages for subscriber in heard.values()] == [[name] for name in names]
            for name in names:
                engines[-1].unsubscribe(name)

    async def test_nothing_is_delivered_after_unsubscribing_and_a_room_can_come_back(self) -> None:
        """The first member after a while without members subscribes anew."""
        async with self._room() as (room, engines, subscribers):
            engine = engines[0]
            engine.unsubscribe(room)
            await engine.publish(room, RoomMessage.of("unheard"), (), None, None)
            await _until(lambda: all(subscriber.received for subscriber in subscribers[1:]))
            again = RecordingSubscriber()
            engine.subscribe(room, again)
            await _until(lambda: engine.position(room) is not None)
            await engine.publish(room, RoomMessage.of("heard"), (), None, None)
            await _until(lambda: "heard" in again.messages)
            assert subscribers[0].messages == []
            # What was on its way when it subscribed may come before.
            assert again.messages in (["heard"], ["unheard", "heard"])

    async def test_what_is_published_after_waiting_for_the_subscription_is_delivered(self) -> None:
        """So a connection that has joined a user's room cannot miss that the user is disconnected."""
        async with self.engines() as engines:
            for number in range(20):
                room, subscriber = f"contract {next(self._numbers)} {id(self)}", RecordingSubscriber()
                engines[-1].subscribe(room, subscriber)
                await engines[-1].wait_subscribed(room)
                await engines[0].publish(room, RoomMessage.of(f"{number}"), (), None, None)
                await _until(lambda heard=subscriber: heard.messages)  # type: ignore[misc]
                assert subscriber.messages == [f"{number}"]
                engines[-1].unsubscribe(room)

    async def test_waiting_for_the_subscription_may_be_cancelled(self) -> None:
        """Nothing is left behind: the next call waits as well."""
        async with self._room() as (room, engines, subscribers):
            report = await cancel_everywhere(lambda: engines[-1].wait_subscribed(room))
            assert report.points
            await engines[0].publish(room, RoomMessage.of("x"), (), None, None)
            await _until(lambda: subscribers[-1].messages == ["x"])

    async def test_a_message_that_closes_the_members_arrives_as_it_is_and_in_its_place(self) -> None:
        """Everywhere, and the history has it too."""
        closing = RoomMessage(8, b"\x11\x33enough")
        async with self._room() as (room, engines, subscribers):
            before = await engines[0].publish(room, RoomMessage.of("before"), (), _KEPT, None)
            engines[0].broadcast(room, closing, (), _KEPT)
            await engines[0].publish(room, closing, (), _KEPT, None)
            await engines[0].publish(room, RoomMessage.of("after"), (), _KEPT, None)
            await _until(lambda: all(len(subscriber.received) == 4 for subscriber in subscribers))
            for subscriber in subscribers:
                assert subscriber.opcodes == [1, 8, 8, 1]
                assert subscriber.messages == ["before", closing.payload, closing.payload, "after"]
            replay = await engines[-1].history(room, before, _KEPT)
            assert [message for _, message in replay.messages] == [closing, closing, RoomMessage.of("after")]

    # Stored messages

    async def test_a_published_message_is_delivered_with_the_position_that_its_publisher_gets(self) -> None:
        """So both can name the same place."""
        async with self._room() as (room, engines, subscribers):
            position = await engines[0].publish(room, RoomMessage.of("x"), (), _KEPT, None)
            await _until(lambda: all(subscriber.received for subscriber in subscribers))
            assert [subscriber.received[0][1] for subscriber in subscribers] == [position] * len(engines)
            assert isinstance(position, str)

    async def test_a_key_is_published_once(self) -> None:
        """At whatever node it is tried again; another room may use it too."""
        async with self._room() as (room, engines, subscribers):
            first = await engines[0].publish(room, RoomMessage.of("x"), (), _KEPT, "key")
            again = await engines[-1].publish(room, RoomMessage.of("x"), (), _KEPT, "key")
            await engines[0].publish(f"{room}, another", RoomMessage.of("x"), (), _KEPT, "key")
            other = await engines[0].publish(room, RoomMessage.of("y"), (), _KEPT, "another key")
            await _until(lambda: all("y" in subscriber.messages for subscriber in subscribers))
            assert first == again != other
            assert [subscriber.messages for subscriber in subscribers] == [["x", "y"]] * len(engines)

    async def test_a_cancelled_publish_is_delivered_once_or_never(self) -> None:
        """Wherever it is cancelled, and the next one is not affected."""
        numbers = itertools.count()
        async with self._room() as (room, engines, subscribers):

            async def publish() -> None:
                await engines[0].publish(room, RoomMessage.of(f"{next(numbers)}"), (), _KEPT, None)

            report = await cancel_everywhere(publish)
            assert report.points
            await engines[0].publish(room, RoomMessage.of("last"), (), _KEPT, None)
            await _until(lambda: "last" in subscribers[-1].messages)
            heard = [int(str(message)) for message in subscribers[-1].messages if message != "last"]
            assert heard == sorted(set(heard))
            assert heard[-1] == next(numbers) - 1  # the run that was not cancelled

    # History

    async def test_history_returns_what_followed_a_position_at_every_node(self) -> None:
        """In order, with the positions under which it was delivered."""
        async with self._room() as (room, engines, subscribers):
            positions = [
                await engines[0].publish(room, RoomMessage.of(f"{number}"), (), _KEPT, None)
                for number in range(5)
            ]
            await _until(lambda: all(len(subscriber.received) == 5 for subscriber in subscribers))
            for engine in engines:
                for number, position in enumerate(positions):
                    replay = await engine.history(room, position, _KEPT)
                    followed = [(where, message.data) for where, message in replay.messages]
                    assert followed == [(positions[later], f"{later}") for later in range(number + 1, 5)]
                    assert replay.complete
                    end = await engine.history(room, replay.position, _KEPT)
                    assert (end.complete, list(end.messages)) == (True, [])

    async def test_nothing_is_missed_at_the_position_of_a_room_without_messages(self) -> None:
        """A member that came, heard nothing and comes back has missed nothing but what was said meanwhile."""
        async with self._room() as (room, engines, subscribers):
            before = engines[-1].position(room)
            assert before is not None
            replay = await engines[-1].history(room, before, _KEPT)
            assert (replay.complete, list(replay.messages)) == (True, [])
            await engines[0].publish(room, RoomMessage.of("x"), (), _KEPT, None)
            await _until(lambda: bool(subscribers[-1].received))
            replay = await engines[-1].history(room, before, _KEPT)
            assert (replay.complete, [message.data for _, message in replay.messages]) == (True, ["x"])

    async def test_what_is_no_position_of_this_history_is_not_complete_and_no_error(self) -> None:
        """Positions come from clients."""
        async with self._room() as (room, engines, _):
            position = await engines[0].publish(room, RoomMessage.of("x"), (), _KEPT, None)
            other = "".join("1" if character == "0" else "0" for character in position)
            wrongs = [
                "",
                ".",
                "7",
                "\ud800",
                "٣.٣",
                "-1",
                "9" * 5000,
                f"{position}0000",
                f"x{position}",
                other,
            ]
            for wrong in wrongs:
                replay = await engines[0].history(room, wrong, _KEPT)
                assert (replay.complete, list(replay.messages)) == (False, []), wrong
                assert (await engines[0].history(room, replay.position, _KEPT)).complete

    async def test_what_was_forgotten_is_not_called_complete(self) -> None:
        """A history keeps the newest. It may keep more than it was told to, and then has to return it."""
        few = History(messages=3, seconds=60.0)
        async with self._room() as (room, engines, subscribers):
            positions = [
                await engines[0].publish(room, RoomMessage.of(f"{number}"), (), few, None)
                for number in range(400)
            ]
            await _until(lambda: len(subscribers[-1].received) == 400)
            old = await engines[-1].history(room, positions[0], few)
            assert (old.complete, list(old.messages)) == (False, [])
            new = await engines[-1].history(room, positions[-4], few)
            assert [message.data for _, message in new.messages] == ["397", "398", "399"]
            assert new.complete

    async def test_what_was_never_kept_is_not_called_complete(self) -> None:
        """A client that was away may have missed it."""
        async with self._room() as (room, engines, subscribers):
            position = await engines[0].publish(room, RoomMessage.of("x"), (), None, None)
            engines[0].broadcast(room, RoomMessage.of("y"), (), None)
            await _until(lambda: len(subscribers[0].received) == 2)
            replay = await engines[0].history(room, position, None)
            assert not replay.complete or [message.data for _, message in replay.messages] == ["y"]

    async def test_nothing_is_lost_or_doubled_between_history_and_what_is_delivered(self) -> None:
        """However many messages come while the history is read."""
        async with self._room() as (room, engines, subscribers):
            here = subscribers[-1]
            start = await engines[0].publish(room, RoomMessage.of("start"), (), _KEPT, None)
            cuts: list[tuple[list[str | bytes], int]] = []

            async def talk() -> None:
                for number in range(60):
                    engines[number % len(engines)].broadcast(room, RoomMessage.of(f"{number}"), (), _KEPT)
                    await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk)
                for _ in range(20):
                    replay = await engines[-1].history(room, start, _KEPT)
                    cuts.append(([message.data for _, message in replay.messages], len(here.received)))
                    assert replay.complete
            await _until(lambda: len(here.received) == 61)
            assert all(["start", *missed, *here.messages[heard:]] == here.messages for missed, heard in cuts)

    # Presence

    async def test_members_are_present_everywhere_in_the_order_in_which_they_came(self) -> None:
        """With their data, until they leave; new data do not change their place."""
        async with self._room() as (room, engines, _):
            ids = [f"{engine.node}/{number}" for number in range(2) for engine in engines]
            by_id = dict(zip(ids, [*engines, *engines], strict=True))
            data = {"name": "Ada", "tags": [1, 2.5, None, True, {"deep": "ü"}]}
            for number, (id_, engine) in enumerate(by_id.items(), 1):
                engine.enter(room, id_, data if number == 1 else id_)
                await _until(lambda count=number: all(len(each.present(room)) == count for each in engines))  # type: ignore[misc]
            expected = {id_: data if id_ == ids[0] else id_ for id_ in ids}
            assert all(list(each.present(room).items()) == list(expected.items()) for each in engines)
            by_id[ids[0]].enter(room, ids[0], "changed")
            await _until(lambda: all(each.present(room).get(ids[0]) == "changed" for each in engines))
            assert all(list(each.present(room)) == ids for each in engines)
            by_id[ids[0]].leave(room, ids[0])
            await _until(lambda: all(list(each.present(room)) == ids[1:] for each in engines))
            for id_ in ids[1:]:
                by_id[id_].leave(room, id_)
            await _until(lambda: not any(each.present(room) for each in engines))

    async def test_changes_of_those_who_are_present_are_reported_at_every_node(self) -> None:
        """So that a room can be watched. A key may follow the number in an id, and may be any text."""
        room = f"contract {next(self._numbers)} {id(self)}"
        async with self.engines() as engines:
            followers = [_Following(engine, room) for engine in engines]
            for engine, follower in zip(engines, followers, strict=True):
                engine.subscribe(room, follower)
            await _until(lambda: not any(engine.presence_stale(room) for engine in engines))
            expected: dict[str, Any] = {}

            async def check() -> None:
                await _until(lambda: all(follower.members == expected for follower in followers))

            for key in ("", "/ada", "/a/b ü\n:0€", "/1 2:3"):
                for engine in engines:
                    expected[f"{engine.node}/1{key}"] = {"key": key}
                    engine.enter(room, f"{engine.node}/1{key}", {"key": key})
            await check()
            for engine in engines:
                expected[f"{engine.node}/1"] = "new"
                engine.enter(room, f"{engine.node}/1", "new")
                del expected[f"{engine.node}/1/ada"]
                engine.leave(room, f"{engine.node}/1/ada")
            await check()
            for member in list(expected):
                del expected[member]
                next(engine for engine in engines if member.startswith(engine.node)).leave(room, member)
            await check()
            for engine in engines:
                engine.unsubscribe(room)

    async def test_members_are_counted_everywhere_also_where_none_is(self) -> None:
        """A page may show how full a room is before anybody here has joined it."""
        async with self._room() as (room, engines, _):
            assert await engines[-1].count(f"{room}, another") == 0
            for engine in engines:
                engine.enter(room, f"{engine.node}/1", "x")
            await _until(lambda: all(len(each.present(room)) == len(engines) for each in engines))
            engines[-1].unsubscribe(room)
            expected = len(engines) if len(engines) > 1 else await engines[0].count(room)
            assert await engines[-1].count(room) == expected
            engines[-1].subscribe(room, RecordingSubscriber())

    async def test_leaving_twice_or_never_having_come_is_no_error(self) -> None:
        """A node may repeat what it is not sure of."""
        async with self._room() as (room, engines, _):
            engines[0].enter(room, f"{engines[0].node}/1", "x")
            for id_ in (1, 1, 2):
                engines[0].leave(room, f"{engines[0].node}/{id_}")
            await _until(lambda: not any(each.present(room) for each in engines))
