"""The contract of stores finds out those that break it; tests/sessions has one that keeps it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from wsframework import LocalSessionStore, SessionClaim, SessionStore, SessionUnavailable
from wsframework.testing import SessionStoreContract

pytestmark = pytest.mark.virtual_time


class Trusting(LocalSessionStore):
    """Looks at no secret."""

    async def resume(self, claim: SessionClaim, secret: str) -> bool:
        record = self._records.get(claim.id)
        return await super().resume(claim, record.claim.secret if record else secret)


class OfAnybody(LocalSessionStore):
    """Looks at no user."""

    async def resume(self, claim: SessionClaim, secret: str) -> bool:
        record = self._records.get(claim.id)
        claim.user = record.claim.user if record else claim.user
        return await super().resume(claim, secret)


class Unfenced(LocalSessionStore):
    """Lets a claim write that was taken."""

    async def save(self, claim: SessionClaim, body: bytes) -> None:
        record = self._records[claim.id]
        await super().save(record.claim, body)


class Silent(LocalSessionStore):
    """Tells nobody that a session was taken."""

    async def resume(self, claim: SessionClaim, secret: str) -> bool:
        record = self._records.get(claim.id)
        if record:
            record.claim.on_taken = None
        return await super().resume(claim, secret)


class Strict(LocalSessionStore):
    """Forgets the former secret at once."""

    async def resume(self, claim: SessionClaim, secret: str) -> bool:
        taken = await super().resume(claim, secret)
        if taken:
            self._records[claim.id].former = None
        return taken


class Endless(LocalSessionStore):
    """Lets nothing expire."""

    def release(self, claim: SessionClaim) -> None:
        claim.window = float("inf")
        super().release(claim)


class Careless(LocalSessionStore):
    """Ends whatever it is asked to."""

    async def end(self, claim: SessionClaim) -> None:
        await super().end(self._records[claim.id].claim if claim.id in self._records else claim)


def contract_of(make: Callable[[], SessionStore]) -> SessionStoreContract:
    class Contract(SessionStoreContract):
        @asynccontextmanager
        async def stores(self) -> AsyncIterator[list[SessionStore]]:
            yield [make()]

    return Contract()


@pytest.mark.parametrize(
    ("store", "test"),
    [
        (Trusting, SessionStoreContract.test_nothing_but_the_secret_and_the_user_resumes_a_session),
        (OfAnybody, SessionStoreContract.test_nothing_but_the_secret_and_the_user_resumes_a_session),
        (
            Unfenced,
            SessionStoreContract.test_whoever_resumes_takes_the_session_and_the_former_claim_writes_no_more,
        ),
        (
            Careless,
            SessionStoreContract.test_whoever_resumes_takes_the_session_and_the_former_claim_writes_no_more,
        ),
        (
            Strict,
            SessionStoreContract.test_the_former_secret_is_valid_until_the_new_one_is_confirmed_or_shown,
        ),
        (Endless, SessionStoreContract.test_a_record_stays_while_it_is_held_and_expires_after_that),
    ],
)
async def test_a_store_that_breaks_the_contract_fails_it(store: type[SessionStore], test: Any) -> None:
    with pytest.raises((AssertionError, SessionUnavailable, trio.TooSlowError)):
        await test(contract_of(store))
