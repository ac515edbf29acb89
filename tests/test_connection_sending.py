"""What is sent, in which order, and what a cancelled send leaves behind."""

from __future__ import annotations

import array
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.fake_transport import connect
from tests.operations import full, sending, start
from wsframework.transport import encode
from wsframework.wire import Opcode, encode_message


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        ("héllo", (Opcode.TEXT, "héllo".encode())),
        ("", (Opcode.TEXT, b"")),
        (b"\0\xff", (Opcode.BINARY, b"\0\xff")),
        (bytearray(b"ab"), (Opcode.BINARY, b"ab")),
        (memoryview(b"abcd")[::2], (Opcode.BINARY, b"ac")),
        (array.array("H", [1, 2]), (Opcode.BINARY, array.array("H", [1, 2]).tobytes())),
    ],
)
async def test_str_goes_out_as_text_and_bytes_like_as_binary(
    message: Any, frame: tuple[Opcode, bytes]
) -> None:
    transport = connect()
    await transport.connection.send(message)
    transport.connection.send_nowait(message)
    assert transport.sent == [frame, frame]
    encoded = encode(message)
    assert (encoded.opcode, encoded.payload) == frame
    assert encoded.frame == encode_message(*frame)


@pytest.mark.parametrize("message", [7, None, ["a"], {"a": 1}])
async def test_what_is_no_message_is_refused_and_nothing_is_sent(message: Any) -> None:
    transport = connect()
    expected = f"a message is str or bytes-like, not {type(message).__name__}; encode it first"
    with pytest.raises(TypeError, match=expected):
        await transport.connection.send(message)
    with pytest.raises(TypeError, match=expected):
        transport.connection.send_nowait(message)
    with pytest.raises(TypeError, match=expected):
        encode(message)
    assert transport.sent == []


async def test_text_that_no_utf_8_can_carry_is_refused_and_nothing_is_sent() -> None:
    transport = connect()
    with pytest.raises(UnicodeEncodeError):
        await transport.connection.send("half a pair: \ud800")
    with pytest.raises(UnicodeEncodeError):
        transport.connection.send_nowait("\ud800")
    assert transport.sent == []
    await transport.connection.send("still fine")
    assert transport.texts == ["still fine"]


async def test_a_buffer_may_be_reused_while_its_message_waits(nursery: trio.Nursery) -> None:
    transport = full()
    buffer = bytearray(b"first")
    await start(nursery, transport.connection, lambda ws: ws.send(buffer))
    buffer[:] = b"other"
    transport.take()
    assert transport.sent == [(Opcode.BINARY, b"first")]


async def test_send_waits_while_the_outbox_is_full_and_is_committed_whole(nursery: trio.Nursery) -> None:
    transport = connect()
    transport.taking = False
    ws = transport.connection
    await ws.send("x" * 70)
    await ws.send("y" * 30)  # exactly full
    waiting = await start(nursery, ws, sending("z" * 40))
    assert not waiting.finished()
    transport.take(39)
    await wait_all_tasks_blocked()
    assert not waiting.finished()
    assert len(transport.sent) == 2
    transport.take(1)
    assert transport.texts[2:] == ["z" * 40]  # at once, before its task has run
    await wait_all_tasks_blocked()
    assert waiting.finished()


async def test_a_message_larger_than_the_outbox_is_taken_when_it_is_empty(nursery: trio.Nursery) -> None:
    transport = connect()
    transport.taking = False
    await transport.connection.send("x" * 1000)
    waiting = await start(nursery, transport.connection, sending("y" * 1000))
    transport.take(999)
    assert len(transport.sent) == 1
    transport.take(1)
    assert len(transport.sent) == 2
    await wait_all_tasks_blocked()
    assert waiting.finished()


async def test_waiting_senders_are_committed_in_the_order_of_their_calls(nursery: trio.Nursery) -> None:
    transport = full()
    messages = [str(i) * 30 for i in range(10)]
    for message in messages:
        await start(nursery, transport.connection, sending(message))
    while len(transport.sent) < len(messages):
        transport.take(10)
        assert transport.outbox_bytes <= 100
    assert transport.texts == messages


async def test_a_small_message_does_not_overtake_a_large_one_that_waits(nursery: trio.Nursery) -> None:
    transport = connect()
    transport.taking = False
    ws = transport.connection
    await ws.send("x" * 50)
    await start(nursery, ws, sending("large" * 20))
    small = await start(nursery, ws, sending("small"))
    assert not small.finished()
    transport.take()
    await wait_all_tasks_blocked()
    assert transport.texts[1:] == ["large" * 20]
    transport.take()
    assert transport.texts[2:] == ["small"]


async def test_a_send_cancelled_while_it_waits_has_sent_nothing(nursery: trio.Nursery) -> None:
    transport = full()
    ws = transport.connection
    waiting = await start(nursery, ws, sending("never"))
    waiting.scope.cancel()
    await wait_all_tasks_blocked()
    assert waiting.scope.cancelled_caught
    transport.take()
    assert transport.sent == []
    assert ws.statistics().messages_sent == 0
    await ws.send("the connection stays usable")
    assert transport.texts == ["the connection stays usable"]


async def test_a_send_in_a_cancelled_scope_sends_nothing() -> None:
    transport = connect()
    with trio.CancelScope() as scope:
        scope.cancel()
        await transport.connection.send("never")
    assert scope.cancelled_caught
    assert transport.sent == []


async def test_a_send_that_was_committed_returns_although_it_is_cancelled_then(nursery: trio.Nursery) -> None:
    transport = full()
    waiting = await start(nursery, transport.connection, sending("sent"))
    transport.take()
    waiting.scope.cancel()  # before the sender's task has run
    await wait_all_tasks_blocked()
    assert transport.texts == ["sent"]
    assert waiting.finished()
    assert not waiting.scope.cancelled_caught


async def test_who_waited_behind_a_cancelled_large_message_gets_its_turn(nursery: trio.Nursery) -> None:
    transport = connect()
    transport.taking = False
    ws = transport.connection
    await ws.send("x" * 80)
    large = await start(nursery, ws, sending("l" * 1000))
    behind = [await start(nursery, ws, sending(message)) for message in ("a", "b", "c" * 50, "d")]
    large.scope.cancel()
    await wait_all_tasks_blocked()
    assert transport.texts[1:] == ["a", "b"]
    assert [outcome.finished() for outcome in behind] == [True, True, False, False]
    transport.take()
    assert transport.texts[3:] == ["c" * 50, "d"]


async def test_cancelling_one_waiter_keeps_the_order_of_the_others(nursery: trio.Nursery) -> None:
    transport = full()
    outcomes = [await start(nursery, transport.connection, sending(name)) for name in "abc"]
    outcomes[1].scope.cancel()
    await wait_all_tasks_blocked()
    assert transport.sent == []
    transport.take()
    assert transport.texts == ["a", "c"]


async def test_send_nowait_sends_or_would_block(nursery: trio.Nursery) -> None:
    transport = connect()
    transport.taking = False
    ws = transport.connection
    ws.send_nowait("x" * 100)
    with pytest.raises(trio.WouldBlock):
        ws.send_nowait("y")
    assert transport.texts == ["x" * 100]
    assert ws.statistics().messages_sent == 1
    transport.take(50)
    await start(nursery, ws, sending("z" * 60))
    with pytest.raises(trio.WouldBlock):
        ws.send_nowait("y")  # it would fit, but others wait
