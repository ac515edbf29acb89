"""The HTTP part of a connection: one request head in, one answer out (RFC 9112), through h11.

`HeadReader` and `encode_response` do no I/O; `read_head` does. Bodies are in `bodies`.

h11 takes 33 µs for a browser's head, which counts in a reconnect storm. So a head that arrives whole, and
that is beyond all doubt what a browser or a WebSocket library sends, is read by one regular expression in
6 µs. Whatever else it is, and nearly whatever is wrong with it, is h11's to say. It gets heads that are
whole, within the limits, and free of the characters that make it slow. What it accepts and another parser
may read differently is refused here.
"""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Sequence
from email.utils import formatdate

import attrs
import h11
import trio

from wsframework.errors import HandshakeError
from wsframework.request import Response, reason_phrase
from wsframework.tokens import TOKEN, read_length

__all__ = ["Head", "HeadReader", "encode_head", "encode_response", "is_persistent", "read_head"]

_READ_BYTES = 16 * 1024


@attrs.frozen
class Head:
    """A request's head, and the bytes that came right behind it.

    Attributes:
        headers: names in lower case, as h11 has them.
        trailing: the start of what follows: a body, the next request, or frames, when a client did not wait
            for our answer.
        body_bytes: the size of the body, 0 if there is none, or None for one that comes in chunks.
    """

    method: str
    target: str
    http_version: str
    headers: tuple[tuple[str, str], ...]
    trailing: bytes
    body_bytes: int | None = 0


# Fields that hold nothing but visible ASCII and single spaces inside: no line folding, no empty names, no
# control characters, no obs-text, nothing two parsers could disagree about.
_PLAIN_HEAD = re.compile(
    rb"(GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS) (/[!-~]*+) HTTP/1\.1\r\n"
    rb"((?:%b: ?(?:[!-~]++(?: [!-~]++)*+)?\r\n)++)\r\n" % TOKEN.encode()
)
_PLAIN_FIELD = re.compile(r"([^:]+): ?([^\r]*)\r\n")

_HEAD_END = re.compile(rb"\n\r?\n")

# What no head may hold (RFC 9110 §5.5, RFC 9112 §2.2). h11 says so too, but where one of these stands behind
# n spaces it takes n² steps to find out: 1.8 s for a head of 16 KiB.
_FORBIDDEN = re.compile(rb"[\0\x0b\x0c\x7f]|\r(?!\n)")

# What another parser between the client and us may read differently, so that a part of one request becomes
# another request (RFC 9112 §11.2). h11 accepts all of these.
_BARE_LF = re.compile(rb"(?<!\r)\n")
_FOLDED = re.compile(rb"\r\n[ \t]")  # "either reject the message" (RFC 9112 §5.2)
_FRAMING = re.compile(
    rb"^(content-length|transfer-encoding)[ \t]*:[ \t]*([^\r]*?)[ \t]*\r$", re.IGNORECASE | re.MULTILINE
)

# Every open connection keeps its request, so common field names share one string each. They are not interned,
# because since Python 3.12 the text that clients send would stay interned.
_NAMES = (
    "Host Connection Upgrade Origin User-Agent Accept Accept-Encoding Accept-Language Authorization Cache- "
    "Control Content-Length Content-Type Cookie DNT Forwarded Pragma Priority Referer Via Sec-Fetch-Dest "
    "Sec-Fetch-Mode Sec-Fetch-Site Sec-Fetch-User Sec-GPC Sec-WebSocket-Extensions Sec-WebSocket-Key Sec- "
    "WebSocket-Protocol Sec-WebSocket-Version Upgrade-Insecure-Requests X-Forwarded-For X-Forwarded-Host "
    "X-Forwarded-Port X-Forwarded-Proto X-Real-IP X-Request-ID"
)
_KNOWN = {name.lower(): name.lower() for name in _NAMES.split()}
_KNOWN |= {name: _KNOWN[name.lower()] for name in _NAMES.split()}

# Fields with rules of their own about repetition, bodies or trust: h11 checks them.
_NOT_PLAIN = frozenset({"transfer-encoding", "expect", "trailer", "te"})


def _known(name: str) -> str:
    name = name.lower()
    return _KNOWN.get(name, name)


def _read_plain(data: bytes, max_bytes: int, max_fields: float) -> Head | None:
    """Read a plain head that is whole; None when it is anything else."""
    found = _PLAIN_HEAD.match(data)
    if found is None or found.end() > max_bytes:
        return None
    fields = _PLAIN_FIELD.findall(found[3].decode("ascii"))
    if len(fields) > max_fields:
        return None
    headers = tuple([(_KNOWN.get(name) or _known(name), value) for name, value in fields])
    names = [name for name, _ in headers]
    # "A server MUST respond with a 400 to any HTTP/1.1 request message that lacks a Host header field and to
    # any [...] that contains more than one" (RFC 9112 §3.2): so those are left to h11.
    if names.count("host") != 1 or not _NOT_PLAIN.isdisjoint(names):
        return None
    size = 0
    if "content-length" in names:
        length = read_length(headers[names.index("content-length")][1])
        if names.count("content-length") > 1 or length is None:
            return None
        size = length
    method, target = found[1].decode("ascii"), found[2].decode("ascii")
    return Head(method, target, "1.1", headers, data[found.end() :], size)


class HeadReader:
    """Bytes in, one request head out.

    Args:
        max_bytes: the most that a head may have; an empty line before it does not count.
        max_fields: the most lines of header fields that it may have, or None.
    """

    __slots__ = ("_begun", "_buffer", "_max_bytes", "_max_fields", "_passed_over", "_searched", "_started")

    def __init__(self, max_bytes: int, max_fields: int | None = None) -> None:
        self._max_bytes = max_bytes
        self._max_fields = math.inf if max_fields is None else max_fields
        self._buffer = bytearray()
        self._searched = 0  # up to where there is no end of the head
        self._passed_over = False  # whether an empty line stood before the request
        self._begun = False  # whether the first byte of the request line is there
        self._started = False

    @property
    def started(self) -> bool:
        """Whether anything has arrived yet."""
        return self._started

    def feed(self, data: bytes | bytearray) -> Head | None:
        """Take bytes and return the head once it is whole.

        Raises:
            HandshakeError: it is no HTTP/1.1 request, or too large; with the status of the answer.
        """
        if not self._started and data:
            self._started = True
            head = _read_plain(bytes(data), self._max_bytes, self._max_fields)
            if head is not None:
                return head
        buffer = self._buffer
        buffer += data
        if not self._begun and not self._begin():
            return None
        found = _HEAD_END.search(buffer, self._searched)
        if (len(buffer) if found is None else found.end()) > self._max_bytes:
            raise HandshakeError(f"the request's head has more than {self._max_bytes} bytes", 431)
        if found is None:
            self._searched = max(0, len(buffer) - 2)
            return None
        data, trailing = bytes(buffer[: found.end()]), bytes(buffer[found.end() :])
        self._buffer = bytearray()
        # The request line, and the empty line at the end.
        if data.count(b"\n") - 2 > self._max_fields:
            raise HandshakeError(f"the request's head has more than {self._max_fields} header fields", 431)
        return _read_any(data, trailing)

    def _begin(self) -> bool:
        """Pass over one empty line; return whether a request line has begun."""
        # "a server that is expecting to receive and parse a request-line SHOULD ignore at least one empty
        # line (CRLF) received prior to the request-line" (RFC 9112 §2.2)
        buffer = self._buffer
        if not self._passed_over and buffer.startswith((b"\r\n", b"\n")):
            del buffer[: buffer.index(b"\n") + 1]
            self._passed_over = True
        if not buffer or (buffer == b"\r" and not self._passed_over):
            return False
        # Answered at once, because the end of such a head may never come: TLS on a port without, for example,
        # or a frame behind a request that was no handshake.
        if not ord(" ") < buffer[0] < 0x7F:
            raise HandshakeError("this is no HTTP/1.1 request: illegal request line")
        self._begun = True
        return True


def _read_any(data: bytes, trailing: bytes) -> Head:
    """Read a whole head, plain or not."""
    if _FORBIDDEN.search(data):
        raise HandshakeError("this is no HTTP/1.1 request: a forbidden control character (RFC 9110 §5.5)")
    if _BARE_LF.search(data):
        raise HandshakeError("this is no HTTP/1.1 request: a line without CR at its end (RFC 9112 §2.2)")
    if _FOLDED.search(data):
        raise HandshakeError("a header field goes on in a second line (RFC 9112 §5.2)")
    framing = [(name.lower(), value.lower()) for name, value in _FRAMING.findall(data)]
    _check_framing(framing)
    parser = h11.Connection(h11.SERVER)
    try:
        parser.receive_data(data)
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        # Without the line it is about: there may be a secret in it.
        what = str(error).partition(": bytearray(")[0]
        raise HandshakeError(f"this is no HTTP/1.1 request: {what}", error.error_status_hint) from None
    assert isinstance(event, h11.Request)
    version = event.http_version.decode("ascii")
    if not version.startswith("1."):
        raise HandshakeError(f"this server speaks HTTP/1.1, not HTTP/{version} (RFC 9110 §15.6.6)", 505)
    return Head(
        method=event.method.decode("ascii"),
        target=event.target.decode("ascii"),
        http_version=version,
        headers=tuple(
            (_known(name.decode("ascii")), value.decode("latin-1")) for name, value in event.headers
        ),
        trailing=trailing,
        body_bytes=_body_bytes(framing, version),
    )


def _check_framing(framing: list[tuple[bytes, bytes]]) -> None:
    """Check the fields that say where the body ends.

    Raises:
        HandshakeError: they say it in two ways, or in one that not everybody understands (RFC 9112 §6.3).
    """
    codings = [
        coding.strip(b" \t")
        for name, value in framing
        if name == b"transfer-encoding"
        for coding in value.split(b",")
    ]
    if codings and (codings[-1] != b"chunked" or codings.count(b"chunked") > 1):
        # Nobody can tell where such a body ends: "the server MUST respond with the 400 (Bad Request) status
        # code and then close the connection".
        raise HandshakeError("chunked is not the last transfer coding, and once (RFC 9112 §6.3)")
    if len(framing) > 1:
        raise HandshakeError("the size of the body is given twice (RFC 9112 §6.3)")
    if len(codings) > 1:
        raise HandshakeError("of transfer codings, only chunked is understood (RFC 9112 §6.1)", 501)


def _body_bytes(framing: list[tuple[bytes, bytes]], version: str) -> int | None:
    """Return the size of the body as `Head` has it.

    Raises:
        HandshakeError: it is not given as everybody understands it.
    """
    if not framing:
        return 0
    name, value = framing[0]
    if name == b"content-length":
        length = read_length(value.decode("latin-1"))
        if length is None:
            raise HandshakeError("Content-Length is no number of bytes (RFC 9110 §8.6)")
        return length
    if version != "1.1":
        raise HandshakeError("an HTTP/1.0 request has no Transfer-Encoding (RFC 9112 §6.1)")
    return None


async def read_head(stream: trio.abc.ReceiveStream, reader: HeadReader) -> Head | None:
    """Read up to the end of a request's head; None when the peer leaves before that.

    Raises:
        HandshakeError: it is no request, or too large.

    Cancellation:
        What was read is in `reader`.
    """
    while True:
        data = await stream.receive_some(_READ_BYTES)
        if not data:
            return None
        head = reader.feed(data)
        if head is not None:
            return head


def is_persistent(head: Head, response: Response | None = None) -> bool:
    """Whether a request, and its answer if it is known, let the connection go on (RFC 9112 §9.3)."""
    if head.http_version != "1.1":
        return False
    options = [value for name, value in head.headers if name == "connection"]
    if response is not None:
        options += response.headers.get_all("connection")
    return not any(option.strip(" \t").lower() == "close" for value in options for option in value.split(","))


@functools.lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def encode_response(response: Response, *, head_only: bool = False, persist: bool = False) -> bytes:
    """Encode an answer.

    Args:
        response: what to say.
        head_only: leave out the body: the request was HEAD (RFC 9110 §9.3.2).
        persist: whether the connection goes on; else the answer says that it ends.
    """
    # A 204 or 304 has no content, and a 204 must not even give its length (RFC 9110 §8.6).
    bodiless = response.status in (204, 304)
    own = {"content-length", "date", "transfer-encoding"}
    fields = [
        # Our "close" stands beside the "Upgrade" that a 426 names.
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in response.headers.pairs()
        if name.lower() not in own and (name.lower(), value.lower()) != ("connection", "close")
    ]
    size = None if bodiless else len(response.body)
    head = encode_head(response.status, fields, size, persist=persist)
    return head if head_only or bodiless else head + response.body


def encode_head(
    status: int,
    fields: Sequence[tuple[bytes, bytes]],
    size: int | None,
    *,
    persist: bool,
    chunked: bool = False,
) -> bytes:
    """Encode the head of an answer.

    Args:
        status: the status.
        fields: the application's fields, without those about the connection and the size.
        size: Content-Length, or None for no such field.
        persist: whether the connection goes on; else the answer says that it ends.
        chunked: whether the content comes in chunks.
    """
    names = {name.lower() for name, _ in fields}
    lines = [b"HTTP/1.1 %d %b" % (status, reason_phrase(status).encode("ascii"))]
    if b"date" not in names:
        lines.append(b"Date: " + _date(int(time.time())).encode("ascii"))
    if not persist:
        lines.append(b"Connection: close")
    if size is not None:
        lines.append(b"Content-Length: %d" % size)
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
    if b"x-content-type-options" not in names:
        # A browser that guesses what an answer is may run what a client wrote.
        lines.append(b"X-Content-Type-Options: nosniff")
    lines += [b"%b: %b" % field for field in fields]
    return b"\r\n".join([*lines, b"", b""])
