"""permessage-deflate: agree on it (RFC 7692 §5, §7.1).

The client offers parameter sets in Sec-WebSocket-Extensions, in its order of preference. The server takes
the first it can keep and answers with what both then hold to; it declines, silently, those it cannot keep or
that break a rule. What was agreed is made into the two streams of `compression` by `server_codecs`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import attrs

from wsframework.config import Deflate
from wsframework.wire.compression import MAX_WINDOW_BITS, MIN_ZLIB_WINDOW_BITS, Deflater, Inflater

__all__ = [
    "DeflateParameters",
    "Deflater",
    "Inflater",
    "agreed_deflate",
    "negotiate_deflate",
    "server_codecs",
]

_NAME = "permessage-deflate"


@attrs.frozen
class DeflateParameters:
    """What both sides agreed on (RFC 7692 §7.1).

    Attributes:
        server_no_context_takeover: the server compresses each message by itself.
        client_no_context_takeover: the client does.
        server_max_window_bits: the server's window is at most 2**bits bytes; 8 to 15.
        client_max_window_bits: the client's.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = MAX_WINDOW_BITS
    client_max_window_bits: int = MAX_WINDOW_BITS


def negotiate_deflate(
    config: Deflate, offers: Sequence[tuple[str, Sequence[tuple[str, str | None]]]]
) -> tuple[str, DeflateParameters] | None:
    """Take the first offer of permessage-deflate that can be kept, as the server.

    Args:
        config: what this server wants.
        offers: Sec-WebSocket-Extensions as `parse_extensions` returns it.

    Returns:
        The value of Sec-WebSocket-Extensions for the response, and what it means; None when there is no offer
        to take, and the connection goes on without compression.
    """
    for name, parameters in offers:
        if name != _NAME:
            continue
        offer = _read_parameters(parameters)
        answer = None if offer is None else _answer(config, offer)
        if answer is not None:
            return answer
    return None


def agreed_deflate(
    extensions: Sequence[tuple[str, Sequence[tuple[str, str | None]]]],
) -> DeflateParameters | None:
    """Read what a server's response agreed to, as the client; None when that is not permessage-deflate.

    Raises:
        ValueError: the response has parameters that no client may accept.
    """
    for name, parameters in extensions:
        if name != _NAME:
            continue
        agreed = _read_parameters(parameters)
        # In a response the parameter without a value has no meaning (§7.1.2.2).
        if agreed is None or (
            agreed.client_max_window_bits is None and "client_max_window_bits" in agreed.named
        ):
            raise ValueError(f"the parameters of {name} break RFC 7692 §7.1: {list(parameters)!r}")
        return DeflateParameters(
            agreed.server_no_context_takeover,
            agreed.client_no_context_takeover,
            agreed.server_max_window_bits or MAX_WINDOW_BITS,
            agreed.client_max_window_bits or MAX_WINDOW_BITS,
        )
    return None


def server_codecs(parameters: DeflateParameters, config: Deflate) -> tuple[Deflater, Inflater]:
    """Return the server's two ends: what compresses its messages, and what inflates the client's."""
    deflater = Deflater(
        window_bits=parameters.server_max_window_bits,
        no_context_takeover=parameters.server_no_context_takeover,
        level=config.level,
        memory_level=config.memory_level,
        threshold_bytes=config.threshold_bytes,
    )
    inflater = Inflater(
        window_bits=parameters.client_max_window_bits,
        no_context_takeover=parameters.client_no_context_takeover,
    )
    return deflater, inflater


@attrs.frozen
class _Offer:
    """One parameter list, checked; None stands for "not said", `named` for what was said at all."""

    named: frozenset[str]
    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_max_window_bits: int | None
    client_max_window_bits: int | None


def _read_parameters(parameters: Sequence[tuple[str, str | None]]) -> _Offer | None:
    """Check one parameter list; None when any of it breaks a rule of RFC 7692 §7.

    "A server MUST decline an extension negotiation offer for this extension if" it has an unknown parameter,
    one with an invalid value, or one twice (§7.1).
    """
    named = dict(parameters)
    if len(named) < len(parameters) or not named.keys() <= _PARAMETERS:
        return None
    if (
        named.get("server_no_context_takeover") is not None
        or named.get("client_no_context_takeover") is not None
    ):
        return None
    bits: dict[str, int | None] = {}
    for name in ("server_max_window_bits", "client_max_window_bits"):
        value = named.get(name)
        # "a decimal integer value without leading zeroes between 8 to 15, inclusive" (§7.1.2.1)
        if value is not None and value not in _WINDOW_BITS:
            return None
        bits[name] = None if value is None else int(value)
    # Only the client's may stand without a value, and means that the client supports it (§7.1.2.2).
    if "server_max_window_bits" in named and bits["server_max_window_bits"] is None:
        return None
    return _Offer(
        frozenset(named),
        "server_no_context_takeover" in named,
        "client_no_context_takeover" in named,
        bits["server_max_window_bits"],
        bits["client_max_window_bits"],
    )


def _answer(config: Deflate, offer: _Offer) -> tuple[str, DeflateParameters] | None:
    server_bits = min(offer.server_max_window_bits or MAX_WINDOW_BITS, config.server_max_window_bits)
    if server_bits < MIN_ZLIB_WINDOW_BITS:
        return None  # the client cannot inflate more than 8 bits, and zlib cannot compress with so few
    # "If a received extension negotiation offer doesn't have the "client_max_window_bits" extension
    # parameter, the corresponding extension negotiation response to the offer MUST NOT include" it
    # (§7.1.2.2).
    client_bits = MAX_WINDOW_BITS
    if "client_max_window_bits" in offer.named:
        client_bits = min(offer.client_max_window_bits or MAX_WINDOW_BITS, config.client_max_window_bits)
    agreed = _parameters(
        offer.server_no_context_takeover or config.server_no_context_takeover,
        offer.client_no_context_takeover or config.client_no_context_takeover,
        server_bits,
        client_bits,
    )
    value = _NAME
    if agreed.server_no_context_takeover:
        value += "; server_no_context_takeover"
    if agreed.client_no_context_takeover:
        value += "; client_no_context_takeover"
    # "A server accepts an extension negotiation offer with this parameter by including" it, and may include
    # it unasked (§7.1.2.1).
    if server_bits < MAX_WINDOW_BITS or offer.server_max_window_bits is not None:
        value += f"; server_max_window_bits={server_bits}"
    if client_bits < MAX_WINDOW_BITS:
        value += f"; client_max_window_bits={client_bits}"
    return value, agreed


# Every connection with compression keeps its parameters, and there are 256 different ones.
_parameters = functools.cache(DeflateParameters)
_PARAMETERS = frozenset(attrs.fields_dict(DeflateParameters))
_WINDOW_BITS = frozenset(str(bits) for bits in range(8, MAX_WINDOW_BITS + 1))
