"""A chat that is the same in all processes which share a Redis: names, rooms, who types, and messages.

`store` runs the scripts in `scripts/` and hears what they tell; `transcript` keeps the messages, `attendance`
the names and rooms; `sharing` makes both. It needs the extra `redis`.
"""

from wsframework.chat.redis.sharing import share

__all__ = ["share"]
