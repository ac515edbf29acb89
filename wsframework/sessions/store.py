"""What keeps sessions: the base class `SessionStore`, and a connection's claim on one of them.

A store has one record for each session: whose it is, digests of its secrets, who has claimed it, and a body,
which it does not read. `wsframework.testing.SessionStoreContract` tests one.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

__all__ = ["SessionClaim", "SessionStore"]


class SessionClaim:
    """One connection's claim on a session. At any time a session has at most one that holds.

    Args:
        id: the session's id.
        user: digest of the user whose session it is, a text of letters, digits and hyphens.
        secret: the same of the secret that resumes it from now on.
        window: seconds for which the record stays after the claim was released.
        overlap: seconds for which the former secret stays valid, unless the new one is confirmed before.
        body: what the record holds; of a session that is resumed, the store sets it.

    Attributes:
        on_taken: called at most once, in the server's thread, when another claim has taken the session; it
            must not raise. None when the connection has ended.
        tag: a random text that no other claim has.
        generation: how many claims the session has had, this one included; 0 before it was made. The claim
            with the highest one holds.
        taken: whether another claim has taken the session.
    """

    __slots__ = (
        "body",
        "generation",
        "id",
        "on_taken",
        "overlap",
        "secret",
        "tag",
        "taken",
        "user",
        "window",
    )

    def __init__(
        self,
        id: str,
        user: str,
        secret: str,
        *,
        window: float,
        overlap: float,
        body: bytes = b"",
    ) -> None:
        self.id = id
        self.user = user
        self.secret = secret
        self.window = window
        self.overlap = overlap
        self.body = body
        self.tag = secrets.token_hex(8)
        self.generation = 0
        self.taken = False
        self.on_taken: Callable[[], None] | None = None

    def take(self) -> None:
        """Take note that another claim has taken the session."""
        if not self.taken:
            self.taken = True
            if self.on_taken is not None:
                self.on_taken()


class SessionStore(ABC):
    """The base class of stores, in memory or in a database that many processes share.

    All calls come from the thread of the server. Each method is one atomic step among all processes, and all
    times are of the store's clock. Methods raise `SessionUnavailable` when the step cannot be done, or when
    the record of a claim is gone. When another claim has taken the session they call `claim.take()` and
    change nothing.
    """

    def install(self, app: Any, /) -> None:
        """Let an App run the store: `app.install(store)`. A store is a plugin."""
        app.lifespan(self.run)

    def run(self) -> AbstractAsyncContextManager[None]:
        """Return a context in which the store's own connections and tasks live.

        Write it with `@asynccontextmanager`. It is entered before the first connection is accepted and left
        after the last one is closed, like every lifespan.
        """
        return _nothing_to_run()

    @abstractmethod
    async def create(self, claim: SessionClaim) -> None:
        """Make the record of a new session, with the claim's body and secret.

        Raises:
            SessionUnavailable: it cannot be stored now.

        Cancellation: no record is left behind for longer than `claim.window`.
        """

    @abstractmethod
    async def resume(self, claim: SessionClaim, secret: str) -> bool:
        """Take a session for a claim, if the secret is the session's and the user is the same.

        The secret is the session's if it is the newest one, or the one before it that its client showed, for
        `claim.overlap` seconds after that was replaced and until the newest is confirmed or shown. Then
        `claim.secret` becomes the newest, `claim.generation` and `claim.body` are set, and the claim that had
        the session is told, wherever it is. Otherwise nothing changes.

        Args:
            claim: of the connection that resumes.
            secret: digest of the secret that its client has shown.

        Returns:
            Whether the session was taken. False if there is no such session, the secret is not its own, or
            the user is another one.

        Raises:
            SessionUnavailable: the store cannot say.

        Cancellation: it may have been taken; the secret that was shown stays valid for `claim.overlap`.
        """

    @abstractmethod
    async def save(self, claim: SessionClaim, body: bytes) -> None:
        """Replace the body.

        Raises:
            SessionUnavailable: it was not stored, or it is not known whether it was.

        Cancellation: it may have been stored.
        """

    @abstractmethod
    async def confirm(self, claim: SessionClaim) -> None:
        """Let no secret but the newest be valid.

        Raises:
            SessionUnavailable: the store cannot do it now.

        Cancellation: it may have been done.
        """

    @abstractmethod
    async def end(self, claim: SessionClaim) -> None:
        """Remove the record. It is no error if it is gone.

        Raises:
            SessionUnavailable: the store cannot do it now.

        Cancellation: it may have been done.
        """

    @abstractmethod
    def release(self, claim: SessionClaim) -> None:
        """Let the record expire after `claim.window`, because the connection has ended; without waiting.

        A claim that was never released, because its process was killed, must not hold the record for much
        longer than that.
        """


@asynccontextmanager
async def _nothing_to_run() -> AsyncIterator[None]:
    yield
