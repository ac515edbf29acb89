"""Problems of a connection to a server: one plain sentence each, with the section that applies."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence

import attrs

from wsframework.closes import CloseCode
from wsframework.wire import judge_response

__all__ = [
    "Problem",
    "Unreachable",
    "bad_tls",
    "broken",
    "endless",
    "judge_opening",
    "not_http",
    "refused",
    "silent",
    "unanswered",
    "unknown_host",
]

_PROBLEMS = 8
"""How many problems of one answer are told."""

_SENTENCE_CHARACTERS = 500


def _bounded(sentence: str) -> str:
    return _shorten(sentence, _SENTENCE_CHARACTERS)


@attrs.frozen
class Problem:
    """Something that is wrong with a connection.

    Attributes:
        name: for programs, such as "accept.wrong".
        sentence: one plain sentence for people, of bounded length: servers choose parts of some.
        severity: "error" for a broken rule, "warning" for what is allowed but should not be.
    """

    name: str
    sentence: str = attrs.field(converter=_bounded)
    severity: str = "error"


class Unreachable(Exception):
    """There is no connection; the problems say why."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(" ".join(problem.sentence for problem in problems))
        self.problems = problems


# Before there is a connection


def unknown_host(host: str, why: str) -> Problem:
    """Return the problem of a name without an address."""
    return Problem("name.unknown", f"There is no address for the name {host}: {why}.")


def refused(addresses: Sequence[str], error: str) -> Problem:
    """Return the problem of a host that refuses connections; `error` is that of its last address."""
    where = ", ".join(addresses)
    match error:
        case "ECONNREFUSED":
            return Problem(
                "tcp.refused",
                f"Nothing listens on {where}: the SYN was answered with RST, connection refused "
                "(RFC 9293 §3.5.2).",
            )
        case "timeout":
            return Problem(
                "tcp.timeout",
                f"The SYN to {where} was not answered: the host is down, or a firewall drops packets.",
            )
        case "EHOSTUNREACH" | "ENETUNREACH":
            return Problem("tcp.unreachable", f"There is no route to {where}: {error}.")
        case _:
            return Problem("tcp.failed", f"No connection to {where}: {error}.")


def bad_tls(error: Exception, url: str) -> Problem:
    """Return the problem of a TLS handshake that failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Problem(
            "tls.certificate",
            f"The server's certificate cannot be trusted: {error.verify_message.rstrip('.')} "
            "(RFC 9525 §6, RFC 5280 §6). --insecure skips the check.",
        )
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    if reason in ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
        plain = "ws" + url.removeprefix("wss")
        return Problem("tls.plain", f"The server does not speak TLS on this port; is it {plain}?")
    what = reason.replace("_", " ").lower() if reason else str(error) or "the server closed TCP"
    return Problem("tls.failed", f"The TLS handshake failed: {what} (RFC 8446 §4).")


def silent(what: str, seconds: float) -> Problem:
    """Return the problem of a server that sent nothing in time."""
    return Problem("timeout", f"The server sent no {what} within {seconds:g} s.")


# Frames


def broken(code: int, reason: str) -> Problem:
    """Return the problem of frames that a decoder refuses.

    Args:
        code: the close code that it fails the connection with.
        reason: what is wrong.
    """
    if code in (CloseCode.MESSAGE_TOO_BIG, CloseCode.POLICY_VIOLATION):
        return Problem("message.too_big", f"This command cannot take what the server sent: {reason}.")
    if code == CloseCode.INVALID_PAYLOAD and "UTF-8" in reason:
        return Problem("message.utf8", f"The server sent {reason} (RFC 6455 §8.1).")
    if code == CloseCode.INVALID_PAYLOAD:
        return Problem(
            "message.deflate", f"The server's frames break permessage-deflate: {reason} (RFC 7692 §7.2)."
        )
    return Problem("frame.wrong", f"The server's frames break the protocol: {reason} (RFC 6455 §5).")


# The answer to the opening handshake


def endless(size: int) -> Problem:
    """Return the problem of an answer whose head is too long; `size` bytes of it have come."""
    return Problem("http.endless", f"The answer's head has no end within {size:,} bytes (RFC 9112 §2.1).")


def unanswered(data: bytes, *, reset: bool) -> Problem:
    """Return the problem of an answer that TCP's end cut short.

    Args:
        data: the part of the answer that came.
        reset: whether TCP ended with RST instead of FIN.
    """
    if data:
        return not_http(data)
    how = "reset the connection (RST)" if reset else "closed TCP"
    return Problem(
        "http.none", f"The server {how} before it had answered the opening handshake (RFC 6455 §4.1)."
    )


def not_http(data: bytes) -> Problem:
    """Return the problem of an answer that is not an HTTP response."""
    # A TLS alert or handshake record: type, then version 3.x (RFC 8446 §5.1).
    if data[:1] in (b"\x15", b"\x16") and data[1:2] == b"\x03":
        return Problem("http.tls", "The server speaks TLS on this port; use wss:// instead of ws://.")
    start = data[:40].decode("latin-1").splitlines()[0] if data else ""
    return Problem("http.malformed", f"The answer is not HTTP (RFC 9112 §4); it begins with {start!r}.")


def judge_opening(
    status: int,
    headers: Sequence[tuple[str, str]],
    key: str,
    offered_subprotocols: Sequence[str] = (),
    offered_extensions: Sequence[str] = (),
    body: str = "",
) -> list[Problem]:
    """List what is wrong with an answer to an opening handshake; nothing when the connection is open.

    Args:
        status: the HTTP status.
        headers: names and values.
        key: our Sec-WebSocket-Key.
        offered_subprotocols: the names we offered.
        offered_extensions: the names we offered, without parameters.
        body: what followed the head; its first line is quoted.
    """
    if status == 101:
        found = judge_response(status, headers, key, offered_subprotocols, offered_extensions)
        # A thousand extensions are as wrong as one.
        return [Problem(_name(sentence), sentence) for sentence in [*dict.fromkeys(found)][:_PROBLEMS]]
    fields = {name.lower(): _shorten(value) for name, value in headers}
    said = next((line.strip() for line in body.splitlines() if line.strip()), "")
    # The first line of an HTML page explains nothing.
    quote = f" It says: {_shorten(said)!r}." if said and not said.startswith("<") else ""
    return [Problem(f"status.{status}", f"{_explain(status, fields)} (RFC 6455 §4.1).{quote}")]


_NAMES = (
    (re.compile(r"Upgrade does not"), "upgrade.missing"),
    (re.compile(r"Connection does not"), "connection.missing"),
    (re.compile(r"Sec-WebSocket-Accept is missing"), "accept.missing"),
    (re.compile(r"Sec-WebSocket-Accept"), "accept.wrong"),
    (re.compile(r".*extension", re.IGNORECASE), "extension.unasked"),
    (re.compile(r".*[Pp]rotocol"), "subprotocol.unasked"),
)


def _name(sentence: str) -> str:
    return next((name for pattern, name in _NAMES if pattern.match(sentence)), "handshake.wrong")


def _explain(status: int, fields: dict[str, str]) -> str:
    match status:
        case 301 | 302 | 303 | 307 | 308:
            where = fields.get("location", "nowhere")
            return (
                f"The server answered {status} instead of 101: a redirect to {where!r}, which "
                "WebSocket clients need not follow"
            )
        case 400:
            return "The server answered 400 instead of 101: it finds the opening handshake malformed"
        case 401:
            how = fields.get("www-authenticate", "it does not say which")
            return (
                f"The server answered 401 instead of 101: it asks for credentials ({how}); send them with "
                "--header"
            )
        case 403:
            return (
                "The server answered 403 instead of 101: access is denied; check Origin (--origin) and "
                "credentials (--header)"
            )
        case 404:
            return "The server answered 404 instead of 101: there is nothing at this path"
        case 407:
            return "The server answered 407 instead of 101: a proxy asks for credentials"
        case 426:
            versions = fields.get("sec-websocket-version")
            why = (
                f"it supports WebSocket version {versions}, not 13"
                if versions not in (None, "13")
                else "it did not get the Upgrade field; a proxy in between may drop it"
            )
            return f"The server answered 426 instead of 101: {why}"
        case 502 | 503 | 504:
            return f"The server answered {status} instead of 101: it, or a server behind it, is unavailable"
        case _ if 200 <= status < 300:
            return f"The server answered {status} instead of 101: the path is plain HTTP, not a WebSocket"
        case _:
            return f"The server answered {status} instead of 101, so no WebSocket was opened"


def _shorten(text: str, limit: int = 100) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
