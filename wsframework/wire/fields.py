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

__all__ = ["Extension", "Parameter", "is_token", "parse_extensions", "parse_subprotocols", "parse_token_list"]

Parameter = tuple[str, str | None]
Extension = tuple[str, list[Parameter]]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SPACE = re.compile(r"[ \t]*")
_QUOTED = re.compile(r'"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[^\x00-\x08\x0a-\x1f\x7f])*)"')
_ESCAPED = re.compile(r"\\(.)")


def is_token(text: str) -> bool:
    """Whether `text` is one token (RFC 9110 §5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def parse_token_list(value: str, field: str = "header field") -> list[str]:
    """Parse a comma-separated list of tokens, such as the value of `Connection`.

    Args:
        value: the field's value; several lines of one field are joined with commas first.
        field: the field's name, for the message.

    Raises:
        HandshakeError: an element is not a token.
    """
    tokens = [element for part in value.split(",") if (element := part.strip(" \t"))]
    for token in tokens:
        if not is_token(token):
            raise HandshakeError(f"{field}: {token!r} is not a token (RFC 9110 §5.6.2)")
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
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise HandshakeError(f"Sec-WebSocket-Protocol: {twice!r} stands twice (RFC 6455 §4.1)")
    return names


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
    pos = _skip_commas(value, 0)
    while pos < len(value):
        name, pos = _token(value, pos)
        parameters: list[Parameter] = []
        while value.startswith(";", pos):
            parameter, pos = _parameter(value, pos + 1)
            parameters.append(parameter)
        extensions.append((name, parameters))
        if pos < len(value) and value[pos] != ",":
            raise _malformed(value, pos)
        pos = _skip_commas(value, pos)
    if not extensions:
        raise HandshakeError("Sec-WebSocket-Extensions: names no extension (RFC 6455 §9.1)")
    return extensions


def _parameter(value: str, pos: int) -> tuple[Parameter, int]:
    name, pos = _token(value, pos)
    if not value.startswith("=", pos):
        return (name, None), pos
    pos = _skip_space(value, pos + 1)
    quoted = _QUOTED.match(value, pos)
    if quoted is None:
        argument, pos = _token(value, pos)
        return (name, argument), pos
    # "When using the quoted-string syntax variant, the value after quoted-string unescaping MUST conform to
    # the 'token' ABNF." (RFC 6455 §9.1)
    argument = _ESCAPED.sub(r"\1", quoted[1])
    if not is_token(argument):
        raise _malformed(value, pos)
    return (name, argument), _skip_space(value, quoted.end())


def _token(value: str, pos: int) -> tuple[str, int]:
    """Read a token with the white space around it."""
    pos = _skip_space(value, pos)
    match = _TOKEN.match(value, pos)
    if match is None:
        raise _malformed(value, pos)
    return match[0], _skip_space(value, match.end())


def _skip_space(value: str, pos: int) -> int:
    match = _SPACE.match(value, pos)
    return pos if match is None else match.end()


def _skip_commas(value: str, pos: int) -> int:
    while pos < len(value) and value[pos] in ", \t":
        pos += 1
    return pos


def _malformed(value: str, pos: int) -> HandshakeError:
    return HandshakeError(
        f"Sec-WebSocket-Extensions: malformed at character {pos + 1} of {value!r} (RFC 6455 §9.1)"
    )
