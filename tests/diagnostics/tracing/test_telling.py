"""Every step has its words."""

from __future__ import annotations

import attrs
import pytest

from wsframework.cli.story import lay_out
from wsframework.diagnostics.steps import ConnectFailed, Connecting, Resolved, Step
from wsframework.diagnostics.tracing.steps import (
    Agreement,
    Certificate,
    CloseHandshake,
    Diagnosis,
    Fin,
    FrameStep,
    MessageStep,
    Payload,
    Reset,
    ResponseStep,
    TCPClosed,
    TLSClosed,
    TLSOpened,
)

FRAME = FrameStep(
    at=0.0,
    direction="received",
    opcode=1,
    name="text",
    fin=True,
    rsv=(),
    masked=False,
    masking_key=None,
    length=2,
    header_bytes=2,
    complete=True,
    payload=Payload(text="hi", hex="6869", cut=False),
    close_code=None,
    close_reason=None,
)
CERTIFICATE = Certificate(
    subject="tea",
    issuer="Tea CA",
    names=("tea.example",),
    not_before="2026-01-01T00:00:00+00:00",
    not_after="2026-12-31T00:00:00+00:00",
    days_left=9,
)
TLS = TLSOpened(
    at=0.0,
    version="TLSv1.3",
    cipher="TLS_AES_256_GCM_SHA384",
    bits=256,
    alpn="http/1.1",
    server_name="tea.example",
    verified=True,
    certificate=CERTIFICATE,
    seconds=1.5,
)
CLOSING = CloseHandshake(
    at=0.0, first="client", sent_code=1000, received_code=1000, received_reason="", clean=True
)
AGREEMENT = Agreement(
    accept=None,
    accept_input="key",
    accept_sha1="00",
    accept_expected="AA==",
    accept_matches=False,
    subprotocols_offered=("a", "b"),
    subprotocol=None,
    extensions_offered=None,
    extensions="x-mine",
)
ANSWER = ResponseStep(
    at=0.0, status=101, lines=("HTTP/1.1 101 x",), bytes=9, body="", seconds=0, agreement=AGREEMENT
)
CLOSED = TCPClosed(at=0.0, how="fin", first="server", time_wait=(), kernel=None)


def lines(step: Step) -> list[str]:
    return [line.plain for line in lay_out(step)]


def words(step: Step) -> str:
    return " | ".join(line.strip() for line in lines(step))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (
            Resolved(at=0.0012, host="tea.example", addresses=("1.2.3.4:80", "[::1]:80"), is_address=False),
            "1.2 ms  NAME    tea.example is 1.2.3.4:80, [::1]:80",
        ),
        (
            Connecting(at=0.0, remote="1.2.3.4:80", state="SYN_SENT"),
            "| the kernel has the connection in SYN_SENT",
        ),
        (
            Connecting(at=0.0, remote="1.2.3.4:80", state="ESTABLISHED"),
            "the answer came before the call",
        ),
        (
            ConnectFailed(at=0.0, remote="a", error="timeout", syns=3),
            "no connection to a: timeout | the kernel has sent SYN 3",
        ),
        (
            ConnectFailed(at=0.0, remote="a", error="ECONNREFUSED", syns=1),
            "← RST from a: nothing listens there",
        ),
        (TLS, "TLSv1.3, TLS_AES_256_GCM_SHA384 (256 bits), ALPN http/1.1, agreed on in 1.50 s"),
        (TLS, "certificate of tea, signed by Tea CA; checked for tea.example | valid for tea.example"),
        (TLS, "valid from 2026-01-01 to 2026-12-31, 9 days left"),
        (attrs.evolve(TLS, verified=False, alpn=None), "(256 bits), agreed"),
        (attrs.evolve(TLS, verified=False), "NOT checked (--insecure)"),
        (attrs.evolve(TLS, certificate=None), "its certificate cannot be read; checked for"),
        (attrs.evolve(TLS, certificate=attrs.evolve(CERTIFICATE, days_left=-3)), "EXPIRED 3 days ago"),
        (attrs.evolve(TLS, certificate=attrs.evolve(CERTIFICATE, subject="")), "certificate of tea.example,"),
        (
            attrs.evolve(TLS, certificate=attrs.evolve(CERTIFICATE, subject="", names=(), issuer="")),
            "certificate of an unnamed subject, signed by an unnamed issuer",
        ),
        (
            ResponseStep(
                at=0.0,
                status=101,
                lines=("HTTP/1.1 101 x",),
                bytes=9,
                body="",
                seconds=0,
                agreement=AGREEMENT,
            ),
            ", and NONE came | subprotocol: offered a, b; the server took none "
            "| extensions: none offered, X-MINE used",
        ),
        (FRAME, '← Text (FIN) 2 bytes, not masked: "hi"'),
        (attrs.evolve(FRAME, fin=False, rsv=(1, 3)), "Text (no FIN RSV1 RSV3)"),
        (attrs.evolve(FRAME, complete=False), "not masked, INCOMPLETE"),
        (attrs.evolve(FRAME, length=1), "1 byte,"),
        (attrs.evolve(FRAME, name="reserved", opcode=11), "Reserved opcode 0xb"),
        (attrs.evolve(FRAME, payload=Payload(text=None, hex="00ff", cut=True)), ": 00 ff …"),
        (attrs.evolve(FRAME, payload=Payload(text="x" * 200, hex="", cut=False)), f'"{"x" * 80}" …'),
        (
            attrs.evolve(FRAME, name="close", close_code=4000, close_reason="tea"),
            '4000 "tea" (the application\'s own)',
        ),
        (attrs.evolve(FRAME, name="close", length=0), "0 bytes, not masked: without a code"),
        (
            MessageStep(
                at=0.0,
                direction="received",
                kind="text",
                frames=3,
                compressed=True,
                length=2,
                payload=FRAME.payload,
            ),
            'that was a text message of 2 bytes, in 3 frames and compressed: "hi"',
        ),
        (
            attrs.evolve(CLOSING, received_code=None, clean=False),
            "and the server sent none: NOT closed cleanly",
        ),
        (attrs.evolve(CLOSING, received_code=1005), "the server answered without a code: closed cleanly"),
        (attrs.evolve(CLOSING, first="server"), "the server sent Close 1000 first, we answered 1000"),
        (attrs.evolve(CLOSING, first="server", sent_code=None), "first, and we sent none"),
        (
            attrs.evolve(CLOSING, first="server", received_code=1013),
            "closed cleanly | a client should reconnect later, with growing pauses",
        ),
        (attrs.evolve(CLOSING, first=None), "neither side sent a Close frame"),
        (TLSClosed(at=0.0, direction="sent"), "TLS   → close_notify: we end"),
        (TLSClosed(at=0.0, direction="received"), "TLS   ← close_notify: the server ends"),
        (Fin(at=0.0, direction="sent", first=True, states=()), "TCP   → FIN: we end TCP first"),
        (
            Fin(at=0.0, direction="sent", first=True, states=("ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2")),
            "in ESTABLISHED, then FIN_WAIT1, then FIN_WAIT2",
        ),
        (
            Fin(at=0.0, direction="sent", first=False, states=("CLOSE_WAIT", "CLOSED")),
            "LAST_ACK in between was too",
        ),
        (Reset(at=0.0, direction="received", state="CLOSED"), "← RST: the connection ends at once"),
        (Reset(at=0.0, direction="received", state=None), "← RST: the connection ends at once"),
        (CLOSED, "the server sent FIN first, so TIME_WAIT is at its end"),
        (
            attrs.evolve(CLOSED, time_wait=("client", "server")),
            "TIME_WAIT is at our end and the server's end:",
        ),
        (attrs.evolve(CLOSED, how="reset"), "ended by RST"),
        (attrs.evolve(CLOSED, how="abandoned"), "closed without the server's FIN"),
        (Diagnosis(at=0.0, problem="x", sentence="It is wrong."), "WRONG   It is wrong."),
        (Diagnosis(at=0.0, problem="x", sentence="It is odd.", severity="warning"), "ODD     It is odd."),
    ],
)
def test_a_step_has_its_words(step: Step, expected: str) -> None:
    assert expected in words(step)


def test_a_long_body_is_shown_by_its_first_line() -> None:
    step = ResponseStep(
        at=0.0, status=500, lines=("HTTP/1.1 500 x",), bytes=9, body="one\ntwo", seconds=2, agreement=None
    )
    assert lines(step)[0].endswith("← HTTP/1.1 500 x (2.00 s)")
    assert lines(step)[1:] == ["", " " * 20 + "one …"]


def test_a_step_without_words_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="no words"):
        list(lay_out(Step(at=0)))


def test_a_client_that_closed_gets_no_advice() -> None:
    assert "reconnect" not in words(attrs.evolve(CLOSING, sent_code=1001, received_code=1001))
