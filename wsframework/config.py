"""Every number a user may want to change, with its unit, its reason and the precedents.

Values only: nothing here waits, counts or enforces. Durations are in seconds, sizes in bytes, and None
means "no limit" wherever it is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs

__all__ = ["Limits", "Timeouts", "Keepalive", "Deflate"]


def _positive(instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value > 0:
        raise ValueError(f"{type(instance).__name__}.{attribute.name} must be greater than 0, not {value!r}")


def _not_negative(instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value >= 0:
        raise ValueError(f"{type(instance).__name__}.{attribute.name} must be 0 or more, not {value!r}")


def _finite(instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    _not_negative(instance, attribute, value)
    if value is None or not math.isfinite(value):
        raise ValueError(
            f"{type(instance).__name__}.{attribute.name} must be a finite number of seconds, not {value!r}: "
            "a wait without an end would keep a dead connection's resources for ever"
        )


def _bits(most: int) -> Callable[[object, attrs.Attribute[Any], int], None]:
    def check(instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
        if value > most:
            raise ValueError(f"Limits.{attribute.name} must be {most} or less, not {value!r}")

    return check


@attrs.frozen(kw_only=True)
class Limits:
    """How much one server, and one connection, may hold.

    Attributes:
        head_bytes: the opening handshake's request line and header fields together. Past it: 431.
            16 KiB is h11's and Node's default; aiohttp allows 8 KiB a line.
        head_fields: the lines of its header fields. Past it: 431. A browser sends 10 to 20, and two proxies
            add perhaps 10. However short, each costs about as much as 100 bytes to read and to keep. 100 is
            what Apache, h2o, Envoy, gunicorn and Python's http.client have; HAProxy 101, websockets 128, Node
            2,000.
        message_bytes: one message, in bytes on the wire and again after inflating (never code points).
            Past it: Close 1009. 1 MiB, as trio-websocket and websockets have it.
        unread_bytes: messages that arrived and that the handler has not received yet. Past it the
            transport stops reading and TCP holds the peer back. A message counts as the memory it takes,
            after inflating, so a flood of empty ones is bounded too. One message may be held beyond it, and
            what one read of at most 64 KiB brought in.
        outbox_bytes: encoded frames the socket has not taken yet. `send` waits for room below it; a single
            message larger than this is taken when the outbox is empty. 64 KiB, as asyncio's high-water mark.
        connections: open connections in all, those still in their handshake included, or None. Past it: 503.
            A server takes fewer where the process may not have as many file descriptors, and logs
            `server.connections_limited` then.
        connections_per_address: the same for the addresses of one network, or None for no limit, which is the
            default because behind a reverse proxy all clients share one address. Past it: 503. Over a unix
            socket there are no addresses, and nothing is counted.
        ipv6_prefix_bits: how much of an IPv6 address says whose it is, 1 to 128. A provider gives each
            customer at least a network of 64 bits (RFC 6177), which is 2**64 addresses. An address that
            carries an IPv4 address (mapped, NAT64, 6to4, Teredo) counts as that one.
        ipv4_prefix_bits: the same of an IPv4 address, 1 to 32.
        tls_handshakes: TLS handshakes in flight, from the client's first byte on, or None. Past it the oldest
            of them is closed for the newest: two round trips are enough for a client of good faith, and each
            that is held open takes some 45 KiB, so 1,000 take 45 MB.
        message_fragments: fragments of one message, or None. Autobahn sends 65,536; each costs the peer at
            least two bytes, so `message_bytes` alone bounds memory and this only bounds time.
        unpaid_frames: how many frames that carry nothing a peer may be ahead: empty and tiny fragments,
            pings, pongs and empty messages. Each costs us as much work as one with a payload, and its sender
            next to nothing. Frames with 16 bytes of payload pay for themselves, as do messages in one frame
            however short, compressed or not; more payload pays for others, and a 64th of the number is
            forgiven every second: a thousand a second for ever. 65,536 are a message in Autobahn's most
            fragments, whatever they carry. Past it: Close 1008. None for no limit. Servers of HTTP/2, where
            such floods were found first (CVE-2019-9512, -9518), allow far fewer.
    """

    head_bytes: int = attrs.field(default=16 * 1024, validator=_positive)
    head_fields: int = attrs.field(default=100, validator=_positive)
    message_bytes: int = attrs.field(default=1024 * 1024, validator=_positive)
    unread_bytes: int = attrs.field(default=256 * 1024, validator=_positive)
    outbox_bytes: int = attrs.field(default=64 * 1024, validator=_positive)
    connections: int | None = attrs.field(default=20_000, validator=_positive)
    connections_per_address: int | None = attrs.field(default=None, validator=_positive)
    ipv6_prefix_bits: int = attrs.field(default=64, validator=[_positive, _bits(128)])
    ipv4_prefix_bits: int = attrs.field(default=32, validator=[_positive, _bits(32)])
    tls_handshakes: int | None = attrs.field(default=1000, validator=_positive)
    message_fragments: int | None = attrs.field(default=None, validator=_positive)
    unpaid_frames: int | None = attrs.field(default=65_536, validator=_positive)


@attrs.frozen(kw_only=True)
class Timeouts:
    """How long the server itself waits, in seconds. Callers bound their own waits with cancel scopes.

    Attributes:
        handshake: from the accepted TCP connection to the end of the request head, TLS included. 10 s, as
            websockets has it; past it 408 and the connection is closed.
        guard: how long guards together may take to decide. Past it: 503.
        http: how long an HTTP handler may take. Past it: 503. 30 s, as gunicorn has it: longer than a page's
            reader waits, and shorter than a proxy does (nginx: 60 s). A client that leaves cancels guards,
            and handlers of GET and HEAD; a handler of another method goes on up to this limit, because a
            webhook that is cancelled halfway has written half.
        close: how long the end of a connection may stand still: the closing handshake and the end of TCP
            together. Past it the transport is aborted, unless the peer has taken 240 bytes a second of what
            was sent before, a message or an HTTP answer, in this time: then it gets the time again. So a slow
            reader gets a whole page, and one byte every four seconds holds nothing. Kestrel and IIS ask for
            the same rate.
            websockets waits 10 s for each of the two, browsers 2 s (Firefox: 10 s).
        disconnect_grace: how long a handler may go on after its connection ended before its scope is
            cancelled; 0 cancels at once.
        last_words: how long our Close frame waits, when the peer's Close (or its protocol error) came right
            behind messages, for the handler to receive and answer those messages first. Other servers
            close at once and lose the answers.
        drain: how long a stopping server waits for its handlers before it cancels them. 10 s fits in the
            30 s that process managers commonly give before they kill.
        lifespan: how long the lifespans of an App that `run` serves may take to end, after the drain, before
            they are cancelled. What holds out against that is ended with the process, a few seconds later.
    """

    handshake: float = attrs.field(default=10.0, validator=_finite)
    guard: float = attrs.field(default=10.0, validator=_finite)
    http: float = attrs.field(default=30.0, validator=_finite)
    close: float = attrs.field(default=5.0, validator=_finite)
    disconnect_grace: float = attrs.field(default=5.0, validator=_finite)
    last_words: float = attrs.field(default=1.0, validator=_finite)
    drain: float = attrs.field(default=10.0, validator=_finite)
    lifespan: float = attrs.field(default=5.0, validator=_finite)


@attrs.frozen(kw_only=True)
class Keepalive:
    """When a quiet peer is asked whether it is still there (RFC 6455 §5.5.2).

    Attributes:
        interval: seconds without a byte from the peer before it gets a ping, or None for no keepalive.
            20 s is below the idle limits of common proxies (60 s) and NATs.
        timeout: seconds after that ping without a byte from the peer before the connection counts as lost.
            The clock stands still while we are the ones who do not read.
    """

    interval: float | None = attrs.field(default=20.0, validator=_positive)
    timeout: float = attrs.field(default=20.0, validator=_positive)


def _window_bits(instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
    # zlib's raw deflate cannot make a window of 8 bits: it silently uses 9 and the peer's inflate fails.
    if not 9 <= value <= 15:
        raise ValueError(f"Deflate.{attribute.name} must be from 9 to 15, not {value!r} (RFC 7692 §7.1.2)")


@attrs.frozen(kw_only=True)
class Deflate:
    """Offer permessage-deflate (RFC 7692) to clients that ask for it.

    Attributes:
        server_no_context_takeover: compress each message by itself. Costs ratio, saves the compressor's
            memory between messages.
        client_no_context_takeover: ask the same of the client.
        server_max_window_bits: the compressor's window, 9 to 15 (2**bits bytes).
        client_max_window_bits: the window we allow the client, 9 to 15; only a client that offers the
            parameter can be held to less than 15.
        level: zlib's compression level, 0 to 9 (-1: zlib's default, 6).
        memory_level: zlib's memLevel, 1 to 9. Window 12 and level 5 cost about 24 KiB a connection where
            zlib's defaults cost 256 KiB for both directions; websockets chose the same.
        threshold_bytes: messages shorter than this are sent uncompressed.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = attrs.field(default=12, validator=_window_bits)
    client_max_window_bits: int = attrs.field(default=12, validator=_window_bits)
    level: int = attrs.field(default=-1, validator=attrs.validators.in_(range(-1, 10)))
    memory_level: int = attrs.field(default=5, validator=attrs.validators.in_(range(1, 10)))
    threshold_bytes: int = attrs.field(default=64, validator=_not_negative)
