"""The App that workers of `wsframework chat --redis` import; the parent has checked what it is made of."""

from __future__ import annotations

import os

from wsframework.cli.chat import PREFIX, REDIS, chat_on_redis

__all__ = ["app"]

app, _ = chat_on_redis(os.environ.get(REDIS, "redis://127.0.0.1"), os.environ.get(PREFIX, "ws"))
"""The chat."""
