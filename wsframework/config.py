"""All settings with numbers, each with its unit, its reason and its precedents.

This module has values only; other modules enforce them. Durations are in seconds, sizes in bytes, and None
means "no limit" where it is allowed.
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
            "an unlimited wait would keep a dead connection's resources without end"
        )


def _bits(most: int) -> Callable[[object, attrs.Attribute[Any], int], None]:
    def check(instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
        if value > most:
            raise ValueError(f"Limits.{attribute.name} must be {most} or less, not {value!r}")

    return check


@attrs.frozen(kw_only=True)
class Limits:
    """Limits on what a server and each of its connections may hold.

    Attributes:
        head_bytes: size of a request's head, the request line and the header fields. If it is exceeded: 431.
            16 KiB is the default of h11 and Node; aiohttp allows 8 KiB per line.
        head_fields: number of header lines. If it is exceeded: 431. Browsers send 10 to 20, and two proxies
            add about 10. Each line costs about as much as 100 bytes, however short it is. Apache, h2o, Envoy,
            gunicorn and Python's http.client allow 100; HAProxy 101, websockets 128, Node 2,000.
        body_bytes: size of an HTTP request's body. If it is exceeded: 413. It is counted, and memory used,
            only when a guard or handler asks for the body. 1 MiB is enough for forms, webhooks and GraphQL,
            and nginx's default.
        message_bytes: size of one message in bytes (not code points), checked on the wire and again while
            inflating. If it is exceeded: Close 1009. 1 MiB is also the default of trio-websocket and
            websockets.
        unread_bytes: messages that were received but not yet taken by the handler. If it is exceeded, the
            server stops reading from this peer, and TCP slows the peer down. Each message counts with the
            memory that it uses, after inflating, so a flood of empty messages is bounded too. One message,
            and the data of one read of at most 64 KiB, may be held beyond the limit.
        outbox_bytes: encoded frames that the socket has not taken yet. `send` waits for room below this
            limit. An empty outbox accepts one message of any size. 64 KiB is asyncio's high-water mark.
        connections: number of open connections, including those in their handshake, or None. If it is
            exceeded: 503. Several workers have them together, and may exceed the limit by one each. If the
            process may not open as many file descriptors, the server accepts fewer connections, and logs
            `server.connections_limited`.
        connections_per_address: number of connections from the addresses of one network, or None. If it is
            exceeded: 503. The default is None, because behind a reverse proxy that is not trusted all
            clients have one address. Behind one of `App(trusted_proxies=…)` each connection counts for the
            client that the proxy names, from the end of the request's head on. Connections over unix sockets
            and those of trusted proxies themselves are not counted. Each of several workers counts its own.
        ipv6_prefix_bits: size of such a network in IPv6, 1 to 128 bits. A provider assigns at least 64 bits,
            which is 2**64 addresses, to each customer (RFC 6177). An address that contains an IPv4 address
            (mapped, NAT64, 6to4, Teredo) counts as that one.
        ipv4_prefix_bits: size of such a network in IPv4, 1 to 32 bits.
        connection_age: for how many seconds a WebSocket connection may be open, or None. After it, give or
            take 10 % at random, `ws.draining` becomes true, and a second or two later the client gets Close
            1012, after which it should reconnect at once. So connections come back to a server that was added
            or restarted. gRPC has the same limit with the same jitter (MAX_CONNECTION_AGE).
        tls_handshakes: number of TLS handshakes in flight, from the client's first byte on, or None. If it
            is exceeded, the oldest is closed for each new one. A handshake in good faith takes two round
            trips. Each one that is held open uses about 45 KiB, so 1,000 use 45 MB.
        message_fragments: number of fragments in one message, or None. If it is exceeded: Close 1008.
            Autobahn sends 65,536. `message_bytes` bounds the memory of a message, and `unpaid_frames` the
            work for tiny fragments, so this limit is off by default.
        unpaid_frames: number of frames with little or no payload that a peer may have sent: empty and tiny
            fragments, pings, pongs and empty messages, or None. Each costs the server as much work as a
            frame with a payload, but its sender almost nothing. If it is exceeded: Close 1008. Frames with
            at least 16 bytes of payload, and messages in one frame that are not empty, are not counted;
            further payload lowers the count, and so does time, by 1/64 of the limit every second. So a
            thousand such frames a second are always allowed. 65,536 is the largest number of fragments that
            Autobahn uses. HTTP/2 servers, where such floods were first seen (CVE-2019-9512, -9518), allow far
            fewer.
        memberships: number of rooms that one connection may be a member of at once, or None. If it is
            exceeded: `TooManyRooms`, which closes with 1008 unless it is caught. In a room without other
            members, a membership takes about 2 KiB, with a `RedisEngine` 4 KiB, so 256 take as much as one
            message of `message_bytes`. Centrifugo allows 128.
        threads: number of HTTP handlers at once that are plain functions, each in a thread. Further ones wait
            for up to `Timeouts.http`, and then get a 503. A thread that was abandoned counts until it ends.
            Starlette and Trio have 40 as well.
        posts: number of functions that `Server.post` has taken from other threads and not called yet, or
            None. If it is exceeded: `PostRefused` for the thread that posts. It is reached when the threads
            post faster than the server can call. One takes about 0.5 KiB and its arguments.
    """

    head_bytes: int = attrs.field(default=16 * 1024, validator=_positive)
    head_fields: int = attrs.field(default=100, validator=_positive)
    body_bytes: int = attrs.field(default=1024 * 1024, validator=_positive)
    message_bytes: int = attrs.field(default=1024 * 1024, validator=_positive)
    unread_bytes: int = attrs.field(default=256 * 1024, validator=_positive)
    outbox_bytes: int = attrs.field(default=64 * 1024, validator=_positive)
    connections: int | None = attrs.field(default=20_000, validator=_positive)
    connections_per_address: int | None = attrs.field(default=None, validator=_positive)
    ipv6_prefix_bits: int = attrs.field(default=64, validator=[_positive, _bits(128)])
    ipv4_prefix_bits: int = attrs.field(default=32, validator=[_positive, _bits(32)])
    connection_age: float | None = attrs.field(default=None, validator=_positive)
    tls_handshakes: int | None = attrs.field(default=1000, validator=_positive)
    message_fragments: int | None = attrs.field(default=None, validator=_positive)
    unpaid_frames: int | None = attrs.field(default=65_536, validator=_positive)
    memberships: int | None = attrs.field(default=256, validator=_positive)
    threads: int = attrs.field(default=40, validator=_positive)
    posts: int | None = attrs.field(default=16_384, validator=_positive)


@attrs.frozen(kw_only=True)
class Timeouts:
    """Timeouts of the server's own waits, in seconds. For waits in your code, use cancel scopes.

    Attributes:
        handshake: from the accepted TCP connection to the end of the request's head, TLS included. After it:
            408. websockets also has 10 s.
        guard: all guards and given functions of a request together. After it: 503.
        http: one HTTP handler. After it: 503. 30 s, as in gunicorn, is longer than a reader waits for a page,
            and shorter than a proxy does (nginx: 60 s). If the client disconnects, guards and handlers of GET
            and HEAD are cancelled. A handler of another method runs on, up to this limit, so that its changes
            are not left incomplete. Code that resists its cancellation, such as a call in a thread, goes on
            longer, but its client gets the 503 within two seconds of the limit; so it is with `guard`.
            A mounted application has no such limit. There it is how long a client may take less than 240
            bytes per second of an answer that waits for it, and how long the application may go on with a
            request other than GET and HEAD whose client has left.
        body: how long a body that a guard or handler waits for may make no progress, which is 240 bytes per
            second at least. After it: 408. While somebody waits for it, `guard` and `http` stand still. The
            same holds for the pieces that a mounted application waits for.
        keep_alive: how long a connection may be idle between an HTTP answer and the client's next request.
            After it the connection is closed; 0 closes it after each answer. gunicorn also has 2 s, in which
            a page has asked for its parts; Node and uvicorn have 5 s. If a proxy in front keeps connections
            open, set this to more than the proxy's own limit, or it may send a request just when this is
            over.
        close: how long the end of a connection, which is the closing handshake and the end of TCP together,
            may make no progress. After it the transport is aborted, unless the peer has taken at least 240
            bytes per second of a message or an HTTP answer that was sent before: then the time starts again.
            So a slow reader gets a whole page, but cannot hold the connection with one byte every four
            seconds. Kestrel and IIS use the same rate. websockets waits 10 s for each of the two steps,
            browsers 2 s (Firefox: 10 s).
        disconnect_grace: how long a handler may run after its connection has ended. After it the handler is
            cancelled; 0 cancels it at once.
        last_words: when the peer's Close, or its protocol error, follows directly after messages, how long
            the server's Close frame waits for the handler to receive and answer these messages. Other
            servers close at once and lose the answers.
        drain: how long a stopping server waits for its handlers before it cancels them. 10 s is well below
            the 30 s after which many process managers kill.
        lifespan: how long the lifespans of an App under `run` may take to end after the drain. After it they
            are cancelled. Code that resists this is ended with the process a few seconds later.
    """

    handshake: float = attrs.field(default=10.0, validator=_finite)
    guard: float = attrs.field(default=10.0, validator=_finite)
    http: float = attrs.field(default=30.0, validator=_finite)
    body: float = attrs.field(default=5.0, validator=_finite)
    keep_alive: float = attrs.field(default=2.0, validator=_finite)
    close: float = attrs.field(default=5.0, validator=_finite)
    disconnect_grace: float = attrs.field(default=5.0, validator=_finite)
    last_words: float = attrs.field(default=1.0, validator=_finite)
    drain: float = attrs.field(default=10.0, validator=_finite)
    lifespan: float = attrs.field(default=5.0, validator=_finite)


@attrs.frozen(kw_only=True)
class Keepalive:
    """When the server pings a silent peer, and when it gives the peer up (RFC 6455 §5.5.2).

    Attributes:
        interval: seconds without a byte from the peer before it gets a ping, or None for no keepalive. 20 s
            is below the idle timeouts of common proxies (60 s) and NATs.
        timeout: seconds without a byte from the peer after that ping before the connection counts as lost.
            Time in which the server itself does not read does not count.
    """

    interval: float | None = attrs.field(default=20.0, validator=_positive)
    timeout: float = attrs.field(default=20.0, validator=_positive)


def _window_bits(instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
    # zlib's raw deflate cannot make a window of 8 bits: it silently uses 9 and the peer's inflate fails.
    if not 9 <= value <= 15:
        raise ValueError(f"Deflate.{attribute.name} must be from 9 to 15, not {value!r} (RFC 7692 §7.1.2)")


@attrs.frozen(kw_only=True)
class Deflate:
    """Compress messages with permessage-deflate (RFC 7692) for clients that offer it.

    Attributes:
        server_no_context_takeover: compress each message independently. The compression is worse, but the
            compressor uses no memory between messages.
        client_no_context_takeover: ask the client to do so.
        server_max_window_bits: size of the compressor's window, 9 to 15 (2**bits bytes).
        client_max_window_bits: largest window that the client may use, 9 to 15. Only a client that offers
            this parameter can be limited to less than 15.
        level: zlib's compression level, 0 to 9 (-1: zlib's default, 6).
        memory_level: zlib's memLevel, 1 to 9. Window 12 and level 5 use about 24 KiB per connection; zlib's
            defaults use 256 KiB for both directions. websockets has the same defaults.
        threshold_bytes: messages shorter than this are sent uncompressed.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = attrs.field(default=12, validator=_window_bits)
    client_max_window_bits: int = attrs.field(default=12, validator=_window_bits)
    level: int = attrs.field(default=-1, validator=attrs.validators.in_(range(-1, 10)))
    memory_level: int = attrs.field(default=5, validator=attrs.validators.in_(range(1, 10)))
    threshold_bytes: int = attrs.field(default=64, validator=_not_negative)
