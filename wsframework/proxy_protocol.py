r"""The PROXY protocol, versions 1 and 2: what a proxy says of its client before the connection's first byte.

A proxy that passes on bytes, not requests, cannot write header fields. So it sends a header of its own in
front of them, a line of text or a binary block
(https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt):

    PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n
    \r\n\r\n\0\r\nQUIT\n  version and command  family  length  addresses  TLVs …

What follows belongs to TLS, or to HTTP. It must stay in the socket, where OpenSSL looks for it, so the reader
says how many bytes may be read next.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

import attrs

from wsframework.authority import parse_address
from wsframework.errors import HandshakeError
from wsframework.request import Address

__all__ = ["ProxyHeader", "ProxyHeaderReader"]

_TEXT = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

_LONGEST_LINE_BYTES = 107  # §2.1: "the worst case", with its CR LF
_FIXED_BYTES = 16  # of version 2: all before the addresses

_PORT = "(0|[1-9][0-9]{0,4})"
_LINE = re.compile(
    rf"PROXY (?:(UNKNOWN)(?: .*)?|TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) {_PORT} {_PORT})\r\n"
)

_LOCAL, _PROXY = 0x20, 0x21
_ADDRESSES = {0x11: 12, 0x21: 36, 0x31: 216}
"""TCP over IPv4, TCP over IPv6, a unix stream socket: bytes of both addresses and ports."""

_TLV_SSL = 0x20
_CLIENT_SSL = 0x01


@attrs.frozen
class ProxyHeader:
    """What a proxy says of a connection.

    Attributes:
        source: the client's address; None if the proxy does not know it, or has none to tell.
        local: whether the connection is the proxy's own, for a health check for example.
        secure: whether the proxy says that the client's connection to it is TLS.
    """

    source: Address | None = None
    local: bool = False
    secure: bool = False


class ProxyHeaderReader:
    """Bytes in, one header out.

    Args:
        max_bytes: the most that a header of version 2 may have.
    """

    __slots__ = ("_buffer", "_max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._buffer = b""
        self._max_bytes = max_bytes

    @property
    def wants(self) -> int:
        """How many bytes may be read next: all of them will be the header's."""
        buffer = self._buffer
        if len(buffer) < len(_SIGNATURE):
            return len(_SIGNATURE) - len(buffer)  # fewer than the shortest line has
        if not buffer.startswith(_TEXT):
            return self._length - len(buffer)
        if buffer.endswith(b"\r"):
            return 1
        # The end of the line, and before it a space and a character for each value that is still to come.
        missing = 5 - buffer.count(b" ") if buffer.startswith(b"PROXY TCP") else 0
        return 2 + 2 * max(missing, 0)

    def feed(self, data: bytes) -> ProxyHeader | None:
        """Take at most as many bytes as are wanted, and return the header once it is whole.

        Raises:
            HandshakeError: it is none, or a malformed one.
        """
        self._buffer += data
        buffer = self._buffer
        if buffer.startswith(_TEXT[: len(buffer)]):
            if b"\n" in buffer and len(buffer) <= _LONGEST_LINE_BYTES:
                return _read_line(buffer)
            if len(buffer) >= _LONGEST_LINE_BYTES:
                raise HandshakeError(f"the PROXY line has more than {_LONGEST_LINE_BYTES} bytes")
            return None
        if not buffer.startswith(_SIGNATURE[: len(buffer)]):
            raise HandshakeError("it does not begin with a header of the PROXY protocol")
        if self._length > self._max_bytes:
            raise HandshakeError(f"the PROXY protocol's header has more than {self._max_bytes} bytes")
        return None if len(buffer) < self._length else _read_block(buffer)

    @property
    def _length(self) -> int:
        """Of a header of version 2, as far as that is known."""
        more = int.from_bytes(self._buffer[14:16], "big") if len(self._buffer) >= _FIXED_BYTES else 0
        return _FIXED_BYTES + more


def _read_line(line: bytes) -> ProxyHeader:
    found = _LINE.fullmatch(line.decode("latin-1"))
    if found is None:
        raise HandshakeError("the PROXY line is malformed")
    unknown, family, source, destination, *ports = found.groups()
    if unknown is not None:
        return ProxyHeader()
    addresses = [_address(text, family) for text in (source, destination)]
    if max(map(int, ports)) > 65535:
        raise HandshakeError("the PROXY line is malformed: there is no such port")
    return ProxyHeader(Address(addresses[0], int(ports[0])))


def _address(text: str, family: str) -> str:
    try:
        address = ipaddress.IPv4Address(text) if family == "4" else ipaddress.IPv6Address(text)
    except ValueError:
        raise HandshakeError(f"the PROXY line is malformed: there is no such IPv{family} address") from None
    return _text_of(address)


def _text_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    # An IPv4 address inside an IPv6 address is that address, as it is for our own sockets.
    return str(parse_address(str(address)))


def _read_block(block: bytes) -> ProxyHeader:
    command, family = block[12], block[13]
    if command == _LOCAL:
        return ProxyHeader(
            local=True
        )  # "the receiver MUST [...] discard the protocol block including the family"
    if command != _PROXY:
        raise HandshakeError("the PROXY protocol's header has an unknown version or command")
    body = block[_FIXED_BYTES:]
    if family == 0:
        try:
            return ProxyHeader(secure=_is_secure(body))
        except HandshakeError:
            # "The receiver should ignore address information" (§2.2), which may be anything here.
            return ProxyHeader()
    size = _ADDRESSES.get(family)
    if size is None:
        raise HandshakeError("the PROXY protocol's header has an unknown family, or one of datagrams")
    if len(body) < size:
        raise HandshakeError("the PROXY protocol's header ends within its addresses")
    secure = _is_secure(body[size:])
    if size == 216:
        return ProxyHeader(secure=secure)  # a client on the proxy's own machine: a path at most
    width = (size - 4) // 2
    source = ipaddress.ip_address(body[:width])
    port = int.from_bytes(body[2 * width : 2 * width + 2], "big")
    return ProxyHeader(Address(_text_of(source), port), secure=secure)


def _is_secure(tlvs: bytes) -> bool:
    secure = False
    for kind, value in _read_tlvs(tlvs):  # to the end: a malformed one may follow
        secure = secure or (kind == _TLV_SSL and _says_tls(value))
    return secure


def _read_tlvs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Read type, length and value of what follows the addresses (§2.2)."""
    place = 0
    while place < len(data):
        end = place + 3 + int.from_bytes(data[place + 1 : place + 3], "big")
        if place + 3 > len(data) or end > len(data):
            raise HandshakeError("the PROXY protocol's header ends within a TLV")
        yield data[place], data[place + 3 : end]
        place = end


def _says_tls(value: bytes) -> bool:
    # "struct pp2_tlv_ssl { uint8_t client; uint32_t verify; [...] }" (§2.2.6)
    if len(value) < 5:
        raise HandshakeError("the PROXY protocol's header has a malformed TLV")
    return bool(value[0] & _CLIENT_SSL)
