"""Apps in asyncio programs: a server beside an asyncio application, in one thread and one process."""

from wsframework.asyncio.crossing import from_asyncio, from_trio
from wsframework.asyncio.serving import House, serve

__all__ = ["House", "serve", "from_asyncio", "from_trio"]
