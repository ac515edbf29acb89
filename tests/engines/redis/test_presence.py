"""Members: ours and what Redis knows of them, and a copy of everybody's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest

from wsframework.engines.redis.codec import RedisError
from wsframework.engines.redis.counters import Counters
from wsframework.engines.redis.places import Malformed
from wsframework.engines.redis.presence import Copy, Own, Scan


class Wakes:
    count = 0

    def __call__(self) -> None:
        self.count += 1


def all_changes(own: Own) -> list[tuple[str, dict[str, bytes | None]]]:
    found = []
    while (change := own.changes()) is not None:
        found.append(change)
    return found


def test_changes_are_said_once_with_what_is_true_when_they_are_said() -> None:
    wakes = Wakes()
    own = Own(wakes)
    own.enter("tea", "a", {"n": 1})
    own.enter("tea", "a", {"n": 2})
    own.enter("tea", "b", None)
    own.leave("tea", "b")
    own.enter("milk", "c", "ü\ud800")
    assert all_changes(own) == [("tea", {"a": b'{"n":2}'}), ("milk", {"c": b'"\\u00fc\\ud800"'})]
    assert wakes.count == 4
    assert not own.unsaid
    assert list(own.rooms) == ["tea", "milk"]


def test_members_that_come_and_go_while_nothing_is_said_take_no_memory() -> None:
    own = Own(Wakes())
    own.enter("tea", "stays", 1)
    for number in range(1000):
        own.enter("tea", f"m{number}", number)
        own.leave("tea", f"m{number}")
        own.enter(f"room {number}", "m", number)
        own.leave(f"room {number}", "m")
    assert [
        {room: len(members) for room, members in vars(own)[name].items()} for name in ("_rooms", "_changed")
    ] == [{"tea": 1}] * 2
    assert all_changes(own) == [("tea", {"stays": b"1"})]


def test_who_may_be_known_to_redis_is_said_to_have_left() -> None:
    own = Own(Wakes())
    own.enter("tea", "a", 1)
    all_changes(own)
    own.enter("tea", "a", 2)
    own.leave("tea", "a")
    own.enter("tea", "a", 3)
    own.leave("tea", "a")
    assert all_changes(own) == [("tea", {"a": None})]
    own.enter("tea", "b", 1)
    own.again("tea", ["b"])  # it was on its way when the connection was lost
    own.leave("tea", "b")
    assert all_changes(own) == [("tea", {"b": None})]


def test_leaving_twice_or_never_having_come_says_nothing() -> None:
    own = Own(Wakes())
    own.leave("tea", "a")
    own.enter("tea", "a", 1)
    all_changes(own)
    own.leave("tea", "a")
    own.leave("tea", "a")
    assert all_changes(own) == [("tea", {"a": None})]
    assert list(own.rooms) == []


def test_a_room_with_many_changes_is_said_in_parts() -> None:
    own = Own(Wakes())
    for number in range(600):
        own.enter("tea", f"m{number}", number)
    parts = [len(changes) for _, changes in all_changes(own)]
    assert sum(parts) == 600
    assert max(parts) == 256


def test_long_data_are_said_in_parts_that_redis_can_send() -> None:
    """It cut the nodes that heard of all of them in one message, and these told of their own again."""
    own = Own(Wakes())
    for number in range(600):
        own.enter("tea", f"m{number}", "x" * 100_000 if number < 10 else number)
    own.leave("tea", "m0")
    assert [len(changes) for _, changes in all_changes(own)] == [3, 3, 3, 256, 256, 78]


def test_what_a_lost_connection_may_not_have_said_is_said_again() -> None:
    own = Own(Wakes())
    own.enter("tea", "a", 1)
    own.enter("tea", "b", 2)
    all_changes(own)
    own.leave("tea", "b")
    room, changes = all_changes(own)[0]
    own.all_again()
    own.again(room, changes)
    assert all_changes(own) == [("tea", {"a": b"1", "b": None})]


def test_what_redis_has_lost_is_said_again_unless_it_has_left() -> None:
    wakes = Wakes()
    own = Own(wakes)
    own.enter("tea", "a", 1)
    own.enter("tea", "b", 2)
    all_changes(own)
    own.leave("tea", "b")
    all_changes(own)
    own.restore("tea", ["a", "b", "another node's"])
    own.restore("milk", ["a"])
    assert all_changes(own) == [("tea", {"a": b"1"})]
    assert wakes.count == 4


def test_what_was_refused_is_said_again_later_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    wakes = Wakes()
    own = Own(wakes)
    own.enter("tea", "a", 1)
    all_changes(own)
    own.refused("tea", ["a"], "OOM command not allowed")
    own.refused("milk", ["b"], "OOM command not allowed")
    assert not own.unsaid
    own.try_again()
    assert all_changes(own) == [("tea", {"a": b"1"}), ("milk", {"b": None})]
    own.try_again()
    assert not own.unsaid
    assert wakes.count == 2
    assert caplog.text.count("redis.presence_refused") == 1


class Stage:
    """A copy, the parts of the hash that it asks for, what it reports, and members that are missing."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, Scan]] = []
        self.missing: set[str] = set()
        self.reports: list[object] = []
        self.copy = Copy("tea", self, lambda *part: self.asked.append(part), self.missing.update, Counters())

    def presence_changed(self, entered: Mapping[str, Any], left: Collection[str]) -> None:
        self.reports.append((dict(entered), sorted(left)))

    def presence_read(self) -> None:
        self.reports.append("known" if self.copy.known else "unknown")

    def deliver(self, *_: object) -> int:
        raise NotImplementedError

    def lost(self, reason: str) -> None:
        raise NotImplementedError

    @property
    def reads(self) -> int:
        return len(self.asked)

    def reply(self, fields: dict[bytes, bytes], cursor: bytes = b"0") -> None:
        """Answer what was asked for last."""
        _, scan = self.asked[-1]
        scan.replied([fields.get(b"v", b""), cursor, [part for pair in fields.items() for part in pair]])

    def change(self, epoch: str, version: int, *changes: tuple[str, str] | str) -> None:
        body = b""
        for change in changes:
            kind, member, data = (b"L", change, "") if isinstance(change, str) else (b"E", *change)
            body += b"%b %d %d:%b%b" % (kind, len(member), len(data), member.encode(), data.encode())
        self.copy.changed(f"{epoch} {version} {len(changes)}".encode(), body)


def test_a_copy_follows_what_is_published_in_the_order_of_entering() -> None:
    stage = Stage()
    stage.copy.begin()
    stage.change("e", 7, ("x", "0"), "x")  # the reply has it
    stage.reply({b"v": b"e 9 3", b"n/2": b'3 "late"', b"n/1": b"1 1"})
    stage.change("e", 9, ("n/3", "[3]"), "n/1")
    stage.change("e", 11, ("n/2", '"new"'))
    assert list(stage.copy.members.items()) == [("n/2", "new"), ("n/3", [3])]
    assert stage.reads == 1
    assert stage.missing == set()
    assert stage.reports == ["known", ({"n/3": [3]}, ["n/1"]), ({"n/2": "new"}, [])]


def test_one_who_comes_and_goes_in_one_message_is_reported_as_it_ends() -> None:
    stage = Stage()
    stage.copy.begin()
    stage.reply({b"v": b"e 1 1", b"n/1": b"1 1"})
    stage.change("e", 1, ("n/2", "2"), "n/2", "n/1", ("n/1", "3"))
    assert stage.reports[1:] == [({"n/1": 3}, ["n/2"])]


def test_a_copy_is_known_while_there_is_a_connection() -> None:
    stage = Stage()
    known = [stage.copy.known]
    stage.copy.begin()
    stage.reply({b"v": b"e 8 3", b"n/1": b"1 1"})
    stage.change("e", 9, ("n/2", "2"))
    known.append(stage.copy.known)  # a hole is no reason for doubt
    stage.reply({b"v": b"e 10 3", b"n/1": b"1 1", b"n/2": b"2 2"})
    stage.copy.end()
    known.append(stage.copy.known)
    assert stage.copy.members == {"n/1": 1, "n/2": 2}
    stage.copy.begin()
    stage.reply({})
    assert [*known, stage.copy.known] == [False, True, False, True]
    assert stage.reports == ["known", "known", "unknown", "known"]


def test_a_large_room_is_read_in_parts_and_follows_meanwhile() -> None:
    stage = Stage()
    stage.copy.begin()
    stage.reply({b"v": b"e 8 4", b"n/2": b"2 2", b"n/1": b"1 1"}, b"17")
    assert not stage.copy.is_settled
    stage.change("e", 8, "n/1", ("n/4", "4"))
    stage.change("e", 10, ("n/2", "22"))
    assert [cursor for cursor, _ in stage.asked] == [b"0", b"17"]
    assert stage.copy.members == {}
    stage.change("e", 11, ("n/5", "5"))
    # A member may come twice, with old data too, or come although it has left. One that entered meanwhile may
    # come or not; its place is after those before it nevertheless.
    stage.reply({b"v": b"e 12 6", b"n/3": b"3 3", b"n/2": b"2 2", b"n/1": b"1 1", b"n/5": b"6 5"})
    assert list(stage.copy.members.items()) == [("n/2", 22), ("n/3", 3), ("n/4", 4), ("n/5", 5)]
    stage.change("e", 12, "n/4")
    assert list(stage.copy.members) == ["n/2", "n/3", "n/5"]
    assert stage.reads == 2


def test_a_hash_that_began_anew_while_it_was_read_counts_only() -> None:
    stage = Stage()
    stage.copy.begin()
    stage.reply({b"v": b"e 8 4", b"n/1": b"1 1"}, b"17")
    stage.change("e", 8, ("n/2", "2"))
    stage.change("f", 0, ("n/3", "3"))
    stage.reply({b"v": b"f 1 1", b"n/3": b"1 3"})
    stage.change("f", 1, ("n/4", "4"))
    assert list(stage.copy.members) == ["n/3", "n/4"]
    assert stage.reads == 2


def test_parts_of_a_reading_that_was_given_up_are_ignored() -> None:
    stage = Stage()
    stage.copy.begin()
    _, old = stage.asked[0]
    stage.copy.begin()
    old.replied([b"e 8 1", b"0", [b"n/1", b"1 1"]])
    assert not stage.copy.is_settled
    stage.reply({b"v": b"e 9 1", b"n/1": b"1 2"})
    assert stage.copy.members == {"n/1": 2}
    assert stage.reads == 2


def test_a_hole_is_mended_by_reading_everything() -> None:
    stage = Stage()
    stage.copy.begin()
    stage.reply({b"v": b"e 8 3", b"n/1": b"1 1"})
    stage.change("e", 9, ("n/2", "2"))
    assert stage.reads == 2
    stage.reply({b"v": b"e 10 3", b"n/1": b"1 1", b"n/2": b"2 2"})
    assert stage.copy.members == {"n/1": 1, "n/2": 2}
    stage.change("f", 10, ("n/3", "3"))
    assert stage.reads == 3


def test_a_hash_that_was_removed_is_missing_its_members() -> None:
    """As by a server that evicts keys."""
    stage = Stage()
    stage.copy.begin()
    stage.reply({b"v": b"e 8 3", b"n/1": b"1 1", b"n/2": b"2 2"})
    stage.change("f", 0, ("n/3", "3"))
    assert stage.reads == 2
    stage.reply({b"v": b"f 1 1", b"n/3": b"1 3"})
    assert stage.missing == {"n/1", "n/2"}
    # Over a new connection all members are told anyway.
    stage.missing.clear()
    stage.copy.begin()
    stage.reply({})
    assert stage.missing == set()


def test_a_room_that_was_empty_begins_anew() -> None:
    stage = Stage()
    stage.copy.begin()
    stage.reply({})
    stage.change("e", 0, ("n/1", "1"))
    stage.change("e", 1, "n/1")
    stage.change("f", 0, ("n/2", "2"))
    assert stage.copy.members == {"n/2": 2}
    assert stage.reads == 1


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"", b"E 1 1:a1"),
        (b"e x 1", b"E 1 1:a1"),
        (b"e 0 9", b"E 1 1:a1"),
        (b"\xff 0 1", b"E 1 1:a1"),
        (b"e 0 1", b"E 1 9:a1"),
        (b"e 0 1", b"E -1 2:a1"),
        (b"e 0 1", b"E 1 1:\xff1"),
        (b"e 0 1", b"E 1 200000:a" + b"[" * 200_000),
        # Without an end, if a length could go back to where it began.
        (b"e 0 999999999999", b"L 0 -7:"),
    ],
)
def test_what_an_engine_did_not_write_is_malformed_and_mended(head: bytes, body: bytes) -> None:
    stage = Stage()
    stage.copy.begin()
    stage.reply({})
    with pytest.raises(Malformed):
        stage.copy.changed(head, body)
    assert stage.reads == 2
    with pytest.raises(Malformed):
        stage.copy.changed(head, body)
    assert stage.reads == 2  # it is being read already


@pytest.mark.parametrize("value", [b"no json", b"x 1", b"1 " + b"[" * 200_000, b"1 \xff"], ids=range(4))
def test_a_hash_that_an_engine_did_not_write_is_logged(
    value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage()
    stage.copy.begin()
    stage.reply({b"n/1": value})
    assert stage.copy.members == {}
    assert "room.malformed" in caplog.text
    stage.copy.begin()
    stage.asked[-1][1].replied(RedisError("WRONGTYPE Operation against a key"))
    assert stage.copy.is_settled
