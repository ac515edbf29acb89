"""Describe steps in English: what happened, and what it means.

Each step becomes a sentence with its layer and direction, and lines below it with details. Text from the peer
is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import singledispatch

import attrs

from wsframework.closes import CloseCode
from wsframework.diagnostics.close_codes import advice, meaning
from wsframework.diagnostics.steps import Connected, ConnectFailed, Connecting, Kernel, Resolved, Step
from wsframework.diagnostics.tracing.steps import (
    Agreement,
    CloseHandshake,
    Diagnosis,
    Fin,
    FrameStep,
    MessageStep,
    Payload,
    RequestStep,
    Reset,
    ResponseStep,
    TCPClosed,
    TLSClosed,
    TLSOpened,
)
from wsframework.records import escape_json

__all__ = ["Line", "tell"]

_OUT, _IN = "→", "←"
_SHOWN_CHARACTERS, _SHOWN_BYTES = 80, 32


@attrs.frozen
class Line:
    """One line of a step's description.

    Attributes:
        text: the sentence, without terminal control characters.
        layer: "NAME", "TCP", "TLS", "HTTP", "FRAME", "CLOSE", "WRONG" or "ODD" on a step's first line; empty
            on the lines below it.
        arrow: "→" for what we send, "←" for what comes, or an empty string.
    """

    text: str
    layer: str = ""
    arrow: str = ""


def tell(step: Step) -> list[Line]:
    """Return a step's description; its first line names the layer."""
    return [Line(text, layer, arrow) for layer, arrow, text in _blocks(step)]


_Block = tuple[str, str, str]


@singledispatch
def _blocks(step: Step) -> Iterator[_Block]:
    raise TypeError(f"there are no words for {step!r}")


def _below(line: str) -> _Block:
    return "", "", line


@_blocks.register
def _(step: Resolved) -> Iterator[_Block]:
    if step.is_address:
        yield "NAME", "", f"{step.host} is an address, so there is no name to resolve"
    else:
        yield "NAME", "", f"{step.host} is {', '.join(step.addresses)}"


@_blocks.register
def _(step: Connecting) -> Iterator[_Block]:
    yield "TCP", _OUT, f"SYN to {step.remote}, with our initial sequence number"
    if step.state is not None:
        at_once = "" if step.state == "SYN_SENT" else ": the answer came before the call returned"
        yield _below(f"the kernel has the connection in {step.state}{at_once}")


@_blocks.register
def _(step: ConnectFailed) -> Iterator[_Block]:
    if step.error == "ECONNREFUSED":
        yield "TCP", _IN, f"RST from {step.remote}: nothing listens there"
    else:
        yield "TCP", "", f"no connection to {step.remote}: {step.error}"
    if step.syns is not None and step.syns > 1:
        yield _below(f"the kernel has sent SYN {step.syns} times")


@_blocks.register
def _(step: Connected) -> Iterator[_Block]:
    yield (
        "TCP",
        _IN,
        f"SYN+ACK from {step.remote}, with its initial sequence number ({_milliseconds(step.seconds)})",
    )
    if step.kernel is not None:
        yield from map(_below, _options(step.kernel))
    yield _below(f"{_OUT} ACK, {step.local} to {step.remote}{_state(step.kernel)}")
    if step.kernel is None:
        yield _below("this system has no TCP_INFO, so states and round-trip times are not shown")
    else:
        kernel = step.kernel
        deviation = _milliseconds(kernel.round_trip_deviation)
        yield _below(f"round trip {_milliseconds(kernel.round_trip)} ± {deviation}, measured by the kernel")


def _state(kernel: Kernel | None) -> str:
    return "" if kernel is None else f": {kernel.state}"


def _options(kernel: Kernel) -> Iterator[str]:
    yield f"both SYNs agree on {', '.join(kernel.options) or 'no options'}"
    yield f"segments carry up to {kernel.segment_bytes} bytes"
    if kernel.send_window_scale is not None and kernel.receive_window_scale is not None:
        ours, theirs = 2**kernel.receive_window_scale, 2**kernel.send_window_scale
        yield f"windows count in units of {ours} bytes (ours) and {theirs} (theirs)"


@_blocks.register
def _(step: TLSOpened) -> Iterator[_Block]:
    took = _milliseconds(step.seconds)
    alpn = f", ALPN {step.alpn}" if step.alpn else ""
    yield "TLS", "", f"{step.version}, {step.cipher} ({step.bits} bits){alpn}, agreed on in {took}"
    certificate = step.certificate
    checked = f"checked for {escape_json(step.server_name)}" if step.verified else "NOT checked (--insecure)"
    if certificate is None:
        yield _below(f"its certificate cannot be read; {checked}")
        return
    subject = certificate.subject or (certificate.names[0] if certificate.names else "an unnamed subject")
    issuer = certificate.issuer or "an unnamed issuer"
    yield _below(f"certificate of {escape_json(subject)}, signed by {escape_json(issuer)}; {checked}")
    if certificate.names:
        yield _below(f"valid for {escape_json(', '.join(certificate.names))}")
    days = certificate.days_left
    left = f"{days} days left" if days >= 0 else f"EXPIRED {-days} days ago"
    yield _below(f"valid from {certificate.not_before[:10]} to {certificate.not_after[:10]}, {left}")


@_blocks.register
def _(step: RequestStep) -> Iterator[_Block]:
    first, *rest = step.lines
    yield "HTTP", _OUT, escape_json(first)
    for line in rest:
        yield _below(escape_json(line))


@_blocks.register
def _(step: ResponseStep) -> Iterator[_Block]:
    first, *rest = step.lines
    yield "HTTP", _IN, f"{escape_json(first)} ({_milliseconds(step.seconds)})"
    for line in rest:
        yield _below(escape_json(line))
    if step.body:
        lines = step.body.splitlines()
        yield _below("")
        yield _below(escape_json(lines[0][:200]) + (" …" if len(lines) > 1 or len(lines[0]) > 200 else ""))
    if step.agreement is not None:
        yield from map(_below, _judged(step.agreement))


def _judged(agreement: Agreement) -> Iterator[str]:
    yield ""
    yield "Sec-WebSocket-Accept shows that the server has read our key (RFC 6455 §4.2.2):"
    yield f"  key + GUID  {agreement.accept_input}"
    yield f"  SHA-1       {agreement.accept_sha1}"
    if agreement.accept_matches:
        came = "which is what came"
    elif agreement.accept is None:
        came = "and NONE came"
    else:
        came = f"but {escape_json(agreement.accept)} CAME"
    yield f"  base64      {agreement.accept_expected}, {came}"
    yield f"subprotocol: {_choice(agreement.subprotocol, ', '.join(agreement.subprotocols_offered))}"
    yield f"extensions: {_choice(agreement.extensions, agreement.extensions_offered or '')}"


def _choice(chosen: str | None, offered: str) -> str:
    if not offered:
        return f"none offered, {'none' if chosen is None else escape_json(chosen).upper()} used"
    return (
        f"offered {escape_json(offered)}; the server took {'none' if chosen is None else escape_json(chosen)}"
    )


@_blocks.register
def _(step: FrameStep) -> Iterator[_Block]:
    arrow = _OUT if step.direction == "sent" else _IN
    flags = " ".join([*(["FIN"] if step.fin else ["no FIN"]), *(f"RSV{bit}" for bit in step.rsv)])
    masked = f"masked with {step.masking_key}" if step.masked else "not masked"
    name = step.name if step.name != "reserved" else f"reserved opcode {step.opcode:#x}"
    size = f"{step.length} byte{'' if step.length == 1 else 's'}"
    incomplete = "" if step.complete else ", INCOMPLETE"
    text = f"{name.capitalize()} ({flags}) {size}, {masked}{incomplete}"
    if step.name == "close":
        yield "FRAME", arrow, f"{text}: {_close(step)}"
    elif step.length:
        yield "FRAME", arrow, f"{text}: {_show(step.payload)}"
    else:
        yield "FRAME", arrow, text


def _close(step: FrameStep) -> str:
    if step.close_code is None:
        return "without a code"
    reason = f" {json.dumps(step.close_reason, ensure_ascii=False)}" if step.close_reason else ""
    return f"{step.close_code}{escape_json(reason)} ({meaning(step.close_code)})"


def _show(payload: Payload) -> str:
    if payload.text is not None:
        cut = payload.cut or len(payload.text) > _SHOWN_CHARACTERS
        text = escape_json(json.dumps(payload.text[:_SHOWN_CHARACTERS], ensure_ascii=False))
    else:
        cut = payload.cut or len(payload.hex) > 2 * _SHOWN_BYTES
        text = bytes.fromhex(payload.hex)[:_SHOWN_BYTES].hex(" ")
    return f"{text} …" if cut else text


@_blocks.register
def _(step: MessageStep) -> Iterator[_Block]:
    how = [*([f"in {step.frames} frames"] if step.frames > 1 else [])]
    message = f"a {step.kind} message of {step.length} bytes"
    if step.direction == "sent":
        yield "FRAME", "", f"{message}, to be compressed: {_show(step.payload)}"
        return
    how += ["compressed"] if step.compressed else []
    yield "FRAME", "", f"that was {message}, {' and '.join(how)}: {_show(step.payload)}"


@_blocks.register
def _(step: CloseHandshake) -> Iterator[_Block]:
    sent, received = _code(step.sent_code), _code(step.received_code)
    match step.first:
        case "client":
            answer = f"the server answered {received}" if step.received_code else "and the server sent none"
            text = f"we sent Close {sent} first, {answer}"
        case "server":
            answer = f"we answered {sent}" if step.sent_code else "and we sent none"
            text = f"the server sent Close {received} first, {answer}"
        case _:
            text = "neither side sent a Close frame"
    yield "CLOSE", "", f"{text}: {'closed cleanly' if step.clean else 'NOT closed cleanly'}"
    if step.first == "server" and step.received_code and (hint := advice(step.received_code)):
        yield _below(hint)


def _code(code: int | None) -> str:
    return "without a code" if code == CloseCode.NO_STATUS_RECEIVED else str(code)


@_blocks.register
def _(step: TLSClosed) -> Iterator[_Block]:
    sent = step.direction == "sent"
    yield (
        "TLS",
        _OUT if sent else _IN,
        f"close_notify: {'we end' if sent else 'the server ends'} TLS in this direction",
    )


_TOO_BRIEF: dict[tuple[str, ...], str] = {
    ("CLOSE_WAIT", "CLOSED"): "LAST_ACK",
    ("ESTABLISHED", "FIN_WAIT2"): "FIN_WAIT1",
    ("ESTABLISHED", "CLOSED"): "what was",
}


@_blocks.register
def _(step: Fin) -> Iterator[_Block]:
    sent = step.direction == "sent"
    who = "we" if sent else "the server"
    order = (
        f"{who} end{'' if sent else 's'} TCP first"
        if step.first
        else f"{who} end{'' if sent else 's'} it too"
    )
    yield "TCP", _OUT if sent else _IN, f"FIN: {order}"
    if step.states:
        brief = _TOO_BRIEF.get(step.states[:2])
        yield _below(f"the kernel has the connection in {', then '.join(step.states)}")
        if brief:
            yield _below(f"({brief} in between was too brief to be seen)")


@_blocks.register
def _(step: Reset) -> Iterator[_Block]:
    yield "TCP", _IN, "RST: the connection ends at once, and data in flight is lost"
    if step.state is not None:
        yield _below(f"the kernel has the connection in {step.state}")


@_blocks.register
def _(step: TCPClosed) -> Iterator[_Block]:
    words = {"fin": "both sides have sent FIN", "reset": "ended by RST"}
    yield "TCP", "", words.get(step.how, "closed without the server's FIN")
    if step.time_wait:
        ends = " and ".join(
            {"client": "our end", "server": "the server's end"}[end] for end in step.time_wait
        )
        yield _below(f"TIME_WAIT is at {ends}: it keeps late segments out of later connections")
    elif step.how == "fin" and step.first == "server":
        yield _below("the server sent FIN first, so TIME_WAIT is at its end")
    kernel = step.kernel
    if kernel is not None and kernel.segments_sent is not None:
        yield _below(
            f"{kernel.segments_sent} segments sent, {kernel.segments_received} received, "
            f"{kernel.retransmissions} retransmitted; {kernel.bytes_received} bytes received"
        )


@_blocks.register
def _(step: Diagnosis) -> Iterator[_Block]:
    yield "WRONG" if step.severity == "error" else "ODD", "", escape_json(step.sentence)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"
