"""A plain HTTP request of a test, and its answer."""

from __future__ import annotations

import json
from typing import Any

import attrs
import h11
import trio

from wsframework.headers import Headers
from wsframework.testing.client import Link

__all__ = ["Answer", "Exchange"]


@attrs.frozen
class Answer:
    """A plain HTTP answer.

    Attributes:
        status: the HTTP status.
        headers: the header fields, looked up without regard to case.
        body: the content.
        crash: the exception of a handler, guard or given function, when that is why the status is 500.
    """

    status: int
    headers: Headers
    body: bytes
    crash: BaseException | None = None

    @property
    def text(self) -> str:
        """The content as UTF-8 text."""
        return self.body.decode()

    def json(self) -> Any:
        """Return the content as the value that its JSON stands for."""
        return json.loads(self.body)


class Exchange:
    """One request and its answer.

    Args:
        method: the HTTP method.
        target: path and query.
        fields: the header fields, Host among them.
        body: the content; `str` is sent as UTF-8.

    Attributes:
        question: the encoded request.
    """

    def __init__(self, method: str, target: str, fields: list[tuple[str, str]], body: str | bytes) -> None:
        data = body.encode() if isinstance(body, str) else body
        if data:
            fields = [*fields, ("Content-Length", str(len(data)))]
        self._parser = h11.Connection(h11.CLIENT)
        events: list[h11.Event] = [h11.Request(method=method, target=target, headers=fields)]
        events += [h11.Data(data=data)] if data else []
        self.question = b"".join([self._parser.send(event) or b"" for event in [*events, h11.EndOfMessage()]])

    async def read_answer(self, stream: trio.abc.ReceiveStream, link: Link) -> Answer:
        """Read the answer.

        Raises:
            h11.RemoteProtocolError: it is not valid HTTP/1.1.
        """
        status, fields, body = 0, Headers(), b""
        while True:
            match self._parser.next_event():
                case h11.NEED_DATA:
                    self._parser.receive_data(bytes(await stream.receive_some()))
                case h11.Response() as response:
                    status = response.status_code
                    raw = response.headers.raw_items()
                    fields = Headers([(name.decode("ascii"), value.decode("latin-1")) for name, value in raw])
                case h11.Data() as data:
                    body += data.data
                case h11.EndOfMessage() | h11.ConnectionClosed():
                    return Answer(status, fields, body, link.crash)
