"""Read the answer to an opening handshake, without rejecting one that is wrong."""

from __future__ import annotations

import re

import attrs

from wsframework.diagnostics.problems import Unreachable, endless, not_http

__all__ = ["MAX_HEAD_BYTES", "Response", "read_body", "read_response"]

MAX_HEAD_BYTES = 64 * 1024
"""Four times what wsframework's server accepts in a request."""

_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})(?: [^\r\n]*)?\r?$")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_BODY_BYTES = 4096
_LENGTH = re.compile(r"[0-9]{1,9}")


@attrs.frozen
class Response:
    """A response's head.

    Attributes:
        status: the status code.
        lines: all lines as they came.
        headers: names and values.
        size: the head's bytes, including the empty line.
        rest: what followed it.
    """

    status: int
    lines: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]
    size: int
    rest: bytes


def read_response(data: bytes) -> Response | None:
    """Return the response that the bytes begin with, or None while its head is not complete.

    Raises:
        Unreachable: this is not HTTP, or its head has no end.
    """
    first, newline, _ = data[:MAX_HEAD_BYTES].partition(b"\n")
    if not b"HTTP/".startswith(data[:5]) or (newline and not _STATUS_LINE.match(first)):
        raise Unreachable(not_http(data))
    end = _HEAD_END.search(data)
    if end is None:
        if len(data) > MAX_HEAD_BYTES:
            raise Unreachable(endless(len(data)))
        return None
    lines = tuple(line.rstrip("\r") for line in data[: end.start()].decode("latin-1").split("\n"))
    found = _STATUS_LINE.match(first)
    assert found is not None
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.append((name.strip(), value.strip()))
    return Response(int(found[1]), lines, tuple(headers), end.end(), data[end.end() :])


def read_body(response: Response, data: bytes) -> tuple[str, bool]:
    """Return the beginning of a body as text, and whether more bytes would not be shown.

    Args:
        response: the head.
        data: what followed it.
    """
    fields = {name.lower(): value for name, value in response.headers}
    if "chunked" in fields.get("transfer-encoding", "").lower():
        # The size of a chunk, in hexadecimal, stands before it (RFC 9112 §7.1).
        size, newline, chunk = data.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16) if re.match(rb"[0-9a-fA-F]{1,8}\b", size) else 0
        body, complete = chunk[:length], bool(newline) and len(chunk) >= length
        complete = complete or len(data) >= 2 * _BODY_BYTES  # a size that does not end
    else:
        # A length of more digits is as good as none: no more than the beginning is read.
        said = fields.get("content-length", "")
        length = int(said) if _LENGTH.fullmatch(said) else _BODY_BYTES
        body, complete = data[:length], len(data) >= length
    return body[:_BODY_BYTES].decode(errors="replace"), complete or len(body) >= _BODY_BYTES
