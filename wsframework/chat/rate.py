"""Rate limits for a client's requests: a token bucket without a clock of its own."""

from __future__ import annotations

import attrs

__all__ = ["Rate", "Throttle"]


@attrs.frozen(kw_only=True)
class Rate:
    """How many requests a connection may make.

    Attributes:
        per_second: requests per second in the long run. 20; a fast typist with typing notices makes 3.
        burst: requests at once after a quiet time. 60; a page that reconnects to 20 rooms makes 21.
        tolerance: requests over the rate that are refused with an answer before the connection is closed
            with 1008. The count restarts when the client has been quiet long enough for a full burst.
    """

    per_second: float = attrs.field(default=20.0, validator=attrs.validators.gt(0))
    burst: int = attrs.field(default=60, validator=attrs.validators.ge(1))
    tolerance: int = attrs.field(default=60, validator=attrs.validators.ge(0))


class Throttle:
    """The rate limit of one connection."""

    __slots__ = ("_at", "_rate", "_refused", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._tokens = float(rate.burst)
        self._at = now
        self._refused = 0

    def take(self, now: float) -> float:
        """Ask for one request at the moment `now`, in seconds.

        Returns:
            0.0 when it may go ahead, else the seconds after which one may.
        """
        rate = self._rate
        self._tokens = min(rate.burst, self._tokens + (now - self._at) * rate.per_second)
        self._at = now
        if self._tokens >= rate.burst:
            self._refused = 0
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        self._refused += 1
        return (1 - self._tokens) / rate.per_second

    @property
    def exhausted(self) -> bool:
        """Whether more requests were refused than the rate tolerates."""
        return self._refused > self._rate.tolerance
