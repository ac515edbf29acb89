"""Groups over Redis on Django Channels and uvicorn: `core` and `pubsub`, the layers of channels_redis."""

import os
import sys
from typing import Any

import django
from django.conf import settings

LAYERS = {
    "core": "channels_redis.core.RedisChannelLayer",
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
}

settings.configure(
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": LAYERS[sys.argv[2]],
            "CONFIG": {"hosts": [os.environ["BENCH_REDIS"]], "prefix": os.environ["BENCH_PREFIX"]}
            # The default capacity of 100 drops what a burst brings.
            | ({"capacity": 100_000} if sys.argv[2] == "core" else {}),
        }
    }
)
django.setup()

import uvicorn  # noqa: E402
from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from benchmarks.servers import BACKLOG, free_port, ready  # noqa: E402


class Member(AsyncWebsocketConsumer):  # type: ignore[misc]
    async def connect(self) -> None:
        await self.channel_layer.group_add(self.scope["url_route"]["kwargs"]["name"], self.channel_name)
        await self.accept()
        await self.send(text_data="joined")

    async def said(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


class Publisher(AsyncWebsocketConsumer):  # type: ignore[misc]
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        name, _, text = (text_data or "").partition(" ")
        await self.channel_layer.group_send(name, {"type": "said", "text": text})


app = ProtocolTypeRouter(
    {
        "websocket": URLRouter(
            [path("member/<str:name>", Member.as_asgi()), path("publisher", Publisher.as_asgi())]
        )
    }
)


class Server(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        ready(self.config.port)


if __name__ == "__main__":
    port = free_port(int(sys.argv[1]))
    Server(
        uvicorn.Config(app, port=port, backlog=BACKLOG, access_log=False, log_level="warning", loop="uvloop")
    ).run()
