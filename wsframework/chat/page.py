"""The page at `/`: one HTML file, and the header that keeps everything else out of it.

The Content-Security-Policy allows exactly the style and the script that are in the file, by their hashes, and
connections to where the page came from. So even if a text ever became markup, nothing in it could run, load
or send anything; and with Trusted Types required, browsers that know them refuse to turn text into markup.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib.resources import files

from wsframework import Request, Response

__all__ = ["ChatPage"]

_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


class ChatPage:
    """The HTTP handler of the chat's page.

    Args:
        path: the path of the chat's WebSocket on the same host and port.
        room: the room that newcomers find themselves in.
    """

    def __init__(self, path: str, room: str) -> None:
        source = files("wsframework.chat").joinpath("page.html").read_text(encoding="utf-8")
        self._page = source.replace("{{path}}", html.escape(path)).replace("{{room}}", html.escape(room))
        self._headers = {
            "Content-Security-Policy": _policy(self._page),
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-cache",
        }

    async def show(self, request: Request) -> Response:
        """Answer with the page."""
        return Response.html(self._page, headers=self._headers)


def _policy(page: str) -> str:
    hashes: dict[str, list[str]] = {"style": [], "script": []}
    for kind, content in _INLINE.findall(page):
        # "the content of the element", byte for byte (CSP Level 3 §8.2).
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(hashes['script'])}",
            f"style-src {' '.join(hashes['style'])}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )
