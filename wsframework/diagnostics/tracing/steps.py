"""The steps of a trace from TLS to the end of TCP, one class each, in their usual order."""

from __future__ import annotations

import attrs

from wsframework.diagnostics.steps import Kernel, Step

__all__ = [
    "Agreement",
    "Certificate",
    "CloseHandshake",
    "Diagnosis",
    "Fin",
    "FrameStep",
    "MessageStep",
    "Payload",
    "RequestStep",
    "Reset",
    "ResponseStep",
    "TCPClosed",
    "TLSClosed",
    "TLSOpened",
]


@attrs.frozen(kw_only=True)
class Certificate:
    """A server's certificate.

    Attributes:
        subject: its common name, or an empty string.
        issuer: the issuer's common name.
        names: all host names and addresses that it is valid for.
        not_before: as ISO 8601, in UTC.
        not_after: the same.
        days_left: whole days until it expires; negative after that.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: str
    not_after: str
    days_left: int


@attrs.frozen(kw_only=True)
class TLSOpened(Step):
    """The TLS handshake is complete.

    Attributes:
        version: such as "TLSv1.3".
        cipher: the cipher suite.
        bits: the length of its key.
        alpn: the protocol agreed on, or None.
        server_name: the name that was asked for (SNI).
        verified: whether the certificate was checked; False with --insecure.
        certificate: the server's; None when it could not be read.
        seconds: how long the handshake took.
    """

    step = "tls.opened"

    version: str
    cipher: str
    bits: int
    alpn: str | None
    server_name: str
    verified: bool
    certificate: Certificate | None
    seconds: float


@attrs.frozen(kw_only=True)
class RequestStep(Step):
    """The opening handshake was sent.

    Attributes:
        lines: the head as it went out.
        key: its Sec-WebSocket-Key.
        bytes: the head's size.
    """

    step = "http.request"

    lines: tuple[str, ...]
    key: str
    bytes: int


@attrs.frozen(kw_only=True)
class Agreement:
    """What the answer to an opening handshake contains, and what it should contain.

    Attributes:
        accept: the Sec-WebSocket-Accept that came, or None.
        accept_input: our key and the GUID, which the value is computed from.
        accept_sha1: the SHA-1 of that, in hexadecimal.
        accept_expected: that in base64.
        accept_matches: whether it is the value that came.
        subprotocols_offered: the subprotocols that we offered.
        subprotocol: the server's choice, or None.
        extensions_offered: the value of the field that we sent, or None.
        extensions: the value of the field that the server sent, or None.
    """

    accept: str | None
    accept_input: str
    accept_sha1: str
    accept_expected: str
    accept_matches: bool
    subprotocols_offered: tuple[str, ...]
    subprotocol: str | None
    extensions_offered: str | None
    extensions: str | None


@attrs.frozen(kw_only=True)
class ResponseStep(Step):
    """The answer to the opening handshake came.

    Attributes:
        status: the HTTP status.
        lines: the head as it came.
        bytes: the head's size.
        body: the beginning of the body; empty when the WebSocket is open.
        seconds: since the request.
        agreement: what the answer agrees to; None when the status is not 101.
    """

    step = "http.response"

    status: int
    lines: tuple[str, ...]
    bytes: int
    body: str
    seconds: float
    agreement: Agreement | None


@attrs.frozen(kw_only=True)
class Payload:
    """The beginning of a payload or message.

    Attributes:
        text: as text, if it is UTF-8; None otherwise.
        hex: in hexadecimal.
        cut: whether there is more.
    """

    text: str | None
    hex: str
    cut: bool


@attrs.frozen(kw_only=True)
class FrameStep(Step):
    """A frame was sent or received (RFC 6455 §5.2).

    Attributes:
        direction: "sent" or "received".
        opcode: its number.
        name: "continuation", "text", "binary", "close", "ping", "pong", or "reserved".
        fin: whether it is its message's last frame.
        rsv: the three reserved bits that are set: 1 (compressed), 2, 3.
        masked: whether the payload came masked.
        masking_key: in hexadecimal, or None.
        length: the payload's bytes.
        header_bytes: the header's bytes, including the masking key.
        complete: False when the connection ended or failed inside the frame.
        payload: unmasked; that of a compressed message as it is on the wire.
        close_code: the code of a Close frame that has one; None otherwise.
        close_reason: the reason of a Close frame; None otherwise.
    """

    step = "frame"

    direction: str
    opcode: int
    name: str
    fin: bool
    rsv: tuple[int, ...]
    masked: bool
    masking_key: str | None
    length: int
    header_bytes: int
    complete: bool
    payload: Payload
    close_code: int | None
    close_reason: str | None


@attrs.frozen(kw_only=True)
class MessageStep(Step):
    """A message is complete that its frames do not show, because it is compressed or fragmented.

    Attributes:
        direction: "sent" or "received".
        kind: "text" or "binary".
        frames: the number of its frames.
        compressed: whether it is compressed on the wire.
        length: its bytes, before compressing or after inflating.
        payload: its beginning.
    """

    step = "message"

    direction: str
    kind: str
    frames: int
    compressed: bool
    length: int
    payload: Payload


@attrs.frozen(kw_only=True)
class CloseHandshake(Step):
    """How the closing handshake went (RFC 6455 §7.1).

    Attributes:
        first: who sent the first Close frame: "client", "server", or None when neither side did.
        sent_code: our close code; None when we sent no Close frame, 1005 when it had no code.
        received_code: the server's, in the same way.
        received_reason: the server's close reason.
        clean: whether both sides sent a Close frame.
    """

    step = "closing.handshake"

    first: str | None
    sent_code: int | None
    received_code: int | None
    received_reason: str
    clean: bool


@attrs.frozen(kw_only=True)
class TLSClosed(Step):
    """One side has ended TLS with close_notify (RFC 8446 §6.1).

    Attributes:
        direction: "sent" or "received".
    """

    step = "tls.closed"

    direction: str


@attrs.frozen(kw_only=True)
class Fin(Step):
    """One side has ended its half of the TCP connection.

    Attributes:
        direction: "sent" or "received".
        first: whether it was the first FIN of the two.
        states: of our socket, before and directly after, and then as it went on; empty where the kernel does
            not say.
    """

    step = "tcp.fin"

    direction: str
    first: bool
    states: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Reset(Step):
    """The TCP connection was ended by RST.

    Attributes:
        direction: "sent" or "received".
        state: of our socket afterwards, or None.
    """

    step = "tcp.reset"

    direction: str
    state: str | None


@attrs.frozen(kw_only=True)
class TCPClosed(Step):
    """The connection is over; only the kernels still know of it.

    Attributes:
        how: "fin" when both sides sent FIN, "reset", or "abandoned" when the peer's FIN did not come in time.
        first: who sent the first FIN: "client", "server", or None.
        time_wait: which ends this machine's kernel keeps in TIME_WAIT: "client", "server"; None where it does
            not say.
        kernel: what the kernel reported last, or None.
    """

    step = "tcp.closed"

    how: str
    first: str | None
    time_wait: tuple[str, ...] | None
    kernel: Kernel | None


@attrs.frozen(kw_only=True)
class Diagnosis(Step):
    """A problem was found.

    Attributes:
        problem: its name for programs, such as "accept.wrong".
        sentence: one plain sentence, with the section that applies.
        fatal: True when it is the reason that there is no connection.
        severity: "error" for a broken rule, "warning" for what is allowed but should not be.
    """

    step = "diagnosis"

    problem: str
    sentence: str
    fatal: bool = False
    severity: str = "error"
