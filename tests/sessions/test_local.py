"""The store in memory: the contract, its clock and its bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from wsframework import LocalSessionStore, SessionClaim, SessionStore, SessionUnavailable
from wsframework.testing import SessionStoreContract

pytestmark = pytest.mark.virtual_time


class TestLocalSessionStore(SessionStoreContract):
    @asynccontextmanager
    async def stores(self) -> AsyncIterator[list[SessionStore]]:
        store = LocalSessionStore()
        async with store.run():
            yield [store]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def claim_of(id: str, secret: str = "one", body: bytes = b"", window: float = 10.0) -> SessionClaim:
    return SessionClaim(id, "Ada", secret, window=window, overlap=5.0, body=body)


async def test_records_that_have_expired_are_removed() -> None:
    clock = Clock()
    store = LocalSessionStore(clock=clock)
    for number in range(3):
        claim = claim_of(f"{number}")
        await store.create(claim)
        if number:
            store.release(claim)
        clock.now += 4
    assert len(store) == 3
    clock.now = 14
    await store.create(claim_of("3"))
    assert len(store) == 3
    clock.now = 18
    assert not await store.resume(claim_of("x"), "one")
    assert len(store) == 2
    assert await store.resume(claim_of("0"), "one")


async def test_one_behind_another_that_stays_for_longer_expires_in_time() -> None:
    clock = Clock()
    store = LocalSessionStore(clock=clock)
    for id, window in (("long", 60.0), ("short", 1.0)):
        claim = claim_of(id, window=window)
        await store.create(claim)
        store.release(claim)
    clock.now = 1
    assert not await store.resume(claim_of("short"), "one")
    assert await store.resume(claim_of("long"), "one")


async def test_sessions_without_a_connection_take_so_many_bytes_and_the_oldest_go_first() -> None:
    store = LocalSessionStore(bytes=10_000)
    held = claim_of("held", body=b"x" * 50_000)
    await store.create(held)
    claims = [claim_of(f"{number}", body=b"x" * 2000) for number in range(6)]
    for claim in claims:
        await store.create(claim)
        for _ in range(2):
            store.release(claim)  # twice is once
    assert len(store) == 4
    found = [await store.resume(claim_of(claim.id, "two"), "one") for claim in claims]
    assert found == [False] * 3 + [True] * 3
    # Those are held again, and do not count.
    for claim in claims[:3]:
        await store.create(claim)
        store.release(claim)
    assert len(store) == 7
    assert not held.taken


async def test_a_claim_that_was_released_writes_no_more() -> None:
    store = LocalSessionStore()
    claim = claim_of("one")
    await store.create(claim)
    store.release(claim)
    with pytest.raises(SessionUnavailable, match="the session has ended"):
        await store.save(claim, b"late")


async def test_the_former_secret_ends_in_time() -> None:
    clock = Clock()
    store = LocalSessionStore(clock=clock)
    await store.create(claim_of("id"))
    assert await store.resume(claim_of("id", "two"), "one")
    clock.now = 4.9
    assert await store.resume(claim_of("id", "three"), "one")
    clock.now = 5
    assert not await store.resume(claim_of("id", "four"), "one")
    assert await store.resume(claim_of("id", "five"), "three")


@pytest.mark.parametrize("step", ["create", "resume", "save", "confirm", "end"])
async def test_a_step_is_a_checkpoint_and_one_that_is_cancelled_was_not_done(step: str) -> None:
    store = LocalSessionStore()
    claim, next_claim = claim_of("id"), claim_of("id", "two")
    await store.create(claim)
    assert await store.resume(next_claim, "one")
    steps: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: store.create(claim_of("other")),
        "resume": lambda: store.resume(claim_of("id", "three"), "two"),
        "save": lambda: store.save(next_claim, b"new"),
        "confirm": lambda: store.confirm(next_claim),
        "end": lambda: store.end(next_claim),
    }
    with trio.CancelScope() as scope:
        scope.cancel()
        await steps[step]()
    assert scope.cancelled_caught
    assert len(store) == 1
    assert (next_claim.taken, next_claim.body) == (False, b"")
    if step == "confirm":
        next_claim = claim_of("id", "two")
        assert await store.resume(next_claim, "one")  # the former secret is valid still
    with trio.testing.assert_checkpoints():
        await steps[step]()
