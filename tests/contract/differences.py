"""What a plain `trio_websocket.serve_websocket(app, …)` cannot do, by name.

No contract test is skipped for a host. Where a host differs, the test says `host.differs(Difference.X)` and
checks what that host does instead, so a difference that goes away fails a test and leaves this list.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Difference"]


class Difference(Enum):
    """A promise that a host does not keep, and what it does instead."""

    ENDS_WITH_A_BAD_HEAD = "one request that trio-websocket's parser fails on ends the whole server"
    STANDS_STILL_FOR_A_HEAD = "one head of 16 KiB can take a second or more of everybody's time"
    SPEAKS_NO_HTTP = "a request that is no opening handshake gets a bare 400, not a page, 404, 405 or 426"
    CAPS_HEADS = "a head past 16 KiB gets a bare 400 or a reset, though Limits.head_bytes allows more"
    COUNTS_NO_HANDSHAKES = (
        "a client whose request has not come is not counted, and is waited for for 60 seconds"
    )
    DROPS_HANDSHAKES = "a stopping server drops clients whose request has not come, without an answer"
