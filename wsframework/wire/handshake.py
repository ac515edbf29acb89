"""The opening handshake (RFC 6455 §4), both sides, as values: requests and responses come parsed and leave
encoded, and nothing is read or sent here.

The server's side: `is_upgrade` tells a WebSocket request from a plain one, `read_upgrade` checks it or says
precisely what is wrong and with which status, `encode_101` accepts it. Callers choose the subprotocol and the
extensions. The HTTP parser has checked the rules of HTTP itself, such as a single Host.

The client's side is for tracing and tests: `build_request` writes a handshake, `judge_response` lists
everything that is wrong with the answer.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence

import attrs

from wsframework.errors import HandshakeError
from wsframework.tokens import is_token
from wsframework.wire.fields import (
    Extension,
    parse_extensions,
    parse_subprotocols,
    parse_token_list,
)

__all__ = [
    "GUID",
    "Upgrade",
    "accept_key",
    "build_request",
    "encode_101",
    "is_upgrade",
    "judge_response",
    "parse_extensions",
    "parse_subprotocols",
    "parse_token_list",
    "read_upgrade",
    "response_headers",
]

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""Part of the accept key: "unlikely to be used by network endpoints that do not understand the
WebSocket Protocol" (RFC 6455 §1.3)."""

VERSION = "13"

# "The server MUST send an Upgrade header field in a 426 response" (RFC 9110 §15.5.22), and "A sender of
# Upgrade MUST also send an "Upgrade" connection option" (§7.8).
_UPGRADE = (("Upgrade", "websocket"), ("Connection", "Upgrade"))

_PLAIN_101 = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n"
)
"""The answer to nearly every handshake."""

_Headers = Iterable[tuple[str, str]]
_NO_VALUE = re.compile(r"[^\t -~\x80-\xff]")


@attrs.frozen
class Upgrade:
    """What a valid opening handshake asks for.

    Attributes:
        key: its Sec-WebSocket-Key.
        subprotocols: what it offers, in its order of preference.
        extensions: what it offers, in its order of preference: (name, [(parameter, value or None), …]).
    """

    key: str
    subprotocols: tuple[str, ...] = ()
    extensions: tuple[Extension, ...] = ()


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (RFC 6455 §4.2.2, item 5.4)."""
    digest = hashlib.sha1(f"{key}{GUID}".encode()).digest()
    return binascii.b2a_base64(digest, newline=False).decode()


def is_upgrade(headers: _Headers) -> bool:
    """Whether a request asks for a WebSocket, validly or not.

    A Sec-WebSocket-Key alone counts: a proxy may have dropped the client's Upgrade, and a refusal that says
    so is more useful than a page.
    """
    for name, value in headers:
        name = name.lower()
        if name == "sec-websocket-key" or (name == "upgrade" and _names((value,), "websocket")):
            return True
    return False


def read_upgrade(method: str, http_version: str, headers: _Headers) -> Upgrade:
    """Check a client's opening handshake (RFC 6455 §4.2.1).

    Args:
        method: the request's method.
        http_version: as the HTTP parser returns it, such as "1.1".
        headers: names in any case, values decoded; a field may have several lines.

    Raises:
        HandshakeError: with the rule that is broken, the status, and what the answer must carry.
    """
    # "An HTTP/1.1 or higher GET request"
    if method != "GET":
        raise HandshakeError(
            f"a WebSocket handshake is a GET request, not {method} (RFC 6455 §4.1)", 405, (("Allow", "GET"),)
        )
    if http_version in ("1.0", "0.9"):
        # "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0 request" (RFC 9110
        # §7.8), so this is a request without one.
        raise _upgrade_required(f"a WebSocket handshake needs HTTP/1.1, not {http_version} (RFC 6455 §4.1)")
    fields = _collect(headers)
    # "An |Upgrade| header field containing the value "websocket", treated as an ASCII case-insensitive
    # value."
    if not _names(fields.get("upgrade", ()), "websocket"):
        raise _upgrade_required(
            "Upgrade: websocket is missing; does a proxy in between forward it? (RFC 6455 §4.2.1)"
        )
    # "A |Connection| header field that includes the token "Upgrade", treated as [...] case-insensitive"
    if not _names(fields.get("connection", ()), "upgrade"):
        raise _upgrade_required(
            "Connection: Upgrade is missing; does a proxy in between forward it? (RFC 6455 §4.2.1)"
        )
    version = _single(fields, "Sec-WebSocket-Version")
    if version != VERSION:
        # "the server MUST abort the WebSocket handshake [...] and instead send an appropriate HTTP error code
        # (such as 426 Upgrade Required) and a |Sec-WebSocket-Version| header field indicating the version(s)
        # the server is capable of understanding" (§4.2.2)
        found = "is missing" if version is None else f"is {version[:16]!r}"
        raise HandshakeError(
            f"Sec-WebSocket-Version {found}; this server speaks 13 (RFC 6455 §4.2.2)",
            426,
            (*_UPGRADE, ("Sec-WebSocket-Version", VERSION)),
        )
    # The bytes of a body would be taken for frames. "A client cannot begin using an upgraded protocol on the
    # connection until it has completely sent the request message" (RFC 9110 §7.8), and we read no bodies.
    sizes = fields.get("content-length")
    if "transfer-encoding" in fields or (sizes is not None and any(size.strip("0") for size in sizes)):
        raise HandshakeError("a WebSocket handshake has no body (RFC 9110 §7.8)")
    # Of two, one could be forged, and RFC 6454 §7.3 does not say which of them counts.
    if len(fields.get("origin", ())) > 1:
        raise HandshakeError("Origin appears more than once (RFC 6454 §7.3)")
    key = _single(fields, "Sec-WebSocket-Key")
    if key is None:
        raise HandshakeError("Sec-WebSocket-Key is missing (RFC 6455 §4.2.1)")
    if not _is_key(key):
        raise HandshakeError(f"Sec-WebSocket-Key {key[:64]!r} is not 16 bytes in base64 (RFC 6455 §4.2.1)")
    subprotocols = fields.get("sec-websocket-protocol")
    extensions = fields.get("sec-websocket-extensions")
    # Both "MAY appear multiple times in an HTTP request (which is logically the same as a single [...] header
    # field that contains all values)" (§11.3.2, §11.3.4).
    return Upgrade(
        key,
        () if subprotocols is None else tuple(parse_subprotocols(", ".join(subprotocols))),
        () if extensions is None else tuple(parse_extensions(", ".join(extensions))),
    )


def response_headers(
    upgrade_key: str, subprotocol: str | None, extensions: str | None
) -> list[tuple[str, str]]:
    """Return the header fields of the 101 that accepts a handshake (RFC 6455 §4.2.2, item 5).

    Args:
        upgrade_key: the client's Sec-WebSocket-Key.
        subprotocol: the one chosen of those it offered, or None.
        extensions: the value of Sec-WebSocket-Extensions, or None.
    """
    headers = [*_UPGRADE, ("Sec-WebSocket-Accept", accept_key(upgrade_key))]
    if subprotocol is not None:
        headers.append(("Sec-WebSocket-Protocol", subprotocol))
    if extensions is not None:
        headers.append(("Sec-WebSocket-Extensions", extensions))
    return headers


def encode_101(
    key: str, subprotocol: str | None = None, extensions: str | None = None, extra_headers: _Headers = ()
) -> bytes:
    """Encode the whole head of the response that accepts a handshake.

    Raises:
        ValueError: a name is not a token, or a value is not Latin-1 or has a control character such as CR.
    """
    if subprotocol is None and extensions is None and not extra_headers:
        return _PLAIN_101 % accept_key(key).encode()
    headers = [*response_headers(key, subprotocol, extensions), *extra_headers]
    return _encode_head("HTTP/1.1 101 Switching Protocols", headers)


def build_request(
    host: str,
    target: str,
    key: str,
    subprotocols: Sequence[str] = (),
    extensions: str | None = None,
    origin: str | None = None,
    headers: _Headers = (),
) -> bytes:
    """Encode a client's opening handshake (RFC 6455 §4.1).

    Args:
        host: the value of Host: a name or address, with the port unless it is the default one.
        target: path and query, such as "/rooms/1?x=y".
        key: 16 random bytes in base64.
        subprotocols: what to offer, in order of preference.
        extensions: the value of Sec-WebSocket-Extensions, or None.
        origin: the value of Origin, or None.
        headers: more fields, after all others.

    Raises:
        ValueError: the target contains a space or control character, a name is not a token, or a value is not
            Latin-1 or has a control character.
    """
    if not target.isascii() or not target.isprintable() or " " in target or not target:
        raise ValueError(f"a request target is printable ASCII without spaces, not {target!r}")
    fields = [("Host", host), *_UPGRADE, ("Sec-WebSocket-Key", key), ("Sec-WebSocket-Version", VERSION)]
    if origin is not None:
        fields.append(("Origin", origin))
    if subprotocols:
        fields.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    if extensions is not None:
        fields.append(("Sec-WebSocket-Extensions", extensions))
    return _encode_head(f"GET {target} HTTP/1.1", [*fields, *headers])


def judge_response(
    status: int,
    headers: _Headers,
    key: str,
    offered_subprotocols: Sequence[str] = (),
    offered_extensions: Sequence[str] = (),
) -> list[str]:
    """List what is wrong with a server's answer to an opening handshake (RFC 6455 §4.1).

    Args:
        status: the response's status.
        headers: its header fields.
        key: the Sec-WebSocket-Key it answers.
        offered_subprotocols: the names that were offered.
        offered_extensions: the names of the extensions that were offered, without parameters.

    Returns:
        One sentence with its RFC section for each problem; empty if the connection is open.
    """
    if status != 101:
        return [f"The status is {status}, not 101, so no WebSocket was opened (RFC 6455 §4.1)."]
    fields = _collect(headers)
    problems = []
    if not _names(fields.get("upgrade", ()), "websocket"):
        problems.append("Upgrade does not say websocket (RFC 6455 §4.1, item 2).")
    if not _names(fields.get("connection", ()), "upgrade"):
        problems.append("Connection does not say Upgrade (RFC 6455 §4.1, item 3).")
    problems += _judge_accept(fields.get("sec-websocket-accept", []), key)
    problems += _judge_extensions(fields.get("sec-websocket-extensions"), offered_extensions)
    problems += _judge_subprotocol(fields.get("sec-websocket-protocol", []), offered_subprotocols)
    return problems


def _judge_accept(values: list[str], key: str) -> list[str]:
    if not values:
        return ["Sec-WebSocket-Accept is missing (RFC 6455 §4.1, item 4)."]
    # "The |Sec-WebSocket-Accept| header MUST NOT appear more than once in an HTTP response." (§11.3.3)
    if len(values) > 1:
        return ["Sec-WebSocket-Accept appears more than once (RFC 6455 §11.3.3)."]
    if values[0] != accept_key(key):
        return [
            f"Sec-WebSocket-Accept is {values[0]!r}, but this key asks for {accept_key(key)!r} "
            "(RFC 6455 §4.1, item 4)."
        ]
    return []


def _judge_extensions(values: list[str] | None, offered: Sequence[str]) -> list[str]:
    if values is None:
        return []
    try:
        names = [name for name, _ in parse_extensions(", ".join(values))]
    except HandshakeError as error:
        return [f"{error}."]
    return [
        f"The server uses the extension {name!r}, which was not offered (RFC 6455 §4.1, item 5)."
        for name in names
        if name not in offered
    ]


def _judge_subprotocol(values: list[str], offered: Sequence[str]) -> list[str]:
    # "MUST NOT appear more than once in an HTTP response" (§11.3.4)
    if len(values) > 1:
        return ["Sec-WebSocket-Protocol appears more than once (RFC 6455 §11.3.4)."]
    if values and values[0] not in offered:
        return [
            f"The server chose the subprotocol {values[0]!r}, which was not offered (RFC 6455 §4.1, item 6)."
        ]
    return []


def _collect(headers: _Headers) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for name, value in headers:
        name, value = name.lower(), value.strip(" \t")
        if name in fields:
            fields[name].append(value)
        else:
            fields[name] = [value]
    return fields


def _names(values: Iterable[str], option: str) -> bool:
    """Whether a list field has this element, in any case; what else it lists does not matter."""
    for value in values:
        value = value.lower()
        if value == option or option in [element.strip(" \t") for element in value.split(",")]:
            return True
    return False


def _single(fields: dict[str, list[str]], name: str) -> str | None:
    values = fields.get(name.lower())
    if values is None:
        return None
    # "MUST NOT appear more than once in an HTTP request" (§11.3.1, §11.3.5)
    if len(values) > 1:
        raise HandshakeError(f"{name} appears more than once (RFC 6455 §11.3)")
    return values[0]


def _is_key(key: str) -> bool:
    # "a base64-encoded [...] value that, when decoded, is 16 bytes in length"
    try:
        return len(key) == 24 and len(binascii.a2b_base64(key, strict_mode=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _upgrade_required(message: str) -> HandshakeError:
    return HandshakeError(message, 426, _UPGRADE)


def _encode_head(first_line: str, headers: _Headers) -> bytes:
    lines = [first_line]
    for name, value in headers:
        if not is_token(name):
            raise ValueError(f"{name!r} is not a header field name (RFC 9110 §5.1)")
        # A CR or LF here would let the value add header fields. It is not repeated: it may be a secret.
        if _NO_VALUE.search(value):
            raise ValueError(
                f"{name}: a header field value is Latin-1 without control characters (RFC 9110 §5.5)"
            )
        # Not formatted: an enum that is a str is formatted with the name of its class, which nothing checked.
        lines.append(": ".join((name, value)))
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
