"""Run an App on a trio-websocket server.

Theory of operation
-------------------
trio-websocket listens and accepts. A connection is then handed over to a native `Server` that listens nowhere
and that decides, answers, moves the bytes and runs the handler as it does everywhere: one implementation
keeps the promises on every host. There are two ways in:

    serve_websocket     ours, in place of trio-websocket's function of that name: every connection is handed
                        over before its first byte
    serve_request       what `trio_websocket.serve_websocket(app, …)` calls, once for each request: the
                        connection is handed over behind its request's head

What happens before the second of them is out of an App's reach: trio-websocket has then accepted the
connection and read the head with a parser whose exceptions end its whole server. `docs/moving.md` lists what
follows.
"""

from wsframework.hosts.trio_websocket.listening import serve_websocket
from wsframework.hosts.trio_websocket.requests import serve_request

__all__ = ["serve_request", "serve_websocket"]
