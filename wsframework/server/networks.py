"""The network of an address: addresses that probably belong to one client."""

from __future__ import annotations

import socket

from wsframework.config import Limits

__all__ = ["network_of"]

_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96 (RFC 4291 §2.5.5.2)
_NAT64 = b"\x00\x64\xff\x9b" + bytes(8)  # 64:ff9b::/96 (RFC 6052 §2.1)
_6TO4 = b"\x20\x02"  # 2002::/16 (RFC 3056 §2)
_TEREDO = b"\x20\x01\x00\x00"  # 2001::/32 (RFC 4380 §4)


def network_of(host: str, limits: Limits) -> str | bytes:
    """Return a value that is the same for all addresses of one network.

    An IPv6 address that contains an IPv4 address counts as the latter: the mapped form of dual-stack sockets,
    NAT64 (else all of IPv4 would be one network), 6to4 (whose holder has 65,536 networks of 64 bits) and
    Teredo (whose first 64 bits are those of a server). A link-local address is a network of its own, because
    its prefix is shared by all hosts of the link. A text that is not an address is returned unchanged.
    """
    if ":" not in host:
        if limits.ipv4_prefix_bits == 32:
            return host
        packed = _packed(socket.AF_INET, host)
        return host if packed is None else _ipv4(packed, limits)
    packed = _packed(socket.AF_INET6, host)
    if packed is None:
        return host
    if packed.startswith((_MAPPED, _NAT64)):
        return _ipv4(packed[12:], limits)
    if packed.startswith(_6TO4):
        return _ipv4(packed[2:6], limits)
    if packed.startswith(_TEREDO):
        return _ipv4(bytes(byte ^ 0xFF for byte in packed[12:]), limits)
    if packed[0] == 0xFE and packed[1] & 0xC0 == 0x80:  # fe80::/10
        return _prefix(packed, 128)
    return _prefix(packed, limits.ipv6_prefix_bits)


def _packed(family: int, host: str) -> bytes | None:
    try:
        return socket.inet_pton(family, host)
    except OSError:
        return None


def _ipv4(packed: bytes, limits: Limits) -> str | bytes:
    if limits.ipv4_prefix_bits == 32:
        return socket.inet_ntop(socket.AF_INET, packed)
    return _prefix(packed, limits.ipv4_prefix_bits)


def _prefix(packed: bytes, bits: int) -> bytes:
    # The family first, so that no network of one equals one of the other.
    size = len(packed)
    mask = (1 << size * 8) - (1 << size * 8 - bits)
    return bytes([size]) + (int.from_bytes(packed, "big") & mask).to_bytes(size, "big")
