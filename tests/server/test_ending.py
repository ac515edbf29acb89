"""How a connection in frames ends, without any I/O: Close frames, the close timeout, FIN, lost TCP."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.server.framed import BAD, Make, Transport, close, sent, text
from tests.wire.encoding import encode_text
from wsframework.closes import Closed, CloseFrame
from wsframework.config import Limits, Timeouts
from wsframework.connection import Connection
from wsframework.request import Request
from wsframework.server.ending import NoReceiver
from wsframework.wire import (
    Opcode,
    encode_close,
)

pytestmark = pytest.mark.virtual_time

# The peer's Close


async def test_a_close_is_answered_at_once_when_nothing_is_unread(transport: Transport) -> None:
    transport.receive(close(4000))
    assert transport.take() == encode_close(4000)
    assert transport.sending_ended
    assert transport.receiver.ended == Closed(CloseFrame(4000), CloseFrame(4000), sent_first=False)


async def test_a_close_behind_messages_is_answered_when_they_were_received_and_answered(
    transport: Transport,
) -> None:
    transport.receive(text("a"), close())
    assert transport.take() == b""
    assert transport.receiver.ended is None
    transport.send(Opcode.TEXT, b"A")
    assert transport.receiver.receive_all() == ["a"]
    assert transport.take() == encode_text("A") + encode_close(1000)
    assert transport.sending_ended


async def test_a_close_that_comes_alone_waits_for_messages_that_are_still_unread(
    transport: Transport,
) -> None:
    transport.receive(text("a"))
    transport.receive(close())
    assert transport.take() == b""
    transport.receiver.receive_all()
    assert transport.take() == encode_close(1000)


async def test_a_close_waits_for_the_answer_to_a_message_that_was_just_handed_to_the_handler(
    transport: Transport, nursery: trio.Nursery
) -> None:
    ws = Connection(transport, Request("/"), limits=Limits())
    transport.endpoint = ws.endpoint

    async def echo() -> None:
        async for message in ws:
            await ws.send(message)

    nursery.start_soon(echo)
    await trio.testing.wait_all_tasks_blocked()
    transport.receive(text("a"))
    transport.receive(close())  # by another read, before the handler's next step
    await trio.testing.wait_all_tasks_blocked()
    assert transport.take() == encode_text("a") + encode_close(1000)


async def test_a_close_waits_no_longer_than_the_last_words(make: Make) -> None:
    transport = make(timeouts=Timeouts(last_words=2))
    transport.receive(text("a"), close())
    await trio.sleep(1.9)
    assert transport.take() == b""
    await trio.sleep(0.2)
    assert transport.take() == encode_close(1000)
    assert transport.receiver.messages == ["a"], "it can still be received"


async def test_a_handler_that_closes_meanwhile_sends_the_answer_that_was_held_back(
    transport: Transport,
) -> None:
    transport.receive(text("a"), close(4000))
    transport.close(CloseFrame(1000, "the handler has returned"))
    assert transport.take() == encode_close(4000)
    transport.receiver.receive_all()
    await trio.sleep(10)
    assert transport.take() == b"", "no second Close"


async def test_a_peer_that_sends_fin_behind_its_close_is_still_answered(transport: Transport) -> None:
    transport.receive(text("a"), close())
    transport.peer_closed()
    assert transport.receiver.ended is None
    transport.send(Opcode.TEXT, b"A")
    transport.receiver.receive_all()
    assert transport.take() == encode_text("A") + encode_close(1000)


# Failures


async def test_a_protocol_error_fails_the_connection_with_its_code(transport: Transport) -> None:
    transport.receive(BAD)
    assert transport.take()[:4] == b"\x88" + transport_close_start(1002)
    assert transport.sending_ended
    ended = transport.receiver.ended
    assert ended is not None
    assert ended.sent is not None
    assert (ended.sent.code, ended.received, ended.sent_first) == (1002, None, True)
    assert "the peer broke the protocol" in ended.cause


def transport_close_start(code: int) -> bytes:
    """The length of a Close frame with the reason of `BAD`, and the code."""
    reason = "RSV2 or RSV3 is set, and no extension uses them"
    return bytes((2 + len(reason),)) + code.to_bytes(2)


async def test_a_protocol_error_behind_messages_waits_for_them(transport: Transport) -> None:
    transport.receive(text("a"), BAD)
    assert transport.take() == b""
    transport.send(Opcode.TEXT, b"A")
    transport.receiver.receive_all()
    assert transport.take().startswith(encode_text("A") + b"\x88")


async def test_a_protocol_error_after_our_close_ends_the_connection_without_a_word(
    transport: Transport,
) -> None:
    transport.close(CloseFrame(1000))
    transport.take()
    transport.receive(BAD)
    assert transport.take() == b""
    assert transport.sending_ended


async def test_what_comes_behind_the_end_is_ignored(transport: Transport) -> None:
    transport.receive(close())
    transport.take()
    transport.receive(text("late"), sent(Opcode.PING, b"late"))
    assert transport.receiver.messages == []
    assert transport.take() == b""


# Our Close


async def test_our_close_is_sent_once_and_its_answer_ends_the_sending(transport: Transport) -> None:
    transport.close(CloseFrame(4000, "x"))
    transport.close(CloseFrame(4001, "y"))
    assert transport.take() == encode_close(4000, "x")
    assert not transport.sending_ended
    transport.receive(text("crossed"), sent(Opcode.PING, b"crossed"), close(4000))
    assert transport.take() == b"", "no pong behind a Close"
    assert transport.sending_ended


async def test_a_close_is_over_by_the_close_timeout(make: Make) -> None:
    transport = make(timeouts=Timeouts(close=3))
    transport.close(CloseFrame(1000))
    await trio.sleep(2.9)
    assert [transport.released] == [False]
    await trio.sleep(0.2)
    assert transport.released
    assert transport.receiver.finished == Closed(
        CloseFrame(1000), None, sent_first=True, cause="the close timeout was over"
    )


async def test_a_released_transport_has_no_timer_left(make: Make) -> None:
    transport = make(timeouts=Timeouts(close=3))
    transport.receive(close())
    transport.take()
    transport._release()
    finished = transport.receiver.finished
    assert finished == Closed(CloseFrame(1000), CloseFrame(1000), sent_first=False)
    await trio.sleep(10)
    assert transport.receiver.finished is finished


async def test_a_reader_that_makes_progress_gets_the_close_timeout_again(make: Make) -> None:
    transport = make(timeouts=Timeouts(close=3))
    transport.answer(b"x" * 50_000)
    transport.outbox.clear()
    transport.outbox_bytes, transport.kernel_bytes = 30_000, 20_000
    for _ in range(10):  # first out of our outbox, then out of the kernel's buffer
        await trio.sleep(2.9)
        assert [transport.released] == [False]
        if transport.outbox_bytes:
            transport.outbox_bytes -= 5_000
        else:
            transport.kernel_bytes -= 5_000
    await trio.sleep(2.9)
    assert [transport.released] == [False], "the last bytes count as well"
    await trio.sleep(3.1)
    assert transport.released


@pytest.mark.parametrize(("taken", "kept"), [(1, False), (700, False), (750, True)])
async def test_a_reader_that_is_slower_than_240_bytes_a_second_holds_nothing(
    make: Make, taken: int, kept: bool
) -> None:
    transport = make(timeouts=Timeouts(close=3))
    transport.send(Opcode.BINARY, bytes(50_000))
    transport.close(CloseFrame(1000))
    for _ in range(10):
        transport.outbox_bytes -= taken
        await trio.sleep(3.01)
    assert transport.released is not kept


async def test_an_answer_that_is_waiting_to_be_read_at_the_close_timeout_counts(make: Make) -> None:
    transport = make(timeouts=Timeouts(close=3))
    transport.close(CloseFrame(4000))
    transport.waiting = close(4000)
    await trio.sleep(3.5)
    assert transport.sending_ended
    assert [transport.released] == [False]
    await trio.sleep(3)
    assert transport.released, "and its FIN has as much time"
    finished = transport.receiver.finished
    assert finished is not None
    assert finished.clean


async def test_messages_without_a_close_among_them_do_not_prolong_it(make: Make) -> None:
    transport = make(timeouts=Timeouts(close=3))
    transport.close(CloseFrame(4000))
    transport.waiting = text("never ending") * 10
    await trio.sleep(3.1)
    assert transport.released


async def test_a_close_timeout_of_nothing_is_over_at_once(make: Make) -> None:
    transport = make(timeouts=Timeouts(close=0))
    transport.close(CloseFrame(4000))
    await trio.sleep(0.1)
    assert transport.released


# The transport's end


async def test_fin_without_a_close_is_the_end(transport: Transport) -> None:
    transport.peer_closed()
    ended = transport.receiver.ended
    assert ended == Closed(None, None, None, cause="the peer closed TCP without a Close frame")
    assert ended.code == 1006
    assert transport.sending_ended


async def test_fin_after_our_close_without_an_answer_is_the_end(transport: Transport) -> None:
    transport.close(CloseFrame(1000))
    transport.peer_closed()
    ended = transport.receiver.ended
    assert ended is not None
    assert (ended.sent, ended.received) == (CloseFrame(1000), None)
    assert transport.sending_ended


async def test_a_broken_transport_ends_the_connection_and_is_released(transport: Transport) -> None:
    transport.send(Opcode.TEXT, b"never leaves")
    transport.broken()
    assert transport.released
    assert transport.receiver.finished == Closed(None, None, None, cause="the cable was cut")


async def test_a_transport_that_breaks_after_the_closing_handshake_was_closed_cleanly(
    transport: Transport,
) -> None:
    transport.receive(close())
    transport.broken()
    finished = transport.receiver.finished
    assert finished is not None
    assert finished.clean
    assert finished.cause == ""


async def test_an_abort_tells_the_connection_why(transport: Transport) -> None:
    transport.abort("the drain was over")
    assert transport.released
    assert transport.receiver.finished == Closed(None, None, None, cause="the drain was over")


# HTTP answers


async def test_an_answer_is_written_and_everything_that_comes_is_ignored(make: Make) -> None:
    transport = make(timeouts=Timeouts(close=3))
    transport.answer(b"HTTP/1.1 404 Not Found\r\n\r\n")
    assert isinstance(transport.endpoint, NoReceiver)
    assert transport.sending_ended
    assert transport.take() == b"HTTP/1.1 404 Not Found\r\n\r\n"
    transport.receive(text("a"), sent(Opcode.PONG))
    transport.peer_closed()
    await trio.sleep(3.1)
    assert transport.released
