"""Frames of a server with a whole message each."""

from __future__ import annotations

from wsframework.wire import Opcode, encode_message


def encode_text(message: str) -> bytes:
    return encode_message(Opcode.TEXT, message.encode())


def encode_binary(message: bytes) -> bytes:
    return encode_message(Opcode.BINARY, message)
