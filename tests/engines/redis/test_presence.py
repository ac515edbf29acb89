"""Members: ours and what Redis knows of them, and a copy of everybody's."""

from __future__ import annotations

import pytest

from wsframework.engines.redis.places import Malformed
from wsframework.engines.redis.presence import Copy, Own


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
    assert all_changes(own) == [("tea", {"a": b'{"n":2}', "b": None}), ("milk", {"c": b'"\\u00fc\\ud800"'})]
    assert wakes.count == 5
    assert not own.unsaid
    assert list(own.rooms) == ["tea", "milk"]


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


class Stage:
    """A copy, and how often it read the whole."""

    def __init__(self) -> None:
        self.reads = 0
        self.copy = Copy("tea", self._read)

    def _read(self, _: Copy) -> None:
        self.reads += 1

    def change(self, epoch: str, version: int, *changes: tuple[str, str] | str) -> None:
        body = b""
        for change in changes:
            kind, member, data = (b"L", change, "") if isinstance(change, str) else (b"E", *change)
            body += b"%b %d %d:%b%b" % (kind, len(member), len(data), member.encode(), data.encode())
        self.copy.changed(f"{epoch} {version} {len(changes)}".encode(), body)


def test_a_copy_follows_what_is_published_in_the_order_of_entering() -> None:
    stage = Stage()
    stage.copy.begin()
    stage.change("e", 7, ("x", "0"))  # the reply has it
    stage.copy.replied({b"v": b"e 8 3", b"n/2": b'3 "late"', b"n/1": b"1 1"})
    stage.change("e", 8, ("n/3", "[3]"), "n/1")
    stage.change("e", 10, ("n/2", '"new"'))
    assert list(stage.copy.members.items()) == [("n/2", "new"), ("n/3", [3])]
    assert stage.reads == 1


def test_a_hole_is_mended_by_reading_everything() -> None:
    stage = Stage()
    stage.copy.begin()
    stage.copy.replied({b"v": b"e 8 3", b"n/1": b"1 1"})
    stage.change("e", 9, ("n/2", "2"))
    assert stage.reads == 2
    stage.copy.replied({b"v": b"e 10 3", b"n/1": b"1 1", b"n/2": b"2 2"})
    assert stage.copy.members == {"n/1": 1, "n/2": 2}
    stage.change("f", 10, ("n/3", "3"))
    assert stage.reads == 3


def test_a_room_that_was_empty_begins_anew() -> None:
    stage = Stage()
    stage.copy.begin()
    stage.copy.replied({})
    stage.change("e", 0, ("n/1", "1"))
    stage.change("e", 1, "n/1")
    stage.change("f", 0, ("n/2", "2"))
    assert stage.copy.members == {"n/2": 2}
    assert stage.reads == 1


@pytest.mark.parametrize("head", [b"", b"e x 1", b"e 0 9", b"\xff 0 1"])
def test_what_an_engine_did_not_write_is_malformed_and_mended(head: bytes) -> None:
    stage = Stage()
    stage.copy.begin()
    stage.copy.replied({})
    with pytest.raises(Malformed):
        stage.copy.changed(head, b"E 1 1:a1")
    assert stage.reads == 2


def test_a_hash_that_an_engine_did_not_write_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.copy.begin()
    stage.copy.replied({b"n/1": b"no json"})
    assert stage.copy.members == {}
    assert "room.malformed" in caplog.text
