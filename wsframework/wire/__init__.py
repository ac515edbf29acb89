"""RFC 6455 and RFC 7692 without I/O: bytes become messages here, and messages become bytes.

No Trio, no clock, no logging, no randomness; nothing here waits or calls up. Bottom-up: `opcodes`, `events`,
`implementations`, `masking`, `frames`, `compression`, `assembly`, `decoder`; beside them `closing`, `deflate`
(what to agree on), `fields` and `handshake`.
"""

from __future__ import annotations

from wsframework.wire.closing import CloseState, ClosingHandshake
from wsframework.wire.compression import Deflater, Inflater
from wsframework.wire.decoder import Budget, Decoder, decoder_class
from wsframework.wire.deflate import (
    DeflateParameters,
    agreed_deflate,
    negotiate_deflate,
    server_codecs,
)
from wsframework.wire.events import CloseReceived, Event, Failure, Ping, Pong, ProtocolViolation
from wsframework.wire.fields import loggable_subprotocols
from wsframework.wire.frames import (
    MAX_CONTROL_PAYLOAD,
    close_payload,
    encode_close,
    encode_frame,
    encode_message,
    encode_ping,
    encode_pong,
    frame_header,
)
from wsframework.wire.handshake import (
    GUID,
    Upgrade,
    accept_key,
    build_request,
    encode_101,
    is_upgrade,
    judge_response,
    parse_extensions,
    parse_subprotocols,
    parse_token_list,
    read_upgrade,
    response_headers,
)
from wsframework.wire.masking import apply_mask, pure_apply_mask
from wsframework.wire.opcodes import BINARY, PING, TEXT, Opcode

__all__ = [
    "BINARY",
    "GUID",
    "MAX_CONTROL_PAYLOAD",
    "CloseReceived",
    "CloseState",
    "ClosingHandshake",
    "Budget",
    "Decoder",
    "DeflateParameters",
    "Deflater",
    "Event",
    "Failure",
    "Inflater",
    "Opcode",
    "PING",
    "Ping",
    "Pong",
    "ProtocolViolation",
    "TEXT",
    "Upgrade",
    "accept_key",
    "agreed_deflate",
    "apply_mask",
    "build_request",
    "close_payload",
    "decoder_class",
    "encode_101",
    "encode_close",
    "encode_frame",
    "encode_message",
    "encode_ping",
    "encode_pong",
    "frame_header",
    "is_upgrade",
    "judge_response",
    "negotiate_deflate",
    "loggable_subprotocols",
    "parse_extensions",
    "parse_subprotocols",
    "parse_token_list",
    "pure_apply_mask",
    "read_upgrade",
    "response_headers",
    "server_codecs",
]
