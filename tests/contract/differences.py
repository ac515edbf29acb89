"""What the trio-websocket host cannot do, by name.

No contract test is skipped for a host. Where a host differs, the test says `host.differs(Difference.X)` and
checks what that host does instead, so a difference that goes away fails a test and leaves this list.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Difference"]


class Difference(Enum):
    """A promise that a host does not keep, and what it does instead."""

    ANSWERS_CLOSE_AT_ONCE = "the peer's Close is answered before unread messages are handled"
    DRAINS_DEAF = "a stopping server sends Close 1001 and does not read the peers' answers"
    SPEAKS_NO_HTTP = "a request that is no opening handshake gets a bare 400, not a page, 404, 405 or 426"
    BOUNDS_NO_HEAD = "the request's head has no limit of bytes"
    COMPRESSES_NOTHING = "permessage-deflate is never agreed to"
    SENDS_NO_KEEPALIVE = "a quiet peer is never pinged"
    COUNTS_CODE_POINTS = "a text's size is counted in code points, not in bytes"
