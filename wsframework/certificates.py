"""The certificate of a TLS client.

A server whose `ssl.SSLContext` asks for client certificates can tell its clients apart by them. What a
certificate says takes several kilobytes as Python objects, so it is read when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs

__all__ = ["Certificate", "TLSEnd", "read_certificate"]


@attrs.frozen
class Certificate:
    """A certificate that a client has shown, and that the server's `ssl.SSLContext` has verified.

    Attributes:
        der: the X.509 certificate itself, for a fingerprint, or for a library that reads DER.
        fields: what it says, as `ssl.SSLSocket.getpeercert` returns it: `subject`, `issuer`, `serialNumber`,
            `notBefore`, `notAfter`, `subjectAltName` and others.
    """

    der: bytes = attrs.field(repr=False)
    fields: Mapping[str, Any] = attrs.field(factory=dict, eq=False)

    @property
    def subject(self) -> Mapping[str, str]:
        """Whom it is about, such as `{"commonName": "Ada"}`; of a repeated attribute the last one counts."""
        return dict(attribute for names in self.fields.get("subject", ()) for attribute in names)


class TLSEnd(Protocol):
    """The server's end of a TLS connection, such as an `ssl.SSLSocket`."""

    def version(self) -> str | None:
        """Return the version of TLS; None once the connection has ended."""

    def getpeercert(self, binary_form: bool, /) -> Mapping[str, Any] | bytes | None:
        """Return the client's certificate, in DER or as a mapping; None if it has shown none."""


def read_certificate(end: TLSEnd) -> Certificate | None:
    """Return the client's certificate, or None if it has shown none.

    Raises:
        RuntimeError: the connection has ended.
    """
    if end.version() is None:
        raise RuntimeError(
            "the TLS connection has ended, and its certificate is gone: read request.peer_certificate while "
            "it is open, in a guard for example"
        )
    der, fields = end.getpeercert(True), end.getpeercert(False)
    return Certificate(der, fields) if isinstance(der, bytes) and isinstance(fields, Mapping) else None
