"""The contract of engines: `LocalEngine` keeps it, and engines that break it are found out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from wsframework import Engine, History, LocalEngine, Position, Replay, RoomMessage
from wsframework.testing import EngineContract


class TestLocalEngine(EngineContract):
    @asynccontextmanager
    async def engines(self) -> AsyncIterator[list[Engine]]:
        engine = LocalEngine()
        async with engine.run():
            yield [engine]


class Twice(LocalEngine):
    """Delivers a message twice."""

    def broadcast(self, room: str, message: RoomMessage, exclude: Collection[str], history: Any) -> int:
        super().broadcast(room, message, exclude, history)
        return super().broadcast(room, message, exclude, history)


class Forgetful(LocalEngine):
    """Keeps ten messages, and calls everything complete."""

    async def history(self, room: str, after: Position, history: History | None) -> Replay:
        found = await super().history(room, after, history)
        return Replay(found.messages, found.position, True)


class Including(LocalEngine):
    """Excludes nothing."""

    def broadcast(self, room: str, message: RoomMessage, exclude: Collection[str], history: Any) -> int:
        return super().broadcast(room, message, (), history)


class Keyless(LocalEngine):
    """Ignores keys."""

    async def publish(
        self, room: str, message: RoomMessage, exclude: Collection[str], history: Any, key: str | None
    ) -> Position:
        return await super().publish(room, message, exclude, history, None)


class Late(LocalEngine):
    """Has a moment between the cut of the history and its return."""

    async def history(self, room: str, after: Position, history: History | None) -> Replay:
        found = await super().history(room, after, history)
        await trio.lowlevel.checkpoint()
        return found


class Reordering(LocalEngine):
    """Puts who has new data last."""

    def enter(self, room: str, member: str, data: Any) -> None:
        self.leave(room, member)
        super().enter(room, member, data)


class Early(LocalEngine):
    """Reports a member before it is present."""

    def enter(self, room: str, member: str, data: Any) -> None:
        subscriber = self._subscribers.get(room)
        if subscriber is not None:
            subscriber.presence_changed({member: data}, ())
        super().enter(room, member, data)


class Ajar(LocalEngine):
    """Carries texts and bytes only."""

    def broadcast(self, room: str, message: RoomMessage, exclude: Collection[str], history: Any) -> int:
        return 0 if message.opcode > 2 else super().broadcast(room, message, exclude, history)


class Slashed(LocalEngine):
    """Has a slash in its name."""

    def __init__(self) -> None:
        super().__init__()
        self.node = "a/b"


def contract_of(make: Callable[[], Engine]) -> EngineContract:
    class Contract(EngineContract):
        @asynccontextmanager
        async def engines(self) -> AsyncIterator[list[Engine]]:
            yield [make()]

    return Contract()


@pytest.mark.parametrize(
    ("engine", "test"),
    [
        (Twice, EngineContract.test_a_message_reaches_the_members_of_all_nodes_once_and_unchanged),
        (Including, EngineContract.test_ids_are_excluded_at_the_node_that_has_them),
        (Keyless, EngineContract.test_a_key_is_published_once),
        (Forgetful, EngineContract.test_what_was_forgotten_is_not_called_complete),
        (Forgetful, EngineContract.test_what_is_no_position_of_this_history_is_not_complete_and_no_error),
        (Late, EngineContract.test_nothing_is_lost_or_doubled_between_history_and_what_is_delivered),
        (Early, EngineContract.test_changes_of_those_who_are_present_are_reported_at_every_node),
        (Slashed, EngineContract.test_nodes_have_different_names),
        (Ajar, EngineContract.test_a_message_that_closes_the_members_arrives_as_it_is_and_in_its_place),
        (Reordering, EngineContract.test_members_are_present_everywhere_in_the_order_in_which_they_came),
    ],
)
async def test_an_engine_that_breaks_the_contract_fails_it(
    engine: type[Engine], test: Any, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises((AssertionError, trio.TooSlowError, BaseExceptionGroup)):
        await test(contract_of(engine))
