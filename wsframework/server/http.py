"""The HTTP part of a connection: one request head in, one answer out (RFC 9112), through h11.

There is no keep-alive and request bodies are not read: a connection either becomes a WebSocket or gets one
small answer and ends. `HeadReader` and `encode_response` do no I/O; `read_head` does.

h11 takes 33 µs for a browser's head, which counts in a reconnect storm. So a head that arrives whole, and
that is beyond all doubt what a browser or a WebSocket library sends, is read by one regular expression in
6 µs. Whatever else it is, and whatever is wrong with it, is h11's to say.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from sys import intern

import attrs
import h11
import trio

from wsframework.errors import HandshakeError
from wsframework.request import Response, reason_phrase

__all__ = ["Head", "HeadReader", "encode_response", "read_head"]

_READ_BYTES = 16 * 1024


@attrs.frozen
class Head:
    """A request's head, and the bytes that came right behind it.

    Attributes:
        headers: names in lower case, as h11 has them.
        trailing: the start of what follows: frames, when a client did not wait for our answer.
    """

    method: str
    target: str
    http_version: str
    headers: tuple[tuple[str, str], ...]
    trailing: bytes


# A GET with fields that hold nothing but visible ASCII and single spaces inside: no line folding, no empty
# names, no control characters, no obs-text, nothing two parsers could disagree about.
_PLAIN_HEAD = re.compile(
    rb"GET (/[!-~]*+) HTTP/1\.1\r\n((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++: ?(?:[!-~]++(?: [!-~]++)*+)?\r\n)++)\r\n"
)
_PLAIN_FIELD = re.compile(r"([^:]+): ?([^\r]*)\r\n")

# Fields with rules of their own about repetition, bodies or trust: h11 checks them.
_NOT_PLAIN = frozenset({"content-length", "transfer-encoding", "expect", "trailer", "te"})


def _read_plain(data: bytes, max_bytes: int) -> Head | None:
    """Read a plain head that is whole; None when it is anything else."""
    found = _PLAIN_HEAD.match(data)
    if found is None or found.end() > max_bytes:
        return None
    fields = _PLAIN_FIELD.findall(found[2].decode("ascii"))
    # Interned, because every open connection keeps its request: ten names are half a kilobyte.
    headers = tuple([(intern(name.lower()), value) for name, value in fields])
    names = [name for name, _ in headers]
    # "A server MUST respond with a 400 to any HTTP/1.1 request message that lacks a Host header field and to
    # any [...] that contains more than one" (RFC 9112 §3.2): so those are left to h11.
    if names.count("host") != 1 or not _NOT_PLAIN.isdisjoint(names):
        return None
    return Head("GET", found[1].decode("ascii"), "1.1", headers, data[found.end() :])


class HeadReader:
    """Bytes in, one request head out."""

    __slots__ = ("_max_bytes", "_parser", "_received")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._received = 0
        self._parser: h11.Connection | None = None

    @property
    def started(self) -> bool:
        """Whether anything has arrived yet."""
        return self._received > 0

    def feed(self, data: bytes | bytearray) -> Head | None:
        """Take bytes and return the head once it is whole.

        Raises:
            HandshakeError: it is no HTTP/1.1 request, or too large; with the status of the answer.
        """
        first = self._received == 0
        self._received += len(data)
        if first:
            head = _read_plain(bytes(data), self._max_bytes)
            if head is not None:
                return head
        if self._parser is None:
            self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=self._max_bytes)
        try:
            self._parser.receive_data(bytes(data))
            event = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            raise _refusal(error, self._max_bytes) from None
        if event is h11.NEED_DATA:
            return None
        assert isinstance(event, h11.Request)
        if not event.http_version.startswith(b"1."):
            version = event.http_version.decode("ascii")
            raise HandshakeError(f"this server speaks HTTP/1.1, not HTTP/{version} (RFC 9110 §15.6.6)", 505)
        trailing = bytes(self._parser.trailing_data[0])
        if self._received - len(trailing) > self._max_bytes:
            # h11 counts only heads that come in pieces.
            raise HandshakeError(f"the request's head has more than {self._max_bytes} bytes", 431)
        return Head(
            method=event.method.decode("ascii"),
            target=event.target.decode("ascii"),
            http_version=event.http_version.decode("ascii"),
            headers=tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers),
            trailing=trailing,
        )


def _refusal(error: h11.RemoteProtocolError, max_bytes: int) -> HandshakeError:
    if error.error_status_hint == 431:
        return HandshakeError(f"the request's head has more than {max_bytes} bytes", 431)
    return HandshakeError(f"this is no HTTP/1.1 request: {error}", error.error_status_hint)


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


def encode_response(response: Response, *, head_only: bool = False) -> bytes:
    """Encode an answer that ends the connection.

    Args:
        response: what to say.
        head_only: leave out the body: the request was HEAD (RFC 9110 §9.3.2).
    """
    fields = [("Date", formatdate(usegmt=True)), ("Connection", "close")]
    # A 204 or 304 has no content, and a 204 must not even give its length (RFC 9110 §8.6).
    bodiless = response.status in (204, 304)
    if not bodiless:
        fields.append(("Content-Length", str(len(response.body))))
    own = {"content-length", "date", "transfer-encoding"}
    fields.extend(
        # Our "close" stands beside the "Upgrade" that a 426 names.
        (name, value)
        for name, value in response.headers.pairs()
        if name.lower() not in own and (name.lower(), value.lower()) != ("connection", "close")
    )
    lines = [f"HTTP/1.1 {response.status} {reason_phrase(response.status)}"]
    lines += [f"{name}: {value}" for name, value in fields]
    head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
    return head if head_only or bodiless else head + response.body
