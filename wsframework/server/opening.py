"""Turn a request's head into an HTTP answer, or into all that a WebSocket connection begins with.

The same code serves all transports. It reads and writes no bytes, and waits only for the application's
decision.
"""

from __future__ import annotations

import logging

import attrs

from wsframework.authority import is_host_field
from wsframework.certificates import TLSEnd
from wsframework.errors import HandshakeError
from wsframework.forwarded import Client
from wsframework.headers import Headers
from wsframework.observer import Observer
from wsframework.records import logger, record
from wsframework.request import Address, Request, Response
from wsframework.server.http import Head
from wsframework.session import MISTAKE, Acceptance, CrashResponse, Decide, Refusal
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

__all__ = ["Opening", "consider", "crowded_response", "draining_response", "mistake_response"]


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


async def consider(
    head: Head,
    decide: Decide,
    *,
    secure: bool,
    remote: Address,
    local: Address,
    observer: Observer,
    tls: TLSEnd | None = None,
    client: Client | None = None,
) -> Opening | Response:
    """Check a head, have the application decide, and prepare the answer.

    Args:
        head: the request's head.
        decide: the application's decision.
        secure: whether the request came over TLS.
        remote: the client's address.
        local: the server's address.
        observer: is told of what is refused.
        tls: what knows the client's certificate, if it was asked for one.
        client: what a trusted proxy says of its client; it goes before `secure` and the Host field.

    Cancellation: nothing is left behind.
    """
    # "A server MUST respond with a 400 [...] to any request message that contains [...] a Host header field
    # with an invalid field value" (RFC 9112 §3.2). The parser has checked that there is one.
    if not is_host_field(dict(head.headers).get("host", "")):
        return Response.error(400, "Host is not a name or an address with perhaps a port (RFC 9112 §3.2)")
    host = None
    if client is not None:
        secure, host = client.secure, client.host
    upgrade: Upgrade | None = None
    debug = logger.isEnabledFor(logging.DEBUG)
    if is_upgrade(head.headers):
        if debug:
            _log_request(head, remote)
        try:
            upgrade = read_upgrade(head.method, head.http_version, head.headers)
        except HandshakeError as error:
            observer.handshake_refused(remote, error.status, str(error), None)
            return Response.error(error.status, str(error), error.headers)
    request = Request(
        target=head.target,
        headers=Headers(head.headers),
        subprotocols=() if upgrade is None else upgrade.subprotocols,
        method=head.method,
        is_websocket=upgrade is not None,
        secure=secure,
        remote=remote,
        local=local,
        peer_certificate=tls,
        forwarded_host=host,
    )
    # A target in absolute form, and a proxy, name the host in place of the field.
    if (host is not None or not head.target.startswith("/")) and not is_host_field(request.host):
        return Response.error(400, "the host in the target, or from the proxy, is not a name or an address")
    decision = await decide(request)
    if isinstance(decision, Response):
        if isinstance(decision, CrashResponse):
            crashed = observer.guard_crashed if decision.where == "guard" else observer.handler_crashed
            crashed(request, decision.name, decision.take_exception())
        if upgrade is not None:
            observer.handshake_refused(remote, decision.status, "", request)
        return decision
    if upgrade is None:
        raise TypeError(f"decide() accepted {request!r}, which is no opening handshake")
    codecs = extensions = parameters = None
    if decision.compression is not None and upgrade.extensions:
        agreed = negotiate_deflate(decision.compression, upgrade.extensions)
        if agreed is not None:
            extensions, parameters = agreed
            codecs = server_codecs(parameters, decision.compression)
    if isinstance(decision, Refusal):
        observer.handshake_refused(remote, decision.status, f"Close {decision.frame}", request)
    elif debug:
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
    answer = encode_101(upgrade.key, decision.subprotocol, extensions, decision.headers)
    return Opening(request, decision, answer, codecs, parameters)


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


def mistake_response() -> Response:
    """Return the answer to a request that cannot be answered because of a mistake in the program."""
    return Response.error(500, MISTAKE)
