"""An App behind nginx and HAProxy, with one or two of them on the way, over TCP or a unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio
import trustme

from tests.docs.snippets import DOCS, files
from tests.proxies.running import (
    answer_to,
    connect_through,
    free_port,
    haproxy,
    issue_certificate,
    nginx,
)
from wsframework import App, Connection, Limits

__all__ = ["CLIENT", "INNER", "UPGRADE", "Front", "Upstream", "behind", "haproxy_text", "whoami_app"]

CLIENT = "127.0.0.9"
"""Another address of this machine, so that the client does not look like a proxy."""

UPGRADE = """
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection upgrade;
    proxy_set_header Host $http_host;
"""

INNER = files(DOCS / "deployment.md")["inner.conf"]


@attrs.frozen
class Upstream:
    """Where a proxy passes requests on to: a port of this machine, or a unix socket."""

    place: int | Path

    @property
    def nginx(self) -> str:
        return f"127.0.0.1:{self.place}" if isinstance(self.place, int) else f"unix:{self.place}"

    @property
    def haproxy(self) -> str:
        return f"127.0.0.1:{self.place}" if isinstance(self.place, int) else f"unix@{self.place}"


def nginx_text(port: int, path: Path, upstream: Upstream, folder: Path, *, outer: bool) -> str:
    fields = "proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;"
    tls = f"ssl_certificate {folder}/fullchain.pem; ssl_certificate_key {folder}/privkey.pem;"
    return (
        f"server {{ listen 127.0.0.1:{port} {'ssl' if outer else ''}; listen unix:{path};"
        f"{tls if outer else ''} location / {{"
        f"proxy_pass http://{upstream.nginx}; {UPGRADE} {fields if outer else INNER} }} }}\n"
    )


def haproxy_text(port: int, path: Path, upstream: Upstream, folder: Path, *, outer: bool) -> str:
    fields = [
        "http-request set-header X-Forwarded-For %[src]",
        "http-request set-header X-Forwarded-Proto https",
    ]
    return "\n".join(
        [
            "defaults",
            "    mode http",
            *(f"    timeout {what} 20s" for what in ("connect", "client", "server", "tunnel")),
            "listen proxy",
            f"    bind 127.0.0.1:{port} " + (f"ssl crt {folder}/haproxy.pem" if outer else ""),
            f"    bind unix@{path}",
            *(f"    {line}" for line in (fields if outer else ["option forwardfor"])),
            f"    server app {upstream.haproxy}",
            "",
        ]
    )


PROXIES: dict[str, tuple[Callable[..., AbstractAsyncContextManager[None]], Callable[..., str]]] = {
    "nginx": (nginx, nginx_text),
    "haproxy": (haproxy, haproxy_text),
}


def whoami_app(limits: Limits | None = None) -> App:
    app = App(trusted_proxies=["127.0.0.1", "unix"], limits=limits)

    @app.websocket("/ws/whoami")
    async def whoami(ws: Connection) -> None:
        request = ws.request
        await ws.send(f"{request.remote} {request.secure} {request.host.partition(':')[0]}")

    @app.websocket("/ws/stay")
    async def stay(ws: Connection) -> None:
        await ws.send("here")
        async for _ in ws:
            pass

    return app


@attrs.frozen
class Front:
    """An App behind proxies."""

    port: int
    authority: trustme.CA

    async def answer(self, source: str | None = CLIENT, **fields: str) -> str | int:
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        return await answer_to(self.port, self.authority, headers, source)

    def stay(self, source: str) -> AbstractAsyncContextManager[object]:
        return connect_through(self.port, self.authority, {}, "/ws/stay", source)


@asynccontextmanager
async def behind(
    app: App, folder: Path, upstream: str, *names: str, between: str = "tcp"
) -> AsyncIterator[Front]:
    """Serve an App behind proxies.

    Args:
        app: the App.
        folder: where the files of all of them are.
        upstream: whether the innermost proxy connects to the App over "tcp" or "unix".
        names: the proxies, the outermost first.
        between: over what the others connect to the next one.
    """
    authority = issue_certificate(folder)
    path = folder / "app.sock"
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        if upstream == "unix":
            await nursery.start(partial(app.serve, unix_path=str(path)))
            target = Upstream(path)
        else:
            server = await nursery.start(app.serve, "127.0.0.1", 0)
            target = Upstream(server.port)
        port = 0
        for place, name in reversed(list(enumerate(names))):
            run, write = PROXIES[name]
            port, own = free_port(), folder / f"proxy-{place}"
            own.mkdir()
            listening = own / "proxy.sock"
            text = write(port, listening, target, folder, outer=place == 0)
            await stack.enter_async_context(run(own, port, text))
            target = Upstream(listening if between == "unix" else port)
        yield Front(port, authority)
        await stack.aclose()
        nursery.cancel_scope.cancel()
