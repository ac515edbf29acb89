"""The same echo on trio-websocket alone: what the suite says about it is known, so it tests the test.

Without compression its 216 cases are UNIMPLEMENTED, and five to eight of the core are NON-STRICT, from run to
run, with wstest itself too (trio-websocket 0.12.2). If a run of them against this module is ever
"conformant", the run is broken.
"""

from __future__ import annotations

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, WebSocketServer, serve_websocket

MESSAGE_BYTES = 64 * 1024 * 1024


async def echo(request: WebSocketRequest) -> None:
    connection = await request.accept()
    try:
        while True:
            await connection.send_message(await connection.get_message())
    except ConnectionClosed:
        pass


async def main() -> None:
    async with trio.open_nursery() as nursery:

        async def listen(task_status: trio.TaskStatus[WebSocketServer]) -> None:
            await serve_websocket(
                echo,
                "127.0.0.1",
                0,
                ssl_context=None,
                max_message_size=MESSAGE_BYTES,
                task_status=task_status,
            )

        server = await nursery.start(listen)
        print(server.port, flush=True)


if __name__ == "__main__":
    trio.run(main)
