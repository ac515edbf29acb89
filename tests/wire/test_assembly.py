from __future__ import annotations

import pytest

from wsframework.closes import CloseCode
from wsframework.wire import ProtocolViolation
from wsframework.wire.assembly import Assembly

pytestmark = pytest.mark.usefixtures("masking")


def assembly(*, text: bool = True, max_fragments: int | None = None) -> Assembly:
    return Assembly(text=text, max_message_bytes=None, max_fragments=max_fragments, inflater=None)


def add(message: Assembly, payload: bytes, *, fin: bool = False) -> None:
    message.begin_frame(len(payload), b"", fin)
    message.add(memoryview(payload))


@pytest.mark.parametrize(
    "sizes", [(1, 1), (2_000, 1), (1, 2_000), (2_000, 2_000), (1, 2_000, 1, 1, 3_000, 5)]
)
def test_small_and_large_pieces_keep_their_order(sizes: tuple[int, ...]) -> None:
    pieces = [bytes((97 + i,)) * size for i, size in enumerate(sizes)]
    for text in (True, False):
        message = assembly(text=text)
        for piece in pieces:
            add(message, piece)
        whole = b"".join(pieces)
        assert message.size == message.wire_bytes == len(whole)
        assert message.finish() == (whole.decode() if text else whole)


@pytest.mark.parametrize("cut", [1_022, 1_023, 1_024, 1_025, 1_026])
def test_a_character_cut_where_pieces_turn_large_is_whole(cut: int) -> None:
    text = "x" * 1_021 + "🎉" + "y" * 2_000
    message = assembly()
    add(message, text.encode()[:cut])
    add(message, text.encode()[cut:])
    assert message.finish() == text


def test_what_is_unread_of_a_frame_is_counted_down() -> None:
    message = assembly()
    message.begin_frame(10, b"\x01\x02\x03\x04", True)
    message.add(memoryview(b"\x60" * 3))
    assert (message.unread, message.size, message.fin) == (7, 3, True)
    message.add(memoryview(b"\x60" * 7))
    assert message.unread == 0
    assert message.finish() == "abcdabcdab"


def test_too_many_fragments_are_a_violation() -> None:
    message = assembly(max_fragments=2)
    add(message, b"")
    add(message, b"")
    with pytest.raises(ProtocolViolation, match="more than 2 fragments") as caught:
        add(message, b"")
    assert caught.value.code is CloseCode.POLICY_VIOLATION
