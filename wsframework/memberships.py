"""The rooms that one connection is a member of: how many, and which of them it leaves by its end."""

from __future__ import annotations

from collections.abc import Callable

from wsframework.errors import TooManyRooms
from wsframework.records import record_failure

__all__ = ["Memberships"]


class Memberships:
    """The memberships of one connection.

    Args:
        limit: how many there may be at once; None for any number.

    Attributes:
        count: how many there are.
    """

    __slots__ = ("_entered", "_limit", "count")

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self.count = 0
        # Those that have no scope. An `async with` leaves its room by itself.
        self._entered: dict[object, Callable[[], None]] | None = None

    def begin(self) -> None:
        """Count one more.

        Raises:
            TooManyRooms: there would be too many.
        """
        if self._limit is not None and self.count >= self._limit:
            raise TooManyRooms(self._limit)
        self.count += 1

    def end_with_connection(self, membership: object, leave: Callable[[], None]) -> None:
        """Have `end_all` end a membership that was counted: it calls `leave`, and that `end`."""
        if self._entered is None:
            self._entered = {}
        self._entered[membership] = leave

    def end(self, membership: object) -> None:
        """Count one less."""
        self.count -= 1
        if self._entered is not None:
            self._entered.pop(membership, None)

    def end_all(self) -> None:
        """End those that end with the connection. An engine's error is logged, and does not stop this."""
        while self._entered:
            _, leave = self._entered.popitem()
            try:
                leave()
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                record_failure(error)
