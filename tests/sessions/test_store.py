"""What a claim and the base class of stores do; tests/testing has the contract of stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from wsframework import App, LocalSessionStore, Plugin, SessionClaim, Sessions, SessionStore
from wsframework.testing import serve

pytestmark = pytest.mark.virtual_time


async def test_a_claim_is_taken_once_and_after_its_end_in_silence() -> None:
    told: list[str] = []
    claims = [SessionClaim("id", "user", "secret", window=1, overlap=1) for _ in range(2)]
    for claim in claims:
        claim.on_taken = lambda: told.append("taken")
    claims[1].on_taken = None
    for claim in (*claims, *claims):
        claim.take()
    assert told == ["taken"]
    assert all(claim.taken for claim in claims)
    assert claims[0].tag != claims[1].tag


@pytest.mark.parametrize("install", [lambda store: store, lambda store: Sessions(store=store)])
async def test_a_store_and_sessions_are_plugins_and_its_context_is_a_lifespan(
    install: Callable[[SessionStore], Plugin],
) -> None:
    events: list[str] = []

    class Noting(LocalSessionStore):
        @asynccontextmanager
        async def run(self) -> AsyncIterator[None]:
            events.append("begins")
            yield
            events.append("ends")

    app = App()
    app.install(install(Noting()))
    async with serve(app):
        assert events == ["begins"]
    assert events == ["begins", "ends"]
