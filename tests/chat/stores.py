"""Histories for tests, and a clock for them."""

from __future__ import annotations

from wsframework.chat.history import HistoryStore
from wsframework.chat.messages import Draft, Message

DAY = 86400.0


class Clock:
    """Seconds since 1970, set by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


def pass_days(store: HistoryStore, clock: Clock, days: int) -> None:
    """Let days go by, with a look at the clock each day."""
    for _ in range(days):
        clock.now += DAY
        store.append([])


def say(store: HistoryStore, *texts: str, room: str = "lobby", name: str = "Ada") -> list[Message]:
    return [message for message, _ in store.append([Draft(room, name, text) for text in texts])]


def texts(messages: tuple[Message, ...]) -> list[str]:
    return [message.text for message in messages]
