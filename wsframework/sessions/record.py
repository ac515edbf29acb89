"""What the body of a record holds: the program's data, and the rooms in which the client was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from wsframework.rooms.presence import copy_of_json

__all__ = ["decode_body", "encode_body"]


def encode_body(data: Any, rooms: Sequence[str], most_bytes: int) -> bytes:
    """Return a body.

    Args:
        data: JSON.
        rooms: names.
        most_bytes: the maximum size.

    Raises:
        TypeError: the data are not JSON.
        ValueError: the body is larger than that.
    """
    record = {"data": copy_of_json(data, "a session"), "rooms": list(rooms)}
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    body = text.encode(errors="surrogatepass")
    if len(body) > most_bytes:
        raise ValueError(
            f"a session's record has {len(body)} bytes, and may have {most_bytes}: keep large data "
            "elsewhere, by session.id"
        )
    return body


def decode_body(body: bytes) -> tuple[Any, list[str]]:
    """Return the data and the rooms.

    Raises:
        ValueError: it is no body of ours.
    """
    try:
        record = json.loads(body.decode(errors="surrogatepass"))
        data, rooms = record["data"], record["rooms"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("not the record of a session") from None
    if not isinstance(rooms, list) or not all(isinstance(room, str) for room in rooms):
        raise ValueError("not the record of a session")
    return data, rooms
