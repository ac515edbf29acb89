"""A program that sends the same frames without end from many sockets: `python flooder.py PORT CLIENTS FILE`.

The file holds a pickled dictionary: `request`, the opening handshake; `once` and `forever`, bytes;
`tls`, a bool. It runs until it is terminated, and says "ready" when all are connected.
"""

from __future__ import annotations

import pickle
import socket
import ssl
import sys
import time


def connect(port: int, request: bytes, context: ssl.SSLContext | None) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", port), timeout=20)
    if context is not None:
        found = context.wrap_socket(found)
    found.sendall(request)
    head = b""
    while b"\r\n\r\n" not in head:
        head += found.recv(1)
    assert b" 101 " in head, head
    found.setblocking(False)
    return found


def main() -> None:
    port, clients = int(sys.argv[1]), int(sys.argv[2])
    with open(sys.argv[3], "rb") as file:
        plan = pickle.load(file)
    context = None
    if plan["tls"]:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    forever: bytes = plan["forever"]
    unsent = {
        connect(port, plan["request"], context): memoryview(plan["once"] + forever) for _ in range(clients)
    }
    print("ready", flush=True)
    while True:
        for client in list(unsent):
            try:
                left = unsent[client][client.send(unsent[client][:65536]) :]
                unsent[client] = left if left else memoryview(forever)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            except OSError:
                del unsent[client]  # failed, and gone
        time.sleep(0.001)


if __name__ == "__main__":
    main()
