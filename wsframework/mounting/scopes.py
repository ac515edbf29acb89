"""The scope of a request: what ASGI tells an application about it (ASGI 3.0, HTTP and WebSocket 2.5)."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from wsframework.mounting.worlds import Scope
from wsframework.request import Address, Request
from wsframework.tokens import path_of

__all__ = ["http_scope", "websocket_scope"]


def http_scope(request: Request, root_path: str, state: dict[str, Any] | None, http_version: str) -> Scope:
    """Return the scope of a plain request.

    Args:
        request: the request.
        root_path: where the application is mounted, decoded; empty at `/`.
        state: what its lifespan has left for requests; None without a lifespan.
        http_version: "1.1" or "1.0".
    """
    scope = _scope_of(request, root_path, state)
    # By 2.4, applications that stream an answer do not call `receive` beside it, where it would take pieces
    # of the body from who reads that. What waits for something else when the client leaves is cancelled.
    scope.update(
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": http_version,
            "method": request.method,
            "scheme": "https" if request.secure else "http",
            "extensions": {},
        }
    )
    return scope


def websocket_scope(request: Request, root_path: str, state: dict[str, Any] | None) -> Scope:
    """Return the scope of an opening handshake; the arguments are those of `http_scope`."""
    scope = _scope_of(request, root_path, state)
    scope.update(
        {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if request.secure else "ws",
            "subprotocols": list(request.subprotocols),
            "extensions": {"websocket.http.response": {}},
        }
    )
    return scope


def _scope_of(request: Request, root_path: str, state: dict[str, Any] | None) -> Scope:
    raw_path = path_of(request.target)
    query = request.target.partition("#")[0].partition("?")[2]
    scope: Scope = {
        "path": unquote(raw_path),
        "raw_path": raw_path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": root_path,
        "headers": _fields_of(request),
        "client": None if _is_unix(request.remote) else (request.remote.host, request.remote.port or 0),
        "server": (request.local.host, request.local.port),
    }
    if state is not None:
        # Each request its own, with the same values.
        scope["state"] = state.copy()
    return scope


def _fields_of(request: Request) -> list[tuple[bytes, bytes]]:
    fields = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.pairs()
    ]
    host = request.host
    if host != request.headers.get("host", ""):
        # The allowed hosts are about this one: a target in absolute form, or a trusted proxy, has named it.
        fields = [field for field in fields if field[0] != b"host"]
        fields.insert(0, (b"host", host.encode("latin-1")))
    return fields


def _is_unix(address: Address) -> bool:
    return address.port is None and (not address.host or "/" in address.host)
