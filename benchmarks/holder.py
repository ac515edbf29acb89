"""Hold idle connections in a process of their own: `python -m benchmarks.holder PORT COUNT`.

Prints OPEN, answers pings until stdin ends, then prints how many pings came.
"""

from __future__ import annotations

import os
import resource
import select
import sys

from benchmarks.connections import Connection, open_connections
from benchmarks.frames import PING, PONG, Failed, close_code, frame


def raise_file_limit() -> int:
    """Raise the limit of open files to what is allowed; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def main(port: int, count: int) -> None:
    raise_file_limit()
    connections = {c.fd: c for c in open_connections(port, count, early=True)}
    epoll = select.epoll()
    for fd in connections:
        epoll.register(fd, select.EPOLLIN)
    epoll.register(0, select.EPOLLIN | select.EPOLLHUP)
    pings = sum(answer(connection, b"") for connection in connections.values())
    print("OPEN", flush=True)
    while True:
        for fd, _ in epoll.poll():
            if fd == 0:
                if not os.read(0, 1):
                    print(f"PINGS {pings}", flush=True)
                    return
                continue
            connection = connections[fd]
            data = connection.recv(4096)
            if not data:
                raise Failed("the server ended an idle connection")
            pings += answer(connection, data)


def answer(connection: Connection, data: bytes) -> int:
    """Answer the pings in `data`; return how many there were."""
    data, pings = connection.held + data, 0
    while len(data) >= 2 and len(data) >= 2 + data[1]:
        end = 2 + data[1]
        if data[0] == 0x80 | PING:
            pings += 1
            connection.send(frame(PONG, data[2:end], masked=True))
        elif data[0] != 0x80 | PONG:
            raise Failed(f"an idle connection received {data[0]:#x}: {close_code(data[2:end])}")
        data = data[end:]
    connection.held = data
    return pings


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), int(sys.argv[2]))
    except (Failed, OSError) as failure:
        print(f"FAILED {failure}", flush=True)
        sys.exit(1)
