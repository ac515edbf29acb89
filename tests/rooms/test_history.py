"""What a local engine keeps: bounds for each room and for all rooms together."""

from __future__ import annotations

import random

import pytest

from wsframework import History, RoomMessage
from wsframework.rooms.history import Histories

MUCH = History(messages=1000, seconds=1000, bytes=100_000)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def text(number: int, size: int = 0) -> RoomMessage:
    return RoomMessage.of(f"{number}".ljust(size, "."))


def missed(kept: Histories, room: str, after: str, history: History = MUCH) -> list[str | bytes] | None:
    replay = kept.replay(room, after, history)
    return [message.data for _, message in replay.messages] if replay.complete else None


def test_a_room_keeps_its_newest_messages() -> None:
    kept = Histories("e", MUCH)
    history = History(messages=3)
    positions = [kept.add("a", text(number), history) for number in range(5)]
    assert kept.messages == 3
    assert missed(kept, "a", positions[1]) == ["2", "3", "4"]
    assert missed(kept, "a", positions[0]) is None
    assert missed(kept, "a", positions[4]) == []


def test_a_room_keeps_so_many_bytes() -> None:
    kept = Histories("e", MUCH)
    history = History(bytes=25)
    positions = [kept.add("a", text(number, 10), history) for number in range(4)]
    assert (kept.messages, kept.bytes) == (2, 20)
    assert missed(kept, "a", positions[0]) is None
    large = kept.add("a", text(4, 26), history)
    assert (kept.messages, kept.bytes, kept.rooms) == (0, 0, 0)
    assert missed(kept, "a", positions[3]) is None
    assert missed(kept, "a", large) == []


def test_a_room_keeps_them_for_so_many_seconds_whether_or_not_more_come() -> None:
    clock = Clock()
    kept = Histories("e", MUCH, clock)
    history = History(seconds=10)
    first = kept.add("a", text(1), history)
    clock.now = 5
    kept.add("a", text(2), history)
    clock.now = 11
    assert missed(kept, "a", first) == ["2"]
    clock.now = 16
    assert missed(kept, "a", first) is None
    assert (kept.messages, kept.rooms) == (0, 0)


def test_a_room_keeps_them_for_as_long_as_was_said_last() -> None:
    clock = Clock()
    kept = Histories("e", MUCH, clock)
    first = kept.add("a", text(1), History(seconds=10))
    kept.add("a", text(2), History(seconds=100))
    clock.now = 50
    assert missed(kept, "a", first) == ["2"]


def test_all_rooms_together_keep_so_many_messages_bytes_and_seconds() -> None:
    clock = Clock()
    kept = Histories("e", History(messages=10, bytes=50, seconds=20), clock)
    for number in range(30):
        kept.add(f"room {number}", text(number, 1), MUCH)
    assert (kept.messages, kept.rooms) == (10, 10)
    for number in range(30):
        kept.add(f"room {number}", text(number, 10), MUCH)
    assert (kept.messages, kept.bytes) == (5, 50)
    clock.now = 21
    kept.add("another", text(1), MUCH)
    assert (kept.messages, kept.rooms) == (1, 1)


def test_a_message_that_one_room_does_not_keep_is_a_hole_in_the_history_of_another_of_that_name() -> None:
    kept = Histories("e", MUCH)
    first = kept.add("a", text(1), MUCH)
    hole = kept.add("a", text(2), None)
    assert missed(kept, "a", first) is None
    kept.add("a", text(3), MUCH)
    assert missed(kept, "a", hole) == ["3"]
    assert missed(kept, "a", first) is None


def test_a_room_that_keeps_nothing_cannot_say_that_nothing_was_missed() -> None:
    kept = Histories("e", MUCH)
    assert not kept.replay("a", kept.position(), None).complete


@pytest.mark.parametrize("parts", [[1000, 1000, 500], [1000, 1000]])
def test_a_long_history_comes_in_parts_that_join_without_a_gap(parts: list[int]) -> None:
    long = History(messages=5000)
    kept = Histories("e", long)
    after = kept.add("a", text(-1), long)
    for number in range(sum(parts)):
        kept.add("a", text(number), long)
        kept.add("b", text(number), long)
    numbers: list[str | bytes] = []
    sizes: list[int] = []
    more = True
    while more:
        replay = kept.replay("a", after, long)
        assert replay.complete
        numbers += [message.data for _, message in replay.messages]
        sizes.append(len(replay.messages))
        after, more = replay.position, replay.more
    assert numbers == [str(number) for number in range(sum(parts))]
    assert sizes == parts
    assert after == kept.position()


@pytest.mark.parametrize("seed", range(10))
def test_what_is_called_complete_is_complete(seed: int) -> None:
    chance = random.Random(seed)
    clock = Clock()
    kept = Histories("e", History(messages=40, bytes=300, seconds=50), clock)
    said: list[tuple[str, str, str]] = []
    complete = 0
    for number in range(500):
        clock.now += chance.random()
        room = chance.choice("abcd")
        history = History(
            messages=chance.choice([5, 20]), seconds=chance.choice([5, 30]), bytes=chance.choice([50, 200])
        )
        position = kept.add(
            room,
            text(number, chance.choice([1, 10, 60])),
            None if number % 20 == 0 and room in kept else history,
        )
        said.append((room, position, f"{number}"))
        assert kept.messages <= 40
        assert kept.bytes <= 300
        index = chance.randrange(max(0, number - 15), number + 1)
        asked = chance.choice("abcd")
        found = missed(kept, asked, said[index][1])
        if found is not None:
            complete += bool(found)
            assert [str(message).rstrip(".") for message in found] == [
                message for name, _, message in said[index + 1 :] if name == asked
            ]
    assert complete > 10
    clock.now += 100
    for room in "abcd":
        kept.replay(room, kept.position(), MUCH)
    assert (kept.messages, kept.bytes, kept.rooms) == (0, 0, 0)
