"""Files of a folder, through Starlette, which the extra `http` installs; imported when it is asked for."""

from __future__ import annotations

import os

from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.staticfiles import StaticFiles

from wsframework.errors import ConfigurationError
from wsframework.mounting.worlds import ASGIApp, Receive, Scope, Send

__all__ = ["static_files"]


def static_files(folder: str | os.PathLike[str], *, html: bool) -> ASGIApp:
    """Return an application that serves the files of a folder.

    Raises:
        ConfigurationError: there is no such folder.
    """
    try:
        files = StaticFiles(directory=folder, html=html)
    except RuntimeError as error:
        raise ConfigurationError(f"app.files: {error}") from None
    # Files raise what is to become a 404 or a 405.
    answering = ExceptionMiddleware(files)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await answering(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})

    return serve
