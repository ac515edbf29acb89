"""Turn a request's head into an HTTP answer, or into all that a WebSocket connection begins with.

The same code serves all transports. It reads and writes no bytes, and waits only for the application's
decision.
"""

from __future__ import annotations

import logging

import attrs
import trio

from wsframework.authority import is_host_field
from wsframework.certificates import TLSEnd
from wsframework.errors import HandshakeError
from wsframework.forwarded import Client
from wsframework.headers import Headers
from wsframework.mounting import MountedAcceptance
from wsframework.observer import Observer
from wsframework.records import logger, record
from wsframework.request import Address, Body, Request, Response
from wsframework.server.http import Head
from wsframework.session import MISTAKE, OVERDUE, Acceptance, CrashResponse, Decide, Refusal
from wsframework.streamed import Streamed
from wsframework.wire import (
    DeflateParameters,
    Deflater,
    Inflater,
    Upgrade,
    accept_key,
    encode_101,
    is_upgrade,
    loggable_subprotocols,
    negotiate_deflate,
    read_upgrade,
    server_codecs,
)

__all__ = [
    "Circumstances",
    "Opening",
    "consider",
    "crowded_response",
    "draining_response",
    "late_response",
    "mistake_response",
]


@attrs.frozen(eq=False)
class Opening:
    """An accepted opening handshake.

    Attributes:
        request: what the client asked.
        acceptance: what the application decided.
        answer: the encoded 101.
        codecs: permessage-deflate's two ends, if it was agreed on.
        compression: its parameters then.
    """

    request: Request
    acceptance: Acceptance
    answer: bytes
    codecs: tuple[Deflater, Inflater] | None
    compression: DeflateParameters | None


@attrs.frozen(eq=False)
class Circumstances:
    """What a request's head does not say about it.

    Attributes:
        secure: whether the request came over TLS.
        remote: the client's address.
        local: the server's address.
        tls: what knows the client's certificate, if it was asked for one.
        client: what a trusted proxy says of its client; it goes before `secure` and the Host field.
        body: the request's body, if it has one.
    """

    secure: bool
    remote: Address
    local: Address
    tls: TLSEnd | None = None
    client: Client | None = None
    body: Body | None = None


async def consider(
    head: Head, circumstances: Circumstances, decide: Decide, observer: Observer
) -> Opening | Response | Streamed:
    """Check a head, have the application decide, and prepare the answer.

    Args:
        head: the request's head.
        circumstances: what else there is to know.
        decide: the application's decision.
        observer: is told of what is refused or answered.

    Cancellation: nothing is left behind.
    """
    # "A server MUST respond with a 400 [...] to any request message that contains [...] a Host header field
    # with an invalid field value" (RFC 9112 §3.2). The parser has checked that there is one.
    if not is_host_field(dict(head.headers).get("host", "")):
        wrong = HandshakeError("Host is not a name or an address with perhaps a port (RFC 9112 §3.2)")
        return _refuse(wrong, head, circumstances, observer)
    upgrade: Upgrade | None = None
    if is_upgrade(head.headers):
        if logger.isEnabledFor(logging.DEBUG):
            _log_request(head, circumstances.remote)
        try:
            upgrade = read_upgrade(head.method, head.http_version, head.headers)
        except HandshakeError as error:
            return _refuse(error, head, circumstances, observer)
    request, host = _request_of(head, circumstances, upgrade)
    # A target in absolute form, and a proxy, name the host in place of the field.
    if (host is not None or not head.target.startswith("/")) and not is_host_field(request.host):
        wrong = HandshakeError("the host in the target, or from the proxy, is not a name or an address")
        return _refuse(wrong, head, circumstances, observer)
    if upgrade is None:
        return await _answer(request, decide, observer)
    return await _open(request, upgrade, decide, observer)


def _refuse(error: HandshakeError, head: Head, circumstances: Circumstances, observer: Observer) -> Response:
    """Answer a request that is not valid, so that the application is not asked."""
    if is_upgrade(head.headers):
        observer.handshake_refused(circumstances.remote, error.status, str(error), None)
    return Response.error(error.status, str(error), error.headers)


def _request_of(
    head: Head, circumstances: Circumstances, upgrade: Upgrade | None
) -> tuple[Request, str | None]:
    """Return the request, and the host that a trusted proxy names."""
    secure, host = circumstances.secure, None
    if circumstances.client is not None:
        secure, host = circumstances.client.secure, circumstances.client.host
    request = Request(
        target=head.target,
        headers=Headers(head.headers),
        subprotocols=() if upgrade is None else upgrade.subprotocols,
        method=head.method,
        is_websocket=upgrade is not None,
        secure=secure,
        remote=circumstances.remote,
        local=circumstances.local,
        peer_certificate=circumstances.tls,
        forwarded_host=host,
        body=circumstances.body or b"",
    )
    return request, host


async def _answer(request: Request, decide: Decide, observer: Observer) -> Response | Streamed:
    """Have a plain HTTP request answered, or decided to be."""
    began = trio.current_time()
    decision = await decide(request)
    if isinstance(decision, Acceptance):
        raise TypeError(f"decide() accepted {request!r}, which is no opening handshake")
    if not isinstance(decision, Response):
        return decision
    _tell_crash(request, decision, observer)
    observer.request_answered(request, decision.status, len(decision.body), trio.current_time() - began)
    return decision


async def _open(request: Request, upgrade: Upgrade, decide: Decide, observer: Observer) -> Opening | Response:
    """Have an opening handshake accepted or refused."""
    decision = await decide(request)
    remote = request.remote
    if isinstance(decision, Response):
        _tell_crash(request, decision, observer)
        observer.handshake_refused(remote, decision.status, "", request)
        return decision
    if not isinstance(decision, Acceptance):
        raise TypeError(f"decide() has {request!r} streamed, which is an opening handshake")
    codecs = extensions = parameters = None
    if decision.compression is not None and upgrade.extensions:
        agreed = negotiate_deflate(decision.compression, upgrade.extensions)
        if agreed is not None:
            extensions, parameters = agreed
            codecs = server_codecs(parameters, decision.compression)
    if isinstance(decision, Refusal):
        observer.handshake_refused(remote, decision.status, f"Close {decision.frame}", request)
    elif logger.isEnabledFor(logging.DEBUG):
        record(
            logging.DEBUG,
            "handshake.accepted",
            remote=remote,
            key=upgrade.key,
            accept=accept_key(upgrade.key),
            subprotocol=decision.subprotocol,
            extensions=extensions,
        )
    # The request is kept as long as the connection.
    request.headers.pack()
    try:
        answer = encode_101(upgrade.key, decision.subprotocol, extensions, decision.headers)
    except Exception:  # of an `Accept` whose fields were changed; our caller answers
        observer.handshake_refused(remote, 500, "", request)
        if isinstance(decision, MountedAcceptance):
            decision.on_dropped()
        raise
    return Opening(request, decision, answer, codecs, parameters)


def _tell_crash(request: Request, decision: Response, observer: Observer) -> None:
    if isinstance(decision, CrashResponse):
        crashed = observer.guard_crashed if decision.where == "guard" else observer.handler_crashed
        crashed(request, decision.name, decision.take_exception())


def _log_request(head: Head, remote: Address) -> None:
    headers = Headers(head.headers)
    record(
        logging.DEBUG,
        "handshake.received",
        remote=remote,
        method=head.method,
        target=head.target,
        host=headers.get("host"),
        origin=headers.get("origin"),
        version=headers.get("sec-websocket-version"),
        subprotocols=loggable_subprotocols(headers.get("sec-websocket-protocol", "")) or None,
        extensions=headers.get("sec-websocket-extensions"),
        user_agent=headers.get("user-agent"),
    )


def draining_response() -> Response:
    """Return the answer of a server that is stopping."""
    return Response.error(503, "the server is shutting down", {"Retry-After": "5"})


def crowded_response() -> Response:
    """Return the answer to a connection over the limit."""
    return Response.error(503, "too many connections; try again later", {"Retry-After": "5"})


def late_response() -> Response:
    """Return the answer for code that takes too long."""
    return Response.error(503, OVERDUE)


def mistake_response() -> Response:
    """Return the answer to a request that cannot be answered because of a mistake in the program."""
    return Response.error(500, MISTAKE)
