from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage
from wsproto.extensions import PerMessageDeflate

from tests.wire.decoding import repeatable
from wsframework.config import Deflate
from wsframework.wire import (
    Decoder,
    DeflateParameters,
    Opcode,
    agreed_deflate,
    encode_frame,
    negotiate_deflate,
    parse_extensions,
    server_codecs,
)

WIDE = Deflate(server_max_window_bits=15, client_max_window_bits=15)


def negotiate(offer: str, config: Deflate = WIDE) -> tuple[str, DeflateParameters] | None:
    return negotiate_deflate(config, parse_extensions(offer))


# What the client offers, what a server without wishes of its own answers, and what then holds.
ACCEPTED = [
    ("permessage-deflate", "permessage-deflate", DeflateParameters()),
    (
        "permessage-deflate; client_max_window_bits",  # as browsers have it
        "permessage-deflate",
        DeflateParameters(),
    ),
    (
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover",
        DeflateParameters(server_no_context_takeover=True),
    ),
    (
        "permessage-deflate; client_no_context_takeover",
        "permessage-deflate; client_no_context_takeover",
        DeflateParameters(client_no_context_takeover=True),
    ),
    (
        "permessage-deflate; server_max_window_bits=10",
        "permessage-deflate; server_max_window_bits=10",
        DeflateParameters(server_max_window_bits=10),
    ),
    (
        "permessage-deflate; server_max_window_bits=15",
        "permessage-deflate; server_max_window_bits=15",
        DeflateParameters(),
    ),
    (
        "permessage-deflate; client_max_window_bits=10",
        "permessage-deflate; client_max_window_bits=10",
        DeflateParameters(client_max_window_bits=10),
    ),
    (
        "permessage-deflate; client_max_window_bits=8",
        "permessage-deflate; client_max_window_bits=8",
        DeflateParameters(client_max_window_bits=8),
    ),
    (
        'permessage-deflate; server_max_window_bits="9"; client_no_context_takeover; client_max_window_bits',
        "permessage-deflate; client_no_context_takeover; server_max_window_bits=9",
        DeflateParameters(client_no_context_takeover=True, server_max_window_bits=9),
    ),
]


@pytest.mark.parametrize(("offer", "answer", "parameters"), ACCEPTED)
def test_an_offer_is_accepted_with_what_it_asks(
    offer: str, answer: str, parameters: DeflateParameters
) -> None:
    assert negotiate(offer) == (answer, parameters)


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; unknown",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover=true",
        "permessage-deflate; client_no_context_takeover=1",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=010",
        "permessage-deflate; server_max_window_bits=ten",
        "permessage-deflate; server_max_window_bits=-9",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=09",
        "permessage-deflate; Client_max_window_bits=9",
        "permessage-deflate; server_max_window_bits=8",  # valid, but zlib cannot compress with so few
        "permessage-bzip2",
        "x-webkit-deflate-frame",
    ],
)
def test_a_broken_or_impossible_offer_is_declined_and_the_next_one_is_tried(offer: str) -> None:
    assert negotiate(offer) is None
    assert negotiate(f"{offer}, permessage-deflate; server_max_window_bits=11") == (
        "permessage-deflate; server_max_window_bits=11",
        DeflateParameters(server_max_window_bits=11),
    )


def test_the_first_good_offer_wins() -> None:
    offers = [f"permessage-deflate; server_max_window_bits={bits}" for bits in (8, 9, 10)]
    assert negotiate(", ".join(offers)) == (
        "permessage-deflate; server_max_window_bits=9",
        DeflateParameters(server_max_window_bits=9),
    )


def test_connections_that_agreed_on_the_same_share_one_object() -> None:
    first, second = (negotiate("permessage-deflate; server_max_window_bits=9") for _ in range(2))
    assert first is not None
    assert second is not None
    assert first[1] is second[1]


def test_no_offer_means_no_compression() -> None:
    assert negotiate_deflate(WIDE, []) is None


def test_the_servers_own_wishes_are_answered_unasked_where_the_rfc_allows() -> None:
    config = Deflate(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=12,
        client_max_window_bits=11,
    )
    both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    both += "; server_max_window_bits=12"
    assert negotiate("permessage-deflate", config) == (both, DeflateParameters(True, True, 12, 15))
    # Only a client that knows the parameter may be told a window (§7.1.2.2).
    assert negotiate("permessage-deflate; client_max_window_bits", config) == (
        f"{both}; client_max_window_bits=11",
        DeflateParameters(True, True, 12, 11),
    )
    assert negotiate("permessage-deflate; client_max_window_bits=10; server_max_window_bits=14", config) == (
        f"{both}; client_max_window_bits=10",
        DeflateParameters(True, True, 12, 10),
    )


def test_every_answer_keeps_the_offer_and_the_rules() -> None:
    """All combinations: RFC 7692 §7.1.1 and §7.1.2 as properties of the answer."""
    flags = ("", "; server_no_context_takeover", "; client_no_context_takeover")
    server_bits = ("", *(f"; server_max_window_bits={bits}" for bits in (9, 12, 15)))
    client_bits = ("", "; client_max_window_bits", *(f"; client_max_window_bits={n}" for n in (8, 12, 15)))
    configs = [WIDE, Deflate(), Deflate(server_max_window_bits=9, client_no_context_takeover=True)]
    for flag, server, client, config in itertools.product(flags, server_bits, client_bits, configs):
        result = negotiate(f"permessage-deflate{flag}{server}{client}", config)
        assert result is not None
        answer, agreed = result
        if "server_no" in flag:
            assert "server_no_context_takeover" in answer
        if server:
            assert "server_max_window_bits" in answer
            assert agreed.server_max_window_bits <= int(server[-2:].lstrip("="))
        if not client:
            assert "client_max_window_bits" not in answer
        if client[-1:].isdigit() and "client_max_window_bits" in answer:
            assert agreed.client_max_window_bits <= int(client[-2:].lstrip("="))
        assert agreed_deflate(parse_extensions(answer)) == agreed  # the client reads the same


def test_a_client_reads_only_answers_that_keep_the_rules() -> None:
    assert agreed_deflate([]) is None
    assert agreed_deflate([("other", [])]) is None
    for parameters in (
        [("client_max_window_bits", None)],
        [("unknown", None)],
        [("server_max_window_bits", "7")],
    ):
        with pytest.raises(ValueError, match="RFC 7692"):
            agreed_deflate([("permessage-deflate", parameters)])


@pytest.mark.parametrize("no_context_takeover", [False, True])
@pytest.mark.parametrize("window_bits", [9, 12, 15])
def test_the_codecs_hold_to_what_was_agreed(no_context_takeover: bool, window_bits: int) -> None:
    agreed = DeflateParameters(no_context_takeover, not no_context_takeover, window_bits, 24 - window_bits)
    deflater, _ = server_codecs(agreed, Deflate(threshold_bytes=10))
    assert deflater.encode_message(Opcode.TEXT, b"x" * 9)[0] == 0x81
    first, second = deflater.compress(b"Hello" * 9), deflater.compress(b"Hello" * 9)
    assert (first == second) == no_context_takeover


messages = st.lists(st.binary(max_size=300) | st.text("ab", max_size=300).map(str.encode), max_size=5)
bits = st.integers(9, 15)


@repeatable(100)
@given(messages, bits, bits, st.booleans(), st.booleans())
def test_wsproto_and_we_read_each_others_messages(
    messages: list[bytes], server_bits: int, client_bits: int, server_resets: bool, client_resets: bool
) -> None:
    """As its extension and ours agreed by their own negotiation, message by message, both ways."""
    extension = PerMessageDeflate(client_resets, client_bits, server_resets, server_bits)
    result = negotiate(f"permessage-deflate; {extension.offer()}")
    assert result is not None
    extension.finalize(result[0])
    client = Connection(ConnectionType.CLIENT, [extension])
    deflater, inflater = server_codecs(result[1], WIDE)
    decoder = Decoder(max_message_bytes=300, inflater=inflater)
    for message in messages:
        assert decoder.feed(client.send(BytesMessage(message))) == [message]
        client.receive_data(encode_frame(Opcode.BINARY, deflater.compress(message), rsv1=True))
        received = [event.data for event in client.events() if isinstance(event, BytesMessage)]
        assert b"".join(received) == message
