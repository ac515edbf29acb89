"""Read names and dates from a certificate in DER (RFC 5280 §4.1).

Python's `ssl` decodes only certificates that it has verified, and a trace must show the others. This module
reads what a trace shows, and leaves out what it does not understand. It decides nothing: OpenSSL says whether
a certificate can be trusted.

    Certificate ::= SEQUENCE { tbsCertificate SEQUENCE {
        [0] version, serialNumber, signature, issuer Name, validity SEQUENCE { notBefore, notAfter },
        subject Name, subjectPublicKeyInfo, …, [3] extensions }, … }
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime

from wsframework.diagnostics.tracing.steps import Certificate

__all__ = ["read_certificate"]

_COMMON_NAME = bytes.fromhex("550403")
_ORGANIZATION = bytes.fromhex("55040a")
_ALTERNATIVE_NAMES = bytes.fromhex("551d11")

_OBJECT_IDENTIFIER, _OCTET_STRING, _UTC_TIME, _BMP_STRING = 0x06, 0x04, 0x17, 0x1E
_VERSION, _EXTENSIONS = 0xA0, 0xA3  # [0] and [3], explicit
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87  # [2] and [7], implicit


def read_certificate(der: bytes, now: datetime) -> Certificate | None:
    """Return the names and dates of a certificate, or None when it cannot be read.

    Args:
        der: the certificate.
        now: the time that "days left" counts from, with its time zone.
    """
    try:
        return _read(der, now)
    except (IndexError, ValueError):
        return None


def _read(der: bytes, now: datetime) -> Certificate:
    (_, certificate), *_ = _elements(der)
    (_, body), *_ = _elements(certificate)
    parts = list(_elements(body))
    if parts[0][0] == _VERSION:
        del parts[0]
    _, _, (_, issuer), (_, validity), (_, subject), _, *rest = parts
    not_before, not_after = (_time(tag, value) for tag, value in _elements(validity))
    return Certificate(
        subject=_name(subject),
        issuer=_name(issuer),
        names=tuple(name for tag, value in rest if tag == _EXTENSIONS for name in _alternative_names(value)),
        not_before=not_before.isoformat(),
        not_after=not_after.isoformat(),
        days_left=(not_after - now).days,
    )


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Split a sequence of elements: tag, length, value."""
    position = 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[position : position + size], "big")
            position += size
        if position + length > len(data):
            raise ValueError("an element is longer than the one around it")
        yield tag, data[position : position + length]
        position += length


def _name(value: bytes) -> str:
    """Return a Name's common name, or else its organization, or an empty string."""
    found: dict[bytes, str] = {}
    for _, attributes in _elements(value):
        for _, attribute in _elements(attributes):
            (_, kind), (tag, text) = _elements(attribute)
            found[kind] = text.decode("utf-16-be" if tag == _BMP_STRING else "utf-8", "replace")
    return found.get(_COMMON_NAME) or found.get(_ORGANIZATION, "")


def _time(tag: int, value: bytes) -> datetime:
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        # "Where YY is greater than or equal to 50, the year SHALL be interpreted as 19YY" (§4.1.2.5.1)
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _alternative_names(value: bytes) -> Iterator[str]:
    (_, extensions), *_ = _elements(value)
    for _, extension in _elements(extensions):
        parts = list(_elements(extension))
        if parts[0] != (_OBJECT_IDENTIFIER, _ALTERNATIVE_NAMES) or parts[-1][0] != _OCTET_STRING:
            continue
        (_, names), *_ = _elements(parts[-1][1])
        for tag, name in _elements(names):
            if tag == _DNS_NAME:
                yield name.decode("ascii", "replace")
            elif tag == _IP_ADDRESS:
                yield str(ipaddress.ip_address(name))
