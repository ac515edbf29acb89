"""`wsframework publish ROOM [TEXT]`: send a message to a room's members, from a shell."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from wsframework.cli.output import fail, print_json
from wsframework.errors import ConfigurationError, RoomUnavailable

__all__ = ["publish"]


def publish(
    room: Annotated[str, typer.Argument(metavar="ROOM", help="The room's name.")],
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="The message; without it, the standard input.")
    ] = None,
    redis: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="WSFRAMEWORK_REDIS",
            help="The server of the rooms' RedisEngine: redis://[user:password@]host[:port][/database], or "
            "redis+sentinel://host[:port],host[:port]/master. "
            "In the environment, no other user of the machine sees the password.",
        ),
    ] = "redis://127.0.0.1",
    prefix: Annotated[str, typer.Option(help="The engine's prefix.")] = "ws",
    key: Annotated[
        str | None,
        typer.Option(help="Of messages with the same key within 10 minutes, only the first one is sent."),
    ] = None,
    binary: Annotated[bool, typer.Option("--binary", help="Send bytes, as a Binary message.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the position as JSON.")] = False,
) -> None:
    """Send a message to all members of a room, in whatever process they are.

    The rooms must be on a RedisEngine. It prints the message's position when Redis has stored it.

    Exit code: 0 when it is stored, 1 when it is not, or not known to be, 2 for a wrong argument or a server
    that cannot be used.
    """
    try:
        from wsframework.engines.redis import Publisher
    except ImportError as error:
        fail(str(error))
    data = sys.stdin.buffer.read() if text is None else os.fsencode(text)
    try:
        message: str | bytes = data if binary else data.decode()
    except UnicodeDecodeError as error:
        fail(f"the message is not UTF-8 (byte {error.start}); send bytes with --binary")
    try:
        with Publisher(redis, prefix=prefix) as publisher:
            position = publisher.publish(room, message, key=key)
    except ConfigurationError as error:
        fail(str(error))
    except RoomUnavailable as error:
        fail(f"{error}{' (it may have been stored)' if error.unknown else ''}", status=1)
    except ValueError as error:
        fail(str(error))
    if as_json:
        print_json({"room": room, "position": position})
    else:
        print(position)
