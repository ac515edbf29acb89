"""The HTTP part of a connection: one request head in, one answer out (RFC 9112), through h11.

There is no keep-alive and request bodies are not read: a connection either becomes a WebSocket or gets one
small answer and ends. `HeadReader` and `encode_response` do no I/O; `read_head` and `answer` do.
"""

from __future__ import annotations

from email.utils import formatdate

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


class HeadReader:
    """Bytes in, one request head out."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._received = 0
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=max_bytes)

    @property
    def started(self) -> bool:
        """Whether anything has arrived yet."""
        return self._received > 0

    def feed(self, data: bytes | bytearray) -> Head | None:
        """Take bytes and return the head once it is whole.

        Raises:
            HandshakeError: it is no HTTP/1.1 request, or too large; with the status of the answer.
        """
        self._received += len(data)
        try:
            self._parser.receive_data(bytes(data))
            event = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            raise _refusal(error, self._max_bytes) from None
        if event is h11.NEED_DATA:
            return None
        assert isinstance(event, h11.Request)
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
