"""The queue of messages for Redis: bounded, in order, each settled once."""

from __future__ import annotations

import pytest
import trio

from wsframework import History, RoomUnavailable
from wsframework.engines.redis.codec import LinkLost, RedisError
from wsframework.engines.redis.names import Names
from wsframework.engines.redis.outgoing import Batch, Expiries, Outgoing, Publication
from wsframework.engines.redis.places import Place

KEEP = History()


class Stage:
    """A queue, and what it gave up."""

    def __init__(self, messages: int = 1000, bytes: int = 10**6) -> None:
        self.lost = 0
        self.wakes = 0
        self.numbers = 0
        self.queue = Outgoing(messages, bytes, self._wake, self._lost)

    def _wake(self) -> None:
        self.wakes += 1

    def _lost(self) -> None:
        self.lost += 1

    def add(
        self, room: str = "tea", due: float = 5.0, name: bytes | None = None, keep: History | None = KEEP
    ) -> Publication:
        self.numbers += 1
        publication = Publication(
            room, room.encode(), self.numbers, f"t{self.numbers}", b"tx", keep, name, due
        )
        self.queue.add(publication)
        return publication


def numbers(batches: list[Batch]) -> list[list[int]]:
    return [[each.number for each in batch.publications] for batch in batches]


def answer(batch: Batch, known: int = 0) -> None:
    reply: list[object] = [b"e", known]
    for publication in batch.publications:
        reply += [publication.number, publication.tag.encode()]
    batch.replied(reply)


async def test_messages_of_a_room_go_in_one_call_and_in_order() -> None:
    stage = Stage()
    for room in ("tea", "milk", "tea", "tea", "milk"):
        stage.add(room)
    batches = stage.queue.batches()
    assert numbers(batches) == [[1, 3, 4], [2, 5]]
    assert stage.queue.batches() == []
    for batch in batches:
        answer(batch)
    assert (len(stage.queue), stage.queue.bytes) == (0, 0)
    assert batches[0].publications[1].outcome == Place("e", 3, "t3")


async def test_a_message_with_a_key_or_another_history_has_a_call_of_its_own_in_its_place() -> None:
    stage = Stage()
    stage.add()
    stage.add(name=b"k")
    stage.add()
    stage.add(keep=None)
    assert numbers(stage.queue.batches()) == [[1], [2], [3], [4]]


async def test_a_full_queue_takes_no_more_and_has_room_again() -> None:
    stage = Stage(messages=2)
    stage.add()
    stage.add()
    with pytest.raises(RoomUnavailable, match=r"2 messages of .* bytes wait for Redis") as caught:
        stage.add()
    assert not caught.value.unknown
    for batch in stage.queue.batches():
        answer(batch)
    stage.add()
    small = Stage(bytes=600)
    small.add()
    small.add()
    with pytest.raises(RoomUnavailable):
        small.add()


async def test_a_message_that_the_queue_never_takes_is_named() -> None:
    with pytest.raises(RoomUnavailable, match="a message of 1 bytes is more than the queue takes"):
        Stage(bytes=100).add()


async def test_a_bounded_number_is_in_flight_and_replies_make_room() -> None:
    stage = Stage()
    for _ in range(600):
        stage.add()
    (first,) = stage.queue.batches()
    assert len(first.publications) == 256
    assert stage.queue.batches() == []
    answer(first)
    assert stage.wakes == 1
    assert numbers(stage.queue.batches())[0][0] == 257


async def test_after_a_lost_connection_all_that_has_no_reply_is_sent_again_in_order() -> None:
    stage = Stage()
    for room in ("tea", "milk", "tea"):
        stage.add(room)
    first, _ = stage.queue.batches()
    answer(first)
    stage.add("tea")
    stage.queue.batches()
    stage.add("milk")
    stage.queue.begin_again()
    again = stage.queue.batches()
    assert numbers(again) == [[2, 5], [4]]
    for batch in again:
        answer(batch, known=1)
    assert stage.queue.deduplicated == 2
    assert len(stage.queue) == 0


async def test_what_waits_for_too_long_is_refused_and_what_was_sent_is_unknown() -> None:
    stage = Stage()
    sent = stage.add(due=1.0)
    (batch,) = stage.queue.batches()
    waiting, later = stage.add(due=2.0), stage.add(due=9.0)
    assert stage.queue.oldest_due == 1.0
    stage.queue.expire(3.0, "too late")
    assert isinstance(sent.outcome, RoomUnavailable)
    assert sent.outcome.unknown
    assert isinstance(waiting.outcome, RoomUnavailable)
    assert not waiting.outcome.unknown
    assert later.outcome is None
    assert stage.lost == 2
    assert stage.queue.oldest_due == 9.0
    answer(batch)  # it comes after all: nothing changes
    assert stage.lost == 2
    assert numbers(stage.queue.batches()) == [[3]]
    stage.queue.begin_again()
    assert numbers(stage.queue.batches()) == [[3]]


async def test_a_publisher_that_is_cancelled_takes_its_message_back_unless_it_was_sent() -> None:
    stage = Stage()
    sent = stage.add()
    stage.queue.batches()
    waiting = stage.add()
    for publication in (sent, waiting):
        publication.done = trio.Event()
        stage.queue.give_up(publication)
    assert sent.outcome is None
    assert waiting.outcome is not None
    assert stage.queue.batches() == []
    assert stage.lost == 0


async def test_an_error_refuses_its_batch_or_asks_for_another_connection() -> None:
    stage = Stage()
    publication = stage.add()
    (batch,) = stage.queue.batches()
    batch.replied(RedisError("OOM command not allowed when used memory > 'maxmemory'. script: f"))
    assert isinstance(publication.outcome, RoomUnavailable)
    assert not publication.outcome.unknown
    stage.add()
    (batch,) = stage.queue.batches()
    for text in ("NOSCRIPT No matching script.", "READONLY You can't write", "LOADING Redis is loading"):
        with pytest.raises(LinkLost):
            batch.replied(RedisError(text))


@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"x",
        [],
        [b"e", 0, 1],
        [b"e", 0, 1, b"t1"],
        [b"e", 0, b"x", b"t1", 2, b"t2"],
        [b"e", 0, 1, 2, 3, 4],
    ],
)
async def test_messages_are_not_lost_in_an_answer_that_makes_no_sense(reply: object) -> None:
    """They waited without an end."""
    stage = Stage()
    publications = [stage.add(), stage.add()]
    (batch,) = stage.queue.batches()
    with pytest.raises((LinkLost, TypeError, ValueError, IndexError, AttributeError)):
        batch.replied(reply)
    assert len(stage.queue) == 2
    stage.queue.begin_again()
    (batch,) = stage.queue.batches()
    answer(batch)
    assert [publication.outcome for publication in publications] == [Place("e", 1, "t1"), Place("e", 2, "t2")]


def test_the_code_of_an_error_in_a_script_is_that_of_the_command_in_it() -> None:
    error = RedisError("ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed")
    assert error.code == "OOM"
    assert RedisError("NOPERM this user has no permissions").code == "NOPERM"
    assert RedisError("").code == ""


async def test_the_end_settles_everything() -> None:
    stage = Stage()
    publications = [stage.add(), stage.add()]
    stage.queue.batches()
    publications.append(stage.add())
    stage.queue.end("the engine has ended")
    assert all(isinstance(each.outcome, RoomUnavailable) for each in publications)
    assert len(stage.queue) == 0


async def test_expiries_are_said_rarely_and_again_to_another_server(
    autojump_clock: trio.testing.MockClock,
) -> None:
    expiries, names = Expiries(), Names("ws")
    keep = History(seconds=100.0)
    assert expiries.due(b"a", keep, 0.0) == 110
    assert expiries.due(b"a", keep, 10.0) == 0
    assert expiries.due(b"b", None, 10.0) == 300
    assert expiries.due(b"a", keep, 12.0) == 110
    expiries.clear()
    assert expiries.due(b"a", keep, 12.0) == 110
    stage = Stage()
    stage.add()
    (batch,) = stage.queue.batches()
    assert b"EVALSHA" in batch.command(names, "node", expiries)
