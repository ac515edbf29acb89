"""What an application's `send` raises once its client has left, and what the application raises then."""

from __future__ import annotations

from wsframework.crashes import causes_of, is_a, leaves

__all__ = ["ClientLeft", "is_about_leaving"]


class ClientLeft(OSError):
    """The client has left, so nothing can be sent. ASGI wants an OSError here (HTTP and WebSocket 2.4)."""

    def __init__(self) -> None:
        super().__init__("the client has left")


def is_about_leaving(error: BaseException) -> bool:
    """Whether an exception says no more than that the client has left: frameworks raise their own for it."""
    return all(
        "Disconnect" in type(leaf).__name__
        or any(is_a(cause, ClientLeft) for cause in (leaf, *causes_of(leaf)))
        for leaf in leaves(error)
    )
