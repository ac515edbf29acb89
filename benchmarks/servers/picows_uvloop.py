"""picows on uvloop. It hands out frames, not messages, and does not check that text is UTF-8."""

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benchmarks.servers import BACKLOG, KEEPALIVE_SECONDS, MESSAGE_LIMIT, arguments, listen, ready, tls

members: set[WSTransport] = set()


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()


class Fanout(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        members.add(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            payload = frame.get_payload_as_bytes()
            for member in members:
                member.send(WSMsgType.TEXT, payload)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        members.discard(transport)


async def main(port: int, mode: str) -> None:
    def listener(request: WSUpgradeRequest) -> WSListener:
        return Fanout() if mode == "fanout" else Echo()

    sock = listen(port)
    server = await ws_create_server(
        listener,
        sock=sock,
        backlog=BACKLOG,
        ssl=tls(mode),
        max_frame_size=MESSAGE_LIMIT,
        enable_auto_ping=mode == "keepalive",
        auto_ping_idle_timeout=KEEPALIVE_SECONDS,
    )
    ready(sock.getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*arguments()))
