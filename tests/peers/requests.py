"""Sixty requests as strangers write them, each as the pieces that are sent, and what each server is to say.

The application reads the body, and answers 200 with the method, the target's path and the body's length.
"""

from __future__ import annotations

import attrs

__all__ = ["REQUESTS", "Exchange"]

HOST = b"Host: x\r\n"


@attrs.frozen
class Exchange:
    """What is sent on one connection.

    Attributes:
        pieces: sent one after the other, with a pause between them.
        fin: whether our direction is closed after them.
    """

    pieces: tuple[bytes, ...]
    fin: bool = False


def get(*fields: bytes, target: bytes = b"/", method: bytes = b"GET", version: bytes = b"1.1") -> Exchange:
    head = b"%b %b HTTP/%b\r\n" % (method, target, version)
    return Exchange((head + b"".join(field + b"\r\n" for field in fields) + b"\r\n",))


def post(*fields: bytes, body: bytes = b"", fin: bool = False) -> Exchange:
    head = b"POST / HTTP/1.1\r\n" + HOST + b"".join(field + b"\r\n" for field in fields) + b"\r\n"
    return Exchange((head + body,), fin)


def raw(*pieces: bytes, fin: bool = False) -> Exchange:
    return Exchange(pieces, fin)


CHUNKED = b"Transfer-Encoding: chunked"
WHOLE = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
AGAIN = b"GET /again HTTP/1.1\r\nHost: x\r\n\r\n"

REQUESTS: dict[str, Exchange] = {
    # Ordinary
    "get": get(b"Host: x"),
    "head": get(b"Host: x", method=b"HEAD"),
    "options": get(b"Host: x", method=b"OPTIONS"),
    "query": get(b"Host: x", target=b"/a?b=c&b=d"),
    "escapes": get(b"Host: x", target=b"/%C3%A9%20x"),
    "http 1.0": get(b"Host: x", version=b"1.0"),
    "http 1.0 without host": get(version=b"1.0"),
    "absolute target": get(b"Host: x", target=b"http://x/a"),
    "close": get(b"Host: x", b"Connection: close"),
    "body": raw(WHOLE),
    "body in pieces": raw(WHOLE[:20], WHOLE[20:-2], WHOLE[-2:]),
    "empty body": post(b"Content-Length: 0"),
    "chunked": post(CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n"),
    "chunked in pieces": raw(
        b"POST / HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n\r\n3\r", b"\nab", b"c\r\n0\r\n\r\n"
    ),
    "chunk extension": post(CHUNKED, body=b"3;a=b\r\nabc\r\n0\r\n\r\n"),
    "trailer": post(CHUNKED, body=b"3\r\nabc\r\n0\r\nX-A: b\r\n\r\n"),
    "expect": post(b"Content-Length: 3", b"Expect: 100-continue", body=b"abc"),
    "two": raw(AGAIN + AGAIN),
    "two with bodies": raw(WHOLE + WHOLE),
    "body then get": raw(WHOLE + AGAIN),
    "byte by byte": raw(*(bytes([byte]) for byte in AGAIN)),
    # Heads that are odd and allowed
    "empty line before": raw(b"\r\n" + AGAIN),
    "blanks around a value": get(b"Host: x", b"X-A: \t b \t "),
    "empty value": get(b"Host: x", b"X-A:"),
    "latin-1 value": get(b"Host: x", b"X-A: \xe9"),
    "unknown method": get(b"Host: x", method=b"BREW"),
    "many fields": get(b"Host: x", *(b"X-%d: a" % number for number in range(90))),
    "host with port": get(b"Host: x:80"),
    "host ipv6": get(b"Host: [::1]:80"),
    # Heads that are wrong
    "no host": get(),
    "two hosts": get(b"Host: x", b"Host: y"),
    "host with a path": get(b"Host: x/y"),
    "host with userinfo": get(b"Host: a@x"),
    "blank before the colon": get(b"Host: x", b"X-A : b"),
    "folded field": get(b"Host: x", b"X-A: b\r\n c"),
    "blank before the first field": raw(b"GET / HTTP/1.1\r\n X-A: b\r\nHost: x\r\n\r\n"),
    "nul in a value": get(b"Host: x", b"X-A: a\0b"),
    "cr in a value": get(b"Host: x", b"X-A: a\rb"),
    "bare lf": raw(b"GET / HTTP/1.1\nHost: x\n\n"),
    "field without colon": get(b"Host: x", b"X-A"),
    "name that is no token": get(b"Host: x", b"X(A): b"),
    "http 2.0": get(b"Host: x", version=b"2.0"),
    "http 1.2": get(b"Host: x", version=b"1.2"),
    "lower-case http": raw(b"GET / http/1.1\r\nHost: x\r\n\r\n"),
    "two blanks in the line": raw(b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "no version": raw(b"GET /\r\nHost: x\r\n\r\n"),
    "target with a fragment": get(b"Host: x", target=b"/a#b"),
    "target that is not ascii": get(b"Host: x", target=b"/\xc3\xa9"),
    "long head": get(b"Host: x", b"X-A: " + b"a" * 100_000),
    "head cut off": raw(b"GET / HTTP/1.1\r\nHost:", fin=True),
    "tls hello": raw(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\0" * 160 + b"\r\n\r\n"),
    # What a smuggler writes
    "length and chunked": post(b"Content-Length: 3", CHUNKED, body=b"0\r\n\r\n" + AGAIN),
    "two lengths": post(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"),
    "the same length twice": post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"),
    "list of lengths": post(b"Content-Length: 3, 3", body=b"abc"),
    "signed length": post(b"Content-Length: +3", body=b"abc"),
    "hexadecimal length": post(b"Content-Length: 0x3", body=b"abc"),
    "huge length": post(b"Content-Length: " + b"9" * 30, body=b"abc"),
    "chunked on http 1.0": raw(
        b"POST / HTTP/1.0\r\nHost: x\r\n" + CHUNKED + b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    ),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "chunked not last": post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "identity": post(b"Transfer-Encoding: identity", body=b""),
    "chunked with a tab": post(b"Transfer-Encoding:\tchunked", body=b"0\r\n\r\n"),
    "xchunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "chunk size with a sign": post(CHUNKED, body=b"+3\r\nabc\r\n0\r\n\r\n"),
    "chunk size with 0x": post(CHUNKED, body=b"0x3\r\nabc\r\n0\r\n\r\n"),
    "chunk with bare lf": post(CHUNKED, body=b"3\nabc\n0\n\n"),
    "chunk that is longer": post(CHUNKED, body=b"3\r\nabcd\r\n0\r\n\r\n"),
    "huge chunk size": post(CHUNKED, body=b"f" * 30 + b"\r\nabc\r\n0\r\n\r\n"),
    "body cut off": post(b"Content-Length: 10", body=b"abc", fin=True),
    "chunk cut off": post(CHUNKED, body=b"3\r\nab", fin=True),
}
