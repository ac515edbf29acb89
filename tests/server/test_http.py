"""Request heads and answers: bytes in, a head or our own refusal out, however the bytes are cut."""

from __future__ import annotations

import re

import attrs
import h11
import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wsframework.errors import HandshakeError
from wsframework.request import Response
from wsframework.server.http import Head, HeadReader, encode_response, read_head

UPGRADE = (
    b"GET /chat?room=1 HTTP/1.1\r\nHost: example.com:8000\r\nUpgrade: websocket\r\n"
    b"Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\nOrigin: http://example.com\r\n\r\n"
)
LIMIT = 2000


def read(data: bytes, *, cut: int | None = None, limit: int = LIMIT) -> Head | HandshakeError | None:
    """Feed `data` in pieces of `cut` bytes, or in one."""
    reader = HeadReader(limit)
    head: Head | None = None
    step = len(data) if cut is None else cut
    try:
        for start in range(0, len(data), max(step, 1)):
            head = reader.feed(data[start : start + step])
            if head is not None:
                # What a real reader would find behind the head: what this piece brought, and the rest.
                rest = data[start + step :]
                return attrs.evolve(head, trailing=head.trailing + rest)
    except HandshakeError as error:
        return error
    return head


def test_a_reader_keeps_nothing_of_a_head_that_it_has_returned() -> None:
    reader = HeadReader(LIMIT)
    head = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
    assert reader.feed(head[:20]) is None
    assert reader.feed(head[20:] + b"behind") is not None
    assert not reader._buffer


def head_of(data: bytes, **options: int) -> Head:
    head = read(data, **options)
    assert isinstance(head, Head), head
    return head


def refusal_of(data: bytes, **options: int) -> HandshakeError:
    error = read(data, **options)
    assert isinstance(error, HandshakeError), error
    return error


def verdict(result: Head | HandshakeError | None) -> object:
    """What must not depend on how the bytes were cut: a refusal's words may, but not its status."""
    return result.status if isinstance(result, HandshakeError) else result


# What is read


def test_a_head_is_its_method_target_version_and_fields_in_order() -> None:
    head = head_of(UPGRADE)
    assert (head.method, head.target, head.http_version) == ("GET", "/chat?room=1", "1.1")
    assert head.headers[:2] == (("host", "example.com:8000"), ("upgrade", "websocket"))
    assert len(head.headers) == 6
    assert head.trailing == b""


@pytest.mark.parametrize("cut", [None, 1, 7, 100])
def test_bytes_behind_the_head_are_kept(cut: int | None) -> None:
    assert head_of(UPGRADE + b"\x81\x85frames", cut=cut or 1000).trailing == b"\x81\x85frames"


def test_a_reader_knows_whether_anything_has_arrived() -> None:
    reader = HeadReader(LIMIT)
    assert not reader.started
    assert reader.feed(b"G") is None
    assert reader.started


def test_fields_may_repeat_and_hold_latin_1_and_nothing() -> None:
    head = head_of(
        b"GET / HTTP/1.1\r\nHost: x\r\nA: 1\r\nA: 2\r\nB: \xe9t\xe9\r\nC:\r\nD:   padded \t \r\n\r\n"
    )
    assert head.headers[1:] == (("a", "1"), ("a", "2"), ("b", "été"), ("c", ""), ("d", "padded"))


def test_other_methods_and_http_1_0_are_heads_too() -> None:
    assert head_of(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").trailing == b"abc"
    assert head_of(b"HEAD / HTTP/1.0\r\n\r\n").http_version == "1.0"
    assert head_of(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").target == "*"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: magic\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
@pytest.mark.parametrize("cut", [1000, 1])
def test_what_is_no_request_is_refused_with_a_status(data: bytes, status: int, cut: int) -> None:
    error = refusal_of(data, cut=cut)
    assert error.status == status
    assert str(error)


@pytest.mark.parametrize("first", [b"\0", b" ", b"\x16", b"\x7f", b"\x88", b"\xff"])
def test_what_cannot_begin_a_request_is_refused_without_waiting_for_its_end(first: bytes) -> None:
    with pytest.raises(HandshakeError, match="illegal request line"):
        HeadReader(1000).feed(first)


@pytest.mark.parametrize("line", [b"\r\n", b"\n"])
@pytest.mark.parametrize("cut", [1000, 1, 2, 3])
def test_one_empty_line_before_the_request_is_passed_over_and_a_second_is_not(line: bytes, cut: int) -> None:
    assert head_of(line + UPGRADE, cut=cut) == head_of(UPGRADE)
    assert refusal_of(line * 2 + UPGRADE, cut=cut).status == 400
    assert read(line, cut=cut) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer s3cret\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer s3cret\0\r\n\r\n",
        b"GET /?s3cret \r\n\r\n",
    ],
)
def test_a_refusal_does_not_repeat_the_line_it_is_about(data: bytes) -> None:
    assert "s3cret" not in str(refusal_of(data))


def test_names_of_fields_are_not_interned_and_known_ones_are_shared() -> None:
    # An interned string lives for ever (since Python 3.12), and a stranger can think of many.
    first, second = (head_of(b"GET / HTTP/1.1\r\nHost: a\r\nX-Stranger-7f3a: b\r\n\r\n") for _ in range(2))
    assert first.headers[1][0] == second.headers[1][0] == "x-stranger-7f3a"
    assert first.headers[1][0] is not second.headers[1][0]
    assert first.headers[0][0] is second.headers[0][0]
    tabbed = head_of(b"GET / HTTP/1.1\r\nHost: a\r\nB: c\td\r\n\r\n")
    assert tabbed.headers[0][0] is first.headers[0][0]


# Its limits


@pytest.mark.parametrize("cut", [100_000, 1, 50])
def test_a_head_of_exactly_the_limit_is_read_and_one_byte_more_is_431(cut: int) -> None:
    assert head_of(UPGRADE, cut=cut, limit=len(UPGRADE)).method == "GET"
    assert refusal_of(UPGRADE, cut=cut, limit=len(UPGRADE) - 1).status == 431


@pytest.mark.parametrize("cut", [100_000, 1])
def test_what_is_behind_the_head_does_not_count(cut: int) -> None:
    assert head_of(UPGRADE + b"x" * 5000, cut=cut, limit=len(UPGRADE)).target == "/chat?room=1"


def test_a_head_without_end_is_refused_as_soon_as_it_is_too_long() -> None:
    reader = HeadReader(1000)
    for _ in range(100):
        assert reader.feed(b"x" * 10) is None
    with pytest.raises(HandshakeError, match="more than 1000 bytes") as caught:
        reader.feed(b"x" * 10)
    assert caught.value.status == 431


def fields(count: int, *, plain: bool = True) -> bytes:
    line = b"a: b\r\n" if plain else b"a: \t\r\n"
    return b"GET / HTTP/1.1\r\nHost: x\r\n" + line * (count - 1) + b"\r\n"


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("cut", [100_000, 1])
def test_a_head_of_as_many_fields_as_may_be_is_read_and_one_more_is_431(cut: int, plain: bool) -> None:
    def feed(data: bytes) -> Head | None:
        reader = HeadReader(LIMIT, 100)
        heads = [reader.feed(data[start : start + cut]) for start in range(0, len(data), cut)]
        return heads[-1]

    assert feed(fields(100, plain=plain)) is not None
    with pytest.raises(HandshakeError, match="more than 100 header fields") as caught:
        feed(fields(101, plain=plain))
    assert caught.value.status == 431


# Fuzz

tokens = st.text("abcdefgXYZ-!#$%&'*+.^_`|~019", min_size=1, max_size=12)
values = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=30
)
plain_values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=30)
line_ends = st.sampled_from(["\r\n"] * 20 + ["\n", "\r", "\r\n ", "\r\n\t", "\0", ""])
NAMES = ["Host", "Upgrade", "Connection", "Content-Length", "Transfer-Encoding", "Expect", "TE", "Cookie"]


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Something like a head, and now and then not quite."""
    method = draw(st.sampled_from(["GET", "GET", "HEAD", "POST", "get", "G ET", ""]) | tokens)
    target = draw(st.sampled_from(["/", "/a/b?c=d", "*", "http://x/y", "http://[", " ", ""]) | plain_values)
    version = draw(st.sampled_from(["HTTP/1.1"] * 6 + ["HTTP/1.0", "HTTP/2.0", "HTTP/9", "http/1.1", ""]))
    fields = draw(st.lists(st.tuples(st.sampled_from(NAMES) | tokens, plain_values | values), max_size=6))
    if draw(st.integers(0, 9)):
        fields.insert(0, ("Host", "example.com"))
    colons = st.sampled_from([": "] * 20 + [":", ":  ", " : ", ":\t", ""])
    lines = [f"{method} {target} {version}", *(f"{name}{draw(colons)}{value}" for name, value in fields), ""]
    text = "".join(line + draw(line_ends) for line in lines)
    return text.encode("latin-1") + draw(st.binary(max_size=10))


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A real head with a few bytes changed, left out or put in."""
    data = bytearray(UPGRADE)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["change", "leave out", "put in", "cut"])):
            case "change":
                data[at] = draw(st.integers(0, 255))
            case "leave out":
                del data[at]
            case "put in":
                data[at:at] = draw(
                    st.binary(max_size=5) | st.sampled_from([b"\r\n", b"\n", b"\r\n\r\n", b":"])
                )
            case _:
                del data[at:]
        if not data:
            return b""
    return bytes(data)


@settings(max_examples=400, deadline=None)
@given(data=st.binary(max_size=200) | heads() | mutations(), cut=st.integers(1, 60))
@example(data=b"\r\n", cut=1)
@example(data=b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", cut=7)
@example(data=b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x0bb\r\n\r\n", cut=3)
def test_any_bytes_in_any_pieces_are_a_head_or_our_refusal(data: bytes, cut: int) -> None:
    whole = read(data)
    assert verdict(read(data, cut=cut)) == verdict(whole)
    if isinstance(whole, HandshakeError):
        assert 400 <= whole.status <= 599
        encode_response(Response.error(whole.status, str(whole)))
    elif whole is not None:
        assert whole.target
        assert data.endswith(whole.trailing)


SMUGGLED = re.compile(
    rb"(?<!\r)\n|\r\n[ \t]|HTTP/1\.0\r\n(.*\r\n)*transfer-encoding:"
    rb"|^(content-length|transfer-encoding):(.*\r\n)+(content-length|transfer-encoding):"
    rb"|^content-length:[ \t]*([0-9]{19}|.*,)",
    re.IGNORECASE | re.MULTILINE,
)
"""Bare LF, obsolete folding, Transfer-Encoding on HTTP/1.0, the size of a body twice, or a list of sizes."""


@settings(max_examples=400, deadline=None)
@given(data=heads() | mutations())
def test_the_short_way_and_h11_read_the_same(data: bytes) -> None:
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    line = re.match(rb"\r?\n", data)
    asked = data if line is None else data[line.end() :]  # h11 does not pass over an empty line
    try:
        parser.receive_data(asked)
        event = parser.next_event() if asked and data != b"\r" else h11.NEED_DATA
    except h11.RemoteProtocolError:
        event = None
    ours = read(data)
    if event is None:
        assert isinstance(ours, HandshakeError)
    elif event is h11.NEED_DATA:
        # h11 waits for the end of a line that begins with a byte which no method has.
        assert isinstance(ours, HandshakeError) if asked[:1] >= b"\x7f" else ours is None
    elif isinstance(ours, HandshakeError):
        # What h11 lets through: DEL, which no field may hold (RFC 9110 §5.5), and what smugglers use.
        assert ours.status == 505 or b"\x7f" in data or re.search(SMUGGLED, asked)
    else:
        assert isinstance(event, h11.Request)
        if event.http_version.startswith(b"1."):
            assert isinstance(ours, Head)
            assert ours.method.encode() == event.method
            assert ours.target.encode() == event.target
            assert [(n.encode(), v.encode("latin-1")) for n, v in ours.headers] == list(event.headers)
            assert ours.trailing == parser.trailing_data[0]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
        ("Content-Length: 5\r\nContent-Length: 5", 400),
        ("Content-Length: 5\r\nContent-Length: 6", 400),
        ("Content-Length: 5, 5", 400),
        ("Content-Length: +5", 400),
        ("Content-Length: 0x5", 400),
        ("Content-Length: 5_0", 400),
        ("Content-Length: -1", 400),
        ("Content-Length:", 400),
        ("Content-Length : 5", 400),
        ("Content-Length: 99999999999999999999", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked, chunked", 400),
        ("Transfer-Encoding: chunked, identity", 400),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: gzip, chunked\r\nContent-Length: 5", 400),
        ("Transfer-Encoding: identity", 400),
        ('Transfer-Encoding: "chunked"', 400),
        ("Transfer-Encoding: x\r\n chunked", 400),
        ("Transfer-Encoding:\r\n chunked", 400),
        ("X: y\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding\t: chunked", 400),
        ("Transfer-Encoding: \x0bchunked", 400),
        ("Transfer-Encoding: chunked\0", 400),
    ],
)
@pytest.mark.parametrize("cut", [None, 1])
def test_a_body_whose_size_two_servers_may_read_differently_is_refused(
    lines: str, status: int, cut: int | None
) -> None:
    head = f"POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n".encode("latin-1")
    refused = read(head, cut=cut)
    assert isinstance(refused, HandshakeError)
    assert refused.status == status


def test_the_size_of_a_body_is_part_of_the_head() -> None:
    def size(lines: str, version: str = "1.1") -> int | None:
        return head_of(f"POST / HTTP/{version}\r\nHost: x\r\n{lines}\r\n".encode()).body_bytes

    assert size("") == 0
    assert size("Content-Length: 0\r\n") == 0
    assert size("content-length:\t007 \r\n") == 7
    assert size("Content-Length: 7\r\n", "1.0") == 7
    assert size("X: content-length: 7\r\n") == 0
    assert size("transfer-encoding: CHUNKED\r\n") is None
    refused = read(b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert isinstance(refused, HandshakeError)
    assert refused.status == 400


# Answers


def parse(data: bytes, *, method: bytes = b"GET") -> tuple[h11.Response, bytes]:
    """Read an answer with h11's client, which is strict."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target=b"/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    client.receive_data(b"")
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    return response, body


def test_an_answer_has_a_date_a_length_and_says_that_it_is_the_last() -> None:
    response, body = parse(encode_response(Response("tea?", 418, {"X-Pot": "short"})))
    fields = dict(response.headers)
    assert (response.status_code, response.reason, body) == (418, b"I'm a Teapot", b"tea?")
    assert fields[b"connection"] == b"close"
    assert fields[b"content-length"] == b"4"
    assert fields[b"content-type"] == b"text/plain; charset=utf-8"
    assert fields[b"x-pot"] == b"short"
    assert fields[b"date"].endswith(b" GMT")


def test_an_answer_to_head_is_the_same_without_the_body() -> None:
    response = Response("hello")
    whole, head = encode_response(response), encode_response(response, head_only=True)
    assert whole.endswith(b"hello")
    assert b"Content-Length: 5\r\n" in head
    assert parse(head, method=b"HEAD")[1] == b""


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_content_have_no_body_and_no_length(status: int) -> None:
    data = encode_response(Response("never seen", status))
    assert data.endswith(b"\r\n\r\n")
    assert b"Content-Length" not in data


def test_fields_that_are_the_servers_to_set_are_not_set_twice() -> None:
    fields = {"Content-Length": "99", "Date": "now", "Transfer-Encoding": "chunked", "connection": "Close"}
    response, body = parse(encode_response(Response("hello", headers=fields)))
    names = [name for name, _ in response.headers]
    assert sorted(names) == [
        *(b"connection", b"content-length", b"content-type", b"date", b"x-content-type-options")
    ]
    assert body == b"hello"


@pytest.mark.parametrize("status", [200, 204, 304, 404, 500])
def test_every_answer_forbids_browsers_to_guess_its_type(status: int) -> None:
    response, _ = parse(encode_response(Response("x", status)))
    assert dict(response.headers)[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize("value", ["nosniff", ""])
def test_a_handler_that_says_whether_browsers_may_guess_is_not_contradicted(value: str) -> None:
    response, _ = parse(encode_response(Response("x", headers={"x-Content-type-OPTIONS": value})))
    fields = [text for name, text in response.headers if name == b"x-content-type-options"]
    assert fields == [value.encode()]


def test_a_status_without_a_phrase_is_encoded_all_the_same() -> None:
    response, _ = parse(encode_response(Response(status=499)))
    assert response.status_code == 499


# Reading from a stream


async def test_read_head_reads_up_to_the_head() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(UPGRADE[:50])
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send_the_rest() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await theirs.send_all(UPGRADE[50:] + b"more")

        head = await read_head(ours, HeadReader(LIMIT))
    assert head is not None
    assert head.trailing == b"more"


@pytest.mark.parametrize("said", [b"", b"GET /"])
async def test_read_head_returns_none_when_the_peer_leaves(said: bytes) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(said)
    await theirs.send_eof()
    reader = HeadReader(LIMIT)
    assert await read_head(ours, reader) is None
    assert reader.started == bool(said)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW"])
@pytest.mark.parametrize("length", ["", "0", "5", "05", "5 ", "+5", "5 5", "5,5", "9" * 18, "9" * 19, "None"])
def test_a_head_that_comes_whole_is_read_like_one_that_comes_in_bytes(method: str, length: str) -> None:
    """Most of the first kind are read by a regular expression, all of the second by h11."""
    field = "" if length == "None" else f"Content-Length: {length}\r\n"
    data = f"{method} /a?b HTTP/1.1\r\nHost: x\r\n{field}Accept: */*\r\n\r\nabcde".encode()
    end = data.index(b"\r\n\r\n") + 4

    def outcome(pieces: list[bytes]) -> object:
        reader = HeadReader(16_384, 100)
        try:
            for piece in pieces:
                head = reader.feed(piece)
                if head is not None:
                    return (head.method, head.target, head.http_version, head.headers, head.body_bytes)
        except HandshakeError as error:
            return error.status
        return None

    assert outcome([data]) == outcome([data[at : at + 1] for at in range(end)])
