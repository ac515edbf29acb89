"""Frames as a trace sees them: split without judging, judged as the decoder judges them, and all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsframework.diagnostics.tracing.frames import Frame, FrameSplitter, preview
from wsframework.diagnostics.tracing.judging import FrameJudge
from wsframework.wire import CloseReceived, Decoder, Failure, Inflater, Opcode, encode_frame

FRAMES = [
    encode_frame(Opcode.TEXT, b"hello"),
    encode_frame(Opcode.TEXT, b""),
    encode_frame(Opcode.BINARY, bytes(200)),
    encode_frame(Opcode.BINARY, bytes(70_000), masking_key=b"\1\2\3\4"),
    encode_frame(Opcode.PING, b"p", masking_key=b"abcd"),
    encode_frame(Opcode.CLOSE, b"\x03\xe8bye"),
]


def split(*pieces: bytes) -> list[Frame]:
    splitter = FrameSplitter()
    return [frame for piece in pieces for frame in splitter.feed(piece)]


def test_frames_come_out_as_they_went_in() -> None:
    text, empty, binary, big, ping, close = split(b"".join(FRAMES))
    assert (text.name, text.fin, text.rsv, text.masked, text.length) == ("text", True, (), False, 5)
    assert (text.header_bytes, text.payload, text.missing) == (2, b"hello", 0)
    assert (empty.length, empty.payload) == (0, b"")
    assert (binary.length, binary.header_bytes, binary.payload) == (200, 4, bytes(200))
    assert (big.masking_key, big.length, big.header_bytes) == (b"\1\2\3\4", 70_000, 14)
    assert big.payload == bytes(512)  # what is kept of it
    assert (ping.masking_key, ping.payload) == (b"abcd", b"p")
    assert (close.close_code, close.close_reason) == (1000, "bye")
    assert (text.close_code, text.close_reason) == (None, None)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 4096])
def test_it_does_not_matter_where_the_bytes_are_cut(size: int) -> None:
    data = b"".join(FRAMES)
    assert split(*(data[at : at + size] for at in range(0, len(data), size))) == split(data)


@pytest.mark.parametrize("at", range(1, 12))
def test_what_is_incomplete_is_kept_until_it_is_asked_for(at: int) -> None:
    splitter = FrameSplitter()
    data = encode_frame(Opcode.TEXT, b"hello", masking_key=b"abcd")
    assert len(data) == 11
    frames = list(splitter.feed(data[:at]))
    incomplete = splitter.take_incomplete()
    if at < 6:
        assert (frames, incomplete, splitter.header_bytes) == ([], None, at)
    elif at < 11:
        assert frames == []
        assert incomplete is not None
        assert (incomplete.payload, incomplete.missing) == (b"hello"[: at - 6], 11 - at)
        assert splitter.take_incomplete() is None
    else:
        assert [frame.payload for frame in frames] == [b"hello"]
        assert incomplete is None


def test_a_reserved_opcode_and_all_reserved_bits_have_a_name() -> None:
    (frame,) = split(b"\x7b\x00")
    assert (frame.name, frame.opcode, frame.fin, frame.rsv) == ("reserved", 0xB, False, (1, 2, 3))


def complaints(*frames: bytes, compression: bool = False) -> list[str]:
    judge = FrameJudge(compression=compression)
    return [problem.name for frame in split(*frames) for problem in judge.judge(frame)]


def test_all_that_is_wrong_with_a_frame_is_found() -> None:
    assert complaints(b"\x59\xfe\x00\x01" + b"\1\2\3\4" + b"x") == [
        "frame.masked",
        "frame.reserved_bits",
        "frame.length",
        "frame.fragmented_control",
    ]


def test_a_compressed_message_is_right_when_compression_was_agreed_on() -> None:
    frames = b"\x41\x01a\x00\x01b\x89\x00\x80\x01c\xc2\x00"
    assert complaints(frames, compression=True) == []
    assert complaints(frames) == ["frame.reserved_bits"] * 2
    assert complaints(b"\xc9\x00", compression=True) == ["frame.reserved_bits"]


@given(
    st.lists(
        st.builds(
            lambda first, masked, payload: (
                bytes((first, (0x80 if masked else 0) | len(payload)))
                + (b"\0\0\0\0" if masked else b"")
                + payload
            ),
            st.sampled_from([0x01, 0x81, 0x02, 0x82, 0x00, 0x80, 0x88, 0x89, 0x8A, 0x08, 0x83, 0xC1, 0xA1]),
            st.sampled_from([False, False, False, True]),
            st.sampled_from([b"", b"a", b"\x03\xe8", b"\x03\xed", b"\x03\xe8\xff"]),
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_the_judge_complains_exactly_when_the_decoder_fails_on_a_header_or_a_close_frame(
    frames: list[bytes], compression: bool
) -> None:
    # One frame at a time, as far as the decoder goes; payloads of messages are not the judge's business.
    decoder = Decoder(masked=False, max_message_bytes=None, inflater=Inflater() if compression else None)
    judge = FrameJudge(compression=compression)
    for data in frames:
        events = decoder.feed(data)
        (frame,) = split(data)
        failure = next((event for event in events if isinstance(event, Failure)), None)
        found = judge.judge(frame)
        if failure is not None and failure.code == 1007 and frame.opcode < Opcode.CLOSE:
            return  # the payload: bad UTF-8, bad DEFLATE
        assert bool(found) == (failure is not None), (frame, failure, found)
        if failure is not None or any(isinstance(event, CloseReceived) for event in events):
            return


def test_a_preview_is_text_where_it_can_be() -> None:
    assert attrs_of(preview("größer".encode(), 8)) == ("größer", "6772c3b6c39f6572", False)
    assert attrs_of(preview(b"\xff\xfe", 2)) == (None, "fffe", False)


def test_a_preview_that_cuts_a_character_is_still_text() -> None:
    text = "ö" * 200
    shown = preview(b"x" + text.encode(), 401)
    assert shown.text == "x" + "ö" * 127
    assert shown.cut
    assert preview(b"\xc3", 1).text is None  # nothing is cut: it is not UTF-8


def attrs_of(payload: object) -> tuple[object, ...]:
    return tuple(getattr(payload, name) for name in ("text", "hex", "cut"))
