"""granian: a Rust server, spoken to over RSGI, its own interface."""

import sys
from pathlib import Path

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.rsgi import ProtocolClosed, Scope, WebsocketMessageType, WebsocketProtocol

from benchmarks.servers import BACKLOG, arguments, certificate, free_port, ready

members: set = set()


async def echo(scope: Scope, protocol: WebsocketProtocol) -> None:
    ws = await protocol.accept()
    try:
        while (message := await ws.receive()).kind != WebsocketMessageType.close:
            if message.kind == WebsocketMessageType.string:
                await ws.send_str(message.data)
            else:
                await ws.send_bytes(message.data)
    except ProtocolClosed:
        pass
    protocol.close()


async def fanout(scope: Scope, protocol: WebsocketProtocol) -> None:
    ws = await protocol.accept()
    members.add(ws)
    try:
        while (message := await ws.receive()).kind != WebsocketMessageType.close:
            for member in tuple(members):
                await member.send_str(message.data)
    except ProtocolClosed:
        pass
    finally:
        members.discard(ws)
    protocol.close()


def main(port: int, mode: str) -> None:
    port = free_port(port)
    server = Granian(
        f"benchmarks.servers.granian_rsgi:{'fanout' if mode == 'fanout' else 'echo'}",
        port=port,
        backlog=BACKLOG,
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,
        loop=Loops.uvloop,
        log_enabled=False,
        ssl_cert=Path(certificate()) if mode == "tls" else None,
        ssl_key=Path(certificate()) if mode == "tls" else None,
    )
    ready(port)
    server.serve()


if __name__ == "__main__":
    if len(sys.argv) > 2:  # the worker process imports this module again as __main__
        main(*arguments())
