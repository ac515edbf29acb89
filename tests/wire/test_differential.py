"""wsproto and our decoder get the same bytes, cut differently, and must come to the same verdict.

Where they differ on purpose, `DIFFERENCES` names the rule. wsproto is otherwise right but late about some
violations, so when it has not failed yet, more bytes are sent until it does.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.decoding import BINARY, CONTINUATION, KEY, TEXT, feed_all, masked, raw_frame, repeatable
from tests.wire.oracle import Oracle
from wsframework.closes import CloseCode, CloseFrame
from wsframework.wire import (
    CloseReceived,
    Decoder,
    Deflater,
    Event,
    Failure,
    Inflater,
    Opcode,
    Ping,
    encode_frame,
)

pytestmark = pytest.mark.usefixtures("masking", "decoding")

# What may follow a violation that wsproto has not noticed: the rest of a header or frame, or a next fragment.
LATER = [bytes(20), encode_frame(CONTINUATION, b"\x80" * 4, masking_key=KEY), b"\xff" * 20]


def without_reasons(events: list[Event]) -> list[Event]:
    return [Failure(event.code, "") if isinstance(event, Failure) else event for event in events]


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({edge % (len(data) + 1) for edge in cuts}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def assert_same(data: bytes, cuts: list[int], *, client: bool = False, compressed: bool = False) -> None:
    decoder = Decoder(masked=not client, max_message_bytes=None, inflater=Inflater() if compressed else None)
    ours = without_reasons(feed_all(decoder, cut(data, cuts)))
    oracle = Oracle(client=client, compressed=compressed)
    theirs = oracle.feed(data)
    if ours == theirs:
        return
    assert isinstance(ours[-1], Failure), (ours, theirs)
    assert ours[:-1] == theirs  # all the same, but they have not failed yet
    verdicts = []
    for later in LATER:
        late = Oracle(client=client, compressed=compressed)
        late.feed(data)
        verdicts.append(late.feed(later))
    assert [ours[-1]] in verdicts, (ours, verdicts)


good_text = st.text(max_size=20).map(str.encode)
bad_text = st.sampled_from(
    [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xce", b"\xa9"]
)
payloads = good_text | st.binary(max_size=20) | bad_text | st.integers(120, 300).map(bytes)
close_payloads = st.just(b"") | st.binary(max_size=4) | st.builds(
    lambda code, reason: code.to_bytes(2, "big") + reason,
    st.integers(990, 1013) | st.sampled_from([1015, 1016, 2999, 3000, 4999, 5000]),
    good_text | bad_text,
)  # fmt: skip
fins = st.booleans()
keys = st.sampled_from([KEY, bytes(4), b"\x00\x00\x00\x80"])

valid_messages = st.builds(
    lambda payload, sizes, key: fragments(TEXT, payload, sizes, key),
    good_text,
    st.lists(st.integers(0, 9)),
    keys,
)
data_frames = st.builds(
    lambda opcode, payload, fin, key: masked(opcode, payload, fin=fin, key=key),
    st.sampled_from([TEXT, BINARY, CONTINUATION, CONTINUATION]),
    payloads,
    fins,
    keys,
)
control_frames = st.builds(masked, st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125))
close_frames = st.builds(masked, st.just(Opcode.CLOSE), close_payloads)
broken_frames = st.builds(
    raw_frame,
    st.integers(0, 255),
    st.integers(0, 125).map(lambda n: bytes((n,)))
    | st.integers(0, 300).map(lambda n: b"\x7e" + n.to_bytes(2, "big"))
    | st.sampled_from([0, 65_535, 65_536, 2**63]).map(lambda n: b"\x7f" + n.to_bytes(8, "big")),
    st.binary(max_size=20),
)
unmasked_frames = st.builds(encode_frame, st.sampled_from([TEXT, BINARY]), good_text)
noise = st.binary(max_size=12)


def fragments(
    opcode: Opcode, payload: bytes, sizes: list[int], key: bytes = KEY, *, rsv1: bool = False
) -> bytes:
    pieces = []
    for size in sizes:
        pieces.append(payload[:size])
        payload = payload[size:]
    pieces.append(payload)
    last = len(pieces) - 1
    return b"".join(
        masked(CONTINUATION if i else opcode, piece, fin=i == last, rsv1=rsv1 and not i, key=key)
        for i, piece in enumerate(pieces)
    )


streams = st.lists(
    valid_messages
    | valid_messages
    | data_frames
    | control_frames
    | close_frames
    | broken_frames
    | unmasked_frames
    | noise,
    max_size=6,
).map(b"".join)
cuts = st.lists(st.integers(0, 2_000), max_size=8)


@repeatable(600)
@given(streams, cuts)
def test_wsproto_and_we_come_to_the_same_verdict(stream: bytes, cuts: list[int]) -> None:
    assert_same(stream, cuts)


@repeatable(200)
@given(streams, st.integers(0, 200), cuts)
def test_wsproto_and_we_wait_for_the_same_end(stream: bytes, size: int, cuts: list[int]) -> None:
    assert_same(stream[:size], cuts)


@repeatable(200)
@given(st.binary(max_size=60), cuts)
def test_wsproto_and_we_judge_noise_alike(stream: bytes, cuts: list[int]) -> None:
    assert_same(stream, cuts)


server_frames = st.builds(
    lambda opcode, payload, fin: encode_frame(opcode, payload, fin=fin),
    st.sampled_from([TEXT, BINARY, CONTINUATION]),
    payloads,
    fins,
) | st.builds(encode_frame, st.sampled_from([Opcode.PING, Opcode.CLOSE]), close_payloads)


@repeatable(200)
@given(st.lists(server_frames | server_frames | data_frames, max_size=6).map(b"".join), cuts)
def test_wsproto_and_we_agree_on_the_clients_side(stream: bytes, cuts: list[int]) -> None:
    assert_same(stream, cuts, client=True)


@repeatable(200)
@given(
    st.lists(
        st.tuples(st.booleans(), st.text("abé", max_size=60), st.lists(st.integers(0, 5), max_size=3)),
        max_size=5,
    ),
    st.binary(max_size=10),
    cuts,
)
def test_wsproto_and_we_inflate_alike(
    messages: list[tuple[bool, str, list[int]]], noise: bytes, cuts: list[int]
) -> None:
    deflater = Deflater()
    stream = b""
    for compress, text, sizes in messages:
        payload = deflater.compress(text.encode()) if compress else text.encode()
        stream += fragments(TEXT, payload, sizes, rsv1=compress)
    assert_same(stream, cuts, compressed=True)
    # And when the last message is not what the compressor made: noise, as stored bytes.
    stored = b"\x00" + len(noise).to_bytes(2, "little") + (len(noise) ^ 0xFFFF).to_bytes(2, "little") + noise
    assert_same(stream + masked(TEXT, stored + b"\x00", rsv1=True), cuts, compressed=True)


HELLO = bytes.fromhex("f248cdc9c90700")
FINAL_HELLO = bytes.fromhex("f348cdc9c9070000")

# (why, the bytes, compressed, what we make of them, what wsproto makes of them)
DIFFERENCES: list[tuple[str, bytes, bool, list[Event], list[Event]]] = [
    (
        # RFC 6455 §7.4.2: "Status codes in the range 1000-2999 are reserved for definition by this protocol,
        # its future revisions, and extensions"; the IANA registry has 1014, Bad Gateway, since.
        "close code 1014 is registered",
        masked(Opcode.CLOSE, (1014).to_bytes(2, "big")),
        False,
        [CloseReceived(CloseFrame(1014))],
        [Failure(CloseCode.PROTOCOL_ERROR, "")],
    ),
    (
        # RFC 6455 §5.4: "Control frames MAY be injected in the middle of a fragmented message", and RFC 7692
        # §6.1 says nothing else. wsproto forgets at a control frame that the message is compressed.
        "a ping within a compressed message",
        masked(TEXT, HELLO[:3], fin=False, rsv1=True)
        + masked(Opcode.PING, b"")
        + masked(CONTINUATION, HELLO[3:]),
        True,
        [Ping(b""), "Hello"],
        [Ping(b""), Failure(CloseCode.INVALID_PAYLOAD, "")],
    ),
    (
        # RFC 7692 §7.2.3.4 has this very message as its example. wsproto's stream ends with its final block,
        # and it can read nothing after it.
        "a message after one that ended in a final block",
        masked(TEXT, FINAL_HELLO, rsv1=True) * 2,
        True,
        ["Hello", "Hello"],
        ["Hello", Failure(CloseCode.INVALID_PAYLOAD, "")],
    ),
    (
        # RFC 7692 §7.2.1: a compressed message has an octet at least; to one that has none, the tail that
        # §7.2.2 appends would be the start of a block, and wsproto then reads the next message as its rest.
        "a message after a compressed one without an octet",
        masked(TEXT, b"", rsv1=True) + masked(TEXT, HELLO, rsv1=True),
        True,
        ["", "Hello"],
        ["", Failure(CloseCode.INVALID_PAYLOAD, "")],
    ),
]


@pytest.mark.parametrize(
    ("data", "compressed", "ours", "theirs"), [pytest.param(*case[1:], id=case[0]) for case in DIFFERENCES]
)
def test_every_deliberate_difference_is_listed(
    data: bytes, compressed: bool, ours: list[Event], theirs: list[Event]
) -> None:
    decoder = Decoder(max_message_bytes=None, inflater=Inflater() if compressed else None)
    assert without_reasons(decoder.feed(data)) == ours
    assert Oracle(compressed=compressed).feed(data) == theirs  # else wsproto has changed: strike it out
