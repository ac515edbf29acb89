"""The grammar of the opening handshake's header fields (RFC 9110 §5.6, RFC 6455 §9.1 and §11.3).

    token      = 1*tchar
    #element   = a comma-separated list; "a recipient MUST parse and ignore a reasonable number of empty list
                 elements" (RFC 9110 §5.6.1.2)
    extension  = token *( ";" param )
    param      = token [ "=" ( token / quoted-string ) ]

Values are plain tuples and strings. Malformed fields raise `HandshakeError` with status 400.
"""

from __future__ import annotations

import re

from wsframework.errors import HandshakeError
from wsframework.tokens import TOKEN, is_token

__all__ = [
    "Extension",
    "Parameter",
    "loggable_subprotocols",
    "parse_extensions",
    "parse_subprotocols",
    "parse_token_list",
]

Parameter = tuple[str, str | None]
Extension = tuple[str, list[Parameter]]

# Possessive throughout, as `TOKEN` is.
_TOKENS = re.compile(rf"(?:{TOKEN}(?:,{TOKEN})*+)?")
_QUOTED = r'"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]++|\\[^\x00-\x08\x0a-\x1f\x7f])*+)"'
_ITEM = re.compile(
    # An extension's name or a parameter, and what ends it.
    rf"[ \t]*+({TOKEN})[ \t]*+(?:=[ \t]*+(?:({TOKEN})|{_QUOTED})[ \t]*+)?+(;|,[, \t]*+|$)"
)

_SHORT_CHARS = 8
"""Up to here an element is repeated in a message."""

_EXCERPT_CHARS = 200
"""How much of a malformed field a message repeats."""


def parse_token_list(value: str, field: str = "header field") -> list[str]:
    """Parse a comma-separated list of tokens, such as the value of `Connection`.

    Args:
        value: the field's value; several lines of one field are joined with commas first.
        field: the field's name, for the message.

    Raises:
        HandshakeError: an element is not a token.
    """
    tokens = [element for part in value.split(",") if (element := part.strip(" \t"))]
    # All of them in one go: a field may list thousands.
    if not _TOKENS.fullmatch(",".join(tokens)):
        wrong = next(token for token in tokens if not is_token(token))
        raise HandshakeError(f"{field}: {_shown(wrong)} is not a token (RFC 9110 §5.6.2)")
    return tokens


def parse_subprotocols(value: str) -> list[str]:
    """Parse Sec-WebSocket-Protocol as a client sends it, in its order of preference.

    Raises:
        HandshakeError: not a list of tokens, no token at all, or one twice.
    """
    names = parse_token_list(value, "Sec-WebSocket-Protocol")
    if not names:
        raise HandshakeError("Sec-WebSocket-Protocol: names no subprotocol (RFC 6455 §11.3.4)")
    # "The elements that comprise this value MUST be non-empty strings [...] and MUST all be unique strings."
    # (RFC 6455 §4.1)
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise HandshakeError(f"Sec-WebSocket-Protocol: {_shown(name)} stands twice (RFC 6455 §4.1)")
        seen.add(name)
    return names


def _shown(element: str) -> str:
    """Return what an answer may say of an element that a client sent.

    A page can put a bearer token into no other field than Sec-WebSocket-Protocol, so some do; an answer ends
    up in consoles and logs. Subprotocols have short names, and secrets are long.
    """
    return repr(element) if len(element) <= _SHORT_CHARS else f"an element of {len(element)} characters"


def loggable_subprotocols(value: str) -> str:
    """Return Sec-WebSocket-Protocol as a log may have it: without the elements that may be secrets."""
    elements = [element.strip(" \t") for element in value.split(",")]
    return ", ".join(
        element if len(element) <= _SHORT_CHARS else f"<{len(element)} characters>" for element in elements
    )


def parse_extensions(value: str) -> list[Extension]:
    """Parse Sec-WebSocket-Extensions into names with their parameters, in order.

    Returns:
        (name, [(parameter, value or None), …]) for each; quoted values come without their quotes.

    Raises:
        HandshakeError: the field breaks its grammar. "If a value is received by either the client or the
            server during negotiation that does not conform to the ABNF below, the recipient of such malformed
            data MUST immediately _Fail the WebSocket Connection_." (RFC 6455 §9.1)
    """
    extensions: list[Extension] = []
    parameters: list[Parameter] | None = None  # of the extension that is being read
    # "a recipient MUST parse and ignore a reasonable number of empty list elements"
    pos = len(value) - len(value.lstrip(", \t"))
    while pos < len(value):
        item = _ITEM.match(value, pos)
        if item is None:
            raise _malformed(value, pos)
        name, argument, quoted, behind = item.groups()
        if quoted is not None:
            argument = _unquoted(value, quoted, item.start(3))
        if parameters is not None:
            parameters.append((name, argument))
        elif argument is None:
            parameters = []
            extensions.append((name, parameters))
        else:
            raise _malformed(value, pos)
        pos = item.end()
        if behind != ";":
            parameters = None
    if parameters is not None:
        raise _malformed(value, pos)  # it ends in ";"
    if not extensions:
        raise HandshakeError("Sec-WebSocket-Extensions: names no extension (RFC 6455 §9.1)")
    return extensions


def _unquoted(value: str, quoted: str, pos: int) -> str:
    # "When using the quoted-string syntax variant, the value after quoted-string unescaping MUST conform to
    # the 'token' ABNF." (RFC 6455 §9.1) No token holds a backslash, so none may be escaped.
    argument = quoted.replace("\\", "")
    if "\\\\" in quoted or not is_token(argument):
        raise _malformed(value, pos)
    return argument


def _malformed(value: str, pos: int) -> HandshakeError:
    excerpt = repr(value) if len(value) <= _EXCERPT_CHARS else f"{value[:_EXCERPT_CHARS]!r}…"
    return HandshakeError(
        f"Sec-WebSocket-Extensions: malformed at character {pos + 1} of {excerpt} (RFC 6455 §9.1)"
    )
