"""Tests that every store of sessions must pass, for authors of stores.

    class TestMyStore(SessionStoreContract):
        @asynccontextmanager
        async def stores(self) -> AsyncIterator[list[SessionStore]]:
            one, two = MyStore(url), MyStore(url)
            async with one.run(), two.run():
                yield [one, two]

A test runner that runs `async def test_…` methods with Trio, such as pytest with pytest-trio, does the rest.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import trio

from wsframework.errors import SessionUnavailable
from wsframework.sessions import SessionClaim, SessionStore
from wsframework.testing.cancelling import cancel_everywhere
from wsframework.testing.deadline import DEADLINE_SECONDS

__all__ = ["SessionStoreContract"]

_POLL_SECONDS = 0.005


async def _until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what a store has done shows no event here
            await trio.sleep(_POLL_SECONDS)


async def _is_refused(store: SessionStore, claim: SessionClaim) -> bool:
    try:
        await store.save(claim, b"refused")
    except SessionUnavailable:
        return True
    return claim.taken


class SessionStoreContract:
    """What `Sessions` relies on. Derive from it, and write `stores`.

    The stores may be one or several; several must keep the same sessions, as they would in several processes.

    Attributes:
        window: seconds in which a record expires, in the tests of that. Choose more for a store that is slow.
    """

    window = 1.0

    def stores(self) -> AbstractAsyncContextManager[Sequence[SessionStore]]:
        """Return running stores that keep the same sessions."""
        raise NotImplementedError

    def _claim(
        self, id: str | None = None, secret: str = "one", user: str = "Ada", body: bytes = b"", **terms: float
    ) -> SessionClaim:
        terms = {"window": 60.0, "overlap": 30.0, **terms}
        return SessionClaim(
            id or secrets.token_urlsafe(16),
            user,
            secret,
            body=body,
            window=terms["window"],
            overlap=terms["overlap"],
        )

    # Resuming

    async def test_a_session_is_resumed_at_every_node_with_what_was_saved_last(self) -> None:
        """A body is any bytes."""
        bodies = [b"", b"\x00\xff", b"x" * 20_000]
        async with self.stores() as stores:
            claim = self._claim(body=bytes(range(256)))
            await stores[0].create(claim)
            expected, secret = claim.body, claim.secret
            for turn in range(2 * len(stores) + 2):
                store, newer = stores[turn % len(stores)], f"secret-{turn}"
                claim = self._claim(claim.id, newer)
                assert await store.resume(claim, secret)
                assert (claim.body, claim.generation) == (expected, turn + 2)
                for expected in bodies:
                    await store.save(claim, expected)
                assert claim.body == expected
                store.release(claim)
                secret = newer

    async def test_nothing_but_the_secret_and_the_user_resumes_a_session(self) -> None:
        """Who tries it without them changes nothing."""
        async with self.stores() as stores:
            owner = self._claim(body=b"body")
            await stores[0].create(owner)
            for secret, user, id in [
                ("two", "Ada", owner.id),
                ("", "Ada", owner.id),
                ("one", "Bob", owner.id),
                ("one", "", owner.id),
                ("one", "Ada", f"{owner.id}x"),
                ("one", "Ada", "}: *\n"),
            ]:
                thief = self._claim(id, "three", user)
                assert not await stores[-1].resume(thief, secret)
                assert (thief.body, thief.generation) == (b"", 0)
            await stores[0].save(owner, b"still")
            assert not owner.taken
            assert await stores[-1].resume(self._claim(owner.id, "four"), "one")

    async def test_whoever_resumes_takes_the_session_and_the_former_claim_writes_no_more(self) -> None:
        """It is told, once, also in another process."""
        async with self.stores() as stores:
            told: list[str] = []
            first = self._claim(body=b"first")
            first.on_taken = lambda: told.append("first")
            await stores[0].create(first)
            second = self._claim(first.id, "two")
            second.on_taken = lambda: told.append("second")
            assert await stores[-1].resume(second, "one")
            await _until(lambda: bool(told))
            await stores[-1].save(second, b"second")
            assert await _is_refused(stores[0], first)
            await stores[0].confirm(first)
            await stores[0].end(first)
            stores[0].release(first)
            third = self._claim(first.id, "three")
            assert await stores[0].resume(third, "two")
            assert third.body == b"second"
            await _until(lambda: len(told) == 2)
            assert told == ["first", "second"]

    async def test_of_many_that_resume_at_once_one_holds_the_session(self) -> None:
        """All others are told."""
        async with self.stores() as stores:
            first = self._claim()
            await stores[0].create(first)
            claims = [self._claim(first.id, f"secret-{number}") for number in range(8)]

            async def resume(number: int) -> None:
                assert await stores[number % len(stores)].resume(claims[number], "one")

            async with trio.open_nursery() as nursery:
                for number in range(len(claims)):
                    nursery.start_soon(resume, number)
            await _until(lambda: sum(claim.taken for claim in claims) == len(claims) - 1)
            (holder,) = [claim for claim in claims if not claim.taken]
            assert holder.generation == len(claims) + 1 == max(claim.generation for claim in claims)
            await stores[claims.index(holder) % len(stores)].save(holder, b"mine")
            last = self._claim(first.id, "last")
            assert await stores[0].resume(last, holder.secret)
            assert last.body == b"mine"

    # Secrets

    async def test_the_former_secret_is_valid_until_the_new_one_is_confirmed_or_shown(self) -> None:
        """The new one may be lost with its connection; one before the former is never valid."""
        async with self.stores() as stores:
            claim = self._claim(secret="one")
            await stores[0].create(claim)
            assert await stores[-1].resume(self._claim(claim.id, "two"), "one")
            assert await stores[0].resume(self._claim(claim.id, "three"), "one")
            assert not await stores[0].resume(self._claim(claim.id, "x"), "two")  # it reached nobody
            assert await stores[-1].resume(self._claim(claim.id, "four"), "three")
            assert not await stores[0].resume(self._claim(claim.id, "x"), "one")
            last = self._claim(claim.id, "five")
            assert await stores[0].resume(last, "three")
            await stores[0].confirm(last)
            assert not await stores[-1].resume(self._claim(claim.id, "x"), "three")
            assert await stores[-1].resume(self._claim(claim.id, "six"), "five")

    async def test_the_former_secret_is_valid_for_some_seconds_only(self) -> None:
        """Its use does not make them longer."""
        async with self.stores() as stores:
            claim = self._claim()
            await stores[0].create(claim)
            began = trio.current_time()
            assert await stores[0].resume(self._claim(claim.id, "two", overlap=self.window), "one")
            await trio.sleep(self.window / 2)
            again = await stores[0].resume(self._claim(claim.id, "three", overlap=self.window), "one")
            assert again or trio.current_time() - began > self.window  # on a machine that is busy
            await trio.sleep(self.window * 0.6)
            assert not await stores[-1].resume(self._claim(claim.id, "x"), "one")
            assert await stores[-1].resume(self._claim(claim.id, "four"), "three" if again else "two")

    # The end

    async def test_a_session_that_was_ended_is_gone(self) -> None:
        """Its former holder cannot bring it back."""
        async with self.stores() as stores:
            first = self._claim()
            await stores[-1].create(first)
            second = self._claim(first.id, "two")
            assert await stores[0].resume(second, "one")
            await stores[0].end(second)
            await stores[0].end(second)
            for claim, store in ((first, stores[-1]), (second, stores[0])):
                assert await _is_refused(store, claim)
                store.release(claim)
            for secret in ("one", "two"):
                assert not await stores[-1].resume(self._claim(first.id, "x"), secret)

    async def test_a_record_stays_while_it_is_held_and_expires_after_that(self) -> None:
        """Its holder need not write anything."""
        async with self.stores() as stores:
            held, released = self._claim(window=self.window), self._claim(window=self.window)
            for claim in (held, released):
                await stores[0].create(claim)
            stores[0].release(released)
            await trio.sleep(3 * self.window)
            assert not await stores[-1].resume(self._claim(released.id, "two"), "one")
            assert await stores[-1].resume(self._claim(held.id, "two"), "one")

    async def test_a_claim_that_was_taken_does_not_release_the_record(self) -> None:
        """A connection may end long after another one has its session."""
        async with self.stores() as stores:
            first = self._claim(window=self.window)
            await stores[0].create(first)
            second = self._claim(first.id, "two", window=60.0)
            assert await stores[-1].resume(second, "one")
            stores[0].release(first)
            stores[-1].release(second)
            await trio.sleep(2 * self.window)
            assert await stores[0].resume(self._claim(first.id, "three"), "two")

    # Cancellation

    async def test_wherever_a_step_is_cancelled_the_session_can_be_resumed(self) -> None:
        """With the secret that the client has, and with a body that was saved."""
        async with self.stores() as stores:
            claim = self._claim(body=b"0")
            await stores[0].create(claim)
            bodies, secret = {b"0"}, "one"

            async def use() -> None:
                taken = self._claim(claim.id, secrets.token_hex(8))
                assert await stores[-1].resume(taken, secret)
                assert taken.body in bodies
                body = b"%d" % len(bodies)
                bodies.add(body)
                await stores[-1].save(taken, body)
                assert taken.body == body

            report = await cancel_everywhere(use)
            assert report.points
            last = self._claim(claim.id, "last")
            assert await stores[0].resume(last, secret)
            assert last.body in bodies

    async def test_a_cancelled_create_leaves_nothing_that_is_held(self) -> None:
        """The next one is not affected."""
        async with self.stores() as stores:

            async def create() -> None:
                await stores[0].create(self._claim())

            assert (await cancel_everywhere(create)).points
