"""One room's messages: each once and in order, or a word about what is lost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytest

from wsframework.engines.redis.counters import Counters
from wsframework.engines.redis.feed import Feed, loss
from wsframework.engines.redis.places import Entry, Page, Place
from wsframework.rooms import Position, RoomMessage


class Member:
    def __init__(self) -> None:
        self.heard: list[str] = []
        self.excluded: list[Collection[str]] = []
        self.failure: BaseException | None = None

    def deliver(self, message: RoomMessage, position: Position | None, exclude: Collection[str]) -> int:
        self.heard.append(str(message.data))
        self.excluded.append(exclude)
        if self.failure is not None:
            raise self.failure
        return 1

    def presence_changed(self, entered: object, left: object) -> None:
        pass

    def presence_read(self) -> None:
        pass

    def lost(self, reason: str) -> None:
        self.heard.append(f"<{reason}>")
        if self.failure is not None:
            raise self.failure


class Stage:
    """A feed, its member, and the histories that it asks for."""

    def __init__(self) -> None:
        self.member = Member()
        self.asked: list[int] = []
        self.counters = Counters()
        self.feed = Feed("tea", b"tea", self.member, self._read, self.counters)

    def _read(self, _: Feed, place: Place | None, waiting: Any) -> None:
        assert waiting is self.feed
        self.asked.append(-1 if place is None else place.offset)

    def at(self, offset: int, tag: str = "", epoch: str = "e") -> Stage:
        self.feed.begin()
        self.feed.replied(reply(epoch, offset, tag))
        self.asked.clear()
        return self

    def publish(self, *offsets: int, epoch: str = "e", tags: str = "t") -> None:
        self.feed.published(epoch, [entry(offset, f"{tags}{offset}") for offset in offsets])


def entry(offset: int, tag: str = "") -> Entry:
    return Entry(offset, tag or f"t{offset}", b"t%d" % offset)


def reply(epoch: str, offset: int, tag: str, entries: Sequence[Entry] = ()) -> list[Any]:
    flat: list[Any] = []
    for each in entries:
        flat += [each.offset, each.tag.encode(), each.envelope]
    return [epoch.encode(), offset, tag.encode(), flat]


def test_a_new_feed_begins_behind_the_newest_message() -> None:
    stage = Stage()
    stage.feed.begin()
    assert stage.asked == [-1]
    stage.publish(4)  # it is in the history that is being read
    stage.feed.replied(reply("e", 4, "t4"))
    stage.publish(5, 6)
    assert stage.member.heard == ["5", "6"]
    assert str(stage.feed.place) == "e.6.t6"


def test_what_came_already_is_dropped() -> None:
    stage = Stage().at(4, "t4")
    stage.publish(3, 4, 5, 5, 4)
    assert stage.member.heard == ["5"]
    assert stage.counters.duplicates == 4
    assert stage.asked == []


def test_a_hole_is_filled_from_the_history_before_anything_later() -> None:
    stage = Stage().at(4, "t4")
    stage.publish(7)
    assert stage.asked == [4]
    stage.publish(8)
    assert stage.member.heard == []
    stage.feed.replied(reply("e", 8, "t8", [entry(offset) for offset in range(4, 9)]))
    stage.publish(9)
    assert stage.member.heard == ["5", "6", "7", "8", "9"]
    assert stage.counters.replayed == 4


def test_a_long_history_is_read_in_pages() -> None:
    stage = Stage().at(4, "t4")
    stage.feed.begin()
    stage.feed.replied(reply("e", 8, "t8", [entry(4), entry(5), entry(6)]))
    assert stage.asked == [4, 6]
    stage.publish(9)  # in the next page
    stage.feed.replied(reply("e", 9, "t9", [entry(offset) for offset in range(6, 10)]))
    assert stage.member.heard == ["5", "6", "7", "8", "9"]


@pytest.mark.parametrize(
    ("published", "heard"),
    [
        ({"offsets": (5,), "epoch": "other"}, ["<epoch>"]),
        ({"offsets": (4,), "tags": "u"}, ["<forked>"]),
    ],
)
def test_a_message_of_another_history_is_a_gap(published: dict[str, Any], heard: list[str]) -> None:
    stage = Stage().at(4, "t4")
    epoch, tags = published.get("epoch", "e"), published.get("tags", "t")
    stage.publish(*published["offsets"], epoch=epoch, tags=tags)
    assert stage.asked == [4]
    offset = published["offsets"][-1]
    newest = entry(offset, f"{tags}{offset}")
    stage.feed.replied(reply(epoch, offset, newest.tag, [newest]))
    stage.publish(offset + 1, epoch=epoch)
    assert stage.member.heard == [*heard, str(offset + 1)]
    assert stage.counters.gaps == {heard[0][1:-1]: 1}


def test_a_room_whose_state_could_not_be_stored_begins_with_its_first_message() -> None:
    stage = Stage().at(0, epoch="-")
    stage.publish(1, 2, epoch="new")
    assert stage.member.heard == ["1", "2"]


def test_excluded_members_are_remembered_until_the_message_comes() -> None:
    stage = Stage().at(4, "t4")
    stage.feed.exclude("t6", ["me"])
    stage.publish(5, 6, 7)
    assert stage.member.excluded == [(), ["me"], ()]
    assert stage.feed.excluded == {}
    for number in range(10_000):
        stage.feed.exclude(f"x{number}", ["me"])
    assert len(stage.feed.excluded) == 4096


class Own(BaseException):
    """Of the application's own making."""


FAILURES = [
    ValueError("of a stamp"),
    SystemExit("of a stamp"),
    Own("of a stamp"),
    GeneratorExit("of a stamp"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_delivery_that_fails_or_is_malformed_stops_nothing(
    failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage().at(4, "t4")
    stage.member.failure = failure
    stage.feed.published("e", [entry(5), Entry(6, "t6", b"?"), entry(7)])
    assert stage.member.heard == ["5", "7"]
    assert stage.feed.place == Place("e", 7, "t7")
    assert "room.malformed" in caplog.text
    assert "of a stamp" in caplog.text


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_gap_function_that_fails_stops_nothing(
    failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage().at(4, "t4")
    stage.member.failure = failure
    stage.feed.begin()
    stage.feed.replied(reply("another", 9, "t9"))
    assert stage.member.heard == ["<epoch>"]
    assert stage.feed.place == Place("another", 9, "t9")
    assert stage.feed.is_settled
    assert "of a stamp" in caplog.text


def test_a_keyboard_interrupt_in_a_delivery_is_about_the_program() -> None:
    stage = Stage().at(4, "t4")
    stage.member.failure = BaseExceptionGroup("", [KeyboardInterrupt()])
    with pytest.raises(BaseExceptionGroup):
        stage.publish(5)


def test_a_history_that_nobody_wrote_is_reported_as_a_gap() -> None:
    stage = Stage().at(4, "t4")
    stage.feed.begin()
    stage.feed.replied("nonsense")
    assert stage.member.heard == ["<epoch>"]


E5 = [entry(5), entry(6)]


@pytest.mark.parametrize(
    ("place", "newest", "entries", "expected"),
    [
        (Place("e", 5, "t5"), Place("e", 6, "t6"), E5, None),
        (Place("e", 6, "t6"), Place("e", 6, "t6"), [], None),
        (Place("e", 0, ""), Place("e", 0, ""), [], None),
        (Place("e", 0, ""), Place("e", 2, "t2"), [entry(1), entry(2)], None),
        (Place("-", 0, ""), Place("e", 1, "t1"), [entry(1)], None),
        (Place("x", 5, "t5"), Place("e", 6, "t6"), E5, "epoch"),
        (Place("e", 7, "t7"), Place("e", 6, "t6"), [], "regressed"),
        (Place("e", 5, "u5"), Place("e", 6, "t6"), E5, "forked"),
        (Place("e", 6, "u6"), Place("e", 6, "t6"), [entry(6)], "forked"),
        (Place("e", 0, "u"), Place("e", 6, "t6"), E5, "forked"),
        (Place("e", 3, "t3"), Place("e", 6, "t6"), E5, "trimmed"),
        (Place("e", 0, ""), Place("e", 6, "t6"), E5, "trimmed"),
        (Place("e", 5, "t5"), Place("e", 6, "t6"), [], "trimmed"),
        (Place("e", 5, "t5"), Place("e", 7, "t7"), [entry(5), entry(7)], "trimmed"),
        (Place("e", 5, "t5"), Place("e", 6, "t6"), [entry(5)], "trimmed"),
    ],
)
def test_a_history_is_complete_only_if_it_is_the_same_one_and_has_everything(
    place: Place, newest: Place, entries: list[Entry], expected: str | None
) -> None:
    assert loss(place, Page(newest, entries)) == expected


def test_what_is_delivered_while_a_member_reads_the_history_is_in_its_replay() -> None:
    stage = Stage().at(4, "t4")
    tail = stage.feed.begin_tail()
    page = Page(Place("e", 4, "t4"), [entry(2), entry(3), entry(4)])
    stage.publish(5, 6)
    replay = stage.feed.replay(Place("e", 2, "t2"), page, tail)
    stage.feed.end_tail(tail)
    stage.publish(7)
    assert [message.data for _, message in replay.messages] == ["3", "4", "5", "6"]
    assert (replay.complete, replay.position, replay.more) == (True, "e.6.t6", False)
    assert len(tail) == 2


def test_a_replay_of_a_part_ends_at_its_last_message() -> None:
    stage = Stage().at(9, "t9")
    page = Page(Place("e", 9, "t9"), [entry(2), entry(3)])
    replay = stage.feed.replay(Place("e", 2, "t2"), page, [])
    assert [message.data for _, message in replay.messages] == ["3"]
    assert (replay.complete, replay.position, replay.more) == (True, "e.3.t3", True)
