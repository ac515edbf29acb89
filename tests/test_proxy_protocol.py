"""What a proxy says of its client before the connection's first byte: headers in every shape and piece."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsframework.errors import HandshakeError
from wsframework.proxy_protocol import ProxyHeader, ProxyHeaderReader
from wsframework.request import Address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
MOST = 1000


def block(
    addresses: bytes = b"", tlvs: bytes = b"", *, command: int = 0x21, family: int = 0x11, length: int = -1
) -> bytes:
    body = addresses + tlvs
    size = len(body) if length < 0 else length
    return SIGNATURE + struct.pack("!BBH", command, family, size) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def ipv4(source: str, port: int) -> bytes:
    return ip_address(source).packed + ip_address("192.0.2.1").packed + struct.pack("!HH", port, 443)


def ipv6(source: str, port: int) -> bytes:
    return ip_address(source).packed + ip_address("2001:db8::f").packed + struct.pack("!HH", port, 443)


UNIX = b"/run/client".ljust(108, b"\0") + b"/run/proxy".ljust(108, b"\0")
TLS = tlv(0x20, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3"))
NO_TLS = tlv(0x20, b"\x06\0\0\0\0")
NOTHING = tlv(0x04, b"") + tlv(0xEA, bytes(300))


def read(stream: bytes, piece: int = MOST) -> tuple[ProxyHeader | None, bytes]:
    """Read a stream's header as it is read from a socket; return it and what is left."""
    reader, place = ProxyHeaderReader(MOST), 0
    while place < len(stream):
        assert reader.wants > 0
        data = stream[place : place + min(reader.wants, piece)]
        place += len(data)
        header = reader.feed(data)
        if header is not None:
            return header, stream[place:]
    return None, b""


HEADERS = [
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n", ProxyHeader(Address("203.0.113.9", 56324))),
    (b"PROXY TCP4 1.1.1.1 2.2.2.2 0 0\r\n", ProxyHeader(Address("1.1.1.1", 0))),
    (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        ProxyHeader(Address("255.255.255.255", 65535)),
    ),
    (b"PROXY TCP6 2001:DB8::1 ::1 7 443\r\n", ProxyHeader(Address("2001:db8::1", 7))),
    (b"PROXY TCP6 :: :: 1 2\r\n", ProxyHeader(Address("::", 1))),
    (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 7 443\r\n", ProxyHeader(Address("203.0.113.9", 7))),
    (
        b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n",
        ProxyHeader(Address(":".join(["ffff"] * 8), 65535)),
    ),
    (b"PROXY UNKNOWN\r\n", ProxyHeader()),
    (b"PROXY UNKNOWN 6.6.6.6 1.1.1.1 1 2\r\n", ProxyHeader()),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", ProxyHeader()),
    (block(ipv4("203.0.113.9", 7)), ProxyHeader(Address("203.0.113.9", 7))),
    (block(ipv4("203.0.113.9", 7), NOTHING), ProxyHeader(Address("203.0.113.9", 7))),
    (block(ipv4("203.0.113.9", 7), NOTHING + TLS), ProxyHeader(Address("203.0.113.9", 7), secure=True)),
    (block(ipv4("203.0.113.9", 7), NO_TLS + NOTHING), ProxyHeader(Address("203.0.113.9", 7))),
    (block(ipv6("2001:db8::1", 7), family=0x21), ProxyHeader(Address("2001:db8::1", 7))),
    (
        block(ipv6("::ffff:203.0.113.9", 7), TLS, family=0x21),
        ProxyHeader(Address("203.0.113.9", 7), secure=True),
    ),
    (block(UNIX, family=0x31), ProxyHeader()),
    (block(UNIX, TLS, family=0x31), ProxyHeader(secure=True)),
    (block(family=0), ProxyHeader()),
    (block(b"anything", family=0), ProxyHeader()),
    (block(b"", NOTHING + TLS, family=0), ProxyHeader(secure=True)),
    (block(b"", NO_TLS, family=0), ProxyHeader()),
    (block(b"", TLS + b"anything", family=0), ProxyHeader()),
    (block(command=0x20, family=0), ProxyHeader(local=True)),
    (block(ipv4("6.6.6.6", 7), TLS, command=0x20), ProxyHeader(local=True)),
    (block(b"anything", command=0x20, family=0x99), ProxyHeader(local=True)),
]


@pytest.mark.parametrize("following", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02", b"\r\n", b"\n"])
@pytest.mark.parametrize(("header", "value"), HEADERS)
def test_a_header_is_read_and_nothing_behind_it(header: bytes, value: ProxyHeader, following: bytes) -> None:
    for piece in (MOST, 7, 2, 1):
        assert read(header + following, piece) == (value, following)


@pytest.mark.parametrize(("header", "value"), HEADERS)
def test_half_a_header_is_none(header: bytes, value: ProxyHeader) -> None:
    for cut in range(len(header)):
        assert read(header[:cut]) == (None, b"")


@pytest.mark.parametrize("end", [b"\r\n", b"\r\n" * 60])
@pytest.mark.parametrize(
    "line",
    [
        b"",
        *(b"TCP4", b"TCP5 1.1.1.1 2.2.2.2 1 2", b"UDP4 1.1.1.1 2.2.2.2 1 2", b"unknown", b"UNKNOWNX"),
        *(
            b"TCP4 1.1.1.1",
            b"TCP4 1.1.1.1 2.2.2.2 1",
            b"TCP4 1.1.1.1 2.2.2.2 1 2 3",
            b"TCP4  1.1.1.1 2.2.2.2 1 2",
        ),
        *(
            b"TCP4 1.1.1 2.2.2.2 1 2",
            b"TCP4 01.1.1.1 2.2.2.2 1 2",
            b"TCP4 ::1 2.2.2.2 1 2",
            b"TCP6 1.1.1.1 ::1 1 2",
        ),
        *(b"TCP4 1.1.1.1 x 1 2", b"TCP6 ::1%lo ::1 1 2", b"TCP4 1.1.1.1 2.2.2.2 65536 2"),
        *(b"TCP4 1.1.1.1 2.2.2.2 1 99999", b"TCP4 1.1.1.1 2.2.2.2 01 2", b"TCP4 1.1.1.1 2.2.2.2 -1 2"),
        *(
            "TCP4 \u0661.1.1.1 2.2.2.2 1 2".encode(),
            b"TCP4 1.1.1.1 2.2.2.2 1 2\n",
            b"TCP4 1.1.1.1\t2.2.2.2 1 2",
        ),
        *(b"TCP4 1.1.1.1 2.2.2.2 1 2" + b" " * 90, b"UNKNOWN " + b"x" * 92, b"UNKNOWN\n"),
    ],
)
def test_a_malformed_line_is_refused(line: bytes, end: bytes) -> None:
    with pytest.raises(HandshakeError, match="PROXY line"):
        read(b"PROXY " + line + end)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (block(ipv4("1.1.1.1", 1), command=0x11), "version or command"),
        (block(ipv4("1.1.1.1", 1), command=0x22), "version or command"),
        (block(ipv4("1.1.1.1", 1), family=0x12), "family"),
        (block(ipv4("1.1.1.1", 1), family=0x41), "family"),
        (block(UNIX, family=0x32), "family"),
        (block(ipv4("1.1.1.1", 1)[:-1]), "within its addresses"),
        (block(ipv4("1.1.1.1", 1), family=0x21), "within its addresses"),
        (block(UNIX[:-1], family=0x31), "within its addresses"),
        (block(), "within its addresses"),
        (block(ipv4("1.1.1.1", 1), b"\x04"), "within a TLV"),
        (block(ipv4("1.1.1.1", 1), b"\x04\0"), "within a TLV"),
        (block(ipv4("1.1.1.1", 1), b"\x04\0\1"), "within a TLV"),
        (block(ipv4("1.1.1.1", 1), b"\x04\xff\xff" + bytes(100)), "within a TLV"),
        (block(ipv4("1.1.1.1", 1), TLS + b"\x04"), "within a TLV"),
        (block(ipv4("1.1.1.1", 1), tlv(0x20, b"\1\0\0\0")), "malformed TLV"),
        (block(length=MOST - 15), "more than 1000 bytes"),
        (block(length=65535, command=0x20), "more than 1000 bytes"),
        (b"GET / HTTP/1.1\r\n", "does not begin"),
        (b"\x16\x03\x01\x02\0\x01", "does not begin"),
        (b"PROXYS", "does not begin"),
        (b"\r\n\r\n\0\r\nQUIT\r", "does not begin"),
        (b"\r\n\r\nG", "does not begin"),
    ],
)
def test_a_malformed_header_is_refused(header: bytes, says: str) -> None:
    for piece in (MOST, 1):
        with pytest.raises(HandshakeError, match=says):
            read(header, piece)


@given(
    st.binary()
    | st.binary().map(lambda data: b"PROXY " + data)
    | st.builds(
        block,
        st.binary(),
        st.binary(),
        command=st.sampled_from([0x20, 0x21]),
        family=st.sampled_from([0, 0x11, 0x21, 0x31]),
        length=st.integers(-1, 2000),
    )
    | st.sampled_from([header for header, _ in HEADERS]).flatmap(
        lambda header: st.tuples(st.integers(0, len(header) - 1), st.binary(max_size=3)).map(
            lambda change: header[: change[0]] + change[1] + header[change[0] + 1 :]
        )
    ),
    st.integers(1, 40),
)
def test_no_bytes_do_anything_else_and_pieces_make_no_difference(stream: bytes, piece: int) -> None:
    def outcome(size: int) -> object:
        try:
            return read(stream, size)
        except HandshakeError:
            return "refused"

    assert outcome(piece) == outcome(MOST) == outcome(1)


def test_a_line_takes_few_reads() -> None:
    reader, stream, reads = (
        ProxyHeaderReader(MOST),
        b"PROXY TCP4 192.168.100.100 192.168.100.101 50000 8000\r\n",
        0,
    )
    while stream:
        wanted = reader.wants
        reads += 1
        reader.feed(stream[:wanted])
        stream = stream[wanted:]
    assert reads < 15
