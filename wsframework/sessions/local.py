"""The store of a single process: sessions in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import attrs
import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from wsframework.errors import SessionUnavailable
from wsframework.sessions.store import SessionClaim, SessionStore

__all__ = ["LocalSessionStore", "call_for_local_sessions"]

_OVERHEAD_BYTES = 1024
"""What a record takes besides its body, about."""


_on_session: Callable[[], None] | None = None


def call_for_local_sessions(callback: Callable[[], None] | None) -> None:
    """Set what is called whenever a session begins in any `LocalSessionStore` of this process.

    Args:
        callback: for a process that is one of several; must not raise. None for nothing, as at the start.
    """
    global _on_session
    _on_session = callback


@attrs.define(eq=False)
class _Record:
    """A session.

    Attributes:
        claim: the newest one; it has the secret and the body.
        former: digest of the secret before, or None.
        former_until: when that ends.
        expires: when the record is removed; None while the claim holds it.
    """

    claim: SessionClaim
    former: str | None = None
    former_until: float = 0.0
    expires: float | None = None

    @property
    def size(self) -> int:
        return len(self.claim.body) + _OVERHEAD_BYTES


class LocalSessionStore(SessionStore):
    """Sessions in the memory of one process. It need not be installed.

    They end with the process: use it for programs of a single process whose clients need not come back after
    a restart, and for tests.

    Args:
        bytes: the memory that sessions without a connection may take together. When there are more, those
            that have waited for longest are removed. 64 MiB.
        clock: returns monotonic seconds.
    """

    def __init__(
        self, *, bytes: int = 64 * 1024 * 1024, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self._most_bytes = bytes
        self._clock = clock
        self._records: dict[str, _Record] = {}
        # Records that no claim holds, in the order in which they were released.
        self._released: OrderedDict[str, _Record] = OrderedDict()
        self._released_bytes = 0

    def __len__(self) -> int:
        """Return how many sessions there are."""
        return len(self._records)

    async def create(self, claim: SessionClaim) -> None:
        """Make the record.

        Cancellation: cancelled means not made.
        """
        await checkpoint_if_cancelled()
        self._remove_expired()
        claim.generation = 1
        self._records[claim.id] = _Record(claim)
        if _on_session is not None:
            _on_session()
        await cancel_shielded_checkpoint()

    async def resume(self, claim: SessionClaim, secret: str) -> bool:
        """Take a session.

        Cancellation: cancelled means not taken.
        """
        await checkpoint_if_cancelled()
        self._remove_expired()
        taken = self._resume(claim, secret)
        await cancel_shielded_checkpoint()
        return taken

    def _resume(self, claim: SessionClaim, secret: str) -> bool:
        record, now = self._records.get(claim.id), self._clock()
        if record is None or (record.expires is not None and record.expires <= now):
            return False
        before = record.claim
        if before.user != claim.user:
            return False
        if secret == before.secret:
            record.former, record.former_until = secret, now + claim.overlap
        elif secret != record.former or record.former_until <= now:
            return False
        self._hold(record)
        claim.generation, claim.body = before.generation + 1, before.body
        record.claim = claim
        before.take()
        return True

    async def save(self, claim: SessionClaim, body: bytes) -> None:
        """Replace the body.

        Raises:
            SessionUnavailable: the record is gone.

        Cancellation: cancelled means not replaced.
        """
        await checkpoint_if_cancelled()
        if self._held(claim) is not None:
            claim.body = body
        await cancel_shielded_checkpoint()

    async def confirm(self, claim: SessionClaim) -> None:
        """Forget the secret before.

        Raises:
            SessionUnavailable: the record is gone.

        Cancellation: cancelled means not forgotten.
        """
        await checkpoint_if_cancelled()
        record = self._held(claim)
        if record is not None:
            record.former = None
        await cancel_shielded_checkpoint()

    async def end(self, claim: SessionClaim) -> None:
        """Remove the record.

        Cancellation: cancelled means not removed.
        """
        await checkpoint_if_cancelled()
        record = self._records.get(claim.id)
        if record is not None and record.claim is claim:
            self._remove(record)
        await cancel_shielded_checkpoint()

    def release(self, claim: SessionClaim) -> None:
        """Let the record expire after the claim's window."""
        record = self._records.get(claim.id)
        if record is None or record.claim is not claim or record.expires is not None:
            return
        record.expires = self._clock() + claim.window
        self._released[claim.id] = record
        self._released_bytes += record.size
        while self._released_bytes > self._most_bytes:
            self._remove(next(iter(self._released.values())))

    def _held(self, claim: SessionClaim) -> _Record | None:
        """Return the claim's record; None if another claim has taken it.

        Raises:
            SessionUnavailable: it is gone.
        """
        if claim.taken:
            return None
        record = self._records.get(claim.id)
        if record is None or record.expires is not None:
            raise SessionUnavailable("the session has ended")
        return record

    def _hold(self, record: _Record) -> None:
        if record.expires is not None:
            record.expires = None
            del self._released[record.claim.id]
            self._released_bytes -= record.size

    def _remove(self, record: _Record) -> None:
        self._hold(record)
        del self._records[record.claim.id]

    def _remove_expired(self) -> None:
        """Remove the records at the front that have expired; a later one may have a shorter window."""
        now = self._clock()
        while self._released:
            record = next(iter(self._released.values()))
            if record.expires is not None and record.expires > now:
                break
            self._remove(record)
