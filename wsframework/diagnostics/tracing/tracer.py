"""Trace one connection, step by step, from its URL to the end of TCP."""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime

import attrs
import trio

from wsframework.diagnostics.problems import (
    Problem,
    Unreachable,
    bad_tls,
    judge_opening,
    silent,
    unanswered,
)
from wsframework.diagnostics.reaching import Clock, Tell, reach
from wsframework.diagnostics.response import Response, read_body, read_response
from wsframework.diagnostics.steps import Step
from wsframework.diagnostics.target import Opening
from wsframework.diagnostics.tracing.certificates import read_certificate
from wsframework.diagnostics.tracing.channel import Channel, Ending
from wsframework.diagnostics.tracing.conversation import Conversation, Script
from wsframework.diagnostics.tracing.parting import Parting
from wsframework.diagnostics.tracing.steps import (
    Agreement,
    Diagnosis,
    RequestStep,
    ResponseStep,
    TLSOpened,
)
from wsframework.wire import (
    GUID,
    DeflateParameters,
    Deflater,
    Inflater,
    accept_key,
    agreed_deflate,
    build_request,
    parse_extensions,
)
from wsframework.wire.compression import MIN_ZLIB_WINDOW_BITS

__all__ = ["Plan", "trace"]

_DEFLATE_OFFER = "permessage-deflate; client_max_window_bits"
"""The offer that browsers send."""

_BODY_SECONDS = 1.0
"""How long to wait for the body of a refusal."""


@attrs.frozen(kw_only=True)
class Plan:
    """What to trace.

    Attributes:
        opening: where to connect, and what to send. Its timeout also limits each later wait for the server.
        deflate: whether to offer permessage-deflate.
        messages: texts to send.
        wait_seconds: how long to listen after the last message was sent.
    """

    opening: Opening
    deflate: bool = False
    messages: tuple[str, ...] = ()
    wait_seconds: float = 2.0


async def trace(plan: Plan, tell: Callable[[Step], None]) -> bool:
    """Make one connection, report each step as it happens, and return whether nothing was wrong.

    Raises:
        ValueError: a header field or a subprotocol may not be sent; no connection was made.

    Cancellation: the socket is closed; the server may see RST.
    """
    tracer = _Tracer(plan, tell)
    await tracer.run()
    return tracer.all_well


class _Tracer:
    def __init__(self, plan: Plan, tell: Tell) -> None:
        self._plan = plan
        self._opening = opening = plan.opening
        self._tell = tell
        self._clock = Clock()
        self._key = base64.b64encode(os.urandom(16)).decode()
        self._offer = _DEFLATE_OFFER if plan.deflate else None
        # Built before connecting, because it may raise.
        self._request = build_request(
            opening.target.host_header,
            opening.target.resource,
            self._key,
            opening.subprotocols,
            self._offer,
            headers=opening.headers,
        )
        self._ending: Ending | None = None
        self.all_well = True

    async def run(self) -> None:
        try:
            socket = await reach(self._opening.target, self._opening.timeout_seconds, self._clock, self._tell)
        except Unreachable as why:
            self._give_up(why)
            return
        limit = self._opening.timeout_seconds
        with socket:
            channel = Channel(socket)
            parting = Parting(channel, self._clock, self._tell, self._diagnose)
            clean = False
            try:
                await self._open_tls(channel)
                response = await self._open(channel)
                codecs = self._codecs(response)
            except Unreachable as why:
                self._give_up(why)
            else:
                conversation = Conversation(channel, codecs, self._clock, self._tell, self._diagnose)
                script = Script(self._plan.messages, self._plan.wait_seconds, limit)
                self._ending = await conversation.hold(script, response.rest)
                clean = conversation.clean
            await parting.part(self._ending, clean=clean, patience_seconds=limit)

    def _give_up(self, why: Unreachable) -> None:
        for problem in why.problems:
            self._diagnose(problem, fatal=True)

    def _diagnose(self, problem: Problem, fatal: bool = False) -> None:
        if problem.severity == "error":
            self.all_well = False
        self._tell(
            Diagnosis(
                at=self._clock.now(),
                problem=problem.name,
                sentence=problem.sentence,
                fatal=fatal,
                severity=problem.severity,
            )
        )

    # TLS

    async def _open_tls(self, channel: Channel) -> None:
        context, target = self._opening.tls, self._opening.target
        if context is None:
            return
        started = self._clock.now()
        limit = self._opening.timeout_seconds
        with trio.move_on_after(limit) as scope:
            try:
                tls = await channel.start_tls(context, target.host)
            except (ssl.SSLError, ssl.CertificateError, ConnectionError) as error:
                raise Unreachable(bad_tls(error, target.url)) from None
        if scope.cancelled_caught:
            raise Unreachable(silent("answer to the TLS handshake", limit))
        name, version, bits = tls.cipher() or ("", "", 0)
        der = tls.getpeercert(binary_form=True)
        self._tell(
            TLSOpened(
                at=self._clock.now(),
                version=tls.version() or version,
                cipher=name,
                bits=bits,
                alpn=tls.selected_alpn_protocol(),
                server_name=target.host,
                verified=context.verify_mode is ssl.CERT_REQUIRED,
                certificate=read_certificate(der, datetime.now(UTC)) if der else None,
                seconds=self._clock.now() - started,
            )
        )

    # The opening handshake

    async def _open(self, channel: Channel) -> Response:
        """Send the request, wait for the response, and report both.

        Raises:
            Unreachable: no response came, or it is not an upgrade.
        """
        lines = self._request.decode("latin-1").rstrip("\r\n").split("\r\n")
        sent_at = self._clock.now()
        self._tell(RequestStep(at=sent_at, lines=tuple(lines), key=self._key, bytes=len(self._request)))
        response = await self._exchange(channel)
        received_at = self._clock.now()
        accepted = response.status == 101
        body = "" if accepted else await self._read_body(channel, response)
        self._tell(
            ResponseStep(
                at=received_at,
                status=response.status,
                lines=response.lines,
                bytes=response.size,
                body=body,
                seconds=received_at - sent_at,
                agreement=self._agreement(response) if accepted else None,
            )
        )
        offered = ("permessage-deflate",) if self._offer else ()
        problems = judge_opening(
            response.status, response.headers, self._key, self._opening.subprotocols, offered, body
        )
        if problems:
            raise Unreachable(*problems)
        return response

    async def _exchange(self, channel: Channel) -> Response:
        limit = self._opening.timeout_seconds
        data = b""
        with trio.move_on_after(limit):
            await channel.send(self._request)
            while (response := read_response(data)) is None:
                more = await channel.receive()
                if isinstance(more, Ending):
                    self._ending = more
                    raise Unreachable(unanswered(data, reset=more is Ending.RESET))
                data += more
            return response
        raise Unreachable(
            silent("end of its answer's head" if data else "answer to the opening handshake", limit)
        )

    async def _read_body(self, channel: Channel, response: Response) -> str:
        data = response.rest
        body, complete = read_body(response, data)
        with trio.move_on_after(_BODY_SECONDS):
            while not complete:
                more = await channel.receive()
                if isinstance(more, Ending):
                    self._ending = more
                    break
                data += more
                body, complete = read_body(response, data)
        return body

    def _agreement(self, response: Response) -> Agreement:
        source = f"{self._key}{GUID}"
        expected = accept_key(self._key)
        accept = _field(response, "Sec-WebSocket-Accept")
        return Agreement(
            accept=accept,
            accept_input=source,
            accept_sha1=hashlib.sha1(source.encode()).hexdigest(),
            accept_expected=expected,
            accept_matches=accept == expected,
            subprotocols_offered=self._opening.subprotocols,
            subprotocol=_field(response, "Sec-WebSocket-Protocol"),
            extensions_offered=self._offer,
            extensions=_field(response, "Sec-WebSocket-Extensions"),
        )

    def _codecs(self, response: Response) -> tuple[Deflater | None, Inflater] | None:
        """Return permessage-deflate's two ends with the agreed parameters; None without compression.

        Raises:
            Unreachable: its parameters may not be accepted.
        """
        extensions = _field(response, "Sec-WebSocket-Extensions")
        if extensions is None:
            return None
        try:
            agreed = agreed_deflate(parse_extensions(extensions))
        except ValueError as error:
            raise Unreachable(
                Problem("extension.parameters", f"The server's answer is not acceptable: {error}.")
            ) from None
        return None if agreed is None else _client_codecs(agreed)


def _client_codecs(agreed: DeflateParameters) -> tuple[Deflater | None, Inflater]:
    inflater = Inflater(
        window_bits=agreed.server_max_window_bits, no_context_takeover=agreed.server_no_context_takeover
    )
    if agreed.client_max_window_bits < MIN_ZLIB_WINDOW_BITS:
        return None, inflater  # zlib cannot compress so; not compressing is always allowed (RFC 7692 §6)
    deflater = Deflater(
        window_bits=agreed.client_max_window_bits, no_context_takeover=agreed.client_no_context_takeover
    )
    return deflater, inflater


def _field(response: Response, name: str) -> str | None:
    values = [value for found, value in response.headers if found.lower() == name.lower()]
    return ", ".join(values) if values else None
